//! One database over 1 to 8 engines, driven in one thread: what each of them has to do for the same writes, and how
//! long the calls are when half a million sessions end at once. No kernel, no clients' cost: the time is that of the
//! calls to the engines. And the same writes with a [thread](threads) for each engine.
#![expect(clippy::disallowed_methods, clippy::print_stdout, reason = "it measures and tells")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

mod threads;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant as Clock;

use stillhere::auth::{AuthConfig, Verifier};
use stillhere::base::{ConnId, Instant, Millis, Now, ShardId, WallMillis};
use stillhere::engine::{Config, Effect, Engine, Input, Message, Output, Settings};
use stillhere::rules::{Dialect, Ruleset};
use stillhere::runtime::Counted;
use stillhere::wire::ws;

/// The server's.
#[global_allocator]
static ALLOCATOR: Counted = Counted;

/// Sessions that write.
const WRITERS: u32 = 20_000;
/// Writes of each.
const ROUNDS: u32 = 10;
/// Clients that a core hears of in one turn, as a busy server does.
const TURN: u32 = 64;

/// What can be played.
const PARTS: [&str; 3] = ["writes", "threads", "end"];

struct Core {
    engine: Engine,
    inbox: VecDeque<Message>,
    spent_ns: u64,
    calls: Vec<u64>,
    handled: u64,
}

struct Cores {
    cores: Vec<Core>,
    now: Instant,
    messages: u64,
    /// Lent to the engines again and again, as a driver does.
    output: Output,
}

impl Cores {
    fn new(shards: u8) -> Self {
        let verifier = Arc::new(Verifier::new(AuthConfig::default()).expect("nothing in it could be wrong"));
        let settings = Settings { session_timeout: Millis(60_000), ..Settings::default() };
        let now = Instant(1_000_000);
        let core = |shard| {
            let config = Config {
                shard: ShardId(shard),
                shards,
                seed: [shard; 32],
                common_seed: [1, 2, 3, 4],
                settings: Arc::new(settings.clone()),
                namespaces: BTreeMap::new(),
                is_restricted: false,
                rules: Arc::new(Ruleset::open()),
                dialect: Dialect::Both,
                verifier: verifier.clone(),
            };
            let engine = Engine::new(config, time(now));
            Core { engine, inbox: VecDeque::new(), spent_ns: 0, calls: Vec::new(), handled: 0 }
        };
        Self { cores: (0..shards).map(core).collect(), now, messages: 0, output: Output::default() }
    }

    fn input(&mut self, shard: usize, input: Input<'_>) {
        let begun = Clock::now();
        self.cores[shard].engine.handle(time(self.now), input, &mut self.output);
        let spent = u64::try_from(begun.elapsed().as_nanos()).expect("a call is short");
        self.cores[shard].spent_ns += spent;
        self.cores[shard].calls.push(spent);
        self.pass_on();
    }

    /// What a core has done in a turn goes where it is for.
    fn pass_on(&mut self) {
        for effect in self.output.effects.drain(..) {
            if let Effect::Forward { to, message } = effect {
                self.messages += 1;
                self.cores[to.index()].inbox.push_back(message);
            }
        }
        self.output.clear();
    }

    fn settle(&mut self) {
        while let Some(shard) = self.cores.iter().position(|core| !core.inbox.is_empty()) {
            let mut messages = std::mem::take(&mut self.cores[shard].inbox);
            self.input(shard, Input::Forwarded { messages: &mut messages });
        }
    }

    fn send(&mut self, client: u32, text: &str) {
        let (shard, conn) = self.place(client);
        self.input(shard, Input::Bytes { conn, bytes: &mut frame(text) });
    }

    /// A turn of each core, in which it hears of some of its clients, and further turns until they have been served.
    /// As the server does: the messages of a turn leave at its end.
    fn turns(&mut self, mut frames: Vec<Vec<(ConnId, Vec<u8>)>>) {
        loop {
            for (shard, frames) in frames.iter_mut().enumerate() {
                let core = &mut self.cores[shard];
                if core.inbox.is_empty() && frames.is_empty() {
                    continue;
                }
                let begun = Clock::now();
                if !core.inbox.is_empty() {
                    core.engine.handle(
                        time(self.now),
                        Input::Forwarded { messages: &mut core.inbox },
                        &mut self.output,
                    );
                }
                for (conn, mut bytes) in frames.drain(..) {
                    core.engine.handle(time(self.now), Input::Bytes { conn, bytes: &mut bytes }, &mut self.output);
                }
                core.spent_ns += u64::try_from(begun.elapsed().as_nanos()).expect("a turn is short");
                self.pass_on();
            }
            if self.cores.iter().all(|core| core.inbox.is_empty()) {
                return;
            }
        }
    }

    fn place(&self, client: u32) -> (usize, ConnId) {
        let count = u32::try_from(self.cores.len()).expect("shards are few");
        ((client % count) as usize, ConnId(client / count))
    }

    fn join(&mut self, client: u32) {
        let (shard, conn) = self.place(client);
        self.input(shard, Input::Opened { conn, peer: SocketAddr::from(([127, 0, 0, 1], 1)) });
        let mut hello =
            b"GET /.ws?v=5&ns=db HTTP/1.1\r\nHost: bench.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                .to_vec();
        self.input(shard, Input::Bytes { conn, bytes: &mut hello });
    }

    fn forget(&mut self) {
        self.messages = 0;
        for core in &mut self.cores {
            core.spent_ns = 0;
            core.calls.clear();
            core.handled = core.engine.meters().requests.iter().flatten().sum();
        }
    }
}

fn frame(text: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    ws::write_masked(&mut frame, ws::Kind::Text, text.as_bytes(), [1, 2, 3, 4]);
    frame
}

fn write(client: u32, number: u32) -> String {
    let body = format!(r#"{{"p":"/status/user{client}","d":{{"state":"online","last_changed":{number}}}}}"#);
    format!(r#"{{"t":"d","d":{{"r":{number},"a":"p","b":{body}}}}}"#)
}

const fn time(now: Instant) -> Now {
    Now { instant: now, wall: WallMillis(1_700_000_000_000 + now.0) }
}

/// A database over some engines, whose clients write.
struct Written {
    shards: u8,
    cores: Cores,
    number: u32,
    /// What a write has taken the busiest engine, by round.
    busiest_ns: Vec<f64>,
    all_ns: f64,
}

impl Written {
    fn new(shards: u8) -> Self {
        let mut cores = Cores::new(shards);
        (0..WRITERS).for_each(|client| cores.join(client));
        cores.settle();
        let mut new = Self { shards, cores, number: 0, busiest_ns: Vec::new(), all_ns: 0.0 };
        // Records are made, and memory is taken, before it counts.
        new.round();
        new.cores.forget();
        (new.busiest_ns, new.all_ns) = (Vec::new(), 0.0);
        new
    }

    /// All clients write once.
    fn round(&mut self) {
        let before: Vec<u64> = self.cores.cores.iter().map(|core| core.spent_ns).collect();
        let clients: Vec<u32> = (0..WRITERS).collect();
        for heard in clients.chunks((TURN * u32::from(self.shards)) as usize) {
            let mut frames = vec![Vec::new(); usize::from(self.shards)];
            for &client in heard {
                self.number += 1;
                let (shard, conn) = self.cores.place(client);
                frames[shard].push((conn, frame(&write(client, self.number))));
            }
            self.cores.turns(frames);
        }
        let spent = self.cores.cores.iter().zip(before).map(|(core, before)| (core.spent_ns - before) as f64);
        let (busiest, all) = spent.fold((0.0, 0.0), |(busiest, all), spent| (f64::max(busiest, spent), all + spent));
        self.busiest_ns.push(busiest / f64::from(WRITERS));
        self.all_ns += all;
    }

    fn tell(&self) {
        let rounds = self.busiest_ns.len() as f64;
        let (count, mean) = (f64::from(WRITERS) * rounds, f64::from(WRITERS) * rounds / f64::from(self.shards));
        let handled = |core: &Core| core.engine.meters().requests.iter().flatten().sum::<u64>() - core.handled;
        let off = |core: &Core| (handled(core) as f64 - mean).abs() / mean;
        println!(
            "{} engines: {:6.0} ns of all, {:6.0} ns of the busiest a write; {:.2} messages a write; writes off the mean by at most {:.1} %",
            self.shards,
            self.all_ns / count,
            middle(&self.busiest_ns)[1],
            self.cores.messages as f64 / count,
            self.cores.cores.iter().map(off).fold(0.0, f64::max) * 100.0,
        );
    }
}

/// A quarter, half and three quarters are below these.
fn middle(figures: &[f64]) -> [f64; 3] {
    let mut figures = figures.to_vec();
    figures.sort_unstable_by(f64::total_cmp);
    [1, 2, 3].map(|part| figures[figures.len() * part / 4])
}

/// One and several engines, a round of each in turn: the machine's moods fall upon all alike.
fn writes(rounds: u32) {
    let mut one = Written::new(1);
    let mut several = [2, 3, 4, 8].map(Written::new);
    for _ in 0..rounds {
        one.round();
        several.iter_mut().for_each(Written::round);
    }
    one.tell();
    for several in &several {
        several.tell();
        let ratios: Vec<f64> = one.busiest_ns.iter().zip(&several.busiest_ns).map(|(one, other)| one / other).collect();
        let [low, median, high] = middle(&ratios);
        println!(
            "{} engines do {median:.2} times the writes of one (half of the rounds {low:.2} to {high:.2})",
            several.shards
        );
    }
}

/// All sessions of one core end at once, each with a last word, while another client of that core goes on writing:
/// each of its writes arrives as a call begins, so it waits for the whole call.
fn mass_end(shards: u8, sessions: u32) {
    let mut cores = Cores::new(shards);
    let count = u32::from(shards);
    let writer = sessions * count;
    for client in (0..sessions).map(|index| index * count) {
        cores.join(client);
        let body = format!(r#"{{"p":"/status/user{client}","d":"away"}}"#);
        cores.send(client, &format!(r#"{{"t":"d","d":{{"r":1,"a":"o","b":{body}}}}}"#));
        cores.settle();
    }
    cores.now = cores.now + Millis(50_000);
    cores.join(writer);
    cores.settle();
    cores.forget();
    cores.now = cores.now + Millis(11_000);
    let begun = Clock::now();
    let (mut waits, mut number) = (Vec::new(), 0);
    loop {
        let due = |core: &Core| core.engine.is_busy() || core.engine.next_wake().is_some_and(|due| due <= cores.now);
        let Some(shard) = cores.cores.iter().position(due) else {
            if cores.cores.iter().map(|core| core.engine.session_count()).sum::<usize>() <= 1 {
                break;
            }
            cores.now = cores.now + Millis(100);
            continue;
        };
        let arrived = Clock::now();
        cores.input(shard, Input::Tick);
        if shard == 0 {
            number += 1;
            let body = format!(r#"{{"p":"/live/one","d":{number}}}"#);
            cores.send(writer, &format!(r#"{{"t":"d","d":{{"r":{number},"a":"p","b":{body}}}}}"#));
            cores.settle();
            waits.push(u64::try_from(arrived.elapsed().as_nanos()).expect("a call is short"));
        }
        cores.settle();
    }
    waits.sort_unstable();
    let mut calls: Vec<u64> = cores.cores.iter().flat_map(|core| core.calls.iter().copied()).collect();
    calls.sort_unstable();
    let of = |times: &[u64], part: usize| times[(times.len() * part / 1_000).min(times.len() - 1)] / 1_000;
    println!(
        "{sessions} sessions of one of {shards} engines end: {} ms, {} calls, p99 {} us, p99.9 {} us, longest {} us; \
        {} writes of another client meanwhile: p50 {} us, p99 {} us, longest {} us",
        begun.elapsed().as_millis(),
        calls.len(),
        of(&calls, 990),
        of(&calls, 999),
        of(&calls, 1_000),
        waits.len(),
        of(&waits, 500),
        of(&waits, 990),
        of(&waits, 1_000),
    );
}

/// Which parts to play and how often: `[writes|threads|end] [ROUNDS]`; all of them 5 times by default, so that the
/// machine's moods fall upon one engine and upon several alike.
fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let has =
        |part: &str| !words.iter().any(|word| PARTS.contains(&word.as_str())) || words.iter().any(|word| word == part);
    let repeats = words.iter().find_map(|word| word.parse().ok()).unwrap_or(5);
    if has("writes") {
        writes(ROUNDS * u32::try_from(repeats).expect("it is small"));
    }
    if has("threads") {
        threads::compare(repeats);
    }
    if has("end") {
        for _ in 0..repeats {
            for shards in [1, 2] {
                mass_end(shards, 500_000);
            }
        }
    }
}
