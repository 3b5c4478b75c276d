//! `cli::init`, by cases.

use super::*;
use crate::cli::receive::signature::VerificationKey;
use std::os::unix::fs::PermissionsExt as _;

fn init(url: &str, role: Option<&str>) -> Init {
    Init {
        database_url: Some(url.to_owned()),
        tables: Vec::new(),
        url: Url::parse(TRIAL_ENDPOINT).unwrap(),
        role: role.map(str::to_owned),
        backfill: false,
        output: None,
        force: false,
        json: false,
    }
}

#[test]
fn a_password_never_goes_into_the_file() {
    let variable = "${DATABASE_URL}";
    let cases = [
        ("postgres://app@db/shop", None, "postgres://app@db/shop"),
        ("postgres://app@db/shop", Some("app"), "postgres://app@db/shop"),
        ("postgres://app@db/shop", Some("walhook"), variable),
        ("postgres://app:hunter2@db/shop", None, variable),
        ("postgres://app@db/shop?password=hunter2", None, variable),
        ("host=db user=app password=hunter2", None, variable),
    ];
    for (url, role, expected) in cases {
        let database = init(url, role).database().unwrap();
        assert_eq!(database.shown, expected, "case: {url}");
    }
}

#[test]
fn an_unreadable_url_is_bad_usage_and_is_not_repeated() {
    let refused = init("postgres://app:hunter2@db:port/shop", None).database();
    let error = refused.map(|_| ()).unwrap_err();
    assert_eq!(error.exit(), ExitStatus::Usage);
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[test]
fn a_file_that_exists_is_kept_unless_forced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("walhook.toml");
    write(&path, "first", false).unwrap();
    let error = write(&path, "second", false).unwrap_err();
    assert_eq!(error.exit(), ExitStatus::Usage);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "first");
    write(&path, "third", true).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "third");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn each_secret_is_new_and_a_valid_one() {
    let (one, other) = (fresh_secret().unwrap(), fresh_secret().unwrap());
    assert_ne!(one, other);
    assert!(VerificationKey::parse(&one).is_ok());
}

#[test]
fn endpoints_are_http_addresses() {
    for (text, good) in [
        ("https://crm.example.com/hooks", true),
        ("http://127.0.0.1:9999/", true),
        ("crm.example.com", false),
        ("ftp://crm.example.com/", false),
    ] {
        assert_eq!(parse_endpoint(text).is_ok(), good, "case: {text}");
    }
}
