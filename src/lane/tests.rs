//! The running lane, on a paused clock: time passes only while everything waits.

mod cell;
mod live;
mod many;

use std::sync::Mutex;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::settings::BatchSettings;
use crate::flow::lease::Lease;
use crate::flow::report_queue::ReportReceiver;
use crate::flow::report_queue::report_queue;
use crate::flow::settlement::DeliveryOutcome;
use crate::flow::settlement::EndpointIndex;
use crate::flow::time::Timestamp;
use crate::flow::verdict::HttpExchange;
use crate::lane::core::counts::LaneCounts;
use crate::lane::error::QueueError;
use crate::lane::samples::SampleServices;
use crate::lane::samples::delivered;
use crate::lane::samples::event;
use crate::lane::samples::event_until;
use crate::lane::samples::gone;
use crate::lane::samples::number;
use crate::lane::samples::retry;
use crate::lane::samples::settings;
use crate::lane::task::ATTEMPTS_HELD_MAX;
use crate::lane::task::WorkEnd;

const SECOND: Duration = Duration::from_secs(1);

/// For reports that the ledger has not taken, less than there is in use.
const QUEUE_ROOM: u16 = 256;

/// What the receiver saw: milliseconds since the start, and the events' numbers.
type Seen = Arc<Mutex<Vec<(u128, Vec<u64>)>>>;

/// A lane that runs, a receiver that books what it gets, and a ledger's end of the channel.
struct Running {
    sender: LaneSender,
    reports: ReportReceiver,
    seen: Seen,
    stop: CancellationToken,
    tasks: JoinSet<Result<(), QueueError>>,
}

impl Running {
    /// `reply` answers an attempt after the given time.
    fn start(
        settings: LaneSettings,
        reply: impl Fn(&Lease) -> (Duration, HttpExchange) + Send + Sync + 'static,
    ) -> Self {
        let (sender, task) = open(settings);
        let (outcomes, reports) = report_queue(QUEUE_ROOM);
        let (stop, seen) = (CancellationToken::new(), Seen::default());
        let mut tasks = JoinSet::new();
        let start = Instant::now();
        let (book, token) = (Arc::clone(&seen), stop.clone());
        let attempt = move |lease: Lease| {
            let (takes, exchange) = reply(&lease);
            let events = lease.events.iter().map(|event| event.sequence).collect();
            book.lock().unwrap().push((start.elapsed().as_millis(), events));
            async move {
                tokio::time::sleep(takes).await;
                (lease, exchange)
            }
        };
        let services = SampleServices::new(attempt);
        tasks.spawn(async move { task.run(&services, outcomes, token).await });
        Self { sender, reports, seen, stop, tasks }
    }

    /// Takes reports until so many events are settled; their numbers in order.
    async fn settled(&mut self, count: usize) -> Vec<u64> {
        let mut settled = Vec::new();
        while settled.len() < count {
            let report = self.reports.recv().await.expect("the lane ended early");
            settled.extend(report.settlements.iter().map(|settled| settled.event.sequence));
        }
        settled
    }

    fn seen(&self) -> Vec<(u128, Vec<u64>)> {
        self.seen.lock().unwrap().clone()
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_key_delays_no_other() {
    let mut running = Running::start(settings(), |lease| match lease.events[0].sequence {
        0 if lease.attempt < 3 => (Duration::ZERO, retry(None)),
        _ => (Duration::ZERO, delivered()),
    });
    running.sender.send((0..6).map(|n| event(n, n % 2)).collect()).await.unwrap();
    assert_eq!(running.settled(6).await, [1, 3, 5, 0, 2, 4]);
    let seen = running.seen();
    let healthy = seen.iter().filter(|(_, events)| events[0] % 2 == 1);
    assert!(healthy.into_iter().all(|(at, _)| *at < 5), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn a_retry_comes_when_the_receiver_asked_for_it_and_is_reported() {
    let mut running = Running::start(settings(), |lease| match lease.attempt {
        1 => (SECOND, retry(Some(20 * SECOND))),
        _ => (SECOND, delivered()),
    });
    running.sender.send(vec![event(0, 1)]).await.unwrap();
    let first = running.reports.recv().await.unwrap();
    let attempt = &first.attempts[0];
    assert_eq!((attempt.lease.attempt, attempt.finished), (1, Timestamp::from_seconds(1)));
    assert!(first.settlements.is_empty());
    let wait = attempt.retry_in.unwrap().as_millis();
    assert!((20_000..=22_000).contains(&wait), "{wait}");
    let last = running.reports.recv().await.unwrap();
    assert_eq!((last.attempts[0].lease.attempt, last.attempts[0].retry_in), (2, None));
    assert_eq!(last.settlements[0].attempts, 2);
    let again = running.seen()[1].0;
    assert!((1000 + wait..=1002 + wait).contains(&again), "{again} after a wait of {wait}");
}

#[tokio::test(start_paused = true)]
async fn a_batch_goes_when_it_is_full_or_has_lingered() {
    let batch = BatchSettings { size: number(3), linger: Duration::from_millis(100) };
    let settings = LaneSettings { batch, ..settings() };
    let mut running = Running::start(settings, |_| (Duration::ZERO, delivered()));
    tokio::time::sleep(SECOND).await;
    running.sender.send((0..4).map(|n| event(n, n)).collect()).await.unwrap();
    assert_eq!(running.settled(4).await, [0, 1, 2, 3]);
    let seen = running.seen();
    assert_eq!(seen[0], (1000, vec![0, 1, 2]));
    assert_eq!(seen[1].1, [3]);
    assert!((1100..=1102).contains(&seen[1].0), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn requests_keep_to_the_rate_limit() {
    let settings = LaneSettings { rate_limit: Some(100.0), concurrency: number(50), ..settings() };
    let mut running = Running::start(settings, |_| (SECOND, delivered()));
    running.sender.send((0..50).map(|n| event(n, n)).collect()).await.unwrap();
    running.settled(50).await;
    let last = running.seen().last().unwrap().0;
    assert!((470..=500).contains(&last), "50 requests at 100 a second took {last} ms");
}

#[tokio::test(start_paused = true)]
async fn sending_waits_while_the_lane_is_full_and_then_goes_on() {
    let settings = LaneSettings { capacity: number(4), concurrency: number(1), ..settings() };
    let mut running = Running::start(settings, |_| (SECOND, delivered()));
    let gauges = running.sender.view();
    let sent = running.sender.send((0..10).map(|n| event(n, 1)).collect());
    let mut sent = std::pin::pin!(sent);
    let waited = tokio::time::timeout(Duration::from_millis(500), &mut sent).await;
    assert!(waited.is_err(), "ten events do not fit into four places");
    assert_eq!(gauges.counts(), LaneCounts { queued: 3, in_flight: 1, ..LaneCounts::default() });
    let mut settled = Vec::new();
    let mut is_sent = false;
    while settled.len() < 10 {
        tokio::select! {
            biased; // the report that makes room comes before what the room is used for
            report = running.reports.recv() => {
                let report = report.unwrap();
                settled.extend(report.settlements.iter().map(|settled| settled.event.sequence));
            }
            outcome = &mut sent, if !is_sent => {
                outcome.unwrap();
                is_sent = true;
                assert!(settled.len() >= 6, "sent when only {settled:?} were settled");
            }
        }
        let LaneCounts { queued, in_flight, .. } = gauges.counts();
        assert!(queued + in_flight <= 4);
    }
    assert_eq!(settled, (0..10).collect::<Vec<u64>>());
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_what_is_in_flight_and_starts_nothing() {
    let settings = LaneSettings { capacity: number(8), ..settings() };
    let mut running = Running::start(settings, |lease| match lease.events[0].sequence {
        0 => (10 * SECOND, delivered()),
        1 => (SECOND, retry(None)),
        _ => (5 * SECOND, delivered()),
    });
    let stop = running.stop.clone();
    let send = running.sender.send((0..20).map(|n| event(n, n % 4)).collect());
    let cancel = async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        stop.cancel();
    };
    let start = Instant::now();
    let (sent, ()) = tokio::join!(send, cancel);
    assert!(start.elapsed() < 2 * SECOND, "the sender waits for what is in flight");
    assert!(matches!(sent, Err(QueueError::LaneEnded { .. })), "{sent:?}");
    assert!(running.sender.send(vec![event(99, 9)]).await.is_err());
    assert_eq!(running.settled(3).await, [2, 3, 0]);
    assert_eq!(running.reports.recv().await.map(|report| report.settlements.len()), None);
    running.tasks.join_next().await.unwrap().unwrap().unwrap();
    assert!(running.seen().iter().all(|(at, _)| *at == 0), "{:?}", running.seen());
}

#[tokio::test(start_paused = true)]
async fn a_lane_whose_input_closed_settles_everything_and_ends() {
    let running = Running::start(settings(), |lease| match lease.attempt {
        1 => (SECOND, retry(None)),
        _ => (SECOND, delivered()),
    });
    running.sender.send((0..9).map(|n| event(n, n)).collect()).await.unwrap();
    let Running { sender, mut reports, mut tasks, .. } = running;
    drop(sender);
    let mut settled = 0;
    while let Some(report) = reports.recv().await {
        settled += report.settlements.len();
    }
    assert_eq!(settled, 9);
    tasks.join_next().await.unwrap().unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_slow_ledger_stops_the_leasing_but_not_what_is_in_flight() {
    let settings = LaneSettings { capacity: number(1000), ..settings() };
    let mut running = Running::start(settings, |_| (Duration::ZERO, delivered()));
    running.sender.send((0..1000).map(|n| event(n, n)).collect()).await.unwrap();
    tokio::time::sleep(SECOND).await;
    // The queue is full, and one more report waits with all that was in flight.
    let most = usize::from(QUEUE_ROOM) + ATTEMPTS_HELD_MAX + 4;
    let made = running.seen().len();
    assert!((ATTEMPTS_HELD_MAX..=most).contains(&made), "{made} attempts");
    assert_eq!(running.sender.view().counts().in_flight, 0);
    assert_eq!(running.settled(1000).await.len(), 1000);
}

#[tokio::test(start_paused = true)]
async fn what_has_ended_gathers_while_more_is_in_flight_and_not_longer_than_a_moment() {
    let settings = LaneSettings { concurrency: number(100), ..settings() };
    // One ends at once, a second within a moment, many together later, and two much later.
    let takes = |number| match number {
        0 => Duration::ZERO,
        1 => Duration::from_micros(500),
        2..50 => SECOND,
        _ => 10 * SECOND,
    };
    let mut running =
        Running::start(settings, move |lease| (takes(lease.events[0].sequence), delivered()));
    let begun = Instant::now();
    running.sender.send((0..52).map(|n| event(n, n)).collect()).await.unwrap();
    let mut came = Vec::new();
    while came.len() < 3 {
        let report = running.reports.recv().await.unwrap();
        came.push((report.settlements.len(), begun.elapsed().as_millis()));
    }
    // The timer has steps of a millisecond, and one more where it is between two.
    let [first, many, last] = came[..] else { panic!("{came:?}") };
    assert_eq!((first.0, many.0, last.0), (2, 48, 2), "{came:?}");
    assert!((1..=3).contains(&first.1), "{came:?}");
    assert!((1000..=1001).contains(&many.1), "so many do not wait: {came:?}");
    assert!((10_000..=10_001).contains(&last.1), "nor what leaves nothing in flight: {came:?}");
}

#[tokio::test(start_paused = true)]
async fn without_a_ledger_the_lane_ends_with_an_error() {
    let mut running = Running::start(settings(), |_| (Duration::ZERO, delivered()));
    drop(running.reports);
    running.sender.send(vec![event(0, 1)]).await.unwrap();
    let ended = running.tasks.join_next().await.unwrap().unwrap();
    assert!(matches!(ended, Err(QueueError::LedgerEnded { .. })), "{ended:?}");
    assert!(running.sender.send(vec![event(1, 1)]).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_gone_is_shown_and_gets_nothing_more() {
    let settings = LaneSettings { concurrency: number(1), ..settings() };
    let mut running = Running::start(settings, |_| (Duration::ZERO, gone()));
    running.sender.send((0..3).map(|n| event(n, n)).collect()).await.unwrap();
    assert_eq!(running.settled(3).await, [0, 1, 2]);
    running.sender.send(vec![event(3, 3)]).await.unwrap();
    assert_eq!(running.settled(1).await, [3]);
    assert!(running.sender.view().is_gone());
    assert_eq!(running.seen().len(), 1);
    assert_eq!(running.sender.view().counts(), LaneCounts::default());
}

#[tokio::test(start_paused = true)]
async fn an_event_expires_on_the_databases_clock() {
    let settings = LaneSettings { concurrency: number(1), ..settings() };
    let mut running = Running::start(settings, |_| (3 * SECOND, delivered()));
    running.sender.send(vec![event(0, 0), event_until(1, 1, 2)]).await.unwrap();
    let mut outcomes = Vec::new();
    while outcomes.len() < 2 {
        let report = running.reports.recv().await.unwrap();
        outcomes.extend(report.settlements.into_iter().map(|settled| settled.outcome));
    }
    assert!(
        matches!(outcomes[..], [DeliveryOutcome::Delivered { .. }, DeliveryOutcome::Expired]),
        "{outcomes:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_lane_with_nothing_to_do_is_dormant_until_there_is_some() {
    let (sender, mut task) = open(settings());
    let (outcomes, mut reports) = report_queue(QUEUE_ROOM);
    let (stop, start) = (CancellationToken::new(), Instant::now());
    let services = SampleServices::new(|lease: Lease| async move {
        tokio::time::sleep(SECOND).await;
        (lease, delivered())
    });
    for round in 0..2 {
        let wait = tokio::time::timeout(1000 * SECOND, task.wait_for_work(&services, &stop));
        assert!(wait.await.is_err(), "round {round}");
        // What only changes the lane leaves it as it is.
        sender.control().change(message::LaneChange::Pause).await.unwrap();
        sender.control().change(message::LaneChange::Resume).await.unwrap();
        sender.caught_up().await.unwrap();
        let wait = tokio::time::timeout(1000 * SECOND, task.wait_for_work(&services, &stop));
        assert!(wait.await.is_err(), "round {round}");
        sender.send(vec![event(round, 1)]).await.unwrap();
        let sent = start.elapsed();
        task.wait_for_work(&services, &stop).await;
        let end = task.work(&services, &outcomes, &stop).await;
        assert_eq!(end.unwrap(), WorkEnd::Dormant, "round {round}");
        assert!(start.elapsed() - sent >= 61 * SECOND, "connections are kept for a minute");
        let report = reports.recv().await.unwrap();
        assert_eq!(report.settlements[0].event.sequence, round);
    }
    drop(sender);
    task.wait_for_work(&services, &stop).await;
    let end = task.work(&services, &outcomes, &stop).await;
    assert_eq!(end.unwrap(), WorkEnd::Over, "nothing more comes");
}
