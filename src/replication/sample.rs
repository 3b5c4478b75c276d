//! A few rows of a table as it is, in the shape in which the stream would bring them: what `check`
//! tries expressions on.
//!
//! Read in a transaction of its own that writes nothing and cannot take long.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio_postgres::Client;
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::SimpleQueryRow;

use crate::flow::change::ColumnField;
use crate::flow::change::RowTuple;
use crate::flow::quote::identifier;
use crate::flow::quote::literal;
use crate::flow::relation::Column;
use crate::flow::relation::Relation;
use crate::flow::relation::ReplicaIdentity;
use crate::flow::relation::SqlType;
use crate::flow::relation::TableName;
use crate::replication::types;
use crate::store::error::StoreError;

/// How long the server may look for rows, locks included.
const PATIENCE: Duration = Duration::from_secs(2);

/// Larger rows are passed over: a sample is not worth 100 MB.
const ROW_BYTES_MAX: usize = 1024 * 1024;

/// The table's OID, and whether this role may read it.
const TABLE: &str = "
    SELECT c.oid, has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relname = $2";

/// Columns that the stream brings: of the generated ones the stored, since PostgreSQL 18.
const COLUMNS: &str = "
    SELECT a.attname::text, a.atttypid
    FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
        AND (a.attgenerated = '' OR a.attgenerated = 's'
            AND current_setting('server_version_num')::int8 >= 180000)
    ORDER BY a.attnum";

/// What there was to read.
#[derive(Debug)]
pub(crate) enum RowSample {
    /// The relation's identity is the whole row.
    Rows { relation: Arc<Relation>, rows: Vec<RowTuple> },
    /// Nothing can be said, for this reason.
    Unreadable(String),
}

/// Which rows are wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SampleSource<'a> {
    /// Up to so many, whichever PostgreSQL finds first.
    First(usize),
    /// Those with this value, as text, in the first column of the primary key.
    Key(&'a str),
    /// A row that need not be there: a JSON object by column, of which PostgreSQL makes one.
    Json(&'a str),
}

/// Reads up to `rows_max` rows.
///
/// # Errors
/// The catalog could not be read. That the table could not is no error.
pub(crate) async fn read(
    client: &Client,
    table: &TableName,
    rows_max: usize,
) -> Result<RowSample, StoreError> {
    read_from(client, table, SampleSource::First(rows_max)).await
}

/// Reads the rows that `source` means.
///
/// # Errors
/// The catalog could not be read. That the table could not, or a value is none of its column's type, is
/// no error.
pub(crate) async fn read_from(
    client: &Client,
    table: &TableName,
    source: SampleSource<'_>,
) -> Result<RowSample, StoreError> {
    let Some(found) = client.query_opt(TABLE, &[&table.schema, &table.name]).await? else {
        return Ok(RowSample::Unreadable(String::from("there is no such table")));
    };
    let (oid, may_read): (u32, bool) = (found.try_get(0)?, found.try_get(1)?);
    if !may_read {
        return Ok(RowSample::Unreadable(String::from("the role may not read it")));
    }
    let relation = Arc::new(relation(client, table, oid).await?);
    client.batch_execute(&format!("BEGIN READ ONLY; {}", pinned())).await?;
    let answer = client.simple_query(&select(&relation, source)).await;
    client.batch_execute("ROLLBACK").await?;
    match answer {
        Ok(messages) => {
            let rows = messages.iter().filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => tuple(row),
                _ => None,
            });
            Ok(RowSample::Rows { rows: rows.collect(), relation })
        }
        Err(error) => match error.as_db_error() {
            Some(said) => Ok(RowSample::Unreadable(said.message().to_owned())),
            None => Err(error.into()),
        },
    }
}

/// A table as it is; `None` if there is none, or this role may not read it.
///
/// # Errors
/// The catalog could not be read.
pub(crate) async fn described(
    client: &Client,
    table: &TableName,
) -> Result<Option<Relation>, StoreError> {
    let Some(found) = client.query_opt(TABLE, &[&table.schema, &table.name]).await? else {
        return Ok(None);
    };
    Ok(Some(relation(client, table, found.try_get(0)?).await?))
}

/// What the stream's connection is set to as well, so that texts are the same.
fn pinned() -> String {
    format!(
        "SET LOCAL statement_timeout = {}; SET LOCAL DateStyle = 'ISO'; \
         SET LOCAL IntervalStyle = 'postgres'; SET LOCAL TimeZone = 'UTC'; \
         SET LOCAL bytea_output = 'hex'; SET LOCAL extra_float_digits = 1; \
         SET LOCAL standard_conforming_strings = on",
        PATIENCE.as_millis()
    )
}

/// Over the simple protocol, values come as their types' output functions write them.
fn select(relation: &Relation, source: SampleSource<'_>) -> String {
    let table = relation.table.quoted();
    let from = match source {
        SampleSource::First(rows) => format!("SELECT * FROM {table} LIMIT {rows}"),
        SampleSource::Key(key) => {
            let column = relation.key.first().and_then(|place| relation.columns.get(*place));
            let is_it = column
                .map(|column| format!("t.{}::text = {}", identifier(&column.name), literal(key)));
            let is_it = is_it.unwrap_or_else(|| String::from("false"));
            format!("SELECT * FROM {table} AS t WHERE {is_it} LIMIT 1")
        }
        SampleSource::Json(row) => {
            format!(
                "SELECT * FROM pg_catalog.jsonb_populate_record(NULL::{table}, {})",
                literal(row)
            )
        }
    };
    let quoted = |column: &Column| format!("s.{}", identifier(&column.name));
    let columns: Vec<String> = relation.columns.iter().map(quoted).collect();
    format!(
        "SELECT {} FROM ({from}) AS s WHERE octet_length(s::text) <= {ROW_BYTES_MAX}",
        columns.join(", "),
    )
}

async fn relation(client: &Client, table: &TableName, oid: u32) -> Result<Relation, StoreError> {
    let found = client.query(COLUMNS, &[&oid]).await?;
    let columns: Vec<(String, u32)> = found
        .iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect::<Result<_, tokio_postgres::Error>>()?;
    let oids: Vec<u32> = columns.iter().map(|(_, type_oid)| *type_oid).collect();
    let resolved = types::resolve(client, &oids).await?;
    let key = types::primary_key(client, oid).await?;
    let column = |((name, type_oid), (_, sql_type)): (&(String, u32), (u32, Arc<SqlType>))| {
        Column { name: name.clone(), type_oid: *type_oid, identity: true, sql_type }
    };
    let in_key = |(_, (name, _)): &(usize, &(String, u32))| key.contains(name);
    let key: Vec<usize> =
        columns.iter().enumerate().filter(in_key).map(|(index, _)| index).collect();
    let columns: Vec<Column> = columns.iter().zip(resolved).map(column).collect();
    let identity = ReplicaIdentity::Full;
    let row_key = Relation::row_key(identity, &columns, &key);
    Ok(Relation { oid, table: table.clone(), identity, columns, key, row_key })
}

/// A row that might be there, with a value for each column that is not made of others.
pub(crate) fn made_up(relation: &Relation) -> Option<RowTuple> {
    let mut raw = Vec::new();
    let fields: Vec<ColumnField> = relation
        .columns
        .iter()
        .map(|column| {
            let text = match &*column.sql_type {
                SqlType::Bool => "f",
                SqlType::Integer | SqlType::Float | SqlType::Numeric => "0",
                SqlType::Json | SqlType::Array { .. } => "{}",
                SqlType::Timestamp => "2000-01-01 00:00:00",
                SqlType::TimestampTz => "2000-01-01 00:00:00+00",
                SqlType::Date => "2000-01-01",
                SqlType::Bytea => "\\x",
                SqlType::Text => "test",
                _ => return ColumnField::Null,
            };
            let start = raw.len();
            raw.extend_from_slice(text.as_bytes());
            ColumnField::Text(start..raw.len())
        })
        .collect();
    RowTuple::new(Bytes::from(raw), fields.into())
}

fn tuple(row: &SimpleQueryRow) -> Option<RowTuple> {
    let mut raw = Vec::new();
    let mut fields = Vec::with_capacity(row.len());
    for column in 0..row.len() {
        fields.push(match row.get(column) {
            None => ColumnField::Null,
            Some(text) => {
                let start = raw.len();
                raw.extend_from_slice(text.as_bytes());
                ColumnField::Text(start..raw.len())
            }
        });
    }
    RowTuple::new(Bytes::from(raw), fields.into())
}
