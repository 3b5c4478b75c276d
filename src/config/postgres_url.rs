//! PostgreSQL connection strings, both forms that libpq reads: `postgres://...` and `key=value`.
//!
//! What concerns TLS is taken off and kept apart, because `tokio_postgres` does not know libpq's
//! stricter modes; the rest is its to parse. No message here holds any part of the string: a
//! password with an unescaped character ends up in the strangest places.
//!
//! Format: PostgreSQL manual, "Connection Strings" and "Parameter Key Words" of libpq.

use std::time::Duration;

use crate::config::reader::nearest;
use crate::config::settings::Server;
use crate::config::settings::Tls;
use crate::config::settings::TlsMode;

/// For each host, unless the string says otherwise: a wrong address is refused within five seconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);

/// The parameters that `tokio_postgres` and [`Tls`] know; others are refused.
const PARAMETERS: [&str; 22] = [
    "application_name",
    "channel_binding",
    "connect_timeout",
    "dbname",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "load_balance_hosts",
    "options",
    "password",
    "port",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslnegotiation",
    "sslrootcert",
    "target_session_attrs",
    "tcp_user_timeout",
    "user",
];

const TLS_MODES: [(&str, TlsMode); 6] = [
    ("disable", TlsMode::Disable),
    ("allow", TlsMode::Allow),
    ("prefer", TlsMode::Prefer),
    ("require", TlsMode::Require),
    ("verify-ca", TlsMode::VerifyCa),
    ("verify-full", TlsMode::VerifyFull),
];

/// Reads a connection string. The error says what is wrong with it and what to do, as the rest of a
/// sentence whose subject is the string.
///
/// The result names at least one host, a user and a database (libpq's default: the user's name).
pub(super) fn parse(text: &str) -> Result<Server, String> {
    let (tls_pairs, rest) = if is_url(text) {
        split_url(text)?
    } else if text.contains("://") {
        return Err("is not a PostgreSQL URL: it must start with postgres://".to_owned());
    } else {
        split_pairs(text)?
    };
    let tls = tls(&tls_pairs)?;
    let mut params: tokio_postgres::Config = rest.parse().map_err(|error| refusal(&error))?;
    complete(&mut params)?;
    Ok(Server { params, tls })
}

fn is_url(text: &str) -> bool {
    text.starts_with("postgres://") || text.starts_with("postgresql://")
}

/// Fills in what libpq would, and refuses what could never connect.
fn complete(params: &mut tokio_postgres::Config) -> Result<(), String> {
    let hosts = params.get_hosts().len().max(params.get_hostaddrs().len());
    if hosts == 0 {
        return Err("names no host: write postgres://user@host/database".to_owned());
    }
    let ports = params.get_ports().len();
    if ports > 1 && ports != hosts {
        return Err(format!("names {hosts} hosts but {ports} ports: give one port for each host"));
    }
    let Some(user) = params.get_user().filter(|user| !user.is_empty()).map(str::to_owned) else {
        return Err("names no user: write postgres://user@host/database".to_owned());
    };
    if params.get_dbname().is_none_or(str::is_empty) {
        params.dbname(user);
    }
    if params.get_application_name().is_none() {
        params.application_name("walhook");
    }
    if params.get_connect_timeout().is_none() {
        params.connect_timeout(CONNECT_TIMEOUT);
    }
    Ok(())
}

/// What TLS settings the pairs ask for. `sslrootcert=system` means the system's roots, and
/// verification as strict as it can be, as in libpq.
fn tls(pairs: &[(String, String)]) -> Result<Tls, String> {
    // As in libpq, the last of several equal keywords counts.
    let value = |name: &str| {
        let found = pairs.iter().rev().find(|(key, value)| key == name && !value.is_empty());
        found.map(|(_, value)| value.clone())
    };
    let mode = match value("sslmode") {
        None => None,
        Some(text) => {
            let mode = TLS_MODES.iter().find(|(name, _)| *name == text).map(|(_, mode)| *mode);
            let names = "disable, allow, prefer, require, verify-ca or verify-full";
            Some(mode.ok_or_else(|| format!("has an unknown sslmode: give {names}"))?)
        }
    };
    let root_cert = value("sslrootcert");
    let system_roots = root_cert.as_deref() == Some("system");
    if system_roots && mode.is_some_and(|mode| mode != TlsMode::VerifyFull) {
        return Err(
            "has sslrootcert=system with a weak sslmode: give sslmode=verify-full".to_owned()
        );
    }
    let client = match (value("sslcert"), value("sslkey")) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        _ => return Err("has only one of sslcert and sslkey: give both or none".to_owned()),
    };
    let default = if system_roots { TlsMode::VerifyFull } else { TlsMode::default() };
    Ok(Tls {
        mode: mode.unwrap_or(default),
        root_cert: root_cert.filter(|_| !system_roots),
        client,
    })
}

/// The TLS parameters of a string, decoded, and the string without them.
type Split = (Vec<(String, String)>, String);

/// Takes the TLS parameters off a URL's query. Hosts may be a list, so this is no URL that the
/// `url` crate reads; the query starts where `tokio_postgres` takes it to start.
fn split_url(text: &str) -> Result<Split, String> {
    let authority = text.find('@').map_or(0, |at| at + 1);
    let (credentials, rest) = text.split_at(authority);
    let Some((hosts, query)) = rest.split_once('?') else {
        return Ok((Vec::new(), text.to_owned()));
    };
    let mut tls = Vec::new();
    let mut others = Vec::new();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let Some((key, value)) = parameter.split_once('=') else {
            return Err(
                "has a parameter without a value after its \"?\": write name=value".to_owned()
            );
        };
        let key = percent_decoded(key);
        known(&key)?;
        if is_tls(&key) {
            tls.push((key, percent_decoded(value)));
        } else {
            others.push(parameter);
        }
    }
    let mark = if others.is_empty() { "" } else { "?" };
    Ok((tls, format!("{credentials}{hosts}{mark}{}", others.join("&"))))
}

/// Takes the TLS parameters off a `key=value` string: values may be quoted with `'`, and `\`
/// escapes the character after it.
fn split_pairs(text: &str) -> Result<Split, String> {
    let mut tls = Vec::new();
    let mut others = String::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let Some((key, after)) = rest.split_once('=') else {
            return Err("is no connection string: write postgres://user@host/database".to_owned());
        };
        let key = key.trim_end();
        known(key)?;
        let (value, after) = pair_value(after.trim_start())?;
        if is_tls(key) {
            tls.push((key.to_owned(), value));
        } else {
            let escaped = value.replace('\\', r"\\").replace('\'', r"\'");
            others.push_str(&format!("{key}='{escaped}' "));
        }
        rest = after.trim_start();
    }
    Ok((tls, others))
}

/// The value that `text` starts with, and what follows it.
fn pair_value(text: &str) -> Result<(String, &str), String> {
    let quoted = text.strip_prefix('\'');
    let mut value = String::new();
    let mut chars = quoted.unwrap_or(text).chars();
    loop {
        let rest = chars.as_str();
        match chars.next() {
            Some('\\') => value.extend(chars.next()),
            Some('\'') if quoted.is_some() => return Ok((value, chars.as_str())),
            Some(c) if quoted.is_none() && c.is_whitespace() => return Ok((value, rest)),
            Some(c) => value.push(c),
            None if quoted.is_none() => return Ok((value, "")),
            None => return Err("has a quote that is not closed: close it with '".to_owned()),
        }
    }
}

fn is_tls(key: &str) -> bool {
    matches!(key, "sslmode" | "sslrootcert" | "sslcert" | "sslkey")
}

/// Refuses unknown parameters, without naming what stands there: it may be a piece of a password.
fn known(key: &str) -> Result<(), String> {
    if PARAMETERS.contains(&key) {
        return Ok(());
    }
    Err(match nearest(key, PARAMETERS) {
        Some(name) => format!("has an unknown parameter: did you mean {name}?"),
        None => format!("has an unknown parameter: known are {}", PARAMETERS.join(", ")),
    })
}

fn percent_decoded(text: &str) -> String {
    // The form decoder would also turn `+` into a blank, which a file's name may well contain.
    let pair = format!("={}", text.replace('+', "%2B"));
    let decoded = url::form_urlencoded::parse(pair.as_bytes()).next();
    decoded.map_or_else(String::new, |(_, value)| value.into_owned())
}

/// A text for the error of `tokio_postgres`, which may quote pieces of the password.
fn refusal(error: &tokio_postgres::Error) -> String {
    // The parameter's name is safe to show if it is one that we know.
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    let blamed = PARAMETERS.iter().find(|name| cause.ends_with(&format!("`{name}`")));
    match blamed {
        Some(name) => format!("has an invalid {name}: correct it{ESCAPING}"),
        None => {
            format!("cannot be read: write postgres://user:password@host:5432/database{ESCAPING}")
        }
    }
}

const ESCAPING: &str = ", with special characters of the password percent-encoded (@ is %40)";

#[cfg(test)]
mod tests;
