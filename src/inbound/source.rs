//! A source as it runs: its settings, and what has come of its callbacks.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use crate::config::settings::InboundScheme;
use crate::config::settings::InboundSource;
use crate::flow::time::Timestamp;
use crate::inbound::callback_store::CallbackTables;
use crate::inbound::refusal::InboundRefusal;
use crate::telemetry::metrics::InboundMetrics;

/// One log line a reason and source in this time: anyone who knows the URL could fill the disk.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// A source and its counts. Shared by all connections.
#[derive(Debug)]
pub(crate) struct RunningSource {
    pub settings: InboundSource,
    pub tables: CallbackTables,
    metrics: InboundMetrics,
    last_received: Mutex<Option<Timestamp>>,
    /// When each reason was last logged, and how often it came since.
    logged: Mutex<[(Option<tokio::time::Instant>, u64); InboundRefusal::ALL.len()]>,
}

impl RunningSource {
    pub(crate) fn new(settings: InboundSource, metrics: InboundMetrics) -> Arc<Self> {
        let tables =
            CallbackTables { callbacks: settings.table.clone(), nonces: settings.nonces.clone() };
        let (last_received, logged) = (Mutex::default(), Mutex::default());
        Arc::new(Self { settings, tables, metrics, last_received, logged })
    }

    /// A callback came in at `now`.
    pub(crate) fn received(&self, now: Timestamp) {
        self.metrics.received.inc();
        *self.last_received.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    /// It became a row.
    pub(crate) fn kept(&self) {
        self.metrics.kept.inc();
    }

    /// There was a row of it already.
    pub(crate) fn repeated(&self) {
        self.metrics.repeats.inc();
    }

    /// It was answered with success.
    pub(crate) fn answered_within(&self, took: Duration) {
        self.metrics.answer.observe(took.as_secs_f64());
    }

    /// It was refused: counted always, logged with a limit.
    pub(crate) fn refused(&self, refusal: InboundRefusal) {
        self.metrics.refused(refusal.as_str()).inc();
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let place = InboundRefusal::ALL.iter().position(|one| *one == refusal);
        let Some((last, unsaid)) = place.and_then(|place| logged.get_mut(place)) else { return };
        *unsaid += 1;
        if last.is_some_and(|last| last.elapsed() < LOG_EVERY) {
            return;
        }
        *last = Some(tokio::time::Instant::now());
        let count = std::mem::take(unsaid);
        let (source, reason) = (&*self.settings.name, refusal.as_str());
        let fix = refusal.hint();
        tracing::warn!(source, reason, count, fix, "callbacks are refused");
    }

    /// As `GET /api/v1/webhooks/handlers` shows it.
    pub(crate) fn shown(&self) -> Value {
        let kind = match &self.settings.scheme {
            InboundScheme::Wecom(keys) if keys.is_robot => "wecom-robot",
            InboundScheme::Wecom(_) => "wecom",
            InboundScheme::StandardWebhooks { .. } => "standard-webhooks",
            InboundScheme::Hmac(_) => "hmac",
        };
        let refused: serde_json::Map<String, Value> = InboundRefusal::ALL
            .iter()
            .map(|one| (one.as_str(), self.metrics.refused(one.as_str()).get()))
            .filter(|(_, count)| *count > 0)
            .map(|(reason, count)| (reason.to_owned(), count.into()))
            .collect();
        let last = *self.last_received.lock().unwrap_or_else(PoisonError::into_inner);
        json!({
            "name": self.settings.name,
            "kind": kind,
            "path": self.settings.path,
            "table": self.settings.table.to_string(),
            "received": self.metrics.received.get(),
            "kept": self.metrics.kept.get(),
            "repeats": self.metrics.repeats.get(),
            "refused": refused,
            "last_received": last.map(Timestamp::iso_millis),
        })
    }
}
