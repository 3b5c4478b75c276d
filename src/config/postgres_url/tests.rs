//! Connection strings and what they mean.

use super::*;
use proptest::prelude::*;
use tokio_postgres::config::Host;

fn sound(text: &str) -> Server {
    parse(text).unwrap_or_else(|message| panic!("{text} {message}"))
}

#[test]
fn urls_and_pairs_mean_the_same() {
    for text in [
        "postgres://ann:p%40ss@db:6432/app?connect_timeout=7",
        "postgresql://ann:p%40ss@db:6432/app?connect_timeout=7",
        "postgres://db:6432/app?user=ann&password=p%40ss&connect_timeout=7",
        "host=db port=6432 user=ann password=p@ss dbname=app connect_timeout=7",
        "  host = db  port='6432' user='ann'\npassword=p\\@ss dbname=app connect_timeout=7 ",
    ] {
        let params = sound(text).params;
        assert_eq!(params.get_hosts(), [Host::Tcp("db".to_owned())], "case: {text}");
        assert_eq!(params.get_ports(), [6432], "case: {text}");
        assert_eq!(params.get_user(), Some("ann"), "case: {text}");
        assert_eq!(params.get_password(), Some("p@ss".as_bytes()), "case: {text}");
        assert_eq!(params.get_dbname(), Some("app"), "case: {text}");
        assert_eq!(params.get_connect_timeout(), Some(&Duration::from_secs(7)), "case: {text}");
    }
}

#[test]
fn what_is_left_out_has_defaults() {
    let server = sound("postgres://ann@db");
    assert_eq!(server.params.get_dbname(), Some("ann"));
    assert_eq!(server.params.get_application_name(), Some("walhook"));
    assert_eq!(server.params.get_connect_timeout(), Some(&CONNECT_TIMEOUT));
    assert_eq!(server.tls, Tls::default());
}

#[test]
fn hosts_may_be_many_or_a_socket() {
    let many = sound("postgres://u@a:1,b:2/db?target_session_attrs=read-write").params;
    assert_eq!((many.get_hosts().len(), many.get_ports()), (2, [1, 2].as_slice()));
    let socket = sound("postgres:///db?host=%2Frun%2Fpostgresql&user=u&sslmode=disable").params;
    assert_eq!(socket.get_hosts(), [Host::Unix("/run/postgresql".into())]);
}

#[test]
fn tls_parameters_are_kept_apart() {
    let modes = [
        ("disable", TlsMode::Disable),
        ("allow", TlsMode::Allow),
        ("prefer", TlsMode::Prefer),
        ("require", TlsMode::Require),
        ("verify-ca", TlsMode::VerifyCa),
        ("verify-full", TlsMode::VerifyFull),
    ];
    for (name, mode) in modes {
        assert_eq!(sound(&format!("postgres://u@h/db?sslmode={name}")).tls.mode, mode);
        assert_eq!(sound(&format!("host=h user=u sslmode={name}")).tls.mode, mode);
    }
    let expected = Tls {
        mode: TlsMode::VerifyFull,
        root_cert: Some("/etc/a b+c.pem".to_owned()),
        client: Some(("c.pem".to_owned(), "k.pem".to_owned())),
    };
    for text in [
        "postgres://u:p?w@h/db?sslmode=verify-full&options=-cx%3Dy&sslrootcert=/etc/a%20b+c.pem\
         &sslcert=c.pem&sslkey=k.pem",
        "host=h user=u options='-cx=y' sslmode=verify-full sslrootcert='/etc/a b+c.pem' \
         sslcert=c.pem sslkey=k.pem",
    ] {
        let server = sound(text);
        assert_eq!(server.tls, expected, "case: {text}");
        assert_eq!(server.params.get_options(), Some("-cx=y"), "case: {text}");
    }
    let system = sound("postgres://u@h/db?sslrootcert=system").tls;
    assert_eq!((system.mode, system.root_cert), (TlsMode::VerifyFull, None));
}

#[test]
fn quotes_and_backslashes_of_pairs_reach_the_server_as_meant() {
    let params = sound(r"host=h user='o\'neil' password='a\\b c' dbname=''").params;
    assert_eq!(params.get_user(), Some("o'neil"));
    assert_eq!(params.get_password(), Some(br"a\b c".as_slice()));
    assert_eq!(params.get_dbname(), Some("o'neil"));
}

proptest! {
    #[test]
    fn a_password_never_stands_in_an_error(
        before in r"(postgres://|host=h |)[a-z:@/?&=%' \\,]{0,20}",
        after in r"[a-z:@/?&=%' \\,]{0,20}",
    ) {
        if let Err(message) = parse(&format!("{before}HUNTER2{after}")) {
            prop_assert!(!message.contains("HUNTER2"), "{}", message);
        }
    }
}
