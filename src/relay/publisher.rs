//! Publishes the events of one partition, in order, each once.
//!
//! ```text
//! pump ─ Outgoing ─▶ [publisher] ─ expected last sequence ─▶ stream
//!                        ▲   └─ relayed ─▶ ledger, when the partition's owner has settled them
//!                        └── settled position of the partition ─ the state
//! ```
//!
//! Every message says which sequence it follows. So they can be sent without waiting for one another: when one
//! is refused, all later ones are. What the stream really holds is asked for then, and the rest is sent again. A
//! stream that holds something else than what was sent is another's, or has lost something: then this run ends,
//! and the next one sends under a new epoch what is not settled.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::context::PublishAckFuture;
use async_nats::jetstream::context::PublishError;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::PublishMessage;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio::time::MissedTickBehavior;

use crate::backoff::Backoff;
use crate::flow::event::EventId;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::flow::relation::TableName;
use crate::flow::settlement::EndpointIndex;
use crate::flow::settlement::LaneReport;
use crate::flow::settlement::RelayedDelivery;
use crate::relay::broker::BrokerConnection;
use crate::relay::error::RelayInterruption;
use crate::relay::message;
use crate::relay::message::MessageHead;
use crate::relay::outgoing::Outgoing;
use crate::relay::outgoing::OutgoingEvent;
use crate::relay::place::MessagePlace;
use crate::relay::streams::StreamName;

/// Messages, and bytes of them, that are on their way at once.
const UNACKED_MAX: usize = 512;
const UNACKED_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Events that are not settled: what is kept of each takes memory, in the watermark as well.
const UNSETTLED_MAX: usize = 32_768;

/// First and longest wait before a stream that does not take messages is tried again.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_CAP: Duration = Duration::from_secs(1);

/// How often what is settled is purged.
const PURGE_EVERY: Duration = Duration::from_secs(1);

/// How long the end waits for acknowledgements.
const LAST_ACKS: Duration = Duration::from_secs(2);

/// The one who writes the stream of a partition.
pub(crate) struct PartitionPublisher {
    broker: BrokerConnection,
    name: StreamName,
    epoch: i64,
    /// Of the last message that was made.
    last: MessagePlace,
    /// The sequence of the last message that is known to be in the stream.
    acknowledged: u64,
    /// Made, and not known to be there, in order.
    unacked: VecDeque<UnackedMessage>,
    unacked_bytes: usize,
    acks: FuturesOrdered<BoxFuture<'static, Result<u64, PublishError>>>,
    /// In the stream or on the way there, and not settled by the owner.
    sent: VecDeque<SentEvent>,
    /// Messages before this sequence are settled.
    settled_before: u64,
    purged_before: u64,
    retry: Backoff,
}

/// A message on its way.
struct UnackedMessage {
    head: MessageHead,
    headers: HeaderMap,
    payload: Bytes,
}

/// What is kept of an event until it is settled.
struct SentEvent {
    position: Position,
    sequence: u64,
    table: Arc<TableName>,
    endpoints: Vec<EndpointIndex>,
    /// The sequence of its last piece in the stream, if nothing goes wrong.
    stream_sequence: u64,
}

impl PartitionPublisher {
    /// Opens the stream for `epoch`: from here on no message of an earlier one is taken. What is up to `settled`
    /// is not sent again. `purged`: what the stream holds is nobody's any more.
    ///
    /// # Errors
    /// The stream cannot be written, or a later epoch writes it.
    pub(crate) async fn open(
        broker: &BrokerConnection,
        name: StreamName,
        epoch: i64,
        settled: Option<Position>,
        purged: bool,
    ) -> Result<Self, RelayInterruption> {
        let mut publisher = Self {
            broker: broker.clone(),
            name,
            epoch,
            last: settled.map(MessagePlace::after).unwrap_or_default(),
            acknowledged: 0,
            unacked: VecDeque::new(),
            unacked_bytes: 0,
            acks: FuturesOrdered::new(),
            sent: VecDeque::new(),
            settled_before: 0,
            purged_before: 0,
            retry: Backoff::new(RETRY_FIRST, RETRY_CAP),
        };
        if purged {
            publisher.purge_all().await?;
        }
        publisher.take_over().await?;
        Ok(publisher)
    }

    /// Runs until the pump has dropped its sender, and what is on its way is there.
    ///
    /// # Errors
    /// The stream is another's, or has lost something: see the module.
    pub(crate) async fn run(
        mut self,
        mut outgoing: mpsc::Receiver<Vec<Outgoing>>,
        mut settled: watch::Receiver<Option<Position>>,
        reports: mpsc::Sender<LaneReport>,
    ) -> Result<(), RelayInterruption> {
        let mut purges = tokio::time::interval(PURGE_EVERY);
        purges.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let has_room = self.unacked.len() < UNACKED_MAX
                && self.unacked_bytes < UNACKED_BYTES_MAX
                && self.sent.len() < UNSETTLED_MAX;
            tokio::select! {
                biased;
                Some(ack) = self.acks.next() => self.acknowledge(ack).await?,
                Ok(()) = settled.changed() => {
                    let settled = *settled.borrow_and_update();
                    if let Some(report) = self.settle(settled)
                        && reports.send(report).await.is_err()
                    {
                        return Ok(()); // the ledger has ended, and says why
                    }
                }
                batch = outgoing.recv(), if has_room => match batch {
                    Some(batch) => self.take(batch).await?,
                    None => break,
                },
                _ = purges.tick() => self.purge().await,
            }
        }
        let deadline = Instant::now() + LAST_ACKS;
        while let Ok(Some(ack)) = tokio::time::timeout_at(deadline, self.acks.next()).await {
            if ack.is_err() {
                break; // it comes again
            }
        }
        Ok(())
    }

    async fn take(&mut self, batch: Vec<Outgoing>) -> Result<(), RelayInterruption> {
        for outgoing in batch {
            match outgoing {
                Outgoing::Event(event) => self.event(&event).await?,
                Outgoing::Mark(end) => {
                    let head = self.head(self.last, Some(end), (1, 1));
                    self.send(head, None, Bytes::new()).await?;
                }
            }
        }
        Ok(())
    }

    async fn event(&mut self, outgoing: &OutgoingEvent) -> Result<(), RelayInterruption> {
        let OutgoingEvent { event, shapes, endpoints } = outgoing;
        let pieces = message::encode(event, shapes).map_err(|cause| {
            RelayInterruption::Unsendable { event: event.id.to_string(), cause }
        })?;
        let place = self.last.following(event.position);
        let of = u32::try_from(pieces.len()).unwrap_or(u32::MAX);
        for (nth, piece) in (1..).zip(pieces) {
            let head = self.head(place, None, (nth, of));
            self.send(head, Some(event.id), piece).await?;
        }
        self.last = place;
        self.sent.push_back(SentEvent {
            position: event.position,
            sequence: event.sequence,
            table: Arc::clone(&event.table),
            endpoints: endpoints.clone(),
            stream_sequence: self.acknowledged + self.unacked.len() as u64,
        });
        Ok(())
    }

    fn head(&self, place: MessagePlace, mark: Option<Lsn>, piece: (u32, u32)) -> MessageHead {
        MessageHead { epoch: self.epoch, place, after: self.last, mark, piece }
    }

    async fn send(
        &mut self,
        head: MessageHead,
        id: Option<EventId>,
        payload: Bytes,
    ) -> Result<(), RelayInterruption> {
        let headers = head.headers(id);
        self.unacked_bytes += payload.len();
        self.unacked.push_back(UnackedMessage { head, headers, payload });
        if self.publish(self.unacked.len() - 1).await.is_err() {
            self.recover().await?;
        }
        Ok(())
    }

    /// Publishes the message at this place of `unacked`.
    async fn publish(&mut self, nth: usize) -> Result<(), PublishError> {
        let Some(message) = self.unacked.get(nth) else { return Ok(()) };
        let expected = self.acknowledged + nth as u64;
        let sent = publish(&self.broker, &self.name, message, expected).await?;
        self.acks.push_back(Box::pin(async move { Ok(sent.await?.sequence) }));
        Ok(())
    }

    async fn acknowledge(
        &mut self,
        ack: Result<u64, PublishError>,
    ) -> Result<(), RelayInterruption> {
        match ack {
            Ok(sequence) if sequence == self.acknowledged + 1 => {
                self.arrived();
                self.retry.reset();
                Ok(())
            }
            Ok(_) => self.recover().await,
            Err(error) => {
                tracing::debug!(stream = %self.name.stream, %error, "a message was not taken");
                self.recover().await
            }
        }
    }

    /// The first of those that are on their way is in the stream.
    fn arrived(&mut self) {
        self.acknowledged += 1;
        if let Some(message) = self.unacked.pop_front() {
            self.unacked_bytes = self.unacked_bytes.saturating_sub(message.payload.len());
        }
    }

    /// Finds out what the stream has taken, and sends the rest again, for as long as it takes.
    async fn recover(&mut self) -> Result<(), RelayInterruption> {
        let mut told = false;
        loop {
            // Whatever they come to, the stream itself is asked.
            self.acks.clear();
            let wait = self.retry.next();
            tokio::time::sleep(wait).await;
            match self.compare().await {
                Ok(()) => {}
                Err(RelayInterruption::Away(error)) => {
                    if !std::mem::replace(&mut told, true) {
                        let error = format!("{:#}", anyhow::Error::new(error));
                        tracing::warn!(stream = %self.name.stream, error, "the broker takes nothing, trying again");
                    }
                    continue;
                }
                Err(error) => return Err(error),
            }
            let mut is_sent = true;
            for nth in 0..self.unacked.len() {
                is_sent = is_sent && self.publish(nth).await.is_ok();
            }
            if is_sent {
                return Ok(());
            }
        }
    }

    /// Compares what the stream holds with what was sent.
    async fn compare(&mut self) -> Result<(), RelayInterruption> {
        let Some(last) = self.last_sequence().await? else {
            return Err(self.lost("it is gone"));
        };
        let Some(more) = last.checked_sub(self.acknowledged) else {
            return Err(self.lost("messages that it had are gone"));
        };
        if more == 0 {
            return Ok(());
        }
        let head = self.head_at(last).await?;
        let nth = usize::try_from(more - 1).unwrap_or(usize::MAX);
        if self.unacked.get(nth).is_none_or(|message| Some(message.head) != head) {
            return Err(match head {
                Some(head) if head.epoch > self.epoch => {
                    RelayInterruption::Fenced { stream: self.name.stream.clone() }
                }
                Some(_) | None => self.lost("it holds a message that was not sent now"),
            });
        }
        for _ in 0..more {
            self.arrived();
        }
        Ok(())
    }

    fn lost(&self, what: &'static str) -> RelayInterruption {
        RelayInterruption::Lost { stream: self.name.stream.clone(), what }
    }

    /// The sequence of the last message that the stream took; `None` where there is no stream.
    async fn last_sequence(&mut self) -> Result<Option<u64>, RelayInterruption> {
        let info = self.name.info(&self.broker).await.map_err(RelayInterruption::Away)?;
        Ok(info.map(|info| info.state.last_sequence))
    }

    /// The head of the message with this sequence; `None` if it is gone or none of ours.
    async fn head_at(&mut self, sequence: u64) -> Result<Option<MessageHead>, RelayInterruption> {
        if sequence == 0 {
            return Ok(None); // there never was one
        }
        let found = self.name.message(&self.broker, sequence).await;
        let found = found.map_err(RelayInterruption::Away)?;
        Ok(found.and_then(|message| MessageHead::read(Some(&message.headers)).ok()))
    }

    /// Publishes the first mark of the epoch: whoever sends under an earlier one is refused from here on.
    async fn take_over(&mut self) -> Result<(), RelayInterruption> {
        loop {
            let last = self.last_sequence().await?;
            let last = last.ok_or_else(|| self.lost("it is gone"))?;
            if let Some(head) = self.head_at(last).await?
                && head.epoch > self.epoch
            {
                return Err(RelayInterruption::Fenced { stream: self.name.stream.clone() });
            }
            let head = self.head(self.last, Some(Lsn::ZERO), (1, 1));
            let message =
                UnackedMessage { head, headers: head.headers(None), payload: Bytes::new() };
            let taken = match publish(&self.broker, &self.name, &message, last).await {
                Ok(sent) => sent.await,
                Err(error) => Err(error),
            };
            match taken {
                Ok(ack) => {
                    self.acknowledged = ack.sequence;
                    return Ok(());
                }
                // Somebody else was quicker: one more look.
                Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => {}
                Err(error) => {
                    let error = self.name.not_usable(&self.broker, error);
                    return Err(RelayInterruption::Away(error));
                }
            }
        }
    }

    /// What is settled up to `settled`, for the ledger.
    fn settle(&mut self, settled: Option<Position>) -> Option<LaneReport> {
        let settled = settled?;
        let mut relayed = Vec::new();
        while let Some(event) = self.sent.pop_front_if(|event| event.position <= settled) {
            self.settled_before = event.stream_sequence + 1;
            let SentEvent { sequence, table, endpoints, .. } = event;
            relayed.extend(endpoints.into_iter().map(|endpoint| RelayedDelivery {
                sequence,
                endpoint,
                table: Arc::clone(&table),
            }));
        }
        (!relayed.is_empty()).then(|| LaneReport { relayed, ..LaneReport::default() })
    }

    /// Purges what is settled. If it cannot, the next time does.
    async fn purge(&mut self) {
        // What is not known to be in the stream is not purged either.
        let before = self.settled_before.min(self.acknowledged);
        if before <= self.purged_before + 1 {
            return;
        }
        match self.name.purge(&self.broker, Some(before)).await {
            Ok(()) => self.purged_before = before,
            Err(error) => {
                let error = format!("{:#}", anyhow::Error::new(error));
                tracing::debug!(stream = %self.name.stream, error, "cannot purge what is settled");
            }
        }
    }

    async fn purge_all(&mut self) -> Result<(), RelayInterruption> {
        self.name.purge(&self.broker, None).await.map_err(RelayInterruption::Away)
    }
}

async fn publish(
    broker: &BrokerConnection,
    name: &StreamName,
    message: &UnackedMessage,
    expected: u64,
) -> Result<PublishAckFuture, PublishError> {
    let publish = PublishMessage::build()
        .payload(message.payload.clone())
        .headers(message.headers.clone())
        .expected_last_sequence(expected);
    broker.jetstream.send_publish(name.subject.clone(), publish).await
}
