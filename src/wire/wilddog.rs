//! The Wilddog Sync protocol of the JavaScript SDKs: what is inside of Engine.IO's messages
//! (Wilddog wire specification, sections 4 to 12).
//!
//! The surprising idea: inside of an envelope it is the Firebase protocol's older sister, so requests
//! are read by [`firebase`], and only what a server says differs: paths begin with a
//! slash, refusals have numbers, old queries have no exclusive bounds. Everything that is sent is
//! ASCII: then no transport can misread it.

pub mod account;
mod refusal;
mod write;

use super::firebase::{self, Incoming};
use super::http::Head;
use crate::json::{self, Item};

pub use refusal::{code, status, text};
pub use write::{EventText, Hello, hello, lookup, lookup_refused, shutdown, word};

/// The packet after the first: without it the oldest clients stay silent.
pub const CONNECTED: &[u8] = b"40";

/// Reads what an Engine.IO message carries. The text is destroyed.
pub fn decode(message: &mut [u8], reader: &mut json::Reader) -> Incoming {
    match message.split_first_mut() {
        Some((b'2', event)) => reader.read(event, read).unwrap_or(Incoming::Broken("not JSON")),
        // Packets of the layer between: connects, disconnects, acknowledgements of it.
        Some((b'0' | b'1' | b'3'..=b'6', _)) => Incoming::Unknown,
        _ => Incoming::Broken("a message of an unknown type"),
    }
}

fn read(event: Item<'_>) -> Incoming {
    let Item::Array(mut pieces) = event else { return Incoming::Broken("an event is an array") };
    match (pieces.next(), pieces.next()) {
        (Some(Item::Text("wd")), Some(message)) => firebase::read(message),
        (Some(Item::Text(name)), _) if name != "wd" => Incoming::Unknown,
        _ => Incoming::Broken("an event has a name, and a message"),
    }
}

/// What a client calls the server: it goes on only if the hello says the same, byte for byte. That is
/// the `Host` header, in lower case. HTTP drops the default port, but without TLS these clients write
/// it: they would take an address without a port for one with TLS. A proxy that ends TLS says so.
#[must_use]
pub fn host(head: &Head<'_>) -> String {
    let mut host = head.host().to_ascii_lowercase();
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    if !has_port && !head.is_https() {
        host.push_str(":80");
    }
    host
}

#[cfg(test)]
mod tests;
