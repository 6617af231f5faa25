use std::collections::BTreeMap;

use super::*;

/// Dice for histories.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn due(wheel: &mut Wheel, now: u64, ids_max: usize) -> Vec<u32> {
    let mut ids = Vec::new();
    wheel.due(Instant(now), ids_max, &mut ids);
    ids
}

/// Arms one id at `armed_at` for `at` and expects it at `at`'s tick.
#[track_caller]
fn check_armed(armed_at: u64, at: u64, expected: u64) {
    let mut wheel = Wheel::new(Instant(armed_at));
    wheel.arm(7, Instant(at));
    assert_eq!(wheel.next_wake(), Some(Instant(expected)));
    if expected > armed_at {
        assert_eq!(due(&mut wheel, expected - 1, 10), [0_u32; 0], "too early");
        assert!(!wheel.is_behind());
    }
    assert_eq!(wheel.next_wake(), Some(Instant(expected)));
    assert_eq!(due(&mut wheel, expected.max(armed_at), 10), [7]);
    assert_eq!(wheel.next_wake(), None);
    assert!(wheel.is_empty());
}

#[test]
fn an_id_comes_out_on_the_first_tick_that_is_not_before_its_time() {
    check_armed(0, 0, 0);
    check_armed(0, 1, 8);
    check_armed(0, 8, 8);
    check_armed(0, 9, 16);
    check_armed(1_000_003, 1_045_003, 1_045_008);
    check_armed(1_000_003, 1_000_003, 1_000_000 + 8);
    // What is late already is due at once.
    check_armed(1_000_003, 5, 1_000_000);
    for ticks in (0..SLOTS as u64).step_by(13).chain([SLOTS as u64 - 1]) {
        check_armed(16_000_000, 16_000_000 + TICK.0 * ticks, 16_000_000 + TICK.0 * ticks);
    }
}

#[test]
fn what_is_beyond_the_reach_is_looked_at_when_the_reach_ends() {
    check_armed(3_200, 3_200 + REACH.0 + 1, 3_200 + REACH.0);
    check_armed(3_200, u64::MAX, 3_200 + REACH.0);
}

#[test]
fn a_crowd_comes_out_in_slices_and_in_the_order_it_was_armed() {
    let mut wheel = Wheel::new(Instant(0));
    for id in 0..1_000 {
        wheel.arm(id, Instant(160));
    }
    wheel.arm(1_000, Instant(161));
    let mut all = Vec::new();
    assert_eq!(due(&mut wheel, 159, 300), [0_u32; 0]);
    for slice in 0..4 {
        assert!(slice == 0 || wheel.is_behind());
        assert_eq!(wheel.next_wake(), Some(Instant(160)));
        all.extend(due(&mut wheel, 1_000, 300));
        // Arming for a time that has passed, in the middle of it, goes to the back of the queue.
        wheel.arm(2_000 + slice, Instant(3));
    }
    assert!(all.iter().copied().eq((0..1_000).chain([2_000, 2_001, 2_002, 1_000])), "{all:?}");
    assert_eq!(due(&mut wheel, 1_000, 300), [2_003]);
    assert!(!wheel.is_behind());
    assert!(wheel.is_empty());
}

#[test]
fn an_owner_that_arms_for_the_past_is_asked_again_but_not_in_the_same_call() {
    let mut wheel = Wheel::new(Instant(0));
    wheel.arm(1, Instant(10));
    for _ in 0..3 {
        assert_eq!(due(&mut wheel, 100, 10), [1]);
        assert!(!wheel.is_behind());
        wheel.arm(1, Instant(10));
        assert!(wheel.is_behind());
    }
}

#[test]
fn time_never_goes_back() {
    let went_back = std::panic::catch_unwind(|| due(&mut Wheel::new(Instant(100)), 99, 1));
    assert!(went_back.is_err(), "our mistakes end the process");
}

/// A history of arming and waiting, against a sorted map of times.
fn check_history(seed: u64) {
    let mut dice = Dice(seed);
    let mut now = dice.below(1 << 40);
    let mut wheel = Wheel::new(Instant(now));
    // For each id, when it must come out; an id may stand in it more than once.
    let mut model: BTreeMap<(u64, u32), u32> = BTreeMap::new();
    let mut begun = tick_begun(Instant(now));
    for step in 0..3_000 {
        for _ in 0..dice.below(4) {
            let id = dice.below(50) as u32;
            let at = match dice.below(5) {
                0 => now.saturating_sub(dice.below(1_000)),
                1 => now + dice.below(40),
                2 => now + dice.below(REACH.0),
                3 => now + REACH.0 - 20 + dice.below(40),
                _ => now + dice.below(10 * REACH.0),
            };
            wheel.arm(id, Instant(at));
            let tick = at.div_ceil(TICK.0).max(begun).min(begun + SLOTS as u64 - 1);
            *model.entry((tick, id)).or_default() += 1;
        }
        now += match dice.below(8) {
            0 => 0,
            1 => dice.below(2 * REACH.0),
            2 => dice.below(5_000),
            _ => dice.below(32),
        };
        let ids_max = if dice.below(4) == 0 { dice.below(4) as usize } else { usize::MAX };
        let got = due(&mut wheel, now, ids_max);
        assert!(got.len() <= ids_max);
        let mut last_tick = 0;
        for id in got {
            let (&(tick, first), _) = model
                .range((0, 0)..)
                .find(|((_, other), _)| *other == id)
                .unwrap_or_else(|| panic!("seed {seed} step {step}: {id} was not armed"));
            assert!(tick * TICK.0 <= now, "seed {seed} step {step}: {id} came early");
            assert!(tick >= last_tick, "seed {seed} step {step}: {id} came after a later one");
            last_tick = tick;
            let count = model.get_mut(&(tick, first)).unwrap();
            *count -= 1;
            if *count == 0 {
                model.remove(&(tick, first));
            }
        }
        let next = model.keys().next().map(|(tick, _)| tick * TICK.0);
        let is_behind = next.is_some_and(|at| at <= now);
        assert_eq!(wheel.is_behind(), is_behind, "seed {seed} step {step}");
        assert_eq!(wheel.len(), model.values().sum::<u32>() as usize, "seed {seed} step {step}");
        assert_eq!(wheel.next_wake(), next.map(Instant), "seed {seed} step {step}");
        assert!(ids_max < usize::MAX || !is_behind, "seed {seed} step {step}: due ids were kept");
        begun = if is_behind { next.expect("something is due") / TICK.0 } else { now / TICK.0 };
    }
}

#[test]
fn histories_agree_with_a_sorted_map() {
    for seed in 0..40 {
        check_history(seed);
    }
}

/// The way an engine uses it: heartbeats only stamp, the wheel looks, the owner arms again.
#[test]
fn lazy_sessions_end_within_a_tick_of_their_deadline() {
    const TIMEOUT: Millis = Millis::from_secs(45);
    let mut dice = Dice(1);
    let mut wheel = Wheel::new(Instant(0));
    let mut last_heard = vec![Instant(0); 500];
    let falls_silent: Vec<u64> = (0..500).map(|_| dice.below(300_000)).collect();
    let mut ended = vec![None; 500];
    for id in 0..500_u32 {
        wheel.arm(id, Instant(0) + TIMEOUT);
    }
    let mut looks = 0;
    let mut now = 0;
    while now < 400_000 {
        now += 1 + dice.below(15);
        for _ in 0..3 {
            let id = dice.below(500) as usize;
            if now < falls_silent[id] && ended[id].is_none() {
                last_heard[id] = Instant(now);
            }
        }
        for id in due(&mut wheel, now, usize::MAX) {
            looks += 1;
            let deadline = last_heard[id as usize] + TIMEOUT;
            if deadline <= Instant(now) {
                assert!(ended[id as usize].replace(now).is_none(), "{id} ended twice");
                assert!(now < deadline.0 + 32, "{id} ended late: {now} {deadline:?}");
            } else {
                wheel.arm(id, deadline);
            }
        }
    }
    assert!(ended.iter().all(Option::is_some));
    assert!(wheel.is_empty());
    assert!(looks < 500 * 12, "an id is looked at once per timeout, not once per heartbeat: {looks}");
}
