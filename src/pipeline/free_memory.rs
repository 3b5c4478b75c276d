//! Gives memory that is free back to the operating system, also when there is nothing to do.
//!
//! mimalloc, the allocator that `main` chose, gives back what has been free for a moment, but each thread
//! looks for it only while it takes and frees blocks itself: what it took and others freed, as they
//! do with events, it keeps for as long as it rests. So each thread does something now and then.

use std::hint::black_box;
use std::pin::pin;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

const INTERVAL: Duration = Duration::from_secs(2);

/// mimalloc 2 looks through a thread's pages after so many blocks of more than 1 KiB
/// (`generic_collect` of its options). They take a fifth of a millisecond.
const BLOCKS: usize = 10_000;
const BLOCK_BYTES: usize = 2 * 1024;

/// Freeing a block of more than half a segment, which is 32 MiB, makes it look at what all threads
/// have given back to it. Nobody writes to the block, so it takes no memory.
const LARGE_BLOCK_BYTES: usize = 20 * 1024 * 1024;

/// Does `work`, and meanwhile gives back what is free of the memory of the thread that it runs on.
pub(crate) async fn given_back_during<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            _ = ticks.tick() => give_back(),
        }
    }
}

fn give_back() {
    for _ in 0..BLOCKS {
        drop(black_box(Vec::<u8>::with_capacity(BLOCK_BYTES)));
    }
    let mut large = Vec::<u8>::new();
    // A system that does not promise so much is asked again the next time.
    large.try_reserve_exact(LARGE_BLOCK_BYTES).ok();
    drop(black_box(large));
}
