//! Requests with bodies: what they bring is gathered before anybody acts on it.
//!
//! Costs: the body, as far as it has arrived; nothing for what is merely announced.

use super::conn::{Http, Link, Next};
use super::engineio::unknown_session;
use super::visit::{Errand, Manner, Request, Response};
use super::{Engine, Output};
use crate::base::limits::{BODY_PAUSE_MAX, PACKETS_BYTES_MAX};
use crate::base::{ConnId, Now, SessionId};
use crate::wire::Input as Bytes;
use crate::wire::engineio::Encoding;
use crate::wire::http::{BadHead, Body, BodyPiece, BodyReader};

/// A request whose body is on its way.
#[derive(Debug)]
pub(super) struct Gathering {
    /// To go on with afterwards.
    http: Box<Http>,
    manner: Manner,
    reader: BodyReader,
    body: Vec<u8>,
    purpose: Purpose,
}

/// What a body is for.
#[derive(Debug)]
pub(super) enum Purpose {
    /// Packets for a session.
    Bring { session: SessionId, encoding: Encoding },
    /// To sign in.
    SignIn { operation: String },
}

impl Gathering {
    pub(super) fn http(&mut self) -> &mut Http {
        &mut self.http
    }
}

impl Engine {
    /// A request announces a body.
    #[expect(clippy::too_many_arguments, reason = "they are what is known of one request")]
    pub(super) fn gather_body(
        &mut self,
        now: Now,
        conn: ConnId,
        mut http: Box<Http>,
        manner: Manner,
        body: Body,
        is_awaited: bool,
        purpose: Purpose,
        output: &mut Output,
    ) {
        if is_awaited {
            self.send_bytes(conn, output, |out| out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n"));
        }
        let until = now.instant + BODY_PAUSE_MAX;
        http.expect(until, self.conn_wheel.arm(conn.0, until));
        let gathering = Gathering { http, manner, reader: BodyReader::new(body), body: Vec::new(), purpose };
        // It may be whole before anything of it arrives.
        self.gather(now, conn, Box::new(gathering), &mut Bytes::new(&mut []), output);
    }

    /// Takes a piece of a body.
    pub(super) fn gather(
        &mut self,
        now: Now,
        conn: ConnId,
        mut gathering: Box<Gathering>,
        bytes: &mut Bytes<'_>,
        output: &mut Output,
    ) -> Next {
        loop {
            let bad = match gathering.reader.next(bytes) {
                Ok(BodyPiece::Bytes(piece)) => {
                    gathering.body.extend_from_slice(piece);
                    if gathering.body.len() <= PACKETS_BYTES_MAX {
                        continue;
                    }
                    BadHead::BodyTooLong
                }
                Ok(BodyPiece::Waiting) => {
                    let until = now.instant + BODY_PAUSE_MAX;
                    gathering.http.expect(until, self.conn_wheel.arm(conn.0, until));
                    *self.link(conn) = Link::Gathering(gathering);
                    return Next::GoOn;
                }
                Ok(BodyPiece::Done) => {
                    self.gathered(now, conn, *gathering, output);
                    return Next::GoOn;
                }
                Err(bad) => bad,
            };
            self.refuse(conn, bad.status(), bad.as_str(), output);
            return Next::Stop;
        }
    }

    fn gathered(&mut self, now: Now, conn: ConnId, gathering: Gathering, output: &mut Output) {
        let Gathering { http, manner, body, purpose, .. } = gathering;
        let response: Response = match purpose {
            Purpose::Bring { session, encoding } if self.has_home(&session) => {
                let request = Request { manner, session, errand: Errand::Bring { body, encoding }, upgrade: None };
                return self.visit(conn, http, request, output);
            }
            Purpose::Bring { .. } => unknown_session(),
            Purpose::SignIn { operation } => self.sign_in_asked(now, &operation, body),
        };
        self.respond(now, conn, http, &manner, &response, output);
    }
}
