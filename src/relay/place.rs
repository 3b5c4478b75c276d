//! Where a message stands among those of its partition.

use std::fmt;
use std::str::FromStr;

use crate::flow::event::RuleIndex;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;

/// The greatest number of a rule that a place can tell from what stands behind all of them.
const RULE_MAX: u16 = u16::MAX - 1;

/// The position of a change, and the number of the rule that raised the event. The same event always has the same
/// place, whichever tail reads it: one that begins anew may leave out others of the change, which have expired
/// meanwhile or are settled.
///
/// Written as hex digits whose order is that of the places: `0000000016b374d8000000010000`.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct MessagePlace {
    position: Position,
    rule: u16,
}

impl MessagePlace {
    /// Of the event that a rule raises from the change.
    pub(crate) fn of(position: Position, rule: RuleIndex) -> Self {
        Self { position, rule: u16::try_from(rule.0).unwrap_or(RULE_MAX).min(RULE_MAX) }
    }

    /// The number of the rule, as [`Self::of`] takes it.
    pub(crate) const fn rule(self) -> u16 {
        self.rule
    }

    /// Behind all events of a change.
    pub(crate) const fn after(position: Position) -> Self {
        Self { position, rule: u16::MAX }
    }
}

impl fmt::Display for MessagePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Position { commit, ordinal } = self.position;
        write!(f, "{:016x}{ordinal:08x}{:04x}", commit.raw(), self.rule)
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
            let rule = u16::from_str_radix(part(24, 28)?, 16).ok()?;
            Some(Self { position: Position { commit, ordinal }, rule })
        };
        parse().ok_or_else(|| ParsePlaceError { given: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn place() -> impl Strategy<Value = MessagePlace> {
        (any::<u64>(), any::<u32>(), any::<u16>()).prop_map(|(commit, ordinal, rule)| {
            MessagePlace { position: Position { commit: Lsn::from_raw(commit), ordinal }, rule }
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
    fn events_of_a_change_stand_in_the_order_of_their_rules_and_before_its_end() {
        let at = |commit| Position { commit: Lsn::from_raw(commit), ordinal: 0 };
        let [first, second] = [0, 1].map(|rule| MessagePlace::of(at(7), RuleIndex(rule)));
        assert!(first < second && second < MessagePlace::after(at(7)));
        let last = MessagePlace::of(at(7), RuleIndex(usize::MAX));
        assert!(second < last && last < MessagePlace::after(at(7)));
        assert!(MessagePlace::after(at(7)) < MessagePlace::of(at(8), RuleIndex(0)));
    }
}
