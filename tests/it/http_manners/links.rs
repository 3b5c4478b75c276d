//! Ways to an endpoint: certificates on both sides, a proxy, HTTP/2.

use super::tls::Authority;
use super::tls::authority;
use super::tls::params;
use super::tls::server;
use super::*;
use std::net::Ipv4Addr;

use rcgen::KeyPair;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use walhook::testing::config::configuration::Settings;

use crate::support::receiver::Request;
use crate::support::receiver::proxy::Proxy;

/// The endpoint of a configuration that has these keys, with names of this machine.
pub(super) fn linked(url: &str, keys: &str) -> Endpoint {
    let text = format!(
        "postgres.url = 'postgres://a@b/c'\n[[endpoint]]\nname = 'crm'\nurl = '{url}'\n{keys}\n"
    );
    let settings: Settings =
        walhook::testing::config::parse(&text, "walhook.toml", &|_| None).unwrap();
    let mut endpoint = settings.endpoints.first().unwrap().clone();
    endpoint.timeout = AMPLE;
    endpoint
}

fn pem(text: &str) -> String {
    format!("'''{text}'''")
}

/// A client that knows `hooks.test` and trusts no authority of its own accord.
pub(super) fn client_of(endpoint: &Endpoint) -> EndpointClient {
    let names = Names(vec![("hooks.test", vec![(Ipv4Addr::LOCALHOST, 0).into()])]);
    EndpointClient::new(endpoint, &DeliveryNetwork::new(Arc::new(names), RootCertStore::empty()))
        .unwrap()
}

async fn attempt_at(url: &str, keys: &str) -> HttpExchange {
    client_of(&linked(url, keys)).attempt(&lease(), NOW).await
}

/// A server that wants a certificate of `clients`.
fn demanding(ours: &Authority, clients: &Authority) -> ServerConfig {
    let mut roots = RootCertStore::empty();
    roots.add(clients.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let key = KeyPair::generate().unwrap();
    let certificate = params("hooks.test").signed_by(&key, ours).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap()
}

/// A certificate of `issuer` for walhook, and its key, as keys of `tls`.
fn identity(issuer: &Authority) -> String {
    let key = KeyPair::generate().unwrap();
    let certificate = params("walhook.test").signed_by(&key, issuer).unwrap();
    let (certificate, key) = (pem(&certificate.pem()), pem(&key.serialize_pem()));
    format!("client_cert = {certificate}, client_key = {key}")
}

#[tokio::test]
async fn an_own_authority_is_trusted_and_no_other() {
    let (ours, theirs) = (authority("ours"), authority("theirs"));
    let config = server(&params("hooks.test"), Some(&ours));
    let receiver = Receiver::start_tls(config, always(Answer::status(200)));
    let url = format!("https://hooks.test:{}/", receiver.address().port());
    let trusting = |authority: &Authority| format!("tls = {{ ca = {} }}", pem(&authority.pem()));
    let exchange = attempt_at(&url, &trusting(&ours)).await;
    assert_eq!(exchange.verdict, AttemptVerdict::Delivered, "{exchange:?}");
    let exchange = attempt_at(&url, &trusting(&theirs)).await;
    assert_eq!(class(&exchange), Some(FailureClass::Tls), "{exchange:?}");
    let elsewhere = url.replace("hooks.test", "127.0.0.1");
    let exchange = attempt_at(&elsewhere, &trusting(&ours)).await;
    let told = exchange.failure.unwrap().to_string();
    assert_eq!(told, "tls: the certificate is for another name", "names are checked all the same");
    assert_eq!(receiver.count(), 1);
}

#[tokio::test]
async fn a_receiver_that_asks_for_a_certificate_gets_ours() {
    let (ours, clients) = (authority("ours"), authority("clients"));
    let receiver = Receiver::start_tls(demanding(&ours, &clients), always(Answer::status(200)));
    let url = format!("https://hooks.test:{}/", receiver.address().port());
    let ca = pem(&ours.pem());
    let with = |rest: &str| format!("tls = {{ ca = {ca}, {rest} }}");
    let exchange = attempt_at(&url, &with(&identity(&clients))).await;
    assert_eq!(exchange.verdict, AttemptVerdict::Delivered, "{exchange:?}");
    for keys in [format!("tls = {{ ca = {ca} }}"), with(&identity(&authority("others")))] {
        let exchange = attempt_at(&url, &keys).await;
        assert_eq!((exchange.verdict, receiver.count()), (RETRY, 1));
        let told = exchange.failure.unwrap().to_string();
        assert!(told.starts_with("tls: the peer refused with "), "{told}");
    }
}

#[tokio::test]
async fn https_goes_through_a_tunnel_that_the_proxy_cannot_look_into() {
    let ours = authority("ours");
    let config = server(&params("far.test"), Some(&ours));
    let receiver = Receiver::start_tls(config, always(Answer::status(200)));
    let proxy = Proxy::start(Some(receiver.address()));
    let keys = |proxy: &Proxy, credentials: &str| {
        let (ca, at) = (pem(&ours.pem()), proxy.address());
        format!("proxy = 'http://{credentials}{at}'\ntls = {{ ca = {ca} }}")
    };
    // Nobody here knows the name: the proxy does.
    let endpoint = linked("https://far.test/in", &keys(&proxy, "me:hunter2@"));
    let client = client_of(&endpoint);
    for _ in 0..2 {
        let exchange = client.attempt(&lease(), NOW).await;
        assert_eq!(exchange.verdict, AttemptVerdict::Delivered, "{exchange:?}");
        assert!(!format!("{exchange:?} {endpoint:?}").contains("hunter2"));
    }
    let head = "CONNECT far.test:443 HTTP/1.1\r\nhost: far.test:443\r\n\
                proxy-authorization: Basic bWU6aHVudGVyMg==\r\n\r\n";
    assert_eq!(proxy.heads(), [head], "one tunnel for both");
    let [first, _] = receiver.requests().try_into().unwrap();
    let first: Request = first;
    assert_eq!((first.path.as_str(), first.header("host")), ("/in", "far.test"));
    assert_eq!(first.header("proxy-authorization"), "");

    let closed = Proxy::start(None);
    let exchange = attempt_at("https://far.test/in", &keys(&closed, "")).await;
    assert_eq!(exchange.verdict, RETRY);
    assert_eq!(exchange.failure.unwrap().to_string(), "connect: the proxy refused with 407");
    assert_eq!(receiver.count(), 2);
}

#[tokio::test]
async fn http_is_asked_of_the_proxy_by_its_whole_url() {
    let proxy = Receiver::start(always(Answer::status(200)));
    let keys = format!("proxy = 'http://me:hunter2@{}'", proxy.address());
    let exchange = attempt_at("http://far.test:8080/in?a=b", &keys).await;
    assert_eq!(exchange.verdict, AttemptVerdict::Delivered, "{exchange:?}");
    let request = proxy.requests().remove(0);
    assert_eq!(request.path, "http://far.test:8080/in?a=b");
    assert_eq!(request.header("host"), "far.test:8080");
    assert_eq!(request.header("proxy-authorization"), "Basic bWU6aHVudGVyMg==");
    assert_eq!(exchange.request_headers.by_name()["proxy-authorization"], "[secret]");
}

#[tokio::test]
async fn the_guard_judges_an_address_behind_a_proxy_and_the_proxys_own() {
    let proxy = Receiver::start(always(Answer::status(200)));
    let cases = [
        ("http://169.254.169.254/", format!("proxy = 'http://{}'", proxy.address())),
        ("http://far.test/", String::from("proxy = 'http://169.254.169.254:3128'")),
    ];
    for (url, keys) in cases {
        let exchange = attempt_at(url, &keys).await;
        assert_eq!(class(&exchange), Some(FailureClass::Refused), "case: {url}");
    }
    assert_eq!(proxy.count(), 0);
}

/// Sends `count` requests at once.
async fn at_once(client: &EndpointClient, count: usize) -> Vec<AttemptVerdict> {
    let lease = lease();
    let attempts = (0..count).map(|_| client.attempt(&lease, NOW));
    let exchanges = futures_util::future::join_all(attempts).await;
    exchanges.into_iter().map(|exchange| exchange.verdict).collect()
}

#[tokio::test]
async fn http_2_carries_all_requests_over_one_connection() {
    let ours = authority("ours");
    let config = server(&params("hooks.test"), Some(&ours));
    let slow = || always(Answer::status(200).after(Duration::from_millis(50)).body("ok"));
    let secured = Receiver::start_http2(Some(config), slow());
    let plain = Receiver::start_http2(None, slow());
    let tls = format!("http2 = true\ntls = {{ ca = {} }}", pem(&ours.pem()));
    for (receiver, keys, scheme) in
        [(&secured, tls.as_str(), "https"), (&plain, "http2 = true", "http")]
    {
        let at = format!("hooks.test:{}", receiver.address().port());
        let client = client_of(&linked(&format!("{scheme}://{at}/in?a=b"), keys));
        assert_eq!(
            at_once(&client, 20).await,
            vec![AttemptVerdict::Delivered; 20],
            "case: {scheme}"
        );
        let exchange = client.attempt(&lease(), NOW).await;
        assert_eq!(exchange.response_body, "ok");
        let requests = receiver.requests();
        assert_eq!(requests.len(), 21);
        assert!(requests.iter().all(|request| request.connection == 1), "case: {scheme}");
        for request in &requests {
            assert_eq!(request.path, "/in?a=b");
            assert_eq!(request.header("x-authority"), at);
            assert_eq!(request.header("content-length"), "8");
            assert_eq!(&request.body[..], br#"{"id":1}"#);
        }
    }
}

#[tokio::test]
async fn a_large_body_flows_over_http_2_and_a_broken_stream_is_tried_again() {
    let answers =
        vec![Answer::status(200), Answer::Close, Answer::status(503), Answer::status(200)];
    let receiver = Receiver::start_http2(None, in_turn(answers));
    let client = client_of(&linked(&receiver.url(), "http2 = true"));
    let text = Bytes::from("\"é\n".repeat(1_000_000));
    let large = lease_of(vec![event(9, vec![BodyPart::Escaped(text)])]);
    assert_eq!(client.attempt(&large, NOW).await.verdict, AttemptVerdict::Delivered);
    assert_eq!(receiver.requests()[0].body.len(), 6_000_000);
    let broken = client.attempt(&lease(), NOW).await;
    assert_eq!((class(&broken), broken.verdict), (Some(FailureClass::Protocol), RETRY));
    assert_eq!(client.attempt(&lease(), NOW).await.status, Some(503));
    assert_eq!(client.attempt(&lease(), NOW).await.verdict, AttemptVerdict::Delivered);
}

#[tokio::test]
async fn endpoints_of_one_host_share_its_connections_and_nothing_else() {
    let receiver = Receiver::start(always(Answer::status(200)));
    let roots = RootCertStore::empty();
    let network = DeliveryNetwork::new(Arc::new(Names::default()), roots).sharing();
    let clients = ["one", "two", "three"].map(|name| {
        let url = format!("{}/{name}", receiver.url());
        let keys = format!("headers = {{ authorization = '{name}' }}");
        EndpointClient::new(&linked(&url, &keys), &network).unwrap()
    });
    for client in clients.iter().cycle().take(6) {
        let exchange = client.attempt(&lease(), NOW).await;
        assert_eq!(exchange.verdict, AttemptVerdict::Delivered, "{exchange:?}");
    }
    let requests = receiver.requests();
    let own = ["one", "two", "three"].into_iter().cycle();
    for (request, name) in requests.iter().zip(own) {
        assert_eq!(request.path, format!("/hooks/{name}"));
        assert_eq!(request.header("authorization"), name);
        assert_eq!(request.connection, 1, "{request:?}");
    }
    // One that goes, and one that hangs, leave the others theirs.
    let [one, two, three] = clients;
    drop(one);
    receiver.behave(in_turn(vec![Answer::Hang, Answer::status(200)]));
    let (first, second) = (lease(), lease());
    let hangs = three.attempt(&first, NOW);
    let other = async {
        receiver.wait_for(7, AMPLE).await;
        two.attempt(&second, NOW).await
    };
    tokio::select! {
        exchange = hangs => unreachable!("nobody answered: {exchange:?}"),
        exchange = other => assert_eq!(exchange.verdict, AttemptVerdict::Delivered, "{exchange:?}"),
    }
    let connections: Vec<_> = receiver.requests().iter().map(|one| one.connection).collect();
    assert_eq!(connections[6..], [1, 2]);
}

#[tokio::test]
async fn a_lost_http_2_connection_is_replaced() {
    let receiver = Receiver::start_http2(None, always(Answer::status(200)));
    let (address, url) = (receiver.address(), receiver.url());
    let client = client_of(&linked(&url, "http2 = true"));
    assert_eq!(client.attempt(&lease(), NOW).await.verdict, AttemptVerdict::Delivered);
    drop(receiver);
    let down = client.attempt(&lease(), NOW).await;
    assert_eq!(down.verdict, RETRY, "{down:?}");
    let receiver = Receiver::start_http2_on(address, None, always(Answer::status(200)));
    assert_eq!(client.attempt(&lease(), NOW).await.verdict, AttemptVerdict::Delivered);
    assert_eq!(receiver.count(), 1);
}

#[tokio::test]
async fn a_receiver_without_http_2_is_served_as_ever() {
    let ours = authority("ours");
    let mut config = server(&params("hooks.test"), Some(&ours));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let receiver = Receiver::start_tls(config, always(Answer::status(200)));
    let url = format!("https://hooks.test:{}/in", receiver.address().port());
    let keys = format!("http2 = true\ntls = {{ ca = {} }}", pem(&ours.pem()));
    let client = client_of(&linked(&url, &keys));
    assert_eq!(at_once(&client, 5).await, vec![AttemptVerdict::Delivered; 5]);
    assert_eq!(client.attempt(&lease(), NOW).await.verdict, AttemptVerdict::Delivered);
    for request in receiver.requests() {
        assert_eq!(request.path, "/in");
        assert!(request.header("host").starts_with("hooks.test:"));
    }
}

#[tokio::test]
async fn a_path_and_headers_of_the_events_own_go_by_every_way() {
    let plain = Receiver::start(always(Answer::status(200)));
    let multiplexed = Receiver::start_http2(None, always(Answer::status(200)));
    let proxy = Receiver::start(always(Answer::status(200)));
    let by_proxy = format!("proxy = 'http://{}'", proxy.address());
    let ways = [
        (&plain, plain.url(), "", ""),
        (&multiplexed, multiplexed.url(), "http2 = true", ""),
        (
            &proxy,
            String::from("http://far.test:8080/hooks"),
            by_proxy.as_str(),
            "http://far.test:8080",
        ),
    ];
    for (receiver, url, keys, before) in ways {
        let keys = format!("{keys}\nheaders = {{ X-Event = '{{{{ event_id }}}}' }}");
        let client =
            client_of(&linked(&format!("{url}/{{{{ event }}}}?n={{{{ event_id }}}}"), &keys));
        for ordinal in [1, 2] {
            let event = event(ordinal, vec![BodyPart::Bytes(Bytes::from_static(b"{}"))]);
            let id = event.id.to_string();
            let exchange = client.attempt(&lease_of(vec![event]), NOW).await;
            assert_eq!(exchange.verdict, AttemptVerdict::Delivered, "{exchange:?}");
            assert_eq!(exchange.request_headers.by_name()["x-event"], id);
            let request = receiver.requests().pop().unwrap();
            assert_eq!(request.path, format!("{before}/hooks/orders.insert?n={id}"));
            assert_eq!(request.header("x-event"), id);
        }
    }
}
