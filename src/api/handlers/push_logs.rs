//! `GET /api/v1/push-logs`: every attempt that was made, the newest first.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;

use crate::api::answers::problem::ProblemResponse;
use crate::api::openapi::request_shape::QueryFields;
use crate::api::requests::field_kinds::AskedEvent;
use crate::api::requests::field_kinds::AskedTime;
use crate::api::requests::field_kinds::BoundedNumber;
use crate::api::requests::field_kinds::FieldWords;
use crate::api::requests::field_kinds::IsoTime;
use crate::api::requests::field_kinds::KnownWord;
use crate::api::requests::field_kinds::OneWord;
use crate::api::requests::field_kinds::words_schema;
use crate::api::requests::fields::bad;
use crate::api::requests::fields::either;
use crate::api::surface::HttpSurface;
use crate::flow::time::Timestamp;
use crate::flow::verdict::FailureClass;
use crate::store::push_log;
use crate::store::push_log::AttemptOutcome;
use crate::store::push_log::PushLogCursor;
use crate::store::push_log::PushLogEntry;
use crate::store::push_log::filter::PushLogFilter;

const PAGE: u32 = 50;
/// With bodies of up to 1 MiB each, an answer is made in memory.
const PAGE_MAX: u32 = 200;

const OUTCOMES: [AttemptOutcome; 3] =
    [AttemptOutcome::Delivered, AttemptOutcome::Retry, AttemptOutcome::Dead];

/// The outcomes of an attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OutcomeWords;

impl FieldWords for OutcomeWords {
    type Meaning = AttemptOutcome;

    fn words() -> Vec<(&'static str, AttemptOutcome)> {
        OUTCOMES.map(|outcome| (outcome.as_str(), outcome)).to_vec()
    }
}

/// Why an attempt failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FailureWords;

impl FieldWords for FailureWords {
    type Meaning = ();

    fn words() -> Vec<(&'static str, ())> {
        FailureClass::NAMES.map(|name| (name, ())).to_vec()
    }
}

// Aliases: what derives schemas takes no parameters of a field's type.
pub(crate) type FailureWord = KnownWord<FailureWords>;
pub(crate) type OutcomeWord = OneWord<OutcomeWords>;
pub(crate) type HttpStatus = BoundedNumber<100, 999>;
type PageSize = BoundedNumber<1, PAGE_MAX>;

/// Which attempts are meant, and how many of them.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct AttemptQuery {
    /// Event id, evt_ and 40 hex digits
    event_id: Option<AskedEvent>,
    /// Event type
    event_type: Option<String>,
    /// Value that names the row: that of the first column of its primary key
    key: Option<String>,
    /// Same as key
    task_id: Option<String>,
    /// Name of an endpoint
    endpoint: Option<String>,
    /// Same as endpoint
    webhook_id: Option<String>,
    /// HTTP status
    status: Option<HttpStatus>,
    /// Failure class
    class: Option<FailureWord>,
    /// What the attempt meant for its delivery
    outcome: Option<OutcomeWord>,
    /// From this time on (ISO 8601 with an offset, or a day)
    from: Option<AskedTime>,
    /// Before this time
    before: Option<AskedTime>,
    /// 50 if it is left out
    limit: Option<PageSize>,
    /// next_cursor of the page before
    cursor: Option<String>,
}

/// A page of attempts.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AttemptPage {
    push_logs: Vec<ShownAttempt>,
    next_cursor: Option<String>,
    /// How far back was looked in the time that a page may take; null: to the end, or the page is full. There may be more, also where the page is empty: go on with next_cursor
    searched_from: Option<IsoTime>,
}

/// An attempt. The names are those of `idp-push`, beside walhook's own.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Attempt)]
pub(crate) struct ShownAttempt {
    /// Events of one request may share it
    id: i64,
    created_at: IsoTime,
    task_id: Option<String>,
    key: Option<String>,
    webhook_id: String,
    endpoint: String,
    event_id: String,
    event_type: String,
    table: String,
    retry_count: u32,
    #[schema(schema_with = outcome_words)]
    outcome: String,
    http_status: Option<u16>,
    failure_class: Option<String>,
    error_message: Option<String>,
    duration_ms: f64,
    #[schema(value_type = Option<Object>, additional_properties)]
    request_headers: Option<Value>,
    request_body: Option<String>,
    #[schema(value_type = Option<Object>, additional_properties)]
    response_headers: Option<Value>,
    response_body: Option<String>,
    replay: bool,
}

pub(crate) fn outcome_words() -> RefOr<Schema> {
    words_schema(OUTCOMES.map(AttemptOutcome::as_str))
}

pub(crate) async fn list(
    State(surface): State<HttpSurface>,
    QueryFields(query): QueryFields<AttemptQuery>,
) -> Result<Json<AttemptPage>, ProblemResponse> {
    let filter = PushLogFilter {
        event: query.event_id.map(|event| event.0),
        event_type: query.event_type,
        row_key: either(("key", query.key), ("task_id", query.task_id))?,
        endpoint: either(("endpoint", query.endpoint), ("webhook_id", query.webhook_id))?,
        status: query.status.and_then(|status| u16::try_from(status.0).ok()),
        class: query.class.map(|class| class.0),
        outcome: query.outcome.map(|outcome| outcome.0),
        from: query.from.map(|from| from.0),
        before: query.before.map(|before| before.0),
    };
    let limit = query.limit.map_or(PAGE, |limit| limit.0);
    let below = query.cursor.map(|text| cursor(&text)).transpose()?;
    let mut session = surface.queries.session().await?;
    let slot = surface.queries.slot();
    let now = surface.clock.now();
    let found = push_log::search(session.client(), slot, &filter, below, limit, now).await?;
    if found.entries.is_empty() && found.next.is_none() {
        surface.refuse_strangers(filter.endpoint.as_deref(), filter.event_type.as_deref())?;
    }
    let next = found.next.map(|PushLogCursor { created_at, id, place }| {
        format!("{}-{id}-{place}", created_at.micros())
    });
    Ok(Json(AttemptPage {
        push_logs: found.entries.into_iter().map(ShownAttempt::of).collect(),
        next_cursor: next,
        searched_from: found.searched_from.map(IsoTime),
    }))
}

/// A cursor as [`list`] gives it: microseconds, the number of the attempt, and the event's in it.
fn cursor(text: &str) -> Result<PushLogCursor, ProblemResponse> {
    let parse = || {
        let (rest, place) = text.rsplit_once('-')?;
        let (micros, id) = rest.rsplit_once('-')?;
        let created_at = Timestamp::from_micros(micros.parse().ok()?);
        Some(PushLogCursor { created_at, id: id.parse().ok()?, place: place.parse().ok()? })
    };
    parse()
        .ok_or_else(|| bad(format!("{text:?} is no cursor: give next_cursor of the page before")))
}

impl ShownAttempt {
    pub(crate) fn of(entry: PushLogEntry) -> Self {
        Self {
            id: entry.id,
            created_at: IsoTime(entry.created_at),
            task_id: entry.row_key.clone(),
            key: entry.row_key,
            webhook_id: entry.endpoint.clone(),
            endpoint: entry.endpoint,
            event_id: entry.event.to_string(),
            event_type: entry.event_type,
            table: entry.table.to_string(),
            retry_count: entry.retry_count,
            outcome: entry.outcome,
            http_status: entry.status,
            failure_class: entry.failure_class,
            error_message: entry.error_message,
            duration_ms: entry.duration_ms,
            request_headers: entry.request_headers,
            request_body: entry.request_body,
            response_headers: entry.response_headers,
            response_body: entry.response_body,
            replay: entry.replay,
        }
    }
}
