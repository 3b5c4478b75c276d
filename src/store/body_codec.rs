//! Bodies as bytes: how a parked delivery and a dead letter keep a body whose places for the
//! attempt's time are still open.
//!
//! ```text
//! version (1 byte) = 1, then each part:
//!   0x01 length (u32, big-endian) bytes    Part::Bytes
//!   0x02 length (u32, big-endian) bytes    Part::Escaped
//!   0x03                                   Part::AttemptSeconds
//!   0x04 micros (i64, big-endian)          Part::AgeSeconds, Unix epoch
//!   0x05                                   Part::AttemptIso
//!   0x07 length (u32, big-endian) bytes    Part::Base64
//!   0x06 name: length bytes, value: length bytes    a header that the shape asks for
//!   0x08 kind (1 byte), source: length bytes, text: length bytes    what an expression of the endpoint's
//!        URL or headers came to: null (0), the text (1), or why it has no value (2)
//! ```
//!
//! Pure. A kind of part that a walhook does not know makes it refuse the body: it must not send half
//! of it.

use std::sync::Arc;

use bytes::Buf;
use bytes::Bytes;
use http::HeaderName;
use http::HeaderValue;

use crate::flow::body::BodyCursor;
use crate::flow::body::BodyPart;
use crate::flow::body::EventBody;
use crate::flow::body::RequestValue;
use crate::flow::compact::compact_into;
use crate::flow::time::Timestamp;

const VERSION: u8 = 1;

const BYTES: u8 = 1;
const ESCAPED: u8 = 2;
const ATTEMPT_SECONDS: u8 = 3;
const AGE_SECONDS: u8 = 4;
const ATTEMPT_ISO: u8 = 5;
const HEADER: u8 = 6;
const BASE64: u8 = 7;
const VALUE: u8 = 8;

const VALUE_NULL: u8 = 0;
const VALUE_TEXT: u8 = 1;
const VALUE_FAILED: u8 = 2;

/// The largest encoded body that is stored. PostgreSQL takes messages and fields of less than
/// 1 GiB; the rest of the row needs some of it.
pub(crate) const STORED_BYTES_MAX: usize = 1000 * 1024 * 1024;

/// The bytes are not an encoded body.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the body has version {version}, this walhook knows {VERSION}: run a newer one")]
    UnknownVersion { version: u8 },
    #[error("the body has a part of unknown kind {kind}")]
    UnknownPart { kind: u8 },
    #[error("the body ends in the middle of a part")]
    Short,
    #[error("the body asks for a header that is none")]
    BadHeader,
    #[error("the body has a value for the request that is none")]
    BadValue,
}

/// Length of what [`encode`] makes of `body`; an upper limit where JSON is still to be compacted.
pub(crate) fn encoded_len(body: &EventBody) -> usize {
    let length = |part: &BodyPart| match part {
        BodyPart::Bytes(bytes)
        | BodyPart::Escaped(bytes)
        | BodyPart::Compacted(bytes)
        | BodyPart::Base64(bytes) => 5 + bytes.len(),
        BodyPart::AttemptSeconds | BodyPart::AttemptIso => 1,
        BodyPart::AgeSeconds { .. } => 9,
    };
    let headers = body.headers().iter().map(|(name, value)| 9 + name.as_str().len() + value.len());
    let values = body.values().iter().map(|(source, value)| {
        let (_, text) = tagged(value);
        10 + source.len() + text.len()
    });
    1 + body.parts().iter().map(length).chain(headers).chain(values).sum::<usize>()
}

/// The body as bytes; `None` if it is larger than [`STORED_BYTES_MAX`].
pub(crate) fn encode(body: &EventBody) -> Option<Vec<u8>> {
    if encoded_len(body) > STORED_BYTES_MAX {
        return None;
    }
    let mut out = Vec::with_capacity(encoded_len(body));
    out.push(VERSION);
    for part in body.parts() {
        match part {
            BodyPart::Bytes(bytes) => put_bytes(&mut out, BYTES, bytes),
            BodyPart::Escaped(bytes) => put_bytes(&mut out, ESCAPED, bytes),
            // As it is sent, so that an older walhook sends it rightly, too.
            BodyPart::Compacted(bytes) => {
                let mut compact = Vec::with_capacity(bytes.len());
                compact_into(&mut compact, bytes);
                put_bytes(&mut out, BYTES, &compact);
            }
            BodyPart::Base64(bytes) => put_bytes(&mut out, BASE64, bytes),
            BodyPart::AttemptSeconds | BodyPart::AttemptIso | BodyPart::AgeSeconds { .. } => {
                put_place(&mut out, part);
            }
        }
    }
    put_headers(&mut out, body);
    Some(out)
}

/// A place for the attempt's time.
fn put_place(out: &mut Vec<u8>, part: &BodyPart) {
    match part {
        BodyPart::AttemptSeconds => out.push(ATTEMPT_SECONDS),
        BodyPart::AttemptIso => out.push(ATTEMPT_ISO),
        BodyPart::AgeSeconds { born } => {
            out.push(AGE_SECONDS);
            out.extend_from_slice(&born.micros().to_be_bytes());
        }
        BodyPart::Bytes(_)
        | BodyPart::Escaped(_)
        | BodyPart::Compacted(_)
        | BodyPart::Base64(_) => {}
    }
}

fn put_headers(out: &mut Vec<u8>, body: &EventBody) {
    for (name, value) in body.headers() {
        put_bytes(out, HEADER, name.as_str().as_bytes());
        put_length(out, value.len());
        out.extend_from_slice(value.as_bytes());
    }
    for (source, value) in body.values() {
        let (kind, text) = tagged(value);
        out.extend_from_slice(&[VALUE, kind]);
        put_length(out, source.len());
        out.extend_from_slice(source.as_bytes());
        put_length(out, text.len());
        out.extend_from_slice(text.as_bytes());
    }
}

/// Bytes of a piece of a body, at most.
const PIECE_BYTES: usize = 2 * 1024 * 1024;

/// The same bytes as [`encode`] makes, in pieces, of a body that is no larger than it may be.
pub(crate) fn pieces(body: &EventBody) -> impl Iterator<Item = Vec<u8>> {
    let none = Timestamp::default();
    let parts = body.parts().iter().flat_map(move |part| {
        let (kind, bytes, length) = match part {
            BodyPart::Bytes(bytes) => (BYTES, Some(bytes), bytes.len()),
            BodyPart::Escaped(bytes) => (ESCAPED, Some(bytes), bytes.len()),
            BodyPart::Base64(bytes) => (BASE64, Some(bytes), bytes.len()),
            BodyPart::Compacted(_) => {
                let length = EventBody::new(vec![part.clone()]).chunks(none).map(|c| c.len()).sum();
                (BYTES, None, length)
            }
            BodyPart::AttemptSeconds | BodyPart::AttemptIso | BodyPart::AgeSeconds { .. } => {
                let mut small = Vec::new();
                put_place(&mut small, part);
                return Box::new(std::iter::once(Bytes::from(small)))
                    as Box<dyn Iterator<Item = Bytes> + Send>;
            }
        };
        let mut head = vec![kind];
        put_length(&mut head, length);
        let content: Box<dyn Iterator<Item = Bytes> + Send> = match bytes {
            Some(bytes) => {
                let bytes = bytes.clone();
                let starts = (0..bytes.len()).step_by(CUT_BYTES);
                Box::new(starts.map(move |at| bytes.slice(at..bytes.len().min(at + CUT_BYTES))))
            }
            None => Box::new(owned_chunks(EventBody::new(vec![part.clone()]))),
        };
        Box::new(std::iter::once(Bytes::from(head)).chain(content))
    });
    let mut tail = Vec::new();
    put_headers(&mut tail, body);
    let first = std::iter::once(Bytes::from_static(&[VERSION]));
    let mut all = first.chain(parts).chain(std::iter::once(Bytes::from(tail)));
    std::iter::from_fn(move || {
        let mut piece = Vec::new();
        while piece.len() < PIECE_BYTES - CUT_BYTES
            && let Some(bytes) = all.next()
        {
            piece.extend_from_slice(&bytes);
        }
        (!piece.is_empty()).then_some(piece)
    })
}

/// What a piece is made of.
const CUT_BYTES: usize = 256 * 1024;

fn owned_chunks(body: EventBody) -> impl Iterator<Item = Bytes> {
    let mut cursor = BodyCursor::default();
    std::iter::from_fn(move || body.next_chunk(&mut cursor, Timestamp::default()))
}

fn tagged(value: &RequestValue) -> (u8, &str) {
    match value {
        RequestValue::Null => (VALUE_NULL, ""),
        RequestValue::Text(text) => (VALUE_TEXT, text),
        RequestValue::Failed(why) => (VALUE_FAILED, why),
    }
}

fn take_value(encoded: &mut Bytes) -> Result<(Arc<str>, RequestValue), BodyError> {
    let kind = encoded.try_get_u8().map_err(|_| BodyError::Short)?;
    let mut text = || {
        let bytes = take_bytes(encoded)?;
        std::str::from_utf8(&bytes).map(Box::<str>::from).map_err(|_| BodyError::BadValue)
    };
    let (source, text) = (text()?, text()?);
    let value = match kind {
        VALUE_NULL => RequestValue::Null,
        VALUE_TEXT => RequestValue::Text(text),
        VALUE_FAILED => RequestValue::Failed(text),
        _ => return Err(BodyError::BadValue),
    };
    Ok((Arc::from(source), value))
}

/// The body again; its parts are slices of `encoded`.
///
/// # Errors
/// That these bytes were not made by [`encode`], or by a newer one.
pub(crate) fn decode(mut encoded: Bytes) -> Result<EventBody, BodyError> {
    let version = encoded.try_get_u8().map_err(|_| BodyError::Short)?;
    if version != VERSION {
        return Err(BodyError::UnknownVersion { version });
    }
    let (mut parts, mut headers, mut values) = (Vec::new(), Vec::new(), Vec::new());
    while let Ok(kind) = encoded.try_get_u8() {
        parts.push(match kind {
            BYTES => BodyPart::Bytes(take_bytes(&mut encoded)?),
            ESCAPED => BodyPart::Escaped(take_bytes(&mut encoded)?),
            BASE64 => BodyPart::Base64(take_bytes(&mut encoded)?),
            ATTEMPT_SECONDS => BodyPart::AttemptSeconds,
            ATTEMPT_ISO => BodyPart::AttemptIso,
            HEADER => {
                let name = HeaderName::from_bytes(&take_bytes(&mut encoded)?);
                let value = HeaderValue::from_maybe_shared(take_bytes(&mut encoded)?);
                let header = name.ok().zip(value.ok()).ok_or(BodyError::BadHeader)?;
                headers.push(header);
                continue;
            }
            VALUE => {
                values.push(take_value(&mut encoded)?);
                continue;
            }
            AGE_SECONDS => {
                let micros = encoded.try_get_i64().map_err(|_| BodyError::Short)?;
                BodyPart::AgeSeconds { born: Timestamp::from_micros(micros) }
            }
            kind => return Err(BodyError::UnknownPart { kind }),
        });
    }
    Ok(EventBody::new(parts).with_headers(headers).with_values(values))
}

fn put_bytes(out: &mut Vec<u8>, kind: u8, bytes: &[u8]) {
    out.push(kind);
    put_length(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    let length = u32::try_from(length).expect("a body of at most STORED_BYTES_MAX");
    out.extend_from_slice(&length.to_be_bytes());
}

fn take_bytes(encoded: &mut Bytes) -> Result<Bytes, BodyError> {
    let length = encoded.try_get_u32().map_err(|_| BodyError::Short)?;
    let length = usize::try_from(length).map_err(|_| BodyError::Short)?;
    if length > encoded.len() {
        return Err(BodyError::Short);
    }
    Ok(encoded.split_to(length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn part() -> impl Strategy<Value = BodyPart> {
        prop_oneof![
            any::<Vec<u8>>().prop_map(|bytes| BodyPart::Bytes(Bytes::from(bytes))),
            any::<Vec<u8>>().prop_map(|bytes| BodyPart::Escaped(Bytes::from(bytes))),
            any::<Vec<u8>>().prop_map(|bytes| BodyPart::Base64(Bytes::from(bytes))),
            Just(BodyPart::AttemptSeconds),
            Just(BodyPart::AttemptIso),
            any::<i64>()
                .prop_map(|micros| BodyPart::AgeSeconds { born: Timestamp::from_micros(micros) }),
        ]
    }

    #[test]
    fn a_large_body_in_pieces_is_the_same_bytes() {
        let json = Bytes::from(format!("[{}1]", "1, ".repeat(3_000_000)));
        let text = Bytes::from("a\n".repeat(3_000_000));
        let body = EventBody::new(vec![
            BodyPart::Bytes(Bytes::from_static(b"{")),
            BodyPart::Compacted(json),
            BodyPart::AttemptIso,
            BodyPart::Escaped(text),
        ]);
        let pieces: Vec<Vec<u8>> = pieces(&body).collect();
        assert!(pieces.iter().all(|piece| piece.len() <= PIECE_BYTES));
        assert_eq!(pieces.concat(), encode(&body).unwrap());
    }

    proptest! {
        #[test]
        fn a_body_reads_back_with_its_places_still_open(
            parts in prop::collection::vec(part(), 0..8)
        ) {
            let header = (HeaderName::from_static("ce-type"), HeaderValue::from_static("a b"));
            let values = [
                ("id", RequestValue::Text("4 2".into())),
                ("note", RequestValue::Null),
                ("1 / n", RequestValue::Failed("divides by zero".into())),
            ];
            let values = values.map(|(source, value)| (Arc::from(source), value));
            let body =
                EventBody::new(parts).with_headers(vec![header]).with_values(values.to_vec());
            let encoded = encode(&body).unwrap();
            prop_assert_eq!(encoded.len(), encoded_len(&body));
            prop_assert_eq!(&pieces(&body).collect::<Vec<_>>().concat(), &encoded);
            let read = decode(Bytes::from(encoded)).unwrap();
            prop_assert_eq!(format!("{:?}", read.parts()), format!("{:?}", body.parts()));
            prop_assert_eq!(read.headers(), body.headers());
            prop_assert_eq!(read.values(), body.values());
        }

        #[test]
        fn a_cut_body_is_refused_or_ends_between_two_parts(
            parts in prop::collection::vec(part(), 1..4), cut in any::<prop::sample::Index>()
        ) {
            let encoded = encode(&EventBody::new(parts.clone())).unwrap();
            let cut = cut.index(encoded.len());
            match decode(Bytes::from(encoded[..cut].to_vec())) {
                Err(error) => prop_assert_eq!(error, BodyError::Short),
                Ok(body) => {
                    let whole = format!("{:?}", &parts[..body.parts().len()]);
                    prop_assert_eq!(format!("{:?}", body.parts()), whole);
                }
            }
        }

        #[test]
        fn any_bytes_decode_or_fail_but_never_panic(encoded: Vec<u8>) {
            let _outcome: Result<EventBody, BodyError> = decode(Bytes::from(encoded));
        }
    }

    #[test]
    fn what_a_newer_walhook_wrote_is_refused() {
        let refused = |bytes: &'static [u8]| decode(Bytes::from_static(bytes)).unwrap_err();
        assert_eq!(refused(&[2]), BodyError::UnknownVersion { version: 2 });
        assert_eq!(refused(&[1, 9]), BodyError::UnknownPart { kind: 9 });
        assert_eq!(refused(&[]), BodyError::Short);
    }
}
