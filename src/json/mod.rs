//! JSON text in and out: a thin door to simd-json's reused tape, and the writers for what we send.
//!
//! The surprising idea: reading destroys its input. Strings are unescaped where they stand, and the
//! tape borrows them, so a usual frame is read without allocating. Costs: two passes over the text.

mod read;
mod write;

pub use read::{Item, Members, NotJson, Reader, Values};
pub use write::{integer, number, text};

#[cfg(test)]
mod tests;
