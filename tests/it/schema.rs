//! How tables are defined and what the publication covers: no write of the application fails because
//! walhook was started, and nothing that an event asks for is held back in silence.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]
#![expect(clippy::indexing_slicing, reason = "a missing field fails the test as it should")]

mod changes;
mod generated;
mod sessions;

use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::support::postgres::has_version;
use crate::support::postgres::installation;
use crate::support::program::Program;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;

/// An event of all operations on `table`, for a receiver at `url`.
fn event(table: &str, more: &str) -> String {
    format!(
        "[[event]]\ntype = \"{table}\"\ntable = \"public.{table}\"\n\
         on = [\"insert\", \"update\", \"delete\"]\n{more}\n\n"
    )
}

fn webhook(url: &str) -> String {
    format!("[webhook]\nurls = [\"{url}\"]\n")
}

const NOWHERE: &str = "http://127.0.0.1:9/";

async fn ended(command: &str, toml: &str) -> (Option<i32>, String) {
    let mut program = Program::start(&[command], toml, &[]);
    let code = program.wait(AMPLE).await;
    (code, program.output().join("\n"))
}

/// `run` and `check` both refuse and say all of this; the publication is as it was.
async fn assert_refused(sql: &Sql, toml: &str, parts: &[&str]) {
    let publications = "SELECT coalesce(string_agg(p::text, ';'), '') FROM pg_publication p";
    let before = sql.text(publications).await;
    for command in ["check", "run"] {
        let (code, output) = ended(command, toml).await;
        assert_eq!(code, Some(3), "{command}: {output}");
        for part in parts {
            assert!(output.contains(part), "{command} does not say {part:?}:\n{output}");
        }
    }
    assert_eq!(sql.text(publications).await, before, "it was widened");
}

/// Tables, what the application writes into them, and what is said of them for an event on `o`.
struct Case {
    name: &'static str,
    tables: &'static str,
    writes: &'static str,
    parts: &'static [&'static str],
}

const CASES: [Case; 12] = [
    Case {
        name: "a deferrable key",
        tables: "CREATE TABLE o (id int PRIMARY KEY DEFERRABLE, v text)",
        writes: "UPDATE o SET v = 'b'; DELETE FROM o",
        parts: &["the primary key is deferrable", "ALTER TABLE \"public\".\"o\" REPLICA IDENTITY FULL"],
    },
    Case {
        name: "an identity index that was dropped",
        tables: "CREATE TABLE o (id int NOT NULL, v text); CREATE UNIQUE INDEX u ON o (id);
                 ALTER TABLE o REPLICA IDENTITY USING INDEX u; DROP INDEX u",
        writes: "UPDATE o SET v = 'b'; DELETE FROM o",
        parts: &["its index was dropped"],
    },
    Case {
        name: "an identity of nothing",
        tables: "CREATE TABLE o (id int PRIMARY KEY, v text); ALTER TABLE o REPLICA IDENTITY NOTHING",
        writes: "UPDATE o SET v = 'b'; DELETE FROM o",
        parts: &["it is NOTHING"],
    },
    Case {
        name: "a full root, and a partition with the default",
        tables: "CREATE TABLE o (id int, v text) PARTITION BY RANGE (id);
                 CREATE TABLE o_1 PARTITION OF o DEFAULT; ALTER TABLE o REPLICA IDENTITY FULL",
        writes: "UPDATE o SET v = 'b'; DELETE FROM o",
        parts: &["table public.o_1, a partition of public.o,", "it has no primary key"],
    },
    Case {
        name: "one bad partition on a lower level",
        tables: "CREATE TABLE o (id int, v text) PARTITION BY RANGE (id);
                 CREATE TABLE o_1 PARTITION OF o FOR VALUES FROM (0) TO (10) PARTITION BY LIST (v);
                 CREATE TABLE o_1_a PARTITION OF o_1 (PRIMARY KEY (id)) FOR VALUES IN ('a');
                 CREATE TABLE o_1_b PARTITION OF o_1 DEFAULT;
                 CREATE TABLE o_2 PARTITION OF o (PRIMARY KEY (id)) DEFAULT",
        writes: "UPDATE o SET id = 1; DELETE FROM o",
        parts: &["table public.o_1_b, a partition of public.o,"],
    },
    Case {
        name: "a partition with a deferrable key",
        tables: "CREATE TABLE o (id int, v text) PARTITION BY RANGE (id);
                 CREATE TABLE o_1 PARTITION OF o (PRIMARY KEY (id) DEFERRABLE) DEFAULT",
        writes: "UPDATE o SET v = 'b'; DELETE FROM o",
        parts: &["public.o_1", "the primary key is deferrable"],
    },
    Case {
        name: "a partition with another identity",
        tables: "CREATE TABLE o (id int PRIMARY KEY, v text, code text NOT NULL) PARTITION BY RANGE (id);
                 CREATE TABLE o_1 PARTITION OF o DEFAULT; CREATE UNIQUE INDEX u ON o_1 (code);
                 ALTER TABLE o_1 REPLICA IDENTITY USING INDEX u",
        writes: "UPDATE o SET v = 'b'; DELETE FROM o",
        parts: &["public.o_1, a partition of public.o, has another replica identity", "tell id"],
    },
    Case {
        name: "an unlogged partition",
        tables: "CREATE TABLE o (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
                 CREATE UNLOGGED TABLE o_1 PARTITION OF o DEFAULT",
        writes: "UPDATE o SET v = 'b'; DELETE FROM o",
        parts: &["table public.o_1 is unlogged"],
    },
    Case {
        name: "another table of the publication",
        tables: "CREATE TABLE o (id int PRIMARY KEY, v text); CREATE TABLE log (note text);
                 CREATE PUBLICATION walhook FOR TABLE o, log WITH (publish = 'insert')",
        writes: "UPDATE o SET v = 'b'; UPDATE log SET note = ''; DELETE FROM log",
        parts: &["also covers public.log", "it has no primary key", "[postgres] publication"],
    },
    Case {
        name: "all tables",
        tables: "CREATE TABLE o (id int PRIMARY KEY, v text);
                 CREATE TABLE log (note text) PARTITION BY LIST (note);
                 CREATE TABLE log_1 PARTITION OF log DEFAULT;
                 CREATE PUBLICATION walhook FOR ALL TABLES WITH (publish = 'insert')",
        writes: "UPDATE o SET v = 'b'; UPDATE log SET note = ''; DELETE FROM log",
        parts: &["also covers public.log_1"],
    },
    Case {
        name: "a row filter beyond the identity",
        tables: "CREATE TABLE o (id int PRIMARY KEY, v text);
                 CREATE PUBLICATION walhook FOR TABLE o WHERE (v <> 'x') WITH (publish = 'insert')",
        writes: "UPDATE o SET v = 'b'; DELETE FROM o",
        parts: &["its row filter asks for v"],
    },
    Case {
        name: "a column list without the identity",
        tables: "CREATE TABLE o (id int PRIMARY KEY, v text); CREATE TABLE p (id int PRIMARY KEY, v text);
                 CREATE PUBLICATION walhook FOR TABLE o, p (v) WITH (publish = 'insert')",
        writes: "UPDATE o SET v = 'b'; UPDATE p SET v = 'b'; DELETE FROM p",
        parts: &["public.p: its column list lacks id"],
    },
];

#[tokio::test]
async fn starting_walhook_never_makes_a_write_of_the_application_fail() {
    let database = Database::create().await;
    for Case { name, tables, writes, parts } in CASES {
        let is_new = ["a row filter", "a column list"].iter().any(|kind| name.starts_with(kind));
        if is_new && !has_version(installation(), 15, name) {
            continue;
        }
        let sql = database.sql().await;
        let fresh = "DROP SCHEMA public CASCADE; CREATE SCHEMA public;
                     DROP PUBLICATION IF EXISTS walhook";
        sql.batch_execute(&format!("{fresh}; {tables}")).await.unwrap();
        let rows = "INSERT INTO o (id, v) VALUES (1, 'a')";
        let rows =
            if tables.contains("code text") { "INSERT INTO o VALUES (1, 'a', 'c')" } else { rows };
        sql.batch_execute(rows).await.unwrap();
        let toml = configuration(&database, &format!("{}{}", event("o", ""), webhook(NOWHERE)));
        assert_refused(&sql, &toml, parts).await;
        sql.batch_execute(writes).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
    }
}

#[tokio::test]
async fn a_schema_of_a_publication_is_judged_as_well() {
    if !has_version(installation(), 15, "schemas of publications") {
        return;
    }
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(
        "CREATE TABLE o (id int PRIMARY KEY, v text); CREATE SCHEMA s; CREATE TABLE s.log (note text);
         CREATE PUBLICATION walhook FOR TABLES IN SCHEMA s WITH (publish = 'insert')",
    )
    .await
    .unwrap();
    let toml = configuration(&database, &format!("{}{}", event("o", ""), webhook(NOWHERE)));
    assert_refused(&sql, &toml, &["also covers s.log"]).await;
    // What publishes no updates needs no identity.
    let toml = toml.replace("\"insert\", \"update\", \"delete\"", "\"insert\"");
    assert_eq!(ended("check", &toml).await.0, Some(0));
    sql.batch_execute("ALTER TABLE s.log REPLICA IDENTITY FULL").await.unwrap();
    let toml = toml.replace("\"insert\"", "\"update\"");
    assert_eq!(ended("check", &toml).await.0, Some(0));
}

#[tokio::test]
async fn tables_that_inherit_are_not_published_and_said_so() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(
        "CREATE TABLE o (id int PRIMARY KEY, v text); CREATE TABLE kept () INHERITS (o);
         CREATE TABLE older () INHERITS (kept); CREATE TEMP TABLE mine () INHERITS (o)",
    )
    .await
    .unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    let toml = configuration(&database, &format!("{}{}", event("o", ""), webhook(&receiver.url())));
    let (code, output) = ended("check", &toml).await;
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("public.kept, public.older inherits from public.o"), "{output}");
    assert!(output.contains("FOR TABLE ONLY \"public\".\"o\""), "{output}");
    let mut service = Service::start(&toml).await;
    sql.batch_execute(
        "INSERT INTO kept VALUES (1, 'a'); INSERT INTO older VALUES (2, 'a');
         INSERT INTO mine VALUES (3, 'a'); INSERT INTO o VALUES (4, 'a');
         UPDATE o SET v = 'b'; DELETE FROM kept",
    )
    .await
    .unwrap();
    receiver.wait_for(2, AMPLE).await;
    service.stop().await;
    assert_eq!(receiver.requests().len(), 2, "the row of o alone");
}

#[tokio::test]
async fn events_on_a_table_and_on_its_partition_are_refused() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(
        "CREATE TABLE o (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
         CREATE TABLE m PARTITION OF o FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (id);
         CREATE TABLE leaf PARTITION OF m DEFAULT; CREATE TABLE rest PARTITION OF o DEFAULT",
    )
    .await
    .unwrap();
    for (two, said) in [
        (["o", "leaf"], "events on public.leaf and on public.o"),
        (["m", "leaf"], "events on public.leaf and on public.m"),
        (["o", "m"], "events on public.m and on public.o"),
    ] {
        let events: String = two.iter().map(|table| event(table, "")).collect();
        let toml = configuration(&database, &format!("{events}{}", webhook(NOWHERE)));
        assert_refused(&sql, &toml, &[said, "name public."]).await;
    }
    // The rows of a partition that is published as its root never come under its own name.
    sql.batch_execute(
        "CREATE PUBLICATION walhook FOR TABLE o WITH (publish_via_partition_root = true)",
    )
    .await
    .unwrap();
    let toml = configuration(&database, &format!("{}{}", event("leaf", ""), webhook(NOWHERE)));
    assert_refused(&sql, &toml, &["events on public.leaf and on public.o"]).await;
    sql.batch_execute("DROP PUBLICATION walhook").await.unwrap();
    let two: String = ["leaf", "rest"].iter().map(|table| event(table, "")).collect();
    let toml = configuration(&database, &format!("{two}{}", webhook(NOWHERE)));
    assert_eq!(ended("check", &toml).await.0, Some(0));
}

/// Under a root that is FULL a partition writes what its own identity says, and PostgreSQL fills the
/// rest with nulls.
#[tokio::test]
async fn what_a_partition_does_not_send_is_never_told_as_null() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(
        "CREATE TABLE o (id int, d int, status text, note text, PRIMARY KEY (id, d))
             PARTITION BY RANGE (d);
         CREATE TABLE o_1 PARTITION OF o FOR VALUES FROM (0) TO (10);
         CREATE TABLE o_2 PARTITION OF o DEFAULT;
         ALTER TABLE o REPLICA IDENTITY FULL; ALTER TABLE o_2 REPLICA IDENTITY FULL;
         INSERT INTO o VALUES (1, 1, 'new', NULL), (2, 20, 'new', NULL), (3, 1, 'new', 'n')",
    )
    .await
    .unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    let filtered = event("o", "when = \"status != old.status\"");
    let toml = configuration(&database, &format!("{filtered}{}", webhook(NOWHERE)));
    let fix = "ALTER TABLE \"public\".\"o_1\" REPLICA IDENTITY FULL;";
    assert_refused(&sql, &toml, &["values of the old row", "public.o_1", fix]).await;

    let debezium = "\n[[event]]\ntype = \"d\"\ntable = \"o\"\non = [\"delete\", \"update\"]\n\
                    payload = \"debezium\"\n\n";
    let events = format!("{}{debezium}{}", event("o", ""), webhook(&receiver.url()));
    let toml = configuration(&database, &events);
    let mut service = Service::start(&toml).await;
    sql.batch_execute("UPDATE o SET id = 7 WHERE id = 1").await.unwrap();
    receiver.wait_for(2, AMPLE).await;
    sql.batch_execute("DELETE FROM o WHERE id = 7; DELETE FROM o WHERE id = 2").await.unwrap();
    receiver.wait_for(6, AMPLE).await;
    let bodies: Vec<_> = receiver.requests().iter().map(|request| request.json()).collect();
    let of = |kind: &str, id: i32| {
        let found = bodies.iter().filter(|body| match kind {
            "o" => body["type"] == "o" && body["data"]["id"] == id,
            op => body["op"] == op && (body["before"]["id"] == id || body["after"]["id"] == id),
        });
        found.cloned().collect::<Vec<_>>()
    };
    let key = serde_json::json!({ "id": 1, "d": 1 });
    let update = of("o", 7).into_iter().find(|body| body.get("old").is_some()).unwrap();
    assert_eq!(update["old"], key, "{update}");
    assert_eq!(of("u", 7)[0]["before"], key);
    let gone = serde_json::json!({ "id": 7, "d": 1 });
    let delete = of("o", 7).into_iter().find(|body| body.get("old").is_none()).unwrap();
    assert_eq!(delete["data"], gone, "{delete}");
    assert_eq!(of("d", 7)[0]["before"], gone);
    let whole = &of("o", 2)[0]["data"];
    assert_eq!((&whole["id"], &whole["status"]), (&2.into(), &"new".into()), "a whole row");

    // From here on nulls are told, since every partition sends them.
    sql.batch_execute("ALTER TABLE o_1 REPLICA IDENTITY FULL; DELETE FROM o WHERE id = 3")
        .await
        .unwrap();
    receiver.wait_for(8, AMPLE).await;
    service.stop().await;
    let last: Vec<_> = receiver.requests().iter().map(|request| request.json()).collect();
    let last = last.iter().find(|body| body["data"]["id"] == 3).unwrap();
    let expected = serde_json::json!({ "id": 3, "d": 1, "status": "new", "note": "n" });
    assert_eq!(last["data"], expected);
}
