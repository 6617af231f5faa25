//! Nodes: empty, a leaf, or children; some with a priority.

use std::sync::{Arc, OnceLock};

use super::children::Children;
use super::key::{Key, KeyStr};
use super::leaf::{Leaf, Priority};
use super::path::Path;

/// A tree. Clones in O(1) and shares what is below; a change copies only what is shared on the way.
#[derive(Clone, Default)]
pub enum Node {
    /// Nothing. Never the child of anything.
    #[default]
    Empty,
    /// A value without a priority.
    Leaf(Leaf),
    /// A value with a priority: rare, so on the heap.
    Ranked(Arc<(Leaf, Priority)>),
    /// Children, at least one.
    Branch(Arc<Branch>),
}

/// An inner node: at least one child, perhaps a priority.
#[derive(Clone)]
pub struct Branch {
    /// What `.priority` was set to.
    pub priority: Option<Box<Priority>>,
    /// Never empty while the branch stands in a tree, and none of them is [`Node::Empty`].
    pub children: Children,
    /// The node's hash once somebody asked. Forgotten by every change at or below.
    pub(super) hash: OnceLock<Box<[u8; 20]>>,
}

const _: () = assert!(size_of::<Node>() == 24, "a node is three words: it is what every child costs");
const _: () = assert!(size_of::<Key>() == 24, "a key is three words: it is what every child costs");

static EMPTY: Node = Node::Empty;

impl Node {
    /// A leaf without a priority.
    #[must_use]
    pub const fn leaf(leaf: Leaf) -> Self {
        Self::Leaf(leaf)
    }

    /// A string leaf.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::Leaf(Leaf::Text(text.into()))
    }

    /// An inner node of these children, without a priority; [`Node::Empty`] when there are none.
    #[must_use]
    pub fn branch(children: Children) -> Self {
        if children.is_empty() {
            return Self::Empty;
        }
        Self::Branch(Arc::new(Branch { priority: None, children, hash: OnceLock::new() }))
    }

    /// Whether nothing is here.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    /// The leaf's value, if this is a leaf.
    #[must_use]
    pub fn as_leaf(&self) -> Option<&Leaf> {
        match self {
            Self::Leaf(leaf) => Some(leaf),
            Self::Ranked(ranked) => Some(&ranked.0),
            Self::Empty | Self::Branch(_) => None,
        }
    }

    /// The children; none of a leaf or of nothing.
    #[must_use]
    pub fn children(&self) -> &Children {
        static NONE: Children = Children::new();
        if let Self::Branch(branch) = self { &branch.children } else { &NONE }
    }

    /// The child with this key, or [`Node::Empty`].
    #[must_use]
    pub fn child(&self, key: &KeyStr) -> &Self {
        self.children().get(key).unwrap_or(&EMPTY)
    }

    /// What stands at `path` below this node (keys joined by `/`).
    #[must_use]
    pub fn at(&self, path: &str) -> &Self {
        let mut node = self;
        for key in path.split('/').filter(|key| !key.is_empty()) {
            node = node.child(KeyStr::new(key));
        }
        node
    }

    /// The priority, if there is one.
    #[must_use]
    pub fn priority(&self) -> Option<&Priority> {
        match self {
            Self::Ranked(ranked) => Some(&ranked.1),
            Self::Branch(branch) => branch.priority.as_deref(),
            Self::Empty | Self::Leaf(_) => None,
        }
    }

    /// The same value with this priority. Nothing has no priority.
    #[must_use]
    pub fn with_priority(self, priority: Option<Priority>) -> Self {
        match (self, priority) {
            (Self::Empty, _) => Self::Empty,
            (Self::Leaf(leaf), None) => Self::Leaf(leaf),
            (Self::Leaf(leaf), Some(priority)) => Self::Ranked(Arc::new((leaf, priority))),
            (Self::Ranked(ranked), priority) => {
                let leaf = Arc::try_unwrap(ranked).map_or_else(|shared| shared.0.clone(), |owned| owned.0);
                Self::Leaf(leaf).with_priority(priority)
            }
            (Self::Branch(mut branch), priority) => {
                if branch.priority.as_deref() != priority.as_ref() {
                    let branch = Branch::change(&mut branch);
                    branch.priority = priority.map(Box::new);
                }
                Self::Branch(branch)
            }
        }
    }

    /// Changes what stands at `path` below this node, and returns what `change` returned.
    ///
    /// Empty inner nodes on the way vanish. A leaf on the way becomes an inner node and keeps its
    /// priority, but only if something is put below it.
    pub fn change<R>(&mut self, path: &str, change: impl FnOnce(&mut Self) -> R) -> R {
        let Some((first, rest)) = split_first(path) else {
            return change(self);
        };
        let key = KeyStr::new(first);
        if let Self::Branch(branch) = self {
            let branch = Branch::change(branch);
            let answer = branch.children.change(key, |child| child.change(rest, change));
            if branch.children.is_empty() {
                *self = Self::Empty;
            }
            return answer;
        }
        let mut child = Self::Empty;
        let answer = child.change(rest, change);
        if !child.is_empty() {
            let priority = self.priority().cloned().map(Box::new);
            let mut children = Children::new();
            children.change(key, |place| *place = child);
            *self = Self::Branch(Arc::new(Branch { priority, children, hash: OnceLock::new() }));
        }
        answer
    }

    /// Puts `new` at `path` below this node and returns what stood there.
    pub fn set(&mut self, path: &str, new: Self) -> Self {
        // Asking first keeps a removal of nothing from copying shared pages and forgetting hashes.
        if new.is_empty() && self.at(path).is_empty() {
            return Self::Empty;
        }
        self.change(path, |place| std::mem::replace(place, new))
    }

    /// Adds what stands two keys below another root, where nothing stands here: one part of a tree to another. A leaf
    /// one key below stands in both.
    pub fn take_in(&mut self, part: &Self) {
        for (first, below) in part.children().iter() {
            if below.as_leaf().is_some() {
                self.set(first.as_str(), below.clone());
            }
            for (second, node) in below.children().iter() {
                self.set(Path::ROOT.child(first).child(second).as_str(), node.clone());
            }
        }
    }

    /// Gives what stands at `path` below this node a priority. Nothing has none.
    pub fn set_priority(&mut self, path: &str, priority: Option<Priority>) {
        if !self.at(path).is_empty() {
            self.change(path, |place| *place = std::mem::take(place).with_priority(priority));
        }
    }

    /// How many nodes, this one included; stops counting above `count_max`.
    #[must_use]
    pub fn count(&self, count_max: usize) -> usize {
        let mut count = usize::from(!self.is_empty());
        for (_, child) in self.children().iter() {
            if count > count_max {
                break;
            }
            count += child.count(count_max - count);
        }
        count
    }
}

impl Branch {
    /// The branch to be changed: a copy of its own if it is shared, and without its old hash.
    fn change(shared: &mut Arc<Self>) -> &mut Self {
        let branch = Arc::make_mut(shared);
        branch.hash.take();
        branch
    }
}

/// The first key of a path, and the rest.
fn split_first(path: &str) -> Option<(&str, &str)> {
    let path = path.trim_start_matches('/');
    if path.is_empty() { None } else { Some(path.split_once('/').unwrap_or((path, ""))) }
}

/// Structural equality: same values, same priorities.
impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Empty, Self::Empty) => true,
            (Self::Leaf(a), Self::Leaf(b)) => a == b,
            (Self::Ranked(a), Self::Ranked(b)) => a == b,
            (Self::Branch(a), Self::Branch(b)) => {
                Arc::ptr_eq(a, b)
                    || (a.priority == b.priority
                        && a.children.len() == b.children.len()
                        && a.children.iter().eq(b.children.iter()))
            }
            _ => false,
        }
    }
}

impl Eq for Node {}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = Vec::new();
        super::export(&mut out, self);
        f.write_str(&String::from_utf8_lossy(&out))
    }
}
