//! Small writes, each acknowledged.

use std::collections::VecDeque;

use super::watcher::place;
use crate::check::Model;
use crate::client::{Event, Orders, Play, number};
use crate::clock::Moment;
use crate::pace::Pace;
use crate::report::Latency;

/// Every client writes one small value after the other to a place of its own.
pub struct Writes {
    root: String,
    depth: usize,
    /// Until when new writes are begun.
    pub until: Moment,
    pace: Option<Pace>,
    now: Moment,
    writers: Vec<Writer>,
    /// With a pace: writers that may write, first come first served.
    free: VecDeque<u32>,
    /// Each write is a change, each answer the sight of it.
    model: Option<Model>,
    /// Of what was answered since it was cleared.
    pub latency: Latency,
    /// Answers since it was cleared.
    pub answered: u64,
    /// Refused writes, and clients that were sent away.
    pub failed: u64,
    in_flight: u64,
}

/// One client's writes.
#[derive(Clone, Debug, Default)]
struct Writer {
    place: String,
    /// The last change that was sent.
    change: u32,
    /// Since when the unanswered ones should be under way.
    since: VecDeque<Moment>,
    is_gone: bool,
}

impl Writes {
    /// `count` writers with `depth` writes in flight each. They begin at once, or as the pace says.
    #[must_use]
    pub fn new(root: &str, count: u32, depth: u32, pace: Option<Pace>, is_checked: bool) -> Self {
        let writer = |client| Writer { place: place(root, client), ..Writer::default() };
        let free = (0..depth).flat_map(|_| 0..count).collect();
        Self {
            root: root.to_owned(),
            depth: depth as usize,
            until: Moment::START,
            pace,
            now: Moment::START,
            writers: (0..count).map(writer).collect(),
            free,
            model: is_checked.then(|| Model::new(count as usize)),
            latency: Latency::default(),
            answered: 0,
            failed: 0,
            in_flight: 0,
        }
    }

    /// Forgets what was measured, and goes on until `until`.
    pub fn measure_until(&mut self, until: Moment) {
        self.until = until;
        self.latency.clear();
        self.answered = 0;
    }

    /// What must be read back, and the model.
    #[must_use]
    pub fn into_read_back(self) -> ReadBack {
        let expected = self.writers.iter().map(|writer| writer.change).collect();
        ReadBack { root: self.root, expected, begun: false, answered: 0, model: self.model }
    }

    /// Whether everything that was sent is answered.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        self.in_flight == 0
    }

    fn write(&mut self, since: Moment, client: u32, orders: &mut Orders) {
        let writer = &mut self.writers[client as usize];
        writer.change += 1;
        writer.since.push_back(since);
        self.in_flight += 1;
        if let Some(model) = &mut self.model {
            model.must(client as usize, writer.change);
        }
        orders.put(client, i64::from(writer.change), &writer.place, writer.change);
    }
}

impl Play for Writes {
    fn on(&mut self, at: Moment, client: u32, event: &Event<'_>, orders: &mut Orders) {
        let writer = &mut self.writers[client as usize];
        match event {
            Event::Answer { request, is_ok, .. } => {
                let Some(since) = writer.since.pop_front() else {
                    self.failed += 1;
                    return;
                };
                self.in_flight -= 1;
                self.latency.record_ns(at.since_ns(since));
                if *is_ok {
                    self.answered += 1;
                } else {
                    self.failed += 1;
                }
                if let Some(model) = &mut self.model {
                    model.see(client as usize, u32::try_from(*request).ok().filter(|_| *is_ok));
                }
                if self.pace.is_some() {
                    self.free.push_back(client);
                    self.tick(at, orders);
                } else if at < self.until {
                    self.write(at, client, orders);
                }
            }
            Event::Gone => {
                writer.is_gone = true;
                self.failed += 1;
                self.in_flight -= writer.since.len() as u64;
                writer.since.clear();
            }
            _ => {}
        }
    }

    fn tick(&mut self, now: Moment, orders: &mut Orders) -> Moment {
        self.now = now;
        if now >= self.until {
            return Moment::NEVER;
        }
        let Some(mut pace) = self.pace else {
            for client in 0..u32::try_from(self.writers.len()).expect("they were counted in 32 bits") {
                while self.writers[client as usize].since.len() < self.depth && !self.writers[client as usize].is_gone {
                    self.write(now, client, orders);
                }
            }
            return self.until;
        };
        while let Some(client) = self.free.pop_front() {
            if self.writers[client as usize].is_gone {
                continue;
            }
            let Some(since) = pace.take(now) else {
                self.free.push_front(client);
                break;
            };
            self.write(since, client, orders);
        }
        self.pace = Some(pace);
        // Where nobody is free, the next answer is what everything waits for.
        if self.free.is_empty() { self.until } else { pace.due().min(self.until) }
    }

    fn is_over(&self) -> bool {
        self.now >= self.until || self.writers.iter().all(|writer| writer.is_gone)
    }

    fn progress(&self) -> String {
        format!("{} writes answered, {} failed", self.answered, self.failed)
    }
}

/// Every client reads what it wrote last.
pub struct ReadBack {
    root: String,
    expected: Vec<u32>,
    begun: bool,
    answered: usize,
    /// The model of the writes.
    pub model: Option<Model>,
}

impl Play for ReadBack {
    fn on(&mut self, _at: Moment, client: u32, event: &Event<'_>, _orders: &mut Orders) {
        let Event::Answer { data, .. } = event else { return };
        self.answered += 1;
        let expected = self.expected[client as usize];
        let found = number(*data).unwrap_or(0);
        if found != expected
            && let Some(model) = &mut self.model
        {
            model.wrong(|| format!("track {client}: {found} stands there, {expected} was acknowledged"));
        }
    }

    fn tick(&mut self, _now: Moment, orders: &mut Orders) -> Moment {
        if !std::mem::replace(&mut self.begun, true) {
            for client in 0..u32::try_from(self.expected.len()).expect("they were counted in 32 bits") {
                orders.get(client, 1_000_000_000, &place(&self.root, client));
            }
        }
        Moment::NEVER
    }

    fn is_over(&self) -> bool {
        self.answered >= self.expected.len()
    }

    fn progress(&self) -> String {
        format!("{} of {} read back", self.answered, self.expected.len())
    }
}
