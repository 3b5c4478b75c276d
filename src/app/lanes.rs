//! Builds the lanes: one for each endpoint, with its HTTP client.

use std::sync::Arc;

use anyhow::Context;
use tokio::sync::mpsc;

use crate::app::Handles;
use crate::app::cuts::Cuts;
use crate::app::refill::Backlog;
use crate::config::settings::Endpoint;
use crate::delivery::http::Client;
use crate::delivery::network::Network;
use crate::failpoint;
use crate::flow::backlog::Standing;
use crate::flow::lease::Lease;
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
    /// What each lane may hold of the memory budget.
    pub(crate) share_bytes: usize,
}

/// The share of each of so many lanes: together they leave something for what is on its way, however
/// many endpoints are dead, and one alone leaves most to the others. A single lane has nobody to leave
/// anything to.
pub(crate) fn share_bytes(queued_bytes: usize, lanes: usize) -> usize {
    if lanes > 1 { queued_bytes / 4.max(lanes + 1) } else { queued_bytes }
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
    let client = Arc::new(client);
    let settings = LaneSettings::with_backlog(index, endpoint, standing);
    let (sender, task) = queue::open(settings.within(common.share_bytes));
    let (clock, times) = (common.handles.clock.clone(), common.handles.clock.clone());
    let (reports, cuts) = (common.reports.clone(), common.cuts.clone());
    let (backlog, name) = (Arc::clone(&common.backlog), Arc::clone(&endpoint.name));
    let run = async move {
        let attempt = |lease| {
            let (client, now) = (Arc::clone(&client), times.now());
            async move {
                failpoint::reached_over("before_post", || about(&lease));
                if lease.replay {
                    failpoint::reached("replaying");
                }
                let attempt = client.attempt(&lease, now);
                let exchange = failpoint::during("post_sent", attempt).await;
                (lease, exchange)
            }
        };
        let refill = |after, rows| {
            let (backlog, name) = (Arc::clone(&backlog), Arc::clone(&name));
            async move {
                let page = backlog.page(&name, after, rows).await;
                if page.as_ref().is_ok_and(|page| !page.is_empty()) {
                    failpoint::reached("refilled");
                }
                page
            }
        };
        let run = task.run(attempt, move || clock.now(), || true, refill, reports, cuts.no_more);
        tokio::select! {
            ended = run => Ok(ended?),
            never = client.tidy() => match never {},
            // What is in flight may have arrived; it comes again after the restart all the same.
            () = cuts.now.cancelled() => Ok(()),
        }
    };
    Ok((sender, run))
}

/// The facts of a request's events, `id=7`.
fn about(lease: &Lease) -> String {
    let facts = lease.events.iter().flat_map(|event| event.facts.iter());
    facts.map(|(column, value)| format!("{column}={value} ")).collect()
}
