//! `wechat-messages`'s documents, turned into endpoints and back.

use std::time::Duration;

use serde_json::Map;
use serde_json::Value as Json;
use serde_json::json;

use crate::api::requests::endpoint_calls::AdminRefusal;
use crate::api::requests::webhook_fields::TYPES_MAX;
use crate::api::requests::webhook_fields::WebhookFields;
use crate::config::api_document::MASK;
use crate::config::sections::run_time_endpoints::WebhookApi;
use crate::config::settings::Endpoint;
use crate::config::settings::RetryDelays;
use crate::endpoints::admin::record::EndpointRecord;

const FIELDS: [&str; 8] = [
    "Name",
    "URL",
    "Secret",
    "Enabled",
    "Timeout",
    "RetryCount",
    "MessageTypes",
    "IncludeSelfMessage",
];

const TYPE_CHARS_MAX: usize = 16;

/// What an update says on top of what there was.
pub(crate) fn merged(before: &Json, update: &Json) -> Json {
    let mut merged = before.clone();
    if let (Json::Object(merged), Json::Object(update)) = (&mut merged, update) {
        let told = update.iter().filter(|(_, value)| !value.is_null());
        merged.extend(told.map(|(name, value)| (name.clone(), value.clone())));
    }
    merged
}

/// The name of an endpoint that was given none: the same for the same URL.
pub(crate) fn name_of(url: &str) -> String {
    format!("webhook-{:012x}", xxhash_rust::xxh3::xxh3_64(url.as_bytes()) >> 16)
}

/// Turns a document of the contract into an endpoint's.
pub(crate) fn record(document: &Json, api: &WebhookApi) -> Result<EndpointRecord, AdminRefusal> {
    let Json::Object(fields) = document else {
        return Err(AdminRefusal::new(400, "the body must be an object: {\"URL\": ..., ...}"));
    };
    let mut errors = Vec::new();
    for name in fields.keys().filter(|name| !FIELDS.contains(&name.as_str())) {
        let known = FIELDS.join(", ");
        errors.push((name.clone(), format!("unknown field: known are {known}")));
    }
    let mut endpoint = Map::new();
    let url = text(fields, "URL", &mut errors);
    if url.is_none() {
        errors.push(("URL".to_owned(), "is missing: give an http(s) address".to_owned()));
    }
    let url = url.unwrap_or_default();
    let name = text(fields, "Name", &mut errors).unwrap_or_else(|| name_of(&url));
    endpoint.insert("name".to_owned(), json!(name));
    endpoint.insert("url".to_owned(), json!(url));
    if let Some(secret) = text(fields, "Secret", &mut errors).filter(|secret| !secret.is_empty()) {
        endpoint.insert("secret".to_owned(), json!(secret));
    }
    let enabled = boolean(fields, "Enabled", true, &mut errors);
    endpoint.insert("enabled".to_owned(), json!(enabled));
    if let Some(seconds) = whole(fields, "Timeout", &mut errors) {
        endpoint.insert("timeout".to_owned(), json!(format!("{seconds}s")));
    }
    if let Some(count) = whole(fields, "RetryCount", &mut errors) {
        endpoint.insert("retry".to_owned(), json!({ "max": count }));
    }
    let types = types(fields, &mut errors);
    let include_own = boolean(fields, "IncludeSelfMessage", false, &mut errors);
    if !api.events.is_empty() {
        endpoint.insert("events".to_owned(), json!(api.events));
    }
    if let Some(when) = filter(api, &types, include_own) {
        endpoint.insert("when".to_owned(), json!(when));
    }
    if !errors.is_empty() {
        return Err(AdminRefusal {
            errors,
            ..AdminRefusal::new(422, "the webhook cannot be served like this: see errors")
        });
    }
    let message = json!({ "MessageTypes": types, "IncludeSelfMessage": include_own });
    Ok(EndpointRecord::new(Json::Object(endpoint), Some(message)))
}

/// An endpoint as the contract shows it; `None` for one that was made in another way.
pub(crate) fn shown(record: &EndpointRecord, endpoint: &Endpoint) -> Option<WebhookFields> {
    let message = record.message.as_ref()?;
    let masked = record.masked();
    let has_secret = record.document.get("secret").is_some();
    let retries = match &endpoint.retry.delays {
        RetryDelays::Exponential { max, .. } => u64::from(*max),
        RetryDelays::List(delays) => delays.len() as u64,
    };
    let of = |name: &str| message.get(name).cloned().unwrap_or_default();
    Some(WebhookFields {
        name: endpoint.name.to_string(),
        url: masked.get("url").and_then(Json::as_str).map(str::to_owned),
        secret: if has_secret { MASK } else { "" },
        enabled: endpoint.enabled,
        timeout: endpoint.timeout.max(Duration::from_secs(1)).as_secs(),
        retry_count: retries,
        message_types: of("MessageTypes"),
        include_own: of("IncludeSelfMessage"),
    })
}

fn filter(api: &WebhookApi, types: &[String], include_own: bool) -> Option<String> {
    let listed = types.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
    let types = (!types.is_empty()).then(|| format!("({}) in [{listed}]", api.message_type));
    let own = (!include_own).then(|| format!("!({})", api.own_message));
    let parts: Vec<String> = types.into_iter().chain(own).collect();
    (!parts.is_empty()).then(|| parts.join(" && "))
}

type FieldErrors = Vec<(String, String)>;

fn text(fields: &Map<String, Json>, name: &str, errors: &mut FieldErrors) -> Option<String> {
    match fields.get(name)? {
        Json::Null => None,
        Json::String(text) => Some(text.clone()),
        _ => {
            errors.push((name.to_owned(), "must be a string".to_owned()));
            None
        }
    }
}

fn boolean(
    fields: &Map<String, Json>,
    name: &str,
    default: bool,
    errors: &mut FieldErrors,
) -> bool {
    match fields.get(name) {
        None | Some(Json::Null) => default,
        Some(Json::Bool(value)) => *value,
        Some(_) => {
            errors.push((name.to_owned(), "must be true or false".to_owned()));
            default
        }
    }
}

fn whole(fields: &Map<String, Json>, name: &str, errors: &mut FieldErrors) -> Option<u64> {
    match fields.get(name)? {
        Json::Null => None,
        value => value.as_u64().or_else(|| {
            errors.push((name.to_owned(), "must be a whole number".to_owned()));
            None
        }),
    }
}

/// Numbers are as good as the strings that the contract has.
fn types(fields: &Map<String, Json>, errors: &mut FieldErrors) -> Vec<String> {
    let items = match fields.get("MessageTypes") {
        None | Some(Json::Null) => return Vec::new(),
        Some(Json::Array(items)) if items.len() <= TYPES_MAX => items,
        Some(_) => {
            let message =
                format!("must be a list of up to {TYPES_MAX} types, such as [\"1\", \"3\"]");
            errors.push(("MessageTypes".to_owned(), message));
            return Vec::new();
        }
    };
    let mut types = Vec::new();
    for item in items {
        let name = match item {
            Json::String(name) => name.clone(),
            Json::Number(number) => number.to_string(),
            _ => String::new(),
        };
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if (1..=TYPE_CHARS_MAX).contains(&name.len()) && name.bytes().all(allowed) {
            types.push(name);
        } else {
            let message = format!("holds {item}, which is no message type: write it like \"1\"");
            errors.push(("MessageTypes".to_owned(), message));
        }
    }
    types
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn api() -> WebhookApi {
        let text =
            "[postgres]\nurl = \"postgres://u@h/d\"\n[webhook_api]\nevents = [\"message\"]\n";
        config::parse(text, "walhook.toml", &|_| None).unwrap().run_time.webhook_api.unwrap()
    }

    #[test]
    fn the_filter_says_what_the_fields_say() {
        let cases = [
            (json!({}), Some("!(is_self_msg)")),
            (json!({"IncludeSelfMessage": true}), None),
            (
                json!({"MessageTypes": ["1", 3]}),
                Some("(string(msg_type)) in [\"1\", \"3\"] && !(is_self_msg)"),
            ),
            (
                json!({"MessageTypes": ["49"], "IncludeSelfMessage": true}),
                Some("(string(msg_type)) in [\"49\"]"),
            ),
        ];
        for (fields, expected) in cases {
            let document = merged(&json!({ "URL": "https://h/" }), &fields);
            let record = record(&document, &api()).unwrap_or_else(|r| panic!("{r:?}"));
            let when = record.document.get("when").and_then(Json::as_str);
            assert_eq!(when, expected, "case: {fields}");
        }
    }

    #[test]
    fn bad_fields_are_told_all_at_once() {
        let document = json!({
            "Timeout": "5", "RetryCount": -1, "MessageTypes": ["1\" || true"], "Url": "x",
            "Enabled": "yes",
        });
        let refused = record(&document, &api()).err().unwrap();
        let keys: Vec<&str> = refused.errors.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["Url", "URL", "Enabled", "Timeout", "RetryCount", "MessageTypes"]);
    }
}
