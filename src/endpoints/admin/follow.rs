//! What other members have changed holds here as well, and what is changed here holds everywhere before it is answered.
//!
//! ```text
//! walhook.shared_endpoints (a version) ─▶ [follow] ─ what has changed since ─▶ registry
//! ```
//!
//! Every member does so, several times a second. Whoever has the slot says up to which version it has come, and a
//! call is answered when it has. Whoever delivers for an endpoint carries out what is wanted of it at once.

use std::collections::HashSet;
use std::sync::Arc;

use anyhow::Context;

use crate::api::requests::endpoint_calls::AdminCall;
use crate::api::requests::endpoint_calls::AdminRefusal;
use crate::config::settings::Endpoint;
use crate::endpoints::admin::AdminResult;
use crate::endpoints::admin::EndpointAdmin;
use crate::endpoints::admin::record::EndpointRecord;
use crate::endpoints::admin::refusals::PROBES_MAX;
use crate::endpoints::admin::shared;
use crate::endpoints::admin::shared::SharedEndpoints;
use crate::endpoints::registry::RegistryHandle;
use crate::endpoints::registry::change::EndpointChange;
use crate::endpoints::registry::change::RegistryError;
use crate::endpoints::registry::snapshot::EndpointOrigin;
use crate::endpoints::registry::snapshot::EndpointSnapshot;
use crate::store::endpoint_states::EndpointState;
use crate::store::endpoints::StoredEndpoint;
use crate::store::shared_endpoints;
use crate::store::shared_endpoints::EndpointOrder;

/// How often a call is tried whose member was not the first to change something.
const OUTRUN_MAX: usize = 5;

/// What has changed since the last look.
struct MemberChanges {
    version: i64,
    epoch: i64,
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
        for _ in 1..OUTRUN_MAX {
            let result = self.answer_shared(orders, call.clone(), who, probes).await;
            if !self.shared.as_ref().is_some_and(SharedEndpoints::was_outrun) {
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
        if let Err(error) = self.follow(orders).await {
            if call.changes_endpoints() {
                return AdminResult::Now(Err(AdminRefusal::new(503, format!("{error:#}"))));
            }
            shared::tell_unfollowed(&error);
        }
        let known = |admin: &Self| admin.shared.as_ref().map_or(0, |shared| shared.known.get());
        let before = known(self);
        let changes = call.changes_endpoints();
        let result = self.answer_alone(orders, call, who, probes).await;
        let AdminResult::Now(Ok(answer)) = result else { return result };
        if changes && let Err(error) = self.follow(orders).await {
            shared::tell_unfollowed(&error); // it is written down
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
        self.shared = Some(shared);
        followed.context("cannot look what other members have changed")
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
            shared.known.set(-1); // whoever had the slot meanwhile may have raised no version
        }
        if let Some((table, read)) = &mut shared.table
            && (*read < now.of_table || table.is_unfinished() || shared.epoch != Some(now.epoch))
        {
            let looked = table.look(orders).await;
            looked.context("cannot read the table of [endpoints_from]")?;
            *read = now.of_table;
        }
        let known = shared.known.get();
        if known < now.version {
            let since = (slot.as_str(), known);
            let client = &session.client;
            let changed = MemberChanges {
                version: now.version,
                epoch: now.epoch,
                rows: shared_endpoints::changed(client, since).await?,
                names: shared_endpoints::names(client, &slot).await?.into_iter().collect(),
                pauses: shared_endpoints::changed_pauses(client, since).await?,
            };
            self.take_up_rows(shared, orders, changed).await?;
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

    /// Has the registry make the changes. What is not done yet is done at the next look.
    async fn take_up_rows(
        &mut self,
        shared: &mut SharedEndpoints,
        orders: &RegistryHandle,
        changed: MemberChanges,
    ) -> anyhow::Result<()> {
        let mut is_done = true;
        let snapshot = orders.snapshot();
        let mut changes = Vec::new();
        for row in changed.rows {
            let name = row.name.clone();
            match self.read(row, &snapshot) {
                Ok((record, endpoint)) => {
                    changes.extend(row_changes(&snapshot, &record, endpoint));
                    self.records.insert(name, record);
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
        if is_done {
            shared.known.set(changed.version);
            shared.epoch = Some(changed.epoch);
        }
        Ok(())
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
        let endpoint = record.endpoint(&self.settings, self.now(), true);
        let endpoint = endpoint.or_else(|_| record.endpoint(&self.settings, self.now(), false))?;
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
