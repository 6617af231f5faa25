//! One core: its connections and sessions, and the partition of the tree that it owns.
//!
//! The surprising idea: it does nothing by itself. Everything that happens comes in as an [`Input`],
//! everything it wants done goes out as an [`Effect`], and time is an argument.

mod io;
mod message;

pub use io::{Effect, Hangup, Input, Notice, Output};
pub use message::Message;

use crate::base::{Instant, Now, ShardId};

/// What an engine is told once, at the start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which of the shards this is.
    pub shard: ShardId,
    /// How many there are.
    pub shards: u8,
    /// 256 bits from which all its randomness comes; different for each engine and each start.
    pub seed: [u8; 32],
}

/// One core's engine.
#[derive(Debug)]
pub struct Engine {
    config: Config,
}

impl Engine {
    /// An engine without clients and without data.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config }
    }

    /// Takes in one thing that happened and appends what is to be done about it to `output`.
    ///
    /// Runs to completion and cannot fail. `now` never goes back.
    pub fn handle(&mut self, now: Now, input: Input<'_>, output: &mut Output) {
        let _ = (now, input, output, &self.config);
    }

    /// When [`Input::Tick`] is due, if nothing else happens before.
    #[must_use]
    pub fn next_wake(&self) -> Option<Instant> {
        None
    }

    /// Whether there is work left that was put off to keep turns short: the driver comes back with
    /// [`Input::Tick`] at once, after looking at what else has arrived.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        false
    }
}
