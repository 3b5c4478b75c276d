//! `[relay]`: NATS JetStream between `run --role tail` and `run --role deliver`.

use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::time::Duration;

use url::Url;

use crate::config::secret::Secret;
use crate::config::sections::endpoint_connection;
use crate::config::sections::endpoint_connection::ConnectionLink;
use crate::config::settings::RelaySettings;
use crate::config::toml_file::toml_field::FieldReader;
use crate::config::toml_file::toml_reader::TomlSection;

/// Enough for four workers to share evenly, and few enough streams for any broker.
const PARTITIONS: u16 = 8;
const PARTITION_COUNTS: RangeInclusive<u16> = 1..=256;

/// One server may fail and a majority is left.
const REPLICAS: usize = 3;
const REPLICA_COUNTS: RangeInclusive<usize> = 1..=5;

/// A minute of a thousand large events a second.
const STREAM_BYTES: i64 = 256 << 20;
const STREAM_SIZES: RangeInclusive<u64> = (4 << 20)..=(1 << 40);

/// Longer than a worker takes to start again, shorter than WAL is dear.
const PATIENCE: Duration = Duration::from_secs(30);
const PATIENCES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

const SHAPE: &str = "write it like \"nats://broker.example.com:4222\"";

/// What others call the same things.
const OTHER_NAMES: [(&str, &str); 8] = [
    ("urls", "url"),
    ("servers", "url"),
    ("creds", "credentials"),
    ("token", "url"),
    ("user", "url"),
    ("password", "url"),
    ("max_bytes", "stream_size"),
    ("shards", "partitions"),
];

/// Reads the section, if there is one. The outer `None`: it is there, and cannot be read.
pub(crate) fn read(root: &mut TomlSection<'_>) -> Option<Option<RelaySettings>> {
    let is_there = root.has("relay");
    let mut section = root.section("relay");
    let missing = format!("is missing: say where NATS is, and {SHAPE}");
    let servers = match is_there {
        true => section.require("url", &missing, servers),
        false => section.read("url", servers),
    };
    let credentials = section.read("credentials", credentials);
    let needs_tls = section.has("tls");
    let (ca, client) = section.read("tls", endpoint_connection::tls).unwrap_or_default();
    let partitions = section.read("partitions", |field| field.integer(&PARTITION_COUNTS));
    let replicas = section.read("replicas", |field| field.integer(&REPLICA_COUNTS));
    let stream = section.read("stream_size", |field| field.size(&STREAM_SIZES));
    let patience = section.read("patience", |field| field.duration(&PATIENCES));
    section.finish_knowing(&OTHER_NAMES);
    if !is_there {
        return Some(None);
    }
    let partitions = partitions.unwrap_or(PARTITIONS);
    Some(Some(RelaySettings {
        servers: servers?,
        credentials,
        link: ConnectionLink { ca, client, ..ConnectionLink::default() },
        needs_tls,
        partitions: NonZeroU16::new(partitions).unwrap_or(NonZeroU16::MIN),
        replicas: replicas.unwrap_or(REPLICAS),
        stream_bytes: stream.and_then(|bytes| i64::try_from(bytes).ok()).unwrap_or(STREAM_BYTES),
        patience: patience.unwrap_or(PATIENCE),
    }))
}

/// One URL, or those of several servers of a cluster.
fn servers(field: &FieldReader<'_>) -> Option<Vec<Secret<Url>>> {
    if !field.is_list() {
        return Some(vec![server(field)?]);
    }
    let listed = field.list()?;
    if listed.is_empty() {
        return field.refuse(format!("is empty: name a server, and {SHAPE}"));
    }
    listed.iter().map(server).collect()
}

fn server(field: &FieldReader<'_>) -> Option<Secret<Url>> {
    let text = field.fixed_secret()?;
    let Ok(url) = Url::parse(text.reveal().trim()) else {
        return field.refuse(format!("is not a URL: {SHAPE}"));
    };
    if !matches!(url.scheme(), "nats" | "tls") || !url.has_host() {
        return field.refuse(format!("is not the nats:// or tls:// address of a broker: {SHAPE}"));
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return field.refuse(format!("has a path, which a broker does not have: {SHAPE}"));
    }
    Some(Secret::new(url))
}

/// The path of a `.creds` file, or the text as a secret.
fn credentials(field: &FieldReader<'_>) -> Option<Secret<String>> {
    let text = match field.is_string() {
        true => Secret::new(field.text_of_file()?),
        false => field.secret()?,
    };
    if text.reveal().contains("-----BEGIN NATS USER JWT-----") {
        return Some(text);
    }
    field.refuse("holds no credentials of NATS: give the file that `nsc generate creds` writes")
}
