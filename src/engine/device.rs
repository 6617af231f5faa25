//! Devices: sessions whose clients speak CoAP in datagrams (Wilddog wire specification for devices).
//!
//! A datagram has no connection, so a session here is bound to the address of its *peer*: it is
//! created by the peer's first request, found again by the name that it was given, and follows its
//! client to other addresses. The surprising idea: whatever a stranger could have forged changes
//! nothing. A new name takes effect when it is first used, which shows that its owner has received it;
//! and an address that has not shown that it receives is sent at most three times what came from there.
//!
//! The kernel gives all datagrams of one peer to one core, which becomes home to its sessions. If a
//! device changes its address and another core gets its datagrams, that core recognises the home in
//! the session's name, sends them there, and remembers to do so for those that carry no name.
//!
//! Costs: a ping is one lookup by name and a stamp. An idle session has a `Device` on the heap, an
//! entry for its name and one for its address, and nothing else: answers that may have to be given
//! again are in a table of the engine that forgets them after 15 to 30 seconds.

mod answer;
mod blocks;
mod kept;
mod lately;
mod watch;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use rand_core::RngCore as _;
use smallvec::SmallVec;

use super::home::Channel;
use super::io::Peer;
use super::{Engine, Message, Output};
use crate::base::limits::{
    DEPTH_MAX, DEVICE_LEGACY_TIMEOUT_MIN, DEVICE_PLAIN_TIMEOUT, DEVICE_REQUESTS_MAX, DEVICE_UNPROVEN_TIMEOUT,
    DEVICE_WATCHES_MAX,
};
use crate::base::{Few, Hashing, Instant, Map, Millis, Now, SessionRef, ShardId};
use crate::data::{Draft, Path};
use crate::op::{End, Event, Identity, Namespace, Query, Request, Tag, Write};
use crate::wire::coap::{
    self, Block, Call, Code, Data, Form, Kind, Malformed, MessageId, Method, Name, Pass, Secret, Token, What, Writer,
    cbor,
};
use crate::wire::firebase::{Action, Incoming};
use answer::{Asked, Back, Exchange, Kept};
use blocks::Transfer;
use lately::{Brake, Lately, Pace};
use watch::{Flight, Watch};

/// "Keep entries for ~15 s only: MIDs and tokens repeat after every reboot."
const ANSWER_SPAN: Millis = Millis(15_000);
const ANSWERS_MAX: usize = 1 << 18;
/// "An S superseded within the last ~60 s, from the same address."
const OLD_NAME_FOR: Millis = Millis(60_000);
/// For how long a core remembers whose peers it is not home to: longer than any gap between packets.
const GUEST_SPAN: Millis = Millis(15 * 60_000);
const GUESTS_MAX: usize = 1 << 18;
/// For how long a goodbye is remembered that its client may not know to have been heard.
const DEPARTED_SPAN: Millis = Millis(60 * 60_000);
const DEPARTED_MAX: usize = 1 << 18;
/// "Burst 10, then 2/s": what no living client reaches, and every loop of the SDK does at once.
const PEER_PACE: Pace = Pace { burst: 10, pause: Millis(500) };
/// New sessions of one host, behind which there may be a whole house of devices.
const SOURCE_PACE: Pace = Pace { burst: 1_000, pause: Millis(10) };
/// Names that nobody has: guessing must not pay, and a house of devices must get through after a
/// restart.
const STRANGER_PACE: Pace = Pace { burst: 256, pause: Millis(100) };
const BRAKES_MAX: usize = 1 << 18;
const BRAKE_SPAN: Millis = Millis(30_000);
/// Between two questions whether a peer is there.
const CHALLENGE_PAUSE: Millis = Millis(1_000);
/// "An unknown peer never gets more than three times what it sent."
const CREDIT_FACTOR: usize = 3;

/// The end of a list of slots.
const NO_SLOT: u32 = u32::MAX;

/// What an engine knows of peers.
#[derive(Debug)]
pub(super) struct Devices {
    /// When this turn is.
    pub(super) now: Instant,
    /// All names that are good, with their sessions' slots.
    names: Map<Name, u32>,
    /// By the hash of an address, the slot of one session that is bound to it. There is one for each app, and
    /// one more for a plain client: each knows the [next](Device::next_at_peer).
    peers: Map<u64, u32>,
    guests: Lately<SocketAddr, ShardId>,
    /// What is to be written down, and who is to be heard of again.
    kept: kept::Keeping,
    answers: Lately<u64, Kept>,
    departed: Lately<(SocketAddr, Namespace), (MessageId, Token)>,
    peer_brakes: Lately<(SocketAddr, Urge), Brake>,
    source_brakes: Lately<IpAddr, Brake>,
    stranger_brakes: Lately<IpAddr, Brake>,
    /// Bytes of all values that come or go in blocks.
    bodies_bytes: usize,
}

/// The session's side of a peer.
#[derive(Debug)]
pub(super) struct Device {
    peer: Peer,
    slot: u32,
    /// The slot of another session whose address has the same hash, or [`NO_SLOT`].
    next_at_peer: u32,
    /// By what its client knows it; `None`: a plain client.
    name: Option<Name>,
    /// What was given out with the name.
    secret: Secret,
    /// By what its client knew it, and until when that is good.
    old_name: Option<Box<(Name, Instant)>>,
    candidate: Option<Box<Candidate>>,
    /// The peer has shown that it receives what is sent to it.
    is_proven: bool,
    /// Some peer of this session has.
    was_proven: bool,
    /// The name was sent to this address: whoever uses it from here has received it.
    is_name_here: bool,
    /// The oldest versions, which are silent for longer.
    is_legacy: bool,
    /// It has sent something that is not the first packet of a process.
    has_moved_on: bool,
    /// How much an unproven peer may still be sent.
    credit_bytes: u32,
    challenge: Option<Box<(MessageId, Instant)>>,
    withheld: Few<Box<[u8]>>,
    brake: Brake,
    /// The goodbye of an earlier session of this client.
    goodbye: Option<(MessageId, Token)>,
    numbers: i64,
    exchanges: Few<Exchange>,
    watches: Few<Watch>,
    /// Whether it may have left last words.
    has_words: bool,
    keeping: kept::Mark,
    /// Last words whose keys are made when they are spoken.
    pushes: Few<Path>,
    /// Values that come or go in blocks.
    transfer: Option<Box<Transfer>>,
}

const _: () = assert!(size_of::<Device>() <= 192, "there may be a million");

/// What becomes of a session when its new name is first used.
#[derive(Debug)]
struct Candidate {
    name: Name,
    secret: Secret,
    identity: Identity,
    peer: Peer,
    /// The client has begun anew: what its last life left behind is over.
    is_reborn: bool,
}

/// A datagram that is understood.
struct Arrival<'m> {
    peer: Peer,
    bytes: &'m [u8],
    message: coap::Message<'m>,
    /// Another core has sent it here.
    is_forwarded: bool,
}

/// What a peer may do only so often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Urge {
    Begin,
    Return,
    Guess,
}

enum Found {
    Here(SessionRef),
    Elsewhere(ShardId),
    Nobody,
}

impl Devices {
    pub(super) fn new(hashing: &Hashing) -> Self {
        Self {
            now: Instant(0),
            names: hashing.map(),
            peers: hashing.map(),
            guests: Lately::new(hashing, GUEST_SPAN, GUESTS_MAX),
            kept: kept::Keeping::default(),
            answers: Lately::new(hashing, ANSWER_SPAN, ANSWERS_MAX),
            departed: Lately::new(hashing, DEPARTED_SPAN, DEPARTED_MAX),
            peer_brakes: Lately::new(hashing, BRAKE_SPAN, BRAKES_MAX),
            source_brakes: Lately::new(hashing, BRAKE_SPAN, BRAKES_MAX),
            stranger_brakes: Lately::new(hashing, BRAKE_SPAN, BRAKES_MAX),
            bodies_bytes: 0,
        }
    }

    /// Drops what nobody will ask for any more.
    pub(super) fn tidy(&mut self, now: Instant) {
        self.guests.tidy(now);
        self.answers.tidy(now);
        self.departed.tidy(now);
        self.peer_brakes.tidy(now);
        self.source_brakes.tidy(now);
        self.stranger_brakes.tidy(now);
    }

    fn lets_peer(&mut self, now: Instant, remote: SocketAddr, urge: Urge) -> bool {
        lets(&mut self.peer_brakes, now, (remote, urge), PEER_PACE)
    }

    /// Whether a host may have one more session. This machine may have as many as it likes.
    fn lets_in(&mut self, now: Instant, remote: SocketAddr) -> bool {
        remote.ip().is_loopback() || lets(&mut self.source_brakes, now, host(remote), SOURCE_PACE)
    }

    /// Whether a host may use one more name that nobody has.
    fn lets_guess(&mut self, now: Instant, remote: SocketAddr) -> bool {
        remote.ip().is_loopback() || lets(&mut self.stranger_brakes, now, host(remote), STRANGER_PACE)
    }
}

/// Who somebody is to a brake: of IPv6, whoever has one address has the 2^64 beside it.
fn host(remote: SocketAddr) -> IpAddr {
    match remote.ip().to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
        ip @ IpAddr::V4(_) => ip,
    }
}

/// Asks the brake of somebody, who gets a fresh one where there is none.
fn lets<K: Eq + std::hash::Hash>(brakes: &mut Lately<K, Brake>, now: Instant, key: K, pace: Pace) -> bool {
    let mut brake = brakes.get(now, &key).copied().unwrap_or_default();
    let is_let = brake.lets(now, pace);
    brakes.insert(now, key, brake);
    is_let
}

/// What a peer may be sent for these bytes.
fn credit(bytes: &[u8]) -> u32 {
    u32::try_from(CREDIT_FACTOR * bytes.len()).expect("a datagram is short")
}

impl Device {
    fn new(peer: Peer, name: Option<Name>, secret: Secret) -> Self {
        Self {
            peer,
            slot: NO_SLOT,
            next_at_peer: NO_SLOT,
            name,
            secret,
            old_name: None,
            candidate: None,
            // A tunnel begins with a cookie: whoever has one receives.
            is_proven: peer.sealed_at.is_some(),
            was_proven: false,
            is_name_here: name.is_some(),
            is_legacy: false,
            has_moved_on: false,
            credit_bytes: 0,
            challenge: None,
            withheld: Few::new(),
            brake: Brake::default(),
            goodbye: None,
            numbers: 0,
            exchanges: Few::new(),
            watches: Few::new(),
            has_words: false,
            keeping: kept::Mark::default(),
            pushes: Few::new(),
            transfer: None,
        }
    }

    /// For how long it may be silent, where the namespace says `timeout`. Whoever has not shown that it
    /// receives has nothing to lose, and plain requests leave nothing behind.
    pub(super) fn patience(&self, timeout: Millis) -> Millis {
        let is_idle = !self.has_words && self.watches.is_empty();
        if is_idle && self.name.is_none() {
            timeout.min(DEVICE_PLAIN_TIMEOUT)
        } else if is_idle && !self.was_proven {
            timeout.min(DEVICE_UNPROVEN_TIMEOUT)
        } else if self.is_legacy {
            timeout.max(DEVICE_LEGACY_TIMEOUT_MIN)
        } else {
            timeout
        }
    }

    /// When something has to be sent again, or a plain client that listens has to be asked for a sign
    /// of life.
    pub(super) fn next_due(&self, heard: Instant, timeout: Millis) -> Option<Instant> {
        let flights = self.watches.iter().filter_map(|watch| watch.flight.map(|flight| flight.due)).min();
        let question = self.wants_questions().then(|| self.question_due(heard, timeout));
        flights.into_iter().chain(question).min()
    }

    const fn wants_questions(&self) -> bool {
        self.name.is_none() && !self.watches.is_empty()
    }

    fn question_due(&self, heard: Instant, timeout: Millis) -> Instant {
        let pause = Millis(timeout.0 / 4);
        self.challenge.as_ref().map_or(heard, |challenge| challenge.1.max(heard)) + pause
    }

    /// Takes the paths out whose last keys are made when they are spoken.
    pub(super) fn take_pushes(&mut self) -> Vec<Path> {
        self.has_words = false;
        self.pushes.take()
    }

    /// Whether so much may be sent now; if so, it is counted.
    fn may_send(&mut self, bytes: usize) -> bool {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let is_allowed = self.is_proven || bytes <= self.credit_bytes;
        if !self.is_proven && is_allowed {
            self.credit_bytes -= bytes;
        }
        is_allowed
    }

    /// Whether that peer cannot be its client: what began sealed never goes on in the clear, where everybody reads
    /// its name.
    const fn refuses(&self, peer: &Peer) -> bool {
        self.peer.sealed_at.is_some() && peer.sealed_at.is_none()
    }

    fn may_challenge(&mut self, now: Instant) -> bool {
        let is_recent = self.challenge.as_ref().is_some_and(|challenge| now.since(challenge.1) < CHALLENGE_PAUSE);
        !is_recent && self.may_send(4)
    }

    fn names(&self) -> impl Iterator<Item = Name> {
        let candidate = self.candidate.as_ref().map(|candidate| candidate.name);
        self.name.into_iter().chain(self.old_name.as_ref().map(|old| old.0)).chain(candidate)
    }
}

impl Engine {
    /// A datagram has arrived, here or at another core.
    pub(super) fn datagram_came(
        &mut self,
        now: Now,
        peer: Peer,
        bytes: &[u8],
        is_forwarded: bool,
        output: &mut Output,
    ) {
        let message = match coap::Message::read(bytes) {
            Ok(message) => message,
            Err(Malformed::Rejected(id)) => {
                return self.post_datagram(peer, output, |out| Writer::empty(out, Kind::Reset, id));
            }
            Err(Malformed::NotOurs | Malformed::Ignored) => return,
        };
        let arrival = Arrival { peer, bytes, message, is_forwarded };
        if self.drain.is_on {
            return self.put_off(&arrival, output);
        }
        match (message.kind, message.code) {
            (Kind::Acknowledgement | Kind::Reset, _) => self.heard_back(now, &arrival, output),
            (Kind::Confirmable, Code::EMPTY) => {
                self.post_datagram(peer, output, |out| Writer::empty(out, Kind::Reset, message.id));
                self.legacy_sign_of_life(now, peer);
            }
            (Kind::NonConfirmable, Code::EMPTY) => {}
            (_, code) if code.class() == 0 => self.device_called(now, &arrival, output),
            (Kind::Confirmable, _) => {
                self.post_datagram(peer, output, |out| Writer::empty(out, Kind::Reset, message.id));
            }
            (Kind::NonConfirmable, _) => {}
        }
    }

    fn device_called(&mut self, now: Now, arrival: &Arrival<'_>, output: &mut Output) {
        let call = match Call::read(&arrival.message) {
            Ok(call) => call,
            Err(code) => return self.answer_stranger(arrival, code, output),
        };
        match call.what {
            What::Begin { credential } => {
                let Some(namespace) = call.namespace else {
                    return self.answer_stranger(arrival, Code::BAD_REQUEST, output);
                };
                self.device_begins(now, arrival, &namespace, credential, output);
            }
            What::Return { pass } => self.device_returns(now, arrival, pass, output),
            What::Count(count) => self.device_counts(now, arrival, count, output),
            What::Ping | What::Leave | What::Data { .. } => {
                let namespace = call.namespace.as_deref();
                if let (None, What::Data { path, data, form, payload_form }) = (call.name, &call.what) {
                    let Some(session) = self.plain_session(now, arrival, namespace, output) else { return };
                    let forms = (*form, *payload_form);
                    return self.device_asks(now, arrival, session, path, *data, forms, output);
                }
                if call.what == What::Leave && self.is_answered(now, arrival, output) {
                    return;
                }
                match self.find_named(now.instant, arrival, namespace, call.name.unwrap_or_default()) {
                    Found::Here(session) => self.device_speaks(now, arrival, session, &call, output),
                    Found::Elsewhere(home) => self.send_home(now, home, arrival, output),
                    Found::Nobody => self.unknown_name(now, arrival, output),
                }
            }
        }
    }

    /// A request of a session that lives here.
    fn device_speaks(
        &mut self,
        now: Now,
        arrival: &Arrival<'_>,
        session: SessionRef,
        call: &Call<'_>,
        output: &mut Output,
    ) {
        let back = Back::of(arrival.peer, &arrival.message, arrival.bytes.len());
        let name = call.name.and_then(Name::parse);
        let Some(device) = self.device(session) else { return };
        let is_here = device.peer.is_at(&arrival.peer);
        if call.what == What::Ping && !device.brake.lets(now.instant, PEER_PACE) {
            return;
        }
        if call.what == What::Ping && !is_here {
            // Its address has changed while it was silent: it is to return with its pass.
            let fresh = self.fresh_id();
            return self.post_datagram(arrival.peer, output, |out| back.write(out, Code::UNAUTHORIZED, fresh).done());
        }
        self.recognise(now, arrival, session, name, output);
        match &call.what {
            What::Ping => self.device_answer(session, &back, Code::CONTENT, output),
            What::Leave => self.device_leaves(now, arrival, session, output),
            What::Data { path, data, form, payload_form } => {
                self.device_asks(now, arrival, session, path, *data, (*form, *payload_form), output);
            }
            What::Begin { .. } | What::Return { .. } | What::Count(_) => unreachable!("they name no session"),
        }
    }

    /// A session's client is heard, perhaps from another address, perhaps under its new name.
    fn recognise(
        &mut self,
        now: Now,
        arrival: &Arrival<'_>,
        session: SessionRef,
        name: Option<Name>,
        output: &mut Output,
    ) {
        self.heard(now, session);
        self.rebind(session, arrival.peer);
        let is_new_name = name.is_some()
            && self.device(session).and_then(|device| device.candidate.as_ref()).map(|new| new.name) == name;
        if is_new_name {
            self.take_new_name(now, session, output);
        }
        let id = arrival.message.id.0;
        let Some(device) = self.device(session) else { return };
        device.has_moved_on |= !is_first_id(id);
        device.credit_bytes = device.credit_bytes.saturating_add(credit(arrival.bytes));
        let is_proof = device.is_name_here && name.is_some() && device.name == name;
        if is_proof && !device.is_proven {
            self.prove(session, output);
        }
        self.wake_watches(session);
    }

    /// The session's new name is used: its client has received it.
    fn take_new_name(&mut self, now: Now, session: SessionRef, output: &mut Output) {
        let Some(device) = self.device(session) else { return };
        let Some(candidate) = device.candidate.take() else { return };
        let Candidate { name, secret, identity, peer, is_reborn } = *candidate;
        let forgotten = device.old_name.take();
        device.old_name = device.name.replace(name).map(|old| Box::new((old, now.instant + OLD_NAME_FOR)));
        device.is_name_here = device.peer.is_at(&peer);
        device.secret = secret;
        if let Some((old, _)) = forgotten.map(|old| *old) {
            self.devices.names.remove(&old);
        }
        self.keep(session);
        if is_reborn {
            self.begin_anew(now, session, output);
            self.keep_as_another(session);
            if let Some(device) = self.device(session) {
                device.watches.clear();
                device.has_moved_on = false;
            }
        }
        self.identify(now, session, identity, output);
    }

    /// The session's client is at another address from now on. What has not been acknowledged at the old
    /// one is told again.
    fn rebind(&mut self, session: SessionRef, peer: Peer) {
        let Some(device) = self.device(session) else { return };
        if device.peer.is_at(&peer) {
            device.peer = peer;
            return;
        }
        let (old, slot, next) = (device.peer, device.slot, device.next_at_peer);
        device.peer = peer;
        (device.is_proven, device.is_name_here) = (peer.sealed_at.is_some(), false);
        (device.credit_bytes, device.challenge) = (0, None);
        device.withheld.clear();
        for watch in device.watches.iter_mut().filter(|watch| watch.flight.is_some()) {
            watch.sleep();
        }
        self.forget_peer(old, slot, next);
        self.remember_peer(session, peer);
        self.keep(session);
    }

    /// Has the session be found by its address.
    fn remember_peer(&mut self, session: SessionRef, peer: Peer) {
        let key = self.peer_key(&peer);
        let next = self.devices.peers.insert(key, session.slot).unwrap_or(NO_SLOT);
        if let Some(device) = self.device(session) {
            device.next_at_peer = next;
        }
    }

    fn peer_key(&self, peer: &Peer) -> u64 {
        self.hashing.hash_one((peer.remote, peer.sealed_at.is_some()))
    }

    /// Takes a session, after which `next` comes, out of the list of its address.
    fn forget_peer(&mut self, peer: Peer, slot: u32, next: u32) {
        let key = self.peer_key(&peer);
        let Some(&head) = self.devices.peers.get(&key) else { return };
        if head == slot && next == NO_SLOT {
            self.devices.peers.remove(&key);
        } else if head == slot {
            self.devices.peers.insert(key, next);
        } else {
            let mut at = head;
            while let Some(device) = self.sessions.in_slot(at).and_then(|session| self.device(session)) {
                if device.next_at_peer == slot {
                    device.next_at_peer = next;
                    return;
                }
                at = device.next_at_peer;
            }
        }
    }

    /// The peer has shown that it receives: it gets what was withheld.
    fn prove(&mut self, session: SessionRef, output: &mut Output) {
        let Some(device) = self.device(session) else { return };
        let was_proven = device.is_proven;
        (device.is_proven, device.was_proven) = (true, true);
        device.challenge = None;
        let (peer, withheld) = (device.peer, device.withheld.take());
        for bytes in withheld {
            self.post_datagram(peer, output, |out| out.extend_from_slice(&bytes));
        }
        if !was_proven {
            self.keep(session);
        }
        self.wake_watches(session);
    }

    fn wake_watches(&mut self, session: SessionRef) {
        let Some(device) = self.device(session) else { return };
        let mut is_any = false;
        device.watches.iter_mut().for_each(|watch| is_any |= watch.wake());
        if is_any {
            self.stir(session);
        }
    }

    /// `POST /.cs`: a session for this address, or another name for the one that it has.
    fn device_begins(
        &mut self,
        now: Now,
        arrival: &Arrival<'_>,
        namespace: &str,
        credential: &[u8],
        output: &mut Output,
    ) {
        let remote = arrival.peer.remote;
        if self.is_answered(now, arrival, output) {
            return;
        }
        let live = self.session_at(&arrival.peer, Some(namespace));
        let guest_of = self.devices.guests.get(now.instant, &remote).copied();
        if let (None, Some(home), false) = (live, guest_of, arrival.is_forwarded) {
            return self.send_home(now, home, arrival, output);
        }
        // Silence is the one thing that slows a client down.
        if !self.devices.lets_peer(now.instant, remote, Urge::Begin) {
            return;
        }
        if self.config.is_restricted && !self.config.namespaces.contains_key(namespace) {
            return self.answer_stranger(arrival, Code::BAD_REQUEST, output);
        }
        let identity = match self.device_identity(now, credential) {
            Ok(identity) => identity,
            Err(code) => return self.answer_stranger(arrival, code, output),
        };
        let name = self.fresh_name();
        let secret = match live {
            Some(session) => self.propose(session, name, identity, arrival),
            None => self.open_device(now, arrival, namespace, name, identity, output),
        };
        let Some(secret) = secret else {
            return self.answer_stranger(arrival, Code::INTERNAL_ERROR, output);
        };
        let mut payload = b"\xa2\x61s\x68".to_vec();
        payload.extend_from_slice(&name.text());
        payload.extend_from_slice(b"\x61l\x78\x20");
        payload.extend_from_slice(&Pass { name, secret }.text());
        self.answer_unbound(now, arrival, Code::CONTENT, &payload, output);
    }

    /// Whom a token makes a client; the code if it makes it nobody.
    fn device_identity(&self, now: Now, credential: &[u8]) -> Result<Identity, Code> {
        if credential.is_empty() {
            return Ok(Identity::NOBODY);
        }
        let credential = std::str::from_utf8(credential).map_err(|_| Code::UNAUTHORIZED)?;
        self.config.verifier.verify(credential, now.wall.0 / 1_000).map_err(|_| Code::UNAUTHORIZED)
    }

    fn fresh_secret(&mut self) -> Secret {
        let mut secret = [0; 16];
        self.rng.fill_bytes(&mut secret);
        Secret(secret)
    }

    fn fresh_name(&mut self) -> Name {
        loop {
            let name = Name::new(self.config.shard, self.rng.next_u64());
            if let Some(name) = name.filter(|name| !self.devices.names.contains_key(name)) {
                return name;
            }
        }
    }

    /// Has the session's client choose between its old name and a new one: a stranger who pretends to be
    /// at its address cannot take it from it.
    fn propose(
        &mut self,
        session: SessionRef,
        name: Name,
        identity: Identity,
        arrival: &Arrival<'_>,
    ) -> Option<Secret> {
        let secret = self.fresh_secret();
        let device = self.device(session)?;
        // "A MID equal to 1 in either byte order on a `/.cs` whose old session already saw other MIDs: it
        // means a new process."
        let is_reborn = device.has_moved_on && is_first_id(arrival.message.id.0);
        let candidate = Candidate { name, secret, identity, peer: arrival.peer, is_reborn };
        device.credit_bytes = device.credit_bytes.saturating_add(credit(arrival.bytes));
        let (older, slot) = (device.candidate.replace(Box::new(candidate)), device.slot);
        if let Some(older) = older {
            self.devices.names.remove(&older.name);
        }
        self.devices.names.insert(name, slot);
        self.keep(session);
        Some(secret)
    }

    fn open_device(
        &mut self,
        now: Now,
        arrival: &Arrival<'_>,
        namespace: &str,
        name: Name,
        identity: Identity,
        output: &mut Output,
    ) -> Option<Secret> {
        let (session, secret) = self.open_peer(now, arrival, namespace, Some(name))?;
        self.identify(now, session, identity, output);
        Some(secret)
    }

    /// A session for a peer. `None`: there is no room, or too many for this host.
    fn open_peer(
        &mut self,
        now: Now,
        arrival: &Arrival<'_>,
        namespace: &str,
        name: Option<Name>,
    ) -> Option<(SessionRef, Secret)> {
        let remote = arrival.peer.remote;
        if !self.devices.lets_in(now.instant, remote) {
            return None;
        }
        let namespace: Namespace = namespace.into();
        let secret = self.fresh_secret();
        let mut device = Device::new(arrival.peer, name, secret);
        device.has_moved_on = !is_first_id(arrival.message.id.0);
        device.credit_bytes = credit(arrival.bytes);
        device.goodbye = self.devices.departed.get(now.instant, &(remote, namespace.clone())).copied();
        let (session, _) = self.open_session(now, Channel::Device(Box::new(device)), namespace).ok()?;
        self.device(session)?.slot = session.slot;
        if let Some(name) = name {
            self.devices.names.insert(name, session.slot);
        }
        self.remember_peer(session, arrival.peer);
        self.keep(session);
        Some((session, secret))
    }

    /// The session of a plain client: of its address, for as long as it asks or listens.
    fn plain_session(
        &mut self,
        now: Now,
        arrival: &Arrival<'_>,
        namespace: Option<&str>,
        output: &mut Output,
    ) -> Option<SessionRef> {
        let Some(namespace) = namespace else {
            self.answer_stranger(arrival, Code::BAD_REQUEST, output);
            return None;
        };
        let at_peer = self.sessions_at(&arrival.peer);
        let known = at_peer.into_iter().find(|session| self.is_of(*session, Some(namespace), false));
        if let Some(session) = known {
            self.recognise(now, arrival, session, None, output);
            return Some(session);
        }
        let is_unknown = self.config.is_restricted && !self.config.namespaces.contains_key(namespace);
        if is_unknown {
            self.answer_stranger(arrival, Code::NOT_FOUND, output);
            return None;
        }
        self.open_peer(now, arrival, namespace, None).map(|(session, _)| session)
    }

    /// `POST /.rst`: the client has its pass.
    fn device_returns(&mut self, now: Now, arrival: &Arrival<'_>, pass: &[u8], output: &mut Output) {
        if !self.devices.lets_peer(now.instant, arrival.peer.remote, Urge::Return) {
            return;
        }
        // "Unknown L MUST be 4.00": with 4.01 it would repeat itself for ever.
        let Some(pass) = Pass::parse(pass) else {
            return self.answer_stranger(arrival, Code::BAD_REQUEST, output);
        };
        let home = pass.name.home_among(self.config.shards);
        if home != self.config.shard {
            return self.send_home(now, home, arrival, output);
        }
        let by_pass = || {
            let session = self.sessions.in_slot(*self.devices.names.get(&pass.name)?)?;
            let Channel::Device(device) = &self.sessions.get(session)?.channel else { return None };
            if device.name == Some(pass.name) {
                return device.secret.is(&pass.secret).then_some((session, None));
            }
            let candidate = device.candidate.as_ref().filter(|candidate| candidate.name == pass.name)?;
            candidate.secret.is(&pass.secret).then_some((session, Some(pass.name)))
        };
        let known = by_pass().filter(|(session, _)| !self.is_refused(*session, &arrival.peer));
        let Some((session, name)) = known else {
            return self.answer_stranger(arrival, Code::BAD_REQUEST, output);
        };
        self.recognise(now, arrival, session, name, output);
        let back = Back::of(arrival.peer, &arrival.message, arrival.bytes.len());
        self.device_answer(session, &back, Code::CONTENT, output);
    }

    /// `GET /.ping?seq=NN` of the oldest versions, which name no session.
    fn device_counts(&mut self, now: Now, arrival: &Arrival<'_>, count: u32, output: &mut Output) {
        if !self.devices.lets_peer(now.instant, arrival.peer.remote, Urge::Return) {
            return;
        }
        self.legacy_sign_of_life(now, arrival.peer);
        let mut payload = Vec::new();
        let next = crate::data::Leaf::Number(crate::data::Number::Int(i64::from(count) + 1));
        let is_short = cbor::write(&mut payload, &crate::data::Node::leaf(next), coap::DATAGRAM_BYTES_MAX);
        assert_eq!(is_short, Ok(()), "a number is short");
        self.answer_unbound(now, arrival, Code::CONTENT, &payload, output);
    }

    fn legacy_sign_of_life(&mut self, now: Now, peer: Peer) {
        for session in self.sessions_at(&peer) {
            if self.device(session).is_some_and(|device| device.is_legacy) {
                self.heard(now, session);
            }
        }
    }

    /// `GET /.off`: its last words are spoken at once.
    fn device_leaves(&mut self, now: Now, arrival: &Arrival<'_>, session: SessionRef, output: &mut Output) {
        let said = (arrival.message.id, arrival.message.token);
        let mut back = Back::of(arrival.peer, &arrival.message, arrival.bytes.len());
        back.key = Some(self.datagram_key(arrival));
        self.device_answer(session, &back, Code::CONTENT, output);
        let Some(state) = self.sessions.get(session) else { return };
        let key = (arrival.peer.remote, state.namespace.clone());
        // The answer to an earlier session's goodbye was lost: it is said again, under the new name.
        if self.device(session).is_some_and(|device| device.goodbye == Some(said)) {
            return;
        }
        self.devices.departed.insert(now.instant, key, said);
        self.end(now, session, End::Closed, output);
    }

    /// An acknowledgement, or a reset.
    fn heard_back(&mut self, now: Now, arrival: &Arrival<'_>, output: &mut Output) {
        let id = arrival.message.id;
        let is_reset = arrival.message.kind == Kind::Reset;
        for session in self.sessions_at(&arrival.peer) {
            let Some(device) = self.device(session) else { continue };
            let is_challenge = device.challenge.as_ref().is_some_and(|challenge| challenge.0 == id);
            let flying = device.watches.iter_mut().find(|watch| watch.flight.is_some_and(|flight| flight.id == id));
            let Some(tag) = flying.map(|watch| {
                watch.flight = None;
                watch.tag
            }) else {
                if is_challenge {
                    self.heard(now, session);
                    self.prove(session, output);
                    return;
                }
                continue;
            };
            self.heard(now, session);
            self.prove(session, output);
            let watch = self.watch(session, tag).expect("it was found just now");
            if is_reset || (watch.over.is_some() && !watch.is_dirty) {
                self.unlisten(session, tag, output);
            } else if watch.is_dirty {
                self.stir(session);
            }
            return;
        }
        if !arrival.is_forwarded
            && let Some(home) = self.devices.guests.get(now.instant, &arrival.peer.remote).copied()
        {
            self.send_home(now, home, arrival, output);
        }
    }

    /// Something about the tree is asked. `forms`: of the answer, and of the payload.
    #[expect(clippy::too_many_arguments, reason = "the parts of one request")]
    fn device_asks(
        &mut self,
        now: Now,
        arrival: &Arrival<'_>,
        session: SessionRef,
        path: &Path,
        data: Data,
        forms: (Form, Form),
        output: &mut Output,
    ) {
        let Some(device) = self.device(session) else { return };
        // Whoever asks faster than it is answered asks again.
        if device.exchanges.len() >= DEVICE_REQUESTS_MAX {
            return;
        }
        let back = Back::of(arrival.peer, &arrival.message, arrival.bytes.len());
        match data {
            Data::Get if self.answer_part(session, path, forms.0, &back, output) => {}
            Data::Get => {
                let request = Request::Get { path: path.clone(), query: Query::ALL };
                let what = Asked::Get(path.clone());
                self.device_act(now, session, what, forms.0, back, Action::Ask(request), 0, output);
            }
            Data::Observe => self.observe(now, arrival, session, path, forms.0, back, output),
            Data::Unobserve => self.unobserve(now, session, path, forms.0, back, output),
            Data::Write(_) | Data::LastWord(_) | Data::CancelLastWords => {
                let payload = match back.block1 {
                    None => None,
                    Some(_) => match self.take_block(now, arrival, session, path, &back, output) {
                        Some(body) => Some(body),
                        None => return,
                    },
                };
                let payload = payload.as_deref().unwrap_or(arrival.message.payload);
                self.device_writes(now, arrival, session, path, data, forms, back, payload, output);
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one request")]
    fn device_writes(
        &mut self,
        now: Now,
        arrival: &Arrival<'_>,
        session: SessionRef,
        path: &Path,
        data: Data,
        forms: (Form, Form),
        mut back: Back,
        payload: &[u8],
        output: &mut Output,
    ) {
        let key = self.exchange_key(session, arrival);
        if self.device_kept(now.instant, key, &back, output).is_some() {
            return;
        }
        if !self.devices.answers.has_room(now.instant) {
            return self.device_answer(session, &back, Code::UNAVAILABLE, output);
        }
        back.key = Some(key);
        let (method, is_last) = match data {
            Data::Write(method) => (method, false),
            Data::LastWord(method) => (method, true),
            _ => {
                let action = Action::CancelOnDisconnect(path.clone());
                self.devices.answers.insert(now.instant, key, Kept::Asked { at: now.instant });
                return self.device_act(now, session, Asked::Cancel(path.clone()), forms.0, back, action, 0, output);
            }
        };
        let place = match method {
            Method::Push => match crate::data::Key::parse(&self.push_id(now)) {
                Ok(key) if path.depth() < DEPTH_MAX => path.child(crate::data::KeyStr::new(key.as_str())),
                _ => return self.device_answer(session, &back, Code::BAD_REQUEST, output),
            },
            Method::Set | Method::Remove => path.clone(),
        };
        let value = match method {
            Method::Remove => Ok(Draft::EMPTY),
            Method::Set | Method::Push => self.device_value(payload, forms.1, place.depth()),
        };
        let Ok(value) = value else {
            return self.device_answer(session, &back, Code::BAD_REQUEST, output);
        };
        let what = match (method, is_last) {
            (Method::Push, false) => Asked::Push(place.clone()),
            (Method::Push, true) => Asked::LastPush(place.clone()),
            (method, false) => Asked::Write(method),
            (method, true) => Asked::LastWord(method),
        };
        let write = Write::Set { path: place, value };
        let action =
            if is_last { Action::OnDisconnect(write) } else { Action::Ask(Request::Write { write, if_hash: None }) };
        self.devices.answers.insert(now.instant, key, Kept::Asked { at: now.instant });
        let bytes = payload.len() + path.as_str().len();
        self.device_act(now, session, what, forms.0, back, action, bytes, output);
    }

    fn device_value(&mut self, payload: &[u8], form: Form, depth: usize) -> Result<Draft, ()> {
        match form {
            Form::Device | Form::Cbor => cbor::read(payload, depth).map(Draft::of).map_err(|_| ()),
            Form::Json => {
                let mut text = payload.to_vec();
                let read = self.reader.read(&mut text, |item| Draft::from_json(item, depth));
                read.map_err(|_| ())?.map_err(|_| ())
            }
        }
    }

    /// Has the session ask, and remembers where the answer goes.
    #[expect(clippy::too_many_arguments, reason = "the parts of one request")]
    fn device_act(
        &mut self,
        now: Now,
        session: SessionRef,
        what: Asked,
        form: Form,
        back: Back,
        action: Action,
        bytes: usize,
        output: &mut Output,
    ) {
        let Some(device) = self.device(session) else { return };
        device.numbers += 1;
        let number = device.numbers;
        device.exchanges.push(Exchange { number, what, form, back });
        self.act(now, session, Incoming::Request { number, action }, bytes, output);
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one request")]
    fn observe(
        &mut self,
        now: Now,
        arrival: &Arrival<'_>,
        session: SessionRef,
        path: &Path,
        form: Form,
        back: Back,
        output: &mut Output,
    ) {
        let request_hash = self.datagram_key(arrival);
        let token = arrival.message.token;
        let Some(device) = self.device(session) else { return };
        let known = device.watches.iter_mut().find(|watch| watch.token == token && watch.path == *path);
        let tag = if let Some(watch) = known {
            if watch.request_hash == request_hash {
                let tag = watch.tag;
                if watch.answers_repeat(now.instant) {
                    self.repeat_registration(session, tag, &back, output);
                }
                return;
            }
            watch.renew(request_hash, now.instant);
            watch.tag
        } else {
            if device.watches.len() >= DEVICE_WATCHES_MAX {
                return self.device_answer(session, &back, Code::PRECONDITION_FAILED, output);
            }
            device.numbers += 1;
            let tag = device.numbers.unsigned_abs();
            let mut watch = Watch::new(tag, token, path.clone(), form, request_hash, now.instant);
            watch.block = back.block2.unwrap_or(Block::FIRST);
            device.watches.push(watch);
            tag
        };
        let request = Request::Listen { path: path.clone(), query: Query::ALL, tag: Some(tag), hash: None };
        self.device_act(now, session, Asked::Observe(tag), form, back, Action::Ask(request), 0, output);
        self.look_again(session);
    }

    /// "Match by session + path": the SDK deregisters with another token. Others use the same one, and
    /// want the value as well (RFC 7641 section 3.6).
    fn unobserve(&mut self, now: Now, session: SessionRef, path: &Path, form: Form, back: Back, output: &mut Output) {
        let Some(device) = self.device(session) else { return };
        let tags: Vec<u64> = device.watches.iter().filter(|watch| watch.path == *path).map(|watch| watch.tag).collect();
        for tag in tags {
            self.unlisten(session, tag, output);
        }
        if form == Form::Device {
            self.device_answer(session, &back, Code::CONTENT, output);
        } else {
            let request = Request::Get { path: path.clone(), query: Query::ALL };
            let what = Asked::Get(path.clone());
            self.device_act(now, session, what, form, back, Action::Ask(request), 0, output);
        }
    }

    /// Ends a registration, at the owner too.
    fn unlisten(&mut self, session: SessionRef, tag: u64, output: &mut Output) {
        let Some(path) = self.drop_watch(session, tag) else { return };
        let Some(device) = self.device(session) else { return };
        device.numbers += 1;
        let number = device.numbers;
        self.forward(session, number, Request::Unlisten { path, tag: Some(tag) }, output);
    }

    fn drop_watch(&mut self, session: SessionRef, tag: u64) -> Option<Path> {
        let device = self.device(session)?;
        let at = device.watches.iter().position(|watch| watch.tag == tag)?;
        let watch = device.watches.swap_remove(at);
        self.keep(session);
        Some(watch.path)
    }

    /// Something that a device listens to has happened.
    pub(super) fn tell_device(&mut self, session: SessionRef, tag: Tag, event: &Event) {
        let Some(watch) = tag.and_then(|tag| self.watch(session, tag)) else { return };
        watch.apply(event);
        self.stir(session);
    }

    /// Tells a device what it has yet to be told: of each registration the last value, once.
    pub(super) fn notify_device(&mut self, now: Now, session: SessionRef, output: &mut Output) {
        let Some(device) = self.device(session) else { return };
        let tags: SmallVec<[u64; 4]> =
            device.watches.iter().filter(|watch| watch.wants_to_speak()).map(|watch| watch.tag).collect();
        for tag in tags {
            let (id, chance) = (self.fresh_id(), self.rng.next_u64());
            let flight = Some(Flight::new(id, now.instant, chance));
            self.send_notification(session, tag, flight, output);
        }
        self.look_again(session);
    }

    /// Sends the value of a registration, or why it is over. `flight`: how it is to be acknowledged.
    fn send_notification(&mut self, session: SessionRef, tag: u64, flight: Option<Flight>, output: &mut Output) {
        let (Some(flight), Some(watch)) = (flight, self.watch(session, tag)) else { return };
        let was_dirty = std::mem::take(&mut watch.is_dirty);
        let mut payload = Vec::new();
        if watch.over.is_none() && !answer::write_payload(&mut payload, &watch.value, watch.form) {
            watch.over = Some(Code::TOO_LARGE);
        }
        let sequence = if was_dirty { watch.next_sequence() } else { watch.sequence };
        let is_reserving = watch.reserve_numbers();
        let from = output.bytes.len();
        write_notification(&mut output.bytes, watch, flight.id, sequence, &payload);
        let mut body = None;
        if output.bytes.len() - from > coap::DATAGRAM_BYTES_MAX {
            output.bytes.truncate(from);
            if watch.form == Form::Device {
                watch.over = Some(Code::TOO_LARGE);
                write_notification(&mut output.bytes, watch, flight.id, sequence, &[]);
            } else {
                write_first_part(&mut output.bytes, watch, flight.id, sequence, &payload);
                body = Some((watch.path.clone(), watch.form, payload));
            }
        }
        watch.flight = Some(flight);
        if let Some((path, form, body)) = body {
            self.keep_body(session, path, form, body);
        }
        if is_reserving {
            self.keep(session);
        }
        let len = output.bytes.len() - from;
        let Some(device) = self.device(session) else { return };
        if device.may_send(len) {
            let peer = device.peer;
            self.send_datagram(peer, from..output.bytes.len(), output);
        } else {
            output.bytes.truncate(from);
            if let Some(watch) = self.watch(session, tag) {
                watch.sleep();
            }
            self.challenge(session, output);
        }
    }

    /// The wheel has come to a device: what is not acknowledged is sent again.
    pub(super) fn device_due(&mut self, now: Now, session: SessionRef, output: &mut Output) {
        let Some(state) = self.sessions.get(session) else { return };
        let (heard, timeout) = (state.heard, state.settings.coap_session_timeout);
        let Channel::Device(device) = &state.channel else { return };
        let is_question_due = device.wants_questions() && now.instant >= device.question_due(heard, timeout);
        let is_plain = device.name.is_none();
        let late: SmallVec<[(u64, Flight, bool); 2]> = device
            .watches
            .iter()
            .filter_map(|watch| {
                Some((watch.tag, watch.flight.filter(|flight| flight.due <= now.instant)?, watch.is_dirty))
            })
            .collect();
        for (tag, flight, is_changed) in late {
            let id = if is_changed { self.fresh_id() } else { flight.id };
            if let Some(again) = flight.again(id) {
                self.send_notification(session, tag, Some(again), output);
            } else if is_plain {
                // "The server MAY remove the client from the list of observers" (RFC 7641 section 4.5).
                self.unlisten(session, tag, output);
            } else if let Some(watch) = self.watch(session, tag) {
                watch.sleep();
            }
        }
        if is_question_due {
            if let Some(device) = self.device(session) {
                device.challenge = None;
            }
            self.challenge(session, output);
        }
    }

    /// The session is over: nobody finds it any more.
    pub(super) fn device_gone(&mut self, device: &Device) {
        for name in device.names() {
            self.devices.names.remove(&name);
        }
        self.forget_peer(device.peer, device.slot, device.next_at_peer);
        self.forget_transfer(device);
    }

    fn find_named(&mut self, now: Instant, arrival: &Arrival<'_>, namespace: Option<&str>, text: &[u8]) -> Found {
        let remote = arrival.peer.remote;
        let is_first_value = text == b"00000000";
        let is_legacy = text.eq_ignore_ascii_case(b"a2617368");
        if is_first_value || is_legacy {
            let Some(session) = self.session_at(&arrival.peer, namespace) else {
                let guest_of = self.devices.guests.get(now, &remote).filter(|_| !arrival.is_forwarded);
                return guest_of.map_or(Found::Nobody, |home| Found::Elsewhere(*home));
            };
            if let Some(device) = self.device(session).filter(|device| is_legacy && !device.is_legacy) {
                // It will never use the name that it was given.
                (device.is_legacy, device.was_proven) = (true, true);
                self.keep(session);
            }
            return Found::Here(session);
        }
        let Some(name) = Name::parse(text) else { return Found::Nobody };
        let home = name.home_among(self.config.shards);
        if home != self.config.shard {
            return if arrival.is_forwarded { Found::Nobody } else { Found::Elsewhere(home) };
        }
        let session = self.devices.names.get(&name).and_then(|slot| self.sessions.in_slot(*slot));
        let session = session.filter(|session| self.is_of(*session, namespace, true));
        let Some((session, device)) = session.and_then(|session| Some((session, self.device(session)?))) else {
            return Found::Nobody;
        };
        if device.refuses(&arrival.peer) {
            return Found::Nobody;
        }
        let is_here = device.peer.is_at(&arrival.peer);
        match device.old_name.as_deref() {
            Some(&(old, until)) if old == name && (now > until || !is_here) => Found::Nobody,
            _ => Found::Here(session),
        }
    }

    /// The session of that address that has a name, if there is exactly one.
    fn session_at(&self, peer: &Peer, namespace: Option<&str>) -> Option<SessionRef> {
        let mut all = self.sessions_at(peer).into_iter().filter(|session| self.is_of(*session, namespace, true));
        let one = all.next()?;
        all.next().is_none().then_some(one)
    }

    fn sessions_at(&self, peer: &Peer) -> SmallVec<[SessionRef; 2]> {
        let mut found = SmallVec::new();
        let mut next = self.devices.peers.get(&self.peer_key(peer)).copied();
        while let Some(session) = next.and_then(|slot| self.sessions.in_slot(slot))
            && let Some(Channel::Device(device)) = self.sessions.get(session).map(|state| &state.channel)
        {
            if device.peer.is_at(peer) {
                found.push(session);
            }
            next = Some(device.next_at_peer);
        }
        found
    }

    fn is_refused(&self, session: SessionRef, peer: &Peer) -> bool {
        let channel = self.sessions.get(session).map(|state| &state.channel);
        matches!(channel, Some(Channel::Device(device)) if device.refuses(peer))
    }

    /// Whether a session is a device's of that namespace, with or without a name.
    fn is_of(&self, session: SessionRef, namespace: Option<&str>, is_named: bool) -> bool {
        self.sessions.get(session).is_some_and(|state| {
            let is_of_namespace = namespace.is_none_or(|namespace| *state.namespace == *namespace);
            let is_device = |device: &Device| device.name.is_some() == is_named;
            is_of_namespace && matches!(&state.channel, Channel::Device(device) if is_device(device))
        })
    }

    /// Sends a datagram to the core on which its session lives.
    fn send_home(&mut self, now: Now, home: ShardId, arrival: &Arrival<'_>, output: &mut Output) {
        assert_ne!(home, self.config.shard, "what is here is at home");
        self.devices.guests.insert(now.instant, arrival.peer.remote, home);
        let message = Message::Datagram { peer: arrival.peer, bytes: arrival.bytes.into() };
        self.send(home, message, output);
    }

    /// "4.01 means exactly one thing: I do not know this short token."
    fn unknown_name(&mut self, now: Now, arrival: &Arrival<'_>, output: &mut Output) {
        let (instant, remote) = (now.instant, arrival.peer.remote);
        let is_let = self.devices.lets_peer(instant, remote, Urge::Guess) && self.devices.lets_guess(instant, remote);
        if is_let {
            self.answer_stranger(arrival, Code::UNAUTHORIZED, output);
        }
    }

    /// Whether this datagram was answered a moment ago: then it is once more.
    fn is_answered(&mut self, now: Now, arrival: &Arrival<'_>, output: &mut Output) -> bool {
        let key = self.datagram_key(arrival);
        let back = Back::of(arrival.peer, &arrival.message, arrival.bytes.len());
        self.device_kept(now.instant, key, &back, output).is_some()
    }

    /// Answers somebody who has no session (yet), and remembers the answer.
    fn answer_unbound(&mut self, now: Now, arrival: &Arrival<'_>, code: Code, payload: &[u8], output: &mut Output) {
        let key = self.datagram_key(arrival);
        let back = Back::of(arrival.peer, &arrival.message, arrival.bytes.len());
        let fresh = self.fresh_id();
        let from = output.bytes.len();
        back.write(&mut output.bytes, code, fresh).payload(payload);
        if output.bytes.len() - from > CREDIT_FACTOR * arrival.bytes.len() {
            output.bytes.truncate(from);
            return;
        }
        let bytes = from..output.bytes.len();
        self.devices.answers.insert(
            now.instant,
            key,
            Kept::Answered { at: now.instant, bytes: output.bytes[bytes.clone()].into() },
        );
        self.send_datagram(arrival.peer, bytes, output);
    }

    /// The server is about to stop: it has no session for anybody any more. Those whose sessions go on hear
    /// nothing, and ask the next one again.
    fn put_off(&mut self, arrival: &Arrival<'_>, output: &mut Output) {
        match Call::read(&arrival.message) {
            Ok(Call { what: What::Begin { .. }, .. }) => self.answer_stranger(arrival, Code::INTERNAL_ERROR, output),
            Ok(Call { what: What::Data { .. }, name: None, .. }) => {
                self.answer_stranger(arrival, Code::UNAVAILABLE, output);
            }
            _ => {}
        }
    }

    /// Answers somebody who has no session with a code.
    fn answer_stranger(&mut self, arrival: &Arrival<'_>, code: Code, output: &mut Output) {
        let back = Back::of(arrival.peer, &arrival.message, arrival.bytes.len());
        let fresh = self.fresh_id();
        self.post_datagram(arrival.peer, output, |out| back.write(out, code, fresh).done());
    }

    /// Names a datagram of a peer.
    fn datagram_key(&self, arrival: &Arrival<'_>) -> u64 {
        self.hashing.hash_one((arrival.peer.remote, arrival.peer.sealed_at.is_some(), arrival.bytes))
    }

    /// Names a request of a session, whatever the client calls the session: "after a session change the
    /// same push is re-sent with the same MID and token but another `.cs`".
    fn exchange_key(&self, session: SessionRef, arrival: &Arrival<'_>) -> u64 {
        let mut bytes: SmallVec<[u8; 256]> = SmallVec::from_slice(arrival.bytes);
        if let Some(at) = memchr::memmem::find(&bytes, b".cs=") {
            let end = bytes.len().min(at + 4 + Name::TEXT_BYTES);
            bytes[at + 4..end].fill(0);
        }
        self.hashing.hash_one((session.slot, session.generation, &bytes[..]))
    }

    /// A message id that nobody can guess: acknowledgements are believed by it.
    fn fresh_id(&mut self) -> MessageId {
        #[expect(clippy::cast_possible_truncation, reason = "16 random bits")]
        MessageId(self.rng.next_u32() as u16)
    }
}

/// "MID `01 00`" or "`00 01`": the first packet of a process.
const fn is_first_id(id: u16) -> bool {
    id == 0x0100 || id == 0x0001
}

fn write_notification(out: &mut Vec<u8>, watch: &Watch, id: MessageId, sequence: u32, payload: &[u8]) {
    let code = watch.over.unwrap_or(Code::CONTENT);
    let mut writer = Writer::new(out, Kind::Confirmable, code, id, watch.token);
    // "Any non-2.05 notification ends it on the client": there is no order in it any more.
    if watch.over.is_none() {
        writer = writer.uint(coap::option::OBSERVE, sequence);
        if let Some(number) = watch.form.number() {
            writer = writer.uint(coap::option::CONTENT_FORMAT, number);
        }
        writer.payload(payload);
    } else {
        writer.done();
    }
}

/// The same where only the first block of the value fits: the client fetches the others.
fn write_first_part(out: &mut Vec<u8>, watch: &Watch, id: MessageId, sequence: u32, body: &[u8]) {
    let writer = Writer::new(out, Kind::Confirmable, Code::CONTENT, id, watch.token);
    let block = watch.block.first();
    let is_there = blocks::write_part(writer, body, block, Some(sequence), watch.form);
    assert!(is_there, "every body has a first block");
}

#[cfg(test)]
mod tests;
