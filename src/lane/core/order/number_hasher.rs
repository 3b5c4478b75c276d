//! A hasher for fingerprints, which are spread already: the number is its hash.

use std::hash::Hasher;

/// A hasher for numbers that are hashes already, or counters: one multiplication (Fibonacci
/// hashing), where the standard hasher would take most of an event's time in the lane.
#[derive(Debug, Default)]
pub(in crate::lane::core) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
