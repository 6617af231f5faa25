//! JSON text read: our reader with its reused tape, against `serde_json` values; and written.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::Value;
use stillhere::base::WallMillis;
use stillhere::data::{Draft, Node, export};
use stillhere::json::Reader;

fn users(count: u32) -> String {
    let user = |index| {
        format!(r#""user{index}":{{"name":"Ann \"{index}\"","state":"online","last":{}}}"#, 1_700_000_000_u32 + index)
    };
    let all: Vec<String> = (0..count).map(user).collect();
    format!("{{{}}}", all.join(","))
}

fn read(c: &mut Criterion) {
    let mut reader = Reader::default();
    for (name, text) in [
        ("a frame of 45 bytes", r#"{"t":"d","d":{"r":127,"a":"q","b":{"p":"/"}}}"#.to_owned()),
        ("1,000 users", users(1_000)),
    ] {
        let mut group = c.benchmark_group(format!("read {name}"));
        group.throughput(Throughput::Bytes(text.len() as u64));
        let fresh = || text.clone().into_bytes();
        group.bench_function("reused tape", |b| {
            b.iter_batched_ref(
                fresh,
                |text| reader.read(text, |item| item.get("t").is_some()).expect("it is JSON"),
                BatchSize::SmallInput,
            );
        });
        group.bench_function("serde_json value", |b| {
            b.iter(|| serde_json::from_str::<Value>(&text).expect("it is JSON").get("t").is_some());
        });
        group.bench_function("reused tape, into a tree", |b| {
            b.iter_batched_ref(
                fresh,
                |text| reader.read(text, |item| Draft::from_json(item, 0)).expect("it is JSON").expect("it is data"),
                BatchSize::SmallInput,
            );
        });
        group.finish();
    }
}

fn write(c: &mut Criterion) {
    let mut group = c.benchmark_group("write 1,000 users");
    let text = users(1_000);
    group.throughput(Throughput::Bytes(text.len() as u64));
    let draft = Reader::default().read(&mut text.clone().into_bytes(), |item| Draft::from_json(item, 0));
    let node = draft.expect("it is JSON").expect("it is data").resolve(&Node::Empty, WallMillis(0));
    let mut out = Vec::new();
    group.bench_function("from a tree", |b| {
        b.iter(|| {
            out.clear();
            export(&mut out, &node);
            out.len()
        });
    });
    let value: Value = serde_json::from_str(&text).expect("it is JSON");
    group.bench_function("from a serde_json value", |b| b.iter(|| value.to_string().len()));
    group.finish();
}

criterion_group!(benches, read, write);
criterion_main!(benches);
