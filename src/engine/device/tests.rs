use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::auth::{AuthConfig, Verifier};
use crate::base::limits::DEVICE_BODY_BYTES_MAX;
use crate::base::{Millis, ShardId};
use crate::engine::{Durability, Notice, Peer, Settings};
use crate::op::End;
use crate::rules::{Dialect, Ruleset};
use crate::sim::{Client, World};
use crate::wire::coap::{Code, Kind, Message, MessageId, Token, Writer, cbor, option};

/// What the published SDKs and a server that made them content have said to each other.
const RECORDED: &str = include_str!("../../../tests/vectors/wilddog-coap.jsonl");
const SECOND: Millis = Millis(1_000);

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
}

fn address(port: u16) -> SocketAddr {
    (Ipv4Addr::new(10, 0, 0, 1), port).into()
}

fn peer(port: u16) -> Peer {
    Peer { remote: address(port), local: Ipv4Addr::UNSPECIFIED, sealed_at: None }
}

/// Peers with ports from here on are met sealed.
const SEALED_PORTS: u16 = 40_000;

/// Every story is told with one engine and with several.
fn for_shards(story: impl Fn(u8)) {
    (1..=3).for_each(story);
}

/// A world with devices in it.
struct Field {
    shards: u8,
    world: World,
    /// What has arrived at each port.
    heard: BTreeMap<u16, Vec<Vec<u8>>>,
}

/// What a device has heard.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Heard {
    kind: Kind,
    code: Code,
    id: MessageId,
    token: Vec<u8>,
    observe: Option<u32>,
    payload: Vec<u8>,
}

impl Heard {
    fn read(bytes: &[u8]) -> Self {
        let message = Message::read(bytes).expect("a server's messages are right");
        let observe = message.options().find(|(number, _)| *number == option::OBSERVE);
        let observe = observe.map(|(_, value)| value.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)));
        let Message { kind, code, id, token, payload, .. } = message;
        Self { kind, code, id, token: token.as_bytes().to_vec(), observe, payload: payload.to_vec() }
    }
}

impl Field {
    fn new(shards: u8) -> Self {
        Self { shards, world: World::new(shards, 77), heard: BTreeMap::new() }
    }

    fn with_rules(shards: u8, rules: &str) -> Self {
        let rules = Ruleset::parse(rules, Dialect::Both).expect("rules");
        let world = World::with(shards, 78, &Arc::new(Settings::default()), &Arc::new(rules));
        Self { shards, world, heard: BTreeMap::new() }
    }

    /// One whose world writes down what happens.
    fn kept(shards: u8) -> Self {
        let settings = Settings { durability: Durability::Fsync, ..Settings::default() };
        let world = World::with(shards, 79, &Arc::new(settings), &Arc::new(Ruleset::open()));
        Self { shards, world, heard: BTreeMap::new() }
    }

    /// The server ends without a word, and another begins with so many shards.
    fn restart(&mut self, shards: u8) {
        self.settle();
        let world = std::mem::replace(&mut self.world, World::new(1, 0));
        self.world = world.cut_power(shards);
        self.shards = shards;
        self.heard.clear();
        self.settle();
    }

    fn settle(&mut self) {
        self.world.settle_and_sync();
        for (peer, bytes) in self.world.take_datagrams() {
            self.heard.entry(peer.remote.port()).or_default().push(bytes);
        }
    }

    fn pass(&mut self, span: Millis) {
        self.world.pass(span);
        self.settle();
    }

    fn send(&mut self, shard: usize, port: u16, bytes: &[u8]) {
        let core = u8::try_from(shard % usize::from(self.shards)).unwrap();
        let sealed_at = (port >= SEALED_PORTS).then_some(ShardId(core));
        self.world.datagram(shard, Peer { sealed_at, ..peer(port) }, bytes);
        self.settle();
    }

    fn take_bytes(&mut self, port: u16) -> Vec<Vec<u8>> {
        self.heard.remove(&port).unwrap_or_default()
    }

    fn take(&mut self, port: u16) -> Vec<Heard> {
        self.take_bytes(port).iter().map(|bytes| Heard::read(bytes)).collect()
    }

    /// A web client with a listen at `path`.
    fn watcher(&mut self, path: &str) -> Client {
        let client = self.world.join(1, "&ns=myapp");
        self.world.send(client, &format!(r#"{{"t":"d","d":{{"r":1,"a":"q","b":{{"p":"{path}","h":""}}}}}}"#));
        self.settle();
        self.world.take(client);
        client
    }

    /// What a web client has heard of data, as paths and values.
    fn events(&mut self, client: Client) -> Vec<String> {
        self.settle();
        let text = |message: &String| {
            let value: serde_json::Value = serde_json::from_str(message).unwrap();
            let body = &value["d"]["b"];
            (value["d"]["a"] == "d").then(|| format!("{}={}", body["p"].as_str().unwrap(), body["d"]))
        };
        self.world.take(client).iter().filter_map(text).collect()
    }

    fn ends(&mut self) -> Vec<(End, usize)> {
        let ends = self.world.notices.drain(..).filter_map(|notice| match notice {
            Notice::LastWords { end, spoken, yielded, denied } => Some((end, spoken + yielded + denied)),
            _ => None,
        });
        ends.collect()
    }
}

/// A device with the SDK.
#[derive(Clone)]
struct Device {
    shard: usize,
    port: u16,
    /// As every device counts after it has booted.
    counter: u16,
    is_old: bool,
    name: Vec<u8>,
    pass: Vec<u8>,
}

/// A request before it is sent.
#[derive(Default, Clone)]
struct Ask<'a> {
    observe: Option<u8>,
    path: &'a str,
    dis: Option<&'a str>,
    payload: &'a [u8],
}

impl Device {
    fn new(shard: usize, port: u16) -> Self {
        Self { shard, port, counter: 0, is_old: false, name: b"00000000".to_vec(), pass: Vec::new() }
    }

    /// One that has its session and has used it.
    fn up(field: &mut Field, shard: usize, port: u16) -> Self {
        let mut device = Self::new(shard, port);
        device.begin(field, b"");
        assert_eq!(device.ping(field), Some(Code::CONTENT));
        device
    }

    fn next_id(&mut self) -> (MessageId, Token) {
        self.counter += 1;
        let id = self.counter.swap_bytes();
        (MessageId(id), Token::new(&[id.to_be_bytes()[0], 0x45, 0x8b, 0x6b]))
    }

    fn write(&mut self, code: Code, ask: &Ask<'_>, queries: &[Vec<u8>]) -> Vec<u8> {
        let (id, token) = self.next_id();
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, Kind::Confirmable, code, id, token);
        writer = writer.option(option::URI_HOST, b"myapp.wilddogio.com");
        if let Some(observe) = ask.observe {
            writer = writer.option(option::OBSERVE, &[observe]);
        }
        for segment in ask.path.split('/').skip(1) {
            writer = writer.option(option::URI_PATH, segment.as_bytes());
        }
        for query in queries {
            writer = writer.option(option::URI_QUERY, query);
        }
        writer.payload(ask.payload);
        bytes
    }

    fn request(&mut self, code: Code, ask: &Ask<'_>) -> Vec<u8> {
        let mut queries = Vec::new();
        if let Some(dis) = ask.dis {
            queries.push([b".dis=", dis.as_bytes()].concat());
        }
        queries.push([b".cs=", &self.name[..]].concat());
        self.write(code, ask, &queries)
    }

    /// Sends a request and returns its answer.
    fn ask(&mut self, field: &mut Field, code: Code, ask: &Ask<'_>) -> Option<Heard> {
        let bytes = self.request(code, ask);
        self.exchange(field, &bytes)
    }

    fn exchange(&self, field: &mut Field, bytes: &[u8]) -> Option<Heard> {
        field.send(self.shard, self.port, bytes);
        let request = Heard::read(bytes);
        let heard = field.heard.get_mut(&self.port)?;
        let is_answer = |bytes: &Vec<u8>| {
            let heard = Heard::read(bytes);
            heard.kind == Kind::Acknowledgement && heard.id == request.id && heard.token == request.token
        };
        let at = heard.iter().position(is_answer)?;
        Some(Heard::read(&heard.remove(at)))
    }

    fn begin_bytes(&mut self, credential: &[u8]) -> Vec<u8> {
        let queries = if self.is_old { vec![] } else { vec![b"v=2".to_vec()] };
        self.write(Code::POST, &Ask { path: "/.cs", payload: credential, ..Ask::default() }, &queries)
    }

    fn take_names(&mut self, answer: &Heard) {
        assert_eq!(answer.code, Code::CONTENT);
        assert_eq!((&answer.payload[..4], answer.payload.len()), (&b"\xa2\x61s\x68"[..], 48));
        assert_eq!(&answer.payload[12..16], b"\x61l\x78\x20");
        self.name = answer.payload[4..12].to_vec();
        self.pass = answer.payload[16..].to_vec();
    }

    fn begin(&mut self, field: &mut Field, credential: &[u8]) {
        let bytes = self.begin_bytes(credential);
        let answer = self.exchange(field, &bytes).expect("an answer to /.cs");
        self.take_names(&answer);
    }

    fn code(&mut self, field: &mut Field, code: Code, ask: &Ask<'_>) -> Option<Code> {
        self.ask(field, code, ask).map(|heard| heard.code)
    }

    fn ping(&mut self, field: &mut Field) -> Option<Code> {
        self.code(field, Code::GET, &Ask { path: "/.ping", ..Ask::default() })
    }

    fn off(&mut self, field: &mut Field) -> Option<Code> {
        self.code(field, Code::GET, &Ask { path: "/.off", ..Ask::default() })
    }

    fn returns(&mut self, field: &mut Field) -> Option<Code> {
        let pass = self.pass.clone();
        let bytes = self.write(Code::POST, &Ask { path: "/.rst", payload: &pass, ..Ask::default() }, &[]);
        self.exchange(field, &bytes).map(|heard| heard.code)
    }

    fn set(&mut self, field: &mut Field, path: &str, payload: &[u8]) -> Option<Code> {
        self.code(field, Code::PUT, &Ask { path, payload, ..Ask::default() })
    }

    fn get(&mut self, field: &mut Field, path: &str) -> Vec<u8> {
        let heard = self.ask(field, Code::GET, &Ask { path, ..Ask::default() }).expect("an answer");
        assert_eq!((heard.code, heard.observe), (Code::CONTENT, None), "{path}");
        heard.payload
    }

    fn last_word(&mut self, field: &mut Field, path: &str, payload: &[u8]) {
        let ask = Ask { path, payload, dis: Some("add"), ..Ask::default() };
        assert_eq!(self.code(field, Code::PUT, &ask), Some(Code::CONTENT));
    }

    fn observe(&mut self, field: &mut Field, path: &str) -> (Vec<u8>, Heard) {
        let bytes = self.request(Code::GET, &Ask { path, observe: Some(0), ..Ask::default() });
        let answer = self.exchange(field, &bytes).expect("an answer");
        (bytes, answer)
    }

    fn acknowledge(&self, field: &mut Field, heard: &Heard) {
        self.react(field, Kind::Acknowledgement, heard);
    }

    fn react(&self, field: &mut Field, kind: Kind, heard: &Heard) {
        let mut bytes = Vec::new();
        // With the token, against the standard.
        Writer::new(&mut bytes, kind, Code::EMPTY, heard.id, Token::new(&heard.token)).done();
        field.send(self.shard, self.port, &bytes);
    }
}

/// What a developer's server believes.
fn token_of(uid: &str) -> String {
    let part = |text: String| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.", part(r#"{"alg":"none"}"#.into()), part(format!(r#"{{"sub":"{uid}"}}"#)))
}

const ON: &[u8] = b"\x62on";
const OFF: &[u8] = b"\x63off";

#[test]
fn recorded_conversations_of_every_version_go_on_as_they_did() {
    // Each conversation from its first packet on, at an address of its own, to a server of its own. The
    // names of sessions are ours; everything else that the protocol fixes is compared byte by byte.
    let packets: Vec<serde_json::Value> = RECORDED.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let families = ["SDK 2.0.2 x86_64 nosec: ", "SDK 2.0.2 ARM", "SDK 2.0.2 MIPS", "SDK 1.1.3", "SDK 0.7.5"];
    let mut compared = 0;
    for family in families {
        for shards in 1..=2 {
            compared += replay(
                shards,
                packets.iter().filter(|packet| {
                    let name = packet["name"].as_str().unwrap();
                    // What the recorded server only pretended: refusals of its own will, values it did not have.
                    let is_pretended = [
                        "refused",
                        "denied",
                        "too large",
                        "never answered",
                        "4.00",
                        "4.12",
                        "5.00",
                        "unknown token",
                        "4.01",
                        "NON",
                        "lost",
                        "new source port",
                        "pong",
                    ]
                    .iter()
                    .any(|word| name.contains(word));
                    name.starts_with(family) && !is_pretended
                }),
            );
        }
    }
    assert!(compared > 80, "{compared} answers were compared");
}

#[expect(clippy::too_many_lines, reason = "one conversation, told in order")]
fn replay<'a>(shards: u8, packets: impl Iterator<Item = &'a serde_json::Value>) -> usize {
    let mut field = Field::new(shards);
    let port = 4_000;
    let mut names: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut compared = 0;
    let mut writer = Device::new(0, 4_999);
    let mut has_writer = false;
    let mut is_gone = false;
    let mut last_name = "";
    for packet in packets {
        let mut bytes = unhex(packet["hex"].as_str().unwrap());
        let decoded = packet["decoded"].as_str().unwrap();
        let recorded = Heard::read(&bytes);
        if packet["direction"] == "client->server" {
            if is_gone && !decoded.contains(".cs\"") {
                continue;
            }
            if decoded.contains(".cs\";") {
                is_gone = false;
                // Tokens of the recording are believed by nobody here.
                let end = bytes.len() - recorded.payload.len();
                if !recorded.payload.is_empty() {
                    bytes.truncate(end - 1);
                }
            }
            for (theirs, ours) in &names {
                if let Some(at) = memchr::memmem::find(&bytes, theirs) {
                    bytes[at..at + ours.len()].copy_from_slice(ours);
                }
            }
            is_gone |= decoded.contains(".off");
            let name = packet["name"].as_str().unwrap();
            if name.contains("session expired") && std::mem::replace(&mut last_name, name) != name {
                field.pass(Millis(181_000));
                field.take(port);
            }
            field.send(0, port, &bytes);
            continue;
        }
        if recorded.kind == Kind::Confirmable {
            // A notification: somebody writes what was written then.
            if !std::mem::replace(&mut has_writer, true) {
                writer.begin(&mut field, b"");
            }
            if field.heard.get(&port).is_none_or(Vec::is_empty) {
                writer.set(&mut field, "/w", &recorded.payload);
            }
        }
        // From another core a notification may come before the answer to the write that caused it.
        let is_it = |bytes: &Vec<u8>| {
            let heard = Heard::read(bytes);
            (heard.kind, &heard.token) == (recorded.kind, &recorded.token)
        };
        let arrived = field.heard.get_mut(&port);
        let heard = arrived.and_then(|arrived| Some(arrived.remove(arrived.iter().position(is_it)?)));
        let heard = heard.unwrap_or_else(|| panic!("no answer: {packet}"));
        let answer = Heard::read(&heard);
        assert_eq!(
            (answer.kind, answer.code, &answer.token),
            (recorded.kind, recorded.code, &recorded.token),
            "{packet}"
        );
        if answer.kind == Kind::Confirmable {
            assert_eq!(answer.payload, recorded.payload, "{packet}");
            let device = Device::new(0, port);
            device.react(&mut field, Kind::Acknowledgement, &answer);
            compared += 1;
            continue;
        }
        assert_eq!(answer.id, recorded.id, "{packet}");
        assert_eq!(answer.observe.is_some(), recorded.observe.is_some(), "{packet}");
        if decoded.contains("\"s\":") {
            names.insert(recorded.payload[4..12].to_vec(), answer.payload[4..12].to_vec());
            names.insert(recorded.payload[16..].to_vec(), answer.payload[16..].to_vec());
            assert_eq!(answer.payload.len(), recorded.payload.len());
        } else if decoded.contains("raw UTF-8 path") {
            let until_key = |path: &[u8]| path[..path.len() - 19].to_vec();
            assert_eq!(answer.payload.len(), recorded.payload.len());
            assert_eq!(until_key(&answer.payload), until_key(&recorded.payload));
        } else if decoded.contains("{") {
            let (ours, theirs) = (cbor::read(&answer.payload, 0), cbor::read(&recorded.payload, 0));
            // The recorded server knew of writes that are not in this conversation.
            assert!(ours.is_ok() && theirs.is_ok(), "{packet}");
        } else {
            assert_eq!(answer.payload, recorded.payload, "{packet}");
        }
        compared += 1;
    }
    compared
}

#[test]
fn a_device_writes_reads_pushes_and_removes() {
    for_shards(|shards| {
        let mut field = Field::new(shards);
        let watcher = field.watcher("/");
        let mut device = Device::up(&mut field, 0, 1);
        assert_eq!(device.set(&mut field, "/a", b"\x65hello"), Some(Code::CONTENT));
        assert_eq!(device.get(&mut field, "/a"), b"\x65hello");
        assert_eq!(device.get(&mut field, "/missing"), b"\xf6");
        assert_eq!(device.get(&mut field, "/"), b"\xa1\x61a\x65hello");
        let pushed =
            device.ask(&mut field, Code::POST, &Ask { path: "/list", payload: b"\x05", ..Ask::default() }).unwrap();
        let path = String::from_utf8(pushed.payload).unwrap();
        assert!(path.starts_with("/list/-") && path.len() == 26, "{path}");
        assert_eq!(device.get(&mut field, &path), b"\x05");
        assert_eq!(device.code(&mut field, Code::DELETE, &Ask { path: "/a", ..Ask::default() }), Some(Code::CONTENT));
        assert_eq!(device.get(&mut field, "/a"), b"\xf6");
        assert_eq!(
            field.events(watcher)[..],
            [r#"a="hello""#.to_owned(), format!("{}=5", &path[1..]), "a=null".to_owned()]
        );
        // What is no value is refused and changes nothing.
        assert_eq!(device.set(&mut field, "/a", b"\x65hell"), Some(Code::BAD_REQUEST));
        assert_eq!(device.set(&mut field, "/a.b", b"\x05"), Some(Code::BAD_REQUEST));
    });
}

/// A device leaves a last word and goes in `way`; a web client hears of it.
#[track_caller]
fn check_last_word(shards: u8, way: impl Fn(&mut Field, &mut Device), end: End) {
    let mut field = Field::new(shards);
    let watcher = field.watcher("/status");
    let mut device = Device::up(&mut field, 0, 1);
    device.set(&mut field, "/status/d", ON);
    device.last_word(&mut field, "/status/d", OFF);
    assert_eq!(field.events(watcher), [r#"status/d="on""#]);
    way(&mut field, &mut device);
    assert_eq!(field.events(watcher), [r#"status/d="off""#]);
    assert_eq!(field.ends(), [(end, 1)]);
    field.pass(Millis(600_000));
    assert_eq!(field.events(watcher), [""; 0], "once");
    assert_eq!(field.world.stats().held_places, 0);
}

#[test]
fn silence_speaks_last_words_after_three_minutes_and_goodbye_at_once() {
    for_shards(|shards| {
        let power_cut = |field: &mut Field, _: &mut Device| {
            field.pass(Millis(179_900));
            assert_eq!(field.ends(), []);
            field.pass(Millis(100 + crate::base::limits::TICK.0));
        };
        check_last_word(shards, power_cut, End::TimedOut);
        let goodbye = |field: &mut Field, device: &mut Device| {
            assert_eq!(device.off(field), Some(Code::CONTENT));
        };
        check_last_word(shards, goodbye, End::Closed);
    });
}

#[test]
fn pings_whose_gaps_grow_keep_a_session() {
    for_shards(|shards| {
        let mut field = Field::new(shards);
        let mut device = Device::up(&mut field, 0, 1);
        device.last_word(&mut field, "/d", OFF);
        let mut gap_s = 27;
        for _ in 0..40 {
            field.pass(Millis(gap_s * 1_000));
            assert_eq!(device.ping(&mut field), Some(Code::CONTENT));
            gap_s = (gap_s + 8).min(165);
        }
        // The last gap, and the retransmissions of a ping that nobody heard.
        field.pass(Millis(175_000));
        assert_eq!((device.ping(&mut field), field.ends()), (Some(Code::CONTENT), vec![]));
        field.pass(Millis(180_100));
        assert_eq!(field.ends(), [(End::TimedOut, 1)]);
        assert_eq!(device.ping(&mut field), Some(Code::UNAUTHORIZED), "4.01: I do not know this name");
        assert_eq!(device.returns(&mut field), Some(Code::BAD_REQUEST), "4.00, or it would ask for ever");
        assert_eq!(field.world.session_count(), 0);
    });
}

#[test]
fn the_timeout_is_the_listener_s() {
    let settings = Settings { coap_session_timeout: Millis(30_000), ..Settings::default() };
    let world = World::with(1, 5, &Arc::new(settings), &Arc::new(Ruleset::open()));
    let mut field = Field { shards: 1, world, heard: BTreeMap::new() };
    Device::up(&mut field, 0, 1).last_word(&mut field, "/d", OFF);
    field.pass(Millis(29_900));
    assert_eq!(field.ends(), []);
    field.pass(Millis(116));
    assert_eq!(field.ends(), [(End::TimedOut, 1)]);
}

#[test]
fn every_kind_of_last_word_is_left_spoken_and_cancelled() {
    for_shards(|shards| {
        let mut field = Field::new(shards);
        let mut device = Device::up(&mut field, 0, 1);
        device.set(&mut field, "/gone", b"\x01");
        device.set(&mut field, "/stays", b"\x02");
        device.last_word(&mut field, "/set", OFF);
        let mut add = |field: &mut Field, code, path: &str, payload: &[u8], dis| {
            let ask = Ask { path, payload, dis: Some(dis), ..Ask::default() };
            let heard = device.ask(field, code, &ask).unwrap();
            assert_eq!((heard.code, heard.payload.len()), (Code::CONTENT, 0));
        };
        add(&mut field, Code::POST, "/log", b"\x01", "add");
        add(&mut field, Code::POST, "/log", b"\x02", "add");
        add(&mut field, Code::DELETE, "/gone", b"", "add");
        add(&mut field, Code::DELETE, "/stays", b"", "add");
        add(&mut field, Code::POST, "/other", b"\x03", "add");
        add(&mut field, Code::DELETE, "/stays", b"", "rm");
        add(&mut field, Code::DELETE, "/other", b"", "rm");
        let watcher = field.watcher("/");
        let before = field.world.wall();
        field.pass(Millis(100_000));
        assert_eq!(device.off(&mut field), Some(Code::CONTENT));
        let events = field.events(watcher);
        assert_eq!(events.len(), 4, "{events:?}");
        assert_eq!((&events[0][..], &events[3][..]), (r#"set="off""#, "gone=null"));
        assert!(events[1].starts_with("log/-") && events[1].ends_with("=1"), "{events:?}");
        assert!(events[1] < events[2], "in order");
        // "The server makes the key when it fires."
        let mut ids = crate::wire::rest::PushIds::default();
        let late = ids.next(crate::base::WallMillis(before.0 + 99_000), [0, 0]);
        assert!(events[1][4..] > late[..], "{events:?} {late}");
        assert_eq!(field.world.stats().held_places, 0);
    });
}

/// The path that is made when a last word is spoken may be another core's than that under which it was left.
#[test]
fn what_a_last_word_pushes_stands_where_it_is_looked_for() {
    for_shards(|shards| {
        let mut field = Field::new(shards);
        let watcher = field.watcher("/");
        for slot in 1..6 {
            let mut device = Device::up(&mut field, 0, slot);
            let ask = Ask { path: "/log", payload: b"\x01", dis: Some("add"), ..Ask::default() };
            assert_eq!(device.code(&mut field, Code::POST, &ask), Some(Code::CONTENT));
            assert_eq!(device.off(&mut field), Some(Code::CONTENT));
            let events = field.events(watcher);
            let [event] = &events[..] else { panic!("it is spoken once: {events:?}") };
            let path = format!("/{}", event.strip_suffix("=1").unwrap_or_else(|| panic!("{event}")));
            let mut reader = Device::up(&mut field, 1, slot + 10);
            assert_eq!(reader.get(&mut field, &path), b"\x01", "{path} with {shards} cores");
        }
        assert_eq!(field.world.stats().held_places, 0);
    });
}

#[test]
fn a_request_that_comes_again_is_answered_again_and_done_once() {
    for_shards(|shards| {
        let mut field = Field::new(shards);
        let mut device = Device::up(&mut field, 0, 1);
        let push = device.request(Code::POST, &Ask { path: "/list", payload: b"\x01", ..Ask::default() });
        let first = device.exchange(&mut field, &push).unwrap();
        field.pass(Millis(2_000));
        assert_eq!(device.exchange(&mut field, &push), Some(first.clone()));
        // After the session has another name the same packet comes with it.
        let old_name = device.name.clone();
        device.begin(&mut field, b"");
        device.ping(&mut field);
        let mut renamed = push.clone();
        let at = memchr::memmem::find(&renamed, &old_name).unwrap();
        renamed[at..at + 8].copy_from_slice(&device.name);
        assert_eq!(device.exchange(&mut field, &renamed), Some(first.clone()));
        // An older write that comes late changes nothing.
        let old = device.request(Code::PUT, &Ask { path: "/v", payload: b"\x01", ..Ask::default() });
        device.exchange(&mut field, &old);
        device.set(&mut field, "/v", b"\x02");
        field.pass(Millis(4_000));
        device.exchange(&mut field, &old);
        assert_eq!(device.get(&mut field, "/v"), b"\x02");
        // A device that has booted since then says the same again, and means it.
        field.pass(Millis(31_000));
        let other = device.exchange(&mut field, &renamed).unwrap();
        assert_ne!(other.payload, first.payload);
    });
}

#[test]
fn a_session_is_asked_for_twice_and_begins_once() {
    for_shards(|shards| {
        let mut field = Field::new(shards);
        let mut device = Device::new(0, 1);
        let begin = device.begin_bytes(b"");
        let first = device.exchange(&mut field, &begin).unwrap();
        assert_eq!(device.exchange(&mut field, &begin), Some(first));
        assert_eq!(field.world.session_count(), 1);
    });
}

#[test]
fn who_asks_again_from_its_address_keeps_its_last_words_and_gets_another_name() {
    for_shards(|shards| {
        let mut field = Field::new(shards);
        let mut device = Device::up(&mut field, 0, 1);
        device.last_word(&mut field, "/d", OFF);
        device.observe(&mut field, "/w");
        let old = device.clone();
        device.begin(&mut field, b"");
        assert_ne!((&old.name, &old.pass), (&device.name, &device.pass));
        assert_eq!(device.ping(&mut field), Some(Code::CONTENT));
        assert_eq!(field.world.session_count(), 1);
        let mut late = Device { counter: 900, ..old };
        // "An S superseded within the last ~60 s, from the same address."
        assert_eq!(late.set(&mut field, "/x", b"\x01"), Some(Code::CONTENT));
        field.pass(Millis(61_000));
        assert_eq!(late.set(&mut field, "/x", b"\x01"), Some(Code::UNAUTHORIZED));
        assert_eq!(late.returns(&mut field), Some(Code::BAD_REQUEST));
        assert_eq!(device.returns(&mut field), Some(Code::CONTENT));
        device.set(&mut field, "/w", b"\x07");
        assert_eq!(field.take(1).len(), 1, "it still listens");
        assert_eq!((field.ends(), device.off(&mut field)), (vec![], Some(Code::CONTENT)));
        assert_eq!(field.ends(), [(End::Closed, 1)]);
    });
}

#[test]
fn a_stranger_at_a_device_s_address_takes_nothing_from_it() {
    for_shards(|shards| {
        let mut field = Field::with_rules(shards, r#"{"rules":{".read":true,".write":"auth != null"}}"#);
        let token = token_of("dev-1");
        let mut device = Device::up(&mut field, 0, 1);
        device.begin(&mut field, token.as_bytes());
        assert_eq!(device.set(&mut field, "/x", b"\x01"), Some(Code::CONTENT), "its name is proof of its identity");
        device.last_word(&mut field, "/d", OFF);
        // Somebody pretends to be there, and cannot hear the answers: the first packet of a process, too.
        for counter in [500, 0, 700] {
            let mut forger = Device { counter, ..device.clone() };
            let bytes = forger.begin_bytes(b"");
            field.send(0, 1, &bytes);
        }
        field.take(1);
        assert_eq!(field.ends(), []);
        device.counter = 900;
        assert_eq!(device.set(&mut field, "/x", b"\x02"), Some(Code::CONTENT), "it still is who it was");
        // Resets and goodbyes that are made up.
        let (_, answer) = device.observe(&mut field, "/x");
        for id in [1, 2, 0x8001] {
            device.react(&mut field, Kind::Reset, &Heard { id: MessageId(id), ..answer.clone() });
        }
        let mut forger = Device { name: b"01234567".to_vec(), ..device.clone() };
        assert_eq!(forger.off(&mut field), Some(Code::UNAUTHORIZED));
        device.set(&mut field, "/x", b"\x03");
        assert_eq!((field.take(1).len(), field.ends()), (1, vec![]));
    });
}

#[test]
fn a_token_makes_somebody_and_a_bad_one_is_refused_once() {
    for_shards(|shards| {
        let mut field = Field::with_rules(shards, r#"{"rules":{".read":true,".write":"auth.uid === 'dev-1'"}}"#);
        let mut device = Device::up(&mut field, 0, 1);
        // Permission is never refused with 4.01.
        assert_eq!(device.set(&mut field, "/x", b"\x01"), Some(Code::FORBIDDEN));
        let bytes = device.begin_bytes(token_of("dev-1").as_bytes());
        let answer = device.exchange(&mut field, &bytes).unwrap();
        device.take_names(&answer);
        assert_eq!(device.set(&mut field, "/x", b"\x01"), Some(Code::CONTENT));
        let bytes = device.begin_bytes(b"no token");
        assert_eq!(device.exchange(&mut field, &bytes).map(|heard| heard.code), Some(Code::UNAUTHORIZED));
        assert_eq!(device.set(&mut field, "/x", b"\x02"), Some(Code::CONTENT), "nothing has changed");
        device.begin(&mut field, b"");
        assert_eq!(device.set(&mut field, "/x", b"\x03"), Some(Code::FORBIDDEN), "signed out");
        // 1.x sends a refused token again at line rate: silence slows it down.
        let answered = (0..100).filter(|_| {
            let bytes = device.begin_bytes(b"no token");
            device.exchange(&mut field, &bytes).is_some()
        });
        assert!(answered.count() <= 10);
    });
}

#[test]
fn what_began_sealed_is_never_spoken_for_in_the_clear() {
    for_shards(|shards| {
        let mut field = Field::new(shards);
        let watcher = field.watcher("/d");
        let mut device = Device::up(&mut field, 0, SEALED_PORTS);
        device.last_word(&mut field, "/d", OFF);
        device.observe(&mut field, "/w");
        let began = device.begin_bytes(b"");
        let answer = device.exchange(&mut field, &began).expect("an answer");
        device.take_names(&answer);
        assert_eq!(device.ping(&mut field), Some(Code::CONTENT));
        // Somebody who has read its names elsewhere, and is at its address, or not.
        for port in [SEALED_PORTS - 1, 1] {
            let mut stranger = Device { port, ..device.clone() };
            assert_eq!(stranger.ping(&mut field), Some(Code::UNAUTHORIZED));
            assert_eq!(stranger.set(&mut field, "/x", ON), Some(Code::UNAUTHORIZED));
            assert_eq!(stranger.off(&mut field), Some(Code::UNAUTHORIZED));
            assert_eq!(stranger.returns(&mut field), Some(Code::BAD_REQUEST));
        }
        // At its very address, in the clear.
        field.world.datagram(0, peer(SEALED_PORTS), &began);
        field.settle();
        let [other] = field.take(SEALED_PORTS).try_into().expect("one answer");
        assert_ne!(other.payload, answer.payload, "what was said in the tunnel is not said again outside");
        // In another tunnel, at another core, it goes on, and is told there.
        (device.port, device.shard) = (SEALED_PORTS + 1, 1);
        assert_eq!(device.set(&mut field, "/w", ON), Some(Code::CONTENT));
        let [told] = field.take(SEALED_PORTS + 1).try_into().expect("one notification");
        device.acknowledge(&mut field, &told);
        assert_eq!(told.payload, ON);
        assert_eq!(field.events(watcher), [""; 0]);
        field.pass(Millis(181_000));
        assert_eq!(field.events(watcher), ["d=\"off\""]);
    });
}

#[test]
fn a_session_that_began_in_the_clear_may_go_on_sealed() {
    for_shards(|shards| {
        let mut field = Field::new(shards);
        let mut device = Device::up(&mut field, 0, 1);
        (device.port, device.shard) = (SEALED_PORTS, 1);
        assert_eq!(device.ping(&mut field), Some(Code::UNAUTHORIZED));
        assert_eq!(device.returns(&mut field), Some(Code::CONTENT));
        assert_eq!(device.ping(&mut field), Some(Code::CONTENT));
        device.port = 1;
        assert_eq!(device.ping(&mut field), Some(Code::UNAUTHORIZED), "there is no way back");
    });
}

#[test]
fn a_device_that_changes_its_address_is_found_again() {
    for_shards(|shards| {
        let mut field = Field::new(shards);
        let mut device = Device::up(&mut field, 0, 1);
        device.last_word(&mut field, "/d", OFF);
        device.observe(&mut field, "/w");
        // Its socket is another one now, and the kernel gives its packets to another core.
        (device.port, device.shard) = (2, 1);
        assert_eq!(device.ping(&mut field), Some(Code::UNAUTHORIZED), "it is to return with its pass");
        let mut writer = Device::up(&mut field, 0, 9);
        writer.set(&mut field, "/w", b"\x01");
        let lost = field.take(1);
        assert_eq!(lost.len(), 1, "it is told where it was");
        assert_eq!(device.returns(&mut field), Some(Code::CONTENT));
        let told = field.take(2);
        assert_eq!(told.len(), 1, "what was not acknowledged is told again: {told:?}");
        assert_eq!(told[0].payload, b"\x01");
        device.acknowledge(&mut field, &told[0]);
        assert_eq!(device.ping(&mut field), Some(Code::CONTENT));
        // A write from a third address is enough.
        (device.port, device.shard) = (3, 2);
        assert_eq!(device.set(&mut field, "/x", b"\x01"), Some(Code::CONTENT));
        writer.set(&mut field, "/w", b"\x02");
        let told = field.take(3);
        assert_eq!(told.iter().map(|heard| &heard.payload[..]).collect::<Vec<_>>(), [b"\x02"]);
        device.acknowledge(&mut field, &told[0]);
        // Without a name, too: the core that it is met on knows where it lives.
        device.begin(&mut field, b"");
        assert_eq!((device.ping(&mut field), field.world.session_count()), (Some(Code::CONTENT), 2));
        field.pass(Millis(60_000));
        assert_eq!(field.take(1).len() + field.take(2).len() + field.take(3).len(), 0, "nobody is told twice");
        assert_eq!((field.ends(), device.off(&mut field)), (vec![], Some(Code::CONTENT)));
    });
}

#[test]
fn a_goodbye_that_comes_again_under_a_newer_name_is_no_goodbye() {
    for_shards(|shards| {
        let mut field = Field::new(shards);
        let mut device = Device::up(&mut field, 0, 1);
        let old_name = device.name.clone();
        let off = device.request(Code::GET, &Ask { path: "/.off", ..Ask::default() });
        assert!(device.exchange(&mut field, &off).is_some());
        assert!(device.exchange(&mut field, &off).is_some(), "answered again");
        assert_eq!(field.ends(), [(End::Closed, 0)]);
        field.pass(Millis(600_000));
        device.begin(&mut field, b"");
        let mut again = off.clone();
        let at = memchr::memmem::find(&again, &old_name).unwrap();
        again[at..at + 8].copy_from_slice(&device.name);
        assert_eq!(device.exchange(&mut field, &again).map(|heard| heard.code), Some(Code::CONTENT));
        assert_eq!((field.world.session_count(), field.ends()), (1, vec![]));
        assert_eq!(device.ping(&mut field), Some(Code::CONTENT));
        assert_eq!(device.off(&mut field), Some(Code::CONTENT));
        assert_eq!(field.ends(), [(End::Closed, 0)]);
    });
}

#[test]
fn a_device_that_boots_at_the_same_address_begins_anew() {
    for_shards(|shards| {
        let mut field = Field::new(shards);
        let watcher = field.watcher("/");
        let mut device = Device::up(&mut field, 0, 1);
        device.last_word(&mut field, "/d", OFF);
        device.observe(&mut field, "/w");
        field.pass(Millis(40_000));
        let mut booted = Device::up(&mut field, 0, 1);
        assert_eq!(field.events(watcher), [r#"d="off""#]);
        booted.set(&mut field, "/w", b"\x01");
        assert_eq!(field.take(1), [], "it has not asked to listen");
        assert_eq!((booted.returns(&mut field), field.world.session_count()), (Some(Code::CONTENT), 2));
        booted.last_word(&mut field, "/d", ON);
        field.pass(Millis(181_000));
        assert_eq!(field.events(watcher), ["w=1", r#"d="on""#]);
    });
}

#[test]
fn observers_are_told_the_whole_value_in_order_until_they_have_it() {
    for_shards(|shards| {
        let mut field = Field::new(shards);
        let mut device = Device::up(&mut field, 0, 1);
        let mut writer = Device::up(&mut field, 1, 9);
        let (_, answer) = device.observe(&mut field, "/w");
        assert_eq!((answer.code, answer.observe, &answer.payload[..]), (Code::CONTENT, Some(1), &b"\xf6"[..]));
        writer.set(&mut field, "/w/a", b"\x18\x2a");
        let told = field.take(1);
        assert_eq!((told[0].kind, told[0].observe, &told[0].token), (Kind::Confirmable, Some(2), &answer.token));
        assert_eq!(told[0].payload, b"\xa1\x61a\x18\x2a", "never a part");
        // One at a time, and only the last of what happens meanwhile.
        writer.set(&mut field, "/w/a", b"\x01");
        writer.set(&mut field, "/w/b", b"\x02");
        assert_eq!((told.len(), field.take(1).len()), (1, 0));
        device.acknowledge(&mut field, &told[0]);
        let told = field.take(1);
        assert_eq!((told.len(), &told[0].payload[..]), (1, &b"\xa2\x61a\x01\x61b\x02"[..]));
        assert_eq!(told[0].observe, Some(3));
        device.acknowledge(&mut field, &told[0]);
        writer.code(&mut field, Code::DELETE, &Ask { path: "/w", ..Ask::default() });
        let told = field.take(1);
        assert_eq!(told[0].payload, b"\xf6");
        // It has forgotten the registration.
        device.react(&mut field, Kind::Reset, &told[0]);
        writer.set(&mut field, "/w", b"\x01");
        field.pass(Millis(100_000));
        assert_eq!(field.take(1), []);
        assert_eq!(field.world.stats().listens, 0);
    });
}

#[test]
fn a_notification_is_repeated_with_pauses_that_double_and_then_waits_for_a_sign_of_life() {
    for_shards(|shards| {
        let mut field = Field::new(shards);
        let mut device = Device::up(&mut field, 0, 1);
        device.observe(&mut field, "/w");
        let mut writer = Device::up(&mut field, 1, 9);
        writer.set(&mut field, "/w", b"\x01");
        let first = field.take(1);
        assert_eq!(first.len(), 1);
        let mut times_ms = Vec::new();
        for tenth in 1..=1_500_u64 {
            field.pass(Millis(100));
            for told in field.take(1) {
                assert_eq!(told, first[0], "the same message");
                times_ms.push(tenth * 100);
            }
        }
        assert_eq!(times_ms.len(), 4, "{times_ms:?}");
        assert!((2_000..=3_100).contains(&times_ms[0]), "{times_ms:?}");
        for pair in times_ms.windows(2) {
            assert!((19 * pair[0]..=31 * pair[0]).contains(&(10 * pair[1])), "{times_ms:?}");
        }
        // The value has changed meanwhile; the device wakes up.
        writer.set(&mut field, "/w", b"\x02");
        assert_eq!(field.take(1), []);
        assert_eq!(device.ping(&mut field), Some(Code::CONTENT));
        let told = field.take(1);
        assert_eq!(told.iter().map(|heard| &heard.payload[..]).collect::<Vec<_>>(), [b"\x02"]);
        assert!(told[0].observe > first[0].observe);
    });
}

#[test]
fn a_changed_value_replaces_the_one_that_is_repeated() {
    let mut field = Field::new(1);
    let device = Device::up(&mut field, 0, 1).clone();
    let mut observer = device;
    observer.observe(&mut field, "/w");
    let mut writer = Device::up(&mut field, 0, 9);
    writer.set(&mut field, "/w", b"\x01");
    let first = field.take(1).remove(0);
    writer.set(&mut field, "/w", b"\x02");
    field.pass(Millis(3_100));
    let second = field.take(1).remove(0);
    assert_eq!((&second.payload[..], second.observe), (&b"\x02"[..], Some(3)));
    assert_ne!(second.id, first.id);
    observer.acknowledge(&mut field, &second);
    field.pass(Millis(100_000));
    assert_eq!(field.take(1), []);
}

#[test]
fn the_storm_of_an_old_observer_is_met_with_silence() {
    for_shards(|shards| {
        let mut field = Field::new(shards);
        let mut device = Device::up(&mut field, 0, 1);
        let (registration, answer) = device.observe(&mut field, "/w");
        assert_eq!(device.exchange(&mut field, &registration), None, "that was no retransmission");
        field.pass(Millis(2_000));
        assert_eq!(device.exchange(&mut field, &registration), Some(answer.clone()), "that was one");
        field.pass(Millis(4_000));
        assert!(device.exchange(&mut field, &registration).is_some());
        let answered = (0..1_000).filter(|_| {
            field.pass(Millis(20));
            device.exchange(&mut field, &registration).is_some()
        });
        assert!(answered.count() <= 1);
        assert_eq!(field.world.stats().listens, 1);
        // Under its new name it registers anew, and its numbers go on.
        device.begin(&mut field, b"");
        let mut renewed = registration.clone();
        let at = memchr::memmem::find(&renewed, b".cs=").unwrap();
        renewed[at + 4..at + 12].copy_from_slice(&device.name);
        let again = device.exchange(&mut field, &renewed).unwrap();
        assert!((again.code, again.observe) == (Code::CONTENT, Some(2)), "{again:?}");
        assert_eq!(field.world.stats().listens, 1);
    });
}

#[test]
fn listening_ends_by_another_token_and_says_no_order() {
    for_shards(|shards| {
        let mut field = Field::new(shards);
        let mut device = Device::up(&mut field, 0, 1);
        device.observe(&mut field, "/w");
        device.observe(&mut field, "/v");
        let ask = Ask { path: "/w", observe: Some(1), ..Ask::default() };
        let answer = device.ask(&mut field, Code::GET, &ask).unwrap();
        assert_eq!((answer.code, answer.observe, answer.payload.len()), (Code::CONTENT, None, 0));
        device.set(&mut field, "/w", b"\x01");
        assert_eq!((field.take(1), field.world.stats().listens), (vec![], 1));
        device.set(&mut field, "/v", b"\x01");
        assert_eq!(field.take(1).len(), 1);
    });
}

#[test]
fn what_does_not_fit_is_too_large_and_ends_a_registration() {
    for_shards(|shards| {
        let mut field = Field::new(shards);
        let mut device = Device::up(&mut field, 0, 1);
        device.observe(&mut field, "/big");
        let text = |length: usize| {
            let mut value = Vec::new();
            cbor::write(&mut value, &crate::data::Node::text(&"x".repeat(length)), 4_000).unwrap();
            value
        };
        assert_eq!(device.set(&mut field, "/big/a", &text(1_100)), Some(Code::CONTENT));
        let told = field.take_bytes(1).remove(0);
        assert!(told.len() <= 1_250 && Heard::read(&told).code == Code::CONTENT);
        device.acknowledge(&mut field, &Heard::read(&told));
        assert_eq!(device.set(&mut field, "/big/b", &text(1_100)), Some(Code::CONTENT));
        let told = field.take(1).remove(0);
        assert_eq!((told.code, told.observe), (Code::TOO_LARGE, None));
        device.acknowledge(&mut field, &told);
        assert_eq!(field.world.stats().listens, 0);
        let answer = device.ask(&mut field, Code::GET, &Ask { path: "/big", ..Ask::default() }).unwrap();
        assert_eq!(answer.code, Code::TOO_LARGE);
        let (_, answer) = device.observe(&mut field, "/big");
        assert_eq!((answer.code, answer.observe, field.world.stats().listens), (Code::TOO_LARGE, None, 0));
        // Exactly as much as may be.
        device.set(&mut field, "/edge", &text(1_238));
        let answer = device.request(Code::GET, &Ask { path: "/edge", ..Ask::default() });
        field.send(0, 1, &answer);
        assert_eq!(field.take_bytes(1).iter().map(Vec::len).collect::<Vec<_>>(), [1_250]);
    });
}

#[test]
fn rules_that_no_longer_allow_it_end_a_registration() {
    let mut field =
        Field::with_rules(1, r#"{"rules":{".write":true,"w":{".read":"data.child('open').val() === true"}}}"#);
    let mut device = Device::up(&mut field, 0, 1);
    assert_eq!(device.observe(&mut field, "/w").1.code, Code::FORBIDDEN);
    device.set(&mut field, "/w/open", b"\xf5");
    assert_eq!(device.observe(&mut field, "/w").1.code, Code::CONTENT);
    device.set(&mut field, "/w/open", b"\xf4");
    let told = field.take(1).remove(0);
    assert_eq!((told.kind, told.code, told.observe), (Kind::Confirmable, Code::FORBIDDEN, None));
    device.acknowledge(&mut field, &told);
    assert_eq!(device.code(&mut field, Code::GET, &Ask { path: "/x", ..Ask::default() }), Some(Code::FORBIDDEN));
    let ask = Ask { path: "/x", payload: b"\x01", dis: Some("add"), ..Ask::default() };
    assert_eq!(device.code(&mut field, Code::PUT, &ask), Some(Code::CONTENT));
}

#[test]
fn last_words_before_the_name_is_known_are_left_all_the_same() {
    for_shards(|shards| {
        let mut field = Field::new(shards);
        let mut device = Device::new(0, 1);
        let ask = Ask { path: "/d", payload: OFF, dis: Some("add"), ..Ask::default() };
        assert_eq!(device.code(&mut field, Code::PUT, &ask), Some(Code::UNAUTHORIZED));
        device.begin(&mut field, b"");
        let name = std::mem::replace(&mut device.name, b"00000000".to_vec());
        assert_eq!(device.code(&mut field, Code::PUT, &ask), Some(Code::CONTENT));
        device.name = name;
        assert_eq!(device.off(&mut field), Some(Code::CONTENT));
        assert_eq!(field.ends(), [(End::Closed, 1)]);
    });
}

#[test]
fn the_oldest_versions_are_served() {
    for_shards(|shards| {
        let mut field = Field::new(shards);
        let mut device = Device { is_old: true, ..Device::new(0, 1) };
        device.begin(&mut field, b"");
        device.name = b"A2617368".to_vec();
        assert_eq!(device.set(&mut field, "/v", b"\x19\x01\x2c"), Some(Code::CONTENT));
        device.last_word(&mut field, "/d", OFF);
        for count in 0..3_u8 {
            field.pass(Millis(600_000));
            let query = format!("seq={count:02}").into_bytes();
            let bytes = device.write(Code::GET, &Ask { path: "/.ping", ..Ask::default() }, &[query]);
            let answer = device.exchange(&mut field, &bytes).unwrap();
            assert_eq!((answer.code, answer.payload), (Code::CONTENT, vec![count + 1]));
        }
        assert_eq!(field.ends(), []);
        let mut empty = Vec::new();
        Writer::new(&mut empty, Kind::Confirmable, Code::EMPTY, MessageId(7), Token::new(b"abcd")).done();
        field.send(0, 1, &empty);
        assert_eq!(field.take_bytes(1), [unhex("70000007")]);
        field.pass(Millis(661_000));
        assert_eq!(field.ends(), [(End::TimedOut, 1)]);
    });
}

#[test]
fn devices_that_say_the_same_after_boot_are_told_apart() {
    for_shards(|shards| {
        let mut field = Field::new(shards);
        let mut devices: Vec<Device> =
            (0..20).map(|number| Device::up(&mut field, usize::from(number), 100 + number)).collect();
        for (number, device) in (0..).zip(&mut devices) {
            assert_eq!(device.set(&mut field, &format!("/d/{number}"), &[number]), Some(Code::CONTENT));
            device.observe(&mut field, "/w");
        }
        assert_eq!((field.world.session_count(), field.world.stats().listens), (20, 20));
        for (number, device) in (0..).zip(&mut devices) {
            assert_eq!(device.get(&mut field, &format!("/d/{number}")), [number]);
        }
    });
}

#[test]
fn storms_are_slowed_down_by_silence_and_codes_that_make_them_are_not_said() {
    for_shards(|shards| {
        let mut field = Field::new(shards);
        let mut device = Device::up(&mut field, 0, 1);
        let answers: Vec<Code> = (0..100).filter_map(|_| device.ping(&mut field)).collect();
        assert!((5..=10).contains(&answers.len()) && answers.iter().all(|code| *code == Code::CONTENT));
        let answers = (0..100).filter(|_| device.returns(&mut field).is_some()).count();
        assert!(answers <= 10, "{answers}");
        field.pass(Millis(10_000));
        let mut lost = Device { name: b"01234567".to_vec(), ..device.clone() };
        let answers: Vec<Code> = (0..100).filter_map(|_| lost.set(&mut field, "/x", b"\x01")).collect();
        assert!(answers.len() <= 10 && answers.iter().all(|code| *code == Code::UNAUTHORIZED));
        let begun = (0..100).filter(|_| {
            let bytes = lost.begin_bytes(b"");
            lost.exchange(&mut field, &bytes).is_some()
        });
        assert!(begun.count() <= 10);
        field.pass(Millis(10_000));
        assert_eq!(device.ping(&mut field), Some(Code::CONTENT), "and then it goes on");
    });
}

#[test]
fn a_closed_server_says_so_in_words_that_do_not_storm() {
    let settings = Arc::new(Settings::default());
    let auth = AuthConfig { is_dev: true, ..AuthConfig::default() };
    let verifier = Arc::new(Verifier::new(auth).unwrap());
    let rules = Arc::new(Ruleset::open());
    let world = World::of_namespaces(1, 9, &settings, &BTreeMap::new(), &rules, &verifier);
    let mut field = Field { shards: 1, world, heard: BTreeMap::new() };
    let mut device = Device::up(&mut field, 0, 1);
    device.last_word(&mut field, "/d", OFF);
    field.world.input_all(|| crate::engine::Input::Drain);
    field.settle();
    assert_eq!(field.ends(), [(End::ServerStopped, 1)]);
    let bytes = device.begin_bytes(b"");
    assert_eq!(device.exchange(&mut field, &bytes).map(|heard| heard.code), Some(Code::INTERNAL_ERROR));
    assert_eq!(device.ping(&mut field), None, "whoever follows is asked again");
}

fn plain(code: Code, options: &[(u32, &[u8])], payload: &[u8], id: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    let writer = Writer::new(&mut bytes, Kind::Confirmable, code, MessageId(id), Token::new(b"t"));
    options.iter().fold(writer, |writer, (number, value)| writer.option(*number, value)).payload(payload);
    bytes
}

mod lives;
mod restarts;

#[test]
fn plain_clients_read_write_and_listen_in_json() {
    use option::{LOCATION_PATH, OBSERVE, URI_PATH, URI_QUERY};
    for_shards(|shards| {
        let mut field = Field::new(shards);
        let ns: (u32, &[u8]) = (URI_QUERY, b"ns=myapp");
        let at: (u32, &[u8]) = (URI_PATH, b"p");
        let say = |field: &mut Field, bytes: &[u8]| {
            field.send(0, 5, bytes);
            field.take(5)
        };
        let put = say(&mut field, &plain(Code::PUT, &[at, ns], br#"{"a":[1,-2.5]}"#, 1));
        assert_eq!(put.iter().map(|heard| heard.code).collect::<Vec<_>>(), [Code::CHANGED]);
        let got = say(&mut field, &plain(Code::GET, &[at, ns], b"", 2));
        assert_eq!(got[0].payload, br#"{"a":[1,-2.5]}"#);
        let got = say(&mut field, &plain(Code::GET, &[at, ns, (option::ACCEPT, b"\x3c")], b"", 3));
        assert_eq!(got[0].payload, unhex("a16161a26130016131fbc004000000000000"));
        let made = plain(Code::POST, &[at, ns], b"7", 4);
        field.send(0, 5, &made);
        let bytes = field.take_bytes(5).remove(0);
        let message = Message::read(&bytes).unwrap();
        let places: Vec<_> = message.options().filter(|(number, _)| *number == LOCATION_PATH).collect();
        assert_eq!((message.code, places.len(), places[0].1), (Code::CREATED, 2, &b"p"[..]));
        assert_eq!(say(&mut field, &plain(Code::PUT, &[at, ns], b"{", 5))[0].code, Code::BAD_REQUEST);
        assert_eq!(say(&mut field, &plain(Code::DELETE, &[at, ns], b"", 6))[0].code, Code::DELETED);
        let told = say(&mut field, &plain(Code::GET, &[(OBSERVE, b""), at, ns], b"", 7));
        assert_eq!((&told[0].payload[..], told[0].observe), (&b"null"[..], Some(1)));
        assert_eq!(say(&mut field, &plain(Code::PUT, &[at, ns], b"\"on\"", 8)).len(), 2);
        assert_eq!(say(&mut field, &plain(Code::GET, &[at], b"", 9))[0].code, Code::BAD_REQUEST, "which database?");
    });
}

#[test]
fn plain_listeners_are_asked_for_signs_of_life_and_forgotten_without() {
    use option::{OBSERVE, URI_PATH, URI_QUERY};
    let mut field = Field::new(1);
    let observe = plain(Code::GET, &[(OBSERVE, b""), (URI_PATH, b"p"), (URI_QUERY, b"ns=myapp")], b"", 1);
    field.send(0, 5, &observe);
    assert_eq!(field.take(5).len(), 1);
    let mut questions = 0;
    for _ in 0..600 {
        field.pass(SECOND);
        for heard in field.take(5) {
            assert_eq!((heard.kind, heard.code), (Kind::Confirmable, Code::EMPTY));
            questions += 1;
            Device::new(0, 5).react(&mut field, Kind::Reset, &heard);
        }
    }
    assert!((12..=15).contains(&questions), "{questions}");
    assert_eq!(field.world.stats().listens, 1);
    field.pass(Millis(181_000));
    assert!(field.take(5).len() <= 4);
    assert_eq!((field.world.stats().listens, field.world.session_count()), (0, 0));
    // Who only asks is forgotten soon.
    field.send(0, 6, &plain(Code::GET, &[(URI_PATH, b"p"), (URI_QUERY, b"ns=myapp")], b"", 1));
    field.pass(Millis(20_100));
    assert_eq!(field.world.session_count(), 0);
}

/// What an address is sent that has never answered, for what came from there.
#[test]
fn an_unknown_peer_gets_at_most_three_times_what_it_sent() {
    use option::{OBSERVE, URI_HOST, URI_PATH, URI_QUERY};
    for_shards(|shards| {
        let mut field = Field::new(shards);
        let mut writer = Device::up(&mut field, 0, 9);
        let mut value = Vec::new();
        cbor::write(&mut value, &crate::data::Node::text(&"x".repeat(1_000)), 2_000).unwrap();
        writer.set(&mut field, "/big", &value);
        let host: (u32, &[u8]) = (URI_HOST, b"m");
        let ns: (u32, &[u8]) = (URI_QUERY, b"ns=myapp");
        let big: (u32, &[u8]) = (URI_PATH, b"big");
        let packets = [
            plain(Code::GET, &[big, ns], b"", 1),
            plain(Code::GET, &[(OBSERVE, b""), big, ns], b"", 2),
            plain(Code::GET, &[(OBSERVE, b""), (URI_PATH, b"small"), ns], b"", 3),
            plain(Code::POST, &[host, (URI_PATH, b".cs")], b"", 4),
            plain(Code::POST, &[host, (URI_PATH, b".cs")], b"not a token", 5),
            plain(Code::GET, &[host, (URI_PATH, b".ping")], b"", 6),
            plain(Code::EMPTY, &[], b"", 7),
            vec![0x4f, 1, 2, 3],
            plain(Code(0x45), &[], b"", 8),
        ];
        for (port, packet) in (200..).zip(&packets) {
            for _ in 0..20 {
                field.send(0, port, packet);
            }
            for round in 0..30_u8 {
                writer.set(&mut field, "/small", &[round % 20]);
                field.pass(Millis(5_000));
            }
            let sent: usize = field.take_bytes(port).iter().map(Vec::len).sum();
            assert!(sent <= 3 * 20 * packet.len(), "{sent} bytes for 20 times {packet:02x?}");
        }
    });
}

/// Whoever knows a session's name could send in the name of any address.
#[test]
fn an_address_that_a_device_has_moved_to_proves_itself_first() {
    for_shards(|shards| {
        let mut field = Field::new(shards);
        let mut device = Device::up(&mut field, 0, 1);
        let mut value = Vec::new();
        cbor::write(&mut value, &crate::data::Node::text(&"x".repeat(1_000)), 2_000).unwrap();
        device.set(&mut field, "/big", &value);
        device.observe(&mut field, "/big");
        field.take(1);
        (device.port, device.shard) = (2, 1);
        let request = device.request(Code::GET, &Ask { path: "/big", ..Ask::default() });
        field.send(1, 2, &request);
        let mut sent = field.take_bytes(2);
        device.set(&mut field, "/other", b"\x01");
        let mut writer = Device::up(&mut field, 0, 9);
        writer.code(&mut field, Code::DELETE, &Ask { path: "/big", ..Ask::default() });
        writer.set(&mut field, "/big", &value);
        field.pass(Millis(60_000));
        sent.extend(field.take_bytes(2));
        let bytes: usize = sent.iter().map(Vec::len).sum();
        assert!(bytes <= 3 * 2 * request.len(), "{bytes} bytes for two requests");
        // Nobody moves on to a third address so that answers to the second are sent unseen.
        let request = device.request(Code::GET, &Ask { path: "/big", ..Ask::default() });
        field.world.datagram(1, peer(3), &request);
        field.world.datagram(1, peer(4), &device.request(Code::GET, &Ask { path: "/none", ..Ask::default() }));
        field.settle();
        let sent: usize = field.take_bytes(3).iter().map(Vec::len).sum();
        assert!(sent <= 3 * request.len(), "{sent}");
        device.port = 4;
        let asked =
            field.take(4).into_iter().find(|heard| heard.code == Code::EMPTY && heard.kind == Kind::Confirmable);
        if let Some(asked) = asked {
            device.react(&mut field, Kind::Reset, &asked);
        }
        assert_eq!(device.ping(&mut field), Some(Code::CONTENT));
    });
}

#[test]
fn a_large_answer_to_a_new_peer_comes_once_it_has_shown_that_it_is_there() {
    use option::{URI_PATH, URI_QUERY};
    let mut field = Field::new(1);
    let mut writer = Device::up(&mut field, 0, 9);
    let mut value = Vec::new();
    cbor::write(&mut value, &crate::data::Node::text(&"x".repeat(1_000)), 2_000).unwrap();
    writer.set(&mut field, "/big", &value);
    field.send(0, 5, &plain(Code::GET, &[(URI_PATH, b"big"), (URI_QUERY, b"ns=myapp")], b"", 1));
    let question = field.take(5);
    assert_eq!((question.len(), question[0].code, question[0].kind), (1, Code::EMPTY, Kind::Confirmable));
    Device::new(0, 5).react(
        &mut field,
        Kind::Reset,
        &Heard { id: MessageId(question[0].id.0 ^ 1), ..question[0].clone() },
    );
    assert_eq!(field.take(5), [], "a guess is no proof");
    Device::new(0, 5).react(&mut field, Kind::Reset, &question[0]);
    assert_eq!(field.take(5).iter().map(|heard| heard.payload.len()).collect::<Vec<_>>(), [1_002]);
}

#[test]
fn bodies_come_and_go_in_blocks() {
    for_shards(|shards| {
        let mut field = Field::new(shards);
        let port = SEALED_PORTS;
        let mut id = 0x1000;
        let mut ask = |field: &mut Field, code, block: Option<(u32, u32)>, payload: &[u8]| {
            id += 1;
            let value = block.map(|(_, value)| value.to_be_bytes()).unwrap_or_default();
            let mut options = vec![(option::URI_HOST, &b"myapp"[..]), (option::URI_PATH, b"big")];
            options.extend(block.map(|(number, _)| (number, &value[1..])));
            field.send(0, port, &plain(code, &options, payload, id));
            let bytes = field.take_bytes(port).pop().expect("an answer");
            let message = Message::read(&bytes).unwrap();
            (message.code, message.block1(), message.block2(), message.payload.to_vec())
        };
        let text = format!("\"{}\"", "0123456789abcdef".repeat(200));
        let parts: Vec<&[u8]> = text.as_bytes().chunks(1_024).collect();
        let value = |number: usize, is_more: bool| u32::try_from(number << 4 | usize::from(is_more) << 3 | 6).unwrap();
        let put = |number: usize| Some((option::BLOCK1, value(number, number + 1 < parts.len())));
        // One is missing.
        assert_eq!(ask(&mut field, Code::PUT, put(0), parts[0]).0, Code::CONTINUE);
        assert_eq!(ask(&mut field, Code::PUT, put(2), parts[2]).0, Code::INCOMPLETE);
        assert_eq!(ask(&mut field, Code::PUT, put(1), &parts[1][..9]).0, Code::BAD_REQUEST);
        // Each once more, under another id.
        for number in [0, 0, 1, 1, 0, 2, 2] {
            assert_eq!(ask(&mut field, Code::PUT, put(number), parts[number]).0, Code::CONTINUE);
        }
        let (code, block, ..) = ask(&mut field, Code::PUT, put(3), parts[3]);
        assert_eq!((code, block.map(|block| (block.number, block.is_more))), (Code::CHANGED, Some((3, false))));
        assert_eq!(ask(&mut field, Code::PUT, put(3), parts[3]).0, Code::INCOMPLETE, "it is done");
        // Back it comes, also when it changes in between, also once more.
        let mut fetched = Vec::new();
        for number in [0, 1, 2, 3] {
            let wanted = (number > 0).then(|| (option::BLOCK2, value(number, false)));
            let (code, _, block, part) = ask(&mut field, Code::GET, wanted, b"");
            assert_eq!(
                (code, block.map(|block| (block.number as usize, block.is_more))),
                (Code::CONTENT, Some((number, number < 3)))
            );
            fetched.extend(part);
        }
        assert_eq!(fetched, text.as_bytes());
        let last = Some((option::BLOCK2, value(3, false)));
        assert_eq!(ask(&mut field, Code::GET, last, b"").3, parts[3], "it is read anew");
        assert_eq!(ask(&mut field, Code::GET, Some((option::BLOCK2, value(4, false))), b"").0, Code::BAD_REQUEST);
        assert_eq!(ask(&mut field, Code::GET, Some((option::BLOCK2, 7)), b"").0, Code::BAD_OPTION);
        // More than may be kept.
        let far = u32::try_from(DEVICE_BODY_BYTES_MAX / 1_024).unwrap();
        assert_eq!(ask(&mut field, Code::PUT, Some((option::BLOCK1, far << 4 | 14)), parts[0]).0, Code::TOO_LARGE);
        // Half of one stays behind, and goes with its session.
        assert_eq!(ask(&mut field, Code::PUT, put(0), parts[0]).0, Code::CONTINUE);
        assert_eq!(ask(&mut field, Code::GET, None, b"").0, Code::CONTENT);
        assert_eq!(field.world.device_bodies_bytes(), 1_024 + text.len());
        field.pass(Millis(60_000));
        assert_eq!((field.world.session_count(), field.world.device_bodies_bytes()), (0, 0));
    });
}

#[test]
fn who_guesses_from_many_addresses_of_one_network_is_one_guesser() {
    let guess = |field: &mut Field, ip: std::net::IpAddr, number: u16| {
        let name = format!(".cs=0{number:07}");
        let options: [(u32, &[u8]); 2] = [(option::URI_PATH, b"x"), (option::URI_QUERY, name.as_bytes())];
        let remote = SocketAddr::new(ip, 1_000 + number);
        let peer = Peer { remote, ..peer(1) };
        field.world.datagram(0, peer, &plain(Code::GET, &options, b"", number));
        field.world.settle();
        usize::from(!field.world.take_datagrams().is_empty())
    };
    let network: u128 = 0x2001_0db8_0000_0001 << 64;
    let check = |address: &dyn Fn(u16) -> std::net::IpAddr, expected: usize| {
        let mut field = Field::new(1);
        let answered: usize = (0..400).map(|number| guess(&mut field, address(number), number)).sum();
        assert_eq!(answered, expected);
    };
    check(&|_| Ipv4Addr::new(192, 0, 2, 7).into(), 256);
    check(&|number| std::net::Ipv6Addr::from_bits(network + u128::from(number)).into(), 256);
    check(&|number| std::net::Ipv6Addr::from_bits(network + (u128::from(number) << 64)).into(), 400);
}
