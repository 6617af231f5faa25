//! How far a start has come with what it reads and writes: told to whoever asks, and to the log now and then.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::server::health::Health;

/// Between two lines of the log.
const PAUSE: Duration = Duration::from_secs(5);

/// What a start does before it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The log and its snapshots are read.
    Reading,
    /// What they amount to is written as one snapshot, and read back.
    Writing,
}

/// How far a start has come. Costs: a comparison for each frame.
#[derive(Debug)]
pub struct Progress<'h> {
    health: Option<&'h Health>,
    stage: Cell<Stage>,
    bytes: Cell<u64>,
    bytes_total: Cell<u64>,
    said: Cell<Instant>,
    pause: Duration,
}

impl<'h> Progress<'h> {
    /// For a start: `health` answers those who ask.
    #[must_use]
    pub fn new(health: &'h Health) -> Self {
        Self { health: Some(health), ..Self::untold() }
    }

    /// For work that nobody waits for.
    pub(super) fn untold() -> Self {
        Self {
            health: None,
            stage: Cell::new(Stage::Reading),
            bytes: Cell::new(0),
            bytes_total: Cell::new(0),
            said: Cell::new(Instant::now()),
            pause: PAUSE,
        }
    }

    /// From here on so many bytes are read or written.
    pub(super) fn begin(&self, stage: Stage, bytes_total: u64) {
        self.stage.set(stage);
        self.bytes.set(0);
        self.bytes_total.set(bytes_total);
        self.tell();
    }

    /// So many more are.
    pub(super) fn add(&self, bytes: usize) {
        let before = self.percent();
        self.bytes.set(self.bytes.get() + bytes as u64);
        if self.percent() != before {
            self.tell();
        }
        if self.health.is_some() && self.said.get().elapsed() >= self.pause {
            self.said.set(Instant::now());
            let (bytes, bytes_total, percent) = (self.bytes.get(), self.bytes_total.get(), self.percent());
            tracing::info!(stage = ?self.stage.get(), bytes, bytes_total, percent, "recovering");
        }
    }

    fn tell(&self) {
        if let Some(health) = self.health {
            health.set_recovering(self.stage.get(), self.percent());
        }
    }

    /// Of a hundred. What is written may be more than what was read.
    fn percent(&self) -> u8 {
        let of_hundred = self.bytes.get().saturating_mul(100) / self.bytes_total.get().max(1);
        u8::try_from(of_hundred).unwrap_or(99).min(99)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::health::State;

    #[test]
    fn whoever_asks_is_told_how_far_it_is() {
        let health = Health::default();
        assert_eq!(health.starting(), "starting");
        let progress = Progress::new(&health);
        for (stage, total, add, expected) in [
            (Stage::Reading, 200, 1, "starting: 0 % of the log is read"),
            (Stage::Reading, 200, 99, "starting: 49 % of the log is read"),
            (Stage::Reading, 200, 900, "starting: 99 % of the log is read"),
            (Stage::Reading, 0, 0, "starting: 0 % of the log is read"),
            (Stage::Writing, 200, 100, "starting: 50 % of the snapshot is written"),
        ] {
            progress.begin(stage, total);
            progress.add(add);
            assert_eq!(health.starting(), expected, "{stage:?} {add} of {total}");
        }
        assert_eq!(health.state(), State::Starting, "it is not ready");
    }
}
