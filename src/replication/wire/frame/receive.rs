//! One read from the socket, with an eye on the clock.

use std::io;
use std::time::Duration;

use bytes::BufMut;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

use crate::replication::error::SourceError;
use crate::replication::wire::heard::LastHeard;

/// Reads once. What a cancelled call has waited counts for the next.
pub(super) async fn receive<R: AsyncRead + Unpin, B: BufMut>(
    stream: &mut R,
    into: &mut B,
    waited: &mut Duration,
    silence: Duration,
    heard: &LastHeard,
) -> Result<(), SourceError> {
    let left = silence.saturating_sub(*waited);
    let outcome = {
        let _clock = WaitingRead { total: waited, since: Instant::now() };
        // Looks at the stream before it looks at the time, so bytes that are there count.
        tokio::time::timeout(left, stream.read_buf(into)).await
    };
    let ended = |kind| Err(SourceError::Disconnected(io::Error::from(kind)));
    match outcome {
        Ok(Ok(0)) => ended(io::ErrorKind::UnexpectedEof),
        Ok(Ok(_)) => {
            *waited = Duration::ZERO;
            heard.note();
            Ok(())
        }
        Ok(Err(error)) => Err(SourceError::Disconnected(error)),
        Err(_) => ended(io::ErrorKind::TimedOut),
    }
}

/// Adds up the time of one wait, also if it is cancelled.
struct WaitingRead<'a> {
    total: &'a mut Duration,
    since: Instant,
}

impl Drop for WaitingRead<'_> {
    fn drop(&mut self) {
        *self.total += self.since.elapsed();
    }
}
