//! What happened since the last flush began, collected to be committed as one [`Flush`].
//!
//! Pure: outcomes in, a flush out.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;

use crate::config::settings::PushLog;
use crate::flow::event::EventId;
use crate::flow::fronts::Fronts;
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
use crate::flow::watermark::Watermark;
use crate::ledger::logged;
use crate::ledger::names::Names;
use crate::ledger::replayed::ReplayEnd;
use crate::ledger::tallies::Tallies;
use crate::store::backlog::Delivery;
use crate::store::backlog::Parked;
use crate::store::backlog::Reparked;
use crate::store::books::Count;
use crate::store::books::Entry;
use crate::store::dead_letters::DeadLetter;
use crate::store::dead_letters::DeathClass;
use crate::store::flush::Flush;
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
    tallies: Tallies,
    /// What the WAL is owed no more, in case the settled prefix does not reach it.
    settled: Vec<(EndpointIndex, EventId, Position)>,
    /// For whoever sends again: told once the flush is committed.
    replayed: Vec<(ReplayId, ReplayEnd)>,
}

impl Pending {
    /// Rows to write, and events that rows of batches keep in memory: what bounds it.
    pub(crate) fn len(&self) -> usize {
        let in_batches: usize = self.flush.batches.iter().map(|batch| batch.events.len()).sum();
        self.settled.len()
            + self.flush.attempts.len()
            + in_batches
            + self.reparked.len()
            + self.replayed.len()
    }

    /// Bytes of responses that are kept until they are written.
    pub(crate) fn answer_bytes(&self) -> usize {
        self.answer_bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
            && self.books.0.is_empty()
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
    pub(crate) fn noted(&mut self, names: &Names, note: Note, times: u64) {
        let Some(serving) = names.serving(note.edition) else { return };
        let Some((table, takers)) = serving.rule(note.rule) else { return };
        let times = i64::try_from(times).unwrap_or(i64::MAX);
        for &index in &serving.endpoints {
            let takes = takers.contains(&index);
            if !note.fate.concerns(index, takes) {
                continue;
            }
            let count = self.books.line(index, table);
            // What counted for all that do not take it is taken back: its own settlement counts.
            let times = if matches!(note.fate, Fate::Chosen(_)) { -times } else { times };
            count.captured += times;
            if takes && note.fate == Fate::Expired {
                count.expired += times;
            } else {
                count.filtered += times;
            }
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
        let Self {
            mut flush,
            answer_bytes: _,
            parked,
            reparked,
            books,
            tallies,
            settled,
            replayed,
        } = std::mem::take(self);
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
        flush.fronts = moved
            .into_iter()
            .filter_map(|(index, front)| Some((Arc::clone(names.endpoint(index)?), front)))
            .collect();
        for (index, lines) in books.0 {
            let Some(endpoint) = names.endpoint(index) else { continue };
            let entry = |(table, count)| Entry { endpoint: Arc::clone(endpoint), table, count };
            flush.books.extend(lines.into_iter().map(entry));
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
