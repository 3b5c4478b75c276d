//! Why an endpoint's client cannot be built. What goes wrong in an attempt is no error but an
//! outcome: see `classify` and `judge`.

use std::sync::Arc;

use http::HeaderName;

/// The text is for the operator: what is wrong, then what to do. It names endpoints, never URLs.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    #[error("endpoint {endpoint}: the URL is neither http:// nor https://: give one of these")]
    Scheme { endpoint: Arc<str> },
    #[error("endpoint {endpoint}: header {name} is walhook's own: remove it from `headers`")]
    ReservedHeader { endpoint: Arc<str>, name: HeaderName },
    #[error(
        "endpoint {endpoint}: {what} cannot stand in a header: \
         remove line breaks and other control characters"
    )]
    Unprintable { endpoint: Arc<str>, what: &'static str },
    #[error(
        "endpoint {endpoint}: the username of basic authentication contains a colon, which ends \
         the name for the receiver: choose another"
    )]
    ColonInUsername { endpoint: Arc<str> },
    #[error(
        "this machine trusts no certificate authority, so https:// endpoints cannot be verified: \
         install the package ca-certificates, or point SSL_CERT_FILE at a PEM file"
    )]
    NoTrustedRoots,
    #[error("TLS could not be set up: report this as a fault of walhook")]
    Tls(#[source] rustls::Error),
    #[error(
        "endpoint {endpoint}: the URL cannot stand in a request: \
         percent-encode what is not a letter, a digit or part of its structure"
    )]
    Url { endpoint: Arc<str> },
}
