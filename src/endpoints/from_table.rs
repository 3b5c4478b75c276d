//! Keeps the endpoints of a table current: changes in the stream say when, a SELECT says what.
//!
//! ```text
//! pump ─ Refresh (a transaction changed the table) ─▶ [TableKeeper] ─ SELECT ─▶ rows ─ Change ─▶ registry
//!   └───── waits, so that the next transaction finds the endpoints as this one left them
//! ```
//!
//! A row that is no endpoint is refused, named in the log and in the status, and stops nothing. It
//! counts as an endpoint that cannot be reached: what it should get becomes dead letters with the reason,
//! and a write-back says that it failed.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::api::surface::RequestRefused;
use crate::backoff::Backoff;
use crate::config::configuration::Settings;
use crate::config::sections::endpoints_from::EndpointsFrom;
use crate::config::settings::Endpoint;
use crate::config::settings::ServerSettings;
use crate::delivery::connection::network::DeliveryNetwork;
use crate::delivery::http::EndpointClient;
use crate::endpoints::registry::InitialEndpoint;
use crate::endpoints::registry::RegistryHandle;
use crate::endpoints::registry::change::EndpointChange;
use crate::endpoints::registry::change::RegistryError;
use crate::endpoints::registry::snapshot::EndpointOrigin;
use crate::endpoints::renamed_rows::renamed;
use crate::endpoints::row_ids;
use crate::endpoints::wanted_rows::WantedEndpoint;
use crate::endpoints::wanted_rows::wanted;
use crate::pipeline::endpoint_update::RefreshRequest;
use crate::pipeline::endpoint_update::WatchedTables;
use crate::pipeline::handles::SharedHandles;
use crate::preflight::endpoint_rows::Row;
use crate::preflight::endpoint_rows::rows;
use crate::preflight::inspection::InspectionSessions;
use crate::store;
use crate::store::endpoint_rows;
use crate::store::endpoint_rows::NamesByRow;
use crate::store::error::StoreError;
use crate::store::ownership::StateOwnership;
use crate::store::renames::EndpointRename;
use crate::store::state_error::StateError;
use crate::task::TaskOwner;
use crate::telemetry::metrics::WalhookMetrics;
use crate::telemetry::obstacles::NamedObstacle;
use crate::telemetry::obstacles::NamedObstacles;

/// Between two looks whether a transaction that is in the WAL is visible, too.
const VISIBLE_PAUSE: Duration = Duration::from_millis(2);

/// First and longest wait before the table is asked again, and before changes that could not be made
/// yet are tried again.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_CAP: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_secs(1);

/// Whether the transaction with the 32-bit id $1 is still running for a new snapshot: it is among those
/// that it lists, or not before the first id that it knows nothing of. Ids go round.
const IS_RUNNING: &str = "
    SELECT ($1::int8 - xmax::text::numeric % 4294967296 + 6442450944) % 4294967296 >= 2147483648
        OR EXISTS (SELECT FROM pg_snapshot_xip(snapshot) x
                    WHERE x::text::numeric % 4294967296 = $1::int8)
      FROM (SELECT s, pg_snapshot_xmax(s) FROM pg_current_snapshot() s) now (snapshot, xmax)";

/// Follows the table of `[endpoints_from]` and keeps its endpoints current.
pub(crate) struct TableKeeper {
    from: EndpointsFrom,
    server: ServerSettings,
    sessions: InspectionSessions,
    state: ServerSettings,
    holding: StateOwnership,
    /// Which endpoint each row is, as it is written down.
    saved: NamesByRow,
    /// The rows whose endpoints are there, by name.
    rows: BTreeMap<Arc<str>, Row>,
    refused: RequestRefused,
    obstacles: NamedObstacles,
    metrics: WalhookMetrics,
    /// Endpoints that there can be.
    most: usize,
    /// What was named in the log.
    named: BTreeSet<(String, String)>,
    /// Rows that would be endpoints, were there not too many, and how many the log was told of.
    without_place: usize,
    told_without_place: usize,
}

/// Adds the endpoints of the table, if the configuration names one, to those that are there already. `rows`: as
/// they were read before.
///
/// # Errors
/// The table cannot be read, or the state not be written.
pub(crate) async fn open(
    settings: &Settings,
    handles: &SharedHandles,
    network: &DeliveryNetwork,
    (holding, rows): (StateOwnership, Option<Vec<Row>>),
    starts: &mut Vec<InitialEndpoint>,
) -> anyhow::Result<Option<TableKeeper>> {
    let Some(from) = &settings.endpoints_from else { return Ok(None) };
    let known = (holding, rows);
    let opened = TableKeeper::open(settings, from, handles, network, known, starts).await;
    Ok(Some(opened.context("cannot read the table of [endpoints_from]")?))
}

impl TableKeeper {
    /// Reads the table for the first time.
    ///
    /// # Errors
    /// The table cannot be read.
    async fn open(
        settings: &Settings,
        from: &EndpointsFrom,
        handles: &SharedHandles,
        network: &DeliveryNetwork,
        (holding, rows): (StateOwnership, Option<Vec<Row>>),
        starts: &mut Vec<InitialEndpoint>,
    ) -> anyhow::Result<Self> {
        let mut keeper = Self {
            from: from.clone(),
            server: settings.postgres.server.clone(),
            sessions: InspectionSessions::default(),
            state: settings.state.clone(),
            holding,
            saved: NamesByRow::new(),
            rows: BTreeMap::new(),
            refused: handles.refused.clone(),
            obstacles: handles.obstacles.clone(),
            metrics: handles.metrics.clone(),
            most: settings.memory.endpoints_max,
            named: BTreeSet::new(),
            without_place: 0,
            told_without_place: 0,
        };
        let rows = match rows {
            Some(rows) => rows,
            None => keeper.read(None).await?,
        };
        let taken: BTreeSet<Arc<str>> =
            starts.iter().map(|start| Arc::clone(&start.endpoint.name)).collect();
        let WantedEndpoint { endpoints, mut problems } = wanted(&keeper.from, rows, &taken);
        for (name, (mut endpoint, row)) in endpoints {
            if starts.len() >= keeper.most {
                keeper.without_place += 1;
                continue;
            }
            if let Err(error) = EndpointClient::new(&endpoint, network) {
                let why = format!("{:#}", anyhow::Error::new(error));
                endpoint = keeper.from.unusable(&row, false, &why).unwrap_or(endpoint);
                problems.push((name.to_string(), why));
            }
            keeper.rows.insert(name, row);
            starts.push(InitialEndpoint {
                endpoint,
                origin: EndpointOrigin::Table,
                is_leaving: false,
            });
        }
        keeper.tell(problems);
        keeper.save().await?;
        Ok(keeper)
    }

    /// Starts the task; what it gives is for the pump.
    pub(crate) fn watch(self, orders: &RegistryHandle, tasks: &mut TaskOwner) -> WatchedTables {
        let (refreshes_in, refreshes) = mpsc::channel(1);
        let tables = self.from.watch.clone();
        let run = self.run(orders.clone(), refreshes, tasks.stop_token());
        tasks.spawn("the table of endpoints", async move {
            run.await;
            Ok(())
        });
        WatchedTables { tables, refreshes: refreshes_in, is_changed: false }
    }

    /// Serves the pump until it or `stop` ends.
    async fn run(
        mut self,
        orders: RegistryHandle,
        mut refreshes: mpsc::Receiver<RefreshRequest>,
        stop: CancellationToken,
    ) {
        let mut again = false;
        loop {
            let refresh = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                refresh = refreshes.recv() => match refresh {
                    Some(refresh) => Some(refresh),
                    None => return,
                },
                () = tokio::time::sleep(AGAIN), if again => None,
            };
            let xid = refresh.as_ref().map(|refresh| refresh.xid);
            again = tokio::select! {
                () = stop.cancelled() => return,
                again = self.refresh(&orders, xid) => again,
            };
            if let Some(refresh) = refresh {
                refresh.done.send(()).ok(); // the pump may have ended
            }
        }
    }

    /// Makes the endpoints what the table says; gives whether something has to be tried again.
    async fn refresh(&mut self, orders: &RegistryHandle, xid: Option<u32>) -> bool {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_CAP);
        let rows = loop {
            match self.read(xid).await {
                Ok(rows) => break rows,
                Err(error) => {
                    let error = format!("{:#}", anyhow::Error::new(error));
                    let table = self.from.table.to_string();
                    self.metrics.endpoints_table_errors().inc();
                    // Who waits for it reads no further: the endpoints of before would be wrong.
                    let what = format!("[endpoints_from]: table {table} cannot be read: {error}");
                    if self.obstacles.set(NamedObstacle::EndpointsTable, Some(what)) {
                        tracing::warn!(
                            table,
                            error,
                            "cannot read the endpoints' table, trying again; endpoints stay as they were"
                        );
                    }
                    tokio::time::sleep(backoff.next()).await;
                }
            }
        };
        self.obstacles.set(NamedObstacle::EndpointsTable, None);
        let roster = orders.roster();
        let others = roster.listed.iter().filter(|shown| shown.origin != EndpointOrigin::Table);
        let others = others.map(|shown| Arc::clone(&shown.endpoint.name)).collect();
        let WantedEndpoint { endpoints: wanted, mut problems } = wanted(&self.from, rows, &others);
        let (wanted, mut again) = self.rename(orders, wanted, &others, &mut problems).await;
        let gone: Vec<Arc<str>> = self.rows.keys().cloned().collect();
        let gone = gone.into_iter().filter(|name| !wanted.contains_key(name));
        for name in gone.collect::<Vec<_>>() {
            match orders.give(vec![EndpointChange::Remove(Arc::clone(&name))], None).await {
                Ok(_) | Err(RegistryError::Unknown { .. }) => drop(self.rows.remove(&name)),
                Err(error) => problems.push((name.to_string(), error.to_string())),
            }
        }
        let wanted = self.change_at_once(orders, wanted).await;
        // In the order of their names, and who has a place keeps it.
        self.without_place = 0;
        for (name, (endpoint, row)) in wanted {
            if self.without_place > 0 && !self.rows.contains_key(&name) {
                self.without_place += 1;
                continue;
            }
            let is_known = match self.rows.get(&name) {
                Some(known) if *known == row => continue,
                known => known.is_some(),
            };
            let change = |endpoint| match (is_known, Box::new(endpoint)) {
                (true, endpoint) => EndpointChange::Replace(endpoint),
                (false, endpoint) => {
                    EndpointChange::Add { endpoint, origin: EndpointOrigin::Table }
                }
            };
            let mut made = orders.give(vec![change(endpoint)], None).await;
            if let Err(error @ RegistryError::Unusable(_)) = &made {
                let why = error.to_string();
                if let Some(unusable) = self.from.unusable(&row, false, &why) {
                    problems.push((name.to_string(), why));
                    made = orders.give(vec![change(unusable)], None).await;
                }
            }
            match made {
                Ok(_) => drop(self.rows.insert(name, row)),
                Err(RegistryError::TooMany { .. }) => self.without_place += 1,
                Err(error) => {
                    again |= matches!(error, RegistryError::Leaving { .. });
                    problems.push((name.to_string(), error.to_string()));
                }
            }
        }
        self.tell(problems);
        self.write_down().await;
        again
    }

    /// Gives endpoints the names that their rows have by now: by the column that tells rows apart, if there is
    /// one, and else to each of those that are gone that one of those that are new is the same but for its
    /// name, and has no double. Tells whether one is to be tried again.
    async fn rename(
        &mut self,
        orders: &RegistryHandle,
        mut wanted: BTreeMap<Arc<str>, (Endpoint, Row)>,
        others: &BTreeSet<Arc<str>>,
        problems: &mut Vec<(String, String)>,
    ) -> (BTreeMap<Arc<str>, (Endpoint, Row)>, bool) {
        let mut stuck: Vec<(Arc<str>, Arc<str>)> = Vec::new();
        for (from, to) in self.renames(orders, &wanted, others) {
            // Behind one that cannot be given the name that it has to leave, nobody moves.
            let is_behind = stuck.iter().any(|(before, _)| *before == to);
            let roster = orders.roster();
            let Some(shown) = roster.find(&from) else { continue };
            let Some(known) = self.rows.get(&from).cloned() else { continue };
            let moved =
                || (Endpoint { name: Arc::clone(&to), ..Endpoint::clone(&shown.endpoint) }, known);
            let (endpoint, row) = wanted.get(&to).cloned().unwrap_or_else(moved);
            let by = format!("table {}", self.from.table);
            let rename =
                EndpointRename { from: Arc::clone(&from), to: Arc::clone(&to), by, row: None };
            let change = EndpointChange::Rename { rename, endpoint: Box::new(endpoint) };
            let made = match is_behind {
                true => Ok(false),
                false => orders.give(vec![change], None).await.map(|_| true),
            };
            match made {
                Ok(true) => {
                    self.rows.remove(&from);
                    self.rows.insert(to, row);
                    continue;
                }
                Ok(false) => {}
                Err(error) => problems.push((from.to_string(), error.to_string())),
            }
            stuck.push((from, to));
        }
        // These stay what they are, and are tried again.
        for (_, to) in &stuck {
            wanted.remove(to);
        }
        let roster = orders.roster();
        for (from, _) in &stuck {
            let known = roster.find(from).zip(self.rows.get(from));
            let Some((shown, row)) = known else { continue };
            wanted.insert(Arc::clone(from), (Endpoint::clone(&shown.endpoint), row.clone()));
        }
        (wanted, !stuck.is_empty())
    }

    fn renames(
        &self,
        orders: &RegistryHandle,
        wanted: &BTreeMap<Arc<str>, (Endpoint, Row)>,
        others: &BTreeSet<Arc<str>>,
    ) -> Vec<(Arc<str>, Arc<str>)> {
        let named = row_ids::names(&self.from, self.rows.iter());
        let to_be = row_ids::names(&self.from, wanted.iter().map(|(name, (_, row))| (name, row)));
        let mut renames = row_ids::moves(&named, &to_be, others);
        let roster = orders.roster();
        let gone = self.rows.iter().filter(|(name, _)| !wanted.contains_key(*name));
        let gone = gone.filter(|(_, row)| self.from.row_id(row).is_none());
        let gone: Vec<Arc<Endpoint>> =
            gone.filter_map(|(name, _)| Some(Arc::clone(&roster.find(name)?.endpoint))).collect();
        let alike = renamed(&gone, wanted, &self.rows).into_iter().filter(|(_, to)| {
            wanted.get(to).is_some_and(|(_, row)| self.from.row_id(row).is_none())
        });
        renames.extend(alike);
        renames
    }

    /// Has [`TableKeeper::save`] done, however long the state is away.
    async fn write_down(&mut self) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_CAP);
        while let Err(error) = self.save().await {
            let is_over = !error.may_be_mended();
            let error = format!("{:#}", anyhow::Error::new(error));
            tracing::debug!(error, "cannot write down which endpoints the rows are");
            if is_over {
                return; // another walhook has the slot, which ends this one
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }

    /// Writes down which endpoint each row is, if that has changed: no event goes by it before.
    async fn save(&mut self) -> Result<(), StateError> {
        let Some(source) = self.from.row_source() else { return Ok(()) };
        let names = row_ids::names(&self.from, self.rows.iter());
        if names == self.saved {
            return Ok(());
        }
        let gone = self.saved.keys().filter(|id| !names.contains_key(*id));
        let gone: Vec<Arc<str>> = gone.cloned().collect();
        let mut session = store::connect_within(&self.state, store::ANSWER_SOON).await?;
        endpoint_rows::save(&mut session.client, &self.holding, &source, &names, &gone).await?;
        self.saved = names;
        Ok(())
    }

    /// Makes all changes as one order, which tells ledger and pump of all endpoints once instead of for
    /// each row. What is left is to be changed one by one: one of them cannot be made, or there is only
    /// one.
    async fn change_at_once(
        &mut self,
        orders: &RegistryHandle,
        mut wanted: BTreeMap<Arc<str>, (Endpoint, Row)>,
    ) -> BTreeMap<Arc<str>, (Endpoint, Row)> {
        wanted.retain(|name, (_, row)| self.rows.get(name).is_none_or(|known| known != row));
        if wanted.len() < 2 {
            return wanted;
        }
        let change = |(name, (endpoint, _)): (&Arc<str>, &(Endpoint, Row))| {
            let endpoint = Box::new(endpoint.clone());
            match self.rows.contains_key(name) {
                true => EndpointChange::Replace(endpoint),
                false => EndpointChange::Add { endpoint, origin: EndpointOrigin::Table },
            }
        };
        if orders.give(wanted.iter().map(change).collect(), None).await.is_err() {
            return wanted;
        }
        self.rows.extend(wanted.into_iter().map(|(name, (_, row))| (name, row)));
        BTreeMap::new()
    }

    /// All rows, as of a moment when transaction `xid` is visible.
    async fn read(&mut self, xid: Option<u32>) -> Result<Vec<Row>, StoreError> {
        let mut sessions = std::mem::take(&mut self.sessions);
        // The WAL tells of a commit a moment before other sessions see it.
        while let Some(xid) = xid {
            let client = &sessions.plain(&self.server).await?.client;
            let running = client.query_one(IS_RUNNING, &[&i64::from(xid)]).await?;
            if !running.try_get::<_, bool>(0)? {
                break;
            }
            tokio::time::sleep(VISIBLE_PAUSE).await;
        }
        let client = &sessions.own_path(&self.server).await?.client;
        let read = rows(client, &self.from).await?;
        self.sessions = sessions;
        Ok(read)
    }

    fn tell(&mut self, problems: Vec<(String, String)>) {
        let problems: BTreeSet<_> = problems.into_iter().collect();
        for (name, why) in problems.difference(&self.named) {
            let table = self.from.table.to_string();
            tracing::warn!(endpoint = name, table, error = why, "a row is no endpoint");
        }
        let mut refused: Vec<_> = problems.iter().cloned().collect();
        refused.extend(self.tell_without_place());
        self.refused.set(refused);
        self.named = problems;
    }

    /// The rows that are too many, for the status; the log hears of their number when it changes.
    fn tell_without_place(&mut self) -> Option<(String, String)> {
        let (rows, table) = (self.without_place, self.from.table.to_string());
        if rows != std::mem::replace(&mut self.told_without_place, rows) {
            match rows {
                0 => tracing::info!(table, "every row of the endpoints' table has a place again"),
                _ => tracing::warn!(
                    rows,
                    table,
                    most = self.most,
                    "rows are no endpoints because there are too many: the last ones by name get \
                     nothing, remove others"
                ),
            }
        }
        let why = || {
            format!(
                "there are {} endpoints, which is the most: the last {rows} rows by name get nothing \
                 until others are removed, or [memory] endpoints is raised",
                self.most
            )
        };
        (rows > 0).then(|| (format!("({rows} rows)"), why()))
    }
}
