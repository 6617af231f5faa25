//! Sessions of a program, against a whole server in this process.

#![expect(clippy::disallowed_methods, reason = "tests write the files of their servers")]

use std::future::Future;
use std::task::Poll;
use std::time::Duration;

use serde_json::json;

use super::{Change, Direction, Engine, Error, Index, Json, Limit, Listen, Opening, Query, Refusal, Session};
use crate::Server;
use crate::base::limits::{GUEST_CHANGES_MAX, GUEST_EVENTS_MAX, GUEST_REQUESTS_MAX};
use crate::op::{End, Identity};

/// Longer than anything here takes, on the busiest machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct House {
    server: Server,
    _directory: tempfile::TempDir,
}

impl House {
    fn new(shards: u16, config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let server = Server::builder()
            .listen(([127, 0, 0, 1], 0).into())
            .data(directory.path().join("data"))
            .config_text(config)
            .shards(shards)
            .dev()
            .start();
        Self { server: server.unwrap(), _directory: directory }
    }

    /// A metric, by what its line begins with.
    fn count(&self, metric: &str) -> u64 {
        let text = self.server.health().metrics();
        let line = text.lines().find(|line| line.starts_with(metric)).expect("it is printed");
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

/// Runs a story on one core and on two, with a runtime of two threads.
fn check<F: Future<Output = ()>>(story: impl Fn(Engine) -> F) {
    for shards in [1, 2] {
        let house = House::new(shards, "durability = \"none\"");
        run(story(house.server.engine()));
        house.server.stop().unwrap();
    }
}

fn run<T>(story: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, story).await.expect("it takes too long") })
}

async fn open(engine: &Engine) -> Session {
    engine.open(Opening::new("gateway")).await.unwrap()
}

/// Waits until what is listened to is this.
async fn until(listen: &mut Listen, json: &str) {
    loop {
        match listen.next().await {
            Some(Ok(Change::Value { value, .. })) if value.json() == json => return,
            Some(Ok(_)) => {}
            other => panic!("it ends before it is {json}: {other:?}"),
        }
    }
}

#[test]
fn what_is_written_is_read_and_heard() {
    check(|engine| async move {
        let one = open(&engine).await;
        let two = open(&engine).await;
        one.set("/room/a", json!({"n": 1, "t": "x"})).await.unwrap();
        let mut heard = two.listen("/room").await.unwrap();
        one.update("/room", [("a/n", json!(2)), ("b", json!("new"))]).await.unwrap();
        one.remove("/room/a").await.unwrap();
        one.set("/room/c", Json::timestamp()).await.unwrap();
        let first = heard.next().await.unwrap().unwrap();
        let Change::Value { path, value } = first else { panic!("the first is all there is") };
        assert_eq!((path.as_str(), value.json().as_str()), ("/room", r#"{"a":{"n":1,"t":"x"}}"#));
        let Some(Ok(Change::Merge { path, changes })) = heard.next().await else { panic!("an update is one") };
        let changes: Vec<_> = changes.iter().map(|(path, value)| (path.as_str(), value.json())).collect();
        assert_eq!((path.as_str(), changes), ("/room", vec![("/a/n", "2".into()), ("/b", "\"new\"".into())]));
        let Some(Ok(Change::Value { path, value })) = heard.next().await else { panic!("a removal is a value") };
        assert_eq!((path.as_str(), value.is_null()), ("/room/a", true));
        assert_eq!(two.get("/room/b").await.unwrap().json(), "\"new\"");
        assert!(two.get("/room").await.unwrap().at("c").unwrap().to_serde().as_u64().unwrap() > 1_600_000_000_000);
        let limit = Limit { count: std::num::NonZeroU32::MIN, from: Direction::First };
        let query = Query { index: Index::Key, limit: Some(limit), ..Query::ALL };
        assert_eq!(two.query("/room", query).await.unwrap().json(), r#"{"b":"new"}"#);
    });
}

#[test]
fn last_words_are_spoken_once_however_a_session_ends() {
    check(|engine| async move {
        let watcher = open(&engine).await;
        for is_polite in [true, false] {
            let mut count = watcher.listen("/count").await.unwrap();
            watcher.set("/count", 0).await.unwrap();
            until(&mut count, "0").await;
            let joe = open(&engine).await;
            joe.on_disconnect("/count").unwrap().set(Json::text(r#"{".sv":{"increment":1}}"#)).await.unwrap();
            joe.on_disconnect("/gone").unwrap().remove().await.unwrap();
            joe.on_disconnect("/both").unwrap().update([("x", 1), ("y", 2)]).await.unwrap();
            joe.on_disconnect("/never").unwrap().set("said").await.unwrap();
            joe.on_disconnect("/never").unwrap().cancel().await.unwrap();
            joe.set("/gone", true).await.unwrap();
            assert_eq!(watcher.get("/count").await.unwrap().json(), "0", "not before its end");
            if is_polite {
                joe.end().await;
            } else {
                drop(joe);
            }
            until(&mut count, "1").await;
            assert_eq!(watcher.get("/both").await.unwrap().json(), r#"{"x":1,"y":2}"#);
            assert!(watcher.get("/gone").await.unwrap().is_null());
            assert!(watcher.get("/never").await.unwrap().is_null());
        }
    });
}

#[test]
fn who_replaces_a_session_comes_after_its_last_words() {
    check(|engine| async move {
        for _ in 0..20 {
            let earlier = open(&engine).await;
            earlier.on_disconnect("/joe").unwrap().set("offline").await.unwrap();
            let later = engine.open(Opening::new("gateway").replacing(earlier.id())).await.unwrap();
            later.set("/joe", "online").await.unwrap();
            assert_eq!(later.get("/joe").await.unwrap().json(), "\"online\"");
            assert_eq!(earlier.ended().await, Error::Over(End::Superseded));
            assert_eq!(earlier.set("/joe", "no").await, Err(Error::Over(End::Superseded)));
        }
    });
}

#[test]
fn silence_ends_a_session_and_a_heartbeat_keeps_it() {
    check(|engine| async move {
        let opening = || Opening::new("gateway").timeout(Duration::from_secs(1));
        let living = engine.open(opening()).await.unwrap();
        let silent = engine.open(opening()).await.unwrap();
        let ended = silent.ended();
        let mut ended = std::pin::pin!(ended);
        loop {
            living.heartbeat();
            if let Ok(why) = tokio::time::timeout(Duration::from_millis(20), &mut ended).await {
                assert_eq!(why, Error::Over(End::TimedOut));
                break;
            }
        }
        living.set("/living", true).await.unwrap();
    });
}

#[test]
fn what_goes_wrong_has_a_name() {
    check(|engine| async move {
        let one = open(&engine).await;
        let name = |result: Result<(), Error>| result.unwrap_err().as_str();
        assert_eq!(name(one.set("/a.b", 1).await), "invalid_path");
        assert_eq!(name(one.set("/a", Json::text("{")).await), "not_json");
        assert_eq!(name(one.set("/a", json!({"b.c": 1})).await), "invalid_data");
        assert_eq!(name(one.update("/a", [("b", 1), ("b/c", 2)]).await), "overlap");
        assert_eq!(name(one.sign_in("nonsense").await), "invalid_token");
        assert_eq!(name(engine.open(Opening::new("a b")).await.map(drop)), "malformed");
        let short = Opening::new("a").timeout(Duration::from_millis(1));
        assert_eq!(name(engine.open(short).await.map(drop)), "malformed");
        assert_eq!(one.get("/a").await.unwrap().json(), "null", "nothing of it was done");
    });
    let rules = tempfile::tempdir().unwrap();
    let file = rules.path().join("rules.json");
    std::fs::write(&file, r#"{"rules":{"$uid":{".read":"auth.uid===$uid",".write":"auth.uid===$uid"}}}"#).unwrap();
    let config = format!("durability = \"none\"\nnamespaces = [\"gateway\"]\nrules = {:?}", file.display());
    let house = House::new(2, &config);
    let engine = house.server.engine();
    run(async {
        let joe = Identity { auth: json!({"uid": "joe"}), ..Identity::NOBODY };
        let joe = engine.open(Opening::new("gateway").identity(joe)).await.unwrap();
        joe.set("/joe", 1).await.unwrap();
        let mut heard = joe.listen("/joe").await.unwrap();
        let denied = Error::Refused(Refusal::Denied);
        assert_eq!(joe.set("/ann", 1).await, Err(denied.clone()));
        assert_eq!(joe.listen("/ann").await.map(drop), Err(denied.clone()));
        assert_eq!(engine.open(Opening::new("other")).await.unwrap_err().as_str(), "limit");
        until(&mut heard, "1").await;
        joe.sign_out().await.unwrap();
        assert_eq!(heard.next().await, Some(Err(denied)), "who is nobody hears no more");
        assert_eq!(heard.next().await, None);
    });
    house.server.stop().unwrap();
}

#[test]
fn who_listens_and_does_not_keep_up_hears_what_has_become_of_it() {
    check(|engine| async move {
        let (slow, writer) = (open(&engine).await, open(&engine).await);
        let mut heard = slow.listen("/n").await.unwrap();
        for n in 0..GUEST_EVENTS_MAX {
            writer.set("/n/count", n as u64).await.unwrap();
        }
        writer.set("/n/a/b", 1).await.unwrap();
        writer.set("/n/a!", 2).await.unwrap();
        writer.update("/n", [("a", json!({"c": 3})), ("d/e", json!(4))]).await.unwrap();
        writer.set("/n/a/c/f", 5).await.unwrap();
        writer.set("/n/d/e", 6).await.unwrap();
        writer.remove("/n/count").await.unwrap();
        // Whatever it is told is told in order: this comes after.
        slow.set("/done", true).await.unwrap();
        for _ in 0..GUEST_EVENTS_MAX {
            assert!(matches!(heard.next().await, Some(Ok(Change::Value { .. }))), "as they came");
        }
        let Some(Ok(Change::Merge { path, changes })) = heard.next().await else { panic!("the rest at once") };
        let changes: Vec<_> = changes.iter().map(|(path, value)| (path.as_str(), value.json())).collect();
        let expected = [("/a", r#"{"c":{"f":5}}"#), ("/a!", "2"), ("/count", "null"), ("/d/e", "6")];
        assert_eq!((path.as_str(), changes), ("/n", expected.map(|(path, json)| (path, json.to_owned())).to_vec()));
        writer.set("/n", 7).await.unwrap();
        until(&mut heard, "7").await;
    });
}

#[test]
fn a_listen_that_nobody_takes_ends_by_name_and_its_session_goes_on() {
    use crate::gateway::listen::Mailbox;
    use crate::op::Event;
    let put = |mailbox: &Mailbox, count: usize| {
        for n in 0..count {
            let path = crate::data::Path::parse(&format!("/n/{n}")).unwrap();
            mailbox.put(&std::sync::Arc::new(Event::Set { path, node: crate::data::Node::text("x") }));
        }
    };
    check(|engine| async move {
        let slow = open(&engine).await;
        let mut heard = slow.listen("/n").await.unwrap();
        assert!(heard.next().await.unwrap().is_ok(), "what stands there");
        put(&heard.mailbox, GUEST_EVENTS_MAX + GUEST_CHANGES_MAX + GUEST_EVENTS_MAX);
        assert_eq!(heard.next().await, Some(Err(Error::TooSlow)));
        assert_eq!(heard.next().await, None);
        slow.set("/done", true).await.unwrap();
        assert_eq!(slow.get("/done").await.unwrap().json(), "true");
    });
}

#[test]
fn more_than_fits_waits_and_is_done() {
    check(|engine| async move {
        let one = std::sync::Arc::new(open(&engine).await);
        let count = 10 * GUEST_REQUESTS_MAX;
        let increment = r#"{".sv":{"increment":1}}"#;
        let writes: Vec<_> = (0..count)
            .map(|_| {
                let one = std::sync::Arc::clone(&one);
                tokio::spawn(async move { one.set("/sum", Json::text(increment)).await })
            })
            .collect();
        for write in writes {
            write.await.unwrap().unwrap();
        }
        assert_eq!(one.get("/sum").await.unwrap().json(), count.to_string());
    });
}

#[test]
fn one_that_is_not_awaited_any_longer_leaves_nothing() {
    for shards in [1, 2] {
        let house = House::new(shards, "durability = \"none\"");
        let engine = house.server.engine();
        run(async {
            let watcher = open(&engine).await;
            for _ in 0..100 {
                // It is asked for, and given up before the answer is there, unless another thread was very fast.
                let patient = Opening::new("gateway").timeout(Duration::from_secs(3_600));
                let mut opening = Box::pin(engine.open(patient));
                let first = std::future::poll_fn(|context| Poll::Ready(opening.as_mut().poll(context))).await;
                drop((first, opening));
                let mut listening = Box::pin(watcher.listen("/x"));
                let first = std::future::poll_fn(|context| Poll::Ready(listening.as_mut().poll(context))).await;
                drop((first, listening));
            }
            watcher.set("/x", 1).await.unwrap();
            watcher.get("/x").await.unwrap();
            while house.count("stillhere_sessions{protocol=\"guest\"}") > 1 {
                tokio::task::yield_now().await;
            }
        });
        house.server.stop().unwrap();
    }
}

#[test]
fn the_end_of_the_server_is_told_to_everybody() {
    for shards in [1, 2] {
        let house = House::new(shards, "");
        let engine = house.server.engine();
        run(async {
            let sessions: Vec<_> = {
                let mut sessions = Vec::new();
                for _ in 0..20 {
                    sessions.push(open(&engine).await);
                }
                sessions
            };
            let mut heard = sessions[0].listen("/").await.unwrap();
            sessions[1].on_disconnect("/left").unwrap().set(true).await.unwrap();
            house.server.drain();
            for session in &sessions {
                assert_eq!(session.ended().await, Error::Over(End::ServerStopped));
                assert_eq!(session.get("/").await, Err(Error::Over(End::ServerStopped)));
            }
            while let Some(change) = heard.next().await {
                assert!(change.is_ok() || change == Err(Error::Over(End::ServerStopped)), "{change:?}");
            }
        });
        house.server.wait().unwrap();
        let late = run(engine.open(Opening::new("gateway")));
        assert_eq!(late.unwrap_err(), Error::Over(End::ServerStopped));
    }
}

#[test]
fn quotas_are_kept_over_all_cores_and_metrics_count_guests() {
    for shards in [1, 2] {
        let house =
            House::new(shards, "durability = \"none\"\n[namespace.small]\nsessions_max = 3\nlast_words_max = 2\n");
        let engine = house.server.engine();
        let count = |metric| house.count(metric);
        let guests = || count("stillhere_sessions{protocol=\"guest\"}");
        run(async {
            let mut three = Vec::new();
            for _ in 0..3 {
                three.push(engine.open(Opening::new("small")).await.unwrap());
            }
            let refused = engine.open(Opening::new("small")).await.unwrap_err();
            assert_eq!(refused, Error::Refused(Refusal::Limit("too many sessions")));
            let other = open(&engine).await;
            assert_eq!(guests(), 4);
            three[0].on_disconnect("/a").unwrap().set(1).await.unwrap();
            three[1].on_disconnect("/b").unwrap().set(1).await.unwrap();
            let refused = three[2].on_disconnect("/c").unwrap().set(1).await.unwrap_err();
            assert_eq!(refused.as_str(), "limit");
            assert_eq!(count("stillhere_last_words_pending"), 2);
            three.pop().unwrap().end().await;
            let again = engine.open(Opening::new("small")).await.unwrap();
            three.pop().unwrap().end().await;
            // What is asked after an end finds its last words spoken.
            assert_eq!(again.get("/b").await.unwrap().json(), "1");
            again.on_disconnect("/c").unwrap().set(1).await.unwrap();
            again.on_disconnect("/c").unwrap().cancel().await.unwrap();
            assert_eq!(count("stillhere_last_words_pending"), 1, "what was taken back makes room");
            again.on_disconnect("/d").unwrap().set(1).await.unwrap();
            assert_eq!(count("stillhere_quota_refusals_total"), 1);
            drop(three);
            again.end().await;
            other.end().await;
            while guests() > 0 {
                tokio::task::yield_now().await;
            }
            assert_eq!(count("stillhere_last_words_pending"), 0);
        });
        house.server.stop().unwrap();
    }
}
