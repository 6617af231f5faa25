//! The shared vocabulary: what sessions ask for, what shards answer, whatever the wire.
//!
//! Protocols translate into these words and out of them; the engine knows no others.

mod identity;
mod look;
mod operation;
mod query;

pub use identity::Identity;
pub use look::{
    Became, Cause, ChildPage, Explained, Figures, Glance, Happened, Look, Owned, PageCall, Protocol, RecentPage,
    SessionMark, SessionPage, SessionRow, Sight, Trace, Tried, Who, WordMark, WordPage, WordRow, kind_of,
};
pub use operation::{Operation, OperationKind};
pub use query::{Bound, BoundKey, BoundText, Direction, Index, Limit, Query};

use std::sync::Arc;

use crate::data::{Draft, Invalid, InvalidPath, Location, Node, Path, PriorityDraft};

/// The name of a namespace: one database.
pub type Namespace = Arc<str>;

/// A client's number for one of its queries; absent for the listen to a whole location.
pub type Tag = Option<u64>;

/// One thing to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Replace what stands at a path.
    Set {
        /// Where.
        path: Path,
        /// With what.
        value: Draft,
    },
    /// Replace the priority of what stands at a path.
    SetPriority {
        /// Where.
        path: Path,
        /// With what.
        priority: PriorityDraft,
    },
    /// Replace several places below a path, all or none. No place is above another.
    Merge {
        /// Above all places.
        path: Path,
        /// Places relative to `path`, and what each gets.
        changes: Vec<(Location, Draft)>,
    },
}

impl Write {
    /// The path that the write is about.
    #[must_use]
    pub const fn path(&self) -> &Path {
        match self {
            Self::Set { path, .. } | Self::SetPriority { path, .. } | Self::Merge { path, .. } => path,
        }
    }

    /// The same at another path.
    #[must_use]
    pub fn at(&self, path: Path) -> Self {
        match self.clone() {
            Self::Set { value, .. } => Self::Set { path, value },
            Self::SetPriority { priority, .. } => Self::SetPriority { path, priority },
            Self::Merge { changes, .. } => Self::Merge { path, changes },
        }
    }

    /// Every place that the write replaces, absolute.
    #[must_use]
    pub fn places(&self) -> Vec<Location> {
        match self {
            Self::Set { path, .. } => vec![path.clone().into()],
            Self::SetPriority { path, .. } => vec![Location { path: path.clone(), is_priority: true }],
            Self::Merge { path, changes } => changes
                .iter()
                .map(|(place, _)| Location { path: path.join(&place.path), is_priority: place.is_priority })
                .collect(),
        }
    }
}

/// What a session asks of the shard that owns the data.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Change data. With `if_hash`, only if the node at the write's path has that hash.
    Write {
        /// What to change.
        write: Write,
        /// The hash that the client believes in.
        if_hash: Option<String>,
    },
    /// Change data and say what stands at the write's path then. With `if_hash`, only if the node at
    /// that path has this hash; if it has not, say what stands there instead.
    Exchange {
        /// What to change.
        write: Write,
        /// The hash that the client believes in.
        if_hash: Option<String>,
    },
    /// Read once.
    Get {
        /// Where.
        path: Path,
        /// What of it.
        query: Query,
    },
    /// Read, and go on telling.
    Listen {
        /// Where.
        path: Path,
        /// What of it.
        query: Query,
        /// The client's number for it.
        tag: Tag,
        /// The hash of what the client still has; `None`: it did not say.
        hash: Option<String>,
    },
    /// Stop telling.
    Unlisten {
        /// Where.
        path: Path,
        /// The client's number for it.
        tag: Tag,
    },
    /// Leave this write as a last word, if it would be allowed now. Its paths are then held (see
    /// `presence::Stamps`) until it is spoken, replaced or cancelled.
    MayWrite {
        /// The last word.
        write: Write,
        /// How much of the session's room it takes, in bytes.
        bytes: usize,
    },
    /// Cancel the last words at and below this path.
    Cancel {
        /// Where.
        path: Path,
    },
    /// Tell of every operation from here on. For administrators.
    Profile,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Done.
    Done,
    /// Done; the value that was read.
    Value(Node),
    /// Not done: the hash that the client believed in is not that of this value, which it may read.
    Mismatch(Node),
    /// Listening from here on. The value was sent before, unless the client had it.
    Listening {
        /// The query orders by something that the rules do not index.
        is_unindexed: bool,
    },
    /// Refused; nothing has changed.
    Refused(Refusal),
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The rules say no.
    Denied,
    /// The data is not what the client believes it to be.
    Stale,
    /// The data cannot be stored.
    Data(Invalid),
    /// The path is none.
    Path(InvalidPath),
    /// A place of a merge is above another.
    Overlap,
    /// The request lacks something, or something in it has the wrong type; the text names it.
    Malformed(&'static str),
    /// A limit is reached; the text names it.
    Limit(&'static str),
    /// Nobody knows this action.
    UnknownAction,
    /// The session that the request names is not there.
    NoSession,
    /// The credential is wrong; the text says how.
    Credential(BadCredential),
    /// The server is going away.
    Unavailable,
}

/// What is wrong with a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadCredential {
    /// It is not one, or its signature is wrong, or nobody here trusts its issuer.
    Invalid,
    /// Its time is over.
    Expired,
    /// It is good, but not for this.
    Forbidden,
}

/// What happened to data that somebody listens to. Paths are absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// What stands at `path` is now this.
    Set {
        /// Where.
        path: Path,
        /// What, in full.
        node: Node,
    },
    /// What stands at these places below `path` is now this; the rest is as it was.
    Merge {
        /// Above all places.
        path: Path,
        /// Places relative to `path`, and what stands there now.
        changes: Vec<(Path, Node)>,
    },
    /// The listen is over: the rules no longer allow it.
    Revoked {
        /// Where it listened.
        path: Path,
        /// To what of it.
        query: Query,
    },
    /// Something was done to the database. Told to streams alone.
    Operation(Box<Operation>),
}

/// Something that a session's client is told in answer, or about itself. (What happens to data is an
/// [`Event`].)
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Word<'w> {
    /// The answer to a request.
    Outcome {
        /// The client's number for the request.
        number: i64,
        /// What came of it.
        outcome: &'w Outcome,
    },
    /// The answer to a sign-in that succeeded.
    SignedIn {
        /// The client's number for the request.
        number: i64,
        /// Who it is now.
        identity: &'w Identity,
    },
    /// The answer to a sign-out.
    SignedOut {
        /// The client's number for the request.
        number: i64,
    },
    /// The answer to an echo.
    Echo {
        /// The client's number for the request.
        number: i64,
        /// What it said: JSON.
        json: &'w str,
    },
    /// The answer to a ping of the protocol's own.
    Pong,
    /// The credential is no longer accepted: the session goes on as nobody.
    CredentialRevoked(BadCredential),
}

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// The client said goodbye.
    Closed,
    /// The transport broke.
    Dropped,
    /// Nothing was heard until the deadline.
    TimedOut,
    /// The same client came back under a new session and named this one.
    Superseded,
    /// We ended it: it broke the protocol, reached a limit, or an operator asked.
    Killed,
    /// The server went away.
    ServerStopped,
}

impl End {
    /// All of them, in their order.
    pub const ALL: [Self; 6] =
        [Self::Closed, Self::Dropped, Self::TimedOut, Self::Superseded, Self::Killed, Self::ServerStopped];

    /// As an index into tables of [`Self::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Whether the session ended in silence, so that its last words are *late*: they count as spoken
    /// when it was last heard.
    #[must_use]
    pub const fn is_silent(self) -> bool {
        matches!(self, Self::TimedOut)
    }

    /// The word for logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Dropped => "dropped",
            Self::TimedOut => "timed_out",
            Self::Superseded => "superseded",
            Self::Killed => "killed",
            Self::ServerStopped => "server_stopped",
        }
    }
}
