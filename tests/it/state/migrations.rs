//! The schema: made once, by whoever is first, and never by those who may not.

use tokio::task::JoinSet;
use walhook::testing::store::migrate::MIGRATIONS;
use walhook::testing::store::migrate::Migration;
use walhook::testing::store::migrate::apply;
use walhook::testing::store::migrate::lacking;
use walhook::testing::store::migrate::migrate;
use walhook::testing::store::migrate::tables;
use walhook::testing::store::partitions;
use walhook::testing::store::state_error::StateError;

use super::NOW;
use super::session;
use crate::support::postgres::Database;

const ALL: &str = "1 state, 2 replays, 3 poison, 4 write_backs, 5 seen_values, 6 fronts, 7 headers, \
                   8 push_log_indexes, 9 push_log_batches, 10 books_common, 11 slot_owner, \
                   12 crash_charges, 13 gaps, 14 endpoint_states, 15 push_totals, 16 body_pieces, \
                   17 resend_rates, 18 renames, 19 replay_pauses, \
                   20 backfills, 21 endpoint_rows, 22 partitions, \
                   23 backfill_moves, 24 backlog_by_event, 25 relay, 26 shared_endpoints";

const APPLIED: &str = "SELECT string_agg(version || ' ' || name, ', ' ORDER BY version) \
                       FROM walhook.schema_version";

#[tokio::test]
async fn the_schema_is_made_from_nothing_and_left_alone_after_that() {
    let database = Database::create().await;
    let mut session = session(&database.url()).await;
    migrate(&mut session.client).await.unwrap();
    let sql = database.sql().await;
    assert_eq!(sql.text(APPLIED).await, ALL);
    let before =
        sql.text("SELECT string_agg(applied_at::text, ' ') FROM walhook.schema_version").await;
    let statements = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()";
    let _ = sql.text(statements).await;
    migrate(&mut session.client).await.unwrap();
    assert_eq!(
        sql.text("SELECT string_agg(applied_at::text, ' ') FROM walhook.schema_version").await,
        before
    );
    // A publication for all tables takes these tables in; each needs an identity for that.
    let without = "SELECT count(*) FROM pg_class c WHERE relnamespace = 'walhook'::regnamespace \
                   AND relkind IN ('r', 'p') AND NOT EXISTS \
                   (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)";
    assert_eq!(sql.text(without).await, "0");
}

#[tokio::test]
async fn an_older_schema_is_migrated_step_by_step() {
    let database = Database::create().await;
    let mut session = session(&database.url()).await;
    migrate(&mut session.client).await.unwrap();
    let mut steps = MIGRATIONS.to_vec();
    let next = steps.last().unwrap().version + 1;
    let broken = Migration {
        version: next + 1,
        name: "broken",
        sql: "CREATE TABLE walhook.half (); SELECT 1 / 0;",
    };
    steps.push(Migration { version: next, name: "more", sql: "CREATE TABLE walhook.more ();" });
    steps.push(broken);
    let error = apply(&mut session.client, &steps).await.unwrap_err();
    assert!(matches!(error, StateError::Store(_)), "{error:?}");
    let sql = database.sql().await;
    // What came before the broken step stays; of the broken one there is nothing.
    assert!(sql.text(APPLIED).await.ends_with(&format!("{next} more")));
    assert_eq!(sql.text("SELECT to_regclass('walhook.half') IS NULL").await, "t");
    steps.pop();
    apply(&mut session.client, &steps).await.unwrap();
}

#[tokio::test]
async fn what_an_older_version_has_written_is_kept() {
    let database = Database::create().await;
    let mut session = session(&database.url()).await;
    apply(&mut session.client, MIGRATIONS.get(..1).unwrap()).await.unwrap();
    let sql = database.sql().await;
    sql.batch_execute(
        "CREATE TABLE walhook.push_log_20251122 PARTITION OF walhook.push_log
             FOR VALUES FROM ('2025-11-22 00:00Z') TO ('2025-11-23 00:00Z');
         INSERT INTO walhook.push_log (created_at, slot, endpoint, event_id, event_type, table_schema,
             table_name, row_key, retry_count, outcome, request_headers, duration_ms)
         VALUES ('2025-11-22 12:00Z', 'walhook', 'crm', 'e1', 'task.done', 'public', 'tasks', 'ärger',
             0, 'delivered', '{\"webhook-id\": \"e1\"}', 1.5)",
    )
    .await
    .unwrap();
    migrate(&mut session.client).await.unwrap();
    assert_eq!(sql.text(APPLIED).await, ALL);
    let found = "SELECT event_id || ' ' || (request_headers ->> 'webhook-id')
                   FROM walhook.push_log WHERE row_key = 'ärger'";
    assert_eq!(sql.text(found).await, "e1 e1");
    // Its day goes on under the name that days have now.
    let days = partitions::ensure_ahead(&mut session.client, NOW).await.unwrap();
    assert_eq!(days.len(), 2);
    let partitions =
        "SELECT string_agg(inhrelid::regclass::text, ' ' ORDER BY inhrelid::regclass::text)
                        FROM pg_inherits WHERE inhparent = 'walhook.push_log_events'::regclass";
    assert_eq!(
        sql.text(partitions).await,
        "walhook.push_log_events_20251122 walhook.push_log_events_20251123"
    );
}

#[tokio::test]
async fn a_newer_schema_is_refused_by_its_numbers() {
    let database = Database::create().await;
    let mut session = session(&database.url()).await;
    migrate(&mut session.client).await.unwrap();
    let sql = database.sql().await;
    sql.batch_execute("INSERT INTO walhook.schema_version VALUES (999, 'later', now(), 'later')")
        .await
        .unwrap();
    let error = migrate(&mut session.client).await.unwrap_err();
    let known = MIGRATIONS.last().unwrap().version;
    assert!(
        matches!(error, StateError::NewerSchema { found: 999, known: k } if k == known),
        "{error:?}"
    );
    assert!(error.to_string().contains("version 999"), "{error}");
    assert!(error.to_string().contains(&format!("version {known}:")), "{error}");
    assert_eq!(error.exit() as u8, 3);
}

#[tokio::test]
async fn those_who_start_together_make_the_schema_once() {
    let database = Database::create().await;
    let mut starting = JoinSet::new();
    for _ in 0..6 {
        let session = session(&database.url()).await;
        starting.spawn(async move {
            let mut whole = session; // with its connection, and not its client alone
            migrate(&mut whole.client).await
        });
    }
    for outcome in starting.join_all().await {
        outcome.unwrap();
    }
    assert_eq!(database.sql().await.text(APPLIED).await, ALL);
}

/// A role that may log in and nothing else, dropped with the test's own objects left to the
/// database.
async fn role(database: &Database) -> (String, String) {
    let role = format!("{} \"least\"", database.name());
    let quoted = format!("\"{}\"", role.replace('"', "\"\""));
    database.sql().await.batch_execute(&format!("CREATE ROLE {quoted} LOGIN")).await.unwrap();
    let user = role.replace(' ', "%20").replace('"', "%22");
    (database.url().replacen("postgres@", &format!("{user}@"), 1), quoted)
}

#[tokio::test]
async fn a_missing_privilege_comes_with_the_sql_that_grants_it() {
    let database = Database::create().await;
    let (url, quoted) = role(&database).await;
    let sql = database.sql().await;
    let mut session = session(&url).await;
    // Each step mends what the error of the one before asked for, with its own SQL.
    let expected = [
        format!("CREATE SCHEMA walhook AUTHORIZATION {quoted};"),
        format!("ALTER SCHEMA walhook OWNER TO {quoted};"),
        format!("GRANT postgres TO {quoted};"),
    ];
    let error = migrate(&mut session.client).await.unwrap_err();
    let StateError::NoPrivilege { sql: fix, .. } = &error else { panic!("{error:?}") };
    assert_eq!(*fix, expected[0]);
    assert!(error.to_string().contains(&expected[0]), "{error}");
    assert_eq!((error.exit() as u8, error.is_transient()), (3, false));
    // The schema is there, but somebody else's.
    sql.batch_execute("CREATE SCHEMA walhook").await.unwrap();
    let error = migrate(&mut session.client).await.unwrap_err();
    let StateError::NoPrivilege { sql: fix, .. } = error else { panic!("{error:?}") };
    assert_eq!(fix, expected[1]);
    sql.batch_execute(&fix).await.unwrap();
    migrate(&mut session.client).await.unwrap();
    // Somebody else owns a table in it.
    sql.batch_execute("ALTER TABLE walhook.backlog OWNER TO postgres").await.unwrap();
    let error = migrate(&mut session.client).await.unwrap_err();
    let StateError::NoPrivilege { sql: fix, .. } = error else { panic!("{error:?}") };
    assert_eq!(fix, expected[2]);
    // And may not even look at it.
    sql.batch_execute(&format!("ALTER TABLE walhook.schema_version OWNER TO postgres; REVOKE ALL ON walhook.schema_version FROM {quoted}"))
        .await
        .unwrap();
    let error = migrate(&mut session.client).await.unwrap_err();
    let StateError::NoPrivilege { sql: fix, .. } = error else { panic!("{error:?}") };
    assert_eq!(fix, expected[2]);
    drop(session);
    sql.batch_execute(&format!("REASSIGN OWNED BY {quoted} TO postgres; DROP ROLE {quoted}"))
        .await
        .unwrap();
}

/// A start would go on with what is left, and fail at the first row that needs it.
#[tokio::test]
async fn a_table_that_was_dropped_is_named_before_anything_else() {
    let database = Database::create().await;
    let mut session = session(&database.url()).await;
    migrate(&mut session.client).await.unwrap();
    let sql = database.sql().await;
    let made = "SELECT string_agg(relname, ' ' ORDER BY relname COLLATE \"C\") FROM pg_class \
                WHERE relnamespace = 'walhook'::regnamespace AND relkind IN ('r', 'p') \
                AND NOT relispartition AND relname <> 'schema_version'";
    let listed = Vec::from_iter(tables()).join(" ");
    assert_eq!(sql.text(made).await, listed, "what the migrations make is found in their text");
    sql.batch_execute("DROP TABLE walhook.fronts, walhook.runs CASCADE").await.unwrap();
    let error = migrate(&mut session.client).await.unwrap_err();
    let StateError::LacksTables { tables: lost } = &error else { panic!("{error:?}") };
    assert_eq!((lost.as_str(), error.exit() as u8), ("fronts, runs", 3));
    let lacking = lacking(&session.client).await.unwrap().unwrap();
    assert_eq!(lacking.to_string(), error.to_string());
}

#[tokio::test]
async fn the_administrators_script_is_enough_for_everything() {
    let database = Database::create().await;
    let (url, quoted) = role(&database).await;
    let script = include_str!("../../../sql/state-admin.sql")
        .replace("AUTHORIZATION walhook;", &format!("AUTHORIZATION {quoted};"));
    let sql = database.sql().await;
    sql.batch_execute(&script).await.unwrap();
    sql.batch_execute(&script).await.unwrap();
    let mut session = session(&url).await;
    migrate(&mut session.client).await.unwrap();
    let now = super::NOW;
    walhook::testing::store::partitions::ensure_ahead(&mut session.client, now).await.unwrap();
    let (mut ownership, _) =
        walhook::testing::store::progress::take(&mut session.client, "s", "me").await.unwrap();
    let flush = walhook::testing::store::flush::StateFlush {
        parked: vec![super::parked(super::event(1, 0, "a"), "crm")],
        dead: vec![super::letter(super::event(2, 0, "b"), "crm")],
        ..Default::default()
    };
    walhook::testing::store::flush::commit(&mut session, &mut ownership, &flush).await.unwrap();
    walhook::testing::store::partitions::drop_old(&session.client, super::after(864_000), 7)
        .await
        .unwrap();
    drop(session);
    sql.batch_execute(&format!("REASSIGN OWNED BY {quoted} TO postgres; DROP ROLE {quoted}"))
        .await
        .unwrap();
}
