//! Connections that endpoints have in common: those of one host and port, reached by the same way.
//!
//! ```text
//! endpoint ─ origin, terms ─▶ [SharedPools] ─▶ ConnectionPool ◀─ the same ─ another endpoint
//! ```
//!
//! Of many endpoints a host may have thousands, a chat system's or a gateway's, each with something to do now and then. With
//! connections of their own they hold one or more each, up to what the system has ports for (28,000 to one address), and
//! open another for most requests; together they need as many as they have requests in flight.
//!
//! A pool is there as long as an endpoint has it. Which requests are in flight is each lane's own affair: an endpoint that
//! hangs keeps the connections that it hangs on, and no others.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::Weak;
use std::time::Duration;

use url::Url;

use crate::config::secret::Secret;
use crate::config::sections::endpoint_connection::ConnectionLink;
use crate::config::settings::AddressPolicy;
use crate::delivery::connection::connections::ConnectionPool;

/// So many origins are kept at least before those that nobody uses are looked for.
const ORIGINS_MIN: usize = 64;

/// The pools of endpoints whose lanes run on one thread. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct SharedPools(Arc<Mutex<PoolsByOrigin>>);

#[derive(Default)]
struct PoolsByOrigin {
    /// By `scheme://host:port`; most have one.
    pools: HashMap<String, Vec<(PoolTerms, Weak<ConnectionPool>)>>,
    /// How many there may be before those that nobody uses are looked for.
    most: usize,
}

/// What endpoints of one origin have to agree on to share its connections.
#[derive(Clone, Eq, PartialEq)]
pub(crate) struct PoolTerms {
    policy: AddressPolicy,
    proxy: Option<Secret<Url>>,
    max_age: Duration,
    timeout: Duration,
}

impl PoolTerms {
    /// `None`: the endpoint has its connections to itself. Its certificates are its own, or it speaks HTTP/2: over
    /// one connection a peer lets there be so many requests at once, and they are for each endpoint.
    pub(crate) fn of(
        policy: AddressPolicy,
        link: &ConnectionLink,
        timeout: Duration,
    ) -> Option<Self> {
        let ConnectionLink { ca, client, proxy, http2, max_age } = link;
        if ca.is_some() || client.is_some() || *http2 {
            return None;
        }
        Some(Self { policy, proxy: proxy.clone(), max_age: *max_age, timeout })
    }
}

impl SharedPools {
    /// The pool of `origin` and `terms`, made if nobody has it.
    ///
    /// # Errors
    /// That of `make`.
    pub(crate) fn pool<E>(
        &self,
        origin: &str,
        terms: &PoolTerms,
        make: impl FnOnce() -> Result<ConnectionPool, E>,
    ) -> Result<Arc<ConnectionPool>, E> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.pools.get(origin).into_iter().flatten();
        let known = known.filter(|(other, _)| other == terms).find_map(|(_, pool)| pool.upgrade());
        if let Some(known) = known {
            return Ok(known);
        }
        let made = Arc::new(make()?);
        all.tidy();
        let of_origin = all.pools.entry(origin.to_owned()).or_default();
        of_origin.retain(|(_, pool)| pool.strong_count() > 0);
        of_origin.push((terms.clone(), Arc::downgrade(&made)));
        Ok(made)
    }
}

impl PoolsByOrigin {
    /// Forgets what nobody uses, when there are twice as many as the last time.
    fn tidy(&mut self) {
        if self.pools.len() < self.most.max(ORIGINS_MIN) {
            return;
        }
        self.pools.retain(|_, pools| pools.iter().any(|(_, pool)| pool.strong_count() > 0));
        self.most = 2 * self.pools.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::Endpoint;
    use crate::delivery::connection::network::DeliveryNetwork;
    use crate::delivery::connection::url_target::EndpointSite;

    /// Endpoints with these keys, in the order of the file.
    fn endpoints(tables: &[&str]) -> Vec<Endpoint> {
        let table =
            |(number, keys): (usize, &&str)| format!("[[endpoint]]\nname = 'e{number}'\n{keys}\n");
        let tables: String = tables.iter().enumerate().map(table).collect();
        let text = format!("postgres.url = 'postgres://a@b/c'\n{tables}");
        crate::config::parse(&text, "the test's configuration", &|_| None).unwrap().endpoints
    }

    fn pool(endpoint: &Endpoint, network: &DeliveryNetwork) -> Arc<ConnectionPool> {
        let Endpoint { url, addresses, link, timeout, name, .. } = endpoint;
        let site = EndpointSite::new(url.reveal(), *addresses, link, network, *timeout, name);
        site.map(|site| site.connections).unwrap()
    }

    #[test]
    fn what_endpoints_agree_on_decides_whether_they_share() {
        let cases = [
            (
                "paths, credentials and headers are each request's own",
                true,
                [
                    "url = 'http://hooks.test/1'\nheaders = { x = 'y' }",
                    "url = 'http://hooks.test/2?q'\nsecret = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'",
                ],
            ),
            (
                "the usual port",
                true,
                ["url = 'http://hooks.test/'", "url = 'http://hooks.test:80/'"],
            ),
            (
                "the same proxy",
                true,
                [
                    "url = 'http://hooks.test/'\nproxy = 'http://a:b@proxy.test:3128'",
                    "url = 'http://hooks.test/'\nproxy = 'http://a:b@proxy.test:3128'",
                ],
            ),
            (
                "another port",
                false,
                ["url = 'http://hooks.test/'", "url = 'http://hooks.test:81/'"],
            ),
            ("another host", false, ["url = 'http://hooks.test/'", "url = 'http://hook.test/'"]),
            (
                "another scheme",
                false,
                ["url = 'http://hooks.test:443/'", "url = 'https://hooks.test/'"],
            ),
            (
                "other credentials for the proxy",
                false,
                [
                    "url = 'http://hooks.test/'\nproxy = 'http://a:b@proxy.test:3128'",
                    "url = 'http://hooks.test/'\nproxy = 'http://a:c@proxy.test:3128'",
                ],
            ),
            (
                "another time to connect",
                false,
                ["url = 'http://hooks.test/'\ntimeout = '1s'", "url = 'http://hooks.test/'"],
            ),
            (
                "each has its streams",
                false,
                [
                    "url = 'http://hooks.test/'\nhttp2 = true",
                    "url = 'http://hooks.test/'\nhttp2 = true",
                ],
            ),
        ];
        for (case, expected, tables) in cases {
            let network = DeliveryNetwork::system();
            let alone: Vec<_> = endpoints(&tables).iter().map(|one| pool(one, &network)).collect();
            assert!(!Arc::ptr_eq(&alone[0], &alone[1]), "not asked for: {case}");
            let network = network.sharing();
            let pools: Vec<_> = endpoints(&tables).iter().map(|one| pool(one, &network)).collect();
            assert_eq!(Arc::ptr_eq(&pools[0], &pools[1]), expected, "case: {case}");
        }
        let network = DeliveryNetwork::system().sharing();
        let mut both = endpoints(&["url = 'http://hooks.test/'", "url = 'http://hooks.test/'"]);
        both[1].addresses = AddressPolicy::Public;
        let pools: Vec<_> = both.iter().map(|one| pool(one, &network)).collect();
        assert!(!Arc::ptr_eq(&pools[0], &pools[1]), "what may be dialled for one");
    }

    #[test]
    fn a_pool_goes_with_the_last_endpoint_and_is_forgotten() {
        let network = DeliveryNetwork::system().sharing();
        let both = endpoints(&["url = 'http://hooks.test/1'", "url = 'http://hooks.test/2'"]);
        let first = pool(&both[0], &network);
        let second = Arc::downgrade(&pool(&both[1], &network));
        assert!(second.upgrade().is_some_and(|second| Arc::ptr_eq(&first, &second)));
        drop(first);
        assert!(second.upgrade().is_none());
        let origins = || network.pools().unwrap().0.lock().unwrap().pools.len();
        for port in 1..=10 * ORIGINS_MIN {
            let one = endpoints(&[&format!("url = 'http://hooks.test:{port}/'")]);
            let _gone = pool(&one[0], &network);
            assert!(origins() <= ORIGINS_MIN, "{port}");
        }
        let many: Vec<_> = (1..=10 * ORIGINS_MIN)
            .map(|port| {
                pool(&endpoints(&[&format!("url = 'http://hook.test:{port}/'")])[0], &network)
            })
            .collect();
        assert!(origins() >= many.len(), "those that are used stay");
    }
}
