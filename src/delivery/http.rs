//! One exchange with an endpoint: the only HTTP client that delivers.
//!
//! HTTP/1.1 over kept-alive connections, or HTTP/2 where it is asked for; no redirects, no proxies
//! from the environment, no decompression: what is sent goes to the address that was judged, and
//! what comes back has the size that it has. The deadline covers all of it, from name resolution to the response's last
//! byte.

mod judgement;

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::Method;
use http::Request;
use http::Uri;
use http::header;
use tokio::time::Instant;
use tokio::time::error::Elapsed;
use tracing::Instrument;
use tracing::Span;
use tracing::field;
use url::Url;

use crate::config::sections::endpoint_connection::ConnectionLink;
use crate::config::settings::AddressPolicy;
use crate::config::settings::AnswerRule;
use crate::config::settings::Auth;
use crate::config::settings::Endpoint;
use crate::delivery::channel::Channel;
use crate::delivery::channel::Line;
use crate::delivery::channel::Told;
use crate::delivery::connection::address_guard::AddressRefusal;
use crate::delivery::connection::connections::ConnectionPool;
use crate::delivery::connection::connections::TIDY_EVERY;
use crate::delivery::connection::network::DeliveryNetwork;
use crate::delivery::connection::stalled_bodies::LargeAttempt;
use crate::delivery::connection::stalled_bodies::StallRule;
use crate::delivery::connection::transport_failure::classify;
use crate::delivery::connection::url_target::EndpointSite;
use crate::delivery::error::DeliveryError;
use crate::delivery::request::access_token;
use crate::delivery::request::access_token::AccessTokens;
use crate::delivery::request::auth;
use crate::delivery::request::body;
use crate::delivery::request::body::OutgoingBody;
use crate::delivery::request::headers;
use crate::delivery::request::headers::EventIds;
use crate::delivery::request::oauth::BearerToken;
use crate::delivery::request::oauth::TokenCache;
use crate::delivery::request::request_template::TemplateFiller;
use crate::delivery::request::sign::RequestSignature;
use crate::delivery::request::sign::RequestSigner;
use crate::delivery::response::redact::TextRedactor;
use crate::delivery::response::reply::SeenResponse;
use crate::delivery::response::reply_verdict::judge;
use crate::delivery::trace::EndpointTracing;
use crate::flow::headers::HeaderLines;
use crate::flow::lease::Lease;
use crate::flow::time::Timestamp;
use crate::flow::time::whole_millis;
use crate::flow::verdict::AttemptFailure;
use crate::flow::verdict::AttemptReach;
use crate::flow::verdict::FailureClass;
use crate::flow::verdict::HttpExchange;

/// Headers of a request that are kept for the books.
const SHOWN_HEADERS_MAX_BYTES: usize = 32 * 1024;

/// How much of a response a rule on its body looks at.
const JUDGED_BODY_MAX_BYTES: usize = 64 * 1024;

/// Sends to one endpoint. Built once; attempts run concurrently and share its connections.
pub struct EndpointClient {
    endpoint: Arc<str>,
    connections: Arc<ConnectionPool>,
    /// Path and query; the whole URL where a proxy is to read it.
    path: Uri,
    /// What every request carries, authentication included.
    headers: HeaderMap,
    /// These as the books keep them.
    shown_headers: HeaderLines,
    /// Those of them that the operator wrote.
    own_headers: HeaderMap,
    /// What differs from event to event.
    filler: Option<TemplateFiller>,
    signer: Option<RequestSigner>,
    tokens: Option<Box<TokenCache>>,
    /// The chat system that it is. Most are none, as most fetch no token: there can be 100,000 of these.
    channel: Option<Box<Channel>>,
    /// Bodies are JSON arrays.
    batched: bool,
    answers: AnswerRule,
    timeout: Duration,
    response_limit: usize,
    /// Why no request is made: the endpoint cannot be used, or must not be reached.
    refusal: Option<AttemptFailure>,
    redactor: TextRedactor,
    /// `None` where memory has no limit.
    stall_rule: Option<StallRule>,
    /// `None` where nobody is told of traces.
    tracing: Option<EndpointTracing>,
}

impl EndpointClient {
    /// # Errors
    /// The endpoint's URL, headers or credentials cannot be used, or TLS cannot be set up.
    pub fn new(endpoint: &Endpoint, network: &DeliveryNetwork) -> Result<Self, DeliveryError> {
        let name = || Arc::clone(&endpoint.name);
        let url = endpoint.url.reveal();
        let mut headers = headers::fixed(endpoint)?;
        if let Some(auth) = auth::of_url(url)
            && !headers.contains_key(header::AUTHORIZATION)
        {
            headers.extend(auth::header(&auth, &endpoint.name)?);
        }
        let site = |url: &Url, policy: AddressPolicy, link: &ConnectionLink| {
            EndpointSite::new(url, policy, link, network, endpoint.timeout, &endpoint.name)
        };
        let tokens = match &endpoint.auth {
            Some(Auth::OAuth2(oauth)) => {
                let link = ConnectionLink { http2: false, ..endpoint.link.clone() };
                let issuer = site(oauth.token_url.reveal(), endpoint.addresses, &link)?;
                Some(Box::new(TokenCache::new(oauth, issuer, headers.get(header::USER_AGENT))))
            }
            _ => None,
        };
        let channel = match &endpoint.channel {
            Some(channel) => {
                let tokens = match &channel.app {
                    Some(app) => {
                        let url = access_token::token_url(app);
                        let issuer = site(&url, endpoint.addresses, &endpoint.link)?;
                        let user_agent = headers.get(header::USER_AGENT);
                        Some(AccessTokens::new(app, issuer, network.tokens(), user_agent))
                    }
                    None => None,
                };
                Some(Box::new(Channel::new(name(), channel, tokens, network)))
            }
            None => None,
        };
        let site = site(url, endpoint.addresses, &endpoint.link)?;
        headers.extend(site.headers);
        let shown_headers = headers::shown(&headers, SHOWN_HEADERS_MAX_BYTES);
        let filler = TemplateFiller::new(&endpoint.request, &site.path);
        let target = &endpoint.request.target;
        Ok(Self {
            endpoint: name(),
            connections: site.connections,
            path: site.path,
            headers,
            shown_headers,
            tokens,
            channel,
            own_headers: endpoint.headers.clone(),
            filler,
            signer: endpoint.signing.as_ref().map(RequestSigner::new),
            batched: endpoint.batch.size.get() > 1,
            answers: endpoint.answers.clone(),
            timeout: endpoint.timeout,
            response_limit: endpoint.response_limit,
            refusal: refusal(endpoint, site.refusal),
            redactor: TextRedactor::new(url, target),
            stall_rule: network.stall_rule(),
            tracing: network.tracing_of(endpoint),
        })
    }

    /// Makes one request for the lease and judges what comes back. `now` is the time of the
    /// attempt on this host's clock: it goes into bodies, headers and signatures, which receivers
    /// compare with their own clocks.
    ///
    /// Never fails and never takes longer than the endpoint's timeout. Dropping the future closes
    /// the connection. Log fields: never the body, the headers or the URL.
    pub async fn attempt(&self, lease: &Lease, now: Timestamp) -> HttpExchange {
        let span = tracing::debug_span!(
            "attempt",
            endpoint = %self.endpoint,
            event = lease.events.first().map(|event| field::display(event.id)),
            number = lease.attempt,
            status = field::Empty,
        );
        // Pinned where it stands: to move it, as an attribute would, is to copy 3 KiB.
        let exchange = pin!(self.timed(lease, now, &span)).instrument(span.clone()).await;
        if let Some(tracing) = &self.tracing {
            tracing.record(lease, now, &exchange);
        }
        exchange
    }

    /// An attempt with its deadline and its judgement.
    async fn timed(&self, lease: &Lease, now: Timestamp, span: &Span) -> HttpExchange {
        let started = Instant::now();
        let mut request_headers = HeaderLines::default();
        let mut seen = SeenResponse::default();
        let mut token = None;
        let (mut reach, mut requests) = (AttemptReach::Endpoint, 0);
        let ended = match &self.refusal {
            Some(refusal) => Err(refusal.clone()),
            None => {
                let begun = (started, now);
                let shown = &mut request_headers;
                let told = Told { reach: &mut reach, seen: &mut seen, requests: &mut requests };
                let learnt = (told, &mut token);
                let large = self.stall_rule.as_ref().and_then(|rule| rule.attempt(lease));
                let sent = large.as_ref().map(LargeAttempt::counter);
                let exchange = pin!(self.exchange(lease, begun, shown, learnt, sent));
                let ended = tokio::time::timeout_at(started + self.timeout, exchange);
                let ended = match large {
                    None => ended.await,
                    Some(large) => self.unless_stalled(large, ended).await,
                };
                ended.unwrap_or_else(|_| Err(self.overdue()))
            }
        };
        if let (Ok(_), Some(rule)) = (&ended, &self.stall_rule) {
            rule.note_delivered();
        }
        let took = ended.as_ref().map_or_else(|_| Instant::now(), |at| *at) - started;
        let judged = judge(seen.reply(ended.map(drop)), &seen.body, &self.answers);
        let judged = match &self.channel {
            Some(channel) => self.judge_message(channel, judged, &seen, &mut reach),
            None => judged,
        };
        let (verdict, failure) = self.judge_token(token, seen.status, judged, &mut reach);
        if failure.as_ref().is_some_and(|failure| failure.class == FailureClass::Local) {
            reach = AttemptReach::Nowhere;
        }
        let status = seen.status.map(|status| status.as_u16());
        span.record("status", status);
        tracing::debug!(
            took_ms = whole_millis(took),
            error = failure.as_ref().map(field::display),
            "attempt ended"
        );
        HttpExchange {
            verdict,
            reach,
            requests: requests.max(1),
            failure,
            status,
            took,
            request_headers,
            response_headers: std::mem::take(&mut seen.headers),
            response_body: self.masked(seen.into_body(self.response_limit)),
        }
    }

    /// A large body that does not move is given up while its memory is wanted.
    async fn unless_stalled<T>(
        &self,
        large: LargeAttempt,
        ended: impl Future<Output = Result<Result<T, AttemptFailure>, Elapsed>>,
    ) -> Result<Result<T, AttemptFailure>, Elapsed> {
        tokio::select! {
            biased;
            ended = ended => ended,
            failure = Box::pin(large.given_up()) => {
                if let Some(rule) = &self.stall_rule {
                    rule.note_given_up();
                }
                Ok(Err(failure))
            }
        }
    }

    /// The part that the deadline may cut off at any point: what was learnt until then is in
    /// `shown`, and in how far it came, its token, and what came back. Returns when it was over.
    async fn exchange(
        &self,
        lease: &Lease,
        (started, now): (Instant, Timestamp),
        shown: &mut HeaderLines,
        (mut told, token): (Told<'_>, &mut Option<BearerToken>),
        sent: Option<Arc<AtomicU64>>,
    ) -> Result<Instant, AttemptFailure> {
        let filler = self.filler.as_ref();
        let filled = filler.map(|filler| filler.fill(&lease.events, now)).transpose()?;
        if let Some(tokens) = &self.tokens {
            // Apart: it would be most of what each attempt of each endpoint takes of memory.
            *told.reach = AttemptReach::Unprocessed;
            let fetched = Box::pin(tokens.token(now)).await;
            *token = Some(fetched.map_err(|untaken| {
                *told.reach = untaken.reach;
                untaken.failure
            })?);
            *told.reach = AttemptReach::Endpoint;
        }
        // A batch that was gathered before the endpoint's settings changed stays one.
        let batched = self.batched || lease.events.len() > 1;
        let ids = EventIds::of(lease, batched);
        let timestamp = now.seconds().to_string();
        let mut signature = self.signer.as_ref().map(|signer| signer.begin(&ids.id, &timestamp));
        let body = match &self.channel {
            Some(_) => OutgoingBody::Whole(Bytes::new()), // it makes its own
            None => body::complete(&lease.events, batched, now, signature.as_mut(), sent).await,
        };
        let mut headers = self.headers.clone();
        let signed = signature.map(RequestSignature::finish).unwrap_or_default();
        headers::shape(&mut headers, &self.own_headers, lease, batched);
        headers::complete(&mut headers, ids, &timestamp, signed);
        if let Some(tracing) = &self.tracing {
            tracing.tell(&mut headers, &self.own_headers, lease, now);
        }
        if let Some(token) = token {
            headers.insert(header::AUTHORIZATION, token.header.clone());
        }
        let limit = SHOWN_HEADERS_MAX_BYTES;
        *shown = match &filled {
            Some(filled) => headers::shown_filled(&headers, filled, limit),
            None => headers::shown_after(&self.headers, &self.shown_headers, &headers, limit),
        };
        if let Some(filled) = &filled {
            filled.put(&mut headers);
        }
        let target = filled.and_then(|filled| filled.target);
        let path = target.as_ref().unwrap_or(&self.path);
        if let Some(channel) = &self.channel {
            let line = self.line(path, headers);
            // Apart, as what fetches tokens: few endpoints are chat systems.
            return Box::pin(channel.exchange(line, lease, (started, now), &mut told)).await;
        }
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = path.clone();
        *request.headers_mut() = headers;
        let sent = self.connections.send(request, started, told.reach).await;
        let (response, mut connection) = sent.map_err(|trouble| classify(&trouble))?;
        // The rule on the body needs one, whatever the books keep.
        let limit = match self.answers.body {
            Some(_) => self.response_limit.max(JUDGED_BODY_MAX_BYTES),
            None => self.response_limit,
        };
        connection.drive(told.seen.read(response, limit, now)).await?;
        let ended = Instant::now();
        self.connections.keep(connection, ended).await;
        Ok(ended)
    }

    /// Makes a connection and sends nothing: whether the endpoint can be reached, and TLS comes about.
    ///
    /// # Errors
    /// Why not. The text names neither host nor path.
    pub async fn reach(&self, limit: Duration) -> Result<(), AttemptFailure> {
        if let Some(refusal) = &self.refusal {
            return Err(refusal.clone());
        }
        match tokio::time::timeout(limit, self.connections.reach()).await {
            Ok(reached) => reached.map_err(|trouble| classify(&trouble)),
            Err(_elapsed) => {
                let detail = format!("no connection within {limit:?}");
                Err(AttemptFailure { class: FailureClass::Timeout, detail })
            }
        }
    }

    /// Whether a chat system lets its application in; `None` if it has no access token.
    pub async fn try_access(
        &self,
        limit: Duration,
        now: Timestamp,
    ) -> Option<Result<(), (AttemptFailure, Option<i64>)>> {
        let channel = self.channel.as_ref().filter(|channel| channel.has_token())?;
        if let Some(refusal) = &self.refusal {
            return Some(Err((refusal.clone(), None)));
        }
        let line = self.line(&self.path, self.headers.clone());
        let tried = tokio::time::timeout(limit, Box::pin(channel.try_access(&line, now))).await;
        let tried = tried.unwrap_or_else(|_elapsed| {
            let detail = format!("no answer within {limit:?}");
            Err((AttemptFailure { class: FailureClass::Timeout, detail }, None))
        });
        Some(tried.map_err(|(failure, code)| (self.without_secrets(failure), code)))
    }

    /// What carries a channel's requests.
    fn line<'a>(&'a self, path: &'a Uri, headers: HeaderMap) -> Line<'a> {
        let limit = self.response_limit.max(JUDGED_BODY_MAX_BYTES);
        Line { connections: &self.connections, path, headers, limit }
    }

    /// Closes connections that are over or unused, from time to time, for ever. It belongs beside
    /// the attempts, in the task that makes them.
    pub async fn tidy(&self) -> Infallible {
        loop {
            tokio::time::sleep(TIDY_EVERY).await;
            self.connections.tidy().await;
        }
    }

    /// Closes the connections that no request has at the moment: after a test of an endpoint, which makes a single one, and
    /// with a lane, since nobody may look after them then.
    pub fn close_idle(&self) {
        self.connections.close_idle();
    }
}

/// Why no request is made, if so.
fn refusal(endpoint: &Endpoint, address: Option<AddressRefusal>) -> Option<AttemptFailure> {
    let why = endpoint.unusable.as_ref().map(ToString::to_string);
    let detail = why.or_else(|| address.map(|refusal| refusal.to_string()))?;
    Some(AttemptFailure { class: FailureClass::Refused, detail })
}

impl std::fmt::Debug for EndpointClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}
