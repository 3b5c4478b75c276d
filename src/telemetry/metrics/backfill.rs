//! What backfills have read and sent, and how far they are.

use prometheus::GaugeVec;
use prometheus::IntCounterVec;

use crate::flow::relation::TableName;

/// The series of all backfills, by table. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct BackfillMetrics {
    rows: IntCounterVec,
    progress: GaugeVec,
    rereads: IntCounterVec,
}

/// Why a chunk is read again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum RereadReason {
    /// Its snapshot does not see a change of which too little is known.
    Invisible,
    /// The standby has cancelled it: a conflict with recovery.
    Conflict,
}

impl BackfillMetrics {
    pub(super) fn new(rows: IntCounterVec, progress: GaugeVec, rereads: IntCounterVec) -> Self {
        Self { rows, progress, rereads }
    }

    /// A chunk is read again.
    pub(crate) fn read_again(&self, table: &TableName, reason: RereadReason) {
        let reason = match reason {
            RereadReason::Invisible => "invisible",
            RereadReason::Conflict => "conflict",
        };
        self.rereads.with_label_values(&[table.to_string().as_str(), reason]).inc();
    }

    /// A chunk of so many rows is settled or parked; of these so many went out.
    pub(crate) fn rows(&self, table: &TableName, read: u64, sent: u64) {
        let table = table.to_string();
        self.rows.with_label_values(&[table.as_str(), "read"]).inc_by(read);
        self.rows.with_label_values(&[table.as_str(), "sent"]).inc_by(sent);
    }

    /// How much of the table's latest backfill is done, from 0 to 1.
    pub(crate) fn progress(&self, table: &TableName, ratio: f64) {
        self.progress.with_label_values(&[table.to_string()]).set(ratio);
    }
}
