//! Ordering keys: fingerprints of key columns; deliveries that share one arrive in commit order.

use xxhash_rust::xxh3::Xxh3;

/// A fingerprint of a table and its key columns' values.
///
/// Events with the same key are delivered in commit order. Two keys that collide are only ordered
/// more than needed, so 64 bits are plenty. XXH3 is specified, so the number is the same on every
/// machine and in every version, and may be stored.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct KeyHash(u64);

impl KeyHash {
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    pub const fn raw(self) -> u64 {
        self.0
    }

    /// The key of `parts` (table first, then each key column's text; `None` is SQL's null).
    ///
    /// Each part is preceded by its length: `["a,b", "c"]` and `["a", "b,c"]` are two keys.
    pub fn of<'a>(parts: impl IntoIterator<Item = Option<&'a [u8]>>) -> Self {
        let mut hash = Xxh3::new();
        for part in parts {
            match part {
                Some(text) => {
                    hash.update(&(text.len() as u64).to_le_bytes());
                    hash.update(text);
                }
                None => hash.update(&u64::MAX.to_le_bytes()),
            }
        }
        Self(hash.digest())
    }
}

/// The keys of one event: none (no order asked for), one, or two where an update changed the key:
/// such an event follows all earlier ones of both and precedes all later ones of both.
///
/// A *barrier* concerns every row of its table, as a TRUNCATE does: it follows all earlier events of
/// the table and precedes all later ones.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct EventKeys {
    first: Option<KeyHash>,
    second: Option<KeyHash>,
    is_barrier: bool,
}

impl EventKeys {
    pub const NONE: Self = Self { first: None, second: None, is_barrier: false };

    /// Of an event that concerns every row of its table. It needs no key beside that.
    pub const BARRIER: Self = Self { first: None, second: None, is_barrier: true };

    pub const fn one(key: KeyHash) -> Self {
        Self { first: Some(key), second: None, is_barrier: false }
    }

    pub fn both(old: KeyHash, new: KeyHash) -> Self {
        Self { first: Some(new), second: (old != new).then_some(old), is_barrier: false }
    }

    /// Whether the event stands between all earlier and all later events of its table.
    pub const fn is_barrier(self) -> bool {
        self.is_barrier
    }

    pub fn iter(self) -> impl Iterator<Item = KeyHash> {
        self.first.into_iter().chain(self.second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_into_each_other() {
        let key = |parts: &[Option<&str>]| KeyHash::of(parts.iter().map(|p| p.map(str::as_bytes)));
        assert_ne!(key(&[Some("a,b"), Some("c")]), key(&[Some("a"), Some("b,c")]));
        assert_ne!(key(&[Some(""), None]), key(&[None, Some("")]));
        assert_ne!(key(&[None]), key(&[Some("null")]));
    }

    #[test]
    fn the_fingerprint_is_the_same_for_ever() {
        assert_eq!(
            KeyHash::of([Some(b"public.t".as_slice()), Some(b"1")]).raw(),
            14_161_487_495_318_445_832
        );
    }
}
