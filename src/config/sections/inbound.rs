//! `[inbound]` and `[[inbound.source]]`: callbacks that come in and become rows.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use http::HeaderName;

use crate::config::identifiers;
use crate::config::secret::Secret;
use crate::config::sections::headers;
use crate::config::sections::process;
use crate::config::sections::run_time_endpoints;
use crate::config::sections::signing;
use crate::config::settings::AddressList;
use crate::config::settings::CallbackKind;
use crate::config::settings::HmacCallbacks;
use crate::config::settings::HmacScheme;
use crate::config::settings::InboundScheme;
use crate::config::settings::InboundSettings;
use crate::config::settings::InboundSource;
use crate::config::settings::SignatureEncoding;
use crate::config::settings::SignedPart;
use crate::config::settings::Signing;
use crate::config::settings::StatusFields;
use crate::config::settings::WecomKeys;
use crate::config::toml_file::toml_field::FieldReader;
use crate::config::toml_file::toml_reader::TomlSection;
use crate::flow::relation::TableName;

/// What receivers of signed webhooks allow.
const TOLERANCE: Duration = Duration::from_secs(300);
const TOLERANCES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);

/// What WeCom's administrator page makes.
const AES_KEY_CHARS: usize = 43;

/// WeCom's `getcallbackip` lists some dozens.
const ADDRESSES_MAX: usize = 256;

/// Beside the callbacks, since both are written by one transaction.
const NONCES: &str = "inbound_nonces";

/// The kinds of sources, and what each stands for.
#[derive(Clone, Copy)]
enum SourceKind {
    Wecom,
    WecomRobot,
    StandardWebhooks,
    Hmac,
    Github,
    Shopify,
    Stripe,
}

const KINDS: [(&str, SourceKind); 7] = [
    ("wecom", SourceKind::Wecom),
    ("wecom-robot", SourceKind::WecomRobot),
    ("standard-webhooks", SourceKind::StandardWebhooks),
    ("hmac", SourceKind::Hmac),
    ("github", SourceKind::Github),
    ("shopify", SourceKind::Shopify),
    ("stripe", SourceKind::Stripe),
];

/// Reads the section; `None` if the file has none, or a bad one.
pub(crate) fn read(root: &mut TomlSection<'_>) -> Option<InboundSettings> {
    let is_there = root.has("inbound");
    let mut section = root.section("inbound");
    let listen = section.read("listen", process::listen);
    if is_there && !section.has("listen") {
        section.note("listen", "is missing: give an address, such as \"0.0.0.0:8080\"");
    }
    let tls = section.field("tls").map(|field| read_tls(&field));
    let allow = section.read("allow", addresses);
    let trusted_proxies = section.read("trusted_proxies", addresses).unwrap_or_default();
    let mut sources: Vec<InboundSource> = Vec::new();
    let written = section.sections("source");
    if is_there && written.is_empty() && !section.has("source") {
        section.note("source", "is missing: name somebody who calls, in [[inbound.source]]");
    }
    let count = written.len();
    for source in written {
        sources.extend(read_source(source, &sources));
    }
    section.finish();
    if !is_there || sources.len() < count {
        return None;
    }
    let tls = match tls {
        Some(tls) => Some(tls?),
        None => None,
    };
    Some(InboundSettings { listen: listen?, tls, allow, trusted_proxies, sources })
}

/// Addresses and blocks of them, as many as a service calls from.
fn addresses(field: &FieldReader<'_>) -> Option<AddressList> {
    run_time_endpoints::blocks(field, ADDRESSES_MAX).map(AddressList::new)
}

/// `{ cert = { file = ... }, key = { file = ... } }`, both PEM.
fn read_tls(field: &FieldReader<'_>) -> Option<(Secret<String>, Secret<String>)> {
    let mut section = field.section()?;
    let cert = section.require("cert", "is missing: { file = \"tls.crt\" }", FieldReader::secret);
    let key = section.require("key", "is missing: { file = \"tls.key\" }", FieldReader::secret);
    section.finish();
    Some((cert?, key?))
}

fn read_source(mut section: TomlSection<'_>, others: &[InboundSource]) -> Option<InboundSource> {
    let name = section.require("name", "is missing: give a name for logs and metrics", source_name);
    if let Some(name) = &name
        && others.iter().any(|other| other.name == *name)
    {
        section.note("name", format!("{name} is another source's, too: give each its own"));
    }
    let path = section.require("path", "is missing: say where it calls", path);
    if let Some(path) = &path
        && let Some(other) = others.iter().find(|other| other.path == *path)
    {
        section.note("path", format!("is that of {}, too: give each its own", other.name));
    }
    let kind = section.require(
        "kind",
        "is missing: one of `wecom`, `wecom-robot`, \
        `standard-webhooks`, `hmac`, `github`, `shopify`, `stripe`",
        |f| f.one_of(&KINDS),
    );
    let tolerance = section.read("tolerance", tolerance).unwrap_or(Some(TOLERANCE));
    let missing = "is missing: name the table that keeps its callbacks, as \
                   sql/wecom-callbacks.sql makes it";
    let table = section.require("table", missing, identifiers::table);
    let nonces = section.read("nonces", identifiers::table);
    let kinds =
        section.field("kinds").map(|field| kind_map(&field)).unwrap_or(Some(BTreeMap::new()));
    let has_status = section.has("status");
    let status = section.read("status", status_fields);
    let scheme = kind.and_then(|kind| read_scheme(&mut section, kind));
    section.finish();
    let table = table?;
    let beside = || TableName::new(table.schema.clone(), NONCES);
    Some(InboundSource {
        name: name?,
        path: path?,
        scheme: scheme?,
        tolerance,
        nonces: nonces.unwrap_or_else(beside),
        table,
        kinds: kinds?,
        status: if has_status { Some(status?) } else { None },
    })
}

fn read_scheme(section: &mut TomlSection<'_>, kind: SourceKind) -> Option<InboundScheme> {
    match kind {
        SourceKind::Wecom | SourceKind::WecomRobot => {
            let is_robot = matches!(kind, SourceKind::WecomRobot);
            let missing = "is missing: copy it from WeCom's administrator page";
            let token = section.require("token", missing, FieldReader::secret);
            let aes_key = section.require("aes_key", missing, aes_key);
            let receive_id = match is_robot {
                true => section.read("receive_id", FieldReader::string).or(Some(String::new())),
                false => {
                    let missing = "is missing: it is the corp id";
                    section.require("receive_id", missing, FieldReader::string)
                }
            };
            Some(InboundScheme::Wecom(WecomKeys {
                token: token?,
                aes_key: aes_key?,
                receive_id: receive_id?,
                is_robot,
            }))
        }
        SourceKind::StandardWebhooks => {
            let missing = "is missing: give the sender's whsec_ secret";
            let secrets = section.require("secret", missing, signing::secrets)?;
            match signing::resolve(&secrets, None) {
                Ok(Some(Signing::Standard { keys })) => {
                    Some(InboundScheme::StandardWebhooks { keys })
                }
                Ok(_) => None,
                Err(message) => {
                    section.note("secret", message);
                    None
                }
            }
        }
        SourceKind::Hmac | SourceKind::Github | SourceKind::Shopify | SourceKind::Stripe => {
            let missing = "is missing: give the secret that the sender signs with";
            let secret = section.require("secret", missing, FieldReader::secret);
            let preset = preset(kind);
            let scheme = match preset.scheme {
                Some(scheme) => Some(scheme),
                None => section
                    .require("signing", "is missing: { header = \"X-Signature\" }", signing::scheme)
                    .flatten(),
            };
            let id_header = section.read("id_header", header).or(preset.id_header);
            let event_header = section.read("event_header", header).or(preset.event_header);
            Some(InboundScheme::Hmac(HmacCallbacks {
                key: Secret::new(secret?.reveal().clone().into_bytes()),
                scheme: scheme?,
                is_composite: preset.is_composite,
                id_header,
                event_header,
            }))
        }
    }
}

/// What a vendor's callbacks look like.
#[derive(Default)]
struct VendorPreset {
    scheme: Option<HmacScheme>,
    is_composite: bool,
    id_header: Option<HeaderName>,
    event_header: Option<HeaderName>,
}

/// From each vendor's documentation: "Validating webhook deliveries" (GitHub), "Verify webhooks"
/// (Shopify), "Verify webhook signatures manually" (Stripe).
fn preset(kind: SourceKind) -> VendorPreset {
    let name = HeaderName::from_static;
    let scheme = |header, prefix: &str, encoding, content| {
        let prefix = prefix.to_owned();
        Some(HmacScheme { header, prefix, encoding, content, timestamp_header: None })
    };
    let (hex, base64) = (SignatureEncoding::Hex, SignatureEncoding::Base64);
    let body = || vec![SignedPart::Body];
    match kind {
        SourceKind::Github => VendorPreset {
            scheme: scheme(name("x-hub-signature-256"), "sha256=", hex, body()),
            is_composite: false,
            id_header: Some(name("x-github-delivery")),
            event_header: Some(name("x-github-event")),
        },
        SourceKind::Shopify => VendorPreset {
            scheme: scheme(name("x-shopify-hmac-sha256"), "", base64, body()),
            is_composite: false,
            id_header: Some(name("x-shopify-webhook-id")),
            event_header: Some(name("x-shopify-topic")),
        },
        SourceKind::Stripe => {
            let dot = SignedPart::Literal(String::from("."));
            let content = vec![SignedPart::Timestamp, dot, SignedPart::Body];
            VendorPreset {
                scheme: scheme(name("stripe-signature"), "", hex, content),
                is_composite: true,
                ..VendorPreset::default()
            }
        }
        SourceKind::Hmac
        | SourceKind::Wecom
        | SourceKind::WecomRobot
        | SourceKind::StandardWebhooks => VendorPreset::default(),
    }
}

fn header(field: &FieldReader<'_>) -> Option<HeaderName> {
    headers::header_name(field, &field.string()?)
}

fn source_name(field: &FieldReader<'_>) -> Option<String> {
    let text = field.string()?;
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if (1..=64).contains(&text.len()) && text.bytes().all(is_plain) {
        return Some(text);
    }
    field.refuse(format!("{} is no name: use letters, digits, `-`, `_` and `.`", field.shown()))
}

fn path(field: &FieldReader<'_>) -> Option<String> {
    let text = field.string()?;
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~/".contains(&b);
    let own = ["/health", "/api/v1/status"];
    if text.len() > 1
        && text.starts_with('/')
        && !text.ends_with('/')
        && text.bytes().all(is_plain)
        && !own.contains(&text.as_str())
    {
        return Some(text);
    }
    field.refuse(format!(
        "{} is no path: write it like \"/api/v1/webhooks/wechat/api\", without query and variables",
        field.shown()
    ))
}

fn aes_key(field: &FieldReader<'_>) -> Option<Secret<String>> {
    let key = field.secret()?;
    let is_base64 = |b: u8| b.is_ascii_alphanumeric() || b"+/".contains(&b);
    if key.reveal().len() == AES_KEY_CHARS && key.reveal().bytes().all(is_base64) {
        return Some(key);
    }
    field.refuse(format!(
        "is no EncodingAESKey: copy its {AES_KEY_CHARS} letters and digits from WeCom's administrator \
         page"
    ))
}

/// `"5m"`, or `"off"` for those who must.
fn tolerance(field: &FieldReader<'_>) -> Option<Option<Duration>> {
    if field.literal().is_some_and(|text| text.as_deref() == Ok("off")) {
        return Some(None);
    }
    field.duration(&TOLERANCES).map(Some)
}

fn kind_map(field: &FieldReader<'_>) -> Option<BTreeMap<String, CallbackKind>> {
    let entries = field.section()?.entries();
    let read = |(name, field): (&str, FieldReader<'_>)| {
        Some((name.to_owned(), field.one_of(&CallbackKind::ALL)?))
    };
    entries.into_iter().map(read).collect()
}

fn status_fields(field: &FieldReader<'_>) -> Option<StatusFields> {
    let mut section = field.section()?;
    let missing = "is missing: { event = \"my_event\", message = \"fields.MsgID\", state = \
                   \"fields.State\" }";
    let event = section.require("event", missing, FieldReader::string);
    let message = section.require("message", missing, FieldReader::string);
    let state = section.require("state", missing, FieldReader::string);
    section.finish();
    Some(StatusFields { event: event?, message: message?, state: state? })
}

/// The listener's address has to be its own.
pub(crate) fn check(root: &TomlSection<'_>, inbound: &InboundSettings, http: SocketAddr) {
    if inbound.listen == http && http.port() != 0 {
        root.note("inbound", format!("listens on {http}, as [http] does: give it another port"));
    }
}
