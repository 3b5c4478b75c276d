//! An endpoint whose URL leads elsewhere: what signs goes along, and credentials do not.

use super::*;

#[tokio::test]
async fn credentials_do_not_go_along_to_another_host() {
    let (_database, sql, toml) = set_up("").await;
    let (first, second) = (receiver(), receiver());
    let service = Service::start(&toml).await;
    let document = json!({
        "name": "crm", "url": first.url(), "secret": SECRET,
        "auth": { "bearer": "old-bearer-token" },
        "headers": { "X-Api-Key": "old-api-key", "X-Tenant": "acme" },
    });
    done(&service, "POST", "/api/v1/endpoints", &document).await;
    let path = "/api/v1/endpoints/crm";
    let shown = done(&service, "GET", path, &Value::Null).await["endpoint"].clone();
    let mut moved = shown.clone();
    moved["url"] = json!(second.url());
    let refused = [
        ("PATCH", json!({ "url": second.url() }), vec!["auth.bearer", "headers.X-Api-Key"]),
        ("PUT", moved, vec!["auth.bearer", "headers.X-Api-Key"]),
        ("PATCH", json!({ "url": second.url(), "auth": null }), vec!["headers.X-Api-Key"]),
        (
            "PATCH",
            json!({ "url": second.url(), "headers": { "X-Api-Key": "new" } }),
            vec!["auth.bearer"],
        ),
        (
            "PATCH",
            json!({ "url": first.url().replace("http:", "https:") }),
            vec!["auth.bearer", "headers.X-Api-Key"],
        ),
    ];
    for (method, body, expected) in refused {
        let (status, answer) = call(service.http, method, path, &body).await;
        assert_eq!(status, 422, "{method} {body}: {answer}");
        let errors = answer["errors"].as_array().unwrap_or_else(|| panic!("{answer}"));
        let keys: Vec<_> = errors.iter().map(|error| error["key"].as_str().unwrap()).collect();
        assert_eq!(keys, expected, "{method} {body}");
        assert!(!answer.to_string().contains("old-"), "{answer}");
    }
    // At the same host nothing of that is asked.
    let other_path = json!({ "url": first.url() + "/v2" });
    done(&service, "PATCH", path, &other_path).await;
    done(&service, "PUT", path, &shown).await;
    insert(&sql, 1..=1).await;
    let before = first.wait_for(1, AMPLE).await.remove(0);
    assert_eq!(before.header("authorization"), "Bearer old-bearer-token");
    assert!(before.header("webhook-signature").starts_with("v1,"));
    let anew = json!({
        "url": second.url(), "auth": { "bearer": "new-bearer-token" }, "headers": { "X-Api-Key": null },
    });
    done(&service, "PATCH", path, &anew).await;
    insert(&sql, 2..=2).await;
    let after = second.wait_for(1, AMPLE).await.remove(0);
    assert_eq!(after.header("authorization"), "Bearer new-bearer-token");
    assert!(after.header("webhook-signature").starts_with("v1,"));
    assert_eq!((after.header("x-api-key"), after.header("x-tenant")), ("", "acme"));
}

#[tokio::test]
async fn what_only_signs_goes_along_and_an_issuer_of_tokens_is_a_host_too() {
    let (_database, _sql, toml) = set_up("").await;
    let (first, second) = (receiver(), receiver());
    let service = Service::start(&toml).await;
    let document = json!({ "name": "plain", "url": first.url(), "secret": SECRET });
    done(&service, "POST", "/api/v1/endpoints", &document).await;
    let moved = json!({ "url": second.url() });
    done(&service, "PATCH", "/api/v1/endpoints/plain", &moved).await;

    let oauth = json!({ "oauth2": {
        "token_url": first.url(), "client_id": "me", "client_secret": "old-client-secret",
    } });
    let document = json!({ "name": "oauth", "url": first.url(), "auth": oauth });
    done(&service, "POST", "/api/v1/endpoints", &document).await;
    let path = "/api/v1/endpoints/oauth";
    for body in [
        json!({ "auth": { "oauth2": { "token_url": second.url() } } }),
        json!({ "url": second.url() }),
    ] {
        let (status, answer) = call(service.http, "PATCH", path, &body).await;
        assert_eq!(status, 422, "{body}: {answer}");
        assert_eq!(answer["errors"][0]["key"], "auth.oauth2.client_secret", "{answer}");
    }
    let anew = json!({ "auth": { "oauth2": {
        "token_url": second.url(), "client_secret": "new-client-secret",
    } } });
    done(&service, "PATCH", path, &anew).await;
}
