//! The tail's end of the broker: a publisher for each partition, and what its owners have settled.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::configuration::Settings;
use crate::config::settings::RelaySettings;
use crate::config::settings::ServerSettings;
use crate::flow::lsn::Position;
use crate::flow::partition::PartitionNumber;
use crate::flow::report_queue::ReportSender;
use crate::ha::state::TakenState;
use crate::pipeline::endpoint_update::KnownVersion;
use crate::pipeline::process_name::own_name;
use crate::pipeline::pump::relay_outbox::RelayOutbox;
use crate::relay::broker::BrokerConnection;
use crate::relay::error::RelayError;
use crate::relay::error::RelayInterruption;
use crate::relay::nats_stream::NatsStream;
use crate::relay::outgoing::Outgoing;
use crate::relay::outgoing::UnsettledCount;
use crate::relay::publisher::PartitionPublisher;
use crate::relay::streams::StreamName;
use crate::store;
use crate::store::SqlSession;
use crate::store::members;
use crate::store::partition_leases;
use crate::store::partition_leases::PartitionRow;
use crate::store::source_members::MEMBER_ALIVE;
use crate::store::state_error::StateError;
use crate::task::TaskOwner;

/// Batches between the pump and a publisher; each is what one read from PostgreSQL brought.
const BATCHES_MAX: usize = 16;

/// How often the tail looks what the owners have settled.
const SETTLED_EVERY: Duration = Duration::from_millis(100);

/// Before a broker or a state that is away is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Publishers that have taken their streams over.
pub(crate) struct TailRelay {
    partitions: Vec<OpenPartition>,
    slot: Arc<str>,
    state: ServerSettings,
    epoch: i64,
}

struct OpenPartition {
    number: PartitionNumber,
    /// `None`: nobody delivers for it, and its events are parked.
    publisher: Option<PartitionPublisher<NatsStream>>,
}

impl TailRelay {
    /// Takes the streams over, under the epoch of the state that was taken up, and gives the partitions out. A
    /// broker that is away is waited for.
    ///
    /// # Errors
    /// A stream is another's, or a later epoch writes it; the state cannot be written.
    pub(crate) async fn open(
        settings: &Settings,
        relay: &RelaySettings,
        taken: &TakenState,
        stop: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let broker = connect(relay, stop).await?;
        let session = store::connect(&settings.state).await?;
        let slot = Arc::clone(taken.ownership.slot());
        let epoch = taken.ownership.epoch();
        let mut partitions = Vec::new();
        for row in &taken.partitions {
            if row.is_parked {
                partitions.push(OpenPartition { number: row.partition, publisher: None });
                continue;
            }
            let name = StreamName::of(&slot, row.partition);
            name.ensure(&broker, relay).await?;
            let settled = row.settled.max(taken.seen);
            let stream = NatsStream::new(&broker, name);
            let publisher = loop {
                let stream = stream.clone();
                match PartitionPublisher::open(stream, epoch, settled, row.at_source).await {
                    Err(RelayInterruption::Away(error)) => {
                        let error = format!("{:#}", anyhow::Error::new(error));
                        tracing::warn!(error, "cannot take a stream over, trying again");
                        tokio::time::sleep(RETRY).await;
                    }
                    opened => break opened?,
                }
            };
            if row.at_source {
                // Not before what the stream held is purged.
                partition_leases::give_out(&session.client, &taken.ownership, row.partition)
                    .await?;
            }
            partitions.push(OpenPartition { number: row.partition, publisher: Some(publisher) });
        }
        Ok(Self { partitions, slot, state: settings.state.clone(), epoch })
    }

    /// Starts the publishers. Returns the pump's way to them.
    pub(crate) fn start(
        self,
        relay: &RelaySettings,
        (reports, known): (&ReportSender, KnownVersion),
        tasks: &mut TaskOwner,
    ) -> RelayOutbox {
        let (mut outboxes, mut told) = (Vec::new(), Vec::new());
        let unsettled = UnsettledCount::default();
        for OpenPartition { number, publisher } in self.partitions {
            let Some(publisher) = publisher else {
                outboxes.push((number, None));
                continue;
            };
            let (outbox, outgoing) = mpsc::channel::<Vec<Outgoing>>(BATCHES_MAX);
            let (settled_in, settled) = watch::channel(None);
            outboxes.push((number, Some(outbox)));
            told.push((number, settled_in));
            let publisher = publisher.counting(unsettled.clone());
            let run = publisher.run(outgoing, settled, reports.clone());
            tasks.spawn("a partition's publisher", async move { Ok(run.await?) });
        }
        let follow = SettledFollower {
            slot: self.slot,
            state: self.state,
            epoch: self.epoch,
            patience: relay.patience,
            is_parking: outboxes.iter().any(|(_, outbox)| outbox.is_none()),
            told,
        };
        tasks.spawn("what the partitions have settled", follow.run(tasks.stop_token()));
        let counts = (known, unsettled);
        RelayOutbox::new(relay.partitions, outboxes.into_iter(), reports.clone(), counts)
    }
}

/// Connects, however long the broker is away.
pub(crate) async fn connect(
    relay: &RelaySettings,
    stop: &CancellationToken,
) -> anyhow::Result<BrokerConnection> {
    let mut told = false;
    loop {
        let error = match BrokerConnection::open(relay, &own_name()).await {
            Ok(broker) => return Ok(broker),
            Err(error @ (RelayError::Unreachable { .. } | RelayError::Tls { .. })) => error,
            Err(error) => return Err(error.into()),
        };
        if !std::mem::replace(&mut told, true) {
            let error = format!("{:#}", anyhow::Error::new(error));
            tracing::warn!(error, "cannot reach the broker, trying again");
        }
        tokio::select! {
            () = stop.cancelled() => anyhow::bail!("stopped while the broker was away"),
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

/// Looks what the owners of the partitions have settled, and whether they lack anything.
struct SettledFollower {
    slot: Arc<str>,
    state: ServerSettings,
    epoch: i64,
    patience: Duration,
    /// Whether events of some partition are parked.
    is_parking: bool,
    told: Vec<(PartitionNumber, watch::Sender<Option<Position>>)>,
}

impl SettledFollower {
    async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut session: Option<SqlSession> = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(SETTLED_EVERY) => {}
            }
            match self.look(&mut session).await {
                Ok((rows, is_wanted)) => {
                    self.tell(rows)?;
                    if is_wanted {
                        return Err(RelayInterruption::Wanted.into());
                    }
                }
                Err(error) => {
                    session = None;
                    let error = format!("{:#}", anyhow::Error::new(error));
                    tracing::debug!(error, "cannot look what the partitions have settled");
                    tokio::select! {
                        () = stop.cancelled() => return Ok(()),
                        () = tokio::time::sleep(RETRY) => {}
                    }
                }
            }
        }
    }

    /// The partitions, and whether a worker could deliver for those that are parked.
    async fn look(
        &self,
        session: &mut Option<SqlSession>,
    ) -> Result<(Vec<PartitionRow>, bool), StateError> {
        let open = SqlSession::take_or_connect(session, &self.state, store::ANSWER_SOON).await?;
        let rows = partition_leases::rows(&open.client, &self.slot).await?;
        let members = match self.is_parking {
            true => members::load(&open.client, &self.slot, MEMBER_ALIVE).await?,
            false => Vec::new(),
        };
        *session = Some(open);
        Ok((rows, members.iter().any(|member| member.is_alive)))
    }

    fn tell(&self, rows: Vec<PartitionRow>) -> Result<(), RelayInterruption> {
        for row in rows {
            if row.rewind >= self.epoch {
                return Err(RelayInterruption::Rewind {
                    partition: row.partition.raw(),
                    member: row.member.unwrap_or_else(|| String::from("its owner")),
                });
            }
            if row.is_unowned(self.patience) {
                return Err(RelayInterruption::Unowned { partition: row.partition.raw() });
            }
            let told = self.told.iter().find(|(number, _)| *number == row.partition);
            if let Some((_, told)) = told {
                told.send_if_modified(|known| {
                    let is_news = *known < row.settled;
                    *known = row.settled.max(*known);
                    is_news
                });
            }
        }
        Ok(())
    }
}

/// The relay of a role.
///
/// # Errors
/// The configuration has no `[relay]`.
pub(crate) fn settings_of(settings: &Settings) -> anyhow::Result<&RelaySettings> {
    settings
        .relay
        .as_ref()
        .context("run --role needs the broker of [relay]: name it, or run without a role")
}
