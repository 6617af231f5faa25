//! The home's half: sessions, from the first word to the last.

use std::sync::Arc;

use rand_core::RngCore as _;

use super::device::Device;
use super::engineio::EngineIo;
use super::guest::Guest;
use super::poll::Polled;
use super::rest::Stream;
use super::ways::{Ways, place};
use super::{Effect, Engine, LateLastWords, Message, Notice, Output, Over, Settings};
use crate::base::limits::{REQUESTS_IN_FLIGHT_MAX, TICK};
use crate::base::{ConnId, Few, Instant, Millis, Now, SessionId, SessionRef, ShardId};
use crate::data::{Key, KeyStr, Path};
use crate::op::{BadCredential, End, Identity, Namespace, Outcome, Protocol, Refusal, Request, Word};
use crate::session;
use crate::wire::firebase::{Action, Control, Incoming};
use crate::wire::ws;

/// A client that we believe in.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) channel: Channel,
    pub(super) namespace: Namespace,
    pub(super) identity: Arc<Identity>,
    /// When the identity runs out; [`Instant::NEVER`] if it does not.
    expires: Instant,
    pub(super) settings: Arc<Settings>,
    /// How its client speaks with us.
    pub(super) protocol: Protocol,
    /// When it began.
    pub(super) opened: Instant,
    /// When the last byte of it arrived.
    pub(super) heard: Instant,
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
    later: Few<(u32, Later)>,
    /// An earlier session of this client has not yet settled: nothing of this one takes effect, not
    /// even its end.
    pub(super) is_waiting: bool,
    /// It has ended while it was waiting.
    parting: Option<Box<Parting>>,
    /// Where its requests have gone, if its database may be spread.
    pub(super) ways: Option<Box<Ways>>,
    /// Its connection is not read from, because it asks faster than it is answered.
    is_paused: bool,
    /// It is on the engine's list of those that have something to say or to hear.
    is_stirred: bool,
}

const _: () = assert!(size_of::<Session>() <= 128, "there may be a million");

/// The end of a session that has to wait for that of an earlier one: who comes after both must not
/// overtake the earlier one's last words.
#[derive(Debug)]
struct Parting {
    end: End,
    /// The keys made for last words that add a child.
    made: Vec<(Path, Path)>,
    /// Those that replace it. They wait for this one to be over.
    successors: Vec<SessionRef>,
}

/// How a session's client is reached.
#[derive(Debug)]
pub(super) enum Channel {
    /// Not any more.
    Gone,
    /// A WebSocket.
    Socket(ConnId),
    /// The Firebase protocol's requests, which come and go.
    Poll(Box<Polled>),
    /// Plain requests, one at a time.
    Rest(ConnId),
    /// A response that does not end.
    Stream(Box<Stream>),
    /// Engine.IO's requests, or its WebSocket.
    EngineIo(Box<EngineIo>),
    /// Datagrams.
    Device(Box<Device>),
    /// The program that the server runs within.
    Guest(Box<Guest>),
}

impl Channel {
    /// The connection over which something came last: for logs.
    pub(super) fn last_conn(&self) -> Option<ConnId> {
        match self {
            Self::Gone | Self::Device(_) | Self::Guest(_) => None,
            Self::Socket(conn) | Self::Rest(conn) => Some(*conn),
            Self::Poll(polled) => Some(polled.last),
            Self::EngineIo(channel) => Some(channel.last()),
            Self::Stream(stream) => Some(stream.conn),
        }
    }
}

/// A [`Word`] that is kept for a while.
#[derive(Debug)]
enum Later {
    Outcome { number: i64, outcome: Outcome },
    SignedIn { number: i64, identity: Identity },
    SignedOut { number: i64 },
    Echo { number: i64, json: String },
}

impl Later {
    fn as_word(&self) -> Word<'_> {
        match self {
            Self::Outcome { number, outcome } => Word::Outcome { number: *number, outcome },
            Self::SignedIn { number, identity } => Word::SignedIn { number: *number, identity },
            Self::SignedOut { number } => Word::SignedOut { number: *number },
            Self::Echo { number, json } => Word::Echo { number: *number, json },
        }
    }
}

impl Session {
    pub(super) fn asked(&mut self) {
        self.asked = self.asked.wrapping_add(1);
    }

    /// Something of it arrived.
    pub(super) const fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// Whether it goes on although the server stops.
    pub(super) fn is_kept(&self) -> bool {
        matches!(&self.channel, Channel::Device(device) if device.is_kept())
    }

    const fn in_flight(&self) -> u32 {
        self.asked.wrapping_sub(self.answered)
    }

    /// Whether it has something to do before it can end.
    fn has_more_to_do(&self) -> bool {
        self.ways.as_ref().is_some_and(|ways| ways.is_waiting())
    }

    fn is_expired(&self, now: Now) -> bool {
        now.instant >= self.expires
    }

    /// Whether what the client says now has to wait.
    pub(super) const fn is_held_back(&self) -> bool {
        self.is_waiting || self.is_paused
    }

    /// Takes back signs of life of a stream: that the kernel took what it was told is none if nobody
    /// acknowledged it.
    pub(super) fn was_silent(&mut self, now: Instant) {
        self.heard = self.heard.min(now - self.settings.session_timeout);
    }

    fn deadline(&self) -> Instant {
        let timeout = match &self.channel {
            Channel::Device(device) => device.patience(self.settings.coap_session_timeout),
            Channel::Guest(guest) => guest.patience(self.settings.session_timeout),
            _ => self.settings.session_timeout,
        };
        self.heard + timeout
    }

    /// When it has to be looked at next: to ask for a sign of life, or to end it.
    fn next_duty(&self) -> Instant {
        let ping = self.heard.max(self.pinged) + self.settings.heartbeat;
        let duty = match &self.channel {
            Channel::Device(device) => {
                let due = device.next_due(self.heard, self.settings.coap_session_timeout);
                due.map_or(self.deadline(), |due| due.min(self.deadline()))
            }
            // Only its program knows how to ask.
            Channel::Guest(_) => self.deadline(),
            _ => ping.min(self.deadline()),
        };
        let expires = duty.min(self.expires);
        match &self.channel {
            Channel::EngineIo(packets) => packets.mute_until().map_or(expires, |until| expires.min(until)),
            _ => expires,
        }
    }
}

impl Engine {
    /// Opens a session; its client hears nothing yet. A server that is stopping has no room.
    pub(super) fn open_session(
        &mut self,
        now: Now,
        channel: Channel,
        namespace: Namespace,
    ) -> Result<(SessionRef, SessionId), session::Full> {
        if !self.lets_begin(&channel) {
            return Err(session::Full);
        }
        let namespace = self.shared(namespace);
        let secret = u128::from(self.rng.next_u64()) << 64 | u128::from(self.rng.next_u64());
        let settings = self.config.namespaces.get(&*namespace).unwrap_or(&self.config.settings).clone();
        let settings = self.settings_for(&channel, settings);
        let protocol = Self::protocol_of(&channel);
        if protocol != Protocol::Rest && !self.warden.session_comes(&namespace) {
            self.meters.unwelcome += 1;
            return Err(session::Full);
        }
        let session = Session {
            channel,
            namespace,
            identity: Arc::clone(&self.nobody),
            expires: Instant::NEVER,
            settings,
            protocol,
            opened: now.instant,
            heard: now.instant,
            next_look: now.instant,
            pinged: now.instant,
            asked: 0,
            answered: 0,
            later: Few::new(),
            is_waiting: false,
            parting: None,
            ways: None,
            is_paused: false,
            is_stirred: false,
        };
        let (duty, full_namespace) = (session.next_duty(), session.namespace.clone());
        let session = match self.sessions.open(secret, session) {
            Ok(session) => session,
            Err(session::Full) => {
                if protocol != Protocol::Rest {
                    self.warden.session_goes(&full_namespace);
                }
                return Err(session::Full);
            }
        };
        self.meters.sessions[protocol as usize] += 1;
        self.meters.sessions_opened[protocol as usize] += 1;
        self.looks.began(protocol);
        let look = self.session_wheel.arm(session.slot, duty);
        self.sessions.get_mut(session).expect("it was opened just now").next_look = look;
        let id = self.sessions.id(session).expect("it was opened just now");
        Ok((session, id))
    }

    /// The same name, as the sessions before hold it: a million need not have a copy each.
    fn shared(&mut self, namespace: Namespace) -> Namespace {
        let count = self.namespaces.len() as u64;
        let index = usize::try_from(self.hashing.hash_one(&*namespace) % count).expect("it is below a length");
        match &self.namespaces[index] {
            Some(known) if *known == namespace => known.clone(),
            _ => self.namespaces[index].insert(namespace).clone(),
        }
    }

    /// A client says which session it replaces. That one's last words take effect before anything
    /// that this one asks for.
    pub(super) fn replace_session(&mut self, now: Now, new: SessionRef, old: SessionId, output: &mut Output) {
        let Some(session) = self.sessions.get(new) else { return };
        let namespace = session.namespace.clone();
        if old.home.0 >= self.config.shards {
            return self.claim(old, &namespace, output);
        }
        if old.home != self.config.shard {
            self.wait(new, output);
            self.send(old.home, Message::Supersede { old, new, namespace }, output);
            return;
        }
        let name = old;
        let Some(old) = self.find(&old, &namespace) else {
            if self.follow_departing(&name, new) {
                self.wait(new, output);
            }
            return self.claim(old, &namespace, output);
        };
        self.end(now, old, End::Superseded, output);
        // Its last words and this session's requests go to the owner by the same queue, unless it is
        // itself waiting for somebody, or there are several owners.
        if self.follow(old, new) || self.follow_departing(&name, new) {
            self.wait(new, output);
        }
    }

    fn wait(&mut self, session: SessionRef, output: &mut Output) {
        if let Some(state) = self.sessions.get_mut(session) {
            state.is_waiting = true;
        }
        self.pause(session, output);
    }

    /// Has `new` wait for `old`, if that one's end has to wait.
    fn follow(&mut self, old: SessionRef, new: SessionRef) -> bool {
        let parting = self.sessions.get_mut(old).and_then(|state| state.parting.as_mut());
        parting.map(|parting| parting.successors.push(new)).is_some()
    }

    /// Another engine has a new session of a client whose old one may be here.
    pub(super) fn supersede(
        &mut self,
        now: Now,
        old: SessionId,
        new: SessionRef,
        namespace: &Namespace,
        output: &mut Output,
    ) {
        let name = old;
        if let Some(old) = self.find(&old, namespace) {
            self.end(now, old, End::Superseded, output);
            if self.follow(old, new) {
                return;
            }
        } else {
            self.claim(old, namespace, output);
        }
        if self.follow_departing(&name, new) {
            return;
        }
        if self.may_be_spread() {
            // Whoever is not departing has departed.
            return self.send(new.home, Message::Settled { session: new }, output);
        }
        // By way of the owner, and also if it is gone: its last words may be on their way there.
        let owner = self.owner(namespace);
        self.send(owner, Message::Settle { session: new }, output);
    }

    pub(super) fn find(&self, id: &SessionId, namespace: &Namespace) -> Option<SessionRef> {
        let session = self.sessions.find(id)?;
        let is_of_namespace = self.sessions.get(session).is_some_and(|state| state.namespace == *namespace);
        is_of_namespace.then_some(session)
    }

    /// What a new session waited for has taken effect.
    pub(super) fn go_on(&mut self, now: Now, session: SessionRef, output: &mut Output) {
        let Some(state) = self.sessions.get_mut(session) else { return };
        assert!(state.is_waiting, "a session is settled once");
        state.is_waiting = false;
        if let Some(parting) = state.parting.take() {
            return self.part_for_good(now, session, *parting, output);
        }
        let (socket, is_stream) = match state.channel {
            Channel::Socket(conn) => (Some(conn), false),
            Channel::Stream(_) => (None, true),
            Channel::Poll(_)
            | Channel::EngineIo(_)
            | Channel::Rest(_)
            | Channel::Device(_)
            | Channel::Guest(_)
            | Channel::Gone => (None, false),
        };
        self.unpause_if_calm(session, output);
        self.guest_goes_on(now, session, output);
        if is_stream {
            self.stream_listen(session, output);
        }
        if let Some(conn) = socket {
            self.received_while_waiting(now, conn, output);
        }
    }

    /// A session that had to wait with its end need not any longer.
    fn part_for_good(&mut self, now: Now, session: SessionRef, parting: Parting, output: &mut Output) {
        let Parting { end, made, successors } = parting;
        let Some(state) = self.sessions.get(session) else { return };
        if state.has_more_to_do() {
            let state = self.sessions.get_mut(session).expect("it is there");
            state.parting = Some(Box::new(Parting { end, made, successors }));
            return;
        }
        let namespace = state.namespace.clone();
        self.end_for_good(now, session, end, Some(made), output);
        if let Some(departing) = self.departing.get_mut(&place(session)) {
            departing.followers.extend(successors);
            return;
        }
        let owner = self.owner(&namespace);
        for session in successors {
            self.send(owner, Message::Settle { session }, output);
        }
    }

    /// One message of a client, of so many bytes.
    pub(super) fn act(&mut self, now: Now, session: SessionRef, incoming: Incoming, bytes: usize, output: &mut Output) {
        match incoming {
            Incoming::Control(Control::Ping) => self.say(session, &Word::Pong, output),
            Incoming::Control(_) | Incoming::Unknown => {}
            Incoming::Refused { number, refusal } => {
                self.answer_here(session, number, Outcome::Refused(refusal), output);
            }
            Incoming::Broken(what) => self.violation(now, session, what, output),
            Incoming::Request { number, action } => self.request(now, session, number, action, bytes, output),
        }
    }

    pub(super) fn request(
        &mut self,
        now: Now,
        session: SessionRef,
        number: i64,
        action: Action,
        bytes: usize,
        output: &mut Output,
    ) {
        // The wheel may be late; a request never is somebody's who is no longer believed.
        if self.sessions.get(session).is_some_and(|state| state.is_expired(now)) {
            self.expire(now, session, output);
        }
        match action {
            Action::Ask(request) => self.forward(session, number, request, output),
            Action::OnDisconnect(write) => self.forward(session, number, Request::MayWrite { write, bytes }, output),
            Action::CancelOnDisconnect(path) => self.cancel_last_words(session, number, &path, output),
            Action::Auth { cred, noauth, authvar } => {
                let identity = self.config.verifier.verify(&cred, now.wall.0 / 1_000);
                let identity = identity.and_then(|identity| acting_as(identity, noauth, authvar));
                self.sign_in(now, session, number, identity, output);
            }
            Action::Unauth => {
                self.identify(now, session, Identity::NOBODY, output);
                self.say_later(session, Later::SignedOut { number }, output);
            }
            Action::Stats | Action::AppCheck | Action::UnAppCheck => {
                self.answer_here(session, number, Outcome::Done, output);
            }
            Action::Echo(json) => self.say_later(session, Later::Echo { number, json }, output),
        }
    }

    pub(super) fn cancel_last_words(&mut self, session: SessionRef, number: i64, path: &Path, output: &mut Output) {
        self.forward(session, number, Request::Cancel { path: path.clone() }, output);
    }

    /// Answers a sign-in. A refused one changes nothing: whoever the session was, with a credential that
    /// was good, it still is, until that one runs out.
    fn sign_in(
        &mut self,
        now: Now,
        session: SessionRef,
        number: i64,
        identity: Result<Identity, BadCredential>,
        output: &mut Output,
    ) {
        match identity {
            Ok(identity) => {
                self.say_later(session, Later::SignedIn { number, identity: identity.clone() }, output);
                self.identify(now, session, identity, output);
            }
            Err(bad) => {
                self.answer_here(session, number, Outcome::Refused(Refusal::Credential(bad)), output);
            }
        }
    }

    /// From here on the session is somebody else.
    pub(super) fn identify(&mut self, now: Now, session: SessionRef, identity: Identity, output: &mut Output) {
        let expires = self.expiry(now, &identity);
        let Some(state) = self.sessions.get_mut(session) else { return };
        state.expires = expires;
        if state.next_duty() < state.next_look {
            state.next_look = self.session_wheel.arm(session.slot, state.next_duty());
        }
        if *state.identity != identity {
            state.identity = if identity == Identity::NOBODY { Arc::clone(&self.nobody) } else { Arc::new(identity) };
            self.introduce(session, output);
        }
    }

    /// When an identity runs out that is taken on now.
    fn expiry(&self, now: Now, identity: &Identity) -> Instant {
        let leeway_s = self.config.verifier.leeway_s();
        identity.expires_s.map_or(Instant::NEVER, |expires_s| {
            let expires_ms = expires_s.saturating_mul(1_000);
            // What was accepted although it has run out, because clocks differ, lasts as long as they may.
            let leeway_ms = if expires_ms <= now.wall.0 { leeway_s.saturating_mul(1_000) } else { 0 };
            now.instant + Millis(expires_ms.saturating_add(leeway_ms).saturating_sub(now.wall.0))
        })
    }

    /// A session of before the start is who it was. Its owner is told when it is told of the session.
    pub(super) fn carry_on(&mut self, now: Now, session: SessionRef, identity: Identity) {
        let expires = self.expiry(now, &identity);
        if let Some(state) = self.sessions.get_mut(session) {
            (state.identity, state.expires) = (Arc::new(identity), expires);
        }
        self.look_again(session);
    }

    /// The session's credential has run out: it goes on as nobody.
    fn expire(&mut self, now: Now, session: SessionRef, output: &mut Output) {
        self.say(session, &Word::CredentialRevoked(BadCredential::Expired), output);
        self.identify(now, session, Identity::NOBODY, output);
    }

    /// Tells the owner who a session is, so that it takes away the listens that are no longer allowed.
    fn introduce(&mut self, session: SessionRef, output: &mut Output) {
        self.resume_device(session, output);
        let Some(state) = self.sessions.get(session) else { return };
        let (namespace, identity) = (state.namespace.clone(), state.identity.clone());
        if self.may_be_spread() {
            return self.introduce_behind(session, None, output);
        }
        let owner = self.owner(&namespace);
        self.send(owner, Message::Identify { session, namespace, identity }, output);
    }

    pub(super) fn all_sessions(&self) -> impl Iterator<Item = (SessionRef, &Session)> {
        self.sessions.iter_slots(0..self.sessions.slots_count())
    }

    /// Tells `owner` who all its sessions are.
    pub(super) fn introduce_all(&mut self, owner: ShardId, output: &mut Output) {
        let sessions: Vec<_> = self.all_sessions().map(|(session, state)| (session, state.namespace.clone())).collect();
        for (session, namespace) in sessions {
            if self.may_be_spread() {
                self.introduce_behind(session, Some(owner), output);
            } else if self.owner(&namespace) == owner {
                self.introduce(session, output);
            }
        }
    }

    /// The owner's answer to a request.
    pub(super) fn answered(
        &mut self,
        now: Now,
        session: SessionRef,
        number: i64,
        outcome: &Outcome,
        output: &mut Output,
    ) {
        if self.sessions.get(session).is_some() {
            self.say(session, &Word::Outcome { number, outcome }, output);
            self.count_answer(session, output);
            self.way_answered(session, number, output);
            self.part_if_done(now, session, output);
        }
    }

    /// Ends a session that has waited only for what it had to do.
    pub(super) fn part_if_done(&mut self, now: Now, session: SessionRef, output: &mut Output) {
        if let Some(state) = self.sessions.get_mut(session).filter(|state| !state.is_waiting)
            && let Some(parting) = state.parting.take()
        {
            self.part_for_good(now, session, *parting, output);
        }
    }

    fn count_answer(&mut self, session: SessionRef, output: &mut Output) {
        let Some(state) = self.sessions.get_mut(session) else { return };
        state.answered = state.answered.wrapping_add(1);
        while let Some(state) = self.sessions.get_mut(session)
            && state.later.first().is_some_and(|(after, _)| *after == state.answered)
            && let Some((_, later)) = state.later.pop_first()
        {
            self.say(session, &later.as_word(), output);
        }
        self.unpause_if_calm(session, output);
    }

    /// Answers a request without asking the owner.
    fn answer_here(&mut self, session: SessionRef, number: i64, outcome: Outcome, output: &mut Output) {
        self.say_later(session, Later::Outcome { number, outcome }, output);
    }

    /// Tells a client something, but not before what it asked earlier is answered.
    fn say_later(&mut self, session: SessionRef, later: Later, output: &mut Output) {
        let Some(state) = self.sessions.get_mut(session) else { return };
        if state.in_flight() == 0 {
            self.say(session, &later.as_word(), output);
        } else {
            state.later.push((state.asked, later));
        }
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
        if !std::mem::replace(&mut state.is_paused, true) {
            self.set_reading(session, false, output);
        }
    }

    fn unpause_if_calm(&mut self, session: SessionRef, output: &mut Output) {
        let Some(state) = self.sessions.get_mut(session) else { return };
        let is_calm = !state.is_waiting && state.in_flight() < REQUESTS_IN_FLIGHT_MAX / 2;
        if state.is_paused && is_calm {
            state.is_paused = false;
            self.set_reading(session, true, output);
        }
    }

    fn set_reading(&mut self, session: SessionRef, is_wanted: bool, output: &mut Output) {
        match self.sessions.get(session).map(|state| &state.channel) {
            Some(Channel::Socket(conn)) => output.effects.push(Effect::Read { conn: *conn, is_wanted }),
            Some(Channel::Poll(_)) => self.stir(session),
            Some(Channel::EngineIo(_)) => self.set_reading_packets(session, is_wanted, output),
            Some(Channel::Rest(_) | Channel::Stream(_) | Channel::Device(_) | Channel::Guest(_) | Channel::Gone)
            | None => {}
        }
    }

    /// The session may have something to say or to hear: at the end of the turn, for all that the turn
    /// brings together.
    pub(super) fn stir(&mut self, session: SessionRef) {
        if let Some(state) = self.sessions.get_mut(session)
            && !std::mem::replace(&mut state.is_stirred, true)
        {
            self.stirred.push(session);
        }
    }

    /// Lets the stirred sessions act on what their clients have said, then say what there is to say.
    pub(super) fn serve_stirred(&mut self, now: Now, output: &mut Output) {
        while !self.stirred.is_empty() {
            let stirred = std::mem::take(&mut self.stirred);
            for session in &stirred {
                if let Some(state) = self.sessions.get_mut(*session) {
                    state.is_stirred = false;
                    self.read_polls(now, *session, output);
                }
            }
            self.settle(now, output);
            for session in stirred {
                match self.sessions.get(session).map(|state| &state.channel) {
                    Some(Channel::Poll(_)) => self.answer_polls(now, session, output),
                    Some(Channel::EngineIo(_)) => self.deliver_packets(now, session, output),
                    Some(Channel::Device(_)) => self.notify_device(now, session, output),
                    Some(
                        Channel::Socket(_) | Channel::Rest(_) | Channel::Stream(_) | Channel::Guest(_) | Channel::Gone,
                    )
                    | None => {}
                }
            }
        }
    }

    /// Something of the session arrived.
    pub(super) fn heard(&mut self, now: Now, session: SessionRef) {
        if let Some(state) = self.sessions.get_mut(session) {
            state.heard(now.instant);
        }
    }

    /// The wheel says that a session may have something to do. Says whether it has ended.
    pub(super) fn look_at_session(&mut self, now: Now, slot: u32, output: &mut Output) -> bool {
        let Some(session) = self.sessions.in_slot(slot).filter(|_| !self.drain.is_on) else { return false };
        let state = self.sessions.get_mut(session).expect("in_slot names a living session");
        if now.instant < state.next_look {
            return false;
        }
        // Paused is our doing: the client may well have spoken.
        if now.instant >= state.deadline() && !state.is_paused {
            self.end(now, session, End::TimedOut, output);
            return true;
        }
        if let Channel::EngineIo(packets) = &state.channel
            && packets.mute_until().is_some_and(|until| now.instant >= until)
        {
            self.end(now, session, End::Killed, output);
            return true;
        }
        if state.is_expired(now) {
            self.expire(now, session, output);
        }
        self.device_due(now, session, output);
        let Some(state) = self.sessions.get_mut(session) else { return true };
        let is_pinged = !matches!(state.channel, Channel::Device(_) | Channel::Guest(_));
        let is_ping_due = is_pinged && now.instant >= state.heard.max(state.pinged) + state.settings.heartbeat;
        if is_ping_due {
            state.pinged = now.instant;
        }
        state.next_look = self.session_wheel.arm(slot, state.next_duty().max(now.instant + TICK));
        if is_ping_due {
            match state.channel {
                Channel::Socket(conn) => {
                    self.send_bytes(conn, output, |bytes| ws::write(bytes, ws::Kind::Ping, b""));
                }
                Channel::Poll(_) => self.let_a_poll_go(now, session, output),
                Channel::EngineIo(_) => self.ask_for_packets(now, session, output),
                Channel::Stream(_) => self.keep_stream_alive(now, session, output),
                Channel::Rest(_) | Channel::Device(_) | Channel::Guest(_) | Channel::Gone => {}
            }
        }
        false
    }

    /// Ends a session: its client is sent away, its last words go to their owner. Does nothing for a
    /// session that is already over.
    pub(super) fn end(&mut self, now: Now, session: SessionRef, end: End, output: &mut Output) {
        let state = self.sessions.get(session);
        if state.is_some_and(|state| state.is_waiting || state.has_more_to_do()) && end != End::ServerStopped {
            return self.part(now, session, end, output);
        }
        self.end_for_good(now, session, end, None, output);
    }

    /// `made`: the keys of its last pushes, if it has been let go already.
    fn end_for_good(
        &mut self,
        now: Now,
        session: SessionRef,
        end: End,
        made: Option<Vec<(Path, Path)>>,
        output: &mut Output,
    ) {
        self.resume_device(session, output);
        self.forget_kept(session);
        let departs =
            self.sessions.get(session).is_some_and(|state| state.protocol != Protocol::Rest && self.may_be_spread());
        // Until all of its owners have heard of its end, nobody else gets its place.
        let vacated = if departs { self.vacate_session(session) } else { self.close_session(session) };
        let Some(state) = vacated else { return };
        let is_expired = state.is_expired(now);
        let Session { mut channel, namespace, identity, settings, heard, ways, .. } = state;
        if let Channel::Rest(conn) = channel {
            // It has said nothing that would outlive it.
            return self.close(conn, output);
        }
        // Last words are spoken as whoever the session is now, not as who it was when they were left.
        let identity = if is_expired { Arc::new(Identity::NOBODY) } else { identity };
        let silent = now.instant.since(heard);
        self.meters.silences[end.index()].count(silent.0);
        output.effects.push(Effect::Notice(Notice::Ended { end, silent }));
        let made = made.unwrap_or_else(|| self.made_paths(now, &mut channel));
        self.let_go(now, channel, end, output);
        let is_yielding = end.is_silent() && settings.late_last_words == LateLastWords::Yield;
        let (ended, tour) = (now.instant, Vec::new());
        let over = Over { session, namespace, identity, made, end, ended, heard, is_yielding, tour };
        self.send_over(over, ways, output);
    }

    /// Takes a session out of the table.
    pub(super) fn close_session(&mut self, session: SessionRef) -> Option<Session> {
        let state = self.vacate_session(session)?;
        self.sessions.give_away(session.slot);
        Some(state)
    }

    fn vacate_session(&mut self, session: SessionRef) -> Option<Session> {
        if !self.wide.is_empty() {
            self.forget_wide(session);
        }
        let state = self.sessions.vacate(session)?;
        self.looks.ended(state.protocol);
        self.meters.sessions[state.protocol as usize] -= 1;
        if state.protocol != Protocol::Rest {
            self.warden.session_goes(&state.namespace);
        }
        Some(state)
    }

    /// The client has begun anew in the same session: what it listened to is over, its last words are
    /// spoken.
    pub(super) fn begin_anew(&mut self, now: Now, session: SessionRef, output: &mut Output) {
        self.resume_device(session, output);
        let Some(state) = self.sessions.get_mut(session) else { return };
        let end = End::Superseded;
        let (namespace, identity, heard) = (state.namespace.clone(), state.identity.clone(), state.heard);
        let mut channel = std::mem::replace(&mut state.channel, Channel::Gone);
        let made = self.made_paths(now, &mut channel);
        if let Some(state) = self.sessions.get_mut(session) {
            state.channel = channel;
        }
        let (ended, tour) = (now.instant, Vec::new());
        let over = Over { session, namespace, identity, made, end, ended, heard, is_yielding: false, tour };
        self.send_over_and_wait(over, output);
    }

    /// Makes the keys of those last words that add a child.
    fn made_paths(&mut self, now: Now, channel: &mut Channel) -> Vec<(Path, Path)> {
        let Channel::Device(device) = channel else { return Vec::new() };
        let pushes = device.take_pushes();
        let made = pushes.into_iter().filter_map(|left| {
            let key = Key::parse(&self.push_id(now)).ok()?;
            let path = left.parent().child(KeyStr::new(key.as_str()));
            Some((left, path))
        });
        made.collect()
    }

    /// Has the wheel look at a session earlier, if it has something to do earlier than it had.
    pub(super) fn look_again(&mut self, session: SessionRef) {
        let Some(state) = self.sessions.get_mut(session) else { return };
        let duty = state.next_duty();
        if duty < state.next_look {
            state.next_look = self.session_wheel.arm(session.slot, duty);
        }
    }

    /// Ends a session that is waiting: its client is sent away, the rest has to wait.
    fn part(&mut self, now: Now, session: SessionRef, end: End, output: &mut Output) {
        let Some(state) = self.sessions.get_mut(session) else { return };
        if state.parting.is_none() {
            let mut channel = std::mem::replace(&mut state.channel, Channel::Gone);
            let made = self.made_paths(now, &mut channel);
            if let Some(state) = self.sessions.get_mut(session) {
                state.parting = Some(Box::new(Parting { end, made, successors: Vec::new() }));
            }
            self.let_go(now, channel, end, output);
        }
    }

    fn let_go(&mut self, now: Now, channel: Channel, end: End, output: &mut Output) {
        match channel {
            Channel::Socket(conn) => self.send_away(conn, end, output),
            Channel::Poll(polled) => self.dismiss(now, *polled, output),
            Channel::EngineIo(packets) => self.dismiss_packets(now, *packets, end, output),
            Channel::Stream(stream) => self.stream_over(*stream, output),
            Channel::Rest(conn) => self.close(conn, output),
            Channel::Device(device) => self.device_gone(&device),
            Channel::Guest(guest) => self.guest_gone(&guest, end, output),
            Channel::Gone => {}
        }
    }

    /// Ends the sessions of the next `slots_count` slots because the server stops. Says whether those
    /// were the last.
    pub(super) fn end_some_sessions(&mut self, now: Now, slots_count: u32, output: &mut Output) -> bool {
        let from = self.drain.next_slot;
        let to = from.saturating_add(slots_count).min(self.sessions.slots_count());
        self.drain.next_slot = to;
        // What a server that follows finds written down goes on.
        let ending = self.sessions.iter_slots(from..to).filter(|(_, state)| !state.is_kept());
        let some: Vec<_> = ending.map(|(session, _)| session).collect();
        for session in some {
            self.end(now, session, End::ServerStopped, output);
        }
        to == self.sessions.slots_count()
    }
}

/// Who an administrator wants to be taken for: nobody, or whom the rules see as `auth`, an object.
/// Nobody else may choose.
pub(super) fn acting_as(
    identity: Identity,
    is_nobody: bool,
    auth: Option<serde_json::Value>,
) -> Result<Identity, BadCredential> {
    match (identity.is_admin, is_nobody, auth) {
        (_, false, None) => Ok(identity),
        (true, true, _) => Ok(Identity { expires_s: identity.expires_s, ..Identity::NOBODY }),
        (true, false, Some(auth)) if auth.is_object() || auth.is_null() => {
            Ok(Identity { is_admin: false, auth, expires_s: identity.expires_s })
        }
        (true, false, Some(_)) => Err(BadCredential::Invalid),
        (false, _, _) => Err(BadCredential::Forbidden),
    }
}
