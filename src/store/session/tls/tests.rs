//! What each sslmode believes, with certificates made on the spot.

use std::time::Duration;

use super::*;

struct Ca {
    certificate: rcgen::Certificate,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Ca {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate, issuer: rcgen::Issuer::new(params, key) }
    }

    fn sign(&self, name: &str) -> CertificateDer<'static> {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.signed_by(&key, &self.issuer).unwrap().der().clone()
    }
}

fn self_signed_server(name: &str) -> rcgen::Certificate {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained); // as `openssl req` does
    params.self_signed(&key).unwrap()
}

fn pem(certificate: &rcgen::Certificate) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), certificate.pem()).unwrap();
    file
}

fn believes(
    mode: TlsMode,
    root: Option<&tempfile::NamedTempFile>,
    server: &CertificateDer<'_>,
    now: UnixTime,
) -> bool {
    let root_cert = root.map(|file| file.path().to_str().unwrap().to_owned());
    let tls = TlsSettings { mode, root_cert, client: None };
    let verifier = CertificateVerifier {
        trust: trust(&tls).unwrap(),
        check_name: mode == TlsMode::VerifyFull,
        provider: Arc::new(rustls::crypto::ring::default_provider()),
    };
    let name = ServerName::try_from("db.example.com").unwrap();
    verifier.verify_server_cert(server, &[], &name, &[], now).is_ok()
}

#[test]
fn each_mode_believes_whom_libpq_would_believe() {
    let (ca, other) = (Ca::new(), Ca::new());
    let ours = pem(&ca.certificate);
    let good = ca.sign("db.example.com");
    let elsewhere = ca.sign("other.example.com");
    let stranger = other.sign("db.example.com");
    let cases = [
        ("require takes anything", TlsMode::Require, None, &stranger, true),
        ("require with roots checks the chain", TlsMode::Require, Some(&ours), &stranger, false),
        ("prefer with roots checks the chain", TlsMode::Prefer, Some(&ours), &stranger, false),
        ("require with roots ignores the name", TlsMode::Require, Some(&ours), &elsewhere, true),
        ("verify-ca ignores the name", TlsMode::VerifyCa, Some(&ours), &elsewhere, true),
        ("verify-ca checks the chain", TlsMode::VerifyCa, Some(&ours), &stranger, false),
        ("verify-full takes the right one", TlsMode::VerifyFull, Some(&ours), &good, true),
        ("verify-full checks the name", TlsMode::VerifyFull, Some(&ours), &elsewhere, false),
        ("verify-full checks the chain", TlsMode::VerifyFull, Some(&ours), &stranger, false),
    ];
    for (name, mode, root, server, expected) in cases {
        assert_eq!(believes(mode, root, server, UnixTime::now()), expected, "case: {name}");
    }
}

#[test]
fn a_self_signed_server_certificate_can_be_its_own_root_while_it_is_valid() {
    let server = self_signed_server("db.example.com");
    let root = pem(&server);
    let der = server.der();
    assert!(believes(TlsMode::VerifyFull, Some(&root), der, UnixTime::now()));
    let year_9999 = UnixTime::since_unix_epoch(Duration::from_secs(253_370_764_800));
    assert!(!believes(TlsMode::VerifyCa, Some(&root), der, year_9999));
    let year_1970 = UnixTime::since_unix_epoch(Duration::from_secs(1));
    assert!(!believes(TlsMode::VerifyCa, Some(&root), der, year_1970));
    let renamed = self_signed_server("other.example.com");
    assert!(!believes(TlsMode::VerifyFull, Some(&pem(&renamed)), renamed.der(), UnixTime::now()));
}

/// `openssl req -x509 -subj /CN=...`, as PostgreSQL's manual has it, and one that an authority signed.
#[test]
fn the_common_name_counts_where_there_is_no_other() {
    let with = |common: &str, names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, common);
        params
    };
    let cases = [
        ("its common name", "DB.example.com", vec![], true),
        ("another common name", "other.example.com", vec![], false),
        ("another name beside it", "db.example.com", vec!["other.example.com"], false),
    ];
    for (name, common, names, expected) in cases {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut own = with(common, &names);
        own.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let own = own.self_signed(&key).unwrap();
        let (der, now) = (own.der(), UnixTime::now());
        let believed = believes(TlsMode::VerifyFull, Some(&pem(&own)), der, now);
        assert_eq!(believed, expected, "case: {name}, self-signed");
        assert!(believes(TlsMode::VerifyCa, Some(&pem(&own)), der, now), "case: {name}");

        let ca = Ca::new();
        let signed = with(common, &names).signed_by(&key, &ca.issuer).unwrap();
        let root = pem(&ca.certificate);
        let believed = believes(TlsMode::VerifyFull, Some(&root), signed.der(), now);
        assert_eq!(believed, expected, "case: {name}, signed");
    }
}

#[test]
fn a_file_that_is_no_certificate_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "hello").unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    let tls =
        TlsSettings { mode: TlsMode::VerifyFull, root_cert: Some(path.clone()), client: None };
    let error = client_config(&tls).unwrap_err();
    assert!(error.to_string().contains(&path), "{error}");
}

#[test]
fn the_end_point_is_the_certificates_hash_by_its_signatures_function() {
    let der = Ca::new().sign("db.example.com"); // ECDSA with SHA-256
    let expected = digest::digest(&digest::SHA256, &der);
    assert_eq!(end_point(&der).as_deref(), Some(expected.as_ref()));
    assert_eq!(end_point(&CertificateDer::from(vec![1, 2, 3])), None);
}

/// It would be waited for, or read until memory ends, by every new session.
#[test]
fn what_is_no_file_is_refused_at_once() {
    let home = tempfile::tempdir().unwrap();
    let pipe = home.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let pipe = pipe.to_str().unwrap();
    for file in ["/dev/zero", pipe, "/"] {
        let of = |root_cert, client| TlsSettings { mode: TlsMode::Require, root_cert, client };
        for tls in
            [of(Some(file.to_owned()), None), of(None, Some((file.to_owned(), file.to_owned())))]
        {
            let error = client_config(&tls).unwrap_err();
            let told = format!("{:#}", anyhow::Error::new(error));
            assert!(told.contains(file) && told.contains("is no regular file"), "{told}");
        }
    }
}
