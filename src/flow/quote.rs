//! Quoting for SQL and for the replication grammar, which share these rules. Pure.

/// `"name"`.
pub(crate) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `'text'`, for sessions with `standard_conforming_strings`, which ours pins. A NUL, which no text of
/// PostgreSQL can have and which would end the statement, is left out.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''").replace('\0', ""))
}

/// The value of pgoutput's option `publication_names`: a list of identifiers in one literal.
pub(crate) fn publication_names(publications: &[&str]) -> String {
    let names: Vec<String> = publications.iter().map(|name| identifier(name)).collect();
    literal(&names.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_doubled_at_their_own_level() {
        assert_eq!(identifier(r#"we"ird"#), r#""we""ird""#);
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(publication_names(&["a", r#"b"c"#, "d'e"]), r#"'"a","b""c","d''e"'"#);
    }
}
