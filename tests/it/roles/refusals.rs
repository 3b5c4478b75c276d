//! What `walhook check` says of `[relay]`, and what a role refuses.

use super::prepared;
use crate::support::broker::Broker;
use crate::support::postgres::Database;
use crate::support::program::Program;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;
use crate::support::service::slot;

const REST: &str = "[[event]]\ntype = \"order\"\ntable = \"public.orders\"\n\n\
                    [webhook]\nurls = [\"http://127.0.0.1:9/hook\"]\n\n[relay]\nreplicas = 1\n";

/// What `walhook check` says, and its exit code.
async fn checked(database: &Database, url: &str) -> (Option<i32>, String) {
    let toml = configuration(database, &format!("{REST}url = \"{url}\"\n"));
    let mut program = Program::start(&["check"], &toml, &[]);
    let code = program.wait(AMPLE).await;
    (code, program.output().join("\n"))
}

#[tokio::test]
async fn check_tries_what_walhook_does_with_the_broker_and_leaves_nothing_there() {
    let test = "check_tries_what_walhook_does_with_the_broker_and_leaves_nothing_there";
    let Some(broker) = Broker::start(test).await else { return };
    let database = prepared().await;
    for _ in 0..2 {
        let (_, said) = checked(&database, &broker.url()).await;
        assert!(said.contains("  ok relay: NATS 2."), "{said}");
        let tried = "relay: streams can be made, written, read and removed; 0 of 8 are there";
        assert!(said.contains(tried), "{said}");
    }
}

#[tokio::test]
async fn check_says_what_is_wrong_with_the_broker_and_how_to_mend_it() {
    let test = "check_says_what_is_wrong_with_the_broker_and_how_to_mend_it";
    let database = prepared().await;
    // Who may do everything with JetStream, but publish nothing of its own.
    let users = "accounts { A { jetstream: enabled, users: [\n\
                 { user: all, password: opensesame },\n\
                 { user: reader, password: opensesame, permissions: { publish: [\"$JS.API.>\"] } } ] },\n\
                 B { jetstream: { max_file: 1MB }, users: [ { user: small, password: opensesame } ] },\n\
                 C { users: [ { user: plain, password: opensesame } ] } }\n";
    let Some(broker) = Broker::start_with(test, users).await else { return };
    let address = broker.url().replace("nats://", "");
    let cases = [
        ("nats://127.0.0.1:1".to_owned(), vec!["cannot reach NATS at 127.0.0.1:1"]),
        (format!("nats://{address}"), vec!["does not let walhook in"]),
        (format!("nats://all:wrong@{address}"), vec!["does not let walhook in"]),
        (format!("tls://all:opensesame@{address}"), vec!["NATS at"]),
        (
            format!("nats://reader:opensesame@{address}"),
            vec!["Permissions Violation for Publish to", "allow walhook to publish to wh."],
        ),
        (format!("nats://small:opensesame@{address}"), vec!["the account may store 1"]),
        (format!("nats://plain:opensesame@{address}"), vec!["JetStream answers nothing"]),
    ];
    for (url, expected) in cases {
        let (code, said) = checked(&database, &url).await;
        assert_eq!(code, Some(2), "{url}: {said}");
        for part in expected {
            assert!(said.contains(part), "{url}: {said}");
        }
        assert!(!said.contains("opensesame"), "a secret is shown: {said}");
    }
}

/// A server lets streams reserve no more than it may store, whatever they hold.
#[tokio::test]
async fn a_broker_without_room_for_the_streams_is_named() {
    let test = "a_broker_without_room_for_the_streams_is_named";
    let little = "jetstream { store_dir: \"{store}\", max_file_store: 300MB }\n";
    let Some(broker) = Broker::start_with(test, little).await else { return };
    let database = prepared().await;
    let (code, said) = checked(&database, &broker.url()).await;
    assert_eq!(code, Some(2), "{said}");
    let no_room = |last: &str, bytes: u64| {
        let stream = format!("WH_{}_{last}", slot(&database));
        format!("no room for stream {stream} of {bytes} bytes: raise `max_file_store`")
    };
    assert!(said.contains(&no_room("check", 8 << 28)), "{said}");
    let toml = configuration(&database, &format!("{REST}url = \"{}\"\n", broker.url()));
    let mut tail = Program::start(&["run", "--role", "tail"], &toml, &[]);
    assert_ne!(tail.wait(AMPLE).await, Some(0));
    let said = tail.output().join("\n");
    assert!(said.contains(&no_room("2", 1 << 28)), "{said}");
}

/// `run` alone does not look at `[relay]`.
#[tokio::test]
async fn a_broker_that_is_away_does_not_matter_to_run_alone() {
    let database = prepared().await;
    let toml = configuration(&database, &format!("{REST}url = \"nats://127.0.0.1:1\"\n"));
    let mut service = Service::start(&toml).await;
    service.wait_for_status("/ready", 200).await;
    service.stop().await;
}

#[tokio::test]
async fn a_role_without_a_broker_is_refused() {
    let database = prepared().await;
    let rest = "[[event]]\ntype = \"order\"\ntable = \"public.orders\"\n\
                [webhook]\nurls = [\"http://127.0.0.1:9/\"]\n";
    for role in ["tail", "deliver"] {
        let toml = configuration(&database, rest);
        let mut program = Program::start(&["run", "--role", role], &toml, &[]);
        let code = program.wait(AMPLE).await;
        let said = program.output().join("\n");
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("--role needs a broker"), "{said}");
    }
}
