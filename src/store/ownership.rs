//! The right to write the state of a source, or of a partition of it.

use std::sync::Arc;

use crate::flow::lsn::Position;
use crate::flow::partition::PartitionNumber;

/// The right to write state for a partition of a slot's source, until another walhook takes it. A clone is for those who claim
/// and never flush: flushes are counted in one place.
#[derive(Clone, Debug)]
pub struct StateOwnership {
    /// Also the name of the source.
    pub(crate) slot: Arc<str>,
    pub(crate) partition: PartitionNumber,
    pub(crate) epoch: i64,
    /// Number of the last flush that is known to be committed.
    pub(crate) flushed: i64,
    /// The settled prefix as of that flush; `None` if this process has not flushed one.
    pub(crate) passed: Option<Position>,
    /// Whether the database can store every character.
    pub(crate) unicode: bool,
}

impl StateOwnership {
    /// That of one who asks about a source, and may write nothing that takes a right.
    pub(crate) fn of_nobody(slot: Arc<str>) -> Self {
        let partition = PartitionNumber::SOURCE;
        Self { slot, partition, epoch: 0, flushed: 0, passed: None, unicode: false }
    }

    /// The next flush is committed, with this end of the settled prefix.
    pub(crate) fn committed(&mut self, settled: Option<Position>) {
        self.flushed += 1;
        self.passed = settled.or(self.passed);
    }

    pub fn slot(&self) -> &Arc<str> {
        &self.slot
    }

    pub fn partition(&self) -> PartitionNumber {
        self.partition
    }

    /// Grows by one with each walhook that takes it.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }
}
