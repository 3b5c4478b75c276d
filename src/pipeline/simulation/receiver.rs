//! The receivers: take requests, or do not, and answer, or do not.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::flow::headers::HeaderLines;
use crate::flow::lease::Lease;
use crate::flow::verdict::AttemptFailure;
use crate::flow::verdict::AttemptReach;
use crate::flow::verdict::AttemptVerdict;
use crate::flow::verdict::FailureClass;
use crate::flow::verdict::HttpExchange;
use crate::pipeline::simulation::scenario::ReceiverMood;
use crate::pipeline::simulation::world::SharedWorld;

/// How long an attempt waits for its answer.
const TIMEOUT: Duration = Duration::from_secs(1);

/// What becomes of one request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum RequestOutcome {
    Taken,
    /// Taken, and the answer says otherwise, or gets lost.
    TakenUnheard,
    /// Taken, and no answer comes in time.
    TakenLate,
    /// Refused for now.
    Failed,
    /// No answer comes, and nothing was taken.
    Silent,
    Throttled(u64),
    /// The receiver says that it did not look at it.
    Unprocessed,
    /// walhook had no means to make it.
    Local,
    Rejected,
}

/// Makes one attempt.
pub(super) async fn attempt(
    world: SharedWorld,
    endpoint: usize,
    lease: Lease,
) -> (Lease, HttpExchange) {
    let (begun, run) = (Instant::now(), world.run);
    let (members, outcome, travel, answer) = {
        let mut world = world.lock();
        let at = (run, world.now());
        let members = world.oracle.begin(endpoint, &lease, at).unwrap_or_else(|what| {
            world.fail(what);
            Vec::new()
        });
        let mood = world.mood(endpoint);
        let outcome = outcome(mood, &mut world);
        let slow = if mood == ReceiverMood::Slow { 20..400 } else { 0..15 };
        let (travel, answer) = (world.dice.millis(0..5), world.dice.millis(slow));
        let (attempt, again) = (lease.attempt, if lease.replay { "replay, " } else { "" });
        world.note(|world| {
            format!(
                "e{endpoint} {again}attempt {attempt} {outcome:?}: {}",
                world.oracle.labels(&members)
            )
        });
        (members, outcome, travel, answer)
    };
    world.point("before the request").await;
    tokio::time::sleep(travel).await;
    if matches!(
        outcome,
        RequestOutcome::Taken | RequestOutcome::TakenUnheard | RequestOutcome::TakenLate
    ) {
        world.lock().oracle.accept(&members);
    }
    world.point("the request has arrived").await;
    match outcome {
        RequestOutcome::TakenLate | RequestOutcome::Silent => tokio::time::sleep(TIMEOUT).await,
        _ => tokio::time::sleep(answer).await,
    }
    let exchange = exchange(outcome, begun.elapsed());
    {
        let mut world = world.lock();
        let at = (run, world.now());
        world.oracle.end(&members, &exchange.verdict, &lease, at);
        world.note(|world| {
            format!("e{endpoint} answers {:?}: {}", exchange.status, world.oracle.labels(&members))
        });
    }
    (lease, exchange)
}

fn outcome(
    mood: ReceiverMood,
    world: &mut crate::pipeline::simulation::world::SimulatedWorld,
) -> RequestOutcome {
    let dice = &mut world.dice;
    match mood {
        ReceiverMood::Well | ReceiverMood::Slow => RequestOutcome::Taken,
        ReceiverMood::Dead => RequestOutcome::Failed,
        ReceiverMood::Hanging => dice.pick(&[RequestOutcome::Silent, RequestOutcome::TakenLate]),
        ReceiverMood::Throttling => match dice.percent(40) {
            true => RequestOutcome::Taken,
            false => RequestOutcome::Throttled(dice.number(0..1500)),
        },
        ReceiverMood::Picky => match dice.percent(80) {
            true => RequestOutcome::Taken,
            false => RequestOutcome::Rejected,
        },
        ReceiverMood::Flaky => match dice.percent(60) {
            true => RequestOutcome::Taken,
            false => dice.pick(&[
                RequestOutcome::TakenUnheard,
                RequestOutcome::TakenLate,
                RequestOutcome::Failed,
                RequestOutcome::Failed,
                RequestOutcome::Silent,
                RequestOutcome::Throttled(300),
                RequestOutcome::Unprocessed,
                RequestOutcome::Local,
            ]),
        },
    }
}

fn exchange(outcome: RequestOutcome, took: Duration) -> HttpExchange {
    let wait = AttemptVerdict::Retry { at_least: None };
    let (verdict, reach, status, class) = match outcome {
        RequestOutcome::Taken => {
            (AttemptVerdict::Delivered, AttemptReach::Endpoint, Some(200), None)
        }
        RequestOutcome::TakenUnheard | RequestOutcome::Failed => {
            (wait, AttemptReach::Endpoint, Some(503), Some(FailureClass::Status))
        }
        RequestOutcome::TakenLate | RequestOutcome::Silent => {
            (wait, AttemptReach::Endpoint, None, Some(FailureClass::Timeout))
        }
        RequestOutcome::Throttled(millis) => {
            let at_least = (millis > 0).then(|| Duration::from_millis(millis));
            let verdict = AttemptVerdict::Retry { at_least };
            (verdict, AttemptReach::Throttled, Some(429), Some(FailureClass::Status))
        }
        RequestOutcome::Unprocessed => {
            (wait, AttemptReach::Unprocessed, None, Some(FailureClass::Protocol))
        }
        RequestOutcome::Local => (wait, AttemptReach::Nowhere, None, Some(FailureClass::Local)),
        RequestOutcome::Rejected => {
            (AttemptVerdict::Dead, AttemptReach::Endpoint, Some(400), Some(FailureClass::Status))
        }
    };
    HttpExchange {
        verdict,
        reach,
        requests: 1,
        failure: class.map(|class| AttemptFailure { class, detail: format!("{outcome:?}") }),
        status,
        took,
        request_headers: HeaderLines::default(),
        response_headers: HeaderLines::default(),
        response_body: Bytes::new(),
    }
}
