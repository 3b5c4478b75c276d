//! The broker: a stream for each partition, which may be away, take messages late or twice, lose them, go back, or
//! be made anew.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::flow::partition::PartitionNumber;
use crate::pipeline::simulation::world::SharedWorld;
use crate::pipeline::simulation::world::SimulatedWorld;
use crate::relay::error::RelayError;
use crate::relay::message_head::MessageHead;
use crate::relay::partition_stream::Acknowledgement;
use crate::relay::partition_stream::PartitionStream;
use crate::relay::partition_stream::PublishRefusal;
use crate::relay::partition_stream::ReadFault;
use crate::relay::partition_stream::StreamMessage;

/// How long an answer is waited for that does not come.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// The most messages that a stream which goes back loses.
const BACK_MAX: u64 = 6;

/// A stream as the broker has it.
#[derive(Debug, Default)]
struct StoredStream {
    messages: BTreeMap<u64, StreamMessage>,
    last: u64,
    /// Another number after each time that it was removed.
    generation: u32,
    is_there: bool,
}

/// A message that is on its way still, though nobody waits for it any more.
#[derive(Debug)]
struct LateMessage {
    partition: PartitionNumber,
    generation: u32,
    message: StreamMessage,
    expected: u64,
}

#[derive(Debug, Default)]
pub(super) struct ModelBroker {
    streams: BTreeMap<PartitionNumber, StoredStream>,
    late: Vec<LateMessage>,
    /// Wakes the readers at each new message, and at each stream that is not what it was.
    news: Arc<Notify>,
}

impl ModelBroker {
    /// Makes the stream if it is missing.
    pub(super) fn ensure(&mut self, partition: PartitionNumber) {
        self.streams.entry(partition).or_default().is_there = true;
    }

    fn stream(&mut self, partition: PartitionNumber) -> Option<&mut StoredStream> {
        self.streams.get_mut(&partition).filter(|stream| stream.is_there)
    }

    /// Takes the message if it is the next one. Returns its sequence.
    fn store(
        &mut self,
        partition: PartitionNumber,
        message: &StreamMessage,
        expected: u64,
    ) -> Result<u64, PublishRefusal> {
        let stream = self.stream(partition).ok_or_else(|| unknown(partition))?;
        if stream.last != expected {
            return Err(PublishRefusal::WrongSequence);
        }
        stream.last += 1;
        let sequence = stream.last;
        stream.messages.insert(sequence, message.clone());
        self.news.notify_waiters();
        Ok(sequence)
    }

    /// Messages come that nobody waits for any more.
    fn deliver_late(&mut self) {
        for LateMessage { partition, generation, message, expected } in
            std::mem::take(&mut self.late)
        {
            let is_same = self.stream(partition).is_some_and(|one| one.generation == generation);
            if is_same {
                self.store(partition, &message, expected).ok(); // nobody hears of it
            }
        }
    }
}

impl SimulatedWorld {
    /// Whether the broker cannot be reached.
    fn is_broker_away(&self) -> bool {
        let now = self.now();
        let away = self.scenario.roles.iter().flat_map(|roles| &roles.broker_away);
        !self.is_healed && away.into_iter().any(|(from, until)| (*from..*until).contains(&now))
    }

    /// Something happens to a stream.
    fn damage(&mut self) {
        let numbers: Vec<PartitionNumber> = self.broker.streams.keys().copied().collect();
        if numbers.is_empty() {
            return;
        }
        let (partition, kind) = (self.dice.pick(&numbers), self.dice.index(4));
        let back = self.dice.number(1..BACK_MAX);
        let what = {
            let Some(stream) = self.broker.stream(partition) else { return };
            match kind {
                0 => {
                    let last = stream.last.saturating_sub(back);
                    stream.messages.split_off(&(last + 1));
                    stream.last = last;
                    "goes back"
                }
                1 => {
                    stream.messages.clear();
                    "loses all that it has"
                }
                2 => {
                    let some = stream.messages.keys().copied().nth(usize::try_from(back).unwrap());
                    some.map(|sequence| stream.messages.remove(&sequence));
                    "loses a message"
                }
                _ => {
                    let generation = stream.generation + 1;
                    *stream = StoredStream { generation, ..StoredStream::default() };
                    "is removed"
                }
            }
        };
        self.note(|_| format!("stream {} {what}", partition.raw()));
        if what == "is removed" && self.dice.one_in(2) {
            self.broker.ensure(partition);
        }
        self.broker.news.notify_waiters();
    }
}

/// What goes wrong with the streams themselves, for as long as the simulation lasts.
pub(super) async fn troubles(world: SharedWorld) {
    loop {
        world.pass(20..400).await;
        let mut world = world.lock();
        world.broker.deliver_late();
        let odds = world.scenario.roles.as_ref().map_or(0, |roles| roles.damage_odds);
        if world.strikes(odds) {
            world.damage();
        }
    }
}

/// The way of one run to the stream of a partition.
#[derive(Clone, Debug)]
pub(super) struct ModelStream {
    world: SharedWorld,
    partition: PartitionNumber,
    name: String,
}

/// What becomes of a message on its way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum MessageOutcome {
    Taken,
    /// It is taken, and no acknowledgement comes.
    TakenUnheard,
    /// It gets lost.
    Lost,
    /// It comes later, or never; nobody hears of it.
    Late,
}

impl ModelStream {
    pub(super) fn new(world: &SharedWorld, partition: PartitionNumber) -> Self {
        Self { world: world.clone(), partition, name: format!("WH_{}", partition.raw()) }
    }

    /// A question to the broker: `None` if no answer comes.
    async fn ask<T>(&self, answer: impl FnOnce(&mut ModelBroker) -> T) -> Result<T, RelayError> {
        self.world.pass(0..8).await;
        let answered = {
            let mut world = self.world.lock();
            let odds = world.scenario.roles.as_ref().map_or(0, |roles| roles.broker_odds);
            let is_silent = world.is_broker_away() || world.strikes(odds);
            (!is_silent).then(|| answer(&mut world.broker))
        };
        self.world.point("the broker was asked").await;
        match answered {
            Some(answer) => Ok(answer),
            None => {
                tokio::time::sleep(ANSWER_MAX).await;
                Err(not_usable(self.partition))
            }
        }
    }
}

fn not_usable(partition: PartitionNumber) -> RelayError {
    let cause = Box::new(std::io::Error::from(std::io::ErrorKind::TimedOut));
    RelayError::NotUsable { stream: format!("WH_{}", partition.raw()), permission: None, cause }
}

fn unknown(partition: PartitionNumber) -> PublishRefusal {
    PublishRefusal::Unknown(not_usable(partition))
}

/// Where a reader stands.
#[derive(Debug)]
pub(super) struct ModelMessages {
    stream: ModelStream,
    generation: u32,
    after: u64,
}

impl PartitionStream for ModelStream {
    type Messages = ModelMessages;

    fn name(&self) -> &str {
        &self.name
    }

    async fn publish(
        &self,
        message: &StreamMessage,
        expected: u64,
    ) -> Result<Acknowledgement, PublishRefusal> {
        let taken = {
            let mut world = self.world.lock();
            let odds = world.scenario.roles.as_ref().map_or(0, |roles| roles.broker_odds);
            let outcome = match world.strikes(odds) {
                true => world.dice.pick(&[
                    MessageOutcome::TakenUnheard,
                    MessageOutcome::Lost,
                    MessageOutcome::Late,
                ]),
                false if world.is_broker_away() => MessageOutcome::Lost,
                false => MessageOutcome::Taken,
            };
            world.note(|_| {
                let (head, name) = (&message.head, &self.name);
                let (epoch, place, mark) = (head.epoch, head.place, head.mark);
                format!(
                    "{name} after {expected}: {outcome:?}, epoch {epoch}, {place}, mark {mark:?}"
                )
            });
            let broker = &mut world.broker;
            match outcome {
                MessageOutcome::Taken => Some(broker.store(self.partition, message, expected)),
                MessageOutcome::TakenUnheard => {
                    broker.store(self.partition, message, expected).ok(); // nobody hears of it
                    None
                }
                MessageOutcome::Late => {
                    let generation = broker.stream(self.partition).map(|one| one.generation);
                    broker.late.extend(generation.map(|generation| LateMessage {
                        partition: self.partition,
                        generation,
                        message: message.clone(),
                        expected,
                    }));
                    None
                }
                MessageOutcome::Lost => None,
            }
        };
        let (world, partition) = (self.world.clone(), self.partition);
        Ok(Box::pin(async move {
            match taken {
                Some(taken) => {
                    world.pass(0..15).await;
                    taken
                }
                None => {
                    tokio::time::sleep(ANSWER_MAX).await;
                    Err(unknown(partition))
                }
            }
        }))
    }

    async fn last_sequence(&self) -> Result<Option<u64>, RelayError> {
        self.ask(|broker| broker.stream(self.partition).map(|stream| stream.last)).await
    }

    async fn head_at(&self, sequence: u64) -> Result<Option<MessageHead>, RelayError> {
        self.ask(|broker| Some(broker.stream(self.partition)?.messages.get(&sequence)?.head)).await
    }

    async fn purge(&self, before: Option<u64>) -> Result<(), RelayError> {
        let purge = |broker: &mut ModelBroker| {
            let Some(stream) = broker.stream(self.partition) else { return };
            match before {
                Some(before) => stream.messages = stream.messages.split_off(&before),
                None => stream.messages.clear(),
            }
        };
        self.ask(purge).await
    }

    async fn read_after(&self, sequence: u64) -> Result<ModelMessages, RelayError> {
        let generation =
            self.ask(|broker| broker.stream(self.partition).map(|stream| stream.generation));
        let generation = generation.await?.ok_or_else(|| not_usable(self.partition))?;
        Ok(ModelMessages { stream: self.clone(), generation, after: sequence })
    }

    async fn next(messages: &mut ModelMessages) -> Option<Result<(u64, StreamMessage), ReadFault>> {
        let ModelMessages { stream, generation, after } = messages;
        let news = Arc::clone(&stream.world.lock().broker.news);
        stream.world.pass(0..10).await;
        loop {
            let told = news.notified();
            let broken = || {
                let silent = std::io::Error::from(std::io::ErrorKind::TimedOut);
                Some(Err(ReadFault::Broken(Box::new(silent))))
            };
            let next = {
                let mut world = stream.world.lock();
                let odds = world.scenario.roles.as_ref().map_or(0, |roles| roles.broker_odds);
                if world.is_broker_away() || world.strikes(odds) {
                    return broken();
                }
                let stored = world.broker.stream(stream.partition);
                let same = stored.filter(|stored| stored.generation == *generation);
                let Some(stored) = same else { return broken() };
                let next = stored.messages.range(*after + 1..).next();
                next.map(|(sequence, message)| (*sequence, message.clone()))
            };
            if let Some((sequence, message)) = next {
                *after = sequence;
                return Some(Ok((sequence, message)));
            }
            told.await;
        }
    }
}
