//! Runs the lanes, each as long as there is something for its endpoint, with its HTTP client.

use std::convert::Infallible;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::Weak;

use anyhow::Context;
use bytes::Bytes;
use futures_util::FutureExt;
use tokio::sync::Notify;
use tokio::sync::mpsc;

use crate::clock::host_now;
use crate::config::configuration::Settings;
use crate::config::settings::Endpoint;
use crate::config::settings::LoggedBodies;
use crate::delivery::connection::network::DeliveryNetwork;
use crate::delivery::http::EndpointClient;
use crate::delivery::trace::RequestTracing;
use crate::failpoint;
use crate::flow::backlog::BacklogPosition;
use crate::flow::backlog::RefilledRow;
use crate::flow::budget::MemoryBudget;
use crate::flow::lease::Lease;
use crate::flow::report_queue::ReportSender;
use crate::flow::settlement::EndpointIndex;
use crate::flow::time::Timestamp;
use crate::flow::verdict::HttpExchange;
use crate::lane::cell::LaneOpener;
use crate::lane::services::LaneServices;
use crate::lane::settings::LaneSettings;
use crate::lane::task::LaneTask;
use crate::lane::task::WorkEnd;
use crate::pipeline::backlog_reader::BacklogReader;
use crate::pipeline::fence;
use crate::pipeline::handles::SharedHandles;
use crate::pipeline::shutdown::ShutdownStages;
use crate::pipeline::threads::LaneThread;
use crate::replication::slot_ownership::SlotOwnership;
use crate::store::state_error::StateError;

/// Lanes that have ended, which the registry does not know yet. Others wait.
const ENDED_MAX: usize = 16;

/// What all lanes have in common.
pub(crate) struct LaneContext {
    pub(crate) network: DeliveryNetwork,
    pub(crate) handles: SharedHandles,
    pub(crate) backlog: Arc<BacklogReader>,
    pub(crate) reports: ReportSender,
    /// Those that the push log keeps.
    pub(crate) bodies: LoggedBodies,
    pub(crate) shutdown: ShutdownStages,
    /// Where lanes run.
    thread: Arc<LaneThread>,
    /// What each lane may hold of the memory budget.
    pub(crate) share_bytes: usize,
    /// To the registry: a lane has ended.
    pub(crate) ended: mpsc::Sender<EndedLane>,
}

impl LaneContext {
    /// For lanes that run on `thread` and tell `reports`, with `share_bytes` for each, and where the registry learns
    /// that one has ended.
    pub(crate) fn new(
        settings: &Settings,
        handles: &SharedHandles,
        thread: Arc<LaneThread>,
        (budget, shutdown): (&MemoryBudget, &ShutdownStages),
        reports: ReportSender,
        share_bytes: usize,
    ) -> (Self, mpsc::Receiver<EndedLane>) {
        let tracing = RequestTracing::of(&settings.telemetry, handles.tracer.clone());
        let (ended_in, ended) = mpsc::channel(ENDED_MAX);
        let context = Self {
            network: handles.network().sharing().yielding(budget.wanted()).tracing(tracing),
            handles: handles.clone(),
            backlog: Arc::new(BacklogReader::of(settings, budget.clone())),
            reports,
            bodies: settings.push_log.bodies,
            shutdown: shutdown.clone(),
            share_bytes,
            thread,
            ended: ended_in,
        };
        (context, ended)
    }
}

/// What each lane of this process may hold of the memory budget, in bytes.
pub(crate) fn share_of(settings: &Settings) -> usize {
    share_bytes(settings.memory.queued_bytes, settings.endpoints.len())
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

/// Whom a lane serves: opens it when there is something for its endpoint, with a client that is there as long as
/// the lane is.
pub(crate) struct LaneRunner {
    index: EndpointIndex,
    served: Mutex<ServedEndpoint>,
    replaced: Notify,
    /// Nothing is opened any more when it is gone.
    common: Weak<LaneContext>,
}

struct ServedEndpoint {
    endpoint: Arc<Endpoint>,
    /// What the state calls it.
    name: Arc<str>,
    /// There as long as a lane has it.
    client: Option<Arc<EndpointClient>>,
    users: usize,
}

/// A lane has the client.
struct ClientUse<'r> {
    runner: &'r LaneRunner,
    /// As it was at the start.
    first: Arc<EndpointClient>,
}

impl ClientUse<'_> {
    /// The client as it is now.
    fn client(&self) -> Arc<EndpointClient> {
        Arc::clone(self.runner.served().client.as_ref().unwrap_or(&self.first))
    }
}

impl Drop for ClientUse<'_> {
    fn drop(&mut self) {
        let mut served = self.runner.served();
        served.users -= 1;
        if served.users == 0 {
            served.client = None;
        }
    }
}

/// What the lane of an endpoint asks of this process.
struct ServedLane<'r> {
    runner: &'r LaneRunner,
    used: &'r ClientUse<'r>,
    common: &'r LaneContext,
}

impl LaneServices for ServedLane<'_> {
    type BacklogError = StateError;

    fn attempt(&self, lease: Lease) -> impl Future<Output = (Lease, HttpExchange)> + Send {
        attempt_with(
            self.used.client(),
            lease,
            &self.common.handles.slot_ownership,
            self.common.bodies,
        )
    }

    fn database_now(&self) -> Timestamp {
        self.common.handles.clock.now()
    }

    fn may_send(&self) -> bool {
        self.common.handles.slot_ownership.is_open()
    }

    async fn read_backlog(
        &self,
        after: Option<BacklogPosition>,
        rows: usize,
    ) -> Result<Vec<RefilledRow>, StateError> {
        let page = self.common.backlog.page(|| self.runner.name(), after, rows).await;
        if page.as_ref().is_ok_and(|page| !page.is_empty()) {
            failpoint::reached("refilled");
        }
        page
    }
}

/// Which lane has ended, and whether it was meant to.
pub(crate) type EndedLane = (EndpointIndex, anyhow::Result<()>);

impl fmt::Debug for LaneRunner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaneRunner").field("index", &self.index).finish_non_exhaustive()
    }
}

impl LaneRunner {
    pub(crate) fn new(
        index: EndpointIndex,
        endpoint: Arc<Endpoint>,
        common: &Arc<LaneContext>,
    ) -> Arc<Self> {
        let name = Arc::clone(&endpoint.name);
        Arc::new(Self {
            index,
            served: Mutex::new(ServedEndpoint { endpoint, name, client: None, users: 0 }),
            replaced: Notify::new(),
            common: Arc::downgrade(common),
        })
    }

    fn served(&self) -> MutexGuard<'_, ServedEndpoint> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The endpoint has other settings; `client` is made of them, and makes the next attempts.
    pub(crate) fn replace(&self, endpoint: Arc<Endpoint>, client: Arc<EndpointClient>) {
        let mut served = self.served();
        served.endpoint = endpoint;
        if let Some(before) = &mut served.client {
            *before = client;
            self.replaced.notify_one();
        }
    }

    /// The state calls the endpoint by this name from here on.
    pub(crate) fn rename(&self, name: Arc<str>) {
        self.served().name = name;
    }

    pub(crate) fn name(&self) -> Arc<str> {
        Arc::clone(&self.served().name)
    }

    /// The client of the lane, or one that is made for this once.
    ///
    /// # Errors
    /// It cannot be built, or walhook ends.
    pub(crate) fn client(&self) -> anyhow::Result<Arc<EndpointClient>> {
        let served = self.served();
        match &served.client {
            Some(client) => Ok(Arc::clone(client)),
            None => client(&served.endpoint, &*self.common.upgrade().context("walhook is ending")?),
        }
    }

    fn use_client(&self) -> anyhow::Result<ClientUse<'_>> {
        let made = self.client()?;
        let mut served = self.served();
        served.users += 1;
        let first = Arc::clone(served.client.get_or_insert(made));
        Ok(ClientUse { runner: self, first })
    }

    /// Runs the lane until it rests or ends.
    async fn serve(&self, mut task: LaneTask, common: &LaneContext) -> anyhow::Result<WorkEnd> {
        let used = self.use_client()?;
        let services = ServedLane { runner: self, used: &used, common };
        let stop = &common.shutdown.stop_intake;
        loop {
            task.wait_for_work(&services, stop).await;
            // Apart: a lane that waits holds nothing of it.
            let work = Box::pin(async {
                let reports = &common.reports;
                tokio::select! {
                    ended = task.work(&services, reports, stop) => ended,
                    never = self.tidy(&used) => match never {},
                    // What is in flight may have arrived; it comes again after the restart all the same.
                    () = common.shutdown.abort_requests.cancelled() => Ok(WorkEnd::Over),
                }
            });
            if work.await? == WorkEnd::Over {
                // Whoever shares them may have nothing to do for long, and does not look after them then.
                used.client().close_idle();
                return Ok(WorkEnd::Over);
            }
            if task.goes_to_rest() {
                return Ok(WorkEnd::Dormant);
            }
        }
    }

    /// Closes the connections that are not used any more, of whichever client makes the requests.
    async fn tidy(&self, used: &ClientUse<'_>) -> Infallible {
        loop {
            let client = used.client();
            tokio::select! {
                never = client.tidy() => match never {},
                () = self.replaced.notified() => {}
            }
        }
    }
}

impl LaneOpener for LaneRunner {
    fn settings(&self) -> LaneSettings {
        let settings = LaneSettings::with_backlog(self.index, &self.served().endpoint, None);
        // Without it nothing is run.
        let share = self.common.upgrade().map_or(usize::MAX, |common| common.share_bytes);
        settings.within(share)
    }

    fn run(self: Arc<Self>, task: LaneTask) {
        let Some(common) = self.common.upgrade() else { return };
        let task = task.pressed_by(common.backlog.pressure()).counted_in(&common.thread.in_flight);
        // Where a future is moved into another one it is there twice.
        let task = Box::new(task);
        let runtime = common.thread.runtime().clone();
        runtime.spawn(async move {
            let served = AssertUnwindSafe(self.serve(*task, &common)).catch_unwind().await;
            let ended = match served {
                Ok(Ok(WorkEnd::Dormant)) => return, // it rests
                Ok(Ok(WorkEnd::Over)) => Ok(()),
                Ok(Err(error)) => Err(error),
                Err(_panic) => Err(anyhow::anyhow!("a lane panicked")),
            };
            common.ended.send((self.index, ended)).await.ok(); // nobody may want to know any more
        });
    }
}

async fn attempt_with(
    client: Arc<EndpointClient>,
    lease: Lease,
    slot_ownership: &SlotOwnership,
    bodies: LoggedBodies,
) -> (Lease, HttpExchange) {
    failpoint::reached_over("before_post", || about(&lease));
    if lease.replay {
        failpoint::reached("replaying");
    }
    let mut exchange = {
        // The receiver compares the time with its own clock, not with the database's.
        let attempt = pin!(client.attempt(&lease, host_now()));
        let attempt = fence::guarded(slot_ownership, attempt);
        failpoint::during("post_sent", attempt).await
    };
    if !bodies.are_kept_of(&exchange.verdict) {
        exchange.response_body = Bytes::new(); // many of them wait for the ledger
    }
    (lease, exchange)
}

/// The facts of a request's events, `id=7`.
fn about(lease: &Lease) -> String {
    let facts = lease.events.iter().flat_map(|event| event.facts.iter());
    facts.map(|(column, value)| format!("{column}={value} ")).collect()
}
