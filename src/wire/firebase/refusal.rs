//! What a refusal is called on this wire: the only place that knows
//! (Firebase wire specification, section 2.1).

use std::borrow::Cow;

use crate::data::{Invalid, InvalidKey, InvalidPath};
use crate::op::{BadCredential, Refusal};

/// The status that clients act upon. Of those that are ours, JavaScript shows the upper case.
#[must_use]
pub const fn status(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Denied | Refusal::Credential(BadCredential::Forbidden) => "permission_denied",
        Refusal::Stale => "datastale",
        Refusal::Data(_) | Refusal::Path(_) | Refusal::Overlap => "invalid_data",
        Refusal::Malformed(_) => "invalid_request",
        Refusal::UnknownAction => "unknown_action",
        Refusal::NoSession => "no_session",
        Refusal::Limit(_) => "limits_exceeded",
        Refusal::Credential(credential) => credential_status(*credential),
        Refusal::Unavailable => "unavailable",
    }
}

/// The text for people.
#[must_use]
pub fn text(refusal: &Refusal) -> Cow<'static, str> {
    Cow::Borrowed(match refusal {
        Refusal::Denied => "Permission denied",
        Refusal::Stale => "Transaction hash does not match",
        Refusal::Data(invalid) => data_text(*invalid),
        Refusal::Path(InvalidPath::Key(key)) => key_text(*key),
        Refusal::Path(InvalidPath::TooDeep) => "Invalid path: more than 32 levels",
        Refusal::Overlap => "Invalid update: a path is an ancestor of another, or the same",
        Refusal::Malformed(what) => {
            return Cow::Owned(format!("Invalid request: '{what}' is missing or of a wrong type"));
        }
        Refusal::Limit(what) => return Cow::Owned(format!("Limit exceeded: {what}")),
        Refusal::UnknownAction => "Unknown action",
        Refusal::NoSession => "There is no such session",
        Refusal::Credential(credential) => credential_text(*credential),
        Refusal::Unavailable => "The service is unavailable",
    })
}

/// The status of a credential that is not, or no longer, accepted.
pub(super) const fn credential_status(credential: BadCredential) -> &'static str {
    match credential {
        BadCredential::Invalid => "invalid_token",
        BadCredential::Expired => "expired_token",
        BadCredential::Forbidden => "permission_denied",
    }
}

pub(super) const fn credential_text(credential: BadCredential) -> &'static str {
    match credential {
        BadCredential::Invalid => "Could not parse auth token.",
        BadCredential::Expired => "Auth token is expired",
        BadCredential::Forbidden => "Permission denied",
    }
}

/// The text of the news that a credential is no longer accepted: the original service ends this one
/// with a full stop.
pub(super) const fn revoked_text(credential: BadCredential) -> &'static str {
    match credential {
        BadCredential::Expired => "Auth token is expired.",
        BadCredential::Invalid | BadCredential::Forbidden => credential_text(credential),
    }
}

const fn key_text(key: InvalidKey) -> &'static str {
    match key {
        InvalidKey::Empty => "Invalid key: it is empty",
        InvalidKey::TooLong => "Invalid key: more than 768 bytes",
        InvalidKey::Forbidden => "Invalid key: it contains one of . # $ [ ] / or a control character",
    }
}

const fn data_text(invalid: Invalid) -> &'static str {
    match invalid {
        Invalid::Key(key) => key_text(key),
        Invalid::Reserved => "Invalid data: a name that begins with '.' is none of .value, .priority, .sv",
        Invalid::Duplicate => "Invalid data: a member stands twice",
        Invalid::Value => "Invalid data: .value stands beside children, or is no leaf",
        Invalid::Priority => "Invalid data: .priority is neither a string nor a number nor null",
        Invalid::ServerValue => "Invalid data: .sv is neither \"timestamp\" nor {\"increment\": number}",
        Invalid::TooDeep => "Invalid data: more than 32 levels",
        Invalid::TextTooLong => "Invalid data: a string of more than 10 MB",
    }
}
