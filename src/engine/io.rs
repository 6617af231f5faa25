//! The contract with the driver: one list of what can happen, one list of what may be done.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;

use super::guest::{GuestWord, Saying};
use super::message::Message;
use super::quota::Limits;
use crate::auth::Verifier;
use crate::base::{ConnId, GuestId, Millis, ShardId};
use crate::data::Path;
use crate::op::{End, Event, Namespace, Tag};
use crate::rules::Ruleset;
use crate::shard::Fate;

/// Something that happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum Input<'a> {
    /// A TCP connection was accepted. The driver chose `conn`.
    Opened {
        /// Its name from now until [`Input::Closed`].
        conn: ConnId,
        /// The other side.
        peer: SocketAddr,
    },
    /// The connection turns out to be encrypted. Comes before its first bytes, or never.
    Encrypted {
        /// Which.
        conn: ConnId,
    },
    /// Bytes arrived. They are the engine's to overwrite.
    Bytes {
        /// From whom.
        conn: ConnId,
        /// What.
        bytes: &'a mut [u8],
    },
    /// The connection is gone: the peer closed or broke it, or an [`Effect::Close`] is done. The name
    /// may be used again after this. Comes exactly once for each [`Input::Opened`].
    Closed {
        /// Which.
        conn: ConnId,
        /// How.
        how: Hangup,
    },
    /// After a turn, this much is still waiting to be sent. Comes whenever that has changed; zero when
    /// all is sent.
    Backlog {
        /// To whom.
        conn: ConnId,
        /// How much.
        bytes: usize,
    },
    /// A datagram arrived.
    Datagram {
        /// From whom.
        peer: Peer,
        /// What.
        bytes: &'a [u8],
    },
    /// The program that the server runs within says something for one of its clients.
    Guest {
        /// For which. The driver chose it; it may be used again after [`GuestWord::Over`].
        guest: GuestId,
        /// What.
        saying: Saying,
    },
    /// Messages from other shards. From one shard they come in the order in which they were sent. All are taken out.
    Forwarded {
        /// What.
        messages: &'a mut VecDeque<Message>,
    },
    /// Other rules apply from here on.
    Rules(Arc<Ruleset>),
    /// Others are believed from here on. Who has signed in already stays who it is until its credential
    /// runs out.
    Verifier(Arc<Verifier>),
    /// Other limits apply from here on. What there is already stays.
    Limits(Arc<Limits>),
    /// Whether the disk is full: then nothing new is taken in that would have to be written down, but what
    /// was left is spoken.
    Full(bool),
    /// How much memory is left: where there is little, nothing new is taken in.
    Room(Room),
    /// Time has passed, or there is work left.
    Tick,
    /// The server is about to stop: end every session, let what they leave be written, close.
    Drain,
}

/// The two ends of datagrams: answers must come from the very address that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The client's end.
    pub remote: SocketAddr,
    /// Ours, where it is not clear from the socket: unspecified otherwise.
    pub local: Ipv4Addr,
    /// Which core holds the keys, if datagrams between the two are sealed (DTLS).
    pub sealed_at: Option<ShardId>,
}

impl Peer {
    /// Whether both are the same client's end, and sealed or not alike.
    #[must_use]
    pub fn is_at(&self, other: &Self) -> bool {
        self.remote == other.remote && self.sealed_at.is_some() == other.sealed_at.is_some()
    }
}

/// How much memory is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Room {
    /// Enough.
    #[default]
    Ample,
    /// So little that there are no new sessions, and only deletes are written: to make room. Those who are
    /// there may still leave last words, and listen.
    Little,
    /// Less than that: only deletes are done, and what was left is spoken.
    None,
}

/// How a connection went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hangup {
    /// The peer finished sending.
    Finished,
    /// The peer, or the network, broke it.
    Broken,
    /// What was sent has not been acknowledged for as long as a session may be silent.
    Unanswered,
    /// We closed it.
    Ours,
}

/// Something to be done. In order: what stands first is done first.
#[derive(Debug)]
#[non_exhaustive]
pub enum Effect {
    /// Send these bytes of [`Output::bytes`].
    Send {
        /// To whom.
        conn: ConnId,
        /// Which.
        bytes: Range<usize>,
    },
    /// Send these bytes of [`Output::bytes`] as one datagram. It may get lost.
    Datagram {
        /// To whom.
        peer: Peer,
        /// Which.
        bytes: Range<usize>,
    },
    /// Close the connection once everything for it is sent, or cannot be. [`Input::Closed`] follows.
    Close {
        /// Which.
        conn: ConnId,
    },
    /// Stop (or go on) reading from the connection: its client asks faster than it can be served.
    Read {
        /// Which.
        conn: ConnId,
        /// Whether to go on.
        is_wanted: bool,
    },
    /// Give a message to another shard.
    Forward {
        /// To which.
        to: ShardId,
        /// What.
        message: Message,
    },
    /// Tell a guest's program something.
    Guest {
        /// Which guest.
        guest: GuestId,
        /// What.
        word: GuestWord,
    },
    /// Tell guests what has happened.
    TellGuests {
        /// What.
        event: Arc<Event>,
        /// Whom, each with its number for the listen.
        to: Vec<(GuestId, Tag)>,
    },
    /// Tell the operator.
    Notice(Notice),
    /// Everything of this shard is drained: the driver may stop.
    Drained,
}

/// What an engine wants done. The driver lends it, performs it, [clears](Output::clear) it and lends
/// it again.
#[derive(Debug, Default)]
pub struct Output {
    /// What [`Effect::Send`] points into.
    pub bytes: Vec<u8>,
    /// What to do, in order.
    pub effects: Vec<Effect>,
    /// What to write down (see [`crate::log`]) before anything of this is done: whoever learns what has
    /// happened can rely on it.
    pub records: Vec<u8>,
    /// Whether those must survive the loss of power, not only the end of the process.
    pub must_sync: bool,
}

impl Output {
    /// Empties it, keeping its room.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.effects.clear();
        self.records.clear();
        self.must_sync = false;
    }
}

/// Something that an operator may want to know. Never holds a credential or a client's data.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// A client broke the protocol, or a limit, and was sent away.
    Violation {
        /// Its connection.
        conn: ConnId,
        /// What it did.
        what: &'static str,
    },
    /// A session is over.
    Ended {
        /// Why.
        end: End,
        /// How long ago it was last heard.
        silent: Millis,
    },
    /// A session's last words were performed.
    LastWords {
        /// Why they were.
        end: End,
        /// How many were written.
        spoken: usize,
        /// How many yielded to newer writes.
        yielded: usize,
        /// How many the rules refused.
        denied: usize,
    },
    /// One last word was not written.
    Unspoken {
        /// Where.
        namespace: Namespace,
        /// The path that it was about.
        path: Path,
        /// Why not.
        fate: Fate,
        /// Why its session was over.
        end: End,
    },
}
