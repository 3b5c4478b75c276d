//! A standby is promoted: its history goes on from the primary's, and the slot is not there.
//!
//! Before PostgreSQL 17 no logical slot survives that, and since then only one that was asked for: what was
//! committed between the slot's position and its making anew is lost, and must not be lost in silence.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

mod promotions;
mod slots;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use tokio::task::spawn_blocking;
use walhook::testing::sandbox::cluster::ClusterOptions;
use walhook::testing::sandbox::cluster::SandboxCluster;

use crate::support::postgres::Sql;
use crate::support::postgres::start_cluster;
use crate::support::program::Program;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;

/// A standby of `primary`, which is stopped for a moment: its data is copied as it lies there, without its
/// slots, as pg_basebackup does it.
pub(crate) fn standby_of(primary: &mut SandboxCluster) -> SandboxCluster {
    standby_with(primary, &[])
}

/// With these settings, which are the last word.
fn standby_with(primary: &mut SandboxCluster, settings: &[(&str, &str)]) -> SandboxCluster {
    let mut standby = SandboxCluster::start(
        primary.installation(),
        ClusterOptions::default().with("hot_standby", "on"),
    )
    .unwrap();
    standby.stop().unwrap();
    primary.stop().unwrap();
    let (from, to) = (primary.data_dir(), standby.data_dir());
    for entry in fs::read_dir(&to).unwrap() {
        remove(&entry.unwrap().path());
    }
    let copied = Command::new("cp").arg("-a").arg(from.join(".")).arg(&to).status().unwrap();
    assert!(copied.success(), "{copied}");
    for slot in fs::read_dir(to.join("pg_replslot")).unwrap() {
        remove(&slot.unwrap().path());
    }
    primary.start_again().unwrap();
    standby.put_file("standby.signal", b"").unwrap();
    let primary_conninfo = format!("host=127.0.0.1 port={} user=postgres", primary.port());
    standby.set("primary_conninfo", &primary_conninfo).unwrap();
    for (name, value) in settings {
        standby.set(name, value).unwrap();
    }
    standby.start_again().unwrap();
    standby
}

fn remove(path: &Path) {
    if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
}

/// Waits until the standby has all that the primary has.
async fn caught_up(primary: &Sql, standby: &Sql) {
    let end = primary.text("SELECT pg_current_wal_flush_lsn()").await;
    let has_it = format!("SELECT pg_last_wal_replay_lsn() >= '{end}'");
    let deadline = Instant::now() + AMPLE;
    while standby.text(&has_it).await != "t" {
        assert!(Instant::now() < deadline, "the standby does not come to {end}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_promotion_under_a_running_walhook_is_named_with_what_is_lost() {
    let primary = start_cluster(ClusterOptions::default()).await;
    let url = primary.url("postgres");
    let sql = Sql::connect(&url).await;
    sql.batch_execute("CREATE TABLE orders (id int PRIMARY KEY)").await.unwrap();
    drop(sql);
    let (mut primary, standby) = spawn_blocking(move || {
        let mut primary = primary;
        let standby = standby_of(&mut primary);
        (primary, standby)
    })
    .await
    .unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    let toml = format!(
        "[postgres]\nurl = \"postgres://postgres@127.0.0.1:{},127.0.0.1:{}/postgres\
         ?target_session_attrs=read-write\"\n\n[http]\nlisten = \"127.0.0.1:0\"\n\n\
         [[event]]\ntype = \"order\"\ntable = \"public.orders\"\n\n[webhook]\nurls = [\"{}\"]\n",
        primary.port(),
        standby.port(),
        receiver.url()
    );
    let mut service = Service::start(&toml).await;
    let (old, new) = (Sql::connect(&url).await, Sql::connect(&standby.url("postgres")).await);
    old.batch_execute("INSERT INTO orders VALUES (1)").await.unwrap();
    receiver.wait_for(1, AMPLE).await;
    // So that the state that the standby has knows of it.
    let deadline = Instant::now() + AMPLE;
    let is_settled = "SELECT count(*) FROM walhook.balance WHERE delivered = 1";
    while old.text(is_settled).await != "1" {
        assert!(Instant::now() < deadline, "nothing is flushed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    caught_up(&old, &new).await;
    drop(old);
    spawn_blocking(move || primary.kill()).await.unwrap();
    new.batch_execute("SELECT pg_promote()").await.unwrap();
    let timeline = "SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)";
    assert_eq!(new.text(timeline).await, "00000002");
    new.batch_execute("INSERT INTO orders VALUES (2)").await.unwrap();

    let lost = "slot walhook was dropped: changes between 0/";
    assert_eq!(service.program.wait(AMPLE).await, Some(4), "{:?}", service.program.output());
    let mut said = vec![service.program.output().join("\n")];
    for command in ["check", "run"] {
        let mut program = Program::start(&[command], &toml, &[]);
        assert_eq!(program.wait(AMPLE).await, Some(4), "{command}: {:?}", program.output());
        said.push(program.output().join("\n"));
    }
    for said in said {
        assert!(said.contains(lost) && said.contains("are lost"), "{said}");
        assert!(said.contains("walhook run --accept-gap"), "{said}");
    }
    let slots = "SELECT count(*) FROM pg_replication_slots";
    assert_eq!(new.text(slots).await, "0", "nothing is made without a word");

    let mut led_out = Program::start(&["run", "--accept-gap"], &toml, &[]);
    led_out.wait_for_line("gap accepted", AMPLE).await;
    led_out.wait_for_line("walhook is running", AMPLE).await;
    new.batch_execute("INSERT INTO orders VALUES (3)").await.unwrap();
    let requests = receiver.wait_for(2, AMPLE).await;
    assert_eq!(requests[1].json()["data"]["id"], 3, "2 was lost, as it was said");
    led_out.terminate();
    assert_eq!(led_out.wait(AMPLE).await, Some(0), "{:?}", led_out.output());
    assert_eq!(new.text("SELECT timeline FROM walhook.progress").await, "2");
    let mut after = Service::start(&toml).await;
    new.batch_execute("INSERT INTO orders VALUES (4)").await.unwrap();
    receiver.wait_for(3, AMPLE).await;
    after.stop().await;
}
