//! Where a message stands among those of its partition.

use std::fmt;
use std::str::FromStr;

use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;

/// The position of a change, and which of the change's events for the partition it is. The same change always
/// has the same places, whoever reads it.
///
/// Written as hex digits whose order is that of the places: `0000000016b374d8000000010000`.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct MessagePlace {
    position: Position,
    nth: u16,
}

impl MessagePlace {
    /// Of the first event of a change.
    pub(crate) const fn first_of(position: Position) -> Self {
        Self { position, nth: 0 }
    }

    /// Behind all events of a change.
    pub(crate) const fn after(position: Position) -> Self {
        Self { position, nth: u16::MAX }
    }

    /// Of the next event of the change at `position`, where this one was the last before.
    pub(crate) fn following(self, position: Position) -> Self {
        match self.position == position {
            true => Self { position, nth: self.nth.saturating_add(1) },
            false => Self::first_of(position),
        }
    }
}

impl fmt::Display for MessagePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Position { commit, ordinal } = self.position;
        write!(f, "{:016x}{ordinal:08x}{:04x}", commit.raw(), self.nth)
    }
}

/// The text is no place.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
#[error("{given:?} is not the place of a message")]
pub(crate) struct ParsePlaceError {
    given: String,
}

impl FromStr for MessagePlace {
    type Err = ParsePlaceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let digits = text.len() == 28 && text.bytes().all(|b| b.is_ascii_hexdigit());
            let part = |from, to| text.get(from..to).filter(|_| digits);
            let commit = Lsn::from_raw(u64::from_str_radix(part(0, 16)?, 16).ok()?);
            let ordinal = u32::from_str_radix(part(16, 24)?, 16).ok()?;
            let nth = u16::from_str_radix(part(24, 28)?, 16).ok()?;
            Some(Self { position: Position { commit, ordinal }, nth })
        };
        parse().ok_or_else(|| ParsePlaceError { given: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn place() -> impl Strategy<Value = MessagePlace> {
        (any::<u64>(), any::<u32>(), any::<u16>()).prop_map(|(commit, ordinal, nth)| MessagePlace {
            position: Position { commit: Lsn::from_raw(commit), ordinal },
            nth,
        })
    }

    proptest! {
        #[test]
        fn a_place_reads_back_and_its_text_sorts_as_it_does(one in place(), other in place()) {
            prop_assert_eq!(one.to_string().parse::<MessagePlace>().unwrap(), one);
            prop_assert_eq!(one.cmp(&other), one.to_string().cmp(&other.to_string()));
        }

        #[test]
        fn any_text_is_a_place_or_refused(text in "\\PC{0,40}") {
            let _read: Result<MessagePlace, _> = text.parse();
        }
    }

    #[test]
    fn events_of_a_change_follow_one_another_and_stand_before_its_end() {
        let at = |commit| Position { commit: Lsn::from_raw(commit), ordinal: 0 };
        let first = MessagePlace::default().following(at(7));
        let second = first.following(at(7));
        assert_eq!(first, MessagePlace::first_of(at(7)));
        assert!(first < second && second < MessagePlace::after(at(7)));
        assert!(MessagePlace::after(at(7)) < second.following(at(8)));
    }
}
