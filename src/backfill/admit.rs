//! What is looked at before a backfill is ordered: that its rows can be read, and that an endpoint gets them.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio_postgres::Client;

use crate::api::requests::backfill_calls::BackfillOffer;
use crate::api::requests::backfill_calls::BackfillRefusal;
use crate::api::requests::backfill_calls::BackfillRequest;
use crate::api::requests::backfill_calls::TableWish;
use crate::backfill::context::BackfillContext;
use crate::backfill::table;
use crate::backfill::table::TableError;
use crate::backfill::table::TableFacts;
use crate::config::configuration::Settings;
use crate::flow::relation::TableName;
use crate::store;
use crate::store::backfills;
use crate::store::backfills::BackfillWish;
use crate::store::backfills::ReadOrder;
use crate::store::error::StoreError;
use crate::store::state_error::StateError;

/// How long the rows may be counted.
const COUNT_MAX: Duration = Duration::from_secs(30);

/// Answers a request.
pub(super) async fn answer(service: &BackfillContext, request: BackfillRequest) {
    let BackfillRequest::Order { wishes, dry_run, count, outcome } = request else { return };
    let answered = order(service, &wishes, dry_run, count).await;
    outcome.send(answered).ok(); // the client of the API may have gone
}

async fn order(
    service: &BackfillContext,
    wishes: &[TableWish],
    dry_run: bool,
    count: bool,
) -> Result<Vec<BackfillOffer>, BackfillRefusal> {
    let session = store::connect(&service.source).await.map_err(|error| away(&error))?;
    let mut offers = Vec::new();
    let settings = service.current.borrow().clone();
    let standby = match &service.standby {
        Some(server) if count => Some(store::connect(server).await.map_err(|error| away(&error))?),
        _ => None,
    };
    // Where the rows will be read.
    let counter = &standby.as_ref().unwrap_or(&session).client;
    for wish in wishes {
        let counter = count.then_some(counter);
        offers.push(offer(&settings, &session.client, wish, counter).await?);
    }
    if dry_run {
        return Ok(offers);
    }
    // All of them or none: nothing is ordered before all are looked at.
    let stored = async {
        let mut state = service.pool.session().await.map_err(StateError::from)?;
        for offer in &mut offers {
            let now = service.clock.now();
            let stored = backfills::order(state.client(), service.slot(), &offer.wish, now).await?;
            tracing::info!(backfill = %stored.id, table = %stored.wish.table, "a backfill is ordered");
            offer.stored = Some(stored);
        }
        Ok::<(), StateError>(())
    };
    stored
        .await
        .map_err(|error| BackfillRefusal::new(503, format!("cannot write it down: {error}")))?;
    Ok(offers)
}

pub(super) async fn offer(
    settings: &Settings,
    client: &Client,
    wish: &TableWish,
    counter: Option<&Client>,
) -> Result<BackfillOffer, BackfillRefusal> {
    let table = &wish.table;
    let event_types = takers(settings, table, wish.event_type.as_ref());
    let event_types = event_types.map_err(|detail| BackfillRefusal::new(422, detail))?;
    let publication = &settings.postgres.publication;
    let facts = table::describe(client, table, publication).await.map_err(refused)?;
    let read_by = match wish.read_by {
        Some(ReadOrder::Key) if facts.key.is_empty() => {
            return Err(refused(TableError::NoKey { table: table.clone() }));
        }
        Some(order) => order,
        None if facts.key.is_empty() => ReadOrder::Ctid,
        None => ReadOrder::Key,
    };
    let explained = format!("EXPLAIN (FORMAT JSON) {}", select(&facts, wish, "1"));
    let estimate = read_only(client, &explained).await.map_err(|error| wrong(wish, error))?;
    let estimate = estimate.pointer("/0/Plan/Plan Rows").and_then(Value::as_f64);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a guess")]
    let estimate = estimate.map(|rows| rows.max(0.0) as u64);
    let counted = match counter {
        Some(counter) => {
            let question = select(&facts, wish, "to_json(count(*))");
            let rows = read_only(counter, &question).await.map_err(|error| wrong(wish, error))?;
            rows.as_u64()
        }
        None => None,
    };
    Ok(BackfillOffer {
        wish: BackfillWish {
            table: table.clone(),
            filter: wish.filter.clone(),
            endpoints: wish.endpoints.clone(),
            event_type: wish.event_type.clone(),
            per_second: wish.per_second,
            read_by,
            estimate: counted.or(estimate),
        },
        event_types,
        estimate,
        counted,
        stored: None,
    })
}

/// The event types that the rows become.
pub(super) fn takers(
    settings: &Settings,
    table: &TableName,
    wanted: Option<&Arc<str>>,
) -> Result<Vec<Arc<str>>, String> {
    let rules = settings.events.iter().filter(|rule| rule.table == *table);
    let types: Vec<Arc<str>> = rules.clone().map(|rule| Arc::clone(&rule.event_type)).collect();
    let chosen: Vec<Arc<str>> = match wanted {
        Some(wanted) => types.iter().filter(|known| *known == wanted).cloned().collect(),
        None => {
            rules.filter(|rule| rule.on.read).map(|rule| Arc::clone(&rule.event_type)).collect()
        }
    };
    if !chosen.is_empty() {
        return Ok(chosen);
    }
    let names = types.iter().map(|name| &**name).collect::<Vec<_>>().join(", ");
    let detail = match (types.is_empty(), wanted) {
        (true, _) => format!("no [[event]] is of table {table}: add one, or check the name"),
        (false, Some(wanted)) => {
            format!("{wanted:?} is no event type of table {table}: there are {names}")
        }
        (false, None) => format!(
            "no [[event]] of table {table} asks for rows: add \"read\" to its `on`, or name one with \
             --as (\"as\"): {names}"
        ),
    };
    Err(detail)
}

/// What is read, as one statement.
fn select(facts: &TableFacts, wish: &TableWish, selected: &str) -> String {
    let only = if facts.has_partitions() { "" } else { "ONLY " };
    let own = facts.row_filter.as_deref().into_iter().chain(wish.filter.as_deref());
    let conditions: String = own.map(|condition| format!(" AND (\n{condition}\n)")).collect();
    format!("SELECT {selected} FROM {only}{} WHERE true{conditions}", wish.table.quoted())
}

/// Runs one statement that writes nothing: over the extended protocol, which takes no second one.
async fn read_only(client: &Client, statement: &str) -> Result<Value, StoreError> {
    let limit = COUNT_MAX.as_millis();
    let begin = format!("BEGIN READ ONLY; SET LOCAL statement_timeout = {limit}");
    client.batch_execute(&begin).await?;
    let answered = client.query_one(statement, &[]).await;
    client.batch_execute("ROLLBACK").await?;
    Ok(answered?.try_get(0)?)
}

fn refused(error: TableError) -> BackfillRefusal {
    match error {
        TableError::Store(error) => away(&error),
        error => BackfillRefusal::new(422, error.to_string()),
    }
}

fn wrong(wish: &TableWish, error: StoreError) -> BackfillRefusal {
    match error {
        StoreError::Refused(said) if wish.filter.is_some() => {
            let said = said.message;
            let detail = format!(
                "PostgreSQL does not take `where`: {said}; names outside of pg_catalog need their schema"
            );
            BackfillRefusal::new(422, detail)
        }
        error => away(&error),
    }
}

fn away(error: &StoreError) -> BackfillRefusal {
    BackfillRefusal::new(503, format!("the source cannot be asked at the moment: {error}"))
}
