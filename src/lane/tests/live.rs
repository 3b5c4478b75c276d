//! What an endpoint's limits are while its lane runs, after they were changed.

use super::*;
use crate::flow::settlement::ReplayId;
use crate::lane::message::LaneChange;
use crate::lane::message::ReplayedDelivery;

impl Running {
    /// Changes the settings, and waits until the lane keeps to them.
    async fn change(&self, settings: LaneSettings) {
        let change = LaneChange::Settings(Box::new(settings));
        self.sender.control().change(change).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    /// Replays that find a place at once, of `count`.
    async fn replayed(&self, from: u64, count: u64) -> u64 {
        let replays = self.sender.replays();
        for n in from..from + count {
            let id = ReplayId::Letter(i64::try_from(n).unwrap());
            let sent = replays.send(vec![ReplayedDelivery { id, event: event(n, n) }]);
            if tokio::time::timeout(Duration::from_millis(5), sent).await.is_err() {
                return n - from;
            }
        }
        count
    }
}

fn of(capacity: usize, concurrency: usize) -> LaneSettings {
    LaneSettings { capacity: number(capacity), concurrency: number(concurrency), ..settings() }
}

#[tokio::test(start_paused = true)]
async fn another_capacity_holds_at_once_when_it_grows_and_as_events_leave_when_it_shrinks() {
    let mut running = Running::start(of(4, 1), |_| (SECOND, delivered()));
    let gauges = running.sender.view();
    let held = move || {
        let LaneCounts { queued, in_flight, .. } = gauges.counts();
        queued + in_flight
    };
    let control = running.sender.control();
    let sent = running.sender.send((0..30).map(|n| event(n, n)).collect());
    let mut sent = std::pin::pin!(sent);
    let mut wait = async |millis| {
        let waited = tokio::time::timeout(Duration::from_millis(millis), &mut sent).await;
        assert!(waited.is_err(), "thirty events do not fit");
    };
    wait(100).await;
    assert_eq!(held(), 4);
    let change = |settings| control.change(LaneChange::Settings(Box::new(settings)));
    change(of(9, 1)).await.unwrap();
    wait(100).await;
    assert_eq!(held(), 9);
    change(of(2, 1)).await.unwrap();
    let mut settled = 0;
    while settled < 12 {
        let report = running.reports.recv().await.unwrap();
        settled += report.settlements.len();
        wait(1).await;
        assert_eq!(held(), (9 - settled.min(9)).max(2), "after {settled}");
    }
}

#[tokio::test(start_paused = true)]
async fn another_concurrency_holds_from_the_next_request_on() {
    let running = Running::start(of(100, 2), |_| (SECOND, delivered()));
    running.sender.send((0..60).map(|n| event(n, n)).collect()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    let in_flight = || running.sender.view().counts().in_flight;
    assert_eq!(in_flight(), 2);
    running.change(of(100, 7)).await;
    assert_eq!(in_flight(), 7);
    running.change(of(100, 3)).await;
    assert_eq!(in_flight(), 7, "they have begun");
    tokio::time::sleep(SECOND).await;
    assert_eq!(in_flight(), 3);
}

#[tokio::test(start_paused = true)]
async fn another_rate_holds_from_the_next_request_on() {
    let settings = |rate_limit| LaneSettings { rate_limit, ..of(100, 50) };
    let mut running = Running::start(settings(Some(1.0)), |_| (Duration::ZERO, delivered()));
    running.sender.send((0..60).map(|n| event(n, n)).collect()).await.unwrap();
    tokio::time::sleep(2 * SECOND).await;
    let slow = running.seen().len();
    assert!((2..=4).contains(&slow), "{slow} requests at one a second");
    running.change(settings(Some(100.0))).await;
    let begun = running.seen().len();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let fast = running.seen().len() - begun;
    assert!((15..=25).contains(&fast), "{fast} requests in 200 ms at 100 a second");
    running.change(settings(None)).await;
    running.settled(60).await;
}

#[tokio::test(start_paused = true)]
async fn replays_have_a_quarter_of_the_places_that_there_are_now() {
    let endless = |_: &Lease| (1000 * SECOND, delivered());
    let running = Running::start(of(8, 1), endless);
    assert_eq!(running.replayed(0, 9).await, 2);
    running.change(of(40, 1)).await;
    assert_eq!(running.replayed(10, 20).await, 8, "ten of forty");
    running.change(of(4, 1)).await;
    assert_eq!(running.replayed(50, 9).await, 0, "one of four, and ten are there");
}

#[tokio::test(start_paused = true)]
async fn replays_leave_room_for_what_is_new_after_the_capacity_has_shrunk() {
    let mut running = Running::start(of(40, 1), |_| (SECOND, delivered()));
    running.change(of(4, 1)).await;
    assert_eq!(running.replayed(0, 20).await, 1);
    let sent = running.sender.send((100..103).map(|n| event(n, n)).collect());
    tokio::time::timeout(Duration::from_millis(10), sent).await.unwrap().unwrap();
    running.settled(4).await;
}
