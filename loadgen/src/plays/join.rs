//! Clients connect, and do what they do first.

use std::ops::Range;

use super::watcher::{Watcher, place};
use crate::client::{Event, Orders, Play};
use crate::clock::Moment;
use crate::pace::Pace;
use crate::report::Latency;

/// What a client does first.
#[derive(Clone, Debug)]
pub enum Setup {
    /// Nothing.
    Nothing,
    /// It listens to this place.
    Listen(String),
    /// It leaves so many last words, change 1 of its tracks below this place.
    LastWords {
        /// Above the tracks.
        root: String,
        /// How many.
        words: u32,
        /// The client with the first track.
        first: u32,
    },
}

impl Setup {
    /// Orders it, and says how many answers there will be.
    fn order(&self, client: u32, orders: &mut Orders) -> u32 {
        match self {
            Self::Nothing => 0,
            Self::Listen(path) => {
                orders.listen(client, 1, path);
                1
            }
            Self::LastWords { root, words, first } => {
                for word in 0..*words {
                    let track = (client - first) * words + word;
                    orders.last_word(client, i64::from(word) + 1, &place(root, track), 1);
                }
                *words
            }
        }
    }
}

/// Some clients connect and do what they do first; over when each has, or has failed.
pub struct Join<'w> {
    clients: Range<u32>,
    setup: Setup,
    window: u32,
    pace: Option<Pace>,
    watcher: Option<&'w mut Watcher>,
    /// The next to be connected.
    next: u32,
    /// By client: since when it should be connected, and how many answers are missing.
    states: Vec<(Moment, u32)>,
    in_flight: u32,
    /// How many are done.
    pub ready: u32,
    /// How many have failed.
    pub failed: u32,
    /// From when each was to connect until it was done.
    pub latency: Latency,
    /// When 99 of 100 were done.
    pub most_ready: Option<Moment>,
}

impl<'w> Join<'w> {
    /// At most `window` at a time; with a pace, when it says so.
    #[must_use]
    pub fn new(
        clients: Range<u32>,
        setup: Setup,
        window: u32,
        pace: Option<Pace>,
        watcher: Option<&'w mut Watcher>,
    ) -> Self {
        Self {
            next: clients.start,
            states: vec![(Moment::NEVER, 0); clients.len()],
            clients,
            setup,
            window,
            pace,
            watcher,
            in_flight: 0,
            ready: 0,
            failed: 0,
            latency: Latency::default(),
            most_ready: None,
        }
    }

    fn state(&mut self, client: u32) -> Option<&mut (Moment, u32)> {
        let index = client.checked_sub(self.clients.start)?;
        self.states.get_mut(index as usize)
    }

    fn done(&mut self, at: Moment, since: Moment) {
        self.in_flight -= 1;
        self.ready += 1;
        self.latency.record_ns(at.since_ns(since));
        let count = self.clients.end - self.clients.start;
        if self.most_ready.is_none() && u64::from(self.ready) * 100 >= u64::from(count) * 99 {
            self.most_ready = Some(at);
        }
    }
}

impl Play for Join<'_> {
    fn on(&mut self, at: Moment, client: u32, event: &Event<'_>, orders: &mut Orders) {
        if let Some(watcher) = &mut self.watcher
            && let Some(sight) = watcher.sight(client, event)
        {
            watcher.model.see(sight.track, sight.change);
        }
        let Some(&mut (since, missing)) = self.state(client) else { return };
        match event {
            Event::Joined => {
                let missing = self.setup.order(client, orders);
                *self.state(client).expect("it was there just now") = (since, missing);
                if missing == 0 {
                    self.done(at, since);
                }
            }
            Event::Answer { is_ok: true, .. } if missing > 0 => {
                *self.state(client).expect("it was there just now") = (since, missing - 1);
                if missing == 1 {
                    self.done(at, since);
                }
            }
            Event::Answer { is_ok: false, .. } | Event::Gone => {
                self.in_flight -= 1;
                self.failed += 1;
                *self.state(client).expect("it was there just now") = (since, 0);
            }
            Event::Answer { .. } | Event::Told { .. } | Event::Pinged => {}
        }
        self.tick(at, orders);
    }

    fn tick(&mut self, now: Moment, orders: &mut Orders) -> Moment {
        while self.next < self.clients.end && (self.pace.is_some() || self.in_flight < self.window) {
            let since = match &mut self.pace {
                None => now,
                Some(pace) => match pace.take(now) {
                    Some(since) => since,
                    None => return pace.due(),
                },
            };
            let client = self.next;
            self.next += 1;
            self.in_flight += 1;
            self.state(client).expect("it is one of ours").0 = since;
            orders.open(client);
        }
        Moment::NEVER
    }

    fn is_over(&self) -> bool {
        self.ready + self.failed == self.clients.end - self.clients.start
    }

    fn progress(&self) -> String {
        format!("{} of {} connected, {} failed", self.ready, self.clients.end - self.clients.start, self.failed)
    }
}
