//! The feedback on an in-memory pipe and a paused clock.

use bytes::Buf;
use tokio::io::AsyncReadExt;
use tokio::io::DuplexStream;

use super::*;

const INTERVAL: Duration = Duration::from_millis(300);

/// One Standby Status Update as the server sees it.
#[derive(Debug, Eq, PartialEq)]
struct Update {
    at: Duration,
    written: u64,
    flushed: u64,
    asks: bool,
}

struct Server {
    stream: DuplexStream,
    started: Instant,
}

impl Server {
    /// The next update; `None` for CopyDone.
    async fn next(&mut self) -> Option<Update> {
        let tag = self.stream.read_u8().await.unwrap();
        let length = self.stream.read_u32().await.unwrap();
        if tag == b'c' {
            assert_eq!(length, 4);
            return None;
        }
        assert_eq!((tag, length), (b'd', 38));
        let mut body = [0; STATUS_BYTES];
        self.stream.read_exact(&mut body).await.unwrap();
        let mut body = &body[..];
        assert_eq!(body.get_u8(), b'r');
        let (written, flushed, applied) = (body.get_u64(), body.get_u64(), body.get_u64());
        assert_eq!(flushed, applied);
        let _clock = body.get_i64();
        Some(Update { at: self.started.elapsed(), written, flushed, asks: body.get_u8() == 1 })
    }
}

struct Set {
    server: Server,
    heard: Arc<LastHeard>,
    confirm: watch::Sender<Lsn>,
    let_go: SlotRelease,
    stop: CancellationToken,
    running: tokio::task::JoinSet<Result<(), SourceError>>,
}

fn start() -> Set {
    let (client, stream) = tokio::io::duplex(1024);
    let heard = Arc::new(LastHeard::default());
    let (confirm, confirmed) = watch::channel(Lsn::ZERO);
    let (stop, let_go) = (CancellationToken::new(), SlotRelease::default());
    let writer = FeedbackWriter::new(client, Arc::clone(&heard), INTERVAL);
    let mut running = tokio::task::JoinSet::new();
    running.spawn(feedback(writer, confirmed, let_go.clone(), stop.clone()));
    let server = Server { stream, started: Instant::now() };
    Set { server, heard, confirm, let_go, stop, running }
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[tokio::test(start_paused = true)]
async fn updates_come_at_every_interval_and_ask_for_a_sign_when_nothing_was_heard() {
    let mut set = start();
    for n in 1..=200 {
        let update = set.server.next().await.unwrap();
        assert_eq!(update, Update { at: INTERVAL * n, written: 0, flushed: 0, asks: true });
    }
    tokio::time::advance(ms(200)).await;
    set.heard.note();
    assert!(!set.server.next().await.unwrap().asks);
}

#[tokio::test(start_paused = true)]
async fn a_confirmed_position_is_reported_soon_and_moves_in_between_are_joined() {
    let mut set = start();
    tokio::task::yield_now().await; // lets the feedback start its clock
    tokio::time::advance(ms(100)).await;
    set.confirm.send(Lsn::from_raw(10)).unwrap();
    let update = set.server.next().await.unwrap();
    assert_eq!((update.at, update.flushed), (ms(100), 10));
    for lsn in 11..=20 {
        set.confirm.send(Lsn::from_raw(lsn)).unwrap();
        tokio::task::yield_now().await;
    }
    let update = set.server.next().await.unwrap();
    assert_eq!((update.at, update.flushed), (ms(150), 20));
    let update = set.server.next().await.unwrap();
    assert_eq!((update.at, update.flushed), (ms(450), 20));
}

#[tokio::test(start_paused = true)]
async fn the_servers_question_is_answered_at_once() {
    let mut set = start();
    tokio::time::advance(ms(7)).await;
    set.heard.ask_for_reply();
    let update = set.server.next().await.unwrap();
    assert_eq!((update.at, update.asks), (ms(7), false));
}

#[tokio::test(start_paused = true)]
async fn positions_never_go_back_and_flushed_is_never_beyond_written() {
    let mut set = start();
    let mut last = (0, 0);
    let steps = [(5, 0), (5, 9), (3, 4), (50, 0), (20, 40), (1, 60)];
    for (received, confirmed) in steps {
        set.heard.note_received(Lsn::from_raw(received));
        set.confirm.send(Lsn::from_raw(confirmed)).unwrap();
        let update = set.server.next().await.unwrap();
        let now = (update.written, update.flushed);
        assert!(now.0 >= last.0 && now.1 >= last.1, "{now:?} after {last:?}");
        assert!(update.written >= update.flushed, "{update:?}");
        last = now;
    }
    assert_eq!(last, (60, 60));
}

#[tokio::test(start_paused = true)]
async fn stopping_sends_the_last_confirmed_position_and_the_end() {
    let mut set = start();
    set.confirm.send(Lsn::from_raw(42)).unwrap();
    set.stop.cancel();
    let update = set.server.next().await.unwrap();
    assert_eq!((update.at, update.flushed), (Duration::ZERO, 42));
    assert_eq!(set.server.next().await, None);
    set.running.join_next().await.unwrap().unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn updates_go_on_when_nobody_confirms_any_more() {
    let mut set = start();
    drop(set.confirm);
    for n in 1..=3 {
        assert_eq!(set.server.next().await.unwrap().at, INTERVAL * n);
    }
}

#[test]
fn three_updates_fit_into_the_servers_timeout() {
    let cases = [(0, 1000), (100, 50), (1000, 333), (6000, 1000), (60_000, 1000)];
    for (timeout, expected) in cases {
        assert_eq!(interval(ms(timeout)).as_millis(), expected, "case: {timeout} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn let_go_it_says_how_far_we_are_and_closes() {
    let mut set = start();
    tokio::task::yield_now().await; // lets the feedback start
    set.confirm.send(Lsn::from_raw(10)).unwrap();
    set.let_go.now();
    let update = set.server.next().await.unwrap();
    assert_eq!((update.at, update.flushed), (ms(0), 10));
    assert_eq!(set.server.stream.read(&mut [0]).await.unwrap(), 0, "it goes on");
    set.running.join_next().await.unwrap().unwrap().unwrap();
}
