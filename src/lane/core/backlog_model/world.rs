//! The source, the database and the endpoint around the lane, and what is checked.

use super::*;
use crate::flow::settlement::AttemptHistory;

mod changes;
mod checks;

/// Places for what overflows.
const OVERFLOW: usize = 2;

/// Places that replays can have.
const REPLAYS: usize = 2;

/// Replays are numbered from here; below, an event's number is its place in the WAL.
const REPLAYS_FROM: u64 = 1_000_000;

#[derive(Debug)]
struct Known {
    event: Arc<Event>,
    /// Committed: the source does not send it again.
    is_confirmed: bool,
    /// Committed: nothing is owed.
    is_final: bool,
}

/// What a lane since its start is known to have with an event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum At {
    /// Waits or is tried; `since` is when it was offered.
    Owed {
        since: Instant,
    },
    Settled,
}

#[derive(Debug)]
struct Row {
    number: u64,
    attempts: u32,
    due: Option<Timestamp>,
    parked: Timestamp,
    history: Option<Arc<AttemptHistory>>,
}

pub(super) struct World {
    settings: LaneSettings,
    start: Instant,
    now: Instant,
    known: Vec<Known>,
    /// The backlog, as committed.
    rows: BTreeMap<BacklogPosition, Row>,
    last_row: i64,
    is_deleted: bool,
    // All that follows ends with a crash.
    lane: LaneState,
    /// The next event of the WAL that the source reads.
    read: usize,
    /// The source has caught up from here on.
    caught_up_at: usize,
    /// Less than none after there were made fewer than are in use.
    own_free: isize,
    overflow_free: usize,
    replays_free: usize,
    /// Reported and not committed.
    reports: VecDeque<Settlement>,
    page: Option<Vec<RefilledRow>>,
    leases: Vec<Lease>,
    at: HashMap<u64, At>,
    durable_in: HashMap<u64, DurableIn>,
    attempts: HashMap<u64, u32>,
    /// What has failed at least once, however much it counts.
    failed: HashSet<u64>,
    /// Requests that are probes of the breaker.
    probes: HashSet<LeaseId>,
    /// Attempts that the ledger was told of, of what is parked.
    reported: HashMap<u64, u32>,
    replays: HashMap<u64, Arc<Event>>,
    /// What has begun under another order, or may have: it does not wait for its turn any more.
    begun_before: HashSet<u64>,
    /// The largest batch that may be under way.
    batch_max: usize,
    /// What the lane has of its share of memory.
    weight: isize,
    is_disabled: bool,
    is_paused: bool,
    last_lease: LeaseId,
    /// What was leased up to this one began before all was begun anew.
    anew: Option<LeaseId>,
    is_gone: bool,
}

impl World {
    pub(super) fn new(settings: LaneSettings) -> Self {
        let start = Instant::now();
        Self {
            lane: LaneState::new(settings.clone()),
            start,
            now: start,
            known: Vec::new(),
            rows: BTreeMap::new(),
            last_row: 0,
            is_deleted: false,
            read: 0,
            caught_up_at: 0,
            own_free: settings.capacity.get().cast_signed(),
            overflow_free: OVERFLOW,
            replays_free: REPLAYS,
            reports: VecDeque::new(),
            page: None,
            leases: Vec::new(),
            at: HashMap::new(),
            durable_in: HashMap::new(),
            attempts: HashMap::new(),
            failed: HashSet::new(),
            probes: HashSet::new(),
            reported: HashMap::new(),
            replays: HashMap::new(),
            begun_before: HashSet::new(),
            batch_max: settings.batch.size.get(),
            weight: 0,
            is_disabled: false,
            is_paused: false,
            last_lease: LeaseId(0),
            anew: None,
            is_gone: false,
            settings,
        }
    }

    fn time(&self) -> LaneNow {
        let passed = self.now.duration_since(self.start).as_micros();
        let database = Timestamp::from_micros(i64::try_from(passed).unwrap());
        LaneNow { instant: self.now, database }
    }

    pub(super) fn apply(&mut self, step: &Step) {
        match step {
            Step::Arrive { keys, lifetime } => self.arrive(keys, *lifetime),
            Step::Overflow => self.offer_next(true),
            Step::Complete(choice, answer) if !self.leases.is_empty() => {
                let lease = self.leases.swap_remove(choice % self.leases.len());
                self.complete(&lease, *answer);
            }
            Step::Complete(..) => {}
            Step::Pass(millis) => self.now += Duration::from_millis(*millis),
            Step::Commit(count) => self.commit(*count),
            Step::Read { rows } => self.read_page(*rows),
            Step::Page => self.take_page(),
            Step::Evict => {
                self.lane.evict(self.time());
                self.note_settled();
            }
            Step::Replay(key) => self.replay(*key),
            Step::Switch { enabled } => self.switch(*enabled),
            Step::Pause { paused } => self.pause(*paused),
            Step::TryNow => self.try_now(),
            Step::Reconfigure(settings) => self.reconfigure((**settings).clone()),
            Step::Delete => self.delete(),
            Step::Crash => self.crash(),
        }
        self.go_on();
    }

    /// What happens by itself: the source reads on, the lane makes requests.
    fn go_on(&mut self) {
        for _ in 0..2 {
            self.offer_next(false);
        }
        if self.read >= self.caught_up_at {
            self.lane.caught_up();
        }
        self.lane.tick(self.time());
        self.note_settled();
        loop {
            let is_probe = self.lane.breaker(self.now) == BreakerState::HalfOpen;
            let Some(lease) = self.lane.lease(self.time()) else { break };
            self.note_settled();
            self.check_lease(&lease);
            self.last_lease = lease.id;
            if is_probe {
                self.probes.insert(lease.id);
            }
            for event in &lease.events {
                self.attempts.insert(event.sequence, lease.attempt);
            }
            self.leases.push(lease);
        }
        self.note_settled();
        self.check_places();
        self.check_wal();
    }

    fn arrive(&mut self, keys: &[u64], lifetime: Option<u64>) {
        let max_age = lifetime.map(Duration::from_millis);
        let expiry = max_age.map(|max_age| EventExpiry { born: self.time().database, max_age });
        let number = self.known.len() as u64;
        let event = event_of(number, keys_of(keys), expiry);
        self.known.push(Known { event, is_confirmed: false, is_final: false });
    }

    /// The source hands over the next event if it may: an impatient one also if there is no room.
    fn offer_next(&mut self, is_impatient: bool) {
        let Some(known) = self.known.get(self.read) else { return };
        if known.is_confirmed {
            self.read += 1;
            return;
        }
        let is_waiting = self.lane.is_taking() && !self.lane.is_held_off() && !is_impatient;
        let place = if self.own_free > 0 && self.lane.is_taking() {
            self.own_free -= 1;
            self.weight += self.settings.weight(&known.event).cast_signed();
            DeliveryPlace::Own
        } else if !is_waiting && self.overflow_free > 0 {
            self.overflow_free -= 1;
            DeliveryPlace::Overflow
        } else {
            return;
        };
        let event = Arc::clone(&known.event);
        self.at.insert(event.sequence, At::Owed { since: self.now });
        self.durable_in.insert(event.sequence, DurableIn::Wal);
        self.attempts.insert(event.sequence, 0);
        self.read += 1;
        self.lane.offer(event, place, self.time());
        self.note_settled();
    }

    fn replay(&mut self, key: u64) {
        if self.own_free <= 0 || self.replays_free == 0 {
            return;
        }
        self.own_free -= 1;
        self.replays_free -= 1;
        let number = REPLAYS_FROM + self.replays.len() as u64;
        let event = event_of(number, keys_of(&[key]), None);
        self.replays.insert(number, Arc::clone(&event));
        self.at.insert(number, At::Owed { since: self.now });
        self.attempts.insert(number, 0);
        let id = ReplayId::Letter(i64::try_from(number).unwrap());
        self.durable_in.insert(number, DurableIn::Replay(id));
        self.lane.replay(event, id, self.time());
    }

    fn complete(&mut self, lease: &Lease, answer: Answer) {
        let exchange = match answer {
            Answer::Delivered => samples::delivered(),
            Answer::Retry => samples::retry(None),
            Answer::RetryAfter(millis) => samples::retry(Some(Duration::from_millis(millis))),
            Answer::Unspent(reach) => samples::unspent(reach),
            Answer::Rejected => samples::rejected(),
            Answer::Gone => samples::gone(),
        };
        let is_probe = self.probes.remove(&lease.id);
        let is_unspent = match answer {
            Answer::Unspent(_) => true,
            Answer::Retry | Answer::RetryAfter(_) => is_probe,
            Answer::Delivered | Answer::Rejected | Answer::Gone => false,
        };
        for event in &lease.events {
            if answer != Answer::Delivered {
                self.failed.insert(event.sequence);
            }
            let is_past = self.anew.is_some_and(|anew| lease.id <= anew);
            if is_past
                && matches!(answer, Answer::Unspent(_) | Answer::Retry | Answer::RetryAfter(_))
            {
                self.attempts.insert(event.sequence, 0);
            } else if is_unspent {
                self.attempts.insert(event.sequence, lease.attempt - 1);
            }
        }
        self.lane.complete(lease.id, &exchange, self.time(), 0.5);
        self.is_gone |= answer == Answer::Gone;
        self.note_settled();
    }

    /// Takes over what the lane has settled: each event has one final outcome, and is parked once.
    fn note_settled(&mut self) {
        for settlement in self.lane.take_settled() {
            let number = settlement.event.sequence;
            assert_eq!(self.durable_in[&number], settlement.durable_in, "holding of {number}");
            assert_eq!(self.attempts[&number], settlement.attempts, "attempts of {number}");
            assert_eq!(settlement.history.is_some(), self.failed.contains(&number));
            match settlement.outcome {
                DeliveryOutcome::Parked { next_attempt, .. } => {
                    assert!(!matches!(settlement.durable_in, DurableIn::Replay(_)));
                    assert!(next_attempt.is_none_or(|at| at >= self.time().database));
                    self.durable_in.insert(number, DurableIn::Backlog);
                    self.reported.insert(number, settlement.attempts);
                }
                _ => {
                    let before = self.at.insert(number, At::Settled);
                    assert_ne!(before, Some(At::Settled), "{number} is settled twice");
                }
            }
            self.reports.push_back(settlement);
        }
        let freed = self.lane.take_freed();
        self.own_free += self.lane.keep_positions(freed.own, self.now).cast_signed();
        self.weight += self.lane.take_loaded().cast_signed() - freed.weight.cast_signed();
        self.overflow_free += freed.overflow;
        self.replays_free += freed.replays;
    }

    fn commit(&mut self, count: usize) {
        for _ in 0..count {
            let Some(settlement) = self.reports.pop_front() else { return };
            let Settlement { event, outcome, durable_in, attempts, history, .. } = settlement;
            let row = self.rows.iter().find(|(_, row)| row.number == event.sequence);
            let at = row.map(|(at, _)| *at);
            match (outcome, durable_in, at) {
                (_, DurableIn::Replay(_), None) => {}
                (DeliveryOutcome::Parked { next_attempt: due, .. }, DurableIn::Wal, None) => {
                    self.last_row += 1;
                    let at = BacklogPosition { position: event.position, row: self.last_row };
                    let parked = self.time().database;
                    let number = event.sequence;
                    self.rows.insert(at, Row { number, attempts, due, parked, history });
                    self.confirm(event.sequence);
                }
                (DeliveryOutcome::Parked { next_attempt, .. }, DurableIn::Backlog, Some(at)) => {
                    let row = self.rows.get_mut(&at).unwrap();
                    (row.attempts, row.due, row.history) = (attempts, next_attempt, history);
                }
                (_, DurableIn::Wal, None) => {
                    self.confirm(event.sequence);
                    self.finish(event.sequence);
                }
                (_, DurableIn::Backlog, Some(at)) => {
                    self.rows.remove(&at);
                    self.finish(event.sequence);
                }
                wrong => panic!("event {} cannot be booked: {wrong:?}", event.sequence),
            }
        }
    }

    fn confirm(&mut self, number: u64) {
        let known = &mut self.known[usize::try_from(number).unwrap()];
        assert!(!known.is_confirmed, "event {number} is a step of the watermark twice");
        known.is_confirmed = true;
    }

    fn finish(&mut self, number: u64) {
        let known = &mut self.known[usize::try_from(number).unwrap()];
        assert!(!known.is_final, "event {number} has two final outcomes");
        known.is_final = true;
    }

    fn read_page(&mut self, rows: Option<usize>) {
        let room = self.lane.refill_room(self.now);
        if self.page.is_some() || room == 0 {
            return;
        }
        let free = usize::try_from(self.own_free).unwrap_or(0);
        let granted = room.saturating_sub(self.lane.reserved()).min(free);
        self.own_free -= granted.cast_signed();
        let Some(RefillWanted { after, limit }) = self.lane.start_refill(granted, self.now) else {
            return;
        };
        let Some(rows) = rows else { return self.lane.refill_failed(self.now) };
        let refilled = |(at, row): (&BacklogPosition, &Row)| RefilledRow {
            event: Arc::clone(&self.known[usize::try_from(row.number).unwrap()].event),
            at: *at,
            parked: row.parked,
            attempts: row.attempts,
            due: row.due,
            history: row.history.clone(),
        };
        let rest = self.rows.iter().filter(|(at, _)| after.is_none_or(|after| **at > after));
        self.page = Some(rest.take(limit.min(rows.max(1))).map(refilled).collect());
    }

    fn take_page(&mut self) {
        let Some(page) = self.page.take() else { return };
        for row in &page {
            let number = row.event.sequence;
            self.at.entry(number).or_insert(At::Owed { since: self.now });
            self.durable_in.entry(number).or_insert(DurableIn::Backlog);
            let attempts = if self.anew.is_some() { 0 } else { row.attempts };
            self.attempts.entry(number).or_insert(attempts);
            self.reported.entry(number).or_insert(attempts);
            if row.history.is_some() {
                self.failed.insert(number);
            }
        }
        self.lane.refilled(page, self.time());
        self.note_settled();
    }

    /// From here on all goes well: all must be settled, woken up only when the lane asks.
    pub(super) fn drain(&mut self) {
        self.switch(true);
        self.pause(false);
        let mut turns_in_vain = 0;
        loop {
            let before = (self.lane.counts(), self.read, self.reports.len(), self.rows.len());
            self.commit(self.reports.len());
            while let Some(lease) = self.leases.pop() {
                self.complete(&lease, Answer::Delivered);
            }
            self.commit(self.reports.len());
            self.take_page();
            self.read_page(Some(4));
            self.take_page();
            self.go_on();
            if self.lane.is_empty() && self.read == self.known.len() && self.reports.is_empty() {
                break;
            }
            let after = (self.lane.counts(), self.read, self.reports.len(), self.rows.len());
            if after != before || !self.leases.is_empty() {
                turns_in_vain = 0;
                continue;
            }
            turns_in_vain += 1;
            assert!(turns_in_vain < 20, "it wakes without a reason: {after:?}\n{:?}", self.lane);
            let wake = self.lane.wake_at(self.now).expect("there is work and nothing in flight");
            assert!(wake <= self.now + SWEEP_INTERVAL, "it sleeps for {:?}", wake - self.now);
            self.now = self.now.max(wake);
            self.go_on();
        }
        assert!(self.known.iter().all(|known| known.is_final && known.is_confirmed));
        assert!(self.rows.is_empty());
        assert_eq!(self.lane.counts(), LaneCounts::default());
        assert_eq!(self.own_free, self.settings.capacity.get().cast_signed());
    }
}

fn keys_of(keys: &[u64]) -> EventKeys {
    match *keys {
        [] => EventKeys::NONE,
        [BARRIER] => EventKeys::BARRIER,
        [key] => EventKeys::one(KeyHash::from_raw(key)),
        [old, new, ..] => EventKeys::both(KeyHash::from_raw(old), KeyHash::from_raw(new)),
    }
}

/// Two events each come from one change.
fn event_of(number: u64, keys: EventKeys, expiry: Option<EventExpiry>) -> Arc<Event> {
    let position = Position { commit: Lsn::from_raw(number / 2 + 1), ordinal: 0 };
    let event_type = if number.is_multiple_of(2) { "order.created" } else { "order.moved" };
    samples::event_at(number, position, event_type, keys, expiry)
}
