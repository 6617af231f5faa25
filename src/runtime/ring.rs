//! Sockets by a ring of this core's own: readiness comes through io_uring, bytes by plain calls.
//!
//! One multishot accept, one poll a connection, `recv(2)` into one buffer that all connections share, one
//! `send(2)` a connection and turn, straight from what the engine wrote. The surprising idea: readiness
//! by poll and plain calls costs the same as receiving through the ring with provided buffers, and an
//! idle connection then owns no buffer at all.
//!
//! A connection's poll answers *once*: then the connection is read until the kernel has nothing left, or
//! its place in the `ready` queue is kept, and only then polled anew. A series of polls would spare that,
//! but has to be removed at the end, and the kernel searches what it has to remove in a table of 256
//! lists: among a million connections each end would cost a walk past some two thousand others. A poll
//! that answers once is gone when its connection is; one that still waits is answered by shutting the
//! socket down.
//!
//! When the process has no descriptors left for more connections, these go on the [shelf](super::shelf), and are
//! lent one whenever something is done with them. A request that was made with a lent descriptor has to be with the
//! kernel before that is given back: so it is kept until the ring is entered.
//!
//! To close a socket costs more than to receive from it. So the descriptors of connections that are gone are closed
//! when nothing else is to be done, after some milliseconds at the latest, or when somebody needs one: who waits to
//! be told something waits for no close of others.
//!
//! A completion carries the slot and the slot's generation. Those of an earlier tenant find nobody.
//!
//! Costs: [`Slot`] bytes of user memory an idle connection (32), about 256 bytes in the kernel for the
//! poll; one `recv` and one `send` an exchange, one `io_uring_enter` a turn.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering, fence};

use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue, types};
use smallvec::SmallVec;

use super::datagrams::Datagrams;
use super::mesh::Seat;
use super::net::Net;
use super::shelf::Shelf;
use super::socket;
use super::wake::Bell;
use crate::base::limits::CONNECTIONS_MAX;
use crate::base::{ConnId, Instant, Millis};
use crate::engine::{Hangup, Input, Peer};

/// Submissions that fit in the ring; more are submitted in between.
const SUBMISSIONS: u32 = 1_024;
/// Completions that fit; the kernel keeps what does not, but ends multishot requests then.
const COMPLETIONS: u32 = 8 * SUBMISSIONS;
/// The one receive buffer.
const SCRATCH_BYTES: usize = 64 * 1024;
/// What one connection may bring into a turn before the others have their turn.
const READ_BYTES_PER_CONNECTION: usize = 256 * 1024;
/// What all connections together may bring into a turn.
const READ_BYTES_PER_TURN: usize = 4 * 1024 * 1024;
/// Connections that are read in a turn.
const READS_PER_TURN: usize = 1_024;
/// Ranges that are given to the kernel in one call.
const PARTS_PER_CALL: usize = 64;
/// How long accepting rests when the process has no file descriptor left.
const ACCEPT_REST: Millis = Millis(100);
/// How long a core that has no descriptor waits before it asks the others again.
const CALL_REST: Millis = Millis(10);
/// How long a shortage of connections lasts before it is reported again.
const SHORTAGE_SILENCE: Millis = Millis(10_000);
/// How long a closed connection may take to send what was kept for it.
const CLOSING_MAX: Millis = Millis(5_000);
/// How long the peer of a closed connection may take to close it, too. Closing a socket that has
/// something unread resets it, and a reset may overtake our last bytes.
const LINGER_MAX: Millis = Millis(1_000);

/// Descriptors that one turn closes: a system call each, and a packet.
const CLOSED_PER_TURN: usize = 256;
/// How long the close of a descriptor may be put off while others have something to do.
const PUT_OFF_MAX: Millis = Millis(50);
/// Descriptors whose close is put off at a time, at most.
const PUT_OFF_COUNT_MAX: usize = if cfg!(test) { 8 } else { 8_192 };

const _: () = assert!(COMPLETIONS >= 4 * SUBMISSIONS, "a turn's accepts and polls must fit");
const _: () = assert!(size_of::<Slot>() <= 32, "there may be a million");

/// Connections that are put on the shelf at a time when descriptors have run out.
const SHELVED_AT_ONCE: usize = 64;
/// Descriptors that are lent at a time by one core, at most.
const LENT_MAX: usize = 1_024;
/// Descriptors that are left for what is accepted in one go and for what is lent, at most.
const FILES_SPARED_MAX: usize = 16_384;
/// With fewer descriptors than this, what the shelf needs is made at the start.
const FEW_FILES: usize = 65_536;
/// Connections that a process may have although it may not open as many files.
const BEYOND_FILES_MAX: usize = 1 << 20;

/// How often a core that had no descriptor has asked all cores for some. Not beside what changes with every
/// connection, as each turn looks at it.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Calls(AtomicUsize);

/// How many connections the process may have: shared by all its cores.
#[derive(Debug)]
pub(super) struct Room {
    used: AtomicUsize,
    max: usize,
    /// Connections that have a descriptor of their own.
    files_used: AtomicUsize,
    /// How many of them there should be, at most; `None` where there is no shelf for the others.
    files_max: Option<usize>,
    /// Descriptors that each core may lend at a time.
    lent_max: usize,
    calls: Calls,
    /// Whom it asks.
    seats: Arc<[Seat]>,
}

impl Room {
    /// Room for `max` connections, each with a descriptor of its own.
    #[must_use]
    pub(super) fn new(max: usize) -> Self {
        Self {
            used: AtomicUsize::new(0),
            max,
            files_used: AtomicUsize::new(0),
            files_max: None,
            lent_max: 0,
            calls: Calls::default(),
            seats: Arc::default(),
        }
    }

    /// Room for `max` connections on the cores of `seats`, where clients may take `files` descriptors. Those beyond
    /// are shelved.
    #[must_use]
    pub(super) fn with_shelf(max: usize, files: usize, seats: Arc<[Seat]>) -> Self {
        let spared = (files / 4).min(FILES_SPARED_MAX);
        Self {
            max: max.min(files.max(BEYOND_FILES_MAX)),
            files_max: Some(files - spared),
            lent_max: (spared / 2 / seats.len()).clamp(1, LENT_MAX),
            seats,
            ..Self::new(max)
        }
    }

    /// Says whether a connection may keep its descriptor.
    fn take_file(&self) -> bool {
        let is_free = self.files_used.fetch_add(1, Ordering::Relaxed) < self.files_max.unwrap_or(usize::MAX);
        if !is_free {
            self.give_back_files(1);
        }
        is_free
    }

    fn give_back_files(&self, count: usize) {
        self.files_used.fetch_sub(count, Ordering::Relaxed);
    }

    /// Whether the shelf will soon be needed.
    fn is_filling(&self) -> bool {
        self.files_max.is_some_and(|max| self.files_used.load(Ordering::Relaxed) >= max / 2)
    }

    /// Asks all cores to put some connections on the shelf: whoever sleeps holds descriptors that it does not use.
    fn call(&self) {
        self.calls.0.fetch_add(1, Ordering::Relaxed);
        self.seats.iter().for_each(|seat| seat.bell.ring());
    }

    fn calls(&self) -> usize {
        self.calls.0.load(Ordering::Relaxed)
    }

    fn take(&self) -> bool {
        let is_free = self.used.fetch_add(1, Ordering::Relaxed) < self.max;
        if !is_free {
            self.give_back(1);
        }
        is_free
    }

    fn give_back(&self, count: usize) {
        self.used.fetch_sub(count, Ordering::Relaxed);
    }
}

/// What a completion is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Accept = 1,
    Readable = 2,
    Writable = 3,
    Timer = 4,
    Datagrams = 6,
    SealedDatagrams = 7,
    /// Nobody waits for it.
    Farewell = 5,
}

/// A request's name: kind (4 bits), generation of the slot (28 bits), slot (32 bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Token {
    kind: Kind,
    generation: u32,
    index: u32,
}

impl Token {
    const GENERATION_MASK: u32 = (1 << 28) - 1;

    const fn alone(kind: Kind) -> Self {
        Self { kind, generation: 0, index: 0 }
    }

    fn pack(self) -> u64 {
        (self.kind as u64) << 60 | u64::from(self.generation) << 32 | u64::from(self.index)
    }

    #[expect(clippy::cast_possible_truncation, reason = "the low 32 bits are the index")]
    fn unpack(name: u64) -> Self {
        let kind = match name >> 60 {
            1 => Kind::Accept,
            2 => Kind::Readable,
            3 => Kind::Writable,
            4 => Kind::Timer,
            6 => Kind::Datagrams,
            7 => Kind::SealedDatagrams,
            _ => Kind::Farewell,
        };
        Self { kind, generation: (name >> 32) as u32 & Self::GENERATION_MASK, index: name as u32 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nobody's.
    Free,
    /// The engine's.
    Open,
    /// The peer has finished, the engine knows; what it had written before is still to be sent.
    Parting,
    /// The engine wants it closed; what it had written is still to be sent.
    Closing,
    /// Everything is sent and the peer was told; now it may close, too.
    Lingering,
}

/// `Slot::dirty` of a connection for which nothing was noted.
const CLEAN: u32 = u32::MAX;

/// A connection.
struct Slot {
    /// There unless the slot is free, or its connection is on the shelf and has not been lent one.
    socket: Option<OwnedFd>,
    /// Of the present tenant, or of the next.
    generation: u32,
    /// Where in `RingNet::dirty` its noted ranges begin, or [`CLEAN`].
    dirty: u32,
    phase: Phase,
    /// Whether it is in `RingNet::ready`. Outlives the tenant, as the entry does.
    is_queued: bool,
    /// Whether it is in `RingNet::owed`. Outlives the tenant, as the entry does.
    is_owed: bool,
    /// Whether the kernel may have something that we have not read.
    is_readable: bool,
    /// Whether the kernel tells us, once, when it has something to be read. So it is whenever the
    /// connection would be read and `is_readable` is not set.
    is_armed: bool,
    /// Whether the end of the stream is near: then a short read is no sign that nothing is left.
    is_hung_up: bool,
    /// Whether sending has failed: what had arrived is still read, nothing more is sent.
    is_broken: bool,
    /// Whether that was because nothing was acknowledged for too long.
    is_unanswered: bool,
    /// Whether the engine wants to be spared its bytes.
    is_unwanted: bool,
    /// Whether the kernel tells us whenever it takes bytes again.
    is_write_armed: bool,
    /// What the kernel did not take. Never empty.
    unsent: Option<Box<Unsent>>,
}

impl Slot {
    /// Whether it has something for an engine that does not want it.
    const fn is_unread(&self) -> bool {
        matches!(self.phase, Phase::Open) && self.is_unwanted && self.is_readable
    }

    fn unsent_bytes(&self) -> usize {
        self.unsent.as_ref().map_or(0, |unsent| unsent.rest().len())
    }
}

/// A descriptor that is to be closed.
struct PutOff {
    socket: OwnedFd,
    /// Whether a poll keeps the connection alive in the kernel, even without its descriptor.
    is_armed: bool,
    /// When it is closed at the latest.
    until: Instant,
}

/// Bytes that wait for the kernel.
#[derive(Default)]
struct Unsent {
    bytes: Vec<u8>,
    sent: usize,
}

impl Unsent {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    fn advance(&mut self, count: usize) {
        self.sent += count;
        // Each byte is moved at most once for each time that as many have left.
        if self.sent >= self.bytes.len() / 2 {
            self.bytes.drain(..self.sent);
            self.sent = 0;
            self.bytes.shrink_to(2 * self.bytes.len());
        }
    }
}

/// The ranges that were noted for a connection: a list through `RingNet::parts`.
struct Dirty {
    index: u32,
    first: u32,
    last: u32,
}

struct Part {
    bytes: Range<usize>,
    next: u32,
}

enum News {
    Opened { conn: ConnId, peer: SocketAddr },
    Closed { conn: ConnId, how: Hangup },
    Backlog { conn: ConnId, bytes: usize },
}

impl From<News> for Input<'static> {
    fn from(news: News) -> Self {
        match news {
            News::Opened { conn, peer } => Self::Opened { conn, peer },
            News::Closed { conn, how } => Self::Closed { conn, how },
            News::Backlog { conn, bytes } => Self::Backlog { conn, bytes },
        }
    }
}

/// What is left of a turn's share of reading.
#[derive(Default)]
struct Share {
    connections: usize,
    bytes: usize,
    /// Which connection is being read, and how much it has brought.
    current: Option<(u32, usize)>,
}

/// One core's connections, by a ring.
pub(super) struct RingNet {
    ring: IoUring,
    completions: Vec<(u64, i32, u32)>,
    listener: Option<OwnedFd>,
    /// Peers without a connection.
    datagrams: Option<Datagrams>,
    /// Likewise, by DTLS.
    sealed: Option<Datagrams>,
    accept_again: Option<Instant>,
    /// Until when a shortage of connections is not worth another line in the log.
    shortage_told_until: Instant,
    room: Arc<Room>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Those without a descriptor of their own.
    shelf: Shelf,
    /// Connections with a descriptor that was lent; some have gone since.
    lent: Vec<u32>,
    /// Descriptors of connections that are gone, which requests may name.
    buried: Vec<OwnedFd>,
    /// Descriptors of connections that are gone, to be closed when nothing else is to be done.
    put_off: VecDeque<PutOff>,
    /// Whether a descriptor could not be lent: what needs it is tried again.
    is_short: bool,
    /// Until when others are not asked for descriptors again.
    called_until: Instant,
    /// Of the [`Room`]'s calls, how many were answered.
    calls_answered: usize,
    /// Where the search for connections that can be shelved goes on.
    hand: usize,
    scratch: Box<[u8]>,
    news: VecDeque<News>,
    /// Connections to be read. Each at most once.
    ready: VecDeque<u32>,
    share: Share,
    is_held: bool,
    dirty: Vec<Dirty>,
    parts: Vec<Part>,
    /// Connections whose unsent bytes may be tried. Each at most once.
    owed: Vec<u32>,
    /// Connections that were closed in this turn.
    leaving: Vec<u32>,
    /// Connections in the phases Parting and Closing with unsent bytes, and when patience ends.
    closing: VecDeque<(Instant, Token)>,
    /// Connections in the phase Lingering, and when patience ends.
    lingering: VecDeque<(Instant, Token)>,
    /// Connections that have unsent bytes or are neither free nor open.
    unsettled_count: usize,
    /// For when the ring's timer is set.
    timer: Option<Instant>,
    /// When this turn began.
    now: Instant,
}

impl RingNet {
    /// A net that accepts from `listener` and rings `bell`. Must be called in the thread that will use
    /// it: the ring takes submissions from no other.
    ///
    /// # Errors
    /// The kernel's, in particular `ENOSYS` and `EPERM` where io_uring is not available.
    pub(super) fn new(
        listener: OwnedFd,
        datagrams: (Option<OwnedFd>, Option<OwnedFd>),
        bell: &Bell,
        room: Arc<Room>,
    ) -> io::Result<Self> {
        let ring = build_ring(SUBMISSIONS, COMPLETIONS)?;
        ring.submitter().register_eventfd(bell.as_raw_fd())?;
        let mut net = Self {
            ring,
            completions: Vec::new(),
            listener: Some(listener),
            datagrams: datagrams.0.map(Datagrams::new),
            sealed: datagrams.1.map(Datagrams::new),
            accept_again: None,
            shortage_told_until: Instant(0),
            shelf: Shelf::new(room.files_max.unwrap_or(usize::MAX)),
            lent: Vec::new(),
            buried: Vec::new(),
            put_off: VecDeque::new(),
            now: Instant(0),
            is_short: false,
            called_until: Instant(0),
            calls_answered: 0,
            hand: 0,
            room,
            slots: Vec::new(),
            free: Vec::new(),
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            news: VecDeque::new(),
            ready: VecDeque::new(),
            share: Share::default(),
            is_held: false,
            dirty: Vec::new(),
            parts: Vec::new(),
            owed: Vec::new(),
            leaving: Vec::new(),
            closing: VecDeque::new(),
            lingering: VecDeque::new(),
            unsettled_count: 0,
            timer: None,
        };
        net.ring.completion().disable_eventfd();
        // A crowd may take all descriptors before one of it is seen.
        if net.room.files_max.is_some_and(|max| max < FEW_FILES) {
            net.shelf.grow()?;
            net.shelf.save();
        }
        net.arm_accept();
        net.arm_datagrams();
        net.arm_sealed_datagrams();
        Ok(net)
    }
}

/// Whether this kernel lets this process have such rings as we need.
///
/// # Errors
/// With a message that says what is missing and what to do.
pub(super) fn check_available() -> io::Result<()> {
    build_ring(8, 64).map(drop).map_err(|error| {
        let advice = match error.raw_os_error() {
            Some(libc::ENOSYS) => "this kernel has no io_uring; Linux 6.1 or later is needed",
            Some(libc::EPERM | libc::EACCES) => {
                "io_uring is forbidden here; set the sysctl kernel.io_uring_disabled to 0, and in a container \
                 allow io_uring_setup, io_uring_enter and io_uring_register in its seccomp profile"
            }
            Some(libc::EINVAL) => "this kernel's io_uring is too old; Linux 6.1 or later is needed",
            Some(libc::ENOMEM) => "io_uring may not lock enough memory; raise `ulimit -l` (LimitMEMLOCK)",
            _ => "io_uring cannot be set up",
        };
        io::Error::new(error.kind(), format!("{advice} ({error})"))
    })
}

fn build_ring(submissions: u32, completions: u32) -> io::Result<IoUring> {
    IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_cqsize(completions)
        .build(submissions)
}

impl Net for RingNet {
    fn gather(&mut self, now: Instant) {
        self.now = now;
        self.submit();
        self.tend_shelf(now);
        self.collect();
        let mut completions = std::mem::take(&mut self.completions);
        for (name, result, flags) in completions.drain(..) {
            self.completed(Token::unpack(name), result, cqueue::more(flags), now);
        }
        // What handling them brought up meanwhile waits for the next turn.
        completions.append(&mut self.completions);
        self.completions = completions;
        self.expire(now);
        for datagrams in self.datagrams.iter_mut().chain(&mut self.sealed) {
            datagrams.begin();
        }
        self.share =
            Share { connections: self.ready.len().min(READS_PER_TURN), bytes: READ_BYTES_PER_TURN, current: None };
    }

    fn next(&mut self) -> Option<Input<'_>> {
        Some(match self.take()? {
            Taken::News(news) => news,
            Taken::Bytes { conn, count } => Input::Bytes { conn, bytes: &mut self.scratch[..count] },
            Taken::Datagram => self.datagram(),
            Taken::Sealed => {
                let (peer, bytes) = self.sealed();
                Input::Datagram { peer, bytes }
            }
        })
    }

    fn next_news(&mut self) -> Option<Input<'static>> {
        self.news.pop_front().map(Input::from)
    }

    fn send(&mut self, conn: ConnId, bytes: Range<usize>) {
        let index = conn.0;
        let Some(slot) = self.slots.get_mut(index as usize) else { return };
        if bytes.is_empty() || slot.is_broken || !matches!(slot.phase, Phase::Open | Phase::Parting) {
            return;
        }
        let part = u32::try_from(self.parts.len()).expect("a turn has fewer effects");
        if slot.dirty == CLEAN {
            slot.dirty = u32::try_from(self.dirty.len()).expect("a turn has fewer effects");
            self.dirty.push(Dirty { index, first: part, last: part });
        } else {
            let dirty = &mut self.dirty[slot.dirty as usize];
            let last = &mut self.parts[dirty.last as usize];
            if last.bytes.end == bytes.start {
                last.bytes.end = bytes.end;
                return;
            }
            last.next = part;
            dirty.last = part;
        }
        self.parts.push(Part { bytes, next: CLEAN });
    }

    fn post(&mut self, peer: Peer, bytes: Range<usize>) {
        if let Some(datagrams) = &mut self.datagrams {
            datagrams.note(peer, bytes);
        }
    }

    fn close(&mut self, conn: ConnId) {
        let Some(slot) = self.slots.get_mut(conn.0 as usize) else { return };
        if slot.phase == Phase::Open {
            if slot.unsent.is_none() {
                self.unsettled_count += 1;
            }
            slot.phase = Phase::Closing;
            self.leaving.push(conn.0);
        }
    }

    fn read(&mut self, conn: ConnId, is_wanted: bool) {
        let Some(slot) = self.slots.get_mut(conn.0 as usize) else { return };
        if slot.phase != Phase::Open {
            return;
        }
        slot.is_unwanted = !is_wanted;
        if is_wanted && slot.is_readable {
            self.enqueue(conn.0);
        } else if slot.is_broken {
            self.break_off(conn.0);
        } else if slot.is_unread() {
            self.watch(conn.0);
        }
    }

    fn flush(&mut self, bytes: &[u8], now: Instant, is_allowed: bool) {
        self.flush_datagrams(bytes, is_allowed);
        self.flush_noted(bytes, now, is_allowed);
        self.flush_leaving(now);
    }

    fn tenant(&self, conn: ConnId) -> Option<u32> {
        let slot = self.slots.get(conn.0 as usize)?;
        (slot.phase != Phase::Free).then_some(slot.generation)
    }

    fn hold_reads(&mut self, is_held: bool) {
        self.is_held = is_held;
    }

    fn stop_accepting(&mut self) {
        if self.listener.take().is_some() {
            self.accept_again = None;
            let cancel = opcode::AsyncCancel::new(Token::alone(Kind::Accept).pack()).build();
            self.push(&cancel.user_data(Token::alone(Kind::Farewell).pack()));
        }
    }

    fn has_work(&self) -> bool {
        let mut sockets = self.datagrams.iter().chain(&self.sealed);
        let is_posted = sockets.any(|datagrams| datagrams.has_work(self.is_held));
        is_posted || self.is_short || !self.put_off.is_empty() || self.has_inputs()
    }

    fn next_wake(&self) -> Option<Instant> {
        let queues = [self.closing.front(), self.lingering.front()];
        queues.into_iter().flatten().map(|&(due, _)| due).chain(self.accept_again).min()
    }

    fn is_quiet(&mut self, until: Option<Instant>) -> bool {
        self.set_timer(until);
        self.ring.completion().enable_eventfd();
        // Either the kernel sees that we want to be rung, or this look finds what it has.
        fence(Ordering::SeqCst);
        self.enter(EnterFlags::GETEVENTS);
        self.take_back();
        // The kernel finishes only some of what it has put off at each call, perhaps without an answer for us
        // among them; and it rings for what comes new, not for what still waits.
        let has_put_off = self.ring.submission().taskrun();
        let is_called = self.calls_answered != self.room.calls();
        self.completions.is_empty() && self.ring.completion().is_empty() && !has_put_off && !is_called
    }

    fn wake(&mut self) {
        self.ring.completion().disable_eventfd();
    }

    fn is_settled(&self) -> bool {
        self.unsettled_count == 0 && self.put_off.is_empty()
    }

    fn tidy(&mut self, is_busy: bool) {
        let is_calm = !is_busy && !self.has_inputs();
        for _ in 0..CLOSED_PER_TURN {
            let Some(first) = self.put_off.front() else { return };
            let is_due = first.until <= self.now || self.put_off.len() > PUT_OFF_COUNT_MAX;
            if !is_due && (!is_calm || self.has_heard()) {
                return;
            }
            self.close_first();
        }
    }
}

/// What [`RingNet::take`] brings.
pub(super) enum Taken {
    /// Anything but bytes.
    News(Input<'static>),
    /// So many bytes stand in the [buffer](RingNet::buffer).
    Bytes {
        /// From whom.
        conn: ConnId,
        /// How many, at least one.
        count: usize,
    },
    /// A [datagram](RingNet::datagram).
    Datagram,
    /// A [datagram](RingNet::sealed) that is to be opened.
    Sealed,
}

/// The two halves of [`Net::next`] and of [`Net::flush`], for who has something to do between them.
impl RingNet {
    /// As [`Net::next`], but bytes are left in the buffer.
    pub(super) fn take(&mut self) -> Option<Taken> {
        loop {
            if let Some(news) = self.next_news() {
                return Some(Taken::News(news));
            }
            if self.datagrams.as_mut().is_some_and(|datagrams| datagrams.advance(self.is_held)) {
                return Some(Taken::Datagram);
            }
            if self.sealed.as_mut().is_some_and(|datagrams| datagrams.advance(self.is_held)) {
                return Some(Taken::Sealed);
            }
            let index = self.pick()?;
            let conn = ConnId(index);
            match self.receive(index) {
                Received::Bytes(count) => return Some(Taken::Bytes { conn, count }),
                Received::Closed(how) => return Some(Taken::News(Input::Closed { conn, how })),
                Received::Nothing => {}
            }
        }
    }

    /// The datagram that was taken last.
    pub(super) fn datagram(&self) -> Input<'_> {
        let (peer, bytes) = self.datagrams.as_ref().expect("one was taken").current();
        Input::Datagram { peer, bytes }
    }

    /// The datagram that was taken last, if it was a sealed one.
    pub(super) fn sealed(&self) -> (Peer, &[u8]) {
        self.sealed.as_ref().expect("one was taken").current()
    }

    /// Notes a datagram that was sealed.
    pub(super) fn post_sealed(&mut self, peer: Peer, bytes: Range<usize>) {
        if let Some(datagrams) = &mut self.sealed {
            datagrams.note(peer, bytes);
        }
    }

    /// Sends the sealed datagrams that were noted until now.
    pub(super) fn flush_sealed_datagrams(&mut self, bytes: &[u8], is_allowed: bool) {
        if let Some(datagrams) = &mut self.sealed {
            datagrams.flush(bytes, is_allowed);
        }
    }

    /// Sends the datagrams that were noted until now.
    pub(super) fn flush_datagrams(&mut self, bytes: &[u8], is_allowed: bool) {
        if let Some(datagrams) = &mut self.datagrams {
            datagrams.flush(bytes, is_allowed);
        }
    }

    /// What was received last. Written over by the next [`take`](Self::take).
    pub(super) fn buffer(&mut self) -> &mut [u8] {
        &mut self.scratch
    }

    /// Sends what was noted until now, whose ranges point into `bytes`; keeps what the kernel does not take.
    pub(super) fn flush_noted(&mut self, bytes: &[u8], now: Instant, is_allowed: bool) {
        if is_allowed {
            for index in std::mem::take(&mut self.owed) {
                self.slots[index as usize].is_owed = false;
                self.send_unsent(index, now);
            }
        }
        let mut dirty = std::mem::take(&mut self.dirty);
        for dirty in dirty.drain(..) {
            self.slots[dirty.index as usize].dirty = CLEAN;
            self.send_noted(&dirty, bytes, is_allowed);
        }
        self.dirty = dirty;
        self.parts.clear();
    }

    /// Goes on with the ends of connections for which everything was noted.
    pub(super) fn flush_leaving(&mut self, now: Instant) {
        for index in std::mem::take(&mut self.leaving) {
            let slot = &self.slots[index as usize];
            if !matches!(slot.phase, Phase::Parting | Phase::Closing) {
                continue;
            }
            if slot.unsent.is_none() {
                self.all_sent(index, now);
            } else {
                let token = Token { kind: Kind::Farewell, generation: slot.generation, index };
                self.closing.push_back((now + CLOSING_MAX, token));
            }
        }
    }
}

/// What a look at one connection brought.
enum Received {
    /// So many bytes in the shared buffer.
    Bytes(usize),
    /// The engine must be told that it is gone.
    Closed(Hangup),
    /// Nothing for the engine.
    Nothing,
}

/// Completions.
impl RingNet {
    fn completed(&mut self, token: Token, result: i32, is_armed: bool, now: Instant) {
        match token.kind {
            Kind::Accept => self.accepted(result, is_armed, now),
            Kind::Readable => self.readable(token, result),
            Kind::Writable => self.writable(token, result, is_armed),
            // A timer that was moved answers once, when it fires; the answer to the move is a farewell.
            Kind::Timer => self.timer = None,
            Kind::Datagrams => {
                if let Some(datagrams) = &mut self.datagrams {
                    datagrams.is_readable = true;
                }
                if !is_armed {
                    self.arm_datagrams();
                }
            }
            Kind::SealedDatagrams => {
                if let Some(datagrams) = &mut self.sealed {
                    datagrams.is_readable = true;
                }
                if !is_armed {
                    self.arm_sealed_datagrams();
                }
            }
            Kind::Farewell => {}
        }
    }

    /// The slot that a completion is about, unless its tenant has gone.
    fn tenant(&mut self, token: Token) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(token.index as usize)?;
        (slot.generation == token.generation && slot.phase != Phase::Free).then_some(slot)
    }

    fn accepted(&mut self, result: i32, is_armed: bool, now: Instant) {
        if result >= 0 {
            // SAFETY: the kernel has just given us this descriptor, and us alone.
            let socket = unsafe { OwnedFd::from_raw_fd(result) };
            self.open(socket, now);
        }
        if is_armed || self.listener.is_none() {
            return;
        }
        match -result {
            // The peer has gone before we came; or the kernel ended the series for want of room in the ring.
            i32::MIN..=0 | libc::ECONNABORTED | libc::EINTR | libc::EPROTO => self.arm_accept(),
            libc::EMFILE if self.close_all() || self.shelve_some() || self.shelf.spare() => self.arm_accept(),
            error => {
                self.accept_again = Some(now + ACCEPT_REST);
                self.is_short |= error == libc::EMFILE && self.room.files_max.is_some();
                if self.may_tell_shortage(now) {
                    let error = io::Error::from_raw_os_error(error);
                    tracing::warn!(%error, "cannot accept connections; those that wait are tried again");
                }
            }
        }
    }

    fn may_tell_shortage(&mut self, now: Instant) -> bool {
        let may_tell = now >= self.shortage_told_until;
        if may_tell {
            self.shortage_told_until = now + SHORTAGE_SILENCE;
        }
        may_tell
    }

    /// A new connection. Refused by closing it when there is no room.
    fn open(&mut self, socket: OwnedFd, now: Instant) {
        if self.listener.is_none() {
            return;
        }
        let Ok(peer) = socket::peer_address(socket.as_fd()) else { return };
        let is_slot_left = !self.free.is_empty() || self.slots.len() < CONNECTIONS_MAX as usize;
        if !is_slot_left || !self.room.take() {
            if self.may_tell_shortage(now) {
                tracing::warn!(connections = self.room.max, "no room for more connections; new ones are closed");
            }
            return;
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                socket: None,
                generation: 0,
                dirty: CLEAN,
                phase: Phase::Free,
                is_queued: false,
                is_owed: false,
                is_readable: false,
                is_armed: false,
                is_hung_up: false,
                is_broken: false,
                is_unanswered: false,
                is_unwanted: false,
                is_write_armed: false,
                unsent: None,
            });
            u32::try_from(self.slots.len() - 1).expect("slots are below CONNECTIONS_MAX")
        });
        let has_file = self.room.take_file() || (self.close_all() && self.room.take_file());
        if !has_file && let Err(error) = self.lay_down(index, socket.as_fd()) {
            self.free.push(index);
            self.room.give_back(1);
            if self.may_tell_shortage(now) {
                tracing::warn!(%error, "a new connection is closed: there is neither a descriptor nor a place for it");
            }
            return;
        }
        if !has_file {
            self.lent.push(index);
        }
        let slot = &mut self.slots[index as usize];
        assert_eq!(slot.phase, Phase::Free, "a free slot has no tenant");
        slot.phase = Phase::Open;
        slot.socket = Some(socket);
        self.arm_readable(index);
        self.news.push_back(News::Opened { conn: ConnId(index), peer });
        if (self.room.is_filling() || !self.shelf.is_empty()) && self.shelf.is_low() {
            self.stock_up();
        }
    }

    fn readable(&mut self, token: Token, result: i32) {
        let index = token.index;
        let Some(slot) = self.tenant(token) else { return };
        slot.is_armed = false;
        let Ok(events) = i16::try_from(result) else {
            // Wider than poll's events: none that we asked for. Or the kernel is out of memory for the poll.
            return self.break_off(index);
        };
        if events < 0 {
            return self.break_off(index);
        }
        let is_dead = events & (libc::POLLERR | libc::POLLHUP) != 0;
        slot.is_readable = true;
        slot.is_hung_up |= is_dead || events & libc::POLLRDHUP != 0;
        let is_unread = slot.is_unread();
        if is_dead && (is_unread || matches!(slot.phase, Phase::Parting | Phase::Closing)) {
            // Nobody would find out by reading.
            return self.break_off(index);
        }
        if is_unread {
            self.watch(index);
        }
        self.enqueue(index);
    }

    fn writable(&mut self, token: Token, result: i32, is_armed: bool) {
        let index = token.index;
        let Some(slot) = self.tenant(token) else { return };
        // Negative is the answer to a poll that was removed. The kernel also tells that the peer has
        // finished sending, which is no room.
        let room = i32::from(libc::POLLOUT | libc::POLLERR | libc::POLLHUP);
        if !slot.is_write_armed || result < 0 {
            return;
        }
        if !is_armed {
            self.disarm_writable(index);
            self.arm_writable(index);
        }
        let is_dead = result & i32::from(libc::POLLERR | libc::POLLHUP) != 0;
        let slot = &mut self.slots[index as usize];
        slot.is_hung_up |= is_dead || result & i32::from(libc::POLLRDHUP) != 0;
        if is_dead && slot.is_unread() {
            return self.break_off(index);
        }
        if result & room != 0 {
            self.owe(index);
        }
    }

    /// Ends what has lasted too long, tries again what had to rest.
    fn expire(&mut self, now: Instant) {
        while let Some(&(due, token)) = self.closing.front()
            && due <= now
        {
            self.closing.pop_front();
            if self.tenant(token).is_some_and(|slot| matches!(slot.phase, Phase::Parting | Phase::Closing)) {
                self.break_off(token.index);
            }
        }
        while let Some(&(due, token)) = self.lingering.front()
            && due <= now
        {
            self.lingering.pop_front();
            if self.tenant(token).is_some_and(|slot| slot.phase == Phase::Lingering) {
                self.break_off(token.index);
            }
        }
        if self.accept_again.is_some_and(|due| due <= now) {
            self.accept_again = None;
            self.arm_accept();
        }
    }
}

/// The ends of connections that are gone for the engine and for their peers.
impl RingNet {
    /// Whether something of connections is to be handed over, or read.
    fn has_inputs(&self) -> bool {
        !self.news.is_empty() || !self.completions.is_empty() || (!self.ready.is_empty() && !self.is_held)
    }

    /// Whether the kernel has something for us that we have not seen.
    fn has_heard(&mut self) -> bool {
        self.ring.submission().taskrun() || !self.ring.completion().is_empty()
    }

    /// Has a descriptor closed when nothing else is to be done: whoever waits to be told something waits for no
    /// close of others.
    fn put_off(&mut self, socket: OwnedFd, is_armed: bool) {
        if self.room.files_max.is_none() {
            // Nobody counts descriptors there, and what else the process opens must not run out of them.
            self.room.give_back_files(1);
            return self.close_socket(socket, is_armed);
        }
        self.put_off.push_back(PutOff { socket, is_armed, until: self.now + PUT_OFF_MAX });
    }

    fn close_first(&mut self) {
        let Some(PutOff { socket, is_armed, .. }) = self.put_off.pop_front() else { return };
        self.room.give_back_files(1);
        self.close_socket(socket, is_armed);
    }

    fn close_socket(&mut self, socket: OwnedFd, is_armed: bool) {
        // A poll keeps the connection alive in the kernel, even without its descriptor.
        if is_armed {
            socket::shut_down(socket.as_fd());
        }
        self.bury(socket);
    }

    /// Closes what was put off, because somebody needs a descriptor. Says whether there was any.
    fn close_all(&mut self) -> bool {
        let has_any = !self.put_off.is_empty();
        while !self.put_off.is_empty() {
            self.close_first();
        }
        if !self.buried.is_empty() {
            self.submit();
        }
        has_any
    }
}

/// Connections without descriptors of their own.
impl RingNet {
    /// Makes sure that a connection has a descriptor. Fails only if none is left for one from the shelf; then what
    /// needs it has to be tried again in the next turn.
    fn fetch(&mut self, index: u32) -> bool {
        if self.slots[index as usize].socket.is_some() {
            return true;
        }
        self.make_way();
        let mut lent = self.shelf.lend(ConnId(index));
        if lent.is_err() {
            // Even if nobody can be shelved: what was lent to others has come back.
            self.close_all();
            self.shelve_some();
            lent = self.shelf.lend(ConnId(index));
        }
        let Ok(socket) = lent else {
            self.is_short = true;
            return false;
        };
        self.slots[index as usize].socket = Some(socket);
        self.lent.push(index);
        true
    }

    /// Puts a new connection on the shelf, whose own descriptor is now one that was lent.
    fn lay_down(&mut self, index: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.make_way();
        let conn = ConnId(index);
        self.shelf.put(conn, socket).or_else(|_| {
            // What was lent may be what a further table needs.
            self.submit();
            self.shelf.put(conn, socket)
        })
    }

    /// Takes back what was lent, if it is much, before more is.
    fn make_way(&mut self) {
        if self.lent.len() >= self.room.lent_max {
            self.submit();
        }
    }

    /// Gives everything that was asked for to the kernel, which then has the files that it needs.
    fn submit(&mut self) {
        self.enter(EnterFlags::empty());
        self.take_back();
    }

    /// Closes a descriptor that requests may still name: if its number were given away again before they have gone
    /// to the kernel, they would hold somebody else's socket.
    fn bury(&mut self, socket: OwnedFd) {
        // Nobody can be lent a number before the next look at the kernel, if nobody is there to be lent one.
        if self.shelf.is_empty() {
            return;
        }
        self.buried.push(socket);
        if self.buried.len() >= self.room.lent_max {
            self.submit();
        }
    }

    /// Closes what was lent, and what was buried. Only after everything that was asked for has gone to the kernel.
    fn take_back(&mut self) {
        if self.lent.is_empty() && self.buried.is_empty() {
            return;
        }
        self.buried.clear();
        assert!(self.ring.submission().is_empty(), "no request may find another file where it looks");
        for index in std::mem::take(&mut self.lent) {
            if self.shelf.holds(ConnId(index)) {
                self.slots[index as usize].socket = None;
            }
        }
        self.shelf.save();
    }

    /// Looks, at the beginning of a turn, whether descriptors are wanted: here or by others.
    fn tend_shelf(&mut self, now: Instant) {
        if self.room.files_max.is_none() {
            return;
        }
        self.shelf.save();
        if std::mem::take(&mut self.is_short) && now >= self.called_until {
            self.called_until = now + CALL_REST;
            self.room.call();
        }
        let calls = self.room.calls();
        if std::mem::replace(&mut self.calls_answered, calls) != calls {
            self.close_all();
            self.shelve_some();
        }
    }

    /// Makes room on the shelf, before there is no descriptor left for that. If it fails, it is tried with the next
    /// connection.
    fn stock_up(&mut self) {
        if self.shelf.grow().is_err() && self.shelve_some() {
            let _ready_or_later = self.shelf.grow();
        }
        self.shelf.save();
    }

    /// Puts some connections on the shelf that have descriptors, so that others get these. Says whether there were
    /// any.
    fn shelve_some(&mut self) -> bool {
        if self.room.files_max.is_none() {
            return false;
        }
        self.submit();
        let count_max = (self.slots.len() - self.free.len() - self.shelf.len()).min(SHELVED_AT_ONCE);
        let mut count = 0;
        for _ in 0..self.slots.len() {
            if count == count_max {
                break;
            }
            self.hand = (self.hand + 1) % self.slots.len();
            let slot = &mut self.slots[self.hand];
            let conn = ConnId(u32::try_from(self.hand).expect("slots are below CONNECTIONS_MAX"));
            let Some(socket) = slot.socket.as_ref().filter(|_| !self.shelf.holds(conn)) else { continue };
            if self.shelf.put(conn, socket.as_fd()).is_err() {
                break;
            }
            slot.socket = None;
            self.room.give_back_files(1);
            // Or what is accepted next takes them all, and there is none for the table that the next one needs.
            self.shelf.save();
            count += 1;
        }
        count > 0
    }
}

/// Reading.
impl RingNet {
    fn enqueue(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        if !slot.is_queued {
            slot.is_queued = true;
            self.ready.push_back(index);
        }
    }

    /// The connection to be read next, if this turn has a share left.
    fn pick(&mut self) -> Option<u32> {
        let is_over = self.is_held || self.share.bytes == 0;
        if let Some((index, taken)) = self.share.current {
            if !is_over && taken < READ_BYTES_PER_CONNECTION {
                return Some(index);
            }
            self.share.current = None;
            self.enqueue(index);
        }
        if is_over || self.share.connections == 0 {
            return None;
        }
        self.share.connections -= 1;
        let index = self.ready.pop_front()?;
        self.slots[index as usize].is_queued = false;
        self.share.current = Some((index, 0));
        Some(index)
    }

    /// Receives once from the current connection. It stays the current one while there may be more.
    fn receive(&mut self, index: u32) -> Received {
        let slot = &mut self.slots[index as usize];
        let is_read = match slot.phase {
            Phase::Open => !slot.is_unwanted,
            Phase::Lingering => true,
            Phase::Free | Phase::Parting | Phase::Closing => false,
        };
        if !is_read || !slot.is_readable {
            self.share.current = None;
            if slot.is_unread() && !slot.is_write_armed {
                self.watch(index);
            }
            return Received::Nothing;
        }
        if slot.socket.is_none() && !self.fetch(index) {
            self.share.current = None;
            self.enqueue(index);
            return Received::Nothing;
        }
        let slot = &mut self.slots[index as usize];
        let is_open = slot.phase == Phase::Open;
        let socket = slot.socket.as_ref().expect("it was fetched");
        match socket::receive(socket.as_fd(), &mut self.scratch) {
            Ok(0) => self.finished(index),
            Ok(count) => {
                let taken = self.share.current.map_or(0, |(_, taken)| taken) + count;
                self.share.bytes = self.share.bytes.saturating_sub(count);
                self.share.current = Some((index, taken));
                // Whatever comes from now on is told anew.
                if count < self.scratch.len() && !slot.is_hung_up {
                    self.all_read(index);
                }
                if is_open { Received::Bytes(count) } else { Received::Nothing }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Received::Nothing,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !slot.is_broken => {
                self.all_read(index);
                Received::Nothing
            }
            Err(error) => {
                self.share.current = None;
                self.slots[index as usize].is_unanswered |= error.kind() == io::ErrorKind::TimedOut;
                self.break_off(index);
                Received::Nothing
            }
        }
    }

    /// The kernel has nothing left of a connection for now, and tells when it has.
    fn all_read(&mut self, index: u32) {
        self.share.current = None;
        self.slots[index as usize].is_readable = false;
        self.arm_readable(index);
    }

    /// The peer sends no more.
    fn finished(&mut self, index: u32) -> Received {
        self.share.current = None;
        let slot = &mut self.slots[index as usize];
        slot.is_readable = false;
        if slot.phase == Phase::Lingering || slot.is_broken {
            self.break_off(index);
            return Received::Nothing;
        }
        // What the engine has answered to the last bytes is on its way: it is sent before the socket is
        // closed. Some clients finish sending right after their request.
        if slot.unsent.is_none() {
            self.unsettled_count += 1;
        }
        slot.phase = Phase::Parting;
        self.leaving.push(index);
        Received::Closed(Hangup::Finished)
    }
}

/// Sending.
impl RingNet {
    fn owe(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        if !slot.is_owed {
            slot.is_owed = true;
            self.owed.push(index);
        }
    }

    /// Sends the ranges that were noted for a connection, and keeps the rest.
    fn send_noted(&mut self, dirty: &Dirty, bytes: &[u8], is_allowed: bool) {
        let slot = &mut self.slots[dirty.index as usize];
        if slot.phase == Phase::Free || slot.is_broken {
            return;
        }
        let had_none = slot.unsent.is_none();
        let mut next = dirty.first;
        let is_short = slot.socket.is_none() && is_allowed && had_none && !self.fetch(dirty.index);
        let slot = &mut self.slots[dirty.index as usize];
        let mut is_taken = is_allowed && had_none && !is_short;
        let is_last = slot.phase == Phase::Closing;
        while next != CLEAN {
            let mut parts: SmallVec<[&[u8]; PARTS_PER_CALL]> = SmallVec::new();
            while next != CLEAN && parts.len() < PARTS_PER_CALL {
                let part = &self.parts[next as usize];
                parts.push(&bytes[part.bytes.clone()]);
                next = part.next;
            }
            let mut sent = 0;
            if is_taken {
                let socket = slot.socket.as_ref().expect("it was fetched").as_fd();
                match send_all(socket, &parts, is_last) {
                    Ok(count) => sent = count,
                    Err(error) => return self.fail_sending(dirty.index, &error),
                }
            }
            for part in parts {
                let skipped = sent.min(part.len());
                sent -= skipped;
                if skipped < part.len() {
                    is_taken = false;
                    slot.unsent.get_or_insert_default().bytes.extend_from_slice(&part[skipped..]);
                }
            }
        }
        let left = slot.unsent_bytes();
        if left == 0 {
            return;
        }
        if slot.phase == Phase::Open {
            self.unsettled_count += usize::from(had_none);
            self.news.push_back(News::Backlog { conn: ConnId(dirty.index), bytes: left });
        }
        if is_allowed && !is_short {
            self.arm_writable(dirty.index);
        } else {
            self.owe(dirty.index);
        }
    }

    /// Sends what was kept for a connection.
    fn send_unsent(&mut self, index: u32, now: Instant) {
        if self.slots[index as usize].unsent.is_none() {
            return;
        }
        if !self.fetch(index) {
            return self.owe(index);
        }
        let slot = &mut self.slots[index as usize];
        let is_last = slot.phase == Phase::Closing;
        let Some(unsent) = &mut slot.unsent else { return };
        let socket = slot.socket.as_ref().expect("it was fetched").as_fd();
        let sent = match send_all(socket, &[unsent.rest()], is_last) {
            Ok(sent) => sent,
            Err(error) => return self.fail_sending(index, &error),
        };
        unsent.advance(sent);
        let left = slot.unsent_bytes();
        let phase = slot.phase;
        if left == 0 {
            slot.unsent = None;
        }
        if phase == Phase::Open && sent > 0 {
            self.news.push_back(News::Backlog { conn: ConnId(index), bytes: left });
        }
        if left > 0 {
            return self.arm_writable(index);
        }
        if !self.slots[index as usize].is_unread() {
            self.disarm_writable(index);
        }
        if phase == Phase::Open {
            self.unsettled_count -= 1;
        } else {
            self.all_sent(index, now);
        }
    }

    /// The peer takes nothing any more. What it had sent before is still read.
    fn fail_sending(&mut self, index: u32, error: &io::Error) {
        let slot = &mut self.slots[index as usize];
        slot.is_unanswered |= error.kind() == io::ErrorKind::TimedOut;
        if slot.phase != Phase::Open || slot.is_unwanted {
            return self.break_off(index);
        }
        slot.is_broken = true;
        slot.is_hung_up = true;
        slot.is_readable = true;
        if slot.unsent.take().is_some() {
            self.unsettled_count -= 1;
            self.news.push_back(News::Backlog { conn: ConnId(index), bytes: 0 });
        }
        self.disarm_writable(index);
        self.enqueue(index);
    }

    /// Everything for a closed connection is with the kernel.
    fn all_sent(&mut self, index: u32, now: Instant) {
        let slot = &mut self.slots[index as usize];
        if slot.phase == Phase::Parting {
            return self.retire(index);
        }
        assert_eq!(slot.phase, Phase::Closing, "only closed connections come to an end");
        if !self.fetch(index) {
            return self.leaving.push(index);
        }
        let slot = &mut self.slots[index as usize];
        socket::finish_sending(slot.socket.as_ref().expect("it was fetched").as_fd());
        slot.phase = Phase::Lingering;
        // What has arrived is thrown away, and perhaps the peer has closed already: unless the kernel would tell.
        let is_quiet = slot.is_armed && !slot.is_readable;
        slot.is_readable = !is_quiet;
        let token = Token { kind: Kind::Farewell, generation: slot.generation, index };
        self.lingering.push_back((now + LINGER_MAX, token));
        if !is_quiet {
            self.enqueue(index);
        }
    }

    /// Gives up a connection, whatever its phase, and tells the engine unless it knows.
    fn break_off(&mut self, index: u32) {
        let conn = ConnId(index);
        let slot = &self.slots[index as usize];
        match slot.phase {
            Phase::Free | Phase::Parting => {}
            Phase::Open => {
                let how = if slot.is_unanswered { Hangup::Unanswered } else { Hangup::Broken };
                self.news.push_back(News::Closed { conn, how });
            }
            Phase::Closing | Phase::Lingering => self.news.push_back(News::Closed { conn, how: Hangup::Ours }),
        }
        self.retire(index);
    }

    /// Frees the slot. Its name is not given away before the next turn.
    fn retire(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        if slot.phase == Phase::Free {
            return;
        }
        let is_settled = slot.phase == Phase::Open && slot.unsent.is_none();
        self.unsettled_count -= usize::from(!is_settled);
        if slot.is_armed && !self.fetch(index) {
            self.disarm(Token { kind: Kind::Readable, generation: self.slots[index as usize].generation, index });
        }
        let slot = &mut self.slots[index as usize];
        let socket = slot.socket.take();
        let writable = Token { kind: Kind::Writable, generation: slot.generation, index };
        let is_write_armed = std::mem::take(&mut slot.is_write_armed);
        let is_armed = std::mem::take(&mut slot.is_armed);
        slot.phase = Phase::Free;
        slot.generation = (slot.generation + 1) & Token::GENERATION_MASK;
        slot.unsent = None;
        slot.is_readable = false;
        slot.is_hung_up = false;
        slot.is_broken = false;
        slot.is_unanswered = false;
        slot.is_unwanted = false;
        if is_write_armed {
            self.disarm(writable);
        }
        let was_shelved = self.shelf.clear(ConnId(index));
        match socket {
            Some(socket) if !was_shelved => self.put_off(socket, is_armed),
            Some(socket) => self.close_socket(socket, is_armed),
            None => {}
        }
        self.free.push(index);
        self.room.give_back(1);
    }
}

/// Sends what the kernel takes of `parts`; 0 when it takes nothing at present.
/// `is_last`: the end of the stream follows at once, and shares a packet with them.
fn send_all(socket: BorrowedFd<'_>, parts: &[&[u8]], is_last: bool) -> io::Result<usize> {
    let parts: SmallVec<[IoSlice<'_>; PARTS_PER_CALL]> = parts.iter().map(|part| IoSlice::new(part)).collect();
    loop {
        match socket::send(socket, &parts, is_last) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            // The kernel is short of memory: the connection is as good as before.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(0),
            result => return result,
        }
    }
}

/// The ring.
impl RingNet {
    fn arm_accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        let accept = opcode::AcceptMulti::new(types::Fd(listener.as_raw_fd())).flags(libc::SOCK_CLOEXEC).build();
        self.push(&accept.user_data(Token::alone(Kind::Accept).pack()));
    }

    fn arm_datagrams(&mut self) {
        let Some(fd) = self.datagrams.as_ref().map(Datagrams::raw_fd) else { return };
        self.arm_socket(fd, Kind::Datagrams);
    }

    fn arm_sealed_datagrams(&mut self) {
        let Some(fd) = self.sealed.as_ref().map(Datagrams::raw_fd) else { return };
        self.arm_socket(fd, Kind::SealedDatagrams);
    }

    fn arm_socket(&mut self, fd: i32, kind: Kind) {
        let events = u32::from(libc::POLLIN.unsigned_abs());
        let poll = opcode::PollAdd::new(types::Fd(fd), events).multi(true).build();
        self.push(&poll.user_data(Token::alone(kind).pack()));
    }

    fn arm_readable(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        if !std::mem::replace(&mut slot.is_armed, true)
            && !self.arm(index, Kind::Readable, libc::POLLIN | libc::POLLRDHUP, false)
        {
            let slot = &mut self.slots[index as usize];
            slot.is_armed = false;
            slot.is_readable = true;
            self.enqueue(index);
        }
    }

    /// Has the kernel tell of the end of a connection that is not read. A poll for reading would answer
    /// at once.
    fn watch(&mut self, index: u32) {
        self.arm_writable(index);
    }

    fn arm_writable(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        // It tells of every change, so once is enough. A poll that answers once would answer at once, and
        // again and again, while the peer has finished sending and takes nothing.
        if !slot.is_write_armed {
            let is_armed = self.arm(index, Kind::Writable, libc::POLLOUT, true);
            self.slots[index as usize].is_write_armed = is_armed;
            if !is_armed {
                self.owe(index);
                self.enqueue(index);
            }
        }
    }

    fn disarm_writable(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        let token = Token { kind: Kind::Writable, generation: slot.generation, index };
        if std::mem::take(&mut slot.is_write_armed) {
            self.disarm(token);
        }
    }

    fn disarm(&mut self, token: Token) {
        let remove = opcode::PollRemove::new(token.pack()).build().flags(squeue::Flags::SKIP_SUCCESS);
        self.push(&remove.user_data(Token::alone(Kind::Farewell).pack()));
    }

    /// Has the kernel tell of a connection. Fails as [`fetch`](Self::fetch) does.
    fn arm(&mut self, index: u32, kind: Kind, events: i16, is_series: bool) -> bool {
        if !self.fetch(index) {
            return false;
        }
        let slot = &self.slots[index as usize];
        let fd = types::Fd(slot.socket.as_ref().expect("it was fetched").as_raw_fd());
        let token = Token { kind, generation: slot.generation, index };
        let poll = opcode::PollAdd::new(fd, u32::from(events.unsigned_abs())).multi(is_series).build();
        self.push(&poll.user_data(token.pack()));
        true
    }

    /// Makes the ring ring at `until`. An earlier setting stays: it wakes us in vain, once.
    fn set_timer(&mut self, until: Option<Instant>) {
        let Some(until) = until else { return };
        if self.timer.is_some_and(|set| set <= until) {
            return;
        }
        let nanos = u32::try_from(until.0 % 1_000 * 1_000_000).expect("below 10^9");
        let time = types::Timespec::new().sec(until.0 / 1_000).nsec(nanos);
        let name = Token::alone(Kind::Timer).pack();
        let flags = types::TimeoutFlags::ABS;
        if self.timer.is_some() {
            // If it has fired meanwhile there is nothing to move, and its completion wakes us.
            let move_up = opcode::TimeoutUpdate::new(name, &raw const time).flags(flags).build();
            self.push(&move_up.user_data(Token::alone(Kind::Farewell).pack()));
        } else {
            self.push(&opcode::Timeout::new(&raw const time).flags(flags).build().user_data(name));
        }
        self.timer = Some(until);
        // The kernel reads `time` now, while it is there.
        self.enter(EnterFlags::empty());
        assert!(self.ring.submission().is_empty(), "the kernel has read the time");
    }

    fn push(&mut self, entry: &squeue::Entry) {
        loop {
            // SAFETY: no request of ours points to memory, except for a timer's time, which is submitted
            // where it lives.
            let is_pushed = unsafe { self.ring.submission().push(entry) }.is_ok();
            if is_pushed {
                return;
            }
            self.enter(EnterFlags::empty());
        }
    }

    /// Submits what is queued, and lets the kernel finish what it has put off for us.
    fn enter(&mut self, flags: EnterFlags) {
        loop {
            let queue = self.ring.submission();
            let count = u32::try_from(queue.len()).expect("at most SUBMISSIONS");
            let has_put_off = queue.taskrun() || queue.cq_overflow();
            drop(queue);
            let flags = if has_put_off { flags | EnterFlags::GETEVENTS } else { flags };
            if count == 0 && flags.is_empty() {
                return;
            }
            // SAFETY: no signal set is passed, and the queued entries are valid: see `push`.
            let result = unsafe { self.ring.submitter().enter::<libc::sigset_t>(count, 0, flags.bits(), None) };
            match result {
                Ok(submitted) if submitted >= count as usize => return,
                // The kernel took some; the rest goes with the next call.
                Ok(_) => {}
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR | libc::EAGAIN) => {}
                    // Completions must be taken out first.
                    Some(libc::EBUSY) => self.collect(),
                    _ => panic!("the socket ring is broken: {error}"),
                },
            }
        }
    }

    /// Takes the completions out of the ring.
    fn collect(&mut self) {
        let completions = self.ring.completion();
        self.completions.extend(completions.map(|entry| (entry.user_data(), entry.result(), entry.flags())));
    }
}

impl Drop for RingNet {
    fn drop(&mut self) {
        let tenants = self.slots.iter().filter(|slot| slot.phase != Phase::Free).count();
        self.room.give_back(tenants);
        self.room.give_back_files(tenants - self.shelf.len() + self.put_off.len());
    }
}

impl std::fmt::Debug for RingNet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RingNet").field("slots", &self.slots.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_types, clippy::disallowed_methods, reason = "clients are plain and wait")]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::{Shutdown, TcpStream};

    use super::*;

    /// A net, turned by hand.
    fn net() -> (RingNet, SocketAddr) {
        net_in(Room::new(100))
    }

    /// A net that counts its descriptors, of which it has enough.
    fn roomy_net() -> (RingNet, SocketAddr) {
        net_in(Room { files_max: Some(400), lent_max: 1, ..Room::new(100) })
    }

    /// A net that may have two connections with descriptors of their own, lends one, and whose tables have two places.
    fn shelving_net() -> (RingNet, SocketAddr) {
        net_in(Room { files_max: Some(2), lent_max: 1, ..Room::new(100) })
    }

    fn net_in(room: Room) -> (RingNet, SocketAddr) {
        net_with(Arc::new(room))
    }

    fn net_with(room: Arc<Room>) -> (RingNet, SocketAddr) {
        let bell = Bell::new().unwrap();
        let (mut listeners, address) =
            socket::listeners("127.0.0.1:0".parse().unwrap(), 1, Millis::from_secs(45)).unwrap();
        let net = RingNet::new(listeners.pop().unwrap(), (None, None), &bell, room).unwrap();
        (net, address)
    }

    /// Turns until `pick` gives something.
    fn turn_until<T>(net: &mut RingNet, mut pick: impl FnMut(&mut RingNet) -> Option<T>) -> T {
        for _ in 0..10_000 {
            net.gather(Instant(0));
            if let Some(found) = pick(net) {
                return found;
            }
            net.flush(&[], Instant(0), true);
            net.tidy(false);
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        panic!("nothing has come");
    }

    fn opened(net: &mut RingNet) -> ConnId {
        turn_until(net, |net| match net.next() {
            Some(Input::Opened { conn, .. }) => Some(conn),
            _ => None,
        })
    }

    fn await_opened(net: &mut RingNet, count: usize) {
        for _ in 0..count {
            opened(net);
        }
    }

    /// Answers everybody who says something with the same, `count` times; each with a turn of its own.
    fn echo(net: &mut RingNet, count: usize) {
        for _ in 0..count {
            let (conn, said) = turn_until(net, |net| match net.next() {
                Some(Input::Bytes { conn, bytes }) => Some((conn, bytes.to_vec())),
                _ => None,
            });
            net.send(conn, 0..said.len());
            net.flush(&said, Instant(0), true);
        }
    }

    #[track_caller]
    fn answers(net: &mut RingNet, stream: &mut TcpStream, text: &str) {
        stream.write_all(text.as_bytes()).unwrap();
        echo(net, 1);
        let mut answer = vec![0; text.len()];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(String::from_utf8(answer).unwrap(), text);
    }

    /// Descriptors of connections that are open in `net` now.
    fn descriptors(net: &RingNet) -> usize {
        net.slots.iter().filter(|slot| slot.socket.is_some()).count()
    }

    #[test]
    fn connections_without_descriptors_are_served_as_others_are() {
        let (mut net, address) = shelving_net();
        for round in 0..3 {
            let mut streams: Vec<_> = (0..9).map(|_| TcpStream::connect(address).unwrap()).collect();
            await_opened(&mut net, 9);
            net.gather(Instant(0));
            assert_eq!((descriptors(&net), net.shelf.len()), (2, 7), "round {round}");
            for (index, stream) in streams.iter_mut().enumerate() {
                answers(&mut net, stream, &format!("first {index}"));
                answers(&mut net, stream, &format!("then {index}"));
                assert!(descriptors(&net) <= 4, "one is lent, and one is about to be taken back");
            }
            // Many in one turn.
            streams.iter_mut().for_each(|stream| stream.write_all(b"x").unwrap());
            echo(&mut net, 9);
            streams.iter_mut().for_each(|stream| stream.read_exact(&mut [0]).unwrap());
            // What they have not read makes the ends of some a reset.
            (0..9).for_each(|conn| net.send(ConnId(conn), 0..1));
            net.flush(b"x", Instant(0), true);
            streams.iter().for_each(|stream| assert_eq!(stream.peek(&mut [0]).unwrap(), 1));
            streams.iter_mut().skip(4).for_each(|stream| stream.read_exact(&mut [0]).unwrap());
            streams.clear();
            let mut gone = 0;
            turn_until(&mut net, |net| {
                gone += usize::from(matches!(net.next(), Some(Input::Closed { .. })));
                (gone == 9).then_some(())
            });
            net.flush(&[], Instant(0), true);
            net.tidy(false);
            net.gather(Instant(0));
            assert_eq!((descriptors(&net), net.shelf.len()), (0, 0), "round {round}");
            let Room { used, files_used, .. } = &*net.room;
            assert_eq!([used, files_used].map(|used| used.load(Ordering::Relaxed)), [0, 0], "round {round}");
        }
    }

    #[test]
    fn what_a_connection_without_a_descriptor_does_not_take_follows() {
        let (mut net, address) = shelving_net();
        let mut streams: Vec<_> = (0..5).map(|_| TcpStream::connect(address).unwrap()).collect();
        let conns: Vec<_> = (0..5).map(|_| opened(&mut net)).collect();
        let stream = streams.last_mut().unwrap();
        // Which of them has which name depends on the kernel: all are sent as much.
        conns.iter().for_each(|conn| net.send(*conn, 0..32 << 20));
        net.flush(&vec![7; 32 << 20], Instant(0), true);
        net.gather(Instant(0));
        assert_eq!(descriptors(&net), 2, "nothing is lent to those who wait");
        stream.set_nonblocking(true).unwrap();
        let mut left = 32 << 20;
        let mut room = vec![0; 1 << 20];
        turn_until(&mut net, |net| {
            while net.next_news().is_some() {}
            while let Ok(count) = stream.read(&mut room) {
                left -= count;
            }
            (left == 0).then_some(())
        });
    }

    #[test]
    fn a_connection_without_a_descriptor_is_closed_for_good() {
        let (mut net, address) = shelving_net();
        let streams: Vec<_> = (0..5).map(|_| TcpStream::connect(address).unwrap()).collect();
        let conns: Vec<_> = (0..5).map(|_| opened(&mut net)).collect();
        conns.iter().for_each(|conn| net.close(*conn));
        net.flush(&[], Instant(0), true);
        streams.iter().for_each(|stream| assert_eq!((&*stream).read(&mut [0]).unwrap(), 0, "it is told"));
        net.gather(Instant(0) + LINGER_MAX);
        for stream in &streams {
            let peer = stream.local_addr().unwrap();
            turn_until(&mut net, |net| {
                while net.next_news().is_some() {}
                (!is_held(peer)).then_some(())
            });
        }
        assert_eq!((net.shelf.len(), net.free.len()), (0, 5));
    }

    #[test]
    fn when_descriptors_run_out_those_who_have_them_are_shelved() {
        let (mut net, address) = net_in(Room { files_max: Some(80), lent_max: 1, ..Room::new(100) });
        let mut streams: Vec<_> = (0..70).map(|_| TcpStream::connect(address).unwrap()).collect();
        await_opened(&mut net, 70);
        // As when the kernel has none left for a new one.
        net.accepted(-libc::EMFILE, false, Instant(0));
        assert!(net.accept_again.is_none(), "it is tried at once");
        assert_eq!((descriptors(&net), net.shelf.len()), (70 - SHELVED_AT_ONCE, SHELVED_AT_ONCE));
        streams.push(TcpStream::connect(address).unwrap());
        opened(&mut net);
        for (index, stream) in streams.iter_mut().enumerate() {
            answers(&mut net, stream, &format!("{index}"));
        }
        // Where nobody can be shelved it is given what is kept for a table, and then it rests.
        let (mut other, _) = shelving_net();
        for rests in [false, true] {
            other.accepted(-libc::EMFILE, false, Instant(0));
            assert_eq!((other.accept_again.is_some(), other.is_short), (rests, rests));
        }
    }

    /// Some nets that share their descriptors, turned by hand, and a client's end of everything.
    struct World {
        nets: Vec<RingNet>,
        addresses: Vec<SocketAddr>,
        streams: Vec<TcpStream>,
        /// Numbers below this are for descriptors of the nets.
        files: u64,
        now: Instant,
        /// Turns since something was wanted.
        turns: u32,
    }

    impl World {
        /// One of `cores` nets, which may open `left` descriptors more than they have, and tables of `places` places.
        fn new(cores: usize, places: usize, left: usize) -> Self {
            limit_files(CLIENT_FILES * 2);
            let room = Arc::new(Room { files_max: Some(500), lent_max: 2, ..Room::new(1_000) });
            let made = (0..cores).map(|_| {
                let (mut net, address) = net_with(Arc::clone(&room));
                net.shelf = Shelf::new(places);
                net.shelf.grow().unwrap();
                net.shelf.save();
                (net, address)
            });
            let (nets, addresses) = made.unzip();
            let files = crate::runtime::tests::limit_leaving(left);
            limit_files(files);
            Self { nets, addresses, streams: Vec::new(), files, now: Instant(0), turns: 0 }
        }

        /// Further clients, whose descriptors are nobody else's.
        fn connect(&mut self, count: usize) {
            limit_files(CLIENT_FILES * 2);
            for index in 0..count {
                let stream = TcpStream::connect(self.addresses[index % self.addresses.len()]).unwrap();
                let from = i32::try_from(CLIENT_FILES).unwrap();
                // SAFETY: takes no pointers.
                let fd = unsafe { libc::fcntl(stream.as_raw_fd(), libc::F_DUPFD_CLOEXEC, from) };
                assert!(fd >= from);
                // SAFETY: the descriptor was just made and belongs to nobody else.
                let stream = TcpStream::from(unsafe { OwnedFd::from_raw_fd(fd) });
                stream.set_nonblocking(true).unwrap();
                self.streams.push(stream);
            }
            limit_files(self.files);
        }

        /// One turn of every net, in which everybody is answered with what he said.
        fn turn(&mut self) {
            self.now = self.now + Millis(10);
            self.turns += 1;
            // Nothing is under way for so long, unless the kernel has no time for it.
            if self.turns > 200 {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            for net in &mut self.nets {
                net.gather(self.now);
                let mut said = Vec::new();
                while let Some(input) = net.next() {
                    if let Input::Bytes { conn, bytes } = input {
                        said.push((conn, bytes.to_vec()));
                    }
                }
                let mut all = Vec::new();
                for (conn, bytes) in said {
                    let from = all.len();
                    all.extend_from_slice(&bytes);
                    net.send(conn, from..all.len());
                }
                net.flush(&all, self.now, true);
                net.tidy(false);
                let _sleeps_or_not = net.is_quiet(None);
                net.wake();
            }
        }

        /// Turns until all who are connected have been let in, or have been let go.
        #[track_caller]
        fn settle(&mut self, what: &str) {
            self.turn_until(what, |world| {
                let count = world.nets.iter().map(|net| net.slots.len() - net.free.len()).sum::<usize>();
                count == world.streams.len()
            });
        }

        #[track_caller]
        fn turn_until(&mut self, what: &str, mut is_done: impl FnMut(&mut Self) -> bool) {
            self.turns = 0;
            while self.turns < 20_000 {
                self.turn();
                if is_done(self) {
                    return;
                }
            }
            let nets =
                self.nets.iter().map(|net| (net.slots.len() - net.free.len(), descriptors(net), net.shelf.len()));
            panic!("{what}: connections, descriptors, shelved: {:?}", nets.collect::<Vec<_>>());
        }

        /// Everybody of `who` says something and is answered.
        #[track_caller]
        fn ask(&mut self, who: Range<usize>, what: &str) {
            for stream in &mut self.streams[who.clone()] {
                stream.write_all(b"?").unwrap();
            }
            let mut waiting: Vec<usize> = who.collect();
            self.turn_until(what, |world| {
                waiting.retain(|index| match world.streams[*index].read(&mut [0]) {
                    Ok(1) => false,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => true,
                    other => panic!("{what}: {other:?}"),
                });
                waiting.is_empty()
            });
        }
    }

    /// Where the numbers of clients' descriptors begin.
    const CLIENT_FILES: u64 = 400;

    fn limit_files(count: u64) {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: `limit` is writable.
        assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }, 0);
        limit.rlim_cur = count;
        // SAFETY: `limit` is readable.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
    }

    /// What `world` does in a process of its own, as its limits are the process's: of the test of this name.
    fn alone(test: &str, world: impl FnOnce()) {
        const ALONE: &str = "STILLHERE_TEST_ALONE";
        if std::env::var_os(ALONE).is_some() {
            return world();
        }
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args([&format!("runtime::ring::tests::{test}"), "--exact", "--nocapture", "--test-threads=1"]);
        let output = child.env(ALONE, "yes").output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}{text}", String::from_utf8_lossy(&output.stdout));
    }

    #[test]
    fn with_however_few_descriptors_everybody_is_served() {
        if !crate::runtime::shelf::is_available() {
            return;
        }
        alone("with_however_few_descriptors_everybody_is_served", || {
            for (cores, places, left) in worlds() {
                let what = |when: &str| format!("{when}: {cores} cores, {places} places, {left} descriptors");
                let mut world = World::new(cores, places, left);
                // As many as there is room for, if all but one descriptor become tables.
                let count = places * left;
                world.connect(count);
                world.settle(&what("a crowd"));
                world.ask(0..count, &what("all"));
                for round in 0..3 {
                    for index in 0..count {
                        world.ask(index..index + 1, &what(&format!("{index} in round {round}")));
                    }
                    world.ask(0..count, &what("all together"));
                    world.streams.drain(..count / 2);
                    world.connect(count / 2);
                    world.ask(0..count, &what("all after some have gone"));
                }
                world.streams.clear();
                world.settle(&what("all have gone"));
                world.turn();
                assert!(world.nets.iter().all(|net| net.shelf.is_empty() && descriptors(net) == 0), "{}", what("end"));
            }
        });
    }

    /// Cores, places of a table, and descriptors that are left.
    fn worlds() -> impl Iterator<Item = (usize, usize, usize)> {
        (1..=2).flat_map(|cores| (1..=6).flat_map(move |places| (cores..=10).map(move |left| (cores, places, left))))
    }

    #[test]
    fn who_is_asked_for_descriptors_gives_them_even_out_of_a_sleep() {
        let (mut net, address) = net_in(Room { files_max: Some(80), lent_max: 1, ..Room::new(100) });
        let mut streams: Vec<_> = (0..5).map(|_| TcpStream::connect(address).unwrap()).collect();
        await_opened(&mut net, 5);
        turn_until(&mut net, |net| net.is_quiet(None).then_some(()));
        net.room.call();
        assert!(!net.is_quiet(None), "it does not fall asleep over it");
        net.gather(Instant(0));
        assert_eq!((descriptors(&net), net.shelf.len()), (0, 5));
        turn_until(&mut net, |net| net.is_quiet(None).then_some(()));
        for (index, stream) in streams.iter_mut().enumerate() {
            answers(&mut net, stream, &format!("{index}"));
        }
        // Who needs one asks, but not again and again.
        for (now, calls) in [(0, 2), (1, 2), (CALL_REST.0, 3)] {
            net.is_short = true;
            net.gather(Instant(now));
            assert_eq!((net.is_short, net.room.calls()), (false, calls), "at {now}");
        }
    }

    #[test]
    fn a_number_that_requests_name_is_not_given_away() {
        let (mut net, address) = net_in(Room { files_max: Some(2), lent_max: 10, ..Room::new(100) });
        let _streams: Vec<_> = (0..6).map(|_| TcpStream::connect(address).unwrap()).collect();
        await_opened(&mut net, 6);
        net.gather(Instant(0));
        // A poll that has not gone to the kernel names the descriptor of one that is given up; another is lent one.
        let shelved: Vec<u32> = (0..6).filter(|index| net.slots[*index as usize].socket.is_none()).collect();
        let [first, second] = [shelved[0], shelved[1]];
        assert!(net.fetch(first));
        net.slots[first as usize].is_armed = false;
        net.arm_readable(first);
        net.slots[first as usize].is_armed = false;
        net.retire(first);
        assert!(net.fetch(second));
        let number = net.slots[second as usize].socket.as_ref().unwrap().as_raw_fd();
        assert!(net.buried.iter().all(|socket| socket.as_raw_fd() != number));
        let taken = net.buried.len();
        assert_eq!(taken, 1, "it is closed when the poll has gone");
        net.gather(Instant(0));
        assert!(net.buried.is_empty());
    }

    #[test]
    fn a_token_survives_the_kernel() {
        for kind in [Kind::Accept, Kind::Readable, Kind::Writable, Kind::Timer, Kind::Farewell] {
            for (generation, index) in [(0, 0), (1, 2), (Token::GENERATION_MASK, u32::MAX)] {
                let token = Token { kind, generation, index };
                assert_eq!(Token::unpack(token.pack()), token);
            }
        }
    }

    #[test]
    fn a_late_completion_finds_nobody() {
        let (mut net, address) = net();
        let first = TcpStream::connect(address).unwrap();
        let conn = opened(&mut net);
        let late = Token { kind: Kind::Readable, generation: net.slots[0].generation, index: conn.0 };
        drop(first);
        turn_until(&mut net, |net| matches!(net.next(), Some(Input::Closed { .. })).then_some(()));
        net.flush(&[], Instant(0), true);
        let _second = TcpStream::connect(address).unwrap();
        assert_eq!(opened(&mut net), conn, "the name is used again");
        for kind in [Kind::Readable, Kind::Writable] {
            net.completed(Token { kind, ..late }, i32::from(libc::POLLERR | libc::POLLIN), false, Instant(0));
        }
        net.tidy(false);
        assert!(!net.slots[0].is_readable);
        assert!(!net.has_work());
        net.flush(&[], Instant(0), true);
        assert!(net.next().is_none(), "the new tenant knows nothing of it");
    }

    #[test]
    fn a_poll_that_the_kernel_has_ended_is_begun_again() {
        let (mut net, address) = net();
        let mut stream = TcpStream::connect(address).unwrap();
        let conn = opened(&mut net);
        let token = Token { kind: Kind::Readable, generation: net.slots[0].generation, index: conn.0 };
        net.push(&opcode::PollRemove::new(token.pack()).build().user_data(Token::alone(Kind::Farewell).pack()));
        net.enter(EnterFlags::GETEVENTS);
        net.collect();
        net.completions.clear();
        net.completed(token, i32::from(libc::POLLIN), false, Instant(0));
        net.gather(Instant(0));
        assert!(net.next().is_none(), "it was a false alarm");
        assert!(!net.has_work());
        stream.write_all(b"x").unwrap();
        turn_until(&mut net, |net| matches!(net.next(), Some(Input::Bytes { .. })).then_some(()));
    }

    #[test]
    fn what_may_not_be_sent_yet_is_kept() {
        let (mut net, address) = net();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_nonblocking(true).unwrap();
        let conn = opened(&mut net);
        for (bytes, backlog) in [(b"held, ", 6), (b"later.", 12)] {
            net.send(conn, 0..6);
            net.flush(bytes, Instant(0), false);
            assert!(matches!(net.next(), Some(Input::Backlog { bytes, .. }) if bytes == backlog));
        }
        assert_eq!(stream.read(&mut [0; 16]).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!(!net.is_settled());
        net.send(conn, 0..3);
        net.flush(b"End", Instant(0), true);
        let mut text = [0; 15];
        stream.set_nonblocking(false).unwrap();
        stream.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"held, later.End");
        turn_until(&mut net, |net| matches!(net.next(), Some(Input::Backlog { bytes: 0, .. })).then_some(()));
        assert!(net.is_settled());
    }

    #[test]
    fn a_greedy_connection_leaves_the_others_their_turn() {
        let (mut net, address) = net();
        let mut greedy = TcpStream::connect(address).unwrap();
        let greedy_conn = opened(&mut net);
        let mut modest = TcpStream::connect(address).unwrap();
        let modest_conn = opened(&mut net);
        greedy.set_nonblocking(true).unwrap();
        let mut sent = 0;
        while let Ok(count) = greedy.write(&[7; 65_536]) {
            sent += count;
        }
        assert!(sent > 2 * READ_BYTES_PER_CONNECTION, "{sent} bytes are enough to be greedy");
        modest.write_all(b"x").unwrap();
        let mut taken = 0;
        let mut was_modest_heard = false;
        while taken < sent {
            net.gather(Instant(0));
            let mut turn = 0;
            while let Some(input) = net.next() {
                let Input::Bytes { conn, bytes } = input else { panic!("{input:?}") };
                was_modest_heard |= conn == modest_conn;
                turn += if conn == greedy_conn { bytes.len() } else { 0 };
            }
            assert!(was_modest_heard, "in the first turn");
            assert!(turn < READ_BYTES_PER_CONNECTION + SCRATCH_BYTES, "{turn} bytes in one turn");
            taken += turn;
            net.flush(&[], Instant(0), true);
        }
        assert_eq!(taken, sent);
    }

    #[test]
    fn a_peer_that_has_finished_and_then_breaks_is_gone_once() {
        let (mut net, address) = net();
        let mut stream = TcpStream::connect(address).unwrap();
        let conn = opened(&mut net);
        net.send(conn, 0..32 << 20);
        net.flush(&vec![0; 32 << 20], Instant(0), true);
        stream.shutdown(Shutdown::Write).unwrap();
        let mut backlogs = 0;
        let how = turn_until(&mut net, |net| match net.next() {
            Some(Input::Closed { how, .. }) => Some(how),
            Some(Input::Backlog { .. }) => {
                backlogs += 1;
                None
            }
            _ => None,
        });
        assert_eq!((how, backlogs), (Hangup::Finished, 1));
        assert!(!net.is_settled(), "the answer is under way");
        let mut completions = 0;
        for _ in 0..20 {
            net.enter(EnterFlags::GETEVENTS);
            net.collect();
            completions += net.completions.len();
            net.gather(Instant(0));
            net.flush(&[], Instant(0), true);
        }
        assert!(completions < 5, "{completions} completions tell nothing new");
        stream.read_exact(&mut [0; 8]).unwrap();
        // What it has not read makes this a reset.
        drop(stream);
        turn_until(&mut net, |net| {
            assert!(net.next_news().is_none(), "the engine knows");
            net.tidy(false);
            net.is_settled().then_some(())
        });
        assert!(net.next().is_none());
    }

    /// Whether some process still holds the server's end of a connection from `peer`.
    fn is_held(peer: SocketAddr) -> bool {
        // "sl local remote state queues timer retransmits uid timeout inode …", ports in hexadecimal.
        let from = format!(":{:04X}", peer.port());
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let mut rows = table.lines().map(|row| row.split_whitespace().collect::<Vec<_>>());
        rows.any(|row| row[2].ends_with(&from) && row[9] != "0")
    }

    #[test]
    fn nothing_of_a_connection_is_held_when_we_have_given_it_up() {
        let (mut net, address) = net();
        let stream = TcpStream::connect(address).unwrap();
        let conn = opened(&mut net);
        net.close(conn);
        net.flush(&[], Instant(0), true);
        // It is looked at, in vain, and polled anew.
        assert!(net.next().is_none());
        assert!(is_held(stream.local_addr().unwrap()));
        net.gather(Instant(0) + LINGER_MAX);
        assert!(matches!(net.next(), Some(Input::Closed { how: Hangup::Ours, .. })));
        turn_until(&mut net, |_| (!is_held(stream.local_addr().unwrap())).then_some(()));
    }

    #[test]
    fn the_end_of_a_connection_that_is_not_read_is_noticed() {
        #[track_caller]
        fn check(is_heard_before: bool) {
            let (mut net, address) = net();
            let mut stream = TcpStream::connect(address).unwrap();
            let conn = opened(&mut net);
            // What the peer does not read makes its end a reset.
            net.send(conn, 0..1);
            net.flush(b"x", Instant(0), true);
            stream.peek(&mut [0]).unwrap();
            if is_heard_before {
                stream.write_all(b"x").unwrap();
                turn_until(&mut net, |net| net.slots[conn.0 as usize].is_readable.then_some(()));
                net.read(conn, false);
            } else {
                net.read(conn, false);
                stream.write_all(b"x").unwrap();
                turn_until(&mut net, |net| net.slots[conn.0 as usize].is_readable.then_some(()));
            }
            assert!(net.next().is_none(), "nobody wants its bytes");
            drop(stream);
            let how = turn_until(&mut net, |net| match net.next() {
                Some(Input::Closed { how, .. }) => Some(how),
                _ => None,
            });
            assert_eq!(how, Hangup::Broken);
        }
        check(false);
        check(true);
    }

    /// Some connections whose clients have gone, which the engine knows.
    fn gone(net: &mut RingNet, address: SocketAddr, count: usize) -> Vec<SocketAddr> {
        let streams: Vec<_> = (0..count).map(|_| TcpStream::connect(address).unwrap()).collect();
        let peers = streams.iter().map(|stream| stream.local_addr().unwrap()).collect();
        await_opened(net, count);
        drop(streams);
        let mut left = count;
        for _ in 0..10_000 {
            net.gather(net.now);
            while let Some(input) = net.next() {
                left -= usize::from(matches!(input, Input::Closed { .. }));
            }
            net.flush(&[], net.now, true);
            if left == 0 {
                return peers;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        panic!("{left} are still there");
    }

    #[test]
    fn a_descriptor_is_closed_when_nothing_else_is_to_be_done() {
        let (mut net, address) = roomy_net();
        let mut speaker = TcpStream::connect(address).unwrap();
        opened(&mut net);
        let peers = gone(&mut net, address, 1);
        net.tidy(true);
        assert!(is_held(peers[0]), "the engine has something to do");
        assert!(net.has_work() && !net.is_settled());
        net.gather(Instant(0));
        speaker.write_all(b"x").unwrap();
        for _ in 0..10_000 {
            if net.has_heard() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        net.tidy(false);
        assert!(is_held(peers[0]), "somebody has said something");
        turn_until(&mut net, |net| matches!(net.next(), Some(Input::Bytes { .. })).then_some(()));
        net.tidy(false);
        assert!(!is_held(peers[0]));
        assert!(!net.has_work() && net.is_settled());
        assert_eq!(net.room.files_used.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn the_close_of_a_descriptor_is_not_put_off_for_long() {
        let (mut net, address) = roomy_net();
        let first = gone(&mut net, address, 1);
        for (now, is_there) in [(0, true), (PUT_OFF_MAX.0 - 1, true), (PUT_OFF_MAX.0, false)] {
            net.gather(Instant(now));
            net.tidy(true);
            assert_eq!(is_held(first[0]), is_there, "at {now}");
        }
        let many = gone(&mut net, address, PUT_OFF_COUNT_MAX + 2);
        net.tidy(true);
        let held = many.iter().filter(|peer| is_held(**peer)).count();
        assert_eq!(held, PUT_OFF_COUNT_MAX, "nor are many");
    }

    #[test]
    fn where_nobody_counts_descriptors_they_are_closed_at_once() {
        let (mut net, address) = net();
        let peers = gone(&mut net, address, 1);
        assert!(!is_held(peers[0]));
        assert!(net.is_settled());
    }

    #[test]
    fn who_needs_a_descriptor_gets_one_of_those_that_are_to_be_closed() {
        let (mut net, address) = shelving_net();
        gone(&mut net, address, 2);
        net.tidy(true);
        let _streams: Vec<_> = (0..2).map(|_| TcpStream::connect(address).unwrap()).collect();
        await_opened(&mut net, 2);
        assert_eq!((descriptors(&net), net.shelf.len()), (2, 0), "none is shelved");
        let (mut net, address) = roomy_net();
        let peers = gone(&mut net, address, 1);
        // As when the kernel has none left for a new one.
        net.accepted(-libc::EMFILE, false, Instant(0));
        assert!(net.accept_again.is_none(), "it is tried at once");
        assert!(!is_held(peers[0]));
    }

    #[test]
    fn the_end_of_a_peer_that_was_told_to_go_is_seen_at_once() {
        for has_more_to_say in [false, true] {
            let (mut net, address) = net();
            let mut stream = TcpStream::connect(address).unwrap();
            let conn = opened(&mut net);
            if has_more_to_say {
                stream.write_all(b"more").unwrap();
                turn_until(&mut net, |net| net.slots[conn.0 as usize].is_readable.then_some(()));
            }
            net.send(conn, 0..3);
            net.close(conn);
            net.flush(b"bye", Instant(0), true);
            let mut heard = String::new();
            stream.read_to_string(&mut heard).unwrap();
            assert_eq!(heard, "bye", "and nothing more comes");
            drop(stream);
            let how = turn_until(&mut net, |net| match net.next() {
                Some(Input::Closed { how, .. }) => Some(how),
                _ => None,
            });
            assert_eq!(how, Hangup::Ours);
        }
    }

    #[test]
    fn patience_with_a_closed_connection_ends() {
        let (mut net, address) = net();
        let _silent = TcpStream::connect(address).unwrap();
        let conn = opened(&mut net);
        net.send(conn, 0..32 << 20);
        net.close(conn);
        net.flush(&vec![0; 32 << 20], Instant(1_000), true);
        assert!(net.next().is_none());
        assert_eq!(net.next_wake(), Some(Instant(1_000) + CLOSING_MAX));
        net.gather(Instant(999) + CLOSING_MAX);
        assert!(net.next().is_none());
        net.gather(Instant(1_000) + CLOSING_MAX);
        assert!(matches!(net.next(), Some(Input::Closed { how: Hangup::Ours, .. })));
        net.tidy(false);
        assert!(net.is_settled());
        assert_eq!(net.room.used.load(Ordering::Relaxed), 0);
    }
}
