//! HTTP/1.1 heads, the handshake to WebSocket, query strings (RFC 9112, RFC 6455 section 4).
//!
//! The surprising idea: a head is parsed once, when its last line is here, and where it lies if it
//! came in one piece; the headers that come out borrow from it. Costs: one search for the empty
//! line, one parse; a cut-off head is copied, and never more than [`HEAD_BYTES_MAX`] of it.

use std::borrow::Cow;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha1::{Digest as _, Sha1};

use super::Input;
use crate::base::limits::{BODY_BYTES_MAX, HEAD_BYTES_MAX, HEADERS_MAX};
use crate::json;

/// Why a head, or the body that it announces, cannot be taken. The connection is over after the
/// answer: nobody knows where the next request would begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHead {
    /// Not HTTP.
    Malformed,
    /// A version other than 1.0 and 1.1.
    Version,
    /// More than [`HEAD_BYTES_MAX`].
    TooLong,
    /// More than [`HEADERS_MAX`] lines.
    TooManyHeaders,
    /// HTTP/1.1 without `Host`, or with two.
    Host,
    /// A body of unclear length: `Content-Length` is no number, stands twice, or beside
    /// `Transfer-Encoding`.
    Length,
    /// A `Transfer-Encoding` other than `chunked`.
    Encoding,
    /// A body of more than [`BODY_BYTES_MAX`].
    BodyTooLong,
}

impl BadHead {
    /// The status to answer with.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Malformed | Self::Host | Self::Length => 400,
            Self::Version => 505,
            Self::TooLong | Self::TooManyHeaders => 431,
            Self::Encoding => 501,
            Self::BodyTooLong => 413,
        }
    }

    /// What is wrong, for the answer's body and for logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "not an HTTP request",
            Self::Version => "only HTTP/1.0 and HTTP/1.1 are spoken here",
            Self::TooLong => "request head too long",
            Self::TooManyHeaders => "too many headers",
            Self::Host => "exactly one Host header is needed",
            Self::Length => "the length of the body is unclear",
            Self::Encoding => "unknown transfer encoding",
            Self::BodyTooLong => "request body too long",
        }
    }
}

/// Takes request heads out of what arrives. Bodies are not its business: take
/// [`body`](Head::body) bytes before asking for the next head.
#[derive(Debug, Default)]
pub struct Reader {
    gathered: Gathered,
    is_encrypted: bool,
}

impl Reader {
    /// The connection that is read is encrypted: heads say so from here on.
    pub fn set_encrypted(&mut self) {
        self.is_encrypted = true;
    }

    /// The next head, or `None` once all of `input` is taken. Lent until the reader is asked again.
    pub fn next<'a>(&'a mut self, input: &'a mut Input<'_>) -> Result<Option<Head<'a>>, BadHead> {
        let Some(bytes) = self.gathered.next(input)? else { return Ok(None) };
        Ok(Some(Head { is_encrypted: self.is_encrypted, ..Head::parse(bytes)? }))
    }

    /// Bytes on the heap: what came of a head that is not whole.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.gathered.bytes.capacity()
    }
}

/// Takes response heads out of what arrives: the client's side.
#[derive(Debug, Default)]
pub struct ResponseReader(Gathered);

impl ResponseReader {
    /// The next head, or `None` once all of `input` is taken. Lent until the reader is asked again.
    pub fn next<'a>(&'a mut self, input: &'a mut Input<'_>) -> Result<Option<ResponseHead<'a>>, BadHead> {
        self.0.next(input)?.map(ResponseHead::parse).transpose()
    }
}

/// The beginning of a head.
#[derive(Debug, Default)]
struct Gathered {
    bytes: Vec<u8>,
    /// `bytes` was a whole head and has been lent: it goes at the next call.
    is_lent: bool,
}

impl Gathered {
    fn next<'a>(&'a mut self, input: &'a mut Input<'_>) -> Result<Option<&'a [u8]>, BadHead> {
        if self.is_lent {
            *self = Self::default();
        }
        if self.bytes.is_empty() {
            // RFC 9112 section 2.2: empty lines before a request are to be ignored.
            while matches!(input.rest(), [b'\r' | b'\n', ..]) {
                input.take(1);
            }
            // Tells another protocol at its first byte instead of when it gives up.
            if input.rest().first().is_some_and(|byte| !byte.is_ascii_alphabetic()) {
                return Err(BadHead::Malformed);
            }
            if let Some(end) = head_end(input.rest(), 0) {
                return if end > HEAD_BYTES_MAX { Err(BadHead::TooLong) } else { Ok(Some(input.take(end))) };
            }
        }
        let before = self.bytes.len();
        let piece_bytes = input.len().min(HEAD_BYTES_MAX + 1 - before);
        self.bytes.extend_from_slice(&input.rest()[..piece_bytes]);
        match head_end(&self.bytes, before.saturating_sub(2)) {
            Some(end) if end <= HEAD_BYTES_MAX => {
                input.take(end - before);
                self.bytes.truncate(end);
                self.is_lent = true;
                Ok(Some(&self.bytes))
            }
            _ if self.bytes.len() > HEAD_BYTES_MAX => Err(BadHead::TooLong),
            _ => {
                input.take(piece_bytes);
                Ok(None)
            }
        }
    }
}

/// Where the first empty line ends; nothing before `from` begins one.
fn head_end(bytes: &[u8], from: usize) -> Option<usize> {
    memchr::memchr_iter(b'\n', &bytes[from..]).find_map(|at| match bytes[from + at + 1..] {
        [b'\n', ..] => Some(from + at + 2),
        [b'\r', b'\n', ..] => Some(from + at + 3),
        _ => None,
    })
}

/// Header lines, borrowed.
#[derive(Clone, Debug)]
pub struct Headers<'a> {
    lines: [httparse::Header<'a>; HEADERS_MAX],
    count: usize,
}

impl<'a> Headers<'a> {
    const EMPTY: Self = Self { lines: [httparse::EMPTY_HEADER; HEADERS_MAX], count: 0 };

    /// All lines, as they were sent.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.lines[..self.count].iter().map(|line| (line.name, line.value))
    }

    /// The values of all lines of that name, whatever its case.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.iter().filter(move |(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The value of the first line of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.all(name).next()
    }

    /// The value of the first line of that name, if it is text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&'a str> {
        std::str::from_utf8(self.get(name)?).ok().map(str::trim_ascii)
    }

    /// Whether `token` is in the comma-separated list that lines of that name make up.
    #[must_use]
    pub fn lists(&self, name: &str, token: &str) -> bool {
        let mut pieces = self.all(name).flat_map(|value| value.split(|byte| *byte == b','));
        pieces.any(|piece| piece.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    }

    fn count(&mut self, parsed: usize) {
        self.count = parsed;
    }
}

/// A request's head, borrowed from what arrived.
#[derive(Clone, Debug)]
pub struct Head<'a> {
    /// As sent: methods have case.
    pub method: &'a str,
    /// The path, still percent-encoded; begins with a slash (or is `*`).
    pub path: &'a str,
    /// What followed the path's question mark.
    pub query: Query<'a>,
    /// HTTP/1.1 rather than 1.0.
    pub is_1_1: bool,
    /// Whether it came by an encrypted connection.
    pub is_encrypted: bool,
    /// The header lines.
    pub headers: Headers<'a>,
}

/// How long a request's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// There is so much; zero if nothing announced any.
    Bytes(usize),
    /// It comes in chunks (RFC 9112 section 7.1).
    Chunked,
}

impl<'a> Head<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, BadHead> {
        let mut headers = Headers::EMPTY;
        let mut request = httparse::Request::new(&mut headers.lines);
        let status = request.parse(bytes).map_err(bad_head)?;
        if status.is_partial() {
            return Err(BadHead::Malformed);
        }
        let (method, target) = request.method.zip(request.path).ok_or(BadHead::Malformed)?;
        let is_1_1 = request.version == Some(1);
        let count = request.headers.len();
        headers.count(count);
        // RFC 9112 section 3.2.2: a server must also take the form that clients send to proxies.
        let target = match target.split_once("://") {
            Some((scheme, rest)) if scheme.bytes().all(|byte| byte.is_ascii_alphabetic()) => {
                rest.find(['/', '?']).map_or("/", |at| &rest[at..])
            }
            _ => target,
        };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = if path.is_empty() { "/" } else { path };
        let hosts = headers.all("host").count();
        if hosts > 1 || (hosts == 0 && is_1_1) {
            return Err(BadHead::Host);
        }
        Ok(Self { method, path, query: Query(query), is_1_1, is_encrypted: false, headers })
    }

    /// The `Host` header: what the client calls us. Empty if HTTP/1.0 kept it.
    #[must_use]
    pub fn host(&self) -> &'a str {
        self.headers.text("host").unwrap_or("")
    }

    /// Whether the client speaks TLS, with us or with a proxy that says so.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.is_encrypted || self.headers.text("x-forwarded-proto") == Some("https")
    }

    /// Whether the client wants to go on with this connection after the answer.
    #[must_use]
    pub fn keeps_alive(&self) -> bool {
        if self.is_1_1 {
            !self.headers.lists("connection", "close")
        } else {
            self.headers.lists("connection", "keep-alive")
        }
    }

    /// Whether the client waits for `100 Continue` before it sends the body.
    #[must_use]
    pub fn expects_continue(&self) -> bool {
        self.is_1_1 && self.headers.lists("expect", "100-continue")
    }

    /// How long the body is (RFC 9112 section 6.3). Two answers to that are refused: where two
    /// servers disagree, one client can speak in another's name.
    pub fn body(&self) -> Result<Body, BadHead> {
        let mut lengths = self.headers.all("content-length");
        let mut encodings = self.headers.all("transfer-encoding");
        match (lengths.next(), encodings.next()) {
            (None, None) => Ok(Body::Bytes(0)),
            (Some(_), Some(_)) => Err(BadHead::Length),
            (None, Some(encoding)) => {
                let is_chunked = encoding.trim_ascii().eq_ignore_ascii_case(b"chunked");
                if is_chunked && encodings.next().is_none() { Ok(Body::Chunked) } else { Err(BadHead::Encoding) }
            }
            (Some(length), None) => {
                let digits = length.trim_ascii();
                if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) || lengths.next().is_some() {
                    return Err(BadHead::Length);
                }
                let bytes = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
                bytes.filter(|bytes| *bytes <= BODY_BYTES_MAX).map(Body::Bytes).ok_or(BadHead::BodyTooLong)
            }
        }
    }
}

/// Takes a request's body out of what arrives, piece by piece, where it lies.
#[derive(Debug)]
pub struct BodyReader {
    state: BodyState,
    /// How much may still come, of all pieces together.
    room: usize,
}

/// What a body's next byte belongs to (RFC 9112 section 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyState {
    /// So much is left of a body of known length.
    Bytes(usize),
    /// A chunk's size, of which so much has been read; `None` before its first digit.
    Size(Option<usize>),
    /// What stands between a chunk's size and the end of its line.
    Extension(usize),
    /// So much is left of a chunk.
    Chunk(usize),
    /// The line end after a chunk.
    ChunkEnd,
    /// Lines after the last chunk; whether this one is empty so far.
    Trailer { is_empty: bool },
    /// Nothing is left.
    Done,
}

/// What a body reader found.
#[derive(Debug, PartialEq, Eq)]
pub enum BodyPiece<'a> {
    /// Some of the body.
    Bytes(&'a [u8]),
    /// More has to arrive.
    Waiting,
    /// The body is whole. What follows is the next request.
    Done,
}

impl BodyReader {
    /// Reads a body as its head announced it.
    #[must_use]
    pub const fn new(body: Body) -> Self {
        let state = match body {
            Body::Bytes(bytes) => BodyState::Bytes(bytes),
            Body::Chunked => BodyState::Size(None),
        };
        Self { state, room: BODY_BYTES_MAX }
    }

    /// The next piece. Ask until it is [`BodyPiece::Waiting`] or [`BodyPiece::Done`].
    pub fn next<'a>(&mut self, input: &'a mut Input<'_>) -> Result<BodyPiece<'a>, BadHead> {
        loop {
            let (left, is_chunk) = match self.state {
                BodyState::Done | BodyState::Bytes(0) => return Ok(BodyPiece::Done),
                BodyState::Chunk(0) => {
                    self.state = BodyState::ChunkEnd;
                    continue;
                }
                BodyState::Bytes(left) => (left, false),
                BodyState::Chunk(left) => (left, true),
                state => {
                    let Some(byte) = input.rest().first().copied() else { return Ok(BodyPiece::Waiting) };
                    input.take(1);
                    self.state = self.step(state, byte)?;
                    continue;
                }
            };
            if input.is_empty() {
                return Ok(BodyPiece::Waiting);
            }
            let piece = input.take(left.min(input.len()));
            let left = left - piece.len();
            self.state = if is_chunk { BodyState::Chunk(left) } else { BodyState::Bytes(left) };
            return Ok(BodyPiece::Bytes(piece));
        }
    }

    /// Takes one byte of what is around chunks.
    fn step(&mut self, state: BodyState, byte: u8) -> Result<BodyState, BadHead> {
        Ok(match (state, byte) {
            (BodyState::Size(Some(size)) | BodyState::Extension(size), b'\n') if size > self.room => {
                return Err(BadHead::BodyTooLong);
            }
            (BodyState::Size(Some(0)) | BodyState::Extension(0), b'\n') => BodyState::Trailer { is_empty: true },
            (BodyState::Size(Some(size)) | BodyState::Extension(size), b'\n') => {
                self.room -= size;
                BodyState::Chunk(size)
            }
            (BodyState::Size(Some(size)), b'\r' | b' ' | b'\t' | b';') | (BodyState::Extension(size), _) => {
                BodyState::Extension(size)
            }
            (BodyState::Size(size), digit) => {
                let digit = hex(digit).ok_or(BadHead::Length)?;
                // Sixteen times the largest body is no overflow, and more digits are no size.
                let size = size.unwrap_or(0) * 16 + usize::from(digit);
                if size > BODY_BYTES_MAX {
                    return Err(BadHead::BodyTooLong);
                }
                BodyState::Size(Some(size))
            }
            (BodyState::ChunkEnd, b'\r') => BodyState::ChunkEnd,
            (BodyState::ChunkEnd, b'\n') => BodyState::Size(None),
            (BodyState::ChunkEnd, _) => return Err(BadHead::Length),
            (BodyState::Trailer { is_empty: true }, b'\n') => BodyState::Done,
            (BodyState::Trailer { .. }, b'\n') | (BodyState::Trailer { is_empty: true }, b'\r') => {
                BodyState::Trailer { is_empty: true }
            }
            (BodyState::Trailer { .. }, _) => BodyState::Trailer { is_empty: false },
            (BodyState::Bytes(_) | BodyState::Chunk(_) | BodyState::Done, _) => {
                unreachable!("only what is around chunks is taken byte by byte")
            }
        })
    }
}

/// A response's head.
#[derive(Clone, Debug)]
pub struct ResponseHead<'a> {
    /// The status code.
    pub status: u16,
    /// The header lines.
    pub headers: Headers<'a>,
}

impl<'a> ResponseHead<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, BadHead> {
        let mut headers = Headers::EMPTY;
        let mut response = httparse::Response::new(&mut headers.lines);
        let status = response.parse(bytes).map_err(bad_head)?;
        let code = response.code.filter(|_| status.is_complete()).ok_or(BadHead::Malformed)?;
        let count = response.headers.len();
        headers.count(count);
        Ok(Self { status: code, headers })
    }

    /// Whether the server has agreed to speak WebSocket, to the client that sent this key.
    #[must_use]
    pub fn accepts(&self, key: &str) -> bool {
        self.status == 101
            && self.headers.lists("upgrade", "websocket")
            && self.headers.lists("connection", "upgrade")
            && self.headers.get("sec-websocket-accept").map(<[u8]>::trim_ascii) == Some(&accept(key.as_bytes()))
    }
}

fn bad_head(error: httparse::Error) -> BadHead {
    match error {
        httparse::Error::TooManyHeaders => BadHead::TooManyHeaders,
        httparse::Error::Version => BadHead::Version,
        _ => BadHead::Malformed,
    }
}

/// A query string, still encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Query<'a>(pub &'a str);

/// A percent sign without two hexadecimal digits, or an escape that makes no UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadEscape;

impl<'a> Query<'a> {
    /// All names and values in order, still encoded; a name without `=` has an empty value.
    pub fn pairs(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let pieces = self.0.split('&').filter(|piece| !piece.is_empty());
        pieces.map(|piece| piece.split_once('=').unwrap_or((piece, "")))
    }

    /// The first value of that name, still encoded.
    #[must_use]
    pub fn raw(self, name: &str) -> Option<&'a str> {
        self.pairs().find(|(found, _)| *found == name).map(|(_, value)| value)
    }

    /// The first value of that name. Firebase's SDKs do not encode values at all, so what does not
    /// look encoded is taken as it is.
    #[must_use]
    pub fn get(self, name: &str) -> Option<Cow<'a, str>> {
        let raw = self.raw(name)?;
        Some(form_decode(raw).unwrap_or(Cow::Borrowed(raw)))
    }

    /// The first value of that name; an error where an escape is none.
    pub fn get_strict(self, name: &str) -> Result<Option<Cow<'a, str>>, BadEscape> {
        self.raw(name).map(form_decode).transpose()
    }
}

/// Decodes `%XX` (RFC 3986 section 2.1): for paths.
pub fn percent_decode(text: &str) -> Result<Cow<'_, str>, BadEscape> {
    if !text.contains('%') {
        return Ok(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte == b'%' {
            let ([high, low], after) = rest.split_first_chunk().ok_or(BadEscape)?;
            decoded.push(hex(*high).ok_or(BadEscape)? << 4 | hex(*low).ok_or(BadEscape)?);
            rest = after;
        } else {
            decoded.push(*byte);
        }
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| BadEscape)
}

/// Decodes `%XX`, and `+` to a space: for values in query strings.
pub fn form_decode(text: &str) -> Result<Cow<'_, str>, BadEscape> {
    if text.contains('+') {
        return percent_decode(&text.replace('+', " ")).map(|decoded| Cow::Owned(decoded.into_owned()));
    }
    percent_decode(text)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Appends `text` with everything percent-encoded but RFC 3986's unreserved characters.
pub fn percent_encode(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte);
        } else {
            out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
}

/// What a WebSocket handshake is answered with: `Sec-WebSocket-Accept`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upgrade {
    accept: [u8; 28],
}

/// Why a handshake is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadUpgrade {
    /// Only `GET` upgrades.
    Method,
    /// HTTP/1.0, or `Upgrade: websocket` or `Connection: Upgrade` is missing.
    NotAsked,
    /// A version other than 13.
    Version,
    /// The key is not 16 bytes of base64.
    Key,
}

/// Whether a request asks for WebSocket at all.
#[must_use]
pub fn asks_for_websocket(head: &Head<'_>) -> bool {
    head.headers.lists("upgrade", "websocket")
}

impl Upgrade {
    /// Checks a handshake (RFC 6455 section 4.2.1).
    pub fn read(head: &Head<'_>) -> Result<Self, BadUpgrade> {
        let headers = &head.headers;
        if head.method != "GET" {
            return Err(BadUpgrade::Method);
        }
        if !head.is_1_1 || !asks_for_websocket(head) || !headers.lists("connection", "upgrade") {
            return Err(BadUpgrade::NotAsked);
        }
        if headers.text("sec-websocket-version") != Some("13") {
            return Err(BadUpgrade::Version);
        }
        let key = headers.get("sec-websocket-key").ok_or(BadUpgrade::Key)?.trim_ascii();
        let mut decoded = [0; 18];
        match BASE64_STANDARD.decode_slice(key, &mut decoded) {
            Ok(16) => Ok(Self { accept: accept(key) }),
            _ => Err(BadUpgrade::Key),
        }
    }

    /// Appends the response that turns the connection into a WebSocket.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
        );
        out.extend_from_slice(&self.accept);
        out.extend_from_slice(b"\r\n\r\n");
    }
}

impl BadUpgrade {
    /// The status to answer with.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Method => 405,
            Self::NotAsked | Self::Version => 426,
            Self::Key => 400,
        }
    }

    /// Appends the response. RFC 6455 section 4.4: a wrong version is told the right one.
    pub fn write(self, out: &mut Vec<u8>) {
        let (headers, body): (&[_], &[u8]) = match self {
            Self::Method => (&[("Allow", "GET")], b"this is a WebSocket"),
            Self::NotAsked | Self::Version => (
                &[("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13")],
                b"this is a WebSocket, version 13",
            ),
            Self::Key => (&[], b"Sec-WebSocket-Key is not 16 bytes of base64"),
        };
        write_response(out, self.status(), headers, body);
    }
}

/// RFC 6455 section 4.2.2, item 5.4.
fn accept(key: &[u8]) -> [u8; 28] {
    const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    let mut accept = [0; 28];
    let len = BASE64_STANDARD.encode_slice(digest, &mut accept).expect("28 characters hold 20 bytes");
    assert_eq!(len, accept.len(), "base64 of 20 bytes");
    accept
}

/// Appends a client's WebSocket handshake. `nonce` should be fresh and random. Returns the key, for
/// [`ResponseHead::accepts`].
pub fn write_upgrade_request(out: &mut Vec<u8>, host: &str, target: &str, nonce: [u8; 16]) -> String {
    let key = BASE64_STANDARD.encode(nonce);
    for piece in [
        "GET ",
        target,
        " HTTP/1.1\r\nHost: ",
        host,
        "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ",
        &key,
        "\r\n\r\n",
    ] {
        out.extend_from_slice(piece.as_bytes());
    }
    key
}

/// Appends a response with a body of known length. Names and values are ours or were in a header
/// before; a line break in one would let a client write our headers.
pub fn write_response(out: &mut Vec<u8>, status: u16, headers: &[(&str, &str)], body: &[u8]) {
    write_response_head(out, status, headers);
    let may_have_body = status >= 200 && status != 204 && status != 304;
    assert!(may_have_body || body.is_empty(), "RFC 9110 section 6.4.1: such a response has no body");
    if may_have_body {
        out.extend_from_slice(b"Content-Length: ");
        json::integer(out, body.len());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
}

/// Appends a status line and header lines, without the empty line that ends a head.
pub fn write_response_head(out: &mut Vec<u8>, status: u16, headers: &[(&str, &str)]) {
    out.extend_from_slice(b"HTTP/1.1 ");
    json::integer(out, status);
    out.push(b' ');
    out.extend_from_slice(reason(status).as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in headers {
        assert!(!value.contains(['\r', '\n']), "a header is one line");
        for piece in [name, ": ", value, "\r\n"] {
            out.extend_from_slice(piece.as_bytes());
        }
    }
}

/// The phrase beside a status (RFC 9110 section 15): nobody reads it, but it has its place.
const fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        200 => "OK",
        204 => "No Content",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Status",
    }
}

#[cfg(test)]
mod tests;
