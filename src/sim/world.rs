//! Engines and clients, driven by hand or by dice.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use rand_chacha::ChaCha12Rng;
use rand_core::{RngCore as _, SeedableRng as _};

use crate::auth::{AuthConfig, Verifier};
use crate::base::{ConnId, Instant, Millis, Now, ShardId, WallMillis};
use crate::engine::{
    self, Config, Effect, Engine, Hangup, Input, Message, Notice, Output, Record, Settings, Speech, Stats,
};
use crate::log::{ALL_SHARDS, BLOCK_BYTES, FileId, Kind, State, Tail, begin_frame, scan, seal_frame, snapshot};
use crate::rules::{Dialect, Ruleset};
use crate::wire::{Input as Bytes, ws};

/// When the world begins, on its clients' calendar.
pub const WALL_START_MS: u64 = 1_700_000_000_000;
/// When the world begins, on its engines' clocks.
const START: Instant = Instant(1_000_000);

/// Deliveries after which a world that has not come to rest never will.
const DELIVERIES_MAX: usize = 1_000_000;

/// A client of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Client(usize);

/// Several engines, the queues between them, and clients.
#[derive(Debug)]
pub struct World {
    engines: Vec<Engine>,
    /// `queues[from][to]`: what engines have said to each other and not yet heard.
    queues: Vec<Vec<VecDeque<Letter>>>,
    /// `known[core]`: how many messages that core can know of, of each core to each.
    known: Vec<Vec<Vec<u64>>>,
    /// The same for clients, who may tell each other what they like.
    outside: Vec<Vec<u64>>,
    /// `taken[to][from]`: how many have arrived.
    taken: Vec<Vec<u64>>,
    clients: Vec<Peer>,
    now: Instant,
    dice: ChaCha12Rng,
    /// Whether what clients send waits until it is carried ([`World::carry`]).
    is_slow: bool,
    /// What engines have written down, if they do: one for each.
    disks: Vec<Disk>,
    /// What the last power cut has left, as a snapshot.
    base: Vec<u8>,
    config: Config,
    /// What came back while effects were performed, to be done after them.
    reactions: VecDeque<Reaction>,
    journal: Vec<Record>,
    /// Datagrams that engines have sent and nobody has taken.
    datagrams: Vec<(engine::Peer, Vec<u8>)>,
    /// How often an engine has stopped reading from a client.
    pub pauses: usize,
    /// Everything that operators were told.
    pub notices: Vec<Notice>,
    speeches: Vec<Vec<String>>,
    undone_count: usize,
    /// Which engines have drained.
    pub drained: Vec<bool>,
}

/// A message on its way, and how many others there were that it may follow from.
#[derive(Debug)]
struct Letter {
    message: Message,
    behind: Vec<Vec<u64>>,
}

/// What a client does about something that reached it.
#[derive(Debug)]
enum Reaction {
    Carry(Client),
    HangUp(Client),
}

/// The client's half of a connection.
#[derive(Debug)]
struct Peer {
    shard: usize,
    conn: ConnId,
    /// Whether the engine knows of it.
    is_open: bool,
    /// Whether what it sends gets through, and what is sent to it.
    is_linked: bool,
    /// Whether it neither sends nor answers, and may do so again.
    is_frozen: bool,
    /// Whether the engine wants to read what it sends.
    is_read: bool,
    /// Whether the engine has closed it.
    is_closing: bool,
    /// What it has sent and nobody has read.
    outgoing: Vec<u8>,
    /// How it ends once everything is read.
    finish: Option<Hangup>,
    /// When something of it was last read.
    heard: Instant,
    /// Its frames are never segments of a message.
    has_whole_frames: bool,
    /// What has arrived of the response to its handshake.
    head: Option<Vec<u8>>,
    reader: ws::Reader,
    /// Segments that are still to come, and the message so far.
    missing: usize,
    partial: String,
    /// Whole messages that have arrived and were not taken.
    inbox: Vec<String>,
    /// The close frame that has arrived.
    close_code: Option<u16>,
    answers_pings: bool,
    pings: usize,
}

impl World {
    /// A world of `shards` engines under open rules and default settings.
    #[must_use]
    pub fn new(shards: u8, seed: u64) -> Self {
        Self::with(shards, seed, &Arc::new(Settings::default()), &Arc::new(Ruleset::open()))
    }

    /// A world of `shards` engines that believe what developers' servers believe.
    #[must_use]
    pub fn with(shards: u8, seed: u64, settings: &Arc<Settings>, rules: &Arc<Ruleset>) -> Self {
        let auth = AuthConfig { is_dev: true, ..AuthConfig::default() };
        let verifier = Verifier::new(auth).expect("there is nothing in it that could be wrong");
        Self::believing(shards, seed, settings, rules, &Arc::new(verifier))
    }

    /// A world of `shards` engines that believe whom `verifier` believes.
    #[must_use]
    pub fn believing(
        shards: u8,
        seed: u64,
        settings: &Arc<Settings>,
        rules: &Arc<Ruleset>,
        verifier: &Arc<Verifier>,
    ) -> Self {
        Self::of_namespaces(shards, seed, settings, &BTreeMap::new(), rules, verifier)
    }

    /// A world where some namespaces have settings of their own.
    #[must_use]
    pub fn of_namespaces(
        shards: u8,
        seed: u64,
        settings: &Arc<Settings>,
        namespaces: &BTreeMap<String, Arc<Settings>>,
        rules: &Arc<Ruleset>,
        verifier: &Arc<Verifier>,
    ) -> Self {
        let mut dice = ChaCha12Rng::seed_from_u64(seed);
        let common_seed = [dice.next_u64(), dice.next_u64(), dice.next_u64(), dice.next_u64()];
        let now = now(START);
        let engine = |shard| {
            let mut engine_seed = [0; 32];
            dice.fill_bytes(&mut engine_seed);
            let config = Config {
                shard: ShardId(shard),
                shards,
                seed: engine_seed,
                common_seed,
                settings: settings.clone(),
                namespaces: namespaces.clone(),
                is_restricted: false,
                rules: rules.clone(),
                dialect: Dialect::Both,
                verifier: verifier.clone(),
            };
            Engine::new(config, now)
        };
        let count = usize::from(shards);
        let engines: Vec<Engine> = (0..shards).map(engine).collect();
        let config = engines[0].config().clone();
        Self {
            engines,
            disks: (0..count).map(|_| Disk::default()).collect(),
            base: Vec::new(),
            config,
            queues: (0..count).map(|_| (0..count).map(|_| VecDeque::new()).collect()).collect(),
            known: vec![vec![vec![0; count]; count]; count],
            outside: vec![vec![0; count]; count],
            taken: vec![vec![0; count]; count],
            clients: Vec::new(),
            now: START,
            dice,
            is_slow: false,
            reactions: VecDeque::new(),
            journal: Vec::new(),
            datagrams: Vec::new(),
            pauses: 0,
            notices: Vec::new(),
            speeches: Vec::new(),
            undone_count: 0,
            drained: vec![false; count],
        }
    }

    /// The time of the engines.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// The calendar's time.
    #[must_use]
    pub const fn wall(&self) -> WallMillis {
        now(self.now).wall
    }

    /// A connection to the core `shard` (modulo how many there are), and nothing sent yet.
    pub fn dial(&mut self, shard: usize) -> Client {
        let shard = shard % self.engines.len();
        // As the kernel names files: the lowest number that is free.
        let is_taken =
            |conn: &ConnId| self.clients.iter().any(|peer| peer.is_open && (peer.shard, peer.conn) == (shard, *conn));
        let conn = (0..).map(ConnId).find(|conn| !is_taken(conn)).expect("clients are fewer than numbers");
        self.clients.push(Peer {
            shard,
            conn,
            is_open: true,
            is_linked: true,
            is_frozen: false,
            is_read: true,
            is_closing: false,
            outgoing: Vec::new(),
            finish: None,
            heard: self.now,
            has_whole_frames: false,
            head: Some(Vec::new()),
            reader: ws::Reader::for_client(),
            missing: 0,
            partial: String::new(),
            inbox: Vec::new(),
            close_code: None,
            answers_pings: true,
            pings: 0,
        });
        let peer = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        self.input(shard, Input::Opened { conn, peer });
        Client(self.clients.len() - 1)
    }

    /// A client with a WebSocket at `target`, whose frames are never segments of a message.
    pub fn connect(&mut self, shard: usize, target: &str) -> Client {
        let client = self.dial(shard);
        self.upgrade(client, target);
        client
    }

    /// Asks for a WebSocket over a connection that is there.
    pub fn upgrade(&mut self, client: Client, target: &str) {
        self.clients[client.0].has_whole_frames = true;
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: sim.example:9000\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        self.send_bytes(client, request.as_bytes());
    }

    /// A client with an open WebSocket; `params` are those of its address after `v=5`.
    pub fn join(&mut self, shard: usize, params: &str) -> Client {
        let client = self.dial(shard);
        let request = format!(
            "GET /.ws?v=5{params} HTTP/1.1\r\nHost: sim.example:9000\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        self.send_bytes(client, request.as_bytes());
        client
    }

    /// Sends bytes as they are.
    pub fn send_bytes(&mut self, client: Client, bytes: &[u8]) {
        self.clients[client.0].outgoing.extend_from_slice(bytes);
        if !self.is_slow {
            self.carry(client, usize::MAX);
        }
    }

    /// From now on what clients send waits until it is carried.
    pub const fn slow_down(&mut self) {
        self.is_slow = true;
    }

    /// How much a client has sent that can be carried now.
    #[must_use]
    pub fn waiting_bytes(&self, client: Client) -> usize {
        let peer = &self.clients[client.0];
        if peer.can_send() { peer.outgoing.len() } else { 0 }
    }

    /// Carries at most so many bytes of what a client has sent, and its goodbye after the last.
    pub fn carry(&mut self, client: Client, bytes_max: usize) {
        let now = self.now;
        let peer = &mut self.clients[client.0];
        if !peer.can_send() {
            return;
        }
        let (shard, conn) = (peer.shard, peer.conn);
        let rest = peer.outgoing.split_off(bytes_max.min(peer.outgoing.len()));
        let mut bytes = std::mem::replace(&mut peer.outgoing, rest);
        if !bytes.is_empty() {
            peer.heard = now;
            self.input(shard, Input::Bytes { conn, bytes: &mut bytes });
        }
        let peer = &mut self.clients[client.0];
        if peer.outgoing.is_empty()
            && peer.can_send()
            && let Some(how) = peer.finish
        {
            self.hang_up(client, how);
        }
    }

    /// The client finishes sending: its connection ends when everything is read.
    pub fn finish(&mut self, client: Client) {
        self.clients[client.0].finish = Some(Hangup::Finished);
        if !self.is_slow {
            self.carry(client, usize::MAX);
        }
    }

    /// The client does nothing until it is thawed: it neither sends nor answers.
    pub fn freeze(&mut self, client: Client) {
        self.clients[client.0].is_frozen = true;
    }

    /// The client goes on.
    pub fn thaw(&mut self, client: Client) {
        self.clients[client.0].is_frozen = false;
        if !self.is_slow {
            self.carry(client, usize::MAX);
        }
    }

    /// The client does not read, and too much waits for it.
    pub fn choke(&mut self, client: Client) {
        self.owe(client, usize::MAX);
    }

    /// The client reads slowly, and so much waits for it.
    pub fn owe(&mut self, client: Client, bytes: usize) {
        let peer = &self.clients[client.0];
        if peer.is_open {
            let (shard, conn) = (peer.shard, peer.conn);
            self.input(shard, Input::Backlog { conn, bytes });
        }
    }

    /// When something of the client was last read.
    #[must_use]
    pub fn heard(&self, client: Client) -> Instant {
        self.clients[client.0].heard
    }

    /// Whether the client has sent everything that it wanted to.
    #[must_use]
    pub fn is_flushed(&self, client: Client) -> bool {
        self.clients[client.0].outgoing.is_empty()
    }

    /// Whether engines have something to say to each other that is not delivered.
    #[must_use]
    pub fn is_talking(&self) -> bool {
        self.queues.iter().flatten().any(|queue| !queue.is_empty())
    }

    /// What all engines hold, together.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.engines.iter().map(Engine::stats).fold(Stats::default(), |sum, one| Stats {
            sessions: sum.sessions + one.sessions,
            listens: sum.listens + one.listens,
            listened_places: sum.listened_places + one.listened_places,
            held_places: sum.held_places + one.held_places,
            inner: sum.inner + one.inner,
        })
    }

    /// What owners did since the last call, in order.
    pub fn take_journal(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.journal)
    }

    /// Sends a request without a body.
    pub fn get(&mut self, client: Client, target: &str) {
        self.send_bytes(client, format!("GET {target} HTTP/1.1\r\nHost: sim.example:9000\r\n\r\n").as_bytes());
    }

    /// Sends a request with a body of text.
    pub fn post(&mut self, client: Client, target: &str, body: &str) {
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: sim.example:9000\r\nOrigin: http://page.example\r\n\
             Content-Type: text/plain;charset=UTF-8\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.send_bytes(client, &[head.as_bytes(), body.as_bytes()].concat());
    }

    /// The next whole response that has arrived: its head, and its body.
    pub fn take_response(&mut self, client: Client) -> Option<(String, String)> {
        let arrived = self.clients[client.0].head.as_mut()?;
        let head_bytes = arrived.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(&arrived[..head_bytes]).into_owned();
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let body_bytes = length.map_or(0, |length| length.parse().expect("a length is a number"));
        if arrived.len() < head_bytes + body_bytes {
            return None;
        }
        let rest = arrived.split_off(head_bytes + body_bytes);
        let whole = std::mem::replace(arrived, rest);
        Some((head, String::from_utf8_lossy(&whole[head_bytes..]).into_owned()))
    }

    /// Sends a text frame.
    pub fn send(&mut self, client: Client, text: &str) {
        let mut frame = Vec::new();
        ws::write_masked(&mut frame, ws::Kind::Text, text.as_bytes(), [1, 2, 3, 4]);
        self.send_bytes(client, &frame);
    }

    /// Sends a close frame.
    pub fn say_goodbye(&mut self, client: Client) {
        let mut frame = Vec::new();
        ws::write_close_masked(&mut frame, ws::close_code::NORMAL, "", [1, 2, 3, 4]);
        self.send_bytes(client, &frame);
    }

    /// Ends the connection.
    pub fn hang_up(&mut self, client: Client, how: Hangup) {
        let peer = &mut self.clients[client.0];
        if std::mem::take(&mut peer.is_open) {
            let (shard, conn) = (peer.shard, peer.conn);
            self.input(shard, Input::Closed { conn, how });
        }
    }

    /// Gives the engines another idea of whom to believe.
    pub fn believe(&mut self, auth: AuthConfig) {
        let verifier = Arc::new(Verifier::new(auth).expect("the caller's configuration is right"));
        for shard in 0..self.engines.len() {
            self.input(shard, Input::Verifier(verifier.clone()));
        }
    }

    /// From now on nothing gets through to or from the client; nobody is told.
    pub fn unplug(&mut self, client: Client) {
        self.clients[client.0].is_linked = false;
    }

    /// What was sent to it since the last call, even if it could not arrive.
    pub fn take(&mut self, client: Client) -> Vec<String> {
        std::mem::take(&mut self.clients[client.0].inbox)
    }

    /// Whether the engine has closed the connection, or the client has.
    #[must_use]
    pub fn is_open(&self, client: Client) -> bool {
        self.clients[client.0].is_open
    }

    /// The code of the close frame that has arrived.
    #[must_use]
    pub fn close_code(&self, client: Client) -> Option<u16> {
        self.clients[client.0].close_code
    }

    /// What the server answered the handshake with, if it was not an upgrade.
    #[must_use]
    pub fn response(&self, client: Client) -> String {
        String::from_utf8_lossy(self.clients[client.0].head.as_deref().unwrap_or_default()).into_owned()
    }

    /// What has arrived since the last call, of a client that has not opened a WebSocket.
    pub fn take_bytes(&mut self, client: Client) -> Vec<u8> {
        self.clients[client.0].head.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// How many pings have arrived.
    #[must_use]
    pub fn pings(&self, client: Client) -> usize {
        self.clients[client.0].pings
    }

    /// Gives the engines something that does not come from a client.
    pub fn input_all(&mut self, input: impl Fn() -> Input<'static>) {
        for shard in 0..self.engines.len() {
            self.input(shard, input());
        }
    }

    /// Whether everything for the same core has arrived that a message may follow from: the mesh promises that.
    fn may_arrive(&self, letter: &Letter, to: usize) -> bool {
        self.taken[to].iter().enumerate().all(|(from, taken)| *taken >= letter.behind[from][to])
    }

    /// The core that holds a place of a database now, if one alone does; for what stands above the parts of one
    /// that is spread, none.
    #[must_use]
    pub fn holder(&self, name: &str, path: &str) -> Option<usize> {
        let keeper = self.config.owner(name);
        if !self.engines[keeper.index()].is_spread(&name.into()) {
            return Some(keeper.index());
        }
        self.part(name, path)
    }

    /// The same for a database that is spread, or was.
    #[must_use]
    pub fn part(&self, name: &str, path: &str) -> Option<usize> {
        let path = crate::data::Path::parse(path).expect("what clients ask for is a path");
        self.engines[0].holder(name, &path).map(ShardId::index)
    }

    /// Whether a database is spread over all cores now.
    #[must_use]
    pub fn is_spread(&self, name: &str) -> bool {
        self.holder(name, "").is_none()
    }

    /// Delivers what engines have said to each other, in an order that the dice choose but for each
    /// pair's own and that of cause and effect, until all is quiet.
    pub fn settle(&mut self) {
        for _ in 0..DELIVERIES_MAX {
            if !self.deliver() {
                let Some(busy) = self.engines.iter().position(Engine::is_busy) else { return };
                self.input(busy, Input::Tick);
            }
        }
        panic!("engines speak to each other for ever");
    }

    /// Delivers one thing that an engine has said to another. `false` if there is none.
    pub fn deliver(&mut self) -> bool {
        let count = self.engines.len();
        let waiting: Vec<(usize, usize)> = (0..count)
            .flat_map(|from| (0..count).map(move |to| (from, to)))
            .filter(|(from, to)| self.queues[*from][*to].front().is_some_and(|letter| self.may_arrive(letter, *to)))
            .collect();
        if waiting.is_empty() {
            assert!(!self.is_talking(), "something is on its way that can never arrive");
            return false;
        }
        #[expect(clippy::cast_possible_truncation, reason = "the remainder is small")]
        let (from, to) = waiting[(self.dice.next_u64() % waiting.len() as u64) as usize];
        self.hand_over(from, to);
        true
    }

    /// What had been sent to a core before a client could know of it comes before what the client says.
    fn catch_up(&mut self, to: usize) {
        let is_behind = |world: &Self, from: usize| world.taken[to][from] < world.outside[from][to];
        while (0..self.engines.len()).any(|from| is_behind(self, from)) {
            let next = (0..self.engines.len()).find(|from| {
                let first = self.queues[*from][to].front();
                is_behind(self, *from) && first.is_some_and(|letter| self.may_arrive(letter, to))
            });
            self.hand_over(next.expect("what was told follows from nothing that is not on its way"), to);
        }
    }

    fn hand_over(&mut self, from: usize, to: usize) {
        let Letter { message, behind } = self.queues[from][to].pop_front().expect("it was not empty");
        self.taken[to][from] += 1;
        learn(&mut self.known[to], &behind);
        self.known[to][from][to] = self.known[to][from][to].max(self.taken[to][from]);
        self.input(to, Input::Forwarded { messages: &mut VecDeque::from([message]) });
    }

    /// Carries everything that clients have sent, and settles what comes of it.
    pub fn calm(&mut self) {
        loop {
            for client in (0..self.clients.len()).map(Client) {
                self.carry(client, usize::MAX);
            }
            self.settle_and_sync();
            let is_left = |peer: &Peer| peer.can_send() && (!peer.outgoing.is_empty() || peer.finish.is_some());
            if !self.clients.iter().any(is_left) {
                break;
            }
        }
    }

    /// Lets time pass, waking engines when they want to be woken.
    pub fn pass(&mut self, span: Millis) {
        let end = self.now + span;
        self.calm();
        loop {
            let next = self.engines.iter().filter_map(Engine::next_wake).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            for shard in 0..self.engines.len() {
                if self.engines[shard].next_wake().is_some_and(|wake| wake <= self.now) {
                    self.input(shard, Input::Tick);
                }
            }
            self.calm();
        }
        self.now = end;
    }

    /// Lets time pass while no engine gets to do anything.
    pub fn oversleep(&mut self, span: Millis) {
        self.now = self.now + span;
    }

    /// Gives a datagram to the engine of a core (modulo how many there are).
    pub fn datagram(&mut self, shard: usize, peer: engine::Peer, bytes: &[u8]) {
        self.input(shard % self.engines.len(), Input::Datagram { peer, bytes });
    }

    /// The datagrams that engines have sent since the last call.
    pub fn take_datagrams(&mut self) -> Vec<(engine::Peer, Vec<u8>)> {
        std::mem::take(&mut self.datagrams)
    }

    /// How many sessions live.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.engines.iter().map(Engine::session_count).sum()
    }

    /// Bytes of values that come or go in blocks.
    #[cfg(test)]
    pub(crate) fn device_bodies_bytes(&self) -> usize {
        self.engines.iter().map(Engine::device_bodies_bytes).sum()
    }

    fn input(&mut self, shard: usize, input: Input<'_>) {
        if matches!(input, Input::Bytes { .. } | Input::Datagram { .. }) {
            self.catch_up(shard);
            learn(&mut self.known[shard], &self.outside);
        }
        let mut output = Output::default();
        self.engines[shard].handle(now(self.now), input, &mut output);
        let journal = self.engines[shard].take_journal();
        if output.records.is_empty() && self.disks[shard].held.is_empty() {
            self.journal.extend(journal);
            return self.perform(shard, output, None);
        }
        let tenants = output.effects.iter().map(|effect| self.find(shard, conn_of(effect)?)).collect();
        self.disks[shard].take(Held { output, tenants, journal });
    }

    /// Does what engines want done; of what was held, nothing for connections that are gone.
    fn perform(&mut self, shard: usize, output: Output, tenants: Option<&[Option<Client>]>) {
        for (index, effect) in output.effects.into_iter().enumerate() {
            let tenant = tenants.map(|tenants| tenants[index]);
            if conn_of(&effect).is_some_and(|conn| tenant.is_some_and(|tenant| tenant != self.find(shard, conn))) {
                // Whoever judges wants to know which session somebody had who is gone before hearing of it.
                if let (Effect::Send { bytes, .. }, Some(Some(client))) = (&effect, tenant)
                    && self.clients[client.0].head.is_some()
                {
                    self.arrive_at(client, &output.bytes[bytes.clone()]);
                }
                continue;
            }
            match effect {
                Effect::Send { conn, bytes } => {
                    learn(&mut self.outside, &self.known[shard]);
                    self.arrive(shard, conn, &output.bytes[bytes]);
                }
                Effect::Datagram { peer, bytes } => {
                    let has_keys = peer.sealed_at.is_none_or(|core| core.index() == shard);
                    assert!(has_keys, "core {shard} has no keys for {peer:?}");
                    self.datagrams.push((peer, output.bytes[bytes].to_vec()));
                }
                Effect::Close { conn } => {
                    if let Some(client) = self.find(shard, conn) {
                        self.clients[client.0].is_closing = true;
                        self.reactions.push_back(Reaction::HangUp(client));
                    }
                }
                Effect::Read { conn, is_wanted } => {
                    if let Some(client) = self.find(shard, conn) {
                        self.clients[client.0].is_read = is_wanted;
                        self.pauses += usize::from(!is_wanted);
                        self.reactions.push_back(Reaction::Carry(client));
                    }
                }
                Effect::Forward { to, message } => {
                    let behind = self.known[shard].clone();
                    self.known[shard][shard][to.index()] += 1;
                    self.queues[shard][to.index()].push_back(Letter { message, behind });
                }
                Effect::Notice(notice) => self.notices.push(notice),
                Effect::Guest { .. } | Effect::TellGuests { .. } => unreachable!("nobody opens a guest here"),
                Effect::Drained => self.drained[shard] = true,
            }
        }
        // After the effects: they are done before an engine hears of anything else.
        while let Some(reaction) = self.reactions.pop_front() {
            match reaction {
                Reaction::HangUp(client) => self.hang_up(client, Hangup::Ours),
                Reaction::Carry(client) if !self.is_slow => self.carry(client, usize::MAX),
                Reaction::Carry(_) => {}
            }
        }
    }

    /// What an engine has written down becomes safe, and what waited for that is done.
    pub fn sync(&mut self, shard: usize) {
        let shard = shard % self.engines.len();
        self.disks[shard].sync(shard);
        // What is brought up meanwhile waits for the next time, and stands behind what is yet to be done.
        for _ in 0..self.disks[shard].held.len() {
            let Held { output, tenants, journal } = self.disks[shard].held.pop_front().expect("it was counted");
            self.journal.extend(journal);
            self.perform(shard, output, Some(&tenants));
        }
    }

    /// Settles, and all that is written down becomes safe, until nothing is left of either.
    pub fn settle_and_sync(&mut self) {
        self.settle();
        while self.is_unsynced() {
            (0..self.engines.len()).for_each(|shard| self.sync(shard));
            self.settle();
        }
    }

    /// All that engines have decided by now becomes safe, and nothing of what follows is delivered.
    pub fn sync_all(&mut self) {
        while self.is_unsynced() {
            (0..self.engines.len()).for_each(|shard| self.sync(shard));
        }
    }

    /// An engine takes a snapshot, in slices: between two of them others go on. What it has written down before
    /// goes. Says whether it may.
    pub fn snapshot(&mut self, shard: usize, mut between: impl FnMut(&mut Self)) -> bool {
        let shard = shard % self.engines.len();
        self.sync(shard);
        if !self.engines[shard].may_snapshot() {
            return false;
        }
        self.engines[shard].begin_snapshot();
        // What is decided from here on follows the snapshot.
        let before = std::mem::take(&mut self.disks[shard].file);
        self.disks[shard].sequence = 0;
        let mut slices = Vec::new();
        let mut is_more = true;
        while is_more {
            between(self);
            self.sync(shard);
            is_more = self.engines[shard].snapshot_slice(&mut slices);
        }
        between(self);
        self.sync(shard);
        drop(before);
        let after = std::mem::take(&mut self.disks[shard].file);
        let mut snapshot = Vec::new();
        begin_frame(&mut snapshot);
        snapshot.append(&mut slices);
        self.disks[shard].sequence = 0;
        self.disks[shard].append(shard, snapshot);
        let mut records = Vec::new();
        let file = disk_id(shard);
        let read = scan(&mut &after[..], file, |record| records.push(record));
        assert_eq!(read.map(|scan| scan.tail), Ok(Tail::Clean));
        let mut frame = Vec::new();
        begin_frame(&mut frame);
        records.iter().for_each(|record| record.encode(&mut frame));
        self.disks[shard].append(shard, frame);
        true
    }

    /// Whether a part has gone home from somewhere, and it was not said that it is there.
    #[must_use]
    pub fn is_part_on_its_way(&self) -> bool {
        self.engines.iter().any(|engine| !engine.may_snapshot())
    }

    /// How many parts of updates were undone when the power came back, as others were missing.
    #[must_use]
    pub const fn undone_count(&self) -> usize {
        self.undone_count
    }

    /// By session: where the last words wrote that were spoken before this server has begun.
    #[must_use]
    pub fn speeches(&self) -> &[Vec<String>] {
        &self.speeches
    }

    /// How often engines have asked since the last call that what they decide survives the loss of power.
    pub fn take_syncs(&mut self) -> usize {
        self.disks.iter_mut().map(|disk| std::mem::take(&mut disk.syncs_count)).sum()
    }

    /// Whether something waits to become safe.
    #[must_use]
    pub fn is_unsynced(&self) -> bool {
        self.disks.iter().any(|disk| !disk.held.is_empty())
    }

    /// The next server has other rules for all databases.
    #[must_use]
    pub fn under(mut self, rules: &Arc<Ruleset>) -> Self {
        self.config.rules = rules.clone();
        self
    }

    /// The power fails. What was not safe is lost, or half there, or there; then a server starts with so
    /// many shards, and finds what there is. All clients are gone.
    #[must_use]
    pub fn cut_power(mut self, shards: u8) -> Self {
        let mut state = State::default();
        let base = snapshot_id();
        let read = scan(&mut &self.base[..], base, |record| state.apply(record, base.shard));
        assert_eq!(read.map(|scan| scan.tail), Ok(Tail::Clean));
        for (shard, disk) in self.disks.iter_mut().enumerate() {
            let safe = disk.file.len();
            check_flip(&disk.file, shard, self.dice.next_u64());
            disk.sync(shard);
            let half = safe + (disk.file.len() - safe) / BLOCK_BYTES / 2 * BLOCK_BYTES + 30;
            let kept = [safe, half.min(disk.file.len()), disk.file.len()][(self.dice.next_u64() % 3) as usize];
            disk.file.truncate(kept);
            let id = disk_id(shard);
            let scan = scan(&mut &disk.file[..], id, |record| state.apply(record, id.shard));
            let tail = scan.map(|scan| scan.tail);
            assert!(matches!(tail, Ok(Tail::Clean | Tail::Torn)), "what is lost is no damage: {tail:?}");
        }
        state.put_together();
        let Config { settings, namespaces, rules, verifier, .. } = &self.config;
        let mut next = Self::of_namespaces(shards, self.dice.next_u64(), settings, namespaces, rules, verifier);
        next.now = self.now;
        let speeches = next.config.settle(now(next.now), &mut state).speeches;
        next.undone_count = state.undone_count;
        next.speeches = speeches.iter().map(Speech::places).collect();
        let frames = snapshot(&state, base, |frame| {
            next.base.extend_from_slice(frame);
            Ok::<_, std::convert::Infallible>(())
        });
        assert_eq!(frames, Ok(()));
        for (engine, inherited) in next.engines.iter_mut().zip(next.config.deal(state, speeches)) {
            engine.inherit(now(next.now), inherited);
        }
        next
    }

    fn find(&self, shard: usize, conn: ConnId) -> Option<Client> {
        let is_it = |peer: &Peer| peer.shard == shard && peer.conn == conn && peer.is_open;
        self.clients.iter().position(is_it).map(Client)
    }

    /// Bytes for a client.
    fn arrive(&mut self, shard: usize, conn: ConnId, bytes: &[u8]) {
        let Some(client) = self.find(shard, conn) else { return };
        assert!(!self.clients[client.0].is_closing, "nothing is sent after a close");
        self.arrive_at(client, bytes);
    }

    fn arrive_at(&mut self, client: Client, bytes: &[u8]) {
        let peer = &mut self.clients[client.0];
        let mut bytes = bytes.to_vec();
        if let Some(head) = &mut peer.head {
            head.extend_from_slice(&bytes);
            let is_upgrade = head.starts_with(b"HTTP/1.1 101");
            let Some(end) = head.windows(4).position(|end| end == b"\r\n\r\n").filter(|_| is_upgrade) else { return };
            bytes = head.split_off(end + 4);
            peer.head = None;
        }
        let mut pongs = Vec::new();
        peer.read(&mut bytes, &mut pongs);
        if !pongs.is_empty() && peer.is_linked {
            peer.outgoing.extend_from_slice(&pongs);
            self.reactions.push_back(Reaction::Carry(client));
        }
    }
}

impl Peer {
    const fn can_send(&self) -> bool {
        self.is_open && self.is_linked && self.is_read && !self.is_frozen
    }

    fn read(&mut self, bytes: &mut [u8], pongs: &mut Vec<u8>) {
        let mut input = Bytes::new(bytes);
        while let Some(frame) = self.reader.next(&mut input).expect("a server's frames are right") {
            let text = match frame {
                ws::Frame::Text(text) => std::str::from_utf8(text).expect("the reader has checked it").to_owned(),
                ws::Frame::Ping(payload) => {
                    self.pings += 1;
                    if self.answers_pings {
                        ws::write_masked(pongs, ws::Kind::Pong, payload, [1, 2, 3, 4]);
                    }
                    continue;
                }
                ws::Frame::Close { code, .. } => {
                    self.close_code = Some(code);
                    continue;
                }
                frame => panic!("a server never sends {frame:?}"),
            };
            if self.has_whole_frames {
                self.inbox.push(text);
            } else if self.missing > 0 {
                self.partial.push_str(&text);
                self.missing -= 1;
                if self.missing == 0 {
                    self.inbox.push(std::mem::take(&mut self.partial));
                }
            } else if let Ok(count) = text.parse::<usize>() {
                assert!(count > 0, "a server never announces no segments: its client would wait for ever");
                self.missing = count;
            } else {
                self.inbox.push(text);
            }
        }
    }
}

/// What one engine writes down.
#[derive(Debug, Default)]
struct Disk {
    /// What is safe: whole frames.
    file: Vec<u8>,
    sequence: u32,
    /// What is not.
    frame: Vec<u8>,
    /// What waits for that.
    held: VecDeque<Held>,
    /// How often it was asked to survive the loss of power.
    syncs_count: usize,
}

/// What waits until it is safe.
#[derive(Debug)]
struct Held {
    output: Output,
    /// For each effect: the client that it is for.
    tenants: Vec<Option<Client>>,
    /// What the engine did meanwhile: nobody is to know of it sooner.
    journal: Vec<Record>,
}

impl Disk {
    fn take(&mut self, mut held: Held) {
        if self.frame.is_empty() && !held.output.records.is_empty() {
            begin_frame(&mut self.frame);
        }
        self.frame.append(&mut held.output.records);
        self.syncs_count += usize::from(held.output.must_sync);
        self.held.push_back(held);
    }

    fn sync(&mut self, shard: usize) {
        if !self.frame.is_empty() {
            let frame = std::mem::take(&mut self.frame);
            self.append(shard, frame);
        }
    }

    fn append(&mut self, shard: usize, mut frame: Vec<u8>) {
        seal_frame(&mut frame, disk_id(shard), self.sequence, 0);
        self.file.append(&mut frame);
        self.sequence += 1;
    }
}

/// One bit of what was safe is another: that is noticed, or nothing follows from it, or the last frame is taken
/// for one that never was finished. Never is anything read that was not written.
fn check_flip(file: &[u8], shard: usize, chance: u64) {
    if file.is_empty() {
        return;
    }
    let read = |file: &[u8]| {
        let mut records = Vec::new();
        let found = scan(&mut &*file, disk_id(shard), |record| records.push(record));
        (found.unwrap_or_else(|never| match never {}), records)
    };
    let mut flipped = file.to_vec();
    let at = (chance / 8 % file.len() as u64) as usize;
    flipped[at] ^= 1 << (chance % 8);
    let ((whole, records), (found, left)) = (read(file), read(&flipped));
    assert!(records.starts_with(&left), "what was never written is read after bit {chance} has flipped");
    let is_noticed = match found.tail {
        Tail::Damaged(_) => true,
        Tail::Torn => found.frames + 1 == whole.frames,
        Tail::Clean => found.frames == whole.frames || (found.frames + 1 == whole.frames && left.len() < records.len()),
    };
    assert!(is_noticed, "bit {chance} of {shard} has flipped, and nobody notices: {found:?} of {whole:?}");
}

fn learn(known: &mut [Vec<u64>], news: &[Vec<u64>]) {
    for (known, news) in known.iter_mut().flatten().zip(news.iter().flatten()) {
        *known = (*known).max(*news);
    }
}

fn disk_id(shard: usize) -> FileId {
    FileId { epoch: 1, shard: u8::try_from(shard).expect("shards are few"), number: 0, kind: Kind::Log }
}

const fn snapshot_id() -> FileId {
    FileId { epoch: 1, shard: ALL_SHARDS, number: 0, kind: Kind::Snapshot }
}

const fn conn_of(effect: &Effect) -> Option<ConnId> {
    match effect {
        Effect::Send { conn, .. } | Effect::Close { conn } | Effect::Read { conn, .. } => Some(*conn),
        _ => None,
    }
}

const fn now(instant: Instant) -> Now {
    Now { instant, wall: WallMillis(WALL_START_MS + instant.0 - START.0) }
}
