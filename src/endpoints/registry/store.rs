//! Writes down which endpoints were made at run time, which are paused, and where they point.

use std::sync::Arc;

use crate::config::configuration::Settings;
use crate::config::settings::ServerSettings;
use crate::endpoints::registry::change::RegistryError;
use crate::flow::partition::PartitionNumber;
use crate::pipeline::endpoint_update::KnownVersion;
use crate::store;
use crate::store::SqlSession;
use crate::store::dead_letters;
use crate::store::endpoint_states;
use crate::store::endpoint_states::EndpointPause;
use crate::store::endpoints;
use crate::store::endpoints::StoredEndpoint;
use crate::store::ownership::StateOwnership;
use crate::store::renames;
use crate::store::renames::RenameObstacles;
use crate::store::shared_endpoints;
use crate::store::shared_endpoints::EndpointOrder;
use crate::store::shared_endpoints::SharedChangeError;
use crate::store::state_error::StateError;

/// Who writes down what, and by which right.
enum StoreRole {
    /// The slot's holder, alone, under this epoch.
    Source { epoch: i64 },
    /// One of several members. What is removed its owner forgets.
    Member(KnownVersion),
    /// The owner of a partition: others have written down what is changed here.
    Partition(StateOwnership),
}

/// A session that is opened when it is needed, and again after an error.
pub(crate) struct EndpointStore {
    server: ServerSettings,
    slot: String,
    role: StoreRole,
    session: Option<SqlSession>,
}

impl EndpointStore {
    /// `epoch` is our right to write for the slot.
    pub(crate) fn new(settings: &Settings, epoch: i64) -> Self {
        Self::with(settings, StoreRole::Source { epoch })
    }

    /// Changes depend on the version that is `known`, and raise it.
    pub(crate) fn of_member(settings: &Settings, known: KnownVersion) -> Self {
        Self::with(settings, StoreRole::Member(known))
    }

    pub(crate) fn of_partition(settings: &Settings, ownership: StateOwnership) -> Self {
        Self::with(settings, StoreRole::Partition(ownership))
    }

    fn with(settings: &Settings, role: StoreRole) -> Self {
        let (server, slot) = (settings.state.clone(), settings.postgres.slot.clone());
        Self { server, slot, role, session: None }
    }

    /// Whether partitions' owners deliver, and say when nothing more is owed to an endpoint that was removed.
    pub(super) fn is_of_member(&self) -> bool {
        matches!(self.role, StoreRole::Member(_))
    }

    /// Whether the tail counts what endpoints do not take.
    pub(super) fn is_of_partition(&self) -> bool {
        matches!(self.role, StoreRole::Partition(_))
    }

    /// # Errors
    /// It was not written down, or nobody knows whether it was.
    pub(super) async fn save(
        &mut self,
        row: &StoredEndpoint,
    ) -> Result<StoredEndpoint, RegistryError> {
        let epoch = match &self.role {
            StoreRole::Source { epoch } => *epoch,
            StoreRole::Member(known) => {
                let known = known.clone();
                let session = self.session().await?;
                let at = (self.slot.as_str(), known.base());
                let saved = shared_endpoints::save(&session.client, at, row).await;
                let is_conflict = matches!(saved, Err(SharedChangeError::VersionConflict));
                known.note_conflict(is_conflict);
                let (saved, version) = saved?;
                known.written(version);
                self.session = Some(session);
                return Ok(saved);
            }
            StoreRole::Partition(_) => return Ok(row.clone()),
        };
        if let Some(session) = self.session.take()
            && let Ok(saved) = endpoints::save(&session.client, &self.slot, epoch, row).await
        {
            self.session = Some(session);
            return Ok(saved);
        }
        // A session that stood idle for long may have been closed: once more over a new one.
        let session = self.session().await?;
        let saved = endpoints::save(&session.client, &self.slot, epoch, row).await?;
        self.session = Some(session);
        Ok(saved)
    }

    async fn session(&self) -> Result<SqlSession, StateError> {
        Ok(store::connect_within(&self.server, store::ANSWER_SOON).await?)
    }

    /// How many dead letters are kept of an endpoint; 0 if that cannot be told.
    pub(super) async fn letters(&self, name: &str) -> i64 {
        let counted = async {
            let session = store::connect(&self.server).await?;
            dead_letters::sizes(&session.client, &self.slot).await
        };
        match counted.await {
            Ok(sizes) => {
                let own = sizes.iter().find(|(endpoint, _)| **endpoint == *name);
                own.map_or(0, |(_, count)| i64::try_from(*count).unwrap_or(i64::MAX))
            }
            Err(error) => {
                let error: StateError = error;
                let error = format!("{:#}", anyhow::Error::new(error));
                tracing::debug!(endpoint = name, error, "cannot count dead letters");
                0
            }
        }
    }

    /// Forgets an endpoint that is no more; `is_stored`: it was made at run time.
    ///
    /// # Errors
    /// It is there still.
    pub(super) async fn remove(&mut self, name: &str, is_stored: bool) -> Result<(), StateError> {
        let epoch = match &self.role {
            StoreRole::Source { epoch } => *epoch,
            StoreRole::Member(_) => return Ok(()), // its owner does
            StoreRole::Partition(ownership) => {
                let session = self.session().await?;
                let gone = (name, is_stored);
                shared_endpoints::remove(&session.client, ownership, gone).await?;
                self.session = Some(session);
                return Ok(());
            }
        };
        let session = self.session().await?;
        if is_stored {
            endpoints::remove(&session.client, &self.slot, epoch, name).await?;
        }
        endpoint_states::forget(&session.client, &self.slot, epoch, name).await?;
        self.session = Some(session);
        Ok(())
    }

    /// # Errors
    /// It was not written down, or nobody knows whether it was.
    pub(super) async fn pause(
        &mut self,
        name: &str,
        by: &str,
    ) -> Result<EndpointPause, RegistryError> {
        let session = self.session().await?;
        let pause = match &self.role {
            StoreRole::Source { epoch } => {
                endpoint_states::pause(&session.client, &self.slot, *epoch, name, by).await?
            }
            StoreRole::Member(_) | StoreRole::Partition(_) => {
                shared_endpoints::pause(&session.client, &self.slot, name, by).await?
            }
        };
        self.session = Some(session);
        Ok(pause)
    }

    /// # Errors
    /// As [`EndpointStore::pause`].
    pub(super) async fn resume(&mut self, name: &str) -> Result<(), RegistryError> {
        let session = self.session().await?;
        match &self.role {
            StoreRole::Source { epoch } => {
                endpoint_states::resume(&session.client, &self.slot, *epoch, name).await?;
            }
            StoreRole::Member(_) | StoreRole::Partition(_) => {
                shared_endpoints::resume(&session.client, &self.slot, name).await?;
            }
        }
        self.session = Some(session);
        Ok(())
    }

    /// Where partitions' owners deliver, writes down for them what is wanted at once.
    ///
    /// # Errors
    /// As [`EndpointStore::pause`].
    pub(super) async fn order(
        &mut self,
        name: &str,
        what: EndpointOrder,
    ) -> Result<(), RegistryError> {
        if !self.is_of_member() {
            return Ok(());
        }
        let session = self.session().await?;
        shared_endpoints::order(&session.client, &self.slot, name, what).await?;
        self.session = Some(session);
        Ok(())
    }

    /// What stands in the way of another name.
    ///
    /// # Errors
    /// The state cannot be asked.
    pub(super) async fn rename_obstacles(
        &mut self,
        from: &str,
        to: &str,
    ) -> Result<RenameObstacles, StateError> {
        let session = self.session().await?;
        let found = renames::obstacles(&session.client, &self.slot, from, to).await?;
        self.session = Some(session);
        Ok(found)
    }

    /// # Errors
    /// Where the endpoints point is not written down.
    pub(super) async fn remember(&mut self, targets: &[(Arc<str>, i32)]) -> Result<(), StateError> {
        let right = match &self.role {
            StoreRole::Source { epoch } => (PartitionNumber::SOURCE, *epoch),
            StoreRole::Member(_) => return Ok(()), // its owner does
            StoreRole::Partition(ownership) => (ownership.partition(), ownership.epoch()),
        };
        if targets.is_empty() {
            return Ok(());
        }
        let session = self.session().await?;
        let client = &session.client;
        endpoint_states::remember_targets(client, &self.slot, right, targets).await?;
        self.session = Some(session);
        Ok(())
    }
}
