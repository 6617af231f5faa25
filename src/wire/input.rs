//! Bytes that have arrived and are being taken apart.

/// Bytes that have just arrived, and how far they have been taken. They are the reader's to
/// overwrite: frames are unmasked and JSON is unescaped where they lie.
#[derive(Debug)]
pub struct Input<'i> {
    bytes: &'i mut [u8],
    /// Everything before this is taken.
    at: usize,
}

impl<'i> Input<'i> {
    /// All of `bytes`, nothing taken yet.
    #[must_use]
    pub const fn new(bytes: &'i mut [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bytes are left.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Whether all is taken.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// What is left, without taking it.
    #[must_use]
    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    /// Takes the next `count` bytes; there must be so many.
    pub fn take(&mut self, count: usize) -> &mut [u8] {
        let from = self.at;
        self.at += count;
        &mut self.bytes[from..self.at]
    }
}
