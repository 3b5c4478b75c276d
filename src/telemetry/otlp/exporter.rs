//! What goes to the collector, and when: spans in batches, the metrics at their interval.
//!
//! Nobody waits for it. What the collector does not take is tried again a few times; meanwhile the queue of spans
//! fills, and what finds no room there is dropped and counted.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::metrics::v1::ResourceMetrics;
use opentelemetry_proto::tonic::metrics::v1::ScopeMetrics;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
use opentelemetry_proto::tonic::trace::v1::ScopeSpans;
use prometheus::IntCounter;
use prost::Message;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::config::secret::Secret;
use crate::config::settings::CollectorSettings;
use crate::flow::time::Timestamp;
use crate::telemetry::metrics::WalhookMetrics;
use crate::telemetry::otlp::series;
use crate::telemetry::otlp::series::SeriesTimes;
use crate::telemetry::otlp::span::FinishedSpan;
use crate::telemetry::otlp::span::nanos;
use crate::telemetry::otlp::span::text_attribute;
use crate::telemetry::otlp::tracer::EventTracer;
use crate::telemetry::otlp::upload::CollectorClient;
use crate::telemetry::otlp::upload::UploadError;

/// Spans in one request.
const BATCH_MAX: usize = 512;

/// How long the first span of a batch waits for others.
const BATCH_LINGER: Duration = Duration::from_secs(1);

/// Waits before each further try; after the last of them the request is given up.
const RETRY_WAITS: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];

/// The longest wait that a collector is granted.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(30);

/// For what is left at the end: the process must not wait for a collector.
const LAST_MAX: Duration = Duration::from_millis(800);

/// Sends spans and metrics until it is stopped.
pub(crate) struct OtlpExporter {
    client: CollectorClient,
    resource: Resource,
    spans: Option<(Secret<Url>, mpsc::Receiver<FinishedSpan>)>,
    metrics: Option<(Secret<Url>, Duration)>,
    registry: WalhookMetrics,
    now: fn() -> Timestamp,
}

impl OtlpExporter {
    /// With the tracer, where traces are wanted. `instance` tells this process from others of the service.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub(crate) fn new(
        settings: &CollectorSettings,
        registry: &WalhookMetrics,
        instance: &str,
        now: fn() -> Timestamp,
    ) -> Result<(Self, Option<EventTracer>), reqwest::Error> {
        let client = CollectorClient::new(settings)?;
        let traces = settings.traces.clone().map(|url| {
            let (tracer, spans) = EventTracer::new(settings.sampling, registry.otlp().dropped);
            (tracer, (url, spans))
        });
        let (tracer, spans) = traces.unzip();
        let exporter = Self {
            client,
            resource: resource(settings, instance),
            spans,
            metrics: settings.metrics.clone().map(|url| (url, settings.metrics_interval)),
            registry: registry.clone(),
            now,
        };
        Ok((exporter, tracer))
    }

    /// Sends until `stop`, and then what is left, for a moment.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let spans = self.spans.take();
        let spans = async {
            if let Some((url, spans)) = spans {
                self.run_spans(url, spans, &stop).await;
            }
        };
        let metrics = async {
            if let Some((url, interval)) = &self.metrics {
                self.run_metrics(url, *interval, &stop).await;
            }
        };
        tokio::join!(spans, metrics);
    }

    async fn run_spans(
        &self,
        url: Secret<Url>,
        mut spans: mpsc::Receiver<FinishedSpan>,
        stop: &CancellationToken,
    ) {
        let mut signal = SignalReport::new(&self.registry, "traces");
        let mut batch = Vec::with_capacity(BATCH_MAX);
        while !stop.is_cancelled() {
            let gathered = gather(&mut spans, &mut batch);
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                is_open = gathered => if !is_open { break },
            }
            self.send_spans(&url, &mut batch, &mut signal, Some(stop)).await;
        }
        // What ends now is there already: the parts that make spans ended before.
        while let Ok(span) = spans.try_recv() {
            batch.push(span);
        }
        let last = self.send_spans(&url, &mut batch, &mut signal, None);
        tokio::time::timeout(LAST_MAX, last).await.ok(); // a collector that hangs gets nothing more
    }

    /// Sends and empties a batch. Without `stop` it is tried once.
    async fn send_spans(
        &self,
        url: &Secret<Url>,
        batch: &mut Vec<FinishedSpan>,
        signal: &mut SignalReport,
        stop: Option<&CancellationToken>,
    ) {
        let counts = self.registry.otlp();
        while !batch.is_empty() {
            let spans = batch.drain(..batch.len().min(BATCH_MAX));
            let spans: Vec<_> = spans.map(FinishedSpan::into_message).collect();
            let count = u64::try_from(spans.len()).unwrap_or(u64::MAX);
            let scope_spans = vec![ScopeSpans { scope: scope(), spans, ..Default::default() }];
            let resource = Some(self.resource.clone());
            let resource_spans =
                vec![ResourceSpans { resource, scope_spans, ..Default::default() }];
            let request = ExportTraceServiceRequest { resource_spans };
            let said = self.send(url, &request, signal, stop).await;
            let left_out = said.map_or(count, |said| rejected(&said).min(count));
            counts.exported.inc_by(count - left_out);
            counts.dropped.inc_by(left_out);
        }
    }

    async fn run_metrics(&self, url: &Secret<Url>, interval: Duration, stop: &CancellationToken) {
        let mut signal = SignalReport::new(&self.registry, "metrics");
        let start = nanos((self.now)());
        let mut looks = tokio::time::interval(interval);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = looks.tick() => {}
            }
            let request = self.metrics_since(start);
            // Not tried again: the next ones say it all.
            self.send(url, &request, &mut signal, None).await;
        }
        let request = self.metrics_since(start);
        let last = self.send(url, &request, &mut signal, None);
        tokio::time::timeout(LAST_MAX, last).await.ok(); // as for spans
    }

    fn metrics_since(&self, start: u64) -> ExportMetricsServiceRequest {
        let times = SeriesTimes { start, now: nanos((self.now)()) };
        let metrics = series::metrics(self.registry.gather(), times);
        let scope_metrics = vec![ScopeMetrics { scope: scope(), metrics, ..Default::default() }];
        let resource = Some(self.resource.clone());
        let resource_metrics =
            vec![ResourceMetrics { resource, scope_metrics, ..Default::default() }];
        ExportMetricsServiceRequest { resource_metrics }
    }

    /// What the collector says once it took it, within a few tries; without `stop`, at once.
    async fn send(
        &self,
        url: &Secret<Url>,
        request: &impl Message,
        signal: &mut SignalReport,
        stop: Option<&CancellationToken>,
    ) -> Option<Vec<u8>> {
        let mut waits = RETRY_WAITS.into_iter();
        loop {
            let error = match self.client.send(url, request).await {
                Ok(said) => {
                    signal.sent();
                    return Some(said);
                }
                Err(error) => error,
            };
            signal.failed(&error);
            let wait = waits.next().filter(|_| error.is_transient());
            let (Some(wait), Some(stop)) = (wait, stop) else { return None };
            let wait = error.wait().unwrap_or(wait).min(RETRY_WAIT_MAX);
            tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }
}

/// Spans that the collector took and left out (OTLP, "Partial Success"). What is no such answer says nothing.
fn rejected(said: &[u8]) -> u64 {
    let answer = ExportTraceServiceResponse::decode(said).unwrap_or_default();
    let rejected = answer.partial_success.map(|partial| partial.rejected_spans);
    u64::try_from(rejected.unwrap_or_default()).unwrap_or_default()
}

/// Waits until a batch is full, or its first span is old enough; `false` when nobody makes spans any more.
/// May be dropped at any time: what has come stays in `batch`.
async fn gather(spans: &mut mpsc::Receiver<FinishedSpan>, batch: &mut Vec<FinishedSpan>) -> bool {
    if batch.is_empty() && spans.recv_many(batch, BATCH_MAX).await == 0 {
        return false;
    }
    let full = async {
        while batch.len() < BATCH_MAX {
            let more = BATCH_MAX - batch.len();
            if spans.recv_many(batch, more).await == 0 {
                return;
            }
        }
    };
    tokio::time::timeout(BATCH_LINGER, full).await.ok(); // what there is goes
    true
}

/// Counts the requests of a signal, and says once that they fail and once that they do no more.
struct SignalReport {
    signal: &'static str,
    sent: IntCounter,
    failed: IntCounter,
    is_failing: bool,
}

impl SignalReport {
    fn new(registry: &WalhookMetrics, signal: &'static str) -> Self {
        let (sent, failed) = registry.otlp().requests(signal);
        Self { signal, sent, failed, is_failing: false }
    }

    fn sent(&mut self) {
        self.sent.inc();
        if std::mem::take(&mut self.is_failing) {
            tracing::info!(signal = self.signal, "the collector takes telemetry again");
        }
    }

    fn failed(&mut self, error: &UploadError) {
        self.failed.inc();
        if !std::mem::replace(&mut self.is_failing, true) {
            tracing::warn!(
                signal = self.signal,
                %error,
                "cannot send telemetry: deliveries go on, and what the collector does not take is dropped"
            );
        }
    }
}

fn scope() -> Option<InstrumentationScope> {
    let (name, version) = (String::from("walhook"), env!("CARGO_PKG_VERSION").to_owned());
    Some(InstrumentationScope { name, version, ..Default::default() })
}

/// Who speaks. What the operator says counts more.
pub(super) fn resource(settings: &CollectorSettings, instance: &str) -> Resource {
    let own = [
        ("service.name", settings.service_name.as_str()),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("service.instance.id", instance),
    ];
    let is_given = |key: &str| settings.attributes.iter().any(|(given, _)| given == key);
    let own = own.into_iter().filter(|(key, _)| *key == "service.name" || !is_given(key));
    let given = settings.attributes.iter().filter(|(key, _)| key != "service.name");
    let given = given.map(|(key, value)| text_attribute(key, value));
    let attributes = own.map(|(key, value)| text_attribute(key, value)).chain(given).collect();
    Resource { attributes, ..Default::default() }
}
