//! Lanes that are there only while there is something for them.

use std::fmt;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use super::*;
use crate::flow::report_queue::ReportReceiver;
use crate::flow::report_queue::ReportSender;
use crate::flow::report_queue::report_queue;
use crate::flow::settlement::ReplayId;
use crate::lane::message::LaneChange;
use crate::lane::message::ReplayedDelivery;

/// Runs what is opened on the test's own runtime; each request takes a second.
struct SpawningOpener {
    outcomes: ReportSender,
    opened: AtomicUsize,
    stop: CancellationToken,
    tasks: Mutex<JoinSet<()>>,
}

impl fmt::Debug for SpawningOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SpawningOpener")
    }
}

impl LaneOpener for SpawningOpener {
    fn settings(&self) -> LaneSettings {
        settings()
    }

    fn run(self: Arc<Self>, task: LaneTask) {
        self.opened.fetch_add(1, Ordering::Relaxed);
        let opener = Arc::clone(&self);
        self.tasks.lock().unwrap().spawn(async move {
            let services = SampleServices::new(|lease: Lease| async move {
                tokio::time::sleep(SECOND).await;
                (lease, delivered())
            });
            let (outcomes, stop) = (opener.outcomes.clone(), opener.stop.clone());
            task.run(&services, outcomes, stop).await.unwrap();
        });
    }
}

struct OnDemand {
    sender: LaneSender,
    opener: Arc<SpawningOpener>,
    reports: ReportReceiver,
}

impl OnDemand {
    fn new() -> Self {
        let (outcomes, reports) = report_queue(QUEUE_ROOM);
        let (opened, stop) = (AtomicUsize::new(0), CancellationToken::new());
        let tasks = Mutex::default();
        let opener = Arc::new(SpawningOpener { outcomes, opened, stop, tasks });
        let run: Arc<dyn LaneOpener> = Arc::<SpawningOpener>::clone(&opener);
        Self { sender: on_demand(Arc::from("crm"), run), opener, reports }
    }

    fn opened(&self) -> usize {
        self.opener.opened.load(Ordering::Relaxed)
    }

    async fn settled(&mut self) -> u64 {
        self.reports.recv().await.unwrap().settlements[0].event.sequence
    }
}

#[tokio::test(start_paused = true)]
async fn a_lane_is_there_only_while_there_is_something_for_it() {
    let mut lane = OnDemand::new();
    let view = lane.sender.view();
    lane.sender.caught_up().await.unwrap();
    lane.sender.rest().await.unwrap();
    for change in [LaneChange::TryNow, LaneChange::Resume, LaneChange::Enable] {
        lane.sender.control().change(change).await.unwrap();
    }
    assert!(lane.sender.is_idle() && lane.sender.is_nearly_idle() && lane.sender.is_roomy(1000));
    assert_eq!(lane.opened(), 0, "none of this is work");
    for round in 0..3 {
        lane.sender.send(vec![event(round, 1)]).await.unwrap();
        assert_eq!((lane.opened(), view.in_memory()), (usize::try_from(round).unwrap() + 1, 1));
        assert_eq!(lane.settled().await, round);
        tokio::time::sleep(59 * SECOND).await;
        assert!(lane.sender.is_there(), "connections are kept for a minute");
        tokio::time::sleep(3 * SECOND).await;
        assert!(!lane.sender.is_there());
        assert_eq!(view.counts(), LaneCounts::default());
    }
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_is_held_back_by_order_does_not_rest() {
    let mut lane = OnDemand::new();
    lane.sender.control().change(LaneChange::Pause).await.unwrap();
    tokio::time::sleep(1000 * SECOND).await;
    assert!(lane.sender.is_there());
    lane.sender.control().change(LaneChange::Resume).await.unwrap();
    lane.sender.send(vec![event(7, 1)]).await.unwrap();
    assert_eq!(lane.settled().await, 7);
    tokio::time::sleep(100 * SECOND).await;
    assert_eq!((lane.sender.is_there(), lane.opened()), (false, 1));
}

#[tokio::test(start_paused = true)]
async fn whatever_comes_as_it_goes_is_delivered_once() {
    let mut lane = OnDemand::new();
    let replays = lane.sender.replays();
    let mut expected = Vec::new();
    for round in 0..200_u64 {
        // Around the moment at which it goes: a second for the request, and a minute.
        tokio::time::sleep(Duration::from_millis(59_900 + round)).await;
        let send = lane.sender.send(vec![event(round, round % 3)]);
        let replay = async {
            let replay = ReplayedDelivery {
                id: ReplayId::Letter(round.cast_signed()),
                event: event(1000 + round, 9),
            };
            match round % 2 {
                0 => replays.send(vec![replay]).await,
                _ => Ok(()),
            }
        };
        let (sent, replayed) = tokio::join!(send, replay);
        sent.unwrap();
        replayed.unwrap();
        expected.push(round);
        expected.extend((round % 2 == 0).then_some(1000 + round));
        let mut settled = Vec::new();
        while settled.len() < 1 + usize::from(round % 2 == 0) {
            let report = lane.reports.recv().await.unwrap();
            settled.extend(report.settlements.iter().map(|settled| settled.event.sequence));
        }
        settled.sort_unstable();
        let due = expected.split_off(expected.len() - settled.len());
        assert_eq!(settled, due, "round {round}");
    }
    assert!((2..200).contains(&lane.opened()), "{}", lane.opened());
}

#[tokio::test(start_paused = true)]
async fn a_removed_endpoint_has_its_lane_end_and_nothing_comes_after_it() {
    let lane = OnDemand::new();
    lane.sender.control().change(LaneChange::Delete).await.unwrap();
    tokio::time::sleep(SECOND).await;
    assert!(lane.sender.send(vec![event(1, 1)]).await.is_err());
    assert_eq!(lane.opened(), 1);
    // When nothing is run any more what is opened ends at once.
    lane.opener.stop.cancel();
    drop(lane.reports);
}

#[tokio::test(start_paused = true)]
async fn after_a_change_of_settings_an_event_still_weighs_no_more_than_there_is() {
    let answers = |_: &Lease| (Duration::ZERO, delivered());
    let mut running = Running::start(settings().within(256), answers);
    let change = LaneChange::Settings(Box::new(settings()));
    running.sender.control().change(change).await.unwrap();
    let sent = tokio::time::timeout(SECOND, running.sender.send(vec![event(0, 1), event(1, 1)]));
    sent.await.unwrap().unwrap();
    assert_eq!(running.settled(2).await, [0, 1]);
}
