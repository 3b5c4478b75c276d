//! Gives memory that is free back to the operating system, also when there is nothing to do.
//!
//! mimalloc, the allocator that `main` chose, gives back what has been free for a moment, but looks for
//! it only when a block as large as its segments is freed. After one large row that could take hours.
//! So such a block is taken and freed now and then; nobody writes to it, so it takes no memory.

use std::hint::black_box;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

const INTERVAL: Duration = Duration::from_secs(2);

/// More than half a segment of mimalloc 2, which is 32 MiB: it gets a segment of its own.
const BLOCK_BYTES: usize = 20 * 1024 * 1024;

/// Does so until `stop`. Never fails.
pub(crate) async fn give_back(stop: CancellationToken) -> anyhow::Result<()> {
    let mut ticks = tokio::time::interval(INTERVAL);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            _ = ticks.tick() => {
                let mut block = Vec::<u8>::new();
                // A system that does not promise so much is asked again the next time.
                block.try_reserve_exact(BLOCK_BYTES).ok();
                drop(black_box(block));
            }
        }
    }
}
