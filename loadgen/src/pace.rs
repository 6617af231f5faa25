//! When the next thing is due, at a fixed rate.
//!
//! The surprising idea: the schedule does not care how fast the server answers. A request that should
//! have gone out while the server was stuck counts from when it *should* have gone out, so a pause of
//! the server shows in the latencies of everybody whom it kept waiting, as it does for real users
//! (the correction of "coordinated omission").

use crate::clock::Moment;

/// A schedule of so many things a second, evenly spaced.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    begun: Moment,
    per_second: f64,
    /// How many were taken.
    taken: u64,
}

impl Pace {
    /// `per_second` things a second from `begun` on; more than none.
    #[must_use]
    pub fn new(begun: Moment, per_second: f64) -> Self {
        assert!(per_second > 0.0, "the command line lets no other rate through");
        Self { begun, per_second, taken: 0 }
    }

    /// When the next thing is due.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a run has fewer than 2^53 nanoseconds, and none before its beginning"
    )]
    pub fn due(&self) -> Moment {
        Moment(self.begun.0 + (self.taken as f64 * 1e9 / self.per_second) as u64)
    }

    /// Takes the next thing if it is due, and says since when.
    pub fn take(&mut self, now: Moment) -> Option<Moment> {
        let due = self.due();
        if due > now {
            return None;
        }
        self.taken += 1;
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that is due until `until_ns`, when the generator looks every `step_ns`.
    fn taken(per_second: f64, step_ns: u64, until_ns: u64) -> Vec<u64> {
        let mut pace = Pace::new(Moment(0), per_second);
        let mut due = Vec::new();
        let mut now = 0;
        while now <= until_ns {
            while let Some(since) = pace.take(Moment(now)) {
                due.push(since.0);
            }
            now += step_ns;
        }
        due
    }

    #[test]
    fn the_schedule_is_even() {
        assert_eq!(taken(1_000.0, 1, 3_000_000), [0, 1_000_000, 2_000_000, 3_000_000]);
    }

    #[test]
    fn a_late_look_changes_no_due_time() {
        assert_eq!(taken(1_000.0, 3_000_000, 3_000_000), [0, 1_000_000, 2_000_000, 3_000_000]);
    }

    #[test]
    fn no_drift() {
        let due = taken(3.0, 1_000_000, 1_000_000_000_000);
        assert_eq!(due.len(), 3_001);
        assert_eq!(due[3_000], 1_000_000_000_000);
    }
}
