//! What can be asked of every endpoint, wherever it was made: a pause, the end of a 410, a try at
//! once.

use crate::api::requests::endpoint_calls::AdminOutcome;
use crate::api::requests::endpoint_calls::AdminRefusal;
use crate::endpoints::admin::EndpointAdmin;
use crate::endpoints::admin::refusals::refused;
use crate::endpoints::admin::refusals::unknown;
use crate::endpoints::registry::RegistryHandle;
use crate::endpoints::registry::change::EndpointChange;

impl EndpointAdmin {
    /// Pauses an endpoint, or lets it go on. To ask for what is so already is no error.
    pub(super) async fn pause(
        &self,
        orders: &RegistryHandle,
        name: &str,
        paused: bool,
        who: &str,
    ) -> AdminOutcome {
        let change = match paused {
            true => EndpointChange::Pause { name: name.into(), by: who.to_owned() },
            false => EndpointChange::Resume(name.into()),
        };
        orders.give(vec![change], None).await.map_err(refused)?;
        match paused {
            true => {
                tracing::warn!(endpoint = name, who, "endpoint is paused: its events are parked")
            }
            false => tracing::info!(endpoint = name, who, "endpoint goes on"),
        }
        self.show(orders, name)
    }

    /// What waits for an endpoint is tried at once.
    pub(super) async fn try_now(
        &self,
        orders: &RegistryHandle,
        name: &str,
        who: &str,
    ) -> AdminOutcome {
        orders.give(vec![EndpointChange::TryNow(name.into())], None).await.map_err(refused)?;
        tracing::info!(endpoint = name, who, "what waits for the endpoint is tried now");
        self.show(orders, name)
    }

    /// An endpoint that was not made over the API takes events again after a 410.
    pub(super) async fn enable(
        &self,
        orders: &RegistryHandle,
        name: &str,
        who: &str,
    ) -> AdminOutcome {
        let snapshot = orders.snapshot();
        let shown = snapshot.find(name).ok_or_else(|| unknown(name))?;
        if !shown.endpoint.enabled {
            let place = self.elsewhere(shown);
            let detail = format!("`enabled = false` keeps events away from it: {place}");
            return Err(AdminRefusal::new(409, detail));
        }
        orders.give(vec![EndpointChange::Enable(name.into())], None).await.map_err(refused)?;
        tracing::info!(endpoint = name, who, "endpoint is enabled");
        self.show(orders, name)
    }
}
