//! Devices that do not notice that their server has ended and begun again.

use super::*;
use crate::engine::Input;
use crate::sim::World;

/// Every story is told with every number of shards before and after.
fn for_restarts(story: impl Fn(&mut Field, u8)) {
    for before in 1..=3 {
        for after in 1..=3 {
            story(&mut Field::kept(before), after);
        }
    }
}

/// The server is asked to stop, and another begins.
fn stop_and_start(field: &mut Field, shards: u8) {
    field.world.input_all(|| Input::Drain);
    field.settle();
    assert!(field.world.drained.iter().all(|is_drained| *is_drained), "kept sessions hold nobody up");
    field.restart(shards);
}

/// Ways in which a server ends and begins.
fn ways() -> [fn(&mut Field, u8); 4] {
    [
        Field::restart,
        stop_and_start,
        |field, shards| (0..3).for_each(|more| field.restart(1 + (shards + more) % 3)),
        |field, shards| {
            for shard in 0..3 {
                field.world.snapshot(shard, |_| {});
            }
            field.restart(shards);
        },
    ]
}

#[test]
fn a_device_goes_on_as_if_nothing_had_happened() {
    for way in ways() {
        for_restarts(|field, shards| {
            let mut device = Device::up(field, 0, 1);
            let mut silent = Device::up(field, 1, 2);
            let mut gone = Device::up(field, 2, 3);
            assert_eq!(gone.off(field), Some(Code::CONTENT));
            assert_eq!(silent.set(field, "/before", ON), Some(Code::CONTENT));
            way(field, shards);
            assert_eq!(field.world.session_count(), 2);
            assert_eq!(device.ping(field), Some(Code::CONTENT));
            assert_eq!(device.get(field, "/before"), ON);
            assert_eq!(device.set(field, "/after", ON), Some(Code::CONTENT));
            assert_eq!(silent.returns(field), Some(Code::CONTENT));
            assert_eq!(gone.ping(field), Some(Code::UNAUTHORIZED));
            assert_eq!(gone.returns(field), Some(Code::BAD_REQUEST));
            // It is the same session: whoever asks anew at its address is.
            device.begin(field, b"");
            assert_eq!(device.ping(field), Some(Code::CONTENT));
            assert_eq!(field.world.session_count(), 2);
        });
    }
}

#[test]
fn its_deadline_starts_anew_and_then_its_last_words_are_spoken_once() {
    for way in ways() {
        for_restarts(|field, shards| {
            let mut device = Device::up(field, 0, 1);
            device.last_word(field, "/status", OFF);
            let push = Ask { path: "/log", payload: OFF, dis: Some("add"), ..Ask::default() };
            assert_eq!(device.code(field, Code::POST, &push), Some(Code::CONTENT));
            device.last_word(field, "/never", OFF);
            let cancel = Ask { path: "/never", dis: Some("rm"), ..Ask::default() };
            assert_eq!(device.code(field, Code::DELETE, &cancel), Some(Code::CONTENT));
            field.pass(Millis(170_000));
            field.ends();
            way(field, shards);
            let watcher = field.watcher("/");
            field.pass(Millis(179_000));
            assert_eq!(field.events(watcher), Vec::<String>::new());
            field.pass(Millis(2_000));
            let events = field.events(watcher);
            assert_eq!((events.len(), &events[0][..]), (2, "status=\"off\""));
            assert!(events[1].starts_with("log/-"), "{events:?}");
            assert_eq!(field.ends(), [(End::TimedOut, 2)]);
            assert_eq!(field.world.stats().held_places, 0);
            way(field, shards);
            field.pass(Millis(400_000));
            assert_eq!((field.ends(), field.world.session_count()), (vec![], 0));
            assert_eq!(device.ping(field), Some(Code::UNAUTHORIZED));
        });
    }
}

#[test]
fn words_left_before_and_after_are_one_ledger() {
    for way in ways() {
        for_restarts(|field, shards| {
            let mut device = Device::up(field, 0, 1);
            device.last_word(field, "/a", OFF);
            device.last_word(field, "/b", OFF);
            // The secret changes, what it left stays.
            device.begin(field, b"");
            assert_eq!(device.ping(field), Some(Code::CONTENT));
            device.last_word(field, "/c", OFF);
            way(field, shards);
            let cancel = Ask { path: "/b", dis: Some("rm"), ..Ask::default() };
            assert_eq!(device.code(field, Code::DELETE, &cancel), Some(Code::CONTENT));
            device.last_word(field, "/d", OFF);
            way(field, shards);
            let watcher = field.watcher("/");
            assert_eq!(device.off(field), Some(Code::CONTENT));
            assert_eq!(field.events(watcher), ["a=\"off\"", "c=\"off\"", "d=\"off\""]);
            assert_eq!(field.ends(), [(End::Closed, 3)]);
            way(field, shards);
            field.pass(Millis(400_000));
            assert_eq!(field.ends(), []);
        });
    }
}

#[test]
fn it_is_still_told_of_what_it_observes_in_order() {
    for way in ways() {
        for_restarts(|field, shards| {
            let mut device = Device::up(field, 0, 1);
            let mut writer = Device::up(field, 1, 2);
            let (bytes, answer) = device.observe(field, "/told");
            let mut last = answer.observe.unwrap();
            // More than are reserved at once, and not a round number.
            for value in 0..23_u8 {
                assert_eq!(writer.set(field, "/told", &[value]), Some(Code::CONTENT));
                let heard = field.take(1);
                assert_eq!(heard.len(), 1);
                assert!(heard[0].observe.unwrap() > last);
                last = heard[0].observe.unwrap();
                device.acknowledge(field, &heard[0]);
            }
            for round in 0..3_u8 {
                way(field, shards);
                // Nobody knows what it has heard: it is told what stands there.
                let heard = field.take(1);
                assert_eq!(heard.len(), 1, "{heard:?}");
                assert_eq!((&heard[0].token, heard[0].code), (&answer.token, Code::CONTENT));
                assert!(heard[0].observe.unwrap() > last, "{:?} after {last}", heard[0].observe);
                last = heard[0].observe.unwrap();
                device.acknowledge(field, &heard[0]);
                assert_eq!(writer.set(field, "/told", &[7 + round]), Some(Code::CONTENT));
                let heard = field.take(1);
                assert_eq!((heard.len(), &heard[0].payload[..]), (1, &[7 + round][..]));
                assert!(heard[0].observe.unwrap() > last);
                last = heard[0].observe.unwrap();
                device.acknowledge(field, &heard[0]);
            }
            // The storm of an old client is met once with an answer, then with silence.
            assert!(device.exchange(field, &bytes).is_some());
            field.pass(Millis(16_000));
            assert!(device.exchange(field, &bytes).is_none());
        });
    }
}

#[test]
fn it_stays_who_it_is_and_its_credential_still_runs_out() {
    let rules = r#"{"rules": {"mine": {".read": "auth.uid === 'lamp'", ".write": "auth.uid === 'lamp'"}}}"#;
    for way in ways() {
        for shards in 1..=3 {
            let settings = Arc::new(Settings { durability: Durability::Fsync, ..Settings::default() });
            let rules = Arc::new(Ruleset::parse(rules, Dialect::Both).unwrap());
            let mut field = Field { world: World::with(2, 80, &settings, &rules), heard: BTreeMap::new() };
            let mut device = Device::up(&mut field, 0, 1);
            assert_eq!(device.set(&mut field, "/mine", ON), Some(Code::FORBIDDEN));
            device.begin(&mut field, token_of("lamp").as_bytes());
            // Nobody has used the new name, or somebody has.
            if shards > 1 {
                assert_eq!(device.ping(&mut field), Some(Code::CONTENT));
            }
            way(&mut field, shards);
            assert_eq!(device.set(&mut field, "/mine", ON), Some(Code::CONTENT));
            device.last_word(&mut field, "/mine", OFF);
            way(&mut field, shards);
            field.ends();
            field.pass(Millis(181_000));
            let spoken = field
                .world
                .notices
                .iter()
                .any(|notice| matches!(notice, Notice::LastWords { spoken: 1, denied: 0, .. }));
            assert!(spoken, "as whoever the session was");
        }
    }
}

#[test]
fn who_boots_anew_leaves_what_its_last_life_left() {
    for_restarts(|field, shards| {
        let mut device = Device::up(field, 0, 1);
        device.last_word(field, "/status", OFF);
        // What it says after boot is what it said then.
        field.pass(Millis(31_000));
        let mut reborn = Device::new(0, 1);
        reborn.begin(field, b"");
        // The server ends between the new life and the old one's words: they are spoken by the next.
        field.restart(shards);
        assert_eq!(reborn.ping(field), Some(Code::CONTENT));
        assert_eq!(field.world.session_count(), 1);
        field.restart(shards);
        assert_eq!(reborn.get(field, "/status"), OFF);
        field.ends();
        field.pass(Millis(400_000));
        assert_eq!(field.ends().iter().map(|(_, words)| words).sum::<usize>(), 0);
    });
}

/// The new life is written down at the device's home, and the server ends before the owner of what the last
/// life left has heard of it: then the next server owes it.
#[test]
fn what_the_last_life_left_is_owed_if_the_server_ends_in_between() {
    // At home where its words are, or elsewhere.
    for home in 0..3 {
        check_owed_in_between(home);
    }
}

fn check_owed_in_between(home: usize) {
    for_restarts(|field, shards| {
        let mut device = Device::up(field, home, 1);
        device.last_word(field, "/status", OFF);
        field.pass(Millis(31_000));
        let mut reborn = Device::new(home, 1);
        reborn.begin(field, b"");
        let ping = reborn.request(Code::GET, &Ask { path: "/.ping", ..Ask::default() });
        field.world.datagram(home, peer(1), &ping);
        (0..3).for_each(|shard| field.world.sync(shard));
        let world = std::mem::replace(&mut field.world, World::new(1, 0));
        field.world = world.cut_power(shards);
        field.settle();
        assert_eq!(reborn.get(field, "/status"), OFF);
        field.pass(Millis(400_000));
        let words: usize = field.ends().iter().map(|(_, words)| words).sum();
        assert!(words <= 1, "{words}");
    });
}

#[test]
fn an_observer_that_the_rules_no_longer_allow_is_told_so() {
    let open = Arc::new(Ruleset::open());
    let settings = Arc::new(Settings { durability: Durability::Fsync, ..Settings::default() });
    let mut field = Field { world: World::with(2, 81, &settings, &open), heard: BTreeMap::new() };
    let mut device = Device::up(&mut field, 0, 1);
    device.observe(&mut field, "/told");
    field.settle();
    let world = std::mem::replace(&mut field.world, World::new(1, 0));
    field.world = world.under(&Arc::new(Ruleset::closed())).cut_power(2);
    field.settle();
    let heard = field.take(1);
    assert_eq!(heard.iter().map(|heard| heard.code).collect::<Vec<_>>(), [Code::FORBIDDEN]);
}

#[test]
fn a_plain_listener_is_kept_as_long_as_it_listens() {
    let host = (option::URI_HOST, &b"myapp"[..]);
    let path = (option::URI_PATH, &b"told"[..]);
    let mut field = Field::kept(1);
    field.send(0, 1, &plain(Code::GET, &[host, (option::OBSERVE, b""), path], b"", 7));
    // It has to show that it is there, or nothing is pushed to it.
    let challenge = {
        let mut writer = Device::up(&mut field, 0, 2);
        writer.set(&mut field, "/told", &[1]);
        field.take(1)
    };
    for heard in challenge.iter().filter(|heard| heard.kind == Kind::Confirmable) {
        Device::new(0, 1).acknowledge(&mut field, heard);
    }
    field.restart(1);
    let heard = field.take(1);
    assert_eq!(heard.iter().filter(|heard| heard.observe.is_some()).count(), 1, "{heard:?}");
    Device::new(0, 1).react(&mut field, Kind::Reset, &heard[0]);
    field.pass(Millis(30_000));
    field.restart(1);
    assert_eq!((field.take(1), field.world.session_count()), (vec![], 1));
}

#[test]
fn a_snapshot_between_two_changes_of_a_device_loses_neither() {
    for_restarts(|field, shards| {
        let mut devices: Vec<Device> = (0..4).map(|n| Device::up(field, usize::from(n), 10 + n)).collect();
        devices[0].last_word(field, "/s/0", OFF);
        // A snapshot is taken before the owner has heard of the devices, and while they come.
        let mut world = std::mem::replace(&mut field.world, World::new(1, 0)).cut_power(shards);
        for shard in 0..3 {
            world.snapshot(shard, World::settle_and_sync);
        }
        field.world = world;
        devices[1].last_word(field, "/s/1", OFF);
        assert_eq!(devices[2].off(field), Some(Code::CONTENT));
        field.restart(shards);
        let watcher = field.watcher("/s");
        assert_eq!(field.world.session_count(), 3 + 1);
        for device in [0, 1, 3] {
            assert_eq!(devices[device].off(field), Some(Code::CONTENT), "{device}");
        }
        assert_eq!(field.events(watcher), ["s/0=\"off\"", "s/1=\"off\""]);
    });
}
