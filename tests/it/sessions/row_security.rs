//! Row-level security on what walhook reads and writes beside the stream: refused at the start, named
//! while it runs, and nothing is taken for gone because it is hidden.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

use super::taking;
use super::wait_until_named;
use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::support::postgres::wait_for_text;
use crate::support::program::Program;
use crate::support::receiver::Receiver;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::slot;

/// A role without BYPASSRLS that owns none of the tables.
async fn set_up() -> (Database, Sql, String) {
    let database = Database::create().await;
    let sql = database.sql().await;
    let role = format!("{}_app", database.name());
    sql.batch_execute(&format!(
        "CREATE TABLE tasks (id text PRIMARY KEY, rule int, status text);
         CREATE TABLE webhooks (id int PRIMARY KEY, rules int[], url text);
         CREATE ROLE {role} LOGIN REPLICATION;
         GRANT CREATE ON DATABASE {db} TO {role};
         GRANT SELECT, UPDATE ON tasks, webhooks TO {role};
         CREATE PUBLICATION walhook FOR TABLE tasks, webhooks;",
        db = database.name()
    ))
    .await
    .unwrap();
    (database, sql, role)
}

fn toml(database: &Database, role: &str, table: &str) -> String {
    let url = database.url().replace("postgres@", &format!("{role}@"));
    let watch = if table == "webhooks" { "" } else { "watch = [\"public.webhooks\"]\n" };
    format!(
        "[postgres]\nurl = \"{url}\"\nslot = \"{}\"\n\n[http]\nlisten = \"127.0.0.1:0\"\n\n\
         [[event]]\ntype = \"task\"\ntable = \"public.tasks\"\non = [\"insert\"]\n\
         write_back = {{ column = \"status\", delivered = \"done\", failed = \"failed\" }}\n\n\
         [endpoints]\nallow = [\"127.0.0.1\"]\n\n[endpoints_from]\ntable = \"public.{table}\"\n{watch}\
         match = {{ rule = \"rules\" }}\n\n[endpoints_from.endpoint]\nname = \"wh-{{{{ id }}}}\"\n\
         url = \"{{{{ url }}}}\"\nevents = [\"task\"]\n",
        slot(database)
    )
}

async fn webhook(sql: &Sql, receiver: &Receiver) {
    let insert = format!("INSERT INTO webhooks VALUES (1, '{{7}}', '{}')", receiver.url());
    sql.batch_execute(&insert).await.unwrap();
}

async fn ended(command: &str, toml: &str) -> (Option<i32>, String) {
    let mut program = Program::start(&[command], toml, &[]);
    let code = program.wait(AMPLE).await;
    (code, program.output().join("\n"))
}

#[tokio::test]
async fn hidden_rows_are_refused_at_the_start_and_by_check() {
    let (database, sql, role) = set_up().await;
    webhook(&sql, &taking()).await;
    let whole = toml(&database, &role, "webhooks");
    let (code, said) = ended("check", &whole).await;
    assert_eq!(code, Some(0), "{said}");
    // A policy that lets all rows through is one all the same: another may come.
    let policy = format!("CREATE POLICY all_of_it ON tasks TO {role} USING (true)");
    for (table, whose, and) in [
        ("tasks", "write-back of event task", policy.as_str()),
        ("webhooks", "[endpoints_from]", "SELECT 1"),
    ] {
        let enable = format!("ALTER TABLE {table} ENABLE ROW LEVEL SECURITY; {and}");
        sql.batch_execute(&enable).await.unwrap();
        for command in ["check", "run"] {
            let (code, said) = ended(command, &whole).await;
            assert_eq!(code, Some(3), "{command} {table}: {said}");
            for part in ["row-level security", whose, "BYPASSRLS", role.as_str()] {
                assert!(said.contains(part), "{command} {table}: {part}: {said}");
            }
        }
        let disable = format!("ALTER TABLE {table} DISABLE ROW LEVEL SECURITY");
        sql.batch_execute(&disable).await.unwrap();
    }
    let version: u32 = sql.text("SHOW server_version_num").await.parse().unwrap();
    // A view hides what its owner may not see, or with security_invoker who asks.
    for invoker in [false, true] {
        if invoker && version < 150_000 {
            continue;
        }
        let with = if invoker { "WITH (security_invoker = true)" } else { "" };
        sql.batch_execute(&format!(
            "DROP VIEW IF EXISTS seen; CREATE VIEW seen {with} AS SELECT * FROM webhooks;
             GRANT SELECT ON seen TO {role};
             ALTER TABLE webhooks ENABLE ROW LEVEL SECURITY;"
        ))
        .await
        .unwrap();
        if !invoker {
            sql.batch_execute(&format!("ALTER VIEW seen OWNER TO {role}")).await.unwrap();
        }
        let (code, said) = ended("check", &toml(&database, &role, "seen")).await;
        assert_eq!(code, Some(3), "{said}");
        assert!(said.contains("row-level security hides rows of [endpoints_from]"), "{said}");
    }
    sql.batch_execute(&format!("ALTER ROLE {role} BYPASSRLS")).await.unwrap();
    let (code, said) = ended("check", &whole).await;
    assert_eq!(code, Some(0), "{said}");
    drop_role(&sql, &role).await;
}

/// What is said is run as it stands, until nothing is said any more.
#[tokio::test]
async fn a_view_that_may_not_be_read_says_what_to_run() {
    let (database, sql, role) = set_up().await;
    webhook(&sql, &taking()).await;
    let owner = format!("{role}_of_views");
    sql.batch_execute(&format!(
        "CREATE ROLE {owner};
         GRANT CREATE ON SCHEMA public TO {owner};
         CREATE FUNCTION shown(url text, \"max n\" int DEFAULT 5) RETURNS text LANGUAGE sql AS 'SELECT url';
         REVOKE EXECUTE ON FUNCTION shown FROM PUBLIC;
         CREATE VIEW seen AS SELECT id, rules, shown(url) AS url FROM webhooks;
         ALTER VIEW seen OWNER TO {owner}"
    ))
    .await
    .unwrap();
    let toml = toml(&database, &role, "seen");
    let mut ran = Vec::new();
    loop {
        let (code, said) = ended("check", &toml).await;
        if code == Some(0) {
            break;
        }
        let fix = said.lines().find_map(|line| line.trim().strip_prefix("run `"));
        let fix = fix.and_then(|rest| Some(rest.split_once('`')?.0));
        let fix = fix.unwrap_or_default().to_owned();
        assert!(!fix.is_empty() && !ran.contains(&fix), "{said}");
        sql.batch_execute(&fix).await.unwrap();
        ran.push(fix);
    }
    let ran = ran.join(" ");
    for part in [
        format!("GRANT SELECT ON public.seen TO {role};"),
        format!("GRANT SELECT ON public.webhooks TO {owner};"),
        format!("GRANT EXECUTE ON FUNCTION public.shown(url text, \"max n\" integer) TO {role};"),
    ] {
        assert!(ran.contains(&part), "{part}: {ran}");
    }
    drop_role(&sql, &role).await;
    drop_role(&sql, &owner).await;
}

/// Nothing is to be written meanwhile: it shows all the same, and is gone when it is put right.
#[tokio::test]
async fn what_becomes_of_walhooks_own_tables_while_it_runs_is_named() {
    let (database, sql, role) = set_up().await;
    let receiver = taking();
    webhook(&sql, &receiver).await;
    let service = Service::start(&toml(&database, &role, "webhooks")).await;
    for (harm, says, mend) in [
        (
            "ALTER TABLE walhook.fronts RENAME TO fronts_of_old",
            "schema walhook lacks fronts, which walhook had made there",
            "ALTER TABLE walhook.fronts_of_old RENAME TO fronts",
        ),
        (
            "ALTER TABLE walhook.fronts ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
            "ALTER TABLE walhook.fronts DISABLE ROW LEVEL SECURITY",
            "ALTER TABLE walhook.fronts DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY",
        ),
    ] {
        sql.batch_execute(harm).await.unwrap();
        wait_until_named(&service, says).await;
        let (code, said) = ended("check", &toml(&database, &role, "webhooks")).await;
        assert!(code == Some(3) && said.contains(says), "{said}");
        sql.batch_execute(mend).await.unwrap();
        service.wait_for_status("/ready", 200).await;
    }
    drop(service);
    drop_role(&sql, &role).await;
}

#[tokio::test]
async fn policies_that_come_while_it_runs_are_named_and_hide_nothing() {
    let (database, sql, role) = set_up().await;
    let receiver = taking();
    webhook(&sql, &receiver).await;
    let mut service = Service::start(&toml(&database, &role, "webhooks")).await;
    sql.batch_execute("INSERT INTO tasks VALUES ('a', 7, 'new')").await.unwrap();
    wait_for_text(&sql, "SELECT status FROM tasks WHERE id = 'a'", "done").await;

    sql.batch_execute(
        "ALTER TABLE tasks ENABLE ROW LEVEL SECURITY;
         ALTER TABLE webhooks ENABLE ROW LEVEL SECURITY;",
    )
    .await
    .unwrap();
    wait_until_named(&service, "row-level security hides rows of the write-back").await;
    wait_until_named(&service, "row-level security hides rows of [endpoints_from]").await;
    for what in ["write_backs", "endpoints_table"] {
        let series = format!("walhook_obstacle{{what=\"{what}\"}}");
        service.wait_for_metric(&series, 1.0).await;
    }
    // It goes to the endpoint that is there still, and its outcome waits.
    sql.batch_execute("INSERT INTO tasks VALUES ('b', 7, 'new')").await.unwrap();
    receiver.wait_for(2, AMPLE).await;
    let errors = "SELECT count(*) FROM walhook.write_backs WHERE last_error LIKE '%row-level%'";
    wait_for_text(&sql, errors, "1").await;
    assert_eq!(sql.text("SELECT status FROM tasks WHERE id = 'b'").await, "new");
    // A change of the table has it read: what cannot be read changes nothing.
    sql.batch_execute("UPDATE webhooks SET rules = '{7, 8}'").await.unwrap();
    let deadline = std::time::Instant::now() + AMPLE;
    while service.metric("walhook_endpoints_table_errors_total").await < 1.0 {
        assert!(std::time::Instant::now() < deadline);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let endpoints = service.get("/api/v1/endpoints").await;
    assert!(endpoints.body.contains("wh-1"), "{endpoints:?}");

    sql.batch_execute(
        "ALTER TABLE tasks DISABLE ROW LEVEL SECURITY;
         ALTER TABLE webhooks DISABLE ROW LEVEL SECURITY;
         INSERT INTO tasks VALUES ('c', 8, 'new')",
    )
    .await
    .unwrap();
    wait_for_text(&sql, "SELECT status FROM tasks WHERE id = 'b'", "done").await;
    wait_for_text(&sql, "SELECT status FROM tasks WHERE id = 'c'", "done").await;
    service.wait_for_status("/ready", 200).await;
    service.stop().await;
    drop_role(&sql, &role).await;
}

/// A right that is taken away is seen before the next outcome needs it, and says what to grant.
#[tokio::test]
async fn rights_that_are_taken_away_while_it_runs_are_named() {
    let (database, sql, role) = set_up().await;
    let receiver = taking();
    webhook(&sql, &receiver).await;
    let mut service = Service::start(&toml(&database, &role, "webhooks")).await;
    service.wait_for_status("/ready", 200).await;
    for (take, give, said, series) in [
        (
            format!("REVOKE UPDATE ON tasks FROM {role}"),
            format!("GRANT UPDATE ON tasks TO {role}"),
            "run `GRANT UPDATE (",
            "write_backs",
        ),
        (
            format!("REVOKE SELECT ON webhooks FROM {role}"),
            format!("GRANT SELECT ON webhooks TO {role}"),
            "permission denied for table webhooks",
            "endpoints_table",
        ),
    ] {
        sql.batch_execute(&take).await.unwrap();
        wait_until_named(&service, said).await;
        service.wait_for_metric(&format!("walhook_obstacle{{what=\"{series}\"}}"), 1.0).await;
        sql.batch_execute(&give).await.unwrap();
        service.wait_for_status("/ready", 200).await;
    }
    service.stop().await;
    drop_role(&sql, &role).await;
}

#[tokio::test]
async fn a_write_back_that_changes_no_row_is_named() {
    let (database, sql, _role) = set_up().await;
    let receiver = taking();
    webhook(&sql, &receiver).await;
    let mut service = Service::start(&toml(&database, "postgres", "webhooks")).await;
    sql.batch_execute("BEGIN; INSERT INTO tasks VALUES ('a', 7, 'new'); DELETE FROM tasks; COMMIT")
        .await
        .unwrap();
    service
        .wait_for_metric("walhook_write_backs_total{event=\"task\",outcome=\"unchanged\"}", 1.0)
        .await;
    service.program.wait_for_line("a write-back changed no row", AMPLE).await;
    let status = service.get("/api/v1/status").await.json();
    assert_eq!(status.pointer("/write_backs/unchanged"), Some(&1.into()), "{status}");
    service.stop().await;
}

/// Roles are of the whole cluster.
async fn drop_role(sql: &Sql, role: &str) {
    let end =
        format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'");
    sql.batch_execute(&end).await.unwrap();
    sql.batch_execute(&format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}")).await.unwrap();
}
