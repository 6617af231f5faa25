//! Real loopback sockets against cores that are simpler than an engine.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "clients are plain threads with plain sockets and their own clock"
)]

mod faults;

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant as Clock;

use super::net::Net;
use super::*;
use crate::base::{ConnId, Instant, Now};
use crate::engine::{Effect, Hangup};

/// Longer than anything here takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(30);

/// A core made of a closure.
struct Act<F> {
    act: F,
    timing: Timing,
}

#[derive(Default)]
struct Timing {
    wake: Option<Instant>,
    is_busy: bool,
}

impl<F: FnMut(&mut Timing, Now, Input<'_>, &mut Output)> Core for Act<F> {
    fn handle(&mut self, now: Now, input: Input<'_>, output: &mut Output) {
        (self.act)(&mut self.timing, now, input, output);
    }

    fn next_wake(&self) -> Option<Instant> {
        self.timing.wake
    }

    fn is_busy(&self) -> bool {
        self.timing.is_busy
    }
}

/// What a core was told, for the test to see.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Opened(ConnId),
    Encrypted(ConnId),
    Bytes(ConnId, Vec<u8>),
    Closed(ConnId, Hangup),
    Backlog(ConnId, usize),
    Forwarded(usize),
    Tick(Instant),
    Drain,
}

impl Told {
    fn of(now: Now, input: &mut Input<'_>) -> Self {
        match input {
            Input::Opened { conn, peer } => {
                assert!(peer.ip().is_loopback() && peer.port() != 0, "{peer}");
                Self::Opened(*conn)
            }
            Input::Encrypted { conn } => Self::Encrypted(*conn),
            Input::Bytes { conn, bytes } => Self::Bytes(*conn, bytes.to_vec()),
            Input::Closed { conn, how } => Self::Closed(*conn, *how),
            Input::Backlog { conn, bytes } => Self::Backlog(*conn, *bytes),
            Input::Forwarded { messages } => Self::Forwarded(messages.drain(..).count()),
            Input::Tick => Self::Tick(now.instant),
            Input::Drain => Self::Drain,
            other => panic!("{other:?} is for engines"),
        }
    }
}

/// Ends the server with the test.
struct Server(Option<Running>);

impl Server {
    fn address(&self) -> SocketAddr {
        self.running().local_addr()
    }

    fn running(&self) -> &Running {
        self.0.as_ref().expect("it runs until it is dropped")
    }

    fn client(&self) -> TcpStream {
        client(self.address())
    }

    fn tell(&self, input: Input<'static>) {
        self.running().remote().tell(ShardId(0), input);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let running = self.0.take().expect("dropped once");
        running.request_drain();
        running.join();
    }
}

fn plan(shards: u8) -> Plan {
    Plan { drain_max: Millis(200), ..Plan::new(shards, "127.0.0.1:0".parse().unwrap()) }
}

/// Serves with what `act` does, and tells the test what it is told.
fn serve<F>(plan: Plan, act: F) -> (Server, Receiver<Told>)
where
    F: FnMut(&mut Timing, Now, &Input<'_>, &mut Output) + Clone + Send + 'static,
{
    let (tell, told) = channel();
    let running = start(plan, move |_| {
        let (mut act, tell) = (act.clone(), tell.clone());
        let mut is_open: HashMap<ConnId, bool> = HashMap::new();
        let act = move |timing: &mut Timing, now: Now, mut input: Input<'_>, output: &mut Output| {
            let what = Told::of(now, &mut input);
            match &what {
                Told::Opened(conn) => assert_eq!(is_open.insert(*conn, true), None, "opened twice"),
                Told::Closed(conn, _) => assert_eq!(is_open.remove(conn), Some(true), "closed, not open"),
                Told::Encrypted(conn) | Told::Bytes(conn, _) | Told::Backlog(conn, _) => {
                    assert!(is_open.contains_key(conn), "{what:?}");
                }
                Told::Forwarded(_) | Told::Tick(_) | Told::Drain => {}
            }
            let is_drain = what == Told::Drain;
            let _seen_or_not = tell.send(what);
            act(timing, now, &input, output);
            if is_drain {
                output.effects.push(Effect::Drained);
            }
        };
        Act { act, timing: Timing::default() }
    });
    (Server(Some(running.unwrap())), told)
}

fn echo(_: &mut Timing, _: Now, input: &Input<'_>, output: &mut Output) {
    if let Input::Bytes { conn, bytes } = input {
        reply(output, *conn, bytes);
    }
}

fn reply(output: &mut Output, conn: ConnId, text: &[u8]) {
    let from = output.bytes.len();
    output.bytes.extend_from_slice(text);
    output.effects.push(Effect::Send { conn, bytes: from..output.bytes.len() });
}

fn client(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[track_caller]
fn ask(stream: &mut TcpStream, text: &[u8]) {
    stream.write_all(text).unwrap();
    expect(stream, text);
}

#[track_caller]
fn expect(stream: &mut TcpStream, text: &[u8]) {
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer).unwrap();
    assert!(answer == text, "{:?}", String::from_utf8_lossy(&answer[..answer.len().min(80)]));
}

/// The first thing told for which `pick` gives something.
#[track_caller]
fn await_told<T>(told: &Receiver<Told>, mut pick: impl FnMut(&Told) -> Option<T>) -> T {
    let until = Clock::now() + PATIENCE;
    loop {
        let what = told.recv_timeout(until.saturating_duration_since(Clock::now())).expect("told in time");
        if let Some(found) = pick(&what) {
            return found;
        }
    }
}

fn pattern(count: usize) -> Vec<u8> {
    (0..count).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 13) as u8).collect()
}

#[test]
fn many_connections_are_served_by_any_number_of_shards() {
    for shards in [1, 2, 5] {
        let (server, _told) = serve(plan(shards), echo);
        let mut streams: Vec<TcpStream> = (0..200).map(|_| server.client()).collect();
        for round in 0..3 {
            for (i, stream) in streams.iter_mut().enumerate() {
                stream.write_all(format!("{round}/{i}.").as_bytes()).unwrap();
            }
            for (i, stream) in streams.iter_mut().enumerate() {
                expect(stream, format!("{round}/{i}.").as_bytes());
            }
        }
    }
}

#[test]
fn a_storm_of_connections_is_accepted() {
    let (server, told) = serve(plan(2), echo);
    let address = server.address();
    let storms: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(move || {
                let mut streams: Vec<TcpStream> = (0..400).map(|_| client(address)).collect();
                streams.iter_mut().for_each(|stream| ask(stream, b"here"));
            })
        })
        .collect();
    storms.into_iter().for_each(|storm| storm.join().unwrap());
    let mut closed = 0;
    await_told(&told, |what| {
        closed += usize::from(matches!(what, Told::Closed(..)));
        (closed == 1_600).then_some(())
    });
}

#[test]
fn a_large_payload_survives_a_slow_reader() {
    let (server, told) = serve(plan(1), echo);
    let mut stream = server.client();
    let bytes = pattern(24 << 20);
    let mut writer = stream.try_clone().unwrap();
    let sent = bytes.clone();
    let writing = std::thread::spawn(move || writer.write_all(&sent).unwrap());
    // Nothing is read before the echo has come to a halt for want of room.
    await_told(&told, |what| matches!(what, Told::Backlog(_, 8_000_000..)).then_some(()));
    let mut answer = vec![0; bytes.len()];
    stream.read_exact(&mut answer).unwrap();
    assert!(answer == bytes, "the bytes are the same");
    writing.join().unwrap();
    await_told(&told, |what| matches!(what, Told::Backlog(_, 0)).then_some(()));
    // And nothing is left over.
    ask(&mut stream, b"still here");
}

#[test]
fn a_turn_s_ranges_for_one_connection_arrive_in_order() {
    let (server, _told) = serve(plan(1), |_, _, input, output| {
        if let Input::Bytes { conn, bytes } = input {
            // Ranges that do not touch each other, more than one call takes.
            for i in 0..300_u32 {
                output.bytes.extend_from_slice(b"gap");
                reply(output, *conn, format!("{i},").as_bytes());
                reply(output, *conn, bytes);
            }
        }
    });
    let mut stream = server.client();
    stream.write_all(b"x").unwrap();
    let expected: String = (0..300).map(|i| format!("{i},x")).collect();
    expect(&mut stream, expected.as_bytes());
}

#[test]
fn a_paused_connection_is_not_read_and_loses_nothing() {
    let mut last = ConnId(0);
    let (server, told) = serve(plan(1), move |_, _, input, output| match input {
        Input::Bytes { conn, bytes } if bytes == b"pause" => {
            last = *conn;
            output.effects.push(Effect::Read { conn: *conn, is_wanted: false });
        }
        Input::Bytes { conn, bytes } => reply(output, *conn, bytes),
        Input::Tick => output.effects.push(Effect::Read { conn: last, is_wanted: true }),
        _ => {}
    });
    let mut paused = server.client();
    paused.write_all(b"pause").unwrap();
    await_told(&told, |what| matches!(what, Told::Bytes(..)).then_some(()));
    paused.write_all(b"after").unwrap();
    paused.shutdown(Shutdown::Write).unwrap();
    let mut other = server.client();
    for _ in 0..20 {
        ask(&mut other, b"others go on");
    }
    let seen: Vec<Told> = told.try_iter().collect();
    let is_about_other = |what: &Told| match what {
        Told::Bytes(_, bytes) => bytes == b"others go on",
        Told::Opened(_) => true,
        _ => false,
    };
    assert!(seen.iter().all(is_about_other), "{seen:?}");
    server.tell(Input::Tick);
    expect(&mut paused, b"after");
    await_told(&told, |what| matches!(what, Told::Closed(_, Hangup::Finished)).then_some(()));
}

#[test]
fn a_closed_connection_gets_everything_first() {
    let (server, told) = serve(plan(1), |_, _, input, output| {
        if let Input::Bytes { conn, bytes } = input
            && bytes.starts_with(b"last")
        {
            reply(output, *conn, &pattern(6 << 20));
            output.effects.push(Effect::Close { conn: *conn });
        }
    });
    let mut stream = server.client();
    stream.write_all(b"last").unwrap();
    await_told(&told, |what| matches!(what, Told::Bytes(..)).then_some(()));
    // Unread bytes would turn the close into a reset that overtakes the answer.
    stream.write_all(&pattern(100_000)).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer == pattern(6 << 20), "{} bytes", answer.len());
    drop(stream);
    let how = await_told(&told, |what| match what {
        Told::Closed(_, how) => Some(*how),
        Told::Bytes(..) => panic!("read after the close"),
        _ => None,
    });
    assert_eq!(how, Hangup::Ours);
}

#[test]
fn a_peer_that_does_not_close_is_closed() {
    let (server, told) = serve(plan(1), |_, _, input, output| {
        if let Input::Bytes { conn, .. } = input {
            output.effects.push(Effect::Close { conn: *conn });
        }
    });
    let mut stream = server.client();
    stream.write_all(b"x").unwrap();
    assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap(), 0, "the peer hears of it at once");
    let before = Clock::now();
    await_told(&told, |what| matches!(what, Told::Closed(_, Hangup::Ours)).then_some(()));
    assert!(before.elapsed() < Duration::from_secs(20), "and its patience is not asked for long");
}

#[test]
fn an_answer_reaches_a_peer_that_has_finished_sending() {
    let (server, told) = serve(plan(1), |_, _, input, output| {
        if let Input::Bytes { conn, .. } = input {
            reply(output, *conn, &pattern(16 << 20));
        }
    });
    let mut stream = server.client();
    stream.write_all(b"x").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    await_told(&told, |what| matches!(what, Told::Closed(_, Hangup::Finished)).then_some(()));
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer == pattern(16 << 20), "{} bytes", answer.len());
}

/// Closes so that the peer gets a reset.
fn reset(stream: TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let bytes = libc::socklen_t::try_from(size_of_val(&linger)).unwrap();
    // SAFETY: the option takes a linger, and `linger` is one.
    let code = unsafe {
        let linger = (&raw const linger).cast();
        libc::setsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, linger, bytes)
    };
    assert_eq!(code, 0);
    drop(stream);
}

#[test]
fn a_reset_is_broken_even_while_paused() {
    let (server, told) = serve(plan(1), |_, _, input, output| match input {
        Input::Bytes { conn, bytes } if bytes == b"pause" => {
            output.effects.push(Effect::Read { conn: *conn, is_wanted: false });
            reply(output, *conn, b"paused");
        }
        Input::Bytes { conn, bytes } => reply(output, *conn, bytes),
        _ => {}
    });
    for (text, answer) in [(b"again" as &[u8], b"again" as &[u8]), (b"pause", b"paused")] {
        let mut stream = server.client();
        stream.write_all(text).unwrap();
        expect(&mut stream, answer);
        reset(stream);
        let how = await_told(&told, |what| if let Told::Closed(_, how) = what { Some(*how) } else { None });
        assert_eq!(how, Hangup::Broken, "{text:?}");
    }
}

#[test]
fn a_peer_that_acknowledges_nothing_is_unanswered() {
    let patience = Plan { unanswered_max: Millis(300), ..plan(1) };
    let (server, told) = serve(patience, |_, _, input, output| {
        if let Input::Bytes { conn, .. } = input {
            reply(output, *conn, &pattern(16 << 20));
        }
    });
    let mut stream = server.client();
    stream.write_all(b"x").unwrap();
    // It reads nothing, so soon nothing more is taken from the server.
    let how = await_told(&told, |what| if let Told::Closed(_, how) = what { Some(*how) } else { None });
    assert_eq!(how, Hangup::Unanswered);
}

#[test]
fn names_are_used_again_and_tenants_are_not_mixed_up() {
    let (server, told) = serve(plan(1), echo);
    for i in 0..300 {
        let text = format!("tenant {i}");
        let mut stream = server.client();
        ask(&mut stream, text.as_bytes());
        stream.write_all(b"unanswered").unwrap();
        if i % 2 == 0 {
            reset(stream);
        }
    }
    let mut names = HashMap::new();
    let mut closed = 0;
    await_told(&told, |what| {
        match what {
            Told::Opened(conn) => *names.entry(*conn).or_insert(0) += 1,
            Told::Closed(..) => closed += 1,
            _ => {}
        }
        (closed == 300).then_some(())
    });
    assert!(names.len() < 100, "{} names for 300 connections", names.len());
}

#[test]
fn connections_beyond_the_room_are_closed() {
    let (server, told) = serve(Plan { connections_max: 3, ..plan(1) }, echo);
    let mut streams: Vec<TcpStream> = (0..3).map(|_| server.client()).collect();
    streams.iter_mut().for_each(|stream| ask(stream, b"x"));
    let is_refused = |stream: &mut TcpStream| match stream.read(&mut [0; 8]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    };
    assert!(is_refused(&mut server.client()));
    drop(streams.pop());
    await_told(&told, |what| matches!(what, Told::Closed(..)).then_some(()));
    ask(&mut server.client(), b"room again");
}

/// Some message: which one does not matter here.
fn message() -> Message {
    Message::Silence
}

#[test]
fn messages_between_shards_wake_them() {
    let running = start(plan(2), move |shard| {
        let mut waiting = Vec::new();
        let other = ShardId(1 - shard.0);
        let act = move |_: &mut Timing, _: Now, input: Input<'_>, output: &mut Output| match input {
            Input::Bytes { conn, .. } => {
                waiting.push(conn);
                output.effects.push(Effect::Forward { to: other, message: message() });
            }
            Input::Forwarded { messages } => {
                for message in messages.drain(..) {
                    match waiting.pop() {
                        // It is the answer.
                        Some(conn) => reply(output, conn, b"ok"),
                        None => output.effects.push(Effect::Forward { to: other, message }),
                    }
                }
            }
            Input::Drain => output.effects.push(Effect::Drained),
            _ => {}
        };
        Act { act, timing: Timing::default() }
    });
    let server = Server(Some(running.unwrap()));
    for _ in 0..10 {
        let mut stream = server.client();
        for _ in 0..50 {
            stream.write_all(b"?").unwrap();
            expect(&mut stream, b"ok");
        }
    }
}

/// A client acts upon an answer at another core: everything that the answer's core had told that core
/// before must be known there.
#[test]
fn nobody_outruns_a_message() {
    /// More than fits in a ring.
    const FLOOD: u64 = 6_000;
    let running = start(Plan { drain_max: Millis(200), ..plan(2) }, move |shard| {
        let other = ShardId(1 - shard.0);
        let mut heard = 0_u64;
        let act = move |_: &mut Timing, _: Now, input: Input<'_>, output: &mut Output| match input {
            Input::Opened { conn, .. } => reply(output, conn, &[shard.0]),
            Input::Bytes { conn, bytes } if bytes[0] == b'f' => {
                reply(output, conn, b"flooded!");
                let flood = if bytes.len() > 1 { FLOOD } else { 1 };
                output.effects.extend((0..flood).map(|_| Effect::Forward { to: other, message: message() }));
            }
            Input::Bytes { conn, .. } => reply(output, conn, &heard.to_be_bytes()),
            Input::Forwarded { messages } => heard += messages.drain(..).count() as u64,
            Input::Drain => output.effects.push(Effect::Drained),
            _ => {}
        };
        Act { act, timing: Timing::default() }
    });
    let server = Server(Some(running.unwrap()));
    let mut by_shard: [Option<TcpStream>; 2] = [None, None];
    while by_shard.iter().any(Option::is_none) {
        let mut stream = server.client();
        let mut shard = [0];
        stream.read_exact(&mut shard).unwrap();
        by_shard[usize::from(shard[0])] = Some(stream);
    }
    let [mut writer, mut reader] = by_shard.map(Option::unwrap);
    let mut expected = 0;
    for (text, flood) in [(b"ff" as &[u8], FLOOD), (b"f", 1), (b"f", 1), (b"f", 1)].iter().cycle().take(200) {
        writer.write_all(text).unwrap();
        expect(&mut writer, b"flooded!");
        expected += flood;
        reader.write_all(b"?").unwrap();
        expect(&mut reader, &expected.to_be_bytes());
    }
}

/// A net with one connection. Whatever it receives, a peer has sent a message just before.
struct Outrun {
    to_come: Vec<u8>,
    heard: Vec<u8>,
    peer: Port<Message>,
    is_allowed: bool,
}

impl Net for Outrun {
    fn gather(&mut self, _: Instant) {}
    fn next(&mut self) -> Option<Input<'_>> {
        self.heard = vec![self.to_come.pop()?];
        self.peer.send(ShardId(0), message());
        self.peer.flush(clock::stamp);
        Some(Input::Bytes { conn: ConnId(0), bytes: &mut self.heard })
    }
    fn next_news(&mut self) -> Option<Input<'static>> {
        None
    }
    fn send(&mut self, _: ConnId, _: Range<usize>) {}
    fn post(&mut self, _: crate::engine::Peer, _: Range<usize>) {}
    fn close(&mut self, _: ConnId) {}
    fn read(&mut self, _: ConnId, _: bool) {}
    fn flush(&mut self, _: &[u8], _: Instant, is_allowed: bool) {
        self.is_allowed = is_allowed;
    }
    fn tenant(&self, _: ConnId) -> Option<u32> {
        Some(0)
    }
    fn hold_reads(&mut self, _: bool) {}
    fn stop_accepting(&mut self) {}
    fn has_work(&self) -> bool {
        false
    }
    fn next_wake(&self) -> Option<Instant> {
        None
    }
    fn is_quiet(&mut self, _: Option<Instant>) -> bool {
        true
    }
    fn wake(&mut self) {}
    fn is_settled(&self) -> bool {
        true
    }
}

#[test]
fn messages_come_before_the_bytes_that_may_follow_from_them() {
    let seats: Arc<[Seat]> = (0..2).map(|_| Seat::new(Bell::new().unwrap())).collect();
    let [port, peer] = mesh::connect(&seats, 2).try_into().unwrap();
    let (tell, told) = channel();
    let act = move |_: &mut Timing, now: Now, mut input: Input<'_>, output: &mut Output| {
        if let Input::Bytes { .. } = input {
            output.effects.extend((0..3).map(|_| Effect::Forward { to: ShardId(1), message: message() }));
        }
        tell.send(Told::of(now, &mut input)).unwrap();
    };
    let (guests, ..) = guests::connect(ShardId(0), &seats, false).unwrap();
    let mut turns = Loop {
        shard: ShardId(0),
        core: Act { act, timing: Timing::default() },
        net: Outrun { to_come: vec![7], heard: Vec::new(), peer, is_allowed: true },
        port,
        inbox: VecDeque::new(),
        seats,
        commands: channel().1,
        notify: plan(1).notify,
        drain_max: Millis(0),
        drained_count: Arc::default(),
        stage: Stage::Serving,
        waiting_command: None,
        output: Output::default(),
        gauge: Gauge::new(None),
        store: None,
        guests,
        meters: Meters::default(),
    };
    turns.turn(clock::read());
    let told: Vec<Told> = told.try_iter().collect();
    assert_eq!(told[..], [Told::Forwarded(1), Told::Bytes(ConnId(0), vec![7])]);
    assert!(!turns.net.is_allowed, "a message does not fit: clients must not hear of its effects yet");
}

#[test]
fn ticks_come_when_they_are_due() {
    let (server, told) = serve(plan(1), |timing, now, input, _| {
        if let Input::Tick = input {
            timing.wake = Some(now.instant + Millis(37));
        }
    });
    server.tell(Input::Tick);
    let mut before: Option<Instant> = None;
    for _ in 0..8 {
        let tick = await_told(&told, |what| if let Told::Tick(at) = what { Some(*at) } else { None });
        if let Some(before) = before {
            let span = tick.since(before);
            assert!(span >= Millis(37), "{span} is too early");
            assert!(span < Millis(30_000), "{span} is too late");
        }
        before = Some(tick);
    }
}

#[test]
fn a_wake_up_may_be_put_forward_and_back() {
    let (tell, ticks) = channel();
    let (mut text, mut due) = (0, Instant(0));
    let (server, told) = serve(plan(1), move |timing, now, input, _| match input {
        Input::Bytes { bytes, .. } => {
            text = bytes[0];
            due = now.instant + Millis(u64::from(text) * 10);
            timing.wake = Some(due);
        }
        Input::Tick => {
            timing.wake = None;
            tell.send((text, now.instant, due)).unwrap();
        }
        _ => {}
    });
    let mut stream = server.client();
    // Far, near: the near one counts. Near, far: the far one does, and no tick comes before it.
    for texts in [[250, 4], [50, 70]] {
        for text in texts {
            stream.write_all(&[text]).unwrap();
            await_told(&told, |what| matches!(what, Told::Bytes(..)).then_some(()));
        }
        loop {
            let (text, at, due) = ticks.recv_timeout(PATIENCE).unwrap();
            assert!(at >= due, "{at:?} is before {due:?}");
            if text == texts[1] {
                break;
            }
            assert_ne!(text, 250, "it was put forward");
        }
    }
}

#[test]
fn what_all_were_told_all_have_handled() {
    // Who does not wait for its handling is back before it.
    let handled = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&handled);
    let count = move |_: &mut Timing, _: Now, input: &Input<'_>, _: &mut Output| {
        if matches!(input, Input::Tick) {
            std::thread::sleep(Duration::from_millis(50));
            counted.fetch_add(1, Ordering::SeqCst);
        }
    };
    let (server, _told) = serve(plan(3), count);
    server.running().remote().tell_all(|| Input::Tick);
    assert!(handled.load(Ordering::SeqCst) >= 3);
}

#[test]
fn work_that_was_put_off_leaves_room_for_clients() {
    let mut left = 0_u32;
    let (server, told) = serve(plan(1), move |timing, _, input, output| match input {
        Input::Bytes { conn, bytes } => {
            if bytes == b"work" {
                left = 50_000;
                timing.is_busy = true;
            }
            reply(output, *conn, &left.to_be_bytes());
        }
        Input::Tick => {
            left -= 1;
            timing.is_busy = left > 0;
        }
        _ => {}
    });
    let mut stream = server.client();
    stream.write_all(b"work").unwrap();
    expect(&mut stream, &50_000_u32.to_be_bytes());
    stream.write_all(b"?").unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).unwrap();
    assert_ne!(u32::from_be_bytes(answer), 0, "clients do not wait for the end");
    let mut ticks = 0;
    await_told(&told, |what| {
        ticks += u32::from(matches!(what, Told::Tick(_)));
        (ticks == 50_000).then_some(())
    });
}

#[test]
fn an_idle_shard_burns_nothing() {
    let (server, _told) = serve(plan(2), |timing, now, input, output| {
        if let Input::Bytes { conn, .. } = input {
            timing.wake = Some(now.instant + Millis(150));
            // SAFETY: takes no arguments.
            reply(output, *conn, &unsafe { libc::gettid() }.to_be_bytes());
        } else if let Input::Tick = input {
            timing.wake = None;
        }
    });
    let mut stream = server.client();
    stream.write_all(b"?").unwrap();
    let mut thread = [0; 4];
    stream.read_exact(&mut thread).unwrap();
    let path = format!("/proc/self/task/{}/schedstat", i32::from_be_bytes(thread));
    // How long it has run, and how long it has waited for others to let it run.
    let times_ms = || -> [u64; 2] {
        let text = std::fs::read_to_string(&path).unwrap();
        let mut times = text.split(' ').map(|time| time.parse::<u64>().unwrap() / 1_000_000);
        [times.next().unwrap(), times.next().unwrap()]
    };
    // What others do to this machine can only add: the least of some spans is the shard's own.
    let spans: Vec<_> = (0..5)
        .map(|_| {
            let before = times_ms();
            std::thread::sleep(Duration::from_millis(400));
            let after = times_ms();
            [after[0] - before[0], after[1] - before[1]]
        })
        .collect();
    let [ran, waited] = *spans.iter().min_by_key(|[ran, waited]| ran + waited).unwrap();
    assert!(ran < 20, "{ran} ms in 400 ms");
    assert!(ran + waited < 250, "{ran} ms in 400 ms, {waited} ms more if the others had not been there");
}

#[test]
fn a_drain_says_goodbye() {
    let running = start(Plan { drain_max: Millis(20_000), ..plan(2) }, move |shard| {
        let mut conns = Vec::new();
        let act = move |_: &mut Timing, _: Now, input: Input<'_>, output: &mut Output| match input {
            Input::Opened { conn, .. } => conns.push(conn),
            Input::Bytes { conn, bytes } => reply(output, conn, bytes),
            Input::Drain => {
                for conn in conns.drain(..) {
                    reply(output, conn, &pattern(300_000));
                    output.effects.push(Effect::Close { conn });
                }
                // The second shard takes longer, and needs the first for it.
                if shard.0 == 0 {
                    output.effects.push(Effect::Drained);
                }
            }
            Input::Tick => output.effects.push(Effect::Forward { to: ShardId(0), message: message() }),
            Input::Forwarded { messages } => output.effects.extend(messages.drain(..).map(|message| match shard.0 {
                0 => Effect::Forward { to: ShardId(1), message },
                _ => Effect::Drained,
            })),
            _ => {}
        };
        Act { act, timing: Timing::default() }
    });
    let running = running.unwrap();
    let address = running.local_addr();
    let mut streams: Vec<TcpStream> = (0..40).map(|_| client(address)).collect();
    streams.iter_mut().for_each(|stream| ask(stream, b"hello"));
    let before = Clock::now();
    running.request_drain();
    running.request_drain();
    for mut stream in streams {
        let mut goodbye = Vec::new();
        stream.read_to_end(&mut goodbye).unwrap();
        assert!(goodbye == pattern(300_000), "{} bytes", goodbye.len());
    }
    // Long enough for a shard that thinks it is not needed any more to go.
    std::thread::sleep(Duration::from_millis(100));
    running.remote().tell(ShardId(1), Input::Tick);
    running.join();
    assert!(before.elapsed() < Duration::from_secs(10), "{:?}", before.elapsed());
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_drain_does_not_wait_for_ever() {
    let running = start(plan(2), |_| {
        let act = |_: &mut Timing, _: Now, _: Input<'_>, _: &mut Output| {};
        Act { act, timing: Timing::default() }
    });
    let running = running.unwrap();
    let _stream = client(running.local_addr());
    let before = Clock::now();
    running.request_drain();
    running.join();
    assert!(before.elapsed() >= Duration::from_millis(200), "{:?}", before.elapsed());
    assert!(before.elapsed() < Duration::from_secs(10), "{:?}", before.elapsed());
}

#[test]
fn an_impossible_plan_is_refused() {
    let (server, _told) = serve(plan(1), echo);
    let refuse = |plan: Plan| {
        let core = |_| {
            let act = |_: &mut Timing, _: Now, _: Input<'_>, _: &mut Output| {};
            Act { act, timing: Timing::default() }
        };
        start(plan, core).expect_err("refused")
    };
    let error = refuse(Plan { listen: server.address(), ..plan(2) });
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&server.address().to_string()), "{error}");
    assert_eq!(refuse(plan(0)).kind(), ErrorKind::InvalidInput);
    assert_eq!(refuse(plan(65)).kind(), ErrorKind::InvalidInput);
    // Refusals leave the running server alone.
    ask(&mut server.client(), b"still here");
}

/// What [`child`] does in a process of its own.
const CHILD_ROLE: &str = "STILLHERE_TEST_CHILD";

/// This test again, in a process of its own that plays `role`.
fn spawn_child(role: &str) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["runtime::tests::child", "--exact", "--nocapture", "--test-threads=1"]).env(CHILD_ROLE, role);
    child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// A limit of open files with which this process may open `count` more than it has, some of which its parent may have
/// left it.
pub(super) fn limit_leaving(count: usize) -> u64 {
    // SAFETY: takes no pointers.
    let is_free = |fd: &u32| unsafe { libc::fcntl(fd.cast_signed(), libc::F_GETFD) } < 0;
    let last = (0..).filter(is_free).nth(count - 1).unwrap();
    u64::from(last) + 1
}

/// Serves when it is asked to be a child; else it is no test.
#[test]
fn child() {
    let Ok(role) = std::env::var(CHILD_ROLE) else { return };
    if role.starts_with("few files") {
        let count = limit_leaving(40);
        let limit = libc::rlimit { rlim_cur: count, rlim_max: count };
        // SAFETY: `limit` is readable.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
    }
    let plan = Plan { beyond_files: role != "few files, all of use", ..plan(1) };
    let (server, _told) = serve(plan, |timing, now, input, output| {
        if let Input::Bytes { bytes, .. } = input {
            assert!(bytes != b"panic", "as the test wishes");
            if bytes == b"pause" {
                std::thread::sleep(Duration::from_millis(500));
            }
        }
        echo(timing, now, input, output);
    });
    writeln!(io::stdout(), "\nport {}", server.address().port()).unwrap();
    let _until_the_parent_is_done = io::stdin().read(&mut [0]);
}

fn child_address(child: &mut Child) -> SocketAddr {
    let output = BufReader::new(child.stdout.as_mut().unwrap());
    let line = output.lines().map(Result::unwrap).find(|line| line.starts_with("port ")).unwrap();
    SocketAddr::from(([127, 0, 0, 1], line[5..].parse().unwrap()))
}

#[test]
fn a_panic_in_a_core_ends_the_process() {
    let mut child = spawn_child("panic");
    let mut stream = client(child_address(&mut child));
    // As long as its input is open the child does not end by itself.
    let _input = child.stdin.take();
    stream.write_all(b"panic").unwrap();
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.signal(), Some(libc::SIGABRT));
    let text = String::from_utf8_lossy(&ended.stderr);
    assert!(text.contains("as the test wishes") && text.contains("shard 0 has failed"), "{text}");
}

#[test]
fn without_descriptors_a_server_serves_whom_it_has() {
    let mut child = spawn_child("few files, all of use");
    let address = child_address(&mut child);
    let mut served = Vec::new();
    let mut waiting = loop {
        assert!(served.len() < 64, "the descriptors must run out");
        let mut stream = client(address);
        stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        stream.write_all(b"x").unwrap();
        match stream.read(&mut [0]) {
            Ok(1) => served.push(stream),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break stream,
            other => panic!("{other:?} for connection {}", served.len()),
        }
    };
    assert!(served.len() > 5, "{} were served", served.len());
    served.iter_mut().for_each(|stream| ask(stream, b"still here"));
    served.truncate(3);
    waiting.set_read_timeout(Some(PATIENCE)).unwrap();
    expect(&mut waiting, b"x");
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn without_descriptors_a_server_serves_everybody_where_it_can() {
    if !shelf::is_available() {
        return;
    }
    let mut child = spawn_child("few files");
    let address = child_address(&mut child);
    // A crowd that comes while the server looks elsewhere, and is accepted in one go.
    let mut first = client(address);
    ask(&mut first, b"x");
    first.write_all(b"pause").unwrap();
    let mut streams: Vec<TcpStream> = (0..300).map(|_| client(address)).collect();
    expect(&mut first, b"pause");
    for round in 0..3 {
        for (index, stream) in streams.iter_mut().enumerate() {
            ask(stream, format!("{round} {index}").as_bytes());
        }
        // All at once, and some go.
        streams.iter_mut().for_each(|stream| stream.write_all(b"together").unwrap());
        streams.iter_mut().for_each(|stream| expect(stream, b"together"));
        streams.drain(..100).step_by(2).for_each(reset);
        streams.extend((0..100).map(|_| client(address)));
    }
    drop(streams);
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

mod tls;
