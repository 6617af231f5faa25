//! What clients hear: texts and events, framed for their transports.
//!
//! The surprising idea: an event is encoded once and its bytes are sent to everybody who hears it
//! from here; only the listener's own tag is patched in.

use std::ops::Range;

use super::conn::Link;
use super::guest::{self, GuestTelling};
use super::home::Channel;
use super::{Effect, Engine, Output};
use crate::base::{ConnId, SessionRef};
use crate::op::{End, Tag, Word};
use crate::shard::{Listener, Told};
use crate::wire::{firebase, ws};

/// Connections of silent peers that one call closes: two system calls and a packet each.
const FAREWELLS_MAX: usize = 64;

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
            Channel::Rest(conn) => self.rest_word(conn, word),
            Channel::Stream(_) => self.stream_word(session, word, output),
            Channel::Poll(_) => self.post_word(session, word),
            Channel::EngineIo(_) => self.say_packet(session, word, output),
            Channel::Device(_) => self.device_word(session, word, output),
            Channel::Guest(ref guest) => guest::say(guest.id(), word, output),
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
    pub(super) fn tell(&mut self, told: &Told, output: &mut Output) {
        let Told { event, listeners } = told;
        let mut firebase = Telling::new(std::mem::take(&mut self.event_text));
        let mut wilddog = Telling::new(std::mem::take(&mut self.wilddog_text));
        let mut streamed = None;
        let mut guests = GuestTelling::default();
        for &Listener { session, tag, .. } in listeners {
            let Some(state) = self.sessions.get(session) else { continue };
            let (conn, bytes) = match &state.channel {
                Channel::Socket(conn) => {
                    firebase.fill(|text| text.fill(event));
                    let text = &firebase.text;
                    let write = |out: &mut Vec<u8>| text.write_frames(out, tag);
                    (*conn, append_once(&mut firebase.untagged, tag, &mut output.bytes, write))
                }
                Channel::Poll(_) => {
                    firebase.fill(|text| text.fill(event));
                    let text = &firebase.text;
                    self.post(session, |message| text.write(message, tag));
                    continue;
                }
                Channel::Stream(_) => {
                    self.tell_stream(session, told, &mut streamed, output);
                    continue;
                }
                Channel::Device(_) => {
                    self.tell_device(session, tag, event);
                    continue;
                }
                Channel::Guest(guest) => {
                    guests.add(guest.id(), tag);
                    continue;
                }
                Channel::Rest(_) | Channel::Gone => continue,
                Channel::EngineIo(channel) => {
                    wilddog.fill(|text| text.fill(event));
                    let text = &wilddog.text;
                    let Some(conn) = channel.direct_socket(self.config.shard) else {
                        let mut packet = Vec::new();
                        text.write(&mut packet, tag);
                        self.post_packet(session, packet, output);
                        continue;
                    };
                    let write = |out: &mut Vec<u8>| write_frame(out, |out| text.write(out, tag));
                    (conn, append_once(&mut wilddog.untagged, tag, &mut output.bytes, write))
                }
            };
            output.effects.push(Effect::Send { conn, bytes });
        }
        guests.finish(event, output);
        self.event_text = firebase.text;
        self.wilddog_text = wilddog.text;
    }

    /// Closes the connection of a session that is over.
    pub(super) fn send_away(&mut self, conn: ConnId, end: End, output: &mut Output) {
        if end.is_silent() && matches!(self.link(conn), Link::Socket(_) | Link::Packets(_)) {
            // Nobody listens at its other end; others wait for the last words of those who fell silent with it.
            self.backlogs.forget(conn);
            *self.link(conn) = Link::Silent;
            return self.farewells.push_back(conn);
        }
        self.send_away_now(conn, end, output);
    }

    /// Closes some connections of peers that fell silent, when no last words of others wait.
    pub(super) fn say_farewells(&mut self, output: &mut Output) {
        if self.session_wheel.is_behind() {
            return;
        }
        for _ in 0..FAREWELLS_MAX {
            let Some(conn) = self.farewells.pop_front() else { return };
            // Or it has gone by itself; perhaps its name is another's by now.
            if matches!(self.link(conn), Link::Silent) {
                self.send_away_now(conn, End::TimedOut, output);
            }
        }
    }

    fn send_away_now(&mut self, conn: ConnId, end: End, output: &mut Output) {
        let code = match end {
            End::Closed => ws::close_code::NORMAL,
            End::Dropped => return self.close(conn, output),
            End::TimedOut | End::Superseded | End::ServerStopped => ws::close_code::GOING_AWAY,
            End::Killed => ws::close_code::POLICY,
        };
        if end == End::ServerStopped {
            self.send_back(conn, output);
        }
        if self.is_socket(conn) {
            self.send_bytes(conn, output, |bytes| ws::write_close(bytes, code, end.as_str()));
        }
        self.close(conn, output);
    }
}

/// An event that is being told in one protocol.
struct Telling<T> {
    text: T,
    /// `text` is this event's: it is encoded only if somebody hears it in this protocol.
    is_filled: bool,
    /// The frame for listens without a tag: of those, one serves all.
    untagged: Option<Range<usize>>,
}

impl<T> Telling<T> {
    fn new(text: T) -> Self {
        Self { text, is_filled: false, untagged: None }
    }

    fn fill(&mut self, fill: impl FnOnce(&mut T)) {
        if !std::mem::replace(&mut self.is_filled, true) {
            fill(&mut self.text);
        }
    }
}

/// Appends one text frame: `write` appends its payload.
fn write_frame(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    write(out);
    let head = ws::text_head(out.len() - start);
    out.extend_from_slice(&head);
    out[start..].rotate_right(head.len());
}

/// Where in `bytes` the event for a listen with that tag is, after `write` has appended it if need be.
fn append_once(
    untagged: &mut Option<Range<usize>>,
    tag: Tag,
    bytes: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>),
) -> Range<usize> {
    if let (None, Some(range)) = (tag, &*untagged) {
        return range.clone();
    }
    let from = bytes.len();
    write(bytes);
    if tag.is_none() {
        *untagged = Some(from..bytes.len());
    }
    from..bytes.len()
}
