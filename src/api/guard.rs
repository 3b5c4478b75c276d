//! Who may ask: nobody without the token, if there is one, and no page of another site.

use axum::extract::Request;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::HeaderName;
use axum::http::HeaderValue;
use axum::http::StatusCode;
use axum::http::header;
use axum::middleware::Next;
use axum::response::IntoResponse;
use axum::response::Response;
use tokio::time::Instant;
use tokio::time::sleep_until;

use crate::api::answers::problem::ProblemResponse;
use crate::api::connections::ConnectionLink;
use crate::api::page;
use crate::api::surface::HttpSurface;
use crate::config::secret::is_same;

const SCHEME: &str = "Bearer ";

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

pub(crate) async fn require_token(
    State(surface): State<HttpSurface>,
    request: Request,
    next: Next,
) -> Response {
    let headers = request.headers();
    let token = surface.token.as_ref().map(|token| token.reveal());
    let is_bearer = token.is_none_or(|token| carries(headers, token));
    let is_page = !is_bearer && token.is_some_and(|token| page::has_cookie(headers, token));
    // A cookie goes along with whatever the browser is made to send; a header of ours does not.
    if is_page && !request.method().is_safe() && !page::is_of_page(headers) {
        surface.refusals.note("origin", request.extensions());
        return page::without_header().into_response();
    }
    if is_bearer || is_page {
        let link = request.extensions().get::<ConnectionLink>().cloned();
        let _answering = link.as_ref().map(ConnectionLink::answering);
        return next.run(request).await;
    }
    surface.refusals.note("token", request.extensions());
    // Guessing is slow, and so is filling a log. The connection may be closed to make room meanwhile.
    sleep_until(surface.refusals.answer_to_token(Instant::now())).await;
    let problem = ProblemResponse::new(
        StatusCode::UNAUTHORIZED,
        "this path needs the header Authorization: Bearer with the token of [http] token",
    );
    ([(header::WWW_AUTHENTICATE, "Bearer")], problem).into_response()
}

/// The scheme's name in any case (RFC 9110).
fn carries(headers: &HeaderMap, token: &str) -> bool {
    let given = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    let Some((scheme, given)) = given.and_then(|given| given.split_at_checked(SCHEME.len())) else {
        return false;
    };
    scheme.eq_ignore_ascii_case(SCHEME.as_bytes()) && is_same(given.trim_ascii(), token.as_bytes())
}

/// A page of another site that is open in an operator's browser must not give orders.
pub(crate) async fn refuse_other_sites(
    State(surface): State<HttpSurface>,
    request: Request,
    next: Next,
) -> Response {
    if is_from_elsewhere(request.headers()) {
        surface.refusals.note("origin", request.extensions());
        let detail = "a page of another site may not use this path";
        return ProblemResponse::new(StatusCode::FORBIDDEN, detail).into_response();
    }
    next.run(request).await
}

/// By `Origin`, which browsers send with whatever changes something, and by `Sec-Fetch-Site`, which
/// they send with images, forms and links too. Programs send neither.
fn is_from_elsewhere(headers: &HeaderMap) -> bool {
    let all = |name| headers.get_all(name).iter().map(|value| value.to_str().unwrap_or_default());
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let is_own = |origin: &str| {
        let authority = origin.split_once("://").map(|(_, authority)| authority);
        authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
    };
    let is_near = |site: &str| matches!(site, "same-origin" | "none");
    !all(header::ORIGIN).all(is_own) || !all(SEC_FETCH_SITE).all(is_near)
}

/// Stands before every path.
pub(crate) async fn require_known_host(
    State(surface): State<HttpSurface>,
    request: Request,
    next: Next,
) -> Response {
    // A client with the token is no page that came by chance.
    if surface.token.is_some() {
        return next.run(request).await;
    }
    match surface.hosts.judge(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => {
            surface.refusals.note("host", request.extensions());
            problem.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_another_site_is_told_by_its_origin() {
        let cases = [
            (None, false),
            (Some("http://127.0.0.1:9464"), false),
            (Some("https://127.0.0.1:9464"), false),
            (Some("http://127.0.0.1"), true),
            (Some("https://evil.example.com"), true),
            (Some("null"), true),
        ];
        for (origin, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, "127.0.0.1:9464".parse().unwrap());
            headers.extend(origin.map(|origin| (header::ORIGIN, origin.parse().unwrap())));
            assert_eq!(is_from_elsewhere(&headers), expected, "case: {origin:?}");
        }
    }

    #[test]
    fn a_link_or_an_image_of_another_site_is_told_by_what_browsers_add() {
        let cases =
            [("same-origin", false), ("none", false), ("same-site", true), ("cross-site", true)];
        for (site, expected) in cases {
            let headers = HeaderMap::from_iter([(SEC_FETCH_SITE, site.parse().unwrap())]);
            assert_eq!(is_from_elsewhere(&headers), expected, "case: {site}");
        }
    }

    #[test]
    fn the_scheme_is_read_in_any_case() {
        for (given, expected) in [
            ("Bearer a-token", true),
            ("bearer a-token", true),
            ("BEARER  a-token", true),
            ("Basic a-token", false),
            ("a-token", false),
            ("Bearer", false),
            ("Bearer ", false),
        ] {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, given.parse().unwrap())]);
            assert_eq!(carries(&headers, "a-token"), expected, "case: {given}");
        }
    }

    #[test]
    fn only_the_whole_token_is_the_token() {
        assert!(is_same(b"a-token", b"a-token"));
        for other in [b"a-toke".as_slice(), b"a-tokens", b""] {
            assert!(!is_same(other, b"a-token"));
        }
    }
}
