//! What an engine is told once, at the start: plain values, checked by whoever made them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::auth::Verifier;
use crate::base::{Millis, ShardId};
use crate::rules::{Dialect, Ruleset};

/// What an engine is told once, at the start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which of the shards this is.
    pub shard: ShardId,
    /// How many there are.
    pub shards: u8,
    /// 256 bits from which all its randomness comes; different for each engine and each start.
    pub seed: [u8; 32],
    /// 256 bits that all engines of one server share: who owns what hangs on them.
    pub common_seed: [u64; 4],
    /// How sessions of every namespace are treated that `namespaces` does not name.
    pub settings: Arc<Settings>,
    /// How sessions of some namespaces are treated.
    pub namespaces: BTreeMap<String, Arc<Settings>>,
    /// Whether only the namespaces named in `namespaces` exist.
    pub is_restricted: bool,
    /// The rules of every namespace.
    pub rules: Arc<Ruleset>,
    /// Whose names the rules may use that administrators send.
    pub dialect: Dialect,
    /// Who is believed.
    pub verifier: Arc<Verifier>,
}

/// How the sessions of a namespace are treated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// After this much silence a connection is asked for a sign of life.
    pub heartbeat: Millis,
    /// After this much silence a session is over.
    pub session_timeout: Millis,
    /// After this much silence a device's session is over: no longer when it was asked, since it cannot be.
    pub coap_session_timeout: Millis,
    /// What becomes of the last words of a session that ended in silence.
    pub late_last_words: LateLastWords,
}

/// What becomes of last words that are spoken long after their session was last heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LateLastWords {
    /// They count as spoken when the session was last heard: what others have written since stays.
    Yield,
    /// They are written like any others, as the original service does.
    Always,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            heartbeat: Millis::from_secs(20),
            session_timeout: Millis::from_secs(45),
            coap_session_timeout: Millis::from_secs(180),
            late_last_words: LateLastWords::Yield,
        }
    }
}
