//! Brings the gauges up to date when somebody looks.

use std::sync::Arc;
use std::sync::OnceLock;

use tokio::sync::watch;

use crate::app::Handles;
use crate::config::settings::Endpoint;
use crate::flow::lsn::Lsn;
use crate::queue::gauges::Gauges;
use crate::queue::lane::breaker::BreakerState;
use crate::queue::sender::LaneSender;
use crate::telemetry::metrics::EndpointMetrics;
use crate::telemetry::metrics::ReplicationMetrics;

/// Where the numbers are and where they go.
pub(crate) struct Scrape {
    handles: Handles,
    replication: ReplicationMetrics,
    confirmed: watch::Receiver<Lsn>,
    /// Empty until the lanes are there.
    lanes: OnceLock<Vec<(EndpointMetrics, Arc<Gauges>)>>,
}

impl Scrape {
    pub(crate) fn new(handles: &Handles, confirmed: watch::Receiver<Lsn>) -> Self {
        let replication = handles.metrics.replication();
        Self { handles: handles.clone(), replication, confirmed, lanes: OnceLock::new() }
    }

    /// The lanes have started.
    pub(crate) fn watch(&self, endpoints: &[Endpoint], lanes: &[LaneSender]) {
        let metrics = endpoints.iter().map(|e| self.handles.metrics.endpoint(&e.name));
        let lanes = metrics.zip(lanes.iter().map(LaneSender::gauges)).collect();
        // Only the first call counts; there is no second one.
        drop(self.lanes.set(lanes));
    }

    pub(crate) fn refresh(&self) {
        for (metrics, gauges) in self.lanes.get().into_iter().flatten() {
            metrics.breaker_open.set(i64::from(gauges.breaker() != BreakerState::Closed));
        }
        let confirmed = *self.confirmed.borrow();
        self.handles.status.confirmed(confirmed);
        let view = self.handles.status.view();
        self.replication.set_connected(view.state == "streaming");
        self.replication.set_received(view.received_lsn.parse().unwrap_or_default());
        self.replication.set_confirmed(confirmed);
        self.replication.reconnects.inc_by(view.reconnects - self.replication.reconnects.get());
        let lag_bytes = view.wal.map_or(0, |wal| wal.lag_bytes);
        self.replication.set_lag(lag_bytes, self.handles.stats.lag(self.handles.clock.now()));
    }
}
