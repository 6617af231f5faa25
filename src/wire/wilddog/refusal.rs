//! What a refusal is called on this wire, and its number
//! (Wilddog wire specification, section 10.1).

use std::borrow::Cow;

use crate::data::{Invalid, InvalidPath};
use crate::op::{BadCredential, Refusal};
use crate::wire::firebase;

/// The word that clients show in upper case.
#[must_use]
pub const fn status(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Data(_) | Refusal::Path(_) | Refusal::Overlap | Refusal::Malformed(_) | Refusal::UnknownAction => {
            "error"
        }
        _ => firebase::status(refusal),
    }
}

/// The number that applications see as the error's `code`.
#[must_use]
pub const fn code(refusal: &Refusal) -> u32 {
    match refusal {
        Refusal::Unavailable => 26_003,
        Refusal::Denied | Refusal::Credential(BadCredential::Forbidden) => 26_101,
        Refusal::Limit(_) => 26_104,
        Refusal::Data(Invalid::TextTooLong) => 26_105,
        Refusal::Path(InvalidPath::TooDeep) | Refusal::Data(Invalid::TooDeep) => 26_106,
        Refusal::Stale => 26_201,
        Refusal::Credential(BadCredential::Expired) => 26_801,
        Refusal::Credential(BadCredential::Invalid) => 26_802,
        Refusal::Data(_)
        | Refusal::Path(_)
        | Refusal::Overlap
        | Refusal::Malformed(_)
        | Refusal::UnknownAction
        | Refusal::NoSession => 29_999,
    }
}

/// The text for people.
#[must_use]
pub fn text(refusal: &Refusal) -> Cow<'static, str> {
    match refusal {
        Refusal::Denied => Cow::Borrowed("This client does not have permission to perform this operation"),
        _ => firebase::text(refusal),
    }
}
