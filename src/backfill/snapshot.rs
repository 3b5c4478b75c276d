//! What a snapshot of PostgreSQL's sees, told by transaction ids.
//!
//! LSNs do not tell it: a commit is in the WAL, and may be streamed, before other sessions see it, for
//! as long as a synchronous standby does not answer.
//!
//! On a standby it is the other way round. Its snapshots do not name the transactions that run (`pg_snapshot`
//! leaves out what a standby only assumes to run), but commits become visible there as their records are
//! replayed, one after the other: so what was replayed before the snapshot is visible, and what was not
//! replayed after it is not. Only of a commit in between nothing is known.

use std::str::FromStr;

use crate::flow::lsn::Lsn;

/// A value of `pg_snapshot`: `xmin:xmax:xip_list`, in 64 bits.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct SnapshotView {
    xmin: u64,
    xmax: u64,
    /// Transactions between the two that were not over, without their epochs, in order. Unknown on a standby.
    running: Vec<u32>,
    replayed: Option<ReplayBounds>,
}

/// How far a standby had replayed the WAL right before it took a snapshot, and right after.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct ReplayBounds {
    before: Lsn,
    after: Lsn,
}

/// Whether what a committed transaction did is in the rows that a snapshot shows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ChangeVisibility {
    Seen,
    Unseen,
    /// It was replayed at the moment at which the snapshot was taken.
    Unknown,
}

/// A record takes effect before a standby's position says so: the one that begins there may be in hand. The
/// header of a page can stand in between.
const HEADER_BYTES: u64 = 40;

/// The text is not a snapshot.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
#[error("{given:?} is not a snapshot as PostgreSQL writes them, such as 10:20:10,14,15")]
pub(crate) struct ParseSnapshotError {
    given: String,
}

impl SnapshotView {
    /// As a standby took it, between two positions of its replay.
    #[must_use]
    pub(crate) fn on_standby(self, before: Lsn, after: Lsn) -> Self {
        Self { replayed: Some(ReplayBounds { before, after }), ..self }
    }

    /// Whether what the transaction did is visible; its commit's record begins at `commit`. To be asked of
    /// transactions that are known to be committed.
    ///
    /// The stream names a transaction by the lower 32 bits of its id. No two that matter at once are further
    /// apart than 2^31, since PostgreSQL itself compares them so.
    pub(crate) fn visibility(&self, xid: u32, commit: Lsn) -> ChangeVisibility {
        let is_seen = match self.replayed {
            _ if !precedes(xid, low(self.xmax)) => false,
            None => self.running.binary_search(&xid).is_err(),
            Some(ReplayBounds { before, .. }) if commit < before || self.sees_all_up_to(xid) => {
                true
            }
            Some(ReplayBounds { after, .. }) if commit.bytes_since(after) > HEADER_BYTES => false,
            Some(_) => return ChangeVisibility::Unknown,
        };
        if is_seen { ChangeVisibility::Seen } else { ChangeVisibility::Unseen }
    }

    /// Whether it is known to see it.
    pub(crate) fn sees(&self, xid: u32, commit: Lsn) -> bool {
        self.visibility(xid, commit) == ChangeVisibility::Seen
    }

    /// Whether it sees this transaction and all that began before it, if they are committed.
    pub(crate) fn sees_all_up_to(&self, xid: u32) -> bool {
        precedes(xid, low(self.xmin))
    }
}

impl FromStr for SnapshotView {
    type Err = ParseSnapshotError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let mut parts = s.splitn(3, ':');
            let xmin = parts.next()?.parse().ok()?;
            let xmax = parts.next()?.parse().ok()?;
            let list = parts.next()?;
            let xid = |text: &str| text.parse().ok().map(low);
            let mut running = match list.is_empty() {
                true => Vec::new(),
                false => list.split(',').map(xid).collect::<Option<Vec<u32>>>()?,
            };
            running.sort_unstable();
            Some(Self { xmin, xmax, running, replayed: None })
        };
        parse().ok_or_else(|| ParseSnapshotError { given: s.to_owned() })
    }
}

/// Whether transaction `a` began before `b`, as PostgreSQL compares them: modulo 2^32.
pub(super) fn precedes(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() < 0
}

/// The lower half of a 64-bit id.
fn low(xid: u64) -> u32 {
    u32::try_from(xid & u64::from(u32::MAX)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn view(text: &str) -> SnapshotView {
        text.parse().expect("a snapshot")
    }

    #[test]
    fn what_precedes_the_end_and_does_not_run_is_visible() {
        let view = view("10:20:10,14,15");
        for (xid, seen) in
            [(9, true), (10, false), (11, true), (14, false), (19, true), (20, false)]
        {
            assert_eq!(view.sees(xid, Lsn::ZERO), seen, "case: {xid}");
        }
        assert!(view.sees_all_up_to(9) && !view.sees_all_up_to(10));
    }

    #[test]
    fn on_a_standby_the_replay_tells_what_is_visible() {
        let at = Lsn::from_raw;
        let view = view("10:20:").on_standby(at(1000), at(1040));
        let cases = [
            ("over before all that run", 9, 5000, ChangeVisibility::Seen),
            ("begun after it", 20, 500, ChangeVisibility::Unseen),
            ("replayed before it", 15, 999, ChangeVisibility::Seen),
            ("replayed next", 15, 1000, ChangeVisibility::Unknown),
            ("replayed as it was taken", 15, 1016, ChangeVisibility::Unknown),
            ("in hand, behind a page's header", 15, 1080, ChangeVisibility::Unknown),
            ("not replayed yet", 15, 1088, ChangeVisibility::Unseen),
        ];
        for (case, xid, commit, expected) in cases {
            assert_eq!(view.visibility(xid, at(commit)), expected, "case: {case}");
        }
    }

    #[test]
    fn ids_come_round() {
        let epoch = 3_u64 << 32;
        let text = format!("{}:{}:{}", epoch - 2, epoch + 5, epoch - 1);
        let view = view(&text);
        let cases = [
            (u32::MAX - 2, true),
            (u32::MAX - 1, true),
            (u32::MAX, false),
            (3, true),
            (4, true),
            (5, false),
        ];
        for (xid, seen) in cases {
            assert_eq!(view.sees(xid, Lsn::ZERO), seen, "case: {xid}");
        }
    }

    #[test]
    fn what_is_no_snapshot_is_refused() {
        for text in ["", "1", "1:2", "a:2:", "1:2:x", "1:2:3,"] {
            assert!(text.parse::<SnapshotView>().is_err(), "case: {text:?}");
        }
        assert!("5:5:".parse::<SnapshotView>().is_ok());
    }

    proptest! {
        #[test]
        fn the_lower_half_tells_the_same_as_the_whole(
            xmin in 1_u64 << 33..1_u64 << 40,
            width in 0_u64..1000,
            running in prop::collection::vec(0_u64..1000, 0..20),
            back in 0_i64..1 << 30,
        ) {
            let xmax = xmin + width;
            let running: Vec<u64> =
                running.into_iter().map(|at| xmin + at).filter(|xid| *xid < xmax).collect();
            let list: Vec<String> = running.iter().map(u64::to_string).collect();
            let view = view(&format!("{xmin}:{xmax}:{}", list.join(",")));
            let xid = (xmax + 500).saturating_add_signed(-back);
            prop_assert_eq!(view.sees(low(xid), Lsn::ZERO), xid < xmax && !running.contains(&xid));
        }
    }
}
