//! What the surface refuses, seen: counted, logged within a limit, and a wrong token slowed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::http::Extensions;
use tokio::time::Instant;

use crate::telemetry::metrics::HTTP_REFUSALS;
use crate::telemetry::metrics::WalhookMetrics;

/// A line for each reason, at most so often: a stranger must not fill the disk.
const LINE_EVERY: Duration = Duration::from_secs(60);

/// Wrong tokens that are answered at once: a person who mistypes waits for nothing.
const TOKENS_AT_ONCE: u32 = 5;
/// After those, one is answered in this time, for all clients together.
const TOKEN_EVERY: Duration = Duration::from_millis(100);
/// No wrong token waits longer.
const TOKEN_WAIT_MAX: Duration = Duration::from_secs(30);

/// What was refused. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct RefusalCounter(Arc<RefusalsShared>);

#[derive(Debug)]
struct RefusalsShared {
    metrics: WalhookMetrics,
    lines: Mutex<[RefusalLine; HTTP_REFUSALS.len()]>,
    /// When the answer to the next wrong token would be due, were there none at once.
    tokens: Mutex<Option<Instant>>,
}

/// The lines of one reason.
#[derive(Clone, Copy, Debug, Default)]
struct RefusalLine {
    last: Option<Instant>,
    /// Since that line.
    unsaid: u64,
}

impl RefusalCounter {
    pub(crate) fn new(metrics: WalhookMetrics) -> Self {
        let (lines, tokens) = (Mutex::default(), Mutex::default());
        Self(Arc::new(RefusalsShared { metrics, lines, tokens }))
    }

    /// Something was refused for one of [`HTTP_REFUSALS`].
    pub(crate) fn note(&self, reason: &'static str, asked: &Extensions) {
        let peer = asked.get::<ConnectInfo<SocketAddr>>().map(|info| info.0);
        self.note_of(reason, peer);
    }

    pub(crate) fn note_of(&self, reason: &'static str, peer: Option<SocketAddr>) {
        self.0.metrics.http_refused(reason).inc();
        let Some(times) = self.due_line(reason, Instant::now()) else { return };
        let peer = peer.map_or_else(|| String::from("?"), |peer| peer.ip().to_string());
        tracing::warn!(reason, times, %peer, "{}", told(reason));
    }

    /// How many refusals a line that is due would be about.
    fn due_line(&self, reason: &str, now: Instant) -> Option<u64> {
        let place = HTTP_REFUSALS.iter().position(|known| *known == reason)?;
        let mut lines = self.0.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let line = lines.get_mut(place)?;
        line.unsaid += 1;
        if line.last.is_some_and(|last| now < last + LINE_EVERY) {
            return None;
        }
        line.last = Some(now);
        Some(std::mem::take(&mut line.unsaid))
    }

    /// When a wrong token is answered that came `now`.
    pub(crate) fn answer_to_token(&self, now: Instant) -> Instant {
        let mut next = self.0.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let due = next.unwrap_or(now).max(now);
        let waits = due.saturating_duration_since(now + TOKEN_EVERY * TOKENS_AT_ONCE);
        *next = Some(due.min(now + TOKEN_WAIT_MAX) + TOKEN_EVERY);
        now + waits.min(TOKEN_WAIT_MAX)
    }
}

fn told(reason: &str) -> &'static str {
    match reason {
        "token" => "requests without the token of [http] token are refused",
        "host" => {
            "requests by a name that is none of walhook's are refused: see [http] hosts, or set \
             [http] token"
        }
        "origin" => "requests of another site's page are refused",
        "slow" => "connections whose request does not come are closed",
        _ => "connections are refused because too many are open",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusals() -> RefusalCounter {
        RefusalCounter::new(WalhookMetrics::new([], [], ([], 0)))
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_wrong_tokens_are_answered_at_once_and_a_flood_is_slowed() {
        let refusals = refusals();
        let now = Instant::now();
        let waits: Vec<Duration> = (0..1000).map(|_| refusals.answer_to_token(now) - now).collect();
        assert!(waits.iter().take(5).all(Duration::is_zero), "{waits:?}");
        assert_eq!(waits[105], Duration::from_secs(10));
        let longest = waits.iter().max().copied().unwrap_or_default();
        assert!(longest > Duration::from_secs(29) && longest <= TOKEN_WAIT_MAX, "{longest:?}");
        let later = now + Duration::from_secs(120);
        assert_eq!(refusals.answer_to_token(later), later, "it is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn each_reason_is_logged_once_a_minute_and_says_how_often() {
        let refusals = refusals();
        let now = Instant::now();
        assert_eq!(refusals.due_line("token", now), Some(1));
        assert_eq!(refusals.due_line("host", now), Some(1));
        for _ in 0..41 {
            assert_eq!(refusals.due_line("token", now + LINE_EVERY / 2), None);
        }
        assert_eq!(refusals.due_line("token", now + LINE_EVERY), Some(42));
        refusals.note_of("token", None);
        assert_eq!(refusals.0.metrics.http_refused("token").get(), 1);
    }
}
