//! A world without kernel and without time: engines, the queues between them, clients that speak
//! real bytes.
//!
//! The surprising idea: the clock jumps. Nothing happens between two events, so a minute of silence
//! costs nothing, and the same seed gives the same history.

mod world;

pub use world::{Client, WALL_START_MS, World};
