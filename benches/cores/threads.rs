//! One and two engines, each driven by a thread of its own, with rings between them: how much faster two cores are.
//! Frames are made before, and copied; nothing else that a client would do is in the time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Instant as Clock;

use rtrb::{Consumer, Producer, PushError, RingBuffer};
use stillhere::base::ConnId;
use stillhere::engine::{Effect, Input, Message};

use super::{Cores, ROUNDS, TURN, WRITERS, frame, time, write};

/// Messages that may wait in one ring.
const RING_MESSAGES: usize = 4_096;
/// Writes of a core's clients that are unanswered at a time: so many clients are at work.
const IN_FLIGHT: usize = 256;

/// What writes came to that threads of their own did.
#[derive(Clone, Copy)]
struct Pace {
    per_second: f64,
    /// Of the threads, waiting for each other included.
    cpu_ns: f64,
}

/// Plays one engine and two, in turn.
pub(super) fn compare(repeats: usize) {
    let mut ratios: Vec<[f64; 2]> = Vec::new();
    for _ in 0..repeats {
        let [one, two] = [pace(1), pace(2)];
        ratios.push([two.per_second / one.per_second, 2.0 * one.cpu_ns / two.cpu_ns]);
    }
    for (at, by) in ["time", "CPU time"].into_iter().enumerate() {
        let mut ratios: Vec<f64> = ratios.iter().map(|ratios| ratios[at]).collect();
        ratios.sort_unstable_by(f64::total_cmp);
        let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
        let median = ratios[ratios.len() / 2];
        println!("2 threads do {median:.2} times the writes of one, by {by} ({least:.2} to {most:.2})");
    }
}

fn pace(shards: u8) -> Pace {
    let gate = Arc::new(Barrier::new(usize::from(shards)));
    let busy = Arc::new(AtomicUsize::new(usize::from(shards)));
    let mut lines: Vec<Lines> = (0..shards).map(|_| Lines::default()).collect();
    for from in 0..lines.len() {
        for to in (0..lines.len()).filter(|to| *to != from) {
            let (producer, consumer) = RingBuffer::new(RING_MESSAGES);
            lines[from].to.insert(to, producer);
            lines[to].from.push(consumer);
        }
    }
    let start = |(own, lines)| {
        let (gate, busy) = (gate.clone(), busy.clone());
        thread::spawn(move || Driver::new(own, shards, lines).run(&gate, &busy))
    };
    let threads: Vec<_> = lines.into_iter().enumerate().map(start).collect();
    let runs: Vec<Run> = threads.into_iter().map(|thread| thread.join().expect("it measures")).collect();
    let count = f64::from(WRITERS * ROUNDS);
    let begun = runs.iter().map(|run| run.begun).min().expect("there is one");
    let ended = runs.iter().map(|run| run.ended).max().expect("there is one");
    let mut waits: Vec<u64> = runs.iter().flat_map(|run| run.waits_ns.iter().copied()).collect();
    waits.sort_unstable();
    let per_second = count / (ended - begun).as_secs_f64();
    let cpu_ns = runs.iter().map(|run| run.cpu_ns as f64).sum::<f64>() / count;
    let of = |part: usize| waits[waits.len() * part / 100] / 1_000;
    println!(
        "{shards} threads: {per_second:.0} writes a second, {cpu_ns:.0} ns of CPU each, answered after p50 {} us, p99 {} us",
        of(50),
        of(99),
    );
    Pace { per_second, cpu_ns }
}

/// Rings to and from the others.
#[derive(Default)]
struct Lines {
    to: BTreeMap<usize, Producer<Message>>,
    from: Vec<Consumer<Message>>,
}

/// One engine that a thread drives, with its clients.
struct Driver {
    cores: Cores,
    own: usize,
    lines: Lines,
    /// What did not fit into a ring.
    outbox: VecDeque<(usize, Message)>,
    inbox: VecDeque<Message>,
    /// When each client last asked.
    asked: Vec<Clock>,
    unanswered: usize,
    waits_ns: Vec<u64>,
}

/// What one thread has seen.
struct Run {
    begun: Clock,
    ended: Clock,
    cpu_ns: u64,
    waits_ns: Vec<u64>,
}

impl Driver {
    fn new(own: usize, shards: u8, lines: Lines) -> Self {
        let clients = (WRITERS / u32::from(shards)) as usize;
        Self {
            cores: Cores::new(shards),
            own,
            lines,
            outbox: VecDeque::new(),
            inbox: VecDeque::new(),
            asked: vec![Clock::now(); clients],
            unanswered: 0,
            waits_ns: Vec::new(),
        }
    }

    fn run(mut self, gate: &Barrier, busy: &AtomicUsize) -> Run {
        let own = |client: &u32| self.cores.place(*client).0 == self.own;
        let clients: Vec<u32> = (0..WRITERS).filter(own).collect();
        clients.iter().for_each(|client| self.cores.join(*client));
        let round = |number: u32| clients.iter().map(|client| frame(&write(*client, number))).collect::<Vec<_>>();
        let mut rounds: Vec<Vec<Vec<u8>>> = (1..=ROUNDS).map(round).collect();
        gate.wait();
        // Records are made, and memory is taken, before it counts.
        self.play(round(0));
        self.go_on_until_all_are_done(busy);
        self.waits_ns.clear();
        gate.wait();
        busy.store(self.cores.cores.len(), Ordering::SeqCst);
        gate.wait();
        let (begun, cpu) = (Clock::now(), cpu_ns());
        rounds.drain(..).for_each(|round| self.play(round));
        let (ended, cpu_ns) = (Clock::now(), cpu_ns() - cpu);
        self.go_on_until_all_are_done(busy);
        Run { begun, ended, cpu_ns, waits_ns: self.waits_ns }
    }

    fn go_on_until_all_are_done(&mut self, busy: &AtomicUsize) {
        busy.fetch_sub(1, Ordering::SeqCst);
        while busy.load(Ordering::SeqCst) > 0 {
            self.turn(&mut std::iter::empty());
        }
    }

    /// All clients write once. The last answers come while the next round is on.
    fn play(&mut self, frames: Vec<Vec<u8>>) {
        let mut frames = (0..).map(ConnId).zip(frames).peekable();
        while frames.peek().is_some() {
            self.turn(&mut frames);
        }
    }

    fn turn(&mut self, frames: &mut dyn Iterator<Item = (ConnId, Vec<u8>)>) {
        let (now, began) = (time(self.cores.now), Clock::now());
        let engine = &mut self.cores.cores[self.own].engine;
        for ring in &mut self.lines.from {
            while let Ok(message) = ring.pop() {
                self.inbox.push_back(message);
            }
        }
        if !self.inbox.is_empty() {
            engine.handle(now, Input::Forwarded { messages: &mut self.inbox }, &mut self.cores.output);
        }
        for (conn, mut bytes) in frames.take((TURN as usize).min(IN_FLIGHT.saturating_sub(self.unanswered))) {
            self.unanswered += 1;
            self.asked[conn.0 as usize] = began;
            engine.handle(now, Input::Bytes { conn, bytes: &mut bytes }, &mut self.cores.output);
        }
        let ended = Clock::now();
        for effect in self.cores.output.effects.drain(..) {
            match effect {
                Effect::Forward { to, message } => self.outbox.push_back((to.index(), message)),
                Effect::Send { conn, .. } => {
                    self.unanswered -= 1;
                    let waited = ended.duration_since(self.asked[conn.0 as usize]).as_nanos();
                    self.waits_ns.push(u64::try_from(waited).expect("it is short"));
                }
                _ => {}
            }
        }
        self.cores.output.clear();
        while let Some((to, message)) = self.outbox.pop_front() {
            let ring = self.lines.to.get_mut(&to).expect("nobody writes to itself");
            if let Err(PushError::Full(message)) = ring.push(message) {
                self.outbox.push_front((to, message));
                break;
            }
        }
    }
}

/// What this thread has had of a core.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("the kernel counts");
    text.split(' ').next().and_then(|first| first.parse().ok()).expect("nanoseconds come first")
}
