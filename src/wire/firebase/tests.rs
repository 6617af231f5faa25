use serde_json::{Value, json};

use super::client::Heard;
use super::frames::Assembled;
use super::*;
use crate::base::WallMillis;
use crate::base::limits::{DEPTH_MAX, MESSAGE_BYTES_MAX, SEGMENT_UNITS_MAX, SEGMENTS_MAX};
use crate::data::{Draft, Invalid, InvalidKey, InvalidPath, Leaf, Location, Node, Number, Path};
use crate::json::{Item, Reader};
use crate::op::{BadCredential, Bound, BoundKey, Direction, Event, Index, Outcome, Query, Refusal, Request, Write};
use crate::wire::{Input, ws};

/// When server values are filled in, in the vectors too.
const WALL: WallMillis = WallMillis(1_700_000_000_000);

fn with_item<R>(json: &str, use_it: impl FnOnce(Item<'_>) -> R) -> R {
    Reader::default().read(&mut json.as_bytes().to_vec(), use_it).expect("the test's JSON is JSON")
}

fn incoming(text: &str) -> Incoming {
    decode(&mut text.as_bytes().to_vec(), &mut Reader::default())
}

fn node(json: &str) -> Node {
    with_item(json, |item| Draft::from_json(item, 0).unwrap()).resolve(&Node::Empty, WALL)
}

/// What `write` appends, as text.
fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    write(&mut out);
    String::from_utf8(out).expect("what is written is UTF-8")
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).expect("what is written is JSON")
}

// Messages in words: the form of `means` in the vectors.

fn value_words(draft: &Draft) -> Value {
    parsed(&written(|out| crate::data::export(out, &draft.resolve(&Node::Empty, WALL))))
}

fn write_words(write: &Write) -> Value {
    match write {
        Write::Set { path, value } => json!(["set", path.to_string(), value_words(value)]),
        Write::SetPriority { path, priority } => {
            let priority = priority.resolve(&Node::Empty, WALL).map_or(Node::Empty, |found| Node::Leaf(found.into()));
            json!(["priority", path.to_string(), value_words(&Draft::of(priority))])
        }
        Write::Merge { path, changes } => {
            let place = |location: &Location| match (location.is_priority, location.path.is_root()) {
                (false, _) => location.path.to_string(),
                (true, true) => "/.priority".to_owned(),
                (true, false) => format!("{}/.priority", location.path),
            };
            let changes: Vec<_> = changes.iter().map(|(at, draft)| json!([place(at), value_words(draft)])).collect();
            json!(["merge", path.to_string(), changes])
        }
    }
}

fn query_words(query: &Query) -> Value {
    let is_by_key = query.index == Index::Key;
    let bound = |bound: &Bound| {
        let key = match &bound.key {
            BoundKey::Min => "min".to_owned(),
            BoundKey::Max => "max".to_owned(),
            BoundKey::Key(text) => format!("={}", text.0.as_str()),
        };
        if is_by_key {
            return json!({"key": key, "inclusive": bound.is_inclusive});
        }
        let value = bound.value.clone().map_or(Node::Empty, Node::Leaf);
        json!({"value": value_words(&Draft::of(value)), "key": key, "inclusive": bound.is_inclusive})
    };
    let index = match &query.index {
        Index::Priority => "priority".to_owned(),
        Index::Key => "key".to_owned(),
        Index::Value => "value".to_owned(),
        Index::Child(path) => path.to_string(),
    };
    let side = |from| if from == Direction::First { "first" } else { "last" };
    json!({
        "index": index,
        "start": query.start.as_deref().map(bound),
        "end": query.end.as_deref().map(bound),
        "limit": query.limit.map(|limit| json!([limit.count.get(), side(limit.from)])),
    })
}

fn request_words(request: &Request) -> Value {
    match request {
        Request::Write { write, if_hash } => json!(["write", write_words(write), if_hash]),
        Request::Get { path, query } => json!(["get", path.to_string(), query_words(query)]),
        Request::Listen { path, query, tag, hash } => {
            json!(["listen", path.to_string(), query_words(query), tag, hash])
        }
        Request::Unlisten { path, tag } => json!(["unlisten", path.to_string(), tag]),
        Request::Exchange { .. } | Request::MayWrite { .. } | Request::Cancel { .. } | Request::Profile => {
            unreachable!("no message asks for this")
        }
    }
}

fn words(incoming: &Incoming) -> Value {
    match incoming {
        Incoming::Control(Control::Ping) => json!(["ping"]),
        Incoming::Control(control) => json!(["control", format!("{control:?}")]),
        Incoming::Refused { refusal, .. } => json!(["refused", format!("{refusal:?}")]),
        Incoming::Unknown => json!(["unknown"]),
        Incoming::Broken(why) => json!(["broken", why]),
        Incoming::Request { action, .. } => match action {
            Action::Stats => json!(["stats"]),
            Action::Ask(request) => request_words(request),
            Action::OnDisconnect(write) => json!(["last words", write_words(write)]),
            Action::CancelOnDisconnect(path) => json!(["cancel", path.to_string()]),
            Action::Auth { cred, noauth, authvar } => json!(["auth", cred, noauth, authvar]),
            Action::Unauth => json!(["unauth"]),
            Action::AppCheck => json!(["appcheck"]),
            Action::UnAppCheck => json!(["unappcheck"]),
            Action::Echo(text) => json!(["echo", parsed(text)]),
        },
    }
}

/// Says again, with our writers, what a message of another server says.
fn said_again(message: &str) -> String {
    let again = |item: Item<'_>| {
        let item_node = |item: Item<'_>| Draft::from_json(item, 0).unwrap().resolve(&Node::Empty, WALL);
        let path = |text: &str| Path::parse(text).unwrap();
        written(|out| match client::hear(item).unwrap() {
            Heard::Handshake { time_ms, host, session } => {
                let time = WallMillis(time_ms.try_into().unwrap());
                handshake(out, &Handshake { time, host, session });
            }
            Heard::Pong => pong(out),
            Heard::Reset(host) => reset(out, host),
            Heard::Shutdown(reason) => shutdown(out, reason),
            Heard::Reply { request, status: "ok", data } => match data {
                Item::Text("") => done(out, request),
                Item::Object(members) if members.len() == 0 => listening(out, request, false),
                Item::Object(members) if members.clone().any(|(name, _)| name == "auth") => {
                    let expires = data.get("expires").and_then(Item::as_int);
                    let expires_s = expires.map(|expires_s| expires_s.try_into().unwrap());
                    authenticated(out, request, &data.get("auth").unwrap().to_serde(), expires_s);
                }
                data => value(out, request, &item_node(data)),
            },
            Heard::Reply { request, status, .. } => match status {
                "permission_denied" => refused(out, request, &Refusal::Denied),
                "datastale" => refused(out, request, &Refusal::Stale),
                other => panic!("{other}"),
            },
            Heard::Set { path: at, value, tag } => {
                event(out, &Event::Set { path: path(at), node: item_node(value) }, tag);
            }
            Heard::Merge { path: at, changes, tag } => {
                let changes = changes.map(|(place, value)| (path(place), item_node(value))).collect();
                event(out, &Event::Merge { path: path(at), changes }, tag);
            }
            Heard::Revoked { path: at, query } => {
                let query_read = query.map_or(Query::ALL, |query| read_query(query).unwrap());
                event(out, &Event::Revoked { path: path(at), query: query_read }, query.map(|_| 1));
            }
            Heard::CredentialRevoked { status } => {
                assert_eq!(status, "expired_token");
                credential_revoked(out, BadCredential::Expired);
            }
            Heard::Other => panic!("not said by us: {message}"),
        })
    };
    with_item(message, again)
}

#[test]
fn recorded_messages_are_understood_and_said_again() {
    let vectors = include_str!("../../../tests/vectors/firebase.jsonl");
    let mut counts = (0, 0, 0);
    for line in vectors.lines() {
        let vector = parsed(line);
        if let Some(message) = vector["client"].as_str() {
            counts.0 += 1;
            assert_eq!(words(&incoming(message)), vector["means"], "{message}");
            let object = &parsed(message)["d"]["b"]["q"];
            if !object.is_null() {
                counts.1 += 1;
                // `serde_json` sorts names, as clients do when they look for a query.
                let text = object.to_string();
                let query = with_item(&text, |item| read_query(item).unwrap());
                assert_eq!(written(|out| write_query(out, &query)), text, "{message}");
            }
        }
        if let Some(message) = vector["server"].as_str() {
            counts.2 += 1;
            assert_eq!(parsed(&said_again(message)), parsed(message));
        }
    }
    assert!(counts.0 > 100 && counts.1 > 30 && counts.2 > 40, "the vectors are there: {counts:?}");
}

// Requests

#[track_caller]
fn check(action: &str, body: &Value, expected: &Value) {
    let message = json!({"t": "d", "d": {"r": 7, "a": action, "b": body}}).to_string();
    let incoming = incoming(&message);
    if let Incoming::Request { number, .. } | Incoming::Refused { number, .. } = incoming {
        assert_eq!(number, 7);
    }
    assert_eq!(words(&incoming), *expected, "{message}");
}

#[track_caller]
fn check_refused(action: &str, body: &Value, expected: &Refusal) {
    check(action, body, &json!(["refused", format!("{expected:?}")]));
}

#[test]
fn envelopes_are_read() {
    let check = |text: &str, expected: Value| assert_eq!(words(&incoming(text)), expected, "{text}");
    check(r#"{"d":{"b":{},"a":"s","r":0},"t":"d"}"#, json!(["stats"]));
    check(r#"{"t":"d","d":{"r":-5,"a":"unauth"}}"#, json!(["unauth"]));
    check(r#"{"t":"c","d":{"t":"n","d":{}}}"#, json!(["control", "End"]));
    check(r#"{"t":"c","d":{"t":"a","d":{}}}"#, json!(["control", "Switched"]));
    check(r#"{"t":"c","d":5}"#, json!(["control", "Other"]));
    check(r#"{"t":"x","d":{}}"#, json!(["unknown"]));
    check("{}", json!(["unknown"]));
    check("", json!(["broken", "not JSON"]));
    check("{\"t\":\"d\"", json!(["broken", "not JSON"]));
    check("[]", json!(["broken", "a message is an object"]));
    check(r#"{"t":"d"}"#, json!(["broken", "a request has a number"]));
    check(r#"{"t":"d","d":{"r":"1","a":"s"}}"#, json!(["broken", "a request has a number"]));
    check(r#"{"t":"d","d":{"r":1.5,"a":"s"}}"#, json!(["broken", "a request has a number"]));
    check(r#"{"t":"d","d":{"r":1}}"#, json!(["refused", "Malformed(\"a\")"]));
    check(r#"{"t":"d","d":{"r":1,"a":"zz","b":{}}}"#, json!(["refused", "UnknownAction"]));
    check(r#"{"t":"d","d":{"r":1,"a":"p"}}"#, json!(["refused", "Malformed(\"p\")"]));
    check(r#"{"t":"d","d":{"r":1,"a":"p","b":[1]}}"#, json!(["refused", "Malformed(\"p\")"]));
}

#[test]
fn writes_are_read() {
    check("p", &json!({"p": "a//b/", "d": 1}), &json!(["write", ["set", "/a/b", 1], null]));
    check("p", &json!({"p": "", "d": {"x": null}}), &json!(["write", ["set", "/", null], null]));
    check("p", &json!({"p": "/", "d": [1, null, 2]}), &json!(["write", ["set", "/", {"0": 1, "2": 2}], null]));
    check("p", &json!({"p": "/x", "d": 1, "h": ""}), &json!(["write", ["set", "/x", 1], ""]));
    check("p", &json!({"p": "/x", "d": 1, "h": null}), &json!(["write", ["set", "/x", 1], null]));
    check("p", &json!({"p": "x/.priority", "d": 3}), &json!(["write", ["priority", "/x", 3], null]));
    check("p", &json!({"p": ".priority", "d": null}), &json!(["write", ["priority", "/", null], null]));
    let stamp = json!({".sv": "timestamp"});
    check("o", &json!({"p": "/x/.priority", "d": stamp}), &json!(["last words", ["priority", "/x", WALL.0]]));
    check("oc", &json!({"p": "/x", "d": null}), &json!(["cancel", "/x"]));
    check_refused("p", &json!({"d": 1}), &Refusal::Malformed("p"));
    check_refused("p", &json!({"p": 5, "d": 1}), &Refusal::Malformed("p"));
    check_refused("p", &json!({"p": "/x"}), &Refusal::Malformed("d"));
    check_refused("p", &json!({"p": "/x", "d": 1, "h": 5}), &Refusal::Malformed("h"));
    check_refused("p", &json!({"p": "/a.b", "d": 1}), &Refusal::Path(InvalidPath::Key(InvalidKey::Forbidden)));
    check_refused("p", &json!({"p": "/.priority/a", "d": 1}), &Refusal::Path(InvalidPath::Key(InvalidKey::Forbidden)));
    check_refused("p", &json!({"p": "/x", "d": {".sv": "now"}}), &Refusal::Data(Invalid::ServerValue));
    check_refused("p", &json!({"p": "/x/.priority", "d": true}), &Refusal::Data(Invalid::Priority));
    check_refused("oc", &json!({}), &Refusal::Malformed("p"));
}

#[test]
fn merges_are_read() {
    let merge = |changes: Value| json!({"p": "/m", "d": changes});
    let one = json!(["merge", "/m", [["/a/b", 1], ["/c", null]]]);
    check("m", &merge(json!({"a/b": 1, "c": null})), &json!(["write", one, null]));
    check("om", &merge(json!({"/a//b/": 1, "c": []})), &json!(["last words", one]));
    let priority = json!(["merge", "/m", [["/a/.priority", 5], ["/a/b", 1]]]);
    check("m", &merge(json!({"a/.priority": 5, "a/b": 1})), &json!(["write", priority, null]));
    check("m", &merge(json!({"/": 1})), &json!(["write", ["merge", "/m", [["/", 1]]], null]));
    check("m", &merge(json!({})), &json!(["write", ["merge", "/m", []], null]));
    check_refused(
        "m",
        &json!({"p": "/m/.priority", "d": {"a": 1}}),
        &Refusal::Path(InvalidPath::Key(InvalidKey::Forbidden)),
    );
    for data in [json!([1]), json!(1), json!(null)] {
        check_refused("m", &merge(data), &Refusal::Malformed("d"));
    }
    check_refused("m", &merge(json!({"a": {"b#": 1}})), &Refusal::Data(Invalid::Key(InvalidKey::Forbidden)));
    check_refused("m", &merge(json!({"a#": 1})), &Refusal::Path(InvalidPath::Key(InvalidKey::Forbidden)));
    check_refused("m", &merge(json!({"a/.priority": false})), &Refusal::Data(Invalid::Priority));
}

#[test]
fn places_of_a_merge_must_not_lie_above_each_other() {
    let check_overlap = |places: &[&str], overlaps: bool| {
        // In every order that a rotation gives; written by hand, since names may stand twice.
        for turn in 0..places.len() {
            let mut places = places.to_vec();
            places.rotate_left(turn);
            let members: Vec<_> = places.iter().map(|place| format!("\"{place}\":1")).collect();
            let members = members.join(",");
            let text = format!(r#"{{"t":"d","d":{{"r":1,"a":"m","b":{{"p":"/","d":{{{members}}}}}}}}}"#);
            let is_refused = incoming(&text) == Incoming::Refused { number: 1, refusal: Refusal::Overlap };
            assert_eq!(is_refused, overlaps, "{places:?}");
        }
    };
    check_overlap(&["a", "b"], false);
    check_overlap(&["a", "a"], true);
    check_overlap(&["a", "/a/"], true);
    check_overlap(&["a", "a/b"], true);
    check_overlap(&["a", "ab/c", "a!"], false);
    // `!` and `-` sort before `/`: the neighbours in a plain order of texts do not tell.
    check_overlap(&["a", "a!", "a-", "a/b"], true);
    check_overlap(&["a/b", "a!/b", "a-", "a/c/d", "a/c!"], false);
    check_overlap(&["/", "b"], true);
    check_overlap(&["/", ".priority"], true);
    check_overlap(&["a/.priority", "a/b", "a/c"], false);
    check_overlap(&["a/.priority", "a/.priority/"], true);
    check_overlap(&["a", "a/.priority"], true);
    check_overlap(&["a", "x/.priority", "a/.priority"], true);
    check_overlap(&["a", "ab", "a/.priority"], true);
}

#[test]
fn depth_counts_from_the_root() {
    let deep = |levels: usize| vec!["k"; levels].join("/");
    let at = |path: usize, value: Value| json!({"p": deep(path), "d": value});
    check("p", &at(DEPTH_MAX, json!(1)), &json!(["write", ["set", format!("/{}", deep(DEPTH_MAX)), 1], null]));
    check_refused("p", &at(DEPTH_MAX + 1, json!(1)), &Refusal::Path(InvalidPath::TooDeep));
    check_refused("p", &at(DEPTH_MAX, json!({"a": 1})), &Refusal::Data(Invalid::TooDeep));
    let place = deep(DEPTH_MAX - 2);
    let merged = json!(["merge", "/k/k", [[format!("/{place}"), 1]]]);
    check("m", &at(2, json!({&place: 1})), &json!(["write", merged, null]));
    check_refused("m", &at(3, json!({&place: 1})), &Refusal::Path(InvalidPath::TooDeep));
    check_refused("m", &at(2, json!({&place: {"a": 1}})), &Refusal::Data(Invalid::TooDeep));
}

#[test]
fn listens_are_read() {
    let all = query_words(&Query::ALL);
    check("q", &json!({"p": "/x"}), &json!(["listen", "/x", all, null, null]));
    check("l", &json!({"p": "x", "h": "abc", "q": {}}), &json!(["listen", "/x", all, null, "abc"]));
    check("q", &json!({"p": "/x", "q": {}, "t": 3}), &json!(["listen", "/x", all, 3, null]));
    let compound = json!({"p": "/x", "h": "", "ch": {"hs": ["a", "b"], "ps": ["c"]}});
    check("q", &compound, &json!(["listen", "/x", all, null, ""]));
    check("n", &json!({"p": "/x"}), &json!(["unlisten", "/x", null]));
    check("u", &json!({"p": "/x", "q": {"l": 1}, "t": 4}), &json!(["unlisten", "/x", 4]));
    check("g", &json!({"p": "/x"}), &json!(["get", "/x", all]));
    for tag in [json!(0), json!(-1), json!("1"), json!(1.5), json!(null)] {
        check_refused("q", &json!({"p": "/x", "q": {}, "t": tag}), &Refusal::Malformed("t"));
        check_refused("n", &json!({"p": "/x", "t": tag}), &Refusal::Malformed("t"));
    }
    check_refused("q", &json!({"p": "/x", "q": {"l": 1}}), &Refusal::Malformed("t"));
    check_refused("q", &json!({"p": "/x", "q": 1, "t": 1}), &Refusal::Malformed("q"));
    check_refused("g", &json!({"p": "/x", "q": []}), &Refusal::Malformed("q"));
}

#[test]
fn what_is_not_about_data_is_read() {
    check("auth", &json!({"cred": "x.y.z"}), &json!(["auth", "x.y.z", false, null]));
    check("gauth", &json!({"cred": "owner", "noauth": true}), &json!(["auth", "owner", true, null]));
    let as_user = json!({"cred": "owner", "authvar": {"uid": "u"}});
    check("gauth", &as_user, &json!(["auth", "owner", false, {"uid": "u"}]));
    check("appcheck", &json!({"token": "x"}), &json!(["appcheck"]));
    check("unappcheck", &json!({}), &json!(["unappcheck"]));
    check("unappeck", &json!({}), &json!(["unappcheck"]));
    let tree = json!({"a": [1, "é\"\n", null, {"b": 1.5}]});
    check("echo", &json!({"d": tree}), &json!(["echo", tree]));
    check_refused("auth", &json!({}), &Refusal::Malformed("cred"));
    check_refused("auth", &json!({"cred": 1}), &Refusal::Malformed("cred"));
}

// Queries

#[track_caller]
fn check_query(object: &Value, expected: &Value) {
    let words = with_item(&object.to_string(), |item| match read_query(item) {
        Ok(query) => query_words(&query),
        Err(refusal) => json!(format!("{refusal:?}")),
    });
    assert_eq!(words, *expected, "{object}");
}

/// The words of a query by priority.
fn by(index: &str, start: &Value, end: &Value, limit: &Value) -> Value {
    json!({"index": index, "start": start, "end": end, "limit": limit})
}

#[test]
fn queries_of_every_client_are_read() {
    let none = &Value::Null;
    let bound = |value: Value, key: &str, inclusive: bool| json!({"value": value, "key": key, "inclusive": inclusive});
    let key = |key: &str, inclusive: bool| json!({"key": key, "inclusive": inclusive});
    check_query(&json!({}), &by("priority", none, none, none));
    check_query(&json!({"i": ".priority", "x": 1}), &by("priority", none, none, none));
    check_query(&json!({"i": ".value", "sp": null}), &by("value", &bound(json!(null), "min", true), none, none));
    check_query(&json!({"i": "a/b", "ep": true}), &by("/a/b", none, &bound(json!(true), "max", true), none));
    // Android has no exclusive bounds.
    let after = json!({"sp": 2, "sn": "[MAX_KEY]"});
    check_query(&after, &by("priority", &bound(json!(2), "max", true), none, none));
    let before = json!({"ep": "x", "en": "[MIN_NAME]", "ein": false});
    check_query(&before, &by("priority", none, &bound(json!("x"), "min", false), none));
    let long = format!("a{}", "z".repeat(785));
    let expected = by("key", none, &key(&format!("={long}"), true), none);
    check_query(&json!({"i": ".key", "ep": long, "en": "ignored"}), &expected);
    let extremes = json!({"i": ".key", "sp": "[MIN_NAME]", "ep": "[MAX_NAME]", "sin": false});
    check_query(&extremes, &by("key", &key("min", false), &key("max", true), none));
    // Without `vf` the side is that of the start.
    check_query(&json!({"l": 3}), &by("priority", none, none, &json!([3, "last"])));
    check_query(&json!({"l": 3, "sp": 1}), &by("priority", &bound(json!(1), "min", true), none, &json!([3, "first"])));
    check_query(&json!({"l": 1e12, "vf": "l"}), &by("priority", none, none, &json!([u32::MAX, "first"])));
}

#[test]
fn queries_of_no_client_are_refused() {
    for (object, what) in [
        (json!(1), "q"),
        (json!({"i": 1}), "i"),
        (json!({"l": 0}), "l"),
        (json!({"l": -1}), "l"),
        (json!({"l": "1"}), "l"),
        (json!({"l": 1, "vf": "x"}), "vf"),
        (json!({"l": 1, "vf": 1}), "vf"),
        (json!({"sp": {}}), "sp"),
        (json!({"ep": [1]}), "ep"),
        (json!({"sp": 1, "sn": 1}), "sn"),
        (json!({"ep": 1, "en": null}), "en"),
        (json!({"sp": 1, "sin": 1}), "sin"),
        (json!({"ep": 1, "ein": "true"}), "ein"),
        (json!({"i": ".key", "sp": 1}), "sp"),
        (json!({"i": ".key", "ep": null}), "ep"),
    ] {
        check_query(&object, &json!(format!("{:?}", Refusal::Malformed(what))));
    }
    check_query(&json!({"i": ".other"}), &json!("Path(Key(Forbidden))"));
}

#[test]
fn a_query_survives_its_text() {
    let numbers = [0.5, -3.0, 1e21].map(|value| Some(Leaf::Number(Number::from_double(value))));
    let others = [None, Some(Leaf::Bool(false)), Some(Leaf::Bool(true)), Some(Leaf::Text("a\"b".into()))];
    for value in numbers.into_iter().chain(others) {
        for key in [BoundKey::Min, BoundKey::Max, BoundKey::Key(crate::op::BoundText("k".into()))] {
            for is_inclusive in [false, true] {
                let bound = Box::new(Bound { value: value.clone(), key: key.clone(), is_inclusive });
                for (start, end) in [(Some(bound.clone()), None), (None, Some(bound))] {
                    let query = Query { index: Index::Value, start, end, limit: None };
                    let text = written(|out| write_query(out, &query));
                    assert_eq!(with_item(&text, read_query), Ok(query), "{text}");
                }
            }
        }
    }
}

// Answers and events

#[test]
fn answers_have_the_forms_that_clients_need() {
    let check = |outcome_given: &Outcome, expected: &str| {
        assert_eq!(
            written(|out| outcome(out, 3, outcome_given)),
            format!(r#"{{"t":"d","d":{{"r":3,"b":{expected}}}}}"#)
        );
    };
    check(&Outcome::Done, r#"{"s":"ok","d":""}"#);
    check(&Outcome::Listening { is_unindexed: false }, r#"{"s":"ok","d":{}}"#);
    check(&Outcome::Listening { is_unindexed: true }, r#"{"s":"ok","d":{"w":["no_index"]}}"#);
    check(&Outcome::Value(Node::Empty), r#"{"s":"ok","d":null}"#);
    let ranked = r#"{"a":{".value":1,".priority":2}}"#;
    check(&Outcome::Value(node(ranked)), &format!(r#"{{"s":"ok","d":{ranked}}}"#));
    check(&Outcome::Refused(Refusal::Denied), r#"{"s":"permission_denied","d":"Permission denied"}"#);
    check(&Outcome::Refused(Refusal::Stale), r#"{"s":"datastale","d":"Transaction hash does not match"}"#);
    let reply = |write: &dyn Fn(&mut Vec<u8>)| parsed(&written(|out| write(out)))["d"]["b"].clone();
    let auth = json!({"uid": "u\"1"});
    assert_eq!(
        reply(&|out| authenticated(out, 1, &auth, Some(5))),
        json!({"s": "ok", "d": {"auth": auth, "expires": 5}})
    );
    assert_eq!(reply(&|out| authenticated(out, 1, &json!(null), None)), json!({"s": "ok", "d": {"auth": null}}));
    assert_eq!(reply(&|out| unauthenticated(out, 1)), json!({"s": "ok", "d": "unauthenticated"}));
    assert_eq!(reply(&|out| echoed(out, 1, "[1,{}]")), json!({"s": "ok", "d": [1, {}]}));
    assert_eq!(written(|out| done(out, i64::MIN)), r#"{"t":"d","d":{"r":-9223372036854775808,"b":{"s":"ok","d":""}}}"#);
}

#[test]
fn every_refusal_has_a_status_and_a_text() {
    let keys = [InvalidKey::Empty, InvalidKey::TooLong, InvalidKey::Forbidden];
    let data = [
        Invalid::Reserved,
        Invalid::Duplicate,
        Invalid::Value,
        Invalid::Priority,
        Invalid::ServerValue,
        Invalid::TooDeep,
        Invalid::TextTooLong,
    ];
    let mut texts: Vec<_> = data.map(Refusal::Data).iter().map(text).collect();
    texts.extend(keys.map(|key| Refusal::Path(InvalidPath::Key(key))).iter().map(text));
    texts.push(text(&Refusal::Path(InvalidPath::TooDeep)));
    texts.push(text(&Refusal::Overlap));
    let count = texts.len();
    texts.sort_unstable();
    texts.dedup();
    assert_eq!(texts.len(), count, "each says what is wrong");
    assert_eq!(text(&Refusal::Data(Invalid::Key(InvalidKey::Empty))), "Invalid key: it is empty");
    for (refusal, expected) in [
        (Refusal::Data(Invalid::Value), "invalid_data"),
        (Refusal::Path(InvalidPath::TooDeep), "invalid_data"),
        (Refusal::Overlap, "invalid_data"),
        (Refusal::Malformed("p"), "invalid_request"),
        (Refusal::Limit("listens"), "limits_exceeded"),
        (Refusal::UnknownAction, "unknown_action"),
        (Refusal::Unavailable, "unavailable"),
        (Refusal::Credential(BadCredential::Invalid), "invalid_token"),
        (Refusal::Credential(BadCredential::Expired), "expired_token"),
        (Refusal::Credential(BadCredential::Forbidden), "permission_denied"),
    ] {
        let answer = parsed(&written(|out| refused(out, 1, &refusal)));
        assert_eq!(answer["d"]["b"]["s"], expected);
        assert_eq!(answer["d"]["b"]["d"], *text(&refusal));
    }
    assert_eq!(text(&Refusal::Malformed("p")), "Invalid request: 'p' is missing or of a wrong type");
    assert_eq!(text(&Refusal::Limit("listens")), "Limit exceeded: listens");
}

#[track_caller]
fn check_event(given: &Event, tag: Option<u64>, expected: &str) {
    let expected = format!(r#"{{"t":"d","d":{expected}}}"#);
    assert_eq!(written(|out| event(out, given, tag)), expected);
    let mut text = EventText::default();
    // Twice: the second shows what the first left.
    text.fill(&Event::Revoked { path: Path::ROOT, query: Query::ALL });
    text.fill(given);
    assert_eq!(written(|out| text.write(out, tag)), expected);
    let mut frame = ws::text_head(expected.len()).to_vec();
    frame.extend_from_slice(expected.as_bytes());
    let mut out = Vec::new();
    text.write_frames(&mut out, tag);
    assert_eq!(out, frame);
}

#[test]
fn events_are_written() {
    let path = |text: &str| Path::parse(text).unwrap();
    let set = Event::Set { path: path("a/b\"c"), node: node(r#"{"x":1}"#) };
    check_event(&set, None, r#"{"a":"d","b":{"p":"a/b\"c","d":{"x":1}}}"#);
    check_event(&set, Some(12), r#"{"a":"d","b":{"p":"a/b\"c","d":{"x":1},"t":12}}"#);
    let gone = Event::Set { path: Path::ROOT, node: Node::Empty };
    check_event(&gone, None, r#"{"a":"d","b":{"p":"","d":null}}"#);
    let changes = vec![(path("a"), Node::Empty), (path("b/c"), node("true"))];
    let merge = Event::Merge { path: path("m"), changes };
    check_event(&merge, None, r#"{"a":"m","b":{"p":"m","d":{"a":null,"b/c":true}}}"#);
    check_event(&merge, Some(1), r#"{"a":"m","b":{"p":"m","d":{"a":null,"b/c":true},"t":1}}"#);
    let query = with_item(r#"{"l":2,"vf":"l","i":".key"}"#, |item| read_query(item).unwrap());
    let revoked = Event::Revoked { path: path("r"), query };
    check_event(&revoked, Some(9), r#"{"a":"c","b":{"p":"r","q":[{"i":".key","l":2,"vf":"l"}]}}"#);
    check_event(&Event::Revoked { path: path("r"), query: Query::ALL }, None, r#"{"a":"c","b":{"p":"r"}}"#);
}

// Frames

/// What an assembler makes of text frames, in words.
fn assembled(frames: &[&str]) -> Vec<String> {
    let mut assembler = Assembler::default();
    let mut seen = Vec::new();
    for frame in frames {
        match assembler.push(&mut frame.as_bytes().to_vec()) {
            Ok(Assembled::Nothing) => {}
            Ok(Assembled::Frame(text)) => seen.push(format!("frame {}", String::from_utf8_lossy(text))),
            Ok(Assembled::Joined(text)) => seen.push(format!("joined {}", String::from_utf8_lossy(&text))),
            Ok(Assembled::TooLong { request }) => seen.push(format!("too long {request:?}")),
            Err(frames::TooManySegments) => seen.push("too many".to_owned()),
        }
    }
    if assembler.is_inside() {
        seen.push("inside".to_owned());
    }
    seen
}

#[test]
fn segments_are_joined() {
    assert_eq!(assembled(&["{}", "0", "[]"]), ["frame {}", "frame []"]);
    assert_eq!(assembled(&["1", "{}"]), ["frame {}"]);
    assert_eq!(assembled(&["3", "{\"", "é", "\"}", "{}"]), ["joined {\"é\"}", "frame {}"]);
    // Inside a message even a number is a segment.
    assert_eq!(assembled(&["000003", "1", "0", "", "{}"]), ["joined 10", "frame {}"]);
    assert_eq!(assembled(&["", "{}"]), ["frame {}"]);
    assert_eq!(assembled(&["2", "{"]), ["inside"]);
    assert_eq!(assembled(&["1000000"]), ["frame 1000000"]);
    assert_eq!(assembled(&["-1", "1.5", " 2"]), ["frame -1", "frame 1.5", "frame  2"]);
    assert_eq!(assembled(&[&SEGMENTS_MAX.to_string()]), ["inside"]);
    assert_eq!(assembled(&[&(SEGMENTS_MAX + 1).to_string()]), ["too many"]);
}

#[test]
fn a_message_that_is_too_long_is_remembered_by_its_number() {
    let segment = "x".repeat(MESSAGE_BYTES_MAX / 2);
    let check = |first: &str, rest: &[&str], expected: &str| {
        let count = (rest.len() + 1).to_string();
        let frames = [&[count.as_str(), first], rest].concat();
        assert_eq!(assembled(&frames), [expected]);
    };
    check("{\"t\":\"d\",\"d\":{\"r\":42,\"a\":\"p\"", &[&segment, &segment, "{}"], "too long Some(42)");
    check("{\"t\":\"d\",\"d\":{\"r\":", &["42,", &segment, &segment], "too long Some(42)");
    check(&segment, &[&segment, "\"r\":1,"], "too long None");
    check("\"r\":99999999999999999999,", &[&segment, &segment], "too long None");
    // What is kept ends within the number: then it is not known.
    let padding = " ".repeat(58);
    check(&format!("{padding}\"r\":12"), &["34,", &segment, &segment], "too long None");
    let mut assembler = Assembler::default();
    for frame in ["4", &segment, &segment, "x"] {
        let _ = assembler.push(&mut frame.as_bytes().to_vec());
    }
    assert!(format!("{assembler:?}").len() < 1_000, "the rest is forgotten at once");
    // A message that just fits is a message.
    assert_eq!(assembled(&["2", &segment, &segment]).len(), 1);
}

#[track_caller]
fn check_frames(message: &str, expected: &[&str]) {
    let mut written = b"before".to_vec();
    frames::write_message(&mut written, message.as_bytes());
    let mut sealed = b"before".to_vec();
    sealed.extend_from_slice(message.as_bytes());
    frames::seal(&mut sealed, 6);
    assert_eq!(written, sealed);
    let mut seen = Vec::new();
    let mut reader = ws::Reader::for_client();
    let mut input = Input::new(&mut written[6..]);
    while let Some(frame) = reader.next(&mut input).unwrap() {
        let ws::Frame::Text(text) = frame else { panic!("only texts are written") };
        seen.push(String::from_utf8(text.to_vec()).unwrap());
    }
    assert_eq!(seen.iter().map(String::len).collect::<Vec<_>>(), expected.iter().map(|e| e.len()).collect::<Vec<_>>());
    assert_eq!(seen, expected);
}

#[test]
fn long_messages_are_cut_between_characters() {
    let full = "x".repeat(SEGMENT_UNITS_MAX);
    check_frames("{}", &["{}"]);
    check_frames(&full, &[&full]);
    check_frames(&format!("{full}y"), &["2", &full, "y"]);
    check_frames(&format!("{full}{full}"), &["2", &full, &full]);
    // Two bytes, one unit.
    let wide = "é".repeat(SEGMENT_UNITS_MAX);
    check_frames(&wide, &[&wide]);
    check_frames(&format!("{wide}y"), &["2", &wide, "y"]);
    // Four bytes, two units, never cut.
    let astral = format!("{}🐵", &full[1..]);
    check_frames(&astral, &["2", &full[1..], "🐵"]);
    let astral = format!("{}🐵y", &full[2..]);
    check_frames(&astral, &["2", &astral[..astral.len() - 1], "y"]);
    let count = 12;
    check_frames(&full.repeat(count), &[&[count.to_string().as_str()][..], &vec![full.as_str(); count]].concat());
}

#[test]
fn a_masked_message_comes_back() {
    let message = format!("{{\"d\":\"{}\"}}", "🐵".repeat(SEGMENT_UNITS_MAX));
    let mut out = Vec::new();
    let mut masks = 0_u32..;
    frames::write_message_masked(&mut out, message.as_bytes(), || masks.next().unwrap().to_le_bytes());
    let mut reader = ws::Reader::for_server();
    let mut assembler = Assembler::default();
    let mut input = Input::new(&mut out);
    let mut joined = Vec::new();
    while let Some(frame) = reader.next(&mut input).unwrap() {
        let ws::Frame::Text(text) = frame else { panic!("only texts are written") };
        if let Assembled::Joined(text) = assembler.push(text).unwrap() {
            joined.push(text);
        }
    }
    assert_eq!(joined, [message.into_bytes()]);
}

// The client's side, and the connection's URL

#[test]
fn what_the_client_writes_is_what_the_server_reads() {
    let check = |expected: Value, write: &dyn Fn(&mut Vec<u8>)| {
        let text = written(|out| write(out));
        assert_eq!(words(&incoming(&text)), expected, "{text}");
    };
    let query = with_item(r#"{"l":2,"vf":"l","i":".key","sp":"a"}"#, |item| read_query(item).unwrap());
    let (all, part) = (query_words(&Query::ALL), query_words(&query));
    check(json!(["ping"]), &client::ping);
    check(json!(["stats"]), &|out| client::stats(out, 1, "sdk.x"));
    check(json!(["write", ["set", "/a", {"b": 1}], null]), &|out| client::put(out, 1, "/a", r#"{"b":1}"#, None));
    check(json!(["write", ["set", "/a", 1], "h"]), &|out| client::put(out, 1, "/a", "1", Some("h")));
    check(json!(["write", ["merge", "/a", [["/b/c", 1]]], null]), &|out| client::merge(out, 1, "/a", r#"{"b/c":1}"#));
    check(json!(["last words", ["set", "/a", 1]]), &|out| client::on_disconnect_put(out, 1, "/a", "1"));
    check(json!(["last words", ["merge", "/a", [["/b", 1]]]]), &|out| {
        client::on_disconnect_merge(out, 1, "/a", r#"{"b":1}"#);
    });
    check(json!(["cancel", "/a"]), &|out| client::on_disconnect_cancel(out, 1, "/a"));
    check(json!(["listen", "/a", all, null, ""]), &|out| client::listen(out, 1, "/a", &Query::ALL, None, ""));
    check(json!(["listen", "/a", part, 5, "h"]), &|out| client::listen(out, 1, "/a", &query, Some(5), "h"));
    check(json!(["unlisten", "/a", 5]), &|out| client::unlisten(out, 1, "/a", &query, Some(5)));
    check(json!(["get", "/a", part]), &|out| client::get(out, 1, "/a", &query));
    check(json!(["auth", "x", false, null]), &|out| client::auth(out, 1, "x"));
    check(json!(["auth", "owner", false, null]), &|out| client::gauth(out, 1, "owner"));
    check(json!(["unauth"]), &|out| client::unauth(out, 1));
}

#[test]
fn what_no_server_says_is_not_understood() {
    for text in [
        "[]",
        r#"{"t":"c","d":{"t":"h","d":{"ts":1,"h":"a"}}}"#,
        r#"{"t":"c","d":{"t":"o"}}"#,
        r#"{"t":"d","d":{"r":1,"b":{"d":""}}}"#,
        r#"{"t":"d","d":{"a":"d","b":{"p":"x"}}}"#,
        r#"{"t":"d","d":{"a":"d","b":{"p":"x","d":1,"t":"1"}}}"#,
        r#"{"t":"d","d":{"a":"m","b":{"p":"x","d":1}}}"#,
    ] {
        assert!(with_item(text, |item| client::hear(item).is_none()), "{text}");
    }
    assert!(with_item(r#"{"t":"d","d":{"a":"sd","b":{}}}"#, |item| matches!(client::hear(item), Some(Heard::Other))));
}

#[test]
fn namespaces_are_found() {
    let check = |query: &str, host: &str, expected: Option<&str>| {
        let found = namespace(crate::wire::http::Query(query), host).ok();
        assert_eq!(found.as_deref(), expected, "{query} {host}");
    };
    check("v=5&ns=demo-default-rtdb", "127.0.0.1:9000", Some("demo-default-rtdb"));
    check("v=5", "Chat.example.com:9000", Some("chat"));
    check("ns=", "localhost:9000", Some("localhost"));
    check("ns=127", "127.0.0.1", Some("127"));
    check("ns=a.b", "chat.example", None);
    check("ns=a%2fb", "chat.example", None);
    check("ns=..", "chat.example", None);
    check("", "", None);
    check("", "[::1]:9000", None);
    check(&format!("ns={}", "a".repeat(128)), "", Some(&"a".repeat(128)));
    check(&format!("ns={}", "a".repeat(129)), "", None);
}

#[test]
fn deep_json_is_read_without_exhausting_the_stack() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("{\".value\":", "}")] {
        for action in ["p", "m", "echo", "auth"] {
            let deep = format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
            let message = format!(
                r#"{{"t":"d","d":{{"r":1,"a":"{action}","b":{{"p":"/","cred":"x","authvar":{deep},"d":{{"x":{deep}}}}}}}}}"#
            );
            assert_eq!(incoming(&message), Incoming::Broken("not JSON"));
            let deep = format!("{}1{}", open.repeat(1_000), close.repeat(1_000));
            let message = message.replace(&format!("{}1{}", open.repeat(100_000), close.repeat(100_000)), &deep);
            let _ = incoming(&message);
        }
    }
}
