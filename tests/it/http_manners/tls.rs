//! Certificates: what is wrong with one is named, and nothing turns the check off.

use super::*;
use std::net::Ipv4Addr;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::CertifiedIssuer;
use rcgen::DnType;
use rcgen::IsCa;
use rcgen::KeyPair;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
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
async fn attempt_tls(port: u16, trusted: &Authority) -> HttpExchange {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.der().clone()).unwrap();
    let names = Names(vec![("hooks.test", vec![(Ipv4Addr::LOCALHOST, 0).into()])]);
    let endpoint = endpoint(&format!("https://hooks.test:{port}/"));
    let client =
        EndpointClient::new(&endpoint, &DeliveryNetwork::new(Arc::new(names), roots)).unwrap();
    client.attempt(&lease(), NOW).await
}

#[tokio::test]
async fn a_trusted_certificate_is_all_it_takes() {
    let ours = authority("ours");
    let config = server(&params("hooks.test"), Some(&ours));
    let receiver = Receiver::start_tls(config, always(Answer::status(200)));
    let exchange = attempt_tls(receiver.address().port(), &ours).await;
    assert_eq!(exchange.verdict, AttemptVerdict::Delivered, "{exchange:?}");
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

/// One attempt at `host`, which is here, with these certificates as its `tls.ca`.
async fn attempt_named(
    port: u16,
    host: &'static str,
    named: &[&CertificateDer<'static>],
) -> HttpExchange {
    let pem: String = named
        .iter()
        .map(|der| {
            format!(
                "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
                BASE64_STANDARD.encode(der)
            )
        })
        .collect();
    let text = format!(
        "postgres.url = 'postgres://a@b/c'\n[[endpoint]]\nname = 'a'\nurl = 'https://{host}:{port}/'\n\
         tls = {{ ca = \"\"\"{pem}\"\"\" }}"
    );
    let settings = walhook::testing::config::parse(&text, "walhook.toml", &|_| None).unwrap();
    let names = Names(vec![(host, vec![(Ipv4Addr::LOCALHOST, 0).into()])]);
    let network = DeliveryNetwork::new(Arc::new(names), RootCertStore::empty());
    let client = EndpointClient::new(settings.endpoints.first().unwrap(), &network).unwrap();
    client.attempt(&lease(), NOW).await
}

/// As `openssl req -x509` makes them, an authority and a server's at once.
#[tokio::test]
async fn a_self_signed_certificate_that_is_named_is_trusted_as_what_it_is() {
    let own = |mut params: CertificateParams| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    };
    let common_name = |name: &str| {
        let mut params = own(CertificateParams::new(Vec::new()).unwrap());
        params.distinguished_name.push(DnType::CommonName, name);
        params
    };
    let mut expired = own(params("hooks.test"));
    expired.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let other_name = "tls: the certificate is for another name";
    let cases = [
        (own(params("hooks.test")), "hooks.test", Ok(())),
        (params("hooks.test"), "hooks.test", Ok(())),
        (common_name("Hooks.test"), "hooks.test", Ok(())),
        (common_name("127.0.0.1"), "127.0.0.1", Ok(())),
        (common_name("other.test"), "hooks.test", Err(other_name)),
        (own(params("other.test")), "hooks.test", Err(other_name)),
        (expired, "hooks.test", Err("tls: the certificate has expired")),
    ];
    for (at, (params, host, expected)) in cases.into_iter().enumerate() {
        let (config, certificate) = self_signed(&params);
        let receiver = Receiver::start_tls(config, always(Answer::status(200)));
        let exchange = attempt_named(receiver.address().port(), host, &[&certificate]).await;
        let told = exchange.failure.map_or(Ok(()), |failure| Err(failure.to_string()));
        assert_eq!(told, expected.map_err(str::to_owned), "case: {at}");
        assert_eq!(receiver.count(), usize::from(expected.is_ok()), "case: {at}");
    }
    // Another one of the same name and kind is not meant, also beside the named one.
    let (config, _) = self_signed(&own(params("hooks.test")));
    let (_, named) = self_signed(&own(params("hooks.test")));
    let receiver = Receiver::start_tls(config, always(Answer::status(200)));
    let exchange = attempt_named(receiver.address().port(), "hooks.test", &[&named]).await;
    assert_eq!(exchange.failure.unwrap().class, FailureClass::Tls);
    assert_eq!(receiver.count(), 0);
}

fn self_signed(params: &CertificateParams) -> (ServerConfig, CertificateDer<'static>) {
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().der().clone();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    (config, certificate)
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
