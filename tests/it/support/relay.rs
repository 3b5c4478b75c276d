//! A TCP relay on loopback that can misbehave like a network: swallow, delay, dribble, reset.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

use std::io;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What the relay does with bytes, in both directions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Weather {
    Fair,
    /// Each piece comes so much later.
    Late(Duration),
    /// One byte at a time.
    Dribble,
    /// After so many bytes of either direction the connection is reset.
    ResetAfter(u64),
}

#[derive(Debug)]
struct Shared {
    to: Mutex<SocketAddr>,
    weather: Mutex<Weather>,
    /// Connections of an age before this are swallowed: nothing of theirs arrives, nobody is told.
    swallowed_before: AtomicU64,
    accepted: AtomicU64,
    /// Of those that are swallowed, these are found out and reset.
    found_before: watch::Sender<u64>,
    /// Changes when all connections are to be reset.
    cuts: watch::Sender<()>,
}

/// Runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Relay {
    shared: Arc<Shared>,
    port: u16,
    _task: JoinSet<()>,
}

impl Relay {
    /// In front of a server on this port.
    pub(crate) async fn start(port: u16) -> Self {
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let shared = Arc::new(Shared {
            to: Mutex::new(to),
            weather: Mutex::new(Weather::Fair),
            swallowed_before: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            found_before: watch::Sender::new(0),
            cuts: watch::Sender::new(()),
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut task = JoinSet::new();
        task.spawn(accept(listener, Arc::clone(&shared)));
        Self { shared, port, _task: task }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn weather(&self, weather: Weather) {
        *lock(&self.shared.weather) = weather;
    }

    /// Connections from now on lead to the server on this port.
    pub(crate) fn lead_to(&self, port: u16) {
        lock(&self.shared.to).set_port(port);
    }

    /// The connections that there are go dead without a word; later ones are well.
    pub(crate) fn swallow(&self) {
        let accepted = self.shared.accepted.load(Ordering::SeqCst);
        self.shared.swallowed_before.store(accepted, Ordering::SeqCst);
    }

    /// Both ends of those that were swallowed find out, as keepalives would have them.
    pub(crate) fn find_out(&self) {
        let swallowed = self.shared.swallowed_before.load(Ordering::SeqCst);
        self.shared.found_before.send_replace(swallowed);
    }

    /// Resets the connections that there are.
    pub(crate) fn cut(&self) {
        self.shared.cuts.send_replace(());
    }

    /// Connections so far.
    pub(crate) fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            Ok((stream, _)) = listener.accept() => {
                let number = shared.accepted.fetch_add(1, Ordering::SeqCst);
                connections.spawn(relay(stream, number, Arc::clone(&shared)));
            }
        }
    }
}

async fn relay(client: TcpStream, number: u64, shared: Arc<Shared>) -> io::Result<()> {
    let to = *lock(&shared.to);
    let server = TcpStream::connect(to).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    // A reset and not an orderly end: nothing of what is under way arrives any more.
    for stream in [&client, &server] {
        socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO))?;
    }
    let (client_in, client_out) = client.into_split();
    let (server_in, server_out) = server.into_split();
    let passed = AtomicU64::new(0);
    let mut cuts = shared.cuts.subscribe();
    let mut found = shared.found_before.subscribe();
    tokio::select! {
        _ = cuts.changed() => Ok(()),
        _ = found.wait_for(|before| number < *before) => Ok(()),
        ended = pass(client_in, server_out, number, &shared, &passed) => ended,
        ended = pass(server_in, client_out, number, &shared, &passed) => ended,
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    number: u64,
    shared: &Shared,
    passed: &AtomicU64,
) -> io::Result<()> {
    let mut buf = vec![0; 16 * 1024];
    loop {
        let count = from.read(&mut buf).await?;
        let is_dead = || number < shared.swallowed_before.load(Ordering::SeqCst);
        if is_dead() {
            if count == 0 {
                // Not even the end arrives.
                std::future::pending::<()>().await;
            }
            continue;
        }
        if count == 0 {
            return Ok(());
        }
        let bytes = buf.get(..count).unwrap_or_default();
        let weather = *lock(&shared.weather);
        match weather {
            Weather::Fair => to.write_all(bytes).await?,
            Weather::Late(delay) => {
                tokio::time::sleep(delay).await;
                if !is_dead() {
                    to.write_all(bytes).await?;
                }
            }
            Weather::Dribble => {
                for byte in bytes {
                    to.write_all(&[*byte]).await?;
                    tokio::task::yield_now().await;
                }
            }
            Weather::ResetAfter(limit) => {
                let before = passed.fetch_add(count as u64, Ordering::SeqCst);
                let left = usize::try_from(limit.saturating_sub(before)).unwrap_or(usize::MAX);
                to.write_all(bytes.get(..left.min(count)).unwrap_or_default()).await?;
                if left < count {
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
            }
        }
    }
}
