//! Whether slot and publication are this configuration's to read and to change.
//!
//! Two systems on one server may both have the default names in their configurations. Neither takes
//! the other's slot, changes its publication, or is told to: see [`slot_owner`].

use std::time::Duration;

use tokio_postgres::Client;

use crate::config::configuration::Settings;
use crate::preflight::gaps;
use crate::replication::diagnostic::SetupDiagnostic;
use crate::replication::error::SourceError;
use crate::replication::gap_survey;
use crate::replication::slot_holder;
use crate::store;
use crate::store::crash_records;
use crate::store::progress::StoredProgress;
use crate::store::slot_owner;
use crate::store::slot_owner::OwnerKinship;
use crate::store::slot_owner::SlotOwner;

/// What an operator has agreed to beforehand.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StartConsent {
    /// `--accept-gap`: to go on where changes are lost.
    pub gap: bool,
    /// `--take-slot`: to read a slot that was read for other tables.
    pub slot: bool,
    /// `--take-over-after`: as a standby, to take a slot that has been free for so long, whichever events
    /// of the same system its last holder had.
    pub free_for: Option<Duration>,
}

/// Looks at slot and publication; nothing is changed. What `problems` say of a publication that is
/// another system's is taken out. `changes_publication`: a start would change it.
///
/// # Errors
/// The server or the state cannot be asked.
pub(crate) async fn judge(
    settings: &Settings,
    client: &Client,
    changes_publication: bool,
    problems: &mut Vec<SetupDiagnostic>,
) -> anyhow::Result<()> {
    if let Some(progress) = gaps::known(settings).await?
        && let Some(refusal) = foreign(settings, &progress)
        && !is_given_up(settings, client).await?
    {
        problems.push(refusal);
    }
    let lacks =
        |problem: &SetupDiagnostic| matches!(problem, SetupDiagnostic::PublicationLacks { .. });
    if (changes_publication || problems.iter().any(lacks))
        && let Some(refusal) = read_by_another(settings, client).await?
    {
        problems.retain(|problem| !lacks(problem));
        problems.push(refusal);
    }
    Ok(())
}

/// What this configuration is to the one that has read the slot before.
pub(crate) fn kinship(settings: &Settings, progress: &StoredProgress) -> OwnerKinship {
    let own = SlotOwner::new(&settings.events);
    progress.owner.as_ref().map_or(OwnerKinship::Same, |owner| own.kinship(owner))
}

/// Nobody reads the slot, and the walhook that did has ended as an operator asked it to: a start with
/// other tables is an operator's wish, too.
async fn is_given_up(settings: &Settings, client: &Client) -> anyhow::Result<bool> {
    let slot = &settings.postgres.slot;
    if slot_holder::server_pid(client, slot).await?.is_some() {
        return Ok(false);
    }
    let state = store::connect(&settings.state).await?;
    Ok(crash_records::ended_cleanly(&state.client, slot).await?)
}

/// Says so in the log when a slot is taken for other events than those that it was read for.
///
/// # Errors
/// It was read for other tables altogether by a run that did not end cleanly, and nobody has agreed to
/// that.
pub(crate) fn admit(
    settings: &Settings,
    progress: &StoredProgress,
    consent: StartConsent,
    ended_cleanly: bool,
) -> Result<(), SourceError> {
    let unread = match kinship(settings, progress) {
        OwnerKinship::Same => return Ok(()),
        OwnerKinship::Changed { unread } => unread.join(", "),
        OwnerKinship::Foreign => {
            let refusal = foreign(settings, progress);
            if let Some(refusal) = refusal.filter(|_| !consent.slot && !ended_cleanly) {
                return Err(SourceError::NotSetUp(vec![refusal]));
            }
            progress.owner.as_ref().map(SlotOwner::shown).unwrap_or_default()
        }
    };
    if !unread.is_empty() {
        tracing::warn!(
            slot = settings.postgres.slot,
            tables = unread,
            "no event is about these tables any more: their changes since the last run are dropped; \
             if another system reads them, give it a slot of its own"
        );
    }
    Ok(())
}

/// Why the slot must not be taken, if it was read for other tables altogether.
pub(crate) fn foreign(settings: &Settings, progress: &StoredProgress) -> Option<SetupDiagnostic> {
    if kinship(settings, progress) != OwnerKinship::Foreign {
        return None;
    }
    Some(SetupDiagnostic::SlotOfOther {
        slot: settings.postgres.slot.clone(),
        theirs: progress.owner.as_ref().map(SlotOwner::shown).unwrap_or_default(),
        ours: SlotOwner::new(&settings.events).shown(),
        holder: progress.holder.clone(),
    })
}

/// The publication is there, and another slot of this database is read through it for another
/// configuration.
async fn read_by_another(
    settings: &Settings,
    client: &Client,
) -> anyhow::Result<Option<SetupDiagnostic>> {
    let publication = settings.postgres.publication.clone();
    let Some(oid) = gap_survey::publication(client, &publication).await? else { return Ok(None) };
    let state = store::connect(&settings.state).await?;
    let own = SlotOwner::new(&settings.events);
    let readers = slot_owner::readers(&state.client, &settings.postgres.slot, oid).await?;
    for reader in readers {
        if reader.owner.as_ref().is_some_and(|owner| own.kinship(owner) == OwnerKinship::Same) {
            continue;
        }
        let question = "SELECT FROM pg_catalog.pg_replication_slots \
                        WHERE slot_name = $1 AND database = pg_catalog.current_database()";
        if client.query_opt(question, &[&reader.slot]).await?.is_some() {
            let theirs = reader.owner.map(|owner| format!(" for {}", owner.shown()));
            let (slot, theirs) = (reader.slot, theirs.unwrap_or_default());
            return Ok(Some(SetupDiagnostic::PublicationOfOther { publication, slot, theirs }));
        }
    }
    Ok(None)
}
