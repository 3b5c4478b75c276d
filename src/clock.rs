//! The database's clock, as seen from here.
//!
//! Ages and expiry run on the clock of the server that wrote the rows. walhook measures how far its
//! own clock is off and corrects by that, so that a host with a wrong clock neither drops fresh
//! events nor sends stale ones.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::SystemTime;

use rustix::time::ClockId;

use crate::flow::time::Timestamp;

/// A clock that shows the database's time. Clones share the measured offset.
#[derive(Clone, Debug, Default)]
pub struct DatabaseClock {
    /// Microseconds that the database's clock is ahead of ours.
    ahead: Arc<AtomicI64>,
}

impl DatabaseClock {
    /// A clock that agrees with this host until it is told better.
    pub fn new() -> Self {
        Self::default()
    }

    pub fn now(&self) -> Timestamp {
        host_now().shifted(self.ahead.load(Ordering::Relaxed))
    }

    /// The server said `server` in answer to a question that was asked at `asked` and answered at
    /// `answered` on this host's clock: its reading lies about in the middle.
    pub fn measured(&self, asked: Timestamp, server: Timestamp, answered: Timestamp) {
        let middle = asked.micros().midpoint(answered.micros());
        self.ahead.store(server.micros().saturating_sub(middle), Ordering::Relaxed);
    }

    /// Seconds that the database's clock is ahead of this host's.
    pub fn ahead_seconds(&self) -> f64 {
        let micros = self.ahead.load(Ordering::Relaxed);
        std::time::Duration::from_micros(micros.unsigned_abs())
            .as_secs_f64()
            .copysign(if micros < 0 { -1.0 } else { 1.0 })
    }
}

/// This host's clock. The only place that reads it.
#[expect(clippy::disallowed_methods, reason = "this is the edge where time comes in")]
pub fn host_now() -> Timestamp {
    let micros = match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |m| -m),
    };
    Timestamp::from_micros(micros)
}

/// Time since the host was started, which nobody can set. It goes on while the host is suspended, so
/// that a process which wakes knows how long it was away.
pub fn since_boot() -> Duration {
    // Elsewhere the monotonic clock does the same, or there is nothing better.
    #[cfg(target_os = "linux")]
    let clock = ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let clock = ClockId::Monotonic;
    let now = rustix::time::clock_gettime(clock);
    Duration::try_from(now).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_is_taken_from_the_middle_of_the_exchange() {
        let clock = DatabaseClock::new();
        let at = Timestamp::from_micros;
        clock.measured(at(1_000_000), at(61_050_000), at(1_100_000));
        assert!((clock.ahead_seconds() - 60.0).abs() < 1e-9, "{}", clock.ahead_seconds());
        assert!(clock.now().since(host_now()).as_secs() >= 59);
    }
}
