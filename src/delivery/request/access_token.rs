//! Access tokens of WeCom applications: one per corporation and secret for the whole process.
//!
//! An attempt that finds none fetches it, within its own deadline, while the others wait for that one. It is
//! used until shortly before it ends. Token and secret stand in URLs, and an answer may repeat them:
//! nothing leaves here that was not masked.

use std::sync::Arc;
use std::sync::PoisonError;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::Request;
use http::StatusCode;
use http::Uri;
use http::header;
use serde::Deserialize;
use tokio::time::Instant;
use url::Url;

use crate::config::secret::Secret;
use crate::config::settings::WecomApp;
use crate::delivery::connection::address_guard::AddressRefusal;
use crate::delivery::connection::connections::ConnectionPool;
use crate::delivery::connection::transport_failure::classify;
use crate::delivery::connection::url_target::EndpointSite;
use crate::delivery::request::body::OutgoingBody;
use crate::delivery::request::token_registry::AccessToken;
use crate::delivery::request::token_registry::IssuedTokens;
use crate::delivery::request::token_registry::TokenRegistry;
use crate::delivery::response::redact::masked;
use crate::delivery::response::reply::SeenResponse;
use crate::delivery::response::reply_verdict::without_mark;
use crate::flow::time::Timestamp;
use crate::flow::verdict::AttemptFailure;
use crate::flow::verdict::AttemptReach;
use crate::flow::verdict::FailureClass;

/// The longest answer.
const ANSWER_MAX_BYTES: usize = 64 * 1024;

/// How long a token lives whose answer does not say, and the longest that one does.
const LIFETIME: Duration = Duration::from_secs(7200);
const LIFETIME_MAX: Duration = Duration::from_secs(7 * 86_400);

/// A token is not used in its last minutes, or in the last tenth of a short life.
const MARGIN: Duration = Duration::from_secs(300);

/// Busy, or asked too often: no reason to count the attempt.
const BUSY: [i64; 3] = [-1, 45009, 45033];

/// The longest reason that is shown.
const REASON_CHARS_MAX: usize = 200;

/// Why there is no token.
pub(crate) struct NoAccess {
    pub(crate) failure: AttemptFailure,
    pub(crate) reach: AttemptReach,
    /// What the system has answered, if it was that.
    pub(crate) code: Option<i64>,
}

/// The tokens of one endpoint: those of its application, over its own connections.
pub(crate) struct AccessTokens {
    current: Arc<IssuedTokens>,
    corp_secret: Secret<String>,
    connections: Arc<ConnectionPool>,
    path: Uri,
    headers: HeaderMap,
    refusal: Option<AddressRefusal>,
}

#[derive(Deserialize)]
struct Issued {
    #[serde(default)]
    errcode: i64,
    #[serde(default)]
    errmsg: String,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

/// Where an application's tokens come from.
pub(crate) fn token_url(app: &WecomApp) -> Url {
    let mut url = app.token_url.reveal().clone();
    url.query_pairs_mut()
        .append_pair("corpid", &app.corp_id)
        .append_pair("corpsecret", app.corp_secret.reveal());
    url
}

impl AccessTokens {
    /// `site` is that of [`token_url`].
    pub(crate) fn new(
        app: &WecomApp,
        site: EndpointSite,
        registry: &TokenRegistry,
        user_agent: Option<&HeaderValue>,
    ) -> Self {
        let EndpointSite { connections, path, mut headers, refusal } = site;
        headers.extend(user_agent.map(|value| (header::USER_AGENT, value.clone())));
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        let (current, corp_secret) = (registry.current(app), app.corp_secret.clone());
        Self { current, corp_secret, connections, path, headers, refusal }
    }

    /// A token that is good for a while yet.
    pub(crate) async fn token(&self, now: Timestamp) -> Result<AccessToken, NoAccess> {
        let mut current = self.current.token.lock().await;
        if let Some(token) = current.as_ref().filter(|token| Instant::now() < token.until) {
            return Ok(token.clone());
        }
        *current = None;
        let token = self.fetch(now).await.map_err(|mut none| {
            none.failure.detail = format!("access token: {}", none.failure.detail);
            none
        })?;
        *current = Some(token.clone());
        let mut known = self.current.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() > 1 {
            known.remove(0);
        }
        known.push(Arc::clone(&token.text));
        Ok(token)
    }

    /// The endpoint does not take this token any more.
    pub(crate) async fn discard(&self, token: &AccessToken) {
        let mut current = self.current.token.lock().await;
        if current.as_ref().is_some_and(|kept| Arc::ptr_eq(&kept.text, &token.text)) {
            *current = None;
        }
    }

    /// A text without the tokens and the secret that it may repeat.
    pub(crate) fn masked(&self, text: Bytes) -> Bytes {
        let known = self.current.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let secret = self.corp_secret.reveal().as_bytes();
        let text = masked(text, secret);
        known.iter().fold(text, |text, token| masked(text, token.as_bytes()))
    }

    async fn fetch(&self, now: Timestamp) -> Result<AccessToken, NoAccess> {
        if let Some(refusal) = self.refusal {
            let failure =
                AttemptFailure { class: FailureClass::Refused, detail: refusal.to_string() };
            return Err(NoAccess { failure, reach: AttemptReach::Endpoint, code: None });
        }
        let away = |failure| NoAccess { failure, reach: AttemptReach::Unprocessed, code: None };
        let asked = Instant::now();
        let mut request = Request::new(OutgoingBody::Whole(Bytes::new()));
        *request.uri_mut() = self.path.clone();
        *request.headers_mut() = self.headers.clone();
        let sent = self.connections.send(request, asked, &mut AttemptReach::default()).await;
        let (response, mut connection) = sent.map_err(|trouble| away(classify(&trouble)))?;
        let mut seen = SeenResponse::default();
        connection.drive(seen.read(response, ANSWER_MAX_BYTES, now)).await.map_err(away)?;
        self.connections.keep(connection, Instant::now()).await;
        let secret = self.corp_secret.reveal().as_bytes();
        read(seen.status.unwrap_or_default(), &seen.body, asked, |text| {
            masked(Bytes::from(text), secret)
        })
    }
}

/// Reads the answer to a request that was made at `asked`.
fn read(
    status: StatusCode,
    body: &[u8],
    asked: Instant,
    mask: impl Fn(String) -> Bytes,
) -> Result<AccessToken, NoAccess> {
    let no = |detail: String, reach| {
        let failure = AttemptFailure { class: FailureClass::Status, detail };
        Err(NoAccess { failure, reach, code: None })
    };
    if !status.is_success() {
        let is_away = status.is_server_error()
            || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
        let reach = if is_away { AttemptReach::Unprocessed } else { AttemptReach::Endpoint };
        return no(status.as_str().to_owned(), reach);
    }
    let Ok(issued) = serde_json::from_slice::<Issued>(without_mark(body)) else {
        return no(
            String::from("its answer is not JSON with an access_token"),
            AttemptReach::Endpoint,
        );
    };
    if issued.errcode != 0 {
        let reason: String =
            issued.errmsg.chars().filter(|c| !c.is_control()).take(REASON_CHARS_MAX).collect();
        let reason = mask(reason);
        let detail = format!("errcode {}: {}", issued.errcode, String::from_utf8_lossy(&reason));
        let is_busy = BUSY.contains(&issued.errcode);
        let reach = if is_busy { AttemptReach::Unprocessed } else { AttemptReach::Endpoint };
        return no(detail, reach)
            .map_err(|none: NoAccess| NoAccess { code: Some(issued.errcode), ..none });
    }
    let Some(text) = issued.access_token.filter(|text| !text.is_empty()) else {
        return no(String::from("its answer holds no access_token"), AttemptReach::Endpoint);
    };
    let lifetime = issued.expires_in.map_or(LIFETIME, Duration::from_secs).min(LIFETIME_MAX);
    let until = asked + (lifetime - MARGIN.min(lifetime / 10));
    Ok(AccessToken { text: Arc::from(text), until })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_gives_a_token_until_shortly_before_it_ends() {
        let cases = [
            (r#"{"errcode":0,"errmsg":"ok","access_token":"t","expires_in":7200}"#, 6900),
            (r#"{"access_token":"t","expires_in":10}"#, 9),
            (r#"{"access_token":"t","expires_in":0}"#, 0),
            (r#"{"access_token":"t"}"#, 6900),
        ];
        for (answer, expected) in cases {
            let now = Instant::now();
            let token = read(StatusCode::OK, answer.as_bytes(), now, Bytes::from).ok().unwrap();
            assert_eq!(token.until - now, Duration::from_secs(expected), "case: {answer}");
        }
    }

    #[tokio::test]
    async fn what_else_it_says_is_told_without_the_secret() {
        let cases = [
            (
                200,
                r#"{"errcode":40013,"errmsg":"invalid corpid"}"#,
                "errcode 40013: invalid corpid",
            ),
            (
                200,
                r#"{"errcode":40001,"errmsg":"hunter2 is\n wrong"}"#,
                "errcode 40001: [secret] is wrong",
            ),
            (200, r#"{"errcode":0}"#, "its answer holds no access_token"),
            (200, "hunter2", "its answer is not JSON with an access_token"),
            (404, "hunter2", "404"),
        ];
        for (status, answer, expected) in cases {
            let status = StatusCode::from_u16(status).unwrap();
            let mask = |text: String| masked(Bytes::from(text), b"hunter2");
            let Err(none) = read(status, answer.as_bytes(), Instant::now(), mask) else {
                panic!("case: {answer}")
            };
            assert_eq!(
                (none.failure.detail.as_str(), none.reach),
                (expected, AttemptReach::Endpoint)
            );
        }
        for (status, answer) in [(200, r#"{"errcode":-1,"errmsg":"busy"}"#), (502, "")] {
            let status = StatusCode::from_u16(status).unwrap();
            let read = read(status, answer.as_bytes(), Instant::now(), Bytes::from);
            assert_eq!(read.err().unwrap().reach, AttemptReach::Unprocessed, "case: {answer}");
        }
    }
}
