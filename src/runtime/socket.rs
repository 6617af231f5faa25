//! The plain system calls: listening, receiving, sending, and what the process may use.
//!
//! Sockets here are in blocking mode and every call says `MSG_DONTWAIT` instead: one `fcntl` less for
//! each connection.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use crate::base::Millis;

/// Connections that may wait to be accepted, per core. The kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4_096;
/// What the kernel may keep of datagrams that have come or are to go, per core: a device that has been waiting
/// for its session sends some thirty at once.
const DATAGRAM_ROOM_BYTES: i32 = 8 * 1024 * 1024;

/// Sockets that listen at one address, one for each core, and the address with its port. Connections are
/// broken when what was sent stays unacknowledged for `unanswered_max`.
///
/// # Errors
/// The kernel's, for instance when the address is in use or not ours.
pub(super) fn listeners(
    address: SocketAddr,
    count: usize,
    unanswered_max: Millis,
) -> io::Result<(Vec<OwnedFd>, SocketAddr)> {
    // The kernel lets a second server of the same user share the port without a word. A socket that does
    // not share finds out whether somebody listens already, picks the port if we may choose, and holds
    // it until ours are bound.
    let claim = bound(address, Sharing::No)?;
    let address = own_address(&claim)?;
    let sockets: io::Result<Vec<OwnedFd>> = (0..count)
        .map(|_| {
            let socket = bound(address, Sharing::BetweenCores)?;
            let unanswered_ms = i32::try_from(unanswered_max.0).unwrap_or(i32::MAX);
            set(&socket, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, unanswered_ms)?;
            // SAFETY: takes no pointers.
            checked(unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) })?;
            Ok(socket)
        })
        .collect();
    Ok((sockets?, address))
}

/// A socket that listens already and that this process was started with, for each core, and its address.
///
/// # Errors
/// It is no TCP socket, or the process has no file descriptor left.
pub(super) fn passed_listeners(
    socket: &OwnedFd,
    count: usize,
    unanswered_max: Millis,
) -> io::Result<(Vec<OwnedFd>, SocketAddr)> {
    let address = own_address(socket)?;
    let unanswered_ms = i32::try_from(unanswered_max.0).unwrap_or(i32::MAX);
    set(socket, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, unanswered_ms)?;
    set(socket, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    // SAFETY: takes no pointers. It may listen already: then only its queue gets longer.
    checked(unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) })?;
    let sockets: io::Result<Vec<OwnedFd>> = (0..count).map(|_| socket.try_clone()).collect();
    Ok((sockets?, address))
}

/// A descriptor that this process was started with, from now on owned and closed for programs that it starts.
///
/// # Errors
/// There is none of this number.
pub fn passed(fd: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
    checked(flags)?;
    // SAFETY: takes no pointers.
    checked(unsafe { libc::fcntl(fd, libc::F_SETFD, flags | libc::FD_CLOEXEC) })?;
    // SAFETY: it is open, and whoever passed it wants this process to have it: nobody else here has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sockets for datagrams at one address, one for each core, and the address with its port.
///
/// # Errors
/// The kernel's, for instance when the address is in use or not ours.
pub(super) fn datagram_sockets(address: SocketAddr, count: usize) -> io::Result<(Vec<OwnedFd>, SocketAddr)> {
    // As above; but of datagram sockets the kernel lets none in beside one that does not share, so this one
    // has to go before ours come.
    let claim = datagram_socket(address, Sharing::No)?;
    let address = own_address(&claim)?;
    drop(claim);
    let sockets: io::Result<Vec<OwnedFd>> =
        (0..count).map(|_| datagram_socket(address, Sharing::BetweenCores)).collect();
    Ok((sockets?, address))
}

fn datagram_socket(address: SocketAddr, sharing: Sharing) -> io::Result<OwnedFd> {
    let socket = new_socket(address, libc::SOCK_DGRAM)?;
    if sharing == Sharing::BetweenCores {
        set(&socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        // The kernel gives less where it allows less; then a burst may lose more.
        for option in [libc::SO_RCVBUF, libc::SO_SNDBUF] {
            set(&socket, libc::SOL_SOCKET, option, DATAGRAM_ROOM_BYTES)?;
        }
    }
    if address.is_ipv4() && address.ip().is_unspecified() {
        set(&socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
    }
    bind(&socket, address)?;
    Ok(socket)
}

/// Whether a socket is one for IPv6, which names peers of IPv4 in its own way.
pub(super) fn is_ipv6(socket: &OwnedFd) -> bool {
    own_address(socket).is_ok_and(|address| address.is_ipv6())
}

/// Who may bind the same address.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    No,
    BetweenCores,
}

/// A TCP socket at `address`, not listening yet. Connections inherit its options.
fn bound(address: SocketAddr, sharing: Sharing) -> io::Result<OwnedFd> {
    let socket = new_socket(address, libc::SOCK_STREAM)?;
    set(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    if sharing == Sharing::BetweenCores {
        set(&socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        set(&socket, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    }
    bind(&socket, address)?;
    Ok(socket)
}

fn new_socket(address: SocketAddr, kind: i32) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: takes no pointers.
    let fd = checked(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the descriptor was just made and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bind(socket: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    let (raw, raw_bytes) = encode(address);
    // SAFETY: `raw` holds an address of `raw_bytes` bytes.
    checked(unsafe { libc::bind(socket.as_raw_fd(), (&raw const raw).cast(), raw_bytes) })?;
    Ok(())
}

fn set(socket: &OwnedFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    let bytes = libc::socklen_t::try_from(size_of::<i32>()).expect("four");
    // SAFETY: the option takes an i32, and `value` is one.
    checked(unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), bytes) })?;
    Ok(())
}

/// Takes what has arrived; 0 when the peer has finished.
///
/// # Errors
/// `WouldBlock` when nothing has arrived; others mean that the connection is broken.
pub(super) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: `buffer` is writable for its length.
    let count = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// Sends as much as the kernel takes of `parts`, in order; at most 1,024 parts. With `has_more` the kernel may wait
/// for what follows before a packet leaves.
///
/// # Errors
/// `WouldBlock` when the kernel takes nothing; others mean that the connection is broken.
pub(super) fn send(socket: BorrowedFd<'_>, parts: &[IoSlice<'_>], has_more: bool) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | if has_more { libc::MSG_MORE } else { 0 };
    let count = if let [part] = parts {
        // SAFETY: `part` is readable for its length.
        unsafe { libc::send(socket.as_raw_fd(), part.as_ptr().cast(), part.len(), flags) }
    } else {
        // SAFETY: all-zero is a valid msghdr: no name, no parts, no control data.
        let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
        message.msg_iov = parts.as_ptr().cast_mut().cast();
        message.msg_iovlen = parts.len();
        // SAFETY: an IoSlice has the layout of an iovec, and the call only reads them and what they name.
        unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, flags) }
    };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// Tells the peer that no more will come.
pub(super) fn finish_sending(socket: BorrowedFd<'_>) {
    // Fails only if the connection is gone; then there is nobody to tell.
    // SAFETY: takes no pointers.
    let _told_or_gone = unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_WR) };
}

/// Ends both directions: who waits for the socket in the kernel is answered.
pub(super) fn shut_down(socket: BorrowedFd<'_>) {
    // Fails only if the connection is gone; then nobody waits.
    // SAFETY: takes no pointers.
    let _done_or_gone = unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RDWR) };
}

/// The other side's address.
///
/// # Errors
/// When the connection is gone already.
pub(super) fn peer_address(socket: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    address_by(|raw, bytes| {
        // SAFETY: `raw` is writable for `bytes` bytes, and both are valid.
        unsafe { libc::getpeername(socket.as_raw_fd(), raw, bytes) }
    })
}

fn own_address(socket: &OwnedFd) -> io::Result<SocketAddr> {
    address_by(|raw, bytes| {
        // SAFETY: `raw` is writable for `bytes` bytes, and both are valid.
        unsafe { libc::getsockname(socket.as_raw_fd(), raw, bytes) }
    })
}

fn address_by(ask: impl FnOnce(*mut libc::sockaddr, *mut libc::socklen_t) -> i32) -> io::Result<SocketAddr> {
    // SAFETY: all-zero is a valid sockaddr_storage: of no family.
    let mut raw: libc::sockaddr_storage = unsafe { MaybeUninit::zeroed().assume_init() };
    let mut bytes = libc::socklen_t::try_from(size_of_val(&raw)).expect("128");
    checked(ask((&raw mut raw).cast(), &raw mut bytes))?;
    decode(&raw).ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))
}

pub(super) fn encode(address: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: all-zero is a valid sockaddr_storage: of no family.
    let mut raw: libc::sockaddr_storage = unsafe { MaybeUninit::zeroed().assume_init() };
    let bytes = match address {
        SocketAddr::V4(v4) => {
            let own = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: a sockaddr_storage is large enough and aligned for every kind of address.
            unsafe { (&raw mut raw).cast::<libc::sockaddr_in>().write(own) };
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(v6) => {
            let own = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: a sockaddr_storage is large enough and aligned for every kind of address.
            unsafe { (&raw mut raw).cast::<libc::sockaddr_in6>().write(own) };
            size_of::<libc::sockaddr_in6>()
        }
    };
    (raw, libc::socklen_t::try_from(bytes).expect("at most 128"))
}

pub(super) fn decode(raw: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(raw.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says which kind of address it holds.
            let own = unsafe { (&raw const *raw).cast::<libc::sockaddr_in>().read() };
            let ip = Ipv4Addr::from(own.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddrV4::new(ip, u16::from_be(own.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the family says which kind of address it holds.
            let own = unsafe { (&raw const *raw).cast::<libc::sockaddr_in6>().read() };
            let ip = Ipv6Addr::from(own.sin6_addr.s6_addr);
            Some(SocketAddrV6::new(ip, u16::from_be(own.sin6_port), own.sin6_flowinfo, own.sin6_scope_id).into())
        }
        _ => None,
    }
}

/// Raises the number of files that this process may have open to what it is allowed to ask for, and
/// says how many that are.
///
/// # Errors
/// The kernel's.
pub(super) fn raise_open_files() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is writable.
    checked(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: `limit` is readable.
        checked(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    }
    Ok(limit.rlim_cur)
}

/// The cores that this process may run on, in ascending order.
#[must_use]
pub(super) fn allowed_cores() -> Vec<usize> {
    // SAFETY: all-zero is a valid cpu_set_t: the empty one.
    let mut set: libc::cpu_set_t = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: `set` is writable for its size; 0 is this thread.
    if unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) } != 0 {
        return Vec::new();
    }
    let cores = 0..usize::try_from(libc::CPU_SETSIZE).expect("1,024");
    // SAFETY: every core asked for is below CPU_SETSIZE.
    cores.filter(|&core| unsafe { libc::CPU_ISSET(core, &set) }).collect()
}

fn checked(code: i32) -> io::Result<i32> {
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(code) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Millis = Millis::from_secs(45);

    #[test]
    fn addresses_survive_the_kernel_s_form() {
        for text in ["127.0.0.1:80", "0.0.0.0:0", "255.1.2.3:65535", "[::1]:9000", "[fe80::1%7]:443"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(decode(&encode(address).0), Some(address), "{text}");
        }
    }

    #[test]
    fn a_port_in_use_is_refused_and_one_of_ours_is_shared() {
        let (mine, address) = listeners("127.0.0.1:0".parse().unwrap(), 3, PATIENCE).unwrap();
        assert_eq!(mine.len(), 3);
        assert_ne!(address.port(), 0);
        let error = listeners(address, 1, PATIENCE).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(mine);
        assert_eq!(listeners(address, 1, PATIENCE).unwrap().1, address);
    }

    #[test]
    fn foreign_addresses_are_refused() {
        // TEST-NET-1 of RFC 5737.
        assert!(listeners("192.0.2.1:0".parse().unwrap(), 1, PATIENCE).is_err());
    }
}
