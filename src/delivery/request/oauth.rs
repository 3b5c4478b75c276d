//! Bearer tokens by OAuth 2.0 client credentials (RFC 6749, 4.4): fetched when the first request
//! needs one, kept until shortly before they expire, and fetched anew when the endpoint refuses one
//! that it took before.
//!
//! An attempt that finds none fetches it, within its own deadline, while the others wait for that one. The
//! issuer is reached as the endpoint is: guarded address, its `tls`, its `proxy`. Nothing that it
//! says is shown but its error code: the rest may be a secret.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::StatusCode;
use http::Uri;
use http::header;
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::form_urlencoded;

use crate::config::settings::OAuth2;
use crate::delivery::connection::address_guard::AddressRefusal;
use crate::delivery::connection::connections::ConnectionPool;
use crate::delivery::connection::transport_failure::classify;
use crate::delivery::connection::url_target::EndpointSite;
use crate::delivery::request::body::OutgoingBody;
use crate::delivery::response::reply::SeenResponse;
use crate::delivery::response::reply_verdict::without_mark;
use crate::flow::time::Timestamp;
use crate::flow::verdict::AttemptFailure;
use crate::flow::verdict::AttemptReach;
use crate::flow::verdict::FailureClass;

/// The longest answer of an issuer.
const ANSWER_MAX_BYTES: usize = 64 * 1024;

/// How long a token is kept whose issuer does not say, and the longest that one is.
const LIFETIME: Duration = Duration::from_secs(300);
const LIFETIME_MAX: Duration = Duration::from_secs(7 * 86_400);

/// A token is not used in its last seconds, or in the last tenth of a short life: a request takes time.
const MARGIN: Duration = Duration::from_secs(30);

/// The longest error code that is shown.
const CODE_CHARS_MAX: usize = 40;

/// The tokens of one endpoint.
pub(crate) struct TokenCache {
    connections: Arc<ConnectionPool>,
    path: Uri,
    headers: HeaderMap,
    form: Bytes,
    refusal: Option<AddressRefusal>,
    current: Mutex<Option<BearerToken>>,
}

/// A token in use.
#[derive(Clone)]
pub(crate) struct BearerToken {
    /// `Bearer ...`, marked as sensitive.
    pub(crate) header: HeaderValue,
    until: Instant,
    /// The endpoint has taken it at least once.
    proven: Arc<AtomicBool>,
}

/// Why there is no token.
pub(crate) struct NoToken {
    pub(crate) failure: AttemptFailure,
    /// An issuer that is away costs the deliveries nothing; one that refuses is misconfigured, and
    /// counts like the endpoint's own refusal, so that an operator learns of it.
    pub(crate) reach: AttemptReach,
}

/// RFC 6749, 5.1; some issuers write the lifetime as a string.
#[derive(Deserialize)]
struct IssuedToken {
    access_token: String,
    token_type: Option<String>,
    expires_in: Option<serde_json::Value>,
}

/// RFC 6749, 5.2.
#[derive(Deserialize)]
struct TokenRefused {
    error: String,
}

impl TokenCache {
    /// `issuer` is where they come from.
    pub(crate) fn new(
        oauth: &OAuth2,
        issuer: EndpointSite,
        user_agent: Option<&HeaderValue>,
    ) -> Self {
        let EndpointSite { connections, path, mut headers, refusal } = issuer;
        headers.extend(user_agent.map(|value| (header::USER_AGENT, value.clone())));
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        let secret = oauth.client_secret.reveal();
        if oauth.in_form {
            form.append_pair("client_id", &oauth.client_id).append_pair("client_secret", secret);
        } else {
            // RFC 6749, 2.3.1: both are form-encoded before they are joined.
            let encoded = |text: &str| -> String {
                form_urlencoded::byte_serialize(text.as_bytes()).collect()
            };
            let pair = format!("{}:{}", encoded(&oauth.client_id), encoded(secret));
            let basic = format!("Basic {}", BASE64_STANDARD.encode(pair));
            let mut value = HeaderValue::try_from(basic).expect("base64 can stand in a header");
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        for (name, value) in [("scope", &oauth.scope), ("audience", &oauth.audience)] {
            if let Some(value) = value {
                form.append_pair(name, value);
            }
        }
        let content_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(header::CONTENT_TYPE, content_type);
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        let form = Bytes::from(form.finish());
        Self { connections, path, headers, form, refusal, current: Mutex::new(None) }
    }

    /// A token that is good for a while yet.
    pub(crate) async fn token(&self, now: Timestamp) -> Result<BearerToken, NoToken> {
        let mut current = self.current.lock().await;
        if let Some(token) = current.as_ref().filter(|token| Instant::now() < token.until) {
            return Ok(token.clone());
        }
        *current = None;
        let token = self.fetch(now).await.map_err(|mut untaken| {
            let failure = &mut untaken.failure;
            failure.detail = format!("token endpoint: {}", failure.detail);
            untaken
        })?;
        *current = Some(token.clone());
        Ok(token)
    }

    /// The endpoint has answered 401 to this token. Whether another one may help: it does if this
    /// one was good before; one that never was is what this issuer gives.
    pub(crate) fn discard(&self, token: &BearerToken) -> bool {
        // Where it is locked, another attempt is renewing it already.
        if let Ok(mut current) = self.current.try_lock()
            && current.as_ref().is_some_and(|kept| Arc::ptr_eq(&kept.proven, &token.proven))
        {
            *current = None;
        }
        token.proven.load(Ordering::Relaxed)
    }

    async fn fetch(&self, now: Timestamp) -> Result<BearerToken, NoToken> {
        if let Some(refusal) = self.refusal {
            let detail = refusal.to_string();
            let failure = AttemptFailure { class: FailureClass::Refused, detail };
            return Err(NoToken { failure, reach: AttemptReach::Endpoint });
        }
        let away = |failure| NoToken { failure, reach: AttemptReach::Unprocessed };
        let asked = Instant::now();
        let mut request = Request::new(OutgoingBody::Whole(self.form.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.path.clone();
        *request.headers_mut() = self.headers.clone();
        let sent = self.connections.send(request, asked, &mut AttemptReach::default()).await;
        let (response, mut connection) = sent.map_err(|trouble| away(classify(&trouble)))?;
        let mut seen = SeenResponse::default();
        connection.drive(seen.read(response, ANSWER_MAX_BYTES, now)).await.map_err(away)?;
        self.connections.keep(connection, Instant::now()).await;
        let is_away = seen.status.is_some_and(|status| {
            status.is_server_error()
                || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
        });
        read(seen.status, &seen.body, asked).map_err(|failure| match is_away {
            true => away(failure),
            false => NoToken { failure, reach: AttemptReach::Endpoint },
        })
    }
}

impl BearerToken {
    /// The endpoint has taken it.
    pub(crate) fn prove(&self) {
        self.proven.store(true, Ordering::Relaxed);
    }
}

/// Reads an issuer's answer to a request that was made at `asked`.
fn read(
    status: Option<StatusCode>,
    body: &[u8],
    asked: Instant,
) -> Result<BearerToken, AttemptFailure> {
    let body = without_mark(body);
    let failure = |detail: String| AttemptFailure { class: FailureClass::Status, detail };
    let status = status.unwrap_or_default();
    if !status.is_success() {
        let code = serde_json::from_slice(body).ok().map(|TokenRefused { error }| error);
        let plain = |c: char| c.is_ascii_lowercase() || c == '_';
        let code = code.filter(|code| code.len() <= CODE_CHARS_MAX && code.chars().all(plain));
        let code = code.map(|code| format!(" ({code})")).unwrap_or_default();
        return Err(failure(format!("{}{code}", status.as_str())));
    }
    let issued = serde_json::from_slice(body).ok();
    let issued = issued.filter(|issued: &IssuedToken| !issued.access_token.trim().is_empty());
    let issued = issued.ok_or_else(|| failure(String::from("its answer holds no access_token")))?;
    if issued.token_type.is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        return Err(failure(String::from("it issued no bearer token")));
    }
    let mut header = HeaderValue::try_from(format!("Bearer {}", issued.access_token))
        .map_err(|_| failure(String::from("its token cannot stand in a header")))?;
    header.set_sensitive(true);
    let seconds = issued.expires_in.and_then(|value| match value {
        serde_json::Value::String(text) => text.parse().ok(),
        number => number.as_f64(),
    });
    let lifetime = seconds.and_then(|seconds: f64| Duration::try_from_secs_f64(seconds).ok());
    let lifetime = lifetime.unwrap_or(LIFETIME).min(LIFETIME_MAX);
    let until = asked + (lifetime - MARGIN.min(lifetime / 10));
    Ok(BearerToken { header, until, proven: Arc::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_gives_a_token_for_a_while() {
        let cases = [
            (r#"{"access_token":"t","expires_in":3600}"#, 3570),
            (r#"{"access_token":"t","token_type":"Bearer","expires_in":"3600"}"#, 3570),
            (r#"{"access_token":"t","token_type":"bearer","expires_in":10}"#, 9),
            (r#"{"access_token":"t","expires_in":-1}"#, 270),
            (r#"{"access_token":"t","expires_in":1e300}"#, 270),
            (r#"{"access_token":"t"}"#, 270),
        ];
        for (answer, expected) in cases {
            let now = Instant::now();
            let token = read(Some(StatusCode::OK), answer.as_bytes(), now).ok().unwrap();
            assert_eq!(token.until - now, Duration::from_secs(expected), "case: {answer}");
            assert_eq!(token.header, "Bearer t");
            assert!(token.header.is_sensitive());
        }
    }

    #[tokio::test]
    async fn whatever_else_an_issuer_says_is_told_without_its_text() {
        let unauthorized = r#"{"error":"invalid_client","error_description":"hunter2"}"#;
        let cases = [
            (401, unauthorized, "401 (invalid_client)"),
            (400, r#"{"error":"hunter2 is wrong"}"#, "400"),
            (503, "hunter2", "503"),
            (200, r#"{"token":"hunter2"}"#, "its answer holds no access_token"),
            (200, "hunter2", "its answer holds no access_token"),
            (200, r#"{"access_token":" "}"#, "its answer holds no access_token"),
            (200, r#"{"access_token":"hunter2\n"}"#, "its token cannot stand in a header"),
            (200, r#"{"access_token":"hunter2","token_type":"mac"}"#, "it issued no bearer token"),
        ];
        for (status, answer, expected) in cases {
            let status = StatusCode::from_u16(status).unwrap();
            let Err(failure) = read(Some(status), answer.as_bytes(), Instant::now()) else {
                panic!("case: {answer}")
            };
            assert_eq!((failure.class, &*failure.detail), (FailureClass::Status, expected));
        }
    }
}
