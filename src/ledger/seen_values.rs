//! Values that events were raised with, until the settled prefix has passed them.
//!
//! Pure. The pump tells of them before the change is through, so whatever a flush settles is here.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;

use crate::flow::lsn::Position;
use crate::flow::seen::SeenValues;
use crate::flow::time::Timestamp;
use crate::store::seen_values::SeenValue;

/// Beyond so many the oldest is not written down: behind an event that hangs, more were raised than
/// a rule remembers anyway.
const WAITING_MAX: usize = 200_000;

/// How far the tables are behind in forgetting, in commit time: microseconds.
const FORGET_EVERY: i64 = 5_000_000;

/// The values of `dedupe` that are not stored yet.
#[derive(Debug, Default)]
pub(crate) struct RaisedValues {
    waiting: VecDeque<SeenValues>,
    /// By rule: values before this are forgotten.
    forgotten: HashMap<usize, Timestamp>,
}

/// For one flush.
#[derive(Debug, Default)]
pub(crate) struct PassedValues {
    pub(crate) values: Vec<SeenValue>,
    pub(crate) forget: Vec<(Arc<str>, Timestamp)>,
}

impl RaisedValues {
    pub(crate) fn note(&mut self, seen: SeenValues) {
        if self.waiting.len() >= WAITING_MAX {
            self.waiting.pop_front();
        }
        self.waiting.push_back(seen);
    }

    /// What a flush that settles `settled` has to write; `types` are the rules' event types.
    pub(crate) fn pass(&mut self, settled: Option<Position>, types: &[Arc<str>]) -> PassedValues {
        let mut passed = PassedValues::default();
        let (mut newest, mut oldest) = (HashMap::new(), BTreeMap::new());
        let is_passed =
            |seen: &mut SeenValues| settled.is_some_and(|settled| seen.position <= settled);
        while let Some(seen) = self.waiting.pop_front_if(is_passed) {
            newest.insert(seen.fingerprint, seen);
            oldest.insert(seen.rule.0, seen.oldest);
        }
        for seen in newest.into_values() {
            let Some(event_type) = types.get(seen.rule.0) else { continue };
            passed.values.push(SeenValue {
                event_type: Arc::clone(event_type),
                fingerprint: seen.fingerprint,
                position: seen.position,
                committed: seen.committed,
            });
        }
        passed.values.sort_unstable_by_key(|value| value.position);
        for (rule, oldest) in oldest {
            let before = self.forgotten.entry(rule).or_insert(oldest);
            if oldest.micros().saturating_sub(before.micros()) < FORGET_EVERY {
                continue;
            }
            *before = oldest;
            passed.forget.extend(types.get(rule).map(|name| (Arc::clone(name), oldest)));
        }
        passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::event::RuleIndex;
    use crate::flow::lsn::Lsn;
    use crate::flow::seen::ValueFingerprint;

    fn at(number: u64) -> Position {
        Position { commit: Lsn::from_raw(number), ordinal: 0 }
    }

    fn seen(value: u64, number: u64, oldest: i64) -> SeenValues {
        let fingerprint = ValueFingerprint::from_halves(0, value);
        let committed = Timestamp::from_seconds(i64::try_from(number).unwrap());
        let oldest = Timestamp::from_seconds(oldest);
        SeenValues { rule: RuleIndex(0), fingerprint, position: at(number), committed, oldest }
    }

    fn shown(passed: &PassedValues) -> Vec<(u64, u64)> {
        let one = |value: &SeenValue| (value.fingerprint.halves().1, value.position.commit.raw());
        passed.values.iter().map(one).collect()
    }

    #[test]
    fn only_what_is_settled_is_written_and_of_a_value_the_newest() {
        let types = [Arc::from("message")];
        let mut sightings = RaisedValues::default();
        for (value, number) in [(1, 1), (2, 2), (1, 3), (3, 4)] {
            sightings.note(seen(value, number, 0));
        }
        assert_eq!(shown(&sightings.pass(None, &types)), []);
        assert_eq!(shown(&sightings.pass(Some(at(3)), &types)), [(2, 2), (1, 3)]);
        assert_eq!(shown(&sightings.pass(Some(at(3)), &types)), []);
        assert_eq!(shown(&sightings.pass(Some(at(9)), &types)), [(3, 4)]);
    }

    #[test]
    fn tables_forget_now_and_then_what_the_rule_has_forgotten() {
        let types = [Arc::from("message")];
        let mut sightings = RaisedValues::default();
        let mut forgets = Vec::new();
        for (number, oldest) in [(1, 0), (2, 4), (3, 5), (4, 9), (5, 20)] {
            sightings.note(seen(number, number, oldest));
            let passed = sightings.pass(Some(at(number)), &types);
            forgets.extend(passed.forget.iter().map(|(_, time)| time.seconds()));
        }
        assert_eq!(forgets, [5, 20]);
    }
}
