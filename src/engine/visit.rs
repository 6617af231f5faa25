//! HTTP requests that are for a session: carried to the session's home, answered from there.
//!
//! The surprising idea: a client's connections spread over the cores as the kernel likes, so a poll
//! seldom arrives where its session lives. The connection stays where it is and waits; only what it
//! asks travels, under a name to which the answer finds back, or finds nobody.
//!
//! Costs: one message each way, also on one core; the head of a request is not kept.

use super::conn::{Http, Link};
use super::home::Channel;
use super::{Effect, Engine, Message, Notice, Output};
use crate::base::limits::{HEAD_BYTES_MAX, KEEP_ALIVE_MAX};
use crate::base::{ConnId, Now, SessionId, SessionRef, ShardId};
use crate::op::End;
use crate::wire::engineio::Encoding;
use crate::wire::http;

/// The name of one request, or of one WebSocket, anywhere in the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The core that has the connection.
    pub shard: ShardId,
    /// The connection.
    pub conn: ConnId,
    /// Which of the core's requests: never the same twice.
    pub ticket: u64,
}

/// A request on its way to a session.
#[derive(Debug)]
pub struct Visit {
    /// Who waits for the answer.
    pub caller: Caller,
    /// For whom it is: a name with its proof.
    pub session: SessionId,
    /// What it wants.
    pub errand: Errand,
}

/// What a request wants of a session.
#[derive(Debug, PartialEq, Eq)]
pub enum Errand {
    /// Firebase: messages, in time; it brings some, in a query string.
    Poll {
        /// As it came.
        query: Box<str>,
    },
    /// Firebase: the session's end.
    End,
    /// Engine.IO: packets, in time.
    Fetch,
    /// Engine.IO: it brings packets.
    Bring {
        /// As they came.
        body: Vec<u8>,
        /// How they stand in there.
        encoding: Encoding,
    },
    /// Engine.IO: to go on as a WebSocket.
    Upgrade,
}

/// A response, but for what the connection adds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// Its header lines.
    pub headers: Vec<(&'static str, String)>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Response {
    pub(super) fn new(status: u16, headers: &[(&'static str, &str)], body: impl Into<Vec<u8>>) -> Self {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Self { status, headers, body: body.into() }
    }
}

/// How a request wants to be answered.
#[derive(Debug)]
pub(super) struct Manner {
    pub(super) keeps_alive: bool,
    /// The page that asks, if it is another's: it may read the answer only if it is named there.
    pub(super) origin: Option<Box<str>>,
}

/// A connection whose request waits for its answer.
#[derive(Debug)]
pub(super) struct Visitor {
    /// To go on with after the answer.
    http: Box<Http>,
    ticket: u64,
    session: SessionId,
    manner: Manner,
    /// What makes a WebSocket of it.
    upgrade: Option<http::Upgrade>,
    /// What came after the request: at most [`HEAD_BYTES_MAX`].
    early: Vec<u8>,
}

impl Visitor {
    /// Keeps what came too early. `false` if it is too much.
    pub(super) fn keep(&mut self, bytes: &[u8]) -> bool {
        self.early.extend_from_slice(bytes);
        self.early.len() <= HEAD_BYTES_MAX
    }
}

/// A request that is for a session.
pub(super) struct Request {
    pub(super) manner: Manner,
    pub(super) session: SessionId,
    pub(super) errand: Errand,
    /// What makes a WebSocket of its connection.
    pub(super) upgrade: Option<http::Upgrade>,
}

impl Engine {
    /// Whether a session of that name may live anywhere.
    pub(super) fn has_home(&self, session: &SessionId) -> bool {
        session.home.0 < self.config.shards && !self.drain.is_on
    }

    /// The next name of a request or of a WebSocket.
    pub(super) fn next_caller(&mut self, conn: ConnId) -> Caller {
        self.tickets += 1;
        Caller { shard: self.config.shard, conn, ticket: self.tickets }
    }

    /// A request is for a session: the connection waits until it is answered.
    pub(super) fn visit(&mut self, conn: ConnId, http: Box<Http>, request: Request, output: &mut Output) {
        let Request { manner, session, errand, upgrade } = request;
        assert!(self.has_home(&session), "who calls has looked whether there is such a home");
        let caller = self.next_caller(conn);
        let visitor = Visitor { http, ticket: caller.ticket, session, manner, upgrade, early: Vec::new() };
        *self.link(conn) = Link::Visiting(Box::new(visitor));
        self.send(session.home, Message::Visit(Box::new(Visit { caller, session, errand })), output);
    }

    /// A request for a session that may live here.
    pub(super) fn visited(&mut self, now: Now, visit: Visit, output: &mut Output) {
        let Visit { caller, session, errand } = visit;
        let session = self.sessions.find(&session).filter(|session| {
            let channel = self.sessions.get(*session).map(|state| &state.channel);
            match errand {
                Errand::Poll { .. } | Errand::End => matches!(channel, Some(Channel::Poll(_))),
                Errand::Fetch | Errand::Bring { .. } | Errand::Upgrade => matches!(channel, Some(Channel::EngineIo(_))),
            }
        });
        let Some(session) = session else {
            let response = match errand {
                Errand::Poll { .. } | Errand::End => super::poll::close_script(),
                Errand::Fetch | Errand::Bring { .. } | Errand::Upgrade => super::engineio::unknown_session(),
            };
            return self.answer_caller(now, caller, response, output);
        };
        self.heard(now, session);
        match errand {
            Errand::Poll { query } => self.poll_visited(now, session, caller, &query, output),
            Errand::End => {
                // The last words go first: the client may open its next connection at once.
                self.end(now, session, End::Closed, output);
                self.answer_caller(now, caller, super::poll::script(Vec::new()), output);
            }
            Errand::Fetch => self.packets_fetched(now, session, caller, output),
            Errand::Bring { body, encoding } => self.packets_brought(now, session, caller, body, encoding, output),
            Errand::Upgrade => self.packets_upgraded(now, session, caller, output),
        }
    }

    /// Answers a request, wherever its connection is.
    pub(super) fn answer_caller(&mut self, now: Now, to: Caller, response: Response, output: &mut Output) {
        if to.shard == self.config.shard {
            self.answer_visitor(now, to, &response, output);
        } else {
            self.send(to.shard, Message::Response { to, response: Box::new(response) }, output);
        }
    }

    /// The connection that waits under that name.
    fn take_visitor(&mut self, to: Caller) -> Option<Visitor> {
        let link = &mut self.conns.get_mut(to.conn.0 as usize)?.link;
        if !matches!(link, Link::Visiting(visitor) if visitor.ticket == to.ticket) {
            return None;
        }
        match std::mem::replace(link, Link::Busy) {
            Link::Visiting(visitor) => Some(*visitor),
            _ => panic!("it was looked at just now"),
        }
    }

    /// The answer to a request of a connection that is here, if it still waits for it.
    pub(super) fn answer_visitor(&mut self, now: Now, to: Caller, response: &Response, output: &mut Output) {
        let Some(Visitor { http, manner, mut early, .. }) = self.take_visitor(to) else { return };
        self.respond(now, to.conn, http, &manner, response, output);
        self.received(now, to.conn, &mut early, output);
    }

    /// A session lets a connection that is here become its WebSocket.
    pub(super) fn switch_visitor(&mut self, now: Now, to: Caller, session: SessionRef, output: &mut Output) {
        let Some(Visitor { upgrade, mut early, .. }) = self.take_visitor(to) else { return };
        let upgrade = upgrade.expect("only who asks for a WebSocket is given one");
        self.send_bytes(to.conn, output, |out| upgrade.write(out));
        self.open_packet_socket(to, session);
        self.received(now, to.conn, &mut early, output);
    }

    /// Sends a response; then the connection is ready for the next request, or closes.
    pub(super) fn respond(
        &mut self,
        now: Now,
        conn: ConnId,
        mut http: Box<Http>,
        manner: &Manner,
        response: &Response,
        output: &mut Output,
    ) {
        let goes_on = manner.keeps_alive && !self.drain.is_on;
        let mut headers: Vec<_> = response.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        if let Some(origin) = &manner.origin {
            headers.push(("Access-Control-Allow-Origin", origin));
            headers.push(("Access-Control-Allow-Credentials", "true"));
            headers.push(("Vary", "Origin"));
        }
        headers.push(("Connection", if goes_on { "keep-alive" } else { "close" }));
        self.send_bytes(conn, output, |out| http::write_response(out, response.status, &headers, &response.body));
        if !goes_on {
            return self.close(conn, output);
        }
        let until = now.instant + KEEP_ALIVE_MAX;
        http.rest(until, self.conn_wheel.arm(conn.0, until));
        *self.link(conn) = Link::Http(http);
    }

    /// What came after a request, before its answer, is more than is kept.
    pub(super) fn hang_up_on_visitor(&mut self, conn: ConnId, visitor: &Visitor, output: &mut Output) {
        output.effects.push(Effect::Notice(Notice::Violation { conn, what: "too many requests at a time" }));
        self.close(conn, output);
        self.visitor_gone(conn, visitor, End::Killed, output);
    }

    /// A connection is gone whose request was waiting: its session hears of it.
    pub(super) fn visitor_gone(&mut self, conn: ConnId, visitor: &Visitor, end: End, output: &mut Output) {
        if self.drain.is_silent {
            // No session lives here, and the others have been told that nothing more comes.
            return;
        }
        let caller = Caller { shard: self.config.shard, conn, ticket: visitor.ticket };
        let session = visitor.session;
        self.send(session.home, Message::Gone { caller, session, end }, output);
    }

    /// A connection is gone whose request may have been waiting here: without it the client is deaf,
    /// and gives up.
    pub(super) fn caller_gone(&mut self, now: Now, caller: Caller, session: &SessionId, end: End, output: &mut Output) {
        let Some(session) = self.sessions.find(session) else { return };
        let Some(state) = self.sessions.get(session) else { return };
        let is_needed = match &state.channel {
            Channel::Poll(polled) => polled.holds(caller),
            Channel::EngineIo(packets) => packets.holds(caller),
            _ => false,
        };
        if is_needed {
            self.end(now, session, end, output);
        }
    }
}
