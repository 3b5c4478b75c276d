//! Which of the rows that have got another key have to be looked for, and when none is left.
//!
//! Pure. Once all else is read, each row that moved before is looked for. A row may go on before that: then the key
//! that it had got is found empty, or with another row, by a snapshot that sees it leave. So a later move counts
//! if it leaves a key that was looked for, and the snapshot which did that sees it. Others move rows that were read
//! already, and so it ends, however many rows move all the time.

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;

use crate::backfill::snapshot::ChangeVisibility;
use crate::backfill::snapshot::SnapshotView;
use crate::flow::backfill::MovedRow;
use crate::flow::key::KeyHash;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;

/// Keys that are remembered. With more of them, all that has moved by then is looked for.
const KEYS_MAX: usize = 100_000;

/// What was looked for so far.
#[derive(Debug)]
pub(crate) struct LookedKeys {
    /// By which snapshot each key was looked for last.
    looked: HashMap<KeyHash, Arc<SnapshotView>>,
    keys_max: usize,
    /// Whatever moved before this is looked for. `None` until all else was read.
    up_to: Option<Lsn>,
    /// All up to this one is done with.
    judged: Option<Position>,
}

impl Default for LookedKeys {
    fn default() -> Self {
        Self { looked: HashMap::new(), keys_max: KEYS_MAX, up_to: None, judged: None }
    }
}

impl LookedKeys {
    /// All else has been read by snapshots that were taken before this.
    pub(crate) fn begin(&mut self, seen: Lsn) {
        self.up_to.get_or_insert(seen);
    }

    /// Where to go on.
    pub(crate) fn judged(&self) -> Option<Position> {
        self.judged
    }

    /// Those of `rows` that have to be looked for. What was streamed before `begun` is visible to everybody.
    pub(crate) fn wanted(&self, rows: &[MovedRow], begun: Lsn) -> Vec<MovedRow> {
        let mut wanted = Vec::new();
        // They are looked for by a snapshot that is yet to be taken.
        let mut keys: HashSet<KeyHash> = HashSet::new();
        for row in rows {
            let commit = row.position.commit;
            let is_seen = |view: &Arc<SnapshotView>| commit < begun || view.sees(row.xid, commit);
            if self.looked.get(&fingerprint(&row.key)).is_some_and(is_seen) {
                continue;
            }
            let old = fingerprint(&row.old_key);
            let may_be_seen = |view: &Arc<SnapshotView>| {
                commit < begun || view.visibility(row.xid, commit) != ChangeVisibility::Unseen
            };
            if self.up_to.is_some_and(|up_to| commit <= up_to)
                || keys.contains(&old)
                || self.looked.get(&old).is_some_and(may_be_seen)
            {
                keys.insert(fingerprint(&row.key));
                wanted.push(row.clone());
            }
        }
        wanted
    }

    /// None of the rows up to this one is wanted.
    pub(crate) fn pass(&mut self, last: Position) {
        self.judged = Some(last);
    }

    /// Those of `wanted` up to `last` were looked for by a snapshot, which was taken before `lsn`.
    pub(crate) fn note(
        &mut self,
        wanted: &[MovedRow],
        last: Position,
        (snapshot, lsn): (SnapshotView, Lsn),
    ) {
        let view = Arc::new(snapshot);
        for row in wanted.iter().take_while(|row| row.position <= last) {
            self.looked.insert(fingerprint(&row.key), Arc::clone(&view));
        }
        if self.looked.len() > self.keys_max {
            self.looked.clear();
            self.up_to = Some(lsn);
        }
        self.judged = Some(last);
    }
}

fn fingerprint(key: &[String]) -> KeyHash {
    KeyHash::of(key.iter().map(|text| Some(text.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::backfill::BackfillId;

    /// Moved by the transaction of this number, whose commit lies at eight times that.
    fn moved(xid: u32, old: &str, key: &str) -> MovedRow {
        MovedRow {
            backfill: BackfillId(1),
            position: Position { commit: Lsn::from_raw(u64::from(xid) * 8), ordinal: 0 },
            xid,
            key: vec![key.to_owned()],
            old_key: vec![old.to_owned()],
        }
    }

    /// Sees all transactions before this one.
    fn view(xid: u32) -> (SnapshotView, Lsn) {
        let view = format!("{xid}:{xid}:").parse().expect("a snapshot");
        (view, Lsn::from_raw(u64::from(xid) * 8))
    }

    fn xids(looked: &LookedKeys, rows: &[MovedRow]) -> Vec<u32> {
        looked.wanted(rows, Lsn::ZERO).iter().map(|row| row.xid).collect()
    }

    #[test]
    fn what_moved_before_the_end_is_wanted_and_later_what_leaves_a_key_that_was_looked_for() {
        let mut looked = LookedKeys::default();
        looked.begin(Lsn::from_raw(100 * 8));
        let first = [moved(50, "9", "1"), moved(60, "8", "2")];
        assert_eq!(xids(&looked, &first), [50, 60]);
        looked.note(&first, first[1].position, view(110));
        let later = [
            moved(105, "1", "3"), // seen to leave
            moved(106, "3", "4"), // and to go on
            moved(107, "7", "5"), // was read where it was
            moved(109, "6", "2"), // was found there
            moved(120, "2", "1"), // was found before it left
        ];
        assert_eq!(xids(&looked, &later), [105, 106]);
        looked.note(&later[..2], later[4].position, view(130));
        assert_eq!(looked.judged(), Some(later[4].position));
        assert_eq!(xids(&looked, &[moved(125, "4", "1"), moved(126, "2", "8")]), [125]);
        assert_eq!(xids(&looked, &[moved(131, "4", "1")]), Vec::<u32>::new());
    }

    #[test]
    fn with_too_many_keys_all_that_has_moved_is_wanted_again() {
        let mut looked = LookedKeys { keys_max: 1, ..LookedKeys::default() };
        looked.begin(Lsn::from_raw(100 * 8));
        let first = [moved(50, "9", "1"), moved(60, "8", "2")];
        looked.note(&first, first[1].position, view(110));
        assert_eq!(xids(&looked, &[moved(105, "7", "5"), moved(111, "7", "6")]), [105]);
    }
}
