//! Path, query and headers that differ from event to event. Pure.
//!
//! ```text
//! template (config) + values (event) ─▶ [complete] ─ path and query, headers ─▶ the request
//! ```
//!
//! In a URL whatever is no letter, digit, `-`, `.`, `_` or `~` is percent-encoded, so that a value is one
//! segment of the path, or one value of the query, and never more; scheme, host and port are fixed. In a
//! header a control character is refused, so that a value never is a line of its own. What cannot stand
//! where it is wanted makes the delivery a dead letter with the reason: sent elsewhere, it would be worse.

use std::sync::Arc;

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Uri;
use http::uri::PathAndQuery;
use percent_encoding::AsciiSet;
use percent_encoding::NON_ALPHANUMERIC;
use percent_encoding::utf8_percent_encode;

use crate::config::settings::HeaderTemplate;
use crate::config::settings::RequestTemplate;
use crate::config::settings::TargetPiece;
use crate::expression::Expression;
use crate::expression::named_columns::BuiltInName;
use crate::expression::named_columns::ColumnReference;
use crate::expression::named_columns::ExpressionForm;
use crate::expression::template::TemplatePiece;
use crate::flow::body::RequestValue;
use crate::flow::event::Event;
use crate::flow::time::Timestamp;
use crate::flow::time::whole_millis;
use crate::flow::verdict::AttemptFailure;
use crate::flow::verdict::FailureClass;

/// All but the unreserved characters of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Longer ones are refused by most servers.
const TARGET_BYTES_MAX: usize = 8 * 1024;
const HEADER_BYTES_MAX: usize = 8 * 1024;

/// What stands for the operator's own words in a header that is shown: they can be a secret.
const MASK: &str = "[secret]";

/// Marks a value: no URL holds it.
const VALUE_MARK: char = '\u{1}';

/// The places of one endpoint's requests.
pub(crate) struct TemplateFiller {
    template: RequestTemplate,
    /// The target of requests as it is without values: what is no path in it stays.
    target: Uri,
}

/// What was evaluated for one event.
#[derive(Debug, Default)]
pub(crate) struct FilledRequest {
    /// `None`: it is the same for every event.
    pub(crate) target: Option<Uri>,
    pub(crate) headers: Vec<FilledHeader>,
}

#[derive(Debug)]
pub(crate) struct FilledHeader {
    name: HeaderName,
    /// `None`: its value is null, and it is left out.
    value: Option<HeaderValue>,
    /// As people see it.
    shown: Option<HeaderValue>,
}

impl TemplateFiller {
    /// `None` if every request is the same.
    pub(crate) fn new(template: &RequestTemplate, target: &Uri) -> Option<Self> {
        let filler = || Self { template: template.clone(), target: target.clone() };
        (!template.is_empty()).then(filler)
    }

    /// Everything for a request with these events: one, unless all requests are alike at one moment.
    ///
    /// # Errors
    /// What cannot stand in a request; it never will.
    pub(crate) fn fill(
        &self,
        events: &[Arc<Event>],
        now: Timestamp,
    ) -> Result<FilledRequest, AttemptFailure> {
        let event = match (events, self.template.varying()) {
            ([event], _) | ([event, ..], None) => event,
            ([], _) => return Ok(FilledRequest::default()),
            // A batch from before the endpoint asked for it.
            (_, Some((key, expression))) => {
                let braced = braced(expression);
                return Err(refused(format!(
                    "several events cannot share a request: `{key}` has {braced}, which each has its own value of"
                )));
            }
        };
        let target = match self.template.target.as_slice() {
            [] => None,
            pieces => Some(self.target_of(pieces, event, now)?),
        };
        let headers = self.template.headers.iter().map(|header| filled(header, event, now));
        Ok(FilledRequest { target, headers: headers.collect::<Result<_, _>>()? })
    }

    fn target_of(
        &self,
        pieces: &[TargetPiece],
        event: &Event,
        now: Timestamp,
    ) -> Result<Uri, AttemptFailure> {
        let (mut text, mut marked) = (String::new(), String::new());
        for piece in pieces {
            let (expression, is_path) = match piece {
                TargetPiece::Literal(literal) => {
                    text.push_str(literal);
                    marked.push_str(literal);
                    continue;
                }
                TargetPiece::InPath(expression) => (expression, true),
                TargetPiece::InQuery(expression) => (expression, false),
            };
            let value = value_of(expression, event, now).map_err(|why| {
                refused(format!("its URL needs {}, which {why}", braced(expression)))
            })?;
            marked.push(VALUE_MARK);
            match value {
                Some(value) => text.extend(utf8_percent_encode(&value, RESERVED)),
                None if is_path => {
                    let braced = braced(expression);
                    return Err(refused(format!(
                        "the path of its URL needs {braced}, which is null: give it a value, such as \
                         with a conditional, or keep such rows away with `when`"
                    )));
                }
                None => {}
            }
        }
        let segments = |text: &'_ str| -> Vec<String> {
            let path = text.split('?').next().unwrap_or_default();
            path.split('/').map(str::to_owned).collect()
        };
        // No value holds a slash or a question mark any more, so that the two have the same segments.
        let made = segments(&text).into_iter().zip(segments(&marked));
        let mut made = made.filter(|(_, marked)| marked.contains(VALUE_MARK));
        if let Some((segment, _)) = made.find(|(segment, _)| is_none(segment)) {
            let what = if segment.is_empty() { "an empty segment" } else { "a segment of dots" };
            return Err(refused(format!(
                "the path of its URL would have {what} by the values of this event, and lead elsewhere: \
                 give them other values, or keep such rows away with `when`"
            )));
        }
        if text.len() > TARGET_BYTES_MAX {
            let kib = TARGET_BYTES_MAX >> 10;
            return Err(refused(format!("path and query of its URL are longer than {kib} KiB")));
        }
        let unusable = || refused(String::from("its URL cannot stand in a request"));
        let path: PathAndQuery = text.parse().map_err(|_| unusable())?;
        let mut parts = self.target.clone().into_parts();
        parts.path_and_query = Some(path);
        Uri::from_parts(parts).map_err(|_| unusable())
    }
}

impl FilledRequest {
    /// Puts the values where they belong, and gives what is shown of the headers.
    pub(crate) fn put(&self, headers: &mut HeaderMap) {
        self.each(headers, |header| header.value.as_ref());
    }

    /// As [`FilledRequest::put`], for headers that people see.
    pub(crate) fn put_shown(&self, headers: &mut HeaderMap) {
        self.each(headers, |header| header.shown.as_ref());
    }

    fn each<'a>(
        &'a self,
        headers: &mut HeaderMap,
        value: impl Fn(&'a FilledHeader) -> Option<&'a HeaderValue>,
    ) {
        for header in &self.headers {
            match value(header) {
                Some(value) => drop(headers.insert(&header.name, value.clone())),
                None => drop(headers.remove(&header.name)),
            }
        }
    }
}

/// Whether a segment is none that leads anywhere: `..` and the like lead elsewhere.
fn is_none(segment: &str) -> bool {
    let decoded = segment.to_ascii_lowercase().replace("%2e", ".");
    matches!(decoded.as_str(), "" | "." | "..")
}

fn filled(
    header: &HeaderTemplate,
    event: &Event,
    now: Timestamp,
) -> Result<FilledHeader, AttemptFailure> {
    let HeaderTemplate { name, pieces } = header;
    let (mut text, mut shown) = (String::new(), String::new());
    let mut is_null = pieces.len() == 1;
    for piece in pieces.iter() {
        let expression = match piece {
            TemplatePiece::Literal(literal) => {
                text.push_str(literal);
                let is_word = literal.contains(|c: char| c.is_alphanumeric());
                shown.push_str(if is_word { MASK } else { literal });
                continue;
            }
            TemplatePiece::Value(expression) => expression,
        };
        let braced = || braced(expression);
        let value = value_of(expression, event, now)
            .map_err(|why| refused(format!("header {name} needs {}, which {why}", braced())))?;
        if value.as_ref().is_some_and(|value| value.contains(|c: char| c.is_ascii_control())) {
            return Err(refused(format!(
                "header {name} needs {}, whose value has a line break or another control character, which no \
                 header may carry: leave it out in the expression, such as with replace()",
                braced()
            )));
        }
        is_null &= value.is_none();
        let value = value.unwrap_or_default();
        text.push_str(&value);
        shown.push_str(&value);
    }
    if is_null {
        return Ok(FilledHeader { name: name.clone(), value: None, shown: None });
    }
    if text.len() > HEADER_BYTES_MAX {
        let kib = HEADER_BYTES_MAX >> 10;
        return Err(refused(format!("header {name} is longer than {kib} KiB")));
    }
    let as_value = |text: String| {
        let bytes = bytes::Bytes::from(text);
        HeaderValue::from_maybe_shared(bytes)
            .map_err(|_| refused(format!("header {name} cannot carry the value of this event")))
    };
    let (mut value, shown) = (as_value(text)?, as_value(shown)?);
    // What is the same in each request of HTTP/2 is kept by its compression: this is not.
    value.set_sensitive(true);
    Ok(FilledHeader { name: name.clone(), value: Some(value), shown: Some(shown) })
}

/// The text of an expression; `None` if it is null.
///
/// # Errors
/// Why it has none, as the end of a sentence.
fn value_of(
    expression: &Expression,
    event: &Event,
    now: Timestamp,
) -> Result<Option<String>, String> {
    match event.body.value(expression.source()) {
        Some(RequestValue::Text(text)) => return Ok(Some(text.to_string())),
        Some(RequestValue::Null) => return Ok(None),
        Some(RequestValue::Failed(why)) => return Err(why.to_string()),
        None => {}
    }
    let known = expression.plain().and_then(|(reference, form)| match reference {
        ColumnReference::BuiltIn(name) => built_in(name, form, event, now),
        // An event from before the endpoint asked for it: its key is known all the same.
        ColumnReference::Column(name) => {
            event.facts.find(name).filter(|key| is_id(key)).map(str::to_owned)
        }
        ColumnReference::Old(_) => None,
    });
    known.map(Some).ok_or_else(|| {
        String::from("was not evaluated for it: the event is older than that setting, or made up")
    })
}

/// Whether a fact is the whole value, as it stands in JSON.
fn is_id(fact: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=64).contains(&fact.len()) && fact.bytes().all(is_part) && !matches!(fact, "t" | "f")
}

/// A name that needs no row, as bodies have it.
fn built_in(
    name: BuiltInName,
    form: ExpressionForm,
    event: &Event,
    now: Timestamp,
) -> Option<String> {
    let moment = |at: Timestamp| match form {
        ExpressionForm::Int => at.seconds().to_string(),
        ExpressionForm::AsIs | ExpressionForm::String => at.iso_millis(),
    };
    match name {
        BuiltInName::EventId => Some(event.id.to_string()),
        BuiltInName::Event => Some(event.event_type.to_string()),
        BuiltInName::Table => Some(event.table.to_string()),
        BuiltInName::Committed => Some(moment(event.committed)),
        BuiltInName::Now => Some(moment(now)),
        BuiltInName::Age => {
            let born = event.expiry.map_or(event.committed, |expiry| expiry.born);
            let millis = whole_millis(now.since(born));
            Some(format!("{}.{:03}", millis / 1000, millis % 1000))
        }
        BuiltInName::Row
        | BuiltInName::Old
        | BuiltInName::Changes
        | BuiltInName::Op
        | BuiltInName::Metadata => None,
    }
}

fn braced(expression: &Expression) -> String {
    format!("{{{{ {} }}}}", expression.source())
}

fn refused(detail: String) -> AttemptFailure {
    AttemptFailure { class: FailureClass::Request, detail }
}

#[cfg(test)]
mod tests;
