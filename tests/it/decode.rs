//! The decoder and the assembler on what a real server writes.
//!
//! `pg_logical_slot_get_binary_changes` gives the messages of the replication stream over plain
//! SQL, so that nothing but decoding is tested here. What a walsender adds around them belongs to
//! the tests of the connection.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

use bytes::Bytes;
use serde_json::Value as Json;
use walhook::testing::event::datum;
use walhook::testing::flow::change::CapturedItem;
use walhook::testing::flow::change::ChangeOp;
use walhook::testing::flow::change::ColumnValue;
use walhook::testing::flow::change::CommittedChange;
use walhook::testing::flow::change::OldRow;
use walhook::testing::flow::change::RowTuple;
use walhook::testing::flow::relation::ReplicaIdentity;
use walhook::testing::replication::assemble::ChangeAssembler;
use walhook::testing::replication::pgoutput::PgOutput;
use walhook::testing::replication::pgoutput::decode;
use walhook::testing::replication::types;

use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::types::connect;

/// A schema, publication and slot of one test. The slot ends with the session.
struct Stream {
    client: Sql,
    _database: Database,
    name: &'static str,
    assembler: ChangeAssembler,
}

impl Stream {
    async fn open(name: &'static str, tables: &str) -> Self {
        let (database, client) = connect().await;
        let set_up = format!(
            "SET client_min_messages = warning;
             DROP PUBLICATION IF EXISTS {name};
             DROP SCHEMA IF EXISTS {name} CASCADE;
             CREATE SCHEMA {name};
             SET search_path = {name};
             {tables};
             DO $$ BEGIN EXECUTE (
                 SELECT 'CREATE PUBLICATION {name} FOR TABLE ' || string_agg(oid::regclass::text, ', ')
                 FROM pg_class WHERE relnamespace = '{name}'::regnamespace AND relkind = 'r'
             ); END $$"
        );
        let slot = format!("SELECT pg_create_logical_replication_slot('{name}', 'pgoutput', true)");
        // A slot cannot be made in a transaction that has written.
        for sql in [set_up, slot] {
            client.batch_execute(&sql).await.unwrap();
        }
        Self { client, _database: database, name, assembler: ChangeAssembler::new() }
    }

    /// Runs statements and returns what the stream says about them.
    async fn after(&mut self, statements: &str) -> Vec<CapturedItem> {
        self.client.batch_execute(statements).await.unwrap();
        let rows = self
            .client
            .query(
                "SELECT data FROM pg_logical_slot_get_binary_changes($1, NULL, NULL,
                    'proto_version', '1', 'publication_names', $2, 'messages', 'true')",
                &[&self.name, &self.name],
            )
            .await
            .unwrap();
        let mut captured = Vec::new();
        for row in rows {
            let message = Bytes::from(row.get::<_, Vec<u8>>(0));
            match decode(&message).unwrap() {
                PgOutput::Relation(relation) => {
                    let questions = ChangeAssembler::questions(&relation);
                    let answers = types::answer(&self.client, &questions).await.unwrap();
                    self.assembler.learn(relation, &answers);
                }
                decoded => {
                    self.assembler.accept(decoded, &message, None, &mut captured).unwrap();
                }
            }
        }
        captured
    }

    async fn changes_after(&mut self, statements: &str) -> Vec<CommittedChange> {
        let change = |captured| match captured {
            CapturedItem::Change(change) => Some(change),
            CapturedItem::Commit { .. } | CapturedItem::Idle { .. } => None,
        };
        self.after(statements).await.into_iter().filter_map(change).collect()
    }

    async fn close(self) {
        let name = self.name;
        let sql = format!("DROP PUBLICATION {name}; DROP SCHEMA {name} CASCADE");
        self.client
            .batch_execute(&format!("SET client_min_messages = warning; {sql}"))
            .await
            .unwrap();
    }
}

/// A row as short text: `7,new`, with `-` for null and `=` for unchanged.
fn shown(tuple: &RowTuple) -> String {
    let value = |column| match tuple.value(column) {
        ColumnValue::Null => String::from("-"),
        ColumnValue::Unchanged => String::from("="),
        ColumnValue::Text(text) if text.len() > 20 => format!("{} bytes", text.len()),
        ColumnValue::Text(text) => String::from_utf8_lossy(text).into_owned(),
    };
    (0..tuple.len()).map(value).collect::<Vec<_>>().join(",")
}

fn told(change: &CommittedChange) -> String {
    let old = |old: &OldRow| match old {
        OldRow::Key(tuple) => format!("key {}", shown(tuple)),
        OldRow::Full(tuple) => format!("full {}", shown(tuple)),
    };
    let op = match &change.op {
        ChangeOp::Insert { new } => format!("insert {}", shown(new)),
        ChangeOp::Update { old: None, new } => format!("update to {}", shown(new)),
        ChangeOp::Update { old: Some(before), new } => {
            format!("update {} to {}", old(before), shown(new))
        }
        ChangeOp::Delete { old: before } => format!("delete {}", old(before)),
        ChangeOp::Read { .. } | ChangeOp::Schema => unreachable!("the stream brings none"),
        ChangeOp::Truncate => String::from("truncate"),
    };
    format!("{} {}: {op}", change.position.ordinal, change.relation.table.name)
}

fn all_told(changes: &[CommittedChange]) -> Vec<String> {
    changes.iter().map(told).collect()
}

#[tokio::test]
async fn a_transaction_is_told_change_by_change() {
    let tables =
        "CREATE TABLE a (id int PRIMARY KEY, note text); CREATE TABLE b (LIKE a INCLUDING ALL)";
    let mut stream = Stream::open("it_transaction", tables).await;
    let captured = stream
        .after(
            "BEGIN;
             INSERT INTO a VALUES (1, 'one'), (2, NULL);
             SELECT pg_logical_emit_message(true, 'walhook', '{\"user\": 7}');
             SELECT pg_logical_emit_message(true, 'other', 'foreign');
             UPDATE a SET note = '' WHERE id = 1;
             UPDATE a SET id = 3 WHERE id = 2;
             SELECT pg_logical_emit_message(false, 'walhook', 'not of this transaction');
             SELECT pg_logical_emit_message(true, 'walhook', '');
             DELETE FROM a WHERE id = 3;
             TRUNCATE a, b CASCADE;
             INSERT INTO b VALUES (9, 'last');
             COMMIT;
             SELECT pg_logical_emit_message(true, 'walhook', 'alone')",
        )
        .await;
    let changes: Vec<&CommittedChange> = captured
        .iter()
        .filter_map(|captured| match captured {
            CapturedItem::Change(change) => Some(change),
            _ => None,
        })
        .collect();
    let texts: Vec<String> = changes.iter().map(|change| told(change)).collect();
    assert_eq!(
        texts,
        [
            "0 a: insert 1,one",
            "1 a: insert 2,-",
            "2 a: update to 1,",
            "3 a: update key 2,- to 3,-",
            "4 a: delete key 3,-",
            "5 a: truncate",
            "6 b: truncate",
            "7 b: insert 9,last",
        ]
    );
    let metadata: Vec<bool> = changes.iter().map(|change| change.metadata.is_some()).collect();
    assert_eq!(metadata, [false, false, true, true, false, false, false, false]);
    assert_eq!(changes[2].metadata.as_deref(), Some(br#"{"user": 7}"#.as_slice()));
    let commits: Vec<_> = captured
        .iter()
        .filter_map(|captured| match captured {
            CapturedItem::Commit { commit, end, committed, .. } => {
                Some((*commit, *end, *committed))
            }
            _ => None,
        })
        .collect();
    let (commit, end, committed) = commits[0];
    assert!(changes.iter().all(|c| c.position.commit == commit && c.committed == committed));
    assert!(commit < end && commits.len() == 2, "the lone message makes a transaction too");
    stream.close().await;
}

#[tokio::test]
async fn each_replica_identity_tells_what_it_can_of_the_old_row() {
    let big = "(SELECT string_agg(md5(i::text), '') FROM generate_series(1, 500) i)";
    let tables = "
        CREATE TABLE by_key (n int, id int PRIMARY KEY, big text);
        CREATE TABLE by_index (n int NOT NULL UNIQUE, id int PRIMARY KEY, big text);
        ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_n_key;
        CREATE TABLE in_full (n int, id int PRIMARY KEY, big text);
        ALTER TABLE in_full REPLICA IDENTITY FULL;
        CREATE TABLE keyless (n int, id int, big text);
        ALTER TABLE keyless REPLICA IDENTITY FULL";
    let mut stream = Stream::open("it_identity", tables).await;
    let cases = [
        (
            "by_key",
            ReplicaIdentity::Default,
            vec![1],
            ["update to 2,7,=", "update key -,7,- to 2,8,=", "delete key -,8,-"],
        ),
        (
            "by_index",
            ReplicaIdentity::Index,
            vec![1],
            ["update key 1,-,- to 2,7,=", "update to 2,8,=", "delete key 2,-,-"],
        ),
        (
            "in_full",
            ReplicaIdentity::Full,
            vec![1],
            [
                "update full 1,7,16000 bytes to 2,7,16000 bytes",
                "update full 2,7,16000 bytes to 2,8,16000 bytes",
                "delete full 2,8,16000 bytes",
            ],
        ),
        (
            "keyless",
            ReplicaIdentity::Full,
            vec![],
            [
                "update full 1,7,16000 bytes to 2,7,16000 bytes",
                "update full 2,7,16000 bytes to 2,8,16000 bytes",
                "delete full 2,8,16000 bytes",
            ],
        ),
    ];
    for (table, identity, key, expected) in cases {
        let changes = stream
            .changes_after(&format!(
                "INSERT INTO {table} VALUES (1, 7, {big});
                 UPDATE {table} SET n = 2; UPDATE {table} SET id = 8; DELETE FROM {table}"
            ))
            .await;
        let expected: Vec<_> =
            (1..).zip(expected).map(|(at, told)| format!("{at} {table}: {told}")).collect();
        assert_eq!(all_told(&changes)[1..], expected, "case: {table}");
        assert_eq!(changes[0].relation.identity, identity, "case: {table}");
        assert_eq!(changes[0].relation.key, key, "case: {table}");
    }
    stream.close().await;
}

#[tokio::test]
async fn rows_have_the_shape_that_their_table_had_when_they_were_written() {
    let tables = "CREATE TABLE \"Odd.name\" (id int PRIMARY KEY, \"old \"\"name\" text)";
    let mut stream = Stream::open("it_shape", tables).await;
    let changes = stream
        .changes_after(
            "INSERT INTO \"Odd.name\" VALUES (1, 'before');
             ALTER TABLE \"Odd.name\" RENAME \"old \"\"name\" TO later;
             ALTER TABLE \"Odd.name\" ADD added timestamptz DEFAULT 'epoch', ALTER later TYPE varchar(9);
             INSERT INTO \"Odd.name\" VALUES (2, 'after');
             ALTER TABLE \"Odd.name\" DROP later;
             INSERT INTO \"Odd.name\" VALUES (3)",
        )
        .await;
    let names = |change: &CommittedChange| -> Vec<String> {
        change.relation.columns.iter().map(|column| column.name.clone()).collect()
    };
    assert_eq!(
        changes.iter().map(names).collect::<Vec<_>>(),
        [vec!["id", "old \"name"], vec!["id", "later", "added"], vec!["id", "added"],]
    );
    assert_eq!(changes[0].relation.table.to_string(), "it_shape.Odd.name");
    stream.close().await;
}

#[tokio::test]
async fn a_row_of_made_types_equals_the_servers_own_json() {
    let tables = "
        CREATE TYPE mood AS ENUM ('so, so', 'NULL');
        CREATE DOMAIN moods AS mood[];
        CREATE TYPE pair AS (n numeric, mood mood);
        CREATE TABLE many (id int PRIMARY KEY, mood mood, moods moods, pair pair, pairs pair[],
                           span int4range, doc json, grid int[], price numeric(9,2), gone mood)";
    let mut stream = Stream::open("it_made", tables).await;
    let changes = stream
        .changes_after(
            r#"INSERT INTO many VALUES (1, 'so, so', '{NULL,"NULL"}', '(1.50,"so, so")',
                '{"(,)","(2,NULL)"}', '[1,3)', '{"a": [1]}', '[0:1][2:2]={{1},{NULL}}', 9.9, NULL)"#,
        )
        .await;
    let ChangeOp::Insert { new } = &changes[0].op else { panic!("{changes:?}") };
    let mut ours = serde_json::Map::new();
    for (at, column) in changes[0].relation.columns.iter().enumerate() {
        let mut json = Vec::new();
        match new.value(at) {
            ColumnValue::Text(text) => datum::write_json(&mut json, &column.sql_type, text),
            ColumnValue::Null | ColumnValue::Unchanged => json.extend_from_slice(b"null"),
        }
        ours.insert(column.name.clone(), serde_json::from_slice(&json).unwrap());
    }
    let theirs: Json =
        stream.client.query_one("SELECT to_jsonb(many) FROM many", &[]).await.unwrap().get(0);
    assert_eq!(Json::Object(ours), theirs);
    stream.close().await;
}
