//! Connections: HTTP until they become something else.

use super::home::Channel;
use super::poll;
use super::visit::Visitor;
use super::{Effect, Engine, Hangup, Notice, Output};
use crate::base::limits::{HANDSHAKE_MAX, SEND_BACKLOG_BYTES_MAX};
use crate::base::{ConnId, Instant, Now, SessionId, SessionRef};
use crate::json;
use crate::op::{End, Namespace, Refusal};
use crate::wire::firebase::frames::{self, Assembled, TooManySegments};
use crate::wire::firebase::{Assembler, Connect, Handshake, Incoming};
use crate::wire::{Input as Bytes, firebase, http, ws};

/// One connection.
#[derive(Debug, Default)]
pub(super) struct Conn {
    pub(super) link: Link,
}

/// What runs over a connection.
#[derive(Debug, Default)]
pub(super) enum Link {
    /// There is no such connection.
    #[default]
    Vacant,
    /// Requests.
    Http(Box<Http>),
    /// A request that waits for its answer.
    Visiting(Box<Visitor>),
    /// A WebSocket with a session.
    Socket(Box<Socket>),
    /// What arrived for it is being taken apart: its link is with whoever does that.
    Busy,
    /// It is being closed; nothing that still arrives matters.
    Closing,
}

/// A connection that speaks HTTP.
#[derive(Debug)]
pub(super) struct Http {
    reader: http::Reader,
    /// By when a request must be complete.
    deadline: Instant,
    /// Nothing has arrived since the last answer.
    is_resting: bool,
}

impl Http {
    pub(super) const fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Waits for another request.
    pub(super) fn rest(&mut self, until: Instant) {
        self.deadline = until;
        self.is_resting = true;
    }
}

/// A WebSocket.
#[derive(Debug)]
pub(super) struct Socket {
    reader: ws::Reader,
    assembler: Assembler,
    session: SessionRef,
    /// What arrived while the session waits.
    held: Vec<u8>,
}

/// What a request is for. Owns what it needs: the head goes with the bytes it came in.
enum Route {
    Socket(Join),
    Poll(poll::Call),
    BadUpgrade(http::BadUpgrade),
    Refuse { status: u16, error: &'static str },
}

/// A handshake of the Firebase protocol (wire specification, section 1.1).
struct Join {
    upgrade: http::Upgrade,
    /// What the client calls us: it will use what the handshake says instead, so it is told the same.
    host: String,
    namespace: String,
    last_session: Option<SessionId>,
}

impl Route {
    fn of(head: &http::Head<'_>) -> Self {
        if head.path == "/.lp" {
            return Self::Poll(poll::Call::read(head));
        }
        if head.path != "/.ws" && head.path != "/.ws/" {
            let error = "append .json to your request URI to use the REST API.";
            return Self::Refuse { status: 404, error };
        }
        let upgrade = match http::Upgrade::read(head) {
            Ok(upgrade) => upgrade,
            Err(bad) => return Self::BadUpgrade(bad),
        };
        let Ok(connect) = Connect::read(head) else {
            return Self::Refuse { status: 400, error: "Namespace not specified or malformed: add ?ns=NAME" };
        };
        // A long-polling client offers to go on by WebSocket. Refused, it stays as it is.
        if connect.attach.is_some() {
            return Self::Refuse { status: 400, error: "this session stays with long polling" };
        }
        Self::Socket(Join {
            upgrade,
            host: head.host().to_owned(),
            namespace: connect.namespace.into_owned(),
            last_session: connect.last_session,
        })
    }
}

/// Whether a connection goes on.
#[derive(PartialEq, Eq)]
enum Next {
    GoOn,
    /// It has become something else, or is closing.
    Stop,
}

impl Engine {
    pub(super) fn opened(&mut self, now: Now, conn: ConnId) {
        let index = conn.0 as usize;
        if self.conns.len() <= index {
            self.conns.resize_with(index + 1, Conn::default);
        }
        assert!(matches!(self.conns[index].link, Link::Vacant), "the driver reuses a name only after Closed");
        let deadline = now.instant + HANDSHAKE_MAX;
        self.conns[index].link =
            Link::Http(Box::new(Http { reader: http::Reader::default(), deadline, is_resting: false }));
        self.conn_wheel.arm(conn.0, deadline);
    }

    pub(super) fn link(&mut self, conn: ConnId) -> &mut Link {
        &mut self.conns[conn.0 as usize].link
    }

    pub(super) fn is_socket(&mut self, conn: ConnId) -> bool {
        // A busy link is a socket's: plain requests end no sessions while they are read.
        matches!(self.link(conn), Link::Socket(_) | Link::Busy)
    }

    pub(super) fn received(&mut self, now: Now, conn: ConnId, bytes: &mut [u8], output: &mut Output) {
        let mut bytes = Bytes::new(bytes);
        while !bytes.is_empty() {
            let next = match std::mem::replace(self.link(conn), Link::Busy) {
                Link::Http(http) => self.read_http(now, conn, http, &mut bytes, output),
                Link::Socket(socket) => self.read_socket(now, conn, socket, &mut bytes, output),
                Link::Visiting(mut visitor) => {
                    if visitor.keep(bytes.take(bytes.len())) {
                        *self.link(conn) = Link::Visiting(visitor);
                    } else {
                        self.hang_up_on_visitor(conn, &visitor, output);
                    }
                    return;
                }
                link @ (Link::Vacant | Link::Busy | Link::Closing) => {
                    *self.link(conn) = link;
                    return;
                }
            };
            if next == Next::Stop {
                return;
            }
        }
    }

    fn read_http(
        &mut self,
        now: Now,
        conn: ConnId,
        mut http: Box<Http>,
        bytes: &mut Bytes<'_>,
        output: &mut Output,
    ) -> Next {
        if std::mem::take(&mut http.is_resting) {
            http.deadline = now.instant + HANDSHAKE_MAX;
            self.conn_wheel.arm(conn.0, http.deadline);
        }
        let route = match http.reader.next(bytes) {
            Ok(None) => {
                *self.link(conn) = Link::Http(http);
                return Next::GoOn;
            }
            Ok(Some(head)) => Route::of(&head),
            Err(bad) => Route::Refuse { status: bad.status(), error: bad.as_str() },
        };
        match route {
            Route::Socket(join) => self.join(now, conn, &join, output),
            Route::Poll(call) => {
                self.called(now, conn, http, call, output);
                Next::GoOn
            }
            Route::BadUpgrade(bad) => {
                self.send_bytes(conn, output, |out| bad.write(out));
                self.close(conn, output);
                Next::Stop
            }
            Route::Refuse { status, error } => {
                self.refuse(conn, status, error, output);
                Next::Stop
            }
        }
    }

    /// Answers a request with an error and closes the connection.
    fn refuse(&mut self, conn: ConnId, status: u16, error: &str, output: &mut Output) {
        let mut body = Vec::new();
        body.extend_from_slice(b"{\"error\":");
        json::text(&mut body, error);
        body.push(b'}');
        let headers = [("Content-Type", "application/json; charset=utf-8"), ("Connection", "close")];
        self.send_bytes(conn, output, |out| http::write_response(out, status, &headers, &body));
        self.close(conn, output);
    }

    /// A client of the Firebase protocol opens its WebSocket.
    fn join(&mut self, now: Now, conn: ConnId, join: &Join, output: &mut Output) -> Next {
        let Join { upgrade, host, namespace, last_session } = join;
        if self.drain.is_on {
            self.refuse(conn, 503, "the server is stopping", output);
            return Next::Stop;
        }
        let is_known = !self.config.is_restricted || self.config.namespaces.contains_key(namespace);
        if !is_known {
            // The one message after which clients do not try again.
            self.send_bytes(conn, output, |out| upgrade.write(out));
            self.send_bytes(conn, output, |out| {
                let start = out.len();
                firebase::shutdown(out, "Unknown database");
                frames::seal(out, start);
            });
            self.send_bytes(conn, output, |out| ws::write_close(out, ws::close_code::POLICY, "unknown database"));
            self.close(conn, output);
            return Next::Stop;
        }
        let namespace: Namespace = namespace.as_str().into();
        let Ok((session, id)) = self.open_session(now, Channel::Socket(conn), namespace) else {
            self.refuse(conn, 503, "too many sessions", output);
            return Next::Stop;
        };
        let socket =
            Socket { reader: ws::Reader::for_server(), assembler: Assembler::default(), session, held: Vec::new() };
        *self.link(conn) = Link::Socket(Box::new(socket));
        self.send_bytes(conn, output, |out| {
            upgrade.write(out);
            let start = out.len();
            firebase::handshake(out, &Handshake { time: now.wall, host, session: &id.to_string() });
            frames::seal(out, start);
        });
        if let Some(old) = last_session {
            self.replace_session(now, session, *old, output);
        }
        Next::GoOn
    }

    fn read_socket(
        &mut self,
        now: Now,
        conn: ConnId,
        mut socket: Box<Socket>,
        bytes: &mut Bytes<'_>,
        output: &mut Output,
    ) -> Next {
        let session = socket.session;
        self.heard(now, session);
        if self.sessions.get(session).is_some_and(|state| state.is_waiting) {
            socket.held.extend_from_slice(bytes.take(bytes.len()));
            *self.link(conn) = Link::Socket(socket);
            return Next::GoOn;
        }
        loop {
            let frame = match socket.reader.next(bytes) {
                Ok(None) => break,
                Ok(Some(frame)) => frame,
                Err(violation) => {
                    return self.break_off(now, conn, session, violation.close_code(), violation.as_str(), output);
                }
            };
            match frame {
                ws::Frame::Text(text) => {
                    let (bytes, incoming) = match socket.assembler.push(text) {
                        Ok(Assembled::Nothing) => continue,
                        Ok(Assembled::Frame(message)) => (message.len(), firebase::decode(message, &mut self.reader)),
                        Ok(Assembled::Joined(mut message)) => {
                            (message.len(), firebase::decode(&mut message, &mut self.reader))
                        }
                        Ok(Assembled::TooLong { request: Some(number) }) => {
                            (0, Incoming::Refused { number, refusal: Refusal::Limit("the message is too long") })
                        }
                        Ok(Assembled::TooLong { request: None }) => (0, Incoming::Broken("a message that is too long")),
                        Err(TooManySegments) => {
                            let violation = ws::Violation::TooBig;
                            return self.break_off(
                                now,
                                conn,
                                session,
                                violation.close_code(),
                                violation.as_str(),
                                output,
                            );
                        }
                    };
                    self.act(now, session, incoming, bytes, output);
                }
                ws::Frame::Ping(payload) => {
                    let mut copy = [0; ws::CONTROL_BYTES_MAX];
                    let payload = {
                        copy[..payload.len()].copy_from_slice(payload);
                        &copy[..payload.len()]
                    };
                    self.send_bytes(conn, output, |out| ws::write(out, ws::Kind::Pong, payload));
                }
                ws::Frame::Pong(_) => {}
                ws::Frame::Binary(_) => {
                    let code = ws::close_code::UNSUPPORTED;
                    return self.break_off(now, conn, session, code, "a binary frame", output);
                }
                ws::Frame::Close { .. } => {
                    *self.link(conn) = Link::Socket(socket);
                    // The last words go before the handshake of the close is finished: the client may
                    // open its next connection the moment it has our answer.
                    self.end(now, session, End::Closed, output);
                    return Next::Stop;
                }
            }
            if !matches!(self.link(conn), Link::Busy) {
                return Next::Stop;
            }
        }
        *self.link(conn) = Link::Socket(socket);
        self.pause_if_hasty(session, output);
        Next::GoOn
    }

    /// What was held back while the session waited.
    pub(super) fn received_while_waiting(&mut self, now: Now, conn: ConnId, output: &mut Output) {
        let Link::Socket(socket) = self.link(conn) else { return };
        let mut held = std::mem::take(&mut socket.held);
        self.received(now, conn, &mut held, output);
    }

    /// The client broke the protocol: its session is over.
    fn break_off(
        &mut self,
        now: Now,
        conn: ConnId,
        session: SessionRef,
        code: u16,
        what: &'static str,
        output: &mut Output,
    ) -> Next {
        output.effects.push(Effect::Notice(Notice::Violation { conn, what }));
        self.send_bytes(conn, output, |out| ws::write_close(out, code, what));
        self.close(conn, output);
        self.end(now, session, End::Killed, output);
        Next::Stop
    }

    /// A message that not even an answer can be made for: the session is over.
    pub(super) fn violation(&mut self, now: Now, session: SessionRef, what: &'static str, output: &mut Output) {
        let Some(state) = self.sessions.get(session) else { return };
        match &state.channel {
            Channel::Socket(conn) => {
                let conn = *conn;
                self.break_off(now, conn, session, ws::close_code::POLICY, what, output);
            }
            Channel::Poll(polled) => {
                output.effects.push(Effect::Notice(Notice::Violation { conn: polled.last, what }));
                self.end(now, session, End::Killed, output);
            }
            Channel::Gone => {}
        }
    }

    pub(super) fn close(&mut self, conn: ConnId, output: &mut Output) {
        if !matches!(self.link(conn), Link::Closing | Link::Vacant) {
            *self.link(conn) = Link::Closing;
            output.effects.push(Effect::Close { conn });
        }
    }

    pub(super) fn hung_up(&mut self, now: Now, conn: ConnId, how: Hangup, output: &mut Output) {
        let end = match how {
            Hangup::Finished | Hangup::Ours => End::Closed,
            Hangup::Broken => End::Dropped,
        };
        match std::mem::take(self.link(conn)) {
            Link::Socket(socket) => self.end(now, socket.session, end, output),
            Link::Visiting(visitor) => self.visitor_gone(conn, &visitor, end, output),
            Link::Vacant | Link::Http(_) | Link::Busy | Link::Closing => {}
        }
    }

    /// The driver says how much waits to be sent.
    pub(super) fn backlog(&mut self, now: Now, conn: ConnId, bytes: usize, output: &mut Output) {
        if bytes <= SEND_BACKLOG_BYTES_MAX {
            return;
        }
        if let Link::Socket(socket) = self.link(conn) {
            let session = socket.session;
            output.effects.push(Effect::Notice(Notice::Violation { conn, what: "it reads too slowly" }));
            self.close(conn, output);
            self.end(now, session, End::Killed, output);
        } else {
            self.close(conn, output);
        }
    }

    /// The wheel says that a connection may have been silent for too long.
    pub(super) fn look_at_conn(&mut self, now: Now, conn: ConnId, output: &mut Output) {
        let Link::Http(http) = self.link(conn) else { return };
        if now.instant < http.deadline {
            return;
        }
        if http.is_resting {
            self.close(conn, output);
        } else {
            self.refuse(conn, 408, "no request came in time", output);
        }
    }
}
