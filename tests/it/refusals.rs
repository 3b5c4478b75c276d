//! What does not let walhook start: each cause is named with its fix and exit code, soon, by `run`
//! and by `check` alike.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

mod endpoints;

use std::time::Duration;

use serde_json::Value;
use walhook::testing::sandbox::cluster::ClusterOptions;

use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::support::postgres::start_cluster;
use crate::support::program::Program;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;
use crate::support::service::slot;

/// An operator who made a mistake is still looking.
const SOON: Duration = Duration::from_secs(5);

const TABLE: &str = include_str!("../../sql/ocr-wallet.sql");

/// Stands in every secret of these tests.
const SECRET: &str = "tell-nobody";

const WEBHOOK: &str = "[webhook]\nurls = [\"http://127.0.0.1:9/hooks?key=tell-nobody\"]\n\
                       headers = { authorization = \"Bearer tell-nobody\" }";

const NOT_SET_UP: Option<i32> = Some(3);

/// Runs a command to its end; returns the exit code and what it printed.
async fn finished(args: &[&str], toml: &str) -> (Option<i32>, String) {
    let mut program = Program::start(args, toml, &[]);
    let code = program.wait(SOON).await;
    let output = program.output().join("\n");
    assert!(!output.contains(SECRET), "{output}");
    (code, output)
}

/// `run` and `check` both end with this code and say all of this.
async fn assert_refused(toml: &str, code: i32, parts: &[&str]) {
    for command in ["run", "check"] {
        let (ended, output) = finished(&[command], toml).await;
        assert_eq!(ended, Some(code), "{command}:\n{output}");
        for part in parts {
            assert!(output.contains(part), "{command} does not say {part:?}:\n{output}");
        }
    }
}

fn configuration_of(url: &str) -> String {
    format!("[postgres]\nurl = \"{url}\"\n[http]\nlisten = \"127.0.0.1:0\"\n{WEBHOOK}\n")
}

/// A role that may do nothing but log in, and a configuration that uses it.
async fn plain_role(database: &Database, sql: &Sql) -> (String, String) {
    let role = format!("{}_role", database.name());
    sql.batch_execute(&format!("CREATE ROLE {role} LOGIN")).await.unwrap();
    let toml = configuration(database, WEBHOOK);
    let toml = toml.replace("postgres://postgres@", &format!("postgres://{role}:{SECRET}@"));
    (role, toml)
}

#[tokio::test]
async fn all_mistakes_in_a_file_are_named_at_once_with_line_and_key() {
    let toml = "[postgres]\nurl = \"mysql://root:tell-nobody@db/app\"\nslot = \"Wal Hook\"\n\
                [webhok]\n[webhook]\nurls = [\"ftp://x/tell-nobody\"]\ntimeout = \"10 parsecs\"\n\
                max_retry = 3\n[http]\nlisten = \"0.0.0.0:9464\"\n";
    let parts = [
        "walhook.toml:2: postgres.url",
        "walhook.toml:3: postgres.slot",
        "walhook.toml:4: webhok",
        "walhook.toml:6: webhook.urls",
        "walhook.toml:7: webhook.timeout",
        "walhook.toml:8: webhook.max_retry",
        "max_retries",
        "walhook.toml:10: http.listen",
    ];
    assert_refused(toml, 2, &parts).await;
    assert_refused("[webhook\nurls = 1", 2, &["walhook.toml:1:9: "]).await;
    let (code, output) = finished(&["check", "--config", "/no/such/file"], "").await;
    assert_eq!(code, Some(2));
    assert!(output.contains("/no/such/file"), "{output}");
    assert!(output.contains("walhook init"), "{output}");
}

#[tokio::test]
async fn an_unknown_host_and_a_closed_port_are_named() {
    let toml = configuration_of("postgres://app:tell-nobody@no-such-host.invalid/app");
    assert_refused(&toml, 1, &["host no-such-host.invalid is unknown", "check its spelling"]).await;
    let toml = configuration_of("postgres://app:tell-nobody@127.0.0.1:1/app");
    assert_refused(&toml, 1, &["cannot reach PostgreSQL at 127.0.0.1:1", "firewalls"]).await;
}

#[tokio::test]
async fn a_port_of_another_program_is_named() {
    let greetings = [
        "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n",
        "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n",
        "220 mail.example.com ESMTP Postfix\r\n",
    ];
    for greeting in greetings {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let mut answers = tokio::task::JoinSet::new();
        answers.spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::io::AsyncWriteExt::write_all(&mut stream, greeting.as_bytes()).await.ok();
                // All is read before the connection ends, so that it ends without a reset.
                tokio::io::AsyncWriteExt::shutdown(&mut stream).await.ok();
                let mut rest = Vec::new();
                tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest).await.ok();
            }
        });
        let toml =
            configuration_of(&format!("postgres://app:tell-nobody@{at}/app?sslmode=disable"));
        assert_refused(&toml, 1, &[&at.to_string(), "is no PostgreSQL", "check host and port"])
            .await;
    }
}

#[tokio::test]
async fn a_wrong_password_or_database_is_named() {
    let mut cluster = start_cluster(ClusterOptions::default()).await;
    let sql = Sql::connect(&cluster.socket_url("postgres")).await;
    sql.batch_execute("CREATE ROLE app LOGIN REPLICATION PASSWORD 'right'").await.unwrap();
    let lines = ["host all all 127.0.0.1/32 scram-sha-256"];
    cluster.set_hba(&lines).unwrap();
    cluster.reload().unwrap();
    let at = format!("127.0.0.1:{}", cluster.port());
    let wrong = configuration_of(&format!("postgres://app:tell-nobody@{at}/postgres"));
    assert_refused(&wrong, 3, &["wrong password for user app", "connection URL"]).await;
    let missing = configuration_of(&format!("postgres://app@{at}/postgres"));
    assert_refused(&missing, 3, &["asks for a password for user app"]).await;
    let database = configuration_of(&format!("postgres://app:right@{at}/tell"));
    assert_refused(&database, 3, &["database tell does not exist"]).await;
    let role = configuration_of(&format!("postgres://nobody:tell-nobody@{at}/postgres"));
    assert_refused(&role, 3, &["user nobody"]).await;
}

#[tokio::test]
async fn everything_that_a_server_lacks_is_named_at_once() {
    let cluster = start_cluster(ClusterOptions::default().with("wal_level", "replica")).await;
    let sql = Sql::connect(&cluster.url("postgres")).await;
    sql.batch_execute(TABLE).await.unwrap();
    assert_refused(
        &configuration_of(&cluster.url("postgres")),
        3,
        &["wal_level is replica, not logical", "ALTER SYSTEM SET wal_level = logical;", "restart"],
    )
    .await;

    sql.batch_execute("CREATE ROLE app LOGIN; ALTER TABLE ocr_wallet_info RENAME wx_id TO wx_ids;")
        .await
        .unwrap();
    let url = cluster.url("postgres").replace("postgres@", "app:tell-nobody@");
    assert_refused(
        &configuration_of(&url),
        3,
        &[
            "wal_level is replica",
            "role app may not replicate",
            "ALTER ROLE \"app\" REPLICATION;",
            "role app may not read table public.ocr_wallet_info",
            "GRANT SELECT ON \"public\".\"ocr_wallet_info\" TO \"app\";",
            "has no column wx_id",
            "did you mean wx_ids?",
            "CREATE PUBLICATION \"walhook\" FOR TABLE \"public\".\"ocr_wallet_info\"",
        ],
    )
    .await;
}

#[tokio::test]
async fn a_missing_table_is_named_with_the_nearest_one() {
    let database = Database::create().await;
    let sql = database.sql().await;
    let toml = configuration(&database, WEBHOOK);
    assert_refused(&toml, 3, &["table public.ocr_wallet_info does not exist", "create it"]).await;
    sql.batch_execute(&TABLE.replace("ocr_wallet_info", "ocr_wallet_infos")).await.unwrap();
    assert_refused(&toml, 3, &["does not exist", "did you mean public.ocr_wallet_infos?"]).await;
    // Whoever reads it finds the line.
    let event = "[[event]]\ntype = \"o\"\ntable = \"ocr_wallet_infos\"\nwhen = \"idd > 1\"\n";
    let toml = configuration(&database, &format!("{event}{WEBHOOK}"));
    let line = 1 + toml.lines().position(|line| line.starts_with("when")).unwrap();
    let named = format!("walhook.toml:{line}) names it");
    let column = "has no column idd: did you mean id?";
    for command in ["check", "run"] {
        let (code, said) = finished(&[command], &toml).await;
        assert_eq!(code, Some(3), "{said}");
        let said = said.replace("\n         ", ": ").replace(" [missing-column]", ""); // as `check` shows it
        let is_named = said.contains("`when` of event o (") && said.contains(&named);
        assert!(said.contains(column) && is_named, "{said}");
    }
    // SQL's words for what the language writes otherwise.
    for (when, column, meant) in [
        ("id != NULL", "no column NULL", "did you mean null?"),
        ("OLD.id > 1", "no column OLD", "did you mean old?"),
        ("new.id > 1", "no column new", "did you mean the column alone, without `new.`?"),
    ] {
        let event =
            format!("[[event]]\ntype = \"o\"\ntable = \"ocr_wallet_infos\"\nwhen = \"{when}\"\n");
        let toml = configuration(&database, &format!("{event}{WEBHOOK}"));
        assert_refused(&toml, 3, &[column, meant]).await;
    }
    let none = "SELECT (SELECT count(*) FROM pg_publication)
        + (SELECT count(*) FROM pg_replication_slots WHERE database = current_database())";
    assert_eq!(sql.text(none).await, "0", "nothing is made before all is in order");
}

#[tokio::test]
async fn a_slot_of_another_plugin_or_database_is_left_alone() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(TABLE).await.unwrap();
    let toml = configuration(&database, WEBHOOK);
    let slot = slot(&database);
    let create = format!("SELECT pg_create_logical_replication_slot('{slot}', 'test_decoding')");
    sql.batch_execute(&create).await.unwrap();
    let plugin = "uses the plugin test_decoding, not the plugin pgoutput";
    assert_refused(&toml, 3, &[plugin, "choose another slot name in [postgres] slot"]).await;

    let other = Database::create().await;
    let elsewhere = other.sql().await;
    elsewhere.batch_execute(TABLE).await.unwrap();
    let toml = toml.replace(&database.url(), &other.url());
    let pgoutput = create.replace("test_decoding", "pgoutput");
    sql.batch_execute(&format!("SELECT pg_drop_replication_slot('{slot}'); {pgoutput}"))
        .await
        .unwrap();
    let belongs = format!("belongs to database {}", database.name());
    assert_refused(&toml, 3, &[&belongs, "choose another slot name"]).await;
}

/// What an administrator has to run is said whatever the role may not do.
#[tokio::test]
async fn a_state_or_database_that_the_role_may_not_use_is_named_with_the_way_out() {
    let database = Database::create().await;
    let sql = database.sql().await;
    let (name, role) = (database.name(), format!("{}_low", database.name()));
    sql.batch_execute(TABLE).await.unwrap();
    sql.batch_execute(&format!(
        "CREATE ROLE {role} LOGIN REPLICATION; GRANT SELECT ON ocr_wallet_info TO {role}; \
         CREATE PUBLICATION walhook FOR TABLE ocr_wallet_info; CREATE SCHEMA walhook;"
    ))
    .await
    .unwrap();
    let url = database.url().replace("postgres@", &format!("{role}@"));
    let toml = configuration(&database, WEBHOOK).replace(&database.url(), &url);
    let owner = format!("ALTER SCHEMA walhook OWNER TO {role};");
    assert_refused(&toml, 3, &["may not make walhook's own tables", &owner]).await;
    sql.batch_execute(&owner).await.unwrap();
    let (code, said) = finished(&["check"], &toml).await;
    assert_eq!(code, Some(0), "{said}");
    let revoke = format!("REVOKE CONNECT ON DATABASE {name} FROM PUBLIC");
    sql.batch_execute(&revoke).await.unwrap();
    assert_refused(&toml, 3, &["does not let user", "that it has CONNECT on the database"]).await;
    sql.batch_execute(&format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}")).await.unwrap();
}

#[tokio::test]
async fn beside_a_walhook_that_works_there_is_nothing_to_mend() {
    let database = Database::create().await;
    database.sql().await.batch_execute(TABLE).await.unwrap();
    let toml = configuration(&database, WEBHOOK);
    let mut first = Service::start(&toml).await;
    let (code, output) = finished(&["check"], &toml).await;
    assert_eq!(code, Some(0), "{output}");
    let in_use = format!("slot {} is in use by a walhook", slot(&database));
    assert!(output.contains(&in_use), "{output}");
    assert_eq!(first.get("/ready").await.status, 200);
    first.stop().await;
}

#[tokio::test]
async fn a_slot_that_something_else_holds_is_refused_and_the_holder_named() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(TABLE).await.unwrap();
    let toml = configuration(&database, WEBHOOK);
    Service::start(&toml).await.stop().await;
    let url = format!("{}?application_name=pg_recvlogical", database.url());
    let server = walhook::testing::config::settings::ServerSettings::new(
        url.parse().unwrap(),
        walhook::testing::config::settings::TlsSettings::default(),
    );
    let timeout = Duration::from_secs(60);
    let connection =
        walhook::testing::replication::wire::command::connect(&server, timeout).await.unwrap();
    let (slot, budget) =
        (slot(&database), walhook::testing::flow::budget::MemoryBudget::new(1 << 20));
    let from = walhook::testing::flow::lsn::Lsn::ZERO;
    let held = connection.start_replication(&slot, from, &["walhook"], budget).await.unwrap();
    let in_use = format!("slot {slot} is in use by the server process");
    assert_refused(&toml, 3, &[&in_use, "choose another slot", "pg_terminate_backend"]).await;
    drop(held);
}

#[tokio::test]
async fn no_free_slot_is_named() {
    let cluster = start_cluster(ClusterOptions::default().with("max_replication_slots", "1")).await;
    let sql = Sql::connect(&cluster.url("postgres")).await;
    sql.batch_execute(TABLE).await.unwrap();
    sql.batch_execute("SELECT pg_create_physical_replication_slot('taken')").await.unwrap();
    let parts = [
        "all 1 replication slots are in use (max_replication_slots)",
        "ALTER SYSTEM SET max_replication_slots = 6;",
    ];
    assert_refused(&configuration_of(&cluster.url("postgres")), 3, &parts).await;
}

#[tokio::test]
async fn no_free_walsender_is_named() {
    let cluster = start_cluster(ClusterOptions::default().with("max_wal_senders", "1")).await;
    let url = cluster.url("postgres");
    Sql::connect(&url).await.batch_execute(TABLE).await.unwrap();
    let toml = configuration_of(&url);
    let mut first = Service::start(&toml.replace("[http]", "slot = \"other\"\n[http]")).await;
    let parts =
        ["all 1 walsenders are in use (max_wal_senders)", "ALTER SYSTEM SET max_wal_senders = 6;"];
    assert_refused(&toml, 3, &parts).await;
    first.stop().await;
}

#[tokio::test]
async fn an_administrator_runs_the_sql_and_walhook_starts() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(TABLE).await.unwrap();
    let (role, toml) = plain_role(&database, &sql).await;
    let receiver = Receiver::start(always(Answer::status(200)));
    let toml = toml.replace("http://127.0.0.1:9/hooks", &receiver.url());
    // Whatever is asked for is run as it was printed, until nothing more is.
    for round in 1.. {
        let (code, output) = finished(&["check", "--json"], &toml).await;
        let report: Value = serde_json::from_str(output.lines().next().unwrap()).unwrap();
        assert_eq!(report["sound"], code == Some(0), "{output}");
        if code == Some(0) {
            break;
        }
        assert!(round < 3, "it is still not enough: {output}");
        let (refused, said) = finished(&["run"], &toml).await;
        assert_eq!((refused, code), (NOT_SET_UP, NOT_SET_UP), "{said}");
        let findings = report["findings"].as_array().unwrap();
        let problems = findings.iter().filter(|finding| finding["level"] == "problem");
        for fix in problems.map(|problem| problem["fix"].as_str().unwrap()) {
            assert!(said.contains(fix), "run does not say {fix}:\n{said}");
            let statement = fix.split('`').nth(1).unwrap();
            sql.batch_execute(statement).await.unwrap();
        }
    }
    let rights = format!(
        "SELECT rolreplication AND NOT rolsuper AND has_table_privilege('{role}',
             'ocr_wallet_info', 'SELECT') FROM pg_roles WHERE rolname = '{role}'"
    );
    assert_eq!(sql.text(&rights).await, "t");
    let mut service = Service::start(&toml).await;
    let insert = "INSERT INTO ocr_wallet_info (wallet_code) VALUES ('W1')";
    sql.batch_execute(insert).await.unwrap();
    receiver.wait_for(1, AMPLE).await;
    service.stop().await;
}

#[tokio::test]
async fn check_is_green_and_changes_nothing_where_walhook_can_make_the_rest() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(TABLE).await.unwrap();
    sql.batch_execute("CREATE TABLE other (id int PRIMARY KEY)").await.unwrap();
    let toml = configuration(&database, WEBHOOK);
    let (code, output) = finished(&["check"], &toml).await;
    assert_eq!(code, Some(0), "{output}");
    for part in ["CREATE PUBLICATION \"walhook\"", "will make the replication slot"] {
        assert!(output.contains(part), "{part} in {output}");
    }
    let made = format!(
        "SELECT (SELECT count(*) FROM pg_publication)
             + (SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{}')",
        slot(&database)
    );
    assert_eq!(sql.text(&made).await, "0");

    Service::start(&toml).await.stop().await;
    assert_eq!(sql.text(&made).await, "2");
    let published = "SELECT string_agg(schemaname || '.' || tablename, ' ')
        FROM pg_publication_tables WHERE pubname = 'walhook'";
    assert_eq!(sql.text(published).await, "public.ocr_wallet_info");
    let (code, output) = finished(&["check", "--json"], &toml).await;
    assert_eq!(code, Some(0), "{output}");
    let report: Value = serde_json::from_str(&output).unwrap();
    assert_eq!(report["sound"], true);
    assert_eq!(report["steps"], serde_json::json!([]));

    // A table more in the configuration joins the publication, and only that one.
    let more = format!("{toml}\n[[event]]\ntype = \"other\"\ntable = \"other\"\n");
    Service::start(&more).await.stop().await;
    let both = sql.text(published).await;
    assert!(both.contains("public.other") && both.contains("public.ocr_wallet_info"), "{both}");
}

#[tokio::test]
async fn a_filter_over_old_values_is_refused_until_postgresql_sends_them() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute("CREATE TABLE orders (id int PRIMARY KEY, status text)").await.unwrap();
    let event = "[[event]]\ntype = \"order.paid\"\ntable = \"orders\"\non = [\"update\"]\n\
                 when = \"status != old.status\"\n\n";
    let toml = configuration(&database, &format!("{event}{WEBHOOK}"));
    for command in ["check", "run"] {
        let (code, output) = finished(&[command], &toml).await;
        assert_eq!(code, NOT_SET_UP, "{command}: {output}");
        assert!(
            output.contains("`when` of event order.paid needs values of the old row"),
            "{output}"
        );
        let fix = "ALTER TABLE \"public\".\"orders\" REPLICA IDENTITY FULL;";
        assert!(output.contains(fix), "{output}");
    }
    sql.batch_execute("ALTER TABLE orders REPLICA IDENTITY FULL").await.unwrap();
    assert_eq!(finished(&["check"], &toml).await.0, Some(0));
}

#[tokio::test]
async fn expressions_are_tried_on_rows_that_are_there() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(
        "CREATE TYPE mood AS ENUM ('calm'); CREATE TABLE nothing (id int PRIMARY KEY);
         CREATE TABLE orders (id int PRIMARY KEY, total numeric, paid bool, at timestamptz,
             mood mood, tags text[], doc jsonb, raw bytea, twice int GENERATED ALWAYS AS (id * 2) STORED);
         INSERT INTO orders VALUES
             (7, NULL, true, '2025-01-01 00:00:00+01', 'calm', '{a,b}', '{\"k\": 1.50}', '\\x00ff'),
             (8, 12.50, false, NULL, NULL, NULL, NULL, NULL)",
    )
    .await
    .unwrap();
    let events = "[[event]]\ntype = \"order\"\ntable = \"orders\"\non = [\"insert\", \"update\"]\n\
                  when = \"total > 5.0\"\n\n\
                  [[event]]\ntype = \"none\"\ntable = \"nothing\"\n\n";
    let own = "\n[[endpoint]]\nname = \"own\"\nurl = \"http://127.0.0.1:9/\"\nevents = [\"order\"]\n\
               payload = \"{{ doc.k }}\"\n";
    let toml = configuration(&database, &format!("{events}{WEBHOOK}{own}"));
    let (code, output) = finished(&["check", "--bodies", "--json"], &toml).await;
    assert_eq!(code, Some(0), "what fails on a row stops nothing: {output}");
    let report: Value = serde_json::from_str(&output).unwrap();
    let whats: Vec<_> = report["findings"].as_array().unwrap().iter().collect();
    let find = |what: &str| {
        let found = whats.iter().find(|finding| finding["what"] == what);
        found.unwrap_or_else(|| panic!("{what} is not in {output}"))["fix"].clone()
    };
    find("event order: tried on 2 rows, its filter is true for 1 as they are");
    find("event none: not tried, public.nothing has no rows (up to 1 MiB)");
    let filter = "`total > 5.0` has no value on 1 of 2 rows, such as the row id=7";
    let fix = find(&format!("event order, when: {filter}"));
    assert!(fix.as_str().unwrap().contains("guard it with `x != null &&`"), "{fix}");
    find(
        "event order, payload of endpoint own: `doc.k` has no value on 1 of 2 rows, such as the row id=8",
    );
    assert_eq!(report["bodies"][0]["event"], "order");
    let body: Value = serde_json::from_str(report["bodies"][0]["body"].as_str().unwrap()).unwrap();
    let mut data = serde_json::json!({
        "id": 8, "total": 12.5, "paid": false, "at": null, "mood": null, "tags": null, "doc": null,
        "raw": null,
    });
    if sql.text("SELECT current_setting('server_version_num')::int >= 180000").await == "t" {
        data["twice"] = serde_json::json!(16); // from then on publications have it
    }
    assert_eq!(body["data"], data, "as the stream would bring it");
    assert_eq!(report["bodies"][1]["endpoints"], serde_json::json!(["own"]));

    sql.batch_execute("UPDATE orders SET total = 6").await.unwrap();
    let (_, output) = finished(&["check", "--bodies"], &toml).await;
    let row = r#""data":{"id":7,"total":6,"paid":true,"at":"2024-12-31T23:00:00Z","mood":"calm","tags":["a","b"],"doc":{"k":1.50},"raw":"AP8=""#;
    assert!(output.contains(row), "{output}");
}

#[tokio::test]
async fn what_can_never_be_true_for_the_types_of_columns_is_refused() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(
        "CREATE TABLE t (id int PRIMARY KEY, v int, note text, born text, ms bigint, s bigint);
         INSERT INTO t VALUES (1, 1, 'a', '2026-01-01', 1703123400000, 1703123400)",
    )
    .await
    .unwrap();
    let event = |rest: &str| {
        let on = "on = [\"insert\"]";
        let event = format!("[[event]]\ntype = \"t\"\ntable = \"public.t\"\n{on}\n{rest}\n");
        configuration(&database, &format!("{event}{WEBHOOK}"))
    };
    let cases = [
        ("when = \"note\"", "is a text, and neither true nor false"),
        ("when = \"v == '1'\"", "compares column v, a number, with a constant, a text"),
        ("when = \"v in ['1'] && note != null\"", "looks for column v, a number, in a list"),
        ("age_column = \"born\"\nexpiry = \"5m\"", "column born, which is no point in time"),
        ("age_column = \"ms\"\nexpiry = \"5m\"", "column ms, which counts milliseconds"),
    ];
    for (rest, part) in cases {
        assert_refused(&event(rest), 3, &["event t", part]).await;
    }
    for sound in ["when = \"v == 1 || note == 'a'\"", "age_column = \"s\"\nexpiry = \"5m\""] {
        let (code, output) = finished(&["check"], &event(sound)).await;
        assert_eq!(code, Some(0), "case: {sound}: {output}");
    }
    let other = "[[endpoint]]\nname = \"other\"\nurl = \"http://127.0.0.1:9\"\nevents = [\"x\"]\n";
    let two = "[[event]]\ntype = \"t\"\ntable = \"public.t\"\n[[event]]\ntype = \"x\"\ntable = \"public.t\"\n";
    let (code, output) =
        finished(&["check"], &configuration(&database, &format!("{two}{other}"))).await;
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("event t: no endpoint takes it"), "{output}");
}
