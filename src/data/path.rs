//! Paths: where in the tree.

use std::fmt;

use compact_str::CompactString;

use super::key::{self, InvalidKey, KeyStr};
use crate::base::limits::DEPTH_MAX;

/// A valid path: keys joined by `/`, no slash at either end; the root is the empty text. 24 bytes,
/// of which up to 24 hold the text in place.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Path(CompactString);

/// A path, or the priority of what stands there (`…/.priority`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The node.
    pub path: Path,
    /// Whether the node's priority is meant instead of the node.
    pub is_priority: bool,
}

/// Why a text is no path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidPath {
    /// One of its keys is no key.
    Key(InvalidKey),
    /// It has more than [`DEPTH_MAX`] keys.
    TooDeep,
}

impl Path {
    /// The root.
    pub const ROOT: Self = Self(CompactString::const_new(""));

    /// Reads a path. Slashes at the ends and doubled ones are ignored.
    pub fn parse(text: &str) -> Result<Self, InvalidPath> {
        let mut depth = 0;
        let mut joined = CompactString::default();
        for piece in text.split('/').filter(|piece| !piece.is_empty()) {
            key::check(piece).map_err(InvalidPath::Key)?;
            depth += 1;
            if !joined.is_empty() {
                joined.push('/');
            }
            joined.push_str(piece);
        }
        if depth > DEPTH_MAX { Err(InvalidPath::TooDeep) } else { Ok(Self(joined)) }
    }

    /// The text, without a leading slash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys from the root down.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &KeyStr> + Clone {
        self.0.split('/').filter(|key| !key.is_empty()).map(KeyStr::new)
    }

    /// Its first `count` keys, as they stand in the path; `None` if it has not so many. `count` is at least one.
    #[must_use]
    pub fn first_keys(&self, count: usize) -> Option<&str> {
        // Keys are short: a search that is made for long texts takes longer to begin.
        let mut ends = self.0.bytes().enumerate().filter(|(_, byte)| *byte == b'/').map(|(at, _)| at);
        let before = (1..count).all(|_| ends.next().is_some());
        let end = ends.next().unwrap_or(self.0.len());
        (before && end > 0).then(|| &self.0[..end])
    }

    /// How many keys.
    #[must_use]
    pub fn depth(&self) -> usize {
        if self.0.is_empty() { 0 } else { 1 + memchr::memchr_iter(b'/', self.0.as_bytes()).count() }
    }

    /// The path one level up, and the last key. `None` at the root.
    #[must_use]
    pub fn split_last(&self) -> Option<(&str, &KeyStr)> {
        if self.0.is_empty() {
            return None;
        }
        let (parent, last) = self.0.rsplit_once('/').unwrap_or(("", &self.0));
        Some((parent, KeyStr::new(last)))
    }

    /// The path one level up; the root is its own parent.
    #[must_use]
    pub fn parent(&self) -> Self {
        Self(CompactString::new(self.split_last().map_or("", |(parent, _)| parent)))
    }

    /// The path of a child. The depth limit is the caller's to check.
    #[must_use]
    pub fn child(&self, key: &KeyStr) -> Self {
        let mut text = self.0.clone();
        if !text.is_empty() {
            text.push('/');
        }
        text.push_str(key.as_str());
        Self(text)
    }

    /// `self` followed by `below`. The depth limit is the caller's to check.
    #[must_use]
    pub fn join(&self, below: &Self) -> Self {
        match (self.is_root(), below.is_root()) {
            (true, _) => below.clone(),
            (_, true) => self.clone(),
            _ => Self(compact_str::format_compact!("{}/{}", self.0, below.0)),
        }
    }

    /// Whether `other` is this path or below it.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        self.relative(other).is_some()
    }

    /// The rest of `other` below this path, as text without a leading slash.
    #[must_use]
    pub fn relative<'p>(&self, other: &'p Self) -> Option<&'p str> {
        if self.is_root() {
            return Some(&other.0);
        }
        let rest = other.0.strip_prefix(self.0.as_str())?;
        if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
    }

    /// [`relative`](Self::relative), as a path.
    #[must_use]
    pub fn below(&self, other: &Self) -> Option<Self> {
        self.relative(other).map(|rest| Self(CompactString::new(rest)))
    }

    /// This path and all above it, from the root (empty text) down, as texts.
    pub fn prefixes(&self) -> impl Iterator<Item = &str> {
        let slashes = memchr::memchr_iter(b'/', self.0.as_bytes()).map(|at| &self.0[..at]);
        let is_below_root = !self.0.is_empty();
        std::iter::once("").chain(slashes).chain(is_below_root.then_some(self.0.as_str()))
    }
}

impl Location {
    /// Reads a path whose last piece may be `.priority`.
    pub fn parse(text: &str) -> Result<Self, InvalidPath> {
        let trimmed = text.trim_end_matches('/');
        let (path, is_priority) = match trimmed.strip_suffix(".priority") {
            Some(rest) if rest.is_empty() || rest.ends_with('/') => (rest, true),
            _ => (text, false),
        };
        Ok(Self { path: Path::parse(path)?, is_priority })
    }
}

impl From<Path> for Location {
    fn from(path: Path) -> Self {
        Self { path, is_priority: false }
    }
}

impl std::borrow::Borrow<str> for Path {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.0)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.0)
    }
}
