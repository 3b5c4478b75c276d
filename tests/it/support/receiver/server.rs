//! A listening socket on a thread and a runtime of its own.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::thread;

use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A free port of this machine.
pub(super) const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A listening socket whose connections are handled on a thread of its own.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    stop: CancellationToken,
    thread: Option<thread::JoinHandle<()>>,
}

impl Server {
    /// `handle` gets each connection and its number, from 1. What it returns is not looked at: a
    /// connection that breaks is the client's to notice.
    pub(super) fn start<H, F>(address: SocketAddr, handle: H) -> Self
    where
        H: Fn(TcpStream, usize) -> F + Send + 'static,
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let listener = std::net::TcpListener::bind(address)
            .unwrap_or_else(|error| panic!("cannot listen on {address}: {error}"));
        let address = listener.local_addr().unwrap_or(address);
        let stop = CancellationToken::new();
        let serve = serve(listener, handle, stop.clone());
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime.and_then(|runtime| runtime.block_on(serve)) {
                Ok(()) => {}
                Err(error) => panic!("the receiver cannot listen: {error}"),
            }
        });
        Self { address, stop, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // It panicked if this fails, and has said so.
            drop(thread.join());
        }
    }
}

async fn serve<H, F>(
    listener: std::net::TcpListener,
    handle: H,
    stop: CancellationToken,
) -> io::Result<()>
where
    H: Fn(TcpStream, usize) -> F,
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let mut connections = JoinSet::new();
    let mut number = 0;
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            Some(_) = connections.join_next() => {}
            Ok((stream, _)) = listener.accept() => {
                stream.set_nodelay(true)?;
                number += 1;
                connections.spawn(handle(stream, number));
            }
        }
    }
}
