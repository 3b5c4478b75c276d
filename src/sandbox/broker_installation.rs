//! A NATS server that was tried and can be run.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::sandbox::command::run;

/// walhook asks of JetStream what came with this version.
const OLDEST: (u32, u32) = (2, 12);

const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// A NATS server that was tried and can be run.
#[derive(Clone, Debug)]
pub(crate) struct BrokerInstallation {
    program: PathBuf,
    why: String,
}

impl BrokerInstallation {
    /// Tries a program; the error says why it will not do.
    pub(super) fn probe(program: &Path, origin: &str) -> Result<Self, String> {
        // Absolute, because the server runs in a directory of its own.
        let program = program.canonicalize().map_err(|error| error.to_string())?;
        let answer = run(Command::new(&program).arg("--version"), ANSWER_LIMIT);
        let answer = answer.map_err(|error| error.in_one_line())?;
        let (version, text) = version(&answer)
            .ok_or_else(|| format!("its version is not clear: {}", answer.trim()))?;
        if version < OLDEST {
            return Err(format!("{text} is too old, {}.{} is the oldest", OLDEST.0, OLDEST.1));
        }
        let why = format!("NATS Server {text} from {} ({origin})", program.display());
        Ok(Self { program, why })
    }

    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    /// One line for people: which server, from where and why it.
    pub(crate) fn why(&self) -> &str {
        &self.why
    }
}

/// Reads `nats-server: v2.15.1`, also with `-RC.1` behind it.
fn version(answer: &str) -> Option<((u32, u32), String)> {
    let text = answer.split_once(": v")?.1.split_whitespace().next()?;
    let mut parts = text.split('.').map(str::parse::<u32>);
    let version = (parts.next()?.ok()?, parts.next()?.ok()?);
    Some((version, text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_the_server_says_them() {
        let cases = [
            ("nats-server: v2.15.1\n", Some(((2, 15), "2.15.1"))),
            ("nats-server: v2.12.0-RC.1", Some(((2, 12), "2.12.0-RC.1"))),
            ("nats-server: vnext", None),
            ("postgres (PostgreSQL) 15.18", None),
        ];
        for (answer, expected) in cases {
            let expected = expected.map(|(version, text)| (version, text.to_owned()));
            assert_eq!(version(answer), expected, "case: {answer}");
        }
    }
}
