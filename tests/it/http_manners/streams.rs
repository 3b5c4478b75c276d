//! HTTP/2 peers that take few requests at once, refuse some, or say goodbye: what they did not
//! process is sent again at once, and costs no retry.

use super::links::client_of;
use super::links::linked;
use super::*;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use h2::Reason;
use h2::server::SendResponse;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use walhook::testing::delivery::sockets::Sockets;
use walhook::testing::flow::verdict::AttemptReach;

/// What a peer does with a request, counted over all connections from 0.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Does {
    Answer,
    Refuse,
    /// Answers, and takes no more over this connection.
    SayGoodbye,
    /// Says goodbye before it takes any.
    TurnAway,
}

#[derive(Default)]
struct Peer {
    requests: AtomicUsize,
    connections: AtomicUsize,
    open: AtomicUsize,
    most_open: AtomicUsize,
    tasks: Mutex<JoinSet<()>>,
}

impl Peer {
    /// Takes `streams` at once; answers after `delay`.
    async fn start(streams: u32, delay: Duration, does: fn(usize) -> Does) -> (Arc<Self>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/in", listener.local_addr().unwrap());
        let peer = Arc::new(Self::default());
        let serving = Arc::clone(&peer);
        peer.tasks.lock().unwrap().spawn(async move {
            let mut conversations = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                serving.connections.fetch_add(1, Ordering::SeqCst);
                let peer = Arc::clone(&serving);
                conversations
                    .spawn(async move { peer.converse(stream, streams, delay, does).await });
            }
        });
        (peer, url)
    }

    async fn converse(
        self: Arc<Self>,
        stream: tokio::net::TcpStream,
        streams: u32,
        delay: Duration,
        does: fn(usize) -> Does,
    ) {
        let mut builder = h2::server::Builder::new();
        builder.max_concurrent_streams(streams);
        let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
        if does(self.requests.load(Ordering::SeqCst)) == Does::TurnAway {
            self.requests.fetch_add(1, Ordering::SeqCst);
            connection.abrupt_shutdown(Reason::NO_ERROR);
        }
        let mut answers = JoinSet::new();
        while let Some(Ok((_request, mut respond))) = connection.accept().await {
            let number = self.requests.fetch_add(1, Ordering::SeqCst);
            match does(number) {
                Does::Refuse => respond.send_reset(Reason::REFUSED_STREAM),
                does => {
                    let open = self.open.fetch_add(1, Ordering::SeqCst) + 1;
                    self.most_open.fetch_max(open, Ordering::SeqCst);
                    if does == Does::SayGoodbye {
                        connection.graceful_shutdown();
                    }
                    answers.spawn(Arc::clone(&self).answer(respond, delay));
                }
            }
        }
        while answers.join_next().await.is_some() {}
    }

    async fn answer(self: Arc<Self>, mut respond: SendResponse<Bytes>, delay: Duration) {
        tokio::time::sleep(delay).await;
        self.open.fetch_sub(1, Ordering::SeqCst);
        let response = http::Response::builder().status(200).body(()).unwrap();
        drop(respond.send_response(response, true));
    }
}

async fn at_once(client: &EndpointClient, count: usize) -> Vec<HttpExchange> {
    let lease = lease();
    futures_util::future::join_all((0..count).map(|_| client.attempt(&lease, NOW))).await
}

fn reports(exchanges: &[HttpExchange]) -> Vec<String> {
    let failed = exchanges.iter().filter(|exchange| exchange.verdict != AttemptVerdict::Delivered);
    failed.map(|exchange| format!("{:?} {:?}", exchange.reach, exchange.failure)).collect()
}

#[tokio::test]
async fn a_peer_that_takes_four_at_once_gets_all_of_thirty_two() {
    let (peer, url) = Peer::start(4, Duration::from_millis(20), |_| Does::Answer).await;
    let client = client_of(&linked(&url, "http2 = true"));
    let exchanges = at_once(&client, 32).await;
    assert_eq!(reports(&exchanges), [""; 0]);
    assert_eq!(peer.requests.load(Ordering::SeqCst), 32, "each once");
    assert!(peer.most_open.load(Ordering::SeqCst) <= 4);
    assert_eq!(peer.connections.load(Ordering::SeqCst), 1);
}

/// The first request may be on its way to the peer before it says that it takes none.
#[tokio::test]
async fn what_waits_for_a_stream_until_its_time_is_over_was_not_sent() {
    let (peer, url) = Peer::start(0, Duration::ZERO, |_| Does::Answer).await;
    let mut endpoint = linked(&url, "http2 = true");
    endpoint.timeout = Duration::from_secs(2);
    let exchanges = at_once(&client_of(&endpoint), 3).await;
    let unsent =
        exchanges.iter().filter(|exchange| exchange.reach == AttemptReach::Unprocessed).count();
    assert!(unsent >= 2, "{exchanges:?}");
    assert_eq!(peer.requests.load(Ordering::SeqCst), 0, "{exchanges:?}");
    assert!(exchanges.iter().all(|exchange| exchange.verdict == RETRY));
}

#[tokio::test]
async fn a_refused_stream_is_sent_again_at_once_and_not_for_ever() {
    let some = |number: usize| if number < 2 { Does::Refuse } else { Does::Answer };
    let (peer, url) = Peer::start(100, Duration::ZERO, some).await;
    let client = client_of(&linked(&url, "http2 = true"));
    assert_eq!(reports(&at_once(&client, 1).await), [""; 0]);
    assert_eq!(peer.requests.load(Ordering::SeqCst), 3);

    let (peer, url) = Peer::start(100, Duration::ZERO, |_| Does::Refuse).await;
    let refused = client_of(&linked(&url, "http2 = true")).attempt(&lease(), NOW).await;
    assert_eq!(
        (refused.verdict.clone(), refused.reach),
        (RETRY, AttemptReach::Unprocessed),
        "{refused:?}"
    );
    assert_eq!(class(&refused), Some(FailureClass::Protocol));
    assert_eq!(peer.requests.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn a_goodbye_costs_nothing() {
    let every_third = |number: usize| match number % 3 {
        2 => Does::SayGoodbye,
        _ => Does::Answer,
    };
    let (peer, url) = Peer::start(8, Duration::from_millis(5), every_third).await;
    let client = client_of(&linked(&url, "http2 = true"));
    for _ in 0..5 {
        let exchanges = at_once(&client, 12).await;
        let spent: Vec<_> = exchanges
            .iter()
            .filter(|e| e.verdict != AttemptVerdict::Delivered && e.reach == AttemptReach::Endpoint)
            .collect();
        assert!(spent.is_empty(), "{spent:?}");
    }
    assert!(peer.connections.load(Ordering::SeqCst) > 5);
}

#[tokio::test]
async fn who_is_turned_away_at_the_door_comes_again() {
    let twice = |number: usize| if number < 2 { Does::TurnAway } else { Does::Answer };
    let (peer, url) = Peer::start(8, Duration::ZERO, twice).await;
    let client = client_of(&linked(&url, "http2 = true"));
    assert_eq!(reports(&at_once(&client, 1).await), [""; 0]);
    assert_eq!(peer.connections.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn who_finds_no_socket_spends_nothing_and_it_can_be_seen() {
    let (slow, slow_url) = Peer::start(8, AMPLE, |_| Does::Answer).await;
    let sockets = Sockets::new(1);
    let network = |sockets: &Sockets| {
        DeliveryNetwork::new(Arc::new(Names(Vec::new())), RootCertStore::empty())
            .within(sockets.clone())
    };
    let holder =
        EndpointClient::new(&linked(&slow_url, "http2 = true"), &network(&sockets)).unwrap();
    let (_peer, url) = Peer::start(8, Duration::ZERO, |_| Does::Answer).await;
    let mut endpoint = linked(&url, "http2 = true");
    endpoint.timeout = Duration::from_secs(1);
    let client = EndpointClient::new(&endpoint, &network(&sockets)).unwrap();
    let held = lease();
    let mut ownership = Box::pin(holder.attempt(&held, NOW));
    while slow.requests.load(Ordering::SeqCst) == 0 {
        let pause = tokio::time::sleep(Duration::from_millis(5));
        assert!(tokio::time::timeout(Duration::ZERO, &mut ownership).await.is_err());
        pause.await;
    }
    let exchange = client.attempt(&lease(), NOW).await;
    assert_eq!(
        (exchange.verdict.clone(), exchange.reach),
        (RETRY, AttemptReach::Nowhere),
        "{exchange:?}"
    );
    assert_eq!(class(&exchange), Some(FailureClass::Local));
    assert!(sockets.lack(tokio::time::Instant::now()).unwrap().contains("LimitNOFILE"));
    drop(ownership);
    drop(holder);
    let began = std::time::Instant::now();
    while client.attempt(&lease(), NOW).await.verdict != AttemptVerdict::Delivered {
        assert!(began.elapsed() < AMPLE, "the socket never comes back");
    }
}

#[tokio::test]
async fn no_connection_is_used_for_longer_than_its_age() {
    for (keys, http2) in [("", false), ("http2 = true", true)] {
        let receiver = match http2 {
            true => Receiver::start_http2(None, always(Answer::status(200))),
            false => Receiver::start(always(Answer::status(200))),
        };
        let mut endpoint = linked(&receiver.url(), keys);
        endpoint.link.max_age = Duration::from_millis(400);
        let client = client_of(&endpoint);
        let began = std::time::Instant::now();
        // Busy all the time: an idle one would be closed anyway.
        while receiver.requests().last().is_none_or(|request| request.connection < 3) {
            assert_eq!(client.attempt(&lease(), NOW).await.verdict, AttemptVerdict::Delivered);
            assert!(began.elapsed() < AMPLE, "the first connection is used for ever");
        }
        assert!(began.elapsed() >= Duration::from_millis(550), "three quarters, at least, of each");
    }
}
