//! How values of a column are compared with those of `match`: as PostgreSQL's `=` does, though they are
//! texts.
//!
//! A number has many texts (`1`, `1.00`, `1e0`; `0`, `-0`), and a `char(n)` is filled up with blanks that do
//! not count. Those of the endpoints' table come without them.

use std::borrow::Cow;

use crate::flow::relation::Column;
use crate::flow::relation::SqlType;

/// `char(n)`, in the catalog.
const BPCHAR: u32 = 1042;

/// What of a text counts.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum MatchForm {
    #[default]
    Text,
    /// All but the blanks at its end.
    Padded,
    /// Its value, if it is a decimal number.
    Number,
}

impl MatchForm {
    pub(super) fn of(column: &Column) -> Self {
        match &*column.sql_type {
            SqlType::Integer | SqlType::Numeric | SqlType::Float => Self::Number,
            SqlType::Text if column.type_oid == BPCHAR => Self::Padded,
            _ => Self::Text,
        }
    }

    /// A value of the event's row.
    pub(super) fn of_row(self, text: &[u8]) -> Cow<'_, [u8]> {
        match self {
            Self::Text => Cow::Borrowed(text),
            Self::Padded => {
                let end = text.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1);
                Cow::Borrowed(text.get(..end).unwrap_or(text))
            }
            Self::Number if is_plain(text) => Cow::Borrowed(text),
            Self::Number => decimal(text).map_or(Cow::Borrowed(text), Cow::Owned),
        }
    }

    /// A value of the endpoints' table.
    pub(super) fn wanted(self, value: &str) -> Box<[u8]> {
        match self {
            // A text with blanks at its end is another one than without.
            Self::Text | Self::Padded => value.as_bytes().into(),
            Self::Number => self.of_row(value.as_bytes()).into_owned().into(),
        }
    }
}

/// The digits of the longest whole number that is its own text.
const PLAIN_DIGITS_MAX: usize = 19;

/// Whether [`decimal`] would give the very text: so it is with almost every whole number, once for each event.
fn is_plain(text: &[u8]) -> bool {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let is_short = (1..=PLAIN_DIGITS_MAX).contains(&digits.len());
    is_short && digits.iter().all(u8::is_ascii_digit) && (!digits.starts_with(b"0") || text == b"0")
}

/// The one text of a number: a whole one that is not long is written out, of another one the digits without zeros at
/// either end, and the power of ten. `None` for NaN, the infinities, and what is no number.
fn decimal(text: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?;
    let (is_negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, power) = match rest.split_once(['e', 'E']) {
        Some((mantissa, power)) => (mantissa, power.parse::<i32>().ok()?),
        None => (rest, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = [whole, fraction].concat();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let significant = digits.trim_start_matches('0');
    let kept = significant.trim_end_matches('0');
    if kept.is_empty() {
        return Some(b"0".to_vec());
    }
    let zeros = i64::try_from(significant.len() - kept.len()).ok()?;
    let power = i64::from(power) - i64::try_from(fraction.len()).ok()? + zeros;
    let sign = if is_negative { "-" } else { "" };
    let written_out =
        usize::try_from(power).ok().filter(|zeros| kept.len() + zeros <= PLAIN_DIGITS_MAX);
    if let Some(zeros) = written_out {
        return Some(format!("{sign}{kept}{}", "0".repeat(zeros)).into_bytes());
    }
    Some(format!("{sign}{kept}e{power}").into_bytes())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    fn form(sql_type: SqlType, type_oid: u32) -> MatchForm {
        let name = String::from("c");
        MatchForm::of(&Column { name, type_oid, identity: false, sql_type: Arc::new(sql_type) })
    }

    #[test]
    fn a_number_is_its_value_however_it_is_written() {
        let form = form(SqlType::Float, 701);
        let alike = [
            ["0", "-0", "0.000"],
            ["1", "1.00", "1e0"],
            ["-12.5", "-12.50", "-1.25e+01"],
            ["1e+21", "1000000000000000000000", "0.1e22"],
            ["0.001", "1e-3", "000.0010"],
            ["9007199254740993", "9007199254740993.0", "9007199254740993"],
        ];
        for texts in alike {
            for text in texts {
                assert_eq!(*form.of_row(text.as_bytes()), *form.wanted(texts[0]), "{text}");
            }
        }
        for (one, other) in [("1", "-1"), ("10", "1"), ("9007199254740993", "9007199254740992")] {
            assert_ne!(*form.of_row(one.as_bytes()), *form.wanted(other), "{one} {other}");
        }
        for text in ["NaN", "Infinity", "-Infinity", "", "-", ".", "e5", "1e", "1e99999999999"] {
            assert_eq!(*form.of_row(text.as_bytes()), *text.as_bytes());
            assert_eq!(*form.wanted(text), *text.as_bytes());
        }
    }

    #[test]
    fn blanks_at_the_end_of_a_padded_text_do_not_count_and_those_of_others_do() {
        let padded = form(SqlType::Text, BPCHAR);
        assert_eq!(*padded.of_row(b"ab   "), *padded.wanted("ab"));
        assert_eq!(*padded.of_row(b"   "), *padded.wanted(""));
        assert_ne!(*padded.of_row(b"ab "), *padded.wanted("ab "));
        let text = form(SqlType::Text, 25);
        assert_ne!(*text.of_row(b"ab "), *text.wanted("ab"));
        assert_ne!(*text.of_row(b"1.0"), *text.wanted("1"));
    }

    #[test]
    fn a_whole_number_is_its_own_text() {
        let form = form(SqlType::Integer, 20);
        for text in ["0", "7", "-120", "9223372036854775807", "-9223372036854775808"] {
            assert!(is_plain(text.as_bytes()), "{text}");
            assert_eq!(decimal(text.as_bytes()).as_deref(), Some(text.as_bytes()));
            assert!(matches!(form.of_row(text.as_bytes()), Cow::Borrowed(_)));
        }
        for text in ["-0", "007", "", "-", "1.0", "12345678901234567890"] {
            assert!(!is_plain(text.as_bytes()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn numbers_are_alike_exactly_if_they_are_equal(one: i32, other: i32, zeros in 0..4_usize) {
            let form = form(SqlType::Numeric, 1700);
            let written = format!("{one}.{}", "0".repeat(zeros + 1));
            let (a, b) = (one.to_string(), other.to_string());
            prop_assert_eq!(form.of_row(written.as_bytes()), form.of_row(a.as_bytes()));
            prop_assert_eq!(*form.of_row(a.as_bytes()) == *form.wanted(&b), one == other);
        }
    }
}
