//! The configuration that `init` writes: what was asked for, and why each line is there. Pure.

use std::collections::HashSet;
use std::fmt::Write as _;

use url::Url;

use crate::cli::init::survey::SurveyedTable;
use crate::cli::terminal::visible;
use crate::flow::relation::ReplicaIdentity;

/// What goes into the file.
#[derive(Clone, Debug)]
pub(crate) struct FileContents<'a> {
    /// The database's URL as it is to stand in the file; it may name a variable.
    pub database_url: &'a str,
    pub publication: &'a str,
    pub tables: &'a [&'a SurveyedTable],
    pub endpoint: &'a Url,
    /// `whsec_...`
    pub secret: &'a str,
    /// Whether rows that are there are sent, too.
    pub backfill: bool,
}

const OPERATIONS: [(&str, &str); 3] =
    [("insert", "created"), ("update", "updated"), ("delete", "deleted")];

/// With a number and a verb behind it, it is short enough for an event type.
const STEM_CHARS_MAX: usize = 100;

/// The file's text.
pub(crate) fn render(contents: &FileContents<'_>) -> String {
    let FileContents { database_url, publication, tables, endpoint, secret, backfill } = contents;
    let mut out = format!(
        "# walhook: pushes committed row changes to HTTP endpoints. `walhook check` checks this \
         file\n# against the database, `walhook run` runs it. All keys: \
         config/walhook.example.toml.\n\n\
         [postgres]\n\
         url = {url}\n\
         slot = \"walhook\"\n\
         publication = {publication}\n\
         # PostgreSQL keeps WAL for the slot until walhook has read it. If walhook is not to come \
         back:\n# SELECT pg_drop_replication_slot('walhook');\n\n\
         [http]\n\
         listen = \"127.0.0.1:9464\"   # health, metrics, stats\n",
        url = quoted(database_url),
        publication = quoted(publication),
    );
    let ambiguous = ambiguous_names(tables);
    let (mut types, mut taken) = (Vec::new(), HashSet::new());
    for table in *tables {
        let short = &table.name.name;
        let full = table.name.to_string();
        let name = if ambiguous.contains(short.as_str()) { &full } else { short };
        let stem = stem(name, &mut taken);
        events(&mut out, table, &stem, *backfill);
        types.push(quoted(&format!("{stem}.*")));
    }
    write!(
        out,
        "\n[[endpoint]]\n\
         name = {name}   # in logs and metrics, where a URL could give a secret away\n\
         url = {url}\n\
         events = [{types}]\n\
         # Signs every request (Standard Webhooks). To keep it elsewhere: secret = {{ env = \
         \"WALHOOK_SECRET\" }}\n\
         secret = {secret}\n\
         # The usual schedule, which goes on for more than a day: from 1 s, doubling up to 5 m. Or one\n\
         # retry for each delay: retry = {{ delays = [\"10s\", \"30s\", \"90s\"] }}\n\
         retry = {{ interval = \"1s\", cap = \"5m\" }}\n",
        name = quoted(&endpoint_name(endpoint)),
        url = quoted(endpoint.as_str()),
        types = types.join(", "),
        secret = quoted(secret),
    )
    .expect("writing to a String cannot fail");
    out
}

fn events(out: &mut String, table: &SurveyedTable, stem: &str, backfill: bool) {
    let mut put = |text: &str| out.push_str(text);
    let name = table.written();
    put(&format!("\n# {}: ", visible(&name)));
    if table.key.is_empty() {
        put("no primary key, so name the columns that order its events in order_by\n");
    } else {
        let key = table.key.join(", ");
        put(&format!("events of one row, by its key ({}), arrive in order\n", visible(&key)));
    }
    for (operation, verb) in OPERATIONS {
        let event_type = quoted(&format!("{stem}.{verb}"));
        put(&format!("\n[[event]]\ntype = {event_type}\ntable = {}\n", quoted(&name)));
        put(&format!("on = [\"{operation}\"]\npayload = \"standard\"\n"));
        if table.key.is_empty() {
            put("# order_by = [\"...\"]\n");
        }
        if operation == "insert" {
            put(if backfill { "backfill = true" } else { "# backfill = true" });
            put("   # rows that are there already are sent as well, once, when the slot is made\n");
            put(
                "# expiry = \"5m\"   # older events are not sent; counted from the commit, or from \
                 age_column\n",
            );
        }
        if operation == "update" && table.identity != ReplicaIdentity::Full && table.identified {
            let quoted = table.name.quoted();
            put(&format!(
                "# Previous values come along after: ALTER TABLE {} REPLICA IDENTITY FULL;\n",
                visible(&quoted)
            ));
        }
    }
}

/// The beginning of a table's event types: its name, with `_` for what cannot stand in a type; `table`
/// if nothing of it can. Each is given out once.
fn stem(name: &str, taken: &mut HashSet<String>) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let plain = name.chars().map(|c| if allowed(c) { c } else { '_' });
    let plain: String = plain.take(STEM_CHARS_MAX).collect();
    let has_some = plain.contains(|c: char| c.is_ascii_alphanumeric());
    let plain = if has_some { plain } else { "table".to_owned() };
    let numbered = (2..).map(|number| format!("{plain}-{number}"));
    let mut stems = std::iter::once(plain.clone()).chain(numbered);
    let stem = stems.find(|stem| !taken.contains(stem)).unwrap_or_default();
    taken.insert(stem.clone());
    stem
}

/// Table names that occur in more than one schema.
fn ambiguous_names<'a>(tables: &[&'a SurveyedTable]) -> HashSet<&'a str> {
    let mut seen = HashSet::new();
    tables.iter().map(|table| table.name.name.as_str()).filter(|name| !seen.insert(*name)).collect()
}

/// The host's name in letters, digits and hyphens; an address says too little to be a name.
fn endpoint_name(url: &Url) -> String {
    let host = url.domain().unwrap_or_default();
    let name: String =
        host.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    match name.trim_matches('-') {
        "" => "receiver".to_owned(),
        name => name.to_owned(),
    }
}

/// A TOML string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::relation::TableName;

    fn table(schema: &str, name: &str) -> SurveyedTable {
        SurveyedTable {
            name: TableName::new(schema, name),
            key: vec!["id".to_owned()],
            identity: ReplicaIdentity::Default,
            identified: true,
            inherited: false,
            generated: (false, false),
            partitioned: false,
            unidentified: Vec::new(),
            rows: None,
            published: false,
            owned: false,
            selectable: false,
            schema_usable: false,
        }
    }

    fn written(tables: &[&SurveyedTable]) -> (String, toml::Table) {
        let text = render(&FileContents {
            database_url: "${DATABASE_URL}",
            publication: "walhook",
            tables,
            endpoint: &Url::parse("https://crm.example.com/hooks").unwrap(),
            secret: "whsec_AAAA",
            backfill: false,
        });
        let parsed = text.parse().unwrap_or_else(|error| panic!("{error}\n{text}"));
        (text, parsed)
    }

    #[test]
    fn each_table_gets_an_event_per_operation_and_the_endpoint_all_of_them() {
        let (_, file) = written(&[&table("public", "orders")]);
        let events: Vec<String> = file["event"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| format!("{} {} {}", event["type"], event["table"], event["on"]))
            .collect();
        assert_eq!(
            events,
            [
                "\"orders.created\" \"public.orders\" [\"insert\"]",
                "\"orders.updated\" \"public.orders\" [\"update\"]",
                "\"orders.deleted\" \"public.orders\" [\"delete\"]",
            ]
        );
        let endpoint = &file["endpoint"][0];
        assert_eq!(endpoint["name"].as_str(), Some("crm-example-com"));
        assert_eq!(endpoint["events"][0].as_str(), Some("orders.*"));
        assert_eq!(file["postgres"]["url"].as_str(), Some("${DATABASE_URL}"));
    }

    #[test]
    fn tables_of_one_name_in_two_schemas_keep_apart() {
        let (text, _) = written(&[&table("a", "orders"), &table("b", "orders"), &table("b", "x")]);
        assert!(text.contains("\"a.orders.created\"") && text.contains("\"b.orders.created\""));
        assert!(text.contains("\"x.created\""));
    }

    #[test]
    fn what_cannot_stand_in_an_event_type_is_replaced_and_types_keep_apart() {
        let names = ["Order \"Lines\"", "订单", "客户", "a%", "a&", "a_", "2x"];
        let tables: Vec<SurveyedTable> = names.iter().map(|name| table("public", name)).collect();
        let (_, file) = written(&tables.iter().collect::<Vec<_>>());
        let globs = file["endpoint"][0]["events"].as_array().unwrap();
        let globs: Vec<&str> = globs.iter().filter_map(toml::Value::as_str).collect();
        let expected =
            ["Order__Lines_.*", "table.*", "table-2.*", "a_.*", "a_-2.*", "a_-3.*", "2x.*"];
        assert_eq!(globs, expected);
        let long = stem(&"x".repeat(500), &mut HashSet::new());
        assert_eq!(long.len(), STEM_CHARS_MAX);
    }

    #[test]
    fn names_are_written_as_the_configuration_reads_them() {
        let cases = [
            ("public", "orders", "public.orders"),
            ("public", "订单_1", "public.订单_1"),
            ("my.schema", "a \"b\"", "\"my.schema\".\"a \"\"b\"\"\""),
        ];
        for (schema, name, expected) in cases {
            assert_eq!(table(schema, name).written(), expected);
        }
    }

    #[test]
    fn any_name_leaves_the_file_valid() {
        for name in ["line\nbreak = 1", "quo\"te", "tri'''ple", "back\\slash", "\u{1b}[2J", "張三"]
        {
            let keyless = SurveyedTable { key: Vec::new(), ..table(name, name) };
            let (_, file) = written(&[&keyless, &table(name, "plain")]);
            assert_eq!(file["event"][0]["table"].as_str(), Some(&*keyless.written()));
            assert_eq!(file["event"].as_array().unwrap().len(), 6, "case: {name:?}");
        }
    }
}
