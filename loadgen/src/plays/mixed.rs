//! A bit of everything, as on an ordinary day.

use std::collections::VecDeque;
use std::time::Duration;

use super::watcher::{Watcher, place};
use crate::check::Findings;
use crate::client::{Ending, Event, Orders, Play};
use crate::clock::Moment;
use crate::pace::Pace;
use crate::plan::Mix;
use crate::report::Latency;

/// A deadline that is exact to a millisecond may seem this much too early: both ends round.
const ROUNDING: Duration = Duration::from_millis(2);
/// Clients that leave in one go at the end.
const SLICE: usize = 64;

/// How fast what happens.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// Status writes a second, of all sessions together.
    pub writes: f64,
    /// Departures a second; each is followed by a return.
    pub departures: f64,
    /// How often each session gives a sign of life.
    pub heartbeat: Duration,
    /// What share of departures is of which kind.
    pub mix: Mix,
    /// Sessions that are being connected at a time.
    pub window: usize,
    /// How long the server believes a session that has fallen silent.
    pub timeout: Duration,
}

/// What is to be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Everybody is online.
    Arrive,
    /// It is this late.
    Until(Moment),
    /// Nobody is left.
    Leave,
}

/// Sessions come, leave a last word, say that they are online, write their status now and then, and go in one
/// way or another; then they come again. The first clients watch all that.
///
/// Session `n` has two tracks: `2n` is its status, `2n + 1` whether it is there, where every last word is an even
/// change. A session goes only when its status is acknowledged: else nobody could say what must be seen.
pub struct Mixed {
    root: String,
    rates: Rates,
    /// The clients before the first session.
    watchers: Vec<Watcher>,
    actors: Vec<Actor>,
    /// Who is to come, in order.
    away: VecDeque<usize>,
    coming: usize,
    online: usize,
    goal: Goal,
    now: Moment,
    /// Of writes, departures and signs of life, while there are any.
    paces: Option<[Pace; 3]>,
    dice: u64,
    /// How many have gone, ever: so each kind has its share exactly.
    gone: usize,
    /// What happened since it was cleared.
    pub tally: Tally,
    /// What went wrong.
    pub failed: u64,
}

/// What was counted.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Sessions that have come online.
    pub arrivals: u64,
    /// Sessions that have gone, by ending: closed, said goodbye, reset, silent.
    pub departures: [u64; 4],
    /// Status writes that were acknowledged.
    pub writes: u64,
    /// Signs of life that were asked for, and that were not.
    pub beats: u64,
    /// Changes that watchers saw.
    pub seen: u64,
    /// From each connect until the session was online.
    pub connect: Latency,
    /// From each status write, as it was due, until its answer.
    pub write: Latency,
    /// The same until each watcher saw it.
    pub status: Latency,
    /// From each departure that the server can see until each watcher saw its last word.
    pub word: Latency,
    /// How much later than its deadline the last word of a silent session was seen.
    pub late: Latency,
}

impl Tally {
    /// Everything that clients did.
    #[must_use]
    pub fn deeds(&self) -> u64 {
        self.arrivals + self.departures.iter().sum::<u64>() + self.writes + self.beats
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Actor {
    /// The change that is its last word.
    word: u32,
    /// Its last status.
    status: u32,
    /// Since when it does what it does.
    since: Moment,
    /// Since when its last status was due.
    written: Moment,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Away,
    Coming,
    /// Two answers are missing, or one.
    Greeting(u8),
    Online,
    /// Its status is not acknowledged.
    Writing,
    /// It is gone, and so many watchers have not seen it.
    Mourned {
        missing: usize,
        is_silent: bool,
    },
}

impl Mixed {
    /// `count` sessions, after the clients of `watchers`, each of whom listens to all of `root`.
    #[must_use]
    pub fn new(root: &str, watchers: u32, count: u32, rates: Rates) -> Self {
        let tracks = count as usize * 2;
        Self {
            root: root.to_owned(),
            rates,
            watchers: (0..watchers).map(|client| Watcher::new(client, root, tracks)).collect(),
            actors: vec![Actor::default(); count as usize],
            away: (0..count as usize).collect(),
            coming: 0,
            online: 0,
            goal: Goal::Arrive,
            now: Moment::START,
            paces: None,
            dice: 0x9e37_79b9_7f4a_7c15,
            gone: 0,
            tally: Tally::default(),
            failed: 0,
        }
    }

    /// Goes on until `goal`. Forgets what was counted, unless everybody leaves.
    pub fn go_on(&mut self, now: Moment, goal: Goal) {
        self.goal = goal;
        self.now = now;
        if goal != Goal::Leave {
            self.tally = Tally::default();
        }
        let beats = self.actors_count() / self.rates.heartbeat.as_secs_f64();
        let Rates { writes, departures, .. } = self.rates;
        self.paces =
            matches!(goal, Goal::Until(_)).then(|| [writes, departures, beats].map(|rate| Pace::new(now, rate)));
    }

    /// What the watchers have found together. Who was not seen to go is lost.
    #[must_use]
    pub fn finish(self) -> Findings {
        let mut sum = Findings::default();
        for (client, mut watcher) in self.watchers.into_iter().enumerate() {
            for (index, actor) in self.actors.iter().enumerate() {
                if matches!(actor.stage, Stage::Mourned { .. }) {
                    watcher.model.must(index * 2 + 1, actor.word);
                }
            }
            let Findings { good, lost, early, double, wrong, examples } = watcher.model.finish();
            sum.good += good;
            sum.lost += lost;
            sum.early += early;
            sum.double += double;
            sum.wrong += wrong;
            sum.examples.extend(examples.into_iter().map(|example| format!("watcher {client}: {example}")));
        }
        sum.examples.truncate(10);
        sum
    }

    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^32 sessions")]
    fn actors_count(&self) -> f64 {
        self.actors.len() as f64
    }

    fn client(&self, index: usize) -> u32 {
        u32::try_from(self.watchers.len() + index).expect("clients are counted in 32 bits")
    }

    fn track(index: usize) -> u32 {
        u32::try_from(index * 2).expect("tracks are counted in 32 bits")
    }

    /// Fast, and the same in every run: this is no place for secrets.
    fn roll(&mut self) -> usize {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.dice >> 33).expect("it has 31 bits")
    }

    /// Somebody who is online and has nothing under way.
    fn pick(&mut self) -> Option<usize> {
        if self.online == 0 {
            return None;
        }
        let (from, count) = (self.roll(), self.actors.len());
        (0..count).map(|step| (from + step) % count).find(|&index| self.actors[index].stage == Stage::Online)
    }

    fn come(&mut self, now: Moment, orders: &mut Orders) {
        while self.coming < self.rates.window
            && let Some(index) = self.away.pop_front()
        {
            let actor = &mut self.actors[index];
            actor.word += 2;
            actor.since = now;
            actor.stage = Stage::Coming;
            self.coming += 1;
            orders.open(self.client(index));
        }
    }

    fn write(&mut self, since: Moment, index: usize, orders: &mut Orders) {
        let actor = &mut self.actors[index];
        actor.status += 1;
        actor.written = since;
        actor.stage = Stage::Writing;
        self.online -= 1;
        let status = actor.status;
        self.watchers.iter_mut().for_each(|watcher| watcher.model.must(index * 2, status));
        orders.merge(
            self.client(index),
            i64::from(status) + 2,
            &self.root,
            &format!("u{}", Self::track(index)),
            status,
        );
    }

    /// One session goes, in the way of that number.
    fn go(&mut self, now: Moment, index: usize, kind: usize, orders: &mut Orders) {
        let (client, missing) = (self.client(index), self.watchers.len());
        let actor = &mut self.actors[index];
        let is_silent = kind == Mix::SILENT;
        actor.since = now;
        actor.stage = Stage::Mourned { missing, is_silent };
        let word = actor.word;
        self.online -= 1;
        self.tally.departures[kind] += 1;
        match Mix::ENDINGS.get(kind) {
            Some(ending) => {
                orders.close(client, *ending);
                self.watchers.iter_mut().for_each(|watcher| watcher.model.must(index * 2 + 1, word));
            }
            None => {
                orders.keep_alive(client);
                orders.freeze(client);
            }
        }
    }

    /// A watcher saw something.
    fn see(&mut self, at: Moment, client: u32, event: &Event<'_>, orders: &mut Orders) {
        let Some(watcher) = self.watchers.get_mut(client as usize) else { return };
        let Some(sight) = watcher.sight(client, event) else { return };
        let (index, is_word) = (sight.track / 2, sight.track % 2 == 1);
        let Some(actor) = self.actors.get_mut(index) else {
            watcher.model.see(sight.track, sight.change);
            return;
        };
        let deadline = actor.since + self.rates.timeout;
        let own = (is_word && sight.change == Some(actor.word)).then_some(actor.stage);
        // Before its deadline a silent session is alive, and its last word early.
        if let Some(Stage::Mourned { is_silent: true, .. }) = own
            && at + ROUNDING >= deadline
        {
            watcher.model.may(sight.track, actor.word);
        }
        if !watcher.model.see(sight.track, sight.change) {
            return;
        }
        self.tally.seen += 1;
        if !is_word && sight.change == Some(actor.status) {
            self.tally.status.record_ns(at.since_ns(actor.written));
        }
        if let Some(Stage::Mourned { missing, is_silent }) = own {
            let latency = if is_silent { &mut self.tally.late } else { &mut self.tally.word };
            latency.record_ns(at.since_ns(if is_silent { deadline } else { actor.since }));
            actor.stage = Stage::Mourned { missing: missing - 1, is_silent };
            if missing == 1 {
                actor.stage = Stage::Away;
                self.away.push_back(index);
                if is_silent {
                    orders.close(self.client(index), Ending::Reset);
                }
            }
        }
    }

    /// A session heard something.
    fn hear(&mut self, at: Moment, index: usize, event: &Event<'_>, orders: &mut Orders) {
        let client = self.client(index);
        let actor = &mut self.actors[index];
        match (event, actor.stage) {
            (Event::Joined, _) => {
                actor.stage = Stage::Greeting(2);
                let word = actor.word;
                let path = place(&self.root, Self::track(index) + 1);
                self.watchers.iter_mut().for_each(|watcher| watcher.model.must(index * 2 + 1, word - 1));
                orders.last_word(client, 1, &path, word);
                orders.put(client, 2, &path, word - 1);
            }
            (Event::Answer { is_ok: true, .. }, Stage::Greeting(2)) => actor.stage = Stage::Greeting(1),
            (Event::Answer { is_ok: true, .. }, Stage::Greeting(_)) => {
                actor.stage = Stage::Online;
                self.coming -= 1;
                self.online += 1;
                self.tally.arrivals += 1;
                self.tally.connect.record_ns(at.since_ns(actor.since));
            }
            (Event::Answer { is_ok: true, .. }, Stage::Writing) => {
                actor.stage = Stage::Online;
                self.online += 1;
                self.tally.writes += 1;
                self.tally.write.record_ns(at.since_ns(actor.written));
            }
            (Event::Answer { .. } | Event::Gone, stage) => {
                self.failed += 1;
                self.coming -= usize::from(matches!(stage, Stage::Coming | Stage::Greeting(_)));
                self.online -= usize::from(stage == Stage::Online);
                // Nobody can say what its watchers must see: it stays away.
                actor.stage = Stage::Away;
            }
            (Event::Pinged, _) => self.tally.beats += 1,
            (Event::Told { .. }, _) => {}
        }
    }
}

impl Play for Mixed {
    fn on(&mut self, at: Moment, client: u32, event: &Event<'_>, orders: &mut Orders) {
        match (client as usize).checked_sub(self.watchers.len()) {
            None if matches!(event, Event::Gone) => self.failed += 1,
            None => self.see(at, client, event, orders),
            Some(index) => self.hear(at, index, event, orders),
        }
        if self.goal != Goal::Leave {
            self.come(at, orders);
        }
    }

    fn tick(&mut self, now: Moment, orders: &mut Orders) -> Moment {
        self.now = now;
        if self.goal == Goal::Leave {
            // Nobody falls silent at the end: that would take its time.
            let going = (0..SLICE).map_while(|_| self.pick().map(|index| self.go(now, index, index % 2 * 2, orders)));
            return if going.count() < SLICE { Moment::NEVER } else { now };
        }
        self.come(now, orders);
        let Some([mut writes, mut departures, mut beats]) = self.paces else { return Moment::NEVER };
        while writes.due() <= now
            && let Some(index) = self.pick()
            && let Some(since) = writes.take(now)
        {
            self.write(since, index, orders);
        }
        while departures.due() <= now
            && let Some(index) = self.pick()
            && departures.take(now).is_some()
        {
            let kind = self.rates.mix.kind(self.gone);
            self.gone += 1;
            self.go(now, index, kind, orders);
        }
        while beats.take(now).is_some() {
            if let Some(index) = self.pick() {
                orders.keep_alive(self.client(index));
                self.tally.beats += 1;
            }
        }
        self.paces = Some([writes, departures, beats]);
        let due = writes.due().min(departures.due()).min(beats.due());
        if self.online == 0 { now + Duration::from_millis(1) } else { due }
    }

    fn is_over(&self) -> bool {
        match self.goal {
            Goal::Arrive => self.online as u64 + self.failed >= self.actors.len() as u64,
            Goal::Until(until) => self.now >= until,
            Goal::Leave => self.actors.iter().all(|actor| actor.stage == Stage::Away),
        }
    }

    fn progress(&self) -> String {
        let gone: u64 = self.tally.departures.iter().sum();
        format!(
            "{} online, {} writes, {gone} gone, {} seen, {} failed",
            self.online, self.tally.writes, self.tally.seen, self.failed
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Swarm;
    use crate::inside::Inside;
    use stillhere::base::Millis;

    /// Plays against an engine in this process: what the watchers found, and what was done.
    fn play(mix: Mix, timeout: Duration) -> (Findings, Tally, u64) {
        let (watchers, count) = (2, 50);
        let clients = watchers as usize + count as usize;
        let inside = Inside::new(clients, Millis(u64::try_from(timeout.as_millis()).unwrap()));
        let mut swarm = Swarm::new(inside, clients, "h", "n", crate::client::Tongue::Firebase);
        let heartbeat = Duration::from_millis(500);
        let rates = Rates { writes: 500.0, departures: 100.0, heartbeat, mix, window: 10, timeout };
        let mut join = crate::plays::Join::new(0..watchers, crate::plays::Setup::Listen("r".to_owned()), 2, None, None);
        let mut show = |_: Moment, _: &str| {};
        assert!(swarm.play(&mut join, Moment::NEVER, &mut show).unwrap());
        let mut mixed = Mixed::new("r", watchers, count, rates);
        assert!(swarm.play(&mut mixed, Moment::NEVER, &mut show).unwrap());
        let now = crate::clock::now();
        mixed.go_on(now, Goal::Until(now + Duration::from_millis(300)));
        assert!(swarm.play(&mut mixed, Moment::NEVER, &mut show).unwrap());
        let tally = mixed.tally.clone();
        mixed.go_on(crate::clock::now(), Goal::Leave);
        assert!(swarm.play(&mut mixed, crate::clock::now() + Duration::from_secs(60), &mut show).unwrap());
        let failed = mixed.failed;
        (mixed.finish(), tally, failed)
    }

    #[test]
    fn an_ordinary_day_is_seen_as_it_was() {
        let (findings, tally, failed) = play(Mix([4, 3, 2, 1]), Duration::from_secs(6));
        assert!(findings.is_clean(), "{findings:?}");
        assert_eq!(failed, 0);
        assert!(findings.good > 0 && tally.writes > 0 && tally.beats > 0, "{tally:?}");
        assert!(tally.departures.iter().all(|count| *count > 0), "{:?}", tally.departures);
    }

    #[test]
    fn whoever_is_believed_too_short_is_early() {
        // The play expects the server to believe silent sessions for longer than it does.
        let (watchers, count) = (1, 4);
        let timeout = Duration::from_secs(3_600);
        let mix = Mix([0, 0, 0, 1]);
        let rates = Rates { writes: 1.0, departures: 1.0, heartbeat: Duration::from_secs(60), mix, window: 4, timeout };
        let mut mixed = Mixed::new("r", watchers, count, rates);
        let mut orders = Orders::default();
        mixed.tick(Moment(0), &mut orders);
        for client in 1..5 {
            mixed.on(Moment(0), client, &Event::Joined, &mut orders);
            for request in 1..3 {
                let answer = Event::Answer { request, is_ok: true, data: stillhere::json::Item::Null };
                mixed.on(Moment(0), client, &answer, &mut orders);
            }
        }
        assert!(mixed.is_over());
        let told = |value| Event::Told { base: "r", place: "u1", value: stillhere::json::Item::Int(value) };
        mixed.on(Moment(1), 0, &told(1), &mut orders);
        mixed.go(Moment(1), 0, Mix::SILENT, &mut orders);
        mixed.on(Moment(2), 0, &told(2), &mut orders);
        assert_eq!(mixed.finish().early, 1);
    }
}
