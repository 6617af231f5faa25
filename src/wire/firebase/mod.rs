//! The Firebase Realtime Database protocol, version 5 (Firebase wire specification, sections 1 to 6).
//!
//! A message is one JSON object. [`frames`] joins and cuts what travels in WebSocket frames,
//! [`read`](self::read()) turns a client's message into the shared vocabulary, the writers append
//! what a server says, and [`client`] is the other side of all of it.
//!
//! The surprising idea: a malformed request is a value like any other. It carries the number by which
//! it can still be refused, because a client whose connection is closed over a bad write connects
//! again and sends the same write again.

pub mod client;
mod connect;
pub mod frames;
pub mod longpoll;
mod query;
mod read;
mod refusal;
mod write;

pub use connect::{BadNamespace, Connect, namespace};
pub use frames::Assembler;
pub(super) use query::Object;
pub use query::{read_query, write_query};
pub use read::{Action, Control, Incoming, decode, merge, read, read_merge, read_set};
pub use refusal::{status, text};
pub(super) use write::event_head;
pub use write::{
    EventText, Handshake, authenticated, credential_revoked, done, echoed, event, handshake, listening, outcome, pong,
    refused, reset, shutdown, unauthenticated, value, word,
};

#[cfg(test)]
mod tests;
