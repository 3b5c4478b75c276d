//! The registry's snapshot: the endpoints as they are now, for all other parts.

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;

use crate::api::surface::EndpointView;
use crate::config::settings::Endpoint;
use crate::flow::settlement::EndpointIndex;
use crate::lane::cell::LaneView;
use crate::lane::sender::ReplaySender;
use crate::pipeline::lanes::LaneRunner;
use crate::store::endpoint_states::EndpointPause;
use crate::telemetry::metrics::EndpointMetrics;

/// Where an endpoint was made, and so who may change it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum EndpointOrigin {
    /// In the configuration file.
    File,
    /// Over the API.
    Api,
    /// A row of the table of `[endpoints_from]`.
    Table,
}

impl EndpointOrigin {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Api => "api",
            Self::Table => "table",
        }
    }
}

/// All endpoints in the order in which they were added, with those that are being removed.
#[derive(Debug, Default)]
pub(crate) struct EndpointSnapshot {
    pub(crate) listed: Vec<ListedEndpoint>,
    by_name: HashMap<Arc<str>, usize>,
    /// Names that endpoints are about to lose.
    renaming: HashSet<Arc<str>>,
}

/// One endpoint.
#[derive(Debug)]
pub(crate) struct ListedEndpoint {
    pub(crate) index: EndpointIndex,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) origin: EndpointOrigin,
    /// It is removed, and something still waits for it to become a dead letter.
    pub(crate) is_leaving: bool,
    /// The name that it has until the state has the other one.
    pub(crate) renaming: Option<Arc<str>>,
    /// Since when and by whom it is paused.
    pub(crate) paused: Option<EndpointPause>,
    /// Has the client that makes the requests from the next attempt on.
    pub(crate) runner: Arc<LaneRunner>,
    /// What operators send again goes in here.
    pub(crate) replays: ReplaySender,
    pub(crate) lane: LaneView,
    pub(crate) metrics: Arc<EndpointMetrics>,
}

impl ListedEndpoint {
    fn name(&self) -> Arc<str> {
        Arc::clone(&self.endpoint.name)
    }

    pub(crate) fn view(&self) -> EndpointView {
        EndpointView {
            name: Arc::clone(&self.endpoint.name),
            url: self.endpoint.shown_url(),
            state: match (self.is_leaving, self.endpoint.enabled, self.lane.is_gone()) {
                (true, _, _) => "removing",
                (false, true, _) if self.endpoint.unusable.is_some() => "refused",
                (false, false, _) => "disabled",
                (false, true, true) => "gone",
                (false, true, false) if self.paused.is_some() => "paused",
                (false, true, false) => "enabled",
            },
            paused: self.paused.as_ref().map(|pause| (pause.since, pause.by.clone())),
            is_slowed: self.lane.is_slowed(),
            source: self.origin.as_str(),
        }
    }
}

impl EndpointSnapshot {
    pub(crate) fn new(listed: Vec<ListedEndpoint>) -> Self {
        let name = |(place, shown): (usize, &ListedEndpoint)| (shown.name(), place);
        // Of those of one name, which the others have lost, the first counts.
        let by_name = listed.iter().enumerate().rev().map(name).collect();
        let renaming = listed.iter().filter_map(|shown| shown.renaming.clone()).collect();
        Self { listed, by_name, renaming }
    }

    /// As the status shows them.
    pub(crate) fn view(&self) -> Vec<EndpointView> {
        self.listed.iter().map(ListedEndpoint::view).collect()
    }

    /// Whether an endpoint has this name, or is about to lose it.
    pub(crate) fn knows(&self, name: &str) -> bool {
        self.by_name.contains_key(name) || self.renaming.contains(name)
    }

    pub(crate) fn find(&self, name: &str) -> Option<&ListedEndpoint> {
        self.listed.get(*self.by_name.get(name)?)
    }
}

/// An endpoint of the configuration file while the slot is another walhook's.
pub(crate) fn not_begun(endpoint: &Endpoint) -> EndpointView {
    EndpointView {
        name: Arc::clone(&endpoint.name),
        url: endpoint.shown_url(),
        state: if endpoint.enabled { "enabled" } else { "disabled" },
        paused: None,
        is_slowed: false,
        source: EndpointOrigin::File.as_str(),
    }
}
