//! Many lanes that report to one ledger.

use super::*;
use crate::flow::report_queue::REPORT_ROOM;

const LANES: usize = 1000;

/// Between two looks of the ledger at what has come.
const FLUSH_EVERY: Duration = Duration::from_millis(50);

#[tokio::test(start_paused = true)]
async fn what_ends_in_a_thousand_lanes_waits_for_one_flush_and_no_longer() {
    let (outcomes, mut reports) = report_queue(REPORT_ROOM);
    let (mut senders, mut tasks) = (Vec::new(), JoinSet::new());
    for number in 0..LANES {
        let settings = LaneSettings { endpoint: EndpointIndex(number), ..settings() };
        let (sender, task) = open(settings);
        let services = SampleServices::new(|lease: Lease| async move { (lease, delivered()) });
        let outcomes = outcomes.clone();
        tasks.spawn(async move { task.run(&services, outcomes, CancellationToken::new()).await });
        senders.push(sender);
    }
    let start = Instant::now();
    let mut taken = 0;
    for round in 0..10 {
        for sender in &senders {
            sender.send(vec![event(round, 1)]).await.unwrap();
        }
        tokio::time::sleep(FLUSH_EVERY).await;
        while let Some(report) = reports.try_recv() {
            for attempt in &report.attempts {
                let ended = Duration::from_micros(attempt.finished.micros().try_into().unwrap());
                let waited = start.elapsed() - ended;
                assert!(waited <= FLUSH_EVERY + Duration::from_millis(2), "{waited:?}");
                taken += 1;
            }
        }
    }
    assert_eq!(taken, 10 * LANES, "each was taken in its round");
}
