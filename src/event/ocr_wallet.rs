//! The body of the preset `ocr-wallet`.
//!
//! Code and no template, for three things that no template can say: a column that the table has not is left out,
//! `create_time` is epoch seconds whatever its type, and the log names the row by columns that are not its key.

use crate::event::datum;
use crate::event::row_object;
use crate::event::writer::JsonWriter;
use crate::event::writer::NamedColumn;
use crate::flow::change::ColumnValue;
use crate::flow::change::CommittedChange;
use crate::flow::time::Timestamp;

/// Everything before the time of the attempt.
pub(super) fn opening(quoted_event_type: &[u8]) -> Vec<u8> {
    [b"{\"event_type\":", quoted_event_type, b",\"timestamp\":"].concat()
}

/// Writes the body, to the letter; `opening` is everything before the time of the attempt.
pub(super) fn write(
    out: &mut JsonWriter,
    opening: &[u8],
    columns: &[NamedColumn],
    change: &CommittedChange,
    born: Timestamp,
) {
    out.raw(opening);
    out.attempt_seconds();
    out.raw(",\"version\":\"1.0\",\"source\":\"ocr_wallet_service\",\"data\":");
    let mut separator = "{";
    if let Some(row) = row_object::row_of(&change.op) {
        for column in columns {
            let value = row.value(column.index);
            if &*column.name == "pic_url" && !matches!(value, ColumnValue::Text(_)) {
                continue;
            }
            out.raw(separator);
            separator = ",";
            out.raw(&column.label);
            match (&*column.name, value) {
                ("create_time", ColumnValue::Text(text)) => {
                    match datum::epoch_seconds(&column.sql_type, text) {
                        Some(seconds) => out.raw(seconds.to_string()),
                        None => out.raw("null"),
                    }
                }
                _ => out.column(row, column.index, &column.sql_type),
            }
        }
    }
    out.raw(if separator == "{" { "{}" } else { "}" });
    out.raw(",\"metadata\":{\"data_age_seconds\":");
    out.age_seconds(born);
    out.raw(",\"push_source\":\"wx-msg-chat\"}}");
}
