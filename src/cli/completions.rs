//! `walhook completions`: what a shell needs to complete the command line.

use clap::Args;
use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::cli::exit::CommandError;
use crate::cli::terminal;

/// Prints a script with which a shell completes walhook's commands and options
#[derive(Args, Debug)]
#[command(after_help = "The packages bring these scripts along.\n\n\
                  Example: walhook completions bash > /etc/bash_completion.d/walhook")]
pub(crate) struct Completions {
    /// For which shell
    shell: Shell,
}

impl Completions {
    /// # Errors
    /// That it cannot be printed.
    pub(crate) fn run(self) -> Result<(), CommandError> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "walhook", &mut script);
        Ok(terminal::line(String::from_utf8_lossy(&script).trim_end())?)
    }
}
