//! How many requests all lanes have in flight together, and how long these take.
//!
//! While the thread that makes them has time to spare, every endpoint gets what it bears. Once it is busy
//! all the time, more requests do not make anything quicker: they wait for one another, each with a
//! connection and its buffers. So then the lanes share a number of them equally, which is cut again and
//! again while there is no time, and grows while there is some.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;

/// So many are never too many: what a single endpoint may have by default eight times over.
const SHARED_MIN: usize = 1024;

/// Far beyond what a process has file descriptors for.
const SHARED_MAX: usize = 1 << 20;

/// The mean latency is that of about so many answers.
const LATENCY_OF: u64 = 64;

/// How often the number is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A thread that is busy for more than this has no time to spare: the rest goes into waiting for sockets.
const BUSY_PERCENT: u128 = 75;

/// What all lanes of a thread have in flight. Clones share it.
#[derive(Clone, Debug)]
pub struct InFlightTotal(Arc<SharedRequests>);

#[derive(Debug)]
struct SharedRequests {
    in_flight: AtomicUsize,
    /// Lanes that have requests in flight.
    lanes: AtomicUsize,
    /// How many there may be before lanes have to share them.
    shared: AtomicUsize,
    /// The thread had no time to spare when it was looked at last.
    is_busy: AtomicBool,
    born: Instant,
    /// When the number was looked at last, and how long the thread had been busy until then, both in
    /// microseconds.
    looked: AtomicU64,
    busy: AtomicU64,
    /// How long the thread has been busy in all this time since `born`.
    busy_in: fn(Duration) -> Duration,
    /// How long endpoints take to answer, in microseconds: the mean of all lanes, the last answers most.
    latency: AtomicU64,
}

impl Default for InFlightTotal {
    fn default() -> Self {
        Self::timed_by(|_| Handle::current().metrics().worker_total_busy_duration(0))
    }
}

impl InFlightTotal {
    /// With another measure of how long the thread has been busy in all the time that it is given: the runtime's
    /// is that of the real clock, also where the others stand still.
    pub(crate) fn timed_by(busy_in: fn(Duration) -> Duration) -> Self {
        Self(Arc::new(SharedRequests {
            in_flight: AtomicUsize::new(0),
            lanes: AtomicUsize::new(0),
            shared: AtomicUsize::new(SHARED_MIN),
            is_busy: AtomicBool::new(false),
            born: Instant::now(),
            looked: AtomicU64::new(0),
            busy: AtomicU64::new(0),
            busy_in,
            latency: AtomicU64::new(0),
        }))
    }

    /// A lane's part of it, which has none in flight yet.
    pub(super) fn part(&self) -> InFlightPart {
        InFlightPart { total: self.clone(), own: 0 }
    }

    /// Whether the thread has no time to spare: what lanes do not get done is not for want of events. A thread with
    /// nothing to do does not look, either.
    pub(super) fn is_busy(&self) -> bool {
        let all = &self.0;
        let looked = Duration::from_micros(all.looked.load(Ordering::Relaxed));
        let is_recent = all.born.elapsed().saturating_sub(looked) < LOOK_EVERY * 2;
        is_recent && all.is_busy.load(Ordering::Relaxed)
    }

    /// An endpoint has answered, within this time; for tasks of that thread.
    pub(super) fn note_answer(&self, took: Duration) {
        let (before, took) = (self.0.latency.load(Ordering::Relaxed), micros(took));
        let mean = before - before / LATENCY_OF + took / LATENCY_OF;
        self.0.latency.store(mean, Ordering::Relaxed);
    }

    /// How long endpoints take to answer just now, all of them together.
    pub(super) fn latency(&self) -> Duration {
        Duration::from_micros(self.0.latency.load(Ordering::Relaxed))
    }

    /// Looks how busy the thread has been, if that is due; for tasks of that thread.
    fn look(&self) {
        let all = &self.0;
        let alive = all.born.elapsed();
        let (now, looked) = (micros(alive), all.looked.load(Ordering::Relaxed));
        if now.saturating_sub(looked) < micros(LOOK_EVERY) {
            return;
        }
        all.looked.store(now, Ordering::Relaxed);
        let busy = micros((all.busy_in)(alive));
        let busy_before = all.busy.swap(busy, Ordering::Relaxed);
        let percent = u128::from(busy.saturating_sub(busy_before)) * 100 / u128::from(now - looked);
        let (shared, in_flight) =
            (all.shared.load(Ordering::Relaxed), all.in_flight.load(Ordering::Relaxed));
        let is_busy = percent > BUSY_PERCENT;
        all.is_busy.store(is_busy, Ordering::Relaxed);
        all.shared.store(judged(shared, in_flight, is_busy), Ordering::Relaxed);
    }
}

/// How many requests lanes share from here on.
fn judged(shared: usize, in_flight: usize, is_busy: bool) -> usize {
    let judged = match is_busy {
        true => shared - shared / 8,
        // What is not used says nothing of what could be.
        false if in_flight < shared / 8 * 5 => shared,
        false => shared + shared / 8,
    };
    judged.clamp(SHARED_MIN, SHARED_MAX)
}

/// What one lane has in flight; given back when it is dropped.
#[derive(Debug)]
pub(super) struct InFlightPart {
    total: InFlightTotal,
    own: usize,
}

impl InFlightPart {
    /// The lane has so many in flight. Returns how many it may have.
    pub(super) fn note(&mut self, own: usize) -> usize {
        self.set(own);
        self.total.look();
        let all = &self.total.0;
        let shared = all.shared.load(Ordering::Relaxed);
        let equal = (shared / all.lanes.load(Ordering::Relaxed).max(1)).max(1);
        let free = shared.saturating_sub(all.in_flight.load(Ordering::Relaxed));
        // Of the last quarter nobody takes more than its part: who comes next would find nothing. Nor
        // does anybody while there is no time: a burst for one of many endpoints would leave it with
        // connections that it does not need again.
        if free <= shared / 4 || all.is_busy.load(Ordering::Relaxed) {
            equal
        } else {
            equal.max(own + free / 8)
        }
    }

    /// The lanes' tasks alone write the numbers, and all of them are on one thread.
    fn set(&mut self, own: usize) {
        let all = &self.total.0;
        if self.own == 0 && own > 0 {
            all.lanes.fetch_add(1, Ordering::Relaxed);
        } else if self.own > 0 && own == 0 {
            all.lanes.fetch_sub(1, Ordering::Relaxed);
        }
        all.in_flight.fetch_add(own, Ordering::Relaxed);
        all.in_flight.fetch_sub(self.own, Ordering::Relaxed);
        self.own = own;
    }
}

impl Drop for InFlightPart {
    fn drop(&mut self) {
        self.set(0);
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lanes_share_shrinks_while_there_is_no_time_and_grows_while_it_is_used() {
        let cases = [
            ("never less", SHARED_MIN, 5000, true, SHARED_MIN),
            ("no time", 8000, 8000, true, 7000),
            ("time to spare", 8000, 8000, false, 9000),
            ("not used", 8000, 100, false, 8000),
            ("never more", SHARED_MAX, SHARED_MAX, false, SHARED_MAX),
        ];
        for (case, shared, in_flight, is_busy, expected) in cases {
            assert_eq!(judged(shared, in_flight, is_busy), expected, "{case}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn lanes_have_what_is_free_and_then_an_equal_part_each() {
        let total = InFlightTotal::default();
        let mut first = total.part();
        assert_eq!(first.note(0), SHARED_MIN);
        assert_eq!(first.note(1000), SHARED_MIN, "one that is alone has all of it");
        let mut others: Vec<_> = (0..4).map(|_| total.part()).collect();
        assert!(others.iter_mut().all(|other| other.note(6) > 6));
        assert_eq!(first.note(1000), SHARED_MIN / 5, "no more for one that has more than its part");
        assert_eq!(others[0].note(6), SHARED_MIN / 5);
        drop(first);
        assert_eq!(others[0].note(6), SHARED_MIN / 4);
    }

    #[tokio::test(start_paused = true)]
    async fn while_there_is_no_time_nobody_takes_more_than_its_part() {
        let total = InFlightTotal::default();
        let mut lanes: Vec<_> = (0..256).map(|_| total.part()).collect();
        assert!(lanes.iter_mut().all(|lane| lane.note(1) > SHARED_MIN / 256));
        total.0.is_busy.store(true, Ordering::Relaxed);
        assert!(lanes.iter_mut().all(|lane| lane.note(1) == SHARED_MIN / 256));
    }

    #[tokio::test(start_paused = true)]
    async fn however_many_lanes_there_are_each_may_have_one() {
        let total = InFlightTotal::default();
        let mut lanes: Vec<_> = (0..3 * SHARED_MIN).map(|_| total.part()).collect();
        assert!(lanes.iter_mut().all(|lane| lane.note(1) >= 1));
        assert_eq!(lanes[0].note(1), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_thread_that_has_not_looked_for_a_while_has_time() {
        let total = InFlightTotal::default();
        total.0.is_busy.store(true, Ordering::Relaxed);
        assert!(total.is_busy());
        tokio::time::advance(LOOK_EVERY * 2).await;
        assert!(!total.is_busy(), "nobody had anything to do");
    }

    #[tokio::test(start_paused = true)]
    async fn the_latency_of_all_follows_the_last_answers() {
        let total = InFlightTotal::default();
        let close_to = |millis: u64| {
            let latency = total.latency();
            latency > Duration::from_millis(millis * 3 / 4)
                && latency < Duration::from_millis(millis * 5 / 4)
        };
        (0..200).for_each(|_| total.note_answer(Duration::from_millis(200)));
        assert!(close_to(200), "{:?}", total.latency());
        (0..400).for_each(|_| total.note_answer(Duration::from_millis(4)));
        assert!(close_to(4), "{:?}", total.latency());
    }
}
