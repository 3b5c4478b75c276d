//! Timestamps: microseconds since the Unix epoch, PostgreSQL's resolution.

use std::time::Duration;

use chrono::Datelike;
use chrono::Timelike;

/// Seconds from the Unix epoch to PostgreSQL's (2000-01-01 00:00:00 UTC).
const POSTGRES_EPOCH_SECONDS: i64 = 946_684_800;

/// A point in time: microseconds since the Unix epoch, UTC. PostgreSQL's own resolution.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Timestamp(i64);

impl Timestamp {
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000_000))
    }

    /// From microseconds since 2000-01-01, the form that the replication protocol carries.
    pub const fn from_postgres(micros: i64) -> Self {
        Self(micros.saturating_add(POSTGRES_EPOCH_SECONDS * 1_000_000))
    }

    /// Microseconds since 2000-01-01.
    pub const fn to_postgres(self) -> i64 {
        self.0.saturating_sub(POSTGRES_EPOCH_SECONDS * 1_000_000)
    }

    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, rounded down.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// Time passed since `earlier`; zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        let micros = self.0.saturating_sub(earlier.0);
        if micros > 0 { Duration::from_micros(micros.unsigned_abs()) } else { Duration::ZERO }
    }

    /// This point moved by a signed number of microseconds.
    pub const fn shifted(self, micros: i64) -> Self {
        Self(self.0.saturating_add(micros))
    }

    /// `2025-10-17T10:30:00.000Z`: ISO 8601 UTC with milliseconds, rounded down.
    pub fn iso_millis(self) -> String {
        let Some(time) = chrono::DateTime::from_timestamp_micros(self.0) else {
            return String::from("infinity"); // beyond year 262143: no wall clock says that
        };
        let Some(year) = u32::try_from(time.year()).ok().filter(|year| *year <= 9999) else {
            return time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
        };
        // It stands in most bodies: reading a format takes ten times as long.
        let mut text = String::with_capacity(24);
        let mut put = |number: u32, mut place: u32, after: char| {
            while place > 0 {
                text.extend(char::from_digit(number / place % 10, 10));
                place /= 10;
            }
            text.push(after);
        };
        put(year, 1000, '-');
        put(time.month(), 10, '-');
        put(time.day(), 10, 'T');
        put(time.hour(), 10, ':');
        put(time.minute(), 10, ':');
        put(time.second(), 10, '.');
        put(time.timestamp_subsec_millis(), 100, 'Z');
        text
    }
}

/// Whole milliseconds, as log fields and JSON have them: `u128`, which `as_millis` gives, becomes a
/// text in JSON logs.
pub(crate) fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iso_text_is_rounded_down_to_milliseconds() {
        let cases = [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_760_697_000_123_999, "2025-10-17T10:30:00.123Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (253_402_300_799_999_999, "9999-12-31T23:59:59.999Z"),
            (253_402_300_800_000_000, "+10000-01-01T00:00:00.000Z"),
            (i64::MAX, "infinity"),
        ];
        for (micros, expected) in cases {
            assert_eq!(Timestamp::from_micros(micros).iso_millis(), expected);
        }
    }

    #[test]
    fn the_epochs_differ_by_thirty_years() {
        assert_eq!(Timestamp::from_postgres(0).seconds(), 946_684_800);
        assert_eq!(Timestamp::from_seconds(946_684_800).to_postgres(), 0);
    }
}
