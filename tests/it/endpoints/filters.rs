//! A filter that somebody makes over the API cannot hurt anybody else.

use super::*;

/// Tenfold with each call: to gigabytes, were it let.
fn growing() -> String {
    format!("size(note{}) > 0", ".replace('x', 'xxxxxxxxxx')".repeat(13))
}

#[tokio::test]
async fn a_filter_that_grows_without_end_is_told_to_its_endpoint_alone() {
    let (_database, sql, toml) = set_up("").await;
    let (healthy, greedy) = (receiver(), receiver());
    let mut service = Service::start(&toml).await;
    let document = json!({ "name": "healthy", "url": healthy.url(), "secret": SECRET });
    done(&service, "POST", "/api/v1/endpoints", &document).await;
    let mut document = json!({ "name": "greedy", "url": greedy.url(), "secret": SECRET });
    document["when"] = json!(growing());
    done(&service, "POST", "/api/v1/endpoints", &document).await;

    sql.batch_execute("INSERT INTO orders VALUES (1, 'x'), (2, 'y'), (3, 'xx')").await.unwrap();
    healthy.wait_for(3, AMPLE).await;
    let mut healthy = ids(&healthy); // of different keys: in any order
    healthy.sort_unstable();
    assert_eq!(healthy, [1, 2, 3]);
    greedy.wait_for(1, AMPLE).await;
    assert_eq!(ids(&greedy), [2]);
    service.wait_for_metric("walhook_dead_letters{endpoint=\"greedy\"}", 2.0).await;
    assert_eq!(service.metric("walhook_dead_letters{endpoint=\"healthy\"}").await, 0.0);
    wait_for_text(&sql, "SELECT count(*) FROM walhook.dead_letters", "2").await;
    let letters = done(&service, "GET", "/api/v1/dead-letters", &Value::Null).await;
    let letter = &letters["dead_letters"][0];
    assert!(letter["reason"].as_str().unwrap().contains("simplify `when`"), "{letter}");
    assert!(log(&service).contains("takes more steps or memory"), "{}", log(&service));
    let memory = service.metric("process_resident_memory_bytes").await;
    assert!(memory < 300e6, "{memory}");

    // Once the filter is mended, what was set aside can be sent.
    let document = json!({ "when": "note != ''" });
    done(&service, "PATCH", "/api/v1/endpoints/greedy", &document).await;
    let all = json!({ "endpoint": "greedy" });
    done(&service, "POST", "/api/v1/dead-letters/resend", &all).await;
    greedy.wait_for(3, AMPLE).await;
    let mut sent = ids(&greedy);
    sent.sort_unstable();
    assert_eq!(sent, [1, 2, 3]);
    for entry in ["delivered", "dead", "pending"] {
        let series = format!(
            "walhook_balance{{endpoint=\"greedy\",entry=\"{entry}\",table=\"public.orders\"}}"
        );
        service.wait_for_metric(&series, if entry == "delivered" { 3.0 } else { 0.0 }).await;
    }
    service.stop().await;
}

#[tokio::test]
async fn a_filter_that_is_too_much_for_every_row_is_refused() {
    let (_database, _sql, toml) = set_up("").await;
    let service = Service::start(&toml).await;
    let constant = growing().replace("note", "'x'");
    let document = json!({ "name": "greedy", "url": "https://a.test/", "when": constant });
    let (status, answer) = call(service.http, "POST", "/api/v1/endpoints", &document).await;
    assert_eq!(status, 422, "{answer}");
    assert!(answer.to_string().contains("16 MiB"), "{answer}");
}

#[tokio::test]
async fn an_events_own_filter_that_is_too_much_is_told_to_all_its_endpoints() {
    let receiver = receiver();
    let endpoint = format!("[[endpoint]]\nname = \"crm\"\nurl = \"{}\"\n", receiver.url());
    let (_database, sql, toml) = set_up(&endpoint).await;
    let when = format!("table = \"public.orders\"\non = [\"insert\"]\nwhen = \"{}\"", growing());
    let service = Service::start(&toml.replace("table = \"public.orders\"", &when)).await;
    sql.batch_execute("INSERT INTO orders VALUES (1, 'x'), (2, 'y')").await.unwrap();
    receiver.wait_for(1, AMPLE).await;
    assert_eq!(ids(&receiver), [2]);
    service.wait_for_metric("walhook_dead_letters{endpoint=\"crm\"}", 1.0).await;
}
