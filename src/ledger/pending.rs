//! What happened since the last flush began, collected to be committed as one [`Flush`].
//!
//! Pure: outcomes in, a flush out.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;

use crate::config::settings::PushLog;
use crate::flow::endpoint_watermarks::Fronts;
use crate::flow::event::Event;
use crate::flow::event::EventId;
use crate::flow::lsn::Position;
use crate::flow::relation::TableName;
use crate::flow::settlement;
use crate::flow::settlement::DeathReason;
use crate::flow::settlement::EndpointIndex;
use crate::flow::settlement::Holding;
use crate::flow::settlement::Outcome;
use crate::flow::settlement::ReplayId;
use crate::flow::settlement::Settlement;
use crate::flow::time::Timestamp;
use crate::flow::watermark::Fate;
use crate::flow::watermark::Note;
use crate::flow::watermark::Tally;
use crate::flow::watermark::Watermark;
use crate::flow::write_back::NOBODY;
use crate::ledger::logged;
use crate::ledger::names::Names;
use crate::ledger::postings::CommonBooks;
use crate::ledger::postings::Posting;
use crate::ledger::postings::by_edition;
use crate::ledger::replayed::ReplayEnd;
use crate::ledger::tallies::Tallies;
use crate::store::backlog::Delivery;
use crate::store::backlog::Parked;
use crate::store::backlog::Reparked;
use crate::store::books::CommonCounts;
use crate::store::books::Count;
use crate::store::books::Entry;
use crate::store::dead_letters::DeadLetter;
use crate::store::dead_letters::DeathClass;
use crate::store::flush::Flush;
use crate::store::push_totals::PushTotals;
use crate::store::resend::Ended;
use crate::store::resend::Resent;
use crate::store::stored_event::DeadLetterId;
use crate::store::stored_event::History;
use crate::store::stored_event::Replay;
use crate::store::stored_event::row_key;

/// What is to be added to the books.
#[derive(Debug, Default)]
struct Books(BTreeMap<EndpointIndex, BTreeMap<Arc<TableName>, Count>>);

impl Books {
    fn line(&mut self, endpoint: EndpointIndex, table: &Arc<TableName>) -> &mut Count {
        let lines = self.0.entry(endpoint).or_default();
        // Not `entry`, which takes a key of its own: it is asked for each delivery.
        if !lines.contains_key(table) {
            lines.insert(Arc::clone(table), Count::default());
        }
        lines.get_mut(table).expect("it was put in if it was not there")
    }
}

/// See the module's header.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    flush: Flush,
    /// Of attempts in the flush.
    answer_bytes: usize,
    /// Not in `flush` yet: what is settled before it is written is not written at all.
    parked: HashMap<Delivery, Parked>,
    reparked: HashMap<Delivery, Reparked>,
    books: Books,
    /// Notes that are not in the books yet: so many of each, so that a flush goes through them once.
    notes: Tally,
    /// What notes and the comings and goings of endpoints add to the books.
    posted: Posted,
    /// As the state will hold it after the flush. It outlives the flush.
    common: CommonBooks<Arc<str>>,
    tallies: Tallies,
    /// What the WAL is owed no more, in case the settled prefix does not reach it.
    settled: Vec<(EndpointIndex, EventId, Position)>,
    /// Events that no endpoint takes, in case the settled prefix does not reach them.
    untaken: Vec<(EventId, Position)>,
    /// For whoever sends again: told once the flush is committed.
    replayed: Vec<(ReplayId, ReplayEnd)>,
}

/// What notes came to since the last flush began.
#[derive(Debug, Default)]
struct Posted {
    own: BTreeMap<(Arc<str>, Arc<TableName>), Count>,
    common: BTreeMap<Arc<TableName>, Count>,
    /// Whether the common lines count for an endpoint from here on.
    counted: BTreeMap<Arc<str>, bool>,
}

impl Posted {
    fn take_in(&mut self, posting: Posting<Arc<str>>) {
        match posting {
            Posting::All(table, count) => *self.common.entry(table).or_default() += count,
            Posting::One(endpoint, table, count) => {
                *self.own.entry((endpoint, table)).or_default() += count;
            }
            Posting::Joined(endpoint) => drop(self.counted.insert(endpoint, true)),
            Posting::Left(endpoint) => drop(self.counted.insert(endpoint, false)),
        }
    }
}

impl Pending {
    /// Goes on from what the state holds for all endpoints alike.
    pub(crate) fn new(common: CommonCounts) -> Self {
        Self { common: CommonBooks::resume(common.counts, common.members), ..Self::default() }
    }

    /// Rows to write, and events that rows of batches keep in memory: what bounds it.
    pub(crate) fn len(&self) -> usize {
        let in_batches: usize = self.flush.batches.iter().map(|batch| batch.events.len()).sum();
        self.settled.len()
            + self.flush.attempts.len()
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
            && self.notes.keys().all(|note| note.fate == Fate::Begun)
            && self.posted.own.is_empty()
            && self.posted.common.is_empty()
            && self.tallies.is_empty()
            && self.flush.is_empty()
    }

    /// Takes in an attempt, for the push log.
    pub(crate) fn attempted(&mut self, names: &Names, log: &PushLog, attempt: settlement::Attempt) {
        let Some(endpoint) = names.endpoint(attempt.endpoint) else { return };
        self.answer_bytes += attempt.exchange.response_body.len();
        logged::add(&mut self.flush, endpoint, log, attempt);
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
    pub(crate) fn settled(&mut self, names: &Names, settlement: Settlement, now: Timestamp) {
        let Some(endpoint) = names.endpoint(settlement.endpoint) else { return };
        let endpoint = Arc::clone(endpoint);
        let event = &settlement.event;
        if let Holding::Replay(id) = settlement.holding {
            self.replayed(id, &settlement.outcome, now);
            if matches!(id, ReplayId::Logged(_)) {
                return; // the books have it already, and what failed stays as delivered as it was
            }
        }
        let count = self.books.line(settlement.endpoint, &event.table);
        let delivery = Delivery { endpoint: Arc::clone(&endpoint), event: event.id };
        match settlement.holding {
            Holding::Wal => {
                count.captured += 1;
                self.settled.push((settlement.endpoint, event.id, event.position));
            }
            Holding::Backlog if !matches!(settlement.outcome, Outcome::Parked { .. }) => {
                self.reparked.remove(&delivery);
                if self.parked.remove(&delivery).is_none() {
                    self.flush.finished.push(delivery.clone());
                }
            }
            Holding::Backlog | Holding::Replay(_) => {}
        }
        match &settlement.outcome {
            Outcome::Delivered { .. } => count.delivered += 1,
            Outcome::Expired => count.expired += 1,
            Outcome::Filtered => count.filtered += 1,
            Outcome::Dead { .. } => count.dead += 1,
            Outcome::Parked { .. } => {}
        }
        self.record(endpoint, delivery, settlement, now);
    }

    /// Notes how a replay ended, in its dead letter if it has one.
    fn replayed(&mut self, id: ReplayId, outcome: &Outcome, at: Timestamp) {
        let (end, ended) = match outcome {
            Outcome::Delivered { .. } => (ReplayEnd::Delivered, Some(Ended::Delivered)),
            Outcome::Expired => (ReplayEnd::Expired, Some(Ended::Expired)),
            Outcome::Filtered | Outcome::Dead { .. } => (ReplayEnd::Failed, None),
            Outcome::Parked { .. } => return, // not the end
        };
        self.replayed.push((id, end));
        if let (ReplayId::Letter(letter), Some(ended)) = (id, ended) {
            self.flush.resent.push(Resent { letter: DeadLetterId(letter), ended, at });
        }
    }

    /// The rows that an outcome leaves behind.
    fn record(
        &mut self,
        endpoint: Arc<str>,
        delivery: Delivery,
        settlement: Settlement,
        now: Timestamp,
    ) {
        if let Outcome::Delivered { .. } | Outcome::Expired | Outcome::Filtered = settlement.outcome
        {
            return;
        }
        let row_key = row_key(&settlement.event.facts).map(ToOwned::to_owned);
        let history = history(&settlement);
        match settlement.outcome {
            Outcome::Parked { next_attempt, reason } if settlement.holding == Holding::Backlog => {
                // Written after `parked`, so it holds for a row of the same flush, too.
                let row = Reparked { delivery: delivery.clone(), history, next_attempt, reason };
                self.reparked.insert(delivery, row);
            }
            Outcome::Parked { next_attempt, reason } => {
                let row = Parked {
                    event: settlement.event,
                    endpoint,
                    row_key,
                    history,
                    next_attempt,
                    parked_at: now,
                    reason,
                    replay: Replay::No,
                };
                self.parked.insert(delivery, row);
            }
            Outcome::Dead { reason } => self.flush.dead.push(DeadLetter {
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
            Outcome::Delivered { .. } | Outcome::Expired | Outcome::Filtered => {}
        }
    }

    /// Takes in a note that the settled prefix has passed.
    pub(crate) fn noted(&mut self, note: Note, times: u64) {
        *self.notes.entry(note).or_default() += times;
    }

    /// Books the notes so far. To be done before an edition's meaning is forgotten.
    pub(crate) fn post(&mut self, names: &Names) {
        let (common, posted) = (&mut self.common, &mut self.posted);
        for (edition, notes) in by_edition(std::mem::take(&mut self.notes)) {
            let Some(serving) = names.serving(edition) else { continue };
            let name = |index| names.endpoint(index).map(Arc::clone);
            if notes.keys().any(|note| note.fate == Fate::Begun) {
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
        names: &Names,
        watermark: &Watermark,
        fronts: &Fronts,
    ) -> (Flush, Vec<(ReplayId, ReplayEnd)>) {
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
        flush.parked.sort_by_key(|row| row.event.position);
        flush.reparked = reparked.into_values().collect();
        flush.settled = watermark.settled();
        flush.confirmed = Some(watermark.confirmable());
        let beyond = |position| watermark.settled().is_none_or(|settled| position > settled);
        // Few endpoints, many deliveries.
        let mut moved: BTreeMap<EndpointIndex, Position> = BTreeMap::new();
        for (index, id, position) in settled {
            let Some(endpoint) = names.endpoint(index).filter(|_| beyond(position)) else {
                continue;
            };
            match fronts.of(index) {
                Some(front) if position < front => drop(moved.insert(index, front)),
                _ => flush.ahead.push((Arc::clone(endpoint), id)),
            }
        }
        let told = untaken.into_iter().filter(|(_, position)| beyond(*position));
        flush.ahead.extend(told.map(|(id, _)| (Arc::from(NOBODY), id)));
        flush.fronts = moved
            .into_iter()
            .filter_map(|(index, front)| Some((Arc::clone(names.endpoint(index)?), front)))
            .collect();
        for (index, lines) in books.0 {
            let Some(endpoint) = names.endpoint(index) else { continue };
            let entry = |(table, count)| Entry { endpoint: Arc::clone(endpoint), table, count };
            flush.books.extend(lines.into_iter().map(entry));
        }
        let own = posted.own.into_iter().filter(|(_, count)| *count != Count::default());
        let entry = |((endpoint, table), count)| Entry { endpoint, table, count };
        flush.books.extend(own.map(entry));
        flush.common.counts = posted.common.into_iter().collect();
        for (endpoint, is_counted) in posted.counted {
            let names = &mut flush.common;
            if is_counted { names.joined.push(endpoint) } else { names.left.push(endpoint) }
        }
        (flush, replayed)
    }
}

fn history(settlement: &Settlement) -> History {
    let failed = settlement.history.as_deref();
    History {
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
