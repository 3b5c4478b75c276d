//! Names the transaction that PostgreSQL cannot send, and goes past it on the operator's word; see
//! [`crate::replication::unsendable`].

use crate::flow::change::CapturedItem;
use crate::flow::lsn::Lsn;
use crate::replication::error::SourceError;
use crate::replication::stream::ReplicationSource;
use crate::store;
use crate::store::gaps;
use crate::store::gaps::SkippedTransaction;

impl ReplicationSource {
    /// Says which transaction it is that cannot be sent.
    pub(super) fn with_transaction(&self, error: SourceError) -> SourceError {
        let SourceError::Unsendable(mut unsendable) = error else { return error };
        unsendable.slot.clone_from(&self.terms.settings.slot);
        let open = self.stream.as_ref().and_then(|stream| stream.assembler.open_transaction());
        if let Some(open) = open {
            (unsendable.commit, unsendable.sent) = (Some(open.commit), open.changes);
            (unsendable.table, unsendable.after) = (open.next, open.last);
            unsendable.candidates.clone_from(&self.terms.tables);
        } else if unsendable.at.is_none() {
            return SourceError::Server(unsendable.cause); // it is about no change
        } else {
            // The begin of a transaction comes with its first change: a row filter of the publication has
            // failed before. The operator has looked up where it commits; once, or it was not that.
            let given = self.terms.skip_transaction;
            let is_later = |commit: &Lsn| unsendable.at.is_some_and(|at| *commit > at);
            unsendable.commit = given.filter(is_later).filter(|commit| self.terms.start < *commit);
            unsendable.candidates.clone_from(&self.terms.tables);
        }
        SourceError::Unsendable(unsendable)
    }

    /// Goes past a transaction that cannot be sent, if that is what the operator wants. What came
    /// before it has been read: PostgreSQL sends transactions in the order of their commits.
    pub(super) async fn skip(
        &mut self,
        error: SourceError,
        captured: &mut Vec<CapturedItem>,
    ) -> Result<(), SourceError> {
        let SourceError::Unsendable(unsendable) = &error else { return Err(error) };
        let (Some(commit), Some(beyond)) = (unsendable.commit, unsendable.beyond()) else {
            return Err(error);
        };
        if self.terms.skip_transaction != Some(commit) {
            return Err(error);
        }
        let gap = unsendable.missing();
        if let Some(claim) = &self.claim {
            let reason = unsendable.cause.to_string();
            let sent = i64::from(unsendable.sent);
            let skipped = SkippedTransaction { commit, sent, reason, skipped_at: None };
            let session = store::connect(&claim.state).await?;
            gaps::book(&session.client, &self.terms.settings.slot, &skipped).await?;
        }
        let cause = unsendable.cause.to_string();
        tracing::error!(
            gap,
            cause,
            "going on without a transaction, as --skip-transaction says: send from its tables what \
             is missing"
        );
        self.terms.start = beyond;
        captured.push(CapturedItem::Idle { end: beyond });
        Ok(())
    }
}
