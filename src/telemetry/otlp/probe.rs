//! Whether the collector takes anything, for `walhook check`: each signal is sent once, and says
//! nothing but who speaks.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::ResourceMetrics;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
use url::Url;

use crate::config::secret::Secret;
use crate::config::settings::CollectorSettings;
use crate::telemetry::otlp::exporter::resource;
use crate::telemetry::otlp::upload::CollectorClient;

/// What came of one signal.
pub(crate) struct ProbedSignal {
    pub signal: &'static str,
    /// The collector's origin: a path can be a secret.
    pub place: String,
    /// Why it is not taken.
    pub refusal: Option<String>,
}

/// Sends nothing of each signal that is to be sent.
pub(crate) async fn probe(settings: &CollectorSettings) -> Vec<ProbedSignal> {
    let client = CollectorClient::new(settings);
    let mut probed = Vec::new();
    for (signal, url) in [("traces", &settings.traces), ("metrics", &settings.metrics)] {
        let Some(url) = url else { continue };
        let refusal = match &client {
            Err(error) => Some(error.to_string()),
            Ok(client) => send_nothing(client, signal, url, resource(settings, "check")).await,
        };
        let place = url.reveal().origin().ascii_serialization();
        probed.push(ProbedSignal { signal, place, refusal });
    }
    probed
}

async fn send_nothing(
    client: &CollectorClient,
    signal: &str,
    url: &Secret<Url>,
    resource: Resource,
) -> Option<String> {
    let resource = Some(resource);
    let sent = match signal {
        "traces" => {
            let resource_spans = vec![ResourceSpans { resource, ..Default::default() }];
            client.send(url, &ExportTraceServiceRequest { resource_spans }).await
        }
        _ => {
            let resource_metrics = vec![ResourceMetrics { resource, ..Default::default() }];
            client.send(url, &ExportMetricsServiceRequest { resource_metrics }).await
        }
    };
    sent.err().map(|error| error.to_string())
}
