//! What clients hear: texts and events, framed for their transports.
//!
//! The surprising idea: an event is encoded once and its bytes are sent to everybody who hears it
//! from here; only the listener's own tag is patched in.

use super::home::Channel;
use super::{Effect, Engine, Output};
use crate::base::{ConnId, SessionRef};
use crate::op::{End, Word};
use crate::shard::{Listener, Told};
use crate::wire::{firebase, ws};

impl Engine {
    /// Tells a session's client something.
    pub(super) fn say(&mut self, session: SessionRef, word: &Word<'_>, output: &mut Output) {
        let Some(state) = self.sessions.get(session) else { return };
        match state.channel {
            Channel::Socket(conn) => self.send_bytes(conn, output, |bytes| {
                let start = bytes.len();
                firebase::word(bytes, word);
                firebase::frames::seal(bytes, start);
            }),
            Channel::Poll(_) => self.post_word(session, word),
            Channel::Gone => {}
        }
    }

    /// Sends bytes as they are: `write` appends them.
    pub(super) fn send_bytes(&mut self, conn: ConnId, output: &mut Output, write: impl FnOnce(&mut Vec<u8>)) {
        let from = output.bytes.len();
        write(&mut output.bytes);
        output.effects.push(Effect::Send { conn, bytes: from..output.bytes.len() });
    }

    /// Tells the sessions that live here what has happened.
    pub(super) fn tell(&mut self, told: Told, output: &mut Output) {
        let Told { event, listeners } = told;
        let mut text = std::mem::take(&mut self.event_text);
        text.fill(&event);
        let mut untagged = None;
        for Listener { session, tag, .. } in listeners {
            let Some(state) = self.sessions.get(session) else { continue };
            let Channel::Socket(conn) = state.channel else {
                self.post(session, |message| text.write(message, tag));
                continue;
            };
            let bytes = match (tag, &untagged) {
                (None, Some(range)) => std::ops::Range::clone(range),
                _ => {
                    let from = output.bytes.len();
                    text.write_frames(&mut output.bytes, tag);
                    let range = from..output.bytes.len();
                    if tag.is_none() {
                        untagged = Some(range.clone());
                    }
                    range
                }
            };
            output.effects.push(Effect::Send { conn, bytes });
        }
        self.event_text = text;
    }

    /// Closes the connection of a session that is over.
    pub(super) fn send_away(&mut self, conn: ConnId, end: End, output: &mut Output) {
        let code = match end {
            End::Closed => ws::close_code::NORMAL,
            End::Dropped => return self.close(conn, output),
            End::TimedOut | End::Superseded | End::ServerStopped => ws::close_code::GOING_AWAY,
            End::Killed => ws::close_code::POLICY,
        };
        if self.is_socket(conn) {
            self.send_bytes(conn, output, |bytes| ws::write_close(bytes, code, end.as_str()));
        }
        self.close(conn, output);
    }
}
