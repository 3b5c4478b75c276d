#![expect(clippy::print_stdout, reason = "it shows what it has taken")]

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, http::StatusCode, routing::post};
use serde_json::Value;
use standardwebhooks::Webhook;

/// In earnest the ids are a table, written in the transaction of the work.
type Seen = Arc<Mutex<HashSet<String>>>;

async fn receive(
    State((webhook, seen)): State<(Arc<Webhook>, Seen)>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    if webhook.verify(&body, &headers).is_err() {
        return StatusCode::UNAUTHORIZED;
    }
    let Ok(events) = serde_json::from_slice::<Value>(&body) else { return StatusCode::BAD_REQUEST };
    let events = events.as_array().cloned().unwrap_or_else(|| vec![events]);
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let ids = header("walhook-event-ids").or(header("webhook-id")).unwrap_or_default();
    let Ok(mut seen) = seen.lock() else { return StatusCode::INTERNAL_SERVER_ERROR };
    for (id, event) in ids.split(',').map(str::trim).zip(events) {
        if seen.insert(id.to_owned()) {
            let kind = event.get("type").and_then(Value::as_str).unwrap_or_default();
            println!("accepted {id} {kind}");
        }
    }
    StatusCode::OK
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let webhook = Arc::new(Webhook::new(&std::env::var("SECRET")?)?);
    let port = std::env::var("PORT").unwrap_or_else(|_| String::from("9999"));
    let app = Router::new().fallback(post(receive)).with_state((webhook, Seen::default()));
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    Ok(axum::serve(listener, app).await?)
}
