use std::num::NonZeroU32;

use super::*;
use crate::base::{Hashing, WallMillis};
use crate::data::{Draft, KeyStr, Leaf, Number, Path, Priority, compare_text};
use crate::json::Reader;
use crate::op::{Bound, BoundKey, BoundText, Index, Limit};

fn node(json: &str) -> Node {
    Reader::default()
        .read(&mut json.as_bytes().to_vec(), |item| Draft::from_json(item, 0))
        .expect("the test's JSON is JSON")
        .unwrap()
        .resolve(&Node::Empty, WallMillis(0))
}

/// Dice for histories.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn one_of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize].clone()
    }
}

// Queries in short: `index start..end limit`, as in `a 2..<5@k +3`.

fn leaf(text: &str) -> Option<Leaf> {
    match text {
        "null" => None,
        "true" => Some(Leaf::Bool(true)),
        "false" => Some(Leaf::Bool(false)),
        _ => Some(
            text.parse()
                .map_or_else(|_| Leaf::Text(text.into()), |number: f64| Leaf::Number(Number::from_double(number))),
        ),
    }
}

fn bound_key(text: &str) -> BoundKey {
    match text {
        "[MIN_NAME]" => BoundKey::Min,
        "[MAX_NAME]" => BoundKey::Max,
        _ => BoundKey::Key(BoundText(text.into())),
    }
}

/// `value`, `value@key`; with `<` in front: exclusive; empty: none.
fn bound(text: &str, is_key: bool, extreme: BoundKey) -> Option<Bound> {
    let (text, is_inclusive) = text.strip_prefix('<').map_or((text, true), |rest| (rest, false));
    if text.is_empty() {
        return None;
    }
    if is_key {
        return Some(Bound { value: None, key: bound_key(text), is_inclusive });
    }
    let (value, key) = text.split_once('@').map_or((text, extreme), |(value, key)| (value, bound_key(key)));
    Some(Bound { value: leaf(value), key, is_inclusive })
}

fn query(text: &str) -> Query {
    let mut parts = text.split(' ');
    let index = match parts.next().unwrap() {
        ".key" => Index::Key,
        ".value" => Index::Value,
        ".priority" => Index::Priority,
        path => Index::Child(Path::parse(path).unwrap()),
    };
    let mut query = Query { index, ..Query::ALL };
    for part in parts {
        if let Some((start, end)) = part.split_once("..") {
            let is_key = query.index == Index::Key;
            query.start = bound(start, is_key, BoundKey::Min).map(Box::new);
            query.end = bound(end, is_key, BoundKey::Max).map(Box::new);
        } else {
            let from = if part.starts_with('+') { Direction::First } else { Direction::Last };
            query.limit = Some(Limit { count: part[1..].parse().unwrap(), from });
        }
    }
    query
}

// Reading once

#[track_caller]
fn check(location: &str, asked: &str, expected: &[&str]) {
    let location = node(location);
    let query = query(asked);
    let got = members(&location, &query);
    assert_eq!(got.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), expected, "{asked}");
    assert!(got.iter().all(|(key, child)| location.child(key) == child));
    assert_eq!(select(&location, &query), naive(&location, &query), "{asked}");
}

const VALUES: &str = r#"{"o2":{"x":1},"o1":{"x":2},"t":"b","s":"a","n":10,"m":-1,"yes":true,"no":false}"#;
const HEIGHTS: &str =
    r#"{"a":{"h":3},"b":{"h":1},"c":{},"d":{"x":1},"e":{"h":"tall"},"f":{"h":{"y":1}},"g":{"h":3},"z":5}"#;
const RANKED: &str =
    r#"{"a":{".value":1,".priority":"x"},"b":{".value":1,".priority":2},"c":1,"d":{"k":1,".priority":1}}"#;
const KEYS: &str = r#"{"10":1,"9":1,"-1":1,"09":1,"a":1,"B":1,"b":1}"#;

#[test]
fn values_order_by_kind_then_value_then_key() {
    check(VALUES, ".value +9", &["no", "yes", "m", "n", "s", "t", "o1", "o2"]);
    check(VALUES, ".value -3", &["t", "o1", "o2"]);
    check(VALUES, ".value true..b", &["yes", "m", "n", "s", "t"]);
    check(VALUES, ".value <true..<b", &["yes", "m", "n", "s", "t"]);
    check(VALUES, ".value <true@[MAX_NAME]..<b@[MIN_NAME]", &["m", "n", "s"]);
    check(VALUES, ".value b..", &["t", "o1", "o2"]);
    check(VALUES, ".value ..-1", &["no", "yes", "m"]);
    check(VALUES, ".value null..false", &["no"]);
}

#[test]
fn children_without_the_indexed_value_come_first() {
    check(HEIGHTS, "h +2", &["d", "z"]);
    check(HEIGHTS, "h null..", &["d", "z", "b", "a", "g", "e", "f"]);
    check(HEIGHTS, "h null..null", &["d", "z"]);
    check(HEIGHTS, "h 2..", &["a", "g", "e", "f"]);
    check(HEIGHTS, "h 3@b..", &["g", "e", "f"]);
    check(HEIGHTS, "h <3@a..3@g", &["g"]);
    check(HEIGHTS, "h 3@a..<3@g", &["a"]);
    check(HEIGHTS, "h 3..3", &["a", "g"]);
    check(HEIGHTS, "h ..3 -2", &["a", "g"]);
    check(HEIGHTS, "h/y 1..1", &["f"]);
}

#[test]
fn priorities_order_none_numbers_texts() {
    check(RANKED, ".priority +4", &["c", "d", "b", "a"]);
    check(RANKED, ".priority 1..", &["d", "b", "a"]);
    check(RANKED, ".priority <1@[MAX_NAME]..<x", &["b", "a"]);
    check(RANKED, ".priority null..null", &["c"]);
}

#[test]
fn keys_order_numbers_first_and_bounds_may_be_no_keys() {
    check(KEYS, ".key +9", &["-1", "9", "09", "10", "B", "a", "b"]);
    check(KEYS, ".key 9..a", &["9", "09", "10", "B", "a"]);
    check(KEYS, ".key <9..<a", &["09", "10", "B"]);
    check(KEYS, ".key [MIN_NAME]..[MAX_NAME] -1", &["b"]);
    check(KEYS, ".key [MAX_NAME]..", &[]);
    check(KEYS, &format!(".key ..<a{}", "z".repeat(785)), &["-1", "9", "09", "10", "B", "a"]);
    check(KEYS, &format!(".key a{}..", "z".repeat(785)), &["b"]);
    check(KEYS, ".key a.b$c..", &["b"]);
}

#[test]
fn a_range_that_ends_before_it_begins_is_empty() {
    check(KEYS, ".key b..a", &[]);
    check(KEYS, ".key <a..<a", &[]);
    check(KEYS, ".key <a..a", &[]);
    check(KEYS, ".key a..a", &["a"]);
    check(HEIGHTS, "h 5..2 +3", &[]);
}

#[test]
fn leaves_have_no_children_and_a_filtered_node_no_priority() {
    for location in ["null", "5", r#"{".value":5,".priority":1}"#] {
        assert_eq!(select(&node(location), &query(".key +5")), Node::Empty);
        assert_eq!(select(&node(location), &Query::ALL), node(location));
    }
    let location = node(r#"{"a":{".value":1,".priority":2},"b":1,".priority":3}"#);
    assert_eq!(select(&location, &query(".key +1")), node(r#"{"a":{".value":1,".priority":2}}"#));
    assert_eq!(select(&location, &query(".key")), location);
}

// The obvious implementation: sort everything, drop what is outside, cut. It shares no code with ours.

/// As JavaScript would compare: kind, then number, then text.
type NaiveRank = (u8, f64, String);

fn naive_rank(leaf: Option<&Leaf>) -> NaiveRank {
    match leaf {
        None => (0, 0.0, String::new()),
        Some(Leaf::Bool(false)) => (1, 0.0, String::new()),
        Some(Leaf::Bool(true)) => (2, 0.0, String::new()),
        Some(Leaf::Number(number)) => (3, number.as_double(), String::new()),
        Some(Leaf::Text(text)) => (4, 0.0, text.to_string()),
    }
}

fn naive_index(index: &Index, child: &Node) -> NaiveRank {
    let at = match index {
        Index::Key => return naive_rank(None),
        Index::Priority => {
            return match child.priority() {
                None => naive_rank(None),
                Some(Priority::Number(number)) => naive_rank(Some(&Leaf::Number(*number))),
                Some(Priority::Text(text)) => naive_rank(Some(&Leaf::Text(text.clone()))),
            };
        }
        Index::Value => child,
        Index::Child(path) => child.at(path.as_str()),
    };
    if at.children().is_empty() { naive_rank(at.as_leaf()) } else { (5, 0.0, String::new()) }
}

fn naive_order(a: &(NaiveRank, &Key), b: &NaiveRank, b_key: &BoundKey) -> std::cmp::Ordering {
    let ranks = a.0.0.cmp(&b.0).then(a.0.1.partial_cmp(&b.1).unwrap()).then(compare_text(&a.0.2, &b.2));
    ranks.then_with(|| match b_key {
        BoundKey::Min => std::cmp::Ordering::Greater,
        BoundKey::Max => std::cmp::Ordering::Less,
        BoundKey::Key(text) => KeyStr::new(a.1.as_str()).cmp(KeyStr::new(&text.0)),
    })
}

fn naive(location: &Node, query: &Query) -> Node {
    if query.is_all() {
        return location.clone();
    }
    let mut all: Vec<_> =
        location.children().iter().map(|(key, child)| (naive_index(&query.index, child), key)).collect();
    all.sort_by(|a, b| naive_order(a, &b.0, &BoundKey::Key(BoundText(b.1.as_str().into()))));
    let bound_rank = |bound: &Bound| {
        if query.index == Index::Key { naive_rank(None) } else { naive_rank(bound.value.as_ref()) }
    };
    all.retain(|child| {
        let is_after = query.start.as_ref().is_none_or(|bound| {
            let order = naive_order(child, &bound_rank(bound), &bound.key);
            order.is_gt() || (order.is_eq() && bound.is_inclusive)
        });
        let is_before = query.end.as_ref().is_none_or(|bound| {
            let order = naive_order(child, &bound_rank(bound), &bound.key);
            order.is_lt() || (order.is_eq() && bound.is_inclusive)
        });
        is_after && is_before
    });
    if let Some(Limit { count, from }) = query.limit {
        let excess = all.len().saturating_sub(count.get() as usize);
        match from {
            Direction::First => all.truncate(count.get() as usize),
            Direction::Last => drop(all.drain(..excess)),
        }
    }
    let mut filtered = Node::Empty;
    for (_, key) in all {
        filtered.set(key.as_str(), location.child(key).clone());
    }
    filtered
}

// Live windows

/// Few children, so that every window is often full, empty, or at its edge; or so many that the
/// location has pages, and wide windows.
#[derive(Clone, Copy)]
enum World {
    Few,
    Many,
}

fn random_key(dice: &mut Dice, world: World) -> String {
    match world {
        World::Few => dice.one_of(&["a", "b", "c", "d", "e", "1", "2", "10", "02", "-1", "é", "🐵"]).to_owned(),
        World::Many => format!("{}{}", dice.one_of(&["", "k"]), dice.below(200)),
    }
}

fn random_value(dice: &mut Dice) -> &'static str {
    dice.one_of(&["null", "false", "true", "-1", "0", "1.5", "2", "\"\"", "\"a\"", "\"b\"", "{\"x\":1}", "{\"a\":1}"])
}

fn random_child(dice: &mut Dice) -> Node {
    let child = match dice.below(4) {
        0 => node(random_value(dice)),
        1 => node(&format!(r#"{{"h":{},"i":{}}}"#, random_value(dice), random_value(dice))),
        _ => node(&format!(r#"{{"h":{}}}"#, random_value(dice))),
    };
    if dice.below(3) == 0 {
        let priority = dice.one_of(&["1", "2", "\"p\"", "\"q\""]);
        return child.with_priority(node(priority).as_leaf().map(|leaf| match leaf {
            Leaf::Number(number) => Priority::Number(*number),
            Leaf::Text(text) => Priority::Text(text.clone()),
            Leaf::Bool(_) => unreachable!("not in the list"),
        }));
    }
    child
}

fn random_bound(dice: &mut Dice, world: World, is_key: bool) -> Option<Box<Bound>> {
    if dice.below(3) == 0 {
        return None;
    }
    let key = match dice.below(4) {
        0 => BoundKey::Min,
        1 => BoundKey::Max,
        _ => BoundKey::Key(BoundText(random_key(dice, world).as_str().into())),
    };
    let value = if is_key { None } else { node(random_value(dice)).as_leaf().cloned() };
    Some(Box::new(Bound { value, key, is_inclusive: dice.below(2) == 0 }))
}

fn random_query(dice: &mut Dice, world: World) -> Query {
    let child = |path: &str| Index::Child(Path::parse(path).unwrap());
    let index = dice.one_of(&[Index::Key, Index::Value, Index::Priority, child("h"), child("h/x")]);
    let is_key = index == Index::Key;
    let limit = (dice.below(3) > 0).then(|| Limit {
        count: NonZeroU32::new(1 + dice.below(if matches!(world, World::Few) { 6 } else { 80 }) as u32).unwrap(),
        from: dice.one_of(&[Direction::First, Direction::Last]),
    });
    let query =
        Query { index, start: random_bound(dice, world, is_key), end: random_bound(dice, world, is_key), limit };
    if query.is_all() { random_query(dice, world) } else { query }
}

/// What a client makes of a delta.
fn apply(view: &mut Node, delta: Delta) {
    match delta {
        Delta::Whole(node) => *view = node,
        Delta::Children(changes) => {
            assert!(!changes.is_empty());
            let mut keys: Vec<_> = changes.iter().map(|(key, _)| key.clone()).collect();
            keys.sort();
            keys.dedup();
            assert_eq!(keys.len(), changes.len(), "a key stands in a delta once");
            for (key, change) in changes {
                let was_there = !view.child(&key).is_empty();
                match change {
                    Change::Left => {
                        assert!(was_there, "{key:?} left and was not there");
                        view.set(key.as_str(), Node::Empty);
                    }
                    Change::Entered(child) => {
                        assert!(!was_there, "{key:?} entered and was there");
                        assert!(!child.is_empty());
                        view.set(key.as_str(), child);
                    }
                    Change::Changed(child) => {
                        assert!(was_there, "{key:?} changed and was not there");
                        assert!(!child.is_empty());
                        view.set(key.as_str(), child);
                    }
                }
            }
        }
    }
}

/// What a random write does to `location`; `None`: it was replaced as a whole.
fn random_write(dice: &mut Dice, world: World, location: &mut Node) -> Option<Vec<(Key, Node)>> {
    match dice.below(24) {
        0 => {
            *location = match dice.below(4) {
                0 => Node::Empty,
                1 => node("5"),
                _ => {
                    let mut new =
                        if dice.below(2) == 0 || matches!(world, World::Many) { location.clone() } else { Node::Empty };
                    for _ in 0..dice.below(10) {
                        new.set(&random_key(dice, world), random_child(dice));
                    }
                    new
                }
            };
            None
        }
        1 => {
            location.set_priority("", Some(Priority::Text("own".into())));
            Some(Vec::new())
        }
        kind => {
            let mut touched = Vec::new();
            let many = if matches!(world, World::Few) { 5 } else { 60 };
            for _ in 0..if kind < 10 { 1 + dice.below(many) } else { 1 } {
                let key = Key::parse(&random_key(dice, world)).unwrap();
                touched.push((key.clone(), location.child(&key).clone()));
                match dice.below(4) {
                    0 => drop(location.set(key.as_str(), Node::Empty)),
                    1 => drop(location.set(&format!("{}/h", key.as_str()), node(random_value(dice)))),
                    2 => drop(location.set(&format!("{}/i/j", key.as_str()), node(random_value(dice)))),
                    _ => drop(location.set(key.as_str(), random_child(dice))),
                }
            }
            Some(touched)
        }
    }
}

fn check_history(seed: u64, world: World) {
    let mut dice = Dice(seed);
    let mut location = Node::Empty;
    if matches!(world, World::Many) {
        for _ in 0..500 {
            location.set(&random_key(&mut dice, world), random_child(&mut dice));
        }
    }
    let mut windows = Windows::new(&Hashing::from_seed([seed, 2, 3, 4]));
    let mut watched: Vec<(WindowId, Query, Node)> = Vec::new();
    for step in 0..200 {
        let place = format!("seed {seed} step {step}");
        if dice.below(8) == 0 || step == 20 {
            let query = random_query(&mut dice, world);
            let id = windows.open(&query, &location);
            assert_eq!(windows.query(id), &query);
            let view = windows.node(id, &location);
            watched.push((id, query, view));
        }
        if dice.below(12) == 0 && !watched.is_empty() {
            let index = dice.below(watched.len() as u64) as usize;
            let (id, query, _) = watched.swap_remove(index);
            let is_last = !watched.iter().any(|(_, other, _)| *other == query);
            assert_eq!(windows.close(id), is_last, "{place}");
            assert_eq!(windows.is_empty(), watched.is_empty(), "{place}");
        }
        let old = location.clone();
        let touched = random_write(&mut dice, world, &mut location);
        let mut deltas = Vec::new();
        match touched {
            None => windows.replace(&old, &location, |id, delta| deltas.push((id, delta))),
            Some(touched) => windows.update(&location, &touched, |id, delta| deltas.push((id, delta))),
        }
        let count = deltas.len();
        deltas.sort_by_key(|(id, _)| *id);
        deltas.dedup_by_key(|(id, _)| *id);
        assert_eq!(deltas.len(), count, "{place}: a window has one delta a write");
        for (id, query, view) in &mut watched {
            if let Ok(index) = deltas.binary_search_by_key(id, |(id, _)| *id) {
                apply(view, deltas[index].1.clone());
            }
            if matches!(world, World::Many) && step % 8 > 0 {
                continue;
            }
            let expected = naive(&location, query);
            assert_eq!(*view, expected, "{place}: what a client of {query:?} sees of {location:?}");
            assert_eq!(windows.node(*id, &location), expected, "{place}: {query:?} of {location:?}");
            assert_eq!(select(&location, query), expected, "{place}: {query:?} of {location:?}");
        }
        assert!(deltas.iter().all(|(id, _)| watched.iter().any(|(other, ..)| other == id)), "{place}");
    }
    for (id, ..) in watched {
        windows.close(id);
    }
    assert!(windows.is_empty());
}

#[test]
fn what_clients_rebuild_from_deltas_is_what_the_queries_want() {
    for seed in 0..60 {
        check_history(seed, World::Few);
    }
    for seed in 100..106 {
        check_history(seed, World::Many);
    }
}
