//! libpq's parameters: which of them hold here, and what is said of those that do not.
//!
//! A parameter that libpq has is never passed over: either it means what it means there, or asking
//! for more than its default is refused by name.

use crate::config::toml_file::naming::nearest;

/// Parameters that mean what libpq says.
const HOLD: [&str; 30] = [
    "application_name",
    "channel_binding",
    "client_encoding",
    "connect_timeout",
    "dbname",
    "fallback_application_name",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    // As `keepalives_count`; the name that other drivers have.
    "keepalives_retries",
    "load_balance_hosts",
    "options",
    "passfile",
    "password",
    "port",
    "service",
    "servicefile",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslnegotiation",
    "sslrootcert",
    "ssl_min_protocol_version",
    "target_session_attrs",
    "tcp_user_timeout",
    "user",
    "sslsni",
];

/// Parameters of libpq of which only these values hold, and what to do about others.
const PARTLY: [(&str, &[&str], &str); 24] = [
    ("gssdelegation", &["0"], "GSSAPI is not spoken: remove it"),
    ("gssencmode", &["disable", "prefer"], "GSSAPI is not spoken: give disable, and sslmode"),
    ("gsslib", &[], "GSSAPI is not spoken: remove it"),
    ("krbsrvname", &[], "GSSAPI is not spoken: remove it"),
    ("max_protocol_version", &["3.0", "latest"], "protocol 3.0 is spoken: remove it"),
    ("min_protocol_version", &["3.0"], "protocol 3.0 is spoken: remove it"),
    ("oauth_client_id", &[], "OAuth is not spoken: use a password or a certificate"),
    ("oauth_client_secret", &[], "OAuth is not spoken: use a password or a certificate"),
    ("oauth_issuer", &[], "OAuth is not spoken: use a password or a certificate"),
    ("oauth_scope", &[], "OAuth is not spoken: use a password or a certificate"),
    ("replication", &[], "walhook sets it itself: remove it"),
    ("require_auth", &[], "it is not checked: use channel_binding=require or sslmode=verify-full"),
    ("requirepeer", &[], "it is not checked: remove it"),
    ("requiressl", &["0"], "use sslmode=require"),
    ("scram_client_key", &[], "it is not used: give the password"),
    ("scram_server_key", &[], "it is not used: give the password"),
    ("sslcertmode", &["allow"], "a certificate is sent when the server asks for one: remove it"),
    ("sslcompression", &["0", "1"], "TLS is never compressed: remove it"),
    ("sslcrl", &[], "revocation lists are not read: remove it"),
    ("sslcrldir", &[], "revocation lists are not read: remove it"),
    ("sslkeylogfile", &[], "keys are never logged: remove it"),
    ("sslpassword", &[], "encrypted keys are not read: give sslkey without a passphrase"),
    ("ssl_max_protocol_version", &["TLSv1.3"], "the newest version is used: remove it"),
    (
        "ssl_min_protocol_version",
        &["TLSv1", "TLSv1.1", "TLSv1.2"],
        "TLS 1.2 and 1.3 are spoken: give TLSv1.2",
    ),
];

/// Refuses what is no parameter. What `hides` says may be a piece of a password is not named.
pub(super) fn known(name: &str, hides: bool) -> Result<(), String> {
    if HOLD.contains(&name) || PARTLY.iter().any(|(known, ..)| *known == name) {
        return Ok(());
    }
    let suggestion = nearest(name, HOLD);
    let is_word = !name.is_empty()
        && name.len() <= 40
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    let unknown = if is_word && !hides {
        format!("has an unknown parameter, {name}")
    } else if hides {
        "has an unknown parameter behind its password, which may be a piece of it (special \
         characters of a URL are percent-encoded, values with blanks stand in '...')"
            .to_owned()
    } else {
        "has an unknown parameter".to_owned()
    };
    Err(match suggestion {
        Some(suggestion) => format!("{unknown}: did you mean {suggestion}?"),
        None => format!("{unknown}: known are {}", HOLD.join(", ")),
    })
}

/// Refuses values that would be passed over.
pub(super) fn refuse_others(pairs: &[(String, String)]) -> Result<(), String> {
    for (name, values, instead) in PARTLY {
        let given = pairs.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value);
        if given.is_some_and(|value| !value.is_empty() && !values.contains(&value.as_str())) {
            return Err(format!("asks with {name} for what does not hold here: {instead}"));
        }
    }
    Ok(())
}

pub(super) fn is_port(text: &str) -> bool {
    text.is_empty() || text.trim().parse::<u16>().is_ok_and(|port| port > 0)
}
