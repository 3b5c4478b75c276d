//! Passwords and rights that change under a walhook that runs, and where passwords come from.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

use std::fs;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use walhook::testing::sandbox::cluster::ClusterOptions;
use walhook::testing::sandbox::cluster::SandboxCluster;

use super::TABLE;
use super::taking;
use super::toml;
use super::wait_until_named;
use crate::support::postgres::Sql;
use crate::support::postgres::start_cluster;
use crate::support::program::Program;
use crate::support::service::AMPLE;
use crate::support::service::Service;

/// A server that asks role `app` for a password, and everybody else for nothing.
async fn guarded() -> (SandboxCluster, Sql) {
    let mut cluster = start_cluster(ClusterOptions::default()).await;
    let sql = Sql::connect(&cluster.url("postgres")).await;
    sql.batch_execute(&format!(
        "CREATE ROLE app LOGIN REPLICATION PASSWORD 'first';
         GRANT CREATE ON DATABASE postgres TO app; GRANT USAGE, CREATE ON SCHEMA public TO app;
         SET ROLE app; {TABLE}; RESET ROLE"
    ))
    .await
    .unwrap();
    cluster
        .set_hba(&[
            "host all app 127.0.0.1/32 scram-sha-256",
            "host replication app 127.0.0.1/32 scram-sha-256",
            "host all all 127.0.0.1/32 trust",
        ])
        .unwrap();
    cluster.reload().unwrap();
    (cluster, sql)
}

fn url(cluster: &SandboxCluster, password: &str) -> String {
    cluster.url("postgres").replace("postgres@", &format!("app{password}@"))
}

async fn lose_sessions(sql: &Sql) {
    sql.batch_execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'",
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn a_role_that_is_changed_under_a_running_walhook_is_waited_for_and_named() {
    let (cluster, sql) = guarded().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("url");
    fs::write(&file, url(&cluster, ":first")).unwrap();
    let receiver = taking();
    let toml = toml(&format!("{{ file = \"{}\" }}", file.display()), "", &receiver);
    let mut service = Service::start(&toml).await;
    let steps = [
        ("PASSWORD 'second'", "wrong password", ""),
        ("NOLOGIN", "may log in", "LOGIN"),
        ("NOREPLICATION", "may not replicate", "REPLICATION"),
        ("CONNECTION LIMIT 0", "free", "CONNECTION LIMIT -1"),
    ];
    for (rows, (change, named, back)) in (1..).zip(steps) {
        sql.batch_execute(&format!("ALTER ROLE app {change}")).await.unwrap();
        lose_sessions(&sql).await;
        let said = wait_until_named(&service, named).await;
        assert!(!said.contains("first") && !said.contains("second"), "{said}");
        sql.batch_execute(&format!("INSERT INTO orders VALUES ({rows})")).await.unwrap();
        if back.is_empty() {
            fs::write(&file, url(&cluster, ":second")).unwrap();
        } else {
            sql.batch_execute(&format!("ALTER ROLE app {back}")).await.unwrap();
        }
        receiver.wait_for(rows, AMPLE).await;
        service.wait_for_status("/ready", 200).await;
    }
    service.stop().await;

    // At the start the same things end it, so that they are seen.
    sql.batch_execute("ALTER ROLE app NOLOGIN").await.unwrap();
    let mut refused = Program::start(&["run"], &toml, &[]);
    assert_eq!(refused.wait(AMPLE).await, Some(3), "{}", refused.output().join("\n"));
}

async fn check(toml: &str, env: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut program = Program::start(&["check"], toml, env);
    let code = program.wait(AMPLE).await;
    (code, program.output().join("\n"))
}

fn write(file: &Path, text: &str, mode: u32) {
    fs::write(file, text).unwrap();
    fs::set_permissions(file, Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn a_password_comes_from_where_libpq_takes_it() {
    let (cluster, _sql) = guarded().await;
    let receiver = taking();
    let bare = toml(&format!("\"{}\"", url(&cluster, "")), "", &receiver);
    let home = tempfile::tempdir().unwrap();
    let own = home.path().join(".pgpass");
    let home_dir = home.path().display().to_string();
    let at_home = [("HOME", home_dir.as_str())];

    let (code, said) = check(&bare, &at_home).await;
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("asks for a password") && said.contains(".pgpass"), "{said}");

    write(&own, "*:*:other:*:wrong\n127.0.0.1:*:postgres:app:first\n", 0o640);
    let (code, said) = check(&bare, &at_home).await;
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("chmod 600") && !said.contains("first"), "{said}");

    write(&own, "*:*:other:*:wrong\n127.0.0.1:*:postgres:app:first\n", 0o600);
    let (code, said) = check(&bare, &at_home).await;
    assert_eq!(code, Some(0), "{said}");

    let elsewhere = home.path().join("passwords");
    write(&elsewhere, "*:*:*:*:first\n", 0o600);
    let elsewhere = elsewhere.display().to_string();
    let env = [("HOME", "/nonexistent"), ("PGPASSFILE", elsewhere.as_str())];
    let (code, said) = check(&bare, &env).await;
    assert_eq!(code, Some(0), "{said}");

    let (code, said) = check(&bare, &[("HOME", "/nonexistent"), ("PGPASSWORD", "first")]).await;
    assert_eq!(code, Some(0), "{said}");

    let port = cluster.port().to_string();
    let nothing = toml("\"postgres:///\"", "", &receiver);
    let env = [
        ("PGHOST", "127.0.0.1"),
        ("PGPORT", port.as_str()),
        ("PGUSER", "app"),
        ("PGDATABASE", "postgres"),
        ("PGPASSWORD", "first"),
    ];
    let (code, said) = check(&nothing, &env).await;
    assert_eq!(code, Some(0), "{said}");
}
