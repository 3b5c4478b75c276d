//! Changes that are lost: each cause ends with code 4 and its range, and `--accept-gap` leads out.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]
#![expect(clippy::indexing_slicing, reason = "a missing field fails the test as it should")]

use std::time::Duration;
use std::time::Instant;

use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::support::program::Program;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::ask;
use crate::support::service::configuration;
use crate::support::service::slot;

const TABLE: &str = "CREATE TABLE orders (id int PRIMARY KEY)";

/// A walhook that has delivered row 1 and was stopped.
struct Stage {
    database: Database,
    sql: Sql,
    receiver: Receiver,
    toml: String,
}

impl Stage {
    async fn set() -> Self {
        let database = Database::create().await;
        let sql = database.sql().await;
        sql.batch_execute(TABLE).await.unwrap();
        let receiver = Receiver::start(always(Answer::status(200)));
        let url = receiver.url();
        let rest = format!(
            "[[event]]\ntype = \"order\"\ntable = \"public.orders\"\n\n[webhook]\nurls = [\"{url}\"]\n"
        );
        let toml = configuration(&database, &rest);
        let stage = Self { database, sql, receiver, toml };
        let mut service = Service::start(&stage.toml).await;
        stage.insert(1).await;
        stage.receiver.wait_for(1, AMPLE).await;
        service.stop().await;
        stage
    }

    async fn run(&self, sql: &str) {
        self.sql.batch_execute(&sql.replace("SLOT", &slot(&self.database))).await.unwrap();
    }

    async fn insert(&self, row: i32) {
        self.run(&format!("INSERT INTO orders VALUES ({row})")).await;
    }

    /// `run` and `check` end with 4 and say all of this.
    async fn assert_gap(&self, parts: &[&str]) {
        for command in ["run", "check"] {
            let mut program = Program::start(&[command], &self.toml, &[]);
            let code = program.wait(AMPLE).await;
            let output = program.output().join("\n");
            assert_eq!(code, Some(4), "{command}: {output}");
            for part in parts {
                assert!(output.contains(part), "{command} does not say {part:?}:\n{output}");
            }
            assert!(output.contains("walhook run --accept-gap"), "{command}: {output}");
        }
    }

    /// `run --accept-gap` goes on with row 3, and so does every later start; row 2 is lost or not.
    async fn assert_led_out(&self, arrived: usize) {
        let mut program = Program::start(&["run", "--accept-gap"], &self.toml, &[]);
        program.wait_for_line("walhook is running", AMPLE).await;
        program.wait_for_line("gap accepted", AMPLE).await;
        self.insert(3).await;
        self.receiver.wait_for(arrived, AMPLE).await;
        program.terminate();
        assert_eq!(program.wait(AMPLE).await, Some(0), "{:?}", program.output());
        let mut service = Service::start(&self.toml).await;
        self.insert(4).await;
        let requests = self.receiver.wait_for(arrived + 1, AMPLE).await;
        service.stop().await;
        assert_eq!(requests.len(), arrived + 1);
        assert_eq!(requests.last().unwrap().json()["data"]["id"], 4);
    }
}

const DROP_SLOT: &str = "SELECT pg_drop_replication_slot('SLOT')";
const MAKE_SLOT: &str = "SELECT pg_create_logical_replication_slot('SLOT', 'pgoutput')";
const SAME_PUBLICATION: &str = "DROP PUBLICATION walhook;
    CREATE PUBLICATION walhook FOR TABLE orders WITH (publish = 'insert, update, delete')";

#[tokio::test]
async fn a_slot_that_was_dropped_is_not_made_again_in_silence() {
    let stage = Stage::set().await;
    stage.run(DROP_SLOT).await;
    stage.insert(2).await;
    stage.assert_gap(&["was dropped: changes between 0/", "are lost"]).await;
    let slots = format!(
        "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{}'",
        slot(&stage.database)
    );
    assert_eq!(stage.sql.text(&slots).await, "0", "nothing was made");
    stage.assert_led_out(2).await;
}

#[tokio::test]
async fn a_slot_that_somebody_made_again_is_noticed() {
    let stage = Stage::set().await;
    stage.run(DROP_SLOT).await;
    stage.insert(2).await;
    stage.run(MAKE_SLOT).await;
    stage.assert_gap(&["was dropped and made again: changes between 0/", "are lost"]).await;
    stage.assert_led_out(2).await;
}

#[tokio::test]
async fn a_publication_that_was_made_again_meanwhile_is_noticed() {
    let stage = Stage::set().await;
    stage.insert(2).await;
    stage.run(SAME_PUBLICATION).await;
    stage.assert_gap(&["publication walhook was dropped or made again: changes between"]).await;
    stage.assert_led_out(2).await;
}

#[tokio::test]
async fn a_publication_that_changes_under_a_running_walhook_ends_it() {
    for (change, says) in [
        (SAME_PUBLICATION, "publication walhook was dropped or made again"),
        ("ALTER PUBLICATION walhook DROP TABLE orders", "does not publish public.orders any more"),
    ] {
        let stage = Stage::set().await;
        let mut service = Service::start(&stage.toml).await;
        stage.run(change).await;
        assert_eq!(service.program.wait(AMPLE).await, Some(4), "{says}");
        let said = service.program.output().join("\n");
        // With the time of the last commit that is known of, and that of finding it.
        for part in [says, "(committed 20", "(before 20"] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
}

/// Of a walhook that has settled nothing yet: from where its slot stands.
#[tokio::test]
async fn a_table_that_goes_before_the_first_row_is_a_gap_from_the_slot_on() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(TABLE).await.unwrap();
    let rest = "[[event]]\ntype = \"order\"\ntable = \"public.orders\"\n\n[webhook]\n\
                urls = [\"http://127.0.0.1:9/\"]\n";
    let toml = configuration(&database, rest);
    let mut service = Service::start(&toml).await;
    sql.batch_execute("ALTER PUBLICATION walhook DROP TABLE orders").await.unwrap();
    assert_eq!(service.program.wait(AMPLE).await, Some(4));
    let said = service.program.output().join("\n");
    assert!(said.contains("does not publish public.orders any more"), "{said}");
    assert!(!said.contains("between 0/0"), "{said}");
}

#[tokio::test]
async fn a_server_that_never_was_where_the_state_is_is_refused() {
    let stage = Stage::set().await;
    stage.run("UPDATE walhook.progress SET confirmed_lsn = 'FFFF/0'").await;
    let parts = ["before what was settled", "changes after FFFF/0"];
    stage.assert_gap(&parts).await;
    stage.assert_led_out(2).await;
}

#[tokio::test]
async fn another_system_or_a_history_without_the_state_is_refused() {
    let stage = Stage::set().await;
    stage.run("UPDATE walhook.progress SET system_identifier = 7").await;
    stage
        .assert_gap(&["is another database system", "the one before (7)", "its changes after 0/"])
        .await;
    stage.assert_led_out(2).await;
    stage.run("UPDATE walhook.progress SET timeline = 9").await;
    let mut program = Program::start(&["run"], &stage.toml, &[]);
    let code = program.wait(AMPLE).await;
    assert_eq!(code, Some(4), "{:?}", program.output());
    assert!(program.output().join("\n").contains("timeline 9"), "{:?}", program.output());
}

/// What a quiet walhook confirms of others' WAL is written down: it is no gap after a kill.
#[tokio::test]
async fn wal_of_others_that_was_confirmed_is_no_gap() {
    let stage = Stage::set().await;
    let service = Service::start(&stage.toml).await;
    let stored = "SELECT confirmed_lsn FROM walhook.progress";
    let before = stage.sql.text(stored).await;
    stage.run("CREATE TABLE other AS SELECT n FROM generate_series(1, 20000) n").await;
    let deadline = Instant::now() + AMPLE;
    let moved = format!(
        "SELECT confirmed_flush_lsn > '{before}' FROM pg_replication_slots WHERE slot_name = '{}'",
        slot(&stage.database)
    );
    while stage.sql.text(&moved).await != "t" {
        assert!(Instant::now() < deadline, "nothing is confirmed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    service.program.kill();
    let mut again = Service::start(&stage.toml).await;
    stage.insert(2).await;
    stage.receiver.wait_for(2, AMPLE).await;
    again.stop().await;
}

/// What ends walhook is said at once, and walhook is gone a moment later: nothing is in flight.
#[tokio::test]
async fn a_fatal_error_of_the_source_is_said_at_once_and_ends_soon() {
    let stage = Stage::set().await;
    let mut service = Service::start(&stage.toml).await;
    stage.run("DROP PUBLICATION walhook").await;
    stage.insert(2).await;
    let line = service.program.wait_for_line("walhook cannot go on", AMPLE).await;
    let said = Instant::now();
    assert!(line.contains("publication walhook"), "{line}");
    assert_eq!(service.program.wait(AMPLE).await, Some(4));
    // A second on a machine that has nothing else to do; the grace period is ten.
    assert!(said.elapsed() < Duration::from_secs(6), "{:?}", said.elapsed());
}

/// The same for a slot that is dropped, which takes two steps: its holder is ended first.
#[tokio::test]
async fn a_slot_that_is_dropped_under_a_running_walhook_is_said_at_once() {
    let stage = Stage::set().await;
    let mut service = Service::start(&stage.toml).await;
    let name = slot(&stage.database);
    let end = format!(
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{name}'"
    );
    let drop = format!("SELECT pg_drop_replication_slot('{name}')");
    let deadline = Instant::now() + AMPLE;
    // walhook may have it again in between.
    while stage.sql.batch_execute(&end).await.is_err()
        || stage.sql.batch_execute(&drop).await.is_err()
    {
        assert!(Instant::now() < deadline);
    }
    let line = service.program.wait_for_line("walhook cannot go on", AMPLE).await;
    let said = Instant::now();
    assert!(line.contains(&format!("slot {name}")), "{line}");
    // As long as it answers at all, it does not say that all is well.
    while let Ok(reply) = ask(service.http, "GET", "/ready", None).await {
        assert_eq!(reply.status, 503, "{reply:?}");
    }
    assert_eq!(service.program.wait(AMPLE).await, Some(4));
    assert!(said.elapsed() < Duration::from_secs(6), "{:?}", said.elapsed());
}
