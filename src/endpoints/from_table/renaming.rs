//! Gives endpoints the names that their rows have by now.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::config::settings::Endpoint;
use crate::endpoints::from_table::TableFollower;
use crate::endpoints::from_table::WantedByName;
use crate::endpoints::known_keys::ChangedEndpoints;
use crate::endpoints::known_keys::KnownRow;
use crate::endpoints::registry::RegistryHandle;
use crate::endpoints::registry::change::EndpointChange;
use crate::endpoints::renamed_rows::renamed;
use crate::endpoints::row_ids;
use crate::store::renames::EndpointRename;

impl TableFollower {
    /// Gives endpoints the names that their rows have by now: by the column that tells rows apart, if there is
    /// one, and else to each of those that are gone that one of those that are new is the same but for its
    /// name, and has no double. Gives those as well that keep their names and are to be tried again.
    pub(super) async fn rename(
        &mut self,
        orders: &RegistryHandle,
        (mut wanted, changed): (WantedByName, &mut Option<ChangedEndpoints>),
        others: &BTreeSet<Arc<str>>,
        problems: &mut Vec<(String, String)>,
    ) -> (WantedByName, BTreeSet<Arc<str>>) {
        let mut stuck: Vec<(Arc<str>, Arc<str>)> = Vec::new();
        for (from, to) in self.renames(orders, (&wanted, changed.as_ref()), others) {
            // Behind one that cannot be given the name that it has to leave, nobody moves.
            let is_behind = stuck.iter().any(|(before, _)| *before == to);
            let snapshot = orders.snapshot();
            let Some(shown) = snapshot.find(&from) else { continue };
            let Some(known) = self.rows.get(&from).cloned() else { continue };
            let moved =
                || (Endpoint { name: Arc::clone(&to), ..Endpoint::clone(&shown.endpoint) }, known);
            let found = wanted.get(&to);
            let found =
                found.map(|(endpoint, row)| (endpoint.clone(), KnownRow::of(&self.from, row)));
            let (endpoint, row) = found.unwrap_or_else(moved);
            let by = format!("table {}", self.from.table);
            let rename =
                EndpointRename { from: Arc::clone(&from), to: Arc::clone(&to), by, row: None };
            let change = EndpointChange::Rename { rename, endpoint: Box::new(endpoint) };
            let made = match is_behind {
                true => Ok(false),
                false => orders.give(vec![change], None).await.map(|_| true),
            };
            match made {
                Ok(true) => {
                    self.rows.remove(&from);
                    if let Some(changed) = changed {
                        changed.names.insert(Arc::clone(&to));
                    }
                    self.rows.insert(to, row);
                    continue;
                }
                Ok(false) => {}
                Err(error) => problems.push((from.to_string(), error.to_string())),
            }
            stuck.push((from, to));
        }
        // Nobody gets the name that one of them keeps.
        for (from, to) in &stuck {
            wanted.remove(from);
            wanted.remove(to);
        }
        (wanted, stuck.into_iter().map(|(from, _)| from).collect())
    }

    fn renames(
        &self,
        orders: &RegistryHandle,
        (wanted, changed): (&WantedByName, Option<&ChangedEndpoints>),
        others: &BTreeSet<Arc<str>>,
    ) -> Vec<(Arc<str>, Arc<str>)> {
        let named = row_ids::names(self.known(changed).map(|(name, row)| (name, row.id.clone())));
        let to_be = wanted.iter().map(|(name, (_, row))| (name, self.from.row_id(row)));
        let to_be = row_ids::names(to_be);
        let mut renames = row_ids::moves(&named, &to_be, others);
        let snapshot = orders.snapshot();
        let gone = self.known(changed).filter(|(name, _)| !wanted.contains_key(*name));
        let gone = gone.filter(|(_, row)| row.id.is_none());
        let gone: Vec<Arc<Endpoint>> =
            gone.filter_map(|(name, _)| Some(Arc::clone(&snapshot.find(name)?.endpoint))).collect();
        let alike = renamed(&gone, wanted, &self.rows).into_iter().filter(|(_, to)| {
            wanted.get(to).is_some_and(|(_, row)| self.from.row_id(row).is_none())
        });
        renames.extend(alike);
        renames
    }
}
