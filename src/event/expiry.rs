//! When a row was born, and whether it is too old.

use crate::config::settings::ExpiryRule;
use crate::event::datum;
use crate::flow::change::ColumnValue;
use crate::flow::change::CommittedChange;
use crate::flow::change::RowTuple;
use crate::flow::event::EventExpiry;
use crate::flow::relation::Relation;

/// An [`ExpiryRule`] against one relation.
#[derive(Debug)]
pub(crate) struct AgeSource {
    /// The column that says when the row was born; `None`: when it was committed.
    column: Option<usize>,
    max_age: std::time::Duration,
}

impl AgeSource {
    pub(crate) fn compile(rule: &ExpiryRule, relation: &Relation) -> Self {
        let column = rule.column.as_deref().and_then(|name| relation.column(name));
        Self { column, max_age: rule.max_age }
    }

    /// A row that does not say when it was born (null, infinity, no such column) counts as born
    /// when it was committed: it must neither live for ever nor be dropped unseen.
    pub(crate) fn of(&self, change: &CommittedChange, row: Option<&RowTuple>) -> EventExpiry {
        let stated = self.column.zip(row).and_then(|(index, row)| {
            let column = change.relation.columns.get(index)?;
            match row.value(index) {
                ColumnValue::Text(text) => datum::timestamp(&column.sql_type, text),
                ColumnValue::Null | ColumnValue::Unchanged => None,
            }
        });
        EventExpiry { born: stated.unwrap_or(change.committed), max_age: self.max_age }
    }
}
