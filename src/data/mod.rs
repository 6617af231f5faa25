//! Values: keys and their order, paths, leaves, and trees of them that clone in O(1).
//!
//! The surprising idea: a [`Node`] is persistent. Cloning shares; changing a shared one copies only
//! the pages on the way. So an event, a read or a snapshot *is* a clone of the subtree, and nobody
//! waits for anybody to finish reading. Costs: 48 bytes for each child (key and node), 24-byte
//! strings in place.

mod children;
mod draft;
mod export;
mod fallen;
mod hash;
mod key;
mod leaf;
mod long;
mod node;
mod path;
mod print;

pub use children::{Children, Iter, Walk};
pub use draft::{Draft, Invalid, PriorityDraft, ServerValue};
pub use export::{export, plain};
pub use fallen::Fallen;
pub use hash::Sha1Text;
pub use key::{InvalidKey, Key, KeyStr};
pub use leaf::{Leaf, Number, Priority, Text, compare_text};
pub use long::{BadLong, Long, LongReader};
pub use node::{Branch, Node};
pub use path::{InvalidPath, Location, Path};
pub use print::{Form, Printer};

#[cfg(test)]
mod tests;
