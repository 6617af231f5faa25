//! Trees to JSON text (Firebase wire specification, section 7.2).

use super::leaf::{Leaf, Number, Priority};
use super::node::Node;
use crate::json;

/// Appends the *export form*: nothing is `null`, inner nodes are objects, and `.value` and
/// `.priority` appear where a priority exists.
pub fn export(out: &mut Vec<u8>, node: &Node) {
    match node {
        Node::Empty => out.extend_from_slice(b"null"),
        Node::Leaf(value) => leaf(out, value),
        Node::Ranked(ranked) => {
            out.extend_from_slice(b"{\".value\":");
            leaf(out, &ranked.0);
            out.extend_from_slice(b",\".priority\":");
            priority(out, Some(&ranked.1));
            out.push(b'}');
        }
        Node::Branch(branch) => {
            let mut separator = b'{';
            for (key, child) in branch.children.iter() {
                out.push(separator);
                separator = b',';
                json::text(out, key.as_str());
                out.push(b':');
                export(out, child);
            }
            if branch.priority.is_some() {
                out.push(separator);
                out.extend_from_slice(b"\".priority\":");
                priority(out, branch.priority.as_deref());
            }
            out.push(b'}');
        }
    }
}

/// Appends the *plain form*: no priorities, and maps that look like arrays are arrays.
pub fn plain(out: &mut Vec<u8>, node: &Node) {
    match node {
        Node::Empty => out.extend_from_slice(b"null"),
        Node::Leaf(value) => leaf(out, value),
        Node::Ranked(ranked) => leaf(out, &ranked.0),
        Node::Branch(_) => {
            if let Some(length) = array_length(node) {
                plain_array(out, node, length);
                return;
            }
            let mut separator = b'{';
            for (key, child) in node.children().iter() {
                out.push(separator);
                separator = b',';
                json::text(out, key.as_str());
                out.push(b':');
                plain(out, child);
            }
            out.push(b'}');
        }
    }
}

fn plain_array(out: &mut Vec<u8>, node: &Node, length: usize) {
    let mut places = 0..length;
    let mut separator = b'[';
    for (key, child) in node.children().iter() {
        let index: usize = key.as_str().parse().expect("array_length has read every key");
        for place in places.by_ref() {
            out.push(separator);
            separator = b',';
            if place == index {
                break;
            }
            out.extend_from_slice(b"null");
        }
        plain(out, child);
    }
    out.push(b']');
}

/// The length of the array that a map is shown as: all keys are integers without leading zeros, and
/// more than half of the places up to the largest are taken.
pub(super) fn array_length(node: &Node) -> Option<usize> {
    let children = node.children();
    let mut length = 0;
    for (key, _) in children.iter() {
        let digits = key.as_str().as_bytes();
        let is_canonical = digits.len() <= 10 && digits.iter().all(u8::is_ascii_digit);
        if !is_canonical || (digits[0] == b'0' && digits.len() > 1) {
            return None;
        }
        let index: usize = key.as_str().parse().ok()?;
        length = length.max(index + 1);
    }
    (length - 1 < 2 * children.len()).then_some(length)
}

/// Appends one leaf value.
pub(super) fn leaf(out: &mut Vec<u8>, leaf: &Leaf) {
    match leaf {
        Leaf::Bool(true) => out.extend_from_slice(b"true"),
        Leaf::Bool(false) => out.extend_from_slice(b"false"),
        Leaf::Number(value) => number(out, *value),
        Leaf::Text(text) => json::text(out, text),
    }
}

fn number(out: &mut Vec<u8>, number: Number) {
    match number {
        Number::Int(value) => json::integer(out, value),
        Number::Double(value) => json::number(out, value),
    }
}

/// Appends a priority; `null` for none.
pub(super) fn priority(out: &mut Vec<u8>, priority: Option<&Priority>) {
    match priority {
        None => out.extend_from_slice(b"null"),
        Some(Priority::Number(value)) => number(out, *value),
        Some(Priority::Text(text)) => json::text(out, text),
    }
}
