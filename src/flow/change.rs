//! What the source hands over: committed row changes, in commit order.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::flow::budget::Permit;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::flow::relation::Relation;
use crate::flow::time::Timestamp;

/// One step of the stream.
#[derive(Debug)]
pub enum Captured {
    Change(Change),
    /// The transaction is complete; `end` is what may be confirmed once all of it is settled.
    Commit {
        commit: Lsn,
        end: Lsn,
        committed: Timestamp,
        /// The transaction's id, without its epoch.
        xid: u32,
    },
    /// No transaction is open and the server has nothing for us before this position.
    Idle {
        end: Lsn,
    },
}

/// One row changed (or one table truncated) by a committed transaction.
#[derive(Debug)]
pub struct Change {
    pub position: Position,
    /// When the transaction was committed, on the server's clock.
    pub committed: Timestamp,
    pub relation: Arc<Relation>,
    pub op: Op,
    /// Content of the transaction's `pg_logical_emit_message(true, 'walhook', ...)`, if any came
    /// before this change. Not checked to be JSON.
    pub metadata: Option<Bytes>,
    /// Holds a share of the memory budget while a large row is alive.
    pub held: Option<Permit>,
}

#[derive(Debug)]
pub enum Op {
    Insert { new: Tuple },
    Update { old: Option<Old>, new: Tuple },
    Delete { old: Old },
    Truncate,
}

/// The old row, as far as the replica identity had PostgreSQL write it.
#[derive(Debug)]
pub enum Old {
    /// Only identity columns mean something; the others are null whatever they were.
    Key(Tuple),
    Full(Tuple),
}

impl Op {
    /// The bytes of the messages that the rows lie in.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Insert { new } | Self::Update { new, old: None } => new.raw.len(),
            Self::Update { new, old: Some(old) } => new.raw.len() + old.tuple().raw.len(),
            Self::Delete { old } => old.tuple().raw.len(),
            Self::Truncate => 0,
        }
    }
}

impl Old {
    pub fn tuple(&self) -> &Tuple {
        match self {
            Self::Key(tuple) | Self::Full(tuple) => tuple,
        }
    }
}

/// A row: one message's bytes, and where each column's text lies in them.
#[derive(Clone, Debug)]
pub struct Tuple {
    raw: Bytes,
    fields: Box<[Field]>,
}

/// One column of a [`Tuple`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Field {
    Null,
    /// A TOAST value that the update did not touch; PostgreSQL did not send it.
    Unchanged,
    /// The text form lies in this range of the tuple's bytes.
    Text(Range<usize>),
}

/// A column's value, borrowed from its tuple.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Value<'a> {
    Null,
    Unchanged,
    /// PostgreSQL's text form; UTF-8 except in a SQL_ASCII database.
    Text(&'a [u8]),
}

impl Tuple {
    /// `None` if a field lies outside of `raw`.
    pub fn new(raw: Bytes, fields: Box<[Field]>) -> Option<Self> {
        let inside = |field: &Field| match field {
            Field::Text(range) => raw.get(range.clone()).is_some(),
            Field::Null | Field::Unchanged => true,
        };
        fields.iter().all(inside).then_some(Self { raw, fields })
    }

    /// Number of columns.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The value of a column; `Null` beyond the last, as for a column added later.
    pub fn value(&self, column: usize) -> Value<'_> {
        match self.fields.get(column) {
            Some(Field::Text(range)) => {
                Value::Text(self.raw.get(range.clone()).unwrap_or_default())
            }
            Some(Field::Unchanged) => Value::Unchanged,
            Some(Field::Null) | None => Value::Null,
        }
    }

    /// The same value as a slice that keeps the message's bytes alive: for large values that are
    /// not to be copied. `None` for null and unchanged.
    pub fn shared(&self, column: usize) -> Option<Bytes> {
        match self.fields.get(column) {
            Some(Field::Text(range)) => Some(self.raw.slice(range.clone())),
            Some(Field::Unchanged | Field::Null) | None => None,
        }
    }
}
