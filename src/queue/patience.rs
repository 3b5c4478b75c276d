//! How long a hand-over waits for room in lanes that have a backlog.
//!
//! To wait for an endpoint that keeps up is far cheaper than to go by way of the database. Endpoints
//! that share a processor are all slow together, and then nobody is kept waiting; so it counts how
//! long a lane takes after the first one that is ready for more, not how long it takes.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// How long a lane that has taken its share waits for the others.
pub(super) const FULL_PATIENCE: Duration = Duration::from_millis(250);

/// How long a hand-over waits at most where nobody has taken a share: lanes that share a processor
/// each get a part of it, so they have [`FULL_PATIENCE`] for each of them, up to this. PostgreSQL
/// keeps the WAL meanwhile. A read brings up to 750 rows for each lane, so one that is alone stays
/// out of the backlog if it makes 3,000 a second, and eight or more if each of them makes 375.
pub(super) const TOGETHER_MAX: Duration = Duration::from_secs(2);

/// The patience of one hand-over, with all of its lanes alike.
#[derive(Debug)]
pub(super) struct Patience {
    ends: watch::Sender<Instant>,
}

impl Patience {
    /// For so many lanes that have something to take.
    pub(super) fn begin(lanes: usize) -> Self {
        let lanes = u32::try_from(lanes).unwrap_or(u32::MAX);
        let together = FULL_PATIENCE.saturating_mul(lanes).min(TOGETHER_MAX);
        Self { ends: watch::Sender::new(Instant::now() + together) }
    }

    /// A lane has all of its share and would take more.
    pub(super) fn is_awaited(&self) {
        self.ends.send_if_modified(|ends| {
            let sooner = (*ends).min(Instant::now() + FULL_PATIENCE);
            std::mem::replace(ends, sooner) != sooner
        });
    }

    /// Waits until it has come to an end.
    pub(super) async fn ended(&self) {
        let mut ends = self.ends.subscribe();
        loop {
            let until = *ends.borrow_and_update();
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                // The sender of it is here, so that it cannot be gone.
                _ = ends.changed() => {}
            }
        }
    }
}
