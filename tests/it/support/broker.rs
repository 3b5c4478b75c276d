//! Real `nats-server` nodes of a test's own: `WALHOOK_NATS_SERVER` names the program, as `.ci/tools nats-server`
//! prints it; without it the tests ask that script themselves.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]
#![expect(clippy::print_stdout, reason = "a skipped test must not look like a passed one")]

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Instant;

use rustix::process::Pid;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::process::Child;
use tokio::process::Command;

use crate::support::service::AMPLE;

/// Lines of its log that are shown where something goes wrong.
const LOG_SHOWN: usize = 40;

/// Found once for all tests of the process.
static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();

/// The program; `None`, and a line that says so, where there is none.
pub(crate) fn program(test: &str) -> Option<PathBuf> {
    let found = PROGRAM.get_or_init(|| {
        let named = env::var_os("WALHOOK_NATS_SERVER").filter(|path| !path.is_empty());
        named.map(PathBuf::from).or_else(|| {
            let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/tools");
            let said = std::process::Command::new(tools).arg("nats-server").output().ok()?;
            let path = String::from_utf8(said.stdout).ok()?.trim().to_owned();
            (!path.is_empty()).then(|| PathBuf::from(path))
        })
    });
    if found.is_none() {
        println!("SKIP {test}: needs nats-server (WALHOOK_NATS_SERVER=$(.ci/tools nats-server))");
    }
    found.clone()
}

/// A server, with JetStream, in a directory of its own. Dropping it kills it.
pub(crate) struct Broker {
    program: PathBuf,
    child: Child,
    home: TempDir,
    port: u16,
}

impl Broker {
    /// A server that lets everybody in; `None` where there is no program.
    pub(crate) async fn start(test: &str) -> Option<Self> {
        Self::start_with(test, "").await
    }

    /// With `more` in its configuration.
    pub(crate) async fn start_with(test: &str, more: &str) -> Option<Self> {
        let program = program(test)?;
        Some(Self::node(program, "one", free_port(), more).await)
    }

    /// Three servers that keep each stream together.
    pub(crate) async fn cluster(test: &str) -> Option<[Self; 3]> {
        let program = program(test)?;
        let ports = [free_port(), free_port(), free_port()];
        let routes = ports.map(|port| format!("nats://127.0.0.1:{port}")).join(", ");
        let node = |name: &'static str, port: u16| {
            // Clients know the addresses that they were told, which may be those of relays, and no others.
            let more = format!(
                "cluster {{ name: c, listen: \"127.0.0.1:{port}\", routes: [{routes}], no_advertise: true }}\n"
            );
            let program = program.clone();
            async move { Self::node(program, name, free_port(), &more).await }
        };
        let [first, second, third] = ports;
        Some([node("one", first).await, node("two", second).await, node("three", third).await])
    }

    async fn node(program: PathBuf, name: &str, port: u16, more: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut text = format!("server_name: {name}\nlisten: \"127.0.0.1:{port}\"\n");
        let store = home.path().join("store");
        // By default a server lets streams reserve three quarters of what the disk has free.
        let store = store.display();
        writeln!(text, "jetstream {{ store_dir: \"{store}\", max_file_store: 1TB }}").unwrap();
        text.push_str(&more.replace("{store}", &store.to_string()));
        fs::write(home.path().join("nats.conf"), text).unwrap();
        let child = spawn(&program, home.path());
        let started = Self { program, child, home, port };
        started.wait().await;
        started
    }

    /// The URL of `[relay]`.
    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Where clients connect.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Sends it a signal. It has to run.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = self.child.id().unwrap();
        rustix::process::kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), signal)
            .unwrap();
    }

    /// Kills it at once, as a machine does that loses power.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Starts it again on what it had stored.
    pub(crate) async fn start_again(&mut self) {
        self.child = spawn(&self.program, self.home.path());
        self.wait().await;
    }

    /// The end of its log.
    pub(crate) fn log(&self) -> String {
        let log = fs::read_to_string(self.home.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(LOG_SHOWN)..).unwrap_or_default().join("\n")
    }

    /// Removes what it has stored. It has to be down.
    pub(crate) fn forget(&self) {
        fs::remove_dir_all(self.home.path().join("store")).unwrap();
    }

    /// Copies what it has stored. It has to be down.
    pub(crate) fn back_up(&self) {
        copy(&self.home.path().join("store"), &self.home.path().join("backup"));
    }

    /// Puts the copy back in place of what it has stored since. It has to be down.
    pub(crate) fn restore(&self) {
        self.forget();
        copy(&self.home.path().join("backup"), &self.home.path().join("store"));
    }

    async fn wait(&self) {
        let deadline = Instant::now() + AMPLE;
        while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            assert!(Instant::now() < deadline, "nats-server does not answer");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

/// Copies a directory with all that is in it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn spawn(program: &Path, home: &Path) -> Child {
    let mut command = Command::new(program);
    command.arg("-c").arg(home.join("nats.conf")).arg("-l").arg(home.join("log"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.kill_on_drop(true).spawn().unwrap()
}
