//! What a lane has to know about its endpoint.

use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::config::settings;
use crate::config::settings::Batch;
use crate::config::settings::Endpoint;
use crate::config::settings::Ordering;
use crate::config::settings::Retry;
use crate::flow::backlog::Standing;
use crate::flow::settlement::EndpointIndex;

/// The part of an endpoint's settings that decides when its events are sent.
#[derive(Clone, Debug)]
pub struct LaneSettings {
    pub endpoint: EndpointIndex,
    pub name: Arc<str>,
    pub retry: Retry,
    pub concurrency: NonZeroUsize,
    pub batch: Batch,
    pub ordering: Ordering,
    /// Events in memory at once. Whoever offers events keeps to it.
    pub capacity: NonZeroUsize,
    /// Requests started per second.
    pub rate_limit: Option<f64>,
    /// `None` where there is no backlog: everything waits in memory, and a full lane makes its
    /// sender wait.
    pub parking: Option<Parking>,
}

/// A backlog to park in.
#[derive(Clone, Debug)]
pub struct Parking {
    pub terms: settings::Parking,
    /// What the endpoint's backlog holds at the start; `None` if nothing.
    pub standing: Option<Standing>,
}

impl LaneSettings {
    /// The settings of a lane without a backlog.
    pub fn of(index: EndpointIndex, endpoint: &Endpoint) -> Self {
        Self {
            endpoint: index,
            name: Arc::clone(&endpoint.name),
            retry: endpoint.retry.clone(),
            concurrency: endpoint.concurrency,
            batch: endpoint.batch,
            ordering: endpoint.ordering,
            capacity: endpoint.capacity,
            rate_limit: endpoint.rate_limit,
            parking: None,
        }
    }

    /// The settings of a lane that can park, whose backlog holds `standing` at the start.
    pub fn with_backlog(
        index: EndpointIndex,
        endpoint: &Endpoint,
        standing: Option<Standing>,
    ) -> Self {
        let parking = Some(Parking { terms: endpoint.parking.clone(), standing });
        Self { parking, ..Self::of(index, endpoint) }
    }
}
