//! Addresses that endpoints may have.

use std::net::IpAddr;

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

/// Of an IPv6 address, also of one that stands for an IPv4 address (RFC 4291, 2.5.5.2).
const MAPPED_BITS: u8 = 128;

/// The addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AddressBlock {
    network: IpAddr,
    prefix: u8,
}

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
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let network: IpAddr = address.parse().ok()?;
        let bits = if network.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Some(bits), |prefix| prefix.parse().ok())?;
        match network.to_canonical() {
            // `::ffff:10.0.0.0/104` is 10.0.0.0/8.
            mapped @ IpAddr::V4(_) if bits == MAPPED_BITS => {
                let prefix = prefix.checked_sub(MAPPED_BITS - 32)?;
                (prefix <= 32).then_some(Self { network: mapped, prefix })
            }
            network => (prefix <= bits).then_some(Self { network, prefix }),
        }
    }

    /// An IPv4 address may come as an IPv6 one that stands for it.
    fn contains(&self, address: IpAddr) -> bool {
        let same = match (self.network, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                (network.to_bits() ^ address.to_bits()).leading_zeros()
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                (network.to_bits() ^ address.to_bits()).leading_zeros()
            }
            _ => return false,
        };
        same >= u32::from(self.prefix)
    }
}
