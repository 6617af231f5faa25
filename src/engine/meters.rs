//! What an engine counts, for the operator.
//!
//! Plain numbers of one core: counting is an addition. Whoever wants them adds those of all cores up.

use super::{Engine, Request};
use crate::base::meter::Histogram;
use crate::op::{End, Namespace, Outcome, Protocol, Refusal};
use crate::shard::Shard;

/// What was asked of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// To change data.
    Write,
    /// To read once.
    Read,
    /// To be told.
    Listen,
    /// To leave or cancel last words.
    LastWord,
    /// Anything else.
    Other,
}

impl Kind {
    /// All of them, in their order.
    pub const ALL: [Self; 5] = [Self::Write, Self::Read, Self::Listen, Self::LastWord, Self::Other];

    /// The word for metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Read => "read",
            Self::Listen => "listen",
            Self::LastWord => "last_word",
            Self::Other => "other",
        }
    }

    pub(super) const fn of(request: &Request) -> Self {
        match request {
            Request::Write { .. } | Request::Exchange { .. } => Self::Write,
            Request::Get { .. } => Self::Read,
            Request::Listen { .. } => Self::Listen,
            Request::MayWrite { .. } | Request::Cancel { .. } => Self::LastWord,
            Request::Unlisten { .. } | Request::Profile => Self::Other,
        }
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Came {
    /// It was done.
    Done,
    /// The rules said no.
    Denied,
    /// The data was not what the client believed.
    Stale,
    /// A limit was reached.
    Limited,
    /// Refused for any other reason.
    Refused,
}

impl Came {
    /// All of them, in their order.
    pub const ALL: [Self; 5] = [Self::Done, Self::Denied, Self::Stale, Self::Limited, Self::Refused];

    /// The word for metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Denied => "denied",
            Self::Stale => "stale",
            Self::Limited => "limited",
            Self::Refused => "refused",
        }
    }

    pub(super) const fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Done | Outcome::Value(_) | Outcome::Listening { .. } => Self::Done,
            Outcome::Mismatch(_) | Outcome::Refused(Refusal::Stale) => Self::Stale,
            Outcome::Refused(Refusal::Denied) => Self::Denied,
            Outcome::Refused(Refusal::Limit(_)) => Self::Limited,
            Outcome::Refused(_) => Self::Refused,
        }
    }
}

/// What an engine has counted since it began, and what it holds now.
#[derive(Clone, Debug, Default)]
pub struct Meters {
    /// Connections now.
    pub connections: u64,
    /// Connections ever.
    pub connections_opened: u64,
    /// Of those, how many turned out to be encrypted.
    pub connections_encrypted: u64,
    /// Sessions now, by [`Protocol`].
    pub sessions: [u64; Protocol::ALL.len()],
    /// Sessions ever, by [`Protocol`].
    pub sessions_opened: [u64; Protocol::ALL.len()],
    /// From the last byte of a session to its end, in milliseconds, by [`End::index`]. Not of [`Protocol::Rest`].
    pub silences: [Histogram; End::ALL.len()],
    /// From the end of a session to when its last words were performed, in milliseconds.
    pub delays: Histogram,
    /// Requests to owners, by [`Kind`] and [`Came`].
    pub requests: [[u64; Came::ALL.len()]; Kind::ALL.len()],
    /// How many heard each event.
    pub listeners: Histogram,
    /// What a quota has refused: sessions, connections.
    pub unwelcome: u64,
    /// Last words that wait here.
    pub last_words: u64,
    /// Namespaces that stand here.
    pub namespaces: u64,
    /// Listens in the namespaces that stand here.
    pub listens: u64,
    /// Messages to itself that it has not read.
    pub inner: u64,
    /// Bytes of its tables of connections and sessions, without what stands behind them.
    pub table_bytes: u64,
}

impl Engine {
    /// What it has counted, and what it holds now. O(namespaces).
    #[must_use]
    pub fn meters(&self) -> Meters {
        let mut meters = self.meters.clone();
        let is_counted = |(namespace, shard): &(&Namespace, &Shard)| {
            // Of those that are spread each core has a part.
            !shard.is_part() || self.owner(namespace) == self.config.shard
        };
        meters.namespaces = self.shards.iter().filter(is_counted).count() as u64;
        meters.inner = self.inner.len() as u64;
        for (namespace, shard) in &self.shards {
            meters.last_words += shard.last_words_count() as u64;
            meters.listens += shard.listens_count(self.owner(namespace) == self.config.shard).0 as u64;
        }
        let tables = self.conns.capacity() * size_of::<super::conn::Conn>()
            + self.sessions.slots_count() as usize * (size_of::<super::home::Session>() + 24)
            + self.guests.capacity() * size_of::<Option<crate::base::SessionRef>>();
        meters.table_bytes = tables as u64;
        meters
    }
}
