//! A proxy that opens tunnels to one place, whatever it is asked for.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::LOOPBACK;
use super::Server;
use super::lock;

pub(crate) struct Proxy {
    server: Server,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// Every tunnel leads to `to`; `None`: every request for one is refused.
    pub(crate) fn start(to: Option<SocketAddr>) -> Self {
        let heads = Arc::new(Mutex::new(Vec::new()));
        let server = Server::start(LOOPBACK, {
            let heads = Arc::clone(&heads);
            move |stream, _| tunnel(stream, to, Arc::clone(&heads))
        });
        Self { server, heads }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// What was asked for so far.
    pub(crate) fn heads(&self) -> Vec<String> {
        lock(&self.heads).clone()
    }
}

async fn tunnel(
    mut stream: TcpStream,
    to: Option<SocketAddr>,
    heads: Arc<Mutex<Vec<String>>>,
) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    lock(&heads).push(String::from_utf8_lossy(&head).into_owned());
    let Some(to) = to else {
        return stream.write_all(b"HTTP/1.1 407 Who are you\r\ncontent-length: 0\r\n\r\n").await;
    };
    let mut beyond = TcpStream::connect(to).await?;
    stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    tokio::io::copy_bidirectional(&mut stream, &mut beyond).await.map(|_| ())
}
