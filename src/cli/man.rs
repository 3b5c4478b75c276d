//! `walhook man`: a manual page for each command, made of what `--help` says.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use clap::CommandFactory;

use crate::cli::Cli;
use crate::cli::exit::CommandError;

/// Writes a manual page for each command into a folder, which is made if it is not there
#[derive(Args, Debug)]
#[command(
    after_help = "The packages bring these pages along: `man walhook`, `man walhook-run`.\n\n\
                  Example: walhook man /usr/local/share/man/man1"
)]
pub(crate) struct ManPages {
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

impl ManPages {
    /// # Errors
    /// That a page cannot be written.
    pub(crate) fn run(self) -> Result<(), CommandError> {
        let shown = || self.folder.display().to_string();
        fs::create_dir_all(&self.folder).with_context(shown)?;
        clap_mangen::generate_to(Cli::command(), &self.folder).with_context(shown)?;
        Ok(())
    }
}
