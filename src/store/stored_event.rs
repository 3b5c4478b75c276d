//! Events in columns: what the backlog and the dead letters have in common.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Map;
use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::flow::event::Event;
use crate::flow::event::EventExpiry;
use crate::flow::event::EventFacts;
use crate::flow::event::EventId;
use crate::flow::key::EventKeys;
use crate::flow::key::KeyHash;
use crate::flow::lsn::Position;
use crate::flow::relation::TableName;
use crate::flow::time::Timestamp;
use crate::flow::verdict::AttemptFailure;
use crate::flow::verdict::FailureClass;
use crate::store::body_codec;
use crate::store::sql::SqlParams;
use crate::store::sql::clean;
use crate::store::sql::read;
use crate::store::sql::unsigned;
use crate::store::state_error::StateError;

/// The columns that [`put_events`] fills, in its order.
pub(crate) const COLUMNS: &str = "event_id, commit_lsn, ordinal, event_type, table_schema, \
                                  table_name, row_key, first_key, second_key, committed, born, \
                                  expires_at, facts, body";

/// The parameters that [`put_events`] adds, from `$2` on.
pub(crate) const ARRAYS: &str = "$2::text[], $3::pg_lsn[], $4::bigint[], $5::text[], $6::text[], \
                                 $7::text[], $8::text[], $9::bigint[], $10::bigint[], \
                                 $11::timestamptz[], $12::timestamptz[], $13::timestamptz[], \
                                 $14::json[], $15::bytea[]";

/// One event of a row to write, and the value by which operators find it, such as a task's id.
#[derive(Clone, Copy)]
pub(crate) struct StoredSubject<'a> {
    pub(crate) event: &'a Event,
    pub(crate) row_key: Option<&'a str>,
}

/// What the attempts came to so far.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct StoredHistory {
    /// Attempts that were made.
    pub attempts: u32,
    pub first_attempt: Option<Timestamp>,
    pub last_attempt: Option<Timestamp>,
    /// HTTP status of the last attempt, if it got one.
    pub status: Option<u16>,
    /// Why the last attempt failed.
    pub failure: Option<AttemptFailure>,
}

/// Whether a delivery is sent again on an operator's word. `Display` is not needed: it is stored as
/// two columns.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ReplayRow {
    /// An ordinary delivery.
    #[default]
    No,
    /// An event of the past, whatever became of it then.
    Event,
    /// A dead letter; its outcome is noted there.
    DeadLetter(DeadLetterId),
}

/// Names a row of the dead letters.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct DeadLetterId(pub i64);

impl fmt::Display for DeadLetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl ReplayRow {
    pub(crate) fn is_replay(self) -> bool {
        self != Self::No
    }

    pub(crate) fn dead_letter(self) -> Option<i64> {
        match self {
            Self::DeadLetter(id) => Some(id.0),
            Self::No | Self::Event => None,
        }
    }

    pub(crate) fn from_columns(replay: bool, resend_of: Option<i64>) -> Self {
        match (replay, resend_of) {
            (_, Some(id)) => Self::DeadLetter(DeadLetterId(id)),
            (true, None) => Self::Event,
            (false, None) => Self::No,
        }
    }
}

/// The value that names a row: that of its first fact, which is the first column of its primary
/// key.
pub(crate) fn row_key(facts: &EventFacts) -> Option<&str> {
    facts.iter().next().map(|(_, value)| value)
}

/// Adds [`ARRAYS`] to `params`. `bodies` are the encoded bodies, row by row.
pub(crate) fn put_events<'a>(
    params: &mut SqlParams<'a>,
    rows: &[StoredSubject<'a>],
    bodies: Vec<Option<Vec<u8>>>,
    unicode: bool,
) {
    let events = || rows.iter().map(|row| row.event);
    params.column(Type::TEXT_ARRAY, events().map(|event| event.id.to_string()));
    params.column(Type::PG_LSN_ARRAY, events().map(|event| event.position.commit));
    params.column(Type::INT8_ARRAY, events().map(|event| i64::from(event.position.ordinal)));
    params.column(Type::TEXT_ARRAY, events().map(|event| &*event.event_type));
    params.column(Type::TEXT_ARRAY, events().map(|event| event.table.schema.as_str()));
    params.column(Type::TEXT_ARRAY, events().map(|event| event.table.name.as_str()));
    let keys = rows.iter().map(|row| row.row_key.map(|key| clean(key, unicode)));
    params.column(Type::TEXT_ARRAY, keys);
    params.column(Type::INT8_ARRAY, events().map(|event| stored_key(event.keys, 0)));
    params.column(Type::INT8_ARRAY, events().map(|event| stored_key(event.keys, 1)));
    params.column(Type::TIMESTAMPTZ_ARRAY, events().map(|event| event.committed));
    let expiries = || events().map(|event| event.expiry);
    params.column(Type::TIMESTAMPTZ_ARRAY, expiries().map(|expiry| expiry.map(|e| e.born)));
    params.column(Type::TIMESTAMPTZ_ARRAY, expiries().map(|expiry| expiry.map(expires_at)));
    params.column(Type::JSON_ARRAY, events().map(|event| facts_json(&event.facts, unicode)));
    params.put(Type::BYTEA_ARRAY, bodies);
}

/// What stands for a barrier: a second key without a first, which no event has otherwise.
const BARRIER: i64 = 0;

pub(crate) fn stored_key(keys: EventKeys, index: usize) -> Option<i64> {
    if keys.is_barrier() {
        return (index == 1).then_some(BARRIER);
    }
    keys.iter().nth(index).map(|key| key.raw().cast_signed())
}

pub(crate) fn expires_at(expiry: EventExpiry) -> Timestamp {
    let age = i64::try_from(expiry.max_age.as_micros()).unwrap_or(i64::MAX);
    expiry.born.shifted(age)
}

pub(crate) fn facts_json(facts: &EventFacts, unicode: bool) -> Value {
    let fact = |(name, value): (&str, &str)| {
        (clean(name, unicode).into_owned(), Value::String(clean(value, unicode).into_owned()))
    };
    Value::Object(facts.iter().map(fact).collect::<Map<String, Value>>())
}

/// The event of a row with [`COLUMNS`]. Its `sequence` is 0 and it holds no share of the memory
/// budget: the caller that takes it into a lane gives it both. Without a `body` column, or with a null one,
/// its body is empty.
pub(crate) fn read_event(row: &Row, body: Option<Bytes>) -> Result<Event, StateError> {
    let id: EventId = read::<&str>(row, "event_id")?
        .parse()
        .map_err(|cause| StateError::unreadable("an event id", cause))?;
    let body = body.map(body_codec::decode).transpose();
    Ok(Event {
        id,
        sequence: 0,
        position: match id.position() {
            Some(position) => position,
            None => {
                Position { commit: read(row, "commit_lsn")?, ordinal: unsigned(row, "ordinal")? }
            }
        },
        event_type: read::<&str>(row, "event_type")?.into(),
        table: Arc::new(read_table(row)?),
        committed: read(row, "committed")?,
        keys: read_keys(row)?,
        expiry: read_expiry(row)?,
        body: body
            .map_err(|cause| StateError::unreadable("the body of an event", cause))?
            .unwrap_or_default(),
        facts: read_facts(row)?,
        write_back: None,
        held: None,
    })
}

pub(crate) fn read_table(row: &Row) -> Result<TableName, StateError> {
    Ok(TableName::new(read::<&str>(row, "table_schema")?, read::<&str>(row, "table_name")?))
}

pub(crate) fn read_keys(row: &Row) -> Result<EventKeys, StateError> {
    let key = |number: i64| KeyHash::from_raw(number.cast_unsigned());
    let first: Option<i64> = read(row, "first_key")?;
    let second: Option<i64> = read(row, "second_key")?;
    Ok(match (first.map(key), second.map(key)) {
        (Some(new), Some(old)) => EventKeys::both(old, new),
        (Some(key), None) => EventKeys::one(key),
        (None, Some(_)) => EventKeys::BARRIER,
        (None, None) => EventKeys::NONE,
    })
}

fn read_expiry(row: &Row) -> Result<Option<EventExpiry>, StateError> {
    let born: Option<Timestamp> = read(row, "born")?;
    let expires: Option<Timestamp> = read(row, "expires_at")?;
    Ok(born.zip(expires).map(|(born, expires)| EventExpiry { born, max_age: expires.since(born) }))
}

fn read_facts(row: &Row) -> Result<EventFacts, StateError> {
    let Value::Object(facts) = read(row, "facts")? else {
        return Err(StateError::unreadable("the facts of an event", "they are not an object"));
    };
    let text = |value: Value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    Ok(EventFacts::new(facts.into_iter().map(|(name, value)| (name.into(), text(value))).collect()))
}

/// The class of a stored failure; `None` for what a newer walhook may have written.
pub(crate) fn failure_class(text: &str) -> Option<FailureClass> {
    [
        FailureClass::Status,
        FailureClass::Timeout,
        FailureClass::Dns,
        FailureClass::Connect,
        FailureClass::Tls,
        FailureClass::Protocol,
        FailureClass::Refused,
        FailureClass::Request,
        FailureClass::Local,
    ]
    .into_iter()
    .find(|class| class.as_str() == text)
}

/// HTTP status of a row, if there is one in its range.
pub(crate) fn read_status(row: &Row) -> Result<Option<u16>, StateError> {
    Ok(read::<Option<i32>>(row, "http_status")?.and_then(|status| u16::try_from(status).ok()))
}
