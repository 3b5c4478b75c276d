//! Builds the lanes: one for each endpoint, with its HTTP client.

use std::sync::Arc;

use anyhow::Context;
use tokio::sync::mpsc;

use crate::app::Handles;
use crate::app::cuts::Cuts;
use crate::app::fence;
use crate::app::refill::Backlog;
use crate::config::settings::Endpoint;
use crate::delivery::http::Client;
use crate::delivery::network::Network;
use crate::flow::backlog::Standing;
use crate::flow::settlement::EndpointIndex;
use crate::flow::settlement::Report;
use crate::queue;
use crate::queue::sender::LaneSender;
use crate::queue::settings::LaneSettings;
use crate::task::Tasks;

/// What all lanes have in common.
pub(crate) struct Common {
    pub(crate) network: Network,
    pub(crate) handles: Handles,
    pub(crate) backlog: Arc<Backlog>,
    pub(crate) reports: mpsc::Sender<Report>,
    pub(crate) cuts: Cuts,
}

/// Starts a lane for each endpoint, in their order; `standings` is what the backlog holds.
///
/// # Errors
/// An endpoint cannot be built.
pub(crate) fn start(
    endpoints: &[Endpoint],
    standings: &[Option<Standing>],
    common: &Common,
    tasks: &mut Tasks,
) -> anyhow::Result<Vec<LaneSender>> {
    let mut senders = Vec::new();
    for (index, (endpoint, standing)) in endpoints.iter().zip(standings).enumerate() {
        let (sender, task) = lane(EndpointIndex(index), endpoint, *standing, common)?;
        tasks.spawn("a lane", task);
        senders.push(sender);
    }
    Ok(senders)
}

/// Makes a lane: where its events go in, and the task that is to be run. `standing` is what the
/// backlog holds for it.
///
/// # Errors
/// The endpoint cannot be built.
fn lane(
    index: EndpointIndex,
    endpoint: &Endpoint,
    standing: Option<Standing>,
    common: &Common,
) -> anyhow::Result<(LaneSender, impl Future<Output = anyhow::Result<()>> + Send + use<>)> {
    let client = Client::new(endpoint, &common.network)
        .with_context(|| format!("cannot build endpoint {}", endpoint.name))?;
    let (hold, gate) = (common.handles.hold.clone(), common.handles.hold.clone());
    let client = Arc::new(client.gated(Arc::new(move || gate.is_open())));
    let (sender, task) = queue::open(LaneSettings::with_backlog(index, endpoint, standing));
    let (clock, times) = (common.handles.clock.clone(), common.handles.clock.clone());
    let (reports, cuts) = (common.reports.clone(), common.cuts.clone());
    let (backlog, name) = (Arc::clone(&common.backlog), Arc::clone(&endpoint.name));
    let run = async move {
        let attempt = |lease| {
            let (client, now, hold) = (Arc::clone(&client), times.now(), hold.clone());
            async move {
                let exchange = fence::guarded(&hold, client.attempt(&lease, now)).await;
                (lease, exchange)
            }
        };
        let refill = |after, rows| {
            let (backlog, name) = (Arc::clone(&backlog), Arc::clone(&name));
            async move { backlog.page(&name, after, rows).await }
        };
        let (clock, may_send) = (|| clock.now(), || hold.is_open());
        let run = task.run(attempt, clock, may_send, refill, reports, cuts.no_more);
        tokio::select! {
            ended = run => Ok(ended?),
            // What is in flight may have arrived; it comes again after the restart all the same.
            () = cuts.now.cancelled() => Ok(()),
        }
    };
    Ok((sender, run))
}
