//! Devices: what one of very many costs in memory, and a ping of it in time.
//!
//! Each has its session, an identity of its own, and one last word, as devices have that matter. Pings come
//! in an order that no cache likes. Sockets are not in it: see the load generator for those.

#![expect(clippy::disallowed_methods, reason = "a bench reads the clock and the process's memory")]
#![expect(clippy::print_stdout, reason = "memory is a figure that criterion does not measure")]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use stillhere::auth::{AuthConfig, Verifier};
use stillhere::base::{Instant, Now, ShardId, WallMillis};
use stillhere::engine::{Config, Effect, Engine, Input, Output, Peer, Settings};
use stillhere::rules::{Dialect, Ruleset};
use stillhere::wire::coap::{Code, Kind, MessageId, Token, Writer, option};

const DEVICES: u32 = 300_000;
const HOST: &[u8] = b"myapp.wilddogio.com";

fn engine() -> Engine {
    let verifier = Verifier::new(AuthConfig::default()).expect("there is nothing in it that could be wrong");
    let config = Config {
        shard: ShardId(0),
        shards: 1,
        seed: [7; 32],
        common_seed: [1, 2, 3, 4],
        settings: Arc::new(Settings::default()),
        namespaces: BTreeMap::new(),
        is_restricted: false,
        rules: Arc::new(Ruleset::open()),
        dialect: Dialect::Both,
        verifier: Arc::new(verifier),
    };
    Engine::new(config, now(0))
}

const fn now(ms: u64) -> Now {
    Now { instant: Instant(1_000_000 + ms), wall: WallMillis(1_700_000_000_000 + ms) }
}

fn peer(device: u32) -> Peer {
    // This machine may have as many as it likes.
    let [_, a, b, c] = device.to_be_bytes();
    let remote = SocketAddr::from((Ipv4Addr::new(127, a, b, c), 5_683));
    Peer { remote, local: Ipv4Addr::UNSPECIFIED, sealed_at: None }
}

fn request(id: u16, code: Code, path: &str, queries: &[&[u8]], payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let token = Token::new(&[1, 0x45, 0x8b, 0x6b]);
    let mut writer =
        Writer::new(&mut bytes, Kind::Confirmable, code, MessageId(id), token).option(option::URI_HOST, HOST);
    for segment in path.split('/') {
        writer = writer.option(option::URI_PATH, segment.as_bytes());
    }
    let writer = queries.iter().fold(writer, |writer, query| writer.option(option::URI_QUERY, query));
    writer.payload(payload);
    bytes
}

/// Has the engine handle a datagram; what it answers is in `output`.
fn handle(engine: &mut Engine, at: Now, device: u32, bytes: &[u8], output: &mut Output) {
    output.clear();
    engine.handle(at, Input::Datagram { peer: peer(device), bytes }, output);
    assert!(
        output.effects.iter().any(|effect| matches!(effect, Effect::Datagram { .. })),
        "device {device} is answered"
    );
}

fn memory_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux has it");
    let pages: usize = statm.split(' ').nth(1).and_then(|text| text.parse().ok()).expect("a number");
    pages * 4_096
}

fn pings(c: &mut Criterion) {
    let mut engine = engine();
    let mut output = Output::default();
    let mut packets: Vec<Vec<u8>> = Vec::with_capacity(DEVICES as usize);
    let begin = request(0x0100, Code::POST, ".cs", &[b"v=2"], b"");
    for _ in 0..DEVICES {
        packets.push(request(0x0300, Code::GET, ".ping", &[b".cs=00000000"], b""));
    }
    let name_at = packets[0].len() - 8;
    let (before, mut after_begin) = (memory_bytes(), 0);
    for phase in 0..2_u64 {
        for device in 0..DEVICES {
            // A minute for all, so that what is remembered of each is forgotten.
            let at = now(phase * 60_000 + u64::from(device) * 60_000 / u64::from(DEVICES));
            let packet = &mut packets[device as usize];
            if phase == 0 {
                handle(&mut engine, at, device, &begin, &mut output);
                packet[name_at..].copy_from_slice(&output.bytes[13..21]);
                handle(&mut engine, at, device, packet, &mut output);
            } else {
                let name = [b".cs=", &packet[name_at..]].concat();
                let path = format!("status/{device}");
                let word = request(0x0400, Code::PUT, &path, &[b".dis=add", &name], b"\x67offline");
                handle(&mut engine, at, device, &word, &mut output);
            }
        }
        if phase == 0 {
            after_begin = memory_bytes();
        }
    }
    for device in 0..DEVICES {
        let at = now(120_000 + u64::from(device) * 60_000 / u64::from(DEVICES));
        handle(&mut engine, at, device, &packets[device as usize], &mut output);
    }
    let each = |bytes: usize| bytes / DEVICES as usize;
    println!(
        "{DEVICES} devices: {} bytes each while their answers are remembered, {} with a last word, its stamp and all tables",
        each(after_begin - before),
        each(memory_bytes() - before)
    );
    let mut group = c.benchmark_group("devices");
    group.throughput(Throughput::Elements(1));
    let mut turn = 0_u64;
    group.bench_function("ping", |b| {
        b.iter(|| {
            turn += 1;
            let device = (turn * 2_654_435_761 % u64::from(DEVICES)) as u32;
            // Fast enough that nobody falls silent, slow enough that nobody is told to slow down.
            handle(&mut engine, now(180_000 + turn / 10), device, &packets[device as usize], &mut output);
        });
    });
    group.finish();
}

criterion_group!(benches, pings);
criterion_main!(benches);
