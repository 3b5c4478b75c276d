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
use crate::config::endpoints_from::ENDPOINTS_MAX;
use crate::config::endpoints_from::EndpointsFrom;
use crate::config::settings::Endpoint;
use crate::config::settings::ServerSettings;
use crate::delivery::http::EndpointClient;
use crate::delivery::network::DeliveryNetwork;
use crate::endpoints::registry::InitialEndpoint;
use crate::endpoints::registry::RegistryHandle;
use crate::endpoints::registry::change::EndpointChange;
use crate::endpoints::registry::change::RegistryError;
use crate::endpoints::registry::snapshot::EndpointOrigin;
use crate::endpoints::renamed_rows::renamed;
use crate::pipeline::endpoint_update::RefreshRequest;
use crate::pipeline::endpoint_update::WatchedTables;
use crate::pipeline::handles::SharedHandles;
use crate::preflight::endpoint_rows::Row;
use crate::preflight::endpoint_rows::rows;
use crate::preflight::inspection::InspectionSessions;
use crate::store::error::StoreError;
use crate::store::renames::EndpointRename;
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
    /// The rows whose endpoints are there, by name.
    rows: BTreeMap<Arc<str>, Row>,
    refused: RequestRefused,
    obstacles: NamedObstacles,
    metrics: WalhookMetrics,
    /// What was named in the log.
    named: BTreeSet<(String, String)>,
    /// Rows that would be endpoints, were there not too many, and how many the log was told of.
    without_place: usize,
    told_without_place: usize,
}

/// What a reading of the table asks for: endpoints by name, and what is wrong with rows.
#[derive(Default)]
struct WantedEndpoint {
    endpoints: BTreeMap<Arc<str>, (Endpoint, Row)>,
    problems: Vec<(String, String)>,
}

/// Adds the endpoints of the table, if the configuration names one, to those that are there already.
///
/// # Errors
/// The table cannot be read.
pub(crate) async fn open(
    settings: &Settings,
    handles: &SharedHandles,
    network: &DeliveryNetwork,
    starts: &mut Vec<InitialEndpoint>,
) -> anyhow::Result<Option<TableKeeper>> {
    let Some(from) = &settings.endpoints_from else { return Ok(None) };
    let opened = TableKeeper::open(settings, from, handles, network, starts).await;
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
        starts: &mut Vec<InitialEndpoint>,
    ) -> anyhow::Result<Self> {
        let mut keeper = Self {
            from: from.clone(),
            server: settings.postgres.server.clone(),
            sessions: InspectionSessions::default(),
            rows: BTreeMap::new(),
            refused: handles.refused.clone(),
            obstacles: handles.obstacles.clone(),
            metrics: handles.metrics.clone(),
            named: BTreeSet::new(),
            without_place: 0,
            told_without_place: 0,
        };
        let rows = keeper.read(None).await?;
        let taken: BTreeSet<Arc<str>> =
            starts.iter().map(|start| Arc::clone(&start.endpoint.name)).collect();
        let WantedEndpoint { endpoints, mut problems } = keeper.wanted(rows, &taken);
        for (name, (mut endpoint, row)) in endpoints {
            if starts.len() >= ENDPOINTS_MAX {
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
        let others = roster.0.iter().filter(|shown| shown.origin != EndpointOrigin::Table);
        let others = others.map(|shown| Arc::clone(&shown.endpoint.name)).collect();
        let WantedEndpoint { endpoints: wanted, mut problems } = self.wanted(rows, &others);
        let (wanted, mut again) = self.rename(orders, wanted, &mut problems).await;
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
                Err(RegistryError::TooMany) => self.without_place += 1,
                Err(error) => {
                    again |= matches!(error, RegistryError::Leaving { .. });
                    problems.push((name.to_string(), error.to_string()));
                }
            }
        }
        self.tell(problems);
        again
    }

    /// Gives endpoints the names that their rows have by now: of those that are gone and those that are
    /// new, each that is the same but for its name, and has no double. Tells whether one is to be tried again.
    async fn rename(
        &mut self,
        orders: &RegistryHandle,
        mut wanted: BTreeMap<Arc<str>, (Endpoint, Row)>,
        problems: &mut Vec<(String, String)>,
    ) -> (BTreeMap<Arc<str>, (Endpoint, Row)>, bool) {
        let mut again = false;
        let roster = orders.roster();
        let gone = self.rows.keys().filter(|name| !wanted.contains_key(*name));
        let gone: Vec<Arc<Endpoint>> =
            gone.filter_map(|name| Some(Arc::clone(&roster.find(name)?.endpoint))).collect();
        for (from, to) in renamed(&gone, &wanted, &self.rows) {
            let Some((endpoint, row)) = wanted.get(&to).cloned() else { continue };
            let by = format!("table {}", self.from.table);
            let (from, to) = (Arc::clone(&from), Arc::clone(&to));
            let rename =
                EndpointRename { from: Arc::clone(&from), to: Arc::clone(&to), by, row: None };
            let change = EndpointChange::Rename { rename, endpoint: Box::new(endpoint) };
            match orders.give(vec![change], None).await {
                Ok(_) => {
                    self.rows.remove(&from);
                    self.rows.insert(to, row);
                }
                // It stays what it is, and is tried again.
                Err(error) => {
                    again = true;
                    problems.push((from.to_string(), error.to_string()));
                    wanted.remove(&to);
                    let Some(known) = self.rows.get(&from).cloned() else { continue };
                    if let Some(shown) = roster.find(&from) {
                        wanted.insert(from, (Endpoint::clone(&shown.endpoint), known));
                    }
                }
            }
        }
        (wanted, again)
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

    /// The endpoints that the rows are to be, whose names must not be among `taken`.
    fn wanted(&self, rows: Vec<Row>, taken: &BTreeSet<Arc<str>>) -> WantedEndpoint {
        let mut wanted = WantedEndpoint::default();
        for row in rows {
            let read = self.from.endpoint(&row);
            let is_taken = read.as_ref().is_ok_and(|endpoint| {
                taken.contains(&endpoint.name) || wanted.endpoints.contains_key(&endpoint.name)
            });
            let (endpoint, problem) = match read {
                Ok(endpoint) if is_taken => {
                    let why = "there is an endpoint of this name already: make them differ";
                    let problem = (endpoint.name.to_string(), why.to_owned());
                    (self.from.unusable(&row, true, why), Some(problem))
                }
                Ok(endpoint) => (Some(endpoint), None),
                Err((name, why)) => {
                    let mut unusable = self.from.unusable(&row, false, &why);
                    let is_taken = |endpoint: &Endpoint| {
                        taken.contains(&endpoint.name)
                            || wanted.endpoints.contains_key(&endpoint.name)
                    };
                    if unusable.as_ref().is_some_and(is_taken) {
                        unusable = self.from.unusable(&row, true, &why);
                    }
                    (unusable, Some((name, why)))
                }
            };
            wanted.problems.extend(problem);
            wanted.endpoints.extend(endpoint.map(|e| (Arc::clone(&e.name), (e, row))));
        }
        wanted
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
                    most = ENDPOINTS_MAX,
                    "rows are no endpoints because there are too many: the last ones by name get \
                     nothing, remove others"
                ),
            }
        }
        let why = || {
            format!(
                "there are {ENDPOINTS_MAX} endpoints, which is the most: the last {rows} rows by name \
                 get nothing until others are removed"
            )
        };
        (rows > 0).then(|| (format!("({rows} rows)"), why()))
    }
}
