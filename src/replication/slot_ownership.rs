//! Whether the slot is ours, as far as we can know at this moment.
//!
//! ```text
//! stream: granted, lost ─▶ [SlotOwnership] ◀─ proven, every so often ─ app::fence
//!                            └─ is_open? ─▶ lanes, before each step of a request
//! ```
//!
//! PostgreSQL frees the slot of a walhook that it has not heard of for `wal_sender_timeout`. Then
//! another one may send, and this one must not: also if it was frozen, or its host suspended, and
//! knows nothing of it. So the right to send is a lease: it ends by itself, on a clock that goes on
//! meanwhile, well before the server gives up on us.
//!
//! Bytes that arrive do not prolong it: they may have waited in the socket's buffer since before
//! the server hung up, and while lanes are full nobody reads them. What does is the server's word
//! that our connection still holds the slot, in answer to a question that was asked just now.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::clock::since_boot;

/// No lease is longer, however long the server would wait.
const LEASE_MAX: Duration = Duration::from_secs(10);

/// Clones are one.
#[derive(Clone, Debug)]
pub(crate) struct SlotOwnership {
    shared: Arc<OwnershipShared>,
}

#[derive(Debug)]
struct OwnershipShared {
    lease: Duration,
    /// Microseconds since boot; 0 while there is no stream.
    until: AtomicU64,
    /// The server's process for our stream. A change of `until` is made under this lock.
    server_pid: Mutex<Option<i32>>,
}

impl SlotOwnership {
    /// The server frees the slot no sooner than `wal_sender_timeout` after the last feedback, which
    /// goes out at least every third of that: half of it leaves room for a late one.
    pub(crate) fn new(wal_sender_timeout: Duration) -> Self {
        let lease = (wal_sender_timeout / 2).min(LEASE_MAX);
        let shared =
            OwnershipShared { lease, until: AtomicU64::new(0), server_pid: Mutex::new(None) };
        Self { shared: Arc::new(shared) }
    }

    /// That of one who delivers nothing and only tries endpoints, which takes no right.
    pub(crate) fn of_trials() -> Self {
        let until = AtomicU64::new(u64::MAX);
        let shared = OwnershipShared { lease: LEASE_MAX, until, server_pid: Mutex::new(None) };
        Self { shared: Arc::new(shared) }
    }

    pub(crate) fn lease(&self) -> Duration {
        self.shared.lease
    }

    /// Whether requests may be made at this moment.
    pub(crate) fn is_open(&self) -> bool {
        micros(since_boot()) < self.shared.until.load(Ordering::Relaxed)
    }

    /// [`Self::is_open`] as a function.
    pub(crate) fn may_send(&self) -> Arc<dyn Fn() -> bool + Send + Sync> {
        let slot_ownership = self.clone();
        Arc::new(move || slot_ownership.is_open())
    }

    /// The server's process for our stream; `None` while there is none.
    pub(crate) fn server_pid(&self) -> Option<i32> {
        *self.locked()
    }

    /// The server has given us the slot; `asked` is when we asked for it, since boot.
    pub(crate) fn granted(&self, server_pid: i32, asked: Duration) {
        let mut ours = self.locked();
        *ours = Some(server_pid);
        self.shared.until.store(micros(asked + self.shared.lease), Ordering::Relaxed);
    }

    /// The server says that this process of it has the slot, in answer to a question of `asked`.
    /// Returns whether that is our stream's.
    pub(crate) fn proven(&self, server_pid: i32, asked: Duration) -> bool {
        let ours = self.locked();
        if *ours != Some(server_pid) {
            return false;
        }
        self.shared.until.fetch_max(micros(asked + self.shared.lease), Ordering::Relaxed);
        true
    }

    /// A lease of the state is ours for twice as long as this one from `asked` on, when it was asked for.
    pub(crate) fn leased(&self, asked: Duration) {
        let _unchanged = self.locked();
        self.shared.until.fetch_max(micros(asked + self.shared.lease), Ordering::Relaxed);
    }

    /// The stream has ended: anybody may have the slot.
    pub(crate) fn lost(&self) {
        let mut ours = self.locked();
        *ours = None;
        self.shared.until.store(0, Ordering::Relaxed);
    }

    fn locked(&self) -> MutexGuard<'_, Option<i32>> {
        self.shared.server_pid.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn micros(since_boot: Duration) -> u64 {
    u64::try_from(since_boot.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_open_only_for_the_lease_after_an_answer_about_this_stream() {
        let slot_ownership = SlotOwnership::new(Duration::from_secs(6));
        let now = since_boot();
        let ago = |seconds| now.saturating_sub(Duration::from_secs(seconds));
        assert!(!slot_ownership.is_open(), "no stream yet");
        assert!(!slot_ownership.proven(7, now) && !slot_ownership.is_open(), "somebody else's");
        slot_ownership.granted(7, ago(1));
        assert!(slot_ownership.is_open());
        slot_ownership.granted(8, ago(4));
        assert!(!slot_ownership.is_open(), "asked longer ago than the lease");
        assert!(!slot_ownership.proven(7, now) && !slot_ownership.is_open(), "the stream before");
        assert!(slot_ownership.proven(8, now) && slot_ownership.is_open());
        assert!(
            slot_ownership.proven(8, ago(5)) && slot_ownership.is_open(),
            "a late answer shortens nothing"
        );
        slot_ownership.lost();
        assert!(!slot_ownership.is_open());
        assert!(
            !slot_ownership.proven(8, now) && !slot_ownership.is_open(),
            "an answer that the loss overtook"
        );
    }
}
