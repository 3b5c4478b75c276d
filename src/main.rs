//! The entry: crypto provider, arguments, command, exit code.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use walhook::Cli;
use walhook::ExitStatus;

/// Events are made on one thread, sent on a second and dropped on a third, for which the system's
/// allocator takes a tenth of the CPU of a delivery more (docs/performance.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Fails only if a provider is installed already, and nothing ran before this line.
    let installed = rustls::crypto::ring::default_provider().install_default();
    debug_assert!(installed.is_ok(), "nothing else installs a crypto provider");

    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(help_or_misuse) => {
            // Nobody is left to tell if this cannot be printed; the exit code still says it.
            drop(help_or_misuse.print());
            let exit =
                if help_or_misuse.use_stderr() { ExitStatus::Usage } else { ExitStatus::Done };
            return exit.into();
        }
    };
    match cli.run() {
        Ok(()) => ExitStatus::Done.into(),
        // `walhook tail | head -1`: the reader has all it wanted.
        Err(stopped) if stopped.is_closed_pipe() => ExitStatus::Done.into(),
        Err(stopped) => {
            let mut stderr = std::io::stderr();
            drop(writeln!(stderr, "walhook: {stopped}"));
            let ids = stopped.ids();
            if !ids.is_empty() {
                drop(writeln!(stderr, "explained in docs/errors.md: {}", ids.join(", ")));
            }
            stopped.exit().into()
        }
    }
}
