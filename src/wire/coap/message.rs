//! Messages as RFC 7252 section 3 frames them.

/// `type` (RFC 7252 section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To be answered with an acknowledgement or a reset.
    Confirmable,
    /// To be answered by nothing.
    NonConfirmable,
    /// The message with that id has arrived.
    Acknowledgement,
    /// The message with that id means nothing to us.
    Reset,
}

impl Kind {
    const fn of_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::Confirmable,
            1 => Self::NonConfirmable,
            2 => Self::Acknowledgement,
            _ => Self::Reset,
        }
    }

    const fn bits(self) -> u8 {
        match self {
            Self::Confirmable => 0,
            Self::NonConfirmable => 1,
            Self::Acknowledgement => 2,
            Self::Reset => 3,
        }
    }
}

/// A method or a response code: class (3 bits) and detail (5 bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub u8);

impl Code {
    /// 0.00: no request and no response.
    pub const EMPTY: Self = Self(0);
    /// 0.01
    pub const GET: Self = Self(1);
    /// 0.02
    pub const POST: Self = Self(2);
    /// 0.03
    pub const PUT: Self = Self(3);
    /// 0.04
    pub const DELETE: Self = Self(4);
    /// 2.01
    pub const CREATED: Self = Self::of(2, 1);
    /// 2.02
    pub const DELETED: Self = Self::of(2, 2);
    /// 2.04
    pub const CHANGED: Self = Self::of(2, 4);
    /// 2.31: the next block, please (RFC 7959 section 2.9.1).
    pub const CONTINUE: Self = Self::of(2, 31);
    /// 2.05: what the SDK calls success, whatever was asked.
    pub const CONTENT: Self = Self::of(2, 5);
    /// 4.00
    pub const BAD_REQUEST: Self = Self::of(4, 0);
    /// 4.01: to the SDK, "I do not know this session", and nothing else.
    pub const UNAUTHORIZED: Self = Self::of(4, 1);
    /// 4.02
    pub const BAD_OPTION: Self = Self::of(4, 2);
    /// 4.03
    pub const FORBIDDEN: Self = Self::of(4, 3);
    /// 4.04
    pub const NOT_FOUND: Self = Self::of(4, 4);
    /// 4.05
    pub const METHOD_NOT_ALLOWED: Self = Self::of(4, 5);
    /// 4.06
    pub const NOT_ACCEPTABLE: Self = Self::of(4, 6);
    /// 4.08: a block is missing (RFC 7959 section 2.9.2).
    pub const INCOMPLETE: Self = Self::of(4, 8);
    /// 4.12: to the SDK, "there are no resources left for you".
    pub const PRECONDITION_FAILED: Self = Self::of(4, 12);
    /// 4.13
    pub const TOO_LARGE: Self = Self::of(4, 13);
    /// 4.15
    pub const UNSUPPORTED_FORMAT: Self = Self::of(4, 15);
    /// 5.00
    pub const INTERNAL_ERROR: Self = Self::of(5, 0);
    /// 5.03
    pub const UNAVAILABLE: Self = Self::of(5, 3);

    const fn of(class: u8, detail: u8) -> Self {
        Self(class << 5 | detail)
    }

    /// 0: request, 2: success, 4: the client's mistake, 5: ours.
    #[must_use]
    pub const fn class(self) -> u8 {
        self.0 >> 5
    }
}

/// Names a message among those of its sender: opaque, since the SDK writes it in its own byte order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MessageId(pub u16);

/// Names a request among those of its client: 0 to 8 bytes.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Token {
    bytes: [u8; 8],
    len: u8,
}

impl Token {
    /// A token of at most 8 bytes.
    ///
    /// # Panics
    /// If there are more.
    #[must_use]
    pub fn new(token: &[u8]) -> Self {
        assert!(token.len() <= 8, "the parser has checked the length");
        let mut bytes = [0; 8];
        bytes[..token.len()].copy_from_slice(token);
        Self { bytes, len: u8::try_from(token.len()).expect("at most 8") }
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Numbers of options (RFC 7252 section 12.2, RFC 7641 section 2, RFC 7959 section 6).
pub mod option {
    /// The host of the URI.
    pub const URI_HOST: u32 = 3;
    /// Which version of a body this is a part of.
    pub const ETAG: u32 = 4;
    /// Observation: register, deregister; in a response the order of notifications.
    pub const OBSERVE: u32 = 6;
    /// The port of the URI.
    pub const URI_PORT: u32 = 7;
    /// A segment of a path that was made.
    pub const LOCATION_PATH: u32 = 8;
    /// A segment of the path.
    pub const URI_PATH: u32 = 11;
    /// What the payload is.
    pub const CONTENT_FORMAT: u32 = 12;
    /// An item of the query.
    pub const URI_QUERY: u32 = 15;
    /// What the payload of the answer is to be.
    pub const ACCEPT: u32 = 17;
    /// Which block of the answer's body this is, or is wanted.
    pub const BLOCK2: u32 = 23;
    /// Which block of the request's body this is.
    pub const BLOCK1: u32 = 27;
    /// How long the answer's body is.
    pub const SIZE2: u32 = 28;
    /// How long the request's body is.
    pub const SIZE1: u32 = 60;
}

/// Why a datagram is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Shorter than a header, or of another version: "MUST be silently ignored".
    NotOurs,
    /// A confirmable message that cannot be read: it is to be rejected with a reset.
    Rejected(MessageId),
    /// Anything else that cannot be read.
    Ignored,
}

/// A message, where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'m> {
    /// How it is to be answered.
    pub kind: Kind,
    /// What it is.
    pub code: Code,
    /// Its name.
    pub id: MessageId,
    /// Its request's name.
    pub token: Token,
    /// Checked: [`Options`] reads them without fail.
    options: &'m [u8],
    /// Empty if there is none.
    pub payload: &'m [u8],
}

impl<'m> Message<'m> {
    /// Reads a datagram.
    ///
    /// An empty message may have a token: the SDK sends such ("against RFC 7252"), and its server
    /// must accept it.
    ///
    /// # Errors
    /// What is to be done about one that is none.
    pub fn read(datagram: &'m [u8]) -> Result<Self, Malformed> {
        let &[first, code, id_high, id_low, ref rest @ ..] = datagram else { return Err(Malformed::NotOurs) };
        if first >> 6 != 1 {
            return Err(Malformed::NotOurs);
        }
        let (kind, code) = (Kind::of_bits(first >> 4), Code(code));
        let id = MessageId(u16::from_be_bytes([id_high, id_low]));
        let malformed = if kind == Kind::Confirmable { Malformed::Rejected(id) } else { Malformed::Ignored };
        // "Lengths 9-15 are reserved, MUST NOT be sent, and MUST be processed as a message format error."
        let token_bytes = usize::from(first & 15);
        if token_bytes > 8 || rest.len() < token_bytes {
            return Err(malformed);
        }
        let (token, rest) = rest.split_at(token_bytes);
        if code == Code::EMPTY && !rest.is_empty() {
            return Err(malformed);
        }
        let mut options = Options { rest, number: 0 };
        while options.step().ok_or(malformed)?.is_some() {}
        let options_bytes = rest.len() - options.rest.len();
        let payload = match options.rest {
            [] => &[][..],
            // "The presence of a marker followed by a zero-length payload MUST be processed as a message
            // format error."
            [_marker] => return Err(malformed),
            [_marker, payload @ ..] => payload,
        };
        Ok(Self { kind, code, id, token: Token::new(token), options: &rest[..options_bytes], payload })
    }

    /// The options, in the order of their numbers.
    #[must_use]
    pub const fn options(&self) -> Options<'m> {
        Options { rest: self.options, number: 0 }
    }
}

/// The options of a message.
#[derive(Clone, Copy, Debug)]
pub struct Options<'m> {
    rest: &'m [u8],
    number: u32,
}

impl<'m> Options<'m> {
    /// The next option; `Some(None)` at the payload marker or the end, `None` if there is no sense in
    /// what follows.
    #[expect(clippy::option_option, reason = "inside: what is malformed. outside: what is there")]
    fn step(&mut self) -> Option<Option<(u32, &'m [u8])>> {
        let (&first, mut rest) = match self.rest.split_first() {
            None | Some((0xff, _)) => return Some(None),
            Some(split) => split,
        };
        let delta = extended(first >> 4, &mut rest)?;
        let length = extended(first & 15, &mut rest)? as usize;
        let number = self.number + delta;
        if number > u32::from(u16::MAX) || rest.len() < length {
            return None;
        }
        let (value, rest) = rest.split_at(length);
        (self.rest, self.number) = (rest, number);
        Some(Some((number, value)))
    }
}

impl<'m> Iterator for Options<'m> {
    type Item = (u32, &'m [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.step().flatten()
    }
}

/// RFC 7252 section 3.1: 13 and 14 announce one and two more bytes, 15 is reserved.
fn extended(nibble: u8, rest: &mut &[u8]) -> Option<u32> {
    match nibble {
        13 => {
            let (&more, left) = rest.split_first()?;
            *rest = left;
            Some(u32::from(more) + 13)
        }
        14 => {
            let (more, left) = rest.split_first_chunk::<2>()?;
            *rest = left;
            Some(u32::from(u16::from_be_bytes(*more)) + 269)
        }
        15 => None,
        small => Some(u32::from(small)),
    }
}

/// Appends one message. Options come in the order of their numbers, then the payload.
#[derive(Debug)]
pub struct Writer<'o> {
    out: &'o mut Vec<u8>,
    number: u32,
}

impl<'o> Writer<'o> {
    /// A message with a token.
    pub fn new(out: &'o mut Vec<u8>, kind: Kind, code: Code, id: MessageId, token: Token) -> Self {
        let token = token.as_bytes();
        #[expect(clippy::cast_possible_truncation, reason = "a token is at most 8 bytes")]
        out.push(0x40 | kind.bits() << 4 | token.len() as u8);
        out.push(code.0);
        out.extend_from_slice(&id.0.to_be_bytes());
        out.extend_from_slice(token);
        Self { out, number: 0 }
    }

    /// An empty message: exactly 4 bytes, or the SDK discards it.
    pub fn empty(out: &'o mut Vec<u8>, kind: Kind, id: MessageId) {
        Self::new(out, kind, Code::EMPTY, id, Token::default());
    }

    /// Adds an option.
    ///
    /// # Panics
    /// If one with a higher number was added before.
    #[must_use]
    pub fn option(mut self, number: u32, value: &[u8]) -> Self {
        let delta = number.checked_sub(self.number).expect("options are written in their order");
        let length = u32::try_from(value.len()).expect("options are short");
        let (high, low) = (nibble(delta), nibble(length));
        self.out.push(high << 4 | low);
        for part in [delta, length] {
            match nibble(part) {
                13 => self.out.push(u8::try_from(part - 13).expect("below 269")),
                14 => {
                    let more = u16::try_from(part - 269).expect("numbers and lengths are 16 bits");
                    self.out.extend_from_slice(&more.to_be_bytes());
                }
                _ => {}
            }
        }
        self.out.extend_from_slice(value);
        self.number = number;
        self
    }

    /// Adds an option that is a number: big-endian, as short as possible (RFC 7252 section 3.2).
    #[must_use]
    pub fn uint(self, number: u32, value: u32) -> Self {
        let bytes = value.to_be_bytes();
        let zeros = (value.leading_zeros() / 8) as usize;
        self.option(number, &bytes[zeros..])
    }

    /// Adds the payload; none if it is empty.
    pub fn payload(self, payload: &[u8]) {
        if !payload.is_empty() {
            self.out.push(0xff);
            self.out.extend_from_slice(payload);
        }
    }

    /// There is no payload.
    pub const fn done(self) {
        let _ = self.out;
    }
}

const fn nibble(part: u32) -> u8 {
    match part {
        #[expect(clippy::cast_possible_truncation, reason = "below 13")]
        0..13 => part as u8,
        13..269 => 13,
        _ => 14,
    }
}
