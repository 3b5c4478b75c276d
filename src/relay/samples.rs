//! An event, and a stream in memory, for this room's tests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;

use crate::flow::body::BodyPart;
use crate::flow::body::EventBody;
use crate::flow::event::Event;
use crate::flow::event::EventExpiry;
use crate::flow::event::EventFacts;
use crate::flow::event::EventId;
use crate::flow::event::IdOrigin;
use crate::flow::key::EventKeys;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::flow::relation::TableName;
use crate::flow::time::Timestamp;
use crate::flow::write_back::TargetRow;
use crate::relay::error::RelayError;
use crate::relay::message_head::MessageHead;
use crate::relay::partition_stream::Acknowledgement;
use crate::relay::partition_stream::PartitionStream;
use crate::relay::partition_stream::PublishRefusal;
use crate::relay::partition_stream::ReadFault;
use crate::relay::partition_stream::StreamMessage;

pub(super) fn event(commit: u64, keys: EventKeys, text: &str) -> Event {
    let position = Position { commit: Lsn::from_raw(commit), ordinal: 3 };
    Event {
        id: EventId::new(position, IdOrigin::new(7, "order")),
        sequence: 9,
        position,
        event_type: "order".into(),
        table: Arc::new(TableName::new("public", "orders")),
        committed: Timestamp::from_micros(5_000_001),
        keys,
        expiry: Some(EventExpiry {
            born: Timestamp::from_micros(4_000_000),
            max_age: Duration::from_secs(60),
        }),
        body: EventBody::new(vec![BodyPart::Bytes(Bytes::from(text.to_owned()))]),
        facts: EventFacts::new(vec![("id".into(), text.to_owned())]),
        write_back: Some(Box::new(TargetRow {
            key: vec!["id".into()],
            values: vec![("id".into(), Some("7".to_owned())), ("note".into(), None)],
            owed: 2,
        })),
        held: None,
    }
}

/// A stream that does what it is asked to, at once.
#[derive(Clone, Debug, Default)]
pub(super) struct SampleStream(Arc<Mutex<HeldMessages>>);

#[derive(Debug, Default)]
pub(super) struct HeldMessages {
    pub(super) messages: BTreeMap<u64, StreamMessage>,
    last: u64,
}

impl SampleStream {
    pub(super) fn with<T>(&self, of: impl FnOnce(&mut HeldMessages) -> T) -> T {
        of(&mut self.0.lock().unwrap())
    }
}

/// Where a reader stands.
#[derive(Debug)]
pub(super) struct SampleReader {
    stream: SampleStream,
    after: u64,
}

impl PartitionStream for SampleStream {
    type Messages = SampleReader;

    fn name(&self) -> &str {
        "WH_sample_1"
    }

    async fn publish(
        &self,
        message: &StreamMessage,
        expected: u64,
    ) -> Result<Acknowledgement, PublishRefusal> {
        let taken = self.with(|held| {
            if held.last != expected {
                return Err(PublishRefusal::WrongSequence);
            }
            held.last += 1;
            held.messages.insert(held.last, message.clone());
            Ok(held.last)
        });
        Ok(Box::pin(async { taken }))
    }

    async fn last_sequence(&self) -> Result<Option<u64>, RelayError> {
        Ok(Some(self.with(|held| held.last)))
    }

    async fn head_at(&self, sequence: u64) -> Result<Option<MessageHead>, RelayError> {
        Ok(self.with(|held| held.messages.get(&sequence).map(|message| message.head)))
    }

    async fn purge(&self, before: Option<u64>) -> Result<(), RelayError> {
        self.with(|held| {
            held.messages = held.messages.split_off(&before.unwrap_or(u64::MAX));
        });
        Ok(())
    }

    async fn read_after(&self, sequence: u64) -> Result<SampleReader, RelayError> {
        Ok(SampleReader { stream: self.clone(), after: sequence })
    }

    async fn next(reader: &mut SampleReader) -> Option<Result<(u64, StreamMessage), ReadFault>> {
        loop {
            let next = reader.stream.with(|held| {
                let next = held.messages.range(reader.after + 1..).next();
                next.map(|(sequence, message)| (*sequence, message.clone()))
            });
            if let Some((sequence, message)) = next {
                reader.after = sequence;
                return Some(Ok((sequence, message)));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
