//! Queries: which children of a location, in which order
//! (Firebase wire specification, section 4).

use std::num::NonZeroU32;

use crate::data::{Leaf, Path, Text};

/// Which of a location's children are wanted. [`Query::ALL`] wants the location as it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Query {
    /// What children are ordered by.
    pub index: Index,
    /// The first that is wanted.
    pub start: Option<Box<Bound>>,
    /// The last that is wanted.
    pub end: Option<Box<Bound>>,
    /// How many of those, and from which side.
    pub limit: Option<Limit>,
}

/// What children are ordered by; equal ones order by key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub enum Index {
    /// Their priority.
    #[default]
    Priority,
    /// Their key.
    Key,
    /// Their value.
    Value,
    /// The value at this path below them.
    Child(Path),
}

/// One end of a range.
///
/// With [`Index::Key`] only `key` counts. Keys here are what clients send, so they may be longer
/// than a key can be, and `None` stands for the protocol's own extreme.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Bound {
    /// The index value; `None` is "no value", which orders first.
    pub value: Option<Leaf>,
    /// Among children with that value: this key.
    pub key: BoundKey,
    /// Whether the bound itself is wanted.
    pub is_inclusive: bool,
}

/// A key, or something beyond all keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BoundKey {
    /// Less than every key (`[MIN_NAME]`).
    Min,
    /// A key; perhaps longer than keys can be.
    Key(BoundText),
    /// Greater than every key (`[MAX_NAME]`, `[MAX_KEY]`).
    Max,
}

/// The text of a bound key, in the order of keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BoundText(pub Text);

impl Ord for BoundText {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        crate::data::KeyStr::new(&self.0).cmp(crate::data::KeyStr::new(&other.0))
    }
}

impl PartialOrd for BoundText {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// How many children are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limit {
    /// At most so many.
    pub count: NonZeroU32,
    /// Counted from here.
    pub from: Direction,
}

/// A side of the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The first children.
    First,
    /// The last children.
    Last,
}

impl Query {
    /// The whole location.
    pub const ALL: Self = Self { index: Index::Priority, start: None, end: None, limit: None };

    /// Whether every child is wanted: then the order does not matter either.
    #[must_use]
    pub const fn is_all(&self) -> bool {
        self.start.is_none() && self.end.is_none() && self.limit.is_none()
    }
}
