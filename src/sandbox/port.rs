//! Free TCP ports on loopback for servers of the sandbox.

use std::io;
use std::net::Ipv4Addr;
use std::net::TcpListener;

/// Below the ports that Linux (from 32768) and the BSDs (from 49152) give to outgoing connections:
/// one of those could take the port of a server while it is stopped.
const PORTS: std::ops::Range<u16> = 15_000..32_000;

/// Another process may take a port between our look and the server's start.
pub(super) const PORT_ATTEMPTS_MAX: u32 = 8;

/// A port of 127.0.0.1 on which nobody listens at this moment.
pub(super) fn free_port() -> io::Result<u16> {
    let mut refusal = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..100 {
        let port = fastrand::u16(PORTS);
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_free_again) => return Ok(port),
            Err(error) => refusal = error,
        }
    }
    Err(refusal)
}
