//! `walhook import`: another system's configuration, as one of walhook's.
//!
//! ```text
//! file ─▶ yaml ─▶ sequin, pgstream ─┐
//!      ─▶ properties ─▶ debezium ───┼─▶ draft ─ TOML, and what was not carried over
//!      ─▶ statements ─▶ triggers ───┘
//! ```
//!
//! Nothing is left out in silence: what has no place here is named, on standard error and in the file.
//!
//! | file | holds |
//! | --- | --- |
//! | `debezium` | Debezium Server's `application.properties` |
//! | `draft` | What was understood, and the TOML that is made of it |
//! | `pgstream` | pgstream's YAML |
//! | `sequin` | Sequin's YAML |
//! | `statements` | Words of SQL, for the triggers |
//! | `triggers` | Triggers that call `pg_net` |
//! | `yaml` | YAML as JSON values |

pub(crate) mod debezium;
pub(crate) mod draft;
pub(crate) mod pgstream;
pub(crate) mod sequin;
pub(crate) mod statements;
pub(crate) mod triggers;
pub(crate) mod yaml;

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::anyhow;
use anyhow::bail;
use clap::Args;
use clap::ValueEnum;
use serde_json::Value;

use crate::cli::exit::CommandError;
use crate::cli::import::draft::ImportDraft;
use crate::cli::terminal;
use crate::flow::exit_status::ExitStatus;

/// Converts the configuration of Sequin, Debezium Server, pgstream or pg_net triggers
#[derive(Args, Debug)]
#[command(
    after_help = "Prints a walhook.toml. What cannot be carried over is named on standard error and in the \
                  file, and the exit code is 1 then. Secrets become variables of the environment.\n\n\
                  Example: walhook import sequin.yaml > walhook.toml"
)]
pub(crate) struct ImportCommand {
    /// sequin.yaml, application.properties, pgstream's YAML, or SQL with triggers
    file: PathBuf,
    /// What it is, where its content does not say so
    #[arg(long, value_name = "KIND")]
    from: Option<ImportSource>,
    /// A table whose changes are events, where the file does not name any; may be given several times
    #[arg(long = "table", value_name = "TABLE")]
    tables: Vec<String>,
}

/// Whose configuration it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum ImportSource {
    Sequin,
    Debezium,
    Pgstream,
    PgNet,
}

impl ImportCommand {
    /// # Errors
    /// With exit code 2: the file is none that can be read; with 1: not all of it was carried over.
    pub(crate) fn run(self) -> Result<(), CommandError> {
        let shown = self.file.display().to_string();
        let usage = |error: anyhow::Error| ExitStatus::Usage.because(error);
        let text = fs::read_to_string(&self.file)
            .with_context(|| format!("{shown} cannot be read"))
            .map_err(usage)?;
        let draft = convert(&self.file, &text, self.from, &self.tables)
            .with_context(|| shown.clone())
            .map_err(usage)?;
        terminal::line(draft.toml(&shown).trim_end())?;
        for (name, what) in draft.variables() {
            terminal::note(&format!("set {}: {}", name, terminal::visible(what)))?;
        }
        let lost = draft.lost();
        for what in lost {
            terminal::note(&format!("not carried over: {}", terminal::visible(what)))?;
        }
        match lost.len() {
            0 => Ok(()),
            1 => Err(anyhow!("1 thing of {shown} was not carried over, see above").into()),
            more => {
                Err(anyhow!("{more} things of {shown} were not carried over, see above").into())
            }
        }
    }
}

/// What the text comes down to.
///
/// # Errors
/// It is nothing that can be read, or nothing in it goes to an HTTP endpoint.
pub(crate) fn convert(
    file: &Path,
    text: &str,
    from: Option<ImportSource>,
    tables: &[String],
) -> anyhow::Result<ImportDraft> {
    let name = file.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let guessed = match (from, name) {
        (Some(source), _) => Some(source),
        (None, "properties") => Some(ImportSource::Debezium),
        (None, "sql") => Some(ImportSource::PgNet),
        (None, "yaml" | "yml") => None,
        (None, _) if text.contains("debezium.") => Some(ImportSource::Debezium),
        (None, _) => None,
    };
    let mut draft = match guessed {
        Some(ImportSource::Debezium) => debezium::convert(text),
        Some(ImportSource::PgNet) => triggers::convert(text),
        Some(ImportSource::Sequin) => sequin::convert(&yaml::read(text)?),
        Some(ImportSource::Pgstream) => pgstream::convert(&yaml::read(text)?, tables)?,
        None => {
            let document = yaml::read(text)?;
            let has = |name: &str| document.get(name).is_some_and(|value| !value.is_null());
            if has("sinks") || has("databases") || has("http_endpoints") {
                sequin::convert(&document)
            } else if has("source") && has("target") {
                pgstream::convert(&document, tables)?
            } else {
                bail!("is neither Sequin's nor pgstream's: say what it is with --from")
            }
        }
    };
    if draft.is_empty() {
        bail!("holds nothing that goes to an HTTP endpoint{}", draft.why_empty());
    }
    for problem in draft.problems() {
        draft.lose(format!("the result needs a hand: {problem}"));
    }
    Ok(draft)
}

/// A text of a document; nothing if it is missing or no text.
fn text<'v>(value: &'v Value, name: &str) -> Option<&'v str> {
    value.get(name)?.as_str().filter(|text| !text.is_empty())
}

/// The items of a list; nothing if it is missing.
fn items<'v>(value: &'v Value, name: &str) -> &'v [Value] {
    value.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests;
