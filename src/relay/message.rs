//! Events as messages, and messages as events.
//!
//! ```text
//! headers  Wh-Epoch   the epoch of the source's holder that sent it
//!          Wh-Pos     its place
//!          Wh-After   the place of the message before it: whoever has not got that one lacks something
//!          Wh-Id      the event; `mark` where nothing more comes of what is before Wh-End for now
//!          Wh-Piece   `2/3`: a part of a large event
//! payload  length of what follows (u32, big-endian), JSON of all but the bodies, each body as it is stored
//! ```
//!
//! Pure. The bytes come from elsewhere: what is no message is refused and never panics.

use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Buf;
use bytes::Bytes;
use serde::Deserialize;
use serde::Serialize;

use crate::flow::body::EventBody;
use crate::flow::event::Event;
use crate::flow::event::EventExpiry;
use crate::flow::event::EventFacts;
use crate::flow::event::EventId;
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
const VERSION: u8 = 1;

/// What a piece of an event has at most, so that it is below any broker's limit.
const PIECE_BYTES: usize = 512 * 1024;

const EPOCH: &str = "Wh-Epoch";
const PLACE: &str = "Wh-Pos";
const AFTER: &str = "Wh-After";
const ID: &str = "Wh-Id";
const END: &str = "Wh-End";
const PIECE: &str = "Wh-Piece";

/// Stands in the place of an event's id.
const MARK: &str = "mark";

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
    #[error("the message ends too early")]
    Short,
    #[error("the message cannot be read")]
    Json(#[from] serde_json::Error),
    #[error("the body of an event in the message cannot be read")]
    Body(#[from] body_codec::BodyError),
    #[error("the event of the message is too large")]
    TooLarge,
}

/// Where a message stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct MessageHead {
    pub(crate) epoch: i64,
    pub(crate) place: MessagePlace,
    pub(crate) after: MessagePlace,
    /// Of a mark: the stream holds nothing more before this.
    pub(crate) mark: Option<Lsn>,
    /// Which piece of how many.
    pub(crate) piece: (u32, u32),
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
    pub(crate) event: Box<Event>,
    pub(crate) takers: Vec<Arc<str>>,
    /// Those who get it in another shape are among `takers`, too.
    pub(crate) others: Vec<RelayedShape>,
}

/// All of an event but its bodies.
#[derive(Deserialize, Serialize)]
struct WireEvent {
    version: u8,
    id: String,
    /// Where it stands, which the id of a row that was read does not say.
    commit: u64,
    ordinal: u32,
    event_type: String,
    schema: String,
    table: String,
    committed: i64,
    keys: Vec<u64>,
    is_barrier: bool,
    /// When it was born, and after how many microseconds it is too old.
    expiry: Option<(i64, u64)>,
    facts: Vec<(String, String)>,
    write_back: Option<WireRow>,
    shapes: Vec<WireShape>,
}

#[derive(Deserialize, Serialize)]
struct WireRow {
    key: Vec<String>,
    values: Vec<(String, Option<String>)>,
    owed: u32,
}

#[derive(Deserialize, Serialize)]
struct WireShape {
    takers: Vec<String>,
    bytes: usize,
}

impl MessageHead {
    /// As headers; `id` is the event's.
    pub(crate) fn headers(&self, id: Option<EventId>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(EPOCH, self.epoch.to_string());
        headers.insert(PLACE, self.place.to_string());
        headers.insert(AFTER, self.after.to_string());
        headers.insert(ID, id.map_or_else(|| MARK.to_owned(), |id| id.to_string()));
        if let Some(end) = self.mark {
            headers.insert(END, end.raw().to_string());
        }
        if self.piece.1 > 1 {
            headers.insert(PIECE, format!("{}/{}", self.piece.0, self.piece.1));
        }
        headers
    }

    /// Reads them.
    ///
    /// # Errors
    /// One is missing, or says what it cannot.
    pub(crate) fn read(headers: Option<&HeaderMap>) -> Result<Self, MessageError> {
        let text = |name: &'static str| {
            let value = headers.and_then(|headers| headers.get(name));
            value.map(|value| value.as_str()).ok_or(MessageError::Header { name })
        };
        let epoch = text(EPOCH)?.parse().map_err(|_| MessageError::Header { name: EPOCH })?;
        let place = text(PLACE)?.parse().map_err(|_| MessageError::Header { name: PLACE })?;
        let after = text(AFTER)?.parse().map_err(|_| MessageError::Header { name: AFTER })?;
        let mark = match text(ID)? {
            MARK => {
                let end = text(END)?.parse().map_err(|_| MessageError::Header { name: END })?;
                Some(Lsn::from_raw(end))
            }
            _ => None,
        };
        let piece = match text(PIECE) {
            Ok(text) => {
                let parts = text.split_once('/');
                let parts = parts.and_then(|(nth, of)| Some((nth.parse().ok()?, of.parse().ok()?)));
                parts.ok_or(MessageError::Header { name: PIECE })?
            }
            Err(_) => (1, 1),
        };
        Ok(Self { epoch, place, after, mark, piece })
    }
}

/// The event as the payloads of its pieces: mostly one.
///
/// # Errors
/// Its body is larger than can be kept anywhere.
pub(crate) fn encode(event: &Event, shapes: &[RelayedShape]) -> Result<Vec<Bytes>, MessageError> {
    let mut bodies = Vec::with_capacity(shapes.len());
    let mut wire = Vec::with_capacity(shapes.len());
    for shape in shapes {
        let body = body_codec::encode(&shape.body).ok_or(MessageError::TooLarge)?;
        let takers = shape.takers.iter().map(ToString::to_string).collect();
        wire.push(WireShape { takers, bytes: body.len() });
        bodies.push(body);
    }
    let head = serde_json::to_vec(&wire_event(event, wire))?;
    let length = u32::try_from(head.len()).map_err(|_| MessageError::TooLarge)?;
    let whole = 4 + head.len() + bodies.iter().map(Vec::len).sum::<usize>();
    let mut payload = Vec::with_capacity(whole);
    payload.extend_from_slice(&length.to_be_bytes());
    payload.extend_from_slice(&head);
    for body in bodies {
        payload.extend_from_slice(&body);
    }
    let payload = Bytes::from(payload);
    let starts = (0..payload.len()).step_by(PIECE_BYTES);
    let end = |start: usize| payload.len().min(start + PIECE_BYTES);
    Ok(starts.map(|start| payload.slice(start..end(start))).collect())
}

fn wire_event(event: &Event, shapes: Vec<WireShape>) -> WireEvent {
    let expiry = event.expiry.map(|expiry| {
        let age = u64::try_from(expiry.max_age.as_micros()).unwrap_or(u64::MAX);
        (expiry.born.micros(), age)
    });
    let facts = event.facts.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let write_back = event.write_back.as_deref().map(|row| WireRow {
        key: row.key.iter().map(ToString::to_string).collect(),
        values: row.values.iter().map(|(name, value)| (name.to_string(), value.clone())).collect(),
        owed: row.owed,
    });
    WireEvent {
        version: VERSION,
        id: event.id.to_string(),
        commit: event.position.commit.raw(),
        ordinal: event.position.ordinal,
        event_type: event.event_type.to_string(),
        schema: event.table.schema.clone(),
        table: event.table.name.clone(),
        committed: event.committed.micros(),
        keys: event.keys.iter().map(KeyHash::raw).collect(),
        is_barrier: event.keys.is_barrier(),
        expiry,
        facts: facts.collect(),
        write_back,
        shapes,
    }
}

/// The event of a payload that is whole.
///
/// # Errors
/// It is none, or a newer one.
pub(crate) fn decode(mut payload: Bytes) -> Result<RelayedEvent, MessageError> {
    let length = payload.try_get_u32().map_err(|_| MessageError::Short)?;
    let length = usize::try_from(length).map_err(|_| MessageError::Short)?;
    if length > payload.len() {
        return Err(MessageError::Short);
    }
    let head = payload.split_to(length);
    let wire: WireEvent = serde_json::from_slice(&head)?;
    if wire.version != VERSION {
        return Err(MessageError::Version { version: wire.version });
    }
    let mut shapes = Vec::with_capacity(wire.shapes.len().min(64));
    for shape in &wire.shapes {
        if shape.bytes > payload.len() {
            return Err(MessageError::Short);
        }
        let body = body_codec::decode(payload.split_to(shape.bytes))?;
        let takers = shape.takers.iter().map(|name| Arc::from(name.as_str())).collect();
        shapes.push(RelayedShape { body, takers });
    }
    let mut shapes = shapes.into_iter();
    let first = shapes.next().ok_or(MessageError::Short)?;
    let others: Vec<RelayedShape> = shapes.collect();
    let more = others.iter().flat_map(|shape| shape.takers.iter().cloned());
    let takers = first.takers.into_iter().chain(more).collect();
    let event = Box::new(event_of(wire, first.body)?);
    Ok(RelayedEvent { event, takers, others })
}

fn event_of(wire: WireEvent, body: EventBody) -> Result<Event, MessageError> {
    let id: EventId = wire.id.parse().map_err(|_| MessageError::Header { name: ID })?;
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
    let facts = wire.facts.into_iter().map(|(name, value)| (Arc::from(name), value)).collect();
    let write_back = wire.write_back.map(|row| {
        let key = row.key.into_iter().map(Arc::from).collect();
        let values = row.values.into_iter().map(|(name, value)| (Arc::from(name), value));
        Box::new(TargetRow { key, values: values.collect(), owed: row.owed })
    });
    Ok(Event {
        id,
        sequence: 0,
        position: Position { commit: Lsn::from_raw(wire.commit), ordinal: wire.ordinal },
        event_type: wire.event_type.into(),
        table: Arc::new(TableName::new(wire.schema, wire.table)),
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
    use crate::flow::event::IdOrigin;
    use crate::flow::event::RuleIndex;
    use proptest::prelude::*;

    fn event(commit: u64, keys: EventKeys, text: &str) -> Event {
        let position = Position { commit: Lsn::from_raw(commit), ordinal: 3 };
        Event {
            id: EventId::new(position, IdOrigin::new(7, "order")),
            sequence: 9,
            position,
            event_type: "order".into(),
            table: Arc::new(TableName::new("public", "orders")),
            committed: Timestamp::from_micros(5_000_001),
            keys,
            expiry: Some(EventExpiry {
                born: Timestamp::from_micros(4_000_000),
                max_age: Duration::from_secs(60),
            }),
            body: EventBody::new(vec![BodyPart::Bytes(Bytes::from(text.to_owned()))]),
            facts: EventFacts::new(vec![("id".into(), text.to_owned())]),
            write_back: Some(Box::new(TargetRow {
                key: vec!["id".into()],
                values: vec![("id".into(), Some("7".to_owned())), ("note".into(), None)],
                owed: 2,
            })),
            held: None,
        }
    }

    fn whole(pieces: &[Bytes]) -> Bytes {
        Bytes::from(pieces.concat())
    }

    proptest! {
        #[test]
        fn an_event_comes_out_as_it_went_in(
            commit: u64, first: u64, second: u64, form in 0..4_u8, text in "\\PC{0,40}",
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
            let got = decode(whole(&encode(&sent, &shapes).unwrap())).unwrap();
            prop_assert_eq!(&*got.takers, &["crm".into(), "erp".into()]);
            prop_assert_eq!(got.others.len(), 1);
            let mut got = *got.event;
            got.sequence = sent.sequence;
            prop_assert_eq!(format!("{got:?}"), format!("{sent:?}"));
        }

        #[test]
        fn any_bytes_are_an_event_or_refused_but_never_panic(bytes: Vec<u8>) {
            let _read: Result<RelayedEvent, _> = decode(Bytes::from(bytes));
        }

        #[test]
        fn a_cut_message_is_refused(cut in 0..100_usize) {
            let sent = event(1, EventKeys::NONE, "x");
            let shape = RelayedShape { body: sent.body.clone(), takers: vec!["crm".into()] };
            let bytes = whole(&encode(&sent, &[shape]).unwrap());
            let short = bytes.slice(..bytes.len() - 1 - cut.min(bytes.len() - 1));
            prop_assert!(decode(short).is_err());
        }
    }

    #[test]
    fn a_head_reads_back_and_what_lacks_a_header_is_refused() {
        let at = |commit| Position { commit: Lsn::from_raw(commit), ordinal: 0 };
        let id = EventId::new(at(8), IdOrigin::new(7, "order"));
        let head = MessageHead {
            epoch: 4,
            place: MessagePlace::of(at(8), RuleIndex(0)),
            after: MessagePlace::after(at(7)),
            mark: None,
            piece: (2, 3),
        };
        assert_eq!(MessageHead::read(Some(&head.headers(Some(id)))).unwrap(), head);
        let mark = MessageHead { mark: Some(Lsn::from_raw(9)), piece: (1, 1), ..head };
        assert_eq!(MessageHead::read(Some(&mark.headers(None))).unwrap(), mark);
        for name in [EPOCH, PLACE, AFTER, ID] {
            let mut headers = head.headers(Some(id));
            headers.insert(name, "nonsense");
            let is_id = name == ID; // its text is for people
            assert_eq!(MessageHead::read(Some(&headers)).is_ok(), is_id, "case: {name}");
        }
        assert!(MessageHead::read(None).is_err());
    }

    #[test]
    fn a_large_event_goes_in_pieces() {
        let sent = event(1, EventKeys::NONE, &"x".repeat(PIECE_BYTES * 2));
        let shape = RelayedShape { body: sent.body.clone(), takers: vec!["crm".into()] };
        let pieces = encode(&sent, &[shape]).unwrap();
        assert!(pieces.len() >= 3 && pieces.iter().all(|piece| piece.len() <= PIECE_BYTES));
        assert_eq!(decode(whole(&pieces)).unwrap().event.facts, sent.facts);
    }
}
