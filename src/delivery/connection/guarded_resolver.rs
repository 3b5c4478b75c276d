//! Guarded name resolution (SSRF, DNS rebinding): it stands between every connection and the resolver, so what is judged
//! is the very address that is dialled, and a name cannot change its answer in between.

use std::io;
use std::sync::Arc;

use reqwest::dns::Addrs;
use reqwest::dns::Name;
use reqwest::dns::Resolve;
use reqwest::dns::Resolving;

use crate::config::settings::AddressPolicy;
use crate::delivery::connection::address_guard;
use crate::delivery::connection::resolve_error::ResolveError;

/// A resolver that gives only addresses which the endpoint may dial.
pub(crate) struct GuardedResolver {
    inner: Arc<dyn Resolve>,
    policy: AddressPolicy,
}

impl GuardedResolver {
    pub(crate) fn new(inner: Arc<dyn Resolve>, policy: AddressPolicy) -> Self {
        Self { inner, policy }
    }
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let answers = self.inner.resolve(name);
        let policy = self.policy;
        Box::pin(async move {
            let mut refusal = None;
            let mut allowed = Vec::new();
            for address in answers.await.map_err(into_resolve_error)? {
                match address_guard::check(address.ip(), policy) {
                    Ok(()) => allowed.push(address),
                    Err(refused) => refusal = Some(refused),
                }
            }
            match (allowed.is_empty(), refusal) {
                (false, _) => Ok(Box::new(allowed.into_iter()) as Addrs),
                (true, Some(refusal)) => Err(refusal.into()),
                (true, None) => Err(ResolveError::Empty.into()),
            }
        })
    }
}

/// So that whatever a resolver reports is recognised as a failure of DNS.
fn into_resolve_error(error: Box<dyn std::error::Error + Send + Sync>) -> ResolveError {
    match error.downcast::<ResolveError>() {
        Ok(known) => *known,
        Err(other) => ResolveError::Failed(io::Error::other(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::connection::address_guard::AddressRefusal;
    use std::net::SocketAddr;

    /// Answers every name with these.
    struct ResolvedAnswers(&'static [&'static str]);

    impl Resolve for ResolvedAnswers {
        fn resolve(&self, _: Name) -> Resolving {
            let addresses = self.0.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 0));
            let addresses: Addrs = Box::new(addresses);
            Box::pin(async move { Ok(addresses) })
        }
    }

    async fn resolve(
        answers: &'static [&'static str],
        policy: AddressPolicy,
    ) -> Result<Vec<String>, Box<dyn std::error::Error + Send + Sync>> {
        let resolver = GuardedResolver::new(Arc::new(ResolvedAnswers(answers)), policy);
        let allowed = resolver.resolve("hooks.test".parse()?).await?;
        Ok(allowed.map(|address| address.ip().to_string()).collect())
    }

    #[tokio::test]
    async fn of_several_answers_only_the_allowed_ones_are_passed_on() {
        let answers = &["169.254.169.254", "8.8.8.8", "fe80::1", "10.0.0.1", "2606:4700::1"];
        let cases = [
            (AddressPolicy::Operator, vec!["8.8.8.8", "10.0.0.1", "2606:4700::1"]),
            (AddressPolicy::Public, vec!["8.8.8.8", "2606:4700::1"]),
        ];
        for (policy, expected) in cases {
            assert_eq!(resolve(answers, policy).await.unwrap(), expected, "case: {policy:?}");
        }
    }

    #[tokio::test]
    async fn a_name_with_refused_answers_alone_is_refused() {
        let error = resolve(&["10.0.0.1", "::1"], AddressPolicy::Public).await.unwrap_err();
        assert!(error.is::<AddressRefusal>(), "{error}");
        let error = resolve(&[], AddressPolicy::Public).await.unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(ResolveError::Empty)), "{error}");
    }
}
