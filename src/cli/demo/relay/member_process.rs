//! A member of the demo: `walhook run --role` as a process of its own.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;

use crate::cli::terminal::visible;
use crate::sandbox::program::ProgramCall;
use crate::sandbox::program::SandboxProgram;
use crate::sandbox::surroundings::Surroundings;

/// The variable with a member's name, which the configuration puts into a header.
pub(super) const MEMBER_VARIABLE: &str = "DEMO_MEMBER";

const CONFIGURATION: &str = "walhook.toml";

/// Between two looks at what a member has said.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Longer than `[shutdown] grace`, within which a member ends by itself.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// A process. Dropping it kills it.
pub(super) struct MemberProcess {
    name: &'static str,
    program: SandboxProgram,
    is_killed: bool,
}

impl MemberProcess {
    /// Starts it. Blocks.
    pub(super) fn start(
        name: &'static str,
        role: &str,
        configuration: &str,
    ) -> anyhow::Result<Self> {
        let program: PathBuf = std::env::current_exe().context("cannot find this program")?;
        let call = ProgramCall {
            program: &program,
            arguments: &["run", "--config", CONFIGURATION, "--role", role],
            environment: &[(MEMBER_VARIABLE, name)],
            file: (CONFIGURATION, configuration),
        };
        let program = SandboxProgram::start(&call, &Surroundings::read())?;
        Ok(Self { name, program, is_killed: false })
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn id(&self) -> i32 {
        self.program.id()
    }

    /// Waits until its HTTP surface is up, and says where.
    pub(super) async fn address(&mut self) -> anyhow::Result<String> {
        loop {
            let log = self.program.log();
            let address = log
                .lines()
                .find_map(|line| line.split_once(" http="))
                .map(|(_, rest)| rest.split_whitespace().next().unwrap_or_default().to_owned());
            if let Some(address) = address {
                return Ok(address);
            }
            self.require_alive()?;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// # Errors
    /// It has ended by itself.
    pub(super) fn require_alive(&mut self) -> anyhow::Result<()> {
        if self.is_killed || !self.program.has_ended() {
            return Ok(());
        }
        let log = self.program.log_tail();
        anyhow::bail!("{} ended by itself; its log ends with:\n{}", self.name, shown(&log))
    }

    /// Kills it, as a power cut would. Blocks for a moment.
    pub(super) fn kill(&mut self) {
        self.is_killed = true;
        self.program.kill();
    }

    /// Asks it to end and waits until it has. Blocks.
    ///
    /// # Errors
    /// It did not.
    pub(super) fn stop(&mut self) -> anyhow::Result<()> {
        if self.is_killed || self.program.stop(STOP_LIMIT) {
            return Ok(());
        }
        let log = self.program.log_tail();
        let (name, limit) = (self.name, STOP_LIMIT);
        anyhow::bail!("{name} did not end within {limit:?}; its log ends with:\n{}", shown(&log))
    }
}

/// Lines that a terminal can do no harm with.
fn shown(log: &str) -> String {
    log.lines().map(visible).collect::<Vec<_>>().join("\n")
}
