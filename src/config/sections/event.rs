//! `[[event]]`: which changes of a table become an event of which type.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use crate::config::identifiers::column;
use crate::config::identifiers::table;
use crate::config::sections::ocr_wallet;
use crate::config::sections::payload;
use crate::config::sections::webhook::EXPIRIES;
use crate::config::sections::write_back;
use crate::config::settings::DedupeSettings;
use crate::config::settings::EventFilter;
use crate::config::settings::EventRule;
use crate::config::settings::ExpiryRule;
use crate::config::settings::JsonForm;
use crate::config::settings::Operations;
use crate::config::settings::PayloadSettings;
use crate::config::settings::SourcePlaces;
use crate::config::settings::TraceSource;
use crate::config::settings::ocr_wallet as preset;
use crate::config::toml_file::toml_field::FieldReader;
use crate::config::toml_file::toml_reader::TomlSection;
use crate::expression::Expression;

/// Keys that say what the table has to have.
const PLACED: [&str; 8] =
    ["table", "when", "payload", "order_by", "age_column", "write_back", "dedupe", "traceparent"];

/// What others call the same things.
const OTHER_NAMES: [(&str, &str); 11] = [
    ("name", "type"),
    ("event", "type"),
    ("event_type", "type"),
    ("where", "when"),
    ("filter", "when"),
    ("condition", "when"),
    ("operations", "on"),
    ("ops", "on"),
    ("actions", "on"),
    ("body", "payload"),
    ("template", "payload"),
];

const TYPE_CHARS_MAX: usize = 128;

/// How long a value can be remembered.
const WINDOWS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(7 * 86_400);

/// Reads one rule. `data_expiry` is what `[webhook]` says for events that say nothing, `before` the
/// rules that stand before it in the file.
pub(crate) fn read(
    mut section: TomlSection<'_>,
    data_expiry: Option<Duration>,
    before: &[EventRule],
) -> Option<EventRule> {
    let missing = "is missing: name the event, such as \"order.created\"";
    let event_type = section.require("type", missing, event_type);
    let missing = "is missing: name the table, such as \"public.orders\"";
    let table = section.require("table", missing, table);
    let on = section.read("on", operations).unwrap_or(Operations {
        insert: true,
        update: true,
        delete: true,
        ..Operations::default()
    });
    let backfill = section.read("backfill", FieldReader::boolean).unwrap_or(false);
    let when = section.read("when", when).map(EventFilter::When);
    let payload = payload::read(&mut section).unwrap_or(PayloadSettings::Standard);
    let forms = [("stored", JsonForm::Stored), ("javascript", JsonForm::Javascript)];
    let json = section.read("json", |field| field.one_of(&forms)).unwrap_or_default();
    let write_back = section.read("write_back", write_back::read);
    let dedupe = section.read("dedupe", dedupe);
    let trace = TraceSource { column: section.read("traceparent", column), is_wanted: false };
    let expiry = expiry(&mut section, &payload, data_expiry);
    let order_by = section.read("order_by", columns).unwrap_or_default();
    // `ocr-wallet`'s shape is that of a recognised row: without a wallet code there is none.
    let filter = match (payload == PayloadSettings::OcrWallet, when) {
        (true, None) => Some(ocr_wallet::recognised()),
        (true, Some(when)) => {
            Some(EventFilter::Both(Box::new(ocr_wallet::recognised()), Box::new(when)))
        }
        (false, when) => when,
    };
    let rule = event_type.zip(table).map(|(event_type, table)| EventRule {
        event_type,
        table,
        on,
        backfill,
        filter,
        expiry,
        order_by,
        payload,
        json,
        write_back,
        dedupe,
        trace,
        places: SourcePlaces::new(section.places(&PLACED)),
    });
    if let Some(rule) = &rule {
        check(&section, rule, before);
    }
    section.finish_knowing(&OTHER_NAMES);
    rule
}

/// An event's id is made of its change and its type: one change must not raise a type twice.
fn check(section: &TomlSection<'_>, rule: &EventRule, before: &[EventRule]) {
    let overlap = |a: Operations, b: Operations| {
        (a.insert && b.insert)
            || (a.update && b.update)
            || (a.delete && b.delete)
            || (a.truncate && b.truncate)
            || (a.read && b.read)
            || (a.schema && b.schema)
    };
    let twice = before.iter().any(|other| {
        other.event_type == rule.event_type
            && other.table == rule.table
            && overlap(other.on, rule.on)
    });
    if rule.on.schema && rule.dedupe.is_some() {
        let message = "does not go with on = \"schema\": give that an [[event]] of its own";
        section.note("dedupe", message);
    }
    if twice {
        section.note("type", "is raised by another [[event]] for the same changes: rename one");
    }
    // A row that is read asks for a type, and gets all that is raised under it.
    let is_sibling =
        |other: &&EventRule| (&other.event_type, &other.table) == (&rule.event_type, &rule.table);
    if before.iter().filter(is_sibling).any(|other| other.backfill || rule.backfill) {
        let message = "asks for rows of a type that two [[event]] of this table raise: rename one";
        section.note("backfill", message);
    }
}

fn event_type(field: &FieldReader<'_>) -> Option<Arc<str>> {
    let name = field.string()?;
    let allowed =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b':' | b'/');
    if !name.is_empty() && name.len() <= TYPE_CHARS_MAX && name.bytes().all(allowed) {
        return Some(Arc::from(name));
    }
    field.refuse(format!(
        "{} is not an event type: give 1 to {TYPE_CHARS_MAX} letters, digits and . _ - : /",
        field.shown()
    ))
}

fn operations(field: &FieldReader<'_>) -> Option<Operations> {
    let mut on = Operations::default();
    let items = field.list()?;
    if items.is_empty() {
        return field
            .refuse("is empty: list some of insert, update, delete, truncate, read, schema");
    }
    for item in items {
        let words = [
            ("insert", 0),
            ("update", 1),
            ("delete", 2),
            ("truncate", 3),
            ("read", 4),
            ("schema", 5),
        ];
        match item.one_of(&words) {
            Some(0) => on.insert = true,
            Some(1) => on.update = true,
            Some(2) => on.delete = true,
            Some(3) => on.truncate = true,
            Some(4) => on.read = true,
            Some(_) => on.schema = true,
            None => {}
        }
    }
    Some(on)
}

/// Reads a filter: an expression.
pub(crate) fn when(field: &FieldReader<'_>) -> Option<Expression> {
    let text = field.string()?;
    Expression::parse(&text).map_or_else(|message| field.refuse(message), Some)
}

fn expiry(
    section: &mut TomlSection<'_>,
    payload: &PayloadSettings,
    data_expiry: Option<Duration>,
) -> Option<ExpiryRule> {
    let own = section.read("expiry", |field| field.duration(&EXPIRIES));
    let column = section.read("age_column", column);
    let max_age = own.or(data_expiry);
    if max_age.is_none() && column.is_some() && !section.has("expiry") {
        section.note("age_column", "has no use without `expiry`: give the greatest age");
    }
    let column = column.or_else(|| {
        (*payload == PayloadSettings::OcrWallet).then(|| preset::AGE_COLUMN.to_owned())
    });
    Some(ExpiryRule { column, max_age: max_age? })
}

fn dedupe(field: &FieldReader<'_>) -> Option<DedupeSettings> {
    let mut section = field.section()?;
    let missing = "is missing: list the columns that tell a repeat, such as [\"msg_id\"]";
    let by = section.require("by", missing, |field| match columns(field)? {
        none if none.is_empty() => field.refuse("is empty: list the columns that tell a repeat"),
        columns => Some(columns),
    });
    let missing = "is missing: give the time within which a repeat is not pushed, such as \"10m\"";
    let window = section.require("window", missing, |field| field.duration(&WINDOWS));
    section.finish();
    Some(DedupeSettings { by: by?, window: window? })
}

fn columns(field: &FieldReader<'_>) -> Option<Vec<String>> {
    Some(field.list()?.iter().filter_map(column).collect())
}
