//! The receiver's certificate, made on the spot, and the file by which walhook trusts it.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use rcgen::CertificateParams;
use rcgen::KeyPair;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;

const FILE: &str = "receiver.pem";

/// A certificate that the receiver shows, with the file of whoever is to trust it.
pub(crate) struct Identity {
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
    dir: TempDir,
}

impl Identity {
    pub(crate) fn make() -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec![String::from("127.0.0.1")])?;
        let certificate = certificate.self_signed(&key)?;
        let dir = tempfile::tempdir()?;
        fs::write(dir.path().join(FILE), certificate.pem())?;
        Ok(Self { certificate: certificate.der().clone(), key: key.serialize_der(), dir })
    }

    /// What walhook trusts.
    pub(crate) fn file(&self) -> PathBuf {
        Path::join(self.dir.path(), FILE)
    }

    pub(crate) fn acceptor(&self) -> anyhow::Result<TlsAcceptor> {
        let key = PrivateKeyDer::try_from(self.key.clone()).ok().context("it is no key")?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], key)?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}
