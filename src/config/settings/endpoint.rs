//! `[[endpoint]]`: who gets events, how they are sent, and what counts as delivered.

use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::HeaderName;
use url::Url;

use crate::config::secret::Secret;
use crate::config::sections::endpoint_connection::ConnectionLink;
use crate::config::settings::addresses::AddressPolicy;
use crate::config::settings::channel_presets::Channel;
use crate::config::settings::event::EventRule;
use crate::config::settings::event::PayloadSettings;
use crate::config::settings::places::SourcePlaces;
use crate::config::settings::request_template::RequestTemplate;
use crate::expression::Expression;

/// `[[endpoint]]`, or one of `[webhook] urls`.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    pub name: Arc<str>,
    /// The name that it had: what is kept of that becomes its own.
    pub renamed_from: Option<Arc<str>>,
    /// A URL can be a credential: log the name, or [`Endpoint::shown_url`].
    pub url: Secret<Url>,
    /// If not, it takes no events, and what waits for it goes on waiting.
    pub enabled: bool,
    /// Event types, where `*` stands for any characters.
    pub events: Vec<EventGlob>,
    /// Which of these events: those whose row has one of these values.
    pub only: Option<ValueMatch>,
    /// Which of these events: those whose change the expression is true for.
    pub filter: Option<Expression>,
    /// The shape in which it gets events, whatever their own is.
    pub payload: Option<PayloadSettings>,
    pub signing: Option<Signing>,
    pub auth: Option<Auth>,
    /// The chat system behind the URL, if it is one.
    pub channel: Option<Channel>,
    /// Extra headers. Reserved names are refused when the file is read. Those that are evaluated have a
    /// value here that is never sent.
    pub headers: HeaderMap,
    /// What of URL and headers is evaluated for each event.
    pub request: RequestTemplate,
    pub user_agent: String,
    /// For the whole exchange, from connecting to the last byte of the response.
    pub timeout: Duration,
    pub retry: RetrySettings,
    /// Requests in flight at once.
    pub concurrency: NonZeroUsize,
    pub batch: BatchSettings,
    pub ordering: KeyOrdering,
    /// Events in the lane's memory.
    pub capacity: NonZeroUsize,
    /// Requests started per second.
    pub rate_limit: Option<f64>,
    pub parking: ParkingSettings,
    pub answers: AnswerRule,
    pub addresses: AddressPolicy,
    pub link: ConnectionLink,
    /// How much of a response is kept.
    pub response_limit: usize,
    /// Body of a test, JSON; without it a test is made of a row.
    pub test: Option<Arc<str>>,
    /// Why nothing can be sent to it, if so: what it should get becomes dead letters that say it.
    pub unusable: Option<Arc<str>>,
    pub places: SourcePlaces,
}

impl Endpoint {
    /// The same, but nothing can be sent to it.
    #[must_use]
    pub fn because_unusable(self, why: &str) -> Self {
        Self { unusable: Some(Arc::from(why)), ..self }
    }

    /// Whether events of this rule are for this endpoint.
    pub fn takes(&self, rule: &EventRule) -> bool {
        self.events.iter().any(|glob| glob.matches(&rule.event_type))
    }

    /// Scheme, host and port of the URL: for people to recognise it by. All the rest of it can be a
    /// secret.
    pub fn shown_url(&self) -> String {
        if self.unusable.is_some() {
            return String::from("(none)");
        }
        self.url.reveal().origin().ascii_serialization()
    }
}

/// Events of certain rows: found by the value, however many endpoints there are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ValueMatch {
    /// A column of the event's row.
    pub column: String,
    /// As PostgreSQL writes them.
    pub values: Vec<String>,
}

/// A pattern in which `*` stands for any characters, also none.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EventGlob(String);

impl EventGlob {
    pub fn new(pattern: impl Into<String>) -> Self {
        Self(pattern.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn matches(&self, text: &str) -> bool {
        let mut pieces = self.0.split('*');
        let first = pieces.next().unwrap_or_default();
        let Some(mut rest) = text.strip_prefix(first) else { return false };
        let Some(last) = pieces.next_back() else { return rest.is_empty() };
        for piece in pieces {
            match rest.split_once(piece) {
                Some((_, after)) => rest = after,
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}

/// How a request proves where it comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Signing {
    /// Standard Webhooks: over `id.timestamp.body`, one signature per key.
    Standard { keys: Vec<StandardKey> },
    /// HMAC-SHA256 as the receiver wants it.
    Hmac { key: Secret<Vec<u8>>, scheme: HmacScheme },
}

/// A key of Standard Webhooks.
#[derive(Clone, Debug, PartialEq)]
pub enum StandardKey {
    /// `v1`: HMAC-SHA256; the receiver has the same key.
    Symmetric(Secret<Vec<u8>>),
    /// `v1a`: the seed of an Ed25519 key; the receiver has the public half.
    Ed25519(Secret<[u8; 32]>),
}

/// What an HMAC is taken over, and how it is sent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HmacScheme {
    pub header: HeaderName,
    /// Before the signature, such as `sha256=`.
    pub prefix: String,
    pub encoding: SignatureEncoding,
    /// Exactly one part is [`SignedPart::Body`].
    pub content: Vec<SignedPart>,
    /// A header for the attempt's time in seconds since the Unix epoch.
    pub timestamp_header: Option<HeaderName>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SignatureEncoding {
    Hex,
    Base64,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SignedPart {
    Literal(String),
    /// The value of `webhook-id`.
    Id,
    /// The attempt's time in seconds since the Unix epoch.
    Timestamp,
    Body,
}

/// How an answer is read.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AnswerRule {
    /// Statuses that count as delivered; empty means every 2xx.
    pub success: Vec<u16>,
    /// What the body of such an answer must say as well.
    pub body: Option<BodyRule>,
    pub retry: RetryOn,
    pub gone: GoneMeaning,
}

/// What 410 says.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum GoneMeaning {
    /// That nothing more is to be sent: everything for the endpoint is given up.
    #[default]
    Disable,
    /// That this one delivery is not wanted.
    Dead,
}

/// The answer is JSON, and what `pointer` (RFC 6901) leads to equals `equals`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BodyRule {
    pub pointer: String,
    pub equals: serde_json::Value,
}

/// Which answers that are no success are worth another attempt. Network errors and timeouts are.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum RetryOn {
    /// 408, 425, 429, 5xx; a 2xx that the success rule refuses.
    #[default]
    Usual,
    /// Whatever it says, 410 included.
    Everything,
    Statuses(Vec<RangeInclusive<u16>>),
}

/// How walhook identifies itself to the endpoint.
#[derive(Clone, Debug, PartialEq)]
pub enum Auth {
    Basic {
        username: String,
        password: Secret<String>,
    },
    Bearer {
        token: Secret<String>,
    },
    ApiKey {
        header: http::HeaderName,
        value: Secret<String>,
    },
    /// A bearer token that is fetched, kept and renewed.
    OAuth2(OAuth2),
}

/// OAuth 2.0 client credentials (RFC 6749, 4.4).
#[derive(Clone, Debug, PartialEq)]
pub struct OAuth2 {
    pub token_url: Secret<Url>,
    pub client_id: String,
    pub client_secret: Secret<String>,
    pub scope: Option<String>,
    pub audience: Option<String>,
    /// Where the token endpoint wants id and secret: in the form, or in `Authorization: Basic`.
    pub in_form: bool,
}

/// When a failed delivery is tried again.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RetrySettings {
    pub delays: RetryDelays,
    /// The longest wait, also if the receiver asks for more with `Retry-After`.
    pub cap: Duration,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RetryDelays {
    /// `max` retries; the n-th after about `interval` x 2^(n-1).
    Exponential { max: u32, interval: Duration },
    /// One retry per entry.
    List(Vec<Duration>),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BatchSettings {
    /// Events per request; 1 sends each alone, more sends JSON arrays.
    pub size: NonZeroUsize,
    /// How long the first event of a batch waits for others.
    pub linger: Duration,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeyOrdering {
    /// Events with the same key arrive in commit order.
    Key,
    /// The whole endpoint is in commit order.
    Strict,
    None,
}

impl RetrySettings {
    /// Exponential delays are drawn from this share of the plain delay up to [`RetrySettings::SPREAD_TO`]:
    /// deliveries that failed together, because the endpoint was away, must not come back together.
    pub const SPREAD_FROM: f64 = 0.75;
    pub const SPREAD_TO: f64 = 1.25;

    /// How many exponential retries it takes until their waits come to `span` at least.
    pub fn lasting(span: Duration, interval: Duration, cap: Duration) -> u32 {
        let shortest =
            |wait: Duration| wait.min(cap.div_f64(Self::SPREAD_TO)).mul_f64(Self::SPREAD_FROM);
        let (mut wait, mut left, mut retries) = (interval, span, 0u32);
        while wait < cap {
            if left.is_zero() {
                return retries;
            }
            left = left.saturating_sub(shortest(wait));
            wait = wait.saturating_mul(2);
            retries += 1;
        }
        let step = shortest(cap).max(Duration::from_micros(1));
        let rest = left.as_micros().div_ceil(step.as_micros());
        retries.saturating_add(u32::try_from(rest).unwrap_or(u32::MAX))
    }
}

/// When deliveries are parked in the database, and for how long.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ParkingSettings {
    /// A delivery whose next attempt is further away does not wait in memory alone.
    pub after: Duration,
    /// `None`: it is sent to on its schedule whatever it answers.
    pub breaker: Option<BreakerSettings>,
    pub backlog: BacklogLimits,
}

/// When an endpoint counts as out of order, and is left alone but for single tries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BreakerSettings {
    /// Failed requests in a row.
    pub failures: NonZeroUsize,
    /// Until the first try; doubles from try to try.
    pub cooldown: Duration,
    /// The longest cooldown.
    pub cap: Duration,
}

/// What an endpoint's backlog may hold; what is beyond becomes dead letters, the oldest first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BacklogLimits {
    pub rows: NonZeroUsize,
    /// Since a delivery was parked.
    pub age: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_whole_names() {
        let cases = [
            ("customer.created", "customer.created", true),
            ("customer.created", "customer.created2", false),
            ("customer.*", "customer.status_changed", true),
            ("customer.*", "document.uploaded", false),
            ("*.created", "customer.created", true),
            ("*", "anything", true),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "a1c", false),
            ("ab*bc", "abc", false),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(
                EventGlob::new(pattern).matches(text),
                expected,
                "case: {pattern} on {text}"
            );
        }
    }
}
