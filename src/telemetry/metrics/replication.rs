//! What is measured of the replication stream and its slot.

use std::time::Duration;

use prometheus::Gauge;
use prometheus::IntCounter;
use prometheus::IntGauge;
use prometheus::Registry;

use crate::flow::lsn::Lsn;
use crate::telemetry::metrics::spec;
use crate::telemetry::metrics::spec::MetricSpec;
use crate::telemetry::metrics::spec::counters;
use crate::telemetry::metrics::spec::gauges;
use crate::telemetry::metrics::spec::options;
use crate::telemetry::metrics::spec::registered;

/// The replication stream and its slot.
#[derive(Clone, Debug)]
pub(crate) struct ReplicationMetrics {
    connected: IntGauge,
    lag_bytes: IntGauge,
    lag_seconds: Gauge,
    retained_wal: IntGauge,
    safe_wal: Gauge,
    clock_ahead: Gauge,
    problems: IntGauge,
    blocked: IntGauge,
    received: IntGauge,
    confirmed: IntGauge,
    /// Streams connected again after a loss.
    pub reconnects: IntCounter,
}

impl ReplicationMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let gauge = |spec: &MetricSpec| gauges(registry, spec).with_label_values::<&str>(&[]);
        let float = |spec: &MetricSpec| registered(registry, Gauge::with_opts(options(spec)));
        let safe_wal = float(&spec::SLOT_SAFE_WAL);
        safe_wal.set(f64::INFINITY);
        Self {
            connected: gauge(&spec::REPLICATION_CONNECTED),
            lag_bytes: gauge(&spec::REPLICATION_LAG_BYTES),
            lag_seconds: float(&spec::REPLICATION_LAG_SECONDS),
            safe_wal,
            clock_ahead: float(&spec::CLOCK_AHEAD),
            retained_wal: gauge(&spec::SLOT_RETAINED_WAL),
            blocked: gauge(&spec::BLOCKED_BY_STANDBY),
            problems: gauge(&spec::SOURCE_PROBLEMS),
            received: gauge(&spec::RECEIVED_LSN),
            confirmed: gauge(&spec::CONFIRMED_LSN),
            reconnects: counters(registry, &spec::RECONNECTS).with_label_values::<&str>(&[]),
        }
    }

    pub(crate) fn set_connected(&self, connected: bool) {
        self.connected.set(i64::from(connected));
    }

    /// WAL that is not confirmed, and the age of the oldest commit that is not settled.
    pub(crate) fn set_lag(&self, bytes: u64, age: Duration) {
        self.lag_bytes.set(as_gauge(bytes));
        self.lag_seconds.set(age.as_secs_f64());
    }

    /// Whether the server holds changes back until a standby has them.
    pub(crate) fn set_blocked(&self, blocked: bool) {
        self.blocked.set(i64::from(blocked));
    }

    pub(crate) fn set_retained_wal(&self, bytes: u64) {
        self.retained_wal.set(as_gauge(bytes));
    }

    /// WAL that can be written before the slot may be lost; `None`: there is no limit.
    pub(crate) fn set_safe_wal(&self, bytes: Option<u64>) {
        #[expect(clippy::cast_precision_loss, reason = "bytes on a graph")]
        self.safe_wal.set(bytes.map_or(f64::INFINITY, |bytes| bytes as f64));
    }

    /// WAL that is kept, and how much more can be written, if there is a limit.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "bytes that were put in as a whole number"
    )]
    pub(super) fn wal(&self) -> (u64, Option<u64>) {
        let retained = u64::try_from(self.retained_wal.get()).unwrap_or(0);
        let safe = Some(self.safe_wal.get()).filter(|safe| safe.is_finite());
        (retained, safe.map(|safe| safe as u64))
    }

    /// How far the database's clock is ahead of this host's.
    pub(crate) fn set_clock_ahead(&self, seconds: f64) {
        self.clock_ahead.set(seconds);
    }

    /// What tables and publication lack at the moment.
    pub(crate) fn set_problems(&self, count: usize) {
        self.problems.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(crate) fn set_received(&self, lsn: Lsn) {
        self.received.set(as_gauge(lsn.raw()));
    }

    pub(crate) fn set_confirmed(&self, lsn: Lsn) {
        self.confirmed.set(as_gauge(lsn.raw()));
    }
}

fn as_gauge(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
