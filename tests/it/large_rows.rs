//! A large row waits for nobody who is down: what an endpoint in trouble holds in memory is in the
//! backlog as well, and is given back.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

use std::time::Duration;

use crate::support::postgres::Database;
use crate::support::postgres::wait_for_text;
use crate::support::receiver::Answer;
use crate::support::receiver::Behaviour;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;

/// Rows of 4 KB, of which the endpoint in trouble holds as many as it may.
const SMALL: usize = 4000;

async fn large_rows_pass_beside(name: &str, trouble: Behaviour, recovers: bool) {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(
        "CREATE TABLE t (id int PRIMARY KEY, v text); ALTER TABLE t ALTER v SET STORAGE EXTERNAL",
    )
    .await
    .unwrap();
    let healthy = Receiver::start_forgetful(always(Answer::status(200)));
    let troubled = Receiver::start_forgetful(trouble);
    let rest = format!(
        "[[event]]\ntype = \"t\"\ntable = \"public.t\"\n\n\
         [webhook]\ntimeout = \"1h\"\nmax_retries = 100\nretry_interval = \"10s\"\n\
         breaker = {{ failures = 3, cooldown = \"100ms\", cap = \"200ms\" }}\n\n\
         [shutdown]\ngrace = \"1s\"\n\n\
         [[endpoint]]\nname = \"good\"\nurl = \"{}\"\nevents = [\"t\"]\nconcurrency = 8\n\n\
         [[endpoint]]\nname = \"bad\"\nurl = \"{}\"\nevents = [\"t\"]\nconcurrency = 3\n",
        healthy.url(),
        troubled.url()
    );
    let mut service = Service::start(&configuration(&database, &rest)).await;
    let insert = format!(
        "INSERT INTO t SELECT n, repeat(md5(n::text), 125) FROM generate_series(1, {SMALL}) n"
    );
    sql.batch_execute(&insert).await.unwrap();
    healthy.wait_for(SMALL, AMPLE).await;
    // 13 MB, the whole budget, and more than that.
    for (id, megabytes) in [(SMALL + 1, 13), (SMALL + 2, 16), (SMALL + 3, 40)] {
        let insert = format!("INSERT INTO t SELECT {id}, repeat('0123456789', {megabytes}00000)");
        sql.batch_execute(&insert).await.unwrap();
    }
    sql.batch_execute("INSERT INTO t VALUES (0, 'small')").await.unwrap();
    healthy.wait_for(SMALL + 4, AMPLE).await;
    assert_eq!(service.get("/ready").await.status, 200, "case: {name}");
    if recovers {
        troubled.behave(always(Answer::status(200)));
        let pending = "SELECT sum(pending) FROM walhook.balance WHERE endpoint = 'bad'";
        wait_for_text(&sql, pending, "0").await;
        wait_for_text(&sql, "SELECT count(*) FROM walhook.backlog", "0").await;
    }
    service.stop().await;
    drop(service);
}

#[tokio::test]
async fn large_rows_pass_beside_an_endpoint_that_is_dead() {
    large_rows_pass_beside("dead", always(Answer::Close), true).await;
}

#[tokio::test]
async fn large_rows_pass_beside_an_endpoint_that_hangs() {
    large_rows_pass_beside("hanging", always(Answer::Hang), false).await;
}

/// Each with a large row of its own on its way: together they have all that large rows may have.
#[tokio::test]
async fn large_rows_pass_beside_endpoints_that_hang_with_one_each() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(
        "CREATE TABLE t (id int PRIMARY KEY, v text); ALTER TABLE t ALTER v SET STORAGE EXTERNAL",
    )
    .await
    .unwrap();
    let healthy = Receiver::start_forgetful(always(Answer::status(200)));
    let hanging = Receiver::start_forgetful(always(Answer::Hang));
    let endpoint = |name: &str, receiver: &Receiver, rest: &str| {
        let url = receiver.url();
        format!("[[endpoint]]\nname = \"{name}\"\nurl = \"{url}\"\nevents = [\"t\"]\n{rest}\n")
    };
    let hang = |n: usize| {
        endpoint(
            &format!("bad{n}"),
            &hanging,
            &format!("when = \"id % 3 == {n}\"\ntimeout = \"1h\""),
        )
    };
    let rest = format!(
        "[[event]]\ntype = \"t\"\ntable = \"public.t\"\n\n[shutdown]\ngrace = \"1s\"\n\n{}{}",
        endpoint("good", &healthy, ""),
        (0..3).map(hang).collect::<String>()
    );
    let mut service = Service::start(&configuration(&database, &rest)).await;
    for id in 1..=4 {
        let insert = format!("INSERT INTO t SELECT {id}, repeat('0123456789', 1300000)");
        sql.batch_execute(&insert).await.unwrap();
    }
    sql.batch_execute("INSERT INTO t VALUES (5, 'small')").await.unwrap();
    healthy.wait_for(5, AMPLE).await;
    let charged = "SELECT count(*) FROM walhook.push_log WHERE failure_class <> 'local'";
    assert_eq!(sql.text(charged).await, "0", "no retry is spent");
    service.stop().await;
}

#[tokio::test]
async fn large_rows_pass_beside_an_endpoint_that_is_slow() {
    let slow = Answer::status(200).after(Duration::from_secs(5));
    large_rows_pass_beside("slow", always(slow), false).await;
}
