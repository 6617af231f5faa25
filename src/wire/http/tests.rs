#![expect(clippy::redundant_closure_for_method_calls, reason = "the methods are not general enough in their lifetimes")]

use super::*;

const UPGRADE: &str = "GET /.ws?v=5&ns=demo HTTP/1.1\r\nHost: a.example:9000\r\nconnection: keep-alive, Upgrade\r\n\
    UPGRADE: WebSocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// What came of a head, in words.
fn render(head: &Head<'_>) -> String {
    format!("{} {} {} {} {:?}", head.method, head.path, head.query.0, head.host(), head.body())
}

fn read_pieces<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> Vec<String> {
    let mut reader = Reader::default();
    let mut seen = Vec::new();
    for piece in pieces {
        let mut bytes = piece.to_vec();
        let mut input = Input::new(&mut bytes);
        loop {
            match reader.next(&mut input) {
                Ok(Some(head)) => seen.push(render(&head)),
                Ok(None) => break,
                Err(bad) => {
                    seen.push(format!("{bad:?} {}", bad.status()));
                    return seen;
                }
            }
        }
    }
    seen
}

/// Reads `text` whole, cut in two at every place, and byte by byte.
#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let bytes = text.as_bytes();
    assert_eq!(read_pieces([bytes]), expected, "whole: {text}");
    for at in 0..=bytes.len().min(300) {
        let (a, b) = bytes.split_at(at);
        assert_eq!(read_pieces([a, b]), expected, "cut at {at}: {text}");
    }
    assert_eq!(read_pieces(bytes.chunks(1)), expected, "byte by byte: {text}");
}

#[track_caller]
fn with_head<R>(text: &str, use_it: impl FnOnce(&Head<'_>) -> R) -> R {
    let mut bytes = text.as_bytes().to_vec();
    let mut reader = Reader::default();
    let mut input = Input::new(&mut bytes);
    use_it(&reader.next(&mut input).unwrap().expect("the test's head is whole"))
}

#[test]
fn heads_are_read() {
    check("GET / HTTP/1.1\r\nHost: a\r\n\r\n", &["GET /  a Ok(Bytes(0))"]);
    check("\r\n\nGET / HTTP/1.1\nHost:a\n\n", &["GET /  a Ok(Bytes(0))"]);
    check("GET /x.json?a=1?b HTTP/1.0\r\n\r\n", &["GET /x.json a=1?b  Ok(Bytes(0))"]);
    check("GET http://b:1/y?z HTTP/1.1\r\nHost: a\r\n\r\n", &["GET /y z a Ok(Bytes(0))"]);
    check("GET http://b?z HTTP/1.1\r\nHost: a\r\n\r\n", &["GET / z a Ok(Bytes(0))"]);
    check("GET /?u=http://b HTTP/1.1\r\nHost: a\r\n\r\n", &["GET / u=http://b a Ok(Bytes(0))"]);
    let two = "DELETE /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: b\r\n\r\n";
    check(two, &["DELETE /a  a Ok(Bytes(0))", "GET /b  b Ok(Bytes(0))"]);
    check(UPGRADE, &["GET /.ws v=5&ns=demo a.example:9000 Ok(Bytes(0))"]);
}

#[test]
fn what_is_no_head_is_refused() {
    check("\u{16}\u{3}\u{1}", &["Malformed 400"]);
    check("{\"t\":", &["Malformed 400"]);
    check("GET  / HTTP/1.1\r\n\r\n", &["Malformed 400"]);
    check("GET / HTTP/1.1\r\nHo st: a\r\n\r\n", &["Malformed 400"]);
    check("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", &["Malformed 400"]);
    check("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &["Version 505"]);
    check("GET / HTTP/1.1\r\n\r\n", &["Host 400"]);
    check("GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", &["Host 400"]);
    let lines = |count: usize| "x: y\r\n".repeat(count - 1);
    check(&format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", lines(HEADERS_MAX)), &["GET /  a Ok(Bytes(0))"]);
    check(&format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", lines(HEADERS_MAX + 1)), &["TooManyHeaders 431"]);
    let padded = |bytes: usize| {
        let text = "GET / HTTP/1.1\r\nHost: a\r\nx: \r\n\r\n";
        text.replace("x: ", &format!("x: {}", "y".repeat(bytes - text.len())))
    };
    check(&padded(HEAD_BYTES_MAX), &["GET /  a Ok(Bytes(0))"]);
    check(&padded(HEAD_BYTES_MAX + 1), &["TooLong 431"]);
    check(&padded(2 * HEAD_BYTES_MAX)[..HEAD_BYTES_MAX + 5], &["TooLong 431"]);
}

#[test]
fn the_length_of_a_body_is_clear_or_refused() {
    let body = |lines: &str| with_head(&format!("PUT / HTTP/1.1\r\nHost: a\r\n{lines}\r\n"), |head| head.body());
    assert_eq!(body("Content-Length: 12\r\n"), Ok(Body::Bytes(12)));
    assert_eq!(body("Content-Length:  0 \r\n"), Ok(Body::Bytes(0)));
    assert_eq!(body("Transfer-Encoding: Chunked\r\n"), Ok(Body::Chunked));
    assert_eq!(body(&format!("Content-Length: {BODY_BYTES_MAX}\r\n")), Ok(Body::Bytes(BODY_BYTES_MAX)));
    for (lines, expected) in [
        ("Content-Length: +1\r\n", BadHead::Length),
        ("Content-Length: 1, 1\r\n", BadHead::Length),
        ("Content-Length: 0x1\r\n", BadHead::Length),
        ("Content-Length:\r\n", BadHead::Length),
        ("Content-Length: 1\r\nContent-Length: 1\r\n", BadHead::Length),
        ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", BadHead::Length),
        ("Transfer-Encoding: gzip, chunked\r\n", BadHead::Encoding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", BadHead::Encoding),
        ("Content-Length: 268435457\r\n", BadHead::BodyTooLong),
        ("Content-Length: 99999999999999999999999\r\n", BadHead::BodyTooLong),
    ] {
        assert_eq!(body(lines), Err(expected), "{lines}");
    }
}

#[test]
fn connections_are_kept_as_the_version_says() {
    let keeps = |text: &str| with_head(text, |head| head.keeps_alive());
    assert!(keeps("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert!(!keeps("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n"));
    assert!(!keeps("GET / HTTP/1.0\r\n\r\n"));
    assert!(keeps("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"));
}

#[test]
fn the_handshake_of_the_rfc_is_answered() {
    // RFC 6455 section 1.3.
    let upgrade = with_head(UPGRADE, |head| Upgrade::read(head).unwrap());
    let mut out = Vec::new();
    upgrade.write(&mut out);
    assert!(
        String::from_utf8(out.clone()).unwrap().contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n")
    );
    let mut reader = ResponseReader::default();
    let mut input = Input::new(&mut out);
    let head = reader.next(&mut input).unwrap().unwrap();
    assert!(head.accepts("dGhlIHNhbXBsZSBub25jZQ=="));
    assert!(!head.accepts("dGhlIHNhbXBsZSBub25jZR=="));
}

#[track_caller]
fn check_refused(from: &str, to: &str, bad: BadUpgrade, status: &str) {
    let text = UPGRADE.replace(from, to);
    assert_ne!(text, UPGRADE);
    assert_eq!(with_head(&text, Upgrade::read), Err(bad));
    let mut out = Vec::new();
    bad.write(&mut out);
    assert!(out.starts_with(format!("HTTP/1.1 {status}\r\n").as_bytes()), "{}", String::from_utf8_lossy(&out));
}

#[test]
fn bad_handshakes_are_refused() {
    check_refused("GET", "POST", BadUpgrade::Method, "405 Method Not Allowed");
    check_refused("HTTP/1.1", "HTTP/1.0", BadUpgrade::NotAsked, "426 Upgrade Required");
    check_refused("WebSocket\r", "h2c\r", BadUpgrade::NotAsked, "426 Upgrade Required");
    check_refused(", Upgrade", "", BadUpgrade::NotAsked, "426 Upgrade Required");
    check_refused(": 13", ": 8", BadUpgrade::Version, "426 Upgrade Required");
    check_refused("Sec-WebSocket-Version: 13\r\n", "", BadUpgrade::Version, "426 Upgrade Required");
    check_refused("ZQ==", "ZQ", BadUpgrade::Key, "400 Bad Request");
    check_refused("dGhl", "dGhldGhl", BadUpgrade::Key, "400 Bad Request");
    check_refused("dGhl", "", BadUpgrade::Key, "400 Bad Request");
}

#[test]
fn the_clients_handshake_is_a_good_one() {
    let mut out = Vec::new();
    let key = write_upgrade_request(&mut out, "a:1", "/.ws?v=5", [7; 16]);
    let upgrade = with_head(std::str::from_utf8(&out).unwrap(), |head| Upgrade::read(head).unwrap());
    let mut answer = Vec::new();
    upgrade.write(&mut answer);
    let mut reader = ResponseReader::default();
    assert!(reader.next(&mut Input::new(&mut answer)).unwrap().unwrap().accepts(&key));
}

#[test]
fn query_strings_are_read() {
    let query = Query("v=5&p=1:2:web:3&ns=&a&b=x%20y&c=1+2&d=%zz&e=%ff&&v=6");
    assert_eq!(query.get("v").as_deref(), Some("5"));
    assert_eq!(query.get("p").as_deref(), Some("1:2:web:3"));
    assert_eq!(query.get("ns").as_deref(), Some(""));
    assert_eq!(query.get("a").as_deref(), Some(""));
    assert_eq!(query.get("b").as_deref(), Some("x y"));
    assert_eq!(query.get("c").as_deref(), Some("1 2"));
    assert_eq!(query.get("d").as_deref(), Some("%zz"));
    assert_eq!(query.get_strict("d"), Err(BadEscape));
    assert_eq!(query.get_strict("e"), Err(BadEscape));
    assert_eq!(query.get("f"), None);
    assert_eq!(query.pairs().count(), 9);
}

#[test]
fn percent_encoding_comes_back() {
    let text = "a/b c%+é🐵~-._\u{7f}";
    let mut out = Vec::new();
    percent_encode(&mut out, text);
    let encoded = String::from_utf8(out).unwrap();
    assert!(encoded.bytes().all(|byte| byte.is_ascii_graphic()));
    assert_eq!(percent_decode(&encoded).as_deref(), Ok(text));
    assert_eq!(percent_decode("a+b").as_deref(), Ok("a+b"));
    for bad in ["%", "%1", "%1g", "%+1", "%c3"] {
        assert_eq!(percent_decode(bad), Err(BadEscape), "{bad}");
    }
}

#[track_caller]
fn check_response(status: u16, headers: &[(&str, &str)], body: &str, expected: &str) {
    let mut out = Vec::new();
    write_response(&mut out, status, headers, body.as_bytes());
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

#[test]
fn responses_are_written() {
    check_response(200, &[("A", "b")], "hi", "HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 2\r\n\r\nhi");
    check_response(404, &[], "", "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    check_response(204, &[], "", "HTTP/1.1 204 No Content\r\n\r\n");
}

/// What comes of a body, in words: the bytes, `+` what follows it, or what is wrong.
fn body_pieces<'p>(body: Body, pieces: impl IntoIterator<Item = &'p [u8]>) -> String {
    let mut reader = BodyReader::new(body);
    let mut seen = String::new();
    let mut is_done = false;
    for piece in pieces {
        let mut bytes = piece.to_vec();
        let mut input = Input::new(&mut bytes);
        loop {
            match reader.next(&mut input) {
                Ok(BodyPiece::Bytes(bytes)) => seen.push_str(std::str::from_utf8(bytes).unwrap()),
                Ok(BodyPiece::Waiting) => break,
                Ok(BodyPiece::Done) => {
                    if !std::mem::replace(&mut is_done, true) {
                        seen.push('+');
                    }
                    seen.push_str(std::str::from_utf8(input.rest()).unwrap());
                    break;
                }
                Err(bad) => return format!("{bad:?}"),
            }
        }
    }
    seen
}

#[track_caller]
fn check_body(body: Body, text: &str, expected: &str) {
    let bytes = text.as_bytes();
    assert_eq!(body_pieces(body, [bytes]), expected, "whole: {text}");
    assert_eq!(body_pieces(body, bytes.chunks(1)), expected, "byte by byte: {text}");
    for at in 0..=bytes.len() {
        let (a, b) = bytes.split_at(at);
        assert_eq!(body_pieces(body, [a, b]), expected, "cut at {at}: {text}");
    }
}

#[test]
fn bodies_are_read() {
    check_body(Body::Bytes(0), "GET", "+GET");
    check_body(Body::Bytes(3), "abcGET", "abc+GET");
    check_body(Body::Bytes(3), "ab", "ab");
    check_body(Body::Chunked, "0\r\n\r\nGET", "+GET");
    check_body(Body::Chunked, "3\r\nabc\r\nA\r\n0123456789\r\n000\r\n\r\n", "abc0123456789+");
    check_body(Body::Chunked, "1;x=\"y\"\r\na\r\n0 ;z\r\nT: u\r\nV: w\r\n\r\nGET", "a+GET");
    check_body(Body::Chunked, "1\na\n0\n\nGET", "a+GET");
    for bad in ["\r\n", "x\r\n", "-1\r\n", "0x1\r\n", "1\r\nab", " 1\r\n", ";\r\n"] {
        check_body(Body::Chunked, bad, "Length");
    }
    check_body(Body::Chunked, "10000001\r\n", "BodyTooLong");
    check_body(Body::Chunked, "ffffffffffffffffffff\r\n", "BodyTooLong");
    check_body(Body::Chunked, "2\r\nab\r\n0fffffff\r\n", "BodyTooLong");
}
