//! Headers that the configuration adds to requests, and the credentials in them.
//!
//! Names and values are typed and checked here, so that no line break of a secret or a variable
//! ever reaches the wire, and so that no endpoint can be given a header that walhook itself sets.

use std::sync::Arc;

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::header::AUTHORIZATION;

use crate::config::secret::Secret;
use crate::config::sections::delivery_terms::EndpointTerms;
use crate::config::settings::Auth;
use crate::config::settings::HeaderTemplate;
use crate::config::settings::OAuth2;
use crate::config::toml_file::toml_field::FieldReader;
use crate::config::toml_file::toml_reader::TomlSection;
use crate::config::url_template;
use crate::expression::template;
use crate::expression::template::TemplatePiece;

/// Hop-by-hop headers (RFC 9110, 7.6.1) and those that frame the message: the HTTP client's own.
const CONNECTION_HEADERS: [&str; 13] = [
    "connection",
    "content-encoding",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What stands for a value that is evaluated.
const UNSENT: &str = "{{ }}";

/// Every `webhook-...` header identifies or signs the event.
const EVENT_HEADER_PREFIX: &str = "webhook-";

/// Headers as they are written.
#[derive(Debug, Default)]
pub(crate) struct WrittenHeaders {
    /// All of them; those that are evaluated with a value that is never sent.
    fixed: HeaderMap,
    evaluated: Vec<HeaderTemplate>,
}

/// Reads `headers = { name = value, ... }`; values may be secrets, or hold expressions.
pub(crate) fn read(field: &FieldReader<'_>) -> Option<WrittenHeaders> {
    let mut headers = WrittenHeaders::default();
    for (text, field) in field.section()?.entries() {
        let Some(name) = header_name(&field, text) else { continue };
        if headers.fixed.contains_key(&name) {
            field.note("is given twice (case does not count): remove one");
        }
        let Some(text) = field.secret() else { continue };
        // What comes from a file or the environment is the secret itself, whatever it looks like.
        if field.is_string() && text.reveal().contains("{{") {
            let Some(pieces) = evaluated(&field, text.reveal()) else { continue };
            headers.evaluated.push(HeaderTemplate { name: name.clone(), pieces });
            headers.fixed.insert(name, HeaderValue::from_static(UNSENT));
        } else if let Some(value) = header_value(&field, &text) {
            headers.fixed.insert(name, value);
        }
    }
    Some(headers)
}

/// Reads headers that are the same in every request.
pub(crate) fn read_fixed(field: &FieldReader<'_>) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (text, field) in field.section()?.entries() {
        let Some(name) = header_name(&field, text) else { continue };
        let Some(text) = field.fixed_secret() else { continue };
        if let Some(value) = header_value(&field, &text) {
            headers.insert(name, value);
        }
    }
    Some(headers)
}

/// A value with expressions in it.
fn evaluated(field: &FieldReader<'_>, text: &str) -> Option<Arc<[TemplatePiece]>> {
    let pieces = match template::pieces(text.trim()) {
        Ok(pieces) => pieces,
        Err(message) => return field.refuse(message),
    };
    for piece in &pieces {
        if let TemplatePiece::Literal(literal) = piece {
            header_value(field, &Secret::new(literal.clone()))?;
        }
    }
    Some(Arc::from(pieces))
}

/// Adds `own` to the headers of `terms`; where both have a name, `own` counts.
pub(crate) fn merge(terms: &mut EndpointTerms, own: WrittenHeaders) {
    terms.evaluated.retain(|before| !own.fixed.contains_key(&before.name));
    terms.evaluated.extend(own.evaluated);
    // Each name is there once, so the iterator always gives it together with its value.
    for (name, value) in own.fixed {
        if let Some(name) = name {
            terms.headers.insert(name, value);
        }
    }
}

/// Reads `auth = { basic | bearer | api_key | oauth2 }`.
pub(crate) fn read_auth(field: &FieldReader<'_>) -> Option<Auth> {
    let mut section = field.section()?;
    let basic = section.field("basic");
    let bearer = section.field("bearer");
    let api_key = section.field("api_key");
    let oauth2 = section.field("oauth2");
    section.finish_knowing(&[
        ("token", "bearer"),
        ("username", "basic"),
        ("user", "basic"),
        ("password", "basic"),
        ("apikey", "api_key"),
        ("key", "api_key"),
        ("oauth", "oauth2"),
    ]);
    match (basic, bearer, api_key, oauth2) {
        (Some(basic), None, None, None) => read_basic(basic.section()?),
        (None, Some(bearer), None, None) => {
            let token = bearer.fixed_secret()?;
            header_value(&bearer, &token)?;
            Some(Auth::Bearer { token })
        }
        (None, None, Some(api_key), None) => read_api_key(api_key.section()?),
        (None, None, None, Some(oauth2)) => read_oauth2(oauth2.section()?),
        _ => field.refuse_missing(
            "must hold exactly one of `basic`, `bearer`, `api_key`, `oauth2`",
            &["basic", "bearer", "api_key", "oauth2"],
        ),
    }
}

/// The header that carries the credentials.
pub(crate) fn name_of_auth(auth: &Auth) -> &HeaderName {
    match auth {
        Auth::Basic { .. } | Auth::Bearer { .. } | Auth::OAuth2(_) => &AUTHORIZATION,
        Auth::ApiKey { header, .. } => header,
    }
}

fn read_basic(mut section: TomlSection<'_>) -> Option<Auth> {
    let username = section.require("username", "is missing: give the user's name", |field| {
        let name = field.fixed_string()?;
        // RFC 7617: the first colon ends the name.
        if name.contains(':') || name.contains(char::is_control) {
            return field.refuse("holds a colon or a control character: remove it");
        }
        Some(name)
    });
    let password =
        section.require("password", "is missing: give the password", FieldReader::fixed_secret);
    section.finish();
    Some(Auth::Basic { username: username?, password: password? })
}

fn read_api_key(mut section: TomlSection<'_>) -> Option<Auth> {
    let header = section.require("name", "is missing: name the header", |field| {
        header_name(field, &field.string()?)
    });
    let value = section.require("value", "is missing: give the key", |field| {
        let value = field.fixed_secret()?;
        header_value(field, &value)?;
        Some(value)
    });
    section.finish();
    Some(Auth::ApiKey { header: header?, value: value? })
}

fn read_oauth2(mut section: TomlSection<'_>) -> Option<Auth> {
    let missing = "is missing: give the address that issues tokens";
    let token_url = section.require("token_url", missing, url_template::fixed);
    let missing = "is missing: give the id that the issuer has for walhook";
    let client_id = section.require("client_id", missing, FieldReader::fixed_string);
    let client_secret =
        section.require("client_secret", "is missing: give the secret", FieldReader::fixed_secret);
    let scope = section.read("scope", FieldReader::fixed_string);
    let audience = section.read("audience", FieldReader::fixed_string);
    let places = [("header", false), ("form", true)];
    let in_form = section.read("credentials", |field| field.one_of(&places)).unwrap_or_default();
    section.finish();
    Some(Auth::OAuth2(OAuth2 {
        token_url: token_url?,
        client_id: client_id?,
        client_secret: client_secret?,
        scope,
        audience,
        in_form,
    }))
}

pub(crate) fn header_name(field: &FieldReader<'_>, text: &str) -> Option<HeaderName> {
    if text.contains("{{") {
        return field.refuse(
            "is no name of a header but {{ }}: names are the same for every event, and expressions stand in \
             values",
        );
    }
    let Ok(name) = HeaderName::from_bytes(text.as_bytes()) else {
        return field.refuse("is not the name of a header: use letters, digits and -");
    };
    let lower = name.as_str();
    if CONNECTION_HEADERS.contains(&lower) {
        return field.refuse("belongs to the connection and is set by walhook: remove it");
    }
    match lower {
        "content-type" => field.refuse("is set by walhook (application/json): remove it"),
        "user-agent" => field.refuse("is set by `user_agent`: write it there"),
        _ if lower.starts_with(EVENT_HEADER_PREFIX) => {
            field.refuse("identifies or signs the event and is set by walhook: remove it")
        }
        _ => Some(name),
    }
}

/// Marked as sensitive: `Debug` hides it, and so do HTTP/2's compression tables.
fn header_value(field: &FieldReader<'_>, text: &Secret<String>) -> Option<HeaderValue> {
    let Ok(mut value) = HeaderValue::from_str(text.reveal()) else {
        return field.refuse(
            "holds a character that no header may carry (line break, NUL, other control, \
             or not ASCII): remove it",
        );
    };
    value.set_sensitive(true);
    Some(value)
}
