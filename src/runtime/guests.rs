//! Sessions of the program that the server runs within: from its threads to the core, and back.
//!
//! What the program says comes through a bounded queue a core, the [`Door`]; who brings something rings the
//! core's bell. What it hears leaves through a *courier*, a thread for each core that tells the [`Ear`]s. The
//! surprising idea: the courier exists so that no core ever runs code of the program, not even to wake a
//! task of it, nor waits for a lock that a thread of the program may hold.
//!
//! Costs: a queue entry each way and one wake-up of the courier a turn; 16 bytes a guest.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::{Builder, JoinHandle};

use slab::Slab;

use super::Watch;
use super::mesh::Seat;
use super::meters::Meters;
use crate::base::limits::{GUEST_CARRIED_MAX, GUEST_QUEUE_MAX, GUEST_SAYINGS_PER_TURN};
use crate::base::{GuestId, ShardId};
use crate::engine::{GuestWord, Parting, Saying};
use crate::op::{End, Event, Tag};

/// Somebody who has a guest, or wants one. Told by a courier, never by a core.
pub trait Ear: Send + Sync + 'static {
    /// Where its core keeps the guest's number.
    fn place(&self) -> &Place;
    /// Takes a word. [`GuestWord::Over`] is the last; it may come twice.
    fn hear(&self, word: GuestWord);
    /// Takes an event of the listen with this tag.
    fn hear_event(&self, event: &Arc<Event>, tag: Tag);
}

/// Where a guest's ear and its core keep what both must know.
#[derive(Debug)]
pub struct Place {
    /// The guest's number. Only the core reads and writes it.
    number: AtomicU32,
    /// A sign of life is on its way.
    is_heard: AtomicBool,
}

/// The number of nobody.
const NOBODY: u32 = u32::MAX;

impl Default for Place {
    fn default() -> Self {
        Self { number: AtomicU32::new(NOBODY), is_heard: AtomicBool::new(false) }
    }
}

impl Place {
    /// Whether a sign of life is to be [said](Saying::Heard): not if one is on its way, for it would say nothing
    /// more.
    pub fn begin_heartbeat(&self) -> bool {
        !self.is_heard.swap(true, Ordering::Relaxed)
    }

    fn get(&self) -> Option<usize> {
        let number = self.number.load(Ordering::Relaxed);
        (number != NOBODY).then_some(number as usize)
    }

    fn set(&self, number: Option<usize>) {
        let number = number.map_or(NOBODY, |number| u32::try_from(number).expect("guests are sessions"));
        self.number.store(number, Ordering::Relaxed);
    }
}

/// One thing that is said for a guest. Whatever becomes of it, its ear hears: if nobody takes it, that
/// everything is over.
struct Call {
    ear: Arc<dyn Ear>,
    /// Taken by the core.
    saying: Option<Saying>,
    /// Whether it has a place in the queue that others wait for.
    is_counted: bool,
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.saying.is_some() {
            self.ear.hear(over());
        }
    }
}

const fn over() -> GuestWord {
    GuestWord::Over(Parting::Ended(End::ServerStopped))
}

/// The way into one core, for any thread.
#[derive(Clone)]
pub struct Door {
    shard: ShardId,
    seats: Arc<[Seat]>,
    calls: Sender<Call>,
    gate: Arc<Gate>,
}

/// How full a core's queue is, and who waits for room in it.
#[derive(Debug, Default)]
struct Gate {
    queued: AtomicUsize,
    /// How many stand in `waiting`.
    waiting_count: AtomicUsize,
    waiting: Mutex<Vec<Waker>>,
    /// The core has ended: nobody has to wait, for everybody is told that at once.
    is_closed: AtomicBool,
}

impl Gate {
    fn try_enter(&self) -> bool {
        let is_room = self.queued.fetch_add(1, Ordering::SeqCst) < GUEST_QUEUE_MAX;
        let is_room = is_room || self.is_closed.load(Ordering::SeqCst);
        if !is_room {
            self.queued.fetch_sub(1, Ordering::SeqCst);
        }
        is_room
    }

    /// Says whether those who wait should come now.
    fn leave(&self) -> bool {
        let left = self.queued.fetch_sub(1, Ordering::SeqCst) - 1;
        left <= GUEST_QUEUE_MAX / 2 && self.waiting_count.load(Ordering::SeqCst) > 0
    }

    fn wait(&self, waker: &Waker) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.iter().any(|other| other.will_wake(waker)) {
            waiting.push(waker.clone());
        }
        self.waiting_count.store(waiting.len(), Ordering::SeqCst);
    }

    fn wake_all(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiting_count.store(0, Ordering::SeqCst);
        let wakers = std::mem::take(&mut *waiting);
        drop(waiting);
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// A place in a core's queue: for one call of [`Door::say`].
#[derive(Debug)]
pub struct Ticket {
    gate: Arc<Gate>,
    is_used: bool,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.is_used && self.gate.leave() {
            self.gate.wake_all();
        }
    }
}

impl Door {
    /// Waits for a place in the queue.
    pub fn enter(&self) -> impl Future<Output = Ticket> + Send + use<> {
        Entering { gate: Arc::clone(&self.gate) }
    }

    /// Says something for a guest, in the order of the calls.
    pub fn say(&self, mut ticket: Ticket, ear: Arc<dyn Ear>, saying: Saying) {
        assert!(Arc::ptr_eq(&ticket.gate, &self.gate), "a ticket is for one door");
        ticket.is_used = true;
        self.send(Call { ear, saying: Some(saying), is_counted: true });
    }

    /// The same without a place in the queue: for what must not wait, of which each guest has only so much.
    pub fn say_at_once(&self, ear: Arc<dyn Ear>, saying: Saying) {
        self.send(Call { ear, saying: Some(saying), is_counted: false });
    }

    fn send(&self, call: Call) {
        // A core that has ended gives it back, and its drop tells the ear.
        let _sent_or_ended = self.calls.send(call);
        self.seats[self.shard.index()].bell.ring();
    }
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Door({})", self.shard.0)
    }
}

/// See [`Door::enter`].
struct Entering {
    gate: Arc<Gate>,
}

impl Future for Entering {
    type Output = Ticket;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Ticket> {
        let ticket = || Ticket { gate: Arc::clone(&self.gate), is_used: false };
        if self.gate.try_enter() {
            return Poll::Ready(ticket());
        }
        self.gate.wait(context.waker());
        // There may be room since we looked, and then nobody would wake us.
        if self.gate.try_enter() { Poll::Ready(ticket()) } else { Poll::Pending }
    }
}

/// What a courier carries.
enum Parcel {
    Word(Arc<dyn Ear>, GuestWord),
    Event(Arc<Event>, Vec<(Arc<dyn Ear>, Tag)>),
    /// There is room in the queue.
    Room,
}

impl Parcel {
    const fn weight(&self) -> usize {
        match self {
            Self::Word(..) | Self::Room => 1,
            Self::Event(_, to) => to.len(),
        }
    }
}

/// The core's side.
pub(super) struct Guests {
    calls: Receiver<Call>,
    /// One that came while we looked whether we may sleep.
    waiting: Option<Call>,
    /// What this turn may still take.
    left: usize,
    /// There may be more than that.
    is_more: bool,
    ears: Slab<Arc<dyn Ear>>,
    outbox: Vec<Parcel>,
    /// `None`: there is no courier, and nobody has a door.
    courier: Option<Sender<Vec<Parcel>>>,
    /// Words and events that the courier has not told.
    carried: Arc<AtomicUsize>,
    gate: Arc<Gate>,
}

/// One core's guests, and the way in for others; with a courier if anybody is to have it.
pub(super) fn connect(shard: ShardId, seats: &Arc<[Seat]>, has_courier: bool) -> io::Result<(Guests, Door, Courier)> {
    let (sender, calls) = channel();
    let (gate, carried) = (Arc::new(Gate::default()), Arc::new(AtomicUsize::new(0)));
    let door = Door { shard, seats: Arc::clone(seats), calls: sender, gate: Arc::clone(&gate) };
    let (courier, thread) = if has_courier {
        let (courier, parcels) = channel();
        let round = Round { shard, seats: Arc::clone(seats), carried: Arc::clone(&carried), gate: Arc::clone(&gate) };
        let thread = Builder::new().name(format!("courier-{}", shard.0)).spawn(move || round.run(&parcels))?;
        (Some(courier), Some(thread))
    } else {
        (None, None)
    };
    let guests = Guests {
        calls,
        waiting: None,
        left: 0,
        is_more: false,
        ears: Slab::new(),
        outbox: Vec::new(),
        courier,
        carried,
        gate,
    };
    Ok((guests, door, Courier(thread)))
}

/// A courier's thread, if there is one. It ends after its core.
#[derive(Debug)]
pub(super) struct Courier(pub(super) Option<JoinHandle<()>>);

impl Guests {
    /// A turn begins: it takes in so much and no more.
    pub(super) const fn begin_turn(&mut self) {
        self.left = GUEST_SAYINGS_PER_TURN;
        self.is_more = false;
    }

    /// The next thing that somebody says.
    pub(super) fn next(&mut self) -> Option<(GuestId, Saying)> {
        while self.left > 0 {
            let mut call = self.waiting.take().or_else(|| self.calls.try_recv().ok())?;
            self.left -= 1;
            if call.is_counted && self.gate.leave() && !matches!(self.outbox.last(), Some(Parcel::Room)) {
                self.outbox.push(Parcel::Room);
            }
            let saying = call.saying.take().expect("a call is taken once");
            let place = call.ear.place();
            if matches!(saying, Saying::Heard) {
                place.is_heard.store(false, Ordering::Relaxed);
            }
            if matches!(saying, Saying::Open(_)) {
                assert!(place.get().is_none(), "an ear has one guest");
                place.set(Some(self.ears.insert(Arc::clone(&call.ear))));
            }
            // A guest that is over has been told so.
            if let Some(number) = place.get() {
                let guest = GuestId(u32::try_from(number).expect("guests are sessions"));
                return Some((guest, saying));
            }
        }
        self.is_more = true;
        None
    }

    /// Gives a guest's ear a word.
    pub(super) fn tell(&mut self, guest: GuestId, word: GuestWord) {
        let Some(ear) = self.ears.get(guest.0 as usize).cloned() else { return };
        if matches!(word, GuestWord::Over(_)) {
            self.ears.remove(guest.0 as usize);
            ear.place().set(None);
        }
        self.outbox.push(Parcel::Word(ear, word));
    }

    /// Gives guests' ears an event.
    pub(super) fn tell_all(&mut self, event: &Arc<Event>, to: &[(GuestId, Tag)]) {
        let ears = to.iter().filter_map(|(guest, tag)| Some((Arc::clone(self.ears.get(guest.0 as usize)?), *tag)));
        self.outbox.push(Parcel::Event(Arc::clone(event), ears.collect()));
    }

    /// Gives the courier what has gathered.
    pub(super) fn flush(&mut self) {
        if self.outbox.is_empty() {
            return;
        }
        let parcels = std::mem::take(&mut self.outbox);
        self.carried.fetch_add(parcels.iter().map(Parcel::weight).sum(), Ordering::SeqCst);
        let courier = self.courier.as_ref().expect("only who has a door has guests, and then there is a courier");
        assert!(courier.send(parcels).is_ok(), "the courier ends after its core");
    }

    /// Whether so much waits for the courier that clients must wait, too.
    pub(super) fn is_congested(&self) -> bool {
        self.carried.load(Ordering::SeqCst) > GUEST_CARRIED_MAX
    }

    /// Whether something was left for another turn.
    pub(super) const fn has_work(&self) -> bool {
        self.is_more || self.waiting.is_some()
    }

    /// Notes what waits.
    pub(super) fn measure(&self, meters: &mut Meters) {
        meters.guest_queue = self.gate.queued.load(Ordering::Relaxed) as u64;
        meters.courier_queue = self.carried.load(Ordering::Relaxed) as u64;
    }

    /// The last look before a sleep: whether somebody says something.
    pub(super) fn look_again(&mut self) -> bool {
        if self.waiting.is_none() {
            self.waiting = self.calls.try_recv().ok();
        }
        self.waiting.is_some()
    }

    /// Whether nothing waits to be given to the courier.
    pub(super) const fn is_settled(&self) -> bool {
        self.outbox.is_empty()
    }
}

impl Drop for Guests {
    /// The core ends, and with it every guest: also those whose last words it had no time for.
    fn drop(&mut self) {
        let left: Vec<_> = self.ears.drain().collect();
        self.outbox.extend(left.into_iter().map(|ear| Parcel::Word(ear, over())));
        self.flush();
    }
}

/// A courier's work.
struct Round {
    shard: ShardId,
    seats: Arc<[Seat]>,
    carried: Arc<AtomicUsize>,
    gate: Arc<Gate>,
}

impl Round {
    /// Carries until the core has ended.
    fn run(self, parcels: &Receiver<Vec<Parcel>>) {
        let _watch = Watch(self.shard);
        while let Ok(parcels) = parcels.recv() {
            for parcel in parcels {
                let weight = parcel.weight();
                match parcel {
                    Parcel::Word(ear, word) => ear.hear(word),
                    Parcel::Event(event, to) => to.iter().for_each(|(ear, tag)| ear.hear_event(&event, *tag)),
                    Parcel::Room => self.gate.wake_all(),
                }
                let before = self.carried.fetch_sub(weight, Ordering::SeqCst);
                if before > GUEST_CARRIED_MAX && before - weight <= GUEST_CARRIED_MAX {
                    self.seats[self.shard.index()].bell.ring();
                }
            }
        }
        // Nobody takes anything any more: who waits for room is told by what it says next.
        self.gate.is_closed.store(true, Ordering::SeqCst);
        self.gate.wake_all();
    }
}

#[cfg(test)]
mod tests;
