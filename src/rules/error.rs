//! Why a rules file is refused.

use std::borrow::Cow;
use std::fmt;

/// Why a rules file is refused, and where: the first mistake in it.
///
/// The texts of mistakes that the original service names are its own, word for word: tools and people
/// know them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RulesError {
    /// The line, from 1.
    pub line: u32,
    /// The character of that line, from 1.
    pub column: u32,
    /// What is wrong.
    pub text: String,
}

impl RulesError {
    /// The number that Wilddog's tools show for it (rules specification, section 1.13).
    #[must_use]
    pub fn wilddog_code(&self) -> u32 {
        if self.text.starts_with(SEVERAL_WILDCARDS) { 20_601 } else { 20_602 }
    }
}

/// How the refusal of two `$` siblings begins.
pub(super) const SEVERAL_WILDCARDS: &str = "Cannot have multiple default rules";

impl fmt::Display for RulesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.text)
    }
}

impl std::error::Error for RulesError {}

/// Something that is accepted and probably not meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The line, from 1.
    pub line: u32,
    /// The character of that line, from 1.
    pub column: u32,
    /// What to look at.
    pub text: String,
}

/// A mistake at a byte of the text that is being read.
#[derive(Debug)]
pub(super) struct Mistake {
    pub at: usize,
    pub text: Cow<'static, str>,
}

impl Mistake {
    pub(super) fn new(at: usize, text: impl Into<Cow<'static, str>>) -> Self {
        Self { at, text: text.into() }
    }
}

/// The line and the character of a byte of `text`, from 1.
pub(super) fn line_and_column(text: &str, at: usize) -> (u32, u32) {
    let before = &text.as_bytes()[..at.min(text.len())];
    let line_start = memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1);
    let lines = memchr::memchr_iter(b'\n', before).count();
    let characters = before[line_start..].iter().filter(|byte| **byte & 0xc0 != 0x80).count();
    let number = |count: usize| u32::try_from(count + 1).unwrap_or(u32::MAX);
    (number(lines), number(characters))
}
