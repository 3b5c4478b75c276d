//! What became of messages: read from the user's own tables, for the management API.

use serde_json::Value;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::config::settings::MessageTables;
use crate::flow::time::Timestamp;
use crate::store::sql::SqlParams;
use crate::store::sql::read;
use crate::store::state_error::StateError;

/// More steps than any message has.
const STEPS_MAX: i64 = 10_000;

/// How far states are, the furthest last: a late `sent` does not hide a `read`.
const STATES: [&str; 5] = ["pending", "sent", "failed", "delivered", "read"];

/// A message with its steps, in their order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Message {
    pub message_id: String,
    /// The receiver's own id, once it has one.
    pub msgid: Option<String>,
    pub steps: Vec<Step>,
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Step {
    pub state: String,
    pub user: Option<String>,
    pub at: Timestamp,
    pub detail: Option<Value>,
}

impl Step {
    /// That a user was not reached says nothing of the others.
    fn is_of_one(&self) -> bool {
        let unreached = self.detail.as_ref().and_then(|detail| detail.get("unreached"));
        self.state == "failed" && unreached == Some(&Value::Bool(true))
    }

    fn rank(&self) -> Option<usize> {
        STATES.iter().position(|state| *state == self.state)
    }
}

impl Message {
    /// The step that says where it stands; `None` without any.
    pub(crate) fn status(&self) -> Option<&Step> {
        furthest(self.steps.iter().filter(|step| !step.is_of_one()))
    }

    /// The same for each user that a step names, in the order of their first ones.
    pub(crate) fn users(&self) -> Vec<(&str, &Step)> {
        let mut names: Vec<&str> = Vec::new();
        for name in self.steps.iter().filter_map(|step| step.user.as_deref()) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let of = |name: &str| {
            furthest(self.steps.iter().filter(|step| step.user.as_deref() == Some(name)))
        };
        names.into_iter().filter_map(|name| Some((name, of(name)?))).collect()
    }
}

fn furthest<'s>(steps: impl Iterator<Item = &'s Step>) -> Option<&'s Step> {
    steps.max_by_key(|step| step.rank())
}

/// A message, by the application's id or the receiver's; `None` if neither is known.
///
/// # Errors
/// The tables cannot be read.
pub(crate) async fn find(
    client: &Client,
    tables: &MessageTables,
    id: &str,
) -> Result<Option<Message>, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, id);
    let sql = format!(
        "SELECT message_id::text AS message_id, msgid::text AS msgid FROM {}
          WHERE message_id::text = $1 OR msgid::text = $1
          ORDER BY (message_id::text = $1) DESC LIMIT 1",
        tables.table.quoted()
    );
    let found = client.query_typed(&sql, &params.list()).await?;
    let known = found
        .first()
        .map(|row| Ok::<_, StateError>((read::<String>(row, "message_id")?, read(row, "msgid")?)));
    let known: Option<(String, Option<String>)> = known.transpose()?;
    let is_message = known.is_some();
    let (message_id, msgid) = known.unwrap_or_else(|| (id.to_owned(), None));
    let mut params = SqlParams::default();
    params.put(Type::TEXT, message_id.as_str());
    params.put(Type::TEXT, msgid.as_deref());
    params.put(Type::INT8, STEPS_MAX);
    let sql = format!(
        "SELECT state::text AS state, user_id::text AS user_id, detail::text AS detail,
                (extract(epoch FROM at) * 1000000)::bigint AS at
           FROM {} WHERE message_id::text IN ($1, $2) ORDER BY id LIMIT $3",
        tables.history.quoted()
    );
    let rows = client.query_typed(&sql, &params.list()).await?;
    drop(params);
    let step = |row: &tokio_postgres::Row| {
        let detail: Option<&str> = read(row, "detail")?;
        Ok::<_, StateError>(Step {
            state: read(row, "state")?,
            user: read(row, "user_id")?,
            at: Timestamp::from_micros(read(row, "at")?),
            detail: detail.and_then(|text| serde_json::from_str(text).ok()),
        })
    };
    let steps: Vec<Step> = rows.iter().map(step).collect::<Result<_, _>>()?;
    let is_known = is_message || !steps.is_empty();
    Ok(is_known.then_some(Message { message_id, msgid, steps }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// States and users; `!` stands behind the state of one who was not reached.
    type Told<'a> = &'a [(&'a str, Option<&'a str>)];

    fn message(steps: Told<'_>) -> Message {
        let step = |(at, (state, user)): (usize, &(&str, Option<&str>))| {
            let (name, unreached) = match state.strip_suffix('!') {
                Some(name) => (name, true),
                None => (*state, false),
            };
            Step {
                state: name.to_owned(),
                user: user.map(ToOwned::to_owned),
                at: Timestamp::from_seconds(i64::try_from(at).unwrap()),
                detail: unreached.then(|| serde_json::json!({ "unreached": true })),
            }
        };
        let steps = steps.iter().enumerate().map(step).collect();
        Message { message_id: "m".into(), msgid: None, steps }
    }

    #[test]
    fn states_only_go_forward_and_one_user_says_nothing_of_the_others() {
        let cases: [(Told<'_>, Option<&str>); 5] = [
            (&[], None),
            (&[("pending", None), ("sent", None)], Some("sent")),
            (&[("pending", None), ("read", Some("a")), ("sent", None)], Some("read")),
            (&[("sent", None), ("failed!", Some("a"))], Some("sent")),
            (&[("clicked", Some("a")), ("pending", None), ("failed", None)], Some("failed")),
        ];
        for (steps, expected) in cases {
            let message = message(steps);
            assert_eq!(message.status().map(|step| &*step.state), expected, "case: {steps:?}");
        }
        let both = message(&[("sent", None), ("failed!", Some("b")), ("read", Some("a"))]);
        let users = both.users().into_iter().map(|(name, step)| (name, &*step.state));
        assert_eq!(users.collect::<Vec<_>>(), [("b", "failed"), ("a", "read")]);
    }
}
