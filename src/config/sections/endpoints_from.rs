//! `[endpoints_from]`: a table whose rows are endpoints.
//!
//! ```text
//! row (JSON) ─▶ the file's [endpoints_from.endpoint] with its {{ columns }} filled in ─▶ [endpoint]
//! ```
//!
//! A row is read by the same readers as an `[[endpoint]]`, so that a URL or a secret means the same.
//! The writer of a row is not the operator of this host: a value of a row is never more than a value,
//! names no variable and no file, and its address has to be public unless `private` says otherwise.
//!
//! A row that is no endpoint still takes the events of one, so that nobody takes them for delivered:
//! see [`EndpointsFrom::unusable`].

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde_json::Map;
use serde_json::Value as Json;

use crate::config::api_document;
use crate::config::endpoint_name;
use crate::config::identifiers;
use crate::config::sections::delivery_terms::EndpointDefaults;
use crate::config::sections::delivery_terms::EndpointTerms;
use crate::config::settings::AddressPolicy;
use crate::config::settings::Endpoint;
use crate::config::settings::EventRule;
use crate::config::settings::ValueMatch;
use crate::config::toml_file::problem_notes::ProblemNotes;
use crate::config::toml_file::toml_field::FieldReader;
use crate::config::toml_file::toml_reader::TomlSection;
use crate::expression::template;
use crate::flow::relation::TableName;

/// The event's own name in `url` and `headers`, whatever columns the endpoints' table has.
const EVENT_ID: &str = "event_id";

/// A table whose rows are endpoints.
#[derive(Clone)]
pub struct EndpointsFrom {
    /// May be a view.
    pub table: TableName,
    /// The tables whose changes can change its rows: itself, unless the file names others.
    pub watch: Vec<TableName>,
    /// An endpoint's keys; in strings stand the places of columns.
    template: Json,
    /// The column by which a row stays the same endpoint whatever its name.
    id: Option<String>,
    /// The column of an event's row, and the column with the values that an endpoint takes.
    matching: Option<(String, String)>,
    defaults: EndpointDefaults,
    rules: Vec<EventRule>,
}

/// The events that there are do not count: they are told apart by themselves.
impl PartialEq for EndpointsFrom {
    fn eq(&self, other: &Self) -> bool {
        let Self { table, watch, template, id, matching, defaults, rules: _ } = self;
        (table, watch, template) == (&other.table, &other.watch, &other.template)
            && (id, matching, defaults) == (&other.id, &other.matching, &other.defaults)
    }
}

impl fmt::Debug for EndpointsFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The rest holds secrets.
        f.debug_struct("EndpointsFrom").field("table", &self.table).finish_non_exhaustive()
    }
}

/// Reads the section; `terms` are those of `[webhook]`, `addresses` those that rows may name.
pub(crate) fn read(
    mut section: TomlSection<'_>,
    terms: &EndpointTerms,
    addresses: AddressPolicy,
    rules: Option<&[EventRule]>,
) -> Option<EndpointsFrom> {
    let missing = "is missing: name the table, such as \"public.webhooks\"";
    let table = section.require("table", missing, identifiers::table);
    let watch = section.read("watch", watch);
    let id = section.read("id", identifiers::column);
    let matching = section.read("match", matching);
    let defaults = EndpointDefaults::new(terms.clone(), addresses);
    let missing = "is missing: write the keys of an [[endpoint]], such as name = \"wh-{{ id }}\"";
    let template = section.require("endpoint", missing, |field| {
        let json = json(field)?;
        let problem = check(&json).or_else(|| try_keys(&json, &defaults, rules));
        problem.map_or(Some(json), |problem| field.refuse(problem))
    });
    section.finish();
    let table = table?;
    Some(EndpointsFrom {
        watch: watch.unwrap_or_else(|| vec![table.clone()]),
        table,
        template: template?,
        id,
        matching,
        defaults,
        rules: rules?.to_vec(),
    })
}

fn watch(field: &FieldReader<'_>) -> Option<Vec<TableName>> {
    let tables: Vec<TableName> =
        field.list()?.iter().map(identifiers::table).collect::<Option<_>>()?;
    if tables.is_empty() {
        return field.refuse("is empty: name the tables that the rows come from, or leave it out");
    }
    Some(tables)
}

/// `{ rule_id = "rule_id" }`: the event's column, and the endpoint's.
fn matching(field: &FieldReader<'_>) -> Option<(String, String)> {
    let entries = field.section()?.entries();
    match entries.as_slice() {
        [(name, value)] => Some(((*name).to_owned(), identifiers::column(value)?)),
        _ => field.refuse(
            "must name one column of the events and the column of the table that has its values, \
             such as { rule_id = \"rule_id\" }",
        ),
    }
}

fn json(field: &FieldReader<'_>) -> Option<Json> {
    if field.is_table() {
        let entries = field.section()?.entries_as_written();
        // Secrets of this host are read here, where the operator's own words stand.
        if matches!(entries.as_slice(), [("env" | "file", _)]) {
            return Some(Json::String(field.secret()?.reveal().clone()));
        }
        let member =
            |(name, field): &(&str, FieldReader<'_>)| Some(((*name).to_owned(), json(field)?));
        return Some(Json::Object(entries.iter().map(member).collect::<Option<_>>()?));
    }
    if field.is_list() {
        return Some(Json::Array(field.list()?.iter().map(json).collect::<Option<_>>()?));
    }
    match field.literal() {
        Some(Ok(text)) => serde_json::from_str(&text).ok(),
        Some(Err(message)) => field.refuse(message),
        // Variables are filled in here, so that none stands beside a value of a row later.
        None => field.string().map(Json::String),
    }
}

/// What is wrong with a template, if something is.
fn check(template: &Json) -> Option<String> {
    let Json::Object(members) = template else {
        return Some("must be a table with the keys of an [[endpoint]]".to_owned());
    };
    for name in ["name", "url"] {
        if !members.contains_key(name) {
            return Some(format!(
                "lacks `{name}`: write it with a column, such as {{{{ {name} }}}}"
            ));
        }
    }
    for (name, value) in members {
        if ["tls", "payload_file", "channel", "renamed_from"].contains(&name.as_str()) {
            return Some(format!("has `{name}`, which is left to an [[endpoint]]: leave it out"));
        }
        let mut own = BTreeSet::new();
        if let Err(problem) = collect_in(name, value, &mut own) {
            return Some(problem);
        }
        // What is evaluated, or goes around the judgement of addresses, must not come from a row.
        if ["when", "payload", "signing", "proxy"].contains(&name.as_str()) && !own.is_empty() {
            return Some(format!(
                "has a column in `{name}`: write `match` for events of certain values"
            ));
        }
    }
    None
}

/// What is wrong with the keys of a template, as far as that can be told before there is a row.
fn try_keys(
    template: &Json,
    defaults: &EndpointDefaults,
    rules: Option<&[EventRule]>,
) -> Option<String> {
    let mut problems = Vec::new();
    for (name, value) in template.as_object()? {
        let mut document = Map::new();
        document.insert("name".to_owned(), "row".into());
        document.insert("url".to_owned(), "https://row.invalid/".into());
        document.insert(name.clone(), value.clone());
        let notes = ProblemNotes::foreign("the template");
        api_document::read_members(&notes, &document, defaults, rules);
        let mut columns = BTreeSet::new();
        let is_open = collect_in(name, value, &mut columns).is_err() || !columns.is_empty();
        let unknown = format!("{name}: unknown key");
        problems
            .extend(notes.problems().into_iter().filter(|p| !is_open || p.starts_with(&unknown)));
    }
    (!problems.is_empty()).then(|| problems.join("; "))
}

/// Whether the values of a key are evaluated for each event, beside the columns that a row fills in.
fn is_evaluated(key: &str) -> bool {
    matches!(key, "url" | "headers")
}

/// The columns of the endpoints' table that the value of a key names.
fn collect_in(key: &str, value: &Json, columns: &mut BTreeSet<String>) -> Result<(), String> {
    match value {
        Json::String(text) => {
            for piece in pieces(text, is_evaluated(key))? {
                if let MappingPiece::Column(column) = piece {
                    columns.insert(column.to_owned());
                }
            }
            Ok(())
        }
        Json::Array(items) => items.iter().try_for_each(|item| collect_in(key, item, columns)),
        Json::Object(members) => {
            members.values().try_for_each(|value| collect_in(key, value, columns))
        }
        Json::Null | Json::Bool(_) | Json::Number(_) => Ok(()),
    }
}

enum MappingPiece<'a> {
    Text(&'a str),
    Column(&'a str),
}

/// Splits a text at its `{{ }}`. A name alone is a column of the endpoints' table. Where the text is evaluated,
/// whatever else is between the braces, and `event_id`, is left in it, as an expression over the event.
fn pieces(text: &str, is_evaluated: bool) -> Result<Vec<MappingPiece<'_>>, String> {
    let (mut pieces, mut rest) = (Vec::new(), text);
    while let Some((before, from)) = rest.split_once("{{") {
        let (inside, after) =
            template::split_at_close(from).ok_or("has `{{` without `}}`: close it".to_owned())?;
        let name = inside.trim();
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$');
        let is_column = !name.is_empty() && name.chars().all(plain);
        if is_evaluated && (!is_column || name == EVENT_ID) {
            let end = rest.len() - after.len();
            let (with_expression, _) = rest.split_at_checked(end).unwrap_or((rest, ""));
            template::pieces(with_expression)?;
            pieces.push(MappingPiece::Text(with_expression));
        } else if is_column {
            pieces.extend([MappingPiece::Text(before), MappingPiece::Column(name)]);
        } else {
            return Err(format!(
                "has {{{{ {name} }}}}: only columns stand here (an expression over the event in `url` and \
                 `headers`)"
            ));
        }
        rest = after;
    }
    pieces.push(MappingPiece::Text(rest));
    pieces.retain(|piece| !matches!(piece, MappingPiece::Text("")));
    Ok(pieces)
}

impl EndpointsFrom {
    /// Columns of the table that are read.
    pub fn columns(&self) -> BTreeSet<String> {
        let mut columns = BTreeSet::new();
        for (key, value) in self.template.as_object().into_iter().flatten() {
            let checked = collect_in(key, value, &mut columns);
            debug_assert!(checked.is_ok(), "the file was checked");
        }
        columns.extend(self.id.clone());
        columns.extend(self.matching.iter().map(|(_, column)| column.clone()));
        columns
    }

    /// The columns that the endpoints' names are made of.
    pub fn name_columns(&self) -> BTreeSet<String> {
        let mut columns = BTreeSet::new();
        let checked = self.template.get("name").map(|name| collect_in("name", name, &mut columns));
        debug_assert!(checked.is_none_or(|checked| checked.is_ok()), "the file was checked");
        columns
    }

    /// What tells a row from all others whatever its name; `None` where nothing does.
    pub fn row_id(&self, row: &Map<String, Json>) -> Option<Arc<str>> {
        let value = row.get(self.id.as_ref()?)?;
        let id = text(value);
        (!id.is_empty()).then(|| Arc::from(id))
    }

    /// Where what is kept of an endpoint waits while another one has its name: a name that no row has.
    pub fn aside(name: &str) -> Arc<str> {
        endpoint_name::aside(name)
    }

    /// Table and column of [`EndpointsFrom::row_id`], to tell its values from those of another one.
    pub fn row_source(&self) -> Option<String> {
        self.id.as_ref().map(|column| format!("{}.{column}", self.table.quoted()))
    }

    /// The column of the events' rows that endpoints are chosen by.
    pub fn event_column(&self) -> Option<&str> {
        self.matching.as_ref().map(|(column, _)| column.as_str())
    }

    /// The column of the table that has the values which an endpoint takes.
    pub fn values_column(&self) -> Option<&str> {
        self.matching.as_ref().map(|(_, column)| column.as_str())
    }

    /// The endpoint of a row, which has all of [`EndpointsFrom::columns`].
    ///
    /// # Errors
    /// The name as far as there is one, and everything that is wrong, without secrets.
    pub fn endpoint(&self, row: &Map<String, Json>) -> Result<Endpoint, (String, String)> {
        let document = self.filled(row);
        let name = document.get("name").and_then(Json::as_str).unwrap_or("(no name)").to_owned();
        if let Some(problem) = self.evaluated_from(row) {
            return Err((name, problem));
        }
        match self.read(&document) {
            Ok(endpoint) => Ok(Endpoint { only: self.only(row), ..endpoint }),
            Err(problems) => Err((name, problems.join("; "))),
        }
    }

    /// What stands for a row that is no endpoint, or not this one: it takes what the row's would take,
    /// and nothing can be sent to it. `taken`: its name is another one's.
    ///
    /// `None` only if no row makes an endpoint.
    pub fn unusable(&self, row: &Map<String, Json>, is_taken: bool, why: &str) -> Option<Endpoint> {
        let filled = self.filled(row);
        // What does not depend on the row was read when the configuration was, and is sound.
        let mut document = self.template.as_object().cloned().unwrap_or_default();
        let is_fixed = |name: &str, value: &Json| {
            let mut columns = BTreeSet::new();
            collect_in(name, value, &mut columns).is_ok() && columns.is_empty()
        };
        document.retain(|name, value| is_fixed(name, value) && name != "url");
        document.insert("url".to_owned(), "http://unusable.invalid/".into());
        // Of the rest, what says whether it takes an event at all, if it can be understood.
        for name in ["name", "enabled", "events"] {
            let Some(value) = filled.get(name) else { continue };
            let mut with = document.clone();
            with.entry("name").or_insert_with(|| "row".into());
            with.insert(name.to_owned(), value.clone());
            if self.read(&with).is_ok() {
                document.insert(name.to_owned(), value.clone());
            }
        }
        let name = filled.get("name").map(text).unwrap_or_default();
        if is_taken {
            let whole = Json::Object(row.clone()).to_string();
            document.insert("name".to_owned(), endpoint_name::hashed(&name, &whole).into());
        }
        let sound = || document.get("name").and_then(Json::as_str).map(str::to_owned);
        let name = sound().unwrap_or_else(|| endpoint_name::hashed(&name, &name));
        document.insert("name".to_owned(), name.as_str().into());
        let endpoint = self.read(&document).ok()?;
        Some(Endpoint { only: self.only(row), ..endpoint }.because_unusable(why))
    }

    /// What is wrong with a row that brings expressions of its own: the writer of a row chooses where events
    /// go, not what of them.
    fn evaluated_from(&self, row: &Map<String, Json>) -> Option<String> {
        let members = self.template.as_object()?.iter();
        members.filter(|(key, _)| is_evaluated(key)).find_map(|(key, value)| {
            let mut columns = BTreeSet::new();
            collect_in(key, value, &mut columns).ok()?;
            let holds = |column: &&String| {
                row.get(*column).is_some_and(|value| value.to_string().contains("{{"))
            };
            let column = columns.iter().find(holds)?;
            Some(format!(
                "{key}: column {column} of the row holds {{{{, and expressions are written in the configuration \
                 file only: take it out of the row"
            ))
        })
    }

    /// The template with the row's values.
    fn filled(&self, row: &Map<String, Json>) -> Map<String, Json> {
        let members = self.template.as_object().into_iter().flatten();
        let mut document: Map<String, Json> =
            members.map(|(key, value)| (key.clone(), fill(key, value, row))).collect();
        // An id is a name, of whatever type it is.
        if let Some(name) = document.get_mut("name").filter(|name| name.is_number()) {
            *name = Json::String(text(name));
        }
        // One column is meant to be a name; what is put together of several need not be one.
        if self.name_columns().len() > 1
            && let Some(Json::String(name)) = document.get_mut("name")
            && !endpoint_name::is_sound(name)
        {
            *name = endpoint_name::hashed(name, name);
        }
        document
    }

    fn read(&self, document: &Map<String, Json>) -> Result<Endpoint, Vec<String>> {
        let notes = ProblemNotes::foreign("the row");
        let read = api_document::read_members(&notes, document, &self.defaults, Some(&self.rules));
        let problems = notes.problems();
        read.filter(|_| problems.is_empty()).ok_or(problems)
    }

    /// Which events are for the endpoint of the row.
    fn only(&self, row: &Map<String, Json>) -> Option<ValueMatch> {
        let (event, column) = self.matching.as_ref()?;
        let values = values(row.get(column).unwrap_or(&Json::Null));
        Some(ValueMatch { column: event.clone(), values })
    }
}

/// A value as a text.
fn text(json: &Json) -> String {
    match json {
        Json::Null => String::new(),
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Values as PostgreSQL writes them: one, or those of an array.
fn values(json: &Json) -> Vec<String> {
    match json {
        Json::Null => Vec::new(),
        Json::Array(items) => items.iter().flat_map(values).collect(),
        Json::Bool(yes) => vec![if *yes { "t" } else { "f" }.to_owned()],
        Json::String(text) => vec![text.clone()],
        other => vec![other.to_string()],
    }
}

/// The value of a key, with the row's values.
fn fill(key: &str, template: &Json, row: &Map<String, Json>) -> Json {
    let value = |column: &str| row.get(column).cloned().unwrap_or(Json::Null);
    match template {
        Json::String(text) => {
            match pieces(text, is_evaluated(key)).unwrap_or_default().as_slice() {
                [MappingPiece::Column(column)] => value(column),
                pieces => Json::String(
                    pieces
                        .iter()
                        .map(|piece| match piece {
                            MappingPiece::Text(text) => (*text).to_owned(),
                            MappingPiece::Column(column) => self::text(&value(column)),
                        })
                        .collect(),
                ),
            }
        }
        Json::Array(items) => Json::Array(items.iter().map(|item| fill(key, item, row)).collect()),
        Json::Object(members) => {
            let member = |(name, value): (&String, &Json)| (name.clone(), fill(key, value, row));
            Json::Object(members.iter().map(member).collect())
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests;
