//! `walhook schema`: what the bodies of events look like, for the receivers.

use clap::Args;
use clap::ValueEnum;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::cli::GlobalOptions;
use crate::cli::exit::CommandError;
use crate::cli::runtime;
use crate::cli::terminal;
use crate::flow::exit_status::ExitStatus;
use crate::preflight::event_schemas;
use crate::preflight::event_schemas::CataloguedEvent;

/// Writes the schema of every event's body, as JSON Schema or AsyncAPI
#[derive(Args, Debug)]
#[command(after_help = "Derived from the tables as they are, their types and the payloads.\n\n\
                        Examples: walhook schema > events.schema.json\n          \
                        walhook schema --format asyncapi --endpoint crm")]
pub(crate) struct SchemaCommand {
    #[arg(long, value_enum, default_value_t = SchemaFormat::JsonSchema)]
    format: SchemaFormat,
    /// Of this event type alone
    #[arg(long, value_name = "TYPE")]
    event: Option<String>,
    /// As this endpoint of the configuration gets them, in the shapes of its own
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum SchemaFormat {
    /// JSON Schema 2020-12, one definition for each event type
    JsonSchema,
    /// AsyncAPI 3.0, one message for each event type
    #[value(name = "asyncapi")]
    AsyncApi,
}

impl SchemaCommand {
    /// # Errors
    /// The configuration is wrong, PostgreSQL cannot be asked, or there is no such event or endpoint.
    pub(crate) fn run(self, global: &GlobalOptions) -> Result<(), CommandError> {
        let settings = global.settings()?;
        let mut endpoints = settings.endpoints.clone();
        if let Some(name) = &self.endpoint {
            endpoints.retain(|endpoint| *endpoint.name == **name);
            if endpoints.is_empty() {
                let error = anyhow::anyhow!("the configuration has no endpoint {name:?}");
                return Err(ExitStatus::Usage.because(error));
            }
        }
        let read = runtime()?.block_on(event_schemas::read(&settings, &endpoints));
        let mut events = read.map_err(CommandError::of_postgres)?;
        if let Some(endpoint) = endpoints.first().filter(|_| self.endpoint.is_some()) {
            let taken = settings.events.iter().filter(|rule| endpoint.takes(rule));
            let taken: Vec<_> = taken.map(|rule| rule.event_type.clone()).collect();
            events.retain(|event| taken.contains(&event.event_type));
        }
        events.retain(|event| self.event.as_deref().is_none_or(|only| *event.event_type == *only));
        if events.is_empty() {
            return Err(ExitStatus::Usage.because(anyhow::anyhow!("there is no such event")));
        }
        let schemas = schemas(&events, self.endpoint.is_some());
        let document = match self.format {
            SchemaFormat::JsonSchema => json_schema(schemas),
            SchemaFormat::AsyncApi => async_api(schemas),
        };
        let text = serde_json::to_string_pretty(&document).map_err(anyhow::Error::new)?;
        Ok(terminal::line(&text)?)
    }
}

/// Each type with its schema; of one endpoint, the shape of its own where it has one.
fn schemas(events: &[CataloguedEvent], is_of_endpoint: bool) -> Map<String, Value> {
    let schema = |event: &CataloguedEvent| {
        let own = event.own.first().filter(|_| is_of_endpoint).map(|(_, schema)| schema.clone());
        let schema = own.or_else(|| event.schema.clone())?;
        Some((event.event_type.to_string(), schema))
    };
    events.iter().filter_map(schema).collect()
}

fn json_schema(schemas: Map<String, Value>) -> Value {
    let escaped = |name: &str| name.replace('~', "~0").replace('/', "~1");
    let each: Vec<Value> = schemas
        .keys()
        .map(|name| json!({ "$ref": format!("#/$defs/{}", escaped(name)) }))
        .collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Events of walhook",
        "anyOf": each,
        "$defs": schemas,
    })
}

fn async_api(schemas: Map<String, Value>) -> Value {
    // What may stand in a key of AsyncAPI's.
    let key = |name: &str| -> String {
        let is_fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        name.chars().map(|c| if is_fit(c) { c } else { '_' }).collect()
    };
    let reference = |place: &str, name: &str| json!({ "$ref": format!("#/{place}/{}", key(name)) });
    let names: Vec<String> = schemas.keys().cloned().collect();
    let of_channel: Map<String, Value> =
        names.iter().map(|name| (key(name), reference("components/messages", name))).collect();
    let of_operation: Vec<Value> =
        names.iter().map(|name| reference("channels/events/messages", name)).collect();
    let messages: Map<String, Value> = schemas
        .into_iter()
        .map(|(name, payload)| {
            let message = json!({
                "name": name, "contentType": "application/json", "payload": payload,
            });
            (key(&name), message)
        })
        .collect();
    json!({
        "asyncapi": "3.0.0",
        "info": { "title": "Events of walhook", "version": env!("CARGO_PKG_VERSION") },
        "defaultContentType": "application/json",
        "channels": { "events": { "address": null, "messages": of_channel } },
        "operations": {
            "push": {
                "action": "send",
                "channel": { "$ref": "#/channels/events" },
                "messages": of_operation,
            }
        },
        "components": { "messages": messages },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reference_of_a_document_leads_somewhere() {
        fn follow(whole: &Value, part: &Value) {
            match part {
                Value::Object(fields) => {
                    if let Some(Value::String(target)) = fields.get("$ref") {
                        let pointer = target.strip_prefix('#').unwrap();
                        assert!(whole.pointer(pointer).is_some(), "{target}");
                    }
                    fields.values().for_each(|value| follow(whole, value));
                }
                Value::Array(items) => items.iter().for_each(|item| follow(whole, item)),
                _ => {}
            }
        }
        let schemas = || {
            let names = ["customer.created", "a/b", "订单"];
            names.iter().map(|name| ((*name).to_owned(), json!({ "type": "object" }))).collect()
        };
        for document in [json_schema(schemas()), async_api(schemas())] {
            follow(&document, &document);
        }
        let document = async_api(schemas());
        assert_eq!(document["operations"]["push"]["messages"].as_array().unwrap().len(), 3);
    }
}
