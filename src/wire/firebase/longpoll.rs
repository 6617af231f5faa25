//! Long polling: what browsers do where there is no WebSocket yet
//! (Firebase wire specification, section 10).
//!
//! The surprising idea: the answers are scripts. The page loads each poll as a script element, so
//! what the server says is JavaScript that calls two functions, and every message in it must be safe
//! to stand in a script. What the client says comes in the query string, base64 cut into segments that
//! may arrive in any order. Sessions, and which request is held, are the caller's.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::base::limits::{MESSAGE_BYTES_MAX, SEGMENTS_MAX};
use crate::json;
use crate::wire::http::{Query, percent_encode};

/// The headers of every scripted answer. A browser must not guess that a script is a page.
pub const SCRIPT_HEADERS: [(&str, &str); 3] = [
    ("Content-Type", "application/javascript; charset=utf-8"),
    ("Cache-Control", "no-cache"),
    ("X-Content-Type-Options", "nosniff"),
];
/// The headers of the page that [`write_frame`] writes.
pub const FRAME_HEADERS: [(&str, &str); 2] =
    [("Content-Type", "text/html; charset=utf-8"), ("Cache-Control", "no-cache")];

/// The clients' base64: `-` and `_` in the alphabet, and `.` for padding, which is cut off before.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::RequireNone),
);
/// Bytes of base64 that a session may leave lying until its message is whole.
const PENDING_BYTES_MAX: usize = MESSAGE_BYTES_MAX / 3 * 4 + 4;

/// A request to `/.lp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poll<'a> {
    /// Begin a session. [`Connect`](super::Connect) reads the rest of the query.
    Start {
        /// The number of the page's callbacks.
        callback: u64,
    },
    /// Wait for messages, and perhaps bring some: see [`segments`].
    Wait(Credentials<'a>),
    /// A page that ends the session when it is left.
    Frame(Credentials<'a>),
    /// The session is over: that page was left.
    End(Credentials<'a>),
}

/// How a poll names its session: with what [`write_start`] gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials<'a> {
    /// Which.
    pub id: &'a str,
    /// The proof.
    pub password: &'a str,
}

/// A query that no client sends, or segments that make no message. The session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPoll;

impl<'a> Poll<'a> {
    /// Reads the query string of a request to `/.lp`.
    pub fn read(query: Query<'a>) -> Result<Self, BadPoll> {
        if query.raw("start") == Some("t") {
            let callback = query.raw("cb").and_then(number).ok_or(BadPoll)?;
            return Ok(Self::Start { callback });
        }
        let id = query.raw("id").ok_or(BadPoll)?;
        let password = query.raw("pw").ok_or(BadPoll)?;
        let credentials = Credentials { id, password };
        Ok(match (query.raw("dframe"), query.raw("disconn")) {
            (Some("t"), _) => Self::Frame(credentials),
            (_, Some("t")) => Self::End(credentials),
            _ => Self::Wait(credentials),
        })
    }
}

/// A piece of a client's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Its number among all segments of the session.
    pub number: u64,
    /// How many segments its message has.
    pub count: usize,
    /// Base64.
    pub data: &'a str,
}

/// The segments that a poll brings: `seg0`, `ts0`, `d0`, `seg1` and so on.
pub fn segments(query: Query<'_>) -> impl Iterator<Item = Result<Segment<'_>, BadPoll>> {
    // Clients write the three beside each other, so one walk over the query finds them all.
    let mut pairs = query.pairs().skip_while(|(name, _)| *name != "seg0");
    let mut index = 0_usize;
    std::iter::from_fn(move || {
        let (name, seg) = pairs.next()?;
        let (ts_name, ts) = pairs.next().unwrap_or_default();
        let (data_name, data) = pairs.next().unwrap_or_default();
        let is_own = |name: &str, stem: &str| {
            let own = name.strip_prefix(stem).and_then(number);
            own == Some(index as u64)
        };
        let is_good = is_own(name, "seg") && is_own(ts_name, "ts") && is_own(data_name, "d");
        index += 1;
        let segment = || {
            let count = usize::try_from(number(ts)?).ok()?;
            Some(Segment { number: number(seg)?, count, data })
        };
        Some(segment().filter(|_| is_good).ok_or(BadPoll))
    })
}

/// A decimal number as JavaScript prints integers.
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

/// Joins the segments of one session's messages, in whatever order they come.
#[derive(Debug, Default)]
pub struct Segments {
    /// The number of the first segment of the next message.
    next: u64,
    /// Segments that have come, by number, with how many their message has.
    pending: BTreeMap<u64, (usize, Box<str>)>,
    /// The bytes of all of them.
    pending_bytes: usize,
}

impl Segments {
    /// Takes a segment. One that came before is ignored: browsers repeat requests.
    pub fn push(&mut self, segment: Segment<'_>) -> Result<(), BadPoll> {
        if segment.number < self.next || self.pending.contains_key(&segment.number) {
            return Ok(());
        }
        let is_near = segment.number - self.next < SEGMENTS_MAX as u64;
        let is_sized = (1..=SEGMENTS_MAX).contains(&segment.count);
        if !is_near || !is_sized || self.pending_bytes + segment.data.len() > PENDING_BYTES_MAX {
            return Err(BadPoll);
        }
        self.pending_bytes += segment.data.len();
        self.pending.insert(segment.number, (segment.count, segment.data.into()));
        Ok(())
    }

    /// Bytes of segments whose messages are not whole.
    #[must_use]
    pub const fn held_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// The next message, once all its segments are here. In the order in which they were sent.
    pub fn next_message(&mut self) -> Result<Option<Vec<u8>>, BadPoll> {
        let Some((_, (count, _))) = self.pending.first_key_value().filter(|(number, _)| **number == self.next) else {
            return Ok(None);
        };
        let (count, end) = (*count, self.next + *count as u64);
        if self.pending.len() < count {
            return Ok(None);
        }
        let pieces = self.pending.range(self.next..end);
        if pieces.clone().any(|(_, (its_count, _))| *its_count != count) {
            return Err(BadPoll);
        }
        if pieces.count() < count {
            return Ok(None);
        }
        let mut text = String::new();
        let rest = self.pending.split_off(&end);
        for (_, (_, data)) in std::mem::replace(&mut self.pending, rest) {
            self.pending_bytes -= data.len();
            text.push_str(&data);
        }
        self.next = end;
        let digits = text.trim_end_matches('.');
        BASE64.decode(digits).map(Some).map_err(|_| BadPoll)
    }
}

/// Appends the answer to [`Poll::Start`]: the page's callbacks, the session's name and password, and
/// its first message. `id` and `password` are ours: letters and digits.
pub fn write_start(out: &mut Vec<u8>, callback: u64, credentials: Credentials<'_>, handshake: &[u8]) {
    assert_plain(credentials);
    for (function, arguments) in [("pLPCommand", "c,a1,a2,a3,a4"), ("pRTLPCB", "pN,data")] {
        let text = format!(
            "function {function}({arguments}) {{\n\
             parent.window[\"{function}{callback}\"] && parent.window[\"{function}{callback}\"]({arguments});\n}}\n"
        );
        out.extend_from_slice(text.as_bytes());
    }
    let Credentials { id, password } = credentials;
    out.extend_from_slice(format!("pLPCommand('start','{id}','{password}');\n").as_bytes());
    write_messages(out, 0, std::iter::once(handshake));
}

/// Appends the answer to [`Poll::Wait`]. `packet` counts a session's answers; the one of
/// [`write_start`] was 0. Without messages it only lets the request go.
pub fn write_messages<'m>(out: &mut Vec<u8>, packet: u64, messages: impl Iterator<Item = &'m [u8]>) {
    out.extend_from_slice(b"pRTLPCB(");
    json::integer(out, packet);
    out.extend_from_slice(b",[");
    for (index, message) in messages.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_scripted(out, message);
    }
    out.extend_from_slice(b"]);\n");
}

/// Appends the end of a session: to a poll of one that nobody knows, too.
pub fn write_close(out: &mut Vec<u8>) {
    out.extend_from_slice(b"pLPCommand('close');\n");
}

/// Appends the page that ends the session when it is left.
pub fn write_frame(out: &mut Vec<u8>, credentials: Credentials<'_>, namespace: &str) {
    assert_plain(credentials);
    let Credentials { id, password } = credentials;
    out.extend_from_slice(
        b"<html><body><script>\n\
          function end() {\n\
          var request = new XMLHttpRequest();\n\
          request.open(\"GET\", \"/.lp?disconn=t&id=",
    );
    out.extend_from_slice(format!("{id}&pw={password}&ns=").as_bytes());
    percent_encode(out, namespace);
    out.extend_from_slice(
        b"\", false);\n\
          request.send(null);\n\
          }\n\
          window.onunload = end;\n\
          </script></body></html>\n",
    );
}

fn assert_plain(credentials: Credentials<'_>) {
    let is_plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    assert!(is_plain(credentials.id), "a session's name stands in scripts and URLs as it is");
    assert!(is_plain(credentials.password), "a session's password stands in scripts and URLs as it is");
}

/// Appends JSON so that it can stand in a script, even one inside a page: `<` begins no tag, and the
/// two line separators that JSON's strings may hold, and JavaScript's once could not, are escaped.
/// All three occur in strings only.
fn write_scripted(out: &mut Vec<u8>, message: &[u8]) {
    let mut rest = message;
    while let Some(at) = memchr::memchr2(b'<', 0xe2, rest) {
        let (before, found) = rest.split_at(at);
        out.extend_from_slice(before);
        let (escaped, taken): (&[u8], usize) = match found {
            [b'<', ..] => (b"\\u003c", 1),
            [_, 0x80, 0xa8, ..] => (b"\\u2028", 3),
            [_, 0x80, 0xa9, ..] => (b"\\u2029", 3),
            _ => (&found[..1], 1),
        };
        out.extend_from_slice(escaped);
        rest = &found[taken..];
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests;
