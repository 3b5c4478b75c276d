//! One rule of parking at a time. What must hold for all of them together is in `backlog_model`.

use super::*;
use crate::config::settings;
use crate::flow::backlog::BacklogPosition;
use crate::flow::backlog::BacklogStanding;
use crate::flow::backlog::RefilledRow;
use crate::flow::dead_letter_reason::DeathReason;
use crate::flow::key::EventKeys;
use crate::flow::key::KeyHash;
use crate::flow::park_reason::ParkReason;
use crate::flow::verdict::AttemptReach;
use crate::flow::verdict::FailureClass;
use crate::lane::core::backlog_limits::SWEEP_INTERVAL;
use crate::lane::core::tests::Bench;
use crate::lane::core::tests::numbers;
use crate::lane::samples::delivered;
use crate::lane::samples::event;
use crate::lane::samples::event_of;
use crate::lane::samples::event_until;
use crate::lane::samples::gone;
use crate::lane::samples::number;
use crate::lane::samples::retry;
use crate::lane::samples::unspent;
use crate::lane::settings::LaneParking;

/// A lane with a backlog: parks waits of more than 10 s, and opens its breaker at 5 failures.
pub(super) fn bench(change: impl FnOnce(&mut LaneSettings)) -> Bench {
    Bench::new(|settings| {
        let terms = settings::ParkingSettings::default();
        settings.parking = Some(LaneParking { terms, standing: None });
        change(settings);
    })
}

pub(super) fn standing(rows: usize, newest: u64) -> impl FnOnce(&mut LaneSettings) {
    let newest = event(newest, 0).position;
    move |settings| {
        settings.parking.as_mut().unwrap().standing =
            Some(BacklogStanding { rows, newest, is_out: false });
    }
}

pub(super) fn row(event: Arc<Event>, row: i64) -> RefilledRow {
    let at = BacklogPosition { position: event.position, row };
    let parked = Timestamp::default();
    RefilledRow { event, at, parked, attempts: 0, due: None, history: None }
}

impl Bench {
    /// What was settled since the last call, with what kept it before.
    pub(super) fn booked(&mut self) -> Vec<(u64, DurableIn, DeliveryOutcome)> {
        let settled = self.lane.take_settled().into_iter();
        settled.map(|s| (s.event.sequence, s.durable_in, s.outcome)).collect()
    }

    /// The numbers of what was parked since the last call; nothing else was settled.
    pub(super) fn parked(&mut self) -> Vec<(u64, ParkReason)> {
        let parked = |(n, _, outcome)| match outcome {
            DeliveryOutcome::Parked { reason, .. } => (n, reason),
            other => panic!("{n} is {other:?}"),
        };
        self.booked().into_iter().map(parked).collect()
    }

    /// Fails all that can be sent until the breaker opens.
    pub(super) fn outage(&mut self) {
        while self.lane.breaker(self.now) == BreakerState::Closed {
            let leases = self.leases();
            assert!(!leases.is_empty(), "nothing to fail");
            leases.iter().for_each(|lease| assert!(self.complete(lease, &retry(None)).is_some()));
            self.pass(10);
        }
    }

    pub(super) fn refill(&mut self, rows: Vec<RefilledRow>) {
        let now = self.time();
        let places = rows.len().max(1).saturating_sub(self.lane.reserved());
        assert!(self.lane.start_refill(places, now.instant).is_some());
        self.lane.refilled(rows, now);
    }
}

#[test]
fn a_far_retry_is_parked_with_all_that_follows_it_and_nothing_else() {
    let mut bench = bench(|_| ());
    let moved = event_of(2, EventKeys::both(KeyHash::from_raw(1), KeyHash::from_raw(2)), None);
    bench.offer([event(0, 1), event(1, 3), moved, event(3, 2), event(4, 3)]);
    let leases = bench.leases();
    assert_eq!(numbers(&leases), [[0], [1]]);
    bench.complete(&leases[0], &retry(Some(Duration::from_secs(30))));
    let booked = bench.booked();
    let due = Timestamp::from_micros(31_500_000);
    let parked = DeliveryOutcome::Parked { next_attempt: Some(due), reason: ParkReason::Retry };
    assert_eq!(format!("{:?}", booked[0]), format!("{:?}", (0, DurableIn::Wal, parked)));
    assert_eq!(booked.iter().map(|(n, ..)| *n).collect::<Vec<_>>(), [0, 2, 3]);
    bench.complete(&leases[1], &retry(None));
    assert_eq!(bench.parked(), [], "a near retry waits in memory");
    // What comes later and has to follow is parked on arrival, but only that.
    bench.offer([event(5, 2), event(6, 3), event(7, 9)]);
    assert_eq!(bench.parked(), [(5, ParkReason::Behind)]);
    assert_eq!(bench.lane.counts().parked, 4);
}

#[test]
fn a_parked_delivery_that_fails_again_is_reported_with_its_attempts() {
    let mut bench = bench(|_| ());
    bench.offer([event(0, 1)]);
    let lease = bench.leases().remove(0);
    bench.complete(&lease, &retry(Some(Duration::from_secs(30))));
    bench.pass(31_500);
    let lease = bench.leases().remove(0);
    bench.pass(100);
    bench.complete(&lease, &retry(None));
    let settled = bench.lane.take_settled();
    let [_, again] = settled.as_slice() else { panic!("{settled:?}") };
    assert_eq!((again.durable_in, again.attempts), (DurableIn::Backlog, 2));
    let history = again.history.as_ref().unwrap();
    assert_eq!(history.first_attempt, Timestamp::default());
    assert_eq!(history.last_attempt, Timestamp::from_micros(31_500_000));
    assert_eq!((history.status, history.failure.class), (Some(503), FailureClass::Status));
}

#[test]
fn an_outage_parks_all_that_is_not_in_flight_and_then_what_comes_back() {
    let mut bench = bench(|settings| settings.concurrency = number(6));
    bench.offer((0..8).map(|n| event(n, n)));
    let leases = bench.leases();
    for lease in &leases[..5] {
        assert_eq!(bench.parked(), []);
        bench.complete(lease, &retry(None));
    }
    assert_eq!(bench.lane.breaker(bench.now), BreakerState::Open);
    let mut parked: Vec<u64> = bench.parked().into_iter().map(|(n, _)| n).collect();
    parked.sort_unstable();
    assert_eq!(parked, [0, 1, 2, 3, 4, 6, 7], "5 is in flight");
    bench.complete(&leases[5], &retry(None));
    bench.offer([event(8, 8)]);
    assert_eq!(bench.parked(), [(5, ParkReason::Outage), (8, ParkReason::Outage)]);
    assert!(bench.lane.is_durable() && bench.lane.is_taking());
}

#[test]
fn one_probe_decides_and_its_failure_counts_for_the_endpoint_alone() {
    let mut bench = bench(|_| ());
    bench.offer((0..9).map(|n| event(n, n)));
    bench.outage();
    assert!(bench.leases().is_empty());
    let wake = bench.lane.wake_at(bench.now).unwrap();
    bench.now = wake;
    let probes = bench.leases();
    assert_eq!(probes.len(), 1, "{:?}", numbers(&probes));
    let wait = bench.complete(&probes[0], &retry(None));
    assert_eq!(wait, Some(Duration::from_secs(2)), "as long as the breaker's");
    assert_eq!(bench.lane.breaker(bench.now), BreakerState::Open);
    bench.pass(1900);
    assert!(bench.leases().is_empty(), "the second cooldown is longer");
    bench.pass(200);
    let probes = bench.leases();
    bench.complete(&probes[0], &delivered());
    assert_eq!(bench.lane.breaker(bench.now), BreakerState::Closed);
    assert_eq!(bench.leases().len(), 2, "the ramp begins");
}

/// 4 retries, and 40 probes over which nothing is lost: who was tried before takes its turn last, and
/// the schedule goes on where it was.
#[test]
fn no_outage_is_so_long_that_its_probes_spend_the_retries_of_what_waits() {
    let mut bench = bench(|_| ());
    bench.offer((0..9).map(|n| event(n, n)));
    bench.outage();
    let mut probed = Vec::new();
    while probed.len() < 40 {
        bench.now = bench.lane.wake_at(bench.now).unwrap();
        for lease in bench.leases() {
            assert!(lease.attempt <= 3, "{lease:?}");
            probed.push(lease.events[0].sequence);
            let wait = bench.complete(&lease, &retry(None)).unwrap();
            assert!(wait >= Duration::from_secs(1), "not before the breaker");
        }
    }
    assert!((0..9).all(|n| probed.contains(&n)), "they take turns: {probed:?}");
    assert!(bench.settled().iter().all(|(_, outcome, _)| *outcome == "parked"));
    bench.pass(300_000);
    let lease = bench.leases().remove(0);
    bench.complete(&lease, &delivered());
    let mut spent = 0;
    while !bench.lane.is_empty() {
        bench.now = bench.lane.wake_at(bench.now).unwrap();
        for lease in bench.leases() {
            bench.complete(&lease, &delivered());
            spent = spent.max(lease.attempt);
        }
    }
    assert!(spent <= 3, "{spent}");
}

/// A restart in the middle of an outage is no reason to spend retries either.
#[test]
fn what_waited_for_the_breaker_before_a_restart_waits_for_a_probe_after_it() {
    let mut bench = bench(|settings| {
        let newest = event(9, 0).position;
        let standing = BacklogStanding { rows: 2, newest, is_out: true };
        settings.parking.as_mut().unwrap().standing = Some(standing);
    });
    bench.offer([event(10, 7)]);
    assert_eq!(bench.parked(), [(10, ParkReason::Outage)]);
    let tried = |n, at| RefilledRow { attempts: 4, ..row(event(n, n), at) };
    bench.refill(vec![tried(1, 1), tried(2, 2)]);
    for _ in 0..20 {
        for lease in bench.leases() {
            assert_eq!(lease.attempt, 5);
            assert!(bench.complete(&lease, &retry(None)).is_some());
        }
        bench.now = bench.lane.wake_at(bench.now).unwrap();
    }
    bench.pass(60_000);
    let leases = bench.leases();
    assert_eq!((leases.len(), leases[0].attempt), (1, 5), "one probe");
    bench.complete(&leases[0], &delivered());
    assert_eq!(bench.lane.breaker(bench.now), BreakerState::Closed);
}

#[test]
fn an_attempt_that_did_not_come_to_the_endpoint_is_not_spent() {
    for reach in [AttemptReach::Unprocessed, AttemptReach::Nowhere] {
        let mut bench = bench(|settings| settings.parking.as_mut().unwrap().terms.breaker = None);
        bench.offer([event(0, 1)]);
        let mut waited = Duration::ZERO;
        for turn in 0..20 {
            let leases = bench.leases();
            assert_eq!((leases.len(), leases[0].attempt), (1, 1), "{reach:?}, turn {turn}");
            let wait = bench.complete(&leases[0], &unspent(reach)).unwrap();
            assert_eq!(wait.is_zero(), turn == 0 && reach == AttemptReach::Unprocessed);
            assert!(wait >= waited && wait <= Duration::from_secs(30));
            waited = wait;
            bench.now += wait;
        }
        // Only what is parked has a limit of age, so it has to be parked.
        assert_eq!(bench.lane.counts().parked, 1);
        for attempt in 1..=5 {
            let lease = bench.leases().remove(0);
            assert_eq!(lease.attempt, attempt);
            let wait = bench.complete(&lease, &retry(None));
            assert_eq!(wait.is_some(), attempt <= 4);
            bench.now += wait.unwrap_or_default();
        }
    }
}

#[test]
fn what_walhook_lacks_itself_says_nothing_of_the_endpoint() {
    let mut bench = bench(|_| ());
    bench.offer((0..40).map(|n| event(n, n)));
    for _ in 0..10 {
        for lease in bench.leases() {
            bench.complete(&lease, &unspent(AttemptReach::Nowhere));
        }
    }
    assert_eq!(bench.lane.breaker(bench.now), BreakerState::Closed);
    assert!(!bench.lane.is_slowed());
}

#[test]
fn without_a_breaker_the_schedule_holds_and_nobody_is_slowed_down() {
    let mut bench = bench(|settings| {
        settings.parking.as_mut().unwrap().terms.breaker = None;
        settings.concurrency = number(30);
    });
    bench.offer((0..30).map(|n| event(n, n)));
    for turn in 0..5 {
        let leases = bench.leases();
        assert_eq!(leases.len(), 30, "turn {turn}");
        bench.pass(30_000);
        for lease in leases {
            assert_eq!(bench.complete(&lease, &retry(None)).is_some(), turn < 4);
        }
        assert!(!bench.lane.is_slowed());
        bench.pass(60_000);
    }
    let dead = bench.settled().iter().filter(|(_, outcome, _)| *outcome == "exhausted").count();
    assert_eq!(dead, 30);
}

#[test]
fn a_breaker_that_is_switched_off_lets_everything_go() {
    let mut bench = bench(|_| ());
    bench.offer((0..9).map(|n| event(n, n)));
    bench.outage();
    let mut settings = crate::lane::samples::settings();
    let terms = settings::ParkingSettings { breaker: None, ..settings::ParkingSettings::default() };
    settings.parking = Some(LaneParking { terms, standing: None });
    let now = bench.time();
    bench.lane.reconfigure(settings, now);
    assert_eq!(bench.lane.breaker(bench.now), BreakerState::Closed);
    bench.pass(60_000);
    assert_eq!(bench.leases().len(), 4, "as many as are allowed at once");
}

#[test]
fn while_something_is_outside_all_that_arrives_goes_there_too() {
    let mut bench = bench(|settings| {
        (settings.concurrency, settings.capacity) = (number(1), number(4));
    });
    bench.offer([event(0, 0)]);
    bench.lane.offer(event(1, 1), DeliveryPlace::Overflow, bench.time());
    bench.offer([event(2, 2)]);
    assert_eq!(bench.parked(), [(1, ParkReason::Full), (2, ParkReason::Behind)]);
    let freed =
        FreedDelivery { own: 1, overflow: 1, outside: 2, weight: 2, ..FreedDelivery::default() };
    assert_eq!(bench.lane.take_freed(), freed);
    assert_eq!((bench.lane.counts().outside, bench.lane.is_taking()), (2, false));
    assert_eq!(bench.lane.refill_room(bench.now), 2);
    let wanted = bench.lane.start_refill(2, bench.now).unwrap();
    let after = BacklogPosition { position: event(0, 0).position, row: 0 };
    assert_eq!((wanted.after, wanted.limit), (Some(after), 3), "one may be event 0's own");
    let now = bench.time();
    bench.lane.refilled(vec![row(event(1, 1), 1)], now);
    // A place is left over: the seam closes, and event 3 stays, but behind the last row.
    assert!(bench.lane.is_taking());
    bench.offer([event(3, 2)]);
    assert_eq!((bench.lane.counts().outside, bench.lane.refill_room(bench.now)), (1, 1));
    bench.lane.start_refill(0, bench.now).unwrap();
    bench.lane.refilled(vec![row(event(2, 2), 2)], now);
    assert_eq!(bench.lane.counts().outside, 0);
    assert_eq!(bench.parked(), [(3, ParkReason::Behind)], "its key is parked");
    for expected in 0..4 {
        let lease = bench.leases().remove(0);
        assert_eq!(numbers(std::slice::from_ref(&lease)), [[expected]]);
        bench.complete(&lease, &delivered());
    }
}

#[test]
fn while_the_seam_closes_half_of_the_places_are_kept_for_rows() {
    let mut bench = bench(|settings| settings.capacity = number(4));
    for n in 0..5 {
        bench.lane.offer(event(n, n), DeliveryPlace::Overflow, bench.time());
    }
    bench.lane.take_freed();
    bench.lane.start_refill(4, bench.now).unwrap();
    let now = bench.time();
    bench.lane.refilled(vec![row(event(0, 0), 1)], now);
    let left = |lane: &mut LaneState| (lane.take_freed().own, lane.reserved());
    assert_eq!(left(&mut bench.lane), (1, 2), "the tail gets the other half");
    bench.lane.start_refill(0, bench.now).unwrap();
    bench.lane.refilled(vec![row(event(1, 1), 2)], now);
    assert_eq!(bench.lane.reserved(), 1);
    assert_eq!(bench.lane.keep_positions(3, bench.now), 2, "a sender would take them all");
}

#[test]
fn a_page_without_new_rows_is_not_asked_for_again_at_once() {
    let mut bench = bench(|_| ());
    bench.lane.offer(event(0, 0), DeliveryPlace::Overflow, bench.time());
    let (end, mut pages) = (bench.now + Duration::from_secs(300), 0);
    while bench.now < end {
        if bench.lane.refill_room(bench.now) > 0 {
            bench.refill(Vec::new());
            pages += 1;
        }
        assert_eq!(bench.lane.refill_room(bench.now), 0);
        let wake = bench.lane.wake_at(bench.now).unwrap();
        assert!(wake > bench.now);
        bench.now = wake;
        bench.lane.tick(bench.time());
    }
    assert!((100..1000).contains(&pages), "{pages} pages in five minutes");
    bench.now += Duration::from_secs(2);
    bench.refill(vec![row(event(0, 0), 1)]);
    assert_eq!(bench.lane.counts().outside, 0);
    assert_eq!(bench.lane.reserved(), 0, "the place that was reserved is the row's now");
}

#[test]
fn what_comes_from_the_backlog_continues_where_it_was() {
    let mut bench = bench(standing(2, 1));
    bench.lane.caught_up();
    let due = Some(Timestamp::from_seconds(20));
    let tried = RefilledRow { attempts: 3, due, ..row(event(0, 1), 1) };
    bench.refill(vec![tried, row(event(1, 1), 2)]);
    assert!(bench.leases().is_empty(), "its time has not come, and 1 has to follow");
    bench.pass(20_000);
    let lease = bench.leases().remove(0);
    assert_eq!((lease.attempt, lease.events[0].sequence), (4, 0));
    bench.complete(&lease, &retry(None));
    bench.pass(60_000);
    let last = bench.leases().remove(0);
    bench.complete(&last, &retry(None));
    let settled = bench.lane.take_settled();
    assert_eq!(settled.last().map(|s| (s.attempts, s.durable_in)), Some((5, DurableIn::Backlog)));
    assert!(matches!(settled.last().unwrap().outcome, DeliveryOutcome::Dead { .. }));
    assert_eq!(numbers(&bench.leases()), [[1]]);
}

#[test]
fn an_event_that_arrives_again_after_a_crash_goes_before_newer_rows() {
    let mut bench = bench(standing(2, 5));
    assert_eq!(bench.lane.refill_room(bench.now), 0, "something older may be on its way");
    bench.offer([event(1, 1), event(7, 1)]);
    assert_eq!(bench.lane.counts().outside, 4);
    let newer = || vec![row(event(4, 1), 1), row(event(5, 1), 2)];
    bench.refill(newer());
    assert!(bench.leases().is_empty(), "event 1 is parked, and its row not there yet");
    bench.pass(50);
    let now = bench.time();
    bench.lane.start_refill(2, bench.now).unwrap();
    let mut all = newer();
    all.insert(0, row(event(1, 1), 3));
    all.push(row(event(7, 1), 4));
    bench.lane.refilled(all, now);
    assert_eq!(numbers(&bench.leases()), [[1]]);
}

#[test]
fn replays_keep_to_themselves_and_to_their_keys_turn() {
    let mut bench = bench(|settings| {
        settings.batch = settings::BatchSettings { size: number(4), linger: Duration::ZERO };
    });
    bench.offer([event(0, 1), event(1, 2)]);
    let now = bench.time();
    bench.lane.replay(event(2, 1), ReplayId::Letter(7), now);
    bench.lane.replay(event(3, 3), ReplayId::Letter(8), now);
    bench.offer([event(4, 3)]);
    let leases = bench.leases();
    assert_eq!(numbers(&leases), [vec![0, 1], vec![3]]);
    assert_eq!(leases.iter().map(|l| l.replay).collect::<Vec<_>>(), [false, true]);
    bench.complete(&leases[1], &retry(Some(Duration::from_secs(60))));
    assert_eq!(bench.parked(), [(4, ParkReason::Behind)], "a replay has its dead letter");
    bench.complete(&leases[0], &delivered());
    assert_eq!(numbers(&bench.leases()), [[2]]);
}

#[test]
fn limits_and_expiry_hold_while_the_endpoint_is_out_of_order() {
    let mut bench = bench(|settings| {
        let backlog = &mut settings.parking.as_mut().unwrap().terms.backlog;
        (backlog.rows, backlog.age) = (number(9), Duration::from_secs(60));
    });
    bench.offer([event(0, 0), event(1, 1), event(2, 2), event(3, 3), event(4, 4)]);
    bench.outage();
    bench.offer((5..8).map(|n| event(n, n)));
    bench.offer([event_until(8, 8, 3), event(9, 9)]);
    for n in 10..14 {
        bench.lane.offer(event(n, n), DeliveryPlace::Overflow, bench.time());
    }
    bench.booked();
    // A long cooldown, so that nothing is tried.
    let far = Some(Duration::from_secs(3600));
    bench.now = bench.lane.wake_at(bench.now).unwrap();
    let probe = bench.leases().remove(0);
    bench.complete(&probe, &retry(far));
    bench.booked();
    bench.lane.tick(bench.time());
    bench.now += SWEEP_INTERVAL;
    bench.lane.tick(bench.time());
    let named = |(n, durable_in, outcome)| {
        assert_eq!(durable_in, DurableIn::Backlog);
        match outcome {
            DeliveryOutcome::Expired => (n, "expired"),
            DeliveryOutcome::Dead { reason: DeathReason::BacklogFull } => (n, "full"),
            DeliveryOutcome::Dead { reason: DeathReason::BacklogTooOld } => (n, "too old"),
            other => panic!("{n} is {other:?}"),
        }
    };
    let full = [0, 1, 2, 3, 4].map(|n| (n, "full"));
    let settled: Vec<_> = bench.booked().into_iter().map(named).collect();
    assert_eq!(settled[..5], full);
    assert_eq!(settled[5..], [(8, "expired")]);
    // What is outside comes in to be looked at, although nothing may be sent.
    assert_eq!(bench.lane.refill_room(bench.now), 4);
    bench.refill((10..14).zip(1..).map(|(n, at)| row(event(n, n), at)).collect());
    assert_eq!(bench.booked().len(), 0);
    for _ in 0..6 {
        bench.now += SWEEP_INTERVAL;
        bench.lane.tick(bench.time());
    }
    let settled: Vec<_> = bench.booked().into_iter().map(named).collect();
    assert_eq!(settled, [5, 6, 7, 9, 10, 11, 12, 13].map(|n| (n, "too old")));
    assert!(bench.lane.is_empty());
}

#[test]
fn an_endpoint_that_is_gone_settles_its_backlog_through_memory() {
    let mut bench = bench(|settings| settings.concurrency = number(1));
    bench.offer([event(0, 0)]);
    for n in 1..4 {
        bench.lane.offer(event(n, n), DeliveryPlace::Overflow, bench.time());
    }
    let lease = bench.leases().remove(0);
    bench.complete(&lease, &gone());
    bench.booked();
    assert_eq!(bench.lane.refill_room(bench.now), 3);
    bench.refill((1..4).map(|n| row(event(n, n), 1)).collect());
    assert_eq!(bench.booked().len(), 3);
    assert!(bench.lane.is_empty());
}
