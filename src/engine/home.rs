//! The home's half: sessions, from the first word to the last.

use std::collections::VecDeque;
use std::sync::Arc;

use rand_core::RngCore as _;

use super::poll::Poll;
use super::{Effect, Engine, LateLastWords, Message, Notice, Output, Over, Settings};
use crate::base::limits::{REQUESTS_IN_FLIGHT_MAX, TICK};
use crate::base::{ConnId, Instant, Now, SessionId, SessionRef, ShardId};
use crate::data::Path;
use crate::op::{End, Identity, Namespace, Outcome, Refusal, Request, Write};
use crate::presence::Ledger;
use crate::session::Full;
use crate::wire::firebase::{self, Action, Credential, Incoming};
use crate::wire::ws;

/// A client that we believe in.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) channel: Channel,
    pub(super) namespace: Namespace,
    pub(super) identity: Arc<Identity>,
    settings: Arc<Settings>,
    /// Its last words.
    ledger: Ledger,
    /// When the last byte of it arrived.
    heard: Instant,
    /// When its wheel entry that counts is due.
    next_look: Instant,
    /// When it was last asked for a sign of life.
    pinged: Instant,
    /// Requests sent to the owner, ever (wrapping).
    asked: u32,
    /// Answers from the owner, ever (wrapping).
    answered: u32,
    /// Answers made at home, each to be sent once `answered` has come to its number: a client's
    /// requests are answered in the order in which it made them.
    later: VecDeque<(u32, Vec<u8>)>,
    /// An earlier session of this client has not yet settled: nothing of this one takes effect.
    pub(super) is_waiting: bool,
    /// Its connection is not read from, because it asks faster than it is answered.
    is_paused: bool,
}

/// How a session's client is reached.
#[derive(Debug)]
pub(super) enum Channel {
    /// A WebSocket.
    Socket(ConnId),
    /// Long polling.
    Poll(Box<Poll>),
}

impl Session {
    pub(super) fn asked(&mut self) {
        self.asked = self.asked.wrapping_add(1);
    }

    const fn in_flight(&self) -> u32 {
        self.asked.wrapping_sub(self.answered)
    }

    fn deadline(&self) -> Instant {
        self.heard + self.settings.session_timeout
    }

    /// When it has to be looked at next: to ask for a sign of life, or to end it.
    fn next_duty(&self) -> Instant {
        let ping = self.heard.max(self.pinged) + self.settings.heartbeat;
        let expiry = self.identity.expires_s;
        let _ = expiry;
        ping.min(self.deadline())
    }
}

impl Engine {
    /// Opens a session; its client hears nothing yet.
    pub(super) fn open_session(
        &mut self,
        now: Now,
        channel: Channel,
        namespace: Namespace,
    ) -> Result<(SessionRef, SessionId), Full> {
        let secret = u128::from(self.rng.next_u64()) << 64 | u128::from(self.rng.next_u64());
        let settings = self.config.namespaces.get(&*namespace).unwrap_or(&self.config.settings).clone();
        let mut session = Session {
            channel,
            namespace,
            identity: Arc::new(Identity::NOBODY),
            settings,
            ledger: Ledger::default(),
            heard: now.instant,
            next_look: now.instant,
            pinged: now.instant,
            asked: 0,
            answered: 0,
            later: VecDeque::new(),
            is_waiting: false,
            is_paused: false,
        };
        let look = session.next_duty();
        session.next_look = look;
        let id = self.sessions.open(secret, session)?;
        self.session_wheel.arm(id.slot, look);
        let session = SessionRef { home: id.home, slot: id.slot, generation: id.generation };
        Ok((session, id))
    }

    /// A client says which session it replaces. That one's last words take effect before anything
    /// that this one asks for.
    pub(super) fn replace_session(&mut self, now: Now, new: SessionRef, old: &str, output: &mut Output) {
        let Some(old) = SessionId::parse(old).filter(|old| old.home.0 < self.config.shards) else { return };
        let Some(session) = self.sessions.get_mut(new) else { return };
        let namespace = session.namespace.clone();
        if old.home == self.config.shard {
            // Its last words and this session's requests go to the owner by the same queue.
            if let Some(old) = self.find(&old, &namespace) {
                self.end(now, old, End::Superseded, None, output);
            }
            return;
        }
        session.is_waiting = true;
        self.pause(new, output);
        self.send(old.home, Message::Supersede { old, new, namespace }, output);
    }

    /// Another engine has a new session of a client whose old one may be here.
    pub(super) fn supersede(
        &mut self,
        now: Now,
        old: &SessionId,
        new: SessionRef,
        namespace: &Namespace,
        output: &mut Output,
    ) {
        match self.find(old, namespace) {
            Some(old) => self.end(now, old, End::Superseded, Some(new), output),
            None => self.send(new.home, Message::Settled { session: new }, output),
        }
    }

    fn find(&self, id: &SessionId, namespace: &Namespace) -> Option<SessionRef> {
        let session = self.sessions.find(id)?;
        let is_of_namespace = self.sessions.get(session).is_some_and(|state| state.namespace == *namespace);
        is_of_namespace.then_some(session)
    }

    /// What a new session waited for has taken effect.
    pub(super) fn go_on(&mut self, now: Now, session: SessionRef, output: &mut Output) {
        let Some(state) = self.sessions.get_mut(session) else { return };
        assert!(state.is_waiting, "a session is settled once");
        state.is_waiting = false;
        if let Channel::Socket(conn) = state.channel {
            self.unpause_if_calm(session, output);
            self.received_while_waiting(now, conn, output);
        } else {
            self.polled_while_waiting(now, session, output);
        }
    }

    /// One message of a client.
    pub(super) fn act(&mut self, now: Now, session: SessionRef, incoming: Incoming, output: &mut Output) {
        match incoming {
            Incoming::Ping => self.say(session, output, |text| firebase::pong(text)),
            Incoming::Control => {}
            Incoming::Malformed { request: Some(number), refusal } => {
                self.answer_here(session, output, |text| firebase::refused(text, number, &refusal));
            }
            Incoming::Malformed { request: None, refusal } => {
                self.violation(now, session, "a message that is no request", &refusal, output);
            }
            Incoming::Data { request: number, action } => self.request(now, session, number, action, output),
        }
    }

    fn request(&mut self, now: Now, session: SessionRef, number: i64, action: Action, output: &mut Output) {
        match action {
            Action::Ask(request) => self.forward(session, number, request, output),
            Action::OnDisconnect { write, bytes } => self.leave_last_word(session, number, write, bytes, output),
            Action::CancelOnDisconnect(path) => self.cancel_last_words(session, number, &path, output),
            Action::Auth(credential) => self.sign_in(now, session, number, &credential, output),
            Action::Unauth => {
                self.identify(session, Identity::NOBODY, output);
                self.answer_here(session, output, |text| firebase::unauthenticated(text, number));
            }
            Action::Stats | Action::AppCheck | Action::UnAppCheck => {
                self.answer_here(session, output, |text| firebase::done(text, number));
            }
            Action::Echo(json) => self.answer_here(session, output, |text| firebase::echo(text, number, &json)),
            Action::Unknown => {
                let refusal = Refusal::UnknownAction;
                self.answer_here(session, output, |text| firebase::refused(text, number, &refusal));
            }
        }
    }

    fn leave_last_word(&mut self, session: SessionRef, number: i64, write: Write, bytes: usize, output: &mut Output) {
        let Some(state) = self.sessions.get(session) else { return };
        if state.ledger.has_room_for(&write, bytes) {
            self.forward(session, number, Request::MayWrite { write, bytes }, output);
        } else {
            let refusal = Refusal::Limit("too many onDisconnect operations");
            self.answer_here(session, output, |text| firebase::refused(text, number, &refusal));
        }
    }

    /// The owner allows a last word: now it is left.
    fn last_word_allowed(&mut self, session: SessionRef, number: i64, write: Write, bytes: usize, output: &mut Output) {
        let Some(state) = self.sessions.get_mut(session) else { return };
        let mut paths = Vec::new();
        write.for_each_path(|path| paths.push(path.clone()));
        let namespace = state.namespace.clone();
        match state.ledger.register(write, bytes) {
            Ok(replaced) => {
                self.release(namespace, replaced, output);
                self.say(session, output, |text| firebase::done(text, number));
            }
            // Others were on their way when this one was found to fit.
            Err(_) => {
                self.release(namespace, paths, output);
                let refusal = Refusal::Limit("too many onDisconnect operations");
                self.say(session, output, |text| firebase::refused(text, number, &refusal));
            }
        }
    }

    fn cancel_last_words(&mut self, session: SessionRef, number: i64, path: &Path, output: &mut Output) {
        let Some(state) = self.sessions.get_mut(session) else { return };
        // Ones that are still being asked about were left before: they must be there to be cancelled.
        if state.in_flight() > 0 {
            self.forward(session, number, Request::Cancel { path: path.clone() }, output);
            return;
        }
        let namespace = state.namespace.clone();
        let cancelled = state.ledger.cancel(path);
        self.release(namespace, cancelled, output);
        self.say(session, output, |text| firebase::done(text, number));
    }

    fn release(&mut self, namespace: Namespace, paths: Vec<Path>, output: &mut Output) {
        if !paths.is_empty() {
            let owner = self.owner(&namespace);
            self.send(owner, Message::Release { namespace, paths }, output);
        }
    }

    fn sign_in(&mut self, now: Now, session: SessionRef, number: i64, credential: &Credential, output: &mut Output) {
        let verified = self.config.verifier.verify(&credential.token, now.wall.0 / 1_000);
        let identity = verified.and_then(|identity| credential.apply(identity));
        match identity {
            Ok(identity) => {
                self.answer_here(session, output, |text| firebase::authenticated(text, number, &identity));
                self.identify(session, identity, output);
            }
            Err(bad) => {
                let refusal = Refusal::Credential(bad);
                self.answer_here(session, output, |text| firebase::refused(text, number, &refusal));
            }
        }
    }

    /// From here on the session is somebody else.
    pub(super) fn identify(&mut self, session: SessionRef, identity: Identity, output: &mut Output) {
        let Some(state) = self.sessions.get_mut(session) else { return };
        if *state.identity != identity {
            state.identity = Arc::new(identity);
            self.introduce(session, output);
        }
    }

    /// Tells the owner who a session is, so that it takes away the listens that are no longer allowed.
    fn introduce(&mut self, session: SessionRef, output: &mut Output) {
        let Some(state) = self.sessions.get(session) else { return };
        let (namespace, identity) = (state.namespace.clone(), state.identity.clone());
        let owner = self.owner(&namespace);
        self.send(owner, Message::Identify { session, namespace, identity }, output);
    }

    /// Tells `owner` who all its sessions are.
    pub(super) fn introduce_all(&mut self, owner: ShardId, output: &mut Output) {
        let sessions: Vec<_> = self.sessions.iter().map(|(session, state)| (session, state.namespace.clone())).collect();
        for (session, namespace) in sessions {
            if self.owner(&namespace) == owner {
                self.introduce(session, output);
            }
        }
    }

    /// The owner's answer to a request.
    pub(super) fn answered(&mut self, session: SessionRef, number: i64, outcome: Outcome, output: &mut Output) {
        if self.sessions.get(session).is_none() {
            // The session ended meanwhile. A last word that was allowed too late was never left.
            if let Outcome::Allowed { write, .. } = outcome {
                self.release_orphan(session, &write, output);
            }
            return;
        }
        match outcome {
            Outcome::Done => self.say(session, output, |text| firebase::done(text, number)),
            Outcome::Value(node) => self.say(session, output, |text| firebase::value(text, number, &node)),
            Outcome::Listening { is_unindexed } => {
                self.say(session, output, |text| firebase::listening(text, number, is_unindexed));
            }
            Outcome::Allowed { write, bytes } => self.last_word_allowed(session, number, write, bytes, output),
            Outcome::Cancel { path } => {
                let Some(state) = self.sessions.get_mut(session) else { return };
                let namespace = state.namespace.clone();
                let cancelled = state.ledger.cancel(&path);
                self.release(namespace, cancelled, output);
                self.say(session, output, |text| firebase::done(text, number));
            }
            Outcome::Refused(refusal) => self.say(session, output, |text| firebase::refused(text, number, &refusal)),
        }
        self.count_answer(session, output);
    }

    fn count_answer(&mut self, session: SessionRef, output: &mut Output) {
        let Some(state) = self.sessions.get_mut(session) else { return };
        state.answered = state.answered.wrapping_add(1);
        while let Some(state) = self.sessions.get_mut(session)
            && state.later.front().is_some_and(|(after, _)| *after == state.answered)
            && let Some((_, text)) = state.later.pop_front()
        {
            self.say(session, output, |out| out.extend_from_slice(&text));
        }
        self.unpause_if_calm(session, output);
    }

    /// Answers without asking the owner, but not before what was asked earlier is answered.
    fn answer_here(&mut self, session: SessionRef, output: &mut Output, write: impl FnOnce(&mut Vec<u8>)) {
        let Some(state) = self.sessions.get_mut(session) else { return };
        if state.in_flight() == 0 {
            self.say(session, output, write);
            return;
        }
        let mut text = Vec::new();
        write(&mut text);
        state.later.push_back((state.asked, text));
    }

    /// Stops reading from a session's connection where too much of it is unanswered.
    pub(super) fn pause_if_hasty(&mut self, session: SessionRef, output: &mut Output) {
        let Some(state) = self.sessions.get(session) else { return };
        let later = u32::try_from(state.later.len()).unwrap_or(u32::MAX);
        if state.in_flight().saturating_add(later) >= REQUESTS_IN_FLIGHT_MAX {
            self.pause(session, output);
        }
    }

    fn pause(&mut self, session: SessionRef, output: &mut Output) {
        let Some(state) = self.sessions.get_mut(session) else { return };
        if !state.is_paused
            && let Channel::Socket(conn) = state.channel
        {
            state.is_paused = true;
            output.effects.push(Effect::Read { conn, is_wanted: false });
        }
    }

    fn unpause_if_calm(&mut self, session: SessionRef, output: &mut Output) {
        let Some(state) = self.sessions.get_mut(session) else { return };
        let is_calm = !state.is_waiting && state.in_flight() < REQUESTS_IN_FLIGHT_MAX / 2;
        if state.is_paused
            && is_calm
            && let Channel::Socket(conn) = state.channel
        {
            state.is_paused = false;
            output.effects.push(Effect::Read { conn, is_wanted: true });
        }
    }

    /// Something of the session arrived.
    pub(super) fn heard(&mut self, now: Now, session: SessionRef) {
        if let Some(state) = self.sessions.get_mut(session) {
            state.heard = now.instant;
        }
    }

    /// The wheel says that a session may have something to do.
    pub(super) fn look_at_session(&mut self, now: Now, slot: u32, output: &mut Output) {
        let Some(session) = self.sessions.at_slot(slot) else { return };
        let state = self.sessions.get_mut(session).expect("at_slot names a living session");
        if now.instant < state.next_look {
            return;
        }
        // Paused is our doing: the client may well have spoken.
        if now.instant >= state.deadline() && !state.is_paused {
            self.end(now, session, End::TimedOut, None, output);
            return;
        }
        let is_ping_due = now.instant >= state.heard.max(state.pinged) + state.settings.heartbeat;
        if is_ping_due {
            state.pinged = now.instant;
        }
        state.next_look = state.next_duty().max(now.instant + TICK);
        let look = state.next_look;
        if is_ping_due && let Channel::Socket(conn) = state.channel {
            self.send_bytes(conn, output, |bytes| ws::write(bytes, ws::Kind::Ping, b""));
        }
        self.session_wheel.arm(slot, look);
    }

    /// Ends a session: its client is sent away, its last words go to their owner. Does nothing for a
    /// session that is already over.
    pub(super) fn end(
        &mut self,
        now: Now,
        session: SessionRef,
        end: End,
        waiting: Option<SessionRef>,
        output: &mut Output,
    ) {
        let Some(state) = self.sessions.close(session) else {
            if let Some(waiting) = waiting {
                self.send(waiting.home, Message::Settled { session: waiting }, output);
            }
            return;
        };
        let Session { channel, namespace, identity, settings, mut ledger, heard, .. } = state;
        output.effects.push(Effect::Notice(Notice::Ended {
            end,
            silent: now.instant.since(heard),
            last_words: ledger.len(),
        }));
        match channel {
            Channel::Socket(conn) => self.send_away(conn, end, output),
            Channel::Poll(poll) => self.end_poll(*poll, output),
        }
        let is_yielding = end.is_silent() && settings.late_last_words == LateLastWords::Yield;
        let owner = self.owner(&namespace);
        let words = ledger.take();
        let over = Over { session, namespace, identity, words, end, heard, is_yielding, waiting };
        self.send(owner, Message::Over(Box::new(over)), output);
    }

    /// Ends up to `count_max` sessions because the server stops.
    pub(super) fn end_some_sessions(&mut self, now: Now, count_max: usize, output: &mut Output) {
        let some: Vec<_> = self.sessions.iter().map(|(session, _)| session).take(count_max).collect();
        for session in some {
            self.end(now, session, End::ServerStopped, None, output);
        }
    }

    /// A last word was allowed for a session that is over.
    fn release_orphan(&mut self, session: SessionRef, write: &Write, output: &mut Output) {
        let _ = (session, write, output);
    }
}
