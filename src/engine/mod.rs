//! One core: its connections and sessions, and the namespaces that it owns.
//!
//! The surprising idea: it does nothing by itself. Everything that happens comes in as an [`Input`],
//! everything it wants done goes out as an [`Effect`], and time is an argument. It is *home* to the
//! sessions whose connections its core accepted, and *owner* of some data; the two halves speak in
//! [`Message`]s, whether they are on one core or on two.
//!
//! Costs: a request of a session at home is one queue entry each way; one of a session elsewhere is
//! one message each way.

mod account;
mod backlogs;
mod config;
mod conn;
mod device;
mod engineio;
mod fence;
mod gather;
mod guest;
mod home;
mod io;
mod journal;
mod look;
mod message;
mod meters;
mod owed;
mod owner;
mod poll;
mod quota;
mod rest;
mod room;
mod say;
mod slices;
mod spread;
mod start;
mod visit;
mod ways;
mod wide;

use std::collections::VecDeque;
use std::sync::Arc;

use rand_chacha::ChaCha12Rng;
use rand_core::{RngCore as _, SeedableRng as _};

pub use config::{Config, Durability, LateLastWords, Settings};
pub use engineio::Order;
pub use fence::{Fencing, Step, Vote};
pub use guest::{GuestWord, Opening, Parting, Saying};
pub use io::{Effect, Hangup, Input, Notice, Output, Peer, Room};
pub use journal::{Record, Stats};
pub use look::Memory;
pub use message::{Ask, Leave, Leaving, Manage, Managed, Message, Over, Returned, Stop, Task};
pub use meters::{Came, Kind, Meters};
pub use quota::{Limits, Quota, Usage};
pub use start::{Inherited, Settled, Speech};
pub use visit::{Caller, Errand, Response, Visit};

use crate::base::limits::{CONNECTIONS_MAX, NAMESPACES_MAX, OUTPUT_BYTES_MAX};
use crate::base::{ConnId, Hashing, Instant, Map, Millis, Now, SessionRef, ShardId};
use crate::data::Fallen;
use crate::json;
use crate::op::{Identity, Namespace, Request};
use crate::session::Table;
use crate::shard::Shard;
use crate::wheel::Wheel;
use crate::wire::{firebase, wilddog};
use conn::Conn;
use home::Session;
use journal::Journal;
use quota::Warden;

/// Ids that one call takes from a wheel: what keeps it short when many deadlines meet.
const DUE_MAX: usize = 512;
/// Sessions that one call finds silent, about: one that ends with two last words takes some 9 µs.
const SILENT_MAX: usize = 32;
/// Ids that are taken from a wheel before it is seen whether there were too many such sessions.
const DUE_STEP: usize = 16;
/// Entries of removed data that one call drops: each may lie where no cache has it, which takes up to a microsecond.
const FALLEN_MAX: usize = 512;
/// Slots of the session table that one turn empties while draining.
const DRAIN_MAX: u32 = 512;
/// Between two turns that do.
const DRAIN_PAUSE: Millis = Millis(10);
/// Sessions that end in a second, at least, however long they may take.
const DRAIN_PER_SECOND_MIN: u64 = 2_000;
/// What clients call us: so many names are kept.
const HOSTS_MAX: usize = 16;
/// Names of databases that are remembered, to be shared by sessions.
const NAMESPACES_SHARED: usize = 256;

/// One core's engine.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    rng: ChaCha12Rng,
    /// The same on every engine of a server: who owns what hangs on it.
    common: Hashing,
    /// This engine's own.
    hashing: Hashing,
    /// By `ConnId`: the driver numbers connections densely.
    conns: Vec<Conn>,
    sessions: Table<Session>,
    /// Looks at a session when it may have something to do. An entry counts only if its time is the
    /// session's `next_look`: others are left over from earlier tenants of the slot.
    session_wheel: Wheel,
    /// Looks at a connection that has no session yet.
    conn_wheel: Wheel,
    /// The namespaces that this engine owns.
    shards: Map<Namespace, Shard>,
    /// Which databases are spread over all engines.
    spread: spread::Spread,
    /// Updates in which this engine has a part with others.
    fences: fence::Fences,
    /// What sessions here read and listen to that no core holds alone.
    wide: Map<SessionRef, wide::Wide>,
    /// Sessions of here that are over and whose last words may not be spoken, with those that replace them.
    departing: Map<(u32, u32), ways::Departing>,
    /// What this engine has to say to itself.
    inner: VecDeque<Message>,
    /// Requests that have waited for an answer, ever: each is named by its number.
    tickets: u64,
    /// Sessions without a connection of their own that may have something to say or to hear.
    stirred: Vec<SessionRef>,
    /// Connections of peers that fell silent, yet to be closed.
    farewells: VecDeque<ConnId>,
    drain: Drain,
    /// What sessions of before the start have left here.
    owed: owed::Owed,
    /// A snapshot that is being taken.
    taking: Option<slices::Taking>,
    /// Whether nothing new can be written down.
    is_full: bool,
    /// How much memory is left.
    room: Room,
    /// Who most sessions are: shared by all of them.
    nobody: Arc<Identity>,
    /// By their hashes: names of databases, each shared by its sessions.
    namespaces: Box<[Option<Namespace>; NAMESPACES_SHARED]>,
    /// Requests without a socket.
    desk: rest::Desk,
    /// By `GuestId`: the driver numbers guests densely.
    guests: Vec<Option<SessionRef>>,
    /// Peers without a connection.
    devices: device::Devices,
    /// Those who look at what happens here.
    looks: look::Looks,
    /// Data that was removed and is yet to be dropped.
    fallen: Fallen,
    journal: Journal,
    meters: Meters,
    warden: Warden,
    backlogs: backlogs::Backlogs,
    /// What clients call us, for as many as there usually are.
    hosts: VecDeque<Arc<str>>,
    reader: json::Reader,
    /// For the text of one event.
    event_text: firebase::EventText,
    /// The same, for Wilddog's clients.
    wilddog_text: wilddog::EventText,
}

/// How far the engine is with stopping.
#[derive(Debug, Default)]
struct Drain {
    is_on: bool,
    began: Instant,
    /// When the next sessions are to end.
    next: Instant,
    /// The sessions in all slots before this one are over.
    next_slot: u32,
    /// All own sessions are over and the other engines know it.
    is_silent: bool,
    /// Engines that will send nothing more.
    silent_peers: u8,
    is_done: bool,
}

impl Engine {
    /// An engine without clients and without data.
    #[must_use]
    pub fn new(config: Config, now: Now) -> Self {
        assert!(config.shard.0 < config.shards, "a shard's number is below their count");
        let mut rng = ChaCha12Rng::from_seed(config.seed);
        let hashing = Hashing::from_seed([rng.next_u64(), rng.next_u64(), rng.next_u64(), rng.next_u64()]);
        let common = Hashing::from_seed(config.common_seed);
        Self {
            conns: Vec::new(),
            sessions: Table::new(config.shard, CONNECTIONS_MAX),
            session_wheel: Wheel::new(now.instant),
            conn_wheel: Wheel::new(now.instant),
            shards: hashing.map(),
            spread: spread::Spread::new(&hashing, &config.rules),
            fences: fence::Fences::new(&hashing),
            wide: hashing.map(),
            departing: hashing.map(),
            inner: VecDeque::new(),
            tickets: 0,
            stirred: Vec::new(),
            farewells: VecDeque::new(),
            drain: Drain::default(),
            owed: owed::Owed::default(),
            taking: None,
            is_full: false,
            room: Room::Ample,
            nobody: Arc::new(Identity::NOBODY),
            namespaces: Box::new([const { None }; NAMESPACES_SHARED]),
            desk: rest::Desk::default(),
            guests: Vec::new(),
            devices: device::Devices::new(&hashing),
            looks: look::Looks::new(&common),
            common,
            fallen: Fallen::default(),
            journal: Journal::default(),
            meters: Meters::default(),
            warden: Warden::new(&hashing),
            backlogs: backlogs::Backlogs::new(&hashing),
            hosts: VecDeque::new(),
            reader: json::Reader::default(),
            event_text: firebase::EventText::default(),
            wilddog_text: wilddog::EventText::default(),
            hashing,
            rng,
            config,
        }
    }

    /// Takes in one thing that happened and appends what is to be done about it to `output`.
    ///
    /// Runs to completion and cannot fail. `now` never goes back.
    pub fn handle(&mut self, now: Now, input: Input<'_>, output: &mut Output) {
        self.devices.now = now.instant;
        match input {
            Input::Opened { conn, peer } => {
                self.looks.connected();
                self.opened(now, conn, peer);
            }
            Input::Encrypted { conn } => self.encrypted(conn),
            Input::Bytes { conn, bytes } => self.received(now, conn, bytes, output),
            Input::Closed { conn, how } => {
                self.looks.disconnected();
                self.hung_up(now, conn, how, output);
            }
            Input::Backlog { conn, bytes } => self.backlog(now, conn, bytes, output),
            Input::Datagram { peer, bytes } => self.datagram_came(now, peer, bytes, false, output),
            Input::Guest { guest, saying } => self.guest_says(now, guest, saying, output),
            Input::Forwarded { messages } if self.inner.is_empty() => std::mem::swap(&mut self.inner, messages),
            Input::Forwarded { messages } => self.inner.append(messages),
            Input::Full(is_full) => {
                self.is_full = is_full;
                self.judge_fences_anew(output);
            }
            Input::Room(room) => {
                self.room = room;
                self.judge_fences_anew(output);
            }
            Input::Tick => self.tick(now, output),
            Input::Rules(rules) => self.set_rules(rules, output),
            Input::Verifier(verifier) => self.config.verifier = verifier,
            Input::Limits(limits) => self.warden.limits = limits,
            Input::Drain => {
                self.drain.is_on = true;
                self.drain.began = now.instant;
                self.drain(now, output);
            }
        }
        self.settle(now, output);
        if self.drain.is_silent {
            self.drain(now, output);
        }
        self.serve_stirred(now, output);
        self.write_down_devices(output);
        self.fallen.drop_some(FALLEN_MAX);
    }

    /// When [`Input::Tick`] is due, if nothing else happens before.
    #[must_use]
    pub fn next_wake(&self) -> Option<Instant> {
        let draining = (self.drain.is_on && !self.drain.is_silent).then_some(self.drain.next);
        let wakes = [self.session_wheel.next_wake(), self.conn_wheel.next_wake(), self.owed.next_wake(), draining];
        wakes.into_iter().chain([self.looks.next_wake()]).flatten().min()
    }

    /// Whether there is work left that was put off to keep turns short: the driver comes back with
    /// [`Input::Tick`] at once, after looking at what else has arrived.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        let is_behind = self.session_wheel.is_behind() || self.conn_wheel.is_behind();
        is_behind
            || self.owed.is_due()
            || self.has_devices_away()
            || !self.inner.is_empty()
            || !self.farewells.is_empty()
            || self.has_pieces()
            || self.has_long_bodies()
            || !self.fallen.is_empty()
    }

    /// What it was told at the start.
    #[cfg(any(test, feature = "sim"))]
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// How many sessions live here.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// What it holds. For tests of what must be gone at the end.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut stats = Stats { sessions: self.sessions.len(), ..Stats::default() };
        stats.inner = self.inner.len() + self.fences.len();
        for (namespace, shard) in &self.shards {
            let (listens, places) = shard.listens_count(self.owner(namespace) == self.config.shard);
            stats.listens += listens;
            stats.listened_places += places;
            stats.held_places += shard.held_count();
        }
        stats
    }

    /// What it did as an owner since the last call, in order.
    #[cfg(any(test, feature = "sim"))]
    pub fn take_journal(&mut self) -> Vec<Record> {
        self.journal.take()
    }

    /// Says to itself what it has to say, until nothing is left or the turn has brought up enough to be
    /// sent: a few short requests may have very long answers.
    fn settle(&mut self, now: Now, output: &mut Output) {
        loop {
            while output.bytes.len() < OUTPUT_BYTES_MAX
                && let Some(message) = self.inner.pop_front()
            {
                self.deliver(now, message, output);
            }
            if !self.inner.is_empty() {
                break;
            }
            if !self.rest_go_on(now, output) {
                break;
            }
        }
    }

    fn tick(&mut self, now: Now, output: &mut Output) {
        self.looks.due(now.instant, self.next_wake());
        let mut due = Vec::new();
        self.conn_wheel.due(now.instant, DUE_MAX, &mut due);
        for id in due.drain(..) {
            self.look_at_conn(now, ConnId(id), output);
        }
        let (mut looked, mut silent) = (0, 0);
        while looked < DUE_MAX && silent < SILENT_MAX {
            self.session_wheel.due(now.instant, DUE_STEP, &mut due);
            if due.is_empty() {
                break;
            }
            looked += due.len();
            for slot in due.drain(..) {
                silent += usize::from(self.look_at_session(now, slot, output));
            }
        }
        self.say_farewells(output);
        self.resume_some_devices(output);
        self.send_pieces(now, output);
        self.speak_some_owed(now, output);
        self.read_long_bodies(now, output);
        self.devices.tidy(now.instant);
        self.serve_watchers(now, output);
        if self.drain.is_on {
            self.drain(now, output);
        }
    }

    /// The engine that owns a namespace: see [`Config::owner`].
    fn owner(&self, namespace: &str) -> ShardId {
        config::owner(&self.common, self.config.shards, namespace)
    }

    /// Sends a message, perhaps to this engine itself.
    fn send(&mut self, to: ShardId, message: Message, output: &mut Output) {
        if to == self.config.shard {
            self.inner.push_back(message);
        } else {
            output.effects.push(Effect::Forward { to, message });
        }
    }

    fn deliver(&mut self, now: Now, message: Message, output: &mut Output) {
        let message = if self.fences.is_empty() {
            message
        } else {
            let Some(message) = self.passes_fence(message) else { return };
            message
        };
        match message {
            Message::Ask(ask) => self.asked(now, ask, output),
            Message::Answer { session, number, outcome } => self.answered(now, session, number, &outcome, output),
            Message::Tell(told) => self.tell(&told, output),
            Message::TellWide { from, told } => self.tell_wide(from, *told, output),
            Message::TellJoint { ask, parts } => self.tell_joint(fence::write_of(&ask.request), &parts, output),
            Message::Fence(fencing) => self.fencing(*fencing, output),
            Message::Join(ask) => self.joined(&ask, output),
            Message::Forget { session, namespace, path, tag, identity } => {
                self.forgotten(session, namespace, (path, tag), identity, output);
            }
            Message::Part { session, number, from, node } => self.part_came(now, session, number, from, node, output),
            Message::Load { session, from, load, first_run } => self.load_told(session, from, load, first_run),
            Message::Toured { session } => self.toured(now, session, output),
            Message::Recall { namespace } => self.recalled(namespace, output),
            Message::Return { namespace, part } => self.returned(&namespace, *part, output),
            Message::United { namespace } => self.united(&namespace),
            Message::Want { namespace } => self.wanted_whole(&namespace, output),
            Message::Identify { session, namespace, identity } => {
                self.identified(now, session, &namespace, &identity, output);
            }
            Message::Over(over) => self.speak_last_words(now, *over, output),
            Message::Resume { session, id, namespace, identity } => {
                self.resumed(session, id, &namespace, &identity, output);
            }
            Message::Claim { old, namespace } => self.claimed(now, &old, &namespace, output),
            Message::Supersede { old, new, namespace } => self.supersede(now, old, new, &namespace, output),
            Message::Settle { session } => self.send(session.home, Message::Settled { session }, output),
            Message::Settled { session } => self.go_on(now, session, output),
            Message::Introduce { owner } => self.introduce_all(owner, output),
            Message::Leave(leave) => self.leave_with_stream(*leave, output),
            Message::Manage(manage) => self.manage(now, *manage, output),
            Message::Managed { session, number, done } => self.managed(session, number, done, output),
            Message::Visit(visit) => self.visited(now, *visit, output),
            Message::Response { to, response } => self.answer_visitor(now, to, &response, output),
            Message::Switch { to, session } => self.switch_visitor(now, to, session, output),
            Message::Packet { session, from, text } => self.packet_came(now, session, from, text, output),
            Message::SocketGone { session, from, end } => self.packet_socket_gone(now, session, from, end, output),
            Message::Order { to, order } => self.perform_order(to, order, output),
            Message::Gone { caller, session, end } => self.caller_gone(now, caller, &session, end, output),
            Message::Datagram { peer, bytes } => self.datagram_came(now, peer, &bytes, true, output),
            Message::Post { peer, bytes } => {
                self.post_datagram(peer, output, |out| out.extend_from_slice(&bytes));
            }
            Message::Silence => {
                self.drain.silent_peers += 1;
                self.drain(now, output);
            }
        }
    }

    /// One slice of stopping: ends sessions, then tells the other engines, then waits for theirs.
    fn drain(&mut self, now: Now, output: &mut Output) {
        let slots = if self.drain.is_on && !self.drain.is_silent { Some(self.drain_slots(now)) } else { None };
        // Who is still departing has something to say by way of others.
        if slots.is_some_and(|slots| self.end_some_sessions(now, slots, output)) && self.departing.is_empty() {
            let is_nobody_left = self.all_sessions().all(|(_, state)| state.is_kept());
            assert!(is_nobody_left, "none was opened since the drain began");
            self.drain.is_silent = true;
            for peer in (0..self.config.shards).map(ShardId).filter(|peer| *peer != self.config.shard) {
                output.effects.push(Effect::Forward { to: peer, message: Message::Silence });
            }
        }
        // Last words of sessions here are in `inner` until `settle` has run: `Drained` comes after
        // them because it is an effect of the turn that finds nothing left.
        let is_alone = self.drain.is_silent && self.drain.silent_peers + 1 >= self.config.shards;
        if is_alone && !self.drain.is_done {
            self.settle(now, output);
            if self.inner.is_empty() && self.farewells.is_empty() {
                self.drain.is_done = true;
                output.effects.push(Effect::Drained);
            }
        }
    }

    /// How many slots' sessions are to end now: a turn's worth at most, and at such a pace that all have ended
    /// when they are to have.
    fn drain_slots(&mut self, now: Now) -> u32 {
        self.drain.next = now.instant + DRAIN_PAUSE;
        let (spread, slots) = (self.warden.limits.drain_spread.0, u64::from(self.sessions.slots_count()));
        if spread == 0 {
            self.drain.next = now.instant;
            return DRAIN_MAX;
        }
        let elapsed = now.instant.since(self.drain.began).0 + DRAIN_PAUSE.0;
        let due = (slots * elapsed / spread).max(elapsed * DRAIN_PER_SECOND_MIN / 1_000).min(slots);
        let left = due.saturating_sub(u64::from(self.drain.next_slot));
        u32::try_from(left).unwrap_or(u32::MAX).min(DRAIN_MAX)
    }

    /// The shard that holds a namespace; a new one when it is named for the first time.
    fn shard(&mut self, namespace: &Namespace) -> Option<&mut Shard> {
        if !self.shards.contains_key(namespace) {
            if self.shards.len() >= NAMESPACES_MAX {
                return None;
            }
            self.open_shard(namespace);
        }
        self.shards.get_mut(namespace)
    }

    fn open_shard(&mut self, namespace: &Namespace) -> &mut Shard {
        // Parts that come together must have the same hashing.
        let shard = Shard::new(namespace.clone(), self.config.rules.clone(), &self.common);
        let shard = if self.is_spread(namespace) { shard.apart() } else { shard };
        let is_recorded = self.config.settings_of(namespace).durability != Durability::None;
        let shard = if is_recorded { shard.recorded() } else { shard };
        self.shards.entry(namespace.clone()).or_insert(shard)
    }
}

#[cfg(test)]
mod tests;
