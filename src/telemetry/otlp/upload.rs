//! One OTLP/HTTP request to the collector, and whether it may be repeated.

use std::time::Duration;

use http::HeaderMap;
use http::header;
use prost::Message;
use reqwest::Client;
use reqwest::Response;
use reqwest::StatusCode;
use reqwest::redirect::Policy;
use url::Url;

use crate::config::secret::Secret;
use crate::config::settings::CollectorSettings;

/// How much of an answer is read: counts, and a text for people.
const ANSWER_BYTES_MAX: usize = 4 * 1024;

const PROTOBUF: &str = "application/x-protobuf";

/// The collector did not take it. The texts hold neither URL nor headers.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError {
    #[error("the collector cannot be reached: {0}")]
    Unreached(String),
    /// It may take it later, after `wait` if it says so.
    #[error("the collector answers {status}")]
    Busy { status: StatusCode, wait: Option<Duration> },
    #[error("the collector answers {status}{said}")]
    Refused { status: StatusCode, said: String },
}

impl UploadError {
    /// Whether the same request may be taken later (OTLP, "Retryable Response Codes").
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Unreached(_) | Self::Busy { .. } => true,
            Self::Refused { .. } => false,
        }
    }

    pub(super) fn wait(&self) -> Option<Duration> {
        match self {
            Self::Busy { wait, .. } => *wait,
            Self::Unreached(_) | Self::Refused { .. } => None,
        }
    }
}

/// The way to the collector. Clones share connections.
#[derive(Clone, Debug)]
pub(super) struct CollectorClient {
    client: Client,
    headers: HeaderMap,
}

impl CollectorClient {
    /// # Errors
    /// TLS cannot be set up.
    pub(super) fn new(settings: &CollectorSettings) -> Result<Self, reqwest::Error> {
        let client = Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .timeout(settings.timeout)
            .user_agent(concat!("walhook/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { client, headers: settings.headers.clone() })
    }

    /// Returns what the collector says of it, which may be that it has left something out.
    ///
    /// # Errors
    /// Why the collector did not take it.
    pub(super) async fn send(
        &self,
        url: &Secret<Url>,
        message: &impl Message,
    ) -> Result<Vec<u8>, UploadError> {
        let request = self.client.post(url.reveal().clone()).headers(self.headers.clone());
        let request = request.header(header::CONTENT_TYPE, PROTOBUF).body(message.encode_to_vec());
        let answer = request.send().await;
        let answer = answer.map_err(|error| UploadError::Unreached(without_url(error)))?;
        let status = answer.status();
        if matches!(status.as_u16(), 429 | 502 | 503 | 504) {
            let wait = answer.headers().get(header::RETRY_AFTER);
            let wait = wait.and_then(|wait| wait.to_str().ok()?.trim().parse().ok());
            return Err(UploadError::Busy { status, wait: wait.map(Duration::from_secs) });
        }
        let said = said(answer).await;
        match status.is_success() {
            true => Ok(said),
            false => Err(UploadError::Refused { status, said: reason(&said) }),
        }
    }
}

/// The beginning of an answer.
async fn said(mut answer: Response) -> Vec<u8> {
    let mut said = Vec::new();
    while said.len() < ANSWER_BYTES_MAX
        && let Ok(Some(chunk)) = answer.chunk().await
    {
        said.extend_from_slice(&chunk);
    }
    said.truncate(ANSWER_BYTES_MAX);
    said
}

/// The text of a refusal: a `google.rpc.Status`, whose second field it is, or plain text.
fn reason(said: &[u8]) -> String {
    #[derive(Clone, PartialEq, Message)]
    struct RpcStatus {
        #[prost(string, tag = "2")]
        message: String,
    }
    let text = match RpcStatus::decode(said) {
        Ok(status) if !status.message.is_empty() => status.message,
        _ => String::from_utf8_lossy(said).into_owned(),
    };
    let text: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
    if text.is_empty() { text } else { format!(": {text}") }
}

/// What stands behind an error, without the URL that the first of its texts holds.
fn without_url(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = cause.to_string();
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_why_whatever_its_form() {
        let status = b"\x08\x03\x12\x0cno such thin"; // code 3, a text of 12 bytes
        let cases: [(&[u8], &str); 4] = [
            (status, ": no such thin"),
            (b"plain text", ": plain text"),
            (b"two\nlines", ": twolines"),
            (b"", ""),
        ];
        for (said, expected) in cases {
            assert_eq!(reason(said), expected, "case: {said:?}");
        }
    }
}
