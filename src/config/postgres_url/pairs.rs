//! A connection string as names and values, read as libpq reads it.
//!
//! Format: PostgreSQL manual, "Connection Strings". Where libpq would go on with a host or database
//! that nobody meant, because a password has a character that stands for something else, this
//! refuses and names the character.

use crate::config::postgres_url::words;

/// A name and its value, decoded. Of several of one name the last counts.
pub(super) type Pairs = Vec<(String, String)>;

const PARAMETER: &str =
    "has a parameter without a value after its \"?\": write name=value, and & in a value as %26";

/// Nothing of what stands there is shown: it may be the password's end.
const UNESCAPED: &str = "has an @ behind its host: in a password, user or database name write @ as \
                         %40, / as %2F, ? as %3F and : as %3A";

const WITHOUT_VALUE: &str =
    "has a word without a value: write name=value, and a value with blanks in '...'";

const SHAPE: &str = "is no connection string: write postgres://user@host/database";

/// Both forms: `postgres://...` and `key=value`.
pub(super) fn read(text: &str) -> Result<Pairs, String> {
    if let Some(rest) = after_scheme(text) {
        return of_url(rest);
    }
    if text.split_once("://").is_some_and(|(scheme, _)| !scheme.contains(['=', ' '])) {
        return Err("is not a PostgreSQL URL: it must start with postgres://".to_owned());
    }
    of_words(text)
}

fn after_scheme(text: &str) -> Option<&str> {
    text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://"))
}

/// Everything behind the scheme.
fn of_url(text: &str) -> Result<Pairs, String> {
    let mut pairs = Pairs::new();
    let mut put = |name: &str, value: &str| -> Result<(), String> {
        if !value.is_empty() {
            pairs.push((name.to_owned(), decoded(name, value)?));
        }
        Ok(())
    };
    // As in libpq: credentials end at the first @, and a / before it says that there are none.
    let credentials = text.split_once('@').filter(|(before, _)| !before.contains('/'));
    if let Some((before, _)) = credentials {
        let (user, password) = before.split_once(':').unwrap_or((before, ""));
        put("user", user)?;
        put("password", password)?;
    }
    let rest = credentials.map_or(text, |(_, rest)| rest);
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (hosts, database) = place.split_once('/').unwrap_or((place, ""));
    // Behind the credentials an @ stands for nothing: a password goes on here.
    if place.contains('@') || (query.contains('@') && credentials.is_none()) {
        return Err(UNESCAPED.to_owned());
    }
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for host in hosts.split(',') {
        let (name, port) = host_and_port(host)?;
        names.push(name);
        ports.push(port);
    }
    if !ports.iter().all(|port| words::is_port(port)) {
        return Err("has a port that is no number from 1 to 65535: correct it, with special \
                    characters of the password percent-encoded (: is %3A, / is %2F)"
            .to_owned());
    }
    if names.iter().any(|name| !name.is_empty()) {
        put("host", &names.join(","))?;
    }
    if ports.iter().any(|port| !port.is_empty()) {
        put("port", &ports.join(","))?;
    }
    put("dbname", database)?;
    of_query(query, &mut pairs)?;
    Ok(pairs)
}

/// `host`, `host:port` or `[address]:port`.
fn host_and_port(text: &str) -> Result<(&str, &str), String> {
    let Some(bracketed) = text.strip_prefix('[') else {
        return Ok(text.split_once(':').unwrap_or((text, "")));
    };
    let (address, rest) = bracketed
        .split_once(']')
        .filter(|(address, _)| !address.is_empty())
        .ok_or("has a [ without an address and its ]: write [::1]:5432")?;
    match rest.strip_prefix(':') {
        Some(port) => Ok((address, port)),
        None if rest.is_empty() => Ok((address, "")),
        None => Err("has something between ] and the port: write [::1]:5432".to_owned()),
    }
}

fn of_query(query: &str, pairs: &mut Pairs) -> Result<(), String> {
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let hides = query.contains('@') || has_password(pairs);
        let wrong = if query.contains('@') { UNESCAPED } else { PARAMETER };
        let (name, value) = parameter.split_once('=').ok_or(wrong)?;
        if name.contains('@') {
            return Err(UNESCAPED.to_owned());
        }
        let name = decoded("a name", name)?;
        // What other drivers write for it; libpq knows it as well.
        if name == "ssl" && value == "true" {
            pairs.push(("sslmode".to_owned(), "require".to_owned()));
            continue;
        }
        words::known(&name, hides)?;
        pairs.push((name.clone(), decoded(&name, value)?));
    }
    Ok(())
}

/// `key=value`: values may be quoted with `'`, and `\` escapes the character after it.
fn of_words(text: &str) -> Result<Pairs, String> {
    let mut pairs = Pairs::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let Some((name, after)) = rest.split_once('=') else {
            return Err(if pairs.is_empty() { SHAPE } else { WITHOUT_VALUE }.to_owned());
        };
        let name = name.trim_end();
        words::known(name, has_password(&pairs))?;
        let (value, after) = word(after.trim_start())?;
        pairs.push((name.to_owned(), value));
        rest = after.trim_start();
    }
    Ok(pairs)
}

/// The value that `text` starts with, and what follows it.
fn word(text: &str) -> Result<(String, &str), String> {
    let quoted = text.strip_prefix('\'');
    let mut value = String::new();
    let mut chars = quoted.unwrap_or(text).chars();
    loop {
        let rest = chars.as_str();
        match chars.next() {
            Some('\\') => value.extend(chars.next()),
            Some('\'') if quoted.is_some() => return Ok((value, chars.as_str())),
            Some(c) if quoted.is_none() && c.is_whitespace() => return Ok((value, rest)),
            Some(c) => value.push(c),
            None if quoted.is_none() => return Ok((value, "")),
            None => return Err("has a quote that is not closed: close it with '".to_owned()),
        }
    }
}

/// Whether what follows may be the rest of a password.
fn has_password(pairs: &Pairs) -> bool {
    pairs.iter().any(|(name, _)| name == "password")
}

/// `%` and two digits are a byte; nothing else is special, `+` neither.
fn decoded(name: &str, text: &str) -> Result<String, String> {
    let wrong =
        || format!("has a % in {name} that two hexadecimal digits do not follow: write % as %25");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let byte = if byte == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16);
            let (high, low) = digit().zip(digit()).ok_or_else(wrong)?;
            u8::try_from(high * 16 + low).map_err(|_| wrong())?
        } else {
            byte
        };
        if byte == 0 {
            return Err(format!("has a zero byte in {name}: remove %00"));
        }
        bytes.push(byte);
    }
    String::from_utf8(bytes).map_err(|_| format!("has bytes in {name} that are no UTF-8"))
}
