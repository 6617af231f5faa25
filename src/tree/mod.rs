//! Answering queries: which children of a location a query wants, once and from then on
//! (Firebase wire specification, sections 3.3, 4 and 7.3).
//!
//! The surprising idea: a window on a location with a million children is kept right without looking
//! at them. A range alone is a question to the child that has changed. A limit needs one thing more,
//! the order of all children, so that the next one is at hand when one leaves; all windows with the
//! same index at the same place share that order, and it goes with the last of them; the order of keys
//! is the location's own and costs nothing. A window itself remembers no children, only how many it
//! holds and which of them is the outermost.
//!
//! Costs: [`select`] O(children), by key O(what is wanted). [`Windows::update`] O(k log n) for each
//! window, where k children of n have changed. An order costs about 70 bytes a child.

mod order;
mod windows;

pub use windows::{Change, Delta, WindowId, Windows};

use crate::data::{Children, Key, Node};
use crate::op::{Direction, Index, Query};
use order::{Order, Post, contains, span_of};

/// What `query` wants of `location`, read once.
///
/// [All](Query::is_all) is the location as it is. Anything else is those children that are wanted,
/// without the location's own priority: nothing, where the location is a leaf or empty. O(children).
#[must_use]
pub fn select(location: &Node, query: &Query) -> Node {
    if query.is_all() { location.clone() } else { branch(members(location, query)) }
}

/// The children that `query` wants of `location`, in the query's order. O(n log n); by key O(log n) and
/// what is wanted.
#[must_use]
pub fn members(location: &Node, query: &Query) -> Vec<(Key, Node)> {
    let Some(span) = span_of(query) else { return Vec::new() };
    let limit = query.limit.map(|limit| (limit.count.get() as usize, limit.from));
    let owned = |(key, child): (&Key, &Node)| (key.clone(), child.clone());
    if query.index == Index::Key {
        let (count, from) = limit.unwrap_or((usize::MAX, Direction::First));
        let posts = Order::Keys.walk(location, &span, from).take(count);
        let mut wanted: Vec<_> = posts.map(|post| (post.to_key(), location.child(post.key()).clone())).collect();
        if from == Direction::Last {
            wanted.reverse();
        }
        return wanted;
    }
    let posts = location.children().iter().map(|(key, child)| (Post::of(&query.index, key, child), (key, child)));
    let mut wanted: Vec<_> = posts.filter(|(post, _)| contains(&span, post)).collect();
    // Posts differ, as keys do: there is one order.
    match limit {
        Some((count, Direction::First)) if count < wanted.len() => {
            wanted.select_nth_unstable_by(count, |(a, _), (b, _)| a.cmp(b));
            wanted.truncate(count);
        }
        Some((count, Direction::Last)) if count < wanted.len() => {
            wanted.select_nth_unstable_by(count, |(a, _), (b, _)| b.cmp(a));
            wanted.truncate(count);
        }
        _ => {}
    }
    wanted.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    wanted.into_iter().map(|(_, child)| owned(child)).collect()
}

/// These children as a node.
fn branch(mut members: Vec<(Key, Node)>) -> Node {
    members.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    let mut children = Children::new();
    for (key, child) in members {
        children.insert(key, child);
    }
    children.shrink();
    Node::branch(children)
}

#[cfg(test)]
mod tests;
