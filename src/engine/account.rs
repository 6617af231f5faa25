//! What Wilddog's SDKs ask before they connect, and beside it: where to connect to, and who somebody
//! is (Wilddog wire specification, sections 2.2 and 12). Answered by whichever core is asked.

use rand_core::RngCore as _;

use super::conn::{Http, Next};
use super::engineio::preflight;
use super::gather::Purpose;
use super::visit::{Manner, Response};
use super::{Engine, Output};
use crate::base::{ConnId, Now};
use crate::wire::http::{Body, Head};
use crate::wire::wilddog;
use crate::wire::wilddog::account::{self, Ask, Generation, Refused};

/// A request of that kind. Owns what it needs: the head goes with the bytes it came in.
pub(super) struct Call {
    manner: Manner,
    what: What,
}

enum What {
    Lookup {
        application: String,
        host: String,
    },
    /// A request of the second generation: its body says the rest.
    SignIn {
        operation: String,
        body: Body,
        is_awaited: bool,
    },
    LegacySignIn(Ask),
    Preflight {
        allowed: String,
    },
}

impl Call {
    /// A request of that kind, if it is one.
    pub(super) fn read(head: &Head<'_>) -> Option<Self> {
        let operation = account::operation(head.path);
        if head.path != "/v1/lookup" && operation.is_none() {
            return None;
        }
        let what = match (head.method, operation) {
            ("OPTIONS", _) => {
                let allowed = head.headers.text("access-control-request-headers").unwrap_or("content-type").to_owned();
                What::Preflight { allowed }
            }
            ("GET", None) => {
                let application = head.query.get("appId").unwrap_or_default().into_owned();
                What::Lookup { application, host: wilddog::host(head) }
            }
            ("GET", Some((Generation::Legacy, operation))) => {
                What::LegacySignIn(account::read_legacy(operation, head.query))
            }
            ("POST", Some((Generation::Second, operation))) => {
                let body = head.body().ok()?;
                What::SignIn { operation: operation.to_owned(), body, is_awaited: head.expects_continue() }
            }
            _ => return None,
        };
        let origin = head.headers.text("origin").map(Box::from);
        Some(Self { manner: Manner { keeps_alive: head.keeps_alive(), origin }, what })
    }
}

impl Engine {
    pub(super) fn account_called(
        &mut self,
        now: Now,
        conn: ConnId,
        http: Box<Http>,
        call: Call,
        output: &mut Output,
    ) -> Next {
        let Call { manner, what } = call;
        let response = match what {
            What::Lookup { application, host } => {
                let is_known = !self.config.is_restricted || self.config.namespaces.contains_key(&application);
                let mut body = Vec::new();
                if is_known {
                    wilddog::lookup(&mut body, &application, &host);
                } else {
                    wilddog::lookup_refused(&mut body);
                }
                json(body)
            }
            What::SignIn { operation, body, is_awaited } => {
                let purpose = Purpose::SignIn { operation };
                self.gather_body(now, conn, http, manner, body, is_awaited, purpose, output);
                return Next::GoOn;
            }
            What::LegacySignIn(ask) => self.sign_in_by_request(now, Generation::Legacy, ask),
            What::Preflight { allowed } => preflight(&allowed),
        };
        self.respond(now, conn, http, &manner, &response, output);
        Next::GoOn
    }

    /// The body of a request of the second generation is whole.
    pub(super) fn sign_in_asked(&mut self, now: Now, operation: &str, mut body: Vec<u8>) -> Response {
        let ask = account::read(operation, &mut body, &mut self.reader);
        self.sign_in_by_request(now, Generation::Second, ask)
    }

    fn sign_in_by_request(&mut self, now: Now, generation: Generation, ask: Ask) -> Response {
        let now_s = now.wall.0 / 1_000;
        let (token, is_info) = match ask {
            Ask::Token(token) => (token, false),
            Ask::Info(token) => (token, true),
            Ask::Anonymous => {
                let uid = format!("{:016x}{:016x}", self.rng.next_u64(), self.rng.next_u64());
                match self.config.verifier.sign_in_anonymously(&uid, now_s) {
                    Some(token) => (token, false),
                    None => return refused(generation, Refused::Unsupported),
                }
            }
            Ask::Unsupported => return refused(generation, Refused::Unsupported),
        };
        match self.config.verifier.verify(&token, now_s) {
            Ok(identity) => {
                let mut body = Vec::new();
                if is_info {
                    account::info(&mut body, &identity);
                } else {
                    account::signed_in(&mut body, generation, &token, &identity);
                }
                json(body)
            }
            Err(bad) => refused(generation, Refused::Credential(bad)),
        }
    }
}

fn refused(generation: Generation, why: Refused) -> Response {
    let mut body = Vec::new();
    account::refused(&mut body, generation, why);
    json(body)
}

fn json(body: Vec<u8>) -> Response {
    Response::new(200, &[("Content-Type", "application/json; charset=utf-8"), ("Cache-Control", "no-store")], body)
}
