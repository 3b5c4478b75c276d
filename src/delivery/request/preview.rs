//! What a request would look like, for people: the same headers and body as [`http`] sends, without
//! sending. Secrets are masked.
//!
//! [`http`]: crate::delivery::http

use std::sync::Arc;

use http::HeaderMap;
use http::HeaderValue;
use http::Uri;
use http::header;

use crate::config::settings::Auth;
use crate::config::settings::Endpoint;
use crate::delivery::error::DeliveryError;
use crate::delivery::request::headers;
use crate::delivery::request::headers::EventIds;
use crate::delivery::request::request_template::TemplateFiller;
use crate::delivery::request::sign::RequestSignature;
use crate::delivery::request::sign::RequestSigner;
use crate::flow::event::Event;
use crate::flow::headers::HeaderLines;
use crate::flow::lease::Lease;
use crate::flow::lease::LeaseId;
use crate::flow::time::Timestamp;
use crate::flow::verdict::AttemptFailure;

const SHOWN_HEADERS_MAX_BYTES: usize = 32 * 1024;

/// An endpoint's requests, as they would be.
pub(crate) struct RequestPreview {
    headers: HeaderMap,
    own_headers: HeaderMap,
    signer: Option<RequestSigner>,
    batched: bool,
    filler: Option<TemplateFiller>,
}

/// A request that is not made.
#[derive(Debug)]
pub(crate) struct PreviewedRequest {
    pub headers: HeaderLines,
    /// Of a batch with this event alone, if the endpoint takes batches.
    pub body: Vec<u8>,
    /// Why it would not be made, if so.
    pub failure: Option<AttemptFailure>,
}

impl RequestPreview {
    /// # Errors
    /// The endpoint's headers or credentials cannot be used.
    pub(crate) fn new(endpoint: &Endpoint) -> Result<Self, DeliveryError> {
        let mut headers = headers::fixed(endpoint)?;
        if let Some(Auth::OAuth2(_)) = &endpoint.auth {
            // There is a token only where one is asked for.
            let mut token = HeaderValue::from_static("Bearer");
            token.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, token);
        }
        Ok(Self {
            headers,
            own_headers: endpoint.headers.clone(),
            signer: endpoint.signing.as_ref().map(RequestSigner::new),
            batched: endpoint.batch.size.get() > 1,
            filler: TemplateFiller::new(&endpoint.request, &Uri::default()),
        })
    }

    /// The first attempt for this event, if it were made `now`, on the database's clock.
    pub(crate) fn of(&self, event: Arc<Event>, now: Timestamp) -> PreviewedRequest {
        let mut body = event.body.complete(now).to_vec();
        if self.batched {
            body.insert(0, b'[');
            body.push(b']');
        }
        let lease = Lease { id: LeaseId(0), attempt: 1, replay: false, events: vec![event] };
        let filler = self.filler.as_ref();
        let filled = filler.map(|filler| filler.fill(&lease.events, now)).transpose();
        let ids = EventIds::of(&lease, self.batched);
        let timestamp = now.seconds().to_string();
        let mut signature = self.signer.as_ref().map(|signer| signer.begin(&ids.id, &timestamp));
        if let Some(signature) = &mut signature {
            signature.add(&body);
        }
        let signed = signature.map(RequestSignature::finish).unwrap_or_default();
        let mut headers = self.headers.clone();
        headers::shape(&mut headers, &self.own_headers, &lease, self.batched);
        headers::complete(&mut headers, ids, &timestamp, signed);
        let limit = SHOWN_HEADERS_MAX_BYTES;
        let (headers, failure) = match filled {
            Ok(Some(filled)) => (headers::shown_filled(&headers, &filled, limit), None),
            Ok(None) => (headers::shown(&headers, limit), None),
            Err(failure) => (headers::shown(&headers, limit), Some(failure)),
        };
        PreviewedRequest { headers, body, failure }
    }
}
