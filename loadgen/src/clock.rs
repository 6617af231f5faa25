//! The clock of a run. Everything else takes moments as values.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

static START: OnceLock<Instant> = OnceLock::new();

/// Nanoseconds since the run began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl Moment {
    /// The beginning of the run.
    pub const START: Self = Self(0);
    /// Later than every other.
    pub const NEVER: Self = Self(u64::MAX);

    /// The time from `earlier` to `self`, in nanoseconds; zero when `earlier` is later.
    #[must_use]
    pub const fn since_ns(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The time from `earlier` to `self`, in seconds.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a run has fewer than 2^53 nanoseconds")]
    pub fn since_s(self, earlier: Self) -> f64 {
        self.since_ns(earlier) as f64 / 1e9
    }
}

impl std::ops::Add<Duration> for Moment {
    type Output = Self;
    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Now. The first call is the beginning of the run.
#[must_use]
pub fn now() -> Moment {
    let start = START.get_or_init(Instant::now);
    Moment(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX))
}

/// Milliseconds since 1970.
#[must_use]
pub fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// CPU time of this thread, in nanoseconds. Unlike [`now`] it stands still while others have the core;
/// a reading is a call into the kernel.
#[must_use]
pub fn own_cpu_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}
