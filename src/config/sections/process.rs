//! `[http]`, `[push_log]`, `[dead_letters]`, `[memory]`, `[metrics]`, `[log]` and `[shutdown]`: the process itself.

use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::secret::Secret;
use crate::config::settings::DeadLetterSettings;
use crate::config::settings::HttpSettings;
use crate::config::settings::LogFormat;
use crate::config::settings::LogSettings;
use crate::config::settings::LoggedAttempts;
use crate::config::settings::LoggedBodies;
use crate::config::settings::LoggedOutcomes;
use crate::config::settings::MemorySettings;
use crate::config::settings::MetricsSettings;
use crate::config::settings::PushLogSettings;
use crate::config::toml_file::toml_field::FieldReader;
use crate::config::toml_file::toml_reader::TomlSection;

const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);

/// Shorter tokens can be guessed over the network.
const TOKEN_BYTES_MIN: usize = 16;

const QUEUED_BYTES: usize = 16 << 20;
/// At least one ordinary row and its rendering must fit beside others.
const QUEUED_SIZES: RangeInclusive<u64> = (1 << 20)..=(64 << 30);

/// Endpoints at once. One that has nothing to do takes some KiB.
const ENDPOINTS: usize = 100_000;
const ENDPOINT_COUNTS: RangeInclusive<usize> = 1..=1_000_000;

/// A server keeps as much at `max_wal_size` by itself.
const HOLD_WAL_BYTES: u64 = 1 << 30;
const HOLD_WAL_SIZES: RangeInclusive<u64> = 0..=(1 << 50);

/// Long enough for lanes that have a processor in common to catch up with one another.
const HOLD_WAL_TIME: Duration = Duration::from_secs(1);
const HOLD_WAL_TIMES: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3600);

/// Eighty series each, which is what a scrape of a second can have.
const ENDPOINT_SERIES: usize = 100;
const ENDPOINT_SERIES_COUNTS: RangeInclusive<usize> = 0..=100_000;

/// Enough to see what was wrong with a request.
const BODY_LIMIT: usize = 16 << 10;
const BODY_LIMITS: RangeInclusive<u64> = 0..=(1 << 20);

const RETENTION_DAYS: u32 = 7;
const RETENTIONS: RangeInclusive<u32> = 1..=3650;

/// A month, in which an operator may ask what became of it.
const CLOSED_DAYS: u32 = 30;

/// Quick for people, and slow for a receiver that has just come back.
const RESEND_RATE: u32 = 100;
const RESEND_RATES: RangeInclusive<u32> = 1..=100_000;

const FILTER: &str = "info";

const GRACE: Duration = Duration::from_secs(10);
const GRACES: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3600);

/// What others call an address to listen on.
const NAMES_OF_LISTEN: [(&str, &str); 5] = [
    ("port", "listen"),
    ("host", "listen"),
    ("address", "listen"),
    ("addr", "listen"),
    ("bind", "listen"),
];

pub(crate) fn read_http(mut section: TomlSection<'_>) -> HttpSettings {
    let token = section.read("token", token);
    let listen = section.read("listen", listen).unwrap_or(LISTEN);
    if !listen.ip().to_canonical().is_loopback() && !section.has("token") {
        let message = format!(
            "{listen} can be reached from other machines: set `token`, or listen on 127.0.0.1"
        );
        section.note("listen", message);
    }
    let hosts = section.read("hosts", hosts).unwrap_or_default();
    section.finish_knowing(&NAMES_OF_LISTEN);
    HttpSettings { listen, hosts, token }
}

fn hosts(field: &FieldReader<'_>) -> Option<Vec<String>> {
    let names = field.list()?;
    let read: Vec<Option<String>> = names.iter().map(host).collect();
    read.into_iter().collect()
}

/// A name, or an address, as it stands in a URL.
fn host(field: &FieldReader<'_>) -> Option<String> {
    let text = field.string()?;
    let name = text.strip_suffix('.').unwrap_or(&text).to_ascii_lowercase();
    let is_name = match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => {
            let letter = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
            !name.is_empty() && name.bytes().all(letter)
        }
    };
    if is_name {
        return Some(name);
    }
    field.refuse(format!(
        "{} is no name of a host: write it without scheme, port and wildcard, such as \
         \"walhook.internal\"",
        field.shown()
    ))
}

pub(crate) fn listen(field: &FieldReader<'_>) -> Option<SocketAddr> {
    let text = field.string()?;
    let address = text.parse().ok();
    address.or_else(|| {
        field.refuse(format!(
            "{} is not an address with a port: write it like \"127.0.0.1:9464\" or \"[::1]:9464\"",
            field.shown()
        ))
    })
}

fn token(field: &FieldReader<'_>) -> Option<Secret<String>> {
    let token = field.secret()?;
    let text = token.reveal();
    if text.len() < TOKEN_BYTES_MIN || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return field.refuse(format!(
            "is no safe token: give at least {TOKEN_BYTES_MIN} visible ASCII characters, \
             such as from `openssl rand -hex 32`"
        ));
    }
    Some(token)
}

pub(crate) fn read_push_log(mut section: TomlSection<'_>) -> PushLogSettings {
    let words = [
        ("all", LoggedBodies::All),
        ("failures", LoggedBodies::Failures),
        ("none", LoggedBodies::None),
    ];
    let kept = [
        ("all", LoggedAttempts::All),
        ("failures", LoggedAttempts::Failures),
        ("off", LoggedAttempts::Off),
    ];
    let attempts = section.read("attempts", |field| field.one_of(&kept));
    let attempts = attempts.unwrap_or(LoggedAttempts::All);
    let bodies = section.read("bodies", |field| field.one_of(&words));
    if bodies == Some(LoggedBodies::All) && attempts != LoggedAttempts::All {
        let message = "wants the bodies of deliveries that succeed, and `attempts` keeps none of them: \
                       leave `attempts` out, or set `bodies` to \"failures\"";
        section.note("bodies", message.to_owned());
    }
    let limit = section.read("body_limit", |field| field.size(&BODY_LIMITS));
    let days = section.read("retention_days", |field| field.integer(&RETENTIONS));
    section.finish();
    PushLogSettings {
        attempts,
        bodies: bodies.unwrap_or(LoggedBodies::Failures),
        body_limit: limit.unwrap_or(BODY_LIMIT),
        retention_days: days.unwrap_or(RETENTION_DAYS),
    }
}

pub(crate) fn read_dead_letters(mut section: TomlSection<'_>) -> DeadLetterSettings {
    let days = section.read("retention_days", |field| field.integer(&RETENTIONS));
    let rate = section.read("resend_rate", |field| field.integer(&RESEND_RATES));
    section.finish();
    DeadLetterSettings {
        retention_days: days.unwrap_or(CLOSED_DAYS),
        resend_rate: rate.unwrap_or(RESEND_RATE),
    }
}

pub(crate) fn read_memory(mut section: TomlSection<'_>) -> MemorySettings {
    let queued = section.read("queued", |field| field.size(&QUEUED_SIZES));
    let endpoints = section.read("endpoints", |field| field.integer(&ENDPOINT_COUNTS));
    let hold_wal = section.read("hold_wal", |field| field.size(&HOLD_WAL_SIZES));
    let hold_wal = hold_wal.and_then(|bytes| u64::try_from(bytes).ok());
    let hold_wal_time = section.read("hold_wal_time", |field| field.duration(&HOLD_WAL_TIMES));
    section.finish();
    MemorySettings {
        queued_bytes: queued.unwrap_or(QUEUED_BYTES),
        endpoints_max: endpoints.unwrap_or(ENDPOINTS),
        hold_wal_bytes: hold_wal.unwrap_or(HOLD_WAL_BYTES),
        hold_wal_time: hold_wal_time.unwrap_or(HOLD_WAL_TIME),
    }
}

pub(crate) fn read_metrics(mut section: TomlSection<'_>) -> MetricsSettings {
    let endpoints = section.read("endpoints", |field| field.integer(&ENDPOINT_SERIES_COUNTS));
    section.finish();
    MetricsSettings { endpoint_series_max: endpoints.unwrap_or(ENDPOINT_SERIES) }
}

pub(crate) fn read_log(mut section: TomlSection<'_>) -> LogSettings {
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let format = section.read("format", |field| field.one_of(&formats));
    let filter = section.read("filter", log_filter);
    let outcomes = [("all", LoggedOutcomes::All), ("failures", LoggedOutcomes::Failures)];
    let outcomes = section.read("outcomes", |field| field.one_of(&outcomes));
    section.finish_knowing(&[("level", "filter")]);
    LogSettings {
        format: format.unwrap_or(LogFormat::Text),
        filter: filter.unwrap_or_else(|| FILTER.to_owned()),
        outcomes: outcomes.unwrap_or(LoggedOutcomes::All),
    }
}

fn log_filter(field: &FieldReader<'_>) -> Option<String> {
    let text = field.string()?;
    let parsed = tracing_subscriber::EnvFilter::builder().parse(&text);
    // The parser takes a lone word that is no level for a module, and so a misspelt level for one.
    let lone_word = |directive: &str| {
        let directive = directive.trim();
        let level = directive.parse::<tracing_subscriber::filter::LevelFilter>();
        level.is_err() && !directive.contains(['=', '[', ':'])
    };
    let misspelt = text.trim().is_empty() || !text.contains('[') && text.split(',').any(lone_word);
    if parsed.is_ok() && !misspelt {
        return Some(text);
    }
    field.refuse(format!(
        "{} is not a filter: give a level (error, warn, info, debug, trace, off), \
         or levels for modules such as \"info,walhook=debug\"",
        field.shown()
    ))
}

pub(crate) fn read_grace(mut section: TomlSection<'_>) -> Duration {
    let grace = section.read("grace", |field| field.duration(&GRACES));
    section.finish();
    grace.unwrap_or(GRACE)
}
