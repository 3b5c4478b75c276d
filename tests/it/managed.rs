//! Managed PostgreSQL and poolers, as far as they can be imitated: by roles, by settings, and by what a pooler says.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use walhook::testing::sandbox::cluster::ClusterOptions;

use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::support::postgres::start_cluster;
use crate::support::program::Program;
use crate::support::service::AMPLE;

const REST: &str = "[[event]]\ntype = \"t\"\ntable = \"public.t\"\n\n\
                    [webhook]\nurls = [\"http://127.0.0.1:9\"]\n";

async fn checked(toml: &str) -> (Option<i32>, String) {
    let mut program = Program::start(&["check"], toml, &[]);
    let code = program.wait(AMPLE).await;
    (code, program.output().join("\n"))
}

#[tokio::test]
async fn check_and_init_say_what_is_done_at_each_service() {
    let cluster = start_cluster(
        ClusterOptions::default()
            .with("wal_level", "replica")
            .with("max_wal_senders", "0")
            .with("max_replication_slots", "0"),
    )
    .await;
    let sql = Sql::connect(&cluster.url("postgres")).await;
    sql.batch_execute(
        "CREATE TABLE t (id int PRIMARY KEY); CREATE ROLE app LOGIN; GRANT SELECT ON t TO app;
         GRANT CREATE ON DATABASE postgres TO app",
    )
    .await
    .unwrap();
    let url = cluster.url("postgres").replace("postgres@", "app@");
    let toml = format!("[postgres]\nurl = \"{url}\"\n\n{REST}");
    let services = [
        (
            "rds_superuser",
            "Amazon RDS or Aurora",
            "rds.logical_replication",
            "GRANT rds_replication",
            "RDS Proxy",
        ),
        (
            "alloydbsuperuser",
            "AlloyDB",
            "alloydb.logical_decoding",
            "REPLICATION",
            "connection pooling",
        ),
        (
            "cloudsqlsuperuser",
            "Cloud SQL",
            "cloudsql.logical_decoding",
            "REPLICATION",
            "connection pooling",
        ),
        ("azure_pg_admin", "Azure Database", "server parameter wal_level", "REPLICATION", "6432"),
        ("supabase_admin", "Supabase", "by default", "as postgres", "IPv6"),
        ("neon_superuser", "Neon", "project's settings", "Neon's console", "40 hours"),
        ("avnadmin", "Aiven", "by default", "as avnadmin", "connection pool"),
        ("doadmin", "DigitalOcean", "by default", "as doadmin", "connection pool"),
        ("tsdbadmin", "Timescale", "by default", "as tsdbadmin", "connection pool"),
        ("pscale_api_8s4elr", "PlanetScale", "cluster parameter", "REPLICATION", "failover = true"),
    ];
    for (role, name, level, right, note) in services {
        sql.batch_execute(&format!("CREATE ROLE {role}")).await.unwrap();
        let (code, said) = checked(&toml).await;
        assert_eq!(code, Some(3), "{said}");
        for part in [name, level, right, note] {
            assert!(said.contains(part), "{name}: {part}: {said}");
        }
        let args = ["init", "--database-url", &url, "--table", "t", "--output", "made.toml"];
        let mut init = Program::start(&args, "", &[]);
        init.wait(AMPLE).await;
        let said = init.output().join("\n");
        assert!(said.contains(name) && said.contains(level), "{name}: {said}");
        sql.batch_execute(&format!("DROP ROLE {role}")).await.unwrap();
    }
    let settings = [("neon.timeline_id", "Neon"), ("azure.extensions", "Azure Database")];
    for (setting, name) in settings {
        let set = format!("ALTER ROLE app SET {setting} = 'x'");
        sql.batch_execute(&set).await.unwrap();
        let (_, said) = checked(&toml).await;
        assert!(said.contains(name), "{said}");
        sql.batch_execute(&format!("ALTER ROLE app RESET {setting}")).await.unwrap();
    }
}

/// Says what PgBouncer says to a start-up parameter that it does not know, for as long as the tasks live.
async fn pooler(tasks: &mut JoinSet<()>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tasks.spawn(async move {
        let mut answers = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            answers.spawn(async move {
                let mut head = [0; 8];
                stream.read_exact(&mut head).await.unwrap();
                if head[4..] == 80_877_103_u32.to_be_bytes() {
                    stream.write_all(b"N").await.unwrap();
                    stream.read_exact(&mut head).await.unwrap();
                }
                let length =
                    usize::try_from(u32::from_be_bytes(head[..4].try_into().unwrap())).unwrap();
                let mut rest = vec![0; length - 8];
                stream.read_exact(&mut rest).await.unwrap();
                let fields =
                    b"SFATAL\0VFATAL\0C08P01\0Munsupported startup parameter: IntervalStyle\0\0";
                let mut answer = vec![b'E'];
                answer.extend(u32::try_from(fields.len() + 4).unwrap().to_be_bytes());
                answer.extend(fields);
                stream.write_all(&answer).await.unwrap();
            });
        }
    });
    port
}

#[tokio::test]
async fn a_pooler_before_the_source_or_the_state_is_refused_by_name() {
    let database = Database::create().await;
    database.sql().await.batch_execute("CREATE TABLE t (id int PRIMARY KEY)").await.unwrap();
    let mut tasks = JoinSet::new();
    let port = pooler(&mut tasks).await;
    let pooled = format!("postgres://postgres@127.0.0.1:{port}/postgres");
    let direct = database.url();
    let slot = format!("{}_managed", database.name());
    let cases = [(&pooled, &direct), (&direct, &pooled)];
    for (source, state) in cases {
        let toml = format!(
            "[postgres]\nurl = \"{source}\"\nslot = \"{slot}\"\n\n[state]\nurl = \"{state}\"\n\n\
             [http]\nlisten = \"127.0.0.1:0\"\n\n{REST}"
        );
        for command in ["check", "run"] {
            let mut program = Program::start(&[command], &toml, &[]);
            assert_eq!(program.wait(AMPLE).await, Some(3), "{:?}", program.output());
            let said = program.output().join("\n");
            assert!(said.contains("connection pooler, such as PgBouncer"), "{said}");
        }
    }
}
