//! Peers that reset, lie, babble and never end: each attempt still comes to an outcome.

use super::*;
use std::net::Ipv4Addr;

use walhook::testing::config::settings::BodyRule;

use crate::support::receiver::raw::RawServer;
use crate::support::receiver::raw::Step;

fn send(bytes: impl Into<Bytes>) -> Step {
    Step::Send(bytes.into())
}

fn answer(bytes: impl Into<Bytes>) -> Vec<Step> {
    vec![Step::ReadRequest, send(bytes)]
}

const OK_HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n";

#[tokio::test]
async fn a_peer_that_breaks_off_is_tried_again() {
    let with_reset = |mut steps: Vec<Step>| {
        steps.push(Step::Reset);
        steps
    };
    let pause = || Step::Pause(Duration::from_millis(20));
    let cases = vec![
        ("closes at once", vec![], None),
        ("closes after the request", vec![Step::ReadRequest], None),
        ("resets before headers", vec![Step::ReadRequest, Step::Reset], None),
        ("half-closes before headers", vec![Step::ReadRequest, Step::HalfClose, Step::Hang], None),
        ("stops in the headers", answer("HTTP/1.1 200 OK\r\ncontent-le"), None),
        ("resets in the headers", with_reset(answer("HTTP/1.1 200 OK\r\n")), None),
        ("closes in the body", answer(format!("{OK_HEAD}half")), Some(200)),
        (
            "resets in the body",
            vec![Step::ReadRequest, send(format!("{OK_HEAD}half")), pause(), Step::Reset],
            Some(200),
        ),
        (
            "half-closes in the body",
            vec![Step::ReadRequest, send(OK_HEAD), Step::HalfClose, Step::Hang],
            Some(200),
        ),
    ];
    expect_protocol_failures(cases).await;
}

/// As curl does.
#[tokio::test]
async fn an_answer_that_does_not_keep_to_the_letter_is_taken_as_it_is_meant() {
    let many: String = (0..250).map(|n| format!("x-{n}: {n}\r\n")).collect();
    let cases = [
        ("a space before the colon", "content-length : 2\r\n".to_owned()),
        ("a folded line", "x-note: one\r\n two\r\n\tthree\r\ncontent-length: 2\r\n".to_owned()),
        ("many headers", format!("{many}content-length: 2\r\n")),
        ("a line without a colon", "Set by proxy\r\ncontent-length: 2\r\n".to_owned()),
        ("a name with a space in it", "x note: one\r\ncontent-length: 2\r\n".to_owned()),
        ("a header without a name", ": one\r\ncontent-length: 2\r\n".to_owned()),
        ("a folded line before all", " one\r\ncontent-length: 2\r\n".to_owned()),
    ];
    for (name, headers) in cases {
        let text = format!("HTTP/1.1 200 OK\r\n{headers}\r\n{{}}");
        let server = RawServer::start(answer(text));
        let exchange = client(&endpoint(&server.url())).attempt(&lease(), NOW).await;
        assert_eq!(exchange.verdict, AttemptVerdict::Delivered, "case: {name}: {exchange:?}");
        assert_eq!(exchange.response_body, "{}", "case: {name}");
    }
    // A byte order mark before the JSON that the rule looks at.
    let text = "HTTP/1.1 200 OK\r\ncontent-length: 17\r\n\r\n\u{FEFF}{\"errcode\": 0}";
    let server = RawServer::start(answer(text));
    let body = BodyRule { pointer: "/errcode".to_owned(), equals: 0.into() };
    let answers = AnswerRule { body: Some(body), ..AnswerRule::default() };
    let endpoint = Endpoint { answers, ..endpoint(&server.url()) };
    let exchange = client(&endpoint).attempt(&lease(), NOW).await;
    assert_eq!(exchange.verdict, AttemptVerdict::Delivered, "{exchange:?}");
}

/// hyper has room for 100 of them, unless it is given more: a response with more is read once more.
#[tokio::test]
async fn a_response_with_many_headers_is_heard_without_a_second_request() {
    let mut many = Answer::status(200).body("{}");
    for n in 0..150 {
        many = many.header(&format!("x-{n}"), "1");
    }
    let receiver = Receiver::start(always(many));
    let client = client(&endpoint(&receiver.url()));
    for _ in 0..3 {
        let exchange = client.attempt(&lease(), NOW).await;
        assert_eq!(exchange.verdict, AttemptVerdict::Delivered, "{exchange:?}");
        assert_eq!(exchange.response_body, "{}");
        assert_eq!(exchange.response_headers.by_name()["x-149"], "1");
    }
    // The first connection cannot be used on, the second has room for all that comes.
    let connections: Vec<_> = receiver.requests().iter().map(|got| got.connection).collect();
    assert_eq!(connections, [1, 2, 2]);
}

#[tokio::test]
async fn a_response_with_many_headers_may_come_in_pieces() {
    let headers = |from: u32, to: u32| -> String {
        (from..to).map(|n| format!("x-{n}: {}\r\n", "y".repeat(20))).collect()
    };
    let pause = || Step::ResetIfHalfClosed(Duration::from_millis(100));
    let server = RawServer::start(vec![
        Step::ReadRequest,
        send(format!("HTTP/1.1 201 Created\r\n{}", headers(0, 120))),
        pause(),
        send(format!("{}transfer-encoding: chunked\r\n\r\n2\r\n{{\"", headers(120, 300))),
        pause(),
        send("\r\n6\r\na\": 1}\r\n0\r\n\r\n"),
        Step::Hang,
    ]);
    let exchange = attempt(&server.url(), AMPLE).await;
    let heard = (exchange.verdict, exchange.status);
    assert_eq!(heard, (AttemptVerdict::Delivered, Some(201)));
    assert_eq!(exchange.response_body, r#"{"a": 1}"#);
    let breaks_off = format!("HTTP/1.1 200 OK\r\n{}", headers(0, 120));
    let too_many = format!("HTTP/1.1 200 OK\r\n{}content-length: 0\r\n\r\n", headers(0, 1000));
    expect_protocol_failures(vec![
        ("breaks off in many headers", answer(breaks_off), None),
        ("more headers than are read", answer(too_many), None),
    ])
    .await;
}

#[tokio::test]
async fn a_peer_that_talks_nonsense_is_tried_again() {
    let cases = vec![
        ("HTTP/0.9", answer("<html>hello</html>"), None),
        ("another protocol", answer("SSH-2.0-OpenSSH_9.2\r\n"), None),
        ("bytes without sense", answer(vec![0xff_u8; 4096]), None),
        ("status that is none", answer("HTTP/1.1 2000 OK\r\n\r\n"), None),
        (
            "two lengths",
            answer("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"),
            None,
        ),
        ("a NUL in a header", answer("HTTP/1.1 200 OK\r\nx-note: a\0b\r\n\r\n"), None),
        (
            "endless head",
            vec![
                Step::ReadRequest,
                send("HTTP/1.1 200 OK\r\na: "),
                Step::Repeat(Bytes::from(vec![b'x'; 4096])),
            ],
            None,
        ),
        (
            "endless headers",
            vec![
                Step::ReadRequest,
                send("HTTP/1.1 200 OK\r\n"),
                Step::Repeat(Bytes::from_static(b"a: b\r\n")),
            ],
            None,
        ),
        (
            "chunked garbage",
            answer("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nhello"),
            Some(200),
        ),
        (
            "chunk of a length that no machine has",
            answer("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n"),
            Some(200),
        ),
    ];
    expect_protocol_failures(cases).await;
}

/// Each case is a name, what the peer does, and the status that is heard.
async fn expect_protocol_failures(cases: Vec<(&str, Vec<Step>, Option<u16>)>) {
    for (name, steps, status) in cases {
        let server = RawServer::start(steps);
        let exchange = attempt(&server.url(), AMPLE).await;
        assert_eq!(exchange.verdict, RETRY, "case: {name}: {exchange:?}");
        assert_eq!(class(&exchange), Some(FailureClass::Protocol), "case: {name}: {exchange:?}");
        assert_eq!(exchange.status, status, "case: {name}");
        let detail = exchange.failure.unwrap().detail;
        assert!(!detail.contains("127.0.0.1") && !detail.contains("hooks"), "{name}: {detail}");
        assert_eq!(name.contains("chunk"), detail.contains("chunked body"), "{name}: {detail}");
        assert_eq!(name.contains("NUL"), detail.contains("NUL"), "{name}: {detail}");
        assert!(exchange.took < AMPLE, "case: {name}");
    }
}

#[tokio::test]
async fn a_storm_of_interim_responses_ends_at_the_deadline() {
    let storm = Step::Repeat(Bytes::from_static(b"HTTP/1.1 103 Early Hints\r\na: b\r\n\r\n"));
    let server = RawServer::start(vec![Step::ReadRequest, storm]);
    let exchange = attempt(&server.url(), SHORT).await;
    assert_eq!((exchange.verdict.clone(), exchange.status), (RETRY, None));
    assert_eq!(class(&exchange), Some(FailureClass::Timeout));
}

#[tokio::test]
async fn an_interim_response_or_two_do_no_harm() {
    let bytes =
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No\r\n\r\n";
    let server = RawServer::start(answer(bytes));
    let exchange = attempt(&server.url(), AMPLE).await;
    assert_eq!((exchange.verdict, exchange.status), (AttemptVerdict::Delivered, Some(204)));
}

#[tokio::test]
async fn a_body_without_end_is_cut_and_the_status_decides() {
    let head = |status: &str| send(format!("HTTP/1.1 {status} X\r\n\r\n"));
    let cases = [("200", AttemptVerdict::Delivered), ("404", AttemptVerdict::Dead), ("500", RETRY)];
    for (status, expected) in cases {
        let flood = Step::Repeat(Bytes::from(vec![b'x'; 64 * 1024]));
        let server = RawServer::start(vec![Step::ReadRequest, head(status), flood]);
        let exchange = attempt(&server.url(), AMPLE).await;
        assert_eq!(exchange.verdict, expected, "case: {status}");
        assert_eq!(exchange.response_body.len(), 64 * 1024, "case: {status}");
        assert!(exchange.took < AMPLE, "case: {status}");
    }
}

#[tokio::test]
async fn a_compressed_body_is_kept_as_it_came() {
    // What 10 GB of zeros become; nothing here unpacks it.
    let bomb = Bytes::from(vec![0x1f; 500_000]);
    let answer = Answer::status(200).header("content-encoding", "gzip").body(bomb);
    let receiver = Receiver::start(always(answer));
    let exchange = attempt(&receiver.url(), AMPLE).await;
    assert_eq!(exchange.verdict, AttemptVerdict::Delivered);
    assert_eq!(exchange.response_body, vec![0x1f; 64 * 1024]);
}

#[tokio::test]
async fn large_headers_are_borne_and_little_of_them_is_kept() {
    let mut head = String::from("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n");
    for n in 0..10 {
        head.push_str(&format!("x-{n}: {}\r\n", "y".repeat(10_000)));
    }
    let server = RawServer::start(answer(head + "\r\n"));
    let exchange = attempt(&server.url(), AMPLE).await;
    assert_eq!(exchange.verdict, AttemptVerdict::Delivered, "{exchange:?}");
    let kept = exchange.response_headers.len();
    assert!((10_000..=16 * 1024).contains(&kept), "{kept}");
}

#[tokio::test]
async fn an_early_refusal_of_a_large_body_is_heard() {
    // The answer comes while the body is being sent, and nobody reads on.
    let early = "HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n";
    let server = RawServer::start(vec![Step::ReadSome, send(early), Step::Hang]);
    let text = Bytes::from(vec![b'x'; 8 << 20]);
    let lease = lease_of(vec![event(0, vec![BodyPart::Bytes(text)])]);
    let exchange = client(&endpoint(&server.url())).attempt(&lease, NOW).await;
    assert_eq!(
        (exchange.verdict.clone(), exchange.status),
        (AttemptVerdict::Dead, Some(413)),
        "{exchange:?}"
    );
}

#[tokio::test]
async fn a_receiver_that_reads_nothing_ends_at_the_deadline() {
    let server = RawServer::start(vec![Step::Hang]);
    let text = Bytes::from(vec![b'x'; 32 << 20]);
    let lease = lease_of(vec![event(0, vec![BodyPart::Bytes(text)])]);
    let endpoint = Endpoint { timeout: SHORT, ..endpoint(&server.url()) };
    let exchange = client(&endpoint).attempt(&lease, NOW).await;
    assert_eq!(class(&exchange), Some(FailureClass::Timeout));
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_a_failure_to_connect() {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let exchange = attempt(&format!("http://{address}/"), AMPLE).await;
    assert_eq!(exchange.verdict, RETRY);
    assert_eq!(exchange.failure.unwrap().to_string(), "connect: connection refused");
}
