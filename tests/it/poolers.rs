//! A real PgBouncer before the source or the state: `WALHOOK_PGBOUNCER` names it, as `.ci/tools pgbouncer` prints it, or it
//! is installed; otherwise these are skipped by name.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use tempfile::TempDir;
use tokio::process::Child;
use tokio::process::Command;

use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::support::program::Program;
use crate::support::service::AMPLE;

/// What a session of walhook asks for beside what PgBouncer knows.
pub(crate) const IGNORED: &str = "extra_float_digits,options,IntervalStyle,DateStyle,search_path,statement_timeout,\
                       idle_in_transaction_session_timeout,lock_timeout,bytea_output,row_security,replication";

const REST: &str = "[[event]]\ntype = \"t.changed\"\ntable = \"public.t\"\n\
                    [webhook]\nurls = [\"http://127.0.0.1:9/hook\"]\n";

#[expect(clippy::print_stdout, reason = "a skipped test must not look like a passed one")]
pub(crate) fn pgbouncer(test: &str) -> Option<PathBuf> {
    let named = env::var_os("WALHOOK_PGBOUNCER").filter(|path| !path.is_empty()).map(PathBuf::from);
    let found =
        named.or_else(|| Some(PathBuf::from("/usr/sbin/pgbouncer")).filter(|path| path.is_file()));
    if found.is_none() {
        println!("SKIP {test}: needs PgBouncer (WALHOOK_PGBOUNCER=$(.ci/tools pgbouncer))");
    }
    found
}

/// A PgBouncer of its own before the cluster of all tests. Dropping it ends it.
pub(crate) struct PgBouncer {
    _child: Child,
    _home: TempDir,
    port: u16,
}

impl PgBouncer {
    pub(crate) async fn start(
        program: &Path,
        database: &Database,
        mode: &str,
        ignored: &str,
    ) -> Self {
        let home = tempfile::tempdir().unwrap();
        // It does not run as root, and reads its files as who it runs as.
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let server: tokio_postgres::Config = database.url().parse().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut ini = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = trust\nauth_file = {}/users\npool_mode = {mode}\n",
            server.get_ports().first().unwrap(),
            home.path().display(),
        );
        if !ignored.is_empty() {
            writeln!(ini, "ignore_startup_parameters = {ignored}").unwrap();
        }
        let file = home.path().join("pgbouncer.ini");
        fs::write(&file, ini).unwrap();
        fs::write(home.path().join("users"), "\"postgres\" \"\"\n").unwrap();
        // What was unpacked has its libraries beside it.
        let libraries = program
            .parent()
            .unwrap()
            .join("../lib")
            .join(format!("{}-linux-gnu", env::consts::ARCH));
        let mut command = Command::new(program);
        command.env("LD_LIBRARY_PATH", libraries).arg("-q");
        if rustix::process::geteuid().is_root() {
            command.args(["-u", "nobody"]);
        }
        let child = command.arg(&file).stdin(Stdio::null()).kill_on_drop(true).spawn().unwrap();
        let started = Self { _child: child, _home: home, port };
        let deadline = Instant::now() + AMPLE;
        while Sql::try_connect(&started.url(database)).await.is_err() {
            assert!(Instant::now() < deadline, "PgBouncer does not answer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        started
    }

    pub(crate) fn url(&self, database: &Database) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{}", self.port, database.name())
    }
}

/// In each mode, whether it refuses what it does not know or was told to ignore it: walhook does not begin, and
/// says why.
#[tokio::test]
async fn a_real_pgbouncer_is_refused_by_name_in_each_mode() {
    let Some(program) = pgbouncer("a_real_pgbouncer_is_refused_by_name_in_each_mode") else {
        return;
    };
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute("CREATE TABLE t (id int PRIMARY KEY)").await.unwrap();
    let slot = format!("{}_pooled", database.name());
    for (mode, ignored) in
        [("session", ""), ("session", IGNORED), ("transaction", ""), ("transaction", IGNORED)]
    {
        let pooler = PgBouncer::start(&program, &database, mode, ignored).await;
        let (pooled, direct) = (pooler.url(&database), database.url());
        for (source, state) in [(&pooled, &direct), (&direct, &pooled), (&pooled, &pooled)] {
            let toml = format!(
                "[postgres]\nurl = \"{source}\"\nslot = \"{slot}\"\n\n[state]\nurl = \"{state}\"\n\n\
                 [http]\nlisten = \"127.0.0.1:0\"\n\n{REST}"
            );
            for command in ["check", "run"] {
                let mut program = Program::start(&[command], &toml, &[]);
                let code = program.wait(AMPLE).await;
                let said = program.output().join("\n");
                let case =
                    format!("{command}, {mode}, ignores {ignored:?}: {source} {state}\n{said}");
                assert_eq!(code, Some(3), "{case}");
                assert!(said.contains("connection pooler, such as PgBouncer"), "{case}");
            }
        }
    }
    let made = format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{slot}'");
    assert_eq!(sql.text(&made).await, "0", "no slot is made");
}
