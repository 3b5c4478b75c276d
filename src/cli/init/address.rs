//! The connection URL of the next steps: the same server for another role, without a password.

use std::borrow::Cow;

use tokio_postgres::config::Host;

use crate::config;
use crate::config::settings::ServerSettings;
use crate::config::settings::SessionAttrs;
use crate::config::settings::TlsMode;
use crate::store::session::dial;

/// `postgres://ROLE:PASSWORD@...` with the hosts, ports and TLS of `server`, quoted for a shell.
pub(super) fn shown(server: &ServerSettings, role: &str, database: &str) -> String {
    let params = &server.params;
    let ports = params.get_ports();
    let port = |index: usize| ports.get(index).or_else(|| ports.first());
    let (mut hosts, mut query) = (Vec::new(), Vec::new());
    for (index, host) in params.get_hosts().iter().enumerate() {
        match host {
            Host::Tcp(name) if name.contains(':') => {
                hosts.push(with_port(&format!("[{name}]"), port(index)))
            }
            Host::Tcp(name) => hosts.push(with_port(&encoded(name), port(index))),
            Host::Unix(folder) => {
                query.push(format!("host={}", encoded(&folder.display().to_string())));
                query.extend(port(index).map(|port| format!("port={port}")));
            }
        }
    }
    if params.get_hosts().is_empty() {
        let addresses = params.get_hostaddrs().iter().enumerate();
        hosts.extend(addresses.map(|(index, address)| {
            let address = address.to_string();
            let bracketed = if address.contains(':') { format!("[{address}]") } else { address };
            with_port(&bracketed, port(index))
        }));
    }
    query.extend(mode(server.tls.mode).map(|mode| format!("sslmode={mode}")));
    query
        .extend(server.tls.root_cert.as_ref().map(|file| format!("sslrootcert={}", encoded(file))));
    if server.attrs == SessionAttrs::ReadWrite {
        query.push("target_session_attrs=read-write".to_owned());
    }
    let mark = if query.is_empty() { "" } else { "?" };
    let url = format!(
        "postgres://{}:PASSWORD@{}/{}{mark}{}",
        encoded(role),
        hosts.join(","),
        encoded(database),
        query.join("&")
    );
    if query.is_empty() { url } else { format!("'{url}'") }
}

/// What [`shown`] would be for the server, role and database of a connection string.
pub(super) fn of_variable(url: &str) -> Option<String> {
    let server = config::server(url).ok()?;
    let user = dial::user(&server).ok()?;
    let database = server.params.get_dbname().unwrap_or(&user).to_owned();
    Some(shown(&server, &user, &database))
}

/// Whether the URL leads to a pooler of a service, which carries no replication.
pub(super) fn is_pooler(server: &ServerSettings) -> bool {
    let by_name = |host: &Host| match host {
        Host::Tcp(name) => name.contains("-pooler.") || name.ends_with(".pooler.supabase.com"),
        Host::Unix(_) => false,
    };
    server.params.get_hosts().iter().any(by_name) || server.params.get_ports().contains(&6543)
}

fn with_port(host: &str, port: Option<&u16>) -> String {
    port.map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// The word for a mode that is not the default.
fn mode(mode: TlsMode) -> Option<&'static str> {
    match mode {
        TlsMode::Prefer => None,
        TlsMode::Disable => Some("disable"),
        TlsMode::Allow => Some("allow"),
        TlsMode::Require => Some("require"),
        TlsMode::VerifyCa => Some("verify-ca"),
        TlsMode::VerifyFull => Some("verify-full"),
    }
}

fn encoded(text: &str) -> Cow<'_, str> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    if text.bytes().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let shown = |b: u8| if is_plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") };
    Cow::Owned(text.bytes().map(shown).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn hosts_ports_and_tls_are_those_of_the_url_that_was_given() {
        for (url, expected) in [
            ("postgres://ann:s3cret@db:6432/app", "postgres://walhook:PASSWORD@db:6432/app"),
            ("postgres://ann@db/app", "postgres://walhook:PASSWORD@db/app"),
            ("postgres://ann@a:1,b:2/app", "postgres://walhook:PASSWORD@a:1,b:2/app"),
            ("postgres://ann@[::1]:7/app", "postgres://walhook:PASSWORD@[::1]:7/app"),
            ("host=db port=7 user=ann dbname=app", "postgres://walhook:PASSWORD@db:7/app"),
            (
                "postgres://ann@db:7/app?sslmode=verify-full&sslrootcert=/etc/a%20b.pem",
                "'postgres://walhook:PASSWORD@db:7/app?sslmode=verify-full&sslrootcert=%2Fetc%2Fa%20b.pem'",
            ),
            (
                "postgres:///app?host=/run/pg&port=7&user=ann",
                "'postgres://walhook:PASSWORD@/app?host=%2Frun%2Fpg&port=7'",
            ),
        ] {
            let server = config::server(url).unwrap();
            assert_eq!(shown(&server, "walhook", "app"), expected, "case: {url}");
        }
        let server = config::server("postgres://ann@db/app").unwrap();
        assert_eq!(shown(&server, "a b", "x/y"), "postgres://a%20b:PASSWORD@db/x%2Fy");
    }
}
