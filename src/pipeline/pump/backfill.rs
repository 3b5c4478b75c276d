//! Sends the rows that backfills have read, between two transactions of the stream.
//!
//! ```text
//! reader ─ chunk ─▶ [window] ─ when the stream has reached its LSN ─▶ rows ─▶ route ─▶ lanes
//! ```
//!
//! A row stands right before the LSN from which on nothing has come yet, behind all that has: records begin
//! at multiples of eight, so no commit has that place.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::backfill::orders::BackfillOrder;
use crate::backfill::orders::ChunkFate;
use crate::backfill::window::ReadChunk;
use crate::failpoint;
use crate::flow::backfill::ReadRow;
use crate::flow::change::ChangeOp;
use crate::flow::change::CommittedChange;
use crate::flow::event::EventFacts;
use crate::flow::event::EventId;
use crate::flow::event::RuleIndex;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::flow::settlement::EndpointIndex;
use crate::flow::watermark::FilteredNote;
use crate::flow::watermark::OpenFate;
use crate::flow::watermark::PumpReport;
use crate::pipeline::pump::EventPump;

impl EventPump {
    /// Does what the reader of a backfill asks for, between two changes.
    pub(super) async fn take_order(&mut self, order: BackfillOrder) -> anyhow::Result<()> {
        match order {
            BackfillOrder::Track { id, table, tracked } => {
                self.backfills.window.track(id, table);
                tracked.send(()).ok(); // it may have been stopped
            }
            BackfillOrder::Forget { id } => {
                self.backfills.window.forget(id);
                self.backfills.fates.remove(&id);
            }
            BackfillOrder::Chunk { chunk, fate } => {
                let names = &chunk.target.endpoints;
                if self.books.indexes(names).len() < names.len() {
                    fate.send(ChunkFate::EndpointGone).ok(); // it may have been stopped
                    return Ok(());
                }
                self.backfills.accept(*chunk, fate);
                if !self.in_transaction {
                    self.send_rows().await?;
                    self.outbox.hand_over().await?;
                    self.outbox.rest().await?;
                }
            }
        }
        Ok(())
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
        while let Some(first) = self.first_place(reached) {
            let Some(chunk) = self.backfills.window.due(reached) else { break };
            self.send_chunk(chunk, first).await?;
        }
        Ok(())
    }

    /// Where the next row stands; `None` while what comes has come before.
    fn first_place(&self, reached: Lsn) -> Option<Position> {
        let commit = Lsn::from_raw(reached.raw().checked_sub(1)?);
        let before = self.seen.max(self.backfills.last);
        match before {
            Some(before) if before.commit > commit => None,
            Some(before) if before.commit == commit => Some(before.next()),
            _ => Some(Position { commit, ordinal: 0 }),
        }
    }

    async fn send_chunk(&mut self, chunk: ReadChunk, first: Position) -> anyhow::Result<()> {
        let ReadChunk { mut step, target, read_at, rows, .. } = chunk;
        let mut position = first;
        step.sent = rows.len() as u64;
        for row in rows.into_rows() {
            failpoint::reached("backfilling");
            let read = ReadRow { id: row.id, target: Arc::clone(&target) };
            self.change(CommittedChange {
                position,
                committed: read_at,
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
        }
        let (id, sent) = (step.id, step.sent);
        self.outbox.opened.push(PumpReport::Backfilled(step));
        self.backfills.tell(id, ChunkFate::Released { sent });
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
        notes.push(self.note(rule, OpenFate::Filtered));
        notes.extend(owed.iter().map(|&taker| self.note(rule, OpenFate::Chosen(taker))));
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
        let fate = match chosen {
            None => OpenFate::Expired,
            Some(chosen) => {
                late.extend(everybody);
                late.retain(|taker| chosen.contains(taker));
                OpenFate::Filtered
            }
        };
        let all = everybody.iter().filter(|_| chosen.is_none());
        self.books.expired(rule, all.chain(&late), id, facts);
        notes.push(self.note(rule, fate));
        notes.extend(late.iter().map(|&taker| self.note(rule, OpenFate::TooLate(taker))));
    }
}
