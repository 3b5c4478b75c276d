//! Bodies: rendered once per event, completed at each attempt.

use std::sync::Arc;

use bytes::Bytes;
use bytes::BytesMut;
use http::HeaderName;
use http::HeaderValue;

use crate::flow::compact::Compacting;
use crate::flow::hex::hex_to_base64;
use crate::flow::time::Timestamp;

/// A text value longer than this is not copied into the body: it stays a slice of the message that
/// PostgreSQL sent and is escaped while it is sent, so that a row of 100 MB is in memory once.
pub(crate) const LARGE_TEXT_BYTES: usize = 256 * 1024;

/// The longest body that can be kept in the state: PostgreSQL takes messages and fields of less than
/// 1 GiB, and the rest of the row needs some of it.
pub(crate) const BODY_BYTES_MAX: usize = 900 * 1024 * 1024;

/// How many bytes of a large text are escaped at a time.
const CHUNK_BYTES: usize = 32 * 1024;

/// How many hexadecimal digits become base64 at a time: of three bytes each, so that no padding
/// stands in between.
const HEX_CHUNK_BYTES: usize = 6 * 8 * 1024;

/// One piece of a body.
#[derive(Clone, Debug)]
pub enum BodyPart {
    /// Ready to be sent.
    Bytes(Bytes),
    /// Raw text that is JSON-escaped while it is sent, without the quotes around it.
    Escaped(Bytes),
    /// JSON that is sent without the white space between its tokens.
    Compacted(Bytes),
    /// Hexadecimal digits of whole bytes, which become base64 while they are sent.
    Base64(Bytes),
    /// The attempt's time in whole seconds since the Unix epoch.
    AttemptSeconds,
    /// The attempt's time in ISO 8601, UTC with milliseconds, without quotes around it.
    AttemptIso,
    /// Seconds from `born` to the attempt, a decimal number with milliseconds; never negative.
    AgeSeconds { born: Timestamp },
}

impl BodyPart {
    /// Bytes that this part keeps in memory.
    pub fn held_bytes(&self) -> usize {
        match self {
            Self::Bytes(bytes)
            | Self::Escaped(bytes)
            | Self::Compacted(bytes)
            | Self::Base64(bytes) => bytes.len(),
            Self::AttemptSeconds | Self::AttemptIso | Self::AgeSeconds { .. } => 0,
        }
    }
}

/// A request body whose attempt-dependent places are still open.
#[derive(Clone, Debug, Default)]
pub struct EventBody {
    parts: Vec<BodyPart>,
    /// What its shape asks of the request: a content type other than JSON, attributes.
    headers: Vec<(HeaderName, HeaderValue)>,
    /// What expressions of the endpoint's URL and headers came to, by their source.
    values: Vec<(Arc<str>, RequestValue)>,
}

/// What an expression of a URL or a header came to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RequestValue {
    Null,
    Text(Box<str>),
    /// It has no value: what it does instead, such as `divides by zero`.
    Failed(Box<str>),
}

impl RequestValue {
    fn len(&self) -> usize {
        match self {
            Self::Null => 0,
            Self::Text(text) | Self::Failed(text) => text.len(),
        }
    }
}

impl EventBody {
    pub fn new(parts: Vec<BodyPart>) -> Self {
        Self { parts, headers: Vec::new(), values: Vec::new() }
    }

    #[must_use]
    pub fn with_headers(self, headers: Vec<(HeaderName, HeaderValue)>) -> Self {
        Self { headers, ..self }
    }

    #[must_use]
    pub fn with_values(self, values: Vec<(Arc<str>, RequestValue)>) -> Self {
        Self { values, ..self }
    }

    pub fn values(&self) -> &[(Arc<str>, RequestValue)] {
        &self.values
    }

    /// What the expression of this source came to; `None` if it was not evaluated for this body.
    pub fn value(&self, source: &str) -> Option<&RequestValue> {
        self.values.iter().find(|(of, _)| **of == *source).map(|(_, value)| value)
    }

    pub fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.headers
    }

    pub fn parts(&self) -> &[BodyPart] {
        &self.parts
    }

    /// Bytes that this body keeps in memory.
    pub fn held_bytes(&self) -> usize {
        let values = self.values.iter().map(|(source, value)| source.len() + value.len());
        self.parts.iter().map(BodyPart::held_bytes).chain(values).sum()
    }

    /// Of these, those that may be its own and not slices of the row.
    pub fn own_bytes(&self) -> usize {
        let own = self.parts.iter().filter(|part| matches!(part, BodyPart::Bytes(_)));
        own.map(BodyPart::held_bytes).sum()
    }

    /// The pieces of this body as of `now`, each at most about `CHUNK_BYTES` x 6 long unless it
    /// was rendered whole.
    pub fn chunks(&self, now: Timestamp) -> impl Iterator<Item = Bytes> {
        let mut cursor = BodyCursor::default();
        std::iter::from_fn(move || self.next_chunk(&mut cursor, now))
    }

    /// The piece at `cursor`, which moves on; `None` at the end. For readers that cannot borrow
    /// the body while they wait, such as a socket; see [`EventBody::chunks`].
    pub fn next_chunk(&self, cursor: &mut BodyCursor, now: Timestamp) -> Option<Bytes> {
        let chunk = match self.parts.get(cursor.part)? {
            BodyPart::Bytes(bytes) => bytes.clone(),
            BodyPart::Escaped(text) => {
                let (chunk, more) = cut_text(text.get(cursor.offset..).unwrap_or_default());
                let mut out = Vec::with_capacity(chunk.len() + 64);
                escape_into(&mut out, chunk);
                if more {
                    cursor.offset += chunk.len();
                    return Some(Bytes::from(out));
                }
                Bytes::from(out)
            }
            BodyPart::Compacted(text) => {
                let rest = text.get(cursor.offset..).unwrap_or_default();
                let chunk = rest.get(..rest.len().min(CHUNK_BYTES)).unwrap_or_default();
                let mut out = Vec::with_capacity(chunk.len());
                let read = cursor.compacting.piece(&mut out, chunk);
                if read > 0 && read < rest.len() {
                    cursor.offset += read;
                    return Some(Bytes::from(out));
                }
                Bytes::from(out)
            }
            BodyPart::Base64(hex) => {
                let rest = hex.get(cursor.offset..).unwrap_or_default();
                let (chunk, more) = rest.split_at(rest.len().min(HEX_CHUNK_BYTES));
                let mut out = Vec::with_capacity(chunk.len().div_ceil(6) * 4);
                // What is no digit was refused when the part was made.
                hex_to_base64(&mut out, chunk).unwrap_or_default();
                if !more.is_empty() {
                    cursor.offset += chunk.len();
                    return Some(Bytes::from(out));
                }
                Bytes::from(out)
            }
            BodyPart::AttemptSeconds => Bytes::from(now.seconds().to_string()),
            BodyPart::AttemptIso => Bytes::from(now.iso_millis()),
            BodyPart::AgeSeconds { born } => {
                let age = now.since(*born);
                Bytes::from(format!("{}.{:03}", age.as_secs(), age.subsec_millis()))
            }
        };
        *cursor = BodyCursor { part: cursor.part + 1, ..BodyCursor::default() };
        Some(chunk)
    }

    /// The whole body as of `now`.
    pub fn complete(&self, now: Timestamp) -> Bytes {
        let mut out = BytesMut::with_capacity(self.held_bytes() + 48);
        for chunk in self.chunks(now) {
            out.extend_from_slice(&chunk);
        }
        out.freeze()
    }
}

/// How far a reading of a [`EventBody`] has come.
#[derive(Clone, Copy, Debug, Default)]
pub struct BodyCursor {
    part: usize,
    /// Bytes of the part, a text that is being escaped or compacted, that are done.
    offset: usize,
    compacting: Compacting,
}

/// The first chunk of `text`, which cuts no UTF-8 character in two, and whether more follows.
fn cut_text(text: &[u8]) -> (&[u8], bool) {
    let longest = text.len().min(CHUNK_BYTES);
    let mut end = longest;
    // A character has at most three continuation bytes; more means that the text is not UTF-8.
    for _ in 0..3 {
        match text.get(end) {
            Some(byte) if byte & 0xC0 == 0x80 && end > 0 => end -= 1,
            _ => break,
        }
    }
    if end == 0 {
        end = longest;
    }
    let (chunk, rest) = text.split_at(end);
    (chunk, !rest.is_empty())
}

/// Appends `text` as the inside of a JSON string. Bytes that are not UTF-8, which only a SQL_ASCII
/// database can send, become U+FFFD.
pub(crate) fn escape_into(out: &mut Vec<u8>, text: &[u8]) {
    // Checking a whole text is several times as fast as looking for its valid chunks.
    if std::str::from_utf8(text).is_ok() {
        return escape_valid(out, text);
    }
    for chunk in text.utf8_chunks() {
        escape_valid(out, chunk.valid().as_bytes());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{FFFD}".as_bytes());
        }
    }
}

/// Whether `text`, which is UTF-8, stands in a JSON string as it is.
pub(crate) fn is_plain(text: &[u8]) -> bool {
    special_at(text).is_none()
}

fn escape_valid(out: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text;
    while let Some(at) = special_at(rest) {
        let (plain, special) = rest.split_at(at);
        out.extend_from_slice(plain);
        let Some((&byte, after)) = special.split_first() else { return };
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0C => out.extend_from_slice(b"\\f"),
            control => {
                let digit = |value: u8| if value < 10 { b'0' + value } else { b'a' + value - 10 };
                let (high, low) = (digit(control >> 4), digit(control & 0x0F));
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
            }
        }
        rest = after;
    }
    out.extend_from_slice(rest);
}

/// The place of the first byte that must be escaped: a quote, a backslash or a control character.
///
/// Looks at eight bytes at a time; this is the hottest loop of rendering.
fn special_at(text: &[u8]) -> Option<usize> {
    let (words, tail) = text.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let marks = special_marks(u64::from_le_bytes(*word));
        if marks != 0 {
            return Some(at * 8 + marks.trailing_zeros() as usize / 8);
        }
    }
    let at = tail.iter().position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\')?;
    Some(words.len() * 8 + at)
}

/// Marks bytes to be escaped by their highest bit. A mark above the lowest may be wrong, because
/// the subtractions carry; the lowest never is.
/// Source: Sean Eron Anderson, "Bit Twiddling Hacks", "Determine if a word has a byte less than n".
const fn special_marks(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    let quote = word ^ (ONES * b'"' as u64);
    let quote = quote.wrapping_sub(ONES) & !quote;
    let backslash = word ^ (ONES * b'\\' as u64);
    let backslash = backslash.wrapping_sub(ONES) & !backslash;
    (control | quote | backslash) & HIGH
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn quoted(body: &EventBody) -> serde_json::Value {
        let mut json = b"\"".to_vec();
        json.extend_from_slice(&body.complete(Timestamp::default()));
        json.push(b'"');
        serde_json::from_slice(&json).unwrap()
    }

    #[test]
    fn places_of_the_attempt_are_filled_in_at_the_attempt() {
        let body = EventBody::new(vec![
            BodyPart::Bytes(Bytes::from_static(b"[")),
            BodyPart::AttemptSeconds,
            BodyPart::Bytes(Bytes::from_static(b",")),
            BodyPart::AgeSeconds { born: Timestamp::from_micros(1_500_000) },
            BodyPart::Bytes(Bytes::from_static(b"]")),
        ]);
        assert_eq!(body.complete(Timestamp::from_micros(17_020_000)), "[17,15.520]");
        assert_eq!(body.complete(Timestamp::from_micros(1_000_000)), "[1,0.000]");
    }

    #[test]
    fn a_large_text_is_escaped_in_chunks_that_join_seamlessly() {
        let text = "a\"é張\n🦀".repeat(20_000);
        let body = EventBody::new(vec![BodyPart::Escaped(Bytes::from(text.clone()))]);
        assert_eq!(quoted(&body), serde_json::Value::String(text));
        assert!(body.chunks(Timestamp::default()).all(|c| c.len() <= CHUNK_BYTES * 6));
    }

    #[test]
    fn a_large_json_loses_its_white_space_in_chunks_that_join_seamlessly() {
        let value: Vec<String> = (0..20_000).map(|n| format!("a \\ \"{n}\" é張 ")).collect();
        let text = serde_json::to_string_pretty(&value).unwrap();
        let body = EventBody::new(vec![BodyPart::Compacted(Bytes::from(text))]);
        let compact = serde_json::to_string(&value).unwrap();
        assert_eq!(body.complete(Timestamp::default()), compact);
        assert!(body.chunks(Timestamp::default()).all(|chunk| chunk.len() <= CHUNK_BYTES));
    }

    #[test]
    fn large_bytes_become_base64_in_chunks_that_join_seamlessly() {
        for length in [0, 1, 2, 3, 100_000, 100_001, 100_002] {
            let bytes: Vec<u8> = (0..=255).cycle().take(length).collect();
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let body = EventBody::new(vec![BodyPart::Base64(Bytes::from(hex))]);
            let expected = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, &bytes);
            assert_eq!(body.complete(Timestamp::default()), expected, "{length} bytes");
            assert!(body.chunks(Timestamp::default()).all(|c| c.len() <= HEX_CHUNK_BYTES));
        }
    }

    #[test]
    fn the_first_special_byte_is_found_wherever_it_stands() {
        for special in (0..=u8::MAX).filter(|byte| *byte < 0x20 || b"\"\\".contains(byte)) {
            for at in 0..20 {
                let mut text = [0x7F, b'!', b'[', 0x80, 0xFF, b' '].repeat(4);
                assert_eq!(special_at(&text), None);
                text[at] = special;
                text[at + 3] = b'"';
                assert_eq!(special_at(&text), Some(at), "case: {special:#x} at {at}");
            }
        }
    }

    proptest! {
        #[test]
        fn escaped_text_reads_back_the_same(text: String) {
            let body = EventBody::new(vec![BodyPart::Escaped(Bytes::from(text.clone()))]);
            prop_assert_eq!(quoted(&body), serde_json::Value::String(text));
        }

        #[test]
        fn any_bytes_become_valid_json(text: Vec<u8>) {
            let lossy = String::from_utf8_lossy(&text).into_owned();
            let body = EventBody::new(vec![BodyPart::Escaped(Bytes::from(text))]);
            prop_assert_eq!(quoted(&body), serde_json::Value::String(lossy));
        }
    }
}
