//! `[postgres]`: the database that is tailed.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::field::Field;
use crate::config::postgres_url;
use crate::config::reader::Section;
use crate::config::settings::Postgres;
use crate::config::settings::Server;

/// The environment variable that stands in for `url`.
const URL_VARIABLE: &str = "DATABASE_URL";

const SLOT: &str = "walhook";
const PUBLICATION: &str = "walhook";

/// How soon the server gives the slot of a frozen walhook to another one. Shorter takes over
/// sooner, longer survives worse networks.
const WAL_SENDER_TIMEOUT: Duration = Duration::from_secs(6);
const WAL_SENDER_TIMEOUTS: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(3600);

/// PostgreSQL's NAMEDATALEN - 1: it would cut longer names in silence.
pub(super) const NAME_BYTES_MAX: usize = 63;

pub(super) fn read(mut section: Section<'_>) -> Option<Postgres> {
    let server = server(&mut section);
    let slot = section.read("slot", slot_name).unwrap_or_else(|| SLOT.to_owned());
    let publication =
        section.read("publication", publication_name).unwrap_or_else(|| PUBLICATION.to_owned());
    let wal_sender_timeout = section
        .read("wal_sender_timeout", |field| field.duration(&WAL_SENDER_TIMEOUTS))
        .unwrap_or(WAL_SENDER_TIMEOUT);
    section.finish();
    Some(Postgres { server: server?, slot, publication, wal_sender_timeout })
}

/// `[state]`: the source's own server unless there is a URL. `None` if that cannot be read.
pub(super) fn read_state(mut section: Section<'_>, source: Option<&Server>) -> Option<Server> {
    let given = section.field("url");
    section.finish();
    let Some(field) = given else { return source.cloned() };
    let text = field.secret()?;
    postgres_url::parse(text.reveal().trim()).map_err(|message| field.note(message)).ok()
}

fn server(section: &mut Section<'_>) -> Option<Server> {
    if let Some(field) = section.field("url") {
        let text = field.secret()?;
        let server = postgres_url::parse(text.reveal().trim());
        return server.map_err(|message| field.note(message)).ok();
    }
    let variable = section.notes().env()(URL_VARIABLE).filter(|text| !text.trim().is_empty());
    let Some(text) = variable else {
        section.note("url", format!("is missing: give it, or set ${URL_VARIABLE}"));
        return None;
    };
    let server = postgres_url::parse(text.trim());
    server.map_err(|message| section.note("url", format!("${URL_VARIABLE} {message}"))).ok()
}

/// PostgreSQL's own rule for replication slots.
fn slot_name(field: &Field<'_>) -> Option<String> {
    let name = field.string()?;
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(allowed) {
        return Some(name);
    }
    field.refuse(format!(
        "{} is not the name of a slot: give 1 to {NAME_BYTES_MAX} of a-z, 0-9 and _",
        field.shown()
    ))
}

fn publication_name(field: &Field<'_>) -> Option<String> {
    let name = field.string()?;
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.contains('\0') {
        return Some(name);
    }
    field.refuse(format!(
        "{} is not the name of a publication: give 1 to {NAME_BYTES_MAX} bytes",
        field.shown()
    ))
}
