//! The catalogue of events: each type with the schema of its bodies, of the tables as they are; and what
//! has become of it while walhook runs.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::config::configuration::Settings;
use crate::config::settings::Endpoint;
use crate::config::settings::EventRule;
use crate::config::settings::PayloadSettings;
use crate::event::schema;
use crate::flow::relation::Relation;
use crate::flow::relation::TableName;
use crate::replication::sample;
use crate::store;
use crate::store::SqlSession;
use crate::store::error::StoreError;

/// Nobody who alters a table waits for the log.
const INTERVAL: Duration = Duration::from_secs(30);

/// One event type, and what its bodies look like.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CataloguedEvent {
    pub(crate) event_type: Arc<str>,
    pub(crate) table: TableName,
    pub(crate) on: Vec<&'static str>,
    /// `None` while there is no such table.
    pub(crate) schema: Option<Value>,
    /// Bodies in shapes of their own, by endpoint.
    pub(crate) own: Vec<(Arc<str>, Value)>,
}

/// The catalogue of a configuration, over a session of its own.
///
/// # Errors
/// The server cannot be asked.
pub(crate) async fn read(
    settings: &Settings,
    endpoints: &[Endpoint],
) -> Result<Vec<CataloguedEvent>, StoreError> {
    let server = &settings.postgres.server;
    let session = store::connect_within(server, store::ANSWER_SOON).await?;
    catalogue(settings, endpoints, &session.client).await
}

/// All of them, in the order of the configuration.
///
/// # Errors
/// The server cannot be asked.
pub(crate) async fn catalogue(
    settings: &Settings,
    endpoints: &[Endpoint],
    client: &Client,
) -> Result<Vec<CataloguedEvent>, StoreError> {
    let mut relations: HashMap<&TableName, Option<Relation>> = HashMap::new();
    for rule in &settings.events {
        if !relations.contains_key(&rule.table) {
            relations.insert(&rule.table, sample::described(client, &rule.table).await?);
        }
    }
    let found = |rule: &EventRule| relations.get(&rule.table).and_then(Option::as_ref);
    let events = settings.events.iter().map(|rule| {
        let relation = found(rule);
        let of = |payload: &PayloadSettings| {
            relation.map(|relation| schema::of_body(rule, payload, relation))
        };
        let own = endpoints.iter().filter(|endpoint| endpoint.takes(rule)).filter_map(|endpoint| {
            let own = endpoint.payload.as_ref().filter(|own| **own != rule.payload)?;
            Some((Arc::clone(&endpoint.name), of(own)?))
        });
        CataloguedEvent {
            event_type: Arc::clone(&rule.event_type),
            table: rule.table.clone(),
            on: rule.on.names(),
            schema: of(&rule.payload),
            own: own.collect(),
        }
    });
    Ok(events.collect())
}

/// Says so in the log when a table was altered so that bodies have another schema. Looks until `stop`;
/// that the server cannot be asked is the stream's to say.
pub(crate) async fn watch(current: watch::Receiver<Arc<Settings>>, stop: CancellationToken) {
    let mut session = None;
    let mut known: BTreeMap<Arc<str>, Value> = BTreeMap::new();
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let settings = Arc::clone(&current.borrow());
        let look = Box::pin(look(&settings, &mut session));
        let found = tokio::select! {
            () = stop.cancelled() => return,
            found = look => found,
        };
        match found {
            Ok(found) => tell(&mut known, found),
            Err(error) => {
                session = None;
                let error = format!("{:#}", anyhow::Error::new(error));
                tracing::debug!(error, "cannot look at the schemas of events");
            }
        }
    }
}

async fn look(
    settings: &Settings,
    session: &mut Option<SqlSession>,
) -> Result<Vec<CataloguedEvent>, StoreError> {
    let open =
        SqlSession::take_or_connect(session, &settings.postgres.server, store::ANSWER_SOON).await?;
    catalogue(settings, &[], &session.insert(open).client).await
}

fn tell(known: &mut BTreeMap<Arc<str>, Value>, found: Vec<CataloguedEvent>) {
    for CataloguedEvent { event_type, table, schema, .. } in found {
        let Some(schema) = schema else { continue };
        if let Some(before) = known.get(&event_type) {
            let changes = schema::changes(before, &schema);
            if !changes.is_empty() {
                let changes = changes.join("; ");
                tracing::warn!(event = &*event_type, %table, changes, "bodies have another schema now");
            }
        }
        known.insert(event_type, schema);
    }
}
