//! `walhook members`: who delivers for the source, and which partitions each has.

use clap::Args;
use serde_json::Value;

use crate::api::answers::member_list::MemberList;
use crate::cli::GlobalOptions;
use crate::cli::exit::CommandError;
use crate::cli::runtime;
use crate::cli::table;
use crate::cli::terminal;
use crate::config::configuration::Settings;
use crate::store;
use crate::store::source_members;
use crate::store::source_members::SourceView;

const MEMBERS: [(&str, &str); 6] = [
    ("MEMBER", "name"),
    ("HTTP", "address"),
    ("SINCE", "started_at"),
    ("SEEN", "seen_at"),
    ("ALIVE", "is_alive"),
    ("PARTITIONS", "partitions"),
];

/// Lists those who deliver for the source, and what each has: see docs/scale.md
#[derive(Args, Debug)]
#[command(
    after_help = "Asks the state, so it answers whoever runs. Example: walhook members --config walhook.toml"
)]
pub(crate) struct Members {
    /// One JSON object for scripts
    #[arg(long)]
    json: bool,
}

impl Members {
    /// # Errors
    /// The state cannot be asked.
    pub(crate) fn run(self, global: &GlobalOptions) -> Result<(), CommandError> {
        let settings: Settings = global.settings()?;
        let found = runtime()?.block_on(view(&settings)).map_err(CommandError::of_postgres)?;
        let found = MemberList::from(found);
        if self.json {
            return Ok(terminal::line(&terminal::json_line(&found))?);
        }
        let Some(count) = found.partitions else {
            return Ok(terminal::note("the source is not shared: no tail has run")?);
        };
        let rows = found.members.iter().map(serde_json::to_value);
        let rows: Vec<Value> = rows.collect::<Result<_, _>>()?;
        match rows.is_empty() {
            true => terminal::note("nobody delivers")?,
            false => table::print(&MEMBERS, &rows)?,
        }
        let list = |numbers: &[i32]| {
            numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        if !found.at_source.is_empty() {
            let numbers = list(&found.at_source);
            terminal::note(&format!("with whoever has the slot: partitions {numbers} of {count}"))?;
        }
        if !found.unowned.is_empty() {
            let numbers = list(&found.unowned);
            terminal::note(&format!("nobody has partitions {numbers} of {count}"))?;
        }
        Ok(())
    }
}

async fn view(settings: &Settings) -> anyhow::Result<SourceView> {
    let session = store::connect(&settings.state).await?;
    Ok(source_members::load(&session.client, &settings.postgres.slot).await?)
}
