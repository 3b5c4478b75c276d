//! Tables and publication that are altered under a running walhook: named, not ready, and well again
//! when it is mended.

use serde_json::Value;

use super::event;
use super::webhook;
use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::support::postgres::has_version;
use crate::support::postgres::installation;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;

const PROBLEMS: &str = "walhook_source_problems";

/// It becomes not ready by `alter`, says `part` once, and is ready again by `mend`.
async fn assert_named(service: &mut Service, sql: &Sql, alter: &str, part: &str, mend: &str) {
    if part.starts_with("holds back") && !has_version(installation(), 15, alter) {
        return; // row filters and column lists
    }
    sql.batch_execute(alter).await.unwrap();
    let reply = service.wait_for_status("/ready", 503).await;
    let status: Value = service.get("/api/v1/status").await.json();
    assert_eq!(status["source"]["state"], "degraded", "{status}");
    let problems = status["source"]["problems"].as_array().unwrap();
    let named = problems.iter().any(|problem| problem.as_str().unwrap().contains(part));
    assert!(
        named
            && problems[0].as_str().is_some_and(|first| {
                let first = first.split(':').next().unwrap();
                reply.body.contains(&first.replace('"', "\\\""))
            }),
        "{alter}: {} {status}",
        reply.body
    );
    assert!(service.metric(PROBLEMS).await >= 1.0);
    service.program.wait_for_line(part, AMPLE).await;
    sql.batch_execute(mend).await.unwrap();
    service.wait_for_status("/ready", 200).await;
    service.wait_for_metric(PROBLEMS, 0.0).await;
    let said = service.program.output();
    let lines = said.iter().filter(|line| line.contains("not ready:") && line.contains(part));
    assert_eq!(lines.count(), 1, "{part}: {}", said.join("\n"));
}

#[tokio::test]
async fn what_is_altered_under_a_running_walhook_is_named_until_it_is_mended() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(
        "CREATE TABLE o (id int PRIMARY KEY, status text, note text);
         ALTER TABLE o REPLICA IDENTITY FULL;
         CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
         CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (0) TO (10);
         CREATE TABLE q (id int PRIMARY KEY, kind text);
         ALTER TABLE q REPLICA IDENTITY FULL",
    )
    .await
    .unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    let events = event("o", "when = \"status != old.status\"")
        + &event("p", "")
        + &event("q", "when = \"kind == 'b2b'\"");
    let toml = configuration(&database, &format!("{events}{}", webhook(&receiver.url())));
    let mut service = Service::start(&toml).await;
    service.wait_for_status("/ready", 200).await;
    let all = "publish = 'insert, update, delete'";
    let cases = [
        (
            String::from("ALTER TABLE o REPLICA IDENTITY DEFAULT"),
            "needs values of the old row",
            String::from("ALTER TABLE o REPLICA IDENTITY FULL"),
        ),
        (
            String::from("ALTER TABLE o RENAME status TO state"),
            "has no column status",
            String::from("ALTER TABLE o RENAME state TO status"),
        ),
        (
            String::from("ALTER TABLE q ALTER kind TYPE int USING 7"),
            "`when` of event q can never be true",
            String::from("ALTER TABLE q ALTER kind TYPE text"),
        ),
        (
            String::from("ALTER PUBLICATION walhook SET (publish = 'insert')"),
            "lacks operations",
            format!("ALTER PUBLICATION walhook SET ({all})"),
        ),
        (
            String::from("ALTER PUBLICATION walhook SET TABLE o WHERE (id > 7), p, q"),
            "holds back rows other than",
            String::from("ALTER PUBLICATION walhook SET TABLE o, p, q"),
        ),
        (
            String::from(
                "ALTER TABLE o REPLICA IDENTITY DEFAULT;
                 ALTER PUBLICATION walhook SET TABLE o (id, status), p, q",
            ),
            "holds back column note",
            String::from(
                "ALTER PUBLICATION walhook SET TABLE o, p, q; ALTER TABLE o REPLICA IDENTITY FULL",
            ),
        ),
        (
            String::from(
                "CREATE TABLE p_2 PARTITION OF p DEFAULT; ALTER TABLE p_2 REPLICA IDENTITY NOTHING",
            ),
            "table public.p_2, a partition of public.p,",
            String::from("ALTER TABLE p_2 REPLICA IDENTITY DEFAULT"),
        ),
        (
            String::from("CREATE UNLOGGED TABLE p_3 PARTITION OF p FOR VALUES FROM (20) TO (30)"),
            "public.p_3 is unlogged",
            String::from("DROP TABLE p_3"),
        ),
    ];
    for (alter, part, mend) in &cases {
        assert_named(&mut service, &sql, alter, part, mend).await;
    }
    sql.batch_execute("INSERT INTO o VALUES (1, 'a', 'b')").await.unwrap();
    receiver.wait_for(1, AMPLE).await;
    service.stop().await;
}
