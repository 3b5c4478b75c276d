//! Whether endpoints can be reached, for `walhook check`: a connection is made, with TLS where the URL says
//! so, and nothing is sent.

use std::time::Duration;

use futures_util::StreamExt;

use crate::config::settings::Endpoint;
use crate::config::settings::Signing;
use crate::delivery::connection::address_guard;
use crate::delivery::connection::network::DeliveryNetwork;
use crate::delivery::http::EndpointClient;
use crate::flow::verdict::AttemptFailure;
use crate::flow::verdict::FailureClass;
use crate::replication::catalog::CheckFinding;

/// How long one connection may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connections that are made at once.
const DIALED_AT_ONCE: usize = 32;

/// A finding for each endpoint, in their order.
pub(crate) async fn findings(endpoints: &[Endpoint]) -> Vec<CheckFinding> {
    let network = DeliveryNetwork::system();
    let looks = endpoints.iter().map(|endpoint| finding(endpoint, &network));
    futures_util::stream::iter(looks).buffered(DIALED_AT_ONCE).collect().await
}

async fn finding(endpoint: &Endpoint, network: &DeliveryNetwork) -> CheckFinding {
    let (name, url) = (&endpoint.name, endpoint.shown_url());
    if let Err(refusal) = address_guard::check_host(endpoint.url.reveal(), endpoint.addresses) {
        let fix = String::from("nothing will be delivered to it: correct its URL");
        return CheckFinding::warning(format!("endpoint {name}: {refusal}"), fix);
    }
    let reached = match EndpointClient::new(endpoint, network) {
        Ok(client) => client.reach(PATIENCE).await,
        Err(error) => {
            let what = format!("{:#}", anyhow::Error::new(error));
            let fix = String::from("nothing can be delivered to it until then");
            return CheckFinding::warning(what, fix);
        }
    };
    match reached {
        Ok(()) => {
            let publics = endpoint.signing.iter().flat_map(Signing::public_keys);
            let verified: String = publics.map(|key| format!(", verified with {key}")).collect();
            CheckFinding::ok(format!("endpoint {name}: {url}{verified}"))
        }
        Err(failure) => {
            let what = format!("endpoint {name}: {url} cannot be reached: {failure}");
            CheckFinding::warning(what, fix(&failure).to_owned())
        }
    }
}

fn fix(failure: &AttemptFailure) -> &'static str {
    match failure.class {
        FailureClass::Tls => {
            "nothing will be delivered to it: mend its certificate, or name that or who signed it in \
             `tls.ca`"
        }
        FailureClass::Dns => "nothing will be delivered to it: correct the host in its URL",
        FailureClass::Refused => "nothing will be delivered to it: correct its URL",
        _ => {
            "what is for it is tried again and parked until it answers: start it, open the way to it, \
             or correct its URL"
        }
    }
}
