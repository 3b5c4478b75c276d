//! `walhook run` as the tests see it: its configuration, its log, its HTTP surface.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]
#![expect(clippy::indexing_slicing, reason = "a missing field fails the test as it should")]
#![expect(clippy::panic, reason = "a test may stop at once, and then shows what the program said")]

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;
use std::time::Instant;

use http::StatusCode;
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::postgres::Database;
use crate::support::program::Program;

/// Far more than anything here takes, also on a busy machine.
pub(crate) const AMPLE: Duration = Duration::from_secs(90);

/// A configuration for `database`: a slot that no other test uses, any free port for the HTTP
/// surface, every log line, and `rest`.
pub(crate) fn configuration(database: &Database, rest: &str) -> String {
    let (url, slot) = (database.url(), slot(database));
    format!(
        "[postgres]\nurl = \"{url}\"\nslot = \"{slot}\"\n\n[http]\nlisten = \"127.0.0.1:0\"\n\n\
         [log]\nfilter = \"walhook=debug\"\n\n{rest}\n"
    )
}

/// The name of the endpoint at a URL of `[webhook] urls` or of a file of subscriptions.
pub(crate) fn name_of(url: &str) -> String {
    let toml = format!("postgres.url = 'postgres://a@b/c'\nwebhook.urls = ['{url}']");
    let settings = walhook::testing::config::parse(&toml, "walhook.toml", &|_| None).unwrap();
    settings.endpoints[0].name.to_string()
}

/// The slot that [`configuration`] names.
pub(crate) fn slot(database: &Database) -> String {
    format!("{}_walhook", database.name())
}

/// A `walhook run` that has started: from here on it sees every change.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) program: Program,
    pub(crate) http: SocketAddr,
}

impl Service {
    pub(crate) async fn start(toml: &str) -> Self {
        Self::start_with(toml, &[]).await
    }

    /// With these variables in its environment.
    pub(crate) async fn start_with(toml: &str, env: &[(&str, &str)]) -> Self {
        let mut program = Program::start(&["run"], toml, env);
        let line = program.wait_for_line("walhook is running", AMPLE).await;
        Self { http: http_address(&line), program }
    }

    /// A `walhook run` with more arguments.
    pub(crate) async fn start_as(args: &[&str], toml: &str) -> Self {
        let mut program = Program::start(&[&["run"], args].concat(), toml, &[]);
        let line = program.wait_for_line("walhook is running", AMPLE).await;
        Self { http: http_address(&line), program }
    }

    /// Within limits of the process: see [`Program::start_within`].
    pub(crate) async fn start_within(limits: &[&str], toml: &str) -> Self {
        let mut program = Program::start_within(limits, &["run"], toml);
        let line = program.wait_for_line("walhook is running", AMPLE).await;
        Self { http: http_address(&line), program }
    }

    /// Starts it and waits for the HTTP surface only: it may have to stand by.
    pub(crate) async fn open(toml: &str) -> Self {
        let mut program = Program::start(&["run"], toml, &[]);
        let line = program.wait_for_line("the HTTP surface is up", AMPLE).await;
        Self { http: http_address(&line), program }
    }

    /// SIGTERM, which has to end it with 0.
    pub(crate) async fn stop(&mut self) {
        self.program.terminate();
        let code = self.program.wait(AMPLE).await;
        assert_eq!(code, Some(0), "{}", self.program.output().join("\n"));
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        ask(self.http, "GET", path, None).await.unwrap()
    }

    /// The same of a tail, whose HTTP surface is away for a moment when it starts anew.
    pub(crate) async fn get_when_up(&self, path: &str) -> Reply {
        let deadline = Instant::now() + AMPLE;
        loop {
            match ask(self.http, "GET", path, None).await {
                Ok(reply) => return reply,
                Err(error) => assert!(Instant::now() < deadline, "{path}: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, token: Option<&str>) -> Reply {
        ask(self.http, method, path, token).await.unwrap()
    }

    /// A POST with a JSON body.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        exchange(self.http, "POST", path, None, &body.to_string()).await.unwrap()
    }

    /// `walhook ARGS`, asking this service; its exit code and all that it printed.
    pub(crate) async fn cli(&self, args: &[&str]) -> (Option<i32>, String) {
        let url = format!("http://{}", self.http);
        let mut program = Program::start(&[args, &["--url", &url]].concat(), "", &[]);
        let code = program.wait(AMPLE).await;
        (code, program.output().join("\n"))
    }

    /// The `data` of ocr-wallet's stats.
    pub(crate) async fn stats(&self) -> Value {
        self.get("/api/v1/webhook/stats").await.json()["data"].clone()
    }

    /// One series of `/metrics`, such as `walhook_events_total{event="a"}`.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        metric(&self.get("/metrics").await.body, series)
    }

    /// Waits until a series has this value.
    pub(crate) async fn wait_for_metric(&self, series: &str, expected: f64) {
        let deadline = Instant::now() + AMPLE;
        loop {
            let value = self.metric(series).await;
            if value == expected {
                return;
            }
            let log = || self.program.output().join("\n");
            assert!(Instant::now() < deadline, "{series} is {value}, not {expected}\n{}", log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until `path` answers with this status, and returns that answer.
    pub(crate) async fn wait_for_status(&self, path: &str, status: u16) -> Reply {
        let deadline = Instant::now() + AMPLE;
        loop {
            let reply = self.get(path).await;
            if reply.status == status {
                return reply;
            }
            assert!(Instant::now() < deadline, "{path} answers {reply:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// One series of a scrape.
pub(crate) fn metric(scrape: &str, series: &str) -> f64 {
    let value = scrape.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {series}:\n{scrape}"))
}

/// An answer of the HTTP surface.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) content_type: String,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// One request on a connection of its own.
pub(crate) async fn ask(
    address: SocketAddr,
    method: &str,
    path: &str,
    token: Option<&str>,
) -> std::io::Result<Reply> {
    exchange(address, method, path, token, "").await
}

pub(crate) async fn exchange(
    address: SocketAddr,
    method: &str,
    path: &str,
    token: Option<&str>,
    body: &str,
) -> std::io::Result<Reply> {
    let token = token.map(|token| format!("authorization: Bearer {token}\r\n"));
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n{}\r\n{body}",
        body.len(),
        token.unwrap_or_default()
    );
    sent(address, &head).await
}

/// Sends a request as it is, which has to ask for the connection to be closed.
pub(crate) async fn sent(address: SocketAddr, request: &str) -> std::io::Result<Reply> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    // It may have been killed in the middle of it.
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let content_type = head.lines().find_map(|line| line.strip_prefix("content-type: "));
    let content_type = content_type.unwrap_or_default().to_owned();
    Ok(Reply { status, content_type, body: body.to_owned() })
}

/// The address in the line that says that walhook is running, in either format.
pub(crate) fn http_address(line: &str) -> SocketAddr {
    let from = ["http=", "\"http\":\""].iter().find_map(|start| line.split_once(start));
    let address = from.and_then(|(_, rest)| rest.split([' ', '"']).next());
    address.and_then(|address| address.parse().ok()).unwrap_or_else(|| panic!("no address: {line}"))
}
