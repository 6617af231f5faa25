//! Values that do not fit one message, for plain clients (RFC 7959): those with Wilddog's SDK know no such thing.
//!
//! The surprising idea: nothing depends on what is kept here. A body that is being fetched is kept so that all its
//! blocks are of one value; where there is no room for it, each block is cut from the value as it is then, and the
//! tag (`ETag`) tells the client which blocks belong together.
//!
//! Costs: 8 bytes a session; while a transfer is on, its body, of which an engine has
//! [`DEVICE_BODIES_BYTES_MAX`] bytes at most.

use super::answer::Back;
use super::{Arrival, Device};
use crate::base::limits::{DEVICE_BODIES_BYTES_MAX, DEVICE_BODY_BYTES_MAX};
use crate::base::{Now, SessionRef};
use crate::data::Path;
use crate::engine::{Engine, Output};
use crate::wire::coap::{Block, Code, Form, Writer, option};

/// What is on its way between a client and us.
#[derive(Debug, Default)]
pub(super) struct Transfer {
    coming: Option<Coming>,
    going: Option<Going>,
}

/// A body of which more is to come.
#[derive(Debug)]
struct Coming {
    code: Code,
    path: Path,
    body: Vec<u8>,
}

/// A body of which more may be asked for.
#[derive(Debug)]
struct Going {
    path: Path,
    form: Form,
    body: Box<[u8]>,
}

impl Transfer {
    pub(super) fn bytes(&self) -> usize {
        self.coming.as_ref().map_or(0, |coming| coming.body.len())
            + self.going.as_ref().map_or(0, |going| going.body.len())
    }
}

/// The options of an answer with a part of a body, and that part. `false`: there is no such part.
pub(super) fn write_part(mut writer: Writer<'_>, body: &[u8], wanted: Block, observe: Option<u32>, form: Form) -> bool {
    let Some((block, part)) = wanted.cut(body) else { return false };
    writer = writer.option(option::ETAG, &crc32fast::hash(body).to_be_bytes());
    if let Some(sequence) = observe {
        writer = writer.uint(option::OBSERVE, sequence);
    }
    if let Some(number) = form.number() {
        writer = writer.uint(option::CONTENT_FORMAT, number);
    }
    let size = u32::try_from(body.len()).expect("bodies have a limit");
    writer.uint(option::BLOCK2, block.bits()).uint(option::SIZE2, size).payload(part);
    true
}

impl Engine {
    #[cfg(test)]
    pub(crate) fn device_bodies_bytes(&self) -> usize {
        self.devices.bodies_bytes
    }

    /// Keeps a body of which only a part was sent, for as long as the client asks for the rest.
    pub(super) fn keep_body(&mut self, session: SessionRef, path: Path, form: Form, body: Vec<u8>) {
        self.forget_going(session);
        if self.devices.bodies_bytes + body.len() > DEVICE_BODIES_BYTES_MAX {
            return;
        }
        self.devices.bodies_bytes += body.len();
        if let Some(device) = self.device(session) {
            device.transfer.get_or_insert_default().going = Some(Going { path, form, body: body.into() });
        }
    }

    fn forget_going(&mut self, session: SessionRef) {
        let going = self.transfer(session).and_then(|transfer| transfer.going.take());
        self.devices.bodies_bytes -= going.map_or(0, |going| going.body.len());
        self.forget_idle(session);
    }

    fn forget_coming(&mut self, session: SessionRef) -> Option<Coming> {
        let coming = self.transfer(session).and_then(|transfer| transfer.coming.take());
        self.devices.bodies_bytes -= coming.as_ref().map_or(0, |coming| coming.body.len());
        self.forget_idle(session);
        coming
    }

    fn forget_idle(&mut self, session: SessionRef) {
        if let Some(device) = self.device(session)
            && device.transfer.as_ref().is_some_and(|transfer| transfer.coming.is_none() && transfer.going.is_none())
        {
            device.transfer = None;
        }
    }

    fn transfer(&mut self, session: SessionRef) -> Option<&mut Transfer> {
        self.device(session)?.transfer.as_deref_mut()
    }

    /// The session is over, with what was on its way.
    pub(super) fn forget_transfer(&mut self, device: &Device) {
        self.devices.bodies_bytes -= device.transfer.as_ref().map_or(0, |transfer| transfer.bytes());
    }

    /// Answers with a later block of a body that is kept. `false`: there is none.
    pub(super) fn answer_part(
        &mut self,
        session: SessionRef,
        path: &Path,
        form: Form,
        back: &Back,
        output: &mut Output,
    ) -> bool {
        let Some(wanted) = back.block2.filter(|block| block.number > 0) else { return false };
        let fresh = self.fresh_id();
        let from = output.bytes.len();
        let Some(going) = self.transfer(session).and_then(|transfer| transfer.going.as_ref()) else { return false };
        let writer = back.write(&mut output.bytes, Code::CONTENT, fresh);
        let is_kept = going.path == *path && going.form == form;
        let is_last = wanted.offset() + wanted.bytes() >= going.body.len();
        if !is_kept || !write_part(writer, &going.body, wanted, None, form) {
            output.bytes.truncate(from);
            return false;
        }
        if is_last {
            self.forget_going(session);
        }
        self.device_post(session, back, from, output);
        true
    }

    /// Takes one block of a body. `None`: there is more to come, or it was refused, and the client was told.
    pub(super) fn take_block(
        &mut self,
        now: Now,
        arrival: &Arrival<'_>,
        session: SessionRef,
        path: &Path,
        back: &Back,
        output: &mut Output,
    ) -> Option<Vec<u8>> {
        let block = back.block1?;
        let (code, part) = (arrival.message.code, arrival.message.payload);
        let key = self.exchange_key(session, arrival);
        if self.device_kept(now.instant, key, back, output).is_some() {
            return None;
        }
        let refusal = if block.is_more && part.len() != block.bytes() {
            Some(Code::BAD_REQUEST)
        } else if arrival.message.size1().unwrap_or_default().max(block.offset() + part.len()) > DEVICE_BODY_BYTES_MAX
            || self.devices.bodies_bytes + part.len() > DEVICE_BODIES_BYTES_MAX
        {
            Some(Code::TOO_LARGE)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            self.forget_coming(session);
            self.device_answer(session, back, refusal, output);
            return None;
        }
        let is_known = |coming: &Coming| coming.code == code && coming.path == *path;
        let is_other =
            self.transfer(session).and_then(|transfer| transfer.coming.as_ref()).is_none_or(|it| !is_known(it));
        if block.number == 0 && is_other {
            self.forget_coming(session);
            let coming = Coming { code, path: path.clone(), body: Vec::new() };
            self.device(session)?.transfer.get_or_insert_default().coming = Some(coming);
        }
        let coming = self.transfer(session).and_then(|transfer| transfer.coming.as_mut()).filter(|it| is_known(it));
        let Some(coming) = coming.filter(|coming| block.offset() <= coming.body.len()) else {
            // "4.08: the server has not received all blocks that it needs to proceed" (section 2.9.2).
            self.device_answer(session, back, Code::INCOMPLETE, output);
            return None;
        };
        // A copy that comes late says what was said; another body that begins alike says something else, or ends.
        let is_copy = coming.body[block.offset()..].starts_with(part) && block.is_more;
        if !is_copy {
            let was = coming.body.len();
            coming.body.truncate(block.offset());
            coming.body.extend_from_slice(part);
            let is = coming.body.len();
            self.devices.bodies_bytes = self.devices.bodies_bytes - was + is;
        }
        if block.is_more {
            self.device_answer(session, back, Code::CONTINUE, output);
            return None;
        }
        self.forget_coming(session).map(|coming| coming.body)
    }
}
