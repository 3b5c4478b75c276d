//! What an operator tells a lane beside its settings: to pause and to go on, to take events again
//! after a 410, to try at once what waits. A pause is written down before it holds.

use std::collections::HashMap;

use crate::endpoints::registry::EndpointRegistry;
use crate::endpoints::registry::RequestResult;
use crate::endpoints::registry::change::PlanStep;
use crate::endpoints::registry::change::RegistryError;
use crate::endpoints::registry::target;
use crate::flow::settlement::EndpointIndex;
use crate::lane::message::LaneChange;
use crate::store::endpoint_states::EndpointState;
use crate::store::shared_endpoints::EndpointOrder;

impl PlanStep {
    /// Whether only the endpoint's lane has to hear of it.
    pub(super) fn is_for_a_lane(&self) -> bool {
        match self {
            Self::Pause { .. }
            | Self::Resume { .. }
            | Self::Paused { .. }
            | Self::Enable { .. }
            | Self::TryNow { .. } => true,
            Self::Add { .. }
            | Self::Replace { .. }
            | Self::Rename { .. }
            | Self::Remove { .. }
            | Self::AddLeaving { .. }
            | Self::Forget { .. }
            | Self::AddTombstone(_)
            | Self::Events(_) => false,
        }
    }
}

impl EndpointRegistry {
    /// Pauses those that were paused when walhook ended, and has tried at once what waits for those
    /// that point elsewhere since.
    pub(super) async fn take_up(&mut self, states: &[EndpointState]) -> anyhow::Result<()> {
        let known: HashMap<&str, &EndpointState> =
            states.iter().map(|state| (&*state.endpoint, state)).collect();
        let mut targets = Vec::new();
        for member in self.members.values_mut().filter(|member| !member.is_leaving) {
            let (name, state) = (&member.endpoint.name, known.get(&*member.endpoint.name));
            let target = target::fingerprint(&member.endpoint);
            let before = state.and_then(|state| state.target);
            if before != Some(target) {
                targets.push((name.clone(), target));
            }
            if before.is_some_and(|before| before != target) {
                tracing::info!(endpoint = %name, "points elsewhere: what waits is tried at once");
                member.control.change(LaneChange::TryNow).await?;
            }
            if let Some(pause) = state.and_then(|state| state.pause.clone()) {
                let (since, by) = (pause.since.iso_millis(), &pause.by);
                tracing::warn!(endpoint = %name, since, by, "endpoint is paused: its events are parked");
                member.control.change(LaneChange::Pause).await?;
                member.paused = Some(pause);
            }
        }
        if let Err(error) = self.endpoint_store.remember(&targets).await {
            let error = format!("{:#}", anyhow::Error::new(error));
            tracing::warn!(error, "cannot write down where the endpoints point");
        }
        Ok(())
    }

    /// Carries out steps of which only lanes hear.
    pub(super) async fn tell_lanes(
        &mut self,
        steps: Vec<PlanStep>,
    ) -> anyhow::Result<RequestResult> {
        for step in steps {
            let (index, change, paused) = match step {
                PlanStep::Pause { index, by } => {
                    let Some(member) = self.members.get(&index) else { continue };
                    match self.endpoint_store.pause(&member.endpoint.name, &by).await {
                        Ok(pause) => (index, LaneChange::Pause, Some(Some(pause))),
                        Err(error) => return Ok(Err(error)),
                    }
                }
                PlanStep::Resume { index } => {
                    let Some(member) = self.members.get(&index) else { continue };
                    match self.endpoint_store.resume(&member.endpoint.name).await {
                        Ok(()) => (index, LaneChange::Resume, Some(None)),
                        Err(error) => return Ok(Err(error)),
                    }
                }
                PlanStep::Paused { index, pause } => match &pause {
                    Some(_) => (index, LaneChange::Pause, Some(pause)),
                    None => (index, LaneChange::Resume, Some(None)),
                },
                PlanStep::Enable { index } => {
                    if let Err(error) = self.order(index, EndpointOrder::Enable).await {
                        return Ok(Err(error));
                    }
                    (index, LaneChange::Enable, None)
                }
                PlanStep::TryNow { index } => {
                    if let Err(error) = self.order(index, EndpointOrder::TryNow).await {
                        return Ok(Err(error));
                    }
                    (index, LaneChange::TryNow, None)
                }
                PlanStep::Add { .. }
                | PlanStep::Replace { .. }
                | PlanStep::Rename { .. }
                | PlanStep::Remove { .. }
                | PlanStep::AddLeaving { .. }
                | PlanStep::Forget { .. }
                | PlanStep::AddTombstone(_)
                | PlanStep::Events(_) => {
                    continue;
                }
            };
            let Some(member) = self.members.get_mut(&index) else { continue };
            member.control.change(change).await?;
            if let Some(paused) = paused {
                member.paused = paused;
            }
        }
        self.show();
        Ok(Ok(None))
    }

    /// Where partitions' owners deliver, writes down for them what is wanted.
    async fn order(
        &mut self,
        index: EndpointIndex,
        what: EndpointOrder,
    ) -> Result<(), RegistryError> {
        let Some(member) = self.members.get(&index) else { return Ok(()) };
        self.endpoint_store.order(&member.endpoint.name, what).await
    }
}
