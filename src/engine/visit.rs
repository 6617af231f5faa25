//! HTTP requests that are for a session: carried to the session's home, answered from there.
//!
//! The surprising idea: a client's connections spread over the cores as the kernel likes, so a poll
//! seldom arrives where its session lives. The connection stays where it is and waits; only what it
//! asks travels, under a name to which the answer finds back, or finds nobody.
//!
//! Costs: one message each way, also on one core; the head of a request is not kept.

use super::conn::{Http, Link};
use super::{Effect, Engine, Message, Notice, Output};
use crate::base::limits::{HEAD_BYTES_MAX, KEEP_ALIVE_MAX};
use crate::base::{ConnId, Now, SessionId, ShardId};
use crate::op::End;
use crate::wire::http;

/// The name of one request, anywhere in the server.
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
    /// Messages, in time; it brings some, in a query string.
    Poll {
        /// As it came.
        query: Box<str>,
    },
    /// The session's end.
    End,
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

/// A connection whose request waits for its answer.
#[derive(Debug)]
pub(super) struct Visitor {
    /// To go on with after the answer.
    http: Box<Http>,
    ticket: u64,
    session: SessionId,
    keeps_alive: bool,
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

impl Engine {
    /// A request is for a session: the connection waits until it is answered.
    pub(super) fn visit(
        &mut self,
        conn: ConnId,
        http: Box<Http>,
        keeps_alive: bool,
        session: SessionId,
        errand: Errand,
        output: &mut Output,
    ) {
        assert!(session.home.0 < self.config.shards, "the caller has looked whether there is such a home");
        self.tickets += 1;
        let caller = Caller { shard: self.config.shard, conn, ticket: self.tickets };
        let visitor = Visitor { http, ticket: caller.ticket, session, keeps_alive, early: Vec::new() };
        *self.link(conn) = Link::Visiting(Box::new(visitor));
        self.send(session.home, Message::Visit(Box::new(Visit { caller, session, errand })), output);
    }

    /// Answers a request, wherever its connection is.
    pub(super) fn answer_caller(&mut self, now: Now, to: Caller, response: Response, output: &mut Output) {
        if to.shard == self.config.shard {
            self.answer_visitor(now, to, &response, output);
        } else {
            self.send(to.shard, Message::Response { to, response: Box::new(response) }, output);
        }
    }

    /// The answer to a request of a connection that is here, if it still waits for it.
    pub(super) fn answer_visitor(&mut self, now: Now, to: Caller, response: &Response, output: &mut Output) {
        let Some(conn) = self.conns.get_mut(to.conn.0 as usize) else { return };
        if !matches!(&conn.link, Link::Visiting(visitor) if visitor.ticket == to.ticket) {
            return;
        }
        let Link::Visiting(visitor) = std::mem::replace(&mut conn.link, Link::Busy) else {
            panic!("it was looked at just now")
        };
        let Visitor { http, keeps_alive, mut early, .. } = *visitor;
        self.respond(now, to.conn, http, keeps_alive, response, output);
        self.received(now, to.conn, &mut early, output);
    }

    /// Sends a response; then the connection is ready for the next request, or closes.
    pub(super) fn respond(
        &mut self,
        now: Now,
        conn: ConnId,
        mut http: Box<Http>,
        keeps_alive: bool,
        response: &Response,
        output: &mut Output,
    ) {
        let goes_on = keeps_alive && !self.drain.is_on;
        let mut headers: Vec<_> = response.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        headers.push(("Connection", if goes_on { "keep-alive" } else { "close" }));
        self.send_bytes(conn, output, |out| http::write_response(out, response.status, &headers, &response.body));
        if !goes_on {
            return self.close(conn, output);
        }
        http.rest(now.instant + KEEP_ALIVE_MAX);
        self.conn_wheel.arm(conn.0, http.deadline());
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
            // No session lives anywhere, and the others have been told that nothing more comes.
            return;
        }
        let caller = Caller { shard: self.config.shard, conn, ticket: visitor.ticket };
        let session = visitor.session;
        self.send(session.home, Message::Gone { caller, session, end }, output);
    }
}
