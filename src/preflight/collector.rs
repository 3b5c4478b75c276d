//! Whether the collector of `[telemetry]` takes what it is sent, for `walhook check`.

use crate::config::settings::TelemetrySettings;
use crate::replication::catalog::CheckFinding;
use crate::telemetry::otlp::probe::probe;

/// A finding for each signal that is to be sent.
pub(crate) async fn findings(settings: &TelemetrySettings) -> Vec<CheckFinding> {
    let Some(collector) = &settings.collector else { return Vec::new() };
    let probed = probe(collector).await.into_iter();
    let finding = probed.map(|probed| {
        let (signal, place) = (probed.signal, probed.place);
        match probed.refusal {
            None => CheckFinding::ok(format!("telemetry: {place} takes {signal}")),
            Some(why) => {
                let fix = "no delivery waits for it; start the collector, or correct `endpoint` and \
                           `headers` of [telemetry]: OTLP over HTTP is usually at port 4318";
                let what = format!("telemetry: {signal} cannot be sent to {place}: {why}");
                CheckFinding::warning(what, fix.to_owned())
            }
        }
    });
    finding.collect()
}
