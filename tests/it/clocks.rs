//! Clocks that are set or wrong: fresh events are sent, signatures follow the host, and it is said.
//!
//! The database of each test has a clock that can be set: a function of that name in place of the
//! server's own.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

use walhook::testing::clock::host_now;

use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::support::postgres::wait_for_text;
use crate::support::preload::Preload;
use crate::support::program::Program;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::Request;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;

/// Rows are born by the clock that can be set; `committed` of the others is PostgreSQL's own.
const TABLES: &str = "
    CREATE TABLE clock (ahead interval NOT NULL); INSERT INTO clock VALUES ('0');
    SET allow_system_table_mods = on;
    UPDATE pg_proc SET proname = 'real_clock'
     WHERE oid = 'pg_catalog.clock_timestamp()'::regprocedure;
    CREATE FUNCTION pg_catalog.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
        AS 'SELECT pg_catalog.real_clock() + (SELECT ahead FROM public.clock)';
    CREATE TABLE born (id int PRIMARY KEY,
                       create_time timestamptz NOT NULL DEFAULT clock_timestamp());
    CREATE TABLE plain (id int PRIMARY KEY);";

const EVENTS: &str = "
    [[event]]
    type = \"born\"
    table = \"public.born\"
    age_column = \"create_time\"
    expiry = \"5m\"

    [[event]]
    type = \"plain\"
    table = \"public.plain\"
    expiry = \"5m\"
";

async fn set_up() -> (Database, Sql, Receiver, String) {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(TABLES).await.unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    let url = receiver.url();
    let rest =
        format!("[webhook]\nurls = [\"{url}\"]\nsecret = \"a secret of some length\"\n{EVENTS}");
    let toml = configuration(&database, &rest);
    (database, sql, receiver, toml)
}

async fn set(sql: &Sql, ahead: &str) {
    sql.batch_execute(&format!("UPDATE clock SET ahead = '{ahead}'")).await.unwrap();
}

/// Three hours ahead and back, and three hours behind and back, while rows come.
#[tokio::test]
async fn no_fresh_event_expires_while_the_clock_is_set() {
    let (_database, sql, receiver, toml) = set_up().await;
    let mut service = Service::start(&toml).await;
    let books = "SELECT sum(delivered) || ' ' || sum(expired) FROM walhook.balance";
    sql.batch_execute("INSERT INTO born VALUES (0, clock_timestamp() - interval '6 min')")
        .await
        .unwrap();
    wait_for_text(&sql, books, "0 1").await;
    let mut rows = 0;
    for ahead in ["0", "3 h", "3 h", "0", "0", "-3 h", "-3 h", "0"] {
        set(&sql, ahead).await;
        for _ in 0..5 {
            rows += 1;
            let insert =
                format!("INSERT INTO born VALUES ({rows}); INSERT INTO plain VALUES ({rows})");
            sql.batch_execute(&insert).await.unwrap();
        }
        receiver.wait_for(rows * 2, AMPLE).await;
    }
    wait_for_text(&sql, books, &format!("{} 1", rows * 2)).await;
    service.stop().await;
}

/// The host's own clock, three hours ahead and back, and behind and back: what is fresh is sent, a
/// retry comes when it is due, and signatures follow the clock that receivers compare them with.
#[tokio::test]
async fn nothing_expires_or_waits_while_the_hosts_clock_is_set() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(
        "CREATE TABLE born (id int PRIMARY KEY, create_time timestamptz NOT NULL DEFAULT now());
         CREATE TABLE plain (id int PRIMARY KEY)",
    )
    .await
    .unwrap();
    // Each event is refused once.
    let seen = std::sync::Mutex::new(std::collections::BTreeSet::new());
    let receiver = Receiver::start(std::sync::Arc::new(move |request: &Request| {
        let is_new = seen.lock().unwrap().insert(request.header("webhook-id").to_owned());
        Answer::status(if is_new { 503 } else { 200 })
    }));
    let rest = format!(
        "[[endpoint]]\nname = \"crm\"\nurl = \"{}\"\nsecret = \"a secret of some length\"\nbreaker = false\n\
         retry = {{ delays = [\"1s\", \"1s\", \"1s\"] }}\n{EVENTS}",
        receiver.url()
    );
    let preload = Preload::build();
    let environment = preload.environment();
    let environment: Vec<(&str, &str)> =
        environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let toml = configuration(&database, &rest);
    let mut service = Service::start_with(&toml, &environment).await;
    let mut rows = 0;
    for ahead in [0, 3, 3, 0, 0, -3, -3, 0] {
        for _ in 0..5 {
            rows += 1;
            let insert =
                format!("INSERT INTO born VALUES ({rows}); INSERT INTO plain VALUES ({rows})");
            sql.batch_execute(&insert).await.unwrap();
        }
        // While they are on their way, and wait for their second attempt.
        preload.set_clock(ahead * 3_600);
        let sent = receiver.wait_for(rows * 4, AMPLE).await;
        let at: i64 = sent.last().unwrap().header("webhook-timestamp").parse().unwrap();
        let apart = host_now().seconds() + ahead * 3_600 - at;
        assert!((-5..120).contains(&apart), "{ahead} h: {apart} s from the host's clock");
    }
    let books = "SELECT sum(delivered) || ' ' || sum(expired) FROM walhook.balance";
    wait_for_text(&sql, books, &format!("{} 0", rows * 2)).await;
    service.stop().await;
}

#[tokio::test]
async fn signatures_follow_the_host_while_the_database_is_twenty_minutes_off() {
    let (_database, sql, receiver, toml) = set_up().await;
    for (ahead, side, least) in [("20 min", "ahead of", 1_190.0), ("-20 min", "behind", -1_210.0)] {
        set(&sql, ahead).await;
        let mut check = Program::start(&["check"], &toml, &[]);
        check.wait(AMPLE).await;
        let said = check.output().join("\n");
        assert!(said.contains(side) && said.contains("NTP"), "{ahead}: {said}");

        let before = receiver.count();
        let mut service = Service::start(&toml).await;
        sql.batch_execute(&format!("INSERT INTO born VALUES ({before})")).await.unwrap();
        let sent = receiver.wait_for(before + 1, AMPLE).await;
        let at: i64 = sent.last().unwrap().header("webhook-timestamp").parse().unwrap();
        let apart = host_now().seconds() - at;
        assert!((-5..120).contains(&apart), "{ahead}: {apart} s from the host's clock");
        let line = service.program.wait_for_line("the database's clock is 1", AMPLE).await;
        assert!(line.contains("WARN") && line.contains(side), "{line}");
        let metric = service.metric("walhook_clock_ahead_seconds").await;
        assert!((least..least + 20.0).contains(&metric), "{ahead}: {metric}");
        service.stop().await;
    }
}
