//! Builds the lanes: one for each endpoint, with its HTTP client.

use std::sync::Arc;

use anyhow::Context;
use tokio::sync::mpsc;

use crate::app::Handles;
use crate::app::cuts::Cuts;
use crate::config::settings::Endpoint;
use crate::delivery::http::Client;
use crate::delivery::network::Network;
use crate::flow::settlement::EndpointIndex;
use crate::flow::settlement::Report;
use crate::queue;
use crate::queue::LaneSender;
use crate::queue::settings::LaneSettings;

/// Makes a lane: where its events go in, and the task that is to be run.
///
/// # Errors
/// The endpoint cannot be built.
pub(crate) fn lane(
    index: EndpointIndex,
    endpoint: &Endpoint,
    network: &Network,
    handles: &Handles,
    reports: &mpsc::Sender<Report>,
    cuts: &Cuts,
) -> anyhow::Result<(LaneSender, impl Future<Output = anyhow::Result<()>> + Send + use<>)> {
    let client = Client::new(endpoint, network)
        .with_context(|| format!("cannot build endpoint {}", endpoint.name))?;
    let client = Arc::new(client);
    let (sender, task) = queue::open(LaneSettings::of(index, endpoint));
    let (clock, times) = (handles.clock.clone(), handles.clock.clone());
    let (reports, cuts) = (reports.clone(), cuts.clone());
    let run = async move {
        let attempt = |lease| {
            let (client, now) = (Arc::clone(&client), times.now());
            async move {
                let exchange = client.attempt(&lease, now).await;
                (lease, exchange)
            }
        };
        let run = task.run(attempt, move || clock.now(), reports, cuts.no_more);
        tokio::select! {
            ended = run => Ok(ended?),
            // What is in flight may have arrived; it comes again after the restart all the same.
            () = cuts.now.cancelled() => Ok(()),
        }
    };
    Ok((sender, run))
}
