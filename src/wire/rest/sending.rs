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
    pub fn begin(out: &mut Vec<u8>, reply: Reply, style: &Style, keeps_alive: bool) -> Option<Self> {
        let Reply { status, content, etag, headers } = reply;
        let is_fine = (200..300).contains(&status);
        let status = if status == 200 && style.is_silent { 204 } else { status };
        let may_have_body = status != 204 && status != 304;
        let is_script = style.callback.is_some() && is_fine;
        let mut body = Vec::new();
        if let (Some(name), true) = (&style.callback, is_script) {
            // The comment keeps old browser plug-ins from taking the name for a file of their own.
            body.extend_from_slice(b"/**/");
            body.extend_from_slice(name.as_bytes());
            body.push(b'(');
        }
        let rest = match content {
            _ if !may_have_body => None,
            Content::None => None,
            Content::Json(json) => {
                body.extend_from_slice(&json);
                None
            }
            Content::Tree(printer) => {
                let mut printer = if style.is_pretty { printer.indented() } else { *printer };
                let is_done = printer.print(&mut body, PIECE_BYTES);
                (!is_done).then_some(printer)
            }
        };
        if !may_have_body {
            body.clear();
        } else if is_script && rest.is_none() {
            body.extend_from_slice(b");");
        }
        let is_gzip = may_have_body && style.accepts_gzip && (rest.is_some() || body.len() >= COMPRESSED_BYTES_MIN);
        let is_chunked = rest.is_some() && style.is_1_1;
        http::write_response_head(out, status, &[("Cache-Control", "no-cache"), ("Access-Control-Allow-Origin", "*")]);
        if !body.is_empty() {
            let kind = if is_script { "application/javascript" } else { "application/json" };
            line(out, "Content-Type", &[kind, "; charset=utf-8"]);
            line(out, "Vary", &["Accept-Encoding"]);
            line(out, "X-Content-Type-Options", &["nosniff"]);
        }
        if let Some(etag) = etag {
            line(out, "ETag", &[&etag]);
            line(out, "Access-Control-Expose-Headers", &["ETag"]);
        }
        if let (Some(name), true) = (&style.download, is_fine) {
            line(out, "Content-Disposition", &["attachment; filename=\"", name, "\""]);
        }
        for (name, value) in headers {
            line(out, name, &[&value]);
        }
        if is_gzip {
            line(out, "Content-Encoding", &["gzip"]);
        }
        let goes_on = keeps_alive && (rest.is_none() || is_chunked || style.is_head);
        if !goes_on {
            line(out, "Connection", &["close"]);
        } else if !style.is_1_1 {
            line(out, "Connection", &["keep-alive"]);
        }
        let mut sending = rest.map(|printer| Self { printer, encoder: None, is_chunked, is_script });
        let mut encoder = is_gzip.then(|| GzEncoder::new(Vec::new(), Compression::fast()));
        if let Some(encoder) = &mut encoder {
            encoder.write_all(&body).expect("a vector takes everything");
            body.clear();
        }
        match (&mut sending, encoder) {
            (Some(sending), Some(mut encoder)) => {
                body.append(encoder.get_mut());
                sending.encoder = Some(encoder);
            }
            (None, Some(encoder)) => body = encoder.finish().expect("a vector takes everything"),
            (_, None) => {}
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
