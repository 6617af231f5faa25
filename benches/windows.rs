//! One write under a limited query: a live window against filtering everything again.

use std::hint::black_box;
use std::num::NonZeroU32;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use stillhere::base::Hashing;
use stillhere::data::{Key, Leaf, Node, Number, Path};
use stillhere::op::{Direction, Index, Limit, Query};
use stillhere::tree::{Windows, select};

fn number(value: u64) -> Node {
    Node::leaf(Leaf::Number(Number::Int(value.cast_signed())))
}

fn players(count: u64) -> Node {
    let mut location = Node::Empty;
    for index in 0..count {
        location.set(&format!("p{index:06}/score"), number(index * 7_919 % count));
    }
    location
}

fn key(index: u64) -> Key {
    Key::parse(&format!("p{index:06}")).expect("it is a key")
}

fn one_write(c: &mut Criterion) {
    let by_score = Index::Child(Path::parse("score").expect("it is a path"));
    for (name, index) in [("score", by_score), ("key", Index::Key)] {
        let mut group = c.benchmark_group(format!("a write under the last 50 by {name}"));
        group.sample_size(20);
        let limit = Some(Limit { count: NonZeroU32::new(50).expect("50 is not 0"), from: Direction::Last });
        let query = Query { index, limit, ..Query::ALL };
        for count in [1_000, 10_000, 100_000] {
            let mut random = 1_u64;
            let mut next = move || {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (random >> 33) % count
            };
            let mut location = players(count);
            let mut windows = Windows::new(&Hashing::from_seed([1, 2, 3, 4]));
            windows.open(&query, &location);
            group.bench_function(BenchmarkId::new("live window", count), |b| {
                b.iter(|| {
                    let key = key(next());
                    let touched = [(key.clone(), location.child(&key).clone())];
                    location.change(key.as_str(), |player| player.set("score", number(next())));
                    windows.update(&location, &touched, |_, delta| drop(black_box(delta)));
                });
            });
            group.bench_function(BenchmarkId::new("the write alone", count), |b| {
                b.iter(|| {
                    let key = key(next());
                    black_box(location.child(&key).clone());
                    location.change(key.as_str(), |player| player.set("score", number(next())));
                });
            });
            if count > 10_000 {
                continue;
            }
            let mut shown = select(&location, &query);
            group.bench_function(BenchmarkId::new("filter again", count), |b| {
                b.iter(|| {
                    location.change(key(next()).as_str(), |player| player.set("score", number(next())));
                    let now = select(&location, &query);
                    black_box(now != shown);
                    shown = now;
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, one_write);
criterion_main!(benches);
