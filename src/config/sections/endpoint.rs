//! `[[endpoint]]`: one receiver, with what it takes and how it is served.

use std::sync::Arc;

use crate::config::endpoint_name;
use crate::config::sections::channel;
use crate::config::sections::channel::Beside;
use crate::config::sections::delivery_terms;
use crate::config::sections::delivery_terms::EndpointTerms;
use crate::config::sections::delivery_terms::set;
use crate::config::sections::endpoint_connection;
use crate::config::sections::event;
use crate::config::sections::headers;
use crate::config::sections::parking;
use crate::config::sections::payload;
use crate::config::sections::response_rules;
use crate::config::sections::signing;
use crate::config::settings::Endpoint;
use crate::config::settings::EventGlob;
use crate::config::settings::EventRule;
use crate::config::settings::PayloadSettings;
use crate::config::settings::SourcePlaces;
use crate::config::template_field;
use crate::config::toml_file::naming::listed;
use crate::config::toml_file::naming::nearest;
use crate::config::toml_file::toml_field::FieldReader;
use crate::config::toml_file::toml_reader::TomlSection;
use crate::config::url_template;
use crate::config::url_template::UrlTemplate;

/// A longer list of delays is a mistake of units.
const DELAYS_MAX: usize = 100;

/// What `[webhook]` or others call the same things.
const OTHER_NAMES: [(&str, &str); 25] = [
    ("max_retries", "retry.max"),
    ("retry_interval", "retry.interval"),
    ("retry_cap", "retry.cap"),
    ("concurrent_pushers", "concurrency"),
    ("batch_size", "batch.size"),
    ("batch_linger", "batch.linger"),
    ("queue_capacity", "capacity"),
    ("retries", "retry.max"),
    ("max_attempts", "retry.max"),
    ("delays", "retry.delays"),
    ("bearer", "auth = { bearer = ... }"),
    ("token", "auth = { bearer = ... }"),
    ("basic", "auth = { basic = ... }"),
    ("username", "auth = { basic = ... }"),
    ("password", "auth = { basic = ... }"),
    ("api_key", "auth = { api_key = ... }"),
    ("oauth2", "auth = { oauth2 = ... }"),
    ("signature", "signing"),
    ("hmac", "signing"),
    ("filter", "when"),
    ("where", "when"),
    ("id", "name"),
    ("uri", "url"),
    ("address", "url"),
    ("types", "events"),
];

/// Reads one endpoint. `terms` are what `[webhook]` gives it, `rules` the events that exist
/// (`None` if not all of them could be read), `taken` the names of the endpoints before it.
pub(crate) fn read(
    mut section: TomlSection<'_>,
    mut terms: EndpointTerms,
    rules: Option<&[EventRule]>,
    taken: &mut Vec<String>,
) -> Option<Endpoint> {
    let name = section.require("name", "is missing: give the endpoint a name", |field| {
        let name = endpoint_name::read(field, taken)?;
        taken.push(name.clone());
        Some(name)
    });
    let renamed_from = section.read("renamed_from", |field| endpoint_name::read(field, &[]));
    if renamed_from.is_some() && renamed_from == name {
        section.note("renamed_from", "is the name that it has: give the one that it had");
    }
    let channel = channel::begin(&mut section, &mut terms);
    let url = match channel.as_ref().and_then(channel::Begun::app_url) {
        Some(url) => url.map(UrlTemplate::fixed),
        None => section.require("url", "is missing: give an http(s) address", url_template::read),
    };
    let events = match section.field("events") {
        Some(field) => globs(&field, rules).unwrap_or_default(),
        None => vec![EventGlob::new("*")],
    };
    let enabled = section.read("enabled", FieldReader::boolean).unwrap_or(true);
    let filter = section.read("when", event::when);
    let payload = payload::read(&mut section);
    let test = section.read("test", template_field::fixed_json).map(Arc::from);
    let auth = section.read("auth", headers::read_auth);
    read_terms(&mut section, &mut terms);
    let address = url.as_ref().map(|url| url.url.reveal());
    let link = endpoint_connection::read(&mut section, address, terms.max_connection_age);
    let channel = channel.and_then(|begun| {
        let (events, payload, http2) = (&*events, payload.as_ref(), link.http2);
        let beside = Beside { payload, events, rules, http2 };
        channel::finish(&mut section, begun, &mut terms, &beside)
    });
    signing::check_headers(&section, &terms);
    if section.has("signing") && terms.secrets.is_empty() && !section.has("secret") {
        section.note("signing", "has no secret to sign with: give `secret`");
    }
    if let Some(auth) = &auth
        && terms.headers.contains_key(headers::name_of_auth(auth))
    {
        section.note("auth", "adds a header that `headers` gives as well: keep one of them");
    }
    if let Some(clash) = unbatchable(&terms, &events, payload.as_ref(), rules) {
        section.note("batch", clash);
    } else if let Some(clash) = url.as_ref().and_then(|url| varying(&terms, url)) {
        section.note("batch", clash);
    }
    let places = SourcePlaces::new(section.places(&["when", "payload", "url", "headers"]));
    section.finish_knowing(&OTHER_NAMES);
    let endpoint = terms.endpoint(&name?, url?, events, auth);
    let renamed_from = renamed_from.map(Arc::from);
    let endpoint = Endpoint { renamed_from, channel, filter, enabled, payload, ..endpoint };
    Some(Endpoint { link, test, places, ..endpoint })
}

/// What is wrong with batches of the events that an endpoint takes, in their own shapes or in
/// `payload`, if something is.
pub(crate) fn unbatchable(
    terms: &EndpointTerms,
    events: &[EventGlob],
    payload: Option<&PayloadSettings>,
    rules: Option<&[EventRule]>,
) -> Option<String> {
    let taken = |rule: &&EventRule| events.iter().any(|glob| glob.matches(&rule.event_type));
    let clash = rules?
        .iter()
        .filter(taken)
        .find_map(|rule| Some((&rule.event_type, payload.unwrap_or(&rule.payload).unbatchable()?)));
    let (event_type, what) = clash.filter(|_| terms.batch.size.get() > 1)?;
    Some(format!(
        "cannot hold {event_type}, whose body is {what} and does not fit into a JSON array: \
         send one event per request, or change its payload"
    ))
}

/// What is wrong with batches of requests whose URL or headers differ from event to event, if they do.
pub(crate) fn varying(terms: &EndpointTerms, url: &UrlTemplate) -> Option<String> {
    let request = terms.request(url);
    let (key, expression) = request.varying().filter(|_| terms.batch.size.get() > 1)?;
    Some(format!(
        "cannot hold several events: `{key}` has {{{{ {} }}}}, which each event has its own value of: send one \
         event per request, or put it into the payload",
        expression.source()
    ))
}

pub(crate) fn globs(
    field: &FieldReader<'_>,
    rules: Option<&[EventRule]>,
) -> Option<Vec<EventGlob>> {
    let items = field.list()?;
    if items.is_empty() {
        return field.refuse("is empty: list event types, or leave it out for all of them");
    }
    let glob = |item: &FieldReader<'_>| {
        let pattern = item.string()?;
        let glob = EventGlob::new(pattern.as_str());
        let Some(rules) = rules else { return Some(glob) };
        if rules.iter().any(|rule| glob.matches(&rule.event_type)) {
            return Some(glob);
        }
        let known: Vec<&str> = rules.iter().map(|rule| rule.event_type.as_ref()).collect();
        let fix = match nearest(&pattern, known.iter().copied()) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("the types are {}", listed(&known)),
        };
        item.refuse(format!("{} matches no event type: {fix}", item.shown()))
    };
    Some(items.iter().filter_map(glob).collect())
}

pub(crate) fn read_terms(section: &mut TomlSection<'_>, terms: &mut EndpointTerms) {
    set(&mut terms.timeout, section.read("timeout", |f| f.duration(&delivery_terms::TIMEOUTS)));
    if let Some(retry) = section.read("retry", FieldReader::section) {
        read_retry(retry, terms);
    }
    let concurrency = section.read("concurrency", |f| f.count(&delivery_terms::CONCURRENCIES));
    terms.concurrency = concurrency.or(terms.concurrency);
    if let Some(batch) = section.read("batch", FieldReader::section) {
        read_batch(batch, terms);
    }
    set(&mut terms.capacity, section.read("capacity", |f| f.count(&delivery_terms::CAPACITIES)));
    if terms.batch.size > terms.capacity && (section.has("batch") || section.has("capacity")) {
        section.note("capacity", "is less than one batch: raise it, or lower `batch.size`");
    }
    set(&mut terms.user_agent, section.read("user_agent", delivery_terms::user_agent));
    signing::read(section, terms);
    if let Some(own) = section.read("headers", headers::read) {
        headers::merge(terms, own);
    }
    if let Some(limit) = section.read("rate_limit", |f| f.number(&delivery_terms::RATE_LIMITS)) {
        terms.rate_limit = Some(limit);
    }
    parking::read(section, &mut terms.parking);
    let age = section.read("max_connection_age", |f| f.duration(&endpoint_connection::MAX_AGES));
    set(&mut terms.max_connection_age, age);
    set(&mut terms.ordering, section.read("ordering", delivery_terms::ordering));
    response_rules::read_success(section, &mut terms.answers);
    set(&mut terms.answers.gone, section.read("gone", response_rules::gone));
    let limit = section.read("response_limit", |f| f.size(&delivery_terms::RESPONSE_LIMITS));
    set(&mut terms.response_limit, limit);
}

/// `retry = { max, interval, cap }` or `{ delays, cap }`.
fn read_retry(mut section: TomlSection<'_>, terms: &mut EndpointTerms) {
    let max = section.read("max", |f| f.integer(&delivery_terms::MAX_RETRIES_RANGE));
    terms.max_retries = max.or(terms.max_retries);
    let interval = section.read("interval", |f| f.duration(&delivery_terms::RETRY_WAITS));
    set(&mut terms.retry_interval, interval);
    let cap = section.read("cap", |f| f.duration(&delivery_terms::RETRY_WAITS));
    set(&mut terms.retry_cap, cap);
    set(&mut terms.answers.retry, section.read("on", response_rules::retry_on));
    let delays = section.read("delays", |field| {
        let delays = field.list()?;
        if delays.len() > DELAYS_MAX {
            return field.refuse(format!("has {} entries: give up to {DELAYS_MAX}", delays.len()));
        }
        Some(
            delays
                .iter()
                .filter_map(|delay| delay.duration(&delivery_terms::RETRY_WAITS))
                .collect(),
        )
    });
    let delays: Option<Vec<_>> = delays;
    if section.has("delays") {
        for name in ["max", "interval"].into_iter().filter(|name| section.has(name)) {
            section.note(name, "cannot stand beside `delays`, which lists every retry: remove one");
        }
        let longest = delays.iter().flatten().max().copied().unwrap_or_default();
        if longest > terms.retry_cap && section.has("cap") {
            section.note("cap", "is shorter than the longest of `delays`: raise it");
        }
        // A cap that was not written here gives way to the delays, which were.
        terms.retry_cap = terms.retry_cap.max(longest);
        terms.retry_delays = delays;
    } else if terms.retry_interval > terms.retry_cap {
        section.note("interval", "is longer than `cap`: raise the cap");
    }
    section.finish();
}

fn read_batch(mut section: TomlSection<'_>, terms: &mut EndpointTerms) {
    set(&mut terms.batch.size, section.read("size", |f| f.count(&delivery_terms::BATCH_SIZES)));
    set(
        &mut terms.batch.linger,
        section.read("linger", |f| f.duration(&delivery_terms::BATCH_LINGERS)),
    );
    section.finish();
}
