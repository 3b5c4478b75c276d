//! By which names walhook may be asked while there is no token.
//!
//! A web page whose name is made to lead to 127.0.0.1 after it was loaded (DNS rebinding) is of the
//! same origin as walhook for the browser: it could read dead letters and make endpoints. What it
//! cannot do is send another `Host` than its own name.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::http::HeaderMap;
use axum::http::StatusCode;
use axum::http::Uri;
use axum::http::header;

use crate::api::answers::problem::ProblemResponse;

/// Where this host finds itself, whatever its name service says.
const LOOPBACK: [&str; 3] = ["127.0.0.1", "localhost", "[::1]"];

/// A longer name is cut where it is told.
const SHOWN_MAX: usize = 100;

/// The names that are answered without a token. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct AllowedHosts(Arc<[String]>);

impl AllowedHosts {
    /// Those of the loopback, the address that is listened on, and `more`, in lower case.
    pub(crate) fn new(listen: SocketAddr, more: &[String]) -> Self {
        let own = match listen {
            SocketAddr::V4(listen) => listen.ip().to_string(),
            SocketAddr::V6(listen) => format!("[{}]", listen.ip()),
        };
        let loopback = LOOPBACK.iter().map(|&name| name.to_owned());
        Self(loopback.chain([own]).chain(more.iter().cloned()).collect())
    }

    /// Whether this is one of the names, with a port or without.
    fn know(&self, authority: &str) -> bool {
        name(authority).is_some_and(|name| self.0.contains(&name))
    }

    /// # Errors
    /// 400 without exactly one `Host`, 421 for a name that is not known.
    pub(super) fn judge(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), ProblemResponse> {
        let mut given = headers.get_all(header::HOST).iter();
        let (Some(host), None) = (given.next(), given.next()) else {
            let detail = "a request needs exactly one header Host: send the address that walhook \
                          listens on";
            return Err(ProblemResponse::new(StatusCode::BAD_REQUEST, detail));
        };
        let host = String::from_utf8_lossy(host.as_bytes());
        // The absolute form names a host of its own, and a proxy may have left the header as it was.
        let target = uri.authority().map(|authority| authority.as_str());
        match [Some(&*host), target].into_iter().flatten().find(|name| !self.know(name)) {
            None => Ok(()),
            Some(stranger) => Err(unknown(stranger)),
        }
    }
}

fn unknown(stranger: &str) -> ProblemResponse {
    let shown: String = stranger.chars().take(SHOWN_MAX).collect();
    let detail = format!(
        "host {shown:?} is not answered while there is no token, or a web page could come by a name \
         of its own: ask by 127.0.0.1 or localhost, add the name to [http] hosts, or set \
         [http] token"
    );
    ProblemResponse::new(StatusCode::MISDIRECTED_REQUEST, detail)
}

/// The name in `name` or `name:port`, in lower case and without a last dot. `None` for everything
/// else, so that nobody reads it in another way than its sender.
fn name(authority: &str) -> Option<String> {
    let end = match authority.starts_with('[') {
        true => authority.find(']')? + 1,
        false => authority.find(':').unwrap_or(authority.len()),
    };
    let (name, port) = authority.split_at_checked(end)?;
    let is_port = |port: &str| port.bytes().all(|b| b.is_ascii_digit()) && port.len() <= 5;
    let sound = match port.strip_prefix(':') {
        Some(port) => is_port(port) && !port.is_empty(),
        None => port.is_empty(),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    (sound && !name.is_empty()).then(|| name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;

    fn judged(target: &str, hosts: &[&str]) -> Option<u16> {
        let listen = "127.0.0.2:9464".parse().expect("an address");
        let known = AllowedHosts::new(listen, &[String::from("walhook.internal")]);
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(header::HOST, host.parse().expect("a value"));
        }
        let uri: Uri = target.parse().expect("a target");
        let judged = known.judge(&uri, &headers);
        judged.err().map(|problem| problem.into_response().status().as_u16())
    }

    #[test]
    fn without_a_token_only_known_names_are_answered() {
        let known = [
            "127.0.0.1",
            "127.0.0.1:9464",
            "localhost",
            "LocalHost:80",
            "localhost.",
            "[::1]",
            "[::1]:9464",
            "127.0.0.2:9464",
            "walhook.internal:443",
        ];
        for host in known {
            assert_eq!(judged("/health", &[host]), None, "case: {host}");
        }
        let strangers = [
            "evil.example.com",
            "evil.example.com:9464",
            "localhost.evil.example.com",
            "evil.localhost",
            "127.0.0.1.nip.io",
            "127.0.0.1:9464:1",
            "127.0.0.1:",
            "127.0.0.1:x",
            "127.0.0.1@evil.example.com",
            "user@127.0.0.1",
            "127.0.0.1/x",
            "127.1",
            "0.0.0.0",
            "2130706433",
            "[::]",
            "[::1",
            "::1",
            "[::1].evil.example.com",
            "[::ffff:127.0.0.1]",
            "localhost,evil.example.com",
            "localhost..",
            "",
        ];
        for host in strangers {
            assert_eq!(judged("/health", &[host]), Some(421), "case: {host}");
        }
    }

    #[test]
    fn a_host_is_there_once_and_agrees_with_an_absolute_target() {
        assert_eq!(judged("/health", &[]), Some(400));
        assert_eq!(judged("/health", &["localhost", "localhost"]), Some(400));
        assert_eq!(judged("/health", &["localhost", "evil.example.com"]), Some(400));
        let local = "http://localhost:9464/health";
        assert_eq!(judged(local, &["localhost:9464"]), None);
        assert_eq!(judged(local, &["evil.example.com"]), Some(421));
        assert_eq!(judged("http://evil.example.com/health", &["localhost"]), Some(421));
        assert_eq!(judged("http://localhost@evil.example.com/", &["localhost"]), Some(421));
    }
}
