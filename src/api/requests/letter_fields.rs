//! How dead letters are chosen and shown, for all calls that have to do with them.

use serde::Deserialize;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::ObjectBuilder;
use utoipa::openapi::schema::Schema;
use utoipa::openapi::schema::SchemaType;

use crate::api::answers::problem::ProblemResponse;
use crate::api::requests::field_kinds::AskedEvent;
use crate::api::requests::field_kinds::AskedTime;
use crate::api::requests::field_kinds::BoundedNumber;
use crate::api::requests::field_kinds::FieldWords;
use crate::api::requests::field_kinds::IdList;
use crate::api::requests::field_kinds::IsoTime;
use crate::api::requests::field_kinds::KnownWord;
use crate::api::requests::field_kinds::OneWord;
use crate::api::requests::field_kinds::words_schema;
use crate::api::requests::fields::bad;
use crate::api::requests::fields::either;
use crate::store::dead_letters::DeadLetterId;
use crate::store::dead_letters::DeathClass;
use crate::store::dead_letters::LetterSummary;
use crate::store::dead_letters::selection::LetterFilter;
use crate::store::dead_letters::selection::LetterState;

pub(crate) const PAGE: u32 = 100;
const PAGE_MAX: u32 = 1000;

/// Letters a second that one resend may ask for.
const RATE_MAX: u32 = 100_000;

/// Why a letter was given up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeathWords;

impl FieldWords for DeathWords {
    type Meaning = ();

    fn words() -> Vec<(&'static str, ())> {
        DeathClass::NAMES.map(|name| (name, ())).to_vec()
    }
}

/// States of letters, and words for several of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StateWords;

impl FieldWords for StateWords {
    type Meaning = Vec<LetterState>;

    fn words() -> Vec<(&'static str, Vec<LetterState>)> {
        let mut words =
            vec![("open", LetterState::OPEN.to_vec()), ("all", LetterState::ALL.to_vec())];
        words.extend(LetterState::ALL.iter().map(|state| (state.as_str(), vec![*state])));
        words
    }
}

// Aliases: what derives schemas takes no parameters of a field's type.
type DeathWord = KnownWord<DeathWords>;
type StateWord = OneWord<StateWords>;
type PageSize = BoundedNumber<1, PAGE_MAX>;
type LetterRate = BoundedNumber<1, RATE_MAX>;

/// What says which letters are meant.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct LetterChoice {
    /// Name of an endpoint
    endpoint: Option<String>,
    /// Same as endpoint
    webhook_id: Option<String>,
    /// Event type
    event_type: Option<String>,
    /// Why it was given up
    class: Option<DeathWord>,
    /// Died from this time on (ISO 8601 with an offset, or a day)
    from: Option<AskedTime>,
    /// Died before this time
    before: Option<AskedTime>,
    /// Value that names the row: that of the first column of its primary key
    key: Option<String>,
    /// Same as key
    task_id: Option<String>,
    /// Event id, evt_ and 40 hex digits
    event_id: Option<AskedEvent>,
}

impl LetterChoice {
    /// # Errors
    /// Two names of one parameter say two things.
    pub(crate) fn filter(self) -> Result<LetterFilter, ProblemResponse> {
        Ok(LetterFilter {
            ids: None,
            endpoint: either(("endpoint", self.endpoint), ("webhook_id", self.webhook_id))?,
            event_type: self.event_type,
            class: self.class.map(|class| class.0),
            from: self.from.map(|from| from.0),
            before: self.before.map(|before| before.0),
            row_key: either(("key", self.key), ("task_id", self.task_id))?,
            event: self.event_id.map(|event| event.0),
            states: None,
        })
    }
}

/// In which state letters are.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct StateChoice {
    /// A state, open (which is the default), or all
    pub(crate) state: Option<StateWord>,
}

/// Which page of a list.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct PageChoice {
    /// 100 if it is left out
    pub(crate) limit: Option<PageSize>,
    /// next_cursor of the page before
    pub(crate) cursor: Option<String>,
}

/// Letters by their numbers, or all of them.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct LetterNumbers {
    pub(crate) ids: Option<IdList>,
    /// Needed to mean all letters
    #[serde(default)]
    pub(crate) all: bool,
    /// Only counts
    #[serde(default)]
    pub(crate) dry_run: bool,
}

/// How letters are sent again.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct ResendFields {
    /// Letters a second, instead of `[dead_letters] resend_rate`
    pub(crate) rate: Option<LetterRate>,
    /// Another endpoint than their own, which gets copies
    pub(crate) to: Option<String>,
}

/// The letters that a body means; `what` is to be done to all of them only if it says so.
///
/// # Errors
/// It says of none that it is meant.
pub(crate) fn meant(
    choice: LetterChoice,
    numbers: &LetterNumbers,
    what: &str,
) -> Result<LetterFilter, ProblemResponse> {
    let ids = numbers.ids.as_ref().map(|ids| ids.0.iter().copied().map(DeadLetterId).collect());
    let filter = LetterFilter { ids, ..choice.filter()? };
    if filter == LetterFilter::default() && !numbers.all {
        return Err(bad(format!(
            "say which letters to {what}, by ids, key, event_id, endpoint, event_type, class, from \
             or before; or all of them with \"all\": true"
        )));
    }
    Ok(filter)
}

/// A dead letter.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeadLetter)]
pub(crate) struct ShownLetter {
    id: i64,
    #[schema(schema_with = letter_states)]
    state: &'static str,
    endpoint: String,
    webhook_id: String,
    key: Option<String>,
    task_id: Option<String>,
    event_id: String,
    event_type: String,
    table: String,
    class: String,
    reason: String,
    http_status: Option<u16>,
    attempts: u32,
    retry_count: u32,
    committed_at: IsoTime,
    first_attempt_at: Option<IsoTime>,
    last_attempt_at: Option<IsoTime>,
    died_at: IsoTime,
    resends: u32,
    closed_at: Option<IsoTime>,
    body_bytes: u32,
}

pub(crate) fn letter_states() -> RefOr<Schema> {
    words_schema(LetterState::ALL.map(LetterState::as_str))
}

impl ShownLetter {
    pub(crate) fn of(letter: &LetterSummary) -> Self {
        Self {
            id: letter.id.0,
            state: letter.state.as_str(),
            endpoint: letter.endpoint.to_string(),
            webhook_id: letter.endpoint.to_string(),
            key: letter.row_key.clone(),
            task_id: letter.row_key.clone(),
            event_id: letter.event.id.to_string(),
            event_type: letter.event.event_type.to_string(),
            table: letter.event.table.to_string(),
            class: letter.class.clone(),
            reason: letter.reason.clone(),
            http_status: letter.status,
            attempts: letter.attempts,
            retry_count: letter.attempts.saturating_sub(1),
            committed_at: IsoTime(letter.event.committed),
            first_attempt_at: letter.first_attempt.map(IsoTime),
            last_attempt_at: letter.last_attempt.map(IsoTime),
            died_at: IsoTime(letter.died_at),
            resends: letter.resends,
            closed_at: letter.closed_at.map(IsoTime),
            body_bytes: letter.body_bytes,
        }
    }
}

/// A letter with its body, which is as it would be sent.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WholeDeadLetter)]
pub(crate) struct WholeLetter {
    #[serde(flatten)]
    pub(crate) letter: ShownLetter,
    #[schema(schema_with = body_schema)]
    pub(crate) body: Option<Box<RawValue>>,
}

fn body_schema() -> RefOr<Schema> {
    let any = ObjectBuilder::new().schema_type(SchemaType::AnyValue);
    let meaning = "JSON, or a text; null if it was too large to be kept or to be shown";
    any.description(Some(meaning)).into()
}
