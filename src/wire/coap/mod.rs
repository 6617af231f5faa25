//! CoAP (RFC 7252, RFC 7641) and what Wilddog's C SDK says in it.
//!
//! Datagrams are read where they lie: options and payloads are slices of what arrived. The surprising
//! idea: one dialect serves two kinds of clients. Those of the SDK name their session in each request
//! and speak CBOR; plain ones (`coap-client`, any library) name none, and speak JSON unless they ask
//! for CBOR. (Wilddog wire specification for devices, sections 2, 3 and 9.)
//!
//! Costs: one pass over the options to check them, one to understand them; nothing is allocated but
//! the path of a request.

mod call;
pub mod cbor;
mod message;
mod names;
mod reply;

pub use call::{Call, Data, Form, Method, What};
pub use message::{Code, Kind, Malformed, Message, MessageId, Options, Token, Writer, option};
pub use names::{Name, Pass, Secret};
pub use reply::{refused, sequence};

/// Bytes of one datagram that the server sends at most: the SDK's builds with DTLS lose what is
/// longer.
pub const DATAGRAM_BYTES_MAX: usize = 1_250;

#[cfg(test)]
mod tests;
