//! `tls`, `proxy` and `http2` of an `[[endpoint]]`: how it is reached.
//!
//! There is no key that turns verification off: a receiver with a certificate of its own is trusted
//! by naming it, or the authority that signed it, in `tls.ca`.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::CertifiedKey;
use url::Url;

use crate::config::secret::Secret;
use crate::config::toml_file::toml_field::FieldReader;
use crate::config::toml_file::toml_reader::TomlSection;

/// A host name that moves is followed after this at the latest.
const MAX_AGE: Duration = Duration::from_secs(300);
pub(crate) const MAX_AGES: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(86_400);

/// How every PEM text begins.
const PEM_START: &str = "-----BEGIN ";

/// The way to an endpoint.
#[derive(Clone, Debug)]
pub struct ConnectionLink {
    /// The only authorities that its certificate may come from; `None` means the system's.
    pub ca: Option<TrustedAuthorities>,
    /// What walhook shows when it is asked for a certificate.
    pub client: Option<Arc<CertifiedKey>>,
    /// An `http://` URL of host and port, with the credentials in it.
    pub proxy: Option<Secret<Url>>,
    /// Over TLS HTTP/2 is offered, beside HTTP/1.1; without TLS it is spoken.
    pub http2: bool,
    /// No connection is used for longer.
    pub max_age: Duration,
}

impl Default for ConnectionLink {
    fn default() -> Self {
        Self { ca: None, client: None, proxy: None, http2: false, max_age: MAX_AGE }
    }
}

/// The certificates that `tls.ca` names.
#[derive(Clone, Debug)]
pub struct TrustedAuthorities {
    /// As those that may have signed the endpoint's.
    pub roots: Arc<RootCertStore>,
    /// As they are: the endpoint's own may be one of them.
    pub certificates: Arc<[CertificateDer<'static>]>,
}

impl PartialEq for ConnectionLink {
    fn eq(&self, other: &Self) -> bool {
        let roots = |link: &Self| link.ca.as_ref().map(|ca| Arc::clone(&ca.certificates));
        // A certificate belongs to one key.
        let shown = |link: &Self| link.client.as_ref().map(|client| client.cert.clone());
        (roots(self), shown(self)) == (roots(other), shown(other))
            && (&self.proxy, self.http2) == (&other.proxy, other.http2)
            && self.max_age == other.max_age
    }
}

/// Reads the three keys; `url` is the endpoint's, if it is sound.
pub(crate) fn read(
    section: &mut TomlSection<'_>,
    url: Option<&Url>,
    max_age: Duration,
) -> ConnectionLink {
    let plain = url.is_some_and(|url| url.scheme() == "http");
    let (ca, client) = section.read("tls", tls).unwrap_or_default();
    if plain && section.has("tls") {
        section.note("tls", "has no use for an http:// address: write https://, or remove it");
    }
    let proxy = section.read("proxy", proxy);
    let http2 = section.read("http2", FieldReader::boolean).unwrap_or_default();
    if plain && http2 && proxy.is_some() {
        section
            .note("http2", "cannot go through a proxy without TLS: write https://, or remove it");
    }
    ConnectionLink { ca, client, proxy, http2, max_age }
}

type TlsParts = (Option<TrustedAuthorities>, Option<Arc<CertifiedKey>>);

/// `{ ca, client_cert, client_key }`.
pub(crate) fn tls(field: &FieldReader<'_>) -> Option<TlsParts> {
    let mut section = field.section()?;
    let ca = section.read("ca", authorities);
    let cert = section.read("client_cert", certificates);
    let key = section.read("client_key", private_key);
    let mut client = None;
    match (cert, key) {
        (Some(chain), Some(key)) => client = identity(&section, chain, key),
        _ if section.has("client_cert") && !section.has("client_key") => {
            section.note("client_cert", "has no use without its key: give `client_key`");
        }
        _ if section.has("client_key") && !section.has("client_cert") => {
            section.note("client_key", "has no use without its certificate: give `client_cert`");
        }
        _ => {}
    }
    section.finish();
    Some((ca, client))
}

fn identity(
    section: &TomlSection<'_>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Option<Arc<CertifiedKey>> {
    let provider = rustls::crypto::ring::default_provider();
    match CertifiedKey::from_der(chain, key, &provider) {
        Ok(identity) => Some(Arc::new(identity)),
        Err(rustls::Error::InconsistentKeys(_)) => {
            section.note(
                "client_key",
                "does not belong to `client_cert`: give the key it was made with",
            );
            None
        }
        Err(_) => {
            section.note(
                "client_key",
                "is of a kind that TLS cannot use: give an RSA, ECDSA or Ed25519 key",
            );
            None
        }
    }
}

/// The PEM text itself, the path of a file with it, `{ env = "NAME" }` or `{ file = "path" }`.
fn pem(field: &FieldReader<'_>) -> Option<Secret<String>> {
    if field.is_string() && !field.fixed_string()?.contains(PEM_START) {
        return field.text_of_file().map(Secret::new);
    }
    field.secret()
}

fn certificates(field: &FieldReader<'_>) -> Option<Vec<CertificateDer<'static>>> {
    let text = pem(field)?;
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(text.reveal().as_bytes()).collect();
    let found = found.ok().filter(|found| !found.is_empty());
    found.or_else(|| field.refuse("holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)"))
}

fn authorities(field: &FieldReader<'_>) -> Option<TrustedAuthorities> {
    let certificates = certificates(field)?;
    let mut roots = RootCertStore::empty();
    for certificate in &certificates {
        if roots.add(certificate.clone()).is_err() {
            return field.refuse("holds a certificate that cannot be read: give X.509 version 3");
        }
    }
    Some(TrustedAuthorities { roots: Arc::new(roots), certificates: Arc::from(certificates) })
}

fn private_key(field: &FieldReader<'_>) -> Option<PrivateKeyDer<'static>> {
    let text = pem(field)?;
    let key = PrivateKeyDer::from_pem_slice(text.reveal().as_bytes()).ok();
    key.or_else(|| {
        field.refuse(
            "holds no private key in PEM form, or an encrypted one: give it without a password",
        )
    })
}

/// `http://user:password@host:port`, user and password as needed.
fn proxy(field: &FieldReader<'_>) -> Option<Secret<Url>> {
    let text = field.fixed_secret()?;
    let shape = "write it like \"http://proxy.example.com:3128\"";
    let Ok(url) = Url::parse(text.reveal().trim()) else {
        return field.refuse(format!("is not a URL: {shape}"));
    };
    if url.scheme() != "http" || !url.has_host() {
        return field.refuse(format!("is not the http:// address of a proxy: {shape}"));
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return field.refuse(format!("has a path, which a proxy does not have: {shape}"));
    }
    Some(Secret::new(url))
}

#[cfg(test)]
mod tests {
    use rcgen::generate_simple_self_signed;

    use crate::config;
    use crate::config::configuration::Settings;

    fn read(tls: &str) -> Result<Settings, String> {
        let text = format!(
            "postgres.url = 'postgres://a@b/c'\n\
             [[endpoint]]\nname = 'a'\nurl = 'https://h/'\ntls = {{ {tls} }}"
        );
        config::parse(&text, "walhook.toml", &|_| None).map_err(|problems| problems.to_string())
    }

    #[test]
    fn a_certificate_is_taken_as_text_or_file_and_with_its_own_key_only() {
        let [ours, other] = ["ours", "other"]
            .map(|name| generate_simple_self_signed(vec![name.to_owned()]).unwrap());
        let (cert, key) = (ours.cert.pem(), ours.signing_key.serialize_pem());
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &cert).unwrap();
        let path = file.path().display();
        for given in
            [format!("'''{cert}'''"), format!("'{path}'"), format!("{{ file = '{path}' }}")]
        {
            let tls = format!("ca = {given}, client_cert = {given}, client_key = '''{key}'''");
            let settings = read(&tls).unwrap();
            let link = &settings.endpoints.first().unwrap().link;
            assert_eq!(link.ca.as_ref().map(|ca| ca.roots.len()), Some(1), "case: {given}");
            assert_eq!(link.client.as_ref().map(|identity| identity.cert.len()), Some(1));
        }
        let key = other.signing_key.serialize_pem();
        let told = read(&format!("client_cert = '{path}', client_key = '''{key}'''")).unwrap_err();
        assert!(
            told.contains("endpoint.tls.client_key: does not belong to `client_cert`"),
            "{told}"
        );
        assert!(!told.contains("PRIVATE"), "{told}");
    }
}
