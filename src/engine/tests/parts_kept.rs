//! A database over several cores, each of which writes down its part.

use super::*;
use crate::engine::{Durability, Hangup, Settings};
use crate::rules::Ruleset;
use serde_json::json;

fn kept(shards: u8, durability: Durability) -> World {
    let settings = Settings { durability, ..Settings::default() };
    World::with(shards, 77, &Arc::new(settings), &Arc::new(Ruleset::open()))
}

/// Answers of the server to `client`, after everything is safe.
fn ask(world: &mut World, client: Client, action: &str, body: &str) -> Vec<String> {
    world.send(client, &format!(r#"{{"t":"d","d":{{"r":1,"a":"{action}","b":{body}}}}}"#));
    world.calm();
    world.take(client)
}

#[track_caller]
fn done(world: &mut World, client: Client, action: &str, body: &str) {
    let answers = ask(world, client, action, body);
    assert!(answers.iter().any(|answer| answer.contains(r#""s":"ok""#)), "{action} {body}: {answers:?}");
}

/// What stands at the root after the power has failed, and whether the database is spread then.
fn after_a_cut(mut world: World, shards: u8) -> (World, serde_json::Value, bool) {
    world.sync_all();
    let mut next = world.cut_power(shards);
    next.calm();
    let is_spread = next.is_spread("db");
    let reader = next.join(0, "&ns=db");
    let answers = ask(&mut next, reader, "g", r#"{"p":"/"}"#);
    let answer: serde_json::Value = serde_json::from_str(answers.last().expect("it is answered")).expect("it is JSON");
    next.hang_up(reader, Hangup::Finished);
    next.calm();
    (next, answer["d"]["b"]["d"].clone(), is_spread)
}

/// Does these to a database, cuts the power, and says whether what stands there is what did, and whether it is spread.
#[track_caller]
fn check(asked: &[(&str, &str)], stands: &serde_json::Value, is_spread: bool) {
    for (shards, then) in [(1, 3), (2, 2), (3, 5), (4, 1), (3, 3)] {
        let mut world = kept(shards, Durability::Fsync);
        let client = world.join(0, "&ns=db");
        world.calm();
        asked.iter().for_each(|(action, body)| done(&mut world, client, action, body));
        let (world, found, was_spread) = after_a_cut(world, then);
        assert_eq!(found, *stands, "{shards} to {then}");
        assert_eq!(was_spread, is_spread && then > 1, "{shards} to {then}");
        let (_, again, _) = after_a_cut(world, shards);
        assert_eq!(again, *stands, "{shards} to {then} to {shards}");
    }
}

#[test]
fn a_start_divides_what_can_be_done_apart() {
    let few = [
        ("p", r#"{"p":"/a/b","d":1}"#),
        ("p", r#"{"p":"/a/c","d":{"x":2}}"#),
        ("m", r#"{"p":"/d/e","d":{"f":3,"g/h":4}}"#),
        ("p", r#"{"p":"/d/k","d":5}"#),
        ("p", r#"{"p":"/a/b","d":null}"#),
    ];
    let stands = json!({"a": {"c": {"x": 2}}, "d": {"e": {"f": 3, "g": {"h": 4}}, "k": 5}});
    check(&few, &stands, true);
    // What made it whole is over with the server.
    let whole = [&few[..], &[("m", r#"{"p":"/","d":{"a/b":1,"a/z":2,"d/e/f":9}}"#)]].concat();
    check(&whole, &json!({"a": {"b": 1, "c": {"x": 2}, "z": 2}, "d": {"e": {"f": 9, "g": {"h": 4}}, "k": 5}}), true);
    // A leaf above the parts is everybody's, and there once.
    for value in [json!(7), json!({".value": 7, ".priority": 1})] {
        let mut stands = stands.clone();
        stands["top"] = value.clone();
        let above = format!(r#"{{"p":"/top","d":{value}}}"#);
        check(&[&few[..], &[("p", &above)]].concat(), &stands, true);
    }
    // A priority there is nobody's part.
    let mut ranked = stands.clone();
    ranked["a"][".priority"] = json!(3);
    check(&[&few[..], &[("p", r#"{"p":"/a/.priority","d":3}"#)]].concat(), &ranked, false);
    // What has been written above the parts is what their parts make, and a leaf is gone where something replaces it.
    let above = [
        ("p", r#"{"p":"/top","d":7}"#),
        ("p", r#"{"p":"/d","d":8}"#),
        ("p", r#"{"p":"/top","d":{"x":1,"y":2,"z":3}}"#),
        ("m", r#"{"p":"/","d":{"a":null,"e":9,"d/k":null}}"#),
    ];
    check(&[&few[..], &above].concat(), &json!({"d": 8, "e": 9, "top": {"x": 1, "y": 2, "z": 3}}), true);
    // What was left is spoken, and does not keep it whole.
    let words = [&few[..], &[("o", r#"{"p":"/a/c/x","d":8}"#), ("o", r#"{"p":"/d/k","d":null}"#)]].concat();
    check(&words, &json!({"a": {"c": {"x": 8}}, "d": {"e": {"f": 3, "g": {"h": 4}}}}), true);
    // Unless it leaves a priority above the parts.
    let words = [&few[..], &[("o", r#"{"p":"/a/.priority","d":3}"#)]].concat();
    check(&words, &ranked, false);
}

/// Whoever holds what is put below a leaf above the parts must know of the leaf.
#[test]
fn a_start_gives_a_leaf_above_the_parts_to_all() {
    for key in ["a", "b", "c", "d", "e", "f"] {
        let mut world = kept(2, Durability::Fsync);
        let client = world.join(0, "&ns=db");
        world.calm();
        done(&mut world, client, "p", r#"{"p":"/top","d":7}"#);
        let (mut world, found, is_spread) = after_a_cut(world, 4);
        assert_eq!((found, is_spread), (json!({"top": 7}), true));
        let client = world.join(0, "&ns=db");
        world.calm();
        done(&mut world, client, "p", &format!(r#"{{"p":"/top/{key}","d":1}}"#));
        assert!(!world.is_spread("db"), "all parts have to know");
        let (_, found, _) = after_a_cut(world, 3);
        assert_eq!(found, json!({"top": {key: 1}}));
    }
}

/// What has come together replaces what was safe long before: so it must be safe itself, whatever is promised of what
/// is new.
#[test]
fn what_has_come_together_is_synced_whatever_is_promised() {
    for durability in [Durability::Os, Durability::Fsync] {
        let mut world = kept(3, durability);
        let client = world.join(0, "&ns=db");
        world.calm();
        for key in ["a", "b", "c", "d", "e"] {
            done(&mut world, client, "p", &format!(r#"{{"p":"/s/{key}","d":1}}"#));
        }
        assert_eq!(world.take_syncs() > 0, durability == Durability::Fsync);
        done(&mut world, client, "p", r#"{"p":"/s/.priority","d":2}"#);
        assert!(!world.is_spread("db"));
        assert!(world.take_syncs() > 0, "{durability:?}");
    }
}

/// While the parts are on their way, the power fails: before, within and after what the keeper writes. A snapshot that is
/// under way meanwhile, or was asked for, loses nothing of what was left.
#[test]
fn a_snapshot_while_parts_go_home_loses_nothing_of_them() {
    let mut was_late = [0, 0];
    for seed in 0..60 {
        let settings = Settings { durability: Durability::Fsync, ..Settings::default() };
        let mut world = World::with(3, seed, &Arc::new(settings), &Arc::new(Ruleset::open()));
        let client = world.join(0, "&ns=db");
        world.calm();
        for key in ["a", "b", "c", "d", "e"] {
            done(&mut world, client, "p", &format!(r#"{{"p":"/s/{key}/is","d":1}}"#));
            done(&mut world, client, "o", &format!(r#"{{"p":"/s/{key}/was","d":1}}"#));
        }
        world.send(client, r#"{"t":"d","d":{"r":1,"a":"p","b":{"p":"/nothing/.priority","d":2}}}"#);
        world.carry(client, usize::MAX);
        // Before the keeper calls the parts home, or after.
        while seed % 4 == 0 && world.deliver() {}
        let is_taken =
            world.snapshot(usize::try_from(seed % 3).expect("it is small"), |world| while world.deliver() {});
        was_late[usize::from(is_taken)] += 1;
        let mut next = world.cut_power(2);
        next.calm();
        let reader = next.join(0, "&ns=db");
        next.calm();
        let answers = ask(&mut next, reader, "g", r#"{"p":"/s"}"#);
        let both = json!({"is": 1, "was": 1});
        let all = json!({"a": both, "b": both, "c": both, "d": both, "e": both});
        let answer: serde_json::Value =
            serde_json::from_str(answers.last().expect("it is answered")).expect("it is JSON");
        assert_eq!(answer["d"]["b"]["d"], all, "seed {seed}");
    }
    assert!(was_late[0] > 5 && was_late[1] > 5, "{was_late:?}");
}
