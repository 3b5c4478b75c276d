//! `walhook check`: everything that stands in the way, at once, each with its fix.

use clap::Args;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::cli::GlobalOptions;
use crate::cli::exit::CommandError;
use crate::cli::runtime;
use crate::cli::terminal;
use crate::cli::terminal::Colours;
use crate::flow::body::RequestValue;
use crate::flow::exit_status::ExitStatus;
use crate::preflight::broker;
use crate::preflight::channels;
use crate::preflight::dry_run::EventExample;
use crate::preflight::prepare::check;
use crate::replication::catalog::CheckFinding;
use crate::replication::catalog::FindingLevel;
use crate::replication::diagnostic::SetupDiagnostic;

/// Reads the configuration, asks PostgreSQL, and reports everything at once
#[derive(Args, Debug)]
#[command(
    after_help = "Changes nothing. Exit codes: 0 sound, 2 configuration, 3 PostgreSQL is not \
                        set up, 4 slot lost.\n\nExample: walhook check --config walhook.toml"
)]
pub(crate) struct Check {
    /// One JSON object for scripts
    #[arg(long)]
    json: bool,
    /// Shows a body of each event and payload, rendered from a row of its table
    #[arg(long)]
    bodies: bool,
    /// Asks chat systems for an access token, which sends no message
    #[arg(long)]
    channels: bool,
}

impl Check {
    /// # Errors
    /// With the exit code of the gravest problem; the problems are printed.
    pub(crate) fn run(self, global: &GlobalOptions) -> Result<(), CommandError> {
        let settings = global.settings()?;
        let runtime = runtime()?;
        // PostgreSQL has no part in it: it is told even where that cannot be asked.
        let mut tried = match self.channels {
            true => runtime.block_on(channels::findings(&settings.endpoints)),
            false => Vec::new(),
        };
        tried.extend(runtime.block_on(broker::findings(&settings)));
        let checked = runtime.block_on(check(&settings));
        if checked.is_err() && !self.json {
            tried.iter().try_for_each(|finding| show(finding, Colours::detect()))?;
        }
        let (mut report, mut examples) = checked.map_err(CommandError::of_postgres)?;
        let is_problem = |finding: &&CheckFinding| finding.level == FindingLevel::Problem;
        let refused = tried.iter().filter(is_problem).count();
        report.findings.extend(tried);
        let problems = report.problems().len() + refused;
        if !self.bodies {
            examples.clear();
        }
        if self.json {
            let findings: Vec<_> = report.findings.iter().map(as_json).collect();
            let sound = problems == 0;
            let mut whole = json!({ "sound": sound, "findings": findings, "steps": report.steps });
            if let (true, Some(members)) = (self.bodies, whole.as_object_mut()) {
                let bodies = examples.iter().map(example_json).collect();
                members.insert(String::from("bodies"), bodies);
            }
            terminal::line(&terminal::json_line(&whole))?;
        } else {
            let colours = Colours::detect();
            for finding in &report.findings {
                show(finding, colours)?;
            }
            for example in &examples {
                let to = example.sample.endpoints.join(", ");
                let to = if to.is_empty() { to } else { format!(" to {to}") };
                let head = format!("{}{to}", example.event);
                terminal::line(&format!("  {} {head}", colours.faint("body")))?;
                terminal::line(&format!("         {}", terminal::visible(&example.sample.body)))?;
                for (expression, value) in &example.sample.values {
                    let line = format!("{{{{ {expression} }}}} = {}", shown(value));
                    terminal::line(&format!("         {}", terminal::visible(&line)))?;
                }
            }
            for step in &report.steps {
                terminal::line(&format!(
                    "  {} walhook run will do: {step}",
                    colours.faint("todo")
                ))?;
            }
            if report.makes_slot {
                let todo = colours.faint("todo");
                terminal::line(&format!("  {todo} walhook run will make the replication slot"))?;
            }
        }
        let refused = if refused > 0 { ExitStatus::Usage } else { ExitStatus::Done };
        match report.exit().max(refused) {
            ExitStatus::Done => Ok(()),
            exit => {
                let plural = if problems == 1 { "" } else { "s" };
                Err(exit.because(anyhow::anyhow!("{problems} problem{plural} found, see above")))
            }
        }
    }
}

fn example_json(example: &EventExample) -> Value {
    let endpoints: Vec<&str> = example.sample.endpoints.iter().map(|name| &**name).collect();
    let mut whole =
        json!({ "event": &*example.event, "endpoints": endpoints, "body": example.sample.body });
    let values = example.sample.values.iter();
    let values: Map<String, Value> =
        values.map(|(expression, value)| (expression.to_string(), shown(value))).collect();
    if let (false, Some(members)) = (values.is_empty(), whole.as_object_mut()) {
        members.insert(String::from("values"), Value::Object(values));
    }
    whole
}

/// What an expression of a URL or a header comes to.
fn shown(value: &RequestValue) -> Value {
    match value {
        RequestValue::Null => Value::Null,
        RequestValue::Text(text) => Value::String(text.to_string()),
        RequestValue::Failed(why) => Value::String(format!("(none: it {why})")),
    }
}

fn show(finding: &CheckFinding, colours: Colours) -> std::io::Result<()> {
    let mark = match finding.level {
        FindingLevel::Ok => colours.good("  ok"),
        FindingLevel::Warning => colours.faint("warn"),
        FindingLevel::Problem => colours.bad("FAIL"),
    };
    let id = finding.refusal.as_ref().map(|refusal| format!(" [{}]", refusal.id()));
    let id = id.map(|id| colours.faint(&id).to_string()).unwrap_or_default();
    terminal::line(&format!("  {mark} {}{id}", terminal::visible(&finding.what)))?;
    match &finding.fix {
        Some(fix) => terminal::line(&format!("         {}", terminal::visible(fix))),
        None => Ok(()),
    }
}

fn as_json(finding: &CheckFinding) -> serde_json::Value {
    let level = match finding.level {
        FindingLevel::Ok => "ok",
        FindingLevel::Warning => "warning",
        FindingLevel::Problem => "problem",
    };
    let id = finding.refusal.as_ref().map(SetupDiagnostic::id);
    json!({ "level": level, "id": id, "what": finding.what, "fix": finding.fix })
}
