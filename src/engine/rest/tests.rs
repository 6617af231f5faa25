use super::*;
use crate::auth::{AuthConfig, Verifier};
use crate::engine::{Durability, Hangup, Input};
use crate::sim::{Client, WALL_START_MS, World};

/// A world under these rules.
fn world(shards: u8, rules: &str) -> World {
    let rules = Arc::new(Ruleset::parse(rules, Dialect::Both).expect("the test's rules are right"));
    World::with(shards, 77, &Arc::new(Settings::default()), &rules)
}

const OPEN: &str = r#"{"rules":{".read":true,".write":true}}"#;

fn for_shards(story: impl Fn(u8)) {
    (1..=3).for_each(story);
}

/// A response in pieces.
#[derive(Debug)]
struct Response {
    status: u16,
    head: String,
    body: String,
}

impl Response {
    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// Takes the responses apart that have arrived.
#[track_caller]
fn responses(mut bytes: &[u8]) -> Vec<Response> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let end = bytes.windows(4).position(|end| end == b"\r\n\r\n").expect("a whole head") + 4;
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        bytes = &bytes[end..];
        let status: u16 = head[9..12].parse().unwrap();
        let mut response = Response { status, head, body: String::new() };
        let mut body = Vec::new();
        if response.header("transfer-encoding") == Some("chunked") {
            loop {
                let end = bytes.iter().position(|byte| *byte == b'\n').expect("a chunk's size");
                let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end - 1]).unwrap(), 16).unwrap();
                body.extend_from_slice(&bytes[end + 1..end + 1 + size]);
                bytes = &bytes[end + 1 + size + 2..];
                if size == 0 {
                    break;
                }
            }
        } else if let Some(length) = response.header("content-length") {
            let length: usize = length.parse().unwrap();
            body.extend_from_slice(&bytes[..length]);
            bytes = &bytes[length..];
        } else if status == 200 {
            body.extend_from_slice(bytes);
            bytes = b"";
        }
        response.body = String::from_utf8_lossy(&body).into_owned();
        found.push(response);
    }
    found
}

fn text(method: &str, target: &str, headers: &str, body: &str) -> String {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    format!("{method} {target} HTTP/1.1\r\nHost: db.sim.example\r\n{headers}{length}\r\n{body}")
}

#[track_caller]
fn ask(world: &mut World, client: Client, method: &str, target: &str, headers: &str, body: &str) -> Response {
    world.send_bytes(client, text(method, target, headers, body).as_bytes());
    world.settle();
    let bytes = world.take_bytes(client);
    let mut all = responses(&bytes);
    assert_eq!(all.len(), 1, "{method} {target}: {}", String::from_utf8_lossy(&bytes));
    all.remove(0)
}

/// One request and what its answer must be.
#[track_caller]
fn check(world: &mut World, client: Client, request: &str, body: &str, status: u16, expected: &str) {
    let (method, target) = request.split_once(' ').unwrap();
    let response = ask(world, client, method, target, "", body);
    assert_eq!((response.status, response.body.as_str()), (status, expected), "{request}");
}

#[test]
fn every_method_does_what_it_is_for() {
    for_shards(|shards| {
        let mut world = world(shards, OPEN);
        let client = world.dial(1);
        let c = |world: &mut World, request: &str, body: &str, status, expected: &str| {
            check(world, client, request, body, status, expected);
        };
        c(&mut world, "GET /a.json", "", 200, "null");
        c(&mut world, "PUT /a.json", r#"{"x":1,"y":{"z":[true,"s"]}}"#, 200, r#"{"x":1,"y":{"z":[true,"s"]}}"#);
        c(&mut world, "GET /a/y/z/1.json", "", 200, r#""s""#);
        c(&mut world, "PATCH /a.json", r#"{"x":null,"y/w":2.5}"#, 200, r#"{"x":null,"y/w":2.5}"#);
        c(&mut world, "GET /a.json", "", 200, r#"{"y":{"w":2.5,"z":[true,"s"]}}"#);
        c(&mut world, "GET /.json?shallow=true", "", 200, r#"{"a":true}"#);
        c(&mut world, "GET /a/y.json?count=true", "", 200, "2");
        c(&mut world, "DELETE /a/y/z.json", "", 200, "null");
        c(&mut world, "POST /a/y.json?x-http-method-override=put", "7", 200, "7");
        c(&mut world, "GET /a.json?print=pretty", "", 200, "{\n  \"y\": 7\n}");
        c(&mut world, "PUT /a.json?print=silent", "1", 204, "");
        c(&mut world, "GET /a.json?callback=f.g", "", 200, "/**/f.g(1);");
        c(&mut world, "PUT /t.json", r#"{".sv":"timestamp"}"#, 200, &WALL_START_MS.to_string());
        c(&mut world, "GET /.json?sv=timestamp", "", 200, &WALL_START_MS.to_string());
        c(&mut world, "PUT /a/.priority.json", "5", 200, "5");
        c(&mut world, "GET /a.json?format=export", "", 200, r#"{".value":1,".priority":5}"#);
        c(&mut world, "GET /a/.priority.json", "", 200, "5");
        c(&mut world, "PATCH /a.json?print=silent&writeSizeLimit=tiny", "null", 204, "");
        c(&mut world, "GET /a.json", "", 200, "null");
        c(&mut world, "OPTIONS /a.json", "", 200, "");
        c(&mut world, "BREW /a.json", "", 405, r#"{"error":"method not allowed"}"#);
    });
}

#[test]
fn a_push_makes_names_that_ascend() {
    let mut world = world(2, OPEN);
    let client = world.dial(0);
    let mut names = Vec::new();
    for index in 0..5 {
        let response = ask(&mut world, client, "POST", "/list.json", "", &index.to_string());
        names.push(response.body);
        if index == 2 {
            world.pass(Millis(3));
        }
    }
    assert!(names.is_sorted(), "{names:?}");
    assert!(names.iter().all(|name| name.len() == r#"{"name":""}"#.len() + 20), "{names:?}");
    let all = ask(&mut world, client, "GET", "/list.json", "", "").body;
    assert!(all.ends_with(":4}") && all.matches(':').count() == 5, "{all}");
}

#[test]
fn conditions_are_held_against_the_present() {
    for_shards(|shards| {
        let mut world = world(shards, OPEN);
        let client = world.dial(0);
        let read = ask(&mut world, client, "GET", "/n.json", "X-Firebase-ETag: true\r\n", "");
        assert_eq!(read.header("etag"), Some("null_etag"));
        let first = ask(&mut world, client, "PUT", "/n.json", "if-match: null_etag\r\n", "4");
        assert_eq!((first.status, first.header("etag")), (200, Some("eVih19a6ZDz3NL32uVBtg9KSgQY=")));
        let stale = ask(&mut world, client, "PUT", "/n.json", "if-match: null_etag\r\n", "5");
        assert_eq!((stale.status, stale.body.as_str()), (412, "4"));
        assert_eq!(stale.header("etag"), first.header("etag"));
        let same = "if-none-match: eVih19a6ZDz3NL32uVBtg9KSgQY=\r\n";
        let known = ask(&mut world, client, "GET", "/n.json", same, "");
        assert_eq!((known.status, known.body.as_str()), (304, ""));
        let gone = ask(&mut world, client, "DELETE", "/n.json", "if-match: eVih19a6ZDz3NL32uVBtg9KSgQY=\r\n", "");
        assert_eq!((gone.status, gone.header("etag")), (200, Some("null_etag")));
        assert_eq!(ask(&mut world, client, "GET", "/n.json", same, "").status, 200);
        let plain = ask(&mut world, client, "GET", "/n.json", "", "");
        assert_eq!(plain.header("etag"), None);
    });
}

#[test]
fn a_stale_write_tells_nothing_to_who_may_not_read() {
    let mut world = world(1, r#"{"rules":{".read":false,".write":true}}"#);
    let client = world.dial(0);
    check(&mut world, client, "PUT /n.json", "4", 200, "4");
    let stale = ask(&mut world, client, "PUT", "/n.json", "if-match: x\r\n", "5");
    assert_eq!((stale.status, stale.header("etag")), (412, None));
    assert!(stale.body.starts_with(r#"{"error":"#), "{}", stale.body);
}

#[test]
fn mistakes_have_their_statuses_and_texts() {
    let mut world = world(1, r#"{"rules":{"open":{".read":true,".write":true}}}"#);
    let bad_json = r#"{"error":"Invalid data; couldn't parse JSON object, array, or value."}"#;
    let auth = r#"{"error":"Could not parse auth token."}"#;
    for (request, body, status, expected) in [
        ("GET /x.json", "", 401, r#"{"error":"Permission denied"}"#),
        ("PUT /x.json", "1", 401, r#"{"error":"Permission denied"}"#),
        ("PUT /open/x.json", "{", 400, bad_json),
        ("PUT /open/x.json", "", 400, bad_json),
        ("GET /open/x.json?auth=junk", "", 401, auth),
        ("GET /open/a%2Eb.json", "", 400, r#"{"error":"Invalid path: Invalid token in path"}"#),
        ("GET /open/a%zz.json", "", 400, r#"{"error":"Invalid path: not percent-encoded UTF-8"}"#),
        ("GET /open/a", "", 404, r#"{"error":"append .json to your request URI to use the REST API."}"#),
        (
            "GET /open.json?limitToFirst=2",
            "",
            400,
            r#"{"error":"orderBy must be defined when other query parameters are defined"}"#,
        ),
        ("GET /open.json?orderBy=$key", "", 400, r#"{"error":"orderBy must be a valid JSON encoded path"}"#),
        (
            "GET /open.json?orderBy=%22a%22&startAt=x",
            "",
            400,
            r#"{"error":"Constraint index field must be a JSON primitive"}"#,
        ),
        ("GET /.settings/rules.json", "", 401, r#"{"error":"Unauthorized request."}"#),
        ("PUT /open/x.json?onDisconnect=nobody", "1", 404, r#"{"error":"There is no such session"}"#),
    ] {
        let client = world.dial(0);
        check(&mut world, client, request, body, status, expected);
        assert!(world.is_open(client), "{request}: the connection goes on");
    }
    let client = world.dial(0);
    world.send_bytes(client, b"GET /open.json HTTP/1.1\r\nHost: \r\n\r\n");
    assert!(world.response(client).starts_with("HTTP/1.1 400 "), "no namespace: {}", world.response(client));
}

#[test]
fn queries_select_and_order() {
    let mut world = world(2, OPEN);
    let client = world.dial(0);
    let dinosaurs = r#"{"a":{"h":3,"n":"x"},"b":{"h":1},"c":{"h":2},"d":{"n":"y"}}"#;
    check(&mut world, client, "PUT /d.json", dinosaurs, 200, dinosaurs);
    for (query, expected) in [
        ("orderBy=%22h%22&limitToLast=2", r#"{"c":{"h":2},"a":{"h":3,"n":"x"}}"#),
        ("orderBy=\"h\"&startAt=2", r#"{"c":{"h":2},"a":{"h":3,"n":"x"}}"#),
        ("orderBy=\"h\"&startAfter=2", r#"{"a":{"h":3,"n":"x"}}"#),
        ("orderBy=\"h\"&startAt=1&endBefore=3", r#"{"b":{"h":1},"c":{"h":2}}"#),
        ("orderBy=\"h\"&equalTo=2", r#"{"c":{"h":2}}"#),
        ("orderBy=\"h\"&startAt=2,\"d\"", r#"{"a":{"h":3,"n":"x"}}"#),
        ("orderBy=\"$key\"&startAfter=\"b\"&limitToFirst=1", r#"{"c":{"h":2}}"#),
        ("orderBy=\"n\"&equalTo=null", r#"{"b":{"h":1},"c":{"h":2}}"#),
        ("orderBy=\"$value\"&limitToFirst=1", r#"{"a":{"h":3,"n":"x"}}"#),
        ("shallow=true&limitToFirst=2&startAfter=a", r#"{"b":true,"c":true}"#),
        ("orderBy=\"h\"&equalTo=9", "null"),
    ] {
        check(&mut world, client, &format!("GET /d.json?{query}"), "", 200, expected);
    }
}

#[test]
fn requests_of_one_connection_are_answered_in_order() {
    for_shards(|shards| {
        let mut world = world(shards, OPEN);
        let client = world.dial(0);
        let mut all = String::new();
        for (method, target, body) in [
            ("PUT", "/a.json?ns=one", "1"),
            ("GET", "/a.json?ns=two", ""),
            ("OPTIONS", "/a.json", ""),
            ("GET", "/nowhere", ""),
            ("PUT", "/a.json?ns=two", "2"),
            ("GET", "/a.json?ns=one", ""),
            ("GET", "/a.json?ns=two", ""),
        ] {
            all.push_str(&text(method, target, "", body));
        }
        // Whole, and in single bytes: cuts do not matter.
        for cut in [all.len(), 1] {
            for piece in all.as_bytes().chunks(cut) {
                world.send_bytes(client, piece);
            }
            world.settle();
            let bytes = world.take_bytes(client);
            let heard: Vec<_> = responses(&bytes).into_iter().map(|response| response.body).collect();
            let second = if cut == 1 { "2" } else { "null" };
            assert_eq!((heard[0].as_str(), heard[1].as_str(), heard[2].as_str()), ("1", second, ""));
            assert_eq!(heard[4..], ["2", "1", "2"]);
        }
    });
}

#[test]
fn bodies_come_in_chunks_too() {
    let mut world = world(1, OPEN);
    let client = world.dial(0);
    let head = "PUT /a.json HTTP/1.1\r\nHost: db\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n";
    world.send_bytes(client, head.as_bytes());
    assert_eq!(world.take_bytes(client), b"HTTP/1.1 100 Continue\r\n\r\n");
    for piece in "3;x=y\r\n\"ab\r\n2\r\nc\"\r\n0\r\nTrailer: x\r\n\r\n".as_bytes().chunks(1) {
        world.send_bytes(client, piece);
    }
    world.settle();
    assert_eq!(responses(&world.take_bytes(client))[0].body, r#""abc""#);
    check(&mut world, client, "GET /a.json", "", 200, r#""abc""#);
    for bad in ["x\r\n", "\r\n", "1\r\na\r\n\r\n", "fffffffff\r\n", "ffffffff\r\n", "1\r\nab"] {
        let client = world.dial(0);
        world.send_bytes(client, head.as_bytes());
        world.take_bytes(client);
        world.send_bytes(client, bad.as_bytes());
        world.settle();
        let status = responses(&world.take_bytes(client))[0].status;
        assert!(matches!(status, 400 | 413), "{bad:?}: {status}");
        assert!(!world.is_open(client), "{bad:?}");
    }
}

#[test]
fn a_slow_client_is_cut_and_told_why() {
    let mut world = world(1, OPEN);
    let slow_body = world.dial(0);
    world.send_bytes(slow_body, b"PUT /a.json HTTP/1.1\r\nHost: db\r\nContent-Length: 100\r\n\r\n");
    let slow_head = world.dial(0);
    world.send_bytes(slow_head, text("GET", "/a.json", "", "").as_bytes());
    world.settle();
    world.take_bytes(slow_head);
    world.send_bytes(slow_head, b"GET ");
    let idle = world.dial(0);
    world.send_bytes(idle, text("GET", "/a.json", "", "").as_bytes());
    world.settle();
    world.take_bytes(idle);
    for _ in 0..29 {
        world.send_bytes(slow_body, b"1");
        world.pass(Millis(1_000));
    }
    assert!(world.is_open(slow_body), "it has half a minute");
    assert!(world.response(slow_head).starts_with("HTTP/1.1 408 "), "ten seconds for a head");
    world.pass(Millis(1_100));
    assert!(world.response(slow_body).starts_with("HTTP/1.1 408 "), "{}", world.response(slow_body));
    assert!(world.is_open(idle));
    world.pass(Millis(46_000));
    assert!(!world.is_open(idle), "an idle connection goes after a while");
    assert_eq!(world.response(idle), "", "and nothing is said that a client could take for an answer");
    assert_eq!(world.session_count(), 0, "no connection leaves a session behind");
}

/// What a stream has heard, without the head of its response.
fn events(world: &mut World, client: Client) -> String {
    world.settle();
    String::from_utf8(world.take_bytes(client)).unwrap()
}

/// Opens a stream. Returns it, its id, and its first event.
#[track_caller]
fn stream(world: &mut World, shard: usize, target: &str, headers: &str) -> (Client, String, String) {
    let client = world.dial(shard);
    world.send_bytes(client, text("GET", target, &format!("Accept: text/event-stream\r\n{headers}"), "").as_bytes());
    let heard = events(world, client);
    let (head, first) = heard.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let id = head.split("Stillhere-Stream: ").nth(1).expect("an id").lines().next().unwrap().to_owned();
    let first = first.replace(&id, "ID");
    (client, id, first)
}

#[test]
fn a_stream_tells_what_happens() {
    for_shards(|shards| {
        let mut world = world(shards, OPEN);
        let writer = world.dial(0);
        check(&mut world, writer, "PUT /s/a.json", "1", 200, "1");
        let (client, _, first) = stream(&mut world, 1, "/s.json", "");
        assert_eq!(first, "event: put\ndata: {\"path\":\"/\",\"data\":{\"a\":1}}\nid: ID\n\n");
        check(&mut world, writer, "PUT /s/b/c.json", r#""x""#, 200, r#""x""#);
        check(&mut world, writer, "PATCH /s.json", r#"{"a":null,"b/d":2}"#, 200, r#"{"a":null,"b/d":2}"#);
        check(&mut world, writer, "DELETE /s.json", "", 200, "null");
        assert_eq!(
            events(&mut world, client),
            "event: put\ndata: {\"path\":\"/b/c\",\"data\":\"x\"}\n\n\
             event: patch\ndata: {\"path\":\"/\",\"data\":{\"a\":null,\"b/d\":2}}\n\n\
             event: put\ndata: {\"path\":\"/\",\"data\":null}\n\n"
        );
        world.pass(Millis(30_000));
        assert_eq!(events(&mut world, client), "event: keep-alive\ndata: null\n\n");
        world.pass(Millis(3_600_000));
        assert!(world.is_open(client), "a stream that is taken lives on");
        let (_, _, first) = stream(&mut world, 0, "/nothing.json", "");
        assert!(first.contains(r#"{"path":"/","data":null}"#), "{first}");
    });
}

#[test]
fn a_connection_that_becomes_a_stream_is_one_session() {
    let mut world = world(2, OPEN);
    let client = world.dial(0);
    check(&mut world, client, "GET /s.json", "", 200, "null");
    world.send_bytes(client, text("GET", "/s.json", "Accept: text/event-stream\r\n", "").as_bytes());
    assert!(events(&mut world, client).contains("event: put"));
    assert_eq!(world.session_count(), 1);
    world.hang_up(client, Hangup::Finished);
    world.settle();
    assert_eq!(world.session_count(), 0);
}

#[test]
fn a_remembered_credential_is_believed_no_longer_than_another() {
    let rules = r#"{"rules":{".read":"auth != null"}}"#;
    let mut world = world(1, rules);
    let secret = "0123456789abcdef0123456789abcdef";
    let believe = |secret: &str| AuthConfig { secrets: vec![secret.to_owned()], ..AuthConfig::default() };
    world.believe(believe(secret));
    let client = world.dial(0);
    let token = token(secret, WALL_START_MS / 1_000 + 20);
    let target = format!("/x.json?auth={token}");
    check(&mut world, client, &format!("GET {target}"), "", 200, "null");
    check(&mut world, client, &format!("GET {target}"), "", 200, "null");
    world.pass(Millis(21_000));
    let expired = r#"{"error":"Auth token is expired"}"#;
    check(&mut world, client, &format!("GET {target}"), "", 401, expired);
    check(&mut world, client, &format!("GET /x.json?auth={secret}"), "", 200, "null");
    world.believe(believe("fedcba9876543210fedcba9876543210"));
    let nobody = r#"{"error":"Could not parse auth token."}"#;
    check(&mut world, client, &format!("GET /x.json?auth={secret}"), "", 401, nobody);
}

/// A Wilddog token.
fn token(secret: &str, expires_s: u64) -> String {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let iat = WALL_START_MS / 1_000 - 60;
    let claims = format!(r#"{{"v":1,"uid":"u","claims":{{}},"iat":{iat},"exp":{expires_s}}}"#);
    let part = |json: &str| URL_SAFE_NO_PAD.encode(json);
    let text = format!("{}.{}", part(r#"{"alg":"HS256","typ":"JWT"}"#), part(&claims));
    let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
    let signature = jsonwebtoken::crypto::sign(text.as_bytes(), &key, jsonwebtoken::Algorithm::HS256).unwrap();
    format!("{text}.{signature}")
}

/// An engine whose inputs and turns the test has in hand.
fn lone_engine() -> (Engine, Now) {
    let now = Now { instant: Instant(1), wall: crate::base::WallMillis(WALL_START_MS) };
    let config = crate::engine::Config {
        shard: ShardId(0),
        shards: 1,
        seed: [1; 32],
        common_seed: [2; 4],
        settings: Arc::new(Settings::default()),
        namespaces: std::collections::BTreeMap::new(),
        is_restricted: false,
        rules: Arc::new(Ruleset::open()),
        dialect: Dialect::Both,
        verifier: Arc::new(Verifier::new(AuthConfig::default()).unwrap()),
    };
    (Engine::new(config, now), now)
}

#[test]
fn the_room_of_bodies_is_given_back() {
    let (mut engine, now) = lone_engine();
    let mut output = Output::default();
    let mut send = |engine: &mut Engine, conn, text: &str| {
        let mut bytes = text.as_bytes().to_vec();
        engine.handle(now, Input::Bytes { conn, bytes: &mut bytes }, &mut output);
    };
    for conn in [ConnId(0), ConnId(1)] {
        let peer = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        engine.handle(now, Input::Opened { conn, peer }, &mut Output::default());
        send(&mut engine, conn, "PUT /a.json HTTP/1.1\r\nHost: db\r\nContent-Length: 9\r\n\r\n1234");
    }
    assert_eq!(engine.desk.body_bytes, 8);
    send(&mut engine, ConnId(0), "56789");
    assert_eq!(engine.desk.body_bytes, 4, "one is whole");
    let how = Hangup::Broken;
    engine.handle(now, Input::Closed { conn: ConnId(1), how }, &mut Output::default());
    assert_eq!(engine.desk.body_bytes, 0, "the other never will be");
}

#[test]
fn a_filtered_stream_tells_of_its_window() {
    let mut world = world(2, OPEN);
    let writer = world.dial(0);
    check(&mut world, writer, "PUT /s.json?print=silent", r#"{"a":1,"b":2,"c":3}"#, 204, "");
    let (client, _, first) = stream(&mut world, 1, "/s.json?orderBy=%22$key%22&limitToLast=2", "");
    assert!(first.contains(r#"{"path":"/","data":{"b":2,"c":3}}"#), "{first}");
    check(&mut world, writer, "PUT /s/d.json", "4", 200, "4");
    let heard = events(&mut world, client);
    assert_eq!(heard, "event: patch\ndata: {\"path\":\"/\",\"data\":{\"d\":4,\"b\":null}}\n\n");
    check(&mut world, writer, "PUT /s/a.json", "9", 200, "9");
    assert_eq!(events(&mut world, client), "");
}

#[test]
fn last_words_are_left_with_a_stream() {
    for_shards(|shards| {
        for home in 0..3 {
            let mut world = world(shards, OPEN);
            let asker = world.dial(0);
            let (client, id, _) = stream(&mut world, home, "/s.json", "");
            let at = |path: &str| format!("{path}.json?onDisconnect={id}");
            let ok = r#"{"status":"ok"}"#;
            check(&mut world, asker, &format!("PUT {}", at("/s/a")), r#""off""#, 200, ok);
            check(&mut world, asker, &format!("PUT {}", at("/s/gone/x")), r#""never""#, 200, ok);
            check(&mut world, asker, &format!("PATCH {}", at("/s")), r#"{"b":1,"c/d":{".sv":"timestamp"}}"#, 200, ok);
            check(&mut world, asker, &format!("DELETE {}&cancel=true", at("/s/gone")), "", 200, ok);
            let pushed = ask(&mut world, asker, "POST", &at("/log"), "", "true").body;
            assert!(pushed.starts_with(r#"{"name":"-"#), "{pushed}");
            check(&mut world, asker, "PUT /s/a.json", r#""on""#, 200, r#""on""#);
            check(&mut world, asker, "GET /s.json", "", 200, r#"{"a":"on"}"#);
            assert_eq!(events(&mut world, client).matches("event: put").count(), 1);
            world.hang_up(client, Hangup::Broken);
            world.settle();
            let left = format!(r#"{{"a":"off","b":1,"c":{{"d":{WALL_START_MS}}}}}"#);
            check(&mut world, asker, "GET /s.json", "", 200, &left);
            check(&mut world, asker, "GET /log.json?count=true", "", 200, "1");
            let late = r#"{"error":"There is no such session"}"#;
            check(&mut world, asker, &format!("PUT {}", at("/s/a")), "1", 404, late);
        }
    });
}

#[test]
fn a_stream_that_comes_back_takes_the_place_of_its_last() {
    for_shards(|shards| {
        for way in ["ls", "header"] {
            let mut world = world(shards, OPEN);
            let asker = world.dial(0);
            let (old, id, _) = stream(&mut world, 0, "/s.json", "");
            let word = format!("PUT /s/a.json?onDisconnect={id}");
            check(&mut world, asker, &word, r#""off""#, 200, r#"{"status":"ok"}"#);
            world.unplug(old);
            let (target, header) = match way {
                "ls" => (format!("/s.json?ls={id}"), String::new()),
                _ => ("/s.json".to_owned(), format!("Last-Event-ID: {id}\r\n")),
            };
            let (_, _, first) = stream(&mut world, 1, &target, &header);
            assert!(first.contains(r#""data":{"a":"off"}"#), "the last words came first: {first}");
            assert_eq!(world.session_count(), 2, "the new stream's and the asker's");
        }
    });
}

#[test]
fn who_may_not_read_has_no_stream() {
    let mut world = world(2, r#"{"rules":{"open":{".read":true}}}"#);
    let client = world.dial(0);
    let denied = ask(&mut world, client, "GET", "/shut.json", "Accept: text/event-stream\r\n", "");
    assert_eq!((denied.status, denied.body.as_str()), (401, r#"{"error":"Permission denied"}"#));
    assert!(!world.is_open(client));
    let (client, _, _) = stream(&mut world, 1, "/open.json", "");
    let admin = world.dial(0);
    let owner = "Authorization: Bearer owner\r\n";
    let rules = r#"{"rules":{".read":false}} // nobody"#;
    assert_eq!(ask(&mut world, admin, "PUT", "/.settings/rules.json?dryRun=true", owner, rules).status, 200);
    assert!(world.is_open(client), "a trial changes nothing");
    assert_eq!(ask(&mut world, admin, "PUT", "/.settings/rules.json", owner, rules).body, r#"{"status":"ok"}"#);
    assert_eq!(events(&mut world, client), "event: cancel\ndata: null\n\n");
    assert!(!world.is_open(client));
    assert_eq!(ask(&mut world, admin, "GET", "/.settings/rules.json", owner, "").body, rules);
    assert_eq!(ask(&mut world, admin, "PUT", "/.settings/rules.json", owner, "{").status, 400);
    let other = ask(&mut world, admin, "GET", "/.settings/rules.json?ns=other", owner, "").body;
    assert!(other.contains("open"), "another database keeps its rules: {other}");
}

#[test]
fn rules_of_one_database_are_kept_until_those_of_all_change() {
    let own = r#"{"rules":{"own":{".read":true}}} // its own"#;
    let others = r#"{"rules":{"others":{".read":true}}}"#;
    let owner = "Authorization: Bearer owner\r\n";
    let ruleset = |text| Arc::new(Ruleset::parse(text, Dialect::Both).unwrap());
    let settings = Arc::new(Settings { durability: Durability::Fsync, ..Settings::default() });
    let rules_of = |world: &mut World, database: &str| {
        let client = world.dial(0);
        let target = format!("/.settings/rules.json?ns={database}");
        ask(world, client, "GET", &target, owner, "").body
    };
    let restart = |mut world: World| {
        world.settle_and_sync();
        let mut world = world.cut_power(2);
        world.settle_and_sync();
        world
    };
    for snapshots in 0..3 {
        let mut world = World::with(2, 7, &settings, &ruleset(others));
        let client = world.dial(0);
        world.send_bytes(client, text("PUT", "/.settings/rules.json?ns=db", owner, own).as_bytes());
        world.settle();
        assert_eq!(world.take_bytes(client), b"", "it is not safe yet");
        world.settle_and_sync();
        assert_eq!(responses(&world.take_bytes(client))[0].status, 200);
        (0..snapshots).for_each(|shard| assert!(world.snapshot(shard, |_| {})));
        let mut world = restart(restart(world));
        assert_eq!(rules_of(&mut world, "db"), own);
        assert_eq!(rules_of(&mut world, "other"), others);
        // Other rules for all databases, at a start or before it, are for all.
        if snapshots == 0 {
            world.input_all(|| Input::Rules(ruleset(others)));
        } else {
            world = restart(world.under(&ruleset(OPEN))).under(&ruleset(others));
        }
        assert_eq!(rules_of(&mut restart(world), "db"), others);
    }
}

#[test]
fn an_administrator_may_act_as_somebody() {
    let rules = r#"{"rules":{"u":{"$uid":{".read":"auth.uid === $uid",".write":"auth.uid === $uid"}}}}"#;
    let mut world = world(1, rules);
    let client = world.dial(0);
    for (params, status) in [
        ("access_token=owner", 200),
        ("auth=owner", 200),
        ("auth=owner&auth_variable_override={\"uid\":\"joe\"}", 200),
        ("auth=owner&auth_variable_override={\"uid\":\"ann\"}", 401),
        ("auth=owner&auth_variable_override=null", 401),
        ("auth=owner&auth_variable_override=7", 400),
        ("auth_variable_override={\"uid\":\"joe\"}", 401),
        ("", 401),
    ] {
        let response = ask(&mut world, client, "PUT", &format!("/u/joe.json?{params}"), "", "1");
        assert_eq!(response.status, status, "{params}");
    }
}

#[test]
fn a_long_answer_comes_in_pieces() {
    let mut world = world(2, OPEN);
    let client = world.dial(0);
    let long: Vec<String> =
        (0..30_000).map(|n| format!(r#""k{n:05}":{{"n":{n},"l":[1,null,{{"x":true}}]}}"#)).collect();
    let long = format!("{{{}}}", long.join(","));
    let written = ask(&mut world, client, "PUT", "/long.json", "", &long);
    assert_eq!(written.header("transfer-encoding"), Some("chunked"));
    assert_eq!(written.body.len(), long.len());
    for style in ["", "print=pretty", "format=export", "orderBy=\"n\"&limitToLast=29999", "callback=f"] {
        let both = format!(
            "{}{}",
            text("GET", &format!("/long.json?{style}"), "", ""),
            text("GET", "/long/k00001/n.json", "", "")
        );
        world.send_bytes(client, both.as_bytes());
        world.settle();
        let answers = responses(&world.take_bytes(client));
        assert_eq!(answers[1].body, "1", "{style}: the next is answered after");
        let body = answers[0].body.trim_start_matches("/**/f(").trim_end_matches(");");
        let value: serde_json::Value = serde_json::from_str(body).expect(style);
        let expected: serde_json::Value = serde_json::from_str(&long).unwrap();
        if style.is_empty() {
            assert_eq!(body.len(), long.len());
        }
        if style != "format=export" && !style.starts_with("orderBy") {
            assert_eq!(value, expected, "{style}");
        }
    }
    let zipped = ask(&mut world, client, "GET", "/long.json", "Accept-Encoding: br, gzip\r\n", "");
    assert_eq!(zipped.header("content-encoding"), Some("gzip"));
}

#[test]
fn tools_find_what_they_look_for() {
    for_shards(|shards| {
        let mut world = world(shards, OPEN);
        let client = world.dial(0);
        let owner = "Authorization: Bearer owner\r\n";
        assert_eq!(ask(&mut world, client, "PUT", "/x.json?ns=ns1", owner, "1").status, 200);
        let found = ask(&mut world, client, "GET", "/v1beta/projects/p/locations/-/instances/ns1", owner, "").body;
        assert!(found.contains(r#""databaseUrl":"http://db.sim.example""#), "{found}");
        for home in 0..3 {
            let other = world.dial(home);
            assert_eq!(ask(&mut world, other, "GET", "/x.json", owner, "").body, "1", "no name: what was looked up");
            assert_eq!(ask(&mut world, other, "GET", "/x.json", "", "").body, "null", "for the tools alone");
        }
        let names = ask(&mut world, client, "GET", "/.inspect/databases.json?ns=ns1", owner, "").body;
        assert_eq!(names, r#"[{"name":"db"},{"name":"ns1"}]"#);
        let wrong_place = "/?ns=ns1/.settings/rules.json?dryRun=true";
        assert_eq!(ask(&mut world, client, "PUT", wrong_place, owner, "{}").status, 400);
        assert_eq!(ask(&mut world, client, "PUT", wrong_place, owner, r#"{"rules":{}}"#).status, 200);
        let permissions = r#"{"permissions":["a.b","c"]}"#;
        let may = ask(&mut world, client, "POST", "/v1/projects/p:testIamPermissions", owner, permissions).body;
        assert_eq!(may, permissions);
    });
}

#[test]
fn draining_answers_and_closes() {
    for_shards(|shards| {
        let mut world = world(shards, OPEN);
        let asker = world.dial(0);
        let (client, id, _) = stream(&mut world, 1, "/s.json", "");
        let word = format!("PUT /s/a.json?onDisconnect={id}");
        check(&mut world, asker, &word, r#""off""#, 200, r#"{"status":"ok"}"#);
        world.input_all(|| Input::Drain);
        world.settle();
        assert!(!world.is_open(client) && !world.is_open(asker));
        assert!(world.drained.iter().all(|is_drained| *is_drained));
        let spoken = |n: &Notice| matches!(n, Notice::LastWords { spoken: 1, .. });
        assert_eq!(world.notices.iter().filter(|n| spoken(n)).count(), 1);
    });
}

#[test]
fn late_last_words_of_a_stream_yield() {
    for_shards(|shards| {
        let mut world = world(shards, OPEN);
        let asker = world.dial(0);
        let (client, id, _) = stream(&mut world, 0, "/s.json", "");
        for name in ["old", "new"] {
            let ok = r#"{"status":"ok"}"#;
            check(&mut world, asker, &format!("PUT /s/{name}.json?onDisconnect={id}"), r#""off""#, 200, ok);
        }
        check(&mut world, asker, "PUT /s/old.json", r#""on""#, 200, r#""on""#);
        // Keep-alives that the kernel takes are no sign of life once they turn out to be unacknowledged.
        world.pass(Millis::from_secs(60));
        let asker = world.dial(0);
        check(&mut world, asker, "PUT /s/new.json", r#""on""#, 200, r#""on""#);
        world.pass(Millis::from_secs(30));
        let asker = world.dial(0);
        world.hang_up(client, Hangup::Unanswered);
        world.settle();
        check(&mut world, asker, "GET /s.json", "", 200, r#"{"new":"on","old":"off"}"#);
    });
}

#[test]
fn a_profile_tells_of_every_operation() {
    for_shards(|shards| {
        let mut world = world(shards, r#"{"rules":{".read":true,"s":{".write":true}}}"#);
        let refused = world.dial(0);
        let wish = "Accept: text/event-stream\r\n";
        assert_eq!(ask(&mut world, refused, "GET", "/.settings/profile.json", wish, "").status, 401);
        let owner = "Authorization: Bearer owner\r\n";
        let (client, _, first) = stream(&mut world, 1, "/.settings/profile.json", owner);
        assert_eq!(first, "");
        let other = world.dial(0);
        check(&mut world, other, "PUT /s/a.json?print=silent", r#"{"x":1}"#, 204, "");
        check(&mut world, other, "PUT /t.json", "1", 401, r#"{"error":"Permission denied"}"#);
        check(&mut world, other, "GET /s.json", "", 200, r#"{"a":{"x":1}}"#);
        let (listener, ..) = stream(&mut world, 0, "/s.json?orderBy=%22x%22&limitToFirst=5", owner);
        check(&mut world, other, "PATCH /s.json?print=silent", r#"{"b":22}"#, 204, "");
        world.hang_up(listener, Hangup::Finished);
        world.settle();
        let at = WALL_START_MS;
        let line = |name: &str, path: &str, bytes: u32, is_allowed: bool, more: &str| {
            format!(
                r#"{{"name":"{name}","path":[{path}],"timestamp":{at},"millis":0,"pendingTime":0,"bytes":{bytes},"allowed":{is_allowed}{more}}}"#
            )
        };
        let expected = [
            line("rest-write", r#""s","a""#, 7, true, ""),
            line("rest-write", r#""t""#, 1, false, ""),
            line("rest-read", r#""s""#, 13, true, ""),
            line("listener-listen", r#""s""#, 13, true, r#","unIndexed":true,"querySet":[{"index":{"path":["x"]}}]"#),
            line("rest-update", r#""s""#, 2, true, ""),
            line("listener-broadcast", r#""s","b""#, 2, true, ""),
            line("concurrent-disconnect", "", 0, true, ""),
        ];
        let heard = events(&mut world, client);
        let lines: Vec<&str> = heard.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        assert_eq!(lines, expected);
        assert_eq!(heard.matches("event: log\n").count(), 7);
    });
}

#[test]
fn long_bodies_say_what_short_ones_do() {
    let filler = "x".repeat(200_000);
    for_shards(|shards| {
        let mut world = world(shards, OPEN);
        let client = world.dial(0);
        let get = |world: &mut World, path: &str| ask(world, client, "GET", path, "", "").body;
        let long = format!(r#"{{"a":{{"b":[1,{{".sv":"timestamp"}}],"t":"{filler}"}},"c":2}}"#);
        check(&mut world, client, "PUT /s.json?print=silent", &long, 204, "");
        assert_eq!(get(&mut world, "/s/a/b.json"), format!("[1,{WALL_START_MS}]"));
        assert_eq!(get(&mut world, "/s/c.json"), "2");
        assert_eq!(get(&mut world, "/s/a/t.json").len(), 200_002);
        let long = format!(r#"{{"a/b":null,"c":3,"d":"{filler}"}}"#);
        check(&mut world, client, "PATCH /s.json?print=silent", &long, 204, "");
        assert_eq!(get(&mut world, "/s.json?shallow=true"), r#"{"a":true,"c":true,"d":true}"#);
        assert_eq!(get(&mut world, "/s/c.json"), "3");
        let name = ask(&mut world, client, "POST", "/list.json", "", &format!(r#"{{"t":"{filler}"}}"#)).body;
        assert!(name.starts_with(r#"{"name":"-"#), "{name}");
        check(&mut world, client, "PUT /s/a.json", &format!(r#"{{"t":"{filler}","a.b":1}}"#), 400, {
            r#"{"error":"Invalid key: it contains one of . # $ [ ] / or a control character"}"#
        });
        let broken = r#"{"error":"Invalid data; couldn't parse JSON object, array, or value."}"#;
        check(&mut world, client, "PUT /s/a.json", &format!(r#"{{"t":"{filler}""#), 400, broken);
        check(&mut world, client, "PATCH /s.json?print=silent", &format!("null{}", " ".repeat(200_000)), 204, "");
        assert_eq!(get(&mut world, "/s.json"), "null");
    });
}

#[test]
fn others_are_served_while_a_long_body_is_read() {
    let (mut engine, now) = lone_engine();
    let members: Vec<String> = (0..20_000).map(|n| format!(r#""k{n}":{{"name":"somebody {n}"}}"#)).collect();
    let long = text("PUT", "/s.json?print=silent", "", &format!("{{{}}}", members.join(",")));
    for conn in [ConnId(0), ConnId(1), ConnId(2)] {
        let peer = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        engine.handle(now, Input::Opened { conn, peer }, &mut Output::default());
    }
    let told = |engine: &mut Engine, input: Input<'_>| {
        let mut output = Output::default();
        engine.handle(now, input, &mut output);
        output.effects.iter().filter(|effect| matches!(effect, Effect::Send { .. })).count()
    };
    for conn in [ConnId(0), ConnId(1)] {
        assert_eq!(told(&mut engine, Input::Bytes { conn, bytes: &mut long.clone().into_bytes() }), 0, "not read yet");
    }
    let mut short = text("PUT", "/other.json", "", "1").into_bytes();
    assert_eq!(told(&mut engine, Input::Bytes { conn: ConnId(2), bytes: &mut short }), 1, "answered at once");
    assert!(engine.desk.body_bytes > 1_000_000, "both are here");
    assert_eq!(told(&mut engine, Input::Closed { conn: ConnId(1), how: Hangup::Broken }), 0);
    let (mut turns, mut answers) = (0, 0);
    while engine.is_busy() {
        answers += told(&mut engine, Input::Tick);
        turns += 1;
    }
    assert!(turns > 5, "{turns} turns");
    assert_eq!((answers, engine.desk.body_bytes), (1, 0), "the other has gone");
}
