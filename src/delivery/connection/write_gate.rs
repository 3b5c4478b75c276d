//! A socket that writes only while requests may be made.
//!
//! A process may be frozen between its last look at whether it may send and the sending itself: in
//! the middle of a step, or before a connection with a task of its own gets its turn. So the look
//! is taken again where it counts, immediately before the bytes go to the kernel.

use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;

/// Says whether requests may be made at this moment. Asked often: it has to be cheap.
pub(crate) type SendPermission = Arc<dyn Fn() -> bool + Send + Sync>;

/// How often a write that is kept back looks whether it may go on.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A connection that writes nothing while another walhook may own the slot.
pub(crate) struct FencedStream<S> {
    stream: S,
    may_send: SendPermission,
    /// Until the next look.
    pause: Option<Pin<Box<Sleep>>>,
    /// Given back with the socket.
    _socket: OwnedSemaphorePermit,
}

impl<S> FencedStream<S> {
    pub(crate) fn new(stream: S, may_send: SendPermission, socket: OwnedSemaphorePermit) -> Self {
        Self { stream, may_send, pause: None, _socket: socket }
    }

    fn poll_open(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while !(self.may_send)() {
            let pause = self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(LOOK_EVERY)));
            if pause.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            self.pause = None;
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FencedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FencedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.poll_open(context) {
            Poll::Ready(()) => Pin::new(&mut self.stream).poll_write(context, bytes),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.poll_open(context) {
            Poll::Ready(()) => Pin::new(&mut self.stream).poll_write_vectored(context, slices),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
