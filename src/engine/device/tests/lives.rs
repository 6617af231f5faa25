//! Whole lives of devices over a network that loses, copies and delays: a seed is a bug report.

use std::collections::{BTreeMap, BTreeSet};

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore as _, SeedableRng as _};

use super::*;
use crate::base::Instant;

/// How long a datagram may take: with the last repetition it is still within the time for which answers
/// are kept.
const DELAY_MS_MAX: u64 = 3_000;
const LOST_PERCENT: u64 = 20;
const COPIED_PERCENT: u64 = 20;
/// When a request is sent again, and when its device gives up and opens another socket.
const AGAIN_MS: [u64; 2] = [2_000, 6_000];
const GIVE_UP_MS: u64 = 10_000;
const STEP: Millis = Millis(100);

/// A datagram under way.
struct Mail {
    due: Instant,
    port: u16,
    shard: usize,
    bytes: Vec<u8>,
    is_upward: bool,
}

/// What a device waits for.
struct Waiting {
    bytes: Vec<u8>,
    sent: Instant,
    repeats: usize,
    what: Deed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Begin,
    Ping,
    Push(u32),
    LastWord,
    Observe,
}

struct Life {
    device: Device,
    number: u16,
    has_power: bool,
    is_up: bool,
    waiting: Option<Waiting>,
    /// What is yet to be done, the next last.
    plan: Vec<Deed>,
    pinged: Instant,
    /// The pushes that were answered.
    pushed: BTreeSet<u32>,
    has_last_word: bool,
    observed: Option<Vec<u8>>,
    sequence: u32,
    /// The last value that it was told.
    told: Option<Vec<u8>>,
}

struct Sea {
    field: Field,
    dice: ChaCha8Rng,
    mail: Vec<Mail>,
    ports: u16,
}

impl Sea {
    fn percent(&mut self, percent: u64) -> bool {
        self.dice.next_u64() % 100 < percent
    }

    fn post(&mut self, port: u16, shard: usize, bytes: &[u8], is_upward: bool) {
        let copies = if self.percent(LOST_PERCENT) { 0 } else { 1 + usize::from(self.percent(COPIED_PERCENT)) };
        for _ in 0..copies {
            let due = self.field.world.now() + Millis(self.dice.next_u64() % DELAY_MS_MAX);
            self.mail.push(Mail { due, port, shard, bytes: bytes.to_vec(), is_upward });
        }
    }

    /// Lets a step of time pass, and gives what has arrived at devices.
    fn step(&mut self) -> Vec<(u16, Vec<u8>)> {
        self.field.pass(STEP);
        let now = self.field.world.now();
        for (port, all) in std::mem::take(&mut self.field.heard) {
            all.iter().for_each(|bytes| self.post(port, 0, bytes, false));
        }
        let (arrived, rest): (Vec<Mail>, Vec<Mail>) =
            std::mem::take(&mut self.mail).into_iter().partition(|mail| mail.due <= now);
        self.mail = rest;
        let mut down = Vec::new();
        for mail in arrived {
            if mail.is_upward {
                self.field.world.datagram(mail.shard, peer(mail.port), &mail.bytes);
            } else {
                down.push((mail.port, mail.bytes));
            }
        }
        self.field.settle();
        down
    }
}

impl Life {
    fn new(number: u16, port: u16, shard: usize) -> Self {
        let plan = (0..6).map(|push| Deed::Push(u32::from(number) * 100 + push)).chain([Deed::Observe, Deed::LastWord]);
        Self {
            device: Device::new(shard, port),
            number,
            has_power: true,
            is_up: false,
            waiting: None,
            plan: plan.collect(),
            pinged: Instant(0),
            pushed: BTreeSet::new(),
            has_last_word: false,
            observed: None,
            sequence: 0,
            told: None,
        }
    }

    fn write(&mut self, what: Deed) -> Vec<u8> {
        let status = format!("/status/d{}", self.number);
        match what {
            Deed::Begin => self.device.begin_bytes(b""),
            Deed::Ping => self.device.request(Code::GET, &Ask { path: "/.ping", ..Ask::default() }),
            Deed::Push(mark) => {
                let mut payload = Vec::new();
                let value = crate::data::Leaf::Number(crate::data::Number::Int(mark.into()));
                cbor::write(&mut payload, &crate::data::Node::leaf(value), 100).unwrap();
                self.device.request(Code::POST, &Ask { path: "/list", payload: &payload, ..Ask::default() })
            }
            Deed::LastWord => {
                self.device.request(Code::PUT, &Ask { path: &status, payload: OFF, dis: Some("add"), ..Ask::default() })
            }
            Deed::Observe => {
                let bytes = self.device.request(Code::GET, &Ask { path: "/told", observe: Some(0), ..Ask::default() });
                self.observed = Some(Heard::read(&bytes).token);
                self.sequence = 0;
                bytes
            }
        }
    }

    fn begin(&mut self, sea: &mut Sea, what: Deed) {
        let bytes = self.write(what);
        sea.post(self.device.port, self.device.shard, &bytes, true);
        self.waiting = Some(Waiting { bytes, sent: sea.field.world.now(), repeats: 0, what });
    }

    fn act(&mut self, sea: &mut Sea, gap: Millis) {
        if !self.has_power {
            return;
        }
        let now = sea.field.world.now();
        if let Some(waiting) = &mut self.waiting {
            let age_ms = now.since(waiting.sent).0;
            if waiting.repeats < AGAIN_MS.len() && age_ms >= AGAIN_MS[waiting.repeats] {
                waiting.repeats += 1;
                sea.post(self.device.port, self.device.shard, &waiting.bytes, true);
            } else if age_ms >= GIVE_UP_MS {
                let what = waiting.what;
                // A socket of its own again, which the kernel may give to another core.
                sea.ports += 1;
                self.device.port = sea.ports;
                self.device.shard = usize::from(sea.ports);
                self.waiting = None;
                // A push may have been done: doing it again would be the app's decision.
                if !matches!(what, Deed::Push(_) | Deed::Begin | Deed::Ping) {
                    self.plan.push(what);
                }
            }
        } else if !self.is_up {
            self.begin(sea, Deed::Begin);
        } else if let Some(what) = self.plan.pop() {
            self.begin(sea, what);
        } else if now.since(self.pinged) >= gap {
            self.pinged = now;
            self.begin(sea, Deed::Ping);
        }
    }

    fn hear(&mut self, sea: &mut Sea, bytes: &[u8]) {
        let heard = Heard::read(bytes);
        if heard.kind == Kind::Confirmable {
            if !self.has_power {
                return;
            }
            let is_known = self.observed.as_ref() == Some(&heard.token);
            let kind = if is_known { Kind::Acknowledgement } else { Kind::Reset };
            let mut answer = Vec::new();
            let token = Token::new(&heard.token);
            Writer::new(&mut answer, kind, Code::EMPTY, heard.id, token).done();
            sea.post(self.device.port, self.device.shard, &answer, true);
            if is_known {
                self.tell(&heard);
            }
            return;
        }
        let Some(waiting) = &self.waiting else { return };
        let request = Heard::read(&waiting.bytes);
        if !self.has_power || (heard.id, &heard.token) != (request.id, &request.token) {
            return;
        }
        let what = waiting.what;
        self.waiting = None;
        match (what, heard.code) {
            (Deed::Begin, Code::CONTENT) => {
                self.device.take_names(&heard);
                self.is_up = true;
            }
            (Deed::Ping, Code::UNAUTHORIZED) => {
                // Any request with the name does what the pass does.
                self.plan.push(Deed::Observe);
            }
            (_, Code::UNAUTHORIZED) => {
                self.is_up = false;
                self.plan.push(what);
            }
            (_, code) => assert_eq!(code, Code::CONTENT, "{what:?}"),
        }
        match what {
            Deed::Push(mark) if heard.code == Code::CONTENT => drop(self.pushed.insert(mark)),
            Deed::LastWord => self.has_last_word |= heard.code == Code::CONTENT,
            Deed::Observe => self.tell(&heard),
            _ => {}
        }
    }

    fn tell(&mut self, heard: &Heard) {
        if let Some(sequence) = heard.observe.filter(|sequence| *sequence > self.sequence) {
            self.sequence = sequence;
            self.told = Some(heard.payload.clone());
        }
    }
}

fn live(seed: u64) {
    let mut dice = ChaCha8Rng::seed_from_u64(seed);
    let shards = 1 + (dice.next_u64() % 3) as u8;
    let mut sea = Sea { field: Field::new(shards), dice, mail: Vec::new(), ports: 1_000 };
    let watcher = sea.field.watcher("/");
    let mut lives: Vec<Life> = (0..4).map(|number| Life::new(number, 10 + number, number.into())).collect();
    let mut writer = Device::up(&mut sea.field, 0, 5);
    let mut run = |sea: &mut Sea, lives: &mut Vec<Life>, steps: u32, mut cut: Option<usize>| {
        for step in 0..steps {
            let down = sea.step();
            for (port, bytes) in down {
                if let Some(life) = lives.iter_mut().find(|life| life.device.port == port) {
                    life.hear(sea, &bytes);
                }
            }
            for life in lives.iter_mut() {
                life.act(sea, Millis(20_000));
            }
            if step % 150 == 0 {
                // Not by the sea: whoever measures must not get lost.
                assert_eq!(writer.ping(&mut sea.field), Some(Code::CONTENT), "seed {seed}");
            }
            if step == steps / 2
                && let Some(index) = cut.take()
            {
                lives[index].has_power = false;
            }
        }
        assert_eq!(writer.set(&mut sea.field, "/told", &[(seed % 20) as u8]), Some(Code::CONTENT));
    };
    // Everything is done; one loses its power meanwhile.
    run(&mut sea, &mut lives, 1_500, Some(0));
    // Longer than silence lasts, and than anything is repeated.
    for _ in 0..2 {
        run(&mut sea, &mut lives, 1_500, None);
    }
    let mut statuses: BTreeMap<String, u32> = BTreeMap::new();
    let mut marks: BTreeMap<String, u32> = BTreeMap::new();
    for event in sea.field.events(watcher) {
        if let Some(("status", rest)) = event.split_once('/').filter(|(first, _)| *first == "status") {
            *statuses.entry(rest.to_owned()).or_default() += 1;
        } else if let Some((path, mark)) = event.split_once('=').filter(|(path, _)| path.starts_with("list/")) {
            assert!(path.len() == 25, "{event}");
            *marks.entry(mark.to_owned()).or_default() += 1;
        }
    }
    // What was answered was done, and nothing was done twice.
    for life in &lives {
        for mark in &life.pushed {
            assert!(marks.contains_key(&mark.to_string()), "seed {seed}: {mark} was answered and is not there");
        }
        assert!(life.pushed.len() >= 2 || !life.has_power, "seed {seed}: {:?}", life.pushed);
    }
    assert!(marks.values().all(|count| *count == 1), "seed {seed}: {marks:?}");
    // The dead is offline, once; the living are not.
    let expected: BTreeMap<String, u32> = lives
        .iter()
        .filter(|life| !life.has_power && life.has_last_word)
        .map(|life| (format!("d{}=\"off\"", life.number), 1))
        .collect();
    assert!(expected.iter().all(|(status, count)| statuses.get(status) == Some(count)), "seed {seed}: {statuses:?}");
    let is_dead = |status: &String| status.starts_with("d0=");
    assert!(statuses.keys().all(is_dead), "seed {seed}: {statuses:?}");
    // Whoever listens has the last value.
    run(&mut sea, &mut lives, 1_500, None);
    for life in lives.iter().filter(|life| life.has_power) {
        assert_eq!(life.told, Some(vec![(seed % 20) as u8]), "seed {seed}, device {}", life.number);
    }
}

#[test]
fn lives_over_a_bad_network_lose_nothing_and_do_nothing_twice() {
    (0..24).for_each(live);
}
