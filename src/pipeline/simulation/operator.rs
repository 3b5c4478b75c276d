//! What operators do with the endpoints of a run: pause them, change and remove them, and send dead letters
//! again.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use crate::config::settings::Endpoint;
use crate::flow::settlement::EndpointIndex;
use crate::flow::settlement::ReplayId;
use crate::lane::message::LaneChange;
use crate::lane::message::ReplayedDelivery;
use crate::lane::settings::LaneSettings;
use crate::pipeline::simulation::interleave::InterleavedStage;
use crate::pipeline::simulation::registry::ModelRegistry;

impl ModelRegistry {
    /// What an operator does at this moment, if anything.
    pub(super) async fn look(&mut self) -> anyhow::Result<()> {
        let (due, gone, is_struck, is_healed) = {
            let mut world = self.terms.world.lock();
            let (now, odds) = (world.now(), world.scenario.operator_odds);
            let is_struck = world.strikes(odds);
            let endpoints = world.scenario.endpoints.iter().enumerate();
            let is_new = |number: &usize| {
                !world.state.present.contains(number) && !world.state.removed.contains(number)
            };
            let added = |at: Option<Duration>| at.is_some_and(|at| at <= now);
            let due: Vec<usize> = endpoints
                .clone()
                .filter(|(number, endpoint)| added(endpoint.added) && is_new(number))
                .map(|(number, _)| number)
                .collect();
            let gone: Vec<usize> = endpoints
                .filter(|(number, endpoint)| {
                    added(endpoint.removed) && world.state.present.contains(number)
                })
                .map(|(number, _)| number)
                .collect();
            (due, gone, is_struck, world.is_healed)
        };
        for number in due {
            self.join(number).await?;
        }
        for number in gone {
            self.leave(number).await?;
        }
        self.resend(is_struck).await?;
        let paused = self.terms.world.lock().state.paused.clone();
        if is_healed {
            for number in paused {
                self.pause(number, false).await?;
            }
        } else if is_struck {
            self.meddle().await?;
        }
        Ok(())
    }

    /// Sends letters again that got lost on their way, and, if an operator asks for it, dead ones: what
    /// `redelivery` does.
    async fn resend(&mut self, asked: bool) -> anyhow::Result<()> {
        let world = self.terms.world.clone();
        for member in self.members.values().filter(|member| !member.is_leaving) {
            let name = Arc::clone(&member.endpoint.name);
            let claimed = {
                let mut world = world.lock();
                if world.scenario.endpoints[member.number].removed.is_some() {
                    continue; // its letters would be taken back
                }
                self.resent = &self.resent & &world.state.resending();
                let claimed = world.state.claim(&name, asked, &self.resent);
                if let Some((_, event, true)) = &claimed {
                    // At once, so that the metrics balance.
                    let balance = self.terms.metrics.balance(&name, &event.table);
                    balance.dead.dec();
                    balance.pending.inc();
                }
                claimed
            };
            let Some((number, event, _)) = claimed else { continue };
            world.point("a letter was claimed").await;
            self.resent.insert(number);
            let (id, lane) = (ReplayId::Letter(number), member.replays.clone());
            // It may wait until the endpoint is well again.
            let send = async move {
                lane.send(vec![ReplayedDelivery { id, event }]).await.ok();
                Ok(())
            };
            let stage = InterleavedStage::new(&world, "a replay", send);
            self.terms.stages.try_send(stage).ok().context("too many replays")?;
        }
        Ok(())
    }

    async fn meddle(&mut self) -> anyhow::Result<()> {
        let (index, choice, concurrency) = {
            let mut world = self.terms.world.lock();
            let choices: Vec<EndpointIndex> = self.members.keys().copied().collect();
            if choices.is_empty() {
                return Ok(());
            }
            let dice = &mut world.dice;
            (dice.pick(&choices), dice.index(4), dice.pick(&[1, 2, 8]))
        };
        let Some(member) = self.members.get_mut(&index).filter(|member| !member.is_leaving) else {
            return Ok(());
        };
        let number = member.number;
        match choice {
            0 => self.pause(number, true).await,
            1 => self.pause(number, false).await,
            2 => Ok(member.control.change(LaneChange::TryNow).await?),
            _ => {
                let concurrency = NonZeroUsize::new(concurrency).unwrap();
                let endpoint = Endpoint { concurrency, ..(*member.endpoint).clone() };
                let settings = LaneSettings::with_backlog(index, &endpoint, None);
                member.endpoint = Arc::new(endpoint);
                self.terms.world.lock().note(|_| format!("e{number} takes {concurrency} at once"));
                let change = LaneChange::Settings(Box::new(settings));
                Ok(member.control.change(change).await?)
            }
        }
    }

    async fn pause(&mut self, number: usize, paused: bool) -> anyhow::Result<()> {
        self.terms.world.pass(0..5).await;
        {
            let mut world = self.terms.world.lock();
            world.note(|_| format!("e{number} is paused: {paused}"));
            match paused {
                true => drop(world.state.paused.insert(number)),
                false => drop(world.state.paused.remove(&number)),
            }
        }
        self.terms.world.point("a pause was saved").await;
        // One that was removed is not there any more for an operator.
        let mut members = self.members.values().filter(|member| !member.is_leaving);
        let Some(member) = members.find(|member| member.number == number) else { return Ok(()) };
        let change = if paused { LaneChange::Pause } else { LaneChange::Resume };
        Ok(member.control.change(change).await?)
    }
}
