//! Trees to JSON text, a piece at a time.
//!
//! The surprising idea: a tree is a value that nobody can change, so all that has to be remembered
//! between two pieces is the tree and the path at which the text was broken off. Costs: a piece is
//! as long as was asked for, and one leaf more; going on costs O(depth · log children).

use super::children::Children;
use super::export::{array_length, leaf, priority};
use super::key::Key;
use super::node::Node;
use crate::json;

/// How a tree is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// Without priorities; maps that look like arrays are arrays (see [`plain`](super::plain)).
    #[default]
    Plain,
    /// With priorities (see [`export`](super::export())).
    Export,
    /// The children of the first level as `true`; a leaf as it is.
    Shallow,
}

/// Prints one tree.
#[derive(Clone, Debug)]
pub struct Printer {
    node: Node,
    /// The children of the first level in another order than that of their keys.
    members: Option<Vec<(Key, Node)>>,
    form: Form,
    is_indented: bool,
    /// Where the text was broken off: from the root down, each but the last begun, the last not.
    stops: Vec<Stop>,
}

/// One level of the path at which the text was broken off.
#[derive(Clone, Debug)]
struct Stop {
    key: Key,
    /// The level is an array, of this length.
    length: Option<usize>,
}

impl Printer {
    /// Shows a tree.
    #[must_use]
    pub const fn new(node: Node, form: Form) -> Self {
        Self { node, members: None, form, is_indented: false, stops: Vec::new() }
    }

    /// The same with the children of the first level, which these are, in this order. What is shown as
    /// an array stays in the array's.
    #[must_use]
    pub fn in_order(self, members: Vec<(Key, Node)>) -> Self {
        let is_array = self.form == Form::Plain && !members.is_empty() && array_length(&self.node).is_some();
        Self { members: (!is_array && !members.is_empty()).then_some(members), ..self }
    }

    /// The same for people: a line each, indented.
    #[must_use]
    pub fn indented(self) -> Self {
        Self { is_indented: true, ..self }
    }

    /// Appends the next piece, of about `bytes_max`. Returns whether that was all.
    pub fn print(&mut self, out: &mut Vec<u8>, bytes_max: usize) -> bool {
        let full = out.len() + bytes_max;
        let stops = std::mem::take(&mut self.stops);
        let mut pass = Pass { out, full, form: self.form, is_indented: self.is_indented, stops: Vec::new() };
        let is_done = match &self.members {
            None => pass.node(&self.node, 0, &stops),
            Some(members) => {
                let from = stops.first().and_then(|stop| members.iter().position(|(key, _)| *key == stop.key));
                let members = members[from.unwrap_or(0)..].iter().map(|(key, node)| (key, node));
                pass.list(members, None, 0, &stops) && pass.close(0, b'}')
            }
        };
        self.stops = pass.stops;
        self.stops.reverse();
        is_done
    }
}

/// One piece.
struct Pass<'p> {
    out: &'p mut Vec<u8>,
    /// The piece ends before the next child that would begin beyond this.
    full: usize,
    form: Form,
    is_indented: bool,
    /// Innermost first.
    stops: Vec<Stop>,
}

impl Pass<'_> {
    fn node(&mut self, node: &Node, depth: usize, stops: &[Stop]) -> bool {
        match node {
            Node::Empty => self.out.extend_from_slice(b"null"),
            Node::Leaf(value) => leaf(self.out, value),
            Node::Ranked(ranked) if self.form != Form::Export => leaf(self.out, &ranked.0),
            Node::Ranked(ranked) => {
                self.open(b'{');
                self.name(depth, ".value");
                leaf(self.out, &ranked.0);
                self.out.push(b',');
                self.name(depth, ".priority");
                priority(self.out, Some(&ranked.1));
                return self.close(depth, b'}');
            }
            Node::Branch(branch) => return self.branch(node, &branch.children, depth, stops),
        }
        true
    }

    fn branch(&mut self, node: &Node, children: &Children, depth: usize, stops: &[Stop]) -> bool {
        let (length, children) = match stops.first() {
            Some(stop) => (stop.length, children.iter_from(&stop.key)),
            None if self.form == Form::Plain => (array_length(node), children.iter()),
            None => (None, children.iter()),
        };
        if !self.list(children, length, depth, stops) {
            return false;
        }
        if self.form == Form::Export && node.priority().is_some() {
            self.out.push(b',');
            self.name(depth, ".priority");
            priority(self.out, node.priority());
        }
        self.close(depth, if length.is_some() { b']' } else { b'}' })
    }

    /// Everything of a map, or of an array of that length, but its end.
    fn list<'n>(
        &mut self,
        children: impl Iterator<Item = (&'n Key, &'n Node)>,
        length: Option<usize>,
        depth: usize,
        stops: &[Stop],
    ) -> bool {
        let mut stops = stops.split_first().map(|(_, below)| below);
        let mut is_first = stops.is_none();
        if is_first {
            self.open(if length.is_some() { b'[' } else { b'{' });
        }
        let mut places = 0..length.unwrap_or(0);
        for (key, child) in children {
            let below = stops.take();
            let index: Option<usize> = if length.is_some() { key.as_str().parse().ok() } else { None };
            if below.is_none() {
                self.separate(&mut is_first);
                if let Some(index) = index {
                    for _ in places.by_ref().take_while(|place| *place != index) {
                        self.line(depth + 1);
                        self.out.extend_from_slice(b"null,");
                    }
                }
                if self.out.len() >= self.full {
                    self.stops.push(Stop { key: key.clone(), length });
                    return false;
                }
            }
            if let Some(index) = index {
                places = index + 1..places.end;
            }
            let below = below.unwrap_or_default();
            if below.is_empty() && length.is_none() {
                self.name(depth, key.as_str());
            } else if below.is_empty() {
                self.line(depth + 1);
            }
            let is_whole = if self.form == Form::Shallow {
                self.out.extend_from_slice(b"true");
                true
            } else {
                self.node(child, depth + 1, below)
            };
            if !is_whole {
                self.stops.push(Stop { key: key.clone(), length });
                return false;
            }
        }
        true
    }

    fn open(&mut self, bracket: u8) {
        self.out.push(bracket);
    }

    fn separate(&mut self, is_first: &mut bool) {
        if !std::mem::take(is_first) {
            self.out.push(b',');
        }
    }

    fn close(&mut self, depth: usize, bracket: u8) -> bool {
        self.line(depth);
        self.out.push(bracket);
        true
    }

    fn name(&mut self, depth: usize, name: &str) {
        self.line(depth + 1);
        json::text(self.out, name);
        self.out.extend_from_slice(if self.is_indented { b": " } else { b":" });
    }

    fn line(&mut self, depth: usize) {
        if self.is_indented {
            self.out.push(b'\n');
            self.out.resize(self.out.len() + 2 * depth, b' ');
        }
    }
}
