//! Endpoints that several members change: versions, conflicts, tombstones.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::config::configuration::Settings;
use crate::config::settings::ServerSettings;
use crate::endpoints::from_table::TableFollower;
use crate::endpoints::registry::partition_snapshots::PartitionSnapshots;
use crate::pipeline::endpoint_update::KnownVersion;
use crate::pipeline::endpoint_update::LookOutcome;
use crate::pipeline::endpoint_update::UnservedEndpoints;
use crate::store;
use crate::store::SqlSession;
use crate::store::ownership::StateOwnership;
use crate::store::shared_endpoints;
use crate::store::state_error::StateError;

/// How often it is looked whether other members have changed anything.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How often those are tried again that could not be taken up.
const UNSERVED_EVERY: Duration = Duration::from_secs(5);

/// How long an answer waits until the tail keeps to what was changed. It does so in any case.
const ROUTED_MAX: Duration = Duration::from_secs(5);
const ROUTED_EVERY: Duration = Duration::from_millis(25);

/// What a member shares with others.
pub(crate) struct SharedEndpoints {
    pub(super) state: ServerSettings,
    pub(super) slot: String,
    pub(super) known: KnownVersion,
    /// Of the source, when it was looked the last time.
    pub(super) epoch: Option<i64>,
    /// The version as of which the rows of `walhook.endpoints` were taken up.
    pub(super) rows_at: i64,
    pub(super) session: Option<SqlSession>,
    /// Where this member has the slot.
    pub(super) source: Option<StateOwnership>,
    /// The version that was said to be routed.
    pub(super) told: i64,
    /// What is served here.
    pub(super) partitions: PartitionSnapshots,
    /// The table of `[endpoints_from]`, where nobody else here follows it, and the version as of which it was read.
    pub(super) table: Option<(TableFollower, i64)>,
    /// Asks for a look.
    pub(super) follows: mpsc::Receiver<oneshot::Sender<LookOutcome>>,
    /// What the log was told of.
    refused: HashSet<(Arc<str>, String)>,
    /// Endpoints that the state has and that cannot be taken up, and why; and when that was tried the last time.
    unserved: BTreeMap<Arc<str>, String>,
    tried: Option<Instant>,
    /// The log was told that nothing can be looked at.
    is_behind: bool,
}

impl SharedEndpoints {
    /// What is changed here depends on the version that is `known`. `source`: where this member has the slot.
    pub(crate) fn new(
        settings: &Settings,
        known: KnownVersion,
        source: Option<StateOwnership>,
        partitions: PartitionSnapshots,
        follows: mpsc::Receiver<oneshot::Sender<LookOutcome>>,
    ) -> Self {
        known.set(-1); // everything is looked at
        Self {
            state: settings.state.clone(),
            slot: settings.postgres.slot.clone(),
            known,
            epoch: None,
            rows_at: -1,
            session: None,
            source,
            told: -1,
            partitions,
            table: None,
            follows,
            refused: HashSet::new(),
            unserved: BTreeMap::new(),
            tried: None,
            is_behind: false,
        }
    }

    /// The endpoints of this table follow it when the tail says that it has changed.
    pub(crate) fn following(self, table: Option<TableFollower>) -> Self {
        Self { table: table.map(|table| (table, -1)), ..self }
    }

    pub(super) fn has_slot(&self) -> bool {
        self.source.is_some()
    }

    /// Whether another member was quicker than the last change.
    pub(super) fn had_conflict(&self) -> bool {
        self.known.had_conflict()
    }

    pub(super) fn partitions(&self) -> &PartitionSnapshots {
        &self.partitions
    }

    pub(super) async fn session(&mut self) -> Result<SqlSession, StateError> {
        let kept = &mut self.session;
        Ok(SqlSession::take_or_connect(kept, &self.state, store::ANSWER_SOON).await?)
    }

    /// Keeps that an endpoint is not what the state says, and names it once.
    pub(super) fn refuse(&mut self, name: &Arc<str>, error: String) {
        if self.refused.insert((Arc::clone(name), error.clone())) {
            tracing::error!(
                endpoint = %name,
                error,
                "an endpoint cannot be taken up as another member has written it"
            );
        }
        self.unserved.insert(Arc::clone(name), error);
    }

    /// Those that are to be tried again.
    pub(super) fn unserved_names(&self) -> Vec<Arc<str>> {
        self.unserved.keys().cloned().collect()
    }

    /// All of them are about to be tried again, or are gone.
    pub(super) fn forget_unserved(&mut self) {
        self.tried = Some(Instant::now());
        self.unserved.clear();
    }

    /// Whether it is time to try those again that could not be taken up.
    pub(super) fn is_due(&self) -> bool {
        let is_over = |tried: Instant| tried.elapsed() >= UNSERVED_EVERY;
        !self.unserved.is_empty() && self.tried.is_none_or(is_over)
    }

    pub(super) fn has_unserved(&self) -> bool {
        !self.unserved.is_empty()
    }

    /// What the state or the table has and is not served here.
    pub(super) fn unserved(&self) -> UnservedEndpoints {
        let of_table = self.table.iter().flat_map(|(table, _)| table.unserved());
        let all = of_table.chain(&self.unserved);
        Arc::new(all.map(|(name, why)| (Arc::clone(name), why.clone())).collect())
    }

    /// Says once that the endpoints cannot be followed, and once that they are again.
    pub(super) fn tell(&mut self, followed: &anyhow::Result<()>) {
        let was_behind = std::mem::replace(&mut self.is_behind, followed.is_err());
        match followed {
            Err(error) if !was_behind => {
                let error = format!("{error:#}");
                tracing::warn!(
                    error,
                    "the endpoints stay as they were at the last look: what others change does not hold here until this \
                     is mended"
                );
            }
            Ok(()) if was_behind => {
                tracing::info!("what others change of endpoints holds here again")
            }
            Ok(()) | Err(_) => {}
        }
    }
}

/// Waits until the tail keeps to the version, but not for long: it does so in any case.
pub(super) async fn routed(state: ServerSettings, slot: String, version: i64) {
    let deadline = Instant::now() + ROUTED_MAX;
    let wait = async {
        let session = store::connect_within(&state, store::ANSWER_SOON).await?;
        while shared_endpoints::look(&session.client, &slot)
            .await?
            .is_some_and(|now| now.routed < version)
        {
            tokio::time::sleep(ROUTED_EVERY).await;
        }
        Ok::<(), StateError>(())
    };
    match tokio::time::timeout_at(deadline, wait).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            let error = format!("{:#}", anyhow::Error::new(error));
            tracing::debug!(error, "cannot look whether a change is routed by");
        }
        Err(_late) => {
            tracing::warn!(
                "nobody who has the slot has taken a change up yet: it holds when one does"
            );
        }
    }
}
