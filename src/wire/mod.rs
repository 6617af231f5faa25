//! Bytes to the shared vocabulary and back: what peers say, in the words of [`op`](crate::op).
//!
//! The surprising idea: nothing here waits. Readers are handed whatever has arrived, take whole
//! things out of it where they lie, and keep only the cut-off end; so a connection that is silent
//! between two whole frames costs a few bytes here and no buffer. Both sides of each protocol are
//! here: the server is one, the load generator and the simulator are the other.

pub mod coap;
pub mod engineio;
pub mod firebase;
pub mod http;
mod input;
#[doc(hidden)]
pub mod probe;
pub mod rest;
pub mod wilddog;
pub mod ws;

pub use input::Input;
