use super::*;
use crate::base::{SessionId, ShardId};
use crate::data::{Draft, Location, Node, Path};
use crate::json;
use crate::op::{Identity, Write};
use serde_json::json;

const FILE: FileId = FileId { epoch: 3, shard: 1, number: 7, kind: Kind::Log };

fn path(text: &str) -> Path {
    Path::parse(text).unwrap()
}

fn draft(text: &str) -> Draft {
    let mut bytes = text.as_bytes().to_vec();
    json::Reader::default().read(&mut bytes, |item| Draft::from_json(item, 0)).unwrap().unwrap()
}

fn node(text: &str) -> Node {
    draft(text).stand_in().clone()
}

fn id(secret: u128) -> SessionId {
    SessionId { home: ShardId(2), slot: 9, generation: 4, secret }
}

fn left(secret: u128, write: Write) -> Record {
    Record::Left { namespace: "chat".into(), id: id(secret), identity: Identity::NOBODY, bytes: 10, run: 0, write }
}

fn set(at: &str, value: &str) -> Write {
    Write::Set { path: path(at), value: draft(value) }
}

fn written(at: &str, value: &str) -> Record {
    let place = Place { path: path(at), saved: Saved::Value(node(value)) };
    Record::Written { namespace: "chat".into(), places: vec![place] }
}

fn records() -> Vec<Record> {
    let identity = Identity { is_admin: true, auth: json!({"uid": "käthe"}), expires_s: Some(1 << 40) };
    let merge = Write::Merge {
        path: path("a"),
        changes: vec![
            (Location { path: path("b"), is_priority: true }, draft("\"p\"")),
            (
                Location { path: path("c"), is_priority: false },
                draft(r#"{"t":{".sv":"timestamp"},"x":{".value":1,".priority":{".sv":{"increment":1.5}}}}"#),
            ),
        ],
    };
    let leaves = r#"{"a":true,"b":false,"c":-1,"d":1.5,"e":9007199254740993,"f":1e300,"g":"ü\u0000","h":{".value":"x",".priority":2},".priority":"top"}"#;
    let long = format!("\"{}\"", "long ".repeat(2_000));
    vec![
        Record::Begin { previous_frames: 12 },
        written("", leaves),
        written("far/below", &long),
        Record::Written {
            namespace: String::new(),
            places: vec![
                Place { path: path("x"), saved: Saved::Value(Node::Empty) },
                Place { path: path("y"), saved: Saved::Priority(None) },
                Place {
                    path: path("z"),
                    saved: Saved::Priority(node(r#"{".value":1,".priority":7}"#).priority().cloned()),
                },
            ],
        },
        Record::Left {
            namespace: "n".into(),
            id: id(u128::MAX),
            identity: identity.clone(),
            bytes: 77,
            run: 0,
            write: merge,
        },
        left(
            1,
            Write::SetPriority { path: path("a"), priority: draft(r#"{".sv":"timestamp"}"#).as_priority().unwrap() },
        ),
        left(1, Write::SetPriority { path: path("a"), priority: draft("3").as_priority().unwrap() }),
        Record::Cancelled { namespace: "n".into(), secret: 5, path: path("a/b") },
        Record::Identified { namespace: "n".into(), secret: 6, identity },
        Record::Over { namespace: "n".into(), secret: 7, run: u32::MAX },
        Record::Database { namespace: "m".into() },
        Record::End { records: 1 << 33 },
    ]
}

/// What the second version knows beside them.
fn later_records() -> Vec<Record> {
    let identity = Identity { is_admin: false, auth: json!({"uid": "lamp"}), expires_s: Some(7) };
    let name = |name| KeptName { name, secret: u128::from(name) << 100 | 3 };
    let least = KeptDevice {
        secret: 9,
        home: 1,
        namespace: "n".into(),
        name: None,
        old_name: None,
        candidate: None,
        identity: Identity::NOBODY,
        remote: "[2001:db8::7]:5683".parse().unwrap(),
        local: std::net::Ipv4Addr::UNSPECIFIED,
        flags: 0,
        pushes: Vec::new(),
        watches: Vec::new(),
        has_words: false,
    };
    let (at, token) = (path("told/é"), b"\x01\x45\x8b\x6b".to_vec());
    let most = KeptDevice {
        secret: u128::MAX,
        home: 62,
        namespace: "chat".into(),
        name: Some(name(1 << 47)),
        old_name: Some(12),
        candidate: Some(Box::new(KeptCandidate {
            name: name(3),
            identity: identity.clone(),
            remote: "10.0.0.1:65535".parse().unwrap(),
            is_reborn: true,
        })),
        identity,
        remote: "10.0.0.2:1".parse().unwrap(),
        local: std::net::Ipv4Addr::new(127, 0, 0, 5),
        flags: 11,
        pushes: vec![path("log/a"), path("log/b")],
        watches: vec![
            KeptWatch { tag: 3, token, path: at, form: 0, sequence_max: 0x00ff_ffff },
            KeptWatch { tag: 1 << 60, token: vec![], path: Path::ROOT, form: 2, sequence_max: 1 },
        ],
        has_words: false,
    };
    vec![
        Record::Device(Box::new(least)),
        Record::Device(Box::new(most)),
        Record::DeviceOver { secret: 9 },
        Record::Devices { home: 63 },
        Record::Rules { namespace: "n".into(), own: Some(OwnRules { text: "{\"rules\": {}}".into(), over: 77 }) },
        Record::Rules { namespace: "n".into(), own: None },
    ]
}

/// What the third version knows beside them.
fn latest_records() -> Vec<Record> {
    vec![
        Record::Part { namespace: "chat".into(), shard: 62 },
        left_in(3, set("s/8", "\"gone\""), 1 << 20),
        Record::Over { namespace: "chat".into(), secret: 3, run: 1 << 20 },
        joint(1 << 40, 1 << 63 | 1),
    ]
}

fn joint(number: u64, owners: u64) -> Record {
    Record::Joint { namespace: "chat".into(), number, owners }
}

fn left_in(secret: u128, write: Write, run: u32) -> Record {
    Record::Left { namespace: "chat".into(), id: id(secret), identity: Identity::NOBODY, bytes: 10, run, write }
}

fn frame(records: &[Record], sequence: u32) -> Vec<u8> {
    let mut frame = Vec::new();
    begin_frame(&mut frame);
    records.iter().for_each(|record| record.encode(&mut frame));
    seal_frame(&mut frame, FILE, sequence, 0);
    frame
}

#[track_caller]
fn check(file: &[u8], frames: u32, tail: Tail) -> Vec<Record> {
    let mut found = Vec::new();
    let scan = scan(&mut &*file, FILE, |record| found.push(record)).unwrap_or_else(|never| match never {});
    assert_eq!((scan.frames, scan.tail), (frames, tail));
    assert_eq!(scan.records, found.len() as u64);
    found
}

fn three_frames() -> Vec<u8> {
    (0..3_u8).flat_map(|n| frame(&[written("n", &n.to_string())], n.into())).collect()
}

#[test]
fn a_record_is_read_as_it_was_written() {
    for record in records().into_iter().chain(later_records()).chain(latest_records()) {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        let mut rest = &bytes[..];
        assert_eq!(Record::decode(&mut rest), Ok(record));
        assert!(rest.is_empty());
    }
}

#[test]
fn no_damage_to_a_record_is_a_panic() {
    for record in records().into_iter().chain(later_records()).chain(latest_records()) {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        bytes.truncate(400);
        for cut in 0..bytes.len() {
            let _bad_or_shorter = Record::decode(&mut &bytes[..cut]);
            for flip in [1, 0x80, 0xff] {
                let mut flipped = bytes.clone();
                flipped[cut] ^= flip;
                let _bad_or_different = Record::decode(&mut &flipped[..]);
            }
        }
    }
}

#[test]
fn a_file_is_read_to_where_it_was_written() {
    let all = records();
    let mut file = [frame(&all[..4], 0), frame(&[], 1), frame(&all[4..], 2)].concat();
    assert_eq!(check(&file, 3, Tail::Clean), all);
    file.resize(file.len() + 5 * BLOCK_BYTES, 0);
    assert_eq!(check(&file, 3, Tail::Clean), all, "preallocated room is no frame");
}

#[test]
fn a_torn_tail_is_cut() {
    let file = three_frames();
    // Cut anywhere in the last frame, with and without preallocated room behind it.
    for kept in [1, 7, 20, 47, 48, 60] {
        for room in [0, 3 * BLOCK_BYTES] {
            let mut torn = file[..2 * BLOCK_BYTES + kept].to_vec();
            torn.resize(torn.len().next_multiple_of(BLOCK_BYTES) + room, 0);
            check(&torn, 2, Tail::Torn);
            check(&file[..2 * BLOCK_BYTES + kept], 2, Tail::Torn);
        }
    }
    let long = [frame(&[], 0), frame(&records(), 1)].concat();
    let mut torn = long.clone();
    torn[2 * BLOCK_BYTES..3 * BLOCK_BYTES].fill(0);
    check(&torn, 1, Tail::Torn);
    check(&long[..long.len() - BLOCK_BYTES], 1, Tail::Torn);
}

#[test]
fn a_flipped_bit_in_what_was_safe_is_damage() {
    let file = three_frames();
    let used = (0..100).chain(BLOCK_BYTES..BLOCK_BYTES + 60);
    for at in used.filter(|at| at % BLOCK_BYTES < 60) {
        let mut flipped = file.clone();
        flipped[at] ^= 0x10;
        let frames = u32::try_from(at / BLOCK_BYTES).unwrap();
        check(&flipped, frames, Tail::Damaged(Damage::Sum));
    }
    let mut missing = file;
    missing[BLOCK_BYTES..2 * BLOCK_BYTES].fill(0);
    check(&missing, 1, Tail::Damaged(Damage::Sum));
}

#[test]
fn frames_of_other_files_and_newer_versions_are_not_believed() {
    let mut file = three_frames();
    let strange = scan(&mut &*file, FileId { number: 8, ..FILE }, |_| {}).unwrap_or_else(|never| match never {});
    assert_eq!(strange.tail, Tail::Damaged(Damage::Stranger));
    file[38] = 4;
    let head_sum = crc32fast::hash(&file[12..48]);
    file[8..12].copy_from_slice(&head_sum.to_le_bytes());
    check(&file, 0, Tail::Damaged(Damage::Version(4)));
}

/// A frame as version 1 wrote it. Whatever the version, it must be read: do not touch it, add another.
#[test]
fn the_first_version_is_read() {
    let file = unhex(include_str!("version1.hex"));
    let mut all = records();
    all.retain(|record| !matches!(record, Record::Written { places, .. } if places[0].path == path("far/below")));
    assert_eq!(check(&file, 1, Tail::Clean), all);
}

/// The same, of what the second version has added.
#[test]
fn the_second_version_is_read() {
    assert_eq!(check(&unhex(include_str!("version2.hex")), 1, Tail::Clean), later_records());
}

/// The same, of what the third version has added.
#[test]
fn the_third_version_is_read() {
    assert_eq!(check(&unhex(include_str!("version3.hex")), 1, Tail::Clean), latest_records());
}

fn unhex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// Who goes on owes nothing; who does not, does.
#[test]
fn a_device_goes_on_unless_nobody_is_home_to_it() {
    let mut state = State::default();
    let device = |secret, namespace: &str| match later_records().swap_remove(0) {
        Record::Device(device) => {
            Record::Device(Box::new(KeptDevice { secret, namespace: namespace.into(), ..*device }))
        }
        _ => unreachable!("it is a device"),
    };
    let all = [
        left(1, set("s/1", "1")),
        left(2, set("s/2", "1")),
        left(3, set("s/3", "1")),
        device(1, "chat"),
        device(2, "chat"),
        device(3, "chat"),
        device(4, "other"),
        Record::DeviceOver { secret: 2 },
    ];
    all.into_iter().for_each(|record| state.apply(record, 0));
    let mut again = state.clone();
    again.apply(Record::Devices { home: 0 }, 0);
    assert_eq!(again.devices.len(), 3, "others' are not superseded");
    again.apply(Record::Devices { home: 1 }, 0);
    assert_eq!(again.devices.len(), 0);
    state.put_together();
    state.carry_on(|device| (device.secret != 3).then_some(ShardId(7)));
    let alive: Vec<_> = state.databases["chat"].estates.values().map(|estate| estate.is_alive).collect();
    assert_eq!(alive, [true, false, false]);
    let devices: Vec<_> = state.devices.values().map(|device| (device.secret, device.home, device.has_words)).collect();
    assert_eq!(devices, [(1, 7, true), (4, 7, false)]);
}

#[test]
fn what_was_written_last_stands_and_what_is_owed_is_owed() {
    let mut state = State::default();
    let all = [
        written("a", r#"{"x":1,"y":2}"#),
        written("a/x", "null"),
        left(8, set("s/8", "\"gone\"")),
        left(2, set("s/2", "\"gone\"")),
        left(2, set("t/2", "\"gone\"")),
        left(5, set("s/5", "\"gone\"")),
        Record::Cancelled { namespace: "chat".into(), secret: 2, path: path("t") },
        Record::Identified { namespace: "chat".into(), secret: 2, identity: Identity::ADMIN },
        Record::Over { namespace: "chat".into(), secret: 5, run: u32::MAX },
    ];
    all.into_iter().for_each(|record| state.apply(record, 0));
    let mut later = state.clone();
    state.put_together();
    let chat = &state.databases["chat"];
    assert_eq!(chat.root, node(r#"{"a":{"y":2}}"#));
    let mut owed: Vec<&Estate> = chat.estates.values().collect();
    owed.sort_by_key(|estate| estate.order);
    assert_eq!(owed.iter().map(|estate| estate.id.secret).collect::<Vec<_>>(), [8, 2]);
    assert_eq!(owed[1].ledger.writes().collect::<Vec<_>>(), [&set("s/2", "\"gone\"")]);
    assert_eq!(*owed[1].identity, Identity::ADMIN);
    later.apply(Record::Database { namespace: "chat".into() }, 0);
    later.put_together();
    assert!(later.databases["chat"].root.is_empty() && later.databases["chat"].estates.is_empty());
}

/// Reads these logs, each of the shard that it names, in the order given; says what stands there, and what is owed
/// in which order.
#[track_caller]
fn check_parts(logs: &[(u8, &[Record])], root: &str, owed: &[(&str, u128)]) {
    let orders: [Vec<&(u8, &[Record])>; 2] = [logs.iter().collect(), logs.iter().rev().collect()];
    for order in orders {
        // The snapshot of all shards is always read first.
        let (base, own): (Vec<_>, Vec<_>) = order.into_iter().partition(|(from, _)| *from == ALL_SHARDS);
        let mut state = State::default();
        for &(from, records) in base.into_iter().chain(own) {
            records.iter().for_each(|record| state.apply(record.clone(), from));
        }
        state.put_together();
        let Database { root: found, estates, .. } = state.databases.remove("chat").unwrap();
        assert_eq!(found, node(root));
        let words = estates.values().flat_map(|estate| estate.ledger.writes().map(|write| (estate.id.secret, write)));
        let words: Vec<_> = words.map(|(secret, write)| (write.path().as_str(), secret)).collect();
        assert_eq!(words, owed);
    }
}

fn part(shard: u8) -> Record {
    Record::Part { namespace: "chat".into(), shard }
}

/// Of an update of several parts, all that were written count, or none.
#[test]
fn a_share_in_an_update_counts_when_all_have_written_theirs() {
    let x = |number: u64, owners: u64, value: &str| [joint(number, owners), written("a/x", value)];
    let y = |number: u64, owners: u64, value: &str| [joint(number, owners), written("b/y", value)];
    let both = r#"{"a":{"x":1},"b":{"y":1}}"#;
    check_parts(&[(0, &x(1, 3, "1")), (1, &y(1, 3, "1"))], both, &[]);
    // One has not written its share: the other's is undone, and what stood there before stands there.
    let before = r#"{"a":{"x":0},"b":{"y":0}}"#;
    let begun = [&[written("a/x", "0")][..], &x(1, 3, "1")].concat();
    check_parts(&[(0, &begun), (1, &[written("b/y", "0")])], before, &[]);
    check_parts(&[(0, &begun), (ALL_SHARDS, &[part(1), written("b/y", "0")])], before, &[]);
    // Whatever follows it says that all had written theirs, whether their logs still tell or not.
    let gone_on = [&x(1, 3, "1")[..], &[left_in(7, set("a/x", "2"), 1)]].concat();
    check_parts(&[(0, &gone_on), (1, &[part(1), joint(1, 0), written("b/y", "1")])], both, &[("a/x", 7)]);
    check_parts(&[(0, &x(1, 3, "1")), (1, &[part(1), joint(1, 0), written("b/y", "1")])], both, &[]);
    // The same, by its share in the next update, which is undone itself.
    let next = [y(1, 3, "1"), y(2, 6, "2")].concat();
    check_parts(&[(0, &x(1, 3, "1")), (1, &next)], both, &[]);
    // A snapshot that began in the midst of it tells of the share at its end.
    let taken = [&[part(0), joint(4, 0), written("a/x", "0")][..], &x(5, 3, "1")].concat();
    check_parts(&[(0, &taken), (1, &y(5, 3, "1"))], both, &[]);
    check_parts(&[(0, &taken), (1, &[written("b/y", "0")])], before, &[]);
    // Where nothing was changed, the share is one all the same.
    check_parts(&[(0, &x(1, 3, "1")), (1, &[written("b/y", "1"), joint(1, 3)])], both, &[]);
    // Who has all of it has all of that.
    check_parts(&[(0, &x(1, 3, "5")), (1, &[whole(), written("a/x", "1"), written("b/y", "1")])], both, &[]);
}

/// What was written after a moment is not read, and what is behind that is no damage.
#[test]
fn a_file_is_read_until_a_moment() {
    let stamped = |sequence: u32, stamp: u64| {
        let mut frame = Vec::new();
        begin_frame(&mut frame);
        written("a", &sequence.to_string()).encode(&mut frame);
        seal_frame(&mut frame, FILE, sequence, stamp);
        frame
    };
    let mut file = [stamped(0, 10), stamped(1, 20), stamped(2, 1 << 40)].concat();
    for (moment, frames, stamp) in [(9, 0, 0), (10, 1, 10), (19, 1, 10), (20, 2, 20), (u64::MAX, 3, 1 << 40)] {
        let read = scan_until(&mut &file[..], FILE, moment, |_| {}).unwrap();
        assert_eq!((read.frames, read.stamp, read.tail), (frames, stamp, Tail::Clean), "until {moment}");
        assert_eq!(read.end, u64::from(frames) * BLOCK_BYTES as u64);
    }
    file[BLOCK_BYTES + 41] ^= 1;
    let read = scan_until(&mut &file[..], FILE, u64::MAX, |_| {}).unwrap();
    assert_eq!(read.tail, Tail::Damaged(Damage::Sum), "a stamp that has changed is noticed");
}

fn whole() -> Record {
    Record::Database { namespace: "chat".into() }
}

fn over(secret: u128, run: u32) -> Record {
    Record::Over { namespace: "chat".into(), secret, run }
}

#[test]
fn parts_are_put_together_whatever_is_read_first() {
    check_parts(&[(0, &[written("w/a", "1")]), (1, &[written("w/b", "2")])], r#"{"w":{"a":1,"b":2}}"#, &[]);
    // What a start has written is the beginning of each part.
    let begin = [part(0), written("w/a", "1"), written("w/c", "1"), part(2), written("w/b", "1"), written("x/b", "1")];
    let logs: [(u8, &[Record]); 3] =
        [(ALL_SHARDS, &begin), (0, &[written("w/c", "null"), written("v/a", "3")]), (2, &[written("w/b", "2")])];
    check_parts(&logs, r#"{"v":{"a":3},"w":{"a":1,"b":2},"x":{"b":1}}"#, &[]);
    // A part's own snapshot supersedes that part.
    let logs: [(u8, &[Record]); 2] = [(ALL_SHARDS, &begin), (0, &[part(0), written("w/c", "4")])];
    check_parts(&logs, r#"{"w":{"c":4,"b":1},"x":{"b":1}}"#, &[]);
}

#[test]
fn who_has_the_whole_is_believed() {
    let keeper = [written("w/a", "1"), left_in(1, set("s/a", "1"), 2), whole(), written("", "{\"a\":7}")];
    let other = [written("w/b", "1"), left_in(1, set("s/b", "1"), 1), written("w/b", "2")];
    check_parts(&[(1, &keeper), (0, &other)], r#"{"a":7}"#, &[]);
    check_parts(&[(ALL_SHARDS, &[part(0), written("w/d", "1")]), (1, &keeper), (0, &other)], r#"{"a":7}"#, &[]);
    // Before that was safe, all parts count.
    check_parts(&[(1, &keeper[..2]), (0, &other)], r#"{"w":{"a":1,"b":2}}"#, &[("s/b", 1), ("s/a", 1)]);
    // What is whole from the start on is where it is written.
    check_parts(&[(ALL_SHARDS, &[whole(), written("a", "1")]), (3, &[written("b", "2")])], r#"{"a":1,"b":2}"#, &[]);
}

#[test]
fn words_that_lie_with_several_owners_keep_their_order() {
    let one = [left_in(1, set("s/a", "1"), 1), left_in(2, set("s/f", "1"), 1), left_in(1, set("s/c", "1"), 3)];
    let other = [left_in(1, set("s/b", "1"), 2), left_in(1, set("s/d", "1"), 4)];
    check_parts(&[(0, &one), (1, &other)], "null", &[("s/a", 1), ("s/b", 1), ("s/c", 1), ("s/d", 1), ("s/f", 2)]);
    // A messenger was on its way when the power failed.
    let one = [&one[..], &[over(1, 1)]].concat();
    check_parts(&[(0, &one), (1, &other)], "null", &[("s/b", 1), ("s/c", 1), ("s/d", 1), ("s/f", 2)]);
    let other = [&other[..], &[over(1, 2)]].concat();
    check_parts(&[(0, &one), (1, &other)], "null", &[("s/c", 1), ("s/d", 1), ("s/f", 2)]);
    let one = [&one[..], &[over(1, u32::MAX)]].concat();
    check_parts(&[(0, &one), (1, &other)], "null", &[("s/d", 1), ("s/f", 2)]);
}

/// A database that is divided is told by parts, and one that is whole as a whole.
#[test]
fn a_snapshot_of_parts_is_the_parts_again() {
    let parts = vec![node(r#"{"w":{"a":1}}"#), Node::Empty, node(r#"{"w":{"b":2},"x":{"y":1}}"#)];
    let mut state = State::default();
    state.databases.insert("chat".into(), Database { parts, ..Database::default() });
    state.databases.insert("empty".into(), Database { parts: vec![Node::Empty; 3], ..Database::default() });
    let mut file = Vec::new();
    let done = snapshot(&state, FILE, |frame| {
        file.extend_from_slice(frame);
        Ok::<_, std::convert::Infallible>(())
    });
    assert_eq!(done, Ok(()));
    let all = check(&file, 1, Tail::Clean);
    assert_eq!(all.iter().filter(|record| matches!(record, Record::Part { .. })).count(), 2);
    let mut again = State::default();
    all.into_iter().for_each(|record| again.apply(record, ALL_SHARDS));
    again.apply(written("w/b", "3"), 2);
    again.apply(part(0), 0);
    again.put_together();
    assert_eq!(again.databases.keys().collect::<Vec<_>>(), ["chat"], "of what is empty there is nothing to tell");
    assert_eq!(again.databases["chat"].root, node(r#"{"w":{"b":3},"x":{"y":1}}"#));
}

/// A tree that is more than one piece: its priorities come last, or there would be nothing to have them.
#[test]
fn a_snapshot_is_the_state_again() {
    let mut root = node(r#"{"few":{"a":1,".priority":"f"},".priority":7}"#);
    for n in 0..5_000 {
        root.set(&format!("many/{}/k{n}", n % 3), node(r#"{".value":"x",".priority":1}"#));
    }
    root.set_priority("many", node(r#"{".value":1,".priority":"m"}"#).priority().cloned());
    root.set_priority("many/1", node(r#"{".value":1,".priority":2}"#).priority().cloned());
    let mut state = State::default();
    let words = [left(8, set("s/8", "\"gone\"")), left(2, set("s/2", "1")), left(8, set("a", "2"))];
    words.into_iter().for_each(|record| state.apply(record, 0));
    state.put_together();
    state.databases.get_mut("chat").unwrap().root = root.clone();
    state.databases.insert("empty".into(), Database::default());
    let mut file = Vec::new();
    let done = snapshot(&state, FILE, |frame| {
        file.extend_from_slice(frame);
        Ok::<_, std::convert::Infallible>(())
    });
    assert_eq!(done, Ok(()));
    let frames =
        u32::try_from(file.chunks(BLOCK_BYTES).filter(|block| block.starts_with(b"STILLLOG")).count()).unwrap();
    let mut again = State::default();
    // What a snapshot says of a database is all that there is.
    again.apply(written("old", "1"), 0);
    check(&file, frames, Tail::Clean).into_iter().for_each(|record| again.apply(record, 0));
    again.put_together();
    assert_eq!(again.databases.keys().collect::<Vec<_>>(), ["chat", "empty"]);
    let chat = &again.databases["chat"];
    assert_eq!(chat.root, root);
    assert_eq!(chat.estates.len(), 2);
    for (secret, estate) in &chat.estates {
        let writes: Vec<_> = state.databases["chat"].estates[secret].ledger.entries().collect();
        assert_eq!(estate.ledger.entries().collect::<Vec<_>>(), writes);
    }
    assert!(chat.estates[&8].order < chat.estates[&2].order);
}
