use super::*;

const SESSION: Credentials<'_> = Credentials { id: "a1", password: "b2" };

#[track_caller]
fn check_poll(query: &str, expected: Result<Poll<'_>, BadPoll>) {
    assert_eq!(Poll::read(Query(query)), expected, "{query}");
}

#[test]
fn requests_are_told_apart() {
    check_poll("start=t&ser=123&cb=7&v=5&ns=demo", Ok(Poll::Start { callback: 7 }));
    check_poll("id=a1&pw=b2&ser=1&ns=demo", Ok(Poll::Wait(SESSION)));
    check_poll("id=a1&pw=b2&ser=1&seg0=0&ts0=1&d0=e30.", Ok(Poll::Wait(SESSION)));
    check_poll("dframe=t&id=a1&pw=b2", Ok(Poll::Frame(SESSION)));
    check_poll("disconn=t&id=a1&pw=b2", Ok(Poll::End(SESSION)));
    for bad in ["", "start=t", "start=t&cb=", "start=t&cb=1%22", "start=t&cb=x", "start=t&cb=-1", "id=a", "pw=b"] {
        check_poll(bad, Err(BadPoll));
    }
}

#[test]
fn segments_are_found_in_a_query() {
    let found = |query| segments(Query(query)).collect::<Result<Vec<_>, _>>();
    let segment = |number, count, data| Segment { number, count, data };
    assert_eq!(found("id=a&pw=b&ser=1"), Ok(vec![]));
    assert_eq!(
        found("id=a&seg0=4&ts0=2&d0=abc&seg1=5&ts1=2&d1=d.."),
        Ok(vec![segment(4, 2, "abc"), segment(5, 2, "d..")])
    );
    for bad in
        ["seg0=1", "seg0=1&ts0=1", "seg0=1&ts0=1&d1=x", "seg0=1&ts0=1&d0=x&seg2=2&ts2=1&d2=y", "seg0=x&ts0=1&d0=x"]
    {
        assert_eq!(found(bad), Err(BadPoll), "{bad}");
    }
}

/// What comes of segments `(number, count, data)`, message by message.
fn joined(given: &[(u64, usize, &str)]) -> Result<Vec<String>, BadPoll> {
    let mut segments = Segments::default();
    let mut seen = Vec::new();
    for (number, count, data) in given {
        segments.push(Segment { number: *number, count: *count, data })?;
        while let Some(message) = segments.next_message()? {
            seen.push(String::from_utf8(message).unwrap());
        }
    }
    assert_eq!(segments.pending_bytes, segments.pending.values().map(|(_, data)| data.len()).sum::<usize>());
    Ok(seen)
}

#[test]
fn segments_are_joined_in_their_order() {
    let check = |given: &[(u64, usize, &str)], expected: &[&str]| {
        assert_eq!(joined(given).unwrap(), expected, "{given:?}");
    };
    check(&[(0, 1, "e30.")], &["{}"]);
    check(&[(0, 1, "e30.."), (1, 1, "W10")], &["{}", "[]"]);
    check(&[(0, 1, "eyLwn5C1Ij8_Pn59")], &["{\"🐵\"??>~}"]);
    check(&[(0, 3, "e"), (1, 3, "3"), (2, 3, "0.")], &["{}"]);
    check(&[(2, 3, "0."), (3, 1, "W10."), (1, 3, "3"), (0, 3, "e")], &["{}", "[]"]);
    check(&[(0, 1, "e30."), (0, 1, "W10."), (1, 1, "W10.")], &["{}", "[]"]);
    check(&[(0, 2, "e3"), (0, 2, "xx"), (1, 2, "0.")], &["{}"]);
    check(&[(1, 1, "e30.")], &[]);
    for bad in [
        &[(0, 0, "e30.")][..],
        &[(0, SEGMENTS_MAX + 1, "e30.")],
        &[(SEGMENTS_MAX as u64, 1, "e30.")],
        &[(0, 2, "e3"), (1, 1, "0.")],
        &[(0, 1, "e3.0")],
        &[(0, 1, "e3+0")],
        &[(0, 1, "e")],
    ] {
        assert_eq!(joined(bad), Err(BadPoll), "{bad:?}");
    }
}

#[test]
fn what_lies_waiting_is_bounded() {
    let data = "x".repeat(PENDING_BYTES_MAX / 4);
    let mut segments = Segments::default();
    let outcomes: Vec<_> = (1..6).map(|number| segments.push(Segment { number, count: 9, data: &data })).collect();
    assert_eq!(outcomes, [Ok(()), Ok(()), Ok(()), Ok(()), Err(BadPoll)]);
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    write(&mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn answers_are_scripts() {
    let start = written(|out| write_start(out, 42, SESSION, b"{\"t\":\"c\"}"));
    assert_eq!(
        start,
        "function pLPCommand(c,a1,a2,a3,a4) {\n\
         parent.window[\"pLPCommand42\"] && parent.window[\"pLPCommand42\"](c,a1,a2,a3,a4);\n}\n\
         function pRTLPCB(pN,data) {\n\
         parent.window[\"pRTLPCB42\"] && parent.window[\"pRTLPCB42\"](pN,data);\n}\n\
         pLPCommand('start','a1','b2');\npRTLPCB(0,[{\"t\":\"c\"}]);\n"
    );
    let none: [&[u8]; 0] = [];
    assert_eq!(written(|out| write_messages(out, 3, none.into_iter())), "pRTLPCB(3,[]);\n");
    let two = [&b"{}"[..], b"[]"];
    assert_eq!(written(|out| write_messages(out, 4, two.into_iter())), "pRTLPCB(4,[{},[]]);\n");
    assert_eq!(written(write_close), "pLPCommand('close');\n");
    let page = written(|out| write_frame(out, SESSION, "a\"b"));
    assert!(page.contains("\"/.lp?disconn=t&id=a1&pw=b2&ns=a%22b\""), "{page}");
}

#[test]
fn messages_cannot_end_the_script_they_stand_in() {
    let check = |message: &str, expected: &str| {
        assert_eq!(written(|out| write_scripted(out, message.as_bytes())), expected);
    };
    check("\"</script>\"", "\"\\u003c/script>\"");
    check("\"a\u{2028}b\u{2029}\"", "\"a\\u2028b\\u2029\"");
    check("\"\u{2027}\u{202a}⚡é🐵<\"", "\"\u{2027}\u{202a}⚡é🐵\\u003c\"");
}

#[test]
fn a_name_that_is_not_plain_is_our_mistake() {
    let credentials = Credentials { id: "a'", password: "b" };
    let written = std::panic::catch_unwind(|| write_start(&mut Vec::new(), 1, credentials, b"{}"));
    assert!(written.is_err(), "it would end the string that it stands in");
}
