//! Brings the gauges up to date when somebody looks.

use tokio::sync::watch;

use crate::app::Handles;
use crate::flow::lsn::Lsn;
use crate::telemetry::metrics::ReplicationMetrics;

/// Where the numbers are and where they go.
pub(crate) struct Scrape {
    handles: Handles,
    replication: ReplicationMetrics,
    confirmed: watch::Receiver<Lsn>,
}

impl Scrape {
    pub(crate) fn new(handles: &Handles, confirmed: watch::Receiver<Lsn>) -> Self {
        Self { handles: handles.clone(), replication: handles.metrics.replication(), confirmed }
    }

    pub(crate) fn refresh(&self) {
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
