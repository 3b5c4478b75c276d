//! Asks a running walhook over its HTTP surface.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]
#![expect(clippy::panic, reason = "a test may stop at once, and then shows the whole answer")]

use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::program::Program;

/// Far more than an answer takes, also on a busy machine.
const AMPLE: Duration = Duration::from_secs(20);

/// The HTTP surface of one program.
pub(crate) struct Surface {
    address: String,
}

impl Surface {
    /// Waits until the program says where it listens.
    pub(crate) async fn of(program: &mut Program) -> Self {
        let line = program.wait_for_line("walhook is running", AMPLE).await;
        let address = line.split("http=").nth(1).unwrap().split_whitespace().next().unwrap();
        Self { address: address.to_owned() }
    }

    /// Status and body of a GET.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let exchange = async {
            let mut stream = TcpStream::connect(&self.address).await.unwrap();
            let request = format!(
                "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
                self.address
            );
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
        };
        timeout(AMPLE, exchange).await.unwrap()
    }

    /// The value of a metric; `name` with its labels, such as `walhook_events_total{event="a"}`.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.get("/metrics").await;
        let mut values = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        values.next().unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().unwrap()
    }
}
