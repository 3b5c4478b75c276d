//! An endpoint that is down costs nothing: its deliveries wait in `walhook.backlog`, in order, while
//! the slot moves on; what is given up becomes a dead letter, and every attempt is in the push log.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may stop at once")]

use std::collections::HashMap;

use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::support::postgres::wait_for_text;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;
use crate::support::service::name_of;
use crate::support::service::slot;

const TABLE: &str = "CREATE TABLE orders (id int PRIMARY KEY, version int NOT NULL)";

/// Keys, and versions of each: more than fits into a lane of 100.
const KEYS: i64 = 50;
const VERSIONS: i64 = 20;

/// Two endpoints whose lanes hold 100 events; the second one is in trouble.
fn two_endpoints(database: &Database, healthy: &Receiver, troubled: &Receiver) -> String {
    let (good, bad) = (healthy.url(), troubled.url());
    let rest = format!(
        "[[event]]\ntype = \"order\"\ntable = \"public.orders\"\n\n\
         [webhook]\nqueue_capacity = 100\n\
         breaker = {{ failures = 5, cooldown = \"100ms\", cap = \"200ms\" }}\n\
         retry_interval = \"20ms\"\nmax_retries = 100\nretry_cap = \"100ms\"\n\n\
         [[endpoint]]\nname = \"good\"\nurl = \"{good}\"\nevents = [\"order\"]\nconcurrency = 8\n\n\
         [[endpoint]]\nname = \"bad\"\nurl = \"{bad}\"\nevents = [\"order\"]\nconcurrency = 8\n"
    );
    configuration(database, &rest)
}

async fn change_everything(sql: &Sql) {
    sql.batch_execute(&format!("INSERT INTO orders SELECT n, 1 FROM generate_series(1, {KEYS}) n"))
        .await
        .unwrap();
    for version in 2..=VERSIONS {
        sql.batch_execute(&format!("UPDATE orders SET version = {version}")).await.unwrap();
    }
}

/// The first arrivals of each key must be all of its versions in order. A crash may repeat what was
/// not written down yet.
fn assert_all_in_order(receiver: &Receiver) {
    let mut seen: HashMap<i64, Vec<i64>> = HashMap::new();
    for request in receiver.requests() {
        let row = &request.json()["data"];
        let versions = seen.entry(row["id"].as_i64().unwrap()).or_default();
        let version = row["version"].as_i64().unwrap();
        if !versions.contains(&version) {
            versions.push(version);
        }
    }
    assert_eq!(i64::try_from(seen.len()).unwrap(), KEYS);
    for (key, versions) in seen {
        assert!(versions.iter().copied().eq(1..=VERSIONS), "key {key}: {versions:?}");
    }
}

/// WAL that is written by now is confirmed, but for less than what one change takes.
async fn wait_until_the_slot_is_free(sql: &Sql, database: &Database) {
    let end = sql.text("SELECT pg_current_wal_lsn() - 100000").await;
    let confirmed = format!(
        "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{}'
          AND confirmed_flush_lsn >= '{end}'",
        slot(database)
    );
    wait_for_text(sql, &confirmed, "1").await;
}

const PARKED: &str = "SELECT count(*) > 500 FROM walhook.backlog WHERE endpoint = 'bad'";
const PENDING: &str = "SELECT string_agg(endpoint || ' ' || captured || ' ' || delivered || ' ' || \
                       pending, ', ' ORDER BY endpoint) FROM walhook.balance";

#[tokio::test]
async fn a_dead_endpoint_holds_neither_the_slot_nor_the_others_and_gets_all_of_it_later() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(TABLE).await.unwrap();
    let (healthy, troubled) =
        (Receiver::start(always(Answer::status(200))), Receiver::start(always(Answer::Close)));
    let mut service = Service::start(&two_endpoints(&database, &healthy, &troubled)).await;
    change_everything(&sql).await;
    let all = KEYS * VERSIONS;
    healthy.wait_for(usize::try_from(all).unwrap(), AMPLE).await;
    assert_all_in_order(&healthy);
    wait_for_text(&sql, PARKED, "t").await;
    wait_until_the_slot_is_free(&sql, &database).await;
    assert_eq!(service.get("/ready").await.status, 200);
    service.wait_for_metric("walhook_breaker_open{endpoint=\"bad\"}", 1.0).await;
    assert_eq!(service.metric("walhook_breaker_open{endpoint=\"good\"}").await, 0.0);

    let down = troubled.count();
    troubled.behave(always(Answer::status(200)));
    let drained = format!("bad {all} {all} 0, good {all} {all} 0");
    wait_for_text(&sql, PENDING, &drained).await;
    wait_for_text(&sql, "SELECT count(*) FROM walhook.backlog", "0").await;
    // What was refused before is not among what was accepted.
    let accepted = troubled.requests().len() - down;
    assert_eq!(i64::try_from(accepted).unwrap(), all, "each once");
    service.stop().await;
}

#[tokio::test]
async fn what_is_parked_survives_a_kill_and_keeps_its_order() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(TABLE).await.unwrap();
    let (healthy, troubled) =
        (Receiver::start(always(Answer::status(200))), Receiver::start(always(Answer::Close)));
    let toml = two_endpoints(&database, &healthy, &troubled);
    let mut service = Service::start(&toml).await;
    change_everything(&sql).await;
    wait_for_text(&sql, PARKED, "t").await;
    service.program.kill();
    service.program.wait(AMPLE).await;

    // The receiver forgets the refused ones: only what it accepts counts.
    let recovered = Receiver::start(always(Answer::status(200)));
    let toml = toml.replace(&troubled.url(), &recovered.url());
    let mut again = Service::start(&toml).await;
    let all = KEYS * VERSIONS;
    wait_for_text(&sql, PENDING, &format!("bad {all} {all} 0, good {all} {all} 0")).await;
    again.stop().await;
    assert_all_in_order(&recovered);
    assert_all_in_order(&healthy);
}

#[tokio::test]
async fn what_is_given_up_is_a_dead_letter_and_every_attempt_is_in_the_push_log() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(TABLE).await.unwrap();
    let receiver = Receiver::start(always(Answer::status(503).body("no room")));
    let rest = format!(
        "[[event]]\ntype = \"order\"\ntable = \"public.orders\"\n\n[webhook]\nurls = [\"{}\"]\n\
         max_retries = 2\nretry_interval = \"5ms\"\n",
        receiver.url()
    );
    let mut service = Service::start(&configuration(&database, &rest)).await;
    sql.batch_execute("INSERT INTO orders VALUES (7, 1)").await.unwrap();
    let letter = "SELECT string_agg(concat_ws('|', endpoint, event_type, row_key, failure_class,
                      http_status, attempts, state), ' ') FROM walhook.dead_letters";
    let name = name_of(&receiver.url());
    wait_for_text(&sql, letter, &format!("{name}|order|7|status|503|3|dead")).await;
    let log = "SELECT string_agg(concat_ws('|', retry_count, outcome, http_status, response_body),
                   ' ' ORDER BY retry_count) FROM walhook.push_log";
    wait_for_text(&sql, log, "0|retry|503|no room 1|retry|503|no room 2|dead|503|no room").await;
    let masked = "SELECT count(*) FROM walhook.push_log WHERE request_body LIKE '%\"id\":7%'";
    assert_eq!(sql.text(masked).await, "3");
    wait_for_text(&sql, PENDING, &format!("{name} 1 0 0")).await;
    let letters = format!("walhook_dead_letters{{endpoint=\"{name}\"}}");
    assert_eq!(service.metric(&letters).await, 1.0);
    service.stop().await;
}

/// Before a table is analyzed for the first time PostgreSQL knows nothing of its rows, and any index looks as good
/// as another: rows that are delivered must not cost a look at all that wait.
#[tokio::test]
async fn a_backlog_that_nobody_has_analyzed_is_drained_row_by_row() {
    const ROWS: usize = 5000;
    let database = Database::create().await;
    let sql = database.sql().await;
    // In a table of some size an index looks better than to read all of it.
    sql.batch_execute(&format!("{TABLE}; ALTER TABLE orders ADD text text")).await.unwrap();
    let (healthy, troubled) =
        (Receiver::start(always(Answer::status(200))), Receiver::start(always(Answer::Close)));
    let mut service = Service::start(&two_endpoints(&database, &healthy, &troubled)).await;
    sql.batch_execute("ALTER TABLE walhook.backlog SET (autovacuum_enabled = false)")
        .await
        .unwrap();
    let insert = format!(
        "INSERT INTO orders SELECT n, 1, repeat('x', 1500) FROM generate_series(1, {ROWS}) n"
    );
    sql.batch_execute(&insert).await.unwrap();
    let parked = format!("SELECT count(*) > {} FROM walhook.backlog", ROWS / 2);
    wait_for_text(&sql, &parked, "t").await;
    troubled.behave(always(Answer::status(200)));
    wait_for_text(&sql, PENDING, &format!("bad {ROWS} {ROWS} 0, good {ROWS} {ROWS} 0")).await;
    service.stop().await;

    // A session tells what it has read when it ends, if not before.
    let of = "FROM pg_stat_user_tables WHERE relid = 'walhook.backlog'::regclass";
    let deleted = format!("SELECT n_tup_del = n_tup_ins AND n_tup_del > {} {of}", ROWS / 2);
    wait_for_text(&sql, &deleted, "t").await;
    let read: usize =
        sql.text(&format!("SELECT seq_tup_read + idx_tup_fetch {of}")).await.parse().unwrap();
    // 80,000 where nothing else runs, 500,000 on a machine with six times as much to do, 11 million by another index.
    assert!(read < 500 * ROWS, "{read} rows were read to deliver {ROWS}");
}
