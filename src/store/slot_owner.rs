//! Which configuration a slot belongs to, as far as it can be told from its events.
//!
//! Two systems on one server may both have the default slot in their configurations. The one that reads a
//! slot confirms its WAL, and what the other one would have made of it is lost. So the events of the
//! configuration that reads a slot stand in `walhook.progress`:
//!
//! | events | kinship | may take the slot |
//! | --- | --- | --- |
//! | the same | [`OwnerKinship::Same`] | at any time |
//! | others, but of a table in common | [`OwnerKinship::Changed`] | a start does, when the slot is free; a standby only if nothing that the holder reads goes unread, and the holder ended cleanly |
//! | of other tables altogether | [`OwnerKinship::Foreign`] | a start does, when the slot is free and the last run ended cleanly; else only if an operator says so |
//!
//! Endpoints, filters and payloads do not matter: they change from day to day.

use std::collections::BTreeSet;

use tokio_postgres::Client;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use crate::config::settings::EventRule;
use crate::store::ownership::StateOwnership;
use crate::store::sql::SqlParams;
use crate::store::sql::clean_ascii;
use crate::store::sql::read;
use crate::store::state_error::StateError;

/// Events that a message names at most.
const NAMED_MAX: usize = 5;

/// The events of a configuration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SlotOwner {
    /// Table and event type.
    events: BTreeSet<(String, String)>,
}

/// What a configuration is to the one that has read the slot before.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum OwnerKinship {
    Same,
    /// Another version of it, most likely. `unread` are the tables that it does not read any more.
    Changed {
        unread: Vec<String>,
    },
    /// They have no table in common.
    Foreign,
}

impl SlotOwner {
    pub fn new(events: &[EventRule]) -> Self {
        let event = |rule: &EventRule| {
            let clean = |text: &str| clean_ascii(text).into_owned();
            (clean(&rule.table.to_string()), clean(&rule.event_type))
        };
        Self { events: events.iter().map(event).collect() }
    }

    /// What this configuration is to the one that `before` is of.
    pub fn kinship(&self, before: &Self) -> OwnerKinship {
        if self == before || before.events.is_empty() {
            return OwnerKinship::Same;
        }
        let (own, theirs) = (self.tables(), before.tables());
        if own.is_disjoint(&theirs) {
            return OwnerKinship::Foreign;
        }
        let unread = theirs.difference(&own).map(|table| (*table).to_owned()).collect();
        OwnerKinship::Changed { unread }
    }

    fn tables(&self) -> BTreeSet<&str> {
        self.events.iter().map(|(table, _)| table.as_str()).collect()
    }

    /// For messages.
    pub fn shown(&self) -> String {
        let event = |(table, event_type): &(String, String)| format!("{event_type} on {table}");
        let mut shown: Vec<String> = self.events.iter().take(NAMED_MAX).map(event).collect();
        if self.events.len() > NAMED_MAX {
            shown.push(format!("{} more", self.events.len() - NAMED_MAX));
        }
        shown.join(", ")
    }

    /// From a row of `walhook.progress`.
    pub(crate) fn read(row: &Row) -> Result<Option<Self>, StateError> {
        let list = |column| -> Result<Option<Vec<String>>, StateError> {
            let text = read::<Option<&str>>(row, column)?;
            let list = text.map(serde_json::from_str).transpose();
            list.map_err(|cause| StateError::unreadable("progress", cause))
        };
        let (tables, types) = (list("event_tables")?, list("event_types")?);
        let events = tables.zip(types).map(|(tables, types)| tables.into_iter().zip(types));
        Ok(events.map(|events| Self { events: events.collect() }))
    }

    /// Says that the slot is this configuration's from here on.
    ///
    /// # Errors
    /// That the statement failed.
    pub async fn save(
        &self,
        client: &Client,
        ownership: &StateOwnership,
    ) -> Result<(), StateError> {
        let mut params = SqlParams::default();
        params.put(Type::TEXT, ownership.slot.as_ref());
        params.put(Type::INT8, ownership.epoch);
        params.column(Type::TEXT_ARRAY, self.events.iter().map(|(table, _)| table.as_str()));
        params.column(Type::TEXT_ARRAY, self.events.iter().map(|(_, name)| name.as_str()));
        client
            .execute_typed(
                "UPDATE walhook.progress SET event_tables = $3, event_types = $4
                  WHERE slot = $1 AND partition = 0 AND epoch = $2",
                &params.list(),
            )
            .await?;
        Ok(())
    }
}

/// Another slot that is read through a publication, and the events of its configuration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct OwnerReader {
    pub slot: String,
    pub owner: Option<SlotOwner>,
}

/// The slots but `slot` that the state knows to be read through the publication `oid`, of whichever
/// database.
///
/// # Errors
/// That they could not be read.
pub(crate) async fn readers(
    client: &Client,
    slot: &str,
    oid: u32,
) -> Result<Vec<OwnerReader>, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.put(Type::OID, oid);
    let query = "SELECT p.slot, to_jsonb(p) ->> 'event_types' AS event_types,
                         to_jsonb(p) ->> 'event_tables' AS event_tables
                   FROM walhook.progress p
                  WHERE p.slot <> $1 AND $2 = ANY (p.publication_oids) ORDER BY p.slot";
    let rows = match client.query_typed(query, &params.list()).await.map_err(StateError::from) {
        // There is no state yet.
        Err(error) if error.sqlstate() == Some(&SqlState::UNDEFINED_TABLE) => return Ok(Vec::new()),
        rows => rows?,
    };
    let reader =
        |row: &Row| Ok(OwnerReader { slot: read(row, "slot")?, owner: SlotOwner::read(row)? });
    rows.iter().map(reader).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(events: &[(&str, &str)]) -> SlotOwner {
        let own = |(table, name): &(&str, &str)| ((*table).to_owned(), (*name).to_owned());
        SlotOwner { events: events.iter().map(own).collect() }
    }

    #[test]
    fn configurations_are_told_apart_by_their_tables() {
        let orders = owner(&[("public.orders", "order"), ("public.customers", "customer")]);
        assert_eq!(orders.kinship(&orders.clone()), OwnerKinship::Same);
        assert_eq!(orders.kinship(&owner(&[])), OwnerKinship::Same, "nothing was noted");
        let tasks = owner(&[("public.tasks", "order")]);
        assert_eq!(tasks.kinship(&orders), OwnerKinship::Foreign, "a type says nothing");
        let fewer = owner(&[("public.orders", "order.created")]);
        let unread = vec![String::from("public.customers")];
        assert_eq!(fewer.kinship(&orders), OwnerKinship::Changed { unread });
        assert_eq!(orders.kinship(&fewer), OwnerKinship::Changed { unread: Vec::new() });
    }

    #[test]
    fn a_message_names_a_few_events() {
        let many: Vec<String> = (0..9).map(|n| format!("public.t{n}")).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|table| (table.as_str(), "t")).collect();
        let shown = owner(&many).shown();
        assert!(shown.starts_with("t on public.t0, t on public.t1"), "{shown}");
        assert!(shown.ends_with("t on public.t4, 4 more"), "{shown}");
    }
}
