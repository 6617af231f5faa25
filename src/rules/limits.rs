//! The limits of the rules language. Reaching one is a refusal with a text or a denial with a cause.

use crate::base::limits::TEXT_BYTES_MAX;

/// Bytes of one rules file.
pub const FILE_BYTES_MAX: usize = 1024 * 1024;
/// Nodes of one rules file.
pub const NODES_MAX: usize = 100_000;
/// Levels of one rules file.
pub const LEVELS_MAX: usize = 64;
/// Bytes of one expression, unescaped.
pub const EXPRESSION_BYTES_MAX: usize = 64 * 1024;
/// Levels of one expression: parentheses, operands of operands, chains of calls. Lists of `&&` and of
/// `||` count as one.
pub const NESTING_MAX: u16 = 256;
/// Bytes of one regular expression.
pub const PATTERN_BYTES_MAX: usize = 1024;
/// The largest number in a regular expression's `{…}`.
pub const REPEAT_MAX: u32 = 1_000;
/// Bytes of one compiled regular expression.
pub const AUTOMATON_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of a text that an expression builds (`+`, `replace`).
pub const BUILT_BYTES_MAX: usize = TEXT_BYTES_MAX;
/// Steps of one request, whatever it writes. A step is one operation, or [`STEP_BYTES`] bytes of text
/// looked at.
pub const STEPS_BASE: u64 = 1 << 22;
/// More steps for each node that a request writes.
pub const STEPS_PER_NODE: u64 = 256;
/// Bytes of text that cost one step.
pub const STEP_BYTES: usize = 32;

const _: () = assert!(LEVELS_MAX < u8::MAX as usize, "a capture's level is one byte");
const _: () = assert!(FILE_BYTES_MAX < u32::MAX as usize, "positions in a rules file are 32 bits");
const _: () = assert!(
    (STEPS_BASE as usize) * STEP_BYTES > 4 * TEXT_BYTES_MAX,
    "one rule can look at the longest text a few times"
);
