//! Request bodies (RFC 9112 sections 6 and 7.1): taken out of what arrives, whatever their framing.

use crate::base::limits::BODY_BYTES_MAX;
use crate::wire::{Input, http};

/// Digits of a chunk's size: more than enough for [`BODY_BYTES_MAX`].
const SIZE_DIGITS_MAX: u8 = 8;
/// Bytes of chunk extensions and trailers of one body: nobody here reads them.
const IGNORED_BYTES_MAX: usize = 8 * 1024;

/// Why a body cannot be taken. Nobody knows where the next request would begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadBody {
    /// Not chunks.
    Malformed,
    /// More than [`BODY_BYTES_MAX`].
    TooLong,
}

impl BadBody {
    /// The status to answer with.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::TooLong => 413,
        }
    }

    /// What is wrong, for the answer's body and for logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "the request body is not in chunks",
            Self::TooLong => "request body too long",
        }
    }
}

/// Takes one body out of what arrives.
#[derive(Debug)]
pub struct BodyReader {
    state: State,
    taken_bytes: usize,
    ignored_bytes: usize,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// So much of a body of known length is still to come.
    Plain {
        left: usize,
    },
    /// The digits of a chunk's size.
    Size {
        size: usize,
        digits: u8,
    },
    /// What stands behind a size, to the end of its line.
    Extension {
        size: usize,
    },
    Chunk {
        left: usize,
    },
    /// The line break behind a chunk.
    ChunkEnd,
    /// Lines behind the last chunk, to the empty one.
    Trailer {
        is_line_empty: bool,
    },
    Done,
}

impl BodyReader {
    /// For the body that a head announces.
    #[must_use]
    pub const fn new(body: http::Body) -> Self {
        let state = match body {
            http::Body::Bytes(0) => State::Done,
            http::Body::Bytes(left) => State::Plain { left },
            http::Body::Chunked => State::Size { size: 0, digits: 0 },
        };
        Self { state, taken_bytes: 0, ignored_bytes: 0 }
    }

    /// Whether all of the body is taken.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// How much of it is taken.
    #[must_use]
    pub const fn taken_bytes(&self) -> usize {
        self.taken_bytes
    }

    /// Takes what `input` has of the body and hands it to `each`.
    pub fn read(&mut self, input: &mut Input<'_>, mut each: impl FnMut(&mut [u8])) -> Result<(), BadBody> {
        while !input.is_empty() && !self.is_done() {
            if let State::Plain { left } | State::Chunk { left } = &mut self.state {
                let piece = input.take(input.len().min(*left));
                *left -= piece.len();
                self.taken_bytes += piece.len();
                each(piece);
            } else {
                let byte = input.take(1)[0];
                self.state = self.state.step(byte)?;
                self.count(byte)?;
            }
            match self.state {
                State::Plain { left: 0 } => self.state = State::Done,
                State::Chunk { left: 0 } => self.state = State::ChunkEnd,
                _ => {}
            }
        }
        Ok(())
    }

    /// Holds what a client may send besides data against the limits.
    fn count(&mut self, byte: u8) -> Result<(), BadBody> {
        match self.state {
            State::Extension { size } | State::Size { size, .. } if self.taken_bytes + size > BODY_BYTES_MAX => {
                return Err(BadBody::TooLong);
            }
            State::Extension { .. } | State::Trailer { .. } if byte != b'\n' => self.ignored_bytes += 1,
            _ => {}
        }
        if self.ignored_bytes > IGNORED_BYTES_MAX { Err(BadBody::Malformed) } else { Ok(()) }
    }
}

impl State {
    fn step(self, byte: u8) -> Result<Self, BadBody> {
        Ok(match (self, byte) {
            (Self::Size { size, digits }, byte) if byte.is_ascii_hexdigit() => {
                if digits >= SIZE_DIGITS_MAX {
                    return Err(BadBody::TooLong);
                }
                let digit = char::from(byte).to_digit(16).expect("it is a hexadecimal digit") as usize;
                Self::Size { size: size * 16 + digit, digits: digits + 1 }
            }
            (Self::Size { digits: 0, .. }, _) => return Err(BadBody::Malformed),
            (Self::Size { size, .. }, b'\r' | b';' | b' ' | b'\t') => Self::Extension { size },
            (Self::Size { size: 0, .. } | Self::Extension { size: 0 }, b'\n') => Self::Trailer { is_line_empty: true },
            (Self::Size { size, .. } | Self::Extension { size }, b'\n') => Self::Chunk { left: size },
            (Self::Extension { .. } | Self::ChunkEnd, _) if byte != b'\n' => {
                if matches!(self, Self::ChunkEnd) && byte != b'\r' {
                    return Err(BadBody::Malformed);
                }
                self
            }
            (Self::ChunkEnd, _) => Self::Size { size: 0, digits: 0 },
            (Self::Trailer { is_line_empty: true }, b'\n') => Self::Done,
            (Self::Trailer { is_line_empty }, b'\r') => Self::Trailer { is_line_empty },
            (Self::Trailer { .. }, byte) => Self::Trailer { is_line_empty: byte == b'\n' },
            _ => return Err(BadBody::Malformed),
        })
    }
}
