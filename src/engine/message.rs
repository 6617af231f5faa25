//! What engines say to each other.

/// A message from one shard to another.
#[derive(Debug)]
#[non_exhaustive]
pub enum Message {
    /// Nothing.
    Nothing,
}
