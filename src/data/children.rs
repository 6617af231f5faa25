//! The children of a node: a persistent ordered map from [`Key`] to [`Node`].
//!
//! Up to [`SMALL_MAX`] children stand in one sorted list inside the branch: that is nearly every
//! branch of a presence tree, and the list has exactly the room it needs. Above that they move to
//! a B+tree of shared pages, so that a clone is O(1) and a change after it copies one page a level.
//! Finding, changing: O(log n). A full page of leaves: 64 × 48 bytes.

use std::ops::Bound;
use std::sync::Arc;

use super::key::{Key, KeyStr};
use super::node::Node;

/// Children that are kept in one list.
const SMALL_MAX: usize = 32;
/// A list this short is searched from its start.
const SCAN_MAX: usize = 8;
/// Entries of one page.
const PAGE_MAX: usize = 64;
/// A page with fewer entries is joined with its neighbour, where both fit into three quarters of a
/// page.
const PAGE_MIN: usize = 16;

const _: () = assert!(PAGE_MIN * 2 <= PAGE_MAX * 3 / 4, "two small pages can always be joined");
const _: () = assert!(SMALL_MAX <= PAGE_MAX, "a list becomes one page");

/// An ordered map of children.
#[derive(Clone, Debug, Default)]
pub struct Children(Shape);

#[derive(Clone, Debug)]
enum Shape {
    Small(Vec<(Key, Node)>),
    Large { root: Arc<Page>, len: usize },
}

impl Default for Shape {
    fn default() -> Self {
        Self::Small(Vec::new())
    }
}

#[derive(Clone, Debug)]
enum Page {
    Leaves(Vec<(Key, Node)>),
    /// Each page with its first key at the time it was made: every key in it is at least that, and
    /// less than the next one's. (The first page's key is a bound that nobody looks at.)
    Pages(Vec<(Key, Arc<Self>)>),
}

impl Children {
    /// No children.
    #[must_use]
    pub const fn new() -> Self {
        Self(Shape::Small(Vec::new()))
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.0 {
            Shape::Small(list) => list.len(),
            Shape::Large { len, .. } => *len,
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The child with this key.
    #[must_use]
    pub fn get(&self, key: &KeyStr) -> Option<&Node> {
        let mut page = match &self.0 {
            // Whether two keys are equal is told much faster than which comes first.
            Shape::Small(list) if list.len() <= SCAN_MAX => {
                return list.iter().find(|(other, _)| other.as_str() == key.as_str()).map(|(_, node)| node);
            }
            Shape::Small(list) => return find(list, key).ok().map(|index| &list[index].1),
            Shape::Large { root, .. } => root,
        };
        loop {
            match &**page {
                Page::Leaves(list) => return find(list, key).ok().map(|index| &list[index].1),
                Page::Pages(pages) => page = &pages[page_of(pages, key)].1,
            }
        }
    }

    /// Lets `change` look at the place of `key` (holding [`Node::Empty`] if there was no such child)
    /// and keeps what it leaves there; an empty place is removed.
    pub fn change<R>(&mut self, key: &KeyStr, change: impl FnOnce(&mut Node) -> R) -> R {
        match &mut self.0 {
            Shape::Small(list) => {
                let (answer, _) = change_in(list, key, change);
                if list.len() > SMALL_MAX {
                    let len = list.len();
                    let list = std::mem::take(list);
                    self.0 = Shape::Large { root: Arc::new(Page::Leaves(list)), len };
                }
                answer
            }
            Shape::Large { root, len } => {
                let (answer, grown) = change_below(root, key, change);
                *len = len.checked_add_signed(grown).expect("a map never shrinks below nothing");
                settle_root(root);
                if *len <= SMALL_MAX / 2 {
                    let list = self.iter().map(|(key, node)| (key.clone(), node.clone())).collect();
                    self.0 = Shape::Small(list);
                }
                answer
            }
        }
    }

    /// Puts `node` under `key`.
    pub fn insert(&mut self, key: Key, node: Node) {
        match &mut self.0 {
            // Reading JSON meets keys mostly in order; the key itself moves in.
            Shape::Small(list) if list.len() < SMALL_MAX && list.last().is_none_or(|(last, _)| *last < key) => {
                if !node.is_empty() {
                    list.push((key, node));
                }
            }
            _ => self.change(&key, |place| *place = node),
        }
    }

    /// All children in key order.
    #[must_use]
    pub fn iter(&self) -> Iter<'_> {
        let mut iter = Iter { leaves: [].iter(), pages: Vec::new() };
        match &self.0 {
            Shape::Small(list) => iter.leaves = list.iter(),
            Shape::Large { root, .. } => iter.descend(root),
        }
        iter
    }

    /// The children from `start` on, in key order. O(log n) to begin with.
    #[must_use]
    pub fn from(&self, start: Bound<&KeyStr>) -> Walk<'_> {
        self.walk(start, Side::First)
    }

    /// The children up to `end`, the last one first. O(log n) to begin with.
    #[must_use]
    pub fn back_from(&self, end: Bound<&KeyStr>) -> Walk<'_> {
        self.walk(end, Side::Last)
    }

    fn walk(&self, edge: Bound<&KeyStr>, side: Side) -> Walk<'_> {
        let mut walk = Walk { leaves: &[], pages: Vec::new(), side };
        match &self.0 {
            Shape::Small(list) => walk.leaves = walk.trim(list, edge),
            Shape::Large { root, .. } => walk.descend(root, edge),
        }
        walk
    }

    /// The children from `key` on, in key order. O(log n).
    #[must_use]
    pub fn iter_from(&self, key: &KeyStr) -> Iter<'_> {
        let mut iter = Iter { leaves: [].iter(), pages: Vec::new() };
        let rest = |list: &'_ [(Key, Node)]| list.partition_point(|(other, _)| KeyStr::new(other.as_str()) < key);
        let mut page = match &self.0 {
            Shape::Small(list) => {
                iter.leaves = list[rest(list)..].iter();
                return iter;
            }
            Shape::Large { root, .. } => &**root,
        };
        loop {
            match page {
                Page::Leaves(list) => {
                    iter.leaves = list[rest(list)..].iter();
                    return iter;
                }
                Page::Pages(pages) => {
                    let index = page_of(pages, key);
                    iter.pages.push(pages[index + 1..].iter());
                    page = &pages[index].1;
                }
            }
        }
    }

    /// Gives back room that a list grew for and does not need.
    pub fn shrink(&mut self) {
        if let Shape::Small(list) = &mut self.0 {
            list.shrink_to_fit();
        }
    }
}

/// The children in key order.
#[derive(Clone, Debug)]
pub struct Iter<'c> {
    leaves: std::slice::Iter<'c, (Key, Node)>,
    /// What is left of the pages above, the innermost last.
    pages: Vec<std::slice::Iter<'c, (Key, Arc<Page>)>>,
}

impl<'c> Iter<'c> {
    fn descend(&mut self, mut page: &'c Page) {
        loop {
            match page {
                Page::Leaves(list) => {
                    self.leaves = list.iter();
                    return;
                }
                Page::Pages(pages) => {
                    let mut rest = pages.iter();
                    let (_, first) = rest.next().expect("an inner page has pages");
                    self.pages.push(rest);
                    page = first;
                }
            }
        }
    }
}

impl<'c> Iterator for Iter<'c> {
    type Item = (&'c Key, &'c Node);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((key, node)) = self.leaves.next() {
                return Some((key, node));
            }
            match self.pages.last_mut()?.next() {
                Some((_, page)) => self.descend(page),
                None => {
                    self.pages.pop();
                }
            }
        }
    }
}

/// From which side children are walked.
#[derive(Clone, Copy, Debug)]
enum Side {
    First,
    Last,
}

/// The children from some key on, in key order or the other way round.
#[derive(Clone, Debug)]
pub struct Walk<'c> {
    /// What is left of the innermost page.
    leaves: &'c [(Key, Node)],
    /// What is left of the pages above, the innermost last.
    pages: Vec<&'c [(Key, Arc<Page>)]>,
    side: Side,
}

impl<'c> Walk<'c> {
    /// What of `list` is on our side of `edge`.
    fn trim(&self, list: &'c [(Key, Node)], edge: Bound<&KeyStr>) -> &'c [(Key, Node)] {
        let (key, is_included) = match edge {
            Bound::Unbounded => return list,
            Bound::Included(key) => (key, true),
            Bound::Excluded(key) => (key, false),
        };
        let (before, from) = list.split_at(find(list, key).unwrap_or_else(|index| index));
        let is_at_key = from.first().is_some_and(|(first, _)| KeyStr::new(first.as_str()) == key);
        match self.side {
            Side::First => &from[usize::from(is_at_key && !is_included)..],
            Side::Last => &list[..before.len() + usize::from(is_at_key && is_included)],
        }
    }

    fn descend(&mut self, mut page: &'c Page, edge: Bound<&KeyStr>) {
        loop {
            match page {
                Page::Leaves(list) => {
                    self.leaves = self.trim(list, edge);
                    return;
                }
                Page::Pages(pages) => {
                    let index = match (edge, self.side) {
                        (Bound::Included(key) | Bound::Excluded(key), _) => page_of(pages, key),
                        (Bound::Unbounded, Side::First) => 0,
                        (Bound::Unbounded, Side::Last) => pages.len() - 1,
                    };
                    self.pages.push(match self.side {
                        Side::First => &pages[index + 1..],
                        Side::Last => &pages[..index],
                    });
                    page = &pages[index].1;
                }
            }
        }
    }
}

impl<'c> Iterator for Walk<'c> {
    type Item = (&'c Key, &'c Node);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let split = match self.side {
                Side::First => self.leaves.split_first(),
                Side::Last => self.leaves.split_last(),
            };
            if let Some(((key, node), rest)) = split {
                self.leaves = rest;
                return Some((key, node));
            }
            let pages = self.pages.last_mut()?;
            let split = match self.side {
                Side::First => pages.split_first(),
                Side::Last => pages.split_last(),
            };
            match split {
                Some(((_, page), rest)) => {
                    *pages = rest;
                    self.descend(page, Bound::Unbounded);
                }
                None => {
                    self.pages.pop();
                }
            }
        }
    }
}

fn find(list: &[(Key, Node)], key: &KeyStr) -> Result<usize, usize> {
    // Most lookups in a short list are for a key equal to one of few: a binary search is as good.
    list.binary_search_by(|(other, _)| KeyStr::new(other.as_str()).cmp(key))
}

/// Which of the pages holds `key`, or would.
fn page_of(pages: &[(Key, Arc<Page>)], key: &KeyStr) -> usize {
    pages.partition_point(|(first, _)| KeyStr::new(first.as_str()) <= key).saturating_sub(1)
}

/// Changes one place of a sorted list; says by how many the list grew (-1, 0, 1).
fn change_in<R>(list: &mut Vec<(Key, Node)>, key: &KeyStr, change: impl FnOnce(&mut Node) -> R) -> (R, isize) {
    match find(list, key) {
        Ok(index) => {
            let answer = change(&mut list[index].1);
            if list[index].1.is_empty() {
                list.remove(index);
                return (answer, -1);
            }
            (answer, 0)
        }
        Err(index) => {
            let mut node = Node::Empty;
            let answer = change(&mut node);
            if node.is_empty() {
                return (answer, 0);
            }
            if list.len() < 4 {
                list.reserve_exact(1);
            }
            let key = Key::parse(key.as_str()).expect("whoever stores a key has parsed its path");
            list.insert(index, (key, node));
            (answer, 1)
        }
    }
}

fn change_below<R>(page: &mut Arc<Page>, key: &KeyStr, change: impl FnOnce(&mut Node) -> R) -> (R, isize) {
    match Arc::make_mut(page) {
        Page::Leaves(list) => change_in(list, key, change),
        Page::Pages(pages) => {
            let index = page_of(pages, key);
            let (answer, grown) = change_below(&mut pages[index].1, key, change);
            match grown {
                1 => split_if_full(pages, index),
                -1 => join_if_small(pages, index),
                _ => {}
            }
            (answer, grown)
        }
    }
}

/// Splits `pages[index]` when it has outgrown its size.
fn split_if_full(pages: &mut Vec<(Key, Arc<Page>)>, index: usize) {
    let is_last = index + 1 == pages.len();
    if let Some((first, page)) = split(&mut pages[index].1, is_last) {
        pages.insert(index + 1, (first, page));
    }
}

/// The upper part of a page that has outgrown its size. Where keys are appended (push ids ascend),
/// the lower page stays nearly full.
fn split(page: &mut Arc<Page>, is_last: bool) -> Option<(Key, Arc<Page>)> {
    if page.len() <= PAGE_MAX {
        return None;
    }
    let at = if is_last { PAGE_MAX - PAGE_MAX / 8 } else { PAGE_MAX / 2 };
    let (first, upper) = match Arc::make_mut(page) {
        Page::Leaves(list) => {
            let upper = list.split_off(at);
            (upper[0].0.clone(), Page::Leaves(upper))
        }
        Page::Pages(list) => {
            let upper = list.split_off(at);
            (upper[0].0.clone(), Page::Pages(upper))
        }
    };
    Some((first, Arc::new(upper)))
}

/// Removes `pages[index]` when it is empty, or joins it with a neighbour when both are small.
fn join_if_small(pages: &mut Vec<(Key, Arc<Page>)>, index: usize) {
    if pages[index].1.len() >= PAGE_MIN || pages.len() == 1 {
        return;
    }
    if pages[index].1.len() == 0 {
        pages.remove(index);
        return;
    }
    let lower = index.min(pages.len() - 2);
    if pages[lower].1.len() + pages[lower + 1].1.len() > PAGE_MAX * 3 / 4 {
        return;
    }
    let (_, upper) = pages.remove(lower + 1);
    let upper = Arc::unwrap_or_clone(upper);
    match (Arc::make_mut(&mut pages[lower].1), upper) {
        (Page::Leaves(list), Page::Leaves(more)) => list.extend(more),
        (Page::Pages(list), Page::Pages(more)) => list.extend(more),
        _ => unreachable!("pages of one level are of one kind"),
    }
}

/// Adds a level above a full root, takes one away above a single page.
fn settle_root(root: &mut Arc<Page>) {
    if let Some(upper) = split(root, true) {
        let lower = std::mem::replace(root, Arc::new(Page::Leaves(Vec::new())));
        let first = lower.first_key().expect("a split page is not empty").clone();
        *root = Arc::new(Page::Pages(vec![(first, lower), upper]));
    }
    while let Page::Pages(pages) = &**root
        && pages.len() == 1
    {
        let only = pages[0].1.clone();
        *root = only;
    }
}

impl Page {
    fn len(&self) -> usize {
        match self {
            Self::Leaves(list) => list.len(),
            Self::Pages(list) => list.len(),
        }
    }

    fn first_key(&self) -> Option<&Key> {
        match self {
            Self::Leaves(list) => list.first().map(|(key, _)| key),
            Self::Pages(list) => list.first().map(|(key, _)| key),
        }
    }
}

/// A part of a tree that is being dropped.
pub(super) struct Part(PartOf);

enum PartOf {
    Node(Node),
    Page(Arc<Page>),
}

impl Part {
    pub(super) const fn of(node: Node) -> Self {
        Self(PartOf::Node(node))
    }

    /// Drops this part and puts what was below it on `heap`. Gives how many entries it had. What others
    /// share stays.
    pub(super) fn fell(self, heap: &mut Vec<Self>) -> usize {
        let list = match self.0 {
            PartOf::Node(Node::Branch(branch)) => match Arc::into_inner(branch).map(|branch| branch.children.0) {
                Some(Shape::Small(list)) => list,
                Some(Shape::Large { root, .. }) => {
                    heap.push(Self(PartOf::Page(root)));
                    return 1;
                }
                None => return 1,
            },
            PartOf::Node(_) => return 1,
            PartOf::Page(page) => match Arc::into_inner(page) {
                Some(Page::Leaves(list)) => list,
                Some(Page::Pages(pages)) => {
                    let count = pages.len();
                    heap.extend(pages.into_iter().map(|(_, page)| Self(PartOf::Page(page))));
                    return count;
                }
                None => return 1,
            },
        };
        let count = list.len();
        let nodes = list.into_iter().map(|(_, node)| node).filter(|node| matches!(node, Node::Branch(_)));
        heap.extend(nodes.map(Self::of));
        count
    }
}
