//! The endpoints of the partitions that a worker owns, for whoever looks: each partition has a registry of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use crate::api::surface::EndpointView;
use crate::endpoints::registry::RegistryHandle;
use crate::endpoints::registry::snapshot::EndpointSnapshot;
use crate::flow::partition::PartitionNumber;

/// The registries of a process, by partition. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct PartitionSnapshots(Arc<Mutex<BTreeMap<PartitionNumber, RegistryHandle>>>);

impl PartitionSnapshots {
    /// The partition is served from here on.
    pub(crate) fn begun(&self, partition: PartitionNumber, registry: RegistryHandle) {
        self.lock().insert(partition, registry);
    }

    /// It is served no more.
    pub(crate) fn ended(&self, partition: PartitionNumber) {
        self.lock().remove(&partition);
    }

    /// The endpoints of all partitions.
    pub(crate) fn all(&self) -> Vec<Arc<EndpointSnapshot>> {
        self.lock().values().map(RegistryHandle::snapshot).collect()
    }

    /// Those of the configuration, as they are where this process serves them.
    pub(crate) fn view(&self, configured: &[EndpointView]) -> Vec<EndpointView> {
        let served = self.all();
        let view = |view: &EndpointView| {
            let found = served.iter().find_map(|snapshot| snapshot.find(&view.name));
            found.map_or_else(|| view.clone(), |shown| shown.view())
        };
        configured.iter().map(view).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PartitionNumber, RegistryHandle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
