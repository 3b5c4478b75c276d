//! What an answer means, where its status alone does not tell, and without what is secret.

use bytes::Bytes;
use http::StatusCode;

use crate::delivery::channel::Channel;
use crate::delivery::http::EndpointClient;
use crate::delivery::request::oauth::BearerToken;
use crate::delivery::response::reply::SeenResponse;
use crate::flow::verdict::AttemptFailure;
use crate::flow::verdict::AttemptReach;
use crate::flow::verdict::AttemptVerdict;
use crate::flow::verdict::FailureClass;

impl EndpointClient {
    /// What the answer says about the token. A 401 to one that was good before is worth another
    /// attempt, which gets a new one; to one that never was, it is as final as any.
    pub(super) fn judge_token(
        &self,
        token: Option<BearerToken>,
        status: Option<StatusCode>,
        (verdict, failure): (AttemptVerdict, Option<AttemptFailure>),
        reach: &mut AttemptReach,
    ) -> (AttemptVerdict, Option<AttemptFailure>) {
        let (Some(tokens), Some(token)) = (&self.tokens, token) else { return (verdict, failure) };
        match status {
            Some(StatusCode::UNAUTHORIZED) => match (tokens.discard(&token), &verdict) {
                (true, AttemptVerdict::Dead | AttemptVerdict::Retry { .. }) => {
                    *reach = AttemptReach::Unprocessed;
                    (AttemptVerdict::Retry { at_least: None }, failure)
                }
                _ => (verdict, failure),
            },
            Some(_) => {
                token.prove();
                (verdict, failure)
            }
            None => (verdict, failure),
        }
    }

    pub(super) fn judge_message(
        &self,
        channel: &Channel,
        judged: (AttemptVerdict, Option<AttemptFailure>),
        seen: &SeenResponse,
        reach: &mut AttemptReach,
    ) -> (AttemptVerdict, Option<AttemptFailure>) {
        let (verdict, failure) = channel.judge(judged, seen.status, &seen.body, reach);
        (verdict, failure.map(|failure| self.without_secrets(failure)))
    }

    pub(super) fn without_secrets(&self, failure: AttemptFailure) -> AttemptFailure {
        let detail = self.masked(Bytes::from(failure.detail));
        AttemptFailure { detail: String::from_utf8_lossy(&detail).into_owned(), ..failure }
    }

    /// An answer without what it repeats of the URL, or of a token.
    pub(super) fn masked(&self, text: Bytes) -> Bytes {
        let text = self.redactor.redacted(text);
        match &self.channel {
            Some(channel) => channel.masked(text),
            None => text,
        }
    }

    pub(super) fn overdue(&self) -> AttemptFailure {
        let detail = format!("no complete response within {:?}", self.timeout);
        AttemptFailure { class: FailureClass::Timeout, detail }
    }
}
