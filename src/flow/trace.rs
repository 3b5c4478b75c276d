//! Trace contexts, as W3C's Trace Context (level 1) writes them: `00-<trace>-<span>-<flags>`.
//!
//! A writer gives one for its transaction or its row; it travels with the event's body as the header
//! `traceparent`, so it outlives parking and restarts. Where there is none, the event's id makes one: the
//! same for each attempt, after a crash, and on every machine.

use std::fmt;

use http::HeaderName;
use http::HeaderValue;

use crate::flow::event::Event;
use crate::flow::event::EventId;
use crate::flow::hex::bytes_of;

/// The header, and the name under which a body keeps what its writer gave.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// `00`, two ids, flags, and the dashes between them.
const TEXT_BYTES: usize = 2 + 1 + 32 + 1 + 16 + 1 + 2;

/// The only flag of level 1.
const SAMPLED: u8 = 1;

/// Names a trace. Never zero, which means "none".
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct TraceId([u8; 16]);

/// Names a span within its trace. Never zero.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct SpanId([u8; 8]);

impl TraceId {
    /// The trace of an event whose writer gave none.
    pub fn of_event(event: EventId) -> Self {
        let hash = xxhash_rust::xxh3::xxh3_128(event.to_string().as_bytes());
        Self(hash.max(1).to_be_bytes())
    }

    pub const fn bytes(self) -> [u8; 16] {
        self.0
    }

    /// The lower half, from which samplers draw.
    pub fn lower(self) -> u64 {
        let [.., a, b, c, d, e, f, g, h] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

impl SpanId {
    /// The span of what `part` names of an event.
    pub fn of_event(event: EventId, part: &str) -> Self {
        let text = format!("{event} {part}");
        Self(xxhash_rust::xxh3::xxh3_64(text.as_bytes()).max(1).to_be_bytes())
    }

    pub const fn bytes(self) -> [u8; 8] {
        self.0
    }
}

/// A span to be the parent of others, and whether its trace is recorded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TraceContext {
    pub trace: TraceId,
    pub span: SpanId,
    pub is_sampled: bool,
}

impl TraceContext {
    /// Reads a `traceparent`. `None` if it is none: other lengths or letters, an id of zeros, or version
    /// `ff`. Of later versions what level 1 knows is read, as the specification wants it.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (head, more) = text.split_at_checked(TEXT_BYTES)?;
        let parts: Vec<&[u8]> = head.split(|byte| *byte == b'-').collect();
        let [version, trace, span, flags] = parts.as_slice() else { return None };
        let [version] = lower_hex::<1>(version)?;
        let is_known = match version {
            0 => more.is_empty(),
            0xFF => false,
            _ => more.is_empty() || more.starts_with(b"-"),
        };
        let (trace, span) = (lower_hex::<16>(trace)?, lower_hex::<8>(span)?);
        let [flags] = lower_hex::<1>(flags)?;
        let is_none = trace == [0; 16] || span == [0; 8];
        (is_known && !is_none).then_some(Self {
            trace: TraceId(trace),
            span: SpanId(span),
            is_sampled: flags & SAMPLED != 0,
        })
    }

    /// What the event's writer gave.
    pub fn of_writer(event: &Event) -> Option<Self> {
        let header = event.body.headers().iter().find(|(name, _)| *name == TRACEPARENT)?;
        Self::parse(header.1.as_bytes())
    }

    pub fn header(self) -> HeaderValue {
        HeaderValue::try_from(self.to_string()).expect("hex digits and dashes")
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let trace = u128::from_be_bytes(self.trace.0);
        let span = u64::from_be_bytes(self.span.0);
        write!(f, "00-{trace:032x}-{span:016x}-{:02x}", u8::from(self.is_sampled))
    }
}

/// So many bytes of hexadecimal digits, which the specification wants in lower case.
fn lower_hex<const BYTES: usize>(digits: &[u8]) -> Option<[u8; BYTES]> {
    if digits.len() != BYTES * 2 || digits.iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    bytes_of(digits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::event::IdOrigin;
    use crate::flow::lsn::Lsn;
    use crate::flow::lsn::Position;
    use proptest::prelude::*;

    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn only_what_is_a_traceparent_is_read_as_one() {
        let cases = [
            ("sampled", GIVEN.to_owned(), Some(true)),
            ("not sampled", GIVEN.replace("-01", "-00"), Some(false)),
            ("other flags", GIVEN.replace("-01", "-fe"), Some(false)),
            ("a later version", format!("{}-more", GIVEN.replacen("00", "cc", 1)), Some(true)),
            ("a later version without a dash", format!("{}x", GIVEN.replacen("00", "cc", 1)), None),
            ("version ff", GIVEN.replacen("00", "ff", 1), None),
            ("version 00 with more", format!("{GIVEN}-more"), None),
            ("upper case", GIVEN.to_uppercase(), None),
            (
                "a trace of zeros",
                GIVEN.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
                None,
            ),
            ("a span of zeros", GIVEN.replace("00f067aa0ba902b7", &"0".repeat(16)), None),
            ("a dash elsewhere", GIVEN.replace("4bf9", "4-f9"), None),
            ("no digits", GIVEN.replace("4bf9", "zzzz"), None),
            ("too short", GIVEN.trim_end_matches('1').to_owned(), None),
            ("nothing", String::new(), None),
        ];
        for (name, text, expected) in cases {
            let read = TraceContext::parse(text.as_bytes());
            assert_eq!(read.map(|context| context.is_sampled), expected, "case: {name}");
        }
        let read = TraceContext::parse(GIVEN.as_bytes()).unwrap();
        assert_eq!(read.to_string(), GIVEN);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(text: Vec<u8>) {
            let _read = TraceContext::parse(&text);
        }

        #[test]
        fn an_event_makes_the_same_ids_each_time_and_none_of_zeros(commit: u64, ordinal: u32, system: u64) {
            let position = Position { commit: Lsn::from_raw(commit), ordinal };
            let id = EventId::new(position, IdOrigin::new(system, "a"));
            let made = |id| TraceContext {
                trace: TraceId::of_event(id),
                span: SpanId::of_event(id, "event"),
                is_sampled: true,
            };
            prop_assert_eq!(made(id), made(id));
            prop_assert_eq!(TraceContext::parse(made(id).to_string().as_bytes()), Some(made(id)));
            let other = EventId::new(position, IdOrigin::new(system, "b"));
            prop_assert_ne!(made(id).trace, made(other).trace);
            prop_assert_ne!(SpanId::of_event(id, "event"), SpanId::of_event(id, "change"));
        }
    }
}
