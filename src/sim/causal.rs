//! Histories about one promise: whoever sees a write sees everything that had been acknowledged before it was sent,
//! on whichever core each of them stands; and an update of several places is seen whole or not at all.
//!
//! Each place has one writer, who numbers what it writes. A write remembers what was acknowledged, to anybody, when
//! it was sent. Whatever a reader's view holds after any message, all that it remembers must be in the view, too.

use std::collections::BTreeMap;

use rand_chacha::ChaCha12Rng;
use rand_core::{RngCore as _, SeedableRng as _};
use serde_json::Value as Json;

use super::world::{Client, World};

const WRITERS: usize = 4;
/// Places that are written one by one, or some at once.
const SINGLE_PLACES: usize = 12;
/// Places of each writer that are always written together, by a write above all parts.
const JOINT_PLACES: usize = 3;
const PLACES: usize = SINGLE_PLACES + WRITERS * JOINT_PLACES;
const STEPS: usize = 400;

/// What of each place is acknowledged.
type Known = [i64; PLACES];

struct Writer {
    client: Client,
    /// By request: the places, and the number that they got.
    asked: BTreeMap<i64, (Vec<usize>, i64)>,
    request: i64,
}

struct Reader {
    client: Client,
    /// What it reads: the root, or one of its children.
    base: &'static str,
    /// What it listens to, it listens to with a limit.
    is_limited: bool,
    request: i64,
    /// `None`: it does not listen, or has not seen anything.
    view: Option<Known>,
    /// The request whose answer says that it has seen everything, or hears nothing more.
    pending: Option<i64>,
    is_listening: bool,
}

struct Story {
    world: World,
    dice: ChaCha12Rng,
    acknowledged: Known,
    next: Known,
    /// By place and number: what was acknowledged when it was sent.
    behind: BTreeMap<(usize, i64), Known>,
    /// By place and number: the other places of the same update.
    beside: BTreeMap<(usize, i64), Vec<usize>>,
    /// How often a view was looked at.
    looked: u64,
}

/// Plays the history of a seed, and says how often a view was looked at.
///
/// # Panics
/// Where an effect was seen without its cause.
#[must_use]
pub fn run(seed: u64) -> u64 {
    let mut dice = ChaCha12Rng::seed_from_u64(seed);
    let shards = u8::try_from(2 + dice.next_u64() % 7).expect("up to eight");
    let has_updates = dice.next_u64().is_multiple_of(2);
    // In some of them something needs all in one place, sooner or later.
    let unites = dice.next_u64().is_multiple_of(3);
    let mut world = World::new(shards, seed);
    let writers = (0..WRITERS).map(|writer| Writer::join(&mut world, writer)).collect();
    // With a limit that nobody reaches: what stands in such a window is put together otherwise.
    let bases =
        [("", false), ("", false), ("a", false), ("b", false), ("a", true), ("b", true), ("o1", false), ("o2", true)];
    let reader = |(shard, (base, is_limited))| Reader::join(&mut world, shard, base, is_limited);
    let readers = (4..).zip(bases).map(reader).collect();
    world.settle();
    let (behind, beside) = Default::default();
    let mut story = Story { world, dice, acknowledged: [0; PLACES], next: [0; PLACES], behind, beside, looked: 0 };
    story.play(writers, readers, has_updates, unites);
    story.looked
}

impl Story {
    fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.dice.next_u64() % count as u64).expect("it is below a usize")
    }

    fn play(&mut self, mut writers: Vec<Writer>, mut readers: Vec<Reader>, has_updates: bool, unites: bool) {
        for step in 0..STEPS {
            match self.below(10) {
                0..=2 => {
                    let writer = self.below(WRITERS);
                    let is_update = has_updates && self.below(4) == 0;
                    self.write(&mut writers[writer], writer, is_update);
                    if unites && step > STEPS / 3 && self.below(20) == 0 {
                        writers[writer].cancel_all(&mut self.world);
                    }
                }
                3 => {
                    let reader = self.below(readers.len());
                    readers[reader].change(&mut self.world);
                }
                _ => drop(self.world.deliver()),
            }
            self.hear(&mut writers, &mut readers);
        }
        self.world.settle();
        self.hear(&mut writers, &mut readers);
        assert_eq!(self.acknowledged, self.next, "everything is acknowledged in the end");
    }

    fn write(&mut self, writer: &mut Writer, index: usize, is_update: bool) {
        let own: Vec<usize> = (0..SINGLE_PLACES).filter(|place| place % WRITERS == index).collect();
        let is_above = is_update && self.below(2) == 0;
        let places = match is_update {
            _ if is_above => (0..JOINT_PLACES).map(|place| SINGLE_PLACES + index * JOINT_PLACES + place).collect(),
            true => own,
            false => vec![own[self.below(own.len())]],
        };
        // One number for all of them.
        let number = places.iter().map(|place| self.next[*place]).max().expect("there is one") + 1;
        for place in &places {
            self.next[*place] = number;
            self.behind.insert((*place, number), self.acknowledged);
            self.beside.insert((*place, number), places.clone());
        }
        writer.request += 1;
        let request = writer.request;
        let body = if is_above {
            let members: Vec<String> = places.iter().map(|place| format!(r#""k{place}":{number}"#)).collect();
            format!(r#""a":"p","b":{{"p":"/o{index}","d":{{{}}}}}"#, members.join(","))
        } else if let [place] = places[..] {
            format!(r#""a":"p","b":{{"p":"/{}","d":{number}}}"#, path_of(place))
        } else {
            let members: Vec<String> =
                places.iter().map(|place| format!(r#""{}":{number}"#, path_of(*place))).collect();
            format!(r#""a":"m","b":{{"p":"/","d":{{{}}}}}"#, members.join(","))
        };
        writer.asked.insert(request, (places, number));
        self.world.send(writer.client, &format!(r#"{{"t":"d","d":{{"r":{request},{body}}}}}"#));
    }

    fn hear(&mut self, writers: &mut [Writer], readers: &mut [Reader]) {
        // Who reads hears first: what is acknowledged meanwhile is not in what was sent before.
        for reader in readers {
            for text in self.world.take(reader.client) {
                reader.hear(&serde_json::from_str(&text).expect("engines speak JSON"));
                self.check(reader);
            }
        }
        for writer in writers {
            for text in self.world.take(writer.client) {
                let message: Json = serde_json::from_str(&text).expect("engines speak JSON");
                let Some(request) = message["d"]["r"].as_i64() else { continue };
                assert_eq!(message["d"]["b"]["s"], "ok");
                let Some((places, number)) = writer.asked.remove(&request) else { continue };
                for place in places {
                    self.acknowledged[place] = self.acknowledged[place].max(number);
                }
            }
        }
    }

    fn check(&mut self, reader: &Reader) {
        let Some(view) = &reader.view else { return };
        self.looked += 1;
        for place in (0..PLACES).filter(|place| reader.sees(*place) && view[*place] > 0) {
            let number = view[place];
            let behind = self.behind.get(&(place, number)).expect("only what was written is seen");
            for other in (0..PLACES).filter(|other| reader.sees(*other)) {
                let (seen, known) = (view[other], behind[other]);
                assert!(seen >= known, "{number} at {place} is seen without {known} at {other}, where {seen} is seen");
            }
            for other in self.beside[&(place, number)].iter().filter(|other| reader.sees(**other)) {
                assert!(view[*other] >= number, "{number} is seen at {place} and not at {other}");
            }
        }
    }
}

impl Writer {
    fn join(world: &mut World, shard: usize) -> Self {
        let client = world.join(shard, "&ns=db");
        Self { client, asked: BTreeMap::new(), request: 0 }
    }

    /// Cancels last words that there are none of: above all parts, so all of it must be in one place.
    fn cancel_all(&mut self, world: &mut World) {
        self.request += 1;
        let request = self.request;
        world.send(self.client, &format!(r#"{{"t":"d","d":{{"r":{request},"a":"oc","b":{{"p":"/","d":null}}}}}}"#));
    }
}

impl Reader {
    fn join(world: &mut World, shard: usize, base: &'static str, is_limited: bool) -> Self {
        let client = world.join(shard, "&ns=db");
        Self { client, base, is_limited, request: 0, view: None, pending: None, is_listening: false }
    }

    fn sees(&self, place: usize) -> bool {
        self.base.is_empty() || path_of(place).starts_with(self.base)
    }

    /// Begins to listen, or ends it, or reads once.
    fn change(&mut self, world: &mut World) {
        if self.pending.is_some() {
            return;
        }
        self.request += 1;
        let (action, rest) = match (self.is_listening, self.request % 3) {
            (true, _) if self.is_limited => ("n", r#","t":7,"q":{"i":".key","l":50,"vf":"l"}"#),
            (true, _) => ("n", ""),
            (false, 0) => ("g", r#","q":{}"#),
            (false, _) if self.is_limited => ("q", r#","h":"","t":7,"q":{"i":".key","l":50,"vf":"l"}"#),
            (false, _) => ("q", r#","h":"""#),
        };
        if action == "n" {
            self.view = None;
        }
        self.is_listening = action == "q";
        self.pending = Some(self.request);
        let (request, base) = (self.request, self.base);
        world.send(
            self.client,
            &format!(r#"{{"t":"d","d":{{"r":{request},"a":"{action}","b":{{"p":"/{base}"{rest}}}}}}}"#),
        );
    }

    fn hear(&mut self, message: &Json) {
        let body = &message["d"];
        if let Some(request) = body["r"].as_i64() {
            assert_eq!((Some(request), &body["b"]["s"]), (self.pending.take(), &Json::from("ok")));
            if !self.is_listening {
                self.view = None;
                if body["b"].get("d").is_some() {
                    let mut view = [0; PLACES];
                    show(&mut view, self.base, &body["b"]["d"]);
                    self.view = Some(view);
                }
            } else if self.view.is_none() {
                self.view = Some([0; PLACES]);
            }
            return;
        }
        if !self.is_listening {
            return;
        }
        let path = body["b"]["p"].as_str().unwrap_or_default();
        match body["a"].as_str() {
            Some("d") => {
                let mut view = if path == self.base { [0; PLACES] } else { self.view.unwrap_or([0; PLACES]) };
                show(&mut view, path, &body["b"]["d"]);
                self.view = Some(view);
            }
            Some("m") => {
                let view = self.view.as_mut().expect("it has seen everything before");
                let members = body["b"]["d"].as_object().expect("a merge is an object");
                members.iter().for_each(|(place, value)| show(view, &super::tree::join(path, place), value));
            }
            _ => {}
        }
    }
}

fn path_of(place: usize) -> String {
    match place.checked_sub(SINGLE_PLACES) {
        None => format!("{}/k{place}", ["a", "b"][place / WRITERS % 2]),
        Some(joint) => format!("o{}/k{place}", joint / JOINT_PLACES),
    }
}

fn show(view: &mut Known, path: &str, value: &Json) {
    match value {
        Json::Object(members) => {
            members.iter().for_each(|(key, value)| show(view, &super::tree::join(path, key), value));
        }
        value => {
            if let (Some(place), Some(number)) = ((0..PLACES).find(|place| path_of(*place) == path), value.as_i64()) {
                view[place] = number;
            }
        }
    }
}
