//! The URL of an endpoint, with `{{ expressions }}` in its path and query.
//!
//! ```text
//! text ─▶ [pieces] ─ each expression percent-encoded ─▶ Url ─ cut at the expressions ─▶ target
//! ```
//!
//! Scheme, user, host and port are fixed: to whom a request goes, and with which credentials and which
//! connection, is judged once, and no row decides about it.

use url::Position;
use url::Url;

use crate::config::secret::Secret;
use crate::config::settings::TargetPiece;
use crate::config::toml_file::toml_field::FieldReader;
use crate::expression::Expression;
use crate::expression::template;
use crate::expression::template::TemplatePiece;

/// What the braces of an expression are in the URL that stands for all of its requests.
const OPEN: &str = "%7B%7B";
const CLOSE: &str = "%7D%7D";

/// A URL, and what of it is evaluated.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct UrlTemplate {
    /// With each expression percent-encoded, braces and all: for the name, the origin, and to tell it
    /// from others.
    pub(super) url: Secret<Url>,
    /// Empty if it is the same for every event.
    pub(super) target: Secret<Vec<TargetPiece>>,
}

impl UrlTemplate {
    pub(super) const fn fixed(url: Secret<Url>) -> Self {
        Self { url, target: Secret::new(Vec::new()) }
    }
}

/// Reads a URL that is the same for every event.
pub(super) fn fixed(field: &FieldReader<'_>) -> Option<Secret<Url>> {
    url(field, field.fixed_secret()?.reveal())
}

/// Reads the URL of an endpoint.
pub(super) fn read(field: &FieldReader<'_>) -> Option<UrlTemplate> {
    let text = field.secret()?;
    if !text.reveal().contains("{{") {
        return url(field, text.reveal()).map(UrlTemplate::fixed);
    }
    let pieces = match template::pieces(text.reveal().trim()) {
        Ok(pieces) => pieces,
        Err(message) => return field.refuse(message),
    };
    let Some(TemplatePiece::Literal(head)) = pieces.first() else {
        return refuse_place(field, &pieces);
    };
    let has_host = head.split_once("://").is_some_and(|(_, rest)| rest.contains(['/', '?', '#']));
    if !has_host {
        return refuse_place(field, &pieces);
    }
    let mut whole = String::new();
    let mut expressions = Vec::new();
    for piece in &pieces {
        match piece {
            TemplatePiece::Literal(literal) => whole.push_str(literal),
            TemplatePiece::Value(expression) => {
                whole.push_str(&encoded(expression));
                expressions.push(expression.clone());
            }
        }
    }
    let url = url(field, &whole)?;
    match cut(url.reveal(), expressions) {
        Some(target) => Some(UrlTemplate { url, target: Secret::new(target) }),
        None => field.refuse(
            "has {{ }} beside the same braces percent-encoded (%7B%7B), so nobody can tell which are meant: \
             write one of them otherwise",
        ),
    }
}

/// A text as a web address, without anything that would be dropped or leak.
fn url(field: &FieldReader<'_>, text: &str) -> Option<Secret<Url>> {
    let Ok(url) = Url::parse(text.trim()) else {
        return field.refuse("is not a URL: write it like \"https://example.com/hooks\"");
    };
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return field.refuse("is not a web address: start it with http:// or https://");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return field.refuse(
            "holds a user or password: give them as `auth = { basic = { username, password } }` \
             of an [[endpoint]]",
        );
    }
    if url.port() == Some(0) {
        return field.refuse("has port 0, where nobody can listen: correct it, or leave it out");
    }
    if url.fragment().is_some() {
        return field.refuse("has a part after `#`, which is never sent: write %23 if it is meant");
    }
    Some(Secret::new(url))
}

fn refuse_place<T>(field: &FieldReader<'_>, pieces: &[TemplatePiece]) -> Option<T> {
    let expression = pieces.iter().find_map(|piece| match piece {
        TemplatePiece::Value(expression) => Some(expression.source()),
        TemplatePiece::Literal(_) => None,
    });
    field.refuse(format!(
        "has {{{{ {} }}}} before its path: scheme, user, host and port are the same for every event, so \
         write them out, and expressions into path and query only",
        expression.unwrap_or_default()
    ))
}

fn encoded(expression: &Expression) -> String {
    let source = percent_encoding::utf8_percent_encode(
        expression.source(),
        percent_encoding::NON_ALPHANUMERIC,
    );
    format!("{OPEN}{source}{CLOSE}")
}

/// Path and query, cut at the expressions, which stand in it in this order. `None` if something else in it
/// looks like one.
fn cut(url: &Url, expressions: Vec<Expression>) -> Option<Vec<TargetPiece>> {
    let mut rest = &url[Position::BeforePath..Position::AfterQuery];
    if rest.to_ascii_uppercase().matches(OPEN).count() != expressions.len() {
        return None;
    }
    let (mut target, mut is_query) = (Vec::new(), false);
    for expression in expressions {
        let (before, after) = rest.split_once(encoded(&expression).as_str())?;
        is_query |= before.contains('?');
        if !before.is_empty() {
            target.push(TargetPiece::Literal(before.to_owned()));
        }
        target.push(match is_query {
            true => TargetPiece::InQuery(expression),
            false => TargetPiece::InPath(expression),
        });
        rest = after;
    }
    if !rest.is_empty() {
        target.push(TargetPiece::Literal(rest.to_owned()));
    }
    Some(target)
}

#[cfg(test)]
mod tests {
    use crate::config;
    use crate::config::settings::TargetPiece;

    /// The URL's pieces, expressions in braces; those of the query with a question mark.
    fn read(url: &str) -> Result<String, String> {
        let text = format!(
            "postgres.url = 'postgres://u@h/d'\n[[event]]\ntype = 'a'\ntable = 'public.t'\n\
             [[endpoint]]\nname = 'crm'\nurl = '''{url}'''\n"
        );
        let settings = config::parse(&text, "walhook.toml", &|_| None)
            .map_err(|problems| problems.to_string())?;
        let endpoint = settings.endpoints.first().ok_or("no endpoint")?;
        assert!(!format!("{endpoint:?}").contains("s3cret"), "{endpoint:?}");
        let piece = |piece: &TargetPiece| match piece {
            TargetPiece::Literal(text) => text.clone(),
            TargetPiece::InPath(expression) => format!("<{}>", expression.source()),
            TargetPiece::InQuery(expression) => format!("<?{}>", expression.source()),
        };
        Ok(endpoint.request.target.iter().map(piece).collect())
    }

    #[test]
    fn expressions_stand_in_path_and_query() {
        let cases = [
            ("https://h/x/s3cret", ""),
            ("https://h/{{ id }}", "/<id>"),
            ("https://h/a b/{{id}}/é", "/a%20b/<id>/%C3%A9"),
            ("https://h?id={{ id }}", "/?id=<?id>"),
            ("https://h/{{ id }}?v=1&n={{ name }}&s3cret", "/<id>?v=1&n=<?name>&s3cret"),
            ("https://h/{{ id == 1 ? 'a/b' : '#' }}/x", "/<id == 1 ? 'a/b' : '#'>/x"),
            ("https://h/{{ id }}{{ id }}", "/<id><id>"),
        ];
        for (url, expected) in cases {
            assert_eq!(read(url).as_deref(), Ok(expected), "case: {url}");
        }
    }

    #[test]
    fn an_expression_anywhere_else_is_refused_by_name() {
        let cases = [
            ("https://{{ host }}/x", "has {{ host }} before its path"),
            ("https://h.{{ zone }}/x", "has {{ zone }} before its path"),
            ("https://h{{ id }}", "has {{ id }} before its path"),
            ("{{ scheme }}://h/x", "has {{ scheme }} before its path"),
            ("{{ url }}", "has {{ url }} before its path"),
            ("https://{{ user }}@h/x", "has {{ user }} before its path"),
            ("https://h:{{ port }}/x", "has {{ port }} before its path"),
            ("https://h/x#{{ id }}", "has a part after `#`"),
            ("https://h/{{ id", "has `{{` without `}}`"),
            ("https://h/{{ id + }}", "{{ id + }} is not an expression"),
            ("https://h/%7b%7Bid%7D%7D/{{ id }}", "percent-encoded"),
            ("https://h/{{ nosuch(id) }}", "`nosuch`, which is no function"),
            ("ftp://h/{{ id }}", "start it with http:// or https://"),
        ];
        for (url, expected) in cases {
            let told = read(url).unwrap_err();
            assert!(told.contains(expected), "case: {url}: {told}");
            assert!(told.contains("endpoint.url"), "case: {url}: {told}");
            assert!(told.contains("walhook.toml:"), "case: {url}: {told}");
        }
    }
}
