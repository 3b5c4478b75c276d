//! Events: one row change under one rule, with id, key, body and facts.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::flow::backfill::BackfillId;
use crate::flow::backfill::ReadId;
use crate::flow::body::EventBody;
use crate::flow::budget::HeldMemory;
use crate::flow::key::EventKeys;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::flow::relation::TableName;
use crate::flow::time::Timestamp;
use crate::flow::write_back::TargetRow;

/// Identifies an event for ever: the same change always has the same id, so that a receiver can
/// discard a repeat.
///
/// `evt_`, then the commit LSN (16 hex digits), the ordinal of the change in its transaction
/// (8) and a fingerprint of the database system and the event type (16). Sorting ids sorts events
/// by commit. There is no dot in it: Standard Webhooks signs `id.timestamp.body`.
///
/// The event of a row that a backfill has read has the row's [`ReadId`] in the place of the position:
/// the same whenever that row is read by that backfill. Such ids come after all others.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EventId {
    position: Position,
    origin: IdOrigin,
}

/// The part of an [`EventId`] that is the same for all events of one type from one database.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct IdOrigin(u64);

impl IdOrigin {
    /// `system` is the database system identifier that `IDENTIFY_SYSTEM` reports.
    pub fn new(system: u64, event_type: &str) -> Self {
        let mut text = system.to_be_bytes().to_vec();
        text.extend_from_slice(event_type.as_bytes());
        Self(xxhash_rust::xxh3::xxh3_64(&text))
    }

    /// Of the events of this type that tell of the table's shape.
    pub(crate) const fn of_schema(self) -> Self {
        Self(!self.0)
    }
}

impl EventId {
    pub const fn new(position: Position, origin: IdOrigin) -> Self {
        Self { position, origin }
    }

    /// Of the event of a row that a backfill has read.
    pub const fn of_read(read: ReadId, origin: IdOrigin) -> Self {
        Self { position: read.in_place(), origin }
    }

    /// Where the change stands that raised the event; `None` if a backfill did.
    pub const fn position(self) -> Option<Position> {
        match ReadId::is_one(self.position) {
            true => None,
            false => Some(self.position),
        }
    }

    /// Whether a backfill has raised the event, and this one, as far as ids tell backfills apart.
    pub fn is_of_backfill(self, backfill: BackfillId) -> bool {
        let (first, last) = ReadId::range(backfill);
        (first..=last).contains(&self.position)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It is written for every request and every log line: digit by digit this takes a tenth of
        // the time of `{:016x}`.
        let Position { commit, ordinal } = self.position;
        let bytes = commit.raw().to_be_bytes().into_iter().chain(ordinal.to_be_bytes());
        let bytes = bytes.chain(self.origin.0.to_be_bytes());
        let digit = |value: u8| if value < 10 { b'0' + value } else { b'a' + value - 10 };
        let mut text = *b"evt_0000000000000000000000000000000000000000";
        let (places, _) = text.split_at_mut(4).1.as_chunks_mut::<2>();
        for (place, byte) in places.iter_mut().zip(bytes) {
            *place = [digit(byte >> 4), digit(byte & 0x0F)];
        }
        f.write_str(str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

/// The text is not an event id.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
#[error("{given:?} is not an event id: it looks like evt_ and 40 hex digits")]
pub struct ParseEventIdError {
    given: String,
}

impl std::str::FromStr for EventId {
    type Err = ParseEventIdError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let parse = |s: &str| {
            let hex = s.strip_prefix("evt_")?;
            if hex.len() != 40 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
                return None;
            }
            let commit = u64::from_str_radix(hex.get(..16)?, 16).ok()?;
            let ordinal = u32::from_str_radix(hex.get(16..24)?, 16).ok()?;
            let origin = u64::from_str_radix(hex.get(24..)?, 16).ok()?;
            let position = Position { commit: Lsn::from_raw(commit), ordinal };
            Some(Self::new(position, IdOrigin(origin)))
        };
        parse(s).ok_or_else(|| ParseEventIdError { given: s.to_owned() })
    }
}

/// The index of an event rule in the settings' list.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct RuleIndex(pub usize);

/// When an event is too old to be sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct EventExpiry {
    /// What the age is measured from, on the database's clock.
    pub born: Timestamp,
    pub max_age: Duration,
}

impl EventExpiry {
    /// `now` is on the database's clock too.
    pub fn is_over(&self, now: Timestamp) -> bool {
        now.since(self.born) > self.max_age
    }
}

/// One event, rendered. Shared by the lanes of all endpoints that get it.
#[derive(Debug)]
pub struct Event {
    pub id: EventId,
    /// Counts events since the process started; the watermark's index.
    pub sequence: u64,
    pub position: Position,
    pub event_type: Arc<str>,
    pub table: Arc<TableName>,
    pub committed: Timestamp,
    pub keys: EventKeys,
    pub expiry: Option<EventExpiry>,
    pub body: EventBody,
    pub facts: EventFacts,
    /// What its write-back needs; `None` where its rule has none, and for events that were parked.
    pub write_back: Option<Box<TargetRow>>,
    /// Its share of the memory budget; `None` only where nothing is budgeted, as in tests.
    pub held: Option<HeldMemory>,
}

impl Event {
    /// The same event in another shape.
    #[must_use]
    pub fn shaped(&self, body: EventBody, held: Option<HeldMemory>) -> Self {
        Self {
            write_back: self.write_back.clone(),
            id: self.id,
            sequence: self.sequence,
            position: self.position,
            event_type: Arc::clone(&self.event_type),
            table: Arc::clone(&self.table),
            committed: self.committed,
            keys: self.keys,
            expiry: self.expiry,
            body,
            facts: self.facts.clone(),
            held,
        }
    }
}

/// The few short values of the row that may appear in logs and in the push log, by column: the
/// primary key, and what the event's rule names. Values are cut and cleaned by `event`, which makes them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct EventFacts(Vec<(Arc<str>, String)>);

impl EventFacts {
    pub fn new(facts: Vec<(Arc<str>, String)>) -> Self {
        Self(facts)
    }

    pub fn find(&self, column: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| &**name == column).map(|(_, value)| value.as_str())
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_id_reads_back_and_differs_by_every_part(commit: u64, ordinal: u32, system: u64) {
            let position = Position { commit: Lsn::from_raw(commit), ordinal };
            let id = EventId::new(position, IdOrigin::new(system, "a.created"));
            prop_assert_eq!(id.to_string().parse::<EventId>().unwrap(), id);
            prop_assert!(!id.to_string().contains('.'));
            prop_assert_ne!(id, EventId::new(position, IdOrigin::new(system, "a.updated")));
            prop_assert_ne!(id, EventId::new(position, IdOrigin::new(system ^ 1, "a.created")));
        }
    }

    #[test]
    fn an_id_shows_its_parts_in_order() {
        let position = Position { commit: Lsn::from_raw(0x16_B374_D848), ordinal: 0xAF };
        let id = EventId::new(position, IdOrigin(0xFEDC_BA98_7654_3210));
        assert_eq!(id.to_string(), "evt_00000016b374d848000000affedcba9876543210");
    }

    #[test]
    fn expiry_counts_the_last_moment_in() {
        let expiry =
            EventExpiry { born: Timestamp::from_seconds(100), max_age: Duration::from_secs(5) };
        assert!(!expiry.is_over(Timestamp::from_seconds(105)));
        assert!(expiry.is_over(Timestamp::from_micros(105_000_001)));
        assert!(!expiry.is_over(Timestamp::from_seconds(1)), "a clock behind is no age");
    }
}
