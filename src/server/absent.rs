//! Settings that exist but whose feature is not part of this version yet.
//!
//! Whoever asks for one is refused at the start: a server that ignored `tls.cert` in silence
//! would be a lie found too late. Each feature has its paragraph in [`problems`]; the version
//! that brings the feature deletes the paragraph.

use super::low::Low;
use super::place::{Origin, Problem};

/// What of `low` asks for something that this version does not have.
#[must_use]
pub fn problems(low: &Low) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut refuse = |origin: &Origin, what: &str| {
        problems.push(Problem::new(origin, format!("{what} is not part of this version yet")));
    };
    if let Some(coaps) = &low.coaps {
        refuse(&coaps.origin, "CoAP over DTLS");
    }
    problems
}
