use std::collections::BTreeMap;

use super::{run, run_causal, run_power_cuts};

/// What the smoke run must have seen at least once: else it proves nothing about it.
const RARE: [&str; 45] = [
    "bytes split",
    "closed",
    "denied",
    "dropped",
    "hasty",
    "killed",
    "last word cancelled",
    "last word denied",
    "last word left",
    "last word replaced",
    "held back by the disk",
    "refused for want of room",
    "last words full",
    "listen revoked",
    "listened again",
    "long message",
    "merge partly yielded",
    "reading paused",
    "replaced by a wrong name",
    "replaced on another core",
    "replaced on the same core",
    "request in segments",
    "rules changed",
    "sent back",
    "server_stopped",
    "spoken",
    "spoken late",
    "done apart",
    "update of several owners",
    "update of several owners refused",
    "waited for an update",
    "wanted whole in an update",
    "update called off",
    "transaction above all parts",
    "write above all parts",
    "write below a leaf of all parts",
    "put together",
    "last words with several owners",
    "stale",
    "superseded",
    "thawed in time",
    "timed_out",
    "transaction",
    "window refilled",
    "yielded",
];

/// Says which history it was when one fails.
struct Playing(u64);

impl Drop for Playing {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the history of seed {} failed: play it with `cargo sim -- {}`", self.0, self.0);
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_with_the_power() {
    let mut reached = BTreeMap::new();
    for seed in 0..300 {
        let _playing = Playing(seed);
        for (what, count) in run_power_cuts(seed) {
            *reached.entry(what).or_insert(0) += count;
        }
    }
    assert_eq!(reached.len(), 8, "{reached:?}");
    assert!(reached.values().all(|count| *count > 10), "{reached:?}");
}

#[test]
fn no_effect_is_seen_without_its_cause() {
    let mut looked = 0;
    for seed in 0..150 {
        let _playing = Playing(seed);
        looked += run_causal(seed);
    }
    assert!(looked > 5_000, "{looked}");
}

#[test]
fn histories_agree_with_the_reference() {
    let mut reached = BTreeMap::new();
    for seed in 0..200 {
        let _playing = Playing(seed);
        for (what, count) in run(seed, false).reached {
            *reached.entry(what).or_insert(0) += count;
        }
    }
    for what in RARE {
        assert!(reached.get(what).is_some_and(|count| *count > 0), "no history reached {what:?}: {reached:?}");
    }
}

#[test]
fn what_once_failed_does_not_fail_again() {
    let seeds = include_str!("../../tests/seeds.txt");
    for line in seeds.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let seed =
            line.split_whitespace().next().and_then(|seed| seed.parse().ok()).expect("a line begins with a seed");
        let _playing = Playing(seed);
        let _ = run(seed, false);
    }
}

#[test]
fn the_same_seed_gives_the_same_history() {
    for seed in 0..20 {
        let _playing = Playing(seed);
        assert_eq!(run(seed, false).hash, run(seed, false).hash);
    }
}
