//! Stillhere: a presence engine.
//!
//! The rooms and who may know whom are drawn in `docs/ARCHITECTURE.md`.

pub mod auth;
pub mod base;
pub mod data;
pub mod engine;
pub mod json;
pub mod op;
pub mod rules;
