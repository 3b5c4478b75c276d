//! Traces and metrics at a collector of OpenTelemetry, and the `traceparent` that receivers get.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may stop at once")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;

use crate::support::postgres::Database;
use crate::support::postgres::wait_for_text;
use crate::support::program::Program;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::Request;
use crate::support::receiver::always;
use crate::support::receiver::in_turn;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;

const TABLE: &str = "CREATE TABLE orders (id int PRIMARY KEY, note text NOT NULL, trace text)";

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const WRITER: &str = "00f067aa0ba902b7";

/// What a row must never be found by.
const NOTE: &str = "nobody-may-see-this";

fn writer(flags: &str) -> String {
    format!("00-{TRACE}-{WRITER}-{flags}")
}

/// A collector's address, below which the paths of the signals are.
fn base(collector: &Receiver) -> String {
    format!("http://{}", collector.address())
}

/// One endpoint and `[telemetry]` with `more` in it.
fn one_endpoint(database: &Database, receiver: &Receiver, more: &str) -> String {
    let rest = format!(
        "[[event]]\ntype = \"order\"\ntable = \"public.orders\"\ntraceparent = \"trace\"\n\n\
         [webhook]\nretry_interval = \"1ms\"\nmax_retries = 5\n\n\
         [[endpoint]]\nname = \"crm\"\nurl = \"{}/s3cret-path?key=s3cret-key\"\n\n\
         [telemetry]\n{more}",
        receiver.url().trim_end_matches('/')
    );
    configuration(database, &rest)
}

fn insert(id: usize, trace: Option<&str>) -> String {
    let trace = trace.map_or(String::from("NULL"), |trace| format!("'{trace}'"));
    format!("INSERT INTO orders VALUES ({id}, '{NOTE}', {trace});")
}

fn insert_with_message(id: usize, content: &str) -> String {
    format!(
        "BEGIN; SELECT pg_logical_emit_message(true, 'walhook.traceparent', '{content}'); {} COMMIT;",
        insert(id, None)
    )
}

/// Trace, span and flags of the request about the row.
fn told(requests: &[Request], id: u64) -> Vec<(String, String, String)> {
    let about = requests.iter().filter(|request| request.json()["data"]["id"] == id);
    let parts = about.map(|request| {
        let header = request.header("traceparent");
        let parts: Vec<&str> = header.split('-').collect();
        assert!(parts.len() == 4 && parts[0] == "00", "{header:?}");
        assert_ne!(parts[1], "0".repeat(32));
        assert_ne!(parts[2], "0".repeat(16));
        (parts[1].to_owned(), parts[2].to_owned(), parts[3].to_owned())
    });
    parts.collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attributes(given: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |given: &KeyValue| match given.value.as_ref().and_then(|v| v.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    given.iter().map(|given| (given.key.clone(), text(given))).collect()
}

/// What a collector got, decoded by OpenTelemetry's own description of it.
fn spans(collector: &Receiver) -> Vec<(Resource, Span)> {
    let requests = collector.requests().into_iter().filter(|r| r.path == "/v1/traces");
    let mut found = Vec::new();
    for request in requests {
        assert_eq!(request.header("content-type"), "application/x-protobuf");
        let sent = ExportTraceServiceRequest::decode(request.body.clone()).unwrap();
        for spans in sent.resource_spans {
            let resource = spans.resource.unwrap();
            let scopes = spans.scope_spans.into_iter().flat_map(|scope| scope.spans);
            found.extend(scopes.map(|span| (resource.clone(), span)));
        }
    }
    found
}

fn metrics(request: &Request) -> Vec<Metric> {
    let sent = ExportMetricsServiceRequest::decode(request.body.clone()).unwrap();
    let scopes = sent.resource_metrics.into_iter().flat_map(|metrics| metrics.scope_metrics);
    scopes.flat_map(|scope| scope.metrics).collect()
}

#[tokio::test]
async fn an_event_is_one_trace_from_its_change_to_its_attempts_and_nothing_secret_is_in_it() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(TABLE).await.unwrap();
    let collector = Receiver::start(always(Answer::status(200)));
    let receiver = Receiver::start(in_turn(vec![Answer::status(503), Answer::status(200)]));
    let more = format!(
        "endpoint = \"{}\"\nsample = 1\ntraceparent = true\nservice_name = \"pusher\"\n\
         headers = {{ Authorization = \"Bearer t0ken\" }}\nmetrics_interval = \"100ms\"\n",
        base(&collector)
    );
    let mut service = Service::start(&one_endpoint(&database, &receiver, &more)).await;
    sql.batch_execute(&insert(1, None)).await.unwrap();
    let requests = receiver.wait_for(2, AMPLE).await;
    service
        .wait_for_metric("walhook_deliveries_total{endpoint=\"crm\",outcome=\"delivered\"}", 1.0)
        .await;
    service.stop().await;

    let told = told(&requests, 1);
    assert_eq!(told[0].0, told[1].0, "a retry keeps the trace");
    assert_ne!(told[0].1, told[1].1, "each attempt is a span of its own");
    assert!(told.iter().all(|(_, _, flags)| flags == "01"));
    let found = spans(&collector);
    let names: Vec<&str> = found.iter().map(|(_, span)| span.name.as_str()).collect();
    assert_eq!(names, ["INSERT public.orders", "order", "POST crm", "POST crm"]);
    assert!(found.iter().all(|(_, span)| hex(&span.trace_id) == told[0].0));
    assert!(found.iter().all(|(_, span)| span.end_time_unix_nano >= span.start_time_unix_nano));
    let [change, event, first, second] = [0, 1, 2, 3].map(|at| &found[at].1);
    assert!(change.parent_span_id.is_empty());
    assert_eq!(event.parent_span_id, change.span_id);
    assert_eq!((&first.parent_span_id, &second.parent_span_id), (&event.span_id, &event.span_id));
    assert_eq!((hex(&first.span_id), hex(&second.span_id)), (told[0].1.clone(), told[1].1.clone()));
    assert_eq!(attributes(&event.attributes)["walhook.event.id"], requests[0].header("webhook-id"));
    let of_first = attributes(&first.attributes);
    assert_eq!(of_first["http.response.status_code"], "503");
    assert_eq!(of_first["server.port"], receiver.address().port().to_string());
    assert_eq!((first.status.as_ref().unwrap().code, second.status.as_ref()), (2, None));
    assert_eq!(attributes(&second.attributes)["http.request.resend_count"], "1");
    let resource = attributes(&found[0].0.attributes);
    assert_eq!(resource["service.name"], "pusher");
    assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"));

    let all = collector.requests();
    for request in &all {
        assert_eq!(request.header("authorization"), "Bearer t0ken");
        let body = String::from_utf8_lossy(&request.body);
        for secret in [NOTE, "s3cret", "t0ken"] {
            assert!(!body.contains(secret), "{secret} in {}", request.path);
        }
    }
    let last = all.iter().rfind(|request| request.path == "/v1/metrics").unwrap();
    let last = metrics(last);
    let deliveries = last.iter().find(|metric| metric.name == "walhook_deliveries_total").unwrap();
    let Some(Data::Sum(deliveries)) = &deliveries.data else { unreachable!("{deliveries:?}") };
    let delivered = deliveries.data_points.iter().find(|point| {
        let labels = attributes(&point.attributes);
        labels["endpoint"] == "crm" && labels["outcome"] == "delivered"
    });
    assert_eq!(delivered.unwrap().value, Some(Number::AsDouble(1.0)));
    assert!(last.iter().any(|metric| matches!(metric.data, Some(Data::Histogram(_)))));
}

#[tokio::test]
async fn a_trace_comes_from_the_column_or_the_message_or_else_from_the_events_id() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(TABLE).await.unwrap();
    let collector = Receiver::start(always(Answer::status(200)));
    let receiver = Receiver::start(always(Answer::status(200)));
    let more = format!(
        "endpoint = \"{}\"\nsignals = [\"traces\"]\nsample = 0\ntraceparent = true\n",
        base(&collector)
    );
    let mut service = Service::start(&one_endpoint(&database, &receiver, &more)).await;
    let other = "00-00000000000000000000000000000007-0000000000000008-01";
    for statement in [
        insert_with_message(1, &writer("01")),
        insert_with_message(2, &writer("00")),
        insert(3, Some(&writer("01"))),
        insert_with_message(4, other).replace("NULL", &format!("'{}'", writer("01"))),
        insert_with_message(5, "00-00000000000000000000000000000000-0000000000000000-01"),
        insert(6, None),
    ] {
        sql.batch_execute(&statement).await.unwrap();
    }
    let requests = receiver.wait_for(6, AMPLE).await;
    service.stop().await;
    let told = |id| told(&requests, id).remove(0);
    for id in [1, 3, 4] {
        let (trace, span, flags) = told(id);
        assert_eq!((trace.as_str(), flags.as_str()), (TRACE, "01"), "row {id}");
        assert_ne!(span, WRITER, "row {id}: the receiver is below the attempt");
    }
    assert_eq!(
        told(2),
        (TRACE.to_owned(), WRITER.to_owned(), String::from("00")),
        "passed on as it is"
    );
    assert_ne!(told(5).0, told(6).0);
    for id in [5, 6] {
        assert_eq!(told(id).2, "00", "row {id}: nobody records it");
        assert_ne!(told(id).0, TRACE);
    }
    let found = spans(&collector);
    assert_eq!(found.len(), 3 * 3, "what the writers sample is recorded, and only that");
    let changes = found.iter().filter(|(_, span)| span.name == "INSERT public.orders");
    assert!(changes.clone().all(|(_, span)| hex(&span.parent_span_id) == WRITER));
    assert!(changes.clone().all(|(_, span)| span.flags == 0x301), "of another process");
    assert_eq!(changes.count(), 3);
}

#[tokio::test]
async fn a_header_of_the_operators_own_wins_and_without_a_word_there_is_none() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(TABLE).await.unwrap();
    let [own, plain, batch] = [(); 3].map(|()| Receiver::start(always(Answer::status(200))));
    let rest = |traceparent| {
        format!(
            "[[event]]\ntype = \"order\"\ntable = \"public.orders\"\n\n\
             [[endpoint]]\nname = \"own\"\nurl = \"{}\"\nheaders = {{ Traceparent = \"mine\" }}\n\n\
             [[endpoint]]\nname = \"plain\"\nurl = \"{}\"\n\n\
             [[endpoint]]\nname = \"batch\"\nurl = \"{}\"\nbatch = {{ size = 9 }}\n\n\
             [telemetry]\ntraceparent = {traceparent}\n",
            own.url(),
            plain.url(),
            batch.url()
        )
    };
    let mut service = Service::start(&configuration(&database, &rest(true))).await;
    sql.batch_execute(&insert_with_message(1, &writer("01"))).await.unwrap();
    for receiver in [&own, &plain, &batch] {
        receiver.wait_for(1, AMPLE).await;
    }
    service.stop().await;
    assert_eq!(own.requests()[0].header("traceparent"), "mine");
    assert_eq!(
        plain.requests()[0].header("traceparent"),
        writer("01"),
        "nothing of ours is recorded"
    );
    assert_eq!(batch.requests()[0].header("traceparent"), writer("01"));

    let mut service = Service::start(&configuration(&database, &rest(false))).await;
    sql.batch_execute(&insert_with_message(2, &writer("01"))).await.unwrap();
    plain.wait_for(2, AMPLE).await;
    own.wait_for(2, AMPLE).await;
    batch.wait_for(2, AMPLE).await;
    assert_eq!(plain.requests()[1].header("traceparent"), "");
    for result in ["exported", "dropped"] {
        let series = format!("walhook_otlp_spans_total{{result=\"{result}\"}}");
        assert_eq!(service.metric(&series).await, 0.0);
    }
    service.stop().await;
}

#[tokio::test]
async fn what_is_parked_keeps_the_trace_of_its_writer_over_a_restart() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(TABLE).await.unwrap();
    let receiver = Receiver::start(always(Answer::status(503)));
    let toml = one_endpoint(&database, &receiver, "traceparent = true\n")
        .replace(
            "[webhook]",
            "[webhook]\nbreaker = { failures = 1, cooldown = \"100ms\", cap = \"100ms\" }",
        )
        .replace("max_retries = 5", "max_retries = 100");
    let mut service = Service::start(&toml).await;
    sql.batch_execute(&insert_with_message(1, &writer("00"))).await.unwrap();
    wait_for_text(&sql, "SELECT count(*) FROM walhook.backlog", "1").await;
    service.stop().await;
    let before = receiver.count();
    receiver.behave(always(Answer::status(200)));
    let mut service = Service::start(&toml).await;
    let requests = receiver.wait_for(before + 1, AMPLE).await;
    service.stop().await;
    assert!(requests.iter().all(|request| request.header("traceparent") == writer("00")));
}

#[tokio::test]
async fn a_collector_that_is_down_hurts_no_delivery_and_what_is_dropped_is_counted() {
    const ROWS: usize = 40;
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(TABLE).await.unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    let collector = Receiver::start(always(Answer::Hang));
    let more = format!(
        "endpoint = \"{}\"\nsample = 1\ntimeout = \"100ms\"\nmetrics_interval = \"100ms\"\n",
        base(&collector)
    );
    let mut service = Service::start(&one_endpoint(&database, &receiver, &more)).await;
    sql.batch_execute(&insert(1, None)).await.unwrap();
    collector.wait_for(1, AMPLE).await;
    for id in 2..=ROWS {
        sql.batch_execute(&insert(id, None)).await.unwrap();
    }
    receiver.wait_for(ROWS, AMPLE).await;
    assert_eq!(service.get("/ready").await.status, 200);
    // It answers again, and refuses.
    collector.behave(always(Answer::status(400).body("no such thing")));
    let spans = f64::from(u32::try_from(ROWS * 3).unwrap());
    service.wait_for_metric("walhook_otlp_spans_total{result=\"dropped\"}", spans).await;
    assert!(
        service.metric("walhook_otlp_requests_total{result=\"failed\",signal=\"metrics\"}").await
            > 0.0
    );
    // And takes what comes from here on.
    collector.behave(in_turn(vec![Answer::status(503), Answer::status(200)]));
    sql.batch_execute(&insert(ROWS + 1, None)).await.unwrap();
    service.wait_for_metric("walhook_otlp_spans_total{result=\"exported\"}", 3.0).await;
    let series = "walhook_deliveries_total{endpoint=\"crm\",outcome=\"delivered\"}";
    service.wait_for_metric(series, f64::from(u32::try_from(ROWS + 1).unwrap())).await;
    // And leaves all of the next out, in however many requests they come.
    let partial = ExportTracePartialSuccess { rejected_spans: 7, ..Default::default() };
    let partial = ExportTraceServiceResponse { partial_success: Some(partial) };
    collector.behave(always(Answer::status(200).body(partial.encode_to_vec())));
    sql.batch_execute(&insert(ROWS + 2, None)).await.unwrap();
    service.wait_for_metric("walhook_otlp_spans_total{result=\"dropped\"}", spans + 3.0).await;
    collector.behave(always(Answer::Hang));
    let begun = Instant::now();
    service.stop().await;
    assert!(begun.elapsed() < AMPLE, "it does not wait for the collector");
}

#[tokio::test]
async fn check_says_whether_the_collector_takes_what_it_is_sent() {
    let database = Database::create().await;
    database.sql().await.batch_execute(TABLE).await.unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    let collector = Receiver::start(in_turn(vec![Answer::status(200), Answer::status(404)]));
    let more = format!("endpoint = \"{}\"\n", base(&collector));
    let toml = one_endpoint(&database, &receiver, &more);
    let mut check = Program::start(&["check"], &toml, &[]);
    check.wait(AMPLE).await;
    let output = check.output().join("\n");
    let origin = base(&collector);
    assert!(output.contains(&format!("telemetry: {origin} takes traces")), "{output}");
    let refused =
        format!("telemetry: metrics cannot be sent to {origin}: the collector answers 404");
    assert!(output.contains(&refused), "{output}");
    assert_eq!(collector.count(), 2);
}

#[tokio::test]
async fn a_collector_behind_tls_is_trusted_as_the_environment_says_and_not_otherwise() {
    let database = Database::create().await;
    database.sql().await.batch_execute(TABLE).await.unwrap();
    let made = rcgen::generate_simple_self_signed(vec![String::from("localhost")]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    let collector = Receiver::start_tls(config, always(Answer::status(200)));
    let port = collector.address().port();
    let more = format!("endpoint = \"https://localhost:{port}\"\nsignals = [\"traces\"]\n");
    let toml = one_endpoint(&database, &receiver, &more);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("authority.pem");
    std::fs::write(&file, made.cert.pem()).unwrap();
    let trusted = file.display().to_string();
    for (env, expected) in [
        (&[("SSL_CERT_FILE", trusted.as_str())][..], "takes traces"),
        (&[], "the collector cannot be reached: invalid peer certificate"),
    ] {
        let mut check = Program::start(&["check"], &toml, env);
        check.wait(AMPLE).await;
        let output = check.output().join("\n");
        assert!(output.contains(expected), "{output}");
    }
}
