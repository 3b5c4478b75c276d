//! Times in PostgreSQL's text: `2024-02-29 12:34:56.789+00`, `0044-03-15 BC`, `294276-12-31 ...`.
//!
//! Read by hand: this stands in the path of every row, and no calendar library knows years before
//! Christ or with more than four digits.

use crate::flow::body::escape_into;
use crate::flow::relation::SqlType;

const MICROS_PER_SECOND: i64 = 1_000_000;

/// Years have at most this many digits: PostgreSQL ends with 294276 for timestamps and 5874897 for
/// dates. More would not fit into the arithmetic below.
const YEAR_DIGITS_MAX: usize = 7;

/// A point in time: seconds since the Unix epoch, UTC, and microseconds after that second.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct CalendarMoment {
    pub(super) seconds: i64,
    micros: u32,
}

impl CalendarMoment {
    /// `None` if the type is no time and no number, or the text is not of its type.
    pub(super) fn read(sql_type: &SqlType, text: &[u8]) -> Option<Self> {
        match sql_type {
            SqlType::TimestampTz | SqlType::Timestamp | SqlType::Date => read_time(text),
            SqlType::Integer | SqlType::Numeric => read_decimal(text),
            SqlType::Float => read_float(text),
            _ => None,
        }
    }

    /// Microseconds since the Unix epoch; the nearest that there is if there are too many.
    pub(super) fn micros(self) -> i64 {
        self.seconds.saturating_mul(MICROS_PER_SECOND).saturating_add(i64::from(self.micros))
    }
}

/// Whether values of this type can be infinite points in time.
pub(super) fn is_time(sql_type: &SqlType) -> bool {
    matches!(sql_type, SqlType::TimestampTz | SqlType::Timestamp | SqlType::Date)
}

/// Appends `2024-02-29T12:34:56.789`. What does not look like a timestamp, such as `infinity`, has
/// no blank before a digit and is appended as it is, like everything in it.
pub(super) fn write_timestamp(out: &mut Vec<u8>, text: &[u8]) -> Option<()> {
    let (date, time) = split_at_blank(text)?;
    out.push(b'"');
    escape_into(out, date);
    out.push(b'T');
    escape_into(out, time);
    out.push(b'"');
    Some(())
}

/// Appends `2024-02-29T12:34:56.789Z`; before Christ `0044-03-15T12:00:00Z BC`.
pub(super) fn write_timestamptz(out: &mut Vec<u8>, text: &[u8]) -> Option<()> {
    let (date, time) = split_at_blank(text)?;
    let sign = time.iter().position(|byte| matches!(byte, b'+' | b'-'))?;
    let (clock, zone) = time.split_at_checked(sign)?;
    let (offset, era) = match zone.strip_suffix(b" BC") {
        Some(offset) => (offset, b" BC".as_slice()),
        None => (zone, b"".as_slice()),
    };
    out.push(b'"');
    escape_into(out, date);
    out.push(b'T');
    escape_into(out, clock);
    match offset {
        b"+00" => out.push(b'Z'),
        // The source pins the session to UTC. Should it ever not, this is at least what ISO 8601
        // asks for: an offset with minutes.
        [_, _, _] => {
            escape_into(out, offset);
            out.extend_from_slice(b":00");
        }
        other => escape_into(out, other),
    }
    out.extend_from_slice(era);
    out.push(b'"');
    Some(())
}

/// `None` unless there is a blank with a digit after it.
fn split_at_blank(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let blank = memchr::memchr(b' ', text)?;
    let (date, time) = (text.get(..blank)?, text.get(blank + 1..)?);
    time.first()?.is_ascii_digit().then_some((date, time))
}

fn read_time(text: &[u8]) -> Option<CalendarMoment> {
    let (text, before_christ) = match text.strip_suffix(b" BC") {
        Some(text) => (text, true),
        None => (text, false),
    };
    let mut r = DigitReader { rest: text };
    let year = r.number(4..=YEAR_DIGITS_MAX)?;
    r.expect(b'-')?;
    let month = r.two_digits(1..=12)?;
    r.expect(b'-')?;
    let day = r.two_digits(1..=31)?;
    let year = if before_christ { 1 - year } else { year };
    let midnight = days_from_civil(year, month, day) * 86_400;
    if r.rest.is_empty() {
        return Some(CalendarMoment { seconds: midnight, micros: 0 });
    }
    r.expect(b' ')?;
    let hours = r.two_digits(0..=24)?;
    r.expect(b':')?;
    let minutes = r.two_digits(0..=59)?;
    r.expect(b':')?;
    let seconds = r.two_digits(0..=60)?;
    let micros = r.fraction()?;
    let offset = r.offset()?;
    let seconds = midnight + hours * 3600 + minutes * 60 + seconds - offset;
    r.rest.is_empty().then_some(CalendarMoment { seconds, micros })
}

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar, in which the year before 1
/// is 0. Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Seconds as `1703123456` or `1703123456.789`.
fn read_decimal(text: &[u8]) -> Option<CalendarMoment> {
    let (digits, negative) = match text.strip_prefix(b"-") {
        Some(digits) => (digits, true),
        None => (text, false),
    };
    let mut r = DigitReader { rest: digits };
    let seconds = r.number(1..=18)?;
    let micros = r.fraction()?;
    let moment = match (negative, micros) {
        (false, _) => CalendarMoment { seconds, micros },
        (true, 0) => CalendarMoment { seconds: -seconds, micros: 0 },
        // Microseconds count forwards from the second below.
        (true, _) => CalendarMoment { seconds: -seconds - 1, micros: 1_000_000 - micros },
    };
    r.rest.is_empty().then_some(moment)
}

fn read_float(text: &[u8]) -> Option<CalendarMoment> {
    let given: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    let below = given.floor();
    #[expect(clippy::cast_possible_truncation, reason = "checked to be in range")]
    let seconds = (below.abs() < 1e18).then_some(below as i64)?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a fraction of a second is less than a million microseconds"
    )]
    let micros = ((given - below) * 1e6) as u32;
    Some(CalendarMoment { seconds, micros })
}

struct DigitReader<'a> {
    rest: &'a [u8],
}

impl DigitReader<'_> {
    fn expect(&mut self, byte: u8) -> Option<()> {
        self.rest = self.rest.strip_prefix(&[byte])?;
        Some(())
    }

    fn number(&mut self, digits: std::ops::RangeInclusive<usize>) -> Option<i64> {
        let len = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (number, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        let value = |number: &[u8]| {
            number.iter().fold(0_i64, |value, digit| value * 10 + i64::from(digit - b'0'))
        };
        digits.contains(&len).then(|| value(number))
    }

    fn two_digits(&mut self, allowed: std::ops::RangeInclusive<i64>) -> Option<i64> {
        self.number(2..=2).filter(|value| allowed.contains(value))
    }

    /// Microseconds from `.5`, or 0 if there is no point; digits after the sixth are dropped.
    fn fraction(&mut self) -> Option<u32> {
        let Some(after) = self.rest.strip_prefix(b".") else { return Some(0) };
        let len = after.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, rest) = after.split_at_checked(len).filter(|_| len > 0)?;
        self.rest = rest;
        let padded = digits.iter().chain(std::iter::repeat(&b'0')).take(6);
        Some(padded.fold(0, |micros, digit| micros * 10 + u32::from(digit - b'0')))
    }

    /// Seconds east of UTC from `+00`, `-03:30` or `+05:53:28`; 0 if there is nothing.
    fn offset(&mut self) -> Option<i64> {
        let (sign, after) = match self.rest {
            [] => return Some(0),
            [b'+', after @ ..] => (1, after),
            [b'-', after @ ..] => (-1, after),
            _ => return None,
        };
        self.rest = after;
        let mut seconds = self.two_digits(0..=24)? * 3600;
        for unit in [60, 1] {
            if self.expect(b':').is_some() {
                seconds += self.two_digits(0..=59)? * unit;
            }
        }
        Some(sign * seconds)
    }
}
