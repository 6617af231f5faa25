//! What a session's handle and its core's courier share.
//!
//! One lock a session, held for moments by the courier and by whoever polls a future of the session; never
//! by a core.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::error::Error;
use super::listen::Mailbox;
use crate::base::SessionId;
use crate::base::limits::GUEST_REQUESTS_MAX;
use crate::engine::{GuestWord, Parting};
use crate::op::{Event, Outcome, Tag};
use crate::runtime::{Ear as Hears, Place};

/// What they share.
#[derive(Debug, Default)]
pub(super) struct Ear {
    place: Place,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    id: Option<SessionId>,
    /// Set once: the session is over.
    over: Option<Error>,
    last_number: i64,
    last_tag: u64,
    /// By their numbers.
    pending: VecDeque<(i64, Arc<Reply>)>,
    listens: Vec<(u64, Arc<Mailbox>)>,
    /// Whoever waits for the session to begin or to end, or for answers to others.
    waiting: Vec<Waker>,
}

/// A poisoned lock is as good as any: nothing that is done under one of ours can panic half-way.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn wait(&mut self, waker: &Waker) {
        if !self.waiting.iter().any(|other| other.will_wake(waker)) {
            self.waiting.push(waker.clone());
        }
    }
}

impl Ear {
    /// A place for one more request, and its number; `None` where too many wait for answers.
    pub(super) fn expect(&self) -> Result<Option<(i64, Arc<Reply>)>, Error> {
        let mut state = lock(&self.state);
        if let Some(over) = &state.over {
            return Err(over.clone());
        }
        if state.pending.len() >= GUEST_REQUESTS_MAX {
            return Ok(None);
        }
        state.last_number += 1;
        let (number, reply) = (state.last_number, Arc::new(Reply::default()));
        state.pending.push_back((number, Arc::clone(&reply)));
        Ok(Some((number, reply)))
    }

    /// Waits until there may be room for a request.
    pub(super) fn calm(&self) -> impl Future<Output = ()> + Send {
        std::future::poll_fn(|context| {
            let mut state = lock(&self.state);
            if state.over.is_some() || state.pending.len() < GUEST_REQUESTS_MAX {
                return Poll::Ready(());
            }
            state.wait(context.waker());
            Poll::Pending
        })
    }

    /// Waits until the session has begun, or has not.
    pub(super) fn opened(&self) -> impl Future<Output = Result<SessionId, Error>> + Send {
        std::future::poll_fn(|context| {
            let mut state = lock(&self.state);
            match (&state.over, state.id) {
                (Some(over), _) => Poll::Ready(Err(over.clone())),
                (None, Some(id)) => Poll::Ready(Ok(id)),
                (None, None) => {
                    state.wait(context.waker());
                    Poll::Pending
                }
            }
        })
    }

    /// Waits until the session is over.
    pub(super) fn ended(&self) -> impl Future<Output = Error> + Send {
        std::future::poll_fn(|context| {
            let mut state = lock(&self.state);
            if let Some(over) = &state.over {
                return Poll::Ready(over.clone());
            }
            state.wait(context.waker());
            Poll::Pending
        })
    }

    /// Why the session is over, if it is.
    pub(super) fn over(&self) -> Option<Error> {
        lock(&self.state).over.clone()
    }

    /// A number for a listen, whose events go to that mailbox.
    pub(super) fn add_listen(&self, mailbox: &Arc<Mailbox>) -> u64 {
        let mut state = lock(&self.state);
        state.last_tag += 1;
        let tag = state.last_tag;
        state.listens.push((tag, Arc::clone(mailbox)));
        tag
    }

    pub(super) fn remove_listen(&self, tag: u64) {
        lock(&self.state).listens.retain(|(other, _)| *other != tag);
    }

    fn end(&self, why: &Error) {
        let (pending, listens, waiting) = {
            let mut state = lock(&self.state);
            if state.over.is_some() {
                return;
            }
            state.over = Some(why.clone());
            (std::mem::take(&mut state.pending), std::mem::take(&mut state.listens), std::mem::take(&mut state.waiting))
        };
        pending.into_iter().for_each(|(_, reply)| reply.set(Err(why.clone())));
        listens.into_iter().for_each(|(_, mailbox)| mailbox.end(why.clone()));
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl Hears for Ear {
    fn place(&self) -> &Place {
        &self.place
    }

    fn hear(&self, word: GuestWord) {
        match word {
            GuestWord::Opened { id } => {
                let waiting = {
                    let mut state = lock(&self.state);
                    state.id = Some(id);
                    std::mem::take(&mut state.waiting)
                };
                waiting.into_iter().for_each(Waker::wake);
            }
            GuestWord::Outcome { number, outcome } => {
                let (reply, waiting) = {
                    let mut state = lock(&self.state);
                    let was_full = state.pending.len() >= GUEST_REQUESTS_MAX;
                    // Nearly always the first; some requests want no answer.
                    let index = state.pending.binary_search_by_key(&number, |(number, _)| *number);
                    let reply = index.ok().and_then(|index| state.pending.remove(index));
                    let waiting = if was_full { std::mem::take(&mut state.waiting) } else { Vec::new() };
                    (reply, waiting)
                };
                if let Some((_, reply)) = reply {
                    reply.set(Ok(outcome));
                }
                waiting.into_iter().for_each(Waker::wake);
            }
            GuestWord::Over(Parting::Ended(end)) => self.end(&Error::Over(end)),
            GuestWord::Over(Parting::Refused(refusal)) => self.end(&Error::Refused(refusal)),
            // The next request is somebody's who is nobody, and is answered so.
            GuestWord::CredentialRevoked(_) => {}
        }
    }

    fn hear_event(&self, event: &Arc<Event>, tag: Tag) {
        let mailbox = {
            let state = lock(&self.state);
            state.listens.iter().find(|(other, _)| Some(*other) == tag).map(|(_, mailbox)| Arc::clone(mailbox))
        };
        if let Some(mailbox) = mailbox {
            mailbox.put(event);
        }
    }
}

/// Where the answer to one request arrives.
#[derive(Debug, Default)]
pub(super) struct Reply(Mutex<Answering>);

#[derive(Debug, Default)]
struct Answering {
    outcome: Option<Result<Outcome, Error>>,
    waker: Option<Waker>,
}

impl Reply {
    fn set(&self, outcome: Result<Outcome, Error>) {
        let waker = {
            let mut answering = lock(&self.0);
            answering.outcome = Some(outcome);
            answering.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Waits for the answer.
#[derive(Debug)]
pub(super) struct Answer(pub(super) Arc<Reply>);

impl Future for Answer {
    type Output = Result<Outcome, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut answering = lock(&self.0.0);
        match answering.outcome.take() {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                answering.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}
