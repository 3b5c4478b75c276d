//! Looking at a real server's set-up, and making what is missing.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

use walhook::testing::config::settings::Operations;
use walhook::testing::config::settings::PostgresSettings;
use walhook::testing::flow::relation::TableName;
use walhook::testing::replication::catalog::CheckReport;
use walhook::testing::replication::catalog::FindingLevel;
use walhook::testing::replication::catalog::inspect;
use walhook::testing::replication::catalog::prepare;
use walhook::testing::replication::catalog::wanted::WantedObjects;
use walhook::testing::replication::catalog::wanted::WantedTable;
use walhook::testing::replication::diagnostic::SetupDiagnostic;
use walhook::testing::replication::error::SourceError;
use walhook::testing::store;
use walhook::testing::store::SqlSession;

use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::wire::TIMEOUT;
use crate::wire::server;

const INSERT: Operations = Operations {
    insert: true,
    update: false,
    delete: false,
    truncate: false,
    read: false,
    schema: false,
};

fn wanted(database: &Database, tables: &[&str]) -> WantedObjects {
    let table = |name: &&str| WantedTable {
        name: TableName::new("public", *name),
        columns: vec!["id".to_owned()],
        streamed: vec!["id".to_owned()],
        operations: INSERT,
        named_in: Vec::new(),
    };
    WantedObjects {
        failover: false,
        slot: database.name().to_owned(),
        publication: "it's \"mine\"".to_owned(),
        tables: tables.iter().map(table).collect(),
    }
}

async fn session(database: &Database) -> SqlSession {
    store::connect(&server(&database.url())).await.unwrap()
}

/// How [`prepare`] gets to the server; the names are [`wanted`]'s.
fn postgres(url: &str) -> PostgresSettings {
    PostgresSettings {
        server: server(url),
        slot: String::new(),
        publication: String::new(),
        failover: false,
        wal_sender_timeout: TIMEOUT,
    }
}

/// What is not fine, a line each.
fn said(report: &CheckReport) -> String {
    let lines = report.findings.iter().filter(|finding| finding.level > FindingLevel::Ok);
    lines.map(|finding| format!("{}\n", finding.what)).collect()
}

async fn published(sql: &Sql) -> String {
    sql.text("SELECT string_agg(tablename, ',' ORDER BY tablename) FROM pg_publication_tables")
        .await
}

#[tokio::test]
async fn a_fresh_database_is_prepared_once_and_then_green() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(
        "CREATE TABLE orders (id int PRIMARY KEY);
         CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id);
         CREATE TABLE parts_1 PARTITION OF parts DEFAULT;",
    )
    .await
    .unwrap();
    let session = session(&database).await;
    let wanted = wanted(&database, &["orders", "parts"]);
    let report = inspect(&session.client, &wanted).await.unwrap();
    assert_eq!(said(&report), "");
    assert!(report.makes_slot && report.steps.len() == 1, "{report:?}");

    let prepared = prepare(&session.client, &postgres(&database.url()), &wanted).await.unwrap();
    assert!(prepared.slot_made.is_some() && prepared.ran.len() == 1, "{prepared:?}");
    assert_eq!(published(&sql).await, "orders,parts");
    let flags = "SELECT pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot";
    let flags = sql.text(&format!("SELECT x::text FROM ({flags} FROM pg_publication) x")).await;
    assert_eq!(flags, "(t,f,f,f,t)");

    let report = inspect(&session.client, &wanted).await.unwrap();
    assert_eq!(said(&report), "");
    assert!(!report.makes_slot && report.steps.is_empty(), "{report:?}");
    let prepared = prepare(&session.client, &postgres(&database.url()), &wanted).await.unwrap();
    assert!(prepared.slot_made.is_none() && prepared.ran.is_empty(), "{prepared:?}");
}

#[tokio::test]
async fn a_table_and_an_operation_more_are_added_to_our_publication() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)")
        .await
        .unwrap();
    let session = session(&database).await;
    prepare(&session.client, &postgres(&database.url()), &wanted(&database, &["a"])).await.unwrap();
    let mut more = wanted(&database, &["a", "b"]);
    more.tables[1].operations.update = true;
    prepare(&session.client, &postgres(&database.url()), &more).await.unwrap();
    assert_eq!(published(&sql).await, "a,b");
    assert_eq!(sql.text("SELECT pubinsert AND pubupdate FROM pg_publication").await, "t");

    let fewer = wanted(&database, &["a"]);
    let prepared = prepare(&session.client, &postgres(&database.url()), &fewer).await.unwrap();
    assert!(prepared.ran.is_empty(), "nothing is taken away: {prepared:?}");
    assert!(prepared.warnings[0].what.contains("public.b, which no event"), "{prepared:?}");
}

#[tokio::test]
async fn publishing_never_makes_the_applications_updates_fail() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute("CREATE TABLE a (id int); CREATE TABLE b (id int PRIMARY KEY)")
        .await
        .unwrap();
    let session = session(&database).await;
    // One publication publishes the same operations of all its tables.
    let mut wanted = wanted(&database, &["a", "b"]);
    wanted.tables[1].operations.update = true;
    let error = prepare(&session.client, &postgres(&database.url()), &wanted).await.unwrap_err();
    let SourceError::NotSetUp(refusals) = &error else { panic!("{error:?}") };
    assert_eq!(
        refusals[..],
        [SetupDiagnostic::NoIdentity { table: TableName::new("public", "a") }]
    );

    wanted.tables[1].operations = INSERT;
    prepare(&session.client, &postgres(&database.url()), &wanted).await.unwrap();
    sql.batch_execute("INSERT INTO a VALUES (1); UPDATE a SET id = 2").await.unwrap();
}

#[tokio::test]
async fn a_role_without_privileges_hears_of_all_at_once_and_the_sql_that_it_gets_mends_it() {
    let database = Database::create().await;
    let sql = database.sql().await;
    let role = format!("{}_app", database.name());
    sql.batch_execute(&format!(
        "CREATE ROLE {role} LOGIN; CREATE TABLE orders (id int PRIMARY KEY);
         REVOKE ALL ON SCHEMA public FROM PUBLIC"
    ))
    .await
    .unwrap();
    let url = database.url().replace("postgres@", &format!("{role}@"));
    let session = store::connect(&server(&url)).await.unwrap();
    let wanted = wanted(&database, &["orders"]);
    let report = inspect(&session.client, &wanted).await.unwrap();
    assert_eq!(report.problems().len(), 4, "{}", said(&report));
    assert_eq!(report.exit() as u8, 3);
    for refusal in report.problems() {
        let fix = refusal.fix();
        let quoted = fix.split('`').nth(1).unwrap();
        sql.batch_execute(quoted).await.unwrap();
    }
    prepare(&session.client, &postgres(&url), &wanted).await.unwrap();
    let report = inspect(&session.client, &wanted).await.unwrap();
    assert_eq!(said(&report), "");
    drop(session);
    sql.batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await.unwrap();
}

#[tokio::test]
async fn misspelt_names_and_wrong_kinds_are_found_together() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(
        "CREATE TABLE orders (ident int PRIMARY KEY); CREATE VIEW v AS SELECT 1 AS id;
         CREATE UNLOGGED TABLE u (id int PRIMARY KEY);",
    )
    .await
    .unwrap();
    let session = session(&database).await;
    let wanted = wanted(&database, &["orders", "ordesr", "v", "u"]);
    let report = inspect(&session.client, &wanted).await.unwrap();
    let problems: Vec<String> = report.problems().iter().map(ToString::to_string).collect();
    let expected = [
        "table public.orders has no column id: did you mean ident?",
        "table public.ordesr does not exist: did you mean public.orders?",
        "public.v is a view, not a table: name an ordinary or a partitioned table",
        "table public.u is unlogged: its changes are not in the WAL: run `ALTER TABLE \
         \"public\".\"u\" SET LOGGED;`",
    ];
    assert_eq!(problems.len(), expected.len(), "{problems:?}");
    for (problem, expected) in problems.iter().zip(expected) {
        assert!(problem.starts_with(expected), "{problem}, not {expected}");
    }
}

#[tokio::test]
async fn column_lists_and_row_filters_are_seen() {
    let database = Database::create().await;
    let sql = database.sql().await;
    let version: u32 = sql.text("SHOW server_version_num").await.parse().unwrap();
    if version < 150_000 {
        return;
    }
    sql.batch_execute(
        "CREATE TABLE orders (id int PRIMARY KEY, status text, note text);
         CREATE PUBLICATION \"it's \"\"mine\"\"\" FOR TABLE orders (id, note) WHERE (id > 7)
            WITH (publish = 'insert')",
    )
    .await
    .unwrap();
    let session = session(&database).await;
    let mut wanted = wanted(&database, &["orders"]);
    wanted.tables[0].streamed = vec!["id".to_owned(), "status".to_owned()];
    let said = said(&inspect(&session.client, &wanted).await.unwrap());
    assert!(said.contains("lacks column status of table public.orders"), "{said}");
    assert!(said.contains("filters the rows of public.orders"), "{said}");
    assert_eq!(said.lines().count(), 2, "{said}");
}

#[tokio::test]
async fn a_slot_that_stands_before_the_publication_is_not_papered_over() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute("CREATE TABLE orders (id int PRIMARY KEY)").await.unwrap();
    let slot = "SELECT pg_create_logical_replication_slot(current_database(), 'pgoutput')";
    sql.batch_execute(slot).await.unwrap();
    let session = session(&database).await;
    let wanted = wanted(&database, &["orders"]);
    let error = prepare(&session.client, &postgres(&database.url()), &wanted).await.unwrap_err();
    assert_eq!(error.exit() as u8, 4);
    assert!(error.to_string().contains("--accept-gap"), "{error}");
    assert_eq!(sql.text("SELECT count(*) FROM pg_publication").await, "0");
}
