//! Generated columns: sent from PostgreSQL 18 on, where they are stored; refused where they are not.

use walhook::testing::sandbox::cluster::ClusterOptions;
use walhook::testing::sandbox::cluster::SandboxCluster;

use super::assert_refused;
use super::ended;
use super::event;
use super::webhook;
use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::support::postgres::has_version;
use crate::support::postgres::installation;
use crate::support::postgres::versions;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;

const TABLE: &str = "CREATE TABLE o (id int PRIMARY KEY, price numeric, qty int,
    total numeric GENERATED ALWAYS AS (price * qty) STORED)";

/// Keys of an event that each name the column.
const NAMED: [&str; 5] = [
    "when = \"total > 5.0\"",
    "payload = { total = \"{{ total }}\" }",
    "order_by = [\"total\"]",
    "dedupe = { by = [\"total\"], window = \"1h\" }",
    "expiry = \"1h\"\nage_column = \"total\"",
];

#[tokio::test]
async fn a_generated_column_is_refused_where_it_is_not_sent() {
    if installation().major() >= 18 {
        return;
    }
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(TABLE).await.unwrap();
    for named in NAMED {
        let toml = configuration(&database, &(event("o", named) + &webhook(super::NOWHERE)));
        let said = ["column total of table public.o is not sent", "generated", "price"];
        assert_refused(&sql, &toml, &said).await;
    }
    let own =
        "[[endpoint]]\nname = \"own\"\nurl = \"http://127.0.0.1:9/\"\nwhen = \"total > 5.0\"\n";
    let toml = configuration(&database, &(event("o", "") + own));
    assert_refused(&sql, &toml, &["endpoint own", "names column total", "does not send"]).await;
    let plain = configuration(&database, &(event("o", "") + &webhook(super::NOWHERE)));
    assert_eq!(ended("check", &plain).await.0, Some(0));
}

#[tokio::test]
async fn postgresql_18_sends_those_that_are_stored() {
    let newest = versions().into_iter().max_by_key(|installation| installation.major()).unwrap();
    if !has_version(&newest, 18, "generated columns") {
        return;
    }
    let cluster = SandboxCluster::start(&newest, ClusterOptions::default());
    let cluster = cluster.unwrap_or_else(|error| panic!("{error}"));
    let url = cluster.url("postgres");
    let sql = Sql::connect(&url).await;
    sql.batch_execute(&format!(
        "{TABLE}; ALTER TABLE o REPLICA IDENTITY FULL;
         CREATE TABLE v (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) VIRTUAL);
         ALTER TABLE v REPLICA IDENTITY FULL"
    ))
    .await
    .unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    let server = format!("[postgres]\nurl = \"{url}\"\n[http]\nlisten = \"127.0.0.1:0\"\n");
    let virtual_column = format!("{server}{}{}", event("v", ""), webhook(super::NOWHERE));
    assert_refused(&sql, &virtual_column, &["virtual generated columns", "USING INDEX"]).await;
    sql.batch_execute("ALTER TABLE v REPLICA IDENTITY DEFAULT").await.unwrap();
    let named =
        format!("{server}{}{}", event("v", "when = \"twice > 1\""), webhook(super::NOWHERE));
    assert_refused(&sql, &named, &["column twice of table public.v is not sent"]).await;

    let filtered = event("o", "when = \"total > 5.0\"");
    let toml = format!("{server}{filtered}{}", webhook(&receiver.url()));
    for made in ["", "CREATE PUBLICATION walhook FOR TABLE o"] {
        sql.batch_execute(made).await.unwrap();
        let (code, output) = ended("check", &toml).await;
        assert_eq!(code, Some(0), "{output}");
        assert!(output.contains("publish_generated_columns = stored"), "{output}");
        let mut service = Service::start(&toml).await;
        let before = receiver.count();
        sql.batch_execute(
            "INSERT INTO o (id, price, qty) VALUES (1, 2, 2), (2, 3, 2); UPDATE o SET qty = 3;
             DELETE FROM o",
        )
        .await
        .unwrap();
        let requests = receiver.wait_for(before + 5, AMPLE).await;
        assert_eq!(requests[before].json()["data"]["total"], 6);
        service.stop().await;
        sql.batch_execute(
            "SELECT pg_drop_replication_slot('walhook'); DROP PUBLICATION walhook;
             DROP SCHEMA walhook CASCADE",
        )
        .await
        .unwrap();
    }
}
