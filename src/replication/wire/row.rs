//! Rows of a simple query's answer: text columns.

use postgres_protocol::message::backend;
use tokio_postgres::fallible_iterator::FallibleIterator;

use crate::replication::error::SourceError;

pub(super) type TextRow = Vec<Option<String>>;

pub(super) fn row(body: &backend::DataRowBody) -> Result<TextRow, SourceError> {
    let broken = |error: std::io::Error| SourceError::Protocol { what: error.to_string() };
    let bytes = body.buffer();
    let ranges: Vec<_> = body.ranges().collect().map_err(broken)?;
    let column = |range: std::ops::Range<usize>| {
        bytes.get(range).map(|text| String::from_utf8_lossy(text).into_owned())
    };
    Ok(ranges.into_iter().map(|range| range.and_then(column)).collect())
}

pub(super) fn text(row: &TextRow, column: usize) -> Result<&str, SourceError> {
    row.get(column)
        .and_then(|text| text.as_deref())
        .ok_or_else(|| SourceError::Protocol { what: format!("an answer without column {column}") })
}

pub(super) fn number<N: std::str::FromStr>(row: &TextRow, column: usize) -> Result<N, SourceError> {
    let text = text(row, column)?;
    text.parse().map_err(|_| SourceError::Protocol {
        what: format!("{text:?} in column {column} of an answer"),
    })
}

/// `15` of `15.18 (Debian)` or `15beta1`.
pub(super) fn leading_number(version: &str) -> Option<u32> {
    let end = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version.get(..end)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_any_servers_text() {
        let cases = [("15.18 (Debian 1)", Some(15)), ("19devel", Some(19)), ("9.6", Some(9))];
        for (version, expected) in cases {
            assert_eq!(leading_number(version), expected, "case: {version}");
        }
        assert_eq!(leading_number("CockroachDB"), None);
    }
}
