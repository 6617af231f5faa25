//! What rules cost: `cargo bench --bench writes`.
//!
//! The same presence writes with rules (one `.write`, three `.validate`, a signed-in user) and without
//! (`".write": true`, nobody), first through the engine alone, then through two running servers. What is
//! compared is CPU time a write, round by round in turn, so that whatever else the machine does hits
//! both. The goal is a ratio of 1.10 through a server.

#![expect(clippy::print_stdout, reason = "it is there to print")]
#![expect(clippy::disallowed_types, clippy::disallowed_methods, reason = "benchmarks are the clients and the clock")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use serde_json::json;
use stillhere::auth::{AuthConfig, Verifier};
use stillhere::base::{ConnId, Instant, Now, ShardId, WallMillis};
use stillhere::engine::{Config, Engine, Input, Output, Settings};
use stillhere::rules::{Dialect, Ruleset};
use stillhere::wire::ws;

const RULES: &str = r#"{"rules": {"status": {"$uid": {
    ".read": "auth != null",
    ".write": "auth != null && auth.uid == $uid",
    ".validate": "newData.hasChildren(['state', 'lastChanged'])",
    "state": {".validate": "newData.val() == 'online' || newData.val() == 'offline'"},
    "lastChanged": {".validate": "newData.val() == now"}
}}}}"#;
const OPEN: &str = r#"{"rules": {".read": true, ".write": true}}"#;
const SECRET: &str = "a-secret-that-is-for-this-benchmark-only";
const CLIENTS: usize = 64;

fn now() -> Now {
    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    Now { instant: Instant(1), wall: WallMillis(u64::try_from(wall.as_millis()).expect("not yet")) }
}

fn token(client: usize) -> String {
    let part = |json: serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let claims = json!({"v": 1, "uid": format!("user{client}"), "claims": {}, "iat": now().wall.0 / 1_000 - 10});
    let text = format!("{}.{}", part(json!({"alg": "HS256"})), part(claims));
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signature = crypto::sign(text.as_bytes(), &key, Algorithm::HS256).expect("it can be signed");
    format!("{text}.{signature}")
}

fn handshake() -> &'static str {
    "GET /.ws?v=5&ns=db HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
}

fn frame(text: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    ws::write_masked(&mut frame, ws::Kind::Text, text.as_bytes(), [1, 2, 3, 4]);
    frame
}

fn sign_in(client: usize) -> Vec<u8> {
    frame(&format!(r#"{{"t":"d","d":{{"r":1,"a":"auth","b":{{"cred":"{}"}}}}}}"#, token(client)))
}

fn write(client: usize, is_online: bool) -> Vec<u8> {
    let state = if is_online { "online" } else { "offline" };
    frame(&format!(
        r#"{{"t":"d","d":{{"r":2,"a":"p","b":{{"p":"/status/user{client}","d":{{"state":"{state}","lastChanged":{{".sv":"timestamp"}}}}}}}}}}"#
    ))
}

/// Nanoseconds that the threads below `directory` have been on a core.
fn cpu_ns(directory: &Path) -> u64 {
    let tasks = std::fs::read_dir(directory).expect("it runs");
    let times = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok());
    times.map(|text| text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0)).sum()
}

/// The median of what each round cost, with and without, and of their ratios.
fn compare(name: &str, rounds: usize, writes: usize, mut round: impl FnMut(bool) -> u64) {
    let (mut with, mut without, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for index in 0..=rounds {
        // Which is first changes, so that neither always finds the caches warm.
        let (on, off) = if index % 2 == 0 {
            let on = round(true);
            (on, round(false))
        } else {
            let off = round(false);
            (round(true), off)
        };
        // The first round is for warming up.
        if index > 0 {
            with.push(on / writes as u64);
            without.push(off / writes as u64);
            ratios.push(on * 1_000 / off.max(1));
        }
    }
    let median = |list: &mut Vec<u64>| {
        list.sort_unstable();
        list[list.len() / 2]
    };
    let (with, without, ratio) = (median(&mut with), median(&mut without), median(&mut ratios));
    println!(
        "{name}: {with} ns a write with rules, {without} ns without; ratio {}.{:03}",
        ratio / 1_000,
        ratio % 1_000
    );
}

/// An engine with its clients.
struct Core {
    engine: Engine,
    output: Output,
}

impl Core {
    fn new(rules: &str, is_signed_in: bool) -> Self {
        let auth = AuthConfig { secrets: vec![SECRET.into()], ..AuthConfig::default() };
        let config = Config {
            shard: ShardId(0),
            shards: 1,
            seed: [7; 32],
            common_seed: [1, 2, 3, 4],
            settings: Arc::new(Settings::default()),
            namespaces: BTreeMap::new(),
            is_restricted: false,
            rules: Arc::new(Ruleset::parse(rules, Dialect::Both).expect("they are right")),
            dialect: Dialect::Both,
            verifier: Arc::new(Verifier::new(auth).expect("it is right")),
        };
        let mut core = Self { engine: Engine::new(config, now()), output: Output::default() };
        for client in 0..CLIENTS {
            let conn = conn(client);
            core.input(Input::Opened { conn, peer: SocketAddr::from(([127, 0, 0, 1], 1)) });
            core.send(client, handshake().as_bytes());
            if is_signed_in {
                core.send(client, &sign_in(client));
            }
            core.send(client, &write(client, true));
            assert!(core.output.bytes.ends_with(br#""b":{"s":"ok","d":""}}}"#), "it is allowed");
        }
        core
    }

    fn input(&mut self, input: Input<'_>) {
        self.output.clear();
        self.engine.handle(now(), input, &mut self.output);
    }

    fn send(&mut self, client: usize, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        self.input(Input::Bytes { conn: conn(client), bytes: &mut bytes });
    }
}

fn conn(client: usize) -> ConnId {
    ConnId(u32::try_from(client).expect("few clients"))
}

fn through_the_engine() {
    const TURNS: usize = 200;
    let (mut with, mut without) = (Core::new(RULES, true), Core::new(OPEN, false));
    let frames: Vec<Vec<u8>> = (0..CLIENTS).map(|client| write(client, client % 2 == 0)).collect();
    compare("engine alone", 101, TURNS * CLIENTS, |has_rules| {
        let core = if has_rules { &mut with } else { &mut without };
        let task = Path::new("/proc/self/task");
        let before = cpu_ns(task);
        for _ in 0..TURNS {
            frames.iter().enumerate().for_each(|(client, frame)| core.send(client, frame));
        }
        cpu_ns(task) - before
    });
}

/// A running server with its clients.
struct Server {
    child: Child,
    clients: Vec<TcpStream>,
    _folder: tempfile::TempDir,
}

impl Server {
    fn start(rules: &str, is_signed_in: bool) -> Self {
        let folder = tempfile::TempDir::new().expect("a directory");
        let config =
            format!("rules = \"r.json\"\nlisten = \"127.0.0.1:0\"\nshards = 1\nauth.secrets = [\"{SECRET}\"]\n");
        std::fs::write(folder.path().join("c.toml"), config).expect("a file");
        std::fs::write(folder.path().join("r.json"), rules).expect("a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_stillhere"));
        command.args(["serve", "--config", "c.toml"]).current_dir(folder.path());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
        let mut ready = String::new();
        BufReader::new(child.stdout.take().expect("it is piped"))
            .read_line(&mut ready)
            .expect("it says that it is ready");
        let address = ready.split("tcp=").nth(1).and_then(|rest| rest.split(' ').next()).expect("it has an address");
        let mut server = Self { child, clients: Vec::new(), _folder: folder };
        for client in 0..CLIENTS {
            let mut stream = TcpStream::connect(address).expect("it listens");
            stream.set_nodelay(true).expect("it can be set");
            stream.write_all(handshake().as_bytes()).expect("it reads");
            expect(&mut stream, "}}}");
            if is_signed_in {
                stream.write_all(&sign_in(client)).expect("it reads");
                expect(&mut stream, r#""s":"ok""#);
            }
            server.clients.push(stream);
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads until what came has `part` in it.
fn expect(stream: &mut TcpStream, part: &str) {
    let mut heard = Vec::new();
    let mut chunk = [0; 4096];
    while !String::from_utf8_lossy(&heard).contains(part) {
        let count = stream.read(&mut chunk).expect("it answers");
        assert!(count > 0, "it hung up after {}", String::from_utf8_lossy(&heard));
        heard.extend_from_slice(&chunk[..count]);
    }
}

fn through_a_server() {
    const TURNS: usize = 60;
    let (mut with, mut without) = (Server::start(RULES, true), Server::start(OPEN, false));
    let frames: Vec<Vec<u8>> = (0..CLIENTS).map(|client| write(client, client % 2 == 0)).collect();
    compare("through a server", 41, TURNS * CLIENTS, |has_rules| {
        let server = if has_rules { &mut with } else { &mut without };
        let tasks = format!("/proc/{}/task", server.child.id());
        let before = cpu_ns(Path::new(&tasks));
        for _ in 0..TURNS {
            for (stream, frame) in server.clients.iter_mut().zip(&frames) {
                stream.write_all(frame).expect("it reads");
            }
            server.clients.iter_mut().for_each(|stream| expect(stream, r#""s":"ok""#));
        }
        cpu_ns(Path::new(&tasks)) - before
    });
}

fn main() {
    // `cargo test --benches` runs this too, and has no use for figures.
    if std::env::args().any(|word| word == "--bench") {
        through_the_engine();
        through_a_server();
    }
}
