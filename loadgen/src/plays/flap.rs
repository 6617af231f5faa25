//! Clients that come and go.

use super::watcher::{Watcher, place};
use crate::client::{Ending, Event, Orders, Play};
use crate::clock::Moment;
use crate::report::Latency;

/// Every client connects, leaves a last word, says that it is online, and is gone; then again.
///
/// With a watcher it comes again only when its last word was seen: sooner, nobody could say in which
/// order both must be seen.
pub struct Flap<'w> {
    root: String,
    first: u32,
    ending: Ending,
    /// Until when clients come again.
    pub until: Moment,
    now: Moment,
    watcher: Option<&'w mut Watcher>,
    flappers: Vec<Flapper>,
    /// From each connect until the client was online.
    pub coming: Latency,
    /// From when a client was gone until its last word was seen.
    pub going: Latency,
    /// Rounds since it was cleared.
    pub rounds: u64,
    /// What went wrong.
    pub failed: u64,
}

/// One client.
#[derive(Clone, Copy, Debug, Default)]
struct Flapper {
    /// The change that is its last word; online is the one before.
    word: u32,
    since: Moment,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// To come again.
    #[default]
    Away,
    Coming,
    /// Two answers are missing, or one.
    Greeting(u8),
    /// Gone, and the watcher has not seen it.
    Mourned,
}

impl<'w> Flap<'w> {
    /// `count` clients from `first` on.
    #[must_use]
    pub fn new(root: &str, first: u32, count: u32, ending: Ending, watcher: Option<&'w mut Watcher>) -> Self {
        Self {
            root: root.to_owned(),
            first,
            ending,
            until: Moment::START,
            now: Moment::START,
            watcher,
            flappers: vec![Flapper::default(); count as usize],
            coming: Latency::default(),
            going: Latency::default(),
            rounds: 0,
            failed: 0,
        }
    }

    /// Forgets what was measured, and goes on until `until`.
    pub fn measure_until(&mut self, until: Moment) {
        self.until = until;
        self.coming.clear();
        self.going.clear();
        self.rounds = 0;
    }

    fn come(&mut self, now: Moment, index: usize, orders: &mut Orders) {
        let flapper = &mut self.flappers[index];
        *flapper = Flapper { word: flapper.word + 2, since: now, stage: Stage::Coming };
        orders.open(self.first + u32::try_from(index).expect("they were counted in 32 bits"));
    }

    fn answered(&mut self, at: Moment, client: u32, index: usize, orders: &mut Orders) {
        let flapper = &mut self.flappers[index];
        if flapper.stage == Stage::Greeting(2) {
            flapper.stage = Stage::Greeting(1);
            return;
        }
        self.coming.record_ns(at.since_ns(flapper.since));
        self.rounds += 1;
        orders.close(client, self.ending);
        flapper.since = at;
        if let Some(watcher) = &mut self.watcher {
            watcher.model.must(index, flapper.word);
            flapper.stage = Stage::Mourned;
        } else {
            flapper.stage = Stage::Away;
            if at < self.until {
                self.come(at, index, orders);
            }
        }
    }

    fn watched(&mut self, at: Moment, client: u32, event: &Event<'_>, orders: &mut Orders) {
        let Some(watcher) = &mut self.watcher else { return };
        let Some(sight) = watcher.sight(client, event) else { return };
        watcher.model.see(sight.track, sight.change);
        let Some(flapper) = self.flappers.get_mut(sight.track) else { return };
        if flapper.stage == Stage::Mourned && sight.change == Some(flapper.word) {
            self.going.record_ns(at.since_ns(flapper.since));
            flapper.stage = Stage::Away;
            if at < self.until {
                self.come(at, sight.track, orders);
            }
        }
    }
}

impl Play for Flap<'_> {
    fn on(&mut self, at: Moment, client: u32, event: &Event<'_>, orders: &mut Orders) {
        self.watched(at, client, event, orders);
        let Some(index) = client.checked_sub(self.first).map(|index| index as usize) else { return };
        let Some(flapper) = self.flappers.get_mut(index) else { return };
        match event {
            Event::Joined => {
                let path = place(&self.root, u32::try_from(index).expect("they were counted in 32 bits"));
                flapper.stage = Stage::Greeting(2);
                if let Some(watcher) = &mut self.watcher {
                    watcher.model.must(index, flapper.word - 1);
                }
                orders.last_word(client, 1, &path, flapper.word);
                orders.put(client, 2, &path, flapper.word - 1);
            }
            Event::Answer { is_ok: true, .. } => self.answered(at, client, index, orders),
            Event::Answer { is_ok: false, .. } | Event::Gone => {
                self.failed += 1;
                flapper.stage = Stage::Away;
            }
            Event::Told { .. } | Event::Pinged => {}
        }
    }

    fn tick(&mut self, now: Moment, orders: &mut Orders) -> Moment {
        self.now = now;
        if now < self.until {
            for index in 0..self.flappers.len() {
                if self.flappers[index].stage == Stage::Away {
                    self.come(now, index, orders);
                }
            }
        }
        self.until
    }

    fn is_over(&self) -> bool {
        self.now >= self.until && self.flappers.iter().all(|flapper| flapper.stage == Stage::Away)
    }

    fn progress(&self) -> String {
        format!("{} rounds, {} failed", self.rounds, self.failed)
    }
}
