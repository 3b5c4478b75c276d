//! One flush of the ledger, a checkpoint: everything that happened since the last one, in one transaction.
//!
//! ```text
//! ledger ─ StateFlush ─▶ [commit] fence ─▶ books, dead letters ─▶ backlog and push log by COPY ─▶ COMMIT
//! ```
//!
//! Either all of it is in the tables or nothing: the books balance and progress never runs ahead of
//! what it stands for. The first statement checks that the slot is still ours and counts the flush;
//! statements that do not need one another's answer are sent together.

use std::sync::Arc;

use tokio_postgres::Client;
use tokio_postgres::Row;
use tokio_postgres::Transaction;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use crate::failpoint;
use crate::flow::backfill::BackfillStep;
use crate::flow::backfill::MovedRow;
use crate::flow::event::EventId;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::flow::time::Timestamp;
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
use crate::store::progress::begin;
use crate::store::progress::fenced;
use crate::store::progress::lock;
use crate::store::progress::not_ours;
use crate::store::push_log;
use crate::store::push_log::LoggedAttempt;
use crate::store::push_log::LoggedBatch;
use crate::store::push_totals;
use crate::store::push_totals::PushTotals;
use crate::store::renames;
use crate::store::renames::EndpointRename;
use crate::store::resend;
use crate::store::resend::ResentLetter;
use crate::store::seen_values;
use crate::store::seen_values::SeenValue;
use crate::store::sql::SqlParams;
use crate::store::sql::chunks;
use crate::store::sql::read;
use crate::store::state_error::StateError;
use crate::store::write_backs;
use crate::store::write_backs::OutcomeTally;

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

/// What the fence said.
#[derive(Debug, Eq, PartialEq)]
enum EpochFence {
    Open,
    /// The transaction of an earlier try was committed after all.
    AlreadyCommitted,
}

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
    client: &mut Client,
    ownership: &mut StateOwnership,
    flush: &StateFlush,
) -> Result<(), StateError> {
    let number = ownership.flushed + 1;
    let mut outcome = attempt(client, ownership, number, flush).await;
    let no_partition = outcome.as_ref().is_err_and(|error| {
        error.sqlstate() == Some(&SqlState::CHECK_VIOLATION)
            && !(flush.attempts.is_empty() && flush.batches.is_empty())
    });
    if no_partition {
        // No day was made ahead for some attempt: the clock moved, or nobody made days.
        let days = push_log::days(&flush.attempts, &flush.batches);
        let made = partitions::ensure(client, &days).await?;
        if !made.is_empty() {
            outcome = attempt(client, ownership, number, flush).await;
        }
    }
    outcome?;
    ownership.flushed = number;
    ownership.passed = flush.settled.or(ownership.passed);
    Ok(())
}

async fn attempt(
    client: &mut Client,
    ownership: &StateOwnership,
    number: i64,
    flush: &StateFlush,
) -> Result<(), StateError> {
    let mut tx = begin(client).await?;
    if fence(&tx, ownership, number, flush).await? == EpochFence::AlreadyCommitted {
        return Ok(()); // the transaction is rolled back as it is dropped
    }
    // In this order on the wire. A row may be finished and parked anew by the same flush.
    tokio::try_join!(
        biased;
        parked_rows::finish(&tx, ownership, &flush.finished),
        resend::close(&tx, ownership, &flush.resent),
        write_backs::resent(&tx, ownership, &flush.resent),
        write_backs::count(&tx, ownership, &flush.write_backs),
        seen_values::add(&tx, ownership, &flush.seen),
        seen_values::forget(&tx, ownership, &flush.forget),
        pass(&tx, ownership, flush.settled),
        backfill_moves::add(&tx, ownership, &flush.moved),
        backfills::step(&tx, ownership, &flush.backfilled),
        books::add(&tx, ownership, &flush.books),
        books::change_common(&tx, ownership, &flush.common),
        push_totals::add(&tx, ownership, &flush.totals),
        move_endpoint_watermarks(&tx, ownership, &flush.endpoint_watermarks),
        note_settled_ahead(&tx, ownership, &flush.settled_ahead),
        letter_rows::insert(&tx, ownership, &flush.dead),
    )?;
    parked_rows::park(&mut tx, ownership, &flush.parked).await?;
    parked_rows::repark(&tx, ownership, &flush.reparked).await?;
    push_log::copy(&tx, ownership, &flush.attempts, &flush.batches).await?;
    for rename in &flush.renames {
        renames::carry_over(&tx, ownership, rename).await?;
    }
    failpoint::reached("before_commit");
    failpoint::during("commit_sent", tx.commit()).await?;
    Ok(())
}

/// Counts the flush and moves progress, if the slot is ours and this is the next flush.
async fn fence(
    tx: &Transaction<'_>,
    ownership: &StateOwnership,
    number: i64,
    flush: &StateFlush,
) -> Result<EpochFence, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, ownership.slot.as_ref());
    params.put(Type::INT8, ownership.epoch);
    params.put(Type::INT8, number);
    params.put(Type::PG_LSN, flush.settled.map(|position| position.commit));
    params.put(Type::INT8, flush.settled.map(|position| i64::from(position.ordinal)));
    params.put(Type::PG_LSN, flush.confirmed);
    params.put(Type::TIMESTAMPTZ, flush.confirmed_at);
    params.put(Type::INT4, ownership.partition.raw());
    let update = "UPDATE walhook.progress
            SET flush = $3, settled_lsn = coalesce($4, settled_lsn),
                settled_ordinal = coalesce($5, settled_ordinal),
                confirmed_lsn = greatest($6, confirmed_lsn),
                confirmed_at = coalesce($7, confirmed_at), updated_at = now()
          WHERE slot = $1 AND partition = $8 AND epoch = $2 AND flush = $3 - 1";
    let list = params.list();
    let ((), updated) = tokio::try_join!(biased; lock(tx, &ownership.slot, ownership.partition), async {
        Ok(tx.execute_typed(update, &list).await?)
    })?;
    if updated == 1 {
        return Ok(EpochFence::Open);
    }
    let mut params = SqlParams::default();
    params.put(Type::TEXT, ownership.slot.as_ref());
    params.put(Type::INT4, ownership.partition.raw());
    let query = "SELECT epoch, flush, holder FROM walhook.progress
                  WHERE slot = $1 AND partition = $2";
    let row: Option<Row> = tx.query_typed_opt(query, &params.list()).await?;
    let Some(row) = row else { return Err(fenced(ownership, None)) };
    not_ours(ownership, read(&row, "epoch")?, read(&row, "holder")?)?;
    match read::<i64>(&row, "flush")? {
        stored if stored == number => Ok(EpochFence::AlreadyCommitted),
        // Flushes that were known to be committed are not there.
        stored if stored < number - 1 => {
            Err(StateError::SetBack { slot: ownership.slot.to_string() })
        }
        stored => Err(StateError::OutOfOrder { slot: ownership.slot.to_string(), number, stored }),
    }
}

/// Forgets the deliveries that the settled prefix has passed.
async fn pass(
    tx: &Transaction<'_>,
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
    tx.execute_typed(
        "DELETE FROM walhook.settled_ahead
          WHERE slot = $1 AND event_id <= $2 AND event_id > $3 AND partition = $4",
        &params.list(),
    )
    .await?;
    Ok(())
}

async fn move_endpoint_watermarks(
    tx: &Transaction<'_>,
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
        tx.execute_typed(
            "INSERT INTO walhook.fronts (slot, endpoint, before_lsn, before_ordinal)
             SELECT $1, endpoint, lsn, ordinal
               FROM unnest($2::text[], $3::pg_lsn[], $4::bigint[]) AS r (endpoint, lsn, ordinal)
             ON CONFLICT (slot, endpoint) DO UPDATE
                SET before_lsn = excluded.before_lsn, before_ordinal = excluded.before_ordinal",
            &params.list(),
        )
        .await?;
    }
    Ok(())
}

async fn note_settled_ahead(
    tx: &Transaction<'_>,
    ownership: &StateOwnership,
    settled_ahead: &[(Arc<str>, EventId)],
) -> Result<(), StateError> {
    for chunk in chunks(settled_ahead, |_| 0) {
        let mut params = SqlParams::default();
        params.put(Type::TEXT, ownership.slot.as_ref());
        params.column(Type::TEXT_ARRAY, chunk.iter().map(|(_, id)| id.to_string()));
        params.column(Type::TEXT_ARRAY, chunk.iter().map(|(endpoint, _)| &**endpoint));
        params.put(Type::INT4, ownership.partition.raw());
        tx.execute_typed(
            "INSERT INTO walhook.settled_ahead (slot, event_id, endpoint, partition)
             SELECT $1, event_id, endpoint, $4 FROM unnest($2::text[], $3::text[])
                 AS r (event_id, endpoint)
             ON CONFLICT DO NOTHING",
            &params.list(),
        )
        .await?;
    }
    Ok(())
}
