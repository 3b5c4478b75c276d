//! Which dead letters are meant: the states of one, and the filter of lists, counts and orders.

use tokio_postgres::types::Type;

use crate::flow::event::EventId;
use crate::flow::time::Timestamp;
use crate::store::sql::SqlParams;
use crate::store::sql::clean_unicode;
use crate::store::stored_event::DeadLetterId;

/// Where a letter stands; see the picture of the module.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum LetterState {
    Dead,
    Requested,
    Resending,
    Delivered,
    Expired,
    Discarded,
}

impl LetterState {
    pub const ALL: [Self; 6] = [
        Self::Dead,
        Self::Requested,
        Self::Resending,
        Self::Delivered,
        Self::Expired,
        Self::Discarded,
    ];

    /// What is in the queue: not closed.
    pub const OPEN: [Self; 3] = [Self::Dead, Self::Requested, Self::Resending];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Requested => "requested",
            Self::Resending => "resending",
            Self::Delivered => "delivered",
            Self::Expired => "expired",
            Self::Discarded => "discarded",
        }
    }
}

/// What `discard` may close.
pub(crate) const DISCARDABLE: [LetterState; 2] = [LetterState::Dead, LetterState::Requested];

/// Which letters are meant; a field that is `None` does not matter.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LetterFilter {
    pub ids: Option<Vec<DeadLetterId>>,
    pub endpoint: Option<String>,
    pub event_type: Option<String>,
    /// See `DeathClass::as_str`.
    pub class: Option<String>,
    /// A time range of death: from this on, and before that.
    pub from: Option<Timestamp>,
    pub before: Option<Timestamp>,
    pub row_key: Option<String>,
    pub event: Option<EventId>,
    /// `None` means those in the queue, [`LetterState::OPEN`].
    pub states: Option<Vec<LetterState>>,
}

/// The parameters `$1` to `$10` of [`MATCHES`]; of the states that the filter asks for, only those
/// in `allowed`.
pub(crate) fn filter_params<'a>(
    slot: &'a str,
    filter: &'a LetterFilter,
    allowed: &[LetterState],
) -> SqlParams<'a> {
    let text = |text: &'a Option<String>| text.as_deref().map(|text| clean_unicode(text));
    let wanted = filter.states.as_deref().unwrap_or(&LetterState::OPEN);
    let states = wanted.iter().filter(|state| allowed.contains(state));
    let states: Vec<&str> = states.map(|state| state.as_str()).collect();
    let ids = filter.ids.as_ref().map(|ids| ids.iter().map(|id| id.0).collect::<Vec<_>>());
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.put(Type::INT8_ARRAY, ids);
    params.put(Type::TEXT, text(&filter.endpoint));
    params.put(Type::TEXT, text(&filter.event_type));
    params.put(Type::TEXT, text(&filter.class));
    params.put(Type::TIMESTAMPTZ, filter.from);
    params.put(Type::TIMESTAMPTZ, filter.before);
    params.put(Type::TEXT, text(&filter.row_key));
    params.put(Type::TEXT, filter.event.map(|event| event.to_string()));
    params.put(Type::TEXT_ARRAY, states);
    params
}

/// The rows that a [`LetterFilter`] means. The planner sees the values and drops what is null.
pub(crate) const MATCHES: &str = "slot = $1 AND ($2::bigint[] IS NULL OR id = ANY ($2))
     AND ($3::text IS NULL OR endpoint = $3) AND ($4::text IS NULL OR event_type = $4)
     AND ($5::text IS NULL OR failure_class = $5) AND ($6::timestamptz IS NULL OR died_at >= $6)
     AND ($7::timestamptz IS NULL OR died_at < $7) AND ($8::text IS NULL OR row_key = $8)
     AND ($9::text IS NULL OR event_id = $9) AND state = ANY ($10)";
