//! Long bodies, read a piece a turn: everybody else is served in between.

use super::{Asking, Dialogue, Engine, Now, Output, Phase, Request, rest};
use crate::base::limits::ANSWER_MAX;
use crate::data::LongReader;
use crate::wire::rest::WriteCall;

/// Bytes of long bodies that one turn reads.
const READ_BYTES_MAX: usize = 64 << 10;

/// A write whose body is here and is being read.
#[derive(Debug)]
pub(super) struct Reading {
    asking: Asking,
    write: WriteCall,
    /// For a new child.
    name: String,
    reader: LongReader,
}

impl Reading {
    /// Bytes that its body takes.
    pub(super) const fn bytes(&self) -> usize {
        self.reader.len()
    }
}

impl Engine {
    pub(super) fn rest_read_long(
        &mut self,
        now: Now,
        asking: Asking,
        write: WriteCall,
        name: String,
        reader: LongReader,
    ) {
        let conn = asking.conn;
        let reading = Reading { asking, write, name, reader };
        let bytes = reading.bytes();
        let Some(dialogue) = self.dialogue(conn) else { return };
        dialogue.phase = Phase::Reading(Box::new(reading));
        self.desk.body_bytes += bytes;
        self.desk.reading.push_back(conn);
        self.set_deadline(conn, now.instant + ANSWER_MAX);
    }

    /// Reads on in one long body.
    pub(in super::super) fn read_long_bodies(&mut self, now: Now, output: &mut Output) {
        let Some(conn) = self.desk.reading.pop_front() else { return };
        // Taken out for a moment: the reader's buffers are the engine's.
        let mut buffers = std::mem::take(&mut self.reader);
        let Some(Dialogue { phase, .. }) = self.dialogue(conn) else {
            unreachable!("a connection that goes is forgotten here");
        };
        let Phase::Reading(reading) = phase else { unreachable!("it is read to its end") };
        let read = reading.reader.read(&mut buffers, READ_BYTES_MAX).transpose();
        let reading = read.map(|read| (read, std::mem::take(phase)));
        self.reader = buffers;
        let Some((read, Phase::Reading(reading))) = reading else {
            self.desk.reading.push_back(conn);
            return;
        };
        self.desk.body_bytes -= reading.bytes();
        let Reading { asking, write, name, .. } = *reading;
        match write.with_long(read, name) {
            Ok(rest::Asked { write: op, answering }) => {
                let request = Request::Exchange { write: op, if_hash: write.if_hash };
                self.rest_ask(now, asking, request, answering, output);
            }
            Err(reply) => {
                self.rest_reply(now, conn, reply, &asking.style, output);
                self.rest_next(now, conn, output);
            }
        }
    }

    /// Whether there are long bodies to read on in.
    pub(in super::super) fn has_long_bodies(&self) -> bool {
        !self.desk.reading.is_empty()
    }
}
