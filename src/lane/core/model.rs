//! The lane beside a model that keeps every event for ever and looks through all of them.
//!
//! Random events of two tables with no, one or two keys or a barrier, some of which expire, random outcomes and clock steps,
//! under random settings. After each step the promises of the lane's header are checked, and that
//! it holds nothing back that may go; at the end everything must drain.

use proptest::prelude::*;

use super::*;
use crate::config::settings::BatchSettings;
use crate::config::settings::KeyOrdering;
use crate::config::settings::RetryDelays;
use crate::config::settings::RetrySettings;
use crate::flow::dead_letter_reason::DeathReason;
use crate::flow::event::EventExpiry;
use crate::flow::key::EventKeys;
use crate::flow::key::KeyHash;
use crate::flow::relation::TableName;
use crate::lane::samples;
use crate::lane::samples::event_of;
use crate::lane::samples::number;

/// Stands for the keys of a barrier.
const BARRIER: u64 = 99;

#[derive(Clone, Debug)]
enum Step {
    /// `lifetime` is in milliseconds from now.
    Offer { keys: Vec<u64>, lifetime: Option<u64> },
    /// Completes one lease, chosen by the number.
    Complete(usize, Answer),
    /// Milliseconds pass.
    Pass(u64),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Answer {
    Delivered,
    Retry,
    RetryAfter(u64),
    Rejected,
    Gone,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let answer = prop_oneof![
        40 => Just(Answer::Delivered),
        25 => Just(Answer::Retry),
        10 => (0..5_000u64).prop_map(Answer::RetryAfter),
        10 => Just(Answer::Rejected),
        1 => Just(Answer::Gone),
    ];
    let keys = prop_oneof![
        15 => prop::collection::vec(0..5u64, 0..3),
        1 => Just(vec![BARRIER]),
    ];
    let offer = (keys, prop::option::of(0..8_000u64));
    let step = prop_oneof![
        5 => offer.prop_map(|(keys, lifetime)| Step::Offer { keys, lifetime }),
        5 => (any::<usize>(), answer).prop_map(|(choice, answer)| Step::Complete(choice, answer)),
        2 => (0..2_000u64).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 0..150)
}

fn any_settings() -> impl Strategy<Value = LaneSettings> {
    let ordering = prop_oneof![
        3 => Just(KeyOrdering::Key),
        1 => Just(KeyOrdering::Strict),
        1 => Just(KeyOrdering::None),
    ];
    let rate = prop_oneof![3 => Just(None), 1 => (0.5..300.0f64).prop_map(Some)];
    (1..6usize, 1..5usize, 0..200u64, ordering, rate, 0..4u32).prop_map(
        |(concurrency, size, linger, ordering, rate_limit, max)| LaneSettings {
            concurrency: number(concurrency),
            batch: BatchSettings { size: number(size), linger: Duration::from_millis(linger) },
            ordering,
            rate_limit,
            retry: RetrySettings {
                delays: RetryDelays::Exponential { max, interval: Duration::from_millis(700) },
                cap: Duration::from_secs(3),
            },
            ..samples::settings()
        },
    )
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum At {
    Waiting,
    InFlight(LeaseId),
    /// The lease that failed, and when the next one is due.
    Retrying(LeaseId, Instant),
    Settled,
}

#[derive(Debug)]
struct Known {
    keys: Vec<KeyHash>,
    /// Its table, if barriers count for it.
    table: Option<usize>,
    is_barrier: bool,
    expiry: Option<EventExpiry>,
    offered: Instant,
    at: At,
    attempts: u32,
    /// It was in a batch that was refused, and is sent by itself.
    alone: bool,
}

/// A lane, and everything that ever happened to it.
struct World {
    lane: LaneState,
    settings: LaneSettings,
    start: Instant,
    now: Instant,
    known: Vec<Known>,
    leases: Vec<Lease>,
    starts: Vec<Instant>,
    allowed: usize,
    failures_in_row: u32,
    is_gone: bool,
}

impl World {
    fn new(settings: LaneSettings) -> Self {
        let start = Instant::now();
        Self {
            lane: LaneState::new(settings.clone()),
            start,
            now: start,
            known: Vec::new(),
            leases: Vec::new(),
            starts: Vec::new(),
            allowed: settings.concurrency.get(),
            failures_in_row: 0,
            is_gone: false,
            settings,
        }
    }

    fn database_now(&self) -> Timestamp {
        let passed = self.now.duration_since(self.start).as_micros();
        Timestamp::from_micros(i64::try_from(passed).unwrap())
    }

    fn time(&self) -> LaneNow {
        LaneNow { instant: self.now, database: self.database_now() }
    }

    fn is_expired(&self, event: usize) -> bool {
        self.known[event].expiry.is_some_and(|expiry| expiry.is_over(self.database_now()))
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Offer { keys, lifetime } => self.offer(keys, *lifetime),
            Step::Complete(choice, answer) if !self.leases.is_empty() => {
                let lease = self.leases.swap_remove(choice % self.leases.len());
                self.complete(&lease, *answer);
            }
            Step::Complete(..) => {}
            Step::Pass(millis) => self.now += Duration::from_millis(*millis),
        }
        self.lease_all();
        self.check_nothing_is_held_back();
        self.check_counts();
    }

    fn offer(&mut self, keys: &[u64], lifetime: Option<u64>) {
        let max_age = lifetime.map(Duration::from_millis);
        let expiry = max_age.map(|max_age| EventExpiry { born: self.database_now(), max_age });
        let keys = match *keys {
            [] => EventKeys::NONE,
            [BARRIER] => EventKeys::BARRIER,
            [key] => EventKeys::one(KeyHash::from_raw(key)),
            [old, new, ..] => EventKeys::both(KeyHash::from_raw(old), KeyHash::from_raw(new)),
        };
        let sequence = self.known.len();
        let mut event = Arc::into_inner(event_of(sequence as u64, keys, expiry)).unwrap();
        event.table = Arc::new(TableName::new("public", format!("table_{}", sequence % 2)));
        let event = Arc::new(event);
        self.lane.offer(Arc::clone(&event), DeliveryPlace::Own, self.time());
        let keys = match self.settings.ordering {
            KeyOrdering::Key => keys.iter().collect(),
            KeyOrdering::Strict => vec![KeyHash::from_raw(99)],
            KeyOrdering::None => Vec::new(),
        };
        let at = At::Waiting;
        let table = (self.settings.ordering == KeyOrdering::Key).then_some(sequence % 2);
        let is_barrier = event.keys.is_barrier();
        let offered = self.now;
        self.known.push(Known {
            keys,
            table,
            is_barrier,
            expiry,
            offered,
            at,
            attempts: 0,
            alone: false,
        });
        let expected = if self.is_gone { vec![(sequence, "gone")] } else { Vec::new() };
        self.expect_settled(&expected);
    }

    /// Leases what there is and checks each lease.
    fn lease_all(&mut self) -> usize {
        let before = self.starts.len();
        while let Some(lease) = self.lane.lease(self.time()) {
            self.expect_only_expired();
            self.check_lease(&lease);
            self.starts.push(self.now);
            for event in &lease.events {
                let known = &mut self.known[usize::try_from(event.sequence).unwrap()];
                known.at = At::InFlight(lease.id);
                known.attempts = lease.attempt;
            }
            self.leases.push(lease);
        }
        self.expect_only_expired();
        self.starts.len() - before
    }

    fn check_lease(&self, lease: &Lease) {
        assert!(!self.is_gone, "a lease for an endpoint that is gone");
        assert!(self.leases.len() < self.allowed, "more in flight than {}", self.allowed);
        let limit = self.settings.rate_limit.unwrap_or(f64::INFINITY);
        for (age, start) in self.starts.iter().rev().enumerate() {
            let span = self.now.duration_since(*start).as_secs_f64() + 0.010;
            assert!((age + 2) as f64 <= span * limit + 1.001, "faster than {limit} a second");
        }
        let members: Vec<usize> =
            lease.events.iter().map(|event| usize::try_from(event.sequence).unwrap()).collect();
        assert!(!members.is_empty() && members.len() <= self.settings.batch.size.get());
        assert!(members.is_sorted(), "out of order within the request: {members:?}");
        match self.known[members[0]].at {
            At::Waiting if self.known[members[0]].alone => assert_eq!(members.len(), 1),
            At::Waiting => assert_eq!(lease.attempt, 1),
            At::Retrying(_, due) => assert!(due <= self.now, "retried too early"),
            at => panic!("leased while {at:?}"),
        }
        for &member in &members {
            assert!(!self.is_expired(member), "event {member} has expired");
            assert!(!self.known[member].alone || members.len() == 1, "{member} is not alone");
            assert_eq!(self.known[member].attempts + 1, lease.attempt);
            assert_eq!(self.known[member].at, self.known[members[0]].at);
            for ahead in self.ahead_of(member) {
                assert!(members.contains(&ahead), "event {member} overtakes {ahead}");
            }
        }
        if let At::Retrying(..) = self.known[members[0]].at {
            let same = |known: &Known| known.at == self.known[members[0]].at;
            let all = self.known.iter().filter(|known| same(known)).count();
            assert_eq!(all, members.len(), "a retried batch lost members");
        }
    }

    /// Earlier events with a common key, or on the other side of a barrier, that are not settled.
    fn ahead_of(&self, event: usize) -> impl Iterator<Item = usize> {
        (0..event).filter(move |&earlier| {
            let (earlier, later) = (&self.known[earlier], &self.known[event]);
            let shared = |key| earlier.keys.contains(key);
            let at_barrier = (earlier.is_barrier || later.is_barrier)
                && later.table.is_some()
                && earlier.table == later.table;
            earlier.at != At::Settled && (at_barrier || later.keys.iter().any(shared))
        })
    }

    fn complete(&mut self, lease: &Lease, answer: Answer) {
        let exchange = match answer {
            Answer::Delivered => samples::delivered(),
            Answer::Retry => samples::retry(None),
            Answer::RetryAfter(millis) => samples::retry(Some(Duration::from_millis(millis))),
            Answer::Rejected => samples::rejected(),
            Answer::Gone => samples::gone(),
        };
        let is_retry = matches!(answer, Answer::Retry | Answer::RetryAfter(_));
        if is_retry {
            self.failures_in_row += 1;
            self.allowed = if self.failures_in_row >= 3 { 1 } else { self.allowed };
        } else {
            self.failures_in_row = 0;
            self.allowed = (self.allowed * 2).min(self.settings.concurrency.get());
        }
        let RetryDelays::Exponential { max, .. } = self.settings.retry.delays else {
            unreachable!()
        };
        let is_split = answer == Answer::Rejected && lease.events.len() > 1 && !self.is_gone;
        let again = is_retry && lease.attempt <= max && !self.is_gone || is_split;
        let wait = self.lane.complete(lease.id, &exchange, self.time(), 0.5);
        assert_eq!(wait.is_some(), again, "attempt {} of {max} retries", lease.attempt);
        let members = lease.events.iter().map(|event| usize::try_from(event.sequence).unwrap());
        if let Some(wait) = wait {
            for member in members {
                if is_split {
                    (self.known[member].at, self.known[member].alone) = (At::Waiting, true);
                    continue;
                }
                self.known[member].at = At::Retrying(lease.id, self.now + wait);
            }
            self.expect_settled(&[]);
            return;
        }
        let outcome = match answer {
            Answer::Delivered => "delivered",
            Answer::Rejected => "rejected",
            Answer::Gone => "gone",
            Answer::Retry | Answer::RetryAfter(_) if self.is_gone => "gone",
            Answer::Retry | Answer::RetryAfter(_) => "exhausted",
        };
        let mut expected: Vec<(usize, &str)> = members.map(|member| (member, outcome)).collect();
        if answer == Answer::Gone {
            self.is_gone = true;
            let rest = |at| matches!(at, At::Waiting | At::Retrying(..));
            let rest = (0..self.known.len()).filter(|&event| rest(self.known[event].at));
            expected.extend(rest.map(|event| (event, "gone")));
        }
        self.expect_settled(&expected);
    }

    fn expect_settled(&mut self, expected: &[(usize, &'static str)]) {
        let mut settled: Vec<(usize, &str)> = self.settled();
        let mut expected = expected.to_vec();
        settled.sort_unstable();
        expected.sort_unstable();
        assert_eq!(settled, expected);
    }

    fn expect_only_expired(&mut self) {
        for (event, outcome) in self.settled() {
            assert_eq!(outcome, "expired");
            assert!(self.is_expired(event), "event {event} was still good");
        }
    }

    /// What was settled since the last call. Marks it, and checks that it was not settled before.
    fn settled(&mut self) -> Vec<(usize, &'static str)> {
        let mut settled = Vec::new();
        for settlement in self.lane.take_settled() {
            let event = usize::try_from(settlement.event.sequence).unwrap();
            let known = &mut self.known[event];
            assert_ne!(known.at, At::Settled, "event {event} is settled twice");
            assert_eq!(settlement.attempts, known.attempts);
            known.at = At::Settled;
            let outcome = match settlement.outcome {
                DeliveryOutcome::Delivered { .. } => "delivered",
                DeliveryOutcome::Expired => "expired",
                DeliveryOutcome::Filtered => "filtered",
                DeliveryOutcome::Dead { reason: DeathReason::RetriesExhausted(_) } => "exhausted",
                DeliveryOutcome::Dead { reason: DeathReason::Rejected(_) } => "rejected",
                DeliveryOutcome::Dead {
                    reason: DeathReason::EndpointGone | DeathReason::EndpointDeleted,
                } => "gone",
                DeliveryOutcome::Dead { reason: DeathReason::BacklogFull } => "full",
                DeliveryOutcome::Dead { reason: DeathReason::BacklogTooOld } => "too old",
                DeliveryOutcome::Dead { reason: DeathReason::Poison(_) } => "poison",
                DeliveryOutcome::Parked { .. } => "parked",
            };
            settled.push((event, outcome));
        }
        settled
    }

    /// With room in flight and no rate limit, nothing that may be sent is left.
    fn check_nothing_is_held_back(&self) {
        if self.leases.len() >= self.allowed || self.settings.rate_limit.is_some() {
            return;
        }
        let mut batch: Vec<usize> = Vec::new();
        let mut passed: Vec<usize> = Vec::new();
        for event in 0..self.known.len() {
            match self.known[event].at {
                At::Retrying(_, due) => assert!(due > self.now, "event {event} is due"),
                At::Waiting if self.known[event].alone => {
                    let is_first = self.ahead_of(event).next().is_none();
                    assert!(!is_first, "event {event} is held back");
                }
                At::Waiting if self.ahead_of(event).all(|ahead| passed.contains(&ahead)) => {
                    passed.push(event);
                    if !self.is_expired(event) {
                        batch.push(event);
                    }
                }
                _ => {}
            }
        }
        let Some(&oldest) = batch.first() else { return };
        let BatchSettings { size, linger } = self.settings.batch;
        assert!(batch.len() < size.get(), "{batch:?} make a full batch");
        assert!(self.known[oldest].offered + linger > self.now, "{batch:?} lingered enough");
    }

    fn check_counts(&self) {
        let count = |is: fn(At) -> bool| self.known.iter().filter(|known| is(known.at)).count();
        // One that is sent by itself waits for its next attempt once nothing is ahead of it.
        let alone = (0..self.known.len()).filter(|&event| {
            let Known { at, alone, .. } = self.known[event];
            at == At::Waiting && alone && self.ahead_of(event).next().is_none()
        });
        let alone = alone.count();
        let expected = LaneCounts {
            queued: count(|at| at == At::Waiting) - alone,
            in_flight: count(|at| matches!(at, At::InFlight(_))),
            retrying: count(|at| matches!(at, At::Retrying(..))) + alone,
            ..LaneCounts::default()
        };
        assert_eq!(self.lane.counts(), expected);
    }

    /// From here on every attempt succeeds: all must be settled, woken up only when the lane asks.
    fn drain(&mut self) {
        let mut wakes_in_vain = 0;
        while !self.lane.is_empty() {
            while let Some(lease) = self.leases.pop() {
                self.complete(&lease, Answer::Delivered);
                self.lease_all();
            }
            if self.lane.is_empty() {
                break;
            }
            let wake = self.lane.wake_at(self.now).expect("there is work and nothing in flight");
            let just_before = wake - Duration::from_nanos(1);
            if just_before > self.now {
                self.now = just_before;
                assert_eq!(self.lease_all(), 0, "it asked to be woken later than need be");
            }
            self.now = self.now.max(wake);
            let open = |known: &&Known| known.at != At::Settled;
            let open_before = self.known.iter().filter(open).count();
            let leased = self.lease_all();
            let is_progress = leased > 0 || self.known.iter().filter(open).count() < open_before;
            wakes_in_vain = if is_progress { 0 } else { wakes_in_vain + 1 };
            // The rate limit ends first, and shows that a batch still lingers.
            assert!(wakes_in_vain < 2, "it wakes without a reason");
        }
        assert!(self.known.iter().all(|known| known.at == At::Settled));
        assert_eq!(self.lane.counts(), LaneCounts::default());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn whatever_happens_the_lane_keeps_its_promises(settings in any_settings(), steps in steps()) {
        let mut world = World::new(settings);
        for step in &steps {
            world.apply(step);
        }
        world.drain();
    }
}
