//! Decides whether changes can be made, all of them, before one of them is.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::endpoints_from::ENDPOINTS_MAX;
use crate::config::settings::Endpoint;
use crate::config::settings::EventRule;
use crate::delivery::http::Client;
use crate::endpoints::registry::Fleet;
use crate::endpoints::registry::snapshot::Origin;
use crate::flow::settlement::EndpointIndex;
use crate::pipeline::lanes;
use crate::store::state_error::StateError;

/// One change of the endpoints.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Add {
        endpoint: Box<Endpoint>,
        origin: Origin,
    },
    /// Other settings under the same name.
    Replace(Box<Endpoint>),
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
pub(crate) enum FleetError {
    #[error("there is an endpoint {name} already: choose another name, or change that one")]
    NameTaken { name: Arc<str> },
    #[error(
        "endpoint {name} is being removed, and what waited for it is becoming dead letters: try \
         again in a moment, or choose another name"
    )]
    Leaving { name: Arc<str> },
    #[error("there is no endpoint {name}")]
    Unknown { name: Arc<str> },
    #[error("there are {ENDPOINTS_MAX} endpoints, which is the most: remove some")]
    TooMany,
    #[error("{0}")]
    Unusable(String),
    #[error("it could not be written down, and so nothing was changed: try again")]
    Unsaved(#[source] Box<StateError>),
    #[error("walhook is shutting down: try again when it runs")]
    Stopping,
}

/// Changes that can be made.
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
}

pub(super) enum Step {
    Add { endpoint: Arc<Endpoint>, origin: Origin, client: Arc<Client> },
    Replace { index: EndpointIndex, endpoint: Arc<Endpoint>, client: Arc<Client> },
    Remove { index: EndpointIndex },
    Events(Arc<[EventRule]>),
    Pause { index: EndpointIndex, by: String },
    Resume { index: EndpointIndex },
    Enable { index: EndpointIndex },
    TryNow { index: EndpointIndex },
}

/// What a name stands for after the steps so far.
#[derive(Clone, Copy)]
enum Standing {
    /// `None` for one that this order adds.
    Present(Option<EndpointIndex>),
    Leaving,
}

impl Fleet {
    /// Builds the clients as well, so that carrying it out cannot fail for an endpoint's sake.
    pub(super) fn plan(&self, changes: Vec<Change>) -> Result<Plan, FleetError> {
        let standing = |(index, member): (&EndpointIndex, &super::Member)| {
            let standing = match member.is_leaving {
                true => Standing::Leaving,
                false => Standing::Present(Some(*index)),
            };
            (Arc::clone(&member.endpoint.name), standing)
        };
        let mut names: HashMap<Arc<str>, Standing> = self.members.iter().map(standing).collect();
        let mut steps = Vec::new();
        for change in changes {
            let step = self.step(change, &names)?;
            match &step {
                Step::Add { endpoint, .. } => {
                    names.insert(Arc::clone(&endpoint.name), Standing::Present(None));
                }
                Step::Replace { .. }
                | Step::Events(_)
                | Step::Pause { .. }
                | Step::Resume { .. }
                | Step::Enable { .. }
                | Step::TryNow { .. } => {}
                Step::Remove { index } => {
                    let removed = self.members.get(index).map(|member| &member.endpoint.name);
                    names.extend(removed.map(|name| (Arc::clone(name), Standing::Leaving)));
                }
            }
            if names.len() > ENDPOINTS_MAX && matches!(step, Step::Add { .. }) {
                return Err(FleetError::TooMany);
            }
            steps.push(step);
        }
        Ok(Plan { steps })
    }

    fn step(
        &self,
        change: Change,
        names: &HashMap<Arc<str>, Standing>,
    ) -> Result<Step, FleetError> {
        match change {
            Change::Add { endpoint, origin } => {
                let name = Arc::clone(&endpoint.name);
                match names.get(&name) {
                    None => {}
                    Some(Standing::Leaving) => return Err(FleetError::Leaving { name }),
                    Some(Standing::Present(..)) => return Err(FleetError::NameTaken { name }),
                }
                let client = self.client(&endpoint)?;
                Ok(Step::Add { endpoint: Arc::from(endpoint), origin, client })
            }
            Change::Replace(endpoint) => {
                let index = find(names, &endpoint.name)?;
                let client = self.client(&endpoint)?;
                Ok(Step::Replace { index, endpoint: Arc::from(endpoint), client })
            }
            Change::Remove(name) => Ok(Step::Remove { index: find(names, &name)? }),
            Change::Events(events) => Ok(Step::Events(events)),
            Change::Pause { name, by } => Ok(Step::Pause { index: find(names, &name)?, by }),
            Change::Resume(name) => Ok(Step::Resume { index: find(names, &name)? }),
            Change::Enable(name) => Ok(Step::Enable { index: find(names, &name)? }),
            Change::TryNow(name) => Ok(Step::TryNow { index: find(names, &name)? }),
        }
    }

    fn client(&self, endpoint: &Endpoint) -> Result<Arc<Client>, FleetError> {
        let client = lanes::client(endpoint, &self.common);
        client.map_err(|error| FleetError::Unusable(format!("{error:#}")))
    }
}

/// An endpoint that is there, and was before this order.
fn find(names: &HashMap<Arc<str>, Standing>, name: &Arc<str>) -> Result<EndpointIndex, FleetError> {
    match names.get(name) {
        Some(Standing::Present(Some(index))) => Ok(*index),
        Some(Standing::Leaving) => Err(FleetError::Leaving { name: Arc::clone(name) }),
        // One order has no reason to add an endpoint and to change it.
        Some(Standing::Present(None)) => Err(FleetError::NameTaken { name: Arc::clone(name) }),
        None => Err(FleetError::Unknown { name: Arc::clone(name) }),
    }
}
