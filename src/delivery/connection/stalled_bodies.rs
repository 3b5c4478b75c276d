//! Large bodies on their way to an endpoint that takes nothing of them, while another large row waits
//! for their memory: they are given up, to be sent again later.
//!
//! What is in flight cannot go to the backlog. Two endpoints that hang, each with a large row of its
//! own, would have all that large rows may have, and everybody stands still until their timeouts.
//! One that is slow still gets its rows: a body that moves is left alone, and of an endpoint that has
//! been silent before, the next one may be silent for longer.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::flow::lease::Lease;
use crate::flow::verdict::AttemptFailure;
use crate::flow::verdict::FailureClass;

/// Smaller bodies have room beside others.
const LARGE_BYTES: usize = 1024 * 1024;

/// How long nothing may move, and how often that doubles.
const SILENCE: Duration = Duration::from_secs(3);
const DOUBLINGS_MAX: u32 = 3;

/// Of one endpoint.
#[derive(Debug)]
pub(crate) struct StallRule {
    /// Changes again and again while a large row waits in the memory budget for what is in flight.
    wanted: watch::Receiver<u64>,
    /// How many in a row were given up.
    given_up: AtomicU32,
}

/// One attempt with a large body.
#[derive(Debug)]
pub(crate) struct LargeAttempt {
    wanted: watch::Receiver<u64>,
    silence: Duration,
    sent: Arc<AtomicU64>,
}

impl StallRule {
    pub(crate) fn new(wanted: watch::Receiver<u64>) -> Self {
        Self { wanted, given_up: AtomicU32::new(0) }
    }

    /// The attempt, if its body is large.
    pub(crate) fn attempt(&self, lease: &Lease) -> Option<LargeAttempt> {
        let bytes: usize = lease.events.iter().map(|event| event.body.held_bytes()).sum();
        if bytes < LARGE_BYTES {
            return None;
        }
        let mut wanted = self.wanted.clone();
        wanted.mark_unchanged();
        let doublings = self.given_up.load(Ordering::Relaxed).min(DOUBLINGS_MAX);
        Some(LargeAttempt { wanted, silence: SILENCE * (1 << doublings), sent: Arc::default() })
    }

    pub(crate) fn note_given_up(&self) {
        self.given_up.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn note_delivered(&self) {
        self.given_up.store(0, Ordering::Relaxed);
    }
}

impl LargeAttempt {
    /// Counts the bytes of the body that the connection has taken.
    pub(crate) fn counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.sent)
    }

    /// Ends when its memory is wanted and nothing has moved for too long.
    pub(crate) async fn given_up(mut self) -> AttemptFailure {
        let (mut moved, mut sent) = (Instant::now(), 0);
        loop {
            if self.wanted.changed().await.is_err() {
                // The memory budget is gone, with everything else.
                std::future::pending::<()>().await;
            }
            let now = self.sent.load(Ordering::Relaxed);
            if now != sent {
                (moved, sent) = (Instant::now(), now);
            } else if moved.elapsed() >= self.silence {
                let detail = format!(
                    "nothing moved for {} s, and another large row waited for its memory",
                    self.silence.as_secs()
                );
                return AttemptFailure { class: FailureClass::Local, detail };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_moves_is_left_alone_and_silence_is_borne_longer_each_time() {
        let (want, wanted) = watch::channel(0_u64);
        let rule = StallRule::new(wanted);
        let large = |rule: &StallRule| {
            let doublings = rule.given_up.load(Ordering::Relaxed).min(DOUBLINGS_MAX);
            let silence = SILENCE * (1 << doublings);
            LargeAttempt { wanted: rule.wanted.clone(), silence, sent: Arc::default() }
        };
        for seconds in [3, 6, 12, 24, 24] {
            let attempt = large(&rule);
            let counter = attempt.counter();
            let began = Instant::now();
            let presses = async {
                loop {
                    tokio::time::sleep(Duration::from_millis(250)).await;
                    if began.elapsed() < Duration::from_secs(10) {
                        counter.fetch_add(1, Ordering::Relaxed);
                    }
                    want.send_modify(|times| *times += 1);
                }
            };
            tokio::select! {
                failure = attempt.given_up() => assert_eq!(failure.class, FailureClass::Local),
                () = presses => {}
            }
            let waited = began.elapsed().as_secs();
            assert!((9 + seconds..=10 + seconds).contains(&waited), "{waited} s for {seconds}");
            rule.note_given_up();
        }
        rule.note_delivered();
        assert_eq!(large(&rule).silence, SILENCE);
        // Nobody wants it: it may hang for as long as its endpoint's timeout lasts.
        let ended = tokio::time::timeout(Duration::from_secs(3600), large(&rule).given_up());
        assert!(ended.await.is_err());
    }
}
