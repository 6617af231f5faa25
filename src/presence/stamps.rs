//! When, and by whom, places were last written that last words are waiting for.

#![expect(clippy::disallowed_types, reason = "its keys are keyed hashes already, and are not hashed again")]

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};

use super::places;
use crate::base::limits::CONNECTIONS_MAX;
use crate::base::{Hashing, Instant, SessionRef, ShardId};
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
    /// Empty until the first hold, then [`PARTS`] maps; a key's part is in its bits 40 to 45. A map that
    /// outgrows its room moves all that it holds at once, and nobody should wait for a million.
    parts: Vec<Part>,
    len: usize,
}

type Part = HashMap<u64, Stamp, BuildHasherDefault<AsItIs>>;

const PARTS: usize = 64;

/// The hash of a key that is a hash.
#[derive(Default)]
struct AsItIs(u64);

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

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("a key is one number")
    }
    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

impl Stamps {
    /// Nothing held.
    #[must_use]
    pub const fn new(hashing: Hashing) -> Self {
        Self { hashing, parts: Vec::new(), len: 0 }
    }

    /// Whether nothing is held: then there is nothing to note either.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many places are known: those that are held, and all above them.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// How many places there is room for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.parts.iter().map(HashMap::capacity).sum()
    }

    /// Remembers writes to `place` and above it from now on. Once for each last word registered.
    pub fn hold(&mut self, place: &Location) {
        if self.parts.is_empty() {
            self.parts.resize_with(PARTS, Part::default);
        }
        for key in keys(&self.hashing, place) {
            let new = Stamp { written_at: NEVER, holds: 0, slot: NO_SLOT, generation: 0, home: ShardId(0) };
            let stamp = self.parts[part_of(key)].entry(key).or_insert(new);
            self.len += usize::from(stamp.holds == 0);
            stamp.holds = stamp.holds.checked_add(1).expect("fewer than 2^32 last words fit in memory");
        }
    }

    /// Takes back one [`hold`](Self::hold) of `place`: the last word is written, replaced or cancelled.
    pub fn release(&mut self, place: &Location) {
        for key in keys(&self.hashing, place) {
            let part = self.parts.get_mut(part_of(key)).expect("only what is held is released");
            let stamp = part.get_mut(&key).expect("only what is held is released");
            stamp.holds -= 1;
            if stamp.holds == 0 {
                part.remove(&key);
                self.len -= 1;
                // A mass end must not leave the room of a million stamps behind. Amortized O(1): three
                // quarters of them are released before.
                if part.len() < part.capacity() / 8 && part.capacity() > 64 {
                    part.shrink_to(part.len() * 2);
                }
            }
        }
        if self.len == 0 {
            self.parts = Vec::new();
        }
    }

    /// Adds what another part of the same database has held and noted. Both have the same hashing.
    pub fn unite(&mut self, other: Self) {
        if other.parts.is_empty() {
            return;
        }
        if self.parts.is_empty() {
            *self = other;
            return;
        }
        for (key, stamp) in other.parts.into_iter().flatten() {
            match self.parts[part_of(key)].entry(key) {
                Entry::Vacant(place) => {
                    place.insert(stamp);
                    self.len += 1;
                }
                Entry::Occupied(mut place) => {
                    let held = place.get_mut();
                    let holds = held.holds.checked_add(stamp.holds).expect("fewer than 2^32 last words fit in memory");
                    if stamp.written_at > held.written_at {
                        *held = stamp;
                    }
                    held.holds = holds;
                }
            }
        }
    }

    /// Notes that `write` was done. `writer` is the session, if it was one; `spoken_at` is when it
    /// asked for it: for late last words, when it was last heard.
    ///
    /// One lookup for each place of the write; none while nothing is held.
    pub fn note(&mut self, write: &Write, writer: Option<SessionRef>, spoken_at: Instant) {
        if self.is_empty() {
            return;
        }
        for place in places(write) {
            self.note_place(&place, writer, spoken_at);
        }
    }

    /// [`note`](Self::note) for one place.
    pub fn note_place(&mut self, place: &Location, writer: Option<SessionRef>, spoken_at: Instant) {
        let key = key(&self.hashing, place.path.as_str(), place.is_priority);
        let Some(stamp) = self.parts.get_mut(part_of(key)).and_then(|part| part.get_mut(&key)) else { return };
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
        !self.is_empty()
            && keys(&self.hashing, place).any(|key| {
                self.parts[part_of(key)].get(&key).is_some_and(|stamp| {
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

const fn part_of(key: u64) -> usize {
    (key >> 40) as usize % PARTS
}

/// A priority is a place of its own, below the node that has it.
fn key(hashing: &Hashing, path: &str, is_priority: bool) -> u64 {
    hashing.hash_one((path, is_priority))
}
