//! What of an endpoint's requests is evaluated for each event, beside the body.

use std::fmt;
use std::sync::Arc;

use http::HeaderName;
use zeroize::Zeroize;

use crate::config::secret::SecretValue;
use crate::expression::Expression;
use crate::expression::named_columns::BuiltInName;
use crate::expression::named_columns::ColumnReference;
use crate::expression::named_columns::ExpressionForm;
use crate::expression::named_columns::NamedColumns;
use crate::expression::template::TemplatePiece;

/// Places in the path and query of a URL, and in the values of headers.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct RequestTemplate {
    /// Path and query; empty if they are the same for every event.
    pub target: Vec<TargetPiece>,
    pub headers: Vec<HeaderTemplate>,
}

/// A part of a path and query.
#[derive(Clone, Eq, PartialEq)]
pub enum TargetPiece {
    /// As it stands in a request.
    Literal(String),
    InPath(Expression),
    InQuery(Expression),
}

impl SecretValue for Vec<TargetPiece> {
    fn wipe(&mut self) {
        for piece in self {
            if let TargetPiece::Literal(text) = piece {
                text.zeroize();
            }
        }
    }
}

/// A header whose value is evaluated.
#[derive(Clone, Eq, PartialEq)]
pub struct HeaderTemplate {
    pub name: HeaderName,
    pub pieces: Arc<[TemplatePiece]>,
}

impl RequestTemplate {
    pub fn is_empty(&self) -> bool {
        self.target.is_empty() && self.headers.is_empty()
    }

    /// Each expression with the key of the configuration that it stands in.
    pub fn expressions(&self) -> impl Iterator<Item = (&'static str, &Expression)> {
        let target = self.target.iter().filter_map(|piece| match piece {
            TargetPiece::Literal(_) => None,
            TargetPiece::InPath(expression) | TargetPiece::InQuery(expression) => {
                Some(("url", expression))
            }
        });
        let headers = self.headers.iter().flat_map(|header| header.pieces.iter());
        let headers = headers.filter_map(|piece| match piece {
            TemplatePiece::Literal(_) => None,
            TemplatePiece::Value(expression) => Some(("headers", expression)),
        });
        target.chain(headers)
    }

    /// What those of one key of the configuration name.
    pub fn names_in(&self, key: &str) -> NamedColumns {
        let mut names = NamedColumns::default();
        let of_key = self.expressions().filter(|(of, _)| *of == key);
        of_key.for_each(|(_, expression)| names.join(expression.names()));
        names
    }

    /// Those whose values have to be taken from the change, each once. The others an attempt knows by itself.
    pub fn of_change(&self) -> Vec<Expression> {
        let mut found: Vec<Expression> = Vec::new();
        for (_, expression) in self.expressions() {
            if !is_known_at_attempt(expression) && !found.contains(expression) {
                found.push(expression.clone());
            }
        }
        found.sort_by(|a, b| a.source().cmp(b.source()));
        found
    }

    /// One that differs from event to event, if there is one, with its key: a request of several events has
    /// no value for it.
    pub fn varying(&self) -> Option<(&'static str, &Expression)> {
        let is_same = |expression: &Expression| {
            matches!(expression.plain(), Some((ColumnReference::BuiltIn(BuiltInName::Now), _)))
        };
        self.expressions().find(|(_, expression)| !is_same(expression))
    }
}

/// Whether an expression is a built-in name that needs no row.
fn is_known_at_attempt(expression: &Expression) -> bool {
    let Some((ColumnReference::BuiltIn(name), form)) = expression.plain() else { return false };
    match name {
        BuiltInName::Now | BuiltInName::Committed => true,
        BuiltInName::EventId | BuiltInName::Event | BuiltInName::Table | BuiltInName::Age => {
            form != ExpressionForm::Int
        }
        BuiltInName::Op
        | BuiltInName::Row
        | BuiltInName::Old
        | BuiltInName::Changes
        | BuiltInName::Metadata => false,
    }
}

impl fmt::Debug for HeaderTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is literal can be a secret.
        f.debug_struct("HeaderTemplate").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What is literal can be a secret.
impl fmt::Debug for RequestTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.expressions()).finish()
    }
}
