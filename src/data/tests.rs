use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::base::WallMillis;
use crate::json::Reader;

fn draft(json: &str) -> Result<Draft, Invalid> {
    Reader::default()
        .read(&mut json.as_bytes().to_vec(), |item| Draft::from_json(item, 0))
        .expect("the test's JSON is JSON")
}

fn node(json: &str) -> Node {
    draft(json).unwrap().resolve(&Node::Empty, WallMillis(1_700_000_000_000))
}

fn exported(node: &Node) -> String {
    let mut out = Vec::new();
    export(&mut out, node);
    String::from_utf8(out).unwrap()
}

// Keys

#[track_caller]
fn check_order(ascending: &[&str]) {
    for (i, a) in ascending.iter().enumerate() {
        for (j, b) in ascending.iter().enumerate() {
            assert_eq!(KeyStr::new(a).cmp(KeyStr::new(b)), i.cmp(&j), "{a} {b}");
        }
    }
}

#[test]
fn keys_that_are_integers_come_first_and_by_value() {
    check_order(&["-2147483648", "-10", "-2", "0", "00", "1", "01", "2", "3", "03", "003", "10", "2147483647"]);
    check_order(&["5", "-", "--1", "-Kabc", "-a", "2147483648", "5a", "99999999999", "a"]);
    check_order(&["1", "10", "1a", "a", "a1"]);
    check_order(&["7", "00000000000008", "-2147483649"]);
}

#[test]
fn keys_that_are_texts_order_by_utf16_code_units() {
    // U+1F435 is the surrogates D83D DC35, hence before U+E000 and U+FFFD.
    check_order(&["A", "a", "é", "中", "\u{d7ff}", "🐵", "\u{e000}", "\u{fffd}"]);
    check_order(&["x🐵", "x\u{e000}a", "x\u{e000}b"]);
}

#[test]
fn keys_that_begin_alike_order_by_where_they_differ() {
    // Wherever that is, and whatever stands behind it: the last byte of one is the first of the other.
    for shared in 0..20 {
        let begin = "k".repeat(shared);
        let texts = [begin.clone(), format!("{begin}!zzzzzzzzz"), format!("{begin}a"), format!("{begin}a\u{e9}")];
        let more = [format!("{begin}b!!!!!!!!!"), format!("{begin}🐵"), format!("{begin}\u{e000}")];
        let texts: Vec<&str> = texts.iter().chain(&more).map(String::as_str).filter(|text| !text.is_empty()).collect();
        check_order(&texts);
    }
}

#[test]
fn every_forbidden_key_is_refused() {
    for byte in 0..=127_u8 {
        let text = format!("a{}", char::from(byte));
        let is_forbidden = byte < 32 || byte == 127 || b".#$[]/".contains(&byte);
        assert_eq!(Key::parse(&text).is_err(), is_forbidden, "{text:?}");
    }
    assert_eq!(Key::parse(""), Err(InvalidKey::Empty));
    assert!(Key::parse(&"é".repeat(384)).is_ok());
    assert_eq!(Key::parse(&"é".repeat(385)), Err(InvalidKey::TooLong));
}

// Paths

#[track_caller]
fn check_path(text: &str, expected: &str, depth: usize) {
    let path = Path::parse(text).unwrap();
    assert_eq!(path.to_string(), expected);
    assert_eq!(path.depth(), depth);
    assert_eq!(path.keys().count(), depth);
    assert_eq!(path.prefixes().count(), depth + 1);
    assert_eq!(path.prefixes().last(), Some(path.as_str()));
    for count in 1..=depth + 1 {
        let above = path.prefixes().nth(count).filter(|_| count <= depth);
        assert_eq!(path.first_keys(count), above, "{count} of {text}");
    }
}

#[test]
fn paths_are_read_and_split() {
    check_path("", "/", 0);
    check_path("/", "/", 0);
    check_path("a", "/a", 1);
    check_path("//a///b/", "/a/b", 2);
    check_path("/w/k/a b+c%é:;,?&=@!*", "/w/k/a b+c%é:;,?&=@!*", 3);
    assert_eq!(Path::parse("a/b.c"), Err(InvalidPath::Key(InvalidKey::Forbidden)));
    assert!(Path::parse(&"a/".repeat(32)).is_ok());
    assert_eq!(Path::parse(&"a/".repeat(33)), Err(InvalidPath::TooDeep));
}

#[track_caller]
fn check_relative(above: &str, below: &str, expected: Option<&str>) {
    let (above, below) = (Path::parse(above).unwrap(), Path::parse(below).unwrap());
    assert_eq!(above.relative(&below), expected, "{above} {below}");
}

#[test]
fn a_path_contains_what_is_below_it_and_no_namesake() {
    check_relative("", "a/b", Some("a/b"));
    check_relative("a", "a/b", Some("b"));
    check_relative("a/b", "a/b", Some(""));
    check_relative("a/b", "a", None);
    check_relative("a", "ab", None);
    check_relative("a/b", "a/bc/d", None);
}

#[test]
fn a_location_may_be_a_priority() {
    let at = |text: &str| Location::parse(text).map(|l| (l.path.to_string(), l.is_priority));
    assert_eq!(at("/x/.priority"), Ok(("/x".into(), true)));
    assert_eq!(at(".priority"), Ok(("/".into(), true)));
    assert_eq!(at("/x"), Ok(("/x".into(), false)));
    assert!(at("/x/.value").is_err());
    assert!(at("/x.priority").is_err());
    assert!(at("/.priority/x").is_err());
}

// Numbers

#[test]
fn numbers_have_one_order_even_where_doubles_round() {
    let ascending = [
        Number::Double(-1e300),
        Number::from_double(-9_223_372_036_854_777_856.0),
        Number::Int(i64::MIN),
        Number::Int(i64::MIN + 1),
        Number::Int(-1),
        Number::Double(-0.5),
        Number::from_double(-0.0),
        Number::Double(0.5),
        Number::Int((1 << 53) + 1),
        Number::Int((1 << 53) + 2),
        Number::Int(i64::MAX - 1),
        Number::Int(i64::MAX),
        Number::from_double(9_223_372_036_854_775_808.0),
        Number::Double(1e300),
    ];
    for (i, a) in ascending.iter().enumerate() {
        for (j, b) in ascending.iter().enumerate() {
            assert_eq!(a.cmp(b), i.cmp(&j), "{a:?} {b:?}");
        }
    }
}

// Trees

#[track_caller]
fn check_set(before: &str, path: &str, value: &str, after: &str) {
    let mut tree = node(before);
    let kept = tree.clone();
    tree.set(path, node(value));
    assert_eq!(exported(&tree), after);
    assert_eq!(kept, node(before), "a clone does not see the change");
}

#[test]
fn writing_prunes_and_grows() {
    check_set("null", "a/b", "1", r#"{"a":{"b":1}}"#);
    check_set(r#"{"a":{"b":1}}"#, "a/b", "null", "null");
    check_set(r#"{"a":{"b":1},"c":2}"#, "a/b", "null", r#"{"c":2}"#);
    check_set("5", "a", "1", r#"{"a":1}"#);
    check_set("5", "a", "null", "5");
    check_set(r#"{".value":5,".priority":"p"}"#, "a/b", "1", r#"{"a":{"b":1},".priority":"p"}"#);
    check_set(r#"{".value":5,".priority":"p"}"#, "a/b", "null", r#"{".value":5,".priority":"p"}"#);
    check_set(r#"{"a":1,".priority":3}"#, "b", "2", r#"{"a":1,"b":2,".priority":3}"#);
    check_set(r#"{"a":1,".priority":3}"#, "", r#"{"b":2}"#, r#"{"b":2}"#);
}

#[test]
fn priorities_are_set_without_touching_anything_else() {
    let mut tree = node(r#"{"a":{"b":1,".priority":7}}"#);
    tree.set_priority("a/b", Some(Priority::Text("x".into())));
    assert_eq!(exported(&tree), r#"{"a":{"b":{".value":1,".priority":"x"},".priority":7}}"#);
    tree.set_priority("a/b", None);
    tree.set_priority("a", None);
    tree.set_priority("nobody", Some(Priority::Text("x".into())));
    assert_eq!(exported(&tree), r#"{"a":{"b":1}}"#);
}

/// Children against a `BTreeMap`, through every size at which the shape changes.
#[test]
fn children_behave_like_a_map_at_every_size() {
    let mut random = 1_u64;
    let mut next = move |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    for keys in [10, 40, 200, 5_000] {
        let mut model: BTreeMap<Key, i64> = BTreeMap::new();
        let mut tree = Node::Empty;
        let mut frozen = Vec::new();
        for step in 0..6_000_i64 {
            // Grow for a while, then shrink, so that pages split and join.
            let is_removal = next(10) < if (step / 2_000) % 2 == 0 { 2 } else { 8 };
            let key = Key::parse(&format!("k{}", next(keys))).unwrap();
            if is_removal {
                model.remove(&key);
                tree.set(key.as_str(), Node::Empty);
            } else {
                model.insert(key.clone(), step);
                tree.set(key.as_str(), Node::leaf(Leaf::Number(Number::Int(step))));
            }
            assert_eq!(tree.children().len(), model.len());
            if step % 500 == 0 {
                frozen.push((tree.clone(), model.clone()));
            }
        }
        frozen.push((tree, model));
        for (tree, model) in frozen {
            let got: Vec<_> =
                tree.children().iter().map(|(key, node)| (key.clone(), node.as_leaf().cloned())).collect();
            let want: Vec<_> =
                model.iter().map(|(key, step)| (key.clone(), Some(Leaf::Number(Number::Int(*step))))).collect();
            assert_eq!(got, want);
            for index in 0..keys {
                let key = Key::parse(&format!("k{index}")).unwrap();
                assert_eq!(tree.child(&key).is_empty(), !model.contains_key(&key));
            }
        }
    }
}

/// Every walk from every key, there or not, from either side.
#[test]
fn walks_begin_and_end_where_they_should() {
    use std::ops::Bound;
    for count in [0, 1, 5, 32, 33, 200, 5_000] {
        let mut tree = Node::Empty;
        // Odd ones only, in an order that splits pages in the middle.
        for index in 0..count {
            tree.set(&format!("{}", (index * 7_919) % count * 2 + 1), Node::text("x"));
        }
        for index in (0..count / 2).step_by(3) {
            tree.set(&format!("{}", index * 2 + 1), Node::Empty);
        }
        let all: Vec<&Key> = tree.children().iter().map(|(key, _)| key).collect();
        let probes = (0..=2 * count + 1).step_by(if count > 1_000 { 97 } else { 1 });
        for probe in probes.map(Key::from_index) {
            for edge in [Bound::Included(&*probe), Bound::Excluded(&*probe), Bound::Unbounded] {
                let up: Vec<_> = tree.children().from(edge).map(|(key, _)| key).collect();
                let down: Vec<_> = tree.children().back_from(edge).map(|(key, _)| key).collect();
                let is_from = |key: &&&Key| match edge {
                    Bound::Included(edge) => ****key >= *edge,
                    Bound::Excluded(edge) => ****key > *edge,
                    Bound::Unbounded => true,
                };
                let is_to = |key: &&&Key| match edge {
                    Bound::Included(edge) => ****key <= *edge,
                    Bound::Excluded(edge) => ****key < *edge,
                    Bound::Unbounded => true,
                };
                assert!(all.iter().filter(is_from).eq(&up), "{count} children from {edge:?}");
                assert!(all.iter().rev().filter(is_to).eq(&down), "{count} children back from {edge:?}");
            }
        }
    }
}

#[test]
fn appended_children_fill_their_pages() {
    let mut children = Children::new();
    for index in 0..100_000 {
        children.insert(Key::parse(&format!("-K{index:08}")).unwrap(), Node::text("x"));
    }
    assert_eq!(children.len(), 100_000);
    assert!(children.iter().map(|(key, _)| key).is_sorted());
}

// JSON in

#[track_caller]
fn check_read(json: &str, expected: &str) {
    assert_eq!(exported(&node(json)), expected, "{json}");
}

#[test]
fn json_becomes_a_tree() {
    check_read("{}", "null");
    check_read("[]", "null");
    check_read(r#"{"a":{"b":null,"c":{}}}"#, "null");
    check_read(r#"[true,false,null,2.5]"#, r#"{"0":true,"1":false,"3":2.5}"#);
    check_read(r#"{"b":1,"a":2,"10":3,"9":4}"#, r#"{"9":4,"10":3,"a":2,"b":1}"#);
    check_read(r#"{".value":"v",".priority":10}"#, r#"{".value":"v",".priority":10}"#);
    check_read(r#"{".value":"v"}"#, r#""v""#);
    check_read(r#"{".value":null,".priority":10}"#, "null");
    check_read(r#"{".priority":10}"#, "null");
    check_read(r#"{"a":1,".priority":"p"}"#, r#"{"a":1,".priority":"p"}"#);
    check_read(r#"{"a":1,".priority":null}"#, r#"{"a":1}"#);
    check_read("1.0", "1");
    check_read("9007199254740993", "9007199254740993");
    check_read("1e300", "1e+300");
}

#[test]
fn server_values_are_filled_in() {
    check_read(r#"{".sv":"timestamp"}"#, "1700000000000");
    check_read(
        r#"{"a":{".sv":"timestamp"},"b":{".value":{".sv":"timestamp"},".priority":{".sv":"timestamp"}}}"#,
        r#"{"a":1700000000000,"b":{".value":1700000000000,".priority":1700000000000}}"#,
    );
    check_read(r#"{"a":[null,{".sv":{"increment":2}}],".priority":1}"#, r#"{"a":{"1":2},".priority":1}"#);
    let at = |current: &str, json: &str| exported(&draft(json).unwrap().resolve(&node(current), WallMillis(5)));
    assert_eq!(at("3", r#"{".sv":{"increment":2}}"#), "5");
    assert_eq!(at("3", r#"{".sv":{"increment":-0.5}}"#), "2.5");
    assert_eq!(at(r#""x""#, r#"{".sv":{"increment":2}}"#), "2");
    assert_eq!(at("9007199254740993", r#"{".sv":{"increment":2}}"#), "9007199254740995");
    assert_eq!(at("9223372036854775807", r#"{".sv":{"increment":1}}"#), "9223372036854776000");
    assert_eq!(at(r#"{"a":{"b":10}}"#, r#"{"a":{"b":{".sv":{"increment":1}}}}"#), r#"{"a":{"b":11}}"#);
}

#[test]
fn what_cannot_be_stored_is_refused_with_its_reason() {
    for (json, reason) in [
        (r#"{"a.b":1}"#, Invalid::Key(InvalidKey::Forbidden)),
        (r#"{"":1}"#, Invalid::Key(InvalidKey::Empty)),
        (r#"{".foo":1}"#, Invalid::Reserved),
        (r#"{"a":1,"a":2}"#, Invalid::Duplicate),
        (r#"{".value":1,".value":2}"#, Invalid::Duplicate),
        (r#"{".value":1,"a":2}"#, Invalid::Value),
        (r#"{".value":{"b":1}}"#, Invalid::Value),
        (r#"{".value":1,".priority":true}"#, Invalid::Priority),
        (r#"{".value":1,".priority":{"a":1}}"#, Invalid::Priority),
        (r#"{".sv":"x"}"#, Invalid::ServerValue),
        (r#"{".sv":"timestamp","a":1}"#, Invalid::ServerValue),
        (r#"{".sv":{"increment":"1"}}"#, Invalid::ServerValue),
    ] {
        assert_eq!(draft(json), Err(reason), "{json}");
    }
    let nested = |levels: usize| format!("{}1{}", r#"{"a":"#.repeat(levels), "}".repeat(levels));
    assert!(draft(&nested(32)).is_ok());
    assert_eq!(draft(&nested(33)), Err(Invalid::TooDeep));
    assert_eq!(draft(&nested(1_000)), Err(Invalid::TooDeep));
}

// Hashes: the SDK's own known answers, and those of the wire specification

#[test]
fn hashes_are_those_that_clients_compute() {
    for (json, hash) in [
        // Children by priority, not by key.
        (r#"{"a":{".value":1,".priority":2},"b":{".value":2,".priority":1}}"#, "/3lk7Vfl5OYG6Kw2SkiPXNeExPw="),
        ("null", ""),
        ("4", "eVih19a6ZDz3NL32uVBtg9KSgQY="),
        ("4.5623", "vf1CL0tIRwXXunHcG/irRECk3lY="),
        (r#""hey guys""#, "CUNLXWpCVoJE6z7z1vE57lGaKAU="),
        ("true", "E5z61QM0lN/U2WsOnusszCTkR8M="),
        (
            r#"{"intNode":4,"doubleNode":4.5623,"stringNode":"hey guys","boolNode":true}"#,
            "6Mc4jFmNdrLVIlJJjz2/MakTK9I=",
        ),
        (r#"{"root":{"c":{".value":99,".priority":"abc"},".priority":"def"}}"#, "Fm6tzN4CVEu5WxFDZUdTtqbTVaA="),
        (r#"{"root":{"c":{".value":99,".priority":42},".priority":3.14}}"#, "B15QCqrzCxrI5zz1y00arWqFRFg="),
        (r#""unicode ✔ 🐵 🌴 x͢""#, "JoKoFUnbmg3/DlY70KaDWslfYPk="),
        ("1.7976931348623157e308", "8R+ekVQmxs6ZWP0fdzFHxVeGnWo="),
        (r#"{".value":12345678901234568,".priority":"🐵"}"#, "+E+Mxlqh5MhT+On05bjsZ6JaaxI="),
    ] {
        assert_eq!(node(json).hash(), hash, "{json}");
    }
}

#[test]
fn a_remembered_hash_is_forgotten_when_something_below_changes() {
    let mut tree = node(r#"{"a":{"b":{"c":1}}}"#);
    let before = tree.hash();
    let kept = tree.clone();
    tree.set("a/b/c", node("2"));
    assert_ne!(tree.hash(), before);
    assert_eq!(tree.hash(), node(r#"{"a":{"b":{"c":2}}}"#).hash());
    assert_eq!(kept.hash(), before);
    tree.set_priority("a/b", Some(Priority::Number(Number::Int(1))));
    assert_eq!(tree.hash(), node(r#"{"a":{"b":{"c":2,".priority":1}}}"#).hash());
}

// JSON out

#[track_caller]
fn check_plain(json: &str, expected: &str) {
    let mut out = Vec::new();
    plain(&mut out, &node(json));
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

#[test]
fn the_plain_form_drops_priorities_and_shows_arrays() {
    check_plain("null", "null");
    check_plain(r#"{"a":{".value":1,".priority":2},".priority":3}"#, r#"{"a":1}"#);
    check_plain(r#"{"0":"a","1":"b"}"#, r#"["a","b"]"#);
    check_plain(r#"{"1":"a","2":"b"}"#, r#"[null,"a","b"]"#);
    check_plain(r#"{"0":"a","3":"b"}"#, r#"["a",null,null,"b"]"#);
    check_plain(r#"{"0":"a","4":"b"}"#, r#"{"0":"a","4":"b"}"#);
    check_plain(r#"{"5":"a"}"#, r#"{"5":"a"}"#);
    check_plain(r#"{"00":"a","1":"b"}"#, r#"{"00":"a","1":"b"}"#);
    check_plain(r#"{"0":"a","x":"b"}"#, r#"{"0":"a","x":"b"}"#);
}

/// Appends JSON such as clients send, and such as they should not.
fn random_json(dice: &mut impl FnMut(u32) -> u32, levels: u32, out: &mut String) {
    let space = |dice: &mut dyn FnMut(u32) -> u32, out: &mut String| {
        if dice(6) == 0 {
            out.push_str([" ", "\t", "\r\n", "  "][dice(4) as usize]);
        }
    };
    space(dice, out);
    let scalars = [
        "null",
        "true",
        "false",
        "0",
        "-7",
        "1.5",
        "2e3",
        r#""""#,
        r#""text""#,
        r#""\u00e9\\\"\ud83d""#,
        "{}",
        "[]",
        r#"{".sv":"timestamp"}"#,
        r#"{".sv":{"increment":2}}"#,
        r#"{".value":1,".priority":{".sv":"timestamp"}}"#,
    ];
    match dice(if levels == 0 { 6 } else { 10 }) {
        0..6 => out.push_str(scalars[dice(scalars.len() as u32) as usize]),
        6..9 => {
            out.push('{');
            for member in 0..dice(5) {
                if member > 0 {
                    out.push(',');
                }
                space(dice, out);
                let names = ["a", "b", "c", "0", "7", r"\u00e4", "key/", ".value", ".priority", ".sv", ".x", "d"];
                let kinds = if dice(12) == 0 { 12 } else { 6 };
                let name = names[dice(kinds) as usize];
                out.extend(["\"", name, "\""]);
                space(dice, out);
                out.push(':');
                // What is short where it is allowed is not looked for in pieces.
                random_json(dice, if name.starts_with('.') { 0 } else { levels - 1 }, out);
                space(dice, out);
            }
            out.push('}');
        }
        _ => {
            out.push('[');
            for value in 0..dice(5) {
                if value > 0 {
                    out.push(',');
                }
                random_json(dice, levels - 1, out);
            }
            out.push(']');
        }
    }
    space(dice, out);
}

fn read_long(mut long: LongReader) -> Result<Long, BadLong> {
    let mut reader = Reader::default();
    loop {
        if let Some(read) = long.read(&mut reader, 7)? {
            return Ok(read);
        }
    }
}

#[test]
fn long_texts_say_what_short_ones_do() {
    let mut state = 1_u64;
    let mut dice = move |below: u32| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from((state >> 33) % u64::from(below)).unwrap()
    };
    let (mut good, mut bad, mut opened) = (0, 0, 0);
    for round in 0..30_000 {
        let mut text = String::new();
        random_json(&mut dice, 6, &mut text);
        if round % 5 == 0 {
            // What is broken must be seen to be, wherever it is.
            let at = dice(text.len() as u32) as usize;
            if text.is_char_boundary(at) && text.is_char_boundary(at + 1) {
                text.replace_range(at..=at, ["", ",", "}", "[", "x", "\""][dice(6) as usize]);
            }
        }
        let depth = dice(33) as usize;
        let mut bytes = text.clone().into_bytes();
        let short = Reader::default().read(&mut bytes, |item| Draft::from_json(item, depth));
        for piece_bytes_max in [70, 90, 150] {
            let long = read_long(LongReader::new(text.clone().into_bytes(), depth, piece_bytes_max, None));
            opened += u32::from(text.len() > piece_bytes_max);
            match (&short, long) {
                (Ok(Ok(short)), Ok(Long::Value(long))) => {
                    let filled = |draft: &Draft| draft.resolve(&Node::Empty, WallMillis(1));
                    assert_eq!((filled(short), short.is_fixed()), (filled(&long), long.is_fixed()), "{text}");
                    good += 1;
                }
                (Ok(Err(_)) | Err(_), Err(_)) => bad += 1,
                // A container that is opened is too deep even if there is nothing in it.
                (Ok(Ok(_)), Err(BadLong::Data(Invalid::TooDeep))) if depth >= 26 => {}
                (short, long) => panic!("{text} at {depth} in pieces of {piece_bytes_max}: {short:?}, {long:?}"),
            }
        }
    }
    assert!(good > 30_000 && bad > 5_000 && opened > 5_000, "{good} good, {bad} bad, {opened} long");
}

fn place_text(place: &Location) -> String {
    let Location { path, is_priority } = place;
    if *is_priority { format!("{path}/.priority") } else { path.to_string() }
}

#[test]
fn long_places_are_read_one_by_one() {
    #[track_caller]
    fn check(text: &str, expected: Result<&[(&str, &str)], BadLong>) {
        for piece_bytes_max in [20, 1_000] {
            let reader = LongReader::new(text.as_bytes().to_vec(), 2, piece_bytes_max, Some(Vec::new()));
            let places = read_long(reader).map(|long| match long {
                Long::Places(places) => places
                    .into_iter()
                    .map(|(place, draft)| (place_text(&place), exported(&draft.resolve(&Node::Empty, WallMillis(5)))))
                    .collect::<Vec<_>>(),
                Long::Value(draft) => vec![("all".to_owned(), exported(&draft.resolve(&Node::Empty, WallMillis(5))))],
            });
            let expected = expected.map(|list| list.iter().map(|&(a, b)| (a.to_owned(), b.to_owned())).collect());
            assert_eq!(places, expected, "{text} in pieces of {piece_bytes_max}");
        }
    }
    let sv = r#"{".sv":"timestamp"}"#;
    check(
        &format!(r#" {{"a/b": {{"c":[1,{sv}],"d":{sv}}} , "e":null,"f/.priority":{sv},"g":{sv}}} "#),
        Ok(&[("/a/b", r#"{"c":{"0":1,"1":5},"d":5}"#), ("/e", "null"), ("/f/.priority", "5"), ("/g", "5")]),
    );
    check("{}", Ok(&[]));
    check("null", Ok(&[("all", "null")]));
    check("[1]", Err(BadLong::NoObject));
    check(r#"{"a":1"#, Err(BadLong::NotJson));
    check(r#"{"a":1}}"#, Err(BadLong::NotJson));
    check(r#"{"a"}"#, Err(BadLong::NotJson));
    check(r#"{"a":1,}"#, Err(BadLong::NotJson));
    check(r#"{"a.b":1}"#, Err(BadLong::Path(InvalidPath::Key(InvalidKey::Forbidden))));
    check(r#"{"a/.priority":true}"#, Err(BadLong::Data(Invalid::Priority)));
    check(r#"{"a/.priority":[1]}"#, Err(BadLong::Data(Invalid::Priority)));
}

#[test]
fn what_has_fallen_is_dropped_a_little_at_a_time() {
    let wide = format!(
        "{{{}}}",
        (0..5_000).map(|n| format!("\"k{n}\":{{\"a\":{n},\"b\":{{\"c\":1}}}}")).collect::<Vec<_>>().join(",")
    );
    let tree = node(&wide);
    let kept = tree.at("k7").clone();
    let Node::Branch(branch) = &kept else { panic!("an inner node") };
    assert_eq!(Arc::strong_count(branch), 2);
    let mut fallen = Fallen::default();
    fallen.push(node("7"));
    assert!(fallen.is_empty(), "a leaf is dropped at once");
    fallen.push(tree);
    let mut steps = 0;
    while !fallen.is_empty() {
        fallen.drop_some(100);
        steps += 1;
    }
    assert!(steps > 100, "{steps} steps");
    assert_eq!(Arc::strong_count(branch), 1, "all of it is gone but what is shared");
    assert_eq!(exported(&kept), r#"{"a":7,"b":{"c":1}}"#);
}
