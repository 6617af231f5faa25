//! How long a check takes: `cargo bench --bench rules`.
//!
//! The first is the product's most frequent one: a client tells that it is there. Its goal is 250 ns
//! on a quiet core.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::{Value, json};
use stillhere::base::WallMillis;
use stillhere::data::{Children, Draft, Key, Node, Path};
use stillhere::json::Reader;
use stillhere::op::{Identity, Query};
use stillhere::rules::{Ask, Change, Dialect, Ruleset, What};

const NOW: WallMillis = WallMillis(1_700_000_000_000);

const RULES: &str = r#"{"rules": {
    "status": {"$uid": {
        ".read": "auth != null",
        ".write": "auth != null && auth.uid == $uid",
        ".validate": "newData.hasChildren(['state', 'lastChanged'])",
        "state": {".validate": "newData.val() == 'online' || newData.val() == 'offline'"},
        "lastChanged": {".validate": "newData.val() == now"}
    }},
    "rooms": {"$room": {
        ".read": "root.child('members/' + $room + '/' + auth.uid).exists()",
        "messages": {"$id": {
            ".write": "root.child('members').child($room).child(auth.uid).val() == 'writer' && !data.exists()",
            ".validate": "newData.val().length > 0 && newData.val().length < 500 && newData.val().matches(/^[^<>]*$/)"
        }}
    }}
}}"#;

fn node(json: &str) -> Node {
    let draft = Reader::default().read(&mut json.as_bytes().to_vec(), |item| Draft::from_json(item, 0));
    draft.expect("JSON").expect("storable").resolve(&Node::Empty, NOW)
}

/// A tree with 100,000 users and a room of 100,000 members.
fn root() -> Node {
    let mut users = Children::new();
    let mut members = Children::new();
    for index in 0..100_000 {
        let key = Key::parse(&format!("user{index:06}")).expect("a key");
        users.insert(key.clone(), node(r#"{"state":"offline","lastChanged":1600000000000}"#));
        members.insert(key, Node::text("writer"));
    }
    let mut root = Node::Empty;
    root.set("status", Node::branch(users));
    root.set("members/lobby", Node::branch(members));
    root
}

/// What the rules of a presence write say, written by hand: the least that the job takes.
fn may_write_by_hand(identity: &Identity, uid: &str, new: &Node, states: &[Node; 2], now: &Node) -> bool {
    identity.uid() == Some(uid) && states.contains(new.at("state")) && new.at("lastChanged") == now
}

/// The same on JSON values, which a server without a tree of its own would read from its store first.
fn may_write_by_values(identity: &Identity, uid: &str, new: &str) -> bool {
    let Ok(new) = serde_json::from_str::<Value>(new) else { return false };
    let is_state = matches!(new["state"].as_str(), Some("online" | "offline"));
    identity.uid() == Some(uid) && is_state && new["lastChanged"].as_u64() == Some(NOW.0)
}

fn by_hand(criterion: &mut Criterion) {
    let text = r#"{"state":"online","lastChanged":1700000000000}"#;
    let (new, now) = (node(text), node("1700000000000"));
    let states = [Node::text("online"), Node::text("offline")];
    let auth = json!({"uid": "user050000", "provider": "custom"});
    let identity = Identity { is_admin: false, auth, expires_s: None };
    assert!(may_write_by_hand(&identity, "user050000", &new, &states, &now));
    assert!(may_write_by_values(&identity, "user050000", text));
    criterion.bench_function("presence write, checked by hand", |bencher| {
        bencher.iter(|| may_write_by_hand(black_box(&identity), "user050000", black_box(&new), &states, &now));
    });
    criterion.bench_function("presence write, checked by hand on a JSON value", |bencher| {
        bencher.iter(|| may_write_by_values(black_box(&identity), "user050000", black_box(text)));
    });
}

fn checks(criterion: &mut Criterion) {
    let rules = Ruleset::parse(RULES, Dialect::Firebase).expect("the rules are right");
    let root = root();
    let identity = Identity {
        is_admin: false,
        auth: json!({"uid": "user050000", "provider": "custom", "token": {"sub": "user050000"}}),
        expires_s: None,
    };
    let ask = Ask { root: &root, identity: &identity, now: NOW };
    let mut write = |name: &str, path: &str, new: &str| {
        let (path, new) = (Path::parse(path).expect("a path"), node(new));
        let changes = [Change { path: &path, what: What::Value(&new) }];
        assert!(rules.may_write(&ask, &changes).is_allowed(), "{name}");
        criterion
            .bench_function(name, |bencher| bencher.iter(|| rules.may_write(black_box(&ask), black_box(&changes))));
    };
    let here = r#"{"state":"online","lastChanged":{".sv":"timestamp"}}"#;
    write("presence write: 1 .write, 3 .validate", "status/user050000", here);
    write("presence remove", "status/user050000", "null");
    write("message: membership among 100,000, a pattern", "rooms/lobby/messages/m1", "\"hello everybody in here\"");
    let mut read = |name: &str, path: &str| {
        let path = Path::parse(path).expect("a path");
        assert!(rules.may_read(&ask, &path, &Query::ALL).is_allowed(), "{name}");
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| rules.may_read(black_box(&ask), black_box(&path), &Query::ALL));
        });
    };
    read("read: signed in", "status/user050000");
    read("read: membership among 100,000, built path", "rooms/lobby");
}

criterion_group!(benches, checks, by_hand);
criterion_main!(benches);
