//! Which rows of the table of `[endpoints_from]` a transaction has changed, as far as the stream tells. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::flow::change::ChangeOp;
use crate::flow::change::ColumnValue;
use crate::flow::change::CommittedChange;
use crate::flow::change::RowTuple;

/// With more rows than this all are read: that is quicker by then.
const KEYS_MAX: usize = 1_000;

/// Types whose text in the stream is the text that a cast gives, whatever the session's settings.
const KEY_TYPES: [(u32, &str); 6] =
    [(21, "int2"), (23, "int4"), (20, "int8"), (2950, "uuid"), (25, "text"), (1043, "varchar")];

/// The column that tells a table's rows apart in every change of them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct KeyColumn {
    pub(crate) name: String,
    /// Its type's name in `pg_catalog`.
    pub(crate) type_name: &'static str,
}

/// The rows of a table that a transaction has changed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) enum ChangedRows {
    #[default]
    None,
    /// Those with these keys, before or after.
    Keyed { column: KeyColumn, keys: BTreeSet<Arc<str>> },
    /// It cannot be told.
    All,
}

impl ChangedRows {
    /// Takes in a change of the table.
    pub(crate) fn note(&mut self, change: &CommittedChange) {
        let found = key_column(change).zip(keys(change));
        match (&mut *self, found) {
            (Self::None, Some((column, new))) => {
                *self = Self::Keyed { column, keys: new.into_iter().collect() };
            }
            (Self::Keyed { column, keys }, Some((same, new)))
                if *column == same && keys.len() < KEYS_MAX =>
            {
                keys.extend(new);
            }
            (Self::None | Self::Keyed { .. } | Self::All, _) => *self = Self::All,
        }
    }
}

fn key_column(change: &CommittedChange) -> Option<KeyColumn> {
    let relation = &change.relation;
    let &[index] = relation.row_key.as_slice() else { return None };
    let column = relation.columns.get(index)?;
    let (_, type_name) = KEY_TYPES.into_iter().find(|(oid, _)| *oid == column.type_oid)?;
    Some(KeyColumn { name: column.name.clone(), type_name })
}

/// The row's key after the change, and before it.
fn keys(change: &CommittedChange) -> Option<Vec<Arc<str>>> {
    let &[index] = change.relation.row_key.as_slice() else { return None };
    let key = |row: &RowTuple| match row.value(index) {
        ColumnValue::Text(text) => std::str::from_utf8(text).ok().map(Arc::from),
        ColumnValue::Null | ColumnValue::Unchanged => None,
    };
    match &change.op {
        ChangeOp::Insert { new } | ChangeOp::Update { old: None, new } => Some(vec![key(new)?]),
        ChangeOp::Update { old: Some(old), new } => Some(vec![key(new)?, key(old.tuple())?]),
        ChangeOp::Delete { old } => Some(vec![key(old.tuple())?]),
        ChangeOp::Truncate | ChangeOp::Schema | ChangeOp::Read { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::change::OldRow;
    use crate::flow::lsn::Lsn;
    use crate::flow::lsn::Position;
    use crate::flow::relation::Column;
    use crate::flow::relation::Relation;
    use crate::flow::relation::ReplicaIdentity;
    use crate::flow::relation::SqlType;
    use crate::flow::relation::TableName;
    use crate::flow::time::Timestamp;

    fn relation(type_oid: u32, row_key: &[usize]) -> Relation {
        let column = |name: &str, type_oid| Column {
            name: name.to_owned(),
            type_oid,
            identity: name == "id",
            sql_type: Arc::new(SqlType::Text),
        };
        Relation {
            oid: 1,
            table: TableName::new("public", "webhooks"),
            identity: ReplicaIdentity::Default,
            columns: vec![column("url", 25), column("id", type_oid)],
            key: row_key.to_vec(),
            row_key: row_key.to_vec(),
        }
    }

    fn row(id: &str) -> RowTuple {
        RowTuple::of_values([b"x", id.as_bytes()].into_iter().map(ColumnValue::Text))
    }

    fn change(relation: Relation, op: ChangeOp) -> CommittedChange {
        CommittedChange {
            position: Position { commit: Lsn::ZERO, ordinal: 0 },
            committed: Timestamp::from_micros(0),
            relation: Arc::new(relation),
            op,
            xid: 1,
            metadata: None,
            trace: None,
            held: None,
        }
    }

    fn noted(changes: Vec<(Relation, ChangeOp)>) -> ChangedRows {
        let mut rows = ChangedRows::default();
        changes.into_iter().for_each(|(relation, op)| rows.note(&change(relation, op)));
        rows
    }

    #[test]
    fn rows_are_known_by_their_keys_before_and_after() {
        let int = || relation(23, &[1]);
        let rows = noted(vec![
            (int(), ChangeOp::Insert { new: row("1") }),
            (int(), ChangeOp::Update { old: None, new: row("2") }),
            (int(), ChangeOp::Update { old: Some(OldRow::Key(row("3"))), new: row("4") }),
            (int(), ChangeOp::Delete { old: OldRow::Key(row("5")) }),
        ]);
        let column = KeyColumn { name: "id".to_owned(), type_name: "int4" };
        let keys = ["1", "2", "3", "4", "5"].map(Arc::from).into();
        assert_eq!(rows, ChangedRows::Keyed { column, keys });
    }

    #[test]
    fn where_it_cannot_be_told_all_rows_are_read() {
        let int = || relation(23, &[1]);
        let insert = || ChangeOp::Insert { new: row("1") };
        let many = (0..=KEYS_MAX).map(|id| (int(), ChangeOp::Insert { new: row(&id.to_string()) }));
        let cases = [
            ("truncated", vec![(int(), insert()), (int(), ChangeOp::Truncate)]),
            ("and then a row", vec![(int(), ChangeOp::Truncate), (int(), insert())]),
            ("two columns", vec![(relation(23, &[0, 1]), insert())]),
            ("no key", vec![(relation(23, &[]), insert())]),
            ("a type with other forms", vec![(relation(1114, &[1]), insert())]),
            ("another key", vec![(int(), insert()), (relation(23, &[0]), insert())]),
            ("another type", vec![(int(), insert()), (relation(20, &[1]), insert())]),
            ("many", many.collect()),
        ];
        for (case, changes) in cases {
            assert_eq!(noted(changes), ChangedRows::All, "case: {case}");
        }
    }
}
