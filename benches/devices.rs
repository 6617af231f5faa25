//! Devices: what one of very many costs in memory, and a ping of it in time.
//!
//! Each has its session, an identity of its own, and one last word, as devices have that matter. Pings come
//! in an order that no cache likes. Sockets are not in it: see the load generator for those.

#![expect(clippy::print_stdout, reason = "memory is a figure that criterion does not measure")]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use stillhere::auth::{AuthConfig, Verifier};
use stillhere::base::{Hashing, Instant, Map, Now, ShardId, WallMillis};
use stillhere::data::{Draft, Node, Path};
use stillhere::engine::{Config, Effect, Engine, Input, Output, Peer, Settings};
use stillhere::op::Write;
use stillhere::presence::{Ledger, Stamps, places};
use stillhere::rules::{Dialect, Ruleset};
use stillhere::runtime::{Counted, bytes_in_use};
use stillhere::session::Table;
use stillhere::wheel::Wheel;
use stillhere::wire::coap::{Code, Kind, MessageId, Token, Writer, option};

#[global_allocator]
static ALLOCATOR: Counted = Counted;

/// Tables that double stand with so many as they do with a million: it is a quarter.
const DEVICES: u32 = 250_000;
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

/// The path of a device's last word.
fn place(device: u32) -> String {
    format!("homes/presence/device-{device:08}")
}

/// Tells what a part takes for each device, and keeps it until it is told.
fn part<T>(name: &str, build: impl FnOnce() -> T) -> u64 {
    let before = bytes_in_use();
    let built = build();
    let each = (bytes_in_use() - before) / u64::from(DEVICES);
    println!("{each:>5} bytes: {name}");
    drop(built);
    each
}

/// What the parts of a device's session take that can be built alone. The rest is the device's record, and the list of
/// who has left something.
fn parts() -> u64 {
    let hashing = Hashing::from_seed([1, 2, 3, 4]);
    let word = |device: u32| Write::Set {
        path: Path::parse(&place(device)).expect("it is a path"),
        value: Draft::from_parts(Node::text("offline"), []),
    };
    let table = |factor: u64| {
        let mut map: Map<u64, u32> = hashing.map();
        map.extend((0..DEVICES).map(|device| (u64::from(device).wrapping_mul(factor), device)));
        map
    };
    let slots = || {
        let mut sessions: Table<[u64; 16]> = Table::new(ShardId(0), DEVICES);
        (0..DEVICES).for_each(|device| assert!(sessions.open(u128::from(device), [0; 16]).is_ok(), "there is room"));
        sessions
    };
    let wheel = || {
        let mut wheel = Wheel::new(Instant(0));
        for device in 0..DEVICES {
            wheel.arm(device, Instant(1_000 + u64::from(device) * 60_000 / u64::from(DEVICES)));
        }
        wheel
    };
    let ledgers = || {
        let mut ledgers = vec![Ledger::EMPTY; DEVICES as usize];
        for (ledger, device) in ledgers.iter_mut().zip(0..) {
            ledger.register(word(device), 40).expect("there is room");
        }
        ledgers
    };
    let stamps = || {
        let mut stamps = Stamps::new(hashing.clone());
        (0..DEVICES).for_each(|device| places(&word(device)).for_each(|place| stamps.hold(&place)));
        stamps
    };
    part("the session's slot, with its secret", slots)
        + part("its name, in a table", || table(0x9e37_79b9_7f4a_7c15))
        + part("its address, in a table", || table(0xd6e8_feb8_6659_fd93))
        + part("its deadline, in the wheel", wheel)
        + part("its last word: word, ledger, path", ledgers)
        + part("the stamp of one place that nobody else waits for", stamps)
}

/// What a device takes in a whole engine, which is then there.
fn whole(engine: &mut Engine, packets: &mut [Vec<u8>], output: &mut Output) {
    let begin = request(0x0100, Code::POST, ".cs", &[b"v=2"], b"");
    let name_at = packets[0].len() - 8;
    let before = bytes_in_use();
    for phase in 0..4_u64 {
        for (packet, device) in packets.iter_mut().zip(0..DEVICES) {
            // A minute for all, so that what is remembered of each is forgotten.
            let at = now(phase * 60_000 + u64::from(device) * 60_000 / u64::from(DEVICES));
            if phase == 0 {
                handle(engine, at, device, &begin, output);
                packet[name_at..].copy_from_slice(&output.bytes[13..21]);
            } else if phase == 2 {
                let name = [b".cs=", &packet[name_at..]].concat();
                let word = request(0x0400, Code::PUT, &place(device), &[b".dis=add", &name], b"\x67offline");
                handle(engine, at, device, &word, output);
            }
            handle(engine, at, device, packet, output);
            if device % 1_000 == 0 {
                engine.handle(at, Input::Tick, output);
            }
        }
        let each = (bytes_in_use() - before) / u64::from(DEVICES);
        match phase {
            0 => println!("{each:>5} bytes: a session, while its first answers are remembered"),
            1 => println!("{each:>5} bytes: a session without a last word"),
            2 => {}
            _ => println!("{each:>5} bytes: a session with one last word, and everything above"),
        }
    }
}

fn pings(c: &mut Criterion) {
    let mut engine = engine();
    let mut output = Output::default();
    let mut packets: Vec<Vec<u8>> = Vec::with_capacity(DEVICES as usize);
    for _ in 0..DEVICES {
        packets.push(request(0x0300, Code::GET, ".ping", &[b".cs=00000000"], b""));
    }
    let sum = parts();
    whole(&mut engine, &mut packets, &mut output);
    println!("{sum:>5} bytes: what was built alone");
    let mut group = c.benchmark_group("devices");
    group.throughput(Throughput::Elements(1));
    let mut turn = 0_u64;
    group.bench_function("ping", |b| {
        b.iter(|| {
            turn += 1;
            let device = (turn * 2_654_435_761 % u64::from(DEVICES)) as u32;
            // Fast enough that nobody falls silent, slow enough that nobody is told to slow down.
            handle(&mut engine, now(240_000 + turn / 10), device, &packets[device as usize], &mut output);
        });
    });
    group.finish();
}

criterion_group!(benches, pings);
criterion_main!(benches);
