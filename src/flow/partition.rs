//! The parts that a source's endpoints fall into.

/// Which part of a source's endpoints: each has a stream, progress and an epoch of its own. Not a day of
/// the push log, which PostgreSQL calls a partition, too.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PartitionNumber(i32);

impl PartitionNumber {
    /// The source itself, and whoever has its slot: all endpoints that no other partition has. Statements
    /// name it as `partition = 0`.
    pub const SOURCE: Self = Self(0);

    pub const fn new(number: u16) -> Self {
        // Lossless: `From` is not const.
        Self(number as i32)
    }

    /// As the state has it.
    pub const fn raw(self) -> i32 {
        self.0
    }
}
