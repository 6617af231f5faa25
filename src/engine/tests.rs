mod auth;
mod parts_kept;
mod spread;

use super::*;
use crate::base::Millis;
use crate::base::limits::TICK;
use crate::op::End;
use crate::shard::Fate;
use crate::sim::{Client, WALL_START_MS, World};
use std::sync::Arc;

fn last_messages(world: &mut World, client: Client) -> Vec<String> {
    world.settle();
    world.take(client)
}

/// Sends one request and returns everything that the client hears until all is quiet.
fn ask(world: &mut World, client: Client, request: &str) -> Vec<String> {
    world.send(client, &format!(r#"{{"t":"d","d":{request}}}"#));
    last_messages(world, client)
}

/// Sends a request that must succeed, and returns what was heard before its answer.
#[track_caller]
fn done(world: &mut World, client: Client, request: &str) -> Vec<String> {
    let mut heard = ask(world, client, request);
    let answer = heard.pop().expect("an answer");
    assert!(answer.contains(r#""s":"ok""#), "{request}: {answer}");
    heard
}

#[track_caller]
fn value_at(world: &mut World, client: Client, path: &str) -> String {
    let heard = ask(world, client, &format!(r#"{{"r":999,"a":"g","b":{{"p":"{path}","q":{{}}}}}}"#));
    let answer = heard.last().expect("an answer");
    // {"t":"d","d":{"r":999,"b":{"s":"ok","d":VALUE}}}
    let at = answer.find(r#""s":"ok","d":"#).expect("ok") + r#""s":"ok","d":"#.len();
    answer[at..answer.len() - 3].to_owned()
}

/// The session id in a handshake.
#[track_caller]
fn session_of(world: &mut World, client: Client) -> String {
    let heard = last_messages(world, client);
    let hello = heard.first().expect("the handshake is the first message");
    let at = hello.find(r#""s":""#).expect("it names the session") + 5;
    hello[at..].split('"').next().unwrap().to_owned()
}

/// Every story is told with one engine and with several.
fn for_shards(story: impl Fn(u8)) {
    (1..=4).for_each(story);
}

#[test]
fn the_handshake_comes_first_and_echoes_the_host() {
    for_shards(|shards| {
        let mut world = World::new(shards, 1);
        let client = world.join(0, "&ns=db");
        let heard = last_messages(&mut world, client);
        assert_eq!(heard.len(), 1);
        assert!(
            heard[0]
                .starts_with(r#"{"t":"c","d":{"t":"h","d":{"ts":1700000000000,"v":"5","h":"sim.example:9000","s":""#)
        );
    });
}

#[test]
fn a_listener_hears_the_value_then_the_answer_then_changes() {
    for_shards(|shards| {
        let mut world = World::new(shards, 2);
        let (writer, watcher) = (world.join(0, "&ns=db"), world.join(1, "&ns=db"));
        last_messages(&mut world, writer);
        last_messages(&mut world, watcher);
        done(&mut world, writer, r#"{"r":1,"a":"p","b":{"p":"/s/a","d":"on"}}"#);
        let heard = done(&mut world, watcher, r#"{"r":1,"a":"q","b":{"p":"/s","h":""}}"#);
        assert_eq!(heard, [r#"{"t":"d","d":{"a":"d","b":{"p":"s","d":{"a":"on"}}}}"#]);
        done(&mut world, writer, r#"{"r":2,"a":"p","b":{"p":"/s/a","d":"off"}}"#);
        assert_eq!(world.take(watcher), [r#"{"t":"d","d":{"a":"d","b":{"p":"s/a","d":"off"}}}"#]);
        done(&mut world, writer, r#"{"r":3,"a":"m","b":{"p":"/s","d":{"a":null,"b/c":1}}}"#);
        assert_eq!(world.take(watcher), [r#"{"t":"d","d":{"a":"m","b":{"p":"s","d":{"a":null,"b/c":1}}}}"#]);
        done(&mut world, watcher, r#"{"r":2,"a":"n","b":{"p":"/s"}}"#);
        done(&mut world, writer, r#"{"r":4,"a":"p","b":{"p":"/s/a","d":"on"}}"#);
        assert_eq!(world.take(watcher), [""; 0]);
    });
}

#[test]
fn slow_readers_are_bounded_together_and_those_who_are_owed_most_go() {
    let mut world = World::new(1, 3);
    let watcher = world.join(0, "&ns=db");
    done(&mut world, watcher, r#"{"r":1,"a":"q","b":{"p":"/s","h":""}}"#);
    let slow: Vec<_> = (0..9).map(|_| world.join(0, "&ns=db")).collect();
    for (number, client) in slow.iter().enumerate() {
        done(&mut world, *client, &format!(r#"{{"r":1,"a":"o","b":{{"p":"/s/{number}","d":1}}}}"#));
    }
    world.take(watcher);
    // 511 MiB of eight, and then the ninth.
    const MIB: usize = 1024 * 1024;
    slow[..7].iter().for_each(|client| world.owe(*client, 64 * MIB));
    world.owe(slow[7], 63 * MIB);
    world.owe(slow[8], 2 * MIB);
    world.settle();
    assert_eq!(world.take(watcher), [""; 0], "the ninth is not to blame");
    world.owe(slow[3], 63 * MIB);
    world.settle();
    assert_eq!(world.take(watcher), [""; 0], "there is room: the fourth has read enough");
    world.owe(slow[7], 64 * MIB);
    world.settle();
    assert_eq!(world.take(watcher), [r#"{"t":"d","d":{"a":"d","b":{"p":"s/7","d":1}}}"#]);
    // What waited for those who are gone is not counted.
    world.owe(slow[8], 3 * MIB);
    world.hang_up(slow[2], Hangup::Broken);
    world.owe(slow[8], 64 * MIB);
    world.owe(watcher, 63 * MIB);
    world.owe(slow[3], 64 * MIB);
    world.settle();
    assert_eq!(world.take(watcher), [r#"{"t":"d","d":{"a":"d","b":{"p":"s/2","d":1}}}"#]);
}

#[test]
fn namespaces_share_nothing() {
    for_shards(|shards| {
        let mut world = World::new(shards, 3);
        let (one, other) = (world.join(0, "&ns=one"), world.join(0, "&ns=other"));
        done(&mut world, one, r#"{"r":1,"a":"p","b":{"p":"/x","d":1}}"#);
        assert_eq!(value_at(&mut world, one, "/x"), "1");
        assert_eq!(value_at(&mut world, other, "/x"), "null");
    });
}

/// A client leaves last words and goes in `way`; another hears them once, in order.
#[track_caller]
fn check_last_words(shards: u8, way: impl Fn(&mut World, Client), end: End) {
    let mut world = World::new(shards, 4);
    let (leaver, watcher) = (world.join(0, "&ns=db"), world.join(1, "&ns=db"));
    for request in [
        r#"{"r":1,"a":"p","b":{"p":"/s/a","d":"on"}}"#,
        r#"{"r":2,"a":"o","b":{"p":"/s/a","d":"off"}}"#,
        r#"{"r":3,"a":"o","b":{"p":"/s/gone","d":"never"}}"#,
        r#"{"r":4,"a":"om","b":{"p":"/s","d":{"t":{".sv":"timestamp"},"b":1}}}"#,
        r#"{"r":5,"a":"oc","b":{"p":"/s/gone","d":null}}"#,
    ] {
        done(&mut world, leaver, request);
    }
    done(&mut world, watcher, r#"{"r":1,"a":"q","b":{"p":"/s","h":""}}"#);
    way(&mut world, leaver);
    world.settle();
    let heard = world.take(watcher);
    assert_eq!(heard.len(), 2, "{heard:?}");
    assert_eq!(heard[0], r#"{"t":"d","d":{"a":"d","b":{"p":"s/a","d":"off"}}}"#);
    let (before, rest) = heard[1].split_once(r#""t":17000000"#).expect("the server's time");
    let (time, after) = rest.split_once(',').expect("and more");
    assert_eq!((before, after), (r#"{"t":"d","d":{"a":"m","b":{"p":"s","d":{"#, r#""b":1}}}}"#));
    let wall = (WALL_START_MS..=world.wall().0).contains(&format!("17000000{time}").parse().expect("a number"));
    assert!(wall, "it is the time of the firing");
    world.hang_up(leaver, Hangup::Broken);
    world.pass(Millis(300_000));
    assert_eq!(world.take(watcher), [""; 0], "once");
    // Each owner tells of those that lay with it.
    let spoken = world.notices.iter().map(|notice| match notice {
        Notice::LastWords { spoken, end: why, .. } if *why == end => *spoken,
        _ => 0,
    });
    assert_eq!(spoken.sum::<usize>(), 2);
}

#[test]
fn last_words_are_spoken_whichever_way_a_client_goes() {
    for_shards(|shards| {
        check_last_words(shards, World::say_goodbye, End::Closed);
        check_last_words(shards, |world, client| world.hang_up(client, Hangup::Finished), End::Closed);
        check_last_words(shards, |world, client| world.hang_up(client, Hangup::Broken), End::Dropped);
        check_last_words(shards, |world, client| world.send_bytes(client, &[0xff; 8]), End::Killed);
        check_last_words(
            shards,
            |world, client| {
                world.unplug(client);
                world.pass(Millis(45_000 + 16));
            },
            End::TimedOut,
        );
    });
}

#[test]
fn silence_is_noticed_at_the_deadline_and_not_before() {
    let mut world = World::new(1, 5);
    let client = world.join(0, "&ns=db");
    world.pass(Millis(7_000));
    world.send(client, "0");
    world.unplug(client);
    world.pass(Millis(44_999));
    assert_eq!(world.session_count(), 1, "not before");
    world.pass(Millis(1 + TICK.0));
    assert_eq!(world.session_count(), 0, "within a tick");
}

#[test]
fn a_crowd_that_fell_silent_goes_a_few_in_a_call_while_others_are_served() {
    const CROWD: usize = 300;
    let mut world = World::new(1, 5);
    let living = world.join(0, "&ns=db");
    let crowd: Vec<Client> = (0..CROWD).map(|_| world.join(0, "&ns=db")).collect();
    for (number, client) in crowd.iter().enumerate() {
        done(&mut world, *client, &format!(r#"{{"r":1,"a":"o","b":{{"p":"gone/{number}","d":true}}}}"#));
        world.unplug(*client);
    }
    world.oversleep(Millis(45_017));
    let mut calls = 0;
    while world.session_count() > 1 {
        // It has something to say before each call, and is answered at once.
        assert_eq!(ask_at_once(&mut world, living), 1, "after {calls} calls");
        let before = world.session_count();
        world.input_all(|| Input::Tick);
        let ended = before - world.session_count();
        assert!((1..SILENT_MAX + DUE_STEP).contains(&ended), "{ended} in one call");
        let closed = crowd.iter().filter(|client| !world.is_open(**client)).count();
        assert!(closed == 0 || world.session_count() == 1, "{closed} are closed while others' last words wait");
        calls += 1;
    }
    assert!(calls >= CROWD / (SILENT_MAX + DUE_STEP), "{calls}");
    world.settle();
    let gone = value_at(&mut world, living, "gone");
    assert_eq!(gone.matches("true").count(), CROWD, "each has spoken, once: {gone}");
    assert!(crowd.iter().all(|client| !world.is_open(*client)), "and each is closed");
    assert!(world.is_open(living));
}

#[test]
fn who_goes_before_he_is_closed_leaves_his_name_to_others() {
    let mut world = World::new(1, 5);
    let crowd: Vec<Client> = (0..100).map(|_| world.join(0, "&ns=db")).collect();
    crowd.iter().for_each(|client| world.unplug(*client));
    world.oversleep(Millis(45_017));
    world.input_all(|| Input::Tick);
    assert!(world.session_count() < 100, "some are over");
    assert!(crowd.iter().all(|client| world.is_open(*client)), "and yet to be closed");
    crowd.iter().for_each(|client| world.hang_up(*client, Hangup::Broken));
    let others: Vec<Client> = (0..100).map(|_| world.join(0, "&ns=db")).collect();
    world.settle();
    assert!(others.iter().all(|client| world.is_open(*client)));
    assert_eq!(world.session_count(), 100);
}

#[test]
fn a_drain_waits_for_those_who_are_yet_to_be_closed() {
    let mut world = World::new(1, 5);
    let crowd: Vec<Client> = (0..100).map(|_| world.join(0, "&ns=db")).collect();
    crowd.iter().for_each(|client| world.unplug(*client));
    world.oversleep(Millis(45_017));
    world.input_all(|| Input::Tick);
    assert!(crowd.iter().all(|client| world.is_open(*client)), "some are over, and yet to be closed");
    world.input_all(|| Input::Drain);
    for _ in 0..1_000 {
        if world.drained[0] {
            break;
        }
        world.input_all(|| Input::Tick);
    }
    assert!(world.drained[0]);
    assert!(crowd.iter().all(|client| !world.is_open(*client)));
}

/// Asks for nothing much, and counts the messages that come of it before anything else is done.
fn ask_at_once(world: &mut World, client: Client) -> usize {
    world.take(client);
    world.send(client, r#"{"t":"d","d":{"r":7,"a":"s","b":{"c":{}}}}"#);
    world.carry(client, usize::MAX);
    world.take(client).len()
}

#[test]
fn a_client_that_answers_pings_lives_on() {
    let mut world = World::new(1, 6);
    let client = world.join(0, "&ns=db");
    world.pass(Millis(600_000));
    assert_eq!(world.session_count(), 1);
    assert!((29..=30).contains(&world.pings(client)), "{} pings in ten minutes", world.pings(client));
}

#[test]
fn a_returning_client_ends_its_old_session_first() {
    for_shards(|shards| {
        for home in 0..usize::from(shards) {
            let mut world = World::new(shards, 7 + home as u64);
            let (old, watcher) = (world.join(0, "&ns=db"), world.join(1, "&ns=db"));
            let id = session_of(&mut world, old);
            done(&mut world, old, r#"{"r":1,"a":"o","b":{"p":"/s","d":"off"}}"#);
            done(&mut world, watcher, r#"{"r":1,"a":"q","b":{"p":"/s","h":""}}"#);
            world.unplug(old);
            let new = world.join(home, &format!("&ns=db&ls={id}"));
            world.send(new, r#"{"t":"d","d":{"r":1,"a":"p","b":{"p":"/s","d":"on"}}}"#);
            world.settle();
            let push = |value: &str| format!(r#"{{"t":"d","d":{{"a":"d","b":{{"p":"s","d":"{value}"}}}}}}"#);
            assert_eq!(world.take(watcher), [push("off"), push("on")]);
            assert_eq!(last_messages(&mut world, new).len(), 2, "a handshake and an answer");
            world.pass(Millis(100_000));
            assert_eq!(world.take(watcher), [""; 0], "the old session's deadline does nothing");
        }
    });
}

#[test]
fn only_the_right_id_of_the_right_database_ends_a_session() {
    for_shards(|shards| {
        let mut world = World::new(shards, 8);
        let old = world.join(0, "&ns=db");
        let id = session_of(&mut world, old);
        let last = if id.ends_with('0') { "1" } else { "0" };
        let wrong = format!("{}{last}", &id[..id.len() - 1]);
        let far = format!("ff{}", &id[2..]);
        for address in [
            format!("&ns=db&ls={wrong}"),
            format!("&ns=else&ls={id}"),
            format!("&ns=db&ls={far}"),
            "&ns=db&ls=x".into(),
        ] {
            let client = world.join(1, &address);
            done(&mut world, client, r#"{"r":1,"a":"s","b":{"c":{}}}"#);
        }
        assert_eq!(world.session_count(), 5);
        done(&mut world, old, r#"{"r":1,"a":"s","b":{"c":{}}}"#);
    });
}

/// Seed 000's race: a client falls silent, a new process of the same user writes, the silence is
/// noticed.
#[track_caller]
fn check_late(late: LateLastWords, second_writes: &str, expected: &str) {
    for_shards(|shards| {
        let settings = Arc::new(Settings { late_last_words: late, ..Settings::default() });
        let rules = Arc::new(crate::rules::Ruleset::open());
        let mut world = World::with(shards, 9, &settings, &rules);
        let first = world.join(0, "&ns=db");
        done(&mut world, first, r#"{"r":1,"a":"p","b":{"p":"/users/joe","d":"online"}}"#);
        done(&mut world, first, r#"{"r":2,"a":"o","b":{"p":"/users/joe","d":"offline"}}"#);
        world.unplug(first);
        world.pass(Millis(10_000));
        let second = world.join(1, "&ns=db");
        if !second_writes.is_empty() {
            done(&mut world, second, second_writes);
        }
        world.pass(Millis(40_000));
        assert_eq!(world.session_count(), 1, "the first is over");
        assert_eq!(value_at(&mut world, second, "/users/joe"), expected);
    });
}

#[test]
fn late_last_words_yield_to_newer_writes() {
    check_late(LateLastWords::Yield, r#"{"r":1,"a":"p","b":{"p":"/users/joe","d":"back"}}"#, r#""back""#);
    check_late(LateLastWords::Yield, r#"{"r":1,"a":"p","b":{"p":"/users","d":{"joe":"back"}}}"#, r#""back""#);
    check_late(LateLastWords::Yield, r#"{"r":1,"a":"p","b":{"p":"/users/joe","d":null}}"#, "null");
    check_late(LateLastWords::Yield, r#"{"r":1,"a":"p","b":{"p":"/users/ann","d":"back"}}"#, r#""offline""#);
    check_late(LateLastWords::Yield, "", r#""offline""#);
    check_late(LateLastWords::Always, r#"{"r":1,"a":"p","b":{"p":"/users/joe","d":"back"}}"#, r#""offline""#);
}

#[test]
fn answers_come_in_the_order_of_the_requests() {
    for_shards(|shards| {
        let mut world = World::new(shards, 10);
        let client = world.join(0, "&ns=db");
        last_messages(&mut world, client);
        let requests = [
            r#"{"r":1,"a":"p","b":{"p":"/a","d":1}}"#,
            r#"{"r":2,"a":"s","b":{"c":{}}}"#,
            r#"{"r":3,"a":"nonsense","b":{}}"#,
            r#"{"r":4,"a":"o","b":{"p":"/a","d":1}}"#,
            r#"{"r":5,"a":"oc","b":{"p":"/a","d":null}}"#,
            r#"{"r":6,"a":"unauth","b":{}}"#,
            r#"{"r":7,"a":"g","b":{"p":"/a","q":{}}}"#,
            r#"{"r":8,"a":"p","b":{"p":"/a.b","d":1}}"#,
            r#"{"r":9,"a":"echo","b":{"d":[1]}}"#,
        ];
        for request in requests {
            world.send(client, &format!(r#"{{"t":"d","d":{request}}}"#));
        }
        let heard = last_messages(&mut world, client);
        for (index, text) in heard.iter().enumerate() {
            assert!(text.contains(&format!(r#"{{"r":{},"#, index + 1)), "{index}: {text}");
        }
        assert_eq!(heard.len(), requests.len());
    });
}

#[test]
fn a_cancelled_last_word_is_not_spoken_even_when_cancelled_at_once() {
    for_shards(|shards| {
        let mut world = World::new(shards, 11);
        let (client, other) = (world.join(0, "&ns=db"), world.join(1, "&ns=db"));
        world.send(client, r#"{"t":"d","d":{"r":1,"a":"o","b":{"p":"/a/b","d":1}}}"#);
        world.send(client, r#"{"t":"d","d":{"r":2,"a":"oc","b":{"p":"/a","d":null}}}"#);
        world.settle();
        world.say_goodbye(client);
        world.settle();
        assert_eq!(value_at(&mut world, other, "/"), "null");
    });
}

#[test]
fn a_stale_transaction_is_refused_and_a_fresh_one_is_not() {
    for_shards(|shards| {
        let mut world = World::new(shards, 12);
        let client = world.join(0, "&ns=db");
        last_messages(&mut world, client);
        done(&mut world, client, r#"{"r":1,"a":"p","b":{"p":"/n","d":4}}"#);
        let stale = ask(&mut world, client, r#"{"r":2,"a":"p","b":{"p":"/n","d":5,"h":""}}"#);
        assert!(stale[0].contains("datastale"), "{stale:?}");
        done(&mut world, client, r#"{"r":3,"a":"p","b":{"p":"/n","d":5,"h":"eVih19a6ZDz3NL32uVBtg9KSgQY="}}"#);
        assert_eq!(value_at(&mut world, client, "/n"), "5");
    });
}

#[test]
fn a_known_hash_brings_no_data() {
    for_shards(|shards| {
        let mut world = World::new(shards, 13);
        let client = world.join(0, "&ns=db");
        last_messages(&mut world, client);
        done(&mut world, client, r#"{"r":1,"a":"p","b":{"p":"/n","d":4}}"#);
        assert_eq!(
            done(&mut world, client, r#"{"r":2,"a":"q","b":{"p":"/n","h":"eVih19a6ZDz3NL32uVBtg9KSgQY="}}"#),
            [""; 0]
        );
        assert_eq!(done(&mut world, client, r#"{"r":3,"a":"q","b":{"p":"/n","h":"other"}}"#).len(), 1);
        assert_eq!(done(&mut world, client, r#"{"r":4,"a":"q","b":{"p":"/empty","h":""}}"#), [""; 0]);
    });
}

#[test]
fn draining_speaks_every_last_word_and_then_stops() {
    for_shards(|shards| {
        let mut world = World::new(shards, 14);
        let clients: Vec<_> = (0..20).map(|n| world.join(n, "&ns=db")).collect();
        for (n, client) in clients.iter().enumerate() {
            done(&mut world, *client, &format!(r#"{{"r":1,"a":"o","b":{{"p":"/s/{n}","d":1}}}}"#));
        }
        world.input_all(|| Input::Drain);
        world.settle();
        assert_eq!(world.session_count(), 0);
        assert!(world.drained.iter().all(|is_drained| *is_drained));
        let spoken: usize =
            world.notices.iter().map(|n| if let Notice::LastWords { spoken, .. } = n { *spoken } else { 0 }).sum();
        assert_eq!(spoken, 20);
    });
}

#[test]
fn a_drain_that_may_take_its_time_lets_sessions_go_one_after_the_other() {
    for_shards(|shards| {
        let mut world = World::new(shards, 16);
        let clients: Vec<_> = (0..200).map(|n| world.join(n % usize::from(shards), "&ns=db")).collect();
        for (n, client) in clients.iter().enumerate() {
            done(&mut world, *client, &format!(r#"{{"r":1,"a":"o","b":{{"p":"/s/{n}","d":1}}}}"#));
        }
        let limits = Arc::new(Limits { drain_spread: Millis(1_000), ..Limits::default() });
        world.input_all(|| Input::Limits(limits.clone()));
        world.input_all(|| Input::Drain);
        world.settle();
        let at_first = world.session_count();
        assert!((100..200).contains(&at_first), "{at_first} are left in the first moment");
        // Slots at such a pace that a second would do, and two thousand a second at least.
        let mut before = at_first;
        while before > 0 {
            world.pass(Millis(20));
            let now = world.session_count();
            assert!(now < before && before - now <= 200, "{now} of {before} are left");
            before = now;
        }
        assert!(world.drained.iter().all(|is_drained| *is_drained));
        for client in clients {
            let last = world.take(client).pop().expect("it was told something");
            assert_eq!(last, r#"{"t":"c","d":{"t":"r","d":"sim.example:9000"}}"#);
        }
    });
}

#[test]
fn a_request_that_is_none_is_answered_and_hurts_nobody() {
    for_shards(|shards| {
        for bad in ["{", "[]", "\"x\"", "{}x", r#"{"t":"d","d":{"a":"p"}}"#] {
            let mut world = World::new(shards, 15);
            let (bad_one, good) = (world.join(0, "&ns=db"), world.join(0, "&ns=db"));
            world.send(bad_one, bad);
            world.settle();
            assert_eq!(world.close_code(bad_one), Some(1008), "{bad}");
            done(&mut world, good, r#"{"r":1,"a":"p","b":{"p":"/a","d":1}}"#);
        }
    });
}

#[test]
fn a_request_for_nothing_we_know_is_pointed_elsewhere() {
    let mut world = World::new(1, 16);
    let client = world.dial(0);
    world.send_bytes(client, b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(world.response(client).starts_with("HTTP/1.1 404 "), "{}", world.response(client));
    let client = world.dial(0);
    world.send_bytes(client, b"GET /.ws HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(world.response(client).starts_with("HTTP/1.1 426 "), "{}", world.response(client));
    let client = world.dial(0);
    world.pass(Millis(10_016));
    assert!(world.response(client).starts_with("HTTP/1.1 408 "), "{}", world.response(client));
}

/// A world under these rules.
fn under(rules: &str, shards: u8, seed: u64) -> World {
    let rules =
        crate::rules::Ruleset::parse(rules, crate::rules::Dialect::Firebase).expect("the test's rules are right");
    World::with(shards, seed, &Arc::new(Settings::default()), &Arc::new(rules))
}

#[test]
fn a_last_word_is_checked_when_it_is_left_and_when_it_is_spoken() {
    let rules =
        r#"{"rules":{".read":true,"open":{".write":true},"s":{".write":"data.parent().child('open').val() == true"}}}"#;
    for_shards(|shards| {
        let mut world = under(rules, shards, 20);
        let (first, second) = (world.join(0, "&ns=db"), world.join(1, "&ns=db"));
        let refused = ask(&mut world, first, r#"{"r":1,"a":"o","b":{"p":"/s","d":1}}"#);
        assert!(refused.last().is_some_and(|answer| answer.contains("permission_denied")), "{refused:?}");
        done(&mut world, first, r#"{"r":2,"a":"p","b":{"p":"/open","d":true}}"#);
        done(&mut world, first, r#"{"r":3,"a":"o","b":{"p":"/s","d":1}}"#);
        done(&mut world, second, r#"{"r":1,"a":"p","b":{"p":"/open","d":false}}"#);
        world.say_goodbye(first);
        assert_eq!(value_at(&mut world, second, "/s"), "null");
        let denied = world.notices.iter().any(|notice| {
            let Notice::Unspoken { path, fate: Fate::Denied(Some(denial)), .. } = notice else { return false };
            path.as_str() == "s" && denial.to_string().contains(".write")
        });
        assert!(denied, "{:?}", world.notices);
    });
}

#[test]
fn a_listen_that_data_no_longer_allows_hears_nothing_more() {
    let rules = r#"{"rules":{".write":true,"m":{".read":true},"room":{".read":"root.child('m/open').val() == true"}}}"#;
    for_shards(|shards| {
        let mut world = under(rules, shards, 21);
        let (writer, watcher) = (world.join(0, "&ns=db"), world.join(1, "&ns=db"));
        done(&mut world, writer, r#"{"r":1,"a":"p","b":{"p":"/m/open","d":true}}"#);
        last_messages(&mut world, watcher);
        done(&mut world, watcher, r#"{"r":1,"a":"q","b":{"p":"/room","h":""}}"#);
        done(&mut world, writer, r#"{"r":2,"a":"p","b":{"p":"/room/x","d":1}}"#);
        assert_eq!(world.take(watcher), [r#"{"t":"d","d":{"a":"d","b":{"p":"room/x","d":1}}}"#]);
        done(&mut world, writer, r#"{"r":3,"a":"p","b":{"p":"/m/open","d":false}}"#);
        done(&mut world, writer, r#"{"r":4,"a":"p","b":{"p":"/room/x","d":"secret"}}"#);
        let heard = world.take(watcher);
        assert_eq!(heard.len(), 1, "{heard:?}");
        assert!(heard[0].contains(r#""a":"c""#) && heard[0].contains(r#""p":"room""#), "{heard:?}");
        done(&mut world, writer, r#"{"r":5,"a":"p","b":{"p":"/room/x","d":"more"}}"#);
        assert_eq!(world.take(watcher), [""; 0]);
    });
}

#[test]
fn other_rules_end_the_listens_that_they_do_not_allow() {
    for_shards(|shards| {
        let mut world = World::new(shards, 22);
        let watcher = world.join(1, "&ns=db");
        last_messages(&mut world, watcher);
        done(&mut world, watcher, r#"{"r":1,"a":"q","b":{"p":"/a","h":""}}"#);
        done(&mut world, watcher, r#"{"r":2,"a":"q","b":{"p":"/b","q":{"l":1,"vf":"l"},"t":7,"h":""}}"#);
        let rules = r#"{"rules":{"a":{".read":true}}}"#;
        let rules = Arc::new(crate::rules::Ruleset::parse(rules, crate::rules::Dialect::Firebase).unwrap());
        world.input_all(|| Input::Rules(rules.clone()));
        let heard = last_messages(&mut world, watcher);
        assert_eq!(heard.len(), 1, "{heard:?}");
        assert!(heard[0].contains(r#""a":"c""#) && heard[0].contains(r#""p":"b""#), "{heard:?}");
    });
}

#[test]
fn the_later_of_two_silences_has_the_last_word() {
    for_shards(|shards| {
        let mut world = World::new(shards, 23);
        let (first, second, watcher) = (world.join(0, "&ns=db"), world.join(1, "&ns=db"), world.join(2, "&ns=db"));
        done(&mut world, first, r#"{"r":1,"a":"o","b":{"p":"/s","d":"first"}}"#);
        done(&mut world, second, r#"{"r":1,"a":"o","b":{"p":"/s","d":"second"}}"#);
        world.unplug(first);
        world.pass(Millis(10_000));
        world.send(second, "0");
        world.unplug(second);
        world.pass(Millis(100_000));
        assert_eq!(value_at(&mut world, watcher, "/s"), r#""second""#, "the first spoke as of ten seconds earlier");
    });
}

#[test]
fn what_stands_there_decides_where_it_must() {
    for_shards(|shards| {
        let mut world = World::new(shards, 11);
        let (ann, bob) = (world.join(0, "&ns=a"), world.join(1, "&ns=a"));
        last_messages(&mut world, ann);
        last_messages(&mut world, bob);
        done(&mut world, ann, r#"{"r":1,"a":"p","b":{"p":"users/n","d":5}}"#);
        done(&mut world, bob, r#"{"r":1,"a":"q","b":{"p":"users/n","h":""}}"#);
        let increment =
            |path: &str| format!(r#"{{"r":2,"a":"p","b":{{"p":"{path}","d":{{".sv":{{"increment":2}}}}}}}}"#);
        done(&mut world, ann, &increment("users/n"));
        let heard = last_messages(&mut world, bob);
        assert_eq!(heard, [r#"{"t":"d","d":{"a":"d","b":{"p":"users/n","d":7}}}"#], "an increment adds");
        done(&mut world, ann, r#"{"r":3,"a":"m","b":{"p":"users","d":{"n":{".sv":{"increment":2}}}}}"#);
        assert_eq!(value_at(&mut world, ann, "users/n"), "9", "in a merge too");
        last_messages(&mut world, bob);
        done(&mut world, ann, r#"{"r":4,"a":"p","b":{"p":"users/n/.priority","d":3}}"#);
        let heard = last_messages(&mut world, bob);
        let text = r#"{"t":"d","d":{"a":"d","b":{"p":"users/n","d":{".value":9,".priority":3}}}}"#;
        assert_eq!(heard, [text], "a priority changes no value");
    });
}

#[test]
fn what_a_merge_empties_and_fills_keeps_its_priority() {
    for_shards(|shards| {
        let mut world = World::new(shards, 12);
        let client = world.join(0, "&ns=a");
        done(&mut world, client, r#"{"r":1,"a":"p","b":{"p":"room/a","d":{"x":1,".priority":5}}}"#);
        done(&mut world, client, r#"{"r":2,"a":"m","b":{"p":"room","d":{"a/x":null,"a/y":2}}}"#);
        last_messages(&mut world, client);
        done(&mut world, client, r#"{"r":3,"a":"q","b":{"p":"room/a","h":""}}"#);
        assert_eq!(value_at(&mut world, client, "room/a"), r#"{"y":2,".priority":5}"#);
    });
}

#[test]
fn deadlines_beyond_the_reach_of_the_wheel_are_kept() {
    let settings = Arc::new(Settings {
        heartbeat: Millis::from_secs(600),
        session_timeout: Millis::from_secs(1_800),
        ..Settings::default()
    });
    let mut world = World::with(1, 24, &settings, &Arc::new(crate::rules::Ruleset::open()));
    let (silent, living) = (world.join(0, "&ns=db"), world.join(0, "&ns=db"));
    world.unplug(silent);
    world.pass(Millis::from_secs(1_799));
    assert_eq!(world.session_count(), 2);
    assert_eq!(world.pings(living), 2, "at 600s and 1200s");
    world.pass(Millis(1_017));
    assert_eq!(world.session_count(), 1, "the silent one is over");
}

#[test]
fn a_core_that_was_idle_for_long_keeps_its_deadlines() {
    let mut world = World::new(1, 25);
    world.pass(Millis::from_secs(10_000));
    let (session, dialer) = (world.join(0, "&ns=db"), world.dial(0));
    world.unplug(session);
    world.pass(Millis(10_017));
    assert!(world.response(dialer).starts_with("HTTP/1.1 408 "), "{}", world.response(dialer));
    world.pass(Millis(35_000));
    assert_eq!(world.session_count(), 0, "silence is noticed");
}

#[test]
fn a_hash_tells_nothing_to_who_may_not_read() {
    let rules = r#"{"rules":{"seen":{".read":true}}}"#;
    for_shards(|shards| {
        let mut world = under(rules, shards, 26);
        let client = world.join(0, "&ns=db");
        for (path, status) in [("/seen", "datastale"), ("/hidden", "permission_denied")] {
            let request = format!(r#"{{"r":1,"a":"p","b":{{"p":"{path}","d":1,"h":"somethingelse"}}}}"#);
            let heard = ask(&mut world, client, &request);
            assert!(heard.last().is_some_and(|answer| answer.contains(status)), "{path}: {heard:?}");
        }
    });
}

/// Rules under which data decides about `room`.
const ROOM: &str = r#"{"rules":{".write":true,"room":{".read":"root.child('open').val() == true"}}}"#;

/// A listen begins, something changes about its permission, then data takes it away.
#[track_caller]
fn check_kept_listen(listener: &str, change: impl Fn(&mut World, Client)) {
    for_shards(|shards| {
        let mut world = if listener.is_empty() { World::new(shards, 27) } else { under(ROOM, shards, 27) };
        let (writer, watcher) = (world.join(0, "&ns=db"), world.join(1, "&ns=db"));
        done(&mut world, writer, r#"{"r":1,"a":"p","b":{"p":"/open","d":true}}"#);
        if !listener.is_empty() {
            done(&mut world, watcher, listener);
        }
        done(&mut world, watcher, r#"{"r":2,"a":"q","b":{"p":"/room","h":""}}"#);
        change(&mut world, watcher);
        world.settle();
        done(&mut world, writer, r#"{"r":2,"a":"p","b":{"p":"/open","d":false}}"#);
        last_messages(&mut world, watcher);
        done(&mut world, writer, r#"{"r":3,"a":"p","b":{"p":"/room","d":"secret"}}"#);
        let heard = last_messages(&mut world, watcher);
        assert!(heard.len() == 1 && heard[0].contains(r#""a":"c""#), "{heard:?}");
    });
}

#[test]
fn a_kept_listen_hangs_on_data_from_when_its_permission_does() {
    check_kept_listen("", |world, _| {
        let rules = Arc::new(crate::rules::Ruleset::parse(ROOM, crate::rules::Dialect::Firebase).unwrap());
        world.input_all(|| Input::Rules(rules.clone()));
    });
    check_kept_listen(r#"{"r":1,"a":"auth","b":{"cred":"owner"}}"#, |world, watcher| {
        done(world, watcher, r#"{"r":3,"a":"unauth","b":{}}"#);
    });
}

#[test]
fn nobody_overtakes_the_last_words_of_who_was_replaced_before() {
    for seed in 0..40 {
        for last_home in 0..3 {
            let mut world = World::new(3, seed);
            let first = world.join(0, "&ns=db");
            let watcher = world.join(1, "&ns=db");
            let first_id = session_of(&mut world, first);
            done(&mut world, first, r#"{"r":1,"a":"o","b":{"p":"/s","d":"off"}}"#);
            // The second waits for the first, and is gone before it need wait no more.
            let second = world.join(1, &format!("&ns=db&ls={first_id}"));
            let hello = world.take(second).pop().expect("a handshake");
            let at = hello.find(r#""s":""#).expect("it names the session") + 5;
            let second_id = hello[at..].split('"').next().unwrap().to_owned();
            world.hang_up(second, Hangup::Broken);
            let third = world.join(last_home, &format!("&ns=db&ls={second_id}"));
            world.send(third, r#"{"t":"d","d":{"r":1,"a":"p","b":{"p":"/s","d":"on"}}}"#);
            world.settle();
            assert_eq!(value_at(&mut world, watcher, "/s"), r#""on""#, "seed {seed}, home {last_home}");
            assert_eq!(world.session_count(), 2, "the watcher and the third");
        }
    }
}

#[test]
fn nobody_overtakes_last_words_that_are_on_their_way() {
    for seed in 0..40 {
        let mut world = World::new(3, seed);
        let (old, watcher) = (world.join(0, "&ns=db"), world.join(1, "&ns=db"));
        let id = session_of(&mut world, old);
        done(&mut world, old, r#"{"r":1,"a":"o","b":{"p":"/s","d":"off"}}"#);
        // Its end is known at home, but not yet where the data is.
        world.hang_up(old, Hangup::Broken);
        let new = world.join(2, &format!("&ns=db&ls={id}"));
        world.send(new, r#"{"t":"d","d":{"r":1,"a":"p","b":{"p":"/s","d":"on"}}}"#);
        world.settle();
        assert_eq!(value_at(&mut world, watcher, "/s"), r#""on""#, "seed {seed}");
    }
}

#[test]
fn without_memory_nothing_new_is_taken_in_and_what_makes_room_is() {
    for_shards(|shards| {
        let mut world = World::new(shards, 30);
        let (client, watcher) = (world.join(0, "&ns=db"), world.join(1, "&ns=db"));
        last_messages(&mut world, client);
        last_messages(&mut world, watcher);
        done(&mut world, client, r#"{"r":1,"a":"p","b":{"p":"/a","d":{"x":1,"y":2,"z":3}}}"#);
        let full = r#"the server's memory is full, so it takes only deletes"#;
        let refused = |world: &mut World, client: Client, request: &str| {
            let heard = ask(world, client, request);
            assert!(heard.last().expect("an answer").contains(full), "{request}: {heard:?}");
        };
        world.input_all(|| Input::Room(Room::Little));
        for write in [
            r#"{"r":2,"a":"p","b":{"p":"/b","d":1}}"#,
            r#"{"r":2,"a":"m","b":{"p":"/","d":{"a/x":null,"b":1}}}"#,
            r#"{"r":2,"a":"p","b":{"p":"/a/x","d":2,"h":""}}"#,
        ] {
            refused(&mut world, client, write);
        }
        // Who is there may still leave something and listen; nobody else comes.
        done(&mut world, client, r#"{"r":3,"a":"o","b":{"p":"/left","d":"gone"}}"#);
        done(&mut world, watcher, r#"{"r":1,"a":"q","b":{"p":"/","h":""}}"#);
        let late = world.join(0, "&ns=db");
        world.settle();
        assert!(
            world.response(late).contains(" 503 ") && world.response(late).contains(full),
            "{}",
            world.response(late)
        );
        world.input_all(|| Input::Room(Room::None));
        refused(&mut world, client, r#"{"r":4,"a":"o","b":{"p":"/more","d":1}}"#);
        refused(&mut world, watcher, r#"{"r":2,"a":"q","b":{"p":"/a","h":""}}"#);
        done(&mut world, client, r#"{"r":5,"a":"p","b":{"p":"/a/x","d":null}}"#);
        done(&mut world, client, r#"{"r":6,"a":"m","b":{"p":"/a","d":{"y":null,"none":null}}}"#);
        assert_eq!(value_at(&mut world, client, "/"), r#"{"a":{"z":3}}"#);
        let rest = world.dial(0);
        world.send_bytes(rest, b"DELETE /a/z.json?ns=db HTTP/1.1\r\nHost: x\r\n\r\n");
        world.settle();
        assert!(world.response(rest).contains(" 200 "), "{}", world.response(rest));
        world.hang_up(client, Hangup::Broken);
        last_messages(&mut world, watcher);
        assert_eq!(value_at(&mut world, watcher, "/"), r#"{"left":"gone"}"#, "what was left is spoken");
        world.input_all(|| Input::Room(Room::Ample));
        done(&mut world, watcher, r#"{"r":3,"a":"p","b":{"p":"/b","d":1}}"#);
        let late = world.join(0, "&ns=db");
        assert!(!last_messages(&mut world, late).is_empty());
    });
}

#[test]
fn without_memory_a_long_body_is_not_read_to_its_end() {
    let mut world = World::new(2, 31);
    let client = world.dial(0);
    world.send_bytes(client, b"PUT /a.json?ns=db HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n\"");
    world.settle();
    world.input_all(|| Input::Room(Room::Little));
    for _ in 0..100 {
        if world.is_open(client) {
            world.send_bytes(client, &[b'x'; 1_000]);
        }
    }
    world.settle();
    assert!(!world.is_open(client));
    assert!(world.response(client).contains(" 503 "), "{}", world.response(client));
}
