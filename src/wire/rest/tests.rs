use super::*;
use crate::base::WallMillis;
use crate::data::{Form, Node, Path, Printer};
use crate::json;
use crate::op::Event;
use crate::wire::{Input, http};

fn call(head: &str) -> Call {
    let mut text = format!("{}\r\nHost: db.example\r\n\r\n", head.replace('\n', "\r\n")).into_bytes();
    let mut input = Input::new(&mut text);
    let mut reader = http::Reader::default();
    let head = reader.next(&mut input).expect("the test's head is right").expect("it is whole");
    Call::read(&head)
}

/// What a head asks, in short.
fn shown(call: &Call) -> String {
    match &call.what {
        Ok(What::Get(Get { path, view, .. })) => format!("get {path} {view:?}"),
        Ok(What::Stream { path, last_stream, .. }) => format!("stream {path} {}", last_stream.is_some()),
        Ok(What::Write(write)) => format!("{:?} {} {:?}", write.verb, write.location.path, write.if_hash),
        Ok(What::LastWord { write, .. }) => format!("last word {:?} {}", write.verb, write.location.path),
        Ok(What::CancelLastWords { path, .. }) => format!("cancel {path}"),
        Ok(What::Known(reply)) => format!("known {}", reply.status),
        Ok(what) => format!("{what:?}"),
        Err(reply) => format!("error {}", reply.status),
    }
}

#[track_caller]
fn check(head: &str, expected: &str) {
    assert_eq!(shown(&call(head)), expected, "{head}");
}

#[test]
fn heads_become_calls() {
    let id = "00".repeat(24);
    check("GET /a/b.json HTTP/1.1", "get /a/b Tree(Plain)");
    check("GET /.json HTTP/1.1", "get / Tree(Plain)");
    check("GET //a//b/.json HTTP/1.1", "get /a/b Tree(Plain)");
    check("GET /a%20b/%C3%A9.json HTTP/1.1", "get /a b/é Tree(Plain)");
    check("HEAD /a.json?format=export HTTP/1.1", "get /a Tree(Export)");
    check("GET /a.json?shallow HTTP/1.1", "get /a Tree(Shallow)");
    check("GET /a/.priority.json HTTP/1.1", "get /a Priority");
    check("GET /a.json?count=true HTTP/1.1", "get /a Count");
    check("GET /a.json?sv=timestamp HTTP/1.1", "Time");
    check("GET /a.json HTTP/1.1\nAccept: text/event-stream", "stream /a false");
    check(&format!("GET /a.json?ls={id} HTTP/1.1\nAccept: text/event-stream"), "stream /a true");
    check(&format!("GET /a.json HTTP/1.1\nAccept: text/event-stream\nLast-Event-ID: {id}"), "stream /a true");
    check("GET /a/.priority.json HTTP/1.1\nAccept: text/event-stream", "error 400");
    check("PUT /a.json HTTP/1.1\nIf-Match: null_etag", r#"Put /a Some("")"#);
    check("PUT /a.json HTTP/1.1\nIf-Match: \"xyz=\"", r#"Put /a Some("xyz=")"#);
    check("POST /a.json HTTP/1.1", "Post /a None");
    check("POST /a.json HTTP/1.1\nX-HTTP-Method-Override: patch", "Patch /a None");
    check("POST /a.json?x-http-method-override=DELETE HTTP/1.1", "Delete /a None");
    check("PUT /a.json?x-http-method-override=DELETE HTTP/1.1", "Put /a None");
    check(&format!("PUT /a.json?onDisconnect={id} HTTP/1.1"), "last word Put /a");
    check(&format!("DELETE /a.json?onDisconnect={id} HTTP/1.1"), "last word Delete /a");
    check(&format!("DELETE /a.json?onDisconnect={id}&cancel=true HTTP/1.1"), "cancel /a");
    check(&format!("PUT /a.json?onDisconnect={id}&cancel=true HTTP/1.1"), "error 400");
    check("PUT /a.json?onDisconnect=x HTTP/1.1", "error 404");
    check("OPTIONS /a.json HTTP/1.1", "known 200");
    check("GET / HTTP/1.1", "known 200");
    check("GET /a HTTP/1.1", "error 404");
    check("TRACE /a.json HTTP/1.1", "error 405");
    check("POST /a/.priority.json HTTP/1.1", "error 405");
    check("GET /a$.json HTTP/1.1", "error 400");
    check(&format!("GET /{}.json HTTP/1.1", "a/".repeat(33)), "error 400");
    check("GET /a.json?timeout=3s HTTP/1.1", "get /a Tree(Plain)");
    check("GET /a.json?timeout=16min HTTP/1.1", "error 400");
    check("GET /a.json?timeout=s HTTP/1.1", "error 400");
    check("PUT /a.json?writeSizeLimit=huge HTTP/1.1", "error 400");
    check("GET /a.json?callback=a(b) HTTP/1.1", "error 400");
    check("GET /.settings/rules.json HTTP/1.1", "GetRules");
    check("PUT /?ns=x/.settings/rules.json?dryRun=true HTTP/1.1", "PutRules { is_dry_run: true }");
    check("GET /.info/connected.json HTTP/1.1", "error 400");
}

#[test]
fn queries_that_contradict_themselves_are_refused() {
    for query in [
        "limitToFirst=1",
        "orderBy=\"a\"&limitToFirst=1&limitToLast=1",
        "orderBy=\"a\"&limitToFirst=0",
        "orderBy=\"a\"&limitToFirst=x",
        "orderBy=\"a\"&startAt=1&equalTo=2",
        "orderBy=\"a\"&startAt=1&startAfter=2",
        "orderBy=\"a\"&endAt=1&endBefore=2",
        "orderBy=\"a\"&startAt={}",
        "orderBy=\"a\"&startAt=1,2",
        "orderBy=\"a\"&startAt=1,\"k\",3",
        "orderBy=\"$key\"&startAt=1",
        "orderBy=\"\"",
        "orderBy=7",
    ] {
        check(&format!("GET /a.json?{query} HTTP/1.1"), "error 400");
    }
}

#[test]
fn the_database_and_the_asker_are_found_where_they_stand() {
    let named = call("GET /a.json?ns=one&auth=x HTTP/1.1\nAuthorization: Bearer y");
    assert_eq!((named.namespace.as_deref(), named.is_namespace_named), (Some("one"), true));
    assert_eq!(named.credential.as_deref(), Some("y"));
    let guessed = call("GET /a.json?ns=&access_token=z HTTP/1.1");
    assert_eq!((guessed.namespace.as_deref(), guessed.is_namespace_named), (Some("db"), false));
    assert_eq!(guessed.credential.as_deref(), Some("z"));
    let wrong_place = call("PUT /?ns=two/.settings/rules.json HTTP/1.1");
    assert_eq!((wrong_place.namespace.as_deref(), wrong_place.is_namespace_named), (Some("two"), true));
}

#[test]
fn compression_is_for_those_who_ask() {
    for (accepted, expected) in [
        ("gzip", true),
        ("br, GZIP;q=0.5", true),
        ("gzip;q=0", false),
        ("identity", false),
        ("xgzip", false),
        ("gzip;q=x", false),
    ] {
        let style = call(&format!("GET /a.json HTTP/1.1\nAccept-Encoding: {accepted}")).style;
        assert_eq!(style.accepts_gzip, expected, "{accepted}");
    }
}

#[test]
fn push_ids_ascend_whatever_the_clock_does() {
    let mut ids = PushIds::default();
    let mut last = String::new();
    for (wall, random) in [(5, 0), (5, 0), (5, u64::MAX), (6, u64::MAX), (6, 0), (6, 0), (4, 1), (1 << 47, 3)] {
        let id = ids.next(WallMillis(wall), [random, random]);
        assert!(id.len() == 20 && id > last, "{id} after {last}");
        last = id;
    }
    let id = PushIds::default().next(WallMillis(1_700_000_000_000), [0, 0]);
    assert_eq!(&id[..8], "-NjEtLV-", "the time, as clients write it: {id}");
}

/// Sends a tree whole and in pieces, and gives what arrives without its framing.
fn sent(style: &Style, node: &Node) -> (String, Vec<u8>) {
    let mut out = Vec::new();
    let reply = Reply::of(
        &Answering::Get { view: View::Tree(Form::Plain), query: crate::op::Query::ALL },
        &crate::op::Outcome::Value(node.clone()),
        style,
    );
    let mut rest = Sending::begin(&mut out, reply, style, true);
    while let Some(sending) = &mut rest {
        if sending.piece(&mut out) {
            break;
        }
    }
    let end = out.windows(4).position(|end| end == b"\r\n\r\n").expect("a head") + 4;
    let head = String::from_utf8(out[..end].to_vec()).unwrap();
    let mut body = Vec::new();
    let framing = if head.contains("chunked") { http::Body::Chunked } else { http::Body::Bytes(out.len() - end) };
    let mut reader = BodyReader::boundless(framing);
    reader.read(&mut Input::new(&mut out[end..]), |piece| body.extend_from_slice(piece)).unwrap();
    assert!(reader.is_done() || out.len() == end, "{head}");
    if head.contains("gzip") {
        let mut plain = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&body[..]), &mut plain).unwrap();
        body = plain;
    }
    (head, body)
}

fn node(text: &str) -> Node {
    let mut bytes = text.as_bytes().to_vec();
    let draft = json::Reader::default().read(&mut bytes, |item| crate::data::Draft::from_json(item, 0));
    draft.unwrap().unwrap().resolve(&Node::Empty, WallMillis(0))
}

#[test]
fn an_answer_is_the_same_however_it_is_sent() {
    let short = node(r#"{"a":[1,2,{"b":"x"}]}"#);
    let members: Vec<_> = (0..20_000).map(|n| format!(r#""k{n:05}":{{"n":{n},"t":"some text"}}"#)).collect();
    let long = node(&format!("{{{}}}", members.join(",")));
    for tree in [&short, &long] {
        let mut whole = Vec::new();
        crate::data::plain(&mut whole, tree);
        for is_1_1 in [true, false] {
            for accepts_gzip in [true, false] {
                let style = Style { is_1_1, accepts_gzip, keeps_alive: true, ..Style::default() };
                let (head, body) = sent(&style, tree);
                assert_eq!(body, whole, "{head}");
                let is_long = whole.len() > PIECE_BYTES;
                assert_eq!(head.contains("chunked"), is_long && is_1_1);
                assert_eq!(head.contains("Connection: close"), is_long && !is_1_1);
                assert_eq!(head.contains("gzip"), accepts_gzip && is_long);
            }
        }
        let (head, body) = sent(&Style { is_head: true, is_1_1: true, ..Style::default() }, tree);
        assert!(head.starts_with("HTTP/1.1 200") && body.is_empty());
    }
}

#[test]
fn a_name_in_a_header_cannot_end_it() {
    let style = call("GET /a.json?download=a%22%0d%0aSet-Cookie:x%C3%A9.json HTTP/1.1").style;
    assert_eq!(style.download.as_deref(), Some("a___Set-Cookie_x_.json"));
}

#[test]
fn events_are_told_from_where_one_listens() {
    let base = Path::parse("s").unwrap();
    let text = |event: &Event, id| {
        let mut out = Vec::new();
        StreamText { event, base: &base }.write(&mut out, id);
        String::from_utf8(out).unwrap()
    };
    let set = |path: &str, value: &str| Event::Set { path: Path::parse(path).unwrap(), node: node(value) };
    assert_eq!(text(&set("s", "null"), Some("x")), "event: put\ndata: {\"path\":\"/\",\"data\":null}\nid: x\n\n");
    let lines = text(&set("s/a/b", r#""one\ntwo\r""#), None);
    assert_eq!(lines, "event: put\ndata: {\"path\":\"/a/b\",\"data\":\"one\\ntwo\\r\"}\n\n");
}

#[test]
fn a_tree_printed_in_pieces_is_the_tree() {
    let tree = node(
        r#"{"a":[null,1,[2,3],null,{"x":null,"y":[true]}],"b":{".value":1,".priority":"p"},"c":{"d":{"e":{"f":"g"}},
            ".priority":3},"0":{"1":1,"2":2},"long":"xxxxxxxxxxxxxxxxxxxx"}"#,
    );
    for form in [Form::Plain, Form::Export, Form::Shallow] {
        for is_indented in [false, true] {
            let printer = Printer::new(tree.clone(), form);
            let printer = if is_indented { printer.indented() } else { printer };
            let mut whole = Vec::new();
            assert!(printer.clone().print(&mut whole, usize::MAX / 2));
            if !is_indented && form != Form::Shallow {
                let mut expected = Vec::new();
                let write = if form == Form::Plain { crate::data::plain } else { crate::data::export };
                write(&mut expected, &tree);
                assert_eq!(whole, expected);
            }
            serde_json::from_slice::<serde_json::Value>(&whole).expect("it is JSON");
            for bytes in 1..60 {
                let (mut printer, mut pieces) = (printer.clone(), Vec::new());
                while !printer.print(&mut pieces, bytes) {}
                assert_eq!(String::from_utf8_lossy(&pieces), String::from_utf8_lossy(&whole), "{form:?} {bytes}");
            }
        }
    }
}
