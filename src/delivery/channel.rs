//! Messages to chat systems: what a request carries beside the message, and what an answer says.
//!
//! ```text
//! event ─ message ─▶ pieces that fit ─ token, signature ─▶ request ─▶ answer ─ code ─▶ verdict
//! ```
//!
//! All that differs between the systems is in their [`Preset`]. An answer that says that the access
//! token is none any more costs no attempt: the message is sent again at once, once, with another.

mod answer;
mod pieces;

use std::sync::Arc;

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
use crate::config::settings::ChannelSignature;
use crate::config::settings::Overflow;
use crate::config::settings::Preset;
use crate::delivery::begun_message::BegunMessages;
use crate::delivery::channel::answer::ChannelReply;
use crate::delivery::channel::answer::Said;
use crate::delivery::connection::connections::ConnectionPool;
use crate::delivery::connection::network::DeliveryNetwork;
use crate::delivery::connection::transport_failure::classify;
use crate::delivery::request::access_token::AccessTokens;
use crate::delivery::request::body::OutgoingBody;
use crate::delivery::request::token_registry::AccessToken;
use crate::delivery::response::reply::SeenResponse;
use crate::flow::event::Event;
use crate::flow::lease::Lease;
use crate::flow::time::Timestamp;
use crate::flow::verdict::AttemptFailure;
use crate::flow::verdict::AttemptReach;
use crate::flow::verdict::AttemptVerdict;
use crate::flow::verdict::FailureClass;
use crate::telemetry::metrics::ChannelErrorMetrics;

/// Of an application: where messages go, and where it can be asked for (WeCom, "获取指定的应用详情").
const SEND: &str = "message/send";
const INQUIRE: &str = "agent/get";

/// One endpoint's chat system.
pub(crate) struct Channel {
    endpoint: Arc<str>,
    preset: &'static Preset,
    tokens: Option<AccessTokens>,
    secret: Option<Vec<u8>>,
    agent_id: Option<i64>,
    overflow: Overflow,
    begun: BegunMessages,
    errors: Option<ChannelErrorMetrics>,
}

/// The way to the endpoint, with what each request carries.
pub(crate) struct Line<'a> {
    pub(crate) connections: &'a ConnectionPool,
    pub(crate) path: &'a Uri,
    pub(crate) headers: HeaderMap,
    /// How much of an answer is read.
    pub(crate) limit: usize,
}

impl Line<'_> {
    /// One request and its answer.
    async fn carry(
        &self,
        request: Request<OutgoingBody>,
        (started, now): (Instant, Timestamp),
        told: &mut Told<'_>,
    ) -> Result<Instant, AttemptFailure> {
        let sent = self.connections.send(request, started, told.reach).await;
        let (response, mut connection) = sent.map_err(|trouble| classify(&trouble))?;
        connection.drive(told.seen.read(response, self.limit, now)).await?;
        let ended = Instant::now();
        self.connections.keep(connection, ended).await;
        Ok(ended)
    }
}

/// What an attempt learns, also of one that is cut off.
pub(crate) struct Told<'a> {
    pub(crate) reach: &'a mut AttemptReach,
    pub(crate) seen: &'a mut SeenResponse,
    /// Requests that were begun.
    pub(crate) requests: &'a mut u32,
}

impl Channel {
    pub(crate) fn new(
        endpoint: Arc<str>,
        channel: &settings::Channel,
        tokens: Option<AccessTokens>,
        network: &DeliveryNetwork,
    ) -> Self {
        let errors = network.channel_errors();
        if let Some(errors) = &errors {
            for code in channel.preset.passing_codes() {
                errors.expect(&endpoint, &code.to_string());
            }
        }
        Self {
            endpoint,
            preset: channel.preset,
            tokens,
            secret: channel.secret.as_ref().map(|secret| secret.reveal().clone().into_bytes()),
            agent_id: channel.app.as_ref().map(|app| app.agent_id),
            overflow: channel.overflow,
            begun: network.begun(),
            errors,
        }
    }

    pub(crate) fn has_token(&self) -> bool {
        self.tokens.is_some()
    }

    /// Sends the lease's message, in as many pieces as it needs, until one of them is not taken.
    pub(crate) async fn exchange(
        &self,
        line: Line<'_>,
        lease: &Lease,
        (started, now): (Instant, Timestamp),
        told: &mut Told<'_>,
    ) -> Result<Instant, AttemptFailure> {
        let [event] = lease.events.as_slice() else {
            return Err(bad(String::from("messages of a channel go one by one")));
        };
        let pieces = self.pieces(event, now)?;
        let last = pieces.len() - 1;
        let taken = if last > 0 { self.begun.taken(&self.endpoint, event.id) } else { 0 };
        let mut ended = started;
        for (index, piece) in pieces.iter().enumerate().skip(taken.min(last)) {
            ended = self.send(&line, piece, (started, now), told).await?;
            let is_ok = told.seen.status.is_some_and(|status| status.is_success());
            if !is_ok || self.read(told.seen).said != Said::Taken {
                break;
            }
            if index < last {
                self.begun.note(&self.endpoint, event.id, index + 1);
            } else if last > 0 {
                self.begun.forget(&self.endpoint, event.id);
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
        told: &mut Told<'_>,
    ) -> Result<Instant, AttemptFailure> {
        let mut is_renewed = false;
        loop {
            let token = match &self.tokens {
                Some(_) => Some(self.token(now, told).await?),
                None => None,
            };
            *told.seen = SeenResponse::default();
            let mut request = Request::new(OutgoingBody::Whole(piece.clone()));
            *request.method_mut() = Method::POST;
            *request.uri_mut() = self.target(line.path, token.as_ref(), now)?;
            *request.headers_mut() = line.headers.clone();
            *told.requests += 1;
            let ended = line.carry(request, (started, now), told).await?;
            let reply = self.read(told.seen);
            self.count(reply.code.as_deref());
            if let (Some(tokens), Some(token), Said::Stale(_)) = (&self.tokens, &token, reply.said)
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

    /// A token, of which the attempt learns nothing but why there is none.
    async fn token(
        &self,
        now: Timestamp,
        told: &mut Told<'_>,
    ) -> Result<AccessToken, AttemptFailure> {
        let Some(tokens) = &self.tokens else { return Err(bad(String::from("it has no token"))) };
        *told.seen = SeenResponse::default();
        *told.reach = AttemptReach::Unprocessed;
        let token = tokens.token(now).await.map_err(|none| {
            *told.reach = none.reach;
            self.count(none.code.map(|code| code.to_string()).as_deref());
            none.failure
        })?;
        *told.reach = AttemptReach::Endpoint;
        Ok(token)
    }

    /// Fetches a token and asks for the application with it. No message is sent.
    ///
    /// # Errors
    /// Why not, and the system's code if it has said one.
    pub(crate) async fn try_access(
        &self,
        line: &Line<'_>,
        now: Timestamp,
    ) -> Result<(), (AttemptFailure, Option<i64>)> {
        let Some(tokens) = &self.tokens else { return Ok(()) };
        let token = tokens.token(now).await.map_err(|none| (none.failure, none.code))?;
        let (mut reach, mut seen, mut requests) =
            (AttemptReach::Endpoint, SeenResponse::default(), 0);
        let mut told = Told { reach: &mut reach, seen: &mut seen, requests: &mut requests };
        let plain = |failure| (failure, None);
        let mut request = Request::new(OutgoingBody::Whole(Bytes::new()));
        *request.uri_mut() = self.inquiry(line.path, &token).map_err(plain)?;
        *request.headers_mut() = line.headers.clone();
        line.carry(request, (Instant::now(), now), &mut told).await.map_err(plain)?;
        let ChannelReply { said, code } = self.read(&seen);
        match said {
            // What stands in front of WeCom may know of nothing but messages.
            Said::Taken | Said::Unreadable(_) => Ok(()),
            Said::Throttled(_, detail)
            | Said::Again(detail)
            | Said::Stale(detail)
            | Said::Refused(detail) => {
                let detail = self.masked_text(detail);
                let failure = AttemptFailure { class: FailureClass::Status, detail };
                Err((failure, code.and_then(|code| code.parse().ok())))
            }
        }
    }

    /// Where the application itself is asked for, beside where its messages go.
    fn inquiry(&self, path: &Uri, token: &AccessToken) -> Result<Uri, AttemptFailure> {
        let path = path.to_string();
        let base = path.strip_suffix(SEND).unwrap_or(&path);
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("access_token", &token.text);
        query.append_pair("agentid", &self.agent_id.unwrap_or_default().to_string());
        let target = format!("{base}{INQUIRE}?{}", query.finish()).parse();
        target.map_err(|_| bad(String::from("the token cannot stand in a URL")))
    }

    fn read(&self, seen: &SeenResponse) -> ChannelReply {
        ChannelReply::read(self.preset, seen.status, &seen.body)
    }

    fn count(&self, code: Option<&str>) {
        if let (Some(errors), Some(code)) = (&self.errors, code) {
            errors.answered(&self.endpoint, code);
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
        // It may be asked for at all again when it says so, and not only this message.
        if status == Some(StatusCode::TOO_MANY_REQUESTS)
            && matches!(verdict, AttemptVerdict::Retry { at_least: Some(_) })
        {
            *reach = AttemptReach::Throttled;
        }
        let because = |detail| {
            Some(AttemptFailure { class: FailureClass::Status, detail: self.masked_text(detail) })
        };
        match ChannelReply::read(self.preset, status, body).said {
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
        let pieces = match pieces::of(self.preset, self.overflow, &message) {
            Some(pieces) => pieces,
            None if added => vec![pieces::bytes_of(&message)],
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
}

fn bad(detail: String) -> AttemptFailure {
    AttemptFailure { class: FailureClass::Request, detail }
}

fn sign(key: &[u8], content: &[u8]) -> String {
    BASE64_STANDARD.encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), content))
}

#[cfg(test)]
mod tests;
