//! Who may ask: nobody without the token, if there is one, and no page of another site.

use axum::extract::Request;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::StatusCode;
use axum::http::header;
use axum::middleware::Next;
use axum::response::IntoResponse;
use axum::response::Response;

use crate::api::Surface;
use crate::api::problem::Problem;

pub(crate) async fn require_token(
    State(surface): State<Surface>,
    request: Request,
    next: Next,
) -> Response {
    let Some(token) = &surface.token else { return next.run(request).await };
    let given = request.headers().get(header::AUTHORIZATION);
    let given = given.and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    if given.is_some_and(|given| same(given, token.reveal().as_bytes())) {
        return next.run(request).await;
    }
    let problem = Problem::new(
        StatusCode::UNAUTHORIZED,
        "this path needs the header Authorization: Bearer with the token of [http] token",
    );
    ([(header::WWW_AUTHENTICATE, "Bearer")], problem).into_response()
}

/// Compares in a time that does not tell how much of the token is right.
fn same(given: &[u8], token: &[u8]) -> bool {
    let digest = |text| ring::digest::digest(&ring::digest::SHA256, text);
    let (given, token) = (digest(given), digest(token));
    given.as_ref().iter().zip(token.as_ref()).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

/// A page of another site that is open in an operator's browser must not give orders.
pub(crate) async fn refuse_other_sites(request: Request, next: Next) -> Response {
    if is_from_elsewhere(request.headers()) {
        let detail = "a page of another site may not use this path";
        return Problem::new(StatusCode::FORBIDDEN, detail).into_response();
    }
    next.run(request).await
}

fn is_from_elsewhere(headers: &HeaderMap) -> bool {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let host = header(header::HOST).unwrap_or_default();
    let origin = header(header::ORIGIN).map(|o| o.split_once("://").map_or(o, |(_, host)| host));
    origin.is_some_and(|origin| origin != host)
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
    fn only_the_whole_token_is_the_token() {
        assert!(same(b"a-token", b"a-token"));
        for other in [b"a-toke".as_slice(), b"a-tokens", b""] {
            assert!(!same(other, b"a-token"));
        }
    }
}
