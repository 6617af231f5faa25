//! One write that 10,000 sessions listen to, in an engine without sockets; against encoding the event
//! for each of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use stillhere::auth::{AuthConfig, Verifier};
use stillhere::base::{ConnId, Instant, Now, ShardId, WallMillis};
use stillhere::data::{Node, Path};
use stillhere::engine::{Config, Effect, Engine, Input, Output, Settings};
use stillhere::op::{Event, Query};
use stillhere::rules::Ruleset;
use stillhere::wire::firebase::{self, client};
use stillhere::wire::ws;

const LISTENERS: u32 = 10_000;
const NOW: Now = Now { instant: Instant(1_000_000), wall: WallMillis(1_700_000_000_000) };

fn engine() -> Engine {
    let config = Config {
        shard: ShardId(0),
        shards: 1,
        seed: [7; 32],
        common_seed: [1, 2, 3, 4],
        settings: Arc::new(Settings::default()),
        namespaces: BTreeMap::new(),
        is_restricted: false,
        rules: Arc::new(Ruleset::open()),
        dialect: stillhere::rules::Dialect::Both,
        verifier: Arc::new(Verifier::new(AuthConfig::default()).expect("believing nobody is possible")),
    };
    Engine::new(config, NOW)
}

fn say(engine: &mut Engine, output: &mut Output, conn: u32, write: impl FnOnce(&mut Vec<u8>)) {
    let (mut message, mut frame) = (Vec::new(), Vec::new());
    write(&mut message);
    ws::write_masked(&mut frame, ws::Kind::Text, &message, [1, 2, 3, 4]);
    engine.handle(NOW, Input::Bytes { conn: ConnId(conn), bytes: &mut frame }, output);
}

fn join(engine: &mut Engine, output: &mut Output, conn: u32) {
    let mut request = b"GET /.ws?v=5&ns=bench HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        .to_vec();
    engine.handle(NOW, Input::Opened { conn: ConnId(conn), peer: SocketAddr::from(([127, 0, 0, 1], 1)) }, output);
    engine.handle(NOW, Input::Bytes { conn: ConnId(conn), bytes: &mut request }, output);
}

fn fan_out(c: &mut Criterion) {
    let mut group = c.benchmark_group("one write to 10,000 listeners");
    group.throughput(Throughput::Elements(LISTENERS.into()));
    group.sample_size(20);
    for (name, tag) in [("same listen", None), ("each with a tag", Some(7))] {
        let mut engine = engine();
        let mut output = Output::default();
        join(&mut engine, &mut output, 0);
        for conn in 1..=LISTENERS {
            join(&mut engine, &mut output, conn);
            say(&mut engine, &mut output, conn, |out| client::listen(out, 1, "room/state", &Query::ALL, tag, ""));
            output.clear();
        }
        let mut number = 1;
        group.bench_function(format!("engine, {name}"), |b| {
            b.iter(|| {
                number += 1;
                output.clear();
                let value = number.to_string();
                say(&mut engine, &mut output, 0, |out| client::put(out, number, "room/state", &value, None));
                let sent = output.effects.iter().filter(|effect| matches!(effect, Effect::Send { .. })).count();
                assert_eq!(sent, LISTENERS as usize + 1, "everybody hears of it, and the writer has an answer");
            });
        });
    }
    let event = Event::Set { path: Path::parse("room/state").expect("it is a path"), node: Node::text("12345") };
    let mut bytes = Vec::new();
    group.bench_function("encoded for each", |b| {
        b.iter(|| {
            bytes.clear();
            for _ in 0..LISTENERS {
                let start = bytes.len();
                firebase::event(&mut bytes, &event, None);
                firebase::frames::seal(&mut bytes, start);
            }
            bytes.len()
        });
    });
    group.finish();
}

criterion_group!(benches, fan_out);
criterion_main!(benches);
