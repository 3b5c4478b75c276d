//! Endpoints come and go beside one that is at work: it hears nothing of it.

use super::*;

/// Changes of each key.
const VERSIONS: i64 = 40;
const KEYS: i64 = 25;

#[tokio::test]
async fn others_lose_nothing_and_keep_their_order_while_endpoints_come_and_go() {
    let steady = receiver();
    let rest =
        format!("[[endpoint]]\nname = \"steady\"\nurl = \"{}\"\nconcurrency = 8\n", steady.url());
    let (_database, sql, toml) = set_up(&rest).await;
    sql.batch_execute("ALTER TABLE orders ADD version int NOT NULL DEFAULT 0").await.unwrap();
    let service = Service::start(&toml).await;
    let dead = Receiver::start(always(Answer::status(503)));
    let others = receiver();
    insert(&sql, 1..=i32::try_from(KEYS).unwrap()).await;
    let write = async {
        for version in 1..=VERSIONS {
            sql.batch_execute(&format!("UPDATE orders SET version = {version}")).await.unwrap();
        }
    };
    let come_and_go = async {
        for round in 0..12 {
            let url = if round % 3 == 0 { dead.url() } else { others.url() };
            let document = json!({ "name": format!("guest-{round}"), "url": url });
            done(&service, "POST", "/api/v1/endpoints", &document).await;
            let path = format!("/api/v1/endpoints/guest-{round}");
            let patch = json!({ "concurrency": 5, "ordering": "strict" });
            done(&service, "PATCH", &path, &patch).await;
            done(&service, "POST", &format!("{path}/disable"), &Value::Null).await;
            done(&service, "POST", &format!("{path}/enable"), &Value::Null).await;
            done(&service, "DELETE", &path, &Value::Null).await;
        }
    };
    tokio::join!(write, come_and_go);
    let all = usize::try_from(KEYS * (VERSIONS + 1)).unwrap();
    let requests = steady.wait_for(all, AMPLE).await;
    let mut seen = std::collections::HashMap::<i64, Vec<i64>>::new();
    for request in requests {
        let row = &request.json()["data"];
        seen.entry(row["id"].as_i64().unwrap()).or_default().push(row["version"].as_i64().unwrap());
    }
    for (key, versions) in seen {
        assert!(versions.iter().copied().eq(0..=VERSIONS), "key {key}: {versions:?}");
    }
    // The books of everybody, also of those who have gone, come to zero.
    wait_for_text(&sql, "SELECT count(*) FROM walhook.balance WHERE pending <> 0", "0").await;
    let captured = "SELECT captured = delivered FROM walhook.books WHERE endpoint = 'steady'";
    wait_for_text(&sql, captured, "t").await;
    wait_for_text(&sql, "SELECT count(*) FROM walhook.endpoints", "0").await;
    wait_for_text(&sql, "SELECT count(*) FROM walhook.backlog", "0").await;
}
