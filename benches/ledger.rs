//! Last words: the ledger against a plain list, and what stamps add to a write.

#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
#![expect(clippy::print_stdout, reason = "the slowest single step is a figure that criterion does not print")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant as Stopwatch};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use stillhere::base::{Hashing, Instant, SessionRef, ShardId};
use stillhere::data::{Draft, Location, Path};
use stillhere::op::Write;
use stillhere::presence::{Ledger, Stamps, places};

fn path(text: &str) -> Path {
    Path::parse(text).expect("it is a path")
}

fn offline(text: &str) -> Write {
    Write::Set { path: path(text), value: Draft::timestamp() }
}

fn merge(base: &str, count: u32) -> Write {
    let changes = (0..count).map(|index| (path(&format!("k{index}/state")).into(), Draft::timestamp()));
    Write::Merge { path: path(base), changes: changes.collect() }
}

/// The obvious ledger: one entry for each place, every new place compared with all of them.
fn register_in_list(list: &mut Vec<(Location, Write)>, write: &Write) {
    for place in places(write) {
        list.retain(|(other, _)| !place.path.contains(&other.path));
        list.push((place, write.clone()));
    }
}

fn one_word(c: &mut Criterion) {
    let mut group = c.benchmark_group("one last word");
    let write = offline("status/user12345");
    group.bench_function("register and take", |b| {
        b.iter_batched(
            || write.clone(),
            |write| {
                let mut ledger = Ledger::EMPTY;
                ledger.register(write, 64).expect("there is room");
                black_box(ledger.take())
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn a_thousand(c: &mut Criterion) {
    let mut group = c.benchmark_group("a merge of 1000 over 1000");
    group.sample_size(20);
    let write = merge("users", 1_000);
    let mut ledger = Ledger::EMPTY;
    ledger.register(write.clone(), 64_000).expect("there is room");
    group.bench_function("ledger", |b| {
        b.iter(|| ledger.register(write.clone(), 64_000).expect("it replaces all").len());
    });
    let mut list = Vec::new();
    register_in_list(&mut list, &merge("users", 1_000));
    let single = merge("users", 1);
    group.bench_function("list, one place of them", |b| b.iter(|| register_in_list(&mut list, &single)));
    group.finish();
}

fn writes_with_stamps(c: &mut Criterion) {
    const SESSIONS: u32 = 1_000_000;
    let place = |index: u32| -> Location { path(&format!("status/user{index}")).into() };
    let mut stamps = Stamps::new(Hashing::from_seed([1, 2, 3, 4]));
    let mut sorted: BTreeMap<String, (u64, u32)> = BTreeMap::new();
    let (mut slowest, mut all) = (Duration::ZERO, Duration::ZERO);
    for index in 0..SESSIONS {
        let place = place(index);
        let begun = Stopwatch::now();
        stamps.hold(&place);
        slowest = slowest.max(begun.elapsed());
        all += begun.elapsed();
        sorted.insert(place.path.as_str().to_owned(), (0, 1));
    }
    println!("a million holds: {} ns each, the slowest {} us", all.as_nanos() / 1_000_000, slowest.as_micros());
    let writer = SessionRef { home: ShardId(0), slot: 7, generation: 0 };
    let writes: Vec<_> = (0..4_096_u32).map(|index| offline(&format!("status/user{}", index * 241))).collect();
    let elsewhere: Vec<_> = (0..4_096).map(|index| offline(&format!("rooms/r{index}/last"))).collect();
    let mut group = c.benchmark_group("a write while a million last words wait");
    let mut turn = 0;
    for (name, writes) in [("note, held", &writes), ("note, not held", &elsewhere)] {
        group.bench_function(name, |b| {
            b.iter(|| {
                turn += 1;
                stamps.note(&writes[turn % writes.len()], Some(writer), Instant(turn as u64));
            });
        });
    }
    group.bench_function("is_newer_than", |b| {
        b.iter(|| {
            turn += 1;
            let Write::Set { path, .. } = &writes[turn % writes.len()] else { unreachable!("all are sets") };
            stamps.is_newer_than(&path.clone().into(), Instant(0), writer)
        });
    });
    group.bench_function("sorted map of texts, held", |b| {
        b.iter(|| {
            turn += 1;
            let text = writes[turn % writes.len()].path().as_str();
            if let Some(stamp) = sorted.get_mut(text) {
                stamp.0 = turn as u64;
            }
        });
    });
    group.finish();
}

criterion_group!(benches, one_word, a_thousand, writes_with_stamps);
criterion_main!(benches);
