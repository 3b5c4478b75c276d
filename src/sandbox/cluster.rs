//! A private PostgreSQL cluster: its own data, port and socket, for as long as the value lives.

use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Once;
use std::time::Duration;
use std::time::Instant;

use rustix::process::Signal;

use crate::sandbox::cache::PackageCache;
use crate::sandbox::command::run;
use crate::sandbox::directory;
use crate::sandbox::directory::SandboxDirectory;
use crate::sandbox::directory::last_lines;
use crate::sandbox::directory::sweep;
use crate::sandbox::error::SandboxError;
use crate::sandbox::error::io_error;
use crate::sandbox::installation::PostgresInstallation;
use crate::sandbox::port::PORT_ATTEMPTS_MAX;
use crate::sandbox::port::free_port;
use crate::sandbox::server::SandboxServer;
use crate::sandbox::server::is_ready;
use crate::sandbox::settings::SandboxSettings;
use crate::sandbox::surroundings::Surroundings;
use crate::sandbox::template;
use crate::sandbox::watched_process::wait_until;

/// A start takes a tenth of a second; after a crash the server first replays its log.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A fast stop waits for replication clients to take all that is left; one that hangs must not
/// hold us up for `wal_sender_timeout`.
const STOP_LIMIT: Duration = Duration::from_secs(30);

const RELOAD_LIMIT: Duration = Duration::from_secs(10);

/// Connections on 127.0.0.1 need no password unless [`SandboxCluster::set_hba`] says otherwise.
const OPEN_HBA: [&str; 2] =
    ["host all all 127.0.0.1/32 trust", "host replication all 127.0.0.1/32 trust"];

/// How a cluster is to be.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Server settings by name, as for `postgresql.conf` (unquoted). The last one of a name wins.
    pub settings: Vec<(String, String)>,
    /// Survive a power cut: for tests that kill the server. Slower.
    pub durable: bool,
    /// Have a system identifier of its own. Costs an initdb (a second) instead of a copy.
    pub own_identifier: bool,
    /// Where data and cache may lie.
    pub surroundings: Surroundings,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            settings: Vec::new(),
            durable: false,
            own_identifier: false,
            surroundings: Surroundings::read(),
        }
    }
}

impl ClusterOptions {
    /// With one more setting.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A running or stopped cluster. Dropping it ends the server and removes the data.
#[derive(Debug)]
pub struct SandboxCluster {
    // Before `directory`: fields drop in this order, and the server must go before its data.
    server: Option<SandboxServer>,
    directory: SandboxDirectory,
    installation: PostgresInstallation,
    settings: SandboxSettings,
    port: u16,
}

impl SandboxCluster {
    /// Makes a cluster, starts it and waits until it takes connections.
    ///
    /// # Errors
    /// There is no room for the data, initdb fails, or the server does not start (the error then
    /// shows the end of its log).
    pub fn start(
        installation: &PostgresInstallation,
        options: ClusterOptions,
    ) -> Result<Self, SandboxError> {
        static SWEPT: Once = Once::new();
        let bases = options.surroundings.data_bases();
        SWEPT.call_once(|| {
            sweep(&bases, installation.account());
        });
        let directory =
            SandboxDirectory::create(directory::CLUSTER, &bases, installation.account())?;
        match PackageCache::open(&options.surroundings) {
            Ok(cache) if !options.own_identifier => {
                template::initialise_or_copy(installation, &cache, &directory.data())?;
            }
            // Without a place for templates each start takes a second longer, and that is all.
            Ok(_) | Err(_) => template::initialise(installation, &directory.data())?,
        }
        let mut settings = SandboxSettings::new(options.durable, directory.path());
        for (name, value) in &options.settings {
            settings.set(name, value);
        }
        let mut cluster =
            Self { server: None, directory, installation: installation.clone(), settings, port: 0 };
        cluster.write_settings()?;
        cluster.write_hba(&OPEN_HBA)?;
        cluster.start_on_a_free_port()?;
        Ok(cluster)
    }

    /// Starts it again after a stop or kill, on the same port, and waits until it is ready.
    ///
    /// # Errors
    /// The server does not start.
    pub fn start_again(&mut self) -> Result<(), SandboxError> {
        // The kernel may still be closing the old sockets.
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            match self.launch() {
                Err(error) if is_port_taken(&error) && Instant::now() < deadline => {}
                outcome => return outcome,
            }
        }
    }

    /// Stops it as an administrator would: clients are cut off, everything is flushed.
    ///
    /// # Errors
    /// It did not end in time and was killed.
    pub fn stop(&mut self) -> Result<(), SandboxError> {
        let Some(mut server) = self.server.take() else { return Ok(()) };
        if server.end(Signal::INT, STOP_LIMIT) {
            return Ok(());
        }
        drop(server);
        Err(SandboxError::NotStopped { limit: STOP_LIMIT, log: self.log_tail() })
    }

    /// Ends it at once; the next start recovers from its log. The postmaster tidies up after its
    /// children, unlike after [`SandboxCluster::kill`].
    pub fn stop_immediately(&mut self) {
        drop(self.server.take());
    }

    /// Kills postmaster and children with SIGKILL, as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill();
        }
    }

    /// Whether the server still runs; it may have ended by itself.
    pub fn is_running(&mut self) -> bool {
        self.server.as_mut().is_some_and(|server| !server.has_ended())
    }

    /// The address of a database over TCP, as user `postgres`.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{}", self.port, encoded(database))
    }

    /// The address of a database over the Unix socket; it needs no password, whatever
    /// [`SandboxCluster::set_hba`] says. Only the server's user and root can reach the socket.
    pub fn socket_url(&self, database: &str) -> String {
        let dir = encoded(&self.directory.path().to_string_lossy());
        format!("postgres://postgres@/{}?host={dir}&port={}", encoded(database), self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn installation(&self) -> &PostgresInstallation {
        &self.installation
    }

    pub fn data_dir(&self) -> PathBuf {
        self.directory.data()
    }

    /// Sets one server setting; takes effect with [`SandboxCluster::reload`], some only with a restart.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), SandboxError> {
        self.settings.set(name, value);
        self.write_settings()
    }

    /// Replaces the lines of `pg_hba.conf` for TCP; takes effect with [`SandboxCluster::reload`]. The
    /// socket stays open to us.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set_hba(&self, lines: &[&str]) -> Result<(), SandboxError> {
        self.write_hba(lines)
    }

    /// Puts a file into the data directory, readable for the server alone, as it demands of keys.
    ///
    /// # Errors
    /// `name` is a path, or the file cannot be written.
    pub fn put_file(&self, name: &str, contents: &[u8]) -> Result<(), SandboxError> {
        if Path::new(name).file_name() != Some(name.as_ref()) {
            return Err(SandboxError::FileName { name: name.to_owned() });
        }
        let path = self.directory.data().join(name);
        let write = || {
            let mut file = fs::File::options()
                .create(true)
                .truncate(true)
                .write(true)
                .mode(0o600)
                .open(&path)?;
            io::Write::write_all(&mut file, contents)?;
            self.installation.account().own(&path)
        };
        write().map_err(io_error(format!("write {}", path.display())))
    }

    /// Makes the server read its configuration again, and waits until it has.
    ///
    /// # Errors
    /// It is stopped, or does not answer in time.
    pub fn reload(&mut self) -> Result<(), SandboxError> {
        let seen = self.directory.log_length();
        let server = self.server.as_mut().ok_or(SandboxError::Stopped)?;
        server.signal(Signal::HUP);
        // The postmaster logs this and reads the files before it accepts another connection.
        if wait_until(RELOAD_LIMIT, || self.directory.log_from(seen).contains("received SIGHUP")) {
            return Ok(());
        }
        Err(SandboxError::NotReloaded { limit: RELOAD_LIMIT, log: self.log_tail() })
    }

    /// The last lines of the server's log.
    pub fn log_tail(&self) -> String {
        last_lines(&self.directory.log_from(0))
    }

    fn start_on_a_free_port(&mut self) -> Result<(), SandboxError> {
        let mut attempt = 1;
        loop {
            self.port = free_port().map_err(io_error("find a free port"))?;
            match self.launch() {
                Err(error) if is_port_taken(&error) && attempt < PORT_ATTEMPTS_MAX => attempt += 1,
                outcome => return outcome,
            }
        }
    }

    fn launch(&mut self) -> Result<(), SandboxError> {
        if self.is_running() {
            return Ok(());
        }
        let log_before = self.directory.log_length();
        let mut server = SandboxServer::spawn(&self.installation, &self.directory, self.port)
            .map_err(io_error("start the server"))?;
        let socket = self.directory.socket(self.port);
        let mut ended = false;
        let answered = wait_until(START_LIMIT, || {
            ended = server.has_ended();
            ended || is_ready(&socket)
        });
        let log = || last_lines(&self.directory.log_from(log_before));
        if ended {
            return Err(SandboxError::Start { log: log() });
        }
        if !answered {
            return Err(SandboxError::NotReady { limit: START_LIMIT, log: log() });
        }
        self.server = Some(server);
        Ok(())
    }

    fn write_settings(&self) -> Result<(), SandboxError> {
        self.put_file("walhook.conf", self.settings.file_text().as_bytes())?;
        // In place of what initdb wrote, which follows the machine's locale and time zone.
        // `postgresql.auto.conf`, which ALTER SYSTEM writes, is read after this file.
        self.put_file("postgresql.conf", b"include = 'walhook.conf'\n")
    }

    fn write_hba(&self, lines: &[&str]) -> Result<(), SandboxError> {
        let own = ["local all all trust", "local replication all trust"];
        let text: String = own.iter().chain(lines).map(|line| format!("{line}\n")).collect();
        self.put_file("pg_hba.conf", text.as_bytes())
    }
}

impl Drop for SandboxCluster {
    fn drop(&mut self) {
        drop(self.server.take());
        // After SIGKILL the lock file is still there and names a segment of shared memory that
        // only the next start would have removed. It is tiny, but the system has few.
        let lock_file = fs::read_to_string(self.data_dir().join("postmaster.pid"));
        if let Some(segment) = lock_file.ok().as_deref().and_then(shared_memory) {
            let mut remove = Command::new("ipcrm");
            run(remove.args(["-m", segment]), STOP_LIMIT).unwrap_or_default();
        }
    }
}

/// The segment in `postmaster.pid`, whose 7th line is its key and its id.
fn shared_memory(lock_file: &str) -> Option<&str> {
    lock_file.lines().nth(6)?.split_whitespace().nth(1)
}

fn is_port_taken(error: &SandboxError) -> bool {
    matches!(error, SandboxError::Start { log } if log.contains("could not bind"))
}

/// A part of a URL: what is not plain is percent-encoded.
fn encoded(part: &str) -> String {
    part.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests;
