//! `walhook init` on tables of all kinds: what it writes is accepted by `walhook check`.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

use walhook::testing::sandbox::cluster::ClusterOptions;

use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::support::postgres::start_cluster;
use crate::support::program::Program;
use crate::support::service::AMPLE;
use crate::support::service::configuration;

/// What it said on both streams, its exit code, and the file that it wrote.
struct Made {
    code: Option<i32>,
    said: String,
    file: String,
}

async fn init(database: &Database, tables: &[&str]) -> Made {
    let url = database.url();
    let mut args = vec!["init", "--database-url", &url, "--output", "made.toml"];
    args.extend(tables.iter().flat_map(|table| ["--table", table]));
    let mut program = Program::start(&args, "", &[]);
    let code = program.wait(AMPLE).await;
    let file = std::fs::read_to_string(program.home().join("made.toml")).unwrap_or_default();
    Made { code, said: program.output().join("\n"), file }
}

/// Has an administrator run the SQL, then asks `check`.
async fn check(sql: &Sql, tables: &[&str], made: &Made) {
    assert_eq!(made.code, Some(0), "{tables:?}: {}", made.said);
    let is_sql = |line: &&str| ["ALTER ", "CREATE ", "GRANT "].iter().any(|w| line.starts_with(w));
    let script: Vec<&str> = made.said.lines().filter(is_sql).collect();
    sql.batch_execute(&script.join("\n")).await.unwrap();
    let mut check = Program::start(&["check", "--bodies"], &made.file, &[]);
    let code = check.wait(AMPLE).await;
    let said = check.output().join("\n");
    assert_eq!(code, Some(0), "{tables:?}: {said}\n{}", made.file);
}

const TABLES: &str = r#"
    CREATE SCHEMA "Sales Team"; CREATE SCHEMA a; CREATE SCHEMA b; CREATE SCHEMA "select";
    CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN positive AS int CHECK (VALUE > 0);
    CREATE TYPE place AS (x int, y int);
    CREATE TABLE plain (id int PRIMARY KEY, note text);
    CREATE TABLE "MixedCase" ("Id" int PRIMARY KEY, "Some Note" text);
    CREATE TABLE "Sales Team"."Order ""Lines""" ("the id" int PRIMARY KEY, "a.b" text, "select" text);
    CREATE TABLE "select"."table" ("from" int PRIMARY KEY);
    CREATE TABLE "订单" ("编号" int PRIMARY KEY, "备注" text);
    CREATE TABLE "客户" ("编号" int PRIMARY KEY);
    CREATE TABLE "dotted.name" (id int PRIMARY KEY);
    CREATE TABLE "2much'\ {{ id }} # = [[x]]" (id int PRIMARY KEY);
    CREATE TABLE keyless (note text, at timestamptz);
    CREATE TABLE composite (b int, a text, c int, PRIMARY KEY (c, a));
    CREATE TABLE nothing (id int PRIMARY KEY); ALTER TABLE nothing REPLICA IDENTITY NOTHING;
    CREATE TABLE indexed (id int NOT NULL, code text NOT NULL);
    CREATE UNIQUE INDEX indexed_code ON indexed (code);
    ALTER TABLE indexed REPLICA IDENTITY USING INDEX indexed_code;
    CREATE TABLE whole (id int, note text); ALTER TABLE whole REPLICA IDENTITY FULL;
    CREATE TABLE parted (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
    CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
    CREATE TABLE parted_2 PARTITION OF parted DEFAULT;
    CREATE TABLE heap (id int, at date) PARTITION BY HASH (id);
    CREATE TABLE heap_0 PARTITION OF heap FOR VALUES WITH (MODULUS 2, REMAINDER 0)
        PARTITION BY LIST (at);
    CREATE TABLE "Heap 0 all" PARTITION OF heap_0 DEFAULT;
    CREATE TABLE heap_1 PARTITION OF heap FOR VALUES WITH (MODULUS 2, REMAINDER 1);
    CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (more int) INHERITS (parent);
    CREATE TABLE generated (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int,
                            twice int GENERATED ALWAYS AS (n * 2) STORED);
    CREATE TABLE generated_key (n int, twice int GENERATED ALWAYS AS (n * 2) STORED PRIMARY KEY);
    CREATE TABLE rich (id positive PRIMARY KEY, mood mood, moods mood[], at place, tags text[],
                       spots place[], extra jsonb, span int4range, spans int4multirange, raw bytea);
    CREATE TABLE bare (); CREATE TABLE dropped (id int PRIMARY KEY, gone int, note text);
    ALTER TABLE dropped DROP COLUMN gone;
    CREATE TABLE a.twin (id int PRIMARY KEY); CREATE TABLE b.twin (id int PRIMARY KEY);
    CREATE TABLE "twin%" (id int PRIMARY KEY); CREATE TABLE "twin&" (id int PRIMARY KEY);
    CREATE VIEW seen AS SELECT * FROM plain; CREATE MATERIALIZED VIEW kept AS SELECT * FROM plain;
    CREATE UNLOGGED TABLE fleeting (id int PRIMARY KEY);
    CREATE SERVER elsewhere FOREIGN DATA WRAPPER nobody;
    CREATE FOREIGN TABLE abroad (id int) SERVER elsewhere;
    INSERT INTO rich VALUES (1, 'ok', '{sad,ok}', '(1,2)', '{a,NULL}', ARRAY[(1,2)::place], '{}',
                             '[1,5)', '{[1,2)}', '\x00ff');
    INSERT INTO "Sales Team"."Order ""Lines""" VALUES (1, 'x', 'y');
    INSERT INTO "订单" VALUES (1, '你好'); INSERT INTO heap VALUES (1, '2026-01-01'), (2, NULL);
    INSERT INTO generated (n) VALUES (2); INSERT INTO "MixedCase" VALUES (1, 'x');
"#;

/// As `--table` takes them; most of them as `init` lists them.
const NAMES: &[&[&str]] = &[
    &["public.plain"],
    &["plain"],
    &["MixedCase"],
    &["\"MixedCase\""],
    &["\"Sales Team\".\"Order \"\"Lines\"\"\""],
    &["Sales Team.Order \"Lines\""],
    &["select.table"],
    &["public.订单", "public.客户"],
    &["public.\"dotted.name\""],
    &["public.\"2much'\\ {{ id }} # = [[x]]\""],
    &["keyless"],
    &["composite"],
    &["nothing"],
    &["indexed"],
    &["whole"],
    &["parted"],
    &["heap"],
    &["parent", "child"],
    &["generated"],
    &["generated_key"],
    &["rich"],
    &["bare"],
    &["dropped"],
    &["a.twin", "b.twin", "public.\"twin%\"", "public.\"twin&\""],
];

#[tokio::test]
async fn what_it_writes_for_odd_tables_is_accepted() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute("CREATE FOREIGN DATA WRAPPER nobody").await.unwrap();
    sql.batch_execute(TABLES).await.unwrap();
    for names in NAMES {
        let made = init(&database, names).await;
        check(&sql, names, &made).await;
    }
}

#[tokio::test]
async fn what_is_no_table_is_skipped_with_a_word() {
    let database = Database::create().await;
    let sql = database.sql().await;
    let empty = init(&database, &[]).await;
    assert_eq!(empty.code, Some(0), "{}", empty.said);
    assert!(
        empty.said.contains("has no table to capture") && empty.file.is_empty(),
        "{}",
        empty.said
    );
    sql.batch_execute("CREATE FOREIGN DATA WRAPPER nobody").await.unwrap();
    sql.batch_execute(TABLES).await.unwrap();
    let listed = init(&database, &[]).await;
    assert_eq!(listed.code, Some(0), "{}", listed.said);
    for part in ["public.plain", "public.\"dotted.name\"", "no primary key", "key c, a"] {
        assert!(listed.said.contains(part), "{part}: {}", listed.said);
    }
    let cases = [
        ("public.seen", "is a view"),
        ("kept", "is a materialized view"),
        ("abroad", "is a foreign table"),
        ("fleeting", "is unlogged"),
        ("parted_1", "is a partition of public.parted"),
        ("plane", "did you mean public.plain?"),
        ("public.seen2", "no such table"),
    ];
    for (name, expected) in cases {
        let refused = init(&database, &[name, "plain"]).await;
        assert_eq!(refused.code, Some(3), "{name}: {}", refused.said);
        assert!(refused.said.contains(expected), "{name}: {}", refused.said);
        assert!(refused.file.is_empty(), "{name}");
        if expected.starts_with("is ") && !expected.contains("partition") {
            assert!(listed.said.contains(name), "{name}: {}", listed.said);
        }
    }
}

/// What `init --role ROLE` prints on standard output for one table, and its exit code.
async fn init_for(url: &str, role: &str) -> String {
    let args =
        ["init", "--database-url", url, "--output", "made.toml", "--table", "t", "--role", role];
    let mut program = Program::start(&args, "", &[]);
    let code = program.wait(AMPLE).await;
    let said = program.output().join("\n");
    assert_eq!(code, Some(0), "{said}");
    said
}

#[tokio::test]
async fn a_managed_service_gets_its_own_steps_and_they_are_enough() {
    let cluster = start_cluster(ClusterOptions::default()).await;
    let sql = Sql::connect(&cluster.url("postgres")).await;
    // As on RDS: the administrator is no superuser, and a role stands for the right to replicate.
    sql.batch_execute(
        "CREATE ROLE rds_superuser; CREATE ROLE rds_replication; CREATE ROLE rdsadmin;
         CREATE ROLE boss LOGIN CREATEROLE IN ROLE rds_superuser;
         GRANT rds_replication TO boss WITH ADMIN OPTION;
         GRANT CREATE ON DATABASE postgres TO boss; GRANT CREATE ON SCHEMA public TO boss;
         SET ROLE boss; CREATE TABLE t (id int PRIMARY KEY); RESET ROLE",
    )
    .await
    .unwrap();
    let url = cluster.url("postgres").replace("postgres@", "boss@");
    let said = init_for(&url, "walhook").await;
    assert!(said.contains("administrator of Amazon RDS"), "{said}");
    assert!(
        said.contains(&format!("walhook:PASSWORD@127.0.0.1:{}/postgres", cluster.port())),
        "{said}"
    );
    for refused in ["ALTER SYSTEM", "LOGIN REPLICATION", "AUTHORIZATION"] {
        assert!(!said.contains(refused), "{refused}: {said}");
    }
    let is_sql = |line: &&str| ["ALTER ", "CREATE ", "GRANT "].iter().any(|w| line.starts_with(w));
    let boss = Sql::connect(&url).await;
    for statement in said.lines().filter(is_sql) {
        boss.batch_execute(statement).await.unwrap();
    }
    // What is done is not asked for again.
    let again = init_for(&url, "walhook").await;
    assert!(!again.lines().any(|line| is_sql(&line)), "{again}");
    assert!(again.contains("Nothing is left"), "{again}");
}

#[tokio::test]
async fn a_schema_that_is_there_is_used_and_not_made_again() {
    let cluster = start_cluster(ClusterOptions::default()).await;
    let url = cluster.url("postgres");
    let sql = Sql::connect(&url).await;
    sql.batch_execute(
        "CREATE TABLE t (id int PRIMARY KEY); CREATE ROLE app LOGIN REPLICATION;
         CREATE SCHEMA walhook; GRANT SELECT ON t TO app; CREATE PUBLICATION walhook FOR TABLE t",
    )
    .await
    .unwrap();
    let said = init_for(&url, "app").await;
    assert!(!said.contains("CREATE SCHEMA"), "{said}");
    assert!(said.contains("GRANT USAGE, CREATE ON SCHEMA walhook TO \"app\";"), "{said}");
    sql.batch_execute("GRANT USAGE, CREATE ON SCHEMA walhook TO app").await.unwrap();
    assert!(init_for(&url, "app").await.contains("Nothing is left"));
    sql.batch_execute(
        "CREATE ROLE old; CREATE TABLE walhook.x (); ALTER TABLE walhook.x OWNER TO old",
    )
    .await
    .unwrap();
    let said = init_for(&url, "app").await;
    assert!(said.contains("GRANT \"old\" TO \"app\";"), "{said}");
}

#[tokio::test]
async fn whoever_has_set_the_variable_is_not_told_to_set_it() {
    let database = Database::create().await;
    database.sql().await.batch_execute("CREATE TABLE o (id int PRIMARY KEY)").await.unwrap();
    let url = database.url();
    for (role, is_told) in [(None, false), (Some("another_one"), true)] {
        let mut args = vec!["init", "--output", "made.toml", "--table", "o"];
        args.extend(role.into_iter().flat_map(|role| ["--role", role]));
        let mut program = Program::start(&args, "", &[("DATABASE_URL", &url)]);
        assert_eq!(program.wait(AMPLE).await, Some(0), "{:?}", program.output());
        let said = program.output().join("\n");
        assert!(said.contains("walhook check"), "{said}");
        assert_eq!(said.contains("export DATABASE_URL"), is_told, "{role:?}: {said}");
    }
}

/// What the server says at the door is told with the place and the way out, by whoever knocks.
#[tokio::test]
async fn an_encoding_that_is_not_converted_is_named_by_init_check_and_run() {
    let options = "ENCODING 'MULE_INTERNAL' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'";
    let odd = Database::create_with(options).await;
    let plain = Database::create().await;
    let rest = "[[event]]\ntype = \"t\"\ntable = \"public.t\"\n\n[webhook]\nurls = [\"http://127.0.0.1:9/\"]\n";
    let toml = configuration(&odd, rest);
    // The state has a database of its own, perhaps.
    let state = configuration(&plain, rest) + &format!("\n[state]\nurl = \"{}\"\n", odd.url());
    plain.sql().await.batch_execute("CREATE TABLE t (id int PRIMARY KEY)").await.unwrap();
    let made = init(&odd, &["t"]).await;
    let mut said = vec![(made.code, made.said)];
    for (command, toml) in [("check", &toml), ("run", &toml), ("check", &state), ("run", &state)] {
        let mut program = Program::start(&[command], toml, &[]);
        said.push((program.wait(AMPLE).await, program.output().join("\n")));
    }
    for (code, said) in said {
        assert_eq!(code, Some(3), "{said}");
        let place =
            format!("database {} has an encoding that PostgreSQL cannot convert", odd.name());
        for part in [place.as_str(), "MULE_INTERNAL", "pg_dump -E", "not-in-utf8"] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
}
