use serde_json::Value;

use super::account::{self, Ask, Generation};
use super::*;
use crate::base::WallMillis;
use crate::data::{Draft, Node};
use crate::json::Reader;
use crate::op::{BadCredential, Event, Identity, Outcome, Query, Refusal, Word};
use crate::wire::firebase::{Incoming, read_query};
use crate::wire::http;

const WALL: WallMillis = WallMillis(1_700_000_000_000);

fn node(json: &str) -> Node {
    let draft = Reader::default().read(&mut json.as_bytes().to_vec(), |item| Draft::from_json(item, 0).unwrap());
    draft.expect("the test's JSON is JSON").resolve(&Node::Empty, WALL)
}

/// What `write` appends, as text.
fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    write(&mut out);
    assert!(out.is_ascii(), "everything that is sent is ASCII");
    String::from_utf8(out).expect("ASCII")
}

fn incoming(message: &str) -> Incoming {
    decode(&mut message.as_bytes().to_vec(), &mut Reader::default())
}

/// The JSON of a packet.
#[track_caller]
fn parsed(packet: &str) -> Value {
    serde_json::from_str(packet.strip_prefix("42").expect("a message")).expect("JSON")
}

#[test]
fn recorded_requests_are_understood() {
    let mut actions = Vec::new();
    for line in include_str!("../../../tests/vectors/wilddog.jsonl").lines() {
        let line: Value = serde_json::from_str(line).expect("a vector is JSON");
        if let Some(frame) = line["client"].as_str() {
            let message = frame.strip_prefix('4').expect("a message");
            let Incoming::Request { number, action } = incoming(message) else { panic!("{frame}") };
            assert_eq!(Some(number), parsed(frame)[1]["d"]["r"].as_i64(), "{frame}");
            let kind = std::mem::discriminant(&action);
            if !actions.contains(&kind) {
                actions.push(kind);
            }
        }
    }
    assert_eq!(actions.len(), 6, "stats, data, last words and their cancellation, sign in, sign out");
}

#[test]
fn what_is_no_request_is_ignored_or_broken() {
    for text in ["0", "1", "0{}", r#"2["other",{}]"#, r#"2["other"]"#, "3[]", r#"2["wd",{"t":"x"}]"#] {
        assert_eq!(incoming(text), Incoming::Unknown, "{text}");
    }
    for text in [
        "",
        "x",
        "7",
        "2",
        "2{",
        r#"2["wd"]"#,
        r#"2["wd",1]"#,
        "2{}",
        "2[]",
        r#"2[1,{}]"#,
        r#"2["wd",{"t":"d","d":{}}]"#,
    ] {
        assert!(matches!(incoming(text), Incoming::Broken(_)), "{text}");
    }
    let refused = r#"2["wd",{"t":"d","d":{"r":7,"a":"p","b":{"p":"/a.b","d":1}}}]"#;
    assert!(matches!(incoming(refused), Incoming::Refused { number: 7, .. }));
}

#[test]
fn the_hello_is_as_recorded() {
    let hello = written(|out| hello(out, &Hello { time: WALL, host: "app.a.localhost:80", session: "s1" }));
    assert_eq!(
        hello,
        r#"42["wd",{"t":"c","d":{"t":"h","d":{"ts":1700000000000,"v":"1.0","h":"app.a.localhost:80","s":"s1"}}}]"#
    );
}

#[test]
fn hosts_are_what_clients_believe() {
    for (headers, expected) in [
        ("Host: App.A.localhost:9000", "app.a.localhost:9000"),
        ("Host: app.a.example", "app.a.example:80"),
        ("Host: app.a.example\r\nX-Forwarded-Proto: https", "app.a.example"),
        ("Host: 127.0.0.1:80", "127.0.0.1:80"),
    ] {
        let mut request = format!("GET /.ws/ HTTP/1.1\r\n{headers}\r\n\r\n").into_bytes();
        let mut input = crate::wire::Input::new(&mut request);
        let mut reader = http::Reader::default();
        let head = reader.next(&mut input).expect("HTTP").expect("whole");
        assert_eq!(host(&head), expected);
    }
}

#[test]
fn words_are_as_recorded() {
    let answer = |outcome: &Outcome| written(|out| word(out, &Word::Outcome { number: 3, outcome }));
    let ok = r#"42["wd",{"t":"d","d":{"r":3,"b":{"s":"ok","d":{}}}}]"#;
    assert_eq!(answer(&Outcome::Done), ok);
    assert_eq!(answer(&Outcome::Listening { is_unindexed: false }), ok);
    assert_eq!(written(|out| word(out, &Word::SignedOut { number: 3 })), ok);
    assert_eq!(
        answer(&Outcome::Listening { is_unindexed: true }),
        r#"42["wd",{"t":"d","d":{"r":3,"b":{"s":"ok","d":{"w":["no_index"]}}}}]"#
    );
    for (refusal, status, code) in [
        (Refusal::Denied, "permission_denied", 26_101),
        (Refusal::Stale, "datastale", 26_201),
        (Refusal::Credential(BadCredential::Expired), "expired_token", 26_801),
        (Refusal::Credential(BadCredential::Invalid), "invalid_token", 26_802),
        (Refusal::Malformed("p"), "error", 29_999),
    ] {
        let body = &parsed(&answer(&Outcome::Refused(refusal)))[1]["d"]["b"];
        assert_eq!((body["s"].as_str(), body["c"].as_u64()), (Some(status), Some(code)));
        assert!(body["d"].is_string());
    }
    let revoked = parsed(&written(|out| word(out, &Word::CredentialRevoked(BadCredential::Expired))));
    assert_eq!(revoked[1]["d"]["a"], "ac");
    assert_eq!(revoked[1]["d"]["b"]["s"], "expired_token");
}

#[test]
fn events_have_rooted_paths_and_escaped_texts() {
    let told = |event: &Event, tag| {
        let mut text = EventText::default();
        text.fill(event);
        written(|out| text.write(out, tag))
    };
    let path = crate::data::Path::parse("a/é").expect("a path");
    let set = Event::Set { path: path.clone(), node: node(r#"{"x":"漢😀","y":"\"é"}"#) };
    assert_eq!(
        told(&set, None),
        r#"42["wd",{"t":"d","d":{"a":"d","b":{"p":"/a/\u00e9","d":{"x":"\u6f22\ud83d\ude00","y":"\"\u00e9"}}}}]"#
    );
    let root = Event::Set { path: crate::data::Path::ROOT, node: Node::Empty };
    assert_eq!(told(&root, Some(18)), r#"42["wd",{"t":"d","d":{"a":"d","b":{"p":"/","d":null,"t":18}}}]"#);
    let query = br#"{"sp":"k","sn":"x","ep":5,"l":2,"vf":"r","i":"age"}"#;
    let query = Reader::default().read(&mut query.to_vec(), |item| read_query(item).unwrap());
    let revoked = Event::Revoked { path: path.clone(), query: query.expect("JSON") };
    let b = parsed(&told(&revoked, Some(4)))[1]["d"]["b"].clone();
    assert_eq!(b["q"], serde_json::json!([{ "sp": "k", "sn": "x", "ep": 5, "l": 2, "vf": "r", "i": "age" }]));
    assert_eq!(b.get("t"), None);
    let whole = Event::Revoked { path, query: Query::ALL };
    assert_eq!(told(&whole, None), r#"42["wd",{"t":"d","d":{"a":"c","b":{"p":"/a/\u00e9"}}}]"#);
}

#[test]
fn hashes_are_those_of_the_clients() {
    let vectors: Value =
        serde_json::from_str(include_str!("../../../tests/vectors/wilddog-hashes.json")).expect("JSON");
    let vectors = vectors.as_array().expect("a list");
    assert_eq!(vectors.len(), 24);
    for vector in vectors {
        let (value, hash) = (&vector["value"], vector["hash"].as_str().expect("a text"));
        assert_eq!(node(&value.to_string()).hash().as_str(), hash, "{value}");
    }
}

#[test]
fn sign_in_requests_are_understood() {
    assert_eq!(account::operation("/v2/app/auth/signupNewUser"), Some((Generation::Second, "signupNewUser")));
    assert_eq!(account::operation("/v1/app/auth/anonymous"), Some((Generation::Legacy, "auth/anonymous")));
    assert_eq!(
        account::operation("/v1/app/users/a%40b.c/password"),
        Some((Generation::Legacy, "users/a%40b.c/password"))
    );
    for other in ["/v1/lookup", "/v1/projects/p:test", "/v2/app", "/v2/app/data/x", "/v3/app/auth/x", "v2/app/auth/x"] {
        assert_eq!(account::operation(other), None, "{other}");
    }
    let read = |operation, body: &str| account::read(operation, &mut body.as_bytes().to_vec(), &mut Reader::default());
    assert_eq!(read("verifyCustomToken", r#"{"providerId":"custom","token":"t"}"#), Ask::Token("t".into()));
    assert_eq!(read("getAccountInfo", r#"{"idToken":"t"}"#), Ask::Info("t".into()));
    assert_eq!(read("signupNewUser", "{}"), Ask::Anonymous);
    assert_eq!(read("signupNewUser", r#"{"email":"e","password":"p"}"#), Ask::Unsupported);
    assert_eq!(read("signupNewUser", "no JSON"), Ask::Unsupported);
    assert_eq!(read("other", "{}"), Ask::Unsupported);
    let legacy = |operation, query| account::read_legacy(operation, http::Query(query));
    assert_eq!(legacy("auth/anonymous", "&v=node-0.7.2"), Ask::Anonymous);
    assert_eq!(legacy("users", "&email=a&_method=POST"), Ask::Unsupported);
}

#[test]
fn account_answers_have_what_clients_read() {
    let auth = serde_json::json!({ "uid": "u1", "provider": "anonymous" });
    let identity = Identity { is_admin: false, auth, expires_s: Some(5) };
    let json = |text: String| -> Value { serde_json::from_str(&text).expect("JSON") };
    let second = json(written(|out| account::signed_in(out, Generation::Second, "t", &identity)));
    assert_eq!(second, serde_json::json!({ "idToken": "t" }));
    let legacy = json(written(|out| account::signed_in(out, Generation::Legacy, "t", &identity)));
    assert_eq!(legacy, serde_json::json!({ "token": "t", "uid": "u1", "provider": "anonymous", "expires": 5 }));
    let user = &json(written(|out| account::info(out, &identity)))["users"][0];
    assert_eq!(user["localId"], "u1");
    assert!(user["providerUserInfo"].is_array());
    let refused = account::Refused::Credential(BadCredential::Invalid);
    let second = json(written(|out| account::refused(out, Generation::Second, refused)));
    assert_eq!((&second["error"], &second["errcode"]), (&Value::Bool(true), &Value::from(22_004)));
    let legacy = json(written(|out| account::refused(out, Generation::Legacy, refused)));
    assert!(legacy["error"]["code"].is_string());
}
