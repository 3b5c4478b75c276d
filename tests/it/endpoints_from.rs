//! Endpoints that are rows of a table: current from the stream, in commit order, whatever a row says.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may stop at once")]

mod changed_rows;

use std::pin::pin;

use serde_json::json;
use walhook::testing::sandbox::cluster::ClusterOptions;

use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::support::postgres::start_cluster;
use crate::support::postgres::wait_for_text;
use crate::support::program::Program;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;

const TABLES: &str = "
    CREATE TABLE tasks (id text PRIMARY KEY, rule_id bigint, status text);
    CREATE TABLE webhooks (id int PRIMARY KEY, rule_ids bigint[], url text, on_air bool DEFAULT true,
                           auth jsonb);";

fn toml(database: &Database, private: bool) -> String {
    configuration(database, &rest(private))
}

/// All but the server.
fn rest(private: bool) -> String {
    let allow = if private { "[endpoints]\nallow = [\"127.0.0.1\"]\n\n" } else { "" };
    format!(
        "[[event]]\ntype = \"task\"\ntable = \"public.tasks\"\non = [\"insert\", \"update\"]\n\n\
         [webhook]\nretry_interval = \"20ms\"\nretry_cap = \"50ms\"\nmax_retries = 100\n\
         breaker = {{ failures = 2, cooldown = \"50ms\", cap = \"100ms\" }}\n\n\
         {allow}[endpoints_from]\ntable = \"public.webhooks\"\nmatch = {{ rule_id = \"rule_ids\" }}\n\n\
         [endpoints_from.endpoint]\nname = \"wh-{{{{ id }}}}\"\nurl = \"{{{{ url }}}}\"\n\
         events = [\"task\"]\nenabled = \"{{{{ on_air }}}}\"\nauth = \"{{{{ auth }}}}\"\n"
    )
}

async fn started() -> (Database, Sql, Receiver, String) {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(TABLES).await.unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    let toml = toml(&database, true);
    (database, sql, receiver, toml)
}

async fn webhook(sql: &Sql, receiver: &Receiver, id: i32, rules: &str) {
    let url = format!("{}/{id}", receiver.url());
    let insert = format!("INSERT INTO webhooks VALUES ({id}, '{{{rules}}}', '{url}')");
    sql.batch_execute(&insert).await.unwrap();
}

async fn task(sql: &Sql, id: &str, rule: i64) {
    sql.batch_execute(&format!("INSERT INTO tasks VALUES ('{id}', {rule})")).await.unwrap();
}

/// `path task` of each request.
fn arrived(receiver: &Receiver) -> Vec<String> {
    let shown = |request: &crate::support::receiver::Request| {
        let task = request.json()["data"]["id"].as_str().unwrap().to_owned();
        format!("{} {task}", request.path.trim_start_matches("/hooks/"))
    };
    let mut arrived: Vec<String> = receiver.requests().iter().map(shown).collect();
    arrived.sort();
    arrived
}

const OUT_OF_BALANCE: &str = "SELECT coalesce(string_agg(endpoint || ' ' || pending, ','), '')
                                FROM walhook.balance WHERE pending <> 0";

#[tokio::test]
async fn a_task_goes_to_the_webhooks_that_its_rule_had_when_it_was_committed() {
    let (_database, sql, receiver, toml) = started().await;
    webhook(&sql, &receiver, 1, "7").await;
    webhook(&sql, &receiver, 2, "7, 8").await;
    let mut service = Service::start(&toml).await;
    task(&sql, "a", 7).await;
    task(&sql, "b", 8).await;
    task(&sql, "c", 9).await;
    // What is added, or takes more, waits for nothing: the next task finds it.
    webhook(&sql, &receiver, 3, "9").await;
    task(&sql, "d", 9).await;
    // What is taken away may be so a little early: the row is read as it is by then.
    receiver.wait_for(4, AMPLE).await;
    sql.batch_execute("UPDATE webhooks SET rule_ids = '{7}' WHERE id = 2").await.unwrap();
    task(&sql, "e", 8).await;
    sql.batch_execute("UPDATE webhooks SET on_air = false WHERE id = 1").await.unwrap();
    task(&sql, "f", 7).await;
    receiver.wait_for(5, AMPLE).await;
    sql.batch_execute("UPDATE webhooks SET on_air = true WHERE id = 1").await.unwrap();
    task(&sql, "g", 7).await;
    sql.batch_execute("DELETE FROM webhooks WHERE id = 3").await.unwrap();
    task(&sql, "h", 9).await;
    task(&sql, "i", 7).await;
    let expected = ["1 a", "1 g", "1 i", "2 a", "2 b", "2 f", "2 g", "2 i", "3 d"];
    receiver.wait_for(expected.len(), AMPLE).await;
    assert_eq!(arrived(&receiver), expected);
    wait_for_text(&sql, OUT_OF_BALANCE, "").await;
    // Nine tasks, each of them delivered or filtered for those who were there all the time.
    let books = "SELECT string_agg(concat_ws(' ', endpoint, captured, delivered, filtered), ', '
                     ORDER BY endpoint) FROM walhook.balance WHERE endpoint <> 'wh-3'";
    wait_for_text(&sql, books, "wh-1 9 3 6, wh-2 9 5 4").await;
    let status = service.get("/api/v1/status").await.json();
    assert_eq!(status["endpoints"][0]["source"], "table");
    service.stop().await;
}

#[tokio::test]
async fn a_change_that_is_in_the_wal_but_not_visible_yet_is_waited_for() {
    // Whoever wants it waits for a standby that does not exist, between the two.
    let options = ClusterOptions::default()
        .with("synchronous_standby_names", "ghost")
        .with("synchronous_commit", "local");
    let cluster = start_cluster(options).await;
    let url = cluster.url("postgres");
    let (sql, slow) = (Sql::connect(&url).await, Sql::connect(&url).await);
    sql.batch_execute(TABLES).await.unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    webhook(&sql, &receiver, 1, "7").await;
    let rest = rest(true);
    let toml = format!("[postgres]\nurl = \"{url}\"\n\n[http]\nlisten = \"127.0.0.1:0\"\n\n{rest}");
    let mut service = Service::start(&toml).await;
    task(&sql, "a", 7).await;
    // From here on there is no younger transaction than the slow one.
    wait_for_text(&sql, "SELECT count(*) FROM walhook.push_log", "1").await;
    slow.batch_execute("SET synchronous_commit = on").await.unwrap();
    let mut update = pin!(slow.batch_execute("UPDATE webhooks SET rule_ids = '{8}'"));
    let has_looked = "SELECT count(*) > 0 FROM pg_stat_activity look, pg_stat_activity slow
        WHERE slow.wait_event = 'SyncRep' AND look.query_start > slow.query_start
          AND look.pid <> pg_backend_pid() AND look.query ~ 'snapshot|to_jsonb'";
    tokio::select! {
        ended = &mut update => panic!("it did not wait: {ended:?}"),
        () = wait_for_text(&sql, has_looked, "t") => {}
    }
    let cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    sql.text(cancel).await;
    update.await.unwrap(); // it is committed here, only the waiting was given up
    task(&sql, "b", 8).await;
    task(&sql, "c", 7).await;
    receiver.wait_for(2, AMPLE).await;
    assert_eq!(arrived(&receiver), ["1 a", "1 b"]);
    service.stop().await;
}

#[tokio::test]
async fn a_row_that_is_no_endpoint_is_named_and_stops_nothing() {
    let (_database, sql, receiver, toml) = started().await;
    webhook(&sql, &receiver, 1, "7").await;
    sql.batch_execute("INSERT INTO webhooks VALUES (2, '{7}', 'nonsense')").await.unwrap();
    let mut service = Service::start(&toml).await;
    task(&sql, "a", 7).await;
    // One that was good is so no more; a reference to a file of this host is none.
    sql.batch_execute(
        "UPDATE webhooks SET url = 'ftp://x' WHERE id = 1;
         INSERT INTO webhooks VALUES (3, '{7}', 'https://h/', true,
             '{\"bearer\": {\"file\": \"/etc/hostname\"}}')",
    )
    .await
    .unwrap();
    task(&sql, "b", 7).await;
    wait_for_text(&sql, "SELECT count(*) FROM walhook.dead_letters", "4").await;
    webhook(&sql, &receiver, 4, "7").await;
    task(&sql, "c", 7).await;
    receiver.wait_for(2, AMPLE).await;
    // What they do not get is a dead letter that says why.
    let letters = "SELECT string_agg(concat_ws(' ', endpoint, row_key, failure_class), ', '
                       ORDER BY endpoint, row_key) FROM walhook.dead_letters";
    let expected = "wh-1 b refused, wh-1 c refused, wh-2 a refused, wh-2 b refused, \
                    wh-2 c refused, wh-3 b refused, wh-3 c refused";
    wait_for_text(&sql, letters, expected).await;
    assert_eq!(arrived(&receiver), ["1 a", "4 c"]);
    assert_eq!(service.metric("walhook_endpoints_refused").await, 3.0);
    let reason = "SELECT string_agg(DISTINCT reason, ';') FROM walhook.dead_letters
                   WHERE endpoint = 'wh-2'";
    assert!(sql.text(reason).await.contains("is not a URL"), "{}", sql.text(reason).await);
    let ready = service.get("/ready").await;
    let named = json!(["wh-1", "wh-2", "wh-3"]);
    assert_eq!((ready.status.as_u16(), &ready.json()["endpoints_refused"]), (200, &named));
    let status = service.get("/api/v1/status").await.json();
    let refused = status["endpoints_refused"].as_array().unwrap();
    let names: Vec<&str> = refused.iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["wh-1", "wh-2", "wh-3"], "{status}");
    assert!(refused[1]["error"].as_str().unwrap().contains("is not a URL"), "{status}");
    service.program.wait_for_line("a row is no endpoint", AMPLE).await;
    // Mended, it is one.
    sql.batch_execute(&format!("UPDATE webhooks SET url = '{}/2' WHERE id = 2", receiver.url()))
        .await
        .unwrap();
    task(&sql, "d", 7).await;
    receiver.wait_for(4, AMPLE).await;
    assert_eq!(arrived(&receiver), ["1 a", "2 d", "4 c", "4 d"]);
    assert_eq!(service.metric("walhook_endpoints_refused").await, 2.0);
    service.stop().await;
}

#[tokio::test]
async fn a_task_whose_webhook_is_refused_has_failed_and_names_it() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(
        "CREATE TABLE tasks (id text PRIMARY KEY, rule_id bigint, status text);
         CREATE TABLE webhooks (id text PRIMARY KEY, rule_ids bigint[], url text,
                                on_air bool DEFAULT true, auth jsonb);",
    )
    .await
    .unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    let url = receiver.url();
    sql.batch_execute(&format!(
        "INSERT INTO webhooks VALUES ('WH_001', '{{7,8}}', '{url}', true, null),
             ('WH_002', '{{7}}', 'nonsense', true, null),
             ('WH_003', '{{9}}', '{url}', true, '{{\"bearer\": 5}}'),
             ('a name with blanks', '{{9}}', '{url}', true, null),
             ('off', '{{8}}', 'nonsense', false, null)"
    ))
    .await
    .unwrap();
    let written = "on = [\"insert\"]\nwrite_back = { column = \"status\", \
                   delivered = \"PUSH_SUCCESS\", failed = \"push_failed\" }";
    let rest = rest(true)
        .replace("wh-{{ id }}", "{{ id }}")
        .replace("on = [\"insert\", \"update\"]", written);
    let mut service = Service::start(&configuration(&database, &rest)).await;
    for (id, rule) in [("a", 7), ("b", 8), ("c", 9)] {
        task(&sql, id, rule).await;
    }
    let statuses =
        "SELECT string_agg(id || ' ' || coalesce(status, ''), ', ' ORDER BY id) FROM tasks";
    wait_for_text(&sql, statuses, "a push_failed, b PUSH_SUCCESS, c push_failed").await;
    let letters =
        "SELECT string_agg(regexp_replace(endpoint, '-[0-9a-f]{10}$', '-#') || ' ' || row_key,
                       ', ' ORDER BY endpoint) FROM walhook.dead_letters";
    wait_for_text(&sql, letters, "WH_002 a, WH_003 c, a-name-with-blanks-# c").await;
    service.stop().await;
}

#[tokio::test]
async fn hundreds_of_webhooks_are_made_in_step_with_their_tasks() {
    let (_database, sql, receiver, toml) = started().await;
    let mut service = Service::start(&toml).await;
    let url = receiver.url();
    sql.batch_execute(&format!(
        "INSERT INTO webhooks SELECT n, ARRAY[n], '{url}/' || n FROM generate_series(1, 200) n"
    ))
    .await
    .unwrap();
    sql.batch_execute("INSERT INTO tasks SELECT 't' || n, n FROM generate_series(1, 200) n")
        .await
        .unwrap();
    for id in 201..=230 {
        webhook(&sql, &receiver, id, &id.to_string()).await;
        task(&sql, &format!("t{id}"), id.into()).await;
    }
    receiver.wait_for(230, AMPLE).await;
    assert!(
        arrived(&receiver)
            .iter()
            .all(|line| { line.split_once(" t").is_some_and(|(path, task)| path == task) })
    );
    wait_for_text(&sql, OUT_OF_BALANCE, "").await;
    let delivered = "SELECT sum(delivered) || ' ' || count(*) FROM walhook.balance";
    wait_for_text(&sql, delivered, "230 230").await;
    service.stop().await;
}

#[tokio::test]
async fn what_is_parked_for_a_webhook_survives_a_kill() {
    let (_database, sql, receiver, toml) = started().await;
    webhook(&sql, &receiver, 1, "7").await;
    receiver.behave(always(Answer::Close));
    let mut service = Service::start(&toml).await;
    for id in 0..30 {
        task(&sql, &format!("t{id:02}"), 7).await;
    }
    wait_for_text(&sql, "SELECT count(*) >= 25 FROM walhook.backlog", "t").await;
    service.program.kill();
    service.program.wait(AMPLE).await;
    receiver.behave(always(Answer::status(200)));
    let mut again = Service::start(&toml).await;
    let books = "SELECT captured || ' ' || delivered || ' ' || pending FROM walhook.balance";
    wait_for_text(&sql, books, "30 30 0").await;
    again.stop().await;
}

#[tokio::test]
async fn rows_reach_public_addresses_only_unless_the_operator_says_otherwise() {
    let (database, sql, receiver, _) = started().await;
    webhook(&sql, &receiver, 1, "7").await;
    let toml = toml(&database, false).replace("max_retries = 100", "max_retries = 0");
    let mut service = Service::start(&toml).await;
    let changed = service.ask("DELETE", "/api/v1/endpoints/wh-1", None).await;
    assert_eq!(changed.status, 409);
    assert!(changed.body.contains("wh-1 is a row of public.webhooks"), "{}", changed.body);
    task(&sql, "a", 7).await;
    wait_for_text(
        &sql,
        "SELECT coalesce(max(failure_class), '') FROM walhook.dead_letters",
        "refused",
    )
    .await;
    assert_eq!(receiver.count(), 0);
    service.stop().await;
}

#[tokio::test]
async fn check_names_a_view_that_cannot_be_read_and_rows_that_are_no_endpoints() {
    let (_database, sql, receiver, toml) = started().await;
    let view = toml.replace(
        "table = \"public.webhooks\"",
        "table = \"public.on_air\"\nwatch = [\"public.webhooks\"]",
    );
    let check = async |code| {
        let mut check = Program::start(&["check"], &view, &[]);
        assert_eq!(check.wait(AMPLE).await, Some(code), "{:?}", check.output());
        check.output().join("\n")
    };
    let said = check(3).await;
    assert!(said.contains("public.on_air cannot be read: relation"), "{said}");
    assert!(said.contains("correct [endpoints_from], or grant SELECT on public.on_air"), "{said}");
    sql.batch_execute(
        "CREATE VIEW on_air AS SELECT * FROM webhooks WHERE on_air;
         INSERT INTO webhooks VALUES (2, '{7}', 'nonsense')",
    )
    .await
    .unwrap();
    webhook(&sql, &receiver, 1, "7").await;
    let said = check(0).await;
    assert!(said.contains("[endpoints_from]: 1 endpoint in public.on_air"), "{said}");
    assert!(said.contains("a row of public.on_air is no endpoint: wh-2"), "{said}");
}

/// Values are compared as they are written, which two tables do not do alike for every type.
#[tokio::test]
async fn check_names_a_match_over_a_type_that_is_written_in_other_ways() {
    let (_database, sql, receiver, toml) = started().await;
    webhook(&sql, &receiver, 1, "7").await;
    sql.batch_execute("CREATE DOMAIN filled AS char(5); CREATE TYPE mood AS ENUM ('a')")
        .await
        .unwrap();
    let icu = "CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false)";
    let has_icu = sql.batch_execute(icu).await.is_ok();
    for (sql_type, says) in [
        ("timestamptz", "rule_id of event task never matches: it is a point in time"),
        ("jsonb", "rule_id of event task never matches: it is JSON"),
        ("int[]", "rule_id of event task never matches: it is an array"),
        ("interval", "rule_id of event task may not match: equal values of type interval"),
        ("cidr", "rule_id of event task may not match: equal values of type cidr"),
        ("numrange", "rule_id of event task may not match: equal values of type numrange"),
        ("filled", "rule_id of event task may not match: equal values of type character"),
        ("text COLLATE loose", "rule_id of event task may not match: its collation"),
        ("float8", ""),
        ("numeric", ""),
        ("char(5)", ""),
        ("mood", ""),
        ("bigint", ""),
        ("text", ""),
    ] {
        if sql_type.contains("loose") && !has_icu {
            continue;
        }
        let alter = format!(
            "ALTER TABLE tasks DROP COLUMN rule_id; ALTER TABLE tasks ADD COLUMN rule_id {sql_type}"
        );
        sql.batch_execute(&alter).await.unwrap();
        let mut check = Program::start(&["check"], &toml, &[]);
        assert_eq!(check.wait(AMPLE).await, Some(0), "{:?}", check.output());
        let said = check.output().join("\n");
        assert!(said.contains(says), "{sql_type}: {said}");
        assert_eq!(said.contains("match by a column"), !says.is_empty(), "{sql_type}: {said}");
    }
}

/// What is equal for PostgreSQL is, however each table writes it.
#[tokio::test]
async fn a_match_compares_numbers_and_padded_texts_as_the_server_does() {
    let (_database, sql, receiver, toml) = started().await;
    for (events, wanted, value, same, other) in [
        ("char(8)", "char(12)[]", "ab", "ab", "abc"),
        ("text", "char(12)", "ab", "ab", "ab "),
        ("varchar(9)", "char(12)[]", "ab", "ab", "b"),
        ("char(8)", "text", "ab", "ab", " ab"),
        ("float8", "float8", "-0", "0", "1"),
        ("float8", "numeric", "1500.00", "1.5e3", "1.5"),
        ("numeric(30,2)", "int[]", "{7}", "7.00", "70"),
        (
            "numeric",
            "numeric[]",
            "{12345678901234567890123.10}",
            "12345678901234567890123.1",
            "12345678901234567890124",
        ),
        ("int", "numeric(9,3)", "7", "7", "8"),
    ] {
        let value = if wanted.ends_with("[]") && !value.starts_with('{') {
            format!("{{{value}}}")
        } else {
            value.to_owned()
        };
        sql.batch_execute(&format!(
            "DELETE FROM tasks; DELETE FROM webhooks;
             ALTER TABLE tasks DROP COLUMN rule_id; ALTER TABLE tasks ADD COLUMN rule_id {events};
             ALTER TABLE webhooks DROP COLUMN rule_ids; ALTER TABLE webhooks ADD COLUMN rule_ids {wanted};
             INSERT INTO webhooks (id, url, rule_ids) VALUES (1, '{}', '{value}')",
            receiver.url()
        ))
        .await
        .unwrap();
        let before = receiver.count();
        let mut service = Service::start(&toml).await;
        let insert =
            format!("INSERT INTO tasks (id, rule_id) VALUES (1, '{other}'), (2, '{same}')");
        sql.batch_execute(&insert).await.unwrap();
        receiver.wait_for(before + 1, AMPLE).await;
        service.stop().await;
        assert_eq!(receiver.count(), before + 1, "{events} = {wanted}");
        let last = receiver.requests().pop().unwrap().json();
        assert_eq!(
            last["data"]["id"].to_string().trim_matches('"'),
            "2",
            "{events} = {wanted}: {last}"
        );
    }
}

/// The most that walhook serves, and some more.
const PLACES: u32 = 200;
const ROWS: u32 = PLACES + 25;

#[tokio::test]
async fn of_too_many_rows_it_is_always_the_last_by_name_that_get_nothing() {
    let (_database, sql, receiver, toml) = started().await;
    let toml = format!("{toml}\n[memory]\nendpoints = {PLACES}\n");
    let insert = format!(
        "INSERT INTO webhooks SELECT n, '{{1}}', '{}/' || n FROM generate_series(10001, {}) n",
        receiver.url(),
        10_000 + ROWS
    );
    sql.batch_execute(&insert).await.unwrap();
    let mut service = Service::start(&toml).await;
    let refused = |status: &serde_json::Value| status["endpoints_refused"].clone();
    let status = service.get("/api/v1/status").await.json();
    let told = refused(&status).to_string();
    assert!(told.contains("the last 25 rows by name"), "{told}");
    let names = |status: &serde_json::Value| -> Vec<String> {
        let endpoints = status["endpoints"].as_array().unwrap();
        endpoints.iter().map(|endpoint| endpoint["name"].as_str().unwrap().to_owned()).collect()
    };
    let before = names(&status);
    assert_eq!(before.len(), 200);
    assert!(
        before.contains(&String::from("wh-10200")) && !before.contains(&String::from("wh-10201"))
    );

    // Rows move in the table, and the same ones count.
    sql.batch_execute("UPDATE webhooks SET on_air = true WHERE id % 100 = 1").await.unwrap();
    sql.batch_execute("UPDATE webhooks SET url = url || '/x' WHERE id IN (10001, 10225)")
        .await
        .unwrap();
    // One that would be first by name takes no place from who has one.
    webhook(&sql, &receiver, 1000, "1").await;
    service.program.wait_for_line("rows=26", AMPLE).await;
    let status = service.get("/api/v1/status").await.json();
    assert_eq!(names(&status), before);
    let lines = service.program.output();
    let told: Vec<_> = lines.iter().filter(|line| line.contains("rows are no endpoints")).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(!lines.iter().any(|line| line.contains("a row is no endpoint")));

    // A place that comes free is taken.
    sql.batch_execute("DELETE FROM webhooks WHERE id = 10001").await.unwrap();
    service.program.wait_for_line("rows=25", AMPLE).await;
    service.stop().await;
}
