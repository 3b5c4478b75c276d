//! Events as messages, and messages as events.
//!
//! ```text
//! message  one event or more, one after the other, or a piece of a large one
//! event    length of what follows (u32, big-endian), JSON of all but the bodies, each body as it is stored
//! ```
//!
//! Pure. The bytes come from elsewhere: what is no message is refused and never panics.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Buf;
use bytes::Bytes;
use serde::Deserialize;
use serde::Serialize;

use crate::flow::body::EventBody;
use crate::flow::event::Event;
use crate::flow::event::EventExpiry;
use crate::flow::event::EventFacts;
use crate::flow::event::EventId;
use crate::flow::event::RuleIndex;
use crate::flow::key::EventKeys;
use crate::flow::key::KeyHash;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::flow::relation::TableName;
use crate::flow::time::Timestamp;
use crate::flow::write_back::TargetRow;
use crate::relay::place::MessagePlace;
use crate::store::body_codec;

/// Raised with each change that an older walhook would not understand.
const VERSION: u8 = 2;

/// Of the length of what stands before an event's bodies.
const LENGTH_BYTES: usize = 4;

/// What a piece of an event has at most, so that it is below any broker's limit.
const PIECE_BYTES: usize = 512 * 1024;

/// The bytes are no message, or one of a newer walhook.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MessageError {
    #[error(
        "the message has no header {name}, or not what belongs there: who else publishes there?"
    )]
    Header { name: &'static str },
    #[error(
        "the message has version {version}, this walhook knows {VERSION}: run the same everywhere"
    )]
    Version { version: u8 },
    #[error("the message has an event whose id is none")]
    Id,
    #[error("the message ends too early")]
    Short,
    #[error("the message cannot be read")]
    Json(#[from] serde_json::Error),
    #[error("the body of an event in the message cannot be read")]
    Body(#[from] body_codec::BodyError),
    #[error("the event of the message is too large")]
    TooLarge,
}

/// One shape of an event, and the endpoints that get it.
#[derive(Clone, Debug)]
pub(crate) struct RelayedShape {
    pub(crate) body: EventBody,
    pub(crate) takers: Vec<Arc<str>>,
}

/// An event as it comes out of a message. Its body is that of the first shape.
#[derive(Debug)]
pub(crate) struct RelayedEvent {
    pub(crate) place: MessagePlace,
    pub(crate) event: Box<Event>,
    pub(crate) takers: Vec<Arc<str>>,
    /// Those who get it in another shape are among `takers`, too.
    pub(crate) others: Vec<RelayedShape>,
    /// Those of the takers that no configuration file has: its owner may not know them yet, or not any more.
    pub(crate) made: Vec<Arc<str>>,
    /// How much its owner has to know of the endpoints that several members change.
    pub(crate) known: i64,
}

/// All of an event but its bodies. Its texts stay where they are: most of them are looked at once.
#[derive(Deserialize, Serialize)]
struct WireEvent<'a> {
    version: u8,
    #[serde(borrow)]
    id: WireText<'a>,
    /// Where it stands, which the id of a row that was read does not say.
    commit: u64,
    ordinal: u32,
    /// With these two, its place. Version 1 had one event in each message, whose head says it.
    #[serde(default)]
    rule: u16,
    event_type: WireText<'a>,
    schema: WireText<'a>,
    table: WireText<'a>,
    committed: i64,
    keys: Vec<u64>,
    is_barrier: bool,
    /// When it was born, and after how many microseconds it is too old.
    expiry: Option<(i64, u64)>,
    facts: Vec<(WireText<'a>, WireText<'a>)>,
    write_back: Option<WireRow<'a>>,
    shapes: Vec<WireShape<'a>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    made: Vec<WireText<'a>>,
    #[serde(default, skip_serializing_if = "is_zero")]
    known: i64,
}

#[derive(Deserialize, Serialize)]
struct WireRow<'a> {
    #[serde(borrow)]
    key: Vec<WireText<'a>>,
    values: Vec<(WireText<'a>, Option<WireText<'a>>)>,
    owed: u32,
}

#[derive(Deserialize, Serialize)]
struct WireShape<'a> {
    #[serde(borrow)]
    takers: Vec<WireText<'a>>,
    bytes: usize,
}

/// A text of the event or the message, unless it has escapes there.
#[derive(Deserialize, Serialize)]
#[serde(transparent)]
struct WireText<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> From<&'a str> for WireText<'a> {
    fn from(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

/// Appends the event to the payload of a message. `made`: the takers that no configuration file has; `known`: how much
/// their owner has to know of the endpoints that several members change.
///
/// # Errors
/// Its body is larger than can be kept anywhere.
pub(crate) fn encode(
    event: &Event,
    (place, shapes): (MessagePlace, &[RelayedShape]),
    (made, known): (&[Arc<str>], i64),
    payload: &mut Vec<u8>,
) -> Result<(), MessageError> {
    let mut bodies = Vec::with_capacity(shapes.len());
    let mut wire = Vec::with_capacity(shapes.len());
    for shape in shapes {
        let body = body_codec::encode(&shape.body).ok_or(MessageError::TooLarge)?;
        let takers = shape.takers.iter().map(|name| WireText::from(&**name)).collect();
        wire.push(WireShape { takers, bytes: body.len() });
        bodies.push(body);
    }
    let start = payload.len();
    payload.extend_from_slice(&[0; LENGTH_BYTES]);
    let made = made.iter().map(|name| WireText::from(&**name)).collect();
    let wire = WireEvent { made, known, ..wire_event(event, place, wire) };
    serde_json::to_writer(&mut *payload, &wire)?;
    let length = payload.len() - start - LENGTH_BYTES;
    let length = u32::try_from(length).map_err(|_| MessageError::TooLarge)?;
    let place_of_length = payload.get_mut(start..start + LENGTH_BYTES);
    place_of_length.ok_or(MessageError::Short)?.copy_from_slice(&length.to_be_bytes());
    for body in bodies {
        payload.extend_from_slice(&body);
    }
    Ok(())
}

/// The payload as those of its pieces: mostly one.
pub(crate) fn pieces(payload: &Bytes) -> impl ExactSizeIterator<Item = Bytes> {
    let end = |start: usize| payload.len().min(start + PIECE_BYTES);
    (0..payload.len()).step_by(PIECE_BYTES).map(move |start| payload.slice(start..end(start)))
}

fn wire_event<'a>(
    event: &'a Event,
    place: MessagePlace,
    shapes: Vec<WireShape<'a>>,
) -> WireEvent<'a> {
    let expiry = event.expiry.map(|expiry| {
        let age = u64::try_from(expiry.max_age.as_micros()).unwrap_or(u64::MAX);
        (expiry.born.micros(), age)
    });
    let facts = event.facts.iter().map(|(name, value)| (name.into(), value.into()));
    let write_back = event.write_back.as_deref().map(|row| WireRow {
        key: row.key.iter().map(|name| WireText::from(&**name)).collect(),
        values: row
            .values
            .iter()
            .map(|(name, value)| ((&**name).into(), value.as_deref().map(WireText::from)))
            .collect(),
        owed: row.owed,
    });
    WireEvent {
        version: VERSION,
        id: WireText(event.id.to_string().into()),
        commit: event.position.commit.raw(),
        ordinal: event.position.ordinal,
        rule: place.rule(),
        event_type: WireText::from(&*event.event_type),
        schema: event.table.schema.as_str().into(),
        table: event.table.name.as_str().into(),
        committed: event.committed.micros(),
        keys: event.keys.iter().map(KeyHash::raw).collect(),
        is_barrier: event.keys.is_barrier(),
        expiry,
        facts: facts.collect(),
        write_back,
        shapes,
        made: Vec::new(),
        known: 0,
    }
}

/// Nobody shares endpoints, or none were changed.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks like this")]
fn is_zero(known: &i64) -> bool {
    *known == 0
}

/// The events of a payload that is whole; `place` is that of the last one.
///
/// # Errors
/// It is none, or a newer one.
pub(crate) fn decode(
    mut payload: Bytes,
    place: MessagePlace,
) -> Result<Vec<RelayedEvent>, MessageError> {
    let mut events: Vec<RelayedEvent> = Vec::new();
    while !payload.is_empty() {
        let next = decode_event(&mut payload, events.last())?;
        events.push(next);
    }
    events.last_mut().ok_or(MessageError::Short)?.place = place;
    Ok(events)
}

/// The first event of the payload, which shares with the one `before` what they have in common.
fn decode_event(
    payload: &mut Bytes,
    before: Option<&RelayedEvent>,
) -> Result<RelayedEvent, MessageError> {
    let length = payload.try_get_u32().map_err(|_| MessageError::Short)?;
    let length = usize::try_from(length).map_err(|_| MessageError::Short)?;
    if length > payload.len() {
        return Err(MessageError::Short);
    }
    let head = payload.split_to(length);
    let wire: WireEvent<'_> = serde_json::from_slice(&head)?;
    if wire.version > VERSION {
        return Err(MessageError::Version { version: wire.version });
    }
    let mut shapes = Vec::with_capacity(wire.shapes.len().min(64));
    for shape in &wire.shapes {
        if shape.bytes > payload.len() {
            return Err(MessageError::Short);
        }
        // Of its own: an event that waits for long must not hold those that came with it.
        let body = match before.is_none() && payload.len() == shape.bytes {
            true => payload.split_to(shape.bytes),
            false => Bytes::copy_from_slice(&payload.split_to(shape.bytes)),
        };
        let body = body_codec::decode(body)?;
        let takers = shape.takers.iter().map(|WireText(name)| {
            let known =
                before.and_then(|event| event.takers.iter().find(|known| ***known == **name));
            known.map_or_else(|| Arc::from(&**name), Arc::clone)
        });
        let takers = takers.collect();
        shapes.push(RelayedShape { body, takers });
    }
    let mut shapes = shapes.into_iter();
    let first = shapes.next().ok_or(MessageError::Short)?;
    let others: Vec<RelayedShape> = shapes.collect();
    let more = others.iter().flat_map(|shape| shape.takers.iter().cloned());
    let takers = first.takers.into_iter().chain(more).collect();
    let (rule, known) = (wire.rule, wire.known);
    let made = wire.made.iter().map(|WireText(name)| Arc::from(&**name)).collect();
    let event = Box::new(event_of(wire, first.body, before.map(|before| &*before.event))?);
    let place = MessagePlace::of(event.position, RuleIndex(rule.into()));
    Ok(RelayedEvent { place, event, takers, others, made, known })
}

fn event_of(
    wire: WireEvent<'_>,
    body: EventBody,
    before: Option<&Event>,
) -> Result<Event, MessageError> {
    let id: EventId = wire.id.0.parse().map_err(|_| MessageError::Id)?;
    let mut keys = wire.keys.into_iter().map(KeyHash::from_raw);
    let keys = match (keys.next(), keys.next(), wire.is_barrier) {
        (_, _, true) => EventKeys::BARRIER,
        (Some(new), Some(old), false) => EventKeys::both(old, new),
        (Some(key), None, false) => EventKeys::one(key),
        (None, _, false) => EventKeys::NONE,
    };
    let expiry = wire.expiry.map(|(born, age)| EventExpiry {
        born: Timestamp::from_micros(born),
        max_age: Duration::from_micros(age),
    });
    let fact =
        |(name, value): (WireText<'_>, WireText<'_>)| (Arc::from(name.0), value.0.into_owned());
    let facts = wire.facts.into_iter().map(fact).collect();
    let write_back = wire.write_back.map(|row| {
        let key = row.key.into_iter().map(|name| Arc::from(name.0)).collect();
        let value = |value: WireText<'_>| value.0.into_owned();
        let values =
            row.values.into_iter().map(|(name, text)| (Arc::from(name.0), text.map(value)));
        Box::new(TargetRow { key, values: values.collect(), owed: row.owed })
    });
    let event_type = before.map(|before| &before.event_type);
    let event_type = event_type.filter(|known| ***known == *wire.event_type.0);
    let table = before.map(|before| &before.table);
    let table = table.filter(|known| known.schema == wire.schema.0 && known.name == wire.table.0);
    Ok(Event {
        id,
        sequence: 0,
        position: Position { commit: Lsn::from_raw(wire.commit), ordinal: wire.ordinal },
        event_type: event_type.map_or_else(|| Arc::from(wire.event_type.0), Arc::clone),
        table: table
            .map_or_else(|| Arc::new(TableName::new(wire.schema.0, wire.table.0)), Arc::clone),
        committed: Timestamp::from_micros(wire.committed),
        keys,
        expiry,
        body,
        facts: EventFacts::new(facts),
        write_back,
        held: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::body::BodyPart;
    use crate::relay::samples::event;
    use proptest::prelude::*;

    fn place(event: &Event, rule: usize) -> MessagePlace {
        MessagePlace::of(event.position, RuleIndex(rule))
    }

    proptest! {
        #[test]
        fn an_event_comes_out_as_it_went_in(
            commit: u64, first: u64, second: u64, form in 0..4_u8, text in "\\PC{0,40}", count in 1..4_usize,
        ) {
            let keys = match form {
                0 => EventKeys::NONE,
                1 => EventKeys::one(KeyHash::from_raw(first)),
                2 => EventKeys::both(KeyHash::from_raw(first), KeyHash::from_raw(second)),
                _ => EventKeys::BARRIER,
            };
            let sent = event(commit, keys, &text);
            let shape = |body: &EventBody, taker: &str| {
                RelayedShape { body: body.clone(), takers: vec![taker.into()] }
            };
            let other = EventBody::new(vec![BodyPart::AttemptIso]);
            let shapes = [shape(&sent.body, "crm"), shape(&other, "erp")];
            let mut payload = Vec::new();
            for rule in 0..count {
                encode(&sent, (place(&sent, rule), &shapes), (&["erp".into()], 7), &mut payload).unwrap();
            }
            let all = decode(Bytes::from(payload), place(&sent, count - 1)).unwrap();
            prop_assert_eq!(all.len(), count);
            for (rule, got) in all.into_iter().enumerate() {
                prop_assert_eq!(got.place, place(&sent, rule));
                prop_assert_eq!(&*got.takers, &["crm".into(), "erp".into()]);
                prop_assert_eq!(got.others.len(), 1);
                prop_assert_eq!((&*got.made, got.known), (&["erp".into()][..], 7));
                let mut got = *got.event;
                got.sequence = sent.sequence;
                prop_assert_eq!(format!("{got:?}"), format!("{sent:?}"));
            }
        }

        #[test]
        fn any_bytes_are_an_event_or_refused_but_never_panic(bytes: Vec<u8>) {
            let _read: Result<Vec<RelayedEvent>, _> = decode(Bytes::from(bytes), MessagePlace::default());
        }

        #[test]
        fn a_cut_message_is_refused(cut in 0..100_usize) {
            let sent = event(1, EventKeys::NONE, "x");
            let shape = RelayedShape { body: sent.body.clone(), takers: vec!["crm".into()] };
            let mut bytes = Vec::new();
            encode(&sent, (place(&sent, 0), &[shape]), (&[], 0), &mut bytes).unwrap();
            bytes.truncate(bytes.len() - 1 - cut.min(bytes.len() - 1));
            prop_assert!(decode(Bytes::from(bytes), place(&sent, 0)).is_err());
        }
    }

    #[test]
    fn a_large_event_goes_in_pieces() {
        let sent = event(1, EventKeys::NONE, &"x".repeat(PIECE_BYTES * 2));
        let shape = RelayedShape { body: sent.body.clone(), takers: vec!["crm".into()] };
        let mut payload = Vec::new();
        encode(&sent, (place(&sent, 0), &[shape]), (&[], 0), &mut payload).unwrap();
        let pieces: Vec<Bytes> = pieces(&Bytes::from(payload)).collect();
        assert!(pieces.len() >= 3 && pieces.iter().all(|piece| piece.len() <= PIECE_BYTES));
        let whole = Bytes::from(pieces.concat());
        assert_eq!(decode(whole, place(&sent, 0)).unwrap()[0].event.facts, sent.facts);
    }

    #[test]
    fn an_event_of_version_1_is_read_with_the_place_of_its_message() {
        let sent = event(1, EventKeys::NONE, "x");
        let shape = RelayedShape { body: sent.body.clone(), takers: vec!["crm".into()] };
        let mut payload = Vec::new();
        encode(&sent, (place(&sent, 4), &[shape]), (&[], 0), &mut payload).unwrap();
        let length = usize::try_from(u32::from_be_bytes(payload[..4].try_into().unwrap())).unwrap();
        let mut head: serde_json::Value = serde_json::from_slice(&payload[4..4 + length]).unwrap();
        head["version"] = 1.into();
        head.as_object_mut().unwrap().remove("rule");
        let head = serde_json::to_vec(&head).unwrap();
        let length = u32::try_from(head.len()).unwrap().to_be_bytes();
        let old = [
            &length[..],
            &head,
            &payload[4 + usize::try_from(u32::from_be_bytes(payload[..4].try_into().unwrap()))
                .unwrap()..],
        ]
        .concat();
        assert_eq!(decode(Bytes::from(old), place(&sent, 4)).unwrap()[0].place, place(&sent, 4));
    }
}
