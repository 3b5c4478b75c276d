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
use tokio::time::Instant;
use tokio::time::sleep_until;
use xxhash_rust::xxh3::xxh3_128;

use crate::api::fields::RequestFields;
use crate::api::problem::ProblemResponse;
use crate::api::request::NamedParts;
use crate::api::request::SentBody;
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

/// The page.
pub(crate) async fn index(headers: HeaderMap) -> Response {
    serve("index.html", &headers)
}

/// What belongs to it.
pub(crate) async fn file(headers: HeaderMap, NamedParts(name): NamedParts) -> Response {
    serve(&name, &headers)
}

fn serve(name: &str, asked: &HeaderMap) -> Response {
    let found = FILES.iter().zip(SENT.iter()).find(|(file, _)| file.name == name);
    let Some((file, sent)) = found else {
        let detail = format!("the page has no file {name:?}");
        return ProblemResponse::new(StatusCode::NOT_FOUND, detail).into_response();
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
    match is_known {
        true => (StatusCode::NOT_MODIFIED, headers).into_response(),
        false => match compressed {
            Some(bytes) => {
                (headers, [(header::CONTENT_ENCODING, "gzip")], bytes.clone()).into_response()
            }
            None => (headers, file.text).into_response(),
        },
    }
}

/// Takes the token once, and gives a cookie for it.
pub(crate) async fn login(
    State(surface): State<HttpSurface>,
    headers: HeaderMap,
    SentBody(body): SentBody,
) -> Result<Response, ProblemResponse> {
    let fields = RequestFields::of_body(&body, &["token"])?;
    let given = fields.text("token")?.unwrap_or_default();
    if !headers.contains_key(PAGE_HEADER) {
        return Err(without_header());
    }
    let Some(token) = &surface.token else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    if !is_same(given.trim().as_bytes(), token.reveal().as_bytes()) {
        surface.refusals.note_of("token", None);
        // Guessing is slow.
        sleep_until(surface.refusals.answer_to_token(Instant::now())).await;
        let detail = "this is not the token of [http] token";
        return Err(ProblemResponse::new(StatusCode::FORBIDDEN, detail));
    }
    let cookie = format!("{COOKIE}={}; Path=/; HttpOnly; SameSite=Strict", pass(token.reveal()));
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response())
}

/// Takes the cookie back.
pub(crate) async fn logout() -> Response {
    let cookie = format!("{COOKIE}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0");
    (StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response()
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
mod tests {
    use std::collections::BTreeSet;
    use std::io::Read;
    use std::path::Path;

    use flate2::read::GzDecoder;
    use ring::digest;

    use super::*;

    fn ours() -> impl Iterator<Item = &'static PageFile> {
        let is_vendored =
            |file: &&PageFile| ["preact.js", "uplot.js", "uplot.css"].contains(&file.name);
        FILES.iter().filter(move |file| !is_vendored(file))
    }

    /// What stands in quotes behind each `before`.
    fn quoted<'t>(text: &'t str, before: &'t str) -> impl Iterator<Item = String> {
        text.match_indices(before).filter_map(move |(at, found)| {
            let rest = text.get(at + found.len()..)?;
            let is_name = text.get(..at)?.ends_with(|c: char| c.is_alphanumeric() || c == '_');
            let literal = rest.strip_prefix('"').filter(|_| !is_name)?;
            let mut end = 0;
            while !literal.get(end..)?.starts_with('"') {
                end += if literal.get(end..)?.starts_with('\\') { 2 } else { 1 };
                while !literal.is_char_boundary(end) {
                    end += 1;
                }
            }
            serde_json::from_str(&format!("\"{}\"", literal.get(..end)?)).ok()
        })
    }

    #[test]
    fn files_of_others_are_as_their_packages_have_them() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("ui/vendor");
        let sums = std::fs::read_to_string(folder.join("SHA256SUMS")).unwrap();
        let known: BTreeSet<&str> =
            sums.lines().filter_map(|line| line.split_once("  ")).map(|(_, name)| name).collect();
        for line in sums.lines() {
            let (sum, name) = line.split_once("  ").unwrap();
            let text = std::fs::read(folder.join(name)).unwrap();
            let found = digest::digest(&digest::SHA256, &text);
            assert_eq!(hex_of(found.as_ref()), sum, "{name}");
        }
        for entry in folder.read_dir().unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            let is_about = ["README.md", "SHA256SUMS"].contains(&name.as_str());
            assert!(is_about || known.contains(name.as_str()), "{name} has no checksum");
        }
    }

    #[test]
    fn the_whole_page_is_small_as_it_is_sent() {
        let mut sum = 0;
        for (file, sent) in FILES.iter().zip(SENT.iter()) {
            let packed = sent.compressed.as_ref().unwrap();
            sum += packed.len();
            let mut text = String::new();
            GzDecoder::new(&packed[..]).read_to_string(&mut text).unwrap();
            assert_eq!(text, file.text, "{}", file.name);
        }
        assert!(sum > 10_000 && sum <= 150 * 1024, "{sum} bytes");
    }

    #[test]
    fn who_takes_gzip_gets_it_under_a_tag_of_its_own() {
        let cases = [
            ("gzip, deflate, br", true),
            ("br;q=1.0, GZIP ; q=0.5", true),
            ("gzip;q=0", false),
            ("gzip;q=0.000", false),
            ("deflate, xgzip", false),
            ("", false),
        ];
        for (accepted, expected) in cases {
            let value = HeaderValue::from_str(accepted).unwrap();
            let asked = HeaderMap::from_iter([(header::ACCEPT_ENCODING, value)]);
            assert_eq!(takes_gzip(&asked), expected, "case: {accepted}");
            let answer = serve("app.js", &asked);
            assert_eq!(answer.headers()[header::CONTENT_SECURITY_POLICY], POLICY);
            assert!(POLICY.starts_with("default-src 'self';") && !POLICY.contains("unsafe"));
            let coding = answer.headers().get(header::CONTENT_ENCODING);
            assert_eq!(coding.is_some(), expected, "case: {accepted}");
            let tag = answer.headers()[header::ETAG].to_str().unwrap();
            assert_eq!(tag.ends_with("-gzip\""), expected, "case: {accepted}");
            let known = HeaderMap::from_iter([(header::IF_NONE_MATCH, tag.parse().unwrap())]);
            let again = serve("app.js", &known).status();
            let status = if expected { StatusCode::OK } else { StatusCode::NOT_MODIFIED };
            assert_eq!(again, status, "without gzip, case: {accepted}");
        }
    }

    #[test]
    fn nothing_is_inline_and_nothing_comes_from_elsewhere() {
        for file in ours() {
            let text = file.text;
            for forbidden in
                ["style=\"", "<style", "<script>", "onclick=\"", "javascript:", "innerHTML"]
            {
                assert!(!text.contains(forbidden), "{}: {forbidden}", file.name);
            }
            for (at, _) in text.match_indices("https://").chain(text.match_indices("http://")) {
                let rest = text.get(at..).unwrap();
                let known = ["https://…", "http://www.w3.org/2000/svg"];
                assert!(
                    known.iter().any(|known| rest.starts_with(known)),
                    "{}: {rest:.40}",
                    file.name
                );
            }
            for imported in quoted(text, " from ").filter(|name| name.starts_with("./")) {
                let name = imported.trim_start_matches("./");
                assert!(FILES.iter().any(|file| file.name == name), "{}: {name}", file.name);
            }
        }
    }

    #[test]
    fn each_text_is_there_in_chinese() {
        let chinese = FILES.iter().find(|file| file.name == "zh.js").unwrap().text;
        let mut texts = 0;
        for file in ours() {
            for text in quoted(file.text, "t(") {
                texts += 1;
                let key = format!("{}: ", serde_json::Value::from(text.as_str()));
                assert!(chinese.contains(&key), "{}: {text:?} is not in zh.js", file.name);
            }
        }
        assert!(texts > 200, "{texts}");
    }

    #[test]
    fn the_cookie_is_none_without_the_whole_of_it() {
        let with = |cookie: &str| {
            HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_str(cookie).unwrap())])
        };
        let pass = pass("a-token");
        assert!(has_cookie(&with(&format!("a=b; {COOKIE}={pass}")), "a-token"));
        assert!(!has_cookie(&with(&format!("{COOKIE}={pass}")), "another-token"));
        for cookie in
            [format!("x{COOKIE}={pass}"), format!("{COOKIE}={pass}0"), format!("{COOKIE}=")]
        {
            assert!(!has_cookie(&with(&cookie), "a-token"), "{cookie}");
        }
    }
}
