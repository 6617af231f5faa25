use super::*;
use crate::base::limits::{LAST_WORDS_BYTES_MAX, LAST_WORDS_MAX};
use crate::base::{Hashing, Instant, SessionRef, ShardId, WallMillis};
use crate::data::{Leaf, Node, Number, Priority, PriorityDraft};

/// Dice for histories.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn location(text: &str) -> Location {
    Location::parse(text).unwrap()
}

fn draft(value: i64) -> Draft {
    Draft::of(Node::leaf(Leaf::Number(Number::Int(value))))
}

fn set(path: &str, value: i64) -> Write {
    let Location { path, is_priority } = location(path);
    if is_priority {
        return Write::SetPriority { path, priority: PriorityDraft::Fixed(Some(Priority::Number(Number::Int(value)))) };
    }
    Write::Set { path, value: draft(value) }
}

fn merge(path: &str, changes: &[(&str, i64)]) -> Write {
    Write::Merge {
        path: location(path).path,
        changes: changes.iter().map(|(below, value)| (location(below), draft(*value))).collect(),
    }
}

/// `path=value`, a merge as `base{below=value below=value}`.
fn shown(write: &Write) -> String {
    let number = |draft: &Draft| format!("{:?}", draft.resolve(&Node::Empty, WallMillis(0)));
    let at = |at: &Location| format!("{}{}", at.path.as_str(), if at.is_priority { "/.priority" } else { "" });
    match write {
        Write::Set { path, value } => format!("{}={}", path.as_str(), number(value)),
        Write::SetPriority { path, priority } => match priority.resolve(&Node::Empty, WallMillis(0)) {
            Some(Priority::Number(value)) => format!("{}/.priority={}", path.as_str(), value.as_double()),
            other => panic!("{other:?}"),
        },
        Write::Merge { path, changes } => {
            let changes: Vec<_> =
                changes.iter().map(|(below, value)| format!("{}={}", at(below), number(value))).collect();
            format!("{}{{{}}}", path.as_str(), changes.join(" "))
        }
    }
}

enum Step {
    Register(Write),
    Cancel(&'static str),
}
use Step::{Cancel, Register};

/// What a ledger holds after these steps.
#[track_caller]
fn check(steps: Vec<Step>, expected: &[&str]) {
    let mut ledger = Ledger::EMPTY;
    for step in steps {
        let _removed = match step {
            Register(write) => ledger.register(write, 10).unwrap(),
            Cancel(path) => ledger.cancel(&Path::parse(path).unwrap()),
        };
    }
    let got: Vec<_> = ledger.writes().map(shown).collect();
    assert_eq!(got, expected);
    assert_eq!(ledger.len(), ledger.places().count());
    assert_eq!(ledger.is_empty(), expected.is_empty());
    let taken: Vec<_> = ledger.take().iter().map(shown).collect();
    assert_eq!(taken, expected);
    assert!(ledger.is_empty());
    assert!(ledger.take().is_empty(), "last words are spoken once");
}

#[test]
fn a_set_replaces_what_was_registered_there_and_below() {
    check(vec![Register(set("a", 1)), Register(set("a", 2))], &["a=2"]);
    check(vec![Register(set("a/b", 1)), Register(set("c", 2)), Register(set("a", 3))], &["c=2", "a=3"]);
    check(vec![Register(set("a", 1)), Register(set("a/b", 2))], &["a=1", "a/b=2"]);
    check(vec![Register(set("ab", 1)), Register(set("a", 2))], &["ab=1", "a=2"]);
    check(vec![Register(set("a/b", 1)), Register(set("", 2))], &["=2"]);
    check(vec![Register(merge("a", &[("b", 1), ("c/d", 2)])), Register(set("a/c", 3))], &["a{b=1}", "a/c=3"]);
    check(vec![Register(merge("a", &[("b", 1), ("c", 2)])), Register(set("a", 3))], &["a=3"]);
}

#[test]
fn a_merge_replaces_at_each_of_its_places_and_stays_together() {
    check(
        vec![Register(set("a/b/c", 1)), Register(set("a", 2)), Register(merge("a", &[("b", 3), ("x", 4)]))],
        &["a=2", "a{b=3 x=4}"],
    );
    check(
        vec![Register(merge("a", &[("b", 1), ("c", 2)])), Register(merge("", &[("a/c", 3), ("d", 4)]))],
        &["a{b=1}", "{a/c=3 d=4}"],
    );
    check(vec![Register(merge("a", &[]))], &[]);
    check(vec![Register(set("a", 1)), Register(merge("a", &[("", 2)]))], &["a{=2}"]);
}

#[test]
fn a_priority_is_a_place_below_its_node() {
    check(vec![Register(set("a", 1)), Register(set("a/.priority", 2))], &["a=1", "a/.priority=2"]);
    check(vec![Register(set("a/.priority", 1)), Register(set("a/.priority", 2))], &["a/.priority=2"]);
    check(vec![Register(set("a/.priority", 1)), Register(set("a", 2))], &["a=2"]);
    check(vec![Register(set("a/b", 1)), Register(set("a/.priority", 2))], &["a/b=1", "a/.priority=2"]);
    check(
        vec![Register(merge("a", &[(".priority", 1), ("b", 2)])), Register(set("a/.priority", 3))],
        &["a{b=2}", "a/.priority=3"],
    );
    check(
        vec![Register(set("a/.priority", 1)), Register(merge("a", &[(".priority", 2), ("b", 3)]))],
        &["a{/.priority=2 b=3}"],
    );
    check(vec![Register(set("a/.priority", 1)), Cancel("a")], &[]);
}

#[test]
fn cancelling_removes_there_and_below_and_leaves_what_is_above() {
    check(vec![Register(set("a/b", 1)), Register(set("a/c", 2)), Cancel("a/b")], &["a/c=2"]);
    check(vec![Register(set("a/b", 1)), Register(set("c", 2)), Cancel("a")], &["c=2"]);
    check(vec![Register(set("a", 1)), Cancel("a/b")], &["a=1"]);
    check(vec![Register(merge("a", &[("b", 1), ("c", 2)])), Cancel("a/b")], &["a{c=2}"]);
    check(vec![Register(merge("a", &[("b", 1), ("c", 2)])), Cancel("a/b"), Cancel("a/c")], &[]);
    check(vec![Register(merge("a", &[("b", 1)])), Register(set("c", 2)), Cancel("")], &[]);
    check(vec![Cancel("a")], &[]);
}

#[test]
fn a_full_ledger_refuses_and_is_unchanged() {
    let mut ledger = Ledger::EMPTY;
    for index in 0..LAST_WORDS_MAX {
        ledger.register(set(&format!("a/k{index}"), 1), 1).unwrap();
    }
    let before: Vec<_> = ledger.writes().cloned().collect();
    assert_eq!(ledger.register(set("b", 1), 1), Err(Full::Words));
    // Replaces one, adds two.
    assert_eq!(ledger.register(merge("", &[("a/k1", 2), ("b", 2)]), 1), Err(Full::Words));
    assert!(ledger.writes().eq(&before));
    ledger.register(set("a/k1", 2), 1).unwrap();
    ledger.register(set("a", 3), 1).unwrap();
    assert_eq!(ledger.len(), 1);
    ledger.register(set("b", 1), LAST_WORDS_BYTES_MAX - 1).unwrap();
    assert_eq!(ledger.register(set("c", 1), 1), Err(Full::Bytes));
    assert_eq!(ledger.register(set("c", 1), usize::MAX), Err(Full::Bytes));
    assert_eq!(ledger.writes().map(shown).collect::<Vec<_>>(), ["a=3", "b=1"]);
    ledger.register(set("b", 2), LAST_WORDS_BYTES_MAX - 1).unwrap();
    ledger.cancel(&Path::parse("b").unwrap());
    ledger.register(set("c", 1), LAST_WORDS_BYTES_MAX - 1).unwrap();
}

#[test]
fn what_is_left_of_a_merge_keeps_its_share_of_the_bytes() {
    let mut ledger = Ledger::EMPTY;
    ledger.register(merge("a", &[("b", 1), ("c", 2), ("d", 3), ("e", 4)]), LAST_WORDS_BYTES_MAX).unwrap();
    assert_eq!(ledger.register(set("x", 1), 1), Err(Full::Bytes));
    ledger.cancel(&Path::parse("a/c").unwrap());
    ledger.register(set("x", 1), LAST_WORDS_BYTES_MAX / 4).unwrap();
    assert_eq!(ledger.register(set("y", 1), 1), Err(Full::Bytes));
    ledger.cancel(&Path::ROOT);
    assert!(ledger.is_empty());
    ledger.register(set("x", 1), LAST_WORDS_BYTES_MAX).unwrap();
}

/// One place of a registration: its number, whether it is a merge, the place, the value.
type Flat = (usize, bool, Vec<String>, i64);

/// Keys from the root; a priority is the key `.priority`.
fn keys_of(place: &Location) -> Vec<String> {
    let mut keys: Vec<_> = place.path.keys().map(|key| key.as_str().to_owned()).collect();
    if place.is_priority {
        keys.push(".priority".to_owned());
    }
    keys
}

fn random_place(dice: &mut Dice) -> String {
    let mut keys: Vec<&str> = (0..dice.below(4)).map(|_| ["a", "b", "ab"][dice.below(3) as usize]).collect();
    if dice.below(6) == 0 {
        keys.push(".priority");
    }
    keys.join("/")
}

/// A write, and the same as the obvious model has it.
fn random_write(dice: &mut Dice, number: usize) -> (Write, Vec<Flat>) {
    let value = i64::try_from(number).unwrap();
    if dice.below(3) > 0 {
        let place = random_place(dice);
        let keys = keys_of(&location(&place));
        return (set(&place, value), vec![(number, false, keys, value)]);
    }
    let base = ["", "a", "a/b"][dice.below(3) as usize];
    let base_keys: Vec<_> = base.split('/').filter(|key| !key.is_empty()).map(str::to_owned).collect();
    let mut changes: Vec<(String, i64)> = Vec::new();
    for part in 0..=i64::try_from(dice.below(4)).unwrap() {
        let below = random_place(dice);
        let keys = keys_of(&location(&below));
        let overlaps = |other: &(String, i64)| {
            let other = keys_of(&location(&other.0));
            keys.starts_with(&other) || other.starts_with(&keys)
        };
        if !changes.iter().any(overlaps) {
            changes.push((below, value * 10 + part));
        }
    }
    let flat = changes
        .iter()
        .map(|(below, value)| {
            let keys = base_keys.iter().cloned().chain(keys_of(&location(below))).collect();
            (number, true, keys, *value)
        })
        .collect();
    let changes: Vec<_> = changes.iter().map(|(below, value)| (below.as_str(), *value)).collect();
    (merge(base, &changes), flat)
}

fn check_ledger_history(seed: u64) {
    let mut dice = Dice(seed);
    let mut ledger = Ledger::EMPTY;
    let mut model: Vec<Flat> = Vec::new();
    for number in 0..300 {
        let (removed, gone): (_, Vec<Flat>) = if dice.below(6) == 0 {
            let place = random_place(&mut dice).trim_end_matches(".priority").to_owned();
            let keys = keys_of(&location(&place));
            let (gone, left) = model.into_iter().partition(|(_, _, other, _)| other.starts_with(&keys));
            model = left;
            (ledger.cancel(&location(&place).path), gone)
        } else {
            let (write, flat) = random_write(&mut dice, number);
            let is_replaced = |other: &Flat| flat.iter().any(|(_, _, keys, _)| other.2.starts_with(keys));
            let (gone, left) = model.into_iter().partition(is_replaced);
            model = left;
            model.extend(flat);
            (ledger.register(write, 7).unwrap(), gone)
        };
        let removed: Vec<_> = removed.iter().map(keys_of).collect();
        let gone: Vec<_> = gone.into_iter().map(|(_, _, keys, _)| keys).collect();
        assert_eq!(removed, gone, "seed {seed} step {number}");
        let mut shown_model: Vec<String> = Vec::new();
        for group in model.chunk_by(|a, b| a.0 == b.0) {
            let parts: Vec<_> = group.iter().map(|(_, _, keys, value)| format!("{}={value}", keys.join("/"))).collect();
            shown_model.push(parts.join(" "));
        }
        let got: Vec<String> = ledger
            .writes()
            .map(|write| {
                let values = match write {
                    Write::Merge { changes, .. } => changes.iter().map(|(_, value)| value.clone()).collect(),
                    Write::Set { value, .. } => vec![value.clone()],
                    Write::SetPriority { .. } => {
                        vec![draft(shown(write).rsplit_once('=').unwrap().1.parse().unwrap())]
                    }
                };
                let value = |draft: &Draft| format!("{:?}", draft.resolve(&Node::Empty, WallMillis(0)));
                let parts: Vec<_> = places(write)
                    .zip(&values)
                    .map(|(place, draft)| format!("{}={}", keys_of(&place).join("/"), value(draft)))
                    .collect();
                parts.join(" ")
            })
            .collect();
        assert_eq!(got, shown_model, "seed {seed} step {number}");
        assert_eq!(ledger.len(), model.len(), "seed {seed} step {number}");
        if dice.below(60) == 0 {
            assert_eq!(ledger.take().len(), got.len());
            model.clear();
        }
    }
}

#[test]
fn ledgers_agree_with_a_flat_list() {
    for seed in 0..60 {
        check_ledger_history(seed);
    }
}

// Stamps

fn session(slot: u32) -> SessionRef {
    SessionRef { home: ShardId(0), slot, generation: 0 }
}

fn stamps() -> Stamps {
    Stamps::new(Hashing::from_seed([1, 2, 3, 4]))
}

/// Session 1 waits for `held`, was last heard at 100; then somebody writes.
#[track_caller]
fn check_newer(held: &str, write: &Write, writer: Option<u32>, at: u64, is_newer: bool) {
    let mut stamps = stamps();
    stamps.hold(&location(held));
    stamps.note(write, writer.map(session), Instant(at));
    assert_eq!(stamps.is_newer_than(&location(held), Instant(100), session(1)), is_newer, "{held} {write:?}");
    stamps.release(&location(held));
    assert!(stamps.is_empty());
}

#[test]
fn a_later_write_of_the_place_or_above_it_by_somebody_else_is_newer() {
    check_newer("a/b", &set("a/b", 1), Some(2), 101, true);
    check_newer("a/b", &set("a/b", 1), None, 101, true);
    check_newer("a/b", &set("a/b", 1), Some(1), 101, false);
    check_newer("a/b", &set("a/b", 1), Some(2), 100, false);
    check_newer("a/b", &set("a", 1), Some(2), 101, true);
    check_newer("a/b", &set("", 1), Some(2), 101, true);
    check_newer("a/b", &set("a/b/c", 1), Some(2), 101, false);
    check_newer("a/b", &set("a/c", 1), Some(2), 101, false);
    check_newer("a/b", &merge("a", &[("b", 1), ("c", 1)]), Some(2), 101, true);
    check_newer("a/b", &merge("", &[("a", 1)]), Some(2), 101, true);
    check_newer("a/b", &merge("a", &[("c", 1)]), Some(2), 101, false);
    check_newer("a/b", &set("a/b/.priority", 1), Some(2), 101, false);
    check_newer("a/b/.priority", &set("a/b/.priority", 1), Some(2), 101, true);
    check_newer("a/b/.priority", &set("a/b", 1), Some(2), 101, true);
    check_newer("a/b/.priority", &set("a/b/c", 1), Some(2), 101, false);
}

#[test]
fn another_session_in_the_same_slot_is_somebody_else() {
    let mut stamps = stamps();
    stamps.hold(&location("a"));
    stamps.note(&set("a", 1), Some(SessionRef { generation: 1, ..session(1) }), Instant(101));
    assert!(stamps.is_newer_than(&location("a"), Instant(100), session(1)));
    stamps.note(&set("a", 1), Some(SessionRef { home: ShardId(1), ..session(1) }), Instant(102));
    assert!(stamps.is_newer_than(&location("a"), Instant(100), session(1)));
}

#[test]
fn a_late_word_does_not_hide_a_newer_write() {
    let mut stamps = stamps();
    stamps.hold(&location("a"));
    stamps.note(&set("a", 1), Some(session(2)), Instant(120));
    stamps.note(&set("a", 1), Some(session(1)), Instant(110));
    assert!(stamps.is_newer_than(&location("a"), Instant(100), session(1)));
}

#[test]
fn only_the_newer_places_of_a_late_merge_yield() {
    let mut stamps = stamps();
    let late = merge("u", &[("a", 1), ("b/c", 2), ("d", 3)]);
    for place in places(&late) {
        stamps.hold(&place);
    }
    stamps.note(&set("u/b", 9), None, Instant(101));
    let left = stamps.without_newer(late.clone(), Instant(100), session(1));
    assert_eq!(left.as_ref().map(shown).as_deref(), Some("u{a=1 d=3}"));
    stamps.note(&set("u", 9), None, Instant(102));
    assert_eq!(stamps.without_newer(late, Instant(100), session(1)), None);
    assert_eq!(stamps.without_newer(set("u/a", 1), Instant(100), session(1)), None);
    assert_eq!(stamps.without_newer(set("u/a", 1), Instant(102), session(1)), Some(set("u/a", 1)));
}

#[test]
fn the_room_of_a_million_stamps_is_given_back() {
    let mut stamps = stamps();
    let place = |index: u32| location(&format!("status/u{index}"));
    for index in 0..20_000 {
        stamps.hold(&place(index));
    }
    assert_eq!(stamps.len(), 20_002);
    let grown = stamps.capacity();
    for index in 0..19_000 {
        stamps.release(&place(index));
    }
    assert_eq!(stamps.len(), 1_002);
    assert!(stamps.capacity() < grown / 4, "{} of {grown}", stamps.capacity());
    for index in 19_000..20_000 {
        stamps.release(&place(index));
    }
    assert!(stamps.is_empty());
    assert_eq!(stamps.capacity(), 0);
}

/// Sessions register, write, fall silent and speak late, against the list of everything ever written.
fn check_stamps_history(seed: u64) {
    let mut dice = Dice(seed);
    let mut stamps = stamps();
    let mut now = 1_000;
    let mut heard = [0; 4];
    let mut held: Vec<Vec<Location>> = vec![Vec::new(); 4];
    let mut generation = [0; 4];
    let mut log: Vec<(u64, Vec<String>, Option<SessionRef>)> = Vec::new();
    for step in 0..400 {
        now += dice.below(3);
        let who = dice.below(4) as usize;
        let me = SessionRef { generation: generation[who], ..session(who as u32) };
        let place = location(&random_place(&mut dice));
        match dice.below(6) {
            0 | 1 => {
                heard[who] = now;
                stamps.hold(&place);
                held[who].push(place);
            }
            2 => {
                let (write, flat) = random_write(&mut dice, step);
                stamps.note(&write, None, Instant(now));
                log.extend(flat.into_iter().map(|(_, _, keys, _)| (now, keys, None)));
            }
            3 | 4 => {
                heard[who] = now;
                let (write, flat) = random_write(&mut dice, step);
                stamps.note(&write, Some(me), Instant(now));
                log.extend(flat.into_iter().map(|(_, _, keys, _)| (now, keys, Some(me))));
            }
            _ if dice.below(2) == 0 => {
                if !held[who].is_empty() {
                    let index = dice.below(held[who].len() as u64) as usize;
                    stamps.release(&held[who].swap_remove(index));
                }
            }
            _ => {
                for place in std::mem::take(&mut held[who]) {
                    let keys = keys_of(&place);
                    let is_newer = log
                        .iter()
                        .any(|(at, other, by)| *at > heard[who] && *by != Some(me) && keys.starts_with(other));
                    assert_eq!(
                        stamps.is_newer_than(&place, Instant(heard[who]), me),
                        is_newer,
                        "seed {seed} step {step}: {place:?}"
                    );
                    if !is_newer {
                        stamps.note_place(&place, Some(me), Instant(heard[who]));
                        log.push((heard[who], keys, Some(me)));
                    }
                    stamps.release(&place);
                }
                generation[who] += 1;
                heard[who] = now;
            }
        }
        let mut known: Vec<_> = held
            .iter()
            .flatten()
            .flat_map(|place| {
                let keys = keys_of(place);
                (0..=keys.len()).map(move |len| keys[..len].to_vec())
            })
            .collect();
        known.sort();
        known.dedup();
        assert_eq!(stamps.len(), known.len(), "seed {seed} step {step}");
    }
}

#[test]
fn stamps_agree_with_the_list_of_all_writes() {
    for seed in 0..60 {
        check_stamps_history(seed);
    }
}

#[test]
fn last_words_of_several_owners_come_together_in_the_order_of_their_runs() {
    let left = |words: &[(&str, u32)]| {
        let mut ledger = Ledger::default();
        for (path, run) in words {
            let beside = Beside { run: *run, elsewhere: Load::default() };
            assert_eq!(ledger.register_beside(set(path, 1), 10, beside), Ok(Vec::new()));
        }
        ledger
    };
    let mut all = left(&[("b/1", 2), ("b/2", 2), ("b/3", 5)]);
    all.unite(left(&[("a/1", 1), ("a/2", 4)]));
    all.unite(left(&[("c/1", 3)]));
    assert_eq!((all.len(), all.first_run()), (6, Some(1)));
    let paths = |words: Vec<Write>| words.iter().map(|word| word.path().as_str().to_owned()).collect::<Vec<_>>();
    assert_eq!(paths(all.take_until(3)), ["a/1", "b/1", "b/2", "c/1"]);
    assert_eq!(
        (all.load(), paths(all.take_until(u32::MAX))),
        (Load { places: 2, bytes: 20 }, vec!["a/2".into(), "b/3".into()])
    );
    assert!(all.is_empty());
}
