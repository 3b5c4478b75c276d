//! The running server: its processes, and the leash that ends them with us.
//!
//! ```text
//! this process ── pipe ──▶ sh (watcher) ──▶ postgres ──▶ its children
//! ```
//!
//! The watcher is our child and postgres is its child. When this process ends, however it ends, the
//! pipe closes; the watcher then ends postgres and removes the directory. When postgres ends by
//! itself, so does the watcher at once, and we see it. Nothing here needs `unsafe`, as asking the
//! kernel for a signal at our death would.

use std::fs;
use std::fs::File;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Child;
use std::process::ChildStdin;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use rustix::process::Pid;
use rustix::process::Signal;

use crate::sandbox::directory::SandboxDirectory;
use crate::sandbox::installation::PostgresInstallation;

/// `$1` is the directory to remove when this process is gone, the rest is the server's command.
///
/// A shell lets background commands ignore SIGQUIT until they ask for it themselves, so one sent in
/// the server's first milliseconds is lost: hence the loop. It cannot hit a stranger: the number is
/// free for reuse only after `wait`, and then the loop ends. The loop's end by itself, and not by
/// `kill`, is what tells that the pipe was closed.
const WATCHER: &str = r#"
dir=$1
shift
exec 3<&0
"$@" </dev/null >&2 3<&- &
server=$!
echo "$server"
( read -r _; trap '' TERM; while kill -QUIT "$server"; do sleep 0.1; done ) <&3 2>/dev/null &
leash=$!
wait "$server"
status=$?
kill "$leash" 2>/dev/null
wait "$leash" && rm -rf "$dir"
exit "$status"
"#;

/// How long processes that got SIGKILL may take to go. The kernel first writes out their memory.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// The first pause between two looks at something that takes milliseconds.
const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_millis(5);

/// A server that was started. Dropping it ends it at once.
#[derive(Debug)]
pub(super) struct SandboxServer {
    watcher: Child,
    _leash: ChildStdin,
    postmaster: Pid,
}

impl SandboxServer {
    /// Starts postgres; it is not ready yet.
    pub(super) fn spawn(
        installation: &PostgresInstallation,
        directory: &SandboxDirectory,
        port: u16,
    ) -> io::Result<Self> {
        let log = File::options().create(true).append(true).open(directory.log())?;
        let mut watcher = installation
            .foreign_command("/bin/sh")
            .args(["-c", WATCHER, "walhook-sandbox"])
            .arg(directory.path())
            .arg(installation.bin().join("postgres"))
            .arg("-D")
            .arg(directory.data())
            .args(["-p", &port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            // Ctrl-C goes to our group: the server must outlive what we flush because of it.
            .process_group(0)
            .spawn()?;
        let (leash, stdout) = (watcher.stdin.take(), watcher.stdout.take());
        let mut line = String::new();
        if let Some(stdout) = stdout {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        match (leash, line.trim().parse().ok().and_then(Pid::from_raw)) {
            (Some(leash), Some(postmaster)) => Ok(Self { watcher, _leash: leash, postmaster }),
            (leash, _) => {
                drop(leash);
                watcher.wait()?;
                Err(io::Error::other("the shell that watches the server did not start it"))
            }
        }
    }

    /// Whether all is over: the server and its watcher.
    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.watcher.try_wait(), Ok(None))
    }

    /// Sends a signal to the postmaster, if there still is one.
    pub(super) fn signal(&mut self, signal: Signal) {
        // While the watcher lives, the number cannot have passed to another process.
        if !self.has_ended() {
            // It may end between the look and the signal; then there is nothing left to do.
            rustix::process::kill_process(self.postmaster, signal).unwrap_or_default();
        }
    }

    /// Sends `signal` and waits for the end, at most `limit`. Says whether it came.
    pub(super) fn end(&mut self, signal: Signal, limit: Duration) -> bool {
        self.signal(signal);
        wait_until(limit, || self.has_ended())
    }

    /// Kills the postmaster and all its children, as a power cut would.
    ///
    /// The children must go as well: left alone they keep the shared memory, and the next start
    /// refuses.
    pub(super) fn kill(&mut self) {
        // Stopped, it can neither start a child that the list lacks nor tidy up.
        self.signal(Signal::STOP);
        let children = if self.has_ended() { Vec::new() } else { children_of(self.postmaster) };
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

/// Looks at `done` every few milliseconds until it is true or `limit` has passed.
pub(super) fn wait_until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    let mut pause = FIRST_PAUSE;
    loop {
        if done() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
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
