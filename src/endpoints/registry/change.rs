//! What can be changed about the endpoints, and why a change is not made.

use std::sync::Arc;

use crate::config::settings::Endpoint;
use crate::config::settings::EventRule;
use crate::delivery::http::EndpointClient;
use crate::endpoints::registry::snapshot::EndpointOrigin;
use crate::flow::settlement::EndpointIndex;
use crate::store::endpoint_states::EndpointPause;
use crate::store::renames::EndpointRename;
use crate::store::shared_endpoints::SharedChangeError;
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
    /// Others have written down that it is paused, or is no more.
    Paused {
        name: Arc<str>,
        pause: Option<EndpointPause>,
    },
    /// It was removed before it was known here: it gets nothing, and what waits for it becomes dead letters.
    AddLeaving {
        endpoint: Box<Endpoint>,
        origin: EndpointOrigin,
    },
    /// One that was removed: the owner of its partition owes it nothing more.
    Forget(Arc<str>),
    /// There is none of this name any more, and what still comes for it becomes dead letters.
    AddTombstone(Arc<str>),
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
    #[error(
        "there are {most} endpoints, which is the most: remove some, or raise [memory] endpoints"
    )]
    TooMany { most: usize },
    #[error("{0}")]
    Unusable(String),
    #[error("endpoint {from} cannot be called {to}: {why}")]
    NotRenamed { from: Arc<str>, to: Arc<str>, why: String },
    #[error("it could not be written down, and so nothing was changed: try again")]
    Unsaved(#[source] Box<StateError>),
    /// Another member was quicker.
    #[error("nothing was changed: other members change endpoints at the same moment; try again")]
    VersionConflict,
    #[error("nothing was changed")]
    NotShared(#[source] Box<SharedChangeError>),
    #[error("walhook is shutting down: try again when it runs")]
    Stopping,
}

impl From<StateError> for RegistryError {
    fn from(error: StateError) -> Self {
        Self::Unsaved(Box::new(error))
    }
}

impl From<SharedChangeError> for RegistryError {
    fn from(error: SharedChangeError) -> Self {
        match error {
            SharedChangeError::VersionConflict => Self::VersionConflict,
            SharedChangeError::State(error) => Self::Unsaved(error),
            error @ SharedChangeError::NotShared { .. } => Self::NotShared(Box::new(error)),
        }
    }
}

/// Changes that can be made.
pub(super) struct ChangePlan {
    pub(super) steps: Vec<PlanStep>,
}

pub(super) enum PlanStep {
    Add {
        endpoint: Arc<Endpoint>,
        origin: EndpointOrigin,
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
    Paused {
        index: EndpointIndex,
        pause: Option<EndpointPause>,
    },
    AddLeaving {
        endpoint: Arc<Endpoint>,
        origin: EndpointOrigin,
    },
    Forget {
        index: EndpointIndex,
    },
    AddTombstone(Arc<str>),
}
