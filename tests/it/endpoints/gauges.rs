//! Gauges of dead letters and of the books follow the tables when an endpoint goes and comes back.

use serde_json::Value;
use serde_json::json;

use super::call;
use super::done;
use super::insert;
use super::receiver;
use super::set_up;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::Service;

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
