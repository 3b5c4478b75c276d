//! Keeps the endpoints of a partition what the process knows of them: its owner opens, changes and retires their lanes.
//!
//! ```text
//! all endpoints ─ those of the partition ─▶ [mirror] ─ changes ─▶ the partition's registry
//!      ▲                                       ▲
//!      └──── look anew ── event for a name that is not known ── the partition's pump
//! ```
//!
//! Nothing is decided here: what is to be is written down in the state before a mirror sees it.

use std::collections::HashMap;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::settings::Endpoint;
use crate::endpoints::registry::RegistryHandle;
use crate::endpoints::registry::change::EndpointChange;
use crate::endpoints::registry::change::RegistryError;
use crate::endpoints::registry::snapshot::EndpointSnapshot;
use crate::endpoints::registry::snapshot::ListedEndpoint;
use crate::flow::partition::PartitionNumber;
use crate::pipeline::endpoint_update::EndpointLookup;
use crate::pipeline::endpoint_update::KnownVersion;
use crate::pipeline::endpoint_update::LookOutcome;
use crate::pipeline::endpoint_update::UnservedEndpoints;

/// Before what could not be done is tried again.
const AGAIN: Duration = Duration::from_millis(200);

/// A state that was asked so often and does not have a change has lost it.
const LOOKS_MAX: usize = 50;

/// How long looks may fail before the partition is given up.
const FAILING_MAX: Duration = Duration::from_secs(30);

/// The mirrors' way to the administration, which looks at the state and answers what it has found.
pub(crate) type FollowSender = mpsc::Sender<oneshot::Sender<LookOutcome>>;

/// Follows all endpoints, for one partition.
pub(crate) struct PartitionMirror {
    all: RegistryHandle,
    own: RegistryHandle,
    partition: PartitionNumber,
    count: NonZeroU16,
    follow: FollowSender,
    /// How much is known here of what other members have changed.
    known: KnownVersion,
    /// What the partition's registry was given, by name.
    given: HashMap<Arc<str>, Arc<Endpoint>>,
    /// Those that cannot be served, and why.
    refused: HashMap<Arc<str>, String>,
}

impl PartitionMirror {
    /// `all` are the endpoints that there are, `own` those of the `partition`, one of so many.
    pub(crate) fn new(
        (all, own): (RegistryHandle, RegistryHandle),
        (partition, count): (PartitionNumber, NonZeroU16),
        (follow, known): (FollowSender, KnownVersion),
    ) -> Self {
        let (given, refused) = (HashMap::new(), HashMap::new());
        Self { all, own, partition, count, follow, known, given, refused }
    }

    /// Runs until `stop`. It cannot fail: the signature is that of a task.
    pub(crate) async fn run(
        mut self,
        mut lookups: mpsc::Receiver<EndpointLookup>,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let mut snapshots = self.all.snapshots();
        let mut is_done = false;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                Some(EndpointLookup { names, version, done }) = lookups.recv() => {
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => return Ok(()),
                        found = self.look_up(&names, version) => drop(done.send(found)), // the pump may have ended
                    }
                }
                Ok(()) = snapshots.changed() => {
                    snapshots.mark_unchanged();
                    is_done = self.align().await;
                }
                () = tokio::time::sleep(AGAIN), if !is_done => is_done = self.align().await,
            }
        }
    }

    /// Looks until as much is known, and what the endpoints are.
    async fn look_up(&mut self, names: &[Arc<str>], version: i64) -> Result<(), String> {
        let (mut looks, mut failing) = (0, None);
        let mut unserved = UnservedEndpoints::default();
        loop {
            if self.known.get() < version || !names.is_empty() {
                match self.look().await {
                    Ok(found) => {
                        (unserved, failing) = (found, None);
                        looks += 1;
                    }
                    Err(why) => {
                        let since = *failing.get_or_insert_with(Instant::now);
                        if since.elapsed() >= FAILING_MAX {
                            return Err(format!(
                                "an event cannot be delivered before it is known which endpoints there are, and for \
                                 {FAILING_MAX:?} that could not be looked up: {why}"
                            ));
                        }
                        tokio::time::sleep(AGAIN).await;
                        continue;
                    }
                }
            }
            let is_behind = self.known.get() < version;
            if is_behind && looks == LOOKS_MAX {
                tracing::warn!(
                    version,
                    "the state does not know of a change by which an event was routed: was it set back?"
                );
            }
            if (!is_behind || looks >= LOOKS_MAX) && self.know(names, &unserved).await? {
                return Ok(());
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Has the process look once.
    async fn look(&self) -> LookOutcome {
        let (done, looked) = oneshot::channel();
        let is_asked = self.follow.send(done).await.is_ok();
        match looked.await {
            Ok(found) if is_asked => found,
            Ok(_) | Err(_) => Err("this process ends".to_owned()),
        }
    }

    /// Whether it is known by now what the endpoints are; `unserved` are there and not served here.
    async fn know(
        &mut self,
        names: &[Arc<str>],
        unserved: &UnservedEndpoints,
    ) -> Result<bool, String> {
        self.align().await;
        let (all, own) = (self.all.snapshot(), self.own.snapshot());
        let is_present = |snapshot: &EndpointSnapshot, name: &str| {
            snapshot.find(name).is_some_and(|shown| !shown.is_leaving)
        };
        for name in names.iter().filter(|name| !is_present(&own, name)) {
            if is_present(&all, name) {
                match self.refused.get(name) {
                    Some(why) => return Err(format!("endpoint {name} cannot be served: {why}")),
                    None => return Ok(false), // one of this name is on its way out still
                }
            }
            if let Some(why) = unserved.get(name) {
                return Err(format!(
                    "endpoint {name} cannot be served: {why}; its partition is given up until that is mended here or \
                     another member takes it"
                ));
            }
            tracing::info!(endpoint = %name, "what comes for an endpoint that was removed becomes dead letters");
            if self
                .own
                .give(vec![EndpointChange::AddTombstone(Arc::clone(name))], None)
                .await
                .is_err()
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Makes the partition's endpoints what they are to be. Returns whether nothing is left to do.
    async fn align(&mut self) -> bool {
        let (all, own) = (self.all.snapshot(), self.own.snapshot());
        let ours = |shown: &&ListedEndpoint| {
            PartitionNumber::of_endpoint(&shown.endpoint.name, self.count) == self.partition
        };
        let mut is_done = true;
        let mut changes = Vec::new();
        for shown in all.listed.iter().filter(ours) {
            let name = &shown.endpoint.name;
            match own.find(name) {
                None => changes.push((Arc::clone(name), add(shown))),
                Some(found) if found.is_leaving => is_done &= shown.is_leaving,
                Some(_) if shown.is_leaving => {
                    let change = EndpointChange::Remove(Arc::clone(name));
                    changes.push((Arc::clone(name), change));
                }
                Some(found) => {
                    let given = self.given.get(name);
                    if given.is_none_or(|given| !Arc::ptr_eq(given, &shown.endpoint)) {
                        if *found.endpoint == *shown.endpoint {
                            self.given.insert(Arc::clone(name), Arc::clone(&shown.endpoint));
                        } else {
                            let endpoint = Box::new(Endpoint::clone(&shown.endpoint));
                            let change = EndpointChange::Replace(endpoint);
                            changes.push((Arc::clone(name), change));
                        }
                    }
                    if found.paused != shown.paused {
                        let pause = shown.paused.clone();
                        let change = EndpointChange::Paused { name: Arc::clone(name), pause };
                        changes.push((Arc::clone(name), change));
                    }
                }
            }
        }
        let is_gone =
            |shown: &&ListedEndpoint| !shown.is_leaving && all.find(&shown.endpoint.name).is_none();
        for shown in own.listed.iter().filter(is_gone) {
            let name = &shown.endpoint.name;
            changes.push((Arc::clone(name), EndpointChange::Remove(Arc::clone(name))));
        }
        for (name, change) in changes {
            is_done &= self.give(&all, name, change).await;
        }
        is_done
    }

    async fn give(
        &mut self,
        all: &EndpointSnapshot,
        name: Arc<str>,
        change: EndpointChange,
    ) -> bool {
        let is_removal = matches!(change, EndpointChange::Remove(_));
        match self.own.give(vec![change], None).await {
            Ok(_) => {
                self.refused.remove(&name);
                match all.find(&name).filter(|_| !is_removal) {
                    Some(shown) => drop(self.given.insert(name, Arc::clone(&shown.endpoint))),
                    None => drop(self.given.remove(&name)),
                }
                true
            }
            Err(error) => {
                let is_passing =
                    matches!(error, RegistryError::Stopping | RegistryError::Leaving { .. });
                let error = format!("{:#}", anyhow::Error::new(error));
                if !is_passing && self.refused.get(&name) != Some(&error) {
                    tracing::error!(endpoint = %name, error, "an endpoint cannot be served here");
                    self.refused.insert(name, error);
                }
                false
            }
        }
    }
}

fn add(shown: &ListedEndpoint) -> EndpointChange {
    let (endpoint, origin) = (Box::new(Endpoint::clone(&shown.endpoint)), shown.origin);
    match shown.is_leaving {
        true => EndpointChange::AddLeaving { endpoint, origin },
        false => EndpointChange::Add { endpoint, origin },
    }
}
