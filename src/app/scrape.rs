//! Brings the gauges up to date when somebody looks.

use std::sync::Arc;

use tokio::sync::watch;

use crate::app::Handles;
use crate::config::settings::Endpoint;
use crate::flow::lsn::Lsn;
use crate::queue::gauges::Gauges;
use crate::telemetry::metrics::EndpointMetrics;
use crate::telemetry::metrics::ReplicationMetrics;

/// Where the numbers are and where they go.
pub(crate) struct Scrape {
    lanes: Vec<(EndpointMetrics, Arc<Gauges>)>,
    handles: Handles,
    replication: ReplicationMetrics,
    confirmed: watch::Receiver<Lsn>,
}

impl Scrape {
    pub(crate) fn new(
        endpoints: &[Endpoint],
        gauges: Vec<Arc<Gauges>>,
        handles: &Handles,
        confirmed: watch::Receiver<Lsn>,
    ) -> Self {
        let metrics = endpoints.iter().map(|endpoint| handles.metrics.endpoint(&endpoint.name));
        Self {
            lanes: metrics.zip(gauges).collect(),
            handles: handles.clone(),
            replication: handles.metrics.replication(),
            confirmed,
        }
    }

    pub(crate) fn refresh(&self) {
        for (metrics, gauges) in &self.lanes {
            let counts = gauges.counts();
            let pending = counts.queued + counts.in_flight + counts.retrying;
            metrics.pending_memory.set(i64::try_from(pending).unwrap_or(i64::MAX));
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
