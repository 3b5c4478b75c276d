//! `walhook run`: the service, in one process or as a role of several.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::cli::GlobalOptions;
use crate::cli::exit::CommandError;
use crate::cli::runtime;
use crate::clock::host_now;
use crate::config::configuration::Settings;
use crate::config::reload;
use crate::config::settings::LogFormat;
use crate::delivery::connection::sockets;
use crate::flow::exit_status::ExitStatus;
use crate::flow::lsn::Lsn;
use crate::ha::role::MemberRole;
use crate::preflight::ownership::StartConsent;
use crate::relay::error::RelayInterruption;
use crate::replication::error::SourceError;
use crate::store::state_error::StateError;
use crate::telemetry;
use crate::telemetry::LogFormatter;
use crate::telemetry::LogSetup;
use crate::telemetry::metrics::WalhookMetrics;

/// Threads that hang in a name look-up must not delay the end of the process.
const LOOKUPS_MAX: Duration = Duration::from_millis(100);

/// Pushes changes until SIGTERM or Ctrl-C
#[derive(Args, Debug)]
#[command(after_help = "SIGTERM or Ctrl-C: deliver what is in flight, confirm, end with 0 within \
                        [shutdown] grace. A second one ends at once.\nSIGHUP: read the \
                        configuration again; endpoints, and filters and payloads of events, \
                        change at once, all of them or none.\n\n\
                        Example: walhook run --config walhook.toml")]
pub(crate) struct Run {
    /// Goes on where changes are lost, from where the server stands
    #[arg(long)]
    accept_gap: bool,
    /// Takes a slot that was read for other tables: only if no other system reads it
    #[arg(long)]
    take_slot: bool,
    /// As a standby, takes a slot that has been free for so many seconds also where its last holder had other
    /// events, as a start would: for rolling updates, after which nobody of before comes back
    #[arg(long, value_name = "SECONDS")]
    take_over_after: Option<u64>,
    /// Goes on without the transaction that commits there, if PostgreSQL cannot send it
    #[arg(long, value_name = "LSN")]
    skip_transaction: Option<Lsn>,
    /// Does a part of the work, with others over the broker of `[relay]`: docs/scale.md
    #[arg(long, value_enum)]
    role: Option<MemberRole>,
}

impl Run {
    /// # Errors
    /// With the exit code of whatever does not let it start or go on.
    pub(crate) fn run(self, global: &GlobalOptions) -> Result<(), CommandError> {
        let settings = global.settings()?;
        if let Some(why) = self.role.and_then(|role| unshareable(&settings, role)) {
            return Err(ExitStatus::Usage.because(anyhow::anyhow!(why)));
        }
        let format = match settings.log.format {
            LogFormat::Text => LogFormatter::Text,
            LogFormat::Json => LogFormatter::Json,
        };
        let log = telemetry::init(format, &settings.log.filter, host_now)?;
        // Each request in flight and each kept connection is a descriptor.
        sockets::raise_limit();
        let runtime = runtime()?;
        let consent = StartConsent {
            gap: self.accept_gap,
            slot: self.take_slot,
            free_for: self.take_over_after.map(Duration::from_secs),
        };
        let wish = (self.role.unwrap_or_default(), self.skip_transaction);
        let ended = runtime.block_on(serve(settings, consent, wish, global, &log));
        runtime.shutdown_timeout(LOOKUPS_MAX);
        drop(log);
        ended.map_err(CommandError::of_postgres)
    }
}

async fn serve(
    mut settings: Settings,
    mut consent: StartConsent,
    (role, skip_transaction): (MemberRole, Option<Lsn>),
    global: &GlobalOptions,
    log: &LogSetup,
) -> anyhow::Result<()> {
    let mut signals = SignalStreams::listen()?;
    let as_read = settings.clone();
    // No member of a source that is shared takes anything up alone.
    let kept = (role != MemberRole::Alone).then_some(&as_read);
    loop {
        let is_ending = CancellationToken::new();
        let app = App::start(settings.clone())?;
        // Its clients find it where it was.
        settings.http.listen = app.address();
        let reloads = app.reloads();
        let app = app.with_consent(consent).with_role(role).skipping(skip_transaction);
        let grace = settings.grace;
        let ended = until_ended(app, (grace, kept), &mut signals, &is_ending, global, log);
        let ended = Box::pin(ended).await;
        let Err(error) = &ended else { return ended };
        if is_ending.is_cancelled() || !is_set_back(error) && !is_rewind(error) {
            return ended;
        }
        if is_rewind(error) {
            tracing::warn!("what is not settled is sent again, under another epoch");
        } else {
            tracing::warn!("the state was set back: walhook takes it up as it stands there now");
        }
        // What was agreed to was another gap.
        consent.gap = false;
        if let Some(current) = reloads.borrow().as_deref() {
            let listen = settings.http.listen;
            settings = current.clone();
            settings.http.listen = listen;
        }
    }
}

/// Whether the database that holds the state has been put back to an earlier one.
fn is_set_back(error: &anyhow::Error) -> bool {
    let is_it = |cause: &(dyn std::error::Error + 'static)| {
        let state = match cause.downcast_ref() {
            Some(SourceError::State(state)) => Some(&**state),
            _ => cause.downcast_ref::<StateError>(),
        };
        matches!(state, Some(StateError::SetBack { .. }))
    };
    error.chain().any(is_it)
}

/// Whether the broker has lost something that the slot still has.
fn is_rewind(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<RelayInterruption>());
    causes.any(RelayInterruption::is_rewind)
}

/// What a role lacks in a configuration, if anything.
fn unshareable(settings: &Settings, role: MemberRole) -> Option<&'static str> {
    let is_without = role != MemberRole::Alone && settings.relay.is_none();
    is_without.then_some("--role needs a broker: name it in [relay], or run without --role")
}

/// Runs `app` until it ends, by itself or because the operator wishes it; with what is `kept` whatever is read.
async fn until_ended(
    app: App,
    (grace, kept): (Duration, Option<&Settings>),
    signals: &mut SignalStreams,
    is_ending: &CancellationToken,
    global: &GlobalOptions,
    log: &LogSetup,
) -> anyhow::Result<()> {
    let (stop, reloads, metrics) = (app.stop_token(), app.reloads(), app.metrics());
    let (wishes, wished) = mpsc::channel(1);
    // One that waits already will find the files as they are then.
    let reload = || {
        wishes.try_send(()).ok();
    };
    tokio::select! {
        ended = app.run() => {
            if ended.is_ok() {
                tracing::info!("walhook has stopped: what is settled is confirmed");
            }
            ended
        }
        never = reread(global, wished, (&reloads, kept), &metrics) => never,
        () = signals.hurry(is_ending, stop, grace, reload) => {
            tracing::warn!("ended at the second signal: what was in flight comes again");
            log.write_out();
            std::process::exit(1)
        }
    }
}

/// Reads the configuration again at each wish, aside: its files may be long in coming, and everything else
/// goes on meanwhile. Nothing of it is taken up where what is `kept` is given.
async fn reread(
    global: &GlobalOptions,
    mut wished: mpsc::Receiver<()>,
    (reloads, kept): (&watch::Sender<Option<Arc<Settings>>>, Option<&Settings>),
    metrics: &WalhookMetrics,
) -> anyhow::Result<()> {
    while wished.recv().await.is_some() {
        let global = global.clone();
        let read = tokio::task::spawn_blocking(move || read_again(&global)).await;
        match (read.context("the configuration could not be read again")?, kept) {
            (Some(settings), None) => drop(reloads.send_replace(Some(Arc::new(settings)))),
            (Some(settings), Some(kept)) if is_kept(kept, &settings) => {
                metrics.reload_taken_up(host_now());
            }
            (Some(_), Some(_)) | (None, _) => metrics.reload_refused(),
        }
    }
    std::future::pending().await
}

/// Whether what was read says nothing else than what is kept. What it does is logged, all of it.
fn is_kept(kept: &Settings, read: &Settings) -> bool {
    let differences = reload::differences(kept, read);
    if differences.is_empty() {
        tracing::info!("configuration holds already: nothing to change");
        return true;
    }
    for difference in &differences {
        tracing::error!(
            difference,
            "configuration cannot be taken up by one member of a source alone"
        );
    }
    tracing::error!(
        differences = differences.len(),
        "configuration is not reloaded, what ran before runs on: change it for all members and restart them in the \
         order of docs/scale.md, \"Change the configuration\""
    );
    false
}

/// Reads the configuration again. What is wrong with it is logged, all of it.
fn read_again(global: &GlobalOptions) -> Option<Settings> {
    match global.read() {
        Ok(settings) => {
            tracing::info!("configuration is read again");
            Some(settings)
        }
        Err(problems) => {
            for problem in problems.iter() {
                tracing::error!(error = %problem, "configuration is wrong");
            }
            tracing::error!(
                problems = problems.iter().len(),
                "configuration is not reloaded: what ran before runs on"
            );
            None
        }
    }
}

/// What the operator says to the process.
struct SignalStreams {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl SignalStreams {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits until the process is to end; until then SIGHUP is a wish to `reload`.
    async fn stop(&mut self, reload: impl Fn()) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => reload(),
            }
        }
    }

    /// Asks for a shutdown at the first signal; returns at the second.
    async fn hurry(
        &mut self,
        is_ending: &CancellationToken,
        stop: CancellationToken,
        grace: Duration,
        reload: impl Fn(),
    ) {
        self.stop(reload).await;
        is_ending.cancel();
        tracing::info!(grace_s = grace.as_secs_f64(), "shutting down");
        stop.cancel();
        self.stop(|| ()).await;
    }
}
