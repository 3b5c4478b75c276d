//! The requests of a lane that are under way, polled in place.
//!
//! Each needs some 4 KiB, more than the allocator has at hand, and one comes with every delivery. So
//! the memory of a request that has ended is kept for the next one.

use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio_util::sync::ReusableBoxFuture;

/// Polls the requests that a lane has started, and gives out those that have ended.
#[derive(Debug)]
pub(super) struct RequestsInFlight<'a, T> {
    running: FuturesUnordered<RunningRequest<'a, T>>,
    /// Never more than were under way at once.
    spare: Vec<ReusableBoxFuture<'a, T>>,
}

/// One of them; gives its memory back when it has ended.
#[derive(Debug)]
struct RunningRequest<'a, T>(Option<ReusableBoxFuture<'a, T>>);

impl<'a, T> Future for RunningRequest<'a, T> {
    type Output = (T, Option<ReusableBoxFuture<'a, T>>);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Some(future) => {
                let output = ready!(future.poll(cx));
                Poll::Ready((output, self.0.take()))
            }
            None => Poll::Pending, // it has ended, and nobody asks again
        }
    }
}

impl<'a, T> RequestsInFlight<'a, T> {
    pub(super) fn new() -> Self {
        Self { running: FuturesUnordered::new(), spare: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// It is first polled by [`Self::next`].
    pub(super) fn start(&mut self, request: impl Future<Output = T> + Send + 'a) {
        let boxed = match self.spare.pop() {
            Some(mut spare) => {
                spare.set(request);
                spare
            }
            None => ReusableBoxFuture::new(request),
        };
        self.running.push(RunningRequest(Some(boxed)));
    }

    /// The next one that has ended; `None` if none is under way. May be dropped at any time.
    pub(super) async fn next(&mut self) -> Option<T> {
        let (output, spare) = self.running.next().await?;
        self.spare.extend(spare);
        if self.running.is_empty() {
            // At rest; one is enough for a lane that makes one request at a time.
            self.spare.truncate(1);
            self.spare.shrink_to_fit();
        }
        Some(output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test(start_paused = true)]
    async fn requests_end_in_their_own_time_and_memory_is_used_again() {
        let mut in_flight = RequestsInFlight::new();
        let request = |number: u64| async move {
            tokio::time::sleep(std::time::Duration::from_millis(number)).await;
            number
        };
        assert_eq!(in_flight.next().await, None);
        for number in [3, 1, 2] {
            in_flight.start(request(number));
        }
        assert_eq!(in_flight.next().now_or_never(), None);
        assert_eq!(in_flight.next().await, Some(1));
        in_flight.start(request(9));
        assert_eq!(in_flight.spare.len(), 0, "its memory is that of the one that has ended");
        for number in [2, 3, 9] {
            assert_eq!(in_flight.next().await, Some(number));
        }
        assert!(in_flight.is_empty());
        assert_eq!(in_flight.spare.len(), 1, "a lane at rest keeps little");
    }
}
