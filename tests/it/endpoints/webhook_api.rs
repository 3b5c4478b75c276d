//! Contract 4's calls, with `config/wechat-messages.toml` and its SQL.

use ring::hmac;

use super::*;
use crate::support::receiver::Request;
use crate::support::service::slot;

const CONFIG: &str = include_str!("../../../config/wechat-messages.toml");
const SQL: &str = include_str!("../../../sql/wechat-messages.sql");

/// `X-Webhook-Signature: <hex of the HMAC-SHA256 of "timestamp:body">`.
fn is_signed(request: &Request, secret: &str) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let mut text = format!("{}:", request.header("x-webhook-timestamp")).into_bytes();
    text.extend_from_slice(&request.body);
    let hex: String =
        hmac::sign(&key, &text).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    request.header("x-webhook-signature") == hex
}

async fn message(sql: &Sql, id: i64, kind: i32, own: bool) {
    sql.batch_execute(&format!(
        "INSERT INTO messages (key, msg_id, from_user, to_user, msg_type, content, is_self_msg,
                               create_time)
         VALUES ('wxid_a', {id}, 'wxid_b', 'wxid_c', {kind}, '\"hello\"', {own}, now())"
    ))
    .await
    .unwrap();
}

fn kinds(receiver: &Receiver) -> Vec<i64> {
    let kind = |request: Request| request.json()["msgType"].as_i64().unwrap();
    receiver.requests().into_iter().map(kind).collect()
}

#[tokio::test]
async fn a_client_of_the_contract_makes_lists_tests_and_updates_its_webhook() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(SQL).await.unwrap();
    let receiver = receiver();
    // Without the endpoint that an operator may write.
    let (config, _) = CONFIG.split_once("[[endpoint]]").unwrap();
    let toml = config
        .replace("${DATABASE_URL:-postgres://walhook@localhost/app}", &database.url())
        .replace("slot = \"wechat_messages\"", &format!("slot = \"{}\"", slot(&database)));
    let toml = format!(
        "{toml}\n[state]\nkey = \"{KEY}\"\n[http]\nlisten = \"127.0.0.1:0\"\n\
         [endpoints]\nallow = [\"127.0.0.0/8\"]\n"
    );
    let service = Service::start(&toml).await;
    let secret = "a secret of the contract";
    let config = json!({
        "URL": receiver.url(), "Secret": secret, "Enabled": true, "Timeout": 3, "RetryCount": 2,
        "MessageTypes": ["1", "3"], "IncludeSelfMessage": false,
    });
    let made = done(&service, "POST", "/v1/webhook/Config", &config).await;
    assert_eq!(made["success"], true, "{made}");
    assert_eq!(made["data"]["Secret"], "[secret]");

    message(&sql, 1, 49, false).await;
    message(&sql, 2, 1, true).await;
    message(&sql, 3, 3, false).await;
    let requests = receiver.wait_for(1, AMPLE).await;
    assert_eq!(kinds(&receiver), [3]);
    assert!(is_signed(&requests[0], secret));
    assert_eq!(requests[0].json()["msgId"], "3");

    let list = done(&service, "GET", "/v1/webhook/List", &Value::Null).await;
    let [shown] = list["data"].as_array().unwrap().as_slice() else { panic!("{list}") };
    for (field, expected) in [
        // A path can be a secret.
        ("URL", json!(receiver.url().replace("/hooks", "/[secret]"))),
        ("Secret", json!("[secret]")),
        ("Enabled", json!(true)),
        ("Timeout", json!(3)),
        ("RetryCount", json!(2)),
        ("MessageTypes", json!(["1", "3"])),
        ("IncludeSelfMessage", json!(false)),
    ] {
        assert_eq!(shown[field], expected, "{field}");
    }

    let report = done(&service, "GET", "/v1/webhook/Test", &Value::Null).await;
    assert_eq!((&report["delivered"], &report["status"]), (&json!(true), &json!(200)));
    let tested = receiver.wait_for(2, AMPLE).await;
    assert!(is_signed(&tested[1], secret));
    assert_eq!(tested[1].json()["msgType"], 1);

    // Only 200 counts, and RetryCount retries follow.
    receiver.behave(always(Answer::status(201)));
    let update =
        json!({ "URL": receiver.url(), "MessageTypes": ["49"], "IncludeSelfMessage": true });
    let updated = done(&service, "PUT", "/v1/webhook/Update", &update).await;
    assert_eq!(
        (&updated["data"]["RetryCount"], &updated["data"]["Timeout"]),
        (&json!(2), &json!(3))
    );
    message(&sql, 4, 1, false).await;
    message(&sql, 5, 49, true).await;
    let requests = receiver.wait_for(5, AMPLE).await;
    assert_eq!(kinds(&receiver)[2..], [49, 49, 49]);
    assert!(requests.iter().all(|request| is_signed(request, secret)), "it kept its secret");
    wait_for_text(&sql, "SELECT count(*) FROM walhook.dead_letters", "1").await;

    let bad = json!({ "URL": "ftp://x", "RetryCount": "3" });
    let (status, answer) = call(service.http, "POST", "/v1/webhook/Config", &bad).await;
    assert_eq!((status, &answer["errors"][0]["key"]), (422, &json!("RetryCount")));
}
