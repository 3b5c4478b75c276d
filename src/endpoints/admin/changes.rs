//! The calls that change endpoints: made, replaced, patched, paused, removed.

use serde_json::Value as Json;

use crate::api::answers::admin_answer::AdminAnswer;
use crate::api::answers::endpoint_answers::EndpointRemoval;
use crate::api::requests::endpoint_calls::AdminOutcome;
use crate::api::requests::endpoint_calls::AdminRefusal;
use crate::endpoints::admin::EndpointAdmin;
use crate::endpoints::admin::record::EndpointRecord;
use crate::endpoints::admin::record::set;
use crate::endpoints::admin::refusals::refuse_carrying_off;
use crate::endpoints::admin::refusals::refused;
use crate::endpoints::admin::refusals::require_object;
use crate::endpoints::admin::view;
use crate::endpoints::registry::RegistryHandle;
use crate::endpoints::registry::change::EndpointChange;
use crate::endpoints::registry::snapshot::EndpointOrigin;

impl EndpointAdmin {
    pub(super) async fn create(
        &mut self,
        orders: &RegistryHandle,
        document: Json,
        who: &str,
    ) -> AdminOutcome {
        require_object(&document)?;
        let record = EndpointRecord::new(document, None);
        let name = record.name();
        self.add(orders, record, who).await?;
        self.show(orders, &name)
    }

    pub(super) async fn add(
        &mut self,
        orders: &RegistryHandle,
        record: EndpointRecord,
        who: &str,
    ) -> Result<(), AdminRefusal> {
        let endpoint = self.checked(&record).await?;
        let name = endpoint.name.to_string();
        self.refuse_leftovers(orders, &endpoint).await?;
        let change =
            EndpointChange::Add { endpoint: Box::new(endpoint), origin: EndpointOrigin::Api };
        self.save(orders, vec![change], record, who).await?;
        tracing::info!(endpoint = name, who, "endpoint is made");
        Ok(())
    }

    pub(super) async fn replace(
        &mut self,
        orders: &RegistryHandle,
        name: &str,
        mut document: Json,
        who: &str,
    ) -> AdminOutcome {
        let before = self.own(orders, name)?;
        require_object(&document)?;
        if document.get("name").is_none() {
            set(&mut document, "name", Json::from(name));
        }
        if document.get("name").and_then(Json::as_str) != Some(name) {
            let detail = format!(
                "here an endpoint keeps its name: leave `name` out, or write {name:?}; to give it \
                 another one, POST /api/v1/endpoints/{name}/rename"
            );
            return Err(AdminRefusal::new(422, detail));
        }
        refuse_carrying_off(&document, before)?;
        before.unmask(&mut document);
        let record = EndpointRecord { document, ..before.clone() };
        self.change(orders, record, who).await?;
        tracing::info!(endpoint = name, who, "endpoint is changed");
        self.show(orders, name)
    }

    pub(super) async fn patch(
        &mut self,
        orders: &RegistryHandle,
        name: &str,
        patch: &Json,
        who: &str,
    ) -> AdminOutcome {
        let mut document = self.own(orders, name)?.masked();
        require_object(patch)?;
        view::merge(&mut document, patch);
        self.replace(orders, name, document, who).await
    }

    pub(super) async fn switch(
        &mut self,
        orders: &RegistryHandle,
        name: &str,
        enabled: bool,
        who: &str,
    ) -> AdminOutcome {
        if enabled && !self.records.contains_key(name) {
            return self.enable(orders, name, who).await;
        }
        let mut record = self.own(orders, name)?.clone();
        record.switch(enabled);
        self.change(orders, record, who).await?;
        tracing::info!(endpoint = name, enabled, who, "endpoint is switched");
        self.show(orders, name)
    }

    pub(super) async fn delete(
        &mut self,
        orders: &RegistryHandle,
        name: &str,
        who: &str,
    ) -> AdminOutcome {
        let mut record = self.own(orders, name)?.clone();
        record.is_leaving = true;
        let change = EndpointChange::Remove(name.into());
        self.save(orders, vec![change], record, who).await?;
        tracing::info!(endpoint = name, who, "endpoint is being removed");
        Ok(AdminAnswer::Removal(EndpointRemoval { name: name.to_owned(), state: "removing" }))
    }

    /// Other settings for an endpoint that there is.
    pub(super) async fn change(
        &mut self,
        orders: &RegistryHandle,
        record: EndpointRecord,
        who: &str,
    ) -> Result<(), AdminRefusal> {
        let endpoint = self.checked(&record).await?;
        self.save(orders, vec![EndpointChange::Replace(Box::new(endpoint))], record, who).await
    }

    /// Has the registry make the changes and write down the record.
    pub(super) async fn save(
        &mut self,
        orders: &RegistryHandle,
        changes: Vec<EndpointChange>,
        mut record: EndpointRecord,
        who: &str,
    ) -> Result<(), AdminRefusal> {
        let row = record.row(who, &self.seal);
        let row = row.map_err(|error| AdminRefusal::new(409, error.to_string()))?;
        let saved = orders.give(changes, Some(row)).await.map_err(refused)?;
        if let Some(row) = saved {
            record.created = (row.created_at, row.created_by);
            record.updated = (row.updated_at, row.updated_by);
        }
        self.records.insert(record.name(), record);
        Ok(())
    }
}
