//! Counts the dead letters that are kept, so that the gauges follow the table: operators discard letters
//! over the API and in SQL, and endpoints go and come back.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use crate::endpoints::registry::snapshot::EndpointSnapshot;

/// Between two counts.
pub(crate) const RECOUNT: Duration = Duration::from_secs(10);

/// What was found to differ the last time: by endpoint, the gauge and the count.
#[derive(Debug, Default)]
pub(crate) struct LetterRecount(Mutex<HashMap<Arc<str>, (i64, i64)>>);

impl LetterRecount {
    /// Compares the gauges with the table. They run ahead of it by what is not committed yet; so only
    /// what differs twice, in the same way, is corrected.
    pub(crate) fn compare(&self, snapshot: &EndpointSnapshot, sizes: &[(Arc<str>, u64)]) {
        let mut differing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::take(&mut *differing);
        let sizes: HashMap<&str, u64> = sizes.iter().map(|(name, size)| (&**name, *size)).collect();
        for shown in &snapshot.listed {
            let name = &shown.endpoint.name;
            let count = sizes.get(&**name).copied().unwrap_or(0);
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            let gauge = &shown.metrics.dead_letters;
            match (gauge.get(), before.get(name)) {
                (shown, _) if shown == count => {}
                (shown, Some(&known)) if known == (shown, count) => gauge.set(count),
                (shown, _) => drop(differing.insert(Arc::clone(name), (shown, count))),
            }
        }
    }
}
