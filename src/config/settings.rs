//! Settings: what the rest of walhook sees of the configuration. Every value is valid.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use url::Url;

use crate::config::document::Defaults;
use crate::config::endpoints_from::EndpointsFrom;
use crate::config::expression::Expression;
use crate::config::expression::Names;
use crate::config::link::Link;
use crate::config::secret::Secret;
use crate::config::template;
use crate::config::template::Node;
use crate::config::template::Piece;
use crate::flow::relation::TableName;

/// A whole, checked configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    pub postgres: Postgres,
    /// `[state] url`: where walhook keeps its own state; the source database unless told otherwise.
    pub state: Server,
    pub push_log: PushLog,
    pub dead_letters: DeadLetters,
    pub http: Http,
    /// `[webhook] enabled`: if not, tables are tailed and accounted for, and nothing is pushed.
    pub enabled: bool,
    pub events: Vec<EventRule>,
    pub endpoints: Vec<Endpoint>,
    pub endpoints_from: Option<EndpointsFrom>,
    pub memory: Memory,
    pub log: Log,
    /// How long a shutdown may take before what is left is cut off.
    pub grace: Duration,
    pub run_time: RunTime,
}

#[derive(Clone, Debug)]
pub struct Postgres {
    pub server: Server,
    pub slot: String,
    pub publication: String,
    /// What walhook asks of the server for its replication connection; also how soon the server
    /// frees the slot of a walhook that froze.
    pub wal_sender_timeout: Duration,
}

/// Where PostgreSQL is and how to get in: a parsed connection URL.
#[derive(Clone, Debug)]
pub struct Server {
    /// Hosts, ports, user, password, database, target_session_attrs, connect timeout. Its `Debug`
    /// hides the password. Its own SSL mode is not used: `tls` is.
    pub params: tokio_postgres::Config,
    pub tls: Tls,
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tls {
    pub mode: TlsMode,
    /// `sslrootcert`: a PEM file; `None` means the system's roots.
    pub root_cert: Option<String>,
    /// `sslcert` and `sslkey`: PEM files.
    pub client: Option<(String, String)>,
}

/// libpq's sslmode.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum TlsMode {
    Disable,
    Allow,
    #[default]
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

#[derive(Clone, Debug)]
pub struct Http {
    pub listen: SocketAddr,
    pub token: Option<Secret<String>>,
}

/// `[push_log]`: what is kept of every attempt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PushLog {
    pub bodies: LoggedBodies,
    /// Bytes kept of each body.
    pub body_limit: usize,
    /// Whole days; older partitions are dropped.
    pub retention_days: u32,
}

/// `[dead_letters]`: what becomes of deliveries that were given up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DeadLetters {
    /// Whole days; letters that were closed before are removed.
    pub retention_days: u32,
    /// Deliveries sent again per second and endpoint; the endpoint's own limits hold as well.
    pub resend_rate: u32,
}

/// Of which attempts the request and response bodies are kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LoggedBodies {
    All,
    Failures,
    None,
}

/// `[memory]`: limits in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Rows and events in memory at once, over all lanes.
    pub queued_bytes: usize,
}

#[derive(Clone, Debug)]
pub struct Log {
    pub format: LogFormat,
    /// A `tracing_subscriber` filter, such as `info` or `walhook=debug`.
    pub filter: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogFormat {
    Text,
    Json,
}

/// `[[event]]`: which changes of a table become an event of which type.
#[derive(Clone, Debug)]
pub struct EventRule {
    pub event_type: Arc<str>,
    pub table: TableName,
    pub on: Operations,
    pub filter: Option<Filter>,
    pub expiry: Option<ExpiryRule>,
    /// Columns whose values order events; empty means the primary key.
    pub order_by: Vec<String>,
    pub payload: Payload,
    pub write_back: Option<WriteBack>,
    pub dedupe: Option<Dedupe>,
}

/// Which operations raise an event.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Operations {
    pub insert: bool,
    pub update: bool,
    pub delete: bool,
    pub truncate: bool,
}

impl EventRule {
    /// Columns that the table must have, whatever else it has.
    pub fn columns(&self) -> BTreeSet<String> {
        let mut names = self.filter_names();
        names.join(&self.payload_names());
        let age = self.expiry.iter().filter_map(|expiry| expiry.column.as_ref());
        let written = self.write_back.iter().flat_map(WriteBack::columns);
        let written = written.chain(self.dedupe.iter().flat_map(|dedupe| &dedupe.by));
        let own = names.columns.into_iter().chain(names.old);
        own.chain(age.chain(&self.order_by).chain(written).cloned()).collect()
    }

    /// What the filter names.
    pub fn filter_names(&self) -> Names {
        self.filter.as_ref().map(Filter::names).unwrap_or_default()
    }

    /// What the payload names; `standard` and the envelopes take what there is.
    pub fn payload_names(&self) -> Names {
        let mut names = Names::default();
        match &self.payload {
            Payload::Template { root, .. } => names.join(&root.names()),
            Payload::Text { pieces, .. } => template::names_of_pieces(pieces, &mut names),
            Payload::OcrWallet => {
                names.columns.extend(OCR_WALLET_COLUMNS.map(str::to_owned));
            }
            Payload::Standard | Payload::CloudEvents(_) | Payload::Debezium => {}
        }
        names
    }
}

/// Which rows raise an event.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Filter {
    /// The column is neither null nor blank.
    NotBlank {
        column: String,
    },
    /// The expression is true.
    When(Expression),
    Both(Box<Filter>, Box<Filter>),
}

impl Filter {
    pub fn names(&self) -> Names {
        match self {
            Self::NotBlank { column } => {
                Names { columns: [column.clone()].into(), ..Names::default() }
            }
            Self::When(expression) => expression.names().clone(),
            Self::Both(one, other) => {
                let mut names = one.names();
                names.join(&other.names());
                names
            }
        }
    }
}

/// When an event is too old: `column` (timestamptz, timestamp in UTC, or epoch seconds as a
/// number) says when it was born; `None` means when it was committed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ExpiryRule {
    pub column: Option<String>,
    pub max_age: Duration,
}

/// The shape of the body.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Payload {
    /// `{"type", "timestamp", "data"}`, with `"old"` and `"metadata"` where there are any.
    Standard,
    /// Contract 1.
    OcrWallet,
    /// CloudEvents 1.0.
    CloudEvents(CloudEventsMode),
    /// Debezium's envelope: `{"before", "after", "source", "op", "ts_ms"}`.
    Debezium,
    /// JSON in the user's own shape.
    Template { root: Arc<Node>, content_type: Option<HeaderValue> },
    /// Text with values inserted.
    Text { pieces: Arc<[Piece]>, content_type: HeaderValue },
}

impl Payload {
    /// Why bodies of this shape cannot stand in a JSON array, if they cannot.
    pub fn unbatchable(&self) -> Option<&'static str> {
        match self {
            Self::Text { .. } => Some("a text"),
            Self::CloudEvents(CloudEventsMode::Binary) => Some("one event's attributes as headers"),
            Self::Standard
            | Self::OcrWallet
            | Self::CloudEvents(CloudEventsMode::Structured)
            | Self::Debezium
            | Self::Template { .. } => None,
        }
    }
}

/// Where a CloudEvent's attributes are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CloudEventsMode {
    /// In the body, beside the data.
    Structured,
    /// In `ce-...` headers; the body is the data.
    Binary,
}

/// Which events are repeats of another one, and for how long.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Dedupe {
    /// Columns; an event with a null among them is no repeat.
    pub by: Vec<String>,
    /// From the commit of the event that was pushed.
    pub window: Duration,
}

/// What is written into the source database when every endpoint that got an event has an outcome.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WriteBack {
    /// The outcome when every one of them took it.
    pub delivered: String,
    /// The outcome otherwise.
    pub failed: String,
    pub change: RowChange,
}

impl WriteBack {
    /// Columns that it names.
    pub fn columns(&self) -> impl Iterator<Item = &String> {
        let (one, many) = match &self.change {
            RowChange::Column(column) => (Some(column), [].as_slice()),
            RowChange::Statement(pieces) => (None, &**pieces),
        };
        one.into_iter().chain(many.iter().filter_map(SqlPiece::column))
    }
}

/// How the outcome is written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RowChange {
    /// Into this column of the event's row, which its primary key names, while the column says what
    /// it said when the event was raised, or an outcome.
    Column(String),
    /// By a statement of the user's own.
    Statement(Arc<[SqlPiece]>),
}

/// A part of a statement. All but literals become parameters.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SqlPiece {
    Literal(String),
    Outcome,
    EventId,
    /// The column of the event's row, as it was when the event was raised.
    Column(String),
}

impl SqlPiece {
    fn column(&self) -> Option<&String> {
        match self {
            Self::Column(column) => Some(column),
            Self::Literal(_) | Self::Outcome | Self::EventId => None,
        }
    }
}

/// Columns of contract 1's `data`, in its order. `create_time` is epoch seconds; `pic_url` is left
/// out when null.
pub const OCR_WALLET_COLUMNS: [&str; 10] = [
    "id",
    "source_ip",
    "msg_id",
    "group_id",
    "wallet_code",
    "serial_no",
    "wx_id",
    "wx_nick_name",
    "pic_url",
    "create_time",
];

/// `[[endpoint]]`, or one of `[webhook] urls`.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub name: Arc<str>,
    /// A URL can be a credential: log the name, or [`Endpoint::shown_url`].
    pub url: Secret<Url>,
    /// If not, it takes no events, and what waits for it goes on waiting.
    pub enabled: bool,
    /// Event types, where `*` stands for any characters.
    pub events: Vec<Glob>,
    /// Which of these events: those whose row has one of these values.
    pub only: Option<Only>,
    /// Which of these events: those whose change the expression is true for.
    pub filter: Option<Expression>,
    /// The shape in which it gets events, whatever their own is.
    pub payload: Option<Payload>,
    pub signing: Option<Signing>,
    pub auth: Option<Auth>,
    /// Fixed extra headers. Reserved names are refused when the file is read.
    pub headers: HeaderMap,
    pub user_agent: String,
    /// For the whole exchange, from connecting to the last byte of the response.
    pub timeout: Duration,
    pub retry: Retry,
    /// Requests in flight at once.
    pub concurrency: NonZeroUsize,
    pub batch: Batch,
    pub ordering: Ordering,
    /// Events in the lane's memory.
    pub capacity: NonZeroUsize,
    /// Requests started per second.
    pub rate_limit: Option<f64>,
    pub parking: Parking,
    pub answers: AnswerRule,
    pub addresses: AddressPolicy,
    pub link: Link,
    /// How much of a response is kept.
    pub response_limit: usize,
}

impl Endpoint {
    /// Whether events of this rule are for this endpoint.
    pub fn takes(&self, rule: &EventRule) -> bool {
        self.events.iter().any(|glob| glob.matches(&rule.event_type))
    }

    /// The URL without user, password, query and fragment: for people to recognise it by.
    pub fn shown_url(&self) -> String {
        let mut url = self.url.reveal().clone();
        url.set_query(None);
        url.set_fragment(None);
        let cleared = url.set_username("").and_then(|()| url.set_password(None));
        debug_assert!(cleared.is_ok(), "every http URL has a host");
        url.into()
    }
}

/// Events of certain rows: found by the value, however many endpoints there are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Only {
    /// A column of the event's row.
    pub column: String,
    /// As PostgreSQL writes them.
    pub values: Vec<String>,
}

/// A pattern in which `*` stands for any characters, also none.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Glob(String);

impl Glob {
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
#[derive(Clone, Debug)]
pub enum Signing {
    /// Standard Webhooks: over `id.timestamp.body`, one signature per key.
    Standard { keys: Vec<StandardKey> },
    /// HMAC-SHA256 as the receiver wants it.
    Hmac { key: Secret<Vec<u8>>, scheme: HmacScheme },
}

/// A key of Standard Webhooks.
#[derive(Clone, Debug)]
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
#[derive(Clone, Debug)]
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
#[derive(Clone, Debug)]
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
pub struct Retry {
    pub delays: Delays,
    /// The longest wait, also if the receiver asks for more with `Retry-After`.
    pub cap: Duration,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Delays {
    /// `max` retries; the n-th after about `interval` x 2^(n-1).
    Exponential { max: u32, interval: Duration },
    /// One retry per entry.
    List(Vec<Duration>),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Batch {
    /// Events per request; 1 sends each alone, more sends JSON arrays.
    pub size: NonZeroUsize,
    /// How long the first event of a batch waits for others.
    pub linger: Duration,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ordering {
    /// Events with the same key arrive in commit order.
    Key,
    /// The whole endpoint is in commit order.
    Strict,
    None,
}

/// When deliveries are parked in the database, and for how long.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Parking {
    /// A delivery whose next attempt is further away does not wait in memory alone.
    pub after: Duration,
    pub breaker: Breaker,
    pub backlog: BacklogLimits,
}

/// When an endpoint counts as out of order, and is left alone but for single tries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Breaker {
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

/// What endpoints that are made at run time need.
#[derive(Clone, Debug)]
pub struct RunTime {
    /// `[state] key`: the first seals secrets, any of them opens what it has sealed.
    pub keys: Vec<Secret<[u8; 32]>>,
    /// `[endpoints] allow`.
    pub addresses: AddressPolicy,
    /// What `[webhook]` gives every endpoint.
    pub defaults: Defaults,
    /// Contract 4's calls, where they are wanted.
    pub webhook_api: Option<WebhookApi>,
    /// `[endpoints]` stands in the file.
    pub(super) is_written: bool,
}

/// `[webhook_api]`: what an endpoint is that is made by contract 4's calls.
#[derive(Clone, Debug)]
pub struct WebhookApi {
    /// Event types that are messages; all if empty.
    pub events: Vec<String>,
    /// Expressions for a message's type, as a string, and for whether it is one's own.
    pub message_type: String,
    pub own_message: String,
    /// The rest of the endpoint.
    pub defaults: Defaults,
    /// Body of a test message, JSON.
    pub test: Option<String>,
}

/// Which addresses may be dialled for an endpoint.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AddressPolicy {
    /// Written in the file by the operator: anything but metadata services.
    Operator,
    /// Made over the API: public addresses only.
    Public,
    /// Likewise, and these: the operator's own word.
    Listed(Blocks),
}

/// A few blocks of addresses.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Blocks([Option<Block>; BLOCKS_MAX]);

/// More than this is a network of its own, and better listed by what it has in common.
pub const BLOCKS_MAX: usize = 8;

/// The addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Block {
    network: IpAddr,
    prefix: u8,
}

impl Blocks {
    /// Up to [`BLOCKS_MAX`] of them.
    pub fn new(blocks: impl IntoIterator<Item = Block>) -> Self {
        let mut places = [None; BLOCKS_MAX];
        for (place, block) in places.iter_mut().zip(blocks) {
            *place = Some(block);
        }
        Self(places)
    }

    pub fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().flatten().any(|block| block.contains(address.to_canonical()))
    }
}

impl Block {
    /// Reads `10.1.0.0/16`, `fd00::/8` or a single address.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let network: IpAddr = address.parse().ok()?;
        let bits = if network.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Some(bits), |prefix| prefix.parse().ok())?;
        (prefix <= bits).then_some(Self { network, prefix })
    }

    fn contains(&self, address: IpAddr) -> bool {
        let same = match (self.network, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                (network.to_bits() ^ address.to_bits()).leading_zeros()
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                (network.to_bits() ^ address.to_bits()).leading_zeros()
            }
            _ => return false,
        };
        same >= u32::from(self.prefix)
    }
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
            assert_eq!(Glob::new(pattern).matches(text), expected, "case: {pattern} on {text}");
        }
    }
}
