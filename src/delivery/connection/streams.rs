//! Permits for the streams of an HTTP/2 connection: as many requests at once as the peer allows
//! (SETTINGS_MAX_CONCURRENT_STREAMS, RFC 9113, section 6.5.2).
//!
//! What waits here was not sent, and costs its delivery nothing; in the HTTP library's own queue it
//! would be lost with the connection, or refused by a peer that has just said how many it takes.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::Notify;

/// Until the peer has said how many streams it takes. It does so at once, as a rule.
pub(crate) const STREAMS_AT_FIRST: usize = 1;

/// How often the peer's number is looked at while a request waits.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The streams of one connection.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    state: Mutex<State>,
    /// A permit may have become free, or the connection has ended.
    changed: Notify,
    /// A request waits.
    asked: Notify,
}

#[derive(Debug)]
struct State {
    open: usize,
    most: usize,
    waiting: usize,
    is_over: bool,
}

impl Default for State {
    fn default() -> Self {
        Self { open: 0, most: STREAMS_AT_FIRST, waiting: 0, is_over: false }
    }
}

/// A stream of the connection, for as long as it is kept.
#[derive(Debug)]
pub(crate) struct StreamPermit(Arc<Streams>);

/// Counts a request that waits, also if it is given up.
struct Waiting<'s>(&'s Streams);

impl Streams {
    /// Those of a connection that was just made, and the permit of the request that made it.
    pub(crate) fn begin() -> (Arc<Self>, StreamPermit) {
        let streams = Arc::new(Self::default());
        streams.state().open = 1;
        let permit = StreamPermit(Arc::clone(&streams));
        (streams, permit)
    }

    /// Waits for a permit; `None` if the connection has ended.
    pub(crate) async fn enter(self: &Arc<Self>) -> Option<StreamPermit> {
        let waiting = Waiting::begin(self);
        let mut has_waited = false;
        loop {
            let changed = self.changed.notified();
            {
                let mut state = self.state();
                if state.is_over {
                    return None;
                }
                if state.open < state.most {
                    state.open += 1;
                    break;
                }
            }
            self.asked.notify_one();
            changed.await;
            has_waited = true;
        }
        drop(waiting);
        let permit = StreamPermit(Arc::clone(self));
        if has_waited {
            // Those that began together end together: whose own time is over as well, by which the
            // permit became free, gives it up here, and has sent nothing.
            tokio::task::yield_now().await;
        }
        Some(permit)
    }

    /// The peer takes so many at once.
    pub(crate) fn allow(&self, most: usize) {
        let mut state = self.state();
        if std::mem::replace(&mut state.most, most) < most {
            self.changed.notify_waiters();
        }
        if state.waiting > 0 {
            self.asked.notify_one();
        }
    }

    /// Ends when the peer's number is worth a look, because a request waits.
    pub(crate) async fn wanted(&self) {
        self.asked.notified().await;
        tokio::time::sleep(LOOK_EVERY).await;
    }

    /// Whether nobody uses the connection.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.state();
        state.open == 0 && state.waiting == 0
    }

    /// The connection has ended.
    pub(crate) fn end(&self) {
        self.state().is_over = true;
        self.changed.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing can panic while it is held; the numbers are whole in any case.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        self.0.state().open -= 1;
        self.0.changed.notify_one();
    }
}

impl<'s> Waiting<'s> {
    fn begin(streams: &'s Streams) -> Self {
        streams.state().waiting += 1;
        Self(streams)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.state().waiting -= 1;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn there_are_never_more_turns_than_the_peer_takes() {
        let streams = Arc::new(Streams::default());
        let first = streams.enter().await.unwrap();
        assert!(streams.enter().now_or_never().is_none(), "one until the peer has spoken");
        streams.wanted().await;
        streams.allow(3);
        let second = streams.enter().await.unwrap();
        let third = streams.enter().await.unwrap();
        assert!(streams.enter().now_or_never().is_none());
        streams.allow(1);
        drop((first, second));
        assert!(streams.enter().now_or_never().is_none(), "it may take fewer at any time");
        let mut waiting = std::pin::pin!(streams.enter());
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(third);
        assert!(waiting.await.is_some());
        streams.end();
        assert!(streams.enter().await.is_none());
    }
}
