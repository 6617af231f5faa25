//! Bodies that do not fit one message (RFC 7959).

use super::{Message, option};

/// Which part of a body a message has, or is to have: the value of the options Block1 and Block2 (section 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Counted from 0.
    pub number: u32,
    /// Whether further ones follow.
    pub is_more: bool,
    /// `SZX`: a block has 16 bytes, doubled so often; at most 6 times.
    exponent: u8,
}

impl Block {
    /// The exponent of the largest blocks, which have 1,024 bytes.
    pub const EXPONENT_MAX: u8 = 6;

    /// The first block of a body, as large as can be.
    pub const FIRST: Self = Self { number: 0, is_more: false, exponent: Self::EXPONENT_MAX };

    /// The first block of a body, as large as this one.
    #[must_use]
    pub const fn first(self) -> Self {
        Self { number: 0, is_more: false, exponent: self.exponent }
    }

    /// Reads an option's value. `None`: it is none ("The value 7 for SZX is reserved").
    #[must_use]
    pub fn read(value: &[u8]) -> Option<Self> {
        if value.len() > 3 {
            return None;
        }
        let bits = value.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
        let exponent = u8::try_from(bits & 7).expect("three bits");
        (exponent <= Self::EXPONENT_MAX).then_some(Self { number: bits >> 4, is_more: bits & 8 != 0, exponent })
    }

    /// The option's value, as a number.
    #[must_use]
    pub fn bits(self) -> u32 {
        self.number << 4 | u32::from(self.is_more) << 3 | u32::from(self.exponent)
    }

    /// Bytes of each block but the last.
    #[must_use]
    pub const fn bytes(self) -> usize {
        16 << self.exponent
    }

    /// Where in the body it begins. Numbers have 20 bits.
    #[must_use]
    pub const fn offset(self) -> usize {
        self.number as usize * self.bytes()
    }

    /// That part of `body`, and the block with its mark whether more follow. `None`: the body is shorter.
    #[must_use]
    pub fn cut(self, body: &[u8]) -> Option<(Self, &[u8])> {
        let rest = body.get(self.offset()..).filter(|rest| !rest.is_empty() || self.number == 0)?;
        let part = &rest[..rest.len().min(self.bytes())];
        Some((Self { is_more: part.len() < rest.len(), ..self }, part))
    }
}

impl Message<'_> {
    /// Which block of the request's body this is.
    #[must_use]
    pub fn block1(&self) -> Option<Block> {
        self.block(option::BLOCK1)
    }

    /// Which block of the answer's body is wanted.
    #[must_use]
    pub fn block2(&self) -> Option<Block> {
        self.block(option::BLOCK2)
    }

    /// How long the request's body is altogether, as the client says (section 4).
    #[must_use]
    pub fn size1(&self) -> Option<usize> {
        let (_, value) = self.options().find(|(found, _)| *found == option::SIZE1)?;
        let bytes = value.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
        usize::try_from(bytes).ok().filter(|_| value.len() <= 4)
    }

    fn block(&self, number: u32) -> Option<Block> {
        let (_, value) = self.options().find(|(found, _)| *found == number)?;
        Block::read(value)
    }
}
