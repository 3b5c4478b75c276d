//! `[webhook]`: the short form of an endpoint, and the terms of all endpoints.
//!
//! Keys and defaults are `ocr-wallet`'s (`urls` to `batch_size`); the others follow their manner.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::sections::delivery_terms;
use crate::config::sections::delivery_terms::EndpointTerms;
use crate::config::sections::delivery_terms::set;
use crate::config::sections::endpoint_connection;
use crate::config::sections::headers;
use crate::config::sections::parking;
use crate::config::sections::response_rules;
use crate::config::sections::signing;
use crate::config::toml_file::toml_field::FieldReader;
use crate::config::toml_file::toml_reader::TomlSection;
use crate::config::url_template;
use crate::config::url_template::UrlTemplate;

/// How old a row may be.
pub(crate) const EXPIRIES: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(365 * 86_400);

pub(crate) struct WebhookSection<'a> {
    pub(crate) enabled: bool,
    /// `None` if there are some and one of them is bad.
    pub(crate) urls: Option<Vec<UrlTemplate>>,
    /// As written; what stands in for it depends on the events.
    pub(crate) data_expiry: Option<Duration>,
    pub(crate) terms: EndpointTerms,
    /// A file with endpoints; read when the events are known.
    pub(crate) subscriptions: Option<FieldReader<'a>>,
}

pub(crate) fn read<'a>(mut section: TomlSection<'a>, user_agent: &str) -> WebhookSection<'a> {
    let enabled = section.read("enabled", FieldReader::boolean).unwrap_or(true);
    let urls = match section.field("urls") {
        Some(field) => urls(&field),
        None => Some(Vec::new()),
    };
    let data_expiry = section.read("data_expiry", |field| field.duration(&EXPIRIES));
    let mut terms = EndpointTerms::defaults(user_agent);
    read_terms(&mut section, &mut terms);
    check(&section, &terms);
    let subscriptions = section.field("subscriptions");
    section.finish_knowing(&[("url", "urls"), ("retries", "max_retries"), ("endpoints", "urls")]);
    WebhookSection { enabled, urls, data_expiry, terms, subscriptions }
}

fn urls(field: &FieldReader<'_>) -> Option<Vec<UrlTemplate>> {
    let mut urls = Vec::new();
    for item in field.list()? {
        let url = url_template::read(&item);
        let same = urls.iter().position(|other| url.is_some() && *other == url);
        if let Some(same) = same {
            item.note(format!(
                "number {} is the same URL as number {}, which would get every event twice: remove one",
                urls.len() + 1,
                same + 1
            ));
        }
        urls.push(url);
    }
    urls.into_iter().collect()
}

fn read_terms(section: &mut TomlSection<'_>, terms: &mut EndpointTerms) {
    set(&mut terms.timeout, section.read("timeout", |f| f.duration(&delivery_terms::TIMEOUTS)));
    let retries = section.read("max_retries", |f| f.integer(&delivery_terms::MAX_RETRIES_RANGE));
    terms.max_retries = retries;
    let interval = section.read("retry_interval", |f| f.duration(&delivery_terms::RETRY_WAITS));
    set(&mut terms.retry_interval, interval);
    set(
        &mut terms.retry_cap,
        section.read("retry_cap", |f| f.duration(&delivery_terms::RETRY_WAITS)),
    );
    let concurrency =
        section.read("concurrent_pushers", |f| f.count(&delivery_terms::CONCURRENCIES));
    terms.concurrency = concurrency;
    set(
        &mut terms.batch.size,
        section.read("batch_size", |f| f.count(&delivery_terms::BATCH_SIZES)),
    );
    let linger = section.read("batch_linger", |f| f.duration(&delivery_terms::BATCH_LINGERS));
    set(&mut terms.batch.linger, linger);
    set(
        &mut terms.capacity,
        section.read("queue_capacity", |f| f.count(&delivery_terms::CAPACITIES)),
    );
    set(&mut terms.user_agent, section.read("user_agent", delivery_terms::user_agent));
    signing::read(section, terms);
    if let Some(own) = section.read("headers", headers::read) {
        headers::merge(terms, own);
    }
    terms.rate_limit = section.read("rate_limit", |f| f.number(&delivery_terms::RATE_LIMITS));
    parking::read(section, &mut terms.parking);
    let age = section.read("max_connection_age", |f| f.duration(&endpoint_connection::MAX_AGES));
    set(&mut terms.max_connection_age, age);
    set(&mut terms.ordering, section.read("ordering", delivery_terms::ordering));
    response_rules::read_success(section, &mut terms.answers);
    set(&mut terms.answers.gone, section.read("gone", response_rules::gone));
    set(&mut terms.answers.retry, section.read("retry_on", response_rules::retry_on));
    let limit = section.read("response_limit", |f| f.size(&delivery_terms::RESPONSE_LIMITS));
    set(&mut terms.response_limit, limit);
}

/// What must fit together.
fn check(section: &TomlSection<'_>, terms: &EndpointTerms) {
    if terms.retry_interval > terms.retry_cap {
        section.note("retry_interval", "is longer than `retry_cap`: raise the cap");
    }
    signing::check_headers(section, terms);
    if terms.batch.size > terms.capacity {
        section.note("batch_size", "is more than `queue_capacity`: raise the capacity");
    }
}
