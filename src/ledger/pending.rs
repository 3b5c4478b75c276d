//! What happened since the last flush began, collected to be committed as one [`StateFlush`].
//!
//! Pure: outcomes in, a flush out.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;

use crate::config::settings::PushLogSettings;
use crate::flow::backfill::BackfillStep;
use crate::flow::backfill::MovedRow;
use crate::flow::dead_letter_reason::DeathReason;
use crate::flow::endpoint_watermarks::EndpointWatermarks;
use crate::flow::event::Event;
use crate::flow::event::EventId;
use crate::flow::lsn::Position;
use crate::flow::pump_report::FilteredNote;
use crate::flow::pump_report::OpenedAs;
use crate::flow::relation::TableName;
use crate::flow::settlement;
use crate::flow::settlement::DeliveryOutcome;
use crate::flow::settlement::DurableIn;
use crate::flow::settlement::EndpointIndex;
use crate::flow::settlement::ReplayId;
use crate::flow::settlement::Settlement;
use crate::flow::time::Timestamp;
use crate::flow::watermark::EventTally;
use crate::flow::watermark::Watermark;
use crate::flow::write_back::NOBODY;
use crate::ledger::attempt_rows;
use crate::ledger::endpoint_names::EndpointNames;
use crate::ledger::postings::BookPosting;
use crate::ledger::postings::CommonBooks;
use crate::ledger::postings::by_version;
use crate::ledger::replayed::ReplayEnd;
use crate::ledger::write_back_counts::OutcomeTallies;
use crate::store::backlog::BacklogDelivery;
use crate::store::backlog::ParkedDelivery;
use crate::store::backlog::ReparkedDelivery;
use crate::store::books::BookCount;
use crate::store::books::BookEntry;
use crate::store::books::CommonCounts;
use crate::store::dead_letters::DeadLetter;
use crate::store::dead_letters::DeathClass;
use crate::store::flush::StateFlush;
use crate::store::push_totals::PushTotals;
use crate::store::resend::EndedLetter;
use crate::store::resend::ResentLetter;
use crate::store::stored_event::DeadLetterId;
use crate::store::stored_event::ReplayRow;
use crate::store::stored_event::StoredHistory;
use crate::store::stored_event::row_key;

/// What is to be added to the books.
#[derive(Debug, Default)]
struct PendingBooks(BTreeMap<EndpointIndex, BTreeMap<Arc<TableName>, BookCount>>);

impl PendingBooks {
    fn line(&mut self, endpoint: EndpointIndex, table: &Arc<TableName>) -> &mut BookCount {
        let lines = self.0.entry(endpoint).or_default();
        // Not `entry`, which takes a key of its own: it is asked for each delivery.
        if !lines.contains_key(table) {
            lines.insert(Arc::clone(table), BookCount::default());
        }
        lines.get_mut(table).expect("it was put in if it was not there")
    }
}

/// Collects what the next flush commits.
#[derive(Debug, Default)]
pub(crate) struct PendingFlush {
    flush: StateFlush,
    /// Of attempts in the flush.
    answer_bytes: usize,
    /// Not in `flush` yet: what is settled before it is written is not written at all.
    parked: HashMap<BacklogDelivery, ParkedDelivery>,
    reparked: HashMap<BacklogDelivery, ReparkedDelivery>,
    books: PendingBooks,
    /// Notes that are not in the books yet: so many of each, so that a flush goes through them once.
    notes: EventTally,
    /// What notes and the comings and goings of endpoints add to the books.
    posted: PostedCounts,
    /// As the state will hold it after the flush. It outlives the flush.
    common: CommonBooks<Arc<str>>,
    tallies: OutcomeTallies,
    /// What the WAL is owed no more, in case the settled prefix does not reach it.
    settled: Vec<(EndpointIndex, EventId, Position)>,
    /// Events that no endpoint takes, in case the settled prefix does not reach them.
    untaken: Vec<(EventId, Position)>,
    /// For the resender, which is told once the flush is committed.
    replayed: Vec<(ReplayId, ReplayEnd)>,
}

/// What notes came to since the last flush began.
#[derive(Debug, Default)]
struct PostedCounts {
    own: BTreeMap<(Arc<str>, Arc<TableName>), BookCount>,
    common: BTreeMap<Arc<TableName>, BookCount>,
    /// Whether the common lines count for an endpoint from here on.
    counted: BTreeMap<Arc<str>, bool>,
}

impl PostedCounts {
    fn take_in(&mut self, posting: BookPosting<Arc<str>>) {
        match posting {
            BookPosting::All(table, count) => *self.common.entry(table).or_default() += count,
            BookPosting::One(endpoint, table, count) => {
                *self.own.entry((endpoint, table)).or_default() += count;
            }
            BookPosting::Joined(endpoint) => drop(self.counted.insert(endpoint, true)),
            BookPosting::Left(endpoint) => drop(self.counted.insert(endpoint, false)),
        }
    }
}

impl PendingFlush {
    /// Goes on from what the state holds for all endpoints alike.
    pub(crate) fn new(common: CommonCounts) -> Self {
        Self { common: CommonBooks::resume(common.counts, common.members), ..Self::default() }
    }

    /// An endpoint has another name from here on. To be told right after [`PendingFlush::take`].
    pub(crate) fn renamed(&mut self, from: &Arc<str>, to: &Arc<str>) {
        self.common.rename(from, to);
    }

    /// Rows to write, and events that rows of batches keep in memory: what bounds it.
    pub(crate) fn len(&self) -> usize {
        let in_batches: usize = self.flush.batches.iter().map(|batch| batch.events.len()).sum();
        self.settled.len()
            + self.flush.attempts.len()
            + self.flush.moved.len()
            + in_batches
            + self.reparked.len()
            + self.untaken.len()
            + self.replayed.len()
    }

    /// Bytes of responses that are kept until they are written.
    pub(crate) fn answer_bytes(&self) -> usize {
        self.answer_bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
            && self.books.0.is_empty()
            // That other endpoints are counted goes with the next thing that is.
            && self.notes.keys().all(|note| note.opened_as == OpenedAs::Begun)
            && self.posted.own.is_empty()
            && self.posted.common.is_empty()
            && self.tallies.is_empty()
            && self.flush.is_empty()
    }

    /// Takes in an attempt, for the push log.
    pub(crate) fn attempted(
        &mut self,
        names: &EndpointNames,
        log: &PushLogSettings,
        attempt: settlement::DeliveryAttempt,
    ) {
        let Some(endpoint) = names.endpoint(attempt.endpoint) else { return };
        self.answer_bytes += attempt.exchange.response_body.len();
        attempt_rows::add(&mut self.flush, endpoint, log, attempt);
    }

    /// Counts an outcome for the event's write-back.
    pub(crate) fn tally(&mut self, settlement: &Settlement) {
        self.tallies.settled(settlement);
    }

    /// Takes in an event that no endpoint takes: its row is told so.
    pub(crate) fn untaken(&mut self, event: &Event) {
        self.tallies.untaken(event);
        self.untaken.push((event.id, event.position));
    }

    /// What the flush adds to the sums of all pushes.
    pub(crate) fn totals(&mut self) -> &mut PushTotals {
        &mut self.flush.totals
    }

    /// Takes in what became of a delivery.
    pub(crate) fn settled(
        &mut self,
        names: &EndpointNames,
        settlement: Settlement,
        now: Timestamp,
    ) {
        let Some(endpoint) = names.endpoint(settlement.endpoint) else { return };
        let endpoint = Arc::clone(endpoint);
        let event = &settlement.event;
        if let DurableIn::Replay(id) = settlement.durable_in {
            self.replayed(id, &settlement.outcome, now);
            if matches!(id, ReplayId::Logged(_)) {
                return; // the books have it already, and what failed stays as delivered as it was
            }
        }
        let count = self.books.line(settlement.endpoint, &event.table);
        let delivery = BacklogDelivery { endpoint: Arc::clone(&endpoint), event: event.id };
        match settlement.durable_in {
            DurableIn::Wal => {
                count.captured += 1;
                self.settled.push((settlement.endpoint, event.id, event.position));
            }
            DurableIn::Backlog if !matches!(settlement.outcome, DeliveryOutcome::Parked { .. }) => {
                self.reparked.remove(&delivery);
                if self.parked.remove(&delivery).is_none() {
                    self.flush.finished.push(delivery.clone());
                }
            }
            DurableIn::Backlog | DurableIn::Replay(_) => {}
        }
        match &settlement.outcome {
            DeliveryOutcome::Delivered { .. } => count.delivered += 1,
            DeliveryOutcome::Expired => count.expired += 1,
            DeliveryOutcome::Filtered => count.filtered += 1,
            DeliveryOutcome::Dead { .. } => count.dead += 1,
            DeliveryOutcome::Parked { .. } => {}
        }
        self.record(endpoint, delivery, settlement, now);
    }

    /// Notes how a replay ended, in its dead letter if it has one.
    fn replayed(&mut self, id: ReplayId, outcome: &DeliveryOutcome, at: Timestamp) {
        let (end, ended) = match outcome {
            DeliveryOutcome::Delivered { .. } => {
                (ReplayEnd::Delivered, Some(EndedLetter::Delivered))
            }
            DeliveryOutcome::Expired => (ReplayEnd::Expired, Some(EndedLetter::Expired)),
            DeliveryOutcome::Filtered | DeliveryOutcome::Dead { .. } => (ReplayEnd::Failed, None),
            DeliveryOutcome::Parked { .. } => return, // not the end
        };
        self.replayed.push((id, end));
        if let (ReplayId::Letter(letter), Some(ended)) = (id, ended) {
            self.flush.resent.push(ResentLetter { letter: DeadLetterId(letter), ended, at });
        }
    }

    /// The rows that an outcome leaves behind.
    fn record(
        &mut self,
        endpoint: Arc<str>,
        delivery: BacklogDelivery,
        settlement: Settlement,
        now: Timestamp,
    ) {
        if let DeliveryOutcome::Delivered { .. }
        | DeliveryOutcome::Expired
        | DeliveryOutcome::Filtered = settlement.outcome
        {
            return;
        }
        let row_key = row_key(&settlement.event.facts).map(ToOwned::to_owned);
        let history = history(&settlement);
        match settlement.outcome {
            DeliveryOutcome::Parked { next_attempt, reason }
                if settlement.durable_in == DurableIn::Backlog =>
            {
                // Written after `parked`, so it holds for a row of the same flush, too.
                let row =
                    ReparkedDelivery { delivery: delivery.clone(), history, next_attempt, reason };
                self.reparked.insert(delivery, row);
            }
            DeliveryOutcome::Parked { next_attempt, reason } => {
                let row = ParkedDelivery {
                    event: settlement.event,
                    endpoint,
                    row_key,
                    history,
                    next_attempt,
                    parked_at: now,
                    reason,
                    replay: ReplayRow::No,
                };
                self.parked.insert(delivery, row);
            }
            DeliveryOutcome::Dead { reason } => self.flush.dead.push(DeadLetter {
                event: settlement.event,
                endpoint,
                row_key,
                reason: reason.to_string(),
                class: class(&reason),
                status: history.status,
                attempts: history.attempts,
                first_attempt: history.first_attempt,
                last_attempt: history.last_attempt,
                died_at: now,
            }),
            DeliveryOutcome::Delivered { .. }
            | DeliveryOutcome::Expired
            | DeliveryOutcome::Filtered => {}
        }
    }

    /// Takes in a note that the settled prefix has passed.
    pub(crate) fn noted(&mut self, note: FilteredNote, times: u64) {
        *self.notes.entry(note).or_default() += times;
    }

    /// Takes in a row that has got another key. It may be written before its change is settled: what comes
    /// again is the same row.
    pub(crate) fn moved(&mut self, row: MovedRow) {
        self.flush.moved.push(row);
    }

    /// Rows with other keys that are to be written.
    pub(crate) fn moves(&self) -> usize {
        self.flush.moved.len()
    }

    /// Takes in a step of a backfill that the settled prefix has passed.
    pub(crate) fn backfilled(&mut self, step: BackfillStep) {
        self.flush.backfilled.push(step);
    }

    /// Books the notes so far. To be done before a version's meaning is forgotten.
    pub(crate) fn post(&mut self, names: &EndpointNames) {
        let (common, posted) = (&mut self.common, &mut self.posted);
        for (endpoints_version, notes) in by_version(std::mem::take(&mut self.notes)) {
            let Some(serving) = names.serving(endpoints_version) else { continue };
            let name = |index| names.endpoint(index).map(Arc::clone);
            if notes.keys().any(|note| note.opened_as == OpenedAs::Begun) {
                let present = serving.endpoints.iter().filter_map(|&index| name(index));
                common.begin(present.collect(), |posting| posted.take_in(posting));
            }
            common.post(serving, notes.into_iter(), name, |posting| posted.take_in(posting));
        }
    }

    /// All of it as one flush, and the replays that end with it; what comes next belongs to
    /// another.
    pub(crate) fn take(
        &mut self,
        names: &EndpointNames,
        watermark: &Watermark,
        endpoint_watermarks: &EndpointWatermarks,
    ) -> (StateFlush, Vec<(ReplayId, ReplayEnd)>) {
        self.post(names);
        let common = std::mem::take(&mut self.common);
        let Self {
            mut flush,
            answer_bytes: _,
            parked,
            reparked,
            books,
            notes: _,
            posted,
            common: _,
            tallies,
            settled,
            untaken,
            replayed,
        } = std::mem::replace(self, Self { common, ..Self::default() });
        flush.write_backs = tallies.into_rows();
        flush.parked = parked.into_values().collect();
        // Events of one change in their order, too: rows are numbered as they come.
        flush.parked.sort_by_key(|row| (row.event.position, row.event.sequence));
        flush.reparked = reparked.into_values().collect();
        flush.settled = watermark.settled();
        flush.confirmed = Some(watermark.confirmable());
        let beyond = |position| watermark.settled().is_none_or(|settled| position > settled);
        // Few endpoints, many deliveries.
        let mut moved: BTreeMap<EndpointIndex, Position> = BTreeMap::new();
        for (index, id, position) in settled {
            // What a backfill has read comes again, wherever the stream stands, until its chunk is done.
            let is_read = id.position().is_none();
            let is_done = match is_read {
                true => flush.backfilled.iter().any(|step| id.is_of_backfill(step.id)),
                false => !beyond(position),
            };
            let Some(endpoint) = names.endpoint(index).filter(|_| !is_done) else { continue };
            match endpoint_watermarks.of(index) {
                Some(front) if position < front && !is_read => drop(moved.insert(index, front)),
                _ => flush.settled_ahead.push((Arc::clone(endpoint), id)),
            }
        }
        let told = untaken.into_iter().filter(|(_, position)| beyond(*position));
        flush.settled_ahead.extend(told.map(|(id, _)| (Arc::from(NOBODY), id)));
        flush.endpoint_watermarks = moved
            .into_iter()
            .filter_map(|(index, front)| Some((Arc::clone(names.endpoint(index)?), front)))
            .collect();
        for (index, lines) in books.0 {
            let Some(endpoint) = names.endpoint(index) else { continue };
            let entry = |(table, count)| BookEntry { endpoint: Arc::clone(endpoint), table, count };
            flush.books.extend(lines.into_iter().map(entry));
        }
        let own = posted.own.into_iter().filter(|(_, count)| *count != BookCount::default());
        let entry = |((endpoint, table), count)| BookEntry { endpoint, table, count };
        flush.books.extend(own.map(entry));
        flush.common.counts = posted.common.into_iter().collect();
        for (endpoint, is_counted) in posted.counted {
            let names = &mut flush.common;
            if is_counted { names.joined.push(endpoint) } else { names.left.push(endpoint) }
        }
        (flush, replayed)
    }
}

fn history(settlement: &Settlement) -> StoredHistory {
    let failed = settlement.history.as_deref();
    StoredHistory {
        attempts: settlement.attempts,
        first_attempt: failed.map(|history| history.first_attempt),
        last_attempt: failed.map(|history| history.last_attempt),
        status: failed.and_then(|history| history.status),
        failure: failed.map(|history| history.failure.clone()),
    }
}

fn class(reason: &DeathReason) -> DeathClass {
    match reason {
        DeathReason::RetriesExhausted(failure) | DeathReason::Rejected(failure) => {
            DeathClass::Failure(failure.class)
        }
        DeathReason::EndpointGone => DeathClass::Gone,
        DeathReason::EndpointDeleted => DeathClass::Deleted,
        DeathReason::BacklogFull => DeathClass::BacklogRows,
        DeathReason::BacklogTooOld => DeathClass::BacklogAge,
        DeathReason::Poison(_) => DeathClass::Poison,
    }
}
