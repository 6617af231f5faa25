//! When, and by whom, places were last written that last words are waiting for.

use super::places;
use crate::base::limits::CONNECTIONS_MAX;
use crate::base::{Hashing, Instant, Map, SessionRef, ShardId};
use crate::data::Location;
use crate::op::Write;

/// The stamps of one namespace on one shard.
///
/// A place is known by the 64-bit keyed hash of its path. Two places with the same hash share a
/// stamp: then a write to one counts as a write to the other, and a late last word can yield to a
/// write that was elsewhere. Among ten million places that happens to some pair with a chance of
/// three in a million, and nobody outside can aim for it. Holds and releases stay balanced even then.
///
/// Writes are noted only for places that are held. That loses nothing: a session is heard when it
/// registers a last word, so every write before the hold is older than what it will be compared with.
#[derive(Debug)]
pub struct Stamps {
    hashing: Hashing,
    stamps: Map<u64, Stamp>,
}

/// 24 bytes, as every place that is waited for has one.
#[derive(Clone, Copy, Debug)]
struct Stamp {
    /// When it was last written while held; [`NEVER`], which is before everything, at first.
    written_at: Instant,
    /// How many last words are waiting for this place or for one below it. Never zero.
    holds: u32,
    // The writer's `SessionRef`, in pieces that leave no gaps.
    slot: u32,
    generation: u32,
    home: ShardId,
}

const NEVER: Instant = Instant(0);
/// The slot of writers that are no sessions.
const NO_SLOT: u32 = u32::MAX;

const _: () = assert!(size_of::<Stamp>() == 24, "with its key, a stamp is four words");
const _: () = assert!(CONNECTIONS_MAX < NO_SLOT, "no session has the slot of writers that are none");

impl Stamps {
    /// Nothing held.
    #[must_use]
    pub fn new(hashing: Hashing) -> Self {
        let stamps = hashing.map();
        Self { hashing, stamps }
    }

    /// Whether nothing is held: then there is nothing to note either.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.stamps.is_empty()
    }

    /// How many places are known: those that are held, and all above them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.stamps.len()
    }

    /// How many places there is room for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.stamps.capacity()
    }

    /// Remembers writes to `place` and above it from now on. Once for each last word registered.
    pub fn hold(&mut self, place: &Location) {
        for key in keys(&self.hashing, place) {
            let new = Stamp { written_at: NEVER, holds: 0, slot: NO_SLOT, generation: 0, home: ShardId(0) };
            let stamp = self.stamps.entry(key).or_insert(new);
            stamp.holds = stamp.holds.checked_add(1).expect("fewer than 2^32 last words fit in memory");
        }
    }

    /// Takes back one [`hold`](Self::hold) of `place`: the last word is written, replaced or cancelled.
    pub fn release(&mut self, place: &Location) {
        for key in keys(&self.hashing, place) {
            let stamp = self.stamps.get_mut(&key).expect("only what is held is released");
            stamp.holds -= 1;
            if stamp.holds == 0 {
                self.stamps.remove(&key);
            }
        }
        // A mass end must not leave the room of a million stamps behind. Amortized O(1): it takes
        // three quarters of them to be released first.
        if self.stamps.len() < self.stamps.capacity() / 8 && self.stamps.capacity() > 1_024 {
            self.stamps.shrink_to(self.stamps.len() * 2);
        }
    }

    /// Notes that `write` was done. `writer` is the session, if it was one; `spoken_at` is when it
    /// asked for it: for late last words, when it was last heard.
    ///
    /// One lookup for each place of the write; none while nothing is held.
    pub fn note(&mut self, write: &Write, writer: Option<SessionRef>, spoken_at: Instant) {
        if self.stamps.is_empty() {
            return;
        }
        for place in places(write) {
            self.note_place(&place, writer, spoken_at);
        }
    }

    /// [`note`](Self::note) for one place.
    pub fn note_place(&mut self, place: &Location, writer: Option<SessionRef>, spoken_at: Instant) {
        let Some(stamp) = self.stamps.get_mut(&key(&self.hashing, place.path.as_str(), place.is_priority)) else {
            return;
        };
        // What is late does not cover what is newer.
        if spoken_at >= stamp.written_at {
            stamp.written_at = spoken_at;
            (stamp.home, stamp.slot, stamp.generation) =
                writer.map_or((ShardId(0), NO_SLOT, 0), |writer| (writer.home, writer.slot, writer.generation));
        }
    }

    /// Whether somebody other than `by` has written `place`, or a place above it, after `heard_at`.
    /// Only for places that are held. O(depth).
    #[must_use]
    pub fn is_newer_than(&self, place: &Location, heard_at: Instant, by: SessionRef) -> bool {
        keys(&self.hashing, place).any(|key| {
            self.stamps.get(&key).is_some_and(|stamp| {
                let is_own = (stamp.home, stamp.slot, stamp.generation) == (by.home, by.slot, by.generation);
                stamp.written_at > heard_at && !is_own
            })
        })
    }

    /// What is left of a late last word of `by`, last heard at `heard_at`: without the places that are
    /// [newer](Self::is_newer_than). `None`: nothing.
    #[must_use]
    pub fn without_newer(&self, mut write: Write, heard_at: Instant, by: SessionRef) -> Option<Write> {
        if let Write::Merge { path, changes } = &mut write {
            changes.retain(|(below, _)| !self.is_newer_than(&super::absolute(path, below), heard_at, by));
            return (!changes.is_empty()).then_some(write);
        }
        let is_newer = places(&write).any(|place| self.is_newer_than(&place, heard_at, by));
        (!is_newer).then_some(write)
    }
}

/// The keys of `place` and of all above it.
fn keys(hashing: &Hashing, place: &Location) -> impl Iterator<Item = u64> {
    let nodes = place.path.prefixes().map(move |above| key(hashing, above, false));
    nodes.chain(place.is_priority.then(|| key(hashing, place.path.as_str(), true)))
}

/// A priority is a place of its own, below the node that has it.
fn key(hashing: &Hashing, path: &str, is_priority: bool) -> u64 {
    hashing.hash_one((path, is_priority))
}
