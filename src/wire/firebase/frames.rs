//! Messages in WebSocket text frames: long ones travel in segments
//! (Firebase wire specification, section 1.2).

use crate::base::limits::{MESSAGE_BYTES_MAX, SEGMENT_UNITS_MAX, SEGMENTS_MAX};
use crate::json;
use crate::wire::ws;

const _: () = assert!(size_of::<Assembler>() == 8, "a silent connection pays for its assembler");

/// What an idle client sends to stay alive: a count of no segments. A server never sends it: a
/// JavaScript client that reads it waits forever for a message of no segments to end.
pub const KEEP_ALIVE: &[u8] = b"0";
/// How much of a message that is too long is kept: its request number is among it.
const REMNANT_BYTES: usize = 64;
/// The longest frame that can be a count.
const COUNT_BYTES_MAX: usize = 6;

/// Joins the segments of a client's messages. Owns nothing between two messages.
#[derive(Debug, Default)]
pub struct Assembler(Option<Box<Partial>>);

#[derive(Debug)]
struct Partial {
    /// How many segments are still to come; at least one.
    missing: usize,
    /// The message so far; only its beginning once it is too long.
    text: Vec<u8>,
    is_too_long: bool,
}

/// What a text frame brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Assembled<'a> {
    /// Nothing yet: a count, a keep-alive, a segment that is not the last.
    Nothing,
    /// A message that came in one frame.
    Frame(&'a mut [u8]),
    /// A message that came in segments.
    Joined(Vec<u8>),
    /// A message of more than [`MESSAGE_BYTES_MAX`] came to its end. All but its beginning is lost.
    TooLong {
        /// Its request number, if it is where clients put it: to be refused with
        /// [`Refusal::Limit`](crate::op::Refusal::Limit).
        request: Option<i64>,
    },
}

/// A client announced more than [`SEGMENTS_MAX`] segments. To be closed as
/// [`ws::Violation::TooBig`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManySegments;

impl Assembler {
    /// Takes the payload of one text frame.
    pub fn push<'a>(&mut self, frame: &'a mut [u8]) -> Result<Assembled<'a>, TooManySegments> {
        let Some(partial) = &mut self.0 else {
            return match count(frame) {
                None => Ok(Assembled::Frame(frame)),
                // No segments, or one: what follows is a message like any other.
                Some(0 | 1) => Ok(Assembled::Nothing),
                Some(missing) if missing <= SEGMENTS_MAX => {
                    self.0 = Some(Box::new(Partial { missing, text: Vec::new(), is_too_long: false }));
                    Ok(Assembled::Nothing)
                }
                Some(_) => Err(TooManySegments),
            };
        };
        partial.push(frame);
        if partial.missing > 0 {
            return Ok(Assembled::Nothing);
        }
        let partial = self.0.take().expect("matched above");
        Ok(if partial.is_too_long {
            Assembled::TooLong { request: request_number(&partial.text) }
        } else {
            Assembled::Joined(partial.text)
        })
    }

    /// Whether a message has begun and not ended.
    #[must_use]
    pub const fn is_inside(&self) -> bool {
        self.0.is_some()
    }

    /// Bytes on the heap: what came of a message that is not whole.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |partial| size_of::<Partial>() + partial.text.capacity())
    }
}

impl Partial {
    fn push(&mut self, segment: &[u8]) {
        self.missing -= 1;
        if self.is_too_long {
            return;
        }
        if self.text.len() + segment.len() <= MESSAGE_BYTES_MAX {
            self.text.extend_from_slice(segment);
            return;
        }
        self.is_too_long = true;
        let missing = REMNANT_BYTES.saturating_sub(self.text.len());
        self.text.extend_from_slice(&segment[..missing.min(segment.len())]);
        self.text.truncate(REMNANT_BYTES);
        self.text.shrink_to_fit();
    }
}

/// The number of segments that a frame announces, if it is not a message: at most six characters
/// that are a number.
fn count(frame: &[u8]) -> Option<usize> {
    if frame.len() > COUNT_BYTES_MAX || !frame.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // To JavaScript, and so to the clients' own readers, no characters are the number zero.
    Some(frame.iter().fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0')))
}

/// The request number in the beginning of a message: every client writes it before the body.
fn request_number(text: &[u8]) -> Option<i64> {
    let at = memchr::memmem::find(text, b"\"r\":")? + 4;
    let digits = text[at..].split(|byte| !byte.is_ascii_digit()).next()?;
    // Followed by something, or it could go on where the text was cut.
    text.get(at + digits.len())?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Makes the message that `out` holds from `start` on ready to be sent: one WebSocket text frame, or
/// a count and segments.
pub fn seal(out: &mut Vec<u8>, start: usize) {
    let message = &out[start..];
    if is_one_frame(message) {
        let head = ws::text_head(message.len());
        out.extend_from_slice(&head);
        out[start..].rotate_right(head.len());
    } else {
        let message = out.split_off(start);
        write_segments(&message, |payload| ws::write(out, ws::Kind::Text, payload));
    }
}

/// Appends a server's message: one WebSocket text frame, or a count and segments.
pub fn write_message(out: &mut Vec<u8>, message: &[u8]) {
    if is_one_frame(message) {
        ws::write(out, ws::Kind::Text, message);
    } else {
        write_segments(message, |payload| ws::write(out, ws::Kind::Text, payload));
    }
}

/// Appends a client's message; each frame's mask comes from `mask`.
pub fn write_message_masked(out: &mut Vec<u8>, message: &[u8], mut mask: impl FnMut() -> [u8; 4]) {
    if is_one_frame(message) {
        ws::write_masked(out, ws::Kind::Text, message, mask());
    } else {
        write_segments(message, |payload| ws::write_masked(out, ws::Kind::Text, payload, mask()));
    }
}

/// Whether a message is short enough for one frame. Most are so even if every byte is a character.
fn is_one_frame(message: &[u8]) -> bool {
    message.len() <= SEGMENT_UNITS_MAX || segment_end(message) == message.len()
}

fn write_segments(message: &[u8], mut write: impl FnMut(&[u8])) {
    let segments = || {
        let mut rest = message;
        std::iter::from_fn(move || {
            let (segment, after) = rest.split_at(segment_end(rest));
            rest = after;
            (!segment.is_empty()).then_some(segment)
        })
    };
    let mut count = Vec::new();
    json::integer(&mut count, segments().count());
    assert!(count.len() <= COUNT_BYTES_MAX, "no client could tell this count from a message");
    write(&count);
    segments().for_each(write);
}

/// How many bytes of `text` make up its first [`SEGMENT_UNITS_MAX`] UTF-16 code units, without
/// cutting a character in two.
fn segment_end(text: &[u8]) -> usize {
    if text.len() <= SEGMENT_UNITS_MAX {
        return text.len();
    }
    let mut units = 0;
    for (at, byte) in text.iter().enumerate() {
        units += match byte {
            0x80..=0xbf => 0,
            0xf0.. => 2,
            _ => 1,
        };
        if units > SEGMENT_UNITS_MAX {
            return at;
        }
    }
    text.len()
}
