//! What is kept of the table's rows: by their keys which endpoint each is, so that where the stream says which rows a
//! transaction has changed these alone are read; and by name what tells whether a row is another by now. Pure.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_128;

use crate::config::sections::endpoints_from::EndpointsFrom;
use crate::endpoints::wanted_rows::WantedEndpoint;
use crate::pipeline::endpoint_row_changes::ChangedRows;
use crate::pipeline::endpoint_row_changes::KeyColumn;
use crate::preflight::endpoint_rows::Row;

/// A row as it was read last. Rows themselves would take more than all else that an endpoint takes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct KnownRow {
    fingerprint: u128,
    /// [`EndpointsFrom::row_id`]
    pub(super) id: Option<Arc<str>>,
}

impl KnownRow {
    pub(super) fn of(from: &EndpointsFrom, row: &Row) -> Self {
        let columns = serde_json::to_vec(row).unwrap_or_default(); // there is nothing in it that has no text
        Self { fingerprint: xxh3_128(&columns), id: from.row_id(row) }
    }
}

/// The endpoints' names by the keys of their rows.
#[derive(Debug, Default)]
pub(super) struct KnownKeys {
    /// `None` until a change has told it: then all rows are read once more, with their keys.
    pub(super) column: Option<KeyColumn>,
    names: HashMap<Arc<str>, Arc<str>>,
}

/// The rows that have changed, and the endpoints that they were.
#[derive(Debug)]
pub(super) struct ChangedEndpoints {
    pub(super) keys: BTreeSet<Arc<str>>,
    pub(super) names: BTreeSet<Arc<str>>,
}

impl KnownKeys {
    /// What a transaction has changed, if that can be told; else all rows are to be read.
    pub(super) fn changed(&mut self, rows: ChangedRows) -> Option<ChangedEndpoints> {
        let ChangedRows::Keyed { column, keys } = rows else { return None };
        if self.column.as_ref() != Some(&column) {
            self.column = Some(column);
            self.names.clear();
            return None;
        }
        let names = keys.iter().filter_map(|key| self.names.get(key).cloned()).collect();
        Some(ChangedEndpoints { keys, names })
    }

    /// Which endpoints the rows are that were read: those with these keys, or all.
    pub(super) fn learn(&mut self, wanted: &mut WantedEndpoint, only: Option<&ChangedEndpoints>) {
        match only {
            Some(changed) => changed.keys.iter().for_each(|key| drop(self.names.remove(key))),
            None => self.names.clear(),
        }
        self.names.extend(wanted.keys.drain(..));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(keys: &[&str], name: &str) -> ChangedRows {
        let column = KeyColumn { name: name.to_owned(), type_name: "int4" };
        ChangedRows::Keyed { column, keys: keys.iter().map(|key| Arc::from(*key)).collect() }
    }

    fn wanted(pairs: &[(&str, &str)]) -> WantedEndpoint {
        let keys = pairs.iter().map(|(key, name)| (Arc::from(*key), Arc::from(*name)));
        WantedEndpoint { keys: keys.collect(), ..WantedEndpoint::default() }
    }

    #[test]
    fn a_change_tells_the_column_and_from_then_on_the_endpoints() {
        let mut known = KnownKeys::default();
        known.learn(&mut wanted(&[]), None);
        assert!(known.changed(changed(&["1"], "id")).is_none(), "their keys are not known");
        known.learn(&mut wanted(&[("1", "a"), ("2", "b"), ("3", "c")]), None);
        let found = known.changed(changed(&["1", "3", "4"], "id")).unwrap();
        assert_eq!(found.names, BTreeSet::from([Arc::from("a"), Arc::from("c")]));
        known.learn(&mut wanted(&[("4", "d"), ("3", "e")]), Some(&found));
        let found = known.changed(changed(&["1", "2", "3", "4"], "id")).unwrap();
        assert_eq!(found.names, ["b", "d", "e"].map(Arc::from).into());
        assert!(known.changed(ChangedRows::All).is_none());
        assert!(known.changed(changed(&["1"], "other")).is_none(), "another key");
        known.learn(&mut wanted(&[("x", "a")]), None);
        assert_eq!(known.changed(changed(&["x"], "other")).unwrap().names.len(), 1);
    }
}
