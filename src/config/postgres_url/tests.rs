//! Connection strings and what they mean.

use super::*;
use proptest::prelude::*;
use tokio_postgres::config::Host;

/// A process without any variables.
fn bare(_: &str) -> Option<String> {
    None
}

fn sound(text: &str) -> ServerSettings {
    parse(text, &bare).unwrap_or_else(|message| panic!("{text} {message}"))
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
    assert_eq!(server.tls, TlsSettings::default());
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
    let expected = TlsSettings {
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

#[test]
fn time_limits_have_the_units_of_libpq() {
    let params = sound(
        "postgres://u@h/d?tcp_user_timeout=10000&keepalives_idle=7&keepalives_interval=2\
         &keepalives_count=4&connect_timeout=9",
    )
    .params;
    assert_eq!(params.get_tcp_user_timeout(), Some(&Duration::from_secs(10)));
    assert_eq!(params.get_keepalives_idle(), Duration::from_secs(7));
    assert_eq!(params.get_keepalives_interval(), Some(Duration::from_secs(2)));
    assert_eq!(params.get_keepalives_retries(), Some(4));
    assert_eq!(params.get_connect_timeout(), Some(&Duration::from_secs(9)));
    let other = sound("host=h user=u keepalives_retries=5 connect_timeout=0 tcp_user_timeout=0");
    assert_eq!(other.params.get_keepalives_retries(), Some(5));
    assert_eq!(other.params.get_connect_timeout(), Some(&CONNECT_TIMEOUT_MAX));
    assert_eq!(other.params.get_tcp_user_timeout(), None, "the system's own");
    let silent = sound("postgres://u@h/d").params;
    assert_eq!(silent.get_tcp_user_timeout(), Some(&TCP_USER_TIMEOUT));
    assert_eq!(silent.get_keepalives_idle(), KEEPALIVES_IDLE);
    assert!(
        silent.get_keepalives() && !sound("host=h user=u keepalives=0").params.get_keepalives()
    );
}

#[test]
fn every_word_of_target_session_attrs_holds() {
    for (word, attrs) in SESSION_ATTRS {
        let server = sound(&format!("postgres://u@a,b/d?target_session_attrs={word}"));
        assert_eq!(server.attrs, attrs, "case: {word}");
    }
    assert_eq!(sound("postgres://u@h").attrs, SessionAttrs::Any);
}

#[test]
fn variables_and_services_fill_in_what_the_string_leaves_open() {
    let folder = tempfile::tempdir().unwrap();
    let services = folder.path().join("services.conf");
    std::fs::write(&services, "[shop]\nhost=db\nport=6000\nuser=svc\npassword=of-service\n")
        .unwrap();
    let file = services.display().to_string();
    let env = |name: &str| {
        let value = match name {
            "PGHOST" => "elsewhere",
            "PGUSER" => "pat",
            "PGPASSWORD" => "of variable",
            "PGDATABASE" => "shop",
            "PGAPPNAME" => "",
            "PGSERVICEFILE" => &file,
            "PGSSLMODE" => "require",
            "HOME" => "/home/pat",
            _ => return None,
        };
        Some(value.to_owned())
    };
    let of_variables = parse("postgres:///", &env).unwrap();
    let params = &of_variables.params;
    assert_eq!(params.get_hosts(), [Host::Tcp("elsewhere".to_owned())]);
    assert_eq!(params.get_user(), Some("pat"));
    assert_eq!(params.get_password(), Some(b"of variable".as_slice()));
    assert_eq!(params.get_dbname(), Some("shop"));
    assert_eq!(params.get_application_name(), Some("walhook"), "an empty one is none");
    assert_eq!(of_variables.tls.mode, TlsMode::Require);
    assert_eq!(of_variables.password_file.as_deref(), Some("/home/pat/.pgpass".as_ref()));

    let own = parse("postgres://ann:own@h:7/d?sslmode=disable&passfile=/p", &env).unwrap();
    assert_eq!((own.params.get_user(), own.params.get_ports()), (Some("ann"), [7].as_slice()));
    assert_eq!(own.params.get_password(), Some(b"own".as_slice()));
    assert_eq!(own.tls.mode, TlsMode::Disable);
    assert_eq!(own.password_file.as_deref(), Some("/p".as_ref()));

    let of_service = parse("service=shop port=7000", &env).unwrap().params;
    assert_eq!(of_service.get_hosts(), [Host::Tcp("db".to_owned())], "before the variables");
    assert_eq!((of_service.get_user(), of_service.get_ports()), (Some("svc"), [7000].as_slice()));
    let missing = parse("postgres:///?service=none", &env).unwrap_err();
    assert!(missing.contains("[none]") && missing.contains(&file), "{missing}");
    assert!(sound("postgres://h/d").params.get_user().is_some(), "the user of this process");
}

#[test]
fn a_password_with_special_characters_is_named_and_not_shown() {
    for text in [
        "postgres://u:s3cr@et@host/db",
        "postgres://u:s3cr/et@host/db",
        "postgres://u:s3cr?et@host/db@et",
        "postgres://u:s3@cr?et@host/db",
        "postgres://u:s3cr@et:x@host/db?sslmode=require",
        "postgres://s3cr/et?x=@host",
    ] {
        let message = parse(text, &bare).unwrap_err();
        assert!(message.contains("%40") && message.contains("%2F"), "{text}: {message}");
        assert!(!message.contains("s3") && !message.contains("et@"), "{text}: {message}");
    }
    // These are whole, as libpq reads them.
    for (text, password) in [
        ("postgres://u:s3cr?et@host/db", "s3cr?et"),
        ("postgres://u:s3#cr:et@host/db", "s3#cr:et"),
        ("postgres://u:s3cr%40e%2Ft+@host/db", "s3cr@e/t+"),
    ] {
        assert_eq!(sound(text).params.get_password(), Some(password.as_bytes()), "{text}");
    }
}

#[test]
fn what_does_not_hold_is_refused_by_name_and_nothing_is_passed_over() {
    for (parameter, named) in [
        ("foo=1", "foo"),
        ("requirepeer=postgres", "requirepeer"),
        ("gssencmode=require", "gssencmode"),
        ("sslcrl=/c", "sslcrl"),
        ("replication=database", "replication"),
        ("ssl_min_protocol_version=TLSv1.3", "ssl_min_protocol_version"),
        ("client_encoding=LATIN1", "client_encoding"),
        ("target_session_attrs=master", "prefer-standby"),
        ("tcp_user_timeout=10s", "milliseconds"),
        ("sslnegotiation=direct", "sslnegotiation"),
        ("hostaddr=nowhere", "hostaddr"),
    ] {
        let message = parse(&format!("postgres://u@h/d?{parameter}"), &bare).unwrap_err();
        assert!(message.contains(named), "{parameter}: {message}");
    }
    for parameter in [
        "gssencmode=prefer",
        "sslcompression=0",
        "client_encoding=utf8",
        "ssl_min_protocol_version=TLSv1.2",
        "krbsrvname=",
        "sslsni=1",
        "ssl=true",
        "channel_binding=prefer",
        "load_balance_hosts=random",
        "hostaddr=10.0.0.1",
    ] {
        sound(&format!("postgres://u@h/d?{parameter}"));
    }
    // What stands behind a password may be its end.
    for text in ["host=h user=u password=a hunter2=b", "postgres://h/d?password=a&hunter2=b"] {
        let message = parse(text, &bare).unwrap_err();
        assert!(!message.contains("hunter2"), "{message}");
    }
}

proptest! {
    #[test]
    fn a_password_never_stands_in_an_error(
        before in r"(postgres://|host=h |)[a-z:@/?&=%' \\,]{0,20}",
        after in r"[a-z:@/?&=%' \\,]{0,20}",
    ) {
        if let Err(message) = parse(&format!("{before}HUNTER2{after}"), &bare) {
            prop_assert!(!message.contains("HUNTER2"), "{}", message);
        }
    }
}
