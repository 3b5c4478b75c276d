//! Who owns which partition, in the state: what `store::partition_leases` does in SQL.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use crate::flow::lsn::Position;
use crate::flow::partition::PartitionNumber;
use crate::pipeline::simulation::model_state::ModelOwnership;
use crate::pipeline::simulation::model_state::ModelProgress;
use crate::pipeline::simulation::model_state::ModelState;

/// `[postgres] wal_sender_timeout`: how long a lease lasts, and how long the server keeps the slot for who is silent.
pub(super) const LEASE: Duration = Duration::from_secs(6);

impl ModelProgress {
    pub(super) fn is_leased(&self, now: Duration) -> bool {
        self.lease.is_some_and(|(_, until)| until > now)
    }

    /// Whether it was given out, and nobody has had it for so long.
    pub(super) fn is_unowned(&self, patience: Duration, now: Duration) -> bool {
        let free_for = self.lease.map_or(Duration::ZERO, |(_, until)| now.saturating_sub(until));
        !self.is_at_source && !self.is_leased(now) && free_for >= patience
    }
}

impl ModelState {
    /// The partitions' rows.
    pub(super) fn shared(&mut self) -> impl Iterator<Item = (PartitionNumber, &mut ModelProgress)> {
        let rows = self.progress.iter_mut();
        rows.map(|(number, row)| (*number, row))
            .filter(|(number, _)| *number != PartitionNumber::SOURCE)
    }

    fn is_source(&self, source: ModelOwnership) -> bool {
        let row = self.progress.get(&PartitionNumber::SOURCE);
        row.is_some_and(|row| row.epoch == source.epoch)
    }

    /// `define`: all partitions are the source's own until they are given out.
    pub(super) fn define(&mut self, source: ModelOwnership, count: NonZeroU16) {
        if !self.is_source(source) || self.partitions == Some(count) {
            return;
        }
        self.partitions = Some(count);
        for number in 1..=count.get() {
            let row = self.progress.entry(PartitionNumber::new(number)).or_default();
            row.is_at_source = true;
        }
    }

    /// `recall`, its first statement: no lease of these is prolonged any more.
    pub(super) fn call_back(&mut self, partitions: &[PartitionNumber]) {
        self.shared()
            .filter(|(number, _)| partitions.contains(number))
            .for_each(|(_, row)| row.is_at_source = true);
    }

    /// `recall`, its transaction, when nobody has a lease any more. What a partition has settled goes on to count
    /// for each of its endpoints.
    pub(super) fn called_back(
        &mut self,
        source: ModelOwnership,
        partitions: &[PartitionNumber],
        endpoints: &[Arc<str>],
    ) {
        if !self.is_source(source) {
            return;
        }
        for partition in partitions {
            let Some(row) = self.progress.get_mut(partition) else { continue };
            row.epoch += 1;
            (row.lease, row.rewind) = (None, 0);
            let settled = row.settled.take();
            let own = endpoints.iter().filter(|name| self.partition_of(name) == *partition);
            let own: Vec<Arc<str>> = own.map(Arc::clone).collect();
            for name in &own {
                let Some(front) = settled.map(Position::next) else { break };
                let known = self.endpoint_watermarks.entry(Arc::clone(name)).or_insert(front);
                *known = front.max(*known);
            }
            let settled_ahead =
                self.settled_ahead.values_mut().filter(|written| *written == partition);
            settled_ahead.for_each(|written| *written = PartitionNumber::SOURCE);
        }
    }

    /// Lets workers take the partition; from here on it is counted how long nobody does.
    pub(super) fn give_out(
        &mut self,
        source: ModelOwnership,
        partition: PartitionNumber,
        now: Duration,
    ) {
        let is_source = self.is_source(source);
        if let Some(row) = self.progress.get_mut(&partition).filter(|_| is_source) {
            (row.is_at_source, row.lease) = (false, Some((0, now)));
        }
    }

    /// Takes a partition that nobody has.
    pub(super) fn take_free(
        &mut self,
        partition: PartitionNumber,
        (run, now): (usize, Duration),
    ) -> Option<ModelOwnership> {
        let row = self.progress.get_mut(&partition)?;
        if row.is_at_source || row.is_leased(now) {
            return None;
        }
        row.lease = Some((run, now + LEASE));
        Some(self.take(partition))
    }

    /// Prolongs a lease; whether it is the run's still.
    pub(super) fn prolong(
        &mut self,
        ownership: ModelOwnership,
        (run, now): (usize, Duration),
    ) -> bool {
        let Some(row) = self.progress.get_mut(&ownership.partition) else { return false };
        let is_ours = row.lease.is_some_and(|(of, _)| of == run)
            && row.epoch == ownership.epoch
            && !row.is_at_source;
        if is_ours {
            row.lease = Some((run, now + LEASE));
        }
        is_ours
    }

    /// Gives a partition back: another worker may take it at once.
    pub(super) fn release(&mut self, ownership: ModelOwnership, now: Duration) {
        let row = self.progress.get_mut(&ownership.partition);
        if let Some(row) = row.filter(|row| row.epoch == ownership.epoch) {
            row.lease = Some((0, now));
        }
    }

    /// Asks the source to send again what it sent under `epoch`.
    pub(super) fn ask_rewind(&mut self, ownership: ModelOwnership, epoch: i64) {
        let row = self.progress.get_mut(&ownership.partition);
        if let Some(row) = row.filter(|row| row.epoch == ownership.epoch) {
            row.rewind = row.rewind.max(epoch);
        }
    }
}
