//! Decides whether changes can be made, all of them, before one of them is.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::settings::Endpoint;
use crate::delivery::http::EndpointClient;
use crate::endpoints::registry::EndpointRegistry;
use crate::endpoints::registry::change::ChangePlan;
use crate::endpoints::registry::change::EndpointChange;
use crate::endpoints::registry::change::PlanStep;
use crate::endpoints::registry::change::RegistryError;

use crate::flow::settlement::EndpointIndex;
use crate::pipeline::lanes;

/// What a name stands for after the steps so far.
#[derive(Clone, Copy)]
enum PlannedEndpoint {
    /// `None` for one that this order adds.
    Present(Option<EndpointIndex>),
    Leaving,
}

impl EndpointRegistry {
    /// Builds the clients as well, so that carrying it out cannot fail for an endpoint's sake.
    pub(super) fn plan(&self, changes: Vec<EndpointChange>) -> Result<ChangePlan, RegistryError> {
        let standing = |(index, member): (&EndpointIndex, &super::RegisteredEndpoint)| {
            let standing = match member.is_leaving {
                true => PlannedEndpoint::Leaving,
                false => PlannedEndpoint::Present(Some(*index)),
            };
            (Arc::clone(&member.endpoint.name), standing)
        };
        let mut names: HashMap<Arc<str>, PlannedEndpoint> =
            self.members.iter().map(standing).collect();
        let mut steps = Vec::new();
        for change in changes {
            let step = self.step(change, &names)?;
            match &step {
                PlanStep::Add { endpoint, .. } => {
                    names.insert(Arc::clone(&endpoint.name), PlannedEndpoint::Present(None));
                }
                PlanStep::AddLeaving { endpoint, .. } => {
                    names.insert(Arc::clone(&endpoint.name), PlannedEndpoint::Leaving);
                }
                PlanStep::Replace { .. }
                | PlanStep::Events(_)
                | PlanStep::Pause { .. }
                | PlanStep::Resume { .. }
                | PlanStep::Paused { .. }
                | PlanStep::Enable { .. }
                | PlanStep::TryNow { .. }
                | PlanStep::Forget { .. }
                | PlanStep::AddTombstone(_) => {}
                PlanStep::Rename { index, rename, .. } => {
                    names.remove(&rename.from);
                    let renamed = PlannedEndpoint::Present(Some(*index));
                    names.insert(Arc::clone(&rename.to), renamed);
                }
                PlanStep::Remove { index } => {
                    let removed = self.members.get(index).map(|member| &member.endpoint.name);
                    names.extend(removed.map(|name| (Arc::clone(name), PlannedEndpoint::Leaving)));
                }
            }
            if names.len() > self.most && matches!(step, PlanStep::Add { .. }) {
                return Err(RegistryError::TooMany { most: self.most });
            }
            steps.push(step);
        }
        Ok(ChangePlan { steps })
    }

    fn step(
        &self,
        change: EndpointChange,
        names: &HashMap<Arc<str>, PlannedEndpoint>,
    ) -> Result<PlanStep, RegistryError> {
        match change {
            EndpointChange::Add { endpoint, origin } => {
                require_free(names, &endpoint.name)?;
                self.client(&endpoint)?; // whether one can be built
                Ok(PlanStep::Add { endpoint: Arc::from(endpoint), origin })
            }
            EndpointChange::Replace(endpoint) => {
                let index = find(names, &endpoint.name)?;
                let client = self.client(&endpoint)?;
                Ok(PlanStep::Replace { index, endpoint: Arc::from(endpoint), client })
            }
            EndpointChange::Rename { rename, endpoint } => {
                let index = find(names, &rename.from)?;
                require_free(names, &rename.to)?;
                let client = self.client(&endpoint)?;
                Ok(PlanStep::Rename { index, rename, endpoint: Arc::from(endpoint), client })
            }
            EndpointChange::Remove(name) => Ok(PlanStep::Remove { index: find(names, &name)? }),
            EndpointChange::Events(events) => Ok(PlanStep::Events(events)),
            EndpointChange::Pause { name, by } => {
                Ok(PlanStep::Pause { index: find(names, &name)?, by })
            }
            EndpointChange::Resume(name) => Ok(PlanStep::Resume { index: find(names, &name)? }),
            EndpointChange::Paused { name, pause } => {
                Ok(PlanStep::Paused { index: find(names, &name)?, pause })
            }
            EndpointChange::AddLeaving { endpoint, origin } => {
                require_free(names, &endpoint.name)?;
                Ok(PlanStep::AddLeaving { endpoint: Arc::from(endpoint), origin })
            }
            EndpointChange::Forget(name) => {
                let mut members = self.members.iter();
                let found =
                    members.find(|(_, member)| member.is_leaving && member.endpoint.name == name);
                let (index, _) = found.ok_or(RegistryError::Unknown { name })?;
                Ok(PlanStep::Forget { index: *index })
            }
            EndpointChange::AddTombstone(name) => Ok(PlanStep::AddTombstone(name)),
            EndpointChange::Enable(name) => Ok(PlanStep::Enable { index: find(names, &name)? }),
            EndpointChange::TryNow(name) => Ok(PlanStep::TryNow { index: find(names, &name)? }),
        }
    }

    fn client(&self, endpoint: &Endpoint) -> Result<Arc<EndpointClient>, RegistryError> {
        let client = lanes::client(endpoint, &self.common);
        client.map_err(|error| RegistryError::Unusable(format!("{error:#}")))
    }
}

/// Nobody has the name, and nobody is about to lose it.
fn require_free(
    names: &HashMap<Arc<str>, PlannedEndpoint>,
    name: &Arc<str>,
) -> Result<(), RegistryError> {
    let name = Arc::clone(name);
    match names.get(&name) {
        None => Ok(()),
        Some(PlannedEndpoint::Leaving) => Err(RegistryError::Leaving { name }),
        Some(PlannedEndpoint::Present(..)) => Err(RegistryError::NameTaken { name }),
    }
}

/// An endpoint that is there, and was before this order.
fn find(
    names: &HashMap<Arc<str>, PlannedEndpoint>,
    name: &Arc<str>,
) -> Result<EndpointIndex, RegistryError> {
    match names.get(name) {
        Some(PlannedEndpoint::Present(Some(index))) => Ok(*index),
        Some(PlannedEndpoint::Leaving) => Err(RegistryError::Leaving { name: Arc::clone(name) }),
        // One order has no reason to add an endpoint and to change it.
        Some(PlannedEndpoint::Present(None)) => {
            Err(RegistryError::NameTaken { name: Arc::clone(name) })
        }
        None => Err(RegistryError::Unknown { name: Arc::clone(name) }),
    }
}
