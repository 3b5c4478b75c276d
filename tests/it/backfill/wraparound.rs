//! Ids of transactions that come round while rows are read.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::process::Command;

use serde_json::json;
use tokio::task::spawn_blocking;
use walhook::testing::sandbox::cluster::ClusterOptions;
use walhook::testing::sandbox::cluster::SandboxCluster;

use super::Bench;
use super::ITEMS;
use super::Kept;
use super::Place;
use super::RULE;
use super::reads;
use super::writers::ROWS;
use super::writers::beside_writers_of;
use crate::support::postgres::Sql;
use crate::support::postgres::start_cluster;

/// Transactions in a file of `pg_xact`: 32 pages of four to the byte.
const SEGMENT: u32 = 32 * 8192 * 4;

/// Stops the server, and has its next transaction be `xid`.
fn set_next(cluster: &mut SandboxCluster, xid: u32, epoch: u32) {
    cluster.stop().unwrap();
    let account = cluster.installation().account().clone();
    let clog = cluster.data_dir().join("pg_xact").join(format!("{:04X}", xid / SEGMENT));
    if !clog.exists() {
        fs::write(&clog, vec![0; 32 * 8192]).unwrap();
        if account.uid != rustix::process::geteuid().as_raw() {
            chown(&clog, Some(account.uid), Some(account.gid)).unwrap();
        }
    }
    let mut reset = Command::new(cluster.installation().bin().join("pg_resetwal"));
    if account.uid != rustix::process::geteuid().as_raw() {
        reset.uid(account.uid).gid(account.gid);
    }
    reset.current_dir("/").arg("-x").arg(xid.to_string()).arg("-e").arg(epoch.to_string());
    let reset = reset.arg("-D").arg(cluster.data_dir()).output().unwrap();
    assert!(reset.status.success(), "{reset:?}");
    cluster.start_again().unwrap();
}

/// Everything that is there has been there for ever, so that ids may go on far.
async fn freeze(cluster: &SandboxCluster) {
    let sql = Sql::connect(&cluster.url("postgres")).await;
    sql.batch_execute("ALTER DATABASE template0 ALLOW_CONNECTIONS true").await.unwrap();
    for database in ["template0", "template1", "postgres"] {
        let sql = Sql::connect(&cluster.url(database)).await;
        sql.batch_execute("VACUUM FREEZE").await.unwrap();
    }
    sql.batch_execute("ALTER DATABASE template0 ALLOW_CONNECTIONS false").await.unwrap();
    sql.batch_execute("VACUUM FREEZE pg_database").await.unwrap();
}

/// A server whose ids have so many to go until they begin anew.
async fn shortly_before(left: u32) -> SandboxCluster {
    let options = ClusterOptions::default()
        .with("autovacuum", "off")
        .with("autovacuum_freeze_max_age", "2000000000");
    let mut cluster = start_cluster(options).await;
    // No further than half of the circle at once.
    for xid in [2_000_000_000, 4_000_000_000, u32::MAX - left] {
        freeze(&cluster).await;
        cluster = spawn_blocking(move || {
            set_next(&mut cluster, xid, 3);
            cluster
        })
        .await
        .unwrap();
    }
    cluster
}

/// Uses up so many ids.
async fn burn(sql: &Sql, ids: u32) {
    let burn = format!(
        "DO $$ BEGIN FOR i IN 1..{ids} LOOP
            BEGIN INSERT INTO burnt VALUES (i); EXCEPTION WHEN OTHERS THEN END;
         END LOOP; END $$"
    );
    sql.batch_execute(&burn).await.unwrap();
}

const EPOCH: &str = "SELECT txid_current() >> 32";

#[tokio::test]
async fn rows_stay_in_order_while_transaction_ids_come_round() {
    let cluster = shortly_before(3000).await;
    let tables = format!("{ITEMS} CREATE TABLE burnt (id int);");
    let bench = Bench::start_on(Place::Private(Box::new(cluster)), &tables, 60, RULE).await;
    assert_eq!(bench.sql.text(EPOCH).await, "3");
    let id = bench.order(json!({ "tables": ["public.items"], "rate": 20 })).await;
    bench.wait(id, |shown| shown["rows_sent"].as_i64().unwrap() > 0).await;
    // One that begins before the ids come round, and ends after: no snapshot in between sees it.
    let old = Sql::connect(&bench.database.url()).await;
    old.batch_execute("BEGIN; UPDATE items SET version = 2 WHERE id IN (1, 59, 60)").await.unwrap();
    burn(&bench.sql, 3200).await;
    assert_eq!(bench.sql.text(EPOCH).await, "4");
    // One that is over on the other side of it.
    bench.sql.batch_execute("UPDATE items SET version = 3 WHERE id = 58").await.unwrap();
    let sent = bench.show(id).await["rows_sent"].as_i64().unwrap();
    bench
        .wait(id, |shown| {
            shown["state"] != "running" || shown["rows_sent"].as_i64().unwrap() > sent
        })
        .await;
    old.batch_execute("COMMIT").await.unwrap();
    assert_eq!(bench.done(id).await["state"], "done");
    bench.drained().await;
    Kept::of(&bench.receiver.requests()).must_be(&bench.sql).await;
    // And with everything on the other side.
    let again = bench.items().await;
    assert_eq!(bench.done(again).await["state"], "done");
    bench.drained().await;
    Kept::of(&bench.receiver.requests()).must_be(&bench.sql).await;
    bench.balanced().await;
}

#[tokio::test]
async fn beside_writers_over_the_end_of_transaction_ids_the_receiver_ends_with_the_table() {
    let cluster = shortly_before(5000).await;
    let (rows, tables) =
        (u32::try_from(ROWS).unwrap(), format!("{ITEMS} CREATE TABLE burnt (id int);"));
    let bench = Bench::start_on(Place::Private(Box::new(cluster)), &tables, rows, RULE).await;
    assert_eq!(bench.sql.text(EPOCH).await, "3");
    // While chunks are read, and others write.
    let end = async {
        let other = Sql::connect(&bench.database.url()).await;
        while reads(&bench.receiver.requests()).is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        burn(&other, 5000).await;
    };
    let wishes = vec![json!({ "tables": ["public.items"], "rate": 500 })];
    tokio::join!(beside_writers_of(&bench, wishes), end);
    assert_eq!(bench.sql.text(EPOCH).await, "4");
}
