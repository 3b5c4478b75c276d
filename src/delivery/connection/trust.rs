//! Whom an endpoint's TLS trusts that has authorities of its own (`tls.ca`).
//!
//! A certificate that one of them has signed, and also one of them itself: `openssl req -x509` makes a
//! certificate that says of itself to be an authority (CA:TRUE), which a server must not show by the rules
//! of the web, and which people use all the same. A server that shows exactly the named one, and has its key,
//! is meant; that it bears the name and is valid at the time is still asked for.

use std::sync::Arc;

use rustls::DigitallySignedStruct;
use rustls::Error;
use rustls::SignatureScheme;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::danger::ServerCertVerified;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::UnixTime;

use crate::config::sections::endpoint_connection::TrustedAuthorities;
use crate::store::session::certificate::check_name;
use crate::store::session::certificate::check_validity;

/// Verifies certificates by the authorities of `tls.ca` alone.
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
        check_validity(end_entity, now)?;
        check_name(end_entity, server_name)?;
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
