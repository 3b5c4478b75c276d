//! Messages to chat systems: what a request carries beside the message, and what an answer says.
//!
//! ```text
//! event ─ message ─▶ pieces that fit ─ token, signature ─▶ request ─▶ answer ─ code ─▶ verdict
//! ```
//!
//! All that differs between the systems is in their [`Preset`]. An answer that says that the access
//! token is none any more costs no attempt: the message is sent again at once, once, with another.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::HeaderMap;
use http::Method;
use http::Request;
use http::StatusCode;
use http::Uri;
use ring::hmac;
use serde_json::Map;
use serde_json::Value as Json;
use tokio::time::Instant;
use url::form_urlencoded;

use crate::config::settings;
use crate::config::settings::ChannelAnswer;
use crate::config::settings::ChannelSignature;
use crate::config::settings::Overflow;
use crate::config::settings::Preset;
use crate::delivery::access_token::AccessToken;
use crate::delivery::access_token::AccessTokens;
use crate::delivery::body::OutgoingBody;
use crate::delivery::classify::classify;
use crate::delivery::connections::ConnectionPool;
use crate::delivery::judge::without_mark;
use crate::delivery::reply::SeenResponse;
use crate::flow::event::Event;
use crate::flow::event::EventId;
use crate::flow::lease::Lease;
use crate::flow::time::Timestamp;
use crate::flow::verdict::AttemptFailure;
use crate::flow::verdict::AttemptReach;
use crate::flow::verdict::AttemptVerdict;
use crate::flow::verdict::FailureClass;

/// What ends a text that was cut.
const ELLIPSIS: &str = "…";

/// How many messages are remembered of which a part was taken.
const BEGUN_MAX: usize = 1000;

/// The longest reason of a system that is shown.
const REASON_CHARS_MAX: usize = 200;

/// One endpoint's chat system.
pub(crate) struct Channel {
    preset: &'static Preset,
    tokens: Option<AccessTokens>,
    secret: Option<Vec<u8>>,
    agent_id: Option<i64>,
    overflow: Overflow,
    /// Of messages in several pieces: how many were taken.
    begun: Mutex<HashMap<EventId, usize>>,
}

/// The way to the endpoint, with what each request carries.
pub(crate) struct Line<'a> {
    pub(crate) connections: &'a ConnectionPool,
    pub(crate) path: &'a Uri,
    pub(crate) headers: HeaderMap,
    /// How much of an answer is read.
    pub(crate) limit: usize,
}

impl Channel {
    pub(crate) fn new(channel: &settings::Channel, tokens: Option<AccessTokens>) -> Self {
        Self {
            preset: channel.preset,
            tokens,
            secret: channel.secret.as_ref().map(|secret| secret.reveal().clone().into_bytes()),
            agent_id: channel.app.as_ref().map(|app| app.agent_id),
            overflow: channel.overflow,
            begun: Mutex::default(),
        }
    }

    /// Sends the lease's message, in as many pieces as it needs, until one of them is not taken.
    pub(crate) async fn exchange(
        &self,
        line: Line<'_>,
        lease: &Lease,
        (started, now): (Instant, Timestamp),
        (reach, seen): (&mut AttemptReach, &mut SeenResponse),
    ) -> Result<Instant, AttemptFailure> {
        let [event] = lease.events.as_slice() else {
            return Err(bad(String::from("messages of a channel go one by one")));
        };
        let pieces = self.pieces(event, now)?;
        let done = if pieces.len() > 1 { self.done(event.id) } else { 0 };
        let mut ended = started;
        for (index, piece) in pieces.iter().enumerate().skip(done.min(pieces.len() - 1)) {
            ended = self.send(&line, piece, (started, now), (reach, seen)).await?;
            if !matches!(self.said(seen.status, &seen.body), Said::Taken) {
                break;
            }
            if pieces.len() > 1 {
                self.note(event.id, (index + 1 < pieces.len()).then_some(index + 1));
            }
        }
        Ok(ended)
    }

    /// Sends one piece, and again with another token if it has to be.
    async fn send(
        &self,
        line: &Line<'_>,
        piece: &Bytes,
        (started, now): (Instant, Timestamp),
        (reach, seen): (&mut AttemptReach, &mut SeenResponse),
    ) -> Result<Instant, AttemptFailure> {
        let mut is_renewed = false;
        loop {
            let token = match &self.tokens {
                Some(tokens) => {
                    *seen = SeenResponse::default();
                    *reach = AttemptReach::Unprocessed;
                    let token = tokens.token(now).await.map_err(|none| {
                        *reach = none.reach;
                        none.failure
                    })?;
                    *reach = AttemptReach::Endpoint;
                    Some(token)
                }
                None => None,
            };
            *seen = SeenResponse::default();
            let mut request = Request::new(OutgoingBody::Whole(piece.clone()));
            *request.method_mut() = Method::POST;
            *request.uri_mut() = self.target(line.path, token.as_ref(), now)?;
            *request.headers_mut() = line.headers.clone();
            let sent = line.connections.send(request, started, reach).await;
            let (response, mut connection) = sent.map_err(|trouble| classify(&trouble))?;
            connection.drive(seen.read(response, line.limit, now)).await?;
            let ended = Instant::now();
            line.connections.keep(connection, ended).await;
            if let (Some(tokens), Some(token)) = (&self.tokens, &token)
                && matches!(self.said(seen.status, &seen.body), Said::Stale(_))
            {
                tokens.discard(token).await;
                if !is_renewed {
                    is_renewed = true;
                    continue;
                }
            }
            return Ok(ended);
        }
    }

    /// What follows from an answer that the statuses alone judge as `judged`.
    pub(crate) fn judge(
        &self,
        (verdict, failure): (AttemptVerdict, Option<AttemptFailure>),
        status: Option<StatusCode>,
        body: &[u8],
        reach: &mut AttemptReach,
    ) -> (AttemptVerdict, Option<AttemptFailure>) {
        let is_ok = verdict == AttemptVerdict::Delivered;
        // An answer that broke off is judged as any.
        if !is_ok && status.is_none_or(|status| status.is_success()) {
            return (verdict, failure);
        }
        let because = |detail| {
            Some(AttemptFailure { class: FailureClass::Status, detail: self.masked_text(detail) })
        };
        match self.said(status, body) {
            Said::Taken if is_ok => (AttemptVerdict::Delivered, None),
            Said::Throttled(wait, detail) => {
                *reach = AttemptReach::Throttled;
                (AttemptVerdict::Retry { at_least: Some(wait) }, because(detail))
            }
            Said::Again(detail) | Said::Stale(detail) => {
                (AttemptVerdict::Retry { at_least: None }, because(detail))
            }
            Said::Refused(detail) if is_ok => (AttemptVerdict::Dead, because(detail)),
            Said::Refused(detail) => (verdict, because(detail)),
            Said::Unreadable(detail) if is_ok => {
                (AttemptVerdict::Retry { at_least: None }, because(detail))
            }
            Said::Unreadable(_) | Said::Taken => (verdict, failure),
        }
    }

    /// A text of the endpoint's without what must not be seen.
    pub(crate) fn masked(&self, text: Bytes) -> Bytes {
        match &self.tokens {
            Some(tokens) => tokens.masked(text),
            None => text,
        }
    }

    fn masked_text(&self, text: String) -> String {
        String::from_utf8_lossy(&self.masked(Bytes::from(text))).into_owned()
    }

    /// What an answer says.
    fn said(&self, status: Option<StatusCode>, body: &[u8]) -> Said {
        let shown = status.unwrap_or_default();
        let shown = shown.as_str();
        let (code_name, text_name) = match self.preset.answer {
            ChannelAnswer::Word(word) => {
                let is_it = body.trim_ascii() == word.as_bytes();
                let text = String::from_utf8_lossy(body.get(..80).unwrap_or(body)).into_owned();
                return match (is_it, status.is_some_and(|status| status.is_success())) {
                    (true, _) => Said::Taken,
                    (false, true) => {
                        Said::Unreadable(format!("{shown}, but its body is not `{word}`"))
                    }
                    (false, false) => Said::Refused(format!("{shown}: {}", plain(&text))),
                };
            }
            ChannelAnswer::Code { code, text } => (code, text),
        };
        let answer: Option<Json> = serde_json::from_slice(without_mark(body)).ok();
        let number = |value: &Json| value.as_i64().or_else(|| value.as_str()?.trim().parse().ok());
        let Some(code) = answer.as_ref().and_then(|answer| number(answer.get(code_name)?)) else {
            return Said::Unreadable(format!("{shown}, but its body holds no {code_name}"));
        };
        if code == 0 {
            return Said::Taken;
        }
        let text = answer.as_ref().and_then(|answer| answer.get(text_name)?.as_str());
        let detail = format!("{code_name} {code}: {}", plain(text.unwrap_or_default()));
        if let Some((_, seconds)) = self.preset.waits.iter().find(|(known, _)| *known == code) {
            return Said::Throttled(Duration::from_secs(*seconds), detail);
        }
        if self.preset.stale.contains(&code) {
            return Said::Stale(detail);
        }
        if self.preset.again.contains(&code) {
            return Said::Again(detail);
        }
        Said::Refused(detail)
    }

    /// Path and query, with token or signature.
    fn target(
        &self,
        path: &Uri,
        token: Option<&AccessToken>,
        now: Timestamp,
    ) -> Result<Uri, AttemptFailure> {
        let mut query = form_urlencoded::Serializer::new(String::new());
        if let Some(token) = token {
            query.append_pair("access_token", &token.text);
        }
        if let (ChannelSignature::Query, Some(secret)) = (&self.preset.signature, &self.secret) {
            let timestamp = (now.micros() / 1000).to_string();
            let content = [timestamp.as_bytes(), b"\n", secret].concat();
            query.append_pair("timestamp", &timestamp).append_pair("sign", &sign(secret, &content));
        }
        let query = query.finish();
        if query.is_empty() {
            return Ok(path.clone());
        }
        let joint = if path.query().is_some() { '&' } else { '?' };
        let target = format!("{path}{joint}{query}").parse();
        target.map_err(|_| bad(String::from("the token cannot stand in a URL")))
    }

    /// The bodies of the requests that an event needs.
    fn pieces(&self, event: &Event, now: Timestamp) -> Result<Vec<Bytes>, AttemptFailure> {
        let too_long = |bytes: usize| {
            let Preset { name, body_max, .. } = self.preset;
            bad(format!("the message has {bytes} bytes, and {name} takes {body_max}: shorten it"))
        };
        let held = event.body.held_bytes();
        if held > self.preset.body_max {
            return Err(too_long(held));
        }
        let whole = event.body.complete(now);
        let message = serde_json::from_slice::<Map<String, Json>>(&whole);
        let mut message = message.map_err(|_| {
            bad(String::from("its body is no JSON object: give the endpoint a `payload`"))
        })?;
        let added = self.add_members(&mut message, now);
        let pieces = match self.texts(&message) {
            Some((name, texts)) => {
                texts.into_iter().map(|text| with(&message, name, text)).collect()
            }
            None if added => vec![bytes_of(&message)],
            None => vec![whole],
        };
        match pieces.iter().find(|piece| piece.len() > self.preset.body_max) {
            Some(piece) => Err(too_long(piece.len())),
            None => Ok(pieces),
        }
    }

    /// What a message carries beside what it says; whether that is anything.
    fn add_members(&self, message: &mut Map<String, Json>, now: Timestamp) -> bool {
        let before = message.len();
        if let Some(agent_id) = self.agent_id {
            message.entry("agentid").or_insert_with(|| agent_id.into());
        }
        if let (ChannelSignature::Body, Some(secret)) = (&self.preset.signature, &self.secret) {
            let timestamp = now.seconds().to_string();
            let key = [timestamp.as_bytes(), b"\n", secret].concat();
            message.insert(String::from("timestamp"), timestamp.into());
            message.insert(String::from("sign"), sign(&key, b"").into());
        }
        message.len() > before
    }

    /// The texts in the place of one that is too long, and the member whose `content` they are.
    fn texts(&self, message: &Map<String, Json>) -> Option<(&'static str, Vec<String>)> {
        self.preset.texts.iter().find_map(|&(name, max)| {
            let text = message.get(name)?.get("content")?.as_str()?;
            (text.len() > max).then(|| (name, shortened(text, max, self.overflow)))
        })
    }

    fn done(&self, event: EventId) -> usize {
        self.begun().get(&event).copied().unwrap_or_default()
    }

    fn note(&self, event: EventId, done: Option<usize>) {
        let mut begun = self.begun();
        if begun.len() >= BEGUN_MAX {
            begun.clear();
        }
        match done {
            Some(done) => begun.insert(event, done),
            None => begun.remove(&event),
        };
    }

    fn begun(&self) -> MutexGuard<'_, HashMap<EventId, usize>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an answer says, each with its reason.
enum Said {
    Taken,
    /// Not before this time, and nothing else either.
    Throttled(Duration, String),
    Again(String),
    /// The token is none any more.
    Stale(String),
    Refused(String),
    /// It is no answer of this system.
    Unreadable(String),
}

fn bad(detail: String) -> AttemptFailure {
    AttemptFailure { class: FailureClass::Request, detail }
}

fn sign(key: &[u8], content: &[u8]) -> String {
    BASE64_STANDARD.encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), content))
}

fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(REASON_CHARS_MAX).collect()
}

fn bytes_of(message: &Map<String, Json>) -> Bytes {
    Bytes::from(serde_json::to_vec(message).unwrap_or_default())
}

/// The message with another `content` in this member.
fn with(message: &Map<String, Json>, name: &str, text: String) -> Bytes {
    let mut message = message.clone();
    if let Some(content) = message.get_mut(name).and_then(|member| member.get_mut("content")) {
        *content = Json::String(text);
    }
    bytes_of(&message)
}

/// A text in pieces of at most `max` bytes, cut between characters.
fn shortened(text: &str, max: usize, overflow: Overflow) -> Vec<String> {
    if overflow == Overflow::Cut {
        let end = text.floor_char_boundary(max - ELLIPSIS.len());
        let (start, _) = text.split_at_checked(end).unwrap_or((text, ""));
        return vec![format!("{start}{ELLIPSIS}")];
    }
    let (mut pieces, mut rest) = (Vec::new(), text);
    while rest.len() > max {
        let Some((piece, after)) = rest.split_at_checked(rest.floor_char_boundary(max)) else {
            break;
        };
        pieces.push(piece.to_owned());
        rest = after;
    }
    pieces.push(rest.to_owned());
    pieces
}

#[cfg(test)]
mod tests;
