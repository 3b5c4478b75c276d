//! Sends a test event to an endpoint, beside its lane and the books, and reports what came back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderName;
use http::HeaderValue;
use serde_json::json;

use crate::api::answers::endpoint_answers::TestFailure;
use crate::api::answers::endpoint_answers::TestReport;
use crate::config::configuration::Settings;
use crate::config::settings::Endpoint;
use crate::delivery::http::EndpointClient;
use crate::flow::body::BodyPart;
use crate::flow::body::EventBody;
use crate::flow::body::RequestValue;
use crate::flow::event::Event;
use crate::flow::event::EventFacts;
use crate::flow::event::EventId;
use crate::flow::event::IdOrigin;
use crate::flow::key::EventKeys;
use crate::flow::lease::Lease;
use crate::flow::lease::LeaseId;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::flow::relation::TableName;
use crate::flow::time::Timestamp;
use crate::flow::time::whole_millis;
use crate::flow::verdict::AttemptVerdict;
use crate::preflight::dry_run;
use crate::preflight::dry_run::EventExample;

/// Nobody waits for longer, whatever the endpoint's own timeout is.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How long a row to make a body of is looked for.
const SAMPLE_PATIENCE: Duration = Duration::from_secs(5);

/// How much of the response is shown.
const SHOWN_BYTES: usize = 1024;

const EVENT_TYPE: &str = "walhook.test";

/// Tells the receiver that nothing has happened.
const TEST_HEADER: HeaderName = HeaderName::from_static("webhook-test");

/// Makes one request and tells what came of it. `body` is what to send; without one it is what the
/// endpoint would get for a row of a table that it takes events of, or, where there is nothing like that, a
/// small event of the standard shape.
pub(crate) async fn probe(
    client: Arc<EndpointClient>,
    endpoint: Arc<Endpoint>,
    settings: Arc<Settings>,
    body: Option<String>,
    now: Timestamp,
) -> TestReport {
    let body = body.or_else(|| endpoint.test.as_deref().map(str::to_owned));
    let sample = match body {
        // Its URL or headers may need a row all the same.
        Some(body) if endpoint.request.of_change().is_empty() => {
            Some((body, Vec::new(), Vec::new()))
        }
        Some(body) => {
            let sample = sample(&settings, &endpoint, now).await;
            Some((body, Vec::new(), sample.map(|(_, _, values)| values).unwrap_or_default()))
        }
        None => sample(&settings, &endpoint, now).await,
    };
    send(client, event(EVENT_TYPE, sample, now), now).await
}

/// Makes one request that is an event of this type.
pub(crate) async fn send_of(
    client: Arc<EndpointClient>,
    event_type: Arc<str>,
    sample: Sample,
    now: Timestamp,
) -> TestReport {
    send(client, event(&event_type, Some(sample), now), now).await
}

/// What the endpoint would get; `None` also if the server does not say in time.
async fn sample(settings: &Settings, endpoint: &Endpoint, now: Timestamp) -> Option<Sample> {
    let example = dry_run::example(settings, endpoint, now);
    let example = tokio::time::timeout(SAMPLE_PATIENCE, example).await.ok()?;
    match example {
        Ok(example) => {
            example.map(|EventExample { sample, .. }| (sample.body, sample.headers, sample.values))
        }
        Err(error) => {
            let error = format!("{:#}", anyhow::Error::new(error));
            tracing::debug!(endpoint = %endpoint.name, error, "no row for a test");
            None
        }
    }
}

/// A body, what its shape asks of the request, and what URL and headers need.
pub(crate) type Sample = (String, Vec<(HeaderName, HeaderValue)>, Vec<(Arc<str>, RequestValue)>);

async fn send(client: Arc<EndpointClient>, event: Event, now: Timestamp) -> TestReport {
    let lease = Lease { id: LeaseId(0), attempt: 1, replay: false, events: vec![Arc::new(event)] };
    let attempt = tokio::time::timeout(TIMEOUT, client.attempt(&lease, now)).await;
    // The lane that would close it after a while may have nothing to do for long.
    client.close_idle();
    let Ok(exchange) = attempt else {
        let detail = format!("no complete response within {TIMEOUT:?}");
        return TestReport::late(detail, whole_millis(TIMEOUT));
    };
    let error = exchange.failure.as_ref().map(|failure| TestFailure {
        class: failure.class.as_str(),
        detail: failure.detail.clone(),
    });
    let response = exchange.response_body;
    let response = response.slice(..response.len().min(SHOWN_BYTES));
    TestReport {
        delivered: exchange.verdict == AttemptVerdict::Delivered,
        status: exchange.status,
        duration_ms: whole_millis(exchange.took),
        error,
        response: String::from_utf8_lossy(&response).into_owned(),
    }
}

fn event(event_type: &str, sample: Option<Sample>, now: Timestamp) -> Event {
    let standard = || {
        let data = json!({ "message": "a test by walhook: nothing has happened" });
        json!({ "type": EVENT_TYPE, "timestamp": now.iso_millis(), "data": data }).to_string()
    };
    let (body, mut headers, values) =
        sample.unwrap_or_else(|| (standard(), Vec::new(), Vec::new()));
    headers.push((TEST_HEADER, HeaderValue::from_static("true")));
    // Each test has an id of its own, below those of all changes.
    let position = Position { commit: Lsn::ZERO, ordinal: fastrand::u32(..) };
    Event {
        id: EventId::new(position, IdOrigin::new(0, EVENT_TYPE)),
        sequence: 0,
        position,
        event_type: event_type.into(),
        table: Arc::new(TableName::new("walhook", "test")),
        committed: now,
        keys: EventKeys::NONE,
        expiry: None,
        body: EventBody::new(vec![BodyPart::Bytes(Bytes::from(body))])
            .with_headers(headers)
            .with_values(values),
        facts: EventFacts::default(),
        held: None,
        write_back: None,
    }
}
