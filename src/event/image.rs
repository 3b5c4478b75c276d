//! What a change says about a column, before and after.
//!
//! PostgreSQL sends less than the whole: no value of a large column that an update did not touch, no
//! old row without a replica identity, of a key image the identity alone. Here is decided once what
//! follows from what it sent, for filters and payloads alike.

use crate::flow::change::Change;
use crate::flow::change::Old;
use crate::flow::change::Op;
use crate::flow::change::Tuple;
use crate::flow::change::Value;
use crate::flow::relation::ReplicaIdentity;

/// Where a column's value is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Image<'a> {
    /// In this row.
    In(&'a Tuple),
    /// There is no such row: null.
    None,
    /// PostgreSQL did not send it.
    Unknown,
}

/// A column of the row as the change left it; of the row that was, for a delete.
pub(crate) fn current(change: &Change, column: usize) -> Image<'_> {
    match &change.op {
        Op::Insert { new } => Image::In(new),
        Op::Update { new, .. } => match new.value(column) {
            // Not touched: what it was is what it is.
            Value::Unchanged => previous(change, column),
            Value::Null | Value::Text(_) => Image::In(new),
        },
        Op::Delete { .. } => previous(change, column),
        Op::Truncate => Image::None,
    }
}

/// A column of the row as it was before.
pub(crate) fn previous(change: &Change, column: usize) -> Image<'_> {
    let (old, new) = match &change.op {
        Op::Insert { .. } | Op::Truncate => return Image::None,
        Op::Update { old, new } => (old.as_ref(), Some(new)),
        Op::Delete { old } => (Some(old), None),
    };
    match (old, new) {
        (Some(old), _) if carries(old, change, column) => Image::In(old.tuple()),
        // No old row comes when the identity did not change, so its columns are what they were.
        (None, Some(new))
            if is_identity(change, column) && new.value(column) != Value::Unchanged =>
        {
            Image::In(new)
        }
        _ => Image::Unknown,
    }
}

/// Whether the old row says anything about a column.
pub(crate) fn carries(old: &Old, change: &Change, column: usize) -> bool {
    match old {
        Old::Full(tuple) => tuple.value(column) != Value::Unchanged,
        Old::Key(tuple) => {
            let of_identity = change.relation.columns.get(column).is_some_and(|c| c.identity);
            of_identity && matches!(tuple.value(column), Value::Text(_))
        }
    }
}

/// Whether an update changed a column, as far as PostgreSQL sent both values.
pub(crate) fn is_changed(change: &Change, column: usize) -> bool {
    match (previous(change, column), current(change, column)) {
        (Image::In(old), Image::In(new)) => old.value(column) != new.value(column),
        _ => false,
    }
}

fn is_identity(change: &Change, column: usize) -> bool {
    // With FULL every column is marked, and the old row always comes.
    let keyed =
        matches!(change.relation.identity, ReplicaIdentity::Default | ReplicaIdentity::Index);
    keyed && change.relation.columns.get(column).is_some_and(|column| column.identity)
}
