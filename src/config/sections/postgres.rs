//! `[postgres]`: URL, slot, publication and sessions of the database that is tailed.

use std::ops::RangeInclusive;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::config::postgres_url;
use crate::config::secret::Secret;
use crate::config::settings::PostgresSettings;
use crate::config::settings::ServerSettings;
use crate::config::toml_file::toml_field::FieldReader;
use crate::config::toml_file::toml_reader::TomlSection;

/// The environment variable that stands in for `url`.
const URL_VARIABLE: &str = "DATABASE_URL";

/// What others write in keys of their own.
const PARTS_OF_URL: [(&str, &str); 10] = [
    ("host", "url"),
    ("port", "url"),
    ("user", "url"),
    ("username", "url"),
    ("password", "url"),
    ("database", "url"),
    ("dbname", "url"),
    ("dsn", "url"),
    ("slot_name", "slot"),
    ("publication_name", "publication"),
];

const SLOT: &str = "walhook";
const PUBLICATION: &str = "walhook";

/// How soon the server gives the slot of a frozen walhook to another one. Shorter takes over
/// sooner, longer survives worse networks.
const WAL_SENDER_TIMEOUT: Duration = Duration::from_secs(6);
const WAL_SENDER_TIMEOUTS: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(3600);

/// PostgreSQL's NAMEDATALEN - 1: it would cut longer names in silence.
pub(crate) const NAME_BYTES_MAX: usize = 63;

pub(crate) fn read(mut section: TomlSection<'_>) -> Option<PostgresSettings> {
    let server = server(&mut section);
    let slot = section.read("slot", slot_name).unwrap_or_else(|| SLOT.to_owned());
    let publication =
        section.read("publication", publication_name).unwrap_or_else(|| PUBLICATION.to_owned());
    let wal_sender_timeout = section
        .read("wal_sender_timeout", |field| field.duration(&WAL_SENDER_TIMEOUTS))
        .unwrap_or(WAL_SENDER_TIMEOUT);
    let failover = section.read("failover", FieldReader::boolean).unwrap_or_default();
    section.finish_knowing(&PARTS_OF_URL);
    let server = server?;
    Some(PostgresSettings { server, slot, publication, wal_sender_timeout, failover })
}

/// `[state]`: the source's own server unless there is a URL, `None` if that cannot be read; and the
/// keys that seal secrets there.
pub(crate) fn read_state(
    mut section: TomlSection<'_>,
    source: Option<&ServerSettings>,
) -> (Option<ServerSettings>, Vec<Secret<[u8; 32]>>) {
    let given = section.field("url");
    let keys = section.read("key", keys).unwrap_or_default();
    section.finish();
    (state_server(given, source), keys)
}

/// `[backfill]`: a standby to read rows on, if there is one.
pub(crate) fn read_standby(mut section: TomlSection<'_>) -> Option<ServerSettings> {
    let server = section.field("url").and_then(|field| server_of(&field));
    section.finish_knowing(&PARTS_OF_URL);
    server
}

/// One key or a list: the first seals.
fn keys(field: &FieldReader<'_>) -> Option<Vec<Secret<[u8; 32]>>> {
    if !field.is_list() {
        return Some(vec![key(field)?]);
    }
    Some(field.list()?.iter().filter_map(key).collect())
}

fn key(field: &FieldReader<'_>) -> Option<Secret<[u8; 32]>> {
    let text = field.secret()?;
    let bytes = BASE64_STANDARD.decode(text.reveal().trim()).ok();
    match bytes.and_then(|bytes| bytes.try_into().ok()) {
        Some(key) => Some(Secret::new(key)),
        None => field.refuse(
            "is no key: give the base64 of 32 bytes, as `openssl rand -base64 32` makes it",
        ),
    }
}

fn state_server(
    given: Option<FieldReader<'_>>,
    source: Option<&ServerSettings>,
) -> Option<ServerSettings> {
    let Some(field) = given else { return source.cloned() };
    server_of(&field)
}

/// The server of a connection URL. One that lies in a file is looked at again at each login.
fn server_of(field: &FieldReader<'_>) -> Option<ServerSettings> {
    let text = field.secret()?;
    let server = postgres_url::parse(text.reveal().trim(), field.env());
    let server = server.map_err(|message| field.note(message)).ok()?;
    Some(ServerSettings { url_file: field.secret_file(), ..server })
}

fn server(section: &mut TomlSection<'_>) -> Option<ServerSettings> {
    if let Some(field) = section.field("url") {
        return server_of(&field);
    }
    let env = section.notes().env();
    let variable = env(URL_VARIABLE).filter(|text| !text.trim().is_empty());
    let Some(text) = variable else {
        let message = format!("is missing: give it, or set ${URL_VARIABLE}");
        section.note_missing("url", message, &["url"]);
        return None;
    };
    let server = postgres_url::parse(text.trim(), env);
    server.map_err(|message| section.note("url", format!("${URL_VARIABLE} {message}"))).ok()
}

/// PostgreSQL's own rule for replication slots.
fn slot_name(field: &FieldReader<'_>) -> Option<String> {
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

fn publication_name(field: &FieldReader<'_>) -> Option<String> {
    let name = field.string()?;
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.contains('\0') {
        return Some(name);
    }
    field.refuse(format!(
        "{} is not the name of a publication: give 1 to {NAME_BYTES_MAX} bytes",
        field.shown()
    ))
}
