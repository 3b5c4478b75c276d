//! Judges the addresses of an endpoint when it is saved, so that a bad one is refused early.

use std::time::Duration;

use url::Host;
use url::Url;

use crate::api::requests::endpoint_calls::AdminRefusal;
use crate::config::settings::Auth;
use crate::config::settings::Endpoint;
use crate::delivery::connection::address_guard;

/// How long the look-up of a name may take.
const LOOKUP_MAX: Duration = Duration::from_secs(3);

/// An address is judged again when it is dialled: a name may have another one by then. A name that
/// has none now may get one.
pub(super) async fn judge(endpoint: &Endpoint) -> Result<(), AdminRefusal> {
    judge_url("url", endpoint.url.reveal(), endpoint).await?;
    match &endpoint.auth {
        Some(Auth::OAuth2(oauth)) => {
            judge_url("auth.oauth2.token_url", oauth.token_url.reveal(), endpoint).await
        }
        _ => Ok(()),
    }
}

async fn judge_url(key: &str, url: &Url, endpoint: &Endpoint) -> Result<(), AdminRefusal> {
    let refused = |refusal: address_guard::AddressRefusal| {
        let message = match refusal.is_final() {
            true => format!("{refusal}: give another"),
            false => format!("{refusal}: list it in [endpoints] allow if it is meant"),
        };
        let errors = vec![(key.to_owned(), message)];
        AdminRefusal {
            errors,
            ..AdminRefusal::new(422, "the endpoint's address may not be dialled")
        }
    };
    address_guard::check_host(url, endpoint.addresses).map_err(refused)?;
    let Some(Host::Domain(name)) = url.host() else { return Ok(()) };
    let lookup = tokio::net::lookup_host((name, url.port_or_known_default().unwrap_or_default()));
    let Ok(Ok(addresses)) = tokio::time::timeout(LOOKUP_MAX, lookup).await else { return Ok(()) };
    let judged: Vec<_> =
        addresses.map(|address| address_guard::check(address.ip(), endpoint.addresses)).collect();
    match judged.iter().all(Result::is_err) {
        true => judged.into_iter().find_map(Result::err).map_or(Ok(()), |r| Err(refused(r))),
        false => Ok(()),
    }
}
