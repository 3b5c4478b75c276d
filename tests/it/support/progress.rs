//! Waits that end for want of progress, not because a machine is slow.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// Waits until `count` is at least `wanted`, however long that takes, and gives up where nothing comes
/// for `patience`. Returns whether it got there.
pub(crate) async fn reach(
    mut count: watch::Receiver<usize>,
    wanted: usize,
    patience: Duration,
) -> bool {
    while *count.borrow_and_update() < wanted {
        if !matches!(timeout(patience, count.changed()).await, Ok(Ok(()))) {
            return *count.borrow() >= wanted;
        }
    }
    true
}
