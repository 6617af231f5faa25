use foreign_types::ForeignType as _;
use openssl::asn1::Asn1Time;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::ssl::{ErrorCode, Ssl, SslMethod, SslStream, SslVerifyMode};
use openssl::x509::{X509Builder, X509NameBuilder};

use super::tunnel::Pipe;
use super::*;

/// All that the SDK has, with either of its libraries.
const SDK_SUITE: &str = "ECDHE-ECDSA-AES128-CCM8:@SECLEVEL=0";

/// A key, and a certificate of its own making.
fn pair() -> (Vec<u8>, Vec<u8>) {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let key = openssl::pkey::PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
    let mut name = X509NameBuilder::new().unwrap();
    name.append_entry_by_text("CN", "Li").unwrap();
    let name = name.build();
    let mut certificate = X509Builder::new().unwrap();
    certificate.set_version(2).unwrap();
    certificate.set_subject_name(&name).unwrap();
    certificate.set_issuer_name(&name).unwrap();
    certificate.set_pubkey(&key).unwrap();
    certificate.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    certificate.set_not_after(&Asn1Time::days_from_now(1).unwrap()).unwrap();
    certificate.sign(&key, MessageDigest::sha256()).unwrap();
    (certificate.build().to_der().unwrap(), key.private_key_to_der().unwrap())
}

fn server() -> Dtls {
    let (certificate, key) = pair();
    Dtls::new(ShardId(0), &DtlsKeys::new(&[&certificate], &key).unwrap())
}

fn peer(port: u16) -> Peer {
    peer_of(Ipv4Addr::new(192, 0, 2, 1), port)
}

fn peer_of(ip: Ipv4Addr, port: u16) -> Peer {
    Peer { remote: (ip, port).into(), local: Ipv4Addr::UNSPECIFIED, sealed_at: None }
}

/// A client without a socket.
struct Client(SslStream<Pipe>);

unsafe extern "C" {
    fn SSL_set1_server_cert_type(ssl: *mut openssl_sys::SSL, kinds: *const u8, count: usize) -> std::ffi::c_int;
}

impl Client {
    fn new(suites: &str) -> Self {
        Self::with_kinds(suites, None)
    }

    /// One that takes these kinds of certificates: 0 is X.509, 2 the bare key.
    fn with_kinds(suites: &str, kinds: Option<&[u8]>) -> Self {
        let mut context = SslContext::builder(SslMethod::dtls_client()).unwrap();
        context.set_cipher_list(suites).unwrap();
        context.set_verify(SslVerifyMode::NONE);
        context.set_options(openssl::ssl::SslOptions::NO_QUERY_MTU);
        let mut ssl = Ssl::new(&context.build()).unwrap();
        ssl.set_mtu(1_400).unwrap();
        ssl.set_connect_state();
        if let Some(kinds) = kinds {
            // SAFETY: both live, and the library copies the kinds.
            let is_set = unsafe { SSL_set1_server_cert_type(ssl.as_ptr(), kinds.as_ptr(), kinds.len()) };
            assert_eq!(is_set, 1);
        }
        Self(SslStream::new(ssl, Pipe::default()).unwrap())
    }

    /// Takes a datagram; gives what it sends then.
    fn take(&mut self, datagram: &[u8]) -> Vec<Box<[u8]>> {
        self.0.get_mut().arrived = datagram.to_vec();
        if let Err(error) = self.0.do_handshake() {
            assert_eq!(error.code(), ErrorCode::WANT_READ, "{error}");
        }
        self.written()
    }

    fn written(&mut self) -> Vec<Box<[u8]>> {
        std::mem::take(&mut self.0.get_mut().written)
    }

    fn is_connected(&self) -> bool {
        self.0.ssl().is_init_finished()
    }

    fn seal(&mut self, bytes: &[u8]) -> Box<[u8]> {
        self.0.ssl_write(bytes).unwrap();
        let [sealed] = self.written().try_into().unwrap();
        sealed
    }

    fn open(&mut self, datagram: &[u8]) -> Vec<u8> {
        self.0.get_mut().arrived = datagram.to_vec();
        let mut room = [0; 2_048];
        let count = self.0.ssl_read(&mut room).unwrap_or(0);
        room[..count].to_vec()
    }
}

/// What the server says after a datagram, of what it sends to that peer.
fn tell(dtls: &mut Dtls, peer: Peer, datagram: &[u8]) -> Vec<Box<[u8]>> {
    dtls.arrive(peer, datagram);
    said(dtls, peer)
}

fn said(dtls: &mut Dtls, peer: Peer) -> Vec<Box<[u8]>> {
    let (posted, sealed) = dtls.take_posted();
    let to_peer = posted.iter().filter(|(to, _)| to.remote == peer.remote);
    to_peer.map(|(_, range)| sealed[range.clone()].into()).collect()
}

/// Goes on until nobody says anything any more.
fn converse(dtls: &mut Dtls, client: &mut Client, peer: Peer, first: Vec<Box<[u8]>>) {
    let mut to_server = first;
    while !to_server.is_empty() {
        dtls.begin(dtls.now);
        let answers: Vec<_> = to_server.iter().flat_map(|datagram| tell(dtls, peer, datagram)).collect();
        to_server = answers.iter().flat_map(|datagram| client.take(datagram)).collect();
    }
}

#[track_caller]
fn connect(dtls: &mut Dtls, peer: Peer) -> Client {
    let mut client = Client::new(SDK_SUITE);
    let hello = client.take(&[]);
    converse(dtls, &mut client, peer, hello);
    assert!(client.is_connected());
    client
}

/// The datagrams that have arrived through tunnels.
fn arrived(dtls: &mut Dtls) -> Vec<(Peer, Vec<u8>)> {
    let mut all = Vec::new();
    while dtls.advance(false) {
        let (peer, bytes) = dtls.current();
        all.push((peer, bytes.to_vec()));
    }
    all
}

#[track_caller]
fn check_alive(dtls: &mut Dtls, client: &mut Client, peer: Peer) {
    let ping = client.seal(b"ping");
    dtls.begin(dtls.now);
    tell(dtls, peer, &ping);
    let sealed_peer = Peer { sealed_at: Some(ShardId(0)), ..peer };
    assert_eq!(arrived(dtls), [(sealed_peer, b"ping".to_vec())]);
    dtls.seal(peer, b"pong");
    let [pong] = said(dtls, peer).try_into().unwrap();
    assert_eq!(client.open(&pong), b"pong");
}

/// A hello that brings the cookie which was asked for.
fn second_hello(dtls: &mut Dtls, peer: Peer) -> (Client, Box<[u8]>) {
    let mut client = Client::new(SDK_SUITE);
    let [first] = client.take(&[]).try_into().unwrap();
    let [cookie] = tell(dtls, peer, &first).try_into().unwrap();
    let [second] = client.take(&cookie).try_into().unwrap();
    (client, second)
}

#[test]
fn clients_with_each_suite_get_tunnels_that_carry_datagrams_both_ways() {
    for suites in [SDK_SUITE, "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"] {
        let mut dtls = server();
        let mut client = Client::new(suites);
        let hello = client.take(&[]);
        converse(&mut dtls, &mut client, peer(1), hello);
        assert!(client.is_connected(), "{suites}");
        check_alive(&mut dtls, &mut client, peer(1));
        assert_eq!((dtls.handshakes, dtls.hosts.len(), dtls.associations.len()), (0, 0, 1));
        // The largest that CoAP has here.
        dtls.seal(peer(1), &[7; 1_250]);
        let [large] = said(&mut dtls, peer(1)).try_into().unwrap();
        assert_eq!(client.open(&large), [7; 1_250]);
        // The SDK's buffer has 1,280 bytes.
        assert!(large.len() <= 1_280 || suites != SDK_SUITE, "{}", large.len());
    }
}

#[test]
fn who_takes_only_the_bare_key_is_shown_it_and_everybody_else_the_certificate() {
    for (kinds, has_certificate) in [(None, true), (Some(&[2][..]), false), (Some(&[2, 0]), true), (Some(&[0]), true)] {
        let mut dtls = server();
        let mut client = Client::with_kinds(SDK_SUITE, kinds);
        let hello = client.take(&[]);
        converse(&mut dtls, &mut client, peer(1), hello);
        assert!(client.is_connected(), "{kinds:?}");
        assert_eq!(client.0.ssl().peer_certificate().is_some(), has_certificate, "{kinds:?}");
        check_alive(&mut dtls, &mut client, peer(1));
    }
}

#[test]
fn weaker_suites_are_refused() {
    for suites in ["ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0", "ECDHE-ECDSA-AES128-SHA256", "aNULL:@SECLEVEL=0"] {
        let mut dtls = server();
        dtls.begin(dtls.now);
        let mut client = Client::new(suites);
        let [first] = client.take(&[]).try_into().unwrap();
        let [cookie] = tell(&mut dtls, peer(1), &first).try_into().unwrap();
        let [second] = client.take(&cookie).try_into().unwrap();
        dtls.begin(dtls.now);
        tell(&mut dtls, peer(1), &second);
        assert_eq!((dtls.handshakes, dtls.associations.len()), (0, 0), "{suites}");
    }
}

#[test]
fn nothing_is_kept_of_who_has_not_shown_that_it_receives() {
    let mut dtls = server();
    dtls.begin(dtls.now);
    let mut client = Client::new(SDK_SUITE);
    let [first] = client.take(&[]).try_into().unwrap();
    for port in 1..100 {
        let answer = tell(&mut dtls, peer(port), &first);
        assert_eq!(answer.len(), 1);
        assert!(answer[0].len() <= first.len(), "{} for {}", answer[0].len(), first.len());
    }
    let (_, second) = second_hello(&mut dtls, peer(200));
    for stranger in [peer(201), peer_of(Ipv4Addr::new(192, 0, 2, 2), 200)] {
        let answer = tell(&mut dtls, stranger, &second);
        assert!(answer.iter().map(|bytes| bytes.len()).sum::<usize>() <= second.len());
    }
    assert_eq!((dtls.associations.len(), dtls.handshakes), (0, 0));
    tell(&mut dtls, peer(200), &second);
    assert_eq!((dtls.associations.len(), dtls.handshakes), (1, 1));
}

#[test]
fn a_cookie_is_good_for_one_span_of_its_key_and_no_longer_than_two() {
    let mut dtls = server();
    let at = |seconds: u64| Instant(1_000_000 + 1_000 * seconds);
    dtls.begin(at(0));
    let (_, second) = second_hello(&mut dtls, peer(1));
    let (_, late) = second_hello(&mut dtls, peer(2));
    dtls.begin(at(61));
    tell(&mut dtls, peer(1), &second);
    assert_eq!(dtls.handshakes, 1);
    dtls.begin(at(122));
    tell(&mut dtls, peer(2), &late);
    assert_eq!(dtls.handshakes, 0, "the first is over after 30 s, the other comes too late");
}

#[test]
fn whoever_forges_an_address_ends_nobodys_tunnel() {
    let mut dtls = server();
    let mut client = connect(&mut dtls, peer(1));
    let mut stranger = Client::new(SDK_SUITE);
    let [hello] = stranger.take(&[]).try_into().unwrap();
    for forged in [&hello[..], b"", b"\x16", &[22; 100], &[23; 2_000]] {
        dtls.begin(dtls.now);
        tell(&mut dtls, peer(1), forged);
        check_alive(&mut dtls, &mut client, peer(1));
    }
}

#[test]
fn no_record_without_the_keys_ends_a_tunnel() {
    for suites in [SDK_SUITE, "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"] {
        let mut dtls = server();
        let mut client = Client::new(suites);
        let hello = client.take(&[]);
        converse(&mut dtls, &mut client, peer(1), hello);
        for (kind, epoch, length) in
            (20..27).flat_map(|kind| (0..3).flat_map(move |epoch| (0..60_u8).map(move |length| (kind, epoch, length))))
        {
            let mut forged = vec![kind, 254, 253, 0, epoch, 0, 0, 0, 0, 1, length, 0, length];
            forged.extend(std::iter::repeat_n(2, length.into()));
            dtls.begin(dtls.now);
            tell(&mut dtls, peer(1), &forged);
            assert_eq!(dtls.associations.len(), 1, "{suites}: kind {kind}, epoch {epoch}, {length} bytes");
        }
        check_alive(&mut dtls, &mut client, peer(1));
    }
}

#[test]
fn records_are_sifted_by_their_epoch_and_length() {
    let record = |epoch: u8, length: u8| {
        let mut record = vec![23, 254, 253, 0, epoch, 0, 0, 0, 0, 0, 0, 0, length];
        record.extend(std::iter::repeat_n(epoch, length.into()));
        record
    };
    let check = |records: &[(u8, u8)], behind: &[u8], takes_plain: bool, kept: &[(u8, u8)]| {
        let join = |records: &[(u8, u8)]| -> Vec<u8> { records.iter().flat_map(|(e, l)| record(*e, *l)).collect() };
        let mut out = Vec::new();
        records::sift(&[&join(records), behind].concat(), 16, takes_plain, &mut out);
        assert_eq!(out, join(kept), "{records:?}");
    };
    check(&[], b"", true, &[]);
    check(&[], b"\x17\xfe", true, &[]);
    check(&[(1, 15), (1, 16), (0, 1), (2, 200)], b"", true, &[(1, 16), (0, 1), (2, 200)]);
    check(&[(1, 15), (1, 16), (0, 1), (2, 200)], b"", false, &[(1, 16), (2, 200)]);
    check(&[(1, 20)], &record(1, 30)[..42], false, &[(1, 20)]);
}

#[test]
fn a_client_that_begins_anew_replaces_its_tunnel_once_it_has_another() {
    let mut dtls = server();
    let mut old = connect(&mut dtls, peer(1));
    let (mut new, second) = second_hello(&mut dtls, peer(1));
    dtls.begin(dtls.now);
    let flight = tell(&mut dtls, peer(1), &second);
    check_alive(&mut dtls, &mut old, peer(1));
    assert!(tell(&mut dtls, peer(1), &second).is_empty(), "the same hello begins nothing new");
    let rest: Vec<_> = flight.iter().flat_map(|datagram| new.take(datagram)).collect();
    converse(&mut dtls, &mut new, peer(1), rest);
    assert!(new.is_connected());
    check_alive(&mut dtls, &mut new, peer(1));
    tell(&mut dtls, peer(1), &old.seal(b"old"));
    assert_eq!(arrived(&mut dtls), []);
    assert_eq!((dtls.associations.len(), dtls.handshakes), (1, 0));
}

#[test]
fn what_comes_again_is_opened_once() {
    let mut dtls = server();
    let mut client = connect(&mut dtls, peer(1));
    let (first, second) = (client.seal(b"first"), client.seal(b"second"));
    for datagram in [&second, &first, &second, &first] {
        tell(&mut dtls, peer(1), datagram);
    }
    let opened: Vec<Vec<u8>> = arrived(&mut dtls).into_iter().map(|(_, bytes)| bytes).collect();
    assert_eq!(opened, [b"second".to_vec(), b"first".to_vec()]);
    let mut changed = client.seal(b"third");
    *changed.last_mut().unwrap() ^= 1;
    tell(&mut dtls, peer(1), &changed);
    assert_eq!(arrived(&mut dtls), []);
    check_alive(&mut dtls, &mut client, peer(1));
}

#[test]
fn handshakes_cost_a_few_steps_a_turn_while_tunnels_are_served() {
    let mut dtls = server();
    let mut client = connect(&mut dtls, peer(1));
    dtls.begin(dtls.now);
    let mut crowd = Vec::new();
    for port in 100..140 {
        dtls.begin(dtls.now);
        crowd.push((peer(port), second_hello(&mut dtls, peer(port)).1));
    }
    dtls.begin(dtls.now);
    for (peer, hello) in &crowd {
        dtls.arrive(*peer, hello);
    }
    assert_eq!(dtls.handshakes, STEPS_PER_TURN);
    dtls.arrive(peer(1), &client.seal(b"ping"));
    assert!(dtls.advance(false), "whoever has a tunnel does not wait");
    assert_eq!(dtls.current().1, b"ping");
    for turn in 2..=5 {
        assert!(dtls.has_work(false));
        dtls.begin(dtls.now);
        assert!(!dtls.advance(false));
        assert_eq!(dtls.handshakes, turn * STEPS_PER_TURN);
    }
    said(&mut dtls, peer(1));
    assert!(!dtls.has_work(false));
    // What goes on with a handshake counts as what begins one.
    dtls.begin(dtls.now);
    for (peer, _) in &crowd {
        dtls.arrive(*peer, &[22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 0]);
    }
    assert_eq!(dtls.waiting.len(), crowd.len() - STEPS_PER_TURN);
}

#[test]
fn handshakes_have_limits_and_an_end() {
    let mut dtls = server();
    dtls.begin(Instant(1_000_000));
    let begin = |dtls: &mut Dtls, peer| {
        dtls.begin(dtls.now);
        let (_, hello) = second_hello(dtls, peer);
        tell(dtls, peer, &hello);
    };
    for port in 0..300 {
        begin(&mut dtls, peer(1_000 + port));
    }
    assert_eq!(dtls.handshakes, HANDSHAKES_PER_HOST_MAX as usize);
    begin(&mut dtls, peer_of(Ipv4Addr::new(192, 0, 2, 2), 1));
    assert_eq!(dtls.handshakes, HANDSHAKES_PER_HOST_MAX as usize + 1, "others are not affected");
    for host in 3..=10 {
        for port in 1..=HANDSHAKES_PER_HOST_MAX as u16 {
            begin(&mut dtls, peer_of(Ipv4Addr::new(192, 0, 2, host), port));
        }
    }
    assert_eq!((dtls.handshakes, dtls.associations.len()), (HANDSHAKES_MAX, HANDSHAKES_MAX));
    assert!(!dtls.associations.contains_key(&(peer(1_000).remote, Ipv4Addr::UNSPECIFIED)), "the oldest gives way");
    let mut client = Client::new(SDK_SUITE);
    let hello = client.take(&[]);
    converse(&mut dtls, &mut client, peer_of(Ipv4Addr::new(192, 0, 2, 99), 1), hello);
    assert!(client.is_connected());
    for _ in 0..40 {
        dtls.begin(dtls.next_wake().unwrap());
        dtls.take_posted();
    }
    assert_eq!((dtls.handshakes, dtls.hosts.len(), dtls.associations.len()), (0, 0, 1));
    assert!(dtls.handshake_visits.is_empty());
    let quiet = dtls.now + SILENCE_MAX + TUNNEL_VISIT;
    while dtls.next_wake().is_some_and(|due| due <= quiet) {
        dtls.begin(dtls.next_wake().unwrap());
    }
    assert_eq!((dtls.associations.len(), dtls.tunnel_visits.len()), (0, 0), "nobody is kept for ever");
}

#[test]
fn a_flight_that_was_lost_is_sent_again() {
    let mut dtls = server();
    let (mut client, second) = second_hello_at(&mut dtls, peer(1));
    assert!(!tell(&mut dtls, peer(1), &second).is_empty(), "this one is lost");
    // The library has a clock of its own.
    let again = (0..600).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        let wake = dtls.next_wake().unwrap().max(dtls.now);
        if wake.since(Instant(0)).0 < 29_000 {
            dtls.begin(wake);
        }
        Some(said(&mut dtls, peer(1))).filter(|flight| !flight.is_empty())
    });
    let rest: Vec<_> = again.unwrap().iter().flat_map(|datagram| client.take(datagram)).collect();
    converse(&mut dtls, &mut client, peer(1), rest);
    assert!(client.is_connected());
}

fn second_hello_at(dtls: &mut Dtls, peer: Peer) -> (Client, Box<[u8]>) {
    dtls.begin(dtls.now);
    second_hello(dtls, peer)
}

#[test]
fn a_farewell_ends_the_tunnel() {
    let mut dtls = server();
    let mut client = connect(&mut dtls, peer(1));
    client.0.shutdown().unwrap();
    let [farewell] = client.written().try_into().unwrap();
    assert_eq!(tell(&mut dtls, peer(1), &farewell).len(), 1, "it is answered");
    assert_eq!(dtls.associations.len(), 0);
    dtls.seal(peer(1), b"too late");
    assert!(said(&mut dtls, peer(1)).is_empty());
}

/// Whatever one peer sends, others keep their tunnels and get new ones.
#[test]
fn garbage_at_every_stage_harms_nobody_else() {
    let mut dtls = server();
    let mut bystander = connect(&mut dtls, peer(1));
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random >> 33).unwrap()
    };
    for round in 0..400_u16 {
        let bad = peer(1_000 + round);
        dtls.begin(dtls.now);
        let (mut client, second) = second_hello(&mut dtls, bad);
        let mut stages = vec![second];
        dtls.begin(dtls.now);
        let flight = tell(&mut dtls, bad, &stages[0]);
        stages.extend(flight.iter().flat_map(|datagram| client.take(datagram)).collect::<Vec<_>>());
        for stage in &stages {
            let mut datagram = stage.to_vec();
            for _ in 0..next() % 4 {
                let at = next() % datagram.len();
                match next() % 4 {
                    0 => datagram[at] = u8::try_from(next() % 256).unwrap(),
                    1 => datagram.truncate(at.max(1)),
                    2 => datagram.extend_from_within(at..),
                    _ => drop(datagram.splice(at..at, [0xff, 0xff])),
                }
            }
            dtls.begin(dtls.now);
            tell(&mut dtls, bad, &datagram);
        }
        if round % 40 == 0 {
            check_alive(&mut dtls, &mut bystander, peer(1));
            connect(&mut dtls, peer(2_000 + round));
        }
        arrived(&mut dtls);
    }
    check_alive(&mut dtls, &mut bystander, peer(1));
}
