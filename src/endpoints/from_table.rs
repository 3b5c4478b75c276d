//! Keeps the endpoints of a table current: changes in the stream say when, a SELECT says what.
//!
//! ```text
//! pump ─ Refresh (a transaction changed the table) ─▶ [TableFollower] ─ SELECT ─▶ rows ─ Change ─▶ registry
//!   └───── waits, so that the next transaction finds the endpoints as this one left them
//! ```
//!
//! Where the stream tells which rows a transaction has changed these alone are read, and what they are to be is
//! judged without the others, unless it touches one of them. Else, and at the start, all are.
//!
//! A row that is no endpoint is refused, named in the log and in the status, and stops nothing. It
//! counts as an endpoint that cannot be reached: what it should get becomes dead letters with the reason,
//! and a write-back says that it failed.

mod reading;
mod renaming;

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
use crate::endpoints::known_keys::ChangedEndpoints;
use crate::endpoints::known_keys::KnownKeys;
use crate::endpoints::known_keys::KnownRow;
use crate::endpoints::registry::InitialEndpoint;
use crate::endpoints::registry::RegistryHandle;
use crate::endpoints::registry::change::EndpointChange;
use crate::endpoints::registry::change::RegistryError;
use crate::endpoints::registry::snapshot::EndpointOrigin;
use crate::endpoints::row_ids;
use crate::endpoints::wanted_rows::WantedEndpoint;
use crate::endpoints::wanted_rows::wanted;
use crate::pipeline::endpoint_row_changes::ChangedRows;
use crate::pipeline::endpoint_update::KnownVersion;
use crate::pipeline::endpoint_update::RefreshRequest;
use crate::pipeline::endpoint_update::WatchedTables;
use crate::pipeline::handles::SharedHandles;
use crate::preflight::endpoint_rows::KeyedRow;
use crate::preflight::endpoint_rows::Row;
use crate::preflight::inspection::InspectionSessions;
use crate::store;
use crate::store::endpoint_rows;
use crate::store::endpoint_rows::NamesByRow;
use crate::store::error::StoreError;
use crate::store::ownership::StateOwnership;
use crate::store::shared_endpoints;
use crate::store::state_error::StateError;
use crate::task::TaskOwner;
use crate::telemetry::metrics::WalhookMetrics;
use crate::telemetry::obstacles::NamedObstacles;

/// First and longest wait before the table is asked again, and before changes that could not be made
/// yet are tried again.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_CAP: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_secs(1);

/// Endpoints that rows are to be.
type WantedByName = BTreeMap<Arc<str>, (Endpoint, Row)>;

/// Follows the table of `[endpoints_from]` and keeps its endpoints current.
pub(crate) struct TableFollower {
    from: EndpointsFrom,
    server: ServerSettings,
    sessions: InspectionSessions,
    state: ServerSettings,
    role: FollowerRole,
    /// Which endpoint each row is, as it is written down.
    saved: NamesByRow,
    /// The rows whose endpoints are there, by name.
    rows: BTreeMap<Arc<str>, KnownRow>,
    keys: KnownKeys,
    /// Something could not be done, and is to be tried again.
    is_unfinished: bool,
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
    /// Endpoints that the table has and that are not served here, and why.
    unserved: BTreeMap<Arc<str>, String>,
}

/// For whom the table is followed.
pub(crate) enum FollowerRole {
    /// The slot's holder, alone: it writes down which endpoint each row is, so that one whose name changes stays
    /// what it was.
    Alone(StateOwnership),
    /// The tail: it tells the others of each change.
    Tail(StateOwnership, KnownVersion),
    /// One who delivers.
    Worker,
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
    (role, rows): (FollowerRole, Option<Vec<KeyedRow>>),
    starts: &mut Vec<InitialEndpoint>,
) -> anyhow::Result<Option<TableFollower>> {
    let Some(from) = &settings.endpoints_from else { return Ok(None) };
    let known = (role, rows);
    let opened = TableFollower::open(settings, from, handles, network, known, starts).await;
    Ok(Some(opened.context("cannot read the table of [endpoints_from]")?))
}

impl TableFollower {
    /// Reads the table for the first time.
    ///
    /// # Errors
    /// The table cannot be read.
    async fn open(
        settings: &Settings,
        from: &EndpointsFrom,
        handles: &SharedHandles,
        network: &DeliveryNetwork,
        (role, rows): (FollowerRole, Option<Vec<KeyedRow>>),
        starts: &mut Vec<InitialEndpoint>,
    ) -> anyhow::Result<Self> {
        let mut follower = Self {
            from: from.clone(),
            server: settings.postgres.server.clone(),
            sessions: InspectionSessions::default(),
            state: settings.state.clone(),
            role,
            saved: NamesByRow::new(),
            rows: BTreeMap::new(),
            keys: KnownKeys::default(),
            is_unfinished: false,
            refused: handles.refused.clone(),
            obstacles: handles.obstacles.clone(),
            metrics: handles.metrics.clone(),
            most: settings.memory.endpoints_max,
            named: BTreeSet::new(),
            without_place: 0,
            told_without_place: 0,
            unserved: BTreeMap::new(),
        };
        let rows = match rows {
            Some(rows) => rows,
            None => follower.read(None, None).await?,
        };
        let taken: BTreeSet<Arc<str>> =
            starts.iter().map(|start| Arc::clone(&start.endpoint.name)).collect();
        let WantedEndpoint { endpoints, mut problems, .. } = wanted(&follower.from, rows, &taken);
        for (name, (mut endpoint, row)) in endpoints {
            if starts.len() >= follower.most {
                follower.without_place += 1;
                follower.unserved.insert(name, too_many(follower.most));
                continue;
            }
            if let Err(error) = EndpointClient::new(&endpoint, network) {
                let why = format!("{:#}", anyhow::Error::new(error));
                endpoint = follower.from.unusable(&row, false, &why).unwrap_or(endpoint);
                problems.push((name.to_string(), why));
            }
            follower.rows.insert(name, KnownRow::of(&follower.from, &row));
            starts.push(InitialEndpoint {
                endpoint,
                origin: EndpointOrigin::Table,
                is_leaving: false,
            });
        }
        follower.tell(problems);
        follower.save(None).await?;
        Ok(follower)
    }

    /// Starts the task; what it gives is for the pump.
    pub(crate) fn watch(self, orders: &RegistryHandle, tasks: &mut TaskOwner) -> WatchedTables {
        let (refreshes_in, refreshes) = mpsc::channel(1);
        let (of_rows, tables) = (self.from.table.clone(), self.from.watch.clone());
        let run = self.run(orders.clone(), refreshes, tasks.stop_token());
        tasks.spawn("the table of endpoints", async move {
            run.await;
            Ok(())
        });
        WatchedTables { of_rows, tables, refreshes: refreshes_in, changed: ChangedRows::None }
    }

    /// Serves the pump until it or `stop` ends.
    async fn run(
        mut self,
        orders: RegistryHandle,
        mut refreshes: mpsc::Receiver<RefreshRequest>,
        stop: CancellationToken,
    ) {
        loop {
            let again = self.is_unfinished;
            let mut refresh = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                refresh = refreshes.recv() => match refresh {
                    Some(refresh) => Some(refresh),
                    None => return,
                },
                () = tokio::time::sleep(AGAIN), if again => None,
            };
            let told = refresh.as_mut().map(|told| (told.xid, std::mem::take(&mut told.rows)));
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.refresh(&orders, told) => {}
            }
            if let Some(refresh) = refresh {
                refresh.done.send(()).ok(); // the pump may have ended
            }
        }
    }

    /// Makes the endpoints what the table says; `told`: which rows a transaction has changed.
    async fn refresh(&mut self, orders: &RegistryHandle, told: Option<(u32, ChangedRows)>) {
        let snapshot = orders.snapshot();
        let others = snapshot.listed.iter().filter(|shown| shown.origin != EndpointOrigin::Table);
        let others = others.map(|shown| Arc::clone(&shown.endpoint.name)).collect();
        drop(snapshot);
        let (xid, rows) = told.unzip();
        let part = self.keys.changed(rows.unwrap_or(ChangedRows::All));
        let part = match part.filter(|part| self.is_by_itself(part)) {
            Some(part) => self.read_part(xid, part, &others).await,
            None => None,
        };
        let (wanted, changed) = match part {
            Some((wanted, changed)) => (wanted, Some(changed)),
            None => {
                let rows = self.read_surely(xid, None).await;
                (wanted(&self.from, rows, &others), None)
            }
        };
        self.follow(orders, wanted, &others, changed).await;
    }

    /// Reads the table once, and makes the endpoints what it says.
    ///
    /// # Errors
    /// It cannot be read: endpoints stay as they were.
    pub(crate) async fn look(&mut self, orders: &RegistryHandle) -> Result<(), StoreError> {
        let snapshot = orders.snapshot();
        let others = snapshot.listed.iter().filter(|shown| shown.origin != EndpointOrigin::Table);
        let others = others.map(|shown| Arc::clone(&shown.endpoint.name)).collect();
        let rows = self.read(None, None).await?;
        let wanted = wanted(&self.from, rows, &others);
        self.follow(orders, wanted, &others, None).await;
        Ok(())
    }

    /// Whether something could not be done, and is to be tried again.
    pub(crate) fn is_unfinished(&self) -> bool {
        self.is_unfinished
    }

    /// Endpoints that the table has and that are not served here, and why.
    pub(crate) fn unserved(&self) -> &BTreeMap<Arc<str>, String> {
        &self.unserved
    }

    /// Makes the endpoints that have changed, or all, what their rows are to be.
    async fn follow(
        &mut self,
        orders: &RegistryHandle,
        mut wanted: WantedEndpoint,
        others: &BTreeSet<Arc<str>>,
        mut changed: Option<ChangedEndpoints>,
    ) {
        self.keys.learn(&mut wanted, changed.as_ref());
        let WantedEndpoint { endpoints: wanted, mut problems, .. } = wanted;
        if let Some(changed) = &mut changed {
            problems.extend(self.named.iter().cloned());
            changed.names.extend(wanted.keys().cloned());
        }
        // Elsewhere an endpoint belongs to a partition by its name.
        let (wanted, stuck) = match self.role {
            FollowerRole::Alone(_) => {
                self.rename(orders, (wanted, &mut changed), others, &mut problems).await
            }
            FollowerRole::Tail(..) | FollowerRole::Worker => (wanted, BTreeSet::new()),
        };
        let mut again = !stuck.is_empty();
        let is_gone = |name| !wanted.contains_key(name) && !stuck.contains(name);
        let gone = self.known(changed.as_ref()).filter(|(name, _)| is_gone(*name));
        for name in gone.map(|(name, _)| Arc::clone(name)).collect::<Vec<_>>() {
            match orders.give(vec![EndpointChange::Remove(Arc::clone(&name))], None).await {
                Ok(_) | Err(RegistryError::Unknown { .. }) => drop(self.rows.remove(&name)),
                Err(error) => problems.push((name.to_string(), error.to_string())),
            }
        }
        let wanted = self.change_at_once(orders, wanted).await;
        // In the order of their names, and who has a place keeps it.
        self.without_place = 0;
        if changed.is_none() {
            self.unserved.clear();
        }
        for (name, (endpoint, row)) in wanted {
            if self.without_place > 0 && !self.rows.contains_key(&name) {
                self.without_place += 1;
                self.unserved.insert(name, too_many(self.most));
                continue;
            }
            let is_known = match self.rows.get(&name) {
                Some(known) if *known == KnownRow::of(&self.from, &row) => continue,
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
                Ok(_) => drop(self.rows.insert(name, KnownRow::of(&self.from, &row))),
                Err(RegistryError::TooMany { .. }) => {
                    self.without_place += 1;
                    self.unserved.insert(name, too_many(self.most));
                }
                Err(error) => {
                    let is_passing = matches!(error, RegistryError::Leaving { .. });
                    again |= is_passing;
                    problems.push((name.to_string(), error.to_string()));
                    if !is_passing {
                        self.unserved.insert(name, error.to_string());
                    }
                }
            }
        }
        self.tell(problems);
        self.write_down(changed.as_ref()).await;
        self.is_unfinished = again;
    }

    /// The rows whose endpoints are there, of those that have changed or of all.
    fn known<'k>(
        &'k self,
        changed: Option<&'k ChangedEndpoints>,
    ) -> impl Iterator<Item = (&'k Arc<str>, &'k KnownRow)> {
        let names = changed.into_iter().flat_map(|changed| &changed.names);
        let part = names.filter_map(|name| self.rows.get_key_value(name));
        part.chain(changed.is_none().then_some(&self.rows).into_iter().flatten())
    }

    /// Has [`TableFollower::save`] done, however long the state is away.
    async fn write_down(&mut self, changed: Option<&ChangedEndpoints>) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_CAP);
        while let Err(error) = self.save(changed).await {
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
    async fn save(&mut self, changed: Option<&ChangedEndpoints>) -> Result<(), StateError> {
        let ownership = match &self.role {
            FollowerRole::Alone(ownership) => ownership,
            FollowerRole::Tail(source, known) => {
                let session = store::connect_within(&self.state, store::ANSWER_SOON).await?;
                // Who delivers has to know as much from the next event on.
                let version = shared_endpoints::table_changed(&session.client, source).await?;
                version.iter().for_each(|version| known.stamp(*version));
                return Ok(());
            }
            FollowerRole::Worker => return Ok(()),
        };
        let Some(source) = self.from.row_source() else { return Ok(()) };
        let mut names =
            row_ids::names(self.known(changed).map(|(name, row)| (name, row.id.clone())));
        let has_changed = |name| changed.is_none_or(|changed| changed.names.contains(name));
        let gone =
            self.saved.iter().filter(|(id, name)| !names.contains_key(*id) && has_changed(*name));
        let gone: Vec<Arc<str>> = gone.map(|(id, _)| Arc::clone(id)).collect();
        names.retain(|id, name| self.saved.get(id) != Some(name));
        if names.is_empty() && gone.is_empty() {
            return Ok(());
        }
        let mut session = store::connect_within(&self.state, store::ANSWER_SOON).await?;
        endpoint_rows::save(&mut session.client, ownership, &source, &names, &gone).await?;
        gone.iter().for_each(|id| drop(self.saved.remove(id)));
        self.saved.extend(names);
        Ok(())
    }

    /// Makes all changes as one order, which tells ledger and pump of all endpoints once instead of for
    /// each row. What is left is to be changed one by one: one of them cannot be made, or there is only
    /// one.
    async fn change_at_once(
        &mut self,
        orders: &RegistryHandle,
        mut wanted: WantedByName,
    ) -> WantedByName {
        let is_other = |(known, row): (&KnownRow, &Row)| *known != KnownRow::of(&self.from, row);
        wanted.retain(|name, (_, row)| {
            self.rows.get(name).is_none_or(|known| is_other((known, row)))
        });
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
        let rows =
            wanted.into_iter().map(|(name, (_, row))| (name, KnownRow::of(&self.from, &row)));
        self.rows.extend(rows);
        BTreeMap::new()
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

    /// The rows that are too many, for the status; their number is logged when it changes.
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

fn too_many(most: usize) -> String {
    format!(
        "there are {most} endpoints, which is the most here: raise [memory] endpoints as at the tail"
    )
}
