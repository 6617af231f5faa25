//! What is refused, and by which name, when the disk or the memory is full.
//!
//! The surprising idea: the more somebody asks for, the earlier it is refused. New sessions and new data
//! first; then what those who are there leave and listen to; deletes, which make room, and what was left
//! before, never.

use super::home::Channel;
use super::{Durability, Engine, Room};
use crate::op::{Namespace, Refusal, Request, Write};

pub(super) const DISK_FULL: Refusal = Refusal::Limit("the disk is full, so the database is read-only");
const MEMORY_FULL: Refusal = Refusal::Limit(MEMORY_FULL_TEXT);
const MEMORY_FULL_TEXT: &str = "the server's memory is full, so it takes only deletes";

impl Engine {
    /// Why a request is refused, whatever it is about.
    pub(super) fn is_too_full(&self, namespace: &Namespace, request: &Request) -> Option<Refusal> {
        let is_written_down =
            matches!(request, Request::Write { .. } | Request::Exchange { .. } | Request::MayWrite { .. });
        if is_written_down && self.is_read_only(namespace) {
            return Some(DISK_FULL);
        }
        let is_refused = match request {
            Request::Write { write, .. } | Request::Exchange { write, .. } => {
                self.room != Room::Ample && !only_deletes(write)
            }
            Request::MayWrite { .. } | Request::Listen { .. } | Request::Profile => self.room == Room::None,
            Request::Get { .. } | Request::Unlisten { .. } | Request::Cancel { .. } => false,
        };
        is_refused.then_some(MEMORY_FULL)
    }

    /// Whether nothing new may be promised to a namespace because it could not be kept.
    pub(super) fn is_read_only(&self, namespace: &Namespace) -> bool {
        self.is_full && self.config.settings_of(namespace).durability != Durability::None
    }

    /// Whether a session may begin: a request without a socket may always, as it may be a delete.
    pub(super) fn lets_begin(&self, channel: &Channel) -> bool {
        !self.drain.is_on && (self.room == Room::Ample || matches!(channel, Channel::Rest(_)))
    }

    /// Why no session can begin, for people.
    pub(super) fn why_none_begins(&self) -> &'static str {
        if self.drain.is_on {
            "the server is stopping"
        } else if self.room == Room::Ample {
            "too many sessions"
        } else {
            MEMORY_FULL_TEXT
        }
    }

    /// Why a body that is so long already is not read to its end.
    pub(super) fn is_body_too_much(&self, bytes: usize) -> Option<&'static str> {
        (self.room != Room::Ample && bytes > SMALL_BODY_BYTES).then_some(MEMORY_FULL_TEXT)
    }
}

/// A body that is read although there is little memory: it may be a delete of many places.
const SMALL_BODY_BYTES: usize = 64 * 1024;

fn only_deletes(write: &Write) -> bool {
    match write {
        Write::Set { value, .. } => value.is_empty(),
        Write::SetPriority { .. } => false,
        Write::Merge { changes, .. } => changes.iter().all(|(_, value)| value.is_empty()),
    }
}
