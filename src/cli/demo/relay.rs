//! `walhook demo --relay`: two workers share the deliveries of one source, one of them is killed, and nothing is
//! missing.
//!
//! ```text
//! writer ─ INSERT ─▶ private PostgreSQL ─▶ tail ─▶ private NATS ─▶ worker 1, worker 2 ─▶ receiver, in process
//!    └───────────────── which rows there are ────────────────────▶ what is counted ◀──┘
//! ```
//!
//! Tail and workers are processes of this program, as `walhook run --role` is. Whose a delivery is, it says itself:
//! each member puts its name into a header.

mod course;
mod delivery_count;
mod member_process;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::cli::demo::relay::course::ENDPOINTS;
use crate::cli::demo::relay::course::PARTITIONS;
use crate::cli::demo::relay::course::RelayCourse;
use crate::cli::demo::relay::delivery_count::MEMBER_HEADER;
use crate::cli::demo::relay::member_process::MEMBER_VARIABLE;
use crate::cli::demo::relay::member_process::MemberProcess;
use crate::cli::demo::servers::SECRET;
use crate::cli::demo::servers::make_table;
use crate::cli::demo::servers::receiver_behaviour;
use crate::cli::demo::servers::start_broker;
use crate::cli::interrupted;
use crate::cli::receive::server::RECEIVED_MAX;
use crate::cli::receive::server::ReceiverServer;
use crate::cli::terminal;
use crate::config;
use crate::sandbox::cluster::SandboxCluster;

/// All of it takes a quarter of this on an idle machine.
const LIMIT: Duration = Duration::from_secs(120);

/// Shows it, and ends by itself.
///
/// # Errors
/// A server cannot be had, a member ends by itself, or not everything has come in time.
pub(super) async fn show(cluster: &SandboxCluster) -> anyhow::Result<()> {
    let broker = tokio::select! {
        started = spawn_blocking(start_broker) => started??,
        stopped = interrupted() => return Ok(stopped?),
    };
    let receiver = ReceiverServer::bind(([127, 0, 0, 1], 0).into())?;
    let (url, broker_url) = (cluster.url("postgres"), broker.url());
    let text = configuration(&url, &broker_url, receiver.address());
    let env = |name: &str| (name == MEMBER_VARIABLE).then(|| "demo".to_owned());
    let settings = config::parse(&text, "the demo's configuration", &env)?;
    let session = make_table(&settings).await?;
    terminal::line(&format!("database     {url}"))?;
    terminal::line(&format!("broker       {broker_url}"))?;
    let receiver_url = format!("http://{}/", receiver.address());
    terminal::line(&format!("receiver     {receiver_url} (checks signatures, answers 200)"))?;

    let (to_count, received) = mpsc::channel(RECEIVED_MAX);
    let stop = CancellationToken::new();
    let mut serving: JoinSet<anyhow::Result<()>> = JoinSet::new();
    let (behaviour, stopped) = (receiver_behaviour()?, stop.clone());
    serving.spawn(async move { Ok(receiver.serve(behaviour, to_count, stopped).await?) });
    // Out of the course's hands: however it ends, they are stopped in their order.
    let mut members = Vec::new();
    let course = RelayCourse::new(&settings, &text, &mut members).run(session, received);
    let outcome = tokio::select! {
        ended = tokio::time::timeout(LIMIT, Box::pin(course)) => ended.unwrap_or_else(|_| {
            Err(anyhow::anyhow!("not everything had come after {} s", LIMIT.as_secs()))
        }),
        Some(ended) = serving.join_next() => match ended? {
            Ok(()) => Err(anyhow::anyhow!("the receiver ended by itself")),
            Err(error) => Err(error),
        },
        stopped = interrupted() => Ok(stopped?),
    };
    // walhook first: what it has in flight still finds its receiver, and its state.
    let is_well = outcome.is_ok();
    let stopped = spawn_blocking(move || end(members, is_well)).await?;
    stop.cancel();
    while let Some(ended) = serving.join_next().await {
        ended??;
    }
    spawn_blocking(move || drop(broker)).await?;
    outcome.and(stopped)
}

/// Stops the members, or kills them where something has failed already. Blocks.
fn end(mut members: Vec<MemberProcess>, is_well: bool) -> anyhow::Result<()> {
    match is_well {
        true => members.iter_mut().try_for_each(MemberProcess::stop),
        false => Ok(()),
    }
}

/// The configuration of all members. Their names alone differ, by the environment.
fn configuration(database: &str, broker: &str, receiver: SocketAddr) -> String {
    let mut text = format!(
        "[postgres]\nurl = \"{database}\"\n\n[http]\nlisten = \"127.0.0.1:0\"\n\n\
         [webhook]\nsecret = \"{SECRET}\"\nheaders = {{ {MEMBER_HEADER} = {{ env = \"{MEMBER_VARIABLE}\" }} }}\n\n\
         [relay]\nurl = \"{broker}\"\npartitions = {PARTITIONS}\nreplicas = 1\nstream_size = \"16MiB\"\n"
    );
    for name in ENDPOINTS {
        text += &format!("\n[[endpoint]]\nname = \"{name}\"\nurl = \"http://{receiver}/{name}\"\n");
    }
    text
}
