//! What those are told who record the operations of a database.

use super::Index;
use crate::base::{Millis, Now, WallMillis};
use crate::data::Path;

/// One operation on a database, as its owner saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// What was done.
    pub kind: OperationKind,
    /// Where.
    pub path: Path,
    /// When.
    pub at: WallMillis,
    /// Of the data that was read, written or told, as JSON.
    pub bytes: usize,
    /// From when it was asked for until it was done.
    pub pending: Millis,
    /// Whether the rules allowed it.
    pub is_allowed: bool,
    /// What the query orders by, if the rules do not index that.
    pub unindexed: Option<Index>,
}

impl Operation {
    /// An operation that was allowed, on no data, and did not wait.
    #[must_use]
    pub const fn new(kind: OperationKind, path: Path, now: Now) -> Self {
        Self { kind, path, at: now.wall, bytes: 0, pending: Millis(0), is_allowed: true, unindexed: None }
    }
}

/// What is done to a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationKind {
    /// A session reads once.
    Read,
    /// A session replaces what stands somewhere.
    Write,
    /// A session writes on condition that something stands there.
    Transaction,
    /// A session changes several places.
    Update,
    /// A session begins to listen.
    Listen,
    /// Listeners are told.
    Broadcast,
    /// A session no longer listens.
    Unlisten,
    /// A read without a socket.
    RestRead,
    /// A write without a socket.
    RestWrite,
    /// A change of several places without a socket.
    RestUpdate,
    /// A session is over.
    Disconnect,
}

impl OperationKind {
    /// The name by which the original service's profiler knows it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "realtime-read",
            Self::Write => "realtime-write",
            Self::Transaction => "realtime-transaction",
            Self::Update => "realtime-update",
            Self::Listen => "listener-listen",
            Self::Broadcast => "listener-broadcast",
            Self::Unlisten => "listener-unlisten",
            Self::RestRead => "rest-read",
            Self::RestWrite => "rest-write",
            Self::RestUpdate => "rest-update",
            Self::Disconnect => "concurrent-disconnect",
        }
    }
}
