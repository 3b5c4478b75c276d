//! What a lane has to know about its endpoint.

use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::config::settings::Batch;
use crate::config::settings::Endpoint;
use crate::config::settings::Ordering;
use crate::config::settings::Retry;
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
}

impl LaneSettings {
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
        }
    }
}
