//! How much memory the process has in use: an allocator that counts.
//!
//! The allocator is jemalloc: what one core takes for a request another gives back, and with the C library's they
//! then wait for each other.
//!
//! What is counted is what was asked for and not given back, rounded as jemalloc does. The surprising idea: not what
//! the kernel says. That falls late or never when data is deleted, because freed blocks lie between others, so a
//! database that had once been full would stay so. What is counted falls at once; what the blocks between lose is
//! for the operator to leave room for.
//!
//! Costs: one addition to a number of the thread's own for each block that is taken or given back, below a
//! nanosecond.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, AtomicU8, AtomicUsize, Ordering};

use tikv_jemallocator::Jemalloc;

use crate::base::Instant;
use crate::engine::Room;

/// Numbers that threads add to: so many that shards do not share one. The last is everybody else's.
const STRIPES: usize = 96;
/// Blocks up to this come in multiples of the step, larger ones in [`BLOCK_CLASSES`] sizes for each doubling.
const BLOCK_BYTES_SMALL: usize = 64;
const BLOCK_STEP_BYTES: usize = 16;
const BLOCK_CLASSES: usize = 4;
/// By how much of the limit use must fall before there is room again: a sixteenth; and beyond the limit by
/// as much there is none left even for what is always done.
const MARGIN_PART: u64 = 16;
/// Each by its number.
const ROOMS: [Room; 3] = [Room::Ample, Room::Little, Room::None];

/// A number on a cache line of its own.
#[repr(align(128))]
struct Stripe(AtomicIsize);

static IN_USE: [Stripe; STRIPES] = [const { Stripe(AtomicIsize::new(0)) }; STRIPES];
static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Which number this thread adds to; none yet at the end of the range.
    static STRIPE: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// jemalloc, counted. A program that wants `memory_max` to hold makes it its own:
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: stillhere::runtime::Counted = stillhere::runtime::Counted;
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Counted;

/// Bytes that are taken from [`Counted`] and not given back. Zero where it is not the program's allocator.
#[must_use]
pub fn bytes_in_use() -> u64 {
    // A block may be given back by another thread than took it: only the sum means something.
    let sum: isize = IN_USE.iter().map(|stripe| stripe.0.load(Ordering::Relaxed)).sum();
    u64::try_from(sum).unwrap_or(0)
}

fn block_bytes(bytes: usize) -> isize {
    let step = if bytes <= BLOCK_BYTES_SMALL {
        // Whole steps up to here, except for the smallest.
        if bytes <= BLOCK_STEP_BYTES / 2 { BLOCK_STEP_BYTES / 2 } else { BLOCK_STEP_BYTES }
    } else {
        let doubling = 1_usize << (bytes - 1).ilog2();
        doubling / BLOCK_CLASSES
    };
    let whole = bytes.max(1).checked_next_multiple_of(step).unwrap_or(usize::MAX);
    isize::try_from(whole).unwrap_or(isize::MAX)
}

fn count(bytes: isize) {
    let own = STRIPE.try_with(|stripe| {
        if stripe.get() == usize::MAX {
            stripe.set(THREADS.fetch_add(1, Ordering::Relaxed).min(STRIPES - 1));
        }
        stripe.get()
    });
    // A thread at its end counts where all others do.
    let own = own.unwrap_or(STRIPES - 1);
    let stripe = &IN_USE[own].0;
    if own < STRIPES - 1 {
        // Nobody else writes it.
        stripe.store(stripe.load(Ordering::Relaxed).wrapping_add(bytes), Ordering::Relaxed);
    } else {
        stripe.fetch_add(bytes, Ordering::Relaxed);
    }
}

// SAFETY: everything is done by jemalloc, to which each call is passed on as it came.
unsafe impl GlobalAlloc for Counted {
    // SAFETY: the trait says what the caller promises.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the promises of this very function.
        let block = unsafe { Jemalloc.alloc(layout) };
        if !block.is_null() {
            count(block_bytes(layout.size()));
        }
        block
    }

    // SAFETY: the trait says what the caller promises.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the promises of this very function.
        let block = unsafe { Jemalloc.alloc_zeroed(layout) };
        if !block.is_null() {
            count(block_bytes(layout.size()));
        }
        block
    }

    // SAFETY: the trait says what the caller promises.
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the promises of this very function.
        unsafe { Jemalloc.dealloc(block, layout) };
        count(-block_bytes(layout.size()));
    }

    // SAFETY: the trait says what the caller promises.
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // SAFETY: the caller keeps the promises of this very function.
        let moved = unsafe { Jemalloc.realloc(block, layout, bytes) };
        if !moved.is_null() {
            count(block_bytes(bytes) - block_bytes(layout.size()));
        }
        moved
    }
}

/// Looks how much memory is left. Each core has one, cloned from the same: what one core has seen holds for
/// all, so that they agree where use stands between the limit and what is enough again.
#[derive(Clone, Debug)]
pub(super) struct Gauge {
    bytes_max: Option<u64>,
    looked: Instant,
    /// What this core goes by.
    room: Room,
    /// What was seen last, by any core: a [`Room`].
    seen: Arc<AtomicU8>,
}

/// What a [`Gauge`] shows when its core has to go by something else than before, or is the first to see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Change {
    pub(super) room: Room,
    /// Whether this core is the first that sees it. Others may sleep through all of it, so operators hear of it
    /// from the first.
    pub(super) is_news: bool,
}

impl Gauge {
    pub(super) fn new(bytes_max: Option<u64>) -> Self {
        Self { bytes_max, looked: Instant(0), room: Room::Ample, seen: Arc::new(AtomicU8::new(Room::Ample as u8)) }
    }

    /// How much there is, if that has changed. Looks at most once in each tick of the clock.
    pub(super) fn look(&mut self, now: Instant) -> Option<Change> {
        let bytes_max = self.bytes_max?;
        if std::mem::replace(&mut self.looked, now) == now {
            return None;
        }
        self.turn_to(bytes_in_use(), bytes_max)
    }

    fn turn_to(&mut self, bytes: u64, bytes_max: u64) -> Option<Change> {
        let before = self.seen.load(Ordering::Relaxed);
        let room = room(bytes, bytes_max, ROOMS[usize::from(before)]);
        // Where two cores look at once, one of them is the first, and the other looks again in its next tick.
        let is_news = before != room as u8
            && self.seen.compare_exchange(before, room as u8, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        let is_other = std::mem::replace(&mut self.room, room) != room;
        (is_other || is_news).then_some(Change { room, is_news })
    }
}

/// How much room there is within `bytes_max`, where there was `before`.
fn room(bytes: u64, bytes_max: u64, before: Room) -> Room {
    let margin = bytes_max / MARGIN_PART;
    if bytes >= bytes_max.saturating_add(margin) {
        Room::None
    } else if bytes >= bytes_max {
        if before == Room::None { Room::None } else { Room::Little }
    } else if bytes + margin >= bytes_max && before != Room::Ample {
        Room::Little
    } else {
        Room::Ample
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_again_when_use_has_fallen_for_good() {
        let mut before = Room::Ample;
        for (bytes, after) in [
            (0, Room::Ample),
            (15_999, Room::Ample),
            (16_000, Room::Little),
            (15_500, Room::Little),
            (16_999, Room::Little),
            (17_000, Room::None),
            (16_500, Room::None),
            (15_999, Room::Little),
            (16_500, Room::Little),
            (15_000, Room::Little),
            (14_999, Room::Ample),
            (40_000, Room::None),
            (0, Room::Ample),
        ] {
            before = room(bytes, 16_000, before);
            assert_eq!(before, after, "{bytes}");
        }
        assert_eq!(room(u64::MAX, u64::MAX, Room::Ample), Room::None, "and nothing overflows");
    }

    #[test]
    fn all_cores_go_by_what_one_has_seen_and_the_first_tells() {
        let mut first = Gauge::new(Some(16_000));
        let mut second = first.clone();
        let change = |room, is_news| Some(Change { room, is_news });
        assert_eq!(first.turn_to(15_500, 16_000), None);
        // The first one sleeps: the second sees it come and go, and come again.
        assert_eq!(second.turn_to(16_000, 16_000), change(Room::Little, true));
        assert_eq!(second.turn_to(17_000, 16_000), change(Room::None, true));
        assert_eq!(second.turn_to(14_000, 16_000), change(Room::Ample, true));
        assert_eq!(second.turn_to(16_000, 16_000), change(Room::Little, true));
        // It goes by what the second one has seen, and tells nobody again; this time it is first to see the end.
        assert_eq!(first.turn_to(15_500, 16_000), change(Room::Little, false));
        assert_eq!(second.turn_to(15_500, 16_000), None);
        assert_eq!(first.turn_to(14_999, 16_000), change(Room::Ample, true));
        // The second one has slept through the end, so to it nothing is new, and yet it is the first that sees it.
        assert_eq!(second.turn_to(16_000, 16_000), change(Room::Little, true));
        assert_eq!(first.turn_to(16_000, 16_000), change(Room::Little, false));
        assert_eq!(ROOMS.map(|room| ROOMS[room as usize]), ROOMS);
    }

    #[test]
    fn what_is_taken_and_given_back_is_counted_wherever_it_is() {
        // Only through this value: the tests' own allocator is another one, and tests run side by side.
        let at = |layout: Layout| {
            // SAFETY: the layouts below are not empty.
            unsafe { Counted.alloc(layout) }
        };
        let layout = Layout::from_size_align(1 << 20, 8).unwrap();
        let before = bytes_in_use();
        let blocks: Vec<usize> = (0..8).map(|_| at(layout) as usize).collect();
        assert!(bytes_in_use() >= before + (8 << 20));
        let back = std::thread::spawn(move || {
            for block in blocks {
                // SAFETY: it was taken with this layout, and nobody has it any more.
                unsafe { Counted.dealloc(block as *mut u8, layout) };
            }
        });
        back.join().unwrap();
        assert!(bytes_in_use() < before + (1 << 20), "whichever thread gives it back");
        assert_eq!(
            [0, 1, 9, 24, 33, 64, 65, 100, 112, 113, 129, 208].map(block_bytes),
            [8, 8, 16, 32, 48, 64, 80, 112, 112, 128, 160, 224]
        );
    }
}
