//! What can be asked of every endpoint, wherever it was made: a pause, the end of a 410, a try at
//! once.

use crate::api::endpoints::Outcome;
use crate::api::endpoints::Refused;
use crate::endpoints::admin::Desk;
use crate::endpoints::admin::ok;
use crate::endpoints::admin::refused;
use crate::endpoints::admin::unknown;
use crate::endpoints::registry::Orders;
use crate::endpoints::registry::plan::Change;

impl Desk {
    /// Pauses an endpoint, or lets it go on. To ask for what is so already is no error.
    pub(super) async fn pause(
        &self,
        orders: &Orders,
        name: &str,
        paused: bool,
        who: &str,
    ) -> Outcome {
        let change = match paused {
            true => Change::Pause { name: name.into(), by: who.to_owned() },
            false => Change::Resume(name.into()),
        };
        orders.give(vec![change], None).await.map_err(refused)?;
        match paused {
            true => {
                tracing::warn!(endpoint = name, who, "endpoint is paused: its events are parked")
            }
            false => tracing::info!(endpoint = name, who, "endpoint goes on"),
        }
        self.show(orders, name).map(ok)
    }

    /// What waits for an endpoint is tried at once.
    pub(super) async fn try_now(&self, orders: &Orders, name: &str, who: &str) -> Outcome {
        orders.give(vec![Change::TryNow(name.into())], None).await.map_err(refused)?;
        tracing::info!(endpoint = name, who, "what waits for the endpoint is tried now");
        self.show(orders, name).map(ok)
    }

    /// An endpoint that was not made over the API takes events again after a 410.
    pub(super) async fn enable(&self, orders: &Orders, name: &str, who: &str) -> Outcome {
        let roster = orders.roster();
        let shown = roster.find(name).ok_or_else(|| unknown(name))?;
        if !shown.endpoint.enabled {
            let place = self.elsewhere(shown);
            let detail = format!("`enabled = false` keeps events away from it: {place}");
            return Err(Refused::new(409, detail));
        }
        orders.give(vec![Change::Enable(name.into())], None).await.map_err(refused)?;
        tracing::info!(endpoint = name, who, "endpoint is enabled");
        self.show(orders, name).map(ok)
    }
}
