//! An endpoint gets another name: its lane, what waits and what is dead stay what they are.
//!
//! ```text
//! no lane reads the backlog ─▶ ledger: one flush with the old name, and the state has the new one
//!                           ─▶ the lane reads under the new name ─▶ pump, as with other settings
//! ```
//!
//! Its number is the same before and after, so nothing that is in memory or under way hears of it.

use std::sync::Arc;

use anyhow::Context;
use tokio::sync::oneshot;

use crate::endpoints::registry::EndpointRegistry;
use crate::endpoints::registry::change::ChangePlan;
use crate::endpoints::registry::change::PlanStep;
use crate::endpoints::registry::change::RegistryError;
use crate::flow::settlement::EndpointIndex;
use crate::ledger::EndpointsEdit;
use crate::store::renames::EndpointRename;

/// Rows of the state that one flush can give another name while deliveries wait for it: 7 s on a busy machine,
/// which is well within what an answer is waited for.
const ROWS_MAX: i64 = 250_000;

impl EndpointRegistry {
    /// Whether the state lets these endpoints have other names.
    pub(super) async fn look_at_renames(&mut self, plan: &ChangePlan) -> Result<(), RegistryError> {
        for step in &plan.steps {
            let PlanStep::Rename { rename, .. } = step else { continue };
            let EndpointRename { from, to, .. } = rename;
            let found = self.endpoint_store.rename_obstacles(from, to).await;
            let found = found.map_err(|error| RegistryError::Unsaved(Box::new(error)))?;
            let why = if found.taken > 0 {
                format!(
                    "{} deliveries of an earlier endpoint {to} are parked or dead: discard them, or \
                     choose another name",
                    found.taken
                )
            } else if found.resending > 0 {
                format!(
                    "{} of its dead letters are being sent again: wait until they are, or cancel that",
                    found.resending
                )
            } else if found.replays > 0 {
                "a replay to it runs or is paused: wait until it is done, or cancel it".to_owned()
            } else if found.rows > ROWS_MAX {
                format!(
                    "{} of its deliveries are parked or dead, and while that many get another name \
                     nothing can be delivered: wait until they are {ROWS_MAX} at most",
                    found.rows
                )
            } else {
                continue;
            };
            let (from, to) = (Arc::clone(from), Arc::clone(to));
            return Err(RegistryError::NotRenamed { from, to, why });
        }
        Ok(())
    }

    /// Has the ledger carry out an edit that gives endpoints other names.
    pub(super) async fn rename(
        &mut self,
        mut edit: EndpointsEdit,
        known: oneshot::Receiver<()>,
        renamed: Vec<(EndpointIndex, EndpointRename)>,
    ) -> anyhow::Result<()> {
        let backlog = Arc::clone(&self.common.backlog);
        let reading_paused = backlog.pause_reading().await;
        for (index, rename) in &renamed {
            if let Some(member) = self.members.get_mut(index) {
                member.renaming = Some(Arc::clone(&rename.from));
            }
        }
        self.show();
        edit.renamed = renamed.iter().map(|(_, rename)| rename.clone()).collect();
        self.senders.ledger.send(edit).await.context("the ledger has ended")?;
        known.await.context("the ledger has ended")?;
        for (index, EndpointRename { from, to, by, .. }) in renamed {
            let Some(member) = self.members.get_mut(&index) else { continue };
            member.runner.rename(Arc::clone(&to));
            member.renaming = None;
            // A sample or a request may have looked at it once more meanwhile.
            self.common.handles.metrics.forget_endpoint(&from);
            self.common.handles.samples.rename(&from, &to);
            tracing::warn!(%from, endpoint = %to, who = by, "endpoint is renamed, and what waits goes along");
        }
        drop(reading_paused);
        Ok(())
    }
}
