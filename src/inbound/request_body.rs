//! Reads a callback's body: bounded in bytes, in time, and in what all of them hold together.
//!
//! ```text
//! announced ≤ 16 KiB ──────────────────────▶ read
//! larger, or not announced ─ its bytes free? ─▶ read ─ too large ─▶ passed over, then 413
//! ```
//!
//! Anyone who finds the URL can send bodies, and none of them is believed before all of it is there. Small
//! ones, as those of WeCom are, wait for nobody; large ones share [`LARGE_TOTAL_BYTES`], so that a thousand of
//! them that drip hold no more than that. What is too large is read on for a while without being kept:
//! a sender that still writes would not see its answer.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use bytes::BytesMut;
use futures_util::StreamExt;
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::inbound::refusal::InboundRefusal;

/// The largest callback. WeCom's have a few KiB.
const BODY_MAX_BYTES: usize = 256 << 10;

/// What is passed over of one that is larger.
const PASSED_OVER_BYTES: usize = 4 << 20;

/// From the head to the last byte of the body.
const BODY_TIME: Duration = Duration::from_secs(5);

/// Bodies up to this size wait for no others.
const SMALL_BYTES: usize = 16 << 10;

/// What all others hold together.
const LARGE_TOTAL_BYTES: usize = 16 << 20;

/// The bytes that large bodies share.
#[derive(Debug)]
pub(super) struct BodyBudget(Semaphore);

impl Default for BodyBudget {
    fn default() -> Self {
        Self(Semaphore::new(LARGE_TOTAL_BYTES))
    }
}

impl BodyBudget {
    /// The whole body.
    ///
    /// # Errors
    /// It is too large, or did not come in time.
    pub(super) async fn read(&self, body: Incoming) -> Result<Bytes, InboundRefusal> {
        let announced = body.size_hint();
        if announced.lower() > PASSED_OVER_BYTES as u64 {
            return Err(InboundRefusal::Size);
        }
        let most = announced.upper().and_then(|most| usize::try_from(most).ok());
        let most = most.unwrap_or(BODY_MAX_BYTES).min(BODY_MAX_BYTES);
        let read = async {
            let share = u32::try_from(most).ok().filter(|_| most > SMALL_BYTES);
            let share = share.map(|share| self.0.acquire_many(share));
            let _held = match share {
                Some(share) => Some(share.await.map_err(|_closed| InboundRefusal::Unavailable)?),
                None => None,
            };
            gather(body).await
        };
        timeout(BODY_TIME, read).await.unwrap_or(Err(InboundRefusal::Incomplete))
    }
}

async fn gather(body: Incoming) -> Result<Bytes, InboundRefusal> {
    let mut pieces = Body::new(body).into_data_stream();
    let (mut whole, mut seen) = (BytesMut::new(), 0);
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|_broken_off| InboundRefusal::Incomplete)?;
        seen += piece.len();
        if seen > PASSED_OVER_BYTES {
            break;
        }
        if seen > BODY_MAX_BYTES {
            whole = BytesMut::new();
        } else {
            whole.extend_from_slice(&piece);
        }
    }
    if seen > BODY_MAX_BYTES { Err(InboundRefusal::Size) } else { Ok(whole.freeze()) }
}
