//! libpq's password file: lines of `host:port:database:user:password`, the first that fits counts.
//!
//! Format: PostgreSQL manual, "The Password File". `*` fits everything, `\` escapes the character
//! after it, `localhost` stands for the default socket as well.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::config::toml_file::text_file;

/// A larger file is none.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The folders of sockets for which libpq looks under `localhost`.
const SOCKET_FOLDERS: [&str; 3] = ["/var/run/postgresql", "/run/postgresql", "/tmp"];

/// Whose password is looked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PasswordLogin<'a> {
    /// A name, an address, or a socket's folder.
    pub host: &'a str,
    pub port: u16,
    pub database: &'a str,
    pub user: &'a str,
}

/// The password for this login; `None` if there is no such file or line.
///
/// # Errors
/// Why the file is not used, as the rest of a sentence whose subject is the file.
pub(crate) fn find(file: &Path, login: PasswordLogin<'_>) -> Result<Option<String>, String> {
    let Ok(metadata) = std::fs::metadata(file) else { return Ok(None) };
    if metadata.is_file() && metadata.permissions().mode() & 0o077 != 0 {
        return Err("is not used, because others may read it: run chmod 600 on it".to_owned());
    }
    let text = text_file::read(file, FILE_BYTES_MAX)?;
    Ok(text.lines().find_map(|line| fitting(line, login)))
}

fn fitting(line: &str, login: PasswordLogin<'_>) -> Option<String> {
    if line.starts_with('#') {
        return None;
    }
    let is_socket = SOCKET_FOLDERS.contains(&login.host);
    let host = if is_socket { "localhost" } else { login.host };
    let port = login.port.to_string();
    let mut rest = line;
    for wanted in [host, &port, login.database, login.user] {
        let (field, after) = field(rest)?;
        if field != PasswordField::Any && field != PasswordField::Text(wanted.to_owned()) {
            return None;
        }
        rest = after;
    }
    let mut password = String::new();
    let mut chars = rest.trim_end_matches('\r').chars();
    while let Some(c) = chars.next() {
        password.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
    }
    Some(password).filter(|password| !password.is_empty())
}

#[derive(Debug, Eq, PartialEq)]
enum PasswordField {
    Any,
    Text(String),
}

/// The field that `text` starts with, and what follows its colon.
fn field(text: &str) -> Option<(PasswordField, &str)> {
    if let Some(rest) = text.strip_prefix("*:") {
        return Some((PasswordField::Any, rest));
    }
    let mut value = String::new();
    let mut chars = text.chars();
    loop {
        match chars.next()? {
            ':' => return Some((PasswordField::Text(value), chars.as_str())),
            '\\' => value.push(chars.next()?),
            c => value.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::fs::Permissions;

    const LOGIN: PasswordLogin<'_> =
        PasswordLogin { host: "db.example.com", port: 6432, database: "app", user: "a:b" };

    #[test]
    fn the_first_line_that_fits_counts() {
        let cases = [
            ("db.example.com:6432:app:a\\:b:secret", Some("secret")),
            ("*:*:*:*:any", Some("any")),
            ("*:*:*:*:with\\:colon\\\\ and : plain", Some("with:colon\\ and : plain")),
            ("*:*:*:*:line\r", Some("line")),
            ("db.example.com:6432:app:a:b:secret", None),
            ("db.example.com:5432:app:*:secret", None),
            ("other:*:*:*:secret", None),
            ("*:*:*:a\\:b", None),
            ("*:*:*:*:", None),
            ("#*:*:*:*:secret", None),
            ("\\*:*:*:*:secret", None),
            ("", None),
        ];
        for (line, expected) in cases {
            assert_eq!(fitting(line, LOGIN).as_deref(), expected, "case: {line}");
        }
        let socket = PasswordLogin { host: "/var/run/postgresql", ..LOGIN };
        assert_eq!(fitting("localhost:*:*:*:secret", socket).as_deref(), Some("secret"));
        let socket = PasswordLogin { host: "/srv/pg", ..LOGIN };
        assert_eq!(fitting("localhost:*:*:*:secret", socket), None);
        assert_eq!(fitting("/srv/pg:*:*:*:secret", socket).as_deref(), Some("secret"));
    }

    #[test]
    fn a_file_that_others_may_read_is_not_used_and_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pgpass");
        assert_eq!(find(&file, LOGIN), Ok(None), "there is none");
        fs::write(&file, "# ours\n*:*:*:*:secret\n").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        let refused = find(&file, LOGIN).unwrap_err();
        assert!(refused.contains("chmod 600") && !refused.contains("secret"), "{refused}");
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        assert_eq!(find(&file, LOGIN), Ok(Some("secret".to_owned())));
        assert!(find(folder.path(), LOGIN).unwrap_err().contains("regular file"));
    }
}
