//! Writes down which endpoints were made at run time, which are paused, and where they point.

use std::sync::Arc;

use crate::config::configuration::Settings;
use crate::config::settings::ServerSettings;
use crate::store;
use crate::store::SqlSession;
use crate::store::dead_letters;
use crate::store::endpoint_states;
use crate::store::endpoint_states::EndpointPause;
use crate::store::endpoints;
use crate::store::endpoints::StoredEndpoint;
use crate::store::renames;
use crate::store::renames::RenameObstacles;
use crate::store::state_error::StateError;

/// A session that is opened when it is needed, and again after an error.
pub(crate) struct EndpointStore {
    server: ServerSettings,
    slot: String,
    epoch: i64,
    session: Option<SqlSession>,
}

impl EndpointStore {
    /// `epoch` is our right to write for the slot.
    pub(crate) fn new(settings: &Settings, epoch: i64) -> Self {
        let (server, slot) = (settings.state.clone(), settings.postgres.slot.clone());
        Self { server, slot, epoch, session: None }
    }

    /// # Errors
    /// It was not written down, or nobody knows whether it was.
    pub(super) async fn save(
        &mut self,
        row: &StoredEndpoint,
    ) -> Result<StoredEndpoint, StateError> {
        if let Some(session) = self.session.take()
            && let Ok(saved) = endpoints::save(&session.client, &self.slot, self.epoch, row).await
        {
            self.session = Some(session);
            return Ok(saved);
        }
        // A session that stood idle for long may have been closed: once more over a new one.
        let session = store::connect_within(&self.server, store::ANSWER_SOON).await?;
        let saved = endpoints::save(&session.client, &self.slot, self.epoch, row).await?;
        self.session = Some(session);
        Ok(saved)
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
        let session = store::connect_within(&self.server, store::ANSWER_SOON).await?;
        if is_stored {
            endpoints::remove(&session.client, &self.slot, self.epoch, name).await?;
        }
        endpoint_states::forget(&session.client, &self.slot, self.epoch, name).await?;
        self.session = Some(session);
        Ok(())
    }

    /// # Errors
    /// It was not written down, or nobody knows whether it was.
    pub(super) async fn pause(
        &mut self,
        name: &str,
        by: &str,
    ) -> Result<EndpointPause, StateError> {
        let session = store::connect_within(&self.server, store::ANSWER_SOON).await?;
        let pause =
            endpoint_states::pause(&session.client, &self.slot, self.epoch, name, by).await?;
        self.session = Some(session);
        Ok(pause)
    }

    /// # Errors
    /// As [`EndpointStore::pause`].
    pub(super) async fn resume(&mut self, name: &str) -> Result<(), StateError> {
        let session = store::connect_within(&self.server, store::ANSWER_SOON).await?;
        endpoint_states::resume(&session.client, &self.slot, self.epoch, name).await?;
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
        let session = store::connect_within(&self.server, store::ANSWER_SOON).await?;
        let found = renames::obstacles(&session.client, &self.slot, from, to).await?;
        self.session = Some(session);
        Ok(found)
    }

    /// # Errors
    /// Where the endpoints point is not written down.
    pub(super) async fn remember(&mut self, targets: &[(Arc<str>, i32)]) -> Result<(), StateError> {
        if targets.is_empty() {
            return Ok(());
        }
        let session = store::connect_within(&self.server, store::ANSWER_SOON).await?;
        let client = &session.client;
        endpoint_states::remember_targets(client, &self.slot, self.epoch, targets).await?;
        self.session = Some(session);
        Ok(())
    }
}
