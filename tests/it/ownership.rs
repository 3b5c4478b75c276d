//! Two systems on one server, and a state that is not the slot's: neither takes what is the other's,
//! and what is not known is said.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]
#![expect(clippy::indexing_slicing, reason = "a missing field fails the test as it should")]

use std::time::Duration;

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

const TABLES: &str =
    "CREATE TABLE orders (id int PRIMARY KEY); CREATE TABLE tasks (id int PRIMARY KEY)";
const PUBLISHED: &str =
    "SELECT string_agg(tablename, ' ' ORDER BY tablename) FROM pg_publication_tables
      WHERE pubname = 'walhook'";

struct Setting {
    database: Database,
    sql: Sql,
    receiver: Receiver,
}

impl Setting {
    async fn new() -> Self {
        let database = Database::create().await;
        let sql = database.sql().await;
        sql.batch_execute(TABLES).await.unwrap();
        Self { database, sql, receiver: Receiver::start(always(Answer::status(200))) }
    }

    /// A configuration with an event for each of these tables.
    fn toml(&self, tables: &[&str]) -> String {
        let event =
            |table: &&str| format!("[[event]]\ntype = \"{table}\"\ntable = \"public.{table}\"\n\n");
        let events: String = tables.iter().map(event).collect();
        let rest = format!("{events}[webhook]\nurls = [\"{}\"]\n", self.receiver.url());
        configuration(&self.database, &rest)
    }

    /// The server counts what was read of a slot, and tells it a moment later.
    async fn slot_is_known_as_read(&self) {
        let read = format!(
            "SELECT total_txns > 0 FROM pg_stat_replication_slots WHERE slot_name = '{}'",
            slot(&self.database)
        );
        wait_for_text(&self.sql, &read, "t").await;
    }

    async fn insert(&self, table: &str, id: usize) {
        self.sql.batch_execute(&format!("INSERT INTO {table} VALUES ({id})")).await.unwrap();
    }

    /// Types of the events that have arrived, once there are so many.
    async fn types(&self, count: usize) -> Vec<String> {
        let requests = self.receiver.wait_for(count, AMPLE).await;
        requests.iter().map(|request| request.json()["type"].as_str().unwrap().to_owned()).collect()
    }
}

/// The program ends with this code; what it said.
async fn ended(command: &[&str], toml: &str, code: i32) -> String {
    let mut program = Program::start(command, toml, &[]);
    let found = program.wait(AMPLE).await;
    let output = program.output().join("\n");
    assert_eq!(found, Some(code), "{command:?}: {output}");
    output
}

fn with_own(toml: &str, key: &str, name: &str) -> String {
    match key {
        "slot" => {
            let line = toml.lines().find(|line| line.starts_with("slot = ")).unwrap();
            toml.replace(line, &format!("slot = \"{name}\""))
        }
        _ => toml.replace("[postgres]\n", &format!("[postgres]\n{key} = \"{name}\"\n")),
    }
}

#[tokio::test]
async fn a_second_system_takes_neither_slot_nor_publication_of_the_first() {
    let setting = Setting::new().await;
    let mut first = Service::start(&setting.toml(&["orders"])).await;
    let second = setting.toml(&["tasks"]);
    for command in ["check", "run"] {
        let said = ended(&[command], &second, 3).await;
        let parts =
            ["belongs to another system", "orders on public.orders", "tasks on public.tasks"];
        assert!(parts.iter().all(|part| said.contains(part)), "{said}");
        assert!(!said.contains("accept-gap") && !said.contains("DROP"), "{said}");
    }
    // A slot of its own does not make the publication its own.
    let own_slot = with_own(&second, "slot", &format!("{}_second", setting.database.name()));
    for command in ["check", "run"] {
        let said = ended(&[command], &own_slot, 3).await;
        assert!(said.contains("publication walhook belongs to another system"), "{said}");
        assert!(!said.contains("ALTER PUBLICATION"), "{said}");
    }
    assert_eq!(setting.sql.text(PUBLISHED).await, "orders");
    let mut own = Service::start(&with_own(&own_slot, "publication", "second")).await;
    setting.insert("orders", 1).await;
    setting.insert("tasks", 1).await;
    let mut types = setting.types(2).await;
    types.sort();
    assert_eq!(types, ["orders", "tasks"]);
    own.stop().await;
    first.program.kill();
    first.program.wait(AMPLE).await;
    // Nobody has the slot, and it is not the second's all the same.
    setting.insert("orders", 2).await;
    let said = ended(&["run"], &second, 3).await;
    assert!(said.contains("--take-slot"), "{said}");
    let mut first = Service::start(&setting.toml(&["orders"])).await;
    assert_eq!(setting.types(3).await[2], "orders");
    let delivered = "SELECT max(delivered) FROM walhook.balance WHERE table_name = 'orders'";
    wait_for_text(&setting.sql, delivered, "2").await;
    first.program.kill();
    first.program.wait(AMPLE).await;
    let mut taken = Program::start(&["run", "--take-slot"], &second, &[]);
    taken.wait_for_line("walhook is running", AMPLE).await;
    setting.insert("tasks", 2).await;
    // What a kill let come again may come in between.
    let delivered = "SELECT max(delivered) FROM walhook.balance WHERE table_name = 'tasks'";
    wait_for_text(&setting.sql, delivered, "1").await;
    taken.terminate();
    assert_eq!(taken.wait(AMPLE).await, Some(0));
    let mut second = Service::start(&second).await;
    second.stop().await;
}

#[tokio::test]
async fn another_version_of_the_same_system_takes_over_what_it_reads_whole() {
    let setting = Setting::new().await;
    let mut first = Service::start(&setting.toml(&["orders"])).await;
    let mut more = Service::open(&setting.toml(&["orders", "tasks"])).await;
    let line = more.program.wait_for_line("standing by", AMPLE).await;
    assert!(line.contains("whose events are not this configuration's"), "{line}");
    first.stop().await;
    more.program.wait_for_line("walhook is running", AMPLE).await;
    // An older version would leave tasks unread.
    let older = setting.toml(&["orders"]);
    let mut fewer = Service::open(&older).await;
    fewer.program.wait_for_line("standing by", AMPLE).await;
    more.stop().await;
    let line = fewer.program.wait_for_line("is not taken over", AMPLE).await;
    assert!(line.contains("public.tasks"), "{line}");
    let ready = fewer.wait_for_status("/ready", 503).await;
    assert!(ready.body.contains("public.tasks"), "{}", ready.body);
    // It stands by for nobody, so a rollout must not take it for ready.
    let ready = fewer.wait_for_status("/ready?standby=ok", 503).await;
    assert!(ready.body.contains("public.tasks"), "{}", ready.body);
    // It is what its operator wants if he starts it when the slot is free.
    fewer.stop().await;
    let mut fewer = Service::start(&older).await;
    setting.insert("orders", 1).await;
    assert_eq!(setting.types(1).await, ["orders"]);
    fewer.stop().await;
}

#[tokio::test]
async fn a_standby_with_other_events_does_not_take_over_from_a_crash() {
    let setting = Setting::new().await;
    let first = Service::start(&setting.toml(&["orders"])).await;
    let toml = setting.toml(&["orders", "tasks"]);
    let mut more = Service::open(&toml).await;
    more.program.wait_for_line("standing by", AMPLE).await;
    first.program.kill();
    let line = more.program.wait_for_line("is not taken over", AMPLE).await;
    assert!(line.contains("was killed"), "{line}");
    more.stop().await;
    let mut more = Service::start(&toml).await;
    more.stop().await;
}

/// A rolling update that takes an event away: nobody with the events of before comes back, and nobody is
/// there to start the new ones once more.
#[tokio::test]
async fn a_standby_takes_over_a_slot_that_stays_free_where_it_is_told_to() {
    let setting = Setting::new().await;
    let mut before = Service::start(&setting.toml(&["orders", "tasks"])).await;
    let fewer = setting.toml(&["orders"]);
    let mut after = Program::start(&["run", "--take-over-after", "1"], &fewer, &[]);
    after.wait_for_line("standing by", AMPLE).await;
    before.stop().await;
    after.wait_for_line("is not taken over", AMPLE).await;
    after.wait_for_line("nobody came back", AMPLE).await;
    after.wait_for_line("walhook is running", AMPLE).await;
    setting.insert("orders", 1).await;
    assert_eq!(setting.types(1).await, ["orders"]);
    after.terminate();
    assert_eq!(after.wait(AMPLE).await, Some(0));
}

#[tokio::test]
async fn a_misspelt_publication_is_named_and_nothing_is_lost() {
    let setting = Setting::new().await;
    let toml = setting.toml(&["orders"]);
    let mut service = Service::start(&toml).await;
    setting.insert("orders", 1).await;
    setting.types(1).await;
    service.stop().await;
    for wrong in ["walhok", "quite_another"] {
        let misspelt = with_own(&toml, "publication", wrong);
        for command in ["check", "run"] {
            let said = ended(&[command], &misspelt, 3).await;
            assert!(
                said.contains("read through publication walhook, which is still there"),
                "{said}"
            );
            assert!(!said.contains("accept-gap"), "{said}");
        }
    }
    setting.insert("orders", 2).await;
    let mut service = Service::start(&toml).await;
    setting.types(2).await;
    service.stop().await;
}

#[tokio::test]
async fn a_slot_that_was_read_with_another_state_is_named_like_a_gap() {
    let setting = Setting::new().await;
    let toml = setting.toml(&["orders"]);
    let mut service = Service::start(&toml).await;
    setting.insert("orders", 1).await;
    setting.types(1).await;
    service.stop().await;
    setting.slot_is_known_as_read().await;
    let other = Database::create().await;
    let moved = format!("{toml}\n[state]\nurl = \"{}\"\n", other.url());
    for command in ["check", "run"] {
        let said = ended(&[command], &moved, 4).await;
        let expected = format!("the state in database {} knows nothing of it", other.name());
        assert!(said.contains(&expected) && said.contains("[state] url"), "{said}");
    }
    // Going on all the same, and back.
    let mut program = Program::start(&["run", "--accept-gap"], &moved, &[]);
    program.wait_for_line("walhook is running", AMPLE).await;
    setting.insert("orders", 2).await;
    setting.types(2).await;
    let progress = format!(
        "SELECT confirmed_lsn > (SELECT confirmed_flush_lsn FROM pg_replication_slots
            WHERE slot_name = '{0}') - 1000000 FROM walhook.progress WHERE slot = '{0}'",
        slot(&setting.database)
    );
    let state = other.sql().await;
    wait_for_text(&state, &progress, "t").await;
    program.terminate();
    assert_eq!(program.wait(AMPLE).await, Some(0), "{:?}", program.output());
    let said = ended(&["check"], &toml, 4).await;
    assert!(said.contains("it was read with another state"), "{said}");
    assert!(said.contains("(committed 2") && said.contains("(before 2"), "{said}");
}

#[tokio::test]
async fn a_schema_that_was_dropped_under_a_running_walhook_is_named_like_a_gap() {
    let setting = Setting::new().await;
    let toml = setting.toml(&["orders"]);
    let mut service = Service::start(&toml).await;
    setting.insert("orders", 1).await;
    setting.types(1).await;
    service.stop().await;
    setting.slot_is_known_as_read().await;
    setting.sql.batch_execute("DROP SCHEMA walhook CASCADE").await.unwrap();
    for command in ["check", "run"] {
        let said = ended(&[command], &toml, 4).await;
        assert!(said.contains("knows nothing of it"), "{said}");
    }
    let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname = 'walhook'";
    assert_eq!(setting.sql.text(schemas).await, "0", "nothing was made");
    let mut program = Program::start(&["run", "--accept-gap"], &toml, &[]);
    program.wait_for_line("walhook is running", AMPLE).await;
    setting.insert("orders", 2).await;
    setting.receiver.wait_for(2, AMPLE).await;
    program.terminate();
    assert_eq!(program.wait(Duration::from_secs(60)).await, Some(0));
}

/// A slot that an administrator has made, and that nobody has read, is as good as one of our own.
#[tokio::test]
async fn a_slot_that_nobody_has_read_needs_no_state() {
    let setting = Setting::new().await;
    let publication =
        "CREATE PUBLICATION walhook FOR TABLE orders WITH (publish = 'insert, update, delete')";
    let slot = slot(&setting.database);
    let made = format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')");
    for statement in [publication, &made] {
        setting.sql.batch_execute(statement).await.unwrap();
    }
    setting.insert("orders", 1).await;
    let mut service = Service::start(&setting.toml(&["orders"])).await;
    assert_eq!(setting.types(1).await, ["orders"]);
    service.stop().await;
}
