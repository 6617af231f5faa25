//! Where a child stands in the order of an index, and the order of all children.

use std::collections::{BTreeSet, btree_set};
use std::ops::{Bound as Edge, RangeBounds as _};

use crate::data::{Key, KeyStr, Leaf, Node, Walk};
use crate::op::{Bound, BoundKey, BoundText, Direction, Index, Query};

/// What an index sees of a child: nothing, then `false`, `true`, numbers, texts, then everything with
/// children, all equal (section 7.3).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Missing,
    Leaf(Leaf),
    Object,
}

/// A place in the order of an index: a child's, or one end of a range.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Post {
    rank: Rank,
    key: BoundKey,
}

/// From one place in an order to another. The first is never behind the second, nor are both the same
/// and one of them excluded.
pub(super) type Span = (Edge<Post>, Edge<Post>);

impl Rank {
    fn of(index: &Index, child: &Node) -> Self {
        let value = match index {
            Index::Key => return Self::Missing,
            Index::Priority => {
                return child.priority().map_or(Self::Missing, |priority| Self::Leaf(priority.clone().into()));
            }
            Index::Value => child,
            Index::Child(path) => child.at(path.as_str()),
        };
        match value {
            Node::Empty => Self::Missing,
            Node::Branch(_) => Self::Object,
            Node::Leaf(leaf) => Self::Leaf(leaf.clone()),
            Node::Ranked(ranked) => Self::Leaf(ranked.0.clone()),
        }
    }
}

impl Post {
    /// Where `child` stands.
    pub(super) fn of(index: &Index, key: &KeyStr, child: &Node) -> Self {
        Self { rank: Rank::of(index, child), key: BoundKey::Key(BoundText(key.as_str().into())) }
    }

    fn of_bound(index: &Index, bound: &Bound) -> Self {
        let rank = match (&bound.value, index) {
            (Some(value), Index::Priority | Index::Value | Index::Child(_)) => Rank::Leaf(value.clone()),
            // "For `.key`, sp/ep are the keys themselves": there is no value.
            (None, _) | (_, Index::Key) => Rank::Missing,
        };
        Self { rank, key: bound.key.clone() }
    }

    /// The key of the child that stands here.
    pub(super) fn key(&self) -> &KeyStr {
        match &self.key {
            BoundKey::Key(text) => KeyStr::new(&text.0),
            BoundKey::Min | BoundKey::Max => panic!("a child stands at its key"),
        }
    }

    /// [`key`](Self::key), owned.
    pub(super) fn to_key(&self) -> Key {
        Key::parse(self.key().as_str()).expect("posts of children have their keys")
    }
}

/// The range of a query; `None` where nothing can be in it.
pub(super) fn span_of(query: &Query) -> Option<Span> {
    let edge = |bound: &Option<Box<Bound>>| match bound {
        None => Edge::Unbounded,
        Some(bound) if bound.is_inclusive => Edge::Included(Post::of_bound(&query.index, bound)),
        Some(bound) => Edge::Excluded(Post::of_bound(&query.index, bound)),
    };
    let span = (edge(&query.start), edge(&query.end));
    let is_void = match (&span.0, &span.1) {
        (Edge::Unbounded, _) | (_, Edge::Unbounded) => false,
        (Edge::Included(start), Edge::Included(end)) => start > end,
        (Edge::Included(start) | Edge::Excluded(start), Edge::Included(end) | Edge::Excluded(end)) => start >= end,
    };
    (!is_void).then_some(span)
}

pub(super) fn contains(span: &Span, post: &Post) -> bool {
    span.contains(post)
}

/// The children of a location in the order of an index.
#[derive(Debug)]
pub(super) enum Order {
    /// By key, as the location itself has them.
    Keys,
    /// Every child's post.
    Posts(BTreeSet<Post>),
}

impl Order {
    pub(super) fn of(index: &Index, location: &Node) -> Self {
        if *index == Index::Key {
            return Self::Keys;
        }
        Self::Posts(location.children().iter().map(|(key, child)| Post::of(index, key, child)).collect())
    }

    /// A child that stood at `old` stands at `new` now.
    pub(super) fn shift(&mut self, old: Option<&Post>, new: Option<&Post>) {
        let Self::Posts(posts) = self else { return };
        if old == new {
            return;
        }
        if let Some(old) = old {
            assert!(posts.remove(old), "the order has lost a child");
        }
        if let Some(new) = new {
            assert!(posts.insert(new.clone()), "the order has a child twice");
        }
    }

    /// The children in `span`, beginning at one of its sides; `location` is as it is now.
    pub(super) fn walk<'o>(&'o self, location: &'o Node, span: &'o Span, from: Direction) -> Posts<'o> {
        match self {
            Self::Keys => {
                let children = location.children();
                let keys = match from {
                    Direction::First => children.from(key_edge(&span.0, &BoundKey::Min)),
                    Direction::Last => children.back_from(key_edge(&span.1, &BoundKey::Max)),
                };
                Posts::Keys { keys, span }
            }
            Self::Posts(posts) => Posts::Set { posts: posts.range((span.0.as_ref(), span.1.as_ref())), from },
        }
    }

    /// Whether it has as many children as the location.
    pub(super) fn is_complete(&self, location: &Node) -> bool {
        match self {
            Self::Keys => true,
            Self::Posts(posts) => posts.len() == location.children().len(),
        }
    }
}

/// Where to begin among keys; `open` is the key that bounds nothing on this side. The key that bounds
/// everything is for whoever walks to notice, at the first child.
fn key_edge<'p>(edge: &'p Edge<Post>, open: &BoundKey) -> Edge<&'p KeyStr> {
    match edge.as_ref().map(|post| &post.key) {
        Edge::Included(key) | Edge::Excluded(key) if key == open => Edge::Unbounded,
        Edge::Included(BoundKey::Key(text)) => Edge::Included(KeyStr::new(&text.0)),
        Edge::Excluded(BoundKey::Key(text)) => Edge::Excluded(KeyStr::new(&text.0)),
        _ => Edge::Unbounded,
    }
}

/// Children in an order.
pub(super) enum Posts<'o> {
    Keys { keys: Walk<'o>, span: &'o Span },
    Set { posts: btree_set::Range<'o, Post>, from: Direction },
}

impl Iterator for Posts<'_> {
    type Item = Post;

    fn next(&mut self) -> Option<Post> {
        match self {
            Self::Keys { keys, span } => {
                let (key, child) = keys.next()?;
                Some(Post::of(&Index::Key, key, child)).filter(|post| contains(span, post))
            }
            Self::Set { posts, from: Direction::First } => posts.next().cloned(),
            Self::Set { posts, from: Direction::Last } => posts.next_back().cloned(),
        }
    }
}
