//! How walhook identifies itself: one header per endpoint, made once. Pure. Tokens that are fetched
//! are `oauth`'s.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::HeaderName;
use http::HeaderValue;
use http::header::AUTHORIZATION;
use url::Url;

use crate::config::secret::Secret;
use crate::config::settings::Auth;
use crate::delivery::error::DeliveryError;

/// The credentials that stand in a URL.
pub(crate) fn of_url(url: &Url) -> Option<Auth> {
    let password = url.password().map(percent_decoded);
    if url.username().is_empty() && password.is_none() {
        return None;
    }
    let username = percent_decoded(url.username());
    Some(Auth::Basic { username, password: Secret::new(password.unwrap_or_default()) })
}

/// The header that carries the credentials, marked as sensitive; `None` if they are fetched first.
///
/// # Errors
/// The credentials hold characters that the header cannot carry.
pub(crate) fn header(
    auth: &Auth,
    endpoint: &Arc<str>,
) -> Result<Option<(HeaderName, HeaderValue)>, DeliveryError> {
    let (name, text, what) = match auth {
        Auth::Basic { username, password } => {
            if username.contains(':') {
                return Err(DeliveryError::ColonInUsername { endpoint: Arc::clone(endpoint) });
            }
            let pair = BASE64_STANDARD.encode(format!("{username}:{}", password.reveal()));
            (AUTHORIZATION, format!("Basic {pair}"), "the basic authentication")
        }
        Auth::Bearer { token } => {
            (AUTHORIZATION, format!("Bearer {}", token.reveal()), "the bearer token")
        }
        Auth::ApiKey { header, value } => (header.clone(), value.reveal().clone(), "the API key"),
        Auth::OAuth2(_) => return Ok(None),
    };
    let mut value = HeaderValue::try_from(text)
        .map_err(|_| DeliveryError::Unprintable { endpoint: Arc::clone(endpoint), what })?;
    value.set_sensitive(true);
    Ok(Some((name, value)))
}

fn percent_decoded(text: &str) -> String {
    // The form decoder would also turn `+` into a blank.
    let pair = format!("={}", text.replace('+', "%2B"));
    let decoded = url::form_urlencoded::parse(pair.as_bytes()).next();
    decoded.map_or_else(String::new, |(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret<String> {
        Secret::new(text.to_owned())
    }

    #[test]
    fn each_kind_has_its_header() {
        let basic = Auth::Basic { username: "Aladdin".into(), password: secret("open:sesame") };
        let api_key = Auth::ApiKey { header: HeaderName::from_static("x-key"), value: secret("k") };
        let cases = [
            (basic, "authorization", "Basic QWxhZGRpbjpvcGVuOnNlc2FtZQ=="),
            (Auth::Bearer { token: secret("t0ken") }, "authorization", "Bearer t0ken"),
            (api_key, "x-key", "k"),
        ];
        for (auth, expected_name, expected) in cases {
            let (name, value) = header(&auth, &"crm".into()).unwrap().unwrap();
            assert_eq!((name.as_str(), value.to_str().unwrap()), (expected_name, expected));
            assert!(value.is_sensitive(), "case: {expected_name}");
        }
    }

    #[test]
    fn credentials_of_a_url_are_taken_as_they_were_meant() {
        let header = |url: &str| {
            let auth = of_url(&url.parse().unwrap())?;
            let (_, value) = header(&auth, &"crm".into()).unwrap()?;
            let encoded = value.to_str().unwrap().strip_prefix("Basic ").unwrap().to_owned();
            Some(String::from_utf8(BASE64_STANDARD.decode(encoded).unwrap()).unwrap())
        };
        let cases = [
            ("https://crm.test/", None),
            ("https://me@crm.test/", Some("me:")),
            ("https://me:p%40ss+word@crm.test/", Some("me:p@ss+word")),
            ("https://:only@crm.test/", Some(":only")),
        ];
        for (url, expected) in cases {
            assert_eq!(header(url).as_deref(), expected, "case: {url}");
        }
    }

    #[test]
    fn credentials_that_would_break_out_of_the_header_are_refused_without_showing_them() {
        let key = HeaderName::from_static("x-key");
        let cases = [
            (Auth::Bearer { token: secret("hunter2\r\nx: y") }, "bearer token"),
            (Auth::ApiKey { header: key, value: secret("hunter2\0") }, "API key"),
            (Auth::Basic { username: "a:hunter2".into(), password: secret("p") }, "colon"),
        ];
        for (auth, expected) in cases {
            let error = header(&auth, &"crm".into()).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("crm"), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
