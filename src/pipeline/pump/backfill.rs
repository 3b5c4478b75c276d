//! Sends the rows that backfills have read, between two transactions of the stream.
//!
//! ```text
//! reader ─ chunk ─▶ [window] ─ when the stream has reached its LSN ─▶ rows ─▶ route ─▶ lanes
//! ```
//!
//! Few go out at a time, and only where their lanes have little to do: what is live passes between them, and
//! those that are left take up what streams by meanwhile. A row stands right before the LSN from which on
//! nothing has come yet, behind all that has: records begin at multiples of eight, so no commit has that place.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::backfill::pump_orders::BackfillOrder;
use crate::backfill::pump_orders::ChunkOutcome;
use crate::backfill::pump_orders::KeyMoves;
use crate::backfill::window::ReadChunk;
use crate::failpoint;
use crate::flow::backfill::BackfillId;
use crate::flow::backfill::ReadRow;
use crate::flow::change::ChangeOp;
use crate::flow::change::CommittedChange;
use crate::flow::event::EventFacts;
use crate::flow::event::EventId;
use crate::flow::event::RuleIndex;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::flow::pump_report::FilteredNote;
use crate::flow::pump_report::OpenedAs;
use crate::flow::pump_report::PumpReport;
use crate::flow::settlement::EndpointIndex;
use crate::lane::sender::LaneSender;
use crate::pipeline::pump::EventPump;
use crate::pipeline::pump::relay_outbox::RelayOutbox;
use crate::pipeline::pump::waiting_rows::SLICE;
use crate::pipeline::pump::waiting_rows::SentSlice;

/// After so long some rows go in any case: lanes that are never idle would hold them up for ever.
const STARVED: Duration = Duration::from_millis(100);

/// How often it is looked whether lanes have room.
const LOOK: Duration = Duration::from_millis(1);

impl EventPump {
    /// Does what the reader of a backfill asks for, between two changes.
    pub(super) async fn take_order(&mut self, order: BackfillOrder) -> anyhow::Result<()> {
        match order {
            BackfillOrder::Track { id, table, moves, tracked } => {
                if let Some(KeyMoves { has_partitions }) = moves {
                    self.backfills.moves.watch(id, table.clone(), has_partitions);
                }
                self.backfills.window.track(id, table);
                tracked.send(()).ok(); // it may have been stopped
            }
            BackfillOrder::Forget { id, is_over } => {
                self.send_rest(id).await?;
                if is_over {
                    self.backfills.moves.forget(id);
                }
                self.backfills.window.forget(id);
                self.backfills.outcomes.remove(&id);
                self.backfills.slices.remove(&id);
            }
            BackfillOrder::Chunk { chunk, outcome } => {
                let names = &chunk.target.endpoints;
                if self.books.indexes(names).len() < names.len() {
                    outcome.send(ChunkOutcome::EndpointGone).ok(); // it may have been stopped
                    return Ok(());
                }
                self.backfills.accept(*chunk, outcome);
                self.send_slice().await?;
            }
        }
        Ok(())
    }

    /// Notes the rows that a change has moved, before it is settled. What comes again is noted again.
    pub(super) fn note_moves(&mut self, change: &CommittedChange) {
        let moved = self.backfills.moves.observe(change);
        self.outbox.opened.extend(moved.into_iter().map(PumpReport::Moved));
    }

    /// The stream has come to the end of a transaction, or of all that there is.
    pub(super) async fn send_rows(&mut self) -> anyhow::Result<()> {
        self.send_due(self.passed).await
    }

    /// A transaction begins that commits there.
    pub(super) async fn send_rows_before(&mut self, commit: Lsn) -> anyhow::Result<()> {
        if self.backfills.window.is_empty() || self.seen.is_some_and(|seen| seen.commit >= commit) {
            return Ok(()); // it comes again: rows that are due have gone
        }
        self.send_due(commit).await
    }

    async fn send_due(&mut self, reached: Lsn) -> anyhow::Result<()> {
        if self.backfills.window.is_empty() {
            return Ok(());
        }
        let Some(first) = self.first_place(reached) else { return Ok(()) };
        let due: Vec<BackfillId> =
            self.backfills.window.due(reached).map(|chunk| chunk.step.id).collect();
        let is_overdue = self.backfills.sent_at.elapsed() >= STARVED;
        let may_go = |id: &&BackfillId| is_overdue || self.has_room_for(**id);
        let Some(&id) = due.iter().find(may_go) else {
            self.backfills.note_full(&due);
            return Ok(());
        };
        let rows = self.slice_of(id);
        let Some(chunk) = self.backfills.window.take(id) else { return Ok(()) };
        self.send_rows_of(chunk, first, rows).await
    }

    /// Sends some rows while nothing comes by the stream.
    pub(super) async fn send_slice(&mut self) -> anyhow::Result<()> {
        if self.in_transaction {
            return Ok(());
        }
        self.send_rows().await?;
        self.outbox.hand_over().await?;
        if self.next_slice().is_none() {
            self.outbox.rest().await?;
        }
        Ok(())
    }

    /// In how long rows may go out, should nothing come by the stream before; `None` if none wait for that.
    pub(super) fn next_slice(&self) -> Option<Duration> {
        if self.in_transaction || self.backfills.window.is_empty() {
            return None;
        }
        self.first_place(self.passed)?;
        let mut due = self.backfills.window.due(self.passed).peekable();
        due.peek()?;
        Some(if due.any(|chunk| self.has_room_for(chunk.step.id)) { Duration::ZERO } else { LOOK })
    }

    /// Whether no lane that got the rows before has more to do already than it can at once. A slow endpoint
    /// that takes none of them holds nothing up.
    fn has_room_for(&self, id: BackfillId) -> bool {
        let is_roomy = self.outbox.relay.as_ref().is_none_or(RelayOutbox::is_roomy);
        is_roomy && self.lanes_of(id).all(|lane| lane.is_roomy(SLICE))
    }

    /// How many rows may go.
    fn slice_of(&self, id: BackfillId) -> usize {
        let Some(before) = self.backfills.slices.get(&id) else { return SLICE };
        before.next_rows(self.lanes_of(id).all(LaneSender::is_nearly_idle))
    }

    /// The lanes that got rows of it when some were sent last.
    fn lanes_of(&self, id: BackfillId) -> impl Iterator<Item = &LaneSender> {
        let takers = self.backfills.slices.get(&id).map(|slice| slice.takers.as_slice());
        let takers = takers.unwrap_or_default().iter();
        takers.filter_map(|index| self.outbox.lanes.get(index))
    }

    /// What was begun goes out whole: else its rows would come again when it is read on.
    async fn send_rest(&mut self, id: BackfillId) -> anyhow::Result<()> {
        let begun = self.backfills.window.take(id).filter(|chunk| chunk.rows.is_begun());
        let (Some(chunk), Some(first)) = (begun, self.first_place(self.passed)) else {
            return Ok(());
        };
        self.send_rows_of(chunk, first, usize::MAX).await?;
        self.outbox.hand_over().await
    }

    /// Where the next row stands; `None` while what comes has come before.
    fn first_place(&self, reached: Lsn) -> Option<Position> {
        if reached <= self.backfills.beyond {
            return None;
        }
        let commit = Lsn::from_raw(reached.raw().checked_sub(1)?);
        let before = self.seen.max(self.backfills.last);
        match before {
            Some(before) if before.commit > commit => None,
            Some(before) if before.commit == commit => Some(before.next()),
            _ => Some(Position { commit, ordinal: 0 }),
        }
    }

    async fn send_rows_of(
        &mut self,
        mut chunk: ReadChunk,
        first: Position,
        most: usize,
    ) -> anyhow::Result<()> {
        // What is collected for lanes from here on is of these rows.
        self.outbox.hand_over().await?;
        let mut position = first;
        self.backfills.sent_at = Instant::now();
        for row in chunk.rows.next_rows(most) {
            failpoint::reached("backfilling");
            let read = ReadRow { id: row.id, target: Arc::clone(&chunk.target) };
            self.change(CommittedChange {
                position,
                committed: chunk.read_at,
                relation: row.relation,
                op: ChangeOp::Read { new: row.tuple, read },
                xid: 0,
                metadata: None,
                trace: None,
                held: None,
            })
            .await?;
            self.backfills.last = Some(position);
            position = position.next();
            chunk.step.sent += 1;
        }
        let takers = self.outbox.filled().to_vec();
        let sent = SentSlice { rows: most, takers, was_too_much: false };
        self.backfills.slices.insert(chunk.step.id, sent);
        if !chunk.rows.is_empty() {
            self.backfills.window.put_back(chunk);
            return Ok(());
        }
        let step = chunk.step;
        let (id, sent) = (step.id, step.sent);
        self.outbox.opened.push(PumpReport::Backfilled(step));
        self.backfills.tell(id, ChunkOutcome::Released { sent });
        Ok(())
    }

    /// The endpoints that a row is for, where a backfill names some.
    pub(super) fn chosen(&self, change: &CommittedChange) -> Option<BTreeSet<EndpointIndex>> {
        let ChangeOp::Read { read, .. } = &change.op else { return None };
        let names = &read.target.endpoints;
        (!names.is_empty()).then(|| self.books.indexes(names))
    }

    /// Notes that an event of the rule was raised: with so many who take all of its events, or for the
    /// endpoints that a backfill names, to all others of which it is nothing.
    pub(super) fn note_owed(
        &self,
        rule: RuleIndex,
        (everybody, owed): (Option<usize>, &[EndpointIndex]),
        notes: &mut Vec<FilteredNote>,
    ) {
        if let Some(everybody) = everybody {
            return self.note_takers(rule, (everybody, owed), notes);
        }
        notes.push(self.note(rule, OpenedAs::Filtered));
        notes.extend(owed.iter().map(|&taker| self.note(rule, OpenedAs::Chosen(taker))));
    }

    /// Notes an event that was too old when it was read: for everybody who takes all of the rule's events,
    /// and for those who would have chosen it; or for those of them who are chosen.
    pub(super) fn note_late(
        &self,
        rule: RuleIndex,
        (id, facts): (EventId, &EventFacts),
        (everybody, mut late): (&[EndpointIndex], Vec<EndpointIndex>),
        chosen: Option<&BTreeSet<EndpointIndex>>,
        notes: &mut Vec<FilteredNote>,
    ) {
        let outcome = match chosen {
            None => OpenedAs::Expired,
            Some(chosen) => {
                late.extend(everybody);
                late.retain(|taker| chosen.contains(taker));
                OpenedAs::Filtered
            }
        };
        let all = everybody.iter().filter(|_| chosen.is_none());
        self.books.expired(rule, all.chain(&late), id, facts);
        notes.push(self.note(rule, outcome));
        notes.extend(late.iter().map(|&taker| self.note(rule, OpenedAs::TooLate(taker))));
    }
}
