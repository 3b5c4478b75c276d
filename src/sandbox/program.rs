//! Any program as a child: in a directory of its own, and gone with this process, however it ends.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use crate::sandbox::account::ServerAccount;
use crate::sandbox::directory;
use crate::sandbox::directory::SandboxDirectory;
use crate::sandbox::directory::last_lines;
use crate::sandbox::error::SandboxError;
use crate::sandbox::error::io_error;
use crate::sandbox::surroundings::Surroundings;
use crate::sandbox::watched_process::KILL_LIMIT;
use crate::sandbox::watched_process::WatchedCommand;
use crate::sandbox::watched_process::WatchedProcess;
use crate::sandbox::watched_process::wait_until;

/// What is to be run.
#[derive(Debug)]
pub(crate) struct ProgramCall<'a> {
    /// An absolute path.
    pub(crate) program: &'a Path,
    pub(crate) arguments: &'a [&'a str],
    /// Its whole environment but for `PATH` and the locale: nothing of ours reaches it.
    pub(crate) environment: &'a [(&'a str, &'a str)],
    /// Name and text of its configuration. It is made in the directory that the program runs in.
    pub(crate) file: (&'a str, &'a str),
}

/// A program that was started. Dropping it kills it and removes its directory.
#[derive(Debug)]
pub(crate) struct SandboxProgram {
    // Before `directory`: fields drop in this order, and the program must go before its files.
    process: WatchedProcess,
    directory: SandboxDirectory,
}

impl SandboxProgram {
    /// Starts it under the user of this process.
    ///
    /// # Errors
    /// There is no room for its directory, or it cannot be started.
    pub(crate) fn start(call: &ProgramCall<'_>, at: &Surroundings) -> Result<Self, SandboxError> {
        let account = ServerAccount::current();
        let directory = SandboxDirectory::create(directory::PROGRAM, &at.data_bases(), &account)?;
        let (name, text) = call.file;
        let file = directory.path().join(name);
        fs::write(&file, text).map_err(io_error(format!("write {}", file.display())))?;
        let mut shell = account.command("/bin/sh");
        shell.current_dir(directory.path()).envs(call.environment.iter().copied());
        let command = WatchedCommand {
            shell,
            program: call.program,
            arguments: call.arguments.iter().map(Into::into).collect(),
            at_our_end: "KILL",
        };
        let process = WatchedProcess::spawn(command, &directory)
            .map_err(io_error(format!("start {}", call.program.display())))?;
        Ok(Self { process, directory })
    }

    /// Its process id.
    pub(crate) fn id(&self) -> i32 {
        self.process.id().as_raw_nonzero().get()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.process.has_ended()
    }

    /// All that it has said.
    pub(crate) fn log(&self) -> String {
        self.directory.log_from(0)
    }

    /// The last lines of what it has said.
    pub(crate) fn log_tail(&self) -> String {
        last_lines(&self.log())
    }

    /// Asks it to end, with SIGTERM, and waits at most `limit`. Says whether it did.
    pub(crate) fn stop(&mut self, limit: Duration) -> bool {
        self.process.end(Signal::TERM, limit)
    }

    /// Kills it with SIGKILL, as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.process.signal(Signal::KILL);
        wait_until(KILL_LIMIT, || self.process.has_ended());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// A shell as the program, with its file as the script.
    fn script(text: &str) -> (tempfile::TempDir, SandboxProgram) {
        let base = tempfile::tempdir_in("/tmp").unwrap();
        let at = Surroundings { tmp: Some(base.path().to_owned()), ..Surroundings::default() };
        let call = ProgramCall {
            program: Path::new("/bin/sh"),
            arguments: &["script"],
            environment: &[("SAID", "hello")],
            file: ("script", text),
        };
        let started = SandboxProgram::start(&call, &at).unwrap();
        (base, started)
    }

    const LIMIT: Duration = Duration::from_secs(20);

    #[test]
    fn a_program_runs_in_its_directory_and_both_vanish() {
        let (base, mut program) = script("echo $SAID; ls; exec sleep 60");
        assert!(wait_until(LIMIT, || program.log().contains("script")), "{}", program.log());
        assert!(program.log().starts_with("hello\n"), "{}", program.log());
        assert!(!program.has_ended() && program.id() > 0);
        drop(program);
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0);
    }

    #[test]
    fn it_is_asked_to_end_or_killed_and_its_log_stays() {
        let text = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.02; done";
        for kills in [false, true] {
            let (_base, mut program) = script(text);
            assert!(wait_until(LIMIT, || program.log().contains("up")));
            match kills {
                false => assert!(program.stop(LIMIT)),
                true => program.kill(),
            }
            assert!(program.has_ended());
            let log = program.log_tail();
            assert!(log.starts_with("up"), "{log}");
            assert_eq!(log.contains("bye"), !kills, "{log}");
        }
    }
}
