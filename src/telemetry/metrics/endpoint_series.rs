//! The series of endpoints: of those of the configuration file, of as many others as
//! `[metrics] endpoints` says, and one in the place of all the rest.
//!
//! ```text
//! stages ─ EndpointMetrics ─▶ [EndpointSeries] ─ series of the shown, `(others)` ─▶ registry
//! ```
//!
//! With a series for each of 100,000 endpoints a scrape would be 8 million lines. Those that fail, and then
//! those that get most, have series of their own; which these are is looked at when the series are read, every
//! ten seconds at most. Counters never go down: one that gets series of its own counts from 0 there, what it had
//! before stays with the others; what it has counted there is not added to the others when it goes back. Nor is
//! anything added twice of one that comes again, or goes on under another name.

mod counted;
mod families;

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use prometheus::core::Collector;
use prometheus::core::Desc;
use prometheus::proto::MetricFamily;

use crate::telemetry::metrics::endpoint_series::counted::CountedTotals;
use crate::telemetry::metrics::endpoint_series::counted::GaugedTotals;
use crate::telemetry::metrics::endpoint_series::families::SeriesLine;
use crate::telemetry::metrics::handles::BalanceMetrics;
use crate::telemetry::metrics::handles::EndpointMetrics;

/// In the place of an endpoint's name: no endpoint can have it.
pub(super) const OTHERS: &str = "(others)";

/// How often it is decided anew who has series.
const CHOOSE_EVERY: Duration = Duration::from_secs(10);

/// For so many looks who has failed counts as failing.
const FAILING_LOOKS: u32 = 30;

/// An endpoint takes the place of another one that gets less than half as much, and so much less.
const BUSIER_BY: u64 = 16;

/// Where an endpoint comes from whose numbers are asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum SeriesOrigin {
    /// The configuration file: it always has series of its own.
    File,
    /// The API or a table: it has them if it is among those that are shown.
    RunTime,
}

/// The numbers of all endpoints. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct EndpointSeries {
    known: Arc<Mutex<KnownEndpoints>>,
    descriptions: Arc<Vec<Desc>>,
}

#[derive(Debug)]
struct KnownEndpoints {
    by_name: HashMap<Arc<str>, KnownEndpoint>,
    /// Tables whose books everybody has.
    tables: BTreeSet<Arc<str>>,
    /// Endpoints that are not of the file and have series of their own.
    most: usize,
    chosen: Option<Instant>,
    /// What the others have counted who are no more; there once there are too many for a series each.
    gone: Option<CountedTotals>,
    /// Of endpoints that were counted with the others and are no more: the outcomes that the books have of them,
    /// which they go on from when they come again.
    left: HashMap<Arc<str>, [u64; 4]>,
}

#[derive(Debug)]
struct KnownEndpoint {
    numbers: Arc<EndpointMetrics>,
    is_of_file: bool,
    place: SeriesPlace,
    activity: RecentActivity,
}

/// Where an endpoint is counted.
#[derive(Debug)]
enum SeriesPlace {
    /// In series of its own, less what it had counted when it got them; `others`: what stays with the others.
    Own { start: Option<Box<CountedTotals>>, others: Option<Box<CountedTotals>> },
    /// With the others, less what it has counted in series of its own.
    Others { apart: Option<Box<CountedTotals>> },
}

/// How much an endpoint gets: the last times most.
#[derive(Clone, Copy, Debug, Default)]
struct RecentActivity {
    attempts: u64,
    failed: u64,
    /// Attempts since the look before, and half of what this was then.
    busy: u64,
    /// Looks since it failed; `None` if it never has.
    failed_ago: Option<u32>,
}

/// The higher, the more an operator wants to see it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct SeriesRank {
    is_out_of_order: bool,
    is_failing: bool,
    busy: u64,
}

impl SeriesRank {
    /// Whether it is worth a change: a series that comes and goes is of no use.
    fn is_above(self, other: Self) -> bool {
        let troubles = |rank: Self| (rank.is_out_of_order, rank.is_failing);
        troubles(self) > troubles(other)
            || troubles(self) == troubles(other)
                && self.busy > other.busy.saturating_mul(2).saturating_add(BUSIER_BY)
    }
}

impl KnownEndpoint {
    /// `left`: what the books have of it that was counted before.
    fn new(is_of_file: bool, is_shown: bool, left: Option<[u64; 4]>) -> Self {
        let of_books = |outcomes| Box::new(CountedTotals { outcomes, ..CountedTotals::default() });
        let left = left.map(of_books);
        let place = match is_shown {
            true => SeriesPlace::Own { start: left, others: None },
            false => SeriesPlace::Others { apart: left },
        };
        Self { numbers: Arc::default(), is_of_file, place, activity: RecentActivity::default() }
    }

    fn is_shown(&self) -> bool {
        matches!(self.place, SeriesPlace::Own { .. })
    }

    fn counted(&self) -> CountedTotals {
        CountedTotals::of(&self.numbers)
    }

    /// What it adds to the others' counters.
    fn with_others(&self) -> CountedTotals {
        match &self.place {
            SeriesPlace::Own { others, .. } => others.as_deref().copied().unwrap_or_default(),
            SeriesPlace::Others { apart } => self.counted().without(apart.as_deref()),
        }
    }

    fn get_own(&mut self) {
        let (start, others) = (self.counted(), self.with_others());
        self.place =
            SeriesPlace::Own { start: Some(Box::new(start)), others: Some(Box::new(others)) };
    }

    /// What it had counted that is counted elsewhere, or nowhere any more.
    fn counted_before(&self) -> Option<&CountedTotals> {
        match &self.place {
            SeriesPlace::Own { start: before, .. } | SeriesPlace::Others { apart: before } => {
                before.as_deref()
            }
        }
    }

    /// What the books had of it, unless all of it was shown in a series that goes with it.
    fn left(&self) -> Option<[u64; 4]> {
        if matches!(self.place, SeriesPlace::Own { start: None, .. }) {
            return None;
        }
        let mut left = self.counted().without(self.counted_before());
        self.counted_before().into_iter().for_each(|before| left.add(before));
        Some(left.outcomes)
    }

    /// Takes the place of one whose numbers it has gone on from. Gives what of these stays with the others.
    fn go_on_from(&mut self, before: KnownEndpoint) -> CountedTotals {
        let with_others = before.with_others();
        let kept = before.counted_before().map(CountedTotals::kept_by_rename);
        let counted_before = match (self.counted_before().copied(), kept) {
            (Some(mut sum), Some(kept)) => {
                sum.add(&kept);
                Some(Box::new(sum))
            }
            (one, other) => one.or(other).map(Box::new),
        };
        let is_shown = before.is_shown();
        self.place = match before.place {
            SeriesPlace::Own { others, .. } => SeriesPlace::Own { start: counted_before, others },
            SeriesPlace::Others { .. } => SeriesPlace::Others { apart: counted_before },
        };
        match is_shown {
            true => CountedTotals::default(),
            false => with_others.without(Some(&with_others.kept_by_rename())),
        }
    }

    fn lose_own(&mut self) {
        let apart = self.counted().without(Some(&self.with_others()));
        self.place = SeriesPlace::Others { apart: Some(Box::new(apart)) };
    }

    fn look(&mut self) -> SeriesRank {
        let [delivered, failed @ ..] = self.numbers.attempts.values();
        let failed: u64 = failed.into_iter().sum();
        let (before, attempts) = (self.activity, delivered + failed);
        let failed_ago = match failed > before.failed {
            true => Some(0),
            false => before.failed_ago.map(|looks| looks.saturating_add(1)),
        };
        let busy = before.busy / 2 + attempts.saturating_sub(before.attempts);
        self.activity = RecentActivity { attempts, failed, busy, failed_ago };
        SeriesRank {
            is_out_of_order: self.numbers.breaker_open.get() != 0,
            is_failing: failed_ago.is_some_and(|looks| looks < FAILING_LOOKS),
            busy,
        }
    }
}

impl KnownEndpoints {
    /// Who is not of the file has series of its own while there are places.
    fn add(&mut self, name: &str, is_of_file: bool) -> &mut KnownEndpoint {
        let is_shown = is_of_file || self.gone.is_none() && self.shown() < self.most;
        if !is_shown {
            self.gone.get_or_insert_default();
        }
        let left = self.left.remove(name);
        self.by_name
            .entry(Arc::from(name))
            .or_insert_with(|| KnownEndpoint::new(is_of_file, is_shown, left))
    }

    /// Those with series of their own that are not of the file.
    fn shown(&self) -> usize {
        self.by_name.values().filter(|known| known.is_shown() && !known.is_of_file).count()
    }

    fn choose(&mut self, now: Instant) {
        let is_early = |chosen| now.duration_since(chosen) < CHOOSE_EVERY;
        if self.gone.is_none() || self.chosen.is_some_and(is_early) {
            return;
        }
        self.chosen = Some(now);
        let mut shown = Vec::new();
        let mut others = Vec::new();
        for (name, known) in self.by_name.iter_mut().filter(|(_, known)| !known.is_of_file) {
            let rank = known.look();
            let among = if known.is_shown() { &mut shown } else { &mut others };
            among.push((rank, Arc::clone(name)));
        }
        shown.sort_unstable_by(|a, b| b.cmp(a)); // the least last
        others.sort_unstable(); // the most last
        let mut free = self.most.saturating_sub(shown.len());
        while let Some((rank, name)) = others.pop() {
            if free > 0 {
                free -= 1;
            } else {
                match shown.pop() {
                    Some((least, leaving)) if rank.is_above(least) => {
                        self.by_name.entry(leaving).and_modify(KnownEndpoint::lose_own);
                    }
                    Some(_) | None => break,
                }
            }
            self.by_name.entry(name).and_modify(KnownEndpoint::get_own);
        }
    }

    fn lines(&self) -> Vec<SeriesLine> {
        let mut others = SeriesLine { endpoint: Arc::from(OTHERS), ..SeriesLine::default() };
        let mut lines = Vec::new();
        for (name, known) in &self.by_name {
            match &known.place {
                SeriesPlace::Own { start, others: stays } => {
                    lines.push(SeriesLine {
                        endpoint: Arc::clone(name),
                        counted: known.counted().without(start.as_deref()),
                        gauged: GaugedTotals::of(&known.numbers),
                    });
                    if let Some(stays) = stays {
                        others.counted.add(stays);
                    }
                }
                SeriesPlace::Others { .. } => {
                    others.counted.add(&known.with_others());
                    others.gauged.add(&GaugedTotals::of(&known.numbers));
                }
            }
        }
        if let Some(gone) = &self.gone {
            others.counted.add(gone);
            lines.push(others);
        }
        for line in &mut lines {
            for table in &self.tables {
                line.gauged.balances.entry(Arc::clone(table)).or_default();
            }
        }
        lines
    }
}

impl EndpointSeries {
    /// Endpoints that are not of the file have series of their own as long as they are no more than `most`.
    pub(super) fn new(most: usize) -> Self {
        let known = KnownEndpoints {
            by_name: HashMap::new(),
            tables: BTreeSet::new(),
            most,
            chosen: None,
            gone: None,
            left: HashMap::new(),
        };
        Self { known: Arc::new(Mutex::new(known)), descriptions: Arc::new(families::described()) }
    }

    /// Shows the books of a table for every endpoint from the start.
    pub(super) fn add_table(&self, table: &str) {
        self.known().tables.insert(Arc::from(table));
    }

    /// The endpoint's numbers.
    pub(super) fn endpoint(&self, name: &str, origin: SeriesOrigin) -> Arc<EndpointMetrics> {
        let is_of_file = origin == SeriesOrigin::File;
        let mut known = self.known();
        let endpoint = match known.by_name.get_mut(name) {
            Some(endpoint) => endpoint,
            None => known.add(name, is_of_file),
        };
        if is_of_file && !endpoint.is_of_file {
            endpoint.is_of_file = true;
            if !endpoint.is_shown() {
                endpoint.get_own();
            }
        }
        Arc::clone(&endpoint.numbers)
    }

    pub(super) fn balance(&self, name: &str, table: &str) -> Arc<BalanceMetrics> {
        let numbers = self.endpoint(name, SeriesOrigin::RunTime);
        let table = {
            let known = self.known();
            known.tables.get(table).cloned().unwrap_or_else(|| Arc::from(table))
        };
        numbers.balance(table)
    }

    /// The endpoint is no more. Handles to its numbers still count, and are seen by nobody.
    pub(super) fn forget(&self, name: &str) {
        let mut known = self.known();
        let Some((name, endpoint)) = known.by_name.remove_entry(name) else { return };
        if let Some(gone) = &mut known.gone {
            gone.add(&endpoint.with_others());
        }
        if let Some(left) = endpoint.left() {
            known.left.insert(name, left);
        }
    }

    /// The endpoint `before` has become `name`, whose numbers have gone on from its own.
    pub(super) fn rename(&self, before: &str, name: &str) {
        let mut known = self.known();
        let Some(endpoint) = known.by_name.remove(before) else { return };
        let Some(renamed) = known.by_name.get_mut(name) else { return };
        let stays = renamed.go_on_from(endpoint);
        if renamed.is_of_file && !renamed.is_shown() {
            renamed.get_own();
        }
        if let Some(gone) = &mut known.gone {
            gone.add(&stays);
        }
    }

    /// Calls `look` with the numbers of each endpoint.
    pub(super) fn each(&self, look: impl FnMut(&EndpointMetrics)) {
        self.known().by_name.values().map(|known| &*known.numbers).for_each(look);
    }

    fn families(&self, now: Instant) -> Vec<MetricFamily> {
        let mut known = self.known();
        known.choose(now);
        families::of(&known.lines())
    }

    fn known(&self) -> MutexGuard<'_, KnownEndpoints> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for EndpointSeries {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.families(Instant::now())
    }
}

#[cfg(test)]
mod tests;
