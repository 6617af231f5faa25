//! DTLS 1.2 (RFC 6347) for devices: a second socket a core whose datagrams are opened here before the engine sees
//! them, and sealed here after it has written them.
//!
//! The library is OpenSSL, asked without sockets: a tunnel reads one datagram from a [`Pipe`] and writes datagrams
//! into it. Nobody leaves anything behind who has not shown that it receives: a first `ClientHello` is answered with
//! a cookie made from its address, smaller than itself, and forgotten. Only the one that brings the cookie back
//! becomes a handshake; these are counted, altogether and for each host, end after [`HANDSHAKE_MAX`], and cost
//! [`STEPS_PER_TURN`] steps a turn at most: the others wait, while the established ones are served.
//!
//! The surprising idea: whoever is at the other end of an established tunnel may begin anew from the same address,
//! as devices do that have lost their memory. The old tunnel goes on until the new one is established, so that a
//! stranger who forges the address ends nobody's (RFC 6347 section 4.2.8).
//!
//! Costs: a tunnel holds some 70 kB of OpenSSL's; a handshake is a signature and an agreement, 0.3 ms; a first hello
//! 8 µs; a datagram 1 to 2 µs.

mod cookies;
mod keys;
mod records;
mod tunnel;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;

use openssl::ssl::SslContext;

use self::cookies::Cookies;
pub use self::keys::DtlsKeys;
use self::tunnel::{Heard, Listener, Tunnel};
use super::tls::Complaints;
use crate::base::{Hashing, Instant, Map, Millis, ShardId};
use crate::engine::Peer;

/// Steps of handshakes in one turn: the others get their turn, and the established ones theirs.
const STEPS_PER_TURN: usize = 8;
/// First looks at a `ClientHello` in one turn: each is one keyed hash.
const HELLOS_PER_TURN: usize = 128;
/// Datagrams that wait for a step of a handshake; further ones are lost, as datagrams are.
const WAITING_MAX: usize = 512;
/// Handshakes of one core that are under way: each holds what a tunnel does. Beyond it the oldest gives way.
const HANDSHAKES_MAX: usize = 2_048;
/// Handshakes of one host that are under way: a house full of devices may come back at once.
const HANDSHAKES_PER_HOST_MAX: u32 = 256;
/// How long a handshake may take. A device of Wilddog's SDK gives up after 20 s.
const HANDSHAKE_MAX: Millis = Millis(30_000);
/// How often a handshake is looked after: whether it is over, whether its flight is to be sent again.
const HANDSHAKE_VISIT: Millis = Millis(1_000);
/// Tunnels of one core; whoever comes then is not answered, and tries again later.
const TUNNELS_MAX: usize = 1 << 14;
/// How long a tunnel may be silent: longer than any session may be that devices have (11 minutes).
const SILENCE_MAX: Millis = Millis(15 * 60_000);
/// How often a tunnel is looked after.
const TUNNEL_VISIT: Millis = Millis(60_000);

const _: () = assert!(HANDSHAKE_VISIT.0 < HANDSHAKE_MAX.0, "a handshake is looked after before it is over");
const _: () = assert!(HANDSHAKES_MAX < TUNNELS_MAX, "handshakes must be able to become tunnels");

/// The two addresses between which a tunnel leads.
type Ends = (SocketAddr, Ipv4Addr);

/// What there is between two addresses: one tunnel, or one to be, or both.
struct Association {
    /// Another number for each that ever was.
    serial: u64,
    tunnel: Option<Tunnel>,
    handshake: Option<Box<Handshake>>,
    heard: Instant,
}

/// A tunnel to be.
struct Handshake {
    serial: u64,
    tunnel: Tunnel,
    began: Instant,
    /// The client's, by which its hello is known if it comes again.
    random: [u8; HELLO_RANDOM_BYTES],
}

/// One core's tunnels.
pub(super) struct Dtls {
    shard: ShardId,
    context: SslContext,
    cookies: Cookies,
    listener: Option<Listener>,
    associations: Map<Ends, Association>,
    serials: u64,
    handshakes: usize,
    hosts: Map<IpAddr, u32>,
    /// Handshakes, the oldest visit first, each once (and those that are over, until their visit).
    handshake_visits: VecDeque<(Instant, Ends, u64)>,
    /// Associations, likewise.
    tunnel_visits: VecDeque<(Instant, Ends, u64)>,
    waiting: VecDeque<(Peer, Box<[u8]>)>,
    steps_left: usize,
    hellos_left: usize,
    /// What has arrived for the engine: ranges of `opened`.
    arrived: VecDeque<(Peer, Range<usize>)>,
    current: Option<(Peer, Range<usize>)>,
    opened: Vec<u8>,
    /// What is to be sent: ranges of `sealed`.
    posted: Vec<(Peer, Range<usize>)>,
    sealed: Vec<u8>,
    complaints: Complaints,
    now: Instant,
}

/// Where in a datagram that begins with a `ClientHello` its random is: behind the heads of the record (13 bytes)
/// and of the message (12), and the version (RFC 6347 sections 4.1, 4.2.2 and 4.3.2).
const HELLO_RANDOM_AT: usize = 13 + 12 + 2;
const HELLO_RANDOM_BYTES: usize = 32;

/// The random of the `ClientHello` in the clear that a datagram begins with, if it does.
fn hello_random(datagram: &[u8]) -> Option<[u8; HELLO_RANDOM_BYTES]> {
    const HANDSHAKE: u8 = 22;
    const CLIENT_HELLO: u8 = 1;
    let random = datagram.get(HELLO_RANDOM_AT..HELLO_RANDOM_AT + HELLO_RANDOM_BYTES)?;
    let is_hello = datagram[0] == HANDSHAKE && datagram[3..5] == [0, 0] && datagram[13] == CLIENT_HELLO;
    is_hello.then(|| random.try_into().expect("as many as were cut out"))
}

impl Dtls {
    pub(super) fn new(shard: ShardId, keys: &DtlsKeys) -> Self {
        let hashing = Hashing::from_seed(cookies::seed());
        Self {
            shard,
            context: keys.context.clone(),
            cookies: Cookies::new(),
            listener: None,
            associations: hashing.map(),
            serials: 0,
            handshakes: 0,
            hosts: hashing.map(),
            handshake_visits: VecDeque::new(),
            tunnel_visits: VecDeque::new(),
            waiting: VecDeque::new(),
            steps_left: 0,
            hellos_left: 0,
            arrived: VecDeque::new(),
            current: None,
            opened: Vec::new(),
            posted: Vec::new(),
            sealed: Vec::new(),
            complaints: Complaints::default(),
            now: Instant(0),
        }
    }

    /// New handshakes show these from here on. Tunnels stay as they are.
    pub(super) fn certify(&mut self, keys: &DtlsKeys) {
        self.context = keys.context.clone();
        self.listener = None;
    }

    /// A turn begins.
    pub(super) fn begin(&mut self, now: Instant) {
        self.now = now;
        self.steps_left = STEPS_PER_TURN;
        self.hellos_left = HELLOS_PER_TURN;
        self.cookies.turn(now);
        self.visit_handshakes();
        self.visit_tunnels();
    }

    /// When to come back at the latest.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        let queues = [self.handshake_visits.front(), self.tunnel_visits.front()];
        queues.into_iter().flatten().map(|(due, ..)| *due).min()
    }

    /// Whether another turn would bring something.
    pub(super) fn has_work(&self, is_held: bool) -> bool {
        !self.arrived.is_empty() || !self.posted.is_empty() || (!self.waiting.is_empty() && !is_held)
    }

    /// A datagram has come from the socket.
    pub(super) fn arrive(&mut self, peer: Peer, datagram: &[u8]) {
        if self.arrived.is_empty() {
            self.opened.clear();
        }
        if let Some(random) = hello_random(datagram) {
            if self.hellos_left == 0 || self.steps_left == 0 {
                self.put_off(peer, datagram);
            } else {
                self.hellos_left -= 1;
                self.hello(peer, datagram, random);
            }
            return;
        }
        let ends = (peer.remote, peer.local);
        let Some(association) = self.associations.get(&ends) else { return };
        if association.handshake.is_some() {
            if self.steps_left == 0 {
                return self.put_off(peer, datagram);
            }
            self.steps_left -= 1;
            if self.step(peer, datagram) {
                // What came along behind the end of the handshake.
                return self.open(peer, &[]);
            }
        }
        self.open(peer, datagram);
    }

    fn put_off(&mut self, peer: Peer, datagram: &[u8]) {
        if self.waiting.len() < WAITING_MAX {
            self.waiting.push_back((peer, datagram.into()));
        }
    }

    /// Moves on to the next datagram for the engine. `false`: there is none (any more).
    pub(super) fn advance(&mut self, is_held: bool) -> bool {
        while self.arrived.is_empty() && !is_held && self.steps_left > 0 && self.hellos_left > 0 {
            let Some((peer, datagram)) = self.waiting.pop_front() else { break };
            self.arrive(peer, &datagram);
        }
        self.current = self.arrived.pop_front();
        self.current.is_some()
    }

    /// The datagram that [`advance`](Self::advance) has moved to.
    pub(super) fn current(&self) -> (Peer, &[u8]) {
        let (peer, range) = self.current.clone().expect("it was moved to");
        (peer, &self.opened[range])
    }

    /// Somebody wants to begin.
    fn hello(&mut self, peer: Peer, datagram: &[u8], random: [u8; HELLO_RANDOM_BYTES]) {
        let ends = (peer.remote, peer.local);
        let known = self.associations.get(&ends);
        let handshake = known.and_then(|association| association.handshake.as_ref());
        if handshake.is_some_and(|handshake| handshake.random == random) && has_cookie(datagram) {
            // It has come again: its answer is sent again when it is due.
            return;
        }
        let listener = match self.listener.take() {
            Some(listener) => listener,
            None => match Listener::new(&self.context) {
                Ok(listener) => listener,
                Err(error) => return self.complaints.tell(self.now, "DTLS cannot be begun", &error),
            },
        };
        let cookies = self.cookies.of(peer.remote);
        match listener.hear(datagram, cookies) {
            Heard::Nothing(listener, answer) => {
                self.listener = Some(listener);
                // A cookie is shorter than what asked for it; nothing else is said to who has none.
                for bytes in answer.iter().filter(|bytes| bytes.len() <= datagram.len()) {
                    self.post(peer, bytes);
                }
            }
            Heard::Hello(tunnel) => {
                if self.admits(peer) {
                    self.steps_left -= 1;
                    self.begin_handshake(peer, tunnel, random);
                }
            }
        }
    }

    /// Whether there may be one more handshake with that peer. Makes room for it.
    fn admits(&mut self, peer: Peer) -> bool {
        let ends = (peer.remote, peer.local);
        self.end_handshake(ends);
        let is_new = !self.associations.contains_key(&ends);
        let of_host = self.hosts.get(&peer.remote.ip()).copied().unwrap_or_default();
        if of_host >= HANDSHAKES_PER_HOST_MAX || (is_new && self.associations.len() >= TUNNELS_MAX) {
            return false;
        }
        while self.handshakes >= HANDSHAKES_MAX {
            let (_, oldest, serial) = self.handshake_visits.pop_front().expect("each handshake is in it");
            if self.is_handshake(oldest, serial) {
                self.end_handshake(oldest);
            }
        }
        true
    }

    fn begin_handshake(&mut self, peer: Peer, tunnel: Tunnel, random: [u8; HELLO_RANDOM_BYTES]) {
        let ends = (peer.remote, peer.local);
        let now = self.now;
        self.serials += 1;
        let serial = self.serials;
        let visits = &mut self.tunnel_visits;
        let association = self.associations.entry(ends).or_insert_with(|| {
            visits.push_back((now + TUNNEL_VISIT, ends, serial));
            Association { serial, tunnel: None, handshake: None, heard: now }
        });
        association.handshake = Some(Box::new(Handshake { serial, tunnel, began: now, random }));
        self.handshakes += 1;
        *self.hosts.entry(peer.remote.ip()).or_default() += 1;
        self.handshake_visits.push_back((now + HANDSHAKE_VISIT, ends, serial));
        self.step(peer, &[]);
    }

    fn is_handshake(&self, ends: Ends, serial: u64) -> bool {
        let handshake = self.associations.get(&ends).and_then(|association| association.handshake.as_ref());
        handshake.is_some_and(|handshake| handshake.serial == serial)
    }

    /// The handshake between two addresses has failed.
    fn end_handshake(&mut self, ends: Ends) {
        let _failed = self.take_handshake(ends);
        if self.associations.get(&ends).is_some_and(|there| there.tunnel.is_none()) {
            self.associations.remove(&ends);
        }
    }

    /// The handshake between two addresses is over, whatever came of it.
    fn take_handshake(&mut self, ends: Ends) -> Option<Tunnel> {
        let association = self.associations.get_mut(&ends)?;
        let handshake = association.handshake.take()?;
        self.handshakes -= 1;
        let of_host = self.hosts.get_mut(&ends.0.ip()).expect("each handshake is counted");
        *of_host -= 1;
        if *of_host == 0 {
            self.hosts.remove(&ends.0.ip());
        }
        Some(handshake.tunnel)
    }

    /// A handshake goes on with what has arrived for it. Says whether it is done.
    fn step(&mut self, peer: Peer, datagram: &[u8]) -> bool {
        let ends = (peer.remote, peer.local);
        let Some(association) = self.associations.get_mut(&ends) else { return false };
        let Some(handshake) = &mut association.handshake else { return false };
        let done = handshake.tunnel.shake(datagram);
        let answer = handshake.tunnel.take_written();
        self.post_all(peer, &answer);
        match done {
            Ok(false) => false,
            Ok(true) => {
                let tunnel = self.take_handshake(ends);
                let association = self.associations.get_mut(&ends).expect("it was looked at just now");
                (association.tunnel, association.heard) = (tunnel, self.now);
                true
            }
            Err(error) => {
                self.end_handshake(ends);
                self.complaints.tell(self.now, "a DTLS handshake has failed", &error);
                false
            }
        }
    }

    /// Something has arrived through a tunnel, perhaps.
    fn open(&mut self, peer: Peer, datagram: &[u8]) {
        let ends = (peer.remote, peer.local);
        let Some(association) = self.associations.get_mut(&ends) else { return };
        let Some(tunnel) = &mut association.tunnel else { return };
        let from = self.opened.len();
        let mut at = from;
        let (arrived, opened) = (&mut self.arrived, &mut self.opened);
        let peer = Peer { sealed_at: Some(self.shard), ..peer };
        let is_up = tunnel.open(datagram, opened, |end| {
            arrived.push_back((peer, at..end));
            at = end;
        });
        if at > from {
            association.heard = self.now;
        }
        let answer = tunnel.take_written();
        let is_idle = association.handshake.is_none();
        if !is_up {
            association.tunnel = None;
            if is_idle {
                self.associations.remove(&ends);
            }
        }
        self.post_all(peer, &answer);
    }

    /// Seals a datagram of the engine's.
    pub(super) fn seal(&mut self, peer: Peer, bytes: &[u8]) {
        let Some(association) = self.associations.get_mut(&(peer.remote, peer.local)) else { return };
        let Some(tunnel) = &mut association.tunnel else { return };
        tunnel.seal(bytes);
        let sealed = tunnel.take_written();
        self.post_all(peer, &sealed);
    }

    /// What is to be sent, and to whom.
    pub(super) fn take_posted(&mut self) -> (Vec<(Peer, Range<usize>)>, Vec<u8>) {
        (std::mem::take(&mut self.posted), std::mem::take(&mut self.sealed))
    }

    /// The room of what was sent, for the next time.
    pub(super) fn recycle(&mut self, mut posted: Vec<(Peer, Range<usize>)>, mut sealed: Vec<u8>) {
        posted.clear();
        sealed.clear();
        (self.posted, self.sealed) = (posted, sealed);
    }

    fn post_all(&mut self, peer: Peer, datagrams: &[Box<[u8]>]) {
        for bytes in datagrams {
            self.post(peer, bytes);
        }
    }

    fn post(&mut self, peer: Peer, bytes: &[u8]) {
        let from = self.sealed.len();
        self.sealed.extend_from_slice(bytes);
        self.posted.push((peer, from..self.sealed.len()));
    }

    fn visit_handshakes(&mut self) {
        while let Some(&(due, ends, serial)) = self.handshake_visits.front()
            && due <= self.now
        {
            self.handshake_visits.pop_front();
            if !self.is_handshake(ends, serial) {
                continue;
            }
            let association = self.associations.get_mut(&ends).expect("it was looked at just now");
            let handshake = association.handshake.as_mut().expect("as above");
            if self.now.since(handshake.began) >= HANDSHAKE_MAX || !handshake.tunnel.look_after() {
                self.end_handshake(ends);
                continue;
            }
            let again = handshake.tunnel.take_written();
            let peer = Peer { remote: ends.0, local: ends.1, sealed_at: Some(self.shard) };
            self.post_all(peer, &again);
            self.handshake_visits.push_back((self.now + HANDSHAKE_VISIT, ends, serial));
        }
    }

    fn visit_tunnels(&mut self) {
        while let Some(&(due, ends, serial)) = self.tunnel_visits.front()
            && due <= self.now
        {
            self.tunnel_visits.pop_front();
            let Some(association) = self.associations.get(&ends).filter(|there| there.serial == serial) else {
                continue;
            };
            let is_silent = self.now.since(association.heard) >= SILENCE_MAX;
            if is_silent && association.handshake.is_none() {
                self.associations.remove(&ends);
            } else {
                self.tunnel_visits.push_back((self.now + TUNNEL_VISIT, ends, serial));
            }
        }
    }
}

/// Whether a `ClientHello` brings a cookie: behind the random stand a session's name and the cookie, each with its
/// length.
fn has_cookie(datagram: &[u8]) -> bool {
    let session_at = HELLO_RANDOM_AT + HELLO_RANDOM_BYTES;
    let session_bytes = datagram.get(session_at).copied().unwrap_or_default();
    datagram.get(session_at + 1 + usize::from(session_bytes)).is_some_and(|bytes| *bytes > 0)
}

impl std::fmt::Debug for Dtls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dtls").field("associations", &self.associations.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
