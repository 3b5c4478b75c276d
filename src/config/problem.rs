//! What is wrong with a configuration: every problem at once, each with its place.

use std::fmt;

/// One thing to put right. Its text holds no secret and no URL of an endpoint.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigProblem {
    /// The file as it was named on the command line.
    pub file: String,
    /// Where in the file; `None` for what no line is to blame for.
    pub place: Option<ConfigPlace>,
    /// The key with its tables, such as `webhook.timeout`; empty for the file as a whole.
    pub key: String,
    /// What is wrong, then what to do.
    pub message: String,
}

/// A place in a text file; both count from 1, columns in characters.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct ConfigPlace {
    pub line: usize,
    pub column: usize,
}

impl ConfigPlace {
    /// The place of a byte in `text`.
    pub(super) fn of(text: &str, byte: usize) -> Self {
        let mut end = byte.min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let before = text.get(..end).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
        }
    }
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(place) = self.place {
            write!(f, ":{}", place.line)?;
            if self.key.is_empty() {
                // Broken TOML: no key says where on the line to look.
                write!(f, ":{}", place.column)?;
            }
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Why a configuration is refused: one problem or more, in the order of the file.
///
/// `Display` prints each on a line of its own: `walhook.toml:12: webhook.timeout: ...`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigProblems(Vec<ConfigProblem>);

impl ConfigProblems {
    pub(super) fn new(mut problems: Vec<ConfigProblem>) -> Self {
        problems.sort_by_key(|problem| problem.place);
        Self(problems)
    }

    pub fn iter(&self) -> std::slice::Iter<'_, ConfigProblem> {
        self.0.iter()
    }
}

impl fmt::Display for ConfigProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigProblems {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_has_a_line_and_a_column_of_characters() {
        let cases = [
            ("", 0, (1, 1)),
            ("ab\ncd", 1, (1, 2)),
            ("ab\ncd", 3, (2, 1)),
            ("张三 = 1", 7, (1, 4)),
            ("张三 = 1", 1, (1, 1)),
            ("ab\n", 99, (2, 1)),
        ];
        for (text, byte, (line, column)) in cases {
            assert_eq!(
                ConfigPlace::of(text, byte),
                ConfigPlace { line, column },
                "case: {text:?} at {byte}"
            );
        }
    }
}
