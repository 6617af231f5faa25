//! What is played: one play for each phase of a scenario, all on the same clients.
//!
//! A play hears what happens and gives orders; it has no sockets and no clock, so plays can be tried
//! without a server.

mod fan_out;
mod flap;
mod join;
mod leave;
mod mixed;
mod watcher;
mod writes;

pub use fan_out::FanOut;
pub use flap::Flap;
pub use join::{Join, Setup};
pub use leave::{Hold, Leave, Reading, Silence};
pub use mixed::{Goal, Mixed, Rates};
pub use watcher::{Watcher, place};
pub use writes::Writes;
