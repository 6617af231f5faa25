//! Requests without a socket, and streams.
//!
//! The surprising idea: here too everything is a session. A connection that asks gets one, so that
//! answers find their way back; a stream *is* one, with an identity, a deadline and a ledger, so that
//! clients without an SDK can leave last words. One request of a connection is under way at a time;
//! what comes meanwhile is held back. Costs: a connection that has never asked costs nothing here;
//! a long answer or body costs what of it is in memory.

mod long;

use std::collections::VecDeque;
use std::sync::Arc;

use rand_core::RngCore as _;

use super::conn::{Http, Link, Next};
use super::home::{Channel, acting_as};
use super::message::{Leave, Leaving, Manage, Managed, Task};
use super::room::DISK_FULL;
use super::{Ask, Effect, Engine, Message, Notice, Output, Settings};
use crate::auth::Verifier;
use crate::base::limits::{
    ANSWER_MAX, BODIES_BYTES_MAX, BODY_BYTES_PER_SECOND_MIN, BODY_GRACE, KEEP_ALIVE, KEEP_ALIVE_MAX, SEND_STALL_MAX,
    SESSION_TIMEOUT_MAX,
};
use crate::base::{ConnId, Instant, Millis, Now, SessionId, SessionRef, ShardId};
use crate::data::Path;
use crate::log::OwnRules;
use crate::op::{BadCredential, End, Event, Identity, Look, Namespace, Outcome, Query, Refusal, Request, Sight, Word};
use crate::presence::Beside;
use crate::rules::{Dialect, Ruleset};
use crate::shard::{Told, Trial};
use crate::tree;
use crate::wire::rest::{
    self, Answering, BodyReader, Call, Get, Lookup, PIECE_BYTES, PushIds, Reply, Sending, StreamText, Style, Tool, What,
};
use crate::wire::{Input as Bytes, http};
use long::Reading;

/// Pieces of long answers that one turn prints.
const PIECES_MAX: usize = 4;
/// The number of a stream's own listen; its clients' requests have greater ones.
const LISTEN: i64 = 0;

/// What an engine keeps for requests without a socket.
#[derive(Debug)]
pub(super) struct Desk {
    /// Connections whose request has its reply.
    answered: VecDeque<ConnId>,
    /// Streams that are to be ended.
    over: VecDeque<SessionRef>,
    /// Connections with a long answer under way.
    sending: VecDeque<ConnId>,
    /// Connections whose long body is being read.
    reading: VecDeque<ConnId>,
    /// Bytes of all bodies that are being received.
    body_bytes: usize,
    push_ids: PushIds,
    /// The database that a tool has looked up last: its next requests do not name it.
    looked_up: Option<Namespace>,
    /// How sessions of plain connections are treated: their connections have deadlines of their own.
    patient: Arc<Settings>,
}

/// The requests of one connection.
#[derive(Debug, Default)]
pub(super) struct Dialogue {
    /// Where answers come back to; made for the first request that needs one.
    session: Option<SessionRef>,
    phase: Phase,
    /// What came while a request was under way.
    held: Vec<u8>,
    is_paused: bool,
    /// What waits to be sent.
    backlog_bytes: usize,
    /// The number of the last request.
    number: i64,
    /// The last credential that was believed.
    believed: Option<Believed>,
}

/// How far a connection's request is.
#[derive(Debug, Default)]
enum Phase {
    /// A head is awaited.
    #[default]
    Head,
    /// The body is being received.
    Body(Box<Receiving>),
    /// The body is here, and is being read a piece a turn.
    Reading(Box<Reading>),
    /// The answer is awaited.
    Asked(Box<Pending>),
    /// The answer is being sent, a piece at a time.
    Sending { sending: Box<Sending>, keeps_alive: bool },
}

/// A request whose body is not whole.
#[derive(Debug)]
struct Receiving {
    call: Call,
    reader: BodyReader,
    body: Vec<u8>,
    began: Instant,
}

/// A request that waits for its answer.
#[derive(Debug)]
struct Pending {
    style: Style,
    answering: Answering,
    /// Engines that have yet to answer, where all are asked.
    missing: u8,
    databases: Vec<Namespace>,
    /// What engines have shown of themselves.
    sights: Vec<Sight>,
    reply: Option<Reply>,
}

/// A head, and what it says about what follows it.
pub(super) struct Arrived {
    call: Call,
    body: Result<http::Body, http::BadHead>,
    expects_continue: bool,
}

/// A stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) conn: ConnId,
    path: Path,
    /// What is yet to be asked, because an earlier stream of this client has not settled.
    waiting: Option<Request>,
    /// The head of the response is sent.
    is_started: bool,
    backlog_bytes: usize,
    /// The number of the last request about its last words.
    number: i64,
    /// Who waits for the answers to those.
    promised: VecDeque<Promise>,
}

#[derive(Debug)]
struct Promise {
    number: i64,
    asker: SessionRef,
    asker_number: i64,
}

impl Default for Desk {
    fn default() -> Self {
        let forever = SESSION_TIMEOUT_MAX;
        let patient = Settings { heartbeat: forever, session_timeout: forever, ..Settings::default() };
        Self {
            answered: VecDeque::new(),
            over: VecDeque::new(),
            sending: VecDeque::new(),
            reading: VecDeque::new(),
            body_bytes: 0,
            push_ids: PushIds::default(),
            looked_up: None,
            patient: Arc::new(patient),
        }
    }
}

impl Arrived {
    pub(super) fn read(head: &http::Head<'_>) -> Self {
        Self { call: Call::read(head), body: head.body(), expects_continue: head.expects_continue() }
    }
}

impl Dialogue {
    /// Whether what arrives next is a head.
    pub(super) const fn wants_head(&self) -> bool {
        matches!(self.phase, Phase::Head)
    }

    /// What to say where the deadline has passed; `None`: nothing was begun, so nothing is said.
    pub(super) const fn late(&self) -> Option<(u16, &'static str)> {
        match self.phase {
            Phase::Head | Phase::Sending { .. } => None,
            Phase::Body(_) => Some((408, "the request body came too slowly")),
            Phase::Reading(_) | Phase::Asked(_) => Some((503, "there was no answer in time")),
        }
    }

    pub(super) const fn is_sending(&self) -> bool {
        matches!(self.phase, Phase::Sending { .. })
    }
}

impl Engine {
    /// How sessions with that channel are treated, where the namespace says `settings`.
    pub(super) fn settings_for(&self, channel: &Channel, settings: Arc<Settings>) -> Arc<Settings> {
        match channel {
            Channel::Rest(_) => self.desk.patient.clone(),
            Channel::Stream(_) if settings.heartbeat > KEEP_ALIVE => {
                Arc::new(Settings { heartbeat: KEEP_ALIVE, ..*settings })
            }
            _ => settings,
        }
    }

    fn dialogue(&mut self, conn: ConnId) -> Option<&mut Dialogue> {
        if let Link::Http(http) = self.link(conn) { Some(&mut http.dialogue) } else { None }
    }

    /// A request's head is here.
    pub(super) fn rest_arrived(&mut self, now: Now, conn: ConnId, arrived: Arrived, output: &mut Output) {
        let Arrived { mut call, body, expects_continue } = arrived;
        if self.drain.is_on {
            return self.refuse(conn, 503, "the server is stopping", output);
        }
        let reader = match body {
            Ok(body) => BodyReader::new(body),
            Err(bad) => return self.refuse(conn, bad.status(), bad.as_str(), output),
        };
        if reader.is_done() {
            return self.rest_called(now, conn, call, Vec::new(), output);
        }
        if expects_continue && call.what.is_err() {
            // Told so early, the client does not send the body, or does: nobody knows.
            call.style.keeps_alive = false;
            return self.rest_called(now, conn, call, Vec::new(), output);
        }
        if expects_continue {
            self.send_bytes(conn, output, |out| out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n"));
        }
        let receiving = Receiving { call, reader, body: Vec::new(), began: now.instant };
        if let Some(dialogue) = self.dialogue(conn) {
            dialogue.phase = Phase::Body(Box::new(receiving));
        }
        self.set_deadline(conn, now.instant + BODY_GRACE);
    }

    /// Bytes that are not a head.
    pub(super) fn rest_received(&mut self, now: Now, conn: ConnId, bytes: &mut Bytes<'_>, output: &mut Output) -> Next {
        let room = BODIES_BYTES_MAX - self.desk.body_bytes;
        let Some(dialogue) = self.dialogue(conn) else { return Next::Stop };
        let Phase::Body(receiving) = &mut dialogue.phase else {
            dialogue.held.extend_from_slice(bytes.take(bytes.len()));
            if !std::mem::replace(&mut dialogue.is_paused, true) {
                output.effects.push(Effect::Read { conn, is_wanted: false });
            }
            return Next::GoOn;
        };
        let Receiving { call, reader, body, began } = &mut **receiving;
        let before = body.len();
        let is_kept = call.what.is_ok();
        let read = reader.read(bytes, |piece| {
            if is_kept && body.len() - before + piece.len() <= room {
                body.extend_from_slice(piece);
            }
        });
        let is_full = is_kept && body.len() < reader.taken_bytes();
        let earned = Millis((reader.taken_bytes() / BODY_BYTES_PER_SECOND_MIN) as u64 * 1_000);
        let (deadline, is_done, more) = (*began + BODY_GRACE + earned, reader.is_done(), body.len() - before);
        self.desk.body_bytes += more;
        let bytes = before + more;
        if let Err(bad) = read {
            output.effects.push(Effect::Notice(Notice::Violation { conn, what: bad.as_str() }));
            self.refuse(conn, bad.status(), bad.as_str(), output);
            return Next::Stop;
        }
        if is_full {
            self.refuse(conn, 503, "too many bytes of request bodies at once", output);
            return Next::Stop;
        }
        if let Some(why) = self.is_body_too_much(bytes) {
            self.refuse(conn, 503, why, output);
            return Next::Stop;
        }
        if !is_done {
            self.set_deadline(conn, deadline);
            return Next::GoOn;
        }
        let Some(dialogue) = self.dialogue(conn) else { return Next::Stop };
        if let Phase::Body(receiving) = std::mem::take(&mut dialogue.phase) {
            let Receiving { call, body, .. } = *receiving;
            self.desk.body_bytes -= body.len();
            self.rest_called(now, conn, call, body, output);
        }
        Next::GoOn
    }

    /// A request is here, with its body.
    fn rest_called(&mut self, now: Now, conn: ConnId, call: Call, mut body: Vec<u8>, output: &mut Output) {
        let Call { namespace, is_namespace_named, credential, acting_as, what, style } = call;
        let what = match what {
            Err(reply) | Ok(What::Known(reply)) => return self.rest_reply(now, conn, reply, &style, output),
            Ok(What::Time) => {
                let reply = Reply::json(200, now.wall.0.to_string().as_bytes());
                return self.rest_reply(now, conn, reply, &style, output);
            }
            Ok(What::Tool(tool)) => {
                let reply = tool.answer(&mut body, &mut self.reader);
                let identity = self.rest_identity(now, conn, credential, None);
                let is_admin = identity.is_ok_and(|identity| identity.is_admin);
                return match tool {
                    // Whoever else asks does not change what administrators mean.
                    Tool::Lookup(Lookup { namespace: Some(name), .. }) if is_admin => {
                        let task = Task::Prefer(name.as_str().into());
                        self.rest_survey(now, conn, &task, Some(reply), style, output);
                    }
                    _ => self.rest_reply(now, conn, reply, &style, output),
                };
            }
            Ok(what) => what,
        };
        let identity = match self.rest_identity(now, conn, credential, acting_as) {
            Ok(identity) => identity,
            Err(bad) => {
                return self.rest_reply(now, conn, Reply::refused(&Refusal::Credential(bad)), &style, output);
            }
        };
        let namespace = match self.rest_namespace(namespace, is_namespace_named, &identity) {
            Ok(namespace) => namespace,
            Err(_) if what.is_about_all() => "".into(),
            Err(reply) => return self.rest_reply(now, conn, reply, &style, output),
        };
        let asking = Asking { conn, namespace, identity, style };
        self.rest_do(now, asking, what, body, output);
    }

    fn rest_do(&mut self, now: Now, asking: Asking, what: What, mut body: Vec<u8>, output: &mut Output) {
        let Asking { conn, namespace, identity, style } = &asking;
        let is_managing = what.is_managing();
        if is_managing && !identity.is_admin {
            let reply = Reply::refused(&Refusal::Credential(BadCredential::Forbidden));
            return self.rest_reply(now, *conn, reply, style, output);
        }
        match what {
            What::Get(Get { path, query, view }) => {
                let answering = Answering::Get { view, query: query.clone() };
                self.rest_ask(now, asking, Request::Get { path, query }, answering, output);
            }
            What::Write(write) => {
                let name = self.push_id(now);
                let mut body = match write.long_body(body) {
                    Ok(reader) => return self.rest_read_long(now, asking, write, name, reader),
                    Err(body) => body,
                };
                match write.with_body(&mut body, &mut self.reader, name) {
                    Ok(rest::Asked { write: op, answering }) => {
                        let request = Request::Exchange { write: op, if_hash: write.if_hash };
                        self.rest_ask(now, asking, request, answering, output);
                    }
                    Err(reply) => self.rest_reply(now, *conn, reply, style, output),
                }
            }
            What::LastWord { stream, write } => {
                let name = self.push_id(now);
                let bytes = body.len();
                match write.with_body(&mut body, &mut self.reader, name) {
                    Ok(rest::Asked { write, answering }) => {
                        let answering = match answering {
                            Answering::Pushed { .. } => answering,
                            _ => Answering::Done,
                        };
                        self.rest_leave(now, asking, stream, Leaving::Word { write, bytes }, answering, output);
                    }
                    Err(reply) => self.rest_reply(now, *conn, reply, style, output),
                }
            }
            What::CancelLastWords { stream, path } => {
                self.rest_leave(now, asking, stream, Leaving::Cancel { path }, Answering::Done, output);
            }
            What::Stream { path, query, last_stream } => {
                let request = Request::Listen { path: path.clone(), query, tag: None, hash: None };
                self.rest_stream(now, asking, path, request, last_stream, output);
            }
            What::Profile => self.rest_stream(now, asking, Path::ROOT, Request::Profile, None, output),
            What::GetRules => {
                let task = Task::GetRules(namespace.clone());
                self.rest_manage(now, asking, task, output);
            }
            What::PutRules { is_dry_run } => match read_rules(&body, self.config.dialect) {
                Err(reply) => self.rest_reply(now, *conn, reply, style, output),
                Ok(_) if is_dry_run => self.rest_reply(now, *conn, Reply::done(), style, output),
                Ok(rules) => {
                    let task = Task::SetRules { namespace: namespace.clone(), rules };
                    self.rest_manage(now, asking, task, output);
                }
            },
            What::Databases => self.rest_survey(now, *conn, &Task::Databases, None, asking.style, output),
            What::Look(look) => self.rest_look(now, asking, look, output),
            What::Try => self.rest_try(now, asking, body, output),
            What::Watch => self.rest_watch(now, asking, output),
            What::Time | What::Tool(_) | What::Known(_) => unreachable!("answered before anybody was asked"),
        }
    }

    pub(super) fn push_id(&mut self, now: Now) -> String {
        let random = [self.rng.next_u64(), self.rng.next_u64()];
        self.desk.push_ids.next(now.wall, random)
    }

    /// Who asks.
    fn rest_identity(
        &mut self,
        now: Now,
        conn: ConnId,
        credential: Option<String>,
        acting: Option<serde_json::Value>,
    ) -> Result<Arc<Identity>, BadCredential> {
        let now_s = now.wall.0 / 1_000;
        let identity = match credential {
            None => Arc::new(Identity::NOBODY),
            Some(credential) => {
                let by = self.config.verifier.clone();
                let believed = self.dialogue(conn).and_then(|dialogue| dialogue.believed.as_ref());
                let known = believed.filter(|known| known.holds(&credential, &by, now_s));
                if let Some(known) = known {
                    known.identity.clone()
                } else {
                    let identity = Arc::new(by.verify(&credential, now_s)?);
                    if let Some(dialogue) = self.dialogue(conn) {
                        dialogue.believed = Some(Believed { credential, identity: identity.clone(), by });
                    }
                    identity
                }
            }
        };
        match acting {
            None => Ok(identity),
            Some(auth) => {
                let is_nobody = auth.is_null();
                acting_as((*identity).clone(), is_nobody, Some(auth)).map(Arc::new)
            }
        }
    }

    /// Which database is meant.
    fn rest_namespace(&self, name: Option<String>, is_named: bool, identity: &Identity) -> Result<Namespace, Reply> {
        let looked_up = self.desk.looked_up.as_ref().filter(|_| !is_named && identity.is_admin);
        if let Some(namespace) = looked_up {
            return Ok(namespace.clone());
        }
        let name = name.ok_or_else(|| Reply::bad("Namespace not specified or malformed: add ?ns=NAME"))?;
        if self.config.is_restricted && !self.config.namespaces.contains_key(&name) {
            return Err(Reply::error(404, "there is no such database"));
        }
        Ok(name.into())
    }

    /// The session of a plain connection, and the number of its next request.
    fn rest_session(&mut self, now: Now, conn: ConnId, namespace: &Namespace) -> Option<(SessionRef, i64)> {
        let known = self.dialogue(conn)?.session;
        let session = match known {
            Some(session) => session,
            None => self.open_session(now, Channel::Rest(conn), namespace.clone()).ok()?.0,
        };
        let dialogue = self.dialogue(conn)?;
        dialogue.session = Some(session);
        dialogue.number += 1;
        Some((session, dialogue.number))
    }

    /// Makes a request wait for its answer. `None` if there are too many: it is refused.
    fn rest_wait(
        &mut self,
        now: Now,
        asking: Asking,
        answering: Answering,
        output: &mut Output,
    ) -> Option<(SessionRef, i64)> {
        let Asking { conn, namespace, style, .. } = asking;
        let Some((session, number)) = self.rest_session(now, conn, &namespace) else {
            self.refuse(conn, 503, "too many sessions", output);
            return None;
        };
        let pending = Pending { style, answering, missing: 1, databases: Vec::new(), sights: Vec::new(), reply: None };
        self.dialogue(conn)?.phase = Phase::Asked(Box::new(pending));
        self.set_deadline(conn, now.instant + ANSWER_MAX);
        Some((session, number))
    }

    fn rest_ask(&mut self, now: Now, asking: Asking, request: Request, answering: Answering, output: &mut Output) {
        let (namespace, identity) = (asking.namespace.clone(), asking.identity.clone());
        let Some((session, number)) = self.rest_wait(now, asking, answering, output) else { return };
        if let Some(state) = self.sessions.get_mut(session) {
            state.asked();
        }
        let (id, heard, beside, route) = (None, now.instant, Beside::default(), None);
        let ask = Ask { session, id, number, namespace, identity, heard, is_plain: true, request, beside, route };
        self.dispatch(Box::new(ask), output);
    }

    /// Asks a stream's home to keep, or to forget, last words.
    fn rest_leave(
        &mut self,
        now: Now,
        asking: Asking,
        stream: SessionId,
        what: Leaving,
        answering: Answering,
        output: &mut Output,
    ) {
        if stream.home.0 >= self.config.shards {
            let reply = Reply::refused(&Refusal::NoSession);
            return self.rest_reply(now, asking.conn, reply, &asking.style, output);
        }
        let namespace = asking.namespace.clone();
        let Some((asker, number)) = self.rest_wait(now, asking, answering, output) else { return };
        if let Some(state) = self.sessions.get_mut(asker) {
            state.asked();
        }
        let leave = Leave { stream, namespace, asker, number, what };
        self.send(stream.home, Message::Leave(Box::new(leave)), output);
    }

    /// Asks the owner of a namespace to do something that is not about data.
    fn rest_manage(&mut self, now: Now, asking: Asking, task: Task, output: &mut Output) {
        let owner = self.owner(&asking.namespace);
        let Some((asker, number)) = self.rest_wait(now, asking, Answering::Done, output) else { return };
        self.send(owner, Message::Manage(Box::new(Manage { asker, number, task })), output);
    }

    /// Asks every engine. `reply` is for when all have answered, if it is known already.
    fn rest_survey(
        &mut self,
        now: Now,
        conn: ConnId,
        task: &Task,
        reply: Option<Reply>,
        style: Style,
        output: &mut Output,
    ) {
        // The session of the connection needs some namespace; this one is nobody's.
        let asking = Asking { conn, namespace: "".into(), identity: Arc::new(Identity::NOBODY), style };
        let Some((asker, number)) = self.rest_wait(now, asking, Answering::Done, output) else { return };
        let shards = self.config.shards;
        if let Some(Dialogue { phase: Phase::Asked(pending), .. }) = self.dialogue(conn) {
            pending.missing = shards;
            pending.reply = reply;
        }
        for shard in (0..shards).map(ShardId) {
            let task = task.clone();
            self.send(shard, Message::Manage(Box::new(Manage { asker, number, task })), output);
        }
    }

    /// Something that is not about data is asked of this engine.
    pub(super) fn manage(&mut self, now: Now, manage: Manage, output: &mut Output) {
        let Some(manage) = self.takes_manage(manage, output) else { return };
        if matches!(manage.task, Task::Look { .. } | Task::Complete { .. } | Task::Try { .. }) {
            return self.looked_at(now, manage, output);
        }
        let Manage { asker, number, task } = manage;
        let done = match task {
            Task::Databases => Managed::Databases(self.shards.keys().cloned().collect()),
            Task::Prefer(namespace) => {
                self.desk.looked_up = Some(namespace);
                Managed::Done
            }
            Task::GetRules(namespace) => {
                let rules = self.shards.get(&namespace).map_or(&self.config.rules, |shard| shard.rules());
                Managed::Rules(rules.clone())
            }
            Task::SetRules { namespace, rules } => self.set_rules_of(&namespace, rules, output),
            Task::Look { .. } | Task::Complete { .. } | Task::Try { .. } => unreachable!("it was looked at elsewhere"),
        };
        self.send(asker.home, Message::Managed { session: asker, number, done }, output);
    }

    /// Other rules for one namespace. The listens that they no longer allow end as they do when all
    /// rules change.
    fn set_rules_of(&mut self, namespace: &Namespace, rules: Arc<Ruleset>, output: &mut Output) -> Managed {
        if self.is_read_only(namespace) {
            return Managed::Refused(DISK_FULL);
        }
        let over = OwnRules::sum(self.config.rules.source());
        let Some(shard) = self.shard(namespace) else {
            return Managed::Refused(Refusal::Limit("too many databases"));
        };
        shard.set_own_rules(rules, over);
        self.finish_owning(namespace, Vec::new(), output);
        self.introduce_me(output);
        Managed::Done
    }

    /// Something that was asked of other engines is done.
    pub(super) fn managed(&mut self, session: SessionRef, number: i64, done: Managed, output: &mut Output) {
        let conn = match self.sessions.get(session).map(|state| &state.channel) {
            Some(Channel::Rest(conn)) => *conn,
            Some(Channel::Stream(_)) => {
                if let Managed::Seen(sight) = done {
                    self.watched(session, number, *sight, output);
                }
                return;
            }
            _ => return,
        };
        let Some(dialogue) = self.dialogue(conn).filter(|dialogue| dialogue.number == number) else { return };
        let Phase::Asked(pending) = &mut dialogue.phase else { return };
        match done {
            Managed::Databases(names) => pending.databases.extend(names),
            Managed::Done if pending.reply.is_none() => pending.reply = Some(Reply::done()),
            Managed::Done => {}
            Managed::Rules(rules) => pending.reply = Some(Reply::text(rules.source())),
            Managed::Refused(refusal) => pending.reply = Some(Reply::refused(&refusal)),
            Managed::Seen(sight) => pending.sights.push(*sight),
        }
        pending.missing -= 1;
        if pending.missing == 0 {
            if !pending.sights.is_empty() {
                pending.reply = Some(Reply::sights(&pending.sights));
            }
            pending.databases.sort_unstable();
            // Each core has some of a database that is spread.
            pending.databases.dedup();
            let names = pending.databases.iter().map(|name| &**name);
            pending.reply.get_or_insert_with(|| Reply::names(names));
            self.desk.answered.push_back(conn);
        }
    }

    /// What came of a plain connection's request.
    pub(super) fn rest_word(&mut self, conn: ConnId, word: &Word<'_>) {
        let Word::Outcome { number, outcome } = word else { return };
        let Some(dialogue) = self.dialogue(conn).filter(|dialogue| dialogue.number == *number) else { return };
        let Phase::Asked(pending) = &mut dialogue.phase else { return };
        let mut reply = Reply::of(&pending.answering, outcome, &pending.style);
        if let (Answering::Get { query, .. }, Outcome::Value(node)) = (&pending.answering, outcome)
            && !query.is_all()
        {
            let order = Query { index: query.index.clone(), ..Query::ALL };
            reply = reply.in_order(tree::members(node, &order));
        }
        pending.reply = Some(reply);
        self.desk.answered.push_back(conn);
    }

    /// Goes on with one connection that has its answer, or ends one stream. Returns whether there was
    /// any.
    pub(super) fn rest_go_on(&mut self, now: Now, output: &mut Output) -> bool {
        if let Some(session) = self.desk.over.pop_front() {
            self.end(now, session, End::Closed, output);
            return true;
        }
        let Some(conn) = self.desk.answered.pop_front() else { return false };
        let Some(dialogue) = self.dialogue(conn) else { return true };
        if let Phase::Asked(pending) = std::mem::take(&mut dialogue.phase) {
            let Pending { style, reply, .. } = *pending;
            let reply = reply.expect("a connection is answered when its reply is there");
            self.rest_reply(now, conn, reply, &style, output);
            self.rest_next(now, conn, output);
        }
        true
    }

    /// Answers a connection's request.
    fn rest_reply(&mut self, now: Now, conn: ConnId, reply: Reply, style: &Style, output: &mut Output) {
        let keeps_alive = style.keeps_alive && !self.drain.is_on;
        let mut sending = None;
        self.send_bytes(conn, output, |out| sending = Sending::begin(out, reply, style, keeps_alive));
        let Some(dialogue) = self.dialogue(conn) else { return };
        match sending {
            None => {
                dialogue.phase = Phase::Head;
                self.rest_replied(now, conn, keeps_alive, output);
            }
            Some(sending) => {
                let keeps_alive = keeps_alive && !sending.ends_with_connection();
                dialogue.phase = Phase::Sending { sending: Box::new(sending), keeps_alive };
                self.desk.sending.push_back(conn);
                self.set_deadline(conn, now.instant + SEND_STALL_MAX);
            }
        }
    }

    /// All of an answer is given to be sent.
    fn rest_replied(&mut self, now: Now, conn: ConnId, keeps_alive: bool, output: &mut Output) {
        if keeps_alive {
            self.set_deadline(conn, now.instant + KEEP_ALIVE_MAX);
        } else {
            self.close(conn, output);
        }
    }

    /// Goes on with what came while a request was under way.
    fn rest_next(&mut self, now: Now, conn: ConnId, output: &mut Output) {
        let Some(dialogue) = self.dialogue(conn).filter(|dialogue| dialogue.wants_head()) else { return };
        let mut held = std::mem::take(&mut dialogue.held);
        if !held.is_empty() {
            self.received(now, conn, &mut held, output);
        }
        let Some(dialogue) = self.dialogue(conn) else { return };
        if dialogue.held.is_empty() && std::mem::take(&mut dialogue.is_paused) {
            output.effects.push(Effect::Read { conn, is_wanted: true });
        }
    }

    /// Whether there are pieces of long answers that clients have room for.
    pub(super) fn has_pieces(&self) -> bool {
        self.desk.sending.iter().any(|conn| match &self.conns[conn.0 as usize].link {
            Link::Http(http) => http.dialogue.backlog_bytes < PIECE_BYTES,
            _ => false,
        })
    }

    /// Prints some pieces of long answers.
    pub(super) fn send_pieces(&mut self, now: Now, output: &mut Output) {
        for _ in 0..self.desk.sending.len().min(PIECES_MAX) {
            let Some(conn) = self.desk.sending.pop_front() else { return };
            let Some(dialogue) = self.dialogue(conn) else { continue };
            if dialogue.backlog_bytes >= PIECE_BYTES {
                self.desk.sending.push_back(conn);
                continue;
            }
            let Phase::Sending { mut sending, keeps_alive } = std::mem::take(&mut dialogue.phase) else { continue };
            let mut is_last = false;
            self.send_bytes(conn, output, |out| is_last = sending.piece(out));
            if is_last {
                self.rest_replied(now, conn, keeps_alive, output);
                self.rest_next(now, conn, output);
            } else if let Some(dialogue) = self.dialogue(conn) {
                dialogue.phase = Phase::Sending { sending, keeps_alive };
                self.desk.sending.push_back(conn);
            }
        }
    }

    /// The driver says how much waits to be sent to a client without a socket.
    pub(super) fn rest_backlog(&mut self, now: Now, conn: ConnId, bytes: usize) {
        let session = match self.link(conn) {
            Link::Http(http) => {
                http.dialogue.backlog_bytes = bytes;
                if http.dialogue.is_sending() {
                    self.set_deadline(conn, now.instant + SEND_STALL_MAX);
                }
                return;
            }
            Link::Stream(session) => *session,
            _ => return,
        };
        if let Some(Channel::Stream(stream)) = self.sessions.get_mut(session).map(|state| &mut state.channel) {
            stream.backlog_bytes = bytes;
        }
    }

    /// A plain connection goes, or becomes something else.
    pub(super) fn rest_forget(&mut self, conn: ConnId, http: &Http) {
        match &http.dialogue.phase {
            Phase::Body(receiving) => self.desk.body_bytes -= receiving.body.len(),
            Phase::Reading(reading) => {
                self.desk.body_bytes -= reading.bytes();
                self.desk.reading.retain(|other| *other != conn);
            }
            Phase::Sending { .. } => self.desk.sending.retain(|other| *other != conn),
            Phase::Head | Phase::Asked(_) => {}
        }
        if let Some(session) = http.dialogue.session {
            self.close_session(session);
        }
    }

    /// A client wants to be told.
    fn rest_stream(
        &mut self,
        now: Now,
        asking: Asking,
        path: Path,
        request: Request,
        last_stream: Option<SessionId>,
        output: &mut Output,
    ) {
        let Some(session) = self.open_stream(now, asking, path, Some(request), output) else { return };
        if let Some(last) = last_stream {
            self.replace_session(now, session, last, output);
        }
        if self.sessions.get(session).is_some_and(|state| !state.is_waiting) {
            self.stream_listen(session, output);
        }
    }

    /// A connection becomes a stream. `None` if there are too many sessions: it is refused.
    fn open_stream(
        &mut self,
        now: Now,
        asking: Asking,
        path: Path,
        waiting: Option<Request>,
        output: &mut Output,
    ) -> Option<SessionRef> {
        let Asking { conn, namespace, identity, .. } = asking;
        let stream = Stream {
            conn,
            path,
            waiting,
            is_started: false,
            backlog_bytes: 0,
            number: LISTEN,
            promised: VecDeque::new(),
        };
        let Ok((session, _)) = self.open_session(now, Channel::Stream(Box::new(stream)), namespace) else {
            let why = self.why_none_begins();
            self.refuse(conn, 503, why, output);
            return None;
        };
        let link = std::mem::replace(self.link(conn), Link::Stream(session));
        if let Link::Http(http) = link {
            self.rest_forget(conn, &http);
        }
        self.identify(now, session, (*identity).clone(), output);
        Some(session)
    }

    /// An operator wants to see everything of a namespace, again and again.
    fn rest_watch(&mut self, now: Now, asking: Asking, output: &mut Output) {
        let (conn, namespace) = (asking.conn, asking.namespace.clone());
        if !self.may_watch() {
            return self.refuse(conn, 503, "too many watch already", output);
        }
        let Some(session) = self.open_stream(now, asking, Path::ROOT, None, output) else { return };
        self.stream_word(session, &Word::Outcome { number: LISTEN, outcome: &Outcome::Done }, output);
        self.begin_watching(now, session, namespace);
    }

    /// Whether a stream's client has taken everything that it was told.
    pub(super) fn has_taken_all(&self, session: SessionRef) -> bool {
        match self.sessions.get(session).map(|state| &state.channel) {
            Some(Channel::Stream(stream)) => stream.backlog_bytes == 0,
            _ => false,
        }
    }

    /// Long answers and bodies that are under way.
    pub(super) fn long_answers_count(&self) -> usize {
        self.desk.sending.len() + self.desk.reading.len()
    }

    /// An operator asks for something of the server itself.
    fn rest_look(&mut self, now: Now, asking: Asking, look: Look, output: &mut Output) {
        let namespace = asking.namespace.clone();
        if look == Look::Figures {
            let task = Task::Look { namespace, look };
            return self.rest_survey(now, asking.conn, &task, None, asking.style, output);
        }
        let Some(target) = self.look_target(&namespace, &look) else {
            let reply = Reply::refused(&Refusal::NoSession);
            return self.rest_reply(now, asking.conn, reply, &asking.style, output);
        };
        let Some((asker, number)) = self.rest_wait(now, asking, Answering::Done, output) else { return };
        let task = Task::Look { namespace, look };
        self.send(target, Message::Manage(Box::new(Manage { asker, number, task })), output);
    }

    /// An operator asks what the rules would say.
    fn rest_try(&mut self, now: Now, asking: Asking, mut body: Vec<u8>, output: &mut Output) {
        let read = rest::read_trial(&mut body, &mut self.reader).and_then(|trial| {
            let rules = trial.rules.as_ref().map(|text| read_rules(text.as_bytes(), self.config.dialect));
            Ok((rules.transpose()?, trial))
        });
        let (rules, trial) = match read {
            Ok(read) => read,
            Err(reply) => return self.rest_reply(now, asking.conn, reply, &asking.style, output),
        };
        let identity = Arc::new(Identity { auth: trial.auth, ..Identity::NOBODY });
        let trial = trial.write.map_or(Trial::Read(trial.path), Trial::Write);
        let task = Task::Try { namespace: asking.namespace.clone(), rules, identity, trial };
        self.rest_manage(now, asking, task, output);
    }

    /// Asks for what a stream is to tell.
    pub(super) fn stream_listen(&mut self, session: SessionRef, output: &mut Output) {
        let Some(Channel::Stream(stream)) = self.sessions.get_mut(session).map(|state| &mut state.channel) else {
            return;
        };
        let request = stream.waiting.take().expect("a stream asks once");
        self.forward(session, LISTEN, request, output);
    }

    /// What a stream, or somebody who speaks of it, is to be told.
    pub(super) fn stream_word(&mut self, session: SessionRef, word: &Word<'_>, output: &mut Output) {
        let Some(Channel::Stream(stream)) = self.sessions.get_mut(session).map(|state| &mut state.channel) else {
            return;
        };
        let conn = stream.conn;
        match word {
            Word::Outcome { number: LISTEN, outcome: Outcome::Refused(refusal) } => {
                let reply = Reply::refused(refusal);
                self.send_bytes(conn, output, |out| {
                    let rest = Sending::begin(out, reply, &Style { is_1_1: true, ..Style::default() }, false);
                    assert!(rest.is_none(), "an error is short");
                });
                self.desk.over.push_back(session);
            }
            Word::Outcome { number: LISTEN, outcome: Outcome::Done } => {
                stream.is_started = true;
                let id = self.sessions.id(session).expect("the session is there").to_string();
                self.send_bytes(conn, output, |out| rest::write_stream_head(out, &id));
            }
            Word::Outcome { number, outcome } => {
                if stream.promised.front().is_some_and(|promise| promise.number == *number)
                    && let Some(Promise { asker, asker_number, .. }) = stream.promised.pop_front()
                {
                    let answer = Message::Answer { session: asker, number: asker_number, outcome: (*outcome).clone() };
                    self.send(asker.home, answer, output);
                }
            }
            Word::CredentialRevoked(_) => self.send_bytes(conn, output, rest::write_revoked_credential),
            Word::SignedIn { .. } | Word::SignedOut { .. } | Word::Echo { .. } | Word::Pong => {}
        }
    }

    /// Somebody leaves, or cancels, last words of a stream that lives here.
    pub(super) fn leave_with_stream(&mut self, leave: Leave, output: &mut Output) {
        let Leave { stream, namespace, asker, number, what } = leave;
        let found = self.find(&stream, &namespace);
        let state = found.and_then(|session| Some((session, self.sessions.get_mut(session)?)));
        let Some((session, Channel::Stream(stream))) = state.map(|(session, state)| (session, &mut state.channel))
        else {
            let outcome = Outcome::Refused(Refusal::NoSession);
            return self.send(asker.home, Message::Answer { session: asker, number, outcome }, output);
        };
        stream.number += 1;
        let own = stream.number;
        stream.promised.push_back(Promise { number: own, asker, asker_number: number });
        match what {
            Leaving::Word { write, bytes } => {
                self.forward(session, own, Request::MayWrite { write, bytes }, output);
            }
            Leaving::Cancel { path } => self.cancel_last_words(session, own, &path, output),
        }
    }

    /// A stream is over: nobody waits for it any more.
    pub(super) fn stream_over(&mut self, stream: Stream, output: &mut Output) {
        for Promise { asker, asker_number, .. } in stream.promised {
            let outcome = Outcome::Refused(Refusal::NoSession);
            self.send(asker.home, Message::Answer { session: asker, number: asker_number, outcome }, output);
        }
        self.close(stream.conn, output);
    }

    /// Shows a stream's client, and whatever is in between, that it still runs.
    pub(super) fn keep_stream_alive(&mut self, now: Now, session: SessionRef, output: &mut Output) {
        let Some(state) = self.sessions.get_mut(session) else { return };
        let Channel::Stream(stream) = &state.channel else { return };
        let (conn, is_started, is_taken) = (stream.conn, stream.is_started, stream.backlog_bytes == 0);
        if is_taken {
            // A stream's client never speaks: that it takes what it is told is its sign of life.
            state.heard(now.instant);
        }
        if is_started {
            self.send_bytes(conn, output, rest::write_keep_alive);
        }
    }

    /// Tells a stream what has happened. `shared` is the text for streams at the same place, where it
    /// stands in the output.
    pub(super) fn tell_stream(
        &mut self,
        session: SessionRef,
        told: &Told,
        shared: &mut Option<(Path, std::ops::Range<usize>)>,
        output: &mut Output,
    ) {
        let id = self.sessions.id(session);
        let Some(Channel::Stream(stream)) = self.sessions.get_mut(session).map(|state| &mut state.channel) else {
            return;
        };
        let conn = stream.conn;
        let text = StreamText { event: &told.event, base: &stream.path };
        let range = match shared {
            Some((base, range)) if stream.is_started && *base == stream.path => range.clone(),
            _ => {
                let from = output.bytes.len();
                if stream.is_started {
                    text.write(&mut output.bytes, None);
                    *shared = Some((stream.path.clone(), from..output.bytes.len()));
                } else {
                    let id = id.expect("the session is there").to_string();
                    rest::write_stream_head(&mut output.bytes, &id);
                    text.write(&mut output.bytes, Some(&id));
                    stream.is_started = true;
                }
                from..output.bytes.len()
            }
        };
        output.effects.push(Effect::Send { conn, bytes: range });
        if matches!(told.event, Event::Revoked { .. }) {
            self.desk.over.push_back(session);
        }
    }
}

/// A credential that was believed.
#[derive(Debug)]
struct Believed {
    credential: String,
    identity: Arc<Identity>,
    /// Whoever is asked next may think otherwise.
    by: Arc<Verifier>,
}

impl Believed {
    fn holds(&self, credential: &str, verifier: &Arc<Verifier>, now_s: u64) -> bool {
        let is_fresh = self.identity.expires_s.is_none_or(|expires_s| expires_s > now_s);
        is_fresh && self.credential == credential && Arc::ptr_eq(&self.by, verifier)
    }
}

/// Who asks, of which database, and how the answer is wanted.
#[derive(Debug)]
struct Asking {
    conn: ConnId,
    namespace: Namespace,
    identity: Arc<Identity>,
    style: Style,
}

/// Reads rules that somebody sends.
fn read_rules(text: &[u8], dialect: Dialect) -> Result<Arc<Ruleset>, Reply> {
    let text = std::str::from_utf8(text).map_err(|_| Reply::bad("the rules are not UTF-8"))?;
    Ruleset::parse(text, dialect).map(Arc::new).map_err(|bad| Reply::bad(&bad.to_string()))
}

#[cfg(test)]
mod tests;
