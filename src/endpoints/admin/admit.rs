//! Admission of endpoints: whether one can be served as it is written, and may be changed here.

use anyhow::Context;

use crate::api::requests::endpoint_calls::AdminRefusal;
use crate::config::api_document;
use crate::config::problem::ConfigProblems;
use crate::config::settings::Endpoint;
use crate::endpoints::admin::EndpointAdmin;
use crate::endpoints::admin::address;
use crate::endpoints::admin::record::EndpointRecord;
use crate::endpoints::admin::record::NamedEventTypes;
use crate::endpoints::admin::refusals::unknown;
use crate::endpoints::registry::RegistryHandle;
use crate::endpoints::registry::snapshot::EndpointOrigin;
use crate::endpoints::registry::snapshot::ListedEndpoint;
use crate::preflight::prepare;
use crate::replication::diagnostic::SetupDiagnostic;
use crate::store;
use crate::store::backlog::backlog_sizes;

impl EndpointAdmin {
    /// The endpoint that a record describes, if it can be served.
    pub(super) async fn checked(&self, record: &EndpointRecord) -> Result<Endpoint, AdminRefusal> {
        if api_document::is_masked(&record.document) {
            let detail = "[secret] stands for a secret that is there already: give the secret \
                          itself";
            return Err(AdminRefusal::new(422, detail));
        }
        let endpoint =
            record.endpoint(&self.settings, self.clock.now(), NamedEventTypes::MustExist);
        let endpoint = endpoint.map_err(|problems| unreadable(&problems))?;
        address::judge(&endpoint).await?;
        let is_as_before = self.records.get(&record.name()).is_some_and(|before| {
            let same = |key: &str| before.document.get(key) == record.document.get(key);
            ["when", "events", "url", "headers"].into_iter().all(same)
        });
        // Whatever has become of its table, it can be disabled, and its secret replaced.
        if !is_as_before {
            self.refuse_lacks(&endpoint).await?;
        }
        Ok(endpoint)
    }

    /// Refuses what no row can give: a filter that is true for none, a URL or header that has no value.
    async fn refuse_lacks(&self, endpoint: &Endpoint) -> Result<(), AdminRefusal> {
        if endpoint.filter.is_none() && endpoint.request.is_empty() {
            return Ok(()); // built-in payloads take what there is
        }
        let lacks = prepare::lacking_for(&self.settings, endpoint).await.map_err(|error| {
            let error = anyhow::Error::new(error).context("PostgreSQL cannot be asked: try again");
            AdminRefusal::new(503, format!("{error:#}"))
        })?;
        let told = |lack| match lack {
            SetupDiagnostic::EndpointLacks { key, what, fix, .. } => {
                (key.to_owned(), format!("{what}: {fix}"))
            }
            other => ("when".to_owned(), format!("{}: {}", other.what(), other.fix())),
        };
        let errors: Vec<_> = lacks.into_iter().map(told).collect();
        if errors.is_empty() {
            return Ok(());
        }
        Err(AdminRefusal {
            errors,
            ..AdminRefusal::new(422, "the endpoint would get no event: see errors")
        })
    }

    /// Refuses a name under which something waits that its lane would not send.
    pub(super) async fn refuse_leftovers(
        &self,
        orders: &RegistryHandle,
        endpoint: &Endpoint,
    ) -> Result<(), AdminRefusal> {
        let left = self.left_of(orders, std::slice::from_ref(endpoint)).await;
        let left = left.map_err(|error| AdminRefusal::new(503, format!("{error:#}")))?;
        left.first().map_or(Ok(()), |(name, rows)| {
            let detail = format!(
                "{rows} deliveries of an endpoint {name} that is gone are in the backlog: choose \
                 another name, or write it into the configuration file and restart walhook, and \
                 they are sent"
            );
            Err(AdminRefusal::new(409, detail))
        })
    }

    /// What is in the backlog under the names of endpoints that are to be added: the lane of one
    /// that is added begins with nothing.
    pub(super) async fn left_of(
        &self,
        orders: &RegistryHandle,
        added: &[Endpoint],
    ) -> anyhow::Result<Vec<(String, u64)>> {
        let snapshot = orders.snapshot();
        // What is there, or being removed, is the registry's to refuse.
        let new = added.iter().filter(|endpoint| snapshot.find(&endpoint.name).is_none());
        let names: Vec<&str> = new.map(|endpoint| &*endpoint.name).collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let session = store::connect(&self.settings.state).await;
        let session = session.context("the state cannot be asked: try again")?;
        Ok(backlog_sizes::left_of(&session.client, &self.settings.postgres.slot, &names).await?)
    }

    /// The record of an endpoint that may be changed here.
    pub(super) fn own(
        &self,
        orders: &RegistryHandle,
        name: &str,
    ) -> Result<&EndpointRecord, AdminRefusal> {
        match (self.records.get(name), orders.snapshot().find(name)) {
            (Some(record), _) if record.is_leaving => {
                Err(AdminRefusal::new(409, format!("endpoint {name} is being removed")))
            }
            (Some(record), _) => Ok(record),
            (None, Some(shown)) => Err(AdminRefusal::new(409, self.elsewhere(shown))),
            (None, None) => Err(unknown(name)),
        }
    }

    /// Where an endpoint is changed that was not made here.
    pub(super) fn elsewhere(&self, shown: &ListedEndpoint) -> String {
        let name = &shown.endpoint.name;
        match (shown.origin, &self.settings.endpoints_from) {
            (EndpointOrigin::Table, Some(from)) => format!(
                "endpoint {name} is a row of {} and cannot be changed here: change the row (to hold \
                 its events back without losing any, pause it)",
                from.table
            ),
            _ => format!(
                "endpoint {name} is written in the configuration file and cannot be changed here: \
                 change it there, and send walhook a SIGHUP (to hold its events back without \
                 losing any, pause it)"
            ),
        }
    }
}

pub(super) fn unreadable(problems: &ConfigProblems) -> AdminRefusal {
    let errors = problems.iter().map(|problem| (problem.key.clone(), problem.message.clone()));
    let detail = "the endpoint cannot be served like this: see errors";
    AdminRefusal { errors: errors.collect(), ..AdminRefusal::new(422, detail) }
}
