//! Certificates: what is wrong with one is named, and nothing turns the check off.

use super::*;
use std::net::Ipv4Addr;

use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::CertifiedIssuer;
use rcgen::DnType;
use rcgen::IsCa;
use rcgen::KeyPair;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;

use crate::support::receiver::raw::RawServer;
use crate::support::receiver::raw::Step;

pub(super) type Authority = CertifiedIssuer<'static, KeyPair>;

pub(super) fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

pub(super) fn params(name: &str) -> CertificateParams {
    CertificateParams::new(vec![name.to_owned()]).unwrap()
}

/// A server with this certificate, signed by `issuer` or by itself.
pub(super) fn server(params: &CertificateParams, issuer: Option<&Authority>) -> ServerConfig {
    let key = KeyPair::generate().unwrap();
    let certificate = match issuer {
        Some(issuer) => params.signed_by(&key, issuer),
        None => params.self_signed(&key),
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.unwrap().der().clone()], key)
        .unwrap()
}

/// One attempt at `https://hooks.test` on this port, trusting `trusted` alone.
async fn attempt_tls(port: u16, trusted: &Authority) -> Exchange {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.der().clone()).unwrap();
    let names = Names(vec![("hooks.test", vec![(Ipv4Addr::LOCALHOST, 0).into()])]);
    let endpoint = endpoint(&format!("https://hooks.test:{port}/"));
    let client = Client::new(&endpoint, &Network::new(Arc::new(names), roots)).unwrap();
    client.attempt(&lease(), NOW).await
}

#[tokio::test]
async fn a_trusted_certificate_is_all_it_takes() {
    let ours = authority("ours");
    let config = server(&params("hooks.test"), Some(&ours));
    let receiver = Receiver::start_tls(config, always(Answer::status(200)));
    let exchange = attempt_tls(receiver.address().port(), &ours).await;
    assert_eq!(exchange.verdict, Verdict::Delivered, "{exchange:?}");
}

#[tokio::test]
async fn a_bad_certificate_is_named_and_nothing_is_sent() {
    let ours = authority("ours");
    let mut expired = params("hooks.test");
    expired.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let mut early = params("hooks.test");
    early.not_before = rcgen::date_time_ymd(3000, 1, 1);
    let good = params("hooks.test");
    let cases = [
        (server(&expired, Some(&ours)), "tls: the certificate has expired"),
        (server(&early, Some(&ours)), "tls: the certificate is not valid yet"),
        (server(&params("other.test"), Some(&ours)), "tls: the certificate is for another name"),
        (server(&good, None), "tls: the certificate is signed by an unknown authority"),
        (
            server(&good, Some(&authority("theirs"))),
            "tls: the certificate is signed by an unknown authority",
        ),
        (
            server(&good, Some(&authority("ours"))),
            "tls: the certificate is not signed by whom it says",
        ),
    ];
    for (config, expected) in cases {
        let receiver = Receiver::start_tls(config, always(Answer::status(200)));
        let exchange = attempt_tls(receiver.address().port(), &ours).await;
        assert_eq!(exchange.verdict, RETRY, "case: {expected}");
        assert_eq!(exchange.failure.unwrap().to_string(), expected);
        assert_eq!(receiver.count(), 0, "case: {expected}");
    }
}

#[tokio::test]
async fn a_peer_without_tls_is_named() {
    let ours = authority("ours");
    let steps = vec![Step::Send(Bytes::from_static(b"HTTP/1.1 400 X\r\n\r\n"))];
    let plain = RawServer::start(steps);
    let port = Url::parse(&plain.url()).unwrap().port().unwrap();
    let exchange = attempt_tls(port, &ours).await;
    assert_eq!(exchange.failure.unwrap().to_string(), "tls: the peer does not speak TLS");
}

#[tokio::test]
async fn a_connection_that_breaks_in_the_middle_over_tls_is_tried_again() {
    let ours = authority("ours");
    for answer in [Answer::Close, Answer::Reset] {
        let config = server(&params("hooks.test"), Some(&ours));
        let receiver = Receiver::start_tls(config, always(answer));
        let exchange = attempt_tls(receiver.address().port(), &ours).await;
        assert_eq!(class(&exchange), Some(FailureClass::Protocol), "{exchange:?}");
        assert_eq!(receiver.count(), 1);
    }
}
