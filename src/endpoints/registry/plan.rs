//! Decides whether changes can be made, all of them, before one of them is.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::endpoints_from::ENDPOINTS_MAX;
use crate::config::settings::Endpoint;
use crate::config::settings::EventRule;
use crate::delivery::http::EndpointClient;
use crate::endpoints::registry::EndpointRegistry;
use crate::endpoints::registry::snapshot::EndpointOrigin;
use crate::flow::settlement::EndpointIndex;
use crate::pipeline::lanes;
use crate::store::renames::EndpointRename;
use crate::store::state_error::StateError;

/// One change of the endpoints.
#[derive(Clone, Debug)]
pub(crate) enum EndpointChange {
    Add {
        endpoint: Box<Endpoint>,
        origin: EndpointOrigin,
    },
    /// Other settings under the same name.
    Replace(Box<Endpoint>),
    /// Another name, and maybe other settings: all that is known of it goes along.
    Rename {
        rename: EndpointRename,
        endpoint: Box<Endpoint>,
    },
    /// What waits for it becomes dead letters.
    Remove(Arc<str>),
    /// Nothing is sent, and what comes waits in the backlog, until it is resumed.
    Pause {
        name: Arc<str>,
        by: String,
    },
    Resume(Arc<str>),
    /// It takes events again after it said 410.
    Enable(Arc<str>),
    /// What waits is tried at once, its schedule begun anew.
    TryNow(Arc<str>),
    /// Other filters, ages and payloads of the events, which are the same otherwise.
    Events(Arc<[EventRule]>),
}

/// Why changes were not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegistryError {
    #[error("there is an endpoint {name} already: choose another name, or change that one")]
    NameTaken { name: Arc<str> },
    #[error(
        "endpoint {name} is being removed, and what waited for it is becoming dead letters: try \
         again in a moment, or choose another name"
    )]
    Leaving { name: Arc<str> },
    #[error(
        "there is no endpoint {name}: `walhook endpoints list` and /api/v1/endpoints show those that there are"
    )]
    Unknown { name: Arc<str> },
    #[error("there are {ENDPOINTS_MAX} endpoints, which is the most: remove some")]
    TooMany,
    #[error("{0}")]
    Unusable(String),
    #[error("endpoint {from} cannot be called {to}: {why}")]
    NotRenamed { from: Arc<str>, to: Arc<str>, why: String },
    #[error("it could not be written down, and so nothing was changed: try again")]
    Unsaved(#[source] Box<StateError>),
    #[error("walhook is shutting down: try again when it runs")]
    Stopping,
}

/// Changes that can be made.
pub(super) struct ChangePlan {
    pub(super) steps: Vec<PlanStep>,
}

pub(super) enum PlanStep {
    Add {
        endpoint: Arc<Endpoint>,
        origin: EndpointOrigin,
        client: Arc<EndpointClient>,
    },
    Replace {
        index: EndpointIndex,
        endpoint: Arc<Endpoint>,
        client: Arc<EndpointClient>,
    },
    Rename {
        index: EndpointIndex,
        rename: EndpointRename,
        endpoint: Arc<Endpoint>,
        client: Arc<EndpointClient>,
    },
    Remove {
        index: EndpointIndex,
    },
    Events(Arc<[EventRule]>),
    Pause {
        index: EndpointIndex,
        by: String,
    },
    Resume {
        index: EndpointIndex,
    },
    Enable {
        index: EndpointIndex,
    },
    TryNow {
        index: EndpointIndex,
    },
}

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
                PlanStep::Replace { .. }
                | PlanStep::Events(_)
                | PlanStep::Pause { .. }
                | PlanStep::Resume { .. }
                | PlanStep::Enable { .. }
                | PlanStep::TryNow { .. } => {}
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
            if names.len() > ENDPOINTS_MAX && matches!(step, PlanStep::Add { .. }) {
                return Err(RegistryError::TooMany);
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
                let client = self.client(&endpoint)?;
                Ok(PlanStep::Add { endpoint: Arc::from(endpoint), origin, client })
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
