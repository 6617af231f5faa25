//! How a device names its session: by a short name in each request, by a long pass when it returns.
//!
//! The surprising idea: both say first which core the session lives on, so that a packet that the
//! kernel gives to another core finds home without anybody being asked.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq as _;

use crate::base::ShardId;

/// The digits of a [`Name`]. Neither NUL nor `&`, which the SDK cannot send.
const DIGITS: &[u8; 64] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_";
/// Bits of a name that say where its session lives.
const HOME_BITS: u32 = 6;

/// The short name ("S"): exactly 8 characters. 6 bits say where the session lives, 42 are random.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Name(u64);

impl Name {
    /// Bytes of the text.
    pub const TEXT_BYTES: usize = 8;

    /// A name from 42 random bits; `None` where these spell a text that the SDK has another meaning
    /// for: `00000000` is its first value, `a2617368` what its oldest versions take for the name.
    #[must_use]
    pub fn new(home: ShardId, random: u64) -> Option<Self> {
        assert!(u32::from(home.0) < 1 << HOME_BITS, "there are at most 64 shards");
        let name = Self(u64::from(home.0) << 42 | random & ((1 << 42) - 1));
        let text = name.text();
        (text != *b"00000000" && !text.eq_ignore_ascii_case(b"a2617368")).then_some(name)
    }

    /// Reads the text. `None` for anything that no server can have issued.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() != Self::TEXT_BYTES {
            return None;
        }
        let digit = |byte: &u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'z' => Some(byte - b'a' + 10),
            b'A'..=b'Z' => Some(byte - b'A' + 36),
            b'-' => Some(62),
            b'_' => Some(63),
            _ => None,
        };
        text.iter().try_fold(0, |sum, byte| Some(sum << 6 | u64::from(digit(byte)?))).map(Self)
    }

    /// As a number that [`from_bits`](Self::from_bits) takes: to be written down.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The name that was written down as this number. `None`: none was.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Option<Self> {
        if bits >> (42 + HOME_BITS) == 0 { Some(Self(bits)) } else { None }
    }

    /// The text.
    #[must_use]
    pub fn text(self) -> [u8; Self::TEXT_BYTES] {
        std::array::from_fn(|index| DIGITS[(self.0 >> (6 * (7 - index)) & 63) as usize])
    }

    /// The random bits.
    #[cfg(test)]
    pub(super) const fn low_bits(self) -> u64 {
        self.0 & ((1 << 42) - 1)
    }

    /// Where the session lived when it got the name.
    #[must_use]
    pub const fn home(self) -> ShardId {
        ShardId((self.0 >> 42) as u8)
    }

    /// Where the session lives among so many shards: they may be others than those that there were.
    #[must_use]
    pub const fn home_among(self, shards: u8) -> ShardId {
        ShardId(self.home().0 % shards)
    }
}

/// Never prints what would let others speak for the session: debug output ends in logs.
impl std::fmt::Debug for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Name({}/…)", self.home().0)
    }
}

/// The long name ("L"): exactly 32 characters, the short one and a secret in base 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    /// The short name that was given out with it.
    pub name: Name,
    /// 128 bits that nobody can guess.
    pub secret: Secret,
}

/// A secret that never gets into logs. In bytes: a `u128` would align everything by 16.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret(pub [u8; 16]);

impl Secret {
    /// Whether both are the same. Takes the same time wherever they differ.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret(…)")
    }
}

impl Pass {
    /// Bytes of the text.
    pub const TEXT_BYTES: usize = 32;

    /// Reads the text. `None` for anything that no server can have issued.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() != Self::TEXT_BYTES {
            return None;
        }
        let mut bytes = [0; 24];
        (URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) == Ok(24)).then_some(())?;
        let [n0, n1, n2, n3, n4, n5, n6, n7, secret @ ..] = bytes;
        let name = Name::from_bits(u64::from_be_bytes([n0, n1, n2, n3, n4, n5, n6, n7]))?;
        Some(Self { name, secret: Secret(secret) })
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> [u8; Self::TEXT_BYTES] {
        let Self { name, secret } = self;
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&name.0.to_be_bytes());
        bytes[8..].copy_from_slice(&secret.0);
        let mut text = [0; Self::TEXT_BYTES];
        let written = URL_SAFE_NO_PAD.encode_slice(bytes, &mut text);
        assert_eq!(written, Ok(Self::TEXT_BYTES), "three bytes are four digits");
        text
    }
}
