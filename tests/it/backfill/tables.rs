//! Tables of every kind: partitions, no key, the whole row as identity, files that change.

use std::collections::BTreeSet;

use serde_json::json;

use super::Bench;
use super::ITEMS;
use super::RULE;
use super::ids;
use super::reads;
use crate::support::service::AMPLE;

#[tokio::test]
async fn partitions_are_read_one_after_the_other_under_the_name_of_their_root() {
    let tables = "CREATE TABLE items (id int, version bigint NOT NULL DEFAULT 1, large text, PRIMARY KEY (id))
                      PARTITION BY RANGE (id);
                  CREATE TABLE items_a PARTITION OF items FOR VALUES FROM (0) TO (100);
                  CREATE TABLE items_b PARTITION OF items FOR VALUES FROM (100) TO (200) PARTITION BY RANGE (id);
                  CREATE TABLE items_b1 PARTITION OF items_b FOR VALUES FROM (100) TO (150);
                  CREATE TABLE items_b2 (large text, version bigint NOT NULL DEFAULT 1, id int NOT NULL);
                  ALTER TABLE items_b ATTACH PARTITION items_b2 FOR VALUES FROM (150) TO (200);
                  CREATE TABLE items_rest PARTITION OF items DEFAULT;";
    let bench = Bench::start_with(tables, 199, RULE).await;
    for by in ["key", "ctid"] {
        let before = bench.receiver.count();
        let id = bench.order(json!({ "tables": ["public.items"], "by": by })).await;
        let shown = bench.done(id).await;
        assert_eq!(shown["state"], "done", "{shown}");
        let requests = bench.receiver.requests();
        let found = reads(&requests[before..]);
        assert_eq!(found.len(), 199, "by {by}");
        assert_eq!(
            ids(&found).into_iter().collect::<BTreeSet<_>>(),
            (1..=199).collect(),
            "by {by}"
        );
        let of = |id: i64| found.iter().find(|body| body["data"]["id"] == id).unwrap().clone();
        assert_eq!(
            of(170)["data"]["large"],
            "170".repeat(3000),
            "columns stand in another order there"
        );
    }
    // A partition on its own has no events.
    let leaf = json!({ "tables": ["public.items_a"] });
    assert_eq!(bench.service.post("/api/v1/backfills", &leaf).await.status, 422);
    bench.balanced().await;
}

#[tokio::test]
async fn without_a_key_rows_are_sent_as_they_lie() {
    let tables = "CREATE TABLE items (id int, version bigint NOT NULL DEFAULT 1, large text);";
    let rule =
        "[[event]]\ntype = \"item\"\ntable = \"public.items\"\non = [\"insert\", \"read\"]\n";
    let bench = Bench::start_with(tables, 500, rule).await;
    let by_key = json!({ "tables": ["public.items"], "by": "key" });
    let refused = bench.service.post("/api/v1/backfills", &by_key).await;
    assert!(refused.status == 422 && refused.body.contains("by ctid"), "{refused:?}");
    let id = bench.items().await;
    let shown = bench.done(id).await;
    assert_eq!((&shown["state"], &shown["by"]), (&json!("done"), &json!("ctid")));
    let mut found = ids(&reads(&bench.receiver.requests()));
    found.sort_unstable();
    assert_eq!(found, (1..=500).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_whole_row_as_identity_tells_rows_apart() {
    let tables = "CREATE TABLE items (id int, version bigint NOT NULL DEFAULT 1, large text);
                  ALTER TABLE items REPLICA IDENTITY FULL;";
    let bench = Bench::start_with(tables, 400, RULE).await;
    bench.sql.batch_execute("INSERT INTO items VALUES (7, 1, 'x'), (7, 1, 'x')").await.unwrap();
    bench.receiver.wait_for(2, AMPLE).await;
    let id = bench.order(json!({ "tables": ["public.items"], "rate": 200 })).await;
    bench
        .sql
        .batch_execute(
            "UPDATE items SET version = 2 WHERE id > 350; DELETE FROM items WHERE id = 400",
        )
        .await
        .unwrap();
    assert_eq!(bench.done(id).await["state"], "done");
    let found = reads(&bench.receiver.requests());
    assert_eq!(ids(&found).iter().filter(|id| **id == 7).count(), 3);
    let late = found.iter().filter(|body| body["data"]["id"].as_i64().unwrap() > 350);
    assert!(late.clone().count() >= 1);
    bench.balanced().await;
}

#[tokio::test]
async fn composite_keys_and_strange_names_are_read() {
    let tables = format!(
        "{ITEMS} CREATE TYPE colour AS ENUM ('red', 'green', 'o''range');
         CREATE TABLE \"Odd \"\"Name\" (\"The Key\" colour, at timestamptz, price numeric, note text,
            flag boolean, fixed char(5), twice int GENERATED ALWAYS AS (price * 2) STORED,
            PRIMARY KEY (\"The Key\", at));
         INSERT INTO \"Odd \"\"Name\" SELECT c, t, 1.50, E'a\\nb', true, 'x'
            FROM unnest(enum_range(NULL::colour)) c, generate_series('2026-01-01'::timestamptz, '2026-02-01', '1 hour') t"
    );
    let rule = "[[event]]\ntype = \"odd\"\ntable = 'public.\"Odd \"\"Name\"'\non = [\"insert\", \"read\"]\n";
    let bench = Bench::start_with(&tables, 0, rule).await;
    let insert =
        "INSERT INTO \"Odd \"\"Name\" VALUES ('red', '2027-01-01', 1.50, E'a\\nb', true, 'x')";
    bench.sql.batch_execute(insert).await.unwrap();
    let streamed = bench.receiver.wait_for(1, AMPLE).await[0].json();
    let id = bench.order(json!({ "tables": ["public.\"Odd \"\"Name\""] })).await;
    let shown = bench.done(id).await;
    assert_eq!(shown["state"], "done", "{shown}");
    let found = reads(&bench.receiver.requests());
    assert_eq!(found.len(), 3 * (31 * 24 + 1) + 1);
    let same = found.iter().find(|body| body["data"]["at"] == streamed["data"]["at"]).unwrap();
    assert_eq!(same["data"], streamed["data"], "a row looks the same from both sides");
}

#[tokio::test]
async fn a_table_that_is_written_anew_is_read_to_its_end() {
    for by in ["ctid", "key"] {
        let bench = Bench::start(200).await;
        let id = bench.order(json!({ "tables": ["public.items"], "by": by, "rate": 50 })).await;
        bench.wait(id, |shown| shown["rows_sent"].as_i64().unwrap() > 0).await;
        bench.sql.batch_execute("DELETE FROM items WHERE id % 7 = 0").await.unwrap();
        bench.sql.batch_execute("VACUUM FULL items").await.unwrap();
        let shown = bench.done(id).await;
        assert_eq!(shown["state"], "done", "{shown}");
        let found: BTreeSet<i64> = ids(&reads(&bench.receiver.requests())).into_iter().collect();
        let missing: Vec<i64> = (1..=200).filter(|id| id % 7 != 0 && !found.contains(id)).collect();
        assert!(missing.is_empty(), "by {by}: {missing:?}");
        bench.balanced().await;
    }
}

#[tokio::test]
async fn rows_of_a_truncated_table_are_not_sent_after_its_end() {
    let bench = Bench::start(300).await;
    let id = bench.order(json!({ "tables": ["public.items"], "rate": 100 })).await;
    bench.wait(id, |shown| shown["rows_sent"].as_i64().unwrap() > 0).await;
    bench
        .sql
        .batch_execute("TRUNCATE items; INSERT INTO items VALUES (1000, 1, 'x')")
        .await
        .unwrap();
    assert_eq!(bench.done(id).await["state"], "done");
    bench.drained().await;
    super::Kept::of(&bench.receiver.requests()).must_be(&bench.sql).await;
    bench.balanced().await;
}

#[tokio::test]
async fn a_column_that_comes_meanwhile_is_read_as_well() {
    let bench = Bench::start(150).await;
    let id = bench.order(json!({ "tables": ["public.items"], "rate": 30 })).await;
    bench.wait(id, |shown| shown["rows_sent"].as_i64().unwrap() > 0).await;
    let alter =
        "ALTER TABLE items ADD COLUMN note text DEFAULT 'new'; ALTER TABLE items DROP COLUMN large";
    bench.sql.batch_execute(alter).await.unwrap();
    let shown = bench.done(id).await;
    assert_eq!(shown["state"], "done", "{shown}");
    let found = reads(&bench.receiver.requests());
    assert_eq!(ids(&found).into_iter().collect::<BTreeSet<_>>(), (1..=150).collect());
    assert_eq!(found.last().unwrap()["data"]["note"], "new");
}
