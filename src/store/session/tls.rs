//! TLS to PostgreSQL: libpq's sslmodes on rustls.

use std::path::Path;
use std::sync::Arc;

use ring::digest;
use rustls::ClientConfig;
use rustls::DigitallySignedStruct;
use rustls::RootCertStore;
use rustls::SignatureScheme;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::danger::ServerCertVerified;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::CryptoProvider;
use rustls::crypto::verify_tls12_signature;
use rustls::crypto::verify_tls13_signature;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::UnixTime;
use rustls::pki_types::pem::PemObject;
use rustls::server::ParsedCertificate;
use x509_cert::der::Decode;

use crate::config::settings::TlsMode;
use crate::config::settings::TlsSettings;
use crate::config::toml_file::text_file;
use crate::store::error::StoreError;
use crate::store::session::certificate::check_name;
use crate::store::session::certificate::check_validity;

/// `sslrootcert=system`: the system's roots, as without the parameter.
const SYSTEM_ROOTS: &str = "system";

/// A larger file is no bundle of certificates: those of systems have some 200 KiB.
const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// The protocol name that PostgreSQL 17 and later want to see when TLS starts without being asked
/// for (`sslnegotiation=direct`). Others ignore it.
const ALPN: &[u8] = b"postgresql";

/// The TLS settings of a server; `None` if it is not to be used.
///
/// As in libpq, a given `sslrootcert` makes every mode check the certificate's chain, `verify-full`
/// also checks the name, and the modes below `verify-ca` check nothing without `sslrootcert`.
/// Unlike libpq, the `verify` modes use the system's roots if there is no `sslrootcert`.
///
/// # Errors
/// [`StoreError::Certificate`] if a file cannot be used.
pub(crate) fn client_config(tls: &TlsSettings) -> Result<Option<Arc<ClientConfig>>, StoreError> {
    if tls.mode == TlsMode::Disable {
        return Ok(None);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = CertificateVerifier {
        trust: trust(tls)?,
        check_name: tls.mode == TlsMode::VerifyFull
            || tls.root_cert.as_deref() == Some(SYSTEM_ROOTS),
        provider: Arc::clone(&provider),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| certificate("TLS", error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match &tls.client {
        Some((certificates, key)) => builder
            .with_client_auth_cert(read_certificates(certificates)?, read_key(key)?)
            .map_err(|error| certificate(&format!("sslcert {certificates}"), error))?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Some(Arc::new(config)))
}

/// What ties a SCRAM exchange to a TLS session: the hash of the server's certificate, by the hash
/// function of its signature, but SHA-256 instead of MD5 and SHA-1 (RFC 5929, section 4.1).
///
/// `None` where that function is not defined (Ed25519) or not one that PostgreSQL settles the same
/// way in all versions (RSA-PSS): SCRAM then goes without.
pub(crate) fn end_point(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let parsed = x509_cert::Certificate::from_der(certificate).ok()?;
    let algorithm = match parsed.signature_algorithm.oid.to_string().as_str() {
        // MD5, SHA-1 and SHA-256 with RSA; SHA-1 and SHA-256 with ECDSA.
        "1.2.840.113549.1.1.4"
        | "1.2.840.113549.1.1.5"
        | "1.2.840.113549.1.1.11"
        | "1.2.840.10045.4.1"
        | "1.2.840.10045.4.3.2" => &digest::SHA256,
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => &digest::SHA384,
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => &digest::SHA512,
        _ => return None,
    };
    Some(digest::digest(algorithm, certificate).as_ref().to_vec())
}

fn certificate(
    what: &str,
    cause: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> StoreError {
    StoreError::Certificate { what: what.to_owned(), cause: cause.into() }
}

fn read_certificates(file: &str) -> Result<Vec<CertificateDer<'static>>, StoreError> {
    let what = format!("certificate file {file}");
    let bytes = read_bytes(file, &what)?;
    let read = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
    let read = read.map_err(|error| certificate(&what, error))?;
    if read.is_empty() { Err(certificate(&what, "it holds no certificate")) } else { Ok(read) }
}

fn read_key(file: &str) -> Result<PrivateKeyDer<'static>, StoreError> {
    let what = format!("key {file}");
    let bytes = read_bytes(file, &what)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| certificate(&what, error))
}

fn read_bytes(file: &str, what: &str) -> Result<Vec<u8>, StoreError> {
    let read = text_file::read_bytes(Path::new(file), FILE_BYTES_MAX);
    read.map_err(|error| certificate(what, error))
}

/// Whom to believe.
#[derive(Debug)]
enum ServerTrust {
    Anyone,
    /// `pinned`: certificates that are trusted as they stand, signed by whomever.
    Roots {
        roots: RootCertStore,
        pinned: Vec<CertificateDer<'static>>,
    },
}

fn trust(tls: &TlsSettings) -> Result<ServerTrust, StoreError> {
    let verify = matches!(tls.mode, TlsMode::VerifyCa | TlsMode::VerifyFull);
    let mut roots = RootCertStore::empty();
    match tls.root_cert.as_deref() {
        Some(SYSTEM_ROOTS) => {}
        Some(file) => {
            let pinned = read_certificates(file)?;
            roots.add_parsable_certificates(pinned.iter().cloned());
            return Ok(ServerTrust::Roots { roots, pinned });
        }
        None if verify => {}
        None => return Ok(ServerTrust::Anyone),
    }
    let system = rustls_native_certs::load_native_certs();
    let (added, _ignored) = roots.add_parsable_certificates(system.certs);
    match (added, system.errors.into_iter().next()) {
        (0, Some(error)) => Err(certificate("the system's root certificates", error)),
        (0, None) => Err(certificate("the system's root certificates", "there are none")),
        _ => Ok(ServerTrust::Roots { roots, pinned: Vec::new() }),
    }
}

#[derive(Debug)]
struct CertificateVerifier {
    trust: ServerTrust,
    check_name: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for CertificateVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let ServerTrust::Roots { roots, pinned } = &self.trust else {
            return Ok(ServerCertVerified::assertion());
        };
        let parsed = ParsedCertificate::try_from(end_entity)?;
        // A self-signed server certificate given as sslrootcert is common, and OpenSSL takes it;
        // webpki would refuse it as a CA's that is used as a server's.
        if pinned.contains(end_entity) {
            check_validity(end_entity, now)?;
        } else {
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(
                &parsed,
                roots,
                intermediates,
                now,
                algorithms,
            )?;
        }
        if self.check_name {
            check_name(end_entity, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
