//! `payload`, `payload_file` and `content_type`: the shape of the body, of an `[[event]]` wherever it
//! goes, or of an `[[endpoint]]` whatever it gets.

use std::sync::Arc;

use http::HeaderValue;

use crate::config::settings::CloudEventsMode;
use crate::config::settings::PayloadSettings;
use crate::config::template_field;
use crate::config::toml_file::naming::listed;
use crate::config::toml_file::naming::nearest;
use crate::config::toml_file::toml_field::FieldReader;
use crate::config::toml_file::toml_reader::TomlSection;
use crate::expression::template;
use crate::flow::unique_json;

const TEXT_TYPE: &str = "text/plain; charset=utf-8";

/// Reads the payload, where there is one.
pub(crate) fn read(section: &mut TomlSection<'_>) -> Option<PayloadSettings> {
    let written = section.field("payload");
    let file = section.field("payload_file");
    let content_type = section.read("content_type", content_type);
    let payload = match (written, file) {
        (Some(_), Some(file)) => file.refuse("cannot stand beside `payload`: remove one"),
        (Some(field), None) => of_field(&field, content_type.as_ref()),
        (None, Some(file)) => of_file(&file, content_type.as_ref()),
        (None, None) => None,
    };
    let takes_one =
        matches!(payload, Some(PayloadSettings::Template { .. } | PayloadSettings::Text { .. }));
    if section.has("content_type") && !takes_one {
        section.note("content_type", "belongs to a payload of your own: remove it, or write one");
    }
    payload
}

fn of_field(
    field: &FieldReader<'_>,
    content_type: Option<&HeaderValue>,
) -> Option<PayloadSettings> {
    if field.is_table() || field.is_list() {
        let root = Arc::new(template_field::of_field(field)?);
        return Some(PayloadSettings::Template { root, content_type: content_type.cloned() });
    }
    if !field.is_string() {
        return field.refuse("must be the name of a payload, a table or a text");
    }
    let text = field.string()?;
    if text.contains("{{") {
        let pieces = template::pieces(&text);
        let pieces = pieces.map_or_else(|message| field.refuse(message), Some)?;
        let default = || HeaderValue::from_static(TEXT_TYPE);
        let content_type = content_type.cloned().unwrap_or_else(default);
        return Some(PayloadSettings::Text { pieces: Arc::from(pieces), content_type });
    }
    built_in(field, &text)
}

fn built_in(field: &FieldReader<'_>, name: &str) -> Option<PayloadSettings> {
    let known = [
        ("standard", PayloadSettings::Standard),
        ("ocr-wallet", PayloadSettings::OcrWallet),
        ("cloudevents", PayloadSettings::CloudEvents(CloudEventsMode::Structured)),
        ("cloudevents-binary", PayloadSettings::CloudEvents(CloudEventsMode::Binary)),
        ("debezium", PayloadSettings::Debezium),
    ];
    if let Some((_, payload)) = known.iter().find(|(known, _)| *known == name) {
        return Some(payload.clone());
    }
    let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
    let fix = match nearest(name, names.iter().copied()) {
        Some(name) => format!("did you mean \"{name}\"?"),
        None => {
            format!("give one of {}, a table, or a text with {{{{ expressions }}}}", listed(&names))
        }
    };
    field.refuse(format!("{} is not known: {fix}", field.shown()))
}

/// A JSON document, from the directory of the configuration.
fn of_file(field: &FieldReader<'_>, content_type: Option<&HeaderValue>) -> Option<PayloadSettings> {
    let text = field.text_of_file()?;
    let document = match unique_json::parse(text.as_bytes()) {
        Ok(document) => document,
        Err(error) => return field.refuse(format!("{} {error}", field.shown())),
    };
    match template::of_json(&document) {
        Ok(root) => Some(PayloadSettings::Template {
            root: Arc::new(root),
            content_type: content_type.cloned(),
        }),
        Err(problems) => {
            for problem in problems {
                field.note(format!("{} at {problem}", field.shown()));
            }
            None
        }
    }
}

fn content_type(field: &FieldReader<'_>) -> Option<HeaderValue> {
    let text = field.string()?;
    let shape = text.split_once('/').is_some_and(|(kind, rest)| {
        !kind.is_empty() && !rest.is_empty() && !kind.contains(char::is_whitespace)
    });
    let value = HeaderValue::from_str(&text).ok().filter(|_| shape && text.is_ascii());
    value.or_else(|| {
        field.refuse(format!("{} is no media type: write it like \"text/plain\"", field.shown()))
    })
}
