//! What the URL of a connection says (Firebase wire specification, section 1.1).

use std::borrow::Cow;

use crate::base::SessionId;
use crate::base::limits::NAMESPACE_BYTES_MAX;
use crate::wire::http::{Head, Query};

/// Who connects to what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect<'a> {
    /// The database.
    pub namespace: Cow<'a, str>,
    /// `ls`: the session that this client had before. It is to be over before this one begins. `None`
    /// also for what no server like us can have issued.
    pub last_session: Option<SessionId>,
    /// `s`: the long-polling session that is to go on here.
    pub attach: Option<SessionId>,
}

/// Neither `ns` nor the first label of the host names a database: 1 to [`NAMESPACE_BYTES_MAX`]
/// letters, digits, `-` and `_`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadNamespace;

impl<'a> Connect<'a> {
    /// Reads the head of a request to `/.ws` or `/.lp`.
    pub fn read(head: &Head<'a>) -> Result<Self, BadNamespace> {
        let session = |name| head.query.get(name).and_then(|text| SessionId::parse(&text));
        Ok(Self { namespace: namespace(head.query, head.host())?, last_session: session("ls"), attach: session("s") })
    }
}

/// The database that a URL names: `ns`, else the first label of the host, which has no case.
/// An address given to an SDK without a name makes it send an empty `ns`, which names none.
pub fn namespace<'a>(query: Query<'a>, host: &'a str) -> Result<Cow<'a, str>, BadNamespace> {
    let name = match query.get("ns").filter(|name| !name.is_empty()) {
        Some(name) => name,
        None => {
            let label = host.split(['.', ':']).next().unwrap_or("");
            if label.bytes().any(|byte| byte.is_ascii_uppercase()) {
                Cow::Owned(label.to_ascii_lowercase())
            } else {
                Cow::Borrowed(label)
            }
        }
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let is_good = !name.is_empty() && name.len() <= NAMESPACE_BYTES_MAX && name.bytes().all(is_name);
    if is_good { Ok(name) } else { Err(BadNamespace) }
}
