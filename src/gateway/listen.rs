//! What a session listens to, as a stream.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::{Included, Unbounded};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use futures_core::Stream;

use super::ear::lock;
use super::session::Line;
use super::{Error, Value};
use crate::base::limits::{GUEST_CHANGES_MAX, GUEST_EVENTS_MAX};
use crate::data::{Node, Path};
use crate::op::{Event, Refusal, Request};

/// Something that has happened to what is listened to. Paths are from the root.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Change {
    /// What stands at `path` is now this. The first change of a listen is one, with all there is.
    Value {
        /// Where.
        path: String,
        /// What, in full.
        value: Value,
    },
    /// What stands at these paths below `path` is now this, at once; the rest is as it was.
    Merge {
        /// Above all of them.
        path: String,
        /// Where, from `path` on, and what.
        changes: Vec<(String, Value)>,
    },
}

/// Events that wait to be taken.
#[derive(Debug, Default)]
pub(super) struct Mailbox(Mutex<Post>);

#[derive(Debug, Default)]
struct Post {
    events: VecDeque<Arc<Event>>,
    /// What came after them, when they were too many already.
    merged: Merged,
    over: Option<Error>,
    waker: Option<Waker>,
}

impl Mailbox {
    pub(super) fn put(&self, event: &Arc<Event>) {
        let waker = {
            let mut post = lock(&self.0);
            if post.over.is_some() {
                return;
            }
            match &**event {
                Event::Revoked { .. } => post.over = Some(Error::Refused(Refusal::Denied)),
                _ if post.events.len() < GUEST_EVENTS_MAX && post.merged.0.is_empty() => {
                    post.events.push_back(Arc::clone(event));
                }
                late => post.merge(late),
            }
            post.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(super) fn end(&self, why: Error) {
        let waker = {
            let mut post = lock(&self.0);
            post.over.get_or_insert(why);
            post.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Post {
    fn merge(&mut self, event: &Event) {
        match event {
            Event::Set { path, node } => self.merged.set(path, node),
            Event::Merge { path, changes } => {
                changes.iter().for_each(|(below, node)| self.merged.set(&path.join(below), node));
            }
            Event::Revoked { .. } | Event::Operation(_) => {}
        }
        if self.merged.0.len() > GUEST_CHANGES_MAX {
            *self = Self { over: Some(Error::TooSlow), waker: self.waker.take(), ..Self::default() };
        }
    }
}

/// What stands now where something has changed, by path. No path is below another.
#[derive(Debug, Default)]
struct Merged(BTreeMap<String, Node>);

impl Merged {
    fn set(&mut self, path: &Path, node: &Node) {
        for above in path.prefixes() {
            if let Some(above_node) = self.0.get_mut(above) {
                above_node.set(path.as_str()[above.len()..].trim_start_matches('/'), node.clone());
                return;
            }
        }
        let text = path.as_str();
        if path.is_root() {
            self.0.clear();
        }
        let first = format!("{text}/");
        let is_below = |(below, _): &(&String, &Node)| below.starts_with(&*first);
        let covered: Vec<_> = self
            .0
            .range::<str, _>((Included(&*first), Unbounded))
            .take_while(is_below)
            .map(|(below, _)| below.clone())
            .collect();
        covered.iter().for_each(|below| drop(self.0.remove(below)));
        self.0.insert(text.into(), node.clone());
    }

    /// Everything at once, for whoever listens at `listened`.
    fn take(&mut self, listened: &Path) -> Option<Change> {
        let all = std::mem::take(&mut self.0);
        if all.len() < 2 {
            let value = |(path, node)| Change::Value { path: format!("/{path}"), value: Value(node) };
            return all.into_iter().next().map(value);
        }
        let below = |path: &str| format!("/{}", path[listened.as_str().len()..].trim_start_matches('/'));
        let changes = all.into_iter().map(|(path, node)| (below(&path), Value(node))).collect();
        Some(Change::Merge { path: format!("/{}", listened.as_str()), changes })
    }
}

/// A stream of [`Change`]s: first what stands there, then everything that happens, nothing left out and
/// nothing twice. Whoever does not keep up hears what has become of it: after [`GUEST_EVENTS_MAX`] changes what comes
/// is merged, and taken as one.
///
/// It ends with an error: [`Error::Refused`] when the rules no longer allow it, [`Error::TooSlow`] when
/// [`GUEST_CHANGES_MAX`] merged paths were not taken, [`Error::Over`] with its session. Dropping it ends the listen.
#[derive(Debug)]
#[must_use = "a listen that is dropped is over"]
pub struct Listen {
    pub(super) line: Line,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) path: Path,
    pub(super) tag: u64,
    pub(super) is_done: bool,
}

impl Listen {
    /// Waits for the next change; `None` after the error with which it has ended.
    pub async fn next(&mut self) -> Option<Result<Change, Error>> {
        std::future::poll_fn(|context| self.poll_change(context)).await
    }

    fn poll_change(&mut self, context: &Context<'_>) -> Poll<Option<Result<Change, Error>>> {
        if self.is_done {
            return Poll::Ready(None);
        }
        let mut post = lock(&self.mailbox.0);
        while let Some(event) = post.events.pop_front() {
            if let Some(change) = change(&event) {
                return Poll::Ready(Some(Ok(change)));
            }
        }
        if let Some(change) = post.merged.take(&self.path) {
            return Poll::Ready(Some(Ok(change)));
        }
        if let Some(over) = post.over.clone() {
            drop(post);
            self.is_done = true;
            return Poll::Ready(Some(Err(over)));
        }
        post.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Stream for Listen {
    type Item = Result<Change, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_change(context)
    }
}

impl Drop for Listen {
    fn drop(&mut self) {
        self.line.ear.remove_listen(self.tag);
        self.line.say_at_once_unanswered(Request::Unlisten { path: self.path.clone(), tag: Some(self.tag) });
    }
}

fn change(event: &Event) -> Option<Change> {
    let text = |path: &Path| format!("/{}", path.as_str());
    match event {
        Event::Set { path, node } => Some(Change::Value { path: text(path), value: Value(node.clone()) }),
        Event::Merge { path, changes } => {
            let changes = changes.iter().map(|(below, node)| (text(below), Value(node.clone()))).collect();
            Some(Change::Merge { path: text(path), changes })
        }
        Event::Revoked { .. } | Event::Operation(_) => None,
    }
}
