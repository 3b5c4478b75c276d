//! One change of a running lane at a time.

use super::*;
use crate::config::settings::KeyOrdering;
use crate::config::settings::RetryDelays;
use crate::config::settings::RetrySettings;
use crate::flow::backlog::RefilledRow;
use crate::flow::park_reason::ParkReason;
use crate::lane::core::parking_tests::bench;
use crate::lane::core::parking_tests::row;
use crate::lane::core::parking_tests::standing;
use crate::lane::core::tests::Bench;
use crate::lane::core::tests::numbers;
use crate::lane::samples::delivered;
use crate::lane::samples::event;
use crate::lane::samples::event_until;
use crate::lane::samples::gone;
use crate::lane::samples::number;
use crate::lane::samples::retry;

impl Bench {
    fn reconfigure(&mut self, change: impl FnOnce(&mut LaneSettings)) {
        let mut settings = self.lane.settings.clone();
        change(&mut settings);
        let now = self.time();
        self.lane.reconfigure(settings, now);
    }

    fn disable(&mut self) {
        let now = self.time();
        self.lane.disable(now);
    }
}

#[test]
fn a_disabled_endpoint_gets_nothing_and_what_waits_is_parked_until_it_is_enabled() {
    let mut bench = bench(|settings| settings.concurrency = number(1));
    bench.offer([event(0, 1), event(1, 2)]);
    let leases = bench.leases();
    assert_eq!(numbers(&leases), [[0]]);
    bench.disable();
    assert_eq!(bench.parked(), [(1, ParkReason::Disabled)]);
    // It was on its way.
    bench.offer([event(2, 1)]);
    assert_eq!(bench.parked(), [(2, ParkReason::Disabled)]);
    bench.complete(&leases[0], &retry(None));
    assert_eq!(bench.parked(), [(0, ParkReason::Disabled)]);
    bench.pass(60_000);
    assert!(bench.leases().is_empty());
    assert_eq!(bench.lane.wake_at(bench.now), None, "nothing happens by itself");
    assert!(bench.lane.is_durable());
    bench.lane.enable();
    let again = bench.leases();
    assert_eq!((numbers(&again), again[0].attempt), (vec![vec![0]], 2));
    bench.complete(&again[0], &delivered());
    for _ in 0..2 {
        let next = bench.leases();
        bench.complete(&next[0], &delivered());
    }
    assert!(bench.lane.is_empty());
}

#[test]
fn a_paused_endpoint_parks_what_comes_and_keeps_to_the_limits_of_its_backlog() {
    let mut bench = bench(|settings| {
        let terms = &mut settings.parking.as_mut().unwrap().terms;
        terms.backlog.age = Duration::from_secs(3600);
    });
    bench.offer([event(0, 1), event_until(1, 2, 60)]);
    let flying = bench.leases();
    let now = bench.time();
    bench.lane.pause(now);
    bench.complete(&flying[0], &retry(None));
    bench.complete(&flying[1], &delivered());
    bench.offer([event_until(2, 3, 60), event(3, 4)]);
    let parked = [(0, "parked", 1), (1, "delivered", 1), (2, "parked", 0), (3, "parked", 0)];
    assert_eq!(bench.settled(), parked);
    assert!(bench.lane.is_durable() && bench.leases().is_empty());
    bench.pass(80_000);
    assert!(bench.leases().is_empty());
    bench.pass(20_000);
    assert!(bench.leases().is_empty());
    assert_eq!(bench.settled(), [(2, "expired", 0)]);
    bench.lane.resume();
    assert_eq!(numbers(&bench.leases()), [[0], [3]], "where they were");
    let now = bench.time();
    bench.lane.pause(now);
    bench.offer([event(4, 5)]);
    bench.pass(3_700_000);
    assert!(bench.leases().is_empty());
    bench.pass(20_000);
    assert!(bench.leases().is_empty());
    let dead: Vec<_> = bench.settled().into_iter().filter(|s| s.1 != "parked").collect();
    assert_eq!(dead, [(4, "too old", 0)]);
}

/// For an hour nothing is due; then the URL is corrected.
#[test]
fn what_waits_is_tried_at_once_and_begins_anew_when_it_is_told_to() {
    let mut bench = bench(|settings| {
        let delays = vec![Duration::from_secs(900), Duration::from_secs(3600)];
        settings.retry =
            RetrySettings { delays: RetryDelays::List(delays), cap: Duration::from_secs(3600) };
        settings.ordering = KeyOrdering::Strict;
    });
    bench.offer([event(0, 1), event(1, 1)]);
    let lease = bench.leases().remove(0);
    bench.complete(&lease, &retry(None));
    bench.pass(900_000);
    let lease = bench.leases().remove(0);
    assert_eq!(lease.attempt, 2);
    bench.complete(&lease, &retry(None));
    assert!(bench.leases().is_empty());
    bench.settled();
    let now = bench.time();
    bench.lane.try_now(now);
    assert_eq!(bench.settled(), [(0, "parked", 0)], "its row knows of it");
    let lease = bench.leases().remove(0);
    assert_eq!(lease.attempt, 1);
    assert_eq!(bench.complete(&lease, &retry(None)), Some(Duration::from_secs(900)));
    // Also what is in flight when it is told.
    bench.pass(900_000);
    let lease = bench.leases().remove(0);
    let now = bench.time();
    bench.lane.try_now(now);
    assert_eq!(bench.complete(&lease, &retry(None)), Some(Duration::ZERO));
    let lease = bench.leases().remove(0);
    assert_eq!(lease.attempt, 1);
    bench.complete(&lease, &delivered());
}

#[test]
fn a_try_at_once_reaches_what_waits_for_the_breaker_and_in_the_backlog() {
    let mut bench = bench(standing(1, 3));
    bench.offer((10..20).map(|n| event(n, n)));
    let due = Some(Timestamp::from_seconds(86_400));
    let late = RefilledRow { attempts: 4, due, ..row(event(3, 3), 1) };
    bench.refill(vec![late]);
    assert!(bench.leases().iter().all(|lease| lease.events[0].sequence != 3), "not for a day");
    let mut other = parking_tests::bench(standing(1, 3));
    other.offer([event(10, 1)]);
    let now = other.time();
    other.lane.try_now(now);
    let late = RefilledRow { attempts: 4, due, ..row(event(3, 3), 1) };
    other.refill(vec![late]);
    let leases = other.leases();
    assert!(leases.iter().any(|lease| lease.events[0].sequence == 3 && lease.attempt == 1));

    let mut out = parking_tests::bench(|_| ());
    out.offer((0..9).map(|n| event(n, n)));
    out.outage();
    assert!(out.leases().is_empty());
    let now = out.time();
    out.lane.try_now(now);
    let probes = out.leases();
    assert_eq!(probes.len(), 1, "a probe, before its time");
    out.complete(&probes[0], &delivered());
    assert_eq!(out.lane.breaker(out.now), BreakerState::Closed);
    assert_eq!(out.leases().len(), 2);
}

#[test]
fn what_waits_for_a_removed_endpoint_is_given_up_in_memory_and_in_the_backlog() {
    let mut bench = bench(standing(2, 1));
    bench.offer([event(5, 1)]);
    assert_eq!(bench.settled(), [(5, "parked", 0)]);
    assert_eq!(bench.lane.refill_room(bench.now), 3, "it has caught up");
    bench.lane.delete();
    bench.refill(vec![row(event(0, 1), 1), row(event(1, 2), 2)]);
    assert!(!bench.lane.is_empty(), "the one that is parked is to come");
    bench.refill(vec![row(event(5, 1), 3)]);
    assert_eq!(bench.settled(), [(0, "deleted", 0), (1, "deleted", 0), (5, "deleted", 0)]);
    assert!(bench.lane.is_deleted() && bench.lane.is_empty());
}

#[test]
fn a_removed_endpoint_gives_up_before_the_stream_has_caught_up() {
    let mut bench = bench(standing(1, 9));
    assert_eq!(bench.lane.refill_room(bench.now), 0);
    bench.lane.delete();
    bench.refill(vec![row(event(0, 1), 1)]);
    assert_eq!(bench.settled(), [(0, "deleted", 0)]);
}

#[test]
fn what_is_in_flight_when_an_endpoint_is_removed_has_its_own_outcome() {
    let mut bench = bench(|_| ());
    bench.offer([event(0, 1), event(1, 2), event(2, 1)]);
    let leases = bench.leases();
    bench.lane.delete();
    assert_eq!(bench.settled(), [(2, "deleted", 0)]);
    bench.complete(&leases[0], &delivered());
    assert!(!bench.lane.is_empty());
    bench.complete(&leases[1], &retry(None));
    assert_eq!(bench.settled(), [(0, "delivered", 1), (1, "deleted", 1)]);
    assert!(bench.lane.is_empty());
}

#[test]
fn an_endpoint_that_was_gone_is_tried_again_when_it_is_enabled_or_changed() {
    for enable in [true, false] {
        let mut bench = bench(|_| ());
        bench.offer([event(0, 1)]);
        let lease = bench.leases().remove(0);
        bench.complete(&lease, &gone());
        bench.offer([event(1, 1)]);
        assert_eq!(bench.settled(), [(0, "gone", 1), (1, "gone", 0)]);
        match enable {
            true => bench.lane.enable(),
            false => bench.reconfigure(|_| ()),
        }
        bench.offer([event(2, 1)]);
        assert_eq!(numbers(&bench.leases()), [[2]]);
    }
}

#[test]
fn another_concurrency_and_retry_policy_hold_from_the_next_request_on() {
    let mut bench = bench(|settings| settings.concurrency = number(1));
    bench.offer((0..4).map(|n| event(n, n)));
    assert_eq!(bench.leases().len(), 1);
    bench.reconfigure(|settings| settings.concurrency = number(3));
    let more = bench.leases();
    assert_eq!(numbers(&more), [[1], [2]]);
    bench.reconfigure(|settings| {
        settings.concurrency = number(1);
        settings.retry.delays = crate::config::settings::RetryDelays::List(Vec::new());
    });
    bench.complete(&more[0], &retry(None));
    assert_eq!(bench.settled(), [(1, "exhausted", 1)]);
    assert!(bench.leases().is_empty(), "two are in flight, and one may be");
}

#[test]
fn another_order_holds_for_what_waits_already() {
    let mut bench = bench(|settings| settings.concurrency = number(2));
    bench.offer([event(0, 1), event(1, 2), event(2, 2), event(3, 4), event(4, 2)]);
    let leases = bench.leases();
    assert_eq!(numbers(&leases), [[0], [1]]);
    bench.reconfigure(|settings| settings.ordering = KeyOrdering::Strict);
    assert_eq!(bench.parked().len(), 3, "they may wait for long");
    bench.complete(&leases[1], &delivered());
    assert!(bench.leases().is_empty(), "the first is in flight still");
    bench.complete(&leases[0], &delivered());
    let next = bench.leases();
    assert_eq!(numbers(&next), [[2]]);
    bench.reconfigure(|settings| settings.ordering = KeyOrdering::Key);
    assert_eq!(numbers(&bench.leases()), [[3]], "4 has the key of 2");
    bench.reconfigure(|settings| {
        (settings.ordering, settings.concurrency) = (KeyOrdering::None, number(9))
    });
    assert_eq!(numbers(&bench.leases()), [[4]]);
}

#[test]
fn what_comes_behind_a_replay_that_waits_for_something_parked_is_parked() {
    let mut bench = bench(|settings| settings.concurrency = number(1));
    bench.offer([event(0, 1), event(1, 1)]);
    let now = bench.time();
    bench.lane.replay(event(2, 1), ReplayId::Letter(7), now);
    let lease = bench.leases().remove(0);
    bench.disable();
    bench.complete(&lease, &retry(None));
    assert_eq!(bench.parked(), [(1, ParkReason::Disabled), (0, ParkReason::Disabled)]);
    bench.lane.enable();
    bench.offer([event(3, 1), event(4, 2)]);
    assert_eq!(bench.parked(), [(3, ParkReason::Behind)], "0 may wait for long");
}

#[test]
fn other_settings_leave_the_lane_its_share_of_memory() {
    let mut bench = bench(|settings| settings.share_bytes = 256);
    bench.offer([event(0, 1)]);
    bench.reconfigure(|settings| settings.share_bytes = usize::MAX);
    let lease = bench.leases().remove(0);
    bench.complete(&lease, &delivered());
    assert_eq!(bench.lane.take_freed().weight, 1, "as much as was taken when it came in");
}

#[test]
fn a_removed_endpoint_waits_for_rows_that_are_older_than_those_it_has_read() {
    let mut bench = bench(standing(2, 5));
    bench.offer([event(1, 1)]);
    assert_eq!(bench.settled(), [(1, "parked", 0)]);
    bench.lane.delete();
    let newer = || vec![row(event(4, 1), 1), row(event(5, 1), 2)];
    bench.refill(newer());
    assert_eq!(bench.settled(), [], "the row of 1 would be passed over");
    bench.pass(50);
    let mut all = newer();
    all.insert(0, row(event(1, 1), 3));
    bench.refill(all);
    assert_eq!(bench.settled(), [(1, "deleted", 0), (4, "deleted", 0), (5, "deleted", 0)]);
    assert!(bench.lane.is_empty());
}

#[test]
fn what_is_in_flight_when_the_order_changes_is_not_parked_behind_another() {
    let mut bench = bench(|settings| settings.ordering = KeyOrdering::None);
    bench.offer([event(0, 1), event(1, 1)]);
    let leases = bench.leases();
    bench.reconfigure(|settings| settings.ordering = KeyOrdering::Key);
    bench.offer([event(2, 1)]);
    bench.complete(&leases[0], &retry(Some(Duration::from_secs(30))));
    assert_eq!(bench.parked(), [(0, ParkReason::Retry), (2, ParkReason::Behind)]);
    bench.complete(&leases[1], &delivered());
    assert_eq!(bench.settled(), [(1, "delivered", 1)]);
}

#[test]
fn an_endpoint_that_is_gone_and_disabled_keeps_no_places_when_it_is_changed() {
    let mut bench = bench(|settings| settings.concurrency = number(1));
    bench.offer([event(0, 0)]);
    bench.lane.offer(event(1, 1), DeliveryPlace::Overflow, bench.time());
    let lease = bench.leases().remove(0);
    bench.disable();
    bench.complete(&lease, &gone());
    bench.settled();
    assert!(bench.lane.start_refill(1, bench.now).is_some(), "what is outside is given up");
    bench.reconfigure(|_| ());
    assert_eq!(bench.lane.reserved(), 0);
    let now = bench.time();
    bench.lane.refilled(vec![row(event(1, 1), 1)], now);
    assert_eq!((bench.settled(), bench.lane.counts().outside), (Vec::new(), 1));
}

#[test]
fn an_endpoint_that_was_gone_and_is_disabled_parks_what_arrives_once_it_is_changed() {
    let mut bench = bench(|settings| settings.concurrency = number(1));
    bench.offer([event(0, 0)]);
    for n in 1..4 {
        bench.lane.offer(event(n, n), DeliveryPlace::Overflow, bench.time());
    }
    let lease = bench.leases().remove(0);
    bench.complete(&lease, &gone());
    let now = bench.time();
    bench.lane.start_refill(3, bench.now).unwrap();
    bench.lane.refilled(vec![row(event(1, 1), 1)], now);
    assert!(bench.lane.is_taking(), "the seam is closing");
    bench.disable();
    bench.reconfigure(|_| ());
    bench.settled();
    bench.offer([event(4, 4)]);
    assert_eq!(bench.parked(), [(4, ParkReason::Disabled)]);
}
