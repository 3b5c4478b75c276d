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

use bytes::Bytes;
use futures_util::StreamExt;
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
use crate::flow::report_queue::ReportSender;
use crate::flow::settlement::EndpointIndex;
use crate::flow::settlement::LaneReport;
use crate::flow::settlement::RelayedDelivery;
use crate::relay::broker::UNACKED_MAX;
use crate::relay::error::RelayInterruption;
use crate::relay::joined_events::JoinedEvents;
use crate::relay::message;
use crate::relay::message_head::MessageHead;
use crate::relay::outgoing::Outgoing;
use crate::relay::outgoing::OutgoingEvent;
use crate::relay::outgoing::UnsettledCount;
use crate::relay::partition_stream::Acknowledgement;
use crate::relay::partition_stream::PartitionStream;
use crate::relay::partition_stream::PublishRefusal;
use crate::relay::partition_stream::StreamMessage;
use crate::relay::place::MessagePlace;

/// Bytes of messages that are on their way at once, beside [`UNACKED_MAX`].
const UNACKED_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Events that are not settled: what is kept of each takes memory, in the watermark as well.
const UNSETTLED_MAX: usize = 32_768;

/// First and longest wait before a stream that does not take messages is tried again.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_CAP: Duration = Duration::from_secs(1);

/// How often what is settled is purged, and what is not is asked for.
const PURGE_EVERY: Duration = Duration::from_secs(1);

/// How long the end waits for acknowledgements.
const LAST_ACKS: Duration = Duration::from_secs(2);

/// The one who writes the stream of a partition.
pub(crate) struct PartitionPublisher<S: PartitionStream> {
    stream: S,
    epoch: i64,
    /// Of the last message that was made.
    last: MessagePlace,
    /// Nothing more comes of what is before this, as was said last.
    marked: Lsn,
    /// The sequence of the last message that is known to be in the stream.
    acknowledged: u64,
    /// Made, and not known to be there, in order.
    unacked: VecDeque<StreamMessage>,
    unacked_bytes: usize,
    acks: FuturesOrdered<Acknowledgement>,
    /// In the stream or on the way there, and not settled by the owner.
    sent: VecDeque<SentEvent>,
    /// Messages before this sequence are settled.
    settled_before: u64,
    purged_before: u64,
    /// The last sequence when it was last looked at.
    quiet_since: u64,
    retry: Backoff,
    unsettled: UnsettledCount,
}

/// What is kept of an event until it is settled.
struct SentEvent {
    position: Position,
    sequence: u64,
    table: Arc<TableName>,
    endpoints: Vec<EndpointIndex>,
    /// The sequence of its message in the stream, or of its last piece, if nothing goes wrong.
    stream_sequence: u64,
}

impl<S: PartitionStream> PartitionPublisher<S> {
    /// Opens the stream for `epoch`: from here on no message of an earlier one is taken. What is up to `settled`
    /// is not sent again. `purged`: what the stream holds is nobody's any more.
    ///
    /// # Errors
    /// The stream cannot be written, or a later epoch writes it.
    pub(crate) async fn open(
        stream: S,
        epoch: i64,
        settled: Option<Position>,
        purged: bool,
    ) -> Result<Self, RelayInterruption> {
        let mut publisher = Self {
            stream,
            epoch,
            last: settled.map(MessagePlace::after).unwrap_or_default(),
            marked: Lsn::ZERO,
            acknowledged: 0,
            unacked: VecDeque::new(),
            unacked_bytes: 0,
            acks: FuturesOrdered::new(),
            sent: VecDeque::new(),
            settled_before: 0,
            purged_before: 0,
            quiet_since: 0,
            retry: Backoff::new(RETRY_FIRST, RETRY_CAP),
            unsettled: UnsettledCount::default(),
        };
        publisher.take_over().await?;
        if purged {
            // Not before it is known that the stream is ours: who was frozen for too long would purge another's.
            let before = Some(publisher.acknowledged);
            publisher.stream.purge(before).await.map_err(RelayInterruption::Away)?;
        }
        Ok(publisher)
    }

    /// Takes what is settled off this count.
    pub(crate) fn counting(self, unsettled: UnsettledCount) -> Self {
        Self { unsettled, ..self }
    }

    /// Runs until the pump has dropped its sender, and what is on its way is there.
    ///
    /// # Errors
    /// The stream is another's, or has lost something: see the module.
    pub(crate) async fn run(
        mut self,
        mut outgoing: mpsc::Receiver<Vec<Outgoing>>,
        mut settled: watch::Receiver<Option<Position>>,
        reports: ReportSender,
    ) -> Result<(), RelayInterruption> {
        let mut purges = tokio::time::interval(PURGE_EVERY);
        purges.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let has_room = self.may_send() && self.sent.len() < UNSETTLED_MAX;
            tokio::select! {
                biased;
                Some(ack) = self.acks.next() => self.acknowledge(ack).await?,
                Ok(()) = settled.changed() => {}
                batch = outgoing.recv(), if has_room => match batch {
                    Some(batch) => self.take(batch).await?,
                    None => break,
                },
                _ = purges.tick() => {
                    self.purge().await;
                    self.ask_for_gaps().await?;
                }
            }
            // What was just sent may be settled already: its owner had it from an earlier tail.
            let known = *settled.borrow_and_update();
            if let Some(report) = self.settle(known)
                && reports.send(report).await.is_err()
            {
                return Ok(()); // the ledger has ended, and says why
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

    /// Whether another message may be on its way.
    fn may_send(&self) -> bool {
        self.unacked.len() < UNACKED_MAX && self.unacked_bytes < UNACKED_BYTES_MAX
    }

    /// Publishes a batch: small events together, as far as it has them at hand.
    async fn take(&mut self, batch: Vec<Outgoing>) -> Result<(), RelayInterruption> {
        let mut joined = JoinedEvents::default();
        for outgoing in batch {
            match outgoing {
                Outgoing::Event(event) => {
                    if let Some(alone) = joined.add(event)? {
                        self.events(std::mem::replace(&mut joined, alone)).await?;
                    }
                }
                Outgoing::Mark(end) => {
                    self.events(std::mem::take(&mut joined)).await?;
                    self.marked = end;
                    let head = self.head(self.last, Some(end), (1, 1));
                    self.send(head, None, Bytes::new()).await?;
                }
            }
        }
        self.events(joined).await
    }

    /// Publishes events as one message, or a large one in pieces.
    async fn events(&mut self, joined: JoinedEvents) -> Result<(), RelayInterruption> {
        let JoinedEvents { payload, events } = joined;
        let (Some(first), Some(last)) = (events.first(), events.last()) else { return Ok(()) };
        let (id, place) = (first.event.id, last.place);
        let payload = Bytes::from(payload);
        let pieces = message::pieces(&payload);
        let of = u32::try_from(pieces.len()).unwrap_or(u32::MAX);
        for (nth, piece) in (1..).zip(pieces) {
            let head = self.head(place, None, (nth, of));
            self.send(head, Some(id), piece).await?;
        }
        self.last = place;
        let stream_sequence = self.acknowledged + self.unacked.len() as u64;
        self.sent.extend(events.into_iter().map(|OutgoingEvent { event, endpoints, .. }| {
            SentEvent {
                position: event.position,
                sequence: event.sequence,
                table: Arc::clone(&event.table),
                endpoints,
                stream_sequence,
            }
        }));
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
        // A batch may be larger than what may be on its way: acknowledgements are taken in between.
        while !self.may_send() {
            let Some(ack) = self.acks.next().await else { break };
            self.acknowledge(ack).await?;
        }
        self.unacked_bytes += payload.len();
        self.unacked.push_back(StreamMessage { head, id, payload });
        if self.publish(self.unacked.len() - 1).await.is_err() {
            self.recover().await?;
        }
        Ok(())
    }

    /// Publishes the message at this place of `unacked`.
    async fn publish(&mut self, nth: usize) -> Result<(), PublishRefusal> {
        let Some(message) = self.unacked.get(nth) else { return Ok(()) };
        let expected = self.acknowledged + nth as u64;
        self.acks.push_back(self.stream.publish(message, expected).await?);
        Ok(())
    }

    async fn acknowledge(
        &mut self,
        ack: Result<u64, PublishRefusal>,
    ) -> Result<(), RelayInterruption> {
        match ack {
            Ok(sequence) if sequence == self.acknowledged + 1 => {
                self.arrived();
                self.retry.reset();
                Ok(())
            }
            Ok(_) => self.recover().await,
            Err(error) => {
                tracing::debug!(stream = self.stream.name(), %error, "a message was not taken");
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
                        tracing::warn!(
                            stream = self.stream.name(),
                            error,
                            "the broker takes nothing, trying again"
                        );
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
        let last = self.stream.last_sequence().await.map_err(RelayInterruption::Away)?;
        let Some(last) = last else {
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
                    RelayInterruption::Fenced { stream: self.stream.name().to_owned() }
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
        RelayInterruption::Lost { stream: self.stream.name().to_owned(), what }
    }

    /// The head of the message with this sequence; `None` if it is gone or none of ours.
    async fn head_at(&mut self, sequence: u64) -> Result<Option<MessageHead>, RelayInterruption> {
        if sequence == 0 {
            return Ok(None); // there never was one
        }
        self.stream.head_at(sequence).await.map_err(RelayInterruption::Away)
    }

    /// Publishes the first mark of the epoch: a tail that sends under an earlier one is refused from here on.
    async fn take_over(&mut self) -> Result<(), RelayInterruption> {
        loop {
            let last = self.stream.last_sequence().await.map_err(RelayInterruption::Away)?;
            let last = last.ok_or_else(|| self.lost("it is gone"))?;
            if let Some(head) = self.head_at(last).await?
                && head.epoch > self.epoch
            {
                return Err(RelayInterruption::Fenced { stream: self.stream.name().to_owned() });
            }
            let head = self.head(self.last, Some(Lsn::ZERO), (1, 1));
            let message = StreamMessage { head, id: None, payload: Bytes::new() };
            let taken = match self.stream.publish(&message, last).await {
                Ok(sent) => sent.await,
                Err(error) => Err(error),
            };
            match taken {
                Ok(sequence) => {
                    self.acknowledged = sequence;
                    return Ok(());
                }
                // Another tail was quicker: one more look.
                Err(PublishRefusal::WrongSequence) => {}
                Err(PublishRefusal::Unknown(error)) => return Err(RelayInterruption::Away(error)),
            }
        }
    }

    /// What is settled up to `settled`, for the ledger.
    fn settle(&mut self, settled: Option<Position>) -> Option<LaneReport> {
        let settled = settled?;
        let mut relayed = Vec::new();
        while let Some(event) = self.sent.pop_front_if(|event| event.position <= settled) {
            let SentEvent { sequence, table, endpoints, stream_sequence, .. } = event;
            let next = self.sent.front();
            // Its message stays as long as another event of it is owed.
            let is_last = next.is_none_or(|next| next.stream_sequence != stream_sequence);
            self.settled_before = stream_sequence + u64::from(is_last);
            relayed.extend(endpoints.into_iter().map(|endpoint| RelayedDelivery {
                sequence,
                endpoint,
                table: Arc::clone(&table),
            }));
        }
        self.unsettled.settled(relayed.len());
        (!relayed.is_empty()).then(|| LaneReport { relayed, ..LaneReport::default() })
    }

    /// What is owed and does not come makes no difference to anybody while nothing else is sent: a broker may have
    /// lost it. A mark shows both ends whether all is there that is before it, and says again what the last one said:
    /// who reads on where a stream had ended before it went back has not got that one.
    async fn ask_for_gaps(&mut self) -> Result<(), RelayInterruption> {
        let is_quiet = self.unacked.is_empty() && self.acknowledged == self.quiet_since;
        if is_quiet && !self.sent.is_empty() {
            let head = self.head(self.last, Some(self.marked), (1, 1));
            self.send(head, None, Bytes::new()).await?;
        }
        self.quiet_since = self.acknowledged + self.unacked.len() as u64;
        Ok(())
    }

    /// Purges what is settled. If it cannot, the next time does.
    async fn purge(&mut self) {
        // What is not known to be in the stream is not purged either.
        let before = self.settled_before.min(self.acknowledged);
        if before <= self.purged_before + 1 {
            return;
        }
        match self.stream.purge(Some(before)).await {
            Ok(()) => self.purged_before = before,
            Err(error) => {
                let error = format!("{:#}", anyhow::Error::new(error));
                tracing::debug!(stream = self.stream.name(), error, "cannot purge what is settled");
            }
        }
    }
}
