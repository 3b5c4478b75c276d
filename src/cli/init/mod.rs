//! `walhook init`: from a database to a configuration and the SQL that is still missing.
//!
//! ```text
//! PostgreSQL ─ catalogs ─▶ survey ─▶ [init] ─ file ─▶ walhook.toml
//!                                           └ sql ──▶ standard output
//! ```
//!
//! Standard output is a SQL script, so that it can be piped into `psql`; all else is said on
//! standard error.

mod address;
pub(crate) mod file;
pub(crate) mod sql;
pub(crate) mod survey;

use std::io;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use anyhow::anyhow;
use base64::Engine as _;
use clap::Args;
use ring::rand::SecureRandom as _;
use serde_json::json;
use url::Url;

use crate::cli::GlobalOptions;
use crate::cli::exit::CommandError;
use crate::cli::init::file::FileContents;
use crate::cli::init::survey::DatabaseSurvey;
use crate::cli::init::survey::RelationKind;
use crate::cli::init::survey::SurveyedTable;
use crate::cli::runtime;
use crate::cli::terminal;
use crate::cli::terminal::visible;
use crate::config;
use crate::config::settings::ServerSettings;
use crate::flow::exit_status::ExitStatus;
use crate::flow::nearest_name;
use crate::replication::managed_service::ManagedService;
use crate::store;

const DATABASE_VARIABLE: &str = "DATABASE_URL";
const PUBLICATION: &str = "walhook";

/// Where `walhook receive` listens unless told otherwise.
const TRIAL_ENDPOINT: &str = "http://127.0.0.1:9999/";

/// The server is asked only a few catalog questions: an operator should not wait longer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Random bytes of a signing secret; the specification allows 24 to 64.
const SECRET_BYTES: usize = 32;

/// How alike a name must be to be suggested, from 0 to 1.
const SIMILAR: f64 = 0.8;

/// Names in one line of what is left out.
const NAMED_MAX: usize = 20;

/// Writes a configuration for a database and tables, and prints the SQL an administrator has to run
#[derive(Args, Debug)]
#[command(after_help = "Without --table it lists the tables.\n\nExample: walhook init \
                        --database-url postgres://localhost/app --table public.orders")]
pub(crate) struct Init {
    /// The database, as postgres://user@host/name [default: $DATABASE_URL]
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// A table to capture; may be given several times
    #[arg(long = "table", value_name = "SCHEMA.TABLE")]
    tables: Vec<String>,
    /// Where events go
    #[arg(long, value_name = "URL", default_value = TRIAL_ENDPOINT, value_parser = parse_endpoint)]
    url: Url,
    /// The role that walhook will connect as [default: the database URL's]
    #[arg(long, value_name = "NAME")]
    role: Option<String>,
    /// Has the rows that are there sent as well, once, when the slot is made
    #[arg(long)]
    backfill: bool,
    /// The file to write [default: as --config]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replaces the file if there is one
    #[arg(long)]
    force: bool,
    /// JSON in place of the SQL script
    #[arg(long)]
    json: bool,
}

/// Where the database is, and how the file may say so.
struct DatabaseAddress {
    server: ServerSettings,
    /// Without a password, which stays in the environment.
    shown: String,
}

impl Init {
    /// Asks the database, writes the file, prints the SQL.
    ///
    /// # Errors
    /// [`ExitStatus::Usage`] for arguments that do not hold, [`ExitStatus::Postgres`] if the server cannot be
    /// asked, [`ExitStatus::Failed`] if the file cannot be written.
    pub(crate) fn run(self, global: &GlobalOptions) -> Result<(), CommandError> {
        let output = self.output.clone().unwrap_or_else(|| global.config_path());
        if !self.tables.is_empty() && !self.force && output.exists() {
            return Err(exists(&output));
        }
        let database = self.database()?;
        let role = self.role.as_deref();
        let survey = runtime()?.block_on(survey(&database.server, role))?;
        if self.tables.is_empty() {
            return self.list(&survey);
        }
        let tables = chosen(&self.tables, &survey)?;
        let secret = fresh_secret()?;
        let text = file::render(&FileContents {
            database_url: &database.shown,
            publication: PUBLICATION,
            tables: &tables,
            endpoint: &self.url,
            secret: &secret,
            backfill: self.backfill,
        });
        write(&output, &text, self.force)?;
        let statements = sql::statements(&survey, &tables, PUBLICATION);
        self.report(&output, &survey, &tables, &statements)?;
        if !self.json {
            self.next_steps(&database, &survey, &output, &secret, statements.is_empty())?;
        }
        Ok(())
    }

    fn database(&self) -> Result<DatabaseAddress, CommandError> {
        let variable = variable();
        let from_variable = self.database_url.is_none();
        let url = self.database_url.clone().or(variable).ok_or_else(|| {
            ExitStatus::Usage.because(anyhow!(
                "there is no database to ask: give --database-url or set {DATABASE_VARIABLE}"
            ))
        })?;
        let server = config::server(&url)
            .map_err(|problem| ExitStatus::Usage.because(anyhow!("the database URL: {problem}")))?;
        let params = &server.params;
        let other_role = self.role.as_deref().is_some_and(|role| params.get_user() != Some(role));
        let secret = params.get_password().is_some();
        let shown = if from_variable || secret || other_role {
            format!("${{{DATABASE_VARIABLE}}}")
        } else {
            url
        };
        Ok(DatabaseAddress { server, shown })
    }

    fn list(&self, survey: &DatabaseSurvey) -> Result<(), CommandError> {
        if self.json {
            let tables: Vec<_> = survey.tables.iter().map(described).collect();
            terminal::line(&terminal::json_line(&json!({ "tables": tables })))?;
            return Ok(());
        }
        let database = visible(&survey.database).into_owned();
        if survey.tables.is_empty() {
            terminal::note(&format!("database {database} has no table to capture"))?;
            return Ok(left_out(survey)?);
        }
        for table in &survey.tables {
            let key = match table.key.as_slice() {
                [] => "no primary key".to_owned(),
                key => format!("key {}", key.join(", ")),
            };
            let rows = table.rows.map(|rows| format!(", about {rows:.0} rows")).unwrap_or_default();
            let name = table.written();
            terminal::line(&format!("{:<40} {}{rows}", visible(&name), visible(&key)))?;
        }
        left_out(survey)?;
        terminal::note("choose one or more with --table SCHEMA.TABLE")?;
        Ok(())
    }

    fn report(
        &self,
        output: &Path,
        survey: &DatabaseSurvey,
        tables: &[&SurveyedTable],
        statements: &[sql::AdminStatement],
    ) -> io::Result<()> {
        if self.json {
            let tables: Vec<_> = tables.iter().map(|table| described(table)).collect();
            let (by_hand, sql): (Vec<_>, Vec<_>) =
                statements.iter().partition(|one| one.sql.is_empty());
            let sql: Vec<&str> = sql.iter().map(|one| one.sql.as_str()).collect();
            let by_hand: Vec<&str> = by_hand.iter().map(|one| one.why.as_str()).collect();
            return terminal::line(&terminal::json_line(&json!({
                "written": output.display().to_string(),
                "database": survey.database,
                "role": survey.role.name,
                "tables": tables,
                "service": survey.service.map(ManagedService::name),
                "sql": sql,
                "by_hand": by_hand,
            })));
        }
        let database = visible(&survey.database).into_owned();
        let role = visible(&survey.role.name).into_owned();
        if statements.is_empty() {
            return terminal::line(&format!(
                "-- Nothing is left for an administrator: {role} can do the rest in {database}."
            ));
        }
        let of_service = survey.service.map(|service| format!(" of {}", service.name()));
        terminal::line(&format!(
            "-- For an administrator{}, in database {database}: lets walhook run as {role}.",
            of_service.unwrap_or_default()
        ))?;
        statements.iter().try_for_each(|statement| terminal::line(&statement.to_string()))
    }

    fn next_steps(
        &self,
        database: &DatabaseAddress,
        survey: &DatabaseSurvey,
        output: &Path,
        secret: &str,
        nothing_to_run: bool,
    ) -> io::Result<()> {
        let path = output.display().to_string();
        let mut steps = Vec::new();
        if address::is_pooler(&database.server) {
            steps.push(String::from(
                "take the address of the server itself: this one seems to be a pooler's, which \
                 carries no replication",
            ));
        }
        if !nothing_to_run {
            steps.push("have an administrator run the SQL above".to_owned());
        }
        if database.shown.starts_with('$') {
            let url = address::shown(&database.server, &survey.role.name, &survey.database);
            // Where it is set, it is no step to set it.
            if variable().as_deref().and_then(address::of_variable).as_ref() != Some(&url) {
                steps.push(format!("export {DATABASE_VARIABLE}={url}"));
            }
        }
        if self.url.as_str() == TRIAL_ENDPOINT {
            steps.push(format!("walhook receive --secret {secret}   (in another terminal)"));
        }
        steps.push(format!("walhook check --config {}", visible(&path)));
        steps.push(format!("walhook run --config {}", visible(&path)));
        let path = visible(&path);
        terminal::note(&format!(
            "\nwrote {path}, which only you can read: it holds a signing secret. Next:"
        ))?;
        for (number, step) in (1..).zip(steps) {
            terminal::note(&format!("  {number}. {step}"))?;
        }
        Ok(())
    }
}

/// What `$DATABASE_URL` says, if it is set.
fn variable() -> Option<String> {
    std::env::var(DATABASE_VARIABLE).ok().filter(|url| !url.is_empty())
}

/// Names what cannot be captured, a line for each reason. Partitions are captured with their table.
fn left_out(survey: &DatabaseSurvey) -> io::Result<()> {
    for kind in [
        RelationKind::View,
        RelationKind::MaterializedView,
        RelationKind::ForeignTable,
        RelationKind::Unlogged,
    ] {
        let of_kind = survey.others.iter().filter(|other| other.kind == kind);
        let names: Vec<String> = of_kind.map(|other| other.name.to_string()).collect();
        let shown = names.get(..NAMED_MAX).unwrap_or(&names).join(", ");
        let more = names.len().saturating_sub(NAMED_MAX);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        if !names.is_empty() {
            terminal::note(&format!("left out, {kind}: {}{more}", visible(&shown)))?;
        }
    }
    Ok(())
}

fn described(table: &SurveyedTable) -> serde_json::Value {
    json!({
        "table": table.written(),
        "key": table.key,
        "identified": table.identified,
        "rows": table.rows,
    })
}

async fn survey(
    server: &ServerSettings,
    role: Option<&str>,
) -> Result<DatabaseSurvey, CommandError> {
    let asked = async {
        let session = store::connect(server).await?;
        anyhow::Ok(DatabaseSurvey::take(&session.client, role, PUBLICATION).await?)
    };
    match tokio::time::timeout(ANSWER_WITHIN, asked).await {
        Ok(surveyed) => surveyed.map_err(CommandError::of_postgres),
        Err(_) => Err(ExitStatus::Postgres
            .because(anyhow!("PostgreSQL gave no answer within {ANSWER_WITHIN:?}: try again"))),
    }
}

/// The tables of that name, in the order given and each once.
fn chosen<'a>(
    names: &[String],
    survey: &'a DatabaseSurvey,
) -> Result<Vec<&'a SurveyedTable>, CommandError> {
    let mut tables: Vec<&SurveyedTable> = Vec::new();
    let mut missing = Vec::new();
    for name in names {
        let full = if name.contains('.') { name.clone() } else { format!("public.{name}") };
        let as_written = survey.tables.iter().find(|table| table.written() == full);
        let otherwise = || survey.tables.iter().find(|table| table.is_called(name));
        let other = survey.others.iter().find(|other| other.is_called(name));
        match as_written.or_else(otherwise) {
            Some(table) if tables.iter().any(|one| one.name == table.name) => {}
            Some(table) => tables.push(table),
            None => missing.push(match (other, nearest(&full, survey)) {
                (Some(other), _) => format!("{} ({})", visible(name), visible(&other.why())),
                (None, Some(near)) => {
                    format!("{} (did you mean {}?)", visible(name), visible(&near))
                }
                (None, None) => visible(name).into_owned(),
            }),
        }
    }
    if missing.is_empty() {
        return Ok(tables);
    }
    let missing = missing.join(", ");
    let database = visible(&survey.database).into_owned();
    Err(ExitStatus::Postgres.because(anyhow!(
        "database {database} has no such table: {missing}; `walhook init` without --table lists \
         all that can be captured"
    )))
}

fn nearest(name: &str, survey: &DatabaseSurvey) -> Option<String> {
    let known: Vec<String> = survey.tables.iter().map(SurveyedTable::written).collect();
    nearest_name::nearest(name, known.iter().map(String::as_str), SIMILAR).map(str::to_owned)
}

fn parse_endpoint(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).ok();
    url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or_else(|| "give an http:// or https:// address".to_owned())
}

fn fresh_secret() -> anyhow::Result<String> {
    let mut bytes = [0; SECRET_BYTES];
    ring::rand::SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| anyhow!("the system gives no random numbers for a signing secret"))?;
    Ok(format!("whsec_{}", base64::engine::general_purpose::STANDARD.encode(bytes)))
}

/// Writes the whole file or nothing, readable by its owner only.
fn write(path: &Path, text: &str, replace: bool) -> Result<(), CommandError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let written = || -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        if replace {
            file.persist(path)?;
        } else {
            file.persist_noclobber(path)?;
        }
        Ok(())
    };
    match written() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(exists(path)),
        outcome => Ok(outcome.with_context(|| {
            let path = path.display();
            format!("cannot write {path}: name another file with --output")
        })?),
    }
}

fn exists(path: &Path) -> CommandError {
    let path = path.display();
    ExitStatus::Usage.because(anyhow!(
        "{path} exists and is left as it is: name another file with --output, or give --force"
    ))
}

#[cfg(test)]
mod tests;
