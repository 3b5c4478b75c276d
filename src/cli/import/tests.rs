//! Files as their makers' documentation shows them, and what becomes of each.

use std::path::Path;

use super::*;
use crate::config;
use crate::config::configuration::Settings;

const SEQUIN: &str = include_str!("../../../tests/it/data/import/sequin.yaml");
const DEBEZIUM: &str = include_str!("../../../tests/it/data/import/application.properties");
const PGSTREAM: &str = include_str!("../../../tests/it/data/import/pgstream.yaml");
const TRIGGERS: &str = include_str!("../../../tests/it/data/import/triggers.sql");

fn converted(file: &str, text: &str, tables: &[&str]) -> ImportDraft {
    let tables: Vec<String> = tables.iter().map(|&table| table.to_owned()).collect();
    convert(Path::new(file), text, None, &tables)
        .unwrap_or_else(|error| panic!("{file}: {error:#}"))
}

fn env(name: &str) -> Option<String> {
    match name {
        "POSTGRES_HOST" => None,
        name if name.starts_with("PG") => None,
        "DATABASE_URL" => Some(String::from("postgres://walhook@localhost/app")),
        name if name.ends_with("URL") => Some(String::from("https://a.example.com/")),
        _ => Some(String::from("a-value-long-enough-for-all")),
    }
}

fn parsed(draft: &ImportDraft) -> Settings {
    let toml = draft.toml("a test");
    config::parse(&toml, "walhook.toml", &env).unwrap_or_else(|error| panic!("{error}\n{toml}"))
}

/// Each of these words stands in something that was not carried over, and nothing else is said.
fn assert_lost(draft: &ImportDraft, expected: &[&str]) {
    let lost = draft.lost();
    for part in expected {
        assert!(lost.iter().any(|what| what.contains(part)), "{part:?} is not in {lost:#?}");
    }
    let told = |what: &&String| expected.iter().any(|part| what.contains(part));
    let more: Vec<_> = lost.iter().filter(|what| !told(what)).collect();
    assert!(more.is_empty(), "{more:#?}");
}

#[test]
fn sequins_webhook_sinks_become_events_and_endpoints() {
    let draft = converted("sequin.yaml", SEQUIN, &[]);
    let settings = parsed(&draft);
    let toml = draft.toml("sequin.yaml");
    let types: Vec<_> = settings.events.iter().map(|event| event.event_type.to_string()).collect();
    assert_eq!(
        types,
        [
            "orders.public.orders",
            "rows.public.customers",
            "rows.crm.contacts",
            "reshaped.public.orders"
        ]
    );
    assert!(
        toml.contains("url = \"postgres://sequin:${DATABASE_PASSWORD}@db.acme.test:5433/shop\""),
        "{toml}"
    );
    assert!(toml.contains("url = \"https://crm.acme.test/hooks/orders\""), "{toml}");
    let when = "status in [\\\"paid\\\", \\\"shipped\\\"] && total >= 100 && \
                row[\\\"metadata\\\"][\\\"type\\\"][\\\"name\\\"] == \\\"premium\\\" && deleted_at == null";
    let when_literal = "status in [\"paid\", \"shipped\"] && total >= 100 && \
                        row[\"metadata\"][\"type\"][\"name\"] == \"premium\" && deleted_at == null";
    assert!(toml.contains(when) || toml.contains(when_literal), "{toml}");
    assert!(toml.contains("on = [\"insert\", \"update\"]\n"), "{toml}");
    assert!(toml.contains("order_by = [\"customer_id\"]"), "{toml}");
    assert!(toml.contains("payload = { data = [\"{{ row }}\"] }"), "{toml}");
    assert!(!toml.contains("batch = ") && toml.contains("enabled = false"), "{toml}");
    assert_lost(
        &draft,
        &[
            "`account`",
            "`users`",
            "`pool_size` of database shop",
            "slot_name sequin_slot",
            "publication_name sequin_pub",
            "sink stream: walhook sends to HTTP endpoints, not to kafka",
            "batch_size 250 of sink rows",
            "transform my-function of sink reshaped",
            "`max_retry_count` of sink reshaped",
            "http_endpoint \"local\" has no URL",
        ],
    );
}

#[test]
fn sequins_headers_come_along_in_either_form_and_others_are_named() {
    let file = |headers: &str| {
        let sink = "sinks:\n  - {name: a, table: public.t, destination: {type: webhook, http_endpoint: crm}}\n";
        let postgres = "databases:\n  - {name: app, username: u, hostname: h, database: d}\n";
        format!("{postgres}http_endpoints:\n  - name: crm\n    url: https://h/\n{headers}{sink}")
    };
    let cases = [
        (
            "    headers: [{key: X-Tenant, value: 7}]\n    encrypted_headers: {Authorization: s3cret}\n",
            &[][..],
        ),
        (
            "    headers: {X-Tenant: 7}\n    encrypted_headers: [{key: Authorization, value: s3cret}]\n",
            &[],
        ),
        (
            "    headers: [{X-Tenant: 7}]\n    encrypted_headers: s3cret\n",
            &["`headers` of endpoint a", "`encrypted_headers` of endpoint a"],
        ),
    ];
    for (headers, lost) in cases {
        let draft = converted("sequin.yaml", &file(headers), &[]);
        assert_lost(&draft, lost);
        let toml = draft.toml("sequin.yaml");
        assert!(!toml.contains("s3cret"), "{toml}");
        let settings = parsed(&draft);
        let expected = if lost.is_empty() { 2 } else { 0 };
        assert_eq!(settings.endpoints[0].headers.len(), expected, "{toml}");
    }
}

#[test]
fn what_a_sequin_file_says_beside_is_carried_over_or_named() {
    let file = |database: &str, sink: &str, destination: &str| {
        format!(
            "databases:\n  - {{name: app, url: postgres://u:s3cret@h/d{database}}}\n\
             http_endpoints:\n  - {{name: crm, url: https://h/, timeout: 5}}\n\
             sinks:\n  - {{name: a, table: public.t{sink}, destination: {{type: webhook, http_endpoint: crm{destination}}}}}\n"
        )
    };
    let timeout = "`timeout` of http_endpoint crm";
    let cases = [
        ("", "", "", &[timeout][..], "payload = { data = [{ record"),
        ("", "", ", batch: true", &[timeout], "payload = { data = [{ record"),
        ("", ", batch_size: 5", ", batch: false", &[timeout], "payload = { record"),
        ("", ", status: active", "", &[timeout], "events = [\"a.*\"]"),
        ("", ", status: paused", "", &[timeout, "walhook endpoints pause a"], "events = [\"a.*\"]"),
        ("", "", ", retries: 3", &[timeout, "`retries` of the destination of sink a"], ""),
        (", ssl: true", "", "", &[timeout], "@h/d?sslmode=require\""),
        (
            ", pool_size: 3, slot: {name: s}, publication: {name: p}",
            "",
            "",
            &[timeout, "`pool_size` of database app", "slot_name s:", "publication_name p:"],
            "",
        ),
    ];
    for (database, sink, destination, lost, expected) in cases {
        let draft = converted("sequin.yaml", &file(database, sink, destination), &[]);
        assert_lost(&draft, lost);
        let toml = draft.toml("sequin.yaml");
        assert!(toml.contains(expected) && !toml.contains("batch = "), "{toml}");
        parsed(&draft);
    }
}

#[test]
fn debeziums_http_sink_becomes_an_endpoint_with_its_envelope() {
    let draft = converted("application.properties", DEBEZIUM, &[]);
    let settings = parsed(&draft);
    let toml = draft.toml("application.properties");
    let tables: Vec<_> = settings.events.iter().map(|event| event.table.to_string()).collect();
    assert_eq!(tables, ["public.orders", "public.customers"]);
    assert!(
        toml.contains(
            "postgres://debezium:${DATABASE_PASSWORD}@${POSTGRES_HOST:-db.acme.test}:5432/shop"
        ),
        "{toml}"
    );
    for line in [
        "on = [\"insert\", \"update\"]",
        "url = \"https://hooks.acme.test/debezium\"",
        "payload = \"debezium\"",
        "timeout = \"10000ms\"",
        "retry = { max = 5, interval = \"2000ms\", cap = \"2000ms\" }",
        "secret = { env = \"WEBHOOK_SECRET\" }",
        "\"X-Api-Key\" = \"${API_KEY:-none}\"",
        "\"Authorization\" = { env = \"HEADER_AUTHORIZATION\" }",
    ] {
        assert!(toml.contains(line), "{line} is not in\n{toml}");
    }
    assert_lost(
        &draft,
        &[
            "slot.name debezium",
            "topic.prefix = shop",
            "offset.storage.file.filename",
            "offset.flush.interval.ms",
            "snapshot.mode initial",
            "table inventory",
            "debezium.transforms",
            "quarkus.log.console.json",
        ],
    );
}

#[test]
fn pgstreams_subscriptions_become_endpoints_that_are_rows() {
    let none = convert(Path::new("pgstream.yaml"), PGSTREAM, None, &[]);
    assert!(none.is_err_and(|error| error.to_string().contains("--table")));
    let draft = converted("pgstream.yaml", PGSTREAM, &["orders", "crm.contacts"]);
    let settings = parsed(&draft);
    assert_eq!(settings.events.len(), 2);
    assert!(settings.endpoints_from.is_some());
    let toml = draft.toml("pgstream.yaml");
    assert!(toml.contains(
        "postgres://postgres:${DATABASE_PASSWORD}@db.acme.test:5432/shop?sslmode=disable"
    ));
    assert!(
        toml.contains("table = \"pgstream.webhook_subscriptions\"")
            && toml.contains("timeout = \"1000ms\"")
    );
    assert_lost(
        &draft,
        &[
            "the snapshot",
            "`event_types`",
            "without schema or table",
            "the body",
            "private addresses",
            "the server for subscriptions",
            "worker_count",
            "modifier transformations",
            "`instrumentation`",
        ],
    );
}

#[test]
fn triggers_become_events_with_the_body_that_they_sent() {
    let draft = converted("triggers.sql", TRIGGERS, &[]);
    let settings = parsed(&draft);
    let names: Vec<_> =
        settings.endpoints.iter().map(|endpoint| endpoint.name.to_string()).collect();
    assert_eq!(names, ["order-hook", "status_hook", "booking"]);
    let events: Vec<_> = settings.events.iter().map(|event| event.event_type.to_string()).collect();
    assert_eq!(events, ["order-hook", "order-hook.deleted", "status_hook", "booking"]);
    let toml = draft.toml("triggers.sql");
    for line in [
        "url = \"https://hooks.acme.test/orders\"",
        "url = \"https://bookings.acme.test/functions/v1/notify\"",
        "timeout = \"5000ms\"",
        "\"Authorization\" = { env = \"ORDER_HOOK_AUTHORIZATION\" }",
        "table = \"public.bookings\"",
    ] {
        assert!(toml.contains(line), "{line} is not in\n{toml}");
    }
    assert_lost(
        &draft,
        &[
            "UPDATE OF of trigger status_hook",
            "WHEN of trigger status_hook",
            "method GET of trigger status_hook",
            "parameters {\"a\":\"b\"} of trigger status_hook",
            "function notify_booking of trigger booking",
        ],
    );
}

#[test]
fn no_secret_of_theirs_is_in_what_is_made() {
    let secrets = [
        "pg-password",
        "not-for-walhook",
        "crm-token",
        "secret-token",
        "db-password",
        "whsec_",
        "it's-secret",
    ];
    for (file, text) in [
        ("sequin.yaml", SEQUIN),
        ("application.properties", DEBEZIUM),
        ("pgstream.yaml", PGSTREAM),
        ("triggers.sql", TRIGGERS),
    ] {
        let draft = converted(file, text, &["orders"]);
        let all = format!("{}{:?}{:?}", draft.toml(file), draft.lost(), draft.variables());
        for secret in secrets {
            assert!(!all.contains(secret), "{secret} of {file} is in\n{all}");
        }
    }
}

#[test]
fn what_is_nothing_of_the_kind_is_refused_in_words() {
    let cases = [
        ("a.yaml", "a: 1", "neither Sequin's nor pgstream's"),
        ("a.yaml", "a: [", "no YAML"),
        ("a.yaml", "sinks: []", "nothing that goes to an HTTP endpoint"),
        ("a.properties", "debezium.sink.type=kafka", "walhook sends to HTTP endpoints"),
        (
            "a.properties",
            "debezium.source.connector.class=io.debezium.connector.mysql.MySqlConnector",
            "reads PostgreSQL alone",
        ),
        ("a.sql", "SELECT 1; -- $$", "no trigger calls"),
        ("a.yaml", "source: {postgres: {}}\ntarget: {kafka: {}}", "target kafka"),
    ];
    for (file, text, expected) in cases {
        let error = convert(Path::new(file), text, None, &[]).map(|draft| draft.toml(file));
        let said = format!("{:#}", error.expect_err(file));
        assert!(said.contains(expected), "case: {text}: {said}");
    }
}

proptest::proptest! {
    #[test]
    fn any_text_is_converted_or_refused_but_never_a_panic(text: String) {
        for from in [ImportSource::Sequin, ImportSource::Debezium, ImportSource::Pgstream, ImportSource::PgNet] {
            drop(convert(Path::new("a"), &text, Some(from), &[String::from("t")]));
        }
    }
}
