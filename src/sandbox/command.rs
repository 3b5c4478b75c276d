//! Runs a helper program to its end, within a limit of time.

use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Seek;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::sandbox::error::ProcessError;

/// How much of a failed program's output goes into the error, in characters from its end.
const OUTPUT_KEPT: usize = 2_000;

/// Runs `command` without input and returns what it wrote to its standard output.
///
/// # Errors
/// It could not be started, ran longer than `limit` (it is killed then), or failed.
pub(super) fn run(command: &mut Command, limit: Duration) -> Result<String, ProcessError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut attempt = || -> io::Result<(Option<ExitStatus>, String, String)> {
        // Files, not pipes: a grandchild that keeps them open can neither block us nor be blocked.
        let (mut stdout, mut stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(stdout.try_clone()?)
            .stderr(stderr.try_clone()?)
            .spawn()?;
        let deadline = Instant::now() + limit;
        let mut pause = Duration::from_millis(1);
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break Some(status);
            }
            if Instant::now() >= deadline {
                child.kill()?;
                child.wait()?;
                break None;
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        };
        Ok((status, text_of(&mut stdout)?, text_of(&mut stderr)?))
    };
    match attempt() {
        Err(source) => Err(ProcessError::Spawn { program, source }),
        Ok((None, ..)) => Err(ProcessError::TooSlow { program, limit }),
        Ok((Some(status), stdout, _)) if status.success() => Ok(stdout),
        Ok((Some(status), stdout, stderr)) => {
            let output = tail(&format!("{}\n{}", stdout.trim(), stderr.trim()), OUTPUT_KEPT);
            Err(ProcessError::Failed { program, status, output })
        }
    }
}

/// The last `kept` characters of `text`.
pub(super) fn tail(text: &str, kept: usize) -> String {
    let text = text.trim();
    text.chars().skip(text.chars().count().saturating_sub(kept)).collect()
}

fn text_of(file: &mut File) -> io::Result<String> {
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn what_it_printed_comes_back() {
        let printed = run(&mut sh("echo one; echo two >&2"), Duration::from_secs(10)).unwrap();
        assert_eq!(printed, "one\n");
    }

    #[test]
    fn a_failure_tells_what_the_program_said() {
        let error = run(&mut sh("echo no room >&2; exit 3"), Duration::from_secs(10)).unwrap_err();
        assert_eq!(error.to_string(), "/bin/sh failed (exit status: 3): no room");
    }

    #[test]
    fn a_program_that_hangs_is_ended_at_the_limit() {
        let begun = Instant::now();
        let error = run(&mut sh("exec sleep 60"), Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, ProcessError::TooSlow { .. }), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn a_missing_program_is_told_apart() {
        let mut missing = Command::new("/nowhere/at/all");
        let error = run(&mut missing, Duration::from_secs(1)).unwrap_err();
        assert!(matches!(error, ProcessError::Spawn { .. }), "{error}");
    }

    #[test]
    fn a_tail_counts_characters_and_not_bytes() {
        assert_eq!(tail("  añb…c ", 3), "b…c");
        assert_eq!(tail("ab", 3), "ab");
    }
}
