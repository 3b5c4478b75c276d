//! Attempts as they are made, for readers of the API: kept only while one watches, and never waited for.
//!
//! ```text
//! lanes ─ DeliveryAttempt ─▶ ledger ─▶ [AttemptFeed], the last few thousand ─▶ GET /api/v1/live
//! ```
//!
//! The ledger pays for a look at a number while nobody watches. A reader that is too slow misses the
//! oldest, and is told how many.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use crate::flow::event::EventId;
use crate::flow::settlement::DeliveryAttempt;
use crate::flow::time::Timestamp;
use crate::flow::verdict::AttemptVerdict;
use crate::store::push_log::AttemptOutcome;
use crate::store::stored_event::row_key;

/// Attempts that are kept: most of a second of the highest rate.
const KEPT_MAX: usize = 4096;

/// One attempt, as much of it as a line shows.
#[derive(Clone, Debug)]
pub(crate) struct SeenAttempt {
    /// When its outcome was known.
    pub at: Timestamp,
    pub endpoint: Arc<str>,
    /// The first of its events.
    pub event: EventId,
    pub event_type: Arc<str>,
    pub row_key: Option<String>,
    /// How many events the request carried.
    pub events: usize,
    pub retry_count: u32,
    pub outcome: AttemptOutcome,
    pub status: Option<u16>,
    pub class: Option<&'static str>,
    pub duration_ms: f64,
    pub replay: bool,
}

#[derive(Debug, Default)]
struct FeedQueue {
    /// The number of the first one that is kept.
    first: u64,
    kept: VecDeque<Arc<SeenAttempt>>,
}

#[derive(Debug, Default)]
struct FeedShared {
    watchers: AtomicUsize,
    queue: Mutex<FeedQueue>,
}

/// Hands attempts to the readers that watch them. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct AttemptFeed(Arc<FeedShared>);

/// A reader watches, until this is dropped.
#[derive(Debug)]
pub(crate) struct FeedWatch {
    feed: AttemptFeed,
    next: u64,
}

impl AttemptFeed {
    /// Takes in an attempt for `endpoint`, if a reader watches.
    pub(crate) fn note(&self, endpoint: &Arc<str>, attempt: &DeliveryAttempt) {
        if self.0.watchers.load(Ordering::Relaxed) == 0 {
            return;
        }
        let (lease, exchange) = (&attempt.lease, &attempt.exchange);
        let Some(event) = lease.events.first() else { return };
        let seen = SeenAttempt {
            at: attempt.finished,
            endpoint: Arc::clone(endpoint),
            event: event.id,
            event_type: Arc::clone(&event.event_type),
            row_key: row_key(&event.facts).map(str::to_owned),
            events: lease.events.len(),
            retry_count: lease.attempt.saturating_sub(1),
            outcome: match (&exchange.verdict, attempt.retry_in) {
                (AttemptVerdict::Delivered, _) => AttemptOutcome::Delivered,
                (_, Some(_)) => AttemptOutcome::Retry,
                (_, None) => AttemptOutcome::Dead,
            },
            status: exchange.status,
            class: exchange.failure.as_ref().map(|failure| failure.class.as_str()),
            duration_ms: exchange.took.as_secs_f64() * 1000.0,
            replay: lease.replay,
        };
        let mut queue = self.queue();
        if queue.kept.len() == KEPT_MAX {
            queue.kept.pop_front();
            queue.first += 1;
        }
        queue.kept.push_back(Arc::new(seen));
    }

    /// A reader watches from here on.
    pub(crate) fn watch(&self) -> FeedWatch {
        self.0.watchers.fetch_add(1, Ordering::Relaxed);
        let queue = self.queue();
        let next = queue.first + queue.kept.len() as u64;
        drop(queue);
        FeedWatch { feed: self.clone(), next }
    }

    fn queue(&self) -> MutexGuard<'_, FeedQueue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FeedWatch {
    /// What came since the last call and `is_meant`, the newest `most` of it, the oldest first; and how
    /// many there were besides.
    pub(crate) fn take(
        &mut self,
        most: usize,
        is_meant: impl Fn(&SeenAttempt) -> bool,
    ) -> (Vec<Arc<SeenAttempt>>, u64) {
        let queue = self.feed.queue();
        let missed = queue.first.saturating_sub(self.next);
        let known = usize::try_from(self.next.saturating_sub(queue.first)).unwrap_or(usize::MAX);
        let new = queue.kept.iter().skip(known).filter(|seen| is_meant(seen));
        let mut taken: Vec<Arc<SeenAttempt>> = new.cloned().collect();
        self.next = queue.first + queue.kept.len() as u64;
        drop(queue);
        let over = taken.len().saturating_sub(most);
        taken.drain(..over);
        (taken, missed + over as u64)
    }
}

impl Drop for FeedWatch {
    fn drop(&mut self) {
        if self.feed.0.watchers.fetch_sub(1, Ordering::Relaxed) == 1 {
            let mut queue = self.feed.queue();
            queue.first += queue.kept.len() as u64;
            queue.kept = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::flow::body::EventBody;
    use crate::flow::event::Event;
    use crate::flow::event::EventFacts;
    use crate::flow::event::IdOrigin;
    use crate::flow::headers::HeaderLines;
    use crate::flow::key::EventKeys;
    use crate::flow::lease::Lease;
    use crate::flow::lease::LeaseId;
    use crate::flow::lsn::Lsn;
    use crate::flow::lsn::Position;
    use crate::flow::relation::TableName;
    use crate::flow::settlement::EndpointIndex;
    use crate::flow::verdict::AttemptReach;
    use crate::flow::verdict::HttpExchange;

    fn attempt(number: u32) -> DeliveryAttempt {
        let position = Position { commit: Lsn::from_raw(1), ordinal: number };
        let event = Event {
            id: crate::flow::event::EventId::new(position, IdOrigin::new(0, "order")),
            sequence: 0,
            position,
            event_type: "order".into(),
            table: Arc::new(TableName::new("public", "orders")),
            committed: Timestamp::default(),
            keys: EventKeys::NONE,
            expiry: None,
            body: EventBody::new(Vec::new()),
            facts: EventFacts::new(vec![("id".into(), number.to_string())]),
            write_back: None,
            held: None,
        };
        let lease =
            Lease { id: LeaseId(0), attempt: 1, replay: false, events: vec![Arc::new(event)] };
        let exchange = HttpExchange {
            verdict: AttemptVerdict::Delivered,
            reach: AttemptReach::Endpoint,
            requests: 1,
            failure: None,
            status: Some(200),
            took: Duration::from_millis(2),
            request_headers: HeaderLines::default(),
            response_headers: HeaderLines::default(),
            response_body: bytes::Bytes::new(),
        };
        let (endpoint, finished) = (EndpointIndex(0), Timestamp::default());
        DeliveryAttempt { endpoint, lease, exchange, finished, retry_in: None }
    }

    fn keys(taken: &[Arc<SeenAttempt>]) -> Vec<&str> {
        taken.iter().filter_map(|seen| seen.row_key.as_deref()).collect()
    }

    #[test]
    fn nothing_is_kept_while_nobody_looks_on() {
        let (feed, crm) = (AttemptFeed::default(), Arc::from("crm"));
        feed.note(&crm, &attempt(1));
        let mut watch = feed.watch();
        feed.note(&crm, &attempt(2));
        let (taken, missed) = watch.take(10, |_| true);
        assert_eq!((keys(&taken), missed), (vec!["2"], 0));
        assert_eq!(watch.take(10, |_| true).0.len(), 0, "each comes once");
        drop(watch);
        feed.note(&crm, &attempt(3));
        assert!(feed.queue().kept.is_empty());
    }

    #[test]
    fn whoever_is_slow_misses_the_oldest_and_is_told_how_many() {
        let (feed, crm) = (AttemptFeed::default(), Arc::from("crm"));
        let mut watch = feed.watch();
        let over = 100;
        for number in 0..u32::try_from(KEPT_MAX).unwrap() + over {
            feed.note(&crm, &attempt(number));
        }
        let (taken, missed) = watch.take(3, |_| true);
        let last = KEPT_MAX as u64 + u64::from(over);
        let expected: Vec<String> = (last - 3..last).map(|n| n.to_string()).collect();
        assert_eq!((keys(&taken), missed), (expected.iter().map(|k| &**k).collect(), last - 3));
        feed.note(&crm, &attempt(7));
        let (taken, missed) = watch.take(3, |seen| seen.row_key.as_deref() != Some("7"));
        assert_eq!((taken.len(), missed), (0, 0), "what is not meant is not missed");
    }
}
