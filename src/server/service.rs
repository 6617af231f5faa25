//! What systemd and its like tell a service, and want to hear from it: `sd_notify(3)`, `sd_listen_fds(3)`.
//!
//! The watchdog is fed only while every core answers: a server of which a part hangs is one to restart.

use std::io;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::runtime;

/// The first descriptor that is passed (`SD_LISTEN_FDS_START`).
const FIRST_FD: i32 = 3;

/// Whoever watches over this process, if anybody does.
#[derive(Debug)]
pub struct Service {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Service {
    /// What the environment says.
    #[must_use]
    pub fn find() -> Self {
        let watchdog = number("WATCHDOG_USEC").filter(|_| is_meant("WATCHDOG_PID")).map(Duration::from_micros);
        Self { socket: notify_socket().ok().flatten(), watchdog }
    }

    /// How often it wants to be told that all is well: half of what it waits for at most.
    #[must_use]
    pub fn watchdog_pause(&self) -> Option<Duration> {
        self.watchdog.filter(|_| self.socket.is_some()).map(|watchdog| watchdog / 2)
    }

    /// Clients are served.
    pub fn say_ready(&self, status: &str) {
        self.say(&format!("READY=1\nSTATUS={status}"));
    }

    /// Sessions are ending; it may take so long.
    pub fn say_stopping(&self, longest: Duration) {
        self.say(&format!("STOPPING=1\nSTATUS=draining\nEXTEND_TIMEOUT_USEC={}", longest.as_micros()));
    }

    /// All is well.
    pub fn say_alive(&self) {
        self.say("WATCHDOG=1");
    }

    fn say(&self, text: &str) {
        if let Some((socket, address)) = &self.socket {
            // Who does not listen is not told.
            let _ = socket.send_to_addr(text.as_bytes(), address);
        }
    }
}

/// The first socket that was passed, and how many there are beside it.
#[must_use]
pub fn passed_listener() -> Option<(OwnedFd, u64)> {
    let count = number("LISTEN_FDS").filter(|count| *count > 0 && is_meant("LISTEN_PID"))?;
    Some((runtime::passed(FIRST_FD).ok()?, count - 1))
}

fn notify_socket() -> io::Result<Option<(UnixDatagram, SocketAddr)>> {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(None) };
    let address = match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(&path)?,
    };
    Ok(Some((UnixDatagram::unbound()?, address)))
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Whether a variable that names a process names this one, or is not there.
fn is_meant(name: &str) -> bool {
    std::env::var_os(name).is_none_or(|pid| pid.to_str() == Some(std::process::id().to_string().as_str()))
}
