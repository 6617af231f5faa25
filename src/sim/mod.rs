//! A world without kernel and without time: engines, the queues between them, clients that speak
//! real bytes; and histories, which play in it and are judged.
//!
//! The surprising idea: the clock jumps. Nothing happens between two events, so a minute of silence
//! costs nothing, and the same seed gives the same history.

mod actor;
mod acts;
mod causal;
mod history;
mod power;
mod reference;
mod tree;
mod world;

pub use causal::run as run_causal;
pub use history::{Report, run};
pub use power::run as run_power_cuts;
pub use world::{Client, WALL_START_MS, World};

#[cfg(test)]
mod tests;
