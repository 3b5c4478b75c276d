//! What walhook remembers, taken up at the start: the right to write it, how far it had come, and
//! what had been settled beyond that.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::sync::watch;

use crate::config::settings::Endpoint;
use crate::config::settings::Settings;
use crate::flow::backlog::Standing;
use crate::flow::event::EventId;
use crate::flow::lsn::Position;
use crate::flow::settlement::EndpointIndex;
use crate::ledger::writer::Writer;
use crate::source::error::SourceError;
use crate::source::refusal::Refusal;
use crate::source::wire::command::SystemIdentity;
use crate::source::wire::feedback::LetGo;
use crate::store;
use crate::store::Session;
use crate::store::backlog;
use crate::store::dead_letters;
use crate::store::migrate;
use crate::store::progress;
use crate::store::progress::Lineage;
use crate::store::state_error::StateError;
use crate::telemetry::metrics::Metrics;

/// What the state says when the slot is ours.
pub(crate) struct Taken {
    pub(crate) writer: Writer,
    /// Grows with each walhook that takes the slot.
    pub(crate) epoch: i64,
    /// All changes up to and including this one are settled.
    pub(crate) seen: Option<Position>,
    /// Deliveries beyond it that are settled, too: they come again and are not made again.
    pub(crate) ahead: HashSet<(EndpointIndex, EventId)>,
    /// Dead letters that are kept, by endpoint.
    pub(crate) letters: Vec<(Arc<str>, u64)>,
    /// What the backlog holds, by endpoint index.
    pub(crate) backlog: Vec<Option<Standing>>,
}

impl Taken {
    /// Shows what is kept in the gauges.
    pub(crate) fn show(&self, endpoints: &[Endpoint], metrics: &Metrics) {
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        for (endpoint, standing) in endpoints.iter().zip(&self.backlog) {
            let gauges = metrics.endpoint(&endpoint.name);
            gauges.pending_backlog.set(number(standing.map_or(0, |s| s.rows as u64)));
            let letters = self.letters.iter().find(|(name, _)| *name == endpoint.name);
            gauges.dead_letters.set(number(letters.map_or(0, |(_, count)| *count)));
        }
    }
}

/// Connects to the state's database and brings the schema up to date.
///
/// # Errors
/// The database cannot be reached, the schema is newer than this walhook, or the role may not make
/// it; the SQL for the administrator is in the error then.
pub(crate) async fn open(settings: &Settings) -> Result<Session, StateError> {
    let mut session = store::connect(&settings.state).await?;
    migrate::migrate(&mut session.client).await?;
    Ok(session)
}

/// Takes up the state of the slot, which has to be ours: from here on a walhook that had it before
/// can write no more.
///
/// # Errors
/// The state belongs to another stream than `system`'s, or cannot be read.
pub(crate) async fn take(
    settings: &Settings,
    identity: &SystemIdentity,
    writable: watch::Sender<bool>,
) -> anyhow::Result<Taken> {
    let SystemIdentity { system, timeline, .. } = *identity;
    let mut session = open(settings).await?;
    let slot = &settings.postgres.slot;
    let holder = own_name();
    let (holding, progress) = progress::take(&mut session.client, slot, &holder).await?;
    let lineage = Lineage { system, timeline, publications: Vec::new() };
    match &progress.lineage {
        Some(known) if known.system != system => {
            let error = Refusal::OtherSystem { expected: known.system, found: system };
            return Err(SourceError::from(error).into());
        }
        Some(known) if *known == lineage => {}
        Some(_) | None => {
            progress::set_lineage(&mut session.client, &holding, &lineage).await?;
        }
    }
    let index = |name: &str| {
        let mut names = settings.endpoints.iter();
        names.position(|endpoint| &*endpoint.name == name).map(EndpointIndex)
    };
    let ahead = progress::load_ahead(&session.client, slot).await?;
    let ahead = ahead.into_iter().filter_map(|(name, id)| Some((index(&name)?, id))).collect();
    let mut standings = vec![None; settings.endpoints.len()];
    for size in backlog::sizes(&session.client, slot).await? {
        match index(&size.endpoint).and_then(|index| standings.get_mut(index.0)) {
            Some(standing) => {
                let rows = usize::try_from(size.rows).unwrap_or(usize::MAX);
                *standing = Some(Standing { rows, newest: size.newest });
            }
            None => tracing::warn!(
                endpoint = &*size.endpoint,
                rows = size.rows,
                "parked deliveries wait for an endpoint that is not configured"
            ),
        }
    }
    let letters = dead_letters::sizes(&session.client, slot).await?;
    let days = settings.push_log.retention_days;
    let epoch = holding.epoch();
    let writer = Writer::new(settings.state.clone(), session, holding, days, writable);
    Ok(Taken { writer, epoch, seen: progress.settled, ahead, letters, backlog: standings })
}

/// Closes the stream while outcomes cannot be written down. Ends with the ledger's writer.
///
/// A server that is shutting down would wait for our confirmation, and we for its database, for
/// ever.
///
/// # Errors
/// None.
pub(crate) async fn watch(
    let_go: LetGo,
    mut writable: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    while writable.wait_for(|writable| !writable).await.is_ok() {
        let_go.now();
        if writable.wait_for(|writable| *writable).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// What this process calls itself as the holder of the slot.
pub(crate) fn own_name() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("walhook {} on host {host}, pid {}", env!("CARGO_PKG_VERSION"), std::process::id())
}
