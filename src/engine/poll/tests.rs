use std::fmt::Write as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};

use crate::base::Millis;
use crate::engine::{Hangup, Input, LateLastWords, Notice, Settings};
use crate::op::End;
use crate::rules::Ruleset;
use crate::sim::{Client, World};

/// A page that polls, over connections to whichever cores.
struct Page {
    lines: Vec<Client>,
    /// `id=…&pw=…`
    name: String,
    /// The session as its handshake names it.
    session: String,
    segment: u64,
    serial: u64,
    /// Answers that have come, by number.
    packets: Vec<(u64, String)>,
    is_closed: bool,
}

impl Page {
    /// A page whose `n`th connection goes to core `n`.
    fn open(world: &mut World, lines: usize, params: &str) -> Self {
        let lines: Vec<_> = (0..lines).map(|shard| world.dial(shard)).collect();
        world.get(lines[0], &format!("/.lp?start=t&ser=1&cb=7&v=5&ns=db{params}"));
        world.settle();
        let (head, body) = world.take_response(lines[0]).expect("a start is answered at once");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(body.contains(r#"parent.window["pRTLPCB7"]"#), "{body}");
        let (_, start) = body.split_once("pLPCommand('start','").expect("it names the session");
        let (id, rest) = start.split_once("','").expect("id");
        let (pw, rest) = rest.split_once("');\npRTLPCB(0,[").expect("password, then the first packet");
        let (_, session) = rest.split_once(r#""h":"sim.example:9000","s":""#).expect("a handshake");
        let session = session.split('"').next().expect("a name").to_owned();
        let name = format!("id={id}&pw={pw}");
        Self { lines, name, session, segment: 0, serial: 2, packets: Vec::new(), is_closed: false }
    }

    /// Sends a request over the `line`th connection, with messages, each in segments of `bytes`.
    fn poll(&mut self, world: &mut World, line: usize, messages: &[&str], bytes: usize) {
        let target = self.target(messages, bytes);
        world.get(self.lines[line], &target);
    }

    fn target(&mut self, messages: &[&str], bytes: usize) -> String {
        let base64 = GeneralPurpose::new(&URL_SAFE, GeneralPurposeConfig::new());
        let mut target = format!("/.lp?{}&ser={}&ns=db", self.name, self.serial);
        self.serial += 1;
        let mut index = 0;
        for message in messages {
            let text = base64.encode(message).replace('=', ".");
            let pieces: Vec<_> = text.as_bytes().chunks(bytes).collect();
            for piece in &pieces {
                let piece = std::str::from_utf8(piece).expect("base64 is ASCII");
                let (number, count) = (self.segment, pieces.len());
                write!(target, "&seg{index}={number}&ts{index}={count}&d{index}={piece}").expect("a string takes it");
                self.segment += 1;
                index += 1;
            }
        }
        target
    }

    /// Takes what has arrived over all connections; gives messages in the order of their packets.
    fn hear(&mut self, world: &mut World) -> String {
        world.settle();
        for line in &self.lines {
            while let Some((head, mut body)) = world.take_response(*line) {
                assert!(head.contains("\r\nContent-Type: application/javascript"), "{head}");
                if let Some(rest) = body.strip_suffix("pLPCommand('close');\n") {
                    self.is_closed = true;
                    body = rest.to_owned();
                }
                if body.is_empty() {
                    continue;
                }
                let (number, messages) = body
                    .strip_prefix("pRTLPCB(")
                    .and_then(|rest| rest.strip_suffix("]);\n")?.split_once(",["))
                    .unwrap_or_else(|| panic!("an answer: {body}"));
                self.packets.push((number.parse().expect("a number"), messages.to_owned()));
            }
        }
        self.packets.sort();
        let heard: Vec<_> = std::mem::take(&mut self.packets).into_iter().map(|(_, messages)| messages).collect();
        heard.join("|")
    }

    /// Says one thing and hears what comes of it.
    fn ask(&mut self, world: &mut World, request: &str) -> String {
        self.poll(world, self.lines.len() - 1, &[&data(request)], 1_840);
        self.hear(world)
    }
}

fn data(request: &str) -> String {
    format!(r#"{{"t":"d","d":{request}}}"#)
}

fn for_shards(story: impl Fn(u8)) {
    (1..=3).for_each(story);
}

/// Reads a value over a WebSocket.
#[track_caller]
fn value_at(world: &mut World, path: &str) -> String {
    let reader = world.join(0, "&ns=db");
    world.settle();
    world.take(reader);
    world.send(reader, &data(&format!(r#"{{"r":9,"a":"g","b":{{"p":"{path}","q":{{}}}}}}"#)));
    world.settle();
    let answer = world.take(reader).pop().expect("an answer");
    world.hang_up(reader, Hangup::Finished);
    let at = answer.find(r#""s":"ok","d":"#).expect("ok") + r#""s":"ok","d":"#.len();
    answer[at..answer.len() - 3].to_owned()
}

#[test]
fn a_page_writes_and_hears_over_connections_to_any_core() {
    for_shards(|shards| {
        let mut world = World::new(shards, 1);
        let mut page = Page::open(&mut world, 3, "");
        page.poll(&mut world, 1, &[&data(r#"{"r":1,"a":"q","b":{"p":"/s","h":""}}"#)], 1_840);
        assert_eq!(page.hear(&mut world), r#"{"t":"d","d":{"r":1,"b":{"s":"ok","d":{}}}}"#);
        // Nothing to say: the request is held, on a connection that was used before.
        page.poll(&mut world, 0, &[], 1);
        assert_eq!(page.hear(&mut world), "");
        // One turn's words travel together, in order.
        page.poll(&mut world, 2, &[&data(r#"{"r":2,"a":"p","b":{"p":"/s/a","d":"on"}}"#)], 1_840);
        let mut heard = page.hear(&mut world);
        page.poll(&mut world, 0, &[], 1);
        heard += &page.hear(&mut world);
        let (event, answer) =
            (r#"{"t":"d","d":{"a":"d","b":{"p":"s/a","d":"on"}}}"#, r#"{"t":"d","d":{"r":2,"b":{"s":"ok","d":""}}}"#);
        assert!(heard.contains(event), "{heard}");
        assert!(heard.find(event) < heard.find(answer), "{heard}");
        assert_eq!(value_at(&mut world, "/s"), r#"{"a":"on"}"#);
    });
}

#[test]
fn of_two_waiting_requests_the_older_is_let_go() {
    for_shards(|shards| {
        let mut world = World::new(shards, 2);
        let mut page = Page::open(&mut world, 2, "");
        page.poll(&mut world, 0, &[], 1);
        assert_eq!(page.hear(&mut world), "");
        page.poll(&mut world, 1, &[], 1);
        page.hear(&mut world);
        // The first connection is free again, so the next request over it is held in turn.
        page.poll(&mut world, 0, &[], 1);
        world.settle();
        let (_, body) = world.take_response(page.lines[1]).expect("the older was let go");
        assert_eq!(body, "pRTLPCB(2,[]);\n");
        assert_eq!(world.take_response(page.lines[0]), None, "the newer waits");
    });
}

#[test]
fn a_long_message_comes_in_segments_in_any_order() {
    for_shards(|shards| {
        let mut world = World::new(shards, 3);
        let mut page = Page::open(&mut world, 2, "");
        let text = "é".repeat(20);
        let request = data(&format!(r#"{{"r":1,"a":"p","b":{{"p":"/t","d":"{text}"}}}}"#));
        let target = page.target(&[&request], 30);
        let (head, pairs) = target.split_once("&seg0=").expect("it has segments");
        let pieces: Vec<_> = format!("&seg0={pairs}")
            .split("&seg")
            .skip(1)
            .map(|piece| {
                let values: Vec<_> = piece.split('&').map(|pair| pair.split_once('=').expect("a pair").1).collect();
                format!("{head}&seg0={}&ts0={}&d0={}", values[0], values[1], values[2])
            })
            .collect();
        assert!(pieces.len() > 3, "{pieces:?}");
        for (index, piece) in pieces.iter().rev().enumerate() {
            world.get(page.lines[index % 2], piece);
            page.hear(&mut world);
        }
        assert_eq!(value_at(&mut world, "/t"), format!("\"{text}\""));
    });
}

/// A page leaves last words and goes in `way`.
#[track_caller]
fn check_last_words(shards: u8, way: impl Fn(&mut World, &mut Page), end: End) {
    let mut world = World::new(shards, 4);
    let mut page = Page::open(&mut world, 2, "");
    let heard = page.ask(&mut world, r#"{"r":1,"a":"o","b":{"p":"/s","d":"gone"}}"#);
    assert!(heard.contains(r#""s":"ok""#), "{heard}");
    page.poll(&mut world, 0, &[], 1);
    world.settle();
    assert_eq!(value_at(&mut world, "/s"), "null", "not early");
    way(&mut world, &mut page);
    world.settle();
    assert_eq!(value_at(&mut world, "/s"), r#""gone""#, "{end:?}");
    let spoken = |n: &&Notice| matches!(n, Notice::LastWords { spoken: 1, end: why, .. } if *why == end);
    assert_eq!(world.notices.iter().filter(spoken).count(), 1, "{:?}", world.notices);
    assert_eq!(world.session_count(), 0);
    // Whoever still asks is told to begin anew.
    let is_heard = end != End::TimedOut;
    if let Some(line) = page.lines.clone().iter().find(|line| is_heard && world.is_open(**line)) {
        while world.take_response(*line).is_some() {}
        let target = page.target(&[], 1);
        world.get(*line, &target);
        world.settle();
        assert_eq!(world.take_response(*line).expect("an answer").1, "pLPCommand('close');\n");
    }
}

#[test]
fn last_words_are_spoken_whichever_way_a_page_goes() {
    for_shards(|shards| {
        let disconn = |world: &mut World, page: &mut Page| {
            let target = format!("/.lp?disconn=t&{}&ns=db", page.name);
            world.get(page.lines[1], &target);
            world.settle();
            assert!(world.take_response(page.lines[1]).is_some(), "the page waits for the answer");
        };
        check_last_words(shards, disconn, End::Closed);
        check_last_words(shards, |world, page| world.hang_up(page.lines[0], Hangup::Finished), End::Closed);
        check_last_words(shards, |world, page| world.hang_up(page.lines[0], Hangup::Broken), End::Dropped);
        check_last_words(shards, |world, page| page.poll(world, 1, &["no JSON"], 1_840), End::Killed);
        check_last_words(
            shards,
            |world, page| {
                for line in page.lines.clone() {
                    world.unplug(line);
                }
                world.pass(Millis(45_000 + 32));
            },
            End::TimedOut,
        );
        check_last_words(
            shards,
            |world, page| {
                let other = world.join(1, &format!("&ns=db&ls={}", page.session));
                world.settle();
                world.hang_up(other, Hangup::Finished);
                page.hear(world);
                assert!(page.is_closed, "the old page hears of it");
            },
            End::Superseded,
        );
    });
}

#[test]
fn a_page_replaces_its_session_before_it_says_anything() {
    for_shards(|shards| {
        let mut world = World::new(shards, 5);
        let old = world.join(1, "&ns=db");
        world.settle();
        let hello = world.take(old).remove(0);
        let session =
            hello.split(r#""s":""#).nth(1).and_then(|rest| rest.split('"').next()).expect("a name").to_owned();
        world.send(old, &data(r#"{"r":1,"a":"o","b":{"p":"/s","d":"gone"}}"#));
        world.settle();
        let mut page = Page::open(&mut world, 2, &format!("&ls={session}"));
        page.ask(&mut world, r#"{"r":1,"a":"p","b":{"p":"/s","d":"back"}}"#);
        assert_eq!(value_at(&mut world, "/s"), r#""back""#);
        assert!(!world.is_open(old));
    });
}

#[test]
fn a_held_request_is_let_go_in_time_and_its_successor_keeps_the_session() {
    for_shards(|shards| {
        let settings = Settings {
            heartbeat: Millis::from_secs(1),
            session_timeout: Millis::from_secs(3),
            late_last_words: LateLastWords::Yield,
            ..Settings::default()
        };
        let mut world = World::with(shards, 6, &Arc::new(settings), &Arc::new(Ruleset::open()));
        let mut page = Page::open(&mut world, 2, "");
        for _ in 0..5 {
            page.poll(&mut world, 1, &[], 1);
            world.pass(Millis(1_032));
            let (_, body) = world.take_response(page.lines[1]).expect("it is let go");
            assert!(body.ends_with(",[]);\n"), "{body}");
        }
        assert_eq!(world.session_count(), 1);
        world.pass(Millis(3_032));
        assert_eq!(world.session_count(), 0);
    });
}

#[test]
fn requests_that_wait_no_longer_hurt_nobody() {
    for_shards(|shards| {
        let mut world = World::new(shards, 7);
        let mut page = Page::open(&mut world, 1, "");
        let other = world.dial(1);
        for (target, status, body) in [
            ("/.lp?id=1&pw=2&ns=db", 200, "pLPCommand('close');\n"),
            ("/.lp?id=ff00000000000000&pw=00000000000000000000000000000000&ns=db", 200, "pLPCommand('close');\n"),
            ("/.lp?disconn=t&id=00&pw=%27);alert(1)&ns=db", 200, "pLPCommand('close');\n"),
            ("/.lp?dframe=t&id=00&pw=%27);alert(1)&ns=db", 200, "pLPCommand('close');\n"),
            ("/.lp?start=t&cb=x&ns=db", 400, "not a poll"),
            ("/.lp?ns=db", 400, "not a poll"),
        ] {
            world.get(other, target);
            world.settle();
            let (head, found) = world.take_response(other).expect("an answer");
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{target}: {head}");
            assert_eq!(found, body, "{target}");
        }
        // Wrong proof: the session lives on.
        let target = format!("/.lp?disconn=t&{}&ns=db", &page.name[..page.name.len() - 1].replace("&pw=", "&pw=0"));
        world.get(other, &target);
        assert_eq!(world.session_count(), 1);
        // A pipelined request waits for its turn; too much of it closes the connection.
        let target = page.target(&[], 1);
        world.get(page.lines[0], &target);
        world.get(page.lines[0], "/.lp?dframe=t&id=x&pw=y&ns=db");
        world.settle();
        assert_eq!(world.take_response(page.lines[0]), None);
        world.send_bytes(page.lines[0], &[b'x'; 20_000]);
        assert!(!world.is_open(page.lines[0]));
        assert_eq!(value_at(&mut world, "/s"), "null");
    });
}

#[test]
fn a_resting_connection_is_closed_in_silence() {
    let mut world = World::new(1, 8);
    let page = Page::open(&mut world, 1, "");
    world.pass(Millis(60_032));
    assert!(!world.is_open(page.lines[0]));
    assert_eq!(world.response(page.lines[0]), "");
}

#[test]
fn draining_lets_every_page_go() {
    for_shards(|shards| {
        let mut world = World::new(shards, 9);
        let mut pages: Vec<_> = (0..5).map(|_| Page::open(&mut world, 2, "")).collect();
        for page in &mut pages {
            page.ask(&mut world, r#"{"r":1,"a":"o","b":{"p":"/s","d":"gone"}}"#);
            page.poll(&mut world, 0, &[], 1);
        }
        world.settle();
        world.input_all(|| Input::Drain);
        world.settle();
        assert!(world.drained.iter().all(|is_drained| *is_drained));
        for page in &mut pages {
            page.hear(&mut world);
            assert!(page.is_closed);
        }
    });
}
