//! Postings: what a note of filtered or expired changes adds to the books of each endpoint. Pure.
//!
//! ```text
//! EventTally of one version, who took what ─▶ [CommonBooks] ─ BookPosting ─▶ live, pending
//! ```
//!
//! Pure. An event counts for every endpoint, and most of many do not take it: what all of them count
//! alike is one line for each table. An endpoint's numbers are its own and, while it is counted, the
//! common ones; when it comes they are taken off its own, and when it leaves they are added to them.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::sync::Arc;

use crate::flow::pump_report::EndpointsVersion;
use crate::flow::pump_report::FilteredNote;
use crate::flow::pump_report::OpenedAs;
use crate::flow::relation::TableName;
use crate::flow::settlement::EndpointIndex;
use crate::flow::watermark::EventTally;
use crate::ledger::endpoint_names::ServingEndpoints;
use crate::store::books::BookCount;

/// Up to so many endpoints have whole lines of their own, which is plain to read in `walhook.books`;
/// with more, what all of them count alike is cheaper in common.
const FEW: usize = 16;

/// One change of the books. `K` is what endpoints are called.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum BookPosting<K> {
    /// Added to what all have in common.
    All(Arc<TableName>, BookCount),
    /// Added to an endpoint's own.
    One(K, Arc<TableName>, BookCount),
    /// From here on the common lines count for this endpoint.
    Joined(K),
    /// And for this one no more.
    Left(K),
}

/// What all endpoints that are counted have in common, and who they are.
#[derive(Clone, Debug)]
pub(crate) struct CommonBooks<K> {
    /// Up to so many endpoints, each counts for itself.
    few: usize,
    pub(crate) counts: BTreeMap<Arc<TableName>, BookCount>,
    pub(crate) members: BTreeSet<K>,
}

impl<K> Default for CommonBooks<K> {
    fn default() -> Self {
        Self { few: FEW, counts: BTreeMap::new(), members: BTreeSet::new() }
    }
}

impl<K: Clone + Ord> CommonBooks<K> {
    /// Goes on from what the state holds.
    pub(crate) fn resume(
        counts: BTreeMap<Arc<TableName>, BookCount>,
        members: BTreeSet<K>,
    ) -> Self {
        Self { counts, members, ..Self::default() }
    }

    /// A member is called otherwise.
    pub(crate) fn rename(&mut self, from: &K, to: &K) {
        if self.members.remove(from) {
            self.members.insert(to.clone());
        }
    }

    /// A version begins, with these endpoints.
    pub(crate) fn begin(&mut self, present: BTreeSet<K>, mut post: impl FnMut(BookPosting<K>)) {
        for joined in present.difference(&self.members) {
            for (table, count) in &self.counts {
                post(BookPosting::One(joined.clone(), Arc::clone(table), -*count));
            }
            post(BookPosting::Joined(joined.clone()));
        }
        for left in self.members.difference(&present) {
            for (table, count) in &self.counts {
                post(BookPosting::One(left.clone(), Arc::clone(table), *count));
            }
            post(BookPosting::Left(left.clone()));
        }
        self.members = present;
    }

    /// Books notes of one version: `serving` says who was there and took what. A name that is not
    /// known is of an endpoint of which nothing is kept any more.
    pub(crate) fn post(
        &mut self,
        serving: &ServingEndpoints,
        notes: impl Iterator<Item = (FilteredNote, u64)>,
        name: impl Fn(EndpointIndex) -> Option<K>,
        mut post: impl FnMut(BookPosting<K>),
    ) {
        for (note, times) in notes {
            let Some((table, everybody)) = serving.rule(note.rule) else { continue };
            let times = i64::try_from(times).unwrap_or(i64::MAX);
            let filtered = BookCount { captured: times, filtered: times, ..BookCount::default() };
            let too_late = BookCount { filtered: -times, expired: times, ..BookCount::default() };
            let mut one = |index, count| {
                if let Some(name) = name(index) {
                    post(BookPosting::One(name, Arc::clone(table), count));
                }
            };
            match note.opened_as {
                OpenedAs::Filtered => {}
                OpenedAs::Expired => everybody.iter().for_each(|&taker| one(taker, too_late)),
                // For those who take it their own settlements count.
                OpenedAs::Raised => everybody.iter().for_each(|&taker| one(taker, -filtered)),
                OpenedAs::Chosen(taker) => one(taker, -filtered),
                OpenedAs::TooLate(taker) => one(taker, too_late),
                OpenedAs::Begun => {}
            }
            let is_for_all =
                matches!(note.opened_as, OpenedAs::Filtered | OpenedAs::Expired | OpenedAs::Raised);
            if is_for_all && self.members.len() <= self.few {
                for member in &self.members {
                    post(BookPosting::One(member.clone(), Arc::clone(table), filtered));
                }
            } else if is_for_all {
                *self.counts.entry(Arc::clone(table)).or_default() += filtered;
                post(BookPosting::All(Arc::clone(table), filtered));
            }
        }
    }
}

/// Notes by their versions, in the order of these.
pub(crate) fn by_version(
    tally: EventTally,
) -> BTreeMap<EndpointsVersion, HashMap<FilteredNote, u64>> {
    let mut versions: BTreeMap<EndpointsVersion, HashMap<FilteredNote, u64>> = BTreeMap::new();
    for (note, times) in tally {
        versions.entry(note.endpoints_version).or_default().insert(note, times);
    }
    versions
}

#[cfg(test)]
mod tests;
