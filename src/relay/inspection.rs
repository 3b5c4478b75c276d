//! What the broker can do for us, tried out for `walhook check`: a stream of its own is made, written, read and
//! removed, which shows permissions, limits, room and copies at once.

use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::message::PublishMessage;
use futures_util::StreamExt;

use crate::config::settings::RelaySettings;
use crate::flow::partition::PartitionNumber;
use crate::relay::broker::ANSWER_MAX;
use crate::relay::broker::BrokerConnection;
use crate::relay::error::RelayError;
use crate::relay::streams::StreamName;
use crate::relay::streams::difference;

/// The smallest stream that holds the message of the trial.
const TRIAL_BYTES: i64 = 64 * 1024;

/// What was found.
#[derive(Debug)]
pub(crate) struct BrokerFacts {
    pub(crate) version: String,
    pub(crate) message_bytes_max: usize,
    /// Room for files that the account has left; `None` without a limit.
    pub(crate) storage_left: Option<i64>,
    /// What the streams that are missing reserve together.
    pub(crate) storage_needed: i64,
    /// Streams of partitions that are there.
    pub(crate) streams: usize,
    /// Streams of these names that are others, and why.
    pub(crate) others: Vec<(StreamName, String)>,
    /// Why the trial failed, if it did.
    pub(crate) refusal: Option<RelayError>,
}

/// Asks the broker, and tries what walhook does with it.
///
/// # Errors
/// It cannot be asked at all.
pub(crate) async fn inspect(
    settings: &RelaySettings,
    source: &str,
) -> Result<BrokerFacts, RelayError> {
    let broker = BrokerConnection::open(settings, "walhook check").await?;
    let account = broker.jetstream.query_account().await;
    let account =
        account.map_err(|_silent| RelayError::NoJetStream { permission: broker.take_refusal() })?;
    let storage_left = account.limits.max_storage.map(|most| {
        let taken = account.storage.max(account.reserved_storage);
        most.saturating_sub(i64::try_from(taken).unwrap_or(i64::MAX))
    });
    let (mut streams, mut others) = (0, Vec::new());
    for number in 1..=settings.partitions.get() {
        let name = StreamName::of(source, PartitionNumber::new(number));
        let Some(found) = name.find(&broker).await? else { continue };
        match difference(&found, &name.config(settings)) {
            None => streams += 1,
            Some(what) => others.push((name, what)),
        }
    }
    let missing =
        i64::from(settings.partitions.get()) - i64::try_from(streams + others.len()).unwrap_or(0);
    let storage_needed = settings.stream_bytes.saturating_mul(missing);
    let is_allowed = storage_left.is_none_or(|left| left >= storage_needed);
    // A cluster spreads the streams over its servers: only one has to fit somewhere.
    let trial_bytes = match (is_allowed, broker.is_clustered()) {
        (true, true) if missing > 0 => settings.stream_bytes,
        (true, false) => storage_needed,
        _ => 0,
    };
    let trial = RelaySettings { stream_bytes: trial_bytes.max(TRIAL_BYTES), ..settings.clone() };
    let refusal = try_out(&broker, &trial, &StreamName::of_trial(source)).await.err();
    let (version, message_bytes_max) = (broker.version(), broker.message_bytes_max());
    Ok(BrokerFacts {
        version,
        message_bytes_max,
        storage_left,
        storage_needed,
        streams,
        others,
        refusal,
    })
}

/// Makes the stream, as large as the settings say, writes and reads a message of it, purges and removes it.
async fn try_out(
    broker: &BrokerConnection,
    settings: &RelaySettings,
    name: &StreamName,
) -> Result<(), RelayError> {
    name.ensure(broker, settings).await?;
    let tried = write_and_read(broker, name).await;
    let removed = broker.jetstream.delete_stream(&name.stream).await;
    tried?;
    removed.map(drop).map_err(|error| name.not_usable(broker, error))
}

async fn write_and_read(broker: &BrokerConnection, name: &StreamName) -> Result<(), RelayError> {
    let context = &broker.jetstream;
    let message = PublishMessage::build().payload("walhook check".into());
    let sent = context.send_publish(name.subject.clone(), message).await;
    let acknowledged = sent.map_err(|error| name.not_usable(broker, error))?.await;
    let last = acknowledged.map_err(|error| name.not_usable(broker, error))?.sequence;
    let stream = context.get_stream(&name.stream).await;
    let stream = stream.map_err(|error| name.not_usable(broker, error))?;
    let deliver_policy = DeliverPolicy::ByStartSequence { start_sequence: last };
    let config = OrderedConfig { deliver_policy, ..OrderedConfig::default() };
    let consumer = stream.create_consumer(config).await;
    let consumer = consumer.map_err(|error| name.not_usable(broker, error))?;
    let messages = consumer.messages().await;
    let mut messages = messages.map_err(|error| name.not_usable(broker, error))?;
    match tokio::time::timeout(ANSWER_MAX, messages.next()).await {
        Ok(Some(Ok(_message))) => {}
        Ok(Some(Err(error))) => return Err(name.not_usable(broker, error)),
        Ok(None) | Err(_) => {
            let silent = std::io::Error::from(std::io::ErrorKind::TimedOut);
            return Err(name.not_usable(broker, silent));
        }
    }
    stream.purge().await.map(drop).map_err(|error| name.not_usable(broker, error))
}
