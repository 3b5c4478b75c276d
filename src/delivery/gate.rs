//! A body that leaves only while requests may be made.
//!
//! A process may be frozen between the look before a step of a request and the step itself. So the
//! last look is taken where the body is handed to the socket. Without its body a request is none.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use http_body::Frame;
use http_body::SizeHint;
use tokio::time::Sleep;

use crate::delivery::body::Outgoing;

/// Says whether requests may be made at this moment. Asked often: it has to be cheap.
pub type MaySend = Arc<dyn Fn() -> bool + Send + Sync>;

/// How often a body that is kept back looks whether it may go on.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// See the module's header.
pub(crate) struct Gated {
    body: Outgoing,
    may_send: MaySend,
    /// Until the next look.
    pause: Option<Pin<Box<Sleep>>>,
}

impl Gated {
    pub(crate) fn new(body: Outgoing, may_send: MaySend) -> Self {
        Self { body, may_send, pause: None }
    }
}

impl Body for Gated {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        while !(self.may_send)() {
            let pause = self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(LOOK_EVERY)));
            if pause.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            self.pause = None;
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl fmt::Debug for Gated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gated").finish_non_exhaustive()
    }
}
