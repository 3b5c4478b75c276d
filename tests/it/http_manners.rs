//! One attempt against receivers that behave, and receivers that do not.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

mod addresses;
mod channel_limits;
mod channels;
mod hostile;
mod links;
mod oauth;
mod requests;
mod signatures;
mod streams;
mod tls;

use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytes::BytesMut;
use http::HeaderMap;
use reqwest::dns::Addrs;
use reqwest::dns::Name;
use reqwest::dns::Resolve;
use reqwest::dns::Resolving;
use rustls::RootCertStore;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use url::Url;
use walhook::testing::config::endpoint_connection::ConnectionLink;
use walhook::testing::config::secret::Secret;
use walhook::testing::config::settings::AddressPolicy;
use walhook::testing::config::settings::AnswerRule;
use walhook::testing::config::settings::BatchSettings;
use walhook::testing::config::settings::Endpoint;
use walhook::testing::config::settings::KeyOrdering;
use walhook::testing::config::settings::ParkingSettings;
use walhook::testing::config::settings::RetryDelays;
use walhook::testing::config::settings::RetrySettings;
use walhook::testing::delivery::http::EndpointClient;
use walhook::testing::delivery::network::DeliveryNetwork;
use walhook::testing::flow::body::BodyPart;
use walhook::testing::flow::body::EventBody;
use walhook::testing::flow::event::Event;
use walhook::testing::flow::event::EventFacts;
use walhook::testing::flow::event::EventId;
use walhook::testing::flow::event::IdOrigin;
use walhook::testing::flow::key::EventKeys;
use walhook::testing::flow::lease::Lease;
use walhook::testing::flow::lease::LeaseId;
use walhook::testing::flow::lsn::Lsn;
use walhook::testing::flow::lsn::Position;
use walhook::testing::flow::relation::TableName;
use walhook::testing::flow::time::Timestamp;
use walhook::testing::flow::verdict::AttemptVerdict;
use walhook::testing::flow::verdict::FailureClass;
use walhook::testing::flow::verdict::HttpExchange;

use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::receiver::in_turn;

const NOW: Timestamp = Timestamp::from_seconds(1_700_000_000);

const RETRY: AttemptVerdict = AttemptVerdict::Retry { at_least: None };

/// Far more than anything here takes on 127.0.0.1, also on a busy machine.
const AMPLE: Duration = Duration::from_secs(20);

/// For exchanges that are to run into it.
const SHORT: Duration = Duration::from_millis(200);

fn endpoint(url: &str) -> Endpoint {
    Endpoint {
        name: "crm".into(),
        enabled: true,
        url: Secret::new(Url::parse(url).unwrap()),
        events: Vec::new(),
        only: None,
        filter: None,
        payload: None,
        signing: None,
        auth: None,
        channel: None,
        headers: HeaderMap::new(),
        user_agent: String::from("walhook-test"),
        timeout: AMPLE,
        retry: RetrySettings {
            delays: RetryDelays::List(Vec::new()),
            cap: Duration::from_secs(60),
        },
        concurrency: NonZeroUsize::new(4).unwrap(),
        batch: BatchSettings { size: NonZeroUsize::MIN, linger: Duration::ZERO },
        ordering: KeyOrdering::Key,
        capacity: NonZeroUsize::MIN,
        rate_limit: None,
        parking: ParkingSettings::default(),
        answers: AnswerRule::default(),
        addresses: AddressPolicy::Operator,
        link: ConnectionLink::default(),
        response_limit: 64 * 1024,
        test: None,
        renamed_from: None,
        unusable: None,
        request: walhook::testing::config::settings::RequestTemplate::default(),
        places: walhook::testing::config::settings::SourcePlaces::default(),
    }
}

fn event(ordinal: u32, parts: Vec<BodyPart>) -> Arc<Event> {
    let position = Position { commit: Lsn::from_raw(0x16_B374_D848), ordinal };
    Arc::new(Event {
        id: EventId::new(position, IdOrigin::new(7, "orders.insert")),
        sequence: u64::from(ordinal),
        position,
        event_type: "orders.insert".into(),
        table: Arc::new(TableName::new("public", "orders")),
        committed: NOW,
        keys: EventKeys::NONE,
        expiry: None,
        body: EventBody::new(parts),
        facts: EventFacts::default(),
        write_back: None,
        held: None,
    })
}

fn lease_of(events: Vec<Arc<Event>>) -> Lease {
    Lease { id: LeaseId(1), attempt: 1, replay: false, events }
}

fn lease() -> Lease {
    lease_of(vec![event(0, vec![BodyPart::Bytes(Bytes::from_static(br#"{"id":1}"#))])])
}

fn client(endpoint: &Endpoint) -> EndpointClient {
    let roots = RootCertStore::empty();
    EndpointClient::new(endpoint, &DeliveryNetwork::new(Arc::new(Names::default()), roots)).unwrap()
}

/// One attempt with a plain endpoint.
async fn attempt(url: &str, timeout: Duration) -> HttpExchange {
    let endpoint = Endpoint { timeout, ..endpoint(url) };
    client(&endpoint).attempt(&lease(), NOW).await
}

fn class(exchange: &HttpExchange) -> Option<FailureClass> {
    exchange.failure.as_ref().map(|failure| failure.class)
}

/// A resolver that knows these names only. An empty list is an answer without addresses.
#[derive(Clone, Default)]
struct Names(Vec<(&'static str, Vec<SocketAddr>)>);

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let found = self.0.iter().find(|(known, _)| *known == name.as_str());
        let found = found.map(|(_, addresses)| addresses.clone());
        Box::pin(async move {
            let addresses = found.ok_or("no such name")?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[tokio::test]
async fn each_status_has_its_verdict() {
    let gone = AttemptVerdict::Gone;
    let cases = [
        (200, AttemptVerdict::Delivered),
        (202, AttemptVerdict::Delivered),
        (204, AttemptVerdict::Delivered),
        (101, AttemptVerdict::Dead),
        (300, AttemptVerdict::Dead),
        (304, AttemptVerdict::Dead),
        (400, AttemptVerdict::Dead),
        (401, AttemptVerdict::Dead),
        (404, AttemptVerdict::Dead),
        (408, RETRY),
        (410, gone),
        (413, AttemptVerdict::Dead),
        (425, RETRY),
        (429, RETRY),
        (500, RETRY),
        (503, RETRY),
        (599, RETRY),
    ];
    let receiver = Receiver::start(always(Answer::Hang));
    for (status, expected) in cases {
        receiver.behave(always(Answer::status(status)));
        let exchange = attempt(&receiver.url(), AMPLE).await;
        assert_eq!(exchange.verdict, expected, "case: {status}");
        assert_eq!(exchange.status, Some(status), "case: {status}");
        let expected = (expected != AttemptVerdict::Delivered).then_some(FailureClass::Status);
        assert_eq!(class(&exchange), expected, "case: {status}");
    }
}

#[tokio::test]
async fn redirects_are_never_followed() {
    let elsewhere = Receiver::start(always(Answer::status(200)));
    for status in [301, 302, 303, 307, 308] {
        let answer = Answer::status(status).header("location", &elsewhere.url());
        let receiver = Receiver::start(always(answer));
        let exchange = attempt(&receiver.url(), AMPLE).await;
        assert_eq!(exchange.verdict, AttemptVerdict::Dead, "case: {status}");
        let failure = exchange.failure.unwrap().to_string();
        assert_eq!(failure, format!("status: {status}, redirects are not followed"));
    }
    assert_eq!(elsewhere.count(), 0);
}

#[tokio::test]
async fn a_wait_that_the_receiver_asks_for_is_reported_in_both_forms() {
    let after = |seconds| AttemptVerdict::Retry { at_least: Some(Duration::from_secs(seconds)) };
    let cases = [
        ("7", after(7)),
        ("Tue, 14 Nov 2023 22:13:50 GMT", after(30)), // NOW is 22:13:20
        ("Tue, 14 Nov 2023 22:00:00 GMT", after(0)),
        ("tomorrow", RETRY),
    ];
    for status in [429, 503] {
        for (value, expected) in &cases {
            let answer = Answer::status(status).header("retry-after", value);
            let receiver = Receiver::start(always(answer));
            let exchange = attempt(&receiver.url(), AMPLE).await;
            assert_eq!(exchange.verdict, *expected, "case: {status}, {value}");
        }
    }
}

#[tokio::test]
async fn the_deadline_covers_the_response_to_its_last_byte() {
    let drip = Answer::Drip { every: Duration::from_millis(10) };
    let cases = [
        ("hangs", Answer::Hang, None),
        ("answers too late", Answer::status(200).after(AMPLE), None),
        ("drips", drip, Some(200)),
    ];
    for (name, answer, status) in cases {
        let receiver = Receiver::start(always(answer));
        let exchange = attempt(&receiver.url(), SHORT).await;
        assert_eq!(exchange.verdict, RETRY, "case: {name}");
        assert_eq!(class(&exchange), Some(FailureClass::Timeout), "case: {name}");
        assert_eq!(exchange.status, status, "case: {name}");
        assert!(exchange.took >= SHORT && exchange.took < AMPLE, "case: {name}");
        assert_eq!(exchange.response_body.is_empty(), status.is_none(), "case: {name}");
        assert_eq!(receiver.count(), 1, "case: {name}");
    }
}

#[tokio::test]
async fn a_slow_answer_within_the_deadline_is_as_good_as_a_quick_one() {
    let receiver = Receiver::start(always(Answer::status(200).after(SHORT)));
    let exchange = attempt(&receiver.url(), AMPLE).await;
    assert_eq!(exchange.verdict, AttemptVerdict::Delivered);
    assert!(exchange.took >= SHORT);
}

#[tokio::test]
async fn connections_are_kept_and_a_closed_one_costs_no_failure() {
    let first = Receiver::start(always(Answer::status(200).body("thanks")));
    let address = first.address();
    let client = client(&endpoint(&first.url()));
    for _ in 0..5 {
        assert_eq!(client.attempt(&lease(), NOW).await.verdict, AttemptVerdict::Delivered);
    }
    let requests = first.requests();
    assert!(requests.iter().all(|request| request.connection == 1), "{requests:?}");
    assert!(requests.is_sorted_by_key(|request| (request.number, request.arrived)));
    drop(first);
    // The pool has to see that its connection was closed, which no call can wait for.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let second = Receiver::start_on(address, always(Answer::status(200)));
    assert_eq!(client.attempt(&lease(), NOW).await.verdict, AttemptVerdict::Delivered);
    assert_eq!(second.count(), 1);
}

#[tokio::test]
async fn a_connection_that_was_idle_for_long_is_not_used_again() {
    let receiver = Receiver::start(always(Answer::status(200)));
    let client = client(&endpoint(&receiver.url()));
    for idle in [Duration::ZERO, Duration::from_secs(49), Duration::from_secs(51)] {
        tokio::time::pause();
        tokio::time::advance(idle).await;
        tokio::time::resume();
        assert_eq!(client.attempt(&lease(), NOW).await.verdict, AttemptVerdict::Delivered);
    }
    let connections: Vec<_> = receiver.requests().iter().map(|r| r.connection).collect();
    assert_eq!(connections, [1, 1, 2]);
}

#[tokio::test]
async fn an_idle_connection_that_the_peer_has_closed_is_given_up() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let client = client(&endpoint(&format!("http://{}/", listener.local_addr().unwrap())));
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = BytesMut::new();
        while !request.ends_with(br#"{"id":1}"#) {
            stream.read_buf(&mut request).await.unwrap();
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        stream
    };
    let lease = lease();
    let (exchange, mut stream) = tokio::join!(client.attempt(&lease, NOW), serve);
    assert_eq!(exchange.verdict, AttemptVerdict::Delivered);
    stream.shutdown().await.unwrap();
    tokio::time::pause(); // and the time passes by itself while nothing else happens
    tokio::select! {
        never = client.tidy() => match never {},
        read = stream.read_u8() => assert!(read.is_err(), "the other side is still open"),
        () = tokio::time::sleep(Duration::from_secs(30)) => panic!("it is still open"),
    }
}

#[tokio::test]
async fn idle_connections_are_closed_on_demand_and_those_in_use_are_not() {
    let receiver = Receiver::start(in_turn(vec![Answer::status(200), Answer::status(200)]));
    let client = client(&endpoint(&receiver.url()));
    for _ in 0..2 {
        assert_eq!(client.attempt(&lease(), NOW).await.verdict, AttemptVerdict::Delivered);
        client.close_idle();
    }
    let connections: Vec<_> = receiver.requests().iter().map(|r| r.connection).collect();
    assert_eq!(connections, [1, 2]);

    let slow = Receiver::start(always(Answer::status(200).after(Duration::from_millis(300))));
    let client = self::client(&endpoint(&slow.url()));
    let lease = lease();
    let (exchange, ()) = tokio::join!(client.attempt(&lease, NOW), async {
        slow.wait_for(1, AMPLE).await;
        client.close_idle();
    });
    assert_eq!(exchange.verdict, AttemptVerdict::Delivered);
}

#[tokio::test]
async fn attempts_run_side_by_side_and_a_hanging_one_holds_up_no_other() {
    let answers = vec![Answer::Hang, Answer::status(200), Answer::status(500)];
    let receiver = Receiver::start(in_turn(answers));
    let client = Arc::new(client(&endpoint(&receiver.url())));
    let hanging = {
        let client = Arc::clone(&client);
        let mut attempts = tokio::task::JoinSet::new();
        attempts.spawn(async move { client.attempt(&lease(), NOW).await });
        attempts
    };
    receiver.wait_for(1, AMPLE).await;
    assert_eq!(client.attempt(&lease(), NOW).await.verdict, AttemptVerdict::Delivered);
    assert_eq!(client.attempt(&lease(), NOW).await.verdict, RETRY);
    assert_eq!(hanging.len(), 1);
}
