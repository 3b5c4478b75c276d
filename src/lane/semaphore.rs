//! A counting semaphore whose number of places can change while it is used.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use tokio::sync::Semaphore;

/// A semaphore whose size can change at any time. Only the lane's task changes it and gives back.
#[derive(Debug)]
pub(super) struct CountedSemaphore {
    size: AtomicUsize,
    /// Places that are to go, and are taken still.
    owed: AtomicUsize,
    pub(super) free: Semaphore,
}

impl CountedSemaphore {
    pub(super) fn new(size: usize) -> Self {
        let (size, owed) = (limited(size), AtomicUsize::new(0));
        Self { size: AtomicUsize::new(size), owed, free: Semaphore::new(size) }
    }

    /// How many there are, taken or free.
    pub(super) fn size(&self) -> usize {
        self.size.load(Ordering::Relaxed)
    }

    /// Those that are taken.
    pub(super) fn taken(&self) -> usize {
        let all = self.size() + self.owed.load(Ordering::Relaxed);
        all.saturating_sub(self.free.available_permits())
    }

    /// Makes it so many. Those that are taken go when they are given back.
    pub(super) fn resize(&self, size: usize) {
        let size = limited(size);
        let before = self.size.swap(size, Ordering::Relaxed);
        if size > before {
            self.give_back(size - before);
        } else {
            let gone = self.free.forget_permits(before - size);
            self.owed.fetch_add(before - size - gone, Ordering::Relaxed);
        }
    }

    /// So many are free again.
    pub(super) fn give_back(&self, places: usize) {
        let owed = self.owed.load(Ordering::Relaxed);
        let paid = owed.min(places);
        self.owed.store(owed - paid, Ordering::Relaxed);
        self.free.add_permits(places - paid);
    }
}

/// Tokio's own limit is far beyond what fits in memory.
fn limited(size: usize) -> usize {
    size.min(Semaphore::MAX_PERMITS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum PermitStep {
        Take(usize),
        GiveBack(usize),
        Resize(usize),
    }

    fn step() -> impl Strategy<Value = PermitStep> {
        prop_oneof![
            (0..6usize).prop_map(PermitStep::Take),
            (0..6usize).prop_map(PermitStep::GiveBack),
            (1..12usize).prop_map(PermitStep::Resize),
        ]
    }

    proptest! {
        #[test]
        fn there_are_never_more_places_than_the_size_and_none_is_lost(
            size in 1..12usize,
            steps in prop::collection::vec(step(), 0..60),
        ) {
            let places = CountedSemaphore::new(size);
            let (mut size, mut taken) = (size, 0);
            for step in steps {
                match step {
                    PermitStep::Take(most) => {
                        let most = most.min(places.free.available_permits());
                        let permits = u32::try_from(most).unwrap();
                        places.free.try_acquire_many(permits).unwrap().forget();
                        taken += most;
                        prop_assert!(most == 0 || taken <= size);
                    }
                    PermitStep::GiveBack(most) => {
                        places.give_back(most.min(taken));
                        taken -= most.min(taken);
                    }
                    PermitStep::Resize(to) => {
                        places.resize(to);
                        size = to;
                    }
                }
                prop_assert_eq!((places.size(), places.taken()), (size, taken));
                prop_assert_eq!(places.free.available_permits(), size.saturating_sub(taken));
            }
        }
    }
}
