//! What a lane has to know about its endpoint.

use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::config::settings;
use crate::config::settings::BatchSettings;
use crate::config::settings::Endpoint;
use crate::config::settings::KeyOrdering;
use crate::config::settings::RetrySettings;
use crate::flow::backlog::BacklogStanding;
use crate::flow::budget::EVENT_OVERHEAD_BYTES;
use crate::flow::event::Event;
use crate::flow::settlement::EndpointIndex;

/// The unit of weights: a semaphore's permits are 32-bit per call.
const WEIGHT_BYTES: usize = 256;

/// The part of an endpoint's settings that decides when its events are sent.
#[derive(Clone, Debug)]
pub struct LaneSettings {
    pub endpoint: EndpointIndex,
    pub name: Arc<str>,
    pub retry: RetrySettings,
    pub concurrency: NonZeroUsize,
    pub batch: BatchSettings,
    pub ordering: KeyOrdering,
    /// Events in memory at once. Its senders keep to it.
    pub capacity: NonZeroUsize,
    /// What its events in memory may hold in bytes: see [`LaneSettings::weight`].
    pub share_bytes: usize,
    /// Requests started per second.
    pub rate_limit: Option<f64>,
    /// `None` where there is no backlog: everything waits in memory, and a full lane makes its
    /// sender wait.
    pub parking: Option<LaneParking>,
}

/// A backlog to park in.
#[derive(Clone, Debug)]
pub struct LaneParking {
    pub terms: settings::ParkingSettings,
    /// What the endpoint's backlog holds at the start; `None` if nothing.
    pub standing: Option<BacklogStanding>,
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
            share_bytes: usize::MAX,
            rate_limit: endpoint.rate_limit,
            parking: None,
        }
    }

    /// Whether the endpoint's schedule holds whatever it answers: it has no circuit breaker.
    pub(super) fn is_steady(&self) -> bool {
        self.parking.as_ref().is_some_and(|parking| parking.terms.breaker.is_none())
    }

    /// The same, with no more than this share of the memory budget: an endpoint that is dead must
    /// leave the others theirs.
    pub fn within(self, share_bytes: usize) -> Self {
        Self { share_bytes, ..self }
    }

    /// What an event weighs in the lane's share, in units of [`WEIGHT_BYTES`]. One that is larger
    /// than the share weighs as much as all of it: it passes alone.
    pub(super) fn weight(&self, event: &Event) -> usize {
        let bytes = event.body.held_bytes() + EVENT_OVERHEAD_BYTES;
        bytes.div_ceil(WEIGHT_BYTES).clamp(1, self.share())
    }

    /// The whole share, in the same units.
    pub(super) fn share(&self) -> usize {
        // Far beyond what fits in memory, and what a semaphore takes in one call.
        (self.share_bytes / WEIGHT_BYTES).clamp(1, u32::MAX as usize >> 4)
    }

    /// The settings of a lane that can park, whose backlog holds `standing` at the start.
    pub fn with_backlog(
        index: EndpointIndex,
        endpoint: &Endpoint,
        standing: Option<BacklogStanding>,
    ) -> Self {
        let parking = Some(LaneParking { terms: endpoint.parking.clone(), standing });
        Self { parking, ..Self::of(index, endpoint) }
    }
}
