//! How much there may be of what clients can make: for a database, and for an address.
//!
//! The surprising idea: what must be counted over all cores is counted in slots that a keyed hash chooses, in
//! one table of fixed size: no locks, and nobody can make it grow. Two names share a slot once in 65,536; then
//! their counts are one, so a quota may be reached too early, never too late.
//!
//! Costs: 256 KiB for all cores; one atomic addition when a session or a connection comes and one when it goes.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::Engine;
use crate::base::{ConnId, Hashing, Instant, Map, Millis, Now};
use crate::op::{Identity, Namespace, Refusal, Request};

/// Slots of each table.
const SLOTS: usize = 1 << 16;

/// How much there may be. What is `None` is not limited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// In databases that `named` does not name.
    pub everywhere: Quota,
    /// In some databases.
    pub named: BTreeMap<String, Quota>,
    /// Connections from one address (of IPv6: from one /64) at a time.
    pub connections_per_address: Option<u32>,
    /// Over how long the sessions end when the server stops: not all at once come back at once.
    pub drain_spread: Millis,
}

/// How much there may be in one database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Sessions at a time, those of plain requests not counted.
    pub sessions_max: Option<u32>,
    /// Last words that wait, each path of an update counted.
    pub last_words_max: Option<u32>,
    /// Writes of clients; one second's may come at once. Administrators' and last words do not count.
    pub writes_per_second: Option<u32>,
}

impl Limits {
    /// What holds in a database.
    #[must_use]
    pub fn of(&self, namespace: &str) -> &Quota {
        self.named.get(namespace).unwrap_or(&self.everywhere)
    }
}

/// What all cores count together.
#[derive(Debug)]
pub struct Usage {
    hashing: Hashing,
    sessions: Box<[AtomicU32]>,
    addresses: Box<[AtomicU32]>,
}

impl Usage {
    /// Nothing is there yet. The seed is nobody's to know.
    #[must_use]
    pub fn new(seed: [u64; 4]) -> Self {
        let slots = || (0..SLOTS).map(|_| AtomicU32::new(0)).collect();
        Self { hashing: Hashing::from_seed(seed), sessions: slots(), addresses: slots() }
    }

    fn slot(&self, hash: u64) -> usize {
        usize::try_from(hash % SLOTS as u64).expect("there are fewer slots than a usize counts")
    }
}

/// One more, unless there are so many.
fn take(slot: &AtomicU32, max: Option<u32>) -> bool {
    let before = slot.fetch_add(1, Ordering::Relaxed);
    let is_room = max.is_none_or(|max| before < max);
    if !is_room {
        slot.fetch_sub(1, Ordering::Relaxed);
    }
    is_room
}

/// Who pays attention to quotas on one core.
#[derive(Debug)]
pub(super) struct Warden {
    pub(super) limits: Arc<Limits>,
    usage: Option<Arc<Usage>>,
    /// Where connections come from that are counted.
    origins: BTreeMap<ConnId, Origin>,
    /// Of databases that stand here and whose writes are counted.
    buckets: Map<Namespace, Bucket>,
}

#[derive(Debug)]
struct Origin {
    slot: usize,
    /// It was one too many: it is told so when it asks for something.
    is_unwelcome: bool,
}

/// What of a second's writes is left, in thousandths of a write.
#[derive(Debug)]
struct Bucket {
    left: u64,
    seen: Instant,
}

impl Warden {
    pub(super) fn new(hashing: &Hashing) -> Self {
        Self { limits: Arc::default(), usage: None, origins: BTreeMap::new(), buckets: hashing.map() }
    }

    /// Whether something in a database is counted that its owner counts.
    pub(super) fn counts_in(&self, namespace: &str) -> bool {
        let quota = self.limits.of(namespace);
        quota.writes_per_second.is_some() || quota.last_words_max.is_some()
    }

    /// A session comes into a database. `false`: it may not.
    pub(super) fn session_comes(&self, namespace: &Namespace) -> bool {
        let Some(usage) = &self.usage else { return true };
        let slot = usage.slot(usage.hashing.hash_one(&**namespace));
        take(&usage.sessions[slot], self.limits.of(namespace).sessions_max)
    }

    /// A session that had come goes.
    pub(super) fn session_goes(&self, namespace: &Namespace) {
        let Some(usage) = &self.usage else { return };
        usage.sessions[usage.slot(usage.hashing.hash_one(&**namespace))].fetch_sub(1, Ordering::Relaxed);
    }

    /// A connection comes. Says whether it was one too many.
    pub(super) fn connection_comes(&mut self, conn: ConnId, peer: SocketAddr) -> bool {
        let (Some(usage), Some(max)) = (&self.usage, self.limits.connections_per_address) else { return false };
        let slot = usage.slot(usage.hashing.hash_one(origin(peer.ip())));
        let is_unwelcome = !take(&usage.addresses[slot], Some(max));
        self.origins.insert(conn, Origin { slot, is_unwelcome });
        is_unwelcome
    }

    pub(super) fn connection_goes(&mut self, conn: ConnId) {
        let Some(origin) = self.origins.remove(&conn) else { return };
        if let Some(usage) = self.usage.as_ref().filter(|_| !origin.is_unwelcome) {
            usage.addresses[origin.slot].fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub(super) fn is_unwelcome(&self, conn: ConnId) -> bool {
        self.origins.get(&conn).is_some_and(|origin| origin.is_unwelcome)
    }

    /// Whether a database's quotas allow what is asked. `last_words` wait there already.
    pub(super) fn admit(
        &mut self,
        now: Now,
        namespace: &Namespace,
        identity: &Identity,
        request: &Request,
        last_words: impl FnOnce() -> usize,
    ) -> Result<(), Refusal> {
        let quota = *self.limits.of(namespace);
        match request {
            Request::Write { .. } | Request::Exchange { .. } if !identity.is_admin => match quota.writes_per_second {
                Some(rate) if !self.has_write(now, namespace, rate) => {
                    Err(Refusal::Limit("too many writes per second in this database"))
                }
                _ => Ok(()),
            },
            Request::MayWrite { .. } if quota.last_words_max.is_some_and(|max| last_words() >= max as usize) => {
                Err(Refusal::Limit("too many onDisconnect operations in this database"))
            }
            _ => Ok(()),
        }
    }

    fn has_write(&mut self, now: Now, namespace: &Namespace, rate: u32) -> bool {
        const WRITE: u64 = 1_000;
        let full = u64::from(rate) * WRITE;
        let full_bucket = || Bucket { left: full, seen: now.instant };
        let bucket = self.buckets.entry(namespace.clone()).or_insert_with(full_bucket);
        let earned = now.instant.since(bucket.seen).0.saturating_mul(u64::from(rate));
        bucket.left = bucket.left.saturating_add(earned).min(full);
        bucket.seen = now.instant;
        let has_write = bucket.left >= WRITE;
        if has_write {
            bucket.left -= WRITE;
        }
        has_write
    }
}

/// What of an address counts as one: providers give a customer a whole /64.
fn origin(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits() >> 64 << 64,
    }
}

impl Engine {
    /// Counts, with all engines that share `usage`, and keeps to these limits.
    #[must_use]
    pub fn limited(mut self, limits: Arc<Limits>, usage: Arc<Usage>) -> Self {
        self.warden.limits = limits;
        self.warden.usage = Some(usage);
        self
    }
}

#[cfg(test)]
mod tests;
