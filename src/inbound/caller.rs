//! Who calls: the peer, or whom trusted proxies say that they speak for.
//!
//! ```text
//! X-Forwarded-For: written by the caller, so anything ..., added by proxies, the nearest last
//! ```
//!
//! Pure. Read from the right, as far as the addresses are those of trusted proxies: what stands before
//! the first other one was written by a caller who is not trusted.

use std::net::IpAddr;
use std::net::SocketAddr;

use axum::http::HeaderMap;
use axum::http::HeaderName;

use crate::config::settings::AddressList;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address that the allow-list judges; `None` if a trusted proxy passes on what cannot be read,
/// which is nobody's address.
pub(super) fn caller(peer: IpAddr, headers: &HeaderMap, proxies: &AddressList) -> Option<IpAddr> {
    let mut caller = peer;
    // Several lines are one list, in their order (RFC 9110, 5.3).
    for line in headers.get_all(FORWARDED_FOR).iter().rev() {
        for entry in line.as_bytes().rsplit(|byte| *byte == b',') {
            if !proxies.contains(caller) {
                return Some(caller);
            }
            let entry = str::from_utf8(entry).ok()?.trim();
            if !entry.is_empty() {
                caller = address(entry)?;
            }
        }
    }
    Some(caller)
}

/// `203.0.113.9`, `2001:db8::1`, `[2001:db8::1]`, and each with a port, as some proxies write it.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address = bare.unwrap_or(text).parse::<IpAddr>();
    address.ok().or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;
    use crate::config::settings::AddressBlock;

    fn list(texts: &[&str]) -> AddressList {
        AddressList::new(texts.iter().map(|text| AddressBlock::parse(text).unwrap()).collect())
    }

    fn found(peer: &str, lines: &[&[u8]]) -> Option<String> {
        let proxies = list(&["10.0.0.0/8", "fd00::/8", "127.0.0.1"]);
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED_FOR, HeaderValue::from_bytes(line).unwrap());
        }
        let caller = caller(peer.parse().unwrap(), &headers, &proxies)?;
        Some(caller.to_canonical().to_string())
    }

    #[test]
    fn only_what_trusted_proxies_say_is_believed() {
        type Lines<'a> = &'a [&'a [u8]];
        let cases: [(&str, Lines<'_>, Option<&str>); 20] = [
            ("198.51.100.1", &[], Some("198.51.100.1")),
            ("198.51.100.1", &[b"203.0.113.9"], Some("198.51.100.1")),
            ("10.1.2.3", &[], Some("10.1.2.3")),
            ("10.1.2.3", &[b""], Some("10.1.2.3")),
            ("10.1.2.3", &[b"203.0.113.9"], Some("203.0.113.9")),
            ("::ffff:10.1.2.3", &[b"203.0.113.9"], Some("203.0.113.9")),
            ("10.1.2.3", &[b"::ffff:203.0.113.9"], Some("203.0.113.9")),
            ("fd00::1", &[b"2001:db8::7"], Some("2001:db8::7")),
            ("fd00::1", &[b"[2001:db8::7]"], Some("2001:db8::7")),
            ("fd00::1", &[b"[2001:db8::7]:443"], Some("2001:db8::7")),
            ("10.1.2.3", &[b"203.0.113.9:51234"], Some("203.0.113.9")),
            // What the caller wrote himself stands on the left.
            ("10.1.2.3", &[b"203.0.113.9, 198.51.100.1"], Some("198.51.100.1")),
            ("10.1.2.3", &[b"203.0.113.9", b"198.51.100.1"], Some("198.51.100.1")),
            ("10.1.2.3", &[b"198.51.100.1, 203.0.113.9 , 10.9.9.9,"], Some("203.0.113.9")),
            ("10.1.2.3", &[b"10.7.7.7, 10.8.8.8"], Some("10.7.7.7")),
            ("10.1.2.3", &[b"\xff\xfe, 198.51.100.1"], Some("198.51.100.1")),
            ("10.1.2.3", &[b"unknown, 198.51.100.1"], Some("198.51.100.1")),
            ("10.1.2.3", &[b"203.0.113.9, unknown"], None),
            ("10.1.2.3", &[b"203.0.113.9", b"\xff"], None),
            ("10.1.2.3", &[b"203.0.113.9/32"], None),
        ];
        for (peer, lines, expected) in cases {
            assert_eq!(found(peer, lines).as_deref(), expected, "case: {peer} {lines:?}");
        }
    }

    #[test]
    fn blocks_take_addresses_of_both_families() {
        let cases = [
            ("203.0.113.0/24", "203.0.113.255", true),
            ("203.0.113.0/24", "::ffff:203.0.113.1", true),
            ("203.0.113.0/24", "203.0.114.0", false),
            ("::ffff:203.0.113.0/120", "203.0.113.7", true),
            ("::ffff:203.0.113.7", "203.0.113.7", true),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "2001:db8::1", true),
        ];
        for (block, address, expected) in cases {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(list(&[block]).contains(address), expected, "case: {block} {address}");
        }
        for text in ["::ffff:10.0.0.0/95", "10.0.0.0/33", "10.0.0/8", "", "example.com"] {
            assert!(AddressBlock::parse(text).is_none(), "case: {text}");
        }
    }
}
