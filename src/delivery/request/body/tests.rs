//! `delivery::request::body`, by cases and properties.

use super::*;
use http_body::Body as _;
use proptest::prelude::*;
use std::task::Waker;

use crate::config::secret::Secret;
use crate::config::settings::Signing;
use crate::config::settings::StandardKey;
use crate::delivery::request::sign::RequestSigner;
use crate::flow::body::EventBody;
use crate::flow::event::EventFacts;
use crate::flow::event::EventId;
use crate::flow::event::IdOrigin;
use crate::flow::key::EventKeys;
use crate::flow::lsn::Position;
use crate::flow::relation::TableName;

const NOW: Timestamp = Timestamp::from_seconds(1_700_000_000);

fn event(parts: Vec<BodyPart>) -> Arc<Event> {
    Arc::new(Event {
        id: EventId::new(Position::default(), IdOrigin::new(1, "t")),
        sequence: 0,
        position: Position::default(),
        event_type: "t".into(),
        table: Arc::new(TableName::new("public", "t")),
        committed: NOW,
        keys: EventKeys::NONE,
        expiry: None,
        body: EventBody::new(parts),
        facts: EventFacts::default(),
        write_back: None,
        held: None,
    })
}

fn text(text: &str) -> BodyPart {
    BodyPart::Bytes(Bytes::copy_from_slice(text.as_bytes()))
}

/// All bytes as the connection would get them, and the length promised at the start.
fn drain(outgoing: OutgoingBody) -> (Vec<u8>, u64) {
    match outgoing {
        OutgoingBody::Whole(whole) => (whole.to_vec(), whole.len() as u64),
        OutgoingBody::Streamed(mut stream) => {
            let promised = stream.size_hint().exact().unwrap();
            let mut all = Vec::new();
            let mut context = Context::from_waker(Waker::noop());
            while let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut stream).poll_frame(&mut context)
            {
                let data = frame.into_data().unwrap();
                assert!((1..=FRAME_MAX_BYTES).contains(&data.len()));
                all.extend_from_slice(&data);
                assert_eq!(stream.size_hint().exact(), Some(promised - all.len() as u64));
            }
            assert!(stream.is_end_stream());
            (all, promised)
        }
    }
}

fn signer() -> RequestSigner {
    RequestSigner::new(&Signing::Standard {
        keys: vec![StandardKey::Symmetric(Secret::new(vec![9; 32]))],
    })
}

#[tokio::test]
async fn a_batch_is_the_array_of_its_events_bodies() {
    let one = event(vec![text(r#"{"at":"#), BodyPart::AttemptSeconds, text("}")]);
    let two = event(vec![text(r#"{"b":2}"#)]);
    let cases = [
        ("single", vec![&one], false, r#"{"at":1700000000}"#),
        ("batch of one", vec![&one], true, r#"[{"at":1700000000}]"#),
        ("batch", vec![&one, &two], true, r#"[{"at":1700000000},{"b":2}]"#),
        ("empty batch", vec![], true, "[]"),
    ];
    for (name, events, batched, expected) in cases {
        let events: Vec<_> = events.into_iter().cloned().collect();
        let (body, _) = drain(complete(&events, batched, NOW, None, None).await);
        assert_eq!(String::from_utf8(body).unwrap(), expected, "case: {name}");
    }
}

#[tokio::test]
async fn a_body_with_nothing_to_fill_in_is_not_copied() {
    let event = event(vec![text(r#"{"a":1}"#)]);
    let [BodyPart::Bytes(rendered)] = event.body.parts() else { panic!("one part was given") };
    let OutgoingBody::Whole(sent) = complete(&[Arc::clone(&event)], false, NOW, None, None).await
    else {
        panic!("it is small")
    };
    assert_eq!(sent.as_ptr(), rendered.as_ptr());
}

#[tokio::test]
async fn a_large_body_is_streamed_with_the_length_and_signature_of_the_whole() {
    let long = "\"張🦀\n".repeat(200_000);
    let large = event(vec![
        text(r#"{"note":""#),
        BodyPart::Escaped(Bytes::from(long.clone())),
        text("\"}"),
    ]);
    let rendered = event(vec![text("\""), text(&"x".repeat(3 << 20)), text("\"")]);
    for (name, events) in [("escaped", vec![large.clone()]), ("both", vec![large, rendered])] {
        let signer = signer();
        let mut streamed = signer.begin("evt_1", "1");
        let outgoing = complete(&events, true, NOW, Some(&mut streamed), None).await;
        assert!(matches!(outgoing, OutgoingBody::Streamed(_)), "case: {name}");
        let (body, promised) = drain(outgoing);
        assert_eq!(body.len() as u64, promised, "case: {name}");
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(json[0]["note"], long, "case: {name}");
        let mut whole = signer.begin("evt_1", "1");
        whole.add(&body);
        assert_eq!(streamed.finish(), whole.finish(), "case: {name}");
    }
}

proptest! {
    #[test]
    fn streamed_or_assembled_the_bytes_are_the_same(
        bodies in prop::collection::vec(prop::collection::vec(".{0,20}", 0..4), 0..4),
        batched: bool,
    ) {
        let events: Vec<_> = bodies
            .iter()
            .map(|parts| event(parts.iter().map(|part| text(part)).collect()))
            .collect();
        let joined: Vec<String> = bodies.iter().map(|parts| parts.concat()).collect();
        let expected =
            if batched { format!("[{}]", joined.join(",")) } else { joined.concat() };
        let pieces = BodyPieces::new(events.clone(), batched, NOW);
        let left = expected.len() as u64;
        let stream = BodyStream { pieces, frame: Bytes::new(), left, sent: None };
        prop_assert_eq!(drain(OutgoingBody::Streamed(stream)).0, expected.as_bytes());
        prop_assert_eq!(&assemble(&events, batched, NOW), expected.as_bytes());
    }
}
