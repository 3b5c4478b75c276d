//! Builds the lanes: one for each endpoint, with its HTTP client.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::sync::watch;

use crate::clock::host_now;
use crate::config::settings::Endpoint;
use crate::config::settings::LoggedBodies;
use crate::delivery::connection::network::DeliveryNetwork;
use crate::delivery::http::EndpointClient;
use crate::failpoint;
use crate::flow::backlog::BacklogStanding;
use crate::flow::lease::Lease;
use crate::flow::settlement::EndpointIndex;
use crate::flow::settlement::LaneReport;
use crate::lane;
use crate::lane::in_flight_total::InFlightTotal;
use crate::lane::sender::LaneSender;
use crate::lane::settings::LaneSettings;
use crate::lane::task::WorkEnd;
use crate::pipeline::backlog_reader::BacklogReader;
use crate::pipeline::fence;
use crate::pipeline::handles::SharedHandles;
use crate::pipeline::shutdown::ShutdownStages;

/// What all lanes have in common.
pub(crate) struct LaneContext {
    pub(crate) network: DeliveryNetwork,
    pub(crate) handles: SharedHandles,
    pub(crate) backlog: Arc<BacklogReader>,
    pub(crate) reports: mpsc::Sender<LaneReport>,
    /// Those that the push log keeps.
    pub(crate) bodies: LoggedBodies,
    pub(crate) shutdown: ShutdownStages,
    pub(crate) in_flight: InFlightTotal,
    /// What each lane may hold of the memory budget.
    pub(crate) share_bytes: usize,
}

/// The share of each of so many lanes: together they leave something for what is on its way, however
/// many endpoints are dead, and one alone leaves most to the others. A single lane has nobody to leave
/// anything to.
pub(crate) fn share_bytes(queued_bytes: usize, lanes: usize) -> usize {
    if lanes > 1 { queued_bytes / 4.max(lanes + 1) } else { queued_bytes }
}

/// The client that an endpoint's settings ask for.
///
/// # Errors
/// The endpoint cannot be built.
pub(crate) fn client(
    endpoint: &Endpoint,
    common: &LaneContext,
) -> anyhow::Result<Arc<EndpointClient>> {
    let client = EndpointClient::new(endpoint, &common.network);
    let client = client.with_context(|| format!("cannot build endpoint {}", endpoint.name))?;
    Ok(Arc::new(client))
}

/// Makes a lane: where its events go in, and the task that is to be run. Each attempt is made by
/// the client that is in `clients` at the time, and the backlog is read under the name that is in
/// `names`; `standing` is what it holds for the endpoint.
pub(crate) fn lane(
    index: EndpointIndex,
    endpoint: &Endpoint,
    standing: Option<BacklogStanding>,
    (clients, names): (watch::Receiver<Arc<EndpointClient>>, watch::Receiver<Arc<str>>),
    common: &LaneContext,
) -> (LaneSender, impl Future<Output = anyhow::Result<()>> + Send + use<>) {
    let settings = LaneSettings::with_backlog(index, endpoint, standing);
    let (sender, task) = lane::open(settings.within(common.share_bytes));
    let task = task.pressed_by(common.backlog.pressure()).counted_in(&common.in_flight);
    // Where a future is moved into another one it is there twice.
    let mut task = Box::new(task);
    let (clock, hold) = (common.handles.clock.clone(), common.handles.hold.clone());
    let (reports, bodies, shutdown) =
        (common.reports.clone(), common.bodies, common.shutdown.clone());
    let backlog = Arc::clone(&common.backlog);
    let run = async move {
        let attempt = |lease, _database_now| {
            let (client, hold) = (Arc::clone(&clients.borrow()), hold.clone());
            async move {
                failpoint::reached_over("before_post", || about(&lease));
                if lease.replay {
                    failpoint::reached("replaying");
                }
                let mut exchange = {
                    // The receiver compares the time with its own clock, not with the database's.
                    let attempt = pin!(client.attempt(&lease, host_now()));
                    let attempt = fence::guarded(&hold, attempt);
                    failpoint::during("post_sent", attempt).await
                };
                if !bodies.are_kept_of(&exchange.verdict) {
                    exchange.response_body = Bytes::new(); // many of them wait for the ledger
                }
                (lease, exchange)
            }
        };
        let refill = |after, rows| {
            let (backlog, names) = (Arc::clone(&backlog), names.clone());
            async move {
                let page = backlog.page(&names, after, rows).await;
                if page.as_ref().is_ok_and(|page| !page.is_empty()) {
                    failpoint::reached("refilled");
                }
                page
            }
        };
        let (clock, may_send) = (|| clock.now(), || hold.is_open());
        loop {
            task.wait_for_work(clock, &shutdown.stop_intake).await;
            // Apart: a lane that waits holds nothing of it.
            let work = Box::pin(async {
                let stop = &shutdown.stop_intake;
                tokio::select! {
                    ended = task.work(&attempt, &clock, &may_send, &refill, &reports, stop) => ended,
                    never = tidy(clients.clone()) => match never {},
                    // What is in flight may have arrived; it comes again after the restart all the same.
                    () = shutdown.abort_requests.cancelled() => Ok(WorkEnd::Over),
                }
            });
            if work.await? == WorkEnd::Over {
                return Ok(());
            }
        }
    };
    (sender, run)
}

/// Closes the connections that are not used any more, of whichever client makes the requests.
async fn tidy(mut clients: watch::Receiver<Arc<EndpointClient>>) -> Infallible {
    loop {
        let client = Arc::clone(&clients.borrow_and_update());
        tokio::select! {
            never = client.tidy() => match never {},
            // Without an owner it stays as it is, until the lane ends.
            Ok(()) = clients.changed() => {}
        }
    }
}

/// The facts of a request's events, `id=7`.
fn about(lease: &Lease) -> String {
    let facts = lease.events.iter().flat_map(|event| event.facts.iter());
    facts.map(|(column, value)| format!("{column}={value} ")).collect()
}
