//! What libpq takes from elsewhere where the string says nothing: a service file, the environment,
//! the system's user.
//!
//! Order: the string, the service, the variables, the defaults (PostgreSQL manual, "Environment
//! Variables" and "The Connection Service File"). The password file is looked at for each connection
//! anew; only its place is settled here.

use std::path::Path;
use std::path::PathBuf;

use crate::config::postgres_url::pairs::Pairs;
use crate::config::postgres_url::words;
use crate::config::toml_file::text_file;

/// A larger service file is none.
const SERVICE_FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Each with the parameter that it stands for.
const VARIABLES: [(&str, &str); 28] = [
    ("PGHOST", "host"),
    ("PGHOSTADDR", "hostaddr"),
    ("PGPORT", "port"),
    ("PGDATABASE", "dbname"),
    ("PGUSER", "user"),
    ("PGPASSWORD", "password"),
    ("PGPASSFILE", "passfile"),
    ("PGREQUIREAUTH", "require_auth"),
    ("PGCHANNELBINDING", "channel_binding"),
    ("PGOPTIONS", "options"),
    ("PGAPPNAME", "application_name"),
    ("PGSSLMODE", "sslmode"),
    ("PGREQUIRESSL", "requiressl"),
    ("PGSSLNEGOTIATION", "sslnegotiation"),
    ("PGSSLCOMPRESSION", "sslcompression"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLKEY", "sslkey"),
    ("PGSSLCERTMODE", "sslcertmode"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGSSLCRL", "sslcrl"),
    ("PGREQUIREPEER", "requirepeer"),
    ("PGSSLMINPROTOCOLVERSION", "ssl_min_protocol_version"),
    ("PGSSLMAXPROTOCOLVERSION", "ssl_max_protocol_version"),
    ("PGGSSENCMODE", "gssencmode"),
    ("PGCONNECT_TIMEOUT", "connect_timeout"),
    ("PGTARGETSESSIONATTRS", "target_session_attrs"),
    ("PGLOADBALANCEHOSTS", "load_balance_hosts"),
    ("PGCLIENTENCODING", "client_encoding"),
];

/// Adds what the string leaves open. Problems are said with the source's name.
pub(super) fn complete(
    pairs: &mut Pairs,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<(), String> {
    let env = |name: &str| env(name).filter(|value| !value.is_empty());
    if let Some(service) = given(pairs, "service").or_else(|| env("PGSERVICE")) {
        let found = service_entries(&service, given(pairs, "servicefile"), &env)?;
        add(pairs, found);
    }
    let variables =
        VARIABLES.iter().filter_map(|(name, key)| Some(((*key).to_owned(), env(name)?)));
    add(pairs, variables.collect());
    if given(pairs, "user").is_none()
        && let Some(user) = system_user(&env)
    {
        pairs.push(("user".to_owned(), user));
    }
    if given(pairs, "passfile").is_none()
        && let Some(home) = env("HOME")
    {
        let file = Path::new(&home).join(".pgpass");
        pairs.push(("passfile".to_owned(), file.display().to_string()));
    }
    Ok(())
}

/// The value of a parameter; an empty one counts as none.
pub(super) fn given(pairs: &Pairs, name: &str) -> Option<String> {
    let found = pairs.iter().rev().find(|(key, _)| key == name);
    found.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
}

fn add(pairs: &mut Pairs, found: Pairs) {
    for (key, value) in found {
        // A list of hosts and their addresses belong together: of one source or the other.
        if given(pairs, &key).is_none() {
            pairs.retain(|(known, _)| *known != key);
            pairs.push((key, value));
        }
    }
}

/// The section `[service]` of the user's file, or of the system's.
fn service_entries(
    service: &str,
    file: Option<String>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Pairs, String> {
    let of_user = file
        .or_else(|| env("PGSERVICEFILE"))
        .map(PathBuf::from)
        .or_else(|| env("HOME").map(|home| Path::new(&home).join(".pg_service.conf")));
    let of_system = env("PGSYSCONFDIR").map(|folder| Path::new(&folder).join("pg_service.conf"));
    let files: Vec<PathBuf> = of_user.into_iter().chain(of_system).collect();
    for file in files.iter().filter(|file| file.exists()) {
        let text = text_file::read(file, SERVICE_FILE_BYTES_MAX)
            .map_err(|error| format!("names a service, and {} {error}", file.display()))?;
        if let Some(found) = section(&text, service) {
            return found.map_err(|line| format!("names a service, and {} {line}", file.display()));
        }
    }
    let looked: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    Err(format!("names a service that is not in {}: add [{service}] there", looked.join(" or ")))
}

fn section(text: &str, service: &str) -> Option<Result<Pairs, String>> {
    let mut lines = (1..).zip(text.lines().map(str::trim));
    lines.find(|(_, line)| {
        line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) == Some(service)
    })?;
    let mut pairs = Pairs::new();
    for (number, line) in lines {
        if line.starts_with('[') {
            break;
        }
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, value)) = line.split_once('=') else {
            return Some(Err(format!("line {number} is no name=value: correct it")));
        };
        let (name, value) = (name.trim(), value.trim());
        let hides = pairs.iter().any(|(key, _)| key == "password");
        if let Err(unknown) = words::known(name, hides) {
            return Some(Err(format!("line {number} {unknown}")));
        }
        pairs.push((name.to_owned(), value.to_owned()));
    }
    Some(Ok(pairs))
}

/// The name of the user that this process runs as.
fn system_user(env: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let id = rustix::process::geteuid().as_raw().to_string();
    let entries = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let of_id = |line: &str| {
        let mut fields = line.split(':');
        let (name, _, found) = (fields.next()?, fields.next()?, fields.next()?);
        (found == id).then(|| name.to_owned())
    };
    // Users of a directory service are not in the file.
    entries.lines().find_map(of_id).or_else(|| env("USER")).or_else(|| env("LOGNAME"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_one_section() {
        let text = "# all\n[a]\nhost=one\n\n [b] \nhost = two \n# c\nport=7\n[c]\nhost=three\n";
        let found = section(text, "b").unwrap().unwrap();
        assert_eq!(found, [("host".into(), "two".into()), ("port".into(), "7".into())]);
        assert!(section(text, "d").is_none());
        let wrong = section("[a]\npassword=x\nhunter2=y", "a").unwrap().unwrap_err();
        assert!(wrong.starts_with("line 3 ") && !wrong.contains("hunter2"), "{wrong}");
        assert!(section("[a]\nhost", "a").unwrap().unwrap_err().contains("line 2"));
    }
}
