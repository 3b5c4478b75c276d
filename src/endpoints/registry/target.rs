//! Where an endpoint points: what waits for it is tried at once when that changes.

use std::hash::Hasher;

use xxhash_rust::xxh3::Xxh3Default;

use crate::config::settings::Auth;
use crate::config::settings::Endpoint;
use crate::config::settings::Signing;
use crate::config::settings::StandardKey;
use crate::expression::template::TemplatePiece;

/// Whether requests go to another place, prove themselves in another way, or are judged by another
/// rule: what failed before may be taken now.
pub(super) fn is_other(before: &Endpoint, after: &Endpoint) -> bool {
    before.url != after.url
        || before.signing != after.signing
        || before.auth != after.auth
        || before.headers != after.headers
        || before.request != after.request
        || before.payload != after.payload
        || before.filter != after.filter
        || before.only != after.only
        || before.link != after.link
        || before.answers != after.answers
        || before.timeout != after.timeout
}

/// A fingerprint of URL and secrets, by which a walhook that starts sees that they were changed
/// meanwhile. Of so few bits that nobody can find a secret by it.
pub(super) fn fingerprint(endpoint: &Endpoint) -> i32 {
    let mut hash = Xxh3Default::new();
    let mut put = |part: &[u8]| {
        hash.write_usize(part.len());
        hash.write(part);
    };
    put(endpoint.url.reveal().as_str().as_bytes());
    for header in &endpoint.request.headers {
        put(header.name.as_str().as_bytes());
        for piece in header.pieces.iter() {
            match piece {
                TemplatePiece::Literal(text) => put(text.as_bytes()),
                TemplatePiece::Value(expression) => put(expression.source().as_bytes()),
            }
        }
    }
    for (name, value) in &endpoint.headers {
        put(name.as_str().as_bytes());
        put(value.as_bytes());
    }
    match &endpoint.signing {
        Some(Signing::Hmac { key, .. }) => put(key.reveal()),
        Some(Signing::Standard { keys }) => keys.iter().for_each(|key| match key {
            StandardKey::Symmetric(key) => put(key.reveal()),
            StandardKey::Ed25519(seed) => put(seed.reveal()),
        }),
        None => {}
    }
    match &endpoint.auth {
        Some(Auth::Basic { username, password }) => {
            put(username.as_bytes());
            put(password.reveal().as_bytes());
        }
        Some(Auth::Bearer { token }) => put(token.reveal().as_bytes()),
        Some(Auth::ApiKey { header, value }) => {
            put(header.as_str().as_bytes());
            put(value.reveal().as_bytes());
        }
        Some(Auth::OAuth2(oauth)) => {
            put(oauth.token_url.reveal().as_str().as_bytes());
            put(oauth.client_id.as_bytes());
            put(oauth.client_secret.reveal().as_bytes());
        }
        None => {}
    }
    if let Some(proxy) = &endpoint.link.proxy {
        put(proxy.reveal().as_str().as_bytes());
    }
    let [first, second, ..] = hash.finish().to_le_bytes();
    i32::from(u16::from_le_bytes([first, second]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn endpoint(rest: &str) -> Endpoint {
        let text = format!(
            "postgres.url = 'postgres://u@h/d'\n[[event]]\ntype = 'a'\ntable = 'public.t'\n\
             [[endpoint]]\nname = 'crm'\n{rest}"
        );
        config::parse(&text, "walhook.toml", &|_| None).unwrap().endpoints.remove(0)
    }

    #[test]
    fn another_url_or_secret_is_another_target_and_a_longer_queue_is_not() {
        let plain = endpoint("url = 'https://a.example/x'");
        let others = [
            "url = 'https://a.example/y'",
            "url = 'https://a.example/x'\nsecret = '0123456789abcdef'",
            "url = 'https://a.example/x'\nauth = { bearer = 't' }",
            "url = 'https://a.example/x'\nheaders = { X-Key = 'a' }",
            "url = 'https://a.example/x'\nheaders = { X-Key = '{{ id }}' }",
            "url = 'https://a.example/{{ id }}'",
        ];
        for other in others.map(endpoint) {
            assert!(is_other(&plain, &other), "{other:?}");
            assert_ne!(fingerprint(&plain), fingerprint(&other), "{other:?}");
        }
        let same = endpoint("url = 'https://a.example/x'\ncapacity = 5000");
        assert!(!is_other(&plain, &same));
        assert_eq!(fingerprint(&plain), fingerprint(&same));
    }
}
