//! The parts that a source's endpoints fall into.

use std::num::NonZeroU16;

/// Which part of a source's endpoints: each has a stream, progress and an epoch of its own. Not a day of
/// the push log, which PostgreSQL calls a partition, too.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PartitionNumber(i32);

impl PartitionNumber {
    /// The source itself, and the holder of its slot: all endpoints that no other partition has. Statements
    /// name it as `partition = 0`.
    pub const SOURCE: Self = Self(0);

    pub const fn new(number: u16) -> Self {
        // Lossless: `From` is not const.
        Self(number as i32)
    }

    /// That of an endpoint, where there are so many beside the source. It depends on the name alone, so that
    /// every member knows it.
    pub fn of_endpoint(name: &str, count: NonZeroU16) -> Self {
        let place = xxhash_rust::xxh3::xxh3_64(name.as_bytes()) % u64::from(count.get());
        Self::new(u16::try_from(place).unwrap_or_default() + 1)
    }

    /// As the state has it.
    pub const fn raw(self) -> i32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_spread_over_all_partitions_and_stay_where_they_are() {
        let count = NonZeroU16::new(8).unwrap();
        let mut endpoints = [0; 8];
        for number in 0..8000 {
            let partition = PartitionNumber::of_endpoint(&format!("endpoint-{number}"), count);
            endpoints[usize::try_from(partition.raw() - 1).unwrap()] += 1;
        }
        assert!(endpoints.iter().all(|&count| (850..1150).contains(&count)), "{endpoints:?}");
        // What is in the state and in the broker depends on it.
        assert_eq!(PartitionNumber::of_endpoint("crm", count), PartitionNumber::new(CRM));
    }

    const CRM: u16 = 3;
}
