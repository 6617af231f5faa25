//! Identifiers. Each is a type of its own, so that a shard is never taken for a connection.

use std::fmt;

use subtle::ConstantTimeEq as _;

/// One core's engine: its sessions and its partition of the tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u8);

impl ShardId {
    /// As an index into per-shard tables.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// Its bit in a set of shards.
    #[must_use]
    pub const fn bit(self) -> u64 {
        1 << self.0
    }

    /// The shards of a set, in their order.
    pub fn of_bits(mut bits: u64) -> impl Iterator<Item = Self> {
        std::iter::from_fn(move || {
            let lowest = (bits != 0).then(|| bits.trailing_zeros())?;
            bits &= bits - 1;
            Some(Self(u8::try_from(lowest).expect("there are 64 bits")))
        })
    }
}

/// A transport: a TCP connection of one core. The driver chooses it; it may be reused after
/// [`Closed`](crate::engine::Input::Closed) has been handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u32);

/// A guest of one core: a session whose client is reached by the program that the server runs within. The
/// driver chooses it, densely.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GuestId(pub u32);

/// Where a session lives: its home shard, its slot in that shard's table, and the slot's
/// generation, so that a late message for an earlier tenant of the slot finds nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionRef {
    /// The home shard.
    pub home: ShardId,
    /// The slot in the home's session table.
    pub slot: u32,
    /// How often that slot had been given away before.
    pub generation: u32,
}

/// The name by which a client may speak of its session: where it lives, and a secret.
///
/// On the wire it is 48 characters of `[0-9a-f]`: 2 for the shard, 8 for the slot, 6 for the
/// generation's low 24 bits, 32 for the secret. Whoever knows it can end that session
/// (Firebase's `ls`), hence the 128 random bits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SessionId {
    /// The home shard.
    pub home: ShardId,
    /// The slot in the home's session table: the table is partitioned by range, not searched.
    pub slot: u32,
    /// The low 24 bits of the slot's generation.
    pub generation: u32,
    /// 128 bits nobody can guess.
    pub secret: u128,
}

impl SessionId {
    /// Length of the text form in bytes.
    pub const TEXT_BYTES: usize = 48;

    /// Reads the text form. `None` for anything that this server cannot have issued.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let hex = |range: std::ops::Range<usize>| {
            let digits = text.get(range)?;
            let is_lower_hex = digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            is_lower_hex.then_some(digits)
        };
        if text.len() != Self::TEXT_BYTES {
            return None;
        }
        Some(Self {
            home: ShardId(u8::from_str_radix(hex(0..2)?, 16).ok()?),
            slot: u32::from_str_radix(hex(2..10)?, 16).ok()?,
            generation: u32::from_str_radix(hex(10..16)?, 16).ok()?,
            secret: u128::from_str_radix(hex(16..48)?, 16).ok()?,
        })
    }

    /// Whether both name the same session. Takes the same time wherever the secrets differ.
    #[must_use]
    pub fn names_same(&self, other: &Self) -> bool {
        let is_same_place = self.home == other.home && self.slot == other.slot && self.generation == other.generation;
        let is_same_secret: bool = self.secret.to_le_bytes().ct_eq(&other.secret.to_le_bytes()).into();
        is_same_place && is_same_secret
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let generation = self.generation & 0x00ff_ffff;
        write!(f, "{:02x}{:08x}{generation:06x}{:032x}", self.home.0, self.slot, self.secret)
    }
}

/// Never prints the secret: debug output ends in logs.
impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({}/{}.{}/…)", self.home.0, self.slot, self.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_id_survives_its_text() {
        let id = SessionId { home: ShardId(7), slot: 0xdead_beef, generation: 0x00ab_cdef, secret: 3 << 120 };
        let text = id.to_string();
        assert_eq!(text.len(), SessionId::TEXT_BYTES);
        assert_eq!(SessionId::parse(&text), Some(id));
    }

    #[test]
    fn foreign_texts_are_no_session_ids() {
        let good = SessionId { home: ShardId(0), slot: 1, generation: 2, secret: 3 }.to_string();
        for bad in [
            "",
            "x",
            &good[1..],
            &format!("{good}0"),
            &good.to_uppercase().replace('0', "A"),
            &format!("+{}", &good[1..]),
            &"é".repeat(24),
        ] {
            assert_eq!(SessionId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_secret_stays_out_of_debug_output() {
        let id = SessionId { home: ShardId(0), slot: 1, generation: 2, secret: 0x1234_5678 };
        assert!(!format!("{id:?}").contains("12345678"));
    }
}
