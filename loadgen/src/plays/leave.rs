//! Clients stay, go, or fall silent.

use std::ops::Range;
use std::time::Duration;

use super::watcher::Watcher;
use crate::client::{Ending, Event, Orders, Play};
use crate::clock::Moment;
use crate::report::Latency;

/// Clients that go in one go: few, so that the watcher is served in between.
const SLICE: u32 = 64;
/// A deadline that is exact to a millisecond may seem this much too early: both ends round.
const ROUNDING: Duration = Duration::from_millis(2);

/// Clients stay and answer pings, until a moment.
pub struct Hold {
    until: Moment,
    now: Moment,
    /// Pings that were answered.
    pub pings: u64,
    /// Clients that the server has sent away.
    pub gone: u32,
}

impl Hold {
    /// Until `until`.
    #[must_use]
    pub const fn new(until: Moment) -> Self {
        Self { until, now: Moment::START, pings: 0, gone: 0 }
    }
}

impl Play for Hold {
    fn on(&mut self, _at: Moment, _client: u32, event: &Event<'_>, _orders: &mut Orders) {
        match event {
            Event::Pinged => self.pings += 1,
            Event::Gone => self.gone += 1,
            _ => {}
        }
    }

    fn tick(&mut self, now: Moment, _orders: &mut Orders) -> Moment {
        self.now = now;
        self.until
    }

    fn is_over(&self) -> bool {
        self.now >= self.until
    }

    fn progress(&self) -> String {
        format!("{} pings answered, {} sent away", self.pings, self.gone)
    }
}

/// What clients have to do with tracks: client `first + n` has the tracks `n * words` and following.
#[derive(Clone, Debug)]
struct Troop {
    clients: Range<u32>,
    words: u32,
    /// The next to go.
    next: u32,
    /// When each has gone.
    gone_at: Vec<Moment>,
}

impl Troop {
    fn new(clients: Range<u32>, words: u32) -> Self {
        Self { next: clients.start, gone_at: vec![Moment::NEVER; clients.len()], clients, words }
    }

    fn tracks(&self, client: u32) -> Range<usize> {
        let first = ((client - self.clients.start) * self.words) as usize;
        first..first + self.words as usize
    }

    fn gone_at(&self, track: usize) -> Moment {
        self.gone_at.get(track / self.words as usize).copied().unwrap_or(Moment::NEVER)
    }

    fn owed(&self) -> u64 {
        self.gone_at.len() as u64 * u64::from(self.words)
    }
}

/// Whether what has come is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Not any more.
    Pauses,
    /// Again.
    GoesOn,
}

/// All clients go at once; over when the watcher has seen all their last words.
pub struct Leave<'w> {
    troop: Troop,
    ending: Ending,
    watcher: &'w mut Watcher,
    /// What the watcher is to do next.
    reading: Option<Reading>,
    /// When the first went.
    pub begun: Option<Moment>,
    /// When the last went.
    pub all_gone: Option<Moment>,
    /// When the last event came.
    pub last_seen: Moment,
    /// From when the first client went until each event.
    pub since_first: Latency,
    /// From when its own client went until each event.
    pub since_own: Latency,
    seen: u64,
}

impl<'w> Leave<'w> {
    /// Each of `clients` has left `words` last words.
    #[must_use]
    pub fn new(clients: Range<u32>, words: u32, ending: Ending, watcher: &'w mut Watcher) -> Self {
        Self {
            troop: Troop::new(clients, words),
            ending,
            watcher,
            reading: None,
            begun: None,
            all_gone: None,
            last_seen: Moment::START,
            since_first: Latency::default(),
            since_own: Latency::default(),
            seen: 0,
        }
    }

    /// The watcher does so from the next tick on.
    pub const fn order(&mut self, reading: Reading) {
        self.reading = Some(reading);
    }
}

impl Play for Leave<'_> {
    fn on(&mut self, at: Moment, client: u32, event: &Event<'_>, _orders: &mut Orders) {
        let Some(sight) = self.watcher.sight(client, event) else { return };
        if self.watcher.model.see(sight.track, sight.change) {
            self.seen += 1;
            self.last_seen = at;
            self.since_first.record_ns(at.since_ns(self.begun.unwrap_or(at)));
            self.since_own.record_ns(at.since_ns(self.troop.gone_at(sight.track)));
        }
    }

    fn tick(&mut self, now: Moment, orders: &mut Orders) -> Moment {
        self.begun.get_or_insert(now);
        match self.reading.take() {
            Some(Reading::Pauses) => orders.freeze(self.watcher.client),
            Some(Reading::GoesOn) => orders.thaw(self.watcher.client),
            None => {}
        }
        for _ in 0..SLICE {
            if self.troop.next >= self.troop.clients.end {
                self.all_gone.get_or_insert(now);
                return Moment::NEVER;
            }
            let client = self.troop.next;
            self.troop.next += 1;
            orders.close(client, self.ending);
            self.troop.gone_at[(client - self.troop.clients.start) as usize] = now;
            for track in self.troop.tracks(client) {
                self.watcher.model.must(track, 1);
            }
        }
        now
    }

    fn is_over(&self) -> bool {
        self.all_gone.is_some() && self.seen >= self.troop.owed()
    }

    fn progress(&self) -> String {
        format!("{} of {} last words seen", self.seen, self.troop.owed())
    }
}

/// All clients fall silent; over when the watcher has seen all their last words.
pub struct Silence<'w> {
    troop: Troop,
    timeout: Duration,
    watcher: &'w mut Watcher,
    /// How much later than its deadline each event came.
    pub lateness: Latency,
    seen: u64,
    /// When the last fell silent.
    pub all_silent: Option<Moment>,
}

impl<'w> Silence<'w> {
    /// Each of `clients` has left `words` last words; the server ends sessions after `timeout`.
    #[must_use]
    pub fn new(clients: Range<u32>, words: u32, timeout: Duration, watcher: &'w mut Watcher) -> Self {
        let troop = Troop::new(clients, words);
        Self { troop, timeout, watcher, lateness: Latency::default(), seen: 0, all_silent: None }
    }
}

impl Play for Silence<'_> {
    fn on(&mut self, at: Moment, client: u32, event: &Event<'_>, _orders: &mut Orders) {
        let Some(sight) = self.watcher.sight(client, event) else { return };
        let deadline = self.troop.gone_at(sight.track) + self.timeout;
        // Before its deadline a session is alive, and its last word early.
        if at + ROUNDING >= deadline {
            self.watcher.model.may(sight.track, 1);
        }
        if self.watcher.model.see(sight.track, sight.change) {
            self.seen += 1;
            self.lateness.record_ns(at.since_ns(deadline));
        }
    }

    fn tick(&mut self, now: Moment, orders: &mut Orders) -> Moment {
        for _ in 0..SLICE {
            if self.troop.next >= self.troop.clients.end {
                if self.all_silent.is_none() {
                    self.all_silent = Some(now);
                }
                return Moment::NEVER;
            }
            let client = self.troop.next;
            self.troop.next += 1;
            orders.keep_alive(client);
            orders.freeze(client);
            self.troop.gone_at[(client - self.troop.clients.start) as usize] = now;
        }
        now
    }

    fn is_over(&self) -> bool {
        self.all_silent.is_some() && self.seen >= self.troop.owed()
    }

    fn progress(&self) -> String {
        format!("{} of {} last words seen", self.seen, self.troop.owed())
    }
}

impl Silence<'_> {
    /// The end: what was to be seen by now.
    pub fn settle(&mut self) {
        for track in 0..usize::try_from(self.troop.owed()).expect("tracks are counted in 32 bits") {
            self.watcher.model.must(track, 1);
        }
    }
}
