//! Security rules: who may read and write what, and what may be stored
//! (rules specification, sections 1 and 2).
//!
//! A [`Ruleset`] is read once from its text, typed, compiled into a tree that has the shape of the
//! data, and then only asked. The surprising idea: the tree *after* a write is never made in order to
//! judge the write; rules look through a [view](Change) of the old tree and the pending changes.
//!
//! This room cannot write, knows no clients and no protocols, and cannot tell a client why it was
//! refused: a [`Denial`] is for operators.

pub mod casefile;
mod code;
mod compile;
mod error;
mod eval;
mod file;
pub mod limits;
mod parse;
mod pattern;
mod ruleset;
mod view;

#[cfg(test)]
mod tests;

pub use error::{RulesError, Warning};
pub use eval::Fail;
pub use ruleset::{Ask, Denial, Dialect, Refused, Ruleset, Verb, Verdict};
pub use view::{Change, What};
