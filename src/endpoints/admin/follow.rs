//! What other members have changed holds here as well, and what is changed here holds everywhere before it is answered.
//!
//! ```text
//! walhook.shared_endpoints (a version) ─▶ [follow] ─ what has changed since ─▶ registry
//! ```
//!
//! Every member does so, several times a second. The tail says up to which version it has come, and a call is
//! answered when it has. The owner of an endpoint's partition carries out what is wanted of it at once.

use std::collections::HashSet;
use std::sync::Arc;

use anyhow::Context;
use tokio_postgres::Client;

use crate::api::requests::endpoint_calls::AdminCall;
use crate::api::requests::endpoint_calls::AdminRefusal;
use crate::config::settings::Endpoint;
use crate::endpoints::admin::AdminResult;
use crate::endpoints::admin::EndpointAdmin;
use crate::endpoints::admin::record::EndpointRecord;
use crate::endpoints::admin::record::NamedEventTypes;
use crate::endpoints::admin::refusals::PROBES_MAX;
use crate::endpoints::admin::shared;
use crate::endpoints::admin::shared::SharedEndpoints;
use crate::endpoints::registry::RegistryHandle;
use crate::endpoints::registry::change::EndpointChange;
use crate::endpoints::registry::change::RegistryError;
use crate::endpoints::registry::snapshot::EndpointOrigin;
use crate::endpoints::registry::snapshot::EndpointSnapshot;
use crate::pipeline::endpoint_update::LookOutcome;
use crate::store::endpoint_states::EndpointState;
use crate::store::endpoints::StoredEndpoint;
use crate::store::shared_endpoints;
use crate::store::shared_endpoints::EndpointOrder;

/// How often a call is tried whose member was not the first to change something.
const CONFLICTS_MAX: usize = 5;

/// What has changed since the last look.
struct MemberChanges {
    rows: Vec<StoredEndpoint>,
    names: HashSet<String>,
    pauses: Vec<EndpointState>,
}

impl EndpointAdmin {
    /// Answers a call; where others change endpoints, too, as the state is now, and once it is known to all.
    pub(super) async fn answer(
        &mut self,
        orders: &RegistryHandle,
        call: AdminCall,
        who: &str,
        probes: usize,
    ) -> AdminResult {
        if self.shared.is_none() {
            return self.answer_alone(orders, call, who, probes).await;
        }
        for _ in 1..CONFLICTS_MAX {
            let result = self.answer_shared(orders, call.clone(), who, probes).await;
            if !self.shared.as_ref().is_some_and(SharedEndpoints::had_conflict) {
                return result;
            }
        }
        self.answer_shared(orders, call, who, probes).await
    }

    async fn answer_shared(
        &mut self,
        orders: &RegistryHandle,
        call: AdminCall,
        who: &str,
        probes: usize,
    ) -> AdminResult {
        if let Err(error) = self.follow(orders).await
            && call.changes_endpoints()
        {
            return AdminResult::Now(Err(AdminRefusal::new(503, format!("{error:#}"))));
        }
        let known = |admin: &Self| admin.shared.as_ref().map_or(0, |shared| shared.known.base());
        let before = known(self);
        let changes = call.changes_endpoints();
        let result = self.answer_alone(orders, call, who, probes).await;
        let AdminResult::Now(Ok(answer)) = result else { return result };
        if changes {
            self.follow(orders).await.ok(); // it is written down, and the log was told
        }
        let version = known(self);
        let here = self.shared.as_ref().is_none_or(SharedEndpoints::has_slot);
        if version == before || here || probes >= PROBES_MAX {
            return AdminResult::Now(Ok(answer));
        }
        let state = self.settings.state.clone();
        let slot = self.settings.postgres.slot.clone();
        AdminResult::Answer(Box::pin(async move {
            shared::routed(state, slot, version).await;
            Ok(answer)
        }))
    }

    /// Takes up what other members have changed, and carries out what is wanted here.
    ///
    /// # Errors
    /// The state cannot be asked.
    pub(super) async fn follow(&mut self, orders: &RegistryHandle) -> anyhow::Result<()> {
        let Some(mut shared) = self.shared.take() else { return Ok(()) };
        let followed = self.look(&mut shared, orders).await;
        let followed = followed.context("cannot look what other members have changed");
        shared.tell(&followed);
        self.shared = Some(shared);
        followed
    }

    /// As [`EndpointAdmin::follow`]; returns what is not served here, for the mirror that has asked.
    pub(super) async fn look_for(&mut self, orders: &RegistryHandle) -> LookOutcome {
        self.follow(orders).await.map_err(|error| format!("{error:#}"))?;
        Ok(self.shared.as_ref().map(SharedEndpoints::unserved).unwrap_or_default())
    }

    async fn look(
        &mut self,
        shared: &mut SharedEndpoints,
        orders: &RegistryHandle,
    ) -> anyhow::Result<()> {
        let session = shared.session().await?;
        let slot = shared.slot.clone();
        let Some(now) = shared_endpoints::look(&session.client, &slot).await? else {
            shared.session = Some(session);
            return Ok(()); // nobody shares anything yet
        };
        if shared.epoch != Some(now.epoch) {
            // The slot's holder meanwhile may have raised no version.
            shared.known.set(-1);
            shared.rows_at = -1;
            shared.table.iter_mut().for_each(|(_, read)| *read = -1);
            shared.epoch = Some(now.epoch);
        }
        let mut is_done = true;
        if shared.rows_at < now.version || shared.is_due() {
            // Before the first of the changes holds: what goes by it is for those who know as much.
            shared.known.stamp(now.version);
            let since = shared.rows_at;
            is_done = self.take_up_since(shared, orders, (&session.client, since)).await?;
            if is_done {
                shared.rows_at = now.version;
            }
        }
        if let Some((table, read)) = &mut shared.table
            && (*read < now.of_table || table.is_unfinished())
        {
            if let Err(error) = table.look(orders).await {
                // Whatever was routed before the table changed can be delivered.
                let before = shared.rows_at.min(now.of_table - 1);
                if *read >= 0 && before > shared.known.get() {
                    shared.known.set(before);
                }
                shared.session = Some(session);
                return Err(error).context(
                    "cannot read the table of [endpoints_from]: this member needs the connection of [postgres] and \
                     the right to read it",
                );
            }
            *read = now.of_table;
            is_done &= !table.is_unfinished();
            if shared.has_unserved() {
                // One of them may have had the name that an API's row has now.
                let since = shared.rows_at;
                is_done &= self.take_up_since(shared, orders, (&session.client, since)).await?;
            }
        }
        if is_done && shared.known.get() < now.version {
            shared.known.set(now.version);
        }
        let known = shared.known.get();
        if let Some(source) = &shared.source
            && shared.told != known
            && known >= 0
        {
            shared_endpoints::routed(&session.client, source, known).await?;
            shared.told = known;
        }
        if now.has_orders {
            for (name, what) in shared_endpoints::orders(&session.client, &slot).await? {
                let Some(registry) = shared.partitions.serving(&name) else { continue };
                let order = (name.as_str(), what);
                if shared_endpoints::take_order(&session.client, &slot, order).await? {
                    carry_out(&registry, &name, what).await;
                }
            }
        }
        shared.session = Some(session);
        Ok(())
    }

    /// Takes up what has changed since a version, and once more what could not be taken up before. Returns whether
    /// nothing of it is left to the next look.
    async fn take_up_since(
        &mut self,
        shared: &mut SharedEndpoints,
        orders: &RegistryHandle,
        (client, since): (&Client, i64),
    ) -> anyhow::Result<bool> {
        let slot = shared.slot.clone();
        let (unserved, at) = (shared.unserved_names(), (slot.as_str(), since));
        // What was refused has a pause that is older than the last look.
        let since_pause = if unserved.is_empty() { since } else { -1 };
        let changed = MemberChanges {
            rows: shared_endpoints::changed(client, at, &unserved).await?,
            names: shared_endpoints::names(client, &slot).await?.into_iter().collect(),
            pauses: shared_endpoints::changed_pauses(client, (slot.as_str(), since_pause)).await?,
        };
        self.take_up_rows(shared, orders, changed).await
    }

    /// Has the registry make the changes. What is not done yet is done at the next look.
    async fn take_up_rows(
        &mut self,
        shared: &mut SharedEndpoints,
        orders: &RegistryHandle,
        changed: MemberChanges,
    ) -> anyhow::Result<bool> {
        shared.forget_unserved();
        let mut is_done = true;
        let snapshot = orders.snapshot();
        let mut changes = Vec::new();
        for row in changed.rows {
            let name: Arc<str> = row.name.as_str().into();
            match self.read(row, &snapshot) {
                Ok((record, endpoint)) => {
                    changes.extend(row_changes(&snapshot, &record, endpoint));
                    self.records.insert(name.to_string(), record);
                }
                Err(error) => shared.refuse(&name, format!("{error:#}")),
            }
        }
        let is_gone = |name: &&String| !changed.names.contains(*name);
        let gone: Vec<String> = self.records.keys().filter(is_gone).cloned().collect();
        for name in gone {
            self.records.remove(&name);
            let name: Arc<str> = name.into();
            let Some(shown) = snapshot.find(&name) else { continue };
            if !shown.is_leaving {
                changes.push((Arc::clone(&name), EndpointChange::Remove(Arc::clone(&name))));
            }
            changes.push((Arc::clone(&name), EndpointChange::Forget(name)));
        }
        // One after the other: what cannot be made keeps none of the rest back.
        for (name, change) in changes {
            match orders.give(vec![change], None).await {
                Ok(_) | Err(RegistryError::Unknown { .. }) => {}
                // One of this name was removed a moment ago.
                Err(RegistryError::Leaving { .. }) => is_done = false,
                Err(error @ RegistryError::Stopping) => return Err(error.into()),
                Err(error) => shared.refuse(&name, format!("{:#}", anyhow::Error::new(error))),
            }
        }
        let snapshot = orders.snapshot();
        for EndpointState { endpoint: name, pause, .. } in changed.pauses {
            let Some(shown) = snapshot.find(&name).filter(|shown| !shown.is_leaving) else {
                continue;
            };
            if shown.paused != pause {
                match &pause {
                    Some(pause) => {
                        tracing::warn!(endpoint = %name, by = pause.by, "endpoint is paused: its events are parked");
                    }
                    None => tracing::info!(endpoint = %name, "endpoint goes on"),
                }
                let change = EndpointChange::Paused { name, pause };
                drop(orders.give(vec![change], None).await); // it is gone meanwhile
            }
        }
        Ok(is_done)
    }

    /// What a row says.
    fn read(
        &self,
        row: StoredEndpoint,
        snapshot: &EndpointSnapshot,
    ) -> anyhow::Result<(EndpointRecord, Endpoint)> {
        let other = snapshot.find(&row.name).filter(|shown| shown.origin != EndpointOrigin::Api);
        anyhow::ensure!(
            other.is_none(),
            "one of this name stands in the configuration, and another was made over the API: rename one of them"
        );
        let record = EndpointRecord::of_row(row, &self.seal).context(
            "give all members the same keys of [endpoints] and restart those that lack one",
        )?;
        let endpoint = record.endpoint(&self.settings, self.now(), NamedEventTypes::MustExist);
        let endpoint = endpoint
            .or_else(|_| record.endpoint(&self.settings, self.now(), NamedEventTypes::MayBeGone))?;
        Ok((record, endpoint))
    }
}

/// What has to be done for an endpoint to be as its row says.
fn row_changes(
    snapshot: &EndpointSnapshot,
    record: &EndpointRecord,
    endpoint: Endpoint,
) -> Vec<(Arc<str>, EndpointChange)> {
    let name = Arc::clone(&endpoint.name);
    let found = snapshot.find(&name);
    let is_same = found.is_some_and(|found| *found.endpoint == endpoint);
    let (endpoint, origin) = (Box::new(endpoint), EndpointOrigin::Api);
    let changes = match (found.map(|found| found.is_leaving), record.is_leaving) {
        (None, false) => vec![EndpointChange::Add { endpoint, origin }],
        (None, true) => vec![EndpointChange::AddLeaving { endpoint, origin }],
        (Some(false), false) if is_same => Vec::new(),
        (Some(false), false) => vec![EndpointChange::Replace(endpoint)],
        (Some(false), true) => vec![EndpointChange::Remove(Arc::clone(&name))],
        (Some(true), true) => Vec::new(),
        // It was removed, is gone, and was made again.
        (Some(true), false) => vec![
            EndpointChange::Forget(Arc::clone(&name)),
            EndpointChange::Add { endpoint, origin },
        ],
    };
    changes.into_iter().map(|change| (Arc::clone(&name), change)).collect()
}

/// What is wanted of an endpoint at once, where it is served.
async fn carry_out(registry: &RegistryHandle, name: &str, what: EndpointOrder) {
    let change = match what {
        EndpointOrder::Enable => EndpointChange::Enable(name.into()),
        EndpointOrder::TryNow => EndpointChange::TryNow(name.into()),
    };
    // A partition that is given back begins anew elsewhere.
    drop(registry.give(vec![change], None).await);
}
