//! Trees that nobody wants any more, dropped a few entries at a time: a million entries take as long to
//! drop as to read.

use super::children::Part;
use super::node::Node;

/// What is yet to be dropped.
#[derive(Default)]
pub struct Fallen(Vec<Part>);

impl std::fmt::Debug for Fallen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} parts of fallen trees", self.0.len())
    }
}

impl Fallen {
    /// Takes a tree that is to be dropped.
    pub fn push(&mut self, node: Node) {
        if matches!(node, Node::Branch(_)) {
            self.0.push(Part::of(node));
        }
    }

    /// Takes all that `other` has.
    pub fn append(&mut self, other: &mut Self) {
        self.0.append(&mut other.0);
    }

    /// Drops about `entries_max` entries.
    pub fn drop_some(&mut self, entries_max: usize) {
        let mut count = 0;
        while count < entries_max
            && let Some(part) = self.0.pop()
        {
            count += part.fell(&mut self.0);
        }
    }

    /// Whether nothing is left.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
