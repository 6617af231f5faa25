//! One core's datagram socket: many peers, no connections.
//!
//! The kernel spreads peers over the cores' sockets by their addresses, so one peer is always met on one
//! core. The surprising idea: what counts is the batch, not the interface: one `recvmmsg` brings up to
//! [`BATCH`] datagrams, one `sendmmsg` takes as many, and readiness comes through the ring like that of
//! every other socket. What the kernel does not take at once is lost, as datagrams are.
//!
//! Costs: two calls for each batch; [`BATCH`] buffers a core, and nothing for a peer.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::os::fd::{AsRawFd as _, OwnedFd};

use super::socket;
use crate::engine::Peer;

/// Datagrams that one call receives or sends.
const BATCH: usize = 64;
/// Room for one datagram: what does not fit is cut off, and thrown away.
const ROOM_BYTES: usize = 2_048;
/// Room for what the kernel says beside a datagram.
const CONTROL_BYTES: usize = 64;
/// Datagrams that one turn receives before everybody else has their turn.
const RECEIVED_MAX: usize = 1_024;
/// Datagrams that are kept while nothing may be sent.
const KEPT_MAX: usize = 16_384;

/// Room for control messages, as these must be aligned.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
struct Control([u8; CONTROL_BYTES]);

/// One core's datagram socket.
pub(super) struct Datagrams {
    socket: OwnedFd,
    /// Whether the kernel may have something that we have not received.
    pub(super) is_readable: bool,
    buffers: Box<[u8]>,
    /// From whom, and how much; of the datagrams from `given` on nobody has heard.
    received: Vec<(Peer, usize, usize)>,
    given: usize,
    left_of_turn: usize,
    /// What the turn wants to be sent.
    noted: Vec<(Peer, Range<usize>)>,
    /// What earlier turns wanted to be sent.
    kept: Vec<(Peer, Box<[u8]>)>,
}

impl Datagrams {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            is_readable: true,
            buffers: vec![0; BATCH * ROOM_BYTES].into_boxed_slice(),
            received: Vec::new(),
            given: 0,
            left_of_turn: 0,
            noted: Vec::new(),
            kept: Vec::new(),
        }
    }

    pub(super) fn raw_fd(&self) -> i32 {
        self.socket.as_raw_fd()
    }

    /// A turn begins.
    pub(super) const fn begin(&mut self) {
        self.left_of_turn = RECEIVED_MAX;
    }

    /// Whether another turn would bring something.
    pub(super) const fn has_work(&self, is_held: bool) -> bool {
        self.given < self.received.len() || (self.is_readable && !is_held)
    }

    /// Moves on to the next datagram of this turn. `false`: there is none.
    pub(super) fn advance(&mut self, is_held: bool) -> bool {
        if self.given == self.received.len() {
            self.received.clear();
            self.given = 0;
            if is_held || !self.is_readable || self.left_of_turn == 0 {
                return false;
            }
            self.receive();
        }
        self.given += 1;
        self.given <= self.received.len() || {
            self.given = self.received.len();
            false
        }
    }

    /// The datagram that [`advance`](Self::advance) has moved to.
    pub(super) fn current(&self) -> (Peer, &[u8]) {
        let (peer, at, bytes) = self.received[self.given - 1];
        (peer, &self.buffers[at..at + bytes])
    }

    fn receive(&mut self) {
        // SAFETY: all-zero is valid for a sockaddr_storage: of no family.
        let mut names: [libc::sockaddr_storage; BATCH] = unsafe { MaybeUninit::zeroed().assume_init() };
        let mut controls = [Control([0; CONTROL_BYTES]); BATCH];
        // SAFETY: all-zero is valid for iovecs and headers: they name nothing.
        let mut parts: [libc::iovec; BATCH] = unsafe { MaybeUninit::zeroed().assume_init() };
        // SAFETY: as above.
        let mut headers: [libc::mmsghdr; BATCH] = unsafe { MaybeUninit::zeroed().assume_init() };
        for (index, room) in self.buffers.chunks_exact_mut(ROOM_BYTES).enumerate() {
            parts[index] = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
            let header = &mut headers[index].msg_hdr;
            header.msg_name = (&raw mut names[index]).cast();
            header.msg_namelen = name_bytes();
            header.msg_iov = &raw mut parts[index];
            header.msg_iovlen = 1;
            header.msg_control = (&raw mut controls[index]).cast();
            header.msg_controllen = CONTROL_BYTES;
        }
        let batch = u32::try_from(BATCH).expect("64");
        let fd = self.socket.as_raw_fd();
        let none = std::ptr::null_mut();
        // SAFETY: each header names a buffer, an address and control room of its own, all of which live until
        // the call returns.
        let count = unsafe { libc::recvmmsg(fd, headers.as_mut_ptr(), batch, libc::MSG_DONTWAIT, none) };
        let Ok(count) = usize::try_from(count) else {
            // A pending error of an earlier datagram (nobody was there) is given out in place of the next one.
            let error = io::Error::last_os_error();
            self.is_readable = error.kind() != io::ErrorKind::WouldBlock;
            self.left_of_turn -= 1;
            return;
        };
        self.is_readable = count == BATCH;
        self.left_of_turn = self.left_of_turn.saturating_sub(count);
        for index in 0..count {
            let header = &headers[index].msg_hdr;
            let is_whole = header.msg_flags & libc::MSG_TRUNC == 0;
            if let Some(remote) = socket::decode(&names[index]).filter(|_| is_whole) {
                let peer = Peer { remote: plain(remote), local: local_of(header), sealed_at: None };
                let bytes = usize::try_from(headers[index].msg_len).unwrap_or(0).min(ROOM_BYTES);
                self.received.push((peer, index * ROOM_BYTES, bytes));
            }
        }
    }

    /// Notes that a range of the turn's bytes is for `peer`.
    pub(super) fn note(&mut self, peer: Peer, bytes: Range<usize>) {
        self.noted.push((peer, bytes));
    }

    /// Sends what was noted, or keeps it for later.
    pub(super) fn flush(&mut self, bytes: &[u8], is_allowed: bool) {
        if !is_allowed {
            let room = KEPT_MAX.saturating_sub(self.kept.len());
            let kept = self.noted.drain(..).take(room);
            self.kept.extend(kept.map(|(peer, range)| (peer, bytes[range].into())));
            self.noted.clear();
            return;
        }
        if self.kept.is_empty() && self.noted.is_empty() {
            return;
        }
        let kept = std::mem::take(&mut self.kept);
        let noted = std::mem::take(&mut self.noted);
        let is_ipv6 = socket::is_ipv6(&self.socket);
        let all = kept.iter().map(|(peer, bytes)| (*peer, &bytes[..]));
        let all: Vec<(Peer, &[u8])> =
            all.chain(noted.iter().map(|(peer, range)| (*peer, &bytes[range.clone()]))).collect();
        for batch in all.chunks(BATCH) {
            self.send(batch, is_ipv6);
        }
        self.noted = noted;
        self.noted.clear();
    }

    fn send(&self, batch: &[(Peer, &[u8])], is_ipv6: bool) {
        // SAFETY: all-zero is valid for a sockaddr_storage: of no family.
        let mut names: [libc::sockaddr_storage; BATCH] = unsafe { MaybeUninit::zeroed().assume_init() };
        let mut controls = [Control([0; CONTROL_BYTES]); BATCH];
        // SAFETY: all-zero is valid for iovecs and headers: they name nothing.
        let mut parts: [libc::iovec; BATCH] = unsafe { MaybeUninit::zeroed().assume_init() };
        // SAFETY: as above.
        let mut headers: [libc::mmsghdr; BATCH] = unsafe { MaybeUninit::zeroed().assume_init() };
        for (index, (peer, bytes)) in batch.iter().enumerate() {
            let remote = if is_ipv6 { mapped(peer.remote) } else { peer.remote };
            let (name, name_bytes) = socket::encode(remote);
            names[index] = name;
            parts[index] = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
            let header = &mut headers[index].msg_hdr;
            header.msg_name = (&raw mut names[index]).cast();
            header.msg_namelen = name_bytes;
            header.msg_iov = &raw mut parts[index];
            header.msg_iovlen = 1;
            if !peer.local.is_unspecified() && !is_ipv6 {
                header.msg_control = (&raw mut controls[index]).cast();
                header.msg_controllen = CONTROL_BYTES;
                header.msg_controllen = name_sender(header, peer.local);
            }
        }
        let mut sent = 0;
        while sent < batch.len() {
            let rest = u32::try_from(batch.len() - sent).expect("at most 64");
            let first = headers[sent..].as_mut_ptr();
            // SAFETY: each header names a payload, an address and control data that live until the call returns;
            // the call only reads them.
            let count = unsafe { libc::sendmmsg(self.socket.as_raw_fd(), first, rest, libc::MSG_DONTWAIT) };
            match usize::try_from(count) {
                Ok(count) => sent += count,
                Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock => return,
                // This peer cannot be reached; the others can.
                Err(_) => sent += 1,
            }
        }
    }
}

const fn name_bytes() -> libc::socklen_t {
    #[expect(clippy::cast_possible_truncation, reason = "128")]
    let bytes = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    bytes
}

/// An address of IPv4 as such, also where an IPv6 socket says it.
fn plain(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
        IpAddr::V6(_) => address,
    }
}

/// An address as an IPv6 socket says it.
fn mapped(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
        SocketAddr::V6(_) => address,
    }
}

/// To which of our addresses a datagram was sent; unspecified where the kernel was not asked.
fn local_of(header: &libc::msghdr) -> Ipv4Addr {
    // SAFETY: the kernel has filled the control room of this header.
    let mut control = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !control.is_null() {
        // SAFETY: not null, so the kernel has put a whole header there.
        let head = unsafe { control.read() };
        if (head.cmsg_level, head.cmsg_type) == (libc::IPPROTO_IP, libc::IP_PKTINFO) {
            // SAFETY: the place of the data of that header.
            let data = unsafe { libc::CMSG_DATA(control) };
            // SAFETY: data of this type is an in_pktinfo, perhaps not aligned.
            let info = unsafe { data.cast::<libc::in_pktinfo>().read_unaligned() };
            return Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes());
        }
        // SAFETY: as for the first.
        control = unsafe { libc::CMSG_NXTHDR(header, control) };
    }
    Ipv4Addr::UNSPECIFIED
}

/// Says in a header's control room from which of our addresses to send. Returns how much of it is used.
fn name_sender(header: &libc::msghdr, local: Ipv4Addr) -> usize {
    let info = libc::in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(local.octets()) },
        ipi_addr: libc::in_addr { s_addr: 0 },
    };
    let info_bytes = u32::try_from(size_of_val(&info)).expect("12");
    // SAFETY: takes no pointers.
    let (used, length) = (unsafe { libc::CMSG_SPACE(info_bytes) }, control_length(info_bytes));
    assert!(used as usize <= CONTROL_BYTES, "an address is short");
    // SAFETY: the header names control room that is large enough for one.
    let control = unsafe { libc::CMSG_FIRSTHDR(header) };
    let head = libc::cmsghdr { cmsg_len: length, cmsg_level: libc::IPPROTO_IP, cmsg_type: libc::IP_PKTINFO };
    // SAFETY: there is room for a header, and it is aligned.
    unsafe { control.write(head) };
    // SAFETY: the place of the data of that header.
    let data = unsafe { libc::CMSG_DATA(control) };
    // SAFETY: there is room for it behind the header.
    unsafe { data.cast::<libc::in_pktinfo>().write_unaligned(info) };
    used as usize
}

fn control_length(data_bytes: u32) -> usize {
    // SAFETY: takes no pointers.
    unsafe { libc::CMSG_LEN(data_bytes) as usize }
}

#[cfg(test)]
#[expect(clippy::disallowed_types, reason = "the other side")]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use super::*;

    /// Waits for one datagram, as the ring's poll would.
    fn next(net: &mut Datagrams) -> (Peer, Vec<u8>) {
        for _ in 0..1_000 {
            net.begin();
            net.is_readable = true;
            if net.advance(false) {
                let (peer, bytes) = net.current();
                return (peer, bytes.to_vec());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("nothing came");
    }

    fn check_echo(listen: &str, from: &str, to: &str, local: &str) {
        let (sockets, address) = socket::datagram_sockets(listen.parse().unwrap(), 1).unwrap();
        let mut net = Datagrams::new(sockets.into_iter().next().unwrap());
        let client = UdpSocket::bind(from).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        client.connect((to, address.port())).unwrap();
        client.send(b"hello").unwrap();
        let (peer, bytes) = next(&mut net);
        assert_eq!((peer.remote, &bytes[..]), (client.local_addr().unwrap(), &b"hello"[..]));
        assert_eq!(peer.local.to_string(), local);
        for is_allowed in [false, true] {
            let range = if is_allowed { 5..10 } else { 0..5 };
            net.note(peer, range);
            net.flush(b"firstother", is_allowed);
        }
        for expected in [b"first", b"other"] {
            let mut buffer = [0; 16];
            // A connected socket hears only the very address that it has sent to.
            let count = client.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..count], expected);
        }
    }

    #[test]
    fn answers_come_from_the_address_that_was_asked() {
        check_echo("127.0.0.1:0", "127.0.0.1:0", "127.0.0.1", "0.0.0.0");
        check_echo("0.0.0.0:0", "127.0.0.1:0", "127.0.0.5", "127.0.0.5");
    }

    #[test]
    fn a_port_in_use_is_refused_and_one_of_ours_is_shared() {
        let (mine, address) = socket::datagram_sockets("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        assert_eq!(mine.len(), 3);
        let error = socket::datagram_sockets(address, 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_burst_comes_whole_and_in_order() {
        let (sockets, address) = socket::datagram_sockets("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        let mut net = Datagrams::new(sockets.into_iter().next().unwrap());
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        for number in 0..200_u8 {
            client.send_to(&[number; 40], address).unwrap();
        }
        for number in 0..200_u8 {
            assert_eq!(next(&mut net).1, [number; 40]);
        }
        net.begin();
        assert!(!net.advance(false));
    }
}
