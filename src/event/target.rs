//! The row that an event's write-back is to find, taken from its change.

use std::sync::Arc;

use crate::config::settings::RowChangeSql;
use crate::config::settings::WriteBackSettings;
use crate::event::column_change;
use crate::event::column_change::RowImage;
use crate::flow::change::ChangeOp;
use crate::flow::change::ColumnValue;
use crate::flow::change::CommittedChange;
use crate::flow::relation::Relation;
use crate::flow::write_back::TargetRow;

/// A [`WriteBackSettings`] against one relation.
#[derive(Debug)]
pub(crate) struct WriteBackTarget {
    key: Vec<Arc<str>>,
    columns: Vec<(Arc<str>, usize)>,
    /// Whether there is something to write after a delete or a truncate.
    without_row: bool,
}

impl WriteBackTarget {
    /// `None` where no row could be found again: its table has no primary key.
    pub(crate) fn compile(write_back: &WriteBackSettings, relation: &Relation) -> Option<Self> {
        let without_row = matches!(write_back.change, RowChangeSql::Statement(_));
        if relation.key.is_empty() && !without_row {
            return None;
        }
        let name = |index: usize| relation.columns.get(index).map(|c| Arc::from(&*c.name));
        let key: Vec<Arc<str>> = relation.key.iter().filter_map(|&index| name(index)).collect();
        let named = write_back.columns().filter_map(|column| relation.column(column));
        let mut indexes: Vec<usize> = relation.key.iter().copied().chain(named).collect();
        indexes.sort_unstable();
        indexes.dedup();
        let columns = indexes.into_iter().filter_map(|index| Some((name(index)?, index)));
        Some(Self { key, columns: columns.collect(), without_row })
    }

    /// What is kept of a change; `None` where there is no row left to write to.
    pub(crate) fn of(&self, change: &CommittedChange) -> Option<Box<TargetRow>> {
        if matches!(change.op, ChangeOp::Read { .. } | ChangeOp::Schema) {
            return None; // a backfill writes nothing to the source, and a table has no row
        }
        let is_gone = matches!(change.op, ChangeOp::Delete { .. } | ChangeOp::Truncate);
        if is_gone && !self.without_row {
            return None;
        }
        let value = |index| match column_change::current(change, index) {
            RowImage::In(row) => match row.value(index) {
                ColumnValue::Text(text) => Some(String::from_utf8_lossy(text).into_owned()),
                ColumnValue::Null | ColumnValue::Unchanged => None,
            },
            RowImage::None | RowImage::Unknown => None,
        };
        let values = self.columns.iter().map(|(name, index)| (Arc::clone(name), value(*index)));
        Some(Box::new(TargetRow { key: self.key.clone(), values: values.collect(), owed: 0 }))
    }
}
