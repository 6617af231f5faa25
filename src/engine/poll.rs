//! Long polling: a session of the Firebase protocol without a WebSocket
//! (Firebase wire specification, section 10).
//!
//! The surprising idea: a session is not bound to any connection. What it has to say waits in an
//! outbox until a request is there to carry it; requests come over any connection of any core, and at
//! most two are kept. A request that is let go is the heartbeat: the client sends the next at once.
//!
//! Costs: the outbox, up to [`SEND_BACKLOG_BYTES_MAX`]; a list of two requests.

use smallvec::SmallVec;

use super::conn::Http;
use super::home::Channel;
use super::visit::{Caller, Errand, Manner, Request, Response};
use super::{Effect, Engine, Notice, Output};
use crate::base::limits::SEND_BACKLOG_BYTES_MAX;
use crate::base::{ConnId, Now, SessionId, SessionRef};
use crate::op::{End, Namespace, Word};
use crate::wire::firebase::longpoll::{
    self, BadPoll, Credentials, FRAME_HEADERS, Poll as Asked, SCRIPT_HEADERS, Segments,
};
use crate::wire::firebase::{self, Connect, Handshake};
use crate::wire::http::{Head, Query};

/// Bytes of a session's name that say where it lives; the rest is the proof.
const PLACE_BYTES: usize = 16;
/// Requests of one session that may wait.
const HELD_MAX: usize = 2;

/// A session that is reached by polling.
#[derive(Debug, Default)]
pub(super) struct Polled {
    /// Requests that wait for something to carry, oldest first.
    held: SmallVec<[Caller; HELD_MAX]>,
    /// Messages that wait for a request.
    outbox: Vec<Vec<u8>>,
    outbox_bytes: usize,
    /// What the client says, in pieces.
    segments: Segments,
    /// The number of the next answer.
    packet: u64,
    /// The connection that brought the last request: for logs.
    pub(super) last: ConnId,
}

/// A request to `/.lp`. Owns what it needs: the head goes with the bytes it came in.
pub(super) struct Call {
    manner: Manner,
    what: What,
}

enum What {
    Start(Start),
    Frame {
        session: SessionId,
        namespace: String,
    },
    Visit {
        session: SessionId,
        errand: Errand,
    },
    /// A request for a session that cannot be.
    Nobody,
    Refuse {
        status: u16,
        error: &'static str,
    },
}

/// The beginning of a session.
struct Start {
    /// The number of the page's callbacks.
    callback: u64,
    /// What the client calls us.
    host: String,
    namespace: String,
    last_session: Option<SessionId>,
}

impl Call {
    pub(super) fn read(head: &Head<'_>) -> Self {
        let has_body = head.body() != Ok(crate::wire::http::Body::Bytes(0));
        let what = match (head.method, Asked::read(head.query)) {
            ("GET", _) if has_body => What::Refuse { status: 400, error: "a poll has no body" },
            ("GET", Ok(asked)) => What::of(asked, head),
            ("GET", Err(BadPoll)) => What::Refuse { status: 400, error: "not a poll" },
            _ => What::Refuse { status: 405, error: "polls are sent by GET" },
        };
        // Scripts need nobody's leave to be read.
        Self { manner: Manner { keeps_alive: head.keeps_alive() && !has_body, origin: None }, what }
    }
}

impl What {
    fn of(asked: Asked<'_>, head: &Head<'_>) -> Self {
        let Ok(connect) = Connect::read(head) else {
            return Self::Refuse { status: 400, error: "Namespace not specified or malformed: add ?ns=NAME" };
        };
        let of_session = |credentials: Credentials<'_>, errand| {
            let session = SessionId::parse(&format!("{}{}", credentials.id, credentials.password));
            session.map_or(Self::Nobody, |session| Self::Visit { session, errand })
        };
        match asked {
            Asked::Start { callback } => Self::Start(Start {
                callback,
                host: head.host().to_owned(),
                namespace: connect.namespace.into_owned(),
                last_session: connect.last_session,
            }),
            Asked::Wait(credentials) => of_session(credentials, Errand::Poll { query: head.query.0.into() }),
            Asked::End(credentials) => of_session(credentials, Errand::End),
            Asked::Frame(credentials) => match of_session(credentials, Errand::End) {
                Self::Visit { session, .. } => Self::Frame { session, namespace: connect.namespace.into_owned() },
                nobody => nobody,
            },
        }
    }
}

impl Polled {
    pub(super) fn holds(&self, caller: Caller) -> bool {
        self.held.contains(&caller)
    }

    /// Puts a message into the outbox: `write` appends it.
    fn post(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut message = Vec::new();
        write(&mut message);
        self.outbox_bytes += message.len();
        self.outbox.push(message);
    }

    /// An answer that carries all that waits, perhaps nothing.
    fn next_answer(&mut self) -> Response {
        let mut body = Vec::with_capacity(self.outbox_bytes + 32);
        longpoll::write_messages(&mut body, self.packet, self.outbox.iter().map(Vec::as_slice));
        self.packet += 1;
        self.outbox = Vec::new();
        self.outbox_bytes = 0;
        script(body)
    }
}

impl Engine {
    /// A request to `/.lp` has arrived.
    pub(super) fn called(&mut self, now: Now, conn: ConnId, http: Box<Http>, call: Call, output: &mut Output) {
        let Call { manner, what } = call;
        let response = match what {
            What::Start(start) => self.start_polling(now, conn, &start, output),
            What::Frame { session, namespace } => {
                let name = session.to_string();
                let mut body = Vec::new();
                longpoll::write_frame(&mut body, credentials(&name), &namespace);
                Response::new(200, &FRAME_HEADERS, body)
            }
            What::Visit { session, errand } if self.has_home(&session) => {
                let request = Request { manner, session, errand, upgrade: None };
                return self.visit(conn, http, request, output);
            }
            What::Visit { .. } | What::Nobody => close_script(),
            What::Refuse { status, error } => Response::new(status, &[("Content-Type", "text/plain")], error),
        };
        self.respond(now, conn, http, &manner, &response, output);
    }

    fn start_polling(&mut self, now: Now, conn: ConnId, start: &Start, output: &mut Output) -> Response {
        let Start { callback, host, namespace, last_session } = start;
        let mut body = Vec::new();
        let mut message = Vec::new();
        if self.config.is_restricted && !self.config.namespaces.contains_key(namespace) {
            // The one message after which clients do not try again.
            firebase::shutdown(&mut message, "Unknown database");
            longpoll::write_start(&mut body, *callback, Credentials { id: "0", password: "0" }, &message);
            return script(body);
        }
        let namespace: Namespace = namespace.as_str().into();
        let polled = Polled { packet: 1, last: conn, ..Polled::default() };
        let Some((session, id)) = self.open_polled(now, polled, namespace) else {
            return Response::new(503, &[("Content-Type", "text/plain")], self.why_none_begins().as_bytes().to_vec());
        };
        let name = id.to_string();
        firebase::handshake(&mut message, &Handshake { time: now.wall, host, session: &name });
        longpoll::write_start(&mut body, *callback, credentials(&name), &message);
        if let Some(old) = last_session {
            self.replace_session(now, session, *old, output);
        }
        script(body)
    }

    fn open_polled(&mut self, now: Now, polled: Polled, namespace: Namespace) -> Option<(SessionRef, SessionId)> {
        self.open_session(now, Channel::Poll(Box::new(polled)), namespace).ok()
    }

    /// A request of the client, and perhaps with some of what it says.
    pub(super) fn poll_visited(
        &mut self,
        now: Now,
        session: SessionRef,
        caller: Caller,
        query: &str,
        output: &mut Output,
    ) {
        let Some(polled) = self.polled(session) else { return };
        polled.last = caller.conn;
        polled.held.push(caller);
        let pieces = longpoll::segments(Query(query)).try_for_each(|piece| polled.segments.push(piece?));
        self.stir(session);
        if pieces == Err(BadPoll) {
            self.violation(now, session, "a malformed poll", output);
        }
    }

    fn polled(&mut self, session: SessionRef) -> Option<&mut Polled> {
        match &mut self.sessions.get_mut(session)?.channel {
            Channel::Poll(polled) => Some(polled),
            _ => None,
        }
    }

    /// Puts a message into a session's outbox.
    pub(super) fn post(&mut self, session: SessionRef, write: impl FnOnce(&mut Vec<u8>)) {
        if let Some(polled) = self.polled(session) {
            polled.post(write);
            self.stir(session);
        }
    }

    pub(super) fn post_word(&mut self, session: SessionRef, word: &Word<'_>) {
        self.post(session, |message| firebase::word(message, word));
    }

    /// Acts on a session's whole messages, in order, unless it has to wait.
    pub(super) fn read_polls(&mut self, now: Now, session: SessionRef, output: &mut Output) {
        while let Some(state) = self.sessions.get_mut(session)
            && !state.is_held_back()
            && let Channel::Poll(polled) = &mut state.channel
        {
            match polled.segments.next_message() {
                Ok(None) => return,
                Ok(Some(mut message)) => {
                    let bytes = message.len();
                    let incoming = firebase::decode(&mut message, &mut self.reader);
                    self.act(now, session, incoming, bytes, output);
                    self.pause_if_hasty(session, output);
                }
                Err(BadPoll) => return self.violation(now, session, "segments that make no message", output),
            }
        }
    }

    pub(super) fn answer_polls(&mut self, now: Now, session: SessionRef, output: &mut Output) {
        let Some(state) = self.sessions.get_mut(session) else { return };
        let is_held_back = state.is_held_back();
        let Channel::Poll(polled) = &mut state.channel else { return };
        let mut answers = SmallVec::<[(Caller, Response); HELD_MAX]>::new();
        while !polled.held.is_empty() {
            // Clients open a second request only to say something, and wait for one of them to return
            // before they say more: a client that asks too fast has to wait for its answers.
            let is_one_too_many = polled.held.len() > HELD_MAX || (polled.held.len() == HELD_MAX && !is_held_back);
            if polled.outbox.is_empty() && !is_one_too_many {
                break;
            }
            let caller = polled.held.remove(0);
            answers.push((caller, polled.next_answer()));
        }
        let (is_too_slow, conn) = (polled.outbox_bytes > SEND_BACKLOG_BYTES_MAX, polled.last);
        for (caller, response) in answers {
            self.answer_caller(now, caller, response, output);
        }
        if is_too_slow {
            output.effects.push(Effect::Notice(Notice::Violation { conn, what: "it reads too slowly" }));
            self.end(now, session, End::Killed, output);
        }
    }

    /// Asks the client for a sign of life: a request that is let go is followed by the next.
    pub(super) fn let_a_poll_go(&mut self, now: Now, session: SessionRef, output: &mut Output) {
        let Some(polled) = self.polled(session) else { return };
        if polled.held.is_empty() {
            return;
        }
        let caller = polled.held.remove(0);
        let response = polled.next_answer();
        self.answer_caller(now, caller, response, output);
    }

    /// Tells the client of a session that is over, if it can be told.
    pub(super) fn dismiss(&mut self, now: Now, mut polled: Polled, output: &mut Output) {
        for caller in std::mem::take(&mut polled.held) {
            // What was to be said before is said.
            let mut response = polled.next_answer();
            longpoll::write_close(&mut response.body);
            self.answer_caller(now, caller, response, output);
        }
    }
}

/// A session's name in two: where it lives, and the proof.
fn credentials(name: &str) -> Credentials<'_> {
    let (id, password) = name.split_at(PLACE_BYTES);
    Credentials { id, password }
}

pub(super) fn script(body: Vec<u8>) -> Response {
    Response::new(200, &SCRIPT_HEADERS, body)
}

/// The answer to a poll of a session that nobody knows: its client begins anew.
pub(super) fn close_script() -> Response {
    let mut body = Vec::new();
    longpoll::write_close(&mut body);
    script(body)
}

#[cfg(test)]
mod tests;
