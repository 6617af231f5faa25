//! Replies to bytes, in pieces: a reader of a large location costs one piece of memory, and its
//! printing never holds up a core for longer than a piece takes.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::call::Style;
use super::reply::{Content, Reply};
use crate::data::Printer;
use crate::json;
use crate::wire::http;

/// About so much is printed at a time.
pub const PIECE_BYTES: usize = 256 * 1024;
/// Less than this is not worth compressing.
const COMPRESSED_BYTES_MIN: usize = 1_400;

/// A reply of which a part is still to be sent.
#[derive(Debug)]
pub struct Sending {
    printer: Printer,
    encoder: Option<GzEncoder<Vec<u8>>>,
    is_chunked: bool,
    /// What closes the call of a script.
    is_script: bool,
}

impl Sending {
    /// Appends a reply's head and what of its body fits into one piece. What is left comes by
    /// [`piece`](Self::piece); `None` if nothing is. `keeps_alive` says whether the connection goes on
    /// once all is sent.
    #[must_use]
    pub fn begin(out: &mut Vec<u8>, mut reply: Reply, style: &Style, keeps_alive: bool) -> Option<Self> {
        if reply.status == 200 && style.is_silent {
            reply.status = 204;
        }
        let may_have_body = reply.status != 204 && reply.status != 304;
        let kind = match &reply.content {
            Content::Asset { kind, .. } => Some(*kind),
            _ => None,
        };
        let is_script = style.callback.is_some() && is_fine(&reply) && kind.is_none();
        let content = if may_have_body { std::mem::replace(&mut reply.content, Content::None) } else { Content::None };
        let (mut body, rest) = first_piece(content, style, may_have_body && is_script);
        let is_gzip = style.accepts_gzip && (rest.is_some() || body.len() >= COMPRESSED_BYTES_MIN);
        let is_chunked = rest.is_some() && style.is_1_1;
        let goes_on = keeps_alive && (rest.is_none() || is_chunked || style.is_head);
        write_head(out, &reply, style, &Framing { has_body: !body.is_empty(), kind, is_script, is_gzip, goes_on });
        let mut sending = rest.map(|printer| Self { printer, encoder: None, is_chunked, is_script });
        if is_gzip {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(&body).expect("a vector takes everything");
            body.clear();
            match &mut sending {
                Some(sending) => {
                    body.append(encoder.get_mut());
                    sending.encoder = Some(encoder);
                }
                None => body = encoder.finish().expect("a vector takes everything"),
            }
        }
        if is_chunked {
            line(out, "Transfer-Encoding", &["chunked"]);
        } else if may_have_body && sending.is_none() {
            out.extend_from_slice(b"Content-Length: ");
            json::integer(out, body.len());
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
        if style.is_head {
            return None;
        }
        write_piece(out, &body, is_chunked);
        sending
    }

    /// Whether the client cannot tell the end of the answer but by that of the connection.
    #[must_use]
    pub const fn ends_with_connection(&self) -> bool {
        !self.is_chunked
    }

    /// Appends the next piece. Returns whether that was the last.
    pub fn piece(&mut self, out: &mut Vec<u8>) -> bool {
        let mut body = Vec::new();
        let is_done = self.printer.print(&mut body, PIECE_BYTES);
        if is_done && self.is_script {
            body.extend_from_slice(b");");
        }
        if let Some(encoder) = &mut self.encoder {
            encoder.write_all(&body).expect("a vector takes everything");
            body.clear();
            if is_done {
                encoder.try_finish().expect("a vector takes everything");
            }
            body.append(encoder.get_mut());
        }
        write_piece(out, &body, self.is_chunked);
        if is_done && self.is_chunked {
            out.extend_from_slice(b"0\r\n\r\n");
        }
        is_done
    }
}

/// What a head says of its body and its connection.
#[expect(clippy::struct_excessive_bools, reason = "each is a line of the head, and any may be there")]
struct Framing {
    has_body: bool,
    /// Its media type, if it is not the usual one.
    kind: Option<&'static str>,
    is_script: bool,
    is_gzip: bool,
    goes_on: bool,
}

const fn is_fine(reply: &Reply) -> bool {
    matches!(reply.status, 200..300)
}

/// What of a body fits into one piece, and what prints the rest.
fn first_piece(content: Content, style: &Style, is_script: bool) -> (Vec<u8>, Option<Printer>) {
    let mut body = Vec::new();
    if let (Some(name), true) = (&style.callback, is_script) {
        // The comment keeps old browser plug-ins from taking the name for a file of their own.
        body.extend_from_slice(b"/**/");
        body.extend_from_slice(name.as_bytes());
        body.push(b'(');
    }
    let rest = match content {
        Content::None => None,
        Content::Json(json) => {
            body.extend_from_slice(&json);
            None
        }
        Content::Asset { text, .. } => {
            body.extend_from_slice(text.as_bytes());
            None
        }
        Content::Tree(printer) => {
            let mut printer = if style.is_pretty { printer.indented() } else { *printer };
            let is_done = printer.print(&mut body, PIECE_BYTES);
            (!is_done).then_some(printer)
        }
    };
    if is_script && rest.is_none() {
        body.extend_from_slice(b");");
    }
    (body, rest)
}

/// Appends a head but for the length of its body and its end.
fn write_head(out: &mut Vec<u8>, reply: &Reply, style: &Style, framing: &Framing) {
    let always = [("Cache-Control", "no-cache"), ("Access-Control-Allow-Origin", "*")];
    http::write_response_head(out, reply.status, &always);
    if framing.has_body {
        let usual = if framing.is_script { "application/javascript" } else { "application/json" };
        let kind = framing.kind.unwrap_or(usual);
        line(out, "Content-Type", &[kind, "; charset=utf-8"]);
        line(out, "Vary", &["Accept-Encoding"]);
        line(out, "X-Content-Type-Options", &["nosniff"]);
    }
    if let Some(etag) = &reply.etag {
        line(out, "ETag", &[etag]);
        line(out, "Access-Control-Expose-Headers", &["ETag"]);
    }
    if let (Some(name), true) = (&style.download, is_fine(reply)) {
        line(out, "Content-Disposition", &["attachment; filename=\"", name, "\""]);
    }
    for (name, value) in &reply.headers {
        line(out, name, &[value]);
    }
    if framing.is_gzip {
        line(out, "Content-Encoding", &["gzip"]);
    }
    if !framing.goes_on {
        line(out, "Connection", &["close"]);
    } else if !style.is_1_1 {
        line(out, "Connection", &["keep-alive"]);
    }
}

/// Appends a piece of a body. An empty chunk would end it.
fn write_piece(out: &mut Vec<u8>, piece: &[u8], is_chunk: bool) {
    if is_chunk && !piece.is_empty() {
        write!(out, "{:x}\r\n", piece.len()).expect("a vector takes everything");
        out.extend_from_slice(piece);
        out.extend_from_slice(b"\r\n");
    } else if !is_chunk {
        out.extend_from_slice(piece);
    }
}

fn line(out: &mut Vec<u8>, name: &str, pieces: &[&str]) {
    assert!(!pieces.iter().any(|piece| piece.contains(['\r', '\n'])), "a header is one line");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    pieces.iter().for_each(|piece| out.extend_from_slice(piece.as_bytes()));
    out.extend_from_slice(b"\r\n");
}
