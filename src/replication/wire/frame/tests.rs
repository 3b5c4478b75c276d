//! The reader on an in-memory pipe: splits, budget, silence, ends.

use tokio::io::AsyncWriteExt;
use tokio::io::DuplexStream;

use super::*;

const SILENCE: Duration = Duration::from_secs(10);

fn reader(stream: DuplexStream, budget: &MemoryBudget) -> FrameReader<DuplexStream> {
    let limits =
        FrameLimits { silence: SILENCE, slot: "walhook".to_owned(), publication: "pub".to_owned() };
    FrameReader::new(stream, BytesMut::new(), budget.clone(), Arc::default(), limits)
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    out.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    out.extend_from_slice(body);
    out
}

fn data(end: u64, payload: &[u8]) -> Vec<u8> {
    let mut body = vec![b'w'];
    body.extend_from_slice(&end.to_be_bytes());
    body.extend_from_slice(&end.to_be_bytes());
    body.extend_from_slice(&0_i64.to_be_bytes());
    body.extend_from_slice(payload);
    message(b'd', &body)
}

fn keepalive(end: u64, reply: bool) -> Vec<u8> {
    let mut body = vec![b'k'];
    body.extend_from_slice(&end.to_be_bytes());
    body.extend_from_slice(&7_i64.to_be_bytes());
    body.push(u8::from(reply));
    message(b'd', &body)
}

fn report(tag: u8, severity: &str, sqlstate: &str) -> Vec<u8> {
    message(tag, format!("S{severity}\0V{severity}\0C{sqlstate}\0Mtext\0\0").as_bytes())
}

/// Frames in short: `d<end>:<payload length>` and `k<end>`.
fn shown(frames: &[WireFrame]) -> Vec<String> {
    let show = |frame: &WireFrame| match frame {
        WireFrame::Data { end, payload, held, .. } => {
            format!("d{}:{}{}", end.raw(), payload.len(), if held.is_some() { " held" } else { "" })
        }
        WireFrame::Keepalive { end, reply, .. } => format!("k{} {reply}", end.raw()),
    };
    frames.iter().map(show).collect()
}

#[tokio::test]
async fn frames_are_found_at_every_split() {
    let mut bytes = data(1, b"abc");
    bytes.extend(keepalive(2, true));
    bytes.extend(report(b'N', "NOTICE", "00000"));
    bytes.extend(data(3, b""));
    for split in 0..=bytes.len() {
        let (client, mut server) = tokio::io::duplex(1024);
        let mut reader = reader(client, &MemoryBudget::new(0));
        let mut frames = Vec::new();
        server.write_all(&bytes[..split]).await.unwrap();
        let feed = async {
            tokio::task::yield_now().await;
            server.write_all(&bytes[split..]).await.unwrap();
        };
        let read = async {
            while frames.len() < 3 {
                reader.read(&mut frames).await.unwrap();
            }
        };
        tokio::join!(read, feed);
        assert_eq!(shown(&frames), ["d1:3", "k2 true", "d3:0"], "split at {split}");
        assert_eq!(reader.heard.received(), Lsn::from_raw(3));
    }
}

#[tokio::test]
async fn a_read_takes_all_that_is_there() {
    let (client, mut server) = tokio::io::duplex(1 << 20);
    let mut reader = reader(client, &MemoryBudget::new(0));
    for end in 1..=1000 {
        server.write_all(&data(end, &[b'x'; 100])).await.unwrap();
    }
    let mut frames = Vec::new();
    reader.read(&mut frames).await.unwrap();
    assert_eq!(frames.len(), 1000);
}

#[tokio::test(start_paused = true)]
async fn after_many_frames_the_reader_lets_bytes_gather_and_after_few_it_does_not() {
    let (client, mut server) = tokio::io::duplex(1 << 20);
    let mut reader = reader(client, &MemoryBudget::new(0));
    let mut frames = Vec::new();
    let mut waited = Vec::new();
    for count in [3, MANY_FRAMES, FLOOD_FRAMES, 1, 1] {
        for _ in 0..count {
            server.write_all(&data(1, b"x")).await.unwrap();
        }
        let started = Instant::now();
        reader.read(&mut frames).await.unwrap();
        waited.push(started.elapsed());
    }
    // Each waits for what the read before it has brought.
    let ms = Duration::from_millis;
    assert_eq!(waited, [ms(0), ms(0), ms(1), ms(2), ms(0)]);
}

/// The begin of a transaction that is sent so long after its commit.
fn begin(lag: Duration) -> Vec<u8> {
    let mut payload = vec![b'B'];
    payload.extend_from_slice(&9_u64.to_be_bytes());
    payload.extend_from_slice(&1_000_000_i64.to_be_bytes());
    payload.extend_from_slice(&7_u32.to_be_bytes());
    let mut body = vec![b'w'];
    body.extend_from_slice(&[0; 16]);
    let lag = i64::try_from(lag.as_micros()).unwrap();
    body.extend_from_slice(&(1_000_000 + lag).to_be_bytes());
    body.extend_from_slice(&payload);
    message(b'd', &body)
}

#[tokio::test(start_paused = true)]
async fn while_the_stream_is_behind_the_servers_commits_bytes_gather_however_few_come() {
    let (client, mut server) = tokio::io::duplex(1 << 20);
    let mut reader = reader(client, &MemoryBudget::new(0));
    let (mut frames, mut waited, mut expecting) = (Vec::new(), Vec::new(), Vec::new());
    let ms = Duration::from_millis;
    // A transaction that was sent at once, one that was late, a part of it, one in time again.
    let reads = [begin(ms(1)), begin(ms(6)), data(1, b"Ix"), begin(ms(4)), data(1, b"Ix")];
    for bytes in reads {
        server.write_all(&bytes).await.unwrap();
        let started = Instant::now();
        reader.read(&mut frames).await.unwrap();
        waited.push(started.elapsed());
        expecting.push(reader.expects_more());
    }
    assert_eq!(waited, [ms(0), ms(0), ms(1), ms(1), ms(0)]);
    assert_eq!(
        expecting,
        [false, true, true, false, false],
        "a batch that is not full waits for more"
    );
}

#[tokio::test]
async fn a_large_frame_waits_for_its_share_after_the_frames_before_it_were_handed_over() {
    let (client, mut server) = tokio::io::duplex(1 << 22);
    let budget = MemoryBudget::new(1 << 20);
    let mut reader = reader(client, &budget);
    let taken = budget.try_take(1 << 19).unwrap();
    let large = vec![b'x'; 700_000];
    server.write_all(&data(1, b"small")).await.unwrap();
    server.write_all(&data(2, &large)).await.unwrap();
    server.write_all(&data(3, b"after")).await.unwrap();
    let mut frames = Vec::new();
    reader.read(&mut frames).await.unwrap();
    assert_eq!(shown(&frames), ["d1:5"]);
    // Nothing more without a share; a cancelled read loses neither bytes nor its place.
    for _ in 0..3 {
        let read = reader.read(&mut frames);
        assert!(tokio::time::timeout(Duration::from_millis(1), read).await.is_err());
    }
    let mut later = Box::pin(budget.take(1 << 19));
    assert!(tokio::time::timeout(Duration::from_millis(1), &mut later).await.is_err());
    drop(taken);
    while frames.len() < 3 {
        let read = reader.read(&mut frames);
        tokio::time::timeout(Duration::from_secs(5), read).await.unwrap().unwrap();
    }
    assert_eq!(shown(&frames), ["d1:5", "d2:700000 held", "d3:5"]);
    let WireFrame::Data { payload, held: Some(held), .. } = &frames[1] else { panic!("no data") };
    assert!(payload.iter().all(|&byte| byte == b'x'));
    assert!(held.bytes() >= payload.len());
    drop(frames);
    drop(later.await);
    assert_eq!(budget.used_bytes(), 0);
}

#[tokio::test]
async fn large_frames_leave_the_shared_buffer_as_it_was() {
    let (client, mut server) = tokio::io::duplex(64 * 1024);
    let mut reader = reader(client, &MemoryBudget::new(100 << 20));
    let feed = async {
        for end in 1..=20 {
            server.write_all(&data(end, &vec![b'x'; 3_000_000])).await.unwrap();
            server.write_all(&data(end, &vec![b'y'; 60_000])).await.unwrap();
        }
    };
    let read = async {
        let mut frames = Vec::new();
        let mut seen = 0;
        while seen < 40 {
            frames.clear();
            reader.read(&mut frames).await.unwrap();
            seen += frames.len();
            assert!(reader.buf.capacity() <= READ_BYTES, "{}", reader.buf.capacity());
        }
    };
    tokio::join!(feed, read);
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_noticed_but_only_time_spent_reading_counts() {
    let (client, mut server) = tokio::io::duplex(1024);
    let mut reader = reader(client, &MemoryBudget::new(0));
    let mut frames = Vec::new();
    // Reads that are cancelled add up ...
    for _ in 0..3 {
        let read = reader.read(&mut frames);
        assert!(tokio::time::timeout(SILENCE / 4, read).await.is_err());
        // ... but not the time in which nobody read.
        tokio::time::advance(SILENCE * 10).await;
    }
    server.write_all(&keepalive(1, false)).await.unwrap();
    reader.read(&mut frames).await.unwrap();
    let started = Instant::now();
    let error = reader.read(&mut frames).await.unwrap_err();
    assert!(
        matches!(&error, SourceError::Disconnected(e) if e.kind() == io::ErrorKind::TimedOut),
        "{error:?}"
    );
    assert!(started.elapsed() >= SILENCE && started.elapsed() < SILENCE * 2);
}

#[tokio::test]
async fn the_end_is_reported_after_what_came_before_it() {
    let cases = [
        ("the server's error", report(b'E', "FATAL", "57P01"), "57P01"),
        ("an orderly end", message(b'C', b"COPY 0\0"), "the server ended the stream"),
        ("a missing publication", report(b'E', "ERROR", "42704"), "publication pub"),
        ("a skipped publication", report(b'N', "WARNING", "55000"), "publication pub"),
        ("no message at all", vec![0xFF; 16], "protocol"),
        ("a stream message of no known kind", message(b'd', b"z"), "protocol"),
        ("nothing", Vec::new(), "end of file"),
    ];
    for (name, end, expected) in cases {
        let (client, mut server) = tokio::io::duplex(1024);
        let mut reader = reader(client, &MemoryBudget::new(0));
        server.write_all(&data(1, b"abc")).await.unwrap();
        server.write_all(&end).await.unwrap();
        drop(server);
        let mut frames = Vec::new();
        let mut outcome = reader.read(&mut frames).await;
        if outcome.is_ok() {
            outcome = reader.read(&mut frames).await;
        }
        assert_eq!(frames.len(), 1, "case: {name}");
        let error = outcome.unwrap_err();
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        let text = format!("{error} {}", cause.unwrap_or_default());
        assert!(text.contains(expected), "case: {name}: {text}");
    }
}

#[tokio::test]
async fn finishing_skips_everything_up_to_the_end_of_the_command() {
    let (client, mut server) = tokio::io::duplex(1024);
    let budget = MemoryBudget::new(1);
    let _all = budget.try_take(1).unwrap(); // what is skipped needs no share
    let mut reader = reader(client, &budget);
    let feed = async {
        server.write_all(&data(1, &vec![b'C'; 300_000])).await.unwrap();
        server.write_all(&report(b'N', "NOTICE", "00000")).await.unwrap();
        server.write_all(&message(b'c', b"")).await.unwrap();
        server.write_all(&message(b'C', b"COPY 0\0")).await.unwrap();
    };
    let finish = async {
        let mut frames = Vec::new();
        let read = reader.read(&mut frames);
        assert!(tokio::time::timeout(Duration::from_millis(5), read).await.is_err());
        reader.finish(Duration::from_secs(5)).await.unwrap();
    };
    tokio::join!(feed, finish);
}

proptest::proptest! {
    #[test]
    fn any_bytes_give_frames_or_an_error_but_no_panic(bytes: Vec<u8>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (client, mut server) = tokio::io::duplex(1 << 16);
            let mut reader = reader(client, &MemoryBudget::new(1 << 20));
            server.write_all(&bytes).await.unwrap();
            drop(server);
            let mut frames = Vec::new();
            while reader.read(&mut frames).await.is_ok() {}
        });
    }
}
