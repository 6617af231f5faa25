//! Which write last changed a place, by whom and when: for those who wonder why something stands there.
//!
//! The surprising idea: nothing is searched and nothing grows. A table of fixed size holds, under the
//! keyed hash of its path, the latest write of each place; what is old makes room for what is new. So a
//! presence that changed an hour ago is still explained where a busy counter beside it has changed a
//! million times: that takes one slot.
//!
//! Costs: a place of 128 bytes and two looks at the table for each place that is written; up to
//! `CHUNKS` · 8 KiB a core, made as it is needed; a question about what is below looks at all of it.

use smallvec::SmallVec;

use crate::base::{Hashing, SessionRef, ShardId, WallMillis};
use crate::data::Path;
use crate::op::{Cause, End, Namespace, Trace, Who, Write};
use crate::presence::{places, places_count};

/// Slots of one chunk.
const CHUNK_SLOTS: usize = 64;
/// Chunks of a full table.
const CHUNKS: usize = 256;
/// Places of one write that are remembered each for itself; of a longer one only what is above all.
const PLACES_MAX: usize = 256;
/// Bytes of a path that a slot can hold; a longer one is found by who asks for it.
const PATH_BYTES: usize = 52;
/// Bytes of a user's id that a slot can hold: those of Firebase have 28.
const UID_BYTES: usize = 36;

/// A path's length where it was too long.
const UNKEPT: u8 = u8::MAX;
/// Writes of one millisecond whose order is surely kept.
const ORDER_BITS: u32 = 16;
/// What stands for a user's id in `uid_len` where there is none.
const NOBODY: u8 = u8::MAX;
const SOMEBODY: u8 = u8::MAX - 1;
const ADMIN: u8 = u8::MAX - 2;

const _: () = assert!(CHUNK_SLOTS.is_power_of_two() && CHUNKS.is_power_of_two(), "a slot is found by masks");
const _: () = assert!(PATH_BYTES < UNKEPT as usize, "a length is one byte");
const _: () = assert!(UID_BYTES < ADMIN as usize, "a length is one byte");

/// The latest writes of places.
#[derive(Debug)]
pub(in crate::engine) struct Trail {
    hashing: Hashing,
    /// Empty until something is written, then [`CHUNKS`].
    chunks: Vec<Option<Box<[Slot; CHUNK_SLOTS]>>>,
    /// That of the latest write: grows with the time, so that what several cores remember has one order.
    order: u64,
}

/// One place, 128 bytes.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct Slot {
    /// The keyed hash of namespace and path; what is vacant has an `order` of zero.
    tag: u64,
    order: u64,
    at: u64,
    session_slot: u32,
    generation: u32,
    /// Half of the keyed hash of the namespace: for those who look at all slots.
    namespace: u32,
    home: u8,
    cause: u8,
    path_len: u8,
    uid_len: u8,
    text: [u8; PATH_BYTES + UID_BYTES],
}

const _: () = assert!(size_of::<Slot>() == 128, "two cache lines");

const VACANT: Slot = Slot {
    tag: 0,
    order: 0,
    at: 0,
    session_slot: 0,
    generation: 0,
    namespace: 0,
    home: 0,
    cause: 0,
    path_len: 0,
    uid_len: NOBODY,
    text: [0; PATH_BYTES + UID_BYTES],
};

/// The places of a write that may yet be refused.
#[derive(Debug, Default)]
pub(in crate::engine) struct Sketch(SmallVec<[Slot; 1]>);

/// Who asked for a write, and how.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct By<'w> {
    pub(in crate::engine) session: SessionRef,
    pub(in crate::engine) who: WhoRef<'w>,
    pub(in crate::engine) cause: Cause,
}

/// A [`Who`] that nothing is allocated for.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) enum WhoRef<'w> {
    Nobody,
    Somebody,
    User(&'w str),
    Admin,
}

impl<'w> From<&'w Who> for WhoRef<'w> {
    fn from(who: &'w Who) -> Self {
        match who {
            Who::Nobody => Self::Nobody,
            Who::Somebody => Self::Somebody,
            Who::User(uid) => Self::User(uid),
            Who::Admin => Self::Admin,
        }
    }
}

impl<'w> WhoRef<'w> {
    pub(in crate::engine) fn of(identity: &'w crate::op::Identity) -> Self {
        match identity.uid() {
            _ if identity.is_admin => Self::Admin,
            Some(uid) => Self::User(uid),
            None if identity.auth.is_null() => Self::Nobody,
            None => Self::Somebody,
        }
    }
}

impl Trail {
    pub(super) const fn new(hashing: Hashing) -> Self {
        Self { hashing, chunks: Vec::new(), order: 0 }
    }

    fn namespace_hash(&self, namespace: &str) -> u64 {
        self.hashing.hash_one(namespace)
    }

    fn tag(&self, namespace: u64, path: &str) -> u64 {
        self.hashing.hash_one((namespace, path))
    }

    /// The places of a write, before it is known whether it will be made.
    pub(in crate::engine) fn sketch(&self, namespace: &Namespace, write: &Write) -> Sketch {
        let namespace = self.namespace_hash(namespace);
        let one = |path: &str, is_wide| {
            let mut slot = VACANT;
            slot.tag = self.tag(namespace, path);
            slot.namespace = half(namespace);
            slot.cause = if is_wide { WIDE } else { 0 };
            match slot.text.get_mut(..path.len()).filter(|_| path.len() <= PATH_BYTES) {
                Some(text) => {
                    text.copy_from_slice(path.as_bytes());
                    slot.path_len = narrow(path.len());
                }
                None => slot.path_len = UNKEPT,
            }
            slot
        };
        match write {
            Write::Set { path, .. } | Write::SetPriority { path, .. } => {
                Sketch(SmallVec::from_buf([one(path.as_str(), false)]))
            }
            Write::Merge { path, .. } if places_count(write) > PLACES_MAX => {
                Sketch(SmallVec::from_buf([one(path.as_str(), true)]))
            }
            Write::Merge { .. } => Sketch(places(write).map(|place| one(place.path.as_str(), false)).collect()),
        }
    }

    /// Remembers a write that was made.
    pub(in crate::engine) fn keep(&mut self, sketch: Sketch, at: WallMillis, by: By<'_>) {
        if sketch.0.is_empty() {
            return;
        }
        self.order = (self.order + 1).max(at.0 << ORDER_BITS);
        if self.chunks.is_empty() {
            self.chunks.resize_with(CHUNKS, || None);
        }
        for mut slot in sketch.0 {
            slot.order = self.order;
            slot.at = at.0;
            (slot.home, slot.session_slot, slot.generation) =
                (by.session.home.0, by.session.slot, by.session.generation);
            slot.cause |= code_of(by.cause);
            slot.uid_len = match by.who {
                WhoRef::Nobody => NOBODY,
                WhoRef::Somebody => SOMEBODY,
                WhoRef::Admin => ADMIN,
                WhoRef::User(uid) => {
                    let uid = beginning(uid, UID_BYTES);
                    slot.text[PATH_BYTES..PATH_BYTES + uid.len()].copy_from_slice(uid.as_bytes());
                    narrow(uid.len())
                }
            };
            self.put(slot);
        }
    }

    fn put(&mut self, slot: Slot) {
        let (chunk, index) = place_of(slot.tag);
        let chunk = self.chunks[chunk].get_or_insert_with(|| Box::new([VACANT; CHUNK_SLOTS]));
        // Two slots may hold a place: its own latest write goes first, then the older of both.
        let (first, second) = (chunk[index], chunk[index ^ 1]);
        let is_second = first.tag != slot.tag && (second.tag == slot.tag || second.order < first.order);
        chunk[if is_second { index ^ 1 } else { index }] = slot;
    }

    /// Everything that is remembered of a database.
    pub(super) fn of(&self, namespace: &Namespace) -> Vec<Slot> {
        let hash = half(self.namespace_hash(namespace));
        let slots = self.chunks.iter().flatten().flat_map(|chunk| chunk.iter());
        slots.filter(|slot| slot.order > 0 && slot.namespace == hash).copied().collect()
    }

    /// Remembers what another core has, of places that only it has written. Both have the same hashing.
    pub(super) fn take_in(&mut self, slots: Vec<Slot>) {
        if self.chunks.is_empty() {
            self.chunks.resize_with(CHUNKS, || None);
        }
        for slot in slots {
            self.order = self.order.max(slot.order);
            self.put(slot);
        }
    }

    /// The latest write at a path or above it.
    pub(in crate::engine) fn latest(&self, namespace: &Namespace, path: &Path) -> Option<Trace> {
        let hash = self.namespace_hash(namespace);
        let slots = path.prefixes().filter_map(|above| self.find(self.tag(hash, above)).map(|slot| (above, slot)));
        let (above, slot) = slots.max_by_key(|(_, slot)| slot.order)?;
        let mut trace = slot.trace();
        trace.path = Path::parse(above).ok();
        Some(trace)
    }

    /// The latest writes below a path, the latest first, at most so many.
    pub(super) fn below(&self, namespace: &Namespace, path: &Path, count_max: usize) -> Vec<Trace> {
        let hash = half(self.namespace_hash(namespace));
        let slots = self.chunks.iter().flatten().flat_map(|chunk| chunk.iter());
        let mut found: Vec<&Slot> = slots
            .filter(|slot| slot.order > 0 && slot.namespace == hash)
            .filter(|slot| slot.path().is_some_and(|other| is_below(path.as_str(), other)))
            .collect();
        found.sort_unstable_by_key(|slot| std::cmp::Reverse(slot.order));
        found.into_iter().take(count_max).map(Slot::trace).collect()
    }

    fn find(&self, tag: u64) -> Option<&Slot> {
        let (chunk, index) = place_of(tag);
        let chunk = self.chunks.get(chunk)?.as_ref()?;
        [index, index ^ 1].into_iter().map(|index| &chunk[index]).find(|slot| slot.order > 0 && slot.tag == tag)
    }
}

impl Slot {
    /// As far as it is kept.
    fn path(&self) -> Option<&str> {
        let text = self.text.get(..usize::from(self.path_len)).filter(|_| self.path_len != UNKEPT)?;
        std::str::from_utf8(text).ok()
    }

    fn trace(&self) -> Trace {
        let uid = |len: u8| self.text.get(PATH_BYTES..PATH_BYTES + usize::from(len));
        let who = match self.uid_len {
            NOBODY => Who::Nobody,
            SOMEBODY => Who::Somebody,
            ADMIN => Who::Admin,
            len => uid(len)
                .and_then(|uid| std::str::from_utf8(uid).ok())
                .map_or(Who::Somebody, |uid| Who::User(uid.into())),
        };
        Trace {
            path: self.path().and_then(|path| Path::parse(path).ok()),
            at: WallMillis(self.at),
            cause: cause_of(self.cause),
            session: SessionRef { home: ShardId(self.home), slot: self.session_slot, generation: self.generation },
            who,
            is_wide: self.cause & WIDE != 0,
        }
    }
}

/// Whether `other` is really below `path`.
fn is_below(path: &str, other: &str) -> bool {
    let rest =
        if path.is_empty() { Some(other) } else { other.strip_prefix(path).and_then(|rest| rest.strip_prefix('/')) };
    rest.is_some_and(|rest| !rest.is_empty())
}

fn place_of(tag: u64) -> (usize, usize) {
    let bits = (tag & 0xffff_ffff) as usize;
    (bits / CHUNK_SLOTS % CHUNKS, bits % CHUNK_SLOTS)
}

const fn half(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// To a byte, for what the bounds of a slot keep below.
fn narrow(count: usize) -> u8 {
    u8::try_from(count).expect("a slot's texts are shorter than a byte can tell")
}

/// As much of a text as fits, whole characters.
fn beginning(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The bit of a write that was too wide.
const WIDE: u8 = 0x80;

const ENDS: [End; 6] = [End::Closed, End::Dropped, End::TimedOut, End::Superseded, End::Killed, End::ServerStopped];

fn code_of(cause: Cause) -> u8 {
    let end = |end: End| narrow(ENDS.iter().position(|known| *known == end).expect("all ends are in the table"));
    match cause {
        Cause::Client => 0,
        Cause::Rest => 1,
        Cause::LastWord(by) => 0x10 | end(by),
        Cause::Owed(by) => 0x20 | end(by),
    }
}

fn cause_of(code: u8) -> Cause {
    let end = ENDS[usize::from(code & 0x0f) % ENDS.len()];
    match code & 0x70 {
        0x10 => Cause::LastWord(end),
        0x20 => Cause::Owed(end),
        _ if code & 0x0f == 1 => Cause::Rest,
        _ => Cause::Client,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Draft, Location, Node};

    fn set(path: &str) -> Write {
        Write::Set { path: Path::parse(path).unwrap(), value: Draft::of(Node::text("x")) }
    }

    fn merge(path: &str, places: impl Iterator<Item = String>) -> Write {
        let changes = places.map(|place| (Location::from(Path::parse(&place).unwrap()), Draft::of(Node::text("x"))));
        Write::Merge { path: Path::parse(path).unwrap(), changes: changes.collect() }
    }

    fn trail() -> Trail {
        Trail::new(Hashing::from_seed([1, 2, 3, 4]))
    }

    fn keep(trail: &mut Trail, namespace: &str, write: &Write, at: u64, who: WhoRef<'_>, cause: Cause) {
        let sketch = trail.sketch(&namespace.into(), write);
        let session = SessionRef { home: ShardId(3), slot: 7, generation: 9 };
        trail.keep(sketch, WallMillis(at), By { session, who, cause });
    }

    #[track_caller]
    fn check(trail: &Trail, path: &str, expected: Option<(&str, u64)>) {
        let found = trail.latest(&"db".into(), &Path::parse(path).unwrap());
        let found = found.map(|trace| (trace.path.unwrap().as_str().to_owned(), trace.at.0));
        assert_eq!(found.as_ref().map(|(path, at)| (path.as_str(), *at)), expected, "{path}");
    }

    #[test]
    fn the_latest_write_at_or_above_explains_a_place() {
        let mut trail = trail();
        check(&trail, "a", None);
        keep(&mut trail, "db", &set("a/b"), 1, WhoRef::Nobody, Cause::Client);
        keep(&mut trail, "other", &set("a"), 2, WhoRef::Nobody, Cause::Client);
        check(&trail, "a", None);
        check(&trail, "a/b/c", Some(("a/b", 1)));
        keep(&mut trail, "db", &set(""), 3, WhoRef::Nobody, Cause::Client);
        check(&trail, "a/b/c", Some(("", 3)));
        keep(&mut trail, "db", &merge("a", ["b/c".into(), "d".into()].into_iter()), 4, WhoRef::Nobody, Cause::Client);
        check(&trail, "a/b/c", Some(("a/b/c", 4)));
        check(&trail, "a/b", Some(("", 3)));
        check(&trail, "a/d", Some(("a/d", 4)));
    }

    #[test]
    fn what_is_below_is_told_the_latest_first() {
        let mut trail = trail();
        for (at, path) in ["a/b", "ab", "a", "a/c/d", "x"].into_iter().enumerate() {
            keep(&mut trail, "db", &set(path), at as u64, WhoRef::Nobody, Cause::Client);
        }
        let below = |path: &str, count| {
            let found = trail.below(&"db".into(), &Path::parse(path).unwrap(), count);
            found.into_iter().map(|trace| trace.path.unwrap().as_str().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(below("a", 9), ["a/c/d", "a/b"]);
        assert_eq!(below("", 2), ["x", "a/c/d"]);
        assert_eq!(below("x", 2), Vec::<String>::new());
    }

    #[test]
    fn everything_about_a_write_is_remembered() {
        let long = "é".repeat(30);
        let causes =
            [Cause::Client, Cause::Rest].into_iter().chain(ENDS.map(Cause::LastWord)).chain(ENDS.map(Cause::Owed));
        for cause in causes {
            for (who, expected) in [
                (WhoRef::Nobody, Who::Nobody),
                (WhoRef::Somebody, Who::Somebody),
                (WhoRef::Admin, Who::Admin),
                (WhoRef::User("ann"), Who::User("ann".into())),
                (WhoRef::User(&long), Who::User("é".repeat(18).into())),
            ] {
                let mut trail = trail();
                keep(&mut trail, "db", &set("p"), 5, who, cause);
                let path = Path::parse("p").unwrap();
                let session = SessionRef { home: ShardId(3), slot: 7, generation: 9 };
                let at = WallMillis(5);
                let trace = Trace { path: Some(path.clone()), at, cause, session, who: expected, is_wide: false };
                assert_eq!(trail.latest(&"db".into(), &path), Some(trace));
            }
        }
    }

    #[test]
    fn a_table_that_is_full_forgets_the_oldest() {
        let mut trail = trail();
        let count = 4 * CHUNKS * CHUNK_SLOTS;
        for at in 0..count {
            keep(&mut trail, "db", &set(&format!("p{at}")), at as u64, WhoRef::Nobody, Cause::Client);
        }
        check(&trail, &format!("p{}", count - 1), Some((&format!("p{}", count - 1), count as u64 - 1)));
        let kept =
            (0..count).filter(|at| trail.find(trail.tag(trail.namespace_hash("db"), &format!("p{at}"))).is_some());
        let kept: Vec<usize> = kept.collect();
        assert!(kept.len() > CHUNKS * CHUNK_SLOTS * 9 / 10, "{}", kept.len());
        assert!(kept.iter().sum::<usize>() / kept.len() > count * 3 / 4, "mostly the latest are kept");
    }

    #[test]
    fn a_busy_place_takes_one_slot() {
        let mut trail = trail();
        keep(&mut trail, "db", &set("calm"), 0, WhoRef::Nobody, Cause::Client);
        for at in 1..100_000 {
            keep(&mut trail, "db", &set("busy"), at, WhoRef::Nobody, Cause::Client);
        }
        check(&trail, "calm", Some(("calm", 0)));
    }

    #[test]
    fn long_paths_are_found_by_who_asks_and_wide_updates_say_so() {
        let mut trail = trail();
        let long = "k".repeat(PATH_BYTES + 1);
        keep(&mut trail, "db", &set(&long), 1, WhoRef::Nobody, Cause::Client);
        check(&trail, &long, Some((&long, 1)));
        assert_eq!(trail.below(&"db".into(), &Path::ROOT, 9), []);
        keep(&mut trail, "db", &merge("w", (0..300).map(|n| n.to_string())), 2, WhoRef::Nobody, Cause::Client);
        let trace = trail.latest(&"db".into(), &Path::parse("w/5").unwrap()).unwrap();
        assert!(trace.is_wide && trace.path.unwrap().as_str() == "w");
    }
}
