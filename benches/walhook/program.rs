//! The real `walhook run` as a child process.

use std::fs;
use std::fs::File;
use std::io::Read;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use rustix::process::Pid;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::process;
use crate::stage::Stage;

const READY_LIMIT: Duration = Duration::from_secs(60);

/// What an `[[event]]` may ask for beside, and bodies in the push log.
const EVERYTHING: &str = r#"
when = "total > 0"
expiry = "1h"
payload = { id = "{{ string(id) }}", sent_at = "{{ sent_at }}", total = "{{ total }}", note = "{{ note }}" }
dedupe = { by = ["id"], window = "1m" }
write_back = { column = "status", delivered = "sent", failed = "not_sent" }

[push_log]
bodies = "all"
"#;

const BY_ROW: &str = r#"
[endpoints]
allow = ["127.0.0.1"]

[endpoints_from]
table = "public.hooks"
match = { customer_id = "customer_id" }

[endpoints_from.endpoint]
name = "{{ customer_id }}"
url = "{{ url }}"
concurrency = 32
"#;

/// One `[[endpoint]]`; everything else has its default.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) url: String,
    /// `None`: walhook's default.
    pub(crate) in_flight: Option<usize>,
    pub(crate) batch: usize,
    pub(crate) strict: bool,
    /// Which events it takes.
    pub(crate) when: Option<String>,
    /// The certificate that it trusts.
    pub(crate) trusted: Option<PathBuf>,
}

impl Endpoint {
    pub(crate) fn new(url: String) -> Self {
        Self { url, in_flight: Some(32), batch: 1, strict: false, when: None, trusted: None }
    }

    fn toml(&self, number: usize) -> String {
        let Self { url, in_flight, batch, strict, when, trusted } = self;
        let mut keys = vec![
            format!("name = \"e{number}\""),
            format!("url = \"{url}\""),
            format!("batch = {{ size = {batch}, linger = \"20ms\" }}"),
            format!("ordering = \"{}\"", if *strict { "strict" } else { "key" }),
        ];
        keys.extend(in_flight.map(|in_flight| format!("concurrency = {in_flight}")));
        keys.extend(when.as_ref().map(|when| format!("when = \"{when}\"")));
        keys.extend(trusted.as_ref().map(|file| format!("tls = {{ ca = {file:?} }}")));
        format!("\n[[endpoint]]\n{}\n", keys.join("\n"))
    }
}

/// What it is configured to do.
#[derive(Clone, Debug)]
pub(crate) enum Job {
    /// Signs and delivers, with all that is on by default.
    Deliver(Vec<Endpoint>),
    /// The same, and with all else that can be asked of an event.
    Everything(Endpoint),
    /// Delivers to endpoints that are rows, each of which takes its customer's events.
    ByRow,
    /// Reads, decodes and renders, and has nobody to push to.
    ReadOnly,
    /// Keeps callbacks that come in there, and may push them on.
    Keep { listen: SocketAddr, pushes: bool },
}

/// How callbacks are signed.
pub(crate) const CALLBACK_TOKEN: &str = "walhookTok3n";
pub(crate) const CALLBACK_AES_KEY: &str = "zYm4VO3jFrAqnhktBa9Kvy25k1sdreiZCuQ6ynGjPPf";
pub(crate) const CALLBACK_CORP: &str = "ww0123456789abcdef";
pub(crate) const CALLBACK_PATH: &str = "/api/v1/webhooks/wechat/api";

/// A running walhook. Dropping it kills it.
pub(crate) struct Walhook {
    child: Child,
    /// Ends it if this program is killed.
    leash: Child,
    http: SocketAddr,
    slot: String,
    home: TempDir,
}

impl Walhook {
    /// Starts it on `slot`. What it logs goes to a file, as it would in operation.
    pub(crate) fn start(stage: &Stage, slot: &str, job: &Job) -> anyhow::Result<Self> {
        Self::start_as(None, stage, slot, job)
    }

    /// The same for one of several members: its role, and the broker's URL.
    pub(crate) fn start_as(
        role: Option<(&str, &str)>,
        stage: &Stage,
        slot: &str,
        job: &Job,
    ) -> anyhow::Result<Self> {
        let http = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let home = tempfile::tempdir()?;
        let mut text = toml(stage, slot, http, job)?;
        if let Some((_, broker)) = role {
            text += &format!("\n[relay]\nurl = \"{broker}\"\nreplicas = 1\n");
        }
        fs::write(home.path().join("walhook.toml"), text)?;
        let child = Command::new(&stage.binary)
            .arg("run")
            .args(role.into_iter().flat_map(|(role, _)| ["--role", role]))
            .current_dir(home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(home.path().join("log"))?)
            .spawn()
            .context("cannot start walhook")?;
        let leash = leash(child.id())?;
        Ok(Self { child, leash, http, slot: slot.to_owned(), home })
    }

    /// Waits until changes flow.
    pub(crate) fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_LIMIT;
        while !self.ask("/ready").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            self.check_alive()?;
            anyhow::ensure!(Instant::now() < deadline, "not ready in time:\n{}", self.log());
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        process::cpu(self.child.id())
    }

    pub(crate) fn resident(&self) -> anyhow::Result<u64> {
        process::resident(self.child.id())
    }

    /// The sum of a metric's series.
    pub(crate) fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let text = self.ask("/metrics")?;
        let series = text.lines().filter(|line| line.starts_with(name));
        Ok(series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// # Errors
    /// It has ended; the text shows what it logged.
    pub(crate) fn check_alive(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            Some(status) => anyhow::bail!("walhook ended with {status}:\n{}", self.log()),
            None => Ok(()),
        }
    }

    /// Kills it, and leaves slot and state to another.
    pub(crate) fn kill(self) {
        drop(self);
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        let pid = Pid::from_raw(self.child.id().try_into()?).context("walhook has no pid")?;
        rustix::process::kill_process(pid, Signal::TERM)?;
        let ended = self.child.wait()?;
        anyhow::ensure!(ended.success(), "walhook ended with {ended}:\n{}", self.log());
        Ok(())
    }

    /// Kills it and drops its slot and its state.
    pub(crate) fn end(self, stage: &Stage) -> anyhow::Result<()> {
        let slot = self.slot.clone();
        drop(self);
        stage.drop_slot(&slot)?;
        stage.forget()
    }

    fn ask(&self, path: &str) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect(self.http)?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// The whole answer to a POST of JSON.
    pub(crate) fn post(&self, path: &str, body: &str) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect(self.http)?;
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// The end of what it logged.
    fn log(&self) -> String {
        let log = fs::read_to_string(self.home.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines
            .iter()
            .skip(lines.len().saturating_sub(15))
            .fold(String::new(), |text, line| text + line + "\n")
    }
}

impl Drop for Walhook {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        drop(self.leash.kill());
        drop(self.leash.wait());
    }
}

/// A shell that waits for the end of a pipe, which comes when this program ends in whatever way,
/// and then kills the process.
fn leash(pid: u32) -> anyhow::Result<Child> {
    Command::new("sh")
        .args(["-c", &format!("read -r _; kill -9 {pid}")])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start a shell")
}

fn toml(stage: &Stage, slot: &str, http: SocketAddr, job: &Job) -> anyhow::Result<String> {
    let is_enabled = !matches!(job, Job::ReadOnly | Job::Keep { pushes: false, .. });
    let toml = format!(
        "[postgres]\nurl = \"{}\"\nslot = \"{slot}\"\npublication = \"bench\"\n\n\
         [http]\nlisten = \"{http}\"\n\n\
         [webhook]\nenabled = {is_enabled}\n\
         secret = \"whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"\n\n\
         [[event]]\ntype = \"orders.created\"\ntable = \"public.orders\"\non = [\"insert\"]\n",
        stage.url()
    );
    let others = "\n[[event]]\ntype = \"wide.created\"\ntable = \"public.wide\"\non = [\"insert\"]\n\
                  \n[[event]]\ntype = \"large.created\"\ntable = \"public.large\"\non = [\"insert\"]\n\
                  \n[[event]]\ntype = \"archived\"\ntable = \"public.archive\"\non = [\"insert\"]\n";
    Ok(toml
        + &match job {
            Job::Deliver(endpoints) => {
                let endpoints = endpoints.iter().enumerate();
                endpoints.fold(others.to_owned(), |toml, (number, endpoint)| {
                    toml + &endpoint.toml(number)
                })
            }
            Job::Everything(endpoint) => EVERYTHING.to_owned() + &endpoint.toml(0),
            Job::ByRow => BY_ROW.to_owned(),
            Job::ReadOnly => {
                others.to_owned() + &Endpoint::new(stage.receiver.url("/in/0")).toml(0)
            }
            Job::Keep { listen, .. } => {
                callbacks(*listen) + &Endpoint::new(stage.receiver.url("/in/0")).toml(0)
            }
        })
}

/// What takes callbacks in there, and an event of each.
fn callbacks(listen: SocketAddr) -> String {
    format!(
        "\n[[event]]\ntype = \"callback\"\ntable = \"public.wecom_callbacks\"\non = [\"insert\"]\n\
         [inbound]\nlisten = \"{listen}\"\n\
         [[inbound.source]]\nname = \"api\"\nkind = \"wecom\"\npath = \"{CALLBACK_PATH}\"\n\
         token = \"{CALLBACK_TOKEN}\"\naes_key = \"{CALLBACK_AES_KEY}\"\n\
         receive_id = \"{CALLBACK_CORP}\"\ntable = \"public.wecom_callbacks\"\n"
    )
}
