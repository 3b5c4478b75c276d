//! The command line: one file per subcommand, and the only printing.
//!
//! ```text
//! main ─ arguments ─▶ [cli] ─ settings ─▶ app
//!      ◀─ exit code ─
//! ```
//!
//! A subcommand is a `clap` argument struct with a `run`, in its own file, and one line each in
//! [`Command`] and its `run`. It prints through [`terminal`] and ends with a [`CommandError`], whose
//! text `main` prints once.
//!
//! | file | holds |
//! | --- | --- |
//! | `ask` | Asks a running walhook over its API, for the subcommands that look at it or give it orders |
//! | `backfill` | `walhook backfill` |
//! | `check` | `walhook check` |
//! | `completions` | `walhook completions` |
//! | `dead_letters` | `walhook dead-letters` |
//! | `demo` | `walhook demo` |
//! | `endpoints` | `walhook endpoints` |
//! | `exit` | How a command ends |
//! | `health` | `walhook health` |
//! | `import` | `walhook import` |
//! | `init` | `walhook init` |
//! | `man` | `walhook man` |
//! | `members` | `walhook members` |
//! | `push_log` | `walhook push-log` |
//! | `receive` | `walhook receive` |
//! | `replay` | `walhook replay` |
//! | `run` | `walhook run` |
//! | `schema` | `walhook schema` |
//! | `status` | `walhook status` |
//! | `table` | Tables for people |
//! | `tail` | `walhook tail` |
//! | `terminal` | What goes to the terminal |
//! | `trigger` | `walhook trigger` |

pub(crate) mod ask;
pub(crate) mod backfill;
pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod dead_letters;
#[cfg(feature = "demo")]
pub(crate) mod demo;
pub(crate) mod endpoints;
pub(crate) mod exit;
pub(crate) mod health;
pub(crate) mod import;
pub(crate) mod init;
pub(crate) mod man;
pub(crate) mod members;
pub(crate) mod push_log;
pub(crate) mod receive;
pub(crate) mod replay;
pub(crate) mod run;
pub(crate) mod schema;
pub(crate) mod status;
pub(crate) mod table;
pub(crate) mod tail;
pub(crate) mod terminal;
pub(crate) mod trigger;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use clap::Parser;
use clap::Subcommand;

use crate::cli::exit::CommandError;
use crate::config;
use crate::config::configuration::Settings;
use crate::config::problem::ConfigProblems;
use crate::config::settings::HttpSettings;
use crate::flow::exit_status::ExitStatus;

const CONFIG_VARIABLE: &str = "WALHOOK_CONFIG";
const CONFIG_DEFAULT: &str = "walhook.toml";

/// Pushes committed PostgreSQL row changes to HTTP endpoints.
#[derive(Debug, Parser)]
#[command(
    name = "walhook",
    version,
    max_term_width = 100,
    after_help = "Exit codes: 0 done, 1 failed, 2 bad usage or configuration, 3 Postgres refuses or \
                  is not set up, 4 slot lost.\n\nExample: walhook init --table public.orders"
)]
pub struct Cli {
    #[command(flatten)]
    global: GlobalOptions,
    #[command(subcommand)]
    command: Command,
}

/// What every subcommand understands.
#[derive(Args, Clone, Debug)]
pub(crate) struct GlobalOptions {
    /// The configuration [default: $WALHOOK_CONFIG, then walhook.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Run),
    #[cfg(feature = "demo")]
    Demo(demo::Demo),
    Check(check::Check),
    Init(init::Init),
    Tail(tail::Tail),
    Receive(receive::Receive),
    DeadLetters(dead_letters::DeadLetters),
    Endpoints(endpoints::Endpoints),
    PushLog(push_log::PushLog),
    Backfill(backfill::Backfill),
    Replay(replay::Replay),
    Schema(schema::SchemaCommand),
    Status(status::StatusCommand),
    Trigger(trigger::TriggerCommand),
    Health(health::HealthCommand),
    Import(import::ImportCommand),
    Members(members::Members),
    Completions(completions::Completions),
    Man(man::ManPages),
}

impl Cli {
    /// Runs the subcommand to its end.
    ///
    /// # Errors
    /// As the subcommand: with the exit code and the text for the operator.
    pub fn run(self) -> Result<(), CommandError> {
        let Self { global, command } = self;
        match command {
            Command::Run(run) => run.run(&global),
            #[cfg(feature = "demo")]
            Command::Demo(demo) => demo.run(),
            Command::Check(check) => check.run(&global),
            Command::Init(init) => init.run(&global),
            Command::Tail(tail) => tail.run(&global),
            Command::Receive(receive) => receive.run(),
            Command::DeadLetters(letters) => letters.run(&global),
            Command::Endpoints(endpoints) => endpoints.run(&global),
            Command::PushLog(log) => log.run(&global),
            Command::Backfill(backfill) => backfill.run(&global),
            Command::Replay(replay) => replay.run(&global),
            Command::Schema(schema) => schema.run(&global),
            Command::Status(status) => status.run(&global),
            Command::Trigger(trigger) => trigger.run(&global),
            Command::Health(health) => health.run(&global),
            Command::Import(import) => import.run(),
            Command::Members(members) => members.run(&global),
            Command::Completions(completions) => completions.run(),
            Command::Man(man) => man.run(),
        }
    }
}

impl GlobalOptions {
    /// The configuration file to read: `--config`, then `$WALHOOK_CONFIG`, then `walhook.toml`.
    pub(crate) fn config_path(&self) -> PathBuf {
        self.config_path_or(std::env::var_os(CONFIG_VARIABLE))
    }

    /// The checked settings.
    ///
    /// # Errors
    /// Everything that is wrong with the file, with exit code 2.
    fn settings(&self) -> Result<Settings, CommandError> {
        self.read().map_err(|problems| ExitStatus::Usage.because(problems))
    }

    fn read(&self) -> Result<Settings, ConfigProblems> {
        let env = |name: &str| std::env::var(name).ok();
        config::load(&self.config_path(), &env)
    }

    /// `[http]` alone, for commands that only ask a running walhook: what the rest needs, such as the database's
    /// URL, need not be there. Without a file, what walhook does without one.
    ///
    /// # Errors
    /// Everything that is wrong with the section, with exit code 2.
    fn http(&self) -> Result<HttpSettings, CommandError> {
        let path = self.config_path();
        let env = |name: &str| std::env::var(name).ok();
        let named = self.config.is_some() || std::env::var_os(CONFIG_VARIABLE).is_some();
        let read = match named || path.exists() {
            true => config::load_http(&path, &env),
            false => config::parse_http("", CONFIG_DEFAULT, &env),
        };
        read.map_err(|problems| ExitStatus::Usage.because(problems))
    }

    fn config_path_or(&self, variable: Option<OsString>) -> PathBuf {
        let named = variable.filter(|path| !path.is_empty()).map(PathBuf::from);
        self.config.clone().or(named).unwrap_or_else(|| PathBuf::from(CONFIG_DEFAULT))
    }
}

/// A runtime on the calling thread, for a subcommand that is one conversation.
fn runtime() -> Result<tokio::runtime::Runtime, CommandError> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Waits for Ctrl-C or SIGTERM.
async fn interrupted() -> std::io::Result<()> {
    use tokio::signal::unix::SignalKind;
    let mut terminate = tokio::signal::unix::signal(SignalKind::terminate())?;
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed,
        _ = terminate.recv() => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound_and_every_subcommand_shows_an_example() {
        let cli = Cli::command();
        cli.clone().debug_assert();
        for command in cli.get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let example = format!("walhook {}", command.get_name());
            assert!(help.contains(&example), "case: {}", command.get_name());
        }
    }

    #[test]
    fn the_flag_outranks_the_variable_and_the_variable_the_default() {
        let with = |flag: Option<&str>| GlobalOptions { config: flag.map(PathBuf::from) };
        let variable = Some(OsString::from("v.toml"));
        assert_eq!(with(Some("f.toml")).config_path_or(variable.clone()), PathBuf::from("f.toml"));
        assert_eq!(with(None).config_path_or(variable), PathBuf::from("v.toml"));
        assert_eq!(with(None).config_path_or(Some(OsString::new())), PathBuf::from(CONFIG_DEFAULT));
        assert_eq!(with(None).config_path_or(None), PathBuf::from(CONFIG_DEFAULT));
    }

    #[test]
    fn the_config_flag_stands_before_or_after_the_subcommand() {
        for line in [
            ["walhook", "--config", "a.toml", "receive"],
            ["walhook", "receive", "--config", "a.toml"],
        ] {
            let cli = Cli::try_parse_from(line).unwrap();
            assert_eq!(cli.global.config, Some(PathBuf::from("a.toml")));
        }
    }
}
