//! Tables of the state that somebody drops or alters under a running walhook: named as a start names it, and
//! waited for.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

use walhook::testing::store::migrate;

use super::taking;
use super::wait_until_named;
use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::support::postgres::wait_for_text;
use crate::support::program::Program;
use crate::support::receiver::Receiver;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;

const DELIVERED: &str = "SELECT coalesce(sum(delivered), 0)::text FROM walhook.balance";

async fn started() -> (Database, Sql, Receiver, String) {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute("CREATE TABLE t (id int PRIMARY KEY, status text)").await.unwrap();
    let receiver = taking();
    let toml = configuration(
        &database,
        &format!(
            "[[event]]\ntype = \"t\"\ntable = \"public.t\"\non = [\"insert\"]\n\
             dedupe = {{ by = [\"id\"], window = \"1m\" }}\n\
             write_back = {{ column = \"status\", delivered = \"sent\", failed = \"lost\" }}\n\n\
             [webhook]\nurls = [\"{}\"]\n",
            receiver.url()
        ),
    );
    (database, sql, receiver, toml)
}

/// Each is away while there is something to write, and comes back as it was.
#[tokio::test]
async fn each_table_that_is_dropped_is_named_and_waited_for() {
    let (_database, sql, receiver, toml) = started().await;
    let mut service = Service::start(&toml).await;
    let mut rows = 0;
    for table in migrate::tables() {
        let away = format!("ALTER TABLE walhook.{table} RENAME TO away");
        sql.batch_execute(&away).await.unwrap();
        rows += 1;
        sql.batch_execute(&format!("INSERT INTO t VALUES ({rows})")).await.unwrap();
        let named =
            wait_until_named(&service, &format!("schema walhook lacks {table}, which walhook"))
                .await;
        assert!(named.contains("restore them from a backup"), "{named}");
        let back = format!("ALTER TABLE walhook.away RENAME TO {table}");
        sql.batch_execute(&back).await.unwrap();
        service.wait_for_status("/ready", 200).await;
        wait_for_text(&sql, DELIVERED, &rows.to_string()).await;
    }
    let told = "SELECT count(*)::text FROM t WHERE status = 'sent'";
    wait_for_text(&sql, told, &rows.to_string()).await;
    assert_eq!(receiver.count(), rows);
    service.stop().await;
}

#[tokio::test]
async fn a_schema_that_is_dropped_is_named_as_the_restart_names_it() {
    let (_database, sql, _receiver, toml) = started().await;
    let mut service = Service::start(&toml).await;
    sql.batch_execute("ALTER SCHEMA walhook RENAME TO away").await.unwrap();
    sql.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
    wait_until_named(&service, "schema walhook lacks all of its tables").await;
    sql.batch_execute("ALTER SCHEMA away RENAME TO walhook").await.unwrap();
    service.wait_for_status("/ready", 200).await;
    wait_for_text(&sql, DELIVERED, "1").await;
    service.stop().await;
    // Without the table that says which version the others are of.
    sql.batch_execute("DROP TABLE walhook.schema_version").await.unwrap();
    for command in ["check", "run"] {
        let mut program = Program::start(&[command], &toml, &[]);
        assert_eq!(program.wait(AMPLE).await, Some(3), "{:?}", program.output());
        let said = program.output().join("\n");
        assert!(said.contains("schema walhook lacks schema_version"), "{command}: {said}");
    }
}

#[tokio::test]
async fn a_table_that_is_altered_ends_it_with_what_it_is() {
    let (_database, sql, _receiver, toml) = started().await;
    let mut service = Service::start(&toml).await;
    sql.batch_execute("ALTER TABLE walhook.progress RENAME COLUMN settled_lsn TO settled")
        .await
        .unwrap();
    sql.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
    let code = service.program.wait(AMPLE).await;
    let said = service.program.output().join("\n");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("in schema walhook: was it changed by hand?"), "{said}");
    assert!(said.contains("settled_lsn"), "{said}");
}
