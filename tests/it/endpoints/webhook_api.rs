//! The calls of wechat-messages, with `config/wechat-messages.toml` and its SQL.

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

/// The file as it stands, but for the database, the slot, a free port, the key and loopback.
fn toml(database: &Database) -> String {
    let toml = CONFIG
        .replace("${DATABASE_URL:-postgres://walhook@localhost/app}", &database.url())
        .replace("slot = \"wechat_messages\"", &format!("slot = \"{}\"", slot(database)))
        .replace("{ env = \"WALHOOK_KEY\" }", &one(KEY));
    format!("{toml}\n[http]\nlisten = \"127.0.0.1:0\"\n[endpoints]\nallow = [\"127.0.0.0/8\"]\n")
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
    let toml = toml(&database);
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
    let [tested] = report["data"].as_array().unwrap().as_slice() else { panic!("{report}") };
    assert_eq!(report["success"], true);
    assert_eq!((&tested["delivered"], &tested["status"]), (&json!(true), &json!(200)));
    assert_eq!(tested["Name"], made["data"]["Name"]);
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

#[tokio::test]
async fn the_same_url_changes_its_webhook_and_a_test_without_a_name_tests_all() {
    let database = Database::create().await;
    database.sql().await.batch_execute(SQL).await.unwrap();
    let (good, bad) = (receiver(), receiver());
    bad.behave(always(Answer::status(500)));
    let service = Service::start(&toml(&database)).await;
    let none = done(&service, "GET", "/v1/webhook/Test", &Value::Null).await;
    assert_eq!(none, json!({ "success": true, "data": [] }));

    let first =
        json!({ "URL": good.url(), "Secret": "a secret", "MessageTypes": ["1"], "Timeout": 7 });
    let first = done(&service, "POST", "/v1/webhook/Config", &first).await;
    // What the second one does not say stays; the URL may be written in another way.
    let other_way = good.url().replace("http://", "HTTP://");
    let second = json!({ "URL": other_way, "MessageTypes": ["3"], "RetryCount": 1 });
    let second = done(&service, "POST", "/v1/webhook/Config", &second).await;
    assert_eq!(second["data"]["Name"], first["data"]["Name"]);
    let expected = (&json!("[secret]"), &json!(7), &json!(1), &json!(["3"]));
    let data = &second["data"];
    let shown = (&data["Secret"], &data["Timeout"], &data["RetryCount"], &data["MessageTypes"]);
    assert_eq!(shown, expected, "{second}");
    let renamed = json!({ "URL": good.url(), "Name": "another" });
    let (status, said) = call(service.http, "POST", "/v1/webhook/Config", &renamed).await;
    let detail = said["detail"].as_str().unwrap();
    assert!(status == 409 && detail.contains(first["data"]["Name"].as_str().unwrap()), "{said}");

    let named = json!({ "URL": bad.url(), "Name": "bad" });
    done(&service, "POST", "/v1/webhook/Config", &named).await;
    let list = done(&service, "GET", "/v1/webhook/List", &Value::Null).await;
    assert_eq!(list["data"].as_array().unwrap().len(), 2, "{list}");
    let all = done(&service, "GET", "/v1/webhook/Test", &Value::Null).await;
    let reports = all["data"].as_array().unwrap();
    let of = |name: &Value| reports.iter().find(|report| report["Name"] == *name).unwrap();
    assert_eq!((&all["success"], reports.len()), (&json!(true), 2), "{all}");
    assert_eq!(of(&first["data"]["Name"])["delivered"], true, "{all}");
    let refused = of(&json!("bad"));
    assert_eq!((&refused["delivered"], &refused["status"]), (&json!(false), &json!(500)));
    let one = done(&service, "GET", "/v1/webhook/Test?Name=bad", &Value::Null).await;
    assert_eq!((&one["success"], &one["data"]["status"]), (&json!(true), &json!(500)), "{one}");
    let (status, _) = call(service.http, "GET", "/v1/webhook/Test?Name=nobody", &Value::Null).await;
    assert_eq!(status, 404);
}
