//! The running lane beside a backlog that commits late, on a paused clock.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::settings;
use crate::flow::backlog::BacklogPosition;
use crate::flow::backlog::BacklogStanding;
use crate::flow::backlog::RefilledRow;
use crate::flow::dead_letter_reason::DeathReason;
use crate::flow::lease::Lease;
use crate::flow::report_queue::report_queue;
use crate::flow::settlement::DeliveryOutcome;
use crate::flow::settlement::DurableIn;
use crate::flow::settlement::ReplayId;
use crate::flow::settlement::Settlement;
use crate::flow::time::Timestamp;
use crate::lane::core::breaker::BreakerState;
use crate::lane::error::QueueError;
use crate::lane::in_flight_total::InFlightTotal;
use crate::lane::message::LaneChange;
use crate::lane::message::ReplayedDelivery;
use crate::lane::overflow_delay::FIRST_PATIENCE;
use crate::lane::overflow_delay::FULL_PATIENCE;
use crate::lane::overflow_delay::TOGETHER_MAX;
use crate::lane::overflow_delay::WalHold;
use crate::lane::samples::SampleBacklog;
use crate::lane::samples::SampleServices;
use crate::lane::samples::delivered;
use crate::lane::samples::event;
use crate::lane::samples::number;
use crate::lane::samples::retry;
use crate::lane::samples::settings;
use crate::lane::sender::hand_over;
use crate::lane::settings::LaneParking;

const SECOND: Duration = Duration::from_secs(1);

/// Between two flushes of the ledger.
const FLUSH: Duration = Duration::from_millis(100);

fn generous() -> WalHold {
    WalHold::new(1 << 30, 5 * SECOND)
}

fn with_backlog(capacity: usize) -> LaneSettings {
    let terms = settings::ParkingSettings::default();
    let parking = Some(LaneParking { terms, standing: None });
    LaneSettings { capacity: number(capacity), parking, ..settings() }
}

#[derive(Default)]
struct Database {
    rows: BTreeMap<BacklogPosition, RefilledRow>,
    last_row: i64,
    /// Rows that were ever written.
    parked: usize,
    /// Numbers and outcomes, in the order of the settlements.
    settled: Vec<(u64, &'static str)>,
}

impl Database {
    fn commit(&mut self, settlement: Settlement) {
        let Settlement { event, outcome, durable_in, attempts, history, .. } = settlement;
        let same = |at: &BacklogPosition| at.position == event.position;
        let at = self.rows.keys().find(|at| same(at)).copied();
        let outcome = match outcome {
            DeliveryOutcome::Parked { next_attempt: due, .. } => {
                assert_eq!(at.is_some(), durable_in == DurableIn::Backlog);
                let at = at.unwrap_or_else(|| {
                    self.last_row += 1;
                    self.parked += 1;
                    BacklogPosition { position: event.position, row: self.last_row }
                });
                let parked = event.committed;
                let row = RefilledRow { event, at, parked, attempts, due, history };
                self.rows.insert(at, row);
                return;
            }
            DeliveryOutcome::Delivered { .. } => "delivered",
            DeliveryOutcome::Expired => "expired",
            DeliveryOutcome::Filtered => "filtered",
            DeliveryOutcome::Dead { reason: DeathReason::BacklogFull } => "full",
            DeliveryOutcome::Dead { .. } => "dead",
        };
        self.settled.push((event.sequence, outcome));
        if durable_in == DurableIn::Backlog {
            self.rows.remove(&at.expect("what the backlog holds has a row"));
        }
    }
}

/// The rows that the lane reads, as long as the database answers.
struct ModelBacklog {
    database: Arc<Mutex<Database>>,
    is_up: Arc<AtomicBool>,
}

impl SampleBacklog for ModelBacklog {
    async fn page(
        &self,
        after: Option<BacklogPosition>,
        rows: usize,
    ) -> Result<Vec<RefilledRow>, &'static str> {
        tokio::time::sleep(Duration::from_millis(3)).await;
        if !self.is_up.load(Ordering::Relaxed) {
            return Err("it is away");
        }
        let database = self.database.lock().unwrap();
        let rest = database.rows.iter().filter(|(at, _)| after.is_none_or(|a| **at > a));
        Ok(rest.take(rows).map(|(_, row)| row.clone()).collect())
    }
}

struct Running {
    sender: LaneSender,
    database: Arc<Mutex<Database>>,
    /// What the endpoint saw: numbers, and whether they were marked as sent again.
    seen: Arc<Mutex<Vec<(u64, bool)>>>,
    is_up: Arc<AtomicBool>,
    is_backlog_up: Arc<AtomicBool>,
    may_send: Arc<AtomicBool>,
    requests: Arc<AtomicUsize>,
    tasks: JoinSet<Result<(), QueueError>>,
}

impl Running {
    /// The endpoint takes `takes` for each request.
    fn start(settings: LaneSettings, database: Database, takes: Duration) -> Self {
        let (sender, task) = open(settings);
        let (outcomes, mut reports) = report_queue(64);
        let flag = |is_set| Arc::new(AtomicBool::new(is_set));
        let (is_up, is_backlog_up, may_send) = (flag(true), flag(true), flag(true));
        let requests = Arc::<AtomicUsize>::default();
        let seen = Arc::<Mutex<Vec<_>>>::default();
        let database = Arc::new(Mutex::new(database));
        let attempt = {
            let (seen, is_up, requests) = (seen.clone(), is_up.clone(), requests.clone());
            move |lease: Lease| {
                requests.fetch_add(1, Ordering::Relaxed);
                let (seen, is_up) = (seen.clone(), is_up.clone());
                async move {
                    tokio::time::sleep(takes).await;
                    if !is_up.load(Ordering::Relaxed) {
                        return (lease, retry(None));
                    }
                    let events = lease.events.iter().map(|event| (event.sequence, lease.replay));
                    seen.lock().unwrap().extend(events);
                    (lease, delivered())
                }
            }
        };
        let mut tasks = JoinSet::new();
        let backlog = ModelBacklog { database: database.clone(), is_up: is_backlog_up.clone() };
        let services = SampleServices::new(attempt).with_backlog(may_send.clone(), backlog);
        let stop = CancellationToken::new();
        tasks.spawn(async move { task.run(&services, outcomes, stop).await });
        let books = database.clone();
        tasks.spawn(async move {
            let mut taken = Vec::new();
            let mut flush = tokio::time::interval(FLUSH);
            loop {
                let is_over = tokio::select! {
                    report = reports.recv() => match report {
                        Some(report) => { taken.push(report); continue; }
                        None => true,
                    },
                    _ = flush.tick() => false,
                };
                let mut database = books.lock().unwrap();
                let settled = taken.drain(..).flat_map(|report| report.settlements);
                settled.for_each(|settled| database.commit(settled));
                if is_over {
                    break;
                }
            }
            Ok(())
        });
        Self { sender, database, seen, is_up, is_backlog_up, may_send, requests, tasks }
    }

    /// Sends an event every few milliseconds; returns the longest that a hand-over took.
    async fn send_steadily(&self, numbers: std::ops::Range<u64>, every: Duration) -> Duration {
        let mut longest = Duration::ZERO;
        for n in numbers {
            let start = Instant::now();
            self.sender.send(vec![event(n, n % 10)]).await.unwrap();
            longest = longest.max(start.elapsed());
            tokio::time::sleep(every).await;
        }
        longest
    }

    async fn until_settled(&self, count: usize) {
        while self.database.lock().unwrap().settled.len() < count {
            tokio::time::sleep(FLUSH).await;
        }
    }

    fn parked(&self) -> usize {
        self.database.lock().unwrap().parked
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// Each event was seen once, and those of a key in order.
    fn check_seen(&self, count: u64) {
        let mut last: HashMap<u64, u64> = HashMap::new();
        let seen = self.seen.lock().unwrap();
        for (n, _) in seen.iter() {
            let before = last.insert(n % 10, *n);
            assert!(before.is_none_or(|before| before < *n), "{n} after {before:?}");
        }
        assert_eq!(seen.len() as u64, count);
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_down_holds_up_nobody_and_gets_all_of_it_in_order_later() {
    let running = Running::start(with_backlog(16), Database::default(), Duration::from_millis(2));
    running.is_up.store(false, Ordering::Relaxed);
    let longest = running.send_steadily(0..3000, Duration::from_millis(2)).await;
    assert!(longest <= FULL_PATIENCE + Duration::from_millis(2), "{longest:?}");
    let gauges = running.sender.view();
    tokio::time::sleep(SECOND).await;
    assert_ne!(gauges.breaker(), BreakerState::Closed);
    assert_eq!((gauges.in_memory(), gauges.in_backlog()), (0, 3000));
    assert_eq!(running.database.lock().unwrap().rows.len(), 3000);
    assert!(running.requests() < 20, "{} requests", running.requests());
    running.is_up.store(true, Ordering::Relaxed);
    running.until_settled(3000).await;
    running.check_seen(3000);
    assert_eq!((gauges.in_memory(), gauges.in_backlog()), (0, 0));
    assert_eq!(gauges.breaker(), BreakerState::Closed);
    assert!(running.database.lock().unwrap().rows.is_empty());
}

/// The places that it kept for rows are free again, and no report tells of it.
#[tokio::test(start_paused = true)]
async fn a_small_lane_that_was_paused_while_it_read_its_backlog_goes_on_when_it_is_resumed() {
    let at = BacklogPosition { position: event(5, 1).position, row: 1 };
    let parked = Timestamp::default();
    let row = RefilledRow { event: event(5, 1), at, parked, attempts: 0, due: None, history: None };
    let database = Database { rows: BTreeMap::from([(at, row)]), ..Database::default() };
    let standing = BacklogStanding { rows: 1, newest: at.position, is_out: false };
    let terms = settings::ParkingSettings::default();
    let parking = Some(LaneParking { terms, standing: Some(standing) });
    let settings = LaneSettings { parking, ..with_backlog(1) };
    let running = Running::start(settings, database, Duration::from_millis(1));
    let control = running.sender.control();
    running.sender.caught_up().await.unwrap();
    // A page takes three milliseconds.
    tokio::time::sleep(Duration::from_millis(1)).await;
    control.change(LaneChange::Pause).await.unwrap();
    tokio::time::sleep(SECOND).await;
    assert_eq!(running.requests(), 0);
    control.change(LaneChange::Resume).await.unwrap();
    let settled = running.until_settled(1);
    assert!(tokio::time::timeout(60 * SECOND, settled).await.is_ok(), "it stands still");
}

#[tokio::test(start_paused = true)]
async fn after_an_overflow_events_go_directly_again_although_they_keep_coming() {
    let running = Running::start(with_backlog(256), Database::default(), Duration::from_millis(1));
    running.may_send.store(false, Ordering::Relaxed);
    running.send_steadily(0..500, Duration::from_millis(1)).await;
    assert!(running.sender.view().in_backlog() > 200);
    running.may_send.store(true, Ordering::Relaxed);
    running.send_steadily(500..5000, Duration::from_millis(1)).await;
    let parked = running.parked();
    running.send_steadily(5000..8000, Duration::from_millis(1)).await;
    assert_eq!(running.parked(), parked, "the detour by way of the backlog has no end");
    running.until_settled(8000).await;
    running.check_seen(8000);
}

#[tokio::test(start_paused = true)]
async fn a_sender_waits_a_moment_for_room_and_then_lets_the_rest_overflow() {
    let running = Running::start(with_backlog(4), Database::default(), 5 * SECOND);
    let start = Instant::now();
    running.sender.send((0..40).map(|n| event(n, n)).collect()).await.unwrap();
    assert_eq!(start.elapsed().as_millis(), FULL_PATIENCE.as_millis());
    tokio::time::sleep(2 * FLUSH).await;
    assert_eq!(running.sender.view().in_backlog(), 36);
    running.sender.send((40..50).map(|n| event(n, n)).collect()).await.unwrap();
    assert!(start.elapsed() < 2 * FULL_PATIENCE, "what is newer does not wait");
    running.until_settled(50).await;
    running.check_seen(50);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_stood_still_takes_no_endpoint_for_silent() {
    let running = Running::start(with_backlog(4), Database::default(), SECOND / 50);
    let events: Vec<_> = (0..8).map(|n| event(n, n)).collect();
    let stood_still = async {
        tokio::task::yield_now().await;
        tokio::time::advance(2 * FIRST_PATIENCE).await;
    };
    let (shares, wal_hold) = ([(&running.sender, events)], generous());
    let (sent, ()) = tokio::join!(hand_over(shares, &wal_hold, &|| true), stood_still);
    sent.unwrap();
    running.until_settled(8).await;
    assert_eq!(running.parked(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_ledger_that_has_no_room_makes_no_endpoint_silent() {
    let (sender, task) = open(with_backlog(4));
    let (outcomes, mut reports) = report_queue(1);
    let services = SampleServices::new(|lease: Lease| async move { (lease, delivered()) });
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { task.run(&services, outcomes, CancellationToken::new()).await });
    let ledger = async {
        let mut settled = Vec::new();
        while settled.len() < 40 {
            tokio::time::sleep(2 * SECOND).await; // a flush of a slow database
            settled.extend(reports.recv().await.unwrap().settlements);
        }
        settled
    };
    let (shares, wal_hold) = ([(&sender, (0..40).map(|n| event(n, n)).collect())], generous());
    let (sent, settled) = tokio::join!(hand_over(shares, &wal_hold, &|| false), ledger);
    sent.unwrap();
    let is_delivered =
        |settled: &Settlement| matches!(settled.outcome, DeliveryOutcome::Delivered { .. });
    assert!(settled.iter().all(is_delivered), "{settled:?}");
}

#[tokio::test(start_paused = true)]
async fn a_thread_without_time_to_spare_has_nobody_idle_for_the_sake_of_one() {
    let total = InFlightTotal::timed_by(|alive| alive); // busy all the time
    let (sender, task) = open(with_backlog(4));
    let task = task.counted_in(&total);
    let services = SampleServices::new(|lease: Lease| async move {
        std::future::pending::<()>().await;
        (lease, delivered())
    });
    let (outcomes, _reports) = report_queue(64);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { task.run(&services, outcomes, CancellationToken::new()).await });
    let mut other = total.part();
    let others_work = async {
        loop {
            other.note(1);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let (start, wal_hold) = (Instant::now(), generous());
    let shares = [(&sender, (0..8).map(|n| event(n, n)).collect())];
    tokio::select! {
        sent = hand_over(shares, &wal_hold, &|| true) => sent.unwrap(),
        () = others_work => {}
    }
    assert_eq!(start.elapsed(), TOGETHER_MAX, "and no longer");
}

#[tokio::test(start_paused = true)]
async fn lanes_that_are_all_slow_wait_for_each_other_and_park_nothing() {
    let slow = || Running::start(with_backlog(4), Database::default(), Duration::from_millis(70));
    let lanes = [slow(), slow(), slow()];
    let events = || (0..40).map(|n| event(n, n)).collect();
    let start = Instant::now();
    let shares = lanes.iter().map(|lane| (&lane.sender, events()));
    let is_any_idle = || lanes.iter().any(|lane| lane.sender.is_idle());
    hand_over(shares, &generous(), &is_any_idle).await.unwrap();
    assert!(start.elapsed() > 2 * FULL_PATIENCE, "{:?}", start.elapsed());
    for lane in &lanes {
        lane.until_settled(40).await;
        assert_eq!(lane.parked(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_answers_slowly_costs_no_rows_while_nobody_waits_for_it() {
    let slow = Running::start(with_backlog(4), Database::default(), SECOND / 5);
    let events: Vec<_> = (0..100).map(|n| event(n, n)).collect();
    let start = Instant::now();
    hand_over([(&slow.sender, events)], &generous(), &|| false).await.unwrap();
    assert!(start.elapsed() > 4 * SECOND, "{:?}", start.elapsed());
    slow.until_settled(100).await;
    assert_eq!(slow.parked(), 0);
}

#[tokio::test(start_paused = true)]
async fn others_have_nothing_to_do_for_the_sake_of_a_slow_one_for_a_time_only() {
    let slow = Running::start(with_backlog(4), Database::default(), SECOND / 5);
    let mut sent = 0;
    let mut waited = Duration::ZERO;
    // What the time is used up for in one hand-over is not there in the next.
    for _ in 0..4 {
        let events: Vec<_> = (sent..sent + 60).map(|n| event(n, n)).collect();
        sent += 60;
        let start = Instant::now();
        hand_over([(&slow.sender, events)], &generous(), &|| true).await.unwrap();
        waited += start.elapsed();
    }
    assert!(waited >= 5 * SECOND && waited < 8 * SECOND, "{waited:?}");
    slow.until_settled(240).await;
    assert!(slow.parked() > 20);
    slow.check_seen(240);
}

#[tokio::test(start_paused = true)]
async fn a_slow_one_is_not_waited_for_when_the_wal_holds_too_much() {
    let slow = Running::start(with_backlog(4), Database::default(), 100 * SECOND / 1000);
    let wal_hold = generous();
    wal_hold.note_retained(2 << 30);
    let start = Instant::now();
    let events: Vec<_> = (0..100).map(|n| event(n, n)).collect();
    hand_over([(&slow.sender, events)], &wal_hold, &|| false).await.unwrap();
    assert!(start.elapsed() < SECOND, "{:?}", start.elapsed());
    slow.until_settled(100).await;
    assert!(slow.parked() > 50);
}

/// `fast` takes all of its share at once.
async fn beside_two_hanging_lanes(fast: &LaneSender, share: u64) -> Duration {
    let hang = || Running::start(with_backlog(4), Database::default(), 60 * SECOND);
    let (one, two) = (hang(), hang());
    let events = |count| (0..count).map(|n| event(n, n)).collect();
    let start = Instant::now();
    let hanging = [(&one.sender, events(40)), (&two.sender, events(40))];
    let is_any_idle = || [fast, &one.sender, &two.sender].iter().any(|lane| lane.is_idle());
    let shares = [(fast, events(share))].into_iter().chain(hanging);
    hand_over(shares, &generous(), &is_any_idle).await.unwrap();
    start.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_is_ready_for_more_waits_a_moment_for_one_that_hangs() {
    let fast = Running::start(with_backlog(64), Database::default(), Duration::ZERO);
    let waits = beside_two_hanging_lanes(&fast.sender, 40).await;
    assert_eq!(waits.as_millis(), FIRST_PATIENCE.as_millis());
    let waits = beside_two_hanging_lanes(&fast.sender, 0).await;
    assert_eq!(waits.as_millis(), FIRST_PATIENCE.as_millis(), "events for it may come next");
}

#[tokio::test(start_paused = true)]
async fn nobody_is_hurried_for_a_lane_whose_events_go_by_way_of_the_backlog() {
    let disabled = Running::start(with_backlog(64), Database::default(), Duration::ZERO);
    disabled.sender.control().change(LaneChange::Disable).await.unwrap();
    tokio::time::sleep(FLUSH).await;
    for share in [0, 40] {
        let waits = beside_two_hanging_lanes(&disabled.sender, share).await;
        assert_eq!(waits.as_millis(), TOGETHER_MAX.as_millis(), "{share} events");
    }
}

#[tokio::test(start_paused = true)]
async fn a_sender_does_not_wait_for_room_that_a_disabled_endpoint_cannot_give() {
    let running = Running::start(with_backlog(4), Database::default(), Duration::ZERO);
    running.sender.control().change(LaneChange::Disable).await.unwrap();
    tokio::time::sleep(FLUSH).await;
    let start = Instant::now();
    running.sender.send((0..8).map(|n| event(n, n)).collect()).await.unwrap();
    assert!(start.elapsed() < FULL_PATIENCE, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_overflows_waits_for_the_ledger() {
    let (sender, task) = open(with_backlog(4));
    let (outcomes, reports) = report_queue(1);
    let mut tasks = JoinSet::new();
    let services = SampleServices::new(|lease: Lease| async move {
        std::future::pending::<()>().await;
        (lease, delivered())
    });
    let stop = CancellationToken::new();
    tasks.spawn(async move { task.run(&services, outcomes, stop).await });
    let send = sender.send((0..5000).map(|n| event(n, n)).collect());
    assert!(tokio::time::timeout(60 * SECOND, send).await.is_err(), "5000 events fit nowhere");
    let counts = sender.view().counts();
    let held = counts.queued + counts.in_flight + counts.retrying;
    assert!(held <= 4 + 256, "{counts:?}");
    assert!(counts.outside <= 3 * 256, "{counts:?}");
    drop(reports);
}

#[tokio::test(start_paused = true)]
async fn a_backlog_from_before_waits_until_the_source_has_caught_up_and_comes_first() {
    let mut database = Database::default();
    for n in 10..50 {
        let parked = DeliveryOutcome::Parked {
            next_attempt: None,
            reason: crate::flow::park_reason::ParkReason::Outage,
        };
        database.commit(Settlement {
            event: event(n, n % 10),
            endpoint: crate::flow::settlement::EndpointIndex(0),
            outcome: parked,
            durable_in: DurableIn::Wal,
            attempts: 0,
            history: None,
        });
    }
    let mut settings = with_backlog(8);
    let newest = event(49, 0).position;
    settings.parking.as_mut().unwrap().standing =
        Some(BacklogStanding { rows: 40, newest, is_out: false });
    let running = Running::start(settings, database, Duration::from_millis(1));
    assert_eq!(running.sender.view().counts().outside, 0, "the task has not begun");
    running.sender.send((0..10).map(|n| event(n, n)).collect()).await.unwrap();
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!((running.requests(), running.sender.view().in_backlog()), (0, 50));
    running.sender.caught_up().await.unwrap();
    running.sender.send((50..90).map(|n| event(n, n % 10)).collect()).await.unwrap();
    running.until_settled(90).await;
    running.check_seen(90);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_while_it_may_not_be() {
    let running = Running::start(with_backlog(8), Database::default(), Duration::ZERO);
    running.may_send.store(false, Ordering::Relaxed);
    running.sender.send(vec![event(0, 0)]).await.unwrap();
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(running.requests(), 0);
    running.may_send.store(true, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(running.requests(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_backlog_that_cannot_be_read_is_read_later() {
    let running = Running::start(with_backlog(4), Database::default(), Duration::from_millis(1));
    running.may_send.store(false, Ordering::Relaxed);
    running.sender.send((0..40).map(|n| event(n, n % 10)).collect()).await.unwrap();
    running.is_backlog_up.store(false, Ordering::Relaxed);
    running.may_send.store(true, Ordering::Relaxed);
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(running.sender.view().in_backlog(), 36);
    running.is_backlog_up.store(true, Ordering::Relaxed);
    running.until_settled(40).await;
    running.check_seen(40);
}

#[tokio::test(start_paused = true)]
async fn replays_are_marked_and_wait_out_an_outage_without_a_row() {
    let mut running = Running::start(with_backlog(8), Database::default(), Duration::ZERO);
    let replays = running.sender.replays();
    running.is_up.store(false, Ordering::Relaxed);
    running.sender.send((0..4).map(|n| event(n, n)).collect()).await.unwrap();
    tokio::time::sleep(5 * SECOND).await;
    let parked = running.parked();
    let again = |n: u64| ReplayedDelivery {
        id: ReplayId::Letter(i64::try_from(n).unwrap()),
        event: event(n, n),
    };
    replays.send(vec![again(100), again(101)]).await.unwrap();
    let third = tokio::time::timeout(SECOND, replays.send(vec![again(102)])).await;
    assert!(third.is_err(), "replays have a share of the lane only");
    running.is_up.store(true, Ordering::Relaxed);
    running.until_settled(6).await;
    assert_eq!(running.parked(), parked);
    let seen = running.seen.lock().unwrap().clone();
    assert!(seen.iter().all(|(n, replay)| *replay == (*n >= 100)), "{seen:?}");
    drop(running.sender);
    running.tasks.join_next().await.unwrap().unwrap().unwrap();
    assert!(replays.send(vec![again(103)]).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_lane_whose_input_closed_leaves_the_rest_in_the_backlog() {
    let running = Running::start(with_backlog(8), Database::default(), Duration::from_millis(1));
    running.is_up.store(false, Ordering::Relaxed);
    running.send_steadily(0..500, Duration::from_millis(5)).await;
    let Running { sender, database, mut tasks, .. } = running;
    drop(sender);
    let start = Instant::now();
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap().unwrap();
    }
    assert!(start.elapsed() < SECOND, "{:?}", start.elapsed());
    let database = database.lock().unwrap();
    assert_eq!(database.rows.len() + database.settled.len(), 500);
}

#[tokio::test(start_paused = true)]
async fn a_backlog_beyond_its_limit_loses_its_oldest_also_while_the_endpoint_is_down() {
    let mut settings = with_backlog(16);
    settings.parking.as_mut().unwrap().terms.backlog.rows = number(100);
    let running = Running::start(settings, Database::default(), Duration::from_millis(1));
    running.is_up.store(false, Ordering::Relaxed);
    running.send_steadily(0..2000, Duration::from_millis(1)).await;
    tokio::time::sleep(30 * SECOND).await;
    assert_eq!(running.sender.view().in_backlog(), 100);
    let rows: Vec<u64> = {
        let database = running.database.lock().unwrap();
        database.rows.values().map(|row| row.event.sequence).collect()
    };
    assert_eq!(rows.last(), Some(&1999));
    // But for the few that had their turn as probes, it is the newest that are left.
    assert!(rows.iter().filter(|n| **n >= 1900).count() >= 90, "{rows:?}");
    running.is_up.store(true, Ordering::Relaxed);
    running.until_settled(2000).await;
    let requests = running.requests();
    assert!(requests < 200, "{requests} requests");
}
