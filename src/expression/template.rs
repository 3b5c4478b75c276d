//! Templates: the shape of a body, written as a TOML table, a JSON document or a text, with
//! `{{ expressions }}` in its strings.
//!
//! ```text
//! payload = { ... } ─▶ config ─ TemplateNode ─▶ event, which compiles it against a relation
//! ```
//!
//! A string that is exactly one `{{ }}` keeps the expression's type; any other is text with the
//! values inserted. What is not a string stands in the body as it is written. A key that ends with
//! `?` is left out when its value is null.

use crate::expression::Expression;
use crate::expression::named_columns::BuiltInName;
use crate::expression::named_columns::ColumnReference;
use crate::expression::named_columns::ExpressionForm;
use crate::expression::named_columns::NamedColumns;

/// Deeper than any body that a receiver reads; keeps the recursion here and in `event` bounded.
pub(crate) const DEPTH_MAX: usize = 32;

/// One place of a body.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum TemplateNode {
    /// JSON text that is the same in every body.
    Literal(String),
    Object(Vec<TemplateMember>),
    List(Vec<TemplateNode>),
    /// The value of an expression, with its type.
    Value(Expression),
    /// A JSON string with values inserted.
    Text(Vec<TemplatePiece>),
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TemplateMember {
    pub name: String,
    /// Left out when the value, which is a [`TemplateNode::Value`], is null.
    pub optional: bool,
    pub value: TemplateNode,
}

/// A part of a text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum TemplatePiece {
    Literal(String),
    Value(Expression),
}

impl TemplateNode {
    /// What all expressions of a template name.
    pub fn names(&self) -> NamedColumns {
        let mut names = NamedColumns::default();
        self.collect(&mut names);
        names
    }

    /// The JSON text, if it is the same for every row.
    pub(crate) fn fixed(&self) -> Option<String> {
        Some(match self {
            Self::Literal(json) => json.clone(),
            Self::Object(members) => {
                let member = |member: &TemplateMember| {
                    let name = serde_json::Value::from(member.name.as_str());
                    Some(format!("{name}:{}", member.value.fixed()?))
                };
                let members: Option<Vec<String>> = members.iter().map(member).collect();
                format!("{{{}}}", members?.join(","))
            }
            Self::List(items) => {
                let items: Option<Vec<String>> = items.iter().map(Self::fixed).collect();
                format!("[{}]", items?.join(","))
            }
            Self::Value(_) | Self::Text(_) => return None,
        })
    }

    fn collect(&self, names: &mut NamedColumns) {
        match self {
            Self::Literal(_) => {}
            Self::Object(members) => {
                members.iter().for_each(|member| member.value.collect(names));
            }
            Self::List(items) => items.iter().for_each(|item| item.collect(names)),
            Self::Value(expression) => names.join(expression.names()),
            Self::Text(pieces) => names_of_pieces(pieces, names),
        }
    }
}

pub(crate) fn names_of_pieces(pieces: &[TemplatePiece], names: &mut NamedColumns) {
    for piece in pieces {
        if let TemplatePiece::Value(expression) = piece {
            names.join(expression.names());
        }
    }
}

/// Reads a template from a JSON document.
///
/// # Errors
/// Every problem, each preceded by the place in the document.
pub(crate) fn of_json(document: &serde_json::Value) -> Result<TemplateNode, Vec<String>> {
    let mut problems = Vec::new();
    let node = of_json_at(document, "", 0, &mut problems);
    node.filter(|_| problems.is_empty()).ok_or(problems)
}

fn of_json_at(
    json: &serde_json::Value,
    place: &str,
    depth: usize,
    problems: &mut Vec<String>,
) -> Option<TemplateNode> {
    let mut refuse = |message: String| {
        problems.push(format!("{}: {message}", if place.is_empty() { "/" } else { place }));
        None
    };
    match json {
        _ if depth > DEPTH_MAX => {
            refuse(format!("is nested deeper than {DEPTH_MAX} levels: flatten it"))
        }
        serde_json::Value::Object(members) => {
            let mut nodes = Vec::with_capacity(members.len());
            for (name, json) in members {
                let place = format!("{place}/{name}");
                let value = of_json_at(json, &place, depth + 1, problems);
                match value.map(|value| member(name, value)) {
                    Some(Ok(member)) => nodes.push(member),
                    Some(Err(message)) => problems.push(format!("{place}: {message}")),
                    None => {}
                }
            }
            Some(TemplateNode::Object(nodes))
        }
        serde_json::Value::Array(items) => {
            let mut nodes = Vec::with_capacity(items.len());
            for (index, json) in items.iter().enumerate() {
                nodes.extend(of_json_at(json, &format!("{place}/{index}"), depth + 1, problems));
            }
            Some(TemplateNode::List(nodes))
        }
        serde_json::Value::String(text) => of_string(text).map_or_else(refuse, Some),
        literal => Some(TemplateNode::Literal(literal.to_string())),
    }
}

/// `name?`: optional; `name??`: a key that ends with a question mark.
pub(crate) fn member(name: &str, value: TemplateNode) -> Result<TemplateMember, String> {
    let (name, optional) = match name.strip_suffix('?') {
        Some(literal) if literal.ends_with('?') => (literal, false),
        Some(name) => (name, true),
        None => (name, false),
    };
    if optional && !matches!(value, TemplateNode::Value(_)) {
        return Err(String::from(
            "can never be null, so the `?` of its key has no use: remove it, or give exactly one \
             {{ expression }} (a key that ends with a question mark is written with two)",
        ));
    }
    Ok(TemplateMember { name: name.to_owned(), optional, value })
}

pub(crate) fn of_string(text: &str) -> Result<TemplateNode, String> {
    let mut pieces = pieces(text)?;
    Ok(match (pieces.pop(), pieces.is_empty()) {
        (None, _) => TemplateNode::Literal(String::from("\"\"")),
        (Some(TemplatePiece::Value(expression)), true) => TemplateNode::Value(expression),
        (Some(TemplatePiece::Literal(text)), true) => {
            TemplateNode::Literal(serde_json::Value::String(text).to_string())
        }
        (Some(last), false) => {
            pieces.push(last);
            TemplateNode::Text(pieces)
        }
    })
}

/// Splits a text at its `{{ }}`.
///
/// # Errors
/// What is wrong with one of them.
pub(crate) fn pieces(text: &str) -> Result<Vec<TemplatePiece>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        if !before.is_empty() {
            pieces.push(TemplatePiece::Literal(before.to_owned()));
        }
        let Some((inside, after)) = split_at_close(after) else {
            return Err(
                "has `{{` without `}}`: close it, or write {{ '{{' }} for the braces".into()
            );
        };
        let expression = Expression::parse(inside)
            .map_err(|message| format!("{{{{ {} }}}} {message}", inside.trim()))?;
        if expression.names().moment && !is_filled_in(&expression) {
            return Err(format!(
                "{{{{ {} }}}} computes with `now` or `age`, which are filled in when the body is \
                 sent: write {{{{ now }}}}, {{{{ int(now) }}}} or {{{{ age }}}} alone",
                inside.trim()
            ));
        }
        pieces.push(TemplatePiece::Value(expression));
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(TemplatePiece::Literal(rest.to_owned()));
    }
    Ok(pieces)
}

/// Whether an attempt can fill the expression in.
fn is_filled_in(expression: &Expression) -> bool {
    matches!(
        expression.plain(),
        Some(
            (ColumnReference::BuiltIn(BuiltInName::Now), _)
                | (
                    ColumnReference::BuiltIn(BuiltInName::Age),
                    ExpressionForm::AsIs | ExpressionForm::String
                )
        )
    )
}

/// Splits at the `}}` that closes an expression: one that stands in no string and in no map.
pub(crate) fn split_at_close(text: &str) -> Option<(&str, &str)> {
    let mut depth = 0_usize;
    let mut quote = None;
    let mut characters = text.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        match (quote, character) {
            (Some(_), '\\') => drop(characters.next()),
            (Some(open), _) if open == character => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(character),
            (None, '{') => depth += 1,
            (None, '}') if depth > 0 => depth -= 1,
            (None, '}') if characters.peek().is_some_and(|(_, next)| *next == '}') => {
                let (inside, after) = text.split_at_checked(at)?;
                return Some((inside, after.strip_prefix("}}")?));
            }
            (None, _) => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(node: &TemplateNode) -> &str {
        match node {
            TemplateNode::Value(expression) => expression.source(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_string_that_is_one_expression_keeps_its_type_and_any_other_is_text() {
        assert_eq!(source(&of_string("{{ id }}").unwrap()), "id");
        assert_eq!(source(&of_string("{{id}}").unwrap()), "id");
        assert_eq!(
            of_string("plain \"x\"").unwrap(),
            TemplateNode::Literal(r#""plain \"x\"""#.into())
        );
        assert_eq!(of_string("").unwrap(), TemplateNode::Literal("\"\"".into()));
        let texts = ["{{ id }} ", " {{ id }}", "{{ id }}{{ id }}", "a {{ id }} b"];
        for text in texts {
            assert!(matches!(of_string(text), Ok(TemplateNode::Text(_))), "case: {text:?}");
        }
    }

    #[test]
    fn braces_within_an_expression_do_not_close_it() {
        let cases = ["{'a': {'b': 1}}", "'}}'", "\"a\\\"}}\"", "{'a': {}}['a']"];
        for expression in cases {
            let text = format!("{{{{ {expression} }}}}");
            assert_eq!(source(&of_string(&text).unwrap()), expression, "case: {text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_the_expression() {
        let cases = [
            ("{{ id", "has `{{` without `}}`"),
            ("{{ }}", "empty expression"),
            ("{{ id + }}", "{{ id + }} is not an expression"),
            ("{{ now - committed }}", "filled in when the body is sent"),
            ("{{ lower(name) }}", "no function"),
        ];
        for (text, expected) in cases {
            let message = of_string(text).unwrap_err();
            assert!(message.contains(expected), "case: {text}: {message}");
        }
    }

    #[test]
    fn a_json_document_is_read_with_every_problem_and_its_place() {
        let document = serde_json::json!({
            "id?": "{{ id }}", "tags": [1, "{{ a +", {"b?": "x"}], "odd??": true,
        });
        let problems = of_json(&document).unwrap_err();
        assert_eq!(problems.len(), 2);
        assert!(problems[0].starts_with("/tags/1: has `{{`"), "{problems:?}");
        assert!(problems[1].starts_with("/tags/2/b?: can never be null"), "{problems:?}");
        let node = of_json(&serde_json::json!({"id?": "{{ id }}", "odd??": true})).unwrap();
        let TemplateNode::Object(members) = node else { panic!("an object") };
        let keys: Vec<_> = members.iter().map(|m| (m.name.as_str(), m.optional)).collect();
        assert_eq!(keys, [("id", true), ("odd?", false)]);
    }
}
