//! TLS on the port that serves everything else: a [`Net`] around the ring's.
//!
//! The first byte of a connection tells: 22 begins a TLS handshake (RFC 8446 section 5.1) and no request
//! of HTTP. Whatever comes behind it is opened here before the engine sees it, and what the engine
//! writes is sealed here before the ring sends it; a plain connection pays for one look into a table.
//!
//! The surprising idea: nothing here has a queue of its own. What arrives is opened as far as it goes,
//! what leaves is sealed once a turn, so the ring's backlog and the engine's limits hold as they do
//! without TLS. The exception are handshakes, which cost as much as thousands of messages: a turn does
//! [`HANDSHAKES_PER_TURN`], the others wait with what they have sent.
//!
//! Costs: 16 bytes a connection where TLS is configured; a TLS connection holds some 10 kB of rustls's.
//! A handshake is a signature: 0.1 to 1 ms.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::ops::Range;
use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection};
use smallvec::SmallVec;

use super::dtls::{Dtls, DtlsKeys};
use super::net::Net;
use super::ring::{RingNet, Taken};
use crate::base::{ConnId, Instant, Millis};
use crate::engine::{Hangup, Input, Peer};

/// The content type of a handshake record (RFC 8446 section 5.1).
const HANDSHAKE_RECORD: u8 = 22;
/// Steps of handshakes in one turn: the others get their turn, and the established ones theirs.
const HANDSHAKES_PER_TURN: usize = 8;
/// What connections that wait for a step of their handshake may have sent, all together. Beyond it,
/// nobody is read until they had their turn.
const WAITING_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Room for sealed bytes that is kept from turn to turn.
const SEALED_BYTES_KEPT: usize = 1024 * 1024;
/// How long a failed handshake keeps others out of the log.
const FAILURE_SILENCE: Millis = Millis(10_000);

/// What is known about a connection.
enum Door {
    /// Nothing has come yet.
    Unknown,
    /// It speaks in the clear.
    Plain,
    /// It speaks TLS.
    Tls(Box<Session>),
}

/// A connection that speaks TLS.
struct Session {
    tls: ServerConnection,
    /// What the engine has written in this turn.
    noted: SmallVec<[Range<usize>; 4]>,
    /// Whether it is in `TlsNet::dirty`.
    is_dirty: bool,
    /// What came while its handshake has to wait; not empty exactly while it waits.
    waiting: Vec<u8>,
    /// Whether the engine wants to be spared its bytes.
    is_unwanted: bool,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    /// We close it: what was noted is sent, and a farewell.
    Closing,
    /// The peer has finished; what was noted is sent, and a farewell.
    Gone,
    /// What comes and what is to be sent is of no interest any more.
    Over,
}

impl Session {
    fn new(config: &Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        Ok(Self {
            tls: ServerConnection::new(Arc::clone(config))?,
            noted: SmallVec::new(),
            is_dirty: false,
            waiting: Vec::new(),
            is_unwanted: false,
            stage: Stage::Open,
        })
    }

    /// Opens what has arrived, appending it to `plain`.
    fn open(&mut self, mut arrived: &[u8], plain: &mut Vec<u8>) -> Result<(), String> {
        while !arrived.is_empty() {
            // It takes nothing once the peer has said farewell.
            if self.tls.read_tls(&mut arrived).map_err(|error| error.to_string())? == 0 {
                return Ok(());
            }
            let state = self.tls.process_new_packets().map_err(|error| error.to_string())?;
            let start = plain.len();
            plain.resize(start + state.plaintext_bytes_to_read(), 0);
            self.tls.reader().read_exact(&mut plain[start..]).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Seals what was noted of `bytes`, and whatever else TLS has to say, appending it to `sealed`.
    fn seal(&mut self, bytes: &[u8], sealed: &mut Vec<u8>) {
        for range in std::mem::take(&mut self.noted) {
            let mut rest = &bytes[range];
            while !rest.is_empty() {
                // It takes what fits its buffer, which is emptied below. Before the end of a handshake
                // there is nothing to say but why it has taken too long.
                let Ok(count @ 1..) = self.tls.writer().write(rest) else { break };
                rest = &rest[count..];
                self.drain(sealed);
            }
        }
        if matches!(self.stage, Stage::Closing | Stage::Gone) {
            self.tls.send_close_notify();
        }
        self.drain(sealed);
    }

    fn drain(&mut self, sealed: &mut Vec<u8>) {
        while self.tls.wants_write() {
            self.tls.write_tls(sealed).expect("memory takes everything");
        }
    }
}

/// What became of bytes that have arrived.
enum Found {
    /// They are the engine's as they are.
    Plain,
    /// They begin a connection that speaks TLS.
    Encrypted,
    /// What was in them is in `TlsNet::plain`.
    Opened,
    /// Nothing for the engine.
    Nothing,
}

/// One core's connections, some of them encrypted.
pub(super) struct TlsNet {
    ring: RingNet,
    /// Without it every connection is plain.
    config: Option<Arc<ServerConfig>>,
    /// By the connection's name. Empty without `config`.
    doors: Vec<Door>,
    /// What the last bytes had in them.
    plain: Vec<u8>,
    /// What a turn sends to those who speak TLS.
    sealed: Vec<u8>,
    /// Connections for which something is to be sealed. Each at most once.
    dirty: Vec<u32>,
    /// Connections whose handshakes wait, in their order.
    waiting: VecDeque<u32>,
    waiting_bytes: usize,
    /// How many steps of handshakes this turn still does.
    handshakes_left: usize,
    is_held: bool,
    now: Instant,
    complaints: Complaints,
    /// Datagrams of the engine's that are to be sealed.
    noted: Vec<(Peer, Range<usize>)>,
    /// Datagrams that come sealed, if any may.
    dtls: Option<Dtls>,
}

/// Tells the log why clients were sent away: a certificate that nobody believes shows here.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    silent_until: Instant,
    unsaid: u64,
}

impl Complaints {
    /// One line, and then silence for a while.
    pub(super) fn tell(&mut self, now: Instant, what: &'static str, error: &str) {
        if now < self.silent_until {
            self.unsaid += 1;
            return;
        }
        self.silent_until = now + FAILURE_SILENCE;
        let unsaid = std::mem::take(&mut self.unsaid);
        tracing::warn!(error, unsaid, "{what}");
    }
}

impl TlsNet {
    /// A net around `ring`. Without `config` and `dtls` it adds nothing.
    pub(super) fn new(ring: RingNet, config: Option<Arc<ServerConfig>>, dtls: Option<Dtls>) -> Self {
        Self {
            ring,
            config,
            noted: Vec::new(),
            dtls,
            doors: Vec::new(),
            plain: Vec::new(),
            sealed: Vec::new(),
            dirty: Vec::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            handshakes_left: 0,
            is_held: false,
            now: Instant(0),
            complaints: Complaints::default(),
        }
    }

    fn session(&mut self, index: u32) -> Option<&mut Session> {
        match self.doors.get_mut(index as usize) {
            Some(Door::Tls(session)) => Some(session),
            _ => None,
        }
    }

    /// Keeps the doors in step with what the ring tells.
    fn note_news(&mut self, news: &Input<'_>) {
        if self.config.is_none() {
            return;
        }
        match *news {
            Input::Opened { conn, .. } => {
                let index = conn.0 as usize;
                if self.doors.len() <= index {
                    self.doors.resize_with(index + 1, || Door::Unknown);
                }
                self.doors[index] = Door::Unknown;
            }
            Input::Closed { conn, how } => {
                let Some(session) = self.session(conn.0) else { return };
                let waiting_bytes = std::mem::take(&mut session.waiting).len();
                if how == Hangup::Finished {
                    session.stage = Stage::Gone;
                    self.mark_dirty(conn.0);
                } else {
                    // There is nobody left to be told; and the name may soon be another's.
                    self.doors[conn.0 as usize] = Door::Unknown;
                }
                self.waiting_bytes -= waiting_bytes;
            }
            _ => {}
        }
    }

    /// Looks at what has arrived from a connection.
    fn look(&mut self, index: u32, count: usize) -> Found {
        let Some(config) = &self.config else { return Found::Plain };
        let door = &mut self.doors[index as usize];
        let is_new = matches!(door, Door::Unknown);
        if is_new {
            if self.ring.buffer()[0] != HANDSHAKE_RECORD {
                *door = Door::Plain;
                return Found::Plain;
            }
            match Session::new(config) {
                Ok(session) => *door = Door::Tls(Box::new(session)),
                Err(error) => {
                    *door = Door::Plain;
                    self.ring.close(ConnId(index));
                    self.tell_failure(&error.to_string());
                    return Found::Nothing;
                }
            }
        }
        let Door::Tls(session) = door else { return Found::Plain };
        if session.stage != Stage::Open {
            return Found::Nothing;
        }
        if session.tls.is_handshaking() {
            if self.handshakes_left == 0 || !session.waiting.is_empty() {
                if session.waiting.is_empty() {
                    self.waiting.push_back(index);
                }
                session.waiting.extend_from_slice(&self.ring.buffer()[..count]);
                self.waiting_bytes += count;
                self.ring.read(ConnId(index), false);
                return if is_new { Found::Encrypted } else { Found::Nothing };
            }
            self.handshakes_left -= 1;
        }
        self.plain.clear();
        let opened = session.open(&self.ring.buffer()[..count], &mut self.plain);
        match self.conclude(index, opened) {
            Found::Nothing if is_new => Found::Encrypted,
            found => found,
        }
    }

    /// Goes on with a handshake that had to wait.
    fn resume(&mut self) -> Option<(u32, Found)> {
        if self.is_held || self.handshakes_left == 0 {
            return None;
        }
        let index = self.waiting.pop_front()?;
        let Some(Door::Tls(session)) = self.doors.get_mut(index as usize) else { return Some((index, Found::Nothing)) };
        let arrived = std::mem::take(&mut session.waiting);
        self.waiting_bytes -= arrived.len();
        if arrived.is_empty() || session.stage != Stage::Open {
            return Some((index, Found::Nothing));
        }
        self.handshakes_left -= 1;
        self.ring.read(ConnId(index), !session.is_unwanted);
        self.plain.clear();
        let opened = session.open(&arrived, &mut self.plain);
        Some((index, self.conclude(index, opened)))
    }

    /// What comes of an attempt to open what has arrived.
    fn conclude(&mut self, index: u32, opened: Result<(), String>) -> Found {
        let session = self.session(index).expect("its bytes were looked at");
        if opened.is_err() {
            session.stage = Stage::Closing;
        }
        if session.tls.wants_write() || opened.is_err() {
            self.mark_dirty(index);
        }
        if let Err(error) = opened {
            self.tell_failure(&error);
            return Found::Nothing;
        }
        if self.plain.is_empty() { Found::Nothing } else { Found::Opened }
    }

    fn mark_dirty(&mut self, index: u32) {
        let session = self.session(index).expect("only who speaks TLS has something sealed");
        if !session.is_dirty {
            session.is_dirty = true;
            self.dirty.push(index);
        }
    }

    fn tell_failure(&mut self, error: &str) {
        self.complaints.tell(self.now, "a TLS connection has failed", error);
    }

    /// The next datagram that was sealed.
    fn next_opened(&mut self) -> bool {
        self.dtls.as_mut().is_some_and(|dtls| dtls.advance(self.is_held))
    }

    /// Sends what was sealed.
    fn flush_dtls(&mut self, bytes: &[u8], is_allowed: bool) {
        let Some(dtls) = &mut self.dtls else { return };
        for (peer, range) in self.noted.drain(..) {
            dtls.seal(peer, &bytes[range]);
        }
        let (posted, sealed) = dtls.take_posted();
        for (peer, range) in &posted {
            self.ring.post_sealed(*peer, range.clone());
        }
        self.ring.flush_sealed_datagrams(&sealed, is_allowed);
        dtls.recycle(posted, sealed);
    }

    /// Seals what is to be sent to those who speak TLS, and hands it to the ring.
    fn flush_sealed(&mut self, bytes: &[u8], now: Instant, is_allowed: bool) {
        let mut sealed = std::mem::take(&mut self.sealed);
        for index in std::mem::take(&mut self.dirty) {
            let Some(session) = self.session(index) else { continue };
            session.is_dirty = false;
            let start = sealed.len();
            session.seal(bytes, &mut sealed);
            let stage = session.stage;
            let range = start..sealed.len();
            self.ring.send(ConnId(index), range);
            match stage {
                Stage::Closing => {
                    self.session(index).expect("it is here").stage = Stage::Over;
                    self.ring.close(ConnId(index));
                }
                Stage::Gone => self.doors[index as usize] = Door::Unknown,
                Stage::Open | Stage::Over => {}
            }
        }
        self.ring.flush_noted(&sealed, now, is_allowed);
        sealed.clear();
        sealed.shrink_to(SEALED_BYTES_KEPT);
        self.sealed = sealed;
    }
}

impl Net for TlsNet {
    fn gather(&mut self, now: Instant) {
        self.now = now;
        self.handshakes_left = HANDSHAKES_PER_TURN;
        self.ring.gather(now);
        if let Some(dtls) = &mut self.dtls {
            dtls.begin(now);
        }
    }

    fn next(&mut self) -> Option<Input<'_>> {
        loop {
            if let Some((index, found)) = self.resume() {
                if matches!(found, Found::Opened) {
                    return Some(Input::Bytes { conn: ConnId(index), bytes: &mut self.plain });
                }
                continue;
            }
            if self.waiting_bytes >= WAITING_BYTES_MAX {
                return self.next_news();
            }
            if self.next_opened() {
                let (peer, bytes) = self.dtls.as_ref().expect("it has one").current();
                return Some(Input::Datagram { peer, bytes });
            }
            match self.ring.take()? {
                Taken::News(news) => {
                    self.note_news(&news);
                    return Some(news);
                }
                Taken::Datagram => return Some(self.ring.datagram()),
                Taken::Sealed => {
                    let (peer, bytes) = self.ring.sealed();
                    self.dtls.as_mut().expect("there is such a socket only with it").arrive(peer, bytes);
                }
                Taken::Bytes { conn, count } => match self.look(conn.0, count) {
                    Found::Plain => return Some(Input::Bytes { conn, bytes: &mut self.ring.buffer()[..count] }),
                    Found::Opened => return Some(Input::Bytes { conn, bytes: &mut self.plain }),
                    Found::Encrypted => return Some(Input::Encrypted { conn }),
                    Found::Nothing => {}
                },
            }
        }
    }

    fn next_news(&mut self) -> Option<Input<'static>> {
        let news = self.ring.next_news()?;
        self.note_news(&news);
        Some(news)
    }

    fn send(&mut self, conn: ConnId, bytes: Range<usize>) {
        match self.session(conn.0) {
            None => self.ring.send(conn, bytes),
            // What was asked before a farewell is answered after it.
            Some(session) if matches!(session.stage, Stage::Open | Stage::Gone) => {
                session.noted.push(bytes);
                self.mark_dirty(conn.0);
            }
            Some(_) => {}
        }
    }

    fn post(&mut self, peer: Peer, bytes: Range<usize>) {
        if peer.sealed_at.is_some() {
            self.noted.push((peer, bytes));
        } else {
            self.ring.post(peer, bytes);
        }
    }

    fn close(&mut self, conn: ConnId) {
        match self.session(conn.0) {
            None => self.ring.close(conn),
            Some(session) if session.stage == Stage::Open => {
                session.stage = Stage::Closing;
                self.mark_dirty(conn.0);
            }
            Some(_) => {}
        }
    }

    fn read(&mut self, conn: ConnId, is_wanted: bool) {
        if let Some(session) = self.session(conn.0) {
            session.is_unwanted = !is_wanted;
            if !session.waiting.is_empty() {
                return;
            }
        }
        self.ring.read(conn, is_wanted);
    }

    fn flush(&mut self, bytes: &[u8], now: Instant, is_allowed: bool) {
        self.ring.flush_datagrams(bytes, is_allowed);
        self.flush_dtls(bytes, is_allowed);
        self.ring.flush_noted(bytes, now, is_allowed);
        if !self.dirty.is_empty() {
            self.flush_sealed(bytes, now, is_allowed);
        }
        self.ring.flush_leaving(now);
    }

    fn tenant(&self, conn: ConnId) -> Option<u32> {
        Net::tenant(&self.ring, conn)
    }

    fn hold_reads(&mut self, is_held: bool) {
        self.is_held = is_held;
        self.ring.hold_reads(is_held);
    }

    fn stop_accepting(&mut self) {
        self.ring.stop_accepting();
    }

    fn certify(&mut self, config: Arc<ServerConfig>) {
        assert!(self.config.is_some(), "a server that began without a certificate gets none");
        self.config = Some(config);
    }

    fn certify_datagrams(&mut self, keys: &DtlsKeys) {
        self.dtls.as_mut().expect("a server that began without DTLS gets none").certify(keys);
    }

    fn has_work(&self) -> bool {
        // What was said by itself, beside the engine's answers, is flushed with the next turn at the latest.
        let is_sealed_due = self.dtls.as_ref().is_some_and(|dtls| dtls.has_work(self.is_held));
        is_sealed_due || !self.dirty.is_empty() || (!self.waiting.is_empty() && !self.is_held) || self.ring.has_work()
    }

    fn next_wake(&self) -> Option<Instant> {
        let dtls = self.dtls.as_ref().and_then(Dtls::next_wake);
        [self.ring.next_wake(), dtls].into_iter().flatten().min()
    }

    fn is_quiet(&mut self, until: Option<Instant>) -> bool {
        self.ring.is_quiet(until)
    }

    fn wake(&mut self) {
        self.ring.wake();
    }

    fn is_settled(&self) -> bool {
        self.dirty.is_empty() && self.ring.is_settled()
    }

    fn tidy(&mut self, is_busy: bool) {
        self.ring.tidy(is_busy);
    }
}

impl std::fmt::Debug for TlsNet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsNet").field("ring", &self.ring).finish_non_exhaustive()
    }
}
