//! Write-backs: when every endpoint has an outcome, the row is told, once, and raises no event.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

mod statements;

use std::time::Duration;
use std::time::Instant;

use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::support::postgres::wait_for_text;
use crate::support::program::Program;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;
use crate::support::service::slot;

/// `audit` counts how often each row was written with an outcome.
const TABLES: &str = "
    CREATE TABLE tasks (id text PRIMARY KEY, rule_id bigint NOT NULL, status text NOT NULL);
    ALTER TABLE tasks REPLICA IDENTITY FULL;
    CREATE TABLE audit (id text NOT NULL, status text NOT NULL);
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN INSERT INTO audit VALUES (NEW.id, NEW.status); RETURN NEW; END $$;
    CREATE TRIGGER note AFTER UPDATE ON tasks FOR EACH ROW
        WHEN (lower(NEW.status) LIKE 'push%') EXECUTE FUNCTION note();";

/// Completed tasks go to `one` and `two` by their rule; `spy` gets whatever changes.
fn events(write_back: &str) -> String {
    format!(
        "[[event]]\ntype = \"task.completed\"\ntable = \"public.tasks\"\n\
         on = [\"insert\", \"update\"]\n\
         when = \"status == 'COMPLETED' && old.status != 'COMPLETED'\"\n\
         write_back = {{ {write_back}, delivered = \"PUSH_SUCCESS\", failed = \"push_failed\" }}\n\n\
         [[event]]\ntype = \"task.changed\"\ntable = \"public.tasks\"\n\n\
         [webhook]\nretry_interval = \"20ms\"\nretry_cap = \"50ms\"\nmax_retries = 100\n\
         breaker = {{ failures = 2, cooldown = \"50ms\", cap = \"100ms\" }}\n\n"
    )
}

fn endpoint(name: &str, receiver: &Receiver, events: &str, rules: &str) -> String {
    let url = receiver.url();
    format!(
        "[[endpoint]]\nname = \"{name}\"\nurl = \"{url}\"\nevents = [\"{events}\"]\n\
         when = \"rule_id in [{rules}]\"\n\n"
    )
}

fn taking() -> Receiver {
    Receiver::start(always(Answer::status(200)))
}

async fn database() -> (Database, Sql) {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(TABLES).await.unwrap();
    (database, sql)
}

async fn complete(sql: &Sql, id: &str, rule: i64) {
    let insert = format!("INSERT INTO tasks VALUES ('{id}', {rule}, 'COMPLETED')");
    sql.batch_execute(&insert).await.unwrap();
}

async fn wait_for_status(sql: &Sql, id: &str, expected: &str) {
    let query = format!("SELECT status FROM tasks WHERE id = '{id}'");
    wait_for_text(sql, &query, expected).await;
}

const AUDIT: &str = "SELECT coalesce(string_agg(id || ' ' || status, ', ' ORDER BY id, status), '')
                       FROM audit";
const LEFT: &str = "SELECT count(*) FROM walhook.write_backs";
const COLUMN: &str = "column = \"status\"";

#[tokio::test]
async fn the_row_is_told_once_what_became_of_it_and_raises_no_event() {
    let (database, sql) = database().await;
    let (one, two, spy) = (taking(), taking(), taking());
    two.behave(always(Answer::status(400)));
    let toml = events(COLUMN)
        + &endpoint("one", &one, "task.completed", "1, 2")
        + &endpoint("two", &two, "task.completed", "2")
        + &endpoint("spy", &spy, "task.changed", "1, 2, 3");
    let mut service = Service::start(&configuration(&database, &toml)).await;
    complete(&sql, "taken", 1).await;
    complete(&sql, "refused", 2).await;
    complete(&sql, "untaken", 3).await;
    wait_for_status(&sql, "taken", "PUSH_SUCCESS").await;
    wait_for_status(&sql, "refused", "push_failed").await;
    // None of no endpoints has failed.
    wait_for_status(&sql, "untaken", "PUSH_SUCCESS").await;
    sql.batch_execute(
        "INSERT INTO tasks VALUES ('running', 3, 'RUNNING');
         UPDATE tasks SET rule_id = 1 WHERE id = 'running'",
    )
    .await
    .unwrap();
    // What comes after the write-backs has arrived, so they would have, too.
    spy.wait_for(5, AMPLE).await;
    let seen: Vec<String> = spy
        .requests()
        .iter()
        .map(|request| request.json()["data"]["status"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(seen, ["COMPLETED", "COMPLETED", "COMPLETED", "RUNNING", "RUNNING"]);
    let told = "refused push_failed, taken PUSH_SUCCESS, untaken PUSH_SUCCESS";
    assert_eq!(sql.text(AUDIT).await, told);
    wait_for_status(&sql, "running", "RUNNING").await;
    // The one with a dead letter stays, since a resend could turn it to the better.
    let kept = "SELECT string_agg(written || ' ' || coalesce(due_at::text, 'done'), ',')
                  FROM walhook.write_backs";
    wait_for_text(&sql, kept, "failed done").await;
    let series = |outcome: &str| {
        format!("walhook_write_backs_total{{event=\"task.completed\",outcome=\"{outcome}\"}}")
    };
    service.wait_for_metric(&series("delivered"), 2.0).await;
    service.wait_for_metric(&series("failed"), 1.0).await;
    // It goes when the operator has dealt with the letter.
    sql.batch_execute("UPDATE walhook.dead_letters SET state = 'discarded', closed_at = now()")
        .await
        .unwrap();
    service.stop().await;
    let mut again = Service::start(&configuration(&database, &toml)).await;
    wait_for_text(&sql, LEFT, "0").await;
    again.stop().await;
    assert_eq!(sql.text(AUDIT).await, told);
}

#[tokio::test]
async fn a_parked_delivery_is_waited_for_through_a_kill() {
    let (database, sql) = database().await;
    let (one, two) = (taking(), taking());
    two.behave(always(Answer::Close));
    let toml = events(COLUMN)
        + &endpoint("one", &one, "task.completed", "1")
        + &endpoint("two", &two, "task.completed", "1");
    let toml = configuration(&database, &toml);
    let mut service = Service::start(&toml).await;
    for id in 0..20 {
        complete(&sql, &format!("t{id:02}"), 1).await;
    }
    one.wait_for(20, AMPLE).await;
    let parked = "SELECT count(*) FROM walhook.backlog WHERE endpoint = 'two'";
    wait_for_text(&sql, parked, "20").await;
    let counted = "SELECT count(*) FROM walhook.write_backs
                    WHERE owed = 2 AND delivered = 1 AND due_at IS NULL";
    wait_for_text(&sql, counted, "20").await;
    assert_eq!(sql.text(AUDIT).await, "");
    service.program.kill();
    service.program.wait(AMPLE).await;
    two.behave(always(Answer::status(200)));
    let mut again = Service::start(&toml).await;
    let told = "SELECT count(*) || ' ' || count(DISTINCT id) FROM audit
                 WHERE status = 'PUSH_SUCCESS'";
    wait_for_text(&sql, told, "20 20").await;
    wait_for_text(&sql, LEFT, "0").await;
    again.stop().await;
}

#[tokio::test]
async fn what_nobody_takes_is_told_at_once_and_once_also_beside_kills_and_stuck_endpoints() {
    let (database, sql) = database().await;
    let stuck = Receiver::start(always(Answer::status(200).after(Duration::from_secs(600))));
    let statement = "sql = \"INSERT INTO audit VALUES ({{ id }}, {{ outcome }})\"";
    let toml = events(statement)
        + "[[endpoint]]\nname = \"stuck\"\nevents = [\"task.completed\"]\nwhen = \"rule_id == 1\"\n\
           timeout = \"1h\"\npark_after = \"1h\"\n"
        + &format!("url = \"{}\"\n", stuck.url());
    let toml = configuration(&database, &toml);
    let mut service = Service::start(&toml).await;
    // The prefix that is settled ends here.
    complete(&sql, "held", 1).await;
    for round in 0..3 {
        let insert = format!(
            "INSERT INTO tasks SELECT 'n{round}-' || n, CASE n % 2 WHEN 0 THEN 5 ELSE 6 END, 'COMPLETED'
               FROM generate_series(1, 100) n"
        );
        sql.batch_execute(&insert).await.unwrap();
        let told = "SELECT count(*) || ' ' || count(DISTINCT id) || ' ' || min(status) FROM audit";
        let all = (round + 1) * 100;
        wait_for_text(&sql, told, &format!("{all} {all} PUSH_SUCCESS")).await;
        service.program.kill();
        service.program.wait(AMPLE).await;
        service = Service::start(&toml).await;
    }
    // What comes next was read after all that came again.
    complete(&sql, "last", 7).await;
    wait_for_text(&sql, "SELECT count(*) FROM audit WHERE id = 'last'", "1").await;
    let twice = "SELECT count(*) - count(DISTINCT id) FROM audit";
    assert_eq!(sql.text(twice).await, "0");
    service.program.kill();
}

#[tokio::test]
async fn nobody_is_told_while_nothing_is_pushed() {
    let (database, sql) = database().await;
    let one = taking();
    let toml = events(COLUMN).replace("[webhook]", "[webhook]\nenabled = false")
        + &endpoint("one", &one, "task.completed", "1");
    let mut service = Service::start(&configuration(&database, &toml)).await;
    complete(&sql, "unpushed", 1).await;
    // As both events of the change.
    let counted = "SELECT coalesce(sum(filtered), 0) FROM walhook.balance";
    wait_for_text(&sql, counted, "2").await;
    service.stop().await;
    assert_eq!(sql.text("SELECT status FROM tasks").await, "COMPLETED");
    assert_eq!((sql.text(LEFT).await, one.count()), ("0".to_owned(), 0));
}

#[tokio::test]
async fn kills_at_any_moment_write_each_row_exactly_once() {
    let (database, sql) = database().await;
    let (one, two) = (taking(), taking());
    let toml = events(COLUMN)
        + &endpoint("one", &one, "task.completed", "1")
        + &endpoint("two", &two, "task.completed", "1");
    let toml = configuration(&database, &toml);
    let mut service = Service::start(&toml).await;
    let (rounds, rows) = (6, 150);
    for round in 0..rounds {
        let insert = format!(
            "INSERT INTO tasks SELECT 't' || {round} || '-' || n, 1, 'COMPLETED'
               FROM generate_series(1, {rows}) n"
        );
        sql.batch_execute(&insert).await.unwrap();
        let some = format!("SELECT count(*) > {} FROM audit", round * rows + round * 20);
        wait_for_text(&sql, &some, "t").await;
        service.program.kill();
        service.program.wait(AMPLE).await;
        service = Service::start(&toml).await;
    }
    let all = rounds * rows;
    let told = "SELECT count(*) || ' ' || count(DISTINCT id) FROM audit
                 WHERE status = 'PUSH_SUCCESS'";
    wait_for_text(&sql, told, &format!("{all} {all}")).await;
    wait_for_text(&sql, LEFT, "0").await;
    assert_eq!(
        sql.text("SELECT count(*) FROM tasks WHERE status = 'PUSH_SUCCESS'").await,
        format!("{all}")
    );
    service.stop().await;
}

#[tokio::test]
async fn a_write_back_that_postgres_refuses_waits_and_holds_up_nothing() {
    let (database, sql) = database().await;
    let one = taking();
    let toml = events(COLUMN) + &endpoint("one", &one, "task.completed", "1");
    let mut service = Service::start(&configuration(&database, &toml)).await;
    sql.batch_execute(
        "ALTER TABLE tasks ADD CONSTRAINT not_yet CHECK (id <> 'bad' OR status = 'COMPLETED')",
    )
    .await
    .unwrap();
    let holder = database.sql().await;
    complete(&sql, "locked", 1).await;
    wait_for_status(&sql, "locked", "PUSH_SUCCESS").await;
    holder
        .batch_execute(
            "BEGIN; INSERT INTO tasks VALUES ('held', 9, 'NEW'); COMMIT; BEGIN;
                        UPDATE tasks SET rule_id = 9 WHERE id = 'locked'",
        )
        .await
        .unwrap();
    for id in ["bad", "good"] {
        complete(&sql, id, 1).await;
    }
    wait_for_status(&sql, "good", "PUSH_SUCCESS").await;
    wait_for_status(&sql, "bad", "COMPLETED").await;
    let deadline = Instant::now() + AMPLE;
    loop {
        let status = service.get("/api/v1/status").await.json();
        let write_backs = &status["write_backs"];
        if write_backs["failing"] == 1 {
            assert!(write_backs["error"].as_str().unwrap().contains("not_yet"), "{status}");
            break;
        }
        assert!(Instant::now() < deadline, "{status}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Deliveries, the slot and readiness do not care.
    complete(&sql, "later", 1).await;
    wait_for_status(&sql, "later", "PUSH_SUCCESS").await;
    one.wait_for(4, AMPLE).await;
    let end = sql.text("SELECT pg_current_wal_lsn() - 100000").await;
    let confirmed = format!(
        "SELECT confirmed_flush_lsn >= '{end}' FROM pg_replication_slots WHERE slot_name = '{}'",
        slot(&database)
    );
    wait_for_text(&sql, &confirmed, "t").await;
    assert_eq!(service.get("/ready").await.status, 200);
    holder.batch_execute("ROLLBACK").await.unwrap();
    sql.batch_execute("ALTER TABLE tasks DROP CONSTRAINT not_yet").await.unwrap();
    wait_for_status(&sql, "bad", "PUSH_SUCCESS").await;
    wait_for_text(&sql, LEFT, "0").await;
    let named = service.program.output();
    let named = named.iter().filter(|line| line.contains("cannot write an outcome back"));
    assert_eq!(named.count(), 1, "it is named once");
    service.stop().await;
}

#[tokio::test]
async fn a_locked_row_is_written_when_its_holder_lets_go() {
    let (database, sql) = database().await;
    let one = taking();
    one.behave(always(Answer::status(200).after(Duration::from_millis(300))));
    let toml = events(COLUMN) + &endpoint("one", &one, "task.completed", "1");
    let mut service = Service::start(&configuration(&database, &toml)).await;
    for id in ["locked", "free"] {
        complete(&sql, id, 1).await;
    }
    let holder = database.sql().await;
    let lock = "BEGIN; SELECT FROM tasks WHERE id = 'locked' FOR UPDATE";
    holder.batch_execute(lock).await.unwrap();
    wait_for_status(&sql, "free", "PUSH_SUCCESS").await;
    service.program.wait_for_line("lock timeout", AMPLE).await;
    holder.batch_execute("COMMIT").await.unwrap();
    wait_for_status(&sql, "locked", "PUSH_SUCCESS").await;
    service.stop().await;
}

#[tokio::test]
async fn the_state_may_be_in_another_database() {
    let (database, sql) = database().await;
    let state = Database::create().await;
    let (one, spy) = (taking(), taking());
    let toml = events(COLUMN)
        + &endpoint("one", &one, "task.completed", "1")
        + &endpoint("spy", &spy, "task.changed", "1");
    let toml = configuration(&database, &toml) + &format!("[state]\nurl = \"{}\"\n", state.url());
    let mut service = Service::start(&toml).await;
    for id in ["a", "b"] {
        complete(&sql, id, 1).await;
    }
    wait_for_text(&sql, AUDIT, "a PUSH_SUCCESS, b PUSH_SUCCESS").await;
    wait_for_text(&state.sql().await, LEFT, "0").await;
    complete(&sql, "c", 1).await;
    spy.wait_for(3, AMPLE).await;
    wait_for_status(&sql, "c", "PUSH_SUCCESS").await;
    assert_eq!(spy.count(), 3);
    service.stop().await;
}

#[tokio::test]
async fn a_row_that_has_moved_on_is_left_alone() {
    let (database, sql) = database().await;
    let one = taking();
    one.behave(always(Answer::status(200).after(Duration::from_millis(400))));
    let toml = events(COLUMN) + &endpoint("one", &one, "task.completed", "1");
    let mut service = Service::start(&configuration(&database, &toml)).await;
    complete(&sql, "restarted", 1).await;
    one.wait_for(1, AMPLE).await;
    sql.batch_execute("UPDATE tasks SET status = 'RUNNING'").await.unwrap();
    let unchanged = "walhook_write_backs_total{event=\"task.completed\",outcome=\"unchanged\"}";
    service.wait_for_metric(unchanged, 1.0).await;
    wait_for_status(&sql, "restarted", "RUNNING").await;
    service.stop().await;
}

#[tokio::test]
async fn a_statement_of_ones_own_gets_values_of_any_type() {
    let (database, sql) = database().await;
    sql.batch_execute(
        "CREATE TYPE mood AS ENUM ('new', 'sent', 'lost');
         CREATE TABLE odd (a int, \"b b\" uuid, m mood NOT NULL, at timestamptz, doc jsonb,
                           PRIMARY KEY (a, \"b b\"));
         CREATE TABLE sends (event text PRIMARY KEY, a int, m mood, doc jsonb, at timestamptz)",
    )
    .await
    .unwrap();
    let one = taking();
    let insert =
        "INSERT INTO sends VALUES ({{ event_id }}, {{ a }}, {{ outcome }}, {{ doc }}, now())";
    let toml = format!(
        "[[event]]\ntype = \"odd.sent\"\ntable = \"public.odd\"\non = [\"insert\", \"delete\"]\n\
         write_back = {{ sql = \"{insert}\", delivered = \"sent\", failed = \"lost\" }}\n\n\
         [[event]]\ntype = \"odd.new\"\ntable = \"public.odd\"\non = [\"insert\"]\n\
         write_back = {{ column = \"m\", delivered = \"sent\", failed = \"lost\" }}\n\n\
         [webhook]\nurls = [\"{}\"]\n",
        one.url()
    );
    let mut service = Service::start(&configuration(&database, &toml)).await;
    let hostile = r#"{"x": "'); DROP TABLE odd; --", "张": "\u0001"}"#;
    let insert = "INSERT INTO odd VALUES (7, '6c8a7b7e-0f3e-4d3f-9d3c-0e5a4f1b2c3d', 'new', now(), $1::text::jsonb)";
    sql.execute(insert, &[&hostile]).await.unwrap();
    wait_for_text(&sql, "SELECT m FROM odd", "sent").await;
    let same = "SELECT coalesce(string_agg(s.a || ' ' || s.m || ' ' || (s.doc = o.doc), ','), '')
                  FROM sends s, odd o";
    wait_for_text(&sql, same, "7 sent true").await;
    sql.batch_execute("DELETE FROM odd").await.unwrap();
    wait_for_text(&sql, "SELECT count(*) FROM sends", "2").await;
    service.stop().await;
}

#[tokio::test]
async fn what_postgres_would_refuse_is_refused_at_the_start_with_the_fix() {
    let (database, sql) = database().await;
    sql.batch_execute(&format!(
        "CREATE TABLE keyless (status text);
         CREATE TYPE word AS ENUM ('open', 'PUSH_SUCCESS');
         CREATE TABLE narrow (id int PRIMARY KEY, status word);
         CREATE ROLE {0} LOGIN REPLICATION;
         CREATE SCHEMA walhook AUTHORIZATION {0};
         GRANT SELECT ON ALL TABLES IN SCHEMA public TO {0};
         CREATE PUBLICATION walhook FOR TABLE tasks, narrow;
         CREATE PUBLICATION keyless FOR TABLE keyless WITH (publish = 'insert')",
        database.name()
    ))
    .await
    .unwrap();
    let word = "delivered = \"PUSH_SUCCESS\", failed = \"push_failed\"";
    let cases = [
        (
            "tasks",
            COLUMN,
            format!("GRANT UPDATE (\"status\") ON \"public\".\"tasks\" TO \"{}\"", database.name()),
        ),
        (
            "tasks",
            "sql = \"UPDATE audit SET status = {{ outcome }} WHERE id = {{ id }}\"",
            "permission denied".to_owned(),
        ),
        ("tasks", "sql = \"UPDATE tsks SET status = {{ outcome }}\"", "tsks".to_owned()),
        ("tasks", "column = \"statuss\"", "has no column statuss".to_owned()),
        ("narrow", COLUMN, "push_failed".to_owned()),
        ("keyless", COLUMN, "no primary key".to_owned()),
    ];
    for (table, change, expected) in cases {
        let rest = format!(
            "[[event]]\ntype = \"e\"\ntable = \"public.{table}\"\non = [\"insert\"]\n\
             write_back = {{ {change}, {word} }}\n\n[webhook]\nurls = [\"http://127.0.0.1:9/\"]\n"
        );
        let user = format!("postgres://{}@", database.name());
        let mut toml = configuration(&database, &rest).replace("postgres://postgres@", &user);
        if table == "narrow" {
            // Nothing else may be wrong than the word.
            toml = configuration(&database, &rest);
        }
        if table == "keyless" {
            toml = toml.replace("[http]", "publication = \"keyless\"\n\n[http]");
        }
        for command in ["check", "run"] {
            let mut program = Program::start(&[command], &toml, &[]);
            assert_eq!(program.wait(AMPLE).await, Some(3), "{table}: {:?}", program.output());
            let said = program.output().join("\n");
            assert!(said.contains(&expected), "case: {table} {change}: {said}");
        }
    }
    let drop = format!("DROP OWNED BY {0}; DROP ROLE {0}", database.name());
    sql.batch_execute(&drop).await.unwrap();
}
