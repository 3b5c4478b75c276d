//! The headers of a request: fixed ones made once, and those of the attempt. Pure.
//!
//! Every request carries its id, so that a receiver can discard a repeat. Values that are or may
//! be secrets never leave here in the clear but onto the wire.

use std::sync::Arc;

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::header;

use crate::config::api_document;
use crate::config::settings::Endpoint;
use crate::delivery::error::DeliveryError;
use crate::delivery::request::auth;
use crate::delivery::request::request_template::FilledRequest;
use crate::flow::event::EventId;
use crate::flow::headers::HeaderLines;
use crate::flow::lease::Lease;
use crate::flow::secret_header::is_secret_header;
use crate::flow::trace::TRACEPARENT;

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const WEBHOOK_REPLAY: HeaderName = HeaderName::from_static("webhook-replay");
const EVENT_IDS: HeaderName = HeaderName::from_static("walhook-event-ids");

/// Set by walhook or by HTTP itself; another value would break framing, routing or signatures.
static RESERVED: [HeaderName; 15] = [
    WEBHOOK_ID,
    WEBHOOK_TIMESTAMP,
    WEBHOOK_SIGNATURE,
    WEBHOOK_REPLAY,
    EVENT_IDS,
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::EXPECT,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Of a request, with those that HTTP adds.
const HEADERS_USUAL: usize = 12;

/// The longest `walhook-event-ids`, 136 ids. Many servers refuse headers of more than 8 KiB, and a
/// refusal is final, so for larger batches it is left out.
const EVENT_IDS_MAX_BYTES: usize = 6 * 1024;

/// CloudEvents 1.0, JSON format: a structured event, and an array of them.
const CLOUDEVENT: &[u8] = b"application/cloudevents+json";
const CLOUDEVENTS_BATCH: &str = "application/cloudevents-batch+json; charset=utf-8";

/// Headers whose value is a URL.
static ADDRESSES: [HeaderName; 3] = [header::LOCATION, header::CONTENT_LOCATION, header::REFERER];

/// What stands for a secret value.
const MASK: &str = "[secret]";

/// The ids that a request carries.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct EventIds {
    /// `webhook-id`.
    pub(crate) id: String,
    /// `walhook-event-ids`, in the body's order.
    elements: Option<String>,
    /// `webhook-replay`: an operator sends the events again.
    replay: bool,
}

impl EventIds {
    /// The event's id; for a batch, also of one, an id that is the same for the same set of events.
    pub(crate) fn of(lease: &Lease, batched: bool) -> Self {
        if !batched {
            let id = lease.events.first().map(|event| event.id.to_string()).unwrap_or_default();
            return Self { id, elements: None, replay: lease.replay };
        }
        let mut ids: Vec<EventId> = lease.events.iter().map(|event| event.id).collect();
        let elements = listed(&ids);
        let set = if ids.is_sorted() {
            xxhash_rust::xxh3::xxh3_128(elements.as_bytes())
        } else {
            ids.sort_unstable();
            xxhash_rust::xxh3::xxh3_128(listed(&ids).as_bytes())
        };
        let elements = (elements.len() <= EVENT_IDS_MAX_BYTES).then_some(elements);
        Self { id: format!("batch_{set:032x}"), elements, replay: lease.replay }
    }
}

fn listed(ids: &[EventId]) -> String {
    let mut list = String::with_capacity(ids.len() * 45);
    for id in ids {
        if !list.is_empty() {
            list.push(',');
        }
        list.push_str(&id.to_string());
    }
    list
}

/// An endpoint's headers that are the same in every request.
///
/// # Errors
/// A value cannot stand in a header, or a name is reserved.
pub(crate) fn fixed(endpoint: &Endpoint) -> Result<HeaderMap, DeliveryError> {
    let name = || Arc::clone(&endpoint.name);
    // Copies of it are added to: they keep the room in its index, and do not have to grow it.
    let mut headers = HeaderMap::with_capacity(HEADERS_USUAL);
    headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let user_agent = HeaderValue::from_str(&endpoint.user_agent)
        .map_err(|_| DeliveryError::Unprintable { endpoint: name(), what: "the user agent" })?;
    headers.insert(header::USER_AGENT, user_agent);
    for extra in endpoint.headers.keys() {
        if RESERVED.contains(extra) {
            return Err(DeliveryError::ReservedHeader { endpoint: name(), name: extra.clone() });
        }
        headers.remove(extra);
        for value in endpoint.headers.get_all(extra) {
            let mut value = value.clone();
            value.set_sensitive(value.is_sensitive() || is_secret_header(extra.as_str()));
            headers.append(extra, value);
        }
    }
    if let Some(auth) = &endpoint.auth {
        let Some((header, value)) = auth::header(auth, &endpoint.name)? else {
            return Ok(headers);
        };
        if RESERVED.contains(&header) {
            return Err(DeliveryError::ReservedHeader { endpoint: name(), name: header });
        }
        headers.insert(header, value);
    }
    Ok(headers)
}

/// Adds what the body's shape asks for, such as its content type. What the operator wrote for the
/// endpoint counts more. A batch has the content type of its array.
pub(crate) fn shape(headers: &mut HeaderMap, endpoint: &HeaderMap, lease: &Lease, batched: bool) {
    let Some(first) = lease.events.first() else { return };
    for (name, value) in first.body.headers() {
        // What a writer gave as its trace is no attribute of the body: `trace` decides about it.
        if endpoint.contains_key(name) || *name == TRACEPARENT {
            continue;
        }
        match (batched, value.as_bytes()) {
            (false, _) => drop(headers.insert(name, value.clone())),
            (true, structured) if structured.starts_with(CLOUDEVENT) => {
                headers.insert(name, HeaderValue::from_static(CLOUDEVENTS_BATCH));
            }
            (true, _) => {}
        }
    }
}

/// Adds what belongs to this attempt.
pub(crate) fn complete(
    headers: &mut HeaderMap,
    ids: EventIds,
    timestamp: &str,
    signed: Vec<(HeaderName, HeaderValue)>,
) {
    let value = |text: String| HeaderValue::try_from(text).expect("ids are hex and commas");
    headers.insert(WEBHOOK_ID, value(ids.id));
    if let Some(elements) = ids.elements {
        headers.insert(EVENT_IDS, value(elements));
    }
    if ids.replay {
        headers.insert(WEBHOOK_REPLAY, HeaderValue::from_static("true"));
    }
    headers.insert(WEBHOOK_TIMESTAMP, value(timestamp.to_owned()));
    for (name, value) in signed {
        headers.insert(name, value);
    }
}

/// Names and values for people to read, with secret values masked, up to `limit_bytes`. Of the ids
/// of a batch only their number is shown: the push log has them beside the headers, and where it has a
/// row for each event, all ids in each would be more than everything else.
pub(crate) fn shown(headers: &HeaderMap, limit_bytes: usize) -> HeaderLines {
    let mut shown = HeaderLines::with_capacity(room_for(headers).min(limit_bytes));
    show(&mut shown, headers.iter(), limit_bytes);
    shown
}

/// The same for `headers` that mostly begin with those of every request, which are `shown` already.
pub(crate) fn shown_after(
    fixed: &HeaderMap,
    shown_fixed: &HeaderLines,
    headers: &HeaderMap,
    limit_bytes: usize,
) -> HeaderLines {
    let mut rest = headers.iter();
    // The body's shape may have replaced one; and what did not fit is not followed by what would.
    let is_same = fixed.iter().all(|header| rest.next() == Some(header));
    if !is_same || room_for(fixed) > limit_bytes {
        return shown(headers, limit_bytes);
    }
    let mut shown = shown_fixed.with_room(room_for(headers).min(limit_bytes));
    show(&mut shown, rest, limit_bytes);
    shown
}

/// As [`shown`], with what was evaluated for an event.
pub(crate) fn shown_filled(
    headers: &HeaderMap,
    filled: &FilledRequest,
    limit_bytes: usize,
) -> HeaderLines {
    let mut headers = headers.clone();
    filled.put_shown(&mut headers);
    shown(&headers, limit_bytes)
}

/// Bytes of all names and values, and of what JSON needs around them.
fn room_for(headers: &HeaderMap) -> usize {
    let pairs = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 6);
    pairs.sum::<usize>() + 1
}

fn show<'a>(
    shown: &mut HeaderLines,
    headers: impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)>,
    limit_bytes: usize,
) {
    for (name, value) in headers {
        let (ids, url);
        let text = if value.is_sensitive() || is_secret_header(name.as_str()) {
            MASK.as_bytes()
        } else if *name == EVENT_IDS {
            let commas = memchr::memchr_iter(b',', value.as_bytes()).count();
            ids = format!("[{} ids]", commas + 1);
            ids.as_bytes()
        } else if ADDRESSES.contains(name) {
            // Of another place, or this one's with a slash behind it: its path can be a secret, too.
            url = api_document::masked_url(value.to_str().unwrap_or_default());
            url.as_bytes()
        } else {
            value.as_bytes()
        };
        if shown.len() + name.as_str().len() + text.len() > limit_bytes {
            break;
        }
        shown.push(name.as_str(), text);
    }
}

#[cfg(test)]
mod tests;
