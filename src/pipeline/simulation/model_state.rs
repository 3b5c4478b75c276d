//! The state as a flush writes it and a start reads it: what `store::flush` and its neighbours do in SQL.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use crate::flow::backlog::BacklogPosition;
use crate::flow::backlog::BacklogStanding;
use crate::flow::event::Event;
use crate::flow::event::EventId;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::flow::park_reason::ParkReason;
use crate::flow::partition::PartitionNumber;
use crate::flow::relation::TableName;
use crate::flow::time::Timestamp;
use crate::store::backlog::ParkedDelivery;
use crate::store::books::BookCount;
use crate::store::books::BookEntry;
use crate::store::books::CommonCounts;
use crate::store::dead_letters::selection::LetterState;
use crate::store::flush::StateFlush;
use crate::store::push_totals::PushTotals;
use crate::store::resend::EndedLetter;
use crate::store::resend::ResentLetter;
use crate::store::state_error::StateError;
use crate::store::stored_event::StoredHistory;

/// A row of the backlog.
#[derive(Clone, Debug)]
pub(super) struct ModelBacklogRow {
    pub(super) event: Arc<Event>,
    pub(super) history: StoredHistory,
    pub(super) next_attempt: Option<Timestamp>,
    pub(super) parked_at: Timestamp,
    pub(super) reason: ParkReason,
}

/// A dead letter.
#[derive(Clone, Debug)]
pub(super) struct ModelLetter {
    number: i64,
    event: Arc<Event>,
    state: LetterState,
}

/// A row of `walhook.progress`.
#[derive(Clone, Debug, Default)]
pub(super) struct ModelProgress {
    pub(super) epoch: i64,
    flush: i64,
    pub(super) settled: Option<Position>,
    /// The run that has the partition, or had it last, and until when; see `model_leases`.
    pub(super) lease: Option<(usize, Duration)>,
    pub(super) is_at_source: bool,
    pub(super) rewind: i64,
}

/// The right to write for the slot, or for a partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct ModelOwnership {
    pub(super) partition: PartitionNumber,
    pub(super) epoch: i64,
    /// The number of the last flush.
    pub(super) flushed: i64,
}

#[derive(Debug, Default)]
pub(super) struct ModelState {
    /// The rows of `walhook.progress`: the source's, and those of its partitions.
    pub(super) progress: BTreeMap<PartitionNumber, ModelProgress>,
    /// How many partitions there are; `None` where nothing was ever shared.
    pub(super) partitions: Option<NonZeroU16>,
    pub(super) confirmed: Lsn,
    pub(super) endpoint_watermarks: BTreeMap<Arc<str>, Position>,
    /// Each with the partition that wrote it.
    pub(super) settled_ahead: BTreeMap<(Arc<str>, EventId), PartitionNumber>,
    /// By endpoint.
    pub(super) backlog: BTreeMap<Arc<str>, BTreeMap<BacklogPosition, ModelBacklogRow>>,
    rows: HashMap<(Arc<str>, EventId), BacklogPosition>,
    last_row: i64,
    pub(super) letters: BTreeMap<(Arc<str>, EventId), ModelLetter>,
    pub(super) books: BTreeMap<(Arc<str>, Arc<TableName>), BookCount>,
    pub(super) common: CommonCounts,
    pub(super) totals: PushTotals,
    /// Endpoints that operators have paused.
    pub(super) paused: BTreeSet<usize>,
    /// Endpoints that were made at run time, and those that were removed.
    pub(super) present: BTreeSet<usize>,
    pub(super) leaving: BTreeSet<usize>,
    pub(super) removed: BTreeSet<usize>,
}

impl ModelState {
    /// Another run takes the slot, or a partition.
    pub(super) fn take(&mut self, partition: PartitionNumber) -> ModelOwnership {
        let row = self.progress.entry(partition).or_default();
        row.epoch += 1;
        ModelOwnership { partition, epoch: row.epoch, flushed: row.flush }
    }

    /// How far everything is settled of a partition, as its row says.
    pub(super) fn settled(&self, partition: PartitionNumber) -> Option<Position> {
        self.progress.get(&partition)?.settled
    }

    /// The partition of an endpoint.
    pub(super) fn partition_of(&self, endpoint: &str) -> PartitionNumber {
        self.partitions
            .map_or(PartitionNumber::SOURCE, |count| PartitionNumber::of_endpoint(endpoint, count))
    }

    /// One transaction: `store::flush::commit`.
    pub(super) fn apply(
        &mut self,
        ownership: ModelOwnership,
        number: i64,
        flush: &StateFlush,
    ) -> Result<(), StateError> {
        let slot = || String::from("walhook");
        let ModelOwnership { partition, epoch, .. } = ownership;
        let row = self.progress.entry(partition).or_default();
        if row.epoch != epoch {
            return Err(StateError::Fenced { slot: slot(), holder: String::from("another run") });
        }
        match row.flush {
            stored if stored == number => return Ok(()), // committed before
            stored if stored == number - 1 => row.flush = number,
            stored => return Err(StateError::OutOfOrder { slot: slot(), number, stored }),
        }
        row.settled = flush.settled.or(row.settled);
        self.confirmed = self.confirmed.max(flush.confirmed.unwrap_or_default());
        for row in &flush.finished {
            self.finish(&row.endpoint, row.event);
        }
        if let Some(settled) = flush.settled {
            self.settled_ahead.retain(|(_, id), written| {
                *written != partition || id.position().is_none_or(|position| position > settled)
            });
        }
        for BookEntry { endpoint, table, count } in &flush.books {
            let line = self.books.entry((Arc::clone(endpoint), Arc::clone(table))).or_default();
            *line += *count;
        }
        self.change_common(flush);
        self.add_totals(flush.totals);
        for (endpoint, front) in &flush.endpoint_watermarks {
            self.endpoint_watermarks.insert(Arc::clone(endpoint), *front);
        }
        self.settled_ahead
            .extend(flush.settled_ahead.iter().cloned().map(|delivery| (delivery, partition)));
        for resent in &flush.resent {
            self.close_letter(resent);
        }
        for letter in &flush.dead {
            let number = i64::try_from(self.letters.len()).unwrap();
            let event = Arc::new(letter.event.shaped(letter.event.body.clone(), None));
            let delivery = (Arc::clone(&letter.endpoint), letter.event.id);
            let fresh = ModelLetter { number, event, state: LetterState::Dead };
            self.letters.entry(delivery).or_insert(fresh).state = LetterState::Dead;
        }
        flush.parked.iter().for_each(|row| self.park(row));
        for row in &flush.reparked {
            let delivery = (Arc::clone(&row.delivery.endpoint), row.delivery.event);
            let Some(at) = self.rows.get(&delivery) else { continue };
            let rows = self.backlog.get_mut(&delivery.0);
            let Some(kept) = rows.and_then(|rows| rows.get_mut(at)) else { continue };
            kept.history = row.history.clone();
            (kept.next_attempt, kept.reason) = (row.next_attempt, row.reason);
        }
        Ok(())
    }

    fn close_letter(&mut self, resent: &ResentLetter) {
        let mut letters = self.letters.values_mut();
        let letter = letters.find(|letter| letter.number == resent.letter.0);
        let Some(letter) = letter.filter(|one| one.state == LetterState::Resending) else { return };
        letter.state = match resent.ended {
            EndedLetter::Delivered => LetterState::Delivered,
            EndedLetter::Expired => LetterState::Expired,
        };
    }

    /// `store::resend::claim`: a dead letter of the endpoint, or one that got lost on its way; with its
    /// number, and whether it was dead.
    pub(super) fn claim(
        &mut self,
        endpoint: &str,
        asked: bool,
        in_memory: &BTreeSet<i64>,
    ) -> Option<(i64, Arc<Event>, bool)> {
        let is_due = |letter: &ModelLetter| match letter.state {
            LetterState::Dead => asked,
            LetterState::Resending => !in_memory.contains(&letter.number),
            _ => false,
        };
        let mut own = self.letters.iter_mut().filter(|((name, _), _)| **name == *endpoint);
        let ((name, _), letter) = own.find(|(_, letter)| is_due(letter))?;
        let was_dead =
            std::mem::replace(&mut letter.state, LetterState::Resending) == LetterState::Dead;
        if was_dead {
            let line = (Arc::clone(name), Arc::clone(&letter.event.table));
            self.books.entry(line).or_default().dead -= 1;
        }
        let event = letter.event.shaped(letter.event.body.clone(), None);
        Some((letter.number, Arc::new(event), was_dead))
    }

    /// Letters that are being sent again.
    pub(super) fn resending(&self) -> BTreeSet<i64> {
        let sent = self.letters.values().filter(|one| one.state == LetterState::Resending);
        sent.map(|letter| letter.number).collect()
    }

    fn finish(&mut self, endpoint: &Arc<str>, event: EventId) {
        let Some(at) = self.rows.remove(&(Arc::clone(endpoint), event)) else { return };
        if let Some(rows) = self.backlog.get_mut(endpoint) {
            rows.remove(&at);
        }
    }

    fn park(&mut self, row: &ParkedDelivery) {
        let delivery = (Arc::clone(&row.endpoint), row.event.id);
        if self.rows.contains_key(&delivery) {
            return;
        }
        self.last_row += 1;
        let at = BacklogPosition { position: row.event.position, row: self.last_row };
        self.rows.insert(delivery, at);
        let kept = ModelBacklogRow {
            // What is written holds no memory.
            event: Arc::new(row.event.shaped(row.event.body.clone(), None)),
            history: row.history.clone(),
            next_attempt: row.next_attempt,
            parked_at: row.parked_at,
            reason: row.reason,
        };
        self.backlog.entry(Arc::clone(&row.endpoint)).or_default().insert(at, kept);
    }

    fn add_totals(&mut self, more: PushTotals) {
        let all = &mut self.totals;
        all.succeeded += more.succeeded;
        all.failed += more.failed;
        all.timed += more.timed;
        all.response_micros += more.response_micros;
        all.last_push = all.last_push.max(more.last_push);
    }

    fn change_common(&mut self, flush: &StateFlush) {
        for (table, count) in &flush.common.counts {
            *self.common.counts.entry(Arc::clone(table)).or_default() += *count;
        }
        for left in &flush.common.left {
            self.common.members.remove(left);
        }
        self.common.members.extend(flush.common.joined.iter().cloned());
    }

    /// `walhook.balance`.
    pub(super) fn balance(&self) -> Vec<BookEntry> {
        let mut lines = self.books.clone();
        for member in &self.common.members {
            for (table, count) in &self.common.counts {
                *lines.entry((Arc::clone(member), Arc::clone(table))).or_default() += *count;
            }
        }
        let entry = |((endpoint, table), count)| BookEntry { endpoint, table, count };
        lines.into_iter().map(entry).collect()
    }

    /// Whether the books are what the tables say.
    pub(super) fn is_balanced(&self) -> Result<(), String> {
        for BookEntry { endpoint, table, count } in self.balance() {
            let rows = self.backlog.get(&endpoint).into_iter().flat_map(BTreeMap::values);
            let resent = self.letters.iter().filter(|((name, _), letter)| {
                *name == endpoint
                    && *letter.event.table == *table
                    && letter.state == LetterState::Resending
            });
            let waiting = rows.filter(|row| *row.event.table == *table).count() + resent.count();
            if count.pending() != i64::try_from(waiting).unwrap() {
                return Err(format!(
                    "the books of {endpoint} and {table} do not balance: {count:?}, {waiting} wait"
                ));
            }
        }
        Ok(())
    }

    /// What a start finds of an endpoint's backlog.
    pub(super) fn standing(&self, endpoint: &str) -> Option<BacklogStanding> {
        let rows = self.backlog.get(endpoint)?;
        let (newest, _) = rows.last_key_value()?;
        let is_out = rows.values().any(|row| row.reason == ParkReason::Outage);
        Some(BacklogStanding { rows: rows.len(), newest: newest.position, is_out })
    }

    pub(super) fn parked(&self) -> Option<Position> {
        let newest = self.backlog.values().filter_map(BTreeMap::last_key_value);
        newest.map(|(at, _)| at.position).max()
    }

    pub(super) fn waits(&self, endpoint: &str, event: EventId) -> bool {
        self.rows.contains_key(&(Arc::from(endpoint), event))
    }

    /// Whether it was given up, whatever became of it then.
    pub(super) fn has_died(&self, endpoint: &str, event: EventId) -> bool {
        self.letters.contains_key(&(Arc::from(endpoint), event))
    }

    pub(super) fn is_dead(&self, endpoint: &str, event: EventId) -> bool {
        let letter = self.letters.get(&(Arc::from(endpoint), event));
        letter.is_some_and(|letter| letter.state == LetterState::Dead)
    }

    /// Whether the state owes the delivery no more: a run that starts now never makes it again.
    pub(super) fn is_done(&self, endpoint: &str, event: EventId, position: Position) -> bool {
        let delivery = (Arc::from(endpoint), event);
        let settled = self.settled(PartitionNumber::SOURCE);
        let is_settled = settled.max(self.settled(self.partition_of(endpoint))) >= Some(position)
            || self.endpoint_watermarks.get(endpoint).is_some_and(|front| position < *front)
            || self.settled_ahead.contains_key(&delivery);
        is_settled && !self.rows.contains_key(&delivery)
    }
}
