//! `walhook demo`: the whole job on a throw-away private PostgreSQL.
//!
//! ```text
//! writer ─ INSERT ─▶ private PostgreSQL ─▶ walhook, as configured below ─▶ receiver, in process
//!    └──────────── when each row was sent off ──────────────▶ what is shown ◀──┘
//! ```
//!
//! Everything is real but the data: the receiver checks signatures, and what is shown as delivered
//! is what the receiver got. Nothing is installed, and nothing is left behind.

mod relay;
mod screen;
mod servers;
mod writer;

use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::cli::demo::screen::DemoScreen;
use crate::cli::demo::servers::SECRET;
use crate::cli::demo::servers::make_table;
use crate::cli::demo::servers::receiver_behaviour;
use crate::cli::demo::servers::start_postgres;
use crate::cli::demo::writer::DemoWriter;
use crate::cli::exit::CommandError;
use crate::cli::interrupted;
use crate::cli::receive::server::RECEIVED_MAX;
use crate::cli::receive::server::ReceivedRequest;
use crate::cli::receive::server::ReceiverServer;
use crate::cli::runtime;
use crate::cli::terminal;
use crate::clock::host_now;
use crate::config;
use crate::config::configuration::Settings;
use crate::sandbox::cluster::SandboxCluster;
use crate::telemetry;
use crate::telemetry::LogFormatter;

/// How long `--check` waits for its deliveries.
const CHECK_LIMIT: Duration = Duration::from_secs(60);

/// Rows a second: slow enough to read along, or as a check wants it.
const PACE: Duration = Duration::from_secs(1);
const CHECK_PACE: Duration = Duration::from_millis(50);

/// Shows the whole job on a throw-away private PostgreSQL
#[derive(Args, Debug)]
#[command(after_help = "Starts a PostgreSQL of its own, a receiver and walhook; inserts rows and \
                        shows each delivery. Needs nothing, installs nothing, and cleans up.\n\n\
                        With --relay it starts a NATS server, a tail and two workers, kills a worker \
                        while rows are inserted, and ends with 0 when every delivery has come \
                        nevertheless.\n\n\
                        Example: walhook demo --check 20")]
pub(crate) struct Demo {
    /// Ends with 0 after N verified deliveries, or with 1 after 60 s
    #[arg(long, value_name = "N")]
    check: Option<u64>,
    /// Shares the deliveries among two workers over NATS, kills one, and ends by itself: docs/scale.md
    #[arg(long, conflicts_with = "check")]
    relay: bool,
}

impl Demo {
    /// # Errors
    /// If there is no PostgreSQL to be had, or a check is not met.
    pub(crate) fn run(self) -> Result<(), CommandError> {
        // Deliveries are shown from what the receiver got; of the log only trouble is of interest.
        let _log = telemetry::init(LogFormatter::Text, "warn", host_now)?;
        let runtime = runtime()?;
        let ended = runtime.block_on(async {
            let cluster = tokio::select! {
                started = spawn_blocking(start_postgres) => started??,
                stopped = interrupted() => return Ok(stopped?),
            };
            let shown = match self.relay {
                true => Box::pin(relay::show(&cluster)).await,
                false => Box::pin(self.show(&cluster)).await,
            };
            spawn_blocking(move || drop(cluster)).await?;
            shown
        });
        // The cluster's own threads have ended with it; a fetch that was cut off may still run.
        runtime.shutdown_timeout(Duration::from_millis(200));
        if ended.is_ok() {
            terminal::line("\nall stopped, nothing is left behind")?;
        }
        Ok(ended?)
    }

    async fn show(&self, cluster: &SandboxCluster) -> anyhow::Result<()> {
        let url = cluster.url("postgres");
        let receiver = ReceiverServer::bind(([127, 0, 0, 1], 0).into())?;
        let settings = settings(&url, &receiver)?;
        let session = make_table(&settings).await?;

        let (to_screen, received) = mpsc::channel(RECEIVED_MAX);
        let stop = CancellationToken::new();
        let mut running: JoinSet<anyhow::Result<()>> = JoinSet::new();
        let behaviour = receiver_behaviour()?;
        let receiver_url = format!("http://{}/", receiver.address());
        let stop_receiver = stop.clone();
        running
            .spawn(async move { Ok(receiver.serve(behaviour, to_screen, stop_receiver).await?) });
        let app = App::start(settings)?;
        let screen = DemoScreen::new(self.check);
        screen.greet(&url, &receiver_url, app.address())?;
        let stop_app = app.stop_token();
        running.spawn(app.run());

        let pace = if self.check.is_some() { CHECK_PACE } else { PACE };
        let outcome = watch(screen, DemoWriter::new(session, pace), received, &mut running);
        let outcome = match self.check {
            Some(count) => tokio::time::timeout(CHECK_LIMIT, outcome)
                .await
                .unwrap_or_else(|_| Err(anyhow::anyhow!("not {count} deliveries within 60 s"))),
            None => {
                tokio::select! {
                    ended = outcome => ended,
                    stopped = interrupted() => Ok(stopped?),
                }
            }
        };
        // walhook first: what it has in flight still finds its receiver.
        stop_app.cancel();
        while running.len() > 1 {
            running.join_next().await.context("the demo's tasks have ended")???;
        }
        stop.cancel();
        while let Some(ended) = running.join_next().await {
            ended??;
        }
        outcome
    }
}

/// Writes rows and shows what arrives, until the check is met or a part fails.
async fn watch(
    mut screen: DemoScreen,
    mut writer: DemoWriter,
    mut received: mpsc::Receiver<ReceivedRequest>,
    running: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let mut written = screen.more();
    loop {
        tokio::select! {
            // The statement itself is not given up when something arrives meanwhile: its row would be
            // committed, or its number skipped, unseen.
            () = writer.tick(), if written => {
                let row = writer.insert().await.context("cannot insert the demo's rows")?;
                written = screen.inserted(row)?;
            }
            Some(received) = received.recv() => {
                if screen.arrived(&received)? {
                    return Ok(());
                }
            }
            Some(ended) = running.join_next() => {
                ended??;
                anyhow::bail!("a part of the demo ended by itself");
            }
        }
    }
}

/// The configuration a user would write: a database and a URL, and here a secret.
fn settings(url: &str, receiver: &ReceiverServer) -> anyhow::Result<Settings> {
    let text = format!(
        "[postgres]\nurl = \"{url}\"\n\n[http]\nlisten = \"127.0.0.1:0\"\n\n\
         [webhook]\nurls = [\"http://{}/\"]\nsecret = \"{SECRET}\"\n",
        receiver.address()
    );
    Ok(config::parse(&text, "the demo's configuration", &|_| None)?)
}
