//! Histories in which the power fails: nothing that was acknowledged, or heard of, is lost, nothing is half there,
//! nothing stands without what came before it, and every last word is spoken once, in its order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand_chacha::ChaCha12Rng;
use rand_core::{RngCore as _, SeedableRng as _};
use serde_json::Value as Json;

use super::world::{Client, World};
use crate::base::Millis;
use crate::engine::{Durability, Hangup, Input, Settings};
use crate::rules::Ruleset;

const DATABASES: u64 = 3;
const WRITERS: u64 = 6;
const CUTS: usize = 3;
const STEPS: u64 = 140;
const SHARDS_MAX: u64 = 4;
/// Places that each writer has: as many parts may hold them. The last two stand above all parts.
const PLACES: usize = 6;
/// A leaf: every part has its own.
const TOP: usize = PLACES - 2;
/// One time a leaf, one time something of which each part holds some.
const TURN: usize = PLACES - 1;
/// Places at which each leaves last words.
const WORD_PLACES: usize = 3;

/// How often something was seen that is rare.
type Reached = BTreeMap<&'static str, u64>;

/// One who writes, in one life of the server.
struct Writer {
    client: Client,
    database: u64,
    name: String,
    number: i64,
    /// By request: what it means if it is answered.
    asked: BTreeMap<i64, Asked>,
    /// In the order in which they were sent.
    acts: Vec<Act>,
    /// Whoever has heard of this one could rely on it: how many acts must be there.
    heard_count: usize,
    words: Vec<Word>,
}

/// Writes its number, from one on, or nothing to some places of its writer.
struct Act {
    places: Vec<usize>,
    is_delete: bool,
    is_done: bool,
    is_refused: bool,
    /// It may have been refused: the disk was full while it was under way.
    is_doubtful: bool,
}

enum Asked {
    Write(usize),
    Leave(usize),
    Cancel(Vec<usize>),
}

/// A last word that adds one.
#[derive(Clone, Copy, Debug, Default)]
struct Word {
    is_left: bool,
    is_refused: bool,
    is_cancelling: bool,
    is_cancelled: bool,
    is_heard: bool,
}

/// One who listens to all of a database, in one life of the server.
struct Watcher {
    client: Client,
    database: u64,
    /// By writer: the word that was heard last.
    spoken: BTreeMap<String, usize>,
}

/// Plays the history of a seed. Panics where it is not as it must be.
pub fn run(seed: u64) -> BTreeMap<&'static str, u64> {
    let mut dice = ChaCha12Rng::seed_from_u64(seed);
    let grace = if dice.next_u64().is_multiple_of(3) { Millis(5_000) } else { Millis(0) };
    let settings = Settings { durability: Durability::Fsync, restart_grace: grace, ..Settings::default() };
    let shards = |dice: &mut ChaCha12Rng| u8::try_from(1 + dice.next_u64() % SHARDS_MAX).expect("it is small");
    let mut world = World::with(shards(&mut dice), seed, &Arc::new(settings), &Arc::new(Ruleset::open()));
    let mut reached = Reached::new();
    let mut dead: Vec<Writer> = Vec::new();
    for cut in 0..=CUTS {
        let mut writers: Vec<Writer> = (0..WRITERS).map(|writer| Writer::join(&mut world, cut, writer)).collect();
        let mut watchers: Vec<Watcher> = (0..DATABASES).map(|database| Watcher::join(&mut world, database)).collect();
        let is_uniting = dice.next_u64().is_multiple_of(2);
        if !dice.next_u64().is_multiple_of(4) {
            calm(&mut world);
        }
        let mut is_full = false;
        for _ in 0..dice.next_u64() % STEPS {
            let index = usize::try_from(dice.next_u64() % WRITERS).expect("writers are few");
            match dice.next_u64() % 40 {
                0..=2 => snapshot(&mut world, index, dice.next_u64(), &mut reached),
                3 | 4 => {
                    is_full = dice.next_u64().is_multiple_of(2);
                    world.input_all(|| Input::Full(is_full));
                }
                _ => {}
            }
            let writer = &mut writers[index];
            match dice.next_u64() % 16 {
                0..=3 => writer.write(&mut world, dice.next_u64(), is_uniting),
                4..=6 => writer.leave(&mut world, dice.next_u64()),
                7 => writer.cancel(&mut world, dice.next_u64()),
                8 if dice.next_u64().is_multiple_of(2) => world.hang_up(writer.client, Hangup::Broken),
                9..=12 => drop(world.deliver()),
                _ => world.sync(index),
            }
            if is_full {
                writers.iter_mut().for_each(Writer::doubt);
            }
            writers.iter_mut().for_each(|writer| writer.hear(&mut world));
            watchers.iter_mut().for_each(|watcher| watcher.hear(&mut world, &mut writers, &mut dead));
        }
        if dice.next_u64().is_multiple_of(3) {
            // Everybody goes, and the power fails in the midst of what they have left.
            calm(&mut world);
            writers.iter_mut().for_each(|writer| writer.hear(&mut world));
            writers.iter().for_each(|writer| world.hang_up(writer.client, Hangup::Broken));
            for _ in 0..dice.next_u64() % 40 {
                match dice.next_u64() % 3 {
                    0 => world.sync(usize::try_from(dice.next_u64() % SHARDS_MAX).expect("it is small")),
                    _ => drop(world.deliver()),
                }
            }
            watchers.iter_mut().for_each(|watcher| watcher.hear(&mut world, &mut writers, &mut dead));
        }
        note_reached(&world, &mut reached);
        dead.append(&mut writers);
        world = world.cut_power(shards(&mut dice));
        check_speeches(&world, &mut reached);
        *reached.entry("parts of an update undone").or_default() += world.undone_count() as u64;
        if grace.0 > 0 && dice.next_u64().is_multiple_of(2) {
            // A second failure before anything was spoken.
            world = world.cut_power(shards(&mut dice));
        }
        let mut watchers: Vec<Watcher> = (0..DATABASES).map(|database| Watcher::join(&mut world, database)).collect();
        calm(&mut world);
        world.pass(grace);
        calm(&mut world);
        watchers.iter_mut().for_each(|watcher| watcher.hear(&mut world, &mut [], &mut dead));
        watchers.iter().for_each(|watcher| world.hang_up(watcher.client, Hangup::Finished));
        check(&mut world, &dead);
    }
    reached
}

fn snapshot(world: &mut World, index: usize, chance: u64, reached: &mut Reached) {
    let mut dice = ChaCha12Rng::seed_from_u64(chance);
    let is_taken = world.snapshot(index, |world| {
        for _ in 0..dice.next_u64() % 6 {
            if dice.next_u64().is_multiple_of(3) {
                world.sync(usize::try_from(dice.next_u64() % SHARDS_MAX).expect("it is small"));
            } else {
                world.deliver();
            }
        }
    });
    *reached.entry(if is_taken { "snapshot taken" } else { "snapshot put off" }).or_default() += 1;
}

fn note_reached(world: &World, reached: &mut Reached) {
    for database in 0..DATABASES {
        let is_spread = world.is_spread(&format!("db{database}"));
        *reached.entry(if is_spread { "cut while spread" } else { "cut while whole" }).or_default() += 1;
    }
    if world.is_part_on_its_way() {
        *reached.entry("cut while parts were on their way home").or_default() += 1;
    }
}

fn calm(world: &mut World) {
    loop {
        world.calm();
        if !world.is_unsynced() {
            return;
        }
        world.sync_all();
    }
}

impl Writer {
    fn join(world: &mut World, cut: usize, writer: u64) -> Self {
        let database = writer % DATABASES;
        let client = world.join(usize::try_from(writer).expect("writers are few"), &format!("&ns=db{database}"));
        let name = format!("{cut}-{writer}");
        let (number, asked, acts, words) = Default::default();
        Self { client, database, name, number, asked, acts, heard_count: 0, words }
    }

    fn ask(&mut self, world: &mut World, asked: Asked, action: &str, body: &str) {
        self.number += 1;
        self.asked.insert(self.number, asked);
        let number = self.number;
        world.send(self.client, &format!(r#"{{"t":"d","d":{{"r":{number},"a":"{action}","b":{body}}}}}"#));
    }

    fn write(&mut self, world: &mut World, chance: u64, is_uniting: bool) {
        if !world.is_open(self.client) {
            return;
        }
        let (name, n) = (self.name.clone(), self.acts.len() + 1);
        let place = usize::try_from(chance % TOP as u64).expect("places are few");
        let (chance, mut is_delete) = (chance / 64, false);
        let both = |place: usize| format!(r#""w{place}/{name}/a":{n},"w{place}/{name}/b/c":{n}"#);
        let turn =
            if n.is_multiple_of(2) { format!(r#"{{"a":{n},"b":{{"c":{n}}},"d":{n},"e":{n}}}"#) } else { n.to_string() };
        let (places, action, body) = match chance % 24 {
            0 if is_uniting => {
                // Nothing was left there, but who cancels there needs all.
                self.ask(world, Asked::Cancel(Vec::new()), "oc", r#"{"p":"/nowhere"}"#);
                (vec![TOP], "p", format!(r#"{{"p":"/top-{name}","d":{n}}}"#))
            }
            9 => (vec![TOP], "p", format!(r#"{{"p":"/top-{name}","d":{n}}}"#)),
            10 | 11 => (vec![TURN], "p", format!(r#"{{"p":"/turn-{name}","d":{turn}}}"#)),
            12 => {
                is_delete = true;
                let above = if place.is_multiple_of(2) { TOP } else { TURN };
                (vec![above], "p", format!(r#"{{"p":"/{}","d":null}}"#, self.above(above)))
            }
            13 => {
                let body = format!(r#"{{"p":"/","d":{{"top-{name}":{n},"turn-{name}":{turn},{}}}}}"#, both(place));
                (vec![place, TOP, TURN], "m", body)
            }
            1 | 6..=8 => {
                let other = (place + 1) % TOP;
                (vec![place, other], "m", format!(r#"{{"p":"/","d":{{{},{}}}}}"#, both(place), both(other)))
            }
            2..=5 => {
                is_delete = true;
                (vec![place], "p", format!(r#"{{"p":"/w{place}/{name}","d":null}}"#))
            }
            _ => (vec![place], "m", format!(r#"{{"p":"/w{place}/{name}","d":{{"a":{n},"b/c":{n}}}}}"#)),
        };
        let (is_done, is_refused, is_doubtful) = Default::default();
        self.acts.push(Act { places, is_delete, is_done, is_refused, is_doubtful });
        self.ask(world, Asked::Write(n - 1), action, &body);
    }

    /// The key of a place above all parts.
    fn above(&self, place: usize) -> String {
        format!("{}-{}", if place == TOP { "top" } else { "turn" }, self.name)
    }

    fn leave(&mut self, world: &mut World, chance: u64) {
        if !world.is_open(self.client) {
            return;
        }
        let (word, place) = (self.words.len(), chance % WORD_PLACES as u64);
        self.words.push(Word::default());
        let body = format!(r#"{{"p":"/s{place}/{}/k{word}","d":{{".sv":{{"increment":1}}}}}}"#, self.name);
        self.ask(world, Asked::Leave(word), "o", &body);
    }

    /// Cancels one word, which it has left or is leaving.
    fn cancel(&mut self, world: &mut World, chance: u64) {
        let Some(word) = (chance % 8).checked_rem(self.words.len() as u64) else { return };
        let word = usize::try_from(word).expect("words are few");
        if self.words[word].is_cancelling || !world.is_open(self.client) {
            return;
        }
        self.words[word].is_cancelling = true;
        // Nobody remembers where it was left: it is nowhere else.
        let all: Vec<usize> = vec![word];
        for place in 0..WORD_PLACES {
            let asked = Asked::Cancel(if place + 1 == WORD_PLACES { all.clone() } else { Vec::new() });
            let body = format!(r#"{{"p":"/s{place}/{}/k{word}"}}"#, self.name);
            self.ask(world, asked, "oc", &body);
        }
    }

    /// The disk is full: what is under way may be refused.
    fn doubt(&mut self) {
        for asked in self.asked.values() {
            if let Asked::Write(act) = asked {
                self.acts[*act].is_doubtful = true;
            }
        }
    }

    fn hear(&mut self, world: &mut World) {
        for text in world.take(self.client) {
            let message: Json = serde_json::from_str(&text).expect("a server speaks JSON");
            let Some(number) = message["d"]["r"].as_i64() else { continue };
            let asked = self.asked.remove(&number).expect("it was asked, and not answered before");
            if message["d"]["b"]["s"] != "ok" {
                assert!(text.contains("the disk is full"), "{text}");
                match asked {
                    Asked::Write(act) => self.acts[act].is_refused = true,
                    Asked::Leave(word) => self.words[word].is_refused = true,
                    Asked::Cancel(_) => panic!("a cancel is never refused: {text}"),
                }
                continue;
            }
            match asked {
                Asked::Write(act) => self.acts[act].is_done = true,
                Asked::Leave(word) => self.words[word].is_left = true,
                Asked::Cancel(words) => words.into_iter().for_each(|word| self.words[word].is_cancelled = true),
            }
        }
    }

    /// Whether what stands at its places is what its first `count` acts have come to.
    fn agrees(&self, count: usize, standing: [usize; PLACES]) -> bool {
        (0..PLACES).all(|place| {
            let mut possible = BTreeSet::from([0]);
            for (index, act) in self.acts[..count].iter().enumerate() {
                if act.is_refused || !act.places.contains(&place) {
                    continue;
                }
                if act.is_done || !act.is_doubtful {
                    possible.clear();
                }
                possible.insert(if act.is_delete { 0 } else { index + 1 });
            }
            possible.contains(&standing[place])
        })
    }

    fn check(&self, data: &Json) {
        let name = &self.name;
        let standing = std::array::from_fn(|place| {
            let written = if place < TOP { &data[format!("w{place}")][name] } else { &data[self.above(place)] };
            if let Some(number) = written.as_u64() {
                return usize::try_from(number).expect("acts are few");
            }
            let mut leaves = Vec::new();
            flatten("", written, &mut leaves);
            let (count, one) = (leaves.len(), leaves.first().map_or(0, |(_, number)| *number));
            assert!(
                count == [0, if place < TOP { 2 } else { 4 }][usize::from(one > 0)],
                "{name}: all of it: {written}"
            );
            assert!(leaves.iter().all(|(_, number)| *number == one), "{name}: all places of an update or none");
            one
        });
        let done_count = self.acts.iter().rposition(|act| act.is_done).map_or(0, |last| last + 1);
        let least = done_count.max(self.heard_count);
        let is_possible = (least..=self.acts.len()).any(|count| self.agrees(count, standing));
        assert!(is_possible, "{name}: {least} of {} are safe, and there is {standing:?}", self.acts.len());
        for (index, word) in self.words.iter().enumerate() {
            let places = (0..WORD_PLACES).map(|place| &data[format!("s{place}")][name][format!("k{index}")]);
            let said: i64 = places.filter_map(Json::as_i64).sum();
            assert!(said <= 1, "{name}: word {index} was spoken {said} times");
            assert!(said == 1 || !word.is_heard, "{name}: word {index} was heard, and is lost");
            assert!(said == 1 || !word.is_left || word.is_cancelling, "{name}: word {index} not spoken: {word:?}");
            assert!(said == 0 || !(word.is_cancelled || word.is_refused), "{name}: {index} spoken although {word:?}");
        }
    }
}

impl Watcher {
    fn join(world: &mut World, database: u64) -> Self {
        let client = world.join(usize::try_from(database).expect("they are few"), &format!("&ns=db{database}"));
        world.send(client, r#"{"t":"d","d":{"r":1,"a":"q","b":{"p":"/","h":""}}}"#);
        Self { client, database, spoken: BTreeMap::new() }
    }

    /// What it hears of cannot be undone, and of words it hears in their order.
    fn hear(&mut self, world: &mut World, writers: &mut [Writer], dead: &mut [Writer]) {
        for text in world.take(self.client) {
            let message: Json = serde_json::from_str(&text).expect("a server speaks JSON");
            let Some(path) = message["d"]["b"]["p"].as_str() else { continue };
            let mut leaves = Vec::new();
            flatten(path, &message["d"]["b"]["d"], &mut leaves);
            let is_one = leaves.len() == 1;
            for (path, value) in leaves {
                let keys: Vec<&str> = path.split('/').filter(|key| !key.is_empty()).collect();
                let above = keys[0].strip_prefix("top-").or_else(|| keys[0].strip_prefix("turn-"));
                let name = above.unwrap_or_else(|| keys[1]);
                let is_his = |writer: &&mut Writer| writer.database == self.database && writer.name == name;
                let writer = writers.iter_mut().chain(dead.iter_mut()).find(is_his).expect("only they write");
                if !keys[0].starts_with('s') {
                    writer.heard_count = writer.heard_count.max(value);
                    continue;
                }
                let word: usize = keys[2].trim_start_matches('k').parse().expect("it is a word");
                writer.words[word].is_heard = true;
                if is_one {
                    let before = self.spoken.insert(name.to_owned(), word);
                    assert!(before.is_none_or(|before| before < word), "{name}: {word} is heard after {before:?}");
                }
            }
        }
    }
}

fn flatten(path: &str, value: &Json, leaves: &mut Vec<(String, usize)>) {
    match value {
        Json::Object(children) => {
            children.iter().for_each(|(key, child)| flatten(&format!("{path}/{key}"), child, leaves));
        }
        Json::Number(number) => {
            leaves.push((path.to_owned(), usize::try_from(number.as_u64().unwrap_or(0)).expect("they are small")));
        }
        _ => {}
    }
}

/// What was spoken before anybody was served was spoken in the order in which it was left.
fn check_speeches(world: &World, reached: &mut Reached) {
    for words in world.speeches() {
        let numbers: Vec<usize> = words.iter().filter_map(|path| path.rsplit_once('k')?.1.parse().ok()).collect();
        assert!(numbers.is_sorted(), "the last words of a session are spoken in another order: {words:?}");
        let places: BTreeSet<&str> = words.iter().filter_map(|path| path.split('/').next()).collect();
        *reached.entry("owed words spoken before the start").or_default() += 1;
        if places.len() > 1 {
            *reached.entry("owed words of several owners").or_default() += 1;
        }
    }
}

fn check(world: &mut World, dead: &[Writer]) {
    for database in 0..DATABASES {
        let reader = world.join(0, &format!("&ns=db{database}"));
        world.send(reader, r#"{"t":"d","d":{"r":1,"a":"g","b":{"p":"/"}}}"#);
        calm(world);
        let answer = world.take(reader).pop().expect("it is answered");
        let data = &serde_json::from_str::<Json>(&answer).expect("a server speaks JSON")["d"]["b"]["d"];
        dead.iter().filter(|writer| writer.database == database).for_each(|writer| writer.check(data));
        world.hang_up(reader, Hangup::Finished);
        calm(world);
    }
}
