//! Signatures as others verify them: Standard Webhooks' own library for `v1`, and for `v1a`, which
//! it does not have yet, Ed25519 over what the specification says is signed.

use super::*;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::signature::ED25519;
use ring::signature::UnparsedPublicKey;
use standardwebhooks::Webhook;
use walhook::testing::clock::host_now;
use walhook::testing::config::settings::Signing;

use crate::support::receiver::Request;

const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const NEXT: &str = "whsec_HhwaGBYUEhAODAoIBgQCABweGhgWFBIQDgwKCAYEAgA=";
const PRIVATE: &str = "whsk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// The signing of an endpoint whose configuration has these secrets.
fn signing(secrets: &[&str]) -> Option<Signing> {
    let text = format!(
        "postgres.url = 'postgres://a@b/c'\n\
         [[endpoint]]\nname = 'crm'\nurl = 'http://h/'\nsecret = {secrets:?}"
    );
    let settings = walhook::testing::config::parse(&text, "walhook.toml", &|_| None).unwrap();
    settings.endpoints.first().and_then(|endpoint| endpoint.signing.clone())
}

/// A body of which a part is escaped while it is sent, so that it is never whole anywhere.
fn streamed() -> Arc<Event> {
    let quote = || BodyPart::Bytes(Bytes::from_static(b"\""));
    let text = Bytes::from("\"é\n".repeat(200_000));
    event(9, vec![quote(), BodyPart::Escaped(text), quote()])
}

/// The requests that an endpoint with these secrets makes: one event, a batch, and a large one.
async fn sent(secrets: &[&str]) -> Vec<Request> {
    let receiver = Receiver::start(always(Answer::status(200)));
    let mut endpoint = endpoint(&receiver.url());
    endpoint.signing = signing(secrets);
    let text = r#"{"name":"张三 \"é\""}"#;
    let event = |ordinal| event(ordinal, vec![BodyPart::Bytes(Bytes::from(text))]);
    client(&endpoint).attempt(&lease_of(vec![event(1)]), host_now()).await;
    client(&endpoint).attempt(&lease_of(vec![streamed()]), host_now()).await;
    endpoint.batch.size = NonZeroUsize::new(2).unwrap();
    client(&endpoint).attempt(&lease_of(vec![event(1), event(2)]), host_now()).await;
    let requests = receiver.requests();
    assert_eq!(requests.len(), 3);
    requests
}

#[tokio::test]
async fn the_schemes_own_library_accepts_every_request_and_no_other_body() {
    for secrets in [&[SECRET][..], &[NEXT, SECRET], &[PRIVATE, SECRET]] {
        for request in sent(secrets).await {
            let library = Webhook::new(SECRET).unwrap();
            library.verify(&request.body, &request.headers).unwrap();
            library.verify(b"{}", &request.headers).unwrap_err();
            let other = Webhook::from_bytes(vec![1; 32]).unwrap();
            other.verify(&request.body, &request.headers).unwrap_err();
        }
    }
}

#[tokio::test]
async fn a_public_key_verifies_every_request_and_no_other_body() {
    let Some(signing) = signing(&[PRIVATE]) else { panic!("the endpoint signs") };
    let public = signing.public_keys().remove(0);
    let public = BASE64_STANDARD.decode(public.strip_prefix("whpk_").unwrap()).unwrap();
    let key = UnparsedPublicKey::new(&ED25519, public);
    for request in sent(&[SECRET, PRIVATE]).await {
        let given = request.header("webhook-signature").split(' ');
        let given: Vec<_> = given.filter_map(|one| one.strip_prefix("v1a,")).collect();
        let [given] = given.as_slice() else { panic!("one v1a signature: {given:?}") };
        let given = BASE64_STANDARD.decode(given).unwrap();
        let (id, at) = (request.header("webhook-id"), request.header("webhook-timestamp"));
        let content = [format!("{id}.{at}.").as_bytes(), &request.body].concat();
        key.verify(&content, &given).unwrap();
        key.verify(&[&content, &b" "[..]].concat(), &given).unwrap_err();
    }
}
