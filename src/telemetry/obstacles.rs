//! What stands in the way of the work at this moment, by name: for readiness, status and metrics.
//!
//! The part that finds something says so and takes it back when it is gone. The stream of changes has its own
//! words (`replication::status`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

/// What can stand in the way; also the values of the metric's label.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum NamedObstacle {
    /// walhook's own tables cannot be written.
    State,
    /// The table of `[endpoints_from]` cannot be read.
    EndpointsTable,
    /// The role may not write the outcomes that it is to write.
    WriteBacks,
}

impl NamedObstacle {
    pub(crate) const ALL: [Self; 3] = [Self::State, Self::EndpointsTable, Self::WriteBacks];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::EndpointsTable => "endpoints_table",
            Self::WriteBacks => "write_backs",
        }
    }
}

/// Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct NamedObstacles(Arc<Mutex<BTreeMap<NamedObstacle, String>>>);

impl NamedObstacles {
    /// Says what is wrong, or with `None` that nothing is any more. Returns whether that is news.
    pub(crate) fn set(&self, obstacle: NamedObstacle, what: Option<String>) -> bool {
        let mut known = self.locked();
        match what {
            Some(what) => known.insert(obstacle, what.clone()) != Some(what),
            None => known.remove(&obstacle).is_some(),
        }
    }

    pub(crate) fn get(&self, obstacle: NamedObstacle) -> Option<String> {
        self.locked().get(&obstacle).cloned()
    }

    /// All of them, with what is wrong.
    pub(crate) fn list(&self) -> Vec<(NamedObstacle, String)> {
        self.locked().iter().map(|(obstacle, what)| (*obstacle, what.clone())).collect()
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<NamedObstacle, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_there_until_it_is_taken_back() {
        let obstacles = NamedObstacles::default();
        assert!(obstacles.set(NamedObstacle::WriteBacks, Some(String::from("a"))));
        assert!(
            !obstacles.clone().set(NamedObstacle::WriteBacks, Some(String::from("a"))),
            "no news"
        );
        assert!(obstacles.set(NamedObstacle::WriteBacks, Some(String::from("b"))));
        assert_eq!(obstacles.list(), [(NamedObstacle::WriteBacks, String::from("b"))]);
        assert_eq!(obstacles.get(NamedObstacle::State), None);
        assert!(obstacles.set(NamedObstacle::WriteBacks, None));
        assert!(obstacles.list().is_empty());
    }
}
