//! Guests: sessions whose clients are reached by the program that the server runs within.
//!
//! The surprising idea: a guest is a session like any other, only without bytes. What its client asks
//! comes as a [`Request`], what it hears goes out as words and events, and whoever drives the engine finds
//! the way. So a protocol of somebody else's needs nothing from this room, and an event that a million
//! guests hear is one value, shared.
//!
//! Costs: some 50 bytes a guest beside its session; 8 bytes for each listener of an event.

use std::collections::VecDeque;
use std::sync::Arc;

use super::home::Channel;
use super::{Effect, Engine, Output};
use crate::base::{GuestId, Millis, Now, SessionId, SessionRef};
use crate::op::{BadCredential, End, Identity, Namespace, Outcome, Refusal, Request, Tag, Word};
use crate::wire::firebase::Action;

/// What a guest's program says.
#[derive(Debug)]
#[non_exhaustive]
pub enum Saying {
    /// A client has come. [`GuestWord::Opened`] or [`GuestWord::Over`] follows.
    Open(Box<Opening>),
    /// The client is alive.
    Heard,
    /// The client asks for something. [`GuestWord::Outcome`] follows, in the order of the requests.
    Ask {
        /// The program's number for it.
        number: i64,
        /// What.
        request: Box<Request>,
    },
    /// The client says who it is: answered as a request is.
    SignIn {
        /// The program's number for it.
        number: i64,
        /// What proves it.
        credential: String,
    },
    /// The client is nobody from here on: answered as a request is.
    SignOut {
        /// The program's number for it.
        number: i64,
    },
    /// The client has gone. [`GuestWord::Over`] follows.
    End(End),
}

/// How a guest begins.
#[derive(Clone, Debug)]
pub struct Opening {
    /// Its database.
    pub namespace: Namespace,
    /// Who it is.
    pub identity: Identity,
    /// The earlier session of the same client: its last words take effect before anything of this one.
    pub replaces: Option<SessionId>,
    /// After this much silence it is over; `None`: after as much as the namespace's sessions.
    pub timeout: Option<Millis>,
}

/// What a guest's program hears.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum GuestWord {
    /// It is there.
    Opened {
        /// The name by which a later one may replace it: a secret.
        id: SessionId,
    },
    /// What came of a request.
    Outcome {
        /// The program's number for it.
        number: i64,
        /// What.
        outcome: Outcome,
    },
    /// Its credential is no longer accepted: it goes on as nobody.
    CredentialRevoked(BadCredential),
    /// It is over, or has not come about. The last word: the guest's number may be used again.
    Over(Parting),
}

/// Why a guest is over.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Parting {
    /// Its session has ended.
    Ended(End),
    /// It was not let in.
    Refused(Refusal),
}

/// What an engine keeps of a guest's program.
#[derive(Debug)]
pub(super) struct Guest {
    id: GuestId,
    patience: Option<Millis>,
    /// What was asked while an earlier session of the client had not settled.
    held: VecDeque<(i64, Asked)>,
}

#[derive(Debug)]
enum Asked {
    Request(Box<Request>),
    SignIn(String),
    SignOut,
}

impl Guest {
    /// How long it may be silent where its namespace says `usual`.
    pub(super) fn patience(&self, usual: Millis) -> Millis {
        self.patience.unwrap_or(usual)
    }

    pub(super) const fn id(&self) -> GuestId {
        self.id
    }
}

impl Engine {
    /// Something from a guest's program.
    pub(super) fn guest_says(&mut self, now: Now, guest: GuestId, saying: Saying, output: &mut Output) {
        let (number, asked) = match saying {
            Saying::Open(opening) => return self.guest_opens(now, guest, *opening, output),
            Saying::End(end) => {
                if let Some(session) = self.guest(guest) {
                    self.end(now, session, end, output);
                }
                return;
            }
            Saying::Heard => {
                if let Some(session) = self.guest(guest) {
                    self.heard(now, session);
                }
                return;
            }
            Saying::Ask { number, request } => (number, Asked::Request(request)),
            Saying::SignIn { number, credential } => (number, Asked::SignIn(credential)),
            Saying::SignOut { number } => (number, Asked::SignOut),
        };
        // A guest that is over has been told so, or will be: that answers everything.
        let Some(session) = self.guest(guest) else { return };
        self.heard(now, session);
        let Some(state) = self.sessions.get_mut(session) else { return };
        let is_held_back = state.is_held_back();
        match &mut state.channel {
            Channel::Guest(guest) if is_held_back => guest.held.push_back((number, asked)),
            _ => self.guest_asks(now, session, number, asked, output),
        }
    }

    fn guest(&self, guest: GuestId) -> Option<SessionRef> {
        self.guests.get(guest.0 as usize).copied().flatten()
    }

    fn guest_opens(&mut self, now: Now, guest: GuestId, opening: Opening, output: &mut Output) {
        let Opening { namespace, identity, replaces, timeout } = opening;
        assert!(self.guest(guest).is_none(), "the driver uses a guest's number again only after Over");
        let is_known = !self.config.is_restricted || self.config.namespaces.contains_key(&*namespace);
        let refusal = if self.drain.is_on {
            Some(Refusal::Unavailable)
        } else if !is_known {
            Some(Refusal::Limit("there is no such database"))
        } else {
            None
        };
        let channel = Channel::Guest(Box::new(Guest { id: guest, patience: timeout, held: VecDeque::new() }));
        let opened = match refusal {
            Some(refusal) => Err(refusal),
            None => self.open_session(now, channel, namespace).map_err(|_full| Refusal::Limit("too many sessions")),
        };
        let (session, id) = match opened {
            Ok(opened) => opened,
            Err(refusal) => return guest_word(guest, GuestWord::Over(Parting::Refused(refusal)), output),
        };
        let index = guest.0 as usize;
        if self.guests.len() <= index {
            self.guests.resize(index + 1, None);
        }
        self.guests[index] = Some(session);
        self.identify(now, session, identity, output);
        guest_word(guest, GuestWord::Opened { id }, output);
        if let Some(old) = replaces {
            self.replace_session(now, session, old, output);
        }
    }

    fn guest_asks(&mut self, now: Now, session: SessionRef, number: i64, asked: Asked, output: &mut Output) {
        let action = match asked {
            Asked::Request(request) => Action::Ask(*request),
            Asked::SignIn(cred) => Action::Auth { cred, noauth: false, authvar: None },
            Asked::SignOut => Action::Unauth,
        };
        self.request(now, session, number, action, 0, output);
    }

    /// What a guest asked while it waited, now that it need not wait any longer.
    pub(super) fn guest_goes_on(&mut self, now: Now, session: SessionRef, output: &mut Output) {
        let held = match self.sessions.get_mut(session).map(|state| &mut state.channel) {
            Some(Channel::Guest(guest)) => std::mem::take(&mut guest.held),
            _ => return,
        };
        for (number, asked) in held {
            self.guest_asks(now, session, number, asked, output);
        }
    }

    /// The session of a guest is over.
    pub(super) fn guest_gone(&mut self, guest: &Guest, end: End, output: &mut Output) {
        self.guests[guest.id.0 as usize] = None;
        guest_word(guest.id, GuestWord::Over(Parting::Ended(end)), output);
    }
}

/// What a guest is told where a client of a protocol would be told `word`.
pub(super) fn say(guest: GuestId, word: &Word<'_>, output: &mut Output) {
    let said = match word {
        Word::Outcome { number, outcome } => GuestWord::Outcome { number: *number, outcome: (*outcome).clone() },
        Word::SignedIn { number, .. } | Word::SignedOut { number } => {
            GuestWord::Outcome { number: *number, outcome: Outcome::Done }
        }
        Word::CredentialRevoked(bad) => GuestWord::CredentialRevoked(*bad),
        // Only protocols of bytes ask for these.
        Word::Echo { .. } | Word::Pong => return,
    };
    guest_word(guest, said, output);
}

fn guest_word(guest: GuestId, word: GuestWord, output: &mut Output) {
    output.effects.push(Effect::Guest { guest, word });
}

/// Who of the guests hears an event.
#[derive(Debug, Default)]
pub(super) struct GuestTelling {
    to: Vec<(GuestId, Tag)>,
}

impl GuestTelling {
    pub(super) fn add(&mut self, guest: GuestId, tag: Tag) {
        self.to.push((guest, tag));
    }

    pub(super) fn finish(self, event: &crate::op::Event, output: &mut Output) {
        if !self.to.is_empty() {
            output.effects.push(Effect::TellGuests { event: Arc::new(event.clone()), to: self.to });
        }
    }
}
