//! `[telemetry]`: what is told to OpenTelemetry, and which traces receivers are told of.

use std::time::Duration;

use http::HeaderMap;
use url::Url;

use crate::config::secret::Secret;

/// Nothing at all unless the configuration asks for it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TelemetrySettings {
    /// Whether requests carry `traceparent`.
    pub traceparent: bool,
    /// Where traces and metrics go, if they go anywhere.
    pub collector: Option<CollectorSettings>,
}

impl TelemetrySettings {
    /// Whether it matters to which trace an event belongs.
    pub fn wants_traces(&self) -> bool {
        self.traceparent || self.traces().is_some()
    }

    /// The collector, if it is to have traces.
    pub fn traces(&self) -> Option<&CollectorSettings> {
        self.collector.as_ref().filter(|collector| collector.traces.is_some())
    }
}

/// A collector that speaks OTLP over HTTP. At least one of the two signals goes there.
#[derive(Clone, Debug, PartialEq)]
pub struct CollectorSettings {
    pub traces: Option<Secret<Url>>,
    pub metrics: Option<Secret<Url>>,
    /// Of each request to it.
    pub headers: HeaderMap,
    /// For one request.
    pub timeout: Duration,
    pub sampling: TraceSampling,
    pub metrics_interval: Duration,
    pub service_name: String,
    /// `OTEL_RESOURCE_ATTRIBUTES`.
    pub attributes: Vec<(String, String)>,
}

/// Which events are traced.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TraceSampling {
    /// Of those that nobody has decided about: 0 to 1.
    pub share: f64,
    /// Whether a writer's decision holds.
    pub follows_writer: bool,
}
