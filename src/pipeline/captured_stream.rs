//! Where the pump reads from: PostgreSQL's stream, or what stands for it in the simulation.

use crate::flow::change::CapturedItem;
use crate::replication::error::SourceError;
use crate::replication::stream::ReplicationSource;

/// Committed changes in commit order. What was not confirmed may come again, whenever the connection
/// behind it is made anew.
pub(crate) trait CapturedStream {
    /// As [`ReplicationSource::next`]: waits for what comes next and appends all that is at hand.
    /// Cancellation-safe.
    ///
    /// # Errors
    /// What waiting cannot mend.
    async fn next(&mut self, captured: &mut Vec<CapturedItem>) -> Result<(), SourceError>;

    /// Whether more is on its way already.
    fn expects_more(&self) -> bool;
}

impl CapturedStream for ReplicationSource {
    async fn next(&mut self, captured: &mut Vec<CapturedItem>) -> Result<(), SourceError> {
        Self::next(self, captured).await
    }

    fn expects_more(&self) -> bool {
        Self::expects_more(self)
    }
}
