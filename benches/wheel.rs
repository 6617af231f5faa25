//! Session deadlines: the lazy wheel against a sorted map that every heartbeat re-arms.
//!
//! One iteration is a minute of virtual time for all sessions: a heartbeat every 20 s each, in random
//! order, and nobody falls silent.

use std::collections::BTreeSet;
use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use stillhere::base::{Instant, Millis};
use stillhere::wheel::Wheel;

const SESSIONS: u32 = 100_000;
const TIMEOUT: Millis = Millis::from_secs(45);
const MINUTE_MS: u64 = 60_000;
const TICK_MS: u64 = 16;

/// Who speaks on which tick: each session three times a minute.
fn heartbeats() -> Vec<Vec<u32>> {
    let ticks = (MINUTE_MS / TICK_MS) as usize;
    let mut all = vec![Vec::new(); ticks];
    let mut random = 1_u64;
    for id in 0..SESSIONS {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let offset = (random >> 33) as usize % (ticks / 3);
        for round in 0..3 {
            all[offset + round * (ticks / 3)].push(id);
        }
    }
    all
}

struct Lazy {
    now: Instant,
    wheel: Wheel,
    last_heard: Vec<Instant>,
    due: Vec<u32>,
}

impl Lazy {
    fn new() -> Self {
        let mut wheel = Wheel::new(Instant(0));
        for id in 0..SESSIONS {
            wheel.arm(id, Instant(u64::from(id) % 45_000));
        }
        Self { now: Instant(0), wheel, last_heard: vec![Instant(0); SESSIONS as usize], due: Vec::new() }
    }

    fn minute(&mut self, heartbeats: &[Vec<u32>]) -> u32 {
        let mut ended = 0;
        for ids in heartbeats {
            self.now = self.now + Millis(TICK_MS);
            for &id in ids {
                self.last_heard[id as usize] = self.now;
            }
            self.wheel.due(self.now, 1_000_000, &mut self.due);
            for id in self.due.drain(..) {
                let deadline = self.last_heard[id as usize] + TIMEOUT;
                if deadline > self.now {
                    self.wheel.arm(id, deadline);
                } else {
                    ended += 1;
                }
            }
        }
        ended
    }
}

struct Sorted {
    now: Instant,
    timers: BTreeSet<(Instant, u32)>,
    deadlines: Vec<Instant>,
}

impl Sorted {
    fn new() -> Self {
        let deadline = Instant(0) + TIMEOUT;
        let timers = (0..SESSIONS).map(|id| (deadline, id)).collect();
        Self { now: Instant(0), timers, deadlines: vec![deadline; SESSIONS as usize] }
    }

    fn minute(&mut self, heartbeats: &[Vec<u32>]) -> u32 {
        let mut ended = 0;
        for ids in heartbeats {
            self.now = self.now + Millis(TICK_MS);
            for &id in ids {
                let deadline = &mut self.deadlines[id as usize];
                self.timers.remove(&(*deadline, id));
                *deadline = self.now + TIMEOUT;
                self.timers.insert((*deadline, id));
            }
            while self.timers.first().is_some_and(|(at, _)| *at <= self.now) {
                self.timers.pop_first();
                ended += 1;
            }
        }
        ended
    }
}

fn a_minute(c: &mut Criterion) {
    let heartbeats = heartbeats();
    let mut group = c.benchmark_group("a minute of heartbeats");
    group.throughput(Throughput::Elements(u64::from(SESSIONS) * 3)).sample_size(10);
    let mut lazy = Lazy::new();
    lazy.minute(&heartbeats);
    group.bench_function("lazy wheel", |b| b.iter(|| black_box(lazy.minute(&heartbeats))));
    let mut sorted = Sorted::new();
    group.bench_function("sorted map", |b| b.iter(|| black_box(sorted.minute(&heartbeats))));
    group.finish();
}

fn a_crowd(c: &mut Criterion) {
    let crowd = || {
        let mut wheel = Wheel::new(Instant(0));
        for id in 0..1_000_000 {
            wheel.arm(id, Instant(16_000));
        }
        (wheel, Vec::with_capacity(1_000))
    };
    let mut group = c.benchmark_group("a million on one tick");
    group.sample_size(10);
    group.bench_function("one slice of 1000", |b| {
        b.iter_batched_ref(
            crowd,
            |(wheel, ids)| {
                ids.clear();
                wheel.due(Instant(16_000), 1_000, ids);
                black_box(wheel.is_behind())
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("next_wake", |b| {
        let mut wheel = Wheel::new(Instant(0));
        wheel.arm(1, Instant(130_000));
        b.iter(|| black_box(&wheel).next_wake());
    });
    group.finish();
}

criterion_group!(benches, a_minute, a_crowd);
criterion_main!(benches);
