//! What walhook remembers, taken up at the start: the right to write it, how far it had come, and
//! what had been settled beyond that.

use std::collections::HashMap;
use std::num::NonZeroU16;
use std::sync::Arc;

use tokio::sync::watch;

use crate::backfill::first_start;
use crate::clock::host_now;
use crate::config::configuration::Settings;
use crate::endpoints::registry::snapshot::EndpointSnapshot;
use crate::endpoints::registry::snapshot::ListedEndpoint;
use crate::event::dedupe::VALUES_MAX;
use crate::failpoint;
use crate::flow::backfill::BackfillId;
use crate::flow::backlog::BacklogStanding;
use crate::flow::event::EventId;
use crate::flow::event::RuleIndex;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::flow::relation::TableName;
use crate::flow::write_back::NOBODY;
use crate::ha::shared_source;
use crate::ha::shared_source::TakenEndpoints;
use crate::ledger::state_status::StateStatus;
use crate::ledger::writer::StateWriter;
use crate::pipeline::already_settled::AlreadySettled;
use crate::pipeline::handles::SharedHandles;
use crate::pipeline::process_name::own_name;
use crate::preflight::endpoint_rows::KeyedRow;
use crate::preflight::orphans;
use crate::preflight::orphans::OrphanedDeliveries;
use crate::preflight::ownership;
use crate::preflight::ownership::StartConsent;
use crate::preflight::state_session::open;
use crate::replication::catalog::facts;
use crate::replication::diagnostic::SetupDiagnostic;
use crate::replication::error::SourceError;
use crate::replication::gap_survey;
use crate::replication::gap_survey::SlotMovers;
use crate::replication::wire::command::SystemIdentity;
use crate::replication::wire::feedback::SlotRelease;
use crate::store;
use crate::store::SqlSession;
use crate::store::backfill_moves;
use crate::store::backfills;
use crate::store::backlog::backlog_sizes;
use crate::store::backlog::backlog_sizes::BacklogSize;
use crate::store::books;
use crate::store::books::BookEntry;
use crate::store::books::CommonCounts;
use crate::store::crash_records;
use crate::store::crash_records::PastRuns;
use crate::store::dead_letters;
use crate::store::endpoint_states;
use crate::store::endpoint_states::EndpointState;
use crate::store::endpoints::StoredEndpoint;
use crate::store::ownership::StateOwnership;
use crate::store::partition_leases::PartitionRow;
use crate::store::progress;
use crate::store::progress::ServerLineage;
use crate::store::progress::StoredProgress;
use crate::store::progress::lineage;
use crate::store::progress::takeover;
use crate::store::push_totals;
use crate::store::push_totals::PushTotals;
use crate::store::seen_values;
use crate::store::seen_values::SeenValue;
use crate::store::session::backend;
use crate::store::slot_owner::SlotOwner;
use crate::store::state_error::StateError;

/// What the state says when the slot is ours.
pub(crate) struct TakenState {
    pub(crate) writer: StateWriter,
    /// What may be confirmed without being written down first.
    pub(crate) confirmed: Lsn,
    /// Where the WAL of the source ends that the state is in, too; `None` if it is in another system, or
    /// nobody wants to know.
    pub(crate) wal_end: Option<Lsn>,
    /// The publication's oid.
    pub(crate) publication: Option<u32>,
    /// For who claims dead letters.
    pub(crate) ownership: StateOwnership,
    /// All changes up to and including this one are settled.
    pub(crate) seen: Option<Position>,
    /// Deliveries beyond it that are settled, too: they come again and are not made again.
    pub(crate) settled_ahead: Vec<(Arc<str>, EventId)>,
    /// What each endpoint has settled: everything before this change.
    pub(crate) endpoint_watermarks: Vec<(Arc<str>, Position)>,
    /// Dead letters that are kept, by endpoint.
    pub(crate) letters: Vec<(Arc<str>, u64)>,
    /// Endpoints that were made at run time.
    pub(crate) stored: Vec<StoredEndpoint>,
    /// The version of the endpoints that holds at least; 0 where nobody shares them.
    pub(crate) endpoints_version: i64,
    /// The rows of the endpoints' table, where they were read to see which have other names.
    pub(crate) rows: Option<Vec<KeyedRow>>,
    /// Which endpoints are paused, and where they pointed.
    pub(crate) states: Vec<EndpointState>,
    /// What the backlog holds, by endpoint.
    pub(crate) backlog: HashMap<Arc<str>, BacklogStanding>,
    /// Values that events were raised with, by rule, the oldest first.
    pub(crate) remembered: Vec<(RuleIndex, SeenValue)>,
    /// Backfills by key that are not over.
    pub(crate) moving: Vec<(BackfillId, TableName)>,
    /// How the runs before have ended, and a session for marks if they have crashed.
    pub(crate) past: PastRuns,
    pub(crate) marks: Option<SqlSession>,
    /// What became of all deliveries so far.
    pub(crate) books: Vec<BookEntry>,
    pub(crate) totals: PushTotals,
    /// What the books hold for all endpoints alike.
    pub(crate) common: CommonCounts,
    /// Those that a tail hands events to.
    pub(crate) partitions: Vec<PartitionRow>,
}

impl TakenState {
    /// Shows what is kept in the gauges.
    pub(crate) fn show(&self, snapshot: &EndpointSnapshot, handles: &SharedHandles) {
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let letters: HashMap<&str, u64> =
            self.letters.iter().map(|(name, count)| (&**name, *count)).collect();
        for ListedEndpoint { endpoint, metrics, .. } in &snapshot.listed {
            let standing = self.backlog.get(&endpoint.name);
            metrics.pending_backlog.set(number(standing.map_or(0, |s| s.rows as u64)));
            metrics.dead_letters.set(number(letters.get(&*endpoint.name).copied().unwrap_or(0)));
        }
        let rows = self.backlog.iter().map(|(name, standing)| (name, standing.rows as u64));
        let orphans: Vec<OrphanedDeliveries> =
            orphans::of(rows, |name| snapshot.find(name).is_some());
        for orphans in &orphans {
            tracing::warn!(
                endpoint = &*orphans.endpoint,
                rows = orphans.rows,
                fix = orphans.fix(),
                "parked deliveries wait for an endpoint that is not configured"
            );
        }
        handles.metrics.orphaned().set(number(orphans.iter().map(|one| one.rows).sum()));
        let named =
            orphans.iter().map(|one| (one.endpoint.to_string(), one.what() + ": " + &one.fix()));
        handles.missing.set(named.collect());
    }

    /// What was settled beyond the prefix, for the endpoints that there are.
    pub(crate) fn already_settled_of(&self, snapshot: &EndpointSnapshot) -> AlreadySettled {
        let index = |name| snapshot.find(name).map(|shown| shown.index);
        let endpoint_watermarks =
            self.endpoint_watermarks.iter().filter_map(|(name, at)| Some((index(name)?, *at)));
        let settled_ahead =
            self.settled_ahead.iter().filter_map(|(name, id)| Some((index(name)?, *id)));
        let untaken = self.settled_ahead.iter().filter(|(name, _)| &**name == NOBODY);
        AlreadySettled::new(endpoint_watermarks, settled_ahead)
            .with_untaken(untaken.map(|(_, id)| *id))
    }

    /// The newest change of which something is parked.
    pub(crate) fn parked(&self) -> Option<Position> {
        self.backlog.values().map(|standing| standing.newest).max()
    }
}

/// Takes up the state of the slot, which has to be ours: from here on a walhook that had it before
/// can write no more. Where the operator has agreed that changes are lost, it begins anew at the
/// slot's position. `shared`: others deliver, for so many partitions.
///
/// # Errors
/// The gaps, if they are not accepted; that the state or the server cannot be asked.
pub(crate) async fn take(
    settings: &Settings,
    identity: &SystemIdentity,
    (consent, shared): (StartConsent, Option<NonZeroU16>),
    (writable, status): (watch::Sender<bool>, StateStatus),
) -> anyhow::Result<TakenState> {
    let SystemIdentity { system, timeline, .. } = *identity;
    let mut session = open(settings).await?;
    let slot = &settings.postgres.slot;
    let source = store::connect(&settings.postgres.server).await?;
    let found = facts::slot(&source.client, slot).await?;
    let confirmed = found.as_ref().and_then(|slot| slot.confirmed);
    let (ownership, mut progress) = takeover::take(&mut session.client, slot, &own_name()).await?;
    let ended_cleanly = crash_records::ended_cleanly(&session.client, slot).await?;
    ownership::admit(settings, &progress, consent, ended_cleanly)?;
    let publication =
        gap_survey::publication(&source.client, &settings.postgres.publication).await?;
    let lineage =
        ServerLineage { system, timeline, publications: publication.into_iter().collect() };
    let (client, postgres) = (&source.client, &settings.postgres);
    let gaps = gap_survey::survey(client, postgres, identity, SlotMovers::OnlyUs, found, &progress)
        .await?;
    if !gaps.is_empty() && !consent.gap {
        return Err(SourceError::NotSetUp(gaps).into());
    }
    let books = SlotBooks { settings, source: &source, consent, lineage: &lineage, confirmed };
    books.begin(&mut session, &ownership, &mut progress, &gaps).await?;
    failpoint::reached(failpoint::STATE_BEGUN);
    SlotOwner::new(&settings.events).save(&session.client, &ownership).await?;
    let taken = shared_source::take_up(settings, &mut session, &ownership, shared).await?;
    let TakenEndpoints { stored, endpoints_version, rows, partitions, endpoint_watermarks } = taken;
    let settled_ahead = progress::load_settled_ahead(&session.client, slot).await?;
    let moving = backfill_moves::watched(&session.client, slot).await?;
    let waiting = backlog_sizes::sizes(&session.client, slot).await?;
    let states = endpoint_states::load(&session.client, slot).await?;
    let letters = dead_letters::sizes(&session.client, slot).await?;
    let remembered = remembered(settings, &session).await?;
    let books = books::load(&session.client, slot).await?;
    let common = books::load_common(&session.client, slot).await?;
    let totals = push_totals::load(&session.client, slot).await?;
    let past = crash_records::started(&mut session.client, &ownership, progress.settled).await?;
    let marks = marks_session(settings, past).await?;
    let wal_end = wal_end(settings, &session, system).await?;
    let days = settings.push_log.retention_days;
    let state = settings.state.clone();
    let writer = StateWriter::new(state, session, ownership.clone(), days, writable, status);
    Ok(TakenState {
        writer,
        confirmed: progress.confirmed.unwrap_or_default(),
        wal_end,
        publication,
        ownership,
        seen: progress.settled,
        settled_ahead,
        endpoint_watermarks,
        letters,
        stored,
        endpoints_version,
        rows,
        states,
        backlog: waiting.into_iter().map(standing).collect(),
        past,
        marks,
        totals,
        books,
        common,
        remembered,
        moving,
        partitions,
    })
}

/// A session for marks, where changes are to be marked.
///
/// # Errors
/// The state cannot be reached.
pub(super) async fn marks_session(
    settings: &Settings,
    past: PastRuns,
) -> Result<Option<SqlSession>, StateError> {
    match past {
        PastRuns::Crashing(_) => {
            let session = store::connect_within(&settings.state, store::ANSWER_SOON).await?;
            // A mark outlives this process without being on a disk; waiting for that with each change takes minutes.
            session.client.batch_execute("SET synchronous_commit = off").await?;
            Ok(Some(session))
        }
        PastRuns::Sound | PastRuns::Convicted { .. } => Ok(None),
    }
}

/// An endpoint and what waits for it.
pub(super) fn standing(size: BacklogSize) -> (Arc<str>, BacklogStanding) {
    let rows = usize::try_from(size.rows).unwrap_or(usize::MAX);
    (size.endpoint, BacklogStanding { rows, newest: size.newest, is_out: size.is_out })
}

/// Where the WAL ends now, if standbys are to keep slot and state together.
async fn wal_end(
    settings: &Settings,
    session: &SqlSession,
    system: u64,
) -> Result<Option<Lsn>, StateError> {
    if !settings.postgres.failover {
        return Ok(None);
    }
    let is_same = match backend::system(&session.client).await? {
        Some(found) => found == system,
        None => settings.state == settings.postgres.server,
    };
    if is_same { Ok(Some(backend::wal_end(&session.client).await?)) } else { Ok(None) }
}

/// What the beginning of a slot's books depends on.
struct SlotBooks<'s> {
    settings: &'s Settings,
    source: &'s SqlSession,
    consent: StartConsent,
    lineage: &'s ServerLineage,
    confirmed: Option<Lsn>,
}

impl SlotBooks<'_> {
    /// Notes which stream the positions belong to; begins anew at `confirmed` where nothing is known, or
    /// where gaps were accepted.
    async fn begin(
        &self,
        session: &mut SqlSession,
        ownership: &StateOwnership,
        progress: &mut StoredProgress,
        gaps: &[SetupDiagnostic],
    ) -> anyhow::Result<()> {
        let (lineage, confirmed) = (self.lineage, self.confirmed);
        let is_new = progress.is_new();
        if is_new && gaps.is_empty() {
            progress.confirmed = confirmed;
            return self.begin_first(session, ownership).await;
        }
        if is_new || !gaps.is_empty() {
            (progress.settled, progress.confirmed) = (None, confirmed);
            for gap in gaps {
                let from = confirmed.unwrap_or_default();
                tracing::warn!(gap = gap.what(), %from, "gap accepted, beginning anew");
            }
            lineage::begin_anew(&mut session.client, ownership, lineage, confirmed).await?;
        } else if progress.lineage.as_ref() != Some(lineage) {
            lineage::set_lineage(&mut session.client, ownership, lineage).await?;
        }
        Ok(())
    }

    /// The first start of the slot: what the configuration asks of the tables is ordered with it. Not where
    /// the operator speaks of gaps: then it is theirs to say what is sent.
    async fn begin_first(
        &self,
        session: &mut SqlSession,
        ownership: &StateOwnership,
    ) -> anyhow::Result<()> {
        let wishes = match self.consent.gap {
            true => Vec::new(),
            false => first_start::wishes(self.settings, &self.source.client).await?,
        };
        if self.consent.gap {
            for rule in first_start::rules(self.settings) {
                let (table, fill) = (&rule.table, first_start::by_hand(rule));
                tracing::warn!(%table, fill, "--accept-gap: no rows are sent by themselves");
            }
        }
        let at = (self.lineage, self.confirmed);
        let now = host_now();
        let client = &mut session.client;
        for one in backfills::begin_slot(client, ownership, at, &wishes, now).await? {
            let (table, rows) = (&one.wish.table, one.wish.estimate);
            tracing::info!(backfill = %one.id, %table, rows, "a backfill is ordered: the slot is new");
        }
        Ok(())
    }
}

/// What the rules with `dedupe` have to remember, and those that tell of their table's shape.
async fn remembered(
    settings: &Settings,
    session: &SqlSession,
) -> Result<Vec<(RuleIndex, SeenValue)>, StateError> {
    let (slot, mut all) = (&settings.postgres.slot, Vec::new());
    for (index, rule) in
        settings.events.iter().enumerate().filter(|(_, r)| r.dedupe.is_some() || r.on.schema)
    {
        let client = &session.client;
        let values = seen_values::load(client, slot, &rule.event_type, VALUES_MAX).await?;
        all.extend(values.into_iter().map(|value| (RuleIndex(index), value)));
    }
    Ok(all)
}

/// Closes the stream while outcomes cannot be written down. Ends with the ledger's writer.
///
/// A server that is shutting down would wait for our confirmation, and we for its database, for
/// ever.
/// It cannot fail: the signature is that of a task.
pub(crate) async fn watch(
    let_go: SlotRelease,
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
