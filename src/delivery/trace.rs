//! To which trace a request belongs: its `traceparent`, and the span of the attempt.
//!
//! Both follow from the event, the endpoint and the time of the attempt, so nothing is carried between them. A
//! batch has one of each: those of its first event that is traced, with links to the others.

use std::sync::Arc;

use http::HeaderMap;

use crate::config::settings::Endpoint;
use crate::config::settings::TelemetrySettings;
use crate::flow::lease::Lease;
use crate::flow::time::Timestamp;
use crate::flow::trace::SpanId;
use crate::flow::trace::TRACEPARENT;
use crate::flow::trace::TraceContext;
use crate::flow::trace::TraceId;
use crate::flow::verdict::HttpExchange;
use crate::telemetry::otlp::span::FinishedSpan;
use crate::telemetry::otlp::span::SpanParent;
use crate::telemetry::otlp::tracer::EventTracer;
use crate::telemetry::otlp::tracer::TracedEvent;

/// The part of a request's span id that stands for what receivers are told where nothing is recorded.
const UNRECORDED: &str = "unrecorded";

/// What is done about traces; there is none where nothing is.
#[derive(Clone, Debug)]
pub struct RequestTracing {
    tells_receivers: bool,
    tracer: Option<EventTracer>,
}

impl RequestTracing {
    /// `None` if neither receivers nor a collector are to be told.
    pub fn of(settings: &TelemetrySettings, tracer: Option<EventTracer>) -> Option<Self> {
        let tells_receivers = settings.traceparent;
        (tells_receivers || tracer.is_some()).then_some(Self { tells_receivers, tracer })
    }
}

/// The same for one endpoint.
#[derive(Clone, Debug)]
pub(crate) struct EndpointTracing {
    tracing: RequestTracing,
    endpoint: Arc<str>,
    /// Of the URL's origin, all that is told of it.
    scheme: String,
    host: String,
    port: Option<u16>,
}

impl EndpointTracing {
    pub(crate) fn new(tracing: RequestTracing, endpoint: &Endpoint) -> Self {
        let url = endpoint.url.reveal();
        Self {
            tracing,
            endpoint: Arc::clone(&endpoint.name),
            scheme: url.scheme().to_owned(),
            host: url.host_str().unwrap_or_default().to_owned(),
            port: url.port_or_known_default(),
        }
    }

    /// Adds `traceparent`, unless the endpoint has one of its own.
    pub(crate) fn tell(
        &self,
        headers: &mut HeaderMap,
        own: &HeaderMap,
        lease: &Lease,
        now: Timestamp,
    ) {
        if self.tracing.tells_receivers
            && !own.contains_key(TRACEPARENT)
            && let Some(context) = self.context(lease, now)
        {
            headers.insert(TRACEPARENT, context.header());
        }
    }

    /// What the receiver is told: the span of this attempt if it is recorded, else what the writer gave, or what
    /// the event's id makes.
    fn context(&self, lease: &Lease, now: Timestamp) -> Option<TraceContext> {
        if let Some((traced, span)) = self.recorded(lease, now) {
            return Some(TraceContext { trace: traced.trace, span, is_sampled: true });
        }
        let first = lease.events.first()?;
        Some(TraceContext::of_writer(first).unwrap_or_else(|| TraceContext {
            trace: TraceId::of_event(first.id),
            span: SpanId::of_event(first.id, UNRECORDED),
            is_sampled: false,
        }))
    }

    /// The event below which the attempt is recorded, and the attempt's span.
    fn recorded(&self, lease: &Lease, now: Timestamp) -> Option<(TracedEvent, SpanId)> {
        let tracer = self.tracing.tracer.as_ref()?;
        let (event, traced) =
            lease.events.iter().find_map(|event| Some((event, tracer.traced(event)?)))?;
        let part = format!("attempt {} at {} of {}", lease.attempt, now.micros(), self.endpoint);
        Some((traced, SpanId::of_event(event.id, &part)))
    }

    /// Records an attempt that has ended.
    pub(crate) fn record(&self, lease: &Lease, now: Timestamp, exchange: &HttpExchange) {
        let (Some(tracer), Some((traced, span))) =
            (self.tracing.tracer.as_ref(), self.recorded(lease, now))
        else {
            return;
        };
        let took = i64::try_from(exchange.took.as_micros()).unwrap_or(i64::MAX);
        let times = (now, now.shifted(took));
        let name = format!("POST {}", self.endpoint);
        let parent = SpanParent::Own(traced.event);
        let mut record = FinishedSpan::new(traced.trace, span, parent, name, times)
            .calling()
            .with_text("http.request.method", "POST")
            .with_text("url.scheme", self.scheme.as_str())
            .with_text("server.address", self.host.as_str())
            .with_text("walhook.endpoint", &*self.endpoint)
            .with_count("walhook.attempt", lease.attempt);
        if let Some(port) = self.port {
            record = record.with_count("server.port", port);
        }
        if lease.attempt > 1 {
            record = record.with_count("http.request.resend_count", lease.attempt - 1);
        }
        if lease.replay {
            record = record.with_text("walhook.replay", "true");
        }
        if let Some(status) = exchange.status {
            record = record.with_count("http.response.status_code", status);
        }
        if let Some(failure) = &exchange.failure {
            let kind = exchange.status.map(|status| status.to_string());
            let kind = kind.unwrap_or_else(|| failure.class.as_str().to_owned());
            record = record.with_text("error.type", kind).failed(failure.to_string());
        }
        let others = lease.events.iter().filter_map(|event| tracer.traced(event));
        let mut events = 0;
        for other in others.filter(|other| *other != traced) {
            events += 1;
            record = record.linked(TraceContext {
                trace: other.trace,
                span: other.event,
                is_sampled: true,
            });
            if events == LINKS_MAX {
                break;
            }
        }
        if let Ok(count @ 2..) = i64::try_from(lease.events.len()) {
            record = record.with_count("walhook.batch.size", count);
        }
        tracer.record(record);
    }
}

/// OpenTelemetry's own limit.
const LINKS_MAX: usize = 128;

#[cfg(test)]
mod tests;
