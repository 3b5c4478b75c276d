//! Backfills: rows that were there before, sent as events between the changes.

use std::fmt;
use std::sync::Arc;

use crate::flow::key::KeyHash;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;

/// Names a backfill: its row in `walhook.backfills`.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct BackfillId(pub i64);

impl fmt::Display for BackfillId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// No LSN has this bit: it would take eight exabytes of WAL.
const READ: u64 = 1 << 63;

/// The bits of a backfill's number in a [`ReadId`], below [`READ`]. With the bit they are five hex digits
/// of an event's id.
const BACKFILL_BITS: u32 = 19;
const ROW_BITS: u32 = 63 - BACKFILL_BITS;

/// Tells a row that a backfill has read from all others that are read and from all changes.
///
/// A fingerprint of 76 bits, beside the last 19 bits of the backfill's number. Two rows of one backfill that
/// collide would be taken for one: with a milliard of rows the chance is one in 100,000.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct ReadId {
    row: u64,
    more: u32,
    backfill: u64,
}

impl ReadId {
    /// Of the row that `parts` tell from the others of the backfill.
    pub fn new<'a>(
        backfill: BackfillId,
        parts: impl Iterator<Item = Option<&'a [u8]>> + Clone,
    ) -> Self {
        let number = backfill.0.to_be_bytes();
        let whole =
            |salt: &'a [u8]| KeyHash::of([Some(salt)].into_iter().chain(parts.clone())).raw();
        let (row, more) = (whole(b"row"), whole(b"more"));
        // The whole number is in it, too: 19 bits come round again.
        let mixed =
            KeyHash::of([Some(number.as_slice()), Some(row.to_be_bytes().as_slice())]).raw();
        let more = u32::try_from(more >> 32).unwrap_or_default();
        Self { row: mixed, more, backfill: place(backfill) }
    }

    pub(in crate::flow) const fn in_place(self) -> Position {
        let row = self.row >> (64 - ROW_BITS);
        Position {
            commit: Lsn::from_raw(READ | (self.backfill << ROW_BITS) | row),
            ordinal: self.more,
        }
    }

    pub(in crate::flow) const fn is_one(position: Position) -> bool {
        position.commit.raw() & READ != 0
    }

    /// The first and the last of a backfill.
    pub(in crate::flow) fn range(backfill: BackfillId) -> (Position, Position) {
        let first = READ | (place(backfill) << ROW_BITS);
        let last = first | ((1 << ROW_BITS) - 1);
        let at = |commit, ordinal| Position { commit: Lsn::from_raw(commit), ordinal };
        (at(first, 0), at(last, u32::MAX))
    }

    /// What the texts of the ids of a backfill's events begin with.
    pub fn prefix(backfill: BackfillId) -> String {
        let first = READ | (place(backfill) << ROW_BITS);
        format!("evt_{:05x}", first >> ROW_BITS)
    }
}

fn place(backfill: BackfillId) -> u64 {
    backfill.0.cast_unsigned() & ((1 << BACKFILL_BITS) - 1)
}

/// The lowest text that no event of a change has as id: all of backfills come after it.
pub(crate) const FIRST_READ_ID: &str = "evt_8";

/// Whom the rows of a backfill are for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct BackfillTarget {
    /// The event type whose rule takes them; `None`: all that ask for `read`.
    pub event_type: Option<Arc<str>>,
    /// By name; empty means all.
    pub endpoints: Vec<Arc<str>>,
}

/// What is special about a row that was read.
#[derive(Clone, Debug)]
pub struct ReadRow {
    pub id: ReadId,
    pub target: Arc<BackfillTarget>,
}

impl ReadRow {
    /// Of no backfill, to try events on.
    pub fn of_nobody() -> Self {
        let id = ReadId::new(BackfillId(0), std::iter::empty());
        Self { id, target: Arc::default() }
    }
}

/// A chunk of a backfill has gone out: once it is settled or parked, the backfill is as far as this.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BackfillStep {
    pub id: BackfillId,
    /// Counts the chunks that this process has read of it.
    pub chunk: u64,
    /// Where to read on, as `walhook.backfills` keeps it.
    pub cursor: Arc<str>,
    /// Rows that were read, and those of them that went out.
    pub read: u64,
    pub sent: u64,
    /// Rows that have moved up to this change have been looked for where they are.
    pub moved: Option<Position>,
}

/// A row has got another key while a backfill reads its table: it may stand before the cursor now, and have
/// stood beyond it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MovedRow {
    pub backfill: BackfillId,
    /// The change that moved it.
    pub position: Position,
    /// Its transaction, without its epoch.
    pub xid: u32,
    /// The new key: texts in the order of [`crate::flow::relation::Relation::row_key`].
    pub key: Vec<String>,
    /// The one that it had before.
    pub old_key: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::event::EventId;
    use crate::flow::event::IdOrigin;

    fn read(backfill: i64, key: &str) -> ReadId {
        ReadId::new(
            BackfillId(backfill),
            [Some(b"public.t".as_slice()), Some(key.as_bytes())].into_iter(),
        )
    }

    #[test]
    fn ids_of_reads_come_after_those_of_changes_and_tell_their_backfill() {
        let origin = IdOrigin::new(1, "a.read");
        let id = |backfill, key| EventId::of_read(read(backfill, key), origin);
        let change = Position { commit: Lsn::from_raw(u64::MAX >> 1), ordinal: 7 };
        assert!(id(3, "1") > EventId::new(change, origin));
        assert_eq!(id(3, "1").position(), None);
        assert_eq!(EventId::new(change, origin).position(), Some(change));
        assert!(id(3, "1").is_of_backfill(BackfillId(3)));
        assert!(!id(3, "1").is_of_backfill(BackfillId(4)));
        assert_eq!(id(3, "1"), id(3, "1"));
        assert_ne!(id(3, "1"), id(3, "2"));
        let later = 3 + (1 << BACKFILL_BITS);
        assert_ne!(id(3, "1"), id(later, "1"), "the number comes round, the id does not");
        assert!(id(3, "1").to_string().starts_with(&ReadId::prefix(BackfillId(3))));
        assert!(*id(0, "1").to_string() >= *FIRST_READ_ID);
        assert_eq!(id(3, "1").to_string().parse(), Ok(id(3, "1")));
    }
}
