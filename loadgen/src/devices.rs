//! Devices: CoAP in datagrams, a million peers from one socket.
//!
//! The surprising idea: every address of 127.0.0.0/8 is this machine's, and the kernel lets a socket say for each
//! datagram from which of them it comes (`IP_PKTINFO`). So a peer is an address, not a descriptor; and as a
//! device's number is its token, an answer tells whose it is.
//!
//! Costs: 32 bytes a device, one call to send a datagram and one to receive it.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use nix::libc::{in_addr, in_pktinfo};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, sendmsg};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, sockopt};
use stillhere::wire::coap::{Code, Kind, Message, MessageId, Token, Writer, option};

use crate::client::{Event, Orders, Play};
use crate::clock::Moment;
use crate::pace::Pace;
use crate::plays::{Watcher, place};
use crate::report::Latency;

/// The first device's address; the others count on from there.
const FIRST_SOURCE: Ipv4Addr = Ipv4Addr::new(127, 16, 0, 0);
/// More would leave 127.0.0.0/8.
pub const DEVICES_MAX: u32 = 8_000_000;
/// What the kernel may keep of answers.
const ROOM_BYTES: usize = 64 * 1024 * 1024;
/// Datagrams that are sent, and received, in one go.
const SLICE: u32 = 256;
/// How long an answer is waited for, as the SDK does, and how often a request is sent.
const PATIENCE: Duration = Duration::from_secs(2);
const TRIES_MAX: u8 = 5;
/// Between two looks at the socket where nothing has come.
const PAUSE: Duration = Duration::from_micros(200);
/// Between two writes of the device whose answers are measured.
const PROBE_PAUSE: Duration = Duration::from_millis(10);
/// A deadline that is exact to a millisecond may seem this much too early: both ends round.
const ROUNDING: Duration = Duration::from_millis(2);

/// What a device asks, and so what it has come to when that is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    Begin,
    LastWord,
    Ping,
}

impl Ask {
    const fn id(self) -> MessageId {
        // Not 1, which a process begins with.
        MessageId(0x0777 + self as u16)
    }

    fn of(id: MessageId) -> Option<Self> {
        [Self::Begin, Self::LastWord, Self::Ping].into_iter().find(|ask| ask.id() == id)
    }
}

/// One device.
#[derive(Clone, Copy, Debug)]
struct Device {
    name: [u8; 8],
    /// When it sent what was answered last.
    answered: Moment,
    /// When it sent what is not answered yet.
    sent: Moment,
    waits_for: Option<Ask>,
}

/// What devices do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// They begin their sessions and leave a last word; over when all have.
    Join,
    /// Each pings once in so long, until a moment.
    Beat {
        /// How often.
        every: Duration,
        /// Until when.
        until: Moment,
    },
    /// They say nothing any more; over when all last words were seen.
    Fade {
        /// After which a session is over.
        timeout: Duration,
    },
}

/// All devices of a run, and what is known of them.
pub struct Devices<'w> {
    socket: OwnedFd,
    target: SocketAddrV4,
    host: String,
    root: String,
    devices: Vec<Device>,
    act: Act,
    next: u32,
    window: u32,
    in_flight: u32,
    pace: Option<Pace>,
    /// Requests whose answers are waited for, in order.
    due: VecDeque<(Moment, u32, Ask, u8)>,
    room: Vec<u8>,
    out: Vec<u8>,
    watcher: Option<&'w mut Watcher>,
    seen: u64,
    now: Moment,
    probe: Option<Moment>,
    probe_at: Moment,
    /// Devices that have left their last words.
    pub ready: u32,
    /// Requests that were never answered, or not with what they asked for.
    pub failed: u32,
    /// Requests that were sent again.
    pub again: u64,
    /// Pings that were answered.
    pub pings: u64,
    /// From the first packet of a device until it has left its last word.
    pub joined: Latency,
    /// From a ping to its answer.
    pub pinged: Latency,
    /// From a write of the one device that goes on writing to its answer.
    pub probed: Latency,
    /// How much later than its deadline each last word was seen.
    pub lateness: Latency,
}

impl<'w> Devices<'w> {
    /// `count` devices of a database at a server on this machine; and one more, which is there from the end of the
    /// joining on and writes all the time.
    ///
    /// # Errors
    /// When there is no socket to be had.
    pub fn new(
        target: SocketAddr,
        ns: &str,
        root: &str,
        count: u32,
        window: u32,
        watcher: Option<&'w mut Watcher>,
    ) -> io::Result<Self> {
        let SocketAddr::V4(target) = target else { return Err(io::Error::other("devices speak IPv4")) };
        if !IpAddr::V4(*target.ip()).is_loopback() || count > DEVICES_MAX {
            return Err(io::Error::other("many devices can only be played on one machine, and 8 million at most"));
        }
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
        // Where the kernel allows less, more comes late and again.
        let _best_effort = sockopt::set_socket_recv_buffer_size_force(&socket, ROOM_BYTES);
        rustix::net::bind(&socket, &SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))?;
        let device = Device { name: [b'0'; 8], answered: Moment::START, sent: Moment::START, waits_for: None };
        Ok(Self {
            socket,
            target,
            host: format!("{ns}.load"),
            root: root.to_owned(),
            devices: vec![device; count as usize + 1],
            act: Act::Join,
            next: 0,
            window,
            in_flight: 0,
            pace: None,
            due: VecDeque::new(),
            room: vec![0; 2_048],
            out: Vec::new(),
            watcher,
            seen: 0,
            now: Moment::START,
            probe: None,
            probe_at: Moment::NEVER,
            ready: 0,
            failed: 0,
            again: 0,
            pings: 0,
            joined: Latency::default(),
            pinged: Latency::default(),
            probed: Latency::default(),
            lateness: Latency::default(),
        })
    }

    /// What they do from now on.
    pub fn begin(&mut self, now: Moment, act: Act, rate: Option<f64>) {
        (self.act, self.next) = (act, 0);
        self.pace = match act {
            Act::Join => rate.map(|rate| Pace::new(now, rate)),
            Act::Beat { every, .. } => Some(Pace::new(now, f64::from(self.count()) / every.as_secs_f64())),
            Act::Fade { .. } => None,
        };
        self.probe_at = if act == Act::Join { Moment::NEVER } else { now };
    }

    fn count(&self) -> u32 {
        u32::try_from(self.devices.len() - 1).expect("it was made from 32 bits")
    }

    /// The end: what was to be seen by now.
    pub fn settle(&mut self) {
        let count = self.devices.len() - 1;
        if let Some(watcher) = &mut self.watcher {
            (0..count).for_each(|track| watcher.model.must(track, 1));
        }
    }

    fn ask(&mut self, now: Moment, index: u32, ask: Ask, tries: u8) {
        let device = &mut self.devices[index as usize];
        if tries == 1 {
            device.sent = now;
        }
        device.waits_for = Some(ask);
        let name = [b".cs=", &device.name[..]].concat();
        let code = [Code::POST, Code::PUT, Code::GET][ask as usize];
        self.out.clear();
        let token = Token::new(&index.to_be_bytes());
        let writer = Writer::new(&mut self.out, Kind::Confirmable, code, ask.id(), token);
        let writer = writer.option(option::URI_HOST, self.host.as_bytes());
        match ask {
            Ask::Begin => writer.option(option::URI_PATH, b".cs").option(option::URI_QUERY, b"v=2").done(),
            Ask::Ping => writer.option(option::URI_PATH, b".ping").option(option::URI_QUERY, &name).done(),
            Ask::LastWord => {
                let place = place(&self.root, index);
                let writer =
                    place.split('/').fold(writer, |writer, part| writer.option(option::URI_PATH, part.as_bytes()));
                writer.option(option::URI_QUERY, b".dis=add").option(option::URI_QUERY, &name).payload(&[1]);
            }
        }
        self.post(index);
        self.due.push_back((now + PATIENCE, index, ask, tries));
    }

    /// Sends what was written, from the device's address. What the kernel does not take is lost.
    fn post(&self, index: u32) {
        let source = Ipv4Addr::from_bits(FIRST_SOURCE.to_bits() + index);
        let info = in_pktinfo {
            ipi_ifindex: 0,
            ipi_spec_dst: in_addr { s_addr: u32::from_ne_bytes(source.octets()) },
            ipi_addr: in_addr { s_addr: 0 },
        };
        let control = [ControlMessage::Ipv4PacketInfo(&info)];
        let parts = [IoSlice::new(&self.out)];
        let target = SockaddrIn::from(self.target);
        let _sent_or_lost = sendmsg(self.socket.as_raw_fd(), &parts, &control, MsgFlags::empty(), Some(&target));
    }

    fn receive(&mut self, now: Moment) -> bool {
        let Ok((count, _)) = rustix::net::recv(&self.socket, &mut self.room[..], RecvFlags::empty()) else {
            return false;
        };
        let room = std::mem::take(&mut self.room);
        if let Ok(message) = Message::read(&room[..count]) {
            self.hear(now, &message);
        }
        self.room = room;
        true
    }

    fn hear(&mut self, now: Moment, message: &Message<'_>) {
        let Ok(number) = message.token.as_bytes().try_into().map(u32::from_be_bytes) else { return };
        let Some(ask) = Ask::of(message.id) else { return };
        let probe = self.count();
        if number == probe && self.act != Act::Join {
            if let Some(since) = self.probe.take() {
                self.probed.record_ns(now.since_ns(since));
            }
            return;
        }
        let Some(device) = self.devices.get_mut(number as usize) else { return };
        if device.waits_for != Some(ask) {
            return;
        }
        device.waits_for = None;
        let (before, since) = (device.answered, device.sent);
        device.answered = since;
        if message.code != Code::CONTENT {
            self.failed += 1;
            self.in_flight -= u32::from(ask != Ask::Ping);
            return;
        }
        match ask {
            Ask::Begin => {
                if let Some(name) = message.payload.get(4..12) {
                    device.name.copy_from_slice(name);
                }
                self.ask(now, number, Ask::LastWord, 1);
            }
            Ask::LastWord => {
                self.ready += 1;
                self.in_flight -= 1;
                self.joined.record_ns(now.since_ns(before));
            }
            Ask::Ping => {
                self.pings += 1;
                self.pinged.record_ns(now.since_ns(since));
            }
        }
    }

    /// Asks again where no answer has come.
    fn repeat(&mut self, now: Moment) {
        while let Some(&(due, index, ask, tries)) = self.due.front()
            && due <= now
        {
            self.due.pop_front();
            let device = &self.devices[index as usize];
            // What it waits for may be a later request's answer.
            if device.waits_for != Some(ask) || now < device.sent + PATIENCE {
                continue;
            }
            if tries < TRIES_MAX {
                self.again += 1;
                self.ask(now, index, ask, tries + 1);
            } else {
                self.devices[index as usize].waits_for = None;
                self.failed += 1;
                self.in_flight -= u32::from(ask != Ask::Ping);
            }
        }
    }

    /// Begins what is to be begun.
    fn go_on(&mut self, now: Moment) {
        for _ in 0..SLICE {
            let is_joining = self.act == Act::Join;
            // The one that is measured has a session too.
            let end = self.count() + u32::from(is_joining);
            if is_joining && (self.next >= end || (self.pace.is_none() && self.in_flight >= self.window)) {
                return;
            }
            match self.act {
                Act::Beat { until, .. } if now >= until => return,
                Act::Fade { .. } => return,
                Act::Join | Act::Beat { .. } => {}
            }
            if let Some(pace) = &mut self.pace
                && pace.take(now).is_none()
            {
                return;
            }
            let index = self.next % end;
            self.next += 1;
            if is_joining {
                self.in_flight += 1;
                self.ask(now, index, Ask::Begin, 1);
            } else if self.devices[index as usize].waits_for.is_none() {
                self.ask(now, index, Ask::Ping, 1);
            }
        }
    }

    /// One device goes on writing: how long does its answer take?
    fn probe(&mut self, now: Moment) {
        if now < self.probe_at {
            return;
        }
        if self.probe.is_some_and(|since| now.since_ns(since) < 1_000_000_000) {
            return;
        }
        self.probe_at = now + PROBE_PAUSE;
        self.probe = Some(now);
        let index = self.count();
        let name = [b".cs=", &self.devices[index as usize].name[..]].concat();
        self.out.clear();
        // Another value each time, so that none is taken for another one's copy.
        let value = u16::try_from(now.0 / 1_000 % 65_536).expect("16 bits").to_be_bytes();
        let token = Token::new(&index.to_be_bytes());
        let writer = Writer::new(&mut self.out, Kind::Confirmable, Code::PUT, Ask::Ping.id(), token);
        let writer = writer.option(option::URI_HOST, self.host.as_bytes()).option(option::URI_PATH, b"probe");
        writer.option(option::URI_QUERY, &name).payload(&[0x19, value[0], value[1]]);
        self.post(index);
    }
}

impl Play for Devices<'_> {
    fn on(&mut self, at: Moment, client: u32, event: &Event<'_>, _orders: &mut Orders) {
        let Some(watcher) = &mut self.watcher else { return };
        let Some(sight) = watcher.sight(client, event) else { return };
        if let Act::Fade { timeout } = self.act
            && let Some(device) = self.devices.get(sight.track)
        {
            let deadline = device.answered + timeout;
            // Before its deadline a session is alive, and its last word early.
            if at + ROUNDING >= deadline {
                watcher.model.may(sight.track, 1);
            }
            if watcher.model.see(sight.track, sight.change) {
                self.seen += 1;
                self.lateness.record_ns(at.since_ns(deadline));
            }
        } else {
            watcher.model.see(sight.track, sight.change);
        }
    }

    fn tick(&mut self, now: Moment, _orders: &mut Orders) -> Moment {
        self.now = now;
        let mut is_any = false;
        for _ in 0..SLICE {
            if !self.receive(now) {
                break;
            }
            is_any = true;
        }
        self.go_on(now);
        self.repeat(now);
        self.probe(now);
        if is_any { now } else { now + PAUSE }
    }

    fn is_over(&self) -> bool {
        match self.act {
            Act::Join => self.ready + self.failed > self.count(),
            // Nobody falls silent before what it has asked is answered.
            Act::Beat { until, .. } => self.now >= until && self.due.is_empty(),
            Act::Fade { .. } => self.seen >= u64::from(self.count()),
        }
    }

    fn progress(&self) -> String {
        match self.act {
            Act::Join => format!("{} of {} joined, {} failed", self.ready, self.count() + 1, self.failed),
            Act::Beat { .. } => format!("{} pings answered, {} sent again", self.pings, self.again),
            Act::Fade { .. } => format!("{} of {} last words seen", self.seen, self.count()),
        }
    }
}
