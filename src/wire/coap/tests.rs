use super::*;
use crate::base::ShardId;
use crate::data::{Form as Print, Node, Printer};

/// What the published SDKs and a server that made them content have said to each other.
const RECORDED: &str = include_str!("../../../tests/vectors/wilddog-coap.jsonl");

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
}

fn recorded() -> Vec<(serde_json::Value, Vec<u8>)> {
    let packet = |line| {
        let packet: serde_json::Value = serde_json::from_str(line).unwrap();
        let bytes = unhex(packet["hex"].as_str().unwrap());
        (packet, bytes)
    };
    RECORDED.lines().map(packet).collect()
}

fn json(node: &Node) -> String {
    let mut text = Vec::new();
    Printer::new(node.clone(), Print::Plain).print(&mut text, usize::MAX / 2);
    String::from_utf8(text).unwrap()
}

#[test]
fn every_recorded_packet_reads_and_writes_back_as_itself() {
    for (packet, bytes) in recorded() {
        let message = Message::read(&bytes).unwrap_or_else(|bad| panic!("{packet}: {bad:?}"));
        let mut again = Vec::new();
        let writer = Writer::new(&mut again, message.kind, message.code, message.id, message.token);
        let options = message.options();
        options.fold(writer, |writer, (number, value)| writer.option(number, value)).payload(message.payload);
        assert_eq!(again, bytes, "{packet}");
    }
}

#[test]
fn every_recorded_request_is_understood() {
    let mut count = 0;
    for (packet, bytes) in recorded().iter().filter(|(packet, _)| packet["direction"] == "client->server") {
        let message = Message::read(bytes).unwrap();
        if message.code == Code::EMPTY {
            continue;
        }
        count += 1;
        let call = Call::read(&message).unwrap_or_else(|code| panic!("{packet}: {code:?}"));
        assert_eq!(call.namespace.as_deref(), Some("myapp"), "{packet}");
        let says = |word: &str| packet["decoded"].as_str().unwrap().contains(word);
        let is_right = match &call.what {
            What::Begin { credential } => {
                says("POST") && says("\".cs\"") && credential.is_empty() == says("no payload")
            }
            What::Ping => says("\".ping\"") && says(".cs="),
            What::Count(count) => says("seq=") && *count < 99,
            What::Return { pass } => says("\".rst\"") && pass.len() == Pass::TEXT_BYTES,
            What::Leave => says("\".off\""),
            What::Data { data, form, .. } => {
                let is_expected = match data {
                    Data::Get => says("GET") && !says("Observe"),
                    Data::Observe => says("Observe(6)=0"),
                    Data::Unobserve => says("Observe(6)=1"),
                    Data::Write(Method::Set) => says("PUT") && !says(".dis"),
                    Data::Write(Method::Push) => says("POST") && !says(".dis"),
                    Data::Write(Method::Remove) => says("DELETE") && !says(".dis"),
                    Data::LastWord(_) => says(".dis=add"),
                    Data::CancelLastWords => says(".dis=rm"),
                };
                is_expected && *form == Form::Device
            }
        };
        assert!(is_right, "{packet}: {call:?}");
    }
    assert!(count > 90, "{count} requests");
}

#[test]
fn every_recorded_value_is_read_and_what_servers_say_is_written_alike() {
    for (packet, bytes) in recorded() {
        let message = Message::read(&bytes).unwrap();
        let decoded = packet["decoded"].as_str().unwrap();
        if !decoded.contains("CBOR ") || decoded.contains("(not CBOR)") {
            continue;
        }
        let node = cbor::read(message.payload, 0).unwrap_or_else(|bad| panic!("{packet}: {bad:?}"));
        let mut again = Vec::new();
        cbor::write(&mut again, &node, DATAGRAM_BYTES_MAX).unwrap();
        assert_eq!(cbor::read(&again, 0), Ok(node.clone()), "{packet}");
        // Maps come in another order from a server that keeps no order.
        if packet["direction"] == "server->client" && node.children().is_empty() {
            assert_eq!(again, message.payload, "{packet}");
        }
    }
}

#[track_caller]
fn check_value(hex: &str, expected: Result<&str, cbor::BadValue>) {
    let read = cbor::read(&unhex(hex), 0).map(|node| json(&node));
    assert_eq!(read.as_deref(), expected.as_deref(), "{hex}");
}

#[test]
fn values_of_devices_are_read_with_their_mistakes() {
    use cbor::BadValue::{Depth, Key, Malformed};
    check_value("", Ok("null"));
    check_value("f6", Ok("null"));
    check_value("f7", Ok("null"));
    check_value("00", Ok("0"));
    check_value("1a11700000", Ok("292552704"));
    check_value("3903e7", Ok("-1000"));
    check_value("fbc002000000000000", Ok("-2.25"));
    check_value("fa3fc00000", Ok("1.5"));
    check_value("f93e00", Ok("1.5"));
    check_value("f97e00", Err(Malformed));
    check_value("fb7ff0000000000000", Err(Malformed));
    check_value("1bffffffffffffffff", Ok("18446744073709552000"));
    check_value("6568656c6c6f", Ok("\"hello\""));
    check_value("6568656c6c", Err(Malformed));
    check_value("62c328", Err(Malformed));
    check_value("7f6161ff", Err(Malformed));
    check_value("43010203", Ok("\"data:application/octet-stream;base64,AQID\""));
    check_value("bf617601ff", Ok(r#"{"v":1}"#));
    check_value("bf63737562bf617960617819012cffff", Ok(r#"{"sub":{"x":300,"y":""}}"#));
    check_value("a2616101616202", Ok(r#"{"a":1,"b":2}"#));
    // A key that is bytes, and a key without a value.
    check_value("bf616a6131416b6178ff", Ok(r#"{"j":"1","k":"x"}"#));
    check_value("bf6162016161ff", Ok(r#"{"b":1}"#));
    check_value("bf6161", Err(Malformed));
    check_value("bf612e01ff", Err(Key));
    check_value("bf632e737601ff", Err(Key));
    check_value("bf0101ff", Err(Malformed));
    check_value("83010203", Ok("[1,2,3]"));
    check_value("c11a514b67b0", Ok("1363896240"));
    check_value("05ffff", Ok("5"));
    check_value(&("a16161".repeat(32) + "01"), Ok(&("{\"a\":".repeat(32) + "1" + &"}".repeat(32))));
    check_value(&("a16161".repeat(33) + "01"), Err(Depth));
    check_value(&"c1".repeat(1_000), Err(Depth));
    check_value(&"9f".repeat(1_000), Err(Depth));
}

#[track_caller]
fn check_written(hex: &str, top_hex: &str) {
    let node = cbor::read(&unhex(hex), 0).unwrap();
    let (mut inner, mut top) = (Vec::new(), Vec::new());
    cbor::write(&mut inner, &node, 1_000).unwrap();
    cbor::write_top(&mut top, &node, 1_000).unwrap();
    assert_eq!((inner, top), (unhex(hex), unhex(top_hex)), "{hex}");
}

#[test]
fn values_are_written_as_every_version_can_read_them() {
    for same in ["f6", "f5", "f4", "00", "17", "1818", "1901f4", "1a7fffffff", "3a7fffffff", "fb3ff8000000000000"] {
        check_written(same, same);
    }
    // What does not fit in 32 bits is a double: longer integers make clients crash.
    check_written("fb41e0000000000000", "fb41e0000000000000");
    // A negative double has no form that is read where it stands alone.
    check_written("fbc00c000000000000", "642d332e35");
    check_written("a16176fbc00c000000000000", "a16176fbc00c000000000000");
    check_written("43010203", "43010203");
    let mut long = Vec::new();
    assert_eq!(cbor::write(&mut long, &Node::text(&"x".repeat(100)), 101), Err(cbor::TooLong));
}

#[track_caller]
fn check_malformed(hex: &str, expected: Malformed) {
    assert_eq!(Message::read(&unhex(hex)), Err(expected), "{hex}");
}

#[test]
fn what_is_no_message_is_rejected_or_ignored() {
    let rejected = Malformed::Rejected(MessageId(0x1234));
    for ours_not in ["", "44", "440112", "04011234", "84011234", "c4011234"] {
        check_malformed(ours_not, Malformed::NotOurs);
    }
    check_malformed("440112340102", rejected);
    check_malformed("4901123401020304050607080900", rejected);
    check_malformed("54011234010203", Malformed::Ignored);
    // A marker without a payload, an option that is cut off, reserved nibbles, a number beyond 16 bits.
    for bad in ["40011234ff", "400112343d", "400112343461", "40011234f0", "400112340f", "40011234e0ffff", "40011234d0"]
    {
        check_malformed(bad, rejected);
    }
    check_malformed("40001234ff", rejected);
    // "The server's parser MUST accept empty messages with a non-zero TKL."
    let empty = unhex("640080011f8bb751");
    let message = Message::read(&empty).unwrap();
    assert_eq!((message.kind, message.code, message.id.0), (Kind::Acknowledgement, Code::EMPTY, 0x8001));
}

#[test]
fn long_options_survive() {
    for length in [0, 12, 13, 14, 268, 269, 270, 1_000] {
        for number in [1, 12, 13, 268, 269, 600, 65_535] {
            let value = vec![7; length];
            let mut bytes = Vec::new();
            let writer = Writer::new(&mut bytes, Kind::NonConfirmable, Code::GET, MessageId(1), Token::new(b"t"));
            writer.option(number, &value).option(number, b"").payload(b"p");
            let message = Message::read(&bytes).unwrap();
            let options: Vec<_> = message.options().collect();
            assert_eq!(options, [(number, &value[..]), (number, &b""[..])]);
            assert_eq!(message.payload, b"p");
        }
    }
}

fn request(code: Code, options: &[(u32, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let writer = Writer::new(&mut bytes, Kind::Confirmable, code, MessageId(1), Token::new(b"tokn"));
    options.iter().fold(writer, |writer, (number, value)| writer.option(*number, value)).done();
    bytes
}

#[track_caller]
fn check_call(code: Code, options: &[(u32, &[u8])], expected: Result<(Option<&str>, &str), Code>) {
    let bytes = request(code, options);
    let call = Call::read(&Message::read(&bytes).unwrap());
    let got = call.map(|call| {
        let what = match call.what {
            What::Data { path, data, .. } => format!("{data:?} /{}", path.as_str()),
            other => format!("{other:?}"),
        };
        (call.namespace.map(std::borrow::Cow::into_owned), what)
    });
    let expected = expected.map(|(namespace, what)| (namespace.map(str::to_owned), what.to_owned()));
    assert_eq!(got, expected, "{options:?}");
}

#[test]
fn requests_say_what_and_where() {
    use option::{CONTENT_FORMAT, OBSERVE, URI_HOST, URI_PATH, URI_QUERY};
    let host: (u32, &[u8]) = (URI_HOST, b"MyApp.wilddogio.com");
    let path = |segment: &'static [u8]| (URI_PATH, segment);
    let query = |item: &'static [u8]| (URI_QUERY, item);
    check_call(Code::GET, &[host], Ok((Some("myapp"), "Get /")));
    check_call(Code::GET, &[host, path(b"")], Ok((Some("myapp"), "Get /")));
    check_call(Code::GET, &[host, path(b"a"), path(b"b%20c")], Ok((Some("myapp"), "Get /a/b%20c")));
    check_call(Code::GET, &[host, path(b"a/b")], Err(Code::BAD_REQUEST));
    check_call(Code::GET, &[host, path(b"a.b")], Err(Code::BAD_REQUEST));
    check_call(Code::GET, &[host, path(b"\xff")], Err(Code::BAD_REQUEST));
    check_call(Code::GET, &[host, path(b".info"), path(b"x")], Err(Code::NOT_FOUND));
    check_call(Code::GET, &[(URI_HOST, b"127.0.0.1"), path(b"a")], Ok((None, "Get /a")));
    check_call(Code::GET, &[(URI_HOST, b"[::1]"), path(b"a")], Ok((None, "Get /a")));
    check_call(Code::GET, &[path(b"a"), query(b"ns=chat")], Ok((Some("chat"), "Get /a")));
    check_call(Code::GET, &[path(b"a"), query(b"ns=../x")], Err(Code::BAD_REQUEST));
    check_call(Code::GET, &[host, (OBSERVE, b""), path(b"a")], Ok((Some("myapp"), "Observe /a")));
    check_call(Code::GET, &[host, (OBSERVE, b"\0"), path(b"a")], Ok((Some("myapp"), "Observe /a")));
    check_call(Code::GET, &[host, (OBSERVE, b"\x01"), path(b"a")], Ok((Some("myapp"), "Unobserve /a")));
    check_call(Code::DELETE, &[host, path(b"a"), query(b".dis=rm")], Ok((Some("myapp"), "CancelLastWords /a")));
    let added = &[host, path(b"a"), query(b".cs=01234567"), query(b".dis=add")];
    check_call(Code::POST, added, Ok((Some("myapp"), "LastWord(Push) /a")));
    check_call(Code::PUT, &[host, path(b"a"), query(b"orderBy=$key")], Ok((Some("myapp"), "Write(Set) /a")));
    check_call(Code(5), &[host, path(b"a")], Err(Code::METHOD_NOT_ALLOWED));
    check_call(Code::GET, &[host, path(b".cs")], Err(Code::METHOD_NOT_ALLOWED));
    check_call(Code::PUT, &[host, path(b"a"), (CONTENT_FORMAT, b"\x29")], Err(Code::UNSUPPORTED_FORMAT));
    check_call(Code::GET, &[host, path(b"a"), (option::ACCEPT, b"\x29")], Err(Code::NOT_ACCEPTABLE));
    // Critical and unknown; unknown only.
    check_call(Code::GET, &[host, path(b"a"), (35, b"coap://x")], Err(Code::BAD_OPTION));
    check_call(Code::GET, &[host, path(b"a"), (28, b"\x04")], Ok((Some("myapp"), "Get /a")));
}

#[test]
fn names_and_passes_survive_their_texts() {
    for random in [1, 1 << 41, (1 << 42) - 1, 0x0123_4567_89ab, u64::MAX] {
        let name = Name::new(ShardId(63), random).unwrap();
        let text = name.text();
        assert_eq!((Name::parse(&text), name.home()), (Some(name), ShardId(63)));
        assert!(text.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')));
    }
    assert_eq!(Name::new(ShardId(0), 0), None, "00000000 is the client's word for no name");
    for old in [b"a2617368", b"A2617368"] {
        let name = Name::parse(old).unwrap();
        let random = old.iter().skip(1).fold(0, |sum, byte| {
            sum << 6 | Name::parse(&[b'0', b'0', b'0', b'0', b'0', b'0', b'0', *byte]).unwrap().low_bits()
        });
        assert_eq!(Name::new(name.home(), random), None, "the oldest clients have another meaning for it");
    }
    for bad in [&b"1234567"[..], b"123456789", b"1234567&", b"1234567\0"] {
        assert_eq!(Name::parse(bad), None);
    }
    let name = Name::new(ShardId(63), u64::MAX).unwrap();
    let pass = Pass { name, secret: Secret((3_u128 << 120 | 5).to_le_bytes()) };
    let text = pass.text();
    assert_eq!(Pass::parse(&text), Some(pass));
    assert_eq!(Pass::parse(&text[1..]), None);
    assert_eq!(Pass::parse(&[b'*'; 32]), None);
    assert_eq!(Pass::parse(&[b'z'; 32]), None, "no name is so long");
    assert_eq!(Name::from_bits(name.bits()), Some(name));
    assert_eq!((name.home_among(64), name.home_among(3)), (ShardId(63), ShardId(0)));
}

#[test]
fn sequence_numbers_start_at_one_and_never_are_zero() {
    assert_eq!((sequence(0), sequence(1), sequence(0x00ff_ffff)), (1, 2, 1));
}
