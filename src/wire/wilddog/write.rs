//! What a server says: packets, ready for any transport.

use super::refusal;
use crate::base::WallMillis;
use crate::data::{Path, export};
use crate::json;
use crate::op::{BoundKey, Direction, Event, Index, Outcome, Query, Refusal, Tag, Word};
use crate::wire::firebase::{self, Object};

/// What a server says after Engine.IO's own greeting.
#[derive(Clone, Copy, Debug)]
pub struct Hello<'a> {
    /// The server's time.
    pub time: WallMillis,
    /// What the client calls the server: see [`host`](super::host()).
    pub host: &'a str,
    /// A name of the session. Clients make nothing of it.
    pub session: &'a str,
}

/// Appends the hello.
pub fn hello(out: &mut Vec<u8>, hello: &Hello<'_>) {
    packet(out, |out| {
        out.extend_from_slice(br#"{"t":"c","d":{"t":"h","d":{"ts":"#);
        json::integer(out, hello.time.0);
        out.extend_from_slice(br#","v":"1.0","h":"#);
        json::text(out, hello.host);
        out.extend_from_slice(br#","s":"#);
        json::text(out, hello.session);
        out.extend_from_slice(b"}}}");
    });
}

/// Appends a dismissal: the client never connects again until its application is restarted.
pub fn shutdown(out: &mut Vec<u8>, reason: &str) {
    packet(out, |out| {
        out.extend_from_slice(br#"{"t":"c","d":{"t":"s","d":"#);
        json::text(out, reason);
        out.extend_from_slice(b"}}");
    });
}

/// Appends what a client is told.
pub fn word(out: &mut Vec<u8>, word: &Word<'_>) {
    packet(out, |out| match *word {
        Word::Outcome { number, outcome } => answer(out, number, |out| self::outcome(out, outcome)),
        Word::SignedIn { number, identity } => answer(out, number, |out| {
            out.extend_from_slice(br#""ok","d":{"auth":"#);
            serde_json::to_writer(&mut *out, &identity.auth).expect("a value is JSON, and a vector takes it");
            if let Some(expires_s) = identity.expires_s {
                out.extend_from_slice(br#","expires":"#);
                json::integer(out, expires_s);
            }
            out.push(b'}');
        }),
        Word::SignedOut { number } => answer(out, number, |out| out.extend_from_slice(br#""ok","d":{}"#)),
        Word::Echo { number, json } => answer(out, number, |out| {
            out.extend_from_slice(br#""ok","d":"#);
            out.extend_from_slice(json.as_bytes());
        }),
        // No client asks for it; an object that nobody knows is ignored.
        Word::Pong => out.extend_from_slice(br#"{"t":"c","d":{"t":"o","d":{}}}"#),
        Word::CredentialRevoked(why) => {
            let refusal = Refusal::Credential(why);
            out.extend_from_slice(br#"{"t":"d","d":{"a":"ac","b":{"s":"#);
            json::text(out, refusal::status(&refusal));
            out.extend_from_slice(br#","d":"#);
            json::text(out, &refusal::text(&refusal));
            out.extend_from_slice(b"}}}");
        }
    });
}

/// Appends the answer to a request; `status` appends the rest of the body from the status on.
fn answer(out: &mut Vec<u8>, number: i64, status: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(br#"{"t":"d","d":{"r":"#);
    json::integer(out, number);
    out.extend_from_slice(br#","b":{"s":"#);
    status(out);
    out.extend_from_slice(b"}}}");
}

fn outcome(out: &mut Vec<u8>, outcome: &Outcome) {
    match outcome {
        Outcome::Done | Outcome::Listening { is_unindexed: false } => {
            out.extend_from_slice(br#""ok","d":{}"#);
        }
        Outcome::Listening { is_unindexed: true } => out.extend_from_slice(br#""ok","d":{"w":["no_index"]}"#),
        Outcome::Value(node) => {
            out.extend_from_slice(br#""ok","d":"#);
            export(out, node);
        }
        Outcome::Mismatch(_) => refused(out, &Refusal::Stale),
        Outcome::Refused(why) => refused(out, why),
    }
}

fn refused(out: &mut Vec<u8>, why: &Refusal) {
    json::text(out, refusal::status(why));
    out.extend_from_slice(br#","d":"#);
    json::text(out, &refusal::text(why));
    out.extend_from_slice(br#","c":"#);
    json::integer(out, refusal::code(why));
}

/// An event, encoded once for all who hear of it: only its last bytes differ between listens.
#[derive(Clone, Debug, Default)]
pub struct EventText {
    /// The packet up to where the tag goes.
    head: Vec<u8>,
    /// What goes there instead of a tag, where the event is the end of a tagged listen.
    query: Vec<u8>,
}

impl EventText {
    /// Encodes an event, in the room that the one before has left.
    pub fn fill(&mut self, event: &Event) {
        self.head.clear();
        self.query.clear();
        begin(&mut self.head);
        firebase::event_head(&mut self.head, event, rooted);
        escape(&mut self.head, 0);
        if let Event::Revoked { query, .. } = event {
            self.query.extend_from_slice(br#","q":["#);
            write_query(&mut self.query, query);
            self.query.push(b']');
            escape(&mut self.query, 0);
        }
    }

    /// Appends the packet, for the listen with that tag.
    pub fn write(&self, out: &mut Vec<u8>, tag: Tag) {
        out.extend_from_slice(&self.head);
        match tag {
            Some(_) if !self.query.is_empty() => out.extend_from_slice(&self.query),
            Some(tag) => {
                out.extend_from_slice(br#","t":"#);
                json::integer(out, tag);
            }
            None => {}
        }
        out.extend_from_slice(b"}}}");
        end(out);
    }
}

/// Appends a path with its leading slash, as a string. No key holds what JSON would escape otherwise
/// at its beginning, so the slash can be put in after the quote.
fn rooted(out: &mut Vec<u8>, path: &Path) {
    let at = out.len();
    json::text(out, path.as_str());
    out.insert(at + 1, b'/');
}

/// Appends a query as these clients wrote it. They know no exclusive bounds.
fn write_query(out: &mut Vec<u8>, query: &Query) {
    let mut object = Object::begin(out);
    object.index(&query.index);
    let is_by_key = query.index == Index::Key;
    for (bound, value_name, key_name) in [(&query.start, "sp", "sn"), (&query.end, "ep", "en")] {
        let Some(bound) = bound else { continue };
        object.bound(value_name, bound, is_by_key);
        if let BoundKey::Key(key) = &bound.key
            && !is_by_key
        {
            object.text(key_name, &key.0);
        }
    }
    if let Some(limit) = query.limit {
        object.integer("l", limit.count.get());
        object.text("vf", if limit.from == Direction::First { "l" } else { "r" });
    }
    object.end();
}

/// Appends the answer to a name lookup (section 2.2): newer clients read the list, older ones the
/// name. Clients connect to `host`, and take no other name in the hello.
///
/// The older ones connect only to names that have `.wilddogio.com` in them. Whoever has pointed the name of
/// the lookup here can point the application's own, too; any other name of ours must have it by itself.
pub fn lookup(out: &mut Vec<u8>, application: &str, host: &str) {
    out.extend_from_slice(br#"{"nss":"#);
    match host.strip_prefix("ns.wilddog.com") {
        Some(port) if !application.is_empty() => json::text(out, &format!("{application}.wilddogio.com{port}")),
        _ => json::text(out, host),
    }
    out.extend_from_slice(br#","nssList":["#);
    json::text(out, host);
    out.extend_from_slice(b"]}");
}

/// Appends the answer to a lookup of an application that does not exist. It throws in the client.
pub fn lookup_refused(out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"errcode":26107,"message":"The application does not exist"}"#);
}

/// Appends a packet that carries the object that `write` appends.
fn packet(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    begin(out);
    write(out);
    end(out);
    escape(out, start);
}

fn begin(out: &mut Vec<u8>) {
    out.extend_from_slice(br#"42["wd","#);
}

fn end(out: &mut Vec<u8>) {
    out.push(b']');
}

/// Escapes everything that is not ASCII. In JSON it stands in strings only.
fn escape(out: &mut Vec<u8>, start: usize) {
    if out[start..].is_ascii() {
        return;
    }
    let text = String::from_utf8(out.split_off(start)).expect("what is written is UTF-8");
    let mut units = [0; 2];
    for character in text.chars() {
        if character.is_ascii() {
            let mut byte = [0; 1];
            out.extend_from_slice(character.encode_utf8(&mut byte).as_bytes());
            continue;
        }
        for unit in character.encode_utf16(&mut units) {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            out.extend_from_slice(b"\\u");
            out.extend((0..4).rev().map(|nibble| HEX[usize::from(*unit >> (4 * nibble) & 15)]));
        }
    }
}
