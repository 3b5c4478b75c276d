//! The database's clock, as seen from here: how far it and the host's clock are apart.
//!
//! Ages and expiry run on the clock of the server that wrote the rows. walhook measures how far it
//! is from the time since this host was started, which nobody can set, and counts on from there: a
//! host whose clock is wrong, or is set while walhook runs, neither drops fresh events nor sends
//! stale ones.
//!
//! The server's clock may be set, too. Set back, it is followed at once. Set ahead, it is believed
//! when it has stayed so for as long as events live: until then rows from before would look older
//! than they are. Before it drops an event as too old, the pump has the clock measured anew
//! ([`DatabaseClock::renewed`]).

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::SystemTime;

use rustix::time::ClockId;
use tokio::sync::Notify;
use tokio::sync::watch;

use crate::flow::time::Timestamp;

/// Clocks drift by less between two measurements; what differs by more was set.
const STEP_MICROS: i64 = 1_000_000;

/// Steps that are remembered at most.
const STEPS_MAX: usize = 64;

/// The longest time for which a clock that was set ahead is not believed.
const DOUBT_MAX: Duration = Duration::from_secs(24 * 3600);

/// A clock that shows the database's time. Clones are one.
#[derive(Clone, Debug)]
pub(crate) struct DatabaseClock {
    shared: Arc<ClockShared>,
}

#[derive(Debug)]
struct ClockShared {
    /// Microseconds that the database's clock is ahead of the time since boot, as it is believed.
    believed: AtomicI64,
    /// The same as it was measured last.
    latest: AtomicI64,
    steps: Mutex<ClockSteps>,
    /// When the question of the last measurement was asked, since boot.
    asked: watch::Sender<Option<Duration>>,
    /// The pump waits for a measurement.
    wanted: Notify,
}

/// What was measured within the time of doubt, one entry for each time the clock was set. Pure.
#[derive(Debug)]
struct ClockSteps {
    /// So long a clock that was set ahead is not believed.
    doubt: Duration,
    entries: Vec<OffsetEntry>,
}

/// Between which limits the offset lies, in microseconds: each measurement gives two, and those that agree give
/// narrower ones together (Marzullo's intersection, as in NTP).
#[derive(Clone, Copy, Debug)]
struct OffsetEntry {
    least: i64,
    most: i64,
    /// Since boot, when it was measured last.
    seen: Duration,
}

impl OffsetEntry {
    /// As one clock would give both; `None` if it was set in between.
    fn joined(self, next: Self) -> Option<Self> {
        let (least, most) = (self.least.max(next.least), self.most.min(next.most));
        if least <= most {
            return Some(Self { least, most, seen: next.seen });
        }
        // Clocks drift.
        (least.saturating_sub(most) < STEP_MICROS).then_some(next)
    }
}

impl ClockSteps {
    /// An answer to a question that was asked at `asked` and answered at `answered`, since boot.
    /// Returns the offset that this shows, as near as it is known.
    fn measured(&mut self, asked: Duration, server: Timestamp, answered: Duration) -> i64 {
        let (asked_micros, answered_micros) = (micros(asked), micros(answered));
        // The server looked at its clock at some moment in between.
        let next = OffsetEntry {
            least: server.micros().saturating_sub(answered_micros),
            most: server.micros().saturating_sub(asked_micros),
            seen: answered,
        };
        let last = self.entries.last_mut();
        let latest = match last.and_then(|last| last.joined(next).map(|joined| (last, joined))) {
            Some((last, joined)) => {
                *last = joined;
                joined
            }
            None => {
                self.entries.push(next);
                next
            }
        };
        let known = self.entries.len();
        let mut place = 0;
        self.entries.retain(|entry| {
            place += 1;
            place == known || place + STEPS_MAX > known && entry.seen + self.doubt >= answered
        });
        latest.least.midpoint(latest.most)
    }

    /// The least that it can be: a clock that is ahead would let events expire that are not too old.
    fn believed(&self) -> Option<i64> {
        self.entries.iter().map(|entry| entry.least).min()
    }
}

impl Default for DatabaseClock {
    /// For `walhook tail`, which drops nothing.
    fn default() -> Self {
        Self::new(Duration::ZERO)
    }
}

impl DatabaseClock {
    /// A clock that agrees with this host until it is told better. Events live for `longest_life` at
    /// most before they expire.
    pub(crate) fn new(longest_life: Duration) -> Self {
        let agreed = host_now().micros().saturating_sub(micros(since_boot()));
        let steps = ClockSteps { doubt: longest_life.min(DOUBT_MAX), entries: Vec::new() };
        let shared = ClockShared {
            believed: AtomicI64::new(agreed),
            latest: AtomicI64::new(agreed),
            steps: Mutex::new(steps),
            asked: watch::Sender::new(None),
            wanted: Notify::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The time, for whatever is compared with times of rows and commits.
    pub(crate) fn now(&self) -> Timestamp {
        self.at(since_boot())
    }

    fn at(&self, since_boot: Duration) -> Timestamp {
        let believed = self.shared.believed.load(Ordering::Relaxed);
        Timestamp::from_micros(micros(since_boot).saturating_add(believed))
    }

    /// The server said `server` in answer to a question that was asked at `asked` and answered at
    /// `answered`, both since boot.
    pub(crate) fn measured(&self, asked: Duration, server: Timestamp, answered: Duration) {
        let mut steps = self.shared.steps.lock().unwrap_or_else(PoisonError::into_inner);
        let latest = steps.measured(asked, server, answered);
        self.shared.latest.store(latest, Ordering::Relaxed);
        if let Some(believed) = steps.believed() {
            self.shared.believed.store(believed, Ordering::Relaxed);
        }
        drop(steps);
        self.shared.asked.send_replace(Some(asked));
    }

    /// Whether the clock was measured after `moment`, since boot.
    pub(crate) fn is_renewed(&self, moment: Duration) -> bool {
        self.shared.asked.borrow().is_some_and(|asked| asked >= moment)
    }

    /// Has the clock measured, and waits until it was after `moment`, since boot: rows that were read
    /// before that can be judged then.
    pub(crate) async fn renewed(&self, moment: Duration) {
        if self.is_renewed(moment) {
            return;
        }
        let mut asked = self.shared.asked.subscribe();
        self.shared.wanted.notify_one();
        // The sender lives as long as this clock.
        drop(asked.wait_for(|asked| asked.is_some_and(|asked| asked >= moment)).await);
    }

    /// Ends when the pump waits for a measurement.
    pub(crate) async fn wanted(&self) {
        self.shared.wanted.notified().await;
    }

    /// Seconds that the database's clock is ahead of this host's.
    pub(crate) fn ahead_seconds(&self) -> f64 {
        self.ahead_of(host_now(), since_boot())
    }

    fn ahead_of(&self, host: Timestamp, since_boot: Duration) -> f64 {
        let latest = self.shared.latest.load(Ordering::Relaxed);
        let ahead = micros(since_boot).saturating_add(latest).saturating_sub(host.micros());
        let seconds = Duration::from_micros(ahead.unsigned_abs()).as_secs_f64();
        seconds.copysign(if ahead < 0 { -1.0 } else { 1.0 })
    }
}

fn micros(since_boot: Duration) -> i64 {
    i64::try_from(since_boot.as_micros()).unwrap_or(i64::MAX)
}

/// This host's clock. The only place that reads it.
#[expect(clippy::disallowed_methods, reason = "this is the edge where time comes in")]
pub fn host_now() -> Timestamp {
    #[cfg(test)]
    if let Some(since) = simulated::since_epoch() {
        return Timestamp::from_micros(micros(since));
    }
    let micros = match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |m| -m),
    };
    Timestamp::from_micros(micros)
}

/// Time since the host was started, which nobody can set. It goes on while the host is suspended, so
/// that a process which wakes knows how long it was away.
pub(crate) fn since_boot() -> Duration {
    #[cfg(test)]
    if let Some(since) = simulated::since_boot() {
        return since;
    }
    // Elsewhere the monotonic clock does the same, or there is nothing better.
    #[cfg(target_os = "linux")]
    let clock = ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let clock = ClockId::Monotonic;
    let now = rustix::time::clock_gettime(clock);
    Duration::try_from(now).unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod simulated;
#[cfg(test)]
mod tests;
