//! Settings that exist but whose feature is not part of this version yet.
//!
//! Whoever asks for one is refused at the start: a server that ignored `durability = "fsync"` in
//! silence would be a lie found too late. Each feature has its paragraph in [`problems`]; the version
//! that brings the feature deletes the paragraph.

use super::low::Low;
use super::place::{Origin, Problem};
use super::value::Durability;

/// What a namespace that says nothing gets. The version that can write a log makes it
/// [`Durability::Fsync`].
pub const DURABILITY_DEFAULT: Durability = Durability::None;

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
    let namespaces = low.namespace.values().map(|(_, namespace)| namespace);
    for durability in namespaces.chain([&low.everywhere]).filter_map(|low| low.durability.as_ref()) {
        if durability.value != Durability::None {
            refuse(&durability.origin, &format!("durability \"{}\"", durability.value));
        }
    }
    problems
}

/// What differs from what somebody who says nothing may expect.
#[must_use]
pub fn warnings(low: &Low) -> Vec<Problem> {
    let mut warnings = Vec::new();
    if low.everywhere.durability.is_none() {
        let reason = "data is kept in memory only and does not survive a restart: a log on disk is not part of this \
                      version yet (durability = \"none\" accepts this)";
        warnings.push(Problem::new("durability", reason));
    }
    warnings
}
