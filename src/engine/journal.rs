//! What an owner did, in order: what the simulator measures everything else by.
//!
//! Costs: nothing outside of tests, where it does not exist.

use std::sync::Arc;

use crate::base::{Now, SessionRef, ShardId};
use crate::op::{End, Identity};

/// One thing that an owner did.
#[derive(Clone, Debug)]
pub enum Record {
    /// It answered a session's request.
    Asked {
        /// When.
        now: Now,
        /// Whose.
        session: SessionRef,
        /// The client's number for it.
        number: i64,
        /// Under which identity.
        identity: Arc<Identity>,
        /// Bit `s`: shard `s` does nothing else of the database before it is answered.
        by: u64,
        /// They hold parts of the database.
        is_apart: bool,
    },
    /// It came by where few come by.
    Reached(&'static str),
    /// It heard who a session is from here on.
    Identified {
        /// Which.
        session: SessionRef,
        /// Who.
        identity: Arc<Identity>,
        /// Which engine.
        by: ShardId,
        /// It holds a part of the database.
        is_apart: bool,
    },
    /// It performed what a session left.
    Over {
        /// When.
        now: Now,
        /// Whose.
        session: SessionRef,
        /// Why.
        end: End,
        /// Under which identity.
        identity: Arc<Identity>,
        /// How many last words, a merge being one.
        words_count: usize,
        /// Other engines have nothing of it left.
        is_last: bool,
    },
}

/// What an engine holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Sessions that live here.
    pub sessions: usize,
    /// Listens in the shards here.
    pub listens: usize,
    /// Locations in the shards here that somebody listens to.
    pub listened_places: usize,
    /// Places in the shards here that some last word waits for, and all above them.
    pub held_places: usize,
    /// Messages of this engine to itself that it has not read.
    pub inner: usize,
}

/// Where an engine writes down what it does, if somebody reads it.
#[derive(Debug, Default)]
pub(super) struct Journal {
    #[cfg(any(test, feature = "sim"))]
    records: Vec<Record>,
}

impl Journal {
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn write(&mut self, record: impl FnOnce() -> Record) {
        self.records.push(record());
    }

    #[cfg(not(any(test, feature = "sim")))]
    #[expect(clippy::unused_self, reason = "nobody reads it")]
    pub(super) fn write(&mut self, _: impl FnOnce() -> Record) {}

    #[cfg(any(test, feature = "sim"))]
    pub(super) fn take(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.records)
    }
}
