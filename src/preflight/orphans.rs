//! Parked deliveries of endpoints that the configuration does not have.
//!
//! Nobody can say whom they are for now, so they are sent to nobody and kept: the name has to come back, or
//! they are given up by hand. A name such as `webhook-1` or `subscription-1` is that of a place in a list: which
//! URL stood there when a delivery was parked is known to nobody here, and what stands there now may be another
//! receiver.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::config::configuration::Settings;
use crate::preflight::endpoint_rows;
use crate::replication::catalog::CheckFinding;
use crate::store;
use crate::store::backlog::backlog_sizes;
use crate::store::endpoints;
use crate::store::error::StoreError;
use crate::store::state_error::StateError;

/// Those of one endpoint.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct OrphanedDeliveries {
    pub(crate) endpoint: Arc<str>,
    pub(crate) rows: u64,
}

impl OrphanedDeliveries {
    pub(crate) fn what(&self) -> String {
        let Self { endpoint, rows } = self;
        let deliveries =
            if *rows == 1 { "1 delivery waits" } else { &format!("{rows} deliveries wait") };
        format!("{deliveries} for endpoint {endpoint}, which is not configured")
    }

    pub(crate) fn fix(&self) -> String {
        let name = &self.endpoint;
        let earlier = match is_of_a_place(name) {
            true => {
                "its name is that of a place in a list, as an earlier release gave them: only you know \
                 which URL stood there; "
            }
            false => "",
        };
        format!(
            "{earlier}to have them sent, write an [[endpoint]] with name = \"{name}\" and its URL, and \
             restart walhook; to give them up: DELETE FROM walhook.backlog WHERE endpoint = '{name}'"
        )
    }
}

/// What waits for endpoints that are not known, by name.
pub(crate) fn of<'n>(
    waiting: impl IntoIterator<Item = (&'n Arc<str>, u64)>,
    is_known: impl Fn(&str) -> bool,
) -> Vec<OrphanedDeliveries> {
    let unknown = waiting.into_iter().filter(|(name, rows)| *rows > 0 && !is_known(name));
    let mut orphans: Vec<OrphanedDeliveries> = unknown
        .map(|(name, rows)| OrphanedDeliveries { endpoint: Arc::clone(name), rows })
        .collect();
    orphans.sort_by(|a, b| a.endpoint.cmp(&b.endpoint));
    orphans
}

/// What `walhook check` says of them; nothing where there is no state yet.
///
/// # Errors
/// A server cannot be asked.
pub(crate) async fn findings(settings: &Settings) -> anyhow::Result<Vec<CheckFinding>> {
    let slot = &settings.postgres.slot;
    let state = store::connect(&settings.state).await?;
    let sizes = backlog_sizes::sizes_if_any(&state.client, slot).await?;
    if sizes.is_empty() {
        return Ok(Vec::new());
    }
    let mut known: BTreeSet<Arc<str>> =
        settings.endpoints.iter().map(|endpoint| Arc::clone(&endpoint.name)).collect();
    let stored: Result<_, StateError> = endpoints::load_if_any(&state.client, slot).await;
    known.extend(stored?.into_iter().map(|row| Arc::from(row.name)));
    if let Some(from) = &settings.endpoints_from {
        let source =
            store::connect_with_own_path(&settings.postgres.server, store::ANSWER_MAX).await?;
        match endpoint_rows::names(from, &source.client).await {
            Ok(names) => known.extend(names),
            // That is said already, and whose these are cannot be told.
            Err(StoreError::Refused(_)) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
    }
    let waiting = sizes.iter().map(|size| (&size.endpoint, size.rows));
    let orphans = of(waiting, |name| known.contains(name));
    Ok(orphans.into_iter().map(|one| CheckFinding::warning(one.what(), one.fix())).collect())
}

/// Whether a name is one of those that lists gave by place.
fn is_of_a_place(name: &str) -> bool {
    let number = name.strip_prefix("webhook-").or_else(|| name.strip_prefix("subscription-"));
    number.is_some_and(|number| {
        (1..=5).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_nobody_is_named_with_a_way_out() {
        let names: Vec<Arc<str>> =
            ["webhook-1", "crm", "webhook-0a1b2c", "old"].map(Arc::from).into();
        let waiting = names.iter().zip([3, 7, 1, 0]);
        let orphans = of(waiting, |name| name == "crm");
        let told: Vec<String> = orphans.iter().map(|one| one.what() + ": " + &one.fix()).collect();
        let [hash, place] = told.as_slice() else { panic!("{told:?}") };
        assert!(hash.starts_with("1 delivery waits for endpoint webhook-0a1b2c"), "{hash}");
        assert!(!hash.contains("an earlier release"), "{hash}");
        assert!(place.starts_with("3 deliveries wait for endpoint webhook-1"), "{place}");
        assert!(place.contains("an earlier release") && place.contains("name = \"webhook-1\""));
    }
}
