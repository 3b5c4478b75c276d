//! What the pump does about backfills: which changes it remembers, and when a chunk's rows may go.
//!
//! ```text
//! stream ─ change ─▶ [window] remember; merge into the chunk, if its snapshot does not see it
//! reader ─ chunk ──▶ [window] merge what was remembered ─ held until the stream has reached its LSN ─▶ rows
//! ```
//!
//! Pure. A chunk is read while the stream goes on: a change that was streamed before the chunk arrived, and
//! that its snapshot does not see, was remembered, with its values, and is merged like those that follow. What
//! is remembered is forgotten when a snapshot sees it, and bounded: beyond the bound only the transaction is
//! known, and a chunk whose snapshot does not see it is read again.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::sync::Arc;

use crate::backfill::row_buffer::AmbiguousRow;
use crate::backfill::row_buffer::RowBuffer;
use crate::backfill::snapshot::ChangeVisibility;
use crate::backfill::snapshot::SnapshotView;
use crate::backfill::snapshot::precedes;
use crate::flow::backfill::BackfillId;
use crate::flow::backfill::BackfillStep;
use crate::flow::backfill::BackfillTarget;
use crate::flow::change::ChangeOp;
use crate::flow::change::CommittedChange;
use crate::flow::change::OldRow;
use crate::flow::change::RowTuple;
use crate::flow::lsn::Lsn;
use crate::flow::relation::Relation;
use crate::flow::relation::TableName;
use crate::flow::time::Timestamp;

/// Bytes of changes that are remembered for one backfill.
const REMEMBERED_BYTES: usize = 4 * 1024 * 1024;

/// What a remembered change costs beside its values.
const CHANGE_BYTES: usize = 256;

/// Transactions whose changes were too much to be remembered; of more only the latest is known.
const LOST_MAX: usize = 10_000;

/// A part of a table, as one snapshot saw it.
#[derive(Debug)]
pub(crate) struct ReadChunk {
    pub step: BackfillStep,
    pub target: Arc<BackfillTarget>,
    pub snapshot: SnapshotView,
    /// Everything that the snapshot sees lies before this.
    pub lsn: Lsn,
    pub read_at: Timestamp,
    pub rows: RowBuffer,
}

impl ReadChunk {
    /// Takes in a change of a transaction, unless its snapshot has seen it.
    fn merge(
        &mut self,
        (xid, commit): (u32, Lsn),
        relation: &Arc<Relation>,
        op: &ChangeOp,
    ) -> Result<(), AmbiguousRow> {
        match self.snapshot.visibility(xid, commit) {
            ChangeVisibility::Seen => Ok(()),
            ChangeVisibility::Unseen => self.rows.merge(relation, op),
            ChangeVisibility::Unknown => Err(AmbiguousRow),
        }
    }
}

/// The backfills that are under way.
#[derive(Debug, Default)]
pub(crate) struct BackfillWindow {
    tracked: BTreeMap<BackfillId, TrackedBackfill>,
    /// The one whose rows went out last: those behind it have their turn first.
    served: Option<BackfillId>,
}

#[derive(Debug)]
struct TrackedBackfill {
    table: TableName,
    remembered: ChangeMemory,
    /// Its rows wait for the stream.
    chunk: Option<ReadChunk>,
}

/// Changes of a table that a snapshot may not see, in the order of the stream.
#[derive(Debug)]
struct ChangeMemory {
    changes: VecDeque<RememberedChange>,
    bytes: usize,
    bytes_max: usize,
    /// Transactions of which changes were forgotten, with their commits.
    lost: BTreeMap<u32, Lsn>,
    /// All up to this one may have lost some.
    lost_up_to: Option<u32>,
}

#[derive(Debug)]
struct RememberedChange {
    xid: u32,
    commit: Lsn,
    relation: Arc<Relation>,
    op: ChangeOp,
    bytes: usize,
}

impl BackfillWindow {
    /// Whether there is nothing to be done about changes.
    pub(crate) fn is_empty(&self) -> bool {
        self.tracked.is_empty()
    }

    /// From here on changes of the table are remembered.
    pub(crate) fn track(&mut self, id: BackfillId, table: TableName) {
        let remembered = ChangeMemory::new(REMEMBERED_BYTES);
        self.tracked.insert(id, TrackedBackfill { table, remembered, chunk: None });
    }

    /// Nothing more is read for this backfill. Rows that wait are dropped.
    pub(crate) fn forget(&mut self, id: BackfillId) {
        self.tracked.remove(&id);
    }

    /// Takes in a change of the stream. Returns the backfills whose chunk has to be read again.
    pub(crate) fn observe(&mut self, change: &CommittedChange) -> Vec<BackfillId> {
        let mut again = Vec::new();
        for (id, backfill) in &mut self.tracked {
            if backfill.table != change.relation.table {
                continue;
            }
            if let Some(chunk) = &mut backfill.chunk
                && chunk.merge((change.xid, change.position.commit), &change.relation, &change.op)
                    == Err(AmbiguousRow)
            {
                backfill.chunk = None;
                again.push(*id);
            }
            backfill.remembered.add(change);
        }
        again
    }

    /// Takes in a chunk. Its rows wait here for the stream.
    ///
    /// # Errors
    /// It has to be read again: of a change that it does not see too little is known.
    pub(crate) fn accept(&mut self, mut chunk: ReadChunk) -> Result<(), AmbiguousRow> {
        let Some(backfill) = self.tracked.get_mut(&chunk.step.id) else {
            return Err(AmbiguousRow);
        };
        let remembered = &mut backfill.remembered;
        remembered.forget_seen(&chunk.snapshot);
        if remembered.has_lost(&chunk.snapshot) {
            return Err(AmbiguousRow);
        }
        for RememberedChange { xid, commit, relation, op, .. } in &remembered.changes {
            chunk.merge((*xid, *commit), relation, op)?;
        }
        backfill.chunk = Some(chunk);
        Ok(())
    }

    /// The chunks whose rows may go out where the stream has nothing more before `reached`, in turn.
    pub(crate) fn due(&self, reached: Lsn) -> impl Iterator<Item = &ReadChunk> {
        let behind = |id: BackfillId| self.served.is_none_or(|served| id > served);
        let first = self.tracked.iter().filter(move |(id, _)| behind(**id));
        let then = self.tracked.iter().filter(move |(id, _)| !behind(**id));
        let chunks = first.chain(then).filter_map(|(_, backfill)| backfill.chunk.as_ref());
        chunks.filter(move |chunk| chunk.lsn <= reached)
    }

    /// The chunk that waits, of which some rows are to go out.
    pub(crate) fn take(&mut self, id: BackfillId) -> Option<ReadChunk> {
        self.served = Some(id);
        self.tracked.get_mut(&id)?.chunk.take()
    }

    /// The rest of a chunk waits further, and takes up what streams by meanwhile.
    pub(crate) fn put_back(&mut self, chunk: ReadChunk) {
        if let Some(backfill) = self.tracked.get_mut(&chunk.step.id) {
            backfill.chunk = Some(chunk);
        }
    }
}

impl ChangeMemory {
    fn new(bytes_max: usize) -> Self {
        Self {
            changes: VecDeque::new(),
            bytes: 0,
            bytes_max,
            lost: BTreeMap::new(),
            lost_up_to: None,
        }
    }

    fn add(&mut self, change: &CommittedChange) {
        let bytes = change.op.bytes() + CHANGE_BYTES;
        if bytes > self.bytes_max {
            return self.lose(change.xid, change.position.commit);
        }
        // What is read from the stream lies in buffers that are larger, and that others wait for.
        let op = copied(&change.op);
        let relation = Arc::clone(&change.relation);
        let (xid, commit) = (change.xid, change.position.commit);
        self.changes.push_back(RememberedChange { xid, commit, relation, op, bytes });
        self.bytes += bytes;
        while self.bytes > self.bytes_max
            && let Some(oldest) = self.changes.pop_front()
        {
            self.bytes -= oldest.bytes;
            self.lose(oldest.xid, oldest.commit);
        }
    }

    fn lose(&mut self, xid: u32, commit: Lsn) {
        self.lost.insert(xid, commit);
        if self.lost.len() > LOST_MAX {
            let latest = |a: u32, b: u32| if precedes(a, b) { b } else { a };
            let all = std::mem::take(&mut self.lost);
            self.lost_up_to = all.into_keys().chain(self.lost_up_to).reduce(latest);
        }
    }

    fn forget_seen(&mut self, snapshot: &SnapshotView) {
        self.changes.retain(|change| !snapshot.sees(change.xid, change.commit));
        self.bytes = self.changes.iter().map(|change| change.bytes).sum();
        self.lost.retain(|xid, commit| !snapshot.sees(*xid, *commit));
        self.lost_up_to = self.lost_up_to.filter(|xid| !snapshot.sees_all_up_to(*xid));
    }

    fn has_lost(&self, snapshot: &SnapshotView) -> bool {
        !self.lost.iter().all(|(xid, commit)| snapshot.sees(*xid, *commit))
            || self.lost_up_to.is_some()
    }
}

fn copied(op: &ChangeOp) -> ChangeOp {
    let row = |row: &RowTuple| RowTuple::of_values((0..row.len()).map(|column| row.value(column)));
    let old_row = |old: &OldRow| match old {
        OldRow::Key(tuple) => OldRow::Key(row(tuple)),
        OldRow::Full(tuple) => OldRow::Full(row(tuple)),
    };
    match op {
        ChangeOp::Insert { new } => ChangeOp::Insert { new: row(new) },
        ChangeOp::Update { old, new } => {
            ChangeOp::Update { old: old.as_ref().map(old_row), new: row(new) }
        }
        ChangeOp::Delete { old } => ChangeOp::Delete { old: old_row(old) },
        ChangeOp::Read { new, read } => ChangeOp::Read { new: row(new), read: read.clone() },
        ChangeOp::Truncate => ChangeOp::Truncate,
        ChangeOp::Schema => ChangeOp::Schema,
    }
}

#[cfg(test)]
mod tests;
