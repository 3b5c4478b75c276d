//! Values that do not fit their row type any more.
//!
//! A row that was written before `ALTER TYPE ... DROP ATTRIBUTE` has more fields than the type that the
//! catalog knows by now, and nothing says which of them is gone. So it is sent as its text, and that is
//! named once for each column.

use std::collections::HashSet;

use crate::event::datum;
use crate::event::row_object::row_of;
use crate::flow::change::ChangeOp;
use crate::flow::change::ColumnValue;
use crate::flow::change::CommittedChange;
use crate::flow::relation::Relation;

/// Larger values are not looked at: it takes reading them once more.
const VALUE_BYTES_MAX: usize = 64 * 1024;

/// Looks for such values, and remembers what it has named.
#[derive(Debug, Default)]
pub(super) struct UnfitValues {
    /// Relation and column.
    named: HashSet<(u32, usize)>,
    scratch: Vec<u8>,
}

/// The columns of row types, at any depth.
pub(super) fn columns(relation: &Relation) -> Vec<usize> {
    let columns = relation.columns.iter().enumerate();
    columns.filter(|(_, column)| column.sql_type.has_composite()).map(|(index, _)| index).collect()
}

impl UnfitValues {
    /// How many values of these columns are sent as their text.
    pub(super) fn count(&mut self, change: &CommittedChange, columns: &[usize]) -> u64 {
        let old = match &change.op {
            ChangeOp::Update { old, .. } => old.as_ref().map(|old| old.tuple()),
            _ => None,
        };
        let mut unfit = 0;
        for row in row_of(&change.op).into_iter().chain(old) {
            for &index in columns {
                let Some(column) = change.relation.columns.get(index) else { continue };
                let ColumnValue::Text(text) = row.value(index) else { continue };
                self.scratch.clear();
                if text.len() > VALUE_BYTES_MAX
                    || datum::write_value(&mut self.scratch, &column.sql_type, text)
                {
                    continue;
                }
                unfit += 1;
                if self.named.insert((change.relation.oid, index)) {
                    tracing::warn!(
                        table = %change.relation.table,
                        column = column.name,
                        "a row type has fewer attributes by now than a value that was written before: such values \
                         are sent as PostgreSQL's text of them; further ones are counted in \
                         walhook_values_as_text_total"
                    );
                }
            }
        }
        unfit
    }
}
