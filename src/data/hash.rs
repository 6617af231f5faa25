//! The hash by which a client asks "do you still have what I have?"
//! (Firebase wire specification, section 5.1).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

use super::leaf::{Leaf, Number, Priority};
use super::node::Node;

/// A hash as text: base64, or empty for an empty node.
pub type Sha1Text = String;

impl Node {
    /// The hash of this node: empty text for nothing, else the base64 of a SHA-1.
    ///
    /// O(nodes) the first time; branches remember theirs until something at or below them changes.
    #[must_use]
    pub fn hash(&self) -> Sha1Text {
        self.digest().map_or_else(String::new, |digest| STANDARD.encode(digest))
    }

    /// The hash of this node without its own priority, as a filtered view of it has none.
    #[must_use]
    pub fn hash_without_priority(&self) -> Sha1Text {
        if self.priority().is_none() { self.hash() } else { self.clone().with_priority(None).hash() }
    }

    fn digest(&self) -> Option<[u8; 20]> {
        match self {
            Self::Empty => None,
            Self::Leaf(leaf) => Some(leaf_digest(leaf, None)),
            Self::Ranked(ranked) => Some(leaf_digest(&ranked.0, Some(&ranked.1))),
            Self::Branch(branch) => {
                let digest = branch.hash.get_or_init(|| Box::new(branch_digest(self)));
                Some(**digest)
            }
        }
    }
}

fn leaf_digest(leaf: &Leaf, priority: Option<&Priority>) -> [u8; 20] {
    let mut sha = Sha1::new();
    add_priority(&mut sha, priority);
    match leaf {
        Leaf::Bool(true) => sha.update("boolean:true"),
        Leaf::Bool(false) => sha.update("boolean:false"),
        Leaf::Number(number) => add_number(&mut sha, *number),
        Leaf::Text(text) => add_text(&mut sha, text),
    }
    sha.finalize().into()
}

fn branch_digest(node: &Node) -> [u8; 20] {
    let mut sha = Sha1::new();
    add_priority(&mut sha, node.priority());
    let mut add_child = |key: &str, child: &Node| {
        let digest = child.digest().expect("a child is never empty");
        let mut text = [0; 28];
        let length = STANDARD.encode_slice(digest, &mut text).expect("28 characters hold 20 bytes");
        sha.update(":");
        sha.update(key);
        sha.update(":");
        sha.update(&text[..length]);
    };
    let children = node.children();
    if children.iter().any(|(_, child)| child.priority().is_some()) {
        // Priority order; stable, so equal priorities stay in key order.
        let mut sorted: Vec<_> = children.iter().collect();
        sorted.sort_by(|(_, a), (_, b)| a.priority().cmp(&b.priority()));
        sorted.into_iter().for_each(|(key, child)| add_child(key.as_str(), child));
    } else {
        children.iter().for_each(|(key, child)| add_child(key.as_str(), child));
    }
    sha.finalize().into()
}

fn add_priority(sha: &mut Sha1, priority: Option<&Priority>) {
    let Some(priority) = priority else { return };
    sha.update("priority:");
    match priority {
        Priority::Number(number) => add_number(sha, *number),
        Priority::Text(text) => add_text(sha, text),
    }
    sha.update(":");
}

fn add_number(sha: &mut Sha1, number: Number) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut digits = [0; 16];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(number.as_double().to_bits().to_be_bytes()) {
        pair[0] = HEX[usize::from(byte >> 4)];
        pair[1] = HEX[usize::from(byte & 15)];
    }
    sha.update("number:");
    sha.update(digits);
}

fn add_text(sha: &mut Sha1, text: &str) {
    sha.update("string:");
    sha.update(text);
}
