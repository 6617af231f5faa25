//! What answers are called on this wire.

use super::Code;
use crate::op::Refusal;

/// The code of a refusal. Never 4.01: that means an unknown session and makes the SDK begin another
/// one at once, and again.
#[must_use]
pub fn refused(refusal: &Refusal) -> Code {
    match refusal {
        Refusal::Denied | Refusal::Credential(_) => Code::FORBIDDEN,
        Refusal::Data(_) | Refusal::Path(_) | Refusal::Overlap | Refusal::Malformed(_) => Code::BAD_REQUEST,
        Refusal::UnknownAction => Code::METHOD_NOT_ALLOWED,
        Refusal::NoSession => Code::NOT_FOUND,
        Refusal::Stale | Refusal::Limit(_) => Code::PRECONDITION_FAILED,
        Refusal::Unavailable => Code::UNAVAILABLE,
    }
}

/// The number of the notification after the one with that number: "start at 1, add 1"; 24 bits, and
/// never 0, which 1.x ignores.
#[must_use]
pub const fn sequence(last: u32) -> u32 {
    if last >= 0x00ff_ffff { 1 } else { last + 1 }
}
