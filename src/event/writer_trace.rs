//! The trace that a change's writer gave, by a column of the row or a message of the transaction.

use http::HeaderName;
use http::HeaderValue;

use crate::config::settings::TraceSource;
use crate::event::column_change;
use crate::event::column_change::RowImage;
use crate::flow::change::ColumnValue;
use crate::flow::change::CommittedChange;
use crate::flow::relation::Relation;
use crate::flow::trace::TRACEPARENT;
use crate::flow::trace::TraceContext;

/// Where a change says to which trace it belongs.
#[derive(Clone, Copy, Debug)]
pub(super) struct WriterTrace {
    is_wanted: bool,
    column: Option<usize>,
}

impl WriterTrace {
    pub(super) fn compile(source: &TraceSource, relation: &Relation) -> Self {
        let column = source.column.as_ref().and_then(|name| relation.column(name));
        Self { is_wanted: source.is_wanted, column }
    }

    /// What the row says, or else its transaction, as the body of the event keeps it.
    pub(super) fn of(self, change: &CommittedChange) -> Option<(HeaderName, HeaderValue)> {
        if !self.is_wanted {
            return None;
        }
        let in_row = self.column.and_then(|column| match column_change::current(change, column) {
            RowImage::In(row) => match row.value(column) {
                ColumnValue::Text(text) => TraceContext::parse(text.trim_ascii()),
                ColumnValue::Null | ColumnValue::Unchanged => None,
            },
            RowImage::None | RowImage::Unknown => None,
        });
        Some((TRACEPARENT, in_row.or(change.trace)?.header()))
    }
}
