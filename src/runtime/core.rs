//! The turn: the one loop of each core.
//!
//! Gather what has happened, read the clock once, let the engine decide about each thing, perform what
//! it wants done, sleep if there is nothing left. The loop decides nothing itself; its one subtlety is
//! the *order* of things, on which "a client cannot tell how many cores there are" rests:
//!
//! - Messages of a turn go to the peers before its bytes go to clients; while some message could not go,
//!   bytes to clients are kept. Whoever reads an answer can rely on every core knowing its cause.
//! - Whatever a client has sent is handled after all messages that had been sent to this core when it
//!   was received. A client that acts upon an answer never outruns that answer's cause.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError};

use rustls::ServerConfig;

use super::dtls::DtlsKeys;
use super::guests::Guests;
use super::memory::{Change, Gauge};
use super::mesh::{Port, Seat};
use super::meters::{Meters, Reading};
use super::net::Net;
use super::store::Store;
use super::wake::Sleep;
use super::{Notify, clock};
use crate::base::{Instant, Millis, Now, ShardId};
use crate::engine::{self, Effect, Engine, Input, Message, Output, Room};

/// Messages of other cores that the core is given in one call.
const MESSAGES_PER_CALL: usize = 64;
/// Turns between two looks at the executor's other tasks.
const TURNS_PER_YIELD: u32 = 8;
/// Bytes for clients that may gather in a turn before they are sent.
const OUTPUT_BYTES: usize = 1024 * 1024;
/// Room for bytes to clients that is kept from turn to turn.
const OUTPUT_BYTES_KEPT: usize = 4 * 1024 * 1024;

/// What a loop drives: an [`Engine`], or something simpler in a test.
pub trait Core {
    /// Takes in one thing that happened and appends what is to be done about it.
    fn handle(&mut self, now: Now, input: Input<'_>, output: &mut Output);
    /// When [`Input::Tick`] is due.
    fn next_wake(&self) -> Option<Instant>;
    /// Whether [`Input::Tick`] is wanted at once.
    fn is_busy(&self) -> bool;
    /// What it has counted.
    fn meters(&self) -> engine::Meters {
        engine::Meters::default()
    }
    /// Whether a snapshot can begin.
    fn may_snapshot(&self) -> bool {
        true
    }
    /// Begins a snapshot of what is written down, as it is now.
    fn begin_snapshot(&mut self) {}
    /// Appends the next records of that snapshot; says whether there are more.
    fn snapshot_slice(&mut self, _: &mut Vec<u8>) -> bool {
        false
    }
}

impl Core for Engine {
    fn handle(&mut self, now: Now, input: Input<'_>, output: &mut Output) {
        Self::handle(self, now, input, output);
    }

    fn next_wake(&self) -> Option<Instant> {
        Self::next_wake(self)
    }

    fn is_busy(&self) -> bool {
        Self::is_busy(self)
    }

    fn meters(&self) -> engine::Meters {
        Self::meters(self)
    }

    fn may_snapshot(&self) -> bool {
        Self::may_snapshot(self)
    }

    fn begin_snapshot(&mut self) {
        Self::begin_snapshot(self);
    }

    fn snapshot_slice(&mut self, records: &mut Vec<u8>) -> bool {
        Self::snapshot_slice(self, records)
    }
}

/// One core's loop and everything it owns.
pub(super) struct Loop<C, N> {
    pub(super) shard: ShardId,
    pub(super) core: C,
    pub(super) net: N,
    pub(super) port: Port<Message>,
    /// Lent to the core with what has come from others.
    pub(super) inbox: VecDeque<Message>,
    pub(super) seats: Arc<[Seat]>,
    pub(super) commands: Receiver<Command>,
    pub(super) notify: Notify,
    /// How long the end may take.
    pub(super) drain_max: Millis,
    /// How many cores have said that they are drained.
    pub(super) drained_count: Arc<AtomicUsize>,
    pub(super) stage: Stage,
    /// A command that came while we looked whether we may sleep.
    pub(super) waiting_command: Option<Command>,
    pub(super) output: Output,
    /// Where records go, if any do.
    pub(super) store: Option<Store>,
    /// How much memory is left.
    pub(super) gauge: Gauge,
    /// Sessions of the program that the server runs within.
    pub(super) guests: Guests,
    pub(super) meters: Meters,
}

/// What another thread tells a core.
#[derive(Debug)]
pub(super) enum Command {
    /// Something for its engine.
    Handle(Input<'static>),
    /// A certificate for its net.
    Certify(Arc<ServerConfig>),
    /// Somebody wants to know what it has counted.
    Measure(Sender<Reading>),
    /// The same for its datagrams.
    CertifyDatagrams(DtlsKeys),
}

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Not begun.
    Serving,
    /// The engine was told; patience ends at `until`.
    Draining {
        /// The last moment.
        until: Instant,
    },
    /// The engine is done. Its peers may still need it.
    Drained {
        /// The last moment.
        until: Instant,
    },
}

impl<C: Core, N: Net> Loop<C, N> {
    /// Turns until everything is drained.
    ///
    /// # Errors
    /// When this core cannot sleep.
    pub(super) async fn run(mut self, sleep: Sleep) -> io::Result<()> {
        let mut turns = 0_u32;
        let seats = Arc::clone(&self.seats);
        let bell = &seats[self.shard.index()].bell;
        loop {
            let now = clock::read();
            let began = clock::stamp();
            self.turn(now);
            self.meters.turned((clock::stamp() - began) / 1_000);
            if self.is_over(now.instant) {
                break;
            }
            turns = turns.wrapping_add(1);
            // Who writes rings the bell when a frame is done: a core that has nothing else to do sleeps until then.
            let is_writing = self.store.as_ref().is_some_and(Store::is_writing);
            if self.has_work(now.instant) {
                if is_writing {
                    Sleep::pass().await;
                } else if turns.is_multiple_of(TURNS_PER_YIELD) {
                    glommio::executor().yield_task_queue_now().await;
                }
            } else {
                sleep.unless(bell, is_writing, || self.look_again()).await?;
                self.net.wake();
            }
        }
        sleep.close().await;
        Ok(())
    }

    /// Everything that has happened by now, and everything that follows from it.
    pub(super) fn turn(&mut self, now: Now) {
        self.net.gather(now.instant);
        self.look_at_memory(now);
        self.release(now);
        self.take_commands(now);
        self.take_guests(now);
        self.take_messages(now);
        self.take_sockets(now);
        let is_due = self.core.next_wake().is_some_and(|due| due <= now.instant);
        // Work that was put off makes messages; there must be room for them.
        if is_due || (self.core.is_busy() && !self.port.is_congested()) {
            self.core.handle(now, Input::Tick, &mut self.output);
        }
        self.perform(now);
        let is_congested = self.is_congested() || self.store.as_ref().is_some_and(Store::is_congested);
        self.net.hold_reads(is_congested);
        self.net.tidy(self.core.is_busy() || self.port.has_news());
    }

    fn look_at_memory(&mut self, now: Now) {
        let Some(Change { room, is_news }) = self.gauge.look(now.instant) else { return };
        if is_news {
            match room {
                Room::Ample => tracing::info!("there is memory again"),
                Room::Little | Room::None => tracing::error!("memory_max is reached: only deletes are taken"),
            }
        }
        self.core.handle(now, Input::Room(room), &mut self.output);
    }

    /// Whether peers, or the couriers of guests, are so far behind that clients must wait.
    fn is_congested(&self) -> bool {
        self.port.is_congested() || self.guests.is_congested()
    }

    /// Does what had to wait for records that are safe now.
    fn release(&mut self, now: Now) {
        let Some(mut store) = self.store.take() else { return };
        if let Some(is_full) = store.take_fullness() {
            self.core.handle(now, Input::Full(is_full), &mut self.output);
        }
        while let Some(mut output) = store.release(&self.net) {
            self.execute(now, &mut output);
            store.recycle(output);
        }
        store.snapshot(&mut self.core);
        self.store = Some(store);
    }

    fn take_commands(&mut self, now: Now) {
        loop {
            let command = match self.waiting_command.take() {
                Some(command) => command,
                // Nobody is left who could send commands: there will be none.
                None => match self.commands.try_recv() {
                    Ok(command) => command,
                    Err(TryRecvError::Empty | TryRecvError::Disconnected) => return,
                },
            };
            let input = match command {
                Command::Handle(input) => input,
                Command::Certify(config) => {
                    self.net.certify(config);
                    continue;
                }
                Command::Measure(asker) => {
                    let reading = Reading { shard: self.shard, core: self.measure(), engine: self.core.meters() };
                    let _heard_or_gone = asker.send(reading);
                    continue;
                }
                Command::CertifyDatagrams(keys) => {
                    self.net.certify_datagrams(&keys);
                    continue;
                }
            };
            if matches!(input, Input::Drain) {
                if self.stage != Stage::Serving {
                    continue;
                }
                self.stage = Stage::Draining { until: now.instant + self.drain_max };
                self.net.stop_accepting();
            }
            self.core.handle(now, input, &mut self.output);
        }
    }

    fn take_guests(&mut self, now: Now) {
        if self.is_congested() {
            return;
        }
        self.guests.begin_turn();
        while let Some((guest, saying)) = self.guests.next() {
            // What had been sent to us when this was said comes first.
            if self.port.has_news() {
                hand_over(&mut self.port, &mut self.inbox, &mut self.core, now, &mut self.output);
            }
            self.core.handle(now, Input::Guest { guest, saying }, &mut self.output);
            if self.output.bytes.len() >= OUTPUT_BYTES {
                self.perform(now);
            }
        }
    }

    fn measure(&self) -> Meters {
        let mut meters = self.meters.clone();
        meters.outbox = self.port.waiting_count();
        self.guests.measure(&mut meters);
        if let Some(store) = &self.store {
            store.measure(&mut meters);
        }
        meters
    }

    fn take_messages(&mut self, now: Now) {
        if self.port.has_news() {
            hand_over(&mut self.port, &mut self.inbox, &mut self.core, now, &mut self.output);
        }
    }

    fn take_sockets(&mut self, now: Now) {
        while let Some(input) = self.net.next() {
            // What had been sent to us when these bytes arrived comes first.
            if self.port.has_news() {
                hand_over(&mut self.port, &mut self.inbox, &mut self.core, now, &mut self.output);
            }
            self.core.handle(now, input, &mut self.output);
            if self.output.bytes.len() >= OUTPUT_BYTES {
                self.perform(now);
            }
        }
    }

    /// Does what the engine wants done, and tells it what comes of it, until nothing does.
    fn perform(&mut self, now: Now) {
        loop {
            if let Some(store) = &mut self.store {
                store.hold(&mut self.output, &self.net);
            }
            let mut output = std::mem::take(&mut self.output);
            self.execute(now, &mut output);
            self.output = output;
            // Only what the flush has brought up: sockets are read in their own time.
            while let Some(input) = self.net.next_news() {
                self.core.handle(now, input, &mut self.output);
            }
            if self.output.effects.is_empty() && self.output.records.is_empty() {
                return;
            }
        }
    }

    fn execute(&mut self, now: Now, output: &mut Output) {
        for effect in output.effects.drain(..) {
            match effect {
                Effect::Send { conn, bytes } => self.net.send(conn, bytes),
                Effect::Datagram { peer, bytes } => self.net.post(peer, bytes),
                Effect::Close { conn } => self.net.close(conn),
                Effect::Read { conn, is_wanted } => self.net.read(conn, is_wanted),
                Effect::Forward { to, message } => self.port.send(to, message),
                Effect::Guest { guest, word } => self.guests.tell(guest, word),
                Effect::TellGuests { event, to } => self.guests.tell_all(&event, &to),
                Effect::Notice(notice) => (self.notify)(self.shard, &notice),
                Effect::Drained => {
                    if let Stage::Draining { until } = self.stage {
                        self.stage = Stage::Drained { until };
                        self.drained_count.fetch_add(1, Ordering::SeqCst);
                        self.seats.iter().for_each(|seat| seat.bell.ring());
                    }
                }
            }
        }
        self.port.flush(clock::stamp);
        // While a message could not go, nobody may learn what follows from it.
        if !self.port.is_stuck() {
            self.guests.flush();
        }
        self.net.flush(&output.bytes, now.instant, !self.port.is_stuck());
        output.clear();
        output.bytes.shrink_to(OUTPUT_BYTES_KEPT);
    }

    /// Whether another turn is due at once.
    fn has_work(&self, now: Instant) -> bool {
        self.waiting_command.is_some()
            || (self.guests.has_work() && !self.is_congested())
            || self.net.has_work()
            || self.port.has_news()
            || self.store.as_ref().is_some_and(|store| store.has_news() || store.is_snapshot_due(&self.core))
            || (self.core.is_busy() && !self.port.is_congested())
            || self.next_wake().is_some_and(|due| due <= now)
    }

    /// The last look before a sleep, after which the bell rings for whatever comes.
    fn look_again(&mut self) -> bool {
        let until = self.next_wake();
        self.waiting_command = self.commands.try_recv().ok();
        self.waiting_command.is_some()
            || (!self.is_congested() && self.guests.look_again())
            || self.port.has_news()
            || !self.port.is_settled()
            || self.is_done()
            || !self.net.is_quiet(until)
    }

    fn next_wake(&self) -> Option<Instant> {
        let end = match self.stage {
            Stage::Serving => None,
            Stage::Draining { until } | Stage::Drained { until } => Some(until),
        };
        [self.core.next_wake(), self.net.next_wake(), end].into_iter().flatten().min()
    }

    /// Whether nobody needs this core any more, and nobody waits for bytes from it.
    fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Drained { .. })
            && self.drained_count.load(Ordering::SeqCst) == self.seats.len()
            && !self.port.is_stuck()
            && !self.port.has_news()
            && self.net.is_settled()
            && self.guests.is_settled()
            && self.store.as_ref().is_none_or(Store::is_settled)
    }

    /// Whether this core may go: it is done, or patience is over.
    fn is_over(&self, now: Instant) -> bool {
        match self.stage {
            Stage::Serving => false,
            Stage::Draining { until } | Stage::Drained { until } => now >= until || self.is_done(),
        }
    }
}

/// Gives the core every message that had been sent to it by now, by way of an empty `inbox`.
fn hand_over(
    port: &mut Port<Message>,
    inbox: &mut VecDeque<Message>,
    core: &mut impl Core,
    now: Now,
    output: &mut Output,
) {
    port.look(clock::stamp);
    loop {
        inbox.extend(std::iter::from_fn(|| port.next()).map(|(_, message)| message).take(MESSAGES_PER_CALL));
        if inbox.is_empty() {
            break;
        }
        core.handle(now, Input::Forwarded { messages: inbox }, output);
        assert!(inbox.is_empty(), "what is handed over is taken");
    }
    port.tell_taken();
}
