//! The bytes of a connection: a TCP or unix socket, with or without TLS.

use std::convert::Infallible;
use std::future::Ready;
use std::future::ready;
use std::io;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;

use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio::net::UnixStream;
use tokio_postgres::tls::ChannelBinding;
use tokio_postgres::tls::TlsConnect;
use tokio_rustls::client::TlsStream;

use crate::store::session::answer_watch::AnswerLimit;
use crate::store::session::answer_watch::AnswerWatch;
use crate::store::session::answer_watch::BackendKeyPid;
use crate::store::session::tls;

/// An open connection to a PostgreSQL server, TLS negotiated, nothing said yet.
#[derive(Debug)]
pub struct ServerTransport {
    socket: ServerSocket,
    /// Host and port, or the socket's folder: for messages.
    at: String,
    /// For plain SQL. The stream of changes has limits of its own.
    answers: Option<AnswerWatch>,
}

#[derive(Debug)]
enum ServerSocket {
    Tcp(TcpStream),
    Unix(UnixStream),
    // Boxed: a TLS session is large, and a Transport is moved around.
    Tls(Box<TlsStream<TcpStream>>),
}

impl ServerTransport {
    pub(crate) fn tcp(socket: TcpStream, at: String) -> Self {
        Self { socket: ServerSocket::Tcp(socket), at, answers: None }
    }

    pub(crate) fn unix(socket: UnixStream, at: String) -> Self {
        Self { socket: ServerSocket::Unix(socket), at, answers: None }
    }

    pub(crate) fn tls(socket: TlsStream<TcpStream>, at: String) -> Self {
        Self { socket: ServerSocket::Tls(Box::new(socket)), at, answers: None }
    }

    /// Ends with an error when the server owes an answer and says nothing for as long as this. To be
    /// said before the start-up message is sent. `process` gets what the login says.
    pub(crate) fn answering_within(
        mut self,
        answer_limit: AnswerLimit,
        process: BackendKeyPid,
    ) -> Self {
        self.answers = Some(AnswerWatch::new(answer_limit, process));
        self
    }

    /// Where this leads: host and port, or the socket's folder.
    pub fn at(&self) -> &str {
        &self.at
    }

    /// What ties a SCRAM exchange to this TLS session (`tls-server-end-point`, RFC 5929).
    pub fn end_point(&self) -> Option<Vec<u8>> {
        let ServerSocket::Tls(stream) = &self.socket else { return None };
        let (_, session) = stream.get_ref();
        session.peer_certificates()?.first().and_then(tls::end_point)
    }
}

impl AsyncRead for ServerTransport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = match &mut self.socket {
            ServerSocket::Tcp(socket) => Pin::new(socket).poll_read(cx, buf),
            ServerSocket::Unix(socket) => Pin::new(socket).poll_read(cx, buf),
            ServerSocket::Tls(socket) => Pin::new(socket).poll_read(cx, buf),
        };
        let Some(answers) = &mut self.answers else { return read };
        match read {
            Poll::Pending => answers.poll_silent(cx).map(Err),
            Poll::Ready(read) => {
                answers.heard(buf.filled().get(before..).unwrap_or_default());
                Poll::Ready(read)
            }
        }
    }
}

impl AsyncWrite for ServerTransport {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = match &mut self.socket {
            ServerSocket::Tcp(socket) => Pin::new(socket).poll_write(cx, buf),
            ServerSocket::Unix(socket) => Pin::new(socket).poll_write(cx, buf),
            ServerSocket::Tls(socket) => Pin::new(socket).poll_write(cx, buf),
        };
        if let (Poll::Ready(Ok(count)), Some(answers)) = (&written, &mut self.answers) {
            answers.sent(buf.get(..*count).unwrap_or_default(), cx);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            ServerSocket::Tcp(socket) => Pin::new(socket).poll_flush(cx),
            ServerSocket::Unix(socket) => Pin::new(socket).poll_flush(cx),
            ServerSocket::Tls(socket) => Pin::new(socket).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            ServerSocket::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            ServerSocket::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
            ServerSocket::Tls(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}

impl tokio_postgres::tls::TlsStream for ServerTransport {
    fn channel_binding(&self) -> ChannelBinding {
        self.end_point().map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

/// Tells tokio-postgres that TLS has been dealt with.
#[derive(Debug)]
pub(crate) struct SecuredStream;

impl TlsConnect<ServerTransport> for SecuredStream {
    type Stream = ServerTransport;
    type Error = NeverFails;
    type Future = Ready<Result<ServerTransport, NeverFails>>;

    fn connect(self, stream: ServerTransport) -> Self::Future {
        ready(Ok(stream))
    }
}

/// The error of a step that cannot fail, as an error type that tokio-postgres accepts.
#[derive(Debug)]
pub(crate) struct NeverFails(Infallible);

impl From<NeverFails> for Box<dyn std::error::Error + Send + Sync> {
    fn from(never: NeverFails) -> Self {
        match never.0 {}
    }
}
