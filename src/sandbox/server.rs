//! The running PostgreSQL server: its processes, and how they end.

use std::fs;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Pid;
use rustix::process::Signal;

use crate::sandbox::directory::SandboxDirectory;
use crate::sandbox::installation::PostgresInstallation;
use crate::sandbox::watched_process::KILL_LIMIT;
use crate::sandbox::watched_process::WatchedCommand;
use crate::sandbox::watched_process::WatchedProcess;
use crate::sandbox::watched_process::wait_until;

/// A server that was started. Dropping it ends it at once.
#[derive(Debug)]
pub(super) struct SandboxServer {
    process: WatchedProcess,
}

impl SandboxServer {
    /// Starts postgres; it is not ready yet.
    pub(super) fn spawn(
        installation: &PostgresInstallation,
        directory: &SandboxDirectory,
        port: u16,
    ) -> io::Result<Self> {
        let command = WatchedCommand {
            shell: installation.foreign_command("/bin/sh"),
            program: &installation.bin().join("postgres"),
            arguments: vec![
                "-D".into(),
                directory.data().into(),
                "-p".into(),
                port.to_string().into(),
            ],
            at_our_end: "QUIT",
        };
        Ok(Self { process: WatchedProcess::spawn(command, directory)? })
    }

    /// Whether all is over: the server and its watcher.
    pub(super) fn has_ended(&mut self) -> bool {
        self.process.has_ended()
    }

    /// Sends a signal to the postmaster, if there still is one.
    pub(super) fn signal(&mut self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Sends `signal` and waits for the end, at most `limit`. Says whether it came.
    pub(super) fn end(&mut self, signal: Signal, limit: Duration) -> bool {
        self.process.end(signal, limit)
    }

    /// Kills the postmaster and all its children, as a power cut would.
    ///
    /// The children must go as well: left alone they keep the shared memory, and the next start
    /// refuses.
    pub(super) fn kill(&mut self) {
        // Stopped, it can neither start a child that the list lacks nor tidy up.
        self.signal(Signal::STOP);
        let children = if self.has_ended() { Vec::new() } else { children_of(self.process.id()) };
        self.signal(Signal::KILL);
        for child in &children {
            // They end by themselves when they see that the postmaster is gone.
            rustix::process::kill_process(*child, Signal::KILL).unwrap_or_default();
        }
        wait_until(KILL_LIMIT, || self.has_ended() && !children.iter().copied().any(is_alive));
    }
}

impl Drop for SandboxServer {
    fn drop(&mut self) {
        if !self.end(Signal::QUIT, KILL_LIMIT) {
            self.kill();
        }
    }
}

/// Whether the server behind this socket takes connections.
///
/// An open socket is not enough: while it starts, the server accepts and then refuses with SQLSTATE
/// 57P03. Any other answer, also a refusal for another reason, comes from a server that is up.
/// Format: PostgreSQL manual, "Message Formats", StartupMessage, ErrorResponse and Terminate.
pub(super) fn is_ready(socket: &Path) -> bool {
    let attempt = || -> io::Result<bool> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let parameters = b"user\0postgres\0database\0postgres\0\0";
        let length = u32::try_from(8 + parameters.len()).map_err(io::Error::other)?;
        stream.write_all(&length.to_be_bytes())?;
        stream.write_all(&196_608_u32.to_be_bytes())?; // version 3.0
        stream.write_all(parameters)?;
        let mut tag = [0];
        stream.read_exact(&mut tag)?;
        if tag == *b"E" {
            let mut refusal = Vec::new();
            stream.read_to_end(&mut refusal)?;
            return Ok(!refusal.windows(7).any(|part| part == b"C57P03\0"));
        }
        stream.write_all(b"X\0\0\0\x04")?;
        Ok(true)
    };
    attempt().unwrap_or(false)
}

fn is_alive(pid: Pid) -> bool {
    match stat_of(pid.as_raw_nonzero().get()) {
        // A zombie holds nothing; some containers never clear them away.
        Some((state, _)) => state != 'Z',
        None => {
            !Path::new("/proc/self/stat").exists()
                && rustix::process::test_kill_process(pid).is_ok()
        }
    }
}

fn children_of(parent: Pid) -> Vec<Pid> {
    let parent = parent.as_raw_nonzero().get();
    let Ok(entries) = fs::read_dir("/proc") else { return children_by_ps(parent) };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| stat_of(*pid).is_some_and(|(_, its_parent)| its_parent == parent))
        .filter_map(Pid::from_raw)
        .collect()
}

/// For systems without `/proc`.
fn children_by_ps(parent: i32) -> Vec<Pid> {
    let Ok(listed) = Command::new("ps").args(["-A", "-o", "pid=,ppid="]).output() else {
        return Vec::new();
    };
    String::from_utf8_lossy(&listed.stdout)
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace().map(str::parse::<i32>);
            let pid = fields.next()?.ok()?;
            (fields.next()?.ok()? == parent).then(|| Pid::from_raw(pid))?
        })
        .collect()
}

/// State and parent of a process, from `/proc`.
fn stat_of(pid: i32) -> Option<(char, i32)> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// `pid (name) state parent ...`, as in proc_pid_stat(5). The name may hold anything.
fn parse_stat(stat: &str) -> Option<(char, i32)> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_be_named_like_its_own_fields() {
        assert_eq!(parse_stat("12 (postgres) S 7 12 12 0"), Some(('S', 7)));
        assert_eq!(parse_stat("12 (a) Z 1) R 8 12"), Some(('R', 8)));
        assert_eq!(parse_stat("12 (cut"), None);
    }

    #[test]
    fn nothing_at_a_socket_is_not_ready() {
        assert!(!is_ready(Path::new("/nowhere/.s.PGSQL.1")));
    }
}
