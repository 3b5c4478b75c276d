//! How walhook's words become SQL values and back, and what a statement takes as parameters.

use std::borrow::Cow;
use std::error::Error;

use bytes::BufMut;
use bytes::BytesMut;
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;
use tokio_postgres::types::IsNull;
use tokio_postgres::types::ToSql;
use tokio_postgres::types::Type;
use tokio_postgres::types::accepts;
use tokio_postgres::types::to_sql_checked;

use crate::flow::lsn::Lsn;
use crate::flow::time::Timestamp;
use crate::store::state_error::StateError;

/// Rows that one statement takes at most, and the bytes of their bodies (but always one row):
/// bounds the memory of a flush. What is larger goes in several statements of one transaction.
const CHUNK_ROWS: usize = 1000;
pub(crate) const CHUNK_BYTES: usize = 8 * 1024 * 1024;

/// PostgreSQL's first finite timestamp, in its microseconds; below it is only -infinity, the end of
/// the 64-bit range. Its last one is later than a [`Timestamp`] can be. Source:
/// `IS_VALID_TIMESTAMP` in `src/include/datatype/timestamp.h`.
const FIRST_TIMESTAMP: i64 = -211_813_488_000_000_000;

type SqlCause = Box<dyn Error + Sync + Send>;

impl ToSql for Lsn {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, SqlCause> {
        out.put_u64(self.raw());
        Ok(IsNull::No)
    }

    accepts!(PG_LSN);
    to_sql_checked!();
}

impl<'a> FromSql<'a> for Lsn {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, SqlCause> {
        Ok(Self::from_raw(u64::from_be_bytes(raw.try_into()?)))
    }

    accepts!(PG_LSN);
}

/// A time before PostgreSQL's calendar becomes -infinity.
impl ToSql for Timestamp {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, SqlCause> {
        let micros = self.to_postgres();
        out.put_i64(if micros < FIRST_TIMESTAMP { i64::MIN } else { micros });
        Ok(IsNull::No)
    }

    accepts!(TIMESTAMPTZ);
    to_sql_checked!();
}

impl<'a> FromSql<'a> for Timestamp {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, SqlCause> {
        Ok(Self::from_postgres(i64::from_be_bytes(raw.try_into()?)))
    }

    accepts!(TIMESTAMPTZ);
}

/// Parameters of one statement, with their types.
#[derive(Default)]
pub(crate) struct SqlParams<'a> {
    values: Vec<(Box<dyn ToSql + Sync + Send + 'a>, Type)>,
}

impl<'a> SqlParams<'a> {
    /// The next parameter.
    pub(crate) fn put(&mut self, sql_type: Type, value: impl ToSql + Sync + Send + 'a) {
        self.values.push((Box::new(value), sql_type));
    }

    /// The next parameter: an array with a value of each row.
    pub(crate) fn column<T: ToSql + Sync + Send + 'a>(
        &mut self,
        array_type: Type,
        values: impl Iterator<Item = T>,
    ) {
        self.put(array_type, values.collect::<Vec<T>>());
    }

    /// In the form that tokio-postgres takes.
    pub(crate) fn list(&self) -> Vec<(&(dyn ToSql + Sync), Type)> {
        let mut list: Vec<(&(dyn ToSql + Sync), Type)> = Vec::with_capacity(self.values.len());
        for (value, sql_type) in &self.values {
            list.push((&**value, sql_type.clone()));
        }
        list
    }
}

/// Cuts `rows` into pieces that one statement takes; `bytes` says how large a row's body is.
pub(crate) fn chunks<T>(rows: &[T], bytes: impl Fn(&T) -> usize) -> Vec<&[T]> {
    let mut chunks = Vec::new();
    let mut rest = rows;
    while !rest.is_empty() {
        let mut total = 0;
        let fits = |row: &T| {
            total += bytes(row);
            total <= CHUNK_BYTES
        };
        let count = rest.iter().take(CHUNK_ROWS).map(fits).take_while(|&fits| fits).count();
        let (chunk, after) = rest.split_at(count.max(1));
        chunks.push(chunk);
        rest = after;
    }
    chunks
}

/// Array parameters from `$2` on, as rows that are looked up in a table by its index. How many they
/// are is hidden from the planner: to find a thousand it would rather read the whole of a large table.
pub(crate) fn looked_up(element_types: &[&str]) -> String {
    let array = |(at, name): (usize, &&str)| format!("(SELECT ${}::{name}[])", at + 2);
    let arrays: Vec<String> = element_types.iter().enumerate().map(array).collect();
    format!("unnest({})", arrays.join(", "))
}

/// Text that the server takes; `unicode`: its database is UTF-8.
pub(crate) fn clean(text: &str, unicode: bool) -> Cow<'_, str> {
    if unicode { clean_unicode(text) } else { clean_ascii(text) }
}

/// Text that a server whose database is UTF-8 takes: NUL is in no SQL text.
pub(crate) fn clean_unicode(text: &str) -> Cow<'_, str> {
    match text.contains('\0') {
        true => Cow::Owned(text.replace('\0', "\u{FFFD}")),
        false => Cow::Borrowed(text),
    }
}

/// Text that any server takes: a database that is not UTF-8 may have no place for what is not ASCII.
pub(crate) fn clean_ascii(text: &str) -> Cow<'_, str> {
    match text.is_ascii() && !text.contains('\0') {
        true => Cow::Borrowed(text),
        false => Cow::Owned(text.replace(|c: char| c == '\0' || !c.is_ascii(), "?")),
    }
}

/// A column of a row; an error instead of a panic if it is not of this type.
pub(crate) fn read<'a, T: FromSql<'a>>(row: &'a Row, column: &str) -> Result<T, StateError> {
    Ok(row.try_get(column)?)
}

/// A number that SQL holds in a signed column because it has no unsigned ones.
pub(crate) fn unsigned<T: TryFrom<i64>>(row: &Row, column: &'static str) -> Result<T, StateError> {
    let number: i64 = read(row, column)?;
    T::try_from(number).map_err(|_| StateError::unreadable(column, "the number is out of range"))
}

/// The same for an `integer` column.
pub(crate) fn unsigned_int(row: &Row, column: &'static str) -> Result<u32, StateError> {
    let number: i32 = read(row, column)?;
    u32::try_from(number).map_err(|cause| StateError::unreadable(column, cause))
}

/// For an `integer` column: the nearest number that it holds.
pub(crate) fn int(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// For a `bigint` column: the nearest number that it holds.
pub(crate) fn bigint(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(time: Timestamp) -> i64 {
        let mut out = BytesMut::new();
        time.to_sql(&Type::TIMESTAMPTZ, &mut out).unwrap();
        i64::from_be_bytes(out[..].try_into().unwrap())
    }

    #[test]
    fn times_before_the_calendar_become_infinite() {
        assert_eq!(sent(Timestamp::from_micros(i64::MIN)), i64::MIN);
        assert_eq!(sent(Timestamp::from_postgres(FIRST_TIMESTAMP - 1)), i64::MIN);
        assert_eq!(sent(Timestamp::from_postgres(FIRST_TIMESTAMP)), FIRST_TIMESTAMP);
        assert_eq!(sent(Timestamp::from_postgres(7)), 7);
    }

    #[test]
    fn chunks_are_bounded_in_rows_and_bytes_and_lose_nothing() {
        let half = CHUNK_BYTES / 2;
        let cases: [(&str, Vec<usize>, Vec<usize>); 5] = [
            ("none", vec![], vec![]),
            ("many small", vec![1; 2500], vec![1000, 1000, 500]),
            ("two fit", vec![half, half, half], vec![2, 1]),
            ("one too large", vec![1, CHUNK_BYTES * 3, 1], vec![1, 1, 1]),
            ("all too large", vec![CHUNK_BYTES + 1; 3], vec![1, 1, 1]),
        ];
        for (name, rows, expected) in cases {
            let lengths: Vec<usize> = chunks(&rows, |&row| row).iter().map(|c| c.len()).collect();
            assert_eq!(lengths, expected, "case: {name}");
        }
    }

    #[test]
    fn the_planner_does_not_see_how_many_rows_are_looked_up() {
        let expected = "unnest((SELECT $2::text[]), (SELECT $3::int[]))";
        assert_eq!(looked_up(&["text", "int"]), expected);
    }

    #[test]
    fn text_is_made_fit_for_the_server() {
        let cases = [
            ("plain", "plain", "plain"),
            ("a\0b", "a\u{FFFD}b", "a?b"),
            ("張三", "張三", "??"),
            ("", "", ""),
        ];
        for (text, unicode, ascii) in cases {
            assert_eq!(clean(text, true), unicode, "case: {text:?}");
            assert_eq!(clean(text, false), ascii, "case: {text:?}");
        }
    }
}
