//! `store::session::dial`, by cases.

use super::*;
use crate::config::settings::TlsSettings;

fn server(url: &str) -> ServerSettings {
    ServerSettings::new(url.parse().unwrap(), TlsSettings::default())
}

#[test]
fn each_host_gets_its_port() {
    let shown = |url: &str| {
        targets(&server(url)).unwrap().iter().map(DialTarget::shown).collect::<Vec<_>>()
    };
    assert_eq!(shown("postgres://u@a,b:6000/d"), ["a:5432", "b:6000"]);
    assert_eq!(shown("host=a,b port=7000 user=u"), ["a:7000", "b:7000"]);
    assert_eq!(shown("host=/run/pg port=7000 user=u"), ["/run/pg port 7000"]);
    assert_eq!(shown("hostaddr=127.0.0.1 user=u"), ["127.0.0.1:5432"]);
}

#[test]
fn lists_of_different_lengths_are_refused() {
    let error = targets(&server("host=a,b port=1,2,3 user=u")).unwrap_err();
    assert!(matches!(error, StoreError::HostLists), "{error}");
}

#[test]
fn a_unix_socket_is_never_encrypted() {
    let target = DialTarget::Unix { folder: PathBuf::from("/run"), port: 1 };
    assert_eq!(encryptions(&target, TlsMode::VerifyFull), [Encryption::Plain]);
}

#[tokio::test]
async fn an_unknown_host_is_named() {
    let server = server("postgres://u@nowhere.invalid/d");
    let error = dial(&server, |_, _| async { Ok(()) }).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::UnknownHost { host, .. } if host == "nowhere.invalid"),
        "{error}"
    );
}

#[tokio::test]
async fn the_next_host_is_tried_when_one_is_away() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = format!("host=nowhere.invalid,127.0.0.1 port={port} user=u");
    let server = ServerSettings {
        tls: TlsSettings { mode: TlsMode::Disable, ..TlsSettings::default() },
        ..server(&url)
    };
    let at =
        dial(&server, |transport, _| async move { Ok(transport.at().to_owned()) }).await.unwrap();
    assert_eq!(at, format!("127.0.0.1:{port}"));
}
