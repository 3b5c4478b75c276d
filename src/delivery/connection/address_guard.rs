//! Which addresses may be dialled: the guard against server-side request forgery.
//!
//! Pure. `network` asks it about every address that a name resolves to, and `http` about a URL
//! whose host is an address; the administration asks [`check_host`] as well when an endpoint is saved,
//! so that a bad one is refused early. Ranges: IANA's special-purpose address registries (RFC 6890 and later).

use std::fmt;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

use ipnet::Ipv4Net;
use ipnet::Ipv6Net;
use url::Host;
use url::Url;

use crate::config::settings::AddressPolicy;

/// Why an address is not dialled. It can never succeed, so it is final.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the address is {kind}, which this endpoint may not reach")]
pub(crate) struct AddressRefusal {
    kind: AddressKind,
}

impl AddressRefusal {
    /// Whether no policy lets the address through.
    pub(crate) fn is_final(self) -> bool {
        matches!(self.kind, AddressKind::Metadata | AddressKind::LinkLocal)
    }
}

/// What a range is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum AddressKind {
    ThisNetwork,
    Private,
    CarrierGrade,
    Loopback,
    LinkLocal,
    Metadata,
    Protocol,
    Documentation,
    Relay,
    Benchmark,
    Multicast,
    Reserved,
}

impl fmt::Display for AddressKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ThisNetwork => "unspecified",
            Self::Private => "private",
            Self::CarrierGrade => "carrier-grade NAT",
            Self::Loopback => "loopback",
            Self::LinkLocal => "link-local",
            Self::Metadata => "a cloud's metadata service",
            Self::Protocol => "reserved for protocols",
            Self::Documentation => "for documentation only",
            Self::Relay => "a tunnel's or relay's",
            Self::Benchmark => "for benchmarks only",
            Self::Multicast => "multicast",
            Self::Reserved => "reserved",
        })
    }
}

/// Never dialled, even where the operator wrote the endpoint: these answer anyone with credentials of the machine.
/// AWS, Google, Azure and most others; Oracle; Alibaba; Azure's host agent.
const METADATA_V4: &[(Ipv4Net, AddressKind)] = &[
    (Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16), AddressKind::Metadata),
    (Ipv4Net::new_assert(Ipv4Addr::new(100, 100, 100, 200), 32), AddressKind::Metadata),
    (Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 0, 192), 32), AddressKind::Metadata),
    (Ipv4Net::new_assert(Ipv4Addr::new(168, 63, 129, 16), 32), AddressKind::Metadata),
];

/// AWS (all services of the instance share this prefix), Google, and everything link-local.
const METADATA_V6: &[(Ipv6Net, AddressKind)] = &[
    (
        Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0), 32),
        AddressKind::Metadata,
    ),
    (
        Ipv6Net::new_assert(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254), 128),
        AddressKind::Metadata,
    ),
    (Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10), AddressKind::LinkLocal),
];

const NOT_PUBLIC_V4: &[(Ipv4Net, AddressKind)] = &[
    (Ipv4Net::new_assert(Ipv4Addr::new(0, 0, 0, 0), 8), AddressKind::ThisNetwork),
    (Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8), AddressKind::Private),
    (Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10), AddressKind::CarrierGrade),
    (Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8), AddressKind::Loopback),
    (Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12), AddressKind::Private),
    (Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 0, 0), 24), AddressKind::Protocol),
    (Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 2, 0), 24), AddressKind::Documentation),
    (Ipv4Net::new_assert(Ipv4Addr::new(192, 31, 196, 0), 24), AddressKind::Protocol), // AS112
    (Ipv4Net::new_assert(Ipv4Addr::new(192, 52, 193, 0), 24), AddressKind::Relay),    // AMT
    (Ipv4Net::new_assert(Ipv4Addr::new(192, 88, 99, 0), 24), AddressKind::Relay),
    (Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16), AddressKind::Private),
    (Ipv4Net::new_assert(Ipv4Addr::new(192, 175, 48, 0), 24), AddressKind::Protocol), // AS112
    (Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, 0), 15), AddressKind::Benchmark),
    (Ipv4Net::new_assert(Ipv4Addr::new(198, 51, 100, 0), 24), AddressKind::Documentation),
    (Ipv4Net::new_assert(Ipv4Addr::new(203, 0, 113, 0), 24), AddressKind::Documentation),
    (Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4), AddressKind::Multicast),
    (Ipv4Net::new_assert(Ipv4Addr::new(240, 0, 0, 0), 4), AddressKind::Reserved),
];

const NOT_PUBLIC_V6: &[(Ipv6Net, AddressKind)] = &[
    (Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 128), AddressKind::ThisNetwork),
    (Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128), AddressKind::Loopback),
    (Ipv6Net::new_assert(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 0), 64), AddressKind::Reserved),
    (Ipv6Net::new_assert(Ipv6Addr::new(0x100, 0, 0, 1, 0, 0, 0, 0), 64), AddressKind::Reserved), // dummy prefix, RFC 9780
    (Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 32), AddressKind::Relay), // Teredo
    (Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 0), 48), AddressKind::Benchmark),
    // With the anycast addresses, AMT, AS112, ORCHID and drones' ids in it: none receives webhooks.
    (Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23), AddressKind::Protocol),
    (
        Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
        AddressKind::Documentation,
    ),
    (Ipv6Net::new_assert(Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16), AddressKind::Relay), // 6to4
    (
        Ipv6Net::new_assert(Ipv6Addr::new(0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0), 48),
        AddressKind::Protocol,
    ), // AS112
    (
        Ipv6Net::new_assert(Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
        AddressKind::Documentation,
    ),
    (Ipv6Net::new_assert(Ipv6Addr::new(0x5f00, 0, 0, 0, 0, 0, 0, 0), 16), AddressKind::Protocol), // segment routing
    (Ipv6Net::new_assert(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7), AddressKind::Private),
    (Ipv6Net::new_assert(Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10), AddressKind::Private), // site-local, RFC 3879
    (Ipv6Net::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8), AddressKind::Multicast),
];

/// Decides about one address that is about to be dialled.
///
/// # Errors
/// The address lies in a range that `policy` excludes, itself or by the IPv4 address inside it.
pub(crate) fn check(address: IpAddr, policy: AddressPolicy) -> Result<(), AddressRefusal> {
    let policy = match policy {
        AddressPolicy::Listed(blocks) if blocks.contain(address) => AddressPolicy::Operator,
        AddressPolicy::Listed(_) => AddressPolicy::Public,
        policy => policy,
    };
    let refused = match address {
        IpAddr::V4(v4) => refused_v4(v4, policy),
        IpAddr::V6(v6) => refused_v6(v6, policy),
    };
    refused.map_or(Ok(()), |kind| Err(AddressRefusal { kind }))
}

/// Decides about a URL whose host is an address. A name passes: its addresses are judged when it
/// has been resolved, at each connection.
///
/// # Errors
/// As for [`check`].
pub(crate) fn check_host(url: &Url, policy: AddressPolicy) -> Result<(), AddressRefusal> {
    match url.host() {
        Some(Host::Ipv4(v4)) => check(IpAddr::V4(v4), policy),
        Some(Host::Ipv6(v6)) => check(IpAddr::V6(v6), policy),
        Some(Host::Domain(_)) | None => Ok(()),
    }
}

fn refused_v4(address: Ipv4Addr, policy: AddressPolicy) -> Option<AddressKind> {
    let hit = |(network, _): &&(Ipv4Net, AddressKind)| network.contains(&address);
    let kind = |&(_, kind)| kind;
    let metadata = METADATA_V4.iter().find(hit).map(kind);
    match policy {
        AddressPolicy::Operator => metadata,
        _ => metadata.or_else(|| NOT_PUBLIC_V4.iter().find(hit).map(kind)),
    }
}

fn refused_v6(address: Ipv6Addr, policy: AddressPolicy) -> Option<AddressKind> {
    let hit = |(network, _): &&(Ipv6Net, AddressKind)| network.contains(&address);
    let kind = |&(_, kind)| kind;
    let metadata = METADATA_V6.iter().find(hit).map(kind);
    let own = match policy {
        AddressPolicy::Operator => metadata,
        // Of the translators' block only two prefixes are given out; they are judged by what is inside.
        _ if is_unknown_translator(address) => Some(AddressKind::Relay),
        _ => metadata.or_else(|| NOT_PUBLIC_V6.iter().find(hit).map(kind)),
    };
    own.or_else(|| inner_v4(address).into_iter().flatten().find_map(|v4| refused_v4(v4, policy)))
}

/// In 64:ff9b::/32, but neither in 64:ff9b::/96 (RFC 6052) nor in 64:ff9b:1::/48 (RFC 8215).
fn is_unknown_translator(address: Ipv6Addr) -> bool {
    match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 1, ..] => false,
        [0x64, 0xff9b, ..] => true,
        _ => false,
    }
}

/// The IPv4 addresses that a packet to this IPv6 address may end up at.
fn inner_v4(address: Ipv6Addr) -> [Option<Ipv4Addr>; 4] {
    let bits = address.to_bits();
    let octets = address.octets();
    let last = Ipv4Addr::from_bits(low_32(bits));
    let pick = |at: [usize; 4]| {
        let octet = |i: usize| octets.get(i).copied().unwrap_or_default();
        let v4 = Ipv4Addr::from(at.map(octet));
        // A position that the translator does not use holds zeros.
        (v4.octets()[0] != 0).then_some(v4)
    };
    match address.segments() {
        // ::/96 (IPv4-compatible, RFC 4291; `::` and `::1` are judged as they are).
        [0, 0, 0, 0, 0, 0, ..] if bits > 1 => [Some(last), None, None, None],
        // ::ffff:0:0/96 (IPv4-mapped) and ::ffff:0:0:0/96 (translated, RFC 2765).
        [0, 0, 0, 0, 0, 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => [Some(last), None, None, None],
        // 64:ff9b::/96 (NAT64, RFC 6052).
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => [Some(last), None, None, None],
        // 64:ff9b:1::/48 (NAT64, RFC 8215): the site chooses one of the layouts of RFC 6052.
        [0x64, 0xff9b, 1, ..] => {
            [Some(last), pick([6, 7, 9, 10]), pick([7, 9, 10, 11]), pick([9, 10, 11, 12])]
        }
        // 2001::/32 (Teredo, RFC 4380): the server's address, and the client's with all bits flipped.
        [0x2001, 0, ..] => {
            let client = Ipv4Addr::from_bits(!low_32(bits));
            [Some(client), Some(Ipv4Addr::from_bits(low_32(bits >> 64))), None, None]
        }
        // 2002::/16 (6to4, RFC 3056).
        [0x2002, ..] => [Some(Ipv4Addr::from_bits(low_32(bits >> 80))), None, None, None],
        _ => [None; 4],
    }
}

const fn low_32(bits: u128) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "the lower 32 bits are what is asked for")]
    let low = bits as u32;
    low
}

#[cfg(test)]
mod tests;
