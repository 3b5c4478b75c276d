//! Publisher and feed of a partition, over a stream in memory and on a paused clock.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::flow::event::RuleIndex;
use crate::flow::key::EventKeys;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::flow::report_queue::ReportReceiver;
use crate::flow::report_queue::report_queue;
use crate::flow::settlement::EndpointIndex;
use crate::relay::error::RelayInterruption;
use crate::relay::feed::FeedItem;
use crate::relay::feed::PartitionFeed;
use crate::relay::joined_events::JOINED_BYTES;
use crate::relay::outgoing::Outgoing;
use crate::relay::outgoing::OutgoingEvent;
use crate::relay::place::MessagePlace;
use crate::relay::publisher::PartitionPublisher;
use crate::relay::samples::SampleStream;
use crate::relay::samples::event;

/// A publisher that runs.
struct Running {
    outgoing: mpsc::Sender<Vec<Outgoing>>,
    settled: watch::Sender<Option<Position>>,
    reports: ReportReceiver,
    tasks: JoinSet<Result<(), RelayInterruption>>,
}

impl Running {
    async fn start(stream: &SampleStream, epoch: i64) -> Self {
        let publisher = PartitionPublisher::open(stream.clone(), epoch, None, false).await;
        let ((outgoing, batches), (settled, told)) = (mpsc::channel(4), watch::channel(None));
        let (reports_in, reports) = report_queue(64);
        let mut tasks = JoinSet::new();
        tasks.spawn(publisher.unwrap().run(batches, told, reports_in));
        Self { outgoing, settled, reports, tasks }
    }

    /// Hands over what the pump had at hand, and waits until it is in the stream.
    async fn send(&self, batch: Vec<Outgoing>) {
        self.outgoing.send(batch).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    async fn end(mut self) {
        drop(self.outgoing);
        self.tasks.join_next().await.unwrap().unwrap().unwrap();
    }
}

fn at(commit: u64) -> Position {
    event(commit, EventKeys::NONE, "").position
}

/// The event of the change at this commit, with a text of so many bytes.
fn outgoing(commit: u64, bytes: usize) -> Outgoing {
    let event = Arc::new(event(commit, EventKeys::NONE, &"x".repeat(bytes)));
    let place = MessagePlace::of(event.position, RuleIndex(0));
    let mut outgoing = OutgoingEvent::new(place, &event, 0);
    outgoing.add((0, &event.body), (EndpointIndex(0), "crm".into()));
    Outgoing::Event(outgoing)
}

/// The commits of the events that come next.
async fn commits(feed: &mut PartitionFeed<SampleStream>, count: usize) -> Vec<u64> {
    let mut commits = Vec::new();
    while commits.len() < count {
        if let FeedItem::Event(relayed) = feed.next().await.unwrap() {
            commits.push(relayed.event.position.commit.raw());
        }
    }
    commits
}

/// Heads of marks, oldest first.
fn marks(stream: &SampleStream) -> Vec<Lsn> {
    stream.with(|held| held.messages.values().filter_map(|message| message.head.mark).collect())
}

#[tokio::test(start_paused = true)]
async fn what_is_at_hand_goes_together_as_far_as_a_message_may() {
    let stream = SampleStream::default();
    let publisher = Running::start(&stream, 1).await;
    publisher.send((1..=3).map(|commit| outgoing(commit, 100)).collect()).await;
    let events = |stream: &SampleStream| {
        stream.with(|held| held.messages.values().filter(|one| one.head.mark.is_none()).count())
    };
    assert_eq!(events(&stream), 1, "three small ones");
    publisher.send((4..=6).map(|commit| outgoing(commit, JOINED_BYTES / 2)).collect()).await;
    assert_eq!(events(&stream), 4, "each of the large ones by itself");
    publisher.send(vec![outgoing(7, 1), Outgoing::Mark(Lsn::from_raw(8)), outgoing(9, 1)]).await;
    assert_eq!(events(&stream), 6, "a mark stands between them");
    let mut feed = PartitionFeed::new(stream.clone(), None);
    assert_eq!(commits(&mut feed, 8).await, [1, 2, 3, 4, 5, 6, 7, 9]);
    publisher.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_stays_as_long_as_one_of_its_events_is_owed() {
    let stream = SampleStream::default();
    let mut publisher = Running::start(&stream, 1).await;
    publisher.send(vec![outgoing(1, 1)]).await;
    publisher.send(vec![outgoing(2, 1), outgoing(3, 1)]).await;
    publisher.send(vec![outgoing(4, 1)]).await;
    publisher.send(vec![outgoing(5, 1)]).await;
    let is_held = |stream: &SampleStream, commit| {
        let place = MessagePlace::of(at(commit), RuleIndex(0));
        stream.with(|held| held.messages.values().any(|one| one.head.place == place))
    };
    for (settled, is_owed) in [(2, true), (4, false)] {
        publisher.settled.send(Some(at(settled))).unwrap();
        publisher.reports.recv().await.unwrap();
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert!(!is_held(&stream, 1) && is_held(&stream, 5), "settled up to {settled}");
        assert_eq!(is_held(&stream, 3), is_owed, "settled up to {settled}");
    }
    publisher.end().await;
}

#[tokio::test(start_paused = true)]
async fn whoever_has_had_some_events_of_a_message_gets_the_others() {
    let stream = SampleStream::default();
    let before = Running::start(&stream, 1).await;
    before.send(vec![outgoing(1, 1), outgoing(2, 1)]).await;
    let mut feed = PartitionFeed::new(stream.clone(), None);
    assert_eq!(commits(&mut feed, 2).await, [1, 2]);
    before.end().await;
    // The next tail puts them together with what has come since.
    let after = Running::start(&stream, 2).await;
    after.send((1..=4).map(|commit| outgoing(commit, 1)).collect()).await;
    assert_eq!(commits(&mut feed, 2).await, [3, 4]);
    after.end().await;
}

/// An owner that reads on where a stream had ended before it went back never got the mark before.
#[tokio::test(start_paused = true)]
async fn a_stream_that_owes_something_is_told_the_last_mark_again() {
    let stream = SampleStream::default();
    let publisher = Running::start(&stream, 1).await;
    publisher.send(vec![outgoing(1, 1), Outgoing::Mark(Lsn::from_raw(8))]).await;
    tokio::time::sleep(Duration::from_millis(3500)).await;
    let marks = marks(&stream);
    assert_eq!(marks.first(), Some(&Lsn::ZERO), "the first one takes the stream over");
    assert!(marks.len() >= 4, "{marks:?}");
    assert!(marks.iter().skip(1).all(|mark| *mark == Lsn::from_raw(8)), "{marks:?}");
    publisher.end().await;
}
