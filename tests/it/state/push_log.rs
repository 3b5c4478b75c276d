//! The push log: written whole, found again, and gone when its time is over.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use walhook::flow::event::Event;
use walhook::flow::event::Facts;
use walhook::flow::headers::Headers;
use walhook::flow::time::Timestamp;
use walhook::flow::verdict::Exchange;
use walhook::flow::verdict::Failure;
use walhook::flow::verdict::FailureClass;
use walhook::flow::verdict::Verdict;
use walhook::store::flush::Flush;
use walhook::store::partitions::drop_old;
use walhook::store::partitions::ensure_ahead;
use walhook::store::push_log::Attempt;
use walhook::store::push_log::AttemptOutcome;
use walhook::store::push_log::Filter;
use walhook::store::push_log::list;

use super::HOSTILE;
use super::NOW;
use super::SLOT;
use super::State;
use super::after;
use super::event;
use super::letter;
use super::parked;

pub(super) fn attempt(event: Event, endpoint: &str) -> Attempt {
    Attempt {
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

fn exchange(status: u16) -> Exchange {
    Exchange {
        verdict: Verdict::Delivered,
        failure: None,
        status: Some(status),
        took: Duration::from_micros(12_500),
        request_headers: Headers::default(),
        response_headers: Headers::default(),
        response_body: Bytes::new(),
    }
}

fn failed(attempt: Attempt, retry_count: u32, outcome: AttemptOutcome) -> Attempt {
    let failure = Failure { class: FailureClass::Timeout, detail: "no answer in 10s".to_owned() };
    let exchange = Exchange { failure: Some(failure), status: None, ..exchange(0) };
    Attempt { retry_count, outcome, exchange: Arc::new(exchange), ..attempt }
}

async fn partitions(state: &State) -> String {
    let query = "SELECT coalesce(string_agg(relname, ' ' ORDER BY relname), '') FROM pg_class \
                 WHERE relnamespace = 'walhook'::regnamespace AND relkind = 'r' \
                 AND relname LIKE 'push\\_log\\_2%'";
    state.text(query).await
}

#[tokio::test]
async fn an_attempt_is_kept_with_every_field() {
    let mut state = State::create().await;
    let pairs = |pairs: &[(&str, &str)]| {
        let mut headers = Headers::default();
        pairs.iter().for_each(|(name, value)| headers.push(name, value.as_bytes()));
        headers
    };
    let failure = Failure { class: FailureClass::Status, detail: HOSTILE.to_owned() };
    let exchange = Exchange {
        failure: Some(failure),
        request_headers: pairs(&[("authorization", "***"), ("x-hostile", HOSTILE)]),
        response_headers: pairs(&[("set-cookie", "a=1"), ("set-cookie", "b=2")]),
        ..exchange(503)
    };
    let facts = Facts::new(vec![("id".into(), HOSTILE.to_owned()), ("b".into(), String::new())]);
    let written = Attempt {
        retry_count: 2,
        outcome: AttemptOutcome::Retry,
        exchange: Arc::new(exchange),
        request_body: Some(Bytes::from(HOSTILE)),
        response_body: Some(Bytes::from_static(b"nul \0 and no utf-8 \xFF")),
        replay: true,
        ..attempt(Event { facts, ..event(9, 4, "a") }, HOSTILE)
    };
    // No partition was made ahead: the flush makes the day that it needs.
    state.commit(&Flush { attempts: vec![written.clone()], ..Flush::default() }).await;
    assert_eq!(partitions(&state).await, "push_log_20251122");
    let found = list(state.client(), SLOT, &Filter::default(), None, 10).await.unwrap();
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
        Attempt { created_at: after(60), ..attempt(event(2, 0, "T_2"), "erp") },
        Attempt { created_at: after(86_400), ..attempt(event(3, 0, "T_3"), "erp") },
    ];
    state.commit(&Flush { attempts, ..Flush::default() }).await;
    assert_eq!(partitions(&state).await, "push_log_20251122 push_log_20251123");
    let text = |text: &str| Some(text.to_owned());
    let plain = Filter::default;
    let cases = [
        ("all", plain(), vec!["T_3", "T_2", "T_2", "T_1"]),
        ("event", Filter { event: Some(event(2, 0, "T_2").id), ..plain() }, vec!["T_2", "T_2"]),
        ("key", Filter { row_key: text("T_1"), ..plain() }, vec!["T_1"]),
        ("endpoint", Filter { endpoint: text("erp"), ..plain() }, vec!["T_3", "T_2"]),
        ("status", Filter { status: Some(200), ..plain() }, vec!["T_3", "T_2", "T_1"]),
        ("class", Filter { class: text("timeout"), ..plain() }, vec!["T_2"]),
        ("type", Filter { event_type: text("other"), ..plain() }, vec![]),
        ("nul", Filter { endpoint: text("\0"), ..plain() }, vec![]),
        ("outcome", Filter { outcome: Some(AttemptOutcome::Retry), ..plain() }, vec!["T_2"]),
        ("from", Filter { from: Some(after(60)), ..plain() }, vec!["T_3", "T_2"]),
        ("before", Filter { before: Some(after(60)), ..plain() }, vec!["T_2", "T_1"]),
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
async fn days_are_made_ahead_and_dropped_when_their_time_is_over() {
    let mut state = State::create().await;
    assert_eq!(ensure_ahead(state.client(), NOW).await.unwrap().len(), 2);
    assert_eq!(ensure_ahead(state.client(), NOW).await.unwrap(), []);
    assert_eq!(ensure_ahead(state.client(), after(86_400)).await.unwrap().len(), 1);
    let all = "push_log_20251122 push_log_20251123 push_log_20251124";
    assert_eq!(partitions(&state).await, all);
    state
        .commit(&Flush { attempts: vec![attempt(event(1, 0, "a"), "crm")], ..Flush::default() })
        .await;
    // With seven days kept, the 29th is the last on which the 22nd is there.
    let kept = drop_old(state.client(), after(7 * 86_400), 7).await.unwrap();
    assert_eq!(kept, Vec::<String>::new());
    // Another table whose name only looks alike is not ours to drop.
    let sql = state.sql().await;
    sql.batch_execute("CREATE TABLE walhook.push_log_20000101_backup (id int)").await.unwrap();
    // A day that somebody detached before they died.
    sql.batch_execute("ALTER TABLE walhook.push_log DETACH PARTITION walhook.push_log_20251123")
        .await
        .unwrap();
    let dropped = drop_old(state.client(), after(9 * 86_400), 7).await.unwrap();
    assert_eq!(dropped, ["push_log_20251122", "push_log_20251123"]);
    assert_eq!(partitions(&state).await, "push_log_20000101_backup push_log_20251124");
    let left = list(state.client(), SLOT, &Filter::default(), None, 10).await.unwrap();
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
    let at = |attempt: Attempt| Attempt { created_at: now, ..attempt };
    let crm = |commit| at(attempt(event(commit, 0, "a"), "crm"));
    let slow = Exchange { took: Duration::from_micros(37_500), ..exchange(200) };
    let attempts = vec![
        crm(1),
        crm(2),
        failed(crm(3), 0, AttemptOutcome::Retry),
        Attempt { retry_count: 1, exchange: Arc::new(slow), ..crm(3) },
        failed(crm(4), 0, AttemptOutcome::Retry),
        failed(crm(4), 1, AttemptOutcome::Retry),
        failed(crm(4), 2, AttemptOutcome::Dead),
        at(attempt(event(1, 0, "a"), "erp")),
        Attempt { created_at: now.shifted(-2 * 86_400_000_000), ..crm(5) },
    ];
    let dead = vec![letter(event(4, 0, "a"), "crm"), letter(event(4, 1, "a"), "erp")];
    let parked = vec![parked(event(6, 0, "a"), "crm"), parked(event(7, 0, "a"), "crm")];
    state.commit(&Flush { attempts, dead, parked, ..Flush::default() }).await;
    let cases = [
        ("success_last_day", "success_rate::text", "crm", "0.75"),
        ("success_last_day", "success_rate::text", "*", "0.8"),
        ("success_last_day", "attempts::text || ' ' || given_up", "*", "8 1"),
        ("duration_last_day", "round(mean_delivered_ms::numeric, 3)::text", "crm", "20.833"),
        ("duration_last_day", "longest_ms::text", "*", "37.5"),
        (
            "retries_last_day",
            "retry_count || ':' || deliveries || ':' || delivered",
            "crm",
            "0:2:2 1:1:1 2:1:0",
        ),
        ("retries_last_day", "retry_count || ':' || deliveries", "*", "0:3 1:1 2:1"),
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
