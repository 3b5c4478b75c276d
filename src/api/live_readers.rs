//! Who reads `/api/v1/live`: few at a time, and nobody who does not take what comes.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Readers at a time. One costs a look at the newest attempts twice a second.
pub(super) const READERS_MAX: usize = 16;

/// Nobody who reads leaves an event lying for so long.
pub(super) const SLOW: Duration = Duration::from_secs(20);

/// Who reads, and when each took something last. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct LiveReaders {
    taken: Arc<Mutex<Vec<Arc<ReaderPlace>>>>,
    pub(super) stop: CancellationToken,
}

/// One reader's place. It is given up when the reader has gone, or is too slow.
#[derive(Debug)]
pub(super) struct ReaderPlace {
    last: Mutex<Instant>,
    pub(super) lost: CancellationToken,
}

impl LiveReaders {
    /// Nobody reads any more once `stop` is cancelled.
    pub(crate) fn new(stop: CancellationToken) -> Self {
        Self { taken: Arc::default(), stop }
    }

    fn taken(&self) -> MutexGuard<'_, Vec<Arc<ReaderPlace>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place, if there is one: those of readers that take nothing are given up first.
    pub(super) fn enter(&self, now: Instant) -> Option<Arc<ReaderPlace>> {
        let mut taken = self.taken();
        if taken.len() >= READERS_MAX {
            taken.retain(|place| {
                let is_slow = now.saturating_duration_since(place.last()) > SLOW;
                if is_slow {
                    place.lost.cancel();
                }
                !is_slow
            });
        }
        if taken.len() >= READERS_MAX {
            return None;
        }
        let place = ReaderPlace { last: Mutex::new(now), lost: CancellationToken::new() };
        let place = Arc::new(place);
        taken.push(Arc::clone(&place));
        Some(place)
    }

    pub(super) fn leave(&self, place: &Arc<ReaderPlace>) {
        self.taken().retain(|other| !Arc::ptr_eq(other, place));
    }
}

impl ReaderPlace {
    pub(super) fn last(&self) -> Instant {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn took(&self, now: Instant) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn places_are_few_and_go_first_from_those_who_take_nothing() {
        let readers = LiveReaders::new(CancellationToken::new());
        let begun = Instant::now();
        let first = readers.enter(begun).expect("a place");
        let others: Vec<_> = (1..READERS_MAX).map(|_| readers.enter(begun)).collect();
        assert!(readers.enter(begun).is_none(), "there are no more");
        readers.leave(&first);
        assert!(readers.enter(begun).is_some(), "one has gone");
        let later = begun + SLOW + Duration::from_secs(1);
        others.iter().flatten().take(2).for_each(|place| place.took(later));
        assert!(readers.enter(later).is_some());
        assert_eq!(readers.taken().len(), 3, "those that take something, and the new one");
        let lost = others.iter().flatten().filter(|place| place.lost.is_cancelled()).count();
        assert_eq!(lost, READERS_MAX - 3);
    }
}
