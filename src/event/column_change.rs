//! What a change says about a column, before and after.
//!
//! PostgreSQL sends less than the whole: no value of a large column that an update did not touch, no
//! old row without a replica identity, of a key image the identity alone. Here is decided once what
//! follows from what it sent, for filters and payloads alike.

use crate::flow::change::ChangeOp;
use crate::flow::change::ColumnValue;
use crate::flow::change::CommittedChange;
use crate::flow::change::OldRow;
use crate::flow::change::RowTuple;
use crate::flow::relation::ReplicaIdentity;

/// Where a column's value is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RowImage<'a> {
    /// In this row.
    In(&'a RowTuple),
    /// There is no such row: null.
    None,
    /// PostgreSQL did not send it.
    Unknown,
}

/// A column of the row as the change left it; of the row that was, for a delete.
pub(crate) fn current(change: &CommittedChange, column: usize) -> RowImage<'_> {
    match &change.op {
        ChangeOp::Insert { new } | ChangeOp::Read { new, .. } => RowImage::In(new),
        ChangeOp::Update { new, .. } => match new.value(column) {
            // Not touched: what it was is what it is.
            ColumnValue::Unchanged => previous(change, column),
            ColumnValue::Null | ColumnValue::Text(_) => RowImage::In(new),
        },
        ChangeOp::Delete { .. } => previous(change, column),
        ChangeOp::Truncate | ChangeOp::Schema => RowImage::None,
    }
}

/// A column of the row as it was before.
pub(crate) fn previous(change: &CommittedChange, column: usize) -> RowImage<'_> {
    let (old, new) = match &change.op {
        ChangeOp::Insert { .. } | ChangeOp::Read { .. } | ChangeOp::Truncate | ChangeOp::Schema => {
            return RowImage::None;
        }
        ChangeOp::Update { old, new } => (old.as_ref(), Some(new)),
        ChangeOp::Delete { old } => (Some(old), None),
    };
    match (old, new) {
        (Some(old), _) if carries(old, change, column) => RowImage::In(old.tuple()),
        // No old row comes when the identity did not change, so its columns are what they were.
        (None, Some(new))
            if is_identity(change, column) && new.value(column) != ColumnValue::Unchanged =>
        {
            RowImage::In(new)
        }
        _ => RowImage::Unknown,
    }
}

/// Whether the old row says anything about a column.
pub(crate) fn carries(old: &OldRow, change: &CommittedChange, column: usize) -> bool {
    match old {
        OldRow::Full(tuple) => tuple.value(column) != ColumnValue::Unchanged,
        OldRow::Key(tuple) => {
            let of_identity = change.relation.columns.get(column).is_some_and(|c| c.identity);
            of_identity && matches!(tuple.value(column), ColumnValue::Text(_))
        }
    }
}

/// Whether an update changed a column, as far as PostgreSQL sent both values.
pub(crate) fn is_changed(change: &CommittedChange, column: usize) -> bool {
    match (previous(change, column), current(change, column)) {
        (RowImage::In(old), RowImage::In(new)) => old.value(column) != new.value(column),
        _ => false,
    }
}

fn is_identity(change: &CommittedChange, column: usize) -> bool {
    // With FULL every column is marked, and the old row always comes.
    let keyed =
        matches!(change.relation.identity, ReplicaIdentity::Default | ReplicaIdentity::Index);
    keyed && change.relation.columns.get(column).is_some_and(|column| column.identity)
}
