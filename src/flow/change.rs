//! What the source hands over: committed row changes, in commit order.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::flow::backfill::ReadRow;
use crate::flow::budget::MemoryPermit;
use crate::flow::event::EventId;
use crate::flow::event::IdOrigin;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::flow::relation::Relation;
use crate::flow::time::Timestamp;
use crate::flow::trace::TraceContext;

/// One step of the stream.
#[derive(Debug)]
pub enum CapturedItem {
    Change(CommittedChange),
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
pub struct CommittedChange {
    pub position: Position,
    /// When the transaction was committed, on the server's clock.
    pub committed: Timestamp,
    pub relation: Arc<Relation>,
    pub op: ChangeOp,
    /// The transaction's id, without its epoch; 0 where there was none.
    pub xid: u32,
    /// Content of the transaction's `pg_logical_emit_message(true, 'walhook', ...)`, if any came
    /// before this change. Not checked to be JSON.
    pub metadata: Option<Bytes>,
    /// That of the transaction's `pg_logical_emit_message(true, 'walhook.traceparent', ...)`, likewise.
    pub trace: Option<TraceContext>,
    /// Holds a share of the memory budget while a large row is alive.
    pub held: Option<MemoryPermit>,
}

impl CommittedChange {
    /// The id of the event that the change becomes, under the rule of this origin.
    pub fn event_id(&self, origin: IdOrigin) -> EventId {
        match &self.op {
            ChangeOp::Read { read, .. } => EventId::of_read(read.id, origin),
            // Beside the event of the row that it came with.
            ChangeOp::Schema => EventId::new(self.position, origin.of_schema()),
            _ => EventId::new(self.position, origin),
        }
    }
}

#[derive(Debug)]
pub enum ChangeOp {
    Insert {
        new: RowTuple,
    },
    Update {
        old: Option<OldRow>,
        new: RowTuple,
    },
    Delete {
        old: OldRow,
    },
    Truncate,
    /// No change of rows: the table has another shape from here on, which the relation says.
    Schema,
    /// No change: a backfill has found the row in the table.
    Read {
        new: RowTuple,
        read: ReadRow,
    },
}

/// The old row, as far as the replica identity had PostgreSQL write it.
#[derive(Debug)]
pub enum OldRow {
    /// Only identity columns mean something; the others are null whatever they were.
    Key(RowTuple),
    Full(RowTuple),
}

impl ChangeOp {
    /// The bytes of the messages that the rows lie in.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Insert { new } | Self::Update { new, old: None } | Self::Read { new, .. } => {
                new.raw.len()
            }
            Self::Update { new, old: Some(old) } => new.raw.len() + old.tuple().raw.len(),
            Self::Delete { old } => old.tuple().raw.len(),
            Self::Truncate | Self::Schema => 0,
        }
    }
}

impl OldRow {
    pub fn tuple(&self) -> &RowTuple {
        match self {
            Self::Key(tuple) | Self::Full(tuple) => tuple,
        }
    }
}

/// A row: one message's bytes, and where each column's text lies in them.
#[derive(Clone, Debug)]
pub struct RowTuple {
    raw: Bytes,
    fields: Box<[ColumnField]>,
}

/// One column of a [`RowTuple`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ColumnField {
    Null,
    /// A TOAST value that the update did not touch; PostgreSQL did not send it.
    Unchanged,
    /// The text form lies in this range of the tuple's bytes.
    Text(Range<usize>),
}

/// A column's value, borrowed from its tuple.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ColumnValue<'a> {
    Null,
    Unchanged,
    /// PostgreSQL's text form; UTF-8 except in a SQL_ASCII database.
    Text(&'a [u8]),
}

impl RowTuple {
    /// `None` if a field lies outside of `raw`.
    pub fn new(raw: Bytes, fields: Box<[ColumnField]>) -> Option<Self> {
        let inside = |field: &ColumnField| match field {
            ColumnField::Text(range) => raw.get(range.clone()).is_some(),
            ColumnField::Null | ColumnField::Unchanged => true,
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

    /// The bytes that the columns' texts lie in.
    pub fn bytes(&self) -> usize {
        self.raw.len()
    }

    /// The row of these values, in bytes of its own.
    pub fn of_values<'a>(values: impl Iterator<Item = ColumnValue<'a>>) -> Self {
        let mut raw = Vec::new();
        let field = |value| match value {
            ColumnValue::Null => ColumnField::Null,
            ColumnValue::Unchanged => ColumnField::Unchanged,
            ColumnValue::Text(text) => {
                let start = raw.len();
                raw.extend_from_slice(text);
                ColumnField::Text(start..raw.len())
            }
        };
        let fields = values.map(field).collect();
        Self { raw: Bytes::from(raw), fields }
    }

    /// The value of a column; `Null` beyond the last, as for a column added later.
    pub fn value(&self, column: usize) -> ColumnValue<'_> {
        match self.fields.get(column) {
            Some(ColumnField::Text(range)) => {
                ColumnValue::Text(self.raw.get(range.clone()).unwrap_or_default())
            }
            Some(ColumnField::Unchanged) => ColumnValue::Unchanged,
            Some(ColumnField::Null) | None => ColumnValue::Null,
        }
    }

    /// The same value as a slice that keeps the message's bytes alive: for large values that are
    /// not to be copied. `None` for null and unchanged.
    pub fn shared(&self, column: usize) -> Option<Bytes> {
        match self.fields.get(column) {
            Some(ColumnField::Text(range)) => Some(self.raw.slice(range.clone())),
            Some(ColumnField::Unchanged | ColumnField::Null) | None => None,
        }
    }
}
