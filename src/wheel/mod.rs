//! Deadlines: a flat, lazy timing wheel over small numbers.
//!
//! The surprising idea: the wheel knows neither sessions nor whether a deadline still holds. It says
//! *look at this id now*; the owner, who has stamped `last_heard` in the meantime without telling
//! anybody, either acts or arms the id again. So a heartbeat costs the wheel nothing.
//!
//! One slot for each tick within the [`REACH`], each a list of ids. A deadline beyond the reach is
//! parked in the last slot: the owner is asked early, sees that, and arms again. There is no
//! hierarchy, hence no tick on which a whole level has to be moved.
//!
//! Costs: [`Wheel::arm`] O(1); [`Wheel::due`] O(1) for each id, however many ticks have passed;
//! [`Wheel::next_wake`] O(1). Four bytes an id (eight where a list has just grown), and 200 KB for
//! the empty wheel.

use crate::base::limits::TICK;
use crate::base::{Instant, Millis};

const SLOTS: usize = 8_192;
const WORDS: usize = SLOTS / 64;

/// How far ahead an id can be armed exactly; beyond, its owner is asked this early.
pub const REACH: Millis = Millis((SLOTS as u64 - 1) * TICK.0);

const _: () = assert!(SLOTS.is_power_of_two(), "a tick finds its slot by masking");
const _: () = assert!(WORDS == u128::BITS as usize, "one bit of the summary for each word");
const _: () = assert!(REACH.0 >= 60_000, "usual session timeouts are within the reach");

/// Ids and when to look at them.
///
/// An owner keeps *one* entry for each id: it arms an id when the id comes into use, and again only
/// when [`due`](Wheel::due) has given it out. There is no way to disarm: an entry whose id has been
/// closed, or armed again for an earlier time, comes out like any other, and the owner ignores it.
pub struct Wheel {
    /// All ids of ticks before this one have been given out; `slots` holds the ticks from this one
    /// up to, and without, `cursor + SLOTS`. Never later than the tick of `now`.
    cursor: u64,
    /// The latest time that [`due`](Wheel::due) was told.
    now: Instant,
    /// What is left of a slot that is being given out: the ids from `given` on.
    current: Vec<u32>,
    given: usize,
    /// The ids of tick `t` are in slot `t % SLOTS`.
    slots: Box<[Vec<u32>]>,
    /// Bit `s % 64` of word `s / 64` is set exactly when slot `s` holds an id.
    occupied: [u64; WORDS],
    /// Bit `w` is set exactly when `occupied[w]` is not zero.
    summary: u128,
    len: usize,
}

impl Wheel {
    /// An empty wheel. No later call may speak of a time before `now`.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            cursor: tick_begun(now),
            now,
            current: Vec::new(),
            given: 0,
            slots: std::iter::repeat_with(Vec::new).take(SLOTS).collect(),
            occupied: [0; WORDS],
            summary: 0,
            len: 0,
        }
    }

    /// How many entries there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no entry.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Asks to be told about `id` at `at`: not before, and less than one tick after, if
    /// [`due`](Self::due) is called then. What is due already is given out by the next call.
    ///
    /// Only if `at` is more than the [`REACH`] ahead of what has been given out, the id comes out
    /// before its time. Returns when it does: the owner knows its entry by that.
    pub fn arm(&mut self, id: u32, at: Instant) -> Instant {
        let tick = tick_reached(at).clamp(self.cursor, self.cursor + (SLOTS as u64 - 1));
        let slot = slot_of(tick);
        self.slots[slot].push(id);
        self.occupied[slot / 64] |= 1 << (slot % 64);
        self.summary |= 1 << (slot / 64);
        self.len += 1;
        Instant(tick * TICK.0)
    }

    /// Appends to `ids` those whose time has come, at most `ids_max`, the earliest tick first. If
    /// more are due then [`is_behind`](Self::is_behind), and the next call goes on. `now` never goes
    /// back.
    ///
    /// What the owner arms again while it works through the list is not part of this call: so each
    /// call ends, even if the owner arms for times that have passed.
    pub fn due(&mut self, now: Instant, ids_max: usize, ids: &mut Vec<u32>) {
        assert!(now >= self.now, "time went back from {:?} to {now:?}", self.now);
        self.now = now;
        let mut room = ids_max;
        loop {
            let left = &self.current[self.given..];
            let taken = left.len().min(room);
            ids.extend_from_slice(&left[..taken]);
            self.given += taken;
            self.len -= taken;
            room -= taken;
            if self.given < self.current.len() || !self.open_next_slot() {
                return;
            }
        }
    }

    /// Whether ids were due at the latest time that [`due`](Self::due) was told, and are still here.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.given < self.current.len() || self.first_occupied().is_some_and(|tick| tick <= tick_begun(self.now))
    }

    /// When the next id is due, exactly; in the past if the owner [is behind](Self::is_behind).
    #[must_use]
    pub fn next_wake(&self) -> Option<Instant> {
        if self.given < self.current.len() {
            return Some(Instant(self.cursor * TICK.0));
        }
        self.first_occupied().map(|tick| Instant(tick * TICK.0))
    }

    /// Makes the ids of the next tick that has come the current ones. If there is no such tick, moves
    /// the cursor to the present and says so.
    fn open_next_slot(&mut self) -> bool {
        let present = tick_begun(self.now);
        self.given = 0;
        match self.first_occupied() {
            Some(tick) if tick <= present => {
                let slot = slot_of(tick);
                self.cursor = tick;
                // The list moves out, so that its room is returned and does not lie idle until the
                // wheel comes round; what is armed for this tick from now on begins another list.
                self.current = std::mem::take(&mut self.slots[slot]);
                assert!(!self.current.is_empty(), "slot {slot} is marked and holds nothing");
                self.occupied[slot / 64] &= !(1 << (slot % 64));
                if self.occupied[slot / 64] == 0 {
                    self.summary &= !(1 << (slot / 64));
                }
                true
            }
            _ => {
                self.current = Vec::new();
                self.cursor = present;
                false
            }
        }
    }

    /// The first tick from the cursor on whose slot holds an id.
    fn first_occupied(&self) -> Option<u64> {
        let start = slot_of(self.cursor);
        let word = start / 64;
        let ahead = self.occupied[word] & (u64::MAX << (start % 64));
        let slot = if ahead != 0 {
            word * 64 + ahead.trailing_zeros() as usize
        } else {
            // The words after this one, round to this one again: there only bits before `start` are left.
            let rotated = self.summary.rotate_right((word as u32 + 1) % u128::BITS);
            if rotated == 0 {
                return None;
            }
            let word = (word + 1 + rotated.trailing_zeros() as usize) % WORDS;
            word * 64 + self.occupied[word].trailing_zeros() as usize
        };
        let ahead = (slot + SLOTS - start) % SLOTS;
        Some(self.cursor + ahead as u64)
    }
}

impl std::fmt::Debug for Wheel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Wheel({} ids, next wake {:?})", self.len, self.next_wake())
    }
}

/// The tick within which `now` lies.
const fn tick_begun(now: Instant) -> u64 {
    now.0 / TICK.0
}

/// The first tick that begins at `at` or after it.
const fn tick_reached(at: Instant) -> u64 {
    at.0.div_ceil(TICK.0)
}

#[expect(clippy::cast_possible_truncation, reason = "masked to less than SLOTS")]
const fn slot_of(tick: u64) -> usize {
    (tick % SLOTS as u64) as usize
}

#[cfg(test)]
mod tests;
