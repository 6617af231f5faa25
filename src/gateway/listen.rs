//! What a session listens to, as a stream.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use futures_core::Stream;

use super::ear::lock;
use super::session::Line;
use super::{Error, Value};
use crate::base::limits::GUEST_EVENTS_MAX;
use crate::data::Path;
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
                _ if post.events.len() >= GUEST_EVENTS_MAX => {
                    post.events = VecDeque::new();
                    post.over = Some(Error::TooSlow);
                }
                _ => post.events.push_back(Arc::clone(event)),
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

/// A stream of [`Change`]s: first what stands there, then everything that happens, nothing left out and
/// nothing twice.
///
/// It ends with an error: [`Error::Refused`] when the rules no longer allow it, [`Error::TooSlow`] when
/// changes were not taken, [`Error::Over`] with its session. Dropping it ends the listen.
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
        if let Some(change) = post.events.pop_front().and_then(|event| change(&event)) {
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
