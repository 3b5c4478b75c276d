//! Write-backs: what an event tells its own row, once every endpoint that got it has an outcome.

use std::sync::Arc;

/// The prefix of the logical message that stands first in every transaction of a write-back; its
/// content is the slot. The walhook of that slot raises no event for what follows it.
pub(crate) const MARK: &str = "walhook.write_back";

/// Stands for an endpoint's name where an event is settled that no endpoint takes.
pub(crate) const NOBODY: &str = "";

/// The row that an event came from, as far as its write-back needs it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TargetRow {
    /// Columns of the primary key; `values` has them all.
    pub key: Vec<Arc<str>>,
    /// Columns and their values when the event was raised, as PostgreSQL's text.
    pub values: Vec<(Arc<str>, Option<String>)>,
    /// Endpoints that get the event.
    pub owed: u32,
}

impl TargetRow {
    /// Bytes that it keeps in memory.
    pub fn held_bytes(&self) -> usize {
        self.values.iter().map(|(_, value)| 64 + value.as_ref().map_or(0, String::len)).sum()
    }

    /// The value of a column; `None` if the event did not keep it.
    pub fn value(&self, column: &str) -> Option<Option<&str>> {
        let found = self.values.iter().find(|(name, _)| &**name == column)?;
        Some(found.1.as_deref())
    }
}
