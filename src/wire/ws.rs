//! WebSocket frames (RFC 6455), read and written, for both sides.
//!
//! The surprising idea: a frame that has arrived whole, which is nearly every frame, is unmasked and
//! handed out where it lies; only one that was cut off, or sent in fragments, is copied. A reader
//! between two whole frames is two words and owns nothing. Costs: one pass to unmask, one to check
//! UTF-8; the copy of a cut frame grows as bytes come, never by what a head merely announces.

use super::Input;
use crate::base::limits::{FRAME_BYTES_MAX, MESSAGE_BYTES_MAX};

/// Bytes of the longest frame head: two, a 64-bit length, a mask.
const HEAD_BYTES_MAX: usize = 14;
/// RFC 6455 section 5.5: "All control frames MUST have a payload length of 125 bytes or less".
pub const CONTROL_BYTES_MAX: usize = 125;

const _: () = assert!(FRAME_BYTES_MAX <= MESSAGE_BYTES_MAX, "a message in one frame is still a message");
const _: () = assert!(size_of::<Reader>() <= 16, "a silent connection pays for its reader");

/// What a frame carries; the numbers are RFC 6455's opcodes (section 11.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Opcode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

impl Opcode {
    const fn parse(bits: u8) -> Result<Self, Violation> {
        Ok(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return Err(Violation::Opcode),
        })
    }

    const fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// Something whole that the peer sent. Lent until the reader is asked for the next.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A text message, fragments joined; its bytes are UTF-8. May be overwritten.
    Text(&'a mut [u8]),
    /// A binary message, fragments joined.
    Binary(&'a mut [u8]),
    /// To be answered by a pong with the same payload.
    Ping(&'a [u8]),
    /// Life.
    Pong(&'a [u8]),
    /// Goodbye. Whatever follows it on the wire is to be ignored.
    Close {
        /// Why; [`close_code::NONE`] if the peer did not say.
        code: u16,
        /// Why, for people.
        reason: &'a str,
    },
}

/// What a peer did that RFC 6455 or a limit forbids. The connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A reserved bit is set, and no extension was agreed upon.
    ReservedBits,
    /// An opcode that means nothing.
    Opcode,
    /// A client's frame without a mask.
    Unmasked,
    /// A server's frame with a mask.
    Masked,
    /// A length written longer than it need be, or with its highest bit set.
    Length,
    /// A control frame in fragments, or with more than [`CONTROL_BYTES_MAX`] bytes.
    Control,
    /// A continuation of nothing, or a new message inside another.
    Fragment,
    /// A close frame of one byte, or with a code that may not be sent.
    CloseCode,
    /// Text that is not UTF-8.
    NotUtf8,
    /// A frame or a message beyond [`FRAME_BYTES_MAX`] or [`MESSAGE_BYTES_MAX`].
    TooBig,
}

impl Violation {
    /// The code to close the connection with (RFC 6455 section 7.4.1).
    #[must_use]
    pub const fn close_code(self) -> u16 {
        match self {
            Self::NotUtf8 => close_code::NOT_UTF8,
            Self::TooBig => close_code::TOO_BIG,
            _ => close_code::PROTOCOL,
        }
    }

    /// What was done, for the close frame's reason and for logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReservedBits => "a reserved bit is set",
            Self::Opcode => "unknown opcode",
            Self::Unmasked => "a client's frame is not masked",
            Self::Masked => "a server's frame is masked",
            Self::Length => "a frame's length is not in its shortest form",
            Self::Control => "a control frame is fragmented or too long",
            Self::Fragment => "a fragment out of order",
            Self::CloseCode => "invalid close frame",
            Self::NotUtf8 => "text is not UTF-8",
            Self::TooBig => "message too big",
        }
    }
}

/// The close codes that we use (RFC 6455 section 7.4.1).
pub mod close_code {
    /// Done.
    pub const NORMAL: u16 = 1000;
    /// The server goes down, or a page is left.
    pub const GOING_AWAY: u16 = 1001;
    /// The peer broke the protocol.
    pub const PROTOCOL: u16 = 1002;
    /// The peer sent what we cannot take, such as a binary frame.
    pub const UNSUPPORTED: u16 = 1003;
    /// The peer's close frame had no code. Never sent.
    pub const NONE: u16 = 1005;
    /// A text is not UTF-8.
    pub const NOT_UTF8: u16 = 1007;
    /// The peer did what we do not allow.
    pub const POLICY: u16 = 1008;
    /// A message is too big.
    pub const TOO_BIG: u16 = 1009;
    /// We failed.
    pub const INTERNAL: u16 = 1011;
}

/// Which side a reader reads for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Server,
    Client,
}

/// Takes frames out of what arrives. Hand it each piece of input until that yields `None`.
#[derive(Debug)]
pub struct Reader {
    role: Role,
    /// What is unfinished; `None` between two whole frames.
    pending: Option<Box<Pending>>,
}

/// A message or frame that has not come to its end.
#[derive(Debug, Default)]
struct Pending {
    head: [u8; HEAD_BYTES_MAX],
    /// How much of a cut-off head is in `head`; 0 while a payload is awaited.
    head_bytes: usize,
    /// The frame whose payload is awaited.
    frame: Option<Head>,
    /// How much of that payload has come.
    taken: usize,
    /// What kind of message `message` is the beginning of.
    opcode: Option<Opcode>,
    /// The unmasked payloads of a message so far.
    message: Vec<u8>,
    /// The unmasked payload of a cut-off control frame so far.
    control: Vec<u8>,
    /// `message` or `control` was whole and has been lent: it goes at the next call.
    is_lent: bool,
}

/// A frame's head.
#[derive(Clone, Copy, Debug)]
struct Head {
    is_final: bool,
    opcode: Opcode,
    payload_bytes: usize,
    /// Zeros leave the payload as it is.
    mask: [u8; 4],
}

impl Reader {
    /// Reads what a client sends.
    #[must_use]
    pub const fn for_server() -> Self {
        Self { role: Role::Server, pending: None }
    }

    /// Reads what a server sends.
    #[must_use]
    pub const fn for_client() -> Self {
        Self { role: Role::Client, pending: None }
    }

    /// The next whole frame or message, or `None` once all of `input` is taken.
    ///
    /// After a violation the reader must not be used again.
    pub fn next<'a>(&'a mut self, input: &'a mut Input<'_>) -> Result<Option<Frame<'a>>, Violation> {
        self.release();
        if self.pending.is_none() {
            if input.is_empty() {
                return Ok(None);
            }
            if let Some((head, head_bytes)) = Head::parse(input.rest(), self.role)?
                && head.is_final
                && head.opcode != Opcode::Continuation
                && head.payload_bytes <= input.len() - head_bytes
            {
                input.take(head_bytes);
                let payload = input.take(head.payload_bytes);
                unmask(payload, head.mask, 0);
                return frame(head.opcode, payload).map(Some);
            }
        }
        self.pending.get_or_insert_default().next(input, self.role)
    }

    /// Whether a frame or message has begun and not ended.
    #[must_use]
    pub fn is_inside(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| !pending.is_lent || pending.opcode.is_some())
    }

    /// Bytes on the heap: what came of something unfinished.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.pending
            .as_ref()
            .map_or(0, |pending| size_of::<Pending>() + pending.message.capacity() + pending.control.capacity())
    }

    /// Forgets what was lent.
    fn release(&mut self) {
        let Some(pending) = &mut self.pending else { return };
        if !pending.is_lent {
            return;
        }
        if pending.opcode.is_none() {
            self.pending = None;
        } else {
            pending.control = Vec::new();
            pending.is_lent = false;
        }
    }
}

impl Pending {
    /// Takes from `input` until a frame or message is whole, or nothing is left.
    fn next<'a>(&'a mut self, input: &mut Input<'_>, role: Role) -> Result<Option<Frame<'a>>, Violation> {
        loop {
            let head = match self.frame {
                Some(head) => head,
                None => match self.read_head(input, role)? {
                    Some(head) => self.begin(head)?,
                    None => return Ok(None),
                },
            };
            let missing = head.payload_bytes - self.taken;
            let piece = input.take(missing.min(input.len()));
            unmask(piece, head.mask, self.taken);
            self.taken += piece.len();
            let store = if head.opcode.is_control() { &mut self.control } else { &mut self.message };
            if store.capacity() - store.len() < piece.len() {
                // Room grows with what has come, twofold, but not beyond what this frame can fill.
                store.reserve_exact(missing.min(piece.len() + store.len()));
            }
            store.extend_from_slice(piece);
            if self.taken < head.payload_bytes {
                return Ok(None);
            }
            self.frame = None;
            if head.opcode.is_control() {
                self.is_lent = true;
                return frame(head.opcode, &mut self.control).map(Some);
            }
            if head.is_final {
                self.is_lent = true;
                let opcode = self.opcode.take().expect("`begin` has set it for every data frame");
                return frame(opcode, &mut self.message).map(Some);
            }
        }
    }

    /// Takes a head from `input`, a byte at a time: this is the rare path.
    fn read_head(&mut self, input: &mut Input<'_>, role: Role) -> Result<Option<Head>, Violation> {
        while !input.is_empty() {
            self.head[self.head_bytes] = input.take(1)[0];
            self.head_bytes += 1;
            if let Some((head, _)) = Head::parse(&self.head[..self.head_bytes], role)? {
                self.head_bytes = 0;
                return Ok(Some(head));
            }
        }
        Ok(None)
    }

    /// Checks that the frame may come now (RFC 6455 section 5.4), and awaits its payload.
    fn begin(&mut self, head: Head) -> Result<Head, Violation> {
        if !head.opcode.is_control() {
            match (head.opcode, self.opcode) {
                (Opcode::Continuation, Some(_)) => {}
                (Opcode::Continuation, None) | (_, Some(_)) => return Err(Violation::Fragment),
                (opcode, None) => self.opcode = Some(opcode),
            }
            if self.message.len() + head.payload_bytes > MESSAGE_BYTES_MAX {
                return Err(Violation::TooBig);
            }
        }
        self.frame = Some(head);
        self.taken = 0;
        Ok(head)
    }
}

impl Head {
    /// Reads a head and says how long it is; `None` if it is cut off. RFC 6455 section 5.2.
    fn parse(bytes: &[u8], role: Role) -> Result<Option<(Self, usize)>, Violation> {
        let &[first, second, ref rest @ ..] = bytes else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(Violation::ReservedBits);
        }
        let opcode = Opcode::parse(first & 0x0f)?;
        let is_final = first & 0x80 != 0;
        let is_masked = second & 0x80 != 0;
        match (role, is_masked) {
            (Role::Server, false) => return Err(Violation::Unmasked),
            (Role::Client, true) => return Err(Violation::Masked),
            _ => {}
        }
        let short = second & 0x7f;
        if opcode.is_control() && (!is_final || usize::from(short) > CONTROL_BYTES_MAX) {
            return Err(Violation::Control);
        }
        let (length, rest) = match short {
            126 => {
                let Some((length, rest)) = rest.split_first_chunk() else { return Ok(None) };
                (u64::from(u16::from_be_bytes(*length)), rest)
            }
            127 => {
                let Some((length, rest)) = rest.split_first_chunk() else { return Ok(None) };
                (u64::from_be_bytes(*length), rest)
            }
            short => (u64::from(short), rest),
        };
        // "the minimal number of bytes MUST be used", "the most significant bit MUST be 0"
        let is_minimal = match short {
            126 => length > 125,
            127 => length > 0xffff && length < 1 << 63,
            _ => true,
        };
        if !is_minimal {
            return Err(Violation::Length);
        }
        let payload_bytes =
            usize::try_from(length).ok().filter(|bytes| *bytes <= FRAME_BYTES_MAX).ok_or(Violation::TooBig)?;
        let (mask, rest) = if is_masked {
            let Some((mask, rest)) = rest.split_first_chunk() else { return Ok(None) };
            (*mask, rest)
        } else {
            ([0; 4], rest)
        };
        Ok(Some((Self { is_final, opcode, payload_bytes, mask }, bytes.len() - rest.len())))
    }
}

/// What a whole payload is.
fn frame(opcode: Opcode, payload: &mut [u8]) -> Result<Frame<'_>, Violation> {
    match opcode {
        Opcode::Text => match simdutf8::basic::from_utf8(payload) {
            Ok(_) => Ok(Frame::Text(payload)),
            Err(_) => Err(Violation::NotUtf8),
        },
        Opcode::Binary => Ok(Frame::Binary(payload)),
        Opcode::Ping => Ok(Frame::Ping(payload)),
        Opcode::Pong => Ok(Frame::Pong(payload)),
        Opcode::Close => close_frame(payload),
        Opcode::Continuation => unreachable!("a message has the opcode of its first frame"),
    }
}

fn close_frame(payload: &[u8]) -> Result<Frame<'_>, Violation> {
    if payload.is_empty() {
        return Ok(Frame::Close { code: close_code::NONE, reason: "" });
    }
    let Some((code, reason)) = payload.split_first_chunk() else { return Err(Violation::CloseCode) };
    let code = u16::from_be_bytes(*code);
    // RFC 6455 section 7.4: 1004 is undefined, 1005, 1006 and 1015 are for APIs only, 1012 to 1014
    // are registered since, 3000 to 4999 belong to libraries and applications.
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Violation::CloseCode);
    }
    let reason = std::str::from_utf8(reason).map_err(|_| Violation::NotUtf8)?;
    Ok(Frame::Close { code, reason })
}

/// Applies `mask` to a piece of payload that begins `at` bytes into it. Twice is not at all.
fn unmask(piece: &mut [u8], mask: [u8; 4], at: usize) {
    if mask == [0; 4] {
        return;
    }
    let mut key = mask;
    key.rotate_left(at % 4);
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = piece.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

/// What a frame that we write carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A whole text message.
    Text = Opcode::Text as u8,
    /// A whole binary message.
    Binary = Opcode::Binary as u8,
    /// Asks for a pong.
    Ping = Opcode::Ping as u8,
    /// Answers a ping.
    Pong = Opcode::Pong as u8,
    /// Says goodbye; [`write_close`] knows the payload.
    Close = Opcode::Close as u8,
}

/// A frame's head to be written: 2 to 14 bytes.
#[derive(Clone, Copy, Debug)]
pub struct HeadBytes {
    bytes: [u8; HEAD_BYTES_MAX],
    len: u8,
}

impl std::ops::Deref for HeadBytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl HeadBytes {
    /// Of an unfragmented frame without a mask.
    fn new(kind: Kind, payload_bytes: usize) -> Self {
        let mut head = Self { bytes: [0; HEAD_BYTES_MAX], len: 0 };
        head.push(&[0x80 | kind as u8]);
        match payload_bytes {
            #[expect(clippy::cast_possible_truncation, reason = "at most 125")]
            0..=125 => head.push(&[payload_bytes as u8]),
            126..=0xffff => {
                head.push(&[126]);
                #[expect(clippy::cast_possible_truncation, reason = "at most 16 bits")]
                head.push(&(payload_bytes as u16).to_be_bytes());
            }
            _ => {
                head.push(&[127]);
                head.push(&(payload_bytes as u64).to_be_bytes());
            }
        }
        head
    }

    fn push(&mut self, bytes: &[u8]) {
        let at = usize::from(self.len);
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self.len += u8::try_from(bytes.len()).expect("at most eight at a time");
    }
}

/// The head that a server puts before a text of `payload_bytes`.
#[must_use]
pub fn text_head(payload_bytes: usize) -> HeadBytes {
    HeadBytes::new(Kind::Text, payload_bytes)
}

/// Appends a server's frame.
pub fn write(out: &mut Vec<u8>, kind: Kind, payload: &[u8]) {
    assert_writable(kind, payload);
    out.extend_from_slice(&HeadBytes::new(kind, payload.len()));
    out.extend_from_slice(payload);
}

/// Appends a client's frame. `mask` should be fresh and random: it keeps scripts in browsers from
/// choosing the bytes on the wire (RFC 6455 section 10.3).
pub fn write_masked(out: &mut Vec<u8>, kind: Kind, payload: &[u8], mask: [u8; 4]) {
    assert_writable(kind, payload);
    let mut head = HeadBytes::new(kind, payload.len());
    head.bytes[1] |= 0x80;
    head.push(&mask);
    out.extend_from_slice(&head);
    let start = out.len();
    out.extend_from_slice(payload);
    unmask(&mut out[start..], mask, 0);
}

fn assert_writable(kind: Kind, payload: &[u8]) {
    let is_control = !matches!(kind, Kind::Text | Kind::Binary);
    assert!(!is_control || payload.len() <= CONTROL_BYTES_MAX, "a control frame's payload is short");
}

/// Appends a server's close frame. Of `reason` as much as fits is sent.
pub fn write_close(out: &mut Vec<u8>, code: u16, reason: &str) {
    let (payload, len) = close_payload(code, reason);
    write(out, Kind::Close, &payload[..len]);
}

/// Appends a client's close frame.
pub fn write_close_masked(out: &mut Vec<u8>, code: u16, reason: &str, mask: [u8; 4]) {
    let (payload, len) = close_payload(code, reason);
    write_masked(out, Kind::Close, &payload[..len], mask);
}

/// The payload of a close frame: none for [`close_code::NONE`], which answers a close without a code.
fn close_payload(code: u16, reason: &str) -> ([u8; CONTROL_BYTES_MAX], usize) {
    let mut payload = [0; CONTROL_BYTES_MAX];
    if code == close_code::NONE {
        return (payload, 0);
    }
    let reason = &reason[..reason.floor_char_boundary(CONTROL_BYTES_MAX - 2)];
    payload[..2].copy_from_slice(&code.to_be_bytes());
    payload[2..2 + reason.len()].copy_from_slice(reason.as_bytes());
    (payload, 2 + reason.len())
}

#[cfg(test)]
mod tests;
