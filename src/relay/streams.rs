//! The streams of the partitions: their names, and what they have to be.
//!
//! What has been settled is purged by the tail; a stream that is full refuses what is new, so that nothing is
//! lost in silence. There is no age: what is old is not less owed.

use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::CreateStreamError;
use async_nats::jetstream::context::CreateStreamErrorKind;
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::Config;
use async_nats::jetstream::stream::DiscardPolicy;
use async_nats::jetstream::stream::Info;
use async_nats::jetstream::stream::RawMessageErrorKind;
use async_nats::jetstream::stream::RetentionPolicy;
use async_nats::jetstream::stream::StorageType;
use tokio::time::Instant;

use crate::config::settings::RelaySettings;
use crate::flow::partition::PartitionNumber;
use crate::relay::broker::BrokerConnection;
use crate::relay::error::RelayError;

/// A cluster that has just started has no leader for its streams for so long.
const LEADER_WAIT_MAX: Duration = Duration::from_secs(30);

/// Between two looks whether it has one.
const LEADER_LOOK: Duration = Duration::from_millis(250);

/// What the broker answers where the sizes of all streams together are more than the server or the account may
/// store (nats-server, `errors.json`).
const NO_ROOM: [ErrorCode; 3] = [
    ErrorCode::STORAGE_RESOURCES_EXCEEDED,
    ErrorCode::INSUFFICIENT_RESOURCES,
    ErrorCode::ACCOUNT_RESOURCES_EXCEEDED,
];

/// What a stream is called, and where to publish for it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct StreamName {
    pub(crate) stream: String,
    pub(crate) subject: String,
}

impl StreamName {
    /// That of a partition of the source.
    pub(crate) fn of(source: &str, partition: PartitionNumber) -> Self {
        Self::named(source, &partition.raw().to_string())
    }

    /// That on which `walhook check` tries what it may do.
    pub(super) fn of_trial(source: &str) -> Self {
        Self::named(source, "check")
    }

    fn named(source: &str, last: &str) -> Self {
        Self { stream: format!("WH_{source}_{last}"), subject: format!("wh.{source}.{last}") }
    }

    /// What the stream has to be.
    pub(super) fn config(&self, settings: &RelaySettings) -> Config {
        Config {
            name: self.stream.clone(),
            subjects: vec![self.subject.clone()],
            max_bytes: settings.stream_bytes,
            discard: DiscardPolicy::New,
            retention: RetentionPolicy::Limits,
            storage: StorageType::File,
            num_replicas: settings.replicas,
            description: Some(String::from("walhook: events on their way to those who deliver")),
            ..Config::default()
        }
    }

    /// The command that makes it, for operators who let nobody else make streams.
    pub(crate) fn command(&self, settings: &RelaySettings) -> String {
        format!(
            "nats stream add {} --subjects {} --storage file --retention limits --discard new \
             --replicas {} --max-bytes {} --defaults",
            self.stream, self.subject, settings.replicas, settings.stream_bytes
        )
    }

    /// Makes the stream if it is missing, and gives it the size and the copies of the settings. A cluster
    /// that has just started is waited for.
    ///
    /// # Errors
    /// It cannot be made, or one of this name is another one.
    pub(crate) async fn ensure(
        &self,
        broker: &BrokerConnection,
        settings: &RelaySettings,
    ) -> Result<(), RelayError> {
        let deadline = Instant::now() + LEADER_WAIT_MAX;
        loop {
            let error = match self.try_ensure(broker, settings).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if !is_without_leader(&error) || Instant::now() >= deadline {
                return Err(error);
            }
            tokio::time::sleep(LEADER_LOOK).await;
        }
    }

    async fn try_ensure(
        &self,
        broker: &BrokerConnection,
        settings: &RelaySettings,
    ) -> Result<(), RelayError> {
        let wanted = self.config(settings);
        let Some(found) = self.find(broker).await? else {
            let created = broker.jetstream.create_stream(wanted).await;
            return created.map(drop).map_err(|error| self.not_made(broker, settings, error));
        };
        if let Some(what) = difference(&found, &wanted) {
            return Err(RelayError::OtherStream { stream: self.stream.clone(), what });
        }
        if (found.max_bytes, found.num_replicas) == (wanted.max_bytes, wanted.num_replicas) {
            return Ok(());
        }
        let updated = broker.jetstream.update_stream(wanted).await;
        updated.map(drop).map_err(|error| self.not_made(broker, settings, error))
    }

    /// What the stream holds; `None` if there is none.
    pub(super) async fn info(&self, broker: &BrokerConnection) -> Result<Option<Info>, RelayError> {
        match broker.jetstream.get_stream(&self.stream).await {
            Ok(found) => Ok(Some(found.cached_info().clone())),
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(said)
                    if said.error_code() == ErrorCode::STREAM_NOT_FOUND =>
                {
                    Ok(None)
                }
                _ => Err(self.not_usable(broker, error)),
            },
        }
    }

    /// The message with this sequence; `None` if it is gone.
    pub(super) async fn message(
        &self,
        broker: &BrokerConnection,
        sequence: u64,
    ) -> Result<Option<StreamMessage>, RelayError> {
        let stream = broker.jetstream.get_stream_no_info(&self.stream).await;
        let stream = stream.map_err(|error| self.not_usable(broker, error))?;
        match stream.get_raw_message(sequence).await {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(self.not_usable(broker, error)),
        }
    }

    /// Removes the messages before this sequence, or all.
    pub(super) async fn purge(
        &self,
        broker: &BrokerConnection,
        before: Option<u64>,
    ) -> Result<(), RelayError> {
        let stream = broker.jetstream.get_stream_no_info(&self.stream).await;
        let stream = stream.map_err(|error| self.not_usable(broker, error))?;
        let purged = match before {
            Some(before) => stream.purge().sequence(before).await,
            None => stream.purge().await,
        };
        purged.map(drop).map_err(|error| self.not_usable(broker, error))
    }

    /// The stream as it is; `None` if there is none.
    pub(super) async fn find(
        &self,
        broker: &BrokerConnection,
    ) -> Result<Option<Config>, RelayError> {
        Ok(self.info(broker).await?.map(|info| info.config))
    }

    /// That something with the stream went wrong.
    pub(super) fn not_usable(
        &self,
        broker: &BrokerConnection,
        cause: impl std::error::Error + Send + Sync + 'static,
    ) -> RelayError {
        let permission = broker.take_refusal();
        RelayError::NotUsable { stream: self.stream.clone(), permission, cause: Box::new(cause) }
    }

    fn not_made(
        &self,
        broker: &BrokerConnection,
        settings: &RelaySettings,
        error: CreateStreamError,
    ) -> RelayError {
        let stream = self.stream.clone();
        if let CreateStreamErrorKind::JetStream(said) = error.kind()
            && NO_ROOM.contains(&said.error_code())
        {
            return RelayError::NoRoom { stream, stream_bytes: settings.stream_bytes };
        }
        RelayError::NotMade { stream, permission: broker.take_refusal(), cause: Box::new(error) }
    }
}

/// What does not let a stream of this name be used, if anything.
pub(super) fn difference(found: &Config, wanted: &Config) -> Option<String> {
    if found.subjects != wanted.subjects {
        let shown = found.subjects.join(", ");
        return Some(format!("its subjects are {shown}, not {}", wanted.subjects.join(", ")));
    }
    let keeps = (found.retention, found.discard) == (wanted.retention, wanted.discard);
    let is_plain = found.max_age.is_zero() && found.max_messages <= 0;
    if !keeps || !is_plain || found.mirror.is_some() || found.sources.is_some() {
        return Some(String::from(
            "it has to have retention limits, discard new, and no age, number of messages or mirror",
        ));
    }
    None
}

/// Whether waiting may help: a cluster that has just started says so for some seconds.
fn is_without_leader(error: &RelayError) -> bool {
    let (RelayError::NotMade { cause, permission, .. }
    | RelayError::NotUsable { cause, permission, .. }) = error
    else {
        return false;
    };
    let mut causes =
        std::iter::successors(Some(&**cause as &(dyn std::error::Error + 'static)), |cause| {
            cause.source()
        });
    let is_it = |cause: &(dyn std::error::Error + 'static)| {
        let text = cause.to_string();
        ["10008", "10005", "timed out"].iter().any(|sign| text.contains(sign))
    };
    permission.is_none() && causes.any(is_it)
}
