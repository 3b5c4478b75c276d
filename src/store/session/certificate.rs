//! What is asked of a server's certificate that is trusted by itself: its time and its name.

use std::time::Duration;

use rustls::CertificateError;
use rustls::Error;
use rustls::client::verify_server_name;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::UnixTime;
use rustls::server::ParsedCertificate;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::asn1::ObjectIdentifier;

/// `id-at-commonName` (RFC 4519) and `id-ce-subjectAltName` (RFC 5280).
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const SUBJECT_ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");

/// # Errors
/// It is not valid yet, or no more, or cannot be read.
pub(crate) fn check_validity(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let validity = parsed(certificate)?.tbs_certificate.validity;
    let now = Duration::from_secs(now.as_secs());
    let problem = if now < validity.not_before.to_unix_duration() {
        CertificateError::NotValidYet
    } else if now > validity.not_after.to_unix_duration() {
        CertificateError::Expired
    } else {
        return Ok(());
    };
    Err(Error::InvalidCertificate(problem))
}

/// Without other names the common one counts, as it does for OpenSSL and libpq: `openssl req -x509
/// -subj /CN=...` makes such certificates.
///
/// # Errors
/// It does not bear the name.
pub(crate) fn check_name(
    certificate: &CertificateDer<'_>,
    name: &ServerName<'_>,
) -> Result<(), Error> {
    let parsed = parsed(certificate)?.tbs_certificate;
    let mut extensions = parsed.extensions.iter().flatten();
    if extensions.any(|extension| extension.extn_id == SUBJECT_ALT_NAME) {
        return verify_server_name(&ParsedCertificate::try_from(certificate)?, name);
    }
    let mut attributes = parsed.subject.0.iter().flat_map(|names| names.0.iter());
    let bears_it = attributes.any(|attribute| {
        attribute.oid == COMMON_NAME
            && attribute.value.value().eq_ignore_ascii_case(name.to_str().as_bytes())
    });
    match bears_it {
        true => Ok(()),
        false => Err(Error::InvalidCertificate(CertificateError::NotValidForName)),
    }
}

fn parsed(certificate: &CertificateDer<'_>) -> Result<Certificate, Error> {
    let unreadable = |_| Error::InvalidCertificate(CertificateError::BadEncoding);
    Certificate::from_der(certificate).map_err(unreadable)
}
