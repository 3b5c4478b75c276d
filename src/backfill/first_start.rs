//! Backfills that the configuration asks for by `backfill = true`: ordered once, with the slot's beginning.
//!
//! The order is written in the transaction that begins the slot's books (`store::backfills::begin_slot`): a
//! walhook that ends before it is started anew as the first one, and after it none is.

use anyhow::anyhow;
use tokio_postgres::Client;

use crate::api::requests::backfill_calls::TableWish;
use crate::backfill::admit;
use crate::config::configuration::Settings;
use crate::config::settings::EventRule;
use crate::store::backfills::BackfillWish;

/// The rules that ask for it.
pub(crate) fn rules(settings: &Settings) -> impl Iterator<Item = &EventRule> {
    settings.events.iter().filter(|rule| rule.backfill)
}

/// What to order: each rule gets its rows under its own type.
///
/// # Errors
/// A table that cannot be read, or that the server cannot be asked.
pub(crate) async fn wishes(
    settings: &Settings,
    client: &Client,
) -> anyhow::Result<Vec<BackfillWish>> {
    let mut wishes = Vec::new();
    for rule in rules(settings) {
        let wish = TableWish {
            table: rule.table.clone(),
            filter: None,
            endpoints: Vec::new(),
            event_type: Some(rule.event_type.clone()),
            per_second: None,
            read_by: None,
        };
        let offer = admit::offer(settings, client, &wish, None).await;
        let offer = offer.map_err(|refusal| {
            anyhow!("cannot order the rows for event {}: {refusal}", rule.event_type)
        })?;
        wishes.push(offer.wish);
    }
    Ok(wishes)
}

/// The command that does by hand what a first start does by itself.
pub(crate) fn by_hand(rule: &EventRule) -> String {
    format!("walhook backfill {} --as {}", rule.table, rule.event_type)
}
