//! What a device observes: one registration, and the notification that is under way for it
//! (RFC 7641 section 4; Wilddog wire specification for devices, section 8).
//!
//! The surprising idea: the server keeps the value as the device is to see it, because a notification
//! is always the whole value. Trees share what they have in common, so on the owner's core this is a
//! reference, not a copy.

use crate::base::{Instant, Millis};
use crate::data::{Node, Path};
use crate::op::Event;
use crate::wire::coap::{Code, Form, MessageId, Token, sequence};

/// Transmissions of one notification (RFC 7252 section 4.8: `MAX_RETRANSMIT` is 4).
const TRANSMISSIONS_MAX: u8 = 5;
/// The first wait for an acknowledgement (`ACK_TIMEOUT`), and by how much chance makes it longer
/// (`ACK_RANDOM_FACTOR` is 1.5).
const ACK_TIMEOUT: Millis = Millis(2_000);
const ACK_TIMEOUT_CHANCE_MS: u64 = 1_000;
/// "A byte-identical observe GET for a registration that is alive is answered only while younger than
/// ~15 s (max. 3 repeats, >= 1.5 s apart)."
const REPEATS_FOR: Millis = Millis(15_000);
const REPEATS_MAX: u8 = 3;
const REPEAT_PAUSE: Millis = Millis(1_500);

/// Numbers of notifications that are taken at once.
const NUMBERS_RESERVED: u32 = 64;
/// "24 bits".
const SEQUENCE_MAX: u32 = 0x00ff_ffff;

/// One registration.
#[derive(Debug)]
pub(super) struct Watch {
    /// Ours for it.
    pub(super) tag: u64,
    /// The client's for it.
    pub(super) token: Token,
    pub(super) path: Path,
    pub(super) form: Form,
    /// What stands there, as the owner has told.
    pub(super) value: Node,
    /// Whether the owner has agreed: until then the answer is still to come.
    pub(super) is_agreed: bool,
    /// The number of the last notification.
    pub(super) sequence: u32,
    /// How many numbers after that one may be used before this is written down again.
    numbers_left: u32,
    /// Whether the client has yet to be told of the value.
    pub(super) is_dirty: bool,
    /// Whether the client does not acknowledge: it is told again when it is heard.
    pub(super) is_asleep: bool,
    /// Why it is over, once it is: this is still to be told.
    pub(super) over: Option<Code>,
    pub(super) flight: Option<Flight>,
    /// The hash of the datagram that registered it.
    pub(super) request_hash: u64,
    registered: Instant,
    answered: Instant,
    repeats: u8,
}

/// A notification that is not acknowledged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flight {
    pub(super) id: MessageId,
    /// When it is to be sent again.
    pub(super) due: Instant,
    timeout: Millis,
    transmissions: u8,
}

impl Flight {
    /// The first transmission. `chance` is any number.
    pub(super) fn new(id: MessageId, now: Instant, chance: u64) -> Self {
        let timeout = Millis(ACK_TIMEOUT.0 + chance % ACK_TIMEOUT_CHANCE_MS);
        Self { id, due: now + timeout, timeout, transmissions: 1 }
    }

    /// Once more, or not any more. With other contents it is another message, but waits as long
    /// (RFC 7641 section 4.5.2).
    pub(super) fn again(self, id: MessageId) -> Option<Self> {
        let timeout = Millis(2 * self.timeout.0);
        let transmissions = self.transmissions + 1;
        (transmissions <= TRANSMISSIONS_MAX).then_some(Self { id, due: self.due + timeout, timeout, transmissions })
    }
}

impl Watch {
    pub(super) fn new(tag: u64, token: Token, path: Path, form: Form, request_hash: u64, now: Instant) -> Self {
        Self {
            tag,
            token,
            path,
            form,
            value: Node::Empty,
            is_agreed: false,
            sequence: 0,
            numbers_left: 0,
            is_dirty: false,
            is_asleep: false,
            over: None,
            flight: None,
            request_hash,
            registered: now,
            answered: now,
            repeats: 0,
        }
    }

    /// The client asks for it anew, by another datagram. Numbers go on where they were.
    pub(super) fn renew(&mut self, request_hash: u64, now: Instant) {
        let fresh = Self::new(self.tag, self.token, self.path.clone(), self.form, request_hash, now);
        let (value, sequence, numbers_left) = (std::mem::take(&mut self.value), self.sequence, self.numbers_left);
        *self = Self { value, sequence, numbers_left, ..fresh };
    }

    /// Whether the same datagram once more is to be answered: a retransmission is, the storms of old
    /// clients are not.
    pub(super) fn answers_repeat(&mut self, now: Instant) -> bool {
        let is_young = now.since(self.registered) < REPEATS_FOR && self.repeats < REPEATS_MAX;
        let is_answered = self.is_agreed && is_young && now.since(self.answered) >= REPEAT_PAUSE;
        if is_answered {
            self.repeats += 1;
            self.answered = now;
        }
        is_answered
    }

    /// Takes in what the owner tells.
    pub(super) fn apply(&mut self, event: &Event) {
        match event {
            Event::Set { path, node } => {
                if let Some(below) = self.path.relative(path) {
                    self.value.set(below, node.clone());
                }
            }
            Event::Merge { path, changes } => {
                for (place, node) in changes {
                    if let Some(below) = self.path.relative(&path.join(place)) {
                        self.value.set(below, node.clone());
                    }
                }
            }
            Event::Revoked { .. } => self.over = Some(Code::FORBIDDEN),
            // Administrators' streams hear those.
            Event::Operation(_) => return,
        }
        self.is_dirty = true;
    }

    /// Whether there is something to be told now.
    pub(super) const fn wants_to_speak(&self) -> bool {
        self.is_dirty && self.flight.is_none() && !self.is_asleep && (self.is_agreed || self.over.is_some())
    }

    /// The number of the next notification.
    pub(super) const fn next_sequence(&mut self) -> u32 {
        self.sequence = sequence(self.sequence);
        self.numbers_left = self.numbers_left.wrapping_sub(1);
        self.sequence
    }

    /// Takes more numbers for what is to come, if the last was none of those that are taken: this has to be
    /// written down before it is sent, so that after a restart no number comes again.
    pub(super) const fn reserve_numbers(&mut self) -> bool {
        let is_short = self.numbers_left > NUMBERS_RESERVED;
        if is_short {
            self.numbers_left = NUMBERS_RESERVED;
        }
        is_short
    }

    /// The last number that may be used before this is written down again.
    pub(super) fn sequence_max(&self) -> u32 {
        let sum = self.sequence + if self.numbers_left > NUMBERS_RESERVED { 0 } else { self.numbers_left };
        if sum > SEQUENCE_MAX { sum - SEQUENCE_MAX } else { sum }
    }

    /// The client is heard: what it has not acknowledged it is told again.
    pub(super) fn wake(&mut self) -> bool {
        std::mem::take(&mut self.is_asleep) && self.is_dirty
    }

    /// Nobody acknowledges: nothing is sent until the client is heard.
    pub(super) const fn sleep(&mut self) {
        self.flight = None;
        self.is_dirty = true;
        self.is_asleep = true;
    }
}
