//! LSNs: positions in PostgreSQL's write-ahead log, and of a change within its transaction.

use std::fmt;
use std::str::FromStr;

/// A byte position in the write-ahead log, shown as PostgreSQL shows it: `16/B374D848`.
///
/// Ordered: a greater `Lsn` is later. There is no arithmetic on purpose; code that wants
/// `lsn + 1` is usually about to confirm something it has not delivered.
#[derive(Clone, Copy, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Lsn(u64);

impl Lsn {
    /// `0/0`: "not known". PostgreSQL never puts a record there.
    pub const ZERO: Self = Self(0);

    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The position as the 64-bit number that the protocol carries.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// Bytes of WAL from `earlier` up to here; 0 if `earlier` is not earlier.
    pub const fn bytes_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not an LSN.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
#[error("{given:?} is not a WAL position: write it as PostgreSQL does, like 16/B374D848")]
pub struct ParseLsnError {
    given: String,
}

impl FromStr for Lsn {
    type Err = ParseLsnError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        // Each half is 32 bits. Parsing into u64 and shifting would drop high bits in silence.
        let half = |digits: &str| {
            let hex = digits.bytes().all(|b| b.is_ascii_hexdigit());
            hex.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
        };
        s.split_once('/')
            .and_then(|(high, low)| Some((half(high)?, half(low)?)))
            .map(|(high, low)| Self((u64::from(high) << 32) | u64::from(low)))
            .ok_or_else(|| ParseLsnError { given: s.to_owned() })
    }
}

/// Where a change stands: its transaction's commit record, and its ordinal among the changes of
/// that transaction as PostgreSQL sent them, counted from 0 before any filter of ours.
///
/// Rows of one COPY share a record position, so the record's own LSN would not do.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Position {
    pub commit: Lsn,
    pub ordinal: u32,
}

impl Position {
    /// The first position that is greater.
    #[must_use]
    pub const fn next(self) -> Self {
        match self.ordinal.checked_add(1) {
            Some(ordinal) => Self { commit: self.commit, ordinal },
            None => Self { commit: Lsn(self.commit.0.saturating_add(1)), ordinal: 0 },
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.commit, self.ordinal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_that_is_no_position_is_refused() {
        for bad in ["", "/", "0", "1/", "/1", "+1/0", "1/+0", "123456789/0", "0/123456789", "g/0"] {
            assert!(bad.parse::<Lsn>().is_err(), "case: {bad:?}");
        }
    }

    #[test]
    fn halves_compare_as_one_number() {
        let low: Lsn = "0/FFFFFFFF".parse().unwrap();
        let high: Lsn = "1/0".parse().unwrap();
        assert!(high > low);
    }

    proptest! {
        #[test]
        fn text_and_number_agree(raw: u64) {
            let lsn = Lsn::from_raw(raw);
            prop_assert_eq!(lsn.to_string().parse::<Lsn>().unwrap(), lsn);
        }
    }
}
