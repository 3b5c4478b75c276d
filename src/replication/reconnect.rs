//! Makes a lost connection anew, for a slot that was ours a moment ago: it has to be ours still, and
//! what comes next has to follow on what is settled.
//!
//! ```text
//! stream lost ─▶ [reconnect] ─ same epoch? no gap? ─▶ stream
//!                     └─ another walhook, another server, a promoted standby ─▶ the end, named
//! ```

use std::time::Duration;

use tokio::sync::watch;

use crate::replication::catalog::facts;
use crate::replication::connection::ChangeStream;
use crate::replication::connection::SlotClaim;
use crate::replication::connection::SourceTerms;
use crate::replication::connection::connect;
use crate::replication::diagnostic::SetupDiagnostic;
use crate::replication::error::SourceError;
use crate::replication::gap_survey;
use crate::replication::gap_survey::SlotMovers;
use crate::replication::wire::command;
use crate::replication::wire::command::SystemIdentity;
use crate::store;
use crate::store::SqlSession;
use crate::store::progress;
use crate::store::progress::StoredProgress;
use crate::store::progress::lineage;
use crate::store::state_error::StateError;

/// First and longest wait before a lost connection is tried again.
pub(super) const RECONNECT_FIRST: Duration = Duration::from_millis(100);
pub(super) const RECONNECT_CAP: Duration = Duration::from_secs(2);

/// Connects to a slot that was ours a moment ago.
///
/// # Errors
/// Why the stream cannot go on where it was; see [`SourceError::is_transient`].
pub(super) async fn reconnect(
    terms: &mut SourceTerms,
    known: &SystemIdentity,
    claim: Option<&SlotClaim>,
) -> Result<ChangeStream, SourceError> {
    writable_again(&mut terms.writable).await;
    let connected = match connect(terms).await {
        Err(away @ SourceError::Connect(_)) => return Err(away),
        connected => connected,
    };
    let Some(claim) = claim else {
        let (stream, SystemIdentity { system: found, .. }) = connected?;
        let expected = known.system;
        if found != expected {
            return Err(
                SetupDiagnostic::OtherSystem { expected, found, from: None, to: None }.into()
            );
        }
        return Ok(stream);
    };
    let settings = &terms.settings;
    // At once: over a slow network each login takes many round trips.
    let (session, state) = tokio::try_join!(
        store::connect_within(&settings.server, store::ANSWER_SOON),
        store::connect_within(&claim.state, store::ANSWER_SOON),
    )?;
    // The slot before the state: see `gap_survey::survey`.
    let slot = facts::slot(&session.client, &settings.slot).await?;
    // Whether or not we got the slot: another walhook may have had it meanwhile, or has it now.
    let progress = still_ours(&state, &settings.slot, claim).await?;
    let (stream, identity) = match connected {
        Ok((stream, identity)) => (Ok(stream), identity),
        // As after the promotion of a standby. The state says what is lost.
        Err(missing @ SourceError::Refused(SetupDiagnostic::SlotMissing { .. })) => {
            let mut connection =
                command::connect(&settings.server, settings.wal_sender_timeout).await?;
            let identity = connection.identify_system().await?;
            connection.close().await;
            (Err(missing), identity)
        }
        Err(error) => return Err(error),
    };
    let found = gap_survey::survey(
        &session.client,
        settings,
        &identity,
        SlotMovers::OnlyUs,
        slot,
        &progress,
    )
    .await?;
    if !found.is_empty() {
        return Err(SourceError::NotSetUp(found));
    }
    let stream = stream?;
    // What is settled from here on belongs to the history of the server that was promoted.
    if progress.lineage.is_some_and(|lineage| lineage.timeline != identity.timeline) {
        let (slot, timeline) = (&settings.slot, identity.timeline);
        lineage::follow(&state.client, slot, claim.epoch, timeline).await?;
        tracing::info!(slot, timeline, "following the server that was promoted");
    }
    Ok(stream)
}

/// Makes sure that no other walhook has taken the slot.
async fn still_ours(
    state: &SqlSession,
    slot: &str,
    claim: &SlotClaim,
) -> Result<StoredProgress, StateError> {
    match progress::load(&state.client, slot).await? {
        Some(progress) if progress.epoch == claim.epoch => Ok(progress),
        Some(progress) if progress.epoch < claim.epoch => {
            Err(StateError::SetBack { slot: slot.to_owned() })
        }
        other => {
            let holder = other.map_or_else(String::new, |progress| progress.holder);
            Err(StateError::Fenced { slot: slot.to_owned(), holder })
        }
    }
}

/// Waits until outcomes can be written down again.
async fn writable_again(writable: &mut watch::Receiver<bool>) {
    // Without a ledger nobody says otherwise.
    drop(writable.wait_for(|writable| *writable).await);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backoff::Backoff;
    use crate::store::session::dial::CONNECT_TIMEOUT;

    /// What is promised once a network that was late, dribbled or reset is well again.
    const HEALED_MAX: Duration = Duration::from_secs(10);

    /// The attempt that was under way when it healed, and hangs; the longest wait; the one that gets through.
    #[test]
    fn a_network_that_is_well_again_has_the_stream_back_within_ten_seconds() {
        let mut backoff = Backoff::new(RECONNECT_FIRST, RECONNECT_CAP);
        for _ in 0..100 {
            assert!(CONNECT_TIMEOUT + backoff.next_at(1.0) < HEALED_MAX);
        }
        // However long it was ill: the wait does not grow beyond that.
        assert_eq!(backoff.next_at(1.0), RECONNECT_CAP);
    }
}
