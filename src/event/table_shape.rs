//! The shape of a table, as receivers see it: names, types and keys of its columns, for events that tell that
//! it has changed.
//!
//! It is taken from the Relation message that PostgreSQL sends before the first row of another shape, so the event
//! stands right before that row. What makes no difference in a body makes none here: `int` and `bigint`,
//! `varchar(20)` and `text` are the same.

use std::sync::Arc;

use crate::event::writer::JsonWriter;
use crate::flow::change::ChangeOp;
use crate::flow::change::CommittedChange;
use crate::flow::relation::Relation;
use crate::flow::relation::SqlType;
use crate::flow::seen::ValueFingerprint;

/// Tells shapes from values of `dedupe`.
const MARK: &[u8] = b"walhook table shape";

/// What tells the shape from others of the event's table.
pub(super) fn fingerprint(event_type: &str, relation: &Relation) -> ValueFingerprint {
    let mut parts = vec![MARK.to_vec(), event_type.as_bytes().to_vec()];
    parts.extend(
        [&relation.table.schema, &relation.table.name].map(|name| name.clone().into_bytes()),
    );
    for (index, column) in relation.columns.iter().enumerate() {
        parts.push(column.name.clone().into_bytes());
        parts.push(type_name(&column.sql_type).into_bytes());
        parts.push(vec![u8::from(relation.key.contains(&index))]);
    }
    ValueFingerprint::of(parts.iter().map(Vec::as_slice))
}

/// The change that tells of the shape that `row` is the first of.
pub(super) fn change(row: &CommittedChange) -> CommittedChange {
    CommittedChange {
        position: row.position,
        committed: row.committed,
        relation: Arc::clone(&row.relation),
        op: ChangeOp::Schema,
        xid: row.xid,
        metadata: row.metadata.clone(),
        trace: row.trace,
        held: None,
    }
}

/// `{"table": ..., "columns": [{"name", "type", "key"}, ...]}`, in the table's order.
pub(crate) fn write(out: &mut JsonWriter, relation: &Relation) {
    out.raw("{\"table\":");
    out.string(relation.table.to_string().as_bytes());
    out.raw(",\"columns\":[");
    for (index, column) in relation.columns.iter().enumerate() {
        out.raw(if index == 0 { "{\"name\":" } else { ",{\"name\":" });
        out.string(column.name.as_bytes());
        out.raw(",\"type\":");
        out.string(type_name(&column.sql_type).as_bytes());
        out.raw(if relation.key.contains(&index) { ",\"key\":true}" } else { ",\"key\":false}" });
    }
    out.raw("]}");
}

/// How a value is written, in a word; of an array with `[]`.
fn type_name(sql_type: &SqlType) -> String {
    let word = match sql_type {
        SqlType::Bool => "boolean",
        SqlType::Integer => "integer",
        SqlType::Float => "float",
        SqlType::Numeric => "numeric",
        SqlType::Json => "json",
        SqlType::Date => "date",
        SqlType::Timestamp => "timestamp",
        SqlType::TimestampTz => "timestamptz",
        SqlType::Bytea => "bytea",
        SqlType::Hstore => "hstore",
        SqlType::Text => "text",
        SqlType::Vector { element } | SqlType::Array { element, .. } => {
            return format!("{}[]", type_name(element));
        }
        SqlType::Composite { fields } => {
            let fields = fields.iter().map(|(name, of)| format!("{name} {}", type_name(of)));
            return format!("({})", fields.collect::<Vec<_>>().join(", "));
        }
    };
    word.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::route::tests::relation;

    fn written(relation: &Relation) -> String {
        let mut out = JsonWriter::default();
        write(&mut out, relation);
        let body = out.finish().complete(crate::event::route::tests::COMMITTED);
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[test]
    fn a_shape_is_what_receivers_see_of_it() {
        let array = SqlType::Array { element: Arc::new(SqlType::Text), delimiter: b',' };
        let place =
            SqlType::Composite { fields: vec![("x".to_owned(), Arc::new(SqlType::Integer))] };
        let columns = [("id", SqlType::Integer), ("tags", array), ("at", place)];
        let one = relation("t", &columns);
        assert_eq!(
            written(&one),
            r#"{"table":"public.t","columns":[{"name":"id","type":"integer","key":true},{"name":"tags","type":"text[]","key":false},{"name":"at","type":"(x integer)","key":false}]}"#
        );
        let same = relation("t", &columns);
        assert_eq!(fingerprint("a", &one), fingerprint("a", &same));
        assert_ne!(fingerprint("a", &one), fingerprint("b", &one));
        for other in [
            relation("u", &columns),
            relation("t", &columns[..2]),
            relation("t", &[columns[1].clone(), columns[0].clone(), columns[2].clone()]),
        ] {
            assert_ne!(fingerprint("a", &one), fingerprint("a", &other));
        }
    }
}
