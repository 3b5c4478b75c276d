//! Changes of endpoints carried out: saved, told to ledger and pump, and put into the lanes.

use std::sync::Arc;

use anyhow::Context;

use crate::config::settings::Endpoint;
use crate::config::settings::EventRule;
use crate::delivery::http::EndpointClient;
use crate::endpoints::registry::EndpointRegistry;
use crate::endpoints::registry::RegisteredRule;
use crate::endpoints::registry::RequestResult;
use crate::endpoints::registry::change::ChangePlan;
use crate::endpoints::registry::change::EndpointChange;
use crate::endpoints::registry::change::PlanStep;
use crate::endpoints::registry::snapshot::EndpointOrigin;
use crate::endpoints::registry::target;
use crate::flow::settlement::EndpointIndex;
use crate::lane::message::LaneChange;
use crate::lane::sender::LaneSender;
use crate::lane::settings::LaneSettings;
use crate::store::endpoints::StoredEndpoint;

impl EndpointRegistry {
    /// The outer error is the pipeline's: it cannot go on.
    pub(super) async fn make(
        &mut self,
        changes: Vec<EndpointChange>,
        save: Option<StoredEndpoint>,
    ) -> anyhow::Result<RequestResult> {
        let plan = match self.plan(changes) {
            Ok(plan) => plan,
            Err(error) => return Ok(Err(error)),
        };
        if !plan.steps.is_empty() && plan.steps.iter().all(PlanStep::is_for_a_lane) {
            return self.tell_lanes(plan.steps).await;
        }
        if let Err(error) = self.look_at_renames(&plan).await {
            return Ok(Err(error));
        }
        let saved = match save {
            Some(row) => match self.endpoint_store.save(&row).await {
                Ok(row) => Some(row),
                Err(error) => return Ok(Err(error)),
            },
            None => None,
        };
        self.carry_out(plan).await?;
        Ok(Ok(saved))
    }

    pub(super) async fn carry_out(&mut self, plan: ChangePlan) -> anyhow::Result<()> {
        let (mut opened, mut closed, mut listed) = (Vec::new(), Vec::new(), Vec::new());
        let (mut after, mut events, mut renamed) = (Vec::new(), None, Vec::new());
        for step in plan.steps {
            match step {
                PlanStep::Add { endpoint, origin } => {
                    let is_enabled = endpoint.enabled;
                    let (index, lane) = self.add_counted(endpoint, origin).await;
                    opened.push((index, lane));
                    listed.push(index);
                    if !is_enabled {
                        after.push((index, LaneChange::Disable));
                    }
                }
                PlanStep::Rename { index, rename, endpoint, client } => {
                    self.settle_in(index, endpoint, client, &mut after).await?;
                    renamed.push((index, rename));
                    listed.push(index);
                }
                PlanStep::Replace { index, endpoint, client } => {
                    self.settle_in(index, endpoint, client, &mut after).await?;
                    listed.push(index);
                }
                // Such an order is made of nothing else: see `pauses`.
                PlanStep::Pause { .. }
                | PlanStep::Resume { .. }
                | PlanStep::Paused { .. }
                | PlanStep::Enable { .. }
                | PlanStep::TryNow { .. } => {}
                PlanStep::Events(others) => {
                    self.try_now_what_takes(&others).await?;
                    for (rule, other) in self.rules.iter_mut().zip(&*others) {
                        rule.settings = other.clone();
                    }
                    events = Some(others);
                }
                PlanStep::Remove { index } => {
                    closed.push(index);
                    self.leave(index, &mut after);
                }
                PlanStep::AddLeaving { endpoint, origin } => {
                    let (index, _lane) = self.add(endpoint, origin);
                    listed.push(index);
                    self.leave(index, &mut after);
                }
                PlanStep::Forget { index } => after.push((index, LaneChange::Delete)),
                PlanStep::AddTombstone(name) => listed.push(self.add_tombstone(name)),
            }
        }
        let (edit, known) = self.edit(&listed);
        match renamed.is_empty() {
            true => {
                self.senders.ledger.send(edit).await.context("the ledger has ended")?;
                known.await.context("the ledger has ended")?;
            }
            false => self.rename(edit, known, renamed).await?,
        }
        let (update, taken) = self.update(opened, closed, events);
        self.senders.pump.send(update).await.context("the source has ended")?;
        taken.await.context("the source has ended")?;
        // Behind the last events that the pump has handed over.
        for (index, change) in after {
            if let Some(member) = self.members.get(&index) {
                member.control.change(change).await?;
            }
        }
        self.show();
        Ok(())
    }

    /// Starts a lane, and counts what there is of one of its name that was there before.
    async fn add_counted(
        &mut self,
        endpoint: Arc<Endpoint>,
        origin: EndpointOrigin,
    ) -> (EndpointIndex, LaneSender) {
        let letters = self.endpoint_store.letters(&endpoint.name).await;
        let metrics = self.common.handles.metrics.endpoint(&endpoint.name);
        metrics.dead_letters.set(letters);
        self.add(endpoint, origin)
    }

    /// The endpoint gets no more events; `after` those that it has got it is given up, unless a partition's owner
    /// delivers to it and says when it is gone.
    fn leave(&mut self, index: EndpointIndex, after: &mut Vec<(EndpointIndex, LaneChange)>) {
        if let Some(member) = self.members.get_mut(&index) {
            member.is_leaving = true;
        }
        if !self.is_kept(index) {
            after.push((index, LaneChange::Delete));
        }
    }

    /// A number for what still comes under the name of an endpoint that is no more.
    fn add_tombstone(&mut self, name: Arc<str>) -> EndpointIndex {
        let index = self.next;
        self.next = EndpointIndex(index.0 + 1);
        self.tombstones.insert(index, name);
        index
    }

    /// Gives an endpoint that there is other settings.
    pub(super) async fn settle_in(
        &mut self,
        index: EndpointIndex,
        endpoint: Arc<Endpoint>,
        client: Arc<EndpointClient>,
        after: &mut Vec<(EndpointIndex, LaneChange)>,
    ) -> anyhow::Result<()> {
        let Some(member) = self.members.get_mut(&index) else { return Ok(()) };
        let before = std::mem::replace(&mut member.endpoint, endpoint);
        if before.name != member.endpoint.name {
            member.metrics = self.common.handles.metrics.endpoint(&member.endpoint.name);
        }
        member.runner.replace(Arc::clone(&member.endpoint), client);
        let settings = LaneSettings::with_backlog(index, &member.endpoint, None);
        let change = LaneChange::Settings(Box::new(settings));
        member.control.change(change).await?;
        match (before.enabled, member.endpoint.enabled) {
            (false, true) => member.control.change(LaneChange::Enable).await?,
            (true, false) => after.push((index, LaneChange::Disable)),
            (true, true) | (false, false) => {}
        }
        if target::is_other(&before, &member.endpoint) {
            member.control.change(LaneChange::TryNow).await?;
        }
        Ok(())
    }

    /// Has what waits tried where an event's payload or filter changes: what failed before may be taken now.
    pub(super) async fn try_now_what_takes(&mut self, others: &[EventRule]) -> anyhow::Result<()> {
        let is_other = |(rule, other): &(&RegisteredRule, &EventRule)| {
            rule.settings.payload != other.payload || rule.settings.filter != other.filter
        };
        let changed = self.rules.iter().zip(others).filter(is_other);
        let changed: Vec<&EventRule> = changed.map(|(_, other)| other).collect();
        for member in self.members.values() {
            if changed.iter().any(|rule| member.endpoint.takes(rule)) {
                member.control.change(LaneChange::TryNow).await?;
            }
        }
        Ok(())
    }
}
