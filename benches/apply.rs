//! A presence record is set where 100,000 users stand: the whole write path of a shard, and the tree
//! alone, against the obvious ones: sorted maps of JSON values, and the same behind copies for readers.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use serde_json::{Value, json};
use stillhere::base::{Hashing, Instant, Now, SessionRef, WallMillis};
use stillhere::data::{Draft, Node, Path};
use stillhere::json::Reader;
use stillhere::op::{Identity, Request, Write};
use stillhere::presence::Beside;
use stillhere::rules::Ruleset;
use stillhere::shard::{Asker, Shard};

const USERS: u32 = 100_000;
const NOW: Now = Now { instant: Instant(1_000), wall: WallMillis(1_700_000_000_000) };

fn draft(text: &str) -> Draft {
    let mut text = text.as_bytes().to_vec();
    Reader::default().read(&mut text, |item| Draft::from_json(item, 2)).expect("it is JSON").expect("it is data")
}

/// A record as presence applications write it.
fn record(index: u32) -> String {
    format!(
        r#"{{"state":"online","last_changed":{},"device":"d{}"}}"#,
        1_700_000_000_000_u64 + u64::from(index),
        index % 7
    )
}

fn path(index: u32) -> Path {
    Path::parse(&format!("status/user{index}")).expect("it is a path")
}

/// Users in an order that no cache can follow.
fn users() -> impl FnMut() -> u32 {
    let mut at = 0_u32;
    move || {
        at = (at + 61_819) % USERS;
        at
    }
}

fn set(c: &mut Criterion) {
    let mut group = c.benchmark_group("set a presence record among 100,000 users");
    let mut shard = Shard::new("bench".into(), Arc::new(Ruleset::open()), &Hashing::from_seed([1, 2, 3, 4]));
    let identity = Arc::new(Identity::NOBODY);
    let asker = Asker {
        session: Some(SessionRef::default()),
        id: None,
        identity,
        heard: NOW.instant,
        is_plain: false,
        beside: Beside::default(),
    };
    let mut root = Node::Empty;
    let mut maps = json!({"status": {}});
    for index in 0..USERS {
        let value = draft(&record(index));
        root.set(path(index).as_str(), value.resolve(&Node::Empty, NOW.wall));
        let write = Write::Set { path: path(index), value };
        shard.ask(NOW, &asker, Request::Write { write, if_hash: None }, &mut Vec::new());
        maps["status"][format!("user{index}")] = serde_json::from_str(&record(index)).expect("it is JSON");
    }
    let mut user = users();
    group.bench_function("shard: rules, tree, listeners", |b| {
        b.iter_batched(
            || Write::Set { path: path(user()), value: draft(&record(1)) },
            |write| black_box(shard.ask(NOW, &asker, Request::Write { write, if_hash: None }, &mut Vec::new())),
            BatchSize::SmallInput,
        );
    });
    let leaf = |index| Write::Set {
        path: Path::parse(&format!("status/user{index}/state")).expect("a path"),
        value: draft("1"),
    };
    group.bench_function("shard: one leaf of it", |b| {
        b.iter_batched(
            || leaf(user()),
            |write| black_box(shard.ask(NOW, &asker, Request::Write { write, if_hash: None }, &mut Vec::new())),
            BatchSize::SmallInput,
        );
    });
    let one = draft(&record(1)).resolve(&Node::Empty, NOW.wall);
    group.bench_function("tree alone", |b| {
        b.iter_batched(
            || (path(user()), one.clone()),
            |(path, node)| root.set(path.as_str(), node),
            BatchSize::SmallInput,
        );
    });
    let value: Value = serde_json::from_str(&record(1)).expect("it is JSON");
    group.bench_function("sorted maps of JSON values", |b| {
        b.iter_batched(
            || (format!("user{}", user()), value.clone()),
            |(key, value)| maps["status"].as_object_mut().expect("it is an object").insert(key, value),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// A reader holds the tree while one value is written: what sharing is for.
fn set_beside_a_reader(c: &mut Criterion) {
    let mut group = c.benchmark_group("set a record while a reader holds all 100,000");
    group.sample_size(10);
    let mut root = Node::Empty;
    let mut maps = json!({"status": {}});
    for index in 0..USERS {
        root.set(path(index).as_str(), draft(&record(index)).resolve(&Node::Empty, NOW.wall));
        maps["status"][format!("user{index}")] = serde_json::from_str(&record(index)).expect("it is JSON");
    }
    let mut user = users();
    let one = draft(&record(1)).resolve(&Node::Empty, NOW.wall);
    group.bench_function("tree that shares", |b| {
        b.iter(|| {
            let held = root.clone();
            root.set(path(user()).as_str(), one.clone());
            held
        });
    });
    group.bench_function("copied sorted maps", |b| {
        b.iter(|| {
            let held = maps.clone();
            maps["status"][format!("user{}", user())] = json!(1);
            held
        });
    });
    group.finish();
}

criterion_group!(benches, set, set_beside_a_reader);
criterion_main!(benches);
