//! The REST API and streaming (Firebase wire specification, section 9; Wilddog specification, section
//! 17): heads to calls, bodies to requests, outcomes to responses, events to `text/event-stream`.
//!
//! The surprising idea: what is said of the answer (indented, as a script, compressed, only if new)
//! never reaches whoever makes it. It stays behind as a [`Style`], and the outcome of the request, in
//! the shared vocabulary, meets it again on the way out. Long answers go out in pieces ([`Sending`]).

mod body;
mod call;
mod console;
mod look;
mod push_id;
mod query;
mod reply;
mod sending;
mod stream;
mod tools;

pub use body::{BadBody, BodyReader};
pub use call::{Asked, Call, Get, Style, Verb, View, What, WriteCall};
pub use look::{TrialBody, read_trial, write_glance};
pub use push_id::PushIds;
pub use reply::{Answering, Content, Reply};
pub use sending::{PIECE_BYTES, Sending};
pub use stream::{StreamText, write_keep_alive, write_revoked_credential, write_stream_head};
pub use tools::{Lookup, Tool};

#[cfg(test)]
mod tests;
