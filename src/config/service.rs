//! `[http]`, `[memory]`, `[log]` and `[shutdown]`: the process itself.

use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::field::Field;
use crate::config::reader::Section;
use crate::config::secret::Secret;
use crate::config::settings::Http;
use crate::config::settings::Log;
use crate::config::settings::LogFormat;
use crate::config::settings::Memory;

const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);

/// Shorter tokens can be guessed over the network.
const TOKEN_BYTES_MIN: usize = 16;

const QUEUED_BYTES: usize = 16 << 20;
/// At least one ordinary row and its rendering must fit beside others.
const QUEUED_SIZES: RangeInclusive<u64> = (1 << 20)..=(64 << 30);

const FILTER: &str = "info";

const GRACE: Duration = Duration::from_secs(10);
const GRACES: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3600);

pub(super) fn read_http(mut section: Section<'_>) -> Http {
    let token = section.read("token", token);
    let listen = section.read("listen", listen).unwrap_or(LISTEN);
    if !listen.ip().to_canonical().is_loopback() && !section.has("token") {
        let message = format!(
            "{listen} can be reached from other machines: set `token`, or listen on 127.0.0.1"
        );
        section.note("listen", message);
    }
    section.finish();
    Http { listen, token }
}

fn listen(field: &Field<'_>) -> Option<SocketAddr> {
    let text = field.string()?;
    let address = text.parse().ok();
    address.or_else(|| {
        field.refuse(format!(
            "{} is not an address with a port: write it like \"127.0.0.1:9464\" or \"[::1]:9464\"",
            field.shown()
        ))
    })
}

fn token(field: &Field<'_>) -> Option<Secret<String>> {
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

pub(super) fn read_memory(mut section: Section<'_>) -> Memory {
    let queued = section.read("queued", |field| field.size(&QUEUED_SIZES));
    section.finish();
    Memory { queued_bytes: queued.unwrap_or(QUEUED_BYTES) }
}

pub(super) fn read_log(mut section: Section<'_>) -> Log {
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let format = section.read("format", |field| field.one_of(&formats));
    let filter = section.read("filter", log_filter);
    section.finish_knowing(&[("level", "filter")]);
    Log {
        format: format.unwrap_or(LogFormat::Text),
        filter: filter.unwrap_or_else(|| FILTER.to_owned()),
    }
}

fn log_filter(field: &Field<'_>) -> Option<String> {
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

pub(super) fn read_grace(mut section: Section<'_>) -> Duration {
    let grace = section.read("grace", |field| field.duration(&GRACES));
    section.finish();
    grace.unwrap_or(GRACE)
}
