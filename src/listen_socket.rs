//! TCP sockets that listen.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::net::TcpSocket;

/// Connections that may wait to be accepted; the system allows fewer, if its own limit is lower (Linux:
/// `net.core.somaxconn`). Without a word tokio asks for 128, and whoever connects beyond them tries again after a
/// second: thousands that begin at once, as after a restart, would.
const WAITING_MAX: u32 = 4096;

/// Takes an address; port 0 takes any free one. To be called within a runtime.
///
/// # Errors
/// The address is in use, or not this machine's.
pub fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // Or a restart would wait for the last connections of the process before it. Windows means something else by it.
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(WAITING_MAX)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::net::Ipv6Addr;
    use std::net::TcpStream;
    use std::time::Duration;

    use super::*;

    /// How many the system lets wait; 4096 since Linux 5.4, where nobody has set it.
    fn allowed() -> usize {
        let set = std::fs::read_to_string("/proc/sys/net/core/somaxconn");
        set.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(128)
    }

    #[tokio::test]
    async fn whoever_connects_before_anybody_accepts_waits_in_line() {
        let listener = open((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        for _ in 0..300.min(allowed()) {
            // Beyond the line it would be sent again after a second, and two, and four.
            waiting.push(TcpStream::connect_timeout(&address, Duration::from_secs(60)).unwrap());
        }
        listener.accept().await.unwrap();
    }

    #[tokio::test]
    async fn an_address_that_is_taken_is_refused_in_either_family() {
        for address in [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), (Ipv6Addr::LOCALHOST, 0).into()]
        {
            let Ok(listener) = open(address) else {
                assert!(address.is_ipv6(), "a machine may have no IPv6");
                continue;
            };
            let taken = open(listener.local_addr().unwrap()).unwrap_err();
            assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        }
    }
}
