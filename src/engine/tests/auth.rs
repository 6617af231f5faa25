//! Who a session is, from one moment to the next (rules specification, sections 3.3, 3.4 and 3.6).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use serde_json::{Value as Json, json};

use super::*;
use crate::auth::{AuthConfig, Issuer, KeySet};
use crate::rules::{Dialect, Ruleset};

const NOW_S: u64 = WALL_START_MS / 1_000;
const SECRET: &str = "0123456789abcdef0123456789abcdef";
const OTHER_SECRET: &str = "fedcba9876543210fedcba9876543210";
const RULES: &str = r#"{"rules": {
    "u": {"$uid": {".read": "auth.uid == $uid", ".write": "auth.uid == $uid"}},
    "seen": {".read": true},
    "room": {".read": "root.child('seen/open').val() == true"}
}}"#;

fn signed(header: &Json, claims: &Json, key: &EncodingKey, algorithm: Algorithm) -> String {
    let part = |json: &Json| URL_SAFE_NO_PAD.encode(json.to_string());
    let text = format!("{}.{}", part(header), part(claims));
    let signature = crypto::sign(text.as_bytes(), key, algorithm).unwrap();
    format!("{text}.{signature}")
}

/// A Wilddog token of `uid` that runs out so many seconds after the world began.
fn token_of(uid: &str, lasts_s: u64, secret: &str) -> String {
    let claims = json!({"v": 1, "uid": uid, "claims": {}, "iat": NOW_S - 60, "exp": NOW_S + lasts_s});
    let key = EncodingKey::from_secret(secret.as_bytes());
    signed(&json!({"alg": "HS256", "typ": "JWT"}), &claims, &key, Algorithm::HS256)
}

fn token(uid: &str, lasts_s: u64) -> String {
    token_of(uid, lasts_s, SECRET)
}

fn believing(secret: &str) -> AuthConfig {
    AuthConfig { secrets: vec![secret.to_owned()], ..AuthConfig::default() }
}

/// A world that believes `SECRET` and nothing else.
fn world(shards: u8) -> World {
    let mut world = under(RULES, shards, 40);
    world.believe(believing(SECRET));
    world
}

/// A client that has heard its handshake.
fn join(world: &mut World, shard: usize) -> Client {
    let client = world.join(shard, "&ns=db");
    last_messages(world, client);
    client
}

/// Sends a request whose answer has this status; gives what was heard, the answer last.
#[track_caller]
fn answers(world: &mut World, client: Client, status: &str, request: &str) -> Vec<String> {
    let heard = ask(world, client, request);
    let is_it = |text: &&String| text.contains(&format!(r#""b":{{"s":"{status}""#)) && text.contains(r#""r":"#);
    assert!(heard.iter().any(|text| is_it(&text)), "{request}: {heard:?}");
    heard
}

#[track_caller]
fn signs_in(world: &mut World, client: Client, status: &str, credential: &str, more: &str) -> Vec<String> {
    let request = format!(r#"{{"r":90,"a":"auth","b":{{"cred":"{credential}"{more}}}}}"#);
    answers(world, client, status, &request)
}

/// Whom the rules take the client for: the users as whom it may write.
#[track_caller]
fn check_is(world: &mut World, client: Client, uids: &[&str]) {
    for uid in ["u1", "u2"] {
        let status = if uids.contains(&uid) { "ok" } else { "permission_denied" };
        answers(world, client, status, &format!(r#"{{"r":91,"a":"p","b":{{"p":"/u/{uid}/probe","d":1}}}}"#));
    }
}

#[test]
fn a_credential_is_one_by_either_name() {
    for_shards(|shards| {
        for action in ["auth", "gauth"] {
            let mut world = world(shards);
            let client = join(&mut world, 0);
            check_is(&mut world, client, &[]);
            let request = format!(r#"{{"r":1,"a":"{action}","b":{{"cred":"{}"}}}}"#, token("u1", 600));
            let answer = answers(&mut world, client, "ok", &request);
            let expected = format!(
                r#"{{"t":"d","d":{{"r":1,"b":{{"s":"ok","d":{{"auth":{{"provider":"custom","token":{{}},"uid":"u1"}},"expires":{}}}}}}}}}"#,
                NOW_S + 600
            );
            assert_eq!(answer, [expected]);
            check_is(&mut world, client, &["u1"]);
            let request = format!(r#"{{"r":2,"a":"{action}","b":{{"cred":"{SECRET}"}}}}"#);
            let answer = answers(&mut world, client, "ok", &request);
            assert_eq!(answer, [r#"{"t":"d","d":{"r":2,"b":{"s":"ok","d":{"auth":null}}}}"#]);
            check_is(&mut world, client, &["u1", "u2"]);
        }
    });
}

#[test]
fn only_administrators_choose_whom_they_are_taken_for() {
    for_shards(|shards| {
        let mut world = world(shards);
        let client = join(&mut world, 0);
        for (more, status, uids) in [
            (r#","authvar":{"uid":"u1"}"#, "ok", &["u1"][..]),
            (r#","authvar":null"#, "ok", &[]),
            (r#","noauth":true"#, "ok", &[]),
            (r#","noauth":true,"authvar":{"uid":"u1"}"#, "ok", &[]),
            (r#","noauth":false"#, "ok", &["u1", "u2"]),
            // Refused: still the administrator.
            (r#","authvar":"u1""#, "invalid_token", &["u1", "u2"]),
        ] {
            signs_in(&mut world, client, status, SECRET, more);
            check_is(&mut world, client, uids);
        }
        let user = join(&mut world, 1);
        for more in [r#","authvar":{"uid":"u1"}"#, r#","authvar":null"#, r#","noauth":true"#] {
            let refused = signs_in(&mut world, user, "permission_denied", &token("u2", 600), more);
            assert!(refused[0].contains(r#""d":"Permission denied""#), "{refused:?}");
            check_is(&mut world, user, &[]);
        }
    });
}

#[test]
fn a_refused_credential_changes_nothing() {
    for_shards(|shards| {
        let mut world = world(shards);
        let client = join(&mut world, 0);
        let bad = [token_of("u2", 600, OTHER_SECRET), "owner".into(), String::new(), "x.y.z".into()];
        for bad in &bad {
            let refused = signs_in(&mut world, client, "invalid_token", bad, "");
            assert!(refused[0].contains(r#""d":"Could not parse auth token.""#), "{refused:?}");
            check_is(&mut world, client, &[]);
        }
        signs_in(&mut world, client, "ok", &token("u1", 600), "");
        done(&mut world, client, r#"{"r":1,"a":"q","b":{"p":"/u/u1","h":""}}"#);
        for bad in &bad {
            let heard = signs_in(&mut world, client, "invalid_token", bad, "");
            assert_eq!(heard.len(), 1, "no listen is revoked: {heard:?}");
        }
        let mut late = world;
        late.pass(Millis(10_000));
        signs_in(&mut late, client, "expired_token", &token("u2", 5), "");
        check_is(&mut late, client, &["u1"]);
    });
}

#[test]
fn who_signs_out_is_nobody_and_loses_listens() {
    for_shards(|shards| {
        let mut world = world(shards);
        let client = join(&mut world, 1);
        signs_in(&mut world, client, "ok", &token("u1", 600), "");
        done(&mut world, client, r#"{"r":1,"a":"q","b":{"p":"/u/u1","h":""}}"#);
        done(&mut world, client, r#"{"r":2,"a":"q","b":{"p":"/seen","h":""}}"#);
        let mut heard = answers(&mut world, client, "ok", r#"{"r":3,"a":"unauth","b":{}}"#);
        heard.sort();
        assert_eq!(heard.len(), 2, "{heard:?}");
        assert_eq!(heard[0], r#"{"t":"d","d":{"a":"c","b":{"p":"u/u1"}}}"#);
        check_is(&mut world, client, &[]);
    });
}

#[test]
fn a_credential_runs_out_on_time_and_the_client_stays() {
    for_shards(|shards| {
        let mut world = world(shards);
        let client = join(&mut world, 1);
        signs_in(&mut world, client, "ok", &token("u1", 100), "");
        done(&mut world, client, r#"{"r":1,"a":"q","b":{"p":"/u/u1","h":""}}"#);
        done(&mut world, client, r#"{"r":2,"a":"q","b":{"p":"/seen","h":""}}"#);
        world.pass(Millis(99_999));
        assert_eq!(last_messages(&mut world, client), [""; 0], "not before");
        world.pass(Millis(17));
        let revoked = r#"{"t":"d","d":{"a":"ac","b":{"s":"expired_token","d":"Auth token is expired."}}}"#;
        assert_eq!(last_messages(&mut world, client), [revoked, r#"{"t":"d","d":{"a":"c","b":{"p":"u/u1"}}}"#]);
        assert!(world.is_open(client));
        check_is(&mut world, client, &[]);
        world.pass(Millis(200_000));
        assert_eq!(last_messages(&mut world, client), [""; 0], "once");
        signs_in(&mut world, client, "ok", &token("u2", 1_000), "");
        check_is(&mut world, client, &["u2"]);
    });
}

#[test]
fn a_fresh_credential_in_time_costs_no_listen() {
    for_shards(|shards| {
        let mut world = world(shards);
        let client = join(&mut world, 1);
        signs_in(&mut world, client, "ok", &token("u1", 100), "");
        done(&mut world, client, r#"{"r":1,"a":"q","b":{"p":"/u/u1","h":""}}"#);
        world.pass(Millis(90_000));
        assert_eq!(signs_in(&mut world, client, "ok", &token("u1", 400), "").len(), 1);
        world.pass(Millis(200_000));
        assert_eq!(last_messages(&mut world, client), [""; 0]);
        check_is(&mut world, client, &["u1"]);
    });
}

/// A client signs in as `u1` for 100 seconds, leaves a word there, then `then` happens, then it goes.
#[track_caller]
fn check_word(shards: u8, then: impl Fn(&mut World, Client), is_spoken: bool) {
    let mut world = world(shards);
    let (client, reader) = (join(&mut world, 0), join(&mut world, 1));
    signs_in(&mut world, reader, "ok", SECRET, "");
    signs_in(&mut world, client, "ok", &token("u1", 100), "");
    done(&mut world, client, r#"{"r":1,"a":"o","b":{"p":"/u/u1/status","d":"off"}}"#);
    then(&mut world, client);
    world.hang_up(client, Hangup::Broken);
    world.settle();
    let expected = if is_spoken { r#""off""# } else { "null" };
    assert_eq!(value_at(&mut world, reader, "/u/u1/status"), expected);
}

#[test]
fn last_words_are_spoken_as_who_the_session_is_then() {
    for_shards(|shards| {
        check_word(shards, |_, _| {}, true);
        check_word(shards, |world, _| world.pass(Millis(99_000)), true);
        check_word(shards, |world, _| world.pass(Millis(101_000)), false);
        // The wheel has not had a chance to notice.
        check_word(shards, |world, _| world.oversleep(Millis(101_000)), false);
        check_word(shards, |world, client| drop(done(world, client, r#"{"r":2,"a":"unauth","b":{}}"#)), false);
        check_word(shards, |world, client| drop(signs_in(world, client, "ok", &token("u2", 600), "")), false);
        check_word(shards, |world, client| drop(signs_in(world, client, "ok", SECRET, "")), true);
        let renewed = |world: &mut World, client| {
            signs_in(world, client, "ok", &token("u1", 600), "");
            world.pass(Millis(101_000));
        };
        check_word(shards, renewed, true);
    });
}

#[test]
fn no_request_is_made_by_who_is_no_longer_believed() {
    for_shards(|shards| {
        let mut world = world(shards);
        let client = join(&mut world, 0);
        signs_in(&mut world, client, "ok", &token("u1", 10), "");
        world.oversleep(Millis(10_000));
        let heard = answers(&mut world, client, "permission_denied", r#"{"r":1,"a":"p","b":{"p":"/u/u1","d":1}}"#);
        assert!(heard[0].contains(r#""a":"ac""#), "{heard:?}");
    });
}

#[test]
fn what_is_accepted_late_lasts_as_long_as_clocks_may_differ() {
    // A key made for this test; it opens nothing.
    let der = "MC4CAQAwBQYDK2VwBCIEIDZ+DIMntViBmla7peZZfvRC9rFew7Ju+60DsxL6kRrA";
    let key = EncodingKey::from_ed_der(&base64::engine::general_purpose::STANDARD.decode(der).unwrap());
    let mut jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(&key, Algorithm::EdDSA).unwrap();
    jwk.common.key_id = Some("k".to_owned());
    let keys = KeySet::parse(&json!({"keys": [serde_json::to_value(jwk).unwrap()]}).to_string()).unwrap();
    let issuer = Issuer::oidc("https://id.example", "app", "example", keys);
    let mut world = world(1);
    world.believe(AuthConfig { issuers: vec![issuer], leeway_s: 60, ..AuthConfig::default() });
    let claims = json!({"iss": "https://id.example", "aud": "app", "sub": "u1", "iat": NOW_S - 100, "exp": NOW_S - 10});
    let token = signed(&json!({"alg": "EdDSA", "kid": "k"}), &claims, &key, Algorithm::EdDSA);
    let client = join(&mut world, 0);
    signs_in(&mut world, client, "ok", &token, "");
    world.pass(Millis(49_000));
    check_is(&mut world, client, &["u1"]);
    world.pass(Millis(1_100));
    assert_eq!(last_messages(&mut world, client).len(), 1, "it has run out");
    signs_in(&mut world, client, "expired_token", &token, "");
}

#[test]
fn others_are_believed_from_one_moment_to_the_next() {
    for_shards(|shards| {
        let mut world = world(shards);
        let client = join(&mut world, 0);
        signs_in(&mut world, client, "ok", &token("u1", 600), "");
        world.believe(believing(OTHER_SECRET));
        check_is(&mut world, client, &["u1"]);
        signs_in(&mut world, client, "invalid_token", &token("u2", 600), "");
        signs_in(&mut world, client, "ok", &token_of("u2", 600, OTHER_SECRET), "");
        check_is(&mut world, client, &["u2"]);
    });
}

/// A client listens to `/room`, which is open; then `then` makes the rules look at data before each
/// thing that it hears; then the room is closed and something happens in it.
#[track_caller]
fn check_grows_conditional(shards: u8, rules: &str, then: impl Fn(&mut World, Client)) {
    let mut world = under(rules, shards, 41);
    world.believe(believing(SECRET));
    let (admin, watcher) = (join(&mut world, 0), join(&mut world, 1));
    signs_in(&mut world, admin, "ok", SECRET, "");
    done(&mut world, admin, r#"{"r":1,"a":"p","b":{"p":"/seen/open","d":true}}"#);
    signs_in(&mut world, watcher, "ok", SECRET, r#","noauth":false"#);
    done(&mut world, watcher, r#"{"r":1,"a":"q","b":{"p":"/room","h":""}}"#);
    done(&mut world, watcher, r#"{"r":2,"a":"q","b":{"p":"/room","q":{"l":1,"vf":"l"},"t":7,"h":""}}"#);
    then(&mut world, watcher);
    last_messages(&mut world, watcher);
    done(&mut world, admin, r#"{"r":2,"a":"p","b":{"p":"/seen/open","d":false}}"#);
    done(&mut world, admin, r#"{"r":3,"a":"p","b":{"p":"/room/x","d":"secret"}}"#);
    let heard = last_messages(&mut world, watcher);
    assert!(heard.len() == 2 && heard.iter().all(|text| text.contains(r#""a":"c""#)), "{heard:?}");
}

#[test]
fn listens_look_at_data_once_rules_or_identity_say_so() {
    for_shards(|shards| {
        let sign_out = |world: &mut World, watcher| drop(done(world, watcher, r#"{"r":9,"a":"unauth","b":{}}"#));
        check_grows_conditional(shards, RULES, sign_out);
        let open = r#"{"rules": {"room": {".read": true}}}"#;
        check_grows_conditional(shards, open, |world, watcher| {
            done(world, watcher, r#"{"r":9,"a":"unauth","b":{}}"#);
            let rules = Arc::new(Ruleset::parse(RULES, Dialect::Firebase).unwrap());
            world.input_all(|| Input::Rules(rules.clone()));
        });
    });
}
