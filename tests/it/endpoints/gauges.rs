//! Gauges of dead letters and of the books follow the tables when an endpoint goes and comes back.

use serde_json::Value;
use serde_json::json;

use super::call;
use super::done;
use super::insert;
use super::receiver;
use super::set_up;
use crate::support::postgres::wait_for_text;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::ask;

const LETTERS: &str = "walhook_dead_letters{endpoint=\"crm\"}";

fn balance(entry: &str) -> String {
    format!("walhook_balance{{endpoint=\"crm\",entry=\"{entry}\",table=\"public.orders\"}}")
}

#[tokio::test]
async fn an_endpoint_that_comes_back_goes_on_with_its_letters_and_books() {
    let (_database, sql, toml) = set_up("").await;
    let mut service = Service::start(&toml).await;
    let refuses = Receiver::start(always(Answer::status(400)));
    let crm = json!({ "name": "crm", "url": refuses.url() });
    done(&service, "POST", "/api/v1/endpoints", &crm).await;
    insert(&sql, 1..=20).await;
    service.wait_for_metric(LETTERS, 20.0).await;
    call(service.http, "DELETE", "/api/v1/endpoints/crm", &Value::Null).await;
    service.wait_for_status("/api/v1/endpoints/crm", 404).await;
    let takes = receiver();
    let crm = json!({ "name": "crm", "url": takes.url() });
    done(&service, "POST", "/api/v1/endpoints", &crm).await;
    assert_eq!(service.metric(LETTERS).await, 20.0, "they are kept: {}", super::log(&service));
    assert_eq!(service.metric(&balance("dead")).await, 20.0);
    service.stop().await;
}

/// Whatever is done to the letters, in SQL and over the API, while their endpoint is there, gone, or there
/// again: the gauge comes to what the table holds, and never goes below nothing.
#[tokio::test]
async fn the_gauge_of_letters_follows_the_table_whoever_changes_it() {
    let (_database, sql, toml) = set_up("").await;
    let mut service = Service::start(&toml).await;
    let refuses = Receiver::start(always(Answer::status(400)));
    let crm = json!({ "name": "crm", "url": refuses.url() });
    done(&service, "POST", "/api/v1/endpoints", &crm).await;
    insert(&sql, 1..=20).await;
    service.wait_for_metric(LETTERS, 20.0).await;
    // The gauge runs ahead of the table.
    wait_for_text(&sql, "SELECT count(*) FROM walhook.dead_letters", "20").await;
    let watch = |http| async move {
        loop {
            if let Ok(reply) = ask(http, "GET", "/metrics", None).await {
                let found = reply.body.lines().filter_map(|line| line.strip_prefix(LETTERS));
                for value in found.filter_map(|value| value.trim().parse::<f64>().ok()) {
                    assert!(value >= 0.0, "{value} letters");
                }
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let mut watched = tokio::task::JoinSet::new();
    watched.spawn(watch(service.http));

    let discard = |ids: &str| {
        format!(
            "UPDATE walhook.dead_letters SET state = 'discarded', closed_at = now()
              WHERE row_key::int IN ({ids})"
        )
    };
    sql.batch_execute(&discard("1, 2, 3")).await.unwrap();
    service.wait_for_metric(LETTERS, 17.0).await;
    call(service.http, "DELETE", "/api/v1/endpoints/crm", &Value::Null).await;
    service.wait_for_status("/api/v1/endpoints/crm", 404).await;
    sql.batch_execute(&discard("4, 5")).await.unwrap();
    let takes = receiver();
    let crm = json!({ "name": "crm", "url": takes.url(), "timeout": "80s" });
    done(&service, "POST", "/api/v1/endpoints", &crm).await;
    service.wait_for_metric(LETTERS, 15.0).await;
    let all = json!({ "endpoint": "crm", "key": "6" });
    call(service.http, "POST", "/api/v1/dead-letters/discard", &all).await;
    service.wait_for_metric(LETTERS, 14.0).await;
    sql.batch_execute("UPDATE walhook.dead_letters SET state = 'requested' WHERE row_key = '7'")
        .await
        .unwrap();
    service.wait_for_metric(LETTERS, 13.0).await;
    let one = json!({ "endpoint": "crm", "key": "8" });
    call(service.http, "POST", "/api/v1/dead-letters/resend", &one).await;
    service.wait_for_metric(LETTERS, 12.0).await;

    // Deleted under way: what is delivered then is not counted any more.
    takes.behave(always(Answer::status(200).after(std::time::Duration::from_secs(45))));
    let before = takes.count();
    sql.batch_execute("UPDATE walhook.dead_letters SET state = 'requested' WHERE row_key = '9'")
        .await
        .unwrap();
    takes.wait_for(before + 1, AMPLE).await;
    sql.batch_execute("DELETE FROM walhook.dead_letters").await.unwrap();
    service.wait_for_metric(LETTERS, 0.0).await;
    let pending = "SELECT coalesce(sum(pending), 0) FROM walhook.balance";
    wait_for_text(&sql, pending, "0").await;
    service.wait_for_metric(LETTERS, 0.0).await;
    assert!(watched.try_join_next().is_none(), "the gauge went below nothing");
    service.stop().await;
}
