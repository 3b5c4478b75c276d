//! PostgreSQL connection strings, both forms that libpq reads: `postgres://...` and `key=value`.
//!
//! ```text
//! text ─▶ [pairs] ─ names and values ─▶ [sources] ─ what is left open ─▶ [words] ─▶ Server
//! ```
//!
//! What concerns TLS is kept apart, because `tokio_postgres` does not know libpq's stricter modes;
//! units and words are libpq's. No message here holds any part of a password: one with an unescaped
//! character ends up in the strangest places.
//!
//! Format: PostgreSQL manual, "Connection Strings" and "Parameter Key Words" of libpq.

mod pairs;
mod sources;
mod words;

use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::config::ChannelBinding;
use tokio_postgres::config::LoadBalanceHosts;
use tokio_postgres::config::SslNegotiation;

use crate::config::postgres_url::pairs::Pairs;
use crate::config::postgres_url::sources::given;
use crate::config::settings::ServerSettings;
use crate::config::settings::SessionAttrs;
use crate::config::settings::TlsMode;
use crate::config::settings::TlsSettings;

/// For each host, unless the string says otherwise: a wrong address is refused within five seconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);

/// What `connect_timeout=0`, which is "no limit", comes to: the system gives up at about that time.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(130);

/// A peer that is gone without a word is noticed in 25 seconds; the system's own default is 2 hours.
const KEEPALIVES_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVES_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVES_COUNT: u32 = 3;
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(20);

const TLS_MODES: [(&str, TlsMode); 6] = [
    ("disable", TlsMode::Disable),
    ("allow", TlsMode::Allow),
    ("prefer", TlsMode::Prefer),
    ("require", TlsMode::Require),
    ("verify-ca", TlsMode::VerifyCa),
    ("verify-full", TlsMode::VerifyFull),
];

const SESSION_ATTRS: [(&str, SessionAttrs); 6] = [
    ("any", SessionAttrs::Any),
    ("read-write", SessionAttrs::ReadWrite),
    ("read-only", SessionAttrs::ReadOnly),
    ("primary", SessionAttrs::Primary),
    ("standby", SessionAttrs::Standby),
    ("prefer-standby", SessionAttrs::PreferStandby),
];

const CHANNEL_BINDINGS: [(&str, ChannelBinding); 3] = [
    ("disable", ChannelBinding::Disable),
    ("prefer", ChannelBinding::Prefer),
    ("require", ChannelBinding::Require),
];

const NEGOTIATIONS: [(&str, SslNegotiation); 2] =
    [("postgres", SslNegotiation::Postgres), ("direct", SslNegotiation::Direct)];

const BALANCES: [(&str, LoadBalanceHosts); 2] =
    [("disable", LoadBalanceHosts::Disable), ("random", LoadBalanceHosts::Random)];

/// Reads a connection string; `env` looks up environment variables, which fill in what it leaves
/// open. The error says what is wrong with it and what to do, as the rest of a sentence whose subject
/// is the string.
///
/// The result names at least one host, a user and a database (libpq's default: the user's name).
pub(super) fn parse(
    text: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<ServerSettings, String> {
    let mut pairs = pairs::read(text)?;
    sources::complete(&mut pairs, env)?;
    words::refuse_others(&pairs)?;
    let mut params = tokio_postgres::Config::new();
    place(&pairs, &mut params)?;
    session(&pairs, &mut params)?;
    sockets(&pairs, &mut params)?;
    let password_file = given(&pairs, "passfile").map(PathBuf::from);
    Ok(ServerSettings {
        params,
        tls: tls(&pairs)?,
        attrs: one_of(&pairs, "target_session_attrs", &SESSION_ATTRS)?.unwrap_or_default(),
        url_file: None,
        password_file,
    })
}

/// Hosts, ports, user, database.
fn place(pairs: &Pairs, params: &mut tokio_postgres::Config) -> Result<(), String> {
    let list = |name| given(pairs, name).unwrap_or_default();
    let (hosts, addresses, ports) = (list("host"), list("hostaddr"), list("port"));
    let count = |list: &str| if list.is_empty() { 0 } else { list.split(',').count() };
    let (named, addressed, ported) = (count(&hosts), count(&addresses), count(&ports));
    let places = named.max(addressed);
    if places == 0 || hosts.split(',').any(|host| host.is_empty()) && addressed == 0 {
        return Err("names no host: write postgres://user@host/database, a socket's folder as \
                    postgres:///database?host=/run/postgresql, or set $PGHOST"
            .to_owned());
    }
    if addressed > 0 && named > 0 && addressed != named {
        return Err(format!(
            "names {named} hosts but {addressed} addresses (hostaddr): give one for each host"
        ));
    }
    if ported > 1 && ported != places {
        return Err(format!("names {places} hosts but {ported} ports: give one for each host"));
    }
    if named > 0 {
        for host in hosts.split(',') {
            params.host(host);
        }
    }
    for address in addresses.split(',').filter(|address| !address.is_empty()) {
        let invalid = |_| "has an invalid hostaddr: give addresses, such as 10.0.0.5".to_owned();
        params.hostaddr(address.trim().parse().map_err(invalid)?);
    }
    for port in ports.split(',').filter(|_| ported > 0) {
        if !words::is_port(port) {
            return Err("has an invalid port: give numbers from 1 to 65535".to_owned());
        }
        params.port(port.trim().parse().unwrap_or(5432));
    }
    let Some(user) = given(pairs, "user") else {
        return Err("names no user: write postgres://user@host/database, or set $PGUSER".to_owned());
    };
    // libpq's default.
    params.dbname(given(pairs, "dbname").unwrap_or_else(|| user.clone()));
    params.user(user);
    if let Some(password) = given(pairs, "password") {
        params.password(password);
    }
    if let Some(balance) = one_of(pairs, "load_balance_hosts", &BALANCES)? {
        params.load_balance_hosts(balance);
    }
    Ok(())
}

/// What is asked of the server.
fn session(pairs: &Pairs, params: &mut tokio_postgres::Config) -> Result<(), String> {
    let name = given(pairs, "application_name").or(given(pairs, "fallback_application_name"));
    params.application_name(name.unwrap_or_else(|| "walhook".to_owned()));
    if let Some(options) = given(pairs, "options") {
        params.options(options);
    }
    if let Some(negotiation) = one_of(pairs, "sslnegotiation", &NEGOTIATIONS)? {
        // libpq's rule: a server that does not know it would be talked to in plain text.
        let mode = one_of(pairs, "sslmode", &TLS_MODES)?.unwrap_or_default();
        let is_weak = matches!(mode, TlsMode::Disable | TlsMode::Allow | TlsMode::Prefer);
        let verified = given(pairs, "sslrootcert").as_deref() == Some("system");
        if negotiation == SslNegotiation::Direct && is_weak && !verified {
            return Err("has sslnegotiation=direct with a weak sslmode: give sslmode=require, \
                        verify-ca or verify-full"
                .to_owned());
        }
        params.ssl_negotiation(negotiation);
    }
    if let Some(binding) = one_of(pairs, "channel_binding", &CHANNEL_BINDINGS)? {
        params.channel_binding(binding);
    }
    let encoding = given(pairs, "client_encoding").unwrap_or_default().to_ascii_lowercase();
    if !["", "auto", "utf8", "utf-8", "unicode"].contains(&encoding.as_str()) {
        return Err("has a client_encoding that is not UTF8: remove it, the server converts".into());
    }
    Ok(())
}

/// Time limits: `connect_timeout` and `keepalives_*` in seconds, `tcp_user_timeout` in milliseconds.
fn sockets(pairs: &Pairs, params: &mut tokio_postgres::Config) -> Result<(), String> {
    let seconds = |name| Ok::<_, String>(whole(pairs, name)?.map(Duration::from_secs));
    params.connect_timeout(match seconds("connect_timeout")? {
        None => CONNECT_TIMEOUT,
        Some(Duration::ZERO) => CONNECT_TIMEOUT_MAX,
        Some(limit) => limit.min(CONNECT_TIMEOUT_MAX),
    });
    params.keepalives(whole(pairs, "keepalives")?.is_none_or(|on| on != 0));
    // 0 asks for the system's own.
    match seconds("keepalives_idle")? {
        Some(Duration::ZERO) => {}
        idle => {
            params.keepalives_idle(idle.unwrap_or(KEEPALIVES_IDLE));
        }
    }
    match seconds("keepalives_interval")? {
        Some(Duration::ZERO) => {}
        interval => {
            params.keepalives_interval(interval.unwrap_or(KEEPALIVES_INTERVAL));
        }
    }
    let count = match whole(pairs, "keepalives_count")? {
        None => whole(pairs, "keepalives_retries")?,
        count => count,
    };
    match count.map(|count| u32::try_from(count).unwrap_or(u32::MAX)) {
        Some(0) => {}
        count => {
            params.keepalives_retries(count.unwrap_or(KEEPALIVES_COUNT));
        }
    }
    match whole(pairs, "tcp_user_timeout")?.map(Duration::from_millis) {
        Some(Duration::ZERO) => {}
        limit => {
            params.tcp_user_timeout(limit.unwrap_or(TCP_USER_TIMEOUT));
        }
    }
    Ok(())
}

/// What TLS settings the pairs ask for. `sslrootcert=system` means the system's roots, and
/// verification as strict as it can be, as in libpq.
fn tls(pairs: &Pairs) -> Result<TlsSettings, String> {
    let mode = one_of(pairs, "sslmode", &TLS_MODES)?;
    let root_cert = given(pairs, "sslrootcert");
    let system_roots = root_cert.as_deref() == Some("system");
    if system_roots && mode.is_some_and(|mode| mode != TlsMode::VerifyFull) {
        return Err(
            "has sslrootcert=system with a weak sslmode: give sslmode=verify-full".to_owned()
        );
    }
    if given(pairs, "sslsni").is_some_and(|sni| sni != "1") {
        return Err("has sslsni=0, which does not hold here: the host's name is sent".to_owned());
    }
    let client = match (given(pairs, "sslcert"), given(pairs, "sslkey")) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        _ => return Err("has only one of sslcert and sslkey: give both or none".to_owned()),
    };
    let default = if system_roots { TlsMode::VerifyFull } else { TlsMode::default() };
    Ok(TlsSettings {
        mode: mode.unwrap_or(default),
        root_cert: root_cert.filter(|_| !system_roots),
        client,
    })
}

/// One of libpq's words; none if it is not given.
fn one_of<T: Copy>(pairs: &Pairs, name: &str, words: &[(&str, T)]) -> Result<Option<T>, String> {
    let Some(text) = given(pairs, name) else { return Ok(None) };
    if let Some((_, word)) = words.iter().find(|(word, _)| *word == text) {
        return Ok(Some(*word));
    }
    let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let (last, others) = names.split_last().ok_or_else(|| format!("has an unknown {name}"))?;
    Err(format!("has an unknown {name}: give {} or {last}", others.join(", ")))
}

/// A whole number; a negative one counts as 0, as in libpq.
fn whole(pairs: &Pairs, name: &str) -> Result<Option<u64>, String> {
    let Some(text) = given(pairs, name) else { return Ok(None) };
    let unit = match name {
        "tcp_user_timeout" => " of milliseconds",
        "connect_timeout" | "keepalives_idle" | "keepalives_interval" => " of seconds",
        _ => "",
    };
    let number = text.trim().parse::<i64>();
    let number = number.map_err(|_| format!("has an invalid {name}: give a whole number{unit}"))?;
    Ok(Some(u64::try_from(number).unwrap_or_default()))
}

#[cfg(test)]
mod tests;
