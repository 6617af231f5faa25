//! Sessions for protocols of your own: what a gateway needs to bring its clients to a running server.
//!
//! [`Engine`] is a handle on all cores; it is cheap to clone and works from any thread and any
//! asynchronous runtime. [`Engine::open`] makes a [`Session`], which sets, updates, removes, reads,
//! [listens](Session::listen) (a `Stream`), leaves [last words](Session::on_disconnect), shows signs of life
//! and ends. To the server it is a session like those of its own protocols: rules, limits, durability, order
//! and exactly-once last words are the same, and so is the answer for everything that goes wrong, an
//! [`Error`].
//!
//! The surprising idea: nothing here has a thread or a timer. Futures wait for a place in a bounded queue, the
//! core answers through its courier, and that wakes the future; so a gateway is as fast as its own runtime.
//!
//! Back-pressure: a future that would say something waits while [`GUEST_QUEUE_MAX`] things wait for its core,
//! or [`GUEST_REQUESTS_MAX`] of its session for answers. What a listen is told and nobody takes is
//! merged after [`GUEST_EVENTS_MAX`] events, and the listen ends as [`Error::TooSlow`] after [`GUEST_CHANGES_MAX`] merged
//! paths. Costs: some 750 bytes a session, all in all.
//!
//! [`GUEST_QUEUE_MAX`]: crate::base::limits::GUEST_QUEUE_MAX
//! [`GUEST_REQUESTS_MAX`]: crate::base::limits::GUEST_REQUESTS_MAX
//! [`GUEST_EVENTS_MAX`]: crate::base::limits::GUEST_EVENTS_MAX
//! [`GUEST_CHANGES_MAX`]: crate::base::limits::GUEST_CHANGES_MAX

mod ear;
mod error;
mod listen;
mod session;
mod value;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

pub use error::Error;
pub use listen::{Change, Listen};
pub use session::{OnDisconnect, Session};
pub use value::{Json, Value};

pub use crate::base::SessionId;
pub use crate::op::{Bound, BoundKey, Direction, End, Identity, Index, Limit, Query, Refusal};

use crate::base::limits::{HEARTBEAT_MIN, NAMESPACE_BYTES_MAX, SESSION_TIMEOUT_MAX};
use crate::base::{Millis, ShardId};
use crate::engine;
use crate::runtime::Door;

/// A handle on a running server, for sessions of protocols of your own.
#[derive(Clone, Debug)]
pub struct Engine {
    doors: Arc<[Door]>,
    next: Arc<AtomicUsize>,
}

impl Engine {
    /// A handle that goes through these doors, one for each core.
    ///
    /// # Panics
    /// If there is none: the server was not started for it.
    #[must_use]
    pub fn new(doors: &[Door]) -> Self {
        assert!(!doors.is_empty(), "a server has a core");
        Self { doors: doors.into(), next: Arc::default() }
    }

    /// Opens a session. The cores take turns.
    ///
    /// Dropping the future before it is ready ends the session, if it has come about.
    ///
    /// # Errors
    /// [`Error::Refused`]: the database's name is none, or is not among those allowed, the timeout is out of
    /// bounds, or a limit is reached. [`Error::Over`]: the server stops.
    pub async fn open(&self, opening: Opening) -> Result<Session, Error> {
        let opening = opening.checked()?;
        let door = self.doors[self.next.fetch_add(1, Ordering::Relaxed) % self.doors.len()].clone();
        Session::open(door, opening).await
    }

    /// How many cores serve.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.doors.len()
    }

    /// The same handle for one core only: its sessions all live there. For programs that place them.
    ///
    /// # Panics
    /// If there is no such core.
    #[must_use]
    pub fn on_shard(&self, shard: ShardId) -> Self {
        Self::new(&self.doors[shard.index()..=shard.index()])
    }
}

/// How a session is to begin.
#[derive(Clone, Debug)]
#[must_use = "nothing happens until it is given to Engine::open"]
pub struct Opening {
    namespace: String,
    identity: Identity,
    replaces: Option<SessionId>,
    timeout: Option<Duration>,
}

impl Opening {
    /// A session in this database, of nobody, that ends after as much silence as all of the database.
    pub fn new(namespace: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), identity: Identity::NOBODY, replaces: None, timeout: None }
    }

    /// Its client is this one: the program has checked that. See [`Session::sign_in`] for tokens.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = identity;
        self
    }

    /// Its client is back: the last words of that earlier session take effect before anything of this one.
    pub const fn replacing(mut self, earlier: SessionId) -> Self {
        self.replaces = Some(earlier);
        self
    }

    /// It ends after this much silence: one second to a day.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    fn checked(self) -> Result<engine::Opening, Error> {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let is_namespace =
            (1..=NAMESPACE_BYTES_MAX).contains(&self.namespace.len()) && self.namespace.bytes().all(is_name);
        if !is_namespace {
            return Err(Error::Refused(Refusal::Malformed("a database's name is made of letters, digits, - and _")));
        }
        let timeout = self.timeout.map(|timeout| Millis(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)));
        if timeout.is_some_and(|timeout| !(HEARTBEAT_MIN..=SESSION_TIMEOUT_MAX).contains(&timeout)) {
            return Err(Error::Refused(Refusal::Malformed("a timeout is one second to a day")));
        }
        let Self { namespace, identity, replaces, .. } = self;
        Ok(engine::Opening { namespace: namespace.into(), identity, replaces, timeout })
    }
}

#[cfg(test)]
mod tests;
