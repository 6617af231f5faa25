//! The Firebase protocol: a put read, a push and an answer written, with and without their frames;
//! against `serde_json` values.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use serde_json::{Value, json};
use stillhere::data::{Draft, Node, Path};
use stillhere::json::Reader;
use stillhere::op::Event;
use stillhere::wire::firebase::{self, EventText};
use stillhere::wire::{Input, ws};

const PUT: &str = r#"{"t":"d","d":{"r":127,"a":"p","b":{"p":"/status/user12345","d":{"state":"online","last_changed":{".sv":"timestamp"}}}}}"#;

fn read(c: &mut Criterion) {
    let mut group = c.benchmark_group("read a put");
    let mut reader = Reader::default();
    group.bench_function("decoder", |b| {
        b.iter_batched_ref(
            || PUT.as_bytes().to_vec(),
            |message| firebase::decode(message, &mut reader),
            BatchSize::SmallInput,
        );
    });
    let mut frame = Vec::new();
    ws::write_masked(&mut frame, ws::Kind::Text, PUT.as_bytes(), [1, 2, 3, 4]);
    let mut frames = ws::Reader::for_server();
    group.bench_function("decoder, with its frame", |b| {
        b.iter_batched_ref(
            || frame.clone(),
            |frame| match frames.next(&mut Input::new(frame)) {
                Ok(Some(ws::Frame::Text(message))) => firebase::decode(message, &mut reader),
                other => unreachable!("{other:?}"),
            },
            BatchSize::SmallInput,
        );
    });
    group.bench_function("serde_json value, members picked", |b| {
        b.iter(|| {
            let message: Value = serde_json::from_str(PUT).expect("it is JSON");
            let body = &message["d"]["b"];
            (message["d"]["r"].as_i64(), body["p"].as_str().map(str::to_owned), body["d"].clone())
        });
    });
    group.finish();
}

fn write(c: &mut Criterion) {
    let mut group = c.benchmark_group("write a push");
    let text = r#"{"state":"online","last_changed":1700000000000}"#;
    let value = Reader::default()
        .read(&mut text.as_bytes().to_vec(), |item| Draft::from_json(item, 2))
        .expect("it is JSON")
        .expect("it is data");
    let node = value.resolve(&Node::Empty, stillhere::base::WallMillis(0));
    let event = Event::Set { path: Path::parse("status/user12345").expect("it is a path"), node };
    let mut out = Vec::new();
    let mut written = EventText::default();
    group.bench_function("encoder, with its frame", |b| {
        b.iter(|| {
            out.clear();
            written.fill(&event);
            written.write_frames(&mut out, None);
            out.len()
        });
    });
    let plain: Value = serde_json::from_str(text).expect("it is JSON");
    group.bench_function("serde_json value, without", |b| {
        b.iter(|| json!({"t": "d", "d": {"a": "d", "b": {"p": "status/user12345", "d": plain}}}).to_string().len());
    });
    group.bench_function("the ok, with its frame", |b| {
        b.iter(|| {
            out.clear();
            firebase::done(&mut out, 127);
            firebase::frames::seal(&mut out, 0);
            out.len()
        });
    });
    group.finish();
}

criterion_group!(benches, read, write);
criterion_main!(benches);
