//! What waits in a state that an older version has left goes on waiting, and is sent by this one.
//!
//! `data/state-0021.sql` is what the last version before migration 22 had left in a database when it was
//! killed: parked deliveries of an endpoint that is down and of one that is paused, which the API made; dead
//! letters, a paused replay, values that were seen, write-backs that are open, and what was settled beyond
//! the prefix. Its slot is called `waiting_slot`, and its endpoint of the API points to `127.0.0.1:39001`.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]
#![expect(clippy::indexing_slicing, reason = "a missing field fails the test as it should")]

use std::collections::BTreeMap;

use serde_json::json;
use walhook::testing::config::settings::ServerSettings;
use walhook::testing::config::settings::TlsSettings;
use walhook::testing::store::connect;
use walhook::testing::store::migrate::migrate;
use walhook::testing::store::progress;

use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::support::postgres::wait_for_text;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::slot;

const DUMP: &str = include_str!("data/state-0021.sql");

/// The tables of the state that had rows.
const TABLES: [&str; 15] = [
    "backlog",
    "books",
    "counted",
    "dead_letters",
    "endpoint_states",
    "endpoints",
    "fronts",
    "progress",
    "push_log_events",
    "push_totals",
    "replays",
    "runs",
    "seen_values",
    "settled_ahead",
    "write_backs",
];

fn base(receiver: &Receiver) -> String {
    format!("http://{}", receiver.address())
}

/// A database with that state in it.
async fn restored(receiver: &Receiver) -> (Database, Sql) {
    let database = Database::create().await;
    let dump = DUMP
        .replace("waiting_slot", &slot(&database))
        .replace("http://127.0.0.1:39001", &base(receiver));
    let sql = database.sql().await;
    sql.batch_execute(&dump).await.unwrap();
    (database, sql)
}

/// The columns that newer versions have added, as `-` takes them away.
const NEWER: &str = "'{partition,partitions,member,lease_until,at_source,rewind,version}'::text[]";

/// All rows, without the columns that the newer version has added.
async fn rows(sql: &Sql) -> BTreeMap<&'static str, String> {
    let mut all = BTreeMap::new();
    for table in TABLES {
        let query = format!(
            "SELECT coalesce(string_agg(line, E'\\n' ORDER BY line), '')
               FROM (SELECT (to_jsonb(t) - {NEWER})::text AS line FROM walhook.{table} t) AS lines"
        );
        all.insert(table, sql.text(&query).await);
    }
    let balance = "SELECT string_agg(b::text, E'\\n' ORDER BY b::text) FROM walhook.balance b";
    all.insert("balance", sql.text(balance).await);
    all
}

#[tokio::test]
async fn not_a_row_of_it_is_lost_or_changed() {
    let receiver = Receiver::start(always(Answer::status(200)));
    let (database, sql) = restored(&receiver).await;
    let before = rows(&sql).await;
    assert!(before.iter().all(|(_, rows)| !rows.is_empty()), "{before:#?}");
    let server = ServerSettings::new(database.url().parse().unwrap(), TlsSettings::default());
    let mut session = connect(&server).await.unwrap();
    // Also who only looks finds the old state, before somebody has brought it up to date.
    let old = progress::load(&session.client, &slot(&database)).await.unwrap().unwrap();
    migrate(&mut session.client).await.unwrap();
    assert_eq!(rows(&sql).await, before);
    let new = progress::load(&session.client, &slot(&database)).await.unwrap().unwrap();
    assert_eq!(new, old);
    let settled_ahead =
        progress::load_settled_ahead(&session.client, &slot(&database)).await.unwrap();
    assert_eq!(settled_ahead.iter().map(|(endpoint, _)| &**endpoint).collect::<Vec<_>>(), ["crm"]);
}

/// The old WAL is gone with its server: a slot is made here, and the state is told that it is this one's.
async fn moved_here(database: &Database, sql: &Sql) {
    let slot = slot(database);
    sql.batch_execute(&format!(
        "CREATE PUBLICATION \"{slot}\" FOR TABLE public.orders, public.notes"
    ))
    .await
    .unwrap();
    // What is parked is older than all that this server writes from here on.
    for _ in 0..3 {
        sql.batch_execute("SELECT pg_switch_wal()").await.unwrap();
    }
    sql.batch_execute(&format!(
        "SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput');
         UPDATE walhook.progress SET timeline = 1,
                system_identifier = (SELECT system_identifier FROM pg_control_system()),
                publication_oids = ARRAY(SELECT oid FROM pg_publication WHERE pubname = '{slot}'),
                confirmed_lsn = s.confirmed_flush_lsn, settled_lsn = s.confirmed_flush_lsn
           FROM pg_replication_slots s WHERE s.slot_name = '{slot}' AND slot = '{slot}'"
    ))
    .await
    .unwrap();
}

fn configured(database: &Database, receiver: &Receiver) -> String {
    let (url, to, slot) = (database.url(), base(receiver), slot(database));
    format!(
        "[postgres]\nurl = \"{url}\"\nslot = \"{slot}\"\npublication = \"{slot}\"\n
         [http]\nlisten = \"127.0.0.1:0\"\n
         [log]\nfilter = \"walhook=debug\"\n
         [endpoints]\nallow = [\"127.0.0.1\"]\n
         [push_log]\nbodies = \"all\"\nretention_days = 3650\n
         [dead_letters]\nretention_days = 3650\n
         [webhook]\nbacklog = {{ age = \"365d\" }}\n
         [[event]]\ntype = \"order.placed\"\ntable = \"public.orders\"\non = [\"insert\"]\n
         write_back = {{ column = \"status\", delivered = \"sent\", failed = \"not_sent\" }}\n
         [[event]]\ntype = \"note.added\"\ntable = \"public.notes\"\non = [\"insert\"]\n
         dedupe = {{ by = [\"text\"], window = \"7d\" }}\n
         [[endpoint]]\nname = \"crm\"\nurl = \"{to}/crm\"\n
         [[endpoint]]\nname = \"down\"\nurl = \"{to}/down\"\nevents = [\"order.*\"]\n
         [[endpoint]]\nname = \"slow\"\nurl = \"{to}/slow\"\nevents = [\"order.*\"]\n"
    )
}

/// The ids of the rows that came at this path, in order.
fn came(receiver: &Receiver, path: &str) -> Vec<i64> {
    let requests = receiver.requests();
    let here = requests.iter().filter(|request| request.path == path);
    here.map(|request| request.json()["data"]["id"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn all_that_waits_in_it_is_sent_when_its_time_has_come() {
    let receiver = Receiver::start(always(Answer::status(200)));
    let (database, sql) = restored(&receiver).await;
    moved_here(&database, &sql).await;
    let mut service = Service::start(&configured(&database, &receiver)).await;
    let waiting = |endpoint: &str| {
        format!("SELECT count(*) FROM walhook.backlog WHERE endpoint = '{endpoint}'")
    };
    // Its address is another one, so what waits is tried at once.
    wait_for_text(&sql, &waiting("down"), "0").await;
    let mut down = came(&receiver, "/down");
    down.sort_unstable();
    assert_eq!(down, [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(sql.text(&waiting("late")).await, "7", "it is paused, and nobody has resumed it");
    assert_eq!(came(&receiver, "/late"), [0; 0]);
    let (code, said) = service.cli(&["endpoints", "resume", "late"]).await;
    assert_eq!(code, Some(0), "{said}");
    wait_for_text(&sql, &waiting("late"), "0").await;
    assert_eq!(came(&receiver, "/late").len(), 7);
    // The dead letters, the replay.
    assert_eq!(came(&receiver, "/crm"), [0; 0]);
    let order = json!({ "endpoint": "crm", "all": true });
    let reply = service.post("/api/v1/dead-letters/resend", &order).await;
    assert!(reply.status.is_success(), "{reply:?}");
    let letters = "SELECT count(*) FROM walhook.dead_letters WHERE state = 'delivered'";
    wait_for_text(&sql, letters, "2").await;
    let mut resent = came(&receiver, "/crm");
    resent.sort_unstable();
    assert_eq!(resent, [4, 5]);
    let (code, said) = service.cli(&["replay", "resume", "1"]).await;
    assert_eq!(code, Some(0), "{said}");
    wait_for_text(&sql, "SELECT state || ' ' || delivered FROM walhook.replays", "done 4").await;
    // A value that was seen then is a repeat now; a new one is not.
    let seen = "SELECT string_agg(extract(epoch FROM committed)::bigint::text, ' ') FROM walhook.seen_values";
    assert!(!sql.text(seen).await.is_empty());
    sql.batch_execute("INSERT INTO notes VALUES (11, 'third')").await.unwrap();
    receiver.wait_for(7 + 7 + 2 + 4 + 1, AMPLE).await;
    assert_eq!(came(&receiver, "/crm").last(), Some(&11));
    // What is new goes on in the same rows.
    sql.batch_execute("INSERT INTO orders VALUES (12, 'good')").await.unwrap();
    wait_for_text(&sql, "SELECT status FROM orders WHERE id = 12", "sent").await;
    let progress =
        "SELECT string_agg(concat_ws(' ', partition, epoch), ', ') FROM walhook.progress";
    assert_eq!(sql.text(progress).await, "0 2");
    service.stop().await;
}
