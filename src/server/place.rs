//! Where a setting comes from, and what is wrong with it.

use std::fmt;
use std::sync::Arc;

/// Where a setting was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere: it is what it is unless somebody says otherwise.
    Default,
    /// In the configuration file.
    File {
        /// Which, as it was named.
        file: Arc<str>,
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
    },
    /// In the environment, by the variable of this name.
    Variable(&'static str),
    /// On the command line, by the flag of this name.
    Flag(&'static str),
    /// In the code of the program that the server runs within.
    Code,
}

impl Origin {
    /// Whether somebody asked for it.
    #[must_use]
    pub const fn is_chosen(&self) -> bool {
        !matches!(self, Self::Default)
    }

    /// The place of byte `offset` of `text`, which is all of `file`.
    #[must_use]
    pub fn in_file(file: &Arc<str>, text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self::File {
            file: Arc::clone(file),
            line: before.bytes().filter(|&byte| byte == b'\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => write!(f, "default"),
            Self::File { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Self::Variable(name) | Self::Flag(name) => write!(f, "{name}"),
            Self::Code => write!(f, "code"),
        }
    }
}

/// A value, and who wanted it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Typed<T> {
    /// What.
    pub value: T,
    /// Who wanted it.
    pub origin: Origin,
}

/// What is wrong with the configuration, in one line for people: where, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file with line and column, the variable, or the flag.
    pub place: String,
    /// A sentence without a full stop.
    pub reason: String,
}

impl Problem {
    /// At a place, for a reason.
    #[must_use]
    pub fn new(place: impl fmt::Display, reason: impl Into<String>) -> Self {
        Self { place: place.to_string(), reason: reason.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.reason)
    }
}

/// `; did you mean X?` when one of `candidates` is close to `word`, else nothing.
#[must_use]
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    // More edits than these make it another word.
    let edits_max = (word.len() / 4).clamp(1, 3);
    let best = candidates
        .into_iter()
        .map(|candidate| (strsim::osa_distance(word, candidate), candidate))
        .filter(|&(edits, _)| edits <= edits_max)
        .min_by_key(|&(edits, _)| edits);
    best.map_or_else(String::new, |(_, candidate)| format!("; did you mean `{candidate}`?"))
}
