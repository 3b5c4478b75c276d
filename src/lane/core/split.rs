//! A batch that the endpoint refuses for good: it is what one of its events is, and the others are sound.
//!
//! Each event is sent alone then, in the order of its keys, so that only the one that is refused again is
//! given up. A status that is about the endpoint, and not about what it was sent, says the same of each event
//! by itself, and is believed at once.

use std::time::Duration;

use crate::flow::verdict::FailureClass;
use crate::flow::verdict::HttpExchange;
use crate::lane::core::LaneNow;
use crate::lane::core::LaneState;
use crate::lane::core::retry_queue::ResumedDelivery;
use crate::lane::core::retry_queue::RetryBatch;

/// Unauthorized, Forbidden, Method Not Allowed, Proxy Authentication Required, and redirects.
const ABOUT_THE_ENDPOINT: [u16; 4] = [401, 403, 405, 407];

/// Whether the refusal of this batch may be for the sake of one of its events.
pub(super) fn is_worth_it(parcel: &RetryBatch, exchange: &HttpExchange) -> bool {
    let about_events =
        |status: u16| !(300..400).contains(&status) && !ABOUT_THE_ENDPOINT.contains(&status);
    // A request that could not be made: each event has a URL or headers of its own.
    let is_unmade = exchange.failure.as_ref().is_some_and(|f| f.class == FailureClass::Request);
    parcel.members.len() > 1 && (is_unmade || exchange.status.is_some_and(about_events))
}

impl LaneState {
    /// Has each event of a refused batch sent by itself.
    pub(super) fn split(&mut self, parcel: RetryBatch, now: LaneNow) {
        self.note_waiting(&parcel, Duration::ZERO, now);
        let RetryBatch { members, tries } = parcel;
        for &slot in &members {
            self.order.set_resume(slot, ResumedDelivery { tries: tries.clone(), due: now.instant });
        }
        // Those behind them come to the front when these are settled.
        let first = members.into_iter().filter(|&slot| self.order.is_first(slot)).map(Some);
        let first: Vec<_> = first.collect();
        self.line_up(first);
    }
}
