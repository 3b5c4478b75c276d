//! The ledger as a task: its channels, and how long it is waited for.

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::store::state_error::StateError;

/// Messages between the pump and the ledger; each is what one read from PostgreSQL brought.
pub(super) const OPENED_MAX: usize = 64;

/// Reports between the lanes and the ledger: the lanes go on while it hands a flush to the database, or
/// has to wait for a processor. With four they stand still for an eighth of a flood. One may hold
/// dozens of responses of up to 64 KiB, or all events of a lane in a few batches.
pub(super) const REPORTS_MAX: usize = 16;

/// Runs the ledger while patience lasts.
pub(super) async fn run_ledger(
    run: impl Future<Output = Result<(), StateError>>,
    patience: impl Future<Output = ()>,
    ended: oneshot::Sender<()>,
    done: CancellationToken,
) -> anyhow::Result<()> {
    let outcome = tokio::select! {
        outcome = run => outcome,
        () = patience => Ok(()),
    };
    if outcome.is_ok() {
        // Nobody listens any more if the source has failed.
        ended.send(()).ok();
    }
    // Whatever the outcome, nothing is sent any more.
    done.cancel();
    Ok(outcome?)
}
