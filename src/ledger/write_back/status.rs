//! What is seen of write-backs: since when they fail, and why.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

/// How write-backs fare, for the HTTP surface. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct WriteBackStatus(Arc<Mutex<WriteBackView>>);

/// See [`WriteBackStatus`].
#[derive(Clone, Debug, Default)]
pub(crate) struct WriteBackView {
    /// Write-backs whose last try failed.
    pub failing: u64,
    /// Why the last one that failed did; `None` once nothing fails.
    pub error: Option<String>,
    /// Write-backs since the start that changed no row.
    pub unchanged: u64,
}

impl WriteBackStatus {
    pub(crate) fn view(&self) -> WriteBackView {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set(&self, change: impl FnOnce(&mut WriteBackView)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
