//! Answers to devices: what was asked is remembered until it is answered, what was answered until
//! nobody can ask again.

use std::ops::Range;

use super::super::home::Channel;
use super::super::io::Peer;
use super::super::{Effect, Engine, Message as Mail, Output};
use super::watch::Watch;
use super::{ANSWER_SPAN, Device, blocks};
use crate::base::limits::DEVICE_BODY_BYTES_MAX;
use crate::base::{Instant, SessionRef};
use crate::data::{self, Node, Path};
use crate::op::{Outcome, Word};
use crate::wire::coap::{
    Block, Code, DATAGRAM_BYTES_MAX, Form, Kind, Message, MessageId, Method, Token, Writer, cbor, option, refused,
};

/// Answers that wait until a peer has shown that it receives.
const WITHHELD_MAX: usize = 4;

/// A request that waits for its outcome.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) number: i64,
    pub(super) what: Asked,
    pub(super) form: Form,
    pub(super) back: Back,
}

/// Where an answer goes, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Back {
    pub(super) peer: Peer,
    kind: Kind,
    id: MessageId,
    token: Token,
    /// Where it is remembered, if it is.
    pub(super) key: Option<u64>,
    /// How long it may be towards an address that the session has left.
    bytes_max: usize,
    /// Which block of a body the request was.
    pub(super) block1: Option<Block>,
    /// Which block of a body is wanted.
    pub(super) block2: Option<Block>,
}

/// What was asked.
#[derive(Debug)]
pub(super) enum Asked {
    Get(Path),
    Write(Method),
    /// The path that was made.
    Push(Path),
    LastWord(Method),
    /// The path that was made for now: another is made when it is spoken.
    LastPush(Path),
    Cancel(Path),
    /// The tag of the watch.
    Observe(u64),
}

/// What was answered, or that it will be.
#[derive(Debug)]
pub(super) enum Kept {
    Asked { at: Instant },
    Answered { at: Instant, bytes: Box<[u8]> },
}

impl Back {
    pub(super) fn of(peer: Peer, message: &Message<'_>, bytes: usize) -> Self {
        let Message { kind, id, token, .. } = *message;
        let (block1, block2) = (message.block1(), message.block2());
        Self { peer, kind, id, token, key: None, bytes_max: 3 * bytes, block1, block2 }
    }

    /// Ends an answer without a payload; to a block, it says which one.
    fn end(&self, writer: Writer<'_>) {
        match self.block1 {
            Some(block) => writer.uint(option::BLOCK1, block.bits()).done(),
            None => writer.done(),
        }
    }

    /// Begins an answer: piggybacked, "same MID, same token"; to who wants no acknowledgement, with
    /// `fresh`.
    pub(super) fn write<'o>(&self, out: &'o mut Vec<u8>, code: Code, fresh: MessageId) -> Writer<'o> {
        let (kind, id) = match self.kind {
            Kind::Confirmable => (Kind::Acknowledgement, self.id),
            _ => (Kind::NonConfirmable, fresh),
        };
        Writer::new(out, kind, code, id, self.token)
    }
}

impl Engine {
    /// What was answered to the same request within the last seconds. `None`: it is new, and will be
    /// answered from here on.
    pub(super) fn device_kept(&mut self, now: Instant, key: u64, back: &Back, output: &mut Output) -> Option<()> {
        match self.devices.answers.get(now, &key)? {
            Kept::Asked { at } if now.since(*at) < ANSWER_SPAN => Some(()),
            Kept::Answered { at, bytes } if now.since(*at) < ANSWER_SPAN => {
                let from = output.bytes.len();
                output.bytes.extend_from_slice(bytes);
                self.send_datagram(back.peer, from..output.bytes.len(), output);
                Some(())
            }
            Kept::Asked { .. } | Kept::Answered { .. } => None,
        }
    }

    /// The session's answer to a request is known.
    pub(in super::super) fn device_word(&mut self, session: SessionRef, word: &Word<'_>, output: &mut Output) {
        let Word::Outcome { number, outcome } = word else { return };
        let Some(device) = self.device(session) else { return };
        let Some(at) = device.exchanges.iter().position(|exchange| exchange.number == *number) else {
            return self.observed_again(session, *number, outcome);
        };
        let exchange = device.exchanges.swap_remove(at);
        let fresh = self.fresh_id();
        let from = output.bytes.len();
        if !self.write_outcome(session, &exchange, outcome, fresh, output) {
            return;
        }
        if let Some(key) = exchange.back.key {
            let kept = Kept::Answered { at: self.devices.now, bytes: output.bytes[from..].into() };
            let now = self.devices.now;
            self.devices.answers.insert(now, key, kept);
        }
        self.device_post(session, &exchange.back, from, output);
    }

    /// Appends the answer. `false`: there is none.
    fn write_outcome(
        &mut self,
        session: SessionRef,
        exchange: &Exchange,
        outcome: &Outcome,
        fresh: MessageId,
        output: &mut Output,
    ) -> bool {
        let Exchange { what, form, back, .. } = exchange;
        let out = &mut output.bytes;
        if let Outcome::Refused(refusal) = outcome {
            back.write(out, refused(refusal), fresh).done();
            if let Asked::Observe(tag) = what {
                // It may be there from before, when it was allowed.
                self.unlisten(session, *tag, output);
            }
            return true;
        }
        if matches!(what, Asked::LastWord(_) | Asked::LastPush(_))
            && let Some(device) = self.device(session)
        {
            device.has_words = true;
        }
        let out = &mut output.bytes;
        let success = |code| if *form == Form::Device { Code::CONTENT } else { code };
        match what {
            Asked::Get(path) => {
                let Outcome::Value(node) = outcome else { unreachable!("a read is answered with a value") };
                let written = write_value(out, back, None, node, *form, fresh);
                self.keep_written(session, path.clone(), *form, written);
            }
            Asked::Write(Method::Remove) | Asked::LastWord(Method::Remove) => {
                back.end(back.write(out, success(Code::DELETED), fresh));
            }
            Asked::Write(_) | Asked::LastWord(_) => back.end(back.write(out, success(Code::CHANGED), fresh)),
            Asked::Cancel(path) => {
                if let Some(device) = self.device(session) {
                    device.pushes.retain(|pushed| !path.contains(pushed));
                    device.has_words &= !path.is_root();
                }
                self.keep(session);
                back.write(out, success(Code::DELETED), fresh).done();
            }
            Asked::LastPush(path) => {
                if let Some(device) = self.device(session) {
                    device.pushes.push(path.clone());
                }
                self.keep(session);
                let out = &mut output.bytes;
                back.end(back.write(out, success(Code::CHANGED), fresh));
            }
            Asked::Push(path) if *form == Form::Device => {
                let text = [b"/", path.as_str().as_bytes()].concat();
                back.write(out, Code::CONTENT, fresh).payload(&text);
            }
            Asked::Push(path) => {
                let writer = back.write(out, Code::CREATED, fresh);
                let keys = path.keys();
                let writer =
                    keys.fold(writer, |writer, key| writer.option(option::LOCATION_PATH, key.as_str().as_bytes()));
                back.end(writer);
            }
            Asked::Observe(tag) => return self.write_agreed(session, *tag, exchange, fresh, output),
        }
        true
    }

    /// Appends the answer to a registration, with the value.
    fn write_agreed(
        &mut self,
        session: SessionRef,
        tag: u64,
        exchange: &Exchange,
        fresh: MessageId,
        output: &mut Output,
    ) -> bool {
        let Some(watch) = self.watch(session, tag) else { return false };
        watch.is_agreed = true;
        watch.is_dirty = watch.over.is_some();
        let sequence = watch.next_sequence();
        watch.reserve_numbers();
        let (value, form, path) = (watch.value.clone(), watch.form, watch.path.clone());
        self.keep(session);
        let written = write_value(&mut output.bytes, &exchange.back, Some(sequence), &value, form, fresh);
        if !self.keep_written(session, path, form, written) {
            self.unlisten(session, tag, output);
        }
        true
    }

    /// Answers the datagram that registered a watch once more.
    pub(super) fn repeat_registration(&mut self, session: SessionRef, tag: u64, back: &Back, output: &mut Output) {
        let fresh = self.fresh_id();
        let Some(Watch { sequence, value, form, path, .. }) = self.watch(session, tag) else { return };
        let (sequence, value, form, path) = (*sequence, value.clone(), *form, path.clone());
        let from = output.bytes.len();
        let written = write_value(&mut output.bytes, back, Some(sequence), &value, form, fresh);
        self.keep_written(session, path, form, written);
        self.device_post(session, back, from, output);
    }

    /// Answers at once, with a code.
    pub(super) fn device_answer(&mut self, session: SessionRef, back: &Back, code: Code, output: &mut Output) {
        let fresh = self.fresh_id();
        let from = output.bytes.len();
        let writer = back.write(&mut output.bytes, code, fresh);
        // With a block, "too large" would ask for smaller ones (RFC 7959 section 2.9.3).
        if code.class() == 2 {
            back.end(writer);
        } else {
            writer.done();
        }
        if let Some(key) = back.key {
            let kept = Kept::Answered { at: self.devices.now, bytes: output.bytes[from..].into() };
            let now = self.devices.now;
            self.devices.answers.insert(now, key, kept);
        }
        self.device_post(session, back, from, output);
    }

    /// Sends what was appended since `from`, unless it is more than that peer may be sent before it has
    /// shown that it is there: then the peer is asked first.
    pub(super) fn device_post(&mut self, session: SessionRef, back: &Back, from: usize, output: &mut Output) {
        let bytes = from..output.bytes.len();
        let len = bytes.len();
        let Some(device) = self.device(session) else { return };
        let is_here = device.peer.is_at(&back.peer);
        if is_here && !device.may_send(len) {
            if device.withheld.len() < WITHHELD_MAX {
                device.withheld.push(output.bytes[bytes].into());
            }
            output.bytes.truncate(from);
            return self.challenge(session, output);
        }
        if !is_here && len > back.bytes_max {
            output.bytes.truncate(from);
            return;
        }
        self.send_datagram(back.peer, bytes, output);
    }

    /// Asks whether anybody is at the peer's address: an empty confirmable message, which everybody
    /// answers with a reset (RFC 7252 section 4.3). Nobody else knows its id.
    pub(super) fn challenge(&mut self, session: SessionRef, output: &mut Output) {
        let fresh = self.fresh_id();
        let now = self.devices.now;
        let Some(device) = self.device(session) else { return };
        if !device.may_challenge(now) {
            return;
        }
        device.challenge = Some(Box::new((fresh, now)));
        let peer = device.peer;
        self.post_datagram(peer, output, |out| Writer::empty(out, Kind::Confirmable, fresh));
    }

    /// Sends a datagram.
    pub(in super::super) fn post_datagram(
        &mut self,
        peer: Peer,
        output: &mut Output,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let from = output.bytes.len();
        write(&mut output.bytes);
        self.send_datagram(peer, from..output.bytes.len(), output);
    }

    /// Has these bytes sent as a datagram: by the core that holds the peer's keys, if it has any.
    pub(super) fn send_datagram(&mut self, peer: Peer, bytes: Range<usize>, output: &mut Output) {
        match peer.sealed_at {
            Some(core) if core != self.config.shard => {
                let message = Mail::Post { peer, bytes: output.bytes[bytes].into() };
                self.send(core, message, output);
            }
            _ => output.effects.push(Effect::Datagram { peer, bytes }),
        }
    }

    /// Keeps what only a part was sent of. `false`: it was too large for any.
    fn keep_written(&mut self, session: SessionRef, path: Path, form: Form, written: Written) -> bool {
        match written {
            Written::Whole => {}
            Written::Part(body) => self.keep_body(session, path, form, body),
            Written::TooLarge => return false,
        }
        true
    }

    pub(super) fn device(&mut self, session: SessionRef) -> Option<&mut Device> {
        match &mut self.sessions.get_mut(session)?.channel {
            Channel::Device(device) => Some(device),
            _ => None,
        }
    }

    pub(super) fn watch(&mut self, session: SessionRef, tag: u64) -> Option<&mut Watch> {
        self.device(session)?.watches.iter_mut().find(|watch| watch.tag == tag)
    }
}

/// What became of a value that was to be written.
enum Written {
    /// It is in the answer.
    Whole,
    /// One block of this body is.
    Part(Vec<u8>),
    /// The answer says that it does not fit, or that there is no such block.
    TooLarge,
}

/// Appends an answer with a value, or with the block of it that is wanted, or says that it is too large.
fn write_value(
    out: &mut Vec<u8>,
    back: &Back,
    observe: Option<u32>,
    node: &Node,
    form: Form,
    fresh: MessageId,
) -> Written {
    let start = out.len();
    let mut payload = Vec::new();
    if !write_payload(&mut payload, node, form) {
        back.write(out, Code::TOO_LARGE, fresh).done();
        return Written::TooLarge;
    }
    let wanted = back.block2.filter(|_| form != Form::Device);
    let is_small = wanted.is_none_or(|block| block.number == 0 && payload.len() <= block.bytes());
    if is_small {
        let mut writer = back.write(out, Code::CONTENT, fresh);
        if let Some(sequence) = observe {
            writer = writer.uint(option::OBSERVE, sequence);
        }
        if let Some(number) = form.number() {
            writer = writer.uint(option::CONTENT_FORMAT, number);
        }
        writer.payload(&payload);
        if out.len() - start <= DATAGRAM_BYTES_MAX {
            return Written::Whole;
        }
        out.truncate(start);
    }
    let refusal = if form == Form::Device {
        Code::TOO_LARGE
    } else {
        let writer = back.write(out, Code::CONTENT, fresh);
        if blocks::write_part(writer, &payload, wanted.unwrap_or(Block::FIRST), observe, form) {
            return Written::Part(payload);
        }
        out.truncate(start);
        Code::BAD_REQUEST
    };
    back.write(out, refusal, fresh).done();
    Written::TooLarge
}

/// Appends a value. `false`: it is too long for a datagram, or for one after the other where the client takes that.
pub(super) fn write_payload(out: &mut Vec<u8>, node: &Node, form: Form) -> bool {
    match form {
        Form::Device => cbor::write_top(out, node, DATAGRAM_BYTES_MAX).is_ok(),
        Form::Cbor => cbor::write(out, node, DEVICE_BODY_BYTES_MAX).is_ok(),
        Form::Json => data::Printer::new(node.clone(), data::Form::Plain).print(out, DEVICE_BODY_BYTES_MAX),
    }
}
