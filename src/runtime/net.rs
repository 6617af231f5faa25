//! The seam between the loop and the way in which sockets are read.
//!
//! A [`Net`] owns one core's connections: it accepts them, names them, reads them, keeps what the kernel
//! does not take yet, and closes them. The loop asks it for [`Input`]s and gives it effects. It never
//! waits; the loop does, with the net's [`is_quiet`](Net::is_quiet) as the last look.

use std::ops::Range;
use std::sync::Arc;

use rustls::ServerConfig;

use super::dtls::DtlsKeys;
use crate::base::{ConnId, Instant};
use crate::engine::{Input, Peer};

/// One core's connections.
pub(super) trait Net {
    /// Begins a turn: sees what has happened since the last one. Must be called with all effects of the
    /// last turn performed, because names of closed connections are given away again here.
    fn gather(&mut self, now: Instant);

    /// The next thing that happened: `Opened`, `Encrypted`, `Bytes`, `Closed` or `Backlog`. `None` when that was all
    /// that fits into this turn.
    fn next(&mut self) -> Option<Input<'_>>;

    /// As [`next`](Self::next), but only what is known already: never `Bytes`.
    fn next_news(&mut self) -> Option<Input<'static>>;

    /// Notes that a range of the turn's bytes is for `conn`. It leaves with [`flush`](Self::flush).
    fn send(&mut self, conn: ConnId, bytes: Range<usize>);

    /// Notes that a range of the turn's bytes is a datagram for `peer`. It leaves with [`flush`](Self::flush), or
    /// is lost.
    fn post(&mut self, peer: Peer, bytes: Range<usize>);

    /// Closes `conn` once everything for it is sent, or cannot be. `Closed` follows.
    fn close(&mut self, conn: ConnId);

    /// Stops or goes on reading from `conn`.
    fn read(&mut self, conn: ConnId, is_wanted: bool);

    /// Sends what was noted, one call a connection; keeps what the kernel does not take. When
    /// `is_allowed` is false everything is kept. `bytes` is what the noted ranges point into.
    fn flush(&mut self, bytes: &[u8], now: Instant, is_allowed: bool);

    /// Who has a connection's name now: another number for each that ever has. `None`: nobody.
    fn tenant(&self, conn: ConnId) -> Option<u32>;

    /// While held, no connection is read.
    fn hold_reads(&mut self, is_held: bool);

    /// New connections that speak TLS are served with this from here on. A net without TLS takes no notice.
    fn certify(&mut self, _config: Arc<ServerConfig>) {}

    /// New peers that speak DTLS are served with this from here on. A net without DTLS takes no notice.
    fn certify_datagrams(&mut self, _keys: &DtlsKeys) {}

    /// Accepts no more.
    fn stop_accepting(&mut self);

    /// Whether something is left that [`next`](Self::next) would give in another turn.
    fn has_work(&self) -> bool;

    /// When to come back at the latest.
    fn next_wake(&self) -> Option<Instant>;

    /// The last look before a sleep until `until`: whether nothing has happened. From here on the core's
    /// bell rings when something does, and at `until`.
    fn is_quiet(&mut self, until: Option<Instant>) -> bool;

    /// After a sleep, or after one that did not come about.
    fn wake(&mut self);

    /// Whether everything is sent and every closed connection is gone.
    fn is_settled(&self) -> bool;

    /// The end of a turn: what can wait is done if nothing else is to be done, or has waited for long. `is_busy`:
    /// others than the net have something to do.
    fn tidy(&mut self, _is_busy: bool) {}
}
