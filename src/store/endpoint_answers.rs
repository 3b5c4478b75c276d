//! What endpoints answered to events, as the push log has it: for write-backs that say it.

use std::collections::HashMap;

use serde_json::Value;
use tokio_postgres::Transaction;
use tokio_postgres::types::Type;

use crate::flow::event::EventId;
use crate::store::sql::SqlParams;
use crate::store::sql::read;
use crate::store::state_error::StateError;

/// The last word about an event.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Answered {
    /// `None` for an answer that is no JSON, or was not kept whole.
    pub response: Option<Value>,
    /// Why it was not taken, if it was not.
    pub error: Option<String>,
}

impl Answered {
    /// What a JSON pointer leads to, as text: a string without its quotes, null as nothing.
    pub(crate) fn at(&self, pointer: &str) -> Option<String> {
        match self.response.as_ref()?.pointer(pointer)? {
            Value::Null => None,
            Value::String(text) => Some(text.replace('\0', "")),
            other => Some(other.to_string()),
        }
    }
}

/// The answers to these events, each of which was `delivered` to every endpoint or not: of several
/// attempts the last that ended so. An event without an attempt has none.
pub(crate) async fn of_events(
    tx: &Transaction<'_>,
    slot: &str,
    events: &[(EventId, bool)],
) -> Result<HashMap<EventId, Answered>, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.column(Type::TEXT_ARRAY, events.iter().map(|(event, _)| event.to_string()));
    params.column(Type::BOOL_ARRAY, events.iter().map(|(_, delivered)| *delivered));
    let rows = tx
        .query_typed(
            "SELECT DISTINCT ON (w.event_id) w.event_id, l.response_body,
                    CASE WHEN NOT w.delivered THEN l.error_message END AS error
               FROM unnest($2::text[], $3::boolean[]) AS w (event_id, delivered)
               JOIN walhook.push_log_events l ON l.slot = $1 AND l.event_id = w.event_id
              ORDER BY w.event_id,
                    l.outcome = CASE WHEN w.delivered THEN 'delivered' ELSE 'dead' END DESC,
                    l.created_at DESC, l.id DESC",
            &params.list(),
        )
        .await?;
    let answered = |row: &tokio_postgres::Row| {
        let event = read::<&str>(row, "event_id")?
            .parse()
            .map_err(|cause| StateError::unreadable("push_log_events", cause))?;
        let body: Option<&str> = read(row, "response_body")?;
        let response = body.and_then(|body| serde_json::from_str(body).ok());
        Ok((event, Answered { response, error: read(row, "error")? }))
    };
    rows.iter().map(answered).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_pointer_leads_to_is_text() {
        let response = serde_json::json!({
            "msgid": "m-1", "errcode": 0, "none": null, "users": ["a"], "deep": { "er": true },
        });
        let answered = Answered { response: Some(response), error: None };
        let cases = [
            ("/msgid", Some("m-1")),
            ("/errcode", Some("0")),
            ("/none", None),
            ("/nowhere", None),
            ("/users", Some("[\"a\"]")),
            ("/deep/er", Some("true")),
        ];
        for (pointer, expected) in cases {
            assert_eq!(answered.at(pointer).as_deref(), expected, "case: {pointer}");
        }
        assert_eq!(Answered::default().at("/msgid"), None);
    }
}
