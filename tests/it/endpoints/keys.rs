//! Secrets: sealed with the key that there is, opened with it only, and replaced while they sign.

use super::*;

#[tokio::test]
async fn without_a_key_no_secret_is_saved() {
    let (database, _sql, _) = set_up("").await;
    let receiver = receiver();
    let service = Service::start(&toml(&database, "", "")).await;
    let document = json!({ "name": "crm", "url": receiver.url(), "secret": SECRET });
    let (status, answer) = call(service.http, "POST", "/api/v1/endpoints", &document).await;
    assert_eq!(status, 409, "{answer}");
    assert!(answer["detail"].as_str().unwrap().contains("openssl rand -base64 32"), "{answer}");
    let document = json!({ "name": "crm", "url": receiver.url() });
    done(&service, "POST", "/api/v1/endpoints", &document).await;
}

#[tokio::test]
async fn another_key_is_refused_at_the_start_and_the_old_one_beside_it_seals_anew() {
    let (database, sql, first) = set_up("").await;
    let receiver = receiver();
    let mut service = Service::start(&first).await;
    let document = json!({ "name": "crm", "url": receiver.url(), "secret": SECRET });
    done(&service, "POST", "/api/v1/endpoints", &document).await;
    service.stop().await;

    for command in ["check", "run"] {
        let other = toml(&database, &one(OTHER_KEY), "");
        let mut refused = Program::start(&[command], &other, &[]);
        assert_eq!(refused.wait(AMPLE).await, Some(1), "{command}");
        let output = refused.output().join("\n");
        let says = "secrets of endpoint crm were sealed with key";
        assert!(output.contains(says), "{command}: {output}");
    }

    let sealed = "SELECT encode(sealed_secrets, 'hex') FROM walhook.endpoints";
    let before = sql.text(sealed).await;
    let both = format!("[\"{OTHER_KEY}\", \"{KEY}\"]");
    let mut service = Service::start(&toml(&database, &both, "")).await;
    let deadline = Instant::now() + AMPLE;
    while sql.text(sealed).await == before {
        assert!(Instant::now() < deadline, "not sealed anew:\n{}", log(&service));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    service.stop().await;
    let _service = Service::start(&toml(&database, &one(OTHER_KEY), "")).await;
    insert(&sql, 1..=1).await;
    let requests = receiver.wait_for(1, AMPLE).await;
    assert!(requests[0].header("webhook-signature").starts_with("v1,"));
}

#[tokio::test]
async fn while_a_secret_is_replaced_both_sign_and_then_the_new_one_alone() {
    let (_database, sql, toml) = set_up("").await;
    let receiver = receiver();
    let mut service = Service::start(&toml).await;
    let document = json!({ "name": "crm", "url": receiver.url(), "secret": SECRET });
    done(&service, "POST", "/api/v1/endpoints", &document).await;
    let path = "/api/v1/endpoints/crm/rotate-secret";
    let answer = done(&service, "POST", path, &json!({ "overlap": "2s" })).await;
    assert!(answer["secret"].as_str().unwrap().starts_with("whsec_"), "{answer}");
    // Also when walhook is started again meanwhile, and another rotation follows.
    service.stop().await;
    let service = Service::start(&toml).await;
    done(&service, "POST", path, &json!({ "overlap": "1h" })).await;
    insert(&sql, 1..=1).await;
    let signatures = |at: usize| {
        let signature = receiver.requests()[at].header("webhook-signature").to_owned();
        signature.split(' ').count()
    };
    receiver.wait_for(1, AMPLE).await;
    assert!((2..=3).contains(&signatures(0)), "{}", signatures(0));
    let shown = || done(&service, "GET", "/api/v1/endpoints/crm", &Value::Null);
    let deadline = Instant::now() + AMPLE;
    while shown().await["previous_secrets_until"].as_array().unwrap().len() > 1 {
        assert!(Instant::now() < deadline, "{}", log(&service));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    insert(&sql, 2..=2).await;
    receiver.wait_for(2, AMPLE).await;
    assert_eq!(signatures(1), 2, "the first has expired, the second has not");
}
