//! The real program as a child process: started, watched, ended.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]
#![expect(clippy::panic, reason = "a test may stop at once, and then shows what the program said")]

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Pid;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::io::AsyncBufReadExt;
use tokio::io::AsyncRead;
use tokio::io::BufReader;
use tokio::process::Child;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Variables that would change what a configuration means.
const UNWANTED: [&str; 12] = [
    "DATABASE_URL",
    "RUST_LOG",
    "PGHOST",
    "PGPORT",
    "PGDATABASE",
    "PGUSER",
    "PGPASSWORD",
    "PGPASSFILE",
    "PGSERVICE",
    "PGOPTIONS",
    "PGAPPNAME",
    "PGSSLMODE",
];

/// A program that runs in a directory of its own. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    output: watch::Receiver<Vec<String>>,
    readers: JoinSet<()>,
    home: TempDir,
}

/// The program under test: for measurements, `WALHOOK_BINARY` names another build of it.
fn binary() -> OsString {
    env::var_os("WALHOOK_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_walhook").into())
}

impl Program {
    /// Starts `walhook ARGS` with `toml` as its `walhook.toml`, and `env` added to the environment.
    pub(crate) fn start(args: &[&str], toml: &str, env: &[(&str, &str)]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut command = Command::new(binary());
        let config = home.path().join("walhook.toml");
        fs::write(&config, toml).unwrap();
        command.args(args).env("WALHOOK_CONFIG", config);
        // What the developer has set for himself must not reach the program under test.
        for name in UNWANTED {
            command.env_remove(name);
        }
        command.envs(env.iter().copied());
        Self::spawn(command, home)
    }

    /// The same within limits of the process, such as `-Sn 1024` of the shell's `ulimit`.
    pub(crate) fn start_within(limits: &[&str], args: &[&str], toml: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let config = home.path().join("walhook.toml");
        fs::write(&config, toml).unwrap();
        let limits: String = limits.iter().map(|limit| format!("ulimit {limit} && ")).collect();
        let mut command = Command::new("/bin/sh");
        let program = binary().into_string().unwrap();
        command.args(["-c", &format!("{limits} exec {program} {}", args.join(" "))]);
        command.env("WALHOOK_CONFIG", config);
        for name in UNWANTED {
            command.env_remove(name);
        }
        Self::spawn(command, home)
    }

    /// Starts any other program.
    pub(crate) fn spawn(mut command: Command, home: TempDir) -> Self {
        let mut child = command
            .current_dir(home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (sender, output) = watch::channel(Vec::new());
        let mut readers = JoinSet::new();
        readers.spawn(read_lines(child.stdout.take().unwrap(), sender.clone()));
        readers.spawn(read_lines(child.stderr.take().unwrap(), sender));
        Self { child, output, readers, home }
    }

    /// The directory it runs in, where its `walhook.toml` lies.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// Its process id. Panics if its end has been waited for.
    pub(crate) fn id(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// All lines so far, of both streams in the order in which they were read.
    pub(crate) fn output(&self) -> Vec<String> {
        self.output.borrow().clone()
    }

    /// Waits for a line that contains `part` and returns the first such line, also if it came
    /// before this call.
    pub(crate) async fn wait_for_line(&mut self, part: &str, limit: Duration) -> String {
        let has_it = |lines: &Vec<String>| lines.iter().any(|line| line.contains(part));
        let seen = match timeout(limit, self.output.wait_for(has_it)).await {
            Ok(Ok(lines)) => lines.iter().find(|line| line.contains(part)).cloned(),
            Ok(Err(_both_streams_ended)) => None,
            Err(_too_late) => None,
        };
        seen.unwrap_or_else(|| panic!("no line with {part:?} came:\n{}", self.output().join("\n")))
    }

    /// Asks it to end, with SIGTERM.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Kills it, with SIGKILL.
    pub(crate) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Sends any signal; nothing happens when it has ended already.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(pid) = self.child.id() {
            let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
            // Not reaped yet, so the number is still its own.
            rustix::process::kill_process(pid, signal).unwrap();
        }
    }

    /// Whether it has ended; its output may go on for a moment.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end and returns the exit code; `None` after a signal.
    pub(crate) async fn wait(&mut self, limit: Duration) -> Option<i32> {
        let end = async {
            let status = self.child.wait().await.unwrap();
            // So that the output is complete.
            while self.readers.join_next().await.is_some() {}
            status
        };
        let Ok(status) = timeout(limit, end).await else {
            panic!("it still runs after {limit:?}:\n{}", self.output().join("\n"));
        };
        status.code()
    }
}

async fn read_lines(stream: impl AsyncRead + Unpin, output: watch::Sender<Vec<String>>) {
    let mut lines = BufReader::new(stream).split(b'\n');
    while let Ok(Some(line)) = lines.next_segment().await {
        output.send_modify(|lines| lines.push(String::from_utf8_lossy(&line).into_owned()));
    }
}

const LIMIT: Duration = Duration::from_secs(20);

fn sh(script: &str) -> Program {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]);
    Program::spawn(command, tempfile::tempdir().unwrap())
}

#[tokio::test]
async fn the_program_answers_a_call_for_help() {
    let mut program = Program::start(&["--help"], "", &[("WALHOOK_OFFLINE", "1")]);
    assert!(program.home().join("walhook.toml").is_file());
    assert_eq!(program.wait(LIMIT).await, Some(0), "{:?}", program.output());
}

#[tokio::test]
async fn lines_of_both_streams_can_be_awaited() {
    let mut program = sh("echo first; echo second >&2; sleep 0.1; echo third; exit 3");
    assert_eq!(program.wait_for_line("thi", LIMIT).await, "third");
    assert_eq!(program.wait_for_line("second", LIMIT).await, "second");
    assert_eq!(program.wait(LIMIT).await, Some(3));
    assert_eq!(program.output().len(), 3);
}

#[tokio::test]
async fn it_can_be_asked_to_end_and_be_killed() {
    let mut polite = sh("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.02; done");
    polite.wait_for_line("up", LIMIT).await;
    polite.terminate();
    assert_eq!(polite.wait(LIMIT).await, Some(0));
    assert_eq!(polite.output(), ["up", "bye"]);
    polite.terminate(); // nothing is there to signal any more

    let mut killed = sh("echo up; exec sleep 60");
    killed.wait_for_line("up", LIMIT).await;
    killed.kill();
    assert_eq!(killed.wait(LIMIT).await, None);
}
