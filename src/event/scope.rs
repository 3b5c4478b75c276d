//! A change as expressions see it: its columns and the built-in names, each turned into a value
//! only when an expression asks for it.
//!
//! | column | value |
//! | --- | --- |
//! | bool, int2 to int8 | `bool`, `int` |
//! | float4, float8, numeric | `double`; of a numeric the nearest there is |
//! | timestamptz, timestamp (taken as UTC) | `timestamp`, cut to the years 1 to 9999 |
//! | json, jsonb, hstore, arrays, row types | `map`, `list` and what is in them: see `json_value` |
//! | everything else | `string`, the text that stands in JSON |
//! | null | `null` |
//!
//! A value that PostgreSQL did not send has no name, so that an expression which needs it fails
//! instead of being wrong.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use cel::Context;
use cel::common::types::CelBool;
use cel::common::types::CelDouble;
use cel::common::types::CelInt;
use cel::common::types::CelNull;
use cel::common::types::CelString;
use cel::common::types::CelTimestamp;
use cel::common::value::CowVal;
use cel::common::value::Val;
use cel::context::VariableResolver;
use cel::objects::Key;
use cel::objects::Map;
use chrono::DateTime;
use chrono::FixedOffset;
use chrono::Utc;

use crate::event::column_change;
use crate::event::column_change::RowImage;
use crate::event::datum;
use crate::event::expression_fault::EvaluationFault;
use crate::event::expression_fault::RenderFaults;
use crate::event::row_object;
use crate::expression::Expression;
use crate::expression::functions::ENVIRONMENT;
use crate::expression::json_value;
use crate::expression::meter;
use crate::expression::meter::MeterExceeded;
use crate::expression::meter::TextReading;
use crate::expression::named_columns::BuiltInName;
use crate::flow::change::ChangeOp;
use crate::flow::change::ColumnValue;
use crate::flow::change::CommittedChange;
use crate::flow::event::EventId;
use crate::flow::relation::SqlType;
use crate::flow::time::Timestamp;

/// The first and the last second of the timestamps that CEL knows: years 1 to 9999.
const SECONDS_MIN: i64 = -62_135_596_800;
const SECONDS_MAX: i64 = 253_402_300_799;

#[cfg(test)]
thread_local! {
    /// How many expressions this thread has evaluated: work that tests bound.
    pub(crate) static EVALUATIONS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// What an expression is evaluated on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EvaluationScope<'a> {
    pub(crate) change: &'a CommittedChange,
    pub(crate) event_type: &'a str,
    pub(crate) id: EventId,
    /// On the database's clock.
    pub(crate) now: Timestamp,
    pub(crate) born: Timestamp,
}

impl EvaluationScope<'_> {
    pub(crate) fn evaluate(&self, expression: &Expression) -> Result<cel::Value, EvaluationFault> {
        #[cfg(test)]
        EVALUATIONS.with(|count| count.set(count.get() + 1));
        let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
        context.set_variable_resolver(self);
        match expression.evaluate(&context, self.change.op.bytes()) {
            Ok(evaluated) => evaluated.map_err(|error| EvaluationFault::from(&error)),
            Err(MeterExceeded) => Err(EvaluationFault::TooMuch),
        }
    }

    /// Whether a filter lets the change through.
    pub(crate) fn is_true(&self, filter: &Expression) -> Result<bool, EvaluationFault> {
        match self.evaluate(filter)? {
            cel::Value::Bool(answer) => Ok(answer),
            _ => Err(EvaluationFault::NotBoolean),
        }
    }

    /// Whether an expression is true for the change. One that has no value is not.
    pub(crate) fn holds(&self, expression: &Expression, faults: &mut RenderFaults) -> bool {
        self.is_true(expression).unwrap_or_else(|fault| {
            faults.push((Arc::from(expression.source()), fault));
            false
        })
    }

    fn built_in(&self, name: BuiltInName) -> CowVal<'_, '_> {
        let text = |text: &'static str| CowVal::owned(CelString::from(text));
        let moment = |at: Timestamp| CowVal::owned(CelTimestamp::from(date_time(at)));
        match name {
            BuiltInName::Row => owned(self.whole(column_change::current)),
            BuiltInName::Old => match self.change.op {
                ChangeOp::Insert { .. }
                | ChangeOp::Read { .. }
                | ChangeOp::Truncate
                | ChangeOp::Schema => CowVal::owned(CelNull),
                ChangeOp::Update { .. } | ChangeOp::Delete { .. } => {
                    owned(self.whole(column_change::previous))
                }
            },
            BuiltInName::Changes => {
                let changed = |change, column| match column_change::is_changed(change, column) {
                    true => column_change::previous(change, column),
                    false => RowImage::Unknown,
                };
                match self.change.op {
                    ChangeOp::Update { .. } => owned(self.whole(changed)),
                    _ => owned(cel::Value::Map(Map { map: Arc::default() })),
                }
            }
            BuiltInName::Op => text(row_object::op(&self.change.op)),
            BuiltInName::Event => CowVal::owned(CelString::from(self.event_type)),
            BuiltInName::EventId => CowVal::owned(CelString::from(self.id.to_string())),
            BuiltInName::Table => {
                CowVal::owned(CelString::from(self.change.relation.table.to_string()))
            }
            BuiltInName::Metadata => {
                let given = self.change.metadata.as_deref();
                let given = given.map(|text| {
                    json_value::read(text).filter(|_| meter::reads(text.len(), TextReading::Json))
                });
                let empty = || cel::Value::Map(Map { map: Arc::default() });
                owned(given.flatten().unwrap_or_else(empty))
            }
            BuiltInName::Committed => moment(self.change.committed),
            BuiltInName::Now => moment(self.now),
            BuiltInName::Age => {
                let micros = self.now.micros().saturating_sub(self.born.micros());
                let age = chrono::Duration::microseconds(micros);
                CowVal::owned(cel::common::types::CelDuration::from(age))
            }
        }
    }

    fn column<'b>(
        &'b self,
        name: &str,
        place: fn(&'b CommittedChange, usize) -> RowImage<'b>,
    ) -> Option<CowVal<'b, 'b>> {
        let relation = &self.change.relation;
        let index = relation.column(name)?;
        let sql_type = &relation.columns.get(index)?.sql_type;
        match place(self.change, index) {
            RowImage::None => Some(CowVal::owned(CelNull)),
            RowImage::Unknown => None,
            RowImage::In(row) => match row.value(index) {
                ColumnValue::Null => Some(CowVal::owned(CelNull)),
                ColumnValue::Unchanged => None,
                ColumnValue::Text(text) => read(sql_type, text),
            },
        }
    }

    /// All columns that `place` knows, by name.
    fn whole<'b>(
        &'b self,
        place: impl Fn(&'b CommittedChange, usize) -> RowImage<'b>,
    ) -> cel::Value {
        let mut map = HashMap::new();
        for (index, column) in self.change.relation.columns.iter().enumerate() {
            let value = match place(self.change, index) {
                RowImage::None => Some(cel::Value::Null),
                RowImage::Unknown => None,
                RowImage::In(row) => match row.value(index) {
                    ColumnValue::Null => Some(cel::Value::Null),
                    ColumnValue::Unchanged => None,
                    ColumnValue::Text(text) => read(&column.sql_type, text)
                        .and_then(|value| cel::Value::try_from(value.as_ref()).ok()),
                },
            };
            if let Some(value) = value {
                map.insert(Key::from(column.name.as_str()), value);
            }
        }
        cel::Value::Map(Map { map: Arc::new(map) })
    }
}

impl VariableResolver for EvaluationScope<'_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        let name = name.strip_prefix('.').unwrap_or(name);
        if let Some(column) = name.strip_prefix("old.") {
            return self.column(column, column_change::previous);
        }
        if let Some(column) = name.strip_prefix("row.") {
            return self.column(column, column_change::current);
        }
        match BuiltInName::find(name) {
            Some(built_in) => Some(self.built_in(built_in)),
            None => self.column(name, column_change::current),
        }
    }
}

/// A column's text as a value; `None` if it is not of its type.
fn value<'a>(sql_type: &SqlType, text: &'a [u8]) -> Option<CowVal<'a, 'a>> {
    let utf8 = |text: &'a [u8]| std::str::from_utf8(text).ok();
    Some(match sql_type {
        SqlType::Bool => CowVal::owned(CelBool::from(text == b"t")),
        SqlType::Integer => CowVal::owned(CelInt::from(utf8(text)?.parse::<i64>().ok()?)),
        SqlType::Float | SqlType::Numeric => {
            CowVal::owned(CelDouble::from(utf8(text)?.parse::<f64>().ok()?))
        }
        SqlType::Timestamp | SqlType::TimestampTz => {
            CowVal::owned(CelTimestamp::from(date_time(datum::timestamp(sql_type, text)?)))
        }
        SqlType::Text | SqlType::Date => match String::from_utf8_lossy(text) {
            Cow::Borrowed(text) => CowVal::owned(CelString::from(text)),
            Cow::Owned(text) => CowVal::owned(CelString::from(text)),
        },
        SqlType::Json => owned(json_value::read(text)?),
        SqlType::Bytea
        | SqlType::Hstore
        | SqlType::Vector { .. }
        | SqlType::Array { .. }
        | SqlType::Composite { .. } => {
            let mut json = Vec::new();
            datum::write_json(&mut json, sql_type, text);
            owned(json_value::read(&json)?)
        }
    })
}

/// As [`value`], within what the evaluation may take.
fn read<'a>(sql_type: &SqlType, text: &'a [u8]) -> Option<CowVal<'a, 'a>> {
    let is_plain = matches!(
        sql_type,
        SqlType::Bool
            | SqlType::Integer
            | SqlType::Float
            | SqlType::Numeric
            | SqlType::Timestamp
            | SqlType::TimestampTz
            | SqlType::Text
            | SqlType::Date
    );
    let reading = if is_plain { TextReading::Plain } else { TextReading::Json };
    if meter::reads(text.len(), reading) { value(sql_type, text) } else { None }
}

/// Everything that is made here has a counterpart; were there one without, it reads as null.
fn owned<'a>(value: cel::Value) -> CowVal<'a, 'a> {
    Box::<dyn Val>::try_from(value).map_or_else(|_| CowVal::owned(CelNull), CowVal::Owned)
}

fn date_time(at: Timestamp) -> DateTime<FixedOffset> {
    let seconds = at.seconds().clamp(SECONDS_MIN, SECONDS_MAX);
    let nanos = u32::try_from(at.micros().rem_euclid(1_000_000)).unwrap_or_default() * 1000;
    DateTime::<Utc>::from_timestamp(seconds, nanos).unwrap_or_default().fixed_offset()
}
