//! What the server answers over the simple protocol, as texts.

use tokio_postgres::Client;
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::SimpleQueryRow;

use crate::backfill::read_error::ReadError;
use crate::flow::change::ColumnValue;
use crate::flow::change::RowTuple;
use crate::flow::lsn::Lsn;

/// The rows of an answer are among other messages.
pub(super) fn row_of(message: SimpleQueryMessage) -> Option<SimpleQueryRow> {
    match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    }
}

/// A row from one of its columns on.
pub(super) fn tuple(row: &SimpleQueryRow, from: usize) -> Result<RowTuple, ReadError> {
    let value = |column| {
        let text = text(row, column)?;
        Ok(text.map_or(ColumnValue::Null, |text| ColumnValue::Text(text.as_bytes())))
    };
    let values = (from..row.len()).map(value).collect::<Result<Vec<_>, ReadError>>()?;
    Ok(RowTuple::of_values(values.into_iter()))
}

pub(super) fn place(row: &SimpleQueryRow, columns: usize) -> Result<Vec<String>, ReadError> {
    (0..columns).map(|column| Ok(text(row, column)?.unwrap_or_default().to_owned())).collect()
}

pub(super) fn text(row: &SimpleQueryRow, column: usize) -> Result<Option<&str>, ReadError> {
    row.try_get(column).map_err(|_| ReadError::Encoding)
}

/// The last row of an answer that has one.
pub(super) async fn one(client: &Client, question: &str) -> Result<SimpleQueryRow, ReadError> {
    let answer = client.simple_query(question).await?;
    answer.into_iter().rev().find_map(row_of).ok_or(ReadError::Answer { what: "no row" })
}

pub(super) fn lsn(row: &SimpleQueryRow) -> Result<Lsn, ReadError> {
    let parsed = text(row, 0)?.unwrap_or_default().parse();
    parsed.map_err(|_| ReadError::Answer { what: "no position" })
}
