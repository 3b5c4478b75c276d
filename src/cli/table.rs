//! Tables for people: columns as wide as they need to be.

use std::io;

use serde_json::Value;

use crate::cli::terminal;

/// Two blanks tell columns apart, also where values have blanks of their own.
const GAP: usize = 2;

/// Prints a row for each item: of each column its title, and the field it shows.
///
/// # Errors
/// As the output.
pub(crate) fn print(columns: &[(&str, &str)], items: &[Value]) -> io::Result<()> {
    let titles = columns.iter().map(|(title, _)| (*title).to_owned()).collect();
    let mut rows: Vec<Vec<String>> = vec![titles];
    rows.extend(items.iter().map(|item| {
        columns.iter().map(|(_, field)| cell(item.get(field).unwrap_or(&Value::Null))).collect()
    }));
    let width = |index: usize| {
        let lengths = rows.iter().filter_map(|row| row.get(index));
        lengths.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            let missing = width - cell.chars().count().min(*width);
            line.extend(std::iter::repeat_n(' ', missing + GAP));
        }
        terminal::line(line.trim_end())?;
    }
    Ok(())
}

/// A value on one line, safe for a terminal; `-` if there is none.
pub(crate) fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::from("-"),
        Value::String(text) => terminal::visible(text).into_owned(),
        other => terminal::json_line(other),
    }
}
