//! A callback as it came in, before anything of it is believed.

use std::collections::BTreeMap;

use axum::http::HeaderMap;
use axum::http::HeaderName;
use bytes::Bytes;

/// What judging a callback needs of its request.
#[derive(Clone, Debug)]
pub(crate) struct CallbackRequest {
    /// Decoded once; of a name that comes twice, the first.
    pub query: BTreeMap<String, String>,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Seconds since the Unix epoch, on this host's clock.
    pub now: i64,
}

impl CallbackRequest {
    /// Reads a query string.
    pub(crate) fn query_of(text: Option<&str>) -> BTreeMap<String, String> {
        let mut query = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(text.unwrap_or_default().as_bytes()) {
            query.entry(name.into_owned()).or_insert_with(|| value.into_owned());
        }
        query
    }

    /// A header's text.
    pub(crate) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}
