//! The endpoints of the partitions that a worker owns, for the API and the metrics: each has a registry of its own,
//! and beside them stands the list of all that there are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::OnceLock;
use std::sync::PoisonError;

use crate::api::surface::EndpointView;
use crate::endpoints::registry::RegistryHandle;
use crate::endpoints::registry::snapshot::EndpointSnapshot;
use crate::endpoints::registry::snapshot::ListedEndpoint;
use crate::flow::partition::PartitionNumber;

/// The registries of a process, by partition. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct PartitionSnapshots(Arc<SharedRegistries>);

#[derive(Default)]
struct SharedRegistries {
    partitions: Mutex<BTreeMap<PartitionNumber, RegistryHandle>>,
    /// All endpoints that there are, of all partitions.
    all: OnceLock<RegistryHandle>,
}

impl PartitionSnapshots {
    /// The partition is served from here on.
    pub(crate) fn begun(&self, partition: PartitionNumber, registry: RegistryHandle) {
        self.lock().insert(partition, registry);
    }

    /// It is served no more. Returns the names of its endpoints.
    pub(crate) fn ended(&self, partition: PartitionNumber) -> Vec<Arc<str>> {
        let ended = self.lock().remove(&partition);
        let listed = ended.iter().map(RegistryHandle::snapshot);
        let name = |listed: &ListedEndpoint| Arc::clone(&listed.endpoint.name);
        listed.flat_map(|one| one.listed.iter().map(name).collect::<Vec<_>>()).collect()
    }

    /// All endpoints that there are, once.
    pub(crate) fn list(&self, all: RegistryHandle) {
        drop(self.0.all.set(all)); // there is one
    }

    /// The endpoints of all partitions.
    pub(crate) fn served(&self) -> Vec<Arc<EndpointSnapshot>> {
        self.lock().values().map(RegistryHandle::snapshot).collect()
    }

    /// The registry of the partition that has the endpoint, if it is served here.
    pub(crate) fn serving(&self, name: &str) -> Option<RegistryHandle> {
        let registries = self.lock();
        let serves = |registry: &&RegistryHandle| registry.snapshot().find(name).is_some();
        registries.values().find(serves).cloned()
    }

    /// All endpoints, or before they are known those of the configuration, as they are where this process serves
    /// them.
    pub(crate) fn view(&self, configured: &[EndpointView]) -> Vec<EndpointView> {
        let served = self.served();
        let view = |view: EndpointView| {
            let found = served.iter().find_map(|snapshot| snapshot.find(&view.name));
            found.map_or(view, ListedEndpoint::view)
        };
        match self.0.all.get() {
            Some(all) => all.snapshot().view().into_iter().map(view).collect(),
            None => configured.iter().cloned().map(view).collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PartitionNumber, RegistryHandle>> {
        self.0.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
