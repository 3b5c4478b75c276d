//! Rows of a change: old and new, whole or only their key, and what was not sent again.

use bytes::Bytes;

use crate::flow::change::ColumnField;
use crate::flow::change::OldRow;
use crate::flow::change::RowTuple;
use crate::flow::relation::Column;
use crate::flow::relation::Relation;
use crate::replication::assemble::error::AssembleError;
use crate::replication::pgoutput::FieldRanges;
use crate::replication::pgoutput::OldFieldRanges;
use crate::replication::types::RowWholeness;

pub(super) fn old_row(
    relation: &Relation,
    wholeness: RowWholeness,
    old: OldFieldRanges,
    raw: &Bytes,
) -> Result<OldRow, AssembleError> {
    image(relation, narrowed(relation, wholeness, spread(relation, old)), raw)
}

pub(super) fn image(
    relation: &Relation,
    old: OldFieldRanges,
    raw: &Bytes,
) -> Result<OldRow, AssembleError> {
    Ok(match old {
        OldFieldRanges::Key(fields) => OldRow::Key(row(relation, fields, raw)?),
        OldFieldRanges::Full(fields) => OldRow::Full(row(relation, fields, raw)?),
    })
}

/// A row that is described as whole and may be a key: its nulls say nothing, as those of any key.
pub(super) fn narrowed(
    relation: &Relation,
    wholeness: RowWholeness,
    old: OldFieldRanges,
) -> OldFieldRanges {
    let OldFieldRanges::Full(fields) = old else { return old };
    let beyond_key = |(index, _): &(usize, &ColumnField)| !relation.key.contains(index);
    let is_key = match wholeness {
        RowWholeness::Sure => false,
        RowWholeness::Doubtful => true,
        RowWholeness::Likely => fields
            .iter()
            .enumerate()
            .filter(beyond_key)
            .all(|(_, field)| *field == ColumnField::Null),
    };
    if is_key { OldFieldRanges::Key(fields) } else { OldFieldRanges::Full(fields) }
}

/// A value that the update did not touch is in the old row, if that was sent: PostgreSQL writes
/// old rows with their large values in full. Both rows lie in the same message.
pub(super) fn restore(new: &mut FieldRanges, old: &FieldRanges) {
    for (new, old) in new.iter_mut().zip(old) {
        if *new == ColumnField::Unchanged && matches!(old, ColumnField::Text(_)) {
            new.clone_from(old);
        }
    }
}

/// PostgreSQL sends an old key as wide as the table, with nulls in the other columns. Some forks
/// send the key's columns alone; those are put in their places here.
pub(super) fn spread(relation: &Relation, old: OldFieldRanges) -> OldFieldRanges {
    let OldFieldRanges::Key(fields) = old else { return old };
    let columns = &relation.columns;
    let identity = columns.iter().filter(|column| column.identity).count();
    if fields.len() == columns.len() || fields.len() != identity {
        return OldFieldRanges::Key(fields); // a wrong count is noticed by `row`
    }
    let mut fields = fields.into_iter();
    let mut take = |column: &Column| match column.identity {
        true => fields.next().unwrap_or(ColumnField::Null),
        false => ColumnField::Null,
    };
    OldFieldRanges::Key(columns.iter().map(&mut take).collect())
}

pub(super) fn row(
    relation: &Relation,
    fields: FieldRanges,
    raw: &Bytes,
) -> Result<RowTuple, AssembleError> {
    let (columns, given) = (relation.columns.len(), fields.len());
    if columns != given {
        let table = relation.table.clone();
        return Err(AssembleError::FieldCount { table, columns, given });
    }
    RowTuple::new(raw.clone(), fields).ok_or(AssembleError::OtherMessage)
}
