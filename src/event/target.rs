//! The row that an event's write-back is to find, taken from its change.

use std::sync::Arc;

use crate::config::settings::RowChange;
use crate::config::settings::WriteBack;
use crate::event::image;
use crate::event::image::Image;
use crate::flow::change::Change;
use crate::flow::change::Op;
use crate::flow::change::Value;
use crate::flow::relation::Relation;
use crate::flow::write_back::TargetRow;

/// A [`WriteBack`] against one relation.
#[derive(Debug)]
pub(crate) struct Target {
    key: Vec<Arc<str>>,
    columns: Vec<(Arc<str>, usize)>,
    /// Whether there is something to write after a delete or a truncate.
    without_row: bool,
}

impl Target {
    /// `None` where no row could be found again: its table has no primary key.
    pub(crate) fn compile(write_back: &WriteBack, relation: &Relation) -> Option<Self> {
        let without_row = matches!(write_back.change, RowChange::Statement(_));
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
    pub(crate) fn of(&self, change: &Change) -> Option<Box<TargetRow>> {
        let is_gone = matches!(change.op, Op::Delete { .. } | Op::Truncate);
        if is_gone && !self.without_row {
            return None;
        }
        let value = |index| match image::current(change, index) {
            Image::In(row) => match row.value(index) {
                Value::Text(text) => Some(String::from_utf8_lossy(text).into_owned()),
                Value::Null | Value::Unchanged => None,
            },
            Image::None | Image::Unknown => None,
        };
        let values = self.columns.iter().map(|(name, index)| (Arc::clone(name), value(*index)));
        Some(Box::new(TargetRow { key: self.key.clone(), values: values.collect(), owed: 0 }))
    }
}
