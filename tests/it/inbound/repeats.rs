//! A callback that comes again: one row, whichever replica it comes to and whoever has died meanwhile.
#![expect(clippy::indexing_slicing, reason = "a test may stop at once")]

use std::net::SocketAddr;

use tokio::task::JoinSet;

use super::*;
use crate::support::service::metric;
use crate::support::wecom::KeptConnection;

/// How often one message comes, half of it before a replica dies and half afterwards.
const REPEATS: u32 = 1_000;
const SENDERS: u32 = 20;

/// The sender's own repeats: signed anew each time, about the same message.
async fn repeat(replicas: [SocketAddr; 2], numbers: std::ops::Range<u32>) {
    let mut senders = JoinSet::new();
    for sender in 0..SENDERS {
        let numbers = numbers.clone().filter(move |number| number % SENDERS == sender);
        senders.spawn(async move {
            let mut connections = replicas.map(KeptConnection::new);
            for (turn, number) in numbers.enumerate() {
                let call = APPLICATION.callback(&text(7), &format!("n{number}"));
                assert_eq!(connections[turn % 2].post(&call).await.unwrap(), 200);
            }
        });
    }
    senders.join_all().await;
}

#[tokio::test]
async fn one_callback_is_one_row_over_two_replicas_and_a_restart() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(SQL).await.unwrap();
    let business = Receiver::start(always(Answer::status(200)));
    let config = of_database(&database, &business.url(), &business.url());
    let mut active = Service::start(&config).await;
    let mut standby = Service::open(&config).await;
    let (first, second) = (inbound(&mut active.program).await, inbound(&mut standby.program).await);
    repeat([first, second], 0..REPEATS / 2).await;
    assert_eq!(count(&sql).await, 1);
    // Somebody else's replay: the very same request.
    let call = APPLICATION.callback(&text(8), "replayed");
    assert_eq!(post(first, &call).await.unwrap(), 200);
    assert_eq!(post(first, &call).await.unwrap(), 401);
    assert_eq!(post(second, &call).await.unwrap(), 401, "at another replica");
    active.program.kill();
    active.program.wait(AMPLE).await;
    let mut again = Service::open(&config).await;
    let third = inbound(&mut again.program).await;
    assert_eq!(post(third, &call).await.unwrap(), 401, "after a restart");
    repeat([second, third], REPEATS / 2..REPEATS).await;
    assert_eq!(count(&sql).await, 2);
    let told = business.wait_for(2, AMPLE).await;
    let mut contents: Vec<_> =
        told.iter().map(|request| request.json()["data"]["content"].to_string()).collect();
    contents.sort();
    contents.dedup();
    assert_eq!(contents, ["\"你好 7\"", "\"你好 8\""]);
    let scrape = standby.get("/metrics").await.body;
    let series = |name: &str, more: &str| {
        metric(&scrape, &format!("walhook_inbound_{name}_total{{{more}source=\"wechat-api\"}}"))
    };
    assert_eq!(series("refused", "reason=\"nonce\","), 1.0);
    assert_eq!(
        series("received", ""),
        series("kept", "") + series("repeats", "") + series("refused", "reason=\"nonce\",")
    );
}

#[tokio::test]
async fn who_dies_between_row_and_answer_makes_no_second_row() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(SQL).await.unwrap();
    let business = Receiver::start(always(Answer::status(200)));
    let config = of_database(&database, &business.url(), &business.url());
    let mut dying = Program::start(
        &["run"],
        &config,
        &[("WALHOOK_FAILPOINT", walhook::testing::failpoint::CALLBACK_KEPT)],
    );
    let at = inbound(&mut dying).await;
    let call = APPLICATION.callback(&text(1), "first");
    assert!(post(at, &call).await.is_err(), "nobody was there to answer");
    assert_eq!(dying.wait(AMPLE).await, None, "killed");
    assert_eq!(count(&sql).await, 1, "it was kept");
    let mut service = Service::start(&config).await;
    let at = inbound(&mut service.program).await;
    // Signed anew, as WeCom repeats it, or the very same request.
    let again = APPLICATION.callback(&text(1), "second");
    assert_eq!(post(at, &again).await.unwrap(), 200);
    assert_eq!(post(at, &call).await.unwrap(), 401);
    assert_eq!(count(&sql).await, 1);
    let told = business.wait_for(1, AMPLE).await;
    assert_eq!(told[0].json()["data"]["content"], "你好 1");
    service.stop().await;
}
