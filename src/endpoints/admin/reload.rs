//! The configuration was read again: what can hold without a restart does, all of it or nothing.

use std::sync::Arc;

use crate::clock::host_now;
use crate::config::configuration::Settings;
use crate::config::reload;
use crate::config::reload::ReloadPlan;
use crate::config::settings::Endpoint;
use crate::endpoints::admin::EndpointAdmin;
use crate::endpoints::admin::record::NamedEventTypes;
use crate::endpoints::registry::RegistryHandle;
use crate::endpoints::registry::change::EndpointChange;
use crate::endpoints::registry::snapshot::EndpointOrigin;
use crate::preflight::prepare;
use crate::store::renames::EndpointRename;

impl EndpointAdmin {
    /// Has the changes made, and says in the log what became of them.
    pub(super) async fn reload(&mut self, orders: &RegistryHandle, read: Option<Arc<Settings>>) {
        let Some(read) = read else { return };
        let reload = reload::compare(&self.settings, Settings::clone(&read));
        let waiting = reload.waiting.join(", ");
        let taken_up = Box::pin(self.take_up(orders, reload)).await;
        match taken_up.is_ok() {
            true => self.metrics.reload_taken_up(host_now()),
            false => self.metrics.reload_refused(),
        }
        match taken_up {
            Ok(summary) if summary == ReloadSummary::default() => {
                tracing::info!("configuration holds already: nothing to change");
            }
            Ok(ReloadSummary { added, changed, removed, renamed, events }) => {
                let renamed = renamed.join(", ");
                tracing::info!(
                    added,
                    changed,
                    removed,
                    renamed,
                    events,
                    "configuration is reloaded"
                );
            }
            Err(refused) => {
                for error in &refused {
                    tracing::error!(error, "configuration cannot be taken up");
                }
                tracing::error!(
                    problems = refused.len(),
                    "configuration is not reloaded: what ran before runs on"
                );
                return;
            }
        }
        if !waiting.is_empty() {
            tracing::warn!(waiting, "the rest of what has changed needs a restart");
        }
    }

    async fn take_up(
        &mut self,
        orders: &RegistryHandle,
        reload: ReloadPlan,
    ) -> Result<ReloadSummary, Vec<String>> {
        let made = self.others_made_here(&reload.settings)?;
        refuse_clashes(orders, &reload, &made)?;
        let one = |error: anyhow::Error| vec![format!("{error:#}")];
        let is_same = reload.added.is_empty() && reload.changed.is_empty();
        if reload.has_other_events || !is_same || !reload.renamed.is_empty() {
            let lacking = prepare::lacking(&reload.settings).await.map_err(one)?;
            if !lacking.is_empty() {
                return Err(lacking);
            }
        }
        let left = self.left_of(orders, &reload.added).await.map_err(one)?;
        if !left.is_empty() {
            let told = |(name, rows): &(String, u64)| {
                format!(
                    "endpoint {name} had {rows} deliveries in the backlog when it was removed: \
                     restart walhook, and they are sent"
                )
            };
            return Err(left.iter().map(told).collect());
        }
        let ReloadPlan { settings, added, changed, removed, renamed, has_other_events, .. } =
            reload;
        let listed = |names: Vec<&str>| names.join(", ");
        let done = ReloadSummary {
            added: listed(added.iter().map(|endpoint| &*endpoint.name).collect()),
            changed: listed(changed.iter().chain(&made).map(|endpoint| &*endpoint.name).collect()),
            renamed: renamed.iter().map(|(from, to)| format!("{from} to {}", to.name)).collect(),
            removed: listed(removed.iter().map(|name| &**name).collect()),
            events: has_other_events,
        };
        let add = |endpoint| EndpointChange::Add {
            endpoint: Box::new(endpoint),
            origin: EndpointOrigin::File,
        };
        let replace = |endpoint| EndpointChange::Replace(Box::new(endpoint));
        let mut changes: Vec<EndpointChange> =
            removed.into_iter().map(EndpointChange::Remove).collect();
        changes.extend(renamed.into_iter().map(|(from, endpoint)| EndpointChange::Rename {
            rename: EndpointRename {
                from,
                to: Arc::clone(&endpoint.name),
                by: "renamed_from".to_owned(),
                row: None,
            },
            endpoint: Box::new(endpoint),
        }));
        changes.extend(changed.into_iter().chain(made).map(replace));
        changes.extend(added.into_iter().map(add));
        if has_other_events {
            changes.push(EndpointChange::Events(settings.events.clone().into()));
        }
        if !changes.is_empty() {
            let given = orders.give(changes, None).await;
            given.map_err(|error| one(anyhow::Error::new(error)))?;
        }
        self.current.send_replace(Arc::new(settings.clone()));
        self.settings = settings;
        Ok(done)
    }

    /// What endpoints become that were made at run time, where `[webhook]` or `[endpoints]` give
    /// them something else.
    fn others_made_here(&self, settings: &Settings) -> Result<Vec<Endpoint>, Vec<String>> {
        let (mut others, mut refused) = (Vec::new(), Vec::new());
        let now = self.now();
        for (name, record) in self.records.iter().filter(|(_, record)| !record.is_leaving) {
            let before = record.endpoint(&self.settings, now, NamedEventTypes::MayBeGone).ok();
            match record.endpoint(settings, now, NamedEventTypes::MayBeGone) {
                Ok(endpoint) if before.as_ref() == Some(&endpoint) => {}
                Ok(endpoint) => others.push(endpoint),
                Err(problems) => refused.extend(problems.iter().map(|problem| {
                    let (key, message) = (&problem.key, &problem.message);
                    format!("endpoint {name}, which was made over the API: {key}: {message}")
                })),
            }
        }
        if refused.is_empty() { Ok(others) } else { Err(refused) }
    }
}

/// `made` are endpoints that were made at run time, as they are to be.
fn refuse_clashes(
    orders: &RegistryHandle,
    reload: &ReloadPlan,
    made: &[Endpoint],
) -> Result<(), Vec<String>> {
    let snapshot = orders.snapshot();
    let of_others = snapshot.listed.iter().filter(|shown| shown.origin != EndpointOrigin::File);
    let as_they_were = of_others
        .map(|shown| &*shown.endpoint)
        .filter(|endpoint| made.iter().all(|other| other.name != endpoint.name));
    let all = as_they_were.chain(made).chain(&reload.settings.endpoints);
    let clashes: Vec<String> =
        all.filter_map(|endpoint| reload::clash(endpoint, &reload.settings.events)).collect();
    if clashes.is_empty() { Ok(()) } else { Err(clashes) }
}

/// Names of endpoints, for the log.
#[derive(Default, PartialEq)]
struct ReloadSummary {
    added: String,
    changed: String,
    removed: String,
    renamed: Vec<String>,
    /// Whether filters, ages or payloads of events are others.
    events: bool,
}
