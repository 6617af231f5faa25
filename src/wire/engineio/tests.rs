use super::*;

/// The packets of a body, or `None`.
fn packets(body: &[u8], encoding: Encoding) -> Option<Vec<String>> {
    let mut found = Vec::new();
    let mut body = body.to_vec();
    let taken = read_body(&mut body, encoding, |packet| {
        found.push(String::from_utf8(packet.to_vec()).expect("checked"));
    });
    assert!(taken.is_ok() || found.is_empty(), "all or none");
    taken.ok().map(|()| found)
}

#[track_caller]
fn check(body: &[u8], encoding: Encoding, expected: &[&str]) {
    assert_eq!(
        packets(body, encoding).as_deref(),
        Some(&expected.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()[..])
    );
}

#[test]
fn bodies_are_taken_apart() {
    check(b"", Encoding::Text, &[]);
    check(b"1:2", Encoding::Text, &["2"]);
    check(b"6:2probe1:5", Encoding::Text, &["2probe", "5"]);
    // "é", encoded twice.
    check(b"3:4\xc3\x83\xc2\xa9", Encoding::Text, &["4é"]);
    check("11:4\u{f0}\u{9f}\u{98}\u{80}\u{e6}\u{bc}\u{a2}\u{c3}\u{a9}!".as_bytes(), Encoding::Text, &["4😀漢é!"]);
    check(b"\x00\x01\xff6", Encoding::Binary, &["6"]);
    check(b"\x00\x03\xff4\xc3\xa9\x00\x01\x00\xff4123456789", Encoding::Binary, &["4é", "4123456789"]);
}

#[test]
fn what_is_no_body_hands_out_nothing() {
    for bad in [
        &b"1"[..],
        b":",
        b":2",
        b"x:2",
        b"1:22",
        b"2:2",
        b"-1:2",
        b"9999999999:2",
        b"999999999:2",
        b"18446744073709551615:2",
        b"1:22:4\xff",
        b"1:\xc3\xbf",
        b"1:2\xe6\xbc\xa2",
        b"2:4\xc3",
    ] {
        assert_eq!(packets(bad, Encoding::Text), None, "{bad:?}");
    }
    for bad in
        [&b"\x00"[..], b"\x01\x01\xff6", b"\x00\xff", b"\x00\x0a\xff6", b"\x00\x02\xff6", b"6", b"\x00\x01\xff\xff"]
    {
        assert_eq!(packets(bad, Encoding::Binary), None, "{bad:?}");
    }
}

#[test]
fn what_is_written_is_read_again() {
    for encoding in [Encoding::Binary, Encoding::Text] {
        let mut body = Vec::new();
        let packets_written = ["6", "4 plain", "4é漢😀", &format!("4{}", "x".repeat(100_000))];
        packets_written.iter().for_each(|packet| write_to_body(&mut body, encoding, packet.as_bytes()));
        check(&body, encoding, &packets_written);
    }
    let mut body = Vec::new();
    write_to_body(&mut body, Encoding::Binary, b"6");
    assert_eq!(body, b"\x00\x01\xff6");
    body.clear();
    write_to_body(&mut body, Encoding::Binary, &[b'4'; 86]);
    assert_eq!(body[..4], *b"\x00\x08\x06\xff");
}

#[test]
fn packets_have_kinds() {
    for (text, kind) in [
        ("0", Kind::Open),
        ("1", Kind::Close),
        ("2", Kind::Ping),
        ("3", Kind::Pong),
        ("4", Kind::Message),
        ("5", Kind::Upgrade),
        ("6", Kind::Noop),
    ] {
        let mut packet = format!("{text}data").into_bytes();
        let (found, data) = read(&mut packet).expect("a packet");
        assert_eq!((found, &*data), (kind, &b"data"[..]));
        let mut again = Vec::new();
        write(&mut again, found, b"data");
        assert_eq!(again, format!("{text}data").as_bytes());
    }
    for bad in ["", "7", "b4", "é"] {
        assert_eq!(read(&mut bad.as_bytes().to_vec()), Err(BadPacket), "{bad}");
    }
}

#[test]
fn the_first_packet_has_all_that_clients_need() {
    let mut out = Vec::new();
    write_open(&mut out, &Open { session: "a1", may_upgrade: true, ping_interval_ms: 20_000, ping_timeout_ms: 60_000 });
    assert_eq!(out, br#"0{"sid":"a1","upgrades":["websocket"],"pingInterval":20000,"pingTimeout":60000}"#);
    out.clear();
    write_open(&mut out, &Open { session: "a1", may_upgrade: false, ping_interval_ms: 1, ping_timeout_ms: 2 });
    assert_eq!(out, br#"0{"sid":"a1","upgrades":[],"pingInterval":1,"pingTimeout":2}"#);
}
