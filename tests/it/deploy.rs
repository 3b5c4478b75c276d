//! What `deploy/` holds runs as it stands: the compose file's SQL and configuration on a server of
//! their own, the systemd unit's commands as the user that it names.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::chown;
use std::path::Path;
use std::path::PathBuf;

use tokio::process::Command;
use walhook::testing::sandbox::cluster::ClusterOptions;

use crate::support::broker::Broker;
use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::support::postgres::start_cluster;
use crate::support::program::Program;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::configuration;

const UNIT: &str = include_str!("../../deploy/walhook.service");

/// `nobody`, on every Linux: any user that is neither root nor the owner of the files.
const OTHER_USER: u32 = 65_534;

#[tokio::test]
async fn the_compose_files_run_as_they_stand() {
    let cluster = start_cluster(ClusterOptions::default()).await;
    let admin = Sql::connect(&cluster.url("postgres")).await;
    admin.batch_execute("CREATE DATABASE app").await.unwrap();
    let sql = Sql::connect(&cluster.url("app")).await;
    sql.batch_execute(include_str!("../../deploy/compose/init.sql")).await.unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    // What the network of the containers gives, and nothing else, is another here.
    let toml = include_str!("../../deploy/compose/walhook.toml");
    let listen = "\"0.0.0.0:9464\"";
    assert!(toml.contains(listen) && toml.contains("http://receiver:9999/"), "{toml}");
    let toml = toml.replace(listen, "\"127.0.0.1:0\"");
    let toml = toml.replace("http://receiver:9999/", &receiver.url());
    let url = format!("postgres://walhook:walhook@127.0.0.1:{}/app", cluster.port());
    let env = [
        ("DATABASE_URL", url.as_str()),
        ("WALHOOK_TOKEN", "for-trying-out-only"),
        ("WALHOOK_SECRET", "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
    ];
    let mut check = Program::start(&["check"], &toml, &env);
    assert_eq!(check.wait(AMPLE).await, Some(0), "{}", check.output().join("\n"));
    let mut run = Program::start(&["run"], &toml, &env);
    run.wait_for_line("walhook is running", AMPLE).await;
    // The line that compose.yaml shows.
    sql.batch_execute("INSERT INTO orders (item) VALUES ('tea')").await.unwrap();
    let first = receiver.wait_for(1, AMPLE).await.remove(0);
    assert_eq!(first.json()["type"], "orders.created");
    assert!(!first.header("webhook-signature").is_empty());
    run.terminate();
    assert_eq!(run.wait(AMPLE).await, Some(0), "{}", run.output().join("\n"));
}

/// The file for roles is the other one with the broker, which three servers are here, too.
#[tokio::test]
async fn the_compose_files_for_roles_run_as_they_stand() {
    let test = "the_compose_files_for_roles_run_as_they_stand";
    let Some(nodes) = Broker::cluster(test).await else { return };
    let toml = include_str!("../../deploy/compose/walhook-roles.toml");
    let alone = include_str!("../../deploy/compose/walhook.toml");
    let (_comment, alone) = alone.split_once('\n').unwrap();
    let broker = "[\"nats://nats-1:4222\", \"nats://nats-2:4222\", \"nats://nats-3:4222\"]";
    assert!(toml.contains(alone) && toml.contains(broker), "{toml}");
    let compose = include_str!("../../deploy/compose.roles.yaml");
    for number in 1..=3 {
        assert!(compose.contains(&format!("nats://nats-{number}:6222")), "{compose}");
    }
    let cluster = start_cluster(ClusterOptions::default()).await;
    let admin = Sql::connect(&cluster.url("postgres")).await;
    admin.batch_execute("CREATE DATABASE app").await.unwrap();
    let sql = Sql::connect(&cluster.url("app")).await;
    sql.batch_execute(include_str!("../../deploy/compose/init.sql")).await.unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    let urls = nodes.each_ref().map(|node| format!("\"{}\"", node.url())).join(", ");
    let toml = toml.replace("\"0.0.0.0:9464\"", "\"127.0.0.1:0\"");
    let toml = toml.replace("http://receiver:9999/", &receiver.url());
    let toml = toml.replace(broker, &format!("[{urls}]"));
    let url = format!("postgres://walhook:walhook@127.0.0.1:{}/app", cluster.port());
    let env = [
        ("DATABASE_URL", url.as_str()),
        ("WALHOOK_TOKEN", "for-trying-out-only"),
        ("WALHOOK_SECRET", "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
    ];
    // Three servers that have just started agree on a leader first.
    let deadline = std::time::Instant::now() + AMPLE;
    loop {
        let mut check = Program::start(&["check"], &toml, &env);
        if check.wait(AMPLE).await == Some(0) {
            break;
        }
        let said = check.output().join("\n");
        assert!(std::time::Instant::now() < deadline, "{said}");
    }
    let mut tail = Program::start(&["run", "--role", "tail"], &toml, &env);
    tail.wait_for_line("walhook is running", AMPLE).await;
    let mut worker = Program::start(&["run", "--role", "deliver"], &toml, &env);
    sql.batch_execute("INSERT INTO orders (item) VALUES ('tea')").await.unwrap();
    let first = receiver.wait_for(1, AMPLE).await.remove(0);
    assert_eq!(first.json()["type"], "orders.created");
    for member in [&mut worker, &mut tail] {
        member.terminate();
        assert_eq!(member.wait(AMPLE).await, Some(0), "{}", member.output().join("\n"));
    }
}

/// The command of a line of the unit, with the unit's paths replaced.
fn command_of(key: &str, home: &Path, pid: Option<u32>) -> Vec<String> {
    let line = UNIT.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap();
    let pid = pid.map(|pid| pid.to_string()).unwrap_or_default();
    let home = home.display().to_string();
    let real = |word: &str| {
        word.replace("/usr/local/bin", &home)
            .replace("/etc/walhook", &home)
            .replace("$MAINPID", &pid)
    };
    line.split(' ').map(real).collect()
}

/// A file as `install -m 640 -g walhook` leaves it.
fn put(path: &Path, text: &str, is_root: bool) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o640)).unwrap();
    if is_root {
        chown(path, Some(0), Some(OTHER_USER)).unwrap();
    }
}

#[tokio::test]
async fn the_unit_starts_with_its_files_and_reloads_them() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute("CREATE TABLE orders (id int PRIMARY KEY)").await.unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    let home = tempfile::tempdir().unwrap();
    let is_root = rustix::process::geteuid().is_root();
    let binary = home.path().join("walhook");
    fs::copy(env!("CARGO_BIN_EXE_walhook"), &binary).unwrap();
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o750)).unwrap();
    if is_root {
        chown(home.path(), Some(0), Some(OTHER_USER)).unwrap();
    }
    let toml = |header: &str| {
        let rest = format!(
            "[[event]]\ntype = \"order\"\ntable = \"public.orders\"\n[[endpoint]]\nname = \"crm\"\n\
             url = \"{}\"\nsecret = {{ file = \"crm.secret\" }}\nheaders = {{ x-was = \"{header}\" }}\n",
            receiver.url()
        );
        configuration(&database, &rest)
    };
    let secret = |text: &str| put(&home.path().join("crm.secret"), text, is_root);
    let (first, second) = ("first-secret-of-24-bytes", "other-secret-of-24-bytes");
    secret(first);
    put(&home.path().join("walhook.toml"), &toml("first"), is_root);
    let words = command_of("ExecStart", home.path(), None);
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).env_clear();
    if is_root {
        command.uid(OTHER_USER).gid(OTHER_USER);
    }
    // As `WorkingDirectory` says; the test's own directory is for what it prints.
    assert!(UNIT.contains("WorkingDirectory=/etc/walhook"));
    let mut program = Program::spawn(command, tempfile::tempdir_in("/tmp").unwrap());
    program.wait_for_line("walhook is running", AMPLE).await;
    sql.batch_execute("INSERT INTO orders VALUES (1)").await.unwrap();
    let before = receiver.wait_for(1, AMPLE).await.remove(0);
    assert_eq!(before.header("x-was"), "first");

    secret(second);
    put(&home.path().join("walhook.toml"), &toml("second"), is_root);
    let words = command_of("ExecReload", home.path(), Some(program.id()));
    assert!(Command::new(&words[0]).args(&words[1..]).status().await.unwrap().success());
    program.wait_for_line("configuration is reloaded", AMPLE).await;
    sql.batch_execute("INSERT INTO orders VALUES (2)").await.unwrap();
    let after = receiver.wait_for(2, AMPLE).await.remove(1);
    assert_eq!(after.header("x-was"), "second");
    program.terminate();
    assert_eq!(program.wait(AMPLE).await, Some(0), "{}", program.output().join("\n"));
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "a skipped test must not look like a passed one")]
async fn systemd_takes_the_unit() {
    let Some(analyze) = find_on_path("systemd-analyze") else {
        println!("SKIP systemd_takes_the_unit: needs systemd-analyze");
        return;
    };
    let home = tempfile::tempdir().unwrap();
    let unit = home.path().join("walhook.service");
    // The check asks whether the program is there.
    let text = UNIT.replace("/usr/local/bin/walhook", env!("CARGO_BIN_EXE_walhook"));
    fs::write(&unit, text).unwrap();
    let output = Command::new(analyze).arg("verify").arg(&unit).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let own: Vec<_> = said.lines().filter(|line| line.contains("walhook.service")).collect();
    assert!(output.status.success() && own.is_empty(), "{said}");
}

fn find_on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}
