//! `backfill = true`: the rows that are there go out once, with the slot's beginning, whatever ends walhook
//! in between.

use std::collections::BTreeSet;

use super::Bench;
use super::ITEMS;
use super::ids;
use super::reads;
use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::support::postgres::wait_for_text;
use crate::support::program::Program;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;
use crate::support::service::slot;

/// Two rules: one asks for the rows, whatever its `on`, and the other does not.
const RULES: &str = "[[event]]\ntype = \"item.created\"\ntable = \"public.items\"\non = [\"insert\"]\nbackfill = true\n\
                     [[event]]\ntype = \"item.changed\"\ntable = \"public.items\"\non = [\"update\", \"read\"]\n";

const ORDERS: &str = "SELECT count(*) || ' ' || coalesce(string_agg(DISTINCT state, ','), '') FROM walhook.backfills";

struct FirstStart {
    database: Database,
    sql: Sql,
    receiver: Receiver,
    toml: String,
}

/// A table of twenty rows, and nothing of walhook's.
async fn before() -> FirstStart {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(ITEMS).await.unwrap();
    let fill =
        "INSERT INTO items (id, large) SELECT n, 'x' FROM generate_series(1, 20) n; ANALYZE items";
    sql.batch_execute(fill).await.unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    let rest = format!("{RULES}[[endpoint]]\nname = \"all\"\nurl = \"{}\"\n", receiver.url());
    let toml = configuration(&database, &rest);
    FirstStart { database, sql, receiver, toml }
}

#[tokio::test]
async fn the_rows_go_out_with_the_first_start_and_with_no_other() {
    let bench = Bench::start_with(ITEMS, 30, RULES).await;
    wait_for_text(&bench.sql, ORDERS, "1 done").await;
    let found = reads(&bench.receiver.requests());
    assert_eq!(ids(&found).into_iter().collect::<BTreeSet<_>>(), (1..=30).collect());
    assert!(found.iter().all(|body| body["type"] == "item.created"), "{found:?}");
    bench.balanced().await;
    let count = bench.receiver.count();
    let Bench { database: _database, sql, receiver, toml, mut service } = bench;
    for _ in 0..2 {
        service.stop().await;
        service = Service::start(&toml).await;
    }
    sql.batch_execute("INSERT INTO items (id) VALUES (-1)").await.unwrap();
    receiver.wait_for(count + 1, AMPLE).await;
    assert_eq!(receiver.count(), count + 1, "the insert alone");
    assert_eq!(sql.text(ORDERS).await, "1 done");
}

#[tokio::test]
async fn a_kill_between_the_slot_and_the_order_orders_it_once() {
    for death in ["slot_made", "state_begun"] {
        let FirstStart { database, sql, receiver, toml } = before().await;
        let mut killed = Program::start(&["run"], &toml, &[("WALHOOK_FAILPOINT", death)]);
        assert_eq!(killed.wait(AMPLE).await, None, "{death}: {:?}", killed.output());
        let made = format!(
            "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{}'",
            slot(&database)
        );
        assert_eq!(sql.text(&made).await, "1", "{death}");
        let before = if death == "slot_made" { "0 " } else { "1 running" };
        assert_eq!(sql.text(ORDERS).await, before, "{death}");
        let _service = Service::start(&toml).await;
        wait_for_text(&sql, ORDERS, "1 done").await;
        let found = ids(&reads(&receiver.requests()));
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), (1..=20).collect(), "{death}");
    }
}

#[tokio::test]
async fn a_standby_and_its_takeover_order_nothing_more() {
    let FirstStart { database: _database, sql, receiver, toml } = before().await;
    // Both start at once: one of them has the slot, and the other stands by.
    let services = [Service::open(&toml).await, Service::open(&toml).await];
    let count = receiver.wait_for(20, AMPLE).await.len();
    wait_for_text(&sql, ORDERS, "1 done").await;
    let running = |service: &Service| {
        service.program.output().iter().any(|line| line.contains("walhook is running"))
    };
    let [one, other] = services;
    let (mut holder, mut standby) = if running(&one) { (one, other) } else { (other, one) };
    holder.program.kill();
    holder.program.wait(AMPLE).await;
    standby.program.wait_for_line("walhook is running", AMPLE).await;
    sql.batch_execute("INSERT INTO items (id) VALUES (-1)").await.unwrap();
    receiver.wait_for(count + 1, AMPLE).await;
    assert_eq!(sql.text(ORDERS).await, "1 done");
    assert_eq!(reads(&receiver.requests()).len(), 20);
}

#[tokio::test]
async fn with_an_accepted_gap_nothing_is_sent_by_itself_and_the_command_is_said() {
    let FirstStart { database: _database, sql, receiver, toml } = before().await;
    let mut program = Program::start(&["run", "--accept-gap"], &toml, &[]);
    let said = program.wait_for_line("no rows are sent by themselves", AMPLE).await;
    assert!(said.contains("walhook backfill public.items --as item.created"), "{said}");
    program.wait_for_line("walhook is running", AMPLE).await;
    program.terminate();
    assert_eq!(program.wait(AMPLE).await, Some(0), "{:?}", program.output());
    // Nor by the next start, which has no gap before it.
    let service = Service::start(&toml).await;
    sql.batch_execute("INSERT INTO items (id) VALUES (-1)").await.unwrap();
    receiver.wait_for(1, AMPLE).await;
    assert_eq!(sql.text(ORDERS).await, "0 ");
    let (code, shown) =
        service.cli(&["backfill", "public.items", "--as", "item.created", "--json"]).await;
    assert_eq!(code, Some(0), "{shown}");
    wait_for_text(&sql, ORDERS, "1 done").await;
}

#[tokio::test]
async fn check_says_what_a_start_will_do_about_rows() {
    let FirstStart { database: _database, sql, receiver: _receiver, toml } = before().await;
    let mut check = Program::start(&["check"], &toml, &[]);
    assert_eq!(check.wait(AMPLE).await, Some(0), "{:?}", check.output());
    let said = check.output().join("\n");
    let expected =
        "event item.created: walhook run will send the rows of public.items, about 20, once";
    assert!(said.contains(expected), "{said}");
    assert!(!said.contains("event item.changed: walhook run will"), "{said}");
    let mut service = Service::start(&toml).await;
    wait_for_text(&sql, ORDERS, "1 done").await;
    service.stop().await;
    let mut check = Program::start(&["check"], &toml, &[]);
    assert_eq!(check.wait(AMPLE).await, Some(0), "{:?}", check.output());
    let said = check.output().join("\n");
    assert!(said.contains("no start sends the rows of public.items by itself"), "{said}");
    assert!(said.contains("walhook backfill public.items --as item.created"), "{said}");
}

#[tokio::test]
async fn rows_that_cannot_be_read_are_named_before_anything_is_made() {
    let FirstStart { database, sql, receiver: _receiver, toml } = before().await;
    // A partition has rights of its own, which the stream does not ask for.
    let role = format!("{}_reader", database.name());
    let setup = format!(
        "CREATE ROLE {role} LOGIN REPLICATION; GRANT CREATE ON DATABASE {} TO {role};
         DROP TABLE items;
         CREATE TABLE items (id int PRIMARY KEY, version bigint, large text) PARTITION BY RANGE (id);
         CREATE TABLE items_a PARTITION OF items FOR VALUES FROM (0) TO (100);
         GRANT SELECT ON items TO {role};
         CREATE PUBLICATION {} FOR TABLE items WITH (publish_via_partition_root)",
        database.name(),
        slot(&database),
    );
    sql.batch_execute(&setup).await.unwrap();
    let theirs = toml
        .replace("postgres://postgres@", &format!("postgres://{role}@"))
        .replace("[http]", &format!("publication = \"{}\"\n\n[http]", slot(&database)));
    for command in ["check", "run"] {
        let mut program = Program::start(&[command], &theirs, &[]);
        let code = program.wait(AMPLE).await;
        let said = program.output().join("\n");
        assert_eq!(code, Some(3), "{command}: {said}");
        assert!(said.contains("rows for a backfill of event item.created"), "{command}: {said}");
        assert!(said.contains("may not read public.items_a"), "{command}: {said}");
    }
    let made = format!(
        "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{}'",
        slot(&database)
    );
    assert_eq!(sql.text(&made).await, "0", "nothing is made");
    sql.batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await.unwrap();
}

/// As an operator begins: `init --backfill`, the SQL that it prints, `run`, and `run` again.
#[tokio::test]
async fn what_init_writes_has_the_rows_sent_once() {
    let FirstStart { database, sql, receiver, .. } = before().await;
    let (url, to) = (database.url(), receiver.url());
    let args = ["--backfill", "--database-url", &url, "--url", &to, "--table", "items"];
    let args = [&["init", "--output", "made.toml"], args.as_slice()].concat();
    let mut init = Program::start(&args, "", &[]);
    assert_eq!(init.wait(AMPLE).await, Some(0), "{:?}", init.output());
    let said = init.output();
    let is_sql = |line: &&String| line.starts_with("CREATE ") || line.starts_with("ALTER ");
    let script: Vec<String> = said.iter().filter(is_sql).cloned().collect();
    sql.batch_execute(&script.join("\n")).await.unwrap();
    let made = std::fs::read_to_string(init.home().join("made.toml")).unwrap();
    assert_eq!(made.matches("\nbackfill = true").count(), 1, "{made}");
    // All tests share a server, and may share a host's ports.
    let toml = made
        .replace("slot = \"walhook\"", &format!("slot = \"{}\"", slot(&database)))
        .replace("127.0.0.1:9464", "127.0.0.1:0");
    for start in 1..=2 {
        let mut service = Service::start(&toml).await;
        wait_for_text(&sql, ORDERS, "1 done").await;
        sql.batch_execute(&format!("INSERT INTO items (id) VALUES (-{start})")).await.unwrap();
        receiver.wait_for(20 + start, AMPLE).await;
        service.stop().await;
    }
    let requests = receiver.requests();
    let found = reads(&requests);
    assert_eq!((requests.len(), found.len()), (22, 20), "{found:?}");
    assert_eq!(ids(&found).into_iter().collect::<BTreeSet<_>>(), (1..=20).collect());
    assert!(found.iter().all(|body| body["type"] == "items.created"), "{found:?}");
}
