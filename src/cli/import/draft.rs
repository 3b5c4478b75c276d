//! What was understood of another configuration, and the TOML that is made of it.

use std::collections::BTreeSet;

use crate::config;

/// A configuration in the making.
#[derive(Debug, Default)]
pub(crate) struct ImportDraft {
    /// Lines of `[postgres]`.
    pub postgres: Vec<String>,
    events: Vec<ImportedSection>,
    endpoints: Vec<ImportedSection>,
    /// Whole sections of other kinds.
    pub others: Vec<ImportedSection>,
    variables: Vec<(String, String)>,
    lost: Vec<String>,
    names: BTreeSet<String>,
}

/// A section with its keys, each of them a line of TOML.
#[derive(Clone, Debug)]
pub(crate) struct ImportedSection {
    header: &'static str,
    lines: Vec<String>,
}

impl ImportedSection {
    pub(crate) fn new(header: &'static str) -> Self {
        Self { header, lines: Vec::new() }
    }

    /// `value` is TOML.
    pub(crate) fn set(&mut self, key: &str, value: impl AsRef<str>) {
        self.lines.push(format!("{key} = {}", value.as_ref()));
    }
}

/// A text as TOML has it. A `${` that was none of walhook's stays what it is.
pub(crate) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A list of texts.
pub(crate) fn list<'t>(texts: impl IntoIterator<Item = &'t str>) -> String {
    let texts: Vec<String> = texts.into_iter().map(quoted).collect();
    format!("[{}]", texts.join(", "))
}

/// A column where an expression stands: by its name, or in the long form where that would be another thing.
pub(crate) fn column(name: &str) -> String {
    const TAKEN: [&str; 18] = [
        "row",
        "old",
        "changes",
        "op",
        "event",
        "event_id",
        "table",
        "metadata",
        "committed",
        "now",
        "age",
        "true",
        "false",
        "null",
        "in",
        "size",
        "string",
        "int",
    ];
    let is_plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && !TAKEN.contains(&name)
        && !name.is_empty();
    if is_plain { name.to_owned() } else { format!("row[{}]", literal(name)) }
}

/// A text where an expression stands.
pub(crate) fn literal(text: &str) -> String {
    serde_json::Value::String(text.to_owned()).to_string()
}

impl ImportDraft {
    pub(crate) fn event(&mut self, section: ImportedSection) {
        self.events.push(section);
    }

    pub(crate) fn endpoint(&mut self, section: ImportedSection) {
        self.endpoints.push(section);
    }

    /// Something that has no place here.
    pub(crate) fn lose(&mut self, what: impl Into<String>) {
        let what = what.into();
        if !self.lost.contains(&what) {
            self.lost.push(what);
        }
    }

    /// The name of a variable of the environment that takes the place of a secret.
    pub(crate) fn secret(&mut self, name: &str, what: &str) -> String {
        let upper = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
        let name: String = name.chars().map(upper).collect();
        if !self.variables.iter().any(|(known, _)| *known == name) {
            self.variables.push((name.clone(), what.to_owned()));
        }
        name
    }

    /// A name of letters, digits, `_` and `-` that nothing else has.
    pub(crate) fn name(&mut self, wished: &str) -> String {
        let kept = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
        let name: String = wished.chars().map(kept).collect();
        let name = name.trim_matches('-');
        let name = if name.is_empty() { "endpoint" } else { name };
        let mut wished =
            (1..).map(|n| if n == 1 { name.to_owned() } else { format!("{name}-{n}") });
        let name = wished.find(|name| !self.names.contains(name)).unwrap_or_default();
        self.names.insert(name.clone());
        name
    }

    pub(crate) fn variables(&self) -> &[(String, String)] {
        &self.variables
    }

    /// What was not carried over, and what the parser has against the result, if anything.
    pub(crate) fn lost(&self) -> &[String] {
        &self.lost
    }

    pub(super) fn is_empty(&self) -> bool {
        self.endpoints.is_empty() && self.others.is_empty()
    }

    pub(super) fn why_empty(&self) -> String {
        self.lost.iter().map(|what| format!("\n  {what}")).collect()
    }

    /// The file.
    pub(crate) fn toml(&self, origin: &str) -> String {
        let mut out = format!("# Made from {origin} by `walhook import`. Next: `walhook check`.\n");
        for (name, what) in &self.variables {
            out.push_str(&format!("# ${name}: {}\n", one_line(what)));
        }
        if !self.lost.is_empty() {
            out.push_str("#\n# Not carried over:\n");
        }
        for what in &self.lost {
            out.push_str(&format!("# - {}\n", one_line(what)));
        }
        out.push_str("\n[postgres]\n");
        self.postgres.iter().for_each(|line| out.push_str(&format!("{line}\n")));
        for section in self.events.iter().chain(&self.endpoints).chain(&self.others) {
            out.push_str(&format!("\n{}\n", section.header));
            section.lines.iter().for_each(|line| out.push_str(&format!("{line}\n")));
        }
        out
    }

    /// What the parser has against it, so that it is known at the conversion and not at the start of walhook.
    pub(crate) fn problems(&self) -> Vec<String> {
        let env = |name: &str| match name {
            name if name.starts_with("PG") => None,
            "DATABASE_URL" => Some(String::from("postgres://walhook@localhost/app")),
            name if name.ends_with("_URL") => Some(String::from("https://example.com/")),
            _ => Some(String::from("a-value-long-enough-for-all")),
        };
        match config::parse(&self.toml("it"), "walhook.toml", &env) {
            Ok(_) => Vec::new(),
            Err(problems) => problems.to_string().lines().map(str::to_owned).collect(),
        }
    }
}

/// A comment is one line, whatever stands in it.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
