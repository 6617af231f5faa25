//! The clocks: the only place that reads them.
//!
//! Everything above works with the [`Now`] of its turn. The one surprising idea: the wall clock is
//! clamped for the whole process, so that no client ever sees a later write with an earlier time, not
//! even when the operator sets the clock back. A reading costs two vDSO calls, about 50 ns.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::{Instant, Now, WallMillis};

/// The latest wall time that any core has seen, in milliseconds since 1970.
static WALL_MS: AtomicU64 = AtomicU64::new(0);

/// Reads both clocks. Neither goes back, in no thread and between threads.
#[must_use]
pub fn read() -> Now {
    Now { instant: Instant(monotonic_ns() / 1_000_000), wall: WallMillis(clamped(&WALL_MS, wall_ms())) }
}

/// A fresh reading of the monotonic clock in nanoseconds, for the order between cores.
///
/// What is loaded from memory after this call was not loaded before the clock was read.
#[must_use]
pub fn stamp() -> u64 {
    let ns = monotonic_ns();
    // The processor may otherwise begin later loads before the time stamp counter is read.
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has this instruction.
    unsafe {
        std::arch::x86_64::_mm_lfence();
    }
    std::sync::atomic::fence(Ordering::SeqCst);
    ns
}

/// The later of `ms` and everything that `latest` has seen; remembers it.
fn clamped(latest: &AtomicU64, ms: u64) -> u64 {
    // The load spares the shared line a write in all but one of a millisecond's turns.
    let seen = latest.load(Ordering::Relaxed);
    if ms <= seen { seen } else { latest.fetch_max(ms, Ordering::Relaxed).max(ms) }
}

fn monotonic_ns() -> u64 {
    let time = gettime(libc::CLOCK_MONOTONIC);
    // Both fields are non-negative: the clock starts at boot, and nanoseconds are below 10^9.
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

fn wall_ms() -> u64 {
    let time = gettime(libc::CLOCK_REALTIME);
    // A clock that was set before 1970 counts as 1970.
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000 + time.tv_nsec.unsigned_abs() / 1_000_000
}

fn gettime(clock: libc::clockid_t) -> libc::timespec {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec for the call to write.
    let code = unsafe { libc::clock_gettime(clock, &raw mut time) };
    assert_eq!(code, 0, "the kernel knows both clocks");
    time
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wall_clock_is_clamped() {
        let latest = AtomicU64::new(0);
        for (reading, expected) in [(5, 5), (7, 7), (6, 7), (7, 7), (0, 7), (8, 8)] {
            assert_eq!(clamped(&latest, reading), expected, "after a reading of {reading}");
        }
    }

    #[test]
    fn both_clocks_go_forward() {
        let (mut before, mut stamp_before) = (read(), stamp());
        for _ in 0..10_000 {
            let (now, stamp_now) = (read(), stamp());
            assert!(now.instant >= before.instant, "{before:?} {now:?}");
            assert!(now.wall >= before.wall, "{before:?} {now:?}");
            assert!(stamp_now >= stamp_before, "{stamp_before} {stamp_now}");
            (before, stamp_before) = (now, stamp_now);
        }
        assert!(before.wall.0 > 1_700_000_000_000, "the wall clock counts from 1970");
        assert!(stamp_before / 1_000_000 - before.instant.0 < 1_000, "stamps and instants share an origin");
    }
}
