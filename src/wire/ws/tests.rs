use super::*;

/// What frames came, in words.
fn render(frame: &Frame<'_>) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match frame {
        Frame::Text(payload) => format!("text {}", text(payload)),
        Frame::Binary(payload) => format!("binary {payload:x?}"),
        Frame::Ping(payload) => format!("ping {}", text(payload)),
        Frame::Pong(payload) => format!("pong {}", text(payload)),
        Frame::Close { code, reason } => format!("close {code} {reason}"),
    }
}

/// Reads `pieces` one after the other; the violation, if there is one, comes last.
fn read_pieces<'p>(mut reader: Reader, pieces: impl IntoIterator<Item = &'p [u8]>) -> Vec<String> {
    let mut seen = Vec::new();
    for piece in pieces {
        let mut bytes = piece.to_vec();
        let mut input = Input::new(&mut bytes);
        loop {
            match reader.next(&mut input) {
                Ok(Some(frame)) => seen.push(render(&frame)),
                Ok(None) => break,
                Err(violation) => {
                    seen.push(format!("{violation:?}"));
                    return seen;
                }
            }
        }
        assert!(input.is_empty(), "all is taken");
    }
    assert_eq!(reader.is_inside(), reader.pending.is_some(), "nothing is kept between two frames");
    seen
}

/// Reads `bytes` whole, cut in two at every place, and byte by byte.
#[track_caller]
fn check_role(role: Role, bytes: &[u8], expected: &[&str]) {
    let reader = || Reader { role, pending: None };
    assert_eq!(read_pieces(reader(), [bytes]), expected, "whole: {bytes:x?}");
    for at in 0..=bytes.len().min(300) {
        let (a, b) = bytes.split_at(at);
        assert_eq!(read_pieces(reader(), [a, b]), expected, "cut at {at}: {bytes:x?}");
    }
    if bytes.len() < 100_000 {
        assert_eq!(read_pieces(reader(), bytes.chunks(1)), expected, "byte by byte: {bytes:x?}");
    }
}

/// A server's frames, and the same frames masked as a client's.
#[track_caller]
fn check(bytes: &[u8], expected: &[&str]) {
    check_role(Role::Client, bytes, expected);
}

fn masked(frames: &[(u8, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (first, payload) in frames {
        let start = out.len();
        write_masked(&mut out, Kind::Text, payload, [0x37, 0xfa, 0x21, 0x3d]);
        out[start] = *first;
    }
    out
}

#[test]
fn the_examples_of_the_rfc_are_read() {
    // RFC 6455 section 5.7.
    check(&[0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f], &["text Hello"]);
    let hello_masked = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    check_role(Role::Server, &hello_masked, &["text Hello"]);
    check(&[0x01, 0x03, 0x48, 0x65, 0x6c, 0x80, 0x02, 0x6c, 0x6f], &["text Hello"]);
    check(&[0x89, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f], &["ping Hello"]);
    let pong_masked = [0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    check_role(Role::Server, &pong_masked, &["pong Hello"]);
    let long = |bytes: usize, head: &[u8]| {
        let frame = [head, &vec![0xfe; bytes]].concat();
        check(&frame, &[&format!("binary {:x?}", vec![0xfe_u8; bytes])]);
    };
    long(256, &[0x82, 0x7e, 0x01, 0x00]);
    long(65_536, &[0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]);
}

#[test]
fn fragments_are_joined_around_control_frames() {
    let bytes = masked(&[(0x01, "é".as_bytes()), (0x89, b"p"), (0x00, b""), (0x8a, b""), (0x80, b"x"), (0x81, b"y")]);
    check_role(Role::Server, &bytes, &["ping p", "pong ", "text éx", "text y"]);
    // A character may be cut in two; only the message must be whole.
    let bytes = masked(&[(0x01, &[0xc3]), (0x80, &[0xa9])]);
    check_role(Role::Server, &bytes, &["text é"]);
    let bytes = masked(&[(0x02, &[1]), (0x88, &[0x03, 0xe8, b'b', b'y', b'e'])]);
    check_role(Role::Server, &bytes, &["close 1000 bye"]);
}

#[test]
fn what_the_rfc_forbids_is_refused() {
    for first in [0xc1, 0xa1, 0x91, 0xf1] {
        check(&[first, 0], &["ReservedBits"]);
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        check(&[0x80 | opcode, 0], &["Opcode"]);
    }
    check_role(Role::Server, &[0x81, 0x01, b'x'], &["Unmasked"]);
    check(&[0x81, 0x81, 0, 0, 0, 0, b'x'], &["Masked"]);
    check(&[0x81, 126, 0, 125], &["Length"]);
    check(&[0x81, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff], &["Length"]);
    check(&[0x81, 127, 0x80, 0, 0, 0, 0, 0, 0, 0], &["Length"]);
    check(&[0x09, 0], &["Control"]);
    check(&[0x89, 126, 0, 126], &["Control"]);
    check(&[0x80, 0], &["Fragment"]);
    check(&[0x01, 0, 0x81, 0], &["Fragment"]);
    check(&[0x81, 0, 0x00, 0], &["text ", "Fragment"]);
    check(&[0x88, 1, 3], &["CloseCode"]);
    check(&[0x81, 2, 0xc3, 0x28], &["NotUtf8"]);
    check(&[0x88, 3, 3, 0xe8, 0xff], &["NotUtf8"]);
}

#[test]
fn close_codes_are_checked() {
    check(&[0x88, 0], &["close 1005 "]);
    for code in 0..=5_100_u16 {
        let [high, low] = code.to_be_bytes();
        let is_good = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
        let expected = if is_good { format!("close {code} ") } else { "CloseCode".to_owned() };
        assert_eq!(read_pieces(Reader::for_client(), [&[0x88, 2, high, low][..]]), [expected]);
    }
}

#[test]
fn what_is_too_big_is_refused_at_its_head() {
    let announce = |bytes: u64| [&[0x81, 127][..], &bytes.to_be_bytes()].concat();
    check(&announce(FRAME_BYTES_MAX as u64 + 1), &["TooBig"]);
    check(&announce((1 << 63) - 1), &["TooBig"]);
    // The head that only just fits makes no room for what has not come.
    let mut reader = Reader::for_client();
    let mut bytes = [&announce(FRAME_BYTES_MAX as u64)[..], b"abc"].concat();
    assert_eq!(reader.next(&mut Input::new(&mut bytes)), Ok(None));
    assert!(reader.pending.as_ref().unwrap().message.capacity() < 100);
    // Fragments count together.
    let mut reader = Reader::for_client();
    let mut bytes = [&[0x01, 3][..], b"abc", &[0x80, 127], &(MESSAGE_BYTES_MAX as u64 - 2).to_be_bytes()].concat();
    assert_eq!(reader.next(&mut Input::new(&mut bytes)), Err(Violation::TooBig));
}

#[test]
fn the_room_of_a_long_message_does_not_outgrow_it() {
    let mut reader = Reader::for_client();
    let payload = vec![b'x'; 1_000_000];
    let mut frame = Vec::new();
    write(&mut frame, Kind::Text, &payload);
    let (last, rest) = frame.split_last_mut().unwrap();
    for piece in rest.chunks_mut(1_460) {
        assert_eq!(reader.next(&mut Input::new(piece)), Ok(None));
        let pending = reader.pending.as_ref().unwrap();
        assert!(pending.message.capacity() <= 2 * pending.message.len() + 1_460);
        assert!(pending.message.capacity() <= payload.len());
    }
    let mut last = [*last];
    let mut input = Input::new(&mut last);
    assert!(matches!(reader.next(&mut input), Ok(Some(Frame::Text(text))) if *text == payload));
    assert_eq!(reader.next(&mut input), Ok(None));
    assert!(reader.pending.is_none());
}

#[test]
fn what_is_written_is_read() {
    for bytes in [0, 1, 7, 8, 9, 125, 126, 127, 65_535, 65_536, 70_000] {
        let payload = "x".repeat(bytes);
        let mut out = Vec::new();
        write(&mut out, Kind::Text, payload.as_bytes());
        assert_eq!(*text_head(bytes), out[..out.len() - bytes]);
        assert_eq!(read_pieces(Reader::for_client(), [&out[..]]), [format!("text {payload}")]);
        let mut out = Vec::new();
        write_masked(&mut out, Kind::Text, payload.as_bytes(), [1, 2, 3, 4]);
        assert_eq!(read_pieces(Reader::for_server(), [&out[..]]), [format!("text {payload}")]);
    }
    let mut out = Vec::new();
    write(&mut out, Kind::Ping, b"a");
    write(&mut out, Kind::Pong, b"b");
    write(&mut out, Kind::Binary, &[1]);
    write_close(&mut out, close_code::NONE, "");
    check(&out, &["ping a", "pong b", "binary [1]", "close 1005 "]);
}

#[test]
fn a_long_reason_is_cut_between_characters() {
    let mut out = Vec::new();
    write_close(&mut out, close_code::POLICY, &"é".repeat(100));
    check(&out, &[&format!("close 1008 {}", "é".repeat(61))]);
    let mut out = Vec::new();
    write_close_masked(&mut out, close_code::NORMAL, "bye", [9, 8, 7, 6]);
    check_role(Role::Server, &out, &["close 1000 bye"]);
}

#[test]
fn masks_are_applied_wherever_a_piece_begins() {
    let mask = [0x11, 0x22, 0x44, 0x88];
    let expected: Vec<u8> = (0..64).map(|at| mask[at % 4]).collect();
    for from in 0..40 {
        for to in from..64 {
            let mut piece = vec![0; to - from];
            unmask(&mut piece, mask, from);
            assert_eq!(piece, expected[from..to]);
        }
    }
}
