//! One rule of the lane at a time. What must hold for all of them together is in `model`.

use super::*;
use crate::config::settings::BatchSettings;
use crate::config::settings::KeyOrdering;
use crate::config::settings::RetryDelays;
use crate::config::settings::RetrySettings;
use crate::flow::dead_letter_reason::DeathReason;
use crate::flow::key::EventKeys;
use crate::flow::key::KeyHash;
use crate::flow::verdict::HttpExchange;
use crate::lane::samples::delivered;
use crate::lane::samples::event;
use crate::lane::samples::event_of;
use crate::lane::samples::event_until;
use crate::lane::samples::gone;
use crate::lane::samples::number;
use crate::lane::samples::rejected;
use crate::lane::samples::retry;
use crate::lane::samples::settings;

/// A lane whose two clocks tick together, and whose random numbers are always in the middle.
pub(super) struct Bench {
    pub(super) lane: LaneState,
    start: Instant,
    pub(super) now: Instant,
}

impl Bench {
    pub(super) fn new(change: impl FnOnce(&mut LaneSettings)) -> Self {
        let mut settings = settings();
        change(&mut settings);
        let start = Instant::now();
        Self { lane: LaneState::new(settings), start, now: start }
    }

    pub(super) fn offer(&mut self, events: impl IntoIterator<Item = Arc<Event>>) {
        let now = self.time();
        events.into_iter().for_each(|event| self.lane.offer(event, DeliveryPlace::Own, now));
    }

    pub(super) fn pass(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
    }

    /// All leases that may start now.
    pub(super) fn leases(&mut self) -> Vec<Lease> {
        let now = self.time();
        self.lane.tick(now);
        std::iter::from_fn(|| self.lane.lease(now)).collect()
    }

    pub(super) fn time(&self) -> LaneNow {
        let passed = self.now.duration_since(self.start).as_micros();
        let database = Timestamp::from_micros(i64::try_from(passed).unwrap());
        LaneNow { instant: self.now, database }
    }

    pub(super) fn complete(&mut self, lease: &Lease, exchange: &HttpExchange) -> Option<Duration> {
        let now = self.time();
        self.lane.complete(lease.id, exchange, now, 0.5)
    }

    /// What was settled since the last call: the events' numbers, outcomes and attempts.
    pub(super) fn settled(&mut self) -> Vec<(u64, &'static str, u32)> {
        let named = |settlement: Settlement| {
            let outcome = match settlement.outcome {
                DeliveryOutcome::Delivered { .. } => "delivered",
                DeliveryOutcome::Expired => "expired",
                DeliveryOutcome::Filtered => "filtered",
                DeliveryOutcome::Dead { reason: DeathReason::RetriesExhausted(_) } => "exhausted",
                DeliveryOutcome::Dead { reason: DeathReason::Rejected(_) } => "rejected",
                DeliveryOutcome::Dead { reason: DeathReason::EndpointGone } => "gone",
                DeliveryOutcome::Dead { reason: DeathReason::EndpointDeleted } => "deleted",
                DeliveryOutcome::Dead { reason: DeathReason::BacklogFull } => "full",
                DeliveryOutcome::Dead { reason: DeathReason::BacklogTooOld } => "too old",
                DeliveryOutcome::Dead { reason: DeathReason::Poison(_) } => "poison",
                DeliveryOutcome::Parked { .. } => "parked",
            };
            (settlement.event.sequence, outcome, settlement.attempts)
        };
        self.lane.take_settled().into_iter().map(named).collect()
    }
}

pub(super) fn numbers(leases: &[Lease]) -> Vec<Vec<u64>> {
    leases.iter().map(|lease| lease.events.iter().map(|event| event.sequence).collect()).collect()
}

fn batches(size: usize, linger_ms: u64) -> impl FnOnce(&mut LaneSettings) {
    move |settings| {
        settings.batch =
            BatchSettings { size: number(size), linger: Duration::from_millis(linger_ms) };
    }
}

#[test]
fn a_failing_key_holds_back_only_itself() {
    let mut bench = Bench::new(|_| ());
    bench.offer([event(0, 7), event(1, 7), event(2, 8)]);
    let leases = bench.leases();
    assert_eq!(numbers(&leases), [[0], [2]]);
    bench.complete(&leases[0], &retry(None));
    bench.complete(&leases[1], &delivered());
    bench.offer([event(3, 8)]);
    assert_eq!(numbers(&bench.leases()), [[3]]);
    bench.pass(1000);
    let again = bench.leases();
    assert_eq!((numbers(&again), again[0].attempt), (vec![vec![0]], 2));
    bench.complete(&again[0], &delivered());
    assert_eq!(numbers(&bench.leases()), [[1]]);
    assert_eq!(bench.settled(), [(2, "delivered", 1), (0, "delivered", 2)]);
}

#[test]
fn an_event_with_two_keys_follows_and_precedes_both() {
    let mut bench = Bench::new(|_| ());
    let moved = event_of(2, EventKeys::both(KeyHash::from_raw(1), KeyHash::from_raw(2)), None);
    bench.offer([event(0, 1), event(1, 2), moved, event(3, 1), event(4, 2)]);
    let first = bench.leases();
    assert_eq!(numbers(&first), [[0], [1]]);
    bench.complete(&first[1], &delivered());
    assert!(bench.leases().is_empty(), "the other key's event is still in flight");
    bench.complete(&first[0], &delivered());
    let both = bench.leases();
    assert_eq!(numbers(&both), [[2]]);
    bench.complete(&both[0], &delivered());
    assert_eq!(numbers(&bench.leases()), [[3], [4]]);
}

#[test]
fn a_barrier_follows_all_that_came_before_and_precedes_all_that_comes_after() {
    let mut bench = Bench::new(|settings| settings.concurrency = number(8));
    let barrier = |sequence| event_of(sequence, EventKeys::BARRIER, None);
    bench.offer([event(0, 1), event(1, 2), barrier(2), event(3, 1), event(4, 9), barrier(5)]);
    bench.offer([event(6, 3)]);
    let first = bench.leases();
    assert_eq!(numbers(&first), [[0], [1]]);
    bench.complete(&first[1], &delivered());
    bench.complete(&first[0], &retry(None));
    assert!(bench.leases().is_empty(), "what is sent again is still ahead");
    bench.pass(1000);
    let again = bench.leases();
    bench.complete(&again[0], &delivered());
    let between = bench.leases();
    assert_eq!(numbers(&between), [[2]]);
    bench.complete(&between[0], &retry(None));
    assert!(bench.leases().is_empty(), "nothing passes a barrier that failed");
    bench.pass(2000);
    let between = bench.leases();
    assert_eq!(numbers(&between), [[2]]);
    bench.complete(&between[0], &delivered());
    let after = bench.leases();
    assert_eq!(numbers(&after), [[3], [4]]);
    bench.complete(&after[0], &delivered());
    assert!(bench.leases().is_empty());
    bench.complete(&after[1], &rejected());
    let last = bench.leases();
    assert_eq!(numbers(&last), [[5]]);
    bench.complete(&last[0], &delivered());
    assert_eq!(numbers(&bench.leases()), [[6]]);
}

#[test]
fn a_batch_holds_what_stands_on_both_sides_of_a_barrier_in_order() {
    let mut bench = Bench::new(|settings| {
        settings.batch = BatchSettings { size: number(5), linger: Duration::ZERO };
    });
    let barrier = |sequence| event_of(sequence, EventKeys::BARRIER, None);
    bench.offer([event(0, 1), event(1, 2), barrier(2), event(3, 1), event(4, 9), event(5, 1)]);
    let leases = bench.leases();
    assert_eq!(numbers(&leases), [vec![0, 1, 2, 3, 4]]);
    assert!(bench.leases().is_empty());
    bench.complete(&leases[0], &delivered());
    assert_eq!(numbers(&bench.leases()), [[5]]);
}

#[test]
fn strict_order_is_one_key_and_no_order_is_none() {
    let mut strict = Bench::new(|settings| settings.ordering = KeyOrdering::Strict);
    strict.offer([event(0, 1), event(1, 2)]);
    assert_eq!(numbers(&strict.leases()), [[0]]);
    let mut free = Bench::new(|settings| settings.ordering = KeyOrdering::None);
    free.offer([event(0, 1), event(1, 1)]);
    assert_eq!(numbers(&free.leases()), [[0], [1]]);
}

#[test]
fn an_event_that_waited_too_long_is_settled_without_an_attempt_and_frees_its_key() {
    let mut bench = Bench::new(|settings| settings.concurrency = number(1));
    bench.offer([event(0, 1), event_until(1, 2, 5), event(2, 2)]);
    let first = bench.leases();
    bench.pass(5000);
    assert_eq!(bench.settled(), [], "expiry is decided right before an attempt");
    bench.pass(1);
    bench.complete(&first[0], &delivered());
    assert_eq!(numbers(&bench.leases()), [[2]]);
    assert_eq!(bench.settled(), [(0, "delivered", 1), (1, "expired", 0)]);
}

#[test]
fn a_retry_that_comes_too_late_is_not_made() {
    let mut bench = Bench::new(|_| ());
    bench.offer([event_until(0, 1, 1)]);
    let lease = bench.leases().remove(0);
    bench.pass(500);
    assert_eq!(bench.complete(&lease, &retry(None)), Some(Duration::from_secs(1)));
    bench.pass(1000);
    assert!(bench.leases().is_empty());
    assert_eq!(bench.settled(), [(0, "expired", 1)]);
    assert!(bench.lane.is_empty());
}

#[test]
fn retries_end_with_the_policy_and_refusals_at_once() {
    let mut bench = Bench::new(|settings| {
        let delays = RetryDelays::List(vec![Duration::from_secs(10), Duration::from_secs(30)]);
        settings.retry = RetrySettings { delays, cap: Duration::from_secs(60) };
    });
    bench.offer([event(0, 1)]);
    for wait in [10_000, 30_000] {
        let lease = bench.leases().remove(0);
        assert_eq!(bench.complete(&lease, &retry(None)), Some(Duration::from_millis(wait)));
        assert_eq!(bench.lane.wake_at(bench.now), Some(bench.now + Duration::from_millis(wait)));
        bench.pass(wait - 1);
        assert!(bench.leases().is_empty());
        bench.pass(1);
    }
    let last = bench.leases().remove(0);
    assert_eq!(bench.complete(&last, &retry(None)), None);
    bench.offer([event(1, 1)]);
    let refused = bench.leases().remove(0);
    assert_eq!(bench.complete(&refused, &rejected()), None);
    assert_eq!(bench.settled(), [(0, "exhausted", 3), (1, "rejected", 1)]);
}

#[test]
fn a_receiver_can_ask_for_a_longer_wait() {
    let mut bench = Bench::new(|_| ());
    bench.offer([event(0, 1)]);
    let lease = bench.leases().remove(0);
    let wait = bench.complete(&lease, &retry(Some(Duration::from_secs(20))));
    assert_eq!(wait, Some(Duration::from_secs(21)));
}

#[test]
fn an_endpoint_that_is_gone_settles_everything_now_and_later() {
    let mut bench = Bench::new(|settings| settings.concurrency = number(3));
    bench.offer([event(0, 1), event(1, 2), event(2, 3), event(3, 1), event(4, 4)]);
    let leases = bench.leases();
    bench.complete(&leases[0], &retry(None));
    bench.complete(&leases[1], &gone());
    assert!(bench.lane.is_gone());
    let expected = [(1, "gone", 1), (0, "gone", 1), (3, "gone", 0), (4, "gone", 0)];
    assert_eq!(bench.settled(), expected);
    bench.offer([event(5, 9)]);
    bench.complete(&leases[2], &delivered());
    assert_eq!(bench.settled(), [(5, "gone", 0), (2, "delivered", 1)]);
    assert!(bench.leases().is_empty());
    assert_eq!((bench.lane.is_empty(), bench.lane.wake_at(bench.now)), (true, None));
}

#[test]
fn a_stopped_lane_starts_nothing_and_leaves_the_rest_unsettled() {
    let mut bench = Bench::new(|settings| settings.concurrency = number(3));
    bench.offer([event(0, 1), event(1, 2), event(2, 3), event(3, 4)]);
    let leases = bench.leases();
    bench.lane.stop();
    bench.complete(&leases[0], &delivered());
    bench.complete(&leases[1], &retry(None));
    bench.complete(&leases[2], &gone());
    bench.pass(60_000);
    assert!(bench.leases().is_empty());
    assert_eq!(bench.settled(), [(0, "delivered", 1), (2, "gone", 1)]);
    let left = LaneCounts { queued: 1, retrying: 1, ..LaneCounts::default() };
    assert_eq!((bench.lane.counts(), bench.lane.wake_at(bench.now)), (left, None));
}

#[test]
fn retries_and_fresh_events_take_turns() {
    let mut bench = Bench::new(|settings| settings.concurrency = number(2));
    bench.offer([event(0, 0), event(1, 1)]);
    let failed = bench.leases();
    failed.iter().for_each(|lease| assert!(bench.complete(lease, &retry(None)).is_some()));
    bench.offer([event(2, 2), event(3, 3)]);
    bench.pass(1000);
    let mixed = bench.leases();
    assert_eq!(numbers(&mixed), [[0], [2]]);
    mixed.iter().for_each(|lease| assert!(bench.complete(lease, &delivered()).is_none()));
    assert_eq!(numbers(&bench.leases()), [[1], [3]]);
}

#[test]
fn after_an_outage_the_requests_in_flight_start_again_from_one() {
    let mut bench = Bench::new(|_| ());
    bench.offer((0..4).map(|n| event(n, n)));
    for lease in bench.leases() {
        bench.complete(&lease, &retry(None));
    }
    assert!(bench.lane.is_slowed());
    bench.offer((4..20).map(|n| event(n, n)));
    for expected in [1, 2, 4, 4] {
        let leases = bench.leases();
        assert_eq!(leases.len(), expected);
        leases.iter().for_each(|lease| assert!(bench.complete(lease, &delivered()).is_none()));
    }
    assert!(!bench.lane.is_slowed());
}

#[test]
fn a_batch_waits_for_others_until_it_is_full_or_has_lingered() {
    let mut bench = Bench::new(batches(3, 50));
    bench.offer([event(0, 1)]);
    assert!(bench.leases().is_empty());
    assert_eq!(bench.lane.wake_at(bench.now), Some(bench.now + Duration::from_millis(50)));
    bench.pass(20);
    bench.offer([event(1, 1)]);
    assert!(bench.leases().is_empty());
    bench.offer([event(2, 2), event(3, 3)]);
    assert_eq!(numbers(&bench.leases()), [[0, 1, 2]]);
    assert_eq!(bench.lane.wake_at(bench.now), Some(bench.now + Duration::from_millis(50)));
    bench.pass(50);
    assert_eq!(numbers(&bench.leases()), [[3]]);
}

#[test]
fn a_batch_waits_for_nothing_that_is_not_on_its_way() {
    let mut bench = Bench::new(batches(3, 50));
    bench.offer([event(0, 1)]);
    assert!(bench.leases().is_empty(), "more may come");
    bench.lane.rest();
    assert_eq!(bench.lane.wake_at(bench.now), Some(bench.now));
    let first = bench.leases();
    assert_eq!(numbers(&first), [[0]]);
    // What comes while it is on its way gathers, until the answer is there or it has lingered.
    bench.offer([event(1, 2)]);
    bench.lane.rest();
    assert!(bench.leases().is_empty());
    bench.pass(20);
    bench.offer([event(2, 3)]);
    bench.lane.rest();
    bench.complete(&first[0], &delivered());
    let second = bench.leases();
    assert_eq!(numbers(&second), [[1, 2]]);
    bench.offer([event(3, 4)]);
    bench.lane.rest();
    bench.pass(50);
    assert_eq!(numbers(&bench.leases()), [[3]]);
}

#[test]
fn a_lane_that_gets_no_more_events_lets_no_batch_wait() {
    let mut bench = Bench::new(batches(3, 50));
    bench.offer([event(0, 1)]);
    assert!(bench.leases().is_empty());
    let now = bench.time();
    bench.lane.close(now);
    assert_eq!(bench.lane.wake_at(bench.now), Some(bench.now));
    assert_eq!(numbers(&bench.leases()), [[0]]);
}

#[test]
fn one_key_can_fill_a_batch_and_then_waits_for_its_outcome() {
    let mut bench = Bench::new(batches(2, 0));
    bench.offer([event(0, 1), event(1, 1), event(2, 1), event(3, 2)]);
    let leases = bench.leases();
    assert_eq!(numbers(&leases), [vec![0, 1], vec![3]], "2 waits for its key");
    bench.complete(&leases[0], &delivered());
    assert_eq!(numbers(&bench.leases()), [[2]]);
    assert_eq!(bench.settled(), [(0, "delivered", 1), (1, "delivered", 1)]);
}

#[test]
fn a_refused_batch_is_sent_again_event_by_event_and_loses_only_the_culprit() {
    let mut bench = Bench::new(batches(4, 0));
    // 1 and 3 are of one key.
    bench.offer([event(0, 7), event(1, 8), event(2, 9), event(3, 8)]);
    let [batch] = bench.leases().try_into().unwrap();
    assert_eq!(batch.events.len(), 4);
    assert_eq!(bench.complete(&batch, &rejected()), Some(Duration::ZERO));
    assert_eq!(bench.settled(), []);
    let of = |lease: &Lease| lease.events.iter().map(|event| event.sequence).collect::<Vec<_>>();
    let mut alone = bench.leases();
    alone.sort_by_key(of);
    assert_eq!(alone.iter().map(of).collect::<Vec<_>>(), [[0], [1], [2]]);
    bench.complete(&alone[0], &delivered());
    bench.complete(&alone[1], &rejected());
    bench.complete(&alone[2], &retry(None));
    assert_eq!(bench.settled(), [(0, "delivered", 2), (1, "rejected", 2)]);
    let [last] = bench.leases().try_into().unwrap();
    assert_eq!((of(&last), last.attempt), (vec![3], 2));
    bench.complete(&last, &delivered());
    assert_eq!(bench.settled(), [(3, "delivered", 2)]);
}

#[test]
fn what_is_said_of_the_endpoint_is_believed_of_the_whole_batch() {
    let mut bench = Bench::new(batches(2, 0));
    bench.offer([event(0, 7), event(1, 8)]);
    let [batch] = bench.leases().try_into().unwrap();
    let unauthorized = HttpExchange { status: Some(401), ..rejected() };
    assert_eq!(bench.complete(&batch, &unauthorized), None);
    assert_eq!(bench.settled(), [(0, "rejected", 1), (1, "rejected", 1)]);
}

#[test]
fn an_event_that_expired_leaves_no_gap_in_a_batch() {
    let mut bench = Bench::new(|settings| {
        batches(2, 0)(settings);
        settings.concurrency = number(1);
    });
    bench.offer([event(0, 9)]);
    let first = bench.leases();
    bench.offer([event(1, 1), event_until(2, 1, 1), event(3, 1)]);
    bench.pass(2000);
    bench.complete(&first[0], &delivered());
    assert_eq!(numbers(&bench.leases()), [[1, 3]]);
}

#[test]
fn a_retried_batch_loses_only_what_expired_and_still_holds_its_keys() {
    let mut bench = Bench::new(batches(4, 0));
    bench.offer([event(0, 1), event_until(1, 1, 1), event_until(2, 2, 1), event(3, 3)]);
    let lease = bench.leases().remove(0);
    bench.offer([event(4, 1), event(5, 2)]);
    bench.pass(500);
    bench.complete(&lease, &retry(None));
    bench.pass(1000);
    let leases = bench.leases();
    // Key 2 has become free with its event; key 1 still stands behind event 0.
    assert_eq!(numbers(&leases), [vec![0, 3], vec![5]]);
    assert_eq!((leases[0].attempt, leases[1].attempt), (2, 1));
    bench.complete(&leases[0], &rejected());
    let leases = bench.leases();
    assert_eq!(numbers(&leases), [[0], [3]]);
    for lease in leases {
        bench.complete(&lease, &rejected());
    }
    assert_eq!(numbers(&bench.leases()), [[4]]);
    let expected = [(1, "expired", 1), (2, "expired", 1), (0, "rejected", 3), (3, "rejected", 3)];
    assert_eq!(bench.settled(), expected);
}

#[test]
fn a_rate_limit_spaces_requests_and_says_when_the_next_may_start() {
    let mut bench = Bench::new(|settings| settings.rate_limit = Some(10.0));
    bench.offer((0..3).map(|n| event(n, n)));
    assert_eq!(bench.leases().len(), 1);
    let wake = bench.lane.wake_at(bench.now).unwrap();
    assert_eq!(wake.duration_since(bench.now), Duration::from_millis(90));
    bench.pass(89);
    assert!(bench.leases().is_empty());
    bench.pass(1);
    assert_eq!(bench.leases().len(), 1);
}
