//! Clients on TCP sockets: one epoll set, one thread.
//!
//! One address has too few ports for many clients, so to a loopback target they come from 127.1.0.0,
//! 127.1.0.1 and so on. The surprising idea: we choose the ports ourselves. Asked for any free one of
//! many addresses, the kernel searches for a millisecond.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

use crate::client::{Ending, Happening, Link};
use crate::clock::{self, Moment};
use crate::process::Process;

/// The first port that clients come from, and how many they may come from.
const PORTS: (u16, u32) = (10_000, 50_000);
/// Addresses that clients come from.
const SOURCES: u32 = 250;
/// How far apart two runs begin: most runs need fewer ports.
const RUN_STRIDE: u32 = 20_011;
/// Ports that are tried before there is none.
const TRIES_MAX: u32 = 1_000;
/// Events that are fetched at a time: few, so that answers do not wait for all of them.
const EVENTS_MAX: usize = 64;
/// What one client's socket is read for at a time.
const READ_BYTES: usize = 256 * 1024;

/// TCP connections to one address.
pub struct Sockets {
    target: SocketAddr,
    server: Option<Process>,
    epoll: OwnedFd,
    sockets: Vec<Option<Socket>>,
    events: Vec<Event>,
    /// Of `events`, those before this are handled.
    at: usize,
    /// Ports that were tried, ever: each connection comes from another one, so that none meets what is
    /// left of an earlier one.
    ports_tried: u32,
    /// Clients whose connections broke while they were written to.
    broken: VecDeque<u32>,
}

struct Socket {
    fd: OwnedFd,
    is_connected: bool,
    /// What the kernel did not take yet.
    unsent: Vec<u8>,
}

impl Sockets {
    /// Room for `count` clients of the server at `target`, whose process is `server` if it is known.
    ///
    /// # Errors
    /// When there can be no epoll set.
    pub fn new(target: SocketAddr, count: usize, server: Option<Process>) -> io::Result<Self> {
        Ok(Self {
            target,
            server,
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            sockets: (0..count).map(|_| None).collect(),
            events: Vec::with_capacity(EVENTS_MAX),
            at: 0,
            // Each run elsewhere, so that it does not meet what is left of the one before.
            ports_tried: std::process::id().wrapping_mul(RUN_STRIDE),
            broken: VecDeque::new(),
        })
    }

    /// What became of a client's socket. `None`: nothing worth telling.
    fn look(&mut self, client: u32, flags: EventFlags, room: &mut Vec<u8>) -> Option<Happening> {
        let socket = self.sockets[client as usize].as_mut()?;
        if !socket.is_connected {
            if !matches!(sockopt::socket_error(&socket.fd), Ok(Ok(()))) {
                self.sockets[client as usize] = None;
                return Some(Happening::Gone);
            }
            socket.is_connected = true;
            self.watch(client, EventFlags::IN);
            return Some(Happening::Opened);
        }
        if flags.contains(EventFlags::OUT) {
            let unsent = std::mem::take(&mut socket.unsent);
            self.watch(client, EventFlags::IN);
            self.send(client, &unsent);
        }
        if !flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            return None;
        }
        let socket = self.sockets[client as usize].as_mut()?;
        if room.len() < READ_BYTES {
            room.resize(READ_BYTES, 0);
        }
        match rustix::net::recv(&socket.fd, &mut room[..], RecvFlags::empty()) {
            Ok((count, _)) if count > 0 => Some(Happening::Bytes(count)),
            Err(Errno::AGAIN | Errno::INTR) => None,
            Ok(_) | Err(_) => {
                self.sockets[client as usize] = None;
                Some(Happening::Gone)
            }
        }
    }

    /// A socket that is being connected.
    fn connect(&mut self) -> io::Result<OwnedFd> {
        let mut tries = 0;
        loop {
            let family = if self.target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let fd = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
            sockopt::set_tcp_nodelay(&fd, true)?;
            tries += 1;
            match self.bind(&fd).and_then(|()| rustix::net::connect(&fd, &self.target)) {
                Ok(()) | Err(Errno::INPROGRESS) => return Ok(fd),
                // What is left of an earlier connection, or somebody else, has the port.
                Err(Errno::ADDRINUSE | Errno::ADDRNOTAVAIL) if tries < TRIES_MAX => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Gives a socket the next address and port to come from, if the target is on this machine.
    fn bind(&mut self, fd: &OwnedFd) -> rustix::io::Result<()> {
        let is_near = matches!(self.target.ip(), IpAddr::V4(address) if address.is_loopback());
        if !is_near {
            return Ok(());
        }
        let (source, port) = source(self.ports_tried);
        self.ports_tried = self.ports_tried.wrapping_add(1);
        sockopt::set_socket_reuseaddr(fd, true)?;
        rustix::net::bind(fd, &SocketAddr::from((source, port)))
    }

    fn watch(&mut self, client: u32, flags: EventFlags) {
        if let Some(socket) = &self.sockets[client as usize] {
            let data = EventData::new_u64(client.into());
            epoll::modify(&self.epoll, &socket.fd, data, flags).expect("the socket is in the set");
        }
    }
}

/// Where the connection with this number comes from.
fn source(number: u32) -> (Ipv4Addr, u16) {
    let (first, count) = PORTS;
    let port = first + u16::try_from(number % count).expect("it is below a count of ports");
    (Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 0).to_bits() + number / count % SOURCES), port)
}

impl Link for Sockets {
    fn open(&mut self, client: u32) -> io::Result<()> {
        let fd = self.connect()?;
        epoll::add(&self.epoll, &fd, EventData::new_u64(client.into()), EventFlags::OUT)?;
        self.sockets[client as usize] = Some(Socket { fd, is_connected: false, unsent: Vec::new() });
        Ok(())
    }

    fn send(&mut self, client: u32, bytes: &[u8]) {
        let Some(socket) = &mut self.sockets[client as usize] else { return };
        if !socket.unsent.is_empty() {
            socket.unsent.extend_from_slice(bytes);
            return;
        }
        let sent = match rustix::net::send(&socket.fd, bytes, SendFlags::NOSIGNAL) {
            Ok(sent) => sent,
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(_) => {
                self.sockets[client as usize] = None;
                self.broken.push_back(client);
                return;
            }
        };
        if sent < bytes.len() {
            socket.unsent.extend_from_slice(&bytes[sent..]);
            self.watch(client, EventFlags::IN | EventFlags::OUT);
        }
    }

    fn close(&mut self, client: u32, ending: Ending) {
        let Some(socket) = self.sockets[client as usize].take() else { return };
        if ending == Ending::Reset {
            // Lingering for no time: the kernel resets the connection.
            let _best_effort = sockopt::set_socket_linger(&socket.fd, Some(Duration::ZERO));
        }
    }

    fn freeze(&mut self, client: u32) {
        if let Some(socket) = &self.sockets[client as usize] {
            epoll::delete(&self.epoll, &socket.fd).expect("the socket is in the set");
        }
    }

    fn thaw(&mut self, client: u32) {
        if let Some(socket) = &self.sockets[client as usize] {
            let data = EventData::new_u64(client.into());
            epoll::add(&self.epoll, &socket.fd, data, EventFlags::IN).expect("a frozen socket is not in the set");
        }
    }

    fn next(&mut self, until: Moment, room: &mut Vec<u8>) -> io::Result<Option<(u32, Happening)>> {
        loop {
            if let Some(client) = self.broken.pop_front() {
                return Ok(Some((client, Happening::Gone)));
            }
            while let Some(event) = self.events.get(self.at).copied() {
                self.at += 1;
                let client = u32::try_from(event.data.u64()).expect("it was a client's number");
                if let Some(happening) = self.look(client, event.flags, room) {
                    return Ok(Some((client, happening)));
                }
            }
            self.at = 0;
            self.events.clear();
            let wait = Duration::from_nanos(until.since_ns(clock::now()));
            let timeout =
                Timespec { tv_sec: wait.as_secs().try_into().unwrap_or(1), tv_nsec: wait.subsec_nanos().into() };
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), Some(&timeout)) {
                Ok(0) => return Ok(None),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn server_cpu_ns(&self) -> Option<u64> {
        self.server?.cpu_ns().ok()
    }

    fn server_bytes(&self) -> Option<u64> {
        self.server?.anonymous_bytes().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_come_from_many_places() {
        assert_eq!(source(0), (Ipv4Addr::new(127, 1, 0, 0), 10_000));
        assert_eq!(source(49_999), (Ipv4Addr::new(127, 1, 0, 0), 59_999));
        assert_eq!(source(50_000), (Ipv4Addr::new(127, 1, 0, 1), 10_000));
        assert_eq!(source(250 * 50_000), source(0));
    }
}
