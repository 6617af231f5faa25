//! Histories in which the power fails: nothing that was acknowledged is lost, nothing is half there, and
//! every last word is spoken once.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand_chacha::ChaCha12Rng;
use rand_core::{RngCore as _, SeedableRng as _};
use serde_json::Value as Json;

use super::world::{Client, World};
use crate::base::Millis;
use crate::engine::{Durability, Hangup, Input, Settings};
use crate::rules::Ruleset;

const DATABASES: u64 = 3;
const WRITERS: u64 = 5;
const CUTS: usize = 3;
const STEPS: u64 = 120;

/// One who writes, in one life of the server.
struct Writer {
    client: Client,
    database: u64,
    name: String,
    number: i64,
    /// By request: what it means if it is answered.
    asked: BTreeMap<i64, Asked>,
    /// Numbers written to both places of an update.
    sent: i64,
    done: i64,
    word: Word,
}

enum Asked {
    Write(i64),
    Leave,
    Cancel,
}

/// A last word that adds one.
#[derive(Clone, Copy, Debug, Default)]
struct Word {
    is_left: bool,
    is_cancelling: bool,
    is_cancelled: bool,
}

/// Plays the history of a seed. Panics where it is not as it must be.
pub fn run(seed: u64) {
    let mut dice = ChaCha12Rng::seed_from_u64(seed);
    let grace = if dice.next_u64().is_multiple_of(3) { Millis(5_000) } else { Millis(0) };
    let settings = Settings { durability: Durability::Fsync, restart_grace: grace, ..Settings::default() };
    let shards = |dice: &mut ChaCha12Rng| u8::try_from(1 + dice.next_u64() % 3).expect("it is 1 to 3");
    let mut world = World::with(shards(&mut dice), seed, &Arc::new(settings), &Arc::new(Ruleset::open()));
    let mut dead: Vec<Writer> = Vec::new();
    for cut in 0..=CUTS {
        let mut writers: Vec<Writer> = (0..WRITERS).map(|writer| Writer::join(&mut world, cut, writer)).collect();
        calm(&mut world);
        writers.iter_mut().for_each(|writer| writer.hear(&mut world));
        for _ in 0..dice.next_u64() % STEPS {
            let index = usize::try_from(dice.next_u64() % WRITERS).expect("writers are few");
            match dice.next_u64() % 40 {
                0 => world.snapshot(index, |world| {
                    world.deliver();
                }),
                1 | 2 => {
                    let is_full = dice.next_u64().is_multiple_of(2);
                    world.input_all(|| Input::Full(is_full));
                }
                _ => {}
            }
            match dice.next_u64() % 12 {
                0..=3 => writers[index].write(&mut world),
                4 => writers[index].leave(&mut world),
                5 => writers[index].cancel(&mut world),
                6 => world.hang_up(writers[index].client, Hangup::Broken),
                7..=9 => drop(world.deliver()),
                _ => world.sync(index),
            }
            writers.iter_mut().for_each(|writer| writer.hear(&mut world));
        }
        dead.append(&mut writers);
        world = world.cut_power(shards(&mut dice));
        if grace.0 > 0 && dice.next_u64().is_multiple_of(2) {
            // A second failure before anything was spoken.
            world = world.cut_power(shards(&mut dice));
        }
        calm(&mut world);
        world.pass(grace);
        calm(&mut world);
        check(&mut world, &dead);
    }
}

fn calm(world: &mut World) {
    loop {
        world.calm();
        if !world.is_unsynced() {
            return;
        }
        (0..3).for_each(|shard| world.sync(shard));
    }
}

impl Writer {
    fn join(world: &mut World, cut: usize, writer: u64) -> Self {
        let database = writer % DATABASES;
        let client = world.join(usize::try_from(writer).expect("writers are few"), &format!("&ns=db{database}"));
        let (number, asked, word) = Default::default();
        Self { client, database, name: format!("{cut}-{writer}"), number, asked, sent: 0, done: 0, word }
    }

    fn ask(&mut self, world: &mut World, asked: Asked, action: &str, body: &str) {
        if world.is_open(self.client) {
            self.number += 1;
            self.asked.insert(self.number, asked);
            let number = self.number;
            world.send(self.client, &format!(r#"{{"t":"d","d":{{"r":{number},"a":"{action}","b":{body}}}}}"#));
        }
    }

    fn write(&mut self, world: &mut World) {
        self.sent += 1;
        let (name, n) = (self.name.clone(), self.sent);
        self.ask(world, Asked::Write(n), "m", &format!(r#"{{"p":"/w/{name}","d":{{"a":{n},"b/c":{n}}}}}"#));
    }

    fn leave(&mut self, world: &mut World) {
        if self.asked.values().all(|asked| matches!(asked, Asked::Write(_))) && !self.word.is_left {
            let body = format!(r#"{{"p":"/said/{}","d":{{".sv":{{"increment":1}}}}}}"#, self.name);
            self.ask(world, Asked::Leave, "o", &body);
        }
    }

    fn cancel(&mut self, world: &mut World) {
        if self.word.is_left && !self.word.is_cancelling && world.is_open(self.client) {
            self.word.is_cancelling = true;
            self.ask(world, Asked::Cancel, "oc", &format!(r#"{{"p":"/said/{}"}}"#, self.name));
        }
    }

    fn hear(&mut self, world: &mut World) {
        for text in world.take(self.client) {
            let message: Json = serde_json::from_str(&text).expect("a server speaks JSON");
            let Some(number) = message["d"]["r"].as_i64() else { continue };
            let asked = self.asked.remove(&number).expect("it was asked, and not answered before");
            if message["d"]["b"]["s"] != "ok" {
                assert!(text.contains("the disk is full") && !matches!(asked, Asked::Cancel), "{text}");
                continue;
            }
            match asked {
                Asked::Write(number) => self.done = number,
                Asked::Leave => self.word.is_left = true,
                Asked::Cancel => self.word.is_cancelled = true,
            }
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
        for Writer { name, sent, done, word, .. } in dead.iter().filter(|writer| writer.database == database) {
            let written = &data["w"][name];
            let (one, other) = (written["a"].as_i64().unwrap_or(0), written["b"]["c"].as_i64().unwrap_or(0));
            assert_eq!(one, other, "{name}: both places of an update or none");
            assert!((*done..=*sent).contains(&one), "{name}: {done} were acknowledged, {one} of {sent} are there");
            let said = data["said"][name].as_i64().unwrap_or(0);
            assert!(said <= 1, "{name}: spoken {said} times");
            assert!(said == 1 || !word.is_left || word.is_cancelling, "{name}: not spoken: {word:?}");
            assert!(said == 0 || !word.is_cancelled, "{name}: spoken although {word:?}");
        }
        world.hang_up(reader, Hangup::Finished);
        calm(world);
    }
}
