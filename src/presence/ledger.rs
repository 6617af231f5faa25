//! The last words of one session, in the order in which they were registered
//! (Firebase wire specification, section 6.3).

use smallvec::{SmallVec, smallvec};

use super::{places, places_count};
use crate::base::limits::{LAST_WORDS_BYTES_MAX, LAST_WORDS_MAX};
use crate::data::{Location, Path};
use crate::op::Write;

/// The last words of one session. Empty, it is one word long and owns nothing.
#[derive(Clone, Debug, Default)]
pub struct Ledger(Option<Box<Words>>);

/// Why a last word was refused. The ledger is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// There would be more than [`LAST_WORDS_MAX`] places.
    Words,
    /// They would be longer than [`LAST_WORDS_BYTES_MAX`].
    Bytes,
}

#[derive(Clone, Debug, Default)]
struct Words {
    /// Never empty. Most sessions have one.
    entries: SmallVec<[Entry; 1]>,
    load: Load,
}

/// One registration, or what later ones have left of it.
#[derive(Clone, Debug)]
struct Entry {
    /// Touches at least one place.
    write: Write,
    /// Its share of what came over the wire.
    bytes: u32,
    /// See [`Beside::run`].
    run: u32,
}

/// What counts against the limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Places that will be written.
    pub places: u32,
    /// Of what came over the wire.
    pub bytes: u32,
}

/// Where a last word stands among those of its session that other owners keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beside {
    /// Last words that one owner was left without another's between them are a run; runs are numbered in
    /// their order.
    pub run: u32,
    /// What other owners keep.
    pub elsewhere: Load,
}

const _: () = assert!(LAST_WORDS_MAX < u32::MAX as usize, "places are counted in 32 bits");
const _: () = assert!(LAST_WORDS_BYTES_MAX < u32::MAX as usize, "their bytes are counted in 32 bits");
const _: () = assert!(size_of::<Ledger>() == size_of::<usize>(), "every session has one, most of them empty");
const _: () = assert!(size_of::<Words>() <= 104, "one last word is one block of 112 bytes, beside its texts");

impl Ledger {
    /// No last words.
    pub const EMPTY: Self = Self(None);

    /// How many places will be written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.load().places as usize
    }

    /// Whether there is nothing to be written.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Adds `write`, which came over the wire in `bytes`, or refuses it and changes nothing. Returns
    /// the places of earlier entries that it replaces: nobody waits for those any more.
    ///
    /// "A set at P replaces earlier ops at P and below; a merge sets each of its paths; later ops
    /// win": earlier entries, and single places of earlier merges, go when one of the places of
    /// `write` is there or above. A merge stays one entry: what is left of it is written at once.
    /// Setting a priority replaces only an earlier setting of the same priority. O(places).
    pub fn register(&mut self, write: Write, bytes: usize) -> Result<Vec<Location>, Full> {
        self.register_beside(write, bytes, Beside::default())
    }

    /// The same, where other owners keep some of the session's last words.
    pub fn register_beside(&mut self, write: Write, bytes: usize, beside: Beside) -> Result<Vec<Location>, Full> {
        let added_count = places_count(&write);
        if added_count == 0 {
            return Ok(Vec::new());
        }
        let cover = Cover::of(&write);
        let load = self.load();
        let (covered, freed) = self.covered(&cover);
        let places_left = (load.places - freed.places + beside.elsewhere.places) as usize;
        let bytes_left = (load.bytes - freed.bytes + beside.elsewhere.bytes) as usize;
        if added_count > LAST_WORDS_MAX.saturating_sub(places_left) {
            return Err(Full::Words);
        }
        if bytes > LAST_WORDS_BYTES_MAX.saturating_sub(bytes_left) {
            return Err(Full::Bytes);
        }
        Ok(self.put(write, bytes, beside.run, &covered))
    }

    /// Adds what was within the limits when it was [registered](Self::register) in a run, whatever the ledger holds
    /// meanwhile: a record of it is read again.
    pub fn restore(&mut self, write: Write, bytes: usize, run: u32) {
        if places_count(&write) > 0 {
            let (covered, _) = self.covered(&Cover::of(&write));
            self.put(write, bytes, run, &covered);
        }
    }

    fn put(&mut self, write: Write, bytes: usize, run: u32, covered: &Covered) -> Vec<Location> {
        let replaced = self.remove(covered);
        let words = self.0.get_or_insert_default();
        let added = Load { places: narrow(places_count(&write)), bytes: narrow(bytes) };
        words.entries.push(Entry { write, bytes: added.bytes, run });
        words.load.places += added.places;
        words.load.bytes += added.bytes;
        replaced
    }

    /// Removes what would be written at `path` and below, single places of merges included. A set
    /// that was registered above stays whole. Returns the places that it removed. O(places).
    pub fn cancel(&mut self, path: &Path) -> Vec<Location> {
        let (covered, _) = self.covered(&Cover { nodes: smallvec![path.clone()], priorities: SmallVec::new() });
        self.remove(&covered)
    }

    /// Takes everything out, in the order of registration: each is to be written once.
    #[must_use = "last words that are taken and not written are lost"]
    pub fn take(&mut self) -> Vec<Write> {
        let words = self.0.take();
        words.map_or_else(Vec::new, |words| words.entries.into_iter().map(|entry| entry.write).collect())
    }

    /// Takes out what was registered in runs up to `run`, in order: each is to be written once.
    #[must_use = "last words that are taken and not written are lost"]
    pub fn take_until(&mut self, run: u32) -> Vec<Write> {
        let Some(words) = &mut self.0 else { return Vec::new() };
        let taken_count = words.entries.iter().take_while(|entry| entry.run <= run).count();
        let taken: Vec<Entry> = words.entries.drain(..taken_count).collect();
        for entry in &taken {
            words.load.places -= narrow(places_count(&entry.write));
            words.load.bytes -= entry.bytes;
        }
        if words.entries.is_empty() {
            self.0 = None;
        }
        taken.into_iter().map(|entry| entry.write).collect()
    }

    /// Adds what another owner has kept of the same session's. No place of it is above, at or below one of
    /// these.
    pub fn unite(&mut self, other: Self) {
        let Some(other) = other.0 else { return };
        let words = self.0.get_or_insert_default();
        words.entries.extend(other.entries);
        // Within a run the order stays: only one owner has it.
        words.entries.sort_by_key(|entry| entry.run);
        words.load.places += other.load.places;
        words.load.bytes += other.load.bytes;
    }

    /// The first run of which something is kept.
    #[must_use]
    pub fn first_run(&self) -> Option<u32> {
        self.0.as_ref().and_then(|words| words.entries.first()).map(|entry| entry.run)
    }

    /// What would be written, in order.
    pub fn writes(&self) -> impl Iterator<Item = &Write> {
        self.0.iter().flat_map(|words| &words.entries).map(|entry| &entry.write)
    }

    /// What would be written, in order, each with its share of what came over the wire, in bytes, and its run.
    pub fn entries(&self) -> impl Iterator<Item = (&Write, u32, u32)> {
        self.0.iter().flat_map(|words| &words.entries).map(|entry| (&entry.write, entry.bytes, entry.run))
    }

    /// Every place that would be written, absolute, in order.
    pub fn places(&self) -> impl Iterator<Item = Location> {
        self.writes().flat_map(places)
    }

    /// What counts against the limits.
    #[must_use]
    pub fn load(&self) -> Load {
        self.0.as_ref().map(|words| words.load).unwrap_or_default()
    }

    /// For each place, in order, whether it is covered; and what removing those frees.
    fn covered(&self, cover: &Cover) -> (Covered, Load) {
        let (mut all, mut freed) = (Covered::new(), Load::default());
        for entry in self.0.iter().flat_map(|words| &words.entries) {
            let begin = all.len();
            all.extend(places(&entry.write).map(|place| cover.covers(&place)));
            let load = entry.share(&all[begin..]);
            freed.places += load.places;
            freed.bytes += load.bytes;
        }
        (all, freed)
    }

    /// Removes every covered place, and says which those were.
    fn remove(&mut self, covered: &Covered) -> Vec<Location> {
        let mut removed = Vec::new();
        let Some(words) = &mut self.0 else { return removed };
        let Words { entries, load } = &mut **words;
        let mut covered = covered.as_slice();
        entries.retain(|entry| {
            let (its, rest) = covered.split_at(places_count(&entry.write));
            covered = rest;
            let freed = entry.share(its);
            if freed.places == 0 {
                return true;
            }
            load.places -= freed.places;
            load.bytes -= freed.bytes;
            entry.bytes -= freed.bytes;
            let gone = places(&entry.write).zip(its).filter(|(_, is_covered)| **is_covered);
            removed.extend(gone.map(|(place, _)| place));
            if let Write::Merge { changes, .. } = &mut entry.write {
                let mut its = its.iter();
                changes.retain(|_| !its.next().expect("one for each change"));
                return !changes.is_empty();
            }
            false
        });
        if entries.is_empty() {
            assert!(*load == Load::default(), "an empty ledger still counts {load:?}");
            self.0 = None;
        }
        removed
    }
}

/// One for each place of a ledger.
type Covered = SmallVec<[bool; 16]>;

impl Entry {
    /// What it counts for those of its places that are covered.
    fn share(&self, covered: &[bool]) -> Load {
        let count = covered.iter().filter(|is_covered| **is_covered).count();
        // In 64 bits: both factors have 32. No more than `self.bytes`, and exactly that for all.
        let bytes = u64::from(self.bytes) * count as u64 / covered.len() as u64;
        Load { places: narrow(count), bytes: narrow(bytes) }
    }
}

/// A set of places, to be asked what they replace.
struct Cover {
    /// Everything here and below. Sorted.
    nodes: SmallVec<[Path; 1]>,
    /// The priorities of these. Sorted.
    priorities: SmallVec<[Path; 1]>,
}

impl Cover {
    fn of(write: &Write) -> Self {
        let mut cover = Self { nodes: SmallVec::new(), priorities: SmallVec::new() };
        for Location { path, is_priority } in places(write) {
            if is_priority { cover.priorities.push(path) } else { cover.nodes.push(path) }
        }
        cover.nodes.sort_unstable();
        cover.priorities.sort_unstable();
        cover
    }

    /// Whether `place` is one of these, or below one.
    fn covers(&self, place: &Location) -> bool {
        if place.is_priority && is_among(&self.priorities, place.path.as_str()) {
            return true;
        }
        match self.nodes.as_slice() {
            [] => false,
            [one] => one.contains(&place.path),
            // A merge of a thousand places meets a ledger of a thousand: hence a search for each place
            // above, not a comparison with each of the thousand.
            many => place.path.prefixes().any(|above| is_among(many, above)),
        }
    }
}

fn is_among(sorted: &[Path], path: &str) -> bool {
    sorted.binary_search_by(|other| other.as_str().cmp(path)).is_ok()
}

/// To 32 bits, for what the limits keep far below.
fn narrow(count: impl TryInto<u32>) -> u32 {
    count.try_into().ok().expect("the limits of last words fit in 32 bits")
}
