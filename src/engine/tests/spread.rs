//! A database over several cores behaves as on one.

use super::*;
use crate::engine::Hangup;

/// Everything that two clients hear while one after the other asks, with so many cores; and whether the database is
/// spread at the end.
fn conversation(shards: u8, requests: &[(usize, &str)]) -> (Vec<String>, bool) {
    let mut world = World::new(shards, 77);
    let clients = [world.join(0, "&ns=db"), world.join(1, "&ns=db")];
    world.settle();
    clients.iter().for_each(|client| drop(world.take(*client)));
    let mut heard = Vec::new();
    for (number, (who, request)) in requests.iter().enumerate() {
        world.send(clients[*who], &format!(r#"{{"t":"d","d":{{"r":{number},{request}}}}}"#));
        world.settle();
        for (index, client) in clients.iter().enumerate() {
            // Windows of one place may be told of in any order, and the places of an update, too.
            let texts = world.take(*client).into_iter();
            let values =
                texts.map(|text| serde_json::from_str::<serde_json::Value>(&text).expect("engines speak JSON"));
            let mut texts: Vec<String> = values.map(|value| value.to_string()).collect();
            texts.sort_unstable();
            heard.extend(texts.into_iter().map(|text| format!("{index}: {text}")));
        }
    }
    let is_spread = world.is_spread("db");
    world.hang_up(clients[1], Hangup::Broken);
    world.settle();
    heard.push(value_at(&mut world, clients[0], "/"));
    (heard, is_spread)
}

#[track_caller]
fn check(requests: &[(usize, &str)], stays_spread: bool) {
    let (alone, _) = conversation(1, requests);
    for shards in 2..=8 {
        let (heard, is_spread) = conversation(shards, requests);
        for (heard, alone) in heard.iter().zip(&alone) {
            assert_eq!(heard, alone, "with {shards} cores");
        }
        assert_eq!(heard.len(), alone.len(), "with {shards} cores");
        assert_eq!(is_spread, stays_spread, "with {shards} cores");
    }
}

/// Something to begin with: eight users, whom some of the cores hold.
const USERS: [(usize, &str); 8] = [
    (0, r#""a":"p","b":{"p":"/s/a","d":{"n":8}}"#),
    (0, r#""a":"p","b":{"p":"/s/b","d":{"n":7}}"#),
    (1, r#""a":"p","b":{"p":"/s/c","d":{"n":6}}"#),
    (0, r#""a":"p","b":{"p":"/s/d","d":{"n":5}}"#),
    (1, r#""a":"p","b":{"p":"/s/e","d":{"n":4}}"#),
    (0, r#""a":"p","b":{"p":"/s/f","d":{"n":3}}"#),
    (0, r#""a":"p","b":{"p":"/t/g","d":{"n":2}}"#),
    (0, r#""a":"p","b":{"p":"/t/h","d":{"n":1}}"#),
];

fn after_users<'r>(requests: &[(usize, &'r str)]) -> Vec<(usize, &'r str)> {
    USERS.iter().copied().chain(requests.iter().copied()).collect()
}

#[test]
fn what_is_asked_of_parts_and_above_them_is_answered_as_by_one() {
    let requests = [
        (0, r#""a":"q","b":{"p":"/s","h":""}"#),
        (1, r#""a":"q","b":{"p":"/","h":""}"#),
        (0, r#""a":"g","b":{"p":"/","q":{}}"#),
        (1, r#""a":"g","b":{"p":"/s","q":{"i":"n","l":2,"vf":"r"}}"#),
        (1, r#""a":"p","b":{"p":"/s/a/n","d":{".sv":{"increment":1}}}"#),
        (0, r#""a":"p","b":{"p":"/s/x","d":"new"}"#),
        (0, r#""a":"p","b":{"p":"/s/x","d":null}"#),
        (0, r#""a":"m","b":{"p":"/s/b","d":{"n":1,"o/p":2}}"#),
        (1, r#""a":"p","b":{"p":"/s/c/.priority","d":3}"#),
        (0, r#""a":"n","b":{"p":"/s"}"#),
        (1, r#""a":"p","b":{"p":"/s/d","d":0}"#),
        (1, r#""a":"p","b":{"p":"/s/d","d":1,"h":"no"}"#),
        (1, r#""a":"o","b":{"p":"/s/a/gone","d":true}"#),
        (1, r#""a":"o","b":{"p":"/t/g","d":"bye"}"#),
        (1, r#""a":"o","b":{"p":"/s/e","d":null}"#),
        (1, r#""a":"oc","b":{"p":"/s/e","d":null}"#),
    ];
    check(&after_users(&requests), true);
}

#[test]
fn windows_above_the_parts_move_as_one() {
    let limits = [
        (0, r#""a":"q","b":{"p":"/s","q":{"i":"n","l":3,"vf":"l"},"t":1,"h":""}"#),
        (1, r#""a":"q","b":{"p":"/s","q":{"i":"n","l":3,"vf":"r"},"t":2,"h":""}"#),
        (1, r#""a":"q","b":{"p":"/s","q":{"i":".key","l":2,"vf":"r"},"t":3,"h":""}"#),
        (1, r#""a":"q","b":{"p":"/s","q":{"i":"n","sp":4,"ep":6},"t":4,"h":""}"#),
        (0, r#""a":"p","b":{"p":"/s/a/n","d":1}"#),
        (0, r#""a":"p","b":{"p":"/s/zz","d":{"n":9}}"#),
        (1, r#""a":"p","b":{"p":"/s/a","d":null}"#),
        (1, r#""a":"p","b":{"p":"/s/f","d":null}"#),
        (0, r#""a":"p","b":{"p":"/s/e","d":null}"#),
        (0, r#""a":"p","b":{"p":"/s/zz","d":null}"#),
        (1, r#""a":"n","b":{"p":"/s","t":2}"#),
        (0, r#""a":"p","b":{"p":"/s/b/n","d":0}"#),
    ];
    check(&after_users(&limits), true);
}

/// Each of these needs all in one place; what was open before goes on.
#[test]
fn what_needs_the_whole_makes_it_whole() {
    let before = [
        (0, r#""a":"q","b":{"p":"/s","q":{"i":"n","l":2,"vf":"l"},"t":1,"h":""}"#),
        (1, r#""a":"q","b":{"p":"/","h":""}"#),
        (1, r#""a":"o","b":{"p":"/s/a","d":"bye"}"#),
        (1, r#""a":"o","b":{"p":"/t/h","d":"bye"}"#),
        (1, r#""a":"o","b":{"p":"/s/b","d":"bye"}"#),
    ];
    let after = [
        (1, r#""a":"p","b":{"p":"/s/f/n","d":100}"#),
        (0, r#""a":"p","b":{"p":"/s/zz/n","d":0}"#),
        (0, r#""a":"p","b":{"p":"/s/zz","d":null}"#),
        (0, r#""a":"n","b":{"p":"/s","t":1}"#),
        (0, r#""a":"g","b":{"p":"/","q":{}}"#),
    ];
    let joint = [
        r#""a":"p","b":{"p":"/s","d":{"a":1,".priority":2}}"#,
        r#""a":"p","b":{"p":"/s","d":{"a":1,".priority":{".sv":"timestamp"}}}"#,
        r#""a":"p","b":{"p":"/","d":{"s":{"a":1,".priority":2}}}"#,
        r#""a":"p","b":{"p":"/","d":{"s":{"a":1},".priority":2}}"#,
        r#""a":"p","b":{"p":"/","d":5}"#,
        r#""a":"p","b":{"p":"/t/.priority","d":1}"#,
        r#""a":"m","b":{"p":"/","d":{"s/a":1,"s/b":2,"t/.priority":3}}"#,
        r#""a":"m","b":{"p":"/","d":{"s/a":1,"s/b":2,"t":{"x":3,".priority":4}}}"#,
        r#""a":"m","b":{"p":"/","d":{}}"#,
        r#""a":"m","b":{"p":"/s","d":{"a":1},"h":"no"}"#,
        r#""a":"q","b":{"p":"/","q":{"i":".key","l":1,"vf":"l"},"t":9,"h":""}"#,
        r#""a":"om","b":{"p":"/","d":{"s/a":0,"s/b":0,"s/c":0,"s/d":0,"t/g":0}}"#,
        r#""a":"oc","b":{"p":"/","d":null}"#,
        r#""a":"oc","b":{"p":"/s","d":null}"#,
    ];
    for request in joint {
        let requests: Vec<_> = before.iter().copied().chain([(0, request)]).chain(after.iter().copied()).collect();
        check(&after_users(&requests), false);
    }
}

/// Who listens above, beside and below hears of an update as of one, whoever holds its places.
#[test]
fn an_update_of_several_owners_is_one_update() {
    let requests = [
        (0, r#""a":"q","b":{"p":"/s","q":{"i":"n","l":3,"vf":"l"},"t":1,"h":""}"#),
        (1, r#""a":"q","b":{"p":"/s","q":{"i":"n","l":3,"vf":"r"},"t":2,"h":""}"#),
        (0, r#""a":"q","b":{"p":"/s","q":{"i":"n","sp":4,"ep":6},"t":3,"h":""}"#),
        (1, r#""a":"q","b":{"p":"/","h":""}"#),
        (0, r#""a":"q","b":{"p":"/s","h":""}"#),
        (0, r#""a":"q","b":{"p":"/t","h":""}"#),
        (1, r#""a":"q","b":{"p":"/s/a","h":""}"#),
        (0, r#""a":"q","b":{"p":"/t/h/n","h":""}"#),
        (
            0,
            r#""a":"m","b":{"p":"/","d":{"s/c":{"n":0},"s/a/n":5,"t/h":null,"s/f/n":{".sv":{"increment":3}},"t/z/n":1}}"#,
        ),
        (1, r#""a":"m","b":{"p":"/s","d":{"e":{"n":9},"d":null,"b/.priority":2,"zz/n":4,"a/o":1}}"#),
        (0, r#""a":"m","b":{"p":"/","d":{"s/a":null,"s/b":null,"s/c":null,"s/e":null,"s/f":null,"s/zz":null}}"#),
        (0, r#""a":"m","b":{"p":"/","d":{"s/a/at":{".sv":"timestamp"},"s/b/at":{".sv":"timestamp"},"t/g":7}}"#),
        (1, r#""a":"n","b":{"p":"/s","t":2}"#),
        (1, r#""a":"n","b":{"p":"/"}"#),
        (0, r#""a":"m","b":{"p":"/","d":{"s/a/n":1,"s/b/n":2,"s/c/n":3,"s/d/n":4,"t/g":5}}"#),
        (0, r#""a":"g","b":{"p":"/","q":{}}"#),
    ];
    check(&after_users(&requests), true);
}

/// Those who listen where somebody is about to write above the parts.
const ABOVE: [(usize, &str); 12] = [
    (0, r#""a":"q","b":{"p":"/s","q":{"i":"n","l":3,"vf":"l"},"t":1,"h":""}"#),
    (1, r#""a":"q","b":{"p":"/s","q":{"i":"n","l":3,"vf":"r"},"t":2,"h":""}"#),
    (1, r#""a":"q","b":{"p":"/leaf","q":{"i":".key","l":3,"vf":"r"},"t":3,"h":""}"#),
    (1, r#""a":"q","b":{"p":"/","h":""}"#),
    (0, r#""a":"q","b":{"p":"/s","h":""}"#),
    (0, r#""a":"q","b":{"p":"/t","h":""}"#),
    (1, r#""a":"q","b":{"p":"/s/a","h":""}"#),
    (1, r#""a":"q","b":{"p":"/s/b/n","h":""}"#),
    (0, r#""a":"q","b":{"p":"/t/h/n","h":""}"#),
    (1, r#""a":"q","b":{"p":"/leaf","h":""}"#),
    (0, r#""a":"q","b":{"p":"/leaf/x","h":""}"#),
    (0, r#""a":"q","b":{"p":"/leaf","h":""}"#),
];

#[test]
fn what_is_written_above_the_parts_is_one_write() {
    let requests = [
        (0, r#""a":"p","b":{"p":"/s","d":{"a":{"n":1},"b":{"n":7},"zz":{"n":0},"y":{"at":{".sv":"timestamp"}}}}"#),
        (1, r#""a":"p","b":{"p":"/s","d":{"a":{"n":{".sv":{"increment":4}}},"b":{"n":7},"zz":{"n":0}}}"#),
        (1, r#""a":"p","b":{"p":"/s","d":{"a":{"n":5},"b":{"n":7},"zz":{"n":0}}}"#),
        (0, r#""a":"m","b":{"p":"/","d":{"s":{"a":{"n":5},"b":{"n":7},"zz":{"n":0}},"t/g":3}}"#),
        (0, r#""a":"m","b":{"p":"/","d":{"s":{"a":{"n":6},"c":[1,2,null,3]},"t/g":null,"u/v":1}}"#),
        (1, r#""a":"m","b":{"p":"/","d":{"s":null,"t":{"h":{"n":1},"i":{"n":2,".priority":3}}}}"#),
        (1, r#""a":"p","b":{"p":"/t","d":null}"#),
        (1, r#""a":"p","b":{"p":"/t","d":null}"#),
        (0, r#""a":"p","b":{"p":"/s/a","d":{"n":1}}"#),
        (0, r#""a":"p","b":{"p":"/","d":{"s":{"b":{"n":1},"d":{"n":2}},"t":{"h":{"n":8}},"w":{}}}"#),
        (0, r#""a":"g","b":{"p":"/","q":{}}"#),
        (0, r#""a":"g","b":{"p":"/s","q":{"i":"n","l":1,"vf":"r"}}"#),
        (1, r#""a":"p","b":{"p":"/","d":null}"#),
        (1, r#""a":"p","b":{"p":"/s/a","d":{"n":2}}"#),
    ];
    check(&after_users(&[&ABOVE[..], &requests].concat()), true);
}

/// Each part has the leaf, and nobody sees more than one.
#[test]
fn a_leaf_above_the_parts_is_one_leaf() {
    let requests = [
        (0, r#""a":"p","b":{"p":"/leaf","d":5}"#),
        (1, r#""a":"p","b":{"p":"/leaf","d":{".sv":{"increment":3}}}"#),
        (0, r#""a":"g","b":{"p":"/leaf","q":{}}"#),
        (1, r#""a":"g","b":{"p":"/","q":{}}"#),
        (0, r#""a":"g","b":{"p":"/leaf/x","q":{}}"#),
        (0, r#""a":"g","b":{"p":"/leaf","q":{"i":".key","l":1,"vf":"l"}}"#),
        (1, r#""a":"p","b":{"p":"/leaf/x","d":null}"#),
        (1, r#""a":"m","b":{"p":"/","d":{"leaf/x":null,"leaf/y/z":null,"s/a/n":1,"s/b/n":2}}"#),
        (1, r#""a":"o","b":{"p":"/leaf/x","d":null}"#),
        (1, r#""a":"p","b":{"p":"/leaf","d":{".value":true,".priority":{".sv":"timestamp"}}}"#),
        (0, r#""a":"m","b":{"p":"/","d":{"leaf":{".sv":"timestamp"},"t":"text"}}"#),
        (1, r#""a":"n","b":{"p":"/leaf"}"#),
        (1, r#""a":"q","b":{"p":"/leaf","h":""}"#),
        (1, r#""a":"p","b":{"p":"/leaf","d":{"x":{"n":1},"y":2,"z":3}}"#),
        (0, r#""a":"p","b":{"p":"/leaf/x/n","d":2}"#),
        (0, r#""a":"p","b":{"p":"/","d":{"leaf":6,"s":"s","t":{"h":{"n":9}}}}"#),
        (1, r#""a":"p","b":{"p":"/s","d":null}"#),
    ];
    check(&after_users(&[&ABOVE[..], &requests].concat()), true);
}

/// What stands above the parts is compared with what a client believes as if one core had all of it.
#[test]
fn a_transaction_above_the_parts_is_one_transaction() {
    let number = |number: i64| crate::data::Node::leaf(crate::data::Leaf::Number(crate::data::Number::Int(number)));
    let mut both = crate::data::Node::Empty;
    ["x/n", "y/n", "z"].iter().for_each(|place| drop(both.set(place, number(1))));
    let set = |value: &str, hash: &str| format!(r#""a":"p","b":{{"p":"/leaf","d":{value},"h":"{hash}"}}"#);
    let requests = [
        set("1", "no"),
        set(r#"{"x":{"n":1},"y":{"n":1},"z":{".sv":{"increment":1}}}"#, ""),
        set("2", ""),
        set("2", &number(1).hash()),
        set("2", &both.hash()),
        set("3", &both.hash()),
        set(r#"{".sv":{"increment":1}}"#, &number(2).hash()),
        set("null", &number(3).hash()),
        set("null", ""),
    ];
    let requests: Vec<(usize, &str)> = requests.iter().enumerate().map(|(at, text)| (at % 2, text.as_str())).collect();
    check(&after_users(&[&ABOVE[..], &requests].concat()), true);
}

#[test]
fn what_is_put_below_a_leaf_of_all_parts_makes_a_database_whole() {
    let below = [
        r#""a":"p","b":{"p":"/leaf/x","d":1}"#,
        r#""a":"p","b":{"p":"/leaf/x/n","d":{".sv":"timestamp"}}"#,
        r#""a":"m","b":{"p":"/","d":{"leaf/x":1,"s/a":2,"s/b":3,"s/c":4}}"#,
        r#""a":"m","b":{"p":"/leaf","d":{"x":1,"y":2,"z":null}}"#,
        r#""a":"p","b":{"p":"/leaf/.priority","d":1}"#,
    ];
    for request in below {
        let requests = [
            (0, r#""a":"p","b":{"p":"/leaf","d":{".value":5,".priority":7}}"#),
            (1, request),
            (1, r#""a":"p","b":{"p":"/leaf/x","d":8}"#),
            (0, r#""a":"g","b":{"p":"/leaf","q":{}}"#),
            (0, r#""a":"p","b":{"p":"/s","d":null}"#),
        ];
        check(&after_users(&[&ABOVE[..], &requests].concat()), false);
    }
    let left = [
        (0, r#""a":"o","b":{"p":"/leaf/x","d":"bye"}"#),
        (0, r#""a":"om","b":{"p":"/leaf/y","d":{"z":"bye"}}"#),
        (1, r#""a":"p","b":{"p":"/leaf","d":5}"#),
        (0, r#""a":"g","b":{"p":"/leaf","q":{}}"#),
    ];
    for shards in 1..=8 {
        let mut world = World::new(shards, 83);
        let clients = [world.join(0, "&ns=db"), world.join(1, "&ns=db")];
        world.settle();
        for (number, (who, request)) in left.iter().enumerate() {
            done(&mut world, clients[*who], &format!(r#"{{"r":{number},{request}}}"#));
        }
        assert!(world.is_spread("db") || shards == 1);
        world.hang_up(clients[0], Hangup::Broken);
        world.settle();
        assert!(!world.is_spread("db"));
        assert_eq!(value_at(&mut world, clients[1], "/"), r#"{"leaf":{"x":"bye","y":{"z":"bye"}}}"#);
        assert_eq!(world.stats().inner, 0);
    }
}

/// Each owner judges its own places: whoever says no, nothing is written, and everything goes on.
#[test]
fn an_update_that_one_owner_refuses_is_refused_by_all() {
    let text = r#"{"rules":{".read":true,"$room":{"$key":{".write":"!newData.hasChild('no')",
        "n":{".validate":"newData.isNumber()"}}}}}"#;
    let rules = Arc::new(crate::rules::Ruleset::parse(text, crate::rules::Dialect::Firebase).unwrap());
    let requests = [
        r#""a":"q","b":{"p":"/","h":""}"#,
        r#""a":"m","b":{"p":"/","d":{"s/a/n":1,"s/b/n":1,"s/c/n":1,"s/d/n":1,"s/e/n":1}}"#,
        r#""a":"m","b":{"p":"/","d":{"s/a/n":2,"s/b/n":2,"s/c/no":2,"s/d/n":2,"s/e/n":2}}"#,
        r#""a":"m","b":{"p":"/","d":{"s/a/n":3,"s/b/n":3,"s/c/n":3,"s/d/n":"x","s/e/n":3}}"#,
        r#""a":"m","b":{"p":"/","d":{"s/a/n":4,"s/b/n":4,"s/c/n":4,"s/d/n":4,"s/e/n":4}}"#,
    ];
    for_shards(|shards| {
        let mut world = World::with(shards, 82, &Arc::new(Settings::default()), &rules);
        let client = world.join(0, "&ns=db");
        last_messages(&mut world, client);
        let mut statuses = Vec::new();
        for (number, request) in requests.iter().enumerate() {
            let texts = ask(&mut world, client, &format!(r#"{{"r":{number},{request}}}"#));
            let last: serde_json::Value = serde_json::from_str(texts.last().expect("an answer")).unwrap();
            statuses.push((texts.len(), last["d"]["b"]["s"].as_str().unwrap_or_default().to_owned()));
        }
        let statuses: Vec<_> = statuses.iter().map(|(count, status)| (*count, status.as_str())).collect();
        let denied = (1, "permission_denied");
        assert_eq!(statuses, [(1, "ok"), (2, "ok"), denied, denied, (2, "ok")], "with {shards} cores");
        let whole = r#"{"s":{"a":{"n":4},"b":{"n":4},"c":{"n":4},"d":{"n":4},"e":{"n":4}}}"#;
        assert_eq!(value_at(&mut world, client, "/"), whole, "with {shards} cores");
        assert!(world.is_spread("db") || shards == 1);
        assert_eq!(world.stats().inner, 0, "nobody stands still");
    });
}

/// What is put together while an update is made holds all of it, or hears of all of it, once.
#[test]
fn an_update_comes_before_or_after_what_is_put_together() {
    let (mut before, mut after) = (0, 0);
    for seed in 0..600 {
        let mut world = World::new(8, seed);
        let clients = [world.join(seed as usize, "&ns=db"), world.join(seed as usize / 8, "&ns=db")];
        world.settle();
        clients.iter().for_each(|client| drop(world.take(*client)));
        world.send(clients[0], r#"{"t":"d","d":{"r":1,"a":"q","b":{"p":"/s","h":"?"}}}"#);
        for _ in 0..seed % 5 {
            world.deliver();
        }
        world.send(clients[1], r#"{"t":"d","d":{"r":1,"a":"m","b":{"p":"/s","d":{"a":1,"b":1}}}}"#);
        world.settle();
        let texts = world.take(clients[0]);
        let at = |wanted: &str| texts.iter().filter(|text| text.contains(wanted)).count();
        let in_first = at(r#""a":"d","b":{"p":"s","d":{"a":1,"b":1}}"#);
        let in_event = at(r#""a":"m","b":{"p":"s","d":{"a":1,"b":1}}"#);
        assert_eq!(in_first + in_event, 1, "seed {seed}: {texts:?}");
        assert_eq!(texts.len(), 2 + in_event, "seed {seed}: {texts:?}");
        (before, after) = (before + in_first, after + in_event);
    }
    assert!(before > 50, "{before}");
    assert!(after > 50, "{after}");
}

/// What is put together while something is written above the parts is what stood there before, or what stands there after.
#[test]
fn what_is_put_together_is_from_before_a_write_above_the_parts_or_from_after() {
    let (mut before, mut after) = (0, 0);
    for seed in 0..300 {
        let mut world = World::new(8, seed);
        let clients = [world.join(seed as usize, "&ns=db"), world.join(seed as usize / 8, "&ns=db")];
        world.settle();
        done(&mut world, clients[1], r#"{"r":1,"a":"p","b":{"p":"/s","d":{"x":0,"y":0,"z":0}}}"#);
        clients.iter().for_each(|client| drop(world.take(*client)));
        let is_read = seed % 2 == 0;
        let asked = if is_read { r#""a":"g","b":{"p":"/s"}"# } else { r#""a":"q","b":{"p":"/s","h":"?"}"# };
        world.send(clients[0], &format!(r#"{{"t":"d","d":{{"r":2,{asked}}}}}"#));
        for _ in 0..seed / 2 % 5 {
            world.deliver();
        }
        let (old, new) = (r#""d":{"x":0,"y":0,"z":0}"#, r#""d":{"a":1,"b":1,"c":1,"z":1}"#);
        world.send(clients[1], &format!(r#"{{"t":"d","d":{{"r":2,"a":"p","b":{{"p":"/s",{new}}}}}}}"#));
        world.settle();
        let texts = world.take(clients[0]);
        let is_one = |text: &&String| text.contains(old) || text.contains(new);
        let values = texts.iter().filter(|text| text.contains(r#""d":{""#) && text.contains(r#":1"#));
        assert!(values.clone().all(|text| is_one(&text)), "seed {seed}: {texts:?}");
        let at = |wanted: &str| texts.iter().filter(|text| text.contains(wanted)).count();
        assert_eq!(at(new), 1 - usize::from(is_read && at(old) == 1), "seed {seed}: {texts:?}");
        (before, after) = (before + at(old), after + usize::from(at(old) == 0));
    }
    assert!(before > 20, "{before} {after}");
    assert!(after > 20, "{before} {after}");
}

/// Rules forbid a listen and allow it again, and each core looks at it when it looks.
#[test]
fn a_listen_above_the_parts_has_ended_in_all_of_them_or_in_none() {
    let open = Arc::new(crate::rules::Ruleset::open());
    let text = r#"{"rules":{"$room":{".read":true,".write":true}}}"#;
    let closed = Arc::new(crate::rules::Ruleset::parse(text, crate::rules::Dialect::Firebase).unwrap());
    let mut counts = [0, 0];
    for seed in 0..60 {
        let mut world = World::with(4, seed, &Arc::new(Settings::default()), &open);
        let client = world.join(seed as usize, "&ns=db");
        last_messages(&mut world, client);
        done(&mut world, client, r#"{"r":1,"a":"q","b":{"p":"/","h":""}}"#);
        world.take(client);
        world.input_all(|| Input::Rules(closed.clone()));
        for _ in 0..seed % 30 {
            world.deliver();
        }
        world.input_all(|| Input::Rules(open.clone()));
        world.settle();
        let has_ended = world.take(client).iter().any(|text| text.contains(r#""a":"c""#));
        counts[usize::from(has_ended)] += 1;
        assert_eq!(world.stats().listens, usize::from(!has_ended), "seed {seed}");
        done(&mut world, client, r#"{"r":2,"a":"p","b":{"p":"/s/a","d":1}}"#);
    }
    assert!(counts[1] > 5, "{counts:?}");
}

/// Many want the same places, and rules give each to whoever comes first: an update gets all of its places or none.
#[test]
fn what_an_owner_has_said_yes_to_stays_free_until_it_is_written() {
    let text = r#"{"rules":{".read":true,"$room":{"$key":{".write":"!data.exists()"}}}}"#;
    let rules = Arc::new(crate::rules::Ruleset::parse(text, crate::rules::Dialect::Firebase).unwrap());
    let keys = ["a", "b", "c", "d", "e", "f"];
    let mut made = 0;
    for seed in 0..100 {
        let mut world = World::with(4, seed, &Arc::new(Settings::default()), &rules);
        let clients: Vec<_> = (0..6).map(|home| world.join(home, "&ns=db")).collect();
        world.settle();
        clients.iter().for_each(|client| drop(world.take(*client)));
        for (who, client) in clients.iter().enumerate() {
            let own = [keys[who], keys[(who + 1 + seed as usize % 5) % 6]];
            let body = if who < 4 {
                format!(r#""a":"m","b":{{"p":"/s","d":{{"{}":{who},"{}":{who}}}}}"#, own[0], own[1])
            } else {
                format!(r#""a":"p","b":{{"p":"/s/{}","d":{who}}}"#, own[0])
            };
            world.send(*client, &format!(r#"{{"t":"d","d":{{"r":1,{body}}}}}"#));
            for _ in 0..seed % 7 {
                world.deliver();
            }
        }
        world.settle();
        let mut winners = Vec::new();
        for (who, client) in clients.iter().enumerate() {
            let texts = world.take(*client);
            let is_done = texts.iter().any(|text| text.contains(r#""s":"ok""#));
            winners.extend(is_done.then_some(who));
        }
        let value = value_at(&mut world, clients[0], "/s");
        for (who, _) in clients.iter().enumerate() {
            let count = value.matches(&format!(":{who}")).count();
            let places = if who < 4 { 2 } else { 1 };
            let expected = if winners.contains(&who) { places } else { 0 };
            assert_eq!(count, expected, "of {who} in {value}, where {winners:?} were told ok, seed {seed}");
        }
        made += winners.iter().filter(|who| **who < 4).count();
        assert!(world.is_spread("db"));
    }
    assert!(made > 100, "{made}");
}

#[test]
fn last_words_are_limited_over_all_owners() {
    let word = |base: &str, count: usize| {
        let places: Vec<String> = (0..count).map(|place| format!(r#""{place}":1"#)).collect();
        format!(r#""a":"om","b":{{"p":"/{base}","d":{{{}}}}}"#, places.join(","))
    };
    let (first, second, third) = (word("s/a", 600), word("s/b", 600), word("s/c", 400));
    let requests = [(1, &*first), (1, &*second), (1, &*third), (1, &*word("s/a", 1)), (1, &*second)];
    check(&requests, true);
}

#[test]
fn an_operator_s_question_makes_a_database_whole_and_is_answered_from_all_parts() {
    for_shards(|shards| {
        let mut world = World::new(shards, 78);
        let client = world.join(0, "&ns=db");
        world.settle();
        for (number, key) in (0..).zip(["a", "b", "c", "d", "e"]) {
            let body = format!(r#"{{"r":{number},"a":"p","b":{{"p":"/s/{key}","d":{number}}}}}"#);
            done(&mut world, client, &body);
        }
        let admin = world.dial(2);
        let head =
            "GET /.stillhere/explain.json?ns=db&path=/s/d HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer owner\r\n\r\n";
        world.send_bytes(admin, head.as_bytes());
        world.settle();
        let (_, text) = world.take_response(admin).expect("an answer");
        let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&answer["preview"], &answer["last"]["cause"]), (&"3".into(), &"client".into()), "{text}");
        assert!(!world.is_spread("db"));
        assert_eq!(value_at(&mut world, client, "/s"), r#"{"a":0,"b":1,"c":2,"d":3,"e":4}"#);
    });
}

#[test]
fn quotas_count_over_all_cores() {
    use crate::engine::{Limits, Quota};
    let texts = |shards: u8| {
        let mut world = World::new(shards, 79);
        let quota = Quota { writes_per_second: Some(4), last_words_max: Some(3), ..Quota::default() };
        let limits = Arc::new(Limits { everywhere: quota, ..Limits::default() });
        world.input_all(|| Input::Limits(limits.clone()));
        let client = world.join(0, "&ns=db");
        last_messages(&mut world, client);
        let mut texts = Vec::new();
        for (number, key) in (0..).zip(["a", "b", "c", "d", "e", "f", "g", "h"]) {
            for action in ["p", "o"] {
                let body = format!(r#"{{"r":{number},"a":"{action}","b":{{"p":"/s/{key}","d":{number}}}}}"#);
                texts.extend(ask(&mut world, client, &body));
            }
        }
        texts
    };
    let alone = texts(1);
    assert_eq!(alone.iter().filter(|text| text.contains("ok")).count(), 4 + 3, "{alone:?}");
    for shards in 2..=8 {
        assert_eq!(texts(shards), alone, "with {shards} cores");
    }
}

/// A listen and a goodbye in one piece: the keeper hears of both before anybody else does.
#[test]
fn a_listen_above_the_parts_ends_with_its_session_however_soon() {
    use crate::wire::ws;
    for_shards(|shards| {
        let mut world = World::new(shards, 80);
        for home in 0..usize::from(shards) {
            let client = world.join(home, "&ns=db");
            world.settle();
            let mut bytes = Vec::new();
            let listen = r#"{"t":"d","d":{"r":1,"a":"q","b":{"p":"/","h":""}}}"#;
            ws::write_masked(&mut bytes, ws::Kind::Text, listen.as_bytes(), [1, 2, 3, 4]);
            ws::write_close_masked(&mut bytes, ws::close_code::NORMAL, "", [1, 2, 3, 4]);
            world.send_bytes(client, &bytes);
            world.settle();
            assert_eq!((world.session_count(), world.stats().listens), (0, 0), "at home on {home} of {shards}");
        }
        assert!(world.is_spread("db") || shards == 1);
    });
}

/// Rules that look beyond a part end what they do not allow, even where the keeper had no part of its own.
#[test]
fn rules_that_look_elsewhere_are_asked_where_all_is() {
    for_shards(|shards| {
        let homes = (0..usize::from(shards)).flat_map(|home| ["a", "b", "c", "d", "e", "f"].map(|key| (home, key)));
        for (home, key) in homes {
            let mut world = World::new(shards, 81);
            let client = world.join(home, "&ns=db");
            last_messages(&mut world, client);
            done(&mut world, client, &format!(r#"{{"r":1,"a":"q","b":{{"p":"/s/{key}","h":""}}}}"#));
            let text = r#"{"rules":{".read":"root.child('open').child('all').val() === true",".write":true}}"#;
            let rules = Arc::new(crate::rules::Ruleset::parse(text, crate::rules::Dialect::Firebase).unwrap());
            world.input_all(|| Input::Rules(rules.clone()));
            let heard = last_messages(&mut world, client);
            assert_eq!(heard, [format!(r#"{{"t":"d","d":{{"a":"c","b":{{"p":"s/{key}"}}}}}}"#)], "with {shards} cores");
            assert_eq!(world.stats().listens, 0);
        }
    });
}
