//! A peer that sends what it is told, HTTP or not.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::read_request;
use super::server::LOOPBACK;
use super::server::Server;

/// One thing that a [`RawServer`] does on a connection. After the last it closes.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Reads until one whole request is there.
    ReadRequest,
    /// Reads what is there, at least one byte.
    ReadSome,
    Send(Bytes),
    /// Sends the same for ever.
    Repeat(Bytes),
    Pause(Duration),
    /// Waits so long, as servers do that take a half-closed connection for a client that has left.
    ResetIfHalfClosed(Duration),
    /// Sends nothing more and leaves the other direction open.
    HalfClose,
    Reset,
    Hang,
}

/// Sends what it is told, HTTP or not, the same on every connection.
pub(crate) struct RawServer {
    server: Server,
}

impl RawServer {
    pub(crate) fn start(steps: Vec<Step>) -> Self {
        let steps: Arc<[Step]> = steps.into();
        let play = move |stream, connection| play(stream, connection, Arc::clone(&steps));
        Self { server: Server::start(LOOPBACK, play) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hooks", self.server.address)
    }
}

async fn play(mut stream: TcpStream, connection: usize, steps: Arc<[Step]>) -> io::Result<()> {
    for step in steps.iter() {
        match step {
            Step::ReadRequest => {
                read_request(&mut stream, &mut BytesMut::new(), connection).await?;
            }
            Step::ReadSome => {
                stream.read_buf(&mut BytesMut::with_capacity(4096)).await?;
            }
            Step::Send(bytes) => stream.write_all(bytes).await?,
            Step::Repeat(bytes) => loop {
                stream.write_all(bytes).await?;
            },
            Step::Pause(time) => tokio::time::sleep(*time).await,
            Step::ResetIfHalfClosed(time) => {
                let mut more = BytesMut::with_capacity(4096);
                let read = tokio::time::timeout(*time, stream.read_buf(&mut more)).await;
                if let Ok(Ok(0)) = read {
                    return stream.set_zero_linger();
                }
            }
            Step::HalfClose => stream.shutdown().await?,
            Step::Reset => return stream.set_zero_linger(),
            Step::Hang => std::future::pending().await,
        }
    }
    Ok(())
}
