//! Limits the sockets of deliveries: fewer than the process may have, so that PostgreSQL, the HTTP
//! surface and files always get theirs, however many endpoints there are.
//!
//! What finds no socket is walhook's own trouble: it spends no retry, no endpoint is blamed for it, and
//! the readiness says so.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use rustix::process::Resource;
use rustix::process::Rlimit;
use rustix::process::getrlimit;
use rustix::process::setrlimit;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// What the rest of walhook needs, at least, and as a part of all.
const RESERVE: u64 = 128;
const RESERVE_PART: u64 = 8;

/// More than this is of no use, and `unlimited` is no number.
const LIMIT_MAX: u64 = 1 << 20;

/// No more than this part of all is free: connections are closed after use rather than kept.
const SCARCE_PART: usize = 8;

/// How long an attempt waits for a socket, and no longer than half of its time.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a lack is told of after it was met last.
const TOLD_FOR: Duration = Duration::from_secs(10);

/// The sockets of all deliveries. Clones share them.
#[derive(Clone, Debug)]
pub struct Sockets(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    free: Arc<Semaphore>,
    all: usize,
    lack: Mutex<Option<(Instant, String)>>,
}

/// None became free in time.
#[derive(Debug, thiserror::Error)]
#[error(
    "all sockets that deliveries may hold are in use ({all}): raise walhook's limit of file \
     descriptors (LimitNOFILE), or lower `concurrency`"
)]
pub(crate) struct NoSocket {
    all: usize,
}

/// Raises the limit of file descriptors as far as this process may; returns what it is then.
pub fn raise_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(LIMIT_MAX).min(LIMIT_MAX);
    let current = limit.current.unwrap_or(LIMIT_MAX);
    if current >= most {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: limit.maximum }) {
        Ok(()) => {
            tracing::debug!(from = current, to = most, "raised the limit of file descriptors");
            most
        }
        Err(error) => {
            let error = std::io::Error::from(error);
            tracing::warn!(limit = current, %error, "cannot raise the limit of file descriptors");
            current
        }
    }
}

/// How many sockets deliveries may hold under a limit of file descriptors.
pub(crate) fn within(limit: u64) -> usize {
    let left = limit.saturating_sub(RESERVE.max(limit / RESERVE_PART)).max(limit / 4).max(1);
    usize::try_from(left).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS)
}

impl Sockets {
    /// As many as this process's limit leaves.
    pub fn of_this_process() -> Self {
        Self::new(within(getrlimit(Resource::Nofile).current.unwrap_or(LIMIT_MAX)))
    }

    /// So many.
    pub fn new(all: usize) -> Self {
        let free = Arc::new(Semaphore::new(all));
        Self(Arc::new(Inner { free, all, lack: Mutex::default() }))
    }

    /// Why deliveries cannot be made for want of means of this process or host, if that is so.
    pub fn lack(&self, now: Instant) -> Option<String> {
        let lack = self.0.lack.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, what) = lack.as_ref()?;
        (now.saturating_duration_since(*at) < TOLD_FOR).then(|| what.clone())
    }

    /// An attempt came to nothing for want of `what`.
    pub(crate) fn note_lack(&self, now: Instant, what: &str) {
        let is_told = self.lack(now).is_some();
        let mut lack = self.0.lack.lock().unwrap_or_else(PoisonError::into_inner);
        *lack = Some((now, what.to_owned()));
        if !is_told {
            tracing::error!(
                why = what,
                "deliveries wait: no endpoint is to blame, no retry is spent"
            );
        }
    }

    /// A socket's worth, for as long as it is kept.
    pub(crate) async fn take(&self, timeout: Duration) -> Result<OwnedSemaphorePermit, NoSocket> {
        let wait = PATIENCE.min(timeout / 2);
        let free = Arc::clone(&self.0.free).acquire_owned();
        match tokio::time::timeout(wait, free).await {
            Ok(Ok(socket)) => Ok(socket),
            Ok(Err(_)) | Err(_) => Err(NoSocket { all: self.0.all }),
        }
    }

    /// Whether connections that are not in use should be given up for others.
    pub(crate) fn is_scarce(&self) -> bool {
        self.0.free.available_permits() <= self.0.all / SCARCE_PART
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_finds_none_waits_and_hears_it() {
        let sockets = Sockets::new(1);
        let one = sockets.take(Duration::from_secs(1)).await.unwrap();
        let began = Instant::now();
        let none = sockets.take(Duration::from_secs(1)).await.unwrap_err();
        assert_eq!(began.elapsed(), Duration::from_millis(500), "half of its time");
        assert!(sockets.lack(Instant::now()).is_none());
        sockets.note_lack(Instant::now(), &none.to_string());
        assert!(sockets.lack(Instant::now()).unwrap().contains("LimitNOFILE"));
        drop(one);
        assert!(sockets.take(Duration::from_secs(1)).await.is_ok());
        tokio::time::sleep(TOLD_FOR).await;
        assert!(sockets.lack(Instant::now()).is_none());
    }

    #[test]
    fn the_rest_of_walhook_always_has_its_reserve() {
        let cases = [(1024, 896), (65_536, 57_344), (256, 128), (64, 16), (2, 1)];
        for (limit, expected) in cases {
            assert_eq!(within(limit), expected, "limit {limit}");
        }
        assert!(raise_limit() > 0);
    }
}
