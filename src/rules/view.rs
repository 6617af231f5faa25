//! The tree as it would be: the old tree and pending changes, looked at without making it.
//!
//! The surprising idea: only the ancestors of a changed place differ from what exists already. Below a
//! changed place stands the new value, beside it the old one; a [`Cursor`] is a plain node in both
//! cases, and only on the way to a change is it an old node with the changes below it. So checking a
//! write copies nothing, however large the maps on its path. Costs: a step towards a single change is
//! one comparison and one lookup in the old tree; among n changes a binary search.

use std::cmp::Ordering;

use crate::data::{KeyStr, Leaf, Node, Path, Priority};

/// One thing that a write would change, server values already filled in.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// Where.
    pub path: &'a Path,
    /// To what.
    pub what: What<'a>,
}

/// What a place would become.
#[derive(Clone, Copy, Debug)]
pub enum What<'a> {
    /// This value; [`Node::Empty`] removes.
    Value(&'a Node),
    /// The value that is there, with this priority. Takes effect after all values of the same write.
    Priority(Option<&'a Priority>),
}

/// A place in a tree that may have pending changes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cursor<'a> {
    /// Nothing at or below this place changes, or all of it is new.
    Plain(&'a Node),
    /// Something below this place changes, or its priority.
    Mixed(Mixed<'a>),
}

/// An old node and what changes at or below it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mixed<'a> {
    old: &'a Node,
    /// Sorted by path; all at or below this place; never empty.
    changes: &'a [Change<'a>],
    /// Where in each path the rest begins: behind the slash that follows this place's own path.
    skip: usize,
}

/// Sorts changes as [`Cursor::root`] wants them: by path, each place before what is below it and that
/// before everything else; a value before the priority of the same place.
pub(super) fn sort(changes: &mut [Change<'_>]) {
    changes.sort_by(|a, b| compare_paths(a.path.as_str(), b.path.as_str()).then(a.what.rank().cmp(&b.what.rank())));
}

/// By keys: as by bytes, with the slash below every byte that a key can hold.
fn compare_paths(a: &str, b: &str) -> Ordering {
    let rank = |byte: u8| if byte == b'/' { 0 } else { byte };
    a.bytes().map(rank).cmp(b.bytes().map(rank))
}

impl What<'_> {
    const fn rank(self) -> u8 {
        match self {
            Self::Value(_) => 0,
            Self::Priority(_) => 1,
        }
    }
}

impl<'a> Cursor<'a> {
    /// The root of `old` as `changes` would leave it. They are sorted, and no value's place is above or
    /// at another change's.
    pub(super) fn root(old: &'a Node, changes: &'a [Change<'a>]) -> Self {
        Self::at(|| old, changes, 0)
    }

    /// Where a change puts something, nobody needs to know what stood there.
    fn at(old: impl FnOnce() -> &'a Node, changes: &'a [Change<'a>], skip: usize) -> Self {
        match changes.first() {
            None => Self::Plain(old()),
            Some(Change { path, what: What::Value(new) }) if rest(path, skip).is_empty() => Self::Plain(new),
            Some(_) => Self::Mixed(Mixed { old: old(), changes, skip }),
        }
    }

    /// The child with this key. A text that cannot be a key finds nothing.
    pub(super) fn child(self, key: &str) -> Self {
        match self {
            Self::Plain(node) => Self::Plain(node.child(KeyStr::new(key))),
            Self::Mixed(mixed) => mixed.child(key),
        }
    }

    /// Whether something is here.
    pub(super) fn exists(self) -> bool {
        match self {
            Self::Plain(node) => !node.is_empty(),
            Self::Mixed(mixed) => mixed.exists(),
        }
    }

    /// The value, if this is a leaf.
    pub(super) fn leaf(self) -> Option<&'a Leaf> {
        match self {
            Self::Plain(node) => node.as_leaf(),
            Self::Mixed(mixed) => mixed.old.as_leaf().filter(|_| !mixed.puts_below()),
        }
    }

    /// Whether there are children.
    pub(super) fn has_children(self) -> bool {
        match self {
            Self::Plain(node) => matches!(node, Node::Branch(_)),
            Self::Mixed(mixed) => mixed.exists() && self.leaf().is_none(),
        }
    }

    /// The priority.
    pub(super) fn priority(self) -> Option<&'a Priority> {
        match self {
            Self::Plain(node) => node.priority(),
            Self::Mixed(mixed) if !mixed.exists() => None,
            Self::Mixed(mixed) => match mixed.changes[0] {
                Change { path, what: What::Priority(priority) } if rest(path, mixed.skip).is_empty() => priority,
                _ => mixed.old.priority(),
            },
        }
    }
}

impl<'a> Mixed<'a> {
    fn child(self, key: &str) -> Cursor<'a> {
        let below = match self.changes {
            // An empty key is no key; the rest of a change at this very place is empty too.
            _ if key.is_empty() => &[],
            [only] if self.key_of(only) == key => self.changes,
            [_] => &[],
            changes => {
                let first = changes.partition_point(|change| self.key_of(change).as_bytes() < key.as_bytes());
                let count = changes[first..].partition_point(|change| self.key_of(change) == key);
                &changes[first..first + count]
            }
        };
        Cursor::at(|| self.old.child(KeyStr::new(key)), below, self.skip + key.len() + 1)
    }

    /// The first key of a change's path below this place; empty if it is at this place.
    fn key_of(self, change: &Change<'a>) -> &'a str {
        let rest = rest(change.path, self.skip);
        memchr::memchr(b'/', rest.as_bytes()).map_or(rest, |slash| &rest[..slash])
    }

    /// Whether something is put at or below this place. Then it exists and has children.
    fn puts_below(self) -> bool {
        self.changes.iter().any(|change| matches!(change.what, What::Value(new) if !new.is_empty()))
    }

    fn exists(self) -> bool {
        match self.old {
            // Removing below a leaf leaves it; putting below it makes it an inner node.
            Node::Leaf(_) | Node::Ranked(_) => true,
            Node::Empty => self.puts_below(),
            Node::Branch(_) => self.puts_below() || self.keeps_child(),
        }
    }

    /// Whether one of the old children is left by changes that all remove.
    fn keeps_child(self) -> bool {
        let children = self.old.children();
        if children.len() > self.changes.len() {
            return true;
        }
        let mut removed = 0;
        let mut previous = "";
        for change in self.changes {
            let key = self.key_of(change);
            if key == previous {
                continue;
            }
            previous = key;
            if children.get(KeyStr::new(key)).is_some() && !self.child(key).exists() {
                removed += 1;
            }
        }
        children.len() > removed
    }
}

/// What follows in a path from `skip` on; empty at the path's end.
fn rest(path: &Path, skip: usize) -> &str {
    path.as_str().get(skip..).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::WallMillis;
    use crate::data::Draft;
    use crate::json::Reader;

    fn node(json: &str) -> Node {
        Reader::default()
            .read(&mut json.as_bytes().to_vec(), |item| Draft::from_json(item, 0))
            .expect("JSON")
            .expect("storable")
            .resolve(&Node::Empty, WallMillis(0))
    }

    /// A cursor tells the same as the node that stands at its place.
    fn check_same(cursor: Cursor<'_>, node: &Node, trail: &str) {
        assert_eq!(cursor.exists(), !node.is_empty(), "exists {trail}");
        assert_eq!(cursor.leaf(), node.as_leaf(), "leaf {trail}");
        assert_eq!(cursor.has_children(), !node.children().is_empty(), "children {trail}");
        assert_eq!(cursor.priority(), node.priority(), "priority {trail}");
        if trail.len() > 8 {
            return;
        }
        for key in ["a", "b", "a-", "c", "", ".", "b/a"] {
            check_same(cursor.child(key), node.child(KeyStr::new(key)), &format!("{trail}/{key}"));
        }
    }

    /// `changes` are `path=json`, or `path!json` for a priority.
    #[track_caller]
    fn check(old: &str, changes: &[&str]) {
        let old = node(old);
        let parsed: Vec<(Path, bool, Node)> = changes
            .iter()
            .map(|change| {
                let at = change.find(['=', '!']).expect("a change has a mark");
                let path = Path::parse(&change[..at]).expect("a path");
                (path, &change[at..=at] == "!", node(&change[at + 1..]))
            })
            .collect();
        let priorities: Vec<Option<Priority>> = parsed
            .iter()
            .map(|(_, _, node)| match node.as_leaf() {
                Some(Leaf::Number(number)) => Some(Priority::Number(*number)),
                Some(Leaf::Text(text)) => Some(Priority::Text(text.clone())),
                _ => None,
            })
            .collect();
        let mut changes: Vec<Change<'_>> = parsed
            .iter()
            .zip(&priorities)
            .map(|((path, is_priority, node), priority)| {
                let what = if *is_priority { What::Priority(priority.as_ref()) } else { What::Value(node) };
                Change { path, what }
            })
            .collect();
        let mut new = old.clone();
        // Removals last, so that no parent vanishes on the way to a put; then priorities.
        let rank = |what: What<'_>| match what {
            What::Value(node) => u8::from(node.is_empty()),
            What::Priority(_) => 2,
        };
        changes.sort_by_key(|change| rank(change.what));
        for change in &changes {
            match change.what {
                What::Value(node) => drop(new.set(change.path.as_str(), node.clone())),
                What::Priority(priority) => new.set_priority(change.path.as_str(), priority.cloned()),
            }
        }
        sort(&mut changes);
        check_same(Cursor::root(&old, &changes), &new, "");
    }

    #[test]
    fn a_view_is_the_tree_that_the_changes_would_make() {
        let deep = r#"{"a":{"a":{"b":1},"b":2},"a-":{"c":3},"b":"leaf"}"#;
        for old in
            ["null", "5", deep, r#"{"a":{"b":1}}"#, r#"{"b":{".value":7,".priority":"p"},"a":{"c":1,".priority":3}}"#]
        {
            for change in
                ["=null", "=1", "a=null", "a/b=null", "a/b=2", "a/a=null", "b/a=1", "b/a=null", "c/c/c=null", "!4"]
            {
                check(old, &[change]);
            }
            check(old, &["a/b=null", "a/a=null"]);
            check(old, &["a/b=null", "a/c=null", "a-=1", "b=null"]);
            check(old, &["a/b=1", "a-/c=null", "a/a/b=null", "b/a=2"]);
            check(old, &["a/b=null", "a!9", "a/c/a=1"]);
            check(old, &["a!1", "b!\"x\"", "c!5"]);
            check(old, &["b!1", "b/b=null", "a/a=null", "a/b=null", "a/c=null"]);
        }
    }
}
