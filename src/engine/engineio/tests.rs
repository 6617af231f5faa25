use std::sync::Arc;

use crate::base::Millis;
use crate::engine::{Hangup, Input, LateLastWords, Notice, Settings};
use crate::op::End;
use crate::rules::Ruleset;
use crate::sim::{Client, World};

fn for_shards(story: impl Fn(u8)) {
    (1..=3).for_each(story);
}

fn data(request: &str) -> String {
    format!(r#"42["wd",{{"t":"d","d":{request}}}]"#)
}

fn ok(number: u32) -> String {
    data(&format!(r#"{{"r":{number},"b":{{"s":"ok","d":{{}}}}}}"#))
}

/// A client that begins with a WebSocket, past its greeting.
#[track_caller]
fn socket(world: &mut World, shard: usize) -> Client {
    let client = world.connect(shard, "/.ws/?v=1.0&cv=2.5.17&ns=db&did=Default&EIO=3&transport=websocket");
    world.settle();
    let heard = world.take(client);
    assert_eq!(heard.len(), 3, "{heard:?}");
    client
}

#[track_caller]
fn done(world: &mut World, client: Client, request: &str) -> Vec<String> {
    world.send(client, &data(request));
    world.settle();
    let mut heard = world.take(client);
    assert!(heard.pop().expect("an answer").contains(r#""s":"ok""#), "{request}");
    heard
}

/// A client that polls, over connections to whichever cores.
struct Poller {
    lines: Vec<Client>,
    sid: String,
}

impl Poller {
    /// `lines` connections, the `n`th to core `n`.
    #[track_caller]
    fn open(world: &mut World, lines: usize) -> Self {
        let lines: Vec<_> = (0..lines).map(|shard| world.dial(shard)).collect();
        world.get(lines[0], "/.ws/?v=1.0&cv=0.7.2&ns=db&EIO=3&transport=polling&t=Q80mTML&b64=1");
        world.settle();
        let packets = packets(&world.take_response(lines[0]).expect("an answer").1);
        assert_eq!(packets.len(), 3, "{packets:?}");
        let sid = packets[0].split('"').nth(3).expect("a session").to_owned();
        assert_eq!(
            packets[0],
            format!(r#"0{{"sid":"{sid}","upgrades":["websocket"],"pingInterval":20000,"pingTimeout":60000}}"#)
        );
        Self { lines, sid }
    }

    fn target(&self, transport: &str) -> String {
        format!("/.ws/?v=1.0&ns=db&EIO=3&transport={transport}&t=1&b64=1&sid={}", self.sid)
    }

    fn fetch(&self, world: &mut World, line: usize) {
        world.get(self.lines[line], &self.target("polling"));
    }

    fn bring(&self, world: &mut World, line: usize, packets: &[&str]) {
        let body: String = packets.iter().map(|packet| format!("{}:{packet}", packet.len())).collect();
        world.post(self.lines[line], &self.target("polling"), &body);
    }

    /// Fetches until nothing comes, and takes everything that has come over any line.
    fn hear(&self, world: &mut World, line: usize) -> Vec<String> {
        let mut heard = Vec::new();
        world.settle();
        while let Some((head, body)) = world.take_response(self.lines[line]) {
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            if body != "ok" {
                heard.extend(packets(&body));
            }
        }
        heard
    }
}

/// The packets of a body of text.
#[track_caller]
fn packets(body: &str) -> Vec<String> {
    let mut packets = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let (length, after) = rest.split_once(':').unwrap_or_else(|| panic!("a body: {body}"));
        let (packet, after) = after.split_at(length.parse().expect("a length"));
        packets.push(packet.to_owned());
        rest = after;
    }
    packets
}

/// Reads a value over Firebase's protocol: there is one tree.
#[track_caller]
fn value_at(world: &mut World, path: &str) -> String {
    let reader = world.join(1, "&ns=db");
    world.settle();
    world.take(reader);
    world.send(reader, &format!(r#"{{"t":"d","d":{{"r":9,"a":"g","b":{{"p":"{path}","q":{{}}}}}}}}"#));
    world.settle();
    let answer = world.take(reader).pop().expect("an answer");
    world.hang_up(reader, Hangup::Finished);
    let at = answer.find(r#""s":"ok","d":"#).expect("ok") + r#""s":"ok","d":"#.len();
    answer[at..answer.len() - 3].to_owned()
}

#[test]
fn a_socket_is_greeted_as_the_clients_demand() {
    for_shards(|shards| {
        let mut world = World::new(shards, 1);
        let client = world.connect(0, "/.ws/?v=1.0&cv=2.5.17&ns=db&EIO=3&transport=websocket");
        world.settle();
        let heard = world.take(client);
        let sid = heard[0].split('"').nth(3).expect("a session");
        let expected = [
            format!(r#"0{{"sid":"{sid}","upgrades":[],"pingInterval":20000,"pingTimeout":60000}}"#),
            "40".to_owned(),
            format!(
                r#"42["wd",{{"t":"c","d":{{"t":"h","d":{{"ts":1700000000000,"v":"1.0","h":"sim.example:9000","s":"{sid}"}}}}}}]"#
            ),
        ];
        assert_eq!(heard, expected);
        world.send(client, "2");
        world.send(client, "2é");
        world.settle();
        assert_eq!(world.take(client), ["3", "3é"]);
    });
}

#[test]
fn both_protocols_share_one_tree() {
    for_shards(|shards| {
        let mut world = World::new(shards, 2);
        let (old, new) = (socket(&mut world, 0), world.join(1, "&ns=db"));
        world.settle();
        world.take(new);
        assert_eq!(done(&mut world, old, r#"{"r":1,"a":"q","b":{"p":"/s","h":""}}"#), [""; 0]);
        world.send(new, r#"{"t":"d","d":{"r":1,"a":"p","b":{"p":"/s/é","d":"漢"}}}"#);
        world.settle();
        assert_eq!(world.take(old), [data(r#"{"a":"d","b":{"p":"/s/\u00e9","d":"\u6f22"}}"#)]);
        // One's own write comes back before its answer.
        assert_eq!(
            done(&mut world, old, r#"{"r":2,"a":"m","b":{"p":"/s","d":{"a":1,"b/c":null}}}"#),
            [data(r#"{"a":"m","b":{"p":"/s","d":{"a":1,"b/c":null}}}"#)]
        );
        assert_eq!(value_at(&mut world, "/s/a"), "1");
        // Among listeners with tags and without, over both protocols.
        let second = socket(&mut world, 2);
        done(&mut world, second, r#"{"r":1,"a":"q","b":{"p":"/s","q":{"i":".key","l":1,"vf":"r"},"t":7,"h":""}}"#);
        done(&mut world, second, r#"{"r":2,"a":"q","b":{"p":"/s/a","h":""}}"#);
        done(&mut world, old, r#"{"r":3,"a":"p","b":{"p":"/s/a","d":2}}"#);
        world.settle();
        assert_eq!(world.take(second), [data(r#"{"a":"d","b":{"p":"/s/a","d":2}}"#)]);
        done(&mut world, old, r#"{"r":4,"a":"p","b":{"p":"/s/ö","d":2}}"#);
        world.settle();
        let heard = world.take(second);
        assert_eq!(heard.len(), 1, "{heard:?}");
        assert!(heard[0].contains(r#""\u00f6":2"#) && heard[0].ends_with(r#""t":7}}}]"#), "{heard:?}");
    });
}

#[test]
fn a_poller_writes_and_hears_over_connections_to_any_core() {
    for_shards(|shards| {
        let mut world = World::new(shards, 3);
        let poller = Poller::open(&mut world, 3);
        poller.fetch(&mut world, 0);
        assert_eq!(poller.hear(&mut world, 0), [""; 0], "it waits");
        let (listen, put) =
            (data(r#"{"r":1,"a":"q","b":{"p":"/s","h":""}}"#), data(r#"{"r":2,"a":"p","b":{"p":"/s/a","d":"on"}}"#));
        poller.bring(&mut world, 1, &[&listen, &put, "2"]);
        world.settle();
        let (head, body) = world.take_response(poller.lines[1]).expect("an answer");
        assert!(head.contains("\r\nAccess-Control-Allow-Origin: http://page.example\r\n"), "{head}");
        assert!(head.contains("\r\nAccess-Control-Allow-Credentials: true\r\n"), "{head}");
        assert_eq!(body, "ok");
        let mut heard = poller.hear(&mut world, 0);
        poller.fetch(&mut world, 2);
        heard.extend(poller.hear(&mut world, 2));
        heard.retain(|packet| packet != "3");
        assert_eq!(heard, [ok(1), data(r#"{"a":"d","b":{"p":"/s/a","d":"on"}}"#), ok(2)]);
        // A text that is no ASCII comes encoded twice.
        let text: String = "é漢😀".bytes().map(char::from).collect();
        let put = data(r#"{"r":3,"a":"p","b":{"p":"/t","d":"X"}}"#).replace('X', &text);
        let body = format!("{}:{put}", put.chars().count());
        world.post(poller.lines[1], &poller.target("polling"), &body);
        world.settle();
        assert_eq!(value_at(&mut world, "/t"), r#""é漢😀""#);
    });
}

#[test]
fn browsers_get_bytes() {
    let mut world = World::new(1, 4);
    let line = world.dial(0);
    world.get(line, "/.ws/?v=1.0&ns=db&EIO=3&transport=polling");
    let response = world.response(line);
    assert!(response.contains("\r\nContent-Type: application/octet-stream\r\n"), "{response}");
    assert!(response.contains("\0\u{2}\u{fffd}40"), "{response:?}");
}

#[test]
fn a_poller_goes_on_over_a_socket_on_any_core() {
    for_shards(|shards| {
        let mut world = World::new(shards, 5);
        let poller = Poller::open(&mut world, 3);
        poller.bring(&mut world, 1, &[&data(r#"{"r":1,"a":"o","b":{"p":"/gone","d":true}}"#)]);
        world.settle();
        poller.fetch(&mut world, 0);
        assert_eq!(poller.hear(&mut world, 0), [ok(1)]);
        poller.fetch(&mut world, 0);
        let socket = world.connect(2, &poller.target("websocket"));
        world.settle();
        world.send(socket, "2probe");
        world.settle();
        assert_eq!(world.take(socket), ["3probe"]);
        assert_eq!(poller.hear(&mut world, 0), ["6"], "its request comes back");
        poller.fetch(&mut world, 0);
        assert_eq!(poller.hear(&mut world, 0), ["6"], "and so does another");
        // Until it has gone on, requests still carry everything, and none waits.
        poller.bring(&mut world, 1, &[&data(r#"{"r":2,"a":"q","b":{"p":"/s","h":""}}"#)]);
        poller.fetch(&mut world, 0);
        let mut heard = poller.hear(&mut world, 0);
        heard.retain(|packet| packet != "6");
        world.send(socket, "5");
        world.settle();
        heard.extend(world.take(socket));
        assert_eq!(heard, [ok(2)]);
        assert_eq!(
            done(&mut world, socket, r#"{"r":3,"a":"p","b":{"p":"/s","d":1}}"#),
            [data(r#"{"a":"d","b":{"p":"/s","d":1}}"#)]
        );
        world.send(socket, "2");
        world.settle();
        assert_eq!(world.take(socket), ["3"]);
        // A request that comes late is let go; one that would take the place of the socket is refused.
        poller.fetch(&mut world, 0);
        assert_eq!(poller.hear(&mut world, 0), ["6"]);
        let second = world.connect(1, &poller.target("websocket"));
        world.settle();
        assert!(world.response(second).starts_with("HTTP/1.1 400 "), "{}", world.response(second));
        assert_eq!(value_at(&mut world, "/gone"), "null");
        world.say_goodbye(socket);
        world.settle();
        assert_eq!(value_at(&mut world, "/gone"), "true");
        assert_eq!(world.session_count(), 0);
    });
}

#[test]
fn a_socket_that_fails_leaves_the_poller_with_its_requests() {
    for_shards(|shards| {
        let mut world = World::new(shards, 6);
        let poller = Poller::open(&mut world, 2);
        let socket = world.connect(1, &poller.target("websocket"));
        world.settle();
        world.send(socket, "2probe");
        world.settle();
        world.hang_up(socket, Hangup::Broken);
        world.settle();
        assert_eq!(world.session_count(), 1);
        poller.fetch(&mut world, 0);
        assert_eq!(poller.hear(&mut world, 0), [""; 0], "requests wait again");
        poller.bring(&mut world, 1, &[&data(r#"{"r":1,"a":"s","b":{"c":{}}}"#)]);
        assert_eq!(poller.hear(&mut world, 0), [ok(1)]);
    });
}

/// A client leaves last words and goes in `way`.
#[track_caller]
fn check_socket(shards: u8, way: impl Fn(&mut World, Client), end: End) {
    let mut world = World::new(shards, 7);
    let client = socket(&mut world, 0);
    done(&mut world, client, r#"{"r":1,"a":"o","b":{"p":"/s","d":"gone"}}"#);
    way(&mut world, client);
    check_spoken(&mut world, end);
}

#[track_caller]
fn check_poller(shards: u8, way: impl Fn(&mut World, &Poller), end: End) {
    let mut world = World::new(shards, 8);
    let poller = Poller::open(&mut world, 3);
    poller.bring(&mut world, 1, &[&data(r#"{"r":1,"a":"o","b":{"p":"/s","d":"gone"}}"#)]);
    world.settle();
    poller.fetch(&mut world, 0);
    assert_eq!(poller.hear(&mut world, 0), [ok(1)]);
    poller.fetch(&mut world, 2);
    world.settle();
    way(&mut world, &poller);
    check_spoken(&mut world, end);
    let late = world.dial(0);
    world.get(late, &poller.target("polling"));
    world.settle();
    let (head, body) = world.take_response(late).expect("an answer");
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    assert_eq!(body, r#"{"code":1,"message":"Session ID unknown"}"#);
}

#[track_caller]
fn check_spoken(world: &mut World, end: End) {
    world.settle();
    assert_eq!(world.session_count(), 0);
    assert_eq!(value_at(world, "/s"), r#""gone""#, "{end:?}");
    world.pass(Millis(300_000));
    let spoken = |n: &&Notice| matches!(n, Notice::LastWords { spoken: 1, end: why, .. } if *why == end);
    assert_eq!(world.notices.iter().filter(spoken).count(), 1, "{:?}", world.notices);
}

#[test]
fn last_words_are_spoken_whichever_way_a_client_goes() {
    for_shards(|shards| {
        check_socket(shards, World::say_goodbye, End::Closed);
        check_socket(shards, |world, client| world.hang_up(client, Hangup::Finished), End::Closed);
        check_socket(shards, |world, client| world.hang_up(client, Hangup::Broken), End::Dropped);
        check_socket(shards, |world, client| world.send_bytes(client, &[0xff; 8]), End::Killed);
        check_socket(shards, |world, client| world.send(client, "9"), End::Killed);
        check_socket(shards, |world, client| world.send(client, "42{"), End::Killed);
        check_socket(
            shards,
            |world, client| {
                world.unplug(client);
                world.pass(Millis(45_032));
            },
            End::TimedOut,
        );
        check_poller(shards, |world, poller| poller.bring(world, 1, &["1"]), End::Closed);
        check_poller(shards, |world, poller| poller.bring(world, 1, &["9"]), End::Killed);
        check_poller(shards, |world, poller| world.post(poller.lines[1], &poller.target("polling"), "x"), End::Killed);
        check_poller(shards, |world, poller| world.hang_up(poller.lines[2], Hangup::Broken), End::Dropped);
        check_poller(
            shards,
            |world, poller| {
                poller.lines.iter().for_each(|line| world.unplug(*line));
                world.pass(Millis(45_032));
            },
            End::TimedOut,
        );
    });
}

#[test]
fn who_never_asks_is_sent_away() {
    for_shards(|shards| {
        let mut world = World::new(shards, 9);
        let (mute, good) = (socket(&mut world, 0), socket(&mut world, 1));
        done(&mut world, good, r#"{"r":1,"a":"s","b":{"c":{}}}"#);
        for _ in 0..3 {
            world.pass(Millis(10_032));
            world.send(mute, "2");
            world.send(good, "2");
        }
        assert_eq!(world.session_count(), 1);
        assert!(!world.is_open(mute));
        assert!(world.is_open(good));
    });
}

#[test]
fn a_silent_poller_is_asked_for_a_sign_of_life() {
    for_shards(|shards| {
        let settings = Settings {
            heartbeat: Millis::from_secs(1),
            session_timeout: Millis::from_secs(3),
            late_last_words: LateLastWords::Yield,
            ..Settings::default()
        };
        let mut world = World::with(shards, 10, &Arc::new(settings), &Arc::new(Ruleset::open()));
        let line = world.dial(1);
        world.get(line, "/.ws/?ns=db&EIO=3&transport=polling&b64=1");
        let body = world.take_response(line).expect("an answer").1;
        assert!(body.contains(r#""pingInterval":1000,"pingTimeout":60000"#), "{body}");
        let poller = Poller { lines: vec![line], sid: body.split('"').nth(3).expect("a session").to_owned() };
        poller.bring(&mut world, 0, &[&data(r#"{"r":1,"a":"s","b":{"c":{}}}"#)]);
        poller.hear(&mut world, 0);
        poller.fetch(&mut world, 0);
        assert_eq!(poller.hear(&mut world, 0), [ok(1)]);
        for _ in 0..5 {
            poller.fetch(&mut world, 0);
            world.pass(Millis(1_032));
            assert_eq!(poller.hear(&mut world, 0), ["6"]);
        }
        let socket = socket_with_pings(&mut world);
        world.pass(Millis(1_500));
        assert!(world.pings(socket) >= 1);
        assert_eq!(world.session_count(), 2);
        world.pass(Millis(2_000));
        assert_eq!(world.session_count(), 1, "the socket answers pings, the poller is gone");
    });
}

fn socket_with_pings(world: &mut World) -> Client {
    let client = world.connect(0, "/.ws/?ns=db&EIO=3&transport=websocket");
    world.settle();
    world.take(client);
    done(world, client, r#"{"r":1,"a":"s","b":{"c":{}}}"#);
    client
}

#[test]
fn what_is_no_request_of_the_protocol_is_refused_and_hurts_nobody() {
    let mut world = World::new(2, 11);
    let good = socket(&mut world, 0);
    for (target, status) in [
        ("/.ws/?EIO=3&transport=polling&sid=x&ns=db", 400),
        ("/.ws/?EIO=3&transport=polling&sid=ff0000000000000000000000000000000000000000000000&ns=db", 400),
        ("/.ws/?EIO=4&transport=polling&ns=db", 400),
        ("/.ws/?EIO=3&transport=flashsocket&ns=db", 400),
        ("/.ws/?EIO=3&transport=polling&j=0&ns=db", 400),
        ("/.ws/?EIO=3&transport=polling&ns=a.b", 400),
        ("/.ws/?EIO=3&transport=websocket&ns=db", 426),
    ] {
        let line = world.dial(0);
        world.get(line, target);
        world.settle();
        let response = world.response(line);
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{target}: {response}");
    }
    let line = world.dial(1);
    world.send_bytes(line, b"OPTIONS /.ws/?EIO=3 HTTP/1.1\r\nHost: x\r\nOrigin: http://a.example\r\nAccess-Control-Request-Headers: x-a\r\n\r\n");
    let (head, _) = world.take_response(line).expect("an answer");
    for line in [
        "Access-Control-Allow-Origin: http://a.example",
        "Access-Control-Allow-Headers: x-a",
        "Access-Control-Allow-Methods: GET, POST, OPTIONS",
    ] {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{head}");
    }
    done(&mut world, good, r#"{"r":1,"a":"p","b":{"p":"/a","d":1}}"#);
}

#[test]
fn the_name_lookup_names_who_was_asked() {
    let mut world = World::new(1, 12);
    let line = world.dial(0);
    world.send_bytes(line, b"GET /v1/lookup?appId=app HTTP/1.1\r\nHost: ns.wilddog.com\r\n\r\n");
    let (head, body) = world.take_response(line).expect("an answer");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!(body, r#"{"nss":"ns.wilddog.com:80","nssList":["ns.wilddog.com:80"]}"#);
    world.get(line, "/v1/lookup?appId=app");
    let (_, body) = world.take_response(line).expect("an answer");
    assert_eq!(body, r#"{"nss":"sim.example:9000","nssList":["sim.example:9000"]}"#);
}

#[test]
fn signing_in_by_request_is_always_answered_with_success() {
    let mut world = World::new(1, 13);
    let line = world.dial(0);
    for (operation, body) in [("verifyCustomToken", r#"{"token":"t"}"#), ("sendSmsCode", "{}"), ("getAccountInfo", "")]
    {
        world.post(line, &format!("/v2/app/auth/{operation}"), body);
        let (head, body) = world.take_response(line).expect("an answer");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(body.starts_with(r#"{"error":true,"errcode":22"#), "that cannot be: {body}");
    }
    world.get(line, "/v1/app/auth/anonymous?&v=node-0.7.2");
    let (_, body) = world.take_response(line).expect("an answer");
    assert!(body.starts_with(r#"{"token":""#), "{body}");
    // Who is like nobody else is so on the socket too.
    world.post(line, "/v2/app/auth/signupNewUser", "{}");
    let (_, body) = world.take_response(line).expect("an answer");
    let token = body.strip_prefix(r#"{"idToken":""#).and_then(|rest| rest.strip_suffix(r#""}"#)).expect("a token");
    world.post(line, "/v2/app/auth/getAccountInfo", &body);
    let (_, info) = world.take_response(line).expect("an answer");
    assert!(info.contains(r#""providerId":"anonymous""#) && info.contains(r#""providerUserInfo":["#), "{info}");
    let client = socket(&mut world, 0);
    world.send(client, &data(&format!(r#"{{"r":1,"a":"auth","b":{{"cred":"{token}"}}}}"#)));
    world.settle();
    let heard = world.take(client);
    assert!(heard[0].contains(r#"{"r":1,"b":{"s":"ok","d":{"auth":{"#), "{heard:?}");
}

#[test]
fn a_flood_is_held_back_and_nothing_is_lost() {
    for_shards(|shards| {
        let mut world = World::new(shards, 14);
        let poller = Poller::open(&mut world, 2);
        let puts: Vec<_> =
            (1..=3_000).map(|n| data(&format!(r#"{{"r":{n},"a":"p","b":{{"p":"/f/k{n}","d":{n}}}}}"#))).collect();
        poller.bring(&mut world, 1, &puts.iter().map(String::as_str).collect::<Vec<_>>());
        let mut heard = Vec::new();
        for _ in 0..200 {
            poller.fetch(&mut world, 0);
            heard.extend(poller.hear(&mut world, 0));
            if heard.len() == 3_000 {
                break;
            }
        }
        assert_eq!(heard, (1..=3_000).map(ok).collect::<Vec<_>>());
    });
}

#[test]
fn who_brings_too_much_waits_for_the_answer() {
    let is_kept_waiting = |seed| {
        let mut world = World::new(2, seed);
        let poller = Poller::open(&mut world, 1);
        let put = data(r#"{"r":1,"a":"p","b":{"p":"/f","d":1}}"#);
        poller.bring(&mut world, 0, &vec![put.as_str(); 1_100]);
        let is_waiting = world.take_response(poller.lines[0]).is_none();
        world.settle();
        assert!(!is_waiting || world.take_response(poller.lines[0]).is_some(), "in the end it is answered");
        is_waiting
    };
    // Where the data stands on the session's own core, nothing is left unanswered.
    assert!((0..8).any(is_kept_waiting));
}

#[test]
fn draining_lets_everybody_go() {
    for_shards(|shards| {
        let mut world = World::new(shards, 15);
        let client = socket(&mut world, 0);
        done(&mut world, client, r#"{"r":1,"a":"o","b":{"p":"/s/a","d":1}}"#);
        let poller = Poller::open(&mut world, 2);
        poller.bring(&mut world, 1, &[&data(r#"{"r":1,"a":"o","b":{"p":"/s/b","d":1}}"#)]);
        poller.fetch(&mut world, 0);
        world.settle();
        world.input_all(|| Input::Drain);
        world.settle();
        assert!(world.drained.iter().all(|is_drained| *is_drained));
        assert_eq!(world.close_code(client), Some(1001));
        assert_eq!(poller.hear(&mut world, 0), [ok(1)], "what was said before is heard");
        let spoken: usize =
            world.notices.iter().map(|n| if let Notice::LastWords { spoken, .. } = n { *spoken } else { 0 }).sum();
        assert_eq!(spoken, 2);
    });
}
