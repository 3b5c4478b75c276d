//! Getting in: methods of authentication, TLS, sockets, refusals.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]
#![expect(clippy::panic, reason = "a test may stop at once")]

use std::time::Duration;
use std::time::Instant;

use walhook::testing::config::settings::TlsMode;
use walhook::testing::config::settings::TlsSettings;
use walhook::testing::replication::diagnostic::SetupDiagnostic;
use walhook::testing::replication::error::SourceError;
use walhook::testing::replication::wire::command;
use walhook::testing::replication::wire::command::NewSlot;
use walhook::testing::sandbox::cluster::ClusterOptions;
use walhook::testing::sandbox::cluster::SandboxCluster;
use walhook::testing::store;
use walhook::testing::store::error::StoreError;

use super::TIMEOUT;
use super::server;
use super::server_with;
use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::support::postgres::start_cluster;
use crate::support::postgres::wait_for_text;

const ROLES: &str = "
    CREATE ROLE open LOGIN REPLICATION;
    CREATE ROLE plain LOGIN REPLICATION PASSWORD 'pä\"ss';
    SET password_encryption = 'md5';
    CREATE ROLE old LOGIN REPLICATION PASSWORD 'pä\"ss';
    SET password_encryption = 'scram-sha-256';
    CREATE ROLE scram LOGIN REPLICATION PASSWORD 'pä\"ss';";

const PASSWORD: &str = "p%C3%A4%22ss";

async fn cluster_with_roles() -> (SandboxCluster, Sql) {
    let cluster = start_cluster(ClusterOptions::default()).await;
    let sql = Sql::connect(&cluster.socket_url("postgres")).await;
    sql.batch_execute(ROLES).await.unwrap();
    (cluster, sql)
}

fn url(cluster: &SandboxCluster, user: &str, password: &str) -> String {
    format!("postgres://{user}:{password}@127.0.0.1:{}/postgres", cluster.port())
}

/// Both kinds of connection, one after the other.
async fn both(
    server: &walhook::testing::config::settings::ServerSettings,
) -> Result<(), StoreError> {
    let plain = store::connect(server).await?;
    let one = plain.client.query_one("SELECT 1, current_setting('TimeZone')", &[]).await?;
    assert_eq!((one.get::<_, i32>(0), one.get::<_, &str>(1)), (1, "UTC"));
    match command::connect(server, TIMEOUT).await {
        Ok(mut connection) => connection.identify_system().await.map(drop).map_err(cause),
        Err(error) => Err(cause(error)),
    }
}

fn cause(error: SourceError) -> StoreError {
    match error {
        SourceError::Connect(error) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn each_method_lets_in_who_knows_the_password() {
    let (mut cluster, _sql) = cluster_with_roles().await;
    let hba = [
        "host all open 127.0.0.1/32 trust",
        "host all plain 127.0.0.1/32 password",
        "host all old 127.0.0.1/32 md5",
        "host all scram 127.0.0.1/32 scram-sha-256",
    ];
    cluster.set_hba(&hba).unwrap();
    cluster.reload().unwrap();
    both(&server(&url(&cluster, "open", "whatever"))).await.unwrap();
    for user in ["plain", "old", "scram"] {
        both(&server(&url(&cluster, user, PASSWORD))).await.unwrap();

        let wrong = server(&url(&cluster, user, "guess"));
        let error = store::connect(&wrong).await.unwrap_err();
        assert!(matches!(error, StoreError::WrongPassword { .. }), "{user}: {error:?}");
        let error = cause(command::connect(&wrong, TIMEOUT).await.unwrap_err());
        assert!(matches!(error, StoreError::WrongPassword { .. }), "{user}: {error:?}");
        assert_eq!(error.exit() as u8, 3);
        assert!(!format!("{error:?} {error}").contains("guess"));

        let none = server(&url(&cluster, user, PASSWORD).replace(&format!(":{PASSWORD}"), ""));
        let error = store::connect(&none).await.unwrap_err();
        assert!(matches!(error, StoreError::PasswordMissing { .. }), "{user}: {error:?}");
        let error = cause(command::connect(&none, TIMEOUT).await.unwrap_err());
        assert!(matches!(error, StoreError::PasswordMissing { .. }), "{user}: {error:?}");
    }
    let bound = format!("{}?channel_binding=require", url(&cluster, "scram", PASSWORD));
    let error = both(&server(&bound)).await.unwrap_err();
    assert!(matches!(error, StoreError::NoChannelBinding), "{error:?}");
    let stranger = server(&url(&cluster, "stranger", "x"));
    let error = both(&stranger).await.unwrap_err();
    assert!(matches!(error, StoreError::NotAllowed { .. }), "{error:?}");
}

/// A CA, and a server certificate for `localhost`.
struct Certificates {
    ca: tempfile::NamedTempFile,
    certificate: String,
    key: String,
    client: (tempfile::NamedTempFile, tempfile::NamedTempFile),
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

fn path(file: &tempfile::NamedTempFile) -> String {
    file.path().to_str().unwrap().to_owned()
}

fn certificates() -> Certificates {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::new(params, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned()];
    let server = rcgen::CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    let client_key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, "scram");
    let client = params.signed_by(&client_key, &issuer).unwrap();
    Certificates {
        ca: file(&ca.pem()),
        certificate: server.pem(),
        key: key.serialize_pem(),
        client: (file(&client.pem()), file(&client_key.serialize_pem())),
    }
}

#[expect(clippy::print_stdout, reason = "a skipped test must not look like a passed one")]
async fn cluster_with_tls(certificates: &Certificates) -> Option<(SandboxCluster, Sql)> {
    let (mut cluster, sql) = cluster_with_roles().await;
    if sql.text("SHOW ssl_library").await.is_empty() {
        println!("SKIP TLS: needs a PostgreSQL with OpenSSL");
        return None;
    }
    cluster.put_file("server.crt", certificates.certificate.as_bytes()).unwrap();
    cluster.put_file("server.key", certificates.key.as_bytes()).unwrap();
    let ca = std::fs::read(certificates.ca.path()).unwrap();
    cluster.put_file("root.crt", &ca).unwrap();
    cluster.set("ssl_ca_file", "root.crt").unwrap();
    cluster.set("ssl", "on").unwrap();
    cluster.reload().unwrap();
    Some((cluster, sql))
}

#[tokio::test]
async fn every_sslmode_keeps_its_promise() {
    let certificates = certificates();
    let Some((mut cluster, sql)) = cluster_with_tls(&certificates).await else { return };
    cluster.set_hba(&["hostssl all all 127.0.0.1/32 scram-sha-256"]).unwrap();
    cluster.reload().unwrap();
    let stranger = self::certificates();
    let (ours, other) = (Some(path(&certificates.ca)), Some(path(&stranger.ca)));
    let by_address = url(&cluster, "scram", PASSWORD);
    let by_name = by_address.replace("127.0.0.1", "localhost") + "?hostaddr=127.0.0.1";
    let bound = format!("{by_name}&channel_binding=require");
    let cases = [
        ("disable is refused", &by_name, TlsMode::Disable, None, "not let user scram"),
        ("allow falls back to TLS", &by_name, TlsMode::Allow, None, ""),
        ("prefer", &by_name, TlsMode::Prefer, None, ""),
        ("require", &by_name, TlsMode::Require, None, ""),
        ("require with a wrong root", &by_name, TlsMode::Require, other.clone(), "TLS handshake"),
        ("verify-ca", &by_address, TlsMode::VerifyCa, ours.clone(), ""),
        ("verify-ca of a stranger", &by_name, TlsMode::VerifyCa, other, "TLS handshake"),
        ("verify-full", &by_name, TlsMode::VerifyFull, ours.clone(), ""),
        ("verify-full by address", &by_address, TlsMode::VerifyFull, ours.clone(), "handshake"),
        ("channel binding", &bound, TlsMode::VerifyFull, ours, ""),
    ];
    for (name, url, mode, root_cert, expected) in cases {
        let tls = TlsSettings { mode, root_cert, client: None };
        let server = walhook::testing::config::settings::ServerSettings { tls, ..server(url) };
        match both(&server).await {
            Ok(()) => assert_eq!(expected, "", "case: {name}"),
            Err(error) => {
                let text = error.to_string();
                assert!(!expected.is_empty() && text.contains(expected), "case: {name}: {text}");
            }
        }
    }
    let server = server_with(&by_name, TlsMode::Prefer);
    let _encrypted = command::connect(&server, TIMEOUT).await.unwrap();
    let count = "SELECT count(*) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid)
        WHERE s.ssl AND a.usename = 'scram' AND a.backend_type = 'walsender'";
    // Those of the cases above may not have ended yet.
    wait_for_text(&sql, count, "1").await;
}

#[tokio::test]
async fn prefer_goes_without_tls_where_it_must_and_require_does_not() {
    let certificates = certificates();
    let Some((mut cluster, _sql)) = cluster_with_tls(&certificates).await else { return };
    let url = url(&cluster, "scram", PASSWORD);
    cluster.set_hba(&["hostnossl all all 127.0.0.1/32 scram-sha-256"]).unwrap();
    cluster.reload().unwrap();
    both(&server_with(&url, TlsMode::Prefer)).await.unwrap();
    let error = both(&server_with(&url, TlsMode::Require)).await.unwrap_err();
    assert!(matches!(error, StoreError::NotAllowed { .. }), "{error:?}");

    cluster.set("ssl", "off").unwrap();
    cluster.reload().unwrap();
    both(&server_with(&url, TlsMode::Prefer)).await.unwrap();
    let error = both(&server_with(&url, TlsMode::Require)).await.unwrap_err();
    assert!(matches!(error, StoreError::TlsNotOffered { .. }), "{error:?}");
}

#[tokio::test]
async fn a_client_certificate_lets_in() {
    let certificates = certificates();
    let Some((mut cluster, _sql)) = cluster_with_tls(&certificates).await else { return };
    cluster.set_hba(&["hostssl all all 127.0.0.1/32 cert"]).unwrap();
    cluster.reload().unwrap();
    let client = Some((path(&certificates.client.0), path(&certificates.client.1)));
    let root_cert = Some(path(&certificates.ca));
    let tls = TlsSettings { mode: TlsMode::VerifyCa, root_cert, client };
    let server = server(&url(&cluster, "scram", "none"));
    let with =
        walhook::testing::config::settings::ServerSettings { tls: tls.clone(), ..server.clone() };
    both(&with).await.unwrap();
    let without = walhook::testing::config::settings::ServerSettings {
        tls: TlsSettings { client: None, ..tls },
        ..server
    };
    assert!(both(&without).await.is_err());
}

#[tokio::test]
async fn a_unix_socket_works_with_every_sslmode() {
    let cluster = start_cluster(ClusterOptions::default()).await;
    for mode in [TlsMode::Disable, TlsMode::Prefer, TlsMode::VerifyFull] {
        both(&server_with(&cluster.socket_url("postgres"), mode)).await.unwrap();
    }
}

#[tokio::test]
async fn a_host_list_finds_the_server_that_allows_writes() {
    let mut standby = start_cluster(ClusterOptions::default()).await;
    standby.set("default_transaction_read_only", "on").unwrap();
    standby.reload().unwrap();
    let primary = start_cluster(ClusterOptions::default()).await;
    let attrs = |attrs| {
        format!(
            "host=127.0.0.1,127.0.0.1 port={},{} user=postgres dbname=postgres \
             target_session_attrs={attrs}",
            standby.port(),
            primary.port()
        )
    };
    let (to_write, to_read) = (server(&attrs("read-write")), server(&attrs("read-only")));
    for (server, port) in [(to_write, primary.port()), (to_read, standby.port())] {
        let session = store::connect(&server).await.unwrap();
        let row = session.client.query_one("SELECT inet_server_port()", &[]).await.unwrap();
        assert_eq!(row.get::<_, i32>(0), i32::from(port));
        command::connect(&server, TIMEOUT).await.unwrap();
    }
}

#[tokio::test]
async fn refusals_come_quickly_and_say_why() {
    let database = Database::create().await;
    let sql = database.sql().await;
    let role = format!("{}_reader", database.name());
    sql.batch_execute(&format!("CREATE ROLE {role} LOGIN")).await.unwrap();
    let started = Instant::now();
    let connect = async |url: &str| command::connect(&server(url), TIMEOUT).await.unwrap_err();

    let url = database.url();
    let error = connect(&url.replace("postgres@", &format!("{role}@"))).await;
    assert!(
        matches!(&error, SourceError::Refused(SetupDiagnostic::NoReplicationRight { role: r, .. }) if *r == role),
        "{error:?}"
    );
    let error = connect(&url.replace(database.name(), "nowhere")).await;
    assert!(
        matches!(&error, SourceError::Connect(StoreError::NoDatabase { database }) if database == "nowhere"),
        "{error:?}"
    );
    let error = connect(&url.replace("127.0.0.1", "nowhere.invalid")).await;
    assert!(matches!(error, SourceError::Connect(StoreError::UnknownHost { .. })), "{error:?}");
    let error = connect("postgres://u@127.0.0.1:1/d").await;
    assert!(matches!(error, SourceError::Connect(StoreError::Unreachable { .. })), "{error:?}");

    // A port where somebody listens and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let error = connect(&format!("postgres://u@127.0.0.1:{port}/d?connect_timeout=1")).await;
    assert!(matches!(error, SourceError::Connect(StoreError::TimedOut { .. })), "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    sql.batch_execute(&format!("DROP ROLE {role}")).await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_short_of_something_says_of_what() {
    let options =
        ClusterOptions::default().with("max_wal_senders", "1").with("max_replication_slots", "1");
    let mut cluster = start_cluster(options).await;
    let server = server(&cluster.url("postgres"));
    let slot = |name| NewSlot { name, temporary: false, failover: false };
    let mut first = command::connect(&server, TIMEOUT).await.unwrap();
    let error = command::connect(&server, TIMEOUT).await.unwrap_err();
    assert!(
        matches!(error, SourceError::Refused(SetupDiagnostic::NoFreeWalSender { .. })),
        "{error:?}"
    );
    first.create_slot(slot("one")).await.unwrap();
    let error = first.create_slot(slot("two")).await.unwrap_err();
    assert!(
        matches!(error, SourceError::Refused(SetupDiagnostic::NoFreeSlot { max: 1 })),
        "{error:?}"
    );
    first.drop_slot("one").await.unwrap();
    drop(first);

    cluster.set("wal_level", "replica").unwrap();
    cluster.stop().unwrap();
    cluster.start_again().unwrap();
    let mut connection = command::connect(&server, TIMEOUT).await.unwrap();
    let error = connection.create_slot(slot("one")).await.unwrap_err();
    let expected = SetupDiagnostic::WalLevel { level: "replica".to_owned(), service: None };
    assert!(matches!(&error, SourceError::Refused(r) if *r == expected), "{error:?}");
}
