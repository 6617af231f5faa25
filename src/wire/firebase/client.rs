//! The other side: what clients say, and how they understand a server. For the load generator and
//! the simulator, which speak real bytes.

use super::query::write_query;
use crate::json::{self, Item, Members};
use crate::op::{Query, Tag};

/// What a server said, borrowed from its message.
#[derive(Clone, Copy, Debug)]
pub enum Heard<'t> {
    /// The handshake.
    Handshake {
        /// The server's time in milliseconds since 1970.
        time_ms: i64,
        /// Where to connect from now on.
        host: &'t str,
        /// The session's name.
        session: &'t str,
    },
    /// The answer to a ping.
    Pong,
    /// Connect to this host instead.
    Reset(&'t str),
    /// Never connect again.
    Shutdown(&'t str),
    /// The answer to a request.
    Reply {
        /// The request's number.
        request: i64,
        /// `ok`, or why not.
        status: &'t str,
        /// What was asked for, or a text that says why not.
        data: Item<'t>,
    },
    /// What stands at `path` is now this.
    Set {
        /// Where.
        path: &'t str,
        /// What.
        value: Item<'t>,
        /// To which listen this is said.
        tag: Tag,
    },
    /// What stands at these places below `path` is now this.
    Merge {
        /// Above all places.
        path: &'t str,
        /// Places and what stands there.
        changes: Members<'t>,
        /// To which listen this is said.
        tag: Tag,
    },
    /// A listen is over.
    Revoked {
        /// Where.
        path: &'t str,
        /// Which, if it is not the one to the whole location.
        query: Option<Item<'t>>,
    },
    /// The credential is no longer accepted.
    CredentialRevoked {
        /// Why.
        status: &'t str,
    },
    /// Something else.
    Other,
}

/// Understands one message of a server. `None` if it lacks what it must have.
#[must_use]
pub fn hear(message: Item<'_>) -> Option<Heard<'_>> {
    let body = message.get("d")?;
    match message.get("t")?.as_text()? {
        "c" => hear_control(body),
        "d" => match body.get("r") {
            Some(request) => {
                let answer = body.get("b")?;
                Some(Heard::Reply {
                    request: request.as_int()?,
                    status: answer.get("s")?.as_text()?,
                    data: answer.get("d").unwrap_or(Item::Null),
                })
            }
            None => hear_push(body.get("a")?.as_text()?, body.get("b")?),
        },
        _ => Some(Heard::Other),
    }
}

fn hear_control(body: Item<'_>) -> Option<Heard<'_>> {
    let data = body.get("d")?;
    Some(match body.get("t")?.as_text()? {
        "h" => Heard::Handshake {
            time_ms: data.get("ts")?.as_int()?,
            host: data.get("h")?.as_text()?,
            session: data.get("s")?.as_text()?,
        },
        "o" => Heard::Pong,
        "r" => Heard::Reset(data.as_text()?),
        "s" => Heard::Shutdown(data.as_text()?),
        _ => Heard::Other,
    })
}

fn hear_push<'t>(action: &str, body: Item<'t>) -> Option<Heard<'t>> {
    let path = || body.get("p")?.as_text();
    let tag = || match body.get("t") {
        None => Some(None),
        Some(tag) => Some(Some(u64::try_from(tag.as_int()?).ok()?)),
    };
    Some(match action {
        "d" => Heard::Set { path: path()?, value: body.get("d")?, tag: tag()? },
        "m" => Heard::Merge { path: path()?, changes: body.get("d")?.as_object()?, tag: tag()? },
        "c" => Heard::Revoked {
            path: path()?,
            query: match body.get("q") {
                Some(Item::Array(mut queries)) => queries.next(),
                _ => None,
            },
        },
        "ac" => Heard::CredentialRevoked { status: body.get("s")?.as_text()? },
        _ => Heard::Other,
    })
}

/// Appends a ping.
pub fn ping(out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"t":"c","d":{"t":"p","d":{}}}"#);
}

/// Appends the request that JavaScript sends first; `client` is its name in the server's statistics.
pub fn stats(out: &mut Vec<u8>, request: i64, client: &str) {
    head(out, request, "s");
    out.extend_from_slice(br#""c":{"#);
    json::text(out, client);
    out.extend_from_slice(b":1}");
    tail(out);
}

/// Appends a put of `value`, which is JSON. With `if_hash`, only if that is the hash of what stands
/// there.
pub fn put(out: &mut Vec<u8>, request: i64, path: &str, value: &str, if_hash: Option<&str>) {
    write_request(out, request, "p", path, value, if_hash);
}

/// Appends a merge of `changes`, which is a JSON object.
pub fn merge(out: &mut Vec<u8>, request: i64, path: &str, changes: &str) {
    write_request(out, request, "m", path, changes, None);
}

/// Appends the registration of a put as last words.
pub fn on_disconnect_put(out: &mut Vec<u8>, request: i64, path: &str, value: &str) {
    write_request(out, request, "o", path, value, None);
}

/// Appends the registration of a merge as last words.
pub fn on_disconnect_merge(out: &mut Vec<u8>, request: i64, path: &str, changes: &str) {
    write_request(out, request, "om", path, changes, None);
}

/// Appends a withdrawal of last words.
pub fn on_disconnect_cancel(out: &mut Vec<u8>, request: i64, path: &str) {
    write_request(out, request, "oc", path, "null", None);
}

fn write_request(out: &mut Vec<u8>, request: i64, action: &str, path: &str, data: &str, if_hash: Option<&str>) {
    head_at(out, request, action, path);
    out.extend_from_slice(br#","d":"#);
    out.extend_from_slice(data.as_bytes());
    hash(out, if_hash);
    tail(out);
}

/// Appends a listen. With a `tag` the query is sent along, as clients do; without, there is none.
pub fn listen(out: &mut Vec<u8>, request: i64, path: &str, query: &Query, tag: Tag, has_hash: &str) {
    head_at(out, request, "q", path);
    query_and_tag(out, query, tag);
    hash(out, Some(has_hash));
    tail(out);
}

/// Appends the end of a listen, which is named as it was begun.
pub fn unlisten(out: &mut Vec<u8>, request: i64, path: &str, query: &Query, tag: Tag) {
    head_at(out, request, "n", path);
    query_and_tag(out, query, tag);
    tail(out);
}

/// Appends a read.
pub fn get(out: &mut Vec<u8>, request: i64, path: &str, query: &Query) {
    head_at(out, request, "g", path);
    out.extend_from_slice(br#","q":"#);
    write_query(out, query);
    tail(out);
}

/// Appends a sign-in with a token.
pub fn auth(out: &mut Vec<u8>, request: i64, cred: &str) {
    credential(out, request, "auth", cred);
}

/// Appends a sign-in with a credential that is no token: an administrator's, or the emulator's.
pub fn gauth(out: &mut Vec<u8>, request: i64, cred: &str) {
    credential(out, request, "gauth", cred);
}

fn credential(out: &mut Vec<u8>, request: i64, action: &str, cred: &str) {
    head(out, request, action);
    out.extend_from_slice(br#""cred":"#);
    json::text(out, cred);
    tail(out);
}

/// Appends a sign-out.
pub fn unauth(out: &mut Vec<u8>, request: i64) {
    head(out, request, "unauth");
    tail(out);
}

fn head(out: &mut Vec<u8>, request: i64, action: &str) {
    out.extend_from_slice(br#"{"t":"d","d":{"r":"#);
    json::integer(out, request);
    out.extend_from_slice(br#","a":""#);
    out.extend_from_slice(action.as_bytes());
    out.extend_from_slice(br#"","b":{"#);
}

fn head_at(out: &mut Vec<u8>, request: i64, action: &str, path: &str) {
    head(out, request, action);
    out.extend_from_slice(br#""p":"#);
    json::text(out, path);
}

fn query_and_tag(out: &mut Vec<u8>, query: &Query, tag: Tag) {
    let Some(tag) = tag else { return };
    out.extend_from_slice(br#","q":"#);
    write_query(out, query);
    out.extend_from_slice(br#","t":"#);
    json::integer(out, tag);
}

fn hash(out: &mut Vec<u8>, hash: Option<&str>) {
    let Some(hash) = hash else { return };
    out.extend_from_slice(br#","h":"#);
    json::text(out, hash);
}

fn tail(out: &mut Vec<u8>) {
    out.extend_from_slice(b"}}}");
}
