//! `walhook status` and its like: what is not well is told with its why, and by an address alone.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

use std::sync::Arc;

use rustix::process::Signal;

use crate::support::postgres::Database;
use crate::support::postgres::wait_for_text;
use crate::support::program::Program;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;

const EXACT: &str = "12345678901234567890.1234567890";

async fn service(url: &str, rest: &str) -> (Database, Service) {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute("CREATE TABLE t (id int PRIMARY KEY, total numeric)").await.unwrap();
    let toml = format!(
        "[[event]]\ntype = \"t\"\ntable = \"public.t\"\n\n[[endpoint]]\nname = \"crm\"\n\
         url = \"{url}\"\npark_after = \"0s\"\nretry = {{ delays = [\"1h\"] }}\n\
         breaker = {{ failures = 1, cooldown = \"1h\", cap = \"1h\" }}\n{rest}"
    );
    let service = Service::start(&configuration(&database, &toml)).await;
    (database, service)
}

#[tokio::test]
async fn the_status_says_what_is_not_well_since_when_why_and_what_to_do() {
    let receiver = Receiver::start(always(Answer::status(503)));
    let (database, mut service) = service(&receiver.url(), "").await;
    let (code, screen) = service.cli(&["status"]).await;
    assert_eq!(code, Some(0), "{screen}");
    assert!(
        screen.contains("is well: active") && screen.contains("1 delivering, 0 not"),
        "{screen}"
    );

    let sql = database.sql().await;
    sql.batch_execute("INSERT INTO t VALUES (1), (2)").await.unwrap();
    service.wait_for_metric("walhook_breaker_open{endpoint=\"crm\"}", 1.0).await;
    wait_for_text(&sql, "SELECT count(*) FROM walhook.backlog", "2").await;
    let (code, screen) = service.cli(&["status"]).await;
    assert_eq!(code, Some(1), "{screen}");
    for part in [
        "NOT WELL",
        "endpoint crm: out of order",
        "push-log --endpoint crm",
        "since 20",
        "oldest event 20",
        "next attempt 20",
        "status",
        "Dead letters: 0",
    ] {
        assert!(screen.contains(part), "{part:?} is not in\n{screen}");
    }
    let (code, json) = service.cli(&["status", "--json"]).await;
    assert_eq!(code, Some(1), "{json}");
    assert!(json.contains("\"healthy\":false"), "{json}");
    let (code, listed) = service.cli(&["endpoints", "list"]).await;
    assert_eq!(code, Some(0), "{listed}");
    assert!(listed.contains("out of order, 2 waiting"), "{listed}");
    service.stop().await;
}

#[tokio::test]
async fn a_status_that_is_watched_is_shown_again_until_it_is_left() {
    let receiver = Receiver::start(always(Answer::status(503)));
    let (database, mut service) = service(&receiver.url(), "").await;
    let url = format!("http://{}", service.http);
    let mut watched = Program::start(&["status", "--watch", "--url", &url], "", &[]);
    watched.wait_for_line("is well: active", AMPLE).await;
    let sql = database.sql().await;
    sql.batch_execute("INSERT INTO t VALUES (1), (2)").await.unwrap();
    watched.wait_for_line("NOT WELL", AMPLE).await;
    service.stop().await;
    // It goes on when nobody answers, and says so.
    watched.wait_for_line("no walhook answers", AMPLE).await;
    watched.signal(Signal::INT);
    assert_ne!(watched.wait(AMPLE).await, Some(0));
}

#[tokio::test]
async fn whoever_asks_needs_the_address_alone_and_is_told_of_a_slip() {
    let receiver = Receiver::start(always(Answer::status(200)));
    let (_database, service) = service(&receiver.url(), "").await;
    // The rest of the file cannot be read without its variables.
    let toml = format!(
        "[postgres]\nurl = \"${{NO_SUCH_VARIABLE}}\"\n[http]\nlisten = \"{}\"\n",
        service.http
    );
    for command in ["dead-letters", "push-log", "status", "endpoints"] {
        let mut program = Program::start(&[command], &toml, &[]);
        let code = program.wait(AMPLE).await;
        assert_eq!(code, Some(0), "case: {command}: {}", program.output().join("\n"));
    }
    let slips = [
        (["dead-letters", "list", "--endpoint", "crn"], "did you mean crm?"),
        (["dead-letters", "discard", "--endpoint", "nobody"], "known are crm"),
        (["dead-letters", "resend", "--type", "order"], "known are t"),
        (["dead-letters", "list", "--type", "order"], "known are t"),
        (["push-log", "--limit", "3", "--endpoint=crn"], "did you mean crm?"),
        (["push-log", "--limit", "3", "--type=order"], "known are t"),
        (["replay", "--dry-run", "--type", "order"], "known are t"),
        (["dead-letters", "list", "--class", "poisn"], "did you mean poison?"),
        (["dead-letters", "list", "--state", "ded"], "did you mean dead?"),
        (["push-log", "--limit", "3", "--class=timout"], "did you mean timeout?"),
        (["push-log", "--limit", "3", "--outcome=deliverd"], "did you mean delivered?"),
    ];
    for (arguments, told) in slips {
        let (code, said) = service.cli(&arguments).await;
        assert_eq!(code, Some(2), "case: {arguments:?}: {said}");
        assert!(said.contains(told), "case: {arguments:?}: {said}");
    }
}

#[tokio::test]
async fn a_dead_letter_is_shown_as_it_would_be_sent() {
    let receiver = Receiver::start(always(Answer::status(400)));
    let (database, service) = service(&receiver.url(), "").await;
    let sql = database.sql().await;
    sql.batch_execute(&format!("INSERT INTO t VALUES (1, {EXACT})")).await.unwrap();
    wait_for_text(&sql, "SELECT count(*) FROM walhook.dead_letters", "1").await;
    let id = sql.text("SELECT id FROM walhook.dead_letters").await;
    for arguments in
        [vec!["dead-letters", "show", &id], vec!["dead-letters", "show", &id, "--json"]]
    {
        let (code, shown) = service.cli(&arguments).await;
        assert_eq!(code, Some(0), "{shown}");
        assert!(shown.contains(&format!("\"total\":{EXACT}")), "{shown}");
    }
    let answer = service.get(&format!("/api/v1/dead-letters/{id}")).await.body;
    assert!(answer.contains(&format!("\"total\":{EXACT}")), "{answer}");
}

#[tokio::test]
async fn the_push_log_keeps_what_it_is_told_to() {
    for (attempts, outcomes, expected) in
        [("all", "all", "2"), ("failures", "failures", "1"), ("off", "all", "0")]
    {
        let receiver = Receiver::start(Arc::new(|request| {
            let is_bad = String::from_utf8_lossy(&request.body).contains("\"id\":1");
            Answer::status(if is_bad { 400 } else { 200 })
        }));
        let rest = format!("[push_log]\nattempts = \"{attempts}\"\n");
        let (database, service) = service(&receiver.url(), &rest).await;
        let sql = database.sql().await;
        sql.batch_execute("INSERT INTO t VALUES (1), (2)").await.unwrap();
        wait_for_text(&sql, "SELECT count(*) FROM walhook.dead_letters", "1").await;
        service.wait_for_metric("walhook_replication_lag_seconds", 0.0).await;
        wait_for_text(&sql, "SELECT sum(delivered) FROM walhook.balance", "1").await;
        let rows = sql.text("SELECT count(*) FROM walhook.push_log").await;
        assert_eq!(rows, expected, "case: {attempts} {outcomes}");
    }
}
