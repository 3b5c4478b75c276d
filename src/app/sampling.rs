//! Looks at the metrics every few seconds, for the charts of the overview.

use std::sync::Arc;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::app::scrape::MetricsScrape;
use crate::pipeline::handles::SharedHandles;
use crate::telemetry::metrics::WalhookMetrics;
use crate::telemetry::samples::SAMPLE_EVERY;

/// Which endpoints there are.
pub(super) type EndpointNames = dyn Fn() -> Vec<Arc<str>> + Send + Sync;

/// Looks until `stop`.
pub(super) async fn run(
    handles: SharedHandles,
    scrape: Arc<MetricsScrape>,
    names: Arc<EndpointNames>,
    stop: CancellationToken,
) {
    let metrics: WalhookMetrics = handles.metrics.clone();
    let mut looks = tokio::time::interval(SAMPLE_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = looks.tick() => {}
        }
        scrape.refresh();
        metrics.look();
        let endpoints = names();
        let endpoints = endpoints.into_iter().map(|name| {
            let totals = metrics.endpoint_totals(&name);
            (name, totals)
        });
        handles.samples.look(&metrics.totals(), endpoints, handles.clock.now());
    }
}
