//! Whether an operator has paused or cancelled a backfill: it looks in the state while it waits.

use std::time::Duration;

use crate::backfill::context::BackfillContext;
use crate::backfill::run_error::RunError;
use crate::flow::backfill::BackfillId;
use crate::store::backfills;
use crate::store::backfills::BackfillState;

/// How often a backfill that waits looks whether an operator has paused or cancelled it.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Whether nobody has paused or cancelled it.
pub(super) async fn is_running(
    service: &BackfillContext,
    id: BackfillId,
) -> Result<bool, RunError> {
    let mut session = service.pool.session().await?;
    let found = backfills::list(session.client(), service.slot(), Some(id.0), 1).await?;
    Ok(found.first().is_some_and(|found| found.state == BackfillState::Running))
}
