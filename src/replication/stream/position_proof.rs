//! Has positions proven before anything is confirmed for them; see [`crate::replication::positions`].

use std::io;
use std::time::Duration;

use tokio::time::Instant;

use crate::flow::change::CapturedItem;
use crate::flow::lsn::Lsn;
use crate::replication::error::SourceError;
use crate::replication::pgoutput::PgOutput;
use crate::replication::positions::ImplausiblePosition;
use crate::replication::positions::StreamPositions;
use crate::replication::stream::ReplicationSource;
use crate::replication::wire::frame::WireFrame;

/// How often the server is asked how far it has come, at most.
const PROOF_PAUSE: Duration = Duration::from_millis(200);

impl ReplicationSource {
    /// Asks the server whether it has come as far as a keepalive says, if it is time.
    pub(super) async fn prove(
        &mut self,
        captured: &mut Vec<CapturedItem>,
    ) -> Result<(), SourceError> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        if let Some(end) = stream.unproven
            && self.proof_due <= Instant::now()
        {
            self.proof_due = Instant::now() + PROOF_PAUSE;
            match self.catalog.wal_end(&self.terms.settings.server).await {
                Ok(server) => {
                    stream.unproven = None;
                    stream.positions.asked(end, server).map_err(damaged)?;
                    captured.extend(stream.assembler.idle(end));
                }
                // Without an answer it is not believed. There will be others.
                Err(error) => {
                    let error = anyhow::Error::new(error);
                    tracing::debug!(error = %format!("{error:#}"), "cannot ask how far it has come");
                }
            }
        }
        self.terms.status.moved(stream.heard.received());
        Ok(())
    }
}

/// Looks whether what comes now, at `end`, lies before what a keepalive said had all been sent.
pub(super) fn contradict(unproven: Option<Lsn>, end: Lsn) -> Result<(), SourceError> {
    match unproven {
        Some(said) if said > end => {
            Err(damaged(ImplausiblePosition::Beyond { end: said, server: end }))
        }
        Some(_) | None => Ok(()),
    }
}

/// Looks whether a message's positions can be true.
pub(super) fn judge(
    positions: &mut StreamPositions,
    frame: &WireFrame,
    message: Option<&PgOutput>,
) -> Result<(), SourceError> {
    match frame {
        WireFrame::Data { start, end, .. } => {
            positions.data(*start, *end, message).map_err(damaged)
        }
        WireFrame::Keepalive { .. } => Ok(()),
    }
}

/// A message that contradicts itself or the server: what comes over a new connection is whole again.
fn damaged(cause: ImplausiblePosition) -> SourceError {
    SourceError::Disconnected(io::Error::new(io::ErrorKind::InvalidData, cause))
}
