//! The push log: written whole, found again, and gone when its time is over.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use walhook::testing::flow::event::Event;
use walhook::testing::flow::event::EventFacts;
use walhook::testing::flow::event::EventId;
use walhook::testing::flow::headers::HeaderLines;
use walhook::testing::flow::time::Timestamp;
use walhook::testing::flow::verdict::AttemptFailure;
use walhook::testing::flow::verdict::AttemptReach;
use walhook::testing::flow::verdict::AttemptVerdict;
use walhook::testing::flow::verdict::FailureClass;
use walhook::testing::flow::verdict::HttpExchange;
use walhook::testing::store::flush::StateFlush;
use walhook::testing::store::partitions::drop_old;
use walhook::testing::store::partitions::ensure_ahead;
use walhook::testing::store::push_log::AttemptOutcome;
use walhook::testing::store::push_log::LoggedAttempt;
use walhook::testing::store::push_log::LoggedBatch;
use walhook::testing::store::push_log::PushLogFilter;
use walhook::testing::store::push_log::list;

use super::HOSTILE;
use super::NOW;
use super::SLOT;
use super::State;
use super::after;
use super::event;
use super::letter;
use super::parked;

pub(super) fn attempt(event: Event, endpoint: &str) -> LoggedAttempt {
    LoggedAttempt {
        created_at: NOW,
        event: Arc::new(event),
        endpoint: endpoint.into(),
        retry_count: 0,
        outcome: AttemptOutcome::Delivered,
        exchange: Arc::new(exchange(200)),
        request_body: None,
        response_body: None,
        body_whole: false,
        replay: false,
    }
}

fn exchange(status: u16) -> HttpExchange {
    HttpExchange {
        verdict: AttemptVerdict::Delivered,
        reach: AttemptReach::Endpoint,
        requests: 1,
        failure: None,
        status: Some(status),
        took: Duration::from_micros(12_500),
        request_headers: HeaderLines::default(),
        response_headers: HeaderLines::default(),
        response_body: Bytes::new(),
    }
}

/// One event for each key.
pub(super) fn batch(commit: u64, keys: &[&str]) -> LoggedBatch {
    let events = keys.iter().zip(0..).map(|(key, ordinal)| Arc::new(event(commit, ordinal, key)));
    LoggedBatch {
        created_at: NOW,
        events: events.collect(),
        endpoint: "crm".into(),
        retry_count: 0,
        exchange: Arc::new(exchange(200)),
        replay: false,
    }
}

fn failed(attempt: LoggedAttempt, retry_count: u32, outcome: AttemptOutcome) -> LoggedAttempt {
    let failure =
        AttemptFailure { class: FailureClass::Timeout, detail: "no answer in 10s".to_owned() };
    let exchange = HttpExchange { failure: Some(failure), status: None, ..exchange(0) };
    LoggedAttempt { retry_count, outcome, exchange: Arc::new(exchange), ..attempt }
}

async fn partitions(state: &State) -> String {
    let query = "SELECT coalesce(string_agg(relname, ' ' ORDER BY relname), '') FROM pg_class \
                 WHERE relnamespace = 'walhook'::regnamespace AND relkind = 'r' \
                 AND relname LIKE 'push\\_log\\_%\\_2%'";
    state.text(query).await
}

#[tokio::test]
async fn an_attempt_is_kept_with_every_field() {
    let mut state = State::create().await;
    let pairs = |pairs: &[(&str, &str)]| {
        let mut headers = HeaderLines::default();
        pairs.iter().for_each(|(name, value)| headers.push(name, value.as_bytes()));
        headers
    };
    let failure = AttemptFailure { class: FailureClass::Status, detail: HOSTILE.to_owned() };
    let exchange = HttpExchange {
        failure: Some(failure),
        request_headers: pairs(&[("authorization", "***"), ("x-hostile", HOSTILE)]),
        response_headers: pairs(&[("set-cookie", "a=1"), ("set-cookie", "b=2")]),
        ..exchange(503)
    };
    let facts =
        EventFacts::new(vec![("id".into(), HOSTILE.to_owned()), ("b".into(), String::new())]);
    let written = LoggedAttempt {
        retry_count: 2,
        outcome: AttemptOutcome::Retry,
        exchange: Arc::new(exchange),
        request_body: Some(Bytes::from(HOSTILE)),
        response_body: Some(Bytes::from_static(b"nul \0 and no utf-8 \xFF")),
        replay: true,
        ..attempt(Event { facts, ..event(9, 4, "a") }, HOSTILE)
    };
    // No partition was made ahead: the flush makes the day that it needs.
    state.commit(&StateFlush { attempts: vec![written.clone()], ..StateFlush::default() }).await;
    assert_eq!(partitions(&state).await, "push_log_batches_20251122 push_log_events_20251122");
    let found = list(state.client(), SLOT, &PushLogFilter::default(), None, 10).await.unwrap();
    let [entry] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((entry.created_at, entry.event), (NOW, written.event.id));
    assert_eq!((entry.event_type.as_str(), entry.endpoint.as_str()), ("task.done", HOSTILE));
    assert_eq!((&entry.table, entry.row_key.as_deref()), (&*written.event.table, Some(HOSTILE)));
    assert_eq!((entry.retry_count, entry.outcome.as_str(), entry.replay), (2, "retry", true));
    assert_eq!((entry.status, entry.failure_class.as_deref()), (Some(503), Some("status")));
    assert_eq!(entry.error_message.as_deref(), Some(HOSTILE));
    let request = json!({ "authorization": "***", "x-hostile": HOSTILE });
    assert_eq!(entry.request_headers, Some(request));
    assert_eq!(entry.response_headers, Some(json!({ "set-cookie": "a=1, b=2" })));
    assert_eq!(entry.request_body.as_deref(), Some(HOSTILE));
    assert_eq!(entry.response_body.as_deref(), Some("nul \u{FFFD} and no utf-8 \u{FFFD}"));
    assert!((entry.duration_ms - 12.5).abs() < 1e-9, "{}", entry.duration_ms);
}

#[tokio::test]
async fn attempts_are_found_by_what_people_know_of_them() {
    let mut state = State::create().await;
    let attempts = vec![
        attempt(event(1, 0, "T_1"), "crm"),
        failed(attempt(event(2, 0, "T_2"), "crm"), 0, AttemptOutcome::Retry),
        LoggedAttempt { created_at: after(60), ..attempt(event(2, 0, "T_2"), "erp") },
        LoggedAttempt { created_at: after(86_400), ..attempt(event(3, 0, "T_3"), "erp") },
    ];
    state.commit(&StateFlush { attempts, ..StateFlush::default() }).await;
    let made = "push_log_batches_20251122 push_log_batches_20251123 \
                push_log_events_20251122 push_log_events_20251123";
    assert_eq!(partitions(&state).await, made);
    let text = |text: &str| Some(text.to_owned());
    let plain = PushLogFilter::default;
    let cases = [
        ("all", plain(), vec!["T_3", "T_2", "T_2", "T_1"]),
        (
            "event",
            PushLogFilter { event: Some(event(2, 0, "T_2").id), ..plain() },
            vec!["T_2", "T_2"],
        ),
        ("key", PushLogFilter { row_key: text("T_1"), ..plain() }, vec!["T_1"]),
        ("endpoint", PushLogFilter { endpoint: text("erp"), ..plain() }, vec!["T_3", "T_2"]),
        ("status", PushLogFilter { status: Some(200), ..plain() }, vec!["T_3", "T_2", "T_1"]),
        ("class", PushLogFilter { class: text("timeout"), ..plain() }, vec!["T_2"]),
        ("type", PushLogFilter { event_type: text("other"), ..plain() }, vec![]),
        ("nul", PushLogFilter { endpoint: text("\0"), ..plain() }, vec![]),
        ("outcome", PushLogFilter { outcome: Some(AttemptOutcome::Retry), ..plain() }, vec!["T_2"]),
        ("from", PushLogFilter { from: Some(after(60)), ..plain() }, vec!["T_3", "T_2"]),
        ("before", PushLogFilter { before: Some(after(60)), ..plain() }, vec!["T_2", "T_1"]),
    ];
    for (name, filter, expected) in cases {
        let found = list(state.client(), SLOT, &filter, None, 10).await.unwrap();
        let keys: Vec<&str> = found.iter().map(|entry| entry.row_key.as_deref().unwrap()).collect();
        assert_eq!(keys, expected, "case: {name}");
    }
    // Page by page it is the same, each once.
    let mut below = None;
    let mut keys = Vec::new();
    while let Some(last) = list(state.client(), SLOT, &plain(), below, 1).await.unwrap().pop() {
        below = Some(last.cursor());
        keys.push(last.row_key.unwrap());
    }
    assert_eq!(keys, ["T_3", "T_2", "T_2", "T_1"]);
    assert!(list(state.client(), "other", &plain(), None, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_batch_is_one_row_and_shows_each_of_its_events() {
    let mut state = State::create().await;
    let mut headers = HeaderLines::default();
    headers.push("webhook-id", b"evt_1");
    let keyless = Event { facts: EventFacts::new(Vec::new()), ..event(2, 3, "keyless") };
    let mut batch = batch(2, &["T_1", HOSTILE, "nul \0"]);
    batch.events.push(Arc::new(keyless));
    let exchange = HttpExchange { request_headers: headers, ..exchange(202) };
    let batch = LoggedBatch { exchange: Arc::new(exchange), retry_count: 3, replay: true, ..batch };
    let ids: Vec<EventId> = batch.events.iter().map(|event| event.id).collect();
    state.commit(&StateFlush { batches: vec![batch], ..StateFlush::default() }).await;
    let rows = "SELECT count(*) || ' ' || sum(events) FROM walhook.push_log_batches";
    assert_eq!(state.text(rows).await, "1 4");
    // The newest first: the last of the batch.
    let mut found = list(state.client(), SLOT, &PushLogFilter::default(), None, 10).await.unwrap();
    found.reverse();
    let keys: Vec<Option<&str>> = found.iter().map(|entry| entry.row_key.as_deref()).collect();
    assert_eq!(keys, [Some("T_1"), Some(HOSTILE), Some("nul \u{FFFD}"), None]);
    assert_eq!(found.iter().map(|entry| entry.event).collect::<Vec<_>>(), ids);
    for entry in &found {
        assert_eq!((entry.created_at, entry.id), (NOW, found[0].id));
        assert_eq!((entry.event_type.as_str(), entry.endpoint.as_str()), ("task.done", "crm"));
        assert_eq!(entry.table.to_string(), "public.tasks");
        assert_eq!(
            (entry.retry_count, entry.outcome.as_str(), entry.replay),
            (3, "delivered", true)
        );
        assert_eq!((entry.status, entry.failure_class.as_ref()), (Some(202), None));
        assert_eq!(entry.request_headers, Some(json!({ "webhook-id": "evt_1" })));
        assert_eq!((&entry.response_headers, &entry.error_message), (&None, &None));
        assert_eq!((&entry.request_body, &entry.response_body), (&None, &None));
        assert!((entry.duration_ms - 12.5).abs() < 1e-9, "{}", entry.duration_ms);
    }
    // In plain SQL it is a row for each event, like any other.
    let plain =
        "SELECT string_agg(event_id || ' ' || coalesce(row_key, '-') || ' ' || outcome || ' '
                        || http_status || ' ' || (request_headers ->> 'webhook-id'), E'\\n'
                        ORDER BY event_id) FROM walhook.push_log";
    let shown = |(id, key): (&EventId, &Option<&str>)| {
        format!("{id} {} delivered 202 evt_1", key.unwrap_or("-"))
    };
    let expected: Vec<String> = ids.iter().zip(&keys).map(shown).collect();
    assert_eq!(state.text(plain).await, expected.join("\n"));
}

#[tokio::test]
async fn what_went_out_in_a_batch_is_found_like_what_went_out_alone() {
    let mut state = State::create().await;
    let attempts = vec![
        attempt(event(1, 0, "T_1"), "crm"),
        failed(attempt(event(3, 1, "B_1"), "crm"), 0, AttemptOutcome::Retry),
    ];
    let other =
        LoggedBatch { created_at: after(60), endpoint: "erp".into(), ..batch(4, &["B_1", "C_1"]) };
    let batches = vec![batch(3, &["A_1", "B_1", "C_1"]), other];
    let flush = StateFlush { attempts, batches, ..StateFlush::default() };
    state.commit(&flush).await;
    let text = |text: &str| Some(text.to_owned());
    let plain = PushLogFilter::default;
    let all = ["C_1", "B_1", "C_1", "B_1", "A_1", "B_1", "T_1"];
    let cases = [
        ("all", plain(), all.to_vec()),
        ("event", PushLogFilter { event: Some(event(3, 1, "").id), ..plain() }, vec!["B_1", "B_1"]),
        ("key", PushLogFilter { row_key: text("C_1"), ..plain() }, vec!["C_1", "C_1"]),
        ("endpoint", PushLogFilter { endpoint: text("erp"), ..plain() }, vec!["C_1", "B_1"]),
        (
            "status",
            PushLogFilter { status: Some(200), ..plain() },
            vec!["C_1", "B_1", "C_1", "B_1", "A_1", "T_1"],
        ),
        ("class", PushLogFilter { class: text("timeout"), ..plain() }, vec!["B_1"]),
        ("type", PushLogFilter { event_type: text("other"), ..plain() }, vec![]),
        ("outcome", PushLogFilter { outcome: Some(AttemptOutcome::Retry), ..plain() }, vec!["B_1"]),
        ("from", PushLogFilter { from: Some(after(60)), ..plain() }, vec!["C_1", "B_1"]),
        ("before", PushLogFilter { before: Some(NOW), ..plain() }, vec![]),
    ];
    for (name, filter, expected) in cases {
        let found = list(state.client(), SLOT, &filter, None, 10).await.unwrap();
        let keys: Vec<&str> = found.iter().map(|entry| entry.row_key.as_deref().unwrap()).collect();
        assert_eq!(keys, expected, "case: {name}");
        // Page by page it is the same, each once, whether or not a page ends within a batch.
        for limit in 1..4 {
            let (mut below, mut again) = (None, Vec::new());
            loop {
                let page = list(state.client(), SLOT, &filter, below, limit).await.unwrap();
                let Some(last) = page.last() else { break };
                below = Some(last.cursor());
                again.extend(page);
            }
            assert_eq!(again, found, "case: {name}, by {limit}");
        }
    }
    assert!(list(state.client(), "other", &plain(), None, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn days_are_made_ahead_and_dropped_when_their_time_is_over() {
    let mut state = State::create().await;
    assert_eq!(ensure_ahead(state.client(), NOW).await.unwrap().len(), 2);
    assert_eq!(ensure_ahead(state.client(), NOW).await.unwrap(), []);
    assert_eq!(ensure_ahead(state.client(), after(86_400)).await.unwrap().len(), 1);
    let all = "push_log_batches_20251122 push_log_batches_20251123 push_log_batches_20251124 \
               push_log_events_20251122 push_log_events_20251123 push_log_events_20251124";
    assert_eq!(partitions(&state).await, all);
    let (attempts, batches) = (vec![attempt(event(1, 0, "a"), "crm")], vec![batch(2, &["b", "c"])]);
    state.commit(&StateFlush { attempts, batches, ..StateFlush::default() }).await;
    // With seven days kept, the 29th is the last on which the 22nd is there.
    let kept = drop_old(state.client(), after(7 * 86_400), 7).await.unwrap();
    assert_eq!(kept, Vec::<String>::new());
    // Another table whose name only looks alike is not ours to drop.
    let sql = state.sql().await;
    sql.batch_execute(
        "CREATE TABLE walhook.push_log_events_20000101_backup (id int);
         -- A day that somebody detached before they died.
         ALTER TABLE walhook.push_log_events DETACH PARTITION walhook.push_log_events_20251123",
    )
    .await
    .unwrap();
    let dropped = drop_old(state.client(), after(9 * 86_400), 7).await.unwrap();
    let gone = [
        "push_log_batches_20251122",
        "push_log_events_20251122",
        "push_log_batches_20251123",
        "push_log_events_20251123",
    ];
    assert_eq!(dropped, gone);
    let rest = "push_log_batches_20251124 push_log_events_20000101_backup push_log_events_20251124";
    assert_eq!(partitions(&state).await, rest);
    let left = list(state.client(), SLOT, &PushLogFilter::default(), None, 10).await.unwrap();
    assert_eq!(left, []);
}

#[tokio::test]
async fn a_reader_of_the_push_log_does_not_hold_up_a_new_day() {
    let mut state = State::create().await;
    ensure_ahead(state.client(), NOW).await.unwrap();
    let reader = state.sql().await;
    reader.batch_execute("BEGIN; SELECT count(*) FROM walhook.push_log").await.unwrap();
    let made = ensure_ahead(state.client(), after(86_400));
    let made = tokio::time::timeout(Duration::from_secs(10), made).await.unwrap().unwrap();
    assert_eq!(made.len(), 1);
    reader.batch_execute("ROLLBACK").await.unwrap();
}

#[tokio::test]
async fn the_operators_questions_have_answers_in_sql() {
    let mut state = State::create().await;
    // The views look at the last 24 hours of the server's clock.
    let micros = state.text("SELECT (extract(epoch FROM now()) * 1000000)::bigint").await;
    let now = Timestamp::from_micros(micros.parse().unwrap()).shifted(-60_000_000);
    let at = |attempt: LoggedAttempt| LoggedAttempt { created_at: now, ..attempt };
    let crm = |commit| at(attempt(event(commit, 0, "a"), "crm"));
    let slow = HttpExchange { took: Duration::from_micros(37_500), ..exchange(200) };
    let attempts = vec![
        crm(1),
        crm(2),
        failed(crm(3), 0, AttemptOutcome::Retry),
        LoggedAttempt { retry_count: 1, exchange: Arc::new(slow), ..crm(3) },
        failed(crm(4), 0, AttemptOutcome::Retry),
        failed(crm(4), 1, AttemptOutcome::Retry),
        failed(crm(4), 2, AttemptOutcome::Dead),
        at(attempt(event(1, 0, "a"), "erp")),
        LoggedAttempt { created_at: now.shifted(-2 * 86_400_000_000), ..crm(5) },
    ];
    let old = now.shifted(-2 * 86_400_000_000);
    let batches = vec![
        LoggedBatch { created_at: now, endpoint: "batched".into(), ..batch(8, &["a", "b", "c"]) },
        LoggedBatch { created_at: old, endpoint: "batched".into(), ..batch(9, &["a", "b"]) },
    ];
    let dead = vec![letter(event(4, 0, "a"), "crm"), letter(event(4, 1, "a"), "erp")];
    let parked = vec![parked(event(6, 0, "a"), "crm"), parked(event(7, 0, "a"), "crm")];
    state.commit(&StateFlush { attempts, batches, dead, parked, ..StateFlush::default() }).await;
    let cases = [
        ("success_last_day", "success_rate::text", "crm", "0.75"),
        ("success_last_day", "success_rate::text", "*", "0.875"),
        ("success_last_day", "attempts::text || ' ' || given_up", "*", "11 1"),
        ("success_last_day", "attempts || ' ' || delivered || ' ' || given_up", "batched", "3 3 0"),
        ("duration_last_day", "round(mean_delivered_ms::numeric, 3)::text", "crm", "20.833"),
        ("duration_last_day", "longest_ms::text", "*", "37.5"),
        ("duration_last_day", "attempts || ' ' || mean_ms", "batched", "3 12.5"),
        (
            "retries_last_day",
            "retry_count || ':' || deliveries || ':' || delivered",
            "crm",
            "0:2:2 1:1:1 2:1:0",
        ),
        ("retries_last_day", "retry_count || ':' || deliveries", "*", "0:6 1:1 2:1"),
        ("dead_letter_queue", "size::text", "crm", "1"),
        ("dead_letter_queue", "size::text || ' ' || being_resent", "*", "2 0"),
        ("backlog_size", "size::text || ' ' || (bytes > 0)", "crm", "2 true"),
        ("backlog_size", "size::text", "*", "2"),
    ];
    for (view, answer, endpoint, expected) in cases {
        let query = format!(
            "SELECT string_agg(answer, ' ' ORDER BY answer) FROM (SELECT {answer} AS answer \
             FROM walhook.{view} WHERE slot = '{SLOT}' AND endpoint = '{endpoint}') AS answers"
        );
        assert_eq!(state.text(&query).await, expected, "case: {view} of {endpoint}");
    }
}
