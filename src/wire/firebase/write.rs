//! What a server says: appends JSON to a buffer that the caller lends, which [`frames`](super::frames)
//! then make ready to be sent (Firebase wire specification, sections 1.4, 2 and 3.3).

use super::frames;
use super::query::write_query;
use super::refusal;
use crate::base::WallMillis;
use crate::data::{Node, Path, export};
use crate::json;
use crate::op::{BadCredential, Event, Outcome, Refusal, Tag, Word};

/// What a server says first, before it has heard anything.
#[derive(Clone, Copy, Debug)]
pub struct Handshake<'a> {
    /// The server's time.
    pub time: WallMillis,
    /// The request's `Host` header, as it came: clients connect to this name from now on.
    pub host: &'a str,
    /// The name by which the client may speak of this session later (`ls`).
    pub session: &'a str,
}

/// Appends the handshake.
pub fn handshake(out: &mut Vec<u8>, handshake: &Handshake<'_>) {
    out.extend_from_slice(br#"{"t":"c","d":{"t":"h","d":{"ts":"#);
    json::integer(out, handshake.time.0);
    out.extend_from_slice(br#","v":"5","h":"#);
    json::text(out, handshake.host);
    out.extend_from_slice(br#","s":"#);
    json::text(out, handshake.session);
    out.extend_from_slice(b"}}}");
}

/// Appends the answer to a ping. JavaScript ignores it without its `d`.
pub fn pong(out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"t":"c","d":{"t":"o","d":null}}"#);
}

/// Appends a redirection: the client connects to `host` instead.
pub fn reset(out: &mut Vec<u8>, host: &str) {
    control(out, b"r", host);
}

/// Appends a dismissal: the client never connects again until its application is restarted.
pub fn shutdown(out: &mut Vec<u8>, reason: &str) {
    control(out, b"s", reason);
}

fn control(out: &mut Vec<u8>, kind: &[u8], text: &str) {
    out.extend_from_slice(br#"{"t":"c","d":{"t":""#);
    out.extend_from_slice(kind);
    out.extend_from_slice(br#"","d":"#);
    json::text(out, text);
    out.extend_from_slice(b"}}");
}

/// Appends what a client is told.
pub fn word(out: &mut Vec<u8>, word: &Word<'_>) {
    match *word {
        Word::Outcome { number, outcome: what } => outcome(out, number, what),
        Word::SignedIn { number, identity } => authenticated(out, number, &identity.auth, identity.expires_s),
        Word::SignedOut { number } => unauthenticated(out, number),
        Word::Echo { number, json } => echoed(out, number, json),
        Word::Pong => pong(out),
        Word::CredentialRevoked(why) => credential_revoked(out, why),
    }
}

/// Appends the answer to a request, as its outcome demands.
pub fn outcome(out: &mut Vec<u8>, request: i64, outcome: &Outcome) {
    match outcome {
        Outcome::Done => done(out, request),
        Outcome::Value(node) => value(out, request, node),
        Outcome::Listening { is_unindexed } => listening(out, request, *is_unindexed),
        Outcome::Mismatch(_) => refused(out, request, &Refusal::Stale),
        Outcome::Refused(refusal) => refused(out, request, refusal),
    }
}

/// Appends the plain ok: to writes, unlistens, last words, and whatever else has nothing to say.
pub fn done(out: &mut Vec<u8>, request: i64) {
    ok(out, request, |out| out.extend_from_slice(br#""""#));
}

/// Appends the ok to a listen. Android takes anything but an object for a mistake of its own.
pub fn listening(out: &mut Vec<u8>, request: i64, is_unindexed: bool) {
    let data: &[u8] = if is_unindexed { br#"{"w":["no_index"]}"# } else { b"{}" };
    ok(out, request, |out| out.extend_from_slice(data));
}

/// Appends the answer to a get.
pub fn value(out: &mut Vec<u8>, request: i64, node: &Node) {
    ok(out, request, |out| export(out, node));
}

/// Appends the ok to a sign-in: what the rules see as `auth`, and until when, in seconds since 1970.
pub fn authenticated(out: &mut Vec<u8>, request: i64, auth: &serde_json::Value, expires_s: Option<u64>) {
    ok(out, request, |out| {
        out.extend_from_slice(br#"{"auth":"#);
        serde_json::to_writer(&mut *out, auth).expect("a value is JSON, and a vector takes it");
        if let Some(expires_s) = expires_s {
            out.extend_from_slice(br#","expires":"#);
            json::integer(out, expires_s);
        }
        out.push(b'}');
    });
}

/// Appends the ok to a sign-out.
pub fn unauthenticated(out: &mut Vec<u8>, request: i64) {
    ok(out, request, |out| out.extend_from_slice(br#""unauthenticated""#));
}

/// Appends the answer to an echo: the same JSON.
pub fn echoed(out: &mut Vec<u8>, request: i64, json: &str) {
    ok(out, request, |out| out.extend_from_slice(json.as_bytes()));
}

fn ok(out: &mut Vec<u8>, request: i64, data: impl FnOnce(&mut Vec<u8>)) {
    reply(out, request, "ok", data);
}

/// Appends the refusal of a request.
pub fn refused(out: &mut Vec<u8>, request: i64, refusal: &Refusal) {
    // Always a text: Android casts it.
    reply(out, request, refusal::status(refusal), |out| json::text(out, &refusal::text(refusal)));
}

fn reply(out: &mut Vec<u8>, request: i64, status: &str, data: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(br#"{"t":"d","d":{"r":"#);
    json::integer(out, request);
    out.extend_from_slice(br#","b":{"s":""#);
    out.extend_from_slice(status.as_bytes());
    out.extend_from_slice(br#"","d":"#);
    data(out);
    out.extend_from_slice(b"}}}");
}

/// Appends the news that the client's credential is no longer accepted: it fetches another one and
/// connects again.
pub fn credential_revoked(out: &mut Vec<u8>, why: BadCredential) {
    out.extend_from_slice(br#"{"t":"d","d":{"a":"ac","b":{"s":""#);
    out.extend_from_slice(refusal::credential_status(why).as_bytes());
    out.extend_from_slice(br#"","d":"#);
    json::text(out, refusal::revoked_text(why));
    out.extend_from_slice(b"}}}");
}

/// Appends an event, for the listen with that tag.
pub fn event(out: &mut Vec<u8>, event: &Event, tag: Tag) {
    event_head(out, event, write_path);
    if let (Event::Revoked { query, .. }, Some(_)) = (event, tag) {
        event_query(out, query);
        event_tail(out, None);
    } else {
        event_tail(out, tag);
    }
}

/// An event, encoded once for all who hear of it. Only its last bytes differ between listens, and
/// for listens without a tag nothing does: of those, one frame serves all.
#[derive(Clone, Debug, Default)]
pub struct EventText {
    /// The message up to where the tag goes.
    head: Vec<u8>,
    /// What goes there instead of a tag, where the event is the end of a tagged listen.
    query: Vec<u8>,
}

impl EventText {
    /// Encodes an event, in the room that the one before has left.
    pub fn fill(&mut self, event: &Event) {
        self.head.clear();
        self.query.clear();
        event_head(&mut self.head, event, write_path);
        if let Event::Revoked { query, .. } = event {
            event_query(&mut self.query, query);
        }
    }

    /// Appends the message, for the listen with that tag.
    pub fn write(&self, out: &mut Vec<u8>, tag: Tag) {
        out.extend_from_slice(&self.head);
        if tag.is_some() && !self.query.is_empty() {
            out.extend_from_slice(&self.query);
            event_tail(out, None);
        } else {
            event_tail(out, tag);
        }
    }

    /// Appends the message in frames, for the listen with that tag.
    pub fn write_frames(&self, out: &mut Vec<u8>, tag: Tag) {
        let start = out.len();
        self.write(out, tag);
        frames::seal(out, start);
    }
}

/// Appends an event up to where the tag goes. `write_path` appends a path as the protocol has it.
pub(in crate::wire) fn event_head(out: &mut Vec<u8>, event: &Event, write_path: impl FnOnce(&mut Vec<u8>, &Path)) {
    let (action, path) = match event {
        Event::Set { path, .. } => (b'd', path),
        Event::Merge { path, .. } => (b'm', path),
        Event::Revoked { path, .. } => (b'c', path),
        Event::Operation(_) => unreachable!("only streams are told of operations"),
    };
    out.extend_from_slice(br#"{"t":"d","d":{"a":""#);
    out.push(action);
    out.extend_from_slice(br#"","b":{"p":"#);
    write_path(out, path);
    match event {
        Event::Set { node, .. } => {
            out.extend_from_slice(br#","d":"#);
            export(out, node);
        }
        Event::Merge { changes, .. } => {
            out.extend_from_slice(br#","d":{"#);
            for (index, (place, node)) in changes.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                json::text(out, place.as_str());
                out.push(b':');
                export(out, node);
            }
            out.push(b'}');
        }
        Event::Revoked { .. } | Event::Operation(_) => {}
    }
}

fn write_path(out: &mut Vec<u8>, path: &Path) {
    json::text(out, path.as_str());
}

fn event_query(out: &mut Vec<u8>, query: &crate::op::Query) {
    out.extend_from_slice(br#","q":["#);
    write_query(out, query);
    out.push(b']');
}

fn event_tail(out: &mut Vec<u8>, tag: Tag) {
    if let Some(tag) = tag {
        out.extend_from_slice(br#","t":"#);
        json::integer(out, tag);
    }
    out.extend_from_slice(b"}}}");
}
