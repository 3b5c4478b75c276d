//! Whom an endpoint's TLS trusts that has authorities of its own (`tls.ca`).
//!
//! A certificate that one of them has signed, and also one of them itself: `openssl req -x509` makes a
//! certificate that says of itself to be an authority (CA:TRUE), which a server must not show by the rules
//! of the web, and which people use all the same. Whoever shows exactly the named one, and has its key, is
//! meant; that it bears the name and is valid at the time is still asked for.

use std::sync::Arc;
use std::time::Duration;

use rustls::CertificateError;
use rustls::DigitallySignedStruct;
use rustls::Error;
use rustls::SignatureScheme;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::danger::ServerCertVerified;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::UnixTime;
use rustls::server::ParsedCertificate;
use x509_cert::der::Decode;
use x509_cert::der::asn1::ObjectIdentifier;

use crate::config::link::TrustedAuthorities;

/// `id-at-commonName` (RFC 4519) and `id-ce-subjectAltName` (RFC 5280).
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const SUBJECT_ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");

/// See the module's header.
#[derive(Debug)]
pub(crate) struct EndpointTrust {
    certificates: Arc<[CertificateDer<'static>]>,
    signed: Arc<WebPkiServerVerifier>,
}

impl EndpointTrust {
    /// # Errors
    /// There is no certificate that could be an authority.
    pub(crate) fn new(
        authorities: &TrustedAuthorities,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, Error> {
        let roots = Arc::clone(&authorities.roots);
        let signed = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
        let signed = signed.map_err(|error| Error::General(error.to_string()))?;
        Ok(Self { certificates: Arc::clone(&authorities.certificates), signed })
    }
}

impl ServerCertVerifier for EndpointTrust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if !self.certificates.iter().any(|named| named.as_ref() == end_entity.as_ref()) {
            return self.signed.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            );
        }
        verify_named(end_entity, server_name, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signed.supported_verify_schemes()
    }
}

/// What is asked of a certificate that is trusted by itself.
fn verify_named(
    certificate: &CertificateDer<'_>,
    server_name: &ServerName<'_>,
    now: UnixTime,
) -> Result<(), Error> {
    let unreadable = |_| Error::InvalidCertificate(CertificateError::BadEncoding);
    let parsed = x509_cert::Certificate::from_der(certificate).map_err(unreadable)?;
    let validity = parsed.tbs_certificate.validity;
    let now = Duration::from_secs(now.as_secs());
    if now < validity.not_before.to_unix_duration() {
        return Err(Error::InvalidCertificate(CertificateError::NotValidYet));
    }
    if now > validity.not_after.to_unix_duration() {
        return Err(Error::InvalidCertificate(CertificateError::Expired));
    }
    let extensions = parsed.tbs_certificate.extensions.iter().flatten();
    if extensions.map(|extension| extension.extn_id).any(|id| id == SUBJECT_ALT_NAME) {
        return verify_server_name(&ParsedCertificate::try_from(certificate)?, server_name);
    }
    // Without other names the common one counts, as it does for OpenSSL.
    let subject = parsed.tbs_certificate.subject.0;
    let mut attributes = subject.iter().flat_map(|names| names.0.iter());
    let bears_it = attributes.any(|attribute| {
        attribute.oid == COMMON_NAME
            && attribute.value.value().eq_ignore_ascii_case(server_name.to_str().as_bytes())
    });
    match bears_it {
        true => Ok(()),
        false => Err(Error::InvalidCertificate(CertificateError::NotValidForName)),
    }
}
