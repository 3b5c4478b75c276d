//! Values that events were raised with, by which `dedupe` recognises a repeat.

use crate::flow::event::RuleIndex;
use crate::flow::lsn::Position;
use crate::flow::time::Timestamp;

/// A fingerprint of an event type and the values that its `dedupe` names.
///
/// 128 bits of XXH3, so that two values never share one by chance: a message would be lost.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ValueFingerprint(u128);

impl ValueFingerprint {
    /// Each part is preceded by its length, so that parts do not run into each other.
    pub fn of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        for part in parts {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self(hash.digest128())
    }

    pub const fn from_halves(high: u64, low: u64) -> Self {
        Self((high as u128) << 64 | low as u128)
    }

    /// The upper and the lower 64 bits.
    #[expect(clippy::cast_possible_truncation, reason = "it is cut in two on purpose")]
    pub const fn halves(self) -> (u64, u64) {
        ((self.0 >> 64) as u64, self.0 as u64)
    }
}

/// An event was raised with these values.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SeenValues {
    pub rule: RuleIndex,
    pub fingerprint: ValueFingerprint,
    pub position: Position,
    pub committed: Timestamp,
    /// When the oldest event was committed that the rule still remembers.
    pub oldest: Timestamp,
}
