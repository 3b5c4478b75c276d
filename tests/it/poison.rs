//! An event that cannot be rendered, or over which walhook crashes, is set aside as a dead letter, and
//! the stream goes on.
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may stop at once"
)]

use std::time::Duration;
use std::time::Instant;

use walhook::testing::sandbox::cluster::ClusterOptions;

use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::support::postgres::start_cluster;
use crate::support::postgres::wait_for_text;
use crate::support::program::Program;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;

const TABLE: &str = "CREATE TABLE orders (id int PRIMARY KEY, version int NOT NULL)";

/// The rows; one of them is number 7.
const ROWS: usize = 9;

/// Two crashes without progress, and four at the same mark. A run that settled one of the rows before
/// the poison is no crash in a row: on a slow machine there may be one for each of them.
const CRASHES_MAX: u32 = 6 + 6;

const LETTERS: &str = "SELECT string_agg(concat_ws('|', row_key, failure_class, attempts,
                           body IS NULL, reason), ' ' ORDER BY endpoint)
                         FROM walhook.dead_letters";
const BALANCE: &str = "SELECT string_agg(concat_ws(' ', captured, delivered, dead, pending),
                           ', ' ORDER BY endpoint) FROM walhook.balance";
const BALANCED: &str = "9 8 1 0, 9 8 1 0";

/// What a letter says of an event whose own body could not be made.
const KEPT: &str = " in its own shape: what is kept, and sent if you send it again, is the row in the \
                    standard shape";

struct Setting {
    database: Database,
    sql: Sql,
    receivers: [Receiver; 2],
}

impl Setting {
    async fn new() -> Self {
        let database = Database::create().await;
        let sql = database.sql().await;
        sql.batch_execute(TABLE).await.unwrap();
        let receiver = || Receiver::start(always(Answer::status(200)));
        Self { database, sql, receivers: [receiver(), receiver()] }
    }

    fn toml(&self) -> String {
        let [one, other] = self.receivers.each_ref().map(Receiver::url);
        let rest = format!(
            "[[event]]\ntype = \"order\"\ntable = \"public.orders\"\n\n\
             [webhook]\nurls = [\"{one}\", \"{other}\"]\n"
        );
        configuration(&self.database, &rest)
    }

    fn run(&self, failpoint: &str) -> Program {
        Program::start(&["run"], &self.toml(), &[("WALHOOK_FAILPOINT", failpoint)])
    }

    async fn insert(&self) {
        let insert = format!("INSERT INTO orders SELECT n, 1 FROM generate_series(1, {ROWS}) n");
        self.sql.batch_execute(&insert).await.unwrap();
    }

    /// All but row 7 have arrived, whatever came twice.
    async fn all_the_others_arrive(&self) {
        for receiver in &self.receivers {
            let deadline = Instant::now() + AMPLE;
            loop {
                let requests = receiver.requests();
                let mut rows: Vec<_> =
                    requests.iter().map(|r| r.json()["data"]["id"].clone()).collect();
                rows.sort_by_key(serde_json::Value::as_i64);
                rows.dedup();
                assert!(!rows.contains(&7.into()), "the poison was sent");
                if rows.len() == ROWS - 1 {
                    break;
                }
                assert!(Instant::now() < deadline, "{rows:?}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }

    async fn wait_for(&self, query: &str, expected: &str) {
        let deadline = Instant::now() + AMPLE;
        loop {
            let found = self.sql.text(query).await;
            if found == expected {
                return;
            }
            assert!(Instant::now() < deadline, "{found}, not {expected}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Starts walhook again and again, as a supervisor does, until it gets through. Returns it, and
    /// how often it crashed.
    async fn crash_until_it_lives(&self, failpoint: &str) -> (Program, u32) {
        for crashes in 0..=CRASHES_MAX {
            let mut program = self.run(failpoint);
            let ended = async {
                while !program.has_ended() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::select! {
                () = ended => {}
                () = self.wait_for(BALANCE, BALANCED) => return (program, crashes),
            }
            let code = program.wait(AMPLE).await;
            assert_eq!(code, None, "{}", program.output().join("\n"));
        }
        panic!("it crashes for ever");
    }

    /// What was set aside arrives when it is sent again, over which walhook does not crash any more.
    async fn sends_again(&self) {
        let before = self.receivers.each_ref().map(Receiver::count);
        self.sql
            .batch_execute("UPDATE walhook.dead_letters SET state = 'requested'")
            .await
            .unwrap();
        let mut service = Service::start(&self.toml()).await;
        for (receiver, before) in self.receivers.iter().zip(before) {
            let again = receiver.wait_for(before + 1, AMPLE).await.swap_remove(before);
            assert_eq!(again.json()["data"]["id"], 7, "{:?}", again.body);
        }
        self.wait_for(BALANCE, "9 9 0 0, 9 9 0 0").await;
        service.stop().await;
    }

    async fn set_aside_after_crashes(&self, failpoint: &str, letter: &str) {
        // The slot has to be there before the rows.
        let mut first = Service::start(&self.toml()).await;
        first.stop().await;
        self.insert().await;
        let (mut program, crashes) = self.crash_until_it_lives(failpoint).await;
        assert!((2..=CRASHES_MAX).contains(&crashes), "{crashes} crashes");
        self.all_the_others_arrive().await;
        let letters = format!("7|poison|0|{letter} 7|poison|0|{letter}");
        self.wait_for(LETTERS, &letters).await;
        program.terminate();
        assert_eq!(program.wait(AMPLE).await, Some(0), "{}", program.output().join("\n"));
    }
}

#[tokio::test]
async fn an_event_that_cannot_be_rendered_is_a_dead_letter_at_once() {
    let setting = Setting::new().await;
    let mut program = setting.run("rendering~id=7!");
    program.wait_for_line("walhook is running", AMPLE).await;
    setting.insert().await;
    setting.all_the_others_arrive().await;
    let letter = &format!("7|poison|0|f|it cannot be rendered{KEPT}");
    let letters = format!("{letter} {letter}");
    setting.wait_for(LETTERS, &letters).await;
    setting.wait_for(BALANCE, BALANCED).await;
    program.terminate();
    assert_eq!(program.wait(AMPLE).await, Some(0), "{}", program.output().join("\n"));
}

#[tokio::test]
async fn an_event_whose_rendering_kills_walhook_is_set_aside_after_crashes_in_a_row() {
    let setting = Setting::new().await;
    let letter = format!("f|walhook crashed again and again when it was rendered{KEPT}");
    setting.set_aside_after_crashes("rendering~id=7", &letter).await;
    setting.sends_again().await;
}

/// What was rendered is kept: the letter can be sent again.
#[tokio::test]
async fn an_event_whose_sending_kills_walhook_is_set_aside_after_crashes_in_a_row() {
    let setting = Setting::new().await;
    let letter = "f|walhook crashed over it again and again";
    setting.set_aside_after_crashes("before_post~id=7", letter).await;
    setting.sends_again().await;
}

/// An operating system that is short of memory, or a scheduler that evicts, kills at any moment. No
/// change is to blame for that, not even one that is in hand each time.
#[tokio::test]
async fn kills_from_outside_give_nothing_up() {
    let setting = Setting::new().await;
    let mut first = Service::start(&setting.toml()).await;
    first.stop().await;
    for receiver in &setting.receivers {
        receiver.behave(always(Answer::status(200).after(Duration::from_secs(600))));
    }
    setting.insert().await;
    for _ in 0..8 {
        let mut program = setting.run("");
        program.wait_for_line("walhook is running", AMPLE).await;
        tokio::time::sleep(Duration::from_millis(fastrand::u64(300..1500))).await;
        program.kill();
        program.wait(AMPLE).await;
    }
    for receiver in &setting.receivers {
        receiver.behave(always(Answer::status(200)));
    }
    let mut last = setting.run("");
    setting.wait_for(BALANCE, "9 9 0 0, 9 9 0 0").await;
    last.terminate();
    assert_eq!(last.wait(AMPLE).await, Some(0), "{}", last.output().join("\n"));
}

/// Changes that are taken one by one do not wait for a slow endpoint, and the status says what is done.
#[tokio::test]
async fn one_by_one_leaves_a_healthy_endpoint_its_pace() {
    const MANY: usize = 600;
    let setting = Setting::new().await;
    let mut first = Service::start(&setting.toml()).await;
    first.stop().await;
    let [healthy, slow] = &setting.receivers;
    for receiver in &setting.receivers {
        receiver.behave(always(Answer::status(200).after(Duration::from_secs(600))));
    }
    let insert = format!("INSERT INTO orders SELECT n, 1 FROM generate_series(1, {MANY}) n");
    setting.sql.batch_execute(&insert).await.unwrap();
    for _ in 0..3 {
        let mut program = setting.run("");
        program.wait_for_line("walhook is running", AMPLE).await;
        program.kill();
        program.wait(AMPLE).await;
    }
    healthy.behave(always(Answer::status(200)));
    slow.behave(always(Answer::status(200).after(Duration::from_secs(1))));
    let mut service = Service::start(&setting.toml()).await;
    let mode = service.get("/api/v1/status").await.json()["source"]["mode"].clone();
    assert!(mode.as_str().is_some_and(|mode| mode.contains("one by one")), "{mode}");
    setting.wait_for("SELECT max(delivered) FROM walhook.balance", "600").await;
    slow.behave(always(Answer::status(200)));
    service.stop().await;
    // A session's numbers are all there when it has ended.
    let others = "SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND pid <> pg_backend_pid()";
    setting.wait_for(others, "0").await;
    let marks = "SELECT n_tup_upd FROM pg_stat_user_tables
                  WHERE schemaname = 'walhook' AND relname = 'runs'";
    let marks: usize = setting.sql.text(marks).await.parse().unwrap();
    assert!(marks < MANY * 3 / 2, "{marks} writes: one is enough for each of {MANY} changes");
}

/// A mark has to outlive a crash of walhook, not one of PostgreSQL: a disk or a standby that takes its time would hold
/// up each of 2,000 changes.
#[tokio::test]
async fn marks_do_not_wait_for_the_wal_to_be_safe() {
    // Whoever wants it waits for a standby that does not exist.
    let options = ClusterOptions::default()
        .with("synchronous_standby_names", "ghost")
        .with("synchronous_commit", "local");
    let cluster = start_cluster(options).await;
    let sql = Sql::connect(&cluster.url("postgres")).await;
    sql.batch_execute(TABLE).await.unwrap();
    sql.batch_execute("SET synchronous_commit = local").await.unwrap();
    let receiver = Receiver::start(always(Answer::status(200).after(Duration::from_secs(600))));
    let toml = format!(
        "[postgres]\nurl = \"{}\"\n\n[http]\nlisten = \"127.0.0.1:0\"\n\n[[event]]\ntype = \"order\"\n\
         table = \"public.orders\"\n\n[webhook]\nurls = [\"{}\"]\n",
        cluster.url("postgres"),
        receiver.url()
    );
    let mut first = Service::start(&toml).await;
    first.stop().await;
    sql.batch_execute("INSERT INTO orders VALUES (1, 1)").await.unwrap();
    let start = || Program::start(&["run"], &toml, &[]);
    for _ in 0..3 {
        let mut program = start();
        program.wait_for_line("walhook is running", AMPLE).await;
        program.kill();
        program.wait(AMPLE).await;
    }
    let mut careful = start();
    careful.wait_for_line("taken one by one", AMPLE).await;
    wait_for_text(&sql, "SELECT marked_stage FROM walhook.runs", "sending").await;
    let before = sql.text("SELECT pg_current_wal_lsn()").await;
    sql.batch_execute("ALTER SYSTEM SET synchronous_commit = on").await.unwrap();
    sql.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    sql.batch_execute("INSERT INTO orders VALUES (2, 1)").await.unwrap();
    let has_marked = format!("SELECT marked_lsn > '{before}' FROM walhook.runs");
    wait_for_text(&sql, &has_marked, "t").await;
    careful.kill();
    careful.wait(AMPLE).await;
}
