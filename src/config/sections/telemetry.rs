//! `[telemetry]`, and OpenTelemetry's own variables for what it leaves open.
//!
//! Without the section none of the variables is looked at: they may be set for other programs of the
//! machine.

mod variables;

use std::ops::RangeInclusive;
use std::time::Duration;

use url::Url;

use crate::config::secret::Secret;
use crate::config::sections::headers;
use crate::config::sections::telemetry::variables::OtelVariables;
use crate::config::settings::CollectorSettings;
use crate::config::settings::TelemetrySettings;
use crate::config::settings::TraceSampling;
use crate::config::toml_file::toml_field::FieldReader;
use crate::config::toml_file::toml_reader::TomlSection;
use crate::config::url_template;

/// One event of a hundred: tables that matter have millions of rows.
const SHARE: f64 = 0.01;

/// OpenTelemetry's own default.
const METRICS_INTERVAL: Duration = Duration::from_secs(60);
const METRICS_INTERVALS: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(3600);

/// OpenTelemetry's own default.
const TIMEOUT: Duration = Duration::from_secs(10);
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(300);

const SERVICE_NAME: &str = "walhook";

/// What others call the same things.
const OTHER_NAMES: [(&str, &str); 8] = [
    ("url", "endpoint"),
    ("collector", "endpoint"),
    ("sampler", "sample"),
    ("sampling", "sample"),
    ("ratio", "sample"),
    ("interval", "metrics_interval"),
    ("name", "service_name"),
    ("trace_parent", "traceparent"),
];

/// What is sent to a collector.
#[derive(Clone, Copy)]
struct SignalChoice {
    traces: bool,
    metrics: bool,
}

/// Reads the section, if there is one.
pub(crate) fn read(root: &mut TomlSection<'_>) -> TelemetrySettings {
    let is_there = root.has("telemetry");
    let mut section = root.section("telemetry");
    let traceparent = section.read("traceparent", FieldReader::boolean).unwrap_or_default();
    let endpoint = section.read("endpoint", url_template::fixed);
    let headers = section.read("headers", headers::read_fixed);
    let signals = section.read("signals", signals);
    let share = section.read("sample", |field| field.number(&(0.0..=1.0)));
    let interval = section.read("metrics_interval", |field| field.duration(&METRICS_INTERVALS));
    let timeout = section.read("timeout", |field| field.duration(&TIMEOUTS));
    let service_name = section.read("service_name", service_name);
    let mut collector = None;
    if is_there {
        let variables = OtelVariables::new(&section);
        let targets = targets(&section, &variables, endpoint, signals);
        if let Some((traces, metrics)) = targets {
            variables.check_protocol();
            let own = headers.clone();
            let sampling = share.map(|share| TraceSampling { share, follows_writer: true });
            collector = Some(CollectorSettings {
                traces,
                metrics,
                headers: own.unwrap_or_else(|| variables.headers()),
                timeout: timeout.or_else(|| variables.timeout(&TIMEOUTS)).unwrap_or(TIMEOUT),
                sampling: sampling.or_else(|| variables.sampling()).unwrap_or(DEFAULT_SAMPLING),
                metrics_interval: interval
                    .or_else(|| variables.metrics_interval(&METRICS_INTERVALS))
                    .unwrap_or(METRICS_INTERVAL),
                service_name: service_name
                    .or_else(|| variables.service_name())
                    .unwrap_or_else(|| SERVICE_NAME.to_owned()),
                attributes: variables.attributes(),
            });
        } else if headers.is_some_and(|headers| !headers.is_empty()) && !section.has("endpoint") {
            section.note("headers", "has no use without `endpoint`: say where the collector is");
        }
    }
    section.finish_knowing(&OTHER_NAMES);
    TelemetrySettings { traceparent, collector }
}

const DEFAULT_SAMPLING: TraceSampling = TraceSampling { share: SHARE, follows_writer: true };

type SignalUrls = (Option<Secret<Url>>, Option<Secret<Url>>);

/// Where each signal goes; `None` if none goes anywhere.
fn targets(
    section: &TomlSection<'_>,
    variables: &OtelVariables<'_, '_>,
    endpoint: Option<Secret<Url>>,
    signals: Option<SignalChoice>,
) -> Option<SignalUrls> {
    if variables.is_disabled() {
        return None;
    }
    let (mut traces, mut metrics) = match endpoint {
        Some(base) => (of_base(&base, "v1/traces"), of_base(&base, "v1/metrics")),
        None if section.has("endpoint") => return None, // a problem was noted
        None => {
            let base = variables.endpoint();
            let under = |path| base.as_ref().and_then(|base| of_base(base, path));
            (
                variables.traces_endpoint().or_else(|| under("v1/traces")),
                variables.metrics_endpoint().or_else(|| under("v1/metrics")),
            )
        }
    };
    let wanted = signals.unwrap_or_else(|| SignalChoice {
        traces: variables.is_exported("OTEL_TRACES_EXPORTER"),
        metrics: variables.is_exported("OTEL_METRICS_EXPORTER"),
    });
    traces = traces.filter(|_| wanted.traces);
    metrics = metrics.filter(|_| wanted.metrics);
    (traces.is_some() || metrics.is_some()).then_some((traces, metrics))
}

/// The place of a signal below the collector's address (OTLP, "OTLP/HTTP Request").
fn of_base(base: &Secret<Url>, path: &str) -> Option<Secret<Url>> {
    let mut url = base.reveal().clone();
    let below = url.path().trim_end_matches('/').to_owned();
    url.set_path(&format!("{below}/{path}"));
    Some(Secret::new(url))
}

fn signals(field: &FieldReader<'_>) -> Option<SignalChoice> {
    let mut choice = SignalChoice { traces: false, metrics: false };
    for item in field.list()? {
        match item.one_of(&[("traces", true), ("metrics", false)]) {
            Some(true) => choice.traces = true,
            Some(false) => choice.metrics = true,
            None => {}
        }
    }
    Some(choice)
}

fn service_name(field: &FieldReader<'_>) -> Option<String> {
    match field.string()? {
        empty if empty.trim().is_empty() => field.refuse("is empty: give a name, or leave it out"),
        name => Some(name),
    }
}

#[cfg(test)]
mod tests;
