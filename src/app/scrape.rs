//! Brings the gauges up to date before a scrape or a sample reads them.

use std::sync::Arc;
use std::sync::OnceLock;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::endpoints::registry::RegistryHandle;
use crate::endpoints::registry::partition_snapshots::PartitionSnapshots;
use crate::endpoints::registry::snapshot::ListedEndpoint;
use crate::flow::lsn::Lsn;
use crate::lane::core::breaker::BreakerState;
use crate::pipeline::handles::SharedHandles;
use crate::telemetry::metrics::ReplicationMetrics;
use crate::telemetry::obstacles::NamedObstacle;

/// Where the numbers are and where they go.
pub(crate) struct MetricsScrape {
    handles: SharedHandles,
    replication: ReplicationMetrics,
    confirmed: watch::Receiver<Lsn>,
    /// There when the slot is ours.
    registry: Arc<OnceLock<RegistryHandle>>,
    partitions: PartitionSnapshots,
}

impl MetricsScrape {
    pub(crate) fn new(
        registry: Arc<OnceLock<RegistryHandle>>,
        partitions: PartitionSnapshots,
        handles: &SharedHandles,
        confirmed: watch::Receiver<Lsn>,
    ) -> Self {
        let replication = handles.metrics.replication();
        Self { handles: handles.clone(), replication, confirmed, registry, partitions }
    }

    pub(crate) fn refresh(&self) {
        let mut snapshots = self.partitions.served();
        snapshots.extend(self.registry.get().map(RegistryHandle::snapshot));
        let listed = snapshots.iter().flat_map(|snapshot| &snapshot.listed);
        for ListedEndpoint { metrics, lane, paused, .. } in listed {
            metrics.paused.set(i64::from(paused.is_some()));
            metrics.breaker_open.set(i64::from(lane.breaker() != BreakerState::Closed));
        }
        let refused = i64::try_from(self.handles.refused.count()).unwrap_or(i64::MAX);
        self.handles.metrics.endpoints_refused().set(refused);
        for obstacle in NamedObstacle::ALL {
            let is_there = match obstacle {
                NamedObstacle::State => self.handles.state.readiness(Instant::now()).is_err(),
                other => self.handles.obstacles.get(other).is_some(),
            };
            self.handles.metrics.set_obstacle(obstacle, is_there);
        }
        let confirmed = *self.confirmed.borrow();
        self.handles.status.confirmed(confirmed);
        let view = self.handles.status.view();
        self.replication.set_connected(view.state == "streaming");
        self.handles.metrics.set_role(match view.state {
            "standby" => Some("standby"),
            "starting" | "stopping" => None,
            _ => Some("active"),
        });
        self.replication.set_received(view.received_lsn.parse().unwrap_or_default());
        self.replication.set_confirmed(confirmed);
        self.replication.set_clock_ahead(self.handles.clock.ahead_seconds());
        self.replication.reconnects.inc_by(view.reconnects - self.replication.reconnects.get());
        let lag_bytes = view.wal.map_or(0, |wal| wal.lag_bytes);
        self.replication.set_lag(lag_bytes, self.handles.stats.lag(self.handles.clock.now()));
    }
}
