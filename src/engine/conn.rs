//! Connections: HTTP until they become something else.

use std::net::SocketAddr;
use std::sync::Arc;

use super::account;
use super::engineio::{self, PacketSocket};
use super::gather::Gathering;
use super::home::Channel;
use super::poll;
use super::rest::{Arrived, Dialogue};
use super::visit::Visitor;
use super::{Effect, Engine, HOSTS_MAX, Hangup, Notice, Output};
use crate::base::limits::HANDSHAKE_MAX;
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
    /// A request whose body is on its way.
    Gathering(Box<Gathering>),
    /// A request that waits for its answer.
    Visiting(Box<Visitor>),
    /// A WebSocket with a session.
    Socket(Box<Socket>),
    /// A WebSocket that carries packets, of a session that may live elsewhere.
    Packets(Box<PacketSocket>),
    /// A response that does not end, with a session.
    Stream(SessionRef),
    /// What arrived for it is being taken apart: its link is with whoever does that.
    Busy,
    /// Its peer has fallen silent and its session is over; it is yet to be closed. Nothing that still arrives matters.
    Silent,
    /// It is being closed; nothing that still arrives matters.
    Closing,
}

/// A connection that speaks HTTP.
#[derive(Debug)]
pub(super) struct Http {
    reader: http::Reader,
    pub(super) dialogue: Dialogue,
    /// By when what is awaited must have come: a head, a body, an answer, room for what is sent.
    deadline: Instant,
    /// When its wheel entry that counts is due.
    next_look: Instant,
    /// A head has begun, or the first one is awaited: its absence is worth an answer.
    is_head_awaited: bool,
}

impl Http {
    /// Waits for more of a request. The wheel is armed for `look`.
    pub(super) const fn expect(&mut self, until: Instant, look: Instant) {
        self.deadline = until;
        self.next_look = look;
        self.is_head_awaited = true;
    }

    /// Waits for another request. The wheel is armed for `look`.
    pub(super) const fn rest(&mut self, until: Instant, look: Instant) {
        self.deadline = until;
        self.next_look = look;
        self.is_head_awaited = false;
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
    /// What the client calls us: where it is to come back to.
    host: Arc<str>,
}

/// What a request is for. Owns what it needs: the head goes with the bytes it came in.
enum Route {
    Socket(Join),
    Rest(Box<Arrived>),
    Poll(poll::Call),
    Packets(engineio::Call),
    Account(account::Call),
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
        if (head.path == "/.ws/" || head.path == "/.ws") && engineio::Call::is_one(head) {
            return Self::Packets(engineio::Call::read(head));
        }
        if let Some(call) = account::Call::read(head) {
            return Self::Account(call);
        }
        if head.path != "/.ws" && head.path != "/.ws/" {
            return Self::Rest(Box::new(Arrived::read(head)));
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
pub(super) enum Next {
    GoOn,
    /// It has become something else, or is closing.
    Stop,
}

impl Engine {
    pub(super) fn opened(&mut self, now: Now, conn: ConnId, peer: SocketAddr) {
        self.meters.connections += 1;
        self.meters.connections_opened += 1;
        if self.warden.connection_comes(conn, peer) {
            self.meters.unwelcome += 1;
        }
        let index = conn.0 as usize;
        if self.conns.len() <= index {
            self.conns.resize_with(index + 1, Conn::default);
        }
        assert!(matches!(self.conns[index].link, Link::Vacant), "the driver reuses a name only after Closed");
        let deadline = now.instant + HANDSHAKE_MAX;
        let next_look = self.conn_wheel.arm(conn.0, deadline);
        self.conns[index].link = Link::Http(Box::new(Http {
            reader: http::Reader::default(),
            dialogue: Dialogue::default(),
            deadline,
            next_look,
            is_head_awaited: true,
        }));
    }

    pub(super) fn encrypted(&mut self, conn: ConnId) {
        self.meters.connections_encrypted += 1;
        if let Link::Http(http) = self.link(conn) {
            http.reader.set_encrypted();
        }
    }

    pub(super) fn link(&mut self, conn: ConnId) -> &mut Link {
        &mut self.conns[conn.0 as usize].link
    }

    pub(super) fn is_socket(&mut self, conn: ConnId) -> bool {
        // A busy link is a socket's: plain requests end no sessions while they are read.
        matches!(self.link(conn), Link::Socket(_) | Link::Packets(_) | Link::Silent | Link::Busy)
    }

    pub(super) fn received(&mut self, now: Now, conn: ConnId, bytes: &mut [u8], output: &mut Output) {
        let mut bytes = Bytes::new(bytes);
        while !bytes.is_empty() {
            let next = match std::mem::replace(self.link(conn), Link::Busy) {
                Link::Http(http) => self.read_http(now, conn, http, &mut bytes, output),
                Link::Socket(socket) => self.read_socket(now, conn, socket, &mut bytes, output),
                Link::Packets(socket) => self.read_packet_socket(now, conn, socket, &mut bytes, output),
                Link::Gathering(gathering) => self.gather(now, conn, gathering, &mut bytes, output),
                Link::Stream(session) => {
                    // Nothing is expected, but it is a sign of life.
                    *self.link(conn) = Link::Stream(session);
                    return self.heard(now, session);
                }
                Link::Visiting(mut visitor) => {
                    if visitor.keep(bytes.take(bytes.len())) {
                        *self.link(conn) = Link::Visiting(visitor);
                    } else {
                        self.hang_up_on_visitor(conn, &visitor, output);
                    }
                    return;
                }
                link @ (Link::Vacant | Link::Busy | Link::Silent | Link::Closing) => {
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
        if !http.dialogue.wants_head() {
            *self.link(conn) = Link::Http(http);
            return self.rest_received(now, conn, bytes, output);
        }
        let route = match http.reader.next(bytes) {
            Ok(None) => {
                let is_begun = std::mem::replace(&mut http.is_head_awaited, true);
                *self.link(conn) = Link::Http(http);
                if !is_begun {
                    self.set_deadline(conn, now.instant + HANDSHAKE_MAX);
                }
                return Next::GoOn;
            }
            Ok(Some(head)) => Route::of(&head),
            Err(bad) => Route::Refuse { status: bad.status(), error: bad.as_str() },
        };
        http.is_head_awaited = false;
        if self.warden.is_unwelcome(conn) {
            *self.link(conn) = Link::Http(http);
            self.refuse(conn, 429, "too many connections from your address", output);
            return Next::Stop;
        }
        match route {
            Route::Socket(join) => {
                *self.link(conn) = Link::Http(http);
                self.join(now, conn, &join, output)
            }
            Route::Rest(arrived) => {
                *self.link(conn) = Link::Http(http);
                self.rest_arrived(now, conn, *arrived, output);
                Next::GoOn
            }
            Route::Poll(call) => {
                self.called(now, conn, http, call, output);
                Next::GoOn
            }
            Route::Account(call) => self.account_called(now, conn, http, call, output),
            Route::Packets(call) => self.packets_called(now, conn, http, call, output),
            Route::BadUpgrade(bad) => {
                *self.link(conn) = Link::Http(http);
                self.send_bytes(conn, output, |out| bad.write(out));
                self.close(conn, output);
                Next::Stop
            }
            Route::Refuse { status, error } => {
                *self.link(conn) = Link::Http(http);
                self.refuse(conn, status, error, output);
                Next::Stop
            }
        }
    }

    /// Answers a request with an error and closes the connection.
    pub(super) fn refuse(&mut self, conn: ConnId, status: u16, error: &str, output: &mut Output) {
        let mut body = Vec::new();
        body.extend_from_slice(b"{\"error\":");
        json::text(&mut body, error);
        body.push(b'}');
        let headers = [
            ("Content-Type", "application/json; charset=utf-8"),
            ("Access-Control-Allow-Origin", "*"),
            ("Connection", "close"),
        ];
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
            self.refuse(conn, 503, self.why_none_begins(), output);
            return Next::Stop;
        };
        let socket = Socket {
            reader: ws::Reader::for_server(),
            assembler: Assembler::default(),
            session,
            held: Vec::new(),
            host: self.host(host),
        };
        let link = std::mem::replace(self.link(conn), Link::Socket(Box::new(socket)));
        if let Link::Http(http) = link {
            self.rest_forget(conn, &http);
        }
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

    /// What clients call us, once for all of them.
    fn host(&mut self, name: &str) -> Arc<str> {
        if let Some(host) = self.hosts.iter().find(|host| ***host == *name) {
            return host.clone();
        }
        let host: Arc<str> = name.into();
        self.hosts.push_back(host.clone());
        self.hosts.truncate(HOSTS_MAX);
        host
    }

    /// Tells a client of the Firebase protocol to come back: at once where it may be, or when it can.
    pub(super) fn send_back(&mut self, conn: ConnId, output: &mut Output) {
        let Link::Socket(socket) = self.link(conn) else { return };
        let host = socket.host.clone();
        self.send_bytes(conn, output, |out| {
            let start = out.len();
            firebase::reset(out, &host);
            frames::seal(out, start);
        });
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
            Channel::Poll(_) | Channel::EngineIo(_) => {
                if let Some(conn) = state.channel.last_conn() {
                    output.effects.push(Effect::Notice(Notice::Violation { conn, what }));
                }
                self.end(now, session, End::Killed, output);
            }
            Channel::Gone => {}
            Channel::Rest(_) | Channel::Stream(_) | Channel::Device(_) | Channel::Guest(_) => {
                unreachable!("their clients send no messages")
            }
        }
    }

    pub(super) fn close(&mut self, conn: ConnId, output: &mut Output) {
        match std::mem::replace(self.link(conn), Link::Closing) {
            Link::Vacant => *self.link(conn) = Link::Vacant,
            Link::Closing => {}
            link => {
                self.backlogs.forget(conn);
                if let Link::Http(http) = link {
                    self.rest_forget(conn, &http);
                }
                output.effects.push(Effect::Close { conn });
            }
        }
    }

    pub(super) fn hung_up(&mut self, now: Now, conn: ConnId, how: Hangup, output: &mut Output) {
        self.meters.connections -= 1;
        self.warden.connection_goes(conn);
        self.backlogs.forget(conn);
        let end = match how {
            Hangup::Finished | Hangup::Ours => End::Closed,
            Hangup::Broken => End::Dropped,
            Hangup::Unanswered => End::TimedOut,
        };
        if let Link::Stream(session) = *self.link(conn)
            && how == Hangup::Unanswered
            && let Some(state) = self.sessions.get_mut(session)
        {
            state.was_silent(now.instant);
        }
        match std::mem::take(self.link(conn)) {
            Link::Socket(socket) => self.end(now, socket.session, end, output),
            Link::Stream(session) => self.end(now, session, end, output),
            Link::Visiting(visitor) => self.visitor_gone(conn, &visitor, end, output),
            Link::Packets(socket) => self.packet_socket_hung_up(now, &socket, end, output),
            Link::Http(http) => self.rest_forget(conn, &http),
            Link::Vacant | Link::Gathering(_) | Link::Busy | Link::Silent | Link::Closing => {}
        }
    }

    /// The driver says how much waits to be sent.
    pub(super) fn backlog(&mut self, now: Now, conn: ConnId, bytes: usize, output: &mut Output) {
        self.rest_backlog(now, conn, bytes);
        if matches!(self.link(conn), Link::Vacant | Link::Silent | Link::Closing) || !self.backlogs.note(conn, bytes) {
            return;
        }
        output.effects.push(Effect::Notice(Notice::Violation { conn, what: "it reads too slowly" }));
        let link = std::mem::replace(self.link(conn), Link::Busy);
        self.close(conn, output);
        match link {
            Link::Socket(socket) => self.end(now, socket.session, End::Killed, output),
            Link::Stream(session) => self.end(now, session, End::Killed, output),
            Link::Packets(socket) => self.packet_socket_hung_up(now, &socket, End::Killed, output),
            Link::Visiting(visitor) => self.visitor_gone(conn, &visitor, End::Killed, output),
            Link::Http(http) => self.rest_forget(conn, &http),
            Link::Vacant | Link::Gathering(_) | Link::Busy | Link::Silent | Link::Closing => {}
        }
    }

    /// The wheel says that a connection may have been silent for too long.
    pub(super) fn look_at_conn(&mut self, now: Now, conn: ConnId, output: &mut Output) {
        let http = match self.link(conn) {
            Link::Http(http) => http,
            Link::Gathering(gathering) => gathering.http(),
            _ => return,
        };
        if now.instant < http.next_look {
            return;
        }
        if now.instant < http.deadline {
            let deadline = http.deadline;
            return self.arm_conn(conn, deadline);
        }
        if http.is_head_awaited {
            return self.refuse(conn, 408, "no request came in time", output);
        }
        let is_sending = http.dialogue.is_sending();
        match http.dialogue.late() {
            Some((status, what)) => self.refuse(conn, status, what, output),
            None => self.close(conn, output),
        }
        if is_sending {
            output.effects.push(Effect::Notice(Notice::Violation { conn, what: "it reads too slowly" }));
        }
    }

    /// By when what a plain connection waits for must have come.
    pub(super) fn set_deadline(&mut self, conn: ConnId, deadline: Instant) {
        let Link::Http(http) = self.link(conn) else { return };
        http.deadline = deadline;
        if deadline < http.next_look {
            self.arm_conn(conn, deadline);
        }
    }

    fn arm_conn(&mut self, conn: ConnId, deadline: Instant) {
        let look = self.conn_wheel.arm(conn.0, deadline);
        match self.link(conn) {
            Link::Http(http) => http.next_look = look,
            Link::Gathering(gathering) => gathering.http().next_look = look,
            _ => {}
        }
    }
}
