//! A program that ends with this process, however this one ends.
//!
//! ```text
//! this process ── pipe ──▶ sh (watcher) ──▶ program ──▶ its children
//! ```
//!
//! The watcher is our child and the program is its child. When this process ends, however it ends, the
//! pipe closes; the watcher then ends the program and removes its directory. When the program ends by
//! itself, so does the watcher at once, and we see it. Nothing here needs `unsafe`, as asking the
//! kernel for a signal at our death would.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
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

/// `$1` is the directory to remove when this process is gone, `$2` the signal that ends the program then, the rest
/// is the program's command.
///
/// A shell lets background commands ignore SIGQUIT until they ask for it themselves, so one sent in
/// the program's first milliseconds is lost: hence the loop. It cannot hit a stranger: the number is
/// free for reuse only after `wait`, and then the loop ends. The loop's end by itself, and not by
/// `kill`, is what tells that the pipe was closed.
const WATCHER: &str = r#"
dir=$1
signal=$2
shift 2
exec 3<&0
"$@" </dev/null >&2 3<&- &
program=$!
echo "$program"
( read -r _; trap '' TERM; while kill -s "$signal" "$program"; do sleep 0.1; done ) <&3 2>/dev/null &
leash=$!
wait "$program"
status=$?
kill "$leash" 2>/dev/null
wait "$leash" 2>/dev/null && rm -rf "$dir"
exit "$status"
"#;

/// How long processes that got SIGKILL may take to go. The kernel first writes out their memory.
pub(super) const KILL_LIMIT: Duration = Duration::from_secs(10);

/// The first pause between two looks at something that takes milliseconds.
const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_millis(5);

/// What is to be started.
pub(super) struct WatchedCommand<'a> {
    /// `/bin/sh` under the user and in the environment that the program is to have.
    pub(super) shell: Command,
    pub(super) program: &'a Path,
    pub(super) arguments: Vec<OsString>,
    /// The signal that ends the program when this process is gone, as `kill -s` names it. Not `QUIT` for a program
    /// that does not ask for it: see above.
    pub(super) at_our_end: &'static str,
}

/// A program that was started. Dropping it ends it at once.
#[derive(Debug)]
pub(super) struct WatchedProcess {
    watcher: Child,
    _leash: ChildStdin,
    program: Pid,
}

impl WatchedProcess {
    /// Starts a program, whose output goes into the log of `directory`.
    pub(super) fn spawn(
        command: WatchedCommand<'_>,
        directory: &SandboxDirectory,
    ) -> io::Result<Self> {
        let WatchedCommand { mut shell, program, arguments, at_our_end } = command;
        let log = File::options().create(true).append(true).open(directory.log())?;
        let mut watcher = shell
            .args(["-c", WATCHER, "walhook-sandbox"])
            .arg(directory.path())
            .arg(at_our_end)
            .arg(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            // Ctrl-C goes to our group: the program must outlive what we do because of it.
            .process_group(0)
            .spawn()?;
        let (leash, stdout) = (watcher.stdin.take(), watcher.stdout.take());
        let mut line = String::new();
        if let Some(stdout) = stdout {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        match (leash, line.trim().parse().ok().and_then(Pid::from_raw)) {
            (Some(leash), Some(id)) => Ok(Self { watcher, _leash: leash, program: id }),
            (leash, _) => {
                drop(leash);
                watcher.wait()?;
                let what = format!("the shell that watches {} did not start it", program.display());
                Err(io::Error::other(what))
            }
        }
    }

    /// The program itself, not its watcher.
    pub(super) fn id(&self) -> Pid {
        self.program
    }

    /// Whether all is over: the program and its watcher.
    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.watcher.try_wait(), Ok(None))
    }

    /// Sends a signal to the program, if it still runs.
    pub(super) fn signal(&mut self, signal: Signal) {
        // While the watcher lives, the number cannot have passed to another process.
        if !self.has_ended() {
            // It may end between the look and the signal; then there is nothing left to do.
            rustix::process::kill_process(self.program, signal).unwrap_or_default();
        }
    }

    /// Sends `signal` and waits for the end, at most `limit`. Says whether it came.
    pub(super) fn end(&mut self, signal: Signal, limit: Duration) -> bool {
        self.signal(signal);
        wait_until(limit, || self.has_ended())
    }
}

impl Drop for WatchedProcess {
    fn drop(&mut self) {
        self.end(Signal::KILL, KILL_LIMIT);
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
