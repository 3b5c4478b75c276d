//! Rows and what belongs to them as JSON: the new row, the old one, what has changed, metadata.

use crate::event::column_change;
use crate::event::column_change::RowImage;
use crate::event::datum;
use crate::event::table_shape;
use crate::event::writer::JsonWriter;
use crate::event::writer::NamedColumn;
use crate::flow::change::ChangeOp;
use crate::flow::change::ColumnValue;
use crate::flow::change::CommittedChange;
use crate::flow::change::OldRow;
use crate::flow::change::RowTuple;

/// What an operation is called in expressions and bodies.
pub(crate) const fn op(op: &ChangeOp) -> &'static str {
    match op {
        ChangeOp::Insert { .. } => "insert",
        ChangeOp::Update { .. } => "update",
        ChangeOp::Delete { .. } => "delete",
        ChangeOp::Truncate => "truncate",
        ChangeOp::Schema => "schema",
        ChangeOp::Read { .. } => "read",
    }
}

/// The row that the change is about: the new one, what is known of the old one on a delete, null
/// for a truncate. Of a table with another shape its columns.
pub(crate) fn data(out: &mut JsonWriter, columns: &[NamedColumn], change: &CommittedChange) {
    match &change.op {
        ChangeOp::Insert { new } | ChangeOp::Read { new, .. } => {
            object(out, columns, new, change, None);
        }
        ChangeOp::Update { old, new } => object(out, columns, new, change, old.as_ref()),
        ChangeOp::Delete { old } => old_object(out, columns, old, change),
        ChangeOp::Truncate => out.raw("null"),
        ChangeOp::Schema => table_shape::write(out, &change.relation),
    }
}

/// What the application attached to the transaction: what is not JSON must not break ours.
pub(crate) fn metadata(out: &mut JsonWriter, given: &[u8]) {
    if datum::is_json(given) {
        out.json(given);
    } else {
        out.string(given);
    }
}

/// The previous values of the columns that an update changed, as far as PostgreSQL sent them.
pub(crate) fn changes(out: &mut JsonWriter, columns: &[NamedColumn], change: &CommittedChange) {
    let mut separator = "{";
    for column in columns.iter().filter(|column| column_change::is_changed(change, column.index)) {
        let RowImage::In(old) = column_change::previous(change, column.index) else { continue };
        out.raw(separator);
        separator = ",";
        out.raw(&column.label);
        out.column(old, column.index, &column.sql_type);
    }
    out.raw(if separator == "{" { "{}" } else { "}" });
}

/// The old row, as far as there is one.
pub(crate) fn old_of(op: &ChangeOp) -> Option<&OldRow> {
    match op {
        ChangeOp::Update { old, .. } => old.as_ref(),
        ChangeOp::Delete { old } => Some(old),
        ChangeOp::Insert { .. } | ChangeOp::Read { .. } | ChangeOp::Truncate | ChangeOp::Schema => {
            None
        }
    }
}

/// A row as a JSON object. A value that the update did not send is taken from the whole old row
/// where there is one, and left out where there is none.
fn object(
    out: &mut JsonWriter,
    columns: &[NamedColumn],
    row: &RowTuple,
    change: &CommittedChange,
    old: Option<&OldRow>,
) {
    let mut separator = "{";
    for column in columns {
        let source = match (row.value(column.index), old) {
            (ColumnValue::Unchanged, Some(old))
                if column_change::carries(old, change, column.index) =>
            {
                old.tuple()
            }
            (ColumnValue::Unchanged, _) => continue,
            (ColumnValue::Null | ColumnValue::Text(_), _) => row,
        };
        out.raw(separator);
        separator = ",";
        out.raw(&column.label);
        out.column(source, column.index, &column.sql_type);
    }
    out.raw(if separator == "{" { "{}" } else { "}" });
}

/// The old row: the whole of it, or its identity columns alone. The others of a key image are null
/// whatever they were, so they are left out.
pub(crate) fn old_object(
    out: &mut JsonWriter,
    columns: &[NamedColumn],
    old: &OldRow,
    change: &CommittedChange,
) {
    let mut separator = "{";
    for column in columns.iter().filter(|column| column_change::carries(old, change, column.index))
    {
        out.raw(separator);
        separator = ",";
        out.raw(&column.label);
        out.column(old.tuple(), column.index, &column.sql_type);
    }
    out.raw(if separator == "{" { "{}" } else { "}" });
}

/// The row that an event is about: the new one, or what is known of the old one on a delete.
pub(crate) fn row_of(op: &ChangeOp) -> Option<&RowTuple> {
    match op {
        ChangeOp::Insert { new } | ChangeOp::Update { new, .. } | ChangeOp::Read { new, .. } => {
            Some(new)
        }
        ChangeOp::Delete { old } => Some(old.tuple()),
        ChangeOp::Truncate | ChangeOp::Schema => None,
    }
}
