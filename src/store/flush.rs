//! One flush of the ledger, a checkpoint: everything that happened since the last one, in one transaction.
//!
//! ```text
//! ledger ─ StateFlush ─▶ [commit] fence, books, dead letters ─▶ backlog and push log by COPY ─▶ COMMIT
//! ```
//!
//! Either all of it is in the tables or nothing: the books balance and progress never runs ahead of
//! what it stands for. The first statement checks that the slot is still ours and counts the flush; if it
//! is not, it fails, and with it all that comes after it in the transaction. So it is sent together with all
//! statements that do not need one another's answer.

mod epoch_fence;
mod joined;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use futures_util::future::try_join_all;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use crate::failpoint;
use crate::flow::backfill::BackfillStep;
use crate::flow::backfill::MovedRow;
use crate::flow::event::EventId;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::flow::time::Timestamp;
use crate::store::SqlSession;
use crate::store::backfill_moves;
use crate::store::backfills;
use crate::store::backlog::BacklogDelivery;
use crate::store::backlog::ParkedDelivery;
use crate::store::backlog::ReparkedDelivery;
use crate::store::backlog::parked_rows;
use crate::store::books;
use crate::store::books::BookEntry;
use crate::store::books::CommonChange;
use crate::store::dead_letters::DeadLetter;
use crate::store::dead_letters::letter_rows;
use crate::store::ownership::StateOwnership;
use crate::store::partitions;
use crate::store::progress::lock_params;
use crate::store::push_log;
use crate::store::push_log::LoggedAttempt;
use crate::store::push_log::LoggedBatch;
use crate::store::push_log::OpenCopy;
use crate::store::push_totals;
use crate::store::push_totals::PushTotals;
use crate::store::renames;
use crate::store::renames::EndpointRename;
use crate::store::resend;
use crate::store::resend::ResentLetter;
use crate::store::seen_values;
use crate::store::seen_values::SeenValue;
use crate::store::session::prepared_statements;
use crate::store::session::prepared_statements::StateTransaction;
use crate::store::sql::SqlParams;
use crate::store::sql::chunks;
use crate::store::state_error::StateError;
use crate::store::write_backs;
use crate::store::write_backs::OutcomeTally;

pub use joined::JoinedFlush;
pub use joined::PartitionFlush;
pub use joined::commit_joined;

/// Everything that one flush commits. What is empty costs nothing.
#[derive(Clone, Debug, Default)]
pub struct StateFlush {
    /// The end of the settled prefix; `None` leaves it where it is.
    pub settled: Option<Position>,
    /// What will be confirmed after this flush. What the state holds never goes back: before a run has seen
    /// its first transaction end it knows of no position, and the slot stands where an earlier run left it.
    pub confirmed: Option<Lsn>,
    /// The commit time of the last transaction before that, where it is known.
    pub confirmed_at: Option<Timestamp>,
    /// Endpoints that have come further than the prefix: all that each was owed of the changes
    /// before this one is settled.
    pub endpoint_watermarks: Vec<(Arc<str>, Position)>,
    /// Deliveries settled beyond the prefix and their endpoint's front: by endpoint and event. Those
    /// that an earlier flush noted are not repeated here; they go by themselves when `settled` passes
    /// them.
    pub settled_ahead: Vec<(Arc<str>, EventId)>,
    pub attempts: Vec<LoggedAttempt>,
    pub batches: Vec<LoggedBatch>,
    pub parked: Vec<ParkedDelivery>,
    /// Rows of the backlog that go back there after another attempt.
    pub reparked: Vec<ReparkedDelivery>,
    /// Rows of the backlog that are settled, whatever their outcome.
    pub finished: Vec<BacklogDelivery>,
    pub dead: Vec<DeadLetter>,
    /// Dead letters whose resend ended well, or expired. One that died again is in `dead`.
    pub resent: Vec<ResentLetter>,
    pub books: Vec<BookEntry>,
    pub common: CommonChange,
    /// What is added to the sums of all pushes.
    pub totals: PushTotals,
    /// Outcomes of events with a write-back.
    pub write_backs: Vec<OutcomeTally>,
    /// Values of events that `settled` passes.
    pub seen: Vec<SeenValue>,
    /// Values of these event types that are older are forgotten.
    pub forget: Vec<(Arc<str>, Timestamp)>,
    /// Endpoints that have another name after this flush, whose rows have the old one.
    pub renames: Vec<EndpointRename>,
    /// How far backfills have come.
    pub backfilled: Vec<BackfillStep>,
    /// Rows that have got other keys while their tables are read.
    pub moved: Vec<MovedRow>,
}

impl StateFlush {
    /// Whether an outcome is among it that may have been the last of its event.
    pub fn completes_write_backs(&self) -> bool {
        let is_untaken =
            |tally: &OutcomeTally| tally.target.as_ref().is_some_and(|row| row.owed == 0);
        let counts = |tally: &OutcomeTally| tally.delivered + tally.failed > 0 || is_untaken(tally);
        self.write_backs.iter().any(counts) || !self.resent.is_empty()
    }

    /// Whether there is nothing to write: then nothing should be written.
    pub fn is_empty(&self) -> bool {
        self.settled.is_none()
            && self.confirmed.is_none()
            && self.endpoint_watermarks.is_empty()
            && self.settled_ahead.is_empty()
            && self.attempts.is_empty()
            && self.batches.is_empty()
            && self.parked.is_empty()
            && self.reparked.is_empty()
            && self.finished.is_empty()
            && self.dead.is_empty()
            && self.resent.is_empty()
            && self.books.is_empty()
            && self.common.is_empty()
            && self.totals.is_empty()
            && self.write_backs.is_empty()
            && self.seen.is_empty()
            && self.forget.is_empty()
            && self.renames.is_empty()
            && self.backfilled.is_empty()
            && self.moved.is_empty()
    }
}

/// The lock that every transaction for a partition holds. Plans are kept, and tables grow: none may be made that
/// reads all of a table because that has few rows now.
const LOCK: &str = "SELECT pg_catalog.pg_advisory_xact_lock($1),
                           pg_catalog.set_config('enable_seqscan', 'off', true)";

/// Commits `flush`.
///
/// When the answer gets lost, nobody knows whether it was committed: call it again with the *same*
/// flush, on a new session if need be. It is then committed once, not twice.
///
/// # Errors
/// [`StateError::Fenced`]: another walhook has the slot, nothing was written, and nothing may be
/// sent or confirmed any more. [`StateError::BodyTooLarge`]: a parked body can never be stored.
/// Otherwise why it could not be committed; see [`StateError::is_transient`].
pub async fn commit(
    session: &mut SqlSession,
    ownership: &mut StateOwnership,
    flush: &StateFlush,
) -> Result<(), StateError> {
    let number = ownership.flushed + 1;
    let mut outcome = attempt(session, ownership, number, flush).await;
    if outcome.as_ref().is_err_and(prepared_statements::is_of_names) {
        session.statements.give_up();
        outcome = attempt(session, ownership, number, flush).await;
    }
    let no_partition = outcome.as_ref().is_err_and(|error| {
        error.sqlstate() == Some(&SqlState::CHECK_VIOLATION)
            && !(flush.attempts.is_empty() && flush.batches.is_empty())
    });
    if no_partition {
        // No day was made ahead for some attempt: the clock moved, or nobody made days.
        let days = push_log::days(&flush.attempts, &flush.batches);
        let made = partitions::ensure(&mut session.client, &days).await?;
        if !made.is_empty() {
            outcome = attempt(session, ownership, number, flush).await;
        }
    }
    outcome?;
    ownership.committed(flush.settled);
    Ok(())
}

async fn attempt(
    session: &mut SqlSession,
    ownership: &StateOwnership,
    number: i64,
    flush: &StateFlush,
) -> Result<(), StateError> {
    let SqlSession { client, statements, .. } = session;
    // Its answer is waited for: without a transaction, each statement would be one.
    let tx = statements.begin(client).await?;
    let refused = AtomicBool::new(false);
    let steps = [PartitionStep { ownership, number, flush }];
    match Box::pin(write(tx, &steps, ownership, flush, &refused)).await {
        Err(_) if refused.load(Ordering::Relaxed) => {
            epoch_fence::refusal(client, ownership, number).await
        }
        outcome => outcome,
    }
}

/// How far a partition comes by a flush.
struct PartitionStep<'a> {
    ownership: &'a StateOwnership,
    /// Of the flush.
    number: i64,
    flush: &'a StateFlush,
}

/// Moves the progress of each partition on, and adds `rows`, which are those of all of them; `ownership` is that of
/// any. Tells `refused` if a partition is not ours.
async fn write(
    mut tx: StateTransaction<'_>,
    steps: &[PartitionStep<'_>],
    ownership: &StateOwnership,
    rows: &StateFlush,
    refused: &AtomicBool,
) -> Result<(), StateError> {
    // In this order on the wire. A row may be finished and parked anew by the same flush.
    tokio::try_join!(
        biased;
        try_join_all(steps.iter().map(|step| move_on(&tx, step, refused))),
        parked_rows::finish(&tx, ownership, &rows.finished),
        resend::close(&tx, ownership, &rows.resent),
        write_backs::resent(&tx, ownership, &rows.resent),
        write_backs::count(&tx, ownership, &rows.write_backs),
        seen_values::add(&tx, ownership, &rows.seen),
        seen_values::forget(&tx, ownership, &rows.forget),
        backfill_moves::add(&tx, ownership, &rows.moved),
        backfills::step(&tx, ownership, &rows.backfilled),
        books::add(&tx, ownership, &rows.books),
        books::change_common(&tx, ownership, &rows.common),
        push_totals::add(&tx, ownership, &rows.totals),
        move_endpoint_watermarks(&tx, ownership, &rows.endpoint_watermarks),
        letter_rows::insert(&tx, ownership, &rows.dead),
    )?;
    parked_rows::park(&mut tx, ownership, &rows.parked).await?;
    parked_rows::repark(&tx, ownership, &rows.reparked).await?;
    let mut logged = push_log::copy(&tx, ownership, &rows.attempts, &rows.batches).await?;
    if !rows.renames.is_empty()
        && let Some(copy) = logged.take()
    {
        copy.finish().await?;
    }
    for rename in &rows.renames {
        renames::carry_over(&tx, ownership, rename).await?;
    }
    failpoint::reached("before_commit");
    failpoint::during("commit_sent", end(tx, logged)).await
}

/// What is a partition's own: its lock, the fence, what its settled prefix passes, what is settled beyond it.
async fn move_on(
    tx: &StateTransaction<'_>,
    step: &PartitionStep<'_>,
    refused: &AtomicBool,
) -> Result<(), StateError> {
    let &PartitionStep { ownership, number, flush } = step;
    let lock = lock_params(&ownership.slot, ownership.partition);
    tokio::try_join!(
        biased;
        tx.execute(LOCK, &lock),
        epoch_fence::pass(tx, ownership, number, flush, refused),
        pass(tx, ownership, flush.settled),
        note_settled_ahead(tx, ownership, &flush.settled_ahead),
    )?;
    Ok(())
}

/// Ends the COPY, if one is open, and the transaction.
async fn end(tx: StateTransaction<'_>, logged: Option<OpenCopy>) -> Result<(), StateError> {
    let Some(copy) = logged else { return tx.commit().await };
    // If the COPY fails, the server takes the COMMIT behind it for a ROLLBACK.
    tokio::try_join!(biased; copy.finish(), tx.commit())?;
    Ok(())
}

/// Forgets the deliveries that the settled prefix has passed.
async fn pass(
    tx: &StateTransaction<'_>,
    ownership: &StateOwnership,
    settled: Option<Position>,
) -> Result<(), StateError> {
    let Some(settled) = settled else { return Ok(()) };
    // Ids sort by position: this is the greatest of an event at such a one.
    let last = |Position { commit, ordinal }| {
        format!("evt_{:016x}{ordinal:08x}{:016x}", commit.raw(), u64::MAX)
    };
    let mut params = SqlParams::default();
    params.put(Type::TEXT, ownership.slot.as_ref());
    params.put(Type::TEXT, last(settled));
    // Nothing is left up to where the last flush passed but the index entries of its rows, and
    // those of all flushes since a vacuum: without this bound each flush would look through them.
    params.put(Type::TEXT, ownership.passed.map_or_else(String::new, last));
    // Another partition's stream may not have come as far.
    params.put(Type::INT4, ownership.partition.raw());
    let delete = "DELETE FROM walhook.settled_ahead
          WHERE slot = $1 AND event_id <= $2 AND event_id > $3 AND partition = $4";
    tx.execute(delete, &params).await?;
    Ok(())
}

async fn move_endpoint_watermarks(
    tx: &StateTransaction<'_>,
    ownership: &StateOwnership,
    endpoint_watermarks: &[(Arc<str>, Position)],
) -> Result<(), StateError> {
    for chunk in chunks(endpoint_watermarks, |_| 0) {
        let mut params = SqlParams::default();
        params.put(Type::TEXT, ownership.slot.as_ref());
        params.column(Type::TEXT_ARRAY, chunk.iter().map(|(endpoint, _)| &**endpoint));
        params.column(Type::PG_LSN_ARRAY, chunk.iter().map(|(_, front)| front.commit));
        let ordinals = chunk.iter().map(|(_, front)| i64::from(front.ordinal));
        params.column(Type::INT8_ARRAY, ordinals);
        tx.execute(
            "INSERT INTO walhook.fronts (slot, endpoint, before_lsn, before_ordinal)
             SELECT $1, endpoint, lsn, ordinal
               FROM unnest($2::text[], $3::pg_lsn[], $4::bigint[]) AS r (endpoint, lsn, ordinal)
             ON CONFLICT (slot, endpoint) DO UPDATE
                SET before_lsn = excluded.before_lsn, before_ordinal = excluded.before_ordinal",
            &params,
        )
        .await?;
    }
    Ok(())
}

async fn note_settled_ahead(
    tx: &StateTransaction<'_>,
    ownership: &StateOwnership,
    settled_ahead: &[(Arc<str>, EventId)],
) -> Result<(), StateError> {
    for chunk in chunks(settled_ahead, |_| 0) {
        let mut params = SqlParams::default();
        params.put(Type::TEXT, ownership.slot.as_ref());
        params.column(Type::TEXT_ARRAY, chunk.iter().map(|(_, id)| id.to_string()));
        params.column(Type::TEXT_ARRAY, chunk.iter().map(|(endpoint, _)| &**endpoint));
        params.put(Type::INT4, ownership.partition.raw());
        tx.execute(
            "INSERT INTO walhook.settled_ahead (slot, event_id, endpoint, partition)
             SELECT $1, event_id, endpoint, $4 FROM unnest($2::text[], $3::text[])
                 AS r (event_id, endpoint)
             ON CONFLICT DO NOTHING",
            &params,
        )
        .await?;
    }
    Ok(())
}
