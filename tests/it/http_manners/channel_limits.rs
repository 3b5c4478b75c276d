//! A robot that takes 20 messages a minute, and a lane that sends to it. The lane's clock stands still
//! while a request is under way, and jumps when nothing is: minutes take moments.

use std::convert::Infallible;
use std::sync::Mutex;
use std::sync::mpsc as blocking;
use std::thread;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use walhook::testing::config::settings::Channel;
use walhook::testing::config::settings::Overflow;
use walhook::testing::config::settings::PRESETS;
use walhook::testing::config::settings::WecomApp;
use walhook::testing::flow::backlog::BacklogPosition;
use walhook::testing::flow::backlog::RefilledRow;
use walhook::testing::flow::report_queue::report_queue;
use walhook::testing::flow::settlement::DeliveryOutcome;
use walhook::testing::flow::settlement::EndpointIndex;
use walhook::testing::lane;
use walhook::testing::lane::services::LaneServices;
use walhook::testing::lane::settings::LaneSettings;

use super::*;
use crate::support::receiver::Behaviour;
use crate::support::receiver::Request;

const MINUTE: Duration = Duration::from_secs(60);
const A_MINUTE: usize = 20;

/// What the robot knows: the time of the test, and when it took and refused.
#[derive(Default)]
struct Minute {
    now: Duration,
    taken: Vec<(Duration, String)>,
    refused: Vec<Duration>,
}

type Shared = Arc<Mutex<Minute>>;

/// Takes so many in any minute.
fn robot(minute: &Shared) -> Behaviour {
    let minute = Arc::clone(minute);
    Arc::new(move |request: &Request| {
        let mut minute = minute.lock().unwrap();
        let now = minute.now;
        let ok = |body: &str| Answer::status(200).body(body.to_owned());
        let recent = minute.taken.iter().filter(|(at, _)| now - *at < MINUTE).count();
        if recent >= A_MINUTE {
            minute.refused.push(now);
            return ok(r#"{"errcode":45009,"errmsg":"api freq out of limit"}"#);
        }
        let message = request.json();
        let content = message.pointer("/text/content").unwrap().as_str().unwrap().to_owned();
        minute.taken.push((now, content));
        ok(r#"{"errcode":0,"errmsg":"ok"}"#)
    })
}

/// Makes requests in real time, on a thread of its own.
fn courier(client: EndpointClient) -> blocking::Sender<(Lease, blocking::Sender<HttpExchange>)> {
    let (sender, leases) = blocking::channel::<(Lease, blocking::Sender<HttpExchange>)>();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for (lease, answer) in leases {
            answer.send(runtime.block_on(client.attempt(&lease, NOW))).ok();
        }
    });
    sender
}

/// Has the courier make the requests of a lane without a backlog.
struct CourierServices<T> {
    begun: Instant,
    tell_time: T,
    courier: blocking::Sender<(Lease, blocking::Sender<HttpExchange>)>,
}

impl<T: Fn(Duration) + Send + Sync> LaneServices for CourierServices<T> {
    type BacklogError = Infallible;

    async fn attempt(&self, lease: Lease) -> (Lease, HttpExchange) {
        (self.tell_time)(self.begun.elapsed());
        let (answer, answered) = blocking::channel();
        self.courier.send((lease.clone(), answer)).unwrap();
        // The thread waits and not the task: nothing is idle meanwhile, so the clock stands still.
        (lease, answered.recv().unwrap())
    }

    fn database_now(&self) -> Timestamp {
        NOW
    }

    fn may_send(&self) -> bool {
        true
    }

    async fn read_backlog(
        &self,
        _after: Option<BacklogPosition>,
        _rows: usize,
    ) -> Result<Vec<RefilledRow>, Infallible> {
        Ok(Vec::new())
    }
}

/// Has a lane deliver these messages; how each of them ended, and how long it took.
async fn deliver(
    endpoint: &Endpoint,
    messages: &[String],
    tell_time: impl Fn(Duration) + Send + Sync + 'static,
) -> (Vec<DeliveryOutcome>, Duration) {
    let (sender, task) = lane::open(LaneSettings::of(EndpointIndex(0), endpoint));
    let (reports, mut reported) = report_queue(1000);
    let (courier, stop) = (courier(client(endpoint)), CancellationToken::new());
    let begun = Instant::now();
    let services = CourierServices { begun, tell_time, courier };
    let run = task.run(&services, reports, stop.clone());
    let events = (0..).zip(messages).map(|(number, text)| {
        let body = serde_json::json!({ "msgtype": "text", "text": { "content": text } });
        event(number, vec![BodyPart::Bytes(Bytes::from(body.to_string()))])
    });
    let events: Vec<_> = events.collect();
    let wanted = events.len();
    let look = async {
        sender.send(events).await.unwrap();
        let mut outcomes = Vec::new();
        while outcomes.len() < wanted {
            let report = reported.recv().await.unwrap();
            outcomes.extend(report.settlements.into_iter().map(|settlement| settlement.outcome));
        }
        let took = begun.elapsed();
        stop.cancel();
        (outcomes, took)
    };
    let (ended, looked) = tokio::join!(run, look);
    ended.unwrap();
    looked
}

fn with_channel(url: &str, name: &str, rate_limit: Option<f64>) -> Endpoint {
    let preset = PRESETS.iter().find(|preset| preset.name == name).unwrap();
    let channel = Channel { preset, app: None, secret: None, overflow: Overflow::Split };
    let delays = RetryDelays::Exponential { max: 8, interval: Duration::from_secs(1) };
    Endpoint {
        channel: Some(channel),
        rate_limit: rate_limit.or(preset.rate_limit),
        retry: RetrySettings { delays, cap: 2 * MINUTE },
        capacity: NonZeroUsize::new(1000).unwrap(),
        ..endpoint(url)
    }
}

fn clock_of(minute: &Shared) -> impl Fn(Duration) + Send + Sync + 'static {
    let minute = Arc::clone(minute);
    move |now| minute.lock().unwrap().now = now
}

fn are_delivered(outcomes: &[DeliveryOutcome]) -> bool {
    outcomes.iter().all(|outcome| matches!(outcome, DeliveryOutcome::Delivered { .. }))
}

#[tokio::test(start_paused = true)]
async fn a_robot_is_sent_no_more_than_it_takes() {
    let minute = Shared::default();
    let robot = Receiver::start(robot(&minute));
    let messages: Vec<String> = (0..70).map(|number| format!("m{number}")).collect();
    let endpoint = with_channel(&robot.url(), "wecom-robot", None);
    let (outcomes, took) = deliver(&endpoint, &messages, clock_of(&minute)).await;
    assert!(are_delivered(&outcomes));
    assert!((3 * MINUTE..4 * MINUTE).contains(&took), "{took:?}");
    let minute = minute.lock().unwrap();
    assert!(minute.refused.is_empty(), "{:?}", minute.refused);
    let sent: Vec<&String> = minute.taken.iter().map(|(_, content)| content).collect();
    assert_eq!(sent, messages.iter().collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_for_the_rate_holds_the_whole_endpoint_for_a_minute() {
    let minute = Shared::default();
    let robot = Receiver::start(robot(&minute));
    let messages: Vec<String> = (0..50).map(|number| format!("m{number}")).collect();
    // The operator knows better.
    let endpoint = with_channel(&robot.url(), "wecom-robot", Some(100.0));
    let (outcomes, took) = deliver(&endpoint, &messages, clock_of(&minute)).await;
    assert!(are_delivered(&outcomes));
    assert!(took > 2 * MINUTE, "{took:?}");
    let minute = minute.lock().unwrap();
    assert!(!minute.refused.is_empty());
    let all = minute.taken.iter().map(|(at, _)| at).chain(&minute.refused);
    let all: Vec<Duration> = all.copied().collect();
    // Requests that were under way already may be refused, too.
    let soon = Duration::from_millis(100);
    for refused in &minute.refused {
        let early = all.iter().filter(|at| (*refused + soon..*refused + MINUTE).contains(*at));
        assert_eq!(early.count(), 0, "after {refused:?}: {all:?}");
    }
    let mut sent: Vec<&String> = minute.taken.iter().map(|(_, content)| content).collect();
    sent.sort();
    sent.dedup();
    assert_eq!(sent.len(), messages.len(), "each once");
    assert_eq!(minute.taken.len(), messages.len());
}

#[tokio::test(start_paused = true)]
async fn the_pieces_of_a_message_count_for_the_rate() {
    let minute = Shared::default();
    let robot = Receiver::start(robot(&minute));
    let messages: Vec<String> = (0..8).map(|number| number.to_string().repeat(5 * 2048)).collect();
    let endpoint = with_channel(&robot.url(), "wecom-robot", None);
    let (outcomes, took) = deliver(&endpoint, &messages, clock_of(&minute)).await;
    assert!(are_delivered(&outcomes));
    assert!(took > MINUTE + MINUTE / 2, "{took:?}");
    let minute = minute.lock().unwrap();
    assert_eq!((minute.refused.len(), minute.taken.len()), (0, 40));
    let whole: String = minute.taken.iter().map(|(_, piece)| piece.as_str()).collect();
    assert_eq!(whole, messages.concat());
}

#[tokio::test(start_paused = true)]
async fn tokens_that_end_under_way_cost_no_message_and_no_attempt() {
    let issued = Arc::new(Mutex::new((0_u32, 0_u32)));
    let state = Arc::clone(&issued);
    let wecom = Receiver::start(Arc::new(move |request: &Request| {
        let (token, sends) = &mut *state.lock().unwrap();
        let ok = |body: String| Answer::status(200).body(body);
        if request.path.starts_with("/cgi-bin/gettoken") {
            (*token, *sends) = (*token + 1, 0);
            return ok(format!(
                r#"{{"errcode":0,"errmsg":"ok","access_token":"t{token}","expires_in":7200}}"#
            ));
        }
        *sends += 1;
        // Each is good for seven messages, whatever it said.
        if *sends > 7 || !request.path.ends_with(&format!("access_token=t{token}")) {
            return ok(r#"{"errcode":42001,"errmsg":"access_token expired"}"#.into());
        }
        ok(r#"{"errcode":0,"errmsg":"ok","msgid":"m"}"#.into())
    }));
    let at = |path: &str| Secret::new(Url::parse(&wecom.url()).unwrap().join(path).unwrap());
    let mut endpoint = with_channel(&wecom.url(), "wecom-app", None);
    endpoint.url = at("/cgi-bin/message/send");
    endpoint.channel.as_mut().unwrap().app = Some(WecomApp {
        token_url: at("/cgi-bin/gettoken"),
        corp_id: "ww1".into(),
        corp_secret: Secret::new("hunter2".into()),
        agent_id: 1,
    });
    // No attempt is to spare.
    endpoint.retry.delays = RetryDelays::List(Vec::new());
    let messages: Vec<String> = (0..50).map(|number| format!("m{number}")).collect();
    let (outcomes, _took) = deliver(&endpoint, &messages, |_| ()).await;
    assert!(are_delivered(&outcomes), "{outcomes:?}");
    assert_eq!(issued.lock().unwrap().0, 8, "fifty messages, seven to a token");
}
