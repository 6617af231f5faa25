use serde_json::{Value, json};

use super::*;
use crate::auth::AuthConfig;
use crate::engine::{Hangup, Input, Settings};
use crate::rules::{Dialect, Ruleset};
use crate::sim::{Client, WALL_START_MS, World};

const OPEN: &str = r#"{"rules":{".read":true,".write":true}}"#;
const OWNER: &str = "Authorization: Bearer owner\r\n";

fn world(shards: u8, rules: &str) -> World {
    let rules = Arc::new(Ruleset::parse(rules, Dialect::Both).expect("the test's rules are right"));
    World::with(shards, 91, &Arc::new(Settings::default()), &rules)
}

fn for_shards(story: impl Fn(u8)) {
    (1..=3).for_each(story);
}

/// One request, its status and its JSON.
#[track_caller]
fn ask(world: &mut World, client: Client, request: &str, headers: &str, body: &str) -> (u16, Value) {
    let (method, target) = request.split_once(' ').unwrap();
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let text = format!("{method} {target} HTTP/1.1\r\nHost: db.sim.example\r\n{headers}{length}\r\n{body}");
    world.send_bytes(client, text.as_bytes());
    world.settle();
    let answer = String::from_utf8(world.take_bytes(client)).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a whole head");
    (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap_or_else(|_| panic!("{request}: {answer}")))
}

/// What an administrator sees.
#[track_caller]
fn see(world: &mut World, client: Client, request: &str) -> Value {
    let (status, seen) = ask(world, client, request, OWNER, "");
    assert_eq!(status, 200, "{request}: {seen}");
    seen
}

/// All pages of a list: `name` is that of its rows.
#[track_caller]
fn pages(world: &mut World, client: Client, target: &str, name: &str) -> Vec<Value> {
    let mut rows = Vec::new();
    let mut after = String::new();
    for _ in 0..100 {
        let page = see(world, client, &format!("GET {target}&after={after}"));
        rows.extend(page[name].as_array().unwrap().iter().cloned());
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => return rows,
        }
    }
    panic!("{target} has no end");
}

fn send(world: &mut World, client: Client, request: &str) {
    world.send(client, &format!(r#"{{"t":"d","d":{request}}}"#));
    world.settle();
}

/// A client that has left one last word.
fn leaver(world: &mut World, shard: usize, uid: Option<&str>, path: &str) -> Client {
    let client = world.join(shard, "&ns=db");
    if let Some(uid) = uid {
        let claims = format!(r#"{{"sub":"{uid}","iat":1,"exp":9999999999}}"#);
        let token = format!("{}.{}.", base64(r#"{"alg":"none","typ":"JWT"}"#), base64(&claims));
        send(world, client, &format!(r#"{{"r":1,"a":"gauth","b":{{"cred":"{token}"}}}}"#));
    }
    send(world, client, &format!(r#"{{"r":2,"a":"o","b":{{"p":"{path}","d":"offline"}}}}"#));
    send(world, client, &format!(r#"{{"r":3,"a":"p","b":{{"p":"{path}","d":"online"}}}}"#));
    client
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(text)
}

#[test]
fn only_administrators_look() {
    for_shards(|shards| {
        let mut world = world(shards, OPEN);
        let client = world.dial(0);
        for request in [
            "GET /.stillhere/cores.json",
            "GET /.stillhere/sessions.json",
            "DELETE /.stillhere/sessions.json?session=0.0.0",
            "GET /.stillhere/lastwords.json",
            "GET /.stillhere/recent.json",
            "GET /.stillhere/explain.json?path=/a",
            "GET /.stillhere/children.json?path=/a",
            "POST /.stillhere/try.json",
        ] {
            let body = if request.starts_with("POST") { r#"{"op":"read","path":"/"}"# } else { "" };
            let (status, _) = ask(&mut world, client, request, "", body);
            assert_eq!(status, 401, "{request}");
            let (status, _) = ask(&mut world, client, request, "Authorization: Bearer wrong\r\n", body);
            assert_eq!(status, 401, "{request}");
            let (status, seen) = ask(&mut world, client, request, OWNER, body);
            assert_eq!(status, if request.starts_with("DELETE") { 404 } else { 200 }, "{request}: {seen}");
        }
        let stream = "Accept: text/event-stream\r\n";
        assert_eq!(ask(&mut world, client, "GET /.stillhere/live.json", stream, "").0, 401);
    });
}

#[test]
fn mistakes_in_questions_are_told() {
    let mut world = world(2, OPEN);
    let client = world.dial(0);
    for (request, expected) in [
        ("GET /.stillhere/nothing.json", 404),
        ("GET /.stillhere/sessions.json?limit=0", 400),
        ("GET /.stillhere/sessions.json?limit=1001", 400),
        ("GET /.stillhere/sessions.json?after=x", 400),
        ("GET /.stillhere/sessions.json?after=9.0", 404),
        ("DELETE /.stillhere/sessions.json", 400),
        ("DELETE /.stillhere/sessions.json?session=9.0.0", 404),
        ("PUT /.stillhere/cores.json", 405),
        ("GET /.stillhere/explain.json?path=a.b", 400),
        ("GET /.stillhere/live.json", 400),
        ("GET /.stillhere/children.json?path=a%00", 400),
    ] {
        assert_eq!(ask(&mut world, client, request, OWNER, "").0, expected, "{request}");
    }
    let many = "&path=a".repeat(51);
    assert_eq!(ask(&mut world, client, &format!("GET /.stillhere/children.json?ns=db{many}"), OWNER, "").0, 400);
}

#[test]
fn sessions_are_told_with_what_is_known_of_them() {
    for_shards(|shards| {
        let mut world = world(shards, OPEN);
        leaver(&mut world, 0, Some("ann"), "/status/ann");
        world.pass(Millis(2_000));
        leaver(&mut world, 1, None, "/status/joe");
        world.join(2, "&ns=other");
        let admin = world.dial(0);
        let mut rows = pages(&mut world, admin, "/.stillhere/sessions.json?ns=db", "sessions");
        rows.sort_by_key(|row| row["uid"].as_str().map(str::to_owned));
        assert_eq!(rows.len(), 2, "{rows:?}");
        assert_eq!((&rows[0]["uid"], &rows[0]["ageMs"], &rows[0]["words"]), (&json!(null), &json!(0), &json!(1)));
        assert_eq!((&rows[1]["uid"], &rows[1]["words"]), (&json!("ann"), &json!(1)));
        assert_eq!((&rows[1]["ageMs"], &rows[1]["silentMs"]), (&json!(2_000), &json!(2_000)));
        assert_eq!(rows[1]["protocol"], "websocket");
        let others = pages(&mut world, admin, "/.stillhere/sessions.json?ns=other", "sessions");
        assert_eq!(others.len(), 1);
    });
}

#[test]
fn pages_show_each_session_and_each_word_once() {
    for_shards(|shards| {
        let mut world = world(shards, OPEN);
        for index in 0..25 {
            leaver(&mut world, index, None, &format!("/status/{index}"));
        }
        let admin = world.dial(0);
        for (view, name) in [("sessions", "sessions"), ("lastwords", "lastwords")] {
            for limit in [1, 3, 1_000] {
                let target = format!("/.stillhere/{view}.json?ns=db&limit={limit}");
                let rows = pages(&mut world, admin, &target, name);
                let mut sessions: Vec<_> = rows.iter().map(|row| row["session"].to_string()).collect();
                sessions.sort();
                sessions.dedup();
                assert_eq!((rows.len(), sessions.len()), (25, 25), "{target}");
            }
        }
    });
}

#[test]
fn a_look_goes_through_a_bounded_part_of_the_table() {
    let mut world = World::new(1, 3);
    for _ in 0..SLOTS_MAX + 10 {
        world.join(0, "&ns=crowd");
    }
    world.join(0, "&ns=db");
    let admin = world.dial(0);
    let first = see(&mut world, admin, "GET /.stillhere/sessions.json?ns=db");
    assert_eq!((first["sessions"].as_array().unwrap().len(), &first["next"]), (0, &json!(format!("0.{SLOTS_MAX}"))));
    assert_eq!(pages(&mut world, admin, "/.stillhere/sessions.json?ns=db", "sessions").len(), 1);
}

#[test]
fn a_killed_session_speaks_and_its_client_hears_of_it() {
    for_shards(|shards| {
        let mut world = world(shards, OPEN);
        let victim = leaver(&mut world, 1, Some("ann"), "/status/ann");
        let admin = world.dial(0);
        let session = pages(&mut world, admin, "/.stillhere/sessions.json?ns=db", "sessions")[0]["session"].clone();
        let kill = format!("DELETE /.stillhere/sessions.json?session={}", session.as_str().unwrap());
        assert_eq!(ask(&mut world, admin, &format!("{kill}&ns=other"), OWNER, "").0, 404, "of another database");
        assert!(world.is_open(victim));
        assert_eq!(see(&mut world, admin, &format!("{kill}&ns=db")), json!({"killed": true}));
        assert_eq!((world.is_open(victim), world.close_code(victim)), (false, Some(1008)));
        assert_eq!(ask(&mut world, admin, &format!("{kill}&ns=db"), OWNER, "").0, 404, "there is nobody any more");
        assert_eq!(ask(&mut world, admin, "GET /status/ann.json", "", "").1, "offline");
        let recent = see(&mut world, admin, "GET /.stillhere/recent.json?ns=db");
        let row = &recent["recent"][0];
        assert_eq!((&row["became"], &row["end"], &row["uid"]), (&json!("spoken"), &json!("killed"), &json!("ann")));
        assert_eq!(row["session"], session);
    });
}

#[test]
fn a_plain_connection_is_nobody_who_could_be_killed() {
    let mut world = world(1, OPEN);
    let (admin, other) = (world.dial(0), world.dial(0));
    ask(&mut world, other, "GET /a.json", "", "");
    for slot in 0..2 {
        let kill = format!("DELETE /.stillhere/sessions.json?session=0.{slot}.0");
        assert_eq!(ask(&mut world, admin, &kill, OWNER, "").0, 404);
    }
    assert!(world.is_open(other) && world.is_open(admin));
}

#[test]
fn last_words_that_wait_are_shown() {
    for_shards(|shards| {
        let mut world = world(shards, OPEN);
        let client = leaver(&mut world, 1, Some("ann"), "/status/ann");
        send(&mut world, client, r#"{"r":4,"a":"om","b":{"p":"/","d":{"seen/ann":{".sv":"timestamp"},"n":2}}}"#);
        send(&mut world, client, r#"{"r":5,"a":"o","b":{"p":"/gone","d":null}}"#);
        let admin = world.dial(0);
        let rows = pages(&mut world, admin, "/.stillhere/lastwords.json?ns=db", "lastwords");
        let short: Vec<_> = rows.iter().map(|row| (&row["kind"], &row["path"], &row["uid"])).collect();
        let ann = json!("ann");
        assert_eq!(
            short,
            [
                (&json!("set"), &json!("/status/ann"), &ann),
                (&json!("update"), &json!("/"), &ann),
                (&json!("remove"), &json!("/gone"), &ann),
            ]
        );
        assert_eq!(rows[0]["preview"], r#""offline""#);
        assert_eq!(rows[1]["places"], json!(["seen/ann", "n"]));
    });
}

#[test]
fn what_became_of_last_words_is_told_with_its_reason() {
    for_shards(|shards| {
        let rules = r#"{"rules":{".read":true,"$any":{".write":"!root.child('locked').exists() || newData.parent().hasChild('key')"}}}"#;
        let mut world = world(shards, rules);
        let silent = leaver(&mut world, 1, Some("ann"), "/ann");
        let other = world.join(0, "&ns=db");
        world.unplug(silent);
        world.pass(Millis(10_000));
        send(&mut world, other, r#"{"r":1,"a":"p","b":{"p":"/ann","d":"busy"}}"#);
        world.pass(Millis(60_000));
        let refused = leaver(&mut world, 0, Some("joe"), "/joe");
        let admin = world.dial(0);
        assert_eq!(ask(&mut world, admin, "PUT /locked.json", OWNER, "true").0, 200);
        world.hang_up(refused, Hangup::Broken);
        world.settle();
        let recent = see(&mut world, admin, "GET /.stillhere/recent.json?ns=db");
        let [yielded, denied] = recent["recent"].as_array().unwrap().as_slice() else { panic!("{recent}") };
        assert_eq!((&yielded["became"], &yielded["end"]), (&json!("yielded"), &json!("timed_out")));
        assert_eq!((&yielded["newer"]["path"], &yielded["newer"]["cause"]), (&json!("/ann"), &json!("client")));
        assert_eq!(
            (&denied["became"], &denied["end"], &denied["uid"]),
            (&json!("denied"), &json!("dropped"), &json!("joe"))
        );
        assert!(denied["why"].as_str().unwrap().contains("root.child('locked')"), "{denied}");
        let after = format!("GET /.stillhere/recent.json?ns=db&after={}", yielded["order"]);
        assert_eq!(see(&mut world, admin, &after)["recent"].as_array().unwrap().len(), 1);
        assert_eq!(see(&mut world, admin, "GET /.stillhere/recent.json?ns=other")["recent"], json!([]));
    });
}

#[test]
fn a_word_that_was_written_in_part_is_remembered_for_that_part() {
    let mut world = world(2, OPEN);
    let silent = world.join(1, "&ns=db");
    send(&mut world, silent, r#"{"r":2,"a":"om","b":{"p":"/s","d":{"a":"off","b":"off"}}}"#);
    let other = world.join(0, "&ns=db");
    world.unplug(silent);
    world.pass(Millis(10_000));
    send(&mut world, other, r#"{"r":1,"a":"p","b":{"p":"/s/a","d":"busy"}}"#);
    world.pass(Millis(60_000));
    let admin = world.dial(0);
    let last = |world: &mut World, path: &str| {
        see(world, admin, &format!("GET /.stillhere/explain.json?ns=db&path={path}"))["last"]["cause"].clone()
    };
    assert_eq!(last(&mut world, "/s/a"), "client");
    assert_eq!(last(&mut world, "/s/b"), "last_word");
    let recent = see(&mut world, admin, "GET /.stillhere/recent.json?ns=db");
    assert!(recent["recent"][0]["why"].as_str().unwrap().starts_with("in part"), "{recent}");
}

#[test]
fn a_path_is_explained() {
    for_shards(|shards| {
        let mut world = world(shards, OPEN);
        let client = leaver(&mut world, 1, Some("ann"), "/status/ann");
        let admin = world.dial(0);
        let explain = |world: &mut World, path: &str| {
            see(world, admin, &format!("GET /.stillhere/explain.json?ns=db&path={path}"))
        };
        let before = explain(&mut world, "/status/ann");
        assert_eq!((&before["last"]["cause"], &before["last"]["uid"]), (&json!("client"), &json!("ann")));
        assert_eq!((&before["preview"], before["waiting"].as_array().unwrap().len()), (&json!("\"online\""), 1));
        world.pass(Millis(1_000));
        world.hang_up(client, Hangup::Broken);
        world.settle();
        let after = explain(&mut world, "/status/ann");
        let last = &after["last"];
        assert_eq!((&last["cause"], &last["end"]), (&json!("last_word"), &json!("dropped")));
        assert_eq!((&last["uid"], &last["session"]), (&json!("ann"), &before["last"]["session"]));
        assert_eq!(last["at"], json!(WALL_START_MS + 1_000));
        assert_eq!((&after["waiting"], &after["recent"][0]["became"]), (&json!([]), &json!("spoken")));
        assert_eq!(ask(&mut world, admin, "PUT /status.json", OWNER, "1").0, 200);
        let above = explain(&mut world, "/status/ann/deep");
        assert_eq!((&above["last"]["path"], &above["last"]["cause"]), (&json!("/status"), &json!("rest")));
        assert_eq!(above["last"]["admin"], true);
        let root = explain(&mut world, "/");
        assert_eq!((&root["last"], &root["below"][0]["path"]), (&json!(null), &json!("/status")));
    });
}

#[test]
fn a_refused_write_explains_nothing() {
    let mut world = world(2, r#"{"rules":{".read":true,"open":{".write":true}}}"#);
    let client = world.dial(0);
    assert_eq!(ask(&mut world, client, "PUT /shut.json", "", "1").0, 401);
    assert_eq!(see(&mut world, client, "GET /.stillhere/explain.json?path=/shut")["last"], json!(null));
    let cores = see(&mut world, client, "GET /.stillhere/cores.json");
    let sum =
        |name: &str| cores["cores"].as_array().unwrap().iter().map(|core| core[name].as_u64().unwrap()).sum::<u64>();
    assert_eq!((sum("requests"), sum("writes")), (1, 0));
}

#[test]
fn cores_count_what_they_hold_and_let_go() {
    for_shards(|shards| {
        let mut world = world(shards, OPEN);
        let admin = world.dial(0);
        let clients: Vec<_> = (0..6).map(|index| leaver(&mut world, index, None, &format!("/s/{index}"))).collect();
        let sum = |world: &mut World, name: &str| {
            let cores = see(world, admin, "GET /.stillhere/cores.json");
            let cores = cores["cores"].as_array().unwrap();
            assert_eq!(cores.len(), usize::from(shards));
            cores.iter().map(|core| core.pointer(name).unwrap().as_u64().unwrap()).sum::<u64>()
        };
        assert_eq!(sum(&mut world, "/sessions/websocket"), 6);
        assert_eq!(sum(&mut world, "/connections"), 7);
        assert_eq!((sum(&mut world, "/leaving"), sum(&mut world, "/writes")), (6, 6));
        for client in clients {
            world.hang_up(client, Hangup::Broken);
        }
        world.settle();
        assert_eq!(sum(&mut world, "/sessions/websocket"), 0);
        assert_eq!((sum(&mut world, "/connections"), sum(&mut world, "/leaving")), (1, 0));
        assert_eq!((sum(&mut world, "/spoken"), sum(&mut world, "/ended")), (6, 6));
    });
}

#[test]
fn children_come_in_pages_and_values_are_cut() {
    let mut world = world(2, OPEN);
    let client = world.dial(0);
    let long = "é".repeat(300);
    let body = json!({"a": {"x": 1}, "b": long, "c": null, "d": {".value": true, ".priority": 3}, "e": 5}).to_string();
    assert_eq!(ask(&mut world, client, "PUT /t.json", OWNER, &body).0, 200);
    let seen = see(&mut world, client, "GET /.stillhere/children.json?path=/t&path=/t/e&limit=2");
    let (t, e) = (&seen["pages"][0], &seen["pages"][1]);
    assert_eq!(
        (&t["count"], &t["more"], &t["children"][0]),
        (&json!(4), &json!(true), &json!({"key": "a", "count": 1}))
    );
    assert_eq!((&t["children"][1]["cut"], t["children"][1]["preview"].as_str().unwrap().len()), (&json!(true), 199));
    assert_eq!((&e["count"], &e["preview"], &e["cut"]), (&json!(0), &json!("5"), &json!(false)));
    let rest = see(&mut world, client, "GET /.stillhere/children.json?path=/t&limit=2&after=b");
    assert_eq!(rest["pages"][0]["children"][0]["preview"], "true");
    assert_eq!(rest["pages"][0]["more"], false);
}

#[test]
fn rules_are_tried_and_change_nothing() {
    for_shards(|shards| {
        let rules = r#"{"rules":{"users":{"$uid":{".read":true,".write":"auth.uid === $uid",".validate":"newData.isString()"}}}}"#;
        let mut world = world(shards, rules);
        let client = world.dial(0);
        let attempt = |world: &mut World, body: Value| {
            ask(world, client, "POST /.stillhere/try.json?ns=db", OWNER, &body.to_string())
        };
        let ann = json!({"uid": "ann"});
        for (body, is_allowed) in [
            (json!({"op": "read", "path": "/users/ann"}), true),
            (json!({"op": "read", "path": "/users"}), false),
            (json!({"op": "set", "path": "/users/ann", "value": "x", "auth": ann}), true),
            (json!({"op": "set", "path": "/users/ann", "value": 5, "auth": ann}), false),
            (json!({"op": "set", "path": "/users/joe", "value": "x", "auth": ann}), false),
            (json!({"op": "remove", "path": "/users/ann", "auth": ann}), true),
            (json!({"op": "update", "path": "/users", "value": {"ann": "a", "joe": "b"}, "auth": ann}), false),
            (json!({"op": "set", "path": "/x", "value": 1, "rules": "{\"rules\":{\".write\":true}}"}), true),
        ] {
            let (status, seen) = attempt(&mut world, body.clone());
            assert_eq!((status, &seen["allowed"]), (200, &json!(is_allowed)), "{body}: {seen}");
            assert_eq!(seen["why"].is_string(), !is_allowed, "{seen}");
        }
        let (_, seen) = attempt(&mut world, json!({"op": "set", "path": "/users/joe", "value": "x", "auth": ann}));
        assert_eq!(seen["rules"], json!([{"line": 1, "column": 50}]));
        for wrong in [
            json!({"op": "fly", "path": "/"}),
            json!({"op": "set", "path": "/a.b"}),
            json!({"op": "read", "path": "/", "auth": "ann"}),
            json!({"op": "read", "path": "/", "rules": "{"}),
            json!({"op": "set", "path": "/", "value": {"a.b": 1}}),
        ] {
            assert_eq!(attempt(&mut world, wrong.clone()).0, 400, "{wrong}");
        }
        assert_eq!(ask(&mut world, client, "GET /.json", OWNER, "").1, json!(null));
    });
}

/// What a stream was shown since it was asked last.
fn glances(world: &mut World, client: Client) -> Vec<Value> {
    let text = String::from_utf8(world.take_bytes(client)).unwrap();
    let data = text.split("event: glance\ndata: ").skip(1);
    data.map(|text| serde_json::from_str(text.split_once("\n\n").unwrap().0).unwrap()).collect()
}

fn watch(world: &mut World, shard: usize) -> Client {
    let client = world.dial(shard);
    let text =
        format!("GET /.stillhere/live.json?ns=db HTTP/1.1\r\nHost: sim\r\nAccept: text/event-stream\r\n{OWNER}\r\n");
    world.send_bytes(client, text.as_bytes());
    world.settle();
    client
}

#[test]
fn a_stream_is_shown_everything_once_a_second() {
    for_shards(|shards| {
        let mut world = world(shards, OPEN);
        let leaving = leaver(&mut world, 1, Some("ann"), "/status/ann");
        let watcher = watch(&mut world, 0);
        world.pass(Millis(100));
        let first = glances(&mut world, watcher);
        assert_eq!(first.len(), 1, "{first:?}");
        assert_eq!(first[0]["cores"].as_array().unwrap().len(), usize::from(shards));
        let uids = |glance: &Value| {
            let rows = glance["sessions"].as_array().unwrap().clone();
            rows.into_iter()
                .filter(|row| row["protocol"] == "websocket")
                .map(|row| row["uid"].clone())
                .collect::<Vec<_>>()
        };
        assert_eq!((uids(&first[0]), &first[0]["lastwords"][0]["path"]), (vec![json!("ann")], &json!("/status/ann")));
        world.hang_up(leaving, Hangup::Broken);
        world.pass(Millis(1_000));
        let second = glances(&mut world, watcher);
        assert_eq!((second.len(), uids(&second[0])), (1, vec![]));
        assert_eq!(second[0]["recent"][0]["became"], "spoken");
        world.pass(Millis(5_000));
        let later = glances(&mut world, watcher);
        assert_eq!((later.len(), &later[0]["recent"]), (5, &json!([])), "it is told once what has happened");
        world.hang_up(watcher, Hangup::Broken);
        world.pass(Millis(60_000));
        assert_eq!(world.session_count(), 0);
    });
}

#[test]
fn a_stream_is_shown_nothing_more_when_its_credential_has_run_out() {
    let mut world = world(2, OPEN);
    let secret = "0123456789abcdef0123456789abcdef";
    world.believe(AuthConfig { secrets: vec![secret.to_owned()], ..AuthConfig::default() });
    let expires_s = WALL_START_MS / 1_000 + 20;
    let claims = format!(r#"{{"v":0,"admin":true,"d":{{}},"iat":{},"exp":{expires_s}}}"#, WALL_START_MS / 1_000);
    let text = format!("{}.{}", base64(r#"{"alg":"HS256","typ":"JWT"}"#), base64(&claims));
    let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
    let signature = jsonwebtoken::crypto::sign(text.as_bytes(), &key, jsonwebtoken::Algorithm::HS256).unwrap();
    let watcher = world.dial(1);
    let head = format!("Host: sim\r\nAccept: text/event-stream\r\nAuthorization: Bearer {text}.{signature}\r\n\r\n");
    world.send_bytes(watcher, format!("GET /.stillhere/live.json?ns=db HTTP/1.1\r\n{head}").as_bytes());
    world.pass(Millis(18_500));
    assert_eq!(glances(&mut world, watcher).len(), 19);
    world.pass(Millis(4_000));
    assert!(glances(&mut world, watcher).len() < 3 && !world.is_open(watcher));
}

#[test]
fn who_takes_nothing_is_shown_nothing_more() {
    let mut world = world(2, OPEN);
    for index in 0..20 {
        leaver(&mut world, index, None, &format!("/s/{index}"));
    }
    let watcher = watch(&mut world, 0);
    world.pass(Millis(1_100));
    let one = world.take_bytes(watcher).len();
    world.choke(watcher);
    world.pass(Millis(20_000));
    let waiting = world.waiting_bytes(watcher);
    assert!(waiting < 2 * one, "{waiting} wait, where one look and the head are {one}");
}

#[test]
fn a_server_that_is_watched_stops_like_any_other() {
    for_shards(|shards| {
        for steps in 0..12 {
            let mut world = world(shards, OPEN);
            leaver(&mut world, 1, None, "/s");
            let watcher = watch(&mut world, 0);
            let admin = world.dial(1);
            world.pass(Millis(990));
            world.send_bytes(
                admin,
                format!("GET /.stillhere/cores.json HTTP/1.1\r\nHost: sim\r\n{OWNER}\r\n").as_bytes(),
            );
            world.oversleep(Millis(20));
            world.input_all(|| Input::Tick);
            for _ in 0..steps {
                world.deliver();
            }
            world.input_all(|| Input::Drain);
            world.settle();
            assert!(world.drained.iter().all(|is_drained| *is_drained), "{steps}");
            assert!(!world.is_open(watcher) && world.session_count() == 0, "{steps}");
        }
    });
}

#[test]
fn too_many_who_watch_are_refused() {
    let mut world = world(1, OPEN);
    for _ in 0..WATCHERS_MAX {
        let watcher = watch(&mut world, 0);
        assert!(world.is_open(watcher));
    }
    let watcher = watch(&mut world, 0);
    assert!(String::from_utf8(world.take_bytes(watcher)).unwrap().starts_with("HTTP/1.1 503"));
    assert!(!world.is_open(watcher));
}

#[test]
fn a_core_that_comes_too_late_says_so() {
    let mut world = world(1, OPEN);
    let admin = world.dial(0);
    let late =
        |world: &mut World| see(world, admin, "GET /.stillhere/cores.json")["cores"][0]["lateMs"].as_u64().unwrap();
    assert_eq!(late(&mut world), 0);
    world.oversleep(Millis(700));
    world.pass(Millis(0));
    assert!((600..=700).contains(&late(&mut world)), "{}", late(&mut world));
    world.pass(Millis(2_500));
    assert!(late(&mut world) < 100, "it is forgotten");
}

#[test]
fn the_console_is_for_browsers_and_its_parts_are_strict() {
    let mut world = world(1, OPEN);
    let client = world.dial(0);
    assert_eq!(ask(&mut world, client, "GET /", "", "").1["stillhere"], "is ready");
    assert_eq!(ask(&mut world, client, "GET /", "Accept: */*\r\n", "").1["stillhere"], "is ready");
    for (path, kind) in [
        ("/", "text/html"),
        ("/.stillhere/console.css", "text/css"),
        ("/.stillhere/console.js", "text/javascript"),
        ("/.stillhere/icon.svg", "image/svg+xml"),
    ] {
        let text = format!("GET {path} HTTP/1.1\r\nHost: sim\r\nAccept: text/html,*/*;q=0.8\r\n\r\n");
        world.send_bytes(client, text.as_bytes());
        world.settle();
        let answer = String::from_utf8(world.take_bytes(client)).unwrap();
        let head = answer.split_once("\r\n\r\n").unwrap().0.to_owned();
        assert!(
            head.starts_with("HTTP/1.1 200") && head.contains(&format!("Content-Type: {kind}; charset=utf-8")),
            "{head}"
        );
        assert!(head.contains("Content-Security-Policy: default-src 'none'; script-src 'self'"), "{head}");
        assert!(head.contains("frame-ancestors 'none'") && !head.contains("unsafe"), "{head}");
        assert!(head.contains("X-Content-Type-Options: nosniff"), "{head}");
    }
}
