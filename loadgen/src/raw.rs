//! The least server that answers: what a request costs when nothing is done but receiving and sending.
//!
//! One thread, one epoll set, one `recv` and one `send` for each request, frames unmasked and nothing read of them but
//! the request's number; a write goes to everybody who has ever listened, whatever it was to, encoded once. It keeps
//! nothing and speaks no last words: it is there to be compared with, and no server can do much better.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};
use stillhere::wire::{Input, http, ws};

const BACKLOG: i32 = 4_096;
const EVENTS_MAX: usize = 1_024;
const READ_BYTES: usize = 64 * 1024;
/// The socket that listens, among the numbers of connections.
const LISTENER: u64 = u64::MAX;

/// What a client is told first.
const HELLO: &[u8] = br#"{"t":"c","d":{"t":"h","d":{"ts":1700000000000,"v":"5","h":"raw","s":"raw"}}}"#;

#[derive(Debug)]
struct Conn {
    fd: OwnedFd,
    head: Option<http::Reader>,
    frames: ws::Reader,
    unsent: Vec<u8>,
}

/// Answers at `address` for ever.
///
/// # Errors
/// When the kernel fails us.
pub fn serve(address: SocketAddr) -> io::Result<()> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let listener = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&listener, true)?;
    // Connections inherit it.
    sockopt::set_tcp_nodelay(&listener, true)?;
    rustix::net::bind(&listener, &address)?;
    rustix::net::listen(&listener, BACKLOG)?;
    let set = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&set, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let own = SocketAddr::try_from(rustix::net::getsockname(&listener)?)?;
    writeln!(io::stdout(), "ready tcp={own}")?;
    let mut server =
        Server { set, listener, conns: Vec::new(), free: Vec::new(), listeners: Vec::new(), room: vec![0; READ_BYTES] };
    let mut events = Vec::with_capacity(EVENTS_MAX);
    loop {
        events.clear();
        match epoll::wait(&server.set, rustix::buffer::spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            server.look(event)?;
        }
    }
}

struct Server {
    set: OwnedFd,
    listener: OwnedFd,
    conns: Vec<Option<Conn>>,
    free: Vec<usize>,
    /// Those who listen.
    listeners: Vec<usize>,
    room: Vec<u8>,
}

impl Server {
    fn look(&mut self, event: &Event) -> io::Result<()> {
        let (number, flags) = (event.data.u64(), event.flags);
        if number == LISTENER {
            return self.accept();
        }
        let index = usize::try_from(number).expect("it was an index");
        if flags.contains(EventFlags::OUT)
            && let Some(conn) = self.conns.get_mut(index).and_then(Option::as_mut)
        {
            let unsent = std::mem::take(&mut conn.unsent);
            epoll::modify(&self.set, &conn.fd, EventData::new_u64(number), EventFlags::IN)?;
            self.send(index, &unsent);
        }
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            self.read(index);
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            // Nobody is left; or there is no room, and whoever does not get in is not part of the comparison.
            let Ok(fd) = rustix::net::accept_with(&self.listener, flags) else { return Ok(()) };
            let index = self.free.pop().unwrap_or_else(|| {
                self.conns.push(None);
                self.conns.len() - 1
            });
            epoll::add(&self.set, &fd, EventData::new_u64(index as u64), EventFlags::IN)?;
            let head = Some(http::Reader::default());
            self.conns[index] = Some(Conn { fd, head, frames: ws::Reader::for_server(), unsent: Vec::new() });
        }
    }

    fn read(&mut self, index: usize) {
        let Some(conn) = self.conns.get_mut(index).and_then(Option::as_mut) else { return };
        let count = match rustix::net::recv(&conn.fd, &mut self.room[..], RecvFlags::empty()) {
            Ok((count, _)) if count > 0 => count,
            Err(Errno::AGAIN | Errno::INTR) => return,
            Ok(_) | Err(_) => return self.close(index),
        };
        let mut room = std::mem::take(&mut self.room);
        let mut answer = Vec::new();
        let mut pushes = Vec::new();
        let is_listening = conn.hear(&mut room[..count], &mut answer, &mut pushes);
        self.room = room;
        match is_listening {
            Some(true) => self.listeners.push(index),
            Some(false) => {}
            None => return self.close(index),
        }
        self.send(index, &answer);
        if !pushes.is_empty() {
            for listener in std::mem::take(&mut self.listeners) {
                if self.conns[listener].is_some() {
                    self.send(listener, &pushes);
                    self.listeners.push(listener);
                }
            }
        }
    }

    fn send(&mut self, index: usize, bytes: &[u8]) {
        let Some(conn) = self.conns.get_mut(index).and_then(Option::as_mut).filter(|_| !bytes.is_empty()) else {
            return;
        };
        let sent = if conn.unsent.is_empty() {
            match rustix::net::send(&conn.fd, bytes, SendFlags::NOSIGNAL) {
                Ok(sent) => sent,
                Err(Errno::AGAIN | Errno::INTR) => 0,
                Err(_) => return self.close(index),
            }
        } else {
            0
        };
        if sent < bytes.len() {
            conn.unsent.extend_from_slice(&bytes[sent..]);
            let flags = EventFlags::IN | EventFlags::OUT;
            let _gone = epoll::modify(&self.set, &conn.fd, EventData::new_u64(index as u64), flags);
        }
    }

    fn close(&mut self, index: usize) {
        if self.conns[index].take().is_some() {
            self.listeners.retain(|listener| *listener != index);
            self.free.push(index);
        }
    }
}

impl Conn {
    /// Takes in what has come. Says whether it was a listen; `None` when there is no sense in it.
    fn hear(&mut self, bytes: &mut [u8], answer: &mut Vec<u8>, pushes: &mut Vec<u8>) -> Option<bool> {
        let mut input = Input::new(bytes);
        if let Some(heads) = &mut self.head {
            let Some(head) = heads.next(&mut input).ok()? else { return Some(false) };
            http::Upgrade::read(&head).ok()?.write(answer);
            ws::write(answer, ws::Kind::Text, HELLO);
            self.head = None;
        }
        let mut is_listening = false;
        while let Some(frame) = self.frames.next(&mut input).ok()? {
            match frame {
                ws::Frame::Pong(_) => {}
                // A sign of life.
                ws::Frame::Text(message) if *message == *b"0" => {}
                ws::Frame::Text(message) => {
                    is_listening |= action(message) == Some(b'q');
                    let text = std::str::from_utf8(message).ok()?;
                    ok(answer, number(text)?);
                    if action(text.as_bytes()) == Some(b'p') {
                        let body = text.split_once(r#""b":"#)?.1.strip_suffix("}}")?;
                        ws::write(
                            pushes,
                            ws::Kind::Text,
                            format!(r#"{{"t":"d","d":{{"a":"d","b":{body}}}}}"#).as_bytes(),
                        );
                    }
                }
                ws::Frame::Ping(payload) => ws::write(answer, ws::Kind::Pong, payload),
                ws::Frame::Close { .. } | ws::Frame::Binary(_) => return None,
            }
        }
        Some(is_listening)
    }
}

fn ok(out: &mut Vec<u8>, number: &str) {
    ws::write(out, ws::Kind::Text, format!(r#"{{"t":"d","d":{{"r":{number},"b":{{"s":"ok","d":""}}}}}}"#).as_bytes());
}

/// The number of a request.
fn number(message: &str) -> Option<&str> {
    let rest = message.split_once(r#""r":"#)?.1;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    Some(&rest[..digits])
}

/// The first letter of what a request asks for.
fn action(message: &[u8]) -> Option<u8> {
    let at = message.windows(5).position(|window| window == br#""a":""#)?;
    message.get(at + 5).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matters_of_a_request_is_found() {
        let put = r#"{"t":"d","d":{"r":12,"a":"p","b":{"p":"a/b","d":7}}}"#;
        assert_eq!((number(put), action(put.as_bytes())), (Some("12"), Some(b'p')));
        assert_eq!((number("{}"), action(b"{}")), (None, None));
        let mut out = Vec::new();
        ok(&mut out, "12");
        assert_eq!(&out[2..], br#"{"t":"d","d":{"r":12,"b":{"s":"ok","d":""}}}"#);
    }
}
