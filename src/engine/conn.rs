//! Connections: HTTP until they become something else.

use super::home::Channel;
use super::{Effect, Engine, Hangup, Notice, Output};
use crate::base::limits::{HANDSHAKE_MAX, SEND_BACKLOG_BYTES_MAX};
use crate::base::{ConnId, Instant, Now, SessionRef};
use crate::op::{End, Namespace, Refusal};
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
}

/// A WebSocket.
#[derive(Debug)]
pub(super) struct Socket {
    reader: ws::Reader,
    assembler: firebase::Assembler,
    session: SessionRef,
    /// What arrived while the session waits.
    held: Vec<u8>,
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
        self.conns[index].link = Link::Http(Box::new(Http { reader: http::Reader::default(), deadline }));
        self.conn_wheel.arm(conn.0, deadline);
    }

    fn link(&mut self, conn: ConnId) -> &mut Link {
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
        match http.reader.next(bytes) {
            Ok(None) => {
                *self.link(conn) = Link::Http(http);
                Next::GoOn
            }
            Ok(Some(head)) => {
                let upgrade = Upgrade::of(&head, &self.config.settings_names());
                self.serve(now, conn, upgrade, output)
            }
            Err(bad) => {
                self.send_bytes(conn, output, |out| bad.write_response(out));
                self.close(conn, output);
                Next::Stop
            }
        }
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
                ws::Frame::Text(text) => match socket.assembler.next(text) {
                    Ok(None) => {}
                    Ok(Some(message)) => {
                        let incoming = firebase::decode(message, &mut self.reader);
                        self.act(now, session, incoming, output);
                    }
                    Err(violation) => {
                        let (code, what) = (violation.close_code(), violation.as_str());
                        return self.break_off(now, conn, session, code, what, output);
                    }
                },
                ws::Frame::Ping(payload) => {
                    let mut copy = [0; ws::CONTROL_BYTES_MAX];
                    let payload = { copy[..payload.len()].copy_from_slice(payload); &copy[..payload.len()] };
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
                    self.end(now, session, End::Closed, None, output);
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
        self.end(now, session, End::Killed, None, output);
        Next::Stop
    }

    /// A message that not even an answer can be made for: the session is over.
    pub(super) fn violation(&mut self, now: Now, session: SessionRef, what: &'static str, output: &mut Output) {
        let Some(state) = self.sessions.get(session) else { return };
        let Channel::Socket(conn) = state.channel;
        self.break_off(now, conn, session, ws::close_code::POLICY, what, output);
    }

    pub(super) fn close(&mut self, conn: ConnId, output: &mut Output) {
        if !matches!(self.link(conn), Link::Closing | Link::Vacant) {
            *self.link(conn) = Link::Closing;
            output.effects.push(Effect::Close { conn });
        }
    }

    pub(super) fn hung_up(&mut self, now: Now, conn: ConnId, how: Hangup, output: &mut Output) {
        let link = std::mem::take(self.link(conn));
        if let Link::Socket(socket) = link {
            let end = match how {
                Hangup::Finished | Hangup::Ours => End::Closed,
                Hangup::Broken => End::Dropped,
            };
            self.end(now, socket.session, end, None, output);
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
            self.end(now, session, End::Killed, None, output);
        } else {
            self.close(conn, output);
        }
    }

    /// The wheel says that a connection may have been silent for too long.
    pub(super) fn look_at_conn(&mut self, now: Now, conn: ConnId, output: &mut Output) {
        if let Link::Http(http) = self.link(conn)
            && now.instant >= http.deadline
        {
            self.send_bytes(conn, output, |out| http::write_timeout(out));
            self.close(conn, output);
        }
    }
}
