//! Rows that get another key while a backfill reads their table along it.
//!
//! Pure. A row that moves from beyond the cursor to before it is in no chunk: the chunk that had its new place
//! was read before it came there, and the chunk that has its old one sees that it has gone. Endpoints that take
//! updates get this one; all others would not know of it. So each such row is looked for where it is, by its
//! key, once all else has been read. Where the cursor stands is not known here, and need not be: a row that is
//! read twice is no harm.

use std::collections::BTreeMap;

use crate::flow::backfill::BackfillId;
use crate::flow::backfill::MovedRow;
use crate::flow::change::ChangeOp;
use crate::flow::change::ColumnValue;
use crate::flow::change::CommittedChange;
use crate::flow::change::OldRow;
use crate::flow::change::RowTuple;
use crate::flow::relation::Relation;
use crate::flow::relation::TableName;

/// The backfills by key that are not over, whether they run or not.
#[derive(Debug, Default)]
pub(crate) struct MoveWatch {
    watched: BTreeMap<BackfillId, WatchedKeys>,
}

#[derive(Debug)]
struct WatchedKeys {
    table: TableName,
    /// Whether it may have partitions: a row that goes to another one is deleted here and inserted there.
    has_partitions: bool,
    /// The row that was deleted last, if nothing of the table came after that, and by which transaction.
    deleted: Option<(u32, Vec<String>)>,
}

impl MoveWatch {
    /// From here on.
    pub(crate) fn watch(&mut self, id: BackfillId, table: TableName, has_partitions: bool) {
        let before = self.watched.remove(&id).and_then(|before| before.deleted);
        self.watched.insert(id, WatchedKeys { table, has_partitions, deleted: before });
    }

    /// It is over.
    pub(crate) fn forget(&mut self, id: BackfillId) {
        self.watched.remove(&id);
    }

    /// The rows that a change has moved, or may have.
    pub(crate) fn observe(&mut self, change: &CommittedChange) -> Vec<MovedRow> {
        let mut moved = Vec::new();
        for (id, backfill) in &mut self.watched {
            if backfill.table != change.relation.table {
                continue;
            }
            let (relation, xid) = (&change.relation, change.xid);
            let deleted = backfill.deleted.take();
            let keys = match &change.op {
                ChangeOp::Update { old: Some(old), new } => changed_key(relation, old, new),
                ChangeOp::Delete { old } if backfill.has_partitions => {
                    backfill.deleted = key_of(relation, old.tuple(), None).map(|key| (xid, key));
                    None
                }
                ChangeOp::Insert { new } => {
                    let deleted = deleted.filter(|(by, _)| *by == xid);
                    deleted.and_then(|(_, old)| Some((old, key_of(relation, new, None)?)))
                }
                _ => None,
            };
            let position = change.position;
            moved.extend(keys.map(|(old_key, key)| MovedRow {
                backfill: *id,
                position,
                xid,
                key,
                old_key,
            }));
        }
        moved
    }
}

/// The old key and the new one, if they are two.
fn changed_key(
    relation: &Relation,
    old: &OldRow,
    new: &RowTuple,
) -> Option<(Vec<String>, Vec<String>)> {
    let keys = (key_of(relation, old.tuple(), None)?, key_of(relation, new, Some(old))?);
    (keys.0 != keys.1).then_some(keys)
}

/// `None` if a value is not known, or no text.
fn key_of(relation: &Relation, new: &RowTuple, old: Option<&OldRow>) -> Option<Vec<String>> {
    let text = |&column: &usize| {
        let value = match (new.value(column), old) {
            (ColumnValue::Unchanged, Some(old)) => old.tuple().value(column),
            (value, _) => value,
        };
        let ColumnValue::Text(text) = value else { return None };
        String::from_utf8(text.to_vec()).ok()
    };
    relation.row_key.iter().map(text).collect()
}

#[cfg(test)]
mod tests;
