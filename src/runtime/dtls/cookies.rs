//! The cookies that first `ClientHello`s are answered with (RFC 6347 section 4.2.1): a keyed hash of the address,
//! so that nothing has to be remembered of who asks. The key changes; the last one is good for one more span.

use std::net::{IpAddr, SocketAddr};

use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::sign::Signer;

use crate::base::{Instant, Millis};

/// Bytes of a cookie: more than anybody tries.
pub(super) const COOKIE_BYTES: usize = 16;
/// How long a key is used. A device answers a cookie within seconds.
const KEY_SPAN: Millis = Millis(60_000);

/// What a client at one address may bring back: the cookie of now, and the one of the key before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Good {
    pub(super) fresh: [u8; COOKIE_BYTES],
    pub(super) last: [u8; COOKIE_BYTES],
}

/// The keys.
pub(super) struct Cookies {
    key: PKey<Private>,
    last: PKey<Private>,
    turned: Instant,
}

impl Cookies {
    pub(super) fn new() -> Self {
        Self { key: fresh_key(), last: fresh_key(), turned: Instant(0) }
    }

    /// Changes the key when it is time.
    pub(super) fn turn(&mut self, now: Instant) {
        if now.since(self.turned) >= KEY_SPAN {
            self.last = std::mem::replace(&mut self.key, fresh_key());
            self.turned = now;
        }
    }

    /// The cookies of an address.
    pub(super) fn of(&self, remote: SocketAddr) -> Good {
        let mut text = [0; 18];
        match remote.ip() {
            IpAddr::V4(ip) => text[..16].copy_from_slice(&ip.to_ipv6_mapped().octets()),
            IpAddr::V6(ip) => text[..16].copy_from_slice(&ip.octets()),
        }
        text[16..].copy_from_slice(&remote.port().to_be_bytes());
        Good { fresh: cookie(&self.key, &text), last: cookie(&self.last, &text) }
    }
}

fn cookie(key: &PKey<Private>, text: &[u8]) -> [u8; COOKIE_BYTES] {
    let mut hash = [0; 32];
    let signer = Signer::new(MessageDigest::sha256(), key);
    let bytes = signer.and_then(|mut signer| signer.sign_oneshot(&mut hash, text));
    assert_eq!(bytes.ok(), Some(hash.len()), "a keyed hash needs nothing but memory");
    let mut cookie = [0; COOKIE_BYTES];
    cookie.copy_from_slice(&hash[..COOKIE_BYTES]);
    cookie
}

fn fresh_key() -> PKey<Private> {
    let mut secret = [0; 32];
    openssl::rand::rand_bytes(&mut secret).expect("the machine has randomness: the engines are seeded from it");
    PKey::hmac(&secret).expect("any bytes are a key of a keyed hash")
}

/// A seed for tables that strangers can fill.
pub(super) fn seed() -> [u64; 4] {
    std::array::from_fn(|_| {
        let mut word = [0; 8];
        openssl::rand::rand_bytes(&mut word).expect("the machine has randomness: the engines are seeded from it");
        u64::from_ne_bytes(word)
    })
}
