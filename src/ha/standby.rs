//! Hot standby: waits until the slot is free, however long another walhook has it.
//!
//! It looks at the slot with plain SQL, which is cheap, and connects for replication only when
//! nobody holds the slot any more. A holder that is no walhook is not waited for like this: it is
//! named, and the start fails, since such a holder is a mistake.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::configuration::Settings;
use crate::pipeline::source_thread::AttachedSource;
use crate::pipeline::source_thread::SourceThread;
use crate::preflight::ownership;
use crate::preflight::ownership::StartConsent;
use crate::replication::diagnostic::SetupDiagnostic;
use crate::replication::error::SourceError;
use crate::replication::slot_holder;
use crate::replication::slot_holder::SlotHolderSession;
use crate::replication::status::SlotHolder;
use crate::replication::status::StatusHandle;
use crate::store;
use crate::store::APPLICATION_NAME;
use crate::store::SqlSession;
use crate::store::crash_records;
use crate::store::error::StoreError;
use crate::store::progress;
use crate::store::progress::StoredProgress;
use crate::store::slot_owner::OwnerKinship;
use crate::store::state_error::StateError;

/// Between two looks at the slot: a takeover within a second leaves room for the start itself.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Between two looks while the server is away.
const AWAY_PAUSE: Duration = Duration::from_millis(500);

/// A holder takes up the state after the slot: its own words are there a moment later.
const WORDS_AFTER: Duration = Duration::from_secs(1);

/// How often the words are read again.
const WORDS_EVERY: Duration = Duration::from_secs(10);

/// How often a standby says in the log that it still waits.
const REMIND_EVERY: Duration = Duration::from_secs(3600);

/// Waits for the slot, then has the reader take it. What goes wrong on the way is waited out once
/// this process has stood by.
///
/// # Errors
/// Why the slot cannot be had; that something else than a walhook holds it.
pub(crate) async fn attach(
    reader: &SourceThread,
    consent: StartConsent,
) -> anyhow::Result<AttachedSource> {
    let mut post = SlotWaiter::new(&reader.settings, reader.handles.status.clone(), consent);
    loop {
        post.until_free().await?;
        let error = match reader.clone().attach().await {
            Ok(attached) => return Ok(attached),
            Err(error) => error,
        };
        let cause = error.chain().find_map(|cause| cause.downcast_ref::<SourceError>());
        let in_use = matches!(cause, Some(SourceError::Refused(SetupDiagnostic::SlotInUse { .. })));
        let may_pass = cause.is_some_and(SourceError::may_be_mended);
        if post.stood_by && may_pass {
            post.status.waiting(format!("{error:#}"));
            tokio::time::sleep(AWAY_PAUSE).await;
        } else if !in_use || post.is_held_by_stranger().await? {
            return Err(error);
        }
    }
}

/// Where a standby waits.
struct SlotWaiter<'a> {
    settings: &'a Settings,
    status: StatusHandle,
    consent: StartConsent,
    session: Option<SqlSession>,
    /// Whether the slot was another walhook's at any time.
    stood_by: bool,
}

/// The holder that was seen last.
struct WatchedSlot {
    pid: i32,
    /// When its words are read.
    words_at: Instant,
    /// When the log says so, next time.
    remind_at: Instant,
}

impl<'a> SlotWaiter<'a> {
    fn new(settings: &'a Settings, status: StatusHandle, consent: StartConsent) -> Self {
        Self { settings, status, consent, session: None, stood_by: false }
    }

    /// Waits while a walhook has the slot.
    async fn until_free(&mut self) -> anyhow::Result<()> {
        let (mut watched, mut kept_back): (Option<WatchedSlot>, Option<String>) = (None, None);
        let mut free_since: Option<Instant> = None;
        loop {
            match self.look().await {
                Ok(None) if self.stood_by => match self.heir().await? {
                    None => break,
                    Some(_)
                        if self.has_waited_enough(*free_since.get_or_insert_with(Instant::now)) =>
                    {
                        tracing::warn!(
                            "the slot of a holder that had other events is taken over: nobody came back \
                             for it within --take-over-after"
                        );
                        break;
                    }
                    Some(reason) => {
                        watched = None;
                        self.status.holder(None);
                        if kept_back.as_ref() != Some(&reason) {
                            tracing::warn!(reason, "the slot is free and is not taken over");
                            kept_back = Some(reason.clone());
                        }
                        self.status.standby(reason);
                        tokio::time::sleep(AWAY_PAUSE).await;
                    }
                },
                Ok(None) => break,
                Ok(Some(holder)) if !self.stood_by && !self.is_walhook(&holder) => return Ok(()),
                Ok(Some(holder)) => {
                    (self.stood_by, kept_back, free_since) = (true, None, None);
                    self.watch(&mut watched, holder).await?;
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                Err(error) if self.stood_by && error.may_be_mended() => {
                    self.session = None;
                    let error = anyhow::Error::new(error);
                    self.status.waiting(format!("standby: {error:#}"));
                    watched = None;
                    tokio::time::sleep(AWAY_PAUSE).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        if self.stood_by {
            tracing::info!(slot = self.settings.postgres.slot, "the slot is free, taking over");
            self.status.holder(None);
        }
        Ok(())
    }

    fn has_waited_enough(&self, free_since: Instant) -> bool {
        self.consent.free_for.is_some_and(|limit| free_since.elapsed() >= limit)
    }

    async fn look(&mut self) -> Result<Option<SlotHolderSession>, StoreError> {
        let session = SqlSession::take_or_connect(
            &mut self.session,
            &self.settings.postgres.server,
            store::ANSWER_SOON,
        )
        .await?;
        let session = self.session.insert(session);
        slot_holder::look(&session.client, &self.settings.postgres.slot).await
    }

    /// Nobody is no stranger: a walhook that had the slot a moment ago has ended, or begins anew.
    async fn is_held_by_stranger(&mut self) -> Result<bool, StoreError> {
        Ok(self.look().await?.is_some_and(|holder| !self.is_walhook(&holder)))
    }

    /// Why the slot that is free is not this one's to take over; `None` if it is. The one that had it may
    /// be about to start again, and with it the events that this one does not have.
    async fn heir(&self) -> anyhow::Result<Option<String>> {
        if self.consent.slot {
            return Ok(None);
        }
        let slot = &self.settings.postgres.slot;
        let read = async {
            let session = store::connect(&self.settings.state).await?;
            let progress = progress::load(&session.client, slot).await?;
            Ok((progress, crash_records::ended_cleanly(&session.client, slot).await?))
        };
        let (progress, ended_cleanly) = match read.await {
            Ok(read) => read,
            Err(error) => {
                let error: StateError = error;
                if !error.is_transient() {
                    return Err(error.into());
                }
                return Ok(Some(format!("standby: {:#}", anyhow::Error::new(error))));
            }
        };
        let Some(progress) = progress else { return Ok(None) };
        self.refuse_foreign(&progress)?;
        Ok(match ownership::kinship(self.settings, &progress) {
            OwnerKinship::Changed { unread } if !unread.is_empty() => Some(format!(
                "standby: slot {slot} is free, but its last holder read tables that no event of this \
                 configuration is about ({}): start one of them again, the one that is meant",
                unread.join(", ")
            )),
            OwnerKinship::Changed { .. } if !ended_cleanly => Some(format!(
                "standby: slot {slot} is free, but its last holder had other events and was killed: \
                 start one of them again, the one that is meant"
            )),
            _ => None,
        })
    }

    /// # Errors
    /// The slot is another system's.
    fn refuse_foreign(&self, progress: &StoredProgress) -> Result<(), SourceError> {
        match ownership::foreign(self.settings, progress) {
            Some(refusal) if !self.consent.slot => Err(SourceError::NotSetUp(vec![refusal])),
            _ => Ok(()),
        }
    }

    /// Two walhooks on one slot have the same configuration, and so call themselves the same.
    fn is_walhook(&self, holder: &SlotHolderSession) -> bool {
        let params = &self.settings.postgres.server.params;
        let own = params.get_application_name().unwrap_or(APPLICATION_NAME);
        holder.application.as_deref() == Some(own)
    }

    /// Names the holder in status and log.
    ///
    /// # Errors
    /// It is another system's.
    async fn watch(
        &self,
        watched: &mut Option<WatchedSlot>,
        holder: SlotHolderSession,
    ) -> Result<(), SourceError> {
        let now = Instant::now();
        let pid = holder.pid;
        let known = watched.as_mut().filter(|watched| watched.pid == pid);
        let Some(known) = known else {
            if let Some(session) = &self.session {
                // Only for `walhook check`: this standby waits without it, too.
                slot_holder::stand_by(&session.client, &self.settings.postgres.slot).await.ok();
            }
            let words_at = now + WORDS_AFTER;
            *watched = Some(WatchedSlot { pid, words_at, remind_at: words_at });
            self.show(holder, None);
            return Ok(());
        };
        if known.words_at > now {
            return Ok(());
        }
        known.words_at = now + WORDS_EVERY;
        let words = self.words().await;
        if let Some(progress) = &words {
            self.refuse_foreign(progress)?;
        }
        let reason = self.show(holder, words);
        if known.remind_at <= now {
            known.remind_at = now + REMIND_EVERY;
            tracing::info!(reason, "standing by");
        }
        Ok(())
    }

    /// What the state says of the holder; nothing while the state is away.
    async fn words(&self) -> Option<StoredProgress> {
        let session = store::connect_within(&self.settings.state, store::ANSWER_SOON).await.ok()?;
        progress::load(&session.client, &self.settings.postgres.slot).await.ok()?
    }

    /// Returns the reason why this process is not ready.
    fn show(&self, holder: SlotHolderSession, words: Option<StoredProgress>) -> String {
        let name = words.as_ref().map(|progress| progress.holder.clone());
        let differs = words.as_ref().is_some_and(|progress| {
            ownership::kinship(self.settings, progress) != OwnerKinship::Same
        });
        let since = words.map(|progress| progress.held_since.iso_millis()).or(holder.since);
        let slot = &self.settings.postgres.slot;
        let who = match (&name, &holder.application) {
            (Some(name), _) => name.clone(),
            (None, Some(application)) => format!("{application}, server process {}", holder.pid),
            (None, None) => format!("server process {}", holder.pid),
        };
        let at = since.as_ref().map(|since| format!(" since {since}")).unwrap_or_default();
        let differs = if differs { ", whose events are not this configuration's" } else { "" };
        let reason = format!("standby: slot {slot} is held by {who}{at}{differs}");
        self.status.holder(Some(SlotHolder {
            is_self: false,
            name,
            since,
            application_name: holder.application,
            client_address: holder.address,
            server_pid: Some(holder.pid),
        }));
        self.status.standby(reason.clone());
        reason
    }
}
