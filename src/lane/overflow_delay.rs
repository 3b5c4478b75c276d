//! How long a hand-over waits for room in lanes that have a backlog.
//!
//! To wait for an endpoint that answers is far cheaper than to go by way of the database, and
//! PostgreSQL keeps the WAL meanwhile. So a lane is waited for while its endpoint answers, within the
//! bounds of [`WalHold`]: bytes that the WAL may hold, and the time that other lanes have nothing to do
//! for its sake. One that makes no progress is waited for a moment only.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

/// How long a lane that makes no progress is waited for while another has nothing to do.
pub(super) const FULL_PATIENCE: Duration = Duration::from_millis(250);

/// How long if none of them has nothing to do: lanes that share a processor each get a part of it, so
/// they have [`FULL_PATIENCE`] for each of them, up to this.
pub(super) const TOGETHER_MAX: Duration = Duration::from_secs(2);

/// How long an endpoint may take for its first answer ever, while another has nothing to do.
pub(super) const FIRST_PATIENCE: Duration = Duration::from_millis(500);

/// How often a sender that waits looks at how it stands.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(25);

/// An endpoint may take this long to answer and still counts as making progress.
pub(super) const LATENCY_MAX: Duration = Duration::from_secs(5);

/// And this long if all of them do: it is not the endpoint that is slow, but where all of them are, or this machine.
/// Not longer, or one that hangs would be waited for in proportion to slow ones beside it.
pub(super) const LATENCY_OF_ALL_MAX: Duration = Duration::from_millis(500);

/// Within which bounds the WAL may wait for endpoints that answer, but slowly. Clones share what they
/// are told.
#[derive(Clone, Debug)]
pub(crate) struct WalHold {
    bytes: u64,
    time: Duration,
    retained: Arc<AtomicU64>,
}

impl WalHold {
    /// `bytes`: what the slot may retain. `time`: how long others have nothing to do for the sake of
    /// one lane, all in all; it gets back a twentieth of the time that passes.
    pub(crate) fn new(bytes: u64, time: Duration) -> Self {
        Self { bytes, time, retained: Arc::default() }
    }

    /// The slot retains so many bytes of WAL.
    pub(crate) fn note_retained(&self, bytes: u64) {
        self.retained.store(bytes, Ordering::Relaxed);
    }

    fn is_full(&self) -> bool {
        self.retained.load(Ordering::Relaxed) >= self.bytes
    }
}

/// One hand-over, with all of its lanes alike.
pub(super) struct OverflowDelay<'w> {
    wal_hold: &'w WalHold,
    /// Whether a lane has nothing to do, of all there are.
    is_any_idle: &'w (dyn Fn() -> bool + Sync),
    begun: Instant,
    together: Duration,
    /// The last answer of `is_any_idle`, which goes through all lanes, and when it was given.
    seen: Mutex<Option<(Instant, bool)>>,
}

/// How the lane that is waited for does.
#[derive(Clone, Copy, Debug)]
pub(super) struct LaneProgress {
    /// When its endpoint answered last.
    pub(super) answered: Option<Instant>,
    /// How long its endpoint takes.
    pub(super) latency: Duration,
    /// How long all endpoints take just now.
    pub(super) latency_of_all: Duration,
    /// How long others had nothing to do for its sake, lately.
    pub(super) held_up: Duration,
    /// How long this process itself stood still since the endpoint answered last ([`OwnDelay`]).
    pub(super) stood_still: Duration,
    /// What the endpoint has answered has places still, since the ledger has not taken it.
    pub(super) waits_for_ledger: bool,
    /// The lane's thread has no time to spare, so that nobody gets more done if this one is not waited for.
    pub(super) is_thread_busy: bool,
}

/// How long this process itself stands still between looks at a lane: a machine that is paused, or has no
/// time for it, says nothing of the endpoint. Nor does a ledger that has no room.
#[derive(Debug, Default)]
pub(super) struct OwnDelay {
    answered: Option<Instant>,
    stood_still: Duration,
}

impl OwnDelay {
    /// So much time has passed since the last look. Returns how much of the time since the endpoint answered last
    /// has to be left out.
    pub(super) fn passed(&mut self, time: Duration, progress: &LaneProgress) -> Duration {
        let answered = progress.answered;
        if answered != self.answered {
            *self = Self { answered, stood_still: Duration::ZERO };
        }
        let usual = if progress.waits_for_ledger { Duration::ZERO } else { LOOK_EVERY * 2 };
        self.stood_still += time.saturating_sub(usual);
        self.stood_still
    }
}

/// What follows from a look at a lane that is waited for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum DelayLook {
    Wait,
    /// Others have nothing to do meanwhile.
    WaitHoldingUp,
    Enough,
}

impl<'w> OverflowDelay<'w> {
    /// For so many lanes that have something to take.
    pub(super) fn begin(
        lanes: usize,
        wal_hold: &'w WalHold,
        is_any_idle: &'w (dyn Fn() -> bool + Sync),
    ) -> Self {
        let lanes = u32::try_from(lanes).unwrap_or(u32::MAX);
        let together = FULL_PATIENCE.saturating_mul(lanes).min(TOGETHER_MAX);
        Self { wal_hold, is_any_idle, begun: Instant::now(), together, seen: Mutex::default() }
    }

    /// Whether to wait on for a lane that has been waited for since `since`.
    pub(super) fn look(&self, since: Instant, progress: LaneProgress) -> DelayLook {
        let now = Instant::now();
        let is_any_idle = !progress.is_thread_busy && self.is_any_idle(now);
        let moment = if is_any_idle { FULL_PATIENCE } else { self.together };
        let limit = match (progress.answered, is_any_idle) {
            (Some(_), _) => moment,
            (None, true) => FIRST_PATIENCE,
            (None, false) => TOGETHER_MAX,
        };
        let of_all = progress.latency_of_all.min(LATENCY_OF_ALL_MAX);
        let latency = progress.latency.min(LATENCY_MAX).max(of_all);
        let last = progress.answered.map_or(since, |answered| answered.max(since));
        let silent = now.saturating_duration_since(last).saturating_sub(progress.stood_still);
        if silent >= limit + latency * 2 {
            return DelayLook::Enough;
        }
        if self.wal_hold.is_full() && now.saturating_duration_since(self.begun) >= moment {
            return DelayLook::Enough;
        }
        match is_any_idle {
            false => DelayLook::Wait,
            true if progress.held_up >= self.wal_hold.time.max(FULL_PATIENCE) => DelayLook::Enough,
            true => DelayLook::WaitHoldingUp,
        }
    }

    fn is_any_idle(&self, now: Instant) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match *seen {
            Some((at, is_any_idle)) if now.saturating_duration_since(at) < LOOK_EVERY / 2 => {
                is_any_idle
            }
            _ => {
                let is_any_idle = (self.is_any_idle)();
                *seen = Some((now, is_any_idle));
                is_any_idle
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: LaneProgress = LaneProgress {
        answered: None,
        latency: Duration::ZERO,
        latency_of_all: Duration::ZERO,
        held_up: Duration::ZERO,
        stood_still: Duration::ZERO,
        waits_for_ledger: false,
        is_thread_busy: false,
    };

    fn look(
        retained: u64,
        is_any_idle: bool,
        waited: Duration,
        progress: LaneProgress,
    ) -> DelayLook {
        let wal_hold = WalHold::new(1000, Duration::from_secs(5));
        wal_hold.note_retained(retained);
        let idle = move || is_any_idle;
        let mut overflow_delay = OverflowDelay::begin(4, &wal_hold, &idle);
        overflow_delay.begun = Instant::now() - waited;
        overflow_delay.look(overflow_delay.begun, progress)
    }

    #[tokio::test(start_paused = true)]
    async fn what_answers_is_waited_for_within_the_bounds_and_what_does_not_a_moment_only() {
        tokio::time::advance(Duration::from_secs(100)).await;
        let ms = Duration::from_millis;
        let answers = LaneProgress { answered: Some(Instant::now() - ms(200)), ..NEVER };
        let slow =
            LaneProgress { answered: Some(Instant::now() - ms(3000)), latency: ms(2000), ..NEVER };
        let hangs = LaneProgress { answered: Some(Instant::now() - ms(1000)), ..NEVER };
        let long = |progress: LaneProgress| LaneProgress { held_up: ms(5000), ..progress };
        let paused = |stood_still| LaneProgress { stood_still, ..hangs };
        let among = |latency_of_all| LaneProgress { latency_of_all, ..hangs };
        let busy = |progress: LaneProgress| LaneProgress { is_thread_busy: true, ..progress };
        let cases = [
            ("no answer yet", 0, true, ms(499), NEVER, DelayLook::WaitHoldingUp),
            ("no answer at all", 0, true, ms(500), NEVER, DelayLook::Enough),
            ("nobody has nothing to do", 0, false, ms(1999), NEVER, DelayLook::Wait),
            ("and yet it ends", 0, false, ms(2000), NEVER, DelayLook::Enough),
            ("it answers no more", 0, true, ms(2000), hangs, DelayLook::Enough),
            ("but it could not have", 0, true, ms(2000), paused(ms(800)), DelayLook::WaitHoldingUp),
            ("nor does it now", 0, true, ms(2000), paused(ms(700)), DelayLook::Enough),
            ("all are slow", 0, true, ms(2000), among(ms(400)), DelayLook::WaitHoldingUp),
            ("but not so slow", 0, true, ms(2000), among(ms(300)), DelayLook::Enough),
            ("all are very slow", 0, true, ms(2000), among(ms(5000)), DelayLook::WaitHoldingUp),
            ("there is no time", 0, true, ms(999), busy(hangs), DelayLook::Wait),
            ("but that ends, too", 0, true, ms(2000), busy(hangs), DelayLook::Enough),
            ("nobody loses by it", 0, true, ms(60_000), busy(long(answers)), DelayLook::Wait),
            ("a moment for each of them", 0, false, ms(2000), hangs, DelayLook::Enough),
            ("it answers", 0, false, ms(60_000), answers, DelayLook::Wait),
            ("it answers, slowly", 0, false, ms(60_000), slow, DelayLook::Wait),
            ("others may have to wait", 0, true, ms(60_000), slow, DelayLook::WaitHoldingUp),
            ("for a time", 0, true, ms(60_000), long(answers), DelayLook::Enough),
            ("nobody waits for it any more", 0, false, ms(60_000), long(answers), DelayLook::Wait),
            ("the WAL holds too much", 1000, false, ms(1000), answers, DelayLook::Enough),
            ("and yet a moment", 1000, false, ms(999), answers, DelayLook::Wait),
        ];
        for (case, retained, is_any_idle, waited, progress, expected) in cases {
            assert_eq!(look(retained, is_any_idle, waited, progress), expected, "{case}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_process_itself_stood_still_is_no_silence_of_the_endpoint() {
        let ms = Duration::from_millis;
        let mut own = OwnDelay::default();
        let waits = LaneProgress { waits_for_ledger: true, ..NEVER };
        assert_eq!(own.passed(LOOK_EVERY, &NEVER), Duration::ZERO);
        assert_eq!(own.passed(LOOK_EVERY * 2, &NEVER), Duration::ZERO, "a busy machine");
        assert_eq!(own.passed(LOOK_EVERY * 2 + ms(300), &NEVER), ms(300));
        assert_eq!(own.passed(LOOK_EVERY * 2 + ms(100), &NEVER), ms(400));
        assert_eq!(own.passed(LOOK_EVERY, &waits), ms(400) + LOOK_EVERY, "no room in the ledger");
        let answered = LaneProgress { answered: Some(Instant::now()), ..NEVER };
        assert_eq!(own.passed(LOOK_EVERY, &answered), Duration::ZERO, "it answered since");
    }
}
