//! The same sessions without a socket of their own protocol: requests over HTTP, listens as streams of events.
//!
//! The surprising idea: a stream's connection can say nothing any more, so whoever has one speaks through the
//! *porter*, one further connection that all such clients share: last words are left by its requests, which name
//! the stream. Answers there come in the order of the requests, which is all that is needed to tell whose they
//! are. A client without a stream asks on its own connection, one request behind the other.
//!
//! A session that leaves last words listens to a place where nothing happens: what it costs is the session.

use std::collections::VecDeque;
use std::mem::take;

use serde_json::Value;

use crate::mqtt::Heard;

/// Where nothing happens.
const QUIET: &str = "quiet";
/// A head or an event that is longer is none that we asked for.
const HELD_BYTES_MAX: usize = 1 << 22;

/// An answer that is due.
#[derive(Clone, Copy, Debug)]
struct Due {
    client: u32,
    /// Which of the client's connections had asked.
    connection: u32,
    request: i64,
}

/// What is known of one connection.
#[derive(Debug, Default)]
struct State {
    /// How many connections the client has had.
    connection: u32,
    /// What it listens to, or is about to.
    listens_to: Option<String>,
    /// Whether its stream has begun.
    is_streaming: bool,
    /// The request that the first event answers.
    listen: Option<i64>,
    /// The stream's name, once it is known.
    stream: Option<String>,
    /// Last words that wait for it.
    words: Vec<(i64, String, String)>,
    /// The answers that are due here, in order.
    due: VecDeque<Due>,
    /// The beginning of something.
    held: Vec<u8>,
}

/// How far the porter's connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    Shut,
    Opening,
    Open,
}

/// All clients' half of the protocol.
#[derive(Debug)]
pub struct Rest {
    host: String,
    namespace: String,
    states: Vec<State>,
    door: Door,
    /// What the porter has yet to say.
    said: Vec<u8>,
}

impl Rest {
    /// For `count` clients, the last of whom is the porter.
    #[must_use]
    pub fn new(count: usize, host: &str, namespace: &str) -> Self {
        Self {
            host: host.to_owned(),
            namespace: namespace.to_owned(),
            states: (0..count).map(|_| State::default()).collect(),
            door: Door::Shut,
            said: Vec::new(),
        }
    }

    fn porter(&self) -> u32 {
        u32::try_from(self.states.len() - 1).expect("they were counted in 32 bits")
    }

    /// A client has a new connection. Says whether it is the porter's, of which no scenario knows.
    pub fn opened(&mut self, client: u32) -> bool {
        let is_porter = client == self.porter();
        let state = &mut self.states[client as usize];
        // What the porter is to say was asked before it came.
        let due = if is_porter { take(&mut state.due) } else { VecDeque::new() };
        *state = State { connection: state.connection + 1, due, ..State::default() };
        if is_porter {
            self.door = Door::Open;
        }
        is_porter
    }

    /// A connection is gone. The clients that will hear nothing more because of that, if it was the porter's.
    pub fn gone(&mut self, client: u32) -> Option<Vec<u32>> {
        if client != self.porter() {
            return None;
        }
        self.door = Door::Shut;
        self.said.clear();
        let due = take(&mut self.states[client as usize].due);
        Some(due.into_iter().filter(|due| self.is_current(*due)).map(|due| due.client).collect())
    }

    fn is_current(&self, due: Due) -> bool {
        self.states[due.client as usize].connection == due.connection
    }

    /// What the porter has to say now; whether its connection is to be opened for that.
    pub fn take_said(&mut self) -> Option<(u32, Option<Vec<u8>>)> {
        if self.said.is_empty() {
            return None;
        }
        match self.door {
            Door::Open => Some((self.porter(), Some(take(&mut self.said)))),
            Door::Shut => {
                self.door = Door::Opening;
                Some((self.porter(), None))
            }
            Door::Opening => None,
        }
    }

    /// Asks on the client's own connection, whose bytes are `out`, or through the porter if that is a stream.
    fn ask(&mut self, out: &mut Vec<u8>, client: u32, request: i64, text: &str) {
        let state = &mut self.states[client as usize];
        let due = Due { client, connection: state.connection, request };
        if state.listens_to.is_none() {
            state.due.push_back(due);
            out.extend_from_slice(text.as_bytes());
        } else {
            let porter = self.porter();
            self.states[porter as usize].due.push_back(due);
            self.said.extend_from_slice(text.as_bytes());
        }
    }

    fn call(&self, verb: &str, path: &str, more: &str, body: &str) -> String {
        let Self { host, namespace, .. } = self;
        format!(
            "{verb} /{path}.json?ns={namespace}{more} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    /// Puts `value` at `path`.
    pub fn put(&mut self, out: &mut Vec<u8>, client: u32, request: i64, path: &str, value: &str) {
        let text = self.call("PUT", path, "&print=silent", value);
        self.ask(out, client, request, &text);
    }

    /// Puts what `changes` says below `path`.
    pub fn merge(&mut self, out: &mut Vec<u8>, client: u32, request: i64, path: &str, changes: &str) {
        let text = self.call("PATCH", path, "&print=silent", changes);
        self.ask(out, client, request, &text);
    }

    /// Reads what stands at `path`.
    pub fn get(&mut self, out: &mut Vec<u8>, client: u32, request: i64, path: &str) {
        let text = self.call("GET", path, "", "");
        self.ask(out, client, request, &text);
    }

    /// Listens to everything at `path`: from then on the connection is a stream.
    pub fn listen(&mut self, out: &mut Vec<u8>, client: u32, request: Option<i64>, path: &str) {
        let Self { host, namespace, .. } = self;
        let text =
            format!("GET /{path}.json?ns={namespace} HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\n\r\n");
        out.extend_from_slice(text.as_bytes());
        let state = &mut self.states[client as usize];
        assert!(state.listens_to.is_none(), "a connection has one stream");
        state.listens_to = Some(path.to_owned());
        state.listen = request;
    }

    /// Leaves a last word, with a stream that is begun for it.
    pub fn last_word(&mut self, out: &mut Vec<u8>, client: u32, request: i64, path: &str, value: &str) {
        if self.states[client as usize].listens_to.is_none() {
            self.listen(out, client, None, QUIET);
        }
        self.states[client as usize].words.push((request, path.to_owned(), value.to_owned()));
        self.leave_words(client);
    }

    /// Leaves the last words of a stream whose name is known.
    fn leave_words(&mut self, client: u32) {
        let Some(stream) = self.states[client as usize].stream.clone() else { return };
        for (request, path, value) in take(&mut self.states[client as usize].words) {
            let text = self.call("PUT", &path, &format!("&print=silent&onDisconnect={stream}"), &value);
            self.ask(&mut Vec::new(), client, request, &text);
        }
    }

    /// Reads what a connection has received, and says who hears what.
    ///
    /// # Errors
    /// In words, when it is none of what we know.
    pub fn read(&mut self, client: u32, bytes: &[u8]) -> Result<Vec<(u32, Heard)>, String> {
        let mut held = take(&mut self.states[client as usize].held);
        held.extend_from_slice(bytes);
        let mut all = Vec::new();
        let mut rest = &held[..];
        while let Some(count) = self.read_one(client, rest, &mut all)? {
            rest = &rest[count..];
        }
        if rest.len() > HELD_BYTES_MAX {
            return Err(format!("{} bytes without an end", rest.len()));
        }
        self.states[client as usize].held = rest.to_vec();
        Ok(all)
    }

    /// Reads one answer or event, if it is whole. Returns its length.
    fn read_one(&mut self, client: u32, bytes: &[u8], all: &mut Vec<(u32, Heard)>) -> Result<Option<usize>, String> {
        let state = &mut self.states[client as usize];
        if state.is_streaming {
            let Some(end) = bytes.windows(2).position(|end| end == b"\n\n") else { return Ok(None) };
            let text = std::str::from_utf8(&bytes[..end]).map_err(|_| "an event that is no text")?;
            state.understand(text, &mut |heard| all.push((client, heard)))?;
            return Ok(Some(end + 2));
        }
        let Some(end) = bytes.windows(4).position(|end| end == b"\r\n\r\n") else { return Ok(None) };
        let head = std::str::from_utf8(&bytes[..end]).map_err(|_| "a head that is no text")?;
        let head = Head::read(head)?;
        if let (Some(stream), 200) = (head.stream, head.status) {
            state.is_streaming = true;
            state.stream = Some(stream.to_owned());
            self.leave_words(client);
            return Ok(Some(end + 4));
        }
        let length = end + 4 + head.length;
        let Some(body) = bytes.get(end + 4..length) else { return Ok(None) };
        let is_ok = (200..300).contains(&head.status);
        let due = state.due.pop_front().ok_or_else(|| format!("an answer that nobody waits for: {}", head.status))?;
        if !is_ok && state.listens_to.is_some() {
            return Err(format!("a stream is refused: {} {}", head.status, String::from_utf8_lossy(body)));
        }
        if self.is_current(due) {
            let value = std::str::from_utf8(body).ok().and_then(|text| text.trim().parse().ok());
            all.push((due.client, Heard::Answer { request: due.request, is_ok, value }));
        }
        Ok(Some(length))
    }
}

/// What matters of a response's head.
struct Head<'t> {
    status: u16,
    length: usize,
    stream: Option<&'t str>,
}

impl<'t> Head<'t> {
    fn read(text: &'t str) -> Result<Self, String> {
        let nonsense = || format!("a head that says {text}");
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
        let mut head = Self { status: status.ok_or_else(nonsense)?, length: 0, stream: None };
        for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
            if name.eq_ignore_ascii_case("content-length") {
                head.length = value.parse().map_err(|_| nonsense())?;
            } else if name.eq_ignore_ascii_case("stillhere-stream") {
                head.stream = Some(value);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                return Err(nonsense());
            }
        }
        Ok(head)
    }
}

impl State {
    /// Takes one event of a stream apart.
    fn understand(&mut self, text: &str, tell: &mut impl FnMut(Heard)) -> Result<(), String> {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let (event, data) = (field("event").unwrap_or(""), field("data").unwrap_or(""));
        match event {
            "keep-alive" => tell(Heard::Pinged),
            "put" | "patch" => {
                let data: Value = serde_json::from_str(data).map_err(|_| format!("an event that says {text}"))?;
                let base = self.listens_to.as_deref().unwrap_or_default();
                let path = data["path"].as_str().unwrap_or_default().trim_end_matches('/');
                let first = self.listen.take();
                let is_begin = first.is_some() || base == QUIET;
                match &data["data"] {
                    Value::Object(changes) if event == "patch" => {
                        for (place, value) in changes {
                            tell(Heard::Told { topic: format!("{base}{path}/{place}").into(), value: value.as_i64() });
                        }
                    }
                    // What stands there at first is told, unless it is nothing.
                    Value::Null if is_begin => {}
                    value => tell(Heard::Told { topic: format!("{base}{path}").into(), value: value.as_i64() }),
                }
                if let Some(request) = first {
                    tell(Heard::Answer { request, is_ok: true, value: None });
                }
            }
            _ => return Err(format!("an event that says {text}")),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Event, number};

    fn told(heard: &Heard) -> String {
        match heard.as_event() {
            Event::Answer { request, is_ok, data } => format!("{request} {is_ok} {:?}", number(data)),
            Event::Told { base, value, .. } => format!("{base} {:?}", number(value)),
            other => format!("{other:?}"),
        }
    }

    /// What is heard, the bytes coming one by one.
    fn heard(rest: &mut Rest, client: u32, bytes: &str) -> Vec<String> {
        let mut all = Vec::new();
        for byte in bytes.bytes() {
            match rest.read(client, &[byte]) {
                Ok(heard) => all.extend(heard.iter().map(|(client, heard)| format!("{client}: {}", told(heard)))),
                Err(why) => all.push(why),
            }
        }
        all
    }

    const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nStillhere-Stream: S\r\n\r\n";
    const DONE: &str = "HTTP/1.1 204 No Content\r\n\r\n";

    #[test]
    fn a_client_without_a_stream_asks_for_itself() {
        let (mut rest, mut out) = (Rest::new(2, "h:1", "n"), Vec::new());
        assert!(!rest.opened(0));
        rest.put(&mut out, 0, 1, "a/b", "7");
        rest.get(&mut out, 0, 2, "a/b");
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "PUT /a/b.json?ns=n&print=silent HTTP/1.1\r\nHost: h:1\r\nContent-Length: 1\r\n\r\n7\
             GET /a/b.json?ns=n HTTP/1.1\r\nHost: h:1\r\nContent-Length: 0\r\n\r\n"
        );
        assert!(rest.take_said().is_none());
        let answers = format!("{DONE}HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n7{DONE}");
        let expected = ["0: 1 true None", "0: 2 true Some(7)", "an answer that nobody waits for: 204"];
        assert_eq!(heard(&mut rest, 0, &answers), expected);
    }

    #[test]
    fn last_words_are_left_through_the_porter_once_the_stream_has_a_name() {
        let (mut rest, mut out) = (Rest::new(2, "h", "n"), Vec::new());
        rest.opened(0);
        rest.last_word(&mut out, 0, 1, "a", "3");
        assert!(out.starts_with(b"GET /quiet.json?ns=n HTTP/1.1\r\n"));
        assert!(rest.take_said().is_none(), "the stream has no name yet");
        assert!(heard(&mut rest, 0, HEAD).is_empty());
        assert_eq!(rest.take_said(), Some((1, None)), "the porter is to come");
        assert_eq!(rest.take_said(), None, "it is on its way");
        assert!(rest.opened(1));
        let (porter, said) = rest.take_said().unwrap();
        assert_eq!(porter, 1);
        assert!(said.unwrap().starts_with(b"PUT /a.json?ns=n&print=silent&onDisconnect=S HTTP/1.1\r\n"));
        assert!(heard(&mut rest, 0, "event: put\ndata: {\"path\":\"/\",\"data\":null}\nid: S\n\n").is_empty());
        assert_eq!(heard(&mut rest, 0, "event: keep-alive\ndata: null\n\n"), ["0: Pinged"]);
        assert_eq!(heard(&mut rest, 1, DONE), ["0: 1 true None"]);
        rest.put(&mut out, 0, 2, "a", "4");
        rest.opened(0);
        assert!(heard(&mut rest, 1, DONE).is_empty(), "whoever asked that is gone");
    }

    #[test]
    fn events_are_told_place_by_place() {
        let (mut rest, mut out) = (Rest::new(2, "h", "n"), Vec::new());
        rest.opened(0);
        rest.listen(&mut out, 0, Some(5), "a/b");
        assert!(heard(&mut rest, 0, HEAD).is_empty());
        let events = "event: put\ndata: {\"path\":\"/\",\"data\":null}\nid: S\n\n\
                      event: put\ndata: {\"path\":\"/\",\"data\":7}\n\n\
                      event: put\ndata: {\"path\":\"/u1\",\"data\":8}\n\n\
                      event: patch\ndata: {\"path\":\"/\",\"data\":{\"c\":1,\"d\":2}}\n\nevent: cancel\ndata: null\n\n";
        let expected = [
            "0: 5 true None",
            "0: a/b Some(7)",
            "0: a/b/u1 Some(8)",
            "0: a/b/c Some(1)",
            "0: a/b/d Some(2)",
            "an event that says event: cancel\ndata: null",
        ];
        assert_eq!(heard(&mut rest, 0, events), expected);
    }

    #[test]
    fn when_the_porter_goes_those_hear_of_it_who_wait() {
        let (mut rest, mut out) = (Rest::new(3, "h", "n"), Vec::new());
        rest.opened(0);
        rest.opened(1);
        rest.listen(&mut out, 0, Some(1), "a");
        rest.put(&mut out, 0, 2, "a", "1");
        assert_eq!(rest.take_said(), Some((2, None)));
        rest.opened(2);
        assert_eq!(rest.gone(1), None);
        assert_eq!(rest.gone(2), Some(vec![0]));
        rest.put(&mut out, 0, 3, "a", "1");
        assert_eq!(rest.take_said(), Some((2, None)), "it comes again");
    }
}
