use super::*;

fn render(item: Item<'_>) -> String {
    match item {
        Item::Null => "null".into(),
        Item::Bool(value) => value.to_string(),
        Item::Int(value) => format!("i{value}"),
        Item::Double(value) => format!("d{value}"),
        Item::Text(text) => format!("'{text}'"),
        Item::Array(values) => format!("[{}]", values.map(render).collect::<Vec<_>>().join(",")),
        Item::Object(members) => {
            let members: Vec<_> = members.map(|(name, value)| format!("{name}={}", render(value))).collect();
            format!("{{{}}}", members.join(","))
        }
    }
}

#[track_caller]
fn check(text: &str, expected: Option<&str>) {
    let mut reader = Reader::default();
    // Twice: the second reading shows what the first left in the buffers.
    for _ in 0..2 {
        let mut bytes = text.as_bytes().to_vec();
        let got = reader.read(&mut bytes, render);
        assert_eq!(got.ok().as_deref(), expected, "{text}");
    }
}

#[test]
fn values_are_read() {
    check("null", Some("null"));
    check("true", Some("true"));
    check(" 12 ", Some("i12"));
    check("-0", Some("i0"));
    check("1.0", Some("d1"));
    check("1e3", Some("d1000"));
    check("9223372036854775807", Some("i9223372036854775807"));
    check("9223372036854775808", Some("d9223372036854776000"));
    check("123456789012345678901234567890", Some("d123456789012345680000000000000"));
    check(r#""a\u00e9\n\"""#, Some("'aé\n\"'"));
    check(r#"{"a":[1,{"b":null}],"c":{},"d":[]}"#, Some("{a=[i1,{b=null}],c={},d=[]}"));
}

#[test]
fn what_is_not_json_is_refused() {
    for text in ["", " ", "{", "[1,]", "{\"a\" 1}", "nul", "1e999", "\"\u{1}\"", "1 2", "'a'"] {
        check(text, None);
    }
    let mut bytes = b"\"\xff\"".to_vec();
    assert!(Reader::default().read(&mut bytes, |_| ()).is_err(), "UTF-8 is checked");
}

#[test]
fn members_are_picked_by_name_and_the_last_of_a_name_counts() {
    let mut bytes = br#"{"b":[1,{"a":7}],"a":1,"c":null,"a":{"b":2}}"#.to_vec();
    let picked = Reader::default().read(&mut bytes, |item| {
        let [c, a, d] = item.pick(["c", "a", "d"]);
        assert!(matches!(c, Some(Item::Null)) && d.is_none(), "null stands there, and d does not");
        a.and_then(|a| a.pick(["b"])[0]).and_then(Item::as_int)
    });
    assert_eq!(picked, Ok(Some(2)));
    let none = Reader::default().read(&mut b"[\"a\",1]".to_vec(), |item| item.pick(["a"])[0].is_none());
    assert_eq!(none, Ok(true), "an array has no members");
}

#[test]
fn a_member_is_found_by_name_and_the_last_one_counts() {
    let mut bytes = br#"{"a":1,"b":2,"a":3}"#.to_vec();
    let found = Reader::default().read(&mut bytes, |item| item.get("a").and_then(Item::as_int));
    assert_eq!(found, Ok(Some(3)));
}

#[track_caller]
fn check_text(value: &str, expected: &str) {
    let mut out = Vec::new();
    text(&mut out, value);
    assert_eq!(String::from_utf8(out.clone()).unwrap(), expected);
    assert_eq!(Reader::default().read(&mut out, |item| item.as_text().map(str::to_owned)), Ok(Some(value.to_owned())));
}

#[test]
fn texts_are_escaped_and_come_back() {
    check_text("", r#""""#);
    check_text("plain é 🐵", "\"plain é 🐵\"");
    check_text("a\"b\\c\nd\re\tf\u{0}g\u{1f}", r#""a\"b\\c\nd\re\tf\u0000g\u001f""#);
}

#[test]
fn numbers_print_as_javascript_prints_them() {
    for (value, expected) in [
        (0.0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (0.1, "0.1"),
        (1e21, "1e+21"),
        (1e20, "100000000000000000000"),
        (5e-324, "5e-324"),
        (f64::MAX, "1.7976931348623157e+308"),
        (-123.5, "-123.5"),
    ] {
        let mut out = Vec::new();
        number(&mut out, value);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}

#[test]
fn half_a_pair_becomes_a_replacement() {
    #[track_caller]
    fn check(text: &str, expected: &str) {
        let mut bytes = format!("\"{text}\"").into_bytes();
        let got = Reader::default().read(&mut bytes, |item| item.as_text().map(str::to_owned));
        assert_eq!(got, Ok(Some(expected.to_owned())), "{text}");
    }
    check(r"a\ud83d", "a\u{fffd}");
    check(r"\udc35b", "\u{fffd}b");
    check(r"\ud83d\udc35", "🐵");
    check(r"\uD83D\uDC35", "🐵");
    check(r"\ud83d\ud83d\udc35", "\u{fffd}🐵");
    check(r"\udc35\ud83d", "\u{fffd}\u{fffd}");
    check(r"\ud83d\u0041", "\u{fffd}A");
    check(r"\ud83d\n", "\u{fffd}\n");
    check(r"\\ud83d", r"\ud83d");
    check(r"\\\ud83d", "\\\u{fffd}");
    check(r"\u00e9\\", "é\\");
}

#[test]
fn only_what_is_whole_is_an_integer() {
    #[expect(clippy::redundant_closure_for_method_calls, reason = "the method is not general enough in its lifetime")]
    let as_int = |text: &str| Reader::default().read(&mut text.as_bytes().to_vec(), |item| item.as_int()).unwrap();
    for (text, expected) in [("7", Some(7)), ("7.0", Some(7)), ("-1e3", Some(-1_000)), ("7.5", None), ("1e16", None)] {
        assert_eq!(as_int(text), expected, "{text}");
    }
    assert_eq!(as_int("\"7\""), None);
}
