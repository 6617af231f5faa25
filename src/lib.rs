//! Stillhere: a presence engine.
//!
//! The rooms and who may know whom are drawn in `docs/ARCHITECTURE.md`.

pub mod auth;
pub mod base;
pub mod data;
pub mod engine;
#[cfg(feature = "server")]
pub mod gateway;
pub mod json;
pub mod log;
pub mod op;
pub mod presence;
pub mod rules;
#[cfg(feature = "server")]
#[allow(unsafe_code, reason = "the kernel is spoken to here, one operation a block, each with its reason")]
pub mod runtime;
#[cfg(feature = "server")]
pub mod server;
pub mod session;
pub mod shard;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod tree;
pub mod wheel;
pub mod wire;

#[cfg(feature = "server")]
pub use server::Server;
