//! `/` and `/ui/...`: the page that an operator looks at, and how it gets in.
//!
//! All of it is in the binary: no build step, nothing from another host. The page itself is nobody's
//! secret and needs no token; whatever it shows comes by `/api/v1`, which does. A browser shows the
//! token once, and has a cookie afterwards that no script can read.

use std::io::Write;
use std::sync::LazyLock;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::HeaderName;
use axum::http::HeaderValue;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use ring::hmac;
use serde::Deserialize;
use tokio::time::Instant;
use tokio::time::sleep_until;
use utoipa::ToSchema;
use xxhash_rust::xxh3::xxh3_128;

use crate::api::answers::handler_answers::EmptyAnswer;
use crate::api::answers::handler_answers::TextAnswer;
use crate::api::answers::handler_answers::TextKinds;
use crate::api::answers::problem::ProblemResponse;
use crate::api::openapi::request_shape::BodyFields;
use crate::api::requests::path_parts::FilePart;
use crate::api::requests::request::NamedParts;
use crate::api::surface::HttpSurface;
use crate::config::secret::is_same;
use crate::flow::hex::hex_of;

/// Nothing from elsewhere, nothing inline, in no frame.
const POLICY: &str =
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

const COOKIE: &str = "walhook";

/// Says that a script of the page asks: a foreign page cannot send it.
pub(crate) const PAGE_HEADER: HeaderName = HeaderName::from_static("x-walhook");

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

/// One file of the page.
struct PageFile {
    name: &'static str,
    kind: &'static str,
    text: &'static str,
}

macro_rules! page_file {
    ($kind:expr, $name:literal, $place:literal) => {
        PageFile { name: $name, kind: $kind, text: include_str!(concat!("../../ui/", $place)) }
    };
}

const FILES: &[PageFile] = &[
    page_file!(HTML, "index.html", "index.html"),
    page_file!(STYLE, "page.css", "page.css"),
    page_file!(IMAGE, "icon.svg", "icon.svg"),
    page_file!(SCRIPT, "app.js", "app.js"),
    page_file!(SCRIPT, "api.js", "api.js"),
    page_file!(SCRIPT, "words.js", "words.js"),
    page_file!(SCRIPT, "zh.js", "zh.js"),
    page_file!(SCRIPT, "route.js", "route.js"),
    page_file!(SCRIPT, "parts.js", "parts.js"),
    page_file!(SCRIPT, "chart.js", "chart.js"),
    page_file!(SCRIPT, "overview.js", "overview.js"),
    page_file!(SCRIPT, "events.js", "events.js"),
    page_file!(SCRIPT, "event.js", "event.js"),
    page_file!(SCRIPT, "endpoints.js", "endpoints.js"),
    page_file!(SCRIPT, "letters.js", "letters.js"),
    page_file!(SCRIPT, "replays.js", "replays.js"),
    page_file!(SCRIPT, "backfills.js", "backfills.js"),
    page_file!(SCRIPT, "source.js", "source.js"),
    page_file!(SCRIPT, "members.js", "members.js"),
    page_file!(SCRIPT, "trial.js", "trial.js"),
    page_file!(SCRIPT, "types.js", "types.js"),
    page_file!(SCRIPT, "preact.js", "vendor/htm-preact-standalone.module.js"),
    page_file!(SCRIPT, "uplot.js", "vendor/uPlot.iife.min.js"),
    page_file!(STYLE, "uplot.css", "vendor/uPlot.min.css"),
];

/// The files as they are sent, in their order.
static SENT: LazyLock<Vec<SentFile>> = LazyLock::new(|| FILES.iter().map(SentFile::of).collect());

/// One file of the page, plain and compressed.
struct SentFile {
    /// The first half of its tag.
    hash: u128,
    /// `None` if it could not be compressed, which takes no more than memory.
    compressed: Option<Bytes>,
}

impl SentFile {
    fn of(file: &PageFile) -> Self {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        let written = encoder.write_all(file.text.as_bytes()).and_then(|()| encoder.finish());
        Self { hash: xxh3_128(file.text.as_bytes()), compressed: written.ok().map(Bytes::from) }
    }
}

/// Whether the caller takes gzip: it names it, and not with a weight of nothing.
fn takes_gzip(asked: &HeaderMap) -> bool {
    let values = asked.get_all(header::ACCEPT_ENCODING).iter();
    let mut codings = values.filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
    codings.any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let weight = parts.find_map(|part| part.strip_prefix("q="));
        is_gzip && weight.is_none_or(|weight| weight.parse::<f32>().is_ok_and(|q| q > 0.0))
    })
}

/// The page as a text.
pub(crate) struct PageText;

impl TextKinds for PageText {
    const KINDS: &'static [&'static str] = &["text/html"];
}

/// A file of the page as a text.
pub(crate) struct FileText;

impl TextKinds for FileText {
    const KINDS: &'static [&'static str] =
        &["text/javascript", "text/css", "image/svg+xml", "text/html"];
}

/// The token, which is shown once.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct LoginFields {
    token: Option<String>,
}

/// A cookie that is given, or none.
type CookieAnswer = EmptyAnswer<Option<[(HeaderName, String); 1]>>;

/// The page.
pub(crate) async fn index(headers: HeaderMap) -> Result<TextAnswer<PageText>, ProblemResponse> {
    serve("index.html", &headers).map(TextAnswer::new)
}

/// What belongs to it.
pub(crate) async fn file(
    headers: HeaderMap,
    NamedParts(name, ..): NamedParts<FilePart>,
) -> Result<TextAnswer<FileText>, ProblemResponse> {
    serve(&name, &headers).map(TextAnswer::new)
}

fn serve(name: &str, asked: &HeaderMap) -> Result<Response, ProblemResponse> {
    let found = FILES.iter().zip(SENT.iter()).find(|(file, _)| file.name == name);
    let Some((file, sent)) = found else {
        let detail = format!("the page has no file {name:?}");
        return Err(ProblemResponse::new(StatusCode::NOT_FOUND, detail));
    };
    let compressed = sent.compressed.as_ref().filter(|_| takes_gzip(asked));
    // Another tag for other bytes.
    let coding = if compressed.is_some() { "-gzip" } else { "" };
    let tag = &format!("\"{:032x}{coding}\"", sent.hash);
    let headers = [
        (header::VARY, "accept-encoding"),
        (header::CONTENT_TYPE, file.kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
        (header::ETAG, tag.as_str()),
    ];
    let known = asked.get(header::IF_NONE_MATCH).and_then(|known| known.to_str().ok());
    let is_known = known.is_some_and(|known| known.split(',').any(|one| one.trim() == tag));
    Ok(match is_known {
        true => (StatusCode::NOT_MODIFIED, headers).into_response(),
        false => match compressed {
            Some(bytes) => {
                (headers, [(header::CONTENT_ENCODING, "gzip")], bytes.clone()).into_response()
            }
            None => (headers, file.text).into_response(),
        },
    })
}

/// Takes the token once, and gives a cookie for it.
pub(crate) async fn login(
    State(surface): State<HttpSurface>,
    headers: HeaderMap,
    BodyFields(fields): BodyFields<LoginFields>,
) -> Result<CookieAnswer, ProblemResponse> {
    let given = fields.token.unwrap_or_default();
    if !headers.contains_key(PAGE_HEADER) {
        return Err(without_header());
    }
    let Some(token) = &surface.token else {
        return Ok(EmptyAnswer(None));
    };
    if !is_same(given.trim().as_bytes(), token.reveal().as_bytes()) {
        surface.refusals.note_of("token", None);
        // Guessing is slow.
        sleep_until(surface.refusals.answer_to_token(Instant::now())).await;
        let detail = "this is not the token of [http] token";
        return Err(ProblemResponse::new(StatusCode::FORBIDDEN, detail));
    }
    let cookie = format!("{COOKIE}={}; Path=/; HttpOnly; SameSite=Strict", pass(token.reveal()));
    Ok(EmptyAnswer(Some([(header::SET_COOKIE, cookie)])))
}

/// Takes the cookie back.
pub(crate) async fn logout() -> CookieAnswer {
    let cookie = format!("{COOKIE}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0");
    EmptyAnswer(Some([(header::SET_COOKIE, cookie)]))
}

/// Whether the request has the cookie that [`login`] gave.
pub(crate) fn has_cookie(headers: &HeaderMap, token: &str) -> bool {
    let all = headers.get_all(header::COOKIE).iter();
    let pairs = all.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(';'));
    let mut ours = pairs.filter_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='));
    let pass = pass(token);
    ours.any(|given| is_same(given.as_bytes(), pass.as_bytes()))
}

/// What the cookie holds: nothing that the token could be told from, and the same after a restart.
fn pass(token: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, token.as_bytes());
    hex_of(hmac::sign(&key, b"walhook page").as_ref())
}

/// A page's script changes something without saying that it is one.
pub(crate) fn without_header() -> ProblemResponse {
    let detail = format!("with a cookie, this needs the header {PAGE_HEADER}: page");
    ProblemResponse::new(StatusCode::FORBIDDEN, detail)
}

/// Whether the header of [`without_header`] is there.
pub(crate) fn is_of_page(headers: &HeaderMap) -> bool {
    headers.get(PAGE_HEADER) == Some(&HeaderValue::from_static("page"))
}

#[cfg(test)]
mod tests;
