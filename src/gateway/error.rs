//! What goes wrong, by name.

use std::fmt;

use crate::data::{Invalid, InvalidPath};
use crate::op::{BadCredential, End, Refusal};

/// Why something was not done, or does not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The server refused it; nothing has changed.
    Refused(Refusal),
    /// The text is no JSON.
    NotJson,
    /// The session is over, and with it everything of it.
    Over(End),
    /// The listen's events were not taken, and there were too many: it is over, the session is not.
    TooSlow,
}

impl Error {
    /// One word for it, which never changes: for logs and for protocols.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Refused(Refusal::Denied) => "permission_denied",
            Self::Refused(Refusal::Stale) => "stale",
            Self::Refused(Refusal::Data(_)) => "invalid_data",
            Self::Refused(Refusal::Path(_)) => "invalid_path",
            Self::Refused(Refusal::Overlap) => "overlap",
            Self::Refused(Refusal::Malformed(_)) => "malformed",
            Self::Refused(Refusal::Limit(_)) => "limit",
            Self::Refused(Refusal::UnknownAction) => "unknown_action",
            Self::Refused(Refusal::NoSession) => "no_session",
            Self::Refused(Refusal::Credential(BadCredential::Expired)) => "expired_token",
            Self::Refused(Refusal::Credential(_)) => "invalid_token",
            Self::Refused(Refusal::Unavailable) => "unavailable",
            Self::NotJson => "not_json",
            Self::Over(_) => "over",
            Self::TooSlow => "too_slow",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(Refusal::Malformed(text) | Refusal::Limit(text)) => write!(f, "{}: {text}", self.as_str()),
            Self::Over(end) => write!(f, "the session is over: {}", end.as_str()),
            _ => f.write_str(self.as_str()),
        }
    }
}

impl std::error::Error for Error {}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Self {
        Self::Refused(Refusal::Data(invalid))
    }
}

impl From<InvalidPath> for Error {
    fn from(invalid: InvalidPath) -> Self {
        Self::Refused(Refusal::Path(invalid))
    }
}
