//! What a lane holds and how it does, to be read at any time by anyone.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use crate::lane::capacity::LaneCapacity;
use crate::lane::core::breaker::BreakerState;
use crate::lane::core::counts::LaneCounts;
use crate::lane::in_flight_total::InFlightTotal;
use crate::lane::overflow_delay::LaneProgress;

/// Counts of a lane, shared with the API, the metrics and its senders.
#[derive(Debug)]
pub(crate) struct LaneGauges {
    capacity: Arc<LaneCapacity>,
    in_flight: AtomicUsize,
    retrying: AtomicUsize,
    parked: AtomicUsize,
    replays: AtomicUsize,
    outside: AtomicUsize,
    reserved: AtomicUsize,
    is_gone: AtomicBool,
    is_slowed: AtomicBool,
    breaker: AtomicU8,
    gathers: AtomicBool,
    born: Instant,
    /// When the endpoint answered last, in microseconds since `born`, counted from 1; 0: never.
    answered: AtomicU64,
    /// How long it takes to answer, in microseconds: the mean, the last ones most.
    latency: AtomicU64,
    /// How long other lanes have had nothing to do for this one's sake, in microseconds, as it was at
    /// `held_up_at`, in microseconds since `born`.
    held_up: AtomicU64,
    held_up_at: AtomicU64,
    /// A report waits for the ledger: places that answers have left are not free yet.
    waits_for_ledger: AtomicBool,
    /// What the lane shares its thread with.
    total: OnceLock<InFlightTotal>,
}

/// A lane gets back so much of the time that others had nothing to do for its sake: a slow one may
/// hold them up for a twentieth of the time in the long run, and what it has saved at once.
const HELD_UP_SHARE: u64 = 20;

impl LaneGauges {
    pub(super) fn new(capacity: Arc<LaneCapacity>) -> Self {
        let number = AtomicUsize::default;
        Self {
            capacity,
            in_flight: number(),
            retrying: number(),
            parked: number(),
            replays: number(),
            outside: number(),
            reserved: number(),
            is_gone: AtomicBool::default(),
            is_slowed: AtomicBool::default(),
            breaker: AtomicU8::default(),
            gathers: AtomicBool::default(),
            born: Instant::now(),
            answered: AtomicU64::default(),
            latency: AtomicU64::default(),
            held_up: AtomicU64::default(),
            held_up_at: AtomicU64::default(),
            waits_for_ledger: AtomicBool::default(),
            total: OnceLock::new(),
        }
    }

    /// Whether the endpoint takes batches.
    pub(super) fn set_gathers(&self, gathers: bool) {
        self.gathers.store(gathers, Ordering::Relaxed);
    }

    pub(super) fn gathers(&self) -> bool {
        self.gathers.load(Ordering::Relaxed)
    }

    /// The endpoint has answered, within this time.
    pub(super) fn note_answer(&self, took: Duration) {
        self.answered.store(micros(self.born.elapsed()) + 1, Ordering::Relaxed);
        let (before, took) = (self.latency.load(Ordering::Relaxed), micros(took));
        // The lane's task alone writes it.
        let mean = if before == 0 { took } else { before - before / 8 + took / 8 };
        self.latency.store(mean, Ordering::Relaxed);
        if let Some(total) = self.total.get() {
            total.note_answer(Duration::from_micros(took));
        }
    }

    /// How the lane does, for a sender that waits.
    pub(super) fn progress(&self) -> LaneProgress {
        let answered = self.answered.load(Ordering::Relaxed).checked_sub(1);
        let total = self.total.get();
        LaneProgress {
            answered: answered.map(|micros| self.born + Duration::from_micros(micros)),
            latency: Duration::from_micros(self.latency.load(Ordering::Relaxed)),
            latency_of_all: total.map_or(Duration::ZERO, InFlightTotal::latency),
            held_up: self.held_up(),
            stood_still: Duration::ZERO,
            waits_for_ledger: self.waits_for_ledger.load(Ordering::Relaxed),
            is_thread_busy: total.is_some_and(InFlightTotal::is_busy),
        }
    }

    /// Whom the lane shares its thread with. It is told once.
    pub(super) fn counted_in(&self, total: &InFlightTotal) {
        drop(self.total.set(total.clone()));
    }

    pub(super) fn set_waits_for_ledger(&self, waits: bool) {
        self.waits_for_ledger.store(waits, Ordering::Relaxed);
    }

    /// Others have had nothing to do for so long, as they had to wait for this one.
    pub(super) fn holds_up(&self, others: Duration) {
        // The pump alone writes it.
        let held_up = micros(self.held_up() + others);
        self.held_up.store(held_up, Ordering::Relaxed);
        self.held_up_at.store(micros(self.born.elapsed()), Ordering::Relaxed);
    }

    /// How long they have had, less what the lane has got back since.
    pub(super) fn held_up(&self) -> Duration {
        let since = micros(self.born.elapsed());
        let since = since.saturating_sub(self.held_up_at.load(Ordering::Relaxed));
        let held_up = self.held_up.load(Ordering::Relaxed);
        Duration::from_micros(held_up.saturating_sub(since / HELD_UP_SHARE))
    }

    /// Events that are owed: handed over, and not yet reported to the ledger as settled.
    pub(crate) fn counts(&self) -> LaneCounts {
        let load = |number: &AtomicUsize| number.load(Ordering::Relaxed);
        let (in_flight, retrying) = (load(&self.in_flight), load(&self.retrying));
        let tried = in_flight + retrying;
        LaneCounts {
            queued: self.capacity.held().saturating_sub(load(&self.reserved) + tried),
            in_flight,
            retrying,
            parked: load(&self.parked),
            replays: load(&self.replays),
            outside: load(&self.outside),
        }
    }

    /// Deliveries that are owed and not in the backlog; replays do not count, they are dead letters.
    pub(crate) fn in_memory(&self) -> usize {
        let LaneCounts { queued, in_flight, retrying, parked, replays, .. } = self.counts();
        (queued + in_flight + retrying).saturating_sub(parked + replays)
    }

    /// Deliveries in the backlog, with those that are in memory as well.
    pub(crate) fn in_backlog(&self) -> usize {
        let LaneCounts { parked, outside, .. } = self.counts();
        parked + outside
    }

    /// Whether the endpoint said that it is gone for good (410).
    pub(crate) fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Relaxed)
    }

    /// Whether fewer requests are made at once than configured, because of an outage.
    pub(crate) fn is_slowed(&self) -> bool {
        self.is_slowed.load(Ordering::Relaxed)
    }

    pub(crate) fn breaker(&self) -> BreakerState {
        state(self.breaker.load(Ordering::Relaxed))
    }

    /// `in_report` of those outside have a place still: the ledger has not taken their report.
    pub(super) fn set_counts(&self, counts: LaneCounts, reserved: usize, in_report: usize) {
        let store = |number: &AtomicUsize, value| number.store(value, Ordering::Relaxed);
        store(&self.in_flight, counts.in_flight);
        store(&self.retrying, counts.retrying);
        store(&self.parked, counts.parked);
        store(&self.replays, counts.replays);
        store(&self.outside, counts.outside.saturating_sub(in_report));
        store(&self.reserved, reserved);
    }

    /// Returns whether that is news, as the next one does.
    pub(super) fn set_gone(&self, is_gone: bool) -> bool {
        self.is_gone.swap(is_gone, Ordering::Relaxed) != is_gone
    }

    pub(super) fn set_slowed(&self, is_slowed: bool) -> bool {
        self.is_slowed.swap(is_slowed, Ordering::Relaxed) != is_slowed
    }

    /// Returns what it was.
    pub(super) fn set_breaker(&self, now: BreakerState) -> BreakerState {
        let number = match now {
            BreakerState::Closed => CLOSED,
            BreakerState::HalfOpen => HALF_OPEN,
            BreakerState::Open => OPEN,
        };
        state(self.breaker.swap(number, Ordering::Relaxed))
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// [`BreakerState`] as a number.
const CLOSED: u8 = 0;
const HALF_OPEN: u8 = 1;
const OPEN: u8 = 2;

fn state(number: u8) -> BreakerState {
    match number {
        OPEN => BreakerState::Open,
        HALF_OPEN => BreakerState::HalfOpen,
        _ => BreakerState::Closed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::flow::settlement::EndpointIndex;
    use crate::lane::settings::LaneSettings;

    #[tokio::test(start_paused = true)]
    async fn a_slow_lane_holds_others_up_for_a_small_part_of_the_time_only() {
        let text = "postgres.url = 'postgres://u@h/d'\nwebhook.urls = ['http://127.0.0.1:9/']";
        let settings = config::parse(text, "walhook.toml", &|_| None).unwrap();
        let settings = LaneSettings::of(EndpointIndex(0), &settings.endpoints[0]);
        let gauges = LaneGauges::new(Arc::new(LaneCapacity::new(&settings)));
        let second = Duration::from_secs(1);
        tokio::time::advance(100 * second).await;
        gauges.holds_up(second);
        gauges.holds_up(second);
        assert_eq!(gauges.held_up(), 2 * second);
        tokio::time::advance(20 * second).await;
        assert_eq!(gauges.held_up(), second, "also while it goes by way of the backlog");
        gauges.holds_up(second);
        tokio::time::advance(100 * second).await;
        assert_eq!(gauges.held_up(), Duration::ZERO);
    }
}
