//! Messages between cores: a single-producer ring for each ordered pair of shards.
//!
//! **Order.** From one shard to another, messages arrive in the order in which they were sent. Across
//! shards, causes arrive before their effects: if B was sent after its sender had taken a message which
//! was sent after A, then whoever gets both takes A first, though they came through different rings.
//! Three rules keep that:
//!
//! 1. A core pushes its messages in the order in which they were made, *whoever they are for*, and lets a
//!    receiver know before it pushes the next receiver's. When a ring is full, everything behind that
//!    message waits too, in one outbox.
//! 2. Every message is stamped with the monotonic clock, read after everything that its sender has
//!    taken and before the push.
//! 3. A receiver reads the clock first, then looks into the rings and takes, in the order of stamps, only
//!    what is not newer than that reading.
//!
//! Why that suffices: let A be pushed before the sender of B took the message that A precedes (rule 1).
//! The stamp of B was read later than that (rule 2). If the receiver takes B, its reading is not older
//! than B's stamp, so A had been pushed before the reading, so A was in its ring when the receiver looked
//! (rule 3), and its stamp is older than B's.
//!
//! **No deadlock.** A core never waits for a peer: what does not fit stays in the outbox, and every core
//! goes on emptying the rings that lead to it. While an outbox is [long](Port::is_congested), its core
//! takes no more work from clients.
//!
//! Costs: some 20 ns a message, one clock reading and at most one wake-up a turn and peer;
//! [`RING_MESSAGES`] slots for each pair.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

use rtrb::{Consumer, Producer, RingBuffer};

use super::wake::Bell;
use crate::base::ShardId;
use crate::base::limits::SHARDS_MAX;

/// Messages that may wait in one ring.
pub(super) const RING_MESSAGES: usize = 4_096;
/// Messages in an outbox from which on a core leaves its clients unread.
pub(super) const OUTBOX_MESSAGES_LONG: usize = 4_096;

const _: () = assert!(SHARDS_MAX <= 64, "a set of shards is a u64");

/// What everybody can see of one core.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Seat {
    /// Wakes the core.
    pub(super) bell: Bell,
    /// Grows after messages have been pushed to this core, and before their sender pushes to another.
    batches: AtomicU64,
    /// Whether this core's outbox waits for a full ring to be emptied.
    is_stuck: AtomicBool,
}

impl Seat {
    /// A seat for a core.
    #[must_use]
    pub(super) fn new(bell: Bell) -> Self {
        Self { bell, batches: AtomicU64::new(0), is_stuck: AtomicBool::new(false) }
    }
}

/// A message with its sender's clock, in nanoseconds.
struct Stamped<M> {
    stamp: u64,
    message: M,
}

/// One core's end of the mesh.
pub(super) struct Port<M> {
    own: usize,
    seats: Arc<[Seat]>,
    /// Indexed by shard; `None` at this core's own place.
    outgoing: Vec<Option<Producer<Stamped<M>>>>,
    incoming: Vec<Option<Consumer<Stamped<M>>>>,
    /// Everything that is not in its ring yet, for all peers, in the order in which it was made.
    outbox: VecDeque<(usize, M)>,
    /// Our `Seat::batches` when we last looked into the rings.
    seen: u64,
    /// What [`next`](Self::next) may take: nothing newer.
    horizon: u64,
    /// The ring that `next` is at, and up to which stamp it holds the oldest messages of all.
    run: Option<(usize, u64)>,
    /// From whom messages were taken since they were last told so. Bit `s` is shard `s`.
    taken: u64,
}

/// Connects as many cores as there are seats. Port `n` is for the shard `n`.
#[must_use]
pub(super) fn connect<M: Send>(seats: &Arc<[Seat]>, ring_messages: usize) -> Vec<Port<M>> {
    let count = seats.len();
    assert!(count <= SHARDS_MAX, "the number of shards has been checked");
    let mut ports: Vec<Port<M>> = (0..count)
        .map(|own| Port {
            own,
            seats: Arc::clone(seats),
            outgoing: (0..count).map(|_| None).collect(),
            incoming: (0..count).map(|_| None).collect(),
            outbox: VecDeque::new(),
            seen: 0,
            horizon: 0,
            run: None,
            taken: 0,
        })
        .collect();
    for from in 0..count {
        for to in (0..count).filter(|&to| to != from) {
            let (producer, consumer) = RingBuffer::new(ring_messages);
            ports[from].outgoing[to] = Some(producer);
            ports[to].incoming[from] = Some(consumer);
        }
    }
    ports
}

impl<M: Send> Port<M> {
    /// Puts a message into the outbox. It leaves with the next [`flush`](Self::flush) that has room.
    pub(super) fn send(&mut self, to: ShardId, message: M) {
        assert_ne!(to.index(), self.own, "a shard does not write to itself");
        assert!(to.index() < self.seats.len(), "a message must be for one of the shards");
        self.outbox.push_back((to.index(), message));
    }

    /// Pushes what has room and wakes those who sleep. `stamp` reads the clock.
    pub(super) fn flush(&mut self, stamp: impl FnOnce() -> u64) {
        if self.outbox.is_empty() {
            return;
        }
        let stamp = stamp();
        let mut touched = 0_u64;
        let mut uncounted: Option<usize> = None;
        while let Some((to, message)) = self.outbox.pop_front() {
            // A receiver must be able to know of one message before anybody can have the next.
            if let Some(earlier) = uncounted.filter(|&earlier| earlier != to) {
                self.seats[earlier].batches.fetch_add(1, Ordering::Release);
            }
            let producer = self.outgoing[to].as_mut().expect("only a core's own place is empty");
            if let Err(rtrb::PushError::Full(Stamped { message, .. })) = producer.push(Stamped { stamp, message }) {
                uncounted = uncounted.filter(|&earlier| earlier == to);
                self.outbox.push_front((to, message));
                break;
            }
            uncounted = Some(to);
            touched |= 1 << to;
        }
        if let Some(last) = uncounted {
            self.seats[last].batches.fetch_add(1, Ordering::Release);
        }
        for to in ShardId::of_bits(touched) {
            self.seats[to.index()].bell.ring();
        }
        // A burst's room is given back; the usual turn's room is kept.
        if self.outbox.is_empty() && self.outbox.capacity() > 4 * OUTBOX_MESSAGES_LONG {
            self.outbox = VecDeque::new();
        }
    }

    /// Whether some message could not be pushed. Then nothing that was decided after it may become
    /// known to a client: it would know the effect before the cause has reached everybody.
    #[must_use]
    pub(super) fn is_stuck(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// How many messages could not be pushed.
    pub(super) fn waiting_count(&self) -> u64 {
        self.outbox.len() as u64
    }

    /// Whether so much waits that clients must wait, too.
    #[must_use]
    pub(super) fn is_congested(&self) -> bool {
        self.outbox.len() > OUTBOX_MESSAGES_LONG
    }

    /// Whether something was pushed to us since [`look`](Self::look) was last called. One load.
    #[must_use]
    pub(super) fn has_news(&self) -> bool {
        self.seats[self.own].batches.load(Ordering::Acquire) != self.seen
    }

    /// Begins to take: [`next`](Self::next) gives out everything that had been sent by now.
    pub(super) fn look(&mut self, stamp: impl FnOnce() -> u64) {
        // Before the clock: what comes in between is taken now and reported as news once more, which is
        // harmless. The other way round it would be neither taken nor reported.
        self.seen = self.seats[self.own].batches.load(Ordering::Acquire);
        self.horizon = stamp();
        self.run = None;
    }

    /// The oldest message of those that [`look`](Self::look) has promised.
    pub(super) fn next(&mut self) -> Option<(ShardId, M)> {
        loop {
            let (from, until) = match self.run {
                Some(run) => run,
                None => self.oldest()?,
            };
            let ring = self.incoming[from].as_mut().expect("only rings that exist are run through");
            if ring.peek().is_ok_and(|head| head.stamp <= until) {
                self.run = Some((from, until));
                self.taken |= 1 << from;
                let message = ring.pop().expect("its head was just seen").message;
                let from = u8::try_from(from).expect("there are at most 64 shards");
                return Some((ShardId(from), message));
            }
            self.run = None;
        }
    }

    /// Tells those who wait for room that there may be some.
    pub(super) fn tell_taken(&mut self) {
        if self.taken == 0 {
            return;
        }
        // Pairs with the fence in `is_blocked`: either it sees the room, or we see that it waits.
        fence(Ordering::SeqCst);
        for from in ShardId::of_bits(std::mem::take(&mut self.taken)) {
            let seat = &self.seats[from.index()];
            if seat.is_stuck.load(Ordering::Relaxed) && seat.is_stuck.swap(false, Ordering::Relaxed) {
                seat.bell.ring();
            }
        }
    }

    /// Before a sleep: whether the outbox is empty or cannot move. In the latter case whoever makes room
    /// will ring.
    pub(super) fn is_settled(&mut self) -> bool {
        let Some(&(to, _)) = self.outbox.front() else { return true };
        self.seats[self.own].is_stuck.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.outgoing[to].as_ref().expect("only a core's own place is empty").is_full()
    }

    /// The ring whose head is the oldest, and the stamp at which another ring's turn comes; `None` when
    /// nothing within the horizon is left.
    fn oldest(&self) -> Option<(usize, u64)> {
        let (mut best, mut until) = (None, self.horizon);
        let mut best_stamp = u64::MAX;
        for (from, ring) in self.incoming.iter().enumerate() {
            let Some(Ok(head)) = ring.as_ref().map(Consumer::peek) else { continue };
            if head.stamp > self.horizon {
                continue;
            }
            if head.stamp < best_stamp {
                until = until.min(best_stamp);
                (best, best_stamp) = (Some(from), head.stamp);
            } else {
                until = until.min(head.stamp);
            }
        }
        best.map(|from| (from, until))
    }
}

impl<M> std::fmt::Debug for Port<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Port").field("own", &self.own).field("outbox", &self.outbox.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "cores are plain threads here")]
mod tests {
    use super::*;
    use crate::runtime::clock;

    const A: ShardId = ShardId(0);
    const B: ShardId = ShardId(1);
    const C: ShardId = ShardId(2);

    fn three<M: Send>(ring_messages: usize) -> [Port<M>; 3] {
        let seats: Vec<Seat> = (0..3).map(|_| Seat::new(Bell::new().unwrap())).collect();
        connect(&seats.into(), ring_messages).try_into().unwrap()
    }

    fn all<M: Send>(port: &mut Port<M>, at: u64) -> Vec<M> {
        port.look(|| at);
        std::iter::from_fn(|| port.next()).map(|(_, message)| message).collect()
    }

    #[test]
    fn messages_come_in_the_order_of_their_stamps() {
        let [mut a, mut b, mut c] = three(8);
        for (stamp, message) in [(10, "a10"), (12, "a12"), (12, "a12 too"), (14, "a14"), (20, "a20")] {
            a.send(C, message);
            a.flush(|| stamp);
        }
        for (stamp, message) in [(11, "b11"), (13, "b13")] {
            b.send(C, message);
            b.flush(|| stamp);
        }
        assert!(c.has_news());
        assert_eq!(all(&mut c, 9), [""; 0]);
        assert_eq!(all(&mut c, 14), ["a10", "b11", "a12", "a12 too", "b13", "a14"]);
        assert_eq!(all(&mut c, 20), ["a20"]);
        assert!(!c.has_news());
    }

    #[test]
    fn what_is_newer_than_the_look_waits_for_the_next() {
        let [mut a, mut b, mut c] = three(8);
        b.send(C, "old");
        b.flush(|| 5);
        c.look(|| 10);
        assert_eq!(c.next(), Some((B, "old")));
        // The second follows from the first; the ring of the first may have been looked at already.
        a.send(C, "cause");
        a.flush(|| 11);
        b.send(C, "effect");
        b.flush(|| 12);
        assert_eq!(c.next(), None);
        assert!(c.has_news(), "it must come back for them");
        assert_eq!(all(&mut c, 12), ["cause", "effect"]);
    }

    #[test]
    fn a_full_ring_holds_back_everything_behind_it() {
        let [mut a, mut b, mut c] = three(2);
        for (to, message) in [(B, 1), (B, 2), (B, 3), (C, 4), (B, 5)] {
            a.send(to, message);
        }
        a.flush(|| 1);
        assert!(a.is_stuck());
        assert_eq!(all(&mut c, 9), [0; 0], "4 must not overtake 3");
        assert!(a.is_settled(), "nothing to do but wait");
        assert_eq!(all(&mut b, 9), [1, 2]);
        assert!(!a.is_settled(), "there is room");
        a.flush(|| 2);
        assert!(!a.is_stuck());
        assert_eq!((all(&mut c, 9), all(&mut b, 9)), (vec![4], vec![3, 5]));
    }

    #[test]
    fn a_long_outbox_is_congested() {
        let [mut a, ..] = three(1);
        for _ in 0..=OUTBOX_MESSAGES_LONG {
            assert!(!a.is_congested());
            a.send(B, ());
        }
        assert!(a.is_congested());
    }

    /// Two threads that have much to say to each other, through rings that hold little. Neither takes anything new
    /// from its clients while its outbox is long, and both go on taking what comes.
    #[test]
    fn two_that_flood_each_other_both_get_through() {
        const MESSAGES: u32 = 200_000;
        let [a, b, _] = three(4);
        let flood = |mut port: Port<u32>, to: ShardId| {
            let (mut sent, mut taken) = (0, 0);
            while taken < MESSAGES || sent < MESSAGES || port.is_stuck() {
                for _ in 0..64 {
                    if sent < MESSAGES && !port.is_congested() {
                        port.send(to, sent);
                        sent += 1;
                    }
                }
                assert!(port.waiting_count() <= OUTBOX_MESSAGES_LONG as u64 + 1, "what waits has a limit");
                port.look(clock::stamp);
                while let Some((_, number)) = port.next() {
                    assert_eq!(number, taken);
                    taken += 1;
                }
                port.tell_taken();
                port.flush(clock::stamp);
            }
        };
        let one = std::thread::spawn(move || flood(a, B));
        flood(b, A);
        one.join().unwrap();
    }

    /// Three threads: A tells C, then B; B, when told, tells C. C must hear of each thing from A first.
    #[test]
    fn causes_arrive_before_their_effects() {
        const ROUNDS: u32 = 100_000;
        let [mut a, mut b, mut c] = three(16);
        let first = std::thread::spawn(move || {
            let mut round = 0;
            while round < ROUNDS || a.is_stuck() {
                if round < ROUNDS && !a.is_stuck() {
                    a.send(C, round);
                    a.send(B, round);
                    round += 1;
                }
                a.flush(clock::stamp);
                std::thread::yield_now();
            }
        });
        let second = std::thread::spawn(move || {
            let mut told = 0;
            while told < ROUNDS || b.is_stuck() {
                b.look(clock::stamp);
                while let Some((from, round)) = b.next() {
                    assert_eq!((from, round), (A, told));
                    told += 1;
                    b.send(C, round);
                }
                b.flush(clock::stamp);
                std::thread::yield_now();
            }
        });
        let (mut from_a, mut from_b) = (0, 0);
        while from_b < ROUNDS {
            c.look(clock::stamp);
            while let Some((from, round)) = c.next() {
                let heard = if from == A { &mut from_a } else { &mut from_b };
                assert_eq!(*heard, round, "in order from {from:?}");
                *heard += 1;
                assert!(from_a >= from_b, "{round} came from B before it came from A");
            }
            std::thread::yield_now();
        }
        first.join().unwrap();
        second.join().unwrap();
    }
}
