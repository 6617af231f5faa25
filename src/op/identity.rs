//! Who a session is, as far as rules can see.

use serde_json::Value;

/// Who asks. Shared by all requests of a session; replaced, never changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The rules do not apply.
    pub is_admin: bool,
    /// The rules' variable `auth`: `null` when signed out, else an object with `uid`, `provider`,
    /// `token`, or what a legacy token carried.
    pub auth: Value,
    /// When the credential runs out, in seconds since 1970.
    pub expires_s: Option<u64>,
}

impl Identity {
    /// Signed out.
    pub const NOBODY: Self = Self { is_admin: false, auth: Value::Null, expires_s: None };
    /// The operator.
    pub const ADMIN: Self = Self { is_admin: true, auth: Value::Null, expires_s: None };

    /// The user's id, if there is one: for logs.
    #[must_use]
    pub fn uid(&self) -> Option<&str> {
        self.auth.get("uid")?.as_str()
    }
}
