//! Another name for an endpoint of the API. One of the file or of a table has its name there.

use std::sync::Arc;

use serde_json::Value as Json;

use crate::api::requests::endpoint_calls::AdminOutcome;
use crate::api::requests::endpoint_calls::AdminRefusal;
use crate::endpoints::admin::EndpointAdmin;
use crate::endpoints::admin::record::set;
use crate::endpoints::admin::refusals::refused;
use crate::endpoints::admin::refusals::unknown;
use crate::endpoints::registry::RegistryHandle;
use crate::endpoints::registry::change::EndpointChange;
use crate::endpoints::registry::snapshot::EndpointOrigin;
use crate::store::renames::EndpointRename;

impl EndpointAdmin {
    /// Renames an endpoint; what waits for it, is dead or paused goes along.
    pub(super) async fn rename(
        &mut self,
        orders: &RegistryHandle,
        name: &str,
        to: &str,
        who: &str,
    ) -> AdminOutcome {
        self.require_own_name(orders, name, to)?;
        if self.shared.is_some() {
            let detail = format!(
                "endpoint {name} keeps its name while members share the source: another one may belong to another \
                 partition, which knows nothing of what {name} is owed. Stop the members and rename it while one \
                 `walhook run` without --role has the slot: what waits goes along. Or make {to}, remove {name}, and send \
                 what waited for it to the other, `walhook dead-letters resend --endpoint {name} --to {to}`: \
                 docs/scale.md"
            );
            return Err(AdminRefusal::new(409, detail));
        }
        let mut record = self.own(orders, name)?.clone();
        set(&mut record.document, "name", Json::from(to));
        let endpoint = self.checked(&record).await?;
        let row = record.row(who, &self.seal);
        let row = row.map_err(|error| AdminRefusal::new(409, error.to_string()))?;
        let rename = EndpointRename {
            from: Arc::from(name),
            to: Arc::clone(&endpoint.name),
            by: who.to_owned(),
            row: Some(Box::new(row)),
        };
        let change = EndpointChange::Rename { rename, endpoint: Box::new(endpoint) };
        orders.give(vec![change], None).await.map_err(refused)?;
        record.updated = (self.now(), who.to_owned());
        self.records.remove(name);
        self.records.insert(to.to_owned(), record);
        self.show(orders, to)
    }

    /// Says where the name stands if that is elsewhere.
    fn require_own_name(
        &self,
        orders: &RegistryHandle,
        name: &str,
        to: &str,
    ) -> Result<(), AdminRefusal> {
        let snapshot = orders.snapshot();
        let shown = snapshot.find(name).ok_or_else(|| unknown(name))?;
        if snapshot.find(to).is_some() {
            let detail = format!("there is an endpoint {to} already: choose another name");
            return Err(AdminRefusal::new(409, detail));
        }
        let detail = match (shown.origin, &self.settings.endpoints_from) {
            (EndpointOrigin::Api, _) => return Ok(()),
            (EndpointOrigin::Table, Some(from)) => format!(
                "endpoint {name} is a row of {}: change what its name is made of there, and nothing \
                 else of the row in the same transaction, while walhook runs: what waits goes along",
                from.table
            ),
            _ if self.shared.is_some() => format!(
                "endpoint {name} is written in the configuration file: write name = \"{to}\" and \
                 renamed_from = \"{name}\" there for all members, and restart them, the workers first: what waits goes \
                 along (docs/scale.md)"
            ),
            _ => format!(
                "endpoint {name} is written in the configuration file: write name = \"{to}\" and \
                 renamed_from = \"{name}\" there, and send walhook a SIGHUP or restart it: what \
                 waits goes along"
            ),
        };
        Err(AdminRefusal::new(409, detail))
    }
}
