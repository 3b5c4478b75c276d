//! Flushes of several partitions of one source, in one transaction: so many rows cost one COPY and one COMMIT.
//!
//! It is committed as a whole or not at all, so one partition that is not ours any more fails it for all of them. Which
//! one, and what is to be done, each flush finds out by itself: [`commit`](super::commit) after it counts
//! what was committed here after all, and not once more.

use std::sync::atomic::AtomicBool;

use crate::store::SqlSession;
use crate::store::flush::PartitionStep;
use crate::store::flush::StateFlush;
use crate::store::flush::write;
use crate::store::ownership::StateOwnership;
use crate::store::session::prepared_statements;
use crate::store::state_error::StateError;

/// Rows of the push log in a flush that is joined at most: a larger one gains little, and all others would wait for it.
const JOINED_ROWS_MAX: usize = 512;

/// A flush, and the right to write it.
#[derive(Debug)]
pub struct PartitionFlush {
    pub ownership: StateOwnership,
    pub flush: StateFlush,
}

/// Flushes of different partitions, all of one source.
#[derive(Debug)]
pub struct JoinedFlush {
    /// How far each partition comes. Their rows are in `rows`.
    parts: Vec<PartitionFlush>,
    rows: StateFlush,
}

impl JoinedFlush {
    pub fn of(mut parts: Vec<PartitionFlush>) -> Self {
        // The same order of locks in every process.
        parts.sort_by_key(|part| part.ownership.partition);
        let mut rows = StateFlush::default();
        for part in &mut parts {
            rows.take_rows(&mut part.flush);
        }
        Self { parts, rows }
    }
}

/// Commits them.
///
/// # Errors
/// Why they could not be committed, or that nobody knows whether they were: each is to be given to
/// [`commit`](super::commit) then.
pub async fn commit_joined(
    session: &mut SqlSession,
    joined: &JoinedFlush,
) -> Result<(), StateError> {
    let outcome = attempt(session, joined).await;
    if !outcome.as_ref().is_err_and(prepared_statements::is_of_names) {
        return outcome;
    }
    session.statements.give_up();
    attempt(session, joined).await
}

async fn attempt(session: &mut SqlSession, joined: &JoinedFlush) -> Result<(), StateError> {
    let JoinedFlush { parts, rows } = joined;
    let Some(first) = parts.first() else { return Ok(()) };
    let SqlSession { client, statements, .. } = session;
    let tx = statements.begin(client).await?;
    let steps: Vec<_> = parts.iter().map(PartitionFlush::step).collect();
    let refused = AtomicBool::new(false);
    Box::pin(write(tx, &steps, &first.ownership, rows, &refused)).await
}

impl PartitionFlush {
    fn step(&self) -> PartitionStep<'_> {
        let Self { ownership, flush } = self;
        PartitionStep { ownership, number: ownership.flushed + 1, flush }
    }
}

impl StateFlush {
    /// Whether it may be committed together with those of other partitions: it writes only rows that are its
    /// partition's own, and the sums of all pushes. Whatever else is written locks rows that flushes of other
    /// processes lock as well, in an order of theirs; and what parks or dies is seldom little.
    pub(crate) fn may_be_joined(&self) -> bool {
        let Self {
            settled: _,
            confirmed: _,
            confirmed_at: _,
            endpoint_watermarks: _,
            settled_ahead: _,
            attempts,
            batches,
            parked,
            reparked,
            finished,
            dead,
            resent,
            books: _,
            common,
            totals: _,
            write_backs,
            seen,
            forget,
            renames,
            backfilled,
            moved,
        } = self;
        attempts.len() + batches.len() <= JOINED_ROWS_MAX
            && parked.is_empty()
            && reparked.is_empty()
            && finished.is_empty()
            && dead.is_empty()
            && resent.is_empty()
            && common.is_empty()
            && write_backs.is_empty()
            && seen.is_empty()
            && forget.is_empty()
            && renames.is_empty()
            && backfilled.is_empty()
            && moved.is_empty()
    }

    /// Takes over the rows of another flush that may be joined, and leaves how far its partition comes.
    fn take_rows(&mut self, of: &mut Self) {
        self.endpoint_watermarks.append(&mut of.endpoint_watermarks);
        self.attempts.append(&mut of.attempts);
        self.batches.append(&mut of.batches);
        self.books.append(&mut of.books);
        self.totals += std::mem::take(&mut of.totals);
    }
}
