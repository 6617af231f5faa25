//! What fuzzers feed: each takes any bytes, hands them to one decoder, and asserts what must hold
//! whatever the bytes are. `fuzz/` has a target for each, and the tests replay its corpus.

use super::coap::{self, cbor};
use super::firebase::{self, Assembler, Incoming, client, frames, longpoll};
use super::http::{self, Query};
use super::{Input, ws};
use crate::data::{Location, Path};
use crate::json;

/// A decoder's door for fuzzers.
pub type Probe = fn(&[u8]);

/// All of them, by the names of their targets and corpora.
pub const ALL: [(&str, Probe); 8] = [
    ("ws_frame", ws_frame),
    ("http_head", http_head),
    ("firebase_message", firebase_message),
    ("longpoll_segment", longpoll_segment),
    ("path", path),
    ("query_string", query_string),
    ("coap_message", coap_message),
    ("coap_value", coap_value),
];

/// WebSocket frames: the first byte says for which side, the second where the rest is cut in two.
/// Wherever it is cut, the same frames come out; and what is held is no more than what came.
pub fn ws_frame(bytes: &[u8]) {
    let &[side, cut, ref bytes @ ..] = bytes else { return };
    let reader = || if side % 2 == 0 { ws::Reader::for_server() } else { ws::Reader::for_client() };
    let read = |pieces: &[&[u8]]| {
        let mut reader = reader();
        let mut seen = Vec::new();
        for piece in pieces {
            let mut piece = piece.to_vec();
            let mut input = Input::new(&mut piece);
            loop {
                match reader.next(&mut input) {
                    Ok(Some(frame)) => seen.push(format!("{frame:?}")),
                    Ok(None) => break,
                    Err(violation) => {
                        seen.push(violation.as_str().to_owned());
                        return seen;
                    }
                }
            }
            assert!(input.is_empty(), "all is taken");
            assert!(reader.held_bytes() <= 1_024 + 4 * bytes.len(), "room grows with what came");
            assert_eq!(reader.held_bytes() > 0, reader.is_inside(), "between two frames nothing is held");
        }
        seen
    };
    let (first, second) = bytes.split_at(usize::from(cut).min(bytes.len()));
    assert_eq!(read(&[bytes]), read(&[first, second]), "a cut changes nothing");
}

/// Request heads, in the same way; the first byte says where the rest is cut in two.
pub fn http_head(bytes: &[u8]) {
    let Some((cut, bytes)) = bytes.split_first() else { return };
    let read = |pieces: &[&[u8]]| {
        let mut reader = http::Reader::default();
        let mut seen = Vec::new();
        for piece in pieces {
            let mut piece = piece.to_vec();
            let mut input = Input::new(&mut piece);
            loop {
                match reader.next(&mut input) {
                    Ok(Some(head)) => {
                        let upgrade = http::Upgrade::read(&head);
                        let connect = firebase::Connect::read(&head);
                        seen.push(format!("{head:?} {:?} {upgrade:?} {connect:?}", head.body()));
                    }
                    Ok(None) => break,
                    Err(bad) => {
                        seen.push(bad.as_str().to_owned());
                        return seen;
                    }
                }
            }
            assert!(reader.held_bytes() <= 64 + 4 * bytes.len(), "room grows with what came");
        }
        seen
    };
    let (first, second) = bytes.split_at(usize::from(*cut).min(bytes.len()));
    assert_eq!(read(&[bytes]), read(&[first, second]), "a cut changes nothing");
}

/// Text frames, one a line, as a client's and as a server's. Whatever is refused can be answered.
pub fn firebase_message(bytes: &[u8]) {
    let mut reader = json::Reader::default();
    let mut assembler = Assembler::default();
    for line in bytes.split(|byte| *byte == b'\n') {
        let mut line = line.to_vec();
        let mut as_server_said = line.clone();
        let _ = reader.read(&mut as_server_said, |item| client::hear(item).is_some());
        let mut message = match assembler.push(&mut line) {
            Ok(frames::Assembled::Frame(text)) => text.to_vec(),
            Ok(frames::Assembled::Joined(text)) => text,
            Ok(_) => continue,
            Err(frames::TooManySegments) => return,
        };
        if let Incoming::Refused { number, refusal } = firebase::decode(&mut message, &mut reader) {
            let mut answer = Vec::new();
            firebase::refused(&mut answer, number, &refusal);
            let is_heard = reader.read(&mut answer, |item| match client::hear(item) {
                Some(client::Heard::Reply { request, status, .. }) => request == number && status != "ok",
                _ => false,
            });
            assert_eq!(is_heard, Ok(true), "a refusal is an answer to its request");
        }
    }
    assert!(assembler.held_bytes() <= 1_024 + 2 * bytes.len(), "room grows with what came");
}

/// The query strings of polls, one a line, of one session.
pub fn longpoll_segment(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut segments = longpoll::Segments::default();
    for line in text.lines() {
        let query = Query(line);
        let _ = longpoll::Poll::read(query);
        for segment in longpoll::segments(query) {
            let Ok(segment) = segment else { return };
            if segments.push(segment).is_err() {
                return;
            }
            while let Ok(Some(message)) = segments.next_message() {
                assert!(message.len() <= bytes.len(), "base64 is longer than what it says");
            }
        }
    }
    assert!(segments.held_bytes() <= bytes.len(), "only what came is held");
}

/// Paths. What is one reads back as itself.
pub fn path(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(path) = Path::parse(text) {
        assert_eq!(Path::parse(path.as_str()), Ok(path.clone()), "a path reads back as itself");
        assert_eq!(path.keys().count(), path.depth(), "as many keys as levels");
    }
    if let Ok(location) = Location::parse(text) {
        assert!(location.is_priority || Path::parse(text) == Ok(location.path), "one grammar");
    }
}

/// URLs' query strings, and, where a value is JSON, query objects. What is one reads back as itself.
pub fn query_string(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut reader = json::Reader::default();
    let query = Query(text);
    let _ = firebase::namespace(query, text);
    for (name, raw) in query.pairs() {
        let _ = query.get(name);
        let Ok(value) = http::form_decode(raw) else { continue };
        let mut encoded = Vec::new();
        http::percent_encode(&mut encoded, &value);
        let encoded = String::from_utf8(encoded).expect("percent-encoded text is ASCII");
        assert_eq!(http::form_decode(&encoded).as_deref(), Ok(&*value), "what is encoded comes back");
        if let Ok(Ok(object)) = reader.read(&mut value.as_bytes().to_vec(), firebase::read_query) {
            let mut again = Vec::new();
            firebase::write_query(&mut again, &object);
            assert_eq!(reader.read(&mut again, firebase::read_query), Ok(Ok(object)), "a query reads back as itself");
        }
    }
}

/// Datagrams. What is a message is written back as itself but for padding of numbers; what it asks for is
/// understood or has a code.
pub fn coap_message(bytes: &[u8]) {
    let Ok(message) = coap::Message::read(bytes) else { return };
    let write = |message: &coap::Message<'_>| {
        let mut out = Vec::new();
        let writer = coap::Writer::new(&mut out, message.kind, message.code, message.id, message.token);
        message.options().fold(writer, |writer, (number, value)| writer.option(number, value)).payload(message.payload);
        out
    };
    let again = write(&message);
    assert!(again.len() <= bytes.len(), "there is no shorter form");
    let read = coap::Message::read(&again).expect("what was written is a message");
    assert_eq!(write(&read), again, "a message reads back as itself");
    assert!(message.options().eq(read.options()), "with all its options");
    assert_eq!(message.payload, read.payload, "and its payload");
    match coap::Call::read(&message) {
        Ok(call) => assert!(call.namespace.is_none_or(|name| !name.is_empty()), "a namespace has a name"),
        Err(code) => assert_eq!(code.class(), 4, "it is the client's mistake"),
    }
    for block in [message.block1(), message.block2()].into_iter().flatten() {
        let value = block.bits().to_be_bytes();
        assert_eq!(coap::Block::read(&value[1..]), Some(block), "a block reads back as itself");
        if let Some((_, part)) = block.cut(bytes) {
            assert!(bytes[block.offset()..].starts_with(part), "a part stands where it was");
        }
    }
    let _ = (message.size1(), cbor::read(message.payload, 0));
}

/// Values in CBOR. What is one is written, and that reads back as itself.
pub fn coap_value(bytes: &[u8]) {
    let Ok(node) = cbor::read(bytes, 0) else { return };
    let mut out = Vec::new();
    // What is a number of arrays' elements before becomes their keys.
    let bytes_max = 64 * (bytes.len() + 1);
    assert_eq!(cbor::write(&mut out, &node, bytes_max), Ok(()), "it is not much longer");
    // Long integers become doubles, as every client sees them.
    let read = cbor::read(&out, 0).expect("what was written is a value");
    let mut again = Vec::new();
    assert_eq!(cbor::write(&mut again, &read, bytes_max), Ok(()), "it is not much longer");
    assert_eq!(again, out, "a value reads back as itself");
}
