//! What a core's loop counts, for the operator; and how others ask for it.
//!
//! The counts are the core's own: whoever wants them sends it a command and waits a little. A core that is too
//! busy to answer is counted as it was when it last did.

use std::time::Duration;

use crate::base::ShardId;
use crate::base::meter::Histogram;
use crate::engine;

/// A turn that takes longer than this held everybody up.
const STALL_US: u64 = 100_000;

/// What one core has counted since it began, and what waits on it now.
#[derive(Clone, Debug, Default)]
pub struct Meters {
    /// How long turns took, in microseconds.
    pub turns: Histogram,
    /// Turns that took longer than a tenth of a second.
    pub stalls: u64,
    /// Messages for other cores that did not fit into their queues.
    pub outbox: u64,
    /// What guests' programs have said and the core has not taken.
    pub guest_queue: u64,
    /// Words and events that the courier has not told.
    pub courier_queue: u64,
    /// From the first record of a frame to when it was safe, in microseconds.
    pub commits: Histogram,
    /// How long syncs of the log took, in microseconds.
    pub syncs: Histogram,
    /// What waits for frames to be safe: outputs, and their bytes.
    pub held: u64,
    /// See `held`.
    pub held_bytes: u64,
    /// Bytes of frames since the last snapshot.
    pub log_bytes: u64,
    /// Whether there is no room for the log.
    pub is_disk_full: bool,
}

/// What one core says when it is asked.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Which.
    pub shard: ShardId,
    /// Of its loop.
    pub core: Meters,
    /// Of its engine.
    pub engine: engine::Meters,
}

/// How long those wait who ask. Shorter than the 10 s that Prometheus waits; far longer than a busy machine lets
/// a thread wait for its turn.
pub const PATIENCE: Duration = Duration::from_secs(5);

impl Meters {
    /// A turn is over that took so long.
    pub(super) const fn turned(&mut self, us: u64) {
        self.turns.count(us);
        if us > STALL_US {
            self.stalls += 1;
        }
    }
}
