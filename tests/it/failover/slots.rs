//! What a pair of servers needs so that the slot outlives a promotion, and what is said where it is missing.

use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use tokio::task::spawn_blocking;
use walhook::testing::sandbox::cluster::ClusterOptions;
use walhook::testing::sandbox::cluster::SandboxCluster;
use walhook::testing::sandbox::installation::PostgresInstallation;

use super::standby_with;
use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::support::postgres::installation;
use crate::support::postgres::versions_of;
use crate::support::program::Program;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;

/// PostgreSQL knows slots that standbys keep since 17.
pub(super) const MAJORS: [u32; 2] = [17, 18];

/// The standby's physical slot on the primary.
const STANDBY: &str = "two";

/// A primary and a standby that may take its place.
pub(super) struct ServerPair {
    pub(super) primary: SandboxCluster,
    pub(super) standby: SandboxCluster,
}

impl ServerPair {
    /// `prepare` is run on the primary before the standby is made. Of `without` nothing is set.
    pub(super) async fn start(
        installation: PostgresInstallation,
        prepare: &str,
        without: &'static [&'static str],
    ) -> Self {
        let options = ClusterOptions::default().with("log_replication_commands", "on");
        let primary = spawn_blocking(move || SandboxCluster::start(&installation, options));
        let mut primary = primary.await.unwrap().unwrap();
        let sql = Sql::connect(&primary.url("postgres")).await;
        let slot = format!("SELECT pg_create_physical_replication_slot('{STANDBY}', true)");
        sql.batch_execute(&format!("{slot}; {prepare}")).await.unwrap();
        drop(sql);
        spawn_blocking(move || {
            let conninfo = format!("host=127.0.0.1 port={} user=postgres", primary.port());
            let whole = format!("{conninfo} dbname=postgres");
            let is_left = |name: &&str| without.contains(name);
            let conninfo = if is_left(&"dbname") { conninfo } else { whole };
            let mut settings = vec![("primary_conninfo", conninfo.as_str())];
            let wanted = [
                ("primary_slot_name", STANDBY),
                ("hot_standby_feedback", "on"),
                ("sync_replication_slots", "on"),
            ];
            settings.extend(wanted.into_iter().filter(|(name, _)| !is_left(name)));
            let standby = standby_with(&mut primary, &settings);
            if !is_left(&"synchronized_standby_slots") {
                primary.set("synchronized_standby_slots", STANDBY).unwrap();
                primary.reload().unwrap();
            }
            Self { primary, standby }
        })
        .await
        .unwrap()
    }

    /// Both hosts, of which the one that takes writes is meant.
    pub(super) fn url(&self) -> String {
        let (one, two) = (self.primary.port(), self.standby.port());
        format!(
            "postgres://postgres@127.0.0.1:{one},127.0.0.1:{two}/postgres?target_session_attrs=read-write"
        )
    }

    pub(super) fn toml(&self, rest: &str) -> String {
        let url = self.url();
        format!(
            "[postgres]\nurl = \"{url}\"\nfailover = true\n\n[http]\nlisten = \"127.0.0.1:0\"\n\n\
             [[event]]\ntype = \"order\"\ntable = \"public.orders\"\n\n{rest}\n"
        )
    }

    /// Waits until the standby has a copy of the slot that a promotion keeps.
    pub(super) async fn has_copy(&self) {
        let sql = Sql::connect(&self.standby.url("postgres")).await;
        let copies = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'walhook'
                         AND synced AND NOT temporary AND invalidation_reason IS NULL";
        let primary = Sql::connect(&self.primary.url("postgres")).await;
        let deadline = Instant::now() + AMPLE;
        while sql.text(copies).await != "1" {
            assert!(Instant::now() < deadline, "{}", self.standby.log_tail());
            // The slot moves with what is confirmed, which WAL of others is in large steps, and its copy is complete
            // once it has.
            let nudge = "INSERT INTO nudges SELECT generate_series(1, 2000);
                         SELECT pg_log_standby_snapshot()";
            primary.batch_execute(nudge).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// A table to read, and one for [`ServerPair::has_copy`].
pub(super) const TABLES: &str =
    "CREATE TABLE orders (id bigint PRIMARY KEY); CREATE TABLE nudges (id int)";

async fn checked(toml: &str) -> (Option<i32>, String) {
    let mut program = Program::start(&["check"], toml, &[]);
    let code = program.wait(AMPLE).await;
    (code, program.output().join("\n"))
}

#[tokio::test]
async fn servers_that_know_no_such_slots_are_refused_with_words() {
    if installation().major() >= 17 {
        return;
    }
    let database = Database::create().await;
    database.sql().await.batch_execute("CREATE TABLE orders (id int PRIMARY KEY)").await.unwrap();
    let event = "[[event]]\ntype = \"order\"\ntable = \"public.orders\"\n\n\
                 [webhook]\nurls = [\"http://127.0.0.1:9\"]\n";
    let toml = configuration(&database, event).replace("[http]", "failover = true\n\n[http]");
    for command in ["check", "run"] {
        let mut program = Program::start(&[command], &toml, &[]);
        assert_eq!(program.wait(AMPLE).await, Some(3), "{:?}", program.output());
        let said = program.output().join("\n");
        assert!(said.contains("has no slots that standbys keep"), "{said}");
        assert!(said.contains("set failover = false"), "{said}");
    }
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one story, from what is missing to what is whole")]
async fn check_says_what_primary_and_standby_lack_and_run_alters_a_slot_that_is_there() {
    let found = spawn_blocking(|| versions_of(&MAJORS, "failover slots")).await.unwrap();
    for installation in found {
        let all = [
            "dbname",
            "primary_slot_name",
            "hot_standby_feedback",
            "sync_replication_slots",
            "synchronized_standby_slots",
        ];
        let without: &'static [&'static str] = Box::leak(Box::new(all));
        let mut pair = ServerPair::start(installation, TABLES, without).await;
        let receiver = Receiver::start(always(Answer::status(200)));
        let toml = pair.toml(&format!("[webhook]\nurls = [\"{}\"]", receiver.url()));
        let plain = toml.replace("failover = true\n", "");
        let mut service = Service::start(&plain).await;
        service.stop().await;
        let sql = Sql::connect(&pair.primary.url("postgres")).await;
        let is_kept = "SELECT failover FROM pg_replication_slots WHERE slot_name = 'walhook'";
        assert_eq!(sql.text(is_kept).await, "f");

        let (code, said) = checked(&toml).await;
        assert_eq!(code, Some(0), "{said}");
        for part in [
            "slot walhook will be one that standbys keep",
            "synchronized_standby_slots is empty on the primary",
            "sync_replication_slots is not on",
            "hot_standby_feedback is not on",
            "primary_conninfo names no dbname",
            "primary_slot_name is empty",
            "it does not have slot walhook yet",
        ] {
            assert!(said.contains(part), "{part} is missing in {said}");
        }

        let mut service = Service::start(&toml).await;
        assert_eq!(sql.text(is_kept).await, "t");
        sql.batch_execute("INSERT INTO orders VALUES (1)").await.unwrap();
        receiver.wait_for(1, AMPLE).await;
        service.stop().await;

        let standby = Sql::connect(&pair.standby.url("postgres")).await;
        if pair.standby.installation().major() >= 17 {
            let own = "SELECT pg_create_logical_replication_slot('walhook', 'pgoutput')";
            let nudge = "SELECT pg_log_standby_snapshot()";
            let (_, made) = tokio::join!(
                async {
                    // Its making waits for a record that only the primary writes.
                    for _ in 0..50 {
                        sql.batch_execute(nudge).await.unwrap();
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                },
                standby.batch_execute(own)
            );
            made.unwrap();
            let (_, said) = checked(&toml).await;
            assert!(said.contains("it has a slot walhook of its own"), "{said}");
            let drop = "SELECT pg_drop_replication_slot('walhook')";
            standby.batch_execute(drop).await.unwrap();
        }
        drop(standby);
        let (primary_port, url) = (pair.primary.port(), pair.primary.url("postgres"));
        pair = spawn_blocking(move || {
            let conninfo =
                format!("host=127.0.0.1 port={primary_port} user=postgres dbname=postgres");
            pair.standby.set("primary_conninfo", &conninfo).unwrap();
            for (name, value) in [
                ("primary_slot_name", STANDBY),
                ("hot_standby_feedback", "on"),
                ("sync_replication_slots", "on"),
            ] {
                pair.standby.set(name, value).unwrap();
            }
            pair.standby.stop().unwrap();
            pair.standby.start_again().unwrap();
            pair.primary.set("synchronized_standby_slots", STANDBY).unwrap();
            pair.primary.reload().unwrap();
            pair
        })
        .await
        .unwrap();
        let mut service = Service::start(&toml).await;
        pair.has_copy().await;
        let (code, said) = checked(&toml).await;
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("keeps slot walhook, and can be promoted"), "{said}");
        assert!(said.contains("the primary waits for standby slot two"), "{said}");
        assert!(!said.contains("warn failover"), "{said}");
        service.stop().await;
        drop(Sql::connect(&url).await);
    }
}

#[tokio::test]
async fn a_standby_that_is_waited_for_is_a_named_state() {
    let found = spawn_blocking(|| versions_of(&MAJORS, "failover slots")).await.unwrap();
    for installation in found.into_iter().rev().take(1) {
        let mut pair = ServerPair::start(installation, TABLES, &[]).await;
        let receiver = Receiver::start(always(Answer::status(200)));
        let toml = pair.toml(&format!("[webhook]\nurls = [\"{}\"]", receiver.url()));
        let mut service = Service::start(&toml).await;
        let sql = Sql::connect(&pair.primary.url("postgres")).await;
        sql.batch_execute("INSERT INTO orders VALUES (1)").await.unwrap();
        receiver.wait_for(1, AMPLE).await;
        pair = spawn_blocking(move || {
            pair.standby.stop().unwrap();
            pair
        })
        .await
        .unwrap();
        sql.batch_execute("INSERT INTO orders VALUES (2)").await.unwrap();
        service.wait_for_metric("walhook_replication_blocked", 1.0).await;
        let status: Value = service.get("/api/v1/status").await.json();
        assert_eq!(status["source"]["state"], "blocked", "{status}");
        let reason = status["source"]["reason"].as_str().unwrap();
        assert!(
            reason.starts_with("blocked by standby two (no standby reads its slot)"),
            "{reason}"
        );
        let not_ready = service.wait_for_status("/ready", 503).await;
        assert!(not_ready.body.contains("blocked by standby two"), "{not_ready:?}");
        let (_, screen) = service.cli(&["status"]).await;
        assert!(screen.contains("blocked by standby two"), "{screen}");
        let (_, said) = checked(&toml).await;
        assert!(said.contains("names two, which no standby reads at the moment"), "{said}");
        assert_eq!(receiver.count(), 1, "nothing that no standby has");

        let _pair = spawn_blocking(move || {
            pair.standby.start_again().unwrap();
            pair
        })
        .await
        .unwrap();
        receiver.wait_for(2, AMPLE).await;
        service.wait_for_metric("walhook_replication_blocked", 0.0).await;
        service.wait_for_status("/ready", 200).await;
        service.stop().await;
    }
}
