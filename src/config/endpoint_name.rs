//! Names of endpoints: those that are written, and those that follow from a URL.
//!
//! Whatever waits for an endpoint waits under its name, also through restarts. So an endpoint that was
//! given none is named by what it is, never by its place in a list: to move, insert or remove another one
//! changes nothing for it.

use std::sync::Arc;

use ring::digest;
use url::Url;

use crate::config::toml_file::toml_field::FieldReader;
use crate::flow::hex::hex_of;

const CHARS_MAX: usize = 64;

/// Bytes of the hash that a name ends with; it tells the URLs of one host apart.
const HASH_BYTES: usize = 5;

/// Reads a name; `taken` are those of the endpoints before it.
pub(super) fn read(field: &FieldReader<'_>, taken: &[String]) -> Option<String> {
    let name = field.string()?;
    if !is_sound(&name) {
        return field.refuse(format!(
            "{} is not a name: give 1 to {CHARS_MAX} letters, digits, _, - and .",
            field.shown()
        ));
    }
    if taken.contains(&name) {
        return field
            .refuse(format!("{name:?} names another endpoint already: choose another name"));
    }
    Some(name)
}

/// Whether an endpoint may be called so.
pub(super) fn is_sound(name: &str) -> bool {
    // `.` and `..` cannot stand in the path of a URL, as that of the API.
    let only_dots = name.bytes().all(|byte| byte == b'.');
    (1..=CHARS_MAX).contains(&name.len()) && !only_dots && name.bytes().all(is_allowed)
}

/// The name of the endpoint at `url`: its host, and a hash of the whole URL, of which nothing secret
/// can be read.
pub(super) fn of_url(url: &Url) -> String {
    hashed(url.host_str().unwrap_or_default().trim_matches(['[', ']']), url.as_str())
}

/// Where an endpoint's name is kept for a while that another one has by now: a name that nobody gives.
pub(super) fn aside(name: &str) -> Arc<str> {
    Arc::from(hashed(name, &format!("{name} aside")))
}

/// A name that is like `shown` as far as it can be, and is another one for each `whole`.
pub(super) fn hashed(shown: &str, whole: &str) -> String {
    let hash = digest::digest(&digest::SHA256, whole.as_bytes());
    let allowed = |c: char| u8::try_from(c).is_ok_and(is_allowed);
    let shown = shown.chars().map(|c| if allowed(c) { c } else { '-' });
    // Nothing begins with a hyphen: on a command line that would be an option.
    let shown = shown.skip_while(|c| *c == '-');
    let mut name: String = shown.take(CHARS_MAX - 1 - 2 * HASH_BYTES).collect();
    if !name.is_empty() {
        name.push('-');
    }
    name.push_str(&hex_of(hash.as_ref().get(..HASH_BYTES).unwrap_or_default()));
    name
}

fn is_allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(url: &str) -> String {
        of_url(&url.parse().unwrap())
    }

    #[test]
    fn a_url_has_one_name_which_shows_its_host_and_none_of_its_path() {
        let robot = "https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=hunter2";
        assert_eq!(name(robot), "qyapi.weixin.qq.com-99e22cebda");
        assert_eq!(
            name(robot),
            name("HTTPS://QYAPI.weixin.qq.com:443/cgi-bin/webhook/send?key=hunter2")
        );
        let others = [
            "https://h/",
            "https://h/a",
            "https://h/A",
            "http://h/",
            "https://h:8443/",
            "https://h/?",
        ];
        let mut names: Vec<String> = others.iter().map(|url| name(url)).collect();
        assert!(names.iter().all(|name| name.starts_with("h-")), "{names:?}");
        names.sort();
        names.dedup();
        assert_eq!(names.len(), others.len());
    }

    #[test]
    fn whatever_the_host_is_the_name_is_one() {
        let long = format!("https://{}.example.com/", "a".repeat(60));
        for (url, start) in [
            ("http://[2001:db8::1]:8080/x", "2001-db8--1-"),
            ("http://[::1]:8080/x", "1-"),
            ("http://127.0.0.1:9/", "127.0.0.1-"),
            ("https://bücher.example/", "xn--bcher-kva.example-"),
            (long.as_str(), "aaaa"),
        ] {
            let name = name(url);
            assert!(name.starts_with(start) && name.len() <= CHARS_MAX, "case: {url}: {name}");
            assert!(name.bytes().all(is_allowed), "case: {url}: {name}");
        }
        let name = hashed("表", "表");
        assert!(name.len() == 2 * HASH_BYTES && name.bytes().all(is_allowed), "{name}");
    }
}
