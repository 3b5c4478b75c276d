//! What the source sends that is not as it should be: bytes without an encoding, rows that cannot be
//! sent at all, types that change, and damaged messages.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may stop at once")]
#![expect(clippy::print_stdout, reason = "what is skipped is said")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::postgres::Database;
use crate::support::postgres::has_version;
use crate::support::postgres::installation;
use crate::support::postgres::wait_for_text;
use crate::support::program::Program;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;
use crate::support::service::slot;

fn event(table: &str, url: &str) -> String {
    format!(
        "[[event]]\ntype = \"t\"\ntable = \"public.{table}\"\n\n[webhook]\nurls = [\"{url}\"]\n"
    )
}

fn data(receiver: &Receiver) -> Vec<Value> {
    receiver.requests().iter().map(|request| request.json()["data"].clone()).collect()
}

async fn check(toml: &str) -> String {
    let mut check = Program::start(&["check"], toml, &[]);
    check.wait(AMPLE).await;
    check.output().join("\n")
}

#[tokio::test]
async fn bytes_of_a_database_without_an_encoding_are_taken_as_they_are() {
    let options = "ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'";
    let database = Database::create_with(options).await;
    let sql = database.sql().await;
    sql.batch_execute("CREATE TABLE t (id int PRIMARY KEY, v text, d json)").await.unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    let toml = configuration(&database, &event("t", &receiver.url()));
    let said = check(&toml).await;
    assert!(said.contains("SQL_ASCII") && said.contains("U+FFFD"), "{said}");
    let mut service = Service::start(&toml).await;
    sql.batch_execute(
        "INSERT INTO t VALUES (1, E'caf\\351', NULL), (2, 'caf\u{e9}', '{\"a\": 1}')",
    )
    .await
    .unwrap();
    sql.batch_execute("INSERT INTO t VALUES (3, 'x', ('{\"a\": \"' || E'\\351' || '\"}')::json)")
        .await
        .unwrap();
    receiver.wait_for(3, AMPLE).await;
    service.stop().await;
    let mut rows = data(&receiver);
    rows.sort_by_key(|row| row["id"].as_i64());
    assert_eq!(
        rows,
        [
            json!({"id": 1, "v": "caf\u{fffd}", "d": null}),
            json!({"id": 2, "v": "caf\u{e9}", "d": {"a": 1}}),
            json!({"id": 3, "v": "x", "d": {"a": "\u{fffd}"}}),
        ]
    );
    // A row that is there does not end a look at the tables.
    let said = check(&toml).await;
    assert!(said.contains("SQL_ASCII"), "{said}");
}

#[tokio::test]
async fn a_transaction_that_cannot_be_sent_is_named_and_can_be_left_out() {
    let options = "ENCODING 'WIN1252' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'";
    let database = Database::create_with(options).await;
    let sql = database.sql().await;
    sql.batch_execute(
        "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE other (id int PRIMARY KEY)",
    )
    .await
    .unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    let mut rest = event("t", &receiver.url());
    rest.push_str("\n[[event]]\ntype = \"o\"\ntable = \"public.other\"\n");
    let toml = configuration(&database, &rest);
    let said = check(&toml).await;
    assert!(said.contains("WIN1252") && said.contains("--skip-transaction"), "{said}");
    let mut service = Service::start(&toml).await;
    sql.batch_execute("INSERT INTO t VALUES (1, 'good')").await.unwrap();
    receiver.wait_for(1, AMPLE).await;
    sql.batch_execute(
        "BEGIN; INSERT INTO other VALUES (1); INSERT INTO t VALUES (2, E'bad \\201'); COMMIT",
    )
    .await
    .unwrap();
    sql.batch_execute("INSERT INTO t VALUES (3, 'caf\u{e9}')").await.unwrap();
    assert_eq!(service.program.wait(AMPLE).await, Some(3));
    let said = service.program.output().join("\n");
    for part in ["22P05", "transaction that commits at ", "public.", "walhook.gaps"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let (_, after) = said.split_once("--skip-transaction ").unwrap();
    let commit: String = after.chars().take_while(|c| c.is_ascii_hexdigit() || *c == '/').collect();

    // Another one is not left out.
    let mut refused = Program::start(&["run", "--skip-transaction", "0/1"], &toml, &[]);
    assert_eq!(refused.wait(AMPLE).await, Some(3));

    let mut skipping = Program::start(&["run", "--skip-transaction", &commit], &toml, &[]);
    skipping.wait_for_line("going on without a transaction", AMPLE).await;
    wait_for_text(
        &sql,
        "SELECT commit_lsn || ' ' || sent FROM walhook.gaps",
        &format!("{commit} 1"),
    )
    .await;
    let beyond = format!(
        "SELECT confirmed_flush_lsn > '{commit}' FROM pg_replication_slots WHERE slot_name = '{}'",
        slot(&database)
    );
    wait_for_text(&sql, &beyond, "t").await;
    skipping.terminate();
    assert_eq!(skipping.wait(AMPLE).await, Some(0), "{}", skipping.output().join("\n"));
    // Once is enough: the slot stands beyond it.
    let mut service = Service::start(&toml).await;
    sql.batch_execute("INSERT INTO t VALUES (4, 'more')").await.unwrap();
    let is_last = || data(&receiver).iter().any(|row| row["id"] == 4);
    let deadline = std::time::Instant::now() + AMPLE;
    while !is_last() {
        assert!(std::time::Instant::now() < deadline, "{}", service.program.output().join("\n"));
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    service.stop().await;
    let rows = data(&receiver);
    assert!(rows.iter().any(|row| row["v"] == "caf\u{e9}"), "{rows:?}");
    assert!(!rows.iter().any(|row| row["id"] == 2), "{rows:?}");
    let said = check(&toml).await;
    assert!(said.contains("1 transactions were left out") && said.contains(&commit), "{said}");
}

/// The statement of `docs/operations.md` that finds the commit, for this position.
fn finding_the_commit(position: &str) -> String {
    let page = include_str!("../../docs/operations.md");
    let mut statements = page.split("\n```").flat_map(|block| block.split(";\n"));
    let statement = statements.find(|text| text.contains("SELECT c.start_lsn AS commit")).unwrap();
    let statement = statement.split(';').find(|text| text.contains("'0/1A2B3C4'")).unwrap();
    let lines = statement.lines().map(|line| line.split("--").next().unwrap());
    lines.collect::<Vec<_>>().join(" ").replace("0/1A2B3C4", position)
}

#[tokio::test]
async fn a_row_filter_that_fails_is_named_and_the_way_past_it_works() {
    if !has_version(installation(), 15, "row filters") {
        return;
    }
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(
        "CREATE TABLE t (id int PRIMARY KEY, v int);
         CREATE PUBLICATION walhook FOR TABLE t WHERE (10 / (id - 2) > -100)
           WITH (publish = 'insert, update, delete')",
    )
    .await
    .unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    let toml = configuration(&database, &event("t", &receiver.url()));
    let mut service = Service::start(&toml).await;
    sql.batch_execute("INSERT INTO t VALUES (1, 1)").await.unwrap();
    receiver.wait_for(1, AMPLE).await;
    sql.batch_execute("INSERT INTO t VALUES (2, 2)").await.unwrap();
    sql.batch_execute("INSERT INTO t VALUES (3, 3)").await.unwrap();
    assert_eq!(service.program.wait(AMPLE).await, Some(3));
    let said = service.program.output().join("\n");
    for part in ["division by zero", "public.t", "docs/operations.md"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let (_, after) = said.split_once("public.t at ").unwrap();
    let position: String =
        after.chars().take_while(|c| c.is_ascii_hexdigit() || *c == '/').collect();

    if sql.batch_execute("CREATE EXTENSION pg_walinspect").await.is_err() {
        println!("SKIP the way past it: this PostgreSQL has no pg_walinspect");
        return;
    }
    let commit = sql.text(&finding_the_commit(&position)).await;
    let mut skipping = Program::start(&["run", "--skip-transaction", &commit], &toml, &[]);
    skipping.wait_for_line("going on without a transaction", AMPLE).await;
    // The first may be there twice: nobody knew yet that it was delivered.
    wait_for_text(&sql, "SELECT sum(delivered) FROM walhook.balance", "2").await;
    skipping.terminate();
    assert_eq!(skipping.wait(AMPLE).await, Some(0), "{}", skipping.output().join("\n"));
    let rows = data(&receiver);
    let ids: BTreeSet<i64> = rows.iter().filter_map(|row| row["id"].as_i64()).collect();
    assert_eq!(ids, BTreeSet::from([1, 3]));
    wait_for_text(&sql, "SELECT commit_lsn::text FROM walhook.gaps", &commit).await;
}

#[tokio::test]
async fn attributes_of_a_row_type_change_under_a_running_walhook() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(
        "CREATE TYPE addr AS (street text, number int);
         CREATE TABLE t (id int PRIMARY KEY, a addr, many addr[])",
    )
    .await
    .unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    let mut service = Service::start(&configuration(&database, &event("t", &receiver.url()))).await;
    sql.batch_execute("INSERT INTO t VALUES (1, '(Main,2)', '{}')").await.unwrap();
    receiver.wait_for(1, AMPLE).await;
    sql.batch_execute("ALTER TYPE addr ADD ATTRIBUTE city text").await.unwrap();
    sql.batch_execute("INSERT INTO t VALUES (2, '(Main,2,Rome)', NULL)").await.unwrap();
    receiver.wait_for(2, AMPLE).await;
    sql.batch_execute("ALTER TYPE addr RENAME ATTRIBUTE street TO road").await.unwrap();
    sql.batch_execute("INSERT INTO t VALUES (3, NULL, ARRAY['(Main,2,Rome)'::addr])")
        .await
        .unwrap();
    receiver.wait_for(3, AMPLE).await;
    sql.batch_execute(
        "BEGIN; ALTER TYPE addr DROP ATTRIBUTE number; INSERT INTO t VALUES (4, '(Main,Rome)');
         COMMIT",
    )
    .await
    .unwrap();
    receiver.wait_for(4, AMPLE).await;
    service.stop().await;
    let mut rows = data(&receiver);
    rows.sort_by_key(|row| row["id"].as_i64());
    assert_eq!(rows[0]["a"]["street"], "Main");
    assert_eq!(rows[1]["a"], json!({"street": "Main", "number": 2, "city": "Rome"}));
    assert_eq!(rows[2]["many"], json!([{"road": "Main", "number": 2, "city": "Rome"}]));
    assert_eq!(rows[3]["a"], json!({"road": "Main", "city": "Rome"}));
}

/// What the WAL holds was written before; the catalog is as it is now.
#[tokio::test]
async fn a_value_that_was_written_before_its_type_lost_an_attribute_is_named_as_text() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(
        "CREATE TYPE addr AS (street text, number int, city text);
         CREATE TABLE t (id int PRIMARY KEY, a addr, many addr[], note text)",
    )
    .await
    .unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    let toml = configuration(&database, &event("t", &receiver.url()));
    Service::start(&toml).await.stop().await;
    sql.batch_execute(
        "INSERT INTO t VALUES (1, '(Main,2,Rome)', ARRAY['(Main,2,Rome)'::addr], 'x');
         ALTER TYPE addr RENAME ATTRIBUTE street TO road;
         INSERT INTO t VALUES (2, '(Main,2,Rome)', NULL, 'x');
         ALTER TYPE addr DROP ATTRIBUTE number;
         INSERT INTO t VALUES (3, '(Main,Rome)', '{}', 'x')",
    )
    .await
    .unwrap();
    let mut service = Service::start(&toml).await;
    receiver.wait_for(3, AMPLE).await;
    service.wait_for_metric("walhook_values_as_text_total{table=\"public.t\"}", 3.0).await;
    let lines = service.program.output();
    let named: Vec<_> = lines.iter().filter(|line| line.contains("fewer attributes")).collect();
    assert_eq!(named.len(), 2, "once for each column: {named:?}");
    service.stop().await;
    let mut rows = data(&receiver);
    rows.sort_by_key(|row| row["id"].as_i64());
    assert_eq!(
        (&rows[0]["a"], &rows[0]["many"]),
        (&json!("(Main,2,Rome)"), &json!(["(Main,2,Rome)"]))
    );
    assert_eq!(rows[1]["a"], json!("(Main,2,Rome)"));
    assert_eq!(rows[2]["a"], json!({"road": "Main", "city": "Rome"}));
}

#[tokio::test]
async fn hstore_is_the_object_that_the_server_makes_of_it() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(
        "CREATE SCHEMA ext; CREATE EXTENSION hstore SCHEMA ext;
         CREATE DOMAIN tags AS ext.hstore;
         CREATE TABLE t (id int PRIMARY KEY, h ext.hstore, many ext.hstore[], d tags)",
    )
    .await
    .unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    let mut rest = event("t", &receiver.url());
    rest = rest.replacen(
        "table = \"public.t\"\n",
        "table = \"public.t\"\non = [\"insert\"]\nwhen = \"h.a == 'NULL'\"\n",
        1,
    );
    let mut service = Service::start(&configuration(&database, &rest)).await;
    sql.batch_execute(
        r#"INSERT INTO t VALUES (1, 'a=>"NULL", b=>NULL, "q\"\\=>,"=>"x, y"', ARRAY['k=>1'::ext.hstore], 'z=>é');
           INSERT INTO t VALUES (2, 'a=>b', NULL, NULL), (3, 'a=>"NULL"', '{}', '')"#,
    )
    .await
    .unwrap();
    receiver.wait_for(2, AMPLE).await;
    service.stop().await;
    for row in data(&receiver) {
        for column in ["h", "many", "d"] {
            let query = format!("SELECT to_jsonb({column}) FROM t WHERE id = {}", row["id"]);
            let expected: Value = serde_json::from_str(&sql.text(&query).await).unwrap();
            assert_eq!(row[column], expected, "{column} of {row}");
        }
    }
}

#[tokio::test]
async fn a_filter_reads_documents_that_hold_what_few_parsers_take() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute("CREATE TABLE t (id int PRIMARY KEY, doc jsonb, raw json)").await.unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    let rest = event("t", &receiver.url()).replacen(
        "table = \"public.t\"\n",
        "table = \"public.t\"\non = [\"insert\"]\nwhen = \"doc.kind == 'a' && (raw == null || raw.kind == 'a')\"\n",
        1,
    );
    let mut service = Service::start(&configuration(&database, &rest)).await;
    let deep = format!("{}1{}", "[".repeat(130), "]".repeat(130));
    sql.batch_execute(&format!(
        r#"INSERT INTO t VALUES (1, '{{"kind": "a", "n": 1e400}}', NULL),
                                (2, '{{"kind": "a", "n": {deep}}}', NULL),
                                (3, '{{"kind": "a"}}', '{{"kind": "a", "s": "\ud800"}}')"#
    ))
    .await
    .unwrap();
    receiver.wait_for(3, AMPLE).await;
    service.stop().await;
}

/// Passes everything on, and once, when told, with a bit of a keepalive's position flipped.
async fn tampering(to: String, armed: Arc<AtomicBool>) -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(&to).await.unwrap();
            let armed = Arc::clone(&armed);
            let (mut near_in, mut near_out) = near.into_split();
            let (mut far_in, mut far_out) = far.into_split();
            connections.spawn(async move {
                tokio::io::copy(&mut near_in, &mut far_out).await.unwrap_or_default();
                far_out.shutdown().await.unwrap_or_default();
            });
            connections.spawn(async move {
                let mut bytes = vec![0; 64 * 1024];
                while let Ok(count @ 1..) = far_in.read(&mut bytes).await {
                    // CopyData of 18 bytes, and its kind.
                    let mark = b"d\x00\x00\x00\x16k";
                    let keepalive = memchr::memmem::find(&bytes[..count], mark);
                    if let Some(at) = keepalive
                        && armed.swap(false, Ordering::Relaxed)
                    {
                        bytes[at + 7] ^= 1; // far beyond what any server has
                    }
                    if near_out.write_all(&bytes[..count]).await.is_err() {
                        return;
                    }
                }
                near_out.shutdown().await.unwrap_or_default();
            });
        }
    });
    (address, tasks)
}

#[tokio::test]
async fn a_keepalive_with_a_flipped_bit_is_not_confirmed() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute("CREATE TABLE t (id int PRIMARY KEY)").await.unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    let url = database.url();
    let place = url.split_once('@').unwrap().1.split_once('/').unwrap().0.to_owned();
    let armed = Arc::new(AtomicBool::new(false));
    let (address, _proxy) = tampering(place.clone(), Arc::clone(&armed)).await;
    let toml = configuration(&database, &event("t", &receiver.url()));
    let toml = toml.replacen(&place, &address, 1);
    let toml = format!("[state]\nurl = \"{url}\"\n\n{toml}");
    let mut service = Service::start(&toml).await;
    sql.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
    receiver.wait_for(1, AMPLE).await;
    armed.store(true, Ordering::Relaxed);
    let line = service.program.wait_for_line("replication interrupted", AMPLE).await;
    assert!(line.contains("keepalive"), "{line}");
    sql.batch_execute("INSERT INTO t VALUES (2)").await.unwrap();
    receiver.wait_for(2, AMPLE).await;
    let confirmed = format!(
        "SELECT confirmed_flush_lsn <= pg_current_wal_lsn() FROM pg_replication_slots
          WHERE slot_name = '{}'",
        slot(&database)
    );
    assert_eq!(sql.text(&confirmed).await, "t");
    service.stop().await;
    assert_eq!(receiver.count(), 2);
}
