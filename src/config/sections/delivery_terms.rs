//! The terms on which an endpoint is served: `[webhook]` sets them for all endpoints, an
//! `[[endpoint]]` for itself. Defaults and ranges stand here, beside each other.

use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::HeaderValue;

use crate::config::secret::Secret;
use crate::config::sections::endpoint_connection::ConnectionLink;
use crate::config::settings::AddressPolicy;
use crate::config::settings::AnswerRule;
use crate::config::settings::Auth;
use crate::config::settings::BatchSettings;
use crate::config::settings::Endpoint;
use crate::config::settings::EventGlob;
use crate::config::settings::HeaderTemplate;
use crate::config::settings::HmacScheme;
use crate::config::settings::KeyOrdering;
use crate::config::settings::ParkingSettings;
use crate::config::settings::RequestTemplate;
use crate::config::settings::RetryDelays;
use crate::config::settings::RetrySettings;
use crate::config::settings::Signing;
use crate::config::settings::SourcePlaces;
use crate::config::toml_file::toml_field::FieldReader;
use crate::config::url_template::UrlTemplate;

/// Who walhook says it is, unless the configuration is `ocr-wallet`'s.
pub(crate) const USER_AGENT: &str = concat!("walhook/", env!("CARGO_PKG_VERSION"));

const TIMEOUT: Duration = Duration::from_secs(10);
pub(crate) const TIMEOUTS: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(3600);

/// Of the short form, for `ocr-wallet`. Every other endpoint goes on for [`LADDER`].
const MAX_RETRIES: u32 = 3;
pub(crate) const MAX_RETRIES_RANGE: RangeInclusive<u32> = 0..=100;

const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// So long goes the usual schedule on: an outage of a day costs nothing, whatever fails then.
const LADDER: Duration = Duration::from_secs(86_400);

const RETRY_CAP: Duration = Duration::from_secs(300);
/// For intervals, caps and listed delays alike.
pub(crate) const RETRY_WAITS: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(7 * 86_400);

/// Of the short form.
const PUSHERS: usize = 3;
/// Of an `[[endpoint]]`: a lane finds out how many of them the endpoint bears.
const CONCURRENCY: usize = 128;
/// Each request in flight holds a socket and a response buffer.
pub(crate) const CONCURRENCIES: RangeInclusive<usize> = 1..=4096;

const BATCH_SIZE: usize = 1;
/// One bad event fails its whole batch, so batches stay small.
pub(crate) const BATCH_SIZES: RangeInclusive<usize> = 1..=100;

/// Long enough to gather a burst, short enough for `ocr-wallet`'s 100 ms from commit to receipt.
const BATCH_LINGER: Duration = Duration::from_millis(20);
pub(crate) const BATCH_LINGERS: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(60);

const CAPACITY: usize = 1000;
pub(crate) const CAPACITIES: RangeInclusive<usize> = 1..=1_000_000;

/// Requests per second.
pub(crate) const RATE_LIMITS: RangeInclusive<f64> = 0.01..=100_000.0;

const RESPONSE_LIMIT: usize = 64 * 1024;
pub(crate) const RESPONSE_LIMITS: RangeInclusive<u64> = 0..=1 << 20;

/// See [`Endpoint`], which this becomes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct EndpointTerms {
    /// As written; what they must be depends on the scheme.
    pub(crate) secrets: Vec<Secret<String>>,
    /// `None`: Standard Webhooks.
    pub(crate) scheme: Option<HmacScheme>,
    /// What these two make together.
    pub(crate) signing: Option<Signing>,
    pub(crate) headers: HeaderMap,
    /// Those of them that are evaluated for each event.
    pub(crate) evaluated: Vec<HeaderTemplate>,
    pub(crate) user_agent: String,
    pub(crate) timeout: Duration,
    /// `None`: whatever is usual for the kind of endpoint.
    pub(crate) max_retries: Option<u32>,
    pub(crate) retry_interval: Duration,
    pub(crate) retry_cap: Duration,
    /// Instead of `max_retries` and `retry_interval`.
    pub(crate) retry_delays: Option<Vec<Duration>>,
    /// `None`: whatever is usual for the kind of endpoint.
    pub(crate) concurrency: Option<NonZeroUsize>,
    pub(crate) batch: BatchSettings,
    pub(crate) ordering: KeyOrdering,
    pub(crate) capacity: NonZeroUsize,
    pub(crate) rate_limit: Option<f64>,
    pub(crate) parking: ParkingSettings,
    pub(crate) answers: AnswerRule,
    pub(crate) response_limit: usize,
    /// `secret` is a chat system's.
    pub(crate) is_channel: bool,
    pub(crate) max_connection_age: Duration,
}

impl EndpointTerms {
    pub(crate) fn defaults(user_agent: &str) -> Self {
        // The constants above are not zero; `MIN` (1) is what a zero would become.
        let count = |number| NonZeroUsize::new(number).unwrap_or(NonZeroUsize::MIN);
        Self {
            secrets: Vec::new(),
            scheme: None,
            signing: None,
            headers: HeaderMap::new(),
            evaluated: Vec::new(),
            user_agent: user_agent.to_owned(),
            timeout: TIMEOUT,
            max_retries: None,
            retry_interval: RETRY_INTERVAL,
            retry_cap: RETRY_CAP,
            retry_delays: None,
            concurrency: None,
            batch: BatchSettings { size: count(BATCH_SIZE), linger: BATCH_LINGER },
            ordering: KeyOrdering::Key,
            capacity: count(CAPACITY),
            rate_limit: None,
            parking: ParkingSettings::default(),
            answers: AnswerRule::default(),
            response_limit: RESPONSE_LIMIT,
            is_channel: false,
            max_connection_age: ConnectionLink::default().max_age,
        }
    }

    /// As the short form has them where nothing else is written: few retries, and few at once.
    pub(crate) fn short(self) -> Self {
        let max_retries = self.max_retries.or(Some(MAX_RETRIES));
        Self { max_retries, concurrency: self.concurrency.or(NonZeroUsize::new(PUSHERS)), ..self }
    }

    /// What of requests to `url` is evaluated.
    pub(crate) fn request(&self, url: &UrlTemplate) -> RequestTemplate {
        let target = url.target.reveal().clone();
        RequestTemplate { target, headers: self.evaluated.clone() }
    }

    /// The endpoint at `url` that is served on these terms.
    pub(crate) fn endpoint(
        self,
        name: &str,
        url: UrlTemplate,
        events: Vec<EventGlob>,
        auth: Option<Auth>,
    ) -> Endpoint {
        let request = self.request(&url);
        let delays = match self.retry_delays {
            Some(delays) => RetryDelays::List(delays),
            None => {
                let (interval, cap) = (self.retry_interval, self.retry_cap);
                let max = self
                    .max_retries
                    .unwrap_or_else(|| RetrySettings::lasting(LADDER, interval, cap));
                RetryDelays::Exponential { max, interval }
            }
        };
        Endpoint {
            name: Arc::from(name),
            renamed_from: None,
            url: url.url,
            request,
            enabled: true,
            events,
            only: None,
            filter: None,
            payload: None,
            signing: self.signing,
            auth,
            channel: None,
            headers: self.headers,
            user_agent: self.user_agent,
            timeout: self.timeout,
            retry: RetrySettings { delays, cap: self.retry_cap },
            concurrency: self
                .concurrency
                .or(NonZeroUsize::new(CONCURRENCY))
                .unwrap_or(NonZeroUsize::MIN),
            batch: self.batch,
            ordering: self.ordering,
            capacity: self.capacity,
            rate_limit: self.rate_limit,
            parking: self.parking,
            answers: self.answers,
            addresses: AddressPolicy::Operator,
            link: ConnectionLink { max_age: self.max_connection_age, ..ConnectionLink::default() },
            response_limit: self.response_limit,
            test: None,
            unusable: None,
            places: SourcePlaces::default(),
        }
    }
}

/// Puts a value that was read in the place of the default.
pub(crate) fn set<T>(place: &mut T, read: Option<T>) {
    if let Some(value) = read {
        *place = value;
    }
}

pub(crate) fn user_agent(field: &FieldReader<'_>) -> Option<String> {
    let text = field.fixed_string()?;
    let visible = text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    if visible && !text.trim().is_empty() && HeaderValue::from_str(&text).is_ok() {
        return Some(text);
    }
    field.refuse(format!("{} is no header value: use visible ASCII characters", field.shown()))
}

pub(crate) fn ordering(field: &FieldReader<'_>) -> Option<KeyOrdering> {
    field.one_of(&[
        ("key", KeyOrdering::Key),
        ("strict", KeyOrdering::Strict),
        ("none", KeyOrdering::None),
    ])
}

/// What holds for an endpoint that says nothing else.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointDefaults {
    pub(crate) terms: EndpointTerms,
    pub(crate) addresses: AddressPolicy,
}

impl EndpointDefaults {
    pub(crate) fn new(terms: EndpointTerms, addresses: AddressPolicy) -> Self {
        Self { terms, addresses }
    }
}
