//! Windows: what queries want of one location, kept right write by write.

use std::ops::Bound as Edge;

use slab::Slab;
use smallvec::SmallVec;

use super::order::{Order, Post, Span, contains, span_of};
use super::{branch, members};
use crate::base::{Hashing, Map};
use crate::data::{Key, KeyStr, Node};
use crate::op::{Direction, Index, Limit, Query};

/// All queries that somebody listens to at one location.
///
/// The caller keeps the location and tells of every change to it, with [`update`](Self::update) or
/// [`replace`](Self::replace), after it has happened and in order. Everybody who listens to the same
/// query shares a window: what has changed in it is worked out once.
#[derive(Debug)]
pub struct Windows {
    views: Slab<View>,
    by_query: Map<Query, WindowId>,
}

/// One window of [`Windows`]. Reused after its last watcher has closed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WindowId {
    view: u32,
    window: u32,
}

/// What happened to a child, as the window shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is no longer in the window: deleted, out of range, or pushed out by others.
    Left,
    /// It was not in the window. The client may never have seen it: here is all of it.
    Entered(Node),
    /// It was in the window and is now this.
    Changed(Node),
}

/// What happened to a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delta {
    /// All of it is now this: it was empty before, or is empty now.
    Whole(Node),
    /// These children are now this, each key once; the rest is as it was. Never empty.
    Children(Vec<(Key, Change)>),
}

/// The windows that order by the same index.
#[derive(Debug)]
struct View {
    index: Index,
    windows: Slab<Window>,
    /// Kept exactly while `limited_count` is not zero; whoever has no limit uses it, but does not need it.
    order: Option<Order>,
    /// How many of the windows have a limit.
    limited_count: usize,
}

#[derive(Debug)]
struct Window {
    query: Query,
    watchers_count: usize,
    /// `None`: nothing can be in the range.
    span: Option<Span>,
    /// With a limit: how many children are inside. Never more than the limit.
    count: usize,
    /// The outermost child inside, seen from the side where counting begins, while `count` is the limit;
    /// else `None`, and everything in the range is inside.
    edge: Option<Post>,
}

/// A child that a write has touched.
struct Move<'c> {
    key: &'c Key,
    before: &'c Node,
    after: &'c Node,
    /// Where it stood, if it was there, and where it stands.
    old: Option<Post>,
    new: Option<Post>,
}

impl Windows {
    /// No windows.
    #[must_use]
    pub fn new(hashing: &Hashing) -> Self {
        Self { views: Slab::new(), by_query: hashing.map() }
    }

    /// Whether nobody watches.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_query.is_empty()
    }

    /// Begins to watch `query` at the location, which is now `location`. [Close](Self::close) it as
    /// often as it was opened.
    ///
    /// O(1) if somebody watches it already, O(limit) if somebody else has a limit with the same index,
    /// O(children) for the first limit with an index.
    pub fn open(&mut self, query: &Query, location: &Node) -> WindowId {
        if let Some(&id) = self.by_query.get(query) {
            self.views[id.view as usize].windows[id.window as usize].watchers_count += 1;
            return id;
        }
        let known = self.views.iter().find(|(_, view)| view.index == query.index).map(|(view, _)| view);
        let view_index = known.unwrap_or_else(|| {
            let (index, windows) = (query.index.clone(), Slab::new());
            self.views.insert(View { index, windows, order: None, limited_count: 0 })
        });
        let view = &mut self.views[view_index];
        let mut window = Window { query: query.clone(), watchers_count: 1, span: span_of(query), count: 0, edge: None };
        if query.limit.is_some() {
            view.limited_count += 1;
            window.seat(view.order.get_or_insert_with(|| Order::of(&query.index, location)), location);
        }
        let window_index = view.windows.insert(window);
        let narrow = |index: usize| u32::try_from(index).expect("fewer windows than 2^32 fit in memory");
        let id = WindowId { view: narrow(view_index), window: narrow(window_index) };
        self.by_query.insert(query.clone(), id);
        id
    }

    /// One watcher less; after the last, the window is gone and `id` means nothing. Says whether it is.
    pub fn close(&mut self, id: WindowId) -> bool {
        let view = &mut self.views[id.view as usize];
        let window = &mut view.windows[id.window as usize];
        window.watchers_count -= 1;
        if window.watchers_count > 0 {
            return false;
        }
        let window = view.windows.remove(id.window as usize);
        self.by_query.remove(&window.query);
        if window.query.limit.is_some() {
            view.limited_count -= 1;
            if view.limited_count == 0 {
                view.order = None;
            }
        }
        if view.windows.is_empty() {
            self.views.remove(id.view as usize);
        }
        true
    }

    /// The query that a window shows.
    #[must_use]
    pub fn query(&self, id: WindowId) -> &Query {
        &self.views[id.view as usize].windows[id.window as usize].query
    }

    /// What stands in a window now, where the location is `location`: its children that are wanted,
    /// without its own priority. O(limit log n) with a limit, else O(children).
    #[must_use]
    pub fn node(&self, id: WindowId, location: &Node) -> Node {
        let view = &self.views[id.view as usize];
        branch(view.windows[id.window as usize].members(view.order.as_ref(), location))
    }

    /// Some children of the location, or something below them, have changed: `touched` says which, and
    /// what each was before; `location` is the location as it is now. Calls `each` for every window
    /// that shows it.
    ///
    /// A child may stand in `touched` more than once; the first says what it was. A location that was a
    /// leaf, or nothing, or that is now, has no children. O(k log n) for a window, for k children touched.
    pub fn update(&mut self, location: &Node, touched: &[(Key, Node)], mut each: impl FnMut(WindowId, Delta)) {
        let mut touched: SmallVec<[&(Key, Node); 4]> = touched.iter().collect();
        touched.sort_by(|(a, _), (b, _)| a.cmp(b));
        touched.dedup_by(|(later, _), (first, _)| later == first);
        for (view_index, view) in &mut self.views {
            let moves: SmallVec<[Move<'_>; 4]> =
                touched.iter().map(|(key, before)| Move::of(&view.index, key, before, location.child(key))).collect();
            if let Some(order) = &mut view.order {
                for one in &moves {
                    order.shift(one.old.as_ref(), one.new.as_ref());
                }
                assert!(order.is_complete(location), "a change was not told");
            }
            for (window_index, window) in &mut view.windows {
                let changes = window.update(view.order.as_ref(), &moves, location);
                if !changes.is_empty() {
                    #[expect(clippy::cast_possible_truncation, reason = "`open` has checked both")]
                    let id = WindowId { view: view_index as u32, window: window_index as u32 };
                    each(id, Delta::Children(changes));
                }
            }
        }
    }

    /// The whole location was replaced: it was `old` and is `new`. Calls `each` for every window that
    /// shows something else now. O(children of both).
    pub fn replace(&mut self, old: &Node, new: &Node, mut each: impl FnMut(WindowId, Delta)) {
        for (view_index, view) in &mut self.views {
            let shown: Vec<_> =
                view.windows.iter().map(|(_, window)| window.members(view.order.as_ref(), old)).collect();
            if let Some(order) = &mut view.order {
                *order = Order::of(&view.index, new);
            }
            for ((window_index, window), before) in view.windows.iter_mut().zip(shown) {
                if let Some(order) = &view.order
                    && window.query.limit.is_some()
                {
                    window.seat(order, new);
                }
                if let Some(delta) = difference(before, window.members(view.order.as_ref(), new)) {
                    #[expect(clippy::cast_possible_truncation, reason = "`open` has checked both")]
                    let id = WindowId { view: view_index as u32, window: window_index as u32 };
                    each(id, delta);
                }
            }
        }
    }
}

impl Window {
    /// Counts from the beginning what is inside. O(limit).
    fn seat(&mut self, order: &Order, location: &Node) {
        (self.count, self.edge) = (0, None);
        let (Some(span), Some(Limit { count, from })) = (&self.span, self.query.limit) else { return };
        let count_max = count.get() as usize;
        for post in order.walk(location, span, from).take(count_max) {
            self.count += 1;
            if self.count == count_max {
                self.edge = Some(post);
            }
        }
    }

    /// The children inside.
    fn members(&self, order: Option<&Order>, location: &Node) -> Vec<(Key, Node)> {
        match (order, self.area()) {
            (_, None) => Vec::new(),
            (None, Some(_)) => members(location, &self.query),
            (Some(order), Some(area)) => {
                let posts = order.walk(location, &area, Direction::First);
                posts.map(|post| (post.to_key(), location.child(post.key()).clone())).collect()
            }
        }
    }

    /// From where to where children are inside.
    fn area(&self) -> Option<Span> {
        let (start, end) = self.span.clone()?;
        Some(match (&self.edge, self.query.limit) {
            (Some(edge), Some(Limit { from: Direction::First, .. })) => (start, Edge::Included(edge.clone())),
            (Some(edge), Some(Limit { from: Direction::Last, .. })) => (Edge::Included(edge.clone()), end),
            _ => (start, end),
        })
    }

    /// From the edge outwards, as far as the range goes.
    fn beyond(&self, edge: &Post, from: Direction) -> Option<Span> {
        let (start, end) = self.span.clone()?;
        Some(match from {
            Direction::First => (Edge::Excluded(edge.clone()), end),
            Direction::Last => (start, Edge::Excluded(edge.clone())),
        })
    }

    /// Takes in what a write has moved; `order` has taken it in already. Says what is shown otherwise.
    fn update(&mut self, order: Option<&Order>, moves: &[Move<'_>], location: &Node) -> Vec<(Key, Change)> {
        let Some(area) = self.area() else { return Vec::new() };
        let is_in = |area: &Span, post: &Option<Post>| post.as_ref().is_some_and(|post| contains(area, post));
        let was_inside: SmallVec<[bool; 4]> = moves.iter().map(|one| is_in(&area, &one.old)).collect();
        let mut others = Vec::new();
        if let (Some(order), Some(limit)) = (order, self.query.limit) {
            // Who is inside the old area now; the rest of the window follows from that.
            let left_count = was_inside.iter().filter(|was_inside| **was_inside).count();
            let came_count = moves.iter().filter(|one| is_in(&area, &one.new)).count();
            self.count = (self.count + came_count).checked_sub(left_count).expect("who leaves was counted");
            let shifted = self.settle(order, location, limit, &area);
            others = shifted.into_iter().filter(|(post, _)| !is_moved(moves, post.key())).collect();
        }
        let area = self.area().expect("the range is as it was");
        let mut changes = Vec::new();
        for (one, was_inside) in moves.iter().zip(was_inside) {
            let change = match (was_inside, is_in(&area, &one.new)) {
                (true, false) => Change::Left,
                (false, true) => Change::Entered(one.after.clone()),
                (true, true) if !is_same(one.before, one.after) => Change::Changed(one.after.clone()),
                (true, true) | (false, false) => continue,
            };
            changes.push((one.key.clone(), change));
        }
        changes.extend(others.into_iter().map(|(post, is_inside)| {
            let change = if is_inside { Change::Entered(location.child(post.key()).clone()) } else { Change::Left };
            (post.to_key(), change)
        }));
        changes
    }

    /// Moves the edge so that no more than the limit are inside, and no fewer if there are more in the
    /// range, where `count` are inside the old `area`. Returns the children over which it has moved and
    /// whether they are inside now. O(c log n) for c of them.
    fn settle(&mut self, order: &Order, location: &Node, limit: Limit, area: &Span) -> Vec<(Post, bool)> {
        let count_max = limit.count.get() as usize;
        let mut passed = Vec::new();
        if self.count >= count_max {
            let outside = match limit.from {
                Direction::First => Direction::Last,
                Direction::Last => Direction::First,
            };
            let mut inwards = order.walk(location, area, outside);
            let excess = self.count - count_max;
            passed.extend(inwards.by_ref().take(excess).map(|post| (post, false)));
            self.edge = Some(inwards.next().expect("a limit is at least one, and so many are inside"));
            self.count = count_max;
        } else if let Some(edge) = self.edge.take() {
            let missing = count_max - self.count;
            let beyond = self.beyond(&edge, limit.from).expect("who has an edge has a range");
            passed.extend(order.walk(location, &beyond, limit.from).take(missing).map(|post| (post, true)));
            self.count += passed.len();
            if passed.len() == missing {
                self.edge = passed.last().map(|(post, _)| post.clone());
            }
        }
        assert!(self.edge.is_some() == (self.count == count_max), "a full window has an edge, another has none");
        passed
    }
}

impl<'c> Move<'c> {
    fn of(index: &Index, key: &'c Key, before: &'c Node, after: &'c Node) -> Self {
        let post = |child: &Node| (!child.is_empty()).then(|| Post::of(index, key, child));
        Self { key, before, after, old: post(before), new: post(after) }
    }
}

/// Whether `key` is one of the moves, which are sorted by key.
fn is_moved(moves: &[Move<'_>], key: &KeyStr) -> bool {
    moves.binary_search_by(|one| KeyStr::new(one.key.as_str()).cmp(key)).is_ok()
}

/// Whether two nodes are surely the same. Looks no deeper than one value: a child may be large, and what
/// was written may be far down in it.
fn is_same(a: &Node, b: &Node) -> bool {
    match (a, b) {
        (Node::Branch(a), Node::Branch(b)) => std::sync::Arc::ptr_eq(a, b),
        _ => a == b,
    }
}

/// What happened between two states of a window.
fn difference(mut before: Vec<(Key, Node)>, mut after: Vec<(Key, Node)>) -> Option<Delta> {
    if before.is_empty() || after.is_empty() {
        return (before.len() != after.len()).then(|| Delta::Whole(branch(after)));
    }
    before.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    after.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    let mut changes = Vec::new();
    let mut before = before.into_iter().peekable();
    for (key, node) in after {
        while let Some((gone, _)) = before.next_if(|(other, _)| *other < key) {
            changes.push((gone, Change::Left));
        }
        match before.next_if(|(other, _)| *other == key) {
            None => changes.push((key, Change::Entered(node))),
            Some((_, old)) if old != node => changes.push((key, Change::Changed(node))),
            Some(_) => {}
        }
    }
    changes.extend(before.map(|(gone, _)| (gone, Change::Left)));
    (!changes.is_empty()).then_some(Delta::Children(changes))
}
