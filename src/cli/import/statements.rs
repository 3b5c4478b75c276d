//! Words of SQL: names, texts and signs, without comments. Enough to find triggers in a dump.

/// A word of SQL.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum SqlWord {
    /// A name or key word, as it stands; one in double quotes keeps its case.
    Name {
        text: String,
        quoted: bool,
    },
    /// A text in single quotes or between dollar signs.
    Text(String),
    Sign(char),
}

impl SqlWord {
    /// Whether it is this key word.
    pub(crate) fn is(&self, word: &str) -> bool {
        matches!(self, Self::Name { text, quoted: false } if text.eq_ignore_ascii_case(word))
    }

    /// A name as PostgreSQL keeps it.
    pub(crate) fn name(&self) -> Option<String> {
        match self {
            Self::Name { text, quoted: true } => Some(text.clone()),
            Self::Name { text, quoted: false } => Some(text.to_ascii_lowercase()),
            _ => None,
        }
    }
}

/// The statements of a script, each as its words.
pub(crate) fn statements(script: &str) -> Vec<Vec<SqlWord>> {
    let mut found = vec![Vec::new()];
    let mut rest = script;
    while let Some(c) = rest.chars().next() {
        let after = rest.get(c.len_utf8()..).unwrap_or_default();
        rest = match c {
            ';' => {
                found.push(Vec::new());
                after
            }
            '-' if after.starts_with('-') => rest.split_once('\n').map_or("", |(_, rest)| rest),
            '/' if after.starts_with('*') => rest.split_once("*/").map_or("", |(_, rest)| rest),
            _ if c.is_whitespace() => after,
            _ => {
                let (word, rest) = word(c, rest, after);
                if let Some(statement) = found.last_mut() {
                    statement.push(word);
                }
                rest
            }
        };
    }
    found.retain(|statement| !statement.is_empty());
    found
}

fn word<'s>(c: char, here: &'s str, after: &'s str) -> (SqlWord, &'s str) {
    match c {
        '\'' => {
            let (text, rest) = until_quote(after, '\'');
            (SqlWord::Text(text), rest)
        }
        '"' => {
            let (text, rest) = until_quote(after, '"');
            (SqlWord::Name { text, quoted: true }, rest)
        }
        '$' => match dollar_quoted(here) {
            Some((text, rest)) => (SqlWord::Text(text.to_owned()), rest),
            None => (SqlWord::Sign(c), after),
        },
        _ if c.is_alphanumeric() || c == '_' => {
            let end = here.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$'));
            let (text, rest) = here.split_at(end.unwrap_or(here.len()));
            (SqlWord::Name { text: text.to_owned(), quoted: false }, rest)
        }
        _ => (SqlWord::Sign(c), after),
    }
}

/// A doubled quote stands for itself.
fn until_quote(text: &str, quote: char) -> (String, &str) {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(quote) {
        out.push_str(before);
        match after.strip_prefix(quote) {
            Some(after) => {
                out.push(quote);
                rest = after;
            }
            None => return (out, after),
        }
    }
    out.push_str(rest);
    (out, "")
}

/// `$tag$ ... $tag$`.
fn dollar_quoted(text: &str) -> Option<(&str, &str)> {
    let (tag, _) = text.strip_prefix('$')?.split_once('$')?;
    if !tag.chars().all(|c| c.is_alphanumeric() || c == '_') {
        return None;
    }
    let mark = format!("${tag}$");
    text.strip_prefix(mark.as_str())?.split_once(mark.as_str())
}
