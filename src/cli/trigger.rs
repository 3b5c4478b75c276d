//! `walhook trigger`: a test event of a certain type, for the author of a receiver.

use anyhow::anyhow;
use clap::Args;
use serde_json::Value;
use serde_json::json;

use crate::cli::GlobalOptions;
use crate::cli::ask::ApiAddress;
use crate::cli::endpoints::path;
use crate::cli::exit::CommandError;
use crate::cli::table;
use crate::cli::terminal;
use crate::flow::exit_status::ExitStatus;

/// Sends a test event of a type to an endpoint, made of a real row, and tells what came back
#[derive(Args, Debug)]
#[command(
    after_help = "Signed and shaped as a real one, with the header Webhook-Test: true; nothing is \
                        counted or tried again. Exit code 1 if it was not taken.\n\n\
                        Example: walhook trigger order.paid --endpoint crm --key 42"
)]
pub(crate) struct TriggerCommand {
    /// The event type
    event_type: String,
    /// To this endpoint; without it, to all that take the event
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
    /// Of the row with this value in the first column of its primary key
    #[arg(long, value_name = "VALUE")]
    key: Option<String>,
    #[command(flatten)]
    target: ApiAddress,
}

impl TriggerCommand {
    /// # Errors
    /// That no walhook answers, that nobody takes the event, or that it was not taken.
    pub(crate) fn run(self, global: &GlobalOptions) -> Result<(), CommandError> {
        let asker = self.target.asker(global)?;
        let names = match &self.endpoint {
            Some(name) => vec![name.clone()],
            None => {
                let all = asker.get("/api/v1/endpoints", &[])?;
                let all = all.get("endpoints").and_then(Value::as_array).cloned();
                let name = |one: &Value| Some(one.get("name")?.as_str()?.to_owned());
                all.unwrap_or_default().iter().filter_map(name).collect()
            }
        };
        let mut wish = json!({ "event_type": self.event_type });
        if let (Some(key), Some(members)) = (&self.key, wish.as_object_mut()) {
            members.insert(String::from("key"), json!(key));
        }
        let (mut asked, mut taken, mut last) = (0, 0, None);
        for name in &names {
            let answer = path(name).and_then(|path| asker.post(&format!("{path}/test"), &wish));
            let report = match answer {
                Ok(report) => report,
                // Of all of them, some take other events.
                Err(error) if self.endpoint.is_none() => {
                    last = Some(error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            asked += 1;
            taken += usize::from(report.get("delivered") == Some(&Value::Bool(true)));
            self.tell(name, &report)?;
        }
        match (asked, last) {
            (0, Some(error)) => Err(error),
            (0, None) => Err(ExitStatus::Failed.because(anyhow!("there are no endpoints"))),
            _ if taken < asked => Err(ExitStatus::Failed.because(anyhow!("it was not taken"))),
            _ => Ok(()),
        }
    }

    fn tell(&self, name: &str, report: &Value) -> Result<(), CommandError> {
        if self.target.json {
            let mut report = report.clone();
            if let Some(members) = report.as_object_mut() {
                members.insert(String::from("endpoint"), json!(name));
            }
            return Ok(terminal::line(&terminal::json_line(&report))?);
        }
        let of = |name: &str| table::cell(report.get(name).unwrap_or(&Value::Null));
        let error = report.get("error").filter(|error| !error.is_null());
        let error = error.map(|error| {
            let of = |name: &str| table::cell(error.get(name).unwrap_or(&Value::Null));
            format!(", {}: {}", of("class"), of("detail"))
        });
        let verdict = if report.get("delivered") == Some(&Value::Bool(true)) {
            "took it"
        } else {
            "did not take it"
        };
        let error = error.unwrap_or_default();
        let line =
            format!("{name} {verdict}: status {}, {} ms{error}", of("status"), of("duration_ms"));
        Ok(terminal::line(&line)?)
    }
}
