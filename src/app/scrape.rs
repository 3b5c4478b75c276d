//! Brings the gauges up to date when somebody looks.

use std::sync::Arc;

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
    lanes: Vec<(EndpointMetrics, Arc<Gauges>)>,
}

impl Scrape {
    pub(crate) fn new(
        endpoints: &[Endpoint],
        lanes: &[LaneSender],
        handles: &Handles,
        confirmed: watch::Receiver<Lsn>,
    ) -> Self {
        let metrics = endpoints.iter().map(|endpoint| handles.metrics.endpoint(&endpoint.name));
        let lanes = metrics.zip(lanes.iter().map(LaneSender::gauges)).collect();
        let replication = handles.metrics.replication();
        Self { handles: handles.clone(), replication, confirmed, lanes }
    }

    pub(crate) fn refresh(&self) {
        for (metrics, gauges) in &self.lanes {
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
