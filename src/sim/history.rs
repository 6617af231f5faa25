//! Histories: random clients against real engines, measured by the reference.
//!
//! The surprising idea: nobody guesses in which order an owner did things. It says so itself
//! ([`Record`]), and what it says must agree with what every client asked, was answered, was told and
//! sees in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use rand_chacha::ChaCha12Rng;
use rand_core::{RngCore as _, SeedableRng as _};
use serde_json::{Value as Json, json};

use super::actor::{Actor, Asked, Expected, Op, View};
use super::reference::{Asking, Database, Fate, Law, Who};
use super::tree::{Tree, Want};
use super::world::{Client, World};
use crate::auth::{AuthConfig, Verifier};
use crate::base::limits::TICK;
use crate::base::{Hashing, Millis, Now, SessionId, SessionRef};
use crate::engine::{Durability, Hangup, Input, LateLastWords, Notice, Record, Settings, Stats};
use crate::op::{End, Identity};
use crate::rules::{Dialect, Ruleset};

/// The databases of a history.
const NAMES: [&str; 3] = ["db", "other", "third"];

/// What came of a history.
#[derive(Debug)]
pub struct Report {
    /// Everything that was sent to clients, and done by owners, as one number.
    pub hash: u64,
    /// How often each rare thing happened.
    pub reached: BTreeMap<&'static str, u64>,
}

/// Plays the history of a seed.
///
/// # Panics
///
/// Where a server did what it must not.
#[must_use]
pub fn run(seed: u64, is_verbose: bool) -> Report {
    let mut history = History::new(seed, is_verbose);
    history.play();
    history.finish();
    Report { hash: history.hash, reached: history.reached }
}

/// A history as it goes on.
pub(super) struct History {
    pub(super) world: World,
    pub(super) dice: Dice,
    pub(super) plan: Plan,
    pub(super) databases: Vec<Database>,
    pub(super) actors: Vec<Actor>,
    pub(super) reached: BTreeMap<&'static str, u64>,
    /// Never the same twice: values by which writes are told apart.
    pub(super) token: i64,
    /// Last words by fate, as the reference has them.
    fates: [usize; 3],
    is_draining: bool,
    /// Whether there is no room left to write anything down.
    is_full: bool,
    hash: u64,
    hashing: Hashing,
    is_verbose: bool,
}

/// What a seed decides before anything happens.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    shards: u8,
    pub(super) databases: usize,
    settings: Vec<Settings>,
    pub(super) law: Law,
    steps: u64,
    /// Of a hundred clients, how many sign in at once.
    pub(super) signs_in: u64,
    pub(super) actors_max: usize,
    /// Of a hundred steps, after how many everything comes to rest.
    calm: u64,
    is_slow: bool,
    pub(super) changes_law: bool,
    /// The server stops at the end, in the midst of everything.
    is_drained: bool,
    /// Clients ask for little that needs all of a database in one place.
    pub(super) is_apart: bool,
}

pub(super) struct Dice(ChaCha12Rng);

impl Dice {
    pub(super) fn below(&mut self, count: u64) -> u64 {
        self.0.next_u64() % count
    }

    pub(super) fn index(&mut self, count: usize) -> usize {
        usize::try_from(self.below(count as u64)).expect("it is below a usize")
    }

    pub(super) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(super) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.index(from.len())]
    }
}

impl Plan {
    fn of(dice: &mut Dice) -> Self {
        let is_apart = dice.percent(50);
        let settings = (0..NAMES.len()).map(|_| {
            let heartbeat = 1_000 + dice.below(20_000);
            Settings {
                heartbeat: Millis(heartbeat),
                session_timeout: Millis(heartbeat + 1_000 + dice.below(30_000)),
                late_last_words: if dice.percent(75) { LateLastWords::Yield } else { LateLastWords::Always },
                durability: if dice.percent(if is_apart { 5 } else { 40 }) {
                    Durability::Fsync
                } else {
                    Durability::None
                },
                ..Settings::default()
            }
        });
        let settings = settings.collect();
        Self {
            shards: u8::try_from(1 + dice.below(8)).expect("up to eight"),
            databases: 1 + dice.index(NAMES.len()),
            settings,
            law: if is_apart { Law::roll_local(dice) } else { Law::roll(dice) },
            steps: 20 + dice.below(160),
            signs_in: *dice.pick(&[0, 50, 90]),
            actors_max: 2 + dice.index(7),
            calm: *dice.pick(&[0, 5, 20, 100]),
            is_slow: dice.percent(60),
            changes_law: dice.percent(if is_apart { 20 } else { 50 }),
            is_drained: dice.percent(20),
            is_apart,
        }
    }
}

impl History {
    fn new(seed: u64, is_verbose: bool) -> Self {
        let mut dice = Dice(ChaCha12Rng::seed_from_u64(seed));
        let plan = Plan::of(&mut dice);
        let settings: Vec<_> = plan.settings.iter().cloned().map(Arc::new).collect();
        let named = NAMES.iter().zip(&settings).skip(1).map(|(name, settings)| ((*name).to_owned(), settings.clone()));
        let rules = ruleset(plan.law);
        let auth = AuthConfig { is_dev: true, ..AuthConfig::default() };
        let mut world = World::of_namespaces(
            plan.shards,
            seed,
            &settings[0],
            &named.collect(),
            &rules,
            &Arc::new(Verifier::new(auth).expect("there is nothing in it that could be wrong")),
        );
        if plan.is_slow {
            world.slow_down();
        }
        let mut history = Self {
            world,
            databases: (0..plan.databases).map(|_| Database::new(plan.law, Tree::default())).collect(),
            dice,
            actors: Vec::new(),
            reached: BTreeMap::new(),
            token: 100,
            fates: [0; 3],
            is_draining: false,
            is_full: false,
            hash: seed,
            hashing: Hashing::from_seed([1, 2, 3, 4]),
            is_verbose,
            plan,
        };
        history.note(|history, text| write!(text, "{:?}", history.plan));
        for database in 0..history.plan.databases {
            history.watch(database);
        }
        history
    }

    /// An administrator who sees all of a database.
    fn watch(&mut self, database: usize) {
        let shard = self.dice.index(8);
        let watcher = self.join(database, shard, None);
        self.actors[watcher].is_watcher = true;
        self.sign_in(watcher, Who::Admin);
        self.listen(watcher, "", &Want::default());
        if self.dice.percent(80) {
            self.furnish(watcher);
        }
    }

    fn play(&mut self) {
        for _ in 0..self.plan.steps {
            self.act();
            self.pump();
            if self.plan.is_slow {
                self.carry_some();
            } else if self.dice.percent(50) {
                self.world.deliver();
            }
            self.disk();
            self.pump();
            if self.dice.percent(self.plan.calm) {
                self.come_to_rest();
            }
        }
    }

    /// The disks are slow, each as slow as it likes; now and then they are full.
    fn disk(&mut self) {
        if self.world.is_unsynced() {
            self.reach("held back by the disk");
            for _ in 0..self.dice.below(3) {
                let shard = self.dice.index(8);
                self.world.sync(shard);
            }
        }
        if self.dice.percent(if self.is_full { 15 } else { 2 }) {
            self.fill_disk(!self.is_full);
        }
    }

    /// The disk is full from here on, or is no longer.
    fn fill_disk(&mut self, is_full: bool) {
        self.note(|_, text| write!(text, "the disk is full: {is_full}"));
        // Nothing is done between what was and what comes.
        self.world.sync_all();
        self.pump();
        self.world.input_all(|| Input::Full(is_full));
        self.is_full = is_full;
    }

    /// Carries a part of what some client has sent, and some of what engines say to each other.
    fn carry_some(&mut self) {
        for _ in 0..self.dice.below(4) {
            let actor = self.dice.index(self.actors.len());
            let client = self.actors[actor].client;
            let waiting = self.world.waiting_bytes(client);
            if waiting > 0 {
                let bytes = if self.dice.percent(50) { waiting } else { 1 + self.dice.index(waiting) };
                *self.reached.entry("bytes split").or_default() += u64::from(bytes < waiting);
                self.world.carry(client, bytes);
            }
        }
        for _ in 0..self.dice.below(6) {
            self.world.deliver();
        }
    }

    /// Everything that is on its way arrives; then everything is compared.
    pub(super) fn come_to_rest(&mut self) {
        self.world.calm();
        self.pump();
        self.compare();
    }

    /// Time passes.
    pub(super) fn pass(&mut self, span: Millis) {
        self.note(|history, text| write!(text, "at {:?} passes {span}", history.world.now()));
        self.world.pass(span);
        self.pump();
        self.compare();
    }

    /// Changes the rules on all engines.
    pub(super) fn legislate(&mut self, law: Law) {
        self.note(|_, text| write!(text, "the law is {law:?}"));
        self.reach("rules changed");
        self.plan.law = law;
        let rules = ruleset(law);
        // Nothing is done between what was and what comes.
        self.world.sync_all();
        self.pump();
        self.world.input_all(|| Input::Rules(rules.clone()));
        for database in &mut self.databases {
            database.law = law;
        }
        self.pump();
    }

    /// The faults stop, everything that ends has ended, nothing is owed.
    fn finish(&mut self) {
        for actor in &mut self.actors {
            self.world.thaw(actor.client);
            actor.is_frozen = false;
        }
        if self.plan.is_drained {
            self.note(|_, text| write!(text, "the server stops"));
            self.is_draining = true;
            self.world.input_all(|| Input::Drain);
            self.pump();
            self.world.settle_and_sync();
            self.pump();
            assert!(self.world.drained.iter().all(|is_drained| *is_drained), "every engine has drained");
            let left = self.actors.iter().find(|actor| actor.session.is_some() && !actor.is_over);
            assert!(left.is_none(), "a session outlives its server: {left:?}");
        } else {
            self.come_to_rest();
            for actor in 0..self.actors.len() {
                if self.actors[actor].is_here() && !self.actors[actor].is_watcher {
                    self.leave(actor);
                }
            }
            self.pass(Millis(120_000));
            let left = self.actors.iter().filter(|actor| actor.session.is_some() && !actor.is_over);
            assert_eq!(left.count(), self.plan.databases, "only the watchers are left");
            for watcher in 0..self.plan.databases {
                self.say_goodbye(watcher);
            }
            self.world.calm();
            self.pump();
        }
        let stats = self.world.stats();
        assert_eq!(stats, Stats::default(), "nothing is owed at the end");
        self.compare_fates();
        *self.reached.entry("reading paused").or_default() += self.world.pauses as u64;
        let refilled: u64 = self.databases.iter().map(|database| database.refilled).sum();
        *self.reached.entry("window refilled").or_default() += refilled;
    }

    /// What operators were told about last words is what became of them.
    fn compare_fates(&self) {
        let mut told = [0; 3];
        for notice in &self.world.notices {
            if let Notice::LastWords { spoken, yielded, denied, .. } = notice {
                told[0] += spoken;
                told[1] += yielded;
                told[2] += denied;
            }
        }
        assert_eq!(told, self.fates, "last words spoken, yielded, denied");
    }

    pub(super) fn reach(&mut self, what: &'static str) {
        *self.reached.entry(what).or_default() += 1;
    }

    /// Writes something into the transcript.
    pub(super) fn note(&mut self, write: impl FnOnce(&Self, &mut String) -> std::fmt::Result) {
        let mut text = String::new();
        write(self, &mut text).expect("a string takes everything");
        self.hash = self.hashing.hash_one((self.hash, &text));
        if self.is_verbose {
            show(&text);
        }
    }
}

#[expect(clippy::print_stdout, reason = "it was asked for")]
fn show(text: &str) {
    println!("{text}");
}

fn ruleset(law: Law) -> Arc<Ruleset> {
    Arc::new(Ruleset::parse(law.text(), Dialect::Firebase).expect("laws are rules"))
}

/// What owners did and clients heard, taken in and judged.
impl History {
    pub(super) fn pump(&mut self) {
        for record in self.world.take_journal() {
            self.record(&record);
        }
        for actor in 0..self.actors.len() {
            self.hear(actor);
        }
    }

    fn record(&mut self, record: &Record) {
        self.note(|history, text| write!(text, "{:?} {record:?}", history.world.now()));
        match record {
            Record::Asked { now, session, number, identity, by, is_apart } => {
                let actor = self.actor_of(*session);
                let by = is_apart.then_some(*by);
                self.asked(*now, actor, *number, who(identity), by);
            }
            Record::Reached(what) => self.reach(what),
            Record::Identified { session, identity, by, is_apart } => {
                let actor = self.actor_of(*session);
                let (who, database) = (who(identity), self.actors[actor].database);
                assert!(self.actors[actor].whos.contains(&who), "{who:?} is somebody that {actor} was");
                let (world, name) = (&self.world, NAMES[database]);
                // Above the parts, whoever hears of it first.
                let is_its = |path: &str| !is_apart || world.part(name, path).is_none_or(|core| core == by.index());
                self.databases[database].identify(actor, who, is_its);
            }
            Record::Over { now, session, end, identity, words_count, is_last } => {
                let actor = self.actor_of(*session);
                // What it heard, it heard before.
                self.hear(actor);
                self.over(*now, actor, *end, who(identity), *words_count, *is_last);
            }
        }
    }

    /// Whose session it is: its handshake has been sent before anything else.
    fn actor_of(&mut self, session: SessionRef) -> usize {
        for actor in 0..self.actors.len() {
            self.fetch(actor);
            if self.actors[actor].session.is_none()
                && let Some(handshake) = self.actors[actor].inbox.pop_front()
            {
                self.hear_one(actor, &handshake);
            }
        }
        let is_it = |actor: &Actor| actor.session == Some(session);
        self.actors.iter().position(is_it).unwrap_or_else(|| panic!("nobody has the session {session:?}"))
    }

    /// `by`: the cores that did it, if they hold parts; bit `s` is core `s`.
    fn asked(&mut self, now: Now, actor: usize, number: i64, who: Who, by: Option<u64>) {
        let database = self.actors[actor].database;
        if let Some(old) = self.actors[actor].replaces {
            assert!(self.actors[old].is_over, "{actor} takes effect before {old}, which it replaces, is over");
        }
        let one = &mut self.actors[actor];
        assert!(!one.is_leaving, "{actor} asks after its end");
        let earlier = one.asked.iter().take_while(|asked| asked.number != number);
        for asked in earlier {
            assert!(asked.is_done || !asked.op.is_for_owner(), "{actor}: {asked:?} is overtaken by {number}");
        }
        let asked = one.asked.iter_mut().find(|asked| asked.number == number);
        let asked = asked.unwrap_or_else(|| panic!("{actor} has not asked {number}, or it is answered"));
        assert!(!std::mem::replace(&mut asked.is_done, true), "{actor}: {number} is done twice");
        assert_eq!(asked.who, who, "{actor}: {number} is asked as whom");
        let asking = Asking { actor, who, now, spoken_at: now.instant };
        let is_kept = self.plan.settings[database].durability != Durability::None;
        let is_refused = self.is_full && is_kept && matches!(asked.op, Op::Write { .. } | Op::LastWord(_));
        let mut expected = if is_refused {
            Expected::Status("limits_exceeded")
        } else {
            self.databases[database].perform(asking, &asked.op)
        };
        if by.is_some() {
            *self.reached.entry("done apart").or_default() += 1;
            expected = match (expected, &asked.op) {
                (Expected::Listening { .. }, Op::Listen { path, .. }) if super::tree::keys(path).len() < 2 => {
                    Expected::Gathering
                }
                (Expected::Value(_), Op::Get { path, .. }) if super::tree::keys(path).len() < 2 => {
                    Expected::Gathered(asked.since)
                }
                (expected, _) => expected,
            };
            if matches!(expected, Expected::Gathering | Expected::Gathered(_)) {
                *self.reached.entry("put together").or_default() += 1;
            }
        }
        let done = expected == Expected::Status("ok");
        let reached = match &asked.op {
            Op::LastWord(word) if done => Some(match one.words.register(word) {
                None => {
                    expected = Expected::Status("limits_exceeded");
                    "last words full"
                }
                Some(0) => "last word left",
                Some(_) => "last word replaced",
            }),
            Op::Cancel(path) => (one.words.cancel(path) > 0).then_some("last word cancelled"),
            _ => None,
        };
        if let Some(reached) = reached {
            self.reach(reached);
        }
        if is_refused {
            self.reach("refused for want of room");
        }
        match &expected {
            Expected::Status("permission_denied") => self.reach("denied"),
            Expected::Status("datastale") => self.reach("stale"),
            _ => {}
        }
        // An answer that is put together comes when the last part is there: until then each core goes on.
        let is_at_once = !matches!(expected, Expected::Gathering | Expected::Gathered(_));
        let seen = self.must_see(database, actor, by, is_at_once);
        let asked = self.actors[actor].asked.iter_mut().find(|asked| asked.number == number);
        let asked = asked.expect("it was there just now");
        (asked.expected, asked.seen) = (Some(expected), seen);
    }

    /// What a session must see of its listens when it is answered what was done by these cores: what others hold
    /// may have changed, and word of it be on its way.
    fn must_see(
        &self,
        database: usize,
        actor: usize,
        by: Option<u64>,
        is_at_once: bool,
    ) -> Vec<(String, Option<u64>, Tree)> {
        let mut seen = self.databases[database].seen_by(actor);
        let is_by_all = by == Some(u64::MAX >> (64 - u32::from(self.plan.shards)));
        seen.retain(|(path, ..)| {
            let part = self.world.part(NAMES[database], path);
            let stands = |by: u64| part.map_or(is_by_all, |core| by & 1 << core != 0);
            by.is_none_or(|by| is_at_once && stands(by))
        });
        seen
    }

    fn over(&mut self, now: Now, actor: usize, end: End, who: Who, words_count: usize, is_last: bool) {
        if let Some(old) = self.actors[actor].replaces {
            // A server that stops does not wait: nobody comes who could overtake.
            let is_settled = self.actors[old].is_over || (end == End::ServerStopped && words_count == 0);
            assert!(is_settled, "{actor} is over before {old}, which it replaces");
        }
        let one = &mut self.actors[actor];
        let is_first = !std::mem::replace(&mut one.is_leaving, true);
        assert!(!one.is_over, "{actor} is over twice");
        one.is_over = is_last;
        assert!(one.whos.contains(&who), "{actor} is over as {who:?}");
        let left = one.words.0.len();
        let is_right = if is_last { words_count == left } else { words_count <= left };
        assert!(is_right, "{actor} leaves as many last words as it was told, not {words_count}: {:?}", one.words);
        let words = super::reference::Words(one.words.0.drain(..words_count).collect());
        let (database, client) = (one.database, one.client);
        if is_first {
            self.check_end(now, actor, end);
        }
        if !is_first && words_count > 0 {
            self.reach("last words with several owners");
        }
        let settings = &self.plan.settings[database];
        let is_late = end == End::TimedOut && settings.late_last_words == LateLastWords::Yield;
        let heard = is_late.then(|| self.world.heard(client));
        let asking = Asking { actor, who, now, spoken_at: heard.unwrap_or(now.instant) };
        self.databases[database].leave(actor);
        self.databases[database].revoked.retain(|listen| listen.actor != actor);
        for word in &words.0 {
            let (index, what) = match self.databases[database].fire(asking, word, heard) {
                Fate::Spoken { is_cut: true } => (0, "merge partly yielded"),
                Fate::Spoken { is_cut: false } if is_late => (0, "spoken late"),
                Fate::Spoken { is_cut: false } => (0, "spoken"),
                Fate::Yielded => (1, "yielded"),
                Fate::Denied => (2, "last word denied"),
            };
            self.fates[index] += 1;
            self.reach(what);
        }
    }

    /// Whether a session could have ended so, and now.
    fn check_end(&mut self, now: Now, actor: usize, end: End) {
        self.reach(end.as_str());
        let one = &self.actors[actor];
        let is_foreseen = match end {
            End::ServerStopped => self.is_draining,
            End::Superseded => self.actors.iter().any(|other| other.replaces == Some(actor)),
            end => one.ends.contains(&end),
        };
        if end == End::TimedOut {
            let deadline = self.world.heard(one.client) + self.plan.settings[one.database].session_timeout;
            assert!(now.instant >= deadline, "{actor} is cut off although it was heard");
            assert!(now.instant <= deadline + TICK, "{actor} is cut off late");
            return;
        }
        assert!(is_foreseen, "{actor} ended by {end:?}, not {:?}", one.ends);
        // What waits for an earlier session's end goes with its connection: it was not answered.
        if end == End::Closed && one.has_said_goodbye && self.world.is_flushed(one.client) && !one.has_named {
            let lost = one.asked.iter().find(|asked| asked.op.is_for_owner() && !asked.is_done);
            assert!(lost.is_none(), "{actor} said goodbye after {lost:?}");
        }
    }

    fn fetch(&mut self, actor: usize) {
        let texts = self.world.take(self.actors[actor].client);
        self.actors[actor].inbox.extend(texts);
    }

    fn hear(&mut self, actor: usize) {
        self.fetch(actor);
        while let Some(text) = self.actors[actor].inbox.pop_front() {
            self.hear_one(actor, &text);
        }
    }

    fn hear_one(&mut self, actor: usize, text: &str) {
        self.note(|_, line| write!(line, "{actor} hears {text}"));
        if text.len() > 16_384 {
            self.reach("long message");
        }
        let message: Json = serde_json::from_str(text).expect("engines speak JSON");
        let body = &message["d"];
        if message["t"] == "c" {
            self.introduced(actor, body);
        } else if let Some(number) = body["r"].as_i64() {
            self.answered(actor, number, &body["b"]);
        } else {
            self.told(actor, body["a"].as_str().expect("a push has a name"), &body["b"]);
        }
    }

    fn introduced(&mut self, actor: usize, body: &Json) {
        if body["t"] == "r" {
            assert_eq!(body["d"], "sim.example:9000", "a client is sent back to where it came from");
            assert!(self.actors[actor].session.is_some(), "the handshake comes first");
            return self.reach("sent back");
        }
        assert_eq!(body["t"], "h", "the other word about the connection is the handshake");
        let text = body["d"]["s"].as_str().expect("it names the session");
        let id = SessionId::parse(text).expect("the name is one");
        let one = &mut self.actors[actor];
        assert_eq!(one.session, None, "a client is introduced once");
        one.session = Some(SessionRef { home: id.home, slot: id.slot, generation: id.generation });
        one.id = Some(text.to_owned());
        assert_eq!(id.home.index(), one.shard % usize::from(self.plan.shards), "a session lives where it was accepted");
        if let Some(old) = one.replaces {
            let is_elsewhere = self.actors[old].shard % usize::from(self.plan.shards) != id.home.index();
            self.reach(if is_elsewhere { "replaced on another core" } else { "replaced on the same core" });
        }
    }

    fn answered(&mut self, actor: usize, number: i64, body: &Json) {
        let one = &mut self.actors[actor];
        let asked = one.asked.pop_front().unwrap_or_else(|| panic!("{actor} has not asked {number}"));
        assert_eq!(asked.number, number, "{actor} is answered in order");
        if let (Op::Listen { path, tag, .. }, Some(Expected::Listening { is_known })) = (&asked.op, &asked.expected) {
            let view = one.views.iter_mut().find(|view| (&view.path, view.tag) == (path, *tag));
            let view = view.unwrap_or_else(|| panic!("{actor} knows what it asked for"));
            let first = view.first.take();
            view.is_pending = false;
            if !is_known {
                view.tree = first.unwrap_or_else(|| panic!("{actor}: the value comes before the answer to {number}"));
                // Tags are nobody else's.
            } else if tag.is_some() {
                assert_eq!(first, None, "{actor} is told what it knows");
            }
        }
        if let (Op::Listen { path, tag, .. }, Some(Expected::Gathering)) = (&asked.op, &asked.expected) {
            let view = one.views.iter_mut().find(|view| (&view.path, view.tag) == (path, *tag));
            let view = view.unwrap_or_else(|| panic!("{actor} knows what it asked for"));
            view.is_pending = false;
            if let Some(first) = view.first.take() {
                view.tree = first;
            }
        }
        // An owner tells things in the order in which it does them, and this answer is one of them.
        for (path, tag, tree) in &asked.seen {
            let view = one.views.iter().find(|view| (&view.path, view.tag) == (path, *tag));
            let view = view.unwrap_or_else(|| panic!("{actor} no longer listens to {path}"));
            assert_eq!(view.tree, *tree, "{actor} sees of {path} {:?} when {number} is answered", view.want);
        }
        let status = body["s"].as_str().expect("an answer has a status");
        let expected = match (&asked.op, asked.expected) {
            (Op::Home(status), _) => Expected::Status(status),
            (_, expected) => expected.unwrap_or_else(|| panic!("{actor}: nobody has done {number}")),
        };
        match (&expected, &asked.op) {
            (Expected::Value(tree), _) => {
                assert_eq!(status, "ok");
                assert_eq!(Tree::read(&body["d"]), *tree, "{actor}: {number} reads what stands there");
                return;
            }
            (Expected::Gathered(since), Op::Get { path, .. }) => {
                assert_eq!(status, "ok");
                let states = &self.databases[one.database].states[since - 1..];
                check_gathered(&Tree::read(&body["d"]), path, states);
                return;
            }
            (Expected::Gathered(_), op) => panic!("{op:?} is not read"),
            (Expected::Listening { .. } | Expected::Gathering, _) => assert_eq!(status, "ok", "{actor}: {number}"),
            (Expected::Status(expected), _) => assert_eq!(status, *expected, "{actor}: {number} {:?}", asked.op),
        }
        let is_done = status == "ok";
        match asked.op {
            Op::Listen { path, tag, .. } if !is_done => {
                one.views.retain(|view| (&view.path, view.tag) != (&path, tag));
            }
            Op::Unlisten { path, tag } => {
                let gone = one.views.iter().position(|view| (&view.path, view.tag) == (&path, tag));
                if let Some(view) = gone.map(|index| one.views.remove(index)) {
                    one.memories.push((view.path, view.want, view.tree));
                }
            }
            Op::Write { if_hash: Some(_), .. } if is_done => self.reach("transaction"),
            _ => {}
        }
    }

    fn told(&mut self, actor: usize, action: &str, body: &Json) {
        let path = body["p"].as_str().expect("an event has a path");
        let tag = body["t"].as_u64();
        let one = &mut self.actors[actor];
        let is_wanted = match action {
            "d" => one.show(path, &Tree::read(&body["d"]), tag),
            "m" => one.show_places(path, body["d"].as_object().expect("a merge is an object"), tag),
            "c" => return self.revoked(actor, path, &body["q"]),
            action => panic!("{action} is no event"),
        };
        assert!(is_wanted, "{actor} is told of {path} (tag {tag:?}), where it does not listen");
    }

    fn revoked(&mut self, actor: usize, path: &str, queries: &Json) {
        let query = queries.get(0);
        let one = &mut self.actors[actor];
        let is_it = |view: &View| {
            let is_same = query.map_or(view.tag.is_none(), |query| view.tag.is_some() && view.want.to_json() == *query);
            view.path == path && is_same
        };
        let at = one.views.iter().position(is_it).unwrap_or_else(|| panic!("{actor} does not listen to {path}"));
        let view = one.views.remove(at);
        let revoked = &mut self.databases[one.database].revoked;
        let is_same = |listen: &super::reference::Listen| {
            (listen.actor, listen.path.as_str(), listen.tag) == (actor, path, view.tag)
        };
        let index = revoked.iter().position(is_same);
        assert!(index.is_some(), "{actor} loses {path} (tag {:?}), which it may read", view.tag);
        revoked.remove(index.expect("it was found"));
        self.reach("listen revoked");
    }
}

/// What was put together above the parts: each part of it is as it was at some time since it was asked for.
fn check_gathered(value: &Tree, path: &str, states: &[Tree]) {
    let check = |place: &str, part: &Tree| {
        let is_known = states.iter().any(|state| state.at(&super::tree::join(path, place)) == *part);
        assert!(is_known, "never has this stood at {path} {place}: {part:?}");
    };
    if value.value.is_some() {
        check("", value);
    }
    for (key, child) in &value.children {
        if child.value.is_some() {
            check(key, child);
        } else if super::tree::keys(path).is_empty() {
            child.children.iter().for_each(|(second, part)| check(&format!("{key}/{second}"), part));
        } else {
            check(key, child);
        }
    }
}

fn who(identity: &Identity) -> Who {
    match (identity.is_admin, identity.auth.is_null()) {
        (true, _) => Who::Admin,
        (false, true) => Who::Nobody,
        (false, false) => Who::User,
    }
}

impl Database {
    /// What a session's listens show now.
    fn seen_by(&self, actor: usize) -> Vec<(String, Option<u64>, Tree)> {
        let listens = self.listens.iter().filter(|listen| listen.actor == actor);
        listens.map(|it| (it.path.clone(), it.tag, self.tree.at(&it.path).select(&it.want))).collect()
    }

    /// Does what a client asks for, and says what it must be answered.
    fn perform(&mut self, asking: Asking, op: &Op) -> Expected {
        let Asking { actor, who, .. } = asking;
        match op {
            Op::Write { write, if_hash } => Expected::Status(self.write(asking, write, if_hash.as_deref())),
            Op::LastWord(write) if self.may_write(who, write) => Expected::Status("ok"),
            Op::LastWord(_) => Expected::Status("permission_denied"),
            Op::Listen { path, .. } if !self.may_read(who, path) => Expected::Status("permission_denied"),
            Op::Listen { path, want, tag, hash } => {
                self.listen(actor, who, path, want, *tag);
                Expected::Listening { is_known: self.tree.at(path).select(want).hash() == *hash }
            }
            Op::Unlisten { path, tag } => {
                self.unlisten(actor, path, *tag);
                Expected::Status("ok")
            }
            Op::Get { path, .. } if !self.may_read(who, path) => Expected::Status("permission_denied"),
            Op::Get { path, want } => Expected::Value(self.tree.at(path).select(want)),
            Op::Cancel(_) => Expected::Status("ok"),
            Op::Home(_) => panic!("its home answers {op:?}"),
        }
    }
}

/// What must be true whenever nothing is on its way.
impl History {
    fn compare(&mut self) {
        self.compare_sessions();
        self.compare_views();
        self.compare_held();
        for actor in &self.actors {
            let is_late = actor.is_served() && self.world.is_open(actor.client) && !actor.asked.is_empty();
            assert!(!is_late, "{:?} is not answered", actor.asked.front());
        }
    }

    fn compare_sessions(&self) {
        let living: Vec<_> = self.actors.iter().filter(|actor| actor.session.is_some() && !actor.is_over).collect();
        for actor in &living {
            assert!(self.world.is_open(actor.client), "a closed connection has no session: {actor:?}");
            assert!(!(actor.has_said_goodbye && actor.is_served()), "who said goodbye is gone: {actor:?}");
            let deadline = self.world.heard(actor.client) + self.plan.settings[actor.database].session_timeout;
            assert!(self.world.now() <= deadline + TICK, "a silent session lives on: {actor:?}");
            if let Some(old) = actor.replaces {
                assert!(self.actors[old].is_over, "a replaced session lives on: {actor:?}");
            }
        }
        assert_eq!(self.world.session_count(), living.len(), "sessions");
    }

    fn compare_views(&self) {
        for (database, it) in self.databases.iter().enumerate() {
            assert!(it.revoked.is_empty(), "these were revoked and not told: {:?}", it.revoked);
            let mut count = 0;
            for (index, actor) in self.actors.iter().enumerate().filter(|(_, actor)| actor.database == database) {
                if actor.is_over {
                    continue;
                }
                for Expecting { view, tree } in expecting(it, index, actor) {
                    count += 1;
                    assert_eq!(view.tree, tree, "{index} sees of {} {:?}", view.path, view.want);
                }
            }
            assert_eq!(count, it.listens.len(), "everybody sees what they listen to: {:?}", it.listens);
        }
        let stats = self.world.stats();
        assert_eq!(stats.inner, 0, "an engine owes itself nothing");
        let listens: usize = self.databases.iter().map(|it| it.listens.len()).sum();
        let place = |(database, it): (usize, &Database)| {
            it.listens.iter().map(|listen| (database, listen.path.clone())).collect::<Vec<_>>()
        };
        let places: BTreeSet<_> = self.databases.iter().enumerate().flat_map(place).collect();
        assert_eq!(stats.listens, listens, "listens");
        assert_eq!(stats.listened_places, places.len(), "listened places");
    }

    /// Places are held exactly while last words wait for them or for something below.
    fn compare_held(&self) {
        let mut held = BTreeSet::new();
        for actor in self.actors.iter().filter(|actor| !actor.is_over) {
            for place in actor.words.0.iter().flat_map(|word| &word.places) {
                let keys = super::tree::keys(&place.path);
                let core = self.world.holder(NAMES[actor.database], &place.path);
                for depth in 0..=keys.len() {
                    held.insert((core, actor.database, keys[..depth].join("/"), false));
                }
                if place.is_priority {
                    held.insert((core, actor.database, place.path.clone(), true));
                }
            }
        }
        assert_eq!(self.world.stats().held_places, held.len(), "held places: {held:?}");
    }
}

/// A view and what it must show.
struct Expecting<'a> {
    view: &'a View,
    tree: Tree,
}

fn expecting<'a>(database: &'a Database, index: usize, actor: &'a Actor) -> Vec<Expecting<'a>> {
    let listens = database.listens.iter().filter(|listen| listen.actor == index);
    let view = |listen: &super::reference::Listen| {
        let is_it = |view: &&View| (&view.path, view.tag) == (&listen.path, listen.tag);
        let view = actor.views.iter().find(is_it);
        let view = view.unwrap_or_else(|| panic!("{index} does not know of {listen:?}"));
        Expecting { view, tree: database.tree.at(&listen.path).select(&listen.want) }
    };
    listens.map(view).collect()
}

/// What clients do: the parts that `acts` puts together.
impl History {
    pub(super) fn join(&mut self, database: usize, shard: usize, replaces: Option<(Option<usize>, String)>) -> usize {
        let name = NAMES[database];
        let has_named = replaces.is_some();
        let (replaces, last) = replaces.map_or((None, String::new()), |(who, id)| (who, format!("&ls={id}")));
        let client = self.world.join(shard, &format!("&ns={name}{last}"));
        let mut actor = Actor::new(client, database, shard);
        (actor.replaces, actor.has_named) = (replaces, has_named);
        self.actors.push(actor);
        let index = self.actors.len() - 1;
        self.note(|_, text| write!(text, "{index} joins {name} on {shard}, replaces {replaces:?}"));
        index
    }

    /// Asks for something: `body` is `"a":…,"b":…`, as the protocol has it.
    pub(super) fn ask(&mut self, actor: usize, name: &str, body: &Json, op: Op) {
        let one = &mut self.actors[actor];
        let number = one.next_number;
        one.next_number += 1;
        let since = self.databases[one.database].states.len();
        let (who, expected, seen, is_done) = (one.who, None, Vec::new(), false);
        one.asked.push_back(Asked { number, op, who, expected, seen, is_done, since });
        let text = json!({"t": "d", "d": {"r": number, "a": name, "b": body}}).to_string();
        let client = one.client;
        self.note(|_, line| write!(line, "{actor} asks {text}"));
        self.send(client, &text);
    }

    fn send(&mut self, client: Client, text: &str) {
        if text.is_ascii() && self.dice.percent(5) {
            self.reach("request in segments");
            let (one, other) = text.split_at(1 + self.dice.index(text.len() - 1));
            for piece in ["2", one, other] {
                self.world.send(client, piece);
            }
        } else {
            self.world.send(client, text);
        }
    }

    pub(super) fn sign_in(&mut self, actor: usize, who: Who) {
        let body = match who {
            Who::Admin => json!({"cred": "owner"}),
            Who::User => json!({"cred": "owner", "authvar": {"uid": "joe"}}),
            Who::Nobody => json!({"cred": "owner", "noauth": true}),
        };
        self.ask(actor, "auth", &body, Op::Home("ok"));
        self.is_now(actor, who);
    }

    pub(super) fn is_now(&mut self, actor: usize, who: Who) {
        self.actors[actor].who = who;
        self.actors[actor].whos.push(who);
    }

    pub(super) fn listen(&mut self, actor: usize, path: &str, want: &Want) {
        let tag = (!want.is_all()).then_some(self.token.unsigned_abs());
        self.token += 1;
        let one = &mut self.actors[actor];
        let known = one.memories.iter().rev().find(|(p, w, _)| (p.as_str(), w) == (path, want));
        let tree = known.map(|(.., tree)| tree.clone()).unwrap_or_default();
        let mut body = json!({"p": format!("/{path}"), "h": tree.hash()});
        if let Some(tag) = tag {
            body["t"] = json!(tag);
            body["q"] = want.to_json();
        }
        let (path, want) = (path.to_owned(), want.clone());
        let hash = tree.hash();
        let (is_pending, first, is_closing) = (true, None, false);
        one.views.push(View { path: path.clone(), want: want.clone(), tag, tree, is_pending, first, is_closing });
        if known.is_some() {
            self.reach("listened again");
        }
        self.ask(actor, "q", &body, Op::Listen { path, want, tag, hash });
    }

    pub(super) fn say_goodbye(&mut self, actor: usize) {
        let one = &mut self.actors[actor];
        one.has_said_goodbye = true;
        one.ends.push(End::Closed);
        let client = one.client;
        self.note(|_, text| write!(text, "{actor} says goodbye"));
        self.world.say_goodbye(client);
    }

    /// Goes, in one of all the ways there are.
    pub(super) fn leave(&mut self, actor: usize) {
        // Mostly without a word.
        let way = self.dice.below(8);
        self.note(|_, text| write!(text, "{actor} leaves by way {way}"));
        let one = &mut self.actors[actor];
        let client = one.client;
        match way {
            0 => self.say_goodbye(actor),
            1 => {
                one.has_said_goodbye = true;
                one.ends.push(End::Closed);
                self.world.finish(client);
            }
            2 => {
                one.has_said_goodbye = true;
                one.ends.push(End::Dropped);
                self.world.hang_up(client, Hangup::Broken);
            }
            3..=5 => {
                one.is_unplugged = true;
                self.world.unplug(client);
            }
            6 => {
                one.has_said_goodbye = true;
                one.ends.push(End::Killed);
                // A binary frame.
                self.world.send_bytes(client, &[0x82, 0x80, 0, 0, 0, 0]);
            }
            _ => {
                one.has_said_goodbye = true;
                one.ends.push(End::Killed);
                self.world.choke(client);
            }
        }
    }
}
