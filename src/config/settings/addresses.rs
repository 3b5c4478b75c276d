//! Which addresses endpoints may have: private and special networks are refused (SSRF).

use std::net::IpAddr;

use ipnet::IpNet;

/// Which addresses may be dialled for an endpoint.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AddressPolicy {
    /// Written in the file by the operator: anything but metadata services.
    Operator,
    /// Made over the API: public addresses only.
    Public,
    /// Likewise, and these: the operator's own word.
    Listed(AllowedBlocks),
}

/// A few blocks of addresses.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct AllowedBlocks([Option<AddressBlock>; BLOCKS_MAX]);

/// More than this is a network of its own, and better listed by what it has in common.
pub(crate) const BLOCKS_MAX: usize = 8;

/// Of an IPv6 address that stands for an IPv4 address, before that (RFC 4291, 2.5.5.2).
const MAPPED_PREFIX: u8 = 96;

/// The addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AddressBlock(IpNet);

impl AllowedBlocks {
    /// Up to [`BLOCKS_MAX`] of them.
    pub fn new(blocks: impl IntoIterator<Item = AddressBlock>) -> Self {
        let mut places = [None; BLOCKS_MAX];
        for (place, block) in places.iter_mut().zip(blocks) {
            *place = Some(block);
        }
        Self(places)
    }

    pub fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().flatten().any(|block| block.contains(address))
    }
}

/// Any number of blocks of addresses, such as those that a service calls from.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AddressList(Vec<AddressBlock>);

impl AddressList {
    pub fn new(blocks: Vec<AddressBlock>) -> Self {
        Self(blocks)
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|block| block.contains(address))
    }
}

impl AddressBlock {
    /// Reads `10.1.0.0/16`, `fd00::/8` or a single address.
    pub fn parse(text: &str) -> Option<Self> {
        let single = |_| text.parse::<IpAddr>().map(IpNet::from);
        let block: IpNet = text.parse().or_else(single).ok()?;
        match (block.addr(), block.addr().to_canonical()) {
            // `::ffff:10.0.0.0/104` is 10.0.0.0/8.
            (IpAddr::V6(_), mapped @ IpAddr::V4(_)) => {
                let prefix = block.prefix_len().checked_sub(MAPPED_PREFIX)?;
                IpNet::new(mapped, prefix).ok().map(Self)
            }
            _ => Some(Self(block)),
        }
    }

    /// An IPv4 address may come as an IPv6 one that stands for it.
    fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}
