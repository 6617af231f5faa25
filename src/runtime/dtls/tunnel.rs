//! One tunnel of OpenSSL's, without a socket: it reads what has arrived from a [`Pipe`], and leaves there what it has
//! to say.

use std::ffi::{c_int, c_long};
use std::io::{self, Read, Write};
use std::sync::{Mutex, OnceLock, PoisonError};

use foreign_types::ForeignTypeRef as _;
use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::ssl::{ErrorCode, ShutdownState, Ssl, SslContext, SslContextBuilder, SslRef, SslStream};

use super::cookies::{COOKIE_BYTES, Good};
use super::records;

/// The largest datagram of a handshake: what IPv6 carries everywhere (1,280), less its heads.
const HANDSHAKE_DATAGRAM_BYTES_MAX: u32 = 1_232;
/// The most plain text that one record has (RFC 6347 section 4.1); no datagram brings more.
const RECORD_BYTES_MAX: usize = 2_048;
/// Bytes of the nonce and the tag of a sealed record, where the suite has 8 and 16.
const SEALED_BYTES_MIN: usize = 24;
/// The same where it has 8 and 8 (CCM-8), or none and 16 (ChaCha20-Poly1305).
const SEALED_BYTES_MIN_SHORT: usize = 16;
/// "Handle a timeout", of dtls1.h.
const DTLS_CTRL_HANDLE_TIMEOUT: c_int = 74;

unsafe extern "C" {
    fn DTLSv1_listen(tunnel: *mut openssl_sys::SSL, client: *mut BioAddress) -> c_int;
    fn BIO_ADDR_new() -> *mut BioAddress;
    fn BIO_ADDR_free(address: *mut BioAddress);
}

/// OpenSSL's own.
#[repr(C)]
struct BioAddress {
    _private: [u8; 0],
}

/// Where a listener finds which cookies are good.
fn good_index() -> Index<Ssl, Mutex<Good>> {
    static INDEX: OnceLock<Index<Ssl, Mutex<Good>>> = OnceLock::new();
    *INDEX.get_or_init(|| Ssl::new_ex_index().expect("there are indices until the memory is full"))
}

fn good_of(tunnel: &SslRef) -> Option<Good> {
    // One thread at a time has a tunnel: the lock is there for the types and never waits.
    tunnel.ex_data(good_index()).map(|good| *good.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Has tunnels give and take the cookies that [`Listener::hear`] is told.
pub(super) fn set_cookies(builder: &mut SslContextBuilder) {
    builder.set_cookie_generate_cb(|tunnel, room| {
        let good = good_of(tunnel).ok_or_else(ErrorStack::get)?;
        room.get_mut(..COOKIE_BYTES).ok_or_else(ErrorStack::get)?.copy_from_slice(&good.fresh);
        Ok(COOKIE_BYTES)
    });
    builder.set_cookie_verify_cb(|tunnel, cookie| {
        let Some(good) = good_of(tunnel) else { return false };
        let is = |expected: &[u8]| cookie.len() == COOKIE_BYTES && openssl::memcmp::eq(cookie, expected);
        is(&good.fresh) || is(&good.last)
    });
}

/// What a tunnel takes for a socket.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    pub(super) arrived: Vec<u8>,
    pub(super) written: Vec<Box<[u8]>>,
}

impl Read for Pipe {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        if self.arrived.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        // A datagram is read whole, or cut.
        let arrived = std::mem::take(&mut self.arrived);
        let count = arrived.len().min(room.len());
        room[..count].copy_from_slice(&arrived[..count]);
        Ok(count)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.written.push(bytes.into());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn fresh_stream(context: &SslContext) -> Result<SslStream<Pipe>, ErrorStack> {
    let mut ssl = Ssl::new(context)?;
    ssl.set_mtu(HANDSHAKE_DATAGRAM_BYTES_MAX)?;
    ssl.set_ex_data(good_index(), Mutex::default());
    ssl.set_accept_state();
    SslStream::new(ssl, Pipe::default())
}

/// Waits for a `ClientHello` that brings its cookie back.
pub(super) struct Listener(SslStream<Pipe>);

/// What a [`Listener`] makes of a datagram.
pub(super) enum Heard {
    /// Nothing that would be remembered; this may be answered.
    Nothing(Listener, Vec<Box<[u8]>>),
    /// Somebody who receives wants a tunnel.
    Hello(Tunnel),
}

impl Listener {
    pub(super) fn new(context: &SslContext) -> Result<Self, String> {
        fresh_stream(context).map(Self).map_err(|error| error.to_string())
    }

    pub(super) fn hear(self, datagram: &[u8], good: Good) -> Heard {
        let Self(mut stream) = self;
        stream.get_mut().arrived = datagram.to_vec();
        if let Some(place) = stream.ssl().ex_data(good_index()) {
            *place.lock().unwrap_or_else(PoisonError::into_inner) = good;
        }
        // SAFETY: takes nothing, gives memory or null.
        let client = unsafe { BIO_ADDR_new() };
        assert!(!client.is_null(), "there is memory for an address");
        // SAFETY: the tunnel and the address live; nobody else has them.
        let count = unsafe { DTLSv1_listen(stream.ssl().as_ptr(), client) };
        // SAFETY: it was made above and is not used any more.
        unsafe { BIO_ADDR_free(client) };
        let _told_by_the_count = ErrorStack::get();
        if count >= 1 {
            return Heard::Hello(Tunnel(stream));
        }
        let pipe = stream.get_mut();
        pipe.arrived.clear();
        let answer = std::mem::take(&mut pipe.written);
        Heard::Nothing(Self(stream), answer)
    }
}

/// A tunnel, established or to be.
pub(super) struct Tunnel(SslStream<Pipe>);

impl Tunnel {
    /// A step of the handshake. `Ok`: whether it is done.
    pub(super) fn shake(&mut self, datagram: &[u8]) -> Result<bool, String> {
        let arrived = &mut self.0.get_mut().arrived;
        records::sift(datagram, SEALED_BYTES_MIN, true, arrived);
        match self.0.accept() {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.code(), ErrorCode::WANT_READ | ErrorCode::WANT_WRITE) => Ok(false),
            Err(error) => Err(error.to_string()),
        }
    }

    /// How short a sealed record may be: nonce and tag.
    fn sealed_bytes_min(&self) -> usize {
        let suite = self.0.ssl().current_cipher().map_or("", |suite| suite.name());
        if suite.ends_with("CCM8") || suite.contains("CHACHA20") { SEALED_BYTES_MIN_SHORT } else { SEALED_BYTES_MIN }
    }

    /// Sends the last flight again if nothing has come of it for long. `false`: that was tried too often.
    pub(super) fn look_after(&mut self) -> bool {
        let raw = self.0.ssl().as_ptr();
        // SAFETY: the tunnel lives, and nobody else has it.
        let handled = unsafe { openssl_sys::SSL_ctrl(raw, DTLS_CTRL_HANDLE_TIMEOUT, 0, std::ptr::null_mut()) };
        let _told_by_the_result = ErrorStack::get();
        let failed: c_long = -1;
        handled != failed
    }

    /// Opens a datagram, appending what was in its records to `opened`; tells where each ends. `false`: the tunnel
    /// is at its end.
    pub(super) fn open(&mut self, datagram: &[u8], opened: &mut Vec<u8>, mut tell: impl FnMut(usize)) -> bool {
        let body_min = self.sealed_bytes_min();
        records::sift(datagram, body_min, false, &mut self.0.get_mut().arrived);
        loop {
            let start = opened.len();
            opened.resize(start + RECORD_BYTES_MAX, 0);
            let read = self.0.ssl_read(&mut opened[start..]);
            opened.truncate(start + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => return true,
                Ok(_) => tell(opened.len()),
                Err(error) => {
                    let is_over = self.0.get_shutdown().contains(ShutdownState::RECEIVED);
                    if is_over {
                        let _farewell_or_none = self.0.shutdown();
                    }
                    return !is_over && matches!(error.code(), ErrorCode::WANT_READ | ErrorCode::WANT_WRITE);
                }
            }
        }
    }

    /// Seals one datagram.
    pub(super) fn seal(&mut self, bytes: &[u8]) {
        // What cannot be sealed is lost, as datagrams are.
        let _sealed_or_lost = self.0.ssl_write(bytes);
    }

    /// What it has to say, as datagrams.
    pub(super) fn take_written(&mut self) -> Vec<Box<[u8]>> {
        std::mem::take(&mut self.0.get_mut().written)
    }
}
