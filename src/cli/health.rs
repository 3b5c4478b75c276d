//! `walhook health`: a probe for machines without a shell, a curl or a wget.

use std::time::Duration;

use clap::Args;

use crate::cli::GlobalOptions;
use crate::cli::ask::ApiClient;
use crate::cli::exit::CommandError;
use crate::cli::terminal;

/// Below the 3 s that container engines give a probe, so that the reason is told before they kill it.
const PROBE_TIME: Duration = Duration::from_millis(2500);

/// Asks whether a walhook lives, or with --ready whether changes flow; for container health checks
#[derive(Args, Debug)]
#[command(
    after_help = "Exit codes: 0 yes, 1 no, 2 nobody knows whom to ask. Of the configuration it reads \
                  [http] alone.\n\n\
                  Example: walhook health --url http://127.0.0.1:9464"
)]
pub(crate) struct HealthCommand {
    /// Where walhook answers [default: [http] listen of the configuration]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Whether changes flow, or it stands by for the one that has them flow
    #[arg(long)]
    ready: bool,
}

impl HealthCommand {
    /// # Errors
    /// With exit code 1: the answer is no, or there is none in time.
    pub(crate) fn run(self, global: &GlobalOptions) -> Result<(), CommandError> {
        let asker = ApiClient::without_token(self.url.as_deref(), global)?.within(PROBE_TIME);
        let path = if self.ready { "/ready?standby=ok" } else { "/health" };
        let answer = asker.get(path, &[])?;
        Ok(terminal::line(&terminal::json_line(&answer))?)
    }
}
