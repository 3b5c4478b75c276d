//! The circuit breaker of one endpoint: after failures in a row it gets no requests but single
//! probes, until one of them is answered.
//!
//! ```text
//! closed ── failures in a row ──▶ open ── cooldown ──▶ half-open ── probe answered ──▶ closed
//!                                  ▲                        │
//!                                  └─ longer ─ probe fails ─┘
//! ```
//!
//! While it is not closed only the probe counts: requests that were in flight when it opened tell
//! of the time before.

use std::time::Duration;
use std::time::Instant;

use crate::config::settings;
use crate::config::settings::RetryDelays;
use crate::config::settings::RetrySettings;
use crate::flow::lease::LeaseId;
use crate::lane::core::pace::later;
use crate::lane::core::retry_delays::retry_delay;

/// How an endpoint does, for people and metrics.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum BreakerState {
    #[default]
    Closed,
    /// A probe is under way, or would be if there were something to send.
    HalfOpen,
    Open,
}

#[derive(Debug)]
pub(super) struct CircuitBreaker {
    /// `None`: it never opens.
    policy: Option<BreakerPolicy>,
    state: BreakerPhase,
}

#[derive(Debug)]
struct BreakerPolicy {
    failures: usize,
    /// The cooldowns, as delays before the n-th probe.
    cooldowns: RetrySettings,
}

#[derive(Clone, Copy, Debug)]
enum BreakerPhase {
    Closed {
        failures_in_row: usize,
    },
    /// It was open before walhook started, and nothing has been sent since.
    Unproven,
    /// Probes are allowed from `until` on; `probes` have failed so far.
    Open {
        until: Instant,
        probes: u32,
    },
    Probing {
        probe: LeaseId,
        probes: u32,
    },
}

impl BreakerPolicy {
    fn new(
        settings::BreakerSettings { failures, cooldown, cap }: settings::BreakerSettings,
    ) -> Self {
        let delays = RetryDelays::Exponential { max: u32::MAX, interval: cooldown };
        Self { failures: failures.get(), cooldowns: RetrySettings { delays, cap } }
    }
}

impl CircuitBreaker {
    pub(super) fn new(policy: Option<settings::BreakerSettings>) -> Self {
        Self {
            policy: policy.map(BreakerPolicy::new),
            state: BreakerPhase::Closed { failures_in_row: 0 },
        }
    }

    /// Another policy; the state stays, unless there is none.
    pub(super) fn govern(&mut self, policy: Option<settings::BreakerSettings>) {
        self.policy = policy.map(BreakerPolicy::new);
        if self.policy.is_none() {
            self.state = BreakerPhase::Closed { failures_in_row: 0 };
        }
    }

    /// Whether this request is the probe that decides. It counts for the endpoint, and not for what
    /// is sent with it.
    pub(super) fn is_probe(&self, id: LeaseId) -> bool {
        matches!(self.state, BreakerPhase::Probing { probe, .. } if probe == id)
    }

    /// The same, when it is known to have been open when walhook ended: the first request is a probe.
    pub(super) fn unproven(self) -> Self {
        let state = if self.policy.is_some() { BreakerPhase::Unproven } else { self.state };
        Self { state, ..self }
    }

    /// What is known of the endpoint is of no use any more: if it is not closed, the next request is
    /// a probe, at once.
    pub(super) fn forget(&mut self) {
        self.state = match self.state {
            BreakerPhase::Closed { .. } => BreakerPhase::Closed { failures_in_row: 0 },
            BreakerPhase::Unproven | BreakerPhase::Open { .. } | BreakerPhase::Probing { .. } => {
                BreakerPhase::Unproven
            }
        };
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(self.state, BreakerPhase::Closed { .. })
    }

    pub(super) fn state(&self, now: Instant) -> BreakerState {
        match self.state {
            BreakerPhase::Closed { .. } => BreakerState::Closed,
            BreakerPhase::Open { until, .. } if now < until => BreakerState::Open,
            BreakerPhase::Unproven | BreakerPhase::Open { .. } | BreakerPhase::Probing { .. } => {
                BreakerState::HalfOpen
            }
        }
    }

    /// When the next request may start; `None` if not before the probe has ended.
    pub(super) fn free_at(&self, now: Instant) -> Option<Instant> {
        match self.state {
            BreakerPhase::Closed { .. } | BreakerPhase::Unproven => Some(now),
            BreakerPhase::Open { until, .. } => Some(until.max(now)),
            BreakerPhase::Probing { .. } => None,
        }
    }

    /// A request has started.
    pub(super) fn started(&mut self, id: LeaseId) {
        match self.state {
            BreakerPhase::Open { probes, .. } => {
                self.state = BreakerPhase::Probing { probe: id, probes }
            }
            BreakerPhase::Unproven => self.state = BreakerPhase::Probing { probe: id, probes: 0 },
            BreakerPhase::Closed { .. } | BreakerPhase::Probing { .. } => {}
        }
    }

    /// The endpoint took the request, or refused it for what it said.
    pub(super) fn answered(&mut self, id: LeaseId) {
        match self.state {
            BreakerPhase::Closed { .. } => self.state = BreakerPhase::Closed { failures_in_row: 0 },
            BreakerPhase::Probing { probe, .. } if probe == id => {
                self.state = BreakerPhase::Closed { failures_in_row: 0 };
            }
            BreakerPhase::Unproven | BreakerPhase::Open { .. } | BreakerPhase::Probing { .. } => {}
        }
    }

    /// The request failed in a way that may pass; `asked` is what the endpoint wants to be waited.
    /// `fraction` is random, from 0 up to 1. Returns whether the breaker was closed and is open.
    pub(super) fn failed(
        &mut self,
        id: LeaseId,
        asked: Option<Duration>,
        now: Instant,
        fraction: f64,
    ) -> bool {
        let Some(policy) = &self.policy else { return false };
        let (was_closed, probes) = match self.state {
            BreakerPhase::Closed { failures_in_row } if failures_in_row + 1 < policy.failures => {
                self.state = BreakerPhase::Closed { failures_in_row: failures_in_row + 1 };
                return false;
            }
            BreakerPhase::Closed { .. } => (true, 0),
            BreakerPhase::Probing { probe, probes } if probe == id => {
                (false, probes.saturating_add(1))
            }
            BreakerPhase::Unproven | BreakerPhase::Open { .. } | BreakerPhase::Probing { .. } => {
                return false;
            }
        };
        let cooldown = retry_delay(&policy.cooldowns, probes.saturating_add(1), asked, fraction);
        let until = later(now, cooldown.unwrap_or(policy.cooldowns.cap));
        self.state = BreakerPhase::Open { until, probes };
        was_closed
    }

    /// The request was no request in the end: it tells nothing of the endpoint.
    pub(super) fn unsent(&mut self, id: LeaseId, now: Instant) {
        if let BreakerPhase::Probing { probe, probes } = self.state
            && probe == id
        {
            self.state = BreakerPhase::Open { until: now, probes };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroUsize;

    const SECOND: Duration = Duration::from_secs(1);

    fn breaker() -> CircuitBreaker {
        let failures = NonZeroUsize::new(3).unwrap();
        CircuitBreaker::new(Some(settings::BreakerSettings {
            failures,
            cooldown: SECOND,
            cap: 5 * SECOND,
        }))
    }

    /// Opens the breaker by three failures, the last of which asks for a wait.
    fn opened(asked: Option<Duration>, now: Instant) -> CircuitBreaker {
        let mut breaker = breaker();
        let opened = [None, None, asked].map(|asked| breaker.failed(LeaseId(1), asked, now, 0.5));
        assert_eq!(opened, [false, false, true]);
        breaker
    }

    #[test]
    fn it_opens_after_failures_in_a_row_only() {
        let now = Instant::now();
        let mut breaker = breaker();
        for _ in 0..10 {
            assert!(!breaker.failed(LeaseId(1), None, now, 0.5));
            assert!(!breaker.failed(LeaseId(1), None, now, 0.5));
            breaker.answered(LeaseId(1));
        }
        assert_eq!(breaker.state(now), BreakerState::Closed);
        assert_eq!(opened(None, now).state(now), BreakerState::Open);
    }

    #[test]
    fn each_probe_that_fails_makes_the_next_cooldown_longer_up_to_the_cap() {
        let mut now = Instant::now();
        let mut breaker = opened(None, now);
        let mut cooldowns = Vec::new();
        for probe in 2..7 {
            let until = breaker.free_at(now).unwrap();
            cooldowns.push(until.duration_since(now).as_millis());
            now = until;
            assert_eq!(breaker.state(now), BreakerState::HalfOpen);
            breaker.started(LeaseId(probe));
            assert_eq!(breaker.free_at(now), None, "one probe at a time");
            assert!(!breaker.failed(LeaseId(probe), None, now, 0.5));
            assert_eq!(breaker.state(now), BreakerState::Open);
        }
        assert_eq!(cooldowns, [1000, 2000, 4000, 4000, 4000]);
        now = breaker.free_at(now).unwrap();
        breaker.started(LeaseId(9));
        breaker.answered(LeaseId(9));
        assert_eq!((breaker.is_closed(), breaker.free_at(now)), (true, Some(now)));
        assert_eq!(opened(None, now).free_at(now), Some(now + SECOND), "it starts anew");
    }

    #[test]
    fn the_endpoint_can_ask_for_a_longer_cooldown_up_to_the_cap() {
        let now = Instant::now();
        let wait = |asked| opened(Some(asked), now).free_at(now).unwrap().duration_since(now);
        assert_eq!(wait(SECOND / 2), SECOND);
        assert_eq!(wait(3 * SECOND), Duration::from_millis(3150));
        assert_eq!(wait(3600 * SECOND), 5 * SECOND);
    }

    #[test]
    fn while_it_is_open_only_the_probe_counts() {
        let start = Instant::now();
        let mut breaker = opened(None, start);
        let until = breaker.free_at(start).unwrap();
        breaker.answered(LeaseId(1));
        breaker.failed(LeaseId(2), None, start, 0.9);
        assert_eq!(breaker.free_at(start), Some(until));
        breaker.started(LeaseId(3));
        breaker.answered(LeaseId(1));
        breaker.failed(LeaseId(2), None, until, 0.9);
        assert_eq!(breaker.state(until), BreakerState::HalfOpen);
        breaker.unsent(LeaseId(3), until);
        assert_eq!(breaker.free_at(until), Some(until), "another probe takes its place");
    }

    #[test]
    fn without_a_policy_it_never_opens() {
        let mut breaker = CircuitBreaker::new(None);
        let now = Instant::now();
        assert!((0..1000).all(|_| !breaker.failed(LeaseId(1), None, now, 0.5)));
        assert!(breaker.is_closed());
    }
}
