//! Engine.IO, protocol 3: packets, and how they travel in HTTP bodies
//! (Wilddog wire specification, section 3).
//!
//! The surprising idea: bodies of text are UTF-8 encoded twice. Each byte of a packet stands for one
//! character, so a length counts bytes, and a body that holds only ASCII needs no second encoding at
//! all; what we say is ASCII. Costs: reading a body decodes it where it lies.

use crate::json;

/// Packets in one body: more is no client's.
const PACKETS_MAX: usize = 10_000;
/// Digits of a packet's length.
const LENGTH_DIGITS_MAX: usize = 9;

/// What a packet is for: its first character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The server's first: what the session is called.
    Open,
    /// The end, over polling only.
    Close,
    /// Asks for a pong. Only clients ask.
    Ping,
    /// Answers a ping.
    Pong,
    /// A message.
    Message,
    /// The client goes on over this WebSocket.
    Upgrade,
    /// Nothing: lets a request go.
    Noop,
}

/// Something that is no packet, or a body that holds no packets. The session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPacket;

impl Kind {
    const fn digit(self) -> u8 {
        match self {
            Self::Open => b'0',
            Self::Close => b'1',
            Self::Ping => b'2',
            Self::Pong => b'3',
            Self::Message => b'4',
            Self::Upgrade => b'5',
            Self::Noop => b'6',
        }
    }
}

/// Reads a packet: its kind and what follows.
pub fn read(packet: &mut [u8]) -> Result<(Kind, &mut [u8]), BadPacket> {
    let (first, rest) = packet.split_first_mut().ok_or(BadPacket)?;
    let kind = match first {
        b'0' => Kind::Open,
        b'1' => Kind::Close,
        b'2' => Kind::Ping,
        b'3' => Kind::Pong,
        b'4' => Kind::Message,
        b'5' => Kind::Upgrade,
        b'6' => Kind::Noop,
        _ => return Err(BadPacket),
    };
    Ok((kind, rest))
}

/// Appends a packet.
pub fn write(out: &mut Vec<u8>, kind: Kind, data: &[u8]) {
    out.push(kind.digit());
    out.extend_from_slice(data);
}

/// What the first packet says.
#[derive(Clone, Copy, Debug)]
pub struct Open<'a> {
    /// The session's name: letters and digits.
    pub session: &'a str,
    /// Whether the client may go on over a WebSocket.
    pub may_upgrade: bool,
    /// When the client pings, after the last pong.
    pub ping_interval_ms: u64,
    /// How long it waits for the pong.
    pub ping_timeout_ms: u64,
}

/// Appends the first packet.
pub fn write_open(out: &mut Vec<u8>, open: &Open<'_>) {
    assert!(open.session.bytes().all(|byte| byte.is_ascii_alphanumeric()), "the name stands in URLs as it is");
    out.extend_from_slice(b"0{\"sid\":\"");
    out.extend_from_slice(open.session.as_bytes());
    out.extend_from_slice(if open.may_upgrade { b"\",\"upgrades\":[\"websocket\"]" } else { b"\",\"upgrades\":[]" });
    out.extend_from_slice(b",\"pingInterval\":");
    json::integer(out, open.ping_interval_ms);
    out.extend_from_slice(b",\"pingTimeout\":");
    json::integer(out, open.ping_timeout_ms);
    out.push(b'}');
}

/// How packets stand in a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// Each after a zero byte, the digits of its length as bytes, and a byte of ones: to clients that
    /// can take bytes. (Text would do, but Chromium cannot take a long one.)
    #[default]
    Binary,
    /// Each after its length and a colon: to clients that cannot.
    Text,
}

impl Encoding {
    /// The body's media type.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Binary => "application/octet-stream",
            Self::Text => "text/plain; charset=UTF-8",
        }
    }
}

/// Appends a packet to a body.
pub fn write_to_body(out: &mut Vec<u8>, encoding: Encoding, packet: &[u8]) {
    let mut digits = Vec::new();
    json::integer(&mut digits, packet.len());
    match encoding {
        Encoding::Binary => {
            out.push(0);
            out.extend(digits.iter().map(|digit| digit - b'0'));
            out.push(0xff);
            out.extend_from_slice(packet);
        }
        Encoding::Text => {
            out.extend_from_slice(&digits);
            out.push(b':');
            if packet.is_ascii() {
                return out.extend_from_slice(packet);
            }
            for byte in packet {
                let mut buffer = [0; 2];
                out.extend_from_slice(char::from(*byte).encode_utf8(&mut buffer).as_bytes());
            }
        }
    }
}

/// Takes a body apart and hands its packets to `take`, in order, where they lie. All or none: a body
/// with one bad packet hands out nothing.
pub fn read_body(body: &mut [u8], encoding: Encoding, mut take: impl FnMut(&mut [u8])) -> Result<(), BadPacket> {
    let body = match encoding {
        Encoding::Binary => body,
        Encoding::Text => narrow(body)?,
    };
    let mut packets = Vec::new();
    let mut at = 0;
    while at < body.len() {
        let (head_bytes, packet_bytes) = match encoding {
            Encoding::Binary => binary_head(&body[at..]),
            Encoding::Text => text_head(&body[at..]),
        }?;
        let from = at + head_bytes;
        at = from.checked_add(packet_bytes).filter(|end| *end <= body.len()).ok_or(BadPacket)?;
        if packets.len() == PACKETS_MAX || std::str::from_utf8(&body[from..at]).is_err() {
            return Err(BadPacket);
        }
        packets.push(from..at);
    }
    packets.into_iter().for_each(|range| take(&mut body[range]));
    Ok(())
}

/// Undoes the second encoding: each character becomes the byte that it stands for.
fn narrow(body: &mut [u8]) -> Result<&mut [u8], BadPacket> {
    if body.is_ascii() {
        return Ok(body);
    }
    let (mut from, mut to) = (0, 0);
    while from < body.len() {
        let (byte, width) = match body[from..] {
            [ascii, ..] if ascii < 0x80 => (ascii, 1),
            // U+0080 to U+00FF.
            [first @ (0xc2 | 0xc3), second @ 0x80..=0xbf, ..] => (first << 6 | second & 0x3f, 2),
            _ => return Err(BadPacket),
        };
        body[to] = byte;
        from += width;
        to += 1;
    }
    Ok(&mut body[..to])
}

/// The bytes of a head, and the length that it announces.
fn text_head(body: &[u8]) -> Result<(usize, usize), BadPacket> {
    let digits = body.iter().take(LENGTH_DIGITS_MAX + 1).position(|byte| *byte == b':').ok_or(BadPacket)?;
    Ok((digits + 1, length(body[..digits].iter().map(|digit| digit.wrapping_sub(b'0')))?))
}

fn binary_head(body: &[u8]) -> Result<(usize, usize), BadPacket> {
    // A one begins a packet of bytes, which has no meaning in this protocol.
    let rest = body.strip_prefix(&[0]).ok_or(BadPacket)?;
    let digits = rest.iter().take(LENGTH_DIGITS_MAX + 1).position(|byte| *byte == 0xff).ok_or(BadPacket)?;
    Ok((digits + 2, length(rest[..digits].iter().copied())?))
}

fn length(digits: impl ExactSizeIterator<Item = u8>) -> Result<usize, BadPacket> {
    if digits.len() == 0 {
        return Err(BadPacket);
    }
    digits
        .into_iter()
        .try_fold(0, |sum: usize, digit| if digit < 10 { Ok(sum * 10 + usize::from(digit)) } else { Err(BadPacket) })
}

#[cfg(test)]
mod tests;
