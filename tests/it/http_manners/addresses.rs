//! Names and addresses: what is dialled, and what never is.
//!
//! Only loopback addresses stand here, so that a guard that fails reaches nobody; the other ranges
//! are tested where nothing is dialled, beside the guard and the resolver.

use super::*;
use socket2::Domain;
use socket2::Socket;
use socket2::Type;

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

fn resolving(endpoint: &Endpoint, addresses: Vec<SocketAddr>) -> EndpointClient {
    let names = Names(vec![("hooks.test", addresses)]);
    EndpointClient::new(endpoint, &DeliveryNetwork::new(Arc::new(names), RootCertStore::empty()))
        .unwrap()
}

#[tokio::test]
async fn a_guarded_endpoint_never_reaches_a_private_address() {
    let receiver = Receiver::start(always(Answer::status(200)));
    let port = receiver.address().port();
    let literal = format!("http://127.0.0.1:{port}/");
    let mapped = format!("http://[::ffff:127.0.0.1]:{port}/");
    let name = format!("http://hooks.test:{port}/");
    for url in [&literal, &mapped, &name] {
        let guarded = Endpoint { addresses: AddressPolicy::Public, ..endpoint(url) };
        let client = resolving(&guarded, vec![at("127.0.0.1", 0), at("::1", 0)]);
        let exchange = client.attempt(&lease(), NOW).await;
        assert_eq!(exchange.verdict, AttemptVerdict::Dead, "case: {url}: {exchange:?}");
        assert_eq!(
            exchange.failure.unwrap().to_string(),
            "refused: the address is loopback, which this endpoint may not reach",
            "case: {url}"
        );
    }
    assert_eq!(receiver.count(), 0);
    // The same are the operator's own word in a file.
    for url in [&literal, &name] {
        let client = resolving(&endpoint(url), vec![at("127.0.0.1", 0)]);
        assert_eq!(client.attempt(&lease(), NOW).await.verdict, AttemptVerdict::Delivered);
    }
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_tried_again() {
    let endpoint = endpoint("http://hooks.test/secret-path");
    let unknown = client(&endpoint).attempt(&lease(), NOW).await;
    let empty = resolving(&endpoint, Vec::new()).attempt(&lease(), NOW).await;
    for exchange in [unknown, empty] {
        assert_eq!(exchange.verdict, RETRY);
        let failure = exchange.failure.unwrap();
        assert_eq!(failure.class, FailureClass::Dns, "{failure}");
        assert!(!failure.detail.contains("hooks.test"), "{failure}");
    }
}

#[tokio::test]
async fn the_machines_own_resolver_knows_localhost() {
    let receiver = Receiver::start(always(Answer::status(200)));
    let endpoint = endpoint(&format!("http://localhost:{}/", receiver.address().port()));
    let client = EndpointClient::new(&endpoint, &DeliveryNetwork::system()).unwrap();
    assert_eq!(client.attempt(&lease(), NOW).await.verdict, AttemptVerdict::Delivered);
}

#[tokio::test]
async fn an_address_that_does_not_answer_leaves_time_for_the_next() {
    let receiver = Receiver::start(always(Answer::status(200)));
    let port = receiver.address().port();
    // While its queue is full, Linux answers no further connection at all.
    let mute = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    mute.bind(&at("127.0.0.2", port).into()).unwrap();
    mute.listen(0).unwrap();
    let _first = std::net::TcpStream::connect(at("127.0.0.2", port)).unwrap();
    let endpoint =
        Endpoint { timeout: SHORT * 10, ..endpoint(&format!("http://hooks.test:{port}/")) };
    let client = resolving(&endpoint, vec![at("127.0.0.2", 0), at("127.0.0.1", 0)]);
    let exchange = client.attempt(&lease(), NOW).await;
    assert_eq!(exchange.verdict, AttemptVerdict::Delivered, "{exchange:?}");
    assert!(exchange.took >= SHORT * 5, "{exchange:?}");
}

/// A resolver that never answers.
struct Silent;

impl Resolve for Silent {
    fn resolve(&self, _: Name) -> Resolving {
        Box::pin(std::future::pending())
    }
}

#[tokio::test(start_paused = true)]
async fn the_deadline_covers_name_resolution() {
    let endpoint = endpoint("http://hooks.test/");
    let network = DeliveryNetwork::new(Arc::new(Silent), RootCertStore::empty());
    let client = EndpointClient::new(&endpoint, &network).unwrap();
    let exchange = client.attempt(&lease(), NOW).await;
    assert_eq!(class(&exchange), Some(FailureClass::Timeout));
    assert_eq!(exchange.took, AMPLE);
}
