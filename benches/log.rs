//! What it costs to write down a turn of a hundred writes, and to read it again; against lines of JSON, which is what
//! one would write first.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde_json::{Value, json};
use stillhere::data::{Draft, Node, Path};
use stillhere::json::Reader;
use stillhere::log::{FileId, Kind, Record, begin_frame, encode_written, seal_frame};

const WRITES: usize = 100;
const FILE: FileId = FileId { epoch: 1, shard: 0, number: 1, kind: Kind::Log };
const RECORD: &str = r#"{"state":"online","last_changed":1700000000000}"#;

fn append(c: &mut Criterion) {
    let draft = Reader::default().read(&mut RECORD.as_bytes().to_vec(), |item| Draft::from_json(item, 0));
    let node: Node = draft.expect("it is JSON").expect("it can be stored").stand_in().clone();
    let paths: Vec<Path> =
        (0..WRITES).map(|user| Path::parse(&format!("status/user{user:05}")).expect("a path")).collect();
    let value: Value = serde_json::from_str(RECORD).expect("it is JSON");

    let mut group = c.benchmark_group("write down a hundred writes");
    group.throughput(Throughput::Elements(WRITES as u64));
    let mut frame = Vec::new();
    group.bench_function("a frame of records, with its sums", |b| {
        b.iter(|| {
            frame.clear();
            begin_frame(&mut frame);
            for path in &paths {
                encode_written(&mut frame, "app", std::iter::once((path, Ok(&node))));
            }
            seal_frame(&mut frame, FILE, 1, 0);
            frame.len()
        });
    });
    let mut lines = Vec::new();
    group.bench_function("lines of JSON, with theirs", |b| {
        b.iter(|| {
            lines.clear();
            for path in &paths {
                let line = json!({"ns": "app", "path": path.as_str(), "value": value}).to_string();
                let sum = crc32fast::hash(line.as_bytes());
                lines.extend_from_slice(format!("{sum:08x} {line}\n").as_bytes());
            }
            lines.len()
        });
    });
    group.finish();

    let mut records = Vec::new();
    for path in &paths {
        encode_written(&mut records, "app", std::iter::once((path, Ok(&node))));
    }
    let mut group = c.benchmark_group("read a hundred writes again");
    group.throughput(Throughput::Elements(WRITES as u64));
    group.bench_function("records", |b| {
        b.iter(|| {
            let mut rest = &records[..];
            let mut count = 0;
            while !rest.is_empty() {
                Record::decode(&mut rest).expect("it is one");
                count += 1;
            }
            assert_eq!(count, WRITES);
        });
    });
    let text = String::from_utf8(lines).expect("it is text");
    group.bench_function("lines of JSON", |b| {
        b.iter(|| {
            let values = text.lines().map(|line| {
                let (sum, line) = line.split_once(' ').expect("a sum");
                assert_eq!(u32::from_str_radix(sum, 16), Ok(crc32fast::hash(line.as_bytes())));
                let value: Value = serde_json::from_str(line).expect("it is JSON");
                (Path::parse(value["path"].as_str().expect("a text")), value)
            });
            assert_eq!(values.count(), WRITES);
        });
    });
    group.finish();
}

criterion_group!(benches, append);
criterion_main!(benches);
