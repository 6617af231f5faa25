//! Keyed hashing for tables that clients can fill.

#![expect(clippy::disallowed_types, reason = "this is where the map gets its seeded hasher")]

use std::collections::HashMap;

/// Builds the hashers of one engine. Keyed, so that nobody outside can aim for collisions, and
/// from a seed, so that a simulated run repeats itself.
#[derive(Clone, Debug)]
pub struct Hashing(ahash::RandomState);

impl Hashing {
    /// From 256 bits of seed.
    #[must_use]
    pub fn from_seed(seed: [u64; 4]) -> Self {
        Self(ahash::RandomState::with_seeds(seed[0], seed[1], seed[2], seed[3]))
    }

    /// The hash of one value.
    pub fn hash_one<T: std::hash::Hash>(&self, value: T) -> u64 {
        self.0.hash_one(value)
    }

    /// An empty map with these hashers.
    #[must_use]
    pub fn map<K, V>(&self) -> Map<K, V> {
        HashMap::with_hasher(self.clone())
    }
}

impl std::hash::BuildHasher for Hashing {
    type Hasher = ahash::AHasher;
    fn build_hasher(&self) -> Self::Hasher {
        self.0.build_hasher()
    }
}

/// A hash map that outsiders cannot aim at.
pub type Map<K, V> = HashMap<K, V, Hashing>;
