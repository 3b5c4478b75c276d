//! Order keys: which events must arrive one after the other.
//!
//! ```text
//! Change ─▶ [row_order] ─ Keys ─▶ lane
//! ```
//!
//! By default that is all changes of one row, told by what PostgreSQL sends in each of them: the
//! columns of the replica identity, old and new ([`Relation::row_key`]). With `order_by` it is all
//! rows that have its values in common. A delete carries these only if they belong to the identity;
//! where they do not, every change has the key of its row as well, so that a delete waits for the
//! changes before it.
//!
//! What cannot be told by keys is a barrier: a TRUNCATE, another shape of the table, and a change whose values were not sent.

use crate::flow::change::ChangeOp;
use crate::flow::change::ColumnValue;
use crate::flow::change::CommittedChange;
use crate::flow::change::OldRow;
use crate::flow::change::RowTuple;
use crate::flow::key::EventKeys;
use crate::flow::key::KeyHash;
use crate::flow::relation::Relation;
use crate::flow::relation::ReplicaIdentity;
use crate::flow::relation::TableName;

/// Tells the key of a row from one of `order_by` with the same values.
const ROW: &[u8] = b"row";

/// A rule's order against one relation.
#[derive(Debug)]
pub(super) struct RowOrder {
    /// The columns of `order_by`.
    named: Vec<usize>,
    /// The columns that tell a row; empty where `named` can be told of every change.
    row: Vec<usize>,
}

/// A key before and after the change.
struct RowOrderStep {
    old: KeyHash,
    new: KeyHash,
}

impl RowOrderStep {
    fn is_same(&self) -> bool {
        self.old == self.new
    }
}

impl RowOrder {
    pub(super) fn compile(order_by: &[String], relation: &Relation) -> Self {
        let named: Vec<usize> = order_by.iter().filter_map(|name| relation.column(name)).collect();
        let is_sent = |&index: &usize| {
            relation.identity == ReplicaIdentity::Full
                || relation.columns.get(index).is_some_and(|column| column.identity)
        };
        let row = match !named.is_empty() && named.iter().all(is_sent) {
            true => Vec::new(),
            false => relation.row_key.clone(),
        };
        Self { named, row }
    }

    pub(super) fn keys(&self, table: &TableName, change: &CommittedChange) -> EventKeys {
        if matches!(change.op, ChangeOp::Truncate | ChangeOp::Schema) {
            return EventKeys::BARRIER;
        }
        let named = || step(&self.named, table, None, change);
        let row = |marker| step(&self.row, table, marker, change);
        match (self.named.is_empty(), self.row.is_empty()) {
            (true, true) => EventKeys::NONE,
            (true, false) => {
                row(None).map_or(EventKeys::BARRIER, |row| EventKeys::both(row.old, row.new))
            }
            (false, true) => {
                named().map_or(EventKeys::BARRIER, |key| EventKeys::both(key.old, key.new))
            }
            (false, false) => match (named(), row(Some(ROW))) {
                (Some(named), Some(row)) if named.is_same() && row.is_same() => {
                    EventKeys::both(row.new, named.new)
                }
                (None, Some(row)) if matches!(change.op, ChangeOp::Delete { .. }) => {
                    EventKeys::one(row.old)
                }
                // More than two keys, or one that is not known.
                _ => EventKeys::BARRIER,
            },
        }
    }
}

/// The key of these columns before and after the change; `None` if a value was not sent.
fn step<'c>(
    columns: &[usize],
    table: &'c TableName,
    marker: Option<&'c [u8]>,
    change: &'c CommittedChange,
) -> Option<RowOrderStep> {
    let key = |value: &dyn Fn(usize) -> Option<ColumnValue<'c>>| {
        let mut parts = vec![Some(table.schema.as_bytes()), Some(table.name.as_bytes())];
        parts.extend(marker.map(Some));
        for &column in columns {
            parts.push(match value(column)? {
                ColumnValue::Text(text) => Some(text),
                ColumnValue::Null => None,
                ColumnValue::Unchanged => return None,
            });
        }
        Some(KeyHash::of(parts))
    };
    Some(match &change.op {
        ChangeOp::Insert { new } | ChangeOp::Read { new, .. } => {
            let new = key(&|column| Some(new.value(column)))?;
            RowOrderStep { old: new, new }
        }
        ChangeOp::Update { old, new } => RowOrderStep {
            old: key(&|column| before(change, old.as_ref(), new, column))?,
            new: key(&|column| match new.value(column) {
                ColumnValue::Unchanged => before(change, old.as_ref(), new, column),
                value => Some(value),
            })?,
        },
        ChangeOp::Delete { old } => {
            let old = key(&|column| carried(change, old, column))?;
            RowOrderStep { old, new: old }
        }
        ChangeOp::Truncate | ChangeOp::Schema => return None,
    })
}

/// What an update's column was: what the old row does not carry was not changed, as far as the
/// identity goes.
fn before<'c>(
    change: &CommittedChange,
    old: Option<&'c OldRow>,
    new: &'c RowTuple,
    column: usize,
) -> Option<ColumnValue<'c>> {
    let carried = old.and_then(|old| carried(change, old, column));
    carried.or_else(|| Some(new.value(column)).filter(|value| *value != ColumnValue::Unchanged))
}

/// A column's value in an old row; `None` if the row does not say.
fn carried<'c>(
    change: &CommittedChange,
    old: &'c OldRow,
    column: usize,
) -> Option<ColumnValue<'c>> {
    match old {
        OldRow::Full(row) => {
            Some(row.value(column)).filter(|value| *value != ColumnValue::Unchanged)
        }
        OldRow::Key(row) => {
            let of_identity = change.relation.columns.get(column).is_some_and(|c| c.identity);
            let value = row.value(column);
            (of_identity && matches!(value, ColumnValue::Text(_))).then_some(value)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::event::route::tests::change;
    use crate::event::route::tests::relation;
    use crate::event::route::tests::row;
    use crate::flow::relation::SqlType;

    /// Columns id, code, v.
    fn things(identity: ReplicaIdentity, flagged: &[usize], primary: &[usize]) -> Arc<Relation> {
        let columns = [("id", SqlType::Integer), ("code", SqlType::Text), ("v", SqlType::Text)];
        let mut things = Relation::clone(&relation("things", &columns));
        things.identity = identity;
        for (index, column) in things.columns.iter_mut().enumerate() {
            column.identity = flagged.contains(&index);
        }
        things.key = primary.to_vec();
        things.row_key = Relation::row_key(identity, &things.columns, &things.key);
        Arc::new(things)
    }

    fn insert(values: [&str; 3]) -> ChangeOp {
        ChangeOp::Insert { new: row(&values.map(Some)) }
    }

    /// `_` is null, as in a key image; `=` a value that was not sent.
    fn old(values: [&'static str; 3]) -> RowTuple {
        row(&values.map(|value| match value {
            "_" => None,
            "=" => Some("\0"),
            text => Some(text),
        }))
    }

    fn update(before: Option<OldRow>, values: [&'static str; 3]) -> ChangeOp {
        ChangeOp::Update { old: before, new: old(values) }
    }

    fn shared(relation: &Arc<Relation>, order_by: &[&str], one: ChangeOp, other: ChangeOp) -> bool {
        let order_by: Vec<String> = order_by.iter().map(ToString::to_string).collect();
        let order = RowOrder::compile(&order_by, relation);
        let keys = |op| order.keys(&relation.table, &change(relation, op));
        let (one, other) = (keys(one), keys(other));
        let meets = one.iter().any(|key| other.iter().any(|other| other == key));
        meets || one.is_barrier() || other.is_barrier()
    }

    #[test]
    fn the_changes_of_one_row_have_a_key_in_common_whatever_the_identity_carries() {
        let index = things(ReplicaIdentity::Index, &[1], &[0]);
        let default = things(ReplicaIdentity::Default, &[0], &[0]);
        let full = things(ReplicaIdentity::Full, &[0, 1, 2], &[0]);
        let bare = things(ReplicaIdentity::Full, &[0, 1, 2], &[]);
        let key = |values| ChangeOp::Delete { old: OldRow::Key(old(values)) };
        let whole = |values| ChangeOp::Delete { old: OldRow::Full(old(values)) };
        let first = ["1", "a", "x"];
        let cases = [
            ("index: a delete carries the code", &index, &[][..], key(["_", "a", "_"])),
            ("index: an update", &index, &[], update(None, ["1", "a", "y"])),
            (
                "index: the code is another",
                &index,
                &[],
                update(Some(OldRow::Key(old(["_", "a", "_"]))), ["1", "b", "x"]),
            ),
            ("index: the primary key is another", &index, &[], update(None, ["2", "a", "x"])),
            ("full", &full, &[], whole(first)),
            ("full, no primary key", &bare, &[], whole(first)),
            (
                "full, no primary key, an update",
                &bare,
                &[],
                update(Some(OldRow::Full(old(first))), ["1", "a", "y"]),
            ),
            ("order_by, a delete without it", &default, &["v"], key(["1", "_", "_"])),
            ("order_by, it is another", &default, &["v"], update(None, ["1", "a", "y"])),
            ("order_by, it was not sent", &default, &["v"], update(None, ["1", "a", "="])),
            (
                "order_by, the key is another",
                &default,
                &["v"],
                update(Some(OldRow::Key(old(["1", "_", "_"]))), ["2", "a", "y"]),
            ),
            ("order_by beside an index", &index, &["v", "id"], key(["_", "a", "_"])),
            ("order_by, a whole row", &full, &["v"], whole(first)),
            ("a key image under full, of a partition", &bare, &["v"], key(["1", "_", "_"])),
        ];
        for (name, relation, order_by, later) in cases {
            assert!(shared(relation, order_by, insert(first), later), "case: {name}");
        }
    }

    #[test]
    fn other_rows_do_not_wait_and_order_by_keeps_rows_together() {
        let index = things(ReplicaIdentity::Index, &[1], &[0]);
        let default = things(ReplicaIdentity::Default, &[0], &[0]);
        let (one, other) = (["1", "a", "x"], ["2", "b", "x"]);
        assert!(!shared(&index, &[], insert(one), insert(other)));
        assert!(!shared(&default, &[], insert(one), insert(other)));
        assert!(shared(&default, &["v"], insert(one), insert(other)));
        assert!(!shared(&default, &["code"], insert(one), insert(other)));
        // The values are the same, but one is a row's and the other one of `order_by`.
        assert!(!shared(&default, &["v"], insert(["1", "a", "2"]), insert(["2", "b", "1"])));
    }

    #[test]
    fn a_truncate_is_a_barrier_also_without_keys() {
        let bare = things(ReplicaIdentity::Nothing, &[], &[]);
        let order = RowOrder::compile(&[], &bare);
        assert_eq!(order.keys(&bare.table, &change(&bare, ChangeOp::Truncate)), EventKeys::BARRIER);
        assert_eq!(
            order.keys(&bare.table, &change(&bare, insert(["1", "a", "x"]))),
            EventKeys::NONE
        );
    }
}
