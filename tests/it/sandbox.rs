//! The private PostgreSQL: it starts, it keeps and loses what it should, and it never stays behind.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

use std::env;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::task::spawn_blocking;
use walhook::testing::sandbox::cluster::ClusterOptions;
use walhook::testing::sandbox::cluster::SandboxCluster;
use walhook::testing::sandbox::error::SandboxError;

use crate::support::postgres::Sql;
use crate::support::postgres::has_tls;
use crate::support::postgres::has_version;
use crate::support::postgres::installation;
use crate::support::postgres::start_cluster;
use crate::support::postgres::versions;
use crate::support::program::Program;

const LIMIT: Duration = Duration::from_secs(20);

/// A base for data that other tests do not use, and that the server's user can enter.
fn base_of_its_own() -> (TempDir, ClusterOptions) {
    let base = tempfile::tempdir_in("/tmp").unwrap();
    fs::set_permissions(base.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    let mut options = ClusterOptions::default();
    options.surroundings.tmp = Some(base.path().to_owned());
    (base, options)
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn postmaster_of(data: &Path) -> String {
    fs::read_to_string(data.join("postmaster.pid")).unwrap().lines().next().unwrap().to_owned()
}

/// The parent of a process that is more than a zombie.
fn parent_of(pid: &str) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if fields.next()? == "Z" { None } else { fields.next().map(str::to_owned) }
}

/// The postmaster and its children.
fn family_of(postmaster: &str) -> Vec<String> {
    let mut family = vec![postmaster.to_owned()];
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let pid = entry.file_name().to_string_lossy().into_owned();
        if parent_of(&pid).is_some_and(|parent| parent == postmaster) {
            family.push(pid);
        }
    }
    assert!(family.len() > 1, "a server has children: {postmaster}");
    family
}

/// Those of a family that still run, whoever their parent is by now.
fn alive(family: &[String]) -> Vec<&String> {
    family.iter().filter(|pid| parent_of(pid).is_some()).collect()
}

async fn wait_until_gone(what: &str, mut left: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while left() {
        assert!(Instant::now() < deadline, "still there: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn four_clusters_run_side_by_side() {
    let (base, options) = base_of_its_own();
    let starting: Vec<_> = (0..4)
        .map(|_| {
            let options = options.clone();
            thread::spawn(|| SandboxCluster::start(installation(), options).unwrap())
        })
        .collect();
    let clusters: Vec<SandboxCluster> =
        starting.into_iter().map(|one| one.join().unwrap()).collect();
    for (number, cluster) in clusters.iter().enumerate() {
        let sql = Sql::connect(&cluster.url("postgres")).await;
        sql.batch_execute(&format!("CREATE TABLE mine AS SELECT {number} AS number"))
            .await
            .unwrap();
        let by_socket = Sql::connect(&cluster.socket_url("postgres")).await;
        assert_eq!(by_socket.text("SELECT number FROM mine").await, number.to_string());
        assert_eq!(sql.text("SHOW wal_level").await, "logical");
    }
    assert_eq!(entries(base.path()).len(), 4);
    drop(clusters);
    assert_eq!(entries(base.path()), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_stopped_cluster_comes_back_with_its_data_on_the_same_port() {
    let mut cluster =
        start_cluster(ClusterOptions { durable: true, ..ClusterOptions::default() }).await;
    let url = cluster.url("postgres");
    let sql = Sql::connect(&url).await;
    assert_eq!(sql.text("SHOW fsync").await, "on");
    sql.batch_execute("CREATE TABLE kept (id int)").await.unwrap();
    let ways: [fn(&mut SandboxCluster); 3] =
        [|c| c.stop().unwrap(), SandboxCluster::stop_immediately, SandboxCluster::kill];
    for (number, way) in ways.into_iter().enumerate() {
        let sql = Sql::connect(&url).await;
        sql.batch_execute(&format!("INSERT INTO kept VALUES ({number})")).await.unwrap();
        let family = family_of(&postmaster_of(&cluster.data_dir()));
        way(&mut cluster);
        assert!(!cluster.is_running(), "case: {number}");
        assert_eq!(alive(&family), Vec::<&String>::new(), "case: {number}");
        assert!(Sql::try_connect(&url).await.is_err(), "case: {number}");
        cluster.start_again().unwrap();
        let sql = Sql::connect(&url).await;
        let kept = sql.text("SELECT count(*) FROM kept").await;
        assert_eq!(kept, (number + 1).to_string(), "case: {number}");
    }
}

#[tokio::test]
async fn a_kill_takes_busy_backends_too() {
    // A backend that only computes would not notice for long that its postmaster is gone.
    let mut cluster = start_cluster(ClusterOptions::default()).await;
    let busy = Sql::connect(&cluster.url("postgres")).await;
    let backend = busy.text("SELECT pg_backend_pid()").await;
    let mut computing = JoinSet::new();
    computing.spawn(async move {
        busy.batch_execute("SELECT count(*) FROM generate_series(1, 10000000000)").await
    });
    let watching = Sql::connect(&cluster.url("postgres")).await;
    let state = format!("SELECT state FROM pg_stat_activity WHERE pid = {backend}");
    while watching.text(&state).await != "active" {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let family = family_of(&postmaster_of(&cluster.data_dir()));
    assert!(family.contains(&backend));
    cluster.kill();
    assert_eq!(alive(&family), Vec::<&String>::new());
    assert!(computing.join_next().await.unwrap().unwrap().is_err());
}

#[tokio::test]
async fn a_server_that_cannot_start_shows_its_log_at_once() {
    let (base, options) = base_of_its_own();
    let begun = Instant::now();
    let error = spawn_blocking(|| {
        SandboxCluster::start(installation(), options.with("no_such_setting", "1")).unwrap_err()
    })
    .await
    .unwrap();
    assert!(matches!(error, SandboxError::Start { .. }), "{error}");
    assert!(error.to_string().contains("unrecognized configuration parameter"), "{error}");
    assert!(begun.elapsed() < LIMIT, "it waited for a limit");
    assert_eq!(entries(base.path()), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_server_that_dies_is_noticed_and_can_be_started_again() {
    let mut cluster = start_cluster(ClusterOptions::default()).await;
    let postmaster = postmaster_of(&cluster.data_dir());
    assert!(
        Command::new("/bin/sh")
            .args(["-c", "kill -QUIT $0", &postmaster])
            .status()
            .unwrap()
            .success()
    );
    wait_until_gone("the server", || cluster.is_running()).await;
    cluster.start_again().unwrap();
    assert_eq!(Sql::connect(&cluster.url("postgres")).await.text("SELECT 1").await, "1");
}

#[tokio::test]
async fn passwords_can_be_demanded_after_a_reload() {
    let mut cluster = start_cluster(ClusterOptions::default()).await;
    let open = Sql::connect(&cluster.url("postgres")).await;
    open.batch_execute("CREATE ROLE ann LOGIN PASSWORD 'right'").await.unwrap();
    cluster.set_hba(&["host all all 127.0.0.1/32 scram-sha-256"]).unwrap();
    cluster.reload().unwrap();
    let with =
        |password: &str| format!("postgres://ann:{password}@127.0.0.1:{}/postgres", cluster.port());
    assert!(Sql::try_connect(&with("wrong")).await.is_err());
    Sql::connect(&with("right")).await;
    // The way in for the test itself stays open.
    Sql::connect(&cluster.socket_url("postgres")).await;
}

#[tokio::test]
async fn after_a_reload_the_next_connection_sees_the_new_setting() {
    let mut cluster = start_cluster(ClusterOptions::default()).await;
    for timeout in ["1s", "2s", "3s", "4s", "5s", "6s"] {
        cluster.set("wal_sender_timeout", timeout).unwrap();
        cluster.reload().unwrap();
        let sql = Sql::connect(&cluster.url("postgres")).await;
        assert_eq!(sql.text("SHOW wal_sender_timeout").await, timeout);
    }
}

#[tokio::test]
async fn files_of_the_server_are_its_own() {
    let mut cluster = start_cluster(ClusterOptions::default()).await;
    let path = cluster.data_dir().join("server.key");
    cluster.put_file("server.key", b"secret").unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let sql = Sql::connect(&cluster.url("postgres")).await;
    assert_eq!(sql.text("SELECT pg_read_file('server.key')").await, "secret");
    for name in ["../out", "/etc/out", "..", ""] {
        let refused = cluster.put_file(name, b"").unwrap_err();
        assert!(matches!(refused, SandboxError::FileName { .. }), "case: {name:?}: {refused}");
    }
    cluster.stop().unwrap();
    assert!(matches!(cluster.reload(), Err(SandboxError::Stopped)));
}

#[tokio::test]
async fn a_certificate_turns_tls_on() {
    let mut cluster = start_cluster(ClusterOptions::default()).await;
    let sql = Sql::connect(&cluster.url("postgres")).await;
    if !has_tls(&sql, "a_certificate_turns_tls_on").await {
        return;
    }
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    cluster.put_file("server.crt", own.cert.pem().as_bytes()).unwrap();
    cluster.put_file("server.key", own.signing_key.serialize_pem().as_bytes()).unwrap();
    cluster.set("ssl", "on").unwrap();
    cluster.reload().unwrap();
    let again = Sql::connect(&cluster.url("postgres")).await;
    assert_eq!(again.text("SHOW ssl").await, "on");
    cluster.stop().unwrap();
    cluster.start_again().unwrap();
}

#[tokio::test]
async fn a_cluster_can_have_an_identifier_of_its_own() {
    let identifier = async |own_identifier| {
        let cluster =
            start_cluster(ClusterOptions { own_identifier, ..ClusterOptions::default() }).await;
        let sql = Sql::connect(&cluster.url("postgres")).await;
        sql.text("SELECT system_identifier FROM pg_control_system()").await
    };
    assert_eq!(identifier(false).await, identifier(false).await);
    assert_ne!(identifier(false).await, identifier(true).await);
}

#[tokio::test]
async fn killed_with_9_a_process_takes_its_server_and_data_along() {
    const HELPER: &str = "WALHOOK_TEST_HOLDS_A_CLUSTER";
    let name = "sandbox::killed_with_9_a_process_takes_its_server_and_data_along";
    if let Some(base) = env::var_os(HELPER) {
        return hold_a_cluster_for_ever(base.into());
    }
    let (base, _) = base_of_its_own();
    for _ in 0..3 {
        let mut command = tokio::process::Command::new(env::current_exe().unwrap());
        command.args([name, "--exact", "--nocapture"]).env(HELPER, base.path());
        let mut holder = Program::spawn(command, tempfile::tempdir().unwrap());
        let line = holder.wait_for_line("data: ", LIMIT).await;
        let data = PathBuf::from(line.split_once("data: ").unwrap().1);
        let family = family_of(&postmaster_of(&data));
        holder.kill();
        assert_eq!(holder.wait(LIMIT).await, None);
        wait_until_gone("the server", || !alive(&family).is_empty()).await;
        wait_until_gone("its directory", || !entries(base.path()).is_empty()).await;
    }
}

#[expect(clippy::print_stdout, reason = "the test that started this process reads it")]
fn hold_a_cluster_for_ever(base: PathBuf) {
    let mut options = ClusterOptions::default();
    options.surroundings.tmp = Some(base);
    let cluster = SandboxCluster::start(installation(), options).unwrap();
    println!("data: {}", cluster.data_dir().display());
    std::io::stdout().flush().unwrap();
    loop {
        thread::park();
    }
}

#[tokio::test]
async fn matrix_each_version_decodes_logically() {
    for installation in spawn_blocking(versions).await.unwrap() {
        let version = installation.clone();
        let options = ClusterOptions::default();
        let cluster = spawn_blocking(move || SandboxCluster::start(&version, options).unwrap())
            .await
            .unwrap();
        let sql = Sql::connect(&cluster.url("postgres")).await;
        let number: u32 = sql.text("SHOW server_version_num").await.parse().unwrap();
        assert_eq!(number / 10_000, installation.major());
        let create = "SELECT pg_create_logical_replication_slot('s', 'pgoutput')";
        assert!(sql.text(create).await.starts_with("(s,"));
        if has_version(&installation, 17, "failover slots") {
            let create = "SELECT slot_name FROM pg_create_logical_replication_slot(
                's2', 'pgoutput', failover => true)";
            assert_eq!(sql.text(create).await, "s2");
        }
    }
}
