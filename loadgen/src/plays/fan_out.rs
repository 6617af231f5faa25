//! One client writes, many listen.

use std::collections::VecDeque;

use crate::check::Model;
use crate::client::{Event, Orders, Play, number};
use crate::clock::Moment;
use crate::pace::Pace;
use crate::report::Latency;

/// Client 0 writes; the others listen to the same place.
pub struct FanOut {
    place: String,
    listeners: u64,
    /// Until when new writes are begun.
    pub until: Moment,
    now: Moment,
    pace: Option<Pace>,
    /// The last change that was written.
    change: u32,
    /// Those that not everybody has seen: since when, how many are missing. The last is `change`.
    open: VecDeque<(Moment, u64)>,
    /// Whether the last write is unanswered.
    is_unanswered: bool,
    model: Option<Model>,
    /// From each write until each delivery.
    pub latency: Latency,
    /// From each write until its last delivery.
    pub until_last: Latency,
    /// Deliveries since it was cleared.
    pub delivered: u64,
    /// What went wrong.
    pub failed: u64,
}

impl FanOut {
    /// `listeners` clients from number 1 on listen to `place`.
    #[must_use]
    pub fn new(place: &str, listeners: u32, pace: Option<Pace>, is_checked: bool) -> Self {
        Self {
            place: place.to_owned(),
            listeners: listeners.into(),
            until: Moment::START,
            now: Moment::START,
            pace,
            change: 0,
            open: VecDeque::new(),
            is_unanswered: false,
            model: is_checked.then(|| Model::new(listeners as usize)),
            latency: Latency::default(),
            until_last: Latency::default(),
            delivered: 0,
            failed: 0,
        }
    }

    /// Forgets what was measured, and goes on until `until`.
    pub fn measure_until(&mut self, until: Moment) {
        self.until = until;
        self.latency.clear();
        self.until_last.clear();
        self.delivered = 0;
    }

    /// The model of what was seen.
    #[must_use]
    pub fn into_model(self) -> Option<Model> {
        self.model
    }

    fn write(&mut self, since: Moment, orders: &mut Orders) {
        self.change += 1;
        self.open.push_back((since, self.listeners));
        self.is_unanswered = true;
        if let Some(model) = &mut self.model {
            for listener in 0..usize::try_from(self.listeners).expect("they were counted in 32 bits") {
                model.must(listener, self.change);
            }
        }
        orders.put(0, i64::from(self.change) + 1, &self.place, self.change);
    }

    fn seen(&mut self, at: Moment, change: u32) {
        let oldest = self.change + 1 - u32::try_from(self.open.len()).expect("writes are counted in 32 bits");
        let Some(open) = change.checked_sub(oldest).and_then(|index| self.open.get_mut(index as usize)) else {
            self.failed += 1;
            return;
        };
        self.delivered += 1;
        open.1 = open.1.saturating_sub(1);
        self.latency.record_ns(at.since_ns(open.0));
        while let Some((since, 0)) = self.open.front() {
            self.until_last.record_ns(at.since_ns(*since));
            self.open.pop_front();
        }
    }
}

impl Play for FanOut {
    fn on(&mut self, at: Moment, client: u32, event: &Event<'_>, orders: &mut Orders) {
        match event {
            Event::Answer { is_ok, .. } if client == 0 => {
                self.is_unanswered = false;
                self.failed += u64::from(!is_ok);
            }
            Event::Told { value, .. } if client > 0 => {
                let change = number(*value);
                if let Some(model) = &mut self.model {
                    model.see(client as usize - 1, change);
                }
                self.seen(at, change.unwrap_or(0));
            }
            Event::Gone => self.failed += 1,
            _ => return,
        }
        self.tick(at, orders);
    }

    fn tick(&mut self, now: Moment, orders: &mut Orders) -> Moment {
        self.now = now;
        if now >= self.until {
            return Moment::NEVER;
        }
        let Some(mut pace) = self.pace else {
            if self.open.is_empty() && !self.is_unanswered {
                self.write(now, orders);
            }
            return self.until;
        };
        while let Some(since) = pace.take(now) {
            self.write(since, orders);
        }
        self.pace = Some(pace);
        pace.due().min(self.until)
    }

    fn is_over(&self) -> bool {
        self.now >= self.until && self.open.is_empty()
    }

    fn progress(&self) -> String {
        format!("{} deliveries of {} writes", self.delivered, self.change)
    }
}
