//! Reads a stream to its end after it was told to stop.

use std::io;
use std::time::Duration;

use postgres_protocol::message::backend;
use tokio::io::AsyncRead;

use bytes::Buf;

use crate::replication::error::SourceError;
use crate::replication::wire::frame::FrameReader;
use crate::replication::wire::frame::LargeFrame;
use crate::replication::wire::message::MessageHeader;

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads and drops what is still coming until the server has ended the stream, which shows
    /// that it has taken in our last status update and has let go of the slot.
    ///
    /// In the middle of a large transaction the server sends the rest of it first: after `limit`
    /// this gives up, which is no harm but that the slot stays in use a little longer.
    ///
    /// # Errors
    /// The server's error, or [`SourceError::Disconnected`], also after `limit`.
    pub async fn finish(mut self, limit: Duration) -> Result<(), SourceError> {
        let timed_out = |_| SourceError::Disconnected(io::Error::from(io::ErrorKind::TimedOut));
        tokio::time::timeout(limit, self.drain()).await.map_err(timed_out)?
    }

    async fn drain(&mut self) -> Result<(), SourceError> {
        let mut skip = match self.large.take() {
            Some(LargeFrame::Reading { total, whole, .. }) => total - whole.len(),
            Some(LargeFrame::Waiting { .. }) | None => 0, // all of it is still in the buffer
        };
        loop {
            let here = skip.min(self.buf.len());
            self.buf.advance(here);
            skip -= here;
            if skip == 0
                && let Some(header) = MessageHeader::peek(&self.buf)?
            {
                match header.tag {
                    backend::COMMAND_COMPLETE_TAG => return Ok(()),
                    backend::ERROR_RESPONSE_TAG => {
                        if self.buf.len() >= header.total {
                            let whole = self.buf.split_to(header.total);
                            self.control(whole)?;
                        }
                    }
                    _ => {
                        skip = header.total;
                        continue;
                    }
                }
            }
            self.fill_shared().await?;
        }
    }
}
