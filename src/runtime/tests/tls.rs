//! Connections that speak TLS, beside those that do not.

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};

use super::*;

type Secure = StreamOwned<ClientConnection, TcpStream>;

fn certificate(pem: &[u8]) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem).unwrap()
}

fn first() -> CertificateDer<'static> {
    certificate(include_bytes!("../../../tests/vectors/tls/first.pem"))
}

fn second() -> CertificateDer<'static> {
    certificate(include_bytes!("../../../tests/vectors/tls/second.pem"))
}

fn server_config(certificate: CertificateDer<'static>, key: &[u8]) -> Arc<ServerConfig> {
    let key = PrivateKeyDer::from_pem_slice(key).unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    Arc::new(builder.with_single_cert(vec![certificate], key).unwrap())
}

fn client_config() -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate(include_bytes!("../../../tests/vectors/tls/authority.pem"))).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

fn secure_plan() -> Plan {
    let key = include_bytes!("../../../tests/vectors/tls/first.key");
    Plan { tls: Some(server_config(first(), key)), ..plan(1) }
}

/// A client that has not yet shaken hands.
fn secure(server: &Server) -> Secure {
    let name = ServerName::try_from("localhost").unwrap();
    StreamOwned::new(ClientConnection::new(client_config(), name).unwrap(), server.client())
}

/// Says `text` and hears it again.
#[track_caller]
fn check_echo(stream: &mut (impl Read + Write), text: &[u8]) {
    stream.write_all(text).unwrap();
    stream.flush().unwrap();
    let mut heard = vec![0; text.len()];
    stream.read_exact(&mut heard).unwrap();
    assert!(heard == text);
}

#[test]
fn both_kinds_of_connections_are_served_at_one_address() {
    let (server, told) = serve(secure_plan(), echo);
    let (mut secure, mut plain) = (secure(&server), server.client());
    let long: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    for text in [b"GET /".as_slice(), b"x", &long[..65_537]] {
        check_echo(&mut secure, text);
        check_echo(&mut plain, text);
    }
    // More than the sockets hold, while the other side does not read.
    let mut writer = secure.sock.try_clone().unwrap();
    let writing = std::thread::spawn({
        let long = long.clone();
        move || plain.write_all(&long).map(|()| plain)
    });
    check_echo(&mut secure, &long[..500_000]);
    let mut heard = vec![0; long.len()];
    writing.join().unwrap().unwrap().read_exact(&mut heard).unwrap();
    assert!(heard == long);
    // It began with the byte of a handshake, and was told so before anything else.
    let secrets: Vec<ConnId> = told
        .try_iter()
        .filter_map(|what| match what {
            Told::Encrypted(conn) => Some(conn),
            _ => None,
        })
        .collect();
    assert_eq!(secrets.len(), 1, "once, and of one of them");
    writer.flush().unwrap();
}

#[test]
fn an_encrypted_connection_is_known_as_such_before_its_first_bytes() {
    let (server, told) = serve(secure_plan(), echo);
    check_echo(&mut secure(&server), b"hello");
    let conn = ConnId(0);
    let expected = [Told::Opened(conn), Told::Encrypted(conn), Told::Bytes(conn, b"hello".to_vec())];
    let seen: Vec<Told> = told.try_iter().take(3).collect();
    assert_eq!(seen, expected);
}

#[test]
fn without_a_certificate_nothing_is_taken_for_a_handshake() {
    let (server, _told) = serve(plan(1), echo);
    check_echo(&mut server.client(), &[22, 3, 1, 0, 5, 1, 2, 3]);
}

#[test]
fn a_crowd_shakes_hands_a_few_in_a_turn_and_all_in_the_end() {
    let (server, _told) = serve(secure_plan(), echo);
    let mut crowd: Vec<Secure> = (0..60).map(|_| secure(&server)).collect();
    // All hellos are there before anybody waits for an answer.
    for stream in &mut crowd {
        stream.conn.write_tls(&mut stream.sock).unwrap();
    }
    for stream in &mut crowd {
        check_echo(stream, b"here");
    }
}

#[test]
fn what_is_no_handshake_is_closed_once_and_hurts_nobody() {
    let (server, told) = serve(secure_plan(), echo);
    let mut good = secure(&server);
    check_echo(&mut good, b"1");
    for bad in [b"\x16GET / HTTP/1.1\r\n\r\n".as_slice(), &[22; 100], &[22, 3, 1, 0, 1, 1, 23, 3, 3, 0, 1, 0]] {
        let mut stream = server.client();
        stream.write_all(bad).unwrap();
        let mut alert = Vec::new();
        stream.read_to_end(&mut alert).unwrap();
        assert_eq!(alert.first(), Some(&21), "it is told why");
        drop(stream);
        let how = await_told(&told, |what| if let Told::Closed(_, how) = what { Some(*how) } else { None });
        assert_eq!(how, Hangup::Ours);
    }
    // What somebody changes on the way.
    good.sock.write_all(&[23, 3, 3, 0, 20, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7]).unwrap();
    await_told(&told, |what| matches!(what, Told::Closed(..)).then_some(()));
    check_echo(&mut secure(&server), b"2");
}

#[test]
fn both_sides_say_farewell() {
    let (server, told) = serve(secure_plan(), |_, _, input, output| {
        if let Input::Bytes { conn, bytes } = input {
            reply(output, *conn, bytes);
            if bytes.ends_with(b"close") {
                output.effects.push(Effect::Close { conn: *conn });
            }
        }
    });
    let mut ours = secure(&server);
    ours.write_all(b"please close").unwrap();
    let mut heard = Vec::new();
    // Without a farewell this would be an error: somebody may have cut the rest.
    ours.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"please close");
    drop(ours);
    await_told(&told, |what| matches!(what, Told::Closed(_, Hangup::Ours)).then_some(()));
}

#[test]
fn what_was_asked_before_the_end_is_answered() {
    const TICKS: u32 = 8;
    // Who says `wait` is not read until some ticks later: then its last words and its end are known to have
    // come, and are taken in one turn.
    let mut ticks = 0;
    let (server, told) = serve(secure_plan(), move |_, _, input, output| match input {
        Input::Bytes { conn, bytes } => {
            reply(output, *conn, bytes);
            if bytes.ends_with(b"wait") {
                output.effects.push(Effect::Read { conn: *conn, is_wanted: false });
            }
        }
        Input::Tick => {
            ticks += 1;
            if ticks == TICKS {
                output.effects.push(Effect::Read { conn: ConnId(0), is_wanted: true });
            }
        }
        _ => {}
    });
    let mut stream = secure(&server);
    check_echo(&mut stream, b"wait");
    stream.write_all(b"last").unwrap();
    stream.conn.send_close_notify();
    stream.flush().unwrap();
    stream.sock.shutdown(Shutdown::Write).unwrap();
    for _ in 0..TICKS {
        server.tell(Input::Tick);
        await_told(&told, |what| matches!(what, Told::Tick(_)).then_some(()));
    }
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"last");
    await_told(&told, |what| matches!(what, Told::Closed(_, Hangup::Finished)).then_some(()));
}

#[test]
fn a_long_answer_arrives_whole() {
    let long: Vec<u8> = (0..500_000_u32).flat_map(u32::to_le_bytes).collect();
    let answer = long.clone();
    let (server, _told) = serve(secure_plan(), move |_, _, input, output| {
        if let Input::Bytes { conn, .. } = input {
            reply(output, *conn, &answer);
        }
    });
    let mut stream = secure(&server);
    stream.write_all(b"?").unwrap();
    let mut heard = vec![0; long.len()];
    stream.read_exact(&mut heard).unwrap();
    assert!(heard == long);
}

#[test]
fn a_new_certificate_is_for_new_connections() {
    let (server, _told) = serve(secure_plan(), echo);
    let mut old = secure(&server);
    check_echo(&mut old, b"1");
    assert_eq!(old.conn.peer_certificates().unwrap()[0], first());
    let key = include_bytes!("../../../tests/vectors/tls/second.key");
    server.running().remote().certify(&server_config(second(), key));
    // The command is handled before what comes after it.
    server.tell(Input::Tick);
    let is_new = (0..1_000).any(|_| {
        let mut stream = secure(&server);
        check_echo(&mut stream, b"2");
        stream.conn.peer_certificates().unwrap()[0] == second()
    });
    assert!(is_new);
    check_echo(&mut old, b"3");
}

#[test]
fn who_is_not_read_while_it_waits_is_read_again() {
    // The engine pauses whoever speaks, and goes on with everybody at a tick.
    let (server, told) = serve(secure_plan(), |_, _, input, output| match input {
        Input::Bytes { conn, bytes } => {
            reply(output, *conn, bytes);
            output.effects.push(Effect::Read { conn: *conn, is_wanted: false });
        }
        Input::Tick => output.effects.extend((0..4).map(|n| Effect::Read { conn: ConnId(n), is_wanted: true })),
        _ => {}
    });
    let mut stream = secure(&server);
    check_echo(&mut stream, b"1");
    stream.write_all(b"2").unwrap();
    stream.flush().unwrap();
    stream.sock.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(stream.read(&mut [0]).is_err(), "it is not read");
    server.tell(Input::Tick);
    stream.sock.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut heard = [0];
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"2");
    drop(told);
}
