//! `delivery::connection::address_guard`, by cases.

use super::*;

fn allowed(address: &str, policy: AddressPolicy) -> bool {
    check(address.parse().unwrap(), policy).is_ok()
}

/// First and last address of each range, and the neighbours on both sides that are public.
const PUBLIC_EDGES: &[(&str, [&str; 2], [&str; 2])] = &[
    ("0/8", ["0.0.0.0", "0.255.255.255"], ["1.0.0.0", "1.0.0.0"]),
    ("10/8", ["10.0.0.0", "10.255.255.255"], ["9.255.255.255", "11.0.0.0"]),
    ("100.64/10", ["100.64.0.0", "100.127.255.255"], ["100.63.255.255", "100.128.0.0"]),
    ("127/8", ["127.0.0.0", "127.255.255.255"], ["126.255.255.255", "128.0.0.0"]),
    ("169.254/16", ["169.254.0.0", "169.254.255.255"], ["169.253.255.255", "169.255.0.0"]),
    ("172.16/12", ["172.16.0.0", "172.31.255.255"], ["172.15.255.255", "172.32.0.0"]),
    ("192.0.0/24", ["192.0.0.0", "192.0.0.255"], ["191.255.255.255", "192.0.1.0"]),
    ("192.0.2/24", ["192.0.2.0", "192.0.2.255"], ["192.0.1.255", "192.0.3.0"]),
    ("192.88.99/24", ["192.88.99.0", "192.88.99.255"], ["192.88.98.255", "192.88.100.0"]),
    ("192.168/16", ["192.168.0.0", "192.168.255.255"], ["192.167.255.255", "192.169.0.0"]),
    ("198.18/15", ["198.18.0.0", "198.19.255.255"], ["198.17.255.255", "198.20.0.0"]),
    ("198.51.100/24", ["198.51.100.0", "198.51.100.255"], ["198.51.99.255", "198.51.101.0"]),
    ("203.0.113/24", ["203.0.113.0", "203.0.113.255"], ["203.0.112.255", "203.0.114.0"]),
    ("224/4", ["224.0.0.0", "239.255.255.255"], ["223.255.255.255", "223.255.255.255"]),
    ("240/4", ["240.0.0.0", "255.255.255.255"], ["223.255.255.255", "223.255.255.255"]),
    ("::", ["::", "::1"], ["::808:808", "::808:808"]),
    ("v4-mapped", ["::ffff:10.0.0.1", "::ffff:127.0.0.1"], ["::ffff:8.8.8.8", "::ffff:1.1.1.1"]),
    ("NAT64", ["64:ff9b::10.0.0.1", "64:ff9b::169.254.169.254"], ["64:ff9b::8.8.8.8"; 2]),
    ("local NAT64 /96", ["64:ff9b:1::127.0.0.1"; 2], ["64:ff9b:1::8.8.8.8"; 2]),
    ("local NAT64 /48", ["64:ff9b:1:a9fe:a9:fe00:808:808"; 2], ["64:ff9b:1:808:8:800:808:808"; 2]),
    ("local NAT64 /56", ["64:ff9b:1:a:0:1:808:808"; 2], ["64:ff9b:1:8:8:808:808:808"; 2]),
    ("local NAT64 /64", ["64:ff9b:1::a:0:100:0"; 2], ["64:ff9b:1::808:808"; 2]),
    ("192.31.196/24", ["192.31.196.0", "192.31.196.255"], ["192.31.195.255", "192.31.197.0"]),
    ("192.52.193/24", ["192.52.193.0", "192.52.193.255"], ["192.52.192.255", "192.52.194.0"]),
    ("192.175.48/24", ["192.175.48.0", "192.175.48.255"], ["192.175.47.255", "192.175.49.0"]),
    ("unknown NAT64", ["64:ff9b:2::7f00:1", "64:ff9b:0:1::808:808"], ["64:ff9a::", "64:ff9c::"]),
    ("unknown NAT64, end", ["64:ff9b:ffff::8.8.8.8"; 2], ["64:ff9c::8.8.8.8"; 2]),
    ("100::/64", ["100::", "100::ffff:ffff:ffff:ffff"], ["ff:ffff::", "100:0:0:2::"]),
    ("dummy", ["100:0:0:1::1", "100:0:0:1:ffff:ffff:ffff:ffff"], ["100:0:0:2::", "100:0:1::"]),
    ("2001::/23", ["2001::", "2001:1ff:ffff::"], ["2000:ffff::", "2001:200::"]),
    ("anycast", ["2001:1::1", "2001:1::2"], ["2001:200::1", "2001:4860::1"]),
    ("benchmark", ["2001:2::1", "2001:2:0:ffff::"], ["2001:200::1", "2001:4860::1"]),
    ("ORCHID", ["2001:10::1", "2001:20::1"], ["2001:200::1", "2001:4860::1"]),
    ("AS112", ["2620:4f:8000::", "2620:4f:8000:ffff::"], ["2620:4f:7fff::", "2620:4f:8001::"]),
    ("2001:db8::/32", ["2001:db8::", "2001:db8:ffff::"], ["2001:db7::", "2001:db9::"]),
    ("2002::/16", ["2002::", "2002:808:808::"], ["2001:ffff::", "2003::"]),
    ("3fff::/20", ["3fff::", "3fff:fff:ffff::"], ["3ffe:ffff::", "3fff:1000::"]),
    ("5f00::/16", ["5f00::", "5f00:ffff::"], ["5eff:ffff::", "5f01::"]),
    ("fc00::/7", ["fc00::", "fdff:ffff::"], ["fbff:ffff::", "fe00::"]),
    ("fe80::/10", ["fe80::", "febf:ffff::"], ["fe7f:ffff::", "fe7f:ffff::"]),
    ("fec0::/10", ["fec0::", "feff:ffff::"], ["fe7f:ffff::", "fe7f:ffff::"]),
    ("ff00::/8", ["ff00::", "ffff:ffff::"], ["fe7f:ffff::", "fe7f:ffff::"]),
];

#[test]
fn an_endpoint_made_over_the_api_reaches_public_addresses_only() {
    for (name, refused, passed) in PUBLIC_EDGES {
        for address in refused {
            assert!(!allowed(address, AddressPolicy::Public), "case: {name}, {address}");
        }
        for address in passed {
            assert!(allowed(address, AddressPolicy::Public), "case: {name}, {address}");
        }
    }
}

#[test]
fn an_operators_endpoint_reaches_everything_but_metadata_services() {
    let cases = [
        ("127.0.0.1", true),
        ("10.1.2.3", true),
        ("192.168.0.1", true),
        ("100.100.100.199", true),
        ("100.100.100.200", false),
        ("100.100.100.201", true),
        ("169.253.255.255", true),
        ("169.254.0.0", false),
        ("169.254.169.254", false),
        ("169.254.255.255", false),
        ("192.0.0.191", true),
        ("192.0.0.192", false),
        ("168.63.129.16", false),
        ("::1", true),
        ("fd00::1", true),
        ("fd00:ec2::254", false),
        ("fd20:ce::254", false),
        ("fd20:ce::253", true),
        ("fe80::1", false),
        ("febf::1", false),
        ("::ffff:169.254.169.254", false),
        ("::ffff:127.0.0.1", true),
        ("::ffff:0:169.254.169.254", false),
        ("::169.254.169.254", false),
        ("64:ff9b::169.254.169.254", false),
        ("64:ff9b:1::169.254.169.254", false),
        ("2002:a9fe:a9fe::", false),
        ("2002:a00:1::", true),
        // Teredo: client 169.254.169.254 flipped; then the same as its server.
        ("2001:0:808:808:0:0:5601:5601", false),
        ("2001:0:a9fe:a9fe:0:0:f7f7:f7f7", false),
    ];
    for (address, expected) in cases {
        assert_eq!(allowed(address, AddressPolicy::Operator), expected, "case: {address}");
    }
}

#[test]
fn every_spelling_of_an_address_in_a_url_is_judged() {
    let spellings = [
        "http://127.0.0.1/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0177.0.0.1/",
        "http://127.0.0.1./",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://１２７.0.0.1/",
    ];
    for spelling in spellings {
        let url = Url::parse(spelling).unwrap();
        assert!(check_host(&url, AddressPolicy::Public).is_err(), "case: {spelling}");
    }
    let metadata = Url::parse("http://169.254.169.254/latest/meta-data/").unwrap();
    assert!(check_host(&metadata, AddressPolicy::Operator).is_err());
    let name = Url::parse("http://example.com/").unwrap();
    assert_eq!(check_host(&name, AddressPolicy::Public), Ok(()));
}

#[test]
fn a_refusal_says_what_the_address_is_and_not_which() {
    let refusal = check("10.1.2.3".parse().unwrap(), AddressPolicy::Public).unwrap_err();
    assert_eq!(refusal.to_string(), "the address is private, which this endpoint may not reach");
}
